//! Any uid and no capability: what needs no RUN is built all the same, and comes out the same.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::harness::{Place, Ran, ZUWAI, missing, skipped};

const DOCKERFILE: &str = "FROM scratch AS a\nCOPY --chown=1:2 --chmod=4711 f /owned/f\nCOPY --chmod=0 f /secret/f\n\
                          FROM scratch\nCOPY --from=a / /\nWORKDIR /w\nUSER 9\nCMD [\"x\"]\n";

/// The program as user 54321, with everything in `place` that user's.
fn build_as_nobody(place: &Place, args: &[&str]) -> Ran {
    build_as(54321, place, &[], &[args, &["context"]].concat())
}

/// As [`build_as_nobody`], as another user, and started by another program: `env`, `prlimit`.
pub fn build_as(user: u32, place: &Place, starter: &[&str], args: &[&str]) -> Ran {
    let program = place.text("zuwai");
    std::fs::copy(ZUWAI, &program).unwrap();
    let given = Command::new("chown").args(["-R", &format!("{user}:{user}"), &place.text("")]).status().unwrap();
    assert!(given.success());
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let changed = [&*uid, &*gid, "--clear-groups", "--no-new-privs", "--bounding-set=-all"];
    place.start("setpriv", &[&changed[..], starter, &[&program, "build"], args].concat()).finish(b"")
}

pub fn cannot() -> bool {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can become somebody else");
        return true;
    }
    missing("setpriv")
}

fn place() -> Place {
    Place::new(DOCKERFILE).file("context/f", "content").variable("SOURCE_DATE_EPOCH", "1700000000")
}

#[test]
fn the_image_is_the_one_that_root_makes() {
    if cannot() {
        return;
    }
    let by_root = place().build(&["--no-push", "--reproducible"]).digest();
    let place = place();
    let ran = build_as_nobody(&place, &["--reproducible", "--oci-layout-path=out", "--tar-path=image.tar"]);
    assert_eq!(ran.digest(), by_root);
    place.assert_clean();
}

#[test]
fn files_are_the_users_own() {
    if cannot() {
        return;
    }
    let place = place();
    let ran = build_as_nobody(&place, &["--output=files"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let file = std::fs::metadata(place.path("files/owned/f")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), 54321);
    assert_eq!(file.permissions().mode() & 0o777, 0o711);
    place.assert_clean();
}

/// Issue 8, kind: contexts. A directory that its owner has closed is not opened for the owner.
#[test]
fn a_context_stays_as_it_is() {
    if cannot() {
        return;
    }
    let place = Place::new("FROM scratch\nCOPY . /\n").file("context/d/f", "content");
    std::fs::set_permissions(place.path("context/d"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let ran = build_as_nobody(&place, &["--no-push"]);
    ran.failed(3, &["could not copy from the build context", "could not read the directory `/d`", "Permission denied"]);
    assert_eq!(std::fs::metadata(place.path("context/d")).unwrap().permissions().mode() & 0o777, 0);
    place.assert_clean();
}

#[test]
fn a_run_says_what_would_be_needed() {
    if cannot() {
        return;
    }
    let place = place().file("context/Dockerfile", "FROM scratch\nCOPY f /\nRUN x\n");
    let ran = build_as_nobody(&place, &["--no-push"]);
    if ran.code() == 4 {
        return skipped("namespaces work here for everybody");
    }
    ran.failed(6, &["no isolation back-end works here", "namespace:", "inplace:", "Dockerfile:3"]);
    place.assert_clean();
}
