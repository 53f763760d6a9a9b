//! Registries that are odd and still in use: each of these was met by somebody, and Go's clients get on with it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use auth::{Credentials, Login, Secret};
use net::Net;
use oci::{Digest, Flavor, Platform, media_type};
use store::{Exporter as _, ImageSource as _, StoreError};
use testkit::fake_registry::base64;
use testkit::fixture;
use testkit::{FakeRegistry, Fault};
use zuwai_registry::{FailureKind, Registry, RegistrySettings};

use crate::common::{
    bytes_layer, content, kind, logged_in, one_layer, pull, reference, registry, registry_from, registry_with,
    settings, tiny, with_base,
};

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Fault {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Fault::Answer { status, headers, body: body.to_owned() }
}

// ---- plain HTTP nearby

/// Nobody allowed plain HTTP to anybody.
fn untold(credentials: Credentials) -> Registry {
    registry_from(settings(&[]), credentials, RegistrySettings::new())
}

/// What a server of one's own does with a connection, told what came first; it keeps what came in plain text.
struct Handmade {
    host: String,
    heard: Arc<Mutex<String>>,
}

impl Handmade {
    fn start(greet: impl Fn(&[u8], &mut TcpStream) -> bool + Send + Sync + 'static) -> Handmade {
        Handmade::start_at("127.0.0.1", greet).unwrap()
    }

    /// None where the address is not to be had.
    fn start_at(
        address: &str,
        greet: impl Fn(&[u8], &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Option<Handmade> {
        let listener = TcpListener::bind((address, 0)).ok()?;
        let host = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(Mutex::new(String::new()));
        let (greet, kept) = (Arc::new(greet), heard.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (greet, kept) = (greet.clone(), kept.clone());
                std::thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let mut buffer = [0; 4096];
                    // Until the request ends, or `greet` has had enough.
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        bytes.extend_from_slice(&buffer[..count]);
                        if greet(&bytes, &mut stream) {
                            break;
                        }
                    }
                    if bytes.first() != Some(&TLS_HANDSHAKE) {
                        kept.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes));
                    }
                });
            }
        });
        Some(Handmade { host, heard })
    }

    /// `127.0.0.1:PORT`, `[::1]:PORT`
    fn host(&self) -> String {
        self.host.clone()
    }
}

const TLS_HANDSHAKE: u8 = 22;

fn say(stream: &mut TcpStream, status: &str, body: &str) -> bool {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    true
}

fn is_request(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|window| window == b"\r\n\r\n")
}

#[test]
fn registries_on_this_machine_need_no_flag_for_plain_http() {
    let (server, ..) = with_base();
    server.require_basic("me", "secret");
    let port = server.host().rsplit_once(':').unwrap().1.to_owned();
    for host in [server.host(), format!("localhost:{port}")] {
        let ours = untold(logged_in(&host, "me", "secret"));
        let found = pull(&ours, &reference(&host, "base:1")).unwrap_or_else(|e| panic!("{host}: {e}"));
        ours.exporter(reference(&host, "app:1")).export(&found).unwrap_or_else(|e| panic!("{host}: {e}"));
    }
    for address in ["127.8.9.10", "::1"] {
        let empty = |bytes: &[u8], stream: &mut TcpStream| is_request(bytes) && say(stream, "404 Not Found", "");
        let Some(server) = Handmade::start_at(address, empty) else { continue };
        let error = pull(&untold(Credentials::anonymous()), &reference(&server.host(), "base:1")).err().unwrap();
        assert_eq!(kind(&error), Some(FailureKind::ManifestNotFound), "{address}: {error}");
    }
}

#[test]
fn a_server_that_does_not_answer_a_handshake_is_tried_in_plain_text() {
    // It reads and reads: in a handshake the end of a request does not come.
    let server = Handmade::start(|bytes, stream| is_request(bytes) && say(stream, "404 Not Found", ""));
    let started = Instant::now();
    let error = pull(&untold(Credentials::anonymous()), &reference(&server.host(), "base:1")).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::ManifestNotFound), "{error}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    // One that closes the connection is no server of TLS either.
    let server = Handmade::start(|bytes, stream| {
        bytes[0] == TLS_HANDSHAKE || is_request(bytes) && say(stream, "404 Not Found", "")
    });
    let error = pull(&untold(Credentials::anonymous()), &reference(&server.host(), "base:1")).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::ManifestNotFound), "{error}");
}

