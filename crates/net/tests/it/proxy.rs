//! Through proxies, and what is said when one does not let us through.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::FakeRegistry;
use zuwai_net::{Kind, NameFiles, NetError, Proxies, Settings};

use crate::http::{answering, read_head, server};
use crate::{net, settings};

fn through(proxy: &str) -> Settings {
    let mut settings = settings();
    settings.retries = 0;
    settings.proxies = Proxies { http: Some(proxy.to_owned()), https: Some(proxy.to_owned()), ..Proxies::default() };
    settings
}

/// `http://user:hunter2@127.0.0.1:PORT`
fn with_login(url: &str) -> String {
    url.trim_end_matches('/').replace("://", "://user:hunter2@")
}

#[test]
fn a_proxy_is_used_except_where_not() {
    let proxy = FakeRegistry::start();
    let direct = FakeRegistry::start();
    let mut proxied = through(&format!("http://{}", proxy.host()));
    proxied.proxies.no_proxy = Some("*.direct.example".to_owned());
    let net = net(proxied);
    net.get("http://nowhere.invalid/x", &[]).unwrap();
    assert_eq!(proxy.requests()[0].path, "http://nowhere.invalid/x");
    // Loopback is never reached through it.
    net.get(&format!("http://{}/v2/", direct.host()), &[]).unwrap();
    assert_eq!(direct.requests().len(), 1);
    let error = net.get("http://a.direct.example.invalid./x", &[]).map(|response| response.status);
    assert!(error.is_ok(), "not in NO_PROXY: {error:?}");
    assert_eq!(proxy.requests().len(), 2);
}

