//! Ctrl-C and friends become a flag; whoever works polls it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static CANCELLED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Catches SIGINT, SIGTERM and SIGHUP; the flag is true once one came. A second one ends the process at once.
///
/// One that was ignored from the start stays ignored: that is what `nohup` and a shell's `&` ask for.
pub fn catch() -> Arc<AtomicBool> {
    let flag = flag();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `note` only stores to an atomic and calls `_exit`, both async-signal-safe; the struct is zeroed, which
        // is a valid sigaction with an empty mask.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut action);
            if action.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            action = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    flag
}

/// What [`catch`] returns: never true where it was not called.
pub fn flag() -> Arc<AtomicBool> {
    CANCELLED.get_or_init(Arc::default).clone()
}

/// Standard input, which ends with an error once a signal came. A read that waits is ended by the signal itself: the handler
/// does not ask for it to be taken up again, and whoever tries again comes by here.
pub struct Stdin {
    cancelled: Arc<AtomicBool>,
}

impl Stdin {
    pub fn new(cancelled: &Arc<AtomicBool>) -> Stdin {
        Stdin { cancelled: cancelled.clone() }
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        io::stdin().read(buffer)
    }
}

extern "C" fn note(_: libc::c_int) {
    if let Some(flag) = CANCELLED.get()
        && flag.swap(true, Ordering::Relaxed)
    {
        // SAFETY: `_exit` is async-signal-safe and does not return.
        unsafe { libc::_exit(130) }
    }
}
