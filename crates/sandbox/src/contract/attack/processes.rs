//! Attacks on other processes: to look into them, to signal them, to take something from them.

use std::fs;
use std::io::{self, Read as _};
use std::mem::size_of;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::Outcomes;
use super::call::call;

/// Processes that are attacked: those named in the first argument, and those that watch over the step.
fn targets(arguments: &[String]) -> Vec<usize> {
    let mut targets: Vec<usize> =
        named(arguments).chain(watchers()).filter(|pid| *pid != std::process::id() as usize).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

fn named(arguments: &[String]) -> impl Iterator<Item = usize> {
    arguments.first().map(String::as_str).unwrap_or_default().split(',').filter_map(|pid| pid.parse().ok())
}

/// Parent and parent's parent: init and helper, where they are in sight.
fn watchers() -> Vec<usize> {
    let parent = std::os::unix::process::parent_id() as usize;
    let status = fs::read_to_string(format!("/proc/{parent}/status")).unwrap_or_default();
    let above = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    [Some(parent), above].into_iter().flatten().filter(|pid| *pid > 0).collect()
}

/// `PIDS ADDRESS DESCRIPTOR FILE`: memory, environment, open files, root and working directory.
pub fn look(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let (address, descriptor) = (number(1), number(2));
    let file = arguments.get(3).map(String::as_str).unwrap_or_default();
    for pid in targets(arguments) {
        let entry = |name: &str| format!("/proc/{pid}/{name}");
        for name in ["environ", "maps", "auxv"] {
            outcomes.note(entry(name), read_some(&entry(name)));
        }
        outcomes.note(entry("mem"), fs::File::open(entry("mem")).map(|mem| mem.read_at(&mut [0], address as u64)));
        outcomes.note(format!("process_vm_readv({pid})"), read_memory(pid, address));
        outcomes.note(format!("ptrace({pid})"), attach(pid));
        outcomes.note(format!("name of {}", entry("fd/N")), fs::read_link(entry(&format!("fd/{descriptor}"))));
        outcomes.note(entry("fd/N"), fs::File::open(entry(&format!("fd/{descriptor}"))));
        outcomes.note(format!("pidfd_getfd({pid})"), take_descriptor(pid, descriptor));
        outcomes.note(entry("root"), fs::File::open(entry(&format!("root{file}"))));
        outcomes.note(entry("cwd"), fs::File::open(entry(&format!("cwd/../../../../../../../..{file}"))));
        outcomes.note(entry("ns/mnt"), enter(&entry("ns/mnt")));
    }
    Ok(())
}

/// Nothing to be read is nothing reached.
fn read_some(path: &str) -> io::Result<()> {
    match fs::File::open(path)?.read(&mut [0; 64])? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn read_memory(pid: usize, address: usize) -> io::Result<()> {
    let byte = [0u8];
    let here = libc::iovec { iov_base: byte.as_ptr() as *mut libc::c_void, iov_len: 1 };
    let there = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: 1 };
    let (here, there) = (&raw const here as usize, &raw const there as usize);
    match call(libc::SYS_process_vm_readv, [pid, here, 1, there, 1, 0]) {
        // It may look, there is only nothing at the address.
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => other.map(drop),
    }
}

fn attach(pid: usize) -> io::Result<()> {
    call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid, 0, 0])?;
    let _ = call(libc::SYS_ptrace, [libc::PTRACE_INTERRUPT as usize, pid, 0, 0]);
    let _ = call(libc::SYS_wait4, [pid, 0, libc::__WALL as usize, 0]);
    call(libc::SYS_ptrace, [libc::PTRACE_DETACH as usize, pid, 0, 0]).map(drop)
}

fn take_descriptor(pid: usize, descriptor: usize) -> io::Result<()> {
    let process = call(libc::SYS_pidfd_open, [pid, 0])?;
    call(libc::SYS_pidfd_getfd, [process, descriptor, 0]).map(drop)
}

fn enter(namespace: &str) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let namespace = fs::File::open(namespace)?;
    call(libc::SYS_setns, [namespace.as_raw_fd() as usize, 0]).map(drop)
}

