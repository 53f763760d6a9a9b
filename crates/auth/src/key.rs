//! What an entry is for: registries, and the repositories below a path.

/// What Docker writes as key for Docker Hub, and what helpers are asked with.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How a helper knows `registry`.
pub(crate) fn server(registry: &str) -> String {
    if registry == "docker.io" { HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// The value whose key is the longest prefix of `registry/repository`, and of those the one that is spelt most like it.
pub(crate) fn best<'a, T>(all: impl Iterator<Item = (&'a Key, T)>, registry: &str, repository: &str) -> Option<T> {
    let matching = all.filter_map(|(key, value)| Some((key.rank(registry, repository)?, value)));
    matching.max_by_key(|(rank, _)| *rank).map(|(_, value)| value)
}

/// What an entry is for: a host, or the repositories of a host below a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// As written.
    pub(crate) text: String,
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
    pub(crate) fn parse(text: &str) -> Key {
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

#[cfg(test)]
mod tests {
    use crate::testing::{auths, config, word};

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
}
