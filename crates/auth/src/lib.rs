//! Credentials: who we are to which registry, and what is never shown.
//!
//! A [`CredentialSource`] is a place that logins come from. [`Credentials`] is a list of them: Docker's `config.json`,
//! containers' `auth.json`, credential helpers, and what the caller took from elsewhere. This crate finds no files, reads no
//! environment and speaks to no server: texts come in, and a source that needs the network is made above.

mod answers;
mod config;
mod credentials;
pub mod go_json;
mod helper;
mod key;
mod login;
mod secret;
mod source;
#[cfg(test)]
mod testing;
mod variables;

pub use credentials::{Credentials, Found, LookUp};
pub use login::{Credential, Login};
pub use secret::Secret;
pub use source::{AuthError, CredentialSource, one_line};
