//! Which certificates are accepted, and which are shown.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use testkit::certificates::file;
use zuwai_net::{Kind, Net, NetError, Settings};

use crate::{net, settings};

fn certificates(name: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file(name)).unwrap().map(Result::unwrap).collect()
}

/// A server that says `ok` over TLS, to clients with a certificate only if `asks`; `127.0.0.1:PORT`.
pub fn server(asks: bool) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match asks {
        false => builder.with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("ca.pem"));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = Arc::new(builder.with_single_cert(certificates("server.pem"), key).unwrap());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok() {
                    let _ = stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\nok");
                    let _ = stream.flush();
                }
            });
        }
    });
    host
}

fn ask(settings: Settings, host: &str) -> Result<Vec<u8>, NetError> {
    net(settings).get(&format!("https://{host}/"), &[]).map(|mut response| response.read_all(100).unwrap())
}

#[test]
fn who_is_trusted() {
    let host = server(false);
    let ca = || file("ca.pem");
    type Change<'a> = &'a dyn Fn(&mut Settings);
    let cases: [(&str, Change<'_>, bool); 8] = [
        ("nobody told", &|_| {}, false),
        ("the CA for this host", &|s| s.certificates = vec![("127.0.0.1".to_owned(), ca())], true),
        ("the CA for this host and port", &|s| s.certificates = vec![(host.clone(), ca())], true),
        ("the CA for all hosts", &|s| s.certificates = vec![(String::new(), ca())], true),
        ("the CA for another host", &|s| s.certificates = vec![("other.example".to_owned(), ca())], false),
        ("anybody at this host", &|s| s.skip_verify = vec![host.clone()], true),
        ("anybody at another host", &|s| s.skip_verify = vec!["other.example".to_owned()], false),
        ("anybody", &|s| s.skip_verify_all = true, true),
    ];
    for (name, change, accepted) in cases {
        let mut changed = settings();
        change(&mut changed);
        match ask(changed, &host) {
            Ok(body) => assert!(accepted && body == b"ok", "{name}"),
            Err(error) => {
                assert!(!accepted, "{name}: {error:?}");
                assert_eq!(error.kind(), Some(Kind::Certificate), "{name}: {error:?}");
            }
        }
    }
}

#[test]
fn a_client_shows_its_certificate_where_told() {
    let host = server(true);
    let with = |own: Vec<(String, PathBuf, PathBuf)>| {
        let mut changed = settings();
        changed.retries = 0;
        changed.certificates = vec![(String::new(), file("ca.pem"))];
        changed.client_certificates = own;
        ask(changed, &host)
    };
    assert!(with(Vec::new()).is_err());
    assert!(with(vec![("other.example".to_owned(), file("client.pem"), file("client.key"))]).is_err());
    assert_eq!(with(vec![(host.clone(), file("client.pem"), file("client.key"))]).unwrap(), b"ok");
}

#[test]
fn files_that_cannot_be_used_are_named_at_once() {
    let certificate = |path: PathBuf| {
        let mut changed = settings();
        changed.certificates = vec![("host".to_owned(), path)];
        Net::new(changed)
    };
    let key = |path: PathBuf| {
        let mut changed = settings();
        changed.client_certificates = vec![("host".to_owned(), file("client.pem"), path)];
        Net::new(changed)
    };
    for (made, expected) in [
        (certificate(file("absent.pem")), "absent.pem"),
        (certificate(file("server.key")), "server.key"),
        (key(file("absent.key")), "absent.key"),
        (key(file("ca.pem")), "client key"),
    ] {
        let error = made.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn plain_http_is_recognised() {
    let plain = testkit::FakeRegistry::start();
    let error = ask(settings(), &plain.host()).unwrap_err();
    assert_eq!(error.kind(), Some(Kind::PlainHttp), "{error:?}");
}
