//! Whether this is a place where `/` may be taken over: a container for certain, with root's file rights.

use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::CapabilitySet;

use super::lacks::{self, Lacks};
use crate::sys;

/// What an in-place run cannot do without. What it can is in [`super::lacks`].
const NEEDED: &[(&str, CapabilitySet)] = &[
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_FOWNER", CapabilitySet::FOWNER),
    ("CAP_SETGID", CapabilitySet::SETGID),
    ("CAP_SETUID", CapabilitySet::SETUID),
];

/// Files by which container runtimes mark what they make.
const MARKS: &[&str] = &[
    "/.dockerenv",
    "/run/.containerenv",
    "/run/secrets/kubernetes.io/serviceaccount",
    "/var/run/secrets/kubernetes.io/serviceaccount",
];

/// First processes of machines, which containers as a rule do not have.
const INITS: &[&str] = &["systemd", "init", "runit", "s6-svscan", "openrc-init", "launchd"];

/// Tries everything and says what was tried; the last line is what failed when the answer is no. Otherwise it is what the
/// metadata log has to make up for.
pub fn works(work: &Path, forced: bool) -> (Option<Lacks>, Vec<String>) {
    let mut tried = Vec::new();
    let works = try_all(work, forced, &mut tried).ok();
    (works, tried)
}

fn try_all(work: &Path, forced: bool, tried: &mut Vec<String>) -> Result<Lacks, ()> {
    let mut note = |name: &str, result: Result<String, String>| {
        let works = result.is_ok();
        tried.push(format!("{name}: {}", result.unwrap_or_else(|reason| reason)));
        if works { Ok(()) } else { Err(()) }
    };
    note("root's rights over files and processes", rights())?;
    match forced {
        true => note("a container that is thrown away (taken for granted, as asked)", Ok("ok".into()))?,
        false => note("a container that is thrown away", disposable())?,
    }
    note("renaming between the work directory and `/`", renames(work))?;
    let lacks = match Lacks::find(work) {
        Ok(lacks) => lacks,
        Err(error) => {
            return note("set-id bits, devices and capabilities of files", Err(sys::plain(&error)))
                .map(|()| Lacks::default());
        }
    };
    if lacks == Lacks::default() {
        return Ok(lacks);
    }
    let name = format!("in place, with a metadata log for want of {}", lacks.names().join(", "));
    match lacks::try_log(work) {
        Ok(()) => note(&name, Ok("ok".into())).map(|()| lacks),
        // mknod then fails in a step, and that is said there; bits and capabilities would be missing from layers.
        Err(_) if !lacks.set_group_id && !lacks.capabilities => Ok(Lacks::default()),
        Err(reason) => note(&name, Err(reason)).map(|()| lacks),
    }
}

fn rights() -> Result<String, String> {
    let uid = rustix::process::geteuid().as_raw();
    if uid != 0 {
        return Err(format!("the user is {uid}, not root"));
    }
    let have = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let lacking: Vec<&str> =
        NEEDED.iter().filter(|(_, needed)| !have.contains(*needed)).map(|(name, _)| *name).collect();
    match lacking.is_empty() {
        true => Ok("ok".into()),
        false => Err(format!("lacks {}", lacking.join(", "))),
    }
}

/// By what this is known to be a container, or why it may be somebody's machine.
pub fn disposable() -> Result<String, String> {
    if let Some(mark) = MARKS.iter().find(|mark| Path::new(mark).exists()) {
        return Ok(format!("`{mark}` is there: ok"));
    }
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    let first = first.trim();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let layered = root_filesystem(&mounts).is_some_and(|kind| kind.contains("overlay") || kind == "aufs");
    match layered && !first.is_empty() && !INITS.contains(&first) {
        true => Ok(format!("`/` is an overlay and process 1 is `{first}`: ok")),
        false => Err("no sign of a container: the step would take over this machine's `/`".into()),
    }
}

/// Type of what is mounted last on `/` (proc_pid_mountinfo(5): after the `-`).
fn root_filesystem(mountinfo: &str) -> Option<&str> {
    let root = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    root.split_once(" - ")?.1.split(' ').next()
}

/// Makes a directory in the work directory and moves it to `/` and back.
fn renames(work: &Path) -> Result<String, String> {
    let here = work.join(".zuwai-probe");
    let there = Path::new("/.zuwai-probe");
    // Of a process that was killed while it tried.
    let _ = (fs::remove_dir(&here), fs::remove_dir(there));
    let call = |name: &'static str| move |error: io::Error| format!("{name}: {}", sys::plain(&error));
    fs::create_dir(&here).map_err(call("mkdir in the work directory"))?;
    let moved = fs::rename(&here, there).map_err(|error| match error.kind() {
        io::ErrorKind::CrossesDevices => {
            format!(
                "rename: {}; `{}` is on another file system than `/` (a volume?)",
                sys::plain(&error),
                work.display()
            )
        }
        _ => format!("rename: {}", sys::plain(&error)),
    });
    let back = moved.and_then(|()| fs::rename(there, &here).map_err(call("rename back")));
    let removed = fs::remove_dir(&here).map_err(call("rmdir"));
    back.and(removed).map(|()| "ok".into())
}

#[cfg(test)]
mod tests {
    use super::root_filesystem;

    #[test]
    fn the_last_mount_on_root_counts() {
        let text = "22 1 0:20 / / rw shared:1 - rootfs none rw\n25 22 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                    26 25 0:22 / /proc rw - proc proc rw\n";
        assert_eq!(root_filesystem(text), Some("ext4"));
        assert_eq!(root_filesystem("30 29 0:50 / / rw - overlay overlay rw,lowerdir=/a\n"), Some("overlay"));
        assert_eq!(root_filesystem(""), None);
    }
}
