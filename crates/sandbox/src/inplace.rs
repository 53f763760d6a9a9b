//! The `inplace` back-end: the stage's files are swapped into `/` by renaming, the step runs there, and they are swapped back.
//!
//! For root in a container whose runtime refuses namespaces. Native speed and the kernel's own semantics, but no wall: a step
//! reaches the builder's directory, and there is one step at a time. Only in a container that is thrown away afterwards, for
//! between the two swaps `/` is the stage's ([`host::disposable`]).
//!
//! Where the container's root lacks a right over files, the metadata log (`log.rs`) makes layers right all the same.
//!
//! What is mounted in the container cannot be renamed and stays: /proc, /sys, /dev, volumes, and the runtime's
//! /etc/resolv.conf, /etc/hosts and /etc/hostname, which the step sees while the stage's own wait in its directory.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use auth::Secret;
use rootfs::{Metadata, Tree};
use rustix::fs::FlockOperation;

use crate::helper::{Helper, Place, Role, Spec};
use crate::log::Log;
use crate::notify::Supervisor;
use crate::sockets::Sockets;
use crate::{Ended, Mount, MountSource, Network, Process, Sandbox, SandboxError, Stream, files};

pub mod host;
pub mod lacks;
mod lend;
mod mounts;
mod reserve;
mod swap;

use lacks::Lacks;
use swap::Swap;

/// Where the builder's own files wait, and the record of what has been swapped. Always the same place, for a builder that
/// comes after a killed one must find it; never in a work directory, which that builder may clear first.
const STATE: &str = "/.zuwai-inplace";

/// The back-end. [`crate::probe::enter`] makes it.
#[derive(Debug)]
pub struct InPlace {
    state: State,
    /// What must stay where it is while a stage is in `/`: the work directory, our program, what the builder reads.
    keep: Vec<PathBuf>,
    lacks: Lacks,
    /// There is one `/`.
    running: Mutex<()>,
}

impl InPlace {
    /// Puts `/` in order again if an earlier process was killed during a step. What is in `keep` stays where it is besides
    /// the work directory and our program.
    pub fn new(work: &Path, keep: &[PathBuf], lacks: Lacks) -> Result<InPlace, SandboxError> {
        let state = State::take()?;
        let work = fs::canonicalize(work).map_err(|source| SandboxError::Setup {
            action: format!("could not find the work directory `{}`", work.display()),
            source,
        })?;
        let mut kept = vec![PathBuf::from(STATE), work];
        kept.extend(fs::read_link("/proc/self/exe"));
        kept.extend(keep.iter().filter_map(|path| fs::canonicalize(path).ok()));
        Ok(InPlace { state, keep: kept, lacks, running: Mutex::new(()) })
    }

    fn log<'t>(&self, rootfs: &'t Tree, process: &Process) -> Result<Option<Log<'t>>, SandboxError> {
        if !self.lacks.wants_log(process.uid) {
            return Ok(None);
        }
        let action = "could not look at `/` for the metadata log".to_owned();
        Log::new(rootfs).map(Some).map_err(|source| SandboxError::Setup { action, source })
    }
}

/// Puts `/` in order again if an earlier process was killed during a step; whatever the back-end is now.
pub fn recover() -> Result<(), SandboxError> {
    if !swap::is_swapped(Path::new(STATE)) {
        return Ok(());
    }
    State::take().map(drop)
}

/// The directory [`STATE`], held by one process at a time. Goes when this is dropped.
#[derive(Debug)]
struct State {
    path: PathBuf,
    _lock: fs::File,
}

