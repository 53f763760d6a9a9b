//! Bad days: every fault that real registries have shown, one per test, against a registry that has it on demand.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::{
    Heard, content, kind, logged_in, one_layer, pull, reference, registry, registry_from, registry_with, settings,
    tiny, with_base,
};
use auth::{Credentials, Login, Secret};
use net::Net;
use oci::{Digest, Flavor, Platform, Reference, media_type};
use store::{Exporter as _, Image, ImageSource as _, StoreError, TransferState};
use testkit::fixture::{self, Fixture};
use testkit::{FakeRegistry, Fault};
use zuwai_registry::{FailureKind, Registry, RegistrySettings, failure};

/// What reading layer 1 of `image` gives.
fn read_layer(image: &Image) -> Result<Vec<u8>, StoreError> {
    let layer = &image.layers[1];
    let mut bytes = Vec::new();
    match layer.content.open(&layer.descriptor)?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(StoreError::from_read(error)),
    }
}

// ---- tokens

#[test]
fn tokens_are_fetched_once_per_scope() {
    let (server, _, base) = with_base();
    server.require_token(Some(("me", "secret")), Some(300));
    let ours = registry_with(&[&server.host()], logged_in(&server.host(), "me", "secret"));
    let image = pull(&ours, &base).unwrap();
    image.layers.iter().for_each(|layer| drop(content(layer)));
    assert_eq!(server.requests_of("GET", "/token").len(), 1, "manifest, config and layers need one token");
    assert_eq!(server.requests_of("GET", "/v2/base/").iter().filter(|r| r.status == 401).count(), 1, "and one 401");
    let asked = &server.requests_of("GET", "/token")[0];
    assert!(asked.path.contains("scope=repository%3Abase%3Apull&account=me"), "{}", asked.path);
    assert!(asked.authorization().unwrap().starts_with("Basic "));
}

#[test]
fn a_token_is_for_its_repository_alone() {
    let (server, image, base) = with_base();
    server.add("other", "1", &image);
    server.require_token(None, Some(300));
    let ours = registry(&server.host());
    pull(&ours, &base).unwrap();
    pull(&ours, &reference(&server.host(), "other:1")).unwrap();
    let asked = server.requests_of("GET", "/token");
    assert_eq!(asked.len(), 2);
    assert!(!asked[1].path.contains("base"), "{}", asked[1].path);
}

#[test]
fn anonymous_tokens_work() {
    let (server, _, base) = with_base();
    server.require_token(None, None);
    let ours = registry(&server.host());
    pull(&ours, &base).unwrap();
    assert_eq!(server.requests_of("GET", "/token")[0].authorization(), None);
}

#[test]
fn a_token_that_expires_during_a_push_is_renewed() {
    let (server, ..) = with_base();
    server.require_token(None, Some(300));
    let ours = registry(&server.host());
    let to = reference(&server.host(), "app:1");
    ours.exporter(to.clone()).export(&one_layer(b"first")).unwrap();
    server.revoke_tokens();
    ours.exporter(to).export(&one_layer(b"second")).unwrap();
    assert_eq!(server.requests_of("PUT", "/v2/app/manifests/1").last().unwrap().status, 201);
}

#[test]
fn a_token_that_expires_in_the_middle_of_an_upload_is_renewed() {
    let (server, ..) = with_base();
    server.require_token(None, Some(300));
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", server.host());
    let refusal = Fault::Answer { status: 401, headers: vec![("WWW-Authenticate", challenge)], body: String::new() };
    server.fail("PATCH", "/v2/app/", 1, refusal);
    registry(&server.host()).exporter(reference(&server.host(), "app:1")).export(&one_layer(b"first")).unwrap();
    assert!(server.requests_of("GET", "/token").len() >= 2);
}

