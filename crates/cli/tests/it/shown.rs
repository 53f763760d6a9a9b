//! Flags that say what is shown, where two of them meet; and outputs that stay as they were.

use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Place, cannot_run, with_busybox};
use crate::terminal::OnTerminal;

/// Finds a warning and a step in what a build says.
#[test]
fn how_much_is_said() {
    let place = Place::new("from scratch\nCOPY Dockerfile /\n");
    let table: [(&[&str], bool, bool); 7] = [
        (&[], true, true),
        (&["--progress=tty"], true, true),
        (&["--log-format=json"], true, true),
        (&["--log-format=json", "--verbosity=warn"], true, false),
        (&["--verbosity=warn"], true, false),
        (&["--log-format=json", "--quiet"], false, false),
        (&["--progress=rawjson", "--verbosity=error"], false, false),
    ];
    for (flags, warning, step) in table {
        let ran = place.build(&[&["--no-push"], flags].concat());
        ran.digest();
        let said = |text: &str| ran.stderr.contains(text);
        assert_eq!(
            (said("ConsistentInstructionCasing"), said("COPY Dockerfile /\n") || said("COPY Dockerfile /\"")),
            (warning, step),
            "{flags:?}: {}",
            ran.stderr
        );
    }
}

/// A build that fails, or is only planned, leaves the files of the last one alone.
#[test]
fn outputs_of_the_last_build_stay() {
    for dockerfile in ["FROM scratch\nCOPY missing /\n", "FROM scratch\nCOPY Dockerfile /\n"] {
        let place = Place::new(dockerfile).file("out.tar", "old");
        for kind in ["tar", "oci", "docker"] {
            let output = format!("type={kind},dest=out.tar");
            let ran = place.build(&["--dry-run", "-o", &output]);
            assert_eq!(ran.code(), 0, "{}", ran.stderr);
            assert_eq!(place.read("out.tar"), "old", "{kind}");
            if dockerfile.contains("missing") {
                place.build(&["-o", &output]).failed(3, &["missing"]);
                assert_eq!(place.read("out.tar"), "old", "{kind}");
            }
        }
    }
}

/// Refused before anything is asked or written.
#[test]
fn outputs_that_cannot_be() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    let table: [(&[&str], &str); 7] = [
        (&["-o", "-", "-o", "type=oci,dest=-"], "only one output can go to standard output"),
        (&["--no-push", "--output=type=registry"], "no `name`"),
        (&["--output=type=oci,dest="], "no `dest`"),
        (&["--output="], "the image would go nowhere"),
        (&["--no-push", "--compression-level=10"], "gzip has levels 0 to 9"),
        (&["--no-push", "--compression=zstd", "--compression-level=23"], "zstd has levels 0 to 22"),
        (&["--no-push", "--azure-container-registry-config=f"], "not supported yet"),
    ];
    for (flags, part) in table {
        place.build(flags).failed(2, &[part]);
    }
}

#[test]
fn files_go_to_several_places() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    let ran = place.build(&["-o", "one", "-o", "type=tar,dest=two.tar", "-o", "three"]);
    assert_eq!(ran.code(), 0);
    assert!(place.path("one/Dockerfile").exists() && place.path("three/Dockerfile").exists());
    assert!(std::fs::metadata(place.path("two.tar")).unwrap().len() > 512);
}

/// `--insecure` counts for a registry that only an output names.
#[test]
fn an_output_is_a_destination() {
    let Some(registry) = crate::harness::registry() else { return };
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    let output = format!("--output=type=registry,\"name={0}/app:1,{0}/app:2\"", registry.host());
    place.build(&["--insecure", &output]).digest();
    assert_eq!(registry.count("PUT", "/manifests/"), 2);
}

