//! HTTP for the floors above: one place that makes clients, trusts certificates, and decides what is tried again.
//!
//! Blocking on the outside; a small runtime is hidden inside (tokio is also what reqwest needs).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How to reach hosts. Made once from what the user typed.
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
        }
    }
}

/// Clients per host, and the runtime they run on. Cheap to clone.
#[derive(Clone)]
pub struct Net {
    _settings: Arc<Settings>,
}
