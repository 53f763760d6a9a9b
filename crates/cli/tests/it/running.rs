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

/// What it printed last stands below the error, whatever else is shown; as much as one can read.
#[test]
fn the_last_lines_of_a_failing_run() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(
        "RUN i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line-$i; done; \\\n  printf '\\033[31mred\\033[0m\\rover\\n'; exit 3\n",
    );
    for how in ["--quiet", "--progress=plain", "--verbosity=error"] {
        let ran = place.build(&["--no-push", how]);
        ran.failed(4, &["RUN exited with status 3", "in step [stage-0 3/3] RUN i=0;"]);
        let (_, end) = ran.stderr.split_once("the last lines of its output:\n").unwrap();
        let lines: Vec<&str> = end.lines().collect();
        assert_eq!((lines[0], lines[28], lines.len()), ("  line-172", "  line-200", 30), "{how}: {end}");
        assert_eq!(lines[29], "  over", "no orders to the terminal");
    }
    with_busybox("RUN exit 3\n").build(&["--no-push"]).failed(4, &["status 3", "it printed nothing"]);
}

/// Several targets: the first one's image is written, the others run.
#[test]
fn several_targets() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(
        "FROM 0 AS checks\nRUN echo checked\nFROM 0 AS never\nRUN exit 9\nFROM scratch AS out\nCOPY Dockerfile /out\n",
    );
    let dockerfile = place.read("context/Dockerfile").replacen("FROM scratch", "FROM scratch AS base", 1);
    let place = place.file("context/Dockerfile", dockerfile.replace("FROM 0", "FROM base"));
    for targets in [&["--target=out", "--target=checks"][..], &["--target=OUT,Checks"], &["--target", "out,checks,out"]]
    {
        let _ = std::fs::remove_dir_all(place.path("files"));
        let ran = place.build(&[targets, &["--output=files"]].concat());
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        assert!(ran.stderr.contains(" checked\n"), "{targets:?}: {}", ran.stderr);
        assert!(place.path("files/out").exists() && !place.path("files/bin").exists());
    }
    // kaniko takes numbers as well, BuildKit does not.
    let _ = std::fs::remove_dir_all(place.path("files"));
    let ran = place.executor(&["--context=context", "--target=3,1", "--output=files"]);
    assert!(ran.code() == 0 && ran.stderr.contains(" checked\n") && place.path("files/out").exists(), "{}", ran.stderr);
    place.build(&["--target=3", "--no-push"]).failed(3, &["target stage `3`", "there are: base, checks, never, out"]);
    place.build(&["--target=out,never", "--no-push"]).failed(4, &["status 9"]);
    place.build(&["--target=out,chekcs", "--no-push"]).failed(3, &["target stage `chekcs`", "did you mean `checks`?"]);
    place
        .build(&["--target=out,7", "--no-push"])
        .failed(3, &["target stage `7`", "there are: base, checks, never, out"]);
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
fn an_ssh_agent_is_nowhere_afterwards() {
    if cannot_run() {
        return;
    }
    // RFC 8032 section 7.1, test 1.
    const KEY: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
    const SEED: &[u8] = b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4";
    let place = with_busybox(
        "RUN --mount=type=ssh,id=k,mode=0640,gid=5,required test -S \"$SSH_AUTH_SOCK\" && \
         stat -c '%n %u:%g %a' \"$SSH_AUTH_SOCK\" > /result\n\
         RUN [ -z \"$SSH_AUTH_SOCK\" ] && [ ! -e /run ]\n",
    )
    .file("key", format!("-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n"));
    let ran = place.build(&["--ssh=k=key", "--oci-layout-path=out", "--output=files", "--verbosity=trace"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert_eq!(place.read("files/result"), "/run/buildkit/ssh_agent.0 0:5 640\n");
    assert!(!place.path("files/run").exists());
    let has = |bytes: &[u8]| [KEY.as_bytes(), SEED].iter().any(|key| bytes.windows(key.len()).any(|w| w == *key));
    assert!(!has(ran.stderr.as_bytes()) && !has(&ran.output));
    for directory in ["out", "work"] {
        for (path, content) in everything_below(&place.path(directory)) {
            assert!(!has(&content), "in `{}`", path.display());
        }
    }
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

/// A step that reads gets the end of its input, not what the builder was given.
#[test]
fn standard_input_is_empty() {
    if cannot_run() {
        return;
    }
    let place = with_busybox("RUN cat > /read\n");
    let ran = place.build_with_input(&["--output=files", "context"], b"for nobody");
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert_eq!(place.read("files/read"), "");
}

#[test]
fn users_and_hosts() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(
        "COPY passwd /etc/passwd\nUSER u\nWORKDIR /w\n\
         RUN [ \"$(id -u):$(id -g):$HOME:$(pwd)\" = 1000:1001:/home/u:/w ] && touch mine && ! touch /etc/other\n\
         RUN grep -q \"^10.1.2.3.*added\" /etc/hosts\n",
    )
    .file("context/passwd", "u:x:1000:1001::/home/u:/bin/sh\n");
    place.build(&["--add-host=added:10.1.2.3", "--no-push"]).digest();
}

/// Stages beside each other: each waits for the file that shows the other at work, in a shared cache.
#[test]
fn stages_run_at_a_time() {
    if cannot_run() {
        return;
    }
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/c,id=meet touch /c/{own}; \
             i=0; while [ ! -e /c/{other} ]; do i=$((i+1)); [ $i -lt 400 ] || exit 1; usleep 50000; done\n"
        )
    };
    let place = with_busybox(&format!(
        "FROM 0 AS one\n{}FROM 0 AS two\n{}FROM scratch\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\n",
        meet("a", "b"),
        meet("b", "a")
    ));
    let dockerfile = place
        .read("context/Dockerfile")
        .replacen("FROM scratch", "FROM scratch AS base", 1)
        .replace("FROM 0", "FROM base");
    let place = place.file("context/Dockerfile", dockerfile);
    if place.run(&["doctor"]).stdout().contains("chosen: inplace") {
        return crate::harness::skipped("the `inplace` back-end runs one step at a time");
    }
    place.build(&["--jobs=2", "--no-push"]).digest();
}