#[test]
fn an_identity_token_is_exchanged() {
    let (server, _, base) = with_base();
    server.require_token(Some(("nobody", "x")), Some(300));
    server.accept_identity("refresh me");
    let mut credentials = Credentials::anonymous();
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"dG9rZW46","identitytoken":"refresh me"}}}}}}"#, server.host());
    credentials.add_config(&text, "`config.json`").unwrap();
    pull(&registry_with(&[&server.host()], credentials), &base).unwrap();
    assert_eq!(server.requests_of("POST", "/token").len(), 1);
}

#[test]
fn a_registry_token_is_used_as_it_is() {
    let (server, _, base) = with_base();
    server.require_token(Some(("nobody", "x")), Some(300));
    server.accept_token("mine", "repository:base:pull");
    let mut credentials = Credentials::anonymous();
    credentials.add_login(&server.host(), Login::Registry { token: Secret::new("mine") }, "test");
    pull(&registry_with(&[&server.host()], credentials), &base).unwrap();
    assert!(server.requests_of("GET", "/token").is_empty());
}

#[test]
fn wrong_credentials_name_their_entry_and_not_the_secret() {
    for token in [true, false] {
        let (server, _, base) = with_base();
        match token {
            true => server.require_token(Some(("me", "right")), None),
            false => server.require_basic("me", "right"),
        }
        let host = server.host();
        let error = pull(&registry_with(&[&host], logged_in(&host, "me", "hunter2")), &base).err().unwrap();
        assert_eq!(kind(&error), Some(FailureKind::Unauthorized), "{error}");
        let StoreError::Remote { message, hint, .. } = &error else { panic!("{error:?}") };
        assert!(message.starts_with(&format!("could not pull `{host}/base:1`: ")), "{message}");
        assert!(message.contains("401"), "{message}");
        let wanted = format!("credentials came from `test.json`, entry `{host}`");
        assert!(hint.as_deref().unwrap().contains(&wanted), "{hint:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
        let tried = server.requests().iter().filter(|r| r.authorization().is_some()).count();
        assert_eq!(tried, 1, "a refused password is not offered again");
    }
}

#[test]
fn no_credentials_are_said_to_be_missing() {
    let (server, _, base) = with_base();
    server.require_basic("me", "right");
    let mut credentials = Credentials::anonymous();
    credentials.add_config(r#"{"auths":{"elsewhere.example":{"auth":"YTpi"}}}"#, "`config.json`").unwrap();
    let host = server.host();
    let error = pull(&registry_with(&[&host], credentials), &base).err().unwrap();
    let StoreError::Remote { hint, .. } = &error else { panic!("{error:?}") };
    assert!(hint.as_deref().unwrap().contains(&format!("no credentials for `{host}` in `config.json`")), "{hint:?}");
}

// ---- retries

#[test]
fn what_passes_is_tried_again() {
    let faults = [
        ("429 with Retry-After", "GET", "/manifests/", Fault::retry_after(429, 0)),
        ("429", "GET", "/blobs/", Fault::status(429)),
        ("500", "GET", "/manifests/", Fault::status(500)),
        ("503", "GET", "/blobs/", Fault::status(503)),
        ("408", "GET", "/manifests/", Fault::status(408)),
        ("reset before the answer", "GET", "/manifests/", Fault::CutRequest { after_bytes: 0 }),
    ];
    for (name, method, part, fault) in faults {
        let (server, _, base) = with_base();
        server.fail(method, part, 2, fault);
        let image = pull(&registry(&server.host()), &base).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read_layer(&image).unwrap(), vec![7; 100_000], "{name}");
    }
}

#[test]
fn what_stays_is_told_after_the_last_retry() {
    let (server, _, base) = with_base();
    server.fail("GET", "/manifests/", 100, Fault::error(503, "UNAVAILABLE", "down for\\nmaintenance"));
    let mut settings = settings(&[&server.host()]);
    settings.retries = 2;
    let error = pull(&registry_from(settings, Credentials::anonymous(), RegistrySettings::new()), &base).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::Server));
    let host = server.host();
    assert_eq!(error.to_string(), format!("could not pull `{host}/base:1`: 503 UNAVAILABLE: down for maintenance"));
    assert_eq!(server.requests_of("GET", "/manifests/").len(), 3);
}