#[test]
fn a_failed_handshake_does_not_lead_to_plain_http() {
    // `handshake_failure`, and what such servers say to plain text.
    let server = Handmade::start(|bytes, stream| match bytes[0] {
        TLS_HANDSHAKE => stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).is_ok(),
        _ => is_request(bytes) && say(stream, "400 Bad Request", "Client sent an HTTP request to an HTTPS server."),
    });
    let ours = untold(logged_in(&server.host(), "me", "hunter2"));
    let error = pull(&ours, &reference(&server.host(), "base:1")).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::Tls), "{error}");
    let heard = server.heard.lock().unwrap();
    assert!(!heard.to_ascii_lowercase().contains("authorization"), "{heard}");
}

#[test]
fn a_bad_certificate_does_not_lead_to_plain_http() {
    let server = match testkit::DockerRegistry::start_with_tls() {
        Ok(server) => server,
        Err(reason) => return crate::common::skipped(&reason),
    };
    for host in [server.host(), server.host().replace("127.0.0.1", "localhost")] {
        let ours = untold(logged_in(&host, "me", "hunter2"));
        let error = pull(&ours, &reference(&host, "base:1")).err().unwrap();
        assert_eq!(kind(&error), Some(FailureKind::Tls), "{host}: {error}");
        assert!(error.to_string().contains("is not trusted"), "{host}: {error}");
    }
    // Also where plain HTTP was asked for.
    let ours = registry_with(&[&server.host()], Credentials::anonymous());
    let error = pull(&ours, &reference(&server.host(), "base:1")).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::Tls), "{error}");
}

#[test]
fn a_near_registry_does_not_send_passwords_to_a_far_token_server_in_the_clear() {
    let (server, _, base) = with_base();
    server.require_token_of("http://auth.example/token", Some(("me", "secret")), None);
    let error = pull(&untold(logged_in(&server.host(), "me", "hunter2")), &base).err().unwrap();
    assert!(error.to_string().contains("credentials do not travel over plain HTTP"), "{error}");
    // A near one is as near as the registry.
    let (server, _, base) = with_base();
    server.require_token(Some(("me", "secret")), None);
    pull(&untold(logged_in(&server.host(), "me", "secret")), &base).unwrap();
}

// ---- who asks

#[test]
fn a_challenge_without_quotes_is_answered() {
    for challenge in ["Basic realm=My Registry", "Negotiate, basic", "Basic realm=Registre privé"] {
        let (server, _, base) = with_base();
        server.require_basic("me", "secret");
        server.fail("GET", "/v2/", 1, answer(401, &[("WWW-Authenticate", challenge)], ""));
        let ours = registry_with(&[&server.host()], logged_in(&server.host(), "me", "secret"));
        pull(&ours, &base).unwrap_or_else(|e| panic!("{challenge}: {e}"));
    }
}

#[test]
fn a_token_server_without_oauth2_is_asked_in_the_older_way() {
    for status in [404, 405, 401] {
        let (server, _, base) = with_base();
        server.require_token(Some(("", "refresh me")), Some(300));
        server.fail("POST", "/token", 1, Fault::status(status));
        let mut credentials = Credentials::anonymous();
        credentials.add_login(&server.host(), Login::Identity { token: Secret::new("refresh me") }, "test");
        pull(&registry_with(&[&server.host()], credentials), &base).unwrap_or_else(|e| panic!("{status}: {e}"));
    }
}

