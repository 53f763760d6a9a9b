//! Paths inside a root directory, one component at a time.
//!
//! The kernel does it in one call (`openat2`); this is for kernels and filters without it, for paths longer than PATH_MAX, and
//! for callers who want to know the resolved path rather than the file.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The kernel's limit on links in one path (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A walk that is under way: directories that are open, then names that were appended without looking.
struct Walk<'r> {
    root: BorrowedFd<'r>,
    /// Directories below the root that the path went through, each with its name.
    open: Vec<(OsString, OwnedFd)>,
    /// What follows the first component that does not exist or is no directory.
    rest: Vec<OsString>,
    links: usize,
    /// What is not there is an error.
    must_exist: bool,
}

/// Resolves `path` below `root`. Links are resolved against the root, `..` stops at it. Components that do not exist are
/// kept, and `..` takes them away again. The last component is followed only when `follow_last`.
///
/// # Errors
/// ELOOP after 40 links; whatever opening a directory or reading a link fails with, but for «does not exist».
pub fn resolve(root: BorrowedFd<'_>, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
    let walk = Walk { root, open: Vec::new(), rest: Vec::new(), links: 0, must_exist: false };
    walk.whole(path, follow_last).map(Walk::into_path)
}

/// Opens the directory `path` below `root` (O_PATH), as the kernel would: every component must be there.
pub fn open_directory(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let walk = Walk { root, open: Vec::new(), rest: Vec::new(), links: 0, must_exist: true };
    let mut walk = walk.whole(path, true).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    match walk.open.pop() {
        Some((_, directory)) => Ok(directory),
        None => rustix::fs::openat(root, ".", directory_flags(), Mode::empty()),
    }
}

/// Stacks the components of `path`, the first on top. `..` stays `..`; `.` and empty ones go.
fn push_components(stack: &mut Vec<OsString>, path: &Path) {
    let components = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    let names: Vec<OsString> = components.collect();
    stack.extend(names.into_iter().rev());
}

impl Walk<'_> {
    fn whole(mut self, path: &Path, follow_last: bool) -> io::Result<Self> {
        let mut pending = Vec::new();
        push_components(&mut pending, path);
        while let Some(component) = pending.pop() {
            let is_last = pending.is_empty();
            if let Some(target) = self.step(component, is_last && !follow_last)? {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                if target.has_root() {
                    self.open.clear();
                }
                push_components(&mut pending, &target);
            }
        }
        Ok(self)
    }

    /// Takes one component. Gives the target where it was a link that is to be followed.
    fn step(&mut self, name: OsString, keep_link: bool) -> io::Result<Option<PathBuf>> {
        if name == ".." {
            if self.rest.pop().is_none() {
                self.open.pop();
            }
            return Ok(None);
        }
        if !self.rest.is_empty() {
            self.rest.push(name);
            return Ok(None);
        }
        let current = self.open.last().map_or(self.root, |(_, directory)| directory.as_fd());
        if !keep_link {
            match rustix::fs::readlinkat(current, &name, Vec::new()) {
                Ok(target) if target.is_empty() => return Err(Errno::NOENT.into()),
                Ok(target) => return Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes())))),
                Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::openat(current, &name, directory_flags(), Mode::empty()) {
            Ok(directory) => self.open.push((name, directory)),
            // With O_NOFOLLOW and O_DIRECTORY a link is «not a directory» too.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !self.must_exist => self.rest.push(name),
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }

    /// Without a leading `/`, without `.`, `..` and links.
    fn into_path(self) -> PathBuf {
        let mut path = Vec::new();
        for name in self.open.iter().map(|(name, _)| name).chain(&self.rest) {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
        }
        PathBuf::from(OsString::from_vec(path))
    }
}

fn directory_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
