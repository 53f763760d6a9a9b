//! Debian's `docker-registry` as a child process.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The user of [`DockerRegistry::start_with_login`].
pub const USER: &str = "tester";
/// The password of [`USER`].
pub const PASSWORD: &str = "secret";

/// [`USER`] and [`PASSWORD`] as `htpasswd -B` writes them.
const HTPASSWD: &str = "tester:$2b$04$NnujwMyHz1ypjeleudPSoezXxhEHwVb5/qXrnmamgwo/0OZ9zLgDi\n";

/// A token (JWT, ES256) for pulling from and pushing to the repository `app` of [`DockerRegistry::start_with_token`], valid
/// until the year 2100. Its key was thrown away.
pub const APP_TOKEN: &str = include_str!("token/app.jwt");

/// A running registry with storage of its own; stopped when dropped.
pub struct DockerRegistry {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl DockerRegistry {
    /// A registry that lets anybody do anything.
    ///
    /// # Errors
    /// Why there is none: `docker-registry` is not installed or does not start. Tests say so and are skipped.
    pub fn start() -> Result<DockerRegistry, String> {
        DockerRegistry::start_configured("")
    }

    /// A registry that asks for [`USER`] and [`PASSWORD`] (HTTP Basic).
    pub fn start_with_login() -> Result<DockerRegistry, String> {
        DockerRegistry::start_configured("auth:\n  htpasswd:\n    realm: test\n    path: HTPASSWD\n")
    }

    /// A registry that lets anybody do anything over TLS, with the certificate of [`crate::certificates`].
    pub fn start_with_tls() -> Result<DockerRegistry, String> {
        let file = |name| crate::certificates::file(name).display().to_string();
        // Goes on where the section `http` ends.
        DockerRegistry::start_configured(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            file("server.pem"),
            file("server.key")
        ))
    }

    /// A registry that asks for tokens from `realm`, and accepts [`APP_TOKEN`].
    pub fn start_with_token(realm: &str) -> Result<DockerRegistry, String> {
        DockerRegistry::start_configured(&format!(
            "auth:\n  token:\n    realm: {realm}\n    service: registry\n    issuer: zuwai-test\n    rootcertbundle: CERTIFICATE\n"
        ))
    }

    fn start_configured(extra: &str) -> Result<DockerRegistry, String> {
        // The port is free now; another process may take it before the registry does, so it is tried a few times.
        let mut last = String::new();
        for _ in 0..5 {
            match DockerRegistry::start_once(extra) {
                Ok(registry) => return Ok(registry),
                Err(reason) if reason.contains("not installed") => return Err(reason),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    }

    fn start_once(extra: &str) -> Result<DockerRegistry, String> {
        let directory = TempDir::new().map_err(|e| format!("no temporary directory: {e}"))?;
        let port = free_port();
        let at = |name: &str| directory.path().join(name);
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:{port}\n{}",
            at("storage").display(),
            extra
                .replace("HTPASSWD", &at("htpasswd").display().to_string())
                .replace("CERTIFICATE", &at("certificate.pem").display().to_string()),
        );
        write(at("config.yml"), &text);
        write(at("htpasswd"), HTPASSWD);
        write(at("certificate.pem"), include_str!("token/certificate.pem"));
        let log = std::fs::File::create(at("log")).map_err(|e| format!("no log file: {e}"))?;
        let log_too = log.try_clone().map_err(|e| format!("no log file: {e}"))?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .map_err(|e| format!("`docker-registry` is not installed: {e}"))?;
        let mut registry = DockerRegistry { child, directory, port };
        registry.wait_until_it_listens()?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The requests so far, one line each in Apache's combined format: `… "PUT /v2/app/manifests/1 HTTP/1.1" 201 …`.
    pub fn requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("HTTP/1.1\"") || line.contains("HTTP/2.0\""))
            .map(str::to_owned)
            .collect()
    }

    /// How many requests were made with `method` and a path that contains `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let begins = format!("\"{method} ");
        let matching = |line: &&String| {
            line.split_once(&begins).is_some_and(|(_, rest)| rest.split(' ').next().unwrap_or("").contains(part))
        };
        self.requests().iter().filter(matching).count()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                return Err(format!("`docker-registry` ended with {status}: {log}"));
            }
            if self.answers() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err("`docker-registry` does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let mut first = [0; 4];
        asked.is_ok() && stream.read_exact(&mut first).is_ok() && &first == b"HTTP"
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of 127.0.0.1 can be bound");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn write(path: PathBuf, text: &str) {
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("could not write `{}`: {e}", path.display()));
}
