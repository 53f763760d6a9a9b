//! What a 401 asks for: RFC 7235 challenges, and the scopes of Docker's token specification.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// How a registry wants to be told who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Challenge {
    Basic,
    /// A token from `realm` (a URL), for `service`; `scope` where the registry says which.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge to answer: a token rather than a password where both are offered; none when there is no challenge that
    /// we understand.
    pub fn from_headers(headers: &HeaderMap) -> Option<Challenge> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<Challenge> = values.flat_map(Challenge::parse).collect();
        all.iter().find(|c| matches!(c, Challenge::Bearer { .. })).or(all.first()).cloned()
    }

    /// The challenges in one header value that we understand; what follows a syntax error is not seen.
    pub fn parse(value: &str) -> Vec<Challenge> {
        let parsed = http_auth::ChallengeParser::new(value).map_while(Result::ok);
        parsed.filter_map(|challenge| Challenge::understand(&challenge)).collect()
    }

    pub(crate) fn without_scope(self) -> Challenge {
        match self {
            Challenge::Bearer { realm, service, .. } => Challenge::Bearer { realm, service, scope: None },
            Challenge::Basic => Challenge::Basic,
        }
    }

    fn understand(challenge: &http_auth::ChallengeRef<'_>) -> Option<Challenge> {
        let parameter = |wanted: &str| {
            let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.to_unescaped()).filter(|text| !text.is_empty())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service"), scope: parameter("scope") })
    }
}

/// What a token is to allow: actions by `type:name`.
///
/// Its text form is sorted, so that it can be a key. Docker «Token Scope Documentation».
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    pub(crate) fn pull(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull"])
    }

    pub(crate) fn push(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull", "push"])
    }

    pub(crate) fn and(mut self, repository: &str, actions: &[&str]) -> Scopes {
        let entry = self.0.entry(format!("repository:{repository}")).or_default();
        entry.extend(actions.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Adds what a challenge asks for: scopes separated by spaces.
    pub(crate) fn with(mut self, asked: Option<&str>) -> Scopes {
        for scope in asked.unwrap_or_default().split_ascii_whitespace() {
            if let Some((resource, actions)) = scope.rsplit_once(':') {
                self.0.entry(resource.to_owned()).or_default().extend(actions.split(',').map(str::to_owned));
            }
        }
        self
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges() {
        let cases: &[(&[&str], Option<Challenge>)] = &[
            (&[r#"Basic realm="Registry""#], Some(Challenge::Basic)),
            (&[r#"BASIC realm=x"#], Some(Challenge::Basic)),
            (
                &[r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#],
                Some(bearer("https://auth.example/token", Some("r.example"), Some("repository:a/b:pull,push"))),
            ),
            (&[r#"bearer realm="https://a/t""#], Some(bearer("https://a/t", None, None))),
            (
                &[r#"Basic realm="x", Bearer realm="https://a/t",service="s""#],
                Some(bearer("https://a/t", Some("s"), None)),
            ),
            (&[r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#], Some(bearer("https://a/t", None, None))),
            (&[r#"Bearer realm="https://a/\"t""#], Some(bearer("https://a/\"t", None, None))),
            (&[r#"Bearer service="no realm""#], None),
            (&["Negotiate"], None),
            (&["Bearer realm=\"unterminated"], None),
            (&[""], None),
            (&[], None),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
            }
            assert_eq!(&Challenge::from_headers(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn scopes_are_merged_and_sorted() {
        let scopes =
            Scopes::push("b").and("a", &["pull"]).with(Some("repository:b:delete registry:catalog:* nonsense"));
        let texts: Vec<String> = scopes.texts().collect();
        assert_eq!(texts, ["registry:catalog:*", "repository:a:pull", "repository:b:delete,pull,push"]);
    }
}
