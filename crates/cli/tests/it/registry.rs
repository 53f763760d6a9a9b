//! The program and registries on 127.0.0.1.

use crate::harness::{Place, registry};
use crate::outputs::manifest_digest;

const DOCKERFILE: &str = "FROM scratch\nCOPY f /d/f\nCOPY g /g\nENV A=1\n";

fn place() -> Place {
    Place::new(DOCKERFILE).file("context/f", "content").file("context/g", "x".repeat(100_000))
}

#[test]
fn push_and_pull_back() {
    let Some(registry) = registry() else { return };
    let insecure = format!("--insecure-registry={}", registry.host());
    let tag = format!("{}/app:1", registry.host());
    let place = place().variable("SOURCE_DATE_EPOCH", "1700000000");
    let push = || place.build(&[&insecure, "-t", &tag, "--push"]);
    let digest = push().digest();
    assert_eq!(manifest_digest(&registry.host(), "app", "1"), digest);

    // The same again uploads nothing.
    let uploads = registry.count("PUT", "/blobs/uploads/") + registry.count("PATCH", "/blobs/uploads/");
    assert!(uploads >= 3, "two layers and a config: {:?}", registry.requests());
    assert_eq!(push().digest(), digest);
    let again = registry.count("PUT", "/blobs/uploads/") + registry.count("PATCH", "/blobs/uploads/");
    assert_eq!(again, uploads, "{:?}", registry.requests());

    // An image with other metadata only, elsewhere in the registry: layers are mounted, none is downloaded or sent.
    let derived = Place::new(&format!("FROM {tag}\nENV B=1\n"));
    let other = format!("{}/other:1", registry.host());
    let downloads = registry.count("GET", "/blobs/");
    derived.build(&[&insecure, "-t", &other, "--push"]).digest();
    assert_eq!(registry.count("GET", "/blobs/"), downloads + 1, "the config: {:?}", registry.requests());
    let sent = registry.count("PUT", "/other/blobs/uploads/");
    assert_eq!(sent, 1, "the config: {:?}", registry.requests());

    // Pulled back by tag and by digest.
    for reference in [other, format!("{}/app@{digest}", registry.host())] {
        let back = Place::new(&format!("FROM {reference}\nCOPY --from={tag} /g /again\n"));
        let ran = back.build(&[&insecure, "--output=files"]);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        assert_eq!(back.read("files/d/f"), "content");
        assert_eq!(back.read("files/again").len(), 100_000);
    }
}

#[test]
fn images_that_are_not_there() {
    let Some(registry) = registry() else { return };
    let host = registry.host();
    let insecure = format!("--insecure-registry={host}");
    place().build(&[&insecure, "--push", "-t", &format!("{host}/app:1")]).digest();
    for (reference, parts) in [
        (format!("{host}/app:2"), ["app:2", "Dockerfile:2"]),
        (format!("{host}/nothing:1"), ["nothing:1", "Dockerfile:2"]),
    ] {
        let place = Place::new(&format!("# a comment\nFROM {reference}\nRUN x\n"));
        let ran = place.build(&[&insecure, "--no-push"]);
        ran.failed(5, &parts);
        ran.failed(5, &["could not resolve base image"]);
        place.assert_clean();
    }
    // Another platform than there is.
    let place = Place::new(&format!("FROM {host}/app:1\n"));
    let ran = place.build(&[&insecure, "--no-push", "--platform=linux/s390x"]);
    ran.digest();
    assert!(ran.stderr.contains("InvalidBaseImagePlatform") && ran.stderr.contains("s390x"), "{}", ran.stderr);
}

#[test]
fn nobody_listens() {
    let host = format!("127.0.0.1:{}", testkit::docker_registry::free_port());
    let pull = Place::new(&format!("FROM {host}/x:1\n"));
    let ran = pull.build(&["--no-push", "--image-download-retry=0"]);
    ran.failed(5, &[&host, "connection refused", "Dockerfile:1", "hint: nothing listens"]);
    // Before any step runs.
    let push = Place::new("FROM scratch\nCOPY nothere /\n");
    let ran = push.build(&["--push", "-t", &format!("{host}/x:1"), "--push-retry=0"]);
    ran.failed(5, &[&host, "cannot be pushed to", "connection refused"]);
    push.assert_clean();
}

