//! Opening files: the builder opens, the step gets the descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::caller::{Caller, Handled, Held, Reply, errno, or_unmade};
use super::ids::{READ, WRITE};
use super::place::{
    Dir, Mapped, Node, Opened, Spot, Target, id_of, look, own_path, path_by_kernel, setting, type_of, without_slashes,
};
use super::procfs::Proc;
use super::stand_in::StandIn;
use super::{links, terminal, waiting};
use crate::notify::Listener;

/// Devices that every container has; whatever file stands for one of them, the builder's own is opened.
const DEVICES: &[((u32, u32), &CStr)] = &[
    ((1, 3), c"/dev/null"),
    ((1, 5), c"/dev/zero"),
    ((1, 7), c"/dev/full"),
    ((1, 8), c"/dev/random"),
    ((1, 9), c"/dev/urandom"),
];

/// /dev/tty
const CONTROLLING: (u32, u32) = (5, 0);

/// /dev/ptmx, and the major number of the other sides of the terminals that it makes (`linux/major.h`).
const MULTIPLEXER: (u32, u32) = (5, 2);
const TERMINALS: u32 = 136;

/// As often as a file may be made and removed by others between two looks at it.
const ATTEMPTS: usize = 16;

/// Flags that are passed on to the kernel.
const PASSED: OFlags = OFlags::ACCMODE
    .union(OFlags::APPEND)
    .union(OFlags::TRUNC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::DIRECTORY)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC)
    .union(OFlags::DIRECT)
    .union(OFlags::NOATIME);

