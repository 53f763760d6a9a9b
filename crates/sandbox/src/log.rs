//! The metadata log: what a step of root's wants files to be where its container's root may not say so.
//!
//! Without CAP_FSETID a chmod to 2755 succeeds and drops the set-group-ID bit; without CAP_MKNOD and CAP_SETFCAP there are no
//! device nodes and no capabilities of files. Such calls of a step are done here on its behalf, and what the kernel refuses or
//! drops goes to the tree's table, so that layers are right. The step itself still sees what the kernel has.
//!
//! Only calls of a caller with just our rights are done here. Everything else the kernel decides as if there were no log
//! ([`Answer::Continue`]). That is safe because the log is no wall: it gives nobody a right, and a caller who changes a path
//! after it has been read only gets what the kernel allows it.
//!
//! Not known to the log: 32-bit programs, changed roots, and set-id bits that go with a write to the file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rootfs::{FileKind, Tree};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::notify::{Answer, Call, Listener, Supervisor};

const AT_FDCWD: i32 = libc::AT_FDCWD;
const NO_FOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const S_ISGID: u32 = 0o2000;
const CAPABILITY: &[u8] = b"security.capability";
/// Sizes of the three versions of `struct vfs_cap_data` (`linux/capability.h`).
const CAPABILITY_SIZES: [u64; 3] = [12, 20, 24];

/// Where a call says which file it means: indices of its arguments.
#[derive(Clone, Copy, Debug)]
enum Means {
    Open,
    Path {
        follow: bool,
    },
    /// A directory and a path below it, and where there are `AT_*` flags.
    Below {
        flags: Option<usize>,
    },
}

/// What a call wants, with the index of the argument that says how.
#[derive(Clone, Copy, Debug)]
enum Wants {
    Mode(usize),
    Owner(usize),
    Node(usize),
    Capability(usize),
    NoCapability(usize),
}

/// A system call that is asked about.
type Known = (libc::c_long, Means, Wants);

const PATH: Means = Means::Path { follow: true };
const LINK: Means = Means::Path { follow: false };

const EVERYWHERE: &[Known] = &[
    (libc::SYS_fchmod, Means::Open, Wants::Mode(1)),
    (libc::SYS_fchmodat, Means::Below { flags: None }, Wants::Mode(2)),
    // fchmodat2: one number on every architecture, like all that are newer than 2019; libc lacks it for some.
    (452, Means::Below { flags: Some(3) }, Wants::Mode(2)),
    (libc::SYS_fchown, Means::Open, Wants::Owner(1)),
    (libc::SYS_fchownat, Means::Below { flags: Some(4) }, Wants::Owner(2)),
    (libc::SYS_mknodat, Means::Below { flags: None }, Wants::Node(2)),
    (libc::SYS_setxattr, PATH, Wants::Capability(1)),
    (libc::SYS_lsetxattr, LINK, Wants::Capability(1)),
    (libc::SYS_fsetxattr, Means::Open, Wants::Capability(1)),
    (libc::SYS_removexattr, PATH, Wants::NoCapability(1)),
    (libc::SYS_lremovexattr, LINK, Wants::NoCapability(1)),
    (libc::SYS_fremovexattr, Means::Open, Wants::NoCapability(1)),
];

/// Calls of before there were directories to begin at.
#[cfg(target_arch = "x86_64")]
const OLD: &[Known] = &[
    (libc::SYS_chmod, PATH, Wants::Mode(1)),
    (libc::SYS_chown, PATH, Wants::Owner(1)),
    (libc::SYS_lchown, LINK, Wants::Owner(1)),
    (libc::SYS_mknod, LINK, Wants::Node(1)),
];

#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Known] = &[];

fn known() -> impl Iterator<Item = &'static Known> {
    EVERYWHERE.iter().chain(OLD)
}

/// Numbers of the calls that a step's filter has to ask about.
pub fn numbers() -> Vec<u32> {
    known().map(|(number, _, _)| *number as u32).collect()
}

