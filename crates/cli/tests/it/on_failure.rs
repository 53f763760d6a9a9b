//! `--on-failure`, and what a terminal shows of a failure.

use testkit::FakeRegistry;

use crate::harness::{Place, cannot_run, skipped, with_busybox};
use crate::terminal::OnTerminal;

const FAILING: &str =
    "ENV A=so-far\nWORKDIR /here\nRUN echo kept > /kept\nRUN echo left > left; echo said; exit 3\nCMD [\"later\"]\n";

#[test]
fn files_that_are_kept() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(FAILING);
    let ran = place.build(&["--no-push", "--on-failure=keep"]);
    ran.failed(4, &["RUN exited with status 3", "note: the files of the failed step are kept in `"]);
    let (_, path) = ran.stderr.split_once("are kept in `").unwrap();
    let path = std::path::Path::new(path.split('`').next().unwrap());
    assert!(path.starts_with(place.path("work").canonicalize().unwrap()), "{}", path.display());
    assert_eq!(std::fs::read_to_string(path.join("here/left")).unwrap(), "left\n");
    assert_eq!(std::fs::read_to_string(path.join("kept")).unwrap(), "kept\n");
    assert!(path.join("bin/busybox").exists());
    place.assert_clean();
    // A build that succeeds keeps nothing, and neither does one that fails elsewhere.
    let fine = with_busybox("RUN true\n");
    fine.build(&["--no-push", "--on-failure=keep"]).digest();
    assert!(!fine.path("work/failed").exists());
    let elsewhere = with_busybox("COPY nothing /\n");
    elsewhere.build(&["--no-push", "--on-failure=keep"]).failed(3, &["`nothing`"]);
    assert!(!elsewhere.path("work/failed").exists());
}

#[test]
fn files_that_are_exported() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(FAILING).file("secret", "hush");
    let ran = place.build(&["--no-push", "--on-failure=export=out"]);
    ran.failed(4, &["the files of the failed step are in `out`"]);
    assert_eq!(place.read("out/here/left"), "left\n");
    place.build(&["--no-push", "--quiet", "--on-failure=export=out.tar"]).failed(4, &["are in `out.tar`"]);
    let listed = std::process::Command::new("tar").arg("-tf").arg(place.path("out.tar")).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    assert!(names.lines().any(|name| name.ends_with("here/left")), "{names}");
    // A program that could not even be started failed as well; and what cannot be written is a warning.
    let place = with_busybox("RUN [\"/no/such\"]\n").file("taken", "");
    place.build(&["--no-push", "--on-failure=export=out"]).failed(4, &["could not start", "are in `out`"]);
    let ran = place.build(&["--no-push", "--on-failure=export=taken/out"]);
    ran.failed(4, &["warning: could not write files to `taken/out`", "could not start `/no/such`"]);
    place.assert_clean();
}

#[test]
fn a_failed_state_that_is_pushed() {
    if cannot_run() {
        return;
    }
    let registry = FakeRegistry::start();
    let insecure = format!("--insecure-registry={}", registry.host());
    let reference = format!("{}/failed:1", registry.host());
    let place = with_busybox(FAILING);
    let ran = place.build(&["--no-push", &insecure, &format!("--on-failure=push={reference}")]);
    ran.failed(4, &["the failed step is pushed as `", &reference]);
    place.assert_clean();
    let again = Place::new(&format!("FROM {reference}\nRUN [ \"$A$(pwd)$(cat left)\" = so-far/hereleft ]\n"));
    again.build(&[&insecure, "--no-push"]).digest();
    let ran = again.build(&[&insecure, "--oci-layout-path=out"]);
    ran.digest();
    let configs: Vec<String> = crate::harness::everything_below(&again.path("out"))
        .into_iter()
        .filter_map(|(_, bytes)| String::from_utf8(bytes).ok().filter(|text| text.contains("so-far")))
        .collect();
    assert!(configs.iter().any(|text| text.contains("exited with status 3") && !text.contains("later")), "{configs:?}");
}

