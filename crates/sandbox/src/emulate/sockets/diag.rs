//! What the kernel knows of AF_UNIX sockets that somebody else has open (sock_diag(7)).

use std::os::fd::AsFd as _;
use std::sync::OnceLock;

use rustix::io::Errno;

use super::raw;

/// `linux/unix_diag.h`
const SHOW: u32 = SHOW_NAME | SHOW_PEER;
const SHOW_NAME: u32 = 1;
const SHOW_PEER: u32 = 4;
const NAME: u16 = 0;
const PEER: u16 = 2;
/// `linux/sock_diag.h`, `linux/netlink.h`
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const NETLINK_SOCK_DIAG: i32 = 4;
const ERROR: u16 = 2;

#[derive(Default, Debug)]
pub struct Found {
    /// As in an address, without the family and without a NUL at the end; empty for a socket without a name.
    pub name: Vec<u8>,
    /// Inode of the socket that it is connected with.
    pub peer: Option<u64>,
}

/// # Errors
/// `ENOENT` where there is no such socket; others where the kernel or the container has no such interface.
pub fn look(inode: u64) -> Result<Found, Errno> {
    match ask(inode) {
        Err(Errno::NOENT) if !is_there() => Err(Errno::OPNOTSUPP),
        answer => answer,
    }
}

/// Whether the kernel has the interface: it is a module (`unix_diag`), and without it nothing is found either.
fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let one = raw::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        one.and_then(|one| ask(raw::inode_of(&one)?)).is_ok()
    })
}

fn ask(inode: u64) -> Result<Found, Errno> {
    let socket = raw::socket(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_SOCK_DIAG)?;
    let sent = rustix::net::send(&socket, &request(inode), rustix::net::SendFlags::empty())?;
    debug_assert_eq!(sent, 40);
    let mut answer = [0; 4096];
    let (length, _) = rustix::net::recv(socket.as_fd(), &mut answer, rustix::net::RecvFlags::DONTWAIT)?;
    read(&answer[..length])
}

/// `struct nlmsghdr` and `struct unix_diag_req`.
fn request(inode: u64) -> [u8; 40] {
    let mut request = [0; 40];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &40u32.to_le_bytes());
    put(4, &BY_FAMILY.to_le_bytes());
    put(6, &REQUEST.to_le_bytes());
    put(16, &[libc::AF_UNIX as u8]);
    // Every state.
    put(20, &u32::MAX.to_le_bytes());
    put(24, &(inode as u32).to_le_bytes());
    put(28, &SHOW.to_le_bytes());
    // Any cookie.
    put(32, &[0xff; 8]);
    request
}

fn read(answer: &[u8]) -> Result<Found, Errno> {
    const HEADS: usize = 16 + 16;
    let kind = number16(answer, 4).ok_or(Errno::IO)?;
    if kind == ERROR {
        let error = number32(answer, 16).unwrap_or(0).cast_signed();
        return Err(Errno::from_raw_os_error(if error == 0 { libc::EIO } else { -error }));
    }
    let length = (number32(answer, 0).unwrap_or(0) as usize).min(answer.len());
    let (mut found, mut at) = (Found::default(), HEADS);
    while let (Some(size), Some(kind)) = (number16(&answer[..length], at), number16(&answer[..length], at + 2)) {
        let Some(value) = answer[..length].get(at + 4..at + usize::from(size)) else { break };
        match kind {
            NAME => found.name = without_end(value).to_vec(),
            PEER => found.peer = number32(value, 0).filter(|peer| *peer != 0).map(u64::from),
            _ => {}
        }
        at += usize::from(size).next_multiple_of(4).max(4);
    }
    Ok(found)
}

/// A path without the NUL that ends it; an abstract name as it is.
pub fn without_end(name: &[u8]) -> &[u8] {
    match name {
        [0, ..] => name,
        path => &path[..path.iter().position(|byte| *byte == 0).unwrap_or(path.len())],
    }
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
