//! Entering a user namespace with the whole builder, so that from then on it is root of 65,536 ids or more.
//!
//! All file work of the builder happens as that root: owners in a rootfs are the kernel's, not a table's. What is mapped to
//! what depends on the rights there are; [`ways`] lists what may work, best first.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{DumpableBehavior, Gid, Pid, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::sys::{self, Forked};

/// How to come to CAP_SYS_ADMIN over enough ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// It is there already.
    Admin,
    /// Every id stands for itself. Needs SETUID, SETGID and SETFCAP, perhaps from file capabilities on our program.
    Identity,
    /// Id 0 inside is `first` outside, and so on: the kernel lets nobody map the outer 0 without SETFCAP (Linux 5.12).
    Range { first: u32, count: u32 },
    /// Own id to 0, then the ranges that /etc/subuid and /etc/subgid grant, written by newuidmap and newgidmap.
    Granted { users: Vec<(u32, u32)>, groups: Vec<(u32, u32)> },
}

/// nobody and nogroup are 65534, and apt fails where the latter is not mapped.
const NEEDED_IDS: u32 = 65_535;

/// What may work here, and of what is out of the question why.
pub fn ways() -> (Vec<Way>, Vec<String>) {
    let (mut ways, mut refused) = (Vec::new(), Vec::new());
    let capabilities = rustix::thread::capabilities(None).ok();
    let permitted = capabilities.map_or(CapabilitySet::empty(), |sets| sets.permitted);
    if capabilities.is_some_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)) {
        ways.push(Way::Admin);
    }
    let ids = CapabilitySet::SETUID | CapabilitySet::SETGID;
    if permitted.contains(ids | CapabilitySet::SETFCAP) {
        ways.push(Way::Identity);
    } else if permitted.contains(ids) {
        match mapped_ids().map(|ids| ids.min(65_537) - 1) {
            Ok(count) if count >= NEEDED_IDS => ways.push(Way::Range { first: 1, count }),
            _ => refused.push(format!("map of a range without id 0: fewer than {NEEDED_IDS} ids besides")),
        }
    } else {
        refused.push("map without help: needs CAP_SETUID and CAP_SETGID (and CAP_SETFCAP)".into());
        match granted() {
            Ok(way) => ways.push(way),
            Err(reason) => refused.push(format!("map by newuidmap: {reason}")),
        }
    }
    (ways, refused)
}

/// Ids from 0 on that exist in this user namespace.
fn mapped_ids() -> io::Result<u32> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let first = extents(&map).find(|(inside, _)| *inside == 0);
    Ok(first.map_or(0, |(_, count)| count).max(1))
}

/// Inner start and length of each line of a map of ids (user_namespaces(7)).
fn extents(map: &str) -> impl Iterator<Item = (u32, u32)> {
    map.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
    })
}

fn granted() -> Result<Way, String> {
    let uid = rustix::process::getuid().as_raw();
    let users = granted_in("/etc/subuid", uid)?;
    let groups = granted_in("/etc/subgid", uid)?;
    Ok(Way::Granted { users, groups })
}

fn granted_in(file: &str, uid: u32) -> Result<Vec<(u32, u32)>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("could not read `{file}`: {}", sys::plain(&error)))?;
    let ranges = ranges_of(&text, uid, user_name(uid).as_deref());
    match ranges.iter().map(|(_, count)| u64::from(*count)).sum::<u64>() {
        enough if enough >= u64::from(NEEDED_IDS) => Ok(ranges),
        count => Err(format!("`{file}` grants {count} ids to user {uid}, {NEEDED_IDS} are needed")),
    }
}

/// Lines `owner:start:count` where the owner is the number or the name (subuid(5)).
fn ranges_of(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own =
        fields.filter(|fields| fields.first().is_some_and(|owner| owner.parse() == Ok(uid) || Some(*owner) == name));
    own.filter_map(|fields| Some((fields.get(1)?.parse().ok()?, fields.get(2)?.trim().parse().ok()?))).collect()
}

fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').nth(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    line.split(':').next().map(str::to_owned)
}

/// One line of the map for each extent: inside, outside, count.
type Map = Vec<(u32, u32, u32)>;

fn maps(way: &Way) -> io::Result<(Map, Map)> {
    let identity = |file: &str| -> io::Result<Map> {
        Ok(extents(&fs::read_to_string(file)?).map(|(inside, count)| (inside, inside, count)).collect())
    };
    Ok(match way {
        Way::Admin => (Vec::new(), Vec::new()),
        Way::Identity => (identity("/proc/self/uid_map")?, identity("/proc/self/gid_map")?),
        Way::Range { first, count } => (vec![(0, *first, *count)], vec![(0, *first, *count)]),
        Way::Granted { users, groups } => {
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            (own_and(uid, users), own_and(gid, groups))
        }
    })
}

fn own_and(own: u32, granted: &[(u32, u32)]) -> Map {
    let mut map = vec![(0, own, 1)];
    let mut next = 1;
    for (start, count) in granted {
        map.push((next, *start, *count));
        next += count;
    }
    map
}

