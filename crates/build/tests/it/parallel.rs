//! Stages beside each other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use sandbox::Exit;
use zuwai_build::BuildError;

use crate::harness::{Base, Bench, Call, lock};

const TWO: &str = "FROM scratch AS a\nRUN meet\nFROM scratch AS b\nRUN meet\n\
                   FROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n";

/// Returns 0 when `count` runs are here at a time, 1 when the others did not come.
fn meet(count: usize) -> impl Fn(&mut Call<'_>) -> Exit + Send + Sync {
    let here = (Mutex::new(0), Condvar::new());
    move |_| {
        let mut arrived = lock(&here.0);
        *arrived += 1;
        here.1.notify_all();
        let (arrived, _) = here.1.wait_timeout_while(arrived, Duration::from_secs(20), |n| *n < count).unwrap();
        Exit::Code(i32::from(*arrived < count))
    }
}

#[test]
fn independent_stages_run_at_a_time() {
    let bench = Bench::new(TWO).on("meet", meet(2));
    bench.build();
    assert_eq!(bench.sandbox.most.load(Ordering::SeqCst), 2);
}

/// Jobs, a back-end that can run one process at a time; nothing may overlap.
#[test]
fn one_at_a_time_where_it_has_to_be() {
    for (jobs, one_at_a_time) in [(1, false), (4, true), (0, false)] {
        let mut bench = Bench::new(TWO).on("meet", |_| {
            std::thread::sleep(Duration::from_millis(30));
            Exit::Code(0)
        });
        (bench.request.control.jobs, bench.request.control.processes) = (jobs, jobs);
        bench.sandbox.one_at_a_time.store(one_at_a_time, Ordering::Relaxed);
        bench.build();
        assert_eq!(bench.sandbox.most.load(Ordering::SeqCst), 1, "jobs {jobs}, one at a time {one_at_a_time}");
        assert_eq!(lock(&bench.sandbox.ran).len(), 2);
    }
}

#[test]
fn a_failure_stops_the_other_stages() {
    let both = Arc::new(Barrier::new(2));
    let (one, other) = (both.clone(), both);
    let stopped = Arc::new(Mutex::new(None));
    let noted = stopped.clone();
    let dockerfile = "FROM scratch AS a\nRUN long\nRUN never\nFROM scratch AS b\nRUN fail\n\
                      FROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n";
    let bench = Bench::new(dockerfile)
        .on("long", move |call| {
            one.wait();
            let begun = Instant::now();
            while !(call.cancelled)() && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            *lock(&noted) = Some((call.cancelled)());
            Exit::Code(0)
        })
        .on("fail", move |_| {
            other.wait();
            Exit::Code(3)
        });
    match bench.try_build().err() {
        Some(BuildError::Run { exit, .. }) => assert_eq!(exit, Exit::Code(3), "the cause, not what followed from it"),
        other => panic!("{other:?}"),
    }
    assert_eq!(*lock(&stopped), Some(true));
    assert_eq!(lock(&bench.sandbox.ran).len(), 2, "`never` did not run");
    assert!(!bench.exported());
    for outcome in ["Failed", "Cancelled"] {
        let ended = bench.events.having(&format!("outcome: {outcome}"));
        assert_eq!(ended.len(), 1, "one is to blame, the other was stopped: {:?}", lock(&bench.events.lines));
    }
}

/// Whatever a step says that an interruption stopped, it is not to blame: a terminal gives Ctrl-C to its program as well.
#[test]
fn an_interruption_fails_no_step() {
    for exit in [0, 130] {
        let bench = Bench::new(TWO);
        let (one, other) = (bench.request.control.cancelled.clone(), bench.request.control.cancelled.clone());
        let bench = bench.on("meet", move |call| {
            one.store(true, Ordering::Relaxed);
            while !(call.cancelled)() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Exit::Code(exit)
        });
        assert!(matches!(bench.try_build().err(), Some(BuildError::Cancelled)));
        assert!(other.load(Ordering::Relaxed));
        assert!(!bench.events.having("outcome: Cancelled").is_empty());
        assert!(bench.events.having("outcome: Failed").is_empty(), "{:?}", lock(&bench.events.lines));
    }
}

/// Everything that may take long says when it begins and when it is done.
#[test]
fn no_part_of_a_build_is_silent() {
    let bench = Bench::new("FROM base\nCOPY f /f\n").image("base", Base::new().layer(&[("a", "b")])).file("f", "x");
    bench.build();
    let lines = lock(&bench.events.lines).clone();
    let at = |name: &str| {
        let found = lines.iter().position(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name}: {lines:?}"))
    };
    let in_order =
        ["Planning", "Planned", "StageStarted", "StagePrepared", "StepStarted", "StepCommitting", "StepDone"];
    let then = ["LayerStarted", "Layer {", "Exporting", "Exported"];
    assert!(in_order.map(at).is_sorted() && then.map(at).is_sorted(), "{lines:?}");
    for timed in ["Planned", "StagePrepared", "StepDone", "Layer {", "Exported"] {
        assert!(lines[at(timed)].contains("elapsed: "), "{}", lines[at(timed)]);
    }
}

