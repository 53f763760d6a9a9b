//! Looking at files: stat, access, links, directories, attributes.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{CWD, FileType, Statx, StatxFlags};
use rustix::io::Errno;

use super::abi::Abi;
use super::caller::{AT_FDCWD, Caller, DONE, EMPTY_PATH, Handled, Held, NO_FOLLOW, Reply, errno};
use super::i386;
use super::ids::{EXECUTE, READ, WRITE};
use super::memory::raw;
use super::place::{LOOK, Node, Spot, Target, path_by_kernel, read_link, type_of};
use super::procfs::{Below, Magic};

/// Flags of calls that look at files (`fs/stat.c`): also AT_NO_AUTOMOUNT, AT_STATX_SYNC_TYPE.
const LOOKING: u32 = NO_FOLLOW | EMPTY_PATH | 0x800 | 0x6000;
const XATTR_SIZE_MAX: usize = 65536;

/// (directory, path, buffer, flags)
pub fn stat(caller: &Caller<'_>) -> Handled {
    let found = caller.seen(0, 1, caller.flags(3, LOOKING)?)?;
    match caller.call.abi() {
        Abi::Own => caller.write(caller.arguments[2], raw(&classic(&found)))?,
        Abi::I386 => caller.write(caller.arguments[2], &i386::stat64(&found))?,
    }
    DONE
}

/// (directory, path, buffer, flags)
pub fn short_stat(caller: &Caller<'_>) -> Handled {
    let found = caller.seen(0, 1, caller.number(3))?;
    caller.write(caller.arguments[2], &i386::stat(&found)?)?;
    DONE
}

/// `struct stat` of this architecture (`asm/stat.h`).
fn classic(found: &Statx) -> libc::stat {
    // SAFETY: stat is plain data for which zeroes are valid.
    let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
    stat.st_dev = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    stat.st_ino = found.stx_ino;
    stat.st_nlink = found.stx_nlink as _;
    stat.st_mode = u32::from(found.stx_mode);
    (stat.st_uid, stat.st_gid) = (found.stx_uid, found.stx_gid);
    stat.st_rdev = rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor);
    stat.st_size = found.stx_size as _;
    stat.st_blksize = found.stx_blksize as _;
    stat.st_blocks = found.stx_blocks as _;
    (stat.st_atime, stat.st_atime_nsec) = (found.stx_atime.tv_sec, found.stx_atime.tv_nsec.into());
    (stat.st_mtime, stat.st_mtime_nsec) = (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into());
    (stat.st_ctime, stat.st_ctime_nsec) = (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec.into());
    stat
}

/// (directory, path, flags, mask, buffer)
pub fn statx(caller: &Caller<'_>) -> Handled {
    let mut found = caller.seen(0, 1, caller.flags(2, LOOKING)?)?;
    let wanted = StatxFlags::from_bits_retain(caller.number(3)) | LOOK;
    found.stx_mask &= wanted.bits();
    caller.write(caller.arguments[4], raw(&found))?;
    DONE
}

/// (directory, path, mode, flags)
pub fn access(caller: &Caller<'_>) -> Handled {
    let (mode, flags) = (caller.number(2), caller.flags(3, libc::AT_EACCESS as u32 | NO_FOLLOW | EMPTY_PATH)?);
    if mode & !7 != 0 {
        return Err(Errno::INVAL);
    }
    let (target, found) = caller.existing(0, 1, flags)?;
    if mode & WRITE != 0 && matches!(type_of(&found), FileType::RegularFile | FileType::Directory) {
        caller.may_change(&target.spot)?;
    }
    let effective = flags & libc::AT_EACCESS as u32 != 0;
    let ids = if effective { caller.view.ids.clone() } else { caller.view.ids.real() };
    ids.may(&found, mode)?;
    DONE
}

