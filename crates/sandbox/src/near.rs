//! Keeps a thread that waits for an answer and the thread that answers on one processor while they take turns.
//!
//! The kernel wakes a thread that gets a descriptor (SECCOMP_IOCTL_NOTIF_ADDFD), and whoever has given it one, on an idle
//! processor if there is one (`kernel/sched/fair.c` select_idle_sibling). In a virtual machine that costs tens of microseconds: the
//! processor has halted, and the interrupt that wakes it goes through the hypervisor. Both do nothing but wait for each other.
//!
//! For processes of one thread only: threads beside it could see its mask, change it, or take its number by execve(2).

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::sys;

/// Two threads that stay on this processor.
#[must_use]
pub struct Near {
    thread: Pid,
    here: CpuSet,
    theirs: CpuSet,
    ours: CpuSet,
}

impl Near {
    /// `thread` has to be stopped in a call all the while: what it starts would stay here, too. None where its process has others,
    /// where there is one processor only, or more than the set has room for.
    pub fn to(thread: u32, is_still_there: impl FnOnce() -> bool) -> Option<Near> {
        thread_local!(static OURS: Option<CpuSet> = sched_getaffinity(None).ok());
        if !sys::is_alone(thread) {
            return None;
        }
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
        let near = Near { thread, here, theirs, ours };
        // If it fails the thread is gone, or may not be there: only slower.
        let _ = sched_setaffinity(Some(thread), &here);
        Some(near)
    }

    /// Lets both go where they like. What somebody else has set for the thread meanwhile stays, and so does whoever has its number
    /// by now.
    pub fn end(self, is_still_there: impl FnOnce() -> bool) {
        let is_as_set = || sched_getaffinity(Some(self.thread)).is_ok_and(|now| now == self.here);
        if is_as_set() && is_still_there() {
            let _ = sched_setaffinity(Some(self.thread), &self.theirs);
        }
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.ours);
    }
}
