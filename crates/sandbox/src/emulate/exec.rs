//! execve(2) for a program that lies in another root than the kernel's.
//!
//! The caller waits for its answer to the notification of its execve. It gets the descriptors it needs, is stopped for a moment
//! (ptrace), executes the stub instead, and the new stack is made what the kernel would have made it for the program.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::notify::{Call, Listener};

/// One execve that has been allowed.
pub struct Request<'a> {
    /// The program, open to read.
    pub program: BorrowedFd<'a>,
    /// What its PT_INTERP names, open to read.
    pub interpreter: Option<BorrowedFd<'a>>,
    /// Addresses in the caller's memory, as given to execve.
    pub path: u64,
    pub argv: u64,
    pub envp: u64,
    /// What stands in the place of `argv[0]`: for a script its interpreter, the one argument, and the script.
    pub arguments: Option<Vec<CString>>,
    /// For AT_EXECFN.
    pub shown_path: CString,
    /// What /proc/PID/comm says: the last component of the path that was executed, at most 15 bytes.
    pub name: CString,
    /// For AT_UID, AT_EUID, AT_GID, AT_EGID.
    pub ids: [u32; 4],
    /// For AT_SECURE: the program gives other ids than the caller's.
    pub secure: bool,
}

/// What the filter lets pass: an execveat(2) whose sixth argument, which the call does not have, is this number.
pub type Pass = u64;

/// Has the caller execute a program. `at_exec` is called when the old program is gone and before the new one has done anything.
///
/// # Errors
/// The call still waits for its answer. Once it does not (the kernel refused the stub, the caller died) the outcome is Ok.
pub fn execute(
    call: &Call,
    listener: &Listener,
    pass: Pass,
    request: &Request<'_>,
    at_exec: &mut dyn FnMut(),
) -> Result<(), Errno> {
    let _ = (call, listener, pass, request, at_exec);
    Err(Errno::NOSYS)
}
