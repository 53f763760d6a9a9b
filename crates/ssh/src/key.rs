//! Private keys: reading them, and signing with them.

use std::fmt;

use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

use crate::wire::{put_number, put_string};
use crate::{der, openssh, pem};

/// SSH_AGENT_RSA_SHA2_256 and SSH_AGENT_RSA_SHA2_512, with which a client asks for a signature that is not SHA-1's.
const SHA2_256: u32 = 2;
const SHA2_512: u32 = 4;

/// A private key. Nothing shows it.
pub struct Key {
    public: Vec<u8>,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Ecdsa, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

/// Why a file is no key that can be used. None of it shows any of the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key is encrypted with a passphrase")]
    Encrypted,
    #[error("not a private key in OpenSSH's format or PEM")]
    NoKey,
    #[error("the private key is damaged")]
    Malformed,
    #[error("keys of this kind are not supported: {0}")]
    Kind(String),
    /// From what `ring` says.
    #[error("the private key cannot be used: {0}")]
    Rejected(String),
}

impl KeyError {
    /// `kind` is the name of a key type, as far as it can be shown.
    pub fn kind(kind: &[u8]) -> KeyError {
        let known = str::from_utf8(kind).ok().filter(|kind| {
            kind.len() <= 64 && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-@. ".contains(&byte))
        });
        KeyError::Kind(known.unwrap_or("an unknown one").to_owned())
    }
}

impl From<ring::error::KeyRejected> for KeyError {
    fn from(rejected: ring::error::KeyRejected) -> Self {
        KeyError::Rejected(rejected.to_string())
    }
}

/// The curves there are (RFC 5656).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecdsa {
    P256,
    P384,
}

impl Ecdsa {
    fn curve(self) -> &'static str {
        match self {
            Ecdsa::P256 => "nistp256",
            Ecdsa::P384 => "nistp384",
        }
    }

    fn key_type(self) -> String {
        format!("ecdsa-sha2-{}", self.curve())
    }

    pub fn of_key_type(name: &[u8]) -> Option<Ecdsa> {
        [Ecdsa::P256, Ecdsa::P384].into_iter().find(|curve| curve.key_type().as_bytes() == name)
    }

    /// RFC 5480 section 2.1.1.1.
    fn of_object(object: &[u8]) -> Option<Ecdsa> {
        match object {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Some(Ecdsa::P256),
            [0x2b, 0x81, 4, 0, 0x22] => Some(Ecdsa::P384),
            _ => None,
        }
    }

    fn size(self) -> usize {
        match self {
            Ecdsa::P256 => 32,
            Ecdsa::P384 => 48,
        }
    }

    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Ecdsa::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Ecdsa::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }
}

/// The numbers of an RSA key, without leading zeros.
pub struct Rsa<'k> {
    pub n: &'k [u8],
    pub e: &'k [u8],
    pub d: &'k [u8],
    pub p: &'k [u8],
    pub q: &'k [u8],
    /// `d` modulo `p - 1` and `q - 1`, where the file has them.
    pub exponents: Option<(&'k [u8], &'k [u8])>,
    pub coefficient: &'k [u8],
}

impl Key {
    /// Reads a key file: OpenSSH's format, PKCS#1, SEC1 or PKCS#8, without a passphrase.
    pub fn parse(text: &[u8]) -> Result<Key, KeyError> {
        let block = pem::parse(text).ok_or(KeyError::NoKey)?;
        if block.is_encrypted {
            return Err(KeyError::Encrypted);
        }
        match block.label.as_str() {
            "OPENSSH PRIVATE KEY" => openssh::parse(&block.content),
            "RSA PRIVATE KEY" => pkcs1(&block.content),
            "EC PRIVATE KEY" => sec1(&block.content, None),
            "PRIVATE KEY" => pkcs8(&block.content),
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
            label => match label.strip_suffix(" PRIVATE KEY") {
                Some(kind) => Err(KeyError::kind(kind.as_bytes())),
                None => Err(KeyError::NoKey),
            },
        }
    }

