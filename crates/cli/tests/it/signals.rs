//! Signals that come before there is anything to do, and those that somebody does not want.

use std::time::{Duration, Instant};

use crate::harness::{Place, ZUWAI};

const HUP: i32 = 1;
const TERM: i32 = 15;

/// Reading standard input, which says nothing and does not end.
#[test]
fn standard_input_that_does_not_come() {
    for args in [&["build", "--no-push", "-"][..], &["build", "--no-push", "-f", "-", "context"]] {
        let place = Place::new("FROM scratch\n");
        let mut running = place.start(ZUWAI, args);
        place.wait_for("work/runs.lock");
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        running.signal(TERM);
        running.wait();
        assert!(begun.elapsed() < Duration::from_secs(10), "{args:?}: {:?}", begun.elapsed());
        assert_eq!(running.finish(b"").failed(130, &["interrupted"]).code(), 130);
        place.assert_clean();
    }
}

/// `nohup zuwai build …`
#[test]
fn a_signal_that_is_ignored_from_the_start() {
    let place = Place::new("");
    let running = place.start("sh", &["-c", &format!("trap '' HUP; exec {ZUWAI} build --no-push -")]);
    place.wait_for("work/runs.lock");
    std::thread::sleep(Duration::from_millis(300));
    running.signal(HUP);
    running.finish(b"FROM scratch\nLABEL a=b\n").digest();
}