/// The log of one step, whose `/` holds a tree's files.
pub struct Log<'t> {
    tree: &'t Tree,
    /// What is mounted on `/`. Files of other mounts are no layer's.
    mount: u64,
    /// Our own status, by which callers are measured.
    status: String,
}

/// Why a call is left to the kernel.
struct NotOurs;

impl From<io::Error> for NotOurs {
    fn from(_: io::Error) -> NotOurs {
        NotOurs
    }
}

impl From<Errno> for NotOurs {
    fn from(_: Errno) -> NotOurs {
        NotOurs
    }
}

impl<'t> Log<'t> {
    /// `tree` is the stage whose files are in `/`, or will be.
    pub fn new(tree: &'t Tree) -> io::Result<Log<'t>> {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let status = std::fs::read_to_string("/proc/thread-self/status")?;
        Ok(Log { tree, mount: mount_of(root.as_fd())?, status })
    }

    /// Answers one call of the step.
    fn decide(&self, call: &Call, listener: &Listener) -> Answer {
        let known = known().find(|(number, _, _)| *number == libc::c_long::from(call.number));
        match known.ok_or(NotOurs).and_then(|(_, means, wants)| self.done(call, listener, *means, *wants)) {
            Ok(outcome) => Answer::Done(outcome.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))),
            // Safe: the log is advisory, the kernel decides with the caller's own rights.
            Err(NotOurs) => Answer::Continue,
        }
    }

    fn done(&self, call: &Call, listener: &Listener, means: Means, wants: Wants) -> Result<io::Result<()>, NotOurs> {
        match wants {
            Wants::Mode(at) if call.number_at(at) & S_ISGID == 0 && !self.tree.pretends() => Err(NotOurs),
            Wants::Owner(_) if !self.tree.pretends() => Err(NotOurs),
            Wants::Node(at) => self.make_node(call, listener, means, at),
            Wants::Capability(at) | Wants::NoCapability(at)
                if call.text(call.arguments[at])?.as_bytes() != CAPABILITY =>
            {
                Err(NotOurs)
            }
            Wants::Mode(_) | Wants::Owner(_) | Wants::Capability(_) | Wants::NoCapability(_) => {
                let file = self.file(call, means)?;
                self.matters(call, file.as_fd(), wants)?;
                self.has_our_rights(call, listener)?;
                self.change(call, file.as_fd(), wants)
            }
        }
    }

    /// Most changes of owner and mode are such that the kernel drops nothing of them, of files of which nothing is pretended.
    fn matters(&self, call: &Call, file: BorrowedFd<'_>, wants: Wants) -> Result<(), NotOurs> {
        let matters = match wants {
            Wants::Mode(at) => call.number_at(at) & S_ISGID != 0 || self.tree.pretends_of(file)?,
            Wants::Owner(_) => self.tree.pretends_of(file)?,
            Wants::Node(_) | Wants::Capability(_) | Wants::NoCapability(_) => true,
        };
        if matters { Ok(()) } else { Err(NotOurs) }
    }

    fn change(&self, call: &Call, file: BorrowedFd<'_>, wants: Wants) -> Result<io::Result<()>, NotOurs> {
        let kind = self.tree.stat_of(file)?.kind;
        match wants {
            // The kernel knows the right error.
            Wants::Mode(_) if kind == FileKind::Symlink => Err(NotOurs),
            Wants::Mode(at) => Ok(self.tree.set_mode_of(file, call.number_at(at) & 0o7777)),
            Wants::Owner(at) => {
                let id = |index| Some(call.number_at(index)).filter(|id| *id != u32::MAX);
                Ok(self.tree.set_owner_of(file, id(at), id(at + 1)))
            }
            Wants::Capability(at) if kind == FileKind::File && CAPABILITY_SIZES.contains(&call.arguments[at + 2]) => {
                let value = call.bytes(call.arguments[at + 1], call.arguments[at + 2] as usize)?;
                Ok(self.tree.set_capability_of(file, Some(&value), call.number_at(at + 3)))
            }
            Wants::NoCapability(_) if kind == FileKind::File => Ok(self.tree.set_capability_of(file, None, 0)),
            Wants::Node(_) | Wants::Capability(_) | Wants::NoCapability(_) => Err(NotOurs),
        }
    }

    fn make_node(&self, call: &Call, listener: &Listener, means: Means, at: usize) -> Result<io::Result<()>, NotOurs> {
        let mode = call.number_at(at);
        let kind = match mode & libc::S_IFMT {
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            _ => return Err(NotOurs),
        };
        let (directory, path) = match means {
            Means::Open => return Err(NotOurs),
            Means::Path { .. } => (AT_FDCWD, call.text(call.arguments[0])?),
            Means::Below { .. } => (call.number_at(0) as i32, call.text(call.arguments[1])?),
        };
        let (above, name) = split(path.as_bytes()).ok_or(NotOurs)?;
        let above = self.open(call, directory, above, OFlags::DIRECTORY)?;
        let umask = self.has_our_rights(call, listener)?;
        // The kernel's numbers: 20 bits of minor around 12 bits of major (`new_decode_dev` of linux/kdev_t.h).
        let device = call.number_at(at + 1);
        let device = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
        Ok(self.tree.make_node_in(above.as_fd(), name, kind, device, mode & 0o7777 & !umask))
    }

    /// The file that a call is about.
    fn file(&self, call: &Call, means: Means) -> Result<OwnedFd, NotOurs> {
        let (directory, address, flags) = match means {
            Means::Open => return self.of_the_tree(call.open(&format!("fd/{}", call.number_at(0) as i32))?),
            Means::Path { follow } => (AT_FDCWD, call.arguments[0], if follow { 0 } else { NO_FOLLOW }),
            Means::Below { flags } => {
                (call.number_at(0) as i32, call.arguments[1], flags.map_or(0, |at| call.number_at(at)))
            }
        };
        let path = call.text(address)?;
        match path.as_bytes() {
            b"" if flags & EMPTY_PATH == 0 => Err(NotOurs),
            b"" => self.of_the_tree(start(call, directory)?),
            path if flags & NO_FOLLOW != 0 => self.open(call, directory, path, OFlags::NOFOLLOW),
            path => self.open(call, directory, path, OFlags::empty()),
        }
    }

    /// Opens a path as the caller would.
    fn open(&self, call: &Call, directory: i32, path: &[u8], flags: OFlags) -> Result<OwnedFd, NotOurs> {
        // `self` would be the builder. This is how libraries change the mode of what they have open without following links.
        if let Some(own) = path.strip_prefix(b"/proc/self/fd/").or_else(|| path.strip_prefix(b"/dev/fd/")) {
            let number: u32 = std::str::from_utf8(own).ok().and_then(|own| own.parse().ok()).ok_or(NotOurs)?;
            return match flags.contains(OFlags::NOFOLLOW) {
                true => Err(NotOurs),
                false => self.of_the_tree(call.open(&format!("fd/{number}"))?),
            };
        }
        // Every other magic link is refused, so that nothing of the builder's own is found by way of /proc/self.
        let how = ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let from = start(call, directory)?;
        let path = if path.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(path)) };
        self.of_the_tree(rustix::fs::openat2(from, path, flags, Mode::empty(), how)?)
    }

    fn of_the_tree(&self, file: OwnedFd) -> Result<OwnedFd, NotOurs> {
        if mount_of(file.as_fd())? == self.mount { Ok(file) } else { Err(NotOurs) }
    }

    /// That the caller is what we are: root, with our capabilities and our `/`. Then what we do for it is what it may do
    /// itself. Gives its umask. All that was read of the caller is its own if it still waits now.
    fn has_our_rights(&self, call: &Call, listener: &Listener) -> Result<u32, NotOurs> {
        let theirs = call.status()?;
        let rights = Rights::of(&theirs).ok_or(NotOurs)?;
        let own = Rights::of(&self.status).ok_or(NotOurs)?;
        let same = rights.users == own.users
            && acting(rights.groups) == acting(own.groups)
            && own.capabilities & FILE_RIGHTS & !rights.capabilities == 0;
        let at_root = is_same(call.open("root")?.as_fd(), "/")?;
        if same && at_root && listener.waits(call) { Ok(rights.umask) } else { Err(NotOurs) }
    }
}