/// (directory, path, buffer, size)
pub fn readlink(caller: &Caller<'_>) -> Handled {
    let path = caller.path(caller.arguments[1])?;
    let descriptor = caller.descriptor(0);
    let target = match path.as_slice() {
        b"" if descriptor != AT_FDCWD => caller.world.places.descriptor(caller.view.thread, descriptor)?,
        path => caller.walk(descriptor, path, false)?,
    };
    let text = match &target.spot {
        Spot::Entry(dir, name) => match target.existing()? {
            found if type_of(found).is_symlink() => read_link(dir.fd.as_fd(), name.to_bytes())?,
            _ => return Err(Errno::INVAL),
        },
        Spot::Mapped(mapped) if type_of(target.existing()?).is_symlink() => read_link(mapped.file.as_fd(), b"")?,
        Spot::Node(Node::Proc(proc)) => proc_link(caller, proc)?,
        _ => return Err(Errno::INVAL),
    };
    let length = text.len().min(caller.arguments[3] as u32 as usize);
    if length == 0 {
        return Err(Errno::INVAL);
    }
    caller.write(caller.arguments[2], &text[..length])?;
    caller.ok(length as i64)
}

/// What a link of /proc says to the step.
fn proc_link(caller: &Caller<'_>, proc: &super::procfs::Proc) -> Result<Vec<u8>, Errno> {
    let places = &caller.world.places;
    let (above, name) = (proc.above().ok_or(Errno::INVAL)?, proc.path().rsplit(|byte| *byte == b'/').next());
    let below = places.procfs.enter(&above, name.unwrap_or_default(), &caller.view)?;
    match below {
        Below::Link(_, text) => Ok(text),
        Below::Plain(below) => Ok(read_link(CWD, below.path())?),
        Below::Magic(_, magic) => places.procfs.looking(&caller.view, magic.process(), || magic_text(caller, &magic)),
    }
}

fn magic_text(caller: &Caller<'_>, magic: &Magic) -> Result<Vec<u8>, Errno> {
    let places = &caller.world.places;
    match *magic {
        Magic::Root(_) => Ok(b"/".to_vec()),
        Magic::Cwd(process) => places.path_of(&places.procfs.cwd_of(process).ok_or(Errno::NOENT)?),
        Magic::Program(process) => places.procfs.exe_of(process).ok_or(Errno::NOENT),
        Magic::Open { process, number } => {
            let target = places.descriptor(process, number)?;
            match target.spot {
                Spot::Mapped(mapped) => Ok(mapped.shown.clone()),
                // With a remark where it has been removed.
                Spot::Node(Node::Dir(dir)) => Ok(places.shown(&path_by_kernel(dir.fd.as_fd())?)),
                Spot::Node(node) => places.path_of(&node),
                Spot::Open(opened) => Ok(places.shown(&path_by_kernel(opened.file.as_fd())?)),
                Spot::Entry(_, _) => Err(Errno::INVAL),
            }
        }
    }
}

/// (buffer, size)
pub fn getcwd(caller: &Caller<'_>) -> Handled {
    let mut path = caller.world.places.path_in(&caller.view, &caller.view.cwd)?;
    path.push(0);
    if path.len() as u64 > caller.arguments[1] {
        return Err(Errno::RANGE);
    }
    caller.write(caller.arguments[0], &path)?;
    caller.ok(path.len() as i64)
}

fn go(caller: &Caller<'_>, target: Target) -> Handled {
    let found = *target.existing()?;
    let node = caller.directory(target)?;
    caller.view.ids.may(&found, EXECUTE)?;
    caller.changing(|state| state.cwd = node)?;
    DONE
}

/// (path)
pub fn chdir(caller: &Caller<'_>) -> Handled {
    let path = caller.path(caller.arguments[0])?;
    go(caller, caller.walk(AT_FDCWD, &path, true)?)
}

/// (descriptor)
pub fn fchdir(caller: &Caller<'_>) -> Handled {
    go(caller, caller.world.places.descriptor(caller.view.thread, caller.descriptor(0))?)
}

/// (path)
pub fn chroot(caller: &Caller<'_>) -> Handled {
    let path = caller.path(caller.arguments[0])?;
    let target = caller.walk(AT_FDCWD, &path, true)?;
    let found = *target.existing()?;
    let Node::Dir(root) = caller.directory(target)? else { return Err(Errno::PERM) };
    caller.view.ids.may(&found, EXECUTE)?;
    if !caller.view.ids.may_change_root() {
        return Err(Errno::PERM);
    }
    caller.changing(|state| state.root = root)?;
    DONE
}