/// Each line of standard error as JSON; where one is none, the test fails.
#[track_caller]
fn json_lines(stderr: &str) -> Vec<Value> {
    stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Dockerfile, flags, status, and parts of the fields of the last line.
type JsonCase = (&'static str, &'static [&'static str], i32, &'static [(&'static str, &'static str)]);

/// Whatever ends a build, and whatever is said beside it.
#[test]
fn json_logs_are_json_to_the_last_line() {
    let table: &[JsonCase] = &[
        ("FROM scratch\nCOPY missing /\n", &["--no-push"], 3, &[("message", "`missing`"), ("file", "Dockerfile")]),
        ("FROM scratch\nCOPPY a /\n", &["--no-push"], 3, &[("message", "`COPPY`"), ("hint", "COPY")]),
        ("FROM scratch\n", &[], 2, &[("message", "nowhere"), ("hint", "--push")]),
        ("FROM scratch\n", &["--no-push", "--label", "=x"], 2, &[("message", "--label")]),
        ("FROM scratch\n", &["--no-push", "--load"], 2, &[("message", "--load"), ("hint", "docker load")]),
        ("FROM scratch\n", &["--no-push", "--work-dir=context/Dockerfile/x"], 6, &[("message", "work directory")]),
        ("FROM 127.0.0.1:1/base\n", &["--no-push", "--image-download-retry=0"], 5, &[("message", "127.0.0.1:1")]),
        ("from scratch\nCOPY missing /\n", &["--check", "--build-arg=X=1"], 3, &[]),
    ];
    for (dockerfile, flags, status, fields) in table {
        for format in ["--progress=rawjson", "--log-format=json"] {
            let place = Place::new(dockerfile);
            let ran = place.build(&[*flags, &[format, "--rm"]].concat());
            assert_eq!(ran.code(), *status, "{}", ran.stderr);
            let lines = json_lines(&ran.stderr);
            let Some((name, _)) = fields.first() else { continue };
            let last = lines.last().unwrap();
            assert_eq!(
                (&last["event"], &last["status"]),
                (&"error".into(), &(*status).into()),
                "{name}: {}",
                ran.stderr
            );
            for (name, part) in *fields {
                let text = last[*name].as_str().unwrap_or_else(|| panic!("no {name}: {last}"));
                assert!(text.contains(part), "{name}: {last}");
            }
        }
    }
    let place = Place::new("FROM scratch\nARG VERSION\n");
    let ran = place.build(&["--no-push", "--progress=rawjson", "--rm", "--build-arg=VERSON=1"]);
    ran.digest();
    let lines = json_lines(&ran.stderr);
    for event in ["note", "warning", "planned", "ended"] {
        assert!(lines.iter().any(|line| line["event"] == event), "no {event}: {}", ran.stderr);
    }
}

#[test]
fn json_logs_of_a_run_that_fails() {
    if cannot_run() {
        return;
    }
    let place = with_busybox("RUN printf 'said \\033[31mred\\033[0m\\n'; exit 3\n");
    let ran = place.build(&["--no-push", "--progress=rawjson"]);
    assert_eq!(ran.code(), 4, "{}", ran.stderr);
    let lines = json_lines(&ran.stderr);
    let done = lines.iter().find(|line| line["event"] == "step done" && line["outcome"] == "failed");
    assert!(done.is_some_and(|done| done["failed"] == true), "{}", ran.stderr);
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["output"], &last["line"]), (&"error".into(), &"said red".into(), &5.into()));
    assert!(last["step"].as_str().unwrap().contains("RUN printf"));
}

