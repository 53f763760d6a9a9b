//! Requests to registries, with the authorisation that each wants.
//!
//! No `GET /v2/` comes before: a request is made with what is known, and a 401 says what is missing. What a registry wants
//! is remembered, so that the next request has it at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use auth::{Credentials, Login, Secret};
use http::Method;
use net::{Body, Kind, Net, NetError, Request, Response};
use url::Url;

use crate::challenge::{Challenge, Scopes};
use crate::failure::{Failure, FailureKind};
use crate::host::{is_loopback, is_private};
use crate::token::{self, Token, TokenKey};

/// A repository at a registry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    /// As in [`oci::Reference`].
    pub(crate) registry: String,
    pub(crate) repository: String,
}

impl Place {
    pub(crate) fn new(registry: &str, repository: &str) -> Place {
        Place { registry: registry.to_owned(), repository: repository.to_owned() }
    }

    /// Who is spoken to: Docker Hub's registry has another name than its references.
    pub(crate) fn host(&self) -> &str {
        if self.registry == "docker.io" { "registry-1.docker.io" } else { &self.registry }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// One request to a registry, before it is known where the registry is and what it wants.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) scopes: Scopes,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body<'a>,
    pub(crate) retry: bool,
    pub(crate) on_retry: Option<&'a dyn Fn(&str)>,
    /// Whether a 401 is worth a further token.
    pub(crate) answers_401: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Below `/v2/REPOSITORY/`.
    Path(String),
    /// Where a `Location` pointed.
    Url(String),
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, target: Target, scopes: Scopes) -> Call<'a> {
        Call {
            method,
            target,
            scopes,
            headers: Vec::new(),
            body: Body::Empty,
            retry: true,
            on_retry: None,
            answers_401: true,
        }
    }

    pub(crate) fn path(method: Method, path: impl Into<String>, scopes: Scopes) -> Call<'a> {
        Call::new(method, Target::Path(path.into()), scopes)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Call<'a> {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: Body<'a>) -> Call<'a> {
        self.body = body;
        self
    }

    /// The same question, which has no body, at another address.
    fn elsewhere(&self, address: &str) -> Call<'a> {
        Call {
            method: self.method.clone(),
            target: Target::Url(address.to_owned()),
            // Who is asked there says what the token has to be for.
            scopes: Scopes::default(),
            headers: self.headers.clone(),
            body: Body::Empty,
            ..*self
        }
    }

    pub(crate) fn once(mut self) -> Call<'a> {
        self.retry = false;
        self
    }

    pub(crate) fn takes_401_for_an_answer(mut self) -> Call<'a> {
        self.answers_401 = false;
        self
    }

    pub(crate) fn on_retry(mut self, told: &'a dyn Fn(&str)) -> Call<'a> {
        self.on_retry = Some(told);
        self
    }
}

/// An answer, and the request it answers for messages.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) request: String,
}

pub(crate) struct Client {
    pub(crate) net: Net,
    pub(crate) credentials: Credentials,
    plain_http_to_private_hosts: bool,
    /// `http` or `https`, by host, where both are allowed; locked while it is found out.
    schemes: Mutex<HashMap<String, Arc<Mutex<Option<&'static str>>>>>,
    challenges: Mutex<HashMap<String, Challenge>>,
    /// By token server, and locked while one is asked: uploads that start together need one token, not one each.
    tokens: Mutex<HashMap<String, Arc<Mutex<Tokens>>>>,
}

type Tokens = HashMap<TokenKey, Token>;

/// A handshake that takes longer has not failed, but plain HTTP is tried meanwhile.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);

/// The value of an `Authorization` header.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Authorization(Secret);

impl Client {
    pub(crate) fn new(net: Net, credentials: Credentials, plain_http_to_private_hosts: bool) -> Client {
        let (schemes, challenges, tokens) = (Mutex::default(), Mutex::default(), Mutex::default());
        Client { net, credentials, plain_http_to_private_hosts, schemes, challenges, tokens }
    }

