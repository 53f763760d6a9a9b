//! What git servers and SSH clients send, and private keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh::{Agent, Key};

/// RFC 8032 section 7.1, test 1.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

/// Whatever a git server sends, and however a repository is spelt, is read or refused: packets, trees, commits, `.gitmodules`,
/// headers of objects, addresses.
pub fn git_bytes(input: &[u8]) {
    git::parse_anything(input);
}

/// Any bytes are a pack that is indexed, deltas included, or refused.
pub fn git_pack(input: &[u8]) {
    git::read_any_pack(input, &std::env::temp_dir());
}

/// Any key file is a key or an error, and any message gets an answer from an agent; the first byte says which.
pub fn ssh_agent(input: &[u8]) {
    match input.split_first() {
        Some((0, text)) => drop(Key::parse(text)),
        Some((which @ 1..=4, content)) => {
            let label =
                ["OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"][usize::from(which - 1)];
            let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(content));
            drop(Key::parse(text.as_bytes()));
        }
        Some((_, message)) => {
            let key = Key::parse(KEY.as_bytes()).expect("a key");
            assert!(!Agent::of_keys(vec![key]).answer(message).is_empty());
        }
        None => {}
    }
}
