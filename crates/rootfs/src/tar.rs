//! The tar format as layers and ADD archives use it: a reader for every dialect, a writer for one.
//!
//! Where dialects or broken archives leave room, Go's `archive/tar` is the measure, because BuildKit and containerd read with
//! it. The reader trusts nothing: numbers, lengths and maps are checked before anything is allocated or skipped.

mod read;
mod write;

pub(crate) use read::{Error, Reader, is_header};
pub(crate) use write::{CopyError, Writer};

use std::ffi::OsString;

pub(crate) const BLOCK: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry. Names are bytes as they stand in the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub kind: Kind,
    pub path: Vec<u8>,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Size of the file, holes included.
    pub size_bytes: u64,
    pub modified: (i64, u32),
    pub device: (u32, u32),
    /// Sorted by name as far as the archive has them so.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// (offset, length) of the pieces that are stored, ascending; none where all of the file is.
    pub pieces: Option<Vec<(u64, u64)>>,
}

/// The one extended attribute that a layer of ours has.
pub(crate) const CAPABILITY: &str = "security.capability";

pub(crate) fn capability(xattrs: &[(OsString, Vec<u8>)]) -> Option<&[u8]> {
    xattrs.iter().find(|(name, _)| name == CAPABILITY).map(|(_, value)| value.as_slice())
}

impl Entry {
    pub fn capability(&self) -> Option<&[u8]> {
        capability(&self.xattrs)
    }
}

/// Offsets in a header block (POSIX `ustar`).
mod field {
    use std::ops::Range;

    pub const NAME: Range<usize> = 0..100;
    pub const MODE: Range<usize> = 100..108;
    pub const UID: Range<usize> = 108..116;
    pub const GID: Range<usize> = 116..124;
    pub const SIZE: Range<usize> = 124..136;
    pub const MODIFIED: Range<usize> = 136..148;
    pub const CHECKSUM: Range<usize> = 148..156;
    pub const TYPE: usize = 156;
    pub const LINK: Range<usize> = 157..257;
    pub const MAGIC: Range<usize> = 257..265;
    pub const DEVICE_MAJOR: Range<usize> = 329..337;
    pub const DEVICE_MINOR: Range<usize> = 337..345;
    pub const PREFIX: Range<usize> = 345..500;
    /// Schily's star has a shorter prefix and this at the end of the block.
    pub const STAR_PREFIX: Range<usize> = 345..476;
    pub const STAR_TRAILER: Range<usize> = 508..512;
    /// GNU: times in the place of the prefix, then the start of the map of a sparse file.
    pub const GNU_TIMES: [Range<usize>; 2] = [345..357, 357..369];
    pub const GNU_SPARSE: Range<usize> = 386..482;
    pub const GNU_SPARSE_MORE: usize = 482;
    pub const GNU_REAL_SIZE: Range<usize> = 483..495;
    /// A block that continues the map.
    pub const GNU_MORE_SPARSE: Range<usize> = 0..504;
    pub const GNU_MORE_SPARSE_MORE: usize = 504;
}
