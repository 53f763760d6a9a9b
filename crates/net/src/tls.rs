//! Which certificates are trusted, and which we show.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::settings::host_matches;
use crate::{NetError, Settings};

/// Certificates read once, for every client made later.
pub(crate) struct Trust {
    system: RootCertStore,
    /// Host and certificates, in the order of [`Settings::certificates`].
    extra: Vec<(String, Vec<CertificateDer<'static>>)>,
    /// Host, chain and key, in the order of [`Settings::client_certificates`].
    own: Vec<(String, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Trust {
    pub(crate) fn load(settings: &Settings) -> Result<Trust, NetError> {
        let extra = settings.certificates.iter().map(|(host, file)| Ok((host.clone(), read_certificates(file)?)));
        let own = settings.client_certificates.iter().map(|(host, certificate, key)| {
            let key_read = PrivateKeyDer::from_pem_slice(&read(key, "client key")?)
                .map_err(|e| NetError::setup(format!("client key `{}`", key.display()), e))?;
            Ok((host.clone(), read_certificates(certificate)?, key_read))
        });
        Ok(Trust {
            system: system_roots(),
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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| NetError::setup("TLS", e))?;
        let builder = if verify {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots(extra)?), provider)
                .build()
                .map_err(|e| NetError::setup("trusted certificates", e))?;
            builder.with_webpki_verifier(verifier)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny { provider }))
        };
        match own {
            None => Ok(builder.with_no_client_auth()),
            Some(index) => {
                let (host, chain, key) = &self.own[index];
                builder
                    .with_client_auth_cert(chain.clone(), key.clone_key())
                    .map_err(|e| NetError::setup(format!("client certificate for `{host}`"), e))
            }
        }
    }

    fn roots(&self, extra: &[usize]) -> Result<RootCertStore, NetError> {
        let mut roots = self.system.clone();
        for (host, certificates) in extra.iter().map(|&i| &self.extra[i]) {
            for certificate in certificates {
                let added = roots.add(certificate.clone());
                added.map_err(|e| NetError::setup(format!("a CA certificate given for `{host}`"), e))?;
            }
        }
        Ok(roots)
    }
}

/// The system's certificates; Mozilla's, compiled in, where the system has none (an image `FROM scratch`).
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let what = || format!("certificate file `{}`", file.display());
    let text = read(file, "certificate file")?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|e| NetError::setup(what(), e))?;
    if found.is_empty() {
        return Err(NetError::setup(what(), "it holds no certificate in PEM"));
    }
    Ok(found)
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>, NetError> {
    std::fs::read(file).map_err(|e: io::Error| NetError::setup(format!("{what} `{}`", file.display()), e))
}

/// Takes any certificate: what `--skip-tls-verify` asks for. Signatures are checked all the same.
#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
