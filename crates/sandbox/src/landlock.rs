//! Landlock rulesets: which files a thread, and whatever it starts, may reach by a path.
//!
//! `linux/landlock.h`, Documentation/userspace-api/landlock.rst

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::fs::FileType;

/// The same numbers on every architecture.
const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
const RESTRICT_SELF: libc::c_long = 446;
const PATH_BENEATH: libc::c_int = 1;

/// The first version (Linux 5.19) in which files can be moved between directories.
pub const MOVES: libc::c_long = 2;
/// The first version (Linux 6.12) that holds signals and abstract sockets.
pub const SCOPES: libc::c_long = 6;

/// Version of the kernel's Landlock interface.
pub fn version() -> io::Result<libc::c_long> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no attributes, makes nothing and returns a number.
    checked(unsafe { libc::syscall(CREATE_RULESET, std::ptr::null::<u8>(), 0usize, VERSION) })
}

/// What may be done below a directory, or with a file (LANDLOCK_ACCESS_FS_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights(u64);

impl Rights {
    const EXECUTE: u64 = 1 << 0;
    const WRITE_FILE: u64 = 1 << 1;
    const READ_FILE: u64 = 1 << 2;
    const READ_DIR: u64 = 1 << 3;
    const REFER: u64 = 1 << 13;
    const TRUNCATE: u64 = 1 << 14;
    /// What is asked of a file that is no directory.
    const OF_FILES: u64 = Rights::EXECUTE | Rights::WRITE_FILE | Rights::READ_FILE | Rights::TRUNCATE;

    /// Looking at it, and running programs of it.
    pub const READ: Rights = Rights(Rights::EXECUTE | Rights::READ_FILE | Rights::READ_DIR);
    /// Reading and writing what is there, and making nothing.
    pub const WRITE: Rights = Rights(Rights::READ.0 | Rights::WRITE_FILE | Rights::TRUNCATE);
    /// Writing to files, removing and making entries of every kind (4 to 12), moving and linking between directories.
    pub const CHANGE: Rights = Rights(Rights::WRITE_FILE | 0x1ff << 4 | Rights::REFER);
    /// All that is known of up to version 3.
    pub const ALL: Rights = Rights((1 << 15) - 1);
    const MOVE: Rights = Rights(Rights::REFER);

    /// Those that a version knows.
    fn of(version: libc::c_long) -> u64 {
        let count = match version {
            ..2 => 13,
            2 => 14,
            3 | 4 => 15,
            5..9 => 16,
            // LANDLOCK_ACCESS_FS_RESOLVE_UNIX: no connecting or sending to the path of a socket either.
            _ => 17,
        };
        (1 << count) - 1
    }
}

/// Rules that have been made and hold nobody yet.
#[derive(Debug)]
pub struct Ruleset {
    rules: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// What is handled is refused where no rule allows it: of these rights those that the kernel knows, and with `scoped`
    /// signals and connecting to abstract sockets outside of the domain, where it knows that.
    fn handling(handled: u64, scoped: bool) -> io::Result<Ruleset> {
        /// `linux/landlock.h` struct landlock_ruleset_attr of version 6.
        #[repr(C)]
        struct Attributes {
            handled_access_fs: u64,
            handled_access_net: u64,
            scoped: u64,
        }
        let version = version()?;
        let handled = handled & Rights::of(version);
        let scoped = if scoped && version >= SCOPES { 3 } else { 0 };
        let attributes = Attributes { handled_access_fs: handled, handled_access_net: 0, scoped };
        let size = match version {
            ..4 => 8,
            4 | 5 => 16,
            _ => size_of::<Attributes>(),
        };
        // SAFETY: the structure has the kernel's layout; as much of it as the version knows is given, and it outlives the call.
        let made = unsafe { libc::syscall(CREATE_RULESET, &raw const attributes, size, 0 as libc::c_uint) };
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        let rules = unsafe { OwnedFd::from_raw_fd(checked(made)? as libc::c_int) };
        Ok(Ruleset { rules, handled })
    }

    /// Everything about files is refused for which there is no rule, but ioctl(2) of devices and connecting to sockets; signals and
    /// abstract sockets outside as well. None where the kernel's Landlock cannot serve: before version 2 no rule lets a file be moved from one directory to another.
    pub fn of_files() -> io::Result<Option<Ruleset>> {
        if version().is_ok_and(|version| version >= MOVES) {
            Ruleset::handling(Rights::ALL.0, true).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Changes are refused for which there is no rule; signals and abstract sockets outside as well.
    pub fn of_changes() -> io::Result<Ruleset> {
        Ruleset::handling(Rights::CHANGE.0, true)
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
        checked(added).map(drop)
    }

    /// Holds this thread, and all that it starts from now on, to the rules; for good. Needs `no_new_privs` or CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: takes two numbers, the first of them a descriptor that is open for the whole call.
        checked(unsafe { libc::syscall(RESTRICT_SELF, self.rules.as_raw_fd(), 0 as libc::c_uint) }).map(drop)
    }
}

/// Enters a domain that allows every file access. What is left of it: this process and what it becomes cannot look into
/// processes outside (environment, memory), nor, from Linux 6.12 on, send them signals or connect to their abstract sockets.
/// Needs `no_new_privs` or CAP_SYS_ADMIN, and Linux 5.19.
///
/// A domain has to handle something: before 6.12 it is moving files between directories, which without a rule for it would be
/// refused.
pub fn enter_domain() -> io::Result<()> {
    if version()? >= SCOPES {
        return Ruleset::handling(0, true)?.enter();
    }
    let rules = Ruleset::handling(Rights::MOVE.0, false)?;
    rules.allow(File::open("/")?.as_fd(), Rights::MOVE)?;
    rules.enter()
}

/// Enters a domain that allows no access to files at all, by paths; what is open already stays usable. Needs `no_new_privs`,
/// and Linux 5.13.
pub fn enter_empty_domain() -> io::Result<()> {
    Ruleset::handling(u64::MAX, true)?.enter()
}

fn checked(returned: libc::c_long) -> io::Result<libc::c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let Some(rules) = Ruleset::of_files().unwrap() else {
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
