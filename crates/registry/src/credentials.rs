//! Who we are to which registry: Docker's `config.json`, containers' `auth.json`, credential helpers, and what the caller
//! took from elsewhere.
//!
//! Sources are asked in the order in which they were added, and none hides the entries that another has for other
//! registries. Nothing here finds files or reads the environment: texts come in.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::go_json::{self, Object};
use crate::helper::Runner;
use crate::secret::Secret;

/// What Docker writes as key for Docker Hub, and what helpers are asked with.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How long a helper's answer is used without asking again. ECR's live for hours, GCR's for one.
const HELPER_ANSWER_LIFE: Duration = Duration::from_secs(600);

/// As lenient as Go's decoders are together: with and without padding, and whatever the last bits are.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Looks up logins. Cheap to clone; clones share what helpers answered.
#[derive(Clone, Debug)]
pub struct Credentials {
    sources: Vec<Source>,
    /// What could not be read and may have held the login that is missing: clauses for messages.
    unreadable: Vec<String>,
    runner: Runner,
    answers: Arc<Mutex<HashMap<(String, String), Answered>>>,
}

#[derive(Clone, Debug)]
struct Answered {
    at: Instant,
    result: Result<Option<Login>, String>,
}

#[derive(Clone, Debug, Default)]
struct Source {
    /// For messages: `` `~/.docker/config.json` ``, `variable KANIKO_…`.
    label: String,
    helpers: Vec<(Key, String)>,
    store: Option<String>,
    logins: Vec<Entry>,
    /// By the registry's part of a variable's name: `REGISTRY_EXAMPLE`.
    variables: BTreeMap<String, Login>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    login: Result<Login, String>,
}

/// How to prove who we are.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Login {
    Basic {
        username: String,
        password: Secret,
    },
    /// A refresh token for the token server (`identitytoken`).
    Identity {
        token: Secret,
    },
    /// A bearer token for the registry itself (`registrytoken`).
    Registry {
        token: Secret,
    },
}

/// A login and where it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub login: Login,
    /// `` `~/.docker/config.json`, entry `registry.example` ``
    pub entry: String,
}

/// What a look-up gave: perhaps a login, and what went wrong on the way to it (clauses for messages).
#[derive(Clone, Debug, Default)]
pub struct LookUp {
    pub found: Option<Found>,
    pub problems: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("could not read the credentials in {label}: {reason}")]
    Parse { label: String, reason: String },
}

impl Credentials {
    /// No login for anything.
    pub fn anonymous() -> Credentials {
        let runner = Runner { directories: Vec::new(), timeout: Duration::from_secs(30) };
        Credentials { sources: Vec::new(), unreadable: Vec::new(), runner, answers: Arc::default() }
    }

    /// Adds a Docker `config.json` or containers `auth.json`, given as text. `label` says in messages where it came from, and is
    /// shown as it is: put a path in backticks.
    ///
    /// # Errors
    /// [`CredentialsError::Parse`] when it is not JSON of that shape. An entry that cannot be decoded is reported when it is
    /// needed. An empty text is an empty file.
    pub fn add_config(&mut self, text: &str, label: &str) -> Result<(), CredentialsError> {
        let source = Source::parse(text, label).map_err(|problem| CredentialsError::Parse {
            label: label.to_owned(),
            reason: format!("not the JSON of a Docker configuration ({problem})"),
        })?;
        self.sources.push(source);
        Ok(())
    }

    /// Tells of `problem` (a clause) wherever a login is missing: it was in the way of finding one.
    pub fn add_unreadable(&mut self, problem: &str) {
        self.unreadable.push(problem.to_owned());
    }

    /// Adds one login: for a registry (`registry.example`, `host:5000`, `docker.io`) or everything below a prefix
    /// (`registry.example/team`).
    pub fn add_login(&mut self, prefix: &str, login: Login, label: &str) {
        let entry = Entry { key: Key::parse(prefix), login: Ok(login) };
        self.sources.push(Source { label: label.to_owned(), logins: vec![entry], ..Source::default() });
    }

