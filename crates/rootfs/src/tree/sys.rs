//! System calls that rustix does not offer or offers in another shape.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::{FileKind, Metadata};

/// One number on every architecture since Linux 5.12 unified the tables; not in libc for each of them.
const FCHMODAT2: libc::c_long = 452;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;

/// What identifies a file over its whole life: the creation time tells a reused inode number from the file that had it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Key {
    pub inode: u64,
    /// (0, 0) where the file system has no creation times.
    pub born: (i64, u32),
}

/// What the kernel says about a file.
#[derive(Clone, Debug)]
pub struct Found {
    pub metadata: Metadata,
    pub key: Key,
    /// Which attributes the table has for it; 0 for none.
    pub pretended_attributes: u64,
}

pub fn kind_of(mode: u32) -> FileKind {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Symlink,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => FileKind::File,
    }
}

/// The type bits of a mode.
pub fn type_of(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
    }
}

/// Metadata of `name` in `dir` (of `dir` itself with an empty name), no link followed; none where it does not exist.
pub fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Found>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    match rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME) {
        Ok(stat) => Ok(Some(from_statx(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        // gVisor's and old filters' answer to a call they do not know.
        Err(Errno::NOSYS | Errno::PERM) => stat_without_birth(dir, name),
        Err(error) => Err(error.into()),
    }
}

pub fn from_statx(stat: &rustix::fs::Statx) -> Found {
    let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let born = if has_birth { (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) } else { (0, 0) };
    let mode = u32::from(stat.stx_mode);
    let kind = kind_of(mode);
    Found {
        metadata: Metadata {
            kind,
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            device: device_of(kind, stat.stx_rdev_major, stat.stx_rdev_minor),
            size_bytes: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            inode: stat.stx_ino,
            device_id: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            links: u64::from(stat.stx_nlink),
        },
        key: Key { inode: stat.stx_ino, born },
        pretended_attributes: 0,
    }
}

fn device_of(kind: FileKind, major: u32, minor: u32) -> (u32, u32) {
    match kind {
        FileKind::CharDevice | FileKind::BlockDevice => (major, minor),
        _ => (0, 0),
    }
}

fn stat_without_birth(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Found>> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let kind = kind_of(stat.st_mode);
    let metadata = Metadata {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        device: device_of(kind, rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        size_bytes: stat.st_size as u64,
        modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        inode: stat.st_ino as u64,
        device_id: stat.st_dev as u64,
        links: stat.st_nlink as u64,
    };
    Ok(Some(Found { key: Key { inode: metadata.inode, born: (0, 0) }, metadata, pretended_attributes: 0 }))
}

/// Whether openat2 works in `root`: kernels before 5.6 and gVisor lack it, old seccomp profiles refuse it.
pub fn has_openat2(root: BorrowedFd<'_>) -> bool {
    open_in_root(root, OsStr::new("."), OFlags::PATH | OFlags::DIRECTORY).is_ok()
}

/// Opens `path` with `root` as the root directory for `..`, absolute paths and every symbolic link.
pub fn open_in_root(root: BorrowedFd<'_>, path: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { OsStr::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut attempts = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel could not rule out that a rename moved a `..` outside; man 2 openat2 says to try again.
            Err(Errno::AGAIN | Errno::INTR) if attempts < 128 => attempts += 1,
            result => return result,
        }
    }
}

static FCHMODAT2_MISSING: AtomicBool = AtomicBool::new(false);

/// Sets the permission bits of `name` in `dir` unless it is a symbolic link (which then fails or is left alone).
pub fn change_mode(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    if !FCHMODAT2_MISSING.load(Ordering::Relaxed) {
        match change_mode_no_follow(dir, name, mode) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)) => {
                if error.raw_os_error() == Some(libc::ENOSYS) {
                    FCHMODAT2_MISSING.store(true, Ordering::Relaxed);
                }
            }
            result => return result,
        }
    }
    // Only stat and chmod are two calls here: nothing else changes a tree while it is being worked on.
    match stat(dir, name)? {
        None => Err(Errno::NOENT.into()),
        Some(found) if found.metadata.kind == FileKind::Symlink => Ok(()),
        Some(_) => Ok(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?),
    }
}

