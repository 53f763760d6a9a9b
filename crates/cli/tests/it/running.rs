//! RUN steps for real, on a busybox of this machine.

use crate::harness::{cannot_run, everything_below, with_busybox};

#[test]
fn a_failing_run() {
    if cannot_run() {
        return;
    }
    let table = [
        ("RUN echo before; echo aside >&2; exit 7", 7, "RUN exited with status 7"),
        ("RUN kill -TERM $$", 143, "RUN was killed by signal 15: exit code 143"),
        ("RUN kill -KILL $$", 137, "out of memory, perhaps"),
        ("RUN no-such-program", 127, "no-such-program: not found"),
        // Nothing ran that could have a status: kaniko has 1 for that.
        ("RUN [\"/no/such\"]", 1, "could not start `/no/such`"),
    ];
    for (instruction, code, part) in table {
        let place = with_busybox(&format!("{instruction}\nRUN echo not-reached\n"));
        let ran = place.build(&["--oci-layout-path=out"]);
        ran.failed(4, &[part, "Dockerfile:5", instruction]);
        assert!(!ran.stderr.contains("not-reached\n"), "{}", ran.stderr);
        assert!(!place.path("out").exists(), "nothing is written");
        place.assert_clean();
        // Under the name of kaniko's program the RUN's own code.
        let ran = place.executor(&["--context=dir://context", "--no-push"]);
        ran.failed(code, &[part]);
        place.assert_clean();
    }
    let ran = with_busybox("RUN echo before; echo aside >&2; exit 7\n").build(&["--no-push"]);
    ran.failed(4, &[" before\n", " aside\n"]);
}

#[test]
fn a_build_from_nothing_to_files() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(
        "ARG GREETING=none\nENV WHO=world\nWORKDIR /made\n\
         RUN echo \"$GREETING $WHO\" > greeting && ln -s greeting link && mkdir -p d && chmod 1777 d\n\
         RUN rm /bin/sh && [ \"$(id -u)\" = 0 ]\n\
         FROM scratch\nCOPY --from=0 /made /made\n",
    );
    place.build(&["--build-arg=GREETING=hello", "--output=files"]);
    assert_eq!(place.read("files/made/greeting"), "hello world\n");
    assert_eq!(std::fs::read_link(place.path("files/made/link")).unwrap().to_str(), Some("greeting"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place.path("files/made/d")).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o1777);
    place.assert_clean();
}

#[test]
fn a_secret_is_nowhere_afterwards() {
    if cannot_run() {
        return;
    }
    const SECRET: &str = "hunter2-correct-horse-battery";
    let place = with_busybox(
        "RUN --mount=type=secret,id=file --mount=type=secret,id=var,env=TOKEN \
         [ \"$(cat /run/secrets/file)\" = \"$TOKEN\" ] && echo they-agree > /result\n\
         RUN [ -z \"$TOKEN\" ] && [ ! -e /run/secrets/file ]\n",
    )
    .file("secret", SECRET)
    .variable("var", SECRET);
    let ran =
        place.build(&["--secret=id=file,src=secret", "--secret=id=var", "--oci-layout-path=out", "--verbosity=trace"]);
    ran.digest();
    let has = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
    assert!(!has(ran.stderr.as_bytes()) && !has(&ran.output));
    let mut found_result = false;
    for directory in ["out", "work"] {
        for (path, content) in everything_below(&place.path(directory)) {
            assert!(!has(&content), "in `{}`", path.display());
            found_result |= content.windows(10).any(|w| w == b"they-agree");
        }
    }
    assert!(found_result, "layers were looked into");
}

#[test]
fn caches_last_from_build_to_build() {
    if cannot_run() {
        return;
    }
    let place = with_busybox("RUN --mount=type=cache,target=/c,id=x echo + >> /c/count && cp /c/count /count\n");
    for want in ["+\n", "+\n+\n"] {
        let _ = std::fs::remove_dir_all(place.path("files"));
        let ran = place.build(&["--output=files"]);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        assert_eq!(place.read("files/count"), want);
    }
}

/// The tester's variables, of which the program has some, are not the step's.
#[test]
fn the_builders_environment_stays_outside() {
    if cannot_run() {
        return;
    }
    let place = with_busybox("RUN env > /env\n").variable("OUR_OWN", "1").variable("DOCKER_CONFIG", "/nothing");
    let ran = place.build(&["--output=files"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let mut names: Vec<String> =
        place.read("files/env").lines().map(|l| l.split('=').next().unwrap().to_owned()).collect();
    names.retain(|n| !matches!(n.as_str(), "PWD" | "SHLVL" | "_" | "OLDPWD"));
    names.sort();
    assert_eq!(names, ["HOME", "PATH"]);
}