#[test]
fn a_registry_that_redirects_to_another_one_does_not_give_it_our_login() {
    let (front, image, base) = with_base();
    let back = FakeRegistry::start();
    back.add("base", "1", &image);
    back.require_token(None, Some(300));
    front.require_basic("me", "hunter2");
    let there = format!("http://{}/v2/base/manifests/1", back.host());
    front.redirect_blobs(&format!("http://{}", back.host()));
    // The first is asked who we are; what comes after is sent on.
    front.fail("GET", "/manifests/", 1, answer(401, &[("WWW-Authenticate", "Basic realm=x")], ""));
    front.fail("GET", "/manifests/", 9, answer(307, &[("Location", &there)], ""));
    let ours = registry_with(&[&front.host(), &back.host()], logged_in(&front.host(), "me", "hunter2"));
    let found = pull(&ours, &base).unwrap();
    assert_eq!(content(&found.layers[0]), fixture::tar(&[("a", b"one")]));
    let password = base64(b"me:hunter2");
    let shown = back.requests().iter().filter_map(|r| r.authorization().map(str::to_owned)).collect::<Vec<_>>();
    assert!(!shown.is_empty() && shown.iter().all(|a| a.starts_with("Bearer ")), "{shown:?} {password}");

    // With a login of its own the other one gets that.
    back.require_basic("other", "theirs");
    let mut credentials = logged_in(&front.host(), "me", "hunter2");
    let login = Login::Basic { username: "other".to_owned(), password: Secret::new("theirs") };
    credentials.add_login(&back.host(), login, "test");
    pull(&registry_with(&[&front.host(), &back.host()], credentials), &base).unwrap();
}

// ---- manifests

