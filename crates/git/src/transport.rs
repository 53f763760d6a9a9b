//! How a server is reached: over HTTP with our own client, over TCP (git://), or through an `ssh` program.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use auth::Secret;
use base64::Engine as _;
use net::{Body, Net, Request, Response};

use super::address::{Remote, Transport};
use super::{Fault, Result, packet};

const GIT_PORT: u16 = 9418;
/// How often the cancel flag is looked at while a server is silent.
const POLL: Duration = Duration::from_millis(50);
pub const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const RESULT: &str = "application/x-git-upload-pack-result";

/// A repository over HTTP.
pub struct Http<'a> {
    net: &'a Net,
    /// Without the last `/`.
    base: String,
    authorization: Option<Secret>,
}

impl<'a> Http<'a> {
    pub fn new(net: &'a Net, remote: &Remote, authorization: Option<Secret>) -> Http<'a> {
        let scheme = if remote.transport == Transport::Http { "http" } else { "https" };
        let path = remote.path.trim_end_matches('/');
        let base = format!("{scheme}://{}{path}", remote.host_and_port());
        let of_address = || {
            let login = remote.login.as_ref()?;
            Some(basic(&login.user, login.password.as_ref().unwrap_or(&Secret::new(""))))
        };
        Http { net, base, authorization: authorization.or_else(of_address) }
    }

    /// Asks for the references. Later requests go to where this one was redirected, as git's own client does
    /// (`http.followRedirects=initial`), and a login does not go along to another host.
    pub fn advertisement(&mut self) -> Result<Response> {
        const PATH: &str = "/info/refs";
        let url = format!("{}{PATH}?service=git-upload-pack", self.base);
        let response = self.send(Request::get(&url).header("git-protocol", "version=2")?)?;
        let end = response.final_url.split('?').next().unwrap_or_default();
        if let Some(base) = end.strip_suffix(PATH).filter(|base| *base != self.base) {
            if origin(base) != origin(&self.base) {
                self.authorization = None;
            }
            base.clone_into(&mut self.base);
        }
        Ok(response)
    }

    pub fn post(&self, body: Vec<u8>) -> Result<Response> {
        let request = Request::new(http_post(), format!("{}/git-upload-pack", self.base))
            .header("git-protocol", "version=2")?
            .header("content-type", "application/x-git-upload-pack-request")?
            .header("accept", RESULT)?
            .body(Body::Bytes(body.into()))
            .http1();
        let response = self.send(request)?;
        match response.header("content-type") {
            Some(RESULT) => Ok(response),
            _ => Err(Fault::server("the answer is not of git's protocol")),
        }
    }

    /// A file of the repository; none where there is none.
    pub fn file(&self, path: &str) -> Result<Option<Response>> {
        let response = self.net.send(&self.with_login(Request::get(format!("{}/{path}", self.base)))?)?;
        match response.status {
            404 | 410 => Ok(None),
            _ => answered(response).map(Some),
        }
    }

    fn send(&self, request: Request<'_>) -> Result<Response> {
        answered(self.net.send(&self.with_login(request)?)?)
    }

    fn with_login<'r>(&self, request: Request<'r>) -> Result<Request<'r>> {
        match &self.authorization {
            Some(value) => Ok(request.header("authorization", value.reveal())?),
            None => Ok(request),
        }
    }
}

/// Of the crate below our HTTP client, which does not need to be a dependency for this one word.
fn http_post() -> reqwest::Method {
    reqwest::Method::POST
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<reqwest::Url> {
    let mut url = reqwest::Url::parse(url).ok()?;
    url.set_path("");
    Some(url)
}

/// `Basic …` of a user and a password.
pub fn basic(user: &Secret, password: &Secret) -> Secret {
    let text: Secret = Secret::new(format!("{}:{}", user.reveal(), password.reveal()));
    Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text.reveal())))
}

fn answered(response: Response) -> Result<Response> {
    const LOGIN: &str = "for a private repository give a token: `--secret id=GIT_AUTH_TOKEN,…`, or the variable GIT_TOKEN for the \
                         build context";
    let fault =
        |hint: Option<&str>| Fault::server(format!("the server answered {}", response.status_text())).hint(hint);
    match response.status {
        200..=299 => Ok(response),
        // Hosts answer 404 for what a login may not see.
        401 | 403 | 404 => Err(fault(Some(LOGIN))),
        _ => Err(fault(None)),
    }
}

/// A connection for all of one conversation.
pub struct Stream<'a> {
    net: &'a Net,
    inner: Inner,
}

enum Inner {
    Tcp(TcpStream),
    Ssh { child: Child, input: Option<ChildStdin>, output: ChildStdout },
}