#[test]
fn a_limit_that_lasts_an_hour_is_not_waited_for() {
    let (server, _, base) = with_base();
    server.fail("GET", "/manifests/", 100, Fault::retry_after(429, 3600));
    let error = pull(&registry(&server.host()), &base).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::RateLimited));
    let StoreError::Remote { hint, .. } = &error else { panic!("{error:?}") };
    assert!(hint.as_deref().unwrap().starts_with("wait 3600 s"), "{hint:?}");
    assert_eq!(server.requests_of("GET", "/manifests/").len(), 1);
}

#[test]
fn retries_are_told_of() {
    let (server, image, base) = with_base();
    server.fail("GET", "/blobs/", 1, Fault::status(500));
    let heard = Arc::new(Heard::default());
    let net = Net::new(settings(&[&server.host()])).unwrap();
    let ours = Registry::new(net, Credentials::anonymous(), heard.clone(), RegistrySettings::new());
    pull(&ours, &base).unwrap();
    let states = heard.states(image.config().as_str());
    assert_eq!(states[0], TransferState::Retry("500 Internal Server Error".to_owned()));
    assert_eq!(states.last(), Some(&TransferState::Done));
}

// ---- blobs that come

#[test]
fn a_download_goes_on_after_a_cut() {
    for ignores_range in [false, true] {
        let (server, image, base) = with_base();
        let found = pull(&registry(&server.host()), &base).unwrap();
        server.forget_requests();
        let blob = image.layer(1).to_string();
        server.fail("GET", &blob, 1, Fault::CutAnswer { after_bytes: 60_000 });
        if ignores_range {
            server.fail("GET", &blob, 1, Fault::Ignore { header: "range" });
        }
        assert_eq!(read_layer(&found).unwrap(), vec![7; 100_000]);
        let requests = server.requests_of("GET", &blob);
        assert_eq!(requests.len(), 2);
        if !ignores_range {
            assert!(requests[1].headers["range"].starts_with("bytes="), "{:?}", requests[1].headers);
        }
    }
}

#[test]
fn a_truncated_blob_is_completed_or_refused() {
    let (server, image, base) = with_base();
    let found = pull(&registry(&server.host()), &base).unwrap();
    let blob = image.layer(1).to_string();
    server.fail("GET", &blob, 1, Fault::Truncate { bytes: 10 });
    assert_eq!(read_layer(&found).unwrap().len(), 100_000);

    server.fail("GET", &blob, 100, Fault::Truncate { bytes: 0 });
    let error = read_layer(&found).unwrap_err();
    assert!(matches!(error, StoreError::WrongSize { expected: 100_000, actual: 0, .. }), "{error:?}");
}

#[test]
fn a_falsified_blob_is_refused() {
    let (server, image, base) = with_base();
    let found = pull(&registry(&server.host()), &base).unwrap();
    server.fail("GET", image.layer(1).as_str(), 1, Fault::Falsify);
    let error = read_layer(&found).unwrap_err();
    assert!(matches!(&error, StoreError::WrongDigest { expected, .. } if expected == image.layer(1)), "{error:?}");
}

#[test]
fn a_blob_that_is_too_long_is_refused() {
    let (server, image, base) = with_base();
    server.add_blob("base", image.layer(1), &vec![7; 100_001]);
    let found = pull(&registry(&server.host()), &base).unwrap();
    let error = read_layer(&found).unwrap_err();
    assert!(matches!(error, StoreError::WrongSize { expected: 100_000, .. }), "{error:?}");
}

