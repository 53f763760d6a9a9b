//! Against Debian's `docker-registry`: what others rely on works with a registry that is not ours.

use std::io::{self, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{bytes_layer, image_of, reference, registry, registry_from, registry_with, settings};
use auth::Credentials;
use oci::{Flavor, Platform};
use store::{Exporter as _, ImageSource as _, StoreError};
use testkit::docker_registry::{APP_TOKEN, PASSWORD, USER};
use testkit::{DockerRegistry, FakeRegistry, Fault};
use zuwai_registry::{FailureKind, RegistrySettings, failure};

/// The registry, or nothing and the reason aloud.
macro_rules! started {
    ($start:expr) => {
        match $start {
            Ok(server) => server,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return;
            }
        }
    };
}

#[test]
fn push_and_pull_back() {
    let server = started!(DockerRegistry::start());
    for flavor in [Flavor::Oci, Flavor::Docker] {
        let image = image_of(
            flavor,
            vec![bytes_layer(b"one", flavor), bytes_layer(b"two", flavor), bytes_layer(b"one", flavor)],
        );
        let to = reference(&server.host(), "deep/er/app:1");
        let digest = registry(&server.host()).exporter(to.clone()).export(&image).unwrap();
        let found = registry(&server.host()).image(&to, &Platform::host()).unwrap();
        assert_eq!(found.digest.as_ref(), Some(&digest));
        assert_eq!(found.flavor, flavor);
        assert_eq!(found.config, image.config);
        let contents: Vec<Vec<u8>> = found.layers.iter().map(crate::common::content).collect();
        assert_eq!(contents, [b"one", b"two", b"one"]);
    }
}

#[test]
fn push_with_a_password() {
    let server = started!(DockerRegistry::start_with_login());
    let mut credentials = Credentials::anonymous();
    let auth = testkit::fake_registry::base64(format!("{USER}:{PASSWORD}").as_bytes());
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host());
    credentials.add_config(&text, "config.json").unwrap();
    let image = image_of(Flavor::Oci, vec![bytes_layer(b"one", Flavor::Oci)]);
    let to = reference(&server.host(), "app:1");
    let ours = registry_with(&[&server.host()], credentials);
    ours.check_push_permission(&to).unwrap();
    ours.exporter(to.clone()).export(&image).unwrap();
    assert_eq!(crate::common::content(&ours.image(&to, &Platform::host()).unwrap().layers[0]), b"one");

    let refused = registry(&server.host()).check_push_permission(&to).unwrap_err();
    assert!(refused.to_string().contains("401 UNAUTHORIZED"), "{refused}");
}

#[test]
fn push_over_tls() {
    let server = started!(DockerRegistry::start_with_tls());
    let image = image_of(Flavor::Oci, vec![bytes_layer(&vec![5; 2_000_000], Flavor::Oci)]);
    let to = reference(&server.host(), "app:1");
    let with = |change: &dyn Fn(&mut net::Settings)| {
        let mut settings = settings(&[]);
        change(&mut settings);
        registry_from(settings, Credentials::anonymous(), RegistrySettings::new())
    };
    let trusting = with(&|s| s.certificates = vec![(server.host(), testkit::certificates::file("ca.pem"))]);
    trusting.exporter(to.clone()).export(&image).unwrap();
    let careless = with(&|s| s.skip_verify = vec![server.host()]);
    let found = careless.image(&to, &Platform::host()).unwrap();
    assert_eq!(crate::common::content(&found.layers[0]).len(), 2_000_000);
    let over =
        |version: &str, part: &str| server.requests().iter().filter(|r| r.contains(part)).all(|r| r.contains(version));
    assert!(over("HTTP/2.0\"", "/manifests/1"), "{:#?}", server.requests());
    assert!(over("HTTP/1.1\"", "\"PATCH"), "bodies of blobs have connections of their own: {:#?}", server.requests());

    // Where plain HTTP is allowed, TLS is tried first, and its verdict stands.
    let insecure = with(&|s| s.plain_http = vec![server.host()]);
    let error = insecure.image(&to, &Platform::host()).err().unwrap();
    assert_eq!(failure(&error).map(|f| f.kind), Some(FailureKind::Tls), "{error}");
    let StoreError::Remote { hint, .. } = &error else { panic!("{error:?}") };
    assert!(hint.as_deref().unwrap().contains("--skip-tls-verify-registry"), "{hint:?}");
}

