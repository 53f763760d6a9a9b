//! Credential helpers: `docker-credential-NAME get`, the protocol of docker/docker-credential-helpers.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::answers::{Answer, Answers};
use crate::go_json;
use crate::key::{self, Key};
use crate::login::{Credential, Login};
use crate::secret::Secret;
use crate::source::{AuthError, CredentialSource, one_line};

/// The name with which a helper says that its `Secret` is an identity token.
const TOKEN_USER: &str = "<token>";

/// What helpers say when they know nothing about a server; it goes to stdout with status 1, by some to stderr.
const NOT_FOUND: &str = "credentials not found";

/// More than this is no answer of a helper.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// The helpers that a file names for registries.
pub(crate) struct Assigned {
    /// What the file is called.
    pub(crate) name: String,
    pub(crate) by_key: Vec<(Key, String)>,
    /// The one for every other registry.
    pub(crate) store: Option<String>,
    pub(crate) helpers: Helpers,
}

impl CredentialSource for Assigned {
    fn name(&self) -> &str {
        &self.name
    }

    fn login(&self, registry: &str, repository: &str) -> Answer {
        let named = key::best(self.by_key.iter().map(|(key, helper)| (key, helper)), registry, repository);
        // A registry whose helper has no name is one of whose logins no helper knows.
        let Some(helper) = named.or(self.store.as_ref()).filter(|helper| !helper.is_empty()) else { return Ok(None) };
        let credential = self.helpers.ask(helper, &key::server(registry))?;
        Ok(credential.map(|found| found.from_entry(format!("{}, credential helper `{helper}`", self.name))))
    }
}

/// The helpers of this machine. Clones share what they answered: one that several files name is asked once.
#[derive(Clone, Default)]
pub(crate) struct Helpers {
    runner: Arc<Mutex<Runner>>,
    /// By helper and server.
    answers: Answers<(String, String)>,
}

impl Helpers {
    fn ask(&self, helper: &str, server: &str) -> Answer {
        self.answers.get((helper.to_owned(), server.to_owned()), || {
            let runner = self.runner().clone();
            Ok(runner.ask(helper, server)?.map(Credential::new))
        })
    }

    pub(crate) fn forget(&self) {
        self.answers.forget();
    }

    pub(crate) fn set_directories(&self, directories: Vec<PathBuf>) {
        self.runner().directories = directories;
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.runner().timeout = timeout;
    }

