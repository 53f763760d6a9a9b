//! Sources in their order.
//!
//! Sources are asked in the order in which they were added, and none hides the entries that another has for other
//! registries.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::answers::Answers;
use crate::config::{Entries, Entry, File};
use crate::helper::{Assigned, Helpers};
use crate::key::Key;
use crate::login::{Credential, Login};
use crate::source::{AuthError, CredentialSource};
use crate::variables::Variables;

/// Looks up logins. Cheap to clone; clones share what was answered.
#[derive(Clone)]
pub struct Credentials {
    sources: Vec<Listed>,
    /// What could not be read and may have held the login that is missing: clauses for messages.
    unreadable: Vec<String>,
    helpers: Helpers,
}

#[derive(Clone)]
struct Listed {
    source: Arc<dyn CredentialSource>,
    /// By registry and repository. None for a source that answers from memory, or remembers for itself.
    answers: Option<Answers<(String, String)>>,
}

impl Listed {
    fn ask(&self, registry: &str, repository: &str) -> Result<Option<Credential>, AuthError> {
        let ask = || self.source.login(registry, repository);
        match &self.answers {
            Some(answers) => answers.get((registry.to_owned(), repository.to_owned()), ask),
            None => ask(),
        }
    }
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

impl Credentials {
    /// No login for anything.
    pub fn anonymous() -> Credentials {
        Credentials { sources: Vec::new(), unreadable: Vec::new(), helpers: Helpers::default() }
    }

    /// Adds a source of any kind. What it answers is used until the credential expires; what says nothing of its end, for ten
    /// minutes.
    pub fn add_source(&mut self, source: Arc<dyn CredentialSource>) {
        self.sources.push(Listed { source, answers: Some(Answers::default()) });
    }

    /// Adds a Docker `config.json` or containers `auth.json`, given as text. `label` says in messages where it came from, and is
    /// shown as it is: put a path in backticks.
    ///
    /// # Errors
    /// [`AuthError::Config`] when it is not JSON of that shape. An entry that cannot be decoded is reported when it is
    /// needed. An empty text is an empty file.
    pub fn add_config(&mut self, text: &str, label: &str) -> Result<(), AuthError> {
        let file = File::parse(text).map_err(|problem| AuthError::Config {
            name: label.to_owned(),
            reason: format!("not the JSON of a Docker configuration ({problem})"),
        })?;
        // Where the helper has no answer, the file may have one.
        self.add_assigned(file.helpers, file.store, label);
        self.add_plain(Entries { name: label.to_owned(), entries: file.entries });
        Ok(())
    }

    /// Tells of `problem` (a clause) wherever a login is missing: it was in the way of finding one.
    pub fn add_unreadable(&mut self, problem: &str) {
        self.unreadable.push(problem.to_owned());
    }

    /// Adds one login: for a registry (`registry.example`, `host:5000`, `docker.io`) or everything below a prefix
    /// (`registry.example/team`).
    pub fn add_login(&mut self, prefix: &str, login: Login, label: &str) {
        let entries = vec![Entry { key: Key::parse(prefix), login: Ok(login) }];
        self.add_plain(Entries { name: label.to_owned(), entries });
    }

    /// Adds a credential helper (`ecr-login`) for a registry, as `credHelpers` does.
    pub fn add_helper(&mut self, prefix: &str, helper: &str, label: &str) {
        self.add_assigned(vec![(Key::parse(prefix), helper.to_owned())], None, label);
    }

    /// Adds the logins that environment variables hold: `PREFIX_REGISTRY_EXAMPLE_USER` and `…_PASSWORD`, for a prefix such
    /// as `KANIKO`. Of `variables`, which may be the whole environment, only these are kept.
    ///
    /// The registry's name is in upper case with `_` for what is no letter or digit, with its port, without, or without
    /// some of its first labels: `EXAMPLE` serves `registry.example`. Docker Hub is `INDEX_DOCKER_IO` or an end of that.
    pub fn add_variables(&mut self, prefix: &str, variables: impl IntoIterator<Item = (String, String)>) {
        if let Some(variables) = Variables::of(prefix, variables) {
            self.add_plain(variables);
        }
    }

    fn add_assigned(&mut self, by_key: Vec<(Key, String)>, store: Option<String>, label: &str) {
        self.add_plain(Assigned { name: label.to_owned(), by_key, store, helpers: self.helpers.clone() });
    }

    fn add_plain(&mut self, source: impl CredentialSource + 'static) {
        self.sources.push(Listed { source: Arc::new(source), answers: None });
    }

    /// Looks for helpers in `directories` before `PATH`.
    pub fn set_helper_directories(&mut self, directories: Vec<PathBuf>) {
        self.helpers.set_directories(directories);
    }

    /// How long a helper may take before it is killed; 30 seconds unless told.
    pub fn set_helper_timeout(&mut self, timeout: Duration) {
        self.helpers.set_timeout(timeout);
    }

    /// The login for `repository` of `registry` (`docker.io` is Docker Hub), of the first source that has one.
    ///
    /// Within one file: a helper named for the registry, or else the `credsStore` helper (docker/cli
    /// `getConfiguredCredentialStore`), then the longest entry of `auths` that is a prefix of `registry/repository`.
    pub fn look_up(&self, registry: &str, repository: &str) -> LookUp {
        let mut problems = Vec::new();
        for listed in &self.sources {
            match listed.ask(registry, repository) {
                Ok(None) => {}
                Ok(Some(Credential { login, entry, .. })) => {
                    let entry = entry.unwrap_or_else(|| listed.source.name().to_owned());
                    return LookUp { found: Some(Found { login, entry }), problems };
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems.extend_from_slice(&self.unreadable);
        LookUp { found: None, problems }
    }

    /// Forgets what was answered: it has been refused.
    pub fn forget_answers(&self) {
        self.helpers.forget();
        self.sources.iter().filter_map(|listed| listed.answers.as_ref()).for_each(Answers::forget);
    }

    /// For messages: where a login was looked for.
    pub fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = self.sources.iter().map(|listed| listed.source.name()).collect();
        labels.dedup();
        labels
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.labels()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::testing::{auths, config, word};

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
}
