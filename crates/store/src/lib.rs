//! Blobs and images under their digests, on disk as an OCI image layout; and the media an image can be written to.
//!
//! This floor owns the seams of everything that holds or takes blobs: [`BlobSource`], [`BlobSink`], [`ImageSource`],
//! [`Exporter`]. Registries implement them one floor up.

mod archive;
mod catalog;
pub mod contract;
mod decode;
mod export;
mod gzip;
mod image;
mod layer;
mod layout;
mod tar;
mod verify;
mod write;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use oci::{Descriptor, DiffId, Digest, Flavor, ImageConfig, Platform, Reference};

pub use archive::Archive;
pub use decode::decode;
pub use export::{ArchiveExporter, ArchiveFormat, Destination, LayoutExporter, write_whole};
pub use image::{
    Document, Encoded, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, choose_platform, is_attestation, read_document,
};
pub use layout::{EntryName, Layout, LayoutSource};
pub use verify::{Verified, read_blob};
pub use write::{LayerCompression, LayerWriter};

/// Opens blobs to read. The reader gives the bytes as stored (compressed); whoever reads verifies the digest.
pub trait BlobSource: Send + Sync {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError>;
}

/// Takes blobs.
pub trait BlobSink: Send + Sync {
    fn contains(&self, blob: &Descriptor) -> Result<bool, StoreError>;
    /// Stores `content` and checks that it has the digest and size of `blob`; nothing is stored otherwise.
    fn put(&self, blob: &Descriptor, content: &mut dyn Read) -> Result<(), StoreError>;
}

/// Finds images: a registry, an OCI layout.
pub trait ImageSource: Send + Sync {
    /// The image that `reference` names, for `platform`. Fetches manifest and config only: layers are opened when read.
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image, StoreError>;
}

/// Writes a finished image somewhere.
pub trait Exporter: Send + Sync {
    /// Takes a layer that is final while the rest is still being built, so that an upload can overlap it. May do nothing.
    fn prepare(&self, layer: &Layer) -> Result<(), StoreError>;
    /// Writes the image; the result is the digest of its manifest there.
    fn export(&self, image: &Image) -> Result<Digest, StoreError>;
    /// For messages: `registry.example/app:1`, `OCI layout out/`.
    fn describe(&self) -> String;
}

/// Where a layer came from, so that a registry can mount it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    pub registry: String,
    pub repository: String,
}

/// A layer that knows how to open itself.
#[derive(Clone)]
pub struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: DiffId,
    pub content: Arc<dyn BlobSource>,
    pub origin: Option<Origin>,
}

/// An image: an immutable value. Changing one means making another.
#[derive(Clone)]
pub struct Image {
    pub config: ImageConfig,
    /// Bottom first.
    pub layers: Vec<Layer>,
    pub flavor: Flavor,
    /// Manifest annotations.
    pub annotations: BTreeMap<String, String>,
    /// The manifest's digest where the image was found; none for an image that we made.
    pub digest: Option<Digest>,
}

/// Told about transfers as they go. Implementations return quickly and are called from any thread.
pub trait TransferObserver: Send + Sync {
    fn transfer(&self, transfer: &Transfer);
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    pub direction: Direction,
    /// What: a digest, `manifest`, or a URL without its query.
    pub what: String,
    /// Where to or from: a registry or path.
    pub place: String,
    pub done_bytes: u64,
    pub total_bytes: Option<u64>,
    pub state: TransferState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Pull,
    Push,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferState {
    Started,
    Progress,
    Done,
    /// The destination had it.
    Exists,
    /// Mounted from another repository of the destination.
    Mounted,
    /// Being tried again, and why.
    Retry(String),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{action} `{path}`")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("blob `{digest}` is not in {place}")]
    Missing { digest: Digest, place: String },
    #[error("blob has digest `{actual}`, expected `{expected}`")]
    WrongDigest { expected: Digest, actual: Digest },
    #[error("blob `{digest}` has {actual} bytes, expected {expected}")]
    WrongSize { digest: Digest, expected: u64, actual: u64 },
    #[error("{what}: {reason}")]
    Invalid { what: String, reason: String },
    #[error("no image for platform `{wanted}` in `{reference}`; it has {available}")]
    Platform { wanted: String, reference: String, available: String },
    #[error("could not read blob")]
    Read(#[source] std::io::Error),
    /// What a registry answered; the message is complete (status, code, hint on credentials).
    #[error("{message}")]
    Remote {
        message: String,
        hint: Option<String>,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    #[error("cancelled")]
    Cancelled,
}

impl StoreError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            StoreError::Remote { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
