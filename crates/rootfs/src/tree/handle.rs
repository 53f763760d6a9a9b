//! The tree's files by an open handle, for those who see them under another path than the tree's own (a step does).
//!
//! Each function does what the kernel lets this process do, and writes down in the table what it refuses or drops. Errors are
//! the kernel's answers, fit to be given to whoever asked. Handles may be `O_PATH`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::{FileKind, Metadata, Tree, at, sys};

const CAPABILITY: &str = "security.capability";

impl Tree {
    /// Whether anything at all is pretended: where nothing is, a change that the kernel does not refuse needs no table.
    pub fn pretends(&self) -> bool {
        self.entries().is_some()
    }

    /// As [`Tree::stat`].
    pub fn stat_of(&self, file: BorrowedFd<'_>) -> io::Result<Metadata> {
        let found = self.stat_at(file, OsStr::new(""))?;
        found.map(|found| found.metadata).ok_or_else(|| Errno::NOENT.into())
    }

    /// Whether something of this file is only pretended.
    pub fn pretends_of(&self, file: BorrowedFd<'_>) -> io::Result<bool> {
        let Some(table) = self.entries() else { return Ok(false) };
        Ok(sys::stat(file, OsStr::new(""))?.is_some_and(|found| table.get(found.key).is_some()))
    }

    /// Has the same pretended of a copy as of a file.
    pub fn pretend_alike(&self, file: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> io::Result<()> {
        let Some(table) = self.entries() else { return Ok(()) };
        let file = sys::stat(file, OsStr::new(""))?.ok_or(Errno::NOENT)?;
        let Some(entry) = table.get(file.key).cloned() else { return Ok(()) };
        drop(table);
        let copy = sys::stat(copy, OsStr::new(""))?.ok_or(Errno::NOENT)?;
        self.pretend(copy.key, |pretended| *pretended = entry)
    }

    /// Sets permission bits. A set-group-ID bit that the kernel drops without a word is written down.
    pub fn set_mode_of(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        rustix::fs::chmod(named(file).as_str(), Mode::from_raw_mode(mode))?;
        self.note_mode_of(file, mode)
    }

    fn note_mode_of(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        let real = sys::stat(file, OsStr::new(""))?.ok_or(Errno::NOENT)?;
        if real.metadata.mode == mode && self.entries().is_none() {
            return Ok(());
        }
        self.pretend(real.key, |entry| entry.pretend_mode(mode, real.metadata.mode))
    }

    /// Changes the owner, the group or both. As in the kernel, the set-id bits and capabilities of a file go; those of the
    /// table too.
    pub fn set_owner_of(&self, file: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let before = self.stat_of(file)?;
        let (user, group) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(file, c"", user, group, AtFlags::EMPTY_PATH)?;
        let Some(real) = sys::stat(file, OsStr::new(""))?.filter(|_| self.entries().is_some()) else { return Ok(()) };
        self.pretend(real.key, |entry| {
            entry.forget_owner();
            entry.forget_xattr(OsStr::new(CAPABILITY));
            let mode = if before.kind == FileKind::File { at::without_set_ids(before.mode) } else { before.mode };
            entry.pretend_mode(mode, real.metadata.mode);
        })
    }

    /// Makes a device node with exactly this mode, or a placeholder with an entry in the table where mknod is refused.
    pub fn make_node_in(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileKind,
        device: (u32, u32),
        mode: u32,
    ) -> io::Result<()> {
        self.make_node_at(directory, name, kind, device)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made: OwnedFd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        self.set_mode_of(made.as_fd(), mode)
    }

    /// Sets the capabilities of a regular file (`security.capability`, in the kernel's format) or removes them.
    pub fn set_capability_of(&self, file: BorrowedFd<'_>, value: Option<&[u8]>, flags: u32) -> io::Result<()> {
        let (path, flags) = (named(file), XattrFlags::from_bits_retain(flags));
        let done = match value {
            Some(value) => rustix::fs::setxattr(path.as_str(), CAPABILITY, value, flags),
            None => rustix::fs::removexattr(path.as_str(), CAPABILITY),
        };
        let key = sys::stat(file, OsStr::new(""))?.ok_or(Errno::NOENT)?.key;
        match (done, value) {
            (Err(error), Some(value)) if at::is_refusal(error) && self.table.is_some() => {
                self.pretend(key, |entry| entry.pretend_xattr(OsStr::new(CAPABILITY), value))
            }
            (Err(_), None) if self.pretends_capability(key) => {
                self.pretend(key, |entry| entry.forget_xattr(OsStr::new(CAPABILITY)))
            }
            (Err(error), _) => Err(error.into()),
            (Ok(()), _) if self.entries().is_none() => Ok(()),
            (Ok(()), _) => self.pretend(key, |entry| entry.forget_xattr(OsStr::new(CAPABILITY))),
        }
    }

    fn pretends_capability(&self, key: sys::Key) -> bool {
        let Some(table) = self.entries() else { return false };
        table.get(key).is_some_and(|entry| entry.xattrs().any(|(name, _)| name == CAPABILITY))
    }
}

/// The file's name through /proc: chmod and setxattr take no `O_PATH` descriptor.
fn named(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