fn change_mode_no_follow(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: the descriptor is open for the whole call, `name` is a terminated string that outlives it, and the call
    // writes to no memory of ours.
    let result = unsafe { libc::syscall(FCHMODAT2, dir.as_raw_fd(), name.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether this process may give files away and still reach them whatever their owner and mode: CHOWN, DAC_OVERRIDE and
/// FOWNER together. Without one of them owners and hard modes are only written down.
pub fn may_give_files_away() -> bool {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 of the call reads one header and writes exactly two data structures; both are ours, have the
    // kernel's layout (linux/capability.h) and live until it returns.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    let wanted = 1 << CHOWN | 1 << DAC_OVERRIDE | 1 << FOWNER;
    result == 0 && data[0].effective & wanted == wanted
}

/// A file to work on with the xattr calls: a descriptor where it can be opened without side effects (files and
/// directories), else its name through /proc, the only way to a symbolic link or a device below a descriptor.
enum Attributed<'f> {
    Open(OwnedFd),
    Borrowed(BorrowedFd<'f>),
    Named(CString),
}

fn attributed(dir: BorrowedFd<'_>, name: &OsStr, kind: FileKind) -> io::Result<Attributed<'static>> {
    if matches!(kind, FileKind::File | FileKind::Directory) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let name = if name.is_empty() { OsStr::new(".") } else { name };
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(file) => return Ok(Attributed::Open(file)),
            Err(Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    Ok(Attributed::Named(CString::new(path)?))
}

impl Attributed<'_> {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Attributed::Open(file) => rustix::fs::flistxattr(file, buffer),
            Attributed::Borrowed(file) => rustix::fs::flistxattr(file, buffer),
            Attributed::Named(path) => rustix::fs::llistxattr(path.as_c_str(), buffer),
        }
    }

    fn get(&self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Attributed::Open(file) => rustix::fs::fgetxattr(file, name, buffer),
            Attributed::Borrowed(file) => rustix::fs::fgetxattr(file, name, buffer),
            Attributed::Named(path) => rustix::fs::lgetxattr(path.as_c_str(), name, buffer),
        }
    }

    fn read(&self, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Xattrs> {
        let names = match whole(|buffer| self.list(buffer)) {
            Ok(names) => names,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            // Without /proc nothing is known of links and devices; neither kind has attributes that go into a layer.
            Err(Errno::NOENT | Errno::NOTDIR) if matches!(self, Attributed::Named(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut result = Vec::new();
        for attribute in names.split_inclusive(|&byte| byte == 0) {
            let Ok(attribute) = CStr::from_bytes_with_nul(attribute) else { continue };
            if !wanted(attribute.to_bytes()) {
                continue;
            }
            match whole(|buffer| self.get(attribute, buffer)) {
                Ok(value) => result.push((OsStr::from_bytes(attribute.to_bytes()).to_owned(), value)),
                Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(result)
    }
}

/// Names and values.
pub type Xattrs = Vec<(OsString, Vec<u8>)>;

/// Calls a size-then-fill system call until the answer fits.
fn whole(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 512];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for a value and for a list.
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Attributes of a file that `wanted` takes. A file system without attributes has none.
pub fn xattrs(dir: BorrowedFd<'_>, name: &OsStr, kind: FileKind, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Xattrs> {
    attributed(dir, name, kind)?.read(wanted)
}

/// The same of an open file.
pub fn file_xattrs(file: &File, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Xattrs> {
    Attributed::Borrowed(file.as_fd()).read(wanted)
}

pub fn set_xattr(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileKind,
    attribute: &OsStr,
    value: &[u8],
) -> rustix::io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    match attributed(dir, name, kind).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))? {
        Attributed::Open(file) => rustix::fs::fsetxattr(file, attribute, value, flags),
        Attributed::Borrowed(file) => rustix::fs::fsetxattr(file, attribute, value, flags),
        Attributed::Named(path) => rustix::fs::lsetxattr(path.as_c_str(), attribute, value, flags),
    }
}

pub fn remove_xattr(dir: BorrowedFd<'_>, name: &OsStr, kind: FileKind, attribute: &OsStr) -> rustix::io::Result<()> {
    match attributed(dir, name, kind).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))? {
        Attributed::Open(file) => rustix::fs::fremovexattr(file, attribute),
        Attributed::Borrowed(file) => rustix::fs::fremovexattr(file, attribute),
        Attributed::Named(path) => rustix::fs::lremovexattr(path.as_c_str(), attribute),
    }
}

/// Attributes of an open directory that `wanted` takes.
pub fn raw_xattrs(directory: BorrowedFd<'_>, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Xattrs> {
    Attributed::Borrowed(directory).read(wanted)
}

pub fn set_raw_xattr(directory: BorrowedFd<'_>, attribute: &OsStr, value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(directory, attribute, value, rustix::fs::XattrFlags::empty())
}

pub fn remove_raw_xattr(directory: BorrowedFd<'_>, attribute: &OsStr) -> rustix::io::Result<()> {
    rustix::fs::fremovexattr(directory, attribute)
}
