//! The user's agent, of whose socket we are a client.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::agent::length_of;

/// How long an agent may take to take what it is asked. For the answer it may take as long as the user takes to confirm.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket that was found once: a step that runs in place changes what its path leads to.
#[derive(Debug)]
pub struct Upstream(OwnedFd);

impl Upstream {
    pub fn open(path: &Path) -> io::Result<Upstream> {
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_socket() {
            return Err(io::Error::other("not a socket"));
        }
        Ok(Upstream(file))
    }

    pub fn connect(&self) -> io::Result<UnixStream> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let stream = UnixStream::from(socket);
        // Holds for connecting, too.
        stream.set_write_timeout(Some(PATIENCE))?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()))?;
        rustix::net::connect(stream.as_fd(), &address)?;
        Ok(stream)
    }
}

/// Asks, and gives the answer. Ends with an error when the client is gone meanwhile.
pub fn ask(upstream: &mut UnixStream, question: &[u8], client: &UnixStream) -> io::Result<Vec<u8>> {
    upstream.write_all(question)?;
    let mut length = [0; 4];
    read(upstream, &mut length, client)?;
    let mut answer = vec![0; length_of(length)?];
    read(upstream, &mut answer, client)?;
    Ok(answer)
}

fn read(upstream: &mut UnixStream, mut buffer: &mut [u8], client: &UnixStream) -> io::Result<()> {
    while !buffer.is_empty() {
        let mut polled = [PollFd::new(&*upstream, PollFlags::IN), PollFd::new(client, PollFlags::empty())];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !polled[1].revents().is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if polled[0].revents().is_empty() {
            continue;
        }
        match upstream.read(buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(())
}
