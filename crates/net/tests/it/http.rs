//! Streams, redirects, retries, time limits.

use std::io::{self, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::http::Method;
use oci::{Flavor, Platform};
use testkit::fixture;
use testkit::{FakeRegistry, Fault};
use zuwai_net::{Body, Kind, NetError, Request};

use crate::{net, settings};

/// A server that does one thing with every connection; its address.
pub fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
}

/// Reads up to the end of a request's head.
pub fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        seen.push(byte[0]);
    }
    seen
}

pub fn answering(answer: &'static str) -> String {
    server(move |mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    })
}

fn kind(error: &NetError) -> Option<Kind> {
    error.kind()
}

#[test]
fn a_download_with_redirects() {
    let (front, back) = (FakeRegistry::start(), FakeRegistry::start());
    let image = fixture::image(&[vec![7; 300_000]], &Platform::host(), Flavor::Oci);
    for server in [&front, &back] {
        server.add("app", "1", &image);
    }
    front.redirect_blobs(&format!("http://{}", back.host()));
    let url = format!("http://{}/v2/app/blobs/{}", front.host(), image.layer(0));
    let headers = [("Private-Token".to_owned(), "secret".to_owned()), ("Accept".to_owned(), "*/*".to_owned())];
    let mut response = net(settings()).get(&url, &headers).unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.content_length(), Some(300_000));
    assert_eq!(response.final_url, url.replace(&front.host(), &back.host()));
    assert_eq!(response.read_all(1 << 20).unwrap(), vec![7; 300_000]);
    assert!(front.requests()[0].headers.contains_key("private-token"));
    assert!(!back.requests()[0].headers.contains_key("private-token"));
    assert!(back.requests()[0].headers.contains_key("accept"));
    assert_eq!(front.requests()[0].headers["user-agent"], "zuwai-test");
    assert!(!front.requests()[0].headers.contains_key("accept-encoding"), "bytes are wanted as they are stored");
}

#[test]
fn an_answer_of_any_status_is_an_answer() {
    for status in [204, 304, 400, 404, 418, 501] {
        let server = FakeRegistry::start();
        server.fail("GET", "/x", 1, Fault::status(status));
        let response = net(settings()).get(&format!("http://{}/x", server.host()), &[]).unwrap();
        assert_eq!(response.status, status);
    }
}

#[test]
fn a_body_larger_than_its_limit_is_not_kept() {
    let server = FakeRegistry::start();
    server.fail("GET", "/x", 2, Fault::Answer { status: 200, headers: Vec::new(), body: "0123456789".to_owned() });
    let net = net(settings());
    let ask = |limit| net.get(&format!("http://{}/x", server.host()), &[]).unwrap().read_all(limit);
    assert_eq!(ask(10).unwrap(), b"0123456789");
    assert_eq!(ask(9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn redirects_end() {
    let around = FakeRegistry::start();
    let location = format!("http://{}/x", around.host());
    around.fail(
        "GET",
        "/x",
        100,
        Fault::Answer { status: 302, headers: vec![("Location", location.clone())], body: String::new() },
    );
    let error = net(settings()).get(&location, &[]).unwrap_err();
    assert_eq!(kind(&error), Some(Kind::Redirects), "{error}");
    assert_eq!(around.requests().len(), 11);

    let astray = answering("HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n");
    let error = net(settings()).get(&astray, &[]).unwrap_err();
    assert!(error.to_string().contains("not HTTP"), "{error}");
}

#[test]
fn what_is_no_address_is_refused() {
    for url in ["", "no address", "ftp://host/x", "file:///etc/passwd", "http://", "http://h:99999/"] {
        let error = net(settings()).get(url, &[]).unwrap_err();
        assert!(matches!(error, NetError::Url { .. }), "{url}: {error:?}");
    }
    let error = net(settings()).get("http://user:hunter2@host:99999/?token=hunter2", &[]).unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn an_upload_streams_and_is_reopened() {
    for length in [Some(1_000_000), None] {
        let server = FakeRegistry::start();
        server.fail("PUT", "/x", 1, Fault::CutRequest { after_bytes: 1000 });
        server.fail("PUT", "/x", 1, Fault::status(503));
        server.fail("PUT", "/x", 1, Fault::status(200));
        let opened = AtomicU64::new(0);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            opened.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(io::repeat(1).take(1_000_000)))
        };
        let request =
            Request::new(Method::PUT, format!("http://{}/x", server.host())).body(Body::Stream { length, open: &open });
        let response = net(settings()).send(&request).unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(opened.load(Ordering::Relaxed), 3);
        assert_eq!(server.requests().last().unwrap().body_bytes, 1_000_000);
    }
}

/// A body without end, and how much of it was read.
fn send_endless(url: &str, settings: zuwai_net::Settings) -> (Result<u16, NetError>, u64) {
    struct Counted<'a>(&'a AtomicU64);
    impl Read for Counted<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.fetch_add(into.len() as u64, Ordering::Relaxed);
            Ok(into.len())
        }
    }
    let count: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Counted(count))) };
    let request = Request::new(Method::PUT, url).body(Body::Stream { length: Some(1 << 40), open: &open }).once();
    let outcome = net(settings).send(&request).map(|response| response.status);
    (outcome, count.load(Ordering::Relaxed))
}

