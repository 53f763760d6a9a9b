//! ECDSA signatures that Go's clients check and *ring* does not: on P-521, and with SHA-512 on the smaller curves.

use ring::digest;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

pub static ALL: [Algorithm; 5] = [&P521_SHA512, &P521_SHA384, &P521_SHA256, &P384_SHA512, &P256_SHA512];
/// Of a TLS 1.3 handshake with such a key; TLS 1.2 leaves the curve open.
pub static HANDSHAKE_P521: [Algorithm; 3] = [&P521_SHA512, &P384_SHA512, &P256_SHA512];

static P521_SHA512: Ecdsa = ecdsa(alg_id::ECDSA_P521, alg_id::ECDSA_SHA512, &digest::SHA512, p521_verify);
static P521_SHA384: Ecdsa = ecdsa(alg_id::ECDSA_P521, alg_id::ECDSA_SHA384, &digest::SHA384, p521_verify);
static P521_SHA256: Ecdsa = ecdsa(alg_id::ECDSA_P521, alg_id::ECDSA_SHA256, &digest::SHA256, p521_verify);
static P384_SHA512: Ecdsa = ecdsa(alg_id::ECDSA_P384, alg_id::ECDSA_SHA512, &digest::SHA512, p384_verify);
static P256_SHA512: Ecdsa = ecdsa(alg_id::ECDSA_P256, alg_id::ECDSA_SHA512, &digest::SHA512, p256_verify);

/// Key, hash and signature.
type Verify = fn(&[u8], &[u8], &[u8]) -> Option<()>;

#[derive(Debug)]
struct Ecdsa {
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    hash: &'static digest::Algorithm,
    verify: Verify,
}

const fn ecdsa(
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    hash: &'static digest::Algorithm,
    verify: Verify,
) -> Ecdsa {
    Ecdsa { key, signature, hash, verify }
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let hash = digest::digest(self.hash, message);
        (self.verify)(key, hash.as_ref(), signature).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

macro_rules! on_curve {
    ($name:ident, $curve:ident) => {
        fn $name(key: &[u8], hash: &[u8], signature: &[u8]) -> Option<()> {
            use $curve::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _};
            // Hashes that are shorter than a number on the curve are numbers all the same; the crate wants half of the digits.
            let mut number = [0; 64];
            let number = match hash.len() {
                32 => {
                    number[32..].copy_from_slice(hash);
                    &number[..]
                }
                _ => hash,
            };
            let key = VerifyingKey::from_sec1_bytes(key).ok()?;
            key.verify_prehash(number, &Signature::from_der(signature).ok()?).ok()
        }
    };
}

on_curve!(p521_verify, p521);
on_curve!(p384_verify, p384);
on_curve!(p256_verify, p256);
