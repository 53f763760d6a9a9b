//! The text that says where a context is.

use std::path::{Path, PathBuf};

use git::address::{GitRef, KanikoRef};

use crate::ContextError;

/// Hosts of Azure's public, Chinese, US government and German clouds, as kaniko knows them.
const AZURE_SUFFIXES: [&str; 4] =
    [".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net", ".blob.core.cloudapi.de"];

/// Where a build context is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    Directory(PathBuf),
    Tar(PathBuf),
    /// A tar, or a Dockerfile.
    Stdin,
    /// A tar, or a Dockerfile.
    Http(String),
    Git(Box<GitRef>),
    /// `git://…` as kaniko means it.
    KanikoGit(Box<KanikoRef>),
}

/// What `git://` means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GitScheme {
    /// Git's own protocol, as docker has it.
    Protocol,
    /// HTTPS, as kaniko has it.
    Https,
    /// HTTP, as kaniko has it with `GIT_PULL_METHOD=http`.
    Http,
}

impl Place {
    /// Reads `PATH`, `dir://PATH`, `tar://PATH`, `tar://stdin`, `-`, `http(s)://…` and what names a git repository.
    ///
    /// # Errors
    /// [`ContextError::Unsupported`] for `s3://`, `gs://` and Azure Blob Storage, [`ContextError::Invalid`] for an unknown scheme,
    /// an empty text, and a repository that is spelt wrongly.
    pub fn parse(text: &str, scheme: GitScheme) -> Result<Place, ContextError> {
        if text == "-" {
            return Ok(Place::Stdin);
        }
        if scheme != GitScheme::Protocol && text.starts_with("git://") {
            let found = KanikoRef::parse(text, scheme == GitScheme::Http);
            return found
                .map(|found| Place::KanikoGit(Box::new(found)))
                .or_else(|reason| invalid(&shown(text), &reason));
        }
        match GitRef::parse(text) {
            // A directory of that name is meant first (BuildKit `IndistinguishableFromLocal`).
            Ok(Some(_)) if !text.contains("://") && Path::new(text).is_dir() => {}
            Ok(Some(found)) => return Ok(Place::Git(Box::new(found))),
            Ok(None) => {}
            Err(reason) => return invalid(&shown(text), &reason),
        }
        if let Some(what) = unsupported(text) {
            return Err(ContextError::Unsupported { what: format!("{what} `{}`", net::display_url(text)) });
        }
        match text.split_once("://") {
            None if text.is_empty() => invalid(text, "no directory given"),
            None => Ok(Place::Directory(PathBuf::from(text))),
            Some(("dir" | "file", path)) if !path.is_empty() => Ok(Place::Directory(PathBuf::from(path))),
            Some(("tar", "stdin")) => Ok(Place::Stdin),
            Some(("tar", path)) if !path.is_empty() => Ok(Place::Tar(PathBuf::from(path))),
            Some(("http" | "https", rest)) if !rest.is_empty() => Ok(Place::Http(text.to_owned())),
            Some(("dir" | "file" | "tar" | "http" | "https", _)) => invalid(text, "nothing after `://`"),
            Some(_) if Path::new(text).is_dir() => Ok(Place::Directory(PathBuf::from(text))),
            Some(_) => invalid(&shown(text), "unknown scheme; known are dir, tar, git, ssh, http and https"),
        }
    }
}

fn invalid(text: &str, reason: &str) -> Result<Place, ContextError> {
    Err(ContextError::Invalid { what: format!("context `{text}`"), reason: reason.to_owned() })
}

/// What a text means that is understood, but cannot be used yet.
fn unsupported(text: &str) -> Option<&'static str> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("s3") => Some("S3 context"),
        Some("gs") => Some("Google Cloud Storage context"),
        _ if is_azure(text) => Some("Azure Blob Storage context"),
        _ => None,
    }
}

/// Without what may be secret.
fn shown(text: &str) -> String {
    net::display_url(text)
}

/// An address with a signature of its own (`sig=`) needs no account key and is fetched like any other.
fn is_azure(text: &str) -> bool {
    let host = text.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or("");
    let signed = text.split_once('?').is_some_and(|(_, query)| query.split('&').any(|it| it.starts_with("sig=")));
    AZURE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix)) && !signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let table = [
            (".", Place::Directory(".".into())),
            ("/a b/c", Place::Directory("/a b/c".into())),
            ("dir:///work", Place::Directory("/work".into())),
            ("dir://rel/x", Place::Directory("rel/x".into())),
            ("tar:///c.tar.gz", Place::Tar("/c.tar.gz".into())),
            ("tar://stdin", Place::Stdin),
            ("-", Place::Stdin),
            ("https://h/x.tgz", Place::Http("https://h/x.tgz".into())),
            ("http://h:1/Dockerfile", Place::Http("http://h:1/Dockerfile".into())),
            (
                "https://a.blob.core.windows.net/c/x.tgz?sv=1&sig=2",
                Place::Http("https://a.blob.core.windows.net/c/x.tgz?sv=1&sig=2".into()),
            ),
        ];
        for (text, place) in table {
            assert_eq!(Place::parse(text, GitScheme::Protocol).unwrap(), place, "{text}");
        }
    }

    #[test]
    fn repositories() {
        use GitScheme::{Http, Https, Protocol};
        let table = [
            ("git://github.com/a/b#main:sub", Protocol, "git://github.com/a/b main sub"),
            ("git://github.com/a/b#main", Https, "kaniko https://github.com/a/b main"),
            ("git://h/a/b", Http, "kaniko http://h/a/b "),
            ("https://github.com/a/b.git#main:sub", Https, "https://github.com/a/b.git main sub"),
            ("git@github.com:a/b", Protocol, "git@github.com:a/b  "),
            ("github.com/a/b", Protocol, "https://github.com/a/b  "),
        ];
        for (text, scheme, expected) in table {
            let got = match Place::parse(text, scheme).unwrap() {
                Place::Git(found) => format!("{} {} {}", found.remote, found.reference, found.subdir),
                Place::KanikoGit(found) => format!("kaniko {} {}", found.remote, found.reference),
                other => format!("{other:?}"),
            };
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn places_that_cannot_be_used_are_named() {
        let table = [
            ("s3://bucket/x.tgz", "not supported yet: S3 context"),
            ("gs://bucket/x.tgz", "not supported yet: Google Cloud Storage context"),
            ("https://a.blob.core.windows.net/c/x.tgz", "not supported yet: Azure Blob Storage context"),
            ("ftp://x/y", "unknown scheme"),
            ("https://h/a.git?colour=red", "unexpected query `colour`"),
            ("git://h/a#b:c", "kaniko's form has no subdirectory"),
            ("dir://", "nothing after"),
            ("", "no directory given"),
        ];
        for (text, message) in table {
            let error = Place::parse(text, GitScheme::Https).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        let secret = Place::parse("https://user:secret@h/a.git?x=y", GitScheme::Https).unwrap_err().to_string();
        assert!(!secret.contains("secret"), "{secret}");
    }
}
