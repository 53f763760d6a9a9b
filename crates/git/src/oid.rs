//! Object names: SHA-1 as it has always been, SHA-256 for repositories made for it.

use std::fmt;

use sha1_checked::Digest as _;

use super::{Fault, Result};

/// Which hash names the objects of a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Sha1,
    Sha256,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Sha1 => "sha1",
            Format::Sha256 => "sha256",
        }
    }

    pub fn parse(name: &str) -> Result<Format> {
        match name {
            "sha1" => Ok(Format::Sha1),
            "sha256" => Ok(Format::Sha256),
            _ => Err(Fault::server(format!("unknown object format `{name}`"))),
        }
    }

    /// Bytes of a name.
    pub fn length(self) -> usize {
        match self {
            Format::Sha1 => 20,
            Format::Sha256 => 32,
        }
    }
}

/// The name of an object. Its order is that of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid {
    bytes: [u8; 32],
    length: u8,
}

impl Oid {
    /// `bytes` of either length.
    pub fn new(bytes: &[u8]) -> Result<Oid> {
        if !matches!(bytes.len(), 20 | 32) {
            return Err(Fault::server("an object name of odd length"));
        }
        let mut oid = Oid { bytes: [0; 32], length: bytes.len() as u8 };
        oid.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(oid)
    }

    /// From 40 or 64 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Result<Oid> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let bytes: Option<Vec<u8>> = text.chunks_exact(2).map(pair).collect();
        match bytes {
            Some(bytes) if text.len().is_multiple_of(2) => Oid::new(&bytes),
            _ => Err(Fault::server("an object name that is none")),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub fn format(&self) -> Format {
        if self.length == 20 { Format::Sha1 } else { Format::Sha256 }
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes an object, or anything else git has a hash of.
pub enum Hasher {
    Sha1(Box<sha1_checked::Sha1>),
    Sha256(sha2::Sha256),
}

impl Hasher {
    pub fn new(format: Format) -> Hasher {
        match format {
            Format::Sha1 => Hasher::Sha1(Box::new(sha1_checked::Sha1::new())),
            Format::Sha256 => Hasher::Sha256(sha2::Digest::new()),
        }
    }

    /// For an object of a kind (`blob`, …) and size, whose content is to follow.
    pub fn object(format: Format, kind: &str, size: u64) -> Hasher {
        let mut hasher = Hasher::new(format);
        hasher.update(format!("{kind} {size}\0").as_bytes());
        hasher
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha1(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => sha2::Digest::update(hasher, bytes),
        }
    }

    /// # Errors
    /// For content that was made to have the SHA-1 of other content.
    pub fn finish(self) -> Result<Oid> {
        match self {
            Hasher::Sha1(hasher) => {
                let result = hasher.try_finalize();
                if result.has_collision() {
                    return Err(Fault::server("an object with a forged SHA-1 hash (a collision attack)"));
                }
                Oid::new(result.hash())
            }
            Hasher::Sha256(hasher) => Oid::new(&sha2::Digest::finalize(hasher)),
        }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let empty = Hasher::object(Format::Sha1, "blob", 0).finish().unwrap();
        assert_eq!(empty.to_string(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(Oid::parse(empty.to_string().as_bytes()).unwrap(), empty);
        let empty = Hasher::object(Format::Sha256, "blob", 0).finish().unwrap();
        assert_eq!(empty.to_string(), "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813");
        for bad in
            [&b""[..], b"e6", b"E69de29bb2d1d6434b8b29ae775ad8c2e48c5391", b"e69de29bb2d1d6434b8b29ae775ad8c2e48c539"]
        {
            assert!(Oid::parse(bad).is_err());
        }
    }
}