pub fn open(caller: &Caller<'_>) -> Handled {
    let path = caller.path(caller.arguments[1])?;
    let mut flags = OFlags::from_bits_retain(caller.number(2));
    if flags.contains(OFlags::PATH) {
        flags -= OFlags::CREATE | OFlags::EXCL;
    }
    let is_unnamed = flags.contains(OFlags::TMPFILE);
    // `fs/open.c` build_open_flags
    if flags.contains(OFlags::CREATE | OFlags::DIRECTORY)
        || (is_unnamed && !flags.contains(OFlags::PATH) && !flags.intersects(OFlags::WRONLY | OFlags::RDWR))
    {
        return Err(Errno::INVAL);
    }
    let follow = !flags.contains(OFlags::NOFOLLOW) && !flags.contains(OFlags::CREATE | OFlags::EXCL);
    for _ in 0..ATTEMPTS {
        let target = match flags.contains(OFlags::CREATE) {
            true => to_create(caller, &path, follow)?,
            false => caller.walk(caller.descriptor(0), &path, follow)?,
        };
        if flags.contains(OFlags::PATH) {
            return open_for_path(caller, target, flags);
        }
        if flags.contains(OFlags::TMPFILE) {
            return unnamed(caller, target, flags);
        }
        match open_target(caller, target, flags) {
            // Somebody else was faster.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// What a path leads to where a file may be made: a name with a slash after it is a directory's, whatever there is
/// (`fs/namei.c` open_last_lookups).
fn to_create(caller: &Caller<'_>, path: &[u8], follow: bool) -> Result<Target, Errno> {
    let (name, slash) = without_slashes(path);
    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let start = caller.start_of(caller.descriptor(0), name)?;
    let (target, slash_of_link) = caller.world.places.walk_to_name(&caller.view, &start, name, follow && !slash)?;
    match &target.spot {
        _ if slash && !matches!(last, b"" | b"/" | b"." | b"..") => Err(Errno::ISDIR),
        Spot::Entry(_, _) | Spot::Mapped(_) if slash_of_link => Err(Errno::ISDIR),
        _ => Ok(target),
    }
}

fn open_target(caller: &Caller<'_>, target: Target, flags: OFlags) -> Handled {
    // Only what can be a program: opening others may take its time.
    let is_file = target.found.as_ref().is_none_or(|found| type_of(found).is_file());
    let _giving = is_file.then(|| caller.world.giving());
    let Some(found) = target.found else {
        return match &target.spot {
            Spot::Entry(dir, name) if flags.contains(OFlags::CREATE) => create(caller, dir, name, flags),
            _ => Err(Errno::NOENT),
        };
    };
    if flags.contains(OFlags::CREATE | OFlags::EXCL) {
        return Err(Errno::EXIST);
    }
    let passed = flags.intersection(PASSED);
    let file = match (&target.spot, type_of(&found)) {
        (Spot::Node(Node::Proc(proc)), _) => {
            allowed(caller, &target.spot, &found, flags)?;
            open_proc(caller, proc, passed)?
        }
        (Spot::Node(Node::Dir(dir)), _) => {
            allowed(caller, &target.spot, &found, flags)?;
            open_at(dir.fd.as_fd(), c".", passed)?
        }
        (Spot::Entry(dir, name), FileType::RegularFile) => match opened(caller, dir, name, flags)? {
            Some(file) => file,
            None => again_owned(caller, target, flags)?,
        },
        // Known from now on: whoever opens a directory is about to look at what is in it.
        (Spot::Entry(dir, name), FileType::Directory) => {
            let dir = caller.world.places.walk_into(dir, name.to_bytes())?.ok_or(Errno::NOTDIR)?;
            let found = caller.world.places.seen(&dir)?;
            allowed(caller, &Spot::Node(Node::Dir(dir.clone())), &found, flags)?;
            open_at(dir.fd.as_fd(), c".", passed)?
        }
        (_, FileType::RegularFile) => again_owned(caller, target, flags)?,
        _ => return special(caller, target, flags),
    };
    give(caller, file.as_fd(), flags)
}

fn open_proc(caller: &Caller<'_>, proc: &Proc, flags: OFlags) -> Result<OwnedFd, Errno> {
    let (mounts, places) = (|| caller.world.mounts_text(), &caller.world.places);
    places.procfs.open(proc, flags, &caller.view, &mounts, &|path| places.shown(path))
}

/// Opens a regular file by its name, and judges what has been opened. None: it is not to be opened like this.
fn opened(caller: &Caller<'_>, dir: &Arc<Dir>, name: &CStr, flags: OFlags) -> Result<Option<OwnedFd>, Errno> {
    if writes(flags) && dir.area.read_only {
        return Ok(None);
    }
    // Without effect, and without waiting for anybody, if it is something else by now. The content goes later.
    let careful = (flags.intersection(PASSED) - OFlags::TRUNC) | OFlags::NONBLOCK;
    let file = open_at(dir.fd.as_fd(), name, careful)?;
    let (_, found) = caller.world.places.seen_opened(dir.area.tree.as_deref(), file.as_fd())?;
    if !type_of(&found).is_file() {
        // Somebody has put something else there: the walk begins anew.
        return Err(Errno::EXIST);
    }
    let name = CString::from(name);
    let spot = Spot::Entry(dir.clone(), name);
    allowed(caller, &spot, &found, flags)?;
    if writes(flags) {
        caller.is_not_executed(&spot, &found)?;
        if links::is_detached(caller, &spot, &found) || loses(caller, &spot, &found).is_some() {
            return Ok(None);
        }
    }
    finish(&file, flags)?;
    Ok(Some(file))
}

/// What was left to be done after a careful opening.
fn finish(file: &OwnedFd, flags: OFlags) -> Result<(), Errno> {
    if flags.contains(OFlags::TRUNC) {
        match flags.intersection(OFlags::ACCMODE) {
            // Opening to read takes the content as well.
            OFlags::RDONLY => {
                let to_write = OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::open(own_path(file.as_fd()).as_c_str(), to_write, Mode::empty())?;
                rustix::fs::ftruncate(&file, 0)?;
            }
            _ => rustix::fs::ftruncate(file, 0)?,
        }
    }
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(file, flags.intersection(PASSED) - OFlags::NONBLOCK)?;
    }
    Ok(())
}

/// Opens a regular file that is held, after everything that opening it to write takes from it.
fn again_owned(caller: &Caller<'_>, target: Target, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut held = caller.hold(target)?;
    if !type_of(&held.found).is_file() {
        return Err(Errno::EXIST);
    }
    allowed(caller, &held.spot, &held.found, flags)?;
    if let Spot::Open(Opened { owner, area: None, file }) = &held.spot
        && !caller.world.places.is_anonymous(file.as_fd())?
    {
        return same(*owner, &held, flags);
    }
    if writes(flags) {
        caller.is_not_executed(&held.spot, &held.found)?;
        held = links::own(caller, held)?;
        lose_rights(caller, &held)?;
    }
    let file = again(&held, (flags.intersection(PASSED) - OFlags::TRUNC) | OFlags::NONBLOCK)?;
    finish(&file, flags)?;
    Ok(file)
}

/// Opens what is held.
pub fn again(held: &Held, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::open(held.path.as_c_str(), flags, Mode::empty()) {
        Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => {
            rustix::fs::open(held.path.as_c_str(), flags - OFlags::NOATIME, Mode::empty())
        }
        result => result,
    }
}

/// A file that lies nowhere in the step, as another step may have sent it here: the very descriptor again, with no right more
/// than it has.
fn same((owner, number): (u32, i32), held: &Held, flags: OFlags) -> Result<OwnedFd, Errno> {
    let file = super::sockets::take(owner, number).map_err(|_| Errno::ACCESS)?;
    let has = rustix::fs::fcntl_getfl(&file)?;
    let enough = has.contains(OFlags::RDWR) || has.intersection(OFlags::ACCMODE) == flags.intersection(OFlags::ACCMODE);
    let is_it = id_of(&look(file.as_fd())?) == id_of(&held.real);
    if !enough || !is_it || has.contains(OFlags::PATH) || flags.contains(OFlags::TRUNC) {
        return Err(Errno::ACCESS);
    }
    Ok(file)
}

/// Devices, fifos, sockets.
fn special(caller: &Caller<'_>, target: Target, flags: OFlags) -> Handled {
    let held = caller.hold(target)?;
    let found = held.found;
    allowed(caller, &held.spot, &found, flags)?;
    let careful = flags.intersection(PASSED) | OFlags::NONBLOCK;
    let file = match (&held.spot, type_of(&found)) {
        (_, FileType::CharacterDevice | FileType::BlockDevice) => device(caller, &held, careful)?,
        (_, FileType::Fifo) if !flags.contains(OFlags::NONBLOCK) => {
            return waiting::open(caller, &held, flags.intersection(PASSED), flags.contains(OFlags::CLOEXEC));
        }
        (Spot::Entry(_, _) | Spot::Open(_), FileType::Fifo) => again(&held, careful)?,
        (_, FileType::Symlink) => return Err(Errno::LOOP),
        _ => return Err(Errno::NXIO),
    };
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(&file, flags.intersection(PASSED))?;
    }
    give(caller, file.as_fd(), flags)
}

fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
}

