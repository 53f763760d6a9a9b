//! Changing files: names, modes, owners, times.

use std::sync::Arc;

use rootfs::FileKind;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Statx, Timespec, Timestamps};
use rustix::io::Errno;

use super::abi::Abi;
use super::caller::{AT_FDCWD, Caller, DONE, EMPTY_PATH, Entry, Handled, Held, NO_FOLLOW, errno};
use super::ids::{READ, WRITE};
use super::links;
use super::memory;
use super::place::{Node, Spot, Target, id_of, setting, type_of, without_slashes};
use super::stub;

const S_ISUID: u32 = libc::S_ISUID;
const S_ISGID: u32 = libc::S_ISGID;
/// Set-group-ID for a program: without execution by the group the bit once meant something else (inode(7)).
const S_ISGID_RUN: u32 = libc::S_ISGID | libc::S_IXGRP;

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
    let mode = caller.number(2) & 0o1777 & !caller.view.umask;
    let real_mode = (mode & 0o1777) | 0o700;
    let wanted = caller.new_file(&entry.dir, mode, true)?;
    caller.make(&entry.dir, &entry.name, (wanted, real_mode), || {
        rustix::fs::mkdirat(&entry.dir.fd, &entry.name, Mode::from_raw_mode(real_mode))
    })?;
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
    let mode = wanted & 0o7777 & !caller.view.umask;
    let real_mode = (mode & 0o777) | 0o600;
    let made = match kind {
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        _ => FileType::RegularFile,
    };
    let node = is_device.then(|| (kind, device(caller.number(3))));
    let wanted = rootfs::Wanted { node, ..caller.new_file(&entry.dir, mode, false)? };
    caller.make(&entry.dir, &entry.name, (wanted, real_mode), || {
        rustix::fs::mknodat(&entry.dir.fd, &entry.name, made, Mode::from_raw_mode(real_mode), 0)
    })?;
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
    let wanted = caller.new_file(&entry.dir, 0o777, false)?;
    caller
        .make(&entry.dir, &entry.name, (wanted, 0o777), || rustix::fs::symlinkat(target, &entry.dir.fd, &entry.name))?;
    DONE
}

/// (directory, path, new directory, new path, flags)
pub fn link(caller: &Caller<'_>) -> Handled {
    let flags = caller.flags(4, libc::AT_SYMLINK_FOLLOW as u32 | EMPTY_PATH)?;
    let follow = flags & libc::AT_SYMLINK_FOLLOW as u32 != 0;
    let held = caller.held(0, 1, super::files::following(follow) as u32 | (flags & EMPTY_PATH))?;
    let entry = free_entry(caller, 2, 3, false)?;
    if entry.dir.area.read_only {
        return Err(Errno::ROFS);
    }
    let area = match &held.spot {
        Spot::Entry(dir, _) | Spot::Node(Node::Dir(dir)) => Some(&dir.area),
        Spot::Open(opened) => opened.area.as_ref(),
        _ => None,
    };
    if !area.is_some_and(|area| Arc::ptr_eq(area, &entry.dir.area)) {
        return Err(Errno::XDEV);
    }
    // Whose the file is matters before the rights on the directory do (do_linkat in the kernel's fs/namei.c).
    may_link(caller, &held.found)?;
    caller.may_add(&entry.dir)?;
    if type_of(&held.found).is_dir() {
        return Err(Errno::PERM);
    }
    let held = links::own(caller, held)?;
    links::linking(caller, &held.found);
    let (dir, name) = (&entry.dir.fd, &entry.name);
    // The file that was judged, whatever has its name now.
    caller.world.places.changing(&[(&entry.dir, name.to_bytes())], || {
        rustix::fs::linkat(CWD, held.path.as_c_str(), dir, name, AtFlags::SYMLINK_FOLLOW)
    })?;
    DONE
}

