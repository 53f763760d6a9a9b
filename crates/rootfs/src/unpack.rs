//! Layers into a tree.

use std::io::Read;

use crate::{RootfsError, Tree};

/// What a layer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sum of file contents in bytes.
    pub size_bytes: u64,
    pub entries: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unpacked {
    pub entries: u64,
    pub size_bytes: u64,
}

/// Unpacks one layer over `into`.
///
/// `layer` is the uncompressed tar stream. Whiteouts remove what earlier layers left and are not written themselves; opaque
/// markers hide lower children only. OCI image-spec 1.1, `layer.md`, «Applying Changesets».
pub fn unpack(layer: &mut dyn Read, into: &Tree, limits: &Limits) -> Result<Unpacked, RootfsError> {
    let _ = (layer, into, limits);
    unimplemented!()
}
