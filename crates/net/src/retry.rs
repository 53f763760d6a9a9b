//! What is tried again, and when.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::error::Kind;
use crate::{Net, NetError, Request, Response, Settings};

/// No wait between two attempts is longer, unless the server asks for it.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Nobody listening and an unknown name mend themselves rarely (a service that starts, a cluster's name server that
/// hiccups), and silence takes minutes to be noticed: worth fewer attempts than a server that is there and busy.
const RETRIES_WITHOUT_SERVER: u32 = 2;

impl Net {
    /// Sends `request` until it is answered, the attempts are used up or the failure is one that stays.
    ///
    /// Tried again: 408, 429, 500, 502, 503, 504, and connections that fail or break. The last answer is returned whatever
    /// its status. Redirects are followed; `request`'s headers stay with its host.
    pub fn send(&self, request: &Request<'_>) -> Result<Response, NetError> {
        let settings = self.settings();
        let mut attempt = 0;
        loop {
            let outcome = self.follow(request);
            if !request.retry || attempt >= settings.retries {
                return outcome;
            }
            let Some(pause) = pause_after(&outcome, attempt, settings) else { return outcome };
            if let Some(told) = request.on_retry {
                told(&reason(&outcome));
            }
            // The answer's body must be gone before the wait: it holds a connection.
            drop(outcome);
            self.sleep(pause)?;
            attempt += 1;
        }
    }

    /// Waits before attempt number `attempt + 1` (from 0), for callers that repeat more than one request.
    ///
    /// # Errors
    /// [`NetError::Cancelled`]
    pub fn back_off(&self, attempt: u32) -> Result<(), NetError> {
        self.sleep(back_off(self.settings().backoff, attempt))
    }
}

impl NetError {
    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        use Kind::{Dns, Other, ProxyRefused, Refused, Reset, Timeout};
        matches!(self.kind(), Some(Dns | Refused | Reset | Timeout | ProxyRefused | Other))
    }
}

impl Response {
    /// Whether the same request may get another answer a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
    }
}

fn pause_after(outcome: &Result<Response, NetError>, attempt: u32, settings: &Settings) -> Option<Duration> {
    let usual = back_off(settings.backoff, attempt);
    match outcome {
        Ok(response) if response.is_transient() => match response.retry_after() {
            Some(asked) if asked > settings.max_retry_after => None,
            Some(asked) => Some(asked.max(usual)),
            None => Some(usual),
        },
        Err(error) if matches!(error.kind(), Some(Kind::Dns | Kind::Refused | Kind::Timeout | Kind::ProxyRefused)) => {
            (attempt < RETRIES_WITHOUT_SERVER).then_some(usual)
        }
        Err(error) if error.is_transient() => Some(usual),
        Ok(_) | Err(_) => None,
    }
}

fn reason(outcome: &Result<Response, NetError>) -> String {
    match outcome {
        Ok(response) => response.status_text(),
        Err(NetError::Request { kind, host, proxy, .. }) => kind.describe(host, proxy.as_deref()),
        Err(error) => error.to_string(),
    }
}

/// `base` doubled `attempt` times, at most [`MAX_BACKOFF`], of which a random half is taken away so that the clients of a
/// struggling server do not come back all at once.
fn back_off(base: Duration, attempt: u32) -> Duration {
    let full = base.saturating_mul(1 << attempt.min(16)).min(MAX_BACKOFF);
    let random = (RandomState::new().hash_one(attempt) % 1000) as u32;
    full / 2 + full / 2 * random / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        for (attempt, full_ms) in [(0, 500), (1, 1000), (3, 4000), (20, 30_000)] {
            let waited = back_off(Duration::from_millis(500), attempt).as_millis();
            assert!((full_ms / 2..=full_ms).contains(&waited), "{attempt}: {waited}");
        }
    }

    fn answer(status: u16, retry_after: Option<&str>) -> Result<Response, NetError> {
        let mut headers = http::HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert("retry-after", value.parse().unwrap());
        }
        Ok(Response { status, headers, final_url: String::new(), body: Box::new(std::io::empty()) })
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let settings = Settings::new("test");
        for (status, retried) in
            [(200, false), (401, false), (404, false), (408, true), (429, true), (500, true), (501, false), (503, true)]
        {
            assert_eq!(pause_after(&answer(status, None), 0, &settings).is_some(), retried, "{status}");
        }
        let asked = pause_after(&answer(429, Some("7")), 0, &settings);
        assert_eq!(asked, Some(Duration::from_secs(7)));
        assert_eq!(pause_after(&answer(429, Some("3600")), 0, &settings), None, "nobody waits an hour");
    }

    #[test]
    fn waits_that_servers_ask_for() {
        let asked = |text: &str| answer(429, Some(text)).unwrap().retry_after();
        let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        for (text, expected) in [
            ("0", seconds(0.0)),
            (" 7 ", seconds(7.0)),
            ("1.5", seconds(1.5)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("NaN", None),
            ("1e300", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(0.0)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", seconds(0.0)),
        ] {
            assert_eq!(asked(text), expected, "{text}");
        }
        let far = asked("Fri, 01 Jan 2100 00:00:00 GMT").unwrap();
        assert!(far > settings_limit(), "{far:?}");
    }

    fn settings_limit() -> Duration {
        Settings::new("test").max_retry_after
    }
}
