//! Credential helpers: `docker-credential-NAME get`, the protocol of docker/docker-credential-helpers.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::credentials::Login;
use crate::secret::Secret;

/// The name with which a helper says that its `Secret` is an identity token.
const TOKEN_USER: &str = "<token>";

/// What helpers say when they know nothing about a server; it goes to stdout with status 1.
const NOT_FOUND: &str = "credentials not found";

/// More than this is no answer of a helper.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// How helpers are run.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    /// Looked in before `PATH`.
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) timeout: Duration,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

impl Runner {
    /// Asks the helper `name` about `server`; none when it has nothing.
    ///
    /// # Errors
    /// A clause for a message that names the helper: it is not installed, fails, hangs or answers nonsense.
    pub(crate) fn ask(&self, name: &str, server: &str) -> Result<Option<Login>, String> {
        let program = format!("docker-credential-{name}");
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(format!("`{}` is no name of a credential helper", name.escape_debug()));
        }
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => format!("credential helper `{program}` is not installed"),
            io::ErrorKind::TimedOut => {
                format!("credential helper `{program}` did not answer within {} s", self.timeout.as_secs())
            }
            _ => format!("credential helper `{program}` failed: {e}"),
        };
        let (succeeded, output) = self.run(&program, server).map_err(failed)?;
        if !succeeded {
            let said = String::from_utf8_lossy(&output);
            if said.to_ascii_lowercase().contains(NOT_FOUND) {
                return Ok(None);
            }
            return Err(format!("credential helper `{program}` failed: {}", crate::failure::one_line(&said)));
        }
        let answer: Answer = serde_json::from_slice(&output)
            .map_err(|_| format!("credential helper `{program}` did not answer with JSON"))?;
        Ok(login(answer))
    }

    /// Whether it succeeded, and its stdout.
    fn run(&self, program: &str, server: &str) -> io::Result<(bool, Vec<u8>)> {
        let path = self.directories.iter().map(|d| d.join(program)).find(|p| p.is_file());
        let mut command = Command::new(path.unwrap_or_else(|| program.into()));
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // It may take as long as its answer.
        let until = Instant::now() + self.timeout;
        let late = || Instant::now() >= until;
        let mut child = spawn::process(&mut command, &late)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that exits without reading has its reasons; its status tells them.
            let _ = writeln!(stdin, "{server}");
        }
        let stdout = child.stdout.take();
        let read = move || {
            let mut output = Vec::new();
            stdout.map_or(Ok(0), |pipe| pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut output)).map(|_| output)
        };
        let reader = match spawn::thread("helper", &late, read) {
            Ok(reader) => reader,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let succeeded = wait(&mut child, self.timeout)?;
        let output = reader.join().unwrap_or_else(|_| Err(io::Error::other("reading its answer failed")))?;
        Ok((succeeded, output))
    }
}

/// Waits for `child`, and kills it when `timeout` has passed.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<bool> {
    let until = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn login(answer: Answer) -> Option<Login> {
    let secret = Secret::new(answer.secret);
    match answer.username.as_str() {
        _ if secret.is_empty() => None,
        TOKEN_USER => Some(Login::Identity { token: secret }),
        "" => None,
        _ => Some(Login::Basic { username: answer.username, password: secret }),
    }
}
