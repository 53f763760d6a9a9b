//! ADD of addresses, and contexts from them, on a server of 127.0.0.1.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::harness::Place;

const CONTENT: &str = "fetched";

/// Answers every request for `/file…` with [`CONTENT`], for `/context.tar` with a context, and others with 404.
fn server() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(answer(stream))));
    host
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).unwrap_or_default();
    let tar = testkit::fixture::tar(&[("Dockerfile", b"FROM scratch\nCOPY f /\n"), ("f", b"in the tar")]);
    let (status, body): (&str, &[u8]) = match path {
        p if p.starts_with("/file") => ("200 OK", CONTENT.as_bytes()),
        "/context.tar" => ("200 OK", &tar),
        _ => ("404 Not Found", b"no"),
    };
    let modified = "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT";
    write!(stream, "HTTP/1.1 {status}\r\n{modified}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}

#[test]
fn files_have_the_servers_time_and_a_private_mode() {
    let host = server();
    let sum = oci::Digest::of(CONTENT.as_bytes());
    let place = Place::new(&format!(
        "FROM scratch\nADD http://{host}/file.txt?x=1 /d/\nADD --chmod=644 --checksum={sum} http://{host}/file /named\n"
    ));
    let ran = place.build(&["--output=files"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert_eq!((place.read("files/d/file.txt").as_str(), place.read("files/named").as_str()), (CONTENT, CONTENT));
    let private = std::fs::metadata(place.path("files/d/file.txt")).unwrap();
    assert_eq!((private.permissions().mode() & 0o7777, private.mtime()), (0o600, 1_700_000_000));
    assert_eq!(std::fs::metadata(place.path("files/named")).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn what_cannot_be_fetched_fails_the_build() {
    let host = server();
    let closed = format!("127.0.0.1:{}", testkit::docker_registry::free_port());
    let wrong = oci::Digest::of(b"something else").to_string();
    let table = [
        (format!("ADD http://{host}/nothing /"), "404"),
        (format!("ADD http://{closed}/x /"), "refused"),
        (format!("ADD --checksum={wrong} http://{host}/file /"), &wrong),
    ];
    for (instruction, part) in table {
        let ran = Place::new(&format!("FROM scratch\n{instruction}\n")).build(&["--no-push"]);
        ran.failed(3, &[part, "could not add", "Dockerfile:2"]);
    }
}

#[test]
fn a_password_in_an_address_is_not_shown() {
    let host = server();
    for (path, code) in [("file", 0), ("nothing", 3)] {
        let place = Place::new("FROM scratch\nARG TOKEN\nADD http://user:${TOKEN}@HOST/PATH /\n");
        let dockerfile = place.read("context/Dockerfile").replace("HOST", &host).replace("PATH", path);
        let place = place.file("context/Dockerfile", dockerfile);
        let ran = place.build(&["--no-push", "--build-arg=TOKEN=hunter2", "--verbosity=trace"]);
        assert_eq!(ran.code(), code, "{}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
}

#[test]
fn a_password_in_an_address_is_not_in_the_image() {
    let host = server();
    let place = Place::new(&format!("FROM scratch\nADD http://user:hunter2@{host}/file /\n"));
    let ran = place.build(&["--oci-layout-path=image", "--no-push"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    let blobs = std::fs::read_dir(place.path("image/blobs/sha256")).expect("a layout");
    for blob in blobs {
        let bytes = std::fs::read(blob.expect("an entry").path()).expect("a blob");
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_context_from_an_address() {
    let host = server();
    let place = Place::new("");
    let ran = place.run(&["build", "--output=files", &format!("http://{host}/context.tar")]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert_eq!(place.read("files/f"), "in the tar");
    place.run(&["build", "--no-push", &format!("http://{host}/nothing")]).failed(3, &["404", "/nothing"]);
    place.assert_clean();
}
