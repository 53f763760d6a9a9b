//! The step's /proc: its own processes only, with its own paths.
//!
//! What is shown is the builder's /proc, less what is other people's and what containers hide. Links to what a process has
//! (`exe`, `cwd`, `root`, `fd/N`) are answered from what is known of it, never followed by the kernel.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags, Statx};
use rustix::io::Errno;

mod maps;

use super::change::ANOTHER;
use super::place::{Id, LOOK, Node, id_of, lock, look, read_link};
use super::tasks::{Tasks, View as Caller};

/// As in the `namespace` back-end, with what moby adds (`oci/defaults.go` MaskedPaths).
const HIDDEN: &[&[u8]] = &[
    b"acpi",
    b"asound",
    b"interrupts",
    b"kcore",
    b"keys",
    b"latency_stats",
    b"sched_debug",
    b"scsi",
    b"sysrq-trigger",
    b"timer_list",
    b"timer_stats",
    // What is shared with everybody in the container.
    b"sysvipc",
    b"locks",
];

/// Links in /proc, which mean whoever follows them.
const LINKS: &[&[u8]] = &[b"/proc/self", b"/proc/thread-self", b"/proc/net", b"/proc/mounts"];

/// /proc/net/dev of a network of one's own that nobody has set up.
const LOOPBACK: &[u8] =
    b"Inter-|   Receive                                                |  Transmit\n \
      face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
      lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";

/// What of a process is only for those who may look into it (`fs/proc/base.c`).
const GUARDED: &[&[u8]] = &[
    b"auxv",
    b"environ",
    b"fd",
    b"fdinfo",
    b"io",
    b"map_files",
    b"maps",
    b"mem",
    b"ns",
    b"numa_maps",
    b"pagemap",
    b"personality",
    b"smaps",
    b"smaps_rollup",
    b"stack",
    b"syscall",
    b"timers",
    b"wchan",
];

/// Files of a process that it may write to itself.
const WRITABLE: &[&[u8]] =
    &[b"autogroup", b"clear_refs", b"comm", b"coredump_filter", b"mem", b"oom_adj", b"oom_score_adj", b"timerslack_ns"];

/// A path below /proc in the builder's own view; numbers are those of processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proc(Arc<[u8]>);

/// What a name in /proc is.
pub enum Below {
    Plain(Proc),
    Link(Proc, Vec<u8>),
    Magic(Proc, Magic),
}

/// A link to what a process has.
pub enum Magic {
    Root(u32),
    Cwd(u32),
    Program(u32),
    Open { process: u32, number: i32 },
}

impl Magic {
    /// Whose it is.
    pub fn process(&self) -> u32 {
        match self {
            Magic::Root(process) | Magic::Cwd(process) | Magic::Program(process) | Magic::Open { process, .. } => {
                *process
            }
        }
    }
}

impl Proc {
    pub fn root() -> Proc {
        Proc(Arc::from(b"/proc".as_slice()))
    }

    pub fn of_host(path: &[u8]) -> Option<Proc> {
        (path == b"/proc" || path.starts_with(b"/proc/")).then(|| Proc(Arc::from(path)))
    }

    pub fn path(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        *self.0 == *b"/proc"
    }

    /// None above /proc itself.
    pub fn above(&self) -> Option<Proc> {
        let slash = self.0.iter().rposition(|byte| *byte == b'/')?;
        (slash > 0).then(|| Proc(Arc::from(&self.0[..slash])))
    }

    fn join(&self, name: &[u8]) -> Proc {
        Proc(Arc::from([&self.0, b"/".as_slice(), name].concat()))
    }

    /// The process it belongs to and what follows its directory (`task/TID` left out).
    fn process(&self) -> Option<(u32, Vec<&[u8]>)> {
        let mut names = self.0.split(|byte| *byte == b'/').skip(2);
        let process = number(names.next()?)?;
        let mut rest: Vec<&[u8]> = names.collect();
        if rest.len() >= 2 && rest[0] == b"task" {
            rest.drain(..2);
        }
        Some((process, rest))
    }
}

fn number(name: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(name).ok()?;
    if text.starts_with('+') || (text.len() > 1 && text.starts_with('0')) { None } else { text.parse().ok() }
}

/// The /proc of one step.
pub struct View {
    pub tasks: Arc<Tasks>,
    /// Where listings are made.
    scratch: PathBuf,
    /// Whether there is a network to be seen.
    network: bool,
    /// The names in the listing of /proc, once there is one.
    shown: Mutex<Option<HashSet<OsString>>>,
    listing: Mutex<Option<Id>>,
}

