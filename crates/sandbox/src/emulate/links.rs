//! Files with several names, as an overlay has them: the first change through one name takes that name from the others.
//!
//! A layer can only say that one name has new content. On an overlay, which BuildKit and Docker build on, that is what a step
//! sees as well (`Documentation/filesystems/overlayfs.rst`, «Non-standard behavior», c): the other names keep the old
//! content. Names that the step itself has made are one file, whatever is done to them.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::caller::{Caller, Held, errno};
use super::place::{Dir, Spot, id_of, lock, look, own_path, type_of};

/// When a step began, in the clock that files are stamped with.
#[derive(Clone, Copy, Debug)]
pub struct Began(i64, u32);

impl Began {
    pub fn now() -> Began {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Began(now.tv_sec, now.tv_nsec as u32)
    }

    fn is_after(self, file: &Statx) -> bool {
        (file.stx_btime.tv_sec, file.stx_btime.tv_nsec) < (self.0, self.1)
    }
}

/// What is about to be changed through a name: a file of the name's own, if the one that it has is older than the step and has
/// other names.
pub fn own(caller: &Caller<'_>, held: Held) -> Result<Held, Errno> {
    let Spot::Entry(dir, name) = &held.spot else { return Ok(held) };
    if !is_older(caller, dir, &held.found) {
        return Ok(held);
    }
    let (dir, name) = (dir.clone(), name.clone());
    caller.world.written.directory(&dir);
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let copy = format!(".zuwai-copy-{}-{}", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed));
    let copy = CString::new(copy).map_err(|_| Errno::INVAL)?;
    let before = look(dir.fd.as_fd())?;
    let made = copy_file(&dir, &held, &copy);
    let moved = made.and_then(|file| {
        let places = &caller.world.places;
        places.changing(&[(&dir, name.to_bytes())], || {
            // Copying took its time, and the name may be another file's.
            if !places.is_still(&dir, name.to_bytes(), Some(&held.found)) {
                return Err(super::change::ANOTHER);
            }
            rustix::fs::renameat(&dir.fd, &copy, &dir.fd, &name)
        })?;
        Ok(file)
    });
    if moved.is_err() {
        let _ = rustix::fs::unlinkat(&dir.fd, &copy, AtFlags::empty());
    }
    // To the step no name has come or gone.
    rustix::fs::utimensat(CWD, own_path(dir.fd.as_fd()).as_c_str(), &times(&before), AtFlags::empty())?;
    let file = moved?;
    let (real, found) = caller.world.places.seen_opened(dir.area.tree.as_deref(), file.as_fd())?;
    Ok(held.replaced(file, real, found))
}

/// Whether changing the file takes this name from others first, so that what they name stays as it is.
pub fn is_detached(caller: &Caller<'_>, spot: &Spot, found: &Statx) -> bool {
    matches!(spot, Spot::Entry(dir, _) if is_older(caller, dir, found))
}

fn is_older(caller: &Caller<'_>, dir: &Dir, found: &Statx) -> bool {
    let is_older = is_shared(found) && dir.area.is_rootfs() && caller.world.began.is_after(found);
    is_older && !lock(&caller.world.linked).contains(&id_of(found))
}

/// A file that is about to get another name. If it has one only, an overlay copies it for this, and from then on all its names
/// are one file; that it is older than the step does not count any more.
pub fn linking(caller: &Caller<'_>, found: &Statx) {
    if found.stx_nlink == 1 && caller.world.began.is_after(found) {
        lock(&caller.world.linked).insert(id_of(found));
    }
}

pub fn is_shared(found: &Statx) -> bool {
    found.stx_nlink > 1 && type_of(found) == FileType::RegularFile
}

fn times(file: &Statx) -> Timestamps {
    let time = |time: rustix::fs::StatxTimestamp| Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec.into() };
    Timestamps { last_access: time(file.stx_atime), last_modification: time(file.stx_mtime) }
}

/// With content, times, attributes and what the table says.
fn copy_file(dir: &Dir, held: &Held, copy: &CString) -> Result<OwnedFd, Errno> {
    let from = super::open::again(held, OFlags::RDONLY)?;
    let new = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let to: OwnedFd = rustix::fs::openat(&dir.fd, copy, new, Mode::from_raw_mode(0o600))?;
    let (mut from, mut to) = (File::from(from), File::from(to));
    fill(&mut from, &mut to, dir, held).map_err(errno)?;
    Ok(to.into())
}

fn fill(from: &mut File, to: &mut File, dir: &Dir, Held { real, found, .. }: &Held) -> io::Result<()> {
    io::copy(from, to)?;
    rustix::fs::fchmod(&*to, Mode::from_raw_mode(u32::from(real.stx_mode) & 0o7777))?;
    copy_attributes(from, to)?;
    rustix::fs::futimens(&*to, &times(real))?;
    let Some(tree) = &dir.area.tree else { return Ok(()) };
    let made = look(to.as_fd())?;
    let mode = u32::from(found.stx_mode) & 0o7777;
    tree.pretend_new(&made, rootfs::Wanted { uid: found.stx_uid, gid: found.stx_gid, mode, node: None })?;
    for (name, value) in tree.pretended_attributes(real) {
        tree.pretend_attribute(&made, &name, Some(&value))?;
    }
    Ok(())
}

fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let path = own_path(from.as_fd());
    let mut names = vec![0; 65536];
    let count = rustix::fs::listxattr(path.as_c_str(), &mut names).unwrap_or(0);
    for name in names[..count].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; 65536];
        let count = rustix::fs::fgetxattr(from, name, &mut value)?;
        rustix::fs::fsetxattr(to, name, &value[..count], XattrFlags::empty())?;
    }
    Ok(())
}
