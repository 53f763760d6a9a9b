//! PEM (RFC 7468, and RFC 1421 for the headers of old key files).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The first block of a text.
pub struct Block {
    /// As in `-----BEGIN LABEL-----`.
    pub label: String,
    pub is_encrypted: bool,
    pub content: Vec<u8>,
}

/// None where there is no block, or its content is not base64.
pub fn parse(text: &[u8]) -> Option<Block> {
    let text = str::from_utf8(text).ok()?;
    let mut lines = text.lines().map(str::trim);
    let label = lines.find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))?.to_owned();
    let end = format!("-----END {label}-----");
    let (mut is_encrypted, mut encoded, mut ended) = (false, String::new(), false);
    for line in lines {
        if line == end {
            ended = true;
            break;
        }
        match line.split_once(':') {
            Some((name, value)) => is_encrypted |= name == "Proc-Type" && value.contains("ENCRYPTED"),
            None => encoded.push_str(line),
        }
    }
    if !ended {
        return None;
    }
    // What is encrypted has a header that goes on in lines of its own, maybe, and nobody reads its content.
    let content = if is_encrypted { Vec::new() } else { STANDARD.decode(encoded).ok()? };
    Some(Block { label, is_encrypted, content })
}