#[test]
fn push_with_a_token() {
    let realm = FakeRegistry::start();
    let body = format!(r#"{{"token":"{APP_TOKEN}","expires_in":300}}"#);
    realm.fail("GET", "/token", 100, Fault::Answer { status: 200, headers: Vec::new(), body });
    let server = started!(DockerRegistry::start_with_token(&format!("http://{}/token", realm.host())));
    let ours = registry(&server.host());
    let to = reference(&server.host(), "app:1");
    let image = image_of(Flavor::Oci, vec![bytes_layer(b"one", Flavor::Oci)]);
    ours.check_push_permission(&to).unwrap();
    ours.exporter(to.clone()).export(&image).unwrap();
    assert_eq!(crate::common::content(&ours.image(&to, &Platform::host()).unwrap().layers[0]), b"one");
    assert_eq!(realm.requests().len(), 2, "one token to push, one to pull");

    let refused = ours.check_push_permission(&reference(&server.host(), "other:1")).unwrap_err();
    assert!(refused.to_string().contains("401 UNAUTHORIZED"), "{refused}");
}

#[test]
fn what_is_there_is_not_uploaded_again() {
    let server = started!(DockerRegistry::start());
    let image = image_of(Flavor::Oci, vec![bytes_layer(b"one", Flavor::Oci), bytes_layer(b"two", Flavor::Oci)]);
    let to = reference(&server.host(), "app:1");
    registry(&server.host()).exporter(to.clone()).export(&image).unwrap();
    let before = server.count("PATCH", "/v2/app/");
    assert_eq!(before, 3, "two layers and a config");
    registry(&server.host()).exporter(to).export(&image).unwrap();
    assert_eq!(server.count("PATCH", "/v2/app/"), before);
}

#[test]
fn layers_are_mounted_from_their_origin() {
    let server = started!(DockerRegistry::start());
    let ours = registry(&server.host());
    let image = image_of(Flavor::Oci, vec![bytes_layer(b"base", Flavor::Oci)]);
    ours.exporter(reference(&server.host(), "base:1")).export(&image).unwrap();
    let base = registry(&server.host()).image(&reference(&server.host(), "base:1"), &Platform::host()).unwrap();
    registry(&server.host()).exporter(reference(&server.host(), "app:1")).export(&base).unwrap();
    assert_eq!(server.count("POST", "/v2/app/blobs/uploads/?mount="), 1);
    assert_eq!(server.count("PATCH", "/v2/app/"), 1, "only the config went up");
    assert_eq!(server.count("GET", &base.layers[0].descriptor.digest.to_string()), 0, "and nothing came down");
}

#[test]
fn an_upload_that_is_cut_arrives_all_the_same() {
    let server = started!(DockerRegistry::start());
    let proxy = cutting_proxy(server.host(), 1_000_000);
    let layer = bytes_layer(&vec![9; 3_000_000], Flavor::Oci);
    let image = image_of(Flavor::Oci, vec![layer.clone()]);
    registry(&proxy).exporter(reference(&proxy, "app:1")).export(&image).unwrap();
    let found = registry(&server.host()).image(&reference(&server.host(), "app:1"), &Platform::host()).unwrap();
    assert_eq!(crate::common::content(&found.layers[0]).len(), 3_000_000);
    assert!(server.count("PATCH", "/v2/app/") >= 3, "layer, layer again, config: {:#?}", server.requests());
}

/// Passes connections on to `host`, and cuts the first one that has sent more than `limit` bytes.
fn cutting_proxy(host: String, limit: u64) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cut = Arc::new(AtomicBool::new(false));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&host).unwrap();
            let (mut client_reads, mut server_writes) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let cut = cut.clone();
            std::thread::spawn(move || {
                let most = if cut.load(Ordering::Relaxed) { u64::MAX } else { limit };
                let sent = io::copy(&mut (&mut client_reads).take(most), &mut server_writes);
                if sent.is_ok_and(|sent| sent == most) {
                    cut.store(true, Ordering::Relaxed);
                }
                let _ = client_reads.shutdown(Shutdown::Both);
                let _ = server_writes.shutdown(Shutdown::Both);
            });
            let (mut client, mut server) = (client, server);
            std::thread::spawn(move || io::copy(&mut server, &mut client));
        }
    });
    address
}

#[test]
fn skopeo_reads_what_we_push_and_we_read_what_skopeo_pushes() {
    let server = started!(DockerRegistry::start());
    let image = image_of(Flavor::Oci, vec![bytes_layer(&testkit::fixture::tar(&[("a", b"1")]), Flavor::Oci)]);
    registry(&server.host()).exporter(reference(&server.host(), "ours:1")).export(&image).unwrap();
    let url = |name: &str| format!("docker://{}/{name}", server.host());
    let copied = Command::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--format=v2s2",
        ])
        .args([url("ours:1"), url("theirs:1")])
        .status();
    match copied {
        Err(error) => return eprintln!("SKIPPED: `skopeo` is not installed: {error}"),
        Ok(status) => assert!(status.success()),
    }
    let found = registry(&server.host()).image(&reference(&server.host(), "theirs:1"), &Platform::host()).unwrap();
    assert_eq!(found.flavor, Flavor::Docker);
    assert_eq!(found.layers[0].diff_id, image.layers[0].diff_id);
    let mut plain = Vec::new();
    found.layers[0].uncompressed().unwrap().read_to_end(&mut plain).unwrap();
    assert_eq!(plain, testkit::fixture::tar(&[("a", b"1")]));
}
