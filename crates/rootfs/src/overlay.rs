//! What the kernel's overlay leaves in an upper directory, and how it becomes part of the directory below.
//!
//! Overlays are mounted elsewhere; this is about directories. Marks are those of Documentation/filesystems/overlayfs.rst: a
//! deletion is a character device 0:0, a directory that hides the one below has the attribute `overlay.opaque`. Overlays are
//! to be mounted without `redirect_dir`, `metacopy` and `index`, whose marks are not known here.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::commit::clone_root;
use crate::tree::{Descent, Found, at, inside_error, raw_xattrs, remove_raw_xattr, set_raw_xattr};
use crate::{FileKind, Metadata, RootfsError, Tree};

/// Under which names an overlay keeps its marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marks {
    /// `trusted.overlay.*`: mounted by real root.
    Trusted,
    /// `user.overlay.*`: mounted with `userxattr`, as root of a user namespace has to.
    User,
}

impl Marks {
    fn opaque(self) -> &'static str {
        match self {
            Marks::Trusted => "trusted.overlay.opaque",
            Marks::User => "user.overlay.opaque",
        }
    }

    /// Whether a directory hides what is below it.
    pub(crate) fn is_opaque(self, directory: BorrowedFd<'_>) -> io::Result<bool> {
        let mut value = [0; 4];
        match rustix::fs::fgetxattr(directory, self.opaque(), &mut value) {
            Ok(length) => Ok(&value[..length] == b"y"),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the directory at `path` hides what is below it.
    pub fn is_opaque_at(self, path: &Path) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.is_opaque(rustix::fs::open(path, flags, Mode::empty())?.as_fd())
    }

    fn make_opaque(self, directory: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::fs::fsetxattr(directory, self.opaque(), b"y", rustix::fs::XattrFlags::empty())?)
    }
}

/// Whether a file of an upper directory stands for a deletion.
pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.kind == FileKind::CharDevice && metadata.device == (0, 0)
}

/// Makes the empty directory `path` to be the upper one over `below`: it has to look like the root there.
pub fn make_upper(path: &Path, below: &Tree) -> Result<(), RootfsError> {
    clone_root(below, &Tree::create(path, None)?)
}

/// Makes the upper directory `upper` part of the directory below it, `onto`, by renames. Both are on one file system, and no
/// overlay of them may be mounted any more. What is left of `upper` is of no use then.
///
/// With `below` there is more below `onto`: then deletions of what is there and opaque directories stay marked.
///
/// # Errors
/// [`RootfsError::Io`] with the path. `onto` is then between its states: discard it.
pub fn merge_down(upper: &Tree, onto: &Tree, marks: Marks, below: Option<&Tree>) -> Result<(), RootfsError> {
    let mut merge = Merge { upper, onto, marks, below, path: PathBuf::new() };
    merge.run().map_err(|error| inside_error("could not take over", &merge.path, error))
}

struct Merge<'a> {
    upper: &'a Tree,
    onto: &'a Tree,
    marks: Marks,
    below: Option<&'a Tree>,
    /// Of the current file.
    path: PathBuf,
}

/// The same directory in both trees.
struct Pair {
    upper: Descent,
    onto: Descent,
    /// As far as what is below shows through.
    below: Option<Descent>,
}

