//! Streams, redirects, retries, time limits.

use std::io::{self, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::http::Method;
use oci::{Flavor, Platform};
use testkit::fixture;
use testkit::{FakeRegistry, Fault};
use zuwai_net::{Body, Kind, NetError, Proxies, Request};

use crate::{net, settings};

/// A server that does one thing with every connection; its address.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
}

/// Reads up to the end of a request's head.
fn read_head(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        seen.push(byte[0]);
    }
}

fn answering(answer: &'static str) -> String {
    server(move |mut stream| {
        read_head(&mut stream);
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
        read_head(&mut stream);
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
        read_head(&mut stream);
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
            read_head(&mut stream);
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
        read_head(&mut stream);
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

#[test]
fn a_proxy_is_used_except_where_not() {
    let proxy = FakeRegistry::start();
    let direct = FakeRegistry::start();
    let mut proxied = settings();
    proxied.proxies = Proxies {
        http: Some(format!("http://{}", proxy.host())),
        no_proxy: Some("127.0.0.1".to_owned()),
        ..Proxies::default()
    };
    let net = net(proxied);
    net.get("http://nowhere.invalid/x", &[]).unwrap();
    assert_eq!(proxy.requests()[0].path, "http://nowhere.invalid/x");
    net.get(&format!("http://{}/v2/", direct.host()), &[]).unwrap();
    assert_eq!(direct.requests().len(), 1);
    assert_eq!(proxy.requests().len(), 1);
}

#[test]
fn a_proxy_that_is_no_address_is_told_of_at_once() {
    let mut wrong = settings();
    wrong.proxies = Proxies { https: Some("http://user:hunter2@host:port/".to_owned()), ..Proxies::default() };
    let error = zuwai_net::Net::new(wrong).unwrap_err();
    assert!(error.to_string().contains("proxy"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}
