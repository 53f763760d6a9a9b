//! A registry of our own that does what real ones do on bad days: 401 with a token server, expired tokens, 429, 500, cut and
//! falsified bodies, silence, redirects, and the known quirks of hosted registries.
//!
//! Blobs, manifests and uploads are kept in memory. One thread per connection, HTTP/1.1 without TLS.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use oci::Digest;

use crate::fixture::Fixture;

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status, these headers and this body instead of doing anything.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// Closes the connection without an answer, once so many bytes of the request's body are read (and, in an upload, kept).
    CutRequest { after_bytes: usize },
    /// Announces the whole body, sends so many bytes of it and closes the connection.
    CutAnswer { after_bytes: usize },
    /// Announces and sends only so many bytes.
    Truncate { bytes: usize },
    /// Sends other bytes of the same length.
    Falsify,
    /// Sends so many bytes of the body and then nothing for this long.
    Stall { after_bytes: usize, pause: Duration },
    /// Does not see this header of the request.
    Ignore { header: &'static str },
    /// Does what was asked with success and answers with another status.
    Instead { status: u16 },
}

impl Fault {
    pub fn status(status: u16) -> Fault {
        Fault::Answer { status, headers: Vec::new(), body: String::new() }
    }

    /// An error as the distribution-spec writes it.
    pub fn error(status: u16, code: &str, message: &str) -> Fault {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Fault::Answer { status, headers: vec![("Content-Type", "application/json".to_owned())], body }
    }

