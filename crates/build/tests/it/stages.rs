//! Which stages are built, what they stand on, and what ONBUILD adds.

use crate::harness::{Base, Bench, lock};

fn asked(bench: &Bench) -> Vec<String> {
    lock(&bench.images.asked).clone()
}

#[test]
fn unused_stages_are_not_even_resolved() {
    let dockerfile =
        "FROM missing AS a\nRUN exit 1\nFROM base AS b\nFROM missing-too\nCOPY --from=a / /\nFROM b\nENV A=1\n";
    let bench = Bench::new(dockerfile).image("base", Base::new().layer(&[("f", "")]));
    bench.build();
    assert_eq!(asked(&bench), ["base:latest"]);
    assert!(lock(&bench.sandbox.ran).is_empty());
}

#[test]
fn the_target_decides() {
    let dockerfile = "FROM scratch AS one\nENV A=1\nFROM missing AS two\n";
    for target in ["one", "ONE"] {
        assert_eq!(Bench::new(dockerfile).target(target).build().env("A"), Some("1"), "{target}");
    }
    let error = Bench::new(dockerfile).target("oen").error();
    assert_eq!(error, "target stage `oen` could not be found");
}

#[test]
fn a_missing_base_is_named_with_its_place() {
    let bench = Bench::new("FROM scratch AS a\nFROM missing:1\n");
    let error = bench.try_build().err().unwrap();
    assert_eq!(&bench.request.spec.dockerfile.source[error.place().unwrap().span.clone()], "FROM missing:1");
    assert!(bench.error().contains("could not resolve base image `missing:1`"), "{}", bench.error());
}

#[test]
fn a_stage_on_a_stage_has_its_layers_and_config() {
    let dockerfile =
        "FROM base AS a\nENV A=1\nRUN write /a 1\nFROM a AS b\nRUN write /b 2\nENV B=2\nFROM B\nRUN write /c 3\n";
    let outcome = Bench::new(dockerfile).image("base", Base::new().layer(&[("f", "")])).build();
    assert_eq!(outcome.layers.len(), 4);
    for (path, content) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert_eq!(outcome.content(path).as_deref(), Some(content));
    }
    assert_eq!((outcome.env("A"), outcome.env("B")), (Some("1"), Some("2")));
    let want =
        ["layer 1", "(empty) ENV A=1", "RUN /bin/sh -c write /a 1", "RUN /bin/sh -c write /b 2", "(empty) ENV B=2"];
    assert_eq!(outcome.history()[..5], want);
}

/// A stage that two stand on, or that is looked into as well, keeps its own files.
#[test]
fn siblings_do_not_see_each_other() {
    let dockerfile = "FROM scratch AS a\nRUN write /a 1\nFROM a AS b\nRUN write /b 2;remove /a\n\
                      FROM a AS c\nRUN write /a 3\nCOPY --from=b /b /\nCOPY --from=a /a /original\n";
    let outcome = Bench::new(dockerfile).build();
    assert_eq!(outcome.content("a").as_deref(), Some("3"));
    assert_eq!(outcome.content("b").as_deref(), Some("2"));
    assert_eq!(outcome.content("original").as_deref(), Some("1"));
}

#[test]
fn copy_from_everything_that_can_be_named() {
    let table = [
        ("a", "stage"),
        ("A", "stage"),
        ("0", "stage"),
        ("1", "second"),
        ("image:1", "image"),
        ("docker.io/library/image:1", "image"),
        ("directory", "directory"),
        ("named-image", "image"),
    ];
    for (from, want) in table {
        let dockerfile = format!(
            "FROM scratch AS a\nRUN write /f stage\nFROM scratch\nRUN write /f second\n\
             FROM scratch\nCOPY --from={from} /f /got\n"
        );
        let bench = Bench::new(&dockerfile)
            .image("image:1", Base::new().layer(&[("f", "image")]))
            .directory_context("directory", &[("f", "directory")])
            .image_context("named-image", "image:1");
        assert_eq!(bench.build().content("got").as_deref(), Some(want), "{from}");
    }
}

#[test]
fn from_a_named_context() {
    let bench = Bench::new("FROM base AS a\nRUN exit 1\nFROM a\nCMD [\"x\"]\n")
        .image("other", Base::new().layer(&[("f", "other")]).config(|c| c.config.env = vec!["O=1".to_owned()]))
        .image_context("a", "other");
    let outcome = bench.build();
    assert_eq!((outcome.content("f").as_deref(), outcome.env("O")), (Some("other"), Some("1")));
    assert_eq!(asked(&bench), ["other:latest"], "the stage of that name is replaced");
    // A base image is replaced as well, whatever way it is written.
    let bench = Bench::new("FROM docker.io/library/base:latest\n")
        .image("other", Base::new().layer(&[("f", "other")]))
        .image_context("base", "other");
    assert_eq!(bench.build().content("f").as_deref(), Some("other"));
}