/// That the caller may open what is there like this.
fn allowed(caller: &Caller<'_>, spot: &Spot, found: &Statx, flags: OFlags) -> Result<(), Errno> {
    let kind = type_of(found);
    let writes = writes(flags);
    match kind {
        FileType::Symlink if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
        FileType::Symlink => return Err(Errno::LOOP),
        FileType::Directory if writes || flags.contains(OFlags::CREATE) => return Err(Errno::ISDIR),
        FileType::Directory => {}
        _ if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
        _ => {}
    }
    let is_special = !matches!(kind, FileType::RegularFile | FileType::Directory);
    let is_proc = matches!(spot, Spot::Node(Node::Proc(_)));
    // What lies nowhere in the step is opened with the rights that it has, or anonymous and nobody's.
    if matches!(spot, Spot::Open(Opened { area: None, .. })) {
        return Ok(());
    }
    if writes && !is_special && !is_proc {
        caller.changes(spot, found)?;
    }
    if let Spot::Node(Node::Proc(proc)) = spot
        && caller.world.places.procfs.is_own_descriptors(proc, &caller.view)
    {
        return Ok(());
    }
    if let (Spot::Entry(dir, _), true) = (spot, flags.contains(OFlags::CREATE)) {
        not_of_others(caller, dir, found)?;
    }
    let access = flags.intersection(OFlags::ACCMODE);
    let reads = if access == OFlags::WRONLY { 0 } else { READ };
    caller.view.ids.may(found, reads | if writes { WRITE } else { 0 })?;
    // `fs/namei.c` may_open
    if flags.contains(OFlags::NOATIME) && !caller.view.ids.owns(found) { Err(Errno::PERM) } else { Ok(()) }
}

