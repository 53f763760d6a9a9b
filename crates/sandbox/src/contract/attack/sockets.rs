//! What a step does with sockets of its own.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Gid, Uid, WaitOptions};

use super::Outcomes;
use super::call::call;
use crate::sys::{self, Forked};

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> io::Result<()> {
    if got == wanted { Ok(()) } else { Err(wrong(format!("{what}: got {got:?}, wanted {wanted:?}"))) }
}

fn refused<T>(what: &str, got: io::Result<T>, wanted: i32) -> io::Result<()> {
    same(what, got.err().and_then(|error| error.raw_os_error()), Some(wanted))
}

/// Fails when anything is not as it is outside of a step.
pub fn own(_: &mut Outcomes, _: &[String]) -> io::Result<()> {
    let path = Path::new("/tmp/s");
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let listener = UnixListener::bind(path)?;
    same("mode", fs::metadata(path)?.mode() & 0o7777, 0o700)?;
    same("name", listener.local_addr()?.as_pathname(), Some(path))?;
    refused("bound again", UnixListener::bind(path), libc::EADDRINUSE)?;
    refused("a file", UnixStream::connect("/bin/busybox"), libc::ECONNREFUSED)?;
    refused("nothing", UnixStream::connect("/tmp/none"), libc::ENOENT)?;
    as_another_user(&listener, path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    let waiting = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"end")
    });
    let mut stream = UnixStream::connect(path)?;
    same("peer", stream.peer_addr()?.as_pathname(), Some(path))?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    same("text", all.as_str(), "end")?;
    waiting.join().map_err(|_| wrong("the listening thread"))??;
    refused("after its end", UnixStream::connect(path), libc::ECONNREFUSED)?;
    datagrams()?;
    without_path()?;
    std::thread::spawn(ports).join().map_err(|_| wrong("the thread with ports"))?
}

/// One that may not write to the socket, and then one that may, of whom the listener knows who it is.
fn as_another_user(listener: &UnixListener, path: &Path) -> io::Result<()> {
    const OTHER: u32 = 33;
    let child = match sys::fork()? {
        Forked::Parent(child) => child,
        Forked::Child => {
            let done = rustix::thread::set_thread_groups(&[])
                .and_then(|()| {
                    rustix::thread::set_thread_res_gid(Gid::from_raw(OTHER), Gid::from_raw(OTHER), Gid::from_raw(OTHER))
                })
                .and_then(|()| {
                    rustix::thread::set_thread_res_uid(Uid::from_raw(OTHER), Uid::from_raw(OTHER), Uid::from_raw(OTHER))
                });
            if done.is_err() {
                // One of a single user.
                sys::exit_now(2);
            }
            let done = refused("as another", UnixStream::connect(path), libc::EACCES);
            sys::exit_now(i32::from(done.is_err()))
        }
    };
    let ended = |child| -> io::Result<Option<i32>> {
        let status = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
        Ok(status.and_then(|(_, status)| status.exit_status()))
    };
    match ended(child)? {
        Some(2) => return Ok(()),
        status => same("without the permission", status, Some(0))?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    let child = match sys::fork()? {
        Forked::Parent(child) => child,
        Forked::Child => {
            let (group, user) = (Gid::from_raw(OTHER), Uid::from_raw(OTHER));
            let _ = rustix::thread::set_thread_res_gid(group, group, group);
            let _ = rustix::thread::set_thread_res_uid(user, user, user);
            let asked = UnixStream::connect(path).and_then(|mut stream| stream.read(&mut [0]));
            sys::exit_now(i32::from(asked.is_err()))
        }
    };
    let (stream, _) = listener.accept()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    drop(stream);
    same("with the permission", ended(child)?, Some(0))?;
    same("peer", (peer.pid, peer.uid.as_raw(), peer.gid.as_raw()), (child, OTHER, OTHER))
}

fn datagrams() -> io::Result<()> {
    let (one, other) = (UnixDatagram::bind("/tmp/one")?, UnixDatagram::bind("/tmp/other")?);
    let mut buffer = [0; 8];
    same("sent", one.send_to(b"there", "/tmp/other")?, 5)?;
    let (_, from) = other.recv_from(&mut buffer)?;
    other.send_to_addr(b"back", &from)?;
    same("received", one.recv(&mut buffer)?, 4)?;
    one.connect("/tmp/other")?;
    one.send(b"connected")?;
    same("received", other.recv(&mut [0; 16])?, 9)
}

fn without_path() -> io::Result<()> {
    let name = SocketAddr::from_abstract_name(format!("contract-own-{}", std::process::id()))?;
    let listener = UnixListener::bind_addr(&name)?;
    UnixStream::connect_addr(&name)?;
    drop(listener);
    refused("a name that is free again", UnixStream::connect_addr(&name), libc::ECONNREFUSED)
}

/// In a thread: there the kernel does not do these by itself.
fn ports() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    listener.accept()?.0.write_all(b"end")?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    same("text", all.as_str(), "end")?;
    let (one, other) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    let address = other.local_addr()?;
    one.send_to(b"there", address)?;
    same("received", other.recv(&mut [0; 8])?, 5)?;
    drop(other);
    UdpSocket::bind(address).map(drop)
}

