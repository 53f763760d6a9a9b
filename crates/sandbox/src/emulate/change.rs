//! Changing files: names, modes, owners, times.

use std::os::fd::AsFd as _;

use rootfs::FileKind;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Statx, Timespec, Timestamps};
use rustix::io::Errno;

use super::abi::Abi;
use super::caller::{AT_FDCWD, Caller, DONE, Entry, Handled, errno, look_by};
use super::ids::WRITE;
use super::links;
use super::memory;
use super::place::{Node, Spot, Target, open_path, type_of, without_slashes};

const S_ISUID: u32 = libc::S_ISUID;
const S_ISGID: u32 = libc::S_ISGID;

/// A name for a new file (`fs/namei.c` filename_create): only a directory's may have a slash after it.
fn new_entry(caller: &Caller<'_>, descriptor: usize, path: usize, is_directory: bool) -> Result<Entry, Errno> {
    let entry = free_entry(caller, descriptor, path, is_directory)?;
    caller.may_add(&entry.dir)?;
    Ok(entry)
}

/// The place of a new name, before anybody has asked whether the caller may make it.
fn free_entry(caller: &Caller<'_>, descriptor: usize, path: usize, is_directory: bool) -> Result<Entry, Errno> {
    let entry = caller.entry(descriptor, path, Errno::EXIST)?;
    if entry.found.is_some() || caller.world.places.is_mounted(&entry.dir, entry.name.to_bytes()) {
        return Err(Errno::EXIST);
    }
    if entry.slash && !is_directory {
        return Err(Errno::NOENT);
    }
    Ok(entry)
}

/// (directory, path, mode)
pub fn mkdir(caller: &Caller<'_>) -> Handled {
    let entry = new_entry(caller, 0, 1, true)?;
    let mode = caller.number(2) & 0o1777 & !caller.process.umask();
    let real_mode = (mode & 0o1777) | 0o700;
    rustix::fs::mkdirat(&entry.dir.fd, &entry.name, Mode::from_raw_mode(real_mode))?;
    caller.made(&entry.dir, &entry.name, mode, real_mode)?;
    DONE
}

/// (directory, path, mode, device)
pub fn mknod(caller: &Caller<'_>) -> Handled {
    let wanted = caller.number(2);
    let kind = match wanted & libc::S_IFMT {
        0 | libc::S_IFREG => FileKind::File,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        libc::S_IFDIR => return Err(Errno::PERM),
        _ => return Err(Errno::INVAL),
    };
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let entry = new_entry(caller, 0, 1, false)?;
    let is_whiteout = kind == FileKind::CharDevice && device(caller.number(3)) == (0, 0);
    // In a layer such a device would delete what is below, and an overlay lets nobody make one.
    if is_device && (is_whiteout || !caller.view.ids.is_root()) {
        return Err(Errno::PERM);
    }
    let mode = wanted & 0o7777 & !caller.process.umask();
    let real_mode = (mode & 0o777) | 0o600;
    let made = match kind {
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        _ => FileType::RegularFile,
    };
    rustix::fs::mknodat(&entry.dir.fd, &entry.name, made, Mode::from_raw_mode(real_mode), 0)?;
    let file = open_path(entry.dir.fd.as_fd(), entry.name.to_bytes(), OFlags::empty())?;
    let node = is_device.then(|| (kind, device(caller.number(3))));
    caller.made_file(Some(&entry.dir), file, mode, real_mode, node)?;
    DONE
}

/// The kernel's numbers: 20 bits of minor around 12 bits of major (`new_decode_dev` of linux/kdev_t.h).
pub fn device(number: u32) -> (u32, u32) {
    ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00))
}

/// (target, directory, path)
pub fn symlink(caller: &Caller<'_>) -> Handled {
    let target = caller.path(caller.arguments[0])?;
    if target.is_empty() {
        return Err(Errno::NOENT);
    }
    let entry = new_entry(caller, 1, 2, false)?;
    rustix::fs::symlinkat(target, &entry.dir.fd, &entry.name)?;
    caller.made(&entry.dir, &entry.name, 0o777, 0o777)?;
    DONE
}

