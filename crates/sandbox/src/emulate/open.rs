//! Opening files: the builder opens, the step gets the descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::caller::{Caller, Handled, Reply, errno};
use super::ids::{READ, WRITE};
use super::links;
use super::place::{Dir, Mapped, Node, Spot, Target, id_of, lock, look, open_path, own_path, type_of, without_slashes};
use crate::notify::Listener;

/// Devices that every container has; whatever file stands for one of them, the builder's own is opened.
const DEVICES: &[((u32, u32), &CStr)] = &[
    ((1, 3), c"/dev/null"),
    ((1, 5), c"/dev/zero"),
    ((1, 7), c"/dev/full"),
    ((1, 8), c"/dev/random"),
    ((1, 9), c"/dev/urandom"),
    ((5, 0), c"/dev/tty"),
];

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
    if flags.contains(OFlags::CREATE | OFlags::DIRECTORY) {
        return Err(Errno::INVAL);
    }
    let follow = !flags.contains(OFlags::NOFOLLOW) && !flags.contains(OFlags::CREATE | OFlags::EXCL);
    for _ in 0..ATTEMPTS {
        let target = match flags.contains(OFlags::CREATE) {
            true => to_create(caller, &path, follow)?,
            false => caller.walk(caller.descriptor(0), &path, follow)?,
        };
        if flags.contains(OFlags::PATH) {
            return open_for_path(caller, &target, flags);
        }
        if flags.contains(OFlags::TMPFILE) {
            return unnamed(caller, target, flags);
        }
        match open_target(caller, &target, flags) {
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
    let start = caller.start_of(caller.descriptor(0), name)?;
    let (target, slash_of_link) = caller.world.places.walk_to_name(&caller.view, &start, name, follow && !slash)?;
    match &target.spot {
        Spot::Entry(_, _) | Spot::Mapped(_) if slash || slash_of_link => Err(Errno::ISDIR),
        _ => Ok(target),
    }
}

fn open_target(caller: &Caller<'_>, target: &Target, flags: OFlags) -> Handled {
    // Only what can be a program: opening others may take its time.
    let is_file = target.found.as_ref().is_none_or(|found| type_of(found).is_file());
    let _giving = is_file.then(|| caller.world.giving());
    let Some(found) = &target.found else {
        return match &target.spot {
            Spot::Entry(dir, name) if flags.contains(OFlags::CREATE) => create(caller, dir, name, flags),
            _ => Err(Errno::NOENT),
        };
    };
    if flags.contains(OFlags::CREATE | OFlags::EXCL) {
        return Err(Errno::EXIST);
    }
    allowed(caller, target, found, flags)?;
    if writes(flags) {
        caller.is_not_executed(target, found)?;
        links::detach(caller, target, found)?;
        lose_capability(caller, target, found)?;
    }
    let passed = flags.intersection(PASSED);
    let file = match (&target.spot, type_of(found)) {
        (Spot::Node(Node::Proc(proc)), _) => {
            caller
                .world
                .places
                .procfs
                .open(proc, passed, &|| caller.world.mounts_text(), &|path| caller.world.places.shown(path))?
        }
        (Spot::Node(Node::Dir(dir)), _) => open_at(dir.fd.as_fd(), c".", passed)?,
        (Spot::Mapped(mapped), _) => mapped_file(caller, mapped, found, passed)?,
        (Spot::Entry(dir, name), FileType::CharacterDevice) if found.stx_rdev_major == TERMINALS => {
            // Others of the container belong to other people.
            if !lock(&caller.world.terminals).contains(&found.stx_rdev_minor) {
                return Err(Errno::ACCESS);
            }
            open_at(dir.fd.as_fd(), name, passed)?
        }
        (_, FileType::CharacterDevice | FileType::BlockDevice) => device(target, found, passed)?,
        (_, FileType::Socket) => return Err(Errno::NXIO),
        (Spot::Open(path), _) => reopen(path, passed)?,
        (Spot::Entry(dir, name), FileType::Fifo) if !flags.contains(OFlags::NONBLOCK) => {
            return fifo(caller, dir, name, passed, flags);
        }
        // Known from now on: whoever opens a directory is about to look at what is in it.
        (Spot::Entry(dir, name), FileType::Directory) => {
            let dir = caller.world.places.walk_into(dir, name.to_bytes())?.ok_or(Errno::NOTDIR)?;
            open_at(dir.fd.as_fd(), c".", passed)?
        }
        (Spot::Entry(dir, name), _) => open_at(dir.fd.as_fd(), name, passed)?,
    };
    give(caller, file.as_fd(), flags)
}

fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
}

