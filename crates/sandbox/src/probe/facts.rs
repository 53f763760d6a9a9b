//! What `doctor` says about a place besides what works: nothing is decided by it.

use std::fs;
use std::path::Path;

use rustix::thread::CapabilitySet;

/// Names of capabilities in the order of their numbers (`linux/capability.h`).
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

pub fn facts(work: &Path) -> Vec<(&'static str, String)> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    vec![
        ("kernel", rustix::system::uname().release().to_string_lossy().into_owned()),
        ("user", format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())),
        ("capabilities", capabilities()),
        ("seccomp", seccomp(field(&status, "Seccomp")).to_owned()),
        ("no_new_privs", if field(&status, "NoNewPrivs") == "1" { "set" } else { "not set" }.to_owned()),
        ("user ids", ids(&map)),
        ("file system of `/`", filesystem(Path::new("/"))),
        ("file system of the work directory", filesystem(work)),
        ("Landlock", landlock()),
    ]
}

/// A field of proc_pid_status(5).
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

fn seccomp(mode: &str) -> &'static str {
    match mode {
        "0" => "no filter",
        "1" => "strict",
        "2" => "filtered",
        _ => "not known",
    }
}

fn capabilities() -> String {
    let have = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective).bits();
    let names: Vec<&str> =
        CAPABILITIES.iter().enumerate().filter(|(bit, _)| have & (1 << bit) != 0).map(|(_, name)| *name).collect();
    match names.len() {
        0 => "none".to_owned(),
        all if all == CAPABILITIES.len() => "all".to_owned(),
        _ => names.join(" "),
    }
}

fn ids(map: &str) -> String {
    let extents: Vec<String> =
        map.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect();
    match extents.join(", ") {
        all if all == "0 0 4294967295" => "all (no user namespace)".to_owned(),
        some => format!("{some} (inside, outside, count)"),
    }
}

/// Names of the usual types by their magic numbers (`linux/magic.h`).
fn filesystem(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(path) else { return "not known".to_owned() };
    let magic = stat.f_type as u32;
    let name = match magic {
        0x794c_7630 => "overlay",
        0x0102_1994 => "tmpfs",
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        _ => return format!("type {magic:#x}"),
    };
    name.to_owned()
}

/// The version of the interface (`landlock_create_ruleset` with LANDLOCK_CREATE_RULESET_VERSION).
fn landlock() -> String {
    match crate::landlock::version() {
        Ok(version) => format!("version {version}"),
        Err(error) => crate::sys::plain(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_status_are_found_by_their_whole_name() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Seccomp"), "2");
        assert_eq!(field(status, "NoNewPrivs"), "");
    }

    #[test]
    fn a_whole_map_is_no_user_namespace() {
        assert_eq!(ids("         0          0 4294967295\n"), "all (no user namespace)");
        assert_eq!(ids("0 1000 1\n1 100000 65536\n"), "0 1000 1, 1 100000 65536 (inside, outside, count)");
    }
}
