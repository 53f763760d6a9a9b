//! Sockets of the builder in a step ([`MountSource::Socket`](crate::MountSource)): made, listened at, and gone with the step.
//!
//! A step may open as many connections as it likes: [`CONNECTIONS`] are served at a time, each by a thread, and the others wait
//! in the kernel's queue.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::{Mount, MountSource, SandboxError, sys};

/// Connections of one socket that are served at a time.
const CONNECTIONS: usize = 64;
/// Connections that wait, beside those; the kernel may allow less (`net.core.somaxconn`).
const BACKLOG: i32 = 128;
/// Before the next try, where the builder has no descriptor or thread left.
const PAUSE: Duration = Duration::from_millis(50);

/// Who answers at a socket.
pub trait Service: Send + Sync {
    /// Serves one connection until its end. The connection is shut down when the step has ended: whatever waits for it has to
    /// return then.
    fn serve(&self, connection: &UnixStream);
}

/// A [`Service`] in a mount.
#[derive(Clone)]
pub struct Server(pub Arc<dyn Service>);

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Server(..)")
    }
}

/// Sockets that are listened at. Dropping this ends every connection.
#[derive(Default)]
pub struct Sockets(Vec<Listening>);

struct Listening {
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    listener: UnixListener,
    server: Server,
    live: Mutex<Live>,
    changed: Condvar,
}

#[derive(Default)]
struct Live {
    over: bool,
    next: u64,
    connections: HashMap<u64, Arc<UnixStream>>,
}

