//! What is asked and what comes back.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::NetError;

/// Opens a body from its beginning, once per attempt.
pub type Open<'a> = &'a dyn Fn() -> io::Result<Box<dyn Read + Send>>;

/// One request, with what may be done about its failures.
pub struct Request<'a> {
    pub method: Method,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Body<'a>,
    /// Tried again as [`crate::Settings::retries`] says. Off for what only the caller knows how to repeat.
    pub retry: bool,
    /// Told why before each further attempt.
    pub on_retry: Option<&'a dyn Fn(&str)>,
    /// Over HTTP/1.1 whatever the server offers: for large bodies.
    pub http1: bool,
}

pub enum Body<'a> {
    Empty,
    Bytes(Bytes),
    /// Streamed; the length in bytes, where it is known, becomes `Content-Length`.
    Stream {
        length: Option<u64>,
        open: Open<'a>,
    },
}

impl Body<'_> {
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Bytes(bytes) => bytes.is_empty(),
            // Says itself how long it is.
            Body::Stream { .. } => false,
        }
    }
}

/// An answer of any status. Its body is read while it arrives.
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// Where the answer came from after redirects.
    pub final_url: String,
    /// Errors hold a [`NetError`]: see [`crate::cause_of`].
    pub body: Box<dyn Read + Send>,
}

impl<'a> Request<'a> {
    pub fn new(method: Method, url: impl Into<String>) -> Request<'a> {
        Request {
            method,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Body::Empty,
            retry: true,
            on_retry: None,
            http1: false,
        }
    }

    pub fn get(url: impl Into<String>) -> Request<'a> {
        Request::new(Method::GET, url)
    }

    /// Adds a header.
    ///
    /// # Errors
    /// [`NetError::Setup`] when the name or value cannot stand in a header; the value is not shown.
    pub fn header(mut self, name: &str, value: &str) -> Result<Request<'a>, NetError> {
        let what = || format!("header `{name}`");
        let header = HeaderName::try_from(name).map_err(|e| NetError::setup(what(), e))?;
        let mut value = HeaderValue::try_from(value).map_err(|e| NetError::setup(what(), e))?;
        value.set_sensitive(header == http::header::AUTHORIZATION);
        self.headers.append(header, value);
        Ok(self)
    }

    pub fn body(mut self, body: Body<'a>) -> Request<'a> {
        self.body = body;
        self
    }

    pub fn once(mut self) -> Request<'a> {
        self.retry = false;
        self
    }

    pub fn http1(mut self) -> Request<'a> {
        self.http1 = true;
        self
    }

    pub fn on_retry(mut self, told: &'a dyn Fn(&str)) -> Request<'a> {
        self.on_retry = Some(told);
        self
    }
}

impl Response {
    /// With the body that is meant where the server compressed it for the way (`Content-Encoding: gzip`), asked or not, as Go's
    /// clients decode it. Parts of a body are left as they are.
    pub(crate) fn decoded(mut self) -> Response {
        let encoded = self.header("content-encoding").is_some_and(|told| told.trim().eq_ignore_ascii_case("gzip"));
        let nothing = matches!(self.status, 204 | 206 | 304) || self.content_length() == Some(0);
        if encoded && !nothing {
            self.headers.remove(CONTENT_ENCODING);
            self.headers.remove(CONTENT_LENGTH);
            self.body = Box::new(flate2::read::MultiGzDecoder::new(self.body));
        }
        self
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header when there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Content-Length` in bytes.
    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// How long the server asks to wait: `Retry-After`, in seconds (some write a fraction) or until a date, which may be over.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        let until = Duration::from_secs(crate::parse_date(text)?.try_into().ok()?);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(until.saturating_sub(now))
    }

    /// The whole body, up to `limit` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] when there is more; what reading gave otherwise.
    pub fn read_all(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.body).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the answer is larger than {limit} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// `404 Not Found`
    pub fn status_text(&self) -> String {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason());
        reason.map_or_else(|| self.status.to_string(), |reason| format!("{} {reason}", self.status))
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