impl Merge<'_> {
    fn run(&mut self) -> io::Result<()> {
        let top = |tree: &Tree| Descent::new(tree.open_dir_at(tree.root(), OsStr::new("."))?);
        let below = self.below.map(top).transpose()?;
        let mut pair = Pair { upper: top(self.upper)?, onto: top(self.onto)?, below };
        let mut levels = vec![self.enter(&pair, self.below.is_some())?];
        while let Some(level) = levels.last_mut() {
            self.onto.stop().check()?;
            let Some(name) = level.names.pop() else {
                // Renames into it changed its time.
                at::set_modified(pair.onto.current(), OsStr::new("."), level.modified)?;
                if level.has_below
                    && let Some(below) = &mut pair.below
                {
                    below.leave()?;
                }
                levels.pop();
                pair.upper.leave()?;
                pair.onto.leave()?;
                self.path.pop();
                continue;
            };
            self.path.push(&name);
            let has_below = level.has_below;
            if self.take(&pair, &name, has_below)? {
                let has_below = has_below && self.enter_below(&mut pair, &name)?;
                let (upper, onto) = (pair.upper.current(), pair.onto.current());
                let below = (self.upper.open_dir_at(upper, &name)?, self.onto.open_dir_at(onto, &name)?);
                pair.upper.enter(below.0, name.clone())?;
                pair.onto.enter(below.1, name)?;
                levels.push(self.enter(&pair, has_below)?);
            } else {
                self.path.pop();
            }
        }
        Ok(())
    }

    /// Begins with the current directory of both.
    fn enter(&self, pair: &Pair, has_below: bool) -> io::Result<Level> {
        take_metadata(pair)?;
        let itself = |tree: &Tree, descent: &Descent| tree.stat_at(descent.current(), OsStr::new("."));
        let (upper, onto) = (itself(self.upper, &pair.upper)?, itself(self.onto, &pair.onto)?);
        let (Some(upper), Some(onto)) = (upper, onto) else { return Err(Errno::NOENT.into()) };
        self.upper.move_entry(upper.key, onto.key)?;
        Ok(Level { names: at::names(pair.upper.current())?, modified: upper.metadata.modified, has_below })
    }

    /// Goes along below, where the directory `name` is one there, too, and is not hidden.
    fn enter_below(&self, pair: &mut Pair, name: &OsStr) -> io::Result<bool> {
        let (Some(tree), Some(descent)) = (self.below, &mut pair.below) else { return Ok(false) };
        let is_directory = |found: Found| found.metadata.kind == FileKind::Directory;
        if !tree.stat_at(descent.current(), name)?.is_some_and(is_directory) {
            return Ok(false);
        }
        if self.marks.is_opaque(self.onto.open_dir_at(pair.onto.current(), name)?.as_fd())? {
            return Ok(false);
        }
        let directory = tree.open_dir_at(descent.current(), name)?;
        descent.enter(directory, name.to_owned())?;
        Ok(true)
    }

    /// Whether there is something below for a mark at `name` to hide. The kernel lists a deletion of nothing as a file.
    fn hides_something(&self, pair: &Pair, name: &OsStr) -> io::Result<bool> {
        match (self.below, &pair.below) {
            (Some(tree), Some(descent)) => Ok(tree.stat_at(descent.current(), name)?.is_some()),
            _ => Ok(false),
        }
    }

    /// Takes one name over. True for a directory that exists in both: then what is in it remains to be done.
    fn take(&self, pair: &Pair, name: &OsStr, has_below: bool) -> io::Result<bool> {
        let (from, to) = (pair.upper.current(), pair.onto.current());
        let Some(found) = self.upper.stat_at(from, name)? else { return Ok(false) };
        let existing = self.onto.stat_at(to, name)?;
        let keep_marks = has_below && self.hides_something(pair, name)?;
        if is_whiteout(&found.metadata) && !keep_marks {
            self.onto.remove_at(to, name)?;
            return Ok(false);
        }
        let is_directory = |found: &Found| found.metadata.kind == FileKind::Directory;
        let mut hides = false;
        if is_directory(&found) {
            let directory = self.upper.open_dir_at(from, name)?;
            hides = self.marks.is_opaque(directory.as_fd())?;
            match &existing {
                Some(existing) if is_directory(existing) && !hides => return Ok(true),
                // What is replaced hid what is below it.
                Some(existing) if !is_directory(existing) && !hides && keep_marks => {
                    self.marks.make_opaque(directory.as_fd())?;
                }
                _ => {}
            }
        }
        if existing.is_some_and(|existing| hides || is_directory(&existing) || is_directory(&found)) {
            self.onto.remove_at(to, name)?;
        }
        Ok(rustix::fs::renameat(from, name, to, name).map(|()| false)?)
    }
}

/// A directory that is being taken over.
struct Level {
    names: Vec<OsString>,
    modified: (i64, u32),
    /// What is below shows through this directory.
    has_below: bool,
}

/// Owner, mode and attributes of a directory of the upper tree for its counterpart. The time is put back at the end.
fn take_metadata(pair: &Pair) -> io::Result<()> {
    let (from, to) = (pair.upper.current(), pair.onto.current());
    let (new, old) = (rustix::fs::fstat(from)?, rustix::fs::fstat(to)?);
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
        let owner = (rustix::fs::Uid::from_raw(new.st_uid), rustix::fs::Gid::from_raw(new.st_gid));
        rustix::fs::chownat(to, ".", Some(owner.0), Some(owner.1), AtFlags::empty())?;
    }
    if new.st_mode != rustix::fs::fstat(to)?.st_mode {
        rustix::fs::fchmod(to, Mode::from_raw_mode(new.st_mode & 0o7777))?;
    }
    let (wanted, there) = (raw_xattrs(from, is_the_steps)?, raw_xattrs(to, is_the_steps)?);
    let is_missing = |name: &OsString| !wanted.iter().any(|(wanted, _)| wanted == name);
    for (name, _) in there.iter().filter(|(name, _)| is_missing(name)) {
        tolerant(remove_raw_xattr(to, name))?;
    }
    for (name, value) in wanted.iter().filter(|attribute| !there.contains(attribute)) {
        tolerant(set_raw_xattr(to, name, value))?;
    }
    Ok(())
}

/// Attributes that a step can have set: not the overlay's own.
fn is_the_steps(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// A label that only a security module may set stays as the module made it.
fn tolerant(done: rustix::io::Result<()>) -> io::Result<()> {
    match done {
        Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS | Errno::NODATA) => Ok(()),
        result => Ok(result?),
    }
}

/// Puts entries of the metadata table where the files are once `merged`, the mounted overlay, is gone: for a file of the
/// lower directory the overlay shows the inode number there, and the file that stays is the copy in `upper`.
///
/// To be called while the overlay is mounted. `upper` is open with the table; `merged` gives what the files are called by.
pub fn follow_entries(merged: &Path, upper: &Tree) -> Result<(), RootfsError> {
    if !upper.has_entries() {
        return Ok(());
    }
    let merged = Tree::open(merged, None)?;
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        for name in upper.read_dir(&path)? {
            upper.go_on()?;
            let path = path.join(name);
            let Some(kind) = upper.follow(&merged, &path)? else { continue };
            if kind == FileKind::Directory {
                pending.push(path);
            }
        }
    }
    Ok(())
}
