//! Whether a server's certificate is good, by the rules of Go's `crypto/x509`, and in words when it is not.
//!
//! The TLS library decides. Two kinds of certificates that it refuses by their form are judged here: one that is trusted itself
//! (given as its own root, be it an authority, as `openssl req -x509` makes it, or not), and an authority's that a server uses
//! as its own. Who cannot be told from an authority for the whole world is not made one: see [`Trusted::add`].

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use crate::x509::{Certificate, split_key};

/// Signatures that one chain may make us check: a server that sends many certificates of one name keeps nobody busy.
const MAX_SIGNATURES: u32 = 32;

/// Certificates that vouch for servers.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// Those that may sign others.
    authorities: RootCertStore,
    /// All, each of which is good for itself.
    all: Vec<CertificateDer<'static>>,
    /// Why there may be less than the user thinks.
    note: Option<String>,
}

/// Checks certificates against what is [`Trusted`].
#[derive(Debug)]
pub struct Verifier {
    trusted: Trusted,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a certificate was refused, in one clause.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct BadCertificate {
    pub problem: String,
    pub hint: Option<&'static str>,
}

impl Trusted {
    pub fn new() -> Trusted {
        Trusted { authorities: RootCertStore::empty(), all: Vec::new(), note: None }
    }

    /// Whether `certificate` is one. A server's own is trusted for that server and signs nothing, as for Go.
    pub fn add(&mut self, certificate: CertificateDer<'static>) -> bool {
        if self.all.contains(&certificate) {
            return true;
        }
        let Some(parsed) = Certificate::parse(&certificate) else { return false };
        if parsed.may_be_root() {
            self.authorities.add_parsable_certificates([certificate.clone()]);
        }
        self.all.push(certificate);
        true
    }

    /// Mozilla's list, compiled in.
    pub fn add_built_in(&mut self) {
        self.authorities.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }

    pub fn note(&mut self, note: String) {
        self.note = Some(note);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.authorities.is_empty()
    }
}

impl Verifier {
    pub fn new(trusted: Trusted, provider: &CryptoProvider) -> Verifier {
        Verifier { trusted, algorithms: provider.signature_verification_algorithms }
    }

    fn judge(&self, sent: &Sent<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        let leaf = ParsedCertificate::try_from(sent.der)?;
        verify_server_name(&leaf, name)?;
        let Trusted { authorities, .. } = &self.trusted;
        verify_server_cert_signed_by_trust_anchor(&leaf, authorities, sent.intermediates, sent.now, self.algorithms.all)
            .or_else(|error| if self.accepts(sent) { Ok(()) } else { Err(error) })
    }

    /// The two kinds that the library refuses.
    fn accepts(&self, sent: &Sent<'_>) -> bool {
        let Some(leaf) = Certificate::parse(sent.der) else { return false };
        let is_authority = leaf.authority.is_some_and(|(is_authority, _)| is_authority);
        let others: Vec<_> = sent.intermediates.iter().filter_map(|der| Certificate::parse(der)).collect();
        let mut search =
            Search { verifier: self, others: &others, now: sent.seconds(), signatures_left: MAX_SIGNATURES };
        leaf.is_valid_at(sent.seconds())
            && leaf.is_for_servers()
            && (self.trusted.all.contains(sent.der) || is_authority && search.vouches_for(&leaf, 0))
    }

    /// The library's error in words, with what the certificate says.
    fn explain(&self, error: Error, sent: &Sent<'_>, name: &ServerName<'_>) -> Error {
        use CertificateError as Bad;
        let Error::InvalidCertificate(bad) = error else { return error };
        let Some(leaf) = Certificate::parse(sent.der) else {
            return refused("it cannot be read", None);
        };
        let (subject, issuer, host) = (leaf.subject_text(), leaf.issuer_text(), name.to_str());
        let note = self.trusted.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
        // What it says of itself first, as Go does; version 1 has no place for names.
        if leaf.version < 3 || matches!(bad, Bad::NotValidForName | Bad::NotValidForNameContext { .. }) {
            return wrong_name(&leaf, &host);
        }
        if !leaf.is_valid_at(sent.seconds()) {
            let fault = if leaf.valid.0 > sent.seconds() { "is not valid yet" } else { "has expired" };
            return refused(format!("`{subject}` {fault}"), Some(CLOCK));
        }
        if !leaf.is_for_servers() {
            return refused(format!("`{subject}` is not for servers (extended key usage)"), None);
        }
        let is_authority = leaf.authority.is_some_and(|(is_authority, _)| is_authority);
        match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => {
                refused(format!("an authority above `{subject}` has expired"), Some(CLOCK))
            }
            Bad::Other(OtherError(reason)) if !is_authority => refused(format!("`{subject}`: {reason}"), None),
            // Of an authority's certificate the library says that it is one; nobody who is trusted signed it either.
            Bad::UnknownIssuer | Bad::Other(_) if leaf.is_self_issued() => {
                refused(format!("`{subject}` is self-signed and not trusted itself{note}"), None)
            }
            Bad::UnknownIssuer | Bad::Other(_) => {
                let alone =
                    if sent.intermediates.is_empty() { ", and the server sends no other certificate" } else { "" };
                refused(format!("`{subject}` is signed by `{issuer}`, which is not trusted{alone}{note}"), None)
            }
            Bad::BadSignature => refused(format!("the signature on `{subject}` is not of `{issuer}`"), None),
            Bad::UnsupportedSignatureAlgorithmContext { .. }
            | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => refused(
                format!("`{subject}` or an authority above it is signed with {}", leaf.signature_algorithm_text()),
                Some("SHA-1, MD5, DSA and RSA keys below 2048 bits are not accepted"),
            ),
            other => refused(format!("`{subject}`: {other}"), None),
        }
    }
}

