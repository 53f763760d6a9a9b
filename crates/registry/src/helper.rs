//! Credential helpers: `docker-credential-NAME get`, the protocol of docker/docker-credential-helpers.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::credentials::Login;
use crate::go_json;
use crate::secret::Secret;

/// The name with which a helper says that its `Secret` is an identity token.
const TOKEN_USER: &str = "<token>";

/// What helpers say when they know nothing about a server; it goes to stdout with status 1, by some to stderr.
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

/// What a helper printed, and whether it was content with it.
struct Said {
    succeeded: bool,
    stdout: Vec<u8>,
    /// Warnings, or why it failed.
    stderr: Vec<u8>,
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
        let said = self.run(&program, server).map_err(failed)?;
        if !said.succeeded {
            // Nothing else is an answer, so nothing of this is a secret.
            let told = String::from_utf8_lossy(&[said.stdout, b" ".to_vec(), said.stderr].concat()).into_owned();
            if told.to_ascii_lowercase().contains(NOT_FOUND) {
                return Ok(None);
            }
            let reason = match crate::failure::one_line(&told) {
                silence if silence.is_empty() => "it gave no reason".to_owned(),
                reason => reason,
            };
            return Err(format!("credential helper `{program}` failed: {reason}"));
        }
        login(&said.stdout).map_err(|problem| format!("credential helper `{program}` {problem}"))
    }

    fn run(&self, program: &str, server: &str) -> io::Result<Said> {
        let path = self.directories.iter().map(|d| d.join(program)).find(|p| p.is_file());
        let mut command = Command::new(path.unwrap_or_else(|| program.into()));
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // It may take as long as its answer.
        let until = Instant::now() + self.timeout;
        let late = || Instant::now() >= until;
        let mut child = spawn::process(&mut command, &late)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that exits without reading has its reasons; its status tells them.
            let _ = writeln!(stdin, "{server}");
        }
        let pipes = child.stdout.take().zip(child.stderr.take());
        let readers = pipes.map(|(stdout, stderr)| Ok((in_background(stdout, &late)?, in_background(stderr, &late)?)));
        let (stdout, stderr) = match readers.transpose() {
            Ok(readers) => readers.unzip(),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let succeeded = wait(&mut child, self.timeout)?;
        let read = |reader: Option<JoinHandle<io::Result<Vec<u8>>>>| match reader.map(JoinHandle::join) {
            Some(Ok(read)) => read,
            _ => Err(io::Error::other("reading its answer failed")),
        };
        Ok(Said { succeeded, stdout: read(stdout)?, stderr: read(stderr)? })
    }
}

/// Reads what comes, so that nobody waits for a full pipe; what is too long is read and forgotten.
fn in_background(
    mut pipe: impl Read + Send + 'static,
    late: &dyn Fn() -> bool,
) -> io::Result<JoinHandle<io::Result<Vec<u8>>>> {
    spawn::thread("helper", late, move || {
        let mut output = Vec::new();
        (&mut pipe).take(MAX_ANSWER_BYTES).read_to_end(&mut output)?;
        io::copy(&mut pipe, &mut io::sink())?;
        Ok(output)
    })
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

/// The login in a helper's answer.
fn login(answer: &[u8]) -> Result<Option<Login>, &'static str> {
    let no_json = "did not answer with JSON";
    let answer = go_json::object(answer).map_err(|_| no_json)?;
    let text = |name| go_json::text(&answer, name).map_err(|_| no_json);
    Ok(text("Username")?.zip(text("Secret")?).map(|(username, secret)| match username.as_str() {
        TOKEN_USER => Login::Identity { token: Secret::new(secret) },
        _ => Login::Basic { username, password: Secret::new(secret) },
    }))
}
