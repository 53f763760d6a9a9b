//! Git repositories over HTTP on 127.0.0.1: `git http-backend` behind a small server, and the same files without it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// Serves the bare repositories in a directory, by the first part of the path:
///
/// `smart` through git's own program; `old` likewise, without version 2 of the protocol; `private` asks for a login;
/// `dumb` gives files; `moved` redirects to `smart`.
pub struct GitServer {
    /// `127.0.0.1:PORT`
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// With its query.
    pub path: String,
    pub authorization: Option<String>,
}

/// Whether there is a git program here that can serve; says so when there is none.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn available() -> bool {
    let there = Command::new("git").arg("version").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: there is no `git` here");
    }
    there
}

/// Runs git in `directory` with nobody's configuration and fixed names and times. Gives its output without the last newline.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .args(["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"])
        .args(arguments);
    plain(&mut command);
    for person in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{person}_NAME"), "t").env(format!("GIT_{person}_EMAIL"), "t@example.invalid");
        command.env(format!("GIT_{person}_DATE"), "2020-01-01T00:00:00Z");
    }
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn plain(command: &mut Command) -> &mut Command {
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env_remove("GIT_DIR")
}

impl GitServer {
    pub fn start(root: &Path) -> GitServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (root, log, own) = (root.to_owned(), Arc::clone(&seen), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, log, own) = (root.clone(), Arc::clone(&log), own.clone());
                std::thread::spawn(move || drop(answer(stream, &root, &log, &own)));
            }
        });
        GitServer { address, seen }
    }

    /// `http://…/KIND/NAME`
    pub fn url(&self, kind: &str, name: &str) -> String {
        format!("http://{}/{kind}/{name}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

struct Asked {
    method: String,
    path: String,
    query: String,
    content_type: String,
    protocol: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

fn answer(mut stream: TcpStream, root: &Path, log: &Mutex<Vec<Seen>>, own: &str) -> std::io::Result<()> {
    let asked = read(&mut stream)?;
    let path = format!("{}{}{}", asked.path, if asked.query.is_empty() { "" } else { "?" }, asked.query);
    log.lock().expect("not poisoned").push(Seen { path, authorization: asked.authorization.clone() });
    let (kind, rest) = asked.path.trim_start_matches('/').split_once('/').unwrap_or(("", ""));
    let bytes = match kind {
        "private" if asked.authorization.is_none() => head(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        "smart" | "private" | "old" => backend(root, rest, &asked, kind == "old"),
        "moved" => head(302, &format!("Location: http://{own}/smart/{rest}?{}\r\n", asked.query), b""),
        "dumb" => match std::fs::read(root.join(rest)) {
            Ok(bytes) if !rest.contains("..") => head(200, "Content-Type: text/plain\r\n", &bytes),
            _ => head(404, "", b"none"),
        },
        _ => head(404, "", b"none"),
    };
    stream.write_all(&bytes)
}

fn read(stream: &mut TcpStream) -> std::io::Result<Asked> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        content_type: String::new(),
        protocol: String::new(),
        authorization: None,
        body: Vec::new(),
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-type" => asked.content_type = value.to_owned(),
            "git-protocol" => asked.protocol = value.to_owned(),
            "authorization" => asked.authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    asked.body.resize(length, 0);
    reader.read_exact(&mut asked.body)?;
    Ok(asked)
}

fn backend(root: &Path, path: &str, asked: &Asked, old: bool) -> Vec<u8> {
    let mut command = Command::new("git");
    plain(&mut command)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", &asked.query)
        .env("REQUEST_METHOD", &asked.method)
        .env("CONTENT_TYPE", &asked.content_type)
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("GIT_PROTOCOL", if old { "" } else { &asked.protocol });
    for (position, value) in ["safe.directory=*"].iter().enumerate() {
        let (key, value) = value.split_once('=').unwrap_or((value, ""));
        command.env("GIT_CONFIG_COUNT", (position + 1).to_string());
        command.env(format!("GIT_CONFIG_KEY_{position}"), key).env(format!("GIT_CONFIG_VALUE_{position}"), value);
    }
    let output = with_input(&mut command, &asked.body);
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
    let headers = String::from_utf8_lossy(&output.stdout[..end]).into_owned();
    let status = headers.lines().find_map(|line| line.strip_prefix("Status: ")?.get(..3)?.parse().ok()).unwrap_or(200);
    let kept: String =
        headers.lines().filter(|line| !line.starts_with("Status")).map(|line| format!("{line}\r\n")).collect();
    head(status, &kept, output.stdout.get(end + 4..).unwrap_or_default())
}

fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = piped.expect("git runs");
    // What git does not read it does not need.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    child.wait_with_output().expect("git ends")
}

fn head(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len())
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A bare copy of the repository in `source`, as `root/NAME`, that any server can give.
pub fn publish(source: &Path, root: &Path, name: &str) -> PathBuf {
    let to = root.join(name);
    git(root, &["clone", "-q", "--bare", source.to_str().expect("UTF-8"), to.to_str().expect("UTF-8")]);
    git(&to, &["update-server-info"]);
    to
}
