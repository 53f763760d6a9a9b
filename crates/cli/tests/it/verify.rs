//! `--verify`: the same image, or what is different.

use crate::harness::{Place, cannot_run, registry, with_busybox};

const DOCKERFILE: &str = "FROM scratch\nCOPY --chown=1:2 a b /d/\nENV A=1\n";

fn place() -> Place {
    Place::new(DOCKERFILE).file("context/a", "one\n").file("context/b", "two\n")
}

#[test]
fn the_same_inputs_build_the_same_image() {
    let place = place().variable("SOURCE_DATE_EPOCH", "1700000000");
    let digest =
        place.build(&["--reproducible", "-t", "app:1", "--oci-layout-path=out", "--tar-path=saved.tar"]).digest();
    place.build(&["--reproducible", "-t", "app:1", "--output=type=oci,dest=oci.tar"]).digest();
    let said = format!("the same image: {digest}\n");
    for spec in [
        "oci-layout://out".to_owned(),
        "oci-layout://out:1".to_owned(),
        format!("oci-layout://out@{digest}"),
        "docker-archive:saved.tar".to_owned(),
        "docker-archive:saved.tar:app:1".to_owned(),
        "docker-archive:oci.tar".to_owned(),
    ] {
        let ran = place.build(&["--reproducible", "--verify", &spec]);
        assert_eq!((ran.code(), ran.stdout()), (0, said.as_str()), "{spec}: {}", ran.stderr);
    }
    place.assert_clean();
}

#[test]
fn an_archive_whose_layers_are_not_its_configs_is_not_the_same() {
    let place = place();
    let flags = ["--reproducible", "--compression=none"];
    place.build(&[&flags[..], &["--tar-path=saved.tar"]].concat()).digest();
    let mut archive = std::fs::read(place.path("saved.tar")).unwrap();
    let at = archive.windows(4).position(|four| four == b"one\n").unwrap();
    archive[at] = b'O';
    let place = place.file("changed.tar", archive);
    let verify = |file: &str| place.build(&[&flags[..], &["--verify", &format!("docker-archive:{file}")]].concat());
    assert_eq!(verify("saved.tar").code(), 0);
    verify("changed.tar").failed(5, &["could not read layer", "expected"]);
}

#[test]
fn an_image_without_a_told_epoch_says_when_it_was_created() {
    let written = place().variable("SOURCE_DATE_EPOCH", "1700000000");
    written.build(&["--reproducible", "--oci-layout-path=out"]).digest();
    let layout = format!("oci-layout://{}", written.text("out"));
    // Neither the environment nor an argument says so here, and the Dockerfile uses it.
    let ran = place().build(&["--reproducible", "--verify", &layout]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("SOURCE_DATE_EPOCH is not given: it is 1700000000"), "{}", ran.stderr);
    // Another one that is given counts.
    let ran = place().build(&["--reproducible", "--verify", &layout, "--build-arg=SOURCE_DATE_EPOCH=1600000000"]);
    assert_eq!(ran.code(), 7, "{}", ran.stderr);
    assert!(
        ran.stdout().contains("created: \"2023-11-14T22:13:20Z\" → \"2020-09-13T12:26:40Z\"\n"),
        "{}",
        ran.stdout()
    );
}

#[test]
fn what_is_different_is_said() {
    let place = place();
    place.build(&["--reproducible", "--oci-layout-path=out"]).digest();
    let place = place
        .file("context/b", "changed\n")
        .file("context/new", "")
        .file("context/Dockerfile", "FROM scratch\nCOPY --chown=1:3 b new /d/\nENV A=2\n");
    let ran = place.build(&["--reproducible", "--verify=oci-layout://out"]);
    assert_eq!(ran.code(), 7, "{}", ran.stderr);
    let want = [
        "config.Env[1]: \"A=1\" → \"A=2\"",
        "layer 1 (COPY --chown=1:3 b new /d/):",
        "  d: owner 1:2 → 1:3",
        "  d/b: owner 1:2 → 1:3, size 4 → 8, content",
        "  d/a: only in the image",
        "  d/new: only rebuilt",
    ];
    for line in want {
        assert!(ran.stdout().lines().any(|found| found == line), "`{line}` is not in\n{}", ran.stdout());
    }
    assert!(ran.stderr.contains("error: `oci-layout://out` is not what these inputs build"), "{}", ran.stderr);
    // Under Kaniko's name every failure but a RUN's is 1.
    assert_eq!(place.executor(&["--context=dir://context", "--reproducible", "--verify=oci-layout://out"]).code(), 1);
}

#[test]
fn only_times_have_a_hint() {
    if cannot_run() {
        return;
    }
    let place = with_busybox("RUN echo a > /a\n").variable("SOURCE_DATE_EPOCH", "1000000000");
    place.build(&["--oci-layout-path=out"]).digest();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let ran = place.build(&["--verify=oci-layout://out"]);
    assert_eq!(ran.code(), 7, "{}", ran.stderr);
    assert!(ran.stdout().contains("  a: time 20"), "{}", ran.stdout());
    assert!(ran.stderr.contains("hint: only times differ: build both with --reproducible"), "{}", ran.stderr);
    // Steps that run again are the same when their times are.
    let place = with_busybox("RUN echo a > /a; ln a /b; mkdir -p /c/d\nFROM scratch\nCOPY --from=0 /c /b /\n");
    let digest = place.build(&["--reproducible", "--oci-layout-path=out"]).digest();
    let ran = place.build(&["--reproducible", "--verify=oci-layout://out"]);
    assert_eq!((ran.code(), ran.stdout()), (0, format!("the same image: {digest}\n").as_str()), "{}", ran.stderr);
}