    /// A public key that is given has to be that of the seed.
    pub(crate) fn ed25519(seed: &[u8], public: Option<&[u8]>) -> Result<Key, KeyError> {
        let pair = match public {
            Some(public) => Ed25519KeyPair::from_seed_and_public_key(seed, public)?,
            None => Ed25519KeyPair::from_seed_unchecked(seed)?,
        };
        let mut public = Vec::new();
        put_string(&mut public, b"ssh-ed25519");
        put_string(&mut public, pair.public_key().as_ref());
        Ok(Key { public, pair: Pair::Ed25519(pair) })
    }

    pub(crate) fn ecdsa(curve: Ecdsa, private: &[u8], point: &[u8]) -> Result<Key, KeyError> {
        let missing = curve.size().checked_sub(private.len()).ok_or(KeyError::Malformed)?;
        let private = [&vec![0; missing], private].concat();
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm(), &private, point, &random)?;
        let mut public = Vec::new();
        put_string(&mut public, curve.key_type().as_bytes());
        put_string(&mut public, curve.curve().as_bytes());
        put_string(&mut public, pair.public_key().as_ref());
        Ok(Key { public, pair: Pair::Ecdsa(curve, pair) })
    }

    pub(crate) fn rsa(numbers: &Rsa<'_>) -> Result<Key, KeyError> {
        let Rsa { n, e, d, p, q, exponents, coefficient } = *numbers;
        // Twice the largest that can be used, so that nobody computes for long with what will be refused.
        if [n, e, d, p, q, coefficient].iter().any(|number| number.len() > 1024 || number.is_empty()) {
            return Err(KeyError::Malformed);
        }
        let (first, second) = match exponents {
            Some((first, second)) => (first.to_vec(), second.to_vec()),
            None => (below_modulus(d, p), below_modulus(d, q)),
        };
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n, e },
            d,
            p,
            q,
            dP: crate::wire::magnitude(&first),
            dQ: crate::wire::magnitude(&second),
            qInv: coefficient,
        };
        let pair = RsaKeyPair::from_components(&components)?;
        let mut public = Vec::new();
        put_string(&mut public, b"ssh-rsa");
        put_number(&mut public, e);
        put_number(&mut public, n);
        Ok(Key { public, pair: Pair::Rsa(pair) })
    }

    /// The public key as the protocol has it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// A signature as the protocol has it, with its algorithm. None where that cannot be had: `ring` makes no signature of
    /// SHA-1, which a client gets that asks for an RSA signature without flags, and which servers no longer take.
    pub fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (algorithm, signature) = match &self.pair {
            Pair::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
            Pair::Ecdsa(curve, pair) => {
                let signed = pair.sign(&random, data).ok()?;
                let (r, s) = signed.as_ref().split_at_checked(curve.size())?;
                let mut signature = Vec::new();
                put_number(&mut signature, r);
                put_number(&mut signature, s);
                (curve.key_type(), signature)
            }
            Pair::Rsa(pair) => {
                let (name, padding): (_, &'static dyn ring::signature::RsaEncoding) = match flags {
                    flags if flags & SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    flags if flags & SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut signature).ok()?;
                (name.to_owned(), signature)
            }
        };
        let mut blob = Vec::new();
        put_string(&mut blob, algorithm.as_bytes());
        put_string(&mut blob, &signature);
        Some(blob)
    }
}

/// RFC 8017 A.1.2
fn pkcs1(content: &[u8]) -> Result<Key, KeyError> {
    let mut fields = der::Reader(content).sequence().ok_or(KeyError::Malformed)?;
    let mut next = || fields.number().ok_or(KeyError::Malformed);
    let _version = next()?;
    let (n, e, d, p, q) = (next()?, next()?, next()?, next()?, next()?);
    let exponents = Some((next()?, next()?));
    Key::rsa(&Rsa { n, e, d, p, q, exponents, coefficient: next()? })
}

