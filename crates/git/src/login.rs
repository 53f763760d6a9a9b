//! Logins, and which repositories get them.

use std::fmt;

use auth::Secret;

use super::address::Remote;
use super::transport;

/// Logins for repositories over HTTP.
#[derive(Clone, Default)]
pub struct Auth {
    /// BuildKit's secrets: `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, with or without `.HOST`.
    pub secrets: Vec<(String, Secret<Vec<u8>>)>,
    /// kaniko's variables `GIT_TOKEN`, `GIT_USERNAME` and `GIT_PASSWORD`: for the build context. A token is the user.
    pub user: Option<(Secret, Secret)>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(..)")
    }
}

impl Auth {
    /// The value of `Authorization` for `remote` (BuildKit `authSecretNames`), and whether it is for all of its host.
    fn authorization(&self, remote: &Remote) -> Option<(Secret, bool)> {
        let host = remote.host_and_port();
        let names = [
            format!("GIT_AUTH_HEADER.{host}"),
            format!("GIT_AUTH_TOKEN.{host}"),
            "GIT_AUTH_HEADER".to_owned(),
            "GIT_AUTH_TOKEN".to_owned(),
        ];
        let secret = |name: &String| {
            let (_, value) = self.secrets.iter().find(|(known, _)| known == name)?;
            // Files end in a newline that nobody means.
            let value = Secret::new(String::from_utf8_lossy(value.reveal().trim_ascii_end()));
            let token = name.starts_with("GIT_AUTH_TOKEN");
            Some((if token { transport::basic(&Secret::new("x-access-token"), &value) } else { value }, false))
        };
        let user = || self.user.as_ref().map(|(user, password)| (transport::basic(user, password), true));
        names.iter().find_map(secret).or_else(user)
    }
}

/// Whom a login is for.
pub struct Scope<'a> {
    authorization: Option<Secret>,
    /// Other repositories of the host, too.
    whole_host: bool,
    remote: &'a Remote,
}

impl<'a> Scope<'a> {
    /// What `auth` has for `remote` and those beside it.
    pub fn new(auth: &Auth, remote: &'a Remote) -> Scope<'a> {
        let (authorization, whole_host) = auth.authorization(remote).unzip();
        Scope { authorization, whole_host: whole_host.unwrap_or(false), remote }
    }

    /// The login for `remote`: the repository itself and what is below its path, all of GitHub for one there (BuildKit
    /// `tokenScope`), or the whole host.
    pub fn authorization(&self, remote: &Remote) -> Option<Secret> {
        let own = self.remote;
        if (own.transport, own.host_and_port()) != (remote.transport, remote.host_and_port()) {
            return None;
        }
        let (path, other) = (own.path.trim_end_matches('/'), remote.path.as_str());
        let below = other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let github = matches!(own.host.as_str(), "github.com" | "www.github.com");
        self.authorization.clone().filter(|_| below || github || self.whole_host)
    }
}