    /// Sends `call`, answers one 401, and gives back an answer of any other status.
    ///
    /// Where the registry redirects to another one, that one's 401 is answered too, with the login for that one.
    pub(crate) fn send(&self, place: &Place, call: &Call<'_>) -> Result<Answer, Failure> {
        let answer = self.send_to(place, call)?;
        let asks = answer.response.status == 401 && call.answers_401 && matches!(call.body, Body::Empty);
        if !asks || answered_at(place.host(), &answer.response) {
            return Ok(answer);
        }
        let address = answer.response.final_url.clone();
        let Some(host) = Url::parse(&address).ok().and_then(|url| host_and_port(&url)) else { return Ok(answer) };
        drop(answer);
        self.send_to(&Place::new(&host, &place.repository), &call.elsewhere(&address))
    }

    fn send_to(&self, place: &Place, call: &Call<'_>) -> Result<Answer, Failure> {
        let url = self.url(place, &call.target)?;
        let request = format!("{} {}", call.method, shown(&url));
        if !is_at(place.host(), &url) {
            let response = self.attempt(&url, call, None)?;
            return Ok(Answer { response, request });
        }
        let first = self.known_authorization(place, &url, &call.scopes)?;
        let response = self.attempt(&url, call, first.as_ref())?;
        if response.status != 401 || !call.answers_401 || !answered_at(place.host(), &response) {
            return Ok(Answer { response, request });
        }
        let Some(second) = self.authorize(place, &url, &call.scopes, &response, first.as_ref())? else {
            return Err(self.refused(place, Answer { response, request }));
        };
        drop(response);
        let response = self.attempt(&url, call, Some(&second))?;
        match response.status {
            401 if answered_at(place.host(), &response) => Err(self.refused(place, Answer { response, request })),
            _ => Ok(Answer { response, request }),
        }
    }

    /// The failure that `answer` is, with a hint on credentials where they matter.
    pub(crate) fn refused(&self, place: &Place, answer: Answer) -> Failure {
        let failure = Failure::from_answer(answer.request, answer.response);
        match failure.kind {
            FailureKind::Unauthorized | FailureKind::Denied => failure.hint(self.credentials_hint(place)),
            _ => failure,
        }
    }

    /// Where the credentials for `place` came from, or where they were looked for.
    pub(crate) fn credentials_hint(&self, place: &Place) -> String {
        let look_up = self.credentials.look_up(&place.registry, &place.repository);
        let problems: String = look_up.problems.iter().map(|problem| format!("; {problem}")).collect();
        let labels = self.credentials.labels();
        match look_up.found {
            Some(found) => format!("credentials came from {}{problems}", found.entry),
            None if labels.is_empty() => format!("no credentials were given for `{}`", place.registry),
            None => format!("no credentials for `{}` in {}{problems}", place.registry, labels.join(", ")),
        }
    }

    fn attempt(&self, url: &Url, call: &Call<'_>, authorization: Option<&Authorization>) -> Result<Response, NetError> {
        let mut request = Request::new(call.method.clone(), url.as_str());
        for (name, value) in &call.headers {
            request = request.header(name, value)?;
        }
        if let Some(Authorization(value)) = authorization {
            request = request.header("authorization", value.reveal())?;
        }
        request.retry = call.retry;
        request.on_retry = call.on_retry;
        let blob = matches!(call.body, Body::Stream { .. }) || url.path().contains("/blobs/sha");
        request.http1 = blob;
        request.body = match &call.body {
            Body::Empty => Body::Empty,
            Body::Bytes(bytes) => Body::Bytes(bytes.clone()),
            Body::Stream { length, open } => Body::Stream { length: *length, open: *open },
        };
        self.net.send(&request)
    }