/// (path, buffer), and for i386 the buffer's size
pub fn statfs(caller: &Caller<'_>) -> Handled {
    match caller.call.abi() {
        Abi::Own => caller.write(caller.arguments[1], raw(&file_system(caller)?))?,
        Abi::I386 if caller.arguments[2] != i386::STATFS64 => return Err(Errno::INVAL),
        Abi::I386 => caller.write(caller.arguments[1], &i386::statfs64(&file_system(caller)?))?,
    }
    DONE
}

/// (path, buffer)
pub fn short_statfs(caller: &Caller<'_>) -> Handled {
    caller.write(caller.arguments[1], &i386::statfs(&file_system(caller)?)?)?;
    DONE
}

fn file_system(caller: &Caller<'_>) -> Result<rustix::fs::StatFs, Errno> {
    let path = caller.path(caller.arguments[0])?;
    let target = caller.walk(AT_FDCWD, &path, true)?;
    target.existing()?;
    rustix::fs::statfs(caller.hold(target)?.path.as_c_str())
}

/// Where an attribute is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// `user.*`: in the file.
    File,
    /// `security.capability`: in the table.
    Table,
    /// For CAP_SYS_ADMIN, which a step does not have (`fs/xattr.c` xattr_permission, `security/commoncap.c`).
    Nowhere,
}

/// The attribute's name, and where it is kept.
fn attribute(caller: &Caller<'_>, index: usize) -> Result<(Vec<u8>, Kept), Errno> {
    let name = super::memory::text(caller.call.thread, caller.arguments[index], 256).map_err(|error| match error {
        Errno::NAMETOOLONG => Errno::RANGE,
        error => error,
    })?;
    let kept = match name.as_slice() {
        CAPABILITY => Kept::Table,
        name if name.starts_with(b"user.") => Kept::File,
        name if name.starts_with(b"security.") || name.starts_with(b"trusted.") => Kept::Nowhere,
        _ => return Err(Errno::OPNOTSUPP),
    };
    Ok((name, kept))
}

const CAPABILITY: &[u8] = b"security.capability";

/// Whether a value is one of capabilities (`security/commoncap.c` validheader: of the second or third version).
fn is_capability(value: &[u8]) -> bool {
    let version = value.first_chunk().map(|magic| u32::from_le_bytes(*magic) >> 24);
    matches!((version, value.len()), (Some(2), 20) | (Some(3), 24))
}

/// (directory, path, flags, name, value, size); flags here are those of the form, not setxattr's own.
pub fn getxattr(caller: &Caller<'_>) -> Handled {
    let held = caller.held(0, 1, caller.number(2))?;
    let (name, kept) = attribute(caller, 3)?;
    if kept == Kept::File && !has_attributes(&held.found) {
        return Err(Errno::NODATA);
    }
    let value = match kept {
        Kept::Nowhere => return Err(Errno::NODATA),
        Kept::Table => {
            let tree = caller.tree(&held.spot).ok_or(Errno::NODATA)?;
            let all = tree.pretended_attributes(&held.real);
            let found = all.into_iter().find(|(known, _)| known.as_bytes() == name);
            found.ok_or(Errno::NODATA)?.1
        }
        Kept::File => {
            // `fs/xattr.c` xattr_permission
            caller.view.ids.may(&held.found, READ)?;
            let mut value = vec![0; XATTR_SIZE_MAX];
            let count = rustix::fs::getxattr(held.path.as_c_str(), name, &mut value)?;
            value.truncate(count);
            value
        }
    };
    fill(caller, 4, &value)
}

/// Attributes of `user.` are for files and directories only (`fs/xattr.c` xattr_permission).
fn has_attributes(found: &Statx) -> bool {
    matches!(type_of(found), FileType::RegularFile | FileType::Directory)
}

