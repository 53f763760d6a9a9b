//! One process in one rootfs, without privilege.
//!
//! [`Sandbox::run`] is the seam; back-ends differ in how they keep the process in its rootfs. Which one works here is found by
//! doing ([`probe`]). The crate does not know Dockerfiles: users are numbers, mounts are files on the host.

#[doc(hidden)]
pub use emulate::rehearse;
pub use overlay::Overlay;
pub use sockets::{Server, Service};

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use auth::Secret;
use rootfs::commit::Written;
use rootfs::{RootfsError, Tree};
use serde::{Deserialize, Serialize};

pub mod contract;
mod emulate;
mod files;
mod filter;
mod helper;
pub mod inplace;
mod landlock;
mod log;
pub mod namespace;
mod near;
mod notify;
mod overlay;
pub mod probe;
mod sockets;
mod start;
mod stubs;
mod sys;
mod wire;

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; the program is looked up in the rootfs with `PATH` of `env` when it has no `/`.
    pub args: Vec<OsString>,
    /// The whole environment, `NAME=value`; nothing of ours is added.
    pub env: Vec<OsString>,
    /// Absolute in the rootfs; made (0755) where it is missing.
    #[serde(with = "wire")]
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub network: Network,
    pub hostname: String,
    /// `NAME address` lines for /etc/hosts beyond localhost.
    pub extra_hosts: Vec<(String, String)>,
    /// How large /dev/shm is; none for the back-end's own size.
    pub shm_bytes: Option<u64>,
    /// A terminal of the host (`/dev/pts/N`) that is standard input, output and error, and controls the process; otherwise
    /// there is no input and the output goes to the builder.
    #[serde(with = "wire::optional")]
    pub terminal: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Network {
    /// What the builder itself has.
    Host,
    None,
}

/// Something that appears in the rootfs for the length of one run. In order; later ones may lie below earlier ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute in the rootfs.
    #[serde(with = "wire")]
    pub target: PathBuf,
    pub source: MountSource,
    /// Who knows the owners and modes of what is bound, where the kernel was not let keep them. Only for back-ends that answer
    /// for the kernel.
    #[serde(skip)]
    pub tree: Option<Arc<Tree>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or file of the host. Writes go there unless `read_only`. The path is free of symbolic links: one that is
    /// there by the time of the mount was put there by somebody else, and back-ends with real mounts refuse it.
    Bind {
        #[serde(with = "wire")]
        path: PathBuf,
        read_only: bool,
    },
    Tmpfs {
        size_bytes: Option<u64>,
    },
    /// A file with this content that is nowhere else (secrets); kept in memory where the back-end can.
    File {
        #[serde(with = "wire::secret")]
        content: Secret<Vec<u8>>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// A socket (SOCK_STREAM) at which the builder answers while the step runs. No helper is told of it: a back-end puts
    /// something else in its place before.
    #[serde(skip)]
    Socket {
        server: Server,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Mode of a tmpfs where no directory was before: the kernel's own.
const NEW_TMPFS_MODE: u32 = 0o1777;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// A process that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    pub exit: Exit,
    /// Where in the rootfs it can have changed something, from back-ends that see every change.
    pub written: Option<Written>,
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Ended {
        Ended { exit, written: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Runs processes in rootfs trees.
pub trait Sandbox: Send + Sync {
    /// `namespace`, `inplace`, …
    fn name(&self) -> &'static str;

    /// Whether several runs may go on at a time.
    fn parallel(&self) -> bool;

    /// How directories can be laid over one another in this process, where they can: what a step writes is then in a directory
    /// of its own. Steps run as well in trees that are not mounted.
    fn overlay(&self) -> Option<Overlay> {
        None
    }

    /// Runs `process` with `rootfs` as its `/` and waits until it and all it left behind are gone.
    ///
    /// `output` gets what it prints as it comes. `cancelled` is polled; when true, everything is killed and the error is
    /// [`SandboxError::Cancelled`]. Afterwards nothing of proc, dev, sys, mounts, resolv.conf or hosts is left in the rootfs.
    fn run(
        &self,
        rootfs: &Tree,
        process: &Process,
        mounts: &[Mount],
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Ended, SandboxError>;
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program itself could not be started: not found, not executable, no interpreter, cwd is no directory.
    /// `code` is the exit status that a shell gives for it: 127 not found, 126 found but not to be executed.
    #[error("could not start `{program}`: {reason}")]
    Start { program: String, reason: String, code: i32 },
    #[error("{action}")]
    Setup { action: String, source: std::io::Error },
    #[error("mount at `{}`: {reason}", target.display())]
    Mount { target: PathBuf, reason: String },
    /// Nothing can be mounted at this target, on whatever host: a file on a directory or the other way round, a mount point that
    /// would have to be made in a read-only mount or below a file.
    #[error("mount at `{}`: {reason}", target.display())]
    MountPoint { target: PathBuf, reason: String },
    #[error("no isolation back-end works here\n{reasons}")]
    NoBackend { reasons: String },
    #[error("not supported by the `{backend}` back-end: {what}")]
    Unsupported { backend: &'static str, what: String },
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error("cancelled")]
    Cancelled,
}

impl SandboxError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SandboxError::NoBackend { .. } => {
                Some("`zuwai doctor` shows what each one needs; a Dockerfile without RUN needs none")
            }
            _ => None,
        }
    }
}

/// Text as the kernel takes it.
pub fn os(text: &str) -> OsString {
    OsString::from_vec(text.as_bytes().to_vec())
}
