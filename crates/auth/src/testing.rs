//! What the tests of this crate share.

use crate::credentials::{Credentials, LookUp};
use crate::login::Login;

/// A login in a word: `user:password`, `identity TOKEN`, `registry TOKEN`, `-`.
pub(crate) fn word(look_up: &LookUp) -> String {
    match look_up.found.as_ref().map(|found| &found.login) {
        None => "-".to_owned(),
        Some(Login::Basic { username, password }) => format!("{username}:{}", password.reveal()),
        Some(Login::Identity { token }) => format!("identity {}", token.reveal()),
        Some(Login::Registry { token }) => format!("registry {}", token.reveal()),
    }
}

pub(crate) fn config(text: &str) -> Credentials {
    let mut credentials = Credentials::anonymous();
    credentials.add_config(text, "`config.json`").unwrap();
    credentials
}

/// `auths` with one entry, user `u` and password `p`.
pub(crate) fn auths(key: &str) -> Credentials {
    config(&format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#))
}