/// The back-ends that work here, but for `inplace`: that would put the rootfs into the place of the tester's own `/` for as long as
/// the shell is open.
fn back_ends() -> Vec<String> {
    let report: serde_json::Value = serde_json::from_slice(&Place::new("").run(&["doctor", "--json"]).output).unwrap();
    let works = |finding: &&serde_json::Value| finding["works"] == true;
    let name = |finding: &serde_json::Value| finding["backend"].as_str().unwrap().to_owned();
    report["findings"].as_array().unwrap().iter().filter(works).map(name).filter(|name| name != "inplace").collect()
}

#[test]
fn a_shell_in_the_failed_step() {
    if cannot_run() {
        return;
    }
    for back_end in back_ends() {
        let place = with_busybox(
            "COPY passwd /etc/passwd\nENV A=so-far\nWORKDIR /here\nRUN chmod 777 .\nUSER u\n\
             RUN --mount=type=secret,id=s,uid=1000 --mount=type=tmpfs,target=/t echo left > left; echo said; exit 3\n",
        )
        .file("context/passwd", "u:x:1000:1001::/home/u:/bin/sh\n")
        .file("secret", "hush");
        let isolation = format!("--isolation={back_end}");
        let args = ["build", "--no-push", &isolation, "--secret=id=s,src=secret", "--on-failure=shell", "context"];
        let mut terminal = OnTerminal::start(&place, &args);
        terminal.wait_for("`exit` ends it and the build");
        terminal.wait_for("$ ");
        terminal.keys("echo $(id -u):$A:$(pwd):$(cat left):$(cat /run/secrets/s):$(wc -c < /run/secrets/s):$TERM\n");
        terminal.wait_for("1000:so-far:/here:left:hush:4:xterm\r\n");
        terminal.keys("[ -t 0 ] && [ -t 1 ] && [ -d /t ] && echo mounted-a$((1+1))gain\n");
        terminal.wait_for("mounted-a2gain\r\n");
        // The step has the terminal for itself: keys are signals.
        terminal.keys("sleep 1000\n");
        std::thread::sleep(std::time::Duration::from_millis(500));
        terminal.keys("\u{3}");
        terminal.keys("echo in$((1+1))terrupted\n");
        terminal.wait_for("in2terrupted\r\n");
        terminal.keys("exit 0\n");
        let (status, screen) = terminal.end();
        assert_eq!(status.code(), Some(4), "{back_end}: {screen}");
        for part in ["RUN exited with status 3 in step [stage-0 6/6]", "said", "the last lines of its output:"] {
            assert!(screen.contains(part), "{back_end}: `{part}` is not in\n{screen}");
        }
        place.assert_clean();
    }
}

#[test]
fn no_shell_without_a_terminal() {
    let place = Place::new("FROM scratch\nCOPY Dockerfile /\n");
    place.build(&["--no-push", "--on-failure=shell"]).failed(2, &["are no terminal", "hint: `keep`"]);
    for word in ["bash", "keep=x", "export", "export=", "push", "push=UPPER"] {
        place.build(&["--no-push", &format!("--on-failure={word}")]).failed(2, &["`--on-failure"]);
    }
}

/// On a terminal the output of a failed step is shown once, as everywhere.
#[test]
fn a_failure_on_a_terminal() {
    if cannot_run() {
        return;
    }
    if back_ends().is_empty() {
        return skipped("no back-end");
    }
    let place = with_busybox("LABEL a=$B\nRUN echo ab$((1+1))out; exit 3\n");
    let terminal = OnTerminal::start(&place, &["build", "--no-push", "context"]);
    let (status, screen) = terminal.end();
    assert_eq!(status.code(), Some(4), "{screen}");
    assert!(!screen.contains("the last lines of its output"), "{screen}");
    let (_, end) = screen.split_once('✗').unwrap_or_else(|| panic!("no mark in\n{screen}"));
    assert_eq!(end.matches("ab2out").count(), 1, "{screen}");
    assert!(end.contains("RUN exited with status 3") && end.contains("in step [stage-0 3/3]"), "{screen}");
    assert!(screen.contains("UndefinedVar"), "{screen}");
}