impl View {
    pub fn new(tasks: Arc<Tasks>, scratch: PathBuf, network: bool) -> View {
        View { tasks, scratch, network, shown: Mutex::default(), listing: Mutex::default() }
    }

    pub fn cwd_of(&self, process: u32) -> Option<Node> {
        Some(self.tasks.known(process)?.cwd.clone())
    }

    pub fn exe_of(&self, process: u32) -> Option<Vec<u8>> {
        Some(self.tasks.known(process)?.exe.to_vec()).filter(|exe| !exe.is_empty())
    }

    /// The directory of one's own open files is always one's own (`fs/proc/fd.c` proc_fd_permission).
    pub fn is_own_descriptors(&self, proc: &Proc, caller: &Caller) -> bool {
        proc.process()
            .is_some_and(|(process, rest)| rest == [b"fd"] && (process == caller.thread || process == caller.process()))
    }

    /// Whether somebody may look into a process (`kernel/ptrace.c` __ptrace_may_access with PTRACE_MODE_READ_FSCREDS).
    pub fn may_look(&self, caller: &Caller, process: u32) -> Result<(), Errno> {
        let target = self.tasks.known(process).ok_or(Errno::NOENT)?;
        let is_self = process == caller.thread || Some(caller.process()) == super::tasks::process_of(process);
        let (user, group) = (caller.ids.user.files, caller.ids.group.files);
        if is_self || (!target.guarded && target.ids.may_be_seen_by(user, group, caller.ids.rights.effective)) {
            return Ok(());
        }
        Err(Errno::ACCESS)
    }

    /// A directory that was made to be listed in the place of another.
    pub fn stands_for(&self, id: Id) -> Option<Node> {
        (*lock(&self.listing) == Some(id)).then(|| Node::Proc(Proc::root()))
    }

    /// `caller`: whom `self` means.
    pub fn enter(&self, at: &Proc, name: &[u8], caller: &Caller) -> Result<Below, Errno> {
        let below = at.join(name);
        if at.is_root() {
            return self.enter_root(below, name, caller);
        }
        let Some((process, rest)) = at.process() else {
            // Of a link itself nothing is below.
            let is_link = LINKS.iter().any(|link| at.path() == *link);
            return if is_link { Err(Errno::NOTDIR) } else { plain(below) };
        };
        self.tasks.known(process).ok_or(Errno::NOENT)?;
        // A descriptor can stand for a link itself. The kernel would follow it, to what the process is really in.
        if matches!(rest[..], [b"cwd" | b"root" | b"exe", ..] | [b"fd" | b"ns" | b"map_files", _, ..]) {
            return Err(Errno::NOTDIR);
        }
        let magic = match (&rest[..], name) {
            ([], b"root") => Magic::Root(process),
            ([], b"cwd") => Magic::Cwd(process),
            ([], b"exe") => Magic::Program(process),
            ([b"fd"], name) => {
                let number = number(name).and_then(|number| i32::try_from(number).ok()).ok_or(Errno::NOENT)?;
                Magic::Open { process, number }
            }
            ([b"map_files"], _) => return Err(Errno::PERM),
            // It names mounts of the host.
            ([], b"mountstats") => return Err(Errno::NOENT),
            ([b"net"], name) if !self.network && name != b"dev" => return Err(Errno::NOENT),
            _ => return plain(below),
        };
        host_look(&below)?;
        Ok(Below::Magic(below, magic))
    }

    fn enter_root(&self, below: Proc, name: &[u8], caller: &Caller) -> Result<Below, Errno> {
        let link = |text: String| Ok(Below::Link(below.clone(), text.into_bytes()));
        match name {
            b"self" => link(caller.process().to_string()),
            b"thread-self" => link(format!("{}/task/{}", caller.process(), caller.thread)),
            name if HIDDEN.contains(&name) => Err(Errno::NOENT),
            // In a container the first process is number 1, and scripts look at it.
            b"1" => {
                let first = self.tasks.first().ok_or(Errno::NOENT)?;
                Ok(Below::Plain(Proc::root().join(first.to_string().as_bytes())))
            }
            name => match number(name) {
                Some(number) => {
                    self.tasks.known(number).ok_or(Errno::NOENT)?;
                    Ok(Below::Plain(below))
                }
                None => plain(below),
            },
        }
    }

