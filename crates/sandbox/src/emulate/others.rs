//! Signals, and what else one process may do to another.
//!
//! The step has the builder's user, and every process of that user is its own for the kernel. Landlock keeps signals in from
//! version 6 on and tracing always; the rest is asked for here: a process that is not below the step's init does not exist.
//! All numbers are in registers, so that the kernel can do what has been allowed.
//!
//! System V segments, semaphores and message queues are those of the container, as are POSIX message queues: the builder has
//! none, and what a step leaves there stays until the container goes. Keyrings are refused altogether (`filter`).

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Pid;

use super::caller::{Caller, DONE, Handled, Reply};
use super::place::lock;
use super::tasks::Tasks;

/// Safe: the call has numbers only, and they have been looked at. A process that ends and whose number is given to one
/// outside of the step in between is as unlikely as with any kill(2).
const CONTINUE: Handled = Ok(Reply::Continue);

fn signed(number: u32) -> i32 {
    number.cast_signed()
}

fn holds(caller: &Caller<'_>, process: i32) -> bool {
    u32::try_from(process).is_ok_and(|process| caller.world.tasks.holds(process))
}

/// A call whose argument `index` is a process or a thread; 0 is the caller.
pub fn on_process(caller: &Caller<'_>, index: usize) -> Handled {
    let process = signed(caller.number(index));
    if process == 0 || holds(caller, process) { CONTINUE } else { Err(Errno::SRCH) }
}

/// kill(2) (process, signal). Groups of the step have no one else in them: it begins with a session of its own.
pub fn kill(caller: &Caller<'_>) -> Handled {
    match signed(caller.number(0)) {
        0 => CONTINUE,
        -1 => kill_all(caller),
        group @ ..0 => on_group(caller, group.checked_neg().unwrap_or(0)),
        process => {
            if holds(caller, process) {
                CONTINUE
            } else {
                Err(Errno::SRCH)
            }
        }
    }
}

fn on_group(caller: &Caller<'_>, group: i32) -> Handled {
    let is_in = |process: &u32| group_of(*process) == Some(group);
    if caller.world.tasks.all().iter().any(is_in) { CONTINUE } else { Err(Errno::SRCH) }
}

fn pid(process: u32) -> Option<Pid> {
    Pid::from_raw(process.cast_signed())
}

fn group_of(process: u32) -> Option<i32> {
    rustix::process::getpgid(pid(process)).ok().map(|group| group.as_raw_nonzero().get())
}

/// Everybody but the caller.
fn kill_all(caller: &Caller<'_>) -> Handled {
    let signal = signed(caller.number(1));
    let others: Vec<u32> =
        caller.world.tasks.all().into_iter().filter(|process| *process != caller.view.process).collect();
    if others.is_empty() {
        return Err(Errno::SRCH);
    }
    for process in others {
        // SAFETY: takes two numbers; the process is one of the step's.
        unsafe { libc::kill(process.cast_signed(), signal) };
    }
    DONE
}

/// fcntl(2) (file, command, process): who gets the file's signals. F_SETOWN_EX has the process in memory, where it can be
/// changed after it has been looked at.
pub fn own_file(caller: &Caller<'_>) -> Handled {
    match signed(caller.number(2)) {
        _ if signed(caller.number(1)) != libc::F_SETOWN => Err(Errno::PERM),
        0 => CONTINUE,
        group @ ..0 => on_group(caller, group.checked_neg().unwrap_or(0)),
        process => {
            if holds(caller, process) {
                CONTINUE
            } else {
                Err(Errno::SRCH)
            }
        }
    }
}

/// ptrace(2) (request, process): a process that is traced already can only be the caller's own.
pub fn trace(caller: &Caller<'_>) -> Handled {
    // PTRACE_TRACEME
    if caller.number(0) == 0 { CONTINUE } else { on_process(caller, 1) }
}

/// Processes and threads of a step at a time, where nothing else sets a limit: what a user of a small machine gets.
const MOST: usize = 32768;
/// How long nothing is counted again after the step had too many.
const PAUSE: Duration = Duration::from_millis(100);

/// How many processes and threads the step may have.
///
/// The kernel's own limit (RLIMIT_NPROC) counts all of the user's, on the whole machine: other builds and other containers
/// would use it up. Here a step gets three quarters of what the builder's own control group has, so that the builder can go
/// on working when a step forks without end.
pub struct Forks {
    most: usize,
    /// No fewer than there are: those that have ended are only taken off when it comes to the limit.
    at_most: AtomicUsize,
    refused: Mutex<Option<Instant>>,
}

impl Forks {
    pub fn new() -> Forks {
        let most = group_limit().map_or(MOST, |limit| (limit / 4 * 3).clamp(16, MOST));
        Forks { most, at_most: AtomicUsize::new(0), refused: Mutex::new(None) }
    }

    fn allows_one_more(&self, tasks: &Tasks) -> bool {
        if self.at_most.fetch_add(1, Ordering::Relaxed) < self.most {
            return true;
        }
        let mut refused = lock(&self.refused);
        if refused.is_some_and(|since| since.elapsed() < PAUSE) {
            return false;
        }
        let count: usize = tasks.all().into_iter().map(threads).sum();
        self.at_most.store(count, Ordering::Relaxed);
        *refused = (count >= self.most).then(Instant::now);
        refused.is_none()
    }
}

fn threads(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count)
}

/// `pids.max` of the control group that this process sees as its own, in both versions of the hierarchy.
fn group_limit() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}/pids.max")),
            "pids" => Some(format!("/sys/fs/cgroup/pids{path}/pids.max")),
            _ => None,
        }
    });
    let as_root = ["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"].map(String::from);
    let limits = own.chain(as_root).filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.min()
}

/// clone(2), fork(2), vfork(2)
pub fn fork(caller: &Caller<'_>) -> Handled {
    // Safe: its flags are in a register, and the filter has looked at them.
    if caller.world.forks.allows_one_more(&caller.world.tasks) { CONTINUE } else { Err(Errno::AGAIN) }
}

/// Whose priority is changed.
#[derive(Clone, Copy, Debug)]
pub enum Priority {
    /// setpriority(2), which counts from PRIO_PROCESS, 0.
    Processor,
    /// ioprio_set(2), which counts from IOPRIO_WHO_PROCESS, 1.
    Disk,
}

/// (which, who, priority)
pub fn priority(caller: &Caller<'_>, what: Priority) -> Handled {
    let (first, call) = match what {
        Priority::Processor => (0, libc::SYS_setpriority),
        Priority::Disk => (1, libc::SYS_ioprio_set),
    };
    let who = signed(caller.number(1));
    match signed(caller.number(0)) - first {
        0 => on_process(caller, 1),
        1 if who == 0 => CONTINUE,
        1 => on_group(caller, who),
        // All of a user's processes would be the builder's as well.
        2 => {
            for process in caller.world.tasks.all() {
                // SAFETY: takes three numbers; the process is one of the step's.
                unsafe { libc::syscall(call, first, process, caller.number(2)) };
            }
            DONE
        }
        _ => Err(Errno::INVAL),
    }
}
