//! No thread and no process is left: a limit of the pod, or of the user.

use std::process::Command;
use std::thread;

use crate::harness::{Place, Ran, missing};
use crate::unprivileged::{build_as, cannot};

const DOCKERFILE: &str = "FROM scratch AS a\nCOPY Dockerfile /a\nFROM scratch AS b\nCOPY Dockerfile /b\n\
                          FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";

/// A build of a user who may have `limit` threads and processes, and has nothing else.
fn limited(user: u32, limit: u32) -> Ran {
    let limit = format!("--nproc={limit}:{limit}");
    build_as(user, &Place::new(DOCKERFILE), &["prlimit", &limit], &["--no-push", "context"])
}

/// A user of this test's own: the limit counts all that one has.
fn user(number: u32) -> u32 {
    1_000_000_000 + 10 * std::process::id() + number
}

fn cannot_limit() -> bool {
    cannot() || missing("prlimit")
}

/// It is said by its name, whoever meets it: never a fault of ours, never that no back-end works.
#[test]
fn a_shortage_that_stays() {
    if cannot_limit() {
        return;
    }
    thread::scope(|scope| {
        for limit in 1..=2 {
            scope.spawn(move || {
                let ran = limited(user(limit), limit);
                ran.failed(6, &["no more threads and processes", "hint: a limit on processes is reached"]);
                assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
            });
        }
    });
}

/// With fewer threads than it would have a build goes on with those that it has.
#[test]
fn just_enough() {
    if !cannot_limit() {
        limited(user(3), 4).digest();
    }
}

#[test]
fn a_shortage_that_ends() {
    if cannot_limit() {
        return;
    }
    let id = format!("--reuid={}", user(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| Command::new("setpriv").args([&id, "--clear-groups", "sleep", "3"]).status().unwrap());
        }
        thread::sleep(std::time::Duration::from_millis(500));
        limited(user(4), 5).digest();
    });
}
