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
use serde::Deserialize;

use crate::helper::Runner;
use crate::secret::Secret;

/// What Docker writes as key for Docker Hub, and what helpers are asked with.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How long a helper's answer is used without asking again. ECR's live for hours, GCR's for one.
const HELPER_ANSWER_LIFE: Duration = Duration::from_secs(600);

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Looks up logins. Cheap to clone; clones share what helpers answered.
#[derive(Clone, Debug)]
pub struct Credentials {
    sources: Vec<Source>,
    runner: Runner,
    answers: Arc<Mutex<HashMap<(String, String), Answered>>>,
}

#[derive(Clone, Debug)]
struct Answered {
    at: Instant,
    result: Result<Option<Login>, String>,
}

#[derive(Clone, Debug)]
struct Source {
    /// For messages: `~/.docker/config.json`, `environment variable KANIKO_…`.
    label: String,
    helpers: Vec<(Key, String)>,
    store: Option<String>,
    logins: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    /// As written, for messages.
    name: String,
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
    #[error("could not read the credentials in `{label}`: {reason}")]
    Parse { label: String, reason: String },
}

impl Credentials {
    /// No login for anything.
    pub fn anonymous() -> Credentials {
        let runner = Runner { directories: Vec::new(), timeout: Duration::from_secs(30) };
        Credentials { sources: Vec::new(), runner, answers: Arc::default() }
    }

    /// Adds a Docker `config.json` or containers `auth.json`, given as text. `label` says in messages where it came from.
    ///
    /// # Errors
    /// [`CredentialsError::Parse`] when it is not JSON of that shape. An entry that cannot be decoded is reported when it is
    /// needed. An empty text is an empty file.
    pub fn add_config(&mut self, text: &str, label: &str) -> Result<(), CredentialsError> {
        if text.trim().is_empty() {
            return Ok(());
        }
        // serde's message quotes what it met, which may be a password; line and column do not.
        let file: ConfigFile = serde_json::from_str(text).map_err(|e| CredentialsError::Parse {
            label: label.to_owned(),
            reason: format!("not the JSON of a Docker configuration (line {}, column {})", e.line(), e.column()),
        })?;
        let helpers = file.cred_helpers.into_iter().map(|(key, name)| (Key::parse(&key), name)).collect();
        let logins = file.auths.into_iter().filter_map(|(name, auth)| {
            let login = auth.unwrap_or_default().login()?;
            Some(Entry { key: Key::parse(&name), name, login })
        });
        let store = file.creds_store.filter(|name| !name.is_empty());
        self.sources.push(Source { label: label.to_owned(), helpers, store, logins: logins.collect() });
        Ok(())
    }

    /// Adds one login: for a registry (`registry.example`, `host:5000`, `docker.io`) or everything below a prefix
    /// (`registry.example/team`).
    pub fn add_login(&mut self, prefix: &str, login: Login, label: &str) {
        let entry = Entry { key: Key::parse(prefix), name: prefix.to_owned(), login: Ok(login) };
        self.sources.push(Source { label: label.to_owned(), helpers: Vec::new(), store: None, logins: vec![entry] });
    }

    /// Adds a credential helper (`ecr-login`) for a registry, as `credHelpers` does.
    pub fn add_helper(&mut self, prefix: &str, helper: &str, label: &str) {
        let helpers = vec![(Key::parse(prefix), helper.to_owned())];
        self.sources.push(Source { label: label.to_owned(), helpers, store: None, logins: Vec::new() });
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
    /// Within one source: a helper named for the registry, then the `credsStore` helper, then the longest entry of `auths`
    /// that is a prefix of `registry/repository`.
    pub fn look_up(&self, registry: &str, repository: &str) -> LookUp {
        let mut problems = Vec::new();
        for source in &self.sources {
            if let Some(found) = self.look_in(source, registry, repository, &mut problems) {
                return LookUp { found: Some(found), problems };
            }
        }
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
        let named = longest(source.helpers.iter().map(|(key, name)| (key, name)), registry, repository);
        for helper in named.into_iter().chain(&source.store) {
            match self.ask(helper, &server(registry)) {
                Ok(None) => {}
                Ok(Some(login)) => {
                    return Some(Found { login, entry: format!("`{}`, credential helper `{helper}`", source.label) });
                }
                Err(problem) => problems.push(problem),
            }
        }
        let entry = longest(source.logins.iter().map(|entry| (&entry.key, entry)), registry, repository)?;
        match &entry.login {
            Ok(login) => {
                Some(Found { login: login.clone(), entry: format!("`{}`, entry `{}`", source.label, entry.name) })
            }
            Err(problem) => {
                problems.push(format!("entry `{}` of `{}` is unusable: {problem}", entry.name, source.label));
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

/// The value whose key is the longest prefix of `registry/repository`.
fn longest<'a, T>(all: impl Iterator<Item = (&'a Key, T)>, registry: &str, repository: &str) -> Option<T> {
    let matching = all.filter(|(key, _)| key.matches(registry, repository));
    matching.max_by_key(|(key, _)| key.path.len()).map(|(_, value)| value)
}

/// What an entry is for: a host, or the repositories of a host below a path.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Key {
    host: String,
    /// Without slashes at its ends; empty for the whole host.
    path: String,
}

impl Key {
    /// `registry.example`, `registry.example/team`, `https://registry.example/v2/`, and the spellings of Docker Hub.
    ///
    /// After a scheme only the host counts (docker/cli `ConvertToHostname`); without one the path does, as in containers'
    /// `auth.json` (containers-auth.json(5)).
    fn parse(text: &str) -> Key {
        let text = text.trim();
        let after_scheme = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = after_scheme.unwrap_or(text);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let path = if after_scheme.is_some() || matches!(path, "v1" | "v2") { "" } else { path };
        Key { host: plain_host(host), path: path.to_owned() }
    }

    fn matches(&self, registry: &str, repository: &str) -> bool {
        self.host == plain_host(registry)
            && (self.path.is_empty()
                || repository.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
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

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Option<AuthEntry>>,
    #[serde(rename = "credHelpers", default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore", default)]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
struct AuthEntry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl AuthEntry {
    /// None for an entry without secret, as Docker leaves them where a helper has it.
    fn login(self) -> Option<Result<Login, String>> {
        let filled = |text: Option<String>| text.filter(|t| !t.is_empty());
        if let Some(token) = filled(self.identitytoken) {
            return Some(Ok(Login::Identity { token: Secret::new(token) }));
        }
        if let Some(token) = filled(self.registrytoken) {
            return Some(Ok(Login::Registry { token: Secret::new(token) }));
        }
        if let Some(auth) = filled(self.auth) {
            return Some(decode(&auth).ok_or_else(|| "`auth` is not the base64 form of `user:password`".to_owned()));
        }
        let (username, password) = (filled(self.username)?, filled(self.password)?);
        Some(Ok(Login::Basic { username, password: Secret::new(password) }))
    }
}

fn decode(auth: &str) -> Option<Login> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker pads what it encodes (docker/cli `decodeAuth`).
    let password = password.trim_matches('\0');
    (!username.is_empty()).then(|| Login::Basic { username: username.to_owned(), password: Secret::new(password) })
}