#[test]
fn a_proxy_that_is_no_address_is_told_of_at_once() {
    for address in ["http://user:hunter2@host:port/", "ftp://user:hunter2@host"] {
        let mut wrong = settings();
        wrong.proxies = Proxies { https: Some(address.to_owned()), ..Proxies::default() };
        let error = zuwai_net::Net::new(wrong).unwrap_err();
        assert!(error.to_string().contains("proxy"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// The login of a proxy's address is sent to it, and to nobody else.
#[test]
fn a_proxy_gets_its_login() {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = heads.clone();
    let proxy = server(move |mut stream| {
        kept.lock().unwrap().push(String::from_utf8_lossy(&read_head(&mut stream)).to_ascii_lowercase());
        let _ = stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let net = net(through(&with_login(&proxy)));
    net.get("http://registry.invalid/", &[]).unwrap();
    let _ = net.get("https://registry.invalid/", &[]);
    let heads = heads.lock().unwrap();
    // dXNlcjpodW50ZXIy is user:hunter2.
    assert!(heads.iter().all(|head| head.contains("proxy-authorization: basic dxnlcjpodw50zxiy\r\n")), "{heads:?}");
    assert!(heads[1].starts_with("connect registry.invalid:443 "), "{heads:?}");
}

/// What a proxy refuses is told as the proxy's doing, without its login, with what helps.
#[test]
fn a_proxy_that_refuses_is_named() {
    let nobody = || format!("http://127.0.0.1:{}/", testkit::docker_registry::free_port());
    let forbidden = || answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let login = || answering("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n");
    let gateway = || answering("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    let closing = || answering("");
    let nonsense = || answering("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    // Answers whatever it is told.
    let hasty = server(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let plain = hasty.replace("http://", "https://");
    let silent = server(|_| std::thread::sleep(Duration::from_secs(20)));
    let socks = |url: String| url.replace("http://", "socks5h://");
    let https = "https://registry.invalid:5000/v2/";
    let http = "http://registry.invalid/v2/";
    let cases = [
        ("CONNECT: 403", forbidden(), https, Kind::ProxyRefused, "NO_PROXY=registry.invalid`"),
        ("CONNECT: 407", login(), https, Kind::ProxyLogin, "USER:PASSWORD"),
        ("CONNECT: 502", gateway(), https, Kind::ProxyRefused, "NO_PROXY"),
        ("CONNECT: nothing", closing(), https, Kind::ProxyRefused, "NO_PROXY"),
        ("CONNECT: not HTTP", nonsense(), https, Kind::ProxyRefused, "NO_PROXY"),
        ("nobody there", nobody(), https, Kind::Refused, "NO_PROXY"),
        ("nobody there, plain", nobody(), http, Kind::Refused, "NO_PROXY"),
        ("407 in an answer", login(), http, Kind::ProxyLogin, "USER:PASSWORD"),
        ("silence", silent, https, Kind::Timeout, "NO_PROXY"),
        ("TLS to a plain proxy", plain, https, Kind::PlainHttp, "speaks plain HTTP"),
        ("unknown name", "http://proxy.invalid:3128/".to_owned(), https, Kind::Dns, "HTTPS_PROXY"),
        ("unknown name, plain", "http://proxy.invalid:3128/".to_owned(), http, Kind::Dns, "HTTP_PROXY"),
        ("SOCKS that is none", socks(hasty), https, Kind::ProxyRefused, "NO_PROXY"),
        ("SOCKS, nobody there", socks(nobody()), http, Kind::ProxyRefused, "NO_PROXY"),
    ];
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("nsswitch.conf"), "hosts: files\n").unwrap();
    for (name, proxy, url, kind, hint) in cases {
        let mut settings = through(&with_login(&proxy));
        // Without a name server.
        settings.name_files = NameFiles::within(files.path());
        settings.connect_timeout = Duration::from_secs(if name == "silence" { 1 } else { 20 });
        let error = net(settings).get(url, &[]).unwrap_err();
        assert_eq!(error.kind(), Some(kind), "{name}: {error:?}");
        let shown = proxy.trim_end_matches('/');
        assert!(error.to_string().contains(&format!("the proxy `{shown}`")), "{name}: {error}");
        assert!(error.hint().is_some_and(|text| text.contains(hint)), "{name}: {:?}", error.hint());
        assert!(!format!("{error:?} {error} {:?}", error.hint()).contains("hunter2"), "{name}: {error:?}");
    }
}

/// What a host does behind a proxy that lets us through is the host's doing.
#[test]
fn a_host_behind_a_proxy_is_at_fault_itself() {
    let plain = server(|mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        // The host's, after the client began with TLS.
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let error = net(through(&plain)).get("https://registry.invalid/", &[]).unwrap_err();
    assert_eq!(error.kind(), Some(Kind::PlainHttp), "{error:?}");
    assert!(!error.to_string().contains("proxy"), "{error}");
}

/// To an HTTPS host through CONNECT.
#[test]
fn a_tunnel_leads_to_the_host() {
    let host = crate::tls::server(false);
    let proxy = server(move |mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        join(stream, &host);
    });
    let mut settings = through(&proxy);
    settings.skip_verify_all = true;
    let mut response = net(settings).get("https://registry.invalid/", &[]).unwrap();
    assert_eq!(response.read_all(10).unwrap(), b"ok");
}

/// To an HTTPS proxy: its certificate counts, and what it says is heard.
#[test]
fn a_proxy_may_be_spoken_to_over_tls() {
    let proxy = format!("https://{}", crate::tls::server(false));
    let refused = |settings: Settings| net(settings).get("https://registry.invalid/", &[]).unwrap_err();
    let error = refused(through(&proxy));
    assert_eq!(error.kind(), Some(Kind::Certificate), "{error:?}");
    assert!(error.to_string().contains(&format!("certificate of the proxy `{proxy}`")), "{error}");
    let mut trusting = through(&proxy);
    trusting.certificates = vec![(String::new(), testkit::certificates::file("ca.pem"))];
    // The server says 200 to CONNECT and then speaks no TLS within TLS: the tunnel was made.
    let error = refused(trusting);
    assert!(!error.to_string().contains("proxy"), "{error:?}");
}

/// Copies between `stream` and `host` until both are through.
fn join(stream: TcpStream, host: &str) {
    let other = TcpStream::connect(host).unwrap();
    let (mut up, mut down) = ((stream.try_clone().unwrap(), other.try_clone().unwrap()), (other, stream));
    std::thread::spawn(move || std::io::copy(&mut up.0, &mut up.1));
    std::thread::spawn(move || std::io::copy(&mut down.0, &mut down.1));
}

/// A SOCKS5 proxy that answers requests itself, or refuses with `code`; what it was asked to connect to.
fn socks(code: u8) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 512];
            let mut read = |stream: &mut TcpStream, count: usize| {
                stream.read_exact(&mut bytes[..count]).unwrap_or_default();
                bytes[..count].to_vec()
            };
            let methods = read(&mut stream, 2)[1];
            read(&mut stream, methods.into());
            let _ = stream.write_all(&[5, 0]);
            let host = match read(&mut stream, 4)[3] {
                1 => read(&mut stream, 4).iter().map(u8::to_string).collect::<Vec<_>>().join("."),
                _ => {
                    let length = read(&mut stream, 1)[0];
                    String::from_utf8(read(&mut stream, length.into())).unwrap()
                }
            };
            read(&mut stream, 2);
            log.lock().unwrap().push(host);
            let _ = stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
            if code == 0 {
                let _ = read_head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            }
        }
    });
    (address, asked)
}

/// `socks5` looks the name up here, with our own resolver; `socks5h` leaves it to the proxy.
#[test]
fn socks_proxies() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("hosts"), "192.0.2.1 registry.example\n").unwrap();
    for (scheme, expected) in [("socks5", "192.0.2.1"), ("socks5h", "registry.example")] {
        let (address, asked) = socks(0);
        let mut settings = through(&format!("{scheme}://{address}"));
        settings.name_files = NameFiles::within(files.path());
        let mut response = net(settings).get("http://registry.example/", &[]).unwrap();
        assert_eq!(response.read_all(10).unwrap(), b"ok");
        assert_eq!(asked.lock().unwrap()[..], [expected], "{scheme}");
    }
    let (address, _) = socks(2);
    let error: NetError =
        net(through(&format!("socks5h://{address}"))).get("http://registry.example/", &[]).unwrap_err();
    assert_eq!(error.kind(), Some(Kind::ProxyRefused), "{error:?}");
    assert!(error.to_string().contains(&format!("the proxy `socks5h://{address}` does not connect")), "{error}");
}