/// Nothing that a step, a name or a Dockerfile holds reaches a terminal as an order.
#[test]
fn control_sequences_stay_away_from_terminals() {
    if cannot_run() {
        return;
    }
    let printed = r"FAILED \033[2J\033[H\033]0;title\007 \302\2332J\033[32mok\033[0m 50%%\r100%%\b\b\n";
    let place = with_busybox(&format!("RUN printf '{printed}'; printf '{printed}' >&2; exit 3\n"));
    for flags in [&["--progress=plain"][..], &["--progress=tty"], &[]] {
        let terminal = OnTerminal::start(&place, &[&["build", "--no-push"], flags, &["context"]].concat());
        let (_, screen) = terminal.end();
        for order in ["\u{1b}[2J", "\u{1b}[H", "\u{1b}]", "\u{7}", "\u{9b}", "\u{8}"] {
            assert!(!screen.contains(order), "{flags:?}: {order:?} is in {screen:?}");
        }
        assert!(screen.contains("100%ED") && !screen.contains(" [32m"), "{flags:?}: {screen:?}");
    }
    let ran = place.build(&["--no-push"]);
    ran.failed(4, &["\n  100%ED"]);
    let is_order = |c: char| c.is_control() && c != '\n';
    assert!(!ran.stderr.contains(is_order), "{:?}", ran.stderr);
    // A file's name, a label, a platform, an argument: whatever finds its way into a message.
    let hostile = "x\u{1b}[2J\u{9b}2J\u{7}";
    for (dockerfile, flags) in [
        (format!("FROM scratch\nCOPY {hostile} /\n"), vec![]),
        (format!("FROM {hostile}\n"), vec![]),
        (format!("{hostile} scratch\n"), vec![]),
        (format!("FROM scratch\nRUN {hostile}\n"), vec![]),
        ("FROM scratch\n".to_owned(), vec![format!("--target={hostile}")]),
        ("FROM scratch\n".to_owned(), vec![format!("--platform={hostile}")]),
        ("FROM scratch\n".to_owned(), vec![format!("--file={hostile}")]),
        (format!("FROM scratch AS {hostile}\nCOPY Dockerfile /\n"), vec!["--dry-run".to_owned()]),
    ] {
        let place = Place::new(&dockerfile);
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--no-push"]).collect();
        let ran = place.build(&flags);
        assert_ne!((ran.code(), ran.stderr.is_empty()), (0, false), "{dockerfile:?}");
        let said = ran.stderr.clone() + ran.stdout();
        assert!(!said.contains(is_order), "{dockerfile:?} {flags:?}: {said:?}");
    }
}

/// A title that is wider than the screen leaves room for what the step prints.
#[test]
fn long_titles_leave_room_for_output() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(&format!("RUN echo {} >/dev/null; echo seen; sleep 2\n", "x".repeat(300)));
    let terminal = OnTerminal::start(&place, &["build", "--no-push", "context"]);
    terminal.wait_for("│ seen");
    let (status, screen) = terminal.end();
    assert!(status.success(), "{screen}");
}

#[test]
fn only_one_step_is_to_blame() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(
        "RUN echo innocent; busybox touch /a; busybox sleep 60\nFROM scratch AS b\nCOPY busybox /bin/busybox\n\
         COPY busybox /bin/sh\nRUN /bin/busybox sleep 1; echo oops >&2; exit 5\nFROM scratch\nCOPY --from=0 /a /a\n\
         COPY --from=b /bin/sh /b\n",
    );
    let ran = place.build(&["--no-push", "--jobs=2"]);
    ran.failed(4, &["CANCELED after", "FAILED after", "oops", "failed after"]);
    assert_eq!(ran.stderr.matches("FAILED").count(), 1, "{}", ran.stderr);
    let (_, below) = ran.stderr.split_once("error: ").unwrap();
    assert!(!below.contains("innocent"), "{below}");
    let terminal = OnTerminal::start(&place, &["build", "--no-push", "--jobs=2", "context"]);
    let (_, screen) = terminal.end();
    assert_eq!((screen.matches('✗').count(), screen.matches("CANCELED").count()), (1, 1), "{screen}");
}

/// What is said of a build comes before its files are removed: as long as nobody reads the error, they are there.
#[test]
fn the_error_comes_before_the_cleaning() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    let target = format!("--target={}", "x".repeat(10_000));
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the descriptor is open; the call changes nothing but the pipe's size.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(size, 4096, "{}", std::io::Error::last_os_error());
    let mut child = std::process::Command::new(crate::harness::ZUWAI)
        .args(["build", "--no-push", "--quiet", &target, "context"])
        .current_dir(place.path("."))
        .env("ZUWAI_DIR", place.path("work"))
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let runs: Vec<_> = std::fs::read_dir(place.path("work/runs")).unwrap().map(|run| run.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "removed before all was said");
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    assert!(said.contains("could not be found"), "{said}");
    place.assert_clean();
}
