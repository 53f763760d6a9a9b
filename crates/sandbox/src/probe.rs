//! Which back-end works here, found by trying each in a forked child.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::emulate::{self, Emulate};
use crate::helper::{self, Report as Failure};
use crate::inplace::lacks::Lacks;
use crate::inplace::{self, InPlace, host};
use crate::namespace::user::{self, Way};
use crate::namespace::{self, Inside, Namespace};
use crate::sys::{self, Forked};
use crate::{Network, Overlay, Process, Sandbox, SandboxError};

mod facts;

/// The outcome of one probe.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    pub backend: &'static str,
    pub works: bool,
    /// What was tried, one line each, in order; the last one is the failing call with its errno when `works` is false.
    pub tried: Vec<String>,
    /// What would have to be granted.
    pub needs: Option<String>,
}

impl Finding {
    /// What did not work, one line each.
    fn refusals(&self) -> Vec<String> {
        let refused = self.tried.iter().filter(|line| !line.ends_with(": ok"));
        refused.map(|line| format!("  {}: {line}", self.backend)).collect()
    }
}

/// Everything found out about this host, and the choice. [`probe`] makes it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// What kind of place this is: name and value.
    pub facts: Vec<(&'static str, String)>,
    pub findings: Vec<Finding>,
    /// Name of the back-end that `auto` takes.
    pub chosen: Option<&'static str>,
}

/// Runs the part of a re-exec'd child when the process was started as one, and never returns then. First thing in `main`.
pub fn dispatch_child() {
    if std::env::args_os().next().is_some_and(|name| name == helper::NAME) {
        helper::main();
    }
}

/// Which back-end is wanted, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// `auto` or a back-end's name.
    pub name: &'a str,
    /// Where stages will lie; made where it is missing.
    pub work: &'a Path,
    /// What the builder opens by its path while steps run (context, credentials, caches): `inplace` leaves it where it is.
    pub keep: &'a [PathBuf],
    /// Whether `inplace` may take over `/` without a sign that this is a container.
    pub force_in_place: bool,
}

impl<'a> Wanted<'a> {
    pub fn new(name: &'a str, work: &'a Path) -> Wanted<'a> {
        Wanted { name, work, keep: &[], force_in_place: false }
    }
}

/// Probes every back-end. Call before any thread exists. `work` is where stages will lie.
pub fn probe(work: &Path) -> Report {
    let candidates: Vec<Candidate> = candidates(&Wanted::new("auto", work)).collect();
    Report {
        facts: facts::facts(work),
        chosen: candidates.iter().find(|candidate| candidate.finding.works).map(|candidate| candidate.finding.backend),
        findings: candidates.into_iter().map(|candidate| candidate.finding).collect(),
    }
}

/// Enters what the chosen back-end needs of the whole builder process (a user and mount namespace for `namespace` without
/// real root) and returns the back-end. `name`: `auto` or a back-end's name. Call before any thread exists.
pub fn enter(name: &str, work: &Path) -> Result<Box<dyn Sandbox>, SandboxError> {
    enter_as(&Wanted::new(name, work))
}

/// As [`enter`].
///
/// # Errors
/// [`SandboxError::NoBackend`] with the refused call of each back-end, or the names there are.
pub fn enter_as(wanted: &Wanted<'_>) -> Result<Box<dyn Sandbox>, SandboxError> {
    fs::create_dir_all(wanted.work).map_err(|source| {
        let action = format!("could not make the work directory `{}`", wanted.work.display());
        SandboxError::Setup { action, source }
    })?;
    if wanted.name != "auto" && !names().any(|name| name == wanted.name) {
        let known: Vec<&str> = names().collect();
        let reasons = format!("  `{}` is not one; there are `auto`, `{}`", wanted.name, known.join("`, `"));
        return Err(SandboxError::NoBackend { reasons });
    }
    // Without, what is tried in children would say of every back-end that it does not work.
    sys::can_fork(PROCESSES)
        .map_err(|source| SandboxError::Setup { action: "could not try what isolates steps here".into(), source })?;
    // Before anything of `/` is used: a killed builder may have left it full of a stage's files.
    inplace::recover()?;
    let mut reasons = Vec::new();
    for candidate in candidates(wanted) {
        match candidate.chosen {
            Some(chosen) => return become_fit_for(chosen, wanted),
            None => reasons.extend(candidate.finding.refusals()),
        }
    }
    Err(SandboxError::NoBackend { reasons: reasons.join("\n") })
}

/// As many below the builder as a probe and a step have at a time.
const PROCESSES: u32 = 4;

struct Candidate {
    finding: Finding,
    chosen: Option<Chosen>,
}

enum Chosen {
    Namespace { way: Way, fresh_proc: bool, overlay: Option<Overlay> },
    InPlace(Lacks),
    Emulate,
}

/// A back-end's probe: tries it and touches nothing of this process.
type Try = fn(&Wanted<'_>) -> Candidate;

/// Every back-end in the order in which `auto` prefers them: behind a wall first. A new one is a line here and an arm in
/// [`become_fit_for`].
const BACKENDS: &[(&str, Try)] = &[("namespace", try_namespace), ("emulate", try_emulate), ("inplace", try_in_place)];

/// Names that `enter` takes beside `auto`.
pub fn names() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().map(|(name, _)| *name)
}