/// Whether somebody may change attributes of `user.` of a file: of a sticky directory only the owner.
fn may_have_attributes(caller: &Caller<'_>, found: &Statx) -> bool {
    let is_sticky = type_of(found).is_dir() && u32::from(found.stx_mode) & libc::S_ISVTX != 0;
    has_attributes(found) && (!is_sticky || caller.view.ids.owns(found))
}

/// Writes as much as there is, or says how much that is when the size is 0.
fn fill(caller: &Caller<'_>, buffer: usize, value: &[u8]) -> Handled {
    let size = caller.arguments[buffer + 1];
    if size != 0 {
        if value.len() as u64 > size {
            return Err(Errno::RANGE);
        }
        caller.write(caller.arguments[buffer], value)?;
    }
    caller.ok(value.len() as i64)
}

/// (directory, path, flags, list, size)
pub fn listxattr(caller: &Caller<'_>) -> Handled {
    let held = caller.held(0, 1, caller.number(2))?;
    let mut names = vec![0; XATTR_SIZE_MAX];
    let count = rustix::fs::listxattr(held.path.as_c_str(), &mut names).unwrap_or(0);
    names.truncate(count);
    let real = names.split_inclusive(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    let mut list: Vec<u8> = real.flatten().copied().collect();
    if let Some(tree) = caller.tree(&held.spot) {
        for (name, _) in tree.pretended_attributes(&held.real) {
            list.extend(name.as_bytes());
            list.push(0);
        }
    }
    fill(caller, 3, &list)
}

/// (directory, path, flags, name, value, size), and setxattr's own flags after them.
pub fn setxattr(caller: &Caller<'_>, how: u32) -> Handled {
    let held = caller.held(0, 1, caller.number(2))?;
    let (name, kept) = attribute(caller, 3)?;
    if caller.arguments[5] > XATTR_SIZE_MAX as u64 {
        return Err(Errno::TOOBIG);
    }
    let value = caller.read(caller.arguments[4], caller.arguments[5] as usize)?;
    change_attribute(caller, held, &name, kept, Some((&value, how)))
}

/// (directory, path, flags, name)
pub fn removexattr(caller: &Caller<'_>) -> Handled {
    let held = caller.held(0, 1, caller.number(2))?;
    let (name, kept) = attribute(caller, 3)?;
    change_attribute(caller, held, &name, kept, None)
}

fn change_attribute(caller: &Caller<'_>, held: Held, name: &[u8], kept: Kept, value: Option<(&[u8], u32)>) -> Handled {
    caller.changes(&held.spot, &held.found)?;
    if kept == Kept::Nowhere || (kept == Kept::File && !may_have_attributes(caller, &held.found)) {
        return Err(Errno::PERM);
    }
    if kept == Kept::File {
        caller.view.ids.may(&held.found, WRITE)?;
        let held = super::links::own(caller, held)?;
        let path = held.path.as_c_str();
        return match value {
            Some((value, how)) => {
                rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::from_bits_retain(how))?;
                DONE
            }
            None => rustix::fs::removexattr(path, name).map(|()| Reply::Value(0)),
        };
    }
    if value.is_some_and(|(value, _)| !is_capability(value)) {
        return Err(Errno::INVAL);
    }
    if !caller.view.ids.may_set_capabilities() {
        return Err(Errno::PERM);
    }
    let tree = caller.tree(&held.spot).ok_or(Errno::OPNOTSUPP)?;
    let held = super::links::own(caller, held)?;
    let real = held.look()?;
    let known = tree.pretended_attributes(&real).iter().any(|(known, _)| known.as_bytes() == name);
    match value {
        None if !known => return Err(Errno::NODATA),
        Some((_, how)) if how & libc::XATTR_CREATE as u32 != 0 && known => return Err(Errno::EXIST),
        Some((_, how)) if how & libc::XATTR_REPLACE as u32 != 0 && !known => return Err(Errno::NODATA),
        _ => {}
    }
    let value = value.map(|(value, _)| value);
    tree.pretend_attribute(&real, OsStr::from_bytes(name), value).map_err(errno)?;
    DONE
}

/// Whether links at the end of a path are followed, as `AT_*` flags.
pub const fn following(follow: bool) -> u64 {
    if follow { 0 } else { NO_FOLLOW as u64 }
}
