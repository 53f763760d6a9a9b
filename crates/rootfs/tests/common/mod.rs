//! Helpers of the integration tests.
#![allow(dead_code, reason = "every test binary uses another part")]

pub mod tarball;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const CHILD: &str = "ROOTFS_TEST_CHILD";

/// An id that owns nothing on the machine.
pub const PLAIN_UID: u32 = 54321;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `body` in this process when it is the child made for it; else runs the test `name` again as a plain user without
/// any capability. Only root can do that; anybody else runs it directly, which is the same situation.
pub fn as_plain_user(name: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() || !is_root() {
        return body();
    }
    again(name, |program| {
        let mut command = Command::new(program);
        command.uid(PLAIN_UID).gid(PLAIN_UID);
        command
    });
}

/// The same as root without some capabilities (numbers of linux/capability.h).
pub fn as_root_without(capabilities: &'static [libc::c_ulong], name: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    if !is_root() {
        skipped("needs root");
        return;
    }
    again(name, |program| {
        let mut command = Command::new(program);
        let drop_capabilities = move || {
            for &capability in capabilities {
                // SAFETY: the call takes numbers only and changes nothing but this process's bounding set.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
        unsafe { command.pre_exec(drop_capabilities) };
        command
    });
}

/// The same as root of a user namespace that has only id 0.
pub fn as_root_of_a_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    if !Command::new("unshare").args(["-Ur", "true"]).status().is_ok_and(|status| status.success()) {
        skipped("no user namespaces here");
        return;
    }
    again(name, |program| {
        let mut command = Command::new("unshare");
        command.arg("-Ur").arg(program);
        command
    });
}

/// The same as root in a mount namespace of its own, and in a user namespace that has only id 0 when `user`.
pub fn with_own_mounts(user: bool, name: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let flags = if user { "-Urm" } else { "-m" };
    if !Command::new("unshare").args([flags, "true"]).status().is_ok_and(|status| status.success()) {
        skipped("no namespaces here");
        return;
    }
    again(name, |program| {
        let mut command = Command::new("unshare");
        command.arg(flags).arg(program);
        command
    });
}

#[expect(clippy::print_stderr, reason = "a skip is said aloud")]
pub fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Runs one test of this program in another process, in a directory that anybody may write to.
fn again(name: &str, command: impl FnOnce(&Path) -> Command) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = command(&program)
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", directory.path())
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the child ran no test named {name}: {text}");
}
