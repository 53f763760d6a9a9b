//! The builder's own files in a directory of the user's, which no walk of it sees.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};

use super::{Tree, sys};
use crate::{FileKind, Metadata, RootfsError};

/// Which files are the builder's own, by device and inode: by whatever path a walk comes to them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnFiles(HashSet<(u64, u64)>);

impl OwnFiles {
    /// Those at `paths`. What is not there is not waited for.
    pub fn at(paths: impl IntoIterator<Item = PathBuf>) -> OwnFiles {
        let identity = |path: PathBuf| std::fs::symlink_metadata(path).map(|it| (it.dev(), it.ino())).ok();
        OwnFiles(paths.into_iter().filter_map(identity).collect())
    }

    fn has(&self, metadata: &Metadata) -> bool {
        self.0.contains(&(metadata.device_id, metadata.inode))
    }
}

/// What a tree does not show.
#[derive(Clone, Debug)]
pub(super) struct Hidden {
    own: Arc<OwnFiles>,
    /// Whether any of it is in the tree; found out when it is first asked for.
    is_inside: Arc<OnceLock<bool>>,
}

impl Hidden {
    pub(super) fn has(&self, metadata: &Metadata) -> bool {
        self.own.has(metadata)
    }

    /// Whether `directory` is one of the builder's own or lies in one, as far up as `root`, which counts as the user's wherever
    /// it is: an unpacked context lies in the work directory.
    pub(super) fn covers(&self, directory: BorrowedFd<'_>, root: BorrowedFd<'_>) -> io::Result<bool> {
        let identity = |directory: BorrowedFd<'_>| {
            let found = sys::stat(directory, "".as_ref())?.ok_or(io::ErrorKind::NotFound)?;
            io::Result::Ok(found.metadata)
        };
        let same = |a: &Metadata, b: &Metadata| (a.device_id, a.inode) == (b.device_id, b.inode);
        let top = identity(root)?;
        let mut metadata = identity(directory)?;
        let mut opened: Option<OwnedFd> = None;
        while !same(&metadata, &top) {
            if self.has(&metadata) {
                return Ok(true);
            }
            let current = opened.as_ref().map_or(directory, |opened| opened.as_fd());
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = rustix::fs::openat(current, "..", flags, Mode::empty())?;
            let next = identity(above.as_fd())?;
            if same(&next, &metadata) {
                break;
            }
            metadata = next;
            opened = Some(above);
        }
        Ok(false)
    }
}

impl Tree {
    /// The tree without the builder's own files: they are not there for anybody who looks through it.
    pub fn hiding(self, own: &Arc<OwnFiles>) -> Tree {
        let hidden = (!own.0.is_empty()).then(|| Hidden { own: own.clone(), is_inside: Arc::default() });
        Tree { hidden, ..self }
    }

    /// Whether files of the builder's own are hidden below `directory`: who shows it to others by its path on the host shows
    /// more than the tree does.
    pub fn hides_below(&self, directory: &Path) -> Result<bool, RootfsError> {
        let Some(hidden) = &self.hidden else { return Ok(false) };
        let is_inside = match hidden.is_inside.get() {
            Some(is_inside) => *is_inside,
            None => {
                let found = self.finds_hidden(hidden, Path::new(""))?;
                *hidden.is_inside.get_or_init(|| found)
            }
        };
        Ok(is_inside && self.finds_hidden(hidden, directory)?)
    }

    fn finds_hidden(&self, hidden: &Hidden, directory: &Path) -> Result<bool, RootfsError> {
        // The same tree with nothing hidden, so that the walk comes to what is.
        let all = Tree { hidden: None, ..self.share()? };
        let mut pending = vec![directory.to_owned()];
        while let Some(directory) = pending.pop() {
            for name in all.read_dir(&directory)? {
                self.go_on()?;
                let path = directory.join(name);
                let Some(metadata) = all.stat(&path)? else { continue };
                if hidden.has(&metadata) {
                    return Ok(true);
                }
                if metadata.kind == FileKind::Directory {
                    pending.push(path);
                }
            }
        }
        Ok(false)
    }
}
