//! A CA whose key was thrown away, and a server (`localhost`, 127.0.0.1) and a client that it vouches for, all valid for a
//! hundred years.

use std::path::PathBuf;

/// `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/certificates").join(name)
}