/// `PIDS`: every way to send a signal. The signal does nothing unless it is asked for.
pub fn signal(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let signal = libc::SIGWINCH as usize;
    for pid in targets(arguments) {
        outcomes.note(format!("kill({pid}, 0)"), call(libc::SYS_kill, [pid, 0]));
        outcomes.note(format!("kill({pid})"), call(libc::SYS_kill, [pid, signal]));
        outcomes.note(format!("tkill({pid})"), call(libc::SYS_tkill, [pid, signal]));
        outcomes.note(format!("tgkill({pid})"), call(libc::SYS_tgkill, [pid, pid, signal]));
        let info = queued();
        let info = info.as_ptr() as usize;
        outcomes.note(format!("rt_sigqueueinfo({pid})"), call(libc::SYS_rt_sigqueueinfo, [pid, signal, info]));
        outcomes.note(format!("rt_tgsigqueueinfo({pid})"), call(libc::SYS_rt_tgsigqueueinfo, [pid, pid, signal, info]));
        let through = call(libc::SYS_pidfd_open, [pid, 0])
            .and_then(|process| call(libc::SYS_pidfd_send_signal, [process, signal, 0, 0]));
        outcomes.note(format!("pidfd_send_signal({pid})"), through);
        // The group of process 1 would be spelled as everybody.
        let group = if pid == 1 {
            Err(io::ErrorKind::Unsupported.into())
        } else {
            call(libc::SYS_kill, [pid.wrapping_neg(), signal])
        };
        outcomes.note(format!("the group of {pid}"), group);
    }
    Ok(())
}

/// `siginfo_t` of sigqueue(3): si_code is its third number.
fn queued() -> [i32; 32] {
    let mut info = [0; 32];
    info[2] = libc::SI_QUEUE;
    info
}

/// `PIDS`: limits of these and of those that watch over the step. What is set is what they have already.
pub fn limit(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    for pid in targets(arguments) {
        let limit = [0u64; 2];
        let limit = limit.as_ptr() as usize;
        let set = call(libc::SYS_prlimit64, [pid, libc::RLIMIT_NOFILE as usize, 0, limit])
            .and_then(|_| call(libc::SYS_prlimit64, [pid, libc::RLIMIT_NOFILE as usize, limit, 0]));
        outcomes.note(format!("prlimit64({pid})"), set);
    }
    Ok(())
}

/// `PIDS`: processors and priority of another process. What is set is what it has already.
pub fn lower(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    for pid in named(arguments) {
        let processors = [0u64; 128];
        let mask = processors.as_ptr() as usize;
        let set = call(libc::SYS_sched_getaffinity, [pid, size_of::<[u64; 128]>(), mask])
            .and_then(|bytes| call(libc::SYS_sched_setaffinity, [pid, bytes, mask]));
        outcomes.note(format!("sched_setaffinity({pid})"), set);
        let priority = call(libc::SYS_getpriority, [libc::PRIO_PROCESS as usize, pid])
            // The call gives 20 less the value, to be no error.
            .and_then(|kernel| {
                call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, pid, 20usize.wrapping_sub(kernel)])
            });
        outcomes.note(format!("setpriority({pid})"), priority);
        let adjust = format!("/proc/{pid}/oom_score_adj");
        let set = fs::read_to_string(&adjust).and_then(|value| fs::write(&adjust, value));
        outcomes.note(adjust, set);
    }
    Ok(())
}

/// `SIGNAL SECONDS`: leaves a daemon of root's and one of another user's that sleep so long, and sends the signal to whoever
/// watches over the step, the outermost first.
pub fn keepers(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let [signal, seconds] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    let signal = signal.parse().map_err(io::Error::other)?;
    for uid in [0, 1000] {
        Command::new("/bin/setsid").args(["/bin/sleep", seconds]).uid(uid).spawn()?;
    }
    // Both are looked up before the first is gone.
    let watchers = watchers();
    for pid in watchers.into_iter().rev().filter(|pid| *pid > 1) {
        outcomes.note(format!("signal {signal} to {pid}"), call(libc::SYS_kill, [pid, signal]));
    }
    Ok(())
}