#[test]
fn with_a_registry_nothing_is_pushed() {
    let Some(registry) = registry() else { return };
    let insecure = format!("--insecure-registry={}", registry.host());
    let tag = format!("{}/app:1", registry.host());
    let place = place();
    let digest = place.build(&[&insecure, "--reproducible", "-t", &tag, "--push"]).digest();
    let sent = || registry.count("PUT", "/") + registry.count("POST", "/") + registry.count("PATCH", "/");
    let before = sent();
    let ran = place.build(&[&insecure, "--reproducible", "--verify", &tag]);
    assert_eq!((ran.code(), ran.stdout()), (0, format!("the same image: {digest}\n").as_str()), "{}", ran.stderr);
    let place = place.file("context/a", "other\n");
    let ran = place.build(&[&insecure, "--reproducible", "-t", &tag, "--verify", &tag]);
    assert_eq!(ran.code(), 7, "{}", ran.stderr);
    assert!(ran.stdout().contains("  d/a: size 4 → 6, content\n"), "{}", ran.stdout());
    assert_eq!(sent(), before, "{:?}", registry.requests());
    let ran = place.build(&[&insecure, "--verify", &format!("{}/app:2", registry.host())]);
    ran.failed(5, &["app:2", "which is to be verified"]);
}

#[test]
fn an_epoch_of_the_dockerfile_or_of_the_environment() {
    let created = |place: &Place| {
        let image = store::Layout::open(&place.path("out")).unwrap().find(None, &oci::Platform::host()).unwrap();
        image.config.created.unwrap()
    };
    let dockerfile =
        "ARG SOURCE_DATE_EPOCH=\"1600000000\"\nFROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL e=$SOURCE_DATE_EPOCH\n";
    let place = Place::new(dockerfile);
    place.build(&["--oci-layout-path=out"]).digest();
    assert_eq!(created(&place), "2020-09-13T12:26:40Z");
    // What the caller says wins, and reaches the steps as an argument.
    let place = Place::new(dockerfile).variable("SOURCE_DATE_EPOCH", "1700000000");
    place.build(&["--oci-layout-path=out", "--output=type=local,dest=files"]).digest();
    assert_eq!(created(&place), "2023-11-14T22:13:20Z");
    let image = store::Layout::open(&place.path("out")).unwrap().find(None, &oci::Platform::host()).unwrap();
    assert_eq!(image.config.config.labels.unwrap()["e"], "1700000000");
}

#[test]
fn files_that_are_written_out_have_the_epochs_time() {
    let place = place().variable("SOURCE_DATE_EPOCH", "1700000000");
    place.build(&["--output=type=local,dest=files"]);
    let modified = std::fs::metadata(place.path("files/d/a")).unwrap().modified().unwrap();
    let epoch = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    assert_eq!(modified, epoch);
}

#[test]
fn rewrite_timestamp_is_reproducible() {
    let place = place().variable("SOURCE_DATE_EPOCH", "1000000000");
    let clamped = place.build(&["--reproducible", "--oci-layout-path=a"]).digest();
    assert_eq!(place.build(&["--output=type=oci,dest=b.tar,rewrite-timestamp=true"]).digest(), clamped);
    assert_ne!(place.build(&["--output=type=oci,dest=c.tar,rewrite-timestamp=false"]).digest(), clamped);
    let both = ["--output=type=oci,dest=d,rewrite-timestamp=true", "--output=type=oci,dest=e,rewrite-timestamp=0"];
    place.build(&both).failed(2, &["rewrite-timestamp=true and another one false"]);
    place.build(&["--output=type=oci,dest=d,rewrite-timestamp=x"]).failed(2, &["neither true nor false"]);
    place.build(&["--verify=oci-layout://a", "--push", "-t", "x"]).failed(2, &["--verify", "--push"]);
    place.build(&["--verify=UPPER"]).failed(2, &["`UPPER`, which is to be verified", "lower case"]);
    place.build(&["--verify=oci-layout://nothing"]).failed(5, &["`oci-layout://nothing`, which is to be verified"]);
}

#[test]
fn a_base_image_that_is_another_one_now() {
    let (old, new) = (place(), place().file("context/b", "a new base\n"));
    for base in [&old, &new] {
        base.build(&["--reproducible", "--oci-layout-path=out"]).digest();
    }
    let app = Place::new("FROM base\nCOPY f /f\n").file("context/f", "f");
    let context = |base: &Place| format!("--build-context=base=oci-layout://{}", base.text("out"));
    app.build(&["--reproducible", &context(&old), "--oci-layout-path=out"]).digest();
    let ran = app.build(&["--reproducible", &context(&new), "--verify=oci-layout://out"]);
    assert_eq!(ran.code(), 7, "{}", ran.stderr);
    // The layer above is the same, and not read.
    assert_eq!(ran.stdout(), "layer 1 (COPY --chown=1:2 a b /d/):\n  d/b: size 4 → 11, content\n");
    app.assert_clean();
}
