//! Signals, and what else one process may do to another.
//!
//! The step has the builder's user, and every process of that user is its own for the kernel. Landlock keeps signals in from
//! version 6 on and tracing always; the rest is asked for here: a process that is not below the step's init does not exist.
//! All numbers are in registers, so that the kernel can do what has been allowed.
//!
//! System V segments, semaphores and message queues are those of the container, as are POSIX message queues: the builder has
//! none, and what a step leaves there stays until the container goes. Keyrings are refused altogether (`filter`).

use rustix::io::Errno;
use rustix::process::Pid;

use super::caller::{Caller, DONE, Handled, Reply};
use super::tasks::RLIMIT_LOCKS;

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

/// How wide the numbers of a limit are.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    Word,
    /// 64 bits in every program.
    Long,
}

/// prlimit(2) and the older two (process, resource, where the old limit goes). `RLIMIT_LOCKS` is the builder's own; it has no
/// effect, and is said to be none.
pub fn limit(caller: &Caller<'_>, width: Width) -> Handled {
    if caller.number(1) != RLIMIT_LOCKS {
        return on_process(caller, 0);
    }
    let process = signed(caller.number(0));
    if process != 0 && !holds(caller, process) {
        return Err(Errno::SRCH);
    }
    if caller.arguments[2] != 0 {
        let size = if let Width::Long = width { 8 } else { caller.call.abi().word() };
        caller.write(caller.arguments[2], &vec![0xff; 2 * size])?;
    }
    DONE
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
    let own = caller.view.process();
    let others: Vec<u32> = caller.world.tasks.all().into_iter().filter(|process| *process != own).collect();
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

/// rt_sigaction(2) (signal, action) for SIGCHLD: calls that it interrupts are begun again.
///
/// A signal with a handler interrupts a call that waits to be received by us, where the kernel by itself would have finished it:
/// fork(2), stat(2) and open(2) of a file never fail with EINTR, and no program expects it of them. Other signals are
/// rare enough, and some programs count on what they interrupt; a child can end at any moment.
pub fn handle(caller: &Caller<'_>) -> Handled {
    // `struct sigaction` of the kernel: handler, flags, restorer, mask (`asm-generic/signal.h`; on x86-64 as well).
    if caller.arguments[1] == 0 {
        // Safe: it only asks.
        return CONTINUE;
    }
    let word = caller.call.abi().word();
    let flags = caller.arguments[1].wrapping_add(word as u64);
    let [before] = caller.words(flags)?;
    let after = before | libc::SA_RESTART as u64;
    if after != before {
        // One that cannot be written to is left as it is: it is the library's own copy in every library that is known.
        let _ = caller.write(flags, &after.to_le_bytes()[..word]);
    }
    // Safe: no path, and nobody else is reached by it.
    CONTINUE
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
