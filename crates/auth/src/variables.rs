//! Logins in environment variables, as kaniko has them.

use std::collections::BTreeMap;

use crate::login::{Credential, Login};
use crate::secret::Secret;
use crate::source::{AuthError, CredentialSource};

/// Logins by the registry's part of a variable's name: `REGISTRY_EXAMPLE`.
pub(crate) struct Variables {
    /// With `…` for that part.
    name: String,
    logins: BTreeMap<String, Login>,
}

impl Variables {
    /// Those of `variables` that are logins; none where no variable is.
    pub(crate) fn of(prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Option<Variables> {
        let all: BTreeMap<String, String> = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let named = all.iter().filter_map(|(name, username)| {
            let registry = name.strip_prefix(prefix)?.strip_prefix('_')?.strip_suffix("_USER")?;
            let password = Secret::new(all.get(&format!("{prefix}_{registry}_PASSWORD"))?.as_str());
            Some((registry.to_owned(), Login::Basic { username: username.clone(), password }))
        });
        let logins: BTreeMap<String, Login> = named.collect();
        (!logins.is_empty()).then(|| Variables { name: format!("variables `{prefix}_…_USER`"), logins })
    }
}

impl CredentialSource for Variables {
    fn name(&self) -> &str {
        &self.name
    }

    fn login(&self, registry: &str, _repository: &str) -> Result<Option<Credential>, AuthError> {
        let found = variable_names(registry).find_map(|name| self.logins.get_key_value(&name));
        let credential =
            |(name, login): (&String, &Login)| Credential::new(login.clone()).from_entry(self.name.replace('…', name));
        Ok(found.map(credential))
    }
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

#[cfg(test)]
mod tests {
    use crate::credentials::Credentials;
    use crate::testing::word;

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
}
