//! Helpers of the integration tests.
#![allow(dead_code, reason = "every test binary uses another part")]

pub mod tarball;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
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
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program)
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", directory.path())
        .current_dir("/")
        .uid(PLAIN_UID)
        .gid(PLAIN_UID)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the child ran no test named {name}: {text}");
}
