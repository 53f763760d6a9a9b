//! No thread and no process is left: a limit of the pod, or of the user.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Place, missing};
use crate::unprivileged::{cannot, through_as_nobody};

/// The limits are those of one user, whom these tests share.
const DOCKERFILE: &str = "FROM scratch AS a\nCOPY Dockerfile /a\nFROM scratch AS b\nCOPY Dockerfile /b\n\
                          FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";

fn limited(place: &Place, limit: u32) -> crate::harness::Ran {
    let limit = format!("--nproc={limit}:{limit}");
    through_as_nobody(place, &["prlimit", &limit], &["--no-push", "context"])
}

#[test]
fn of_threads_and_processes() {
    if cannot() || missing("prlimit") {
        return;
    }
    // For good: it is said by its name, whoever met it. Never a fault of ours, never that no back-end works.
    for limit in 1..=2 {
        let begun = Instant::now();
        let ran = limited(&Place::new(DOCKERFILE), limit);
        ran.failed(6, &["no more threads and processes", "hint: a limit on processes is reached"]);
        assert!(begun.elapsed() < Duration::from_secs(90), "{limit}: {:?}", begun.elapsed());
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
    // With fewer threads than it would have it goes on with those that it has.
    limited(&Place::new(DOCKERFILE), 5).digest();
    // For a while: it is waited out.
    let others = (0..4).map(|_| {
        Command::new("setpriv")
            .args(["--reuid=54321", "--regid=54321", "--clear-groups", "sleep", "3"])
            .spawn()
            .unwrap()
    });
    let others: Vec<_> = others.collect();
    limited(&Place::new(DOCKERFILE), 5).digest();
    for mut other in others {
        other.wait().unwrap();
    }
}