/// `PATH` of a socket outside: one thread connects to a port, another exchanges its socket and its address meanwhile.
pub fn exchange(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    const NUMBER: usize = 100;
    const LENGTH: usize = 110;
    let path = arguments.first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut wanted = [0; 112];
    wanted[0] = libc::AF_UNIX as u8;
    wanted.get_mut(2..2 + path.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(path.as_bytes());
    let mut port = [0; 112];
    // Port 1 of 127.0.0.1, where nobody listens.
    port[..8].copy_from_slice(&[libc::AF_INET as u8, 0, 0, 1, 127, 0, 0, 1]);
    let address: [AtomicU64; 14] = std::array::from_fn(|_| AtomicU64::new(0));
    let put = |bytes: &[u8; 112]| {
        for (to, from) in address.iter().zip(bytes.as_chunks().0) {
            to.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
        }
    };
    put(&port);
    let over = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(2);
    let mut reached = None;
    std::thread::scope(|scope| -> io::Result<()> {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let made = (
                    socket(AddressFamily::INET, SocketType::STREAM, None),
                    socket(AddressFamily::UNIX, SocketType::STREAM, None),
                );
                let (Ok(inet), Ok(unix)) = made else { break };
                for _ in 0..64 {
                    for (socket, bytes) in [(&inet, &port), (&unix, &wanted)] {
                        let _ = call(libc::SYS_dup3, [socket.as_raw_fd() as usize, NUMBER, 0]);
                        put(bytes);
                        std::thread::yield_now();
                    }
                }
            }
        });
        while Instant::now() < until && reached.is_none() {
            let got = call(libc::SYS_connect, [NUMBER, address.as_ptr() as usize, LENGTH]);
            let sent =
                call(libc::SYS_sendto, [NUMBER, address.as_ptr() as usize, 1, 0, address.as_ptr() as usize, LENGTH]);
            reached = got.or(sent).ok();
        }
        over.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    outcomes.note(format!("socket by exchange with `{path}`"), reached.ok_or_else(|| io::ErrorKind::TimedOut.into()));
    Ok(())
}

/// `PATH` of a socket at which somebody answers with what was sent.
pub fn talk(_: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let mut stream = UnixStream::connect(arguments.first().ok_or(io::ErrorKind::InvalidInput)?)?;
    for word in [b"first", b"again"] {
        stream.write_all(word)?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        same("answer", &answer, word)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    same("bytes after the end", stream.read(&mut [0])?, 0)
}

/// `PATH` of such a socket: as many connections as it takes and nothing done with them, thousands that are closed at once, and
/// some that never read what they are answered. Afterwards it has to answer as before.
pub fn crowd(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let path = arguments.first().ok_or(io::ErrorKind::InvalidInput)?;
    let address = rustix::net::SocketAddrUnix::new(path.as_str())?;
    let connect = || -> io::Result<UnixStream> {
        let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &address)?;
        Ok(UnixStream::from(socket))
    };
    let mut idle = Vec::new();
    for _ in 0..2000 {
        match connect() {
            Ok(stream) => idle.push(stream),
            // There is an end to it.
            Err(_) => break,
        }
    }
    same("whether there is an end to it", idle.len() < 2000, true)?;
    idle.truncate(idle.len() / 2);
    for stream in &mut idle {
        while stream.write(&[b'x'; 4096]).is_ok() {}
    }
    drop(idle);
    let until = Instant::now() + Duration::from_secs(30);
    for _ in 0..2000 {
        while connect().is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    talk(outcomes, arguments)
}