#[test]
fn a_stalled_download_is_begun_again() {
    let (server, image, base) = with_base();
    let mut settings = settings(&[&server.host()]);
    settings.idle_timeout = Duration::from_millis(200);
    let found = pull(&registry_from(settings, Credentials::anonymous(), RegistrySettings::new()), &base).unwrap();
    server.fail("GET", image.layer(1).as_str(), 1, Fault::Stall { after_bytes: 1000, pause: Duration::from_secs(3) });
    let started = Instant::now();
    assert_eq!(read_layer(&found).unwrap().len(), 100_000);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn cancelling_ends_a_transfer_at_once() {
    let (server, image, base) = with_base();
    let settings = settings(&[&server.host()]);
    let cancel = settings.cancel.clone();
    let found = pull(&registry_from(settings, Credentials::anonymous(), RegistrySettings::new()), &base).unwrap();
    server.fail("GET", image.layer(1).as_str(), 1, Fault::Stall { after_bytes: 1000, pause: Duration::from_secs(4) });
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        cancel.store(true, Ordering::Relaxed);
    });
    let started = Instant::now();
    assert!(matches!(read_layer(&found), Err(StoreError::Cancelled)));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn another_host_gets_no_authorization() {
    let (server, image, base) = with_base();
    let storage = FakeRegistry::start();
    image.blobs.iter().for_each(|(digest, bytes)| storage.add_blob("base", digest, bytes));
    server.require_basic("me", "secret");
    server.redirect_blobs(&format!("http://{}", storage.host()));
    let ours = registry_with(&[&server.host(), &storage.host()], logged_in(&server.host(), "me", "secret"));
    let found = pull(&ours, &base).unwrap();
    assert_eq!(read_layer(&found).unwrap().len(), 100_000);
    assert!(server.requests_of("GET", "/blobs/").iter().all(|r| r.authorization().is_some()));
    assert_eq!(storage.requests().len(), 2, "config and layer");
    assert!(storage.requests().iter().all(|r| r.authorization().is_none()));
}

// ---- manifests

#[test]
fn a_manifest_that_is_not_its_digest_is_refused() {
    let (server, image, _) = with_base();
    let by_digest = reference(&server.host(), &format!("base@{}", image.digest()));
    server.fail("GET", "/manifests/", 1, Fault::Falsify);
    let error = pull(&registry(&server.host()), &by_digest).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::WrongDigest), "{error}");
}

#[test]
fn unknown_tags_and_repositories_are_told_apart() {
    let (server, ..) = with_base();
    let host = server.host();
    let cases = [
        ("base:2", FailureKind::ManifestNotFound, "404 MANIFEST_UNKNOWN: manifest unknown", "has no `base:2`"),
        ("nothing:1", FailureKind::RepositoryNotFound, "404 NAME_UNKNOWN: name unknown", "has no repository `nothing`"),
    ];
    for (name, wanted, message, hinted) in cases {
        let error = pull(&registry(&host), &reference(&host, name)).err().unwrap();
        assert_eq!(kind(&error), Some(wanted), "{error}");
        assert_eq!(error.to_string(), format!("could not pull `{host}/{name}`: {message}"));
        let StoreError::Remote { hint, .. } = &error else { panic!("{error:?}") };
        assert!(hint.as_deref().unwrap().contains(hinted), "{hint:?}");
    }
}