impl Supervisor for Log<'_> {
    fn threads(&self) -> usize {
        1
    }

    fn answer(&self, call: &Call, listener: &Listener) -> Answer {
        self.decide(call, listener)
    }
}

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP
const FILE_RIGHTS: u64 = 0b1_1111 | 1 << 27 | 1 << 31;

/// Lines of proc_pid_status(5).
struct Rights<'s> {
    /// Real, effective, saved, of the file system.
    users: &'s str,
    groups: &'s str,
    capabilities: u64,
    umask: u32,
}

impl Rights<'_> {
    fn of(status: &str) -> Option<Rights<'_>> {
        let field = |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim());
        Some(Rights {
            users: field("Uid:")?,
            groups: field("Gid:")?,
            capabilities: u64::from_str_radix(field("CapEff:")?, 16).ok()?,
            umask: u32::from_str_radix(field("Umask:")?, 8).ok()?,
        })
    }
}

/// A list of ids without the saved one: with it nothing is done, and the builder has one of its own (`namespace::user`).
fn acting(ids: &str) -> Vec<&str> {
    let numbered = ids.split_ascii_whitespace().enumerate();
    numbered.filter(|(index, _)| *index != 2).map(|(_, id)| id).collect()
}

/// Where the caller begins to resolve a relative path.
fn start(call: &Call, directory: i32) -> rustix::io::Result<OwnedFd> {
    match directory {
        AT_FDCWD => call.open("cwd"),
        number => call.open(&format!("fd/{number}")),
    }
}

