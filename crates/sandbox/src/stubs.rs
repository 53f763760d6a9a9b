//! Mount points that had to be made: which are missing before a run, and their removal after it.
//!
//! BuildKit removes them with the parents that were made for them unless something is in them by then
//! (`executor/containerdexecutor`, `util/…/stubs.go` MountStubsCleaner), and so do we. `/proc`, `/sys` and `/dev` stay, as there.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rootfs::Tree;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::SandboxError;

/// Paths (relative, without symbolic links) that do not exist in `tree` and are `targets` or on the way to them; what lies
/// deeper comes first.
pub fn missing<'a>(tree: &Tree, targets: impl Iterator<Item = &'a Path>) -> Result<Vec<PathBuf>, SandboxError> {
    let mut missing = Vec::new();
    for target in targets {
        let resolved = tree.resolve(target, true)?;
        for path in resolved.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if tree.stat(path)?.is_some() {
                break;
            }
            missing.push(path.to_owned());
        }
    }
    missing.sort_by(|a: &PathBuf, b| b.components().count().cmp(&a.components().count()).then_with(|| a.cmp(b)));
    missing.dedup();
    Ok(missing)
}

/// Removes those of `stubs` that are empty directories or empty files.
pub fn remove(root: &Path, stubs: &[PathBuf]) -> Result<(), SandboxError> {
    for stub in stubs {
        remove_one(root, stub).map_err(|error| SandboxError::Setup {
            action: format!("could not remove the mount point `/{}` from the rootfs", stub.display()),
            source: error.into(),
        })?;
    }
    Ok(())
}

fn remove_one(root: &Path, stub: &Path) -> rustix::io::Result<()> {
    let (Some(parent), Some(name)) = (stub.parent(), stub.file_name()) else { return Ok(()) };
    // The step may have put a link in the way: then nothing of ours is left there.
    let parent = match open_below(root, parent) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        opened => opened?,
    };
    let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    let how = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    keeping_times(parent.as_fd(), || match rustix::fs::unlinkat(&parent, name, how) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        removed => removed,
    })
}

/// Whether no host could have made a mount point that failed so: it is the image or another mount that is in the way.
pub fn can_be_nowhere(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::AlreadyExists,
        io::ErrorKind::InvalidFilename,
    ];
    kinds.contains(&error.kind()) || Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// Whether `path` is a directory below `root` that is reached without symbolic links.
pub fn is_below(root: &Path, path: &Path) -> io::Result<bool> {
    match open_below(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        opened => Ok(opened.map(|_| true)?),
    }
}

/// Opens a directory below `root` and follows no symbolic link after it.
fn open_below(root: &Path, path: &Path) -> rustix::io::Result<OwnedFd> {
    let directory = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut opened = rustix::fs::open(root, directory, Mode::empty())?;
    for component in path.components() {
        if let Component::Normal(name) = component {
            opened = rustix::fs::openat(&opened, name, directory | OFlags::NOFOLLOW, Mode::empty())?;
        }
    }
    Ok(opened)
}

/// Does something to a directory's entries and puts its modification time back.
pub fn keeping_times(
    directory: BorrowedFd<'_>,
    change: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let before = rustix::fs::fstat(directory)?;
    change()?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: before.st_atime as _, tv_nsec: before.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: before.st_mtime as _, tv_nsec: before.st_mtime_nsec as _ },
    };
    // Through the name, because the descriptor may be one that is open for its path only.
    rustix::fs::utimensat(directory, ".", &times, AtFlags::empty())
}