#[test]
fn an_index_leads_to_the_platform() {
    let server = FakeRegistry::start();
    let platform = |text: &str| Platform::parse(text).unwrap();
    let image = |text: &str| fixture::image(&[text.as_bytes().to_vec()], &platform(text), Flavor::Oci);
    let images = ["linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7"].map(image);
    let mut entries: Vec<_> = images.iter().map(Fixture::descriptor).collect();
    images.iter().for_each(|i| server.add("app", i.digest().as_str(), i));
    let mut attestation = entries[0].clone();
    attestation.platform = Some(Platform::new("unknown", "unknown", None));
    entries.insert(0, attestation);
    let index = fixture::index(entries);
    server.add_manifest("app", "1", media_type::OCI_INDEX, &index);
    let nested =
        fixture::index(vec![oci::Descriptor::new(media_type::OCI_INDEX, Digest::of(&index), index.len() as u64)]);
    server.add_manifest("app", "nested", media_type::OCI_INDEX, &nested);

    let ours = registry(&server.host());
    let index_digest = Digest::of(&index);
    let by_digest = format!("app@{index_digest}");
    for (name, wanted, expected) in [
        ("app:1", "linux/amd64", &images[0]),
        ("app:1", "linux/arm64/v8", &images[1]),
        ("app:1", "linux/arm/v6", &images[2]),
        ("app:1", "linux/arm/v8", &images[3]),
        ("app:nested", "linux/arm64", &images[1]),
        (&by_digest, "linux/amd64", &images[0]),
    ] {
        let found = ours.image(&reference(&server.host(), name), &platform(wanted)).unwrap();
        assert_eq!(found.digest, Some(expected.digest()), "{name} {wanted}");
    }
    assert_eq!(ours.resolve(&reference(&server.host(), "app:1")).unwrap(), index_digest);

    let error = ours.image(&reference(&server.host(), "app:1"), &platform("linux/s390x")).err().unwrap();
    let StoreError::Platform { available, wanted, .. } = &error else { panic!("{error:?}") };
    assert_eq!(
        (wanted.as_str(), available.as_str()),
        ("linux/s390x", "linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64")
    );
}