/// A path's directory and the name in it; none for what can be no new name.
fn split(path: &[u8]) -> Option<(&[u8], &OsStr)> {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (above, name) = path.split_at(at);
    let usable = !matches!(name, b"" | b"." | b"..");
    usable.then(|| (above, OsStr::from_bytes(name)))
}

fn is_same(file: BorrowedFd<'_>, path: &str) -> rustix::io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(file)?, rustix::fs::stat(path)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Number of the mount that a file is in (Linux 5.8).
fn mount_of(file: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    match StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) {
        true => Ok(stat.stx_mnt_id),
        false => Err(Errno::NOSYS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_are_told_from_what_is_there() {
        let cases = [
            ("a", Some(("", "a"))),
            ("/a", Some(("/", "a"))),
            ("x/../a", Some(("x/../", "a"))),
            ("", None),
            ("/", None),
            ("a/", None),
            ("a/.", None),
            ("..", None),
        ];
        for (path, wanted) in cases {
            let wanted = wanted.map(|(above, name)| (above.as_bytes(), OsStr::new(name)));
            assert_eq!(split(path.as_bytes()), wanted, "{path}");
        }
    }

    #[test]
    fn rights_are_read_from_the_status() {
        let text = "Name:\tsh\nUmask:\t0027\nUid:\t0\t0\t0\t0\nGid:\t0\t5\t0\t0\nCapEff:\t00000000000000cb\n";
        let rights = Rights::of(text).expect("all fields");
        assert_eq!((rights.users, rights.groups), ("0\t0\t0\t0", "0\t5\t0\t0"));
        assert_eq!((rights.capabilities, rights.umask), (0xcb, 0o27));
        assert!(Rights::of("Uid:\t0\n").is_none());
        assert_eq!(acting(rights.groups), ["0", "5", "0"]);
    }
}
