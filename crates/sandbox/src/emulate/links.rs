//! Files with several names, as an overlay has them: the first change through one name takes that name from the others.
//!
//! A layer can only say that one name has new content. On an overlay, which BuildKit and Docker build on, that is what a step
//! sees as well (`Documentation/filesystems/overlayfs.rst`, «Non-standard behavior», c): the other names keep the old
//! content. Names that the step itself has made are one file, whatever is done to them.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::caller::{Caller, Entry, errno};
use super::ids::{READ, WRITE};
use super::place::{Dir, Spot, Target, id_of, lock, look, own_path, type_of};

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

/// Gives the name that is about to be changed a file of its own, if the one that it has is older than the step and has other
/// names.
pub fn detach(caller: &Caller<'_>, target: &Target, found: &Statx) -> Result<(), Errno> {
    match &target.spot {
        Spot::Entry(dir, name) => detach_name(caller, dir, name, found),
        _ => Ok(()),
    }
}

pub fn detach_entry(caller: &Caller<'_>, entry: &Entry, found: &Statx) -> Result<(), Errno> {
    detach_name(caller, &entry.dir, &entry.name, found)
}

/// Whether changing the file takes this name from others first, so that what they name stays as it is.
pub fn is_detached(caller: &Caller<'_>, target: &Target, found: &Statx) -> bool {
    matches!(&target.spot, Spot::Entry(dir, _) if is_older(caller, dir, found))
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

/// That the caller may give a file one more name: with `fs.protected_hardlinks`, which every distribution sets, only its owner
/// and who may read and write it, if it is a regular file without set-ID bits (`may_linkat` in the kernel's fs/namei.c).
pub fn may_link(caller: &Caller<'_>, found: &Statx) -> Result<(), Errno> {
    static IS_PROTECTED: LazyLock<bool> = LazyLock::new(|| {
        let setting = std::fs::read("/proc/sys/fs/protected_hardlinks");
        setting.map_or(true, |setting| !setting.starts_with(b"0"))
    });
    let ids = &caller.view.ids;
    if ids.owns(found) || !*IS_PROTECTED {
        return Ok(());
    }
    let mode = u32::from(found.stx_mode);
    let sets_group = mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP;
    let is_safe = type_of(found).is_file() && mode & libc::S_ISUID == 0 && !sets_group;
    if is_safe && ids.may(found, READ | WRITE).is_ok() { Ok(()) } else { Err(Errno::PERM) }
}

pub fn is_shared(found: &Statx) -> bool {
    found.stx_nlink > 1 && type_of(found) == FileType::RegularFile
}

fn detach_name(caller: &Caller<'_>, dir: &Dir, name: &CString, found: &Statx) -> Result<(), Errno> {
    if !is_older(caller, dir, found) {
        return Ok(());
    }
    caller.world.written.directory(dir);
    let before = look(dir.fd.as_fd())?;
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let copy = format!(".zuwai-copy-{}-{}", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed));
    let copy = CString::new(copy).map_err(|_| Errno::INVAL)?;
    let made = copy_file(dir, name, &copy, found).map_err(errno);
    let moved = made.and_then(|()| {
        let change = || rustix::fs::renameat(&dir.fd, &copy, &dir.fd, name);
        caller.world.places.changing(&[(dir, name.to_bytes())], change)
    });
    if moved.is_err() {
        let _ = rustix::fs::unlinkat(&dir.fd, &copy, AtFlags::empty());
    }
    // To the step no name has come or gone.
    rustix::fs::utimensat(CWD, own_path(dir.fd.as_fd()).as_c_str(), &times(&before), AtFlags::empty())?;
    moved
}

fn times(file: &Statx) -> Timestamps {
    let time = |time: rustix::fs::StatxTimestamp| Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec.into() };
    Timestamps { last_access: time(file.stx_atime), last_modification: time(file.stx_mtime) }
}

/// With content, times, attributes and what the table says.
fn copy_file(dir: &Dir, name: &CString, copy: &CString, found: &Statx) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from: OwnedFd = rustix::fs::openat(&dir.fd, name, flags | OFlags::RDONLY, Mode::empty())?;
    let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let to: OwnedFd = rustix::fs::openat(&dir.fd, copy, new, Mode::from_raw_mode(0o600))?;
    let (mut from, mut to) = (File::from(from), File::from(to));
    io::copy(&mut from, &mut to)?;
    let real = look(from.as_fd())?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(u32::from(real.stx_mode) & 0o7777))?;
    copy_attributes(&from, &to)?;
    rustix::fs::futimens(&to, &times(&real))?;
    let Some(tree) = &dir.area.tree else { return Ok(()) };
    let made = look(to.as_fd())?;
    let mode = u32::from(found.stx_mode) & 0o7777;
    tree.pretend_new(&made, rootfs::Wanted { uid: found.stx_uid, gid: found.stx_gid, mode, node: None })?;
    for (name, value) in tree.pretended_attributes(&real) {
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
