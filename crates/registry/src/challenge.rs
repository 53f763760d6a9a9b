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
        // A realm may be in any language and any encoding; nobody needs to read it.
        let values = headers.get_all(WWW_AUTHENTICATE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let all: Vec<Challenge> = values.flat_map(|value| Challenge::parse(&value)).collect();
        all.iter().find(|c| matches!(c, Challenge::Bearer { .. })).or(all.first()).cloned()
    }

    /// The challenges in one header value that we understand, as leniently as they are written: with values that should
    /// stand in quotes, without commas, in any case, between schemes that nobody here knows.
    pub fn parse(value: &str) -> Vec<Challenge> {
        let mut understood = Vec::new();
        let mut current = Offer::default();
        let mut rest = value;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',', ';']);
            let (word, after) = split_word(rest);
            if word.is_empty() {
                understood.extend(current.understand());
                return understood;
            }
            match after.trim_start().strip_prefix('=') {
                Some(after) => {
                    let (value, after) = split_value(after.trim_start());
                    current.parameters.push((word, value));
                    rest = after;
                }
                // A word alone is a scheme, or the rest of a list that should stand in quotes.
                None => {
                    if after.starts_with([' ', '\t']) || is_known(word) {
                        understood.extend(std::mem::replace(&mut current, Offer::of(word)).understand());
                    }
                    rest = after;
                }
            }
        }
    }

    pub(crate) fn without_scope(self) -> Challenge {
        match self {
            Challenge::Bearer { realm, service, .. } => Challenge::Bearer { realm, service, scope: None },
            Challenge::Basic => Challenge::Basic,
        }
    }
}

/// A scheme and its parameters, as they stand.
#[derive(Default)]
struct Offer<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl<'a> Offer<'a> {
    fn of(scheme: &'a str) -> Offer<'a> {
        Offer { scheme, parameters: Vec::new() }
    }

    fn understand(self) -> Option<Challenge> {
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameter = |wanted: &str| {
            let found = self.parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service"), scope: parameter("scope") })
    }
}

fn is_known(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("basic") || scheme.eq_ignore_ascii_case("bearer")
}

/// The word at the beginning: up to what separates, joins or quotes.
fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find([' ', '\t', ',', ';', '=', '"']).unwrap_or(text.len()))
}

/// The value of a parameter, and what is behind it. In quotes it ends with them; one whose quotes do not end is none.
/// Without, it ends with the comma, or where another parameter begins: `realm=My Registry service=x`.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let value = &text[..text.find(',').unwrap_or(text.len())];
        let begins_parameter = |at: &usize| {
            let (word, after) = split_word(value[*at..].trim_start());
            !word.is_empty() && after.trim_start().starts_with('=')
        };
        let end = value.match_indices([' ', '\t']).map(|(at, _)| at).find(begins_parameter).unwrap_or(value.len());
        return (value[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (String::new(), "")
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
            // Without quotes, as some write it.
            (&["Basic realm=My Registry"], Some(Challenge::Basic)),
            (&["Basic realm=My Registry, charset=UTF-8"], Some(Challenge::Basic)),
            (&["Basic"], Some(Challenge::Basic)),
            (&["Basic realm"], Some(Challenge::Basic)),
            (&["Basic realm=\"unterminated"], Some(Challenge::Basic)),
            (&["Basic realm=Registre privé"], Some(Challenge::Basic)),
            (&["Bearer realm=https://a/t?x=1,service=s"], Some(bearer("https://a/t?x=1", Some("s"), None))),
            (
                &["Bearer realm=https://a/t service=My Registry scope=x:y:z"],
                Some(bearer("https://a/t", Some("My Registry"), Some("x:y:z"))),
            ),
            (
                &["Bearer realm=https://a/t,scope=repository:a:pull,push,service=s"],
                Some(bearer("https://a/t", Some("s"), Some("repository:a:pull"))),
            ),
            (&["Basic realm=My Registry, Bearer realm=https://a/t"], Some(bearer("https://a/t", None, None))),
            // Odd spacing and case.
            (
                &["  BEARER   Realm = \"https://a/t\" ,\tSERVICE =\"s\"  ,"],
                Some(bearer("https://a/t", Some("s"), None)),
            ),
            (
                &["Bearer realm=\"https://a/t\" service=\"s\" scope=\"x y\""],
                Some(bearer("https://a/t", Some("s"), Some("x y"))),
            ),
            (&["Bearer realm=\"https://a/t\";service=\"s\""], Some(bearer("https://a/t", Some("s"), None))),
            (&["Bearer,realm=\"https://a/t\""], Some(bearer("https://a/t", None, None))),
            (&["Bearer realm=\" https://a/t \",service=\"\""], Some(bearer("https://a/t", None, None))),
            // Schemes that nobody here knows, beside ones that are known.
            (&["Negotiate, Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["Negotiate", "NTLM", "Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["Negotiate YIIab+/Cd==, Bearer realm=\"https://a/t\""], Some(bearer("https://a/t", None, None))),
            (&["Bearer realm=\"https://a/t\", Negotiate"], Some(bearer("https://a/t", None, None))),
            (
                &["Bearer realm=\"https://a/t\", Digest realm=\"d\", nonce=\"n\", Basic realm=b"],
                Some(bearer("https://a/t", None, None)),
            ),
            (&["Digest realm=\"x, Basic\", nonce=\"Bearer realm=y\""], None),
            (
                &["Bearer realm=\"https://a/t\",error=\"invalid_token\",error_description=\"a, b\""],
                Some(bearer("https://a/t", None, None)),
            ),
            (&["Bearer service=\"no realm\", Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["=, =\"\" ,,, =x"], None),
            (&[""], None),
            (&[], None),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
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