    fn url(&self, place: &Place, target: &Target) -> Result<Url, Failure> {
        let invalid = |text: &str, e: url::ParseError| {
            let reason = format!("`{}` gave an invalid address: {e}", place.host());
            Failure::new(FailureKind::Unexpected, reason, format!("`{}`", auth::one_line(text)))
        };
        match target {
            Target::Path(path) => {
                let text = format!("{}://{}/v2/{}/{path}", self.scheme(place.host())?, place.host(), place.repository);
                Url::parse(&text).map_err(|e| invalid(&text, e))
            }
            Target::Url(text) => {
                let mut url = Url::parse(text).map_err(|e| invalid(text, e))?;
                // A registry behind a proxy that ends TLS often believes that it is spoken to over plain HTTP.
                if url.scheme() == "http"
                    && url.port().is_none()
                    && is_at(place.host(), &url)
                    && self.scheme(place.host())? == "https"
                {
                    let _ = url.set_scheme("https");
                }
                Ok(url)
            }
        }
    }

    /// Whether plain HTTP will do for `host` where it has no HTTPS.
    pub(crate) fn allows_plain_http(&self, host: &str) -> bool {
        self.net.settings().allows_plain_http(host)
            || is_loopback(host)
            || (self.plain_http_to_private_hosts && is_private(host))
    }

    /// HTTPS; where plain HTTP is allowed too, what the host turns out to speak.
    fn scheme(&self, host: &str) -> Result<&'static str, Failure> {
        if !self.allows_plain_http(host) {
            return Ok("https");
        }
        let known = locked(&self.schemes).entry(host.to_owned()).or_default().clone();
        let mut known = locked(&known);
        match *known {
            Some(scheme) => Ok(scheme),
            None => Ok(known.insert(self.probe(host)?)),
        }
    }

    /// A host that speaks TLS is an error and not plain HTTP when its certificate is bad or the handshake fails: somebody who
    /// breaks TLS must not be sent credentials for it.
    fn probe(&self, host: &str) -> Result<&'static str, NetError> {
        let secure = self.ask_over_tls(host);
        let early = match secure.recv_timeout(HANDSHAKE_PATIENCE) {
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(NetError::Cancelled),
            Ok(Ok(())) => return Ok("https"),
            Ok(Err(error)) if matches!(error.kind(), None | Some(Kind::Certificate)) => return Err(error),
            Ok(Err(error)) => Some(error),
        };
        let is_plain_text = early.as_ref().is_some_and(|error| error.kind() == Some(Kind::PlainHttp));
        let plain = self.net.send(&Request::get(format!("http://{host}/v2/")));
        match &plain {
            // A port that leads from the one to the other.
            Ok(answer) if answer.final_url.starts_with("https:") && answered_at(host, answer) => return Ok("https"),
            // 400 is what servers of TLS say to plain text.
            Ok(answer) if is_plain_text || answer.status != 400 => return Ok("http"),
            Ok(_) | Err(_) => {}
        }
        let late = || secure.recv().unwrap_or(Err(NetError::Cancelled));
        match (early.map_or_else(late, Err), plain) {
            (Ok(()), _) => Ok("https"),
            (Err(secure), Err(plain)) if secure.kind() != Some(Kind::Tls) => Err(plain),
            (Err(secure), _) => Err(secure),
        }
    }

    /// Asks `host` over TLS in a thread of its own: a server that waits for the end of a request in plain text never answers
    /// a handshake.
    fn ask_over_tls(&self, host: &str) -> mpsc::Receiver<Result<(), NetError>> {
        let (sender, receiver) = mpsc::channel();
        let ask = {
            let (net, url, sender) = (self.net.clone(), format!("https://{host}/v2/"), sender.clone());
            move || {
                // Who has asked may have gone.
                let _ = sender.send(net.send(&Request::get(url).once()).map(drop));
            }
        };
        if spawn::thread_now("probe", ask.clone()).is_err() {
            // No thread to be had.
            ask();
        }
        receiver
    }

    /// The authorisation for a registry that has asked for one before.
    fn known_authorization(&self, place: &Place, url: &Url, scopes: &Scopes) -> Result<Option<Authorization>, Failure> {
        let Some(challenge) = locked(&self.challenges).get(place.host()).cloned() else { return Ok(None) };
        self.answer_challenge(place, url, scopes, &challenge, None)
    }

    /// What to send after `response` (a 401) to a request that had `used`; none when there is nothing else to try.
    fn authorize(
        &self,
        place: &Place,
        url: &Url,
        scopes: &Scopes,
        response: &Response,
        used: Option<&Authorization>,
    ) -> Result<Option<Authorization>, Failure> {
        let Some(challenge) = Challenge::from_headers(&response.headers) else { return Ok(None) };
        // The scope is that of this request and of no other.
        locked(&self.challenges).insert(place.host().to_owned(), challenge.clone().without_scope());
        if used.is_some() {
            self.credentials.forget_answers();
        }
        let fresh = self.answer_challenge(place, url, scopes, &challenge, used)?;
        // What was refused once is not offered again.
        Ok(fresh.filter(|fresh| Some(fresh) != used))
    }

    fn answer_challenge(
        &self,
        place: &Place,
        url: &Url,
        scopes: &Scopes,
        challenge: &Challenge,
        used: Option<&Authorization>,
    ) -> Result<Option<Authorization>, Failure> {
        let found = self.credentials.look_up(&place.registry, &place.repository).found;
        match (challenge, found.map(|f| f.login)) {
            (_, Some(Login::Registry { token })) => {
                Ok(Some(Authorization(Secret::new(format!("Bearer {}", token.reveal())))))
            }
            (Challenge::Basic, Some(Login::Basic { username, password })) => {
                Ok(Some(Authorization(token::basic(&username, &password))))
            }
            (Challenge::Basic, Some(Login::Identity { .. }) | None) => Ok(None),
            (Challenge::Bearer { realm, service, scope }, login) => {
                let key = TokenKey { realm: realm.clone(), service: service.clone(), scopes: scopes.clone(), login };
                let token = self.token(place, url, key, scope.as_deref(), used)?;
                Ok(Some(Authorization(Secret::new(format!("Bearer {}", token.reveal())))))
            }
        }
    }

    /// The token for `key`: the one we have, unless it is old or is the one in `used`, which was refused.
    fn token(
        &self,
        place: &Place,
        url: &Url,
        key: TokenKey,
        asked: Option<&str>,
        used: Option<&Authorization>,
    ) -> Result<Secret, Failure> {
        let tokens = locked(&self.tokens).entry(key.realm.clone()).or_default().clone();
        let mut tokens = locked(&tokens);
        let refused = |token: &Token| used.is_some_and(|u| *u.0.reveal() == format!("Bearer {}", token.value.reveal()));
        if let Some(token) = tokens.get(&key).filter(|token| token.is_fresh() && !refused(token)) {
            return Ok(token.value.clone());
        }
        let fetch = token::Fetch { client: self, key: &key, asked, registry: url };
        let token = fetch.run().map_err(|failure| match failure.kind {
            FailureKind::Unauthorized | FailureKind::Denied => failure.hint(self.credentials_hint(place)),
            _ => failure,
        })?;
        let value = token.value.clone();
        tokens.insert(key, token);
        Ok(value)
    }
}

