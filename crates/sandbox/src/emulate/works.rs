//! Whether the kernel and the container let a step be emulated: every means that it takes, tried once.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};

use super::exec::Pass;
use super::{calls, memory};
use crate::notify::{self, Answer, Call, Listener};
use crate::sys::{self, Forked};

/// Nobody's own file, and nowhere.
const ASKED: &str = "/zuwai-probe/asked-for";
const PASS: Pass = 0x7a75_7761_6900_0001;

/// One means and what came of it; nothing more is tried after a failure.
pub fn works(work: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let mut all = Vec::new();
    let executes = || sys::executes(work);
    let attempts: [(_, &dyn Fn() -> io::Result<()>); 5] = [
        ("programs on the work directory", &executes),
        ("seccomp(SECCOMP_SET_MODE_FILTER, NEW_LISTENER), and a descriptor given to another process", &answered),
        ("ptrace(PTRACE_SEIZE) of a child", &traced),
        ("prlimit(RLIMIT_LOCKS) of a child", &marked),
        ("memfd_create", &in_memory),
    ];
    for (what, attempt) in attempts {
        let outcome = attempt();
        let failed = outcome.is_err();
        all.push((what, outcome));
        if failed {
            break;
        }
    }
    all
}

/// Has a child ask for a file that is not there, reads the path in its memory, and gives it another file.
fn answered() -> io::Result<()> {
    let (builder, step) = UnixStream::pair()?;
    let child = match sys::fork()? {
        Forked::Parent(child) => child,
        Forked::Child => {
            let got = notify::listen_emulated(PASS, &step)
                .and_then(|()| Ok(rustix::fs::open(ASKED, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?));
            sys::exit_now(got.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO)))
        }
    };
    drop(step);
    let served = serve(&builder);
    if served.is_err() {
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
    let status = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
    served?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// Answers until the file has been asked for, and the end.
fn serve(builder: &UnixStream) -> io::Result<()> {
    let mut listener: Option<Listener> = None;
    while listener.is_none() {
        rustix::event::poll(&mut [rustix::event::PollFd::new(builder, rustix::event::PollFlags::IN)], None)?;
        if notify::receive(builder, &mut [0], &mut listener)? == 0 {
            // The child's exit status says why.
            return Ok(());
        }
    }
    let listener = listener.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut outcome = None;
    while outcome.is_none() {
        listener.serve(&mut |call, listener| match answer(call, listener) {
            Some(result) => {
                let failed = result.as_ref().err().copied();
                outcome = Some(result);
                failed.map_or(Answer::Given, |error| Answer::Value(Err(error)))
            }
            // Safe: what asks is a copy of this very program, before it runs anything else.
            None => Answer::Continue,
        })?;
    }
    Ok(outcome.unwrap_or(Ok(()))?)
}

fn answer(call: &Call, listener: &Listener) -> Option<Result<(), Errno>> {
    if !calls::Forms::new().is_open(call.number) {
        return None;
    }
    let path = match memory::path(call.thread, call.arguments[calls::path_of_open(call.number)]) {
        Ok(path) => path,
        Err(error) => return Some(Err(error)),
    };
    if path != ASKED.as_bytes() {
        return None;
    }
    let given =
        rustix::fs::open("/proc/self/status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).and_then(|file| {
            match listener.answer_with(call, file.as_fd(), true) {
                Err(Errno::INVAL) => listener.give(call, file.as_fd(), true).and(Err(Errno::NOSYS)),
                result => result,
            }
        });
    Some(given.map(drop))
}

/// Seizes a child that waits.
fn traced() -> io::Result<()> {
    let child = match sys::fork()? {
        Forked::Parent(child) => child,
        Forked::Child => loop {
            let _ = rustix::thread::nanosleep(&rustix::fs::Timespec { tv_sec: 60, tv_nsec: 0 });
        },
    };
    let pid = child.as_raw_nonzero().get();
    // SAFETY: takes numbers only; the process is a child of ours.
    let seized = match unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    seized
}

/// Marks a child that waits.
fn marked() -> io::Result<()> {
    const MARK: u64 = 1 << 60;
    let child = match sys::fork()? {
        Forked::Parent(child) => child,
        Forked::Child => {
            let _ = rustix::thread::nanosleep(&rustix::fs::Timespec { tv_sec: 60, tv_nsec: 0 });
            sys::exit_now(0)
        }
    };
    let marked = super::tasks::works(child.as_raw_nonzero().get().cast_unsigned(), MARK);
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    Ok(marked?)
}

/// The loader of programs is executed from memory.
fn in_memory() -> io::Result<()> {
    let file = rustix::fs::memfd_create("probe", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o700))?;
    let path = super::place::own_path(file.as_fd());
    rustix::fs::accessat(CWD, path.as_c_str(), rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::empty())?;
    fs::metadata("/proc/self/fd").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_directory_without_programs_is_named() {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let is_noexec =
            |line: &&str| line.split(' ').nth(3).is_some_and(|options| options.split(',').any(|o| o == "noexec"));
        let Some(path) = mounts.lines().find(is_noexec).and_then(|line| line.split(' ').nth(1)) else {
            eprintln!("SKIPPED: nothing is mounted `noexec` here");
            return;
        };
        let tried = works(Path::new(path));
        let [(what, Err(error))] = &tried[..] else { panic!("{tried:?}") };
        assert_eq!(*what, "programs on the work directory");
        assert!(error.to_string().contains("`noexec`"), "{error}");
    }
}
