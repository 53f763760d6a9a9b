//! The process between the builder and the step: our own program, started again under another name.
//!
//! The builder has threads, and a process with threads can neither fork safely nor enter a user namespace; the fresh one has
//! one. It gets its orders and gives its report over a socket that is its standard input:
//!
//! ```text
//! builder ─ helper ─ init ─ step
//! ```
//!
//! Where the step's calls are answered, a supervisor stands between builder and helper ([`Role::Supervisor`]). It is ordered about and
//! reports in the same way, and has a helper in its turn.
//!
//! The helper watches the socket and kills everything when the builder lets go of it (cancelled, or killed itself). Init makes
//! the place, starts the step, reaps what is orphaned, and reports; in a pid namespace it is process 1.
//!
//! A step that shares the builder's process ids can kill or stop both where nothing keeps its signals in. So whoever is
//! waited for is told to continue from time to time, and what a killed helper leaves comes to the builder, which ends it
//! ([`end_orphans`]).

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rootfs::RootfsError;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, Uid, WaitOptions, WaitStatus};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::notify::{Listener, Serving, Supervisor};
use crate::start::Filter;
use crate::sys::{self, Forked};
use crate::{Ended, Exit, Process, SandboxError, Stream, emulate, namespace, notify, start};

/// Name of a process that is a helper (`argv[0]`).
pub const NAME: &str = "zuwai-run";

/// What the helper is to do.
#[derive(Serialize, Deserialize)]
pub struct Spec {
    pub process: Process,
    pub place: Place,
}

/// Where the step runs.
#[derive(Serialize, Deserialize)]
pub enum Place {
    /// In namespaces of its own.
    Namespace(namespace::Inside),
    /// Right here: `/` is the rootfs already. With `logged` the builder answers the step's changes of metadata.
    Here { logged: bool },
    /// Right here as well, but the builder answers for the rootfs. `pass` lets single calls through the filter.
    /// It is known by `mark`, and may have `files` open, if that is not what the builder may itself.
    Emulated { pass: u64, mark: u64, files: Option<u64> },
}

/// What became of it.
#[derive(Serialize, Deserialize)]
pub enum Report {
    Ended {
        exit: Exit,
        /// [`rootfs::commit::Written`] in numbers.
        written: Option<Vec<u64>>,
    },
    Start {
        program: String,
        reason: String,
        code: i32,
    },
    Mount {
        target: OsString,
        reason: String,
    },
    MountPoint {
        target: OsString,
        reason: String,
    },
    Setup {
        action: String,
        errno: i32,
    },
}

impl Report {
    pub fn setup(action: impl Into<String>, error: impl Into<io::Error>) -> Report {
        let error = error.into();
        let errno = match spawn::NoneLeft::is_cause_of(&error) {
            true => libc::EAGAIN,
            false => error.raw_os_error().unwrap_or(libc::EIO),
        };
        Report::Setup { action: action.into(), errno }
    }

    fn into_result(self) -> Result<Ended, SandboxError> {
        match self {
            Report::Ended { exit, written } => {
                Ok(Ended { exit, written: written.map(|all| all.into_iter().collect()) })
            }
            Report::Start { program, reason, code } => Err(SandboxError::Start { program, reason, code }),
            Report::Mount { target, reason } => Err(SandboxError::Mount { target: PathBuf::from(target), reason }),
            Report::MountPoint { target, reason } => {
                Err(SandboxError::MountPoint { target: PathBuf::from(target), reason })
            }
            Report::Setup { action, errno } => {
                // The child has waited for it.
                let source = spawn::NoneLeft::named(io::Error::from_raw_os_error(errno));
                Err(SandboxError::Setup { action, source })
            }
        }
    }
}

impl From<Ended> for Report {
    fn from(ended: Ended) -> Report {
        Report::Ended { exit: ended.exit, written: ended.written.map(|written| written.directories().collect()) }
    }
}

