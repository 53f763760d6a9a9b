//! Terminals: a step has those that it makes, and the one that it was given, and no other.
//!
//! /dev/tty means whoever opens it, and that would be the builder: its terminal is the user's own.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::caller::Caller;
use super::place::{lock, own_path};

/// Major number of the other sides of the terminals that /dev/ptmx makes (`linux/major.h`).
const TERMINALS: u32 = 136;

/// A new terminal. Its other side is the step's.
pub fn multiplex(caller: &Caller<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    let file = open(c"/dev/ptmx".into(), flags)?;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one number.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) } == 0 {
        // By this it is opened: the number becomes another's when this one is closed, and what is open to nobody then stays so.
        let path = format!("/dev/pts/{number}");
        if let Ok(other) = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            lock(&caller.world.terminals).insert(number, other);
        }
    }
    Ok(file)
}

/// Opens a terminal if it is the step's: others of the container belong to other people.
pub fn own(
    caller: &Caller<'_>,
    minor: u32,
    flags: OFlags,
    given: impl FnOnce() -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    if caller.world.terminal == Some(rustix::fs::makedev(TERMINALS, minor)) {
        return given();
    }
    let own = lock(&caller.world.terminals).get(&minor).map(|other| own_path(other.as_fd()));
    open(own.ok_or(Errno::ACCESS)?, flags)
}

/// The terminal of the caller's session (proc_pid_stat(5), tty_nr).
pub fn controlling(caller: &Caller<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", caller.view.thread)).unwrap_or_default();
    // The name, in brackets, may hold anything; state, parent, group and session come before the number.
    let number = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(4)?.parse::<i32>().ok());
    let number = number.filter(|number| *number != 0).ok_or(Errno::NXIO)?.cast_unsigned();
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    if !(TERMINALS..TERMINALS + 8).contains(&major) {
        return Err(Errno::NXIO);
    }
    let minor = minor + ((major - TERMINALS) << 20);
    let path = CString::new(format!("/dev/pts/{minor}")).map_err(|_| Errno::NXIO)?;
    own(caller, minor, flags, || open(path, flags)).map_err(|_| Errno::NXIO)
}

fn open(path: CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}