/// Who may give another name to a file of somebody else's (`fs/namei.c` may_linkat; proc_sys_fs(5) protected_hardlinks).
fn may_link(caller: &Caller<'_>, found: &Statx) -> Result<(), Errno> {
    let ids = &caller.view.ids;
    if ids.owns(found) || setting("protected_hardlinks") == 0 {
        return Ok(());
    }
    let mode = u32::from(found.stx_mode);
    let is_safe = type_of(found).is_file() && mode & S_ISUID == 0 && mode & S_ISGID_RUN != S_ISGID_RUN;
    if is_safe && ids.may(found, READ | WRITE).is_ok() { Ok(()) } else { Err(Errno::PERM) }
}

/// As often as somebody else may be in between when something has been judged.
const ATTEMPTS: usize = 64;

/// Says within a lock that what was judged is another by now. No call that is made there ends so on a local file system.
pub const ANOTHER: Errno = Errno::STALE;

/// Does something again from the beginning as long as it says that.
pub fn settled(mut once: impl FnMut() -> Handled) -> Handled {
    for _ in 0..ATTEMPTS {
        match once() {
            Err(ANOTHER) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

impl Caller<'_> {
    /// That a file has the owner and mode with which it was judged. Within [`super::place::Places::making`].
    fn is_still(&self, held: &Held, tree: &rootfs::Tree) -> Result<(), Errno> {
        let mut now = held.look()?;
        tree.present(&mut now);
        let of = |found: &Statx| (found.stx_uid, found.stx_gid, found.stx_mode);
        if of(&now) == of(&held.found) { Ok(()) } else { Err(ANOTHER) }
    }
}

/// (directory, path, flags)
pub fn unlink(caller: &Caller<'_>) -> Handled {
    let flags = AtFlags::from_bits_retain(caller.flags(2, AtFlags::REMOVEDIR.bits())?);
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
    let places = &caller.world.places;
    places.changing(&[(&entry.dir, name)], || {
        if !places.is_still(&entry.dir, name, Some(&found)) {
            return Err(ANOTHER);
        }
        rustix::fs::unlinkat(&entry.dir.fd, &entry.name, flags)?;
        gone(caller, &entry, &found)
    })?;
    DONE
}

/// A name of a file has been taken away. Somebody may have the file open still: what is known of it is forgotten later. Before
/// anybody makes another, which may have its inode.
fn gone(caller: &Caller<'_>, entry: &Entry, found: &Statx) -> Result<(), Errno> {
    match &entry.dir.area.tree {
        Some(tree) if (found.stx_nlink <= 1 || type_of(found).is_dir()) && tree.knows(found) => {
            caller.world.nameless.add(tree.clone(), *found).map_err(errno)
        }
        _ => Ok(()),
    }
}

/// (directory, path, new directory, new path, flags)
pub fn rename(caller: &Caller<'_>) -> Handled {
    let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
    let flags = RenameFlags::from_bits_retain(caller.flags(4, known.bits())?);
    if flags.contains(RenameFlags::EXCHANGE) && flags != RenameFlags::EXCHANGE || flags.contains(RenameFlags::WHITEOUT)
    {
        return Err(Errno::INVAL);
    }
    // Both directories are found and compared before either name is judged, and names before rights (do_renameat2).
    let (from, to) = (caller.parent(0, 1)?, caller.parent(2, 3)?);
    if !from.is_on_mount_of(&to) {
        return Err(Errno::XDEV);
    }
    let from = from.entry.ok_or(Errno::BUSY)?;
    let other = if flags.contains(RenameFlags::NOREPLACE) { Errno::EXIST } else { Errno::BUSY };
    let to = to.entry.ok_or(other)?;
    slashes_fit(&from, &to, flags)?;
    let places = &caller.world.places;
    let exchanges = flags.contains(RenameFlags::EXCHANGE);
    if from.found.as_ref().is_some_and(|found| places.is_above(found, &to.dir)) {
        return Err(Errno::INVAL);
    }
    if to.found.as_ref().is_some_and(|found| places.is_above(found, &from.dir)) {
        return Err(if exchanges { Errno::INVAL } else { Errno::NOTEMPTY });
    }
    // `fs/namei.c` vfs_rename: before any right is asked.
    if from.found.as_ref().map(id_of) == to.found.as_ref().map(id_of) {
        return DONE;
    }
    let found = caller.may_remove(&from)?;
    match &to.found {
        Some(_) => drop(caller.may_remove(&to)?),
        None => caller.may_add(&to.dir)?,
    }
    // A directory that is moved to another gets another `..` (`fs/namei.c` vfs_rename).
    if from.dir.id != to.dir.id {
        let moved = [Some(found), to.found.filter(|_| exchanges)];
        for directory in moved.iter().flatten().filter(|found| type_of(found).is_dir()) {
            caller.view.ids.may(directory, WRITE)?;
        }
    }
    if [&from, &to].iter().any(|entry| places.is_mounted(&entry.dir, entry.name.to_bytes())) {
        return Err(Errno::BUSY);
    }
    let found = match links::is_shared(&found) {
        true => {
            let target = Target { spot: Spot::Entry(from.dir.clone(), from.name.clone()), found: Some(found) };
            links::own(caller, caller.hold(target)?)?.found
        }
        false => found,
    };
    let (old, new) = (from.name.to_bytes(), to.name.to_bytes());
    caller.world.places.changing(&[(&from.dir, old), (&to.dir, new)], || {
        let is_still =
            places.is_still(&from.dir, old, Some(&found)) && places.is_still(&to.dir, new, to.found.as_ref());
        if !is_still {
            return Err(ANOTHER);
        }
        match rustix::fs::renameat_with(&from.dir.fd, &from.name, &to.dir.fd, &to.name, flags) {
            Err(Errno::NOSYS) if flags.is_empty() => {
                rustix::fs::renameat(&from.dir.fd, &from.name, &to.dir.fd, &to.name)?;
            }
            result => result?,
        }
        match to.found.filter(|replaced| replaced.stx_ino != found.stx_ino) {
            Some(replaced) if !flags.contains(RenameFlags::EXCHANGE) => gone(caller, &to, &replaced),
            _ => Ok(()),
        }
    })?;
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
    let held = caller.held(0, 1, caller.flags(3, NO_FOLLOW | EMPTY_PATH)?)?;
    caller.changes(&held.spot, &held.found)?;
    if is_nameless(&held) {
        // The file is every step's.
        if stub::is_loader(id_of(&held.real)) {
            return Err(Errno::PERM);
        }
        rustix::fs::chmod(held.path.as_c_str(), Mode::from_raw_mode(caller.number(2) & 0o7777))?;
        return DONE;
    }
    if type_of(&held.found).is_symlink() {
        return Err(Errno::OPNOTSUPP);
    }
    if !caller.view.ids.owns(&held.found) {
        return Err(Errno::PERM);
    }
    let mut mode = caller.number(2) & 0o7777;
    if !caller.view.ids.is_root() && !caller.view.ids.is_in(held.found.stx_gid) {
        mode &= !S_ISGID;
    }
    // Pipes and other things that are in no tree are nobody's to remember.
    let Some(tree) = caller.tree(&held.spot) else { return DONE };
    let held = links::own(caller, held)?;
    let needed = if type_of(&held.found).is_dir() { 0o700 } else { 0o600 };
    caller.world.places.making(|| {
        caller.is_still(&held, &tree)?;
        rustix::fs::chmod(held.path.as_c_str(), Mode::from_raw_mode((mode & 0o1777) | needed))?;
        tree.pretend_mode(&held.look()?, mode).map_err(errno)
    })?;
    DONE
}

/// Pipes, sockets and other things that have no name are in no tree, and so nobody's to remember.
fn is_nameless(held: &Held) -> bool {
    matches!(&held.spot, Spot::Open(opened) if opened.area.is_none())
}

/// (directory, path, user, group, flags)
pub fn chown(caller: &Caller<'_>) -> Handled {
    let held = caller.held(0, 1, caller.flags(4, NO_FOLLOW | EMPTY_PATH)?)?;
    let found = &held.found;
    caller.changes(&held.spot, found)?;
    let mut mode = u32::from(found.stx_mode) & 0o7777;
    if type_of(found) == FileType::RegularFile {
        mode = without_set_ids(mode);
    }
    let loses = mode != u32::from(found.stx_mode) & 0o7777;
    // Nothing is asked for, and so nothing refused (`fs/attr.c` setattr_prepare).
    if [2, 3].iter().all(|index| caller.number(*index) == u32::MAX) && !loses {
        return DONE;
    }
    let id = |index, old| Some(caller.number(index)).filter(|id| *id != u32::MAX).unwrap_or(old);
    let (user, group) = (id(2, found.stx_uid), id(3, found.stx_gid));
    let ids = &caller.view.ids;
    let own_group = group == found.stx_gid || ids.is_in(group);
    let may_give = ids.owns(found) && user == found.stx_uid && own_group;
    if !ids.is_root() && !may_give {
        return Err(Errno::PERM);
    }
    let Some(tree) = caller.tree(&held.spot) else { return DONE };
    if let Spot::Entry(dir, name) = &held.spot {
        // Whose a link is, is remembered with it.
        caller.world.places.changing(&[(dir, name.to_bytes())], || Ok(()))?;
    }
    let held = links::own(caller, held)?;
    caller.world.places.making(|| {
        caller.is_still(&held, &tree)?;
        tree.pretend_owner(&held.look()?, user, group, mode).map_err(errno)
    })?;
    DONE
}

/// What another owner leaves of a regular file's mode (chown(2)).
pub fn without_set_ids(mode: u32) -> u32 {
    if mode & S_ISGID_RUN == S_ISGID_RUN { mode & !(S_ISUID | S_ISGID) } else { mode & !S_ISUID }
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
    let wanted = read_times(caller, written)?;
    // `fs/utimes.c` do_utimensat: not even the path is looked at then.
    if [wanted.last_access.tv_nsec, wanted.last_modification.tv_nsec] == [rustix::fs::UTIME_OMIT; 2] {
        return DONE;
    }
    let flags = caller.flags(3, NO_FOLLOW | EMPTY_PATH)? | if caller.arguments[1] == 0 { EMPTY_PATH } else { 0 };
    let held = caller.held(0, 1, flags)?;
    caller.changes(&held.spot, &held.found)?;
    let is_now = |time: &Timespec| time.tv_nsec == rustix::fs::UTIME_NOW;
    if !caller.view.ids.owns(&held.found) && !is_nameless(&held) {
        if !is_now(&wanted.last_access) || !is_now(&wanted.last_modification) {
            return Err(Errno::PERM);
        }
        caller.view.ids.may(&held.found, WRITE)?;
    }
    // Devices and terminals of the container's, which the step only uses.
    let is_device = matches!(held.spot, Spot::Mapped(_)) && type_of(&held.found) == FileType::CharacterDevice;
    if is_device || caller.is_terminals(&held.spot) {
        return DONE;
    }
    let held = links::own(caller, held)?;
    // The link of /proc is followed, and what it leads to is not.
    rustix::fs::utimensat(CWD, held.path.as_c_str(), &wanted, AtFlags::empty())?;
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
    target.existing()?;
    let held = caller.hold(target)?;
    match type_of(&held.found) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    if let Spot::Node(Node::Proc(_)) = held.spot {
        return Err(Errno::ACCESS);
    }
    caller.changes(&held.spot, &held.found)?;
    caller.view.ids.may(&held.found, WRITE)?;
    caller.is_not_executed(&held.spot, &held.found)?;
    let held = links::own(caller, held)?;
    super::open::lose_rights(caller, &held)?;
    let file = super::open::again(&held, OFlags::WRONLY)?;
    rustix::fs::ftruncate(&file, caller.arguments[1])?;
    DONE
}
