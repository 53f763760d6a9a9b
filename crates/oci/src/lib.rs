//! The nouns of the OCI image-spec 1.1 and distribution-spec 1.1 as pure data.
//!
//! Everything here parses from and serialises to JSON byte-stably: maps are sorted, unknown fields are kept in
//! `extra`, absent stays absent. Nothing here reads a file or a socket.

mod config;
mod digest;
mod manifest;
pub mod media_type;
mod null;
mod platform;
mod reference;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{ChainId, DiffId, Digest, Hasher};
pub use manifest::{Descriptor, Index, Manifest};
pub use media_type::{Compression, Flavor};
pub use platform::Platform;
pub use reference::Reference;

/// What can be wrong with a noun of the specification.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OciError {
    #[error("invalid digest `{text}`: {reason}")]
    Digest { text: String, reason: &'static str },
    #[error("invalid image reference `{text}`: {reason}")]
    Reference { text: String, reason: &'static str },
    #[error("invalid platform `{text}`: {reason}")]
    Platform { text: String, reason: &'static str },
}