/// Moves this process to a mount namespace of its own, and to a user namespace where it becomes root unless it is root enough. `work` must be its own.
///
/// # Errors
/// The call that failed, as text for `doctor`, with its error. The process is not to be used for anything else then.
pub fn enter(way: &Way, work: &Path) -> Result<(), (String, io::Error)> {
    if *way == Way::Admin {
        // Overlays of the builder are mounted here and end with it.
        return sys::unshare(UnshareFlags::NEWNS).map_err(at("unshare(CLONE_NEWNS)"));
    }
    let maps = maps(way).map_err(at("read of /proc/self/uid_map"))?;
    if let Way::Range { first, .. } = way {
        chown(work, Some(*first), Some(*first)).map_err(at("chown of the work directory"))?;
    }
    // A program with file capabilities is not dumpable, and then its maps are not writable for its own user.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|error| at("prctl(PR_SET_DUMPABLE)")(error.into()))?;
    let writer = Writer::start(way, &maps).map_err(at("fork"))?;
    sys::unshare(UnshareFlags::NEWUSER).map_err(at("unshare(CLONE_NEWUSER)"))?;
    writer.write()?;
    become_root().map_err(|error| at("setresuid(0)")(error.into()))?;
    sys::unshare(UnshareFlags::NEWNS).map_err(at("unshare(CLONE_NEWNS) in the user namespace"))
}

/// Keeps the limits of this process (and of those it forks, until they execute something) from others of the same user: the kernel
/// lets nobody set them whose user and group are not all six of the target's (prlimit(2)). A saved group of its own changes
/// nothing else. Where the user namespace has no other group than root's it stays as it is.
pub fn keep_limits() {
    /// In every map that has more than one id, and of no meaning.
    const SAVED: u32 = 1;
    let gid = rustix::process::getegid();
    let _ = rustix::thread::set_thread_res_gid(rustix::process::getgid(), gid, Gid::from_raw(SAVED));
}

fn at(call: &str) -> impl FnOnce(io::Error) -> (String, io::Error) {
    move |error| (call.to_owned(), error)
}

/// A child that stays outside of the user namespace to write its maps. Dropping this ends it.
struct Writer {
    child: Pid,
    /// Closed to end the child.
    go: Option<PipeWriter>,
    answer: PipeReader,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.go = None;
        // Otherwise process 1 gets it, which in a container is the builder, and it stays a zombie that steps see.
        let _ = rustix::process::waitpid(Some(self.child), WaitOptions::empty());
    }
}

impl Writer {
    fn start(way: &Way, maps: &(Map, Map)) -> io::Result<Writer> {
        let target = rustix::process::getpid();
        let (answer, to_us) = io::pipe()?;
        let (mut told, go) = io::pipe()?;
        match sys::fork()? {
            Forked::Parent(child) => Ok(Writer { child, go: Some(go), answer }),
            Forked::Child => {
                drop((answer, go));
                let mut word = [0];
                if told.read_exact(&mut word).is_ok() {
                    let said = write_maps(target, way, maps).err().unwrap_or_default();
                    let _ = (&to_us).write_all(said.as_bytes());
                }
                sys::exit_now(0)
            }
        }
    }

    fn write(mut self) -> Result<(), (String, io::Error)> {
        let mut said = String::new();
        let told = self.go.take().map_or(Ok(()), |mut go| go.write_all(b"!"));
        told.and_then(|()| self.answer.read_to_string(&mut said)).map_err(at("write of uid_map"))?;
        match said.is_empty() {
            true => Ok(()),
            false => Err((said, io::Error::from_raw_os_error(libc::EPERM))),
        }
    }
}

fn become_root() -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// In a process that has stayed outside: writes both maps of `target`. The error names the call.
fn write_maps(target: Pid, way: &Way, (users, groups): &(Map, Map)) -> Result<(), String> {
    if let Way::Granted { .. } = way {
        run_map_tool("newuidmap", target, users)?;
        return run_map_tool("newgidmap", target, groups);
    }
    raise_permitted().map_err(|error| format!("capset: {}", sys::plain(&error.into())))?;
    write_map(target, "uid_map", users)?;
    write_map(target, "gid_map", groups)
}

/// Makes effective what file capabilities only permit.
fn raise_permitted() -> rustix::io::Result<()> {
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })
}

fn write_map(target: Pid, file: &str, map: &Map) -> Result<(), String> {
    let lines: String = map.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect();
    fs::write(format!("/proc/{}/{file}", target.as_raw_nonzero()), lines)
        .map_err(|error| format!("write of {file}: {}", sys::plain(&error)))
}

fn run_map_tool(tool: &str, target: Pid, map: &Map) -> Result<(), String> {
    let numbers = map.iter().flat_map(|(inside, outside, count)| [*inside, *outside, *count]);
    let mut command = Command::new(tool);
    command
        .arg(target.as_raw_nonzero().to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null());
    let done =
        spawn::patiently(&|| false, || command.output()).map_err(|error| format!("{tool}: {}", sys::plain(&error)))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{tool}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_number_and_name() {
        let text = "root:1:2\nme:100000:65536\n1000:300000:10\nother:400000:65536\n# me:1:1\n";
        assert_eq!(ranges_of(text, 1000, Some("me")), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(ranges_of(text, 1001, None), []);
    }

    #[test]
    fn extents_of_a_map_are_read() {
        let map = "         0    1310720      65536\n     70000 9 1\n";
        assert_eq!(extents(map).collect::<Vec<_>>(), [(0, 65_536), (70_000, 1)]);
    }

    #[test]
    fn own_id_is_root_and_the_granted_follow() {
        assert_eq!(own_and(1000, &[(100_000, 65_536), (5, 2)]), [(0, 1000, 1), (1, 100_000, 65_536), (65_537, 5, 2)]);
    }
}
