//! A step's Landlock domain: it changes nothing that is not beneath its own root, whatever descriptors it comes by.
//!
//! Namespaces hold paths. A descriptor of a directory leads wherever it was opened, and two steps with a socket in a cache that
//! they share can hand one on: then one writes to the other's stage, also when that is finished. In a domain with one rule, for the
//! step's own root, the kernel refuses to write, make, move or remove anything by it: on its way up from there it does not come by
//! that root. What is mounted in the step does, and pipes, memory files and the like belong to no tree
//! (Documentation/userspace-api/landlock.rst).
//!
//! Landlock has no rights for modes, owners, times and attributes, nor for a file that is open already. Rights to read and to cut
//! short (LANDLOCK_ACCESS_FS_TRUNCATE) are not asked for: either makes every opening a walk up to the root, 0.9 of 3.2
//! microseconds of processor time where it was measured (without them 0.15 of 2.5), and to whom a step gives a directory it
//! can give what is in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::sys;

/// The same numbers on every architecture.
const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
const RESTRICT_SELF: libc::c_long = 446;

/// The first version (Linux 5.19) in which files can be moved between directories (LANDLOCK_ACCESS_FS_REFER).
const MOVES: libc::c_long = 2;

/// LANDLOCK_ACCESS_FS_WRITE_FILE
const WRITE_FILE: u64 = 1 << 1;

/// `linux/landlock.h`: to write to files, to remove and to make entries of every kind (4 to 12), to move and link between
/// directories.
const CHANGES: u64 = WRITE_FILE | 0x1ff << 4 | 1 << 13;

/// Signals and abstract sockets (Linux 6.12).
const SCOPED: u64 = 3;

/// `linux/landlock.h` struct landlock_ruleset_attr of version 6.
#[repr(C)]
struct Attributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `linux/landlock.h` struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Lets this process and what it starts change only what is beneath `/`, and from Linux 6.12 on send signals and connect to
/// abstract sockets only among themselves. Standard input, output and error may be opened by name as well: a terminal of the
/// host's is beneath no root of the step's. Needs CAP_SYS_ADMIN. Nothing before Linux 5.19.
pub fn enter() -> io::Result<()> {
    let version = sys::landlock_version().unwrap_or(0);
    if version < MOVES {
        return Ok(());
    }
    let rules = ruleset(version)?;
    let root = File::open("/")?;
    allow(&rules, CHANGES, root.as_raw_fd())?;
    for standard in 0..3 {
        // A pipe is in no tree and needs no rule, and gets none.
        let _ = allow(&rules, WRITE_FILE, standard);
    }
    // SAFETY: takes two numbers, the first of them a descriptor that is open for the whole call.
    checked(unsafe { libc::syscall(RESTRICT_SELF, rules.as_raw_fd(), 0 as libc::c_uint) }).map(drop)
}

fn ruleset(version: libc::c_long) -> io::Result<OwnedFd> {
    let scoped = if version >= sys::SCOPES { SCOPED } else { 0 };
    let attributes = Attributes { handled_access_fs: CHANGES, handled_access_net: 0, scoped };
    let size = match version {
        ..4 => 8,
        4 | 5 => 16,
        _ => size_of::<Attributes>(),
    };
    // SAFETY: the structure has the kernel's layout; as much of it as the version knows is given, and it outlives the call.
    let made = unsafe { libc::syscall(CREATE_RULESET, &raw const attributes, size, 0 as libc::c_uint) };
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(checked(made)? as libc::c_int) })
}

fn allow(rules: &OwnedFd, allowed: u64, parent: libc::c_int) -> io::Result<()> {
    const PATH_BENEATH: libc::c_int = 1;
    let rule = PathBeneath { allowed, parent };
    // SAFETY: the rule has the kernel's layout and outlives the call; the rest are numbers.
    let done = unsafe { libc::syscall(ADD_RULE, rules.as_raw_fd(), PATH_BENEATH, &raw const rule, 0 as libc::c_uint) };
    checked(done).map(drop)
}

fn checked(returned: libc::c_long) -> io::Result<libc::c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