/// That the caller may open what is there like this.
fn allowed(caller: &Caller<'_>, target: &Target, found: &Statx, flags: OFlags) -> Result<(), Errno> {
    let kind = type_of(found);
    let writes = writes(flags);
    match kind {
        FileType::Symlink => return Err(Errno::LOOP),
        FileType::Directory if writes || flags.contains(OFlags::CREATE) => return Err(Errno::ISDIR),
        FileType::Directory => {}
        _ if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
        _ => {}
    }
    let is_special = !matches!(kind, FileType::RegularFile | FileType::Directory);
    let is_proc = matches!(target.spot, Spot::Node(Node::Proc(_)));
    if writes && !is_special && !is_proc {
        caller.changes(target)?;
    }
    // Pipes and the like that were inherited are not in any tree.
    if caller.tree(target).is_none() && matches!(target.spot, Spot::Open(_)) {
        return Ok(());
    }
    let access = flags.intersection(OFlags::ACCMODE);
    let reads = if access == OFlags::WRONLY { 0 } else { READ };
    caller.view.ids.may(found, reads | if writes { WRITE } else { 0 })
}

/// Writing takes a file's capabilities (`security/commoncap.c` cap_inode_killpriv). What is written is not known here, only that
/// somebody is about to.
fn lose_capability(caller: &Caller<'_>, target: &Target, found: &Statx) -> Result<(), Errno> {
    const CAPABILITY: &str = "security.capability";
    let Some(tree) = caller.tree(target).filter(|tree| tree.knows(found)) else { return Ok(()) };
    // It may be a copy by now.
    let again = match &target.spot {
        Spot::Entry(dir, name) => caller.world.places.seen_at(dir, name.to_bytes())?,
        _ => None,
    };
    let found = again.as_ref().unwrap_or(found);
    if !tree.pretended_attributes(found).iter().any(|(name, _)| name == CAPABILITY) {
        return Ok(());
    }
    tree.pretend_attribute(found, CAPABILITY.as_ref(), None).map_err(errno)
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

/// Opens what is reached through a descriptor once more, as open(2) of /proc/PID/fd/N does.
fn reopen(path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

fn device(target: &Target, found: &Statx, flags: OFlags) -> Result<OwnedFd, Errno> {
    // What the step has open (a terminal, say) is opened again as it is.
    if let Spot::Open(path) = &target.spot {
        return reopen(path, flags);
    }
    let number = (found.stx_rdev_major, found.stx_rdev_minor);
    let known = DEVICES.iter().find(|(device, _)| *device == number && type_of(found) == FileType::CharacterDevice);
    // As the device rules of a container have it.
    let (_, path) = known.ok_or(Errno::PERM)?;
    reopen(path, flags)
}

/// Opens a file that is mapped. A terminal that is made this way is the step's.
fn mapped_file(caller: &Caller<'_>, mapped: &Mapped, found: &Statx, flags: OFlags) -> Result<OwnedFd, Errno> {
    let file = reopen(&own_path(mapped.file.as_fd()), flags)?;
    if (found.stx_rdev_major, found.stx_rdev_minor) == MULTIPLEXER {
        let mut number: libc::c_uint = 0;
        // SAFETY: TIOCGPTN writes one number.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) } == 0 {
            lock(&caller.world.terminals).insert(number);
        }
    }
    Ok(file)
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
    caller.may_add(dir)?;
    let mode = caller.number(3) & 0o7777 & !caller.view.umask;
    let real_mode = (mode & 0o777) | 0o600;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let passed = flags.intersection(PASSED) - OFlags::TRUNC - OFlags::DIRECTORY;
    let file = rustix::fs::openat(&dir.fd, name, passed | new, Mode::from_raw_mode(real_mode))?;
    let kept = rustix::io::fcntl_dupfd_cloexec(&file, 0)?;
    caller.made_file(Some(dir), kept, mode, real_mode, None)?;
    give(caller, file.as_fd(), flags)
}

/// A file without a name (`O_TMPFILE`).
fn unnamed(caller: &Caller<'_>, target: Target, flags: OFlags) -> Handled {
    let Node::Dir(dir) = caller.directory(target)? else { return Err(Errno::OPNOTSUPP) };
    let _giving = caller.world.giving();
    caller.may_add(&dir)?;
    let mode = caller.number(3) & 0o7777 & !caller.view.umask;
    let real_mode = (mode & 0o777) | 0o600;
    let passed = flags.intersection(PASSED | OFlags::TMPFILE | OFlags::EXCL) | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir.fd, c".", passed, Mode::from_raw_mode(real_mode))?;
    let kept = rustix::io::fcntl_dupfd_cloexec(&file, 0)?;
    caller.made_file(Some(&dir), kept, mode, real_mode, None)?;
    give(caller, file.as_fd(), flags)
}

