//! Which bytes a hash is the hash of is part of its type: see [`Digest`], [`DiffId`], [`ChainId`].

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::OciError;

/// The digest of bytes as stored: `algorithm:hex`, checked when it is made.
///
/// `sha256` and `sha512` are accepted when parsing; what we make is `sha256`. OCI image-spec, `descriptor.md`, «Digests».
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Box<str>);

impl Digest {
    pub fn parse(text: &str) -> Result<Digest, OciError> {
        let bad = |reason| OciError::Digest { text: text.chars().take(200).collect(), reason };
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| bad("no `:`"))?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(bad("only sha256 and sha512 are supported")),
        };
        if hex.len() != length {
            return Err(bad("wrong length"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("not lower-case hexadecimal"));
        }
        Ok(Digest(text.into()))
    }

    /// The sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(a, _)| a)
    }

    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, h)| h)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Twelve hexadecimal digits, as Docker shows image IDs.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl TryFrom<String> for Digest {
    type Error = OciError;
    fn try_from(text: String) -> Result<Digest, OciError> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0.into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digest of a layer's uncompressed tar. OCI image-spec, `config.md`, «Layer DiffID».
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The digest of a stack of layers. OCI image-spec, `config.md`, «Layer ChainID».
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The chain ID of `layers`, bottom first; none for an empty stack.
    pub fn of(layers: &[DiffId]) -> Option<ChainId> {
        let (first, rest) = layers.split_first()?;
        Some(rest.iter().fold(ChainId(first.0.clone()), |chain, layer| {
            ChainId(Digest::of(format!("{} {layer}", chain.0).as_bytes()))
        }))
    }
}

/// Hashes bytes as they come (sha256 unless made by [`Hasher::like`]). Also a [`Write`] that never fails.
#[derive(Clone, Default)]
pub struct Hasher {
    inner: Algorithm,
    size_bytes: u64,
}

#[derive(Clone)]
enum Algorithm {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Default for Algorithm {
    fn default() -> Algorithm {
        Algorithm::Sha256(sha2::Sha256::new())
    }
}

impl Hasher {
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// A hasher of the algorithm of `digest`, to verify it.
    pub fn like(digest: &Digest) -> Hasher {
        let inner = match digest.algorithm() {
            "sha512" => Algorithm::Sha512(Box::default()),
            _ => Algorithm::default(),
        };
        Hasher { inner, size_bytes: 0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.inner {
            Algorithm::Sha256(inner) => inner.update(bytes),
            Algorithm::Sha512(inner) => inner.update(bytes),
        }
        self.size_bytes += bytes.len() as u64;
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn finish(self) -> Digest {
        match self.inner {
            Algorithm::Sha256(inner) => from_raw("sha256:", &inner.finalize()),
            Algorithm::Sha512(inner) => from_raw("sha512:", &inner.finalize()),
        }
    }
}

fn from_raw(prefix: &str, hash: &[u8]) -> Digest {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(prefix.len() + 2 * hash.len());
    text.push_str(prefix);
    for byte in hash {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    Digest(text.into())
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