#[test]
fn content_types_of_all_kinds() {
    let image = tiny();
    let types = [
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
        "application/vnd.oci.image.manifest.v1+json ;charset=\"utf-8\"",
        "Application/Vnd.OCI.Image.Manifest.V1+JSON",
        "application/json",
        "binary/octet-stream",
        "text/html",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "",
    ];
    let plain = String::from_utf8(image.manifest.clone()).unwrap();
    // With and without its own word for what it is.
    let own = format!(r#""mediaType":"{}","#, media_type::OCI_MANIFEST);
    assert!(plain.contains(&own), "{plain}");
    for manifest in [plain.clone(), plain.replacen(&own, "", 1), plain.replacen(&own, r#""mediaType":"","#, 1)] {
        for content_type in types {
            let server = FakeRegistry::start();
            server.add("base", "1", &image);
            server.add_manifest("base", "1", content_type, manifest.as_bytes());
            let found = pull(&registry(&server.host()), &reference(&server.host(), "base:1"));
            let found = found.unwrap_or_else(|e| panic!("{content_type}: {e}"));
            assert_eq!(found.digest, Some(Digest::of(manifest.as_bytes())), "{content_type}");
        }
    }
}

#[test]
fn digests_that_headers_name() {
    let (server, image, base) = with_base();
    let body = String::from_utf8(image.manifest.clone()).unwrap();
    let right = image.digest().to_string();
    let wrong = Digest::of(b"other").to_string();
    for (named, accepted) in
        [(None, true), (Some("nonsense"), true), (Some(""), true), (Some(&*right), true), (Some(&*wrong), false)]
    {
        let headers: Vec<_> = named.iter().map(|named| ("Docker-Content-Digest", *named)).collect();
        server.fail("GET", "/manifests/1", 1, answer(200, &headers, &body));
        let found = pull(&registry(&server.host()), &base);
        assert_eq!(found.is_ok(), accepted, "{named:?}: {:?}", found.err());
    }
    // What a HEAD leaves out is found in the document.
    for headers in [vec![], vec![("Docker-Content-Digest", "nonsense")]] {
        server.fail("HEAD", "/manifests/1", 1, answer(200, &headers, ""));
        assert_eq!(registry(&server.host()).resolve(&base).unwrap(), image.digest());
    }
    server.fail("HEAD", "/manifests/1", 1, Fault::status(405));
    assert_eq!(registry(&server.host()).resolve(&base).unwrap(), image.digest());
}

#[test]
fn index_entries_that_are_called_artifacts_are_chosen_as_in_a_layout() {
    let server = FakeRegistry::start();
    let platform = |text: &str| Platform::parse(text).unwrap();
    let image = |text: &str| fixture::image(&[text.as_bytes().to_vec()], &platform(text), Flavor::Oci);
    let images = ["linux/amd64", "linux/arm64", "linux/386"].map(image);
    images.iter().for_each(|i| server.add("app", i.digest().as_str(), i));
    let entry = |index: usize, artifact_type: Option<&str>, with_platform: bool| {
        let mut entry = images[index].descriptor();
        entry.artifact_type = artifact_type.map(str::to_owned);
        entry.platform = entry.platform.filter(|_| with_platform);
        entry
    };
    let (sbom, image_type) = (Some("application/spdx+json"), Some(media_type::OCI_CONFIG));
    // What is no image at all, and says so in its config only.
    let text = String::from_utf8(images[0].manifest.clone()).unwrap();
    let text = text.replace(media_type::OCI_CONFIG, "application/vnd.example.config");
    server.add_manifest("app", "artifact", media_type::OCI_MANIFEST, text.as_bytes());
    let nothing = oci::Descriptor::new(media_type::OCI_MANIFEST, Digest::of(text.as_bytes()), text.len() as u64);
    let cases = [
        ("the only one", vec![entry(0, sbom, true)], Some(0)),
        ("the only one, without platform", vec![entry(0, sbom, false)], Some(0)),
        ("called after its config", vec![entry(0, image_type, true), entry(1, image_type, true)], Some(0)),
        ("an empty name", vec![entry(0, Some(""), true)], Some(0)),
        ("beside other platforms", vec![entry(1, None, true), entry(0, sbom, true)], Some(0)),
        ("beside one that is less good", vec![entry(2, None, true), entry(0, sbom, true)], Some(0)),
        ("after one as good", vec![entry(2, sbom, true), entry(2, None, true)], Some(2)),
        ("without platforms", vec![entry(1, None, false), entry(0, sbom, false)], Some(0)),
        ("without platforms, none called artifact", vec![entry(1, None, false), entry(0, None, false)], Some(0)),
        ("beside what is no image", vec![nothing.clone(), entry(0, None, false)], Some(0)),
        ("none for this platform", vec![entry(1, sbom, true), entry(1, None, true)], None),
        ("nothing that is an image", vec![nothing.clone(), nothing], None),
    ];
    let scratch = tempfile::tempdir().unwrap();
    for (name, entries, expected) in cases {
        let index = fixture::index(entries);
        server.add_manifest("app", "1", media_type::OCI_INDEX, &index);
        let from = reference(&server.host(), "app:1");
        let found = registry(&server.host()).image(&from, &platform("linux/amd64"));
        let expected = expected.map(|index: usize| images[index].digest());
        assert_eq!(found.ok().and_then(|image| image.digest), expected, "{name}, at a registry");

        let directory = scratch.path().join(name);
        std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        let write = |path: &str, bytes: &[u8]| std::fs::write(directory.join(path), bytes).unwrap();
        write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        write("index.json", &index);
        let manifests = images.iter().map(|image| image.manifest.as_slice()).chain([text.as_bytes()]);
        for bytes in images.iter().flat_map(|i| i.blobs.iter().map(|(_, bytes)| bytes.as_slice())).chain(manifests) {
            write(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes);
        }
        let found = store::Layout::open(&directory).unwrap().find(None, &platform("linux/amd64"));
        assert_eq!(found.ok().and_then(|image| image.digest), expected, "{name}, in a layout");
    }
}

#[test]
fn parts_of_blobs_in_odd_ranges() {
    let (server, image, base) = with_base();
    let body = "one".repeat(1000);
    let layer = bytes_layer(body.as_bytes(), Flavor::Oci);
    server.add_blob("base", &layer.descriptor.digest, body.as_bytes());
    let found = pull(&registry(&server.host()), &base).unwrap();
    let blob = layer.descriptor.digest.to_string();
    let content_of = || {
        let mut bytes = Vec::new();
        let opened = found.layers[0].content.open(&layer.descriptor);
        opened.and_then(|mut r| r.read_to_end(&mut bytes).map_err(StoreError::from_read)).map(|_| bytes)
    };
    assert_eq!(found.layers[0].descriptor.digest, *image.layer(0));
    // A part was not asked for, and is the whole.
    for range in ["bytes 0-2999/3000", "bytes=0-2999/*", "bytes 0-2999"] {
        server.fail("GET", &blob, 1, answer(206, &[("Content-Range", range)], &body));
        assert_eq!(content_of().unwrap(), body.as_bytes(), "{range}");
    }
    // The rest after a cut.
    for (range, accepted) in [
        (Some("bytes 900-2999/3000"), true),
        (Some("bytes=900-2999/*"), true),
        (None, true),
        (Some("bytes 0-2999/3000"), false),
    ] {
        server.fail("GET", &blob, 1, Fault::CutAnswer { after_bytes: 900 });
        let headers: Vec<_> = range.iter().map(|range| ("Content-Range", *range)).collect();
        server.fail("GET", &blob, 1, answer(206, &headers, &body[900..]));
        let read = content_of();
        assert_eq!(read.as_deref().ok(), accepted.then_some(body.as_bytes()), "{range:?}");
    }
}

// ---- uploads

#[test]
fn uploads_to_registries_with_other_statuses() {
    let faults = [
        ("200 to POST", "POST", 200),
        ("201 to POST", "POST", 201),
        ("204 to POST", "POST", 204),
        ("200 to PATCH", "PATCH", 200),
        ("200 to PUT", "PUT", 200),
        ("202 to PUT", "PUT", 202),
        ("204 to PUT", "PUT", 204),
    ];
    for (name, method, status) in faults {
        let server = FakeRegistry::start();
        server.fail(method, "/v2/", 9, Fault::Instead { status });
        let ours = registry(&server.host());
        let to = reference(&server.host(), "app:1");
        ours.check_push_permission(&to).unwrap_or_else(|e| panic!("{name}: {e}"));
        let image = one_layer(&[9; 300_000]);
        ours.exporter(to).export(&image).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(server.blob("app", &image.layers[0].descriptor.digest).is_some(), "{name}");
        assert!(server.manifest("app", "1").is_some(), "{name}");
    }
}

#[test]
fn a_registry_without_patch_gets_blobs_at_once() {
    let unsupported = |status| Fault::error(status, "UNSUPPORTED", "The operation is unsupported.");
    for fault in [Fault::status(405), Fault::status(501), Fault::status(404), unsupported(400), unsupported(404)] {
        let server = FakeRegistry::start();
        server.fail("PATCH", "/blobs/uploads/", 100, fault.clone());
        let layer = vec![9; 3_000_000];
        let image = one_layer(&layer);
        let pushed = registry(&server.host()).exporter(reference(&server.host(), "app:1")).export(&image);
        pushed.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(server.blob("app", &image.layers[0].descriptor.digest), Some(layer), "{fault:?}");
        assert!(server.requests_of("PUT", "/blobs/uploads/").iter().any(|r| r.body_bytes == 3_000_000), "{fault:?}");
    }
}

#[test]
fn an_upload_to_another_host_takes_no_login_along() {
    let (front, back) = (FakeRegistry::start(), FakeRegistry::start());
    front.require_basic("me", "hunter2");
    let net = Net::new(settings(&[])).unwrap();
    let image = one_layer(b"elsewhere");
    let config = image.encode().config_descriptor;
    for _ in 0..2 {
        let begun =
            net.send(&net::Request::new(http::Method::POST, format!("http://{}/v2/app/blobs/uploads/", back.host())));
        let begun = begun.unwrap();
        let location = format!("http://{}{}#part", back.host(), begun.header("location").unwrap());
        front.fail("POST", "/blobs/uploads/", 1, answer(202, &[("Location", &location)], ""));
    }
    back.forget_requests();
    // The front knows what is behind it.
    let fronted =
        [(image.layers[0].descriptor.digest.clone(), b"elsewhere".to_vec()), (config.digest, image.encode().config)];
    let ours = registry_with(&[&front.host(), &back.host()], logged_in(&front.host(), "me", "hunter2"));
    front.fail("HEAD", "/blobs/", 2, Fault::status(404));
    fronted.iter().for_each(|(digest, bytes)| front.add_blob("app", digest, bytes));
    ours.exporter(reference(&front.host(), "app:1")).export(&image).unwrap();
    for (digest, bytes) in fronted {
        assert_eq!(back.blob("app", &digest), Some(bytes));
    }
    assert!(back.requests().iter().all(|r| r.authorization().is_none()));
}

#[test]
fn a_server_that_names_the_time_to_come_back_is_asked_again() {
    for when in ["Sun, 06 Nov 1994 08:49:37 GMT", "0", "0.01", "soon", ""] {
        let (server, _, base) = with_base();
        server.fail("GET", "/manifests/", 2, answer(429, &[("Retry-After", when)], ""));
        pull(&registry(&server.host()), &base).unwrap_or_else(|e| panic!("{when}: {e}"));
    }
    let (server, _, base) = with_base();
    server.fail("GET", "/manifests/", 2, answer(503, &[("Retry-After", "Fri, 01 Jan 2100 00:00:00 GMT")], ""));
    let error = pull(&registry(&server.host()), &base).err().unwrap();
    assert_eq!(kind(&error), Some(FailureKind::Server), "{error}");
}