/// `O_PATH`: such descriptors cannot be given to another process. Directories and files are opened to read; of everything else
/// the step gets an empty file, by which the builder finds what was meant.
fn open_for_path(caller: &Caller<'_>, target: &Target, flags: OFlags) -> Handled {
    let found = target.existing()?;
    let kind = type_of(found);
    if flags.contains(OFlags::DIRECTORY) && !kind.is_dir() {
        return Err(Errno::NOTDIR);
    }
    let file =
        match (&target.spot, kind) {
            (Spot::Node(Node::Proc(proc)), _) => {
                caller.world.places.procfs.open(proc, OFlags::RDONLY, &|| caller.world.mounts_text(), &|path| {
                    caller.world.places.shown(path)
                })?
            }
            (Spot::Node(Node::Dir(dir)), _) => open_at(dir.fd.as_fd(), c".", OFlags::DIRECTORY)?,
            (Spot::Entry(dir, name), FileType::Directory | FileType::RegularFile) => {
                open_at(dir.fd.as_fd(), name, OFlags::RDONLY)?
            }
            (Spot::Entry(dir, name), _) => {
                let file = open_path(dir.fd.as_fd(), name.to_bytes(), OFlags::empty())?;
                let shown = caller.world.places.path_of(&Node::Dir(dir.clone()))?;
                let shown = [&shown, b"/".as_slice(), name.to_bytes()].concat();
                stand_in(caller, file, shown, dir)?
            }
            (Spot::Mapped(mapped), _) => reopen(&own_path(mapped.file.as_fd()), OFlags::RDONLY)?,
            (Spot::Open(path), _) => reopen(path, OFlags::RDONLY | OFlags::NONBLOCK)?,
        };
    give(caller, file.as_fd(), flags)
}

fn stand_in(caller: &Caller<'_>, file: OwnedFd, shown: Vec<u8>, dir: &Dir) -> Result<OwnedFd, Errno> {
    let empty = rustix::fs::memfd_create("path", MemfdFlags::CLOEXEC)?;
    let id = id_of(&look(empty.as_fd())?);
    let (read_only, tree) = (dir.area.read_only, dir.area.tree.clone());
    caller.world.places.add_file(Arc::new(Mapped { file, shown, read_only, looks: None, tree, id }));
    Ok(empty)
}

/// Opening a fifo waits for the other side: that is for a thread of its own.
fn fifo(caller: &Caller<'_>, dir: &Arc<Dir>, name: &CStr, passed: OFlags, flags: OFlags) -> Handled {
    let file = open_path(dir.fd.as_fd(), name.to_bytes(), OFlags::empty())?;
    let (listener, call) = (caller.listener.share().map_err(errno)?, *caller.call);
    let kept = rustix::io::fcntl_dupfd_cloexec(&file, 0)?;
    caller.world.waiting_for(kept);
    let wait = move || {
        let opened =
            rustix::fs::openat(CWD, own_path(file.as_fd()).as_c_str(), passed | OFlags::CLOEXEC, Mode::empty());
        let _ = match opened {
            Ok(opened) => listener.answer_with(&call, opened.as_fd(), flags.contains(OFlags::CLOEXEC)).map(drop),
            Err(error) => listener.refuse(&call, error),
        };
    };
    spawn::thread_now("fifo", wait).map_err(errno)?;
    Ok(Reply::Given)
}