/// RFC 5915; in PKCS#8 the curve is named outside.
fn sec1(content: &[u8], curve: Option<&[u8]>) -> Result<Key, KeyError> {
    const PARAMETERS: u8 = 0xa0;
    const PUBLIC: u8 = 0xa1;
    let mut fields = der::Reader(content).sequence().ok_or(KeyError::Malformed)?;
    let _version = fields.number().ok_or(KeyError::Malformed)?;
    let private = fields.value(der::BYTES).ok_or(KeyError::Malformed)?;
    let named = fields.maybe(PARAMETERS).and_then(|inner| der::Reader(inner).value(der::OBJECT));
    let curve = named.or(curve).ok_or(KeyError::Malformed)?;
    let curve = Ecdsa::of_object(curve).ok_or_else(|| KeyError::kind(b"another curve than nistp256 and nistp384"))?;
    let public = fields.maybe(PUBLIC).and_then(|inner| der::Reader(inner).value(der::BITS));
    let public = public.and_then(der::whole_bits);
    let public = public.ok_or_else(|| KeyError::Rejected("it does not hold its public key".to_owned()))?;
    Key::ecdsa(curve, crate::wire::magnitude(private), public)
}

/// RFC 5958
fn pkcs8(content: &[u8]) -> Result<Key, KeyError> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let mut fields = der::Reader(content).sequence().ok_or(KeyError::Malformed)?;
    let mut parts = || {
        let _version = fields.number()?;
        let mut algorithm = fields.sequence()?;
        Some((algorithm.value(der::OBJECT)?, algorithm.maybe(der::OBJECT), fields.value(der::BYTES)?))
    };
    match parts().ok_or(KeyError::Malformed)? {
        (RSA, _, key) => pkcs1(key),
        (EC, curve, key) => sec1(key, curve),
        // RFC 8410 section 7
        (ED25519, _, key) => Key::ed25519(der::Reader(key).value(der::BYTES).ok_or(KeyError::Malformed)?, None),
        _ => Err(KeyError::kind(b"an unknown one")),
    }
}

/// `number` modulo `prime - 1`, digit by digit; not in constant time, which nobody who could measure it is there for: it is done
/// once, before any step runs.
fn below_modulus(number: &[u8], prime: &[u8]) -> Vec<u8> {
    let mut modulus = prime.to_vec();
    // A prime of these sizes is odd; if it is not, the key will be refused.
    if let Some(last) = modulus.last_mut() {
        *last &= !1;
    }
    // One digit more than the modulus, for the doubling.
    modulus.insert(0, 0);
    let mut rest = vec![0u8; modulus.len()];
    for byte in number {
        for bit in (0..8).rev() {
            let mut carry = byte >> bit & 1;
            for digit in rest.iter_mut().rev() {
                let out = *digit >> 7;
                *digit = *digit << 1 | carry;
                carry = out;
            }
            if rest >= modulus {
                let mut borrow = false;
                for (digit, other) in rest.iter_mut().zip(&modulus).rev() {
                    let (less, first) = digit.overflowing_sub(*other);
                    let (less, second) = less.overflowing_sub(u8::from(borrow));
                    (*digit, borrow) = (less, first || second);
                }
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests() {
        for (number, prime, wanted) in [(1000u32, 7u32, 4u32), (5, 7, 5), (6, 7, 0), (0xffff_ffff, 0x1_0001, 0xffff)] {
            let rest = below_modulus(&number.to_be_bytes(), crate::wire::magnitude(&prime.to_be_bytes()));
            let rest = rest.iter().fold(0, |rest, digit| rest << 8 | u32::from(*digit));
            assert_eq!(rest, wanted, "{number} modulo {prime} - 1");
        }
    }

    #[test]
    fn what_is_no_key() {
        let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for (text, wanted) in [
            (String::new(), KeyError::NoKey),
            ("ssh-ed25519 AAAA me".to_owned(), KeyError::NoKey),
            (pem("CERTIFICATE", "AAAA"), KeyError::NoKey),
            (pem("PRIVATE KEY", "AAAA"), KeyError::Malformed),
            (pem("PRIVATE KEY", "!"), KeyError::NoKey),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n".to_owned(), KeyError::NoKey),
            (pem("OPENSSH PRIVATE KEY", "AAAA"), KeyError::Malformed),
            (pem("ENCRYPTED PRIVATE KEY", "AAAA"), KeyError::Encrypted),
            (pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA"), KeyError::Encrypted),
            (pem("DSA PRIVATE KEY", "AAAA"), KeyError::Kind("DSA".to_owned())),
        ] {
            assert_eq!(Key::parse(text.as_bytes()).unwrap_err(), wanted, "{text}");
        }
    }
}
