//! System calls by number: what an attack does is what no library offers.

use std::ffi::CString;
use std::io;

/// Makes a call with up to six numbers, some of them addresses.
pub fn call<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the attacks give addresses of things of theirs that outlive the call and have the size that the kernel writes,
    // or null; none maps or unmaps memory or ends a thread. They run in a process of their own that has no other purpose.
    let returned = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned as usize) }
}

/// Only an answer by which the kernel or a filter says that it is not for us counts as refused; all others show that the
/// call was let in.
pub fn let_in(got: io::Result<usize>) -> io::Result<()> {
    const NO: [i32; 3] = [libc::EPERM, libc::EACCES, libc::ENOSYS];
    match got {
        Err(error) if error.raw_os_error().is_none_or(|errno| NO.contains(&errno)) => Err(error),
        _ => Ok(()),
    }
}

pub fn c(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// The address of a string that stays where it is.
pub fn at(text: &CString) -> usize {
    text.as_ptr() as usize
}
