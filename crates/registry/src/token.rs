//! Tokens: Docker «Token Authentication Specification» (GET) and «Oauth2 Token Authentication» (POST).

use std::time::{Duration, Instant};

use auth::{Login, Secret, go_json};
use base64::Engine as _;
use bytes::Bytes;
use http::Method;
use net::{Body, Request, Response};
use serde_json::Value;
use url::Url;

use crate::challenge::Scopes;
use crate::client::{Client, host_and_port};
use crate::failure::{Failure, FailureKind};

/// What a token without `expires_in` lives for, says the specification.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// A token is not used in its last seconds: the request has to arrive, too.
const MARGIN: Duration = Duration::from_secs(5);

const MAX_TOKEN_ANSWER_BYTES: u64 = 1024 * 1024;

const CLIENT_ID: &str = "zuwai";

/// What a token is for, and who asked: tokens of one login are not used for another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TokenKey {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    pub(crate) scopes: Scopes,
    pub(crate) login: Option<Login>,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) value: Secret,
    expires: Instant,
}

impl Token {
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() < self.expires
    }
}

/// One question to a token server.
pub(crate) struct Fetch<'a> {
    pub(crate) client: &'a Client,
    pub(crate) key: &'a TokenKey,
    /// The scope in the challenge, which may ask for more than we thought of.
    pub(crate) asked: Option<&'a str>,
    /// Who sent us there.
    pub(crate) registry: &'a Url,
}

impl Fetch<'_> {
    pub(crate) fn run(&self) -> Result<Token, Failure> {
        let realm = self.realm()?;
        let request = match &self.key.login {
            Some(Login::Identity { token }) => self.refresh(&realm, token)?,
            Some(Login::Basic { username, password }) => {
                self.ask(&realm, Some(username)).header("authorization", basic(username, password).reveal())?
            }
            Some(Login::Registry { .. }) | None => self.ask(&realm, None),
        };
        let asked_at = Instant::now();
        let (request, response) = self.send(&realm, request)?;
        let shown = format!("{} {}", request.method, without_query(&realm));
        match response.is_success() {
            true => parse(response, shown, asked_at),
            false => Err(self.refused(shown, response)),
        }
    }

    /// Asks again in the older way where a refresh token gets no answer in the newer one: not every token server knows OAuth2
    /// (404; Artifactory says 401), and containerd does so.
    fn send<'r>(&self, realm: &Url, request: Request<'r>) -> Result<(Request<'r>, Response), Failure> {
        let response = self.client.net.send(&request)?;
        match &self.key.login {
            Some(Login::Identity { token }) if matches!(response.status, 401 | 404 | 405) => {
                let older = self.ask(realm, None).header("authorization", basic("", token).reveal())?;
                let response = self.client.net.send(&older)?;
                Ok((older, response))
            }
            _ => Ok((request, response)),
        }
    }

    /// The realm, unless following it would send a password in the clear where the registry itself was spoken to over TLS.
    fn realm(&self) -> Result<Url, Failure> {
        let realm = &self.key.realm;
        let bad = |reason: &str| {
            let reason = format!("the registry names `{}` as its token server: {reason}", auth::one_line(realm));
            Failure::new(FailureKind::Unexpected, reason, format!("GET {}", without_query(self.registry)))
        };
        let url = Url::parse(realm).map_err(|_| bad("not an address"))?;
        let host = host_and_port(&url).ok_or_else(|| bad("an address without host"))?;
        let allowed = |host: &str| self.client.net.settings().allows_plain_http(host);
        // A registry that is near has a token server that is near; for one elsewhere plain HTTP has to be asked for.
        let registry = host_and_port(self.registry).filter(|_| self.registry.scheme() == "http");
        let as_registry = registry.is_some_and(|registry| allowed(&registry) || self.client.allows_plain_http(&host));
        match url.scheme() {
            "https" => Ok(url),
            "http" if as_registry || allowed(&host) => Ok(url),
            "http" => Err(bad("credentials do not travel over plain HTTP")),
            _ => Err(bad("neither http nor https")),
        }
    }

    fn scopes(&self) -> Scopes {
        self.key.scopes.clone().with(self.asked)
    }

    fn ask(&self, realm: &Url, account: Option<&str>) -> Request<'static> {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.key.service {
                query.append_pair("service", service);
            }
            for scope in self.scopes().texts() {
                query.append_pair("scope", &scope);
            }
            if let Some(account) = account {
                query.append_pair("account", account);
            }
            query.append_pair("client_id", CLIENT_ID);
        }
        Request::get(url)
    }

    fn refresh(&self, realm: &Url, token: &Secret) -> Result<Request<'static>, Failure> {
        let scopes: Vec<String> = self.scopes().texts().collect();
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.key.service.as_deref().unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token.reveal())
            .finish();
        let request = Request::new(Method::POST, realm.as_str())
            .header("content-type", "application/x-www-form-urlencoded")?
            .body(Body::Bytes(Bytes::from(form)));
        Ok(request)
    }

    fn refused(&self, shown: String, response: Response) -> Failure {
        let status = response.status;
        let mut failure = Failure::from_answer(shown, response);
        failure.reason = format!("the token server refused: {}", failure.reason);
        if matches!(status, 400 | 401 | 403) {
            failure.kind = FailureKind::Unauthorized;
        }
        failure
    }
}

