//! Is this file an archive, and what is in it: ADD's unpacking.

use std::fs::File;
use std::io::Read;

use crate::RootfsError;

/// Opens `file` as a plain tar stream when its content is a tar, plain or compressed (gzip, bzip2, xz, zstd), whatever its
/// name; none for anything else. BuildKit `isArchive`.
pub fn open_archive(file: File) -> Result<Option<Box<dyn Read + Send>>, RootfsError> {
    let _ = file;
    unimplemented!()
}
