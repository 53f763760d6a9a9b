//! Downloads from a server on this machine that answers as told.

use super::*;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Answers each path with the text that stands for it, headers included, then closes.
fn serve(answers: &[(&str, String)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answers: Arc<HashMap<String, String>> =
        Arc::new(answers.iter().map(|(path, answer)| (path.to_string(), answer.clone())).collect());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || answer(stream, &answers));
        }
    });
    address
}

fn answer(mut stream: TcpStream, answers: &HashMap<String, String>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let path = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
    let _ = lines.find(|line| line.is_empty());
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno".to_owned();
    let _ = stream.write_all(answers.get(&path).unwrap_or(&missing).as_bytes());
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
}

fn client() -> Net {
    let mut settings = net::Settings::new("test");
    settings.retries = 0;
    settings.backoff = Duration::from_millis(1);
    Net::new(settings).unwrap()
}

#[test]
fn files_come_with_name_time_and_digest() {
    let disposed =
        "content-disposition: attachment; filename=\"other\"\r\nlast-modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n";
    let moved = "HTTP/1.1 302 Found\r\nlocation: /f.txt\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let server = serve(&[
        ("/f.txt", ok("", "f\n")),
        ("/f.txt?version=1", ok(disposed, "f\n")),
        ("/moved/name", moved.to_owned()),
        ("/sp%20ace.txt", ok("last-modified: nonsense\r\n", "s")),
        ("/", ok("", "")),
    ]);
    let work = tempfile::tempdir().unwrap();
    // path, name in the image, time, content
    let table = [
        ("/f.txt", "f.txt", 0, "f\n"),
        ("/f.txt?version=1", "f.txt", 1_000_000_000, "f\n"),
        ("/moved/name", "name", 0, "f\n"),
        ("/sp%20ace.txt", "sp ace.txt", 0, "s"),
        ("/", "__unnamed__", 0, ""),
    ];
    for (path, name, modified, content) in table {
        let fetched = fetch_url(&client(), &format!("{server}{path}"), None, work.path()).unwrap();
        assert_eq!((fetched.file_name.as_str(), fetched.modified), (name, (modified, 0)), "{path}");
        assert_eq!(std::fs::read_to_string(&fetched.path).unwrap(), content);
        assert_eq!((fetched.digest, fetched.size_bytes), (Digest::of(content.as_bytes()), content.len() as u64));
    }
}

#[test]
fn what_is_not_as_it_should_be_is_refused_and_leaves_nothing() {
    let server = serve(&[
        ("/f", ok("", "content")),
        ("/busy", "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()),
        ("/cut", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nhalf".to_owned()),
    ]);
    let other = format!("sha256:{}", "0".repeat(64));
    let real = Digest::of(b"content").to_string();
    let work = tempfile::tempdir().unwrap();
    let table: [(&str, Option<&str>, u64, &[&str]); 6] = [
        ("/f", Some(&other), 100, &["digest mismatch", &other, &real]),
        ("/f", Some("md5:abc"), 100, &["checksum `md5:abc`"]),
        ("/f", Some(&real), 6, &["limit of 6 bytes"]),
        ("/none", None, 100, &["404 Not Found", "/none"]),
        ("/busy", None, 100, &["503"]),
        ("/cut", None, 100, &["/cut"]),
    ];
    for (path, checksum, max_bytes, parts) in table {
        let url = format!("{server}{path}");
        let wanted = Fetch { url: &url, headers: &[], checksum, max_bytes };
        let error = fetch(&client(), &wanted, work.path()).expect_err(path).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{path}: {error}");
    }
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let error = fetch_url(&client(), &format!("{server}/f"), Some(&sha512), work.path()).unwrap_err().to_string();
    assert!(error.contains("got sha512:"), "{error}");
}

#[test]
fn no_secret_of_an_address_is_shown() {
    let error = fetch_url(&client(), "http://user:secret@127.0.0.1:1/f?token=secret", None, Path::new("/nonexistent"));
    let error = error.unwrap_err().to_string();
    assert!(!error.contains("secret") && error.contains("127.0.0.1:1/f"), "{error}");
}

#[test]
fn names() {
    let table = [
        ("https://h/a/b.txt", "b.txt"),
        ("https://h/a/", "a"),
        ("https://h", "__unnamed__"),
        ("https://h/?x=/y", "__unnamed__"),
        ("https://h/a%2Fb", "b"),
        ("https://h/..%2f..", "download"),
        ("https://h/%0a", "__unnamed__"),
        ("https://h/a%00b", "download"),
        ("https://h/100%", "100%"),
        ("https://h/%C3%A4#x", "ä"),
    ];
    for (url, name) in table {
        assert_eq!(file_name(url), name, "{url}");
    }
}