fn parse(mut response: Response, shown: String, asked_at: Instant) -> Result<Token, Failure> {
    let bad = |reason: &str| {
        Failure::new(FailureKind::Unexpected, format!("the token server's answer {reason}"), shown.clone())
    };
    let bytes = response.read_all(MAX_TOKEN_ANSWER_BYTES).map_err(|e| bad(&format!("could not be read: {e}")))?;
    let answer = go_json::object(&bytes).map_err(|_| bad("is not the JSON of a token"))?;
    let text = |name| go_json::text(&answer, name).map_err(|_| bad("is not the JSON of a token"));
    // Where both are there, Go's clients take this one.
    let value = text("access_token")?.or(text("token")?).ok_or_else(|| bad("holds no token"))?;
    let life = go_json::fields(&answer, "expires_in").last().and_then(life).unwrap_or(DEFAULT_LIFE);
    Ok(Token { value: Secret::new(value), expires: asked_at + life.saturating_sub(MARGIN.min(life / 2)) })
}

/// `expires_in` in whatever form; none where it makes no sense: a token that turns out to be old is renewed.
fn life(expires_in: &Value) -> Option<Duration> {
    let seconds = match expires_in {
        Value::String(text) => text.trim().parse().ok()?,
        value => value.as_f64()?,
    };
    // A year is forever here; more would overflow the clock.
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(31_536_000.0)))
}

/// The value of an `Authorization` header with a user's name and password. RFC 7617.
pub(crate) fn basic(username: &str, password: &Secret) -> Secret {
    let text = format!("{username}:{}", password.reveal());
    Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> Result<(String, Duration), String> {
        let body = Box::new(std::io::Cursor::new(json.to_owned().into_bytes()));
        let response = Response { status: 200, headers: http::HeaderMap::new(), final_url: String::new(), body };
        let asked_at = Instant::now();
        let token = parse(response, String::new(), asked_at).map_err(|failure| failure.reason)?;
        Ok((token.value.reveal().to_owned(), token.expires - asked_at))
    }

    #[test]
    fn lives_of_tokens_in_odd_forms() {
        let cases = [
            ("300", 295.0),
            ("300.7", 295.7),
            ("3e2", 295.0),
            (r#""300""#, 295.0),
            (r#"" 300.5 ""#, 295.5),
            ("4", 2.0),
            ("0.5", 0.25),
            ("1e300", 31_535_995.0),
            // No life at all: the specification's minute.
            ("0", 55.0),
            ("-1", 55.0),
            ("-0.5", 55.0),
            ("null", 55.0),
            (r#""soon""#, 55.0),
            (r#""NaN""#, 55.0),
            (r#""""#, 55.0),
            ("[300]", 55.0),
        ];
        for (expires_in, seconds) in cases {
            let json = format!(r#"{{"token":"t","expires_in":{expires_in},"issued_at":17}}"#);
            let (_, life) = answer(&json).unwrap();
            assert!((life.as_secs_f64() - seconds).abs() < 0.001, "{expires_in}: {life:?}");
        }
    }

    #[test]
    fn tokens_under_either_name() {
        let cases = [
            (r#"{"token":"t"}"#, Ok("t")),
            (r#"{"access_token":"a"}"#, Ok("a")),
            (r#"{"token":"t","access_token":"a"}"#, Ok("a")),
            (r#"{"token":"t","access_token":""}"#, Ok("t")),
            (r#"{"token":null,"access_token":"a","issued_at":"yesterday"}"#, Ok("a")),
            (r#"{"Token":"t"}"#, Ok("t")),
            (r#"{"token":""}"#, Err("holds no token")),
            ("{}", Err("holds no token")),
            ("null", Err("holds no token")),
            ("<html>", Err("is not the JSON of a token")),
            (r#"{"token":5}"#, Err("is not the JSON of a token")),
        ];
        for (json, expected) in cases {
            match (answer(json), expected) {
                (Ok((token, _)), Ok(expected)) => assert_eq!(token, expected, "{json}"),
                (Err(reason), Err(expected)) => assert!(reason.ends_with(expected), "{json}: {reason}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }
}
