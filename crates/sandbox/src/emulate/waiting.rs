//! Opening a fifo waits for its other side: that is for a thread of its own, which answers the caller.
//!
//! A caller that is killed meanwhile leaves nothing behind: whoever waits for one that waits no more is called back.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::Pid;

use super::caller::{Caller, Handled, Held, Reply, errno};
use super::place::{lock, own_path};
use super::seats::Seats;
use crate::notify::{Call, Listener};
use crate::sys;

struct Waiter {
    thread: OnceLock<Pid>,
    call: Call,
    listener: Listener,
    over: AtomicBool,
}

/// All who wait.
#[derive(Default)]
pub struct Waiting {
    waiters: Arc<Mutex<Vec<Arc<Waiter>>>>,
    seats: Seats,
}

impl Waiting {
    /// Calls back whoever waits for a caller that is gone, or all of them.
    pub fn call_back(&self, all: bool) {
        for waiter in lock(&self.waiters).iter() {
            if all || !waiter.listener.waits(&waiter.call) {
                waiter.over.store(true, Ordering::Relaxed);
                if let Some(thread) = waiter.thread.get() {
                    sys::interrupt(*thread);
                }
            }
        }
    }

    /// Until nobody waits any more.
    pub fn end(&self) {
        while !lock(&self.waiters).is_empty() {
            self.call_back(true);
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}

/// Opens a fifo and gives it to the caller, when its other side is there.
pub fn open(caller: &Caller<'_>, held: &Held, flags: OFlags, close_on_exec: bool) -> Handled {
    let seat = caller.world.waiting.seats.take(caller.view.ids.user.effective).ok_or(Errno::NFILE)?;
    let waiting = caller.world.waiting.waiters.clone();
    // Its own, since the caller may close what it has.
    let fifo = rustix::fs::open(held.path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let waiter = Arc::new(Waiter {
        thread: OnceLock::new(),
        call: *caller.call,
        listener: caller.listener.share().map_err(errno)?,
        over: AtomicBool::new(false),
    });
    lock(&waiting).push(waiter.clone());
    let leave = {
        let (waiting, waiter) = (waiting.clone(), waiter.clone());
        move || lock(&waiting).retain(|other| !Arc::ptr_eq(other, &waiter))
    };
    let gone = leave.clone();
    let wait = move || {
        sys::may_be_interrupted(false);
        waiter.thread.get_or_init(rustix::thread::gettid);
        let _ = match waiter.open(&fifo, flags) {
            Ok(opened) => waiter.listener.answer_with(&waiter.call, opened.as_fd(), close_on_exec).map(drop),
            Err(error) => waiter.listener.refuse(&waiter.call, error),
        };
        leave();
        drop(seat);
    };
    spawn::thread_now("fifo", wait).map_err(|error| {
        gone();
        errno(error)
    })?;
    Ok(Reply::Given)
}

impl Waiter {
    /// It is called back while it opens and at no other time: the kernel takes a call for answered, with nothing in it, when
    /// a signal comes while the answer is given (`kernel/seccomp.c` seccomp_notify_addfd).
    fn open(&self, fifo: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = own_path(fifo.as_fd());
        while !self.over.load(Ordering::Relaxed) {
            sys::may_be_interrupted(true);
            let opened = rustix::fs::open(path.as_c_str(), flags | OFlags::CLOEXEC, Mode::empty());
            sys::may_be_interrupted(false);
            match opened {
                Err(Errno::INTR) => {}
                opened => return opened,
            }
        }
        Err(Errno::INTR)
    }
}
