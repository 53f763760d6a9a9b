//! What is said when a word is misspelt.

use crate::harness::Place;

/// Dockerfile, ignore file, more flags, and parts of the error.
type Case = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

#[test]
fn misspelt_words() {
    let two_stages = "FROM scratch AS build\nCOPY readme.txt /\nFROM scratch\n";
    let table: &[Case] = &[
        ("COPPY a /", "", &[], &["unknown instruction `COPPY`", "did you mean COPY?", "Dockerfile:2"]),
        ("COPY --chwon=1 readme.txt /", "", &[], &["unknown flag `--chwon` of COPY", "did you mean chown?"]),
        ("RUN --mount=type=cahce,target=/x true", "", &[], &["did you mean cache?"]),
        ("RUN --mount=type=cache,taget=/x true", "", &[], &["did you mean target?"]),
        ("RUN --network=nnoe true", "", &[], &["did you mean none?"]),
        ("HEALTHCHECK --intrval=3s CMD x", "", &[], &["did you mean interval?"]),
        ("STOPSIGNAL SIGTRM", "", &[], &["invalid signal `SIGTRM`", "did you mean `SIGTERM`?"]),
        ("COPY readme.tx /", "", &[], &["did you mean `readme.txt`?"]),
        ("COPY source/mian.c /", "", &[], &["did you mean `source/main.c`?"]),
        ("COPY surce/main.c /", "", &[], &["did you mean `source/main.c`?"]),
        ("COPY source/main.c /", "*.txt\nsource\n", &[], &["`.dockerignore` line 2 (`source`) excludes it"]),
        ("COPY readme.txt /", "", &["--target=biuld"], &["target stage `biuld`"]),
        (
            "COPY readme.txt /",
            "",
            &["--check", "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skp=all"],
            &["did you mean skip?"],
        ),
    ];
    for (instruction, ignore, flags, parts) in table {
        let dockerfile = format!("FROM scratch\n{instruction}\n");
        fails(&dockerfile, ignore, flags, parts);
    }
    for (last, part) in [
        ("COPY --from=biuld /readme.txt /", "`biuld` (did you mean the stage `build`?)"),
        ("RUN --mount=from=biuld,target=/x true", "`biuld` (did you mean the stage `build`?)"),
        ("FROM biuld", "did you mean the stage `build`?"),
        ("FROM alpnie:3", "`alpnie:3` (did you mean `alpine`?)"),
        ("FROM --platform=$BULIDPLATFORM scratch", "did you mean `$BUILDPLATFORM`?"),
        ("FROM --platform=linux/${TARGTARCH} scratch", "did you mean `$TARGETARCH`?"),
    ] {
        // Nobody listens: names that are no stage's lead nowhere.
        let nowhere = format!("--registry-mirror=127.0.0.1:{}", testkit::docker_registry::free_port());
        let flags = [&nowhere, "--skip-default-registry-fallback", "--image-download-retry=0"];
        fails(&format!("{two_stages}{last}\n"), "", &flags, &[part]);
    }
    fails("ARG VERSION=1\nFROM $VERSON\n", "", &[], &["is blank", "did you mean `$VERSION`?", "Dockerfile:2"]);
}

#[track_caller]
fn fails(dockerfile: &str, ignore: &str, flags: &[&str], parts: &[&str]) {
    let place = Place::new(dockerfile)
        .file("context/readme.txt", "x")
        .file("context/source/main.c", "x")
        .file("context/.dockerignore", ignore);
    let ran = place.build(&[&["--no-push"], flags].concat());
    assert_ne!(ran.code(), 0, "{dockerfile}");
    for part in parts {
        assert!(ran.stderr.contains(part), "{dockerfile}: `{part}` is not in\n{}", ran.stderr);
    }
}

/// What has no effect and was probably meant to have one.
#[test]
fn misspelt_words_that_are_warned_of() {
    let place = Place::new("# check=skip=StageNameCasng,FromAsCasing\nARG VERSION=1\nFROM scratch as Build\n");
    let warnings = [
        "warning: there is no build check `StageNameCasng` (did you mean `StageNameCasing`?)",
        "warning: build argument `VERSON` is declared by no ARG (did you mean `VERSION`?)",
    ];
    let built = place.build(&["--no-push", "--build-arg=VERSON=2", "--build-arg=QUITE_DIFFERENT=1"]);
    built.digest();
    let linted = place.run(&["lint", "--build-arg=VERSON=2", "context"]);
    for (ran, warning) in warnings.iter().flat_map(|warning| [(&built, warning), (&linted, warning)]) {
        assert!(ran.stderr.contains(warning), "{}", ran.stderr);
        assert!(!ran.stderr.contains("QUITE"), "{}", ran.stderr);
    }
}
