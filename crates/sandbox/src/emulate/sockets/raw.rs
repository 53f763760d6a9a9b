//! Socket calls with addresses as the bytes that they are.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::emulate::place::type_of;

/// `sizeof(struct sockaddr_storage)`, the longest address that the kernel takes.
pub const ADDRESS_MAX: usize = 128;

fn checked(returned: libc::c_long) -> Result<i64, Errno> {
    if returned >= 0 {
        return Ok(returned);
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn owned(returned: libc::c_long) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    checked(returned).map(|number| unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// The new descriptor is close-on-exec.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes three numbers.
    owned(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }.into())
}

/// Two connected sockets of the AF_UNIX family. Both are close-on-exec.
pub fn pair(kind: i32, protocol: i32) -> Result<[OwnedFd; 2], Errno> {
    let mut made = [-1; 2];
    // SAFETY: the kernel writes two numbers.
    let done = unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, protocol, made.as_mut_ptr()) };
    checked(done.into())?;
    // SAFETY: the kernel has just made these descriptors for us, and nobody else has them.
    Ok(made.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

pub fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many bytes as the slice has.
    let done = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) };
    checked(done.into()).map(drop)
}

pub fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: as in `bind`.
    let done = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) };
    checked(done.into()).map(drop)
}

/// Sends one message to an address; what goes along with it (`cmsg(3)`) may not hold descriptors.
pub fn send(
    socket: BorrowedFd<'_>,
    data: &[u8],
    control: &[u8],
    address: &[u8],
    flags: libc::c_int,
) -> Result<i64, Errno> {
    let mut vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: msghdr is plain data for which zeroes are valid.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_name = address.as_ptr().cast_mut().cast();
    message.msg_namelen = address.len() as libc::socklen_t;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1 as _;
    if !control.is_empty() {
        message.msg_control = control.as_ptr().cast_mut().cast();
        message.msg_controllen = control.len() as _;
    }
    // SAFETY: the message points to slices that outlive the call, with the sizes that they have; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags | libc::MSG_NOSIGNAL) };
    checked(sent as libc::c_long)
}

/// The address that a socket is bound to.
pub fn name(socket: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut address = vec![0u8; ADDRESS_MAX];
    let mut length = ADDRESS_MAX as libc::socklen_t;
    // SAFETY: the kernel writes no more than the length says, which is the buffer's.
    let done = unsafe { libc::getsockname(socket.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) };
    checked(done.into())?;
    address.truncate(length as usize);
    Ok(address)
}

/// A number that the socket layer keeps: `SO_DOMAIN`, `SO_TYPE`.
pub fn option(socket: BorrowedFd<'_>, option: libc::c_int) -> Result<i32, Errno> {
    let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
    let at = (&raw mut value).cast();
    // SAFETY: the kernel writes one int, as the length says.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, at, &raw mut length) };
    checked(done.into()).map(|_| value)
}

pub fn waits(socket: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_getfl(socket).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK))
}

fn path_of(process: u32, number: i32) -> String {
    format!("/proc/{process}/fd/{number}")
}

/// The inode number of a process's socket.
pub fn inode(process: u32, number: i32) -> Result<u64, Errno> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO;
    match rustix::fs::statx(CWD, path_of(process, number), AtFlags::NO_AUTOMOUNT, wanted) {
        Ok(found) if type_of(&found) == FileType::Socket => Ok(found.stx_ino),
        Ok(_) => Err(Errno::NOTSOCK),
        Err(Errno::NOENT) => Err(Errno::BADF),
        Err(error) => Err(error),
    }
}

pub fn inode_of(socket: impl AsFd) -> Result<u64, Errno> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

/// Whether a process's socket is of the AF_UNIX family (`net/socket.c` sockfs_xattr_get: `UNIX`, `UNIX-STREAM`).
pub fn is_unix(process: u32, number: i32) -> Result<bool, Errno> {
    let mut protocol = [0; 64];
    let length = rustix::fs::getxattr(path_of(process, number), "system.sockprotoname", &mut protocol)?;
    Ok(protocol[..length].starts_with(b"UNIX"))
}

/// A duplicate of another process's descriptor. Container runtimes refuse it to those without CAP_SYS_PTRACE.
pub fn take(process: u32, number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: takes three numbers, the first of them a descriptor that is open for the whole call.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
}