/// The outcome for each back-end that is wanted; none is tried before it is asked for.
fn candidates<'a>(wanted: &'a Wanted<'a>) -> impl Iterator<Item = Candidate> {
    let asked = |name: &str| wanted.name == "auto" || wanted.name == name;
    BACKENDS.iter().filter(move |(name, _)| asked(name)).map(|(_, attempt)| attempt(wanted))
}

fn become_fit_for(chosen: Chosen, wanted: &Wanted<'_>) -> Result<Box<dyn Sandbox>, SandboxError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let has_kernels_users = !matches!(chosen, Chosen::Emulate);
    let sandbox: Box<dyn Sandbox> = match chosen {
        Chosen::Namespace { way, fresh_proc, overlay } => {
            user::enter(&way, wanted.work).map_err(|(action, source)| SandboxError::Setup { action, source })?;
            // Nobody else is to see the overlays.
            let overlay = overlay.filter(|_| keep_mounts_inside().is_ok());
            Box::new(Namespace { fresh_proc, overlay })
        }
        Chosen::InPlace(lacks) => Box::new(InPlace::new(wanted.work, wanted.keep, lacks)?),
        Chosen::Emulate => {
            emulate::give_up_rights()
                .map_err(|source| SandboxError::Setup { action: "could not give up capabilities".into(), source })?;
            Box::new(Emulate::new(wanted.work)?)
        }
    };
    if has_kernels_users {
        user::keep_limits();
    }
    // Everybody may read the command line of a process that he sees, and values of build arguments are in it. While we are
    // dumpable, or our memory would not be ours.
    let _ = sys::hide_arguments();
    // Nobody of the same user reads our memory, environment or descriptors.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| SandboxError::Setup { action: "prctl(PR_SET_DUMPABLE)".into(), source: error.into() })?;
    Ok(sandbox)
}

// ---------------------------------------------------------------------------------------------------------------- inplace

fn try_in_place(wanted: &Wanted<'_>) -> Candidate {
    let (lacks, tried) = host::works(wanted.work, wanted.force_in_place);
    let works = lacks.is_some();
    let needs = "root with CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETGID and CAP_SETUID in a container of its own, and \
                 a work directory that is on no volume; and seccomp user notification, or CAP_FSETID, CAP_MKNOD and \
                 CAP_SETFCAP";
    Candidate {
        finding: Finding { backend: "inplace", works, tried, needs: (!works).then(|| needs.to_owned()) },
        chosen: lacks.map(Chosen::InPlace),
    }
}

// ---------------------------------------------------------------------------------------------------------------- emulate

fn try_emulate(wanted: &Wanted<'_>) -> Candidate {
    let attempt = in_child(|attempt| attempt_emulate(wanted.work, attempt));
    let works = attempt.works;
    let needs = "Linux 5.9 with seccomp user notification, process_vm_readv and ptrace of own children (no Yama \
                 ptrace_scope of 2 or 3, no seccomp profile that refuses them), and a work directory (`--work-dir`) whose \
                 file system is not mounted `noexec`";
    Candidate {
        finding: Finding { backend: "emulate", works, tried: attempt.tried, needs: (!works).then(|| needs.to_owned()) },
        chosen: works.then_some(Chosen::Emulate),
    }
}

/// Does what every step needs, once.
fn attempt_emulate(work: &Path, attempt: &mut Attempt) {
    for (what, outcome) in emulate::works(work) {
        match outcome {
            Ok(()) => attempt.tried.push(format!("{what}: ok")),
            Err(error) => return attempt.tried.push(because(what, &error)),
        }
    }
    attempt.works = true;
    // Without it the filter is the only wall.
    attempt.tried.push(match emulate::wall::kernel_has() {
        Ok(()) => "Landlock, the second wall around what is done for a step: ok".to_owned(),
        Err(why) => format!("{why}: one wall stands between a step and the builder's files, zuwai's own code: ok"),
    });
}

// -------------------------------------------------------------------------------------------------------------- namespace

/// What an attempt in a child found out.
#[derive(Default, Serialize, Deserialize)]
struct Attempt {
    works: bool,
    fresh_proc: bool,
    overlay: Option<Overlay>,
    tried: Vec<String>,
}

fn try_namespace(wanted: &Wanted<'_>) -> Candidate {
    let (ways, mut tried) = user::ways();
    let mut chosen = None;
    for way in ways {
        let attempt = in_child(|attempt| attempt_namespace(&way, wanted.work, attempt));
        tried.extend(attempt.tried);
        if attempt.works {
            chosen = Some(Chosen::Namespace { way, fresh_proc: attempt.fresh_proc, overlay: attempt.overlay });
            break;
        }
    }
    let needs = "user namespaces with 65,536 ids and mounts in them (seccomp `Unconfined`, no AppArmor profile that denies \
                 mounts, and CAP_SETUID, CAP_SETGID and CAP_SETFCAP, or newuidmap with ranges in /etc/subuid and \
                 /etc/subgid), or CAP_SYS_ADMIN; and a work directory (`--work-dir`) that carries overlays or is not mounted \
                 `noexec`";
    let works = chosen.is_some();
    Candidate {
        finding: Finding { backend: "namespace", works, tried, needs: (!works).then(|| needs.to_owned()) },
        chosen,
    }
}