impl Sockets {
    /// Makes a socket and has it served. `looks` gives it owner and mode, by its path: until then nobody is listening, and it is
    /// under another name.
    pub fn listen(
        &mut self,
        directory: &Path,
        name: &OsStr,
        server: &Server,
        looks: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, path, Mode::empty())?;
        let listener = bind(&directory, name, looks)?;
        let state = Arc::new(State {
            listener: UnixListener::from(listener),
            server: server.clone(),
            live: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = {
            let state = state.clone();
            spawn::thread("agent", &|| false, move || state.accept())?
        };
        self.0.push(Listening { state, accepting: Some(accepting) });
        Ok(())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for listening in &mut self.0 {
            listening.state.end();
            if let Some(accepting) = listening.accepting.take() {
                let _ = accepting.join();
            }
            drop(listening.state.wait_until(|live| live.connections.is_empty()));
        }
    }
}

/// Binds under a short name first: addresses have room for 108 bytes.
fn bind(directory: &OwnedFd, name: &OsStr, looks: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<OwnedFd> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let first = format!(".zuwai-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(&first);
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    let done = looks(&path)
        .and_then(|()| Ok(rustix::net::listen(&socket, BACKLOG)?))
        .and_then(|()| Ok(rustix::fs::renameat(directory, &*first, directory, name)?));
    match done {
        Ok(()) => Ok(socket),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

impl State {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, mut is: impl FnMut(&Live) -> bool) -> MutexGuard<'_, Live> {
        let waited = self.changed.wait_while(self.live(), |live| !is(live));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>) {
        while !self.wait_until(|live| live.over || live.connections.len() < CONNECTIONS).over {
            match self.listener.accept() {
                Ok((connection, _)) => self.clone().begin(connection),
                // Its end; or there is no descriptor left, or the client has gone.
                Err(_) if self.live().over => return,
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Serves a connection in a thread of its own. Without one it is closed, and the step may try again.
    fn begin(self: Arc<Self>, connection: UnixStream) {
        let connection = Arc::new(connection);
        let number = {
            let mut live = self.live();
            if live.over {
                return;
            }
            live.next += 1;
            let number = live.next;
            live.connections.insert(number, connection.clone());
            number
        };
        let ending = Ending { state: self, number };
        let serve = move || {
            // A fault of ours ends one connection.
            let _ = catch_unwind(AssertUnwindSafe(|| ending.state.server.0.serve(&connection)));
            let _ = connection.shutdown(Shutdown::Both);
        };
        if spawn::thread_now("agent", serve).is_err() {
            std::thread::sleep(PAUSE);
        }
    }

    fn end(&self) {
        let mut live = self.live();
        live.over = true;
        for connection in live.connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(live);
        // Wakes whoever waits in accept(2).
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        self.changed.notify_all();
    }
}

/// Takes a connection off the list when its thread ends, however it does.
struct Ending {
    state: Arc<State>,
    number: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.state.live().connections.remove(&self.number);
        self.state.changed.notify_all();
    }
}

/// Gives a socket its owner and mode.
pub fn give(path: &Path, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A directory for sockets, which nobody else can enter. Goes with this value.
struct Room(PathBuf);

impl Room {
    fn beside(path: &Path) -> io::Result<Room> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let above = path.parent().unwrap_or(path);
        loop {
            let name = format!(".zuwai-sockets-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
            match fs::DirBuilder::new().mode(0o700).create(above.join(&name)) {
                Ok(()) => return Ok(Room(above.canonicalize()?.join(name))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sockets of a back-end with real mounts, which binds them as it does files.
#[derive(Default)]
pub struct Bound {
    _sockets: Sockets,
    _room: Option<Room>,
}

/// Makes every socket of `mounts` in a directory beside the rootfs; the mounts with those sockets bound.
pub fn bound(rootfs: &Path, mounts: &[Mount]) -> Result<(Vec<Mount>, Bound), SandboxError> {
    let (mut sockets, mut room) = (Sockets::default(), None);
    let mut lowered = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let MountSource::Socket { server, mode, uid, gid } = &mount.source else {
            lowered.push(mount.clone());
            continue;
        };
        let fail = |error: io::Error| SandboxError::Mount {
            target: mount.target.clone(),
            reason: format!("could not make a socket: {}", sys::plain(&error)),
        };
        let name = index.to_string();
        let room = match &mut room {
            Some(room) => room,
            none => none.insert(Room::beside(rootfs).map_err(fail)?),
        };
        sockets.listen(&room.0, OsStr::new(&name), server, |path| give(path, *mode, *uid, *gid)).map_err(fail)?;
        let source = MountSource::Bind { path: room.0.join(name), read_only: false };
        lowered.push(Mount { target: mount.target.clone(), source, tree: None });
    }
    Ok((lowered, Bound { _sockets: sockets, _room: room }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    struct Echo;

    impl Service for Echo {
        fn serve(&self, mut connection: &UnixStream) {
            let mut byte = [0];
            while connection.read(&mut byte).is_ok_and(|count| count > 0) {
                assert_ne!(byte[0], b'!', "a fault");
                let _ = connection.write_all(&byte);
            }
        }
    }

    fn ask(stream: &mut UnixStream, byte: u8) -> io::Result<u8> {
        stream.write_all(&[byte])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn all_are_served_and_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut sockets = Sockets::default();
        let name = "s".repeat(200);
        let server = Server(Arc::new(Echo));
        sockets.listen(directory.path(), OsStr::new(&name), &server, give_own).unwrap();
        // The path is longer than an address can be.
        let linked = directory.path().join("l");
        std::os::unix::fs::symlink(&name, &linked).unwrap();
        let connect = || UnixStream::connect(&linked);
        let mut faulty = connect().unwrap();
        assert!(ask(&mut faulty, b'!').is_err());
        let mut idle: Vec<UnixStream> = (0..CONNECTIONS).map(|_| connect().unwrap()).collect();
        assert_eq!(ask(&mut idle[CONNECTIONS - 1], b'x').unwrap(), b'x');
        // One more waits until another has gone.
        let mut late = connect().unwrap();
        late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(ask(&mut late, b'x').is_err());
        idle.pop();
        late.set_read_timeout(None).unwrap();
        let mut answer = [0];
        late.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"x");
        drop(sockets);
        assert!(ask(&mut late, b'x').is_err());
        assert!(connect().is_err());
    }

    fn give_own(path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    }
}