const CLOCK: &str = "renew the certificate; or is the clock of this machine wrong?";

fn refused(problem: impl Into<String>, hint: Option<&'static str>) -> Error {
    let problem = BadCertificate { problem: problem.into(), hint };
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
}

fn wrong_name(leaf: &Certificate<'_>, host: &str) -> Error {
    let names = leaf.names();
    if names.is_empty() {
        return refused(
            format!(
                "`{}` has no subjectAltName, so it is not for `{host}`; a common name does not count",
                leaf.subject_text()
            ),
            Some("issue it with `subjectAltName = DNS:HOST` or `IP:ADDRESS` (`openssl req -addext`)"),
        );
    }
    refused(format!("it is for `{}`, not for `{host}`", names.join("`, `")), None)
}

/// What a server sent, and when.
struct Sent<'a> {
    der: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    now: UnixTime,
}

impl Sent<'_> {
    fn seconds(&self) -> i64 {
        i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX)
    }
}

/// The search for who vouches for a certificate.
struct Search<'a> {
    verifier: &'a Verifier,
    others: &'a [Certificate<'a>],
    now: i64,
    signatures_left: u32,
}

impl Search<'_> {
    /// Whether an authority that we trust signed `certificate`, or another one that is vouched for itself did.
    fn vouches_for(&mut self, certificate: &Certificate<'_>, below: u64) -> bool {
        let Verifier { trusted, .. } = self.verifier;
        let named = trusted.authorities.roots.iter().filter(|root| *root.subject == *certificate.issuer);
        // What an authority is restricted to is the library's to judge.
        let mut roots = named.filter(|root| root.name_constraints.is_none());
        if roots
            .any(|root| split_key(&root.subject_public_key_info).is_some_and(|key| self.has_signed(key, certificate)))
        {
            return true;
        }
        self.others.iter().any(|other| {
            other.subject == certificate.issuer
                && !other.is_self_issued()
                && other.is_valid_at(self.now)
                && other.may_be_intermediate(below)
                && other.is_for_servers()
                && self.has_signed(other.public_key, certificate)
                && self.vouches_for(other, below + 1)
        })
    }

    fn has_signed(&mut self, (algorithm, key): (&[u8], &[u8]), certificate: &Certificate<'_>) -> bool {
        let (message, signed_with, signature) = certificate.signed;
        self.verifier.algorithms.all.iter().any(|known| {
            let fits = *known.signature_alg_id() == *signed_with && *known.public_key_alg_id() == *algorithm;
            if !fits || self.signatures_left == 0 {
                return false;
            }
            self.signatures_left -= 1;
            known.verify_signature(key, message, signature).is_ok()
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let sent = Sent { der, intermediates, now };
        match self.judge(&sent, name) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(self.explain(error, &sent, name)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes whatever a server shows: what `--skip-tls-verify` asks for. Its signature proves nothing either, since anybody can
/// make a key: certificates that cannot be read and keys of unknown kinds are as good.
#[derive(Debug)]
pub struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as Scheme;
        vec![
            Scheme::ECDSA_NISTP256_SHA256,
            Scheme::ECDSA_NISTP384_SHA384,
            Scheme::ECDSA_NISTP521_SHA512,
            Scheme::ED25519,
            Scheme::ED448,
            Scheme::RSA_PSS_SHA256,
            Scheme::RSA_PSS_SHA384,
            Scheme::RSA_PSS_SHA512,
            // Keys that are marked as good for PSS alone.
            Scheme::Unknown(0x0809),
            Scheme::Unknown(0x080a),
            Scheme::Unknown(0x080b),
            Scheme::RSA_PKCS1_SHA256,
            Scheme::RSA_PKCS1_SHA384,
            Scheme::RSA_PKCS1_SHA512,
            Scheme::RSA_PKCS1_SHA1,
            Scheme::ECDSA_SHA1_Legacy,
        ]
    }
}
