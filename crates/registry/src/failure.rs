//! What a registry or the way to it said no to, in words and as something a program can match.

use auth::one_line;
use std::fmt;

use net::{NetError, Response};
use serde::Deserialize;
use store::StoreError;

/// An answer that explains a failure is not longer than this.
const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// Why a registry did not do what it was asked. Found in the `source` of [`StoreError::Remote`]: see [`failure`].
///
/// Its `Display` is the request that failed; the reason is in the message of the error that holds it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: FailureKind,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The distribution-spec's error code (`MANIFEST_UNKNOWN`), where there was one.
    pub code: Option<String>,
    /// One clause: `403 DENIED: requested access to the resource is denied`.
    pub reason: String,
    pub hint: Option<String>,
    /// `GET https://registry.example/v2/app/manifests/1`
    pub request: String,
}

/// What kind of no it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// 401, or the token server refused us.
    Unauthorized,
    /// 403.
    Denied,
    RepositoryNotFound,
    /// The repository may exist; this tag or digest does not.
    ManifestNotFound,
    BlobNotFound,
    RateLimited,
    /// The tag exists and the repository does not let it be moved.
    ImmutableTag,
    TooLarge,
    /// Bytes arrived that do not have their digest, here or there.
    WrongDigest,
    /// Fewer bytes arrived than there should be.
    Truncated,
    /// A media type or manifest version we do not read.
    Unsupported,
    /// 5xx.
    Server,
    Dns,
    Refused,
    Timeout,
    /// The certificate or the TLS handshake.
    Tls,
    /// The server speaks plain HTTP where HTTPS was wanted.
    PlainHttp,
    /// The connection broke or failed otherwise.
    Network,
    /// Any other answer that is not what the specification says.
    Unexpected,
    Cancelled,
}