/// Does something in a forked child and gets its account of it.
fn in_child(act: impl FnOnce(&mut Attempt)) -> Attempt {
    let failed = |error: io::Error| Attempt { tried: vec![format!("fork: {error}")], ..Attempt::default() };
    let (mut account, told) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return failed(error),
    };
    match sys::fork() {
        Err(error) => failed(error),
        Ok(Forked::Child) => {
            let mut attempt = Attempt::default();
            act(&mut attempt);
            let _ = serde_json::to_vec(&attempt).map(|text| (&told).write_all(&text));
            sys::exit_now(0)
        }
        Ok(Forked::Parent(child)) => {
            drop(told);
            let mut text = Vec::new();
            let _ = account.read_to_end(&mut text);
            let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
            serde_json::from_slice(&text).unwrap_or_else(|_| failed(io::Error::other("the child gave no account")))
        }
    }
}

/// Does all that a run does, with an empty tmpfs over `work` as the rootfs.
fn attempt_namespace(way: &Way, work: &Path, attempt: &mut Attempt) {
    let name = match way {
        Way::Admin => "CAP_SYS_ADMIN",
        Way::Identity => "user namespace, every id mapped to itself",
        Way::Range { .. } => "user namespace, a range of ids without 0",
        Way::Granted { .. } => "user namespace, ids mapped by newuidmap",
    };
    match user::enter(way, work) {
        Ok(()) => attempt.tried.push(format!("{name}: ok")),
        Err((call, error)) => return attempt.tried.push(format!("{name}: {}", because(&call, &error))),
    }
    attempt.fresh_proc = in_child(|attempt| attempt.works = mounts_proc(work).is_ok()).works;
    attempt.tried.push(match attempt.fresh_proc {
        true => "pid namespace with a fresh proc: ok".into(),
        false => "no pid namespace, because parts of /proc are masked and no fresh one can be mounted: ok".into(),
    });
    let overlay = keep_mounts_inside().and_then(|()| Overlay::find(work));
    attempt.tried.push(match &overlay {
        Ok(_) => "overlays on the work directory: ok".into(),
        Err(error) => format!("no overlays ({}), stages are plain directories: ok", sys::plain(error)),
    });
    attempt.overlay = overlay.ok();
    // A program in an overlay is the overlay's, whose mount is another.
    if attempt.overlay.is_none()
        && let Err(error) = sys::executes(work)
    {
        return attempt.tried.push(because("programs on the work directory", &error));
    }
    match arranges(work) {
        Ok(()) => {
            attempt.tried.push("mounts and a root of their own: ok".into());
            attempt.works = true;
        }
        Err(failure) => attempt.tried.push(format!("mounts and a root of their own: {}", told(&failure))),
    }
}

fn because(call: &str, error: &io::Error) -> String {
    format!("{call}: {}", sys::plain(error))
}

fn told(failure: &Failure) -> String {
    match failure {
        Failure::Setup { action, errno } => because(action, &io::Error::from_raw_os_error(*errno)),
        Failure::Mount { target, reason } | Failure::MountPoint { target, reason } => {
            format!("mount at `{}`: {reason}", target.display())
        }
        Failure::Start { .. } | Failure::Ended { .. } => String::new(),
    }
}

fn mounts_proc(work: &Path) -> io::Result<()> {
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID)?;
    keep_mounts_inside()?;
    let attempt = in_child(|attempt| {
        attempt.works = rustix::mount::mount("proc", work, "proc", MountFlags::empty(), c"").is_ok();
    });
    if attempt.works { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// As real root a new mount namespace still shares what is mounted with the host's (systemd makes `/` shared).
fn keep_mounts_inside() -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", private)?)
}

fn arranges(work: &Path) -> Result<(), Failure> {
    let inside = Inside {
        root: fs::canonicalize(work).unwrap_or_else(|_| work.to_owned()),
        mounts: Vec::new(),
        resolv_conf: Vec::new(),
        pid_namespace: false,
    };
    namespace::leave_namespaces(&inside, Network::Host)?;
    keep_mounts_inside().map_err(|error| Failure::setup("could not make mounts private", error))?;
    let plain = |error: rustix::io::Errno| Failure::setup("could not mount a tmpfs", error);
    rustix::mount::mount("tmpfs", &inside.root, "tmpfs", MountFlags::empty(), c"mode=0755").map_err(plain)?;
    let nothing = Process {
        args: Vec::new(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        network: Network::Host,
        hostname: "probe".into(),
        extra_hosts: Vec::new(),
        shm_bytes: None,
        terminal: None,
    };
    namespace::arrange(&inside, &nothing)
}
