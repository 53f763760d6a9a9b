//! Redirects: where to, and what does not travel along.

use http::Method;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, RANGE, USER_AGENT,
};
use url::Url;

use crate::{NetError, Response};

/// Browsers stop at 20, Go at 10.
pub(crate) const MAX_REDIRECTS: u32 = 10;

/// What may be told to a host that the caller did not name. An `Authorization` must not, nor `PRIVATE-TOKEN`, `Cookie` or
/// whatever a service calls its secret.
const HARMLESS: [HeaderName; 9] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    RANGE,
    USER_AGENT,
];

/// Where `response` sends a request with `method` made to `from`; none when it is no redirect for us to follow.
pub(crate) fn target(response: &Response, method: &Method, from: &Url) -> Result<Option<Url>, NetError> {
    let reads = method == Method::GET || method == Method::HEAD;
    let follows = match response.status {
        301..=303 => reads,
        307 | 308 => true,
        _ => false,
    };
    let Some(location) = response.header("location").filter(|_| follows) else { return Ok(None) };
    let to = from.join(location).map_err(|e| NetError::url(location, e))?;
    if !matches!(to.scheme(), "http" | "https") {
        return Err(NetError::url(to.as_str(), "redirected to an address that is not HTTP"));
    }
    Ok(Some(to))
}

/// Takes out of `headers` what the host of `to` must not learn when `from` is another.
pub(crate) fn strip(headers: &mut HeaderMap, from: &Url, to: &Url) {
    if same_place(from, to) {
        return;
    }
    let secret: Vec<HeaderName> = headers.keys().filter(|name| !HARMLESS.contains(name)).cloned().collect();
    for name in secret {
        headers.remove(name);
    }
}

/// The same host and port, or the step from its HTTP to its HTTPS port.
fn same_place(from: &Url, to: &Url) -> bool {
    let upgrade = from.scheme() == "http" && to.scheme() == "https" && from.port().is_none() && to.port().is_none();
    let same_port = from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    from.host() == to.host() && (same_port || upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_with_their_host() {
        let cases = [
            ("https://a.example/x", "https://a.example/y", true),
            ("https://a.example/x", "https://a.example:443/y", true),
            ("http://a.example/x", "https://a.example/y", true),
            ("https://a.example/x", "http://a.example/y", false),
            ("https://a.example/x", "https://a.example:8443/y", false),
            ("https://a.example/x", "https://b.example/y", false),
            ("https://a.example/x", "https://sub.a.example/y", false),
            ("http://127.0.0.1:1/x", "http://127.0.0.1:2/y", false),
        ];
        for (from, to, kept) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", "Basic x".parse().unwrap());
            headers.insert("private-token", "x".parse().unwrap());
            headers.insert("range", "bytes=1-".parse().unwrap());
            strip(&mut headers, &from.parse().unwrap(), &to.parse().unwrap());
            assert_eq!(headers.contains_key("authorization"), kept, "{from} {to}");
            assert_eq!(headers.contains_key("private-token"), kept, "{from} {to}");
            assert!(headers.contains_key("range"));
        }
    }
}
