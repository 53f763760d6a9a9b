//! The `namespace` back-end: mounts, processes, IPC and host name of the step's own.
//!
//! Needs CAP_SYS_ADMIN, real or in a user namespace that the builder entered at its start ([`user`]). The builder's part is
//! here; what init does inside is in [`arrange`](arrange()).

use std::path::{Path, PathBuf};

use rootfs::Tree;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::helper::{Helper, Place, Report, Role, Spec};
use crate::{
    Ended, Mount, MountSource, Network, Overlay, Process, Sandbox, SandboxError, Stream, files, sockets, stubs, sys,
    wire,
};

mod arrange;
pub mod domain;
pub mod user;

pub use arrange::arrange;

/// The back-end. [`crate::probe::enter`] makes it, after entering what it needs.
#[derive(Debug)]
pub struct Namespace {
    /// Whether a fresh proc can be mounted. Without one there is no pid namespace, for `/proc/self` would be the outer process.
    pub fresh_proc: bool,
    /// How overlays are mounted on the work directory; without, a stage is a plain directory.
    pub overlay: Option<Overlay>,
}

/// What init needs to know beside the process.
#[derive(Serialize, Deserialize)]
pub struct Inside {
    #[serde(with = "wire")]
    pub root: PathBuf,
    pub mounts: Vec<Mount>,
    pub resolv_conf: Vec<u8>,
    pub pid_namespace: bool,
}

impl Sandbox for Namespace {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn parallel(&self) -> bool {
        true
    }

    fn overlay(&self) -> Option<Overlay> {
        self.overlay
    }

    fn run(
        &self,
        rootfs: &Tree,
        process: &Process,
        mounts: &[Mount],
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Ended, SandboxError> {
        for mount in mounts {
            check(mount)?;
        }
        let targets = mounts.iter().map(|mount| mount.target.as_path());
        let stubs = stubs::missing(rootfs, targets.chain(files::TARGETS.iter().map(Path::new)))?;
        let (mounts, _served) = sockets::bound(rootfs.path(), mounts)?;
        let inside = Inside {
            root: rootfs.path().to_owned(),
            mounts,
            resolv_conf: files::resolv_conf(),
            pid_namespace: self.fresh_proc,
        };
        let spec = Spec { process: process.clone(), place: Place::Namespace(inside) };
        let result =
            Helper::start(Role::Helper, cancelled).and_then(|helper| helper.run(&spec, None, output, cancelled));
        let removed = stubs::remove(rootfs.path(), &stubs);
        let ended = result?;
        removed.map(|()| ended)
    }
}

fn check(mount: &Mount) -> Result<(), SandboxError> {
    let target = || mount.target.clone();
    let refuse = |reason: &str| Err(SandboxError::MountPoint { target: target(), reason: reason.to_owned() });
    if !mount.target.has_root() || mount.target.file_name().is_none() {
        return refuse("the target is not an absolute path below `/`");
    }
    if mount.target.starts_with("/proc") {
        return refuse("the target cannot be inside `/proc`");
    }
    match &mount.source {
        MountSource::Bind { path, .. } if !path.exists() => {
            let reason = format!("source `{}` does not exist", path.display());
            Err(SandboxError::Mount { target: target(), reason })
        }
        _ => Ok(()),
    }
}

/// Leaves the builder's namespaces. No cgroup namespace: /sys/fs/cgroup is the builder's, and /proc/self/cgroup must fit it.
pub fn leave_namespaces(inside: &Inside, network: Network) -> Result<(), Report> {
    let mut flags = vec![
        ("CLONE_NEWNS", UnshareFlags::NEWNS),
        ("CLONE_NEWIPC", UnshareFlags::NEWIPC),
        ("CLONE_NEWUTS", UnshareFlags::NEWUTS),
    ];
    if inside.pid_namespace {
        flags.push(("CLONE_NEWPID", UnshareFlags::NEWPID));
    }
    if network == Network::None {
        flags.push(("CLONE_NEWNET", UnshareFlags::NEWNET));
    }
    for (name, flag) in flags {
        sys::unshare(flag).map_err(|error| Report::setup(format!("unshare({name})"), error))?;
    }
    // Where the step sees the numbers of processes outside of its own, ours are among them.
    user::keep_limits();
    if network == Network::None {
        sys::loopback_up().map_err(|error| Report::setup("could not switch the loopback interface on", error))?;
    }
    Ok(())
}