#[test]
fn an_early_answer_ends_an_upload() {
    let url = server(|mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n");
        // The rest is not read, and the connection stays.
        std::thread::sleep(Duration::from_secs(20));
    });
    let started = Instant::now();
    let (outcome, read) = send_endless(&url, settings());
    assert_eq!(outcome.unwrap(), 401);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(read < 64 << 20, "{read} bytes were read");
}

#[test]
fn an_upload_that_nobody_takes_ends() {
    let url = server(|mut stream| {
        let _ = read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(20));
    });
    let mut impatient = settings();
    impatient.idle_timeout = Duration::from_millis(300);
    let started = Instant::now();
    let (outcome, _) = send_endless(&url, impatient);
    assert_eq!(outcome.unwrap_err().kind(), Some(Kind::Timeout));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn cancelling_ends_whatever_is_going_on() {
    let silent = || {
        server(|mut stream| {
            let _ = read_head(&mut stream);
            std::thread::sleep(Duration::from_secs(20));
        })
    };
    type Act = fn(&str, zuwai_net::Settings) -> Result<u16, NetError>;
    let cases: [(&str, Act); 3] = [
        ("an upload", |url, settings| send_endless(url, settings).0),
        ("a wait for an answer", |url, settings| net(settings).get(url, &[]).map(|r| r.status)),
        ("a wait between attempts", |_, mut settings| {
            settings.backoff = Duration::from_secs(20);
            let nobody = format!("http://127.0.0.1:{}/", testkit::docker_registry::free_port());
            net(settings).get(&nobody, &[]).map(|r| r.status)
        }),
    ];
    for (name, act) in cases {
        let settings = settings();
        let cancel = settings.cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            cancel.store(true, Ordering::Relaxed);
        });
        let started = Instant::now();
        let error = act(&silent(), settings).unwrap_err();
        assert!(matches!(error, NetError::Cancelled), "{name}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{name}");
    }
}