#[test]
fn logins() {
    let registry = match testkit::DockerRegistry::start_with_login() {
        Ok(registry) => registry,
        Err(reason) => return crate::harness::skipped(&reason),
    };
    let host = registry.host();
    let insecure = format!("--insecure-registry={host}");
    let tag = format!("{host}/app:1");
    let build = |place: &Place| place.build(&[&insecure, "--push", "-t", &tag, "--verbosity=trace"]);
    build(&place()).failed(5, &["401", &host]);

    let (user, password) = (testkit::docker_registry::USER, testkit::docker_registry::PASSWORD);
    let auth = testkit::fake_registry::base64(format!("{user}:{password}").as_bytes());
    let config = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{auth}\"}}}}}}");
    let ran = build(&place().file(".docker/config.json", &config));
    ran.digest();
    assert!(!ran.stderr.contains(&auth) && !ran.stderr.contains(password), "{}", ran.stderr);
    build(&place().variable("DOCKER_AUTH_CONFIG", &config)).digest();

    let wrong = testkit::fake_registry::base64(format!("{user}:not-the-word").as_bytes());
    let config = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{wrong}\"}}}}}}");
    let ran = build(&place().file(".docker/config.json", &config));
    ran.failed(5, &["401", "config.json"]);
    assert!(!ran.stderr.contains("not-the-word"), "{}", ran.stderr);
    build(&place().file(".docker/config.json", "{broken")).failed(5, &["401", "config.json"]);
}

