//! The bytes of one file into another: shared where the file system can, copied in the kernel where it may, holes kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;

use crate::Stop;

/// Enough to make system calls cheap, small enough to have one per copy.
const BUFFER_BYTES: usize = 128 * 1024;

/// What the kernel copies in one call, which nothing interrupts: a tenth of a second on a slow disk.
const CALL_BYTES: usize = 8 << 20;

/// Copies file contents; remembers what the file systems at hand refuse.
pub(super) struct ContentCopier {
    try_clone: bool,
    try_in_kernel: bool,
    buffer: Vec<u8>,
    stop: Stop,
}

impl ContentCopier {
    pub(super) fn new(stop: &Stop) -> ContentCopier {
        ContentCopier { try_clone: true, try_in_kernel: true, buffer: Vec::new(), stop: stop.clone() }
    }

    /// Copies all of `from` into the empty `to` and returns the size in bytes. A file that shrinks meanwhile ends early, or in a hole.
    pub(super) fn copy(&mut self, from: &File, to: &File) -> io::Result<u64> {
        let status = rustix::fs::fstat(from)?;
        let size = u64::try_from(status.st_size).unwrap_or(0);
        if size == 0 || self.clone_whole(from, to) {
            return Ok(size);
        }
        // Fewer blocks than bytes means holes (or compression, where looking for holes costs little).
        let blocks = u64::try_from(status.st_blocks).unwrap_or(0);
        if blocks.saturating_mul(512) >= size {
            return self.copy_range(from, to, 0, size);
        }
        self.copy_extents(from, to, size)?;
        // The last hole, if any, is made by the length alone.
        to.set_len(size)?;
        Ok(size)
    }

    fn clone_whole(&mut self, from: &File, to: &File) -> bool {
        self.try_clone = self.try_clone && rustix::fs::ioctl_ficlone(to, from).is_ok();
        self.try_clone
    }

    fn copy_extents(&mut self, from: &File, to: &File, size: u64) -> io::Result<()> {
        let mut position = 0;
        while position < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(position)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(_) => return self.copy_range(from, to, position, size).map(|_| ()),
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size).min(size);
            self.copy_range(from, to, start, end)?;
            position = end.max(start + 1);
        }
        Ok(())
    }

    /// Copies up to `end` and returns where it stopped: there, or where the file has ended.
    fn copy_range(&mut self, from: &File, to: &File, start: u64, end: u64) -> io::Result<u64> {
        let mut position = start;
        while self.try_in_kernel && position < end {
            self.stop.check()?;
            let (mut read_at, mut write_at) = (position, position);
            let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(CALL_BYTES);
            match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), wanted) {
                // Some file systems answer 0 for what they cannot copy: reading decides whether the file has ended.
                Ok(0) => break,
                Ok(copied) => position += copied as u64,
                Err(rustix::io::Errno::INTR) => {}
                // Whatever the reason (EXDEV, ENOSYS, a seccomp filter), plain reading meets the real errors itself.
                Err(_) => self.try_in_kernel = false,
            }
        }
        self.copy_plainly(from, to, position, end)
    }

    fn copy_plainly(&mut self, from: &File, to: &File, mut position: u64, end: u64) -> io::Result<u64> {
        while position < end {
            self.stop.check()?;
            self.buffer.resize(BUFFER_BYTES, 0);
            let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            let read = match from.read_at(&mut self.buffer[..wanted], position) {
                Ok(0) => return Ok(position),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            to.write_all_at(&self.buffer[..read], position)?;
            position += read as u64;
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::unix::fs::MetadataExt as _;

    fn copiers() -> [ContentCopier; 3] {
        [
            ContentCopier::new(&Stop::default()),
            ContentCopier { try_clone: false, ..ContentCopier::new(&Stop::default()) },
            ContentCopier { try_clone: false, try_in_kernel: false, ..ContentCopier::new(&Stop::default()) },
        ]
    }

    #[test]
    fn holes_stay_holes_and_bytes_stay_bytes() {
        let mut from = tempfile::tempfile().unwrap();
        from.seek(io::SeekFrom::Start(3 << 20)).unwrap();
        from.write_all(b"middle").unwrap();
        from.set_len(9 << 20).unwrap();
        for mut copier in copiers() {
            let mut to = tempfile::tempfile().unwrap();
            assert_eq!(copier.copy(&from, &to).unwrap(), 9 << 20);
            let mut content = Vec::new();
            to.read_to_end(&mut content).unwrap();
            assert_eq!(content.len(), 9 << 20);
            assert_eq!(&content[3 << 20..(3 << 20) + 6], b"middle");
            assert!(content.iter().filter(|&&byte| byte != 0).count() == 6);
            if from.metadata().unwrap().blocks() * 512 < 1 << 20 {
                assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "holes were filled");
            } else {
                eprintln!("skipped: this file system has no holes");
            }
        }
    }

    #[test]
    fn dense_files_larger_than_the_buffer() {
        let bytes: Vec<u8> = (0..BUFFER_BYTES * 2 + 17).map(|i| (i % 251) as u8).collect();
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&bytes).unwrap();
        for mut copier in copiers() {
            let mut to = tempfile::tempfile().unwrap();
            copier.copy(&from, &to).unwrap();
            let mut content = Vec::new();
            to.read_to_end(&mut content).unwrap();
            assert!(content == bytes);
        }
    }
}
