//! What root may not do to files in this container, found by doing it, and whether the metadata log makes up for it.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rootfs::Tree;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::process::{Signal, WaitOptions};

use crate::log::{self, Log};
use crate::notify::{self, Listener, Supervisor as _};
use crate::sys::{self, Forked};

/// Of a file that is set-group-ID and of a group that is not ours.
const MODE: u32 = 0o2755;
/// Nobody is in it, and every map of 65,536 ids has it.
const STRANGE_GROUP: u32 = 61_184;
/// `struct vfs_cap_data`, version 2, with CAP_NET_RAW permitted.
const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// How long the log may take for one call before it counts as broken.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What root in this container may not do. Then the metadata log has it done as far as layers go.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lacks {
    /// CAP_FSETID: set-group-ID bits are dropped without a word.
    pub set_group_id: bool,
    /// CAP_MKNOD, or a user namespace.
    pub devices: bool,
    /// CAP_SETFCAP
    pub capabilities: bool,
}

impl Lacks {
    /// Whether a step gets the log, and with it `no_new_privs`, by which sudo fails. A step that does not start as root can only
    /// change what there is to be logged through sudo: it keeps sudo, unless the outcome would be wrong without a word.
    pub fn wants_log(self, uid: u32) -> bool {
        self.set_group_id || (uid == 0 && (self.devices || self.capabilities))
    }

    /// Tries each in a directory of its own below `work`.
    pub fn find(work: &Path) -> io::Result<Lacks> {
        let place = Place::make(work)?;
        let (file, node) = (place.file()?, place.0.join("node"));
        fs::set_permissions(&file, fs::Permissions::from_mode(MODE))?;
        let null = rustix::fs::makedev(1, 3);
        let node = rustix::fs::mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o600), null);
        let capability = rustix::fs::setxattr(&file, "security.capability", &CAPABILITY, XattrFlags::empty());
        Ok(Lacks {
            set_group_id: fs::metadata(&file)?.mode() & 0o7777 != MODE,
            devices: node.is_err(),
            capabilities: capability.is_err(),
        })
    }

    /// The capabilities that would do; none for nothing lacking.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.set_group_id, "CAP_FSETID"), (self.devices, "CAP_MKNOD"), (self.capabilities, "CAP_SETFCAP")];
        all.into_iter().filter(|(lacks, _)| *lacks).map(|(_, name)| name).collect()
    }
}

/// A directory that goes when it is dropped.
struct Place(PathBuf);

impl Place {
    fn make(work: &Path) -> io::Result<Place> {
        let path = work.join(".zuwai-probe");
        fs::create_dir(&path).map(|()| Place(path))
    }

    fn file(&self) -> io::Result<PathBuf> {
        let file = self.0.join("file");
        fs::write(&file, "")?;
        chown(&file, None, Some(STRANGE_GROUP))?;
        Ok(file)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Has a child set a set-group-ID bit, under the filter, and looks whether the log knows of it. Says which call failed.
pub fn try_log(work: &Path) -> Result<(), String> {
    let told = |call: &'static str| move |error: io::Error| format!("{call}: {}", sys::plain(&error));
    let place = Place::make(work).map_err(told("mkdir in the work directory"))?;
    let file = place.file().map_err(told("a file in the work directory"))?;
    let tree = Tree::open(&place.0, Some(&place.0.join("table"))).map_err(|error| error.to_string())?;
    let log = Log::new(&tree).map_err(told("statx(STATX_MNT_ID)"))?;
    ask(&file, &log).map_err(told("seccomp user notification"))?;
    match tree.stat(Path::new("file")) {
        Ok(Some(found)) if found.mode == MODE => Ok(()),
        _ => Err("a chmod of another process could not be followed".into()),
    }
}

fn ask(file: &Path, log: &Log<'_>) -> io::Result<()> {
    let (builder, step) = UnixStream::pair()?;
    let child = match sys::fork()? {
        Forked::Parent(child) => child,
        Forked::Child => {
            let asked = notify::listen(&log::numbers())
                .and_then(|listener| notify::send(&listener, &step))
                .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(MODE)));
            sys::exit_now(asked.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO)))
        }
    };
    drop(step);
    let served = serve_once(&builder, log);
    if served.is_err() {
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
    let status = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => served,
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => served.and(Err(io::ErrorKind::Interrupted.into())),
    }
}

fn serve_once(builder: &UnixStream, log: &Log<'_>) -> io::Result<()> {
    let mut listener: Option<Listener> = None;
    await_readable(PollFd::new(builder, PollFlags::IN))?;
    notify::receive(builder, &mut [0], &mut listener)?;
    let listener = listener.ok_or(io::ErrorKind::UnexpectedEof)?;
    await_readable(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN))?;
    Ok(listener.serve(&mut |call, listener| log.answer(call, listener))?)
}

fn await_readable(one: PollFd<'_>) -> io::Result<()> {
    let mut polled = [one];
    match rustix::event::poll(&mut polled, Some(&PATIENCE))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ if polled[0].revents().contains(PollFlags::IN) => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
