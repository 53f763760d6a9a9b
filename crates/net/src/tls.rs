//! Which certificates are trusted, and which we show.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, SignatureScheme};

use crate::settings::{SystemCertificates, host_matches};
use crate::verify::{Trusted, Unverified, Verifier};
use crate::x509::Certificate;
use crate::{NetError, Settings, curves, x509};

/// Go's lists (`crypto/x509`, `root_linux.go`): the first of the files that is there, and every file in the directories.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const SYSTEM_DIRS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Certificates read once, for every client made later.
pub(crate) struct Trust {
    system_certificates: SystemCertificates,
    /// Read when the first client is made: a build that speaks to nobody needs none.
    system: OnceLock<Trusted>,
    /// Host and certificates, in the order of [`Settings::certificates`].
    extra: Vec<(String, Vec<CertificateDer<'static>>)>,
    /// Host, and chain with key, in the order of [`Settings::client_certificates`].
    own: Vec<(String, Arc<SingleCertAndKey>)>,
}

impl Trust {
    pub(crate) fn load(settings: &Settings) -> Result<Trust, NetError> {
        let extra = settings.certificates.iter().map(|(host, file)| Ok((host.clone(), read_certificates(file)?)));
        let own = settings.client_certificates.iter().map(|(host, certificate, key)| {
            Ok((host.clone(), Arc::new(SingleCertAndKey::from(read_identity(certificate, key)?))))
        });
        Ok(Trust {
            system_certificates: settings.system_certificates.clone(),
            system: OnceLock::new(),
            extra: extra.collect::<Result<_, NetError>>()?,
            own: own.collect::<Result<_, NetError>>()?,
        })
    }

    /// Which entries of `extra` and which of `own` apply to `host`: hosts with the same answer can share a client.
    pub(crate) fn applying_to(&self, host: &str) -> (Vec<usize>, Option<usize>) {
        let named = |entry: &str| entry.is_empty() || host_matches(entry, host);
        let extra = (0..self.extra.len()).filter(|&i| named(&self.extra[i].0)).collect();
        (extra, (0..self.own.len()).find(|&i| named(&self.own[i].0)))
    }

    /// A TLS configuration without ALPN.
    pub(crate) fn config(&self, extra: &[usize], own: Option<usize>, verify: bool) -> Result<ClientConfig, NetError> {
        let provider = Arc::new(provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| NetError::setup("TLS", e))?
            .dangerous();
        let builder = match verify {
            true => builder.with_custom_certificate_verifier(Arc::new(Verifier::new(self.trusted(extra), &provider))),
            false => builder.with_custom_certificate_verifier(Arc::new(Unverified)),
        };
        Ok(match own {
            None => builder.with_no_client_auth(),
            Some(index) => builder.with_client_cert_resolver(self.own[index].1.clone()),
        })
    }

    fn trusted(&self, extra: &[usize]) -> Trusted {
        let mut trusted = self.system.get_or_init(|| system(&self.system_certificates)).clone();
        for certificate in extra.iter().flat_map(|&i| &self.extra[i].1) {
            trusted.add(certificate.clone());
        }
        trusted
    }
}

/// *ring*, and the signatures that Go knows and it does not.
fn provider() -> CryptoProvider {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
        let own = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let p521: (SignatureScheme, &'static [_]) = (SignatureScheme::ECDSA_NISTP521_SHA512, &curves::HANDSHAKE_P521);
        // Made once, for as long as the program runs. Last is what is asked for last.
        WebPkiSupportedAlgorithms {
            all: Box::leak([own.all, &curves::ALL].concat().into()),
            mapping: Box::leak([own.mapping, &[p521]].concat().into()),
        }
    });
    CryptoProvider { signature_verification_algorithms: *ALGORITHMS, ..rustls::crypto::ring::default_provider() }
}

/// What the system trusts, or what the variables say instead; Mozilla's list, compiled in, where there is nothing (an image
/// `FROM scratch`) and nobody said anything.
fn system(told: &SystemCertificates) -> Trusted {
    let mut trusted = Trusted::new();
    let files: Vec<&Path> = match &told.file {
        Some(file) => vec![file],
        None => SYSTEM_FILES.map(Path::new).into(),
    };
    let read = files.iter().find_map(|file| std::fs::read(file).ok());
    if let (Some(file), None) = (&told.file, &read) {
        trusted.note(format!("`SSL_CERT_FILE` names `{}`, which cannot be read", file.display()));
    }
    let dirs = told.dirs.clone().unwrap_or_else(|| SYSTEM_DIRS.map(PathBuf::from).into());
    let texts =
        read.into_iter().chain(dirs.iter().flat_map(|dir| files_in(dir)).filter_map(|file| std::fs::read(file).ok()));
    for text in texts {
        for certificate in CertificateDer::pem_slice_iter(&text).flatten() {
            trusted.add(certificate);
        }
    }
    if trusted.is_empty() && told.file.is_none() && told.dirs.is_none() {
        trusted.add_built_in();
    }
    trusted
}

/// The files in `dir`, in the order of their names, without links to each other (`c_rehash` makes them).
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let is_alias = |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.components().count() == 1);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| !is_alias(path)).collect();
    files.sort();
    files
}

/// The certificates of a file in PEM. Between them there may be others that we do not understand, but not only these.
fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let failed = |reason: &str| NetError::setup(format!("certificate file `{}`", file.display()), reason);
    let text = read(file, "certificate file")?;
    if Certificate::parse(&text).is_some() {
        return Err(failed("it is in DER, not in PEM: convert it with `openssl x509 -inform der`"));
    }
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        found.push(certificate.map_err(|error| failed(&error.to_string()))?);
    }
    if found.is_empty() {
        return Err(failed("it holds no certificate in PEM"));
    }
    found.retain(|certificate| Certificate::parse(certificate).is_some());
    if found.is_empty() {
        return Err(failed("what it holds as a certificate is none"));
    }
    Ok(found)
}

/// What we show to a server that asks who we are.
fn read_identity(certificate: &Path, key: &Path) -> Result<CertifiedKey, NetError> {
    let failed = |reason: String| NetError::setup(format!("client key `{}`", key.display()), reason);
    let chain = read_certificates(certificate)?;
    let text = read(key, "client key")?;
    let read = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match is_encrypted(&text) {
        true => failed("it is encrypted: take the passphrase off with `openssl pkey`".to_owned()),
        false => failed(error.to_string()),
    })?;
    let signing = provider().key_provider.load_private_key(read);
    let signing = signing
        .map_err(|_| failed("neither RSA of 2048 bits or more, nor ECDSA on P-256 or P-384, nor Ed25519".to_owned()))?;
    let own = Certificate::parse(&chain[0]).map(|certificate| certificate.public_key);
    if signing.public_key().is_some_and(|info| x509::parse_key(&info) != own) {
        return Err(failed(format!("it is not the key of the certificate in `{}`", certificate.display())));
    }
    // Made like this and not with a check of the library: it refuses certificates of version 1, which servers accept.
    Ok(CertifiedKey::new(chain, signing))
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>, NetError> {
    std::fs::read(file).map_err(|e: io::Error| NetError::setup(format!("{what} `{}`", file.display()), e))
}
