//! Why a request got no answer, in words a user understands and in a kind a program can match.

use std::error::Error;
use std::io;

use crate::dns::LookupError;
use crate::settings::without_port;
use crate::verify::BadCertificate;

/// Why a request got no answer. Answers of any status are no errors on this floor.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("could not use {what}")]
    Setup { what: String, source: Box<dyn Error + Send + Sync> },
    #[error("invalid address `{url}`: {reason}")]
    Url { url: String, reason: String },
    #[error("{method} {url}: {}", kind.describe(host, proxy.as_deref()))]
    Request {
        method: String,
        url: String,
        host: String,
        kind: Kind,
        /// The proxy (`http://proxy:3128`), where it is at fault and not the host.
        proxy: Option<String>,
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    #[error("host name `{host}` could not be resolved")]
    Name { host: String, source: LookupError },
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
    /// The proxy wants a login, or another one.
    ProxyLogin,
    /// The proxy did not connect to the host.
    ProxyRefused,
    Other,
}

impl Kind {
    /// One clause about `host`: `connection refused by `registry.example``; about `proxy` where that is at fault.
    pub fn describe(self, host: &str, proxy: Option<&str>) -> String {
        let whose = proxy.map_or_else(|| format!("`{host}`"), |proxy| format!("the proxy `{proxy}`"));
        match self {
            Kind::Dns if proxy.is_some() => format!("host name of {whose} could not be resolved"),
            Kind::Dns => format!("host name {whose} could not be resolved"),
            Kind::Refused => format!("connection refused by {whose}"),
            Kind::Reset => format!("connection to {whose} was cut"),
            Kind::Timeout => format!("{whose} did not answer in time"),
            Kind::Certificate => format!("certificate of {whose} is not trusted"),
            Kind::Tls => format!("TLS handshake with {whose} failed"),
            Kind::PlainHttp => format!("{whose} speaks plain HTTP, not HTTPS"),
            Kind::Redirects => format!("{whose} redirects too often"),
            Kind::ProxyLogin => format!("{whose} does not let us through to `{host}` without the right login"),
            Kind::ProxyRefused => format!("{whose} does not connect to `{host}`"),
            Kind::Other => format!("request to {whose} failed"),
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
            proxy: None,
            source: None,
        }
    }

    /// `proxy` is what the request went through.
    pub(crate) fn from_reqwest(
        method: &http::Method,
        url: &url::Url,
        proxy: Option<&url::Url>,
        error: reqwest::Error,
    ) -> NetError {
        let at_fault = proxy.filter(|_| is_of_proxy(&error, url));
        let kind = classify(&error, at_fault.is_some());
        let mut made = NetError::request(method, url, kind);
        if let NetError::Request { source, proxy, .. } = &mut made {
            *proxy = at_fault.map(shown_proxy);
            *source = innermost(&error);
        }
        made
    }

    /// The proxy asked for a login in its answer to a plain request.
    pub(crate) fn proxy_login(method: &http::Method, url: &url::Url, through: &url::Url) -> NetError {
        let mut made = NetError::request(method, url, Kind::ProxyLogin);
        if let NetError::Request { proxy, .. } = &mut made {
            *proxy = Some(shown_proxy(through));
        }
        made
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let NetError::Request { host, kind, proxy, source, .. } = self else { return None };
        let bad = source.as_ref().and_then(|source| source.downcast_ref::<BadCertificate>());
        match (kind, proxy) {
            (Kind::ProxyLogin, _) => {
                Some("a login for the proxy goes into its address: `http://USER:PASSWORD@PROXY:PORT`".to_owned())
            }
            (Kind::PlainHttp, Some(proxy)) => {
                Some(format!("a proxy that speaks plain HTTP is `http://…` also for HTTPS hosts, not `{proxy}`"))
            }
            (_, Some(_)) => Some(format!(
                "proxies come from HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; `NO_PROXY={}` reaches this host directly",
                without_port(host)
            )),
            (Kind::Certificate, None) => bad.and_then(|bad| bad.hint).map(str::to_owned),
            _ => None,
        }
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
pub fn display_url(url: &str) -> String {
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

/// An error and its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

pub(crate) fn host_and_port(url: &url::Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

/// `scheme://host:port` of a proxy.
fn shown_proxy(proxy: &url::Url) -> String {
    format!("{}://{}", proxy.scheme(), host_and_port(proxy))
}

/// Whether `error` happened between us and a proxy, or was told by it. reqwest shows the tunnel to an HTTPS host and the SOCKS
/// handshake by their texts alone; without one of these a connection that failed was the one to the proxy. What takes too long
/// is the proxy's fault, too: it has not said that it is through.
fn is_of_proxy(error: &reqwest::Error, url: &url::Url) -> bool {
    let told = |text: &str| text.starts_with("tunnel error") || text.contains("connecting to socks proxy");
    let by_tunnel = causes(error).any(|cause| told(&cause.to_string()));
    let resolving_host = causes(error).any(|cause| cause.to_string().contains("resolving for socks proxy"));
    by_tunnel || error.is_connect() && (url.scheme() == "http" || error.is_timeout()) && !resolving_host
}

/// `error` and everything below it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn classify(error: &reqwest::Error, of_proxy: bool) -> Kind {
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
        if cause.is::<LookupError>() {
            return Kind::Dns;
        }
        if of_proxy && (text.contains("proxy authorization required") || text.contains("credentials not accepted")) {
            return Kind::ProxyLogin;
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
    found.unwrap_or(if of_proxy { Kind::ProxyRefused } else { Kind::Other })
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

/// What happened: a certificate's fault, or the last cause of the chain as text. (reqwest's own texts repeat the whole address,
/// query included.)
fn innermost(error: &reqwest::Error) -> Option<Box<dyn Error + Send + Sync>> {
    let last = causes(error).skip(1).last()?;
    let tls = last.downcast_ref::<rustls::Error>().or_else(|| tls_within(last.downcast_ref::<io::Error>()?));
    if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) = tls
        && let Some(bad) = other.0.downcast_ref::<BadCertificate>()
    {
        return Some(Box::new(bad.clone()));
    }
    Some(last.to_string().into())
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