    /// Adds a credential helper (`ecr-login`) for a registry, as `credHelpers` does.
    pub fn add_helper(&mut self, prefix: &str, helper: &str, label: &str) {
        let helpers = vec![(Key::parse(prefix), helper.to_owned())];
        self.sources.push(Source { label: label.to_owned(), helpers, ..Source::default() });
    }

    /// Adds the logins that environment variables hold: `PREFIX_REGISTRY_EXAMPLE_USER` and `…_PASSWORD`, for a prefix such
    /// as `KANIKO`. Of `variables`, which may be the whole environment, only these are kept.
    ///
    /// The registry's name is in upper case with `_` for what is no letter or digit, with its port, without, or without
    /// some of its first labels: `EXAMPLE` serves `registry.example`. Docker Hub is `INDEX_DOCKER_IO` or an end of that.
    pub fn add_variables(&mut self, prefix: &str, variables: impl IntoIterator<Item = (String, String)>) {
        let all: BTreeMap<String, String> = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let named = all.iter().filter_map(|(name, username)| {
            let registry = name.strip_prefix(prefix)?.strip_prefix('_')?.strip_suffix("_USER")?;
            let password = Secret::new(all.get(&format!("{prefix}_{registry}_PASSWORD"))?.as_str());
            Some((registry.to_owned(), Login::Basic { username: username.clone(), password }))
        });
        let variables: BTreeMap<String, Login> = named.collect();
        if !variables.is_empty() {
            let label = format!("variables `{prefix}_…_USER`");
            self.sources.push(Source { label, variables, ..Source::default() });
        }
    }

    /// Looks for helpers in `directories` before `PATH`.
    pub fn set_helper_directories(&mut self, directories: Vec<PathBuf>) {
        self.runner.directories = directories;
    }

    /// How long a helper may take before it is killed; 30 seconds unless told.
    pub fn set_helper_timeout(&mut self, timeout: Duration) {
        self.runner.timeout = timeout;
    }

    /// The login for `repository` of `registry` (as in [`oci::Reference`]: `docker.io` is Docker Hub).
    ///
    /// Within one source: a helper named for the registry, or else the `credsStore` helper (docker/cli
    /// `getConfiguredCredentialStore`), then the longest entry of `auths` that is a prefix of `registry/repository`.
    pub fn look_up(&self, registry: &str, repository: &str) -> LookUp {
        let mut problems = Vec::new();
        for source in &self.sources {
            if let Some(found) = self.look_in(source, registry, repository, &mut problems) {
                return LookUp { found: Some(found), problems };
            }
        }
        problems.extend_from_slice(&self.unreadable);
        LookUp { found: None, problems }
    }

    /// Forgets what helpers answered: their tokens have been refused.
    pub(crate) fn forget_answers(&self) {
        self.answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }

    /// For messages: where a login was looked for.
    pub(crate) fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = self.sources.iter().map(|s| s.label.as_str()).collect();
        labels.dedup();
        labels
    }

    fn look_in(&self, source: &Source, registry: &str, repository: &str, problems: &mut Vec<String>) -> Option<Found> {
        let named = best(source.helpers.iter().map(|(key, name)| (key, name)), registry, repository);
        // A registry whose helper has no name is one of whose logins no helper knows.
        if let Some(helper) = named.or(source.store.as_ref()).filter(|helper| !helper.is_empty()) {
            match self.ask(helper, &server(registry)) {
                Ok(None) => {}
                Ok(Some(login)) => {
                    return Some(Found { login, entry: format!("{}, credential helper `{helper}`", source.label) });
                }
                Err(problem) => problems.push(problem),
            }
        }
        if let Some((name, login)) = variable_names(registry).find_map(|name| source.variables.get_key_value(&name)) {
            let entry = source.label.replace('…', name);
            return Some(Found { login: login.clone(), entry });
        }
        let entry = best(source.logins.iter().map(|entry| (&entry.key, entry)), registry, repository)?;
        let name = &entry.key.text;
        match &entry.login {
            Ok(login) => Some(Found { login: login.clone(), entry: format!("{}, entry `{name}`", source.label) }),
            Err(problem) => {
                problems.push(format!("entry `{name}` of {} is unusable: {problem}", source.label));
                None
            }
        }
    }

    fn ask(&self, helper: &str, server: &str) -> Result<Option<Login>, String> {
        let key = (helper.to_owned(), server.to_owned());
        // The lock is held while the helper runs: eight uploads need one answer, not eight.
        let mut answers = self.answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(answered) = answers.get(&key).filter(|a| a.at.elapsed() < HELPER_ANSWER_LIFE) {
            return answered.result.clone();
        }
        let result = self.runner.ask(helper, server);
        answers.insert(key, Answered { at: Instant::now(), result: result.clone() });
        result
    }
}