#[test]
fn what_is_no_image_is_refused_with_its_kind() {
    let image = tiny();
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let cases = [
        (r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#.to_owned(), "schema 1"),
        (text.replace(media_type::OCI_LAYER, "application/vnd.oci.image.layer.v1.tar+encrypted"), "tar+encrypted"),
        (
            text.replace(media_type::OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json"),
            "vnd.cncf.helm.config.v1+json",
        ),
        (text.replacen('{', r#"{"manifests":[],"#, 1), "at once"),
        ("<html>".to_owned(), "not a manifest"),
        ("{}".to_owned(), "neither"),
    ];
    for (bytes, expected) in cases {
        let server = FakeRegistry::start();
        server.add("base", "1", &image);
        server.add_manifest("base", "1", "application/json", bytes.as_bytes());
        let error = pull(&registry(&server.host()), &reference(&server.host(), "base:1")).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_manifest_without_end_is_refused() {
    let (server, _, base) = with_base();
    server.add_manifest("base", "1", media_type::OCI_MANIFEST, &vec![b' '; 9 << 20]);
    let error = pull(&registry(&server.host()), &base).err().unwrap();
    assert!(error.to_string().contains("larger than"), "{error}");
}

// ---- mirrors

#[test]
fn mirrors_are_asked_first_and_get_credentials_of_their_own() {
    let (hub, image, base) = with_base();
    let (empty, full) = (FakeRegistry::start(), FakeRegistry::start());
    full.add("hub/base", "1", &image);
    full.require_basic("mirror", "m");
    let mut credentials = logged_in(&hub.host(), "me", "secret");
    let login = Login::Basic { username: "mirror".to_owned(), password: Secret::new("m") };
    credentials.add_login(&full.host(), login, "test");
    let maps = vec![(hub.host(), empty.host()), (hub.host(), format!("{}/hub", full.host()))];
    let how = RegistrySettings { maps, ..RegistrySettings::new() };
    let settings = settings(&[&hub.host(), &empty.host(), &full.host()]);
    let found = pull(&registry_from(settings, credentials, how), &base).unwrap();
    assert_eq!(read_layer(&found).unwrap().len(), 100_000);
    assert_eq!(
        found.layers[0].origin.as_ref().unwrap().registry,
        full.host(),
        "it can be mounted from where it was found"
    );
    assert!(hub.requests_of("GET", "/manifests/").is_empty());
    assert_eq!(empty.requests_of("GET", "/manifests/").len(), 1);
    let shown: Vec<_> = full.requests().iter().filter_map(|r| r.authorization().map(str::to_owned)).collect();
    assert!(shown.iter().all(|a| *a == format!("Basic {}", testkit::fake_registry::base64(b"mirror:m"))));
}

#[test]
fn without_fallback_the_mirror_has_the_last_word() {
    let (hub, _, base) = with_base();
    let empty = FakeRegistry::start();
    let settings = || settings(&[&hub.host(), &empty.host()]);
    let maps = vec![(hub.host(), empty.host())];
    let how = RegistrySettings { maps, ..RegistrySettings::new() };
    let strict = RegistrySettings { skip_fallback: true, ..how.clone() };
    pull(&registry_from(settings(), Credentials::anonymous(), how), &base).unwrap();
    let error = pull(&registry_from(settings(), Credentials::anonymous(), strict), &base).err().unwrap();
    assert!(error.to_string().contains(&empty.host()), "{error}");
}

/// Whoever set a mirror up looks for its answer first.
#[test]
fn every_place_that_was_tried_is_in_the_message() {
    let (missing, refusing, hub) = (FakeRegistry::start(), FakeRegistry::start(), FakeRegistry::start());
    refusing.require_basic("somebody", "else");
    let maps = vec![(hub.host(), missing.host()), (hub.host(), refusing.host())];
    let how = RegistrySettings { maps, ..RegistrySettings::new() };
    let settings = settings(&[&hub.host(), &missing.host(), &refusing.host()]);
    let wanted = reference(&hub.host(), "base:1");
    let error = pull(&registry_from(settings, Credentials::anonymous(), how), &wanted).err().unwrap();
    let StoreError::Remote { message, hint, .. } = &error else { panic!("{error:?}") };
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines[0].starts_with(&format!("could not pull `{}/base:1`: 404", hub.host())), "{message}");
    assert!(lines[1].starts_with(&format!("mirror `{}`: could not pull", missing.host())), "{message}");
    assert!(lines[1].contains("404"), "{message}");
    assert!(lines[2].starts_with(&format!("mirror `{}`: could not pull", refusing.host())), "{message}");
    assert!(lines[2].contains("401") && lines[2].contains("no credentials"), "{message}");
    assert!(!hint.as_deref().unwrap_or_default().contains("mirror"), "{hint:?}");
    assert_eq!(failure(&error).map(|failure| failure.kind), Some(FailureKind::RepositoryNotFound));
}

// ---- uploads

fn push(server: &FakeRegistry, image: &Image) -> Result<Digest, StoreError> {
    registry(&server.host()).exporter(reference(&server.host(), "app:1")).export(image)
}

#[test]
fn uploads_survive_what_passes() {
    let faults = [
        ("500 to PATCH", "PATCH", Fault::status(500)),
        ("503 to POST", "POST", Fault::status(503)),
        ("500 to PUT", "PUT", Fault::status(500)),
        ("429 to HEAD", "HEAD", Fault::retry_after(429, 0)),
        ("a cut before the body", "PATCH", Fault::CutRequest { after_bytes: 0 }),
        ("201 to PATCH", "PATCH", Fault::Instead { status: 201 }),
        ("204 to PATCH", "PATCH", Fault::Instead { status: 204 }),
        ("a lost upload", "PATCH", Fault::error(404, "BLOB_UPLOAD_UNKNOWN", "gone")),
        ("a wrong count", "PUT", Fault::error(400, "DIGEST_INVALID", "no")),
    ];
    for (name, method, fault) in faults {
        let server = FakeRegistry::start();
        server.fail(method, "/blobs/", 1, fault);
        let image = one_layer(&vec![9; 300_000]);
        push(&server, &image).unwrap_or_else(|e| panic!("{name}: {e}"));
        let stored = server.blob("app", &image.layers[0].descriptor.digest);
        assert_eq!(stored.map(|b| b.len()), Some(300_000), "{name}");
    }
}

#[test]
fn an_upload_goes_on_where_it_was_cut() {
    let server = FakeRegistry::start();
    let layer = vec![9; 3_000_000];
    let image = one_layer(&layer);
    // The config is small and its PATCH is never cut after this many bytes.
    let jobs = RegistrySettings { parallel_uploads: 1, ..RegistrySettings::new() };
    let ours = registry_from(settings(&[&server.host()]), Credentials::anonymous(), jobs);
    server.fail("PATCH", "/blobs/uploads/", 1, Fault::CutRequest { after_bytes: 1_000_000 });
    ours.exporter(reference(&server.host(), "app:1")).export(&image).unwrap();
    let patches = server.requests_of("PATCH", "/blobs/uploads/");
    assert_eq!(patches[1].headers["content-range"], "1000000-2999999");
    assert_eq!(patches[1].body_bytes, 2_000_000);
    assert_eq!(server.blob("app", &image.layers[0].descriptor.digest), Some(layer));
}

#[test]
fn a_registry_that_refuses_large_bodies_gets_chunks() {
    for limit in [5 << 20, 1 << 20] {
        let server = FakeRegistry::start();
        server.limit_body(limit);
        let layer = vec![9; 9_000_000];
        let image = one_layer(&layer);
        push(&server, &image).unwrap();
        assert_eq!(server.blob("app", &image.layers[0].descriptor.digest), Some(layer), "{limit}");
    }
}

#[test]
fn mounting_asks_for_both_scopes_and_takes_no_for_an_answer() {
    for mounts in [true, false] {
        let (server, image, base) = with_base();
        server.require_token(None, Some(300));
        if !mounts {
            server.never_mount();
        }
        let ours = registry(&server.host());
        let found = pull(&ours, &base).unwrap();
        ours.exporter(reference(&server.host(), "app:1")).export(&found).unwrap();
        let posts = server.requests_of("POST", "/v2/app/blobs/uploads/");
        let patches = server.requests_of("PATCH", "/v2/app/");
        let successful = posts.iter().filter(|p| p.status != 401).count();
        assert_eq!(successful, 3, "one per blob: a 202 to a mount is an upload session");
        assert_eq!(patches.len(), if mounts { 1 } else { 3 });
        assert!(server.blob("app", image.layer(0)).is_some());
        let asked = server.requests_of("GET", "/token");
        let both = "scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull";
        assert!(asked.iter().any(|r| r.path.contains(both)), "{asked:?}");
    }
}

#[test]
fn destinations_share_what_is_there() {
    let server = FakeRegistry::start();
    let ours = registry(&server.host());
    let image = one_layer(b"shared");
    for name in ["app:1", "app:2", "other:1"] {
        ours.exporter(reference(&server.host(), name)).export(&image).unwrap();
    }
    assert_eq!(server.requests_of("PATCH", "/v2/app/").len(), 2, "layer and config, once");
    assert_eq!(server.requests_of("PATCH", "/v2/other/").len(), 0, "mounted");
    assert_eq!(server.requests_of("PUT", "/manifests/").len(), 3);
}

#[test]
fn layers_go_up_before_the_image_is_done() {
    let server = FakeRegistry::start();
    let image = one_layer(b"early");
    let exporter = registry(&server.host()).exporter(reference(&server.host(), "app:1"));
    exporter.prepare(&image.layers[0]).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while server.blob("app", &image.layers[0].descriptor.digest).is_none() {
        assert!(Instant::now() < until, "the layer was not uploaded in the background");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(server.requests_of("PUT", "/manifests/").is_empty());
    exporter.export(&image).unwrap();
    assert_eq!(server.requests_of("PATCH", "/v2/app/").len(), 2);
}

#[test]
fn nothing_is_tagged_when_a_blob_fails() {
    let server = FakeRegistry::start();
    server.fail(
        "POST",
        "/blobs/uploads/",
        100,
        Fault::error(403, "DENIED", "requested access to the resource is denied"),
    );
    let error = push(&server, &one_layer(b"x")).unwrap_err();
    assert_eq!(kind(&error), Some(FailureKind::Denied));
    assert!(error.to_string().contains("403 DENIED: requested access to the resource is denied"), "{error}");
    assert!(server.requests_of("PUT", "/manifests/").is_empty());
}

#[test]
fn a_failed_upload_can_be_tried_again() {
    let server = FakeRegistry::start();
    let exporter = registry(&server.host()).exporter(reference(&server.host(), "app:1"));
    let image = one_layer(b"x");
    server.fail("POST", "/blobs/uploads/", 2, Fault::status(403));
    exporter.export(&image).unwrap_err();
    exporter.export(&image).unwrap();
}

#[test]
fn a_layer_that_lies_about_itself_is_not_pushed() {
    let server = FakeRegistry::start();
    let mut image = one_layer(b"short");
    image.layers[0].descriptor.size = 500;
    let error = push(&server, &image).unwrap_err();
    assert!(matches!(error, StoreError::WrongSize { expected: 500, actual: 5, .. }), "{error:?}");

    let mut image = one_layer(b"other");
    image.layers[0].descriptor.digest = Digest::of(b"something else");
    let error = push(&server, &image).unwrap_err();
    assert_eq!(kind(&error), Some(FailureKind::WrongDigest), "{error}");
    assert!(server.manifest("app", "1").is_none());
}

#[test]
fn an_immutable_tag_has_a_kind_of_its_own() {
    let messages = [
        "The image tag '1' already exists in the 'app' repository and cannot be overwritten because the tag is immutable.",
        "cannot update tag 1. The repository has enabled tag immutability",
    ];
    for message in messages {
        let server = FakeRegistry::start();
        server.fail("PUT", "/manifests/", 1, Fault::error(400, "TAG_INVALID", message));
        let error = push(&server, &one_layer(b"x")).unwrap_err();
        assert_eq!(kind(&error), Some(FailureKind::ImmutableTag));
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn pushing_by_digest_moves_no_tag() {
    let server = FakeRegistry::start();
    let digest =
        registry(&server.host()).exporter(reference(&server.host(), "app:1")).by_digest().export(&one_layer(b"x"));
    assert!(server.manifest("app", digest.unwrap().as_str()).is_some());
    assert!(server.manifest("app", "1").is_none());
}

#[test]
fn permission_is_asked_for_without_a_trace() {
    let server = FakeRegistry::start();
    let to = reference(&server.host(), "app:1");
    registry(&server.host()).check_push_permission(&to).unwrap();
    assert_eq!(server.requests_of("DELETE", "/v2/app/blobs/uploads/")[0].status, 204);
    server.require_basic("me", "secret");
    let error = registry(&server.host()).check_push_permission(&to).unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("could not get permission to push to `{}/app`: 401", server.host()))
    );
}

// ---- no registry at all

#[test]
fn what_is_in_the_way_has_words_and_hints() {
    let server = FakeRegistry::start();
    let nobody = format!("127.0.0.1:{}", testkit::docker_registry::free_port());
    let mut impatient = settings(&[]);
    impatient.retries = 1;
    let ours = registry_from(impatient, Credentials::anonymous(), RegistrySettings::new());
    // The same machine by an address that does not say so.
    let host = server.host().replace("127.0.0.1", "0.0.0.0");
    let cases = [
        (
            format!("{host}/app:1"),
            FailureKind::PlainHttp,
            format!("`{host}` speaks plain HTTP, not HTTPS"),
            "--insecure-registry",
        ),
        (
            format!("{nobody}/app:1"),
            FailureKind::Refused,
            format!("connection refused by `{nobody}`"),
            "nothing listens",
        ),
        (
            "registry.invalid/app:1".to_owned(),
            FailureKind::Dns,
            "host name `registry.invalid` could not be resolved".to_owned(),
            "spelt",
        ),
    ];
    for (name, wanted, message, hinted) in cases {
        let error = pull(&ours, &Reference::parse(&name).unwrap()).err().unwrap();
        assert_eq!(kind(&error), Some(wanted), "{error}");
        // Behind a name may stand what this machine's servers say of it.
        let text = error.to_string();
        assert!(text.starts_with(&format!("could not pull `{name}`: {message}")), "{text}");
        let StoreError::Remote { hint, .. } = &error else { panic!("{error:?}") };
        assert!(hint.as_deref().unwrap().contains(hinted), "{hint:?}");
    }
}
