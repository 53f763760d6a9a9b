//! The program under kaniko's name, with kaniko's flags.

use crate::harness::{Place, registry};
use crate::outputs::manifest_digest;

const DOCKERFILE: &str = "FROM scratch\nARG A=none\nLABEL a=$A\nCOPY f /f\n";

fn place() -> Place {
    Place::new(DOCKERFILE).file("context/f", "content")
}

#[test]
fn a_kaniko_command_line() {
    let Some(registry) = registry() else { return };
    let place = place();
    let destination = format!("{}/app:1", registry.host());
    let context = format!("dir://{}", place.text("context"));
    let ran = place.executor(&[
        "--context",
        &context,
        "--dockerfile",
        "Dockerfile",
        "--destination",
        &destination,
        "--insecure",
        "--digest-file",
        "digest",
        "--tar-path",
        "image.tar",
        "--oci-layout-path",
        "layout",
        "--build-arg",
        "A=B",
        "--label",
        "l=m",
        "--verbosity=debug",
        "--cleanup",
        "--cache=false",
        "--push-retry=1",
        "--snapshot-mode=redo",
        "--log-format=text",
        "--log-timestamp",
    ]);
    let digest = ran.digest();
    assert_eq!(place.read("digest"), digest);
    assert_eq!(manifest_digest(&registry.host(), "app", "1"), digest);
    assert!(place.path("image.tar").exists());
    let manifest: serde_json::Value =
        serde_json::from_str(&place.read(&format!("layout/blobs/sha256/{}", &digest[7..]))).unwrap();
    let config = place.read(&format!("layout/blobs/sha256/{}", &manifest["config"]["digest"].as_str().unwrap()[7..]));
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Labels"], serde_json::json!({"a": "B", "l": "m"}));
    place.assert_clean();
}

#[test]
fn without_a_push() {
    let place = place();
    let flags = ["--context=dir://context", "--destination=registry.invalid/x:1", "--tar-path=image.tar"];
    let digest = place.executor(&[&flags[..], &["--no-push", "--digest-file=digest"]].concat()).digest();
    assert_eq!(place.read("digest"), digest);
    let archive = String::from_utf8_lossy(&std::fs::read(place.path("image.tar")).unwrap()).into_owned();
    assert!(archive.contains("registry.invalid/x:1"));
    // As a variable, too.
    let place = place.variable("KANIKO_NO_PUSH", "true");
    place.executor(&flags).digest();
    place.executor(&["--context=dir://context", "--no-push=false"]).digest();
}

#[test]
fn sub_paths_and_dockerfiles_elsewhere() {
    let place = place().file("context/sub/f", "below").file("elsewhere/Build", "FROM scratch\nCOPY f /g\n");
    let flags = ["-c", "dir://context", "--context-sub-path=sub", "-f", "elsewhere/Build", "--output=files"];
    let ran = place.executor(&flags);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert_eq!(place.read("files/g"), "below");
}

#[test]
fn contexts_as_tars() {
    let tar = testkit::fixture::tar(&[("Dockerfile", DOCKERFILE.as_bytes()), ("f", b"in a tar")]);
    let place = place().file("context.tar", tar);
    let ran = place.executor(&["--context=tar://context.tar", "--output=files"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert_eq!(place.read("files/f"), "in a tar");
}

/// Everything that fails but a RUN is 1.
#[test]
fn exit_codes() {
    let place = place();
    let closed = format!("127.0.0.1:{}/x", testkit::docker_registry::free_port());
    let table: &[(&[&str], &str)] = &[
        (&["--context=dir://context"], "--destination, or --no-push"),
        (&["--context=dir://context", "--no-push", "--cache"], "not supported yet"),
        (&["--context=dir://context", "--no-push", "--no-such-flag"], "--no-such-flag"),
        (&["--context=dir://nothere", "--no-push"], "nothere"),
        (&["--context=dir://context", "--no-push", "--dockerfile=nothere"], "nothere"),
        (&["--context=dir://context", "--no-push", "--target=nothere"], "nothere"),
        (&["--context=dir://context", "--push-retry=0", "--destination", &closed], "connection refused"),
    ];
    for (args, part) in table {
        place.executor(args).failed(1, &[part]);
    }
}

#[test]
fn its_sub_commands() {
    let place = place();
    let ran = place.executor(&["version"]);
    assert_eq!((ran.code(), ran.stdout().starts_with("zuwai ")), (0, true));
    let ran = place.executor(&["--help"]);
    assert_eq!(ran.code(), 0);
    assert!(ran.stdout().contains("Usage"), "{}", ran.stdout());
}

#[test]
fn a_target_by_its_number() {
    let place = Place::new(
        "FROM scratch AS a\nCOPY missing /\nFROM scratch\nCOPY Dockerfile /\nFROM scratch\nCOPY missing /\n",
    );
    for (target, code) in [("0", 1), ("1", 0), ("2", 1), ("3", 1), ("A", 1)] {
        let ran = place.executor(&["--context=context", "--no-push", &format!("--target={target}")]);
        assert_eq!(ran.code(), code, "{target}: {}", ran.stderr);
    }
}
