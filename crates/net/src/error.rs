//! Why a request got no answer, in words a user understands and in a kind a program can match.

use std::error::Error;
use std::io;

/// Why a request got no answer. Answers of any status are no errors on this floor.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("could not use {what}")]
    Setup { what: String, source: Box<dyn Error + Send + Sync> },
    #[error("invalid address `{url}`: {reason}")]
    Url { url: String, reason: String },
    #[error("{method} {url}: {}", kind.describe(host))]
    Request { method: String, url: String, host: String, kind: Kind, source: Option<Box<dyn Error + Send + Sync>> },
    /// What was to be sent could not be read.
    #[error("could not read what was to be sent")]
    Source(#[source] io::Error),
    #[error("cancelled")]
    Cancelled,
}

/// What stood in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The name does not resolve.
    Dns,
    Refused,
    /// The connection was closed or reset in the middle.
    Reset,
    /// No connection, or no further byte, within the time allowed.
    Timeout,
    /// The certificate was not accepted.
    Certificate,
    /// The TLS handshake failed otherwise.
    Tls,
    /// The server answered the TLS handshake in plain text.
    PlainHttp,
    Redirects,
    Other,
}

impl Kind {
    /// One clause about `host`: `connection refused by `registry.example``.
    pub fn describe(self, host: &str) -> String {
        match self {
            Kind::Dns => format!("host name `{host}` could not be resolved"),
            Kind::Refused => format!("connection refused by `{host}`"),
            Kind::Reset => format!("connection to `{host}` was cut"),
            Kind::Timeout => format!("`{host}` did not answer in time"),
            Kind::Certificate => format!("certificate of `{host}` is not trusted"),
            Kind::Tls => format!("TLS handshake with `{host}` failed"),
            Kind::PlainHttp => format!("`{host}` speaks plain HTTP, not HTTPS"),
            Kind::Redirects => format!("`{host}` redirects too often"),
            Kind::Other => format!("request to `{host}` failed"),
        }
    }
}

impl NetError {
    pub fn kind(&self) -> Option<Kind> {
        match self {
            NetError::Request { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    pub(crate) fn setup(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> NetError {
        NetError::Setup { what: what.into(), source: source.into() }
    }

    pub(crate) fn url(url: &str, reason: impl ToString) -> NetError {
        NetError::Url { url: display_url(url), reason: reason.to_string() }
    }

    pub(crate) fn request(method: &http::Method, url: &url::Url, kind: Kind) -> NetError {
        NetError::Request {
            method: method.to_string(),
            url: display_url(url.as_str()),
            host: host_and_port(url),
            kind,
            source: None,
        }
    }

    pub(crate) fn from_reqwest(method: &http::Method, url: &url::Url, error: reqwest::Error) -> NetError {
        let kind = classify(&error);
        let mut made = NetError::request(method, url, kind);
        // reqwest repeats the whole address, query included; the innermost causes say what happened.
        if let NetError::Request { source, .. } = &mut made {
            *source = innermost(&error).map(|text| text.into());
        }
        made
    }

    /// For a body that is read as [`io::Read`]: get it back with [`cause_of`].
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            NetError::Request { kind: Kind::Timeout, .. } => io::ErrorKind::TimedOut,
            NetError::Request { kind: Kind::Reset, .. } => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

/// The [`NetError`] inside an error that a response body gave.
pub fn cause_of(error: &io::Error) -> Option<&NetError> {
    error.get_ref()?.downcast_ref::<NetError>()
}

/// Whether reading a body ended because the user asked to stop.
pub fn is_cancelled(error: &io::Error) -> bool {
    matches!(cause_of(error), Some(NetError::Cancelled))
}

/// `url` as it may be shown: without user, password, query and fragment, which may hold secrets.
pub(crate) fn display_url(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.has_host() => {
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.to_string()
        }
        _ => {
            let plain = url.split(['?', '#']).next().unwrap_or_default();
            plain.rsplit_once('@').map_or(plain, |(_, rest)| rest).to_owned()
        }
    }
}

pub(crate) fn host_and_port(url: &url::Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

fn classify(error: &reqwest::Error) -> Kind {
    let mut current: Option<&(dyn Error + 'static)> = Some(error);
    let mut found = if error.is_timeout() { Some(Kind::Timeout) } else { None };
    while let Some(cause) = current {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return classify_tls(tls);
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            if let Some(tls) = tls_within(io) {
                return classify_tls(tls);
            }
            found = found.or(classify_io(io.kind()));
        }
        let text = cause.to_string();
        if text.starts_with("dns error") {
            return Kind::Dns;
        }
        if text.contains("tls handshake eof") {
            return Kind::Tls;
        }
        if text.contains("message completed")
            || text.contains("end of file before message")
            || text.contains("connection closed")
        {
            found = found.or(Some(Kind::Reset));
        }
        current = cause.source();
    }
    found.unwrap_or(Kind::Other)
}

/// The TLS error that an I/O error holds, directly or in another I/O error (which `source` skips).
fn tls_within(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<rustls::Error>().or_else(|| tls_within(inner.downcast_ref::<io::Error>()?))
}

fn classify_io(kind: io::ErrorKind) -> Option<Kind> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(Kind::Refused),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::NotConnected => Some(Kind::Reset),
        io::ErrorKind::TimedOut => Some(Kind::Timeout),
        _ => None,
    }
}

fn classify_tls(error: &rustls::Error) -> Kind {
    match error {
        rustls::Error::InvalidMessage(_) => Kind::PlainHttp,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Kind::Certificate,
        _ => Kind::Tls,
    }
}

/// The last cause of the chain, as text.
fn innermost(error: &reqwest::Error) -> Option<String> {
    let mut current = error.source()?;
    while let Some(next) = current.source() {
        current = next;
    }
    Some(current.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_addresses_carry_no_secret() {
        let cases = [
            ("https://u:p@h/x?token=s#f", "https://h/x"),
            ("https://h:5000/v2/", "https://h:5000/v2/"),
            ("u:p@h:x/y?secret", "h:x/y"),
            ("", ""),
        ];
        for (url, expected) in cases {
            assert_eq!(display_url(url), expected, "{url}");
        }
    }
}