#[test]
fn what_cannot_be_copied_from() {
    let table = [
        ("FROM scratch AS a\nCOPY --from=b /f /\nFROM scratch AS b\n", "a", "defined before"),
        ("FROM scratch AS a\nCOPY --from=a /f /\n", "a", "circular dependency"),
        ("FROM scratch AS a\nCOPY --from=7 /f /\n", "a", "invalid stage index 7"),
        ("FROM scratch AS a\nCOPY --from=-1 /f /\n", "a", "invalid stage index -1"),
        ("FROM scratch AS a\nFROM scratch AS b\nCOPY --from=a /f /\n", "b", "`/f` does not exist in stage `a`"),
    ];
    for (dockerfile, target, part) in table {
        let error = Bench::new(dockerfile).target(target).error();
        assert!(error.contains(part), "{error}\n{dockerfile}");
    }
}

#[test]
fn onbuild_runs_in_the_child_alone() {
    let triggers = ["ENV T=1", "RUN write /t $T", "COPY f /copied"].map(str::to_owned).to_vec();
    let base = Base::new().layer(&[("x", "")]).config(|c| c.config.on_build = Some(triggers));
    let bench =
        Bench::new("FROM base AS a\nRUN nothing\nFROM a\nRUN nothing\n").image("base", base).file("f", "context");
    let outcome = bench.build();
    let want = [
        "layer 1",
        "(empty) ENV T=1",
        "RUN /bin/sh -c write /t $T",
        "COPY f /copied",
        "RUN /bin/sh -c nothing",
        "RUN /bin/sh -c nothing",
    ];
    assert_eq!(outcome.history(), want);
    let started = bench.events.having("StepStarted").join("\n");
    assert!(started.contains("\"ONBUILD RUN write /t $T\"") && started.contains("\"RUN nothing\""), "{started}");
    assert_eq!(outcome.image.config.config.on_build, None);
    assert_eq!(outcome.content("copied").as_deref(), Some("context"));
}

#[test]
fn onbuild_of_a_stage_runs_in_its_children() {
    let dockerfile = "FROM scratch AS a\nONBUILD ENV T=1\nRUN nothing\nFROM a AS b\nFROM b AS c\n";
    let table = [("a", None, true), ("b", Some("1"), false), ("c", Some("1"), false)];
    for (target, env, triggers) in table {
        let outcome = Bench::new(dockerfile).target(target).build();
        assert_eq!(outcome.env("T"), env, "{target}");
        assert_eq!(outcome.image.config.config.on_build.is_some(), triggers, "{target}");
    }
    let outcome = Bench::new(dockerfile).target("c").build();
    assert_eq!(outcome.history().iter().filter(|h| h.contains("ENV T=1")).count(), 1, "once, in b");
}

/// No line of the Dockerfile has it.
#[test]
fn faults_of_a_trigger_name_it() {
    let table = [
        ("COPY nosuch /x", "ONBUILD COPY nosuch /x: source `nosuch` does not exist in the build context"),
        ("STOPSIGNAL none", "ONBUILD STOPSIGNAL none: invalid signal `none`"),
        ("RUN --mount=target=/ x", "ONBUILD RUN --mount=target=/ x: the `target` of a mount cannot be `/`"),
        ("USER u\nRUN nothing", "ONBUILD RUN nothing: unable to find user `u`"),
    ];
    for (triggers, message) in table {
        let triggers: Vec<String> = triggers.lines().map(str::to_owned).collect();
        let base = Base::new().layer(&[("x", "")]).config(|c| c.config.on_build = Some(triggers));
        let error = Bench::new("FROM base\n").image("base", base).error();
        assert!(error.starts_with(message), "{error}");
    }
    let base = Base::new().layer(&[("x", "")]).config(|c| c.config.on_build = Some(vec!["RUN exit 3".to_owned()]));
    match Bench::new("FROM base\n").image("base", base).try_build().err() {
        Some(zuwai_build::BuildError::Run { step, .. }) => assert_eq!(step, "[stage-0 1/1] ONBUILD RUN exit 3"),
        other => panic!("{other:?}"),
    }
    // The child's own are as ever.
    let base = Base::new().layer(&[("x", "")]).config(|c| c.config.on_build = Some(vec!["ENV a=b".to_owned()]));
    let error = Bench::new("FROM base\nCOPY nosuch /x\n").image("base", base).error();
    assert!(error.starts_with("source `nosuch`"), "{error}");
}

#[test]
fn onbuild_may_need_a_stage() {
    let base = Base::new()
        .layer(&[("x", "")])
        .config(|c| c.config.on_build = Some(vec!["COPY --from=tools /t /t".to_owned()]));
    let dockerfile = "FROM scratch AS tools\nRUN write /t tool\nFROM base\n";
    assert_eq!(Bench::new(dockerfile).image("base", base).build().content("t").as_deref(), Some("tool"));
}

#[test]
fn a_cycle_through_onbuild_is_refused() {
    let base = || Base::new().config(|c| c.config.on_build = Some(vec!["COPY --from=b /t /t".to_owned()]));
    let bench = Bench::new("FROM base AS a\nFROM a AS b\n").image("base", base());
    let error = bench.error();
    assert!(error.contains("circular dependency") || error.contains("defined before"), "{error}");
}
