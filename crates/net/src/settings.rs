//! What the user may say about reaching hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::dns::NameFiles;

/// How to reach hosts. Made once from what the user typed.
///
/// A host in a list is `host` (any port) or `host:port` (that one); an IPv6 address stands in `[]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub user_agent: String,
    /// Hosts (`host` or `host:port`) that are spoken to over plain HTTP.
    pub plain_http: Vec<String>,
    /// Every host is spoken to over plain HTTP after HTTPS failed or at once (kaniko `--insecure`).
    pub plain_http_all: bool,
    /// Hosts whose certificates are not checked.
    pub skip_verify: Vec<String>,
    pub skip_verify_all: bool,
    /// Extra CA certificates in PEM: host and file; an empty host means every host.
    pub certificates: Vec<(String, PathBuf)>,
    /// Client certificates: host, certificate file, key file (PEM).
    pub client_certificates: Vec<(String, PathBuf, PathBuf)>,
    /// How often a failed request is tried again.
    pub retries: u32,
    pub connect_timeout: Duration,
    /// The longest silence in the middle of a body before the connection counts as dead.
    pub idle_timeout: Duration,
    /// The longest wait for the head of an answer to a request without body. A mirror may fetch the blob itself first.
    pub answer_timeout: Duration,
    /// The longest wait for the head of an answer once a request's body is out: a registry may copy and hash a blob of
    /// gigabytes first.
    pub commit_timeout: Duration,
    /// The wait before the first retry; doubled for each further one, with jitter.
    pub backoff: Duration,
    /// A server that asks (`Retry-After`) for a longer wait than this is taken at its word: no retry, its answer counts.
    pub max_retry_after: Duration,
    pub proxies: Proxies,
    pub name_files: NameFiles,
    pub system_certificates: SystemCertificates,
    /// HTTP/1.1 only (GitLab's registry is slow over HTTP/2).
    pub http1_only: bool,
    /// Set from elsewhere (a signal handler) to end every transfer within a fraction of a second.
    pub cancel: Arc<AtomicBool>,
}

/// Proxies as `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` spell them; empty = none.
#[derive(Clone, Default)]
pub struct Proxies {
    pub http: Option<String>,
    pub https: Option<String>,
    pub all: Option<String>,
    /// Comma-separated hosts, domains, addresses and networks that are reached directly.
    pub no_proxy: Option<String>,
}

/// Where the certificates are that every host may be vouched for by; none = where systems have them.
#[derive(Clone, Debug, Default)]
pub struct SystemCertificates {
    /// `SSL_CERT_FILE`: instead of the system's file.
    pub file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: instead of the system's directories. Every file in them counts.
    pub dirs: Option<Vec<PathBuf>>,
}

impl Settings {
    pub fn new(user_agent: &str) -> Settings {
        Settings {
            user_agent: user_agent.to_owned(),
            plain_http: Vec::new(),
            plain_http_all: false,
            skip_verify: Vec::new(),
            skip_verify_all: false,
            certificates: Vec::new(),
            client_certificates: Vec::new(),
            retries: 4,
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(180),
            commit_timeout: Duration::from_secs(900),
            backoff: Duration::from_millis(500),
            max_retry_after: Duration::from_secs(120),
            proxies: Proxies::default(),
            name_files: NameFiles::within(Path::new("/etc")),
            system_certificates: SystemCertificates::default(),
            http1_only: false,
            cancel: Arc::default(),
        }
    }

    /// Whether `host` (`host` or `host:port`) may be spoken to over plain HTTP.
    pub fn allows_plain_http(&self, host: &str) -> bool {
        self.plain_http_all || self.plain_http.iter().any(|entry| host_matches(entry, host))
    }

    pub(crate) fn skips_verify(&self, host: &str) -> bool {
        self.skip_verify_all || self.skip_verify.iter().any(|entry| host_matches(entry, host))
    }
}

/// Whether `entry` (`host` or `host:port`) names `host` (likewise, its port counts only when `entry` has one).
pub(crate) fn host_matches(entry: &str, host: &str) -> bool {
    entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(without_port(host))
}

/// `host:port` and `[::1]:port` without the port.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// A proxy address may carry a password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |p: &Option<String>| p.as_deref().map(crate::error::display_url);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("all", &shown(&self.all))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_with_and_without_port() {
        let cases = [
            ("registry.example", "registry.example", true),
            ("registry.example", "registry.example:5000", true),
            ("registry.example:5000", "registry.example:5000", true),
            ("registry.example:5000", "registry.example", false),
            ("registry.example:5000", "registry.example:5001", false),
            ("REGISTRY.example", "registry.example", true),
            ("example", "registry.example", false),
            ("[::1]", "[::1]:5000", true),
            ("[::1]:5000", "[::1]:5000", true),
            ("[::1]", "[::1]", true),
            ("", "registry.example", false),
        ];
        for (entry, host, expected) in cases {
            assert_eq!(host_matches(entry, host), expected, "{entry} {host}");
        }
    }

    #[test]
    fn a_proxy_password_is_not_shown() {
        let proxies = Proxies { https: Some("http://me:hunter2@proxy:3128".to_owned()), ..Proxies::default() };
        assert!(!format!("{proxies:?}").contains("hunter2"));
        assert!(format!("{proxies:?}").contains("proxy:3128"));
    }
}