/// (directory, path, new directory, new path, flags)
pub fn link(caller: &Caller<'_>) -> Handled {
    let flags = caller.number(4);
    let follow = flags & libc::AT_SYMLINK_FOLLOW as u32 != 0;
    let (target, found) =
        caller.existing(0, 1, super::files::following(follow) as u32 | (flags & super::caller::EMPTY_PATH))?;
    let entry = free_entry(caller, 2, 3, false)?;
    if entry.dir.area.read_only {
        return Err(Errno::ROFS);
    }
    let is_one_mount = match &target.spot {
        Spot::Entry(dir, _) | Spot::Node(Node::Dir(dir)) => std::sync::Arc::ptr_eq(&dir.area, &entry.dir.area),
        Spot::Open(_) => {
            let same = caller.tree(&target).zip(entry.dir.area.tree.clone());
            same.is_some_and(|(one, other)| std::sync::Arc::ptr_eq(&one, &other))
        }
        _ => false,
    };
    if !is_one_mount {
        return Err(Errno::XDEV);
    }
    // Whose the file is matters before the rights on the directory do (do_linkat in the kernel's fs/namei.c).
    links::may_link(caller, &found)?;
    caller.may_add(&entry.dir)?;
    if type_of(&found).is_dir() {
        return Err(Errno::PERM);
    }
    match &target.spot {
        Spot::Entry(dir, name) => {
            links::detach(caller, &target, &found)?;
            links::linking(caller, &found);
            rustix::fs::linkat(&dir.fd, name, &entry.dir.fd, &entry.name, AtFlags::empty())?;
        }
        Spot::Open(path) => {
            rustix::fs::linkat(CWD, path.as_c_str(), &entry.dir.fd, &entry.name, AtFlags::SYMLINK_FOLLOW)?;
        }
        _ => return Err(Errno::XDEV),
    }
    DONE
}

/// (directory, path, flags)
pub fn unlink(caller: &Caller<'_>) -> Handled {
    let flags = AtFlags::from_bits_retain(caller.number(2)).intersection(AtFlags::REMOVEDIR);
    let path = caller.path(caller.arguments[1])?;
    let other = match without_slashes(&path).0.rsplit(|byte| *byte == b'/').next() {
        _ if flags.is_empty() => Errno::ISDIR,
        Some(b".") => Errno::INVAL,
        Some(b"..") => Errno::NOTEMPTY,
        _ => Errno::BUSY,
    };
    let entry = caller.entry(0, 1, other)?;
    if entry.slash && flags.is_empty() {
        let found = entry.found.ok_or(Errno::NOENT)?;
        return Err(if type_of(&found).is_dir() { Errno::ISDIR } else { Errno::NOTDIR });
    }
    let found = caller.may_remove(&entry)?;
    let name = entry.name.to_bytes();
    caller.world.places.changing(&[(&entry.dir, name)], || rustix::fs::unlinkat(&entry.dir.fd, &entry.name, flags))?;
    gone(&entry, &found)?;
    DONE
}

/// A name of a file has been taken away.
fn gone(entry: &Entry, found: &Statx) -> Result<(), Errno> {
    match &entry.dir.area.tree {
        Some(tree) if found.stx_nlink <= 1 || type_of(found).is_dir() => tree.forget(found).map_err(errno),
        _ => Ok(()),
    }
}