#[test]
fn a_source_that_fails_is_not_the_servers_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let server = FakeRegistry::start();
    let opens: [&dyn Fn() -> io::Result<Box<dyn Read + Send>>; 2] =
        [&|| Ok(Box::new(Broken)), &|| Err(io::Error::other("disk on fire"))];
    for open in opens {
        let request = Request::new(Method::PUT, format!("http://{}/x", server.host()))
            .body(Body::Stream { length: Some(5), open });
        match net(settings()).send(&request) {
            Err(NetError::Source(error)) => assert_eq!(error.to_string(), "disk on fire"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_server_that_is_silent_counts_as_dead() {
    let url = server(|mut stream| {
        let _ = read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(20));
    });
    let mut impatient = settings();
    impatient.answer_timeout = Duration::from_millis(100);
    impatient.retries = 1;
    let started = Instant::now();
    let error = net(impatient).get(&url, &[]).unwrap_err();
    assert_eq!(kind(&error), Some(Kind::Timeout));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_is_not_http_is_no_answer() {
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "", "HTTP/1.1 "] {
        let mut once = settings();
        once.retries = 0;
        assert!(net(once).get(&answering(answer), &[]).is_err(), "{answer}");
    }
}

/// A server that keeps the heads of requests and answers each with the same.
fn keeping_heads(answer: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = heads.clone();
    let url = server(move |mut stream| {
        let head = read_head(&mut stream);
        kept.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
        let _ = stream.write_all(&answer);
    });
    (url, heads)
}

/// Proxies answer 411 to those without.
#[test]
fn requests_with_an_empty_body_say_that_it_is_empty() {
    let answer = b"HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let empty = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::empty())) };
    for (method, told) in [
        (Method::POST, true),
        (Method::PUT, true),
        (Method::PATCH, true),
        (Method::GET, false),
        (Method::HEAD, false),
        (Method::DELETE, false),
    ] {
        for body in [Body::Empty, Body::Bytes(Vec::new().into()), Body::Stream { length: Some(0), open: &empty }] {
            if matches!(body, Body::Stream { .. }) && !told {
                continue;
            }
            let (url, heads) = keeping_heads(answer.to_vec());
            net(settings()).send(&Request::new(method.clone(), url).body(body)).unwrap();
            let head = heads.lock().unwrap()[0].clone();
            assert_eq!(head.matches("content-length: 0\r\n").count(), usize::from(told), "{method}: {head}");
            assert!(!head.contains("transfer-encoding"), "{method}: {head}");
        }
    }
}

#[test]
fn answers_may_have_hundreds_of_headers() {
    for count in [99, 101, 500, 4000] {
        let mut answer = String::from("HTTP/1.1 200 x\r\nContent-Length: 2\r\n");
        (0..count).for_each(|number| answer.push_str(&format!("X-Header-{number}: value\r\n")));
        let (url, _) = keeping_heads(format!("{answer}\r\nok").into_bytes());
        let mut response = net(settings()).get(&url, &[]).unwrap();
        assert_eq!(response.header(&format!("x-header-{}", count - 1)), Some("value"));
        assert_eq!(response.read_all(10).unwrap(), b"ok", "{count}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// As Go's clients do it, whether they asked for gzip or not.
#[test]
fn a_body_that_was_compressed_for_the_way_is_decoded() {
    let squeezed = gzip(b"what is meant");
    let two = [gzip(b"what "), gzip(b"is meant")].concat();
    let meant: &[u8] = b"what is meant";
    let cases: [(&str, &str, &[u8], &[u8]); 8] = [
        ("gzip", "200 x\r\nContent-Encoding: gzip", &squeezed, meant),
        ("another case", "200 x\r\ncontent-encoding: GZip", &squeezed, meant),
        ("two members", "200 x\r\nContent-Encoding: gzip", &two, meant),
        ("an error's body", "404 x\r\nContent-Encoding: gzip", &squeezed, meant),
        ("nothing said", "200 x", &squeezed, &squeezed),
        ("identity", "200 x\r\nContent-Encoding: identity", meant, meant),
        ("a part", "206 x\r\nContent-Encoding: gzip", &squeezed, &squeezed),
        ("nothing", "200 x\r\nContent-Encoding: gzip", b"", b""),
    ];
    for (name, head, body, expected) in cases {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
        let (url, _) = keeping_heads([answer.as_bytes(), body].concat());
        let mut response = net(settings()).get(&url, &[]).unwrap();
        let decoded = body != expected;
        assert_eq!(response.content_length().is_none(), decoded, "{name}");
        assert_eq!(response.read_all(100).unwrap(), expected, "{name}");
    }
    for body in [&b"not compressed"[..], &squeezed[..squeezed.len() - 3]] {
        let answer = format!("HTTP/1.1 200 x\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
        let (url, _) = keeping_heads([answer.as_bytes(), body].concat());
        assert!(net(settings()).get(&url, &[]).unwrap().read_all(100).is_err());
    }
}
