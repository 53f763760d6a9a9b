//! A tree with the directory of the last path and those above it kept open, since a walk stays close to where it is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::tree::{Found, Key, Xattrs, at, inside_error, resolve};
use crate::{FileKind, Metadata, RootfsError, Tree};

/// Descriptors that stay open: enough for real trees, few enough for several walks in a process that may have 1024.
const OPEN_MAX: usize = 32;

/// What [`Tree`] does, for paths that are resolved: no link in them is meant to be followed. Half the system calls.
///
/// A directory must not be replaced while it is anchored; copying never does.
pub(super) struct Anchor<'a> {
    tree: &'a Tree,
    /// Each with its path, each below the one before.
    open: RefCell<VecDeque<(PathBuf, OwnedFd)>>,
}

impl<'a> Anchor<'a> {
    pub(super) fn new(tree: &'a Tree) -> Anchor<'a> {
        Anchor { tree, open: RefCell::new(VecDeque::new()) }
    }

    fn at<T>(
        &self,
        path: &Path,
        action: &'static str,
        work: impl FnOnce(BorrowedFd<'_>, &OsStr) -> io::Result<T>,
    ) -> Result<T, RootfsError> {
        let name = path.file_name().unwrap_or(OsStr::new("."));
        self.in_directory(path.parent().unwrap_or(Path::new("")), |directory| work(directory, name))
            .map_err(|error| inside_error(action, path, error))
    }

    fn in_directory<T>(&self, path: &Path, work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let mut open = self.open.borrow_mut();
        while open.back().is_some_and(|(at, _)| !path.starts_with(at)) {
            open.pop_back();
        }
        let directory = match open.back() {
            Some((at, directory)) if at == path => return work(directory.as_fd()),
            Some((at, above)) => resolve::open_directory(above.as_fd(), path.strip_prefix(at).unwrap_or(path))?,
            None => resolve::open_directory(self.tree.root(), path)?,
        };
        if open.len() == OPEN_MAX {
            open.pop_front();
        }
        let result = work(directory.as_fd());
        open.push_back((path.to_owned(), directory));
        result
    }

    pub(super) fn stat(&self, path: &Path) -> Result<Option<Metadata>, RootfsError> {
        Ok(self.find(path)?.map(|found| found.metadata))
    }

    pub(super) fn find(&self, path: &Path) -> Result<Option<Found>, RootfsError> {
        self.at(path, "could not read the metadata of", |directory, name| self.tree.stat_at(directory, name))
    }

    pub(super) fn open_file(&self, path: &Path) -> Result<File, RootfsError> {
        self.at(path, "could not open", |directory, name| self.tree.open_file_at(directory, name))
    }

    pub(super) fn read_link(&self, path: &Path) -> Result<PathBuf, RootfsError> {
        self.at(path, "could not read the link", at::read_link)
    }

    pub(super) fn xattrs(&self, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>, RootfsError> {
        self.at(path, "could not read the attributes of", |directory, name| self.tree.xattrs_at(directory, name))
    }

    /// As [`Anchor::xattrs`], of `path` that is open, and was found before.
    pub(super) fn file_xattrs(&self, path: &Path, file: &File, key: Key) -> Result<Xattrs, RootfsError> {
        let read = self.tree.file_xattrs(file, key);
        read.map_err(|error| inside_error("could not read the attributes of", path, error))
    }

    pub(super) fn make_dir(&self, path: &Path, mode: u32) -> Result<(), RootfsError> {
        self.at(path, "could not make the directory", |directory, name| self.tree.make_dir_at(directory, name, mode))
    }

    pub(super) fn make_file(&self, path: &Path) -> Result<File, RootfsError> {
        self.at(path, "could not make the file", at::make_file)
    }

    pub(super) fn make_symlink(&self, target: &Path, path: &Path) -> Result<(), RootfsError> {
        self.at(path, "could not make the symbolic link", |directory, name| {
            Ok(rustix::fs::symlinkat(target, directory, name)?)
        })
    }

    pub(super) fn make_node(&self, path: &Path, kind: FileKind, device: (u32, u32)) -> Result<(), RootfsError> {
        self.at(path, "could not make the special file", |directory, name| {
            self.tree.make_node_at(directory, name, kind, device)
        })
    }

    pub(super) fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<(), RootfsError> {
        self.at(path, "could not change the owner of", |directory, name| {
            self.tree.set_owner_at(directory, name, uid, gid)
        })
    }

    pub(super) fn set_mode(&self, path: &Path, mode: u32) -> Result<(), RootfsError> {
        self.at(path, "could not change the mode of", |directory, name| self.tree.set_mode_at(directory, name, mode))
    }

    pub(super) fn set_xattr(&self, path: &Path, name: &OsStr, value: &[u8]) -> Result<(), RootfsError> {
        self.at(path, "could not set an attribute of", |directory, file| {
            self.tree.set_xattr_at(directory, file, name, value)
        })
    }

    pub(super) fn set_modified(&self, path: &Path, modified: (i64, u32)) -> Result<(), RootfsError> {
        self.at(path, "could not set the time of", |directory, name| at::set_modified(directory, name, modified))
    }
}