/// (directory, path, new directory, new path, flags)
pub fn rename(caller: &Caller<'_>) -> Handled {
    let flags = RenameFlags::from_bits_retain(caller.number(4));
    let other = if flags.contains(RenameFlags::NOREPLACE) { Errno::EXIST } else { Errno::BUSY };
    let (from, to) = match (caller.entry(0, 1, Errno::BUSY), caller.entry(2, 3, other)) {
        (Ok(from), Ok(to)) => (from, to),
        // Both directories are found before either name is judged.
        (Err(Errno::BUSY), Err(error)) if error != other => return Err(error),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    if flags.contains(RenameFlags::WHITEOUT) {
        return Err(Errno::INVAL);
    }
    slashes_fit(&from, &to, flags)?;
    let found = caller.may_remove(&from)?;
    match &to.found {
        Some(_) => drop(caller.may_remove(&to)?),
        None => caller.may_add(&to.dir)?,
    }
    if !std::sync::Arc::ptr_eq(&from.dir.area, &to.dir.area) {
        return Err(Errno::XDEV);
    }
    let found = match links::is_shared(&found) {
        true => {
            links::detach_entry(caller, &from, &found)?;
            caller.world.places.seen_at(&from.dir, from.name.to_bytes())?.ok_or(Errno::NOENT)?
        }
        false => found,
    };
    let (old, new) = (from.name.to_bytes(), to.name.to_bytes());
    caller.world.places.changing(&[(&from.dir, old), (&to.dir, new)], || {
        match rustix::fs::renameat_with(&from.dir.fd, &from.name, &to.dir.fd, &to.name, flags) {
            Err(Errno::NOSYS) if flags.is_empty() => {
                rustix::fs::renameat(&from.dir.fd, &from.name, &to.dir.fd, &to.name)
            }
            result => result,
        }
    })?;
    let replaced = to.found.filter(|replaced| replaced.stx_ino != found.stx_ino);
    match replaced {
        Some(replaced) if !flags.contains(RenameFlags::EXCHANGE) => gone(&to, &replaced)?,
        _ => {}
    }
    DONE
}

/// That there are slashes after directories only (`fs/namei.c` do_renameat2).
fn slashes_fit(from: &Entry, to: &Entry, flags: RenameFlags) -> Result<(), Errno> {
    let is_directory = |entry: &Entry| entry.found.as_ref().is_some_and(|found| type_of(found).is_dir());
    let exchanges = flags.contains(RenameFlags::EXCHANGE);
    from.found.ok_or(Errno::NOENT)?;
    match to.found {
        Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
        None if exchanges => return Err(Errno::NOENT),
        _ => {}
    }
    let of_new = if exchanges { is_directory(to) } else { is_directory(from) };
    if (from.slash && !is_directory(from)) || (to.slash && !of_new) { Err(Errno::NOTDIR) } else { Ok(()) }
}

/// (directory, path, mode, flags)
pub fn chmod(caller: &Caller<'_>) -> Handled {
    let (target, found) = caller.existing(0, 1, caller.number(3))?;
    caller.changes(&target)?;
    if !caller.view.ids.owns(&found) {
        return Err(Errno::PERM);
    }
    if type_of(&found).is_symlink() {
        return Err(Errno::OPNOTSUPP);
    }
    let mut mode = caller.number(2) & 0o7777;
    if !caller.view.ids.is_root() && !caller.view.ids.is_in(found.stx_gid) {
        mode &= !S_ISGID;
    }
    // Pipes and other things that are in no tree are nobody's to remember.
    let Some(tree) = caller.tree(&target) else { return DONE };
    links::detach(caller, &target, &found)?;
    let handle = caller.handle(&target)?;
    let needed = if type_of(&found).is_dir() { 0o700 } else { 0o600 };
    rustix::fs::chmod(handle.path.as_c_str(), Mode::from_raw_mode((mode & 0o1777) | needed))?;
    tree.pretend_mode(&look_by(&handle)?, mode).map_err(errno)?;
    DONE
}

/// (directory, path, user, group, flags)
pub fn chown(caller: &Caller<'_>) -> Handled {
    let (target, found) = caller.existing(0, 1, caller.number(4))?;
    caller.changes(&target)?;
    let id = |index, old| Some(caller.number(index)).filter(|id| *id != u32::MAX).unwrap_or(old);
    let (user, group) = (id(2, found.stx_uid), id(3, found.stx_gid));
    let ids = &caller.view.ids;
    let own_group = group == found.stx_gid || ids.is_in(group);
    let may_give = ids.owns(&found) && user == found.stx_uid && own_group;
    if !ids.is_root() && !may_give {
        return Err(Errno::PERM);
    }
    let Some(tree) = caller.tree(&target) else { return DONE };
    links::detach(caller, &target, &found)?;
    let mut mode = u32::from(found.stx_mode) & 0o7777;
    if type_of(&found) == FileType::RegularFile {
        mode = without_set_ids(mode);
    }
    let real = real(caller, &target)?;
    tree.pretend_owner(&real, user, group, mode).map_err(errno)?;
    DONE
}

/// What another owner leaves of a regular file's mode (chown(2)).
fn without_set_ids(mode: u32) -> u32 {
    if mode & 0o010 == 0 { mode & !S_ISUID } else { mode & !(S_ISUID | S_ISGID) }
}

/// What the kernel has, of a link too.
fn real(caller: &Caller<'_>, target: &Target) -> Result<Statx, Errno> {
    match &target.spot {
        Spot::Entry(dir, name) => {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            Ok(rustix::fs::statx(&dir.fd, name, flags, super::place::LOOK)?)
        }
        Spot::Mapped(mapped) => Ok(super::place::look(mapped.file.as_fd())?),
        _ => look_by(&caller.handle(target)?),
    }
}

/// How a call writes times down.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only calls of before utimensat(2) use the others"))]
#[derive(Clone, Copy, Debug)]
pub enum Times {
    /// Two `struct timespec`, which may be `UTIME_NOW` and `UTIME_OMIT`.
    Nanoseconds,
    /// The same with 64 bits for every number, in every program.
    LongNanoseconds,
    /// Two `struct timeval`.
    Microseconds,
    /// `struct utimbuf`
    Seconds,
}

/// (directory, path, times, flags)
pub fn times(caller: &Caller<'_>, written: Times) -> Handled {
    let flags = caller.number(3) | if caller.arguments[1] == 0 { super::caller::EMPTY_PATH } else { 0 };
    let (target, found) = caller.existing(0, 1, flags)?;
    let wanted = read_times(caller, written)?;
    caller.changes(&target)?;
    let is_now = |time: &Timespec| time.tv_nsec == rustix::fs::UTIME_NOW;
    if !caller.view.ids.owns(&found) {
        if !is_now(&wanted.last_access) || !is_now(&wanted.last_modification) {
            return Err(Errno::PERM);
        }
        caller.view.ids.may(&found, WRITE)?;
    }
    links::detach(caller, &target, &found)?;
    match &target.spot {
        Spot::Entry(dir, name) => rustix::fs::utimensat(&dir.fd, name, &wanted, AtFlags::SYMLINK_NOFOLLOW)?,
        _ => {
            let handle = caller.handle(&target)?;
            rustix::fs::utimensat(CWD, handle.path.as_c_str(), &wanted, AtFlags::empty())?;
        }
    }
    DONE
}

fn read_times(caller: &Caller<'_>, written: Times) -> Result<Timestamps, Errno> {
    let address = caller.arguments[2];
    let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let both = |access, modification| Timestamps { last_access: access, last_modification: modification };
    if address == 0 {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        return Ok(both(now, now));
    }
    let (thread, abi) = (caller.call.thread, caller.call.abi());
    match written {
        Times::Nanoseconds => {
            let [a, b, c, d] = memory::longs(thread, abi, address)?;
            Ok(both(time(a, b), time(c, d)))
        }
        Times::LongNanoseconds => {
            let [a, b, c, d] = memory::longs(thread, Abi::Own, address)?;
            // The upper half is padding.
            Ok(both(time(a, i64::from(b as i32)), time(c, i64::from(d as i32))))
        }
        Times::Microseconds => {
            let [a, b, c, d] = memory::longs(thread, abi, address)?;
            if !(0..1_000_000).contains(&b) || !(0..1_000_000).contains(&d) {
                return Err(Errno::INVAL);
            }
            Ok(both(time(a, b * 1000), time(c, d * 1000)))
        }
        Times::Seconds => {
            let [a, b] = memory::longs(thread, abi, address)?;
            Ok(both(time(a, 0), time(b, 0)))
        }
    }
}

/// (path, length)
pub fn truncate(caller: &Caller<'_>) -> Handled {
    let path = caller.path(caller.arguments[0])?;
    let target = caller.walk(AT_FDCWD, &path, true)?;
    let found = *target.existing()?;
    match type_of(&found) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    if let Spot::Node(Node::Proc(_)) = target.spot {
        return Err(Errno::ACCESS);
    }
    caller.changes(&target)?;
    caller.view.ids.may(&found, WRITE)?;
    caller.is_not_executed(&target, &found)?;
    links::detach(caller, &target, &found)?;
    let handle = caller.handle(&target)?;
    let file = rustix::fs::open(handle.path.as_c_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::ftruncate(&file, caller.arguments[1])?;
    DONE
}
