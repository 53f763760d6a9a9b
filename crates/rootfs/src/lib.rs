//! A stage's directory tree: layers in, changes out, COPY between trees.
//!
//! Everything goes through [`Tree`], which resolves every path beneath its directory handle and answers for owners, modes,
//! device numbers and capabilities even where the process may not set them (a table beside the tree). It does not know
//! images, registries or Dockerfiles.

pub mod archive;
pub mod commit;
mod contents;
pub mod copy;
mod entries;
pub mod overlay;
mod stop;
mod tar;
mod tree;
pub mod unpack;

pub use entries::{Entries, LayerEntry};
pub use stop::{Stop, Watched};
pub use tree::{FileKind, Metadata, OwnFiles, Tree, Wanted};

use std::path::PathBuf;

/// The mode bit of a directory that hands its group, and the bit, on to what is made in it.
const SET_GROUP_ID: u32 = 0o2000;

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("{action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("layer entry `{}` leads out of the rootfs", path.display())]
    Escape { path: PathBuf },
    #[error("invalid layer: {reason}")]
    InvalidLayer { reason: String },
    #[error("layer is larger than the limit of {limit_bytes} bytes when unpacked")]
    TooLarge { limit_bytes: u64 },
    #[error("could not read layer")]
    Read(#[source] std::io::Error),
    #[error("could not write layer")]
    Write(#[source] std::io::Error),
    #[error("file `{}` cannot be put into a layer: a name that begins with `.wh.` marks a deletion", path.display())]
    WhiteoutName { path: PathBuf },
    #[error("cancelled")]
    Cancelled,
}
