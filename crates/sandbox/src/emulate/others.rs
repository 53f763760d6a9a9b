//! Signals, and what else one process may do to another.
//!
//! The step has the builder's user, and every process of that user is its own for the kernel, whoever the step believes it to
//! be. So each call is asked about: a process that is not of the step does not exist, and of those that are the kernel's own
//! rules between users hold. All numbers are in registers, so that the kernel can do what has been allowed. Keyrings are
//! refused altogether (`filter`).

use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::Pid;

use super::caller::{Caller, DONE, Handled, Reply};
use super::tasks::{RLIMIT_LOCKS, State};

/// Safe: the call has numbers only, and they have been looked at. A process that ends and whose number is given to one
/// outside of the step in between is as unlikely as with any kill(2).
const CONTINUE: Handled = Ok(Reply::Continue);

fn signed(number: u32) -> i32 {
    number.cast_signed()
}

fn known(caller: &Caller<'_>, process: i32) -> Result<Arc<State>, Errno> {
    let process = u32::try_from(process).map_err(|_| Errno::SRCH)?;
    caller.world.tasks.known(process).ok_or(Errno::SRCH)
}

fn holds(caller: &Caller<'_>, process: i32) -> bool {
    known(caller, process).is_ok()
}

/// pidfd_open(2): it has only to be there.
pub fn exists(caller: &Caller<'_>, index: usize) -> Handled {
    known(caller, signed(caller.number(index))).and(CONTINUE)
}

/// Who may signal whom (`kernel/signal.c` kill_ok_by_cred, check_kill_permission).
fn may_signal(caller: &Caller<'_>, target: &State, process: i32, signal: i32) -> bool {
    let (ours, theirs) = (caller.view.ids.user, target.ids.user);
    let same = [ours.effective, ours.real].iter().any(|id| [theirs.saved, theirs.real].contains(id));
    let session = |process: Option<Pid>| rustix::process::getsid(process).ok();
    same || caller.view.ids.may_kill()
        || (signal == libc::SIGCONT && session(Pid::from_raw(process)) == session(pid(caller.view.thread)))
}

fn signals(caller: &Caller<'_>, process: i32, signal: i32) -> Handled {
    let target = known(caller, process)?;
    if may_signal(caller, &target, process, signal) { CONTINUE } else { Err(Errno::PERM) }
}

/// A call that signals the process or thread in its argument `index`; the signal comes after it.
pub fn signal(caller: &Caller<'_>, index: usize) -> Handled {
    signals(caller, signed(caller.number(index)), signed(caller.number(index + 1)))
}

/// pidfd_send_signal(2) (descriptor, signal, information, flags). Another thread can put another process under the descriptor's
/// number: so the builder does it, by a descriptor of its own.
pub fn signal_by(caller: &Caller<'_>) -> Handled {
    let (thread, descriptor) = (caller.view.thread, caller.descriptor(0));
    let text = std::fs::read_to_string(format!("/proc/{thread}/fdinfo/{descriptor}")).map_err(|_| Errno::BADF)?;
    let process = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    let process = process.ok_or(Errno::BADF)?;
    let own = Pid::from_raw(process).filter(|_| process > 0).ok_or(Errno::SRCH)?;
    let own = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty())?;
    signals(caller, process, signed(caller.number(1)))?;
    if caller.arguments[2] != 0 {
        return Err(Errno::PERM);
    }
    // SAFETY: takes numbers, the first of them a descriptor that is open for the whole call, and no address.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, own.as_raw_fd(), caller.number(1), 0usize, 0) };
    if done == 0 { DONE } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::SRCH)) }
}

/// A call by which one looks into the process in argument `index`; 0 is the caller itself.
pub fn look(caller: &Caller<'_>, index: usize) -> Handled {
    let process = signed(caller.number(index));
    if process == 0 {
        return CONTINUE;
    }
    known(caller, process)?;
    let may = caller.world.places.procfs.may_look(&caller.view, process.cast_unsigned());
    may.map_err(|_| Errno::PERM).and(CONTINUE)
}

/// A call that changes limits or priority of the process in argument `index`, which may be 0 for the caller: of the same user
/// (`kernel/sys.c` check_prlimit_permission, `kernel/sched/syscalls.c` check_same_owner). CAP_SYS_RESOURCE and CAP_SYS_NICE are
/// nobody's.
pub fn on_process(caller: &Caller<'_>, index: usize) -> Handled {
    let process = signed(caller.number(index));
    if process == 0 {
        return CONTINUE;
    }
    if may_control(caller, &*known(caller, process)?) { CONTINUE } else { Err(Errno::PERM) }
}

fn may_control(caller: &Caller<'_>, target: &State) -> bool {
    [target.ids.user.effective, target.ids.user.real].contains(&caller.view.ids.user.effective)
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
        0 => match group_of(caller.view.thread) {
            Some(group) => on_group(caller, group),
            None => Err(Errno::SRCH),
        },
        -1 => kill_all(caller),
        group @ ..0 => on_group(caller, group.checked_neg().unwrap_or(0)),
        process => signals(caller, process, signed(caller.number(1))),
    }
}

/// Everybody in the group has to be the caller's to signal: which of them the kernel would leave out it does not know.
fn on_group(caller: &Caller<'_>, group: i32) -> Handled {
    let members = caller.world.tasks.all().into_iter().filter(|process| group_of(*process) == Some(group));
    let mut may = Err(Errno::SRCH);
    for member in members {
        let member = member.cast_signed();
        if !may_signal(caller, &*known(caller, member)?, member, 0) {
            return Err(Errno::PERM);
        }
        may = CONTINUE;
    }
    may
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
    let mut reached = Err(Errno::PERM);
    for process in others {
        let process = process.cast_signed();
        if known(caller, process).is_ok_and(|target| may_signal(caller, &target, process, signal)) {
            // SAFETY: takes two numbers; the process is one of the step's.
            unsafe { libc::kill(process, signal) };
            reached = DONE;
        }
    }
    reached
}

/// fcntl(2) (file, command, process): who gets the file's signals. F_SETOWN_EX has the process in memory, where it can be
/// changed after it has been looked at.
pub fn own_file(caller: &Caller<'_>) -> Handled {
    match signed(caller.number(2)) {
        _ if signed(caller.number(1)) != libc::F_SETOWN => Err(Errno::PERM),
        0 => CONTINUE,
        group @ ..0 => on_group(caller, group.checked_neg().unwrap_or(0)),
        process => signals(caller, process, 0),
    }
}

/// ptrace(2) (request, process): a process that is traced already can only be the caller's own.
pub fn trace(caller: &Caller<'_>) -> Handled {
    // PTRACE_TRACEME
    if caller.number(0) == 0 { CONTINUE } else { look(caller, 1) }
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
                if !known(caller, process.cast_signed()).is_ok_and(|target| may_control(caller, &target)) {
                    continue;
                }
                // SAFETY: takes three numbers; the process is one of the step's.
                unsafe { libc::syscall(call, first, process, caller.number(2)) };
            }
            DONE
        }
        _ => Err(Errno::INVAL),
    }
}