    fn runner(&self) -> MutexGuard<'_, Runner> {
        self.runner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How helpers are run.
#[derive(Clone, Debug)]
struct Runner {
    /// Looked in before `PATH`.
    directories: Vec<PathBuf>,
    timeout: Duration,
}

impl Default for Runner {
    fn default() -> Runner {
        Runner { directories: Vec::new(), timeout: Duration::from_secs(30) }
    }
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
    /// It is not installed, fails, hangs or answers nonsense.
    fn ask(&self, name: &str, server: &str) -> Result<Option<Login>, AuthError> {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(AuthError::HelperName { name: name.to_owned() });
        }
        let program = format!("docker-credential-{name}");
        let failed = |reason: String| AuthError::Helper { program: program.clone(), reason };
        let said = self.run(&program, server).map_err(|error| {
            failed(match error.kind() {
                io::ErrorKind::NotFound => "is not installed".to_owned(),
                io::ErrorKind::TimedOut => format!("did not answer within {} s", self.timeout.as_secs()),
                _ => format!("failed: {error}"),
            })
        })?;
        if !said.succeeded {
            // Nothing else is an answer, so nothing of this is a secret.
            let told = String::from_utf8_lossy(&[said.stdout, b" ".to_vec(), said.stderr].concat()).into_owned();
            if told.to_ascii_lowercase().contains(NOT_FOUND) {
                return Ok(None);
            }
            return Err(failed(match one_line(&told) {
                silence if silence.is_empty() => "failed: it gave no reason".to_owned(),
                reason => format!("failed: {reason}"),
            }));
        }
        login(&said.stdout).map_err(|problem| failed(problem.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, word};

    /// A script that another test's child has inherited open for writing cannot be run: who writes and runs them takes turns.
    static HELPERS: Mutex<()> = Mutex::new(());

    /// A directory with one helper, a shell script.
    fn helper(name: &str, script: &str) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(format!("docker-credential-{name}"));
        let text = format!("#!/bin/sh\necho asked >> {}/log\nread server\n{script}\n", directory.path().display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    #[test]
    fn helpers() {
        let _turn = HELPERS.lock();
        let answer = r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"$server\"}""#;
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        let unknown = "echo 'credentials not found in native keychain'; exit 1";
        let store = r#"{"credsStore":"test"}"#;
        let named =
            r#"{"credHelpers":{"r.example":"test"},"auths":{"r.example":{"auth":"dTpw"},"s.example":{"auth":"dTpw"}}}"#;
        let both = r#"{"credsStore":"test","auths":{"r.example":{"auth":"dTpw"}}}"#;
        let none = r#"{"credsStore":"test","credHelpers":{"r.example":""},"auths":{"r.example":{"auth":"dTpw"}}}"#;
        let instead = r#"{"credsStore":"absent","credHelpers":{"https://r.example":"test"}}"#;
        let two = r#"{"credHelpers":{"https://r.example":"absent","r.example":"test"}}"#;
        let cases = [
            (store, answer, "r.example", "u:r.example", None),
            (none, answer, "r.example", "u:p", None),
            (instead, answer, "r.example", "u:r.example", None),
            (instead, unknown, "r.example", "-", None),
            (two, answer, "r.example", "u:r.example", None),
            (store, "echo 'WARNING: old' >&2\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'", "r.example", "u:p", None),
            (
                store,
                "head -c 300000 /dev/zero >&2\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'",
                "r.example",
                "u:p",
                None,
            ),
            (store, r#"echo '{"username":"u","SECRET":"p","ServerURL":null} trailing'"#, "r.example", "u:p", None),
            (store, r#"echo '{"Username":"u","Secret":null}'"#, "r.example", "-", None),
            (store, r#"echo '{"Username":"","Secret":"p"}'"#, "r.example", "-", None),
            (store, r#"echo '{"Username":5,"Secret":"p"}'"#, "r.example", "-", Some("did not answer with JSON")),
            (store, "echo 'credentials not found' >&2; exit 1", "r.example", "-", None),
            (both, "echo 'no key' >&2; exit 1", "r.example", "u:p", Some("`docker-credential-test` failed: no key")),
            (both, "exit 1", "r.example", "u:p", Some("`docker-credential-test` failed: it gave no reason")),
            (store, answer, "docker.io", "u:https://index.docker.io/v1/", None),
            (store, token, "r.example", "identity t", None),
            (store, unknown, "r.example", "-", None),
            (named, answer, "r.example", "u:r.example", None),
            (named, answer, "s.example", "u:p", None),
            (both, unknown, "r.example", "u:p", None),
            (both, "echo broken; exit 3", "r.example", "u:p", Some("`docker-credential-test` failed: broken")),
            (store, "echo nonsense", "r.example", "-", Some("did not answer with JSON")),
            (store, "sleep 20", "r.example", "-", Some("did not answer within 0 s")),
            (r#"{"credsStore":"absent"}"#, "", "r.example", "-", Some("`docker-credential-absent` is not installed")),
            (r#"{"credsStore":"../evil"}"#, "", "r.example", "-", Some("is no name of a credential helper")),
        ];
        for (text, script, registry, expected, problem) in cases {
            let directory = helper("test", script);
            let mut credentials = config(text);
            credentials.set_helper_directories(vec![directory.path().to_owned()]);
            if script.starts_with("sleep") {
                credentials.set_helper_timeout(Duration::from_millis(300));
            }
            let look_up = credentials.look_up(registry, "app");
            assert_eq!(word(&look_up), expected, "{text} {script}: {:?}", look_up.problems);
            match problem {
                Some(problem) => assert!(look_up.problems[0].contains(problem), "{:?}", look_up.problems),
                None => assert_eq!(look_up.problems, [""; 0], "{text} {script}"),
            }
        }
    }

    #[test]
    fn a_helper_is_asked_once_until_its_answer_is_refused() {
        let _turn = HELPERS.lock();
        let directory = helper("test", r#"echo '{"Username":"u","Secret":"p"}'"#);
        let mut credentials = config(r#"{"credsStore":"test"}"#);
        credentials.set_helper_directories(vec![directory.path().to_owned()]);
        let asked = || std::fs::read_to_string(directory.path().join("log")).unwrap().lines().count();
        credentials.look_up("r.example", "a");
        credentials.clone().look_up("r.example", "b");
        assert_eq!(asked(), 1);
        credentials.forget_answers();
        credentials.look_up("r.example", "a");
        assert_eq!(asked(), 2);
    }

    #[test]
    fn a_helper_that_two_files_name_is_asked_once() {
        let _turn = HELPERS.lock();
        let directory = helper("test", "echo 'credentials not found'; exit 1");
        let mut credentials = config(r#"{"credsStore":"test"}"#);
        credentials.add_config(r#"{"credsStore":"test"}"#, "`auth.json`").unwrap();
        credentials.set_helper_directories(vec![directory.path().to_owned()]);
        assert_eq!(word(&credentials.look_up("r.example", "a")), "-");
        assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap().lines().count(), 1);
    }
}