impl From<SandboxError> for Report {
    fn from(error: SandboxError) -> Report {
        match error {
            SandboxError::Start { program, reason, code } => Report::Start { program, reason, code },
            SandboxError::Mount { target, reason } => Report::Mount { target: target.into(), reason },
            SandboxError::MountPoint { target, reason } => Report::MountPoint { target: target.into(), reason },
            SandboxError::Setup { action, source } => Report::setup(action, source),
            SandboxError::Rootfs(RootfsError::Io { action, path, source }) => {
                Report::setup(format!("{action} `{}`", path.display()), source)
            }
            other => Report::setup(other.to_string(), io::ErrorKind::Other),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- builder

/// How often `cancelled` is asked while nothing is printed.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// How often a process that is waited for is told to continue.
const RESUME: Duration = Duration::from_secs(1);
const RESUME_POLL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How long a helper may take to kill what is below it before it is killed itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// First argument of a helper that is to kill one process, the second argument.
const KILL: &str = "kill";
/// The argument of a supervisor.
const SUPERVISE: &str = "supervise";

/// What a helper is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Watches over a step; what the step prints comes to this process.
    Helper,
    /// The same, and the step prints where this process does.
    HelperOfSupervisor,
    /// Answers a step's calls in a process of its own ([`emulate::supervise`]).
    Supervisor,
}

/// A helper that waits for its orders. Dropping it ends it.
pub struct Helper {
    child: Child,
    socket: UnixStream,
}

impl Helper {
    /// Returns when the helper's program has been loaded, so that it needs nothing of the file system any more.
    pub fn start(role: Role, cancelled: &dyn Fn() -> bool) -> Result<Helper, SandboxError> {
        let (socket, theirs) = UnixStream::pair().map_err(|source| setup("could not make a socket pair", source))?;
        // Whatever loses its parent below us comes to us, where a helper is killed.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let helper = Helper { child: spawn(role, theirs, cancelled)?, socket };
        let mut ready = [0];
        (&helper.socket).read_exact(&mut ready).map_err(|source| {
            setup("the helper process did not start (is `dispatch_child` called first in `main`?)", source)
        })?;
        Ok(helper)
    }

    /// Runs a step and waits until it and everything below it is gone. What it asks about is for `supervisor` to answer.
    /// `spec` is what the helper's role takes.
    pub fn run(
        mut self,
        spec: &impl Serialize,
        supervisor: Option<&dyn Supervisor>,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Ended, SandboxError> {
        orders(spec, &self.socket)?;
        let report = self.attend(supervisor, output, cancelled)?;
        let status = self.end().map_err(|source| setup("could not wait for the helper process", source))?;
        match report {
            // Whatever it reported, a step that killed it was not one that ran as it should.
            Some(report) if status.success() => report.into_result(),
            _ if cancelled() => Err(SandboxError::Cancelled),
            _ => Err(ended_early(status)),
        }
    }

    /// Passes output on and has the step's calls answered until the helper is gone.
    fn attend(
        &mut self,
        supervisor: Option<&dyn Supervisor>,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Report>, SandboxError> {
        std::thread::scope(|scope| {
            let (mut serving, mut refused) = (None, None);
            let mut begin = |listener| {
                let started = supervisor.map(|supervisor| Serving::start(scope, listener, supervisor, cancelled));
                match started.transpose() {
                    Ok(started) => serving = started,
                    Err(error) => {
                        refused = Some(error);
                        // A step whose calls nobody answers is of no use.
                        let _ = self.socket.shutdown(std::net::Shutdown::Both);
                    }
                }
            };
            let report = pump(&mut self.child, &self.socket, supervisor, &mut begin, output, cancelled);
            if let (Some(serving), Some(supervisor)) = (serving, supervisor) {
                // Whoever waits for an answer now is about to be killed: the helper does it once the socket is gone.
                if !matches!(report, Ok(Some(_))) {
                    let _ = self.socket.shutdown(std::net::Shutdown::Both);
                }
                serving.end(supervisor);
            }
            match refused {
                Some(error) => Err(setup("could not start a thread that answers the step's calls", error)),
                None => report,
            }
        })
    }

    /// Lets go of the socket, which makes the helper kill what there may still be, and waits for it.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let status = wait_patiently(&mut self.child)?;
        if !status.success() {
            end_orphans()?;
        }
        Ok(status)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn ended_early(status: ExitStatus) -> SandboxError {
    let action = match status.signal() {
        Some(signal) => {
            format!("the process that watches over the step was killed by signal {signal}, maybe by the step")
        }
        None => "the process that watches over the step ended without a report".into(),
    };
    setup(action, io::ErrorKind::UnexpectedEof.into())
}

/// Waits for a helper that has been told to end. One that was stopped goes on; one that takes too long is killed.
fn wait_patiently(child: &mut Child) -> io::Result<ExitStatus> {
    let since = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if since.elapsed() > PATIENCE {
            child.kill()?;
            return child.wait();
        }
        resume(child);
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn resume(child: &Child) {
    if let Some(helper) = Pid::from_raw(child.id().cast_signed()) {
        let _ = rustix::process::kill_process(helper, Signal::CONT);
    }
}

/// Kills and reaps what killed helpers have left to this process: its children of other sessions, for init begins a session
/// and nobody can join one. Helpers and every other program that the builder starts are of the builder's own.
fn end_orphans() -> io::Result<()> {
    let own = rustix::process::getsid(None)?;
    loop {
        let orphans =
            children().into_iter().filter(|child| rustix::process::getsid(Some(*child)).is_ok_and(|s| s != own));
        let orphans: Vec<Pid> = orphans.collect();
        if orphans.is_empty() {
            return Ok(());
        }
        for orphan in &orphans {
            end_orphan(*orphan)?;
        }
        // One that is dead hands its children to us: look again after each round.
        for orphan in orphans {
            let _ = rustix::process::waitpid(Some(orphan), WaitOptions::empty());
        }
    }
}

/// Kills one; without CAP_KILL one of another user through a helper, which has one thread and can become that user.
fn end_orphan(orphan: Pid) -> io::Result<()> {
    match rustix::process::kill_process(orphan, Signal::KILL) {
        Err(rustix::io::Errno::PERM) => {}
        Ok(()) | Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(NAME)
        .args([KILL, &orphan.as_raw_nonzero().to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = spawn::process(&mut command, &|| false)?.wait()?;
    let left =
        || io::Error::other(format!("could not kill process {} that the step left behind", orphan.as_raw_nonzero()));
    if status.success() { Ok(()) } else { Err(left()) }
}

fn setup(action: impl Into<String>, source: io::Error) -> SandboxError {
    SandboxError::Setup { action: action.into(), source }
}

fn spawn(role: Role, socket: UnixStream, cancelled: &dyn Fn() -> bool) -> Result<Child, SandboxError> {
    // /proc/self/exe is this very program even when its file has been moved or replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).env_clear().stdin(Stdio::from(OwnedFd::from(socket)));
    match role {
        Role::Helper => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
        Role::HelperOfSupervisor => command.stdout(Stdio::inherit()).stderr(Stdio::inherit()),
        Role::Supervisor => command.arg(SUPERVISE).stdout(Stdio::piped()).stderr(Stdio::piped()),
    };
    spawn::process(&mut command, cancelled)
        .map_err(|source| setup("could not start a helper process from `/proc/self/exe`", source))
}

fn orders(spec: &impl Serialize, mut socket: &UnixStream) -> Result<(), SandboxError> {
    let text = serde_json::to_vec(spec).map_err(|error| setup("could not write down what to run", error.into()))?;
    let length = (text.len() as u64).to_le_bytes();
    socket
        .write_all(&length)
        .and_then(|()| socket.write_all(&text))
        .map_err(|source| setup("could not tell the helper process what to run", source))
}

/// Passes output on until the helper is gone or the build is cancelled; gives the report if there is one.
fn pump(
    child: &mut Child,
    socket: &UnixStream,
    supervisor: Option<&dyn Supervisor>,
    begin: &mut dyn FnMut(Listener),
    output: &mut dyn FnMut(Stream, &[u8]),
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Report>, SandboxError> {
    let failed = |source: rustix::io::Errno| setup("could not read the output of the step", source.into());
    let mut pipes = [
        child.stdout.take().map(|pipe| (Stream::Stdout, OwnedFd::from(pipe))),
        child.stderr.take().map(|pipe| (Stream::Stderr, OwnedFd::from(pipe))),
    ];
    for (_, pipe) in pipes.iter().flatten() {
        rustix::io::ioctl_fionbio(pipe, true).map_err(failed)?;
    }
    let mut buffer = vec![0; 1 << 16];
    let mut report = Vec::new();
    let mut done = false;
    let mut resumed = Instant::now();
    while !done && !cancelled() {
        if resumed.elapsed() > RESUME {
            resume(child);
            resumed = Instant::now();
        }
        supervisor.inspect(|supervisor| supervisor.look_after());
        wait_readable(&pipes, socket).map_err(failed)?;
        // First the socket: what is in the pipes when it has ended is all that will ever be.
        done = read_report(socket, &mut report, begin).map_err(failed)?;
        for slot in &mut pipes {
            pass_on(slot, &mut buffer, done, output).map_err(failed)?;
        }
    }
    Ok(serde_json::from_slice(&report).ok())
}

fn wait_readable(pipes: &[Option<(Stream, OwnedFd)>; 2], socket: &UnixStream) -> rustix::io::Result<()> {
    let mut polled = vec![PollFd::new(socket, PollFlags::IN)];
    polled.extend(pipes.iter().flatten().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)));
    match rustix::event::poll(&mut polled, Some(&POLL)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads what there is of the report, and the listener that may come before it; true at its end, which is when the helper is
/// gone.
fn read_report(socket: &UnixStream, report: &mut Vec<u8>, begin: &mut dyn FnMut(Listener)) -> rustix::io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        let mut listener = None;
        let received = notify::receive(socket, &mut buffer, &mut listener);
        listener.map(&mut *begin);
        match received {
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Ok(true),
            Ok(count) => report.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Passes on one buffer of a pipe, or with `to_the_end` all there is; the slot is emptied at the pipe's end.
fn pass_on(
    slot: &mut Option<(Stream, OwnedFd)>,
    buffer: &mut [u8],
    to_the_end: bool,
    output: &mut dyn FnMut(Stream, &[u8]),
) -> rustix::io::Result<()> {
    while let Some((stream, pipe)) = slot {
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => *slot = None,
            Ok(count) => output(*stream, &buffer[..count]),
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error),
        }
        if !to_the_end {
            return Ok(());
        }
    }
    Ok(())
}

// ----------------------------------------------------------------------------------------------------------------- helper

/// The life of a process that was started as a helper.
pub fn main() -> ! {
    // What the builder has from whoever started it (a CI job's server, a pipe with a secret) is nothing for those who serve a step.
    sys::close_rest_now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [KILL, process] => {
            let killed = process.parse().ok().and_then(Pid::from_raw).is_some_and(|process| kill(process).is_ok());
            sys::exit_now(i32::from(!killed))
        }
        [SUPERVISE] => {
            if let Ok((socket, orders)) = take_orders() {
                let ended = emulate::supervise(&orders, &|| is_let_go(&socket));
                tell(&socket, &ended.map_or_else(Report::from, Report::from));
                sys::exit_now(0)
            }
        }
        _ => {
            if let Ok((socket, spec)) = take_orders() {
                helper(socket, spec);
            }
        }
    }
    sys::exit_now(1)
}

/// Whether the other side has let go of the socket. It says nothing more after its orders.
fn is_let_go(socket: &UnixStream) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    !matches!(rustix::event::poll(&mut polled, Some(&NO_TIME)), Ok(0) | Err(rustix::io::Errno::INTR))
}

/// Takes the socket off standard input and reads the orders.
fn take_orders<T: DeserializeOwned>() -> io::Result<(UnixStream, T)> {
    // The orders may hold secrets: no core file, no /proc/PID/mem or environ for others of the same user.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?);
    // Stopped, it could not see that the builder is gone.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::CONT));
    // Those who share our process group, or are stopped with it, get Ctrl-C from a terminal. The session stays the
    // builder's, which tells us from what a step leaves.
    let _ = rustix::process::setpgid(None, None);
    (&socket).write_all(b"!")?;
    let mut length = [0; 8];
    (&socket).read_exact(&mut length)?;
    let mut text = Vec::new();
    (&socket).take(u64::from_le_bytes(length)).read_to_end(&mut text)?;
    Ok((socket, serde_json::from_slice(&text)?))
}

fn helper(socket: UnixStream, spec: Spec) -> ! {
    if let Some(terminal) = &spec.process.terminal
        && let Err(error) = take_terminal(terminal)
    {
        tell(&socket, &Report::setup(format!("could not open the terminal `{}`", terminal.display()), error));
        sys::exit_now(0)
    }
    let own_pids = matches!(&spec.place, Place::Namespace(inside) if inside.pid_namespace);
    if let Err(report) = watch_over(&socket, &spec, own_pids) {
        tell(&socket, &report);
    }
    sys::exit_now(0)
}

/// Makes a terminal of the host standard input, while the host's files are in sight: the step takes it from there.
fn take_terminal(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(rustix::stdio::dup2_stdin(terminal)?)
}

fn watch_over(socket: &UnixStream, spec: &Spec, own_pids: bool) -> Result<(), Report> {
    let plain = |error: io::Error| Report::setup("could not start an init process for the step", error);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| plain(error.into()))?;
    if let Place::Namespace(inside) = &spec.place {
        namespace::leave_namespaces(inside, spec.process.network)?;
    }
    let (ended, alive) = io::pipe().map_err(plain)?;
    match sys::fork().map_err(plain)? {
        Forked::Child => {
            drop(ended);
            init(socket, spec, alive, own_pids)
        }
        Forked::Parent(init) => {
            drop(alive);
            await_end(socket, &ended, init);
            if own_pids {
                let _ = rustix::process::kill_process(init, Signal::KILL);
            }
            kill_descendants()
        }
    }
}

/// Returns when init is gone or the builder has let go of the socket. Init goes on when a step has stopped it.
fn await_end(socket: &UnixStream, ended: &PipeReader, init: Pid) {
    let mut polled = [PollFd::new(socket, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    while let Ok(0) | Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut polled, Some(&RESUME_POLL)) {
        let _ = rustix::process::kill_process(init, Signal::CONT);
    }
}

/// Kills and reaps every process below this one, also those that come into being meanwhile.
fn kill_descendants() -> Result<(), Report> {
    loop {
        let mut refused = None;
        for child in children() {
            if let Err(error) = kill(child)
                && error == rustix::io::Errno::PERM
            {
                refused = Some((child, error));
            }
        }
        if let Some((child, error)) = refused {
            let action = format!("could not kill process {} that the step left behind", child.as_raw_nonzero());
            return Err(Report::setup(action, error));
        }
        // One that is dead hands its children to us: look again after each.
        if let Err(rustix::io::Errno::CHILD) = rustix::process::wait(WaitOptions::empty()) {
            return Ok(());
        }
    }
}

/// Kills a process; without CAP_KILL one of another user by becoming that user in a process made for it.
fn kill(process: Pid) -> rustix::io::Result<()> {
    match rustix::process::kill_process(process, Signal::KILL) {
        Err(rustix::io::Errno::PERM) => {}
        result => return result,
    }
    let uid = user_of(process).ok_or(rustix::io::Errno::PERM)?;
    match sys::fork() {
        Ok(Forked::Child) => {
            let killed = rustix::thread::set_thread_res_uid(uid, uid, uid)
                .and_then(|()| rustix::process::kill_process(process, Signal::KILL));
            sys::exit_now(i32::from(killed.is_err()))
        }
        Ok(Forked::Parent(killer)) => {
            let status = rustix::process::waitpid(Some(killer), WaitOptions::empty())?;
            let done = status.is_some_and(|(_, status)| status.exit_status() == Some(0));
            if done { Ok(()) } else { Err(rustix::io::Errno::PERM) }
        }
        Err(_) => Err(rustix::io::Errno::PERM),
    }
}

/// The real user of a process, who may kill it (kill(2)).
fn user_of(process: Pid) -> Option<Uid> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    Some(Uid::from_raw(users.split_ascii_whitespace().next()?.parse().ok()?))
}

/// Child processes of this one, those of all its threads. The files need CONFIG_PROC_CHILDREN; without it every process is
/// asked for its parent.
fn children() -> Vec<Pid> {
    children_by_thread().unwrap_or_else(|_| {
        let own = rustix::process::getpid().as_raw_nonzero();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| parent_of(*pid) == Some(own.get())).filter_map(Pid::from_raw).collect()
    })
}

fn children_by_thread() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        match fs::read_to_string(thread.join("children")) {
            Ok(text) => {
                children.extend(text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)))
            }
            // It has ended, and has handed its children on.
            Err(_) if !thread.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; state and parent come after it.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn tell(mut socket: &UnixStream, report: &Report) {
    if let Ok(text) = serde_json::to_vec(report) {
        let _ = socket.write_all(&text);
    }
}

// ------------------------------------------------------------------------------------------------------------------- init

fn init(socket: &UnixStream, spec: &Spec, alive: PipeWriter, own_pids: bool) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // What a step leaves is of this session or one that began in it, never of the builder's.
    let _ = rustix::process::setsid();
    let mut report = step(socket, spec).unwrap_or_else(|report| report);
    if !own_pids && let Err(left) = kill_descendants() {
        report = left;
    }
    tell(socket, &report);
    drop(alive);
    sys::exit_now(0)
}

/// Makes the place, runs the step in it, and says how it ended.
fn step(socket: &UnixStream, spec: &Spec) -> Result<Report, Report> {
    let plain = |error: io::Error| Report::setup("could not start the step", error);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| plain(error.into()))?;
    if let Place::Namespace(inside) = &spec.place {
        namespace::arrange(inside, &spec.process)?;
    }
    let (mut failure, told) = io::pipe().map_err(plain)?;
    match sys::fork().map_err(plain)? {
        Forked::Child => {
            drop(failure);
            let filter = match spec.place {
                Place::Namespace(_) => Filter::Refusing,
                Place::Here { logged: true } => Filter::Asking(socket),
                Place::Here { logged: false } => Filter::None,
                Place::Emulated { pass, mark, files } => {
                    Filter::Emulated(start::Emulated { builder: socket, pass, mark, files })
                }
            };
            let report = start::become_program(&spec.process, filter);
            let _ = serde_json::to_vec(&report).map(|text| (&told).write_all(&text));
            sys::exit_now(127)
        }
        Forked::Parent(child) => {
            drop(told);
            // Closed by execve, so the end of file means that the program runs.
            let mut text = Vec::new();
            failure.read_to_end(&mut text).map_err(plain)?;
            let exit = reap_until(child).map_err(|error| plain(error.into()))?;
            let ended = Report::from(Ended::from(exit));
            Ok(if text.is_empty() { ended } else { serde_json::from_slice(&text).unwrap_or(ended) })
        }
    }
}

/// Reaps whatever ends, until it is `child`.
fn reap_until(child: Pid) -> rustix::io::Result<Exit> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => return Ok(exit_of(status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(255)),
    }
}
