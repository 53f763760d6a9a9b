//! Where logins come from: the seam.

use crate::login::Credential;

/// A place that logins come from. It may take its time: a list that has it asks again only when an answer is old.
pub trait CredentialSource: Send + Sync {
    /// What it is called in messages, shown as it is: `` `~/.docker/config.json` ``, `variable X`.
    fn name(&self) -> &str;

    /// The login for `repository` of `registry` (`registry.example`, `host:5000`; `docker.io` is Docker Hub). None where the
    /// source has nothing for it.
    ///
    /// # Errors
    /// The source may have a login, and could not give it. The error names the source.
    fn login(&self, registry: &str, repository: &str) -> Result<Option<Credential>, AuthError>;
}

/// Why there is no login. Each names what failed, and shows nothing that may be a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// A text is no configuration.
    #[error("could not read the credentials in {name}: {reason}")]
    Config { name: String, reason: String },
    #[error("entry `{entry}` of {name} is unusable: {reason}")]
    Entry { name: String, entry: String, reason: String },
    #[error("`{}` is no name of a credential helper", .name.escape_debug())]
    HelperName { name: String },
    /// `reason` is what follows the name: `is not installed`.
    #[error("credential helper `{program}` {reason}")]
    Helper { program: String, reason: String },
    /// Any other source.
    #[error("{name} gave no credentials: {reason}")]
    Source { name: String, reason: String },
}

impl AuthError {
    /// The error of a source that is called `name`. `reason` may be another's text.
    pub fn of(name: &str, reason: &str) -> AuthError {
        AuthError::Source { name: name.to_owned(), reason: one_line(reason) }
    }
}

/// Somebody else's text for a message: one line, no control characters, not endless.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_control() || c == ' ').filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(400) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}