impl<'a> Stream<'a> {
    pub fn connect(net: &'a Net, remote: &Remote) -> Result<Stream<'a>> {
        match remote.transport {
            Transport::Ssh => ssh(net, remote),
            _ => tcp(net, remote),
        }
    }

    /// Waits for something to read, as long as the other side may be silent.
    fn wait(&self) -> Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let since = Instant::now();
        let pause = Timespec { tv_sec: 0, tv_nsec: POLL.as_nanos() as i64 };
        loop {
            if self.net.cancelled() {
                return Err(net::NetError::Cancelled.into());
            }
            let ready = match &self.inner {
                Inner::Tcp(stream) => poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&pause)),
                Inner::Ssh { output, .. } => poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&pause)),
            };
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if since.elapsed() > self.net.settings().answer_timeout {
                return Err(Fault::cut("the server is silent"));
            }
        }
    }

    /// Says that nothing more is to be sent, so that the other side can end.
    pub fn close_input(&mut self) {
        match &mut self.inner {
            Inner::Tcp(stream) => drop(stream.shutdown(std::net::Shutdown::Write)),
            Inner::Ssh { input, .. } => *input = None,
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wait().map_err(Fault::into_io)?;
        match &mut self.inner {
            Inner::Tcp(stream) => stream.read(into),
            Inner::Ssh { output, .. } => output.read(into),
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Tcp(stream) => stream.write(bytes),
            Inner::Ssh { input: Some(input), .. } => input.write(bytes),
            Inner::Ssh { input: None, .. } => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let Inner::Ssh { child, input, .. } = &mut self.inner {
            *input = None;
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tcp<'a>(net: &'a Net, remote: &Remote) -> Result<Stream<'a>> {
    let port = remote.port.unwrap_or(GIT_PORT);
    let mut last = Fault::cut(format!("host name `{}` has no address", remote.host));
    for mut address in net.look_up(&remote.host)? {
        address.set_port(port);
        match TcpStream::connect_timeout(&address, net.settings().connect_timeout) {
            Ok(stream) => {
                stream.set_write_timeout(Some(net.settings().idle_timeout))?;
                let mut stream = Stream { net, inner: Inner::Tcp(stream) };
                let request =
                    format!("git-upload-pack {}\0host={}\0\0version=2\0", remote.path, remote.host_and_port());
                stream.write_all(format!("{:04x}{request}", request.len() + 4).as_bytes())?;
                return Ok(stream);
            }
            Err(error) => last = Fault::cut(format!("could not connect to `{address}`: {error}")),
        }
    }
    Err(last)
}

/// Through the `ssh` program, with the user's own configuration, keys and known hosts; it may ask for nothing.
fn ssh<'a>(net: &'a Net, remote: &Remote) -> Result<Stream<'a>> {
    let user = remote.login.as_ref().map(|login| format!("{}@", login.user.reveal())).unwrap_or_default();
    let host = remote.host.trim_start_matches('[').trim_end_matches(']');
    let path = match remote.path.strip_prefix('/') {
        Some(home) if home.starts_with('~') => home,
        _ => remote.path.as_str(),
    };
    if host.starts_with('-') || user.starts_with('-') || path.starts_with('-') {
        return Err(Fault::server("an address that begins with `-`"));
    }
    let mut command = Command::new("ssh");
    command.args(["-o", "BatchMode=yes", "-o", "SendEnv=GIT_PROTOCOL", "-x"]);
    if let Some(port) = remote.port {
        command.args(["-p", &port.to_string()]);
    }
    // Quoted for the shell at the other end.
    let quoted = path.replace('\'', "'\\''");
    command.arg("--").arg(format!("{user}{host}")).arg(format!("git-upload-pack '{quoted}'"));
    command.env("GIT_PROTOCOL", "version=2").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = spawn::process(&mut command, &|| net.cancelled()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::server("there is no `ssh` program here, and nothing else speaks ssh").hint(Some(
            "use the https address of the repository, with a token for a private one: `--secret id=GIT_AUTH_TOKEN,…`",
        )),
        _ => Fault::server(format!("could not start `ssh`: {error}")),
    })?;
    match (child.stdin.take(), child.stdout.take()) {
        (input, Some(output)) => Ok(Stream { net, inner: Inner::Ssh { child, input, output } }),
        _ => Err(Fault::server("could not talk to `ssh`")),
    }
}

/// Sends the end of a conversation: a flush where another command could stand.
pub fn say_goodbye(stream: &mut Stream<'_>) {
    let mut bytes = Vec::new();
    packet::flush(&mut bytes);
    let _ = stream.write_all(&bytes);
    stream.close_input();
}