/// `--network` of the build is for those RUNs that say nothing of it.
#[test]
fn the_network_of_steps_that_say_nothing() {
    use dockerfile::Network as Asked;
    use sandbox::Network;
    for (asked, flag, want) in [
        (Asked::Default, "", Network::Host),
        (Asked::Host, "", Network::Host),
        (Asked::None, "", Network::None),
        (Asked::None, "--network=default ", Network::None),
        (Asked::None, "--network=host ", Network::Host),
        (Asked::Default, "--network=none ", Network::None),
    ] {
        let mut bench = Bench::new(&format!("FROM scratch\nRUN {flag}nothing\n"));
        bench.request.spec.network = asked;
        bench.build();
        assert_eq!(bench.sandbox.only().0.network, want, "{asked:?}, {flag}");
    }
}

/// Our bug, and it must show as one instead of hanging the build: with one job the panic also holds the only permit.
#[test]
fn a_panic_in_one_stage_leaves_nobody_waiting() {
    for jobs in [1, 4] {
        let mut bench = Bench::new("FROM scratch AS a\nRUN panic\nFROM scratch\nRUN write /x 1\nCOPY --from=a / /a\n")
            .on("panic", |_| panic!("a fault of ours, wanted by this test"));
        (bench.request.control.jobs, bench.request.control.processes) = (jobs, jobs);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.try_build().is_ok()));
        assert!(ended.is_err(), "jobs {jobs}: the panic goes on");
        assert!(!bench.exported());
    }
}

#[test]
fn a_diamond_of_stages() {
    let dockerfile = "FROM scratch AS base\nRUN write /base 1\n\
                      FROM base AS left\nRUN write /left 2\nFROM base AS right\nRUN write /right 3\n\
                      FROM left\nCOPY --from=right /right /\nCOPY --from=base /base /again\n";
    for jobs in [1, 2, 8] {
        let mut bench = Bench::new(dockerfile);
        (bench.request.control.jobs, bench.request.control.processes) = (jobs, jobs);
        let outcome = bench.build();
        for (path, content) in [("base", "1"), ("left", "2"), ("right", "3"), ("again", "1")] {
            assert_eq!(outcome.content(path).as_deref(), Some(content), "{path} with {jobs} jobs");
        }
    }
}

#[test]
fn many_stages_with_one_job() {
    let mut dockerfile: String = (0..40).map(|i| format!("FROM scratch AS s{i}\nRUN write /f {i}\n")).collect();
    dockerfile += "FROM scratch\n";
    for i in (0..40).rev() {
        dockerfile += &format!("COPY --from=s{i} /f /f{i}\n");
    }
    let mut bench = Bench::new(&dockerfile);
    (bench.request.control.jobs, bench.request.control.processes) = (1, 1);
    let outcome = bench.build();
    assert_eq!(outcome.layers.len(), 40);
    assert_eq!(outcome.content("f17").as_deref(), Some("17"));
}

/// The files of a base that several stages stand on are made once and copied, and the last stage has them themselves.
#[test]
fn a_base_is_unpacked_once() {
    let mut dockerfile: String = (0..5).map(|i| format!("FROM base AS s{i}\nRUN write /f {i}\n")).collect();
    dockerfile += "FROM base\n";
    for i in 0..5 {
        dockerfile += &format!("COPY --from=s{i} /f /f{i}\nCOPY --from=s{i} /a /a{i}\n");
    }
    for jobs in [1, 4] {
        let mut bench = Bench::new(&dockerfile).image("base", Base::new().layer(&[("a", "b")]));
        (bench.request.control.jobs, bench.request.control.processes) = (jobs, jobs);
        let outcome = bench.build();
        for i in 0..5 {
            assert_eq!(outcome.content(&format!("f{i}")), Some(i.to_string()));
            assert_eq!(outcome.content(&format!("a{i}")).as_deref(), Some("b"));
        }
        let started = bench.events.having("StageStarted");
        let unpacked = started.iter().filter(|line| line.contains("Unpack")).count();
        assert_eq!(unpacked, 1, "{jobs} jobs");
        let copied = started.len() - unpacked;
        assert!(
            (5..=6).contains(&copied),
            "{copied} copies: one less than stages, or as many where the last came too early"
        );
    }
}