/// What is not opened to be made where somebody else has made it already, in a directory in which everybody has files of their
/// own (`fs/namei.c` may_create_in_sticky; proc_sys_fs(5) protected_regular, protected_fifos).
fn not_of_others(caller: &Caller<'_>, dir: &Dir, found: &Statx) -> Result<(), Errno> {
    let level = match type_of(found) {
        FileType::RegularFile => setting("protected_regular"),
        FileType::Fifo => setting("protected_fifos"),
        _ => 0,
    };
    if level == 0 || found.stx_uid == caller.view.ids.user.files {
        return Ok(());
    }
    let above = caller.world.places.seen(dir)?;
    let mode = u32::from(above.stx_mode);
    let is_shared = mode & libc::S_IWOTH != 0 || (mode & libc::S_IWGRP != 0 && level >= 2);
    let refused = mode & libc::S_ISVTX != 0 && above.stx_uid != found.stx_uid && is_shared;
    if refused { Err(Errno::ACCESS) } else { Ok(()) }
}

/// What writing takes from a file: its capabilities, and from one who is not root the set-id bits (`fs/attr.c`
/// setattr_prepare, `security/commoncap.c` cap_inode_killpriv). What is written is not known here, only that somebody is
/// about to.
struct Loss {
    capability: bool,
    mode: Option<u32>,
}

const CAPABILITY: &str = "security.capability";

fn loses(caller: &Caller<'_>, spot: &Spot, found: &Statx) -> Option<Loss> {
    let tree = caller.tree(spot)?;
    let mode = u32::from(found.stx_mode) & 0o7777;
    let left = super::change::without_set_ids(mode);
    let mode = (left != mode && !caller.view.ids.is_root()).then_some(left);
    let capability = tree.knows(found) && tree.pretended_attributes(found).iter().any(|(name, _)| name == CAPABILITY);
    (capability || mode.is_some()).then_some(Loss { capability, mode })
}

pub fn lose_rights(caller: &Caller<'_>, held: &Held) -> Result<(), Errno> {
    let (Some(loss), Some(tree)) = (loses(caller, &held.spot, &held.found), caller.tree(&held.spot)) else {
        return Ok(());
    };
    if let Some(mode) = loss.mode {
        tree.pretend_mode(&held.real, mode).map_err(errno)?;
    }
    if loss.capability {
        tree.pretend_attribute(&held.real, CAPABILITY.as_ref(), None).map_err(errno)?;
    }
    Ok(())
}

fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => {
            Ok(rustix::fs::openat(dir, name, flags - OFlags::NOATIME, Mode::empty())?)
        }
        result => Ok(result?),
    }
}