    pub fn retry_after(status: u16, seconds: u32) -> Fault {
        Fault::Answer { status, headers: vec![("Retry-After", seconds.to_string())], body: String::new() }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Logged {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body_bytes: u64,
    /// 0 when there was no answer.
    pub status: u16,
}

impl Logged {
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }
}

/// How the registry asks who somebody is.
#[derive(Clone, Debug, Default)]
enum Login {
    #[default]
    Nobody,
    /// `user:password` in base64.
    Basic(String),
    Token(TokenRules),
}

#[derive(Clone, Debug)]
struct TokenRules {
    /// Where its token server is; itself when empty.
    realm: String,
    /// `user:password` in base64; without it everybody gets tokens.
    login: Option<String>,
    /// Takes this refresh token as well.
    identity: Option<String>,
    expires_in: Option<u64>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<(String, Digest), Vec<u8>>,
    /// By repository and tag or digest: media type and bytes.
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    next_id: u64,
    login: Login,
    /// What each token that was given out allows.
    tokens: HashMap<String, Vec<String>>,
    faults: Vec<Planned>,
    log: Vec<Logged>,
    /// Answers with a new upload session instead of mounting.
    never_mounts: bool,
    /// ECR: 201 to PATCH.
    patch_status: u16,
    /// 413 to larger request bodies.
    max_body: Option<u64>,
    /// GETs of blobs are redirected to this address, to which the path is added.
    blobs_at: Option<String>,
}

struct Planned {
    method: String,
    part: String,
    times: usize,
    fault: Fault,
}

/// A running fake; its threads end with it.
pub struct FakeRegistry {
    port: u16,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
}

impl FakeRegistry {
    pub fn start() -> FakeRegistry {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of 127.0.0.1 can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let state = Arc::new(Mutex::new(State { patch_status: 202, ..State::default() }));
        let stopped = Arc::new(AtomicBool::new(false));
        let registry = FakeRegistry { port, state: state.clone(), stopped: stopped.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), state) = (stream, state.clone()) else { continue };
                std::thread::spawn(move || serve(stream, &state, port));
            }
        });
        registry
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Lets the next `times` requests with `method` and a path that contains `part` meet `fault`. Faults planned first come
    /// first; a request meets one.
    pub fn fail(&self, method: &str, part: &str, times: usize, fault: Fault) {
        self.state().faults.push(Planned { method: method.to_owned(), part: part.to_owned(), times, fault });
    }

    /// Asks for HTTP Basic.
    pub fn require_basic(&self, user: &str, password: &str) {
        self.state().login = Login::Basic(base64(format!("{user}:{password}").as_bytes()));
    }

    /// Asks for tokens, which it gives out itself at `/token`: to everybody, or who shows `login`.
    pub fn require_token(&self, login: Option<(&str, &str)>, expires_in: Option<u64>) {
        self.require_token_of(&format!("http://{}/token", self.host()), login, expires_in);
    }

    /// As [`FakeRegistry::require_token`], from a token server at `realm`. Its tokens must be made known with
    /// [`FakeRegistry::accept_token`].
    pub fn require_token_of(&self, realm: &str, login: Option<(&str, &str)>, expires_in: Option<u64>) {
        let login = login.map(|(user, password)| base64(format!("{user}:{password}").as_bytes()));
        self.state().login = Login::Token(TokenRules { realm: realm.to_owned(), login, identity: None, expires_in });
    }

    /// Gives tokens also for this refresh token (OAuth2 POST).
    pub fn accept_identity(&self, token: &str) {
        if let Login::Token(rules) = &mut self.state().login {
            rules.identity = Some(token.to_owned());
        }
    }

    pub fn accept_token(&self, token: &str, scope: &str) {
        self.state().tokens.insert(token.to_owned(), vec![scope.to_owned()]);
    }

    /// Forgets every token that it gave out.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    pub fn never_mount(&self) {
        self.state().never_mounts = true;
    }

    pub fn answer_patch_with(&self, status: u16) {
        self.state().patch_status = status;
    }

    pub fn limit_body(&self, bytes: u64) {
        self.state().max_body = Some(bytes);
    }

    /// Redirects GETs of blobs to `base` (`http://127.0.0.1:PORT`).
    pub fn redirect_blobs(&self, base: &str) {
        self.state().blobs_at = Some(base.to_owned());
    }

    /// Puts an image in, under `tag` and its digest.
    pub fn add(&self, repository: &str, tag: &str, image: &Fixture) {
        for (digest, bytes) in &image.blobs {
            self.add_blob(repository, digest, bytes);
        }
        self.add_manifest(repository, tag, image.manifest_type, &image.manifest);
    }

    pub fn add_blob(&self, repository: &str, digest: &Digest, bytes: &[u8]) {
        self.state().blobs.insert((repository.to_owned(), digest.clone()), bytes.to_vec());
    }

    pub fn add_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        self.state().put_manifest(repository, tag, media_type, bytes);
    }

    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        self.state().blobs.get(&(repository.to_owned(), digest.clone())).cloned()
    }

    /// Media type and bytes.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<(String, Vec<u8>)> {
        self.state().manifests.get(&(repository.to_owned(), tag.to_owned())).cloned()
    }

    pub fn requests(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    /// The requests with `method` and a path that contains `part`.
    pub fn requests_of(&self, method: &str, part: &str) -> Vec<Logged> {
        self.requests().into_iter().filter(|r| r.method == method && r.path.contains(part)).collect()
    }

    pub fn forget_requests(&self) {
        self.state().log.clear();
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    fn plain_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    fn parameters(&self, name: &str) -> Vec<String> {
        parameters(self.path.split_once('?').map_or("", |(_, query)| query), name)
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

struct Told {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Told {
    fn new(status: u16) -> Told {
        Told { status, headers: Vec::new(), body: Vec::new() }
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Told {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Told {
        self.body = body.into();
        self
    }

    fn error(status: u16, code: &str) -> Told {
        Told::new(status).header("Content-Type", "application/json").body(format!(
            r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#,
            code.to_lowercase().replace('_', " ")
        ))
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, port: u16) {
    let Ok(reading) = stream.try_clone() else { return };
    if begins_tls(&stream) {
        // As Go's servers do.
        let _ =
            (&stream).write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n");
        return;
    }
    let mut reader = BufReader::new(reading);
    while let Ok(Some(head)) = read_head(&mut reader) {
        match handle(head, &mut reader, &stream, state, port) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Whether the first byte is that of a TLS handshake record.
fn begins_tls(stream: &TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).is_ok_and(|count| count == 1) && first[0] == 0x16
}

fn read_head(reader: &mut impl io::BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut asked =
        Asked { method: method.to_owned(), path: path.to_owned(), headers: BTreeMap::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(Some(asked)) };
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

/// Whether the connection goes on.
fn handle(
    mut asked: Asked,
    reader: &mut BufReader<TcpStream>,
    stream: &TcpStream,
    state: &Mutex<State>,
    port: u16,
) -> io::Result<bool> {
    let fault = locked(state).next_fault(&asked);
    if let Some(Fault::CutRequest { after_bytes }) = fault {
        asked.body = vec![0; after_bytes];
        reader.read_exact(&mut asked.body)?;
        locked(state).keep_partly(&asked);
        locked(state).note(&asked, 0);
        return Ok(false);
    }
    if let Some(Fault::Ignore { header }) = &fault {
        asked.headers.remove(*header);
    }
    read_body(&mut asked, reader)?;
    let mut told = match &fault {
        Some(Fault::Answer { status, headers, body }) => {
            let told = Told::new(*status).body(body.as_bytes());
            headers.iter().fold(told, |told, (name, value)| told.header(name, value.as_str()))
        }
        _ => locked(state).answer(&asked, port),
    };
    if let Some(Fault::Instead { status }) = &fault {
        told.status = *status;
    }
    locked(state).note(&asked, told.status);
    send(told, &asked, fault.as_ref(), stream)
}

fn read_body(asked: &mut Asked, reader: &mut BufReader<TcpStream>) -> io::Result<()> {
    if asked.header("transfer-encoding").is_some_and(|t| t.contains("chunked")) {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = asked.body.len();
            asked.body.resize(start + size, 0);
            reader.read_exact(&mut asked.body[start..])?;
            reader.read_line(&mut line)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
    let length = asked.header("content-length").and_then(|t| t.parse().ok()).unwrap_or(0);
    asked.body.resize(length, 0);
    reader.read_exact(&mut asked.body)
}

fn send(told: Told, asked: &Asked, fault: Option<&Fault>, mut stream: &TcpStream) -> io::Result<bool> {
    let mut body = told.body;
    match fault {
        Some(Fault::Falsify) => body.iter_mut().for_each(|b| *b ^= 0x55),
        Some(Fault::Truncate { bytes }) => body.truncate(*bytes),
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} x\r\nContent-Length: {}\r\n", told.status, body.len());
    if told.status == 204 {
        head = "HTTP/1.1 204 x\r\n".to_owned();
    }
    for (name, value) in &told.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" || told.status == 204 {
        return Ok(true);
    }
    match fault {
        Some(Fault::CutAnswer { after_bytes }) => {
            stream.write_all(&body[..(*after_bytes).min(body.len())])?;
            return Ok(false);
        }
        Some(Fault::Stall { after_bytes, pause }) => {
            let (first, rest) = body.split_at((*after_bytes).min(body.len()));
            stream.write_all(first)?;
            std::thread::sleep(*pause);
            stream.write_all(rest)?;
        }
        _ => stream.write_all(&body)?,
    }
    Ok(true)
}

impl State {
    fn next_fault(&mut self, asked: &Asked) -> Option<Fault> {
        let planned =
            self.faults.iter_mut().find(|p| p.times > 0 && p.method == asked.method && asked.path.contains(&p.part))?;
        planned.times -= 1;
        Some(planned.fault.clone())
    }

    fn note(&mut self, asked: &Asked, status: u16) {
        self.log.push(Logged {
            method: asked.method.clone(),
            path: asked.path.clone(),
            headers: asked.headers.clone(),
            body_bytes: asked.body.len() as u64,
            status,
        });
    }

    fn keep_partly(&mut self, asked: &Asked) {
        if let Some((_, id)) = asked.plain_path().rsplit_once("/blobs/uploads/")
            && let Some(upload) = self.uploads.get_mut(id)
        {
            upload.extend_from_slice(&asked.body);
        }
    }

    fn answer(&mut self, asked: &Asked, port: u16) -> Told {
        let path = asked.plain_path();
        if path == "/token" {
            return self.give_token(asked);
        }
        if self.max_body.is_some_and(|most| asked.body.len() as u64 > most) {
            return Told::new(413);
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return Told::new(404) };
        if let Some(refusal) = self.refuse(asked, rest, port) {
            return refusal;
        }
        if rest.is_empty() {
            return Told::new(200);
        }
        if let Some((repository, id)) = rest.split_once("/blobs/uploads/") {
            return self.upload(asked, repository, id);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return self.blob(asked, repository, digest);
        }
        match rest.split_once("/manifests/") {
            Some((repository, tag)) => self.manifest(asked, repository, tag),
            None => Told::new(404),
        }
    }

    fn refuse(&self, asked: &Asked, rest: &str, port: u16) -> Option<Told> {
        let given = asked.header("authorization").unwrap_or_default();
        match &self.login {
            Login::Nobody => None,
            Login::Basic(login) if given == format!("Basic {login}") => None,
            Login::Basic(_) => {
                Some(Told::error(401, "UNAUTHORIZED").header("WWW-Authenticate", "Basic realm=\"fake\""))
            }
            Login::Token(rules) => {
                let wanted = wanted_scopes(asked, rest);
                let held = given.strip_prefix("Bearer ").and_then(|token| self.tokens.get(token));
                if held.is_some_and(|held| wanted.iter().all(|w| allows(held, w))) {
                    return None;
                }
                let scope = wanted
                    .iter()
                    .map(|(name, action)| format!("repository:{name}:{action}"))
                    .collect::<Vec<_>>()
                    .join(" ");
                let challenge =
                    format!("Bearer realm=\"{}\",service=\"127.0.0.1:{port}\",scope=\"{scope}\"", rules.realm);
                Some(Told::error(401, "UNAUTHORIZED").header("WWW-Authenticate", challenge))
            }
        }
    }

    fn give_token(&mut self, asked: &Asked) -> Told {
        let Login::Token(rules) = self.login.clone() else { return Told::new(404) };
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        let (scopes, known) = match asked.method.as_str() {
            "POST" => {
                let scopes = parameters(&form, "scope").join(" ").split(' ').map(str::to_owned).collect();
                (
                    scopes,
                    rules.identity.is_some() && parameters(&form, "refresh_token").first() == rules.identity.as_ref(),
                )
            }
            _ => {
                let given = asked.header("authorization").and_then(|value| value.strip_prefix("Basic "));
                (asked.parameters("scope"), rules.login.is_none() || given == rules.login.as_deref())
            }
        };
        if !known {
            return Told::new(401).body(r#"{"details":"incorrect username or password"}"#);
        }
        self.next_id += 1;
        let token = format!("token-{}", self.next_id);
        self.tokens.insert(token.clone(), scopes);
        let life = rules.expires_in.map(|s| format!(",\"expires_in\":{s}")).unwrap_or_default();
        Told::new(200).header("Content-Type", "application/json").body(format!("{{\"token\":\"{token}\"{life}}}"))
    }

    fn upload(&mut self, asked: &Asked, repository: &str, id: &str) -> Told {
        match asked.method.as_str() {
            "POST" => self.start_upload(asked, repository),
            "PATCH" => self.append(asked, repository, id),
            "PUT" => self.finish_upload(asked, repository, id),
            "GET" => match self.uploads.get(id) {
                Some(upload) => Told::new(204)
                    .header("Range", format!("0-{}", upload.len().max(1) - 1))
                    .header("Location", asked.plain_path()),
                None => Told::error(404, "BLOB_UPLOAD_UNKNOWN"),
            },
            "DELETE" => Told::new(if self.uploads.remove(id).is_some() { 204 } else { 404 }),
            _ => Told::new(405),
        }
    }

    fn start_upload(&mut self, asked: &Asked, repository: &str) -> Told {
        let mount = asked.parameter("mount").and_then(|text| Digest::parse(&text).ok());
        if let (Some(digest), Some(from), false) = (mount, asked.parameter("from"), self.never_mounts)
            && let Some(bytes) = self.blobs.get(&(from, digest.clone())).cloned()
        {
            self.blobs.insert((repository.to_owned(), digest.clone()), bytes);
            return Told::new(201).header("Location", format!("/v2/{repository}/blobs/{digest}"));
        }
        self.next_id += 1;
        let id = format!("upload-{}", self.next_id);
        self.uploads.insert(id.clone(), Vec::new());
        Told::new(202).header("Location", format!("/v2/{repository}/blobs/uploads/{id}?_state=abc"))
    }

    fn append(&mut self, asked: &Asked, repository: &str, id: &str) -> Told {
        let status = self.patch_status;
        let Some(upload) = self.uploads.get_mut(id) else { return Told::error(404, "BLOB_UPLOAD_UNKNOWN") };
        let first =
            asked.header("content-range").and_then(|r| r.split_once('-')).and_then(|(first, _)| first.parse().ok());
        if first.is_some_and(|first: usize| first != upload.len()) {
            return Told::error(416, "BLOB_UPLOAD_INVALID");
        }
        upload.extend_from_slice(&asked.body);
        Told::new(status)
            .header("Location", format!("/v2/{repository}/blobs/uploads/{id}?_state=def"))
            .header("Range", format!("0-{}", upload.len().max(1) - 1))
    }

    fn finish_upload(&mut self, asked: &Asked, repository: &str, id: &str) -> Told {
        let Some(mut bytes) = self.uploads.remove(id) else { return Told::error(404, "BLOB_UPLOAD_UNKNOWN") };
        bytes.extend_from_slice(&asked.body);
        match asked.parameter("digest").and_then(|text| Digest::parse(&text).ok()) {
            Some(digest) if digest == Digest::of(&bytes) => {
                self.blobs.insert((repository.to_owned(), digest.clone()), bytes);
                Told::new(201).header("Location", format!("/v2/{repository}/blobs/{digest}"))
            }
            _ => Told::error(400, "DIGEST_INVALID"),
        }
    }

    fn blob(&self, asked: &Asked, repository: &str, digest: &str) -> Told {
        let digest = Digest::parse(digest).ok();
        let bytes = digest.clone().and_then(|d| self.blobs.get(&(repository.to_owned(), d)));
        let Some(bytes) = bytes else { return Told::error(404, "BLOB_UNKNOWN") };
        if let (Some(base), "GET") = (&self.blobs_at, asked.method.as_str()) {
            return Told::new(307).header("Location", format!("{base}{}", asked.path));
        }
        let start =
            asked.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match start.filter(|&start| start <= bytes.len()) {
            Some(start) => Told::new(206)
                .header("Content-Range", format!("bytes {start}-{}/{}", bytes.len().max(1) - 1, bytes.len()))
                .body(&bytes[start..]),
            None => Told::new(200).body(bytes.clone()),
        }
    }

    fn manifest(&mut self, asked: &Asked, repository: &str, tag: &str) -> Told {
        if asked.method == "PUT" {
            let media_type = asked.header("content-type").unwrap_or_default().to_owned();
            if let Some(missing) = self.missing_blob(repository, &asked.body) {
                return Told::error(400, "MANIFEST_BLOB_UNKNOWN").header("X-Missing", missing);
            }
            let digest = self.put_manifest(repository, tag, &media_type, &asked.body);
            return Told::new(201).header("Docker-Content-Digest", digest.to_string());
        }
        if !self.manifests.keys().any(|(name, _)| name == repository) {
            return Told::error(404, "NAME_UNKNOWN");
        }
        match self.manifests.get(&(repository.to_owned(), tag.to_owned())) {
            Some((media_type, bytes)) => Told::new(200)
                .header("Content-Type", media_type.as_str())
                .header("Docker-Content-Digest", Digest::of(bytes).to_string())
                .body(bytes.clone()),
            None => Told::error(404, "MANIFEST_UNKNOWN"),
        }
    }

    /// A blob that the manifest names and the repository does not have.
    fn missing_blob(&self, repository: &str, manifest: &[u8]) -> Option<String> {
        let manifest: oci::Manifest = serde_json::from_slice(manifest).ok()?;
        let mut blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
        let has = |d: &oci::Descriptor| self.blobs.contains_key(&(repository.to_owned(), d.digest.clone()));
        blobs.find(|d| !has(d)).map(|d| d.digest.to_string())
    }

    fn put_manifest(&mut self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        for name in [tag, digest.as_str()] {
            self.manifests.insert((repository.to_owned(), name.to_owned()), (media_type.to_owned(), bytes.to_vec()));
        }
        digest
    }
}

/// Repository and action for each thing that a request needs to be allowed.
fn wanted_scopes(asked: &Asked, rest: &str) -> Vec<(String, String)> {
    let cut = ["/blobs/", "/manifests/"].iter().find_map(|part| rest.split_once(part));
    let Some((repository, _)) = cut else { return Vec::new() };
    let action = if matches!(asked.method.as_str(), "GET" | "HEAD") { "pull" } else { "push" };
    let mut wanted = vec![(repository.to_owned(), action.to_owned())];
    wanted.extend(asked.parameter("from").map(|from| (from, "pull".to_owned())));
    wanted
}

fn allows(held: &[String], (name, action): &(String, String)) -> bool {
    held.iter().filter_map(|scope| scope.rsplit_once(':')).any(|(resource, actions)| {
        resource == format!("repository:{name}") && actions.split(',').any(|a| a == action || a == "*")
    })
}

fn parameters(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| unescape(value)).collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// RFC 4648, section 4.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let symbol = ALPHABET[(number >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= group.len() { symbol as char } else { '=' });
        }
    }
    out
}
