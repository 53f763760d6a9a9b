//! Where an image can go, and that all of them agree.

use std::io::{Read as _, Seek as _};
use std::process::Command;

use crate::harness::{Place, everything_below, missing, registry};

const DOCKERFILE: &str = "FROM scratch\nCOPY f /d/f\nENV A=1\nCMD [\"/d/f\"]\n";

fn place() -> Place {
    Place::new(DOCKERFILE).file("context/f", "content").variable("SOURCE_DATE_EPOCH", "1700000000")
}

/// The only manifest digest of a layout.
fn layout_digest(place: &Place, name: &str) -> String {
    let index: serde_json::Value = serde_json::from_str(&place.read(&format!("{name}/index.json"))).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert!(entries.iter().all(|e| e["digest"] == entries[0]["digest"]));
    entries[0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn the_digest_is_that_of_the_layout() {
    let place = place();
    let digest = place.build(&["--oci-layout-path=out"]).digest();
    assert_eq!(layout_digest(&place, "out"), digest);
    let manifest = place.read(&format!("out/blobs/sha256/{}", &digest["sha256:".len()..]));
    assert_eq!(oci::Digest::of(manifest.as_bytes()).as_str(), digest);
}

#[test]
fn several_outputs_agree() {
    let Some(registry) = registry() else { return };
    let place = place();
    let host = registry.host();
    let (one, two) = (format!("{host}/app:1"), format!("{host}/other/app:2"));
    let insecure = format!("--insecure-registry={host}");
    let ran = place.build(&[
        &insecure,
        "--destination",
        &one,
        "--tag",
        &two,
        "--push",
        "--oci-layout-path=layout",
        "--tar-path=docker.tar",
        "--output=type=oci,dest=oci.tar",
        "--output=type=oci,dest=second,tar=false",
        "--output=type=local,dest=files",
        "--digest-file=made/digest",
        "--iidfile=iid",
        "--image-name-with-digest-file=names",
        "--image-name-tag-with-digest-file=tags",
        "--metadata-file=metadata.json",
    ]);
    let digest = ran.digest();
    assert_eq!(place.read("made/digest"), digest);
    assert_eq!(place.read("names"), format!("{host}/app@{digest}\n{host}/other/app@{digest}\n"));
    assert_eq!(place.read("tags"), format!("{host}/app:1@{digest}\n{host}/other/app:2@{digest}\n"));
    assert_eq!(layout_digest(&place, "layout"), digest);
    assert_eq!(layout_digest(&place, "second"), digest);
    assert_eq!(place.read("files/d/f"), "content");
    let metadata: serde_json::Value = serde_json::from_str(&place.read("metadata.json")).unwrap();
    assert_eq!(metadata["containerimage.digest"], digest.as_str());
    assert_eq!(metadata["containerimage.config.digest"], place.read("iid").as_str());
    for (repository, tag) in [("app", "1"), ("other/app", "2")] {
        assert_eq!(manifest_digest(&host, repository, tag), digest, "{repository}:{tag}");
    }
    let config = place.read(&format!("layout/blobs/sha256/{}", &place.read("iid")["sha256:".len()..]));
    assert!(config.contains("A=1"), "{config}");
    place.assert_clean();
}

/// What a registry says a tag is.
pub fn manifest_digest(host: &str, repository: &str, tag: &str) -> String {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
    write!(stream, "GET /v2/{repository}/manifests/{tag} HTTP/1.0\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    oci::Digest::of(body.as_bytes()).to_string()
}

#[test]
fn builds_are_reproducible() {
    let first = place().build(&["--no-push", "--reproducible"]).digest();
    let second = place().build(&["--oci-layout-path=out", "--reproducible", "--jobs=1"]).digest();
    assert_eq!(first, second, "in another directory, at another time, with another output");
}

#[test]
fn skopeo_reads_what_is_written() {
    if missing("skopeo") {
        return;
    }
    let place = place();
    let ran = place.build(&[
        "-t",
        "registry.example/app:1",
        "--tar-path=docker.tar",
        "--oci-layout-path=layout",
        "--iidfile=iid",
    ]);
    let digest = ran.digest();
    let skopeo = |args: &[&str]| {
        let output = Command::new("skopeo").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let archive = format!("docker-archive:{}", place.text("docker.tar"));
    let config = skopeo(&["inspect", "--raw", "--config", &archive]);
    assert_eq!(oci::Digest::of(&config).as_str(), place.read("iid"));
    let tags = String::from_utf8(skopeo(&["list-tags", &archive])).unwrap();
    assert!(tags.contains("registry.example/app:1"), "{tags}");
    let copied = format!("oci:{}", place.text("copied"));
    skopeo(&["copy", "--quiet", &archive, &copied]);
    assert!(everything_below(&place.path("copied")).iter().any(|(_, c)| c.windows(7).any(|w| w == b"content")));
    let manifest = skopeo(&["inspect", "--raw", &format!("oci:{}:1", place.text("layout"))]);
    assert_eq!(oci::Digest::of(&manifest).as_str(), digest);
}

#[test]
fn an_archive_without_a_name_has_kanikos() {
    let place = place();
    place.build(&["--no-push", "--tar-path=docker.tar"]).digest();
    let archive = std::fs::read(place.path("docker.tar")).unwrap();
    let text = String::from_utf8_lossy(&archive);
    assert!(text.contains("unset-repo/unset-image-name:latest"));
}

/// With the output on standard output the digest is not there.
#[test]
fn files_on_standard_output() {
    for output in ["--output=type=tar,dest=-", "--output=-"] {
        let ran = place().build(&[output]);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        assert_eq!(ran.output.len() % 512, 0, "a tar and nothing behind it");
        let at = ran.output.windows(7).position(|w| w == b"content").expect("the file is in it");
        assert_eq!(at % 512, 0);
        assert!(ran.output.ends_with(&[0; 1024]));
    }
}

#[test]
fn images_on_standard_output() {
    for kind in ["oci", "docker"] {
        let ran = place().build(&[&format!("--output=type={kind},dest=-")]);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        assert!(ran.output.ends_with(&[0; 1024]), "{kind}: a tar and nothing behind it");
    }
}

#[test]
fn a_dockerfile_on_standard_input() {
    let place = place();
    let digest = place.build(&["--no-push", "--reproducible"]).digest();
    let ran = place.build_with_input(&["--no-push", "--reproducible", "-f", "-", "context"], DOCKERFILE.as_bytes());
    assert_eq!(ran.digest(), digest);
    let ran = place.build_with_input(&["--no-push", "-f", "-", "context"], b"FROM scratch\nOOPS\n");
    ran.failed(3, &["unknown instruction `OOPS`", "standard input"]);
}

/// Plain and gzip; `-` and `tar://stdin`.
#[test]
fn a_context_on_standard_input() {
    let tar = testkit::fixture::tar(&[("Dockerfile", DOCKERFILE.as_bytes()), ("f", b"content")]);
    let mut gzip = tempfile::tempfile().unwrap();
    let status = Command::new("gzip").stdin(temporary(&tar)).stdout(gzip.try_clone().unwrap()).status();
    assert!(status.unwrap().success());
    let mut packed = Vec::new();
    gzip.rewind().unwrap();
    gzip.read_to_end(&mut packed).unwrap();
    let place = place();
    for (input, context) in [(&tar, "-"), (&packed, "-"), (&tar, "tar://stdin"), (&packed, "tar://stdin")] {
        let _ = std::fs::remove_dir_all(place.path("files"));
        let ran = place.build_with_input(&["--output=files", context], input);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        assert_eq!(place.read("files/d/f"), "content");
        place.assert_clean();
    }
    // A single file is the Dockerfile of an empty context.
    place.build_with_input(&["--no-push", "-"], b"FROM scratch\nENV A=1\n").digest();
    let ran = place.build_with_input(&["--no-push", "-"], b"FROM scratch\nCOPY f /\n");
    ran.failed(3, &["`f` does not exist"]);
    // Standard input is read once.
    place.build_with_input(&["--no-push", "-f", "-", "-"], &tar).failed(3, &["standard input is already taken"]);
}

fn temporary(bytes: &[u8]) -> std::fs::File {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn quiet_means_the_digest_alone() {
    let ran = place().build(&["--no-push", "--quiet"]);
    ran.digest();
    assert_eq!(ran.stderr, "");
}

#[test]
fn events_as_json() {
    let ran = place().build(&["--no-push", "--progress=rawjson"]);
    ran.digest();
    assert!(ran.stderr.lines().count() >= 3, "{}", ran.stderr);
    for line in ran.stderr.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

/// Flags, and what manifest and layer say they are.
#[test]
fn formats() {
    let table: &[(&[&str], &str, &str)] = &[
        (&[], "vnd.oci.image.manifest.v1+json", "vnd.oci.image.layer.v1.tar+gzip"),
        (&["--compression=zstd"], "vnd.oci.image.manifest.v1+json", "vnd.oci.image.layer.v1.tar+zstd"),
        (&["--compression=none"], "vnd.oci.image.manifest.v1+json", "vnd.oci.image.layer.v1.tar\""),
        (
            &["--image-format=docker"],
            "vnd.docker.distribution.manifest.v2+json",
            "vnd.docker.image.rootfs.diff.tar.gzip",
        ),
        (&["--compression-level=9"], "vnd.oci.image.manifest.v1+json", "vnd.oci.image.layer.v1.tar+gzip"),
        (&["--compression-level=-1"], "vnd.oci.image.manifest.v1+json", "vnd.oci.image.layer.v1.tar+gzip"),
    ];
    for (flags, manifest_type, layer_type) in table {
        let place = place();
        let digest = place.build(&[*flags, &["--oci-layout-path=out"]].concat()).digest();
        let manifest = place.read(&format!("out/blobs/sha256/{}", &digest["sha256:".len()..]));
        assert!(manifest.contains(manifest_type) && manifest.contains(layer_type), "{flags:?}: {manifest}");
    }
}

/// What `--build-context` takes, each under a name that stands for nothing else.
#[test]
fn named_contexts() {
    let made = place();
    made.build(&["-t", "registry.example/app:1", "--oci-layout-path=layout"]).digest();
    let layout = made.text("layout");
    let other =
        Place::new("").file("other/f", "elsewhere").file("other/x.log", "").file("other/.dockerignore", "*.log\n");
    let table = [
        (format!("named=oci-layout://{layout}"), "FROM named\n", "files/d/f", "content"),
        (format!("named=oci-layout://{layout}:1"), "FROM scratch\nCOPY --from=named /d/f /\n", "files/f", "content"),
        (format!("alpine=oci-layout://{layout}"), "FROM docker.io/library/alpine\n", "files/d/f", "content"),
        ("named=other".to_owned(), "FROM scratch\nCOPY --from=named . /\n", "files/f", "elsewhere"),
    ];
    for (context, dockerfile, file, content) in table {
        let _ = std::fs::remove_dir_all(other.path("files"));
        std::fs::write(other.path("context/Dockerfile"), dockerfile).unwrap();
        let ran = other.build(&["--build-context", &context, "--output=files"]);
        assert_eq!(ran.code(), 0, "{context}: {}", ran.stderr);
        assert_eq!(other.read(file), content, "{context}");
        assert!(!other.path("files/x.log").exists(), "a named context has an ignore file of its own");
    }
    other.build(&["--build-context=named=nothere", "--no-push"]).failed(3, &["named context `named`", "nothere"]);
    other.build(&["--build-context=named=oci-layout://nothere", "--no-push"]).failed(3, &["named context `named`"]);
}

/// Builders that share a work directory do not get into each other's way.
#[test]
fn several_at_a_time_in_one_work_directory() {
    let place = place();
    let running: Vec<_> = (0..6)
        .map(|i| {
            let output = format!("--oci-layout-path=out{i}");
            place.start(crate::harness::ZUWAI, &["build", "--reproducible", &output, "context"])
        })
        .collect();
    let digests: Vec<String> = running.into_iter().map(|r| r.finish(b"").digest()).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    place.assert_clean();
}