/// Opens a device by the builder's own file for it, if it is one that every container has.
fn device(caller: &Caller<'_>, held: &Held, flags: OFlags) -> Result<OwnedFd, Errno> {
    let number = (held.found.stx_rdev_major, held.found.stx_rdev_minor);
    if type_of(&held.found) == FileType::BlockDevice {
        return Err(Errno::PERM);
    }
    match number {
        CONTROLLING => terminal::controlling(caller, flags),
        MULTIPLEXER => terminal::multiplex(caller, flags),
        (TERMINALS, minor) => terminal::own(caller, minor, flags, || again(held, flags)),
        // As the device rules of a container have it.
        number => {
            let (_, path) = DEVICES.iter().find(|(device, _)| *device == number).ok_or(Errno::PERM)?;
            Ok(rustix::fs::open(*path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?)
        }
    }
}

fn give(caller: &Caller<'_>, file: BorrowedFd<'_>, flags: OFlags) -> Handled {
    answer_with(caller, caller.listener, file, flags.contains(OFlags::CLOEXEC))
}

pub fn answer_with(caller: &Caller<'_>, listener: &Listener, file: BorrowedFd<'_>, close_on_exec: bool) -> Handled {
    match listener.answer_with(caller.call, file, close_on_exec) {
        // Before Linux 5.14: first the descriptor, then the answer.
        Err(Errno::INVAL) => Ok(Reply::Value(i64::from(listener.give(caller.call, file, close_on_exec)?))),
        // The caller is gone.
        Err(Errno::NOENT | Errno::INPROGRESS) => Ok(Reply::Given),
        result => result.map(|_| Reply::Given),
    }
}

/// Makes a file. The directory entry is new for certain (`O_EXCL`).
fn create(caller: &Caller<'_>, dir: &Arc<Dir>, name: &CStr, flags: OFlags) -> Handled {
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let passed = flags.intersection(PASSED) - OFlags::TRUNC - OFlags::DIRECTORY;
    make(caller, dir, name, passed | new, flags)
}

/// A file without a name (`O_TMPFILE`).
fn unnamed(caller: &Caller<'_>, target: Target, flags: OFlags) -> Handled {
    let Node::Dir(dir) = caller.directory(target)? else { return Err(Errno::OPNOTSUPP) };
    let _giving = caller.world.giving();
    let passed = flags.intersection(PASSED | OFlags::TMPFILE | OFlags::EXCL) | OFlags::CLOEXEC;
    make(caller, &dir, c".", passed, flags)
}

fn make(caller: &Caller<'_>, dir: &Arc<Dir>, name: &CStr, passed: OFlags, flags: OFlags) -> Handled {
    caller.may_add(dir)?;
    let mode = caller.number(3) & 0o7777 & !caller.view.umask;
    let real_mode = (mode & 0o777) | 0o600;
    let wanted = caller.new_file(dir, mode, false)?;
    let file = caller.world.places.making(|| {
        let file = rustix::fs::openat(&dir.fd, name, passed, Mode::from_raw_mode(real_mode))?;
        or_unmade(dir, name, caller.note(dir, file.as_fd(), wanted, real_mode))?;
        Ok(file)
    })?;
    give(caller, file.as_fd(), flags)
}

/// `O_PATH`: such descriptors cannot be given to another process. Directories and files that the caller may read are opened to
/// read; of everything else the step gets a stand-in.
fn open_for_path(caller: &Caller<'_>, target: Target, flags: OFlags) -> Handled {
    let kind = type_of(target.existing()?);
    if flags.contains(OFlags::DIRECTORY) && !kind.is_dir() {
        return Err(Errno::NOTDIR);
    }
    let places = &caller.world.places;
    if let Spot::Node(Node::Proc(proc)) = &target.spot {
        // Of a link itself nothing can be opened.
        let is_link = kind.is_symlink();
        let opened = if is_link { Err(Errno::ACCESS) } else { open_proc(caller, proc, OFlags::RDONLY) };
        let file = match opened {
            Err(Errno::ACCESS | Errno::PERM) => places.stand_for(StandIn::Node(Node::Proc(proc.clone())))?,
            opened => opened?,
        };
        return give(caller, file.as_fd(), flags);
    }
    if kind.is_dir() {
        let Node::Dir(dir) = caller.directory(target)? else { return Err(Errno::NOTDIR) };
        let file = match caller.view.ids.may(&places.seen(&dir)?, READ) {
            Ok(()) => open_at(dir.fd.as_fd(), c".", OFlags::DIRECTORY)?,
            Err(_) => places.stand_for(StandIn::Node(Node::Dir(dir)))?,
        };
        return give(caller, file.as_fd(), flags);
    }
    let held = caller.hold(target)?;
    let mut has_area = true;
    if let Spot::Open(Opened { area: None, file, .. }) = &held.spot {
        // By a stand-in it could be opened again with more rights than it has.
        if !places.is_anonymous(file.as_fd())? {
            return Err(Errno::ACCESS);
        }
        has_area = false;
    }
    let file = match type_of(&held.found) {
        FileType::RegularFile if has_area && caller.view.ids.may(&held.found, READ).is_ok() => {
            again(&held, OFlags::RDONLY | OFlags::NONBLOCK)?
        }
        _ => stand_in(caller, held)?,
    };
    give(caller, file.as_fd(), flags)
}

fn stand_in(caller: &Caller<'_>, held: Held) -> Result<OwnedFd, Errno> {
    let places = &caller.world.places;
    let (read_only, tree) = (caller.may_change(&held.spot).is_err(), caller.tree(&held.spot));
    let (shown, looks) = match &held.spot {
        Spot::Entry(dir, name) => (places.path_of_entry(dir, name.to_bytes())?, None),
        Spot::Mapped(mapped) => (mapped.shown.clone(), mapped.looks),
        Spot::Open(opened) => (places.shown(&path_by_kernel(opened.file.as_fd())?), None),
        Spot::Node(_) => return Err(Errno::ACCESS),
    };
    let id = id_of(&held.real);
    let file = rustix::fs::open(held.path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    places.stand_for(StandIn::File(Arc::new(Mapped { file, shown, read_only, looks, tree, id })))
}