impl State {
    fn take() -> Result<State, SandboxError> {
        let fail = |source| SandboxError::Setup { action: format!("could not use `{STATE}`"), source };
        match fs::DirBuilder::new().mode(0o700).create(STATE) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            _ => {}
        }
        let path = PathBuf::from(STATE);
        let lock = fs::File::create(path.join("lock")).map_err(fail)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| SandboxError::Unsupported {
            backend: "inplace",
            what: "a second build in the same container".into(),
        })?;
        swap::recover(&path)?;
        Ok(State { path, _lock: lock })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // With a record still there the builder's own files are in it.
        if !swap::is_swapped(&self.path) {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Sandbox for InPlace {
    fn name(&self) -> &'static str {
        "inplace"
    }

    fn parallel(&self) -> bool {
        false
    }

    fn run(
        &self,
        rootfs: &Tree,
        process: &Process,
        mounts: &[Mount],
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Ended, SandboxError> {
        if process.network == Network::None {
            return Err(SandboxError::Unsupported { backend: "inplace", what: "a RUN without network".into() });
        }
        if process.shm_bytes.is_some() {
            return Err(SandboxError::Unsupported { backend: "inplace", what: "a size of /dev/shm".into() });
        }
        // A panic of another run has swapped back on its way (Swap is a guard).
        let _alone = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Before the swap: a dynamically linked helper would look for its libraries in the stage.
        let helper = Helper::start(Role::Helper, cancelled)?;
        let stage = fs::canonicalize(rootfs.path()).map_err(|source| SandboxError::Setup {
            action: format!("could not find the stage's directory `{}`", rootfs.path().display()),
            source,
        })?;
        check_targets(rootfs, mounts)?;
        for name in ["dev", "proc", "sys"] {
            make_mount_point(rootfs, name)?;
        }
        let mounts = with_network_files(process, mounts);
        let covered = covered_files(rootfs, &mounts)?;
        let mut sockets = Sockets::default();
        let swap = Swap::put_in(rootfs, &stage, &self.state.path, &self.keep, &mounts, &mut sockets)?;
        let log = self.log(rootfs, process)?;
        let spec = Spec { process: process.clone(), place: Place::Here { logged: log.is_some() } };
        let result = helper.run(&spec, log.as_ref().map(|log| log as &dyn Supervisor), output, cancelled);
        drop(sockets);
        let lost = swap.left_in_mounts();
        swap.take_out()?;
        for (path, before) in &covered {
            rootfs.moved_back(path, before)?;
        }
        let ended = result?;
        lost.map_or(Ok(ended), Err)
    }
}

/// A file that is mounted in the container stays there, and the step would have it instead of what was asked for.
fn check_targets(rootfs: &Tree, mounts: &[Mount]) -> Result<(), SandboxError> {
    let container = swap::container_mounts()?;
    for mount in mounts {
        let place = Path::new("/").join(rootfs.resolve(&mount.target, true)?);
        if container.contains(&place) && !place.is_dir() {
            let reason = "a file of the container is mounted there, and stays there when a step runs in place".into();
            return Err(SandboxError::Mount { target: mount.target.clone(), reason });
        }
    }
    Ok(())
}

/// The stage's own files where something is mounted. They are moved out of its way, which a layer is not to show.
fn covered_files(rootfs: &Tree, mounts: &[Mount]) -> Result<Vec<(PathBuf, Metadata)>, SandboxError> {
    let mut covered = Vec::new();
    for mount in mounts {
        let path = rootfs.resolve(&mount.target, true)?;
        if let Some(before) = rootfs.stat(&path)? {
            covered.push((path, before));
        }
    }
    Ok(covered)
}

/// A directory that a container runtime would make to mount on, and leave.
fn make_mount_point(rootfs: &Tree, name: &str) -> Result<(), SandboxError> {
    if rootfs.stat(Path::new(name))?.is_none() {
        rootfs.make_dir(Path::new(name), 0o755)?;
    }
    Ok(())
}

/// The files that a container runtime would put over the stage's come first, as if they were asked for.
fn with_network_files(process: &Process, mounts: &[Mount]) -> Vec<Mount> {
    let file = |target: &str, content: Vec<u8>| Mount {
        target: PathBuf::from(target),
        source: MountSource::File { content: Secret::new(content), mode: 0o644, uid: 0, gid: 0 },
        tree: None,
    };
    let mut all = vec![
        file("/etc/resolv.conf", files::resolv_conf()),
        file("/etc/hosts", files::hosts(process, &files::own_name())),
    ];
    all.extend_from_slice(mounts);
    all
}
