//! A login, and how long it holds.

use std::time::Instant;

use crate::secret::Secret;

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

/// A login as a source gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    pub login: Login,
    /// The source has to be asked again then. None where it does not say.
    pub expires: Option<Instant>,
    /// Where exactly it came from, for messages: `` `config.json`, entry `registry.example` ``. None where the name of the
    /// source says all.
    pub entry: Option<String>,
}

impl Credential {
    pub fn new(login: Login) -> Credential {
        Credential { login, expires: None, entry: None }
    }

    pub fn expires_at(mut self, expires: Instant) -> Credential {
        self.expires = Some(expires);
        self
    }

    pub fn from_entry(mut self, entry: impl Into<String>) -> Credential {
        self.entry = Some(entry.into());
        self
    }
}
