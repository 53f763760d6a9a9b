//! Keeps a thread that waits for an answer and the thread that answers on one processor while they take turns.
//!
//! The kernel wakes a thread that gets a descriptor (SECCOMP_IOCTL_NOTIF_ADDFD), and whoever has given it one, on an idle
//! processor if there is one (`kernel/sched/fair.c` select_idle_sibling). In a virtual machine that costs tens of microseconds: the
//! processor has halted, and the interrupt that wakes it goes through the hypervisor. Both do nothing but wait for each other.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// While it lives both threads stay on this processor.
#[must_use]
pub struct Near {
    thread: Pid,
    theirs: CpuSet,
    ours: CpuSet,
}

impl Near {
    /// `thread` has to be stopped in a call all the while: what it starts would stay here, too. None where there is one
    /// processor only, or more than the set has room for.
    pub fn to(thread: u32, is_still_there: impl FnOnce() -> bool) -> Option<Near> {
        thread_local!(static OURS: Option<CpuSet> = sched_getaffinity(None).ok());
        let thread = Pid::from_raw(i32::try_from(thread).ok()?)?;
        let ours = OURS.with(|ours| *ours)?;
        let theirs = sched_getaffinity(Some(thread)).ok()?;
        if theirs.count() < 2 || ours.count() < 2 {
            return None;
        }
        let mut here = CpuSet::new();
        let processor = sched_getcpu();
        if processor >= CpuSet::MAX_CPU || !theirs.is_set(processor) || !is_still_there() {
            return None;
        }
        here.set(processor);
        sched_setaffinity(None, &here).ok()?;
        let near = Near { thread, theirs, ours };
        // If it fails the thread is gone, or may not be there: only slower.
        let _ = sched_setaffinity(Some(thread), &here);
        Some(near)
    }
}

impl Near {
    /// The number of the thread has changed, as execve(2) does it.
    pub fn is_now(&mut self, thread: i32) {
        self.thread = Pid::from_raw(thread).unwrap_or(self.thread);
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Some(self.thread), &self.theirs);
        let _ = sched_setaffinity(None, &self.ours);
    }
}