/// Whether `url` is at `host` (`host` or `host:port`): only there does an `Authorization` go.
fn is_at(host: &str, url: &Url) -> bool {
    let Ok(own) = Url::parse(&format!("{}://{host}/", url.scheme())) else { return false };
    own.host() == url.host() && own.port_or_known_default() == url.port_or_known_default()
}

/// Whether `response` came from `host`, and not from where that redirected to.
fn answered_at(host: &str, response: &Response) -> bool {
    Url::parse(&response.final_url).is_ok_and(|url| is_at(host, &url))
}

/// `host` or `host:port`
pub(crate) fn host_and_port(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Without query: an upload's holds a state that is worth a password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_be_spoken_to_over_plain_http() {
        let client = |private| {
            let net = Net::new(net::Settings::new("test")).unwrap();
            Client::new(net, Credentials::anonymous(), private)
        };
        for (host, always, as_kaniko) in [
            ("localhost:5000", true, true),
            ("127.0.0.1", true, true),
            ("192.168.1.1:5000", false, true),
            ("registry.local", false, true),
            ("registry.example", false, false),
            ("8.8.8.8:5000", false, false),
        ] {
            let got = (client(false).allows_plain_http(host), client(true).allows_plain_http(host));
            assert_eq!(got, (always, as_kaniko), "{host}");
        }
    }
}
