//! What stands in a layer, one entry after the other: for who compares layers rather than unpacking them.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::RootfsError;
use crate::tar::{Entry, Kind, Reader};
use crate::unpack::{clean, tar_error};

/// One entry of a layer. Whiteouts are entries as any other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerEntry {
    /// Relative to the rootfs, without `.` and `..`; empty for the rootfs itself.
    pub path: PathBuf,
    /// `file`, `directory`, `symbolic link`, `hard link`, `character device`, `block device` or `fifo`.
    pub kind: &'static str,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Size of the file, holes included.
    pub size_bytes: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, u32),
    pub device: (u32, u32),
    /// Sorted by name.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// (offset, length) of what is stored of a sparse file; none where all of it is.
    pub pieces: Option<Vec<(u64, u64)>>,
}

/// Reads the entries of an uncompressed layer; after [`Entries::next_entry`] it reads the stored bytes of that entry.
pub struct Entries<R>(Reader<R>);

impl<R: Read> Entries<R> {
    pub fn new(layer: R) -> Entries<R> {
        Entries(Reader::new(layer))
    }

    /// The next entry; what is left of the one before is skipped.
    ///
    /// # Errors
    /// [`RootfsError::InvalidLayer`] and [`RootfsError::Read`], as for unpacking.
    pub fn next_entry(&mut self) -> Result<Option<LayerEntry>, RootfsError> {
        self.0.next().map_err(tar_error)?.map(layer_entry).transpose()
    }

    /// Reads what follows the archive, so that a reader which verifies gets its say. Padding only: `limit_bytes` at most.
    ///
    /// # Errors
    /// [`RootfsError::InvalidLayer`] beyond `limit_bytes`.
    pub fn finish(mut self, limit_bytes: u64) -> Result<(), RootfsError> {
        match self.0.drain(limit_bytes).map_err(tar_error)? {
            true => Ok(()),
            false => Err(RootfsError::InvalidLayer { reason: "much follows the end of the archive".to_owned() }),
        }
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

fn layer_entry(entry: Entry) -> Result<LayerEntry, RootfsError> {
    let kind = match entry.kind {
        Kind::File => "file",
        Kind::HardLink => "hard link",
        Kind::Symlink => "symbolic link",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
        Kind::Directory => "directory",
        Kind::Fifo => "fifo",
    };
    let mut xattrs = entry.xattrs;
    xattrs.sort();
    Ok(LayerEntry {
        path: clean(&entry.path)?,
        kind,
        link: entry.link,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size_bytes: entry.size_bytes,
        modified: entry.modified,
        device: entry.device,
        xattrs,
        pieces: entry.pieces,
    })
}
