//! Ctrl-C and friends become a flag; whoever works polls it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static CANCELLED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Catches SIGINT, SIGTERM and SIGHUP; the flag is true once one came. A second one ends the process at once.
pub fn catch() -> Arc<AtomicBool> {
    let flag = CANCELLED.get_or_init(Arc::default).clone();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `note` only stores to an atomic and calls `_exit`, both async-signal-safe; the struct is zeroed, which
        // is a valid sigaction with an empty mask.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    flag
}

extern "C" fn note(_: libc::c_int) {
    if let Some(flag) = CANCELLED.get()
        && flag.swap(true, Ordering::Relaxed)
    {
        // SAFETY: `_exit` is async-signal-safe and does not return.
        unsafe { libc::_exit(130) }
    }
}