/// How a helper knows `registry`.
fn server(registry: &str) -> String {
    if registry == "docker.io" { HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// How variables may name `registry`, the most particular first.
fn variable_names(registry: &str) -> impl Iterator<Item = String> {
    let host = if registry == "docker.io" { "index.docker.io" } else { registry };
    let name = host.split(':').next().unwrap_or(host);
    let starts = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
    let shorter: Vec<String> = starts.map(|start| name[start..].to_owned()).collect();
    std::iter::once(host.to_owned()).chain(shorter).map(|text| {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    })
}

/// The value whose key is the longest prefix of `registry/repository`, and of those the one that is spelt most like it.
fn best<'a, T>(all: impl Iterator<Item = (&'a Key, T)>, registry: &str, repository: &str) -> Option<T> {
    let matching = all.filter_map(|(key, value)| Some((key.rank(registry, repository)?, value)));
    matching.max_by_key(|(rank, _)| *rank).map(|(_, value)| value)
}

/// What an entry is for: a host, or the repositories of a host below a path.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Key {
    /// As written.
    text: String,
    host: String,
    /// Without slashes at its ends; empty for the whole host.
    path: String,
}

/// How much like the registry's name a key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Spelling {
    /// Another name of the same host: another case, a port that need not be said, an alias of Docker Hub.
    Alias,
    /// The host, with a scheme or a version of the protocol around it.
    Host,
    /// What docker writes for it.
    Exact,
}

impl Key {
    /// `registry.example`, `registry.example/team`, `https://registry.example/v2/`, and the spellings of Docker Hub.
    ///
    /// After a scheme only the host counts (docker/cli `ConvertToHostname`); without one the path does, as in containers'
    /// `auth.json` (containers-auth.json(5)).
    fn parse(text: &str) -> Key {
        let trimmed = text.trim();
        let after_scheme = trimmed.split_once("://").map(|(_, rest)| rest);
        let rest = after_scheme.unwrap_or(trimmed);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let path = if after_scheme.is_some() || matches!(path, "v1" | "v2") { "" } else { path };
        Key { text: text.to_owned(), host: host.to_owned(), path: path.to_owned() }
    }

    /// How well it fits: the longer its path, then the closer its spelling. None where it is for something else.
    fn rank(&self, registry: &str, repository: &str) -> Option<(usize, Spelling)> {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let fits = self.path.is_empty() || repository.strip_prefix(&self.path).is_some_and(below);
        if !fits || plain_host(&self.host) != plain_host(registry) {
            return None;
        }
        let spelling = match () {
            () if self.text == server(registry) => Spelling::Exact,
            () if self.host == registry => Spelling::Host,
            () => Spelling::Alias,
        };
        Some((self.path.len(), spelling))
    }
}

fn plain_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    match host {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" | "hub.docker.com" => {
            "docker.io".to_owned()
        }
        other => other.to_owned(),
    }
}

impl Source {
    fn parse(text: &str, label: &str) -> Result<Source, String> {
        let file = go_json::object(text.as_bytes())?;
        let mut source = Source { label: label.to_owned(), ..Source::default() };
        for (key, entry) in go_json::members(&file, "auths")? {
            let login = match entry {
                Value::Null => None,
                Value::Object(entry) => login_of(entry)?,
                _ => return Err("an entry of `auths` is not an object".to_owned()),
            };
            source.logins.extend(login.map(|login| Entry { key: Key::parse(key), login }));
        }
        for (key, helper) in go_json::members(&file, "credHelpers")? {
            let name = match helper {
                Value::Null => "",
                helper => helper.as_str().ok_or("an entry of `credHelpers` is not text")?,
            };
            source.helpers.push((Key::parse(key), name.to_owned()));
        }
        source.store = go_json::text(&file, "credsStore")?;
        Ok(source)
    }
}