    /// As the step sees it.
    pub fn look(&self, proc: &Proc) -> Result<Statx, Errno> {
        let mut found = host_look(proc)?;
        self.is_own(proc)?;
        let process = proc.process().and_then(|(process, _)| self.tasks.known(process));
        (found.stx_uid, found.stx_gid) = process
            .as_deref()
            .map(|process| &process.ids)
            .map_or((0, 0), |ids| (ids.user.effective, ids.group.effective));
        Ok(found)
    }

    /// Opens what no link leads to.
    pub fn open(
        &self,
        proc: &Proc,
        flags: OFlags,
        caller: &Caller,
        mounts: &dyn Fn() -> Vec<u8>,
        shown: &dyn Fn(&[u8]) -> Vec<u8>,
    ) -> Result<OwnedFd, Errno> {
        self.is_own(proc)?;
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        if writes && !self.may_write(proc) {
            return Err(if proc.path().starts_with(b"/proc/sys") { Errno::ROFS } else { Errno::ACCESS });
        }
        if proc.is_root() && !writes {
            return self.listing().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        if let Some((process, rest)) = proc.process().filter(|_| !writes) {
            let text = match rest[..] {
                [name] if maps::is_one(name) => {
                    let copy = maps::shown(self.open_judged(proc, flags, caller)?, shown);
                    return copy.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
                }
                [b"status"] => Some(self.status(process, &host_read(proc)?)),
                [b"limits"] => Some(limits(&host_read(proc)?)),
                [b"mounts"] => Some(mounts()),
                [b"net", b"dev"] if !self.network => Some(LOOPBACK.to_vec()),
                [b"mountinfo"] => Some(mountinfo(&mounts())),
                _ => None,
            };
            if let Some(text) = text {
                return in_memory(&text).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
        }
        self.open_judged(proc, flags, caller)
    }

    /// Opens, as one who may look into the process where the file is only for those.
    fn open_judged(&self, proc: &Proc, flags: OFlags, caller: &Caller) -> Result<OwnedFd, Errno> {
        match proc.process() {
            Some((process, rest)) if rest.first().is_some_and(|name| GUARDED.contains(name)) => {
                self.looking(caller, process, || host_open(proc, flags))
            }
            _ => {
                let file = host_open(proc, flags)?;
                self.is_own(proc)?;
                Ok(file)
            }
        }
    }

    /// Looks into a process that the caller may look into, and that is the same program before and after: it can become one that
    /// nobody may look into, and cease to be one.
    ///
    /// # Errors
    /// [`ANOTHER`] where it has changed meanwhile.
    pub fn looking<T>(
        &self,
        caller: &Caller,
        process: u32,
        look: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let before = self.tasks.known(process).ok_or(Errno::NOENT)?;
        self.may_look(caller, process)?;
        let seen = look()?;
        let after = self.tasks.known(process).ok_or(Errno::NOENT)?;
        self.may_look(caller, process)?;
        if Arc::ptr_eq(&before, &after) { Ok(seen) } else { Err(ANOTHER) }
    }

    /// That a path in the directory of a process is of one of the step: a working directory there outlives its process, whose
    /// number may be another's then.
    fn is_own(&self, proc: &Proc) -> Result<(), Errno> {
        match proc.process() {
            Some((process, _)) if !self.tasks.holds(process) => Err(Errno::NOENT),
            _ => Ok(()),
        }
    }

    fn may_write(&self, proc: &Proc) -> bool {
        proc.process().is_some_and(|(_, rest)| matches!(rest[..], [name] if WRITABLE.contains(&name)))
    }

    /// A directory with the names that the step is to see in /proc: one for the whole step, brought up to date each time.
    fn listing(&self) -> io::Result<OwnedFd> {
        let dir = self.scratch.join("proc");
        let mut shown = lock(&self.shown);
        if shown.is_none() {
            fs::create_dir(&dir)?;
        }
        let shown = shown.get_or_insert_default();
        let mut gone = std::mem::take(shown);
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name();
            let is_shown = match number(name.as_bytes()) {
                Some(number) => self.tasks.holds(number),
                None => !HIDDEN.contains(&name.as_bytes()),
            };
            if is_shown {
                if !gone.remove(&name) {
                    let _ = stand_in(&entry, &dir.join(&name));
                }
                shown.insert(name);
            }
        }
        // Whatever is gone was a process.
        for name in gone {
            let _ = fs::remove_dir(dir.join(name));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::open(&dir, flags, Mode::empty())?;
        *lock(&self.listing) = Some(id_of(&look(listing.as_fd())?));
        Ok(listing)
    }

    /// proc_pid_status(5), with the ids and rights that the process believes to have.
    fn status(&self, process: u32, real: &[u8]) -> Vec<u8> {
        // Gone meanwhile: the text may be anybody's.
        let Some(process) = self.tasks.known(process) else { return Vec::new() };
        let ids = &process.ids;
        let line = |set: super::ids::Set| format!("{}\t{}\t{}\t{}", set.real, set.effective, set.saved, set.files);
        let mut text = String::new();
        for old in String::from_utf8_lossy(real).lines() {
            let name = old.split(':').next().unwrap_or_default();
            let value = match name {
                "Uid" => line(ids.user),
                "Gid" => line(ids.group),
                "Groups" => ids.groups.iter().map(|group| format!("{group} ")).collect(),
                "Umask" => format!("{:04o}", process.umask),
                "CapPrm" => format!("{:016x}", ids.rights.permitted),
                "CapEff" => format!("{:016x}", ids.rights.effective),
                "CapBnd" => format!("{:016x}", super::ids::ALL),
                "NoNewPrivs" | "TracerPid" => "0".to_owned(),
                _ => {
                    text.push_str(old);
                    text.push('\n');
                    continue;
                }
            };
            text.push_str(&format!("{name}:\t{value}\n"));
        }
        text.into_bytes()
    }
}

fn plain(below: Proc) -> Result<Below, Errno> {
    let found = host_look(&below)?;
    if super::place::type_of(&found).is_symlink() && below.process().is_none() {
        let target = read_link(CWD, below.path())?;
        return Ok(Below::Link(below, target));
    }
    Ok(Below::Plain(below))
}

/// No link on the way is followed: what the kernel has behind those of /proc is the builder's view.
fn host_look(proc: &Proc) -> Result<Statx, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(CWD, proc.path(), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(file) => look(file.as_fd()),
        // Before Linux 5.6. The names on the way have been looked at one by one, and nobody makes links in /proc.
        Err(Errno::NOSYS | Errno::PERM) => {
            rustix::fs::statx(CWD, proc.path(), AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, LOOK)
        }
        Err(error) => Err(error),
    }
}

fn host_open(proc: &Proc, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = (flags | OFlags::CLOEXEC | OFlags::NOCTTY).difference(OFlags::CREATE | OFlags::EXCL);
    match rustix::fs::openat2(CWD, proc.path(), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6. The names on the way have been looked at one by one, and nobody makes links in /proc.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(proc.path(), flags | OFlags::NOFOLLOW, Mode::empty()),
        result => result,
    }
}

fn host_read(proc: &Proc) -> Result<Vec<u8>, Errno> {
    let path = Path::new(std::ffi::OsStr::from_bytes(proc.path()));
    fs::read(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Something of the same name and kind.
fn stand_in(entry: &fs::DirEntry, path: &Path) -> io::Result<()> {
    let kind = entry.file_type()?;
    match () {
        () if kind.is_dir() => fs::create_dir(path),
        () if kind.is_symlink() => std::os::unix::fs::symlink(fs::read_link(entry.path())?, path),
        () => fs::write(path, ""),
    }
}

/// A file that is nowhere, open to read.
pub fn in_memory(text: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("proc", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut writer = fs::File::from(file);
    writer.write_all(text)?;
    let file = OwnedFd::from(writer);
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    let path = super::place::own_path(file.as_fd());
    Ok(rustix::fs::open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// proc_pid_limits(5), without the builder's own (`emulate::tasks`).
fn limits(real: &[u8]) -> Vec<u8> {
    let name = "Max file locks";
    let shown = format!("{name:<25} {0:<20} {0:<20} {1:<10}\n", "unlimited", "locks");
    let lines = real.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| if line.starts_with(name.as_bytes()) { shown.as_bytes() } else { line }).copied().collect()
}

/// proc_pid_mountinfo(5) of what proc_pid_mounts(5) says.
fn mountinfo(mounts: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(mounts);
    let lines = text.lines().enumerate().filter_map(|(number, line)| {
        let mut fields = line.split(' ');
        let (source, target, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let parent = if number == 0 { 1 } else { 20 };
        Some(format!("{} {parent} 0:{} / {target} {options} - {kind} {source} {options}\n", 20 + number, 20 + number))
    });
    lines.collect::<String>().into_bytes()
}