/// The [`Failure`] behind `error`, for exit codes and for errors that are to be tolerated.
pub fn failure(error: &StoreError) -> Option<&Failure> {
    match error {
        StoreError::Remote { source: Some(source), .. } => source.downcast_ref::<Failure>(),
        _ => None,
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, reason: impl Into<String>, request: impl Into<String>) -> Failure {
        Failure { kind, status: None, code: None, reason: reason.into(), hint: None, request: request.into() }
    }

    /// From the answer to `request`, whose body is read for what the registry says.
    pub(crate) fn from_answer(request: impl Into<String>, mut response: Response) -> Failure {
        let said = Said::of(&mut response);
        let reason = match (&said.code, &said.message) {
            (Some(code), Some(message)) => format!("{} {code}: {message}", response.status),
            (Some(code), None) => format!("{} {code}", response.status),
            (None, Some(message)) => format!("{}: {message}", response.status_text()),
            (None, None) => response.status_text(),
        };
        let kind = kind_of(response.status, &said);
        let mut failure = Failure::new(kind, reason, request);
        if kind == FailureKind::RateLimited {
            let wait = response.retry_after().map(|w| format!("wait {} s, ", w.as_secs())).unwrap_or_default();
            failure.hint =
                Some(format!("{wait}log in for a higher limit, or pull through a mirror (`--registry-mirror`)"));
        }
        Failure { status: Some(response.status), code: said.code, ..failure }
    }

    pub(crate) fn from_net(error: &NetError) -> Failure {
        use net::Kind;
        let (request, reason, host) = match error {
            NetError::Request { method, url, host, kind, proxy, source } => {
                let told = matches!(kind, Kind::Dns | Kind::Certificate | Kind::Tls | Kind::ProxyRefused | Kind::Other);
                let detail = source
                    .as_ref()
                    .filter(|_| told)
                    .map(|s| format!(" ({})", one_line(&s.to_string())))
                    .unwrap_or_default();
                (format!("{method} {url}"), format!("{}{detail}", kind.describe(host, proxy.as_deref())), host.as_str())
            }
            NetError::Cancelled => return Failure::new(FailureKind::Cancelled, "cancelled", ""),
            NetError::Setup { source, .. } => (String::new(), format!("{error}: {source}"), ""),
            NetError::Name { host, source } => (String::new(), format!("{error}: {source}"), host.as_str()),
            NetError::Source(source) => (String::new(), format!("{error}: {source}"), ""),
            NetError::Url { .. } => (String::new(), error.to_string(), ""),
        };
        let (kind, hint) = match error.kind() {
            Some(Kind::Dns) => (FailureKind::Dns, Some(format!("is `{host}` spelt right, and reachable from here?"))),
            Some(Kind::Refused) => {
                (FailureKind::Refused, Some(format!("nothing listens at `{host}`, or a firewall is in the way")))
            }
            Some(Kind::Timeout) => (FailureKind::Timeout, None),
            Some(Kind::Certificate) => (
                FailureKind::Tls,
                Some(format!(
                    "`--registry-certificate {host}=FILE` trusts a CA, `--skip-tls-verify-registry {host}` trusts anybody"
                )),
            ),
            Some(Kind::Tls) => (FailureKind::Tls, None),
            Some(Kind::PlainHttp) => {
                (FailureKind::PlainHttp, Some(format!("`--insecure-registry {host}` allows plain HTTP for it")))
            }
            Some(Kind::Reset | Kind::Redirects | Kind::Other | Kind::ProxyLogin | Kind::ProxyRefused) => {
                (FailureKind::Network, None)
            }
            None => (FailureKind::Unexpected, None),
        };
        // What the network knows is nearer to the cause: the proxy, or what is wrong with the certificate.
        Failure { hint: error.hint().or(hint), ..Failure::new(kind, reason, request) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The error for who asked: ``could not {action} `{what}`: {reason}``.
    pub(crate) fn during(self, action: &str, what: impl fmt::Display) -> StoreError {
        if self.kind == FailureKind::Cancelled {
            return StoreError::Cancelled;
        }
        StoreError::Remote {
            message: format!("could not {action} `{what}`: {}", self.reason),
            hint: self.hint.clone(),
            source: Some(Box::new(self)),
        }
    }

    /// Whether asking again from the beginning may help.
    pub(crate) fn is_transient(&self) -> bool {
        use FailureKind::{Network, RateLimited, Server, Timeout, Truncated};
        matches!(self.kind, Server | Timeout | Network | RateLimited | Truncated)
    }
}

/// `error` with what other places said, each on a line of its own: any of them may be the one that was expected to work.
pub(crate) fn beside(error: StoreError, others: Vec<String>) -> StoreError {
    if others.is_empty() {
        return error;
    }
    let with_others = |message: String| others.iter().fold(message, |text, said| text + "\n" + said);
    match error {
        StoreError::Remote { message, hint, source } => {
            StoreError::Remote { message: with_others(message), hint, source }
        }
        other => {
            StoreError::Remote { message: with_others(other.to_string()), hint: None, source: Some(Box::new(other)) }
        }
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Failure {
        Failure::from_net(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.request.is_empty() {
            f.write_str("the request was not sent")
        } else {
            write!(f, "in answer to {}", self.request)
        }
    }
}

impl std::error::Error for Failure {}

/// The registry's own words.
struct Said {
    code: Option<String>,
    message: Option<String>,
}

/// distribution-spec 1.1, «Error Codes»; `details` and a bare `message` are what token servers write.
#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    #[serde(default)]
    details: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<serde_json::Value>,
}

impl Said {
    fn of(response: &mut Response) -> Said {
        let bytes = response.read_all(MAX_ERROR_BYTES).unwrap_or_default();
        let body: ErrorBody = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = |value: Option<serde_json::Value>| {
            let line = match value? {
                serde_json::Value::String(text) => one_line(&text),
                serde_json::Value::Number(number) => number.to_string(),
                _ => return None,
            };
            Some(line).filter(|l| !l.is_empty())
        };
        match body.errors.into_iter().next() {
            Some(first) => Said { code: text(first.code), message: text(first.message) },
            None => Said { code: None, message: text(body.details).or_else(|| text(body.message)) },
        }
    }
}

fn kind_of(status: u16, said: &Said) -> FailureKind {
    let message = said.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    match (status, said.code.as_deref()) {
        // ECR: «tag is immutable», Artifact Registry: «has enabled tag immutability», ACR and Harbor likewise.
        (400..500, _) if message.contains("immutab") => FailureKind::ImmutableTag,
        (_, Some("DIGEST_INVALID")) => FailureKind::WrongDigest,
        (_, Some("NAME_UNKNOWN" | "REPOSITORY_UNKNOWN")) => FailureKind::RepositoryNotFound,
        (_, Some("MANIFEST_UNKNOWN")) => FailureKind::ManifestNotFound,
        (_, Some("BLOB_UNKNOWN" | "MANIFEST_BLOB_UNKNOWN")) => FailureKind::BlobNotFound,
        (_, Some("TOOMANYREQUESTS")) | (429, _) => FailureKind::RateLimited,
        (401, _) => FailureKind::Unauthorized,
        (403, _) => FailureKind::Denied,
        (413, _) => FailureKind::TooLarge,
        (408, _) => FailureKind::Timeout,
        (500.., _) => FailureKind::Server,
        _ => FailureKind::Unexpected,
    }
}