/// The login in an entry of `auths`; none where there is no secret, as Docker leaves them where a helper has it.
///
/// A registry's token goes before one for the token server, as in go-containerregistry and BuildKit.
fn login_of(entry: &Object) -> Result<Option<Result<Login, String>>, String> {
    let text = |name| go_json::text(entry, name);
    let (auth, username, password) = (text("auth")?, text("username")?, text("password")?);
    let (identity, registry) = (text("identitytoken")?, text("registrytoken")?);
    if let Some(token) = registry {
        return Ok(Some(Ok(Login::Registry { token: Secret::new(token) })));
    }
    if let Some(token) = identity {
        return Ok(Some(Ok(Login::Identity { token: Secret::new(token) })));
    }
    if let Some(auth) = auth {
        let decoded = decode(&auth).ok_or_else(|| "`auth` is not the base64 form of `user:password`".to_owned());
        return Ok(Some(decoded));
    }
    let plain = username.zip(password);
    Ok(plain.map(|(username, password)| Ok(Login::Basic { username, password: Secret::new(password) })))
}

fn decode(auth: &str) -> Option<Login> {
    // `base64` of coreutils breaks its lines.
    let unbroken: Vec<u8> = auth.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let text = String::from_utf8(BASE64.decode(unbroken).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker pads what it encodes (docker/cli `decodeAuth`).
    let password = password.trim_matches('\0');
    (!username.is_empty()).then(|| Login::Basic { username: username.to_owned(), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A login in a word: `user:password`, `identity TOKEN`, `registry TOKEN`, `-`.
    fn word(look_up: &LookUp) -> String {
        match look_up.found.as_ref().map(|found| &found.login) {
            None => "-".to_owned(),
            Some(Login::Basic { username, password }) => format!("{username}:{}", password.reveal()),
            Some(Login::Identity { token }) => format!("identity {}", token.reveal()),
            Some(Login::Registry { token }) => format!("registry {}", token.reveal()),
        }
    }

    fn config(text: &str) -> Credentials {
        let mut credentials = Credentials::anonymous();
        credentials.add_config(text, "`config.json`").unwrap();
        credentials
    }

    /// `auths` with one entry, user `u` and password `p`.
    fn auths(key: &str) -> Credentials {
        config(&format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#))
    }

    #[test]
    fn keys_of_auths() {
        let cases = [
            ("registry.example", "registry.example", "app", "u:p"),
            ("Registry.Example", "registry.example", "app", "u:p"),
            ("https://registry.example", "registry.example", "app", "u:p"),
            ("https://registry.example/v2/", "registry.example", "app", "u:p"),
            ("https://registry.example/anything", "registry.example", "app", "u:p"),
            ("http://registry.example:5000/v1/", "registry.example:5000", "app", "u:p"),
            ("registry.example/v2", "registry.example", "app", "u:p"),
            ("registry.example:443", "registry.example", "app", "u:p"),
            ("registry.example", "registry.example:443", "app", "u:p"),
            ("registry.example", "registry.example:5000", "app", "-"),
            ("registry.example:5000", "registry.example", "app", "-"),
            ("example", "registry.example", "app", "-"),
            ("registry.example/team", "registry.example", "team/app", "u:p"),
            ("registry.example/team", "registry.example", "team", "u:p"),
            ("registry.example/team", "registry.example", "teams/app", "-"),
            ("registry.example/team", "registry.example", "app", "-"),
            ("https://index.docker.io/v1/", "docker.io", "library/busybox", "u:p"),
            ("index.docker.io/v1/", "docker.io", "library/busybox", "u:p"),
            ("https://index.docker.io/v2/", "docker.io", "library/busybox", "u:p"),
            ("index.docker.io", "docker.io", "library/busybox", "u:p"),
            ("docker.io", "docker.io", "library/busybox", "u:p"),
            ("https://registry-1.docker.io", "docker.io", "library/busybox", "u:p"),
            ("https://registry.hub.docker.com/", "docker.io", "library/busybox", "u:p"),
            ("docker.io/acme", "docker.io", "library/busybox", "-"),
            ("[::1]:5000", "[::1]:5000", "app", "u:p"),
        ];
        for (key, registry, repository, expected) in cases {
            assert_eq!(word(&auths(key).look_up(registry, repository)), expected, "{key} for {registry}/{repository}");
        }
    }

    #[test]
    fn forms_of_an_entry() {
        let cases = [
            (r#"{"auth":"dTpw"}"#, "u:p"),
            (r#"{"auth":"dTpwOnE="}"#, "u:p:q"),
            (r#"{"auth":"dTpwOnE"}"#, "u:p:q"),
            (r#"{"auth":"dTpwAAA="}"#, "u:p"),
            (r#"{"username":"u","password":"p"}"#, "u:p"),
            (r#"{"auth":"","username":"u","password":"p"}"#, "u:p"),
            (r#"{"auth":"dTo=","identitytoken":"t"}"#, "identity t"),
            (r#"{"auth":"dTpw","identitytoken":""}"#, "u:p"),
            (r#"{"registrytoken":"t"}"#, "registry t"),
            (r#"{"auth":"dTpw","email":"x@y","unknown":[1]}"#, "u:p"),
            (r#"{"registrytoken":"t","identitytoken":"i","auth":"dTpw"}"#, "registry t"),
            (r#"{"username":"u"}"#, "-"),
            (r#"{"AUTH":"dTpw"}"#, "u:p"),
            (r#"{"Auth":"eDp5","auth":"dTpw"}"#, "u:p"),
            (r#"{"UserName":"u","PASSWORD":"p"}"#, "u:p"),
            (r#"{"IdentityToken":"t"}"#, "identity t"),
            (r#"{"auth":null,"username":"u","password":"p"}"#, "u:p"),
            (r#"{"auth":"dTpw","identitytoken":null,"registrytoken":null}"#, "u:p"),
            (r#"{"auth":null,"username":null,"password":null}"#, "-"),
            ("{}", "-"),
            ("null", "-"),
            (r#"{"auth":"???"}"#, "-"),
            (r#"{"auth":"bm9jb2xvbg=="}"#, "-"),
        ];
        for (entry, expected) in cases {
            let credentials = config(&format!(r#"{{"auths":{{"r.example":{entry}}}}}"#));
            assert_eq!(word(&credentials.look_up("r.example", "app")), expected, "{entry}");
        }
    }

    #[test]
    fn base64_in_every_form_that_go_reads() {
        let cases = [
            ("dTpw", "u:p"),
            ("dTpw\\n", "u:p"),
            ("dT\\npw", "u:p"),
            ("dTp\\r\\nw\\r\\n", "u:p"),
            (" dTpw ", "u:p"),
            ("dXNlcjpwYXNz", "user:pass"),
            ("dXNlcjpwYQ==", "user:pa"),
            ("dXNlcjpwYQ", "user:pa"),
            ("dXNlcjpwYQ=\\n=", "user:pa"),
            // Bits behind the last byte that are not zero.
            ("dXNlcjpwYR==", "user:pa"),
            ("dXNlcjo=", "user:"),
            ("dTo6Og==", "u:::"),
            // `u` and the letter `ö`, in UTF-8.
            ("dTrDtg==", "u:ö"),
            ("OnA=", "-"),
            ("dTpw-_", "-"),
            ("d", "-"),
        ];
        for (auth, expected) in cases {
            let credentials = config(&format!(r#"{{"auths":{{"r.example":{{"auth":"{auth}"}}}}}}"#));
            assert_eq!(word(&credentials.look_up("r.example", "app")), expected, "{auth}");
        }
    }

    #[test]
    fn files_in_every_form_that_go_reads() {
        let cases = [
            (r#"{"auths":null}"#, "-"),
            (r#"{"auths":null,"credHelpers":null,"credsStore":null}"#, "-"),
            (r#"{"auths":{},"credHelpers":{},"credsStore":""}"#, "-"),
            (r#"{"auths":{"r.example":null}}"#, "-"),
            (r#"{"Auths":{"r.example":{"auth":"dTpw"}}}"#, "u:p"),
            (r#"{"AUTHS":{"s.example":{}},"auths":{"r.example":{"auth":"dTpw"}}}"#, "u:p"),
            (r#"{"Auths":{"r.example":{"auth":"dTpw"}},"auths":{"s.example":{}}}"#, "u:p"),
            (r#"{"auths":{"r.example":{"auth":"dTpw"}},"credHelpers":{"r.example":null}}"#, "u:p"),
            (r#"{"auths":{"r.example":{"auth":"dTpw"}},"detachKeys":5,"HttpHeaders":[],"plugins":"x"}"#, "u:p"),
            ("{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"}}}\n# end\n", "u:p"),
            ("\u{feff}{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"}}}", "u:p"),
            ("null", "-"),
        ];
        for (text, expected) in cases {
            let look_up = config(text).look_up("r.example", "app");
            assert_eq!(word(&look_up), expected, "{text}");
            assert_eq!(look_up.problems, [""; 0], "{text}");
        }
    }

    #[test]
    fn the_exact_key_goes_before_another_spelling() {
        // Keys with the login that each has, in any order; the registry; whose login is found.
        let cases: &[(&[&str], &str, &str)] = &[
            (&["registry.example", "https://registry.example"], "registry.example", "registry.example"),
            (&["registry.example", "https://registry.example/v2/"], "registry.example", "registry.example"),
            (&["registry.example", "registry.example/"], "registry.example", "registry.example"),
            (&["registry.example", "registry.example:443"], "registry.example", "registry.example"),
            (&["registry.example", "registry.example:443"], "registry.example:443", "registry.example:443"),
            (&["registry.example", "Registry.Example"], "registry.example", "registry.example"),
            (&["https://registry.example", "registry.example:443"], "registry.example", "https://registry.example"),
            (&["http://registry.example", "https://registry.example"], "registry.example", "https://registry.example"),
            (&["r.example:5000", "http://r.example:5000/v1/"], "r.example:5000", "r.example:5000"),
            (&["docker.io", "https://index.docker.io/v1/"], "docker.io", "https://index.docker.io/v1/"),
            (
                &["https://index.docker.io/v2/", "https://index.docker.io/v1/"],
                "docker.io",
                "https://index.docker.io/v1/",
            ),
            (&["registry-1.docker.io", "https://index.docker.io/v1/"], "docker.io", "https://index.docker.io/v1/"),
            (&["index.docker.io", "docker.io"], "docker.io", "docker.io"),
            // A path says more than a spelling.
            (&["registry.example", "registry.example/team"], "registry.example", "registry.example/team"),
            (&["registry.example:443/team", "registry.example"], "registry.example", "registry.example:443/team"),
        ];
        for (keys, registry, expected) in cases {
            let entries: Vec<String> =
                keys.iter().map(|key| format!(r#""{key}":{{"username":"{key}","password":"p"}}"#)).collect();
            for entries in [entries.join(","), entries.iter().rev().cloned().collect::<Vec<_>>().join(",")] {
                let found = config(&format!(r#"{{"auths":{{{entries}}}}}"#)).look_up(registry, "team/app");
                assert_eq!(word(&found), format!("{expected}:p"), "{entries} for {registry}");
            }
        }
    }

    #[test]
    fn what_could_not_be_read_is_told_of_where_a_login_is_missing() {
        let mut credentials = auths("r.example");
        credentials.add_unreadable("could not read `x`");
        assert_eq!(credentials.look_up("s.example", "a").problems, ["could not read `x`"]);
        assert_eq!(credentials.look_up("r.example", "a").problems, [""; 0]);
    }

    #[test]
    fn the_longest_prefix_wins_and_sources_do_not_hide_each_other() {
        let text = r#"{"auths":{"r.example":{"auth":"YTpw"},"r.example/team":{"auth":"Yjpw"},"r.example/team/app":{"auth":"Yzpw"}}}"#;
        let mut credentials = config(text);
        credentials
            .add_config(r#"{"auths":{"r.example":{"auth":"eDpw"},"s.example":{"auth":"eTpw"}}}"#, "second")
            .unwrap();
        let login = Login::Basic { username: "z".to_owned(), password: Secret::new("p") };
        credentials.add_login("t.example", login, "environment variables KANIKO_T_EXAMPLE_USER and _PASSWORD");
        for (registry, repository, expected) in [
            ("r.example", "other", "a:p"),
            ("r.example", "team/x", "b:p"),
            ("r.example", "team/app/sub", "c:p"),
            ("s.example", "x", "y:p"),
            ("t.example", "x", "z:p"),
            ("u.example", "x", "-"),
        ] {
            assert_eq!(word(&credentials.look_up(registry, repository)), expected, "{registry}/{repository}");
        }
        let found = credentials.look_up("r.example", "team/x").found.unwrap();
        assert_eq!(found.entry, "`config.json`, entry `r.example/team`");
    }

    #[test]
    fn variables() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = [
            ("KANIKO_REGISTRY_EXAMPLE_5000", "port"),
            ("KANIKO_REGISTRY_EXAMPLE", "host"),
            ("KANIKO_GITLAB_COM", "domain"),
            ("KANIKO_DOCKER_IO", "hub"),
            ("OTHER_QUAY_IO", "other"),
            ("KANIKO_", "nothing"),
        ];
        let both =
            |(name, user): &(&str, &str)| [pair(&format!("{name}_USER"), user), pair(&format!("{name}_PASSWORD"), "p")];
        let mut credentials = Credentials::anonymous();
        credentials
            .add_variables("KANIKO", environment.iter().flat_map(both).chain([pair("KANIKO_GHCR_IO_USER", "alone")]));
        for (registry, expected) in [
            ("registry.example:5000", "port:p"),
            ("registry.example:5001", "host:p"),
            ("registry.example", "host:p"),
            ("registry.gitlab.com", "domain:p"),
            ("gitlab.com", "domain:p"),
            ("notgitlab.com", "-"),
            ("docker.io", "hub:p"),
            ("quay.io", "-"),
            ("ghcr.io", "-"),
        ] {
            assert_eq!(word(&credentials.look_up(registry, "app")), expected, "{registry}");
        }
        let found = credentials.look_up("registry.gitlab.com", "app").found.unwrap();
        assert_eq!(found.entry, "variables `KANIKO_GITLAB_COM_USER`");
    }

    #[test]
    fn a_broken_entry_is_told_of_when_it_is_needed() {
        let look_up =
            config(r#"{"auths":{"r.example":{"auth":"???"},"s.example":{"auth":"dTpw"}}}"#).look_up("r.example", "a");
        assert_eq!(
            look_up.problems,
            ["entry `r.example` of `config.json` is unusable: `auth` is not the base64 form of `user:password`"]
        );
    }

    #[test]
    fn what_is_no_configuration_is_refused_without_quoting_it() {
        for text in [
            r#"{"auths":"hunter2"}"#,
            "hunter2",
            r#"{"auths":{"a":{"auth":{"x":"hunter2"}}}}"#,
            r#"{"auths":{"a":"hunter2"}}"#,
            r#"{"auths":[]}"#,
            r#"{"credHelpers":{"a":{"hunter2":1}}}"#,
            r#"{"credsStore":["hunter2"]}"#,
            r#"["hunter2"]"#,
            r#"{"auths":{"a":{"auth":"hunter2"}"#,
            "{",
        ] {
            let error = Credentials::anonymous().add_config(text, "`config.json`").unwrap_err().to_string();
            assert!(error.starts_with("could not read the credentials in `config.json`: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        Credentials::anonymous().add_config(" \n", "empty").unwrap();
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", auths("r.example"));
        assert!(shown.contains("[hidden]") && !shown.contains("\"p\""), "{shown}");
    }

    /// A script that another test's child has inherited open for writing cannot be run: who writes and runs them takes turns.
    static HELPERS: Mutex<()> = Mutex::new(());

    /// A directory with one helper, a shell script.
    fn helper(name: &str, script: &str) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(format!("docker-credential-{name}"));
        let text = format!("#!/bin/sh\necho asked >> {}/log\nread server\n{script}\n", directory.path().display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    #[test]
    fn helpers() {
        let _turn = HELPERS.lock();
        let answer = r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"$server\"}""#;
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        let unknown = "echo 'credentials not found in native keychain'; exit 1";
        let store = r#"{"credsStore":"test"}"#;
        let named =
            r#"{"credHelpers":{"r.example":"test"},"auths":{"r.example":{"auth":"dTpw"},"s.example":{"auth":"dTpw"}}}"#;
        let both = r#"{"credsStore":"test","auths":{"r.example":{"auth":"dTpw"}}}"#;
        let none = r#"{"credsStore":"test","credHelpers":{"r.example":""},"auths":{"r.example":{"auth":"dTpw"}}}"#;
        let instead = r#"{"credsStore":"absent","credHelpers":{"https://r.example":"test"}}"#;
        let two = r#"{"credHelpers":{"https://r.example":"absent","r.example":"test"}}"#;
        let cases = [
            (store, answer, "r.example", "u:r.example", None),
            (none, answer, "r.example", "u:p", None),
            (instead, answer, "r.example", "u:r.example", None),
            (instead, unknown, "r.example", "-", None),
            (two, answer, "r.example", "u:r.example", None),
            (store, "echo 'WARNING: old' >&2\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'", "r.example", "u:p", None),
            (
                store,
                "head -c 300000 /dev/zero >&2\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'",
                "r.example",
                "u:p",
                None,
            ),
            (store, r#"echo '{"username":"u","SECRET":"p","ServerURL":null} trailing'"#, "r.example", "u:p", None),
            (store, r#"echo '{"Username":"u","Secret":null}'"#, "r.example", "-", None),
            (store, r#"echo '{"Username":"","Secret":"p"}'"#, "r.example", "-", None),
            (store, r#"echo '{"Username":5,"Secret":"p"}'"#, "r.example", "-", Some("did not answer with JSON")),
            (store, "echo 'credentials not found' >&2; exit 1", "r.example", "-", None),
            (both, "echo 'no key' >&2; exit 1", "r.example", "u:p", Some("`docker-credential-test` failed: no key")),
            (both, "exit 1", "r.example", "u:p", Some("`docker-credential-test` failed: it gave no reason")),
            (store, answer, "docker.io", "u:https://index.docker.io/v1/", None),
            (store, token, "r.example", "identity t", None),
            (store, unknown, "r.example", "-", None),
            (named, answer, "r.example", "u:r.example", None),
            (named, answer, "s.example", "u:p", None),
            (both, unknown, "r.example", "u:p", None),
            (both, "echo broken; exit 3", "r.example", "u:p", Some("`docker-credential-test` failed: broken")),
            (store, "echo nonsense", "r.example", "-", Some("did not answer with JSON")),
            (store, "sleep 20", "r.example", "-", Some("did not answer within 0 s")),
            (r#"{"credsStore":"absent"}"#, "", "r.example", "-", Some("`docker-credential-absent` is not installed")),
            (r#"{"credsStore":"../evil"}"#, "", "r.example", "-", Some("is no name of a credential helper")),
        ];
        for (text, script, registry, expected, problem) in cases {
            let directory = helper("test", script);
            let mut credentials = config(text);
            credentials.set_helper_directories(vec![directory.path().to_owned()]);
            if script.starts_with("sleep") {
                credentials.set_helper_timeout(Duration::from_millis(300));
            }
            let look_up = credentials.look_up(registry, "app");
            assert_eq!(word(&look_up), expected, "{text} {script}: {:?}", look_up.problems);
            match problem {
                Some(problem) => assert!(look_up.problems[0].contains(problem), "{:?}", look_up.problems),
                None => assert_eq!(look_up.problems, [""; 0], "{text} {script}"),
            }
        }
    }

    #[test]
    fn a_helper_is_asked_once_until_its_answer_is_refused() {
        let _turn = HELPERS.lock();
        let directory = helper("test", r#"echo '{"Username":"u","Secret":"p"}'"#);
        let mut credentials = config(r#"{"credsStore":"test"}"#);
        credentials.set_helper_directories(vec![directory.path().to_owned()]);
        let asked = || std::fs::read_to_string(directory.path().join("log")).unwrap().lines().count();
        credentials.look_up("r.example", "a");
        credentials.clone().look_up("r.example", "b");
        assert_eq!(asked(), 1);
        credentials.forget_answers();
        credentials.look_up("r.example", "a");
        assert_eq!(asked(), 2);
    }
}
