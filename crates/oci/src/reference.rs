//! Image references: `[registry/]repository[:tag][@digest]` with Docker's defaults.

use std::fmt;

use crate::{Digest, OciError};

/// A parsed and normalised reference.
///
/// `busybox` is `docker.io/library/busybox`; a first component counts as a registry when it has a `.` or `:`, is
/// `localhost`, or has an upper-case letter (distribution/reference, `splitDockerDomain`). IPv6 hosts stand in `[]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reference {
    /// `docker.io`, `host`, `host:port`, `[::1]:port`.
    pub registry: String,
    /// `library/busybox`; never empty.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parses what people write after FROM or `--tag`. Nothing of the text is changed but the defaults that are added.
    ///
    /// # Errors
    /// [`OciError::Reference`] with what is wrong, as distribution/reference `ParseDockerRef` would refuse it.
    pub fn parse(text: &str) -> Result<Reference, OciError> {
        let bad = |reason| OciError::Reference { text: text.chars().take(300).collect(), reason };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("a bare image ID is no repository name"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest).map_err(|_| bad("invalid digest after `@`"))?)),
            None => (text, None),
        };
        let (registry, remainder) = split_registry(name);
        if !is_registry(registry) {
            return Err(bad("invalid registry host"));
        }
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if !tag.is_none_or(is_tag) {
            return Err(bad("invalid tag"));
        }
        let repository = checked_repository(registry, path).map_err(bad)?;
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// The tag, `latest` where neither tag nor digest is given.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// `registry/repository` without tag or digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As people write it: Docker Hub's `docker.io/library/` is left out, unless the rest would read as another registry.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(path) = full.strip_prefix("docker.io/") else { return full };
        let short = path.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(path);
        if split_registry(short) == ("docker.io", short) { short.to_owned() } else { full }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (None, None) => f.write_str(":latest"),
            (tag, digest) => {
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                if let Some(digest) = digest {
                    write!(f, "@{digest}")?;
                }
                Ok(())
            }
        }
    }
}

/// Registry host and the rest of a name without digest.
fn split_registry(name: &str) -> (&str, &str) {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    match name.split_once('/') {
        // Docker Hub's old and its API name.
        Some(("index.docker.io" | "registry-1.docker.io", rest)) => ("docker.io", rest),
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", name),
    }
}

fn checked_repository(registry: &str, path: &str) -> Result<String, &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository name must be lower case");
    }
    if !path.split('/').all(is_component) {
        return Err("invalid repository name");
    }
    let official = registry == "docker.io" && !path.contains('/');
    let repository = if official { format!("library/{path}") } else { path.to_owned() };
    // The host does not count (distribution/reference 0.6, `RepositoryNameTotalLengthMax`).
    if repository.len() > 255 {
        return Err("repository name is longer than 255 characters");
    }
    Ok(repository)
}

/// `[a-z0-9]+` runs joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    text.split(|c: char| c.is_ascii() && alphanumeric(c as u8))
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let valid = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                return valid && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}
