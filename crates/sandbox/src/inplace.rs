//! The `inplace` back-end: the stage's files are swapped into `/` by renaming, the step runs there, and they are swapped back.
//!
//! For root in a container whose runtime refuses namespaces. Native speed and the kernel's own semantics, but no wall: a step
//! reaches the builder's directory, and there is one step at a time. Only in a container that is thrown away afterwards, for
//! between the two swaps `/` is the stage's ([`host::disposable`]).
//!
//! What is mounted in the container cannot be renamed and stays: /proc, /sys, /dev, volumes, and the runtime's
//! /etc/resolv.conf, /etc/hosts and /etc/hostname, which the step sees while the stage's own wait in its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rootfs::Tree;

use crate::helper::{Helper, Place, Spec};
use crate::{Exit, Mount, MountSource, Network, Process, Sandbox, SandboxError, Stream, files};

pub mod host;
mod mounts;
mod swap;

use mounts::Mounted;
use swap::Swap;

/// The back-end. [`crate::probe::enter`] makes it.
#[derive(Debug)]
pub struct InPlace {
    /// Directory of ours in the work directory.
    state: PathBuf,
    /// What must stay where it is while a stage is in `/`: the work directory, our program, what the builder reads.
    keep: Vec<PathBuf>,
    /// There is one `/`.
    running: Mutex<()>,
}

impl InPlace {
    /// Puts `/` in order again if an earlier process was killed during a step. `work` is an absolute path.
    pub fn new(work: &Path, keep: &[PathBuf]) -> Result<InPlace, SandboxError> {
        let fail = |action: String| move |source| SandboxError::Setup { action, source };
        let work = fs::canonicalize(work).map_err(fail(format!("could not find `{}`", work.display())))?;
        let state = work.join("inplace");
        let mut kept = vec![work];
        kept.extend(fs::read_link("/proc/self/exe"));
        kept.extend(keep.iter().filter_map(|path| fs::canonicalize(path).ok()));
        swap::recover(&state, &kept)?;
        fs::create_dir_all(&state).map_err(fail(format!("could not make `{}`", state.display())))?;
        Ok(InPlace { state, keep: kept, running: Mutex::new(()) })
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
        output: &mut dyn FnMut(Stream, &[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Exit, SandboxError> {
        if process.network == Network::None {
            return Err(SandboxError::Unsupported { backend: "inplace", what: "a RUN without network".into() });
        }
        // A panic of another run has swapped back on its way (Swap is a guard).
        let _alone = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Before the swap: a dynamically linked helper would look for its libraries in the stage.
        let helper = Helper::start()?;
        let stage = fs::canonicalize(rootfs.path()).map_err(|source| SandboxError::Setup {
            action: format!("could not find the stage's directory `{}`", rootfs.path().display()),
            source,
        })?;
        let mounted = Mounted::put(rootfs, &self.state, &with_network_files(process, mounts))?;
        let swap = Swap::put_in(&stage, &self.state, &self.keep, mounted)?;
        let result = helper.run(&Spec { process: process.clone(), place: Place::Here }, output, cancelled);
        let lost = swap.left_in_mounts();
        swap.take_out()?;
        let exit = result?;
        lost.map_or(Ok(exit), Err)
    }
}

/// The files that a container runtime would put over the stage's come first, as if they were asked for.
fn with_network_files(process: &Process, mounts: &[Mount]) -> Vec<Mount> {
    let file = |target: &str, content| Mount {
        target: PathBuf::from(target),
        source: MountSource::File { content, mode: 0o644, uid: 0, gid: 0 },
    };
    // The host name stays the container's: it is what a program finds.
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hosts = files::hosts(&Process { hostname: own, ..process.clone() });
    let mut all = vec![file("/etc/resolv.conf", files::resolv_conf()), file("/etc/hosts", hosts)];
    all.extend_from_slice(mounts);
    all
}
