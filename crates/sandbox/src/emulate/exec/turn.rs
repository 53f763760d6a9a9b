//! One execve of a process at a time, as the kernel has it: what is given for one is nothing the other may take along.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// The numbers of processes that are executing. Of the whole builder, as the processes are.
struct Busy {
    processes: Mutex<Option<HashSet<i32>>>,
    free: Condvar,
}

static BUSY: Busy = Busy { processes: Mutex::new(None), free: Condvar::new() };

/// As long as it lives no other thread of the process executes.
pub struct Turn(i32);

impl Turn {
    /// Waits until no other thread of the process executes: then the old program is gone, or has its error.
    pub fn of(thread: u32) -> Turn {
        let process = process_of(thread);
        let mut processes = BUSY.processes.lock().unwrap_or_else(PoisonError::into_inner);
        while !processes.get_or_insert_default().insert(process) {
            processes = BUSY.free.wait(processes).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(process)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.processes.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().remove(&self.0);
        BUSY.free.notify_all();
    }
}

/// The process that a thread is of; for one that is gone, its own number.
fn process_of(thread: u32) -> i32 {
    let number = i32::try_from(thread).unwrap_or(-1);
    // Mostly the thread leads its process, and this is quicker than to read about it.
    // SAFETY: takes numbers only; signal 0 is none.
    if unsafe { libc::syscall(libc::SYS_tgkill, number, number, 0) } == 0 {
        return number;
    }
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok()).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn threads_of_a_process_take_turns() {
        let at_work = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let turn = Turn::of(rustix::thread::gettid().as_raw_nonzero().get() as u32);
                        assert_eq!(turn.0, rustix::process::getpid().as_raw_nonzero().get());
                        assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0);
                        at_work.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
            // Another process does not wait.
            let _ours = Turn::of(1);
        });
    }
}
