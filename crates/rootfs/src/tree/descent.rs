//! A way down into a directory tree of any depth with a bounded number of descriptors.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sys;

/// Descriptors that stay open; a process may have as few as 1024, and several trees are walked at a time.
const MAX_OPEN: usize = 32;

/// Directories from one at the top down to the current one. Those far above the current one are closed and opened again
/// through `..` on the way back, when their identity is checked.
#[derive(Debug)]
pub(crate) struct Descent {
    levels: Vec<Level>,
    /// Descriptors of the last levels, the current one last.
    open: VecDeque<OwnedFd>,
}

#[derive(Debug)]
struct Level {
    /// Its name in the level above.
    name: OsString,
    identity: (u64, u64),
}

impl Descent {
    pub fn new(top: OwnedFd) -> io::Result<Descent> {
        let level = Level { name: OsString::new(), identity: identity(top.as_fd())? };
        Ok(Descent { levels: vec![level], open: VecDeque::from([top]) })
    }

    pub fn current(&self) -> BorrowedFd<'_> {
        self.open.back().expect("the current directory is always open").as_fd()
    }

    /// Makes `directory`, which is `name` in the current one, the current one.
    pub fn enter(&mut self, directory: OwnedFd, name: OsString) -> io::Result<()> {
        let identity = identity(directory.as_fd())?;
        if self.open.len() == MAX_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(directory);
        self.levels.push(Level { name, identity });
        Ok(())
    }

    /// Goes up by one and gives the name of the directory that was left; none at the top.
    pub fn leave(&mut self) -> io::Result<Option<OsString>> {
        if self.levels.len() == 1 {
            return Ok(None);
        }
        if self.open.len() == 1 {
            let parent = self.open_parent()?;
            self.open.push_front(parent);
        }
        self.open.pop_back();
        Ok(self.levels.pop().map(|level| level.name))
    }

    fn open_parent(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(self.current(), "..", flags, Mode::empty())?;
        let expected = &self.levels[self.levels.len() - 2];
        if identity(parent.as_fd())? != expected.identity {
            return Err(io::Error::other("a directory was moved while the tree was read"));
        }
        Ok(parent)
    }
}

fn identity(directory: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let found = sys::stat(directory, OsStr::new("."))?.ok_or(Errno::NOENT)?;
    Ok((found.metadata.device_id, found.metadata.inode))
}
