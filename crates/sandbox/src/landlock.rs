//! Landlock rulesets: which files a thread, and whatever it starts, may reach by a path.
//!
//! `linux/landlock.h`, Documentation/userspace-api/landlock.rst

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::fs::FileType;

use crate::sys::landlock_version;

/// The same numbers on every architecture.
const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
const RESTRICT_SELF: libc::c_long = 446;
const PATH_BENEATH: libc::c_int = 1;

/// What may be done below a directory, or with a file (LANDLOCK_ACCESS_FS_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights(u64);

impl Rights {
    const EXECUTE: u64 = 1 << 0;
    const WRITE_FILE: u64 = 1 << 1;
    const READ_FILE: u64 = 1 << 2;
    const READ_DIR: u64 = 1 << 3;
    const TRUNCATE: u64 = 1 << 14;
    /// What is asked of a file that is no directory.
    const OF_FILES: u64 = Rights::EXECUTE | Rights::WRITE_FILE | Rights::READ_FILE | Rights::TRUNCATE;

    /// Looking at it, and running programs of it.
    pub const READ: Rights = Rights(Rights::EXECUTE | Rights::READ_FILE | Rights::READ_DIR);
    /// Reading and writing what is there, and making nothing.
    pub const WRITE: Rights = Rights(Rights::READ.0 | Rights::WRITE_FILE | Rights::TRUNCATE);
    /// All that is known of up to version 3.
    pub const ALL: Rights = Rights((1 << 15) - 1);
}

/// Rules that have been made and hold nobody yet.
#[derive(Debug)]
pub struct Ruleset {
    rules: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// Everything about files is refused for which there is no rule. None where the kernel's Landlock cannot serve: before
    /// version 2 (Linux 5.19) no rule lets a file be moved from one directory to another.
    pub fn new() -> io::Result<Option<Ruleset>> {
        let handled = match landlock_version() {
            Ok(3..) => Rights::ALL.0,
            Ok(2) => Rights::ALL.0 & !Rights::TRUNCATE,
            _ => return Ok(None),
        };
        // SAFETY: the attributes are one number, as their size says, and outlive the call.
        let made = unsafe { libc::syscall(CREATE_RULESET, &raw const handled, size_of::<u64>(), 0 as libc::c_uint) };
        checked(made)?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
        let rules = unsafe { OwnedFd::from_raw_fd(made as libc::c_int) };
        Ok(Some(Ruleset { rules, handled }))
    }

    /// Allows something below a directory, or with one file.
    pub fn allow(&self, at: BorrowedFd<'_>, rights: Rights) -> io::Result<()> {
        #[repr(C, packed)]
        struct PathBeneath {
            allowed: u64,
            parent: i32,
        }
        let is_directory = FileType::from_raw_mode(rustix::fs::fstat(at)?.st_mode).is_dir();
        let possible = if is_directory { u64::MAX } else { Rights::OF_FILES };
        let rule = PathBeneath { allowed: rights.0 & possible & self.handled, parent: at.as_raw_fd() };
        // SAFETY: the rule has the kernel's layout, and it and both descriptors outlive the call.
        let added = unsafe { libc::syscall(ADD_RULE, self.rules.as_raw_fd(), PATH_BENEATH, &raw const rule, 0) };
        checked(added)
    }

    /// Holds this thread, and all that it starts from now on, to the rules; for good. Needs `no_new_privs` or CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: takes two numbers, the first of them a descriptor that is open for the whole call.
        checked(unsafe { libc::syscall(RESTRICT_SELF, self.rules.as_raw_fd(), 0 as libc::c_uint) })
    }
}

fn checked(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;

    use super::*;

    fn held<T: Send>(rules: &Ruleset, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                rules.enter().unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn a_thread_reaches_what_it_was_given_and_the_others_reach_all() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["all", "read", "none"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), name).unwrap();
        }
        let Some(rules) = Ruleset::new().unwrap() else {
            eprintln!("SKIPPED: no Landlock that could serve here");
            return;
        };
        rules.allow(fs::File::open(at("all")).unwrap().as_fd(), Rights::ALL).unwrap();
        rules.allow(fs::File::open(at("read")).unwrap().as_fd(), Rights::READ).unwrap();
        let outside = rustix::fs::open(at("none").join("file"), rustix::fs::OFlags::PATH, 0.into()).unwrap();
        held(&rules, || {
            fs::create_dir(at("all/sub")).unwrap();
            fs::rename(at("all/file"), at("all/sub/moved")).unwrap();
            assert_eq!(fs::read(at("read/file")).unwrap(), b"read");
            for refused in [
                fs::write(at("read/file"), "x"),
                fs::read(at("none/file")).map(drop),
                fs::rename(at("all/sub/moved"), at("read/moved")),
                // What was opened without a right gives none.
                fs::read(format!("/proc/self/fd/{}", outside.as_raw_fd())).map(drop),
            ] {
                assert!(refused.is_err());
            }
        });
        assert_eq!(fs::read(at("none/file")).unwrap(), b"none");
    }
}