/// A file that nobody named is warned about when it cannot be read; one that somebody named has to be readable.
#[test]
fn logins_that_cannot_be_read() {
    type Make<'a> = &'a dyn Fn(&Place, &str);
    let broken: [(&str, Make<'_>); 4] = [
        ("no JSON", &|place, path| std::fs::write(place.path(path), "{broken hunter2").unwrap()),
        ("another shape", &|place, path| std::fs::write(place.path(path), r#"{"auths":"hunter2"}"#).unwrap()),
        ("no text", &|place, path| std::fs::write(place.path(path), [0xff, 0xfe]).unwrap()),
        ("a directory", &|place, path| std::fs::create_dir(place.path(path)).unwrap()),
    ];
    for (what, make) in broken {
        for (path, name) in [(".docker/config.json", "config.json"), (".config/containers/auth.json", "auth.json")] {
            let place = place();
            std::fs::create_dir_all(place.path(path).parent().unwrap()).unwrap();
            make(&place, path);
            let ran = place.build(&["--no-push"]);
            ran.digest();
            assert!(ran.stderr.contains("warning: could not read"), "{what}: {}", ran.stderr);
            assert!(ran.stderr.contains(name) && !ran.stderr.contains("hunter2"), "{what}: {}", ran.stderr);

            let named = match name {
                "config.json" => place.variable("DOCKER_CONFIG", ".docker"),
                _ => place.variable("REGISTRY_AUTH_FILE", path),
            };
            let ran = named.build(&["--no-push"]);
            ran.failed(5, &["could not read", name]);
            assert!(!ran.stderr.contains("hunter2"), "{what}: {}", ran.stderr);
        }
    }
    // Nothing where there might be something, also where that is named, and what is there but empty.
    place()
        .variable("DOCKER_CONFIG", "nowhere")
        .variable("REGISTRY_AUTH_FILE", "nowhere")
        .build(&["--no-push"])
        .digest();
    place().file(".docker/config.json", "").build(&["--no-push"]).digest();
    place().file(".docker/config.json", "{\"auths\":null,\"Plugins\":5}").build(&["--no-push"]).digest();
    // A home that is closed to us, as a pod's random user meets it: here, one that is no directory.
    let ran = place().file(".docker", "").build(&["--no-push"]);
    ran.digest();
    assert!(ran.stderr.contains("warning: could not read"), "{}", ran.stderr);
    // It is told again where a login is missing.
    let Ok(registry) = testkit::DockerRegistry::start_with_login() else { return };
    let tag = format!("{}/app:1", registry.host());
    let ran = place().file(".docker/config.json", "{").build(&["--push", "-t", &tag]);
    ran.failed(5, &["401", "hint:", "could not read the credentials in"]);
}

#[test]
fn registries_on_this_machine_need_no_flag() {
    let Some(registry) = registry() else { return };
    let local = registry.host().replace("127.0.0.1", "localhost");
    for host in [registry.host(), local] {
        let tag = format!("{host}/app:1");
        place().build(&["-t", &tag, "--push"]).digest();
        let back = Place::new(&format!("FROM {tag}\n"));
        assert_eq!(back.build(&["--output=files"]).code(), 0);
        assert_eq!(back.read("files/d/f"), "content");
    }
    // With a certificate that nobody vouches for it is not spoken to in plain text instead.
    let Ok(registry) = testkit::DockerRegistry::start_with_tls() else { return };
    let tag = format!("{}/app:1", registry.host());
    place().build(&["-t", &tag, "--push"]).failed(5, &["is not trusted", "--registry-certificate"]);
}

/// Pipelines write `--flag=$VARIABLE` and leave the variable empty.
#[test]
fn empty_values_are_none() {
    let variables = ["KANIKO_REGISTRY_MIRROR", "KANIKO_REGISTRY_MAP", "KANIKO_NO_PUSH", "KANIKO_DIR", "DOCKER_CONFIG"];
    let place =
        variables.iter().fold(place().variable("SOURCE_DATE_EPOCH", "0"), |place, name| place.variable(name, ""));
    let plain = place.build(&["--no-push"]).digest();
    let flags = [
        "--target=",
        "--platform=",
        "--file=",
        "--dockerfile=",
        "--build-arg=",
        "--label=",
        "--secret=",
        "--ssh=",
        "--tag=",
        "--destination=",
        "--cache-dir=",
        "--cache-repo=",
        "--cache=",
        "--output=",
        "--tar-path=",
        "--digest-file=",
        "--registry-mirror=",
        "--registry-map=",
        "--annotation=",
        "--add-host=",
        "--context-sub-path=",
        "--build-context=",
        "--compression=",
        "--compression-level=",
        "--image-format=",
        "--push-retry=",
        "--verbosity=",
        "--log-format=",
        "--git=",
        "--progress=",
        "--isolation=",
        "--jobs=",
        "--kaniko-dir=",
        "--call=",
        "--on-failure=",
        "--ignore-path=",
        "--context=",
        "--snapshot-mode=",
        "--reproducible=",
        "--skip-tls-verify-registry=",
        "--insecure-registry=",
        "--registry-certificate=",
    ];
    assert_eq!(place.build(&[&["--no-push"], &flags[..]].concat()).digest(), plain);
    assert_eq!(place.build(&["--no-push", "--target", "", "-t", "", "-f", "", "--target=,"]).digest(), plain);
    place.build(&["--push", "--tag="]).failed(2, &["the image would go nowhere"]);
}

/// Images of Docker Hub from a registry of one's own, by every flag and variable for it.
#[test]
fn maps_and_mirrors() {
    let Some(registry) = registry() else { return };
    let host = registry.host();
    let insecure = format!("--insecure-registry={host}");
    for repository in ["library/base", "mapped/library/base"] {
        place().build(&[&insecure, "--push", "-t", &format!("{host}/{repository}:1")]).digest();
    }
    let table = [
        (format!("--registry-mirror={host}"), "library/base"),
        (format!("--registry-map=docker.io={host}"), "library/base"),
        (format!("--registry-map=index.docker.io={host}/mapped"), "mapped/library/base"),
        (format!("--registry-map=other.example=nowhere.example;docker.io={host}"), "library/base"),
    ];
    for (flag, repository) in table {
        let before = registry.count("GET", &format!("/v2/{repository}/manifests/"));
        let back = Place::new("FROM base:1\n");
        let ran = back.build(&[&insecure, &flag, "--skip-default-registry-fallback", "--output=files"]);
        assert_eq!(ran.code(), 0, "{flag}: {}", ran.stderr);
        assert_eq!(back.read("files/d/f"), "content", "{flag}");
        assert!(
            registry.count("GET", &format!("/v2/{repository}/manifests/")) > before,
            "{flag}: {:?}",
            registry.requests()
        );
    }
    let place = Place::new("FROM base:1\n").variable("KANIKO_REGISTRY_MIRROR", &host);
    assert_eq!(place.build(&[&insecure, "--output=files"]).code(), 0);
    // Without a fallback what the mirror does not have is nowhere.
    let ran = Place::new("FROM base:2\n").build(&[
        &insecure,
        &format!("--registry-mirror={host}"),
        "--skip-default-registry-fallback",
        "--no-push",
    ]);
    ran.failed(5, &["base:2"]);
}

#[test]
fn pushes_as_outputs() {
    let Some(registry) = registry() else { return };
    let host = registry.host();
    let insecure = format!("--insecure-registry={host}");
    let named = |name: &str| format!("{host}/{name}");
    let place = place().variable("SOURCE_DATE_EPOCH", "0");
    let one = place.build(&[&insecure, &format!("--output=type=registry,name={}", named("a:1"))]).digest();
    let two =
        place.build(&[&insecure, &format!("--output=type=image,push=true,\"name={},{}\"", named("b:1"), named("c:2"))]);
    assert_eq!(two.digest(), one);
    for (repository, tag) in [("a", "1"), ("b", "1"), ("c", "2")] {
        assert_eq!(manifest_digest(&host, repository, tag), one, "{repository}");
    }
}
