//! The text that names a git repository, and what of it is wanted.
//!
//! BuildKit `frontend/dockerfile/dfgitutil`, `util/gitutil` and `util/sshutil`; kaniko `pkg/buildcontext/git.go` for its own form.

use std::fmt;

use auth::Secret;
use reqwest::Url;

/// Where a repository is. Holds a password where the address had one; Debug and Display do not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    pub(super) transport: Transport,
    pub(super) login: Option<Login>,
    /// As in a URL: `[::1]` keeps its brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Decoded, as git sends it; for http(s) as it was written.
    pub(super) path: String,
    /// `user@host:path`: the path is relative to the user's home.
    pub(super) scp: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Http,
    Https,
    Git,
    Ssh,
}

/// User and password of an address, decoded. The user may be a token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Secret,
    pub(super) password: Option<Secret>,
}

/// What file times in a checkout are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modified {
    /// When they were written.
    Checkout,
    /// The committer's time of the commit.
    Commit,
}

/// A repository with what is wanted of it, as BuildKit spells it: `https://host/repo.git?query#ref:subdir` and the like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GitRef {
    pub remote: Remote,
    /// Branch, tag, full reference name or full commit hash; empty for the default branch.
    pub reference: String,
    /// Relative, cleaned; empty for all.
    pub subdir: String,
    /// A commit hash, or its beginning.
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    pub modified: Option<Modified>,
    /// The checksum is the commit; what the reference names on the server does not matter.
    pub fetch_by_commit: bool,
    /// `github.com/…`, which may as well be a path: a repository as a context only.
    pub like_a_path: bool,
}

impl GitRef {
    /// Reads `text` when it is spelt as a git repository; none when it is spelt as something else.
    ///
    /// # Errors
    /// What is wrong with the query or the reference of what is clearly a repository.
    pub fn parse(text: &str) -> Result<Option<GitRef>, String> {
        if text.starts_with("./") || text.starts_with("../") || text.chars().any(char::is_control) {
            return Ok(None);
        }
        let like_a_path = text.starts_with("github.com/");
        let parts = match like_a_path {
            true => url(&format!("https://{text}")),
            false if scheme(text).is_some() => url(text).filter(is_repository),
            false => scp(text),
        };
        let Some(Parts { remote, query, fragment }) = parts else { return Ok(None) };
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let mut found = GitRef {
            remote,
            reference: reference.to_owned(),
            subdir: clean(subdir),
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            modified: None,
            fetch_by_commit: false,
            like_a_path,
        };
        found.load(&query)?;
        found.subdir = clean(&found.subdir);
        if found.reference.starts_with('-') {
            return Err(format!("invalid git ref `{}`", found.reference));
        }
        Ok(Some(found))
    }

    /// `dfgitutil.loadQuery`.
    fn load(&mut self, query: &[(String, String)]) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        for (position, (key, value)) in query.iter().enumerate() {
            if query[..position].iter().any(|(before, _)| before == key) {
                return Err(format!("query `{key}` has multiple values"));
            }
            let switch = || switch(key, value);
            match key.as_str() {
                "keep-git-dir" => self.keep_git_dir = Some(switch()?),
                "submodules" => self.submodules = Some(switch()?),
                "fetch-by-commit" => self.fetch_by_commit = switch()?,
                _ if value.is_empty() => return Err(format!("query `{key}` has no value")),
                "ref" => same_or_new(&mut self.reference, value, "ref")?,
                "tag" => tag = Some(qualified("refs/tags/", value)),
                "branch" => branch = Some(qualified("refs/heads/", value)),
                "subdir" => same_or_new(&mut self.subdir, value, "subdir")?,
                "checksum" | "commit" => self.checksum = Some(value.clone()),
                "mtime" => self.modified = Some(modified(value)?),
                _ => return Err(format!("unexpected query `{key}`")),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        match tag.or(branch) {
            Some(name) => same_or_new(&mut self.reference, &name, "ref"),
            None => Ok(()),
        }
    }

    /// The address as it may be shown and kept in the history: as BuildKit writes it, without user and password.
    pub fn display(text: &str) -> String {
        let Ok(Some(found)) = GitRef::parse(text) else { return net::display_url(text) };
        let at = text.find(['#', '?']).unwrap_or(text.len());
        format!("{}{}", found.remote, &text[at..])
    }
}

/// kaniko's `git://host/repo[#ref[#commit]]`, spoken to over HTTPS or, with `GIT_PULL_METHOD=http`, HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KanikoRef {
    pub remote: Remote,
    pub reference: String,
    /// Checked out in the end, instead of what the reference names.
    pub commit: Option<String>,
}

impl KanikoRef {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, plain_http: bool) -> Result<KanikoRef, String> {
        let rest = text.strip_prefix("git://").ok_or("not a git:// address")?;
        let mut parts = rest.split('#');
        let method = if plain_http { "http" } else { "https" };
        let place = parts.next().unwrap_or("");
        let remote = url(&format!("{method}://{place}")).filter(|parts| parts.query.is_empty());
        let remote = remote.ok_or("not HOST/REPOSITORY after `git://`")?.remote;
        let reference = parts.next().unwrap_or("").to_owned();
        let commit = parts.next().filter(|commit| !commit.is_empty()).map(str::to_owned);
        if reference.starts_with('-') {
            return Err(format!("invalid git ref `{reference}`"));
        }
        if commit.as_deref().is_some_and(|commit| !is_commit(commit)) {
            return Err("what stands after the second `#` must be a full commit hash".to_owned());
        }
        if parts.next().is_some() {
            return Err("more than two `#`".to_owned());
        }
        if reference.contains(':') {
            return Err("kaniko's form has no subdirectory; that is `--context-sub-path`".to_owned());
        }
        Ok(KanikoRef { remote, reference, commit })
    }
}

/// A full commit hash (BuildKit `gitutil.IsCommitSHA`).
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Remote {
    /// An address without query and fragment: of a submodule, say. None for what is spoken to in no way known here.
    pub fn parse(text: &str) -> Option<Remote> {
        let parts = if scheme(text).is_some() { url(text) } else { scp(text) }?;
        (parts.query.is_empty() && parts.fragment.is_empty() && !text.chars().any(char::is_control))
            .then_some(parts.remote)
    }

    /// `host` or `host:port`, as secrets are named after it.
    pub fn host_and_port(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    pub fn is_http(&self) -> bool {
        matches!(self.transport, Transport::Http | Transport::Https)
    }

    /// The address of `relative` (`./x`, `../x`) beside this one, as git-submodule(1) has it.
    pub(super) fn join(&self, relative: &str) -> Option<Remote> {
        let mut path = self.path.trim_end_matches('/').to_owned();
        let mut rest = relative;
        loop {
            if let Some(after) = rest.strip_prefix("../") {
                path.truncate(path.rfind('/')?);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else {
                break;
            }
        }
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() || path.is_empty() && self.scp {
            return None;
        }
        Some(Remote { path: format!("{path}/{rest}"), ..self.clone() })
    }

    fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Http => "http",
            Transport::Https => "https",
            Transport::Git => "git",
            Transport::Ssh => "ssh",
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The user of ssh is no secret, and an address without it is another one.
        let user = match (&self.login, self.transport) {
            (Some(login), Transport::Ssh) => format!("{}@", login.user.reveal()),
            _ => String::new(),
        };
        match self.scp {
            true => write!(f, "{user}{}:{}", self.host, self.path),
            false => write!(f, "{}://{user}{}{}", self.scheme(), self.host_and_port(), self.path),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({self})")
    }
}

struct Parts {
    remote: Remote,
    query: Vec<(String, String)>,
    fragment: String,
}

/// The scheme before `://`, where there is one (BuildKit: `^[a-zA-Z0-9]+://`).
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(scheme)
}

fn url(text: &str) -> Option<Parts> {
    let transport = match scheme(text)?.to_ascii_lowercase().as_str() {
        "http" => Transport::Http,
        "https" => Transport::Https,
        "git" => Transport::Git,
        "ssh" => Transport::Ssh,
        _ => return None,
    };
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (place, query) = before.split_once('?').unwrap_or((before, ""));
    let (_, rest) = place.split_once("://")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(parse_login(login)?), host),
        None => (None, authority),
    };
    let (host, port) = split_port(host)?;
    let decoded = decode(path, false)?;
    if matches!(transport, Transport::Http | Transport::Https) {
        // What no URL can be is nothing that could be fetched.
        Url::parse(&format!("https://{host}{path}")).ok()?;
    }
    let path = if matches!(transport, Transport::Http | Transport::Https) { path.to_owned() } else { decoded };
    let remote = Remote { transport, login, host: host.to_owned(), port, path, scp: false };
    Some(Parts { remote, query: parse_query(query), fragment: decode(fragment, false)? })
}

fn parse_login(text: &str) -> Option<Login> {
    let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
    let password = match password {
        Some(password) => Some(Secret::new(decode(password, false)?)),
        None => None,
    };
    Some(Login { user: Secret::new(decode(user, false)?), password })
}

fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, "")) => (name, None),
        Some((name, port)) if !port.contains(']') => (name, Some(port.parse().ok()?)),
        _ => (host, None),
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let valid = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(known) && !name.starts_with('-'),
    };
    valid.then_some((name, port))
}

/// An http(s) address is a repository only when its path ends in `.git`.
fn is_repository(parts: &Parts) -> bool {
    !parts.remote.is_http() || decode(&parts.remote.path, false).is_some_and(|path| path.ends_with(".git"))
}

/// `user@host:path?query#fragment` (BuildKit `sshutil.ParseSCPStyleURL`).
fn scp(text: &str) -> Option<Parts> {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (place, query) = before.split_once('?').unwrap_or((before, ""));
    let (user, rest) = place.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let known = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    if !known(user, b"-_") || !known(host, b"-.") || user.starts_with('-') || host.starts_with('-') {
        return None;
    }
    let remote = Remote {
        transport: Transport::Ssh,
        login: Some(Login { user: Secret::new(user), password: None }),
        host: host.to_owned(),
        port: None,
        path: path.to_owned(),
        scp: true,
    };
    Some(Parts { remote, query: parse_query(query), fragment: fragment.to_owned() })
}

/// Pairs of a query; what cannot be decoded is left out, as Go's `URL.Query` does.
fn parse_query(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        Some((decode(key, true)?, decode(value, true)?))
    };
    text.split('&').filter(|part| !part.is_empty() && !part.contains(';')).filter_map(pair).collect()
}

/// Without `%XX`; none where that is broken or gives no UTF-8 or a control character.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = &after[2..];
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// As Go's `path.Join("/", path)` without the `/`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Go's `strconv.ParseBool`; nothing is true.
fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: `{value}`")),
    }
}

fn modified(value: &str) -> Result<Modified, String> {
    match value {
        "checkout" => Ok(Modified::Checkout),
        "commit" => Ok(Modified::Commit),
        _ => Err(format!("invalid mtime value: `{value}` (must be `checkout` or `commit`)")),
    }
}

fn qualified(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn same_or_new(slot: &mut String, value: &str, what: &str) -> Result<(), String> {
    if !slot.is_empty() && slot != value {
        return Err(format!("{what} conflicts: `{slot}` vs `{value}`"));
    }
    value.clone_into(slot);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `remote ref subdir`, or why not; `-` for what is no repository. The rows are those of BuildKit's `git_ref_test.go` in
    /// our words, and more.
    #[test]
    fn addresses() {
        let table = [
            ("https://example.com/", "-"),
            ("https://example.com/foo", "-"),
            ("https://example.com/foo.git", "https://example.com/foo.git  "),
            ("https://example.com/foo.git#deadbeef", "https://example.com/foo.git deadbeef "),
            ("https://example.com/foo.git#release/1.2", "https://example.com/foo.git release/1.2 "),
            ("https://example.com/foo.git/", "-"),
            ("https://example.com/foo.git.bar", "-"),
            ("HTTPS://example.com/foo.git", "https://example.com/foo.git  "),
            ("git://example.com/foo", "git://example.com/foo  "),
            ("git://example.com:9418/foo#main:a/../b", "git://example.com:9418/foo main b"),
            ("ssh://git@example.com:22/foo", "ssh://git@example.com:22/foo  "),
            ("github.com/moby/buildkit", "https://github.com/moby/buildkit  "),
            ("github.com/moby/buildkit#master", "https://github.com/moby/buildkit master "),
            ("custom.xyz/moby/buildkit.git", "-"),
            ("git+https://example.com/foo.git", "-"),
            ("ftp://example.com/foo.git", "-"),
            ("https://foo:bar@github.com/moby/buildkit.git", "https://github.com/moby/buildkit.git  "),
            ("git@github.com:moby/buildkit", "git@github.com:moby/buildkit  "),
            ("git@github.com:moby/buildkit.git?subdir=/s#v1", "git@github.com:moby/buildkit.git v1 s"),
            ("https://github.com/foo/bar.git#baz/qux:quux/quuz", "https://github.com/foo/bar.git baz/qux quux/quuz"),
            ("http://github.com/docker/docker.git:#branch", "-"),
            ("https://github.com/docker/docker.git#:myfolder", "https://github.com/docker/docker.git  myfolder"),
            ("./.git", "-"),
            (".git", "-"),
            ("../x@h:y", "-"),
            ("https://h/d.git?ref=v1.0.0&subdir=/subdir", "https://h/d.git v1.0.0 subdir"),
            ("https://h/d.git?tag=v1.0.0", "https://h/d.git refs/tags/v1.0.0 "),
            ("https://h/d.git?tag=refs/tags/v1", "https://h/d.git refs/tags/v1 "),
            ("https://h/d.git?branch=v1.0", "https://h/d.git refs/heads/v1.0 "),
            ("https://h/d.git?ref=a%20b", "https://h/d.git a b "),
            ("https://h/d.git?ref=v1#v2", "ref conflicts: `v2` vs `v1`"),
            ("https://h/d.git?ref=v1&tag=v2", "ref conflicts: `v1` vs `refs/tags/v2`"),
            ("https://h/d.git?tag=v1&branch=v1", "branch conflicts with tag"),
            ("https://h/d.git?ref=a&ref=b", "query `ref` has multiple values"),
            ("https://h/d.git?ref=", "query `ref` has no value"),
            ("https://h/d.git?mtime=invalid", "invalid mtime value: `invalid` (must be `checkout` or `commit`)"),
            ("https://h/d.git?submodules=maybe", "invalid submodules value: `maybe`"),
            ("https://h/d.git?invalid=1", "unexpected query `invalid`"),
            ("https://h/d.git#-x", "invalid git ref `-x`"),
            ("https://h/d%zz.git", "-"),
            ("https://-oProxyCommand=x/d.git", "-"),
            ("ssh://-oProxyCommand=x/d", "-"),
        ];
        for (text, expected) in table {
            let got = match GitRef::parse(text) {
                Ok(None) => "-".to_owned(),
                Ok(Some(found)) => format!("{} {} {}", found.remote, found.reference, found.subdir),
                Err(error) => error,
            };
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn the_rest_of_the_query() {
        let text = "https://h/d.git?checksum=abc&keep-git-dir&submodules=0&mtime=commit&fetch-by-commit=1";
        let found = GitRef::parse(text).unwrap().unwrap();
        assert_eq!(found.checksum.as_deref(), Some("abc"));
        assert_eq!((found.keep_git_dir, found.submodules), (Some(true), Some(false)));
        assert_eq!((found.modified, found.fetch_by_commit), (Some(Modified::Commit), true));
        assert!(!found.like_a_path);
        assert!(GitRef::parse("github.com/a/b").unwrap().unwrap().like_a_path);
    }

    #[test]
    fn passwords_are_not_shown() {
        let text = "https://me:hunter2@h/d.git?ref=v1#:s";
        assert_eq!(GitRef::display(text), "https://h/d.git?ref=v1#:s");
        let shown = format!("{:?}", GitRef::parse(text).unwrap().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn kanikos_form() {
        let commit = "0123456789012345678901234567890123456789";
        let found = KanikoRef::parse(&format!("git://h:1/a/b#refs/heads/x#{commit}"), false).unwrap();
        assert_eq!(found.remote.to_string(), "https://h:1/a/b");
        assert_eq!((found.reference.as_str(), found.commit.as_deref()), ("refs/heads/x", Some(commit)));
        assert_eq!(KanikoRef::parse("git://h/a", true).unwrap().remote.to_string(), "http://h/a");
        for bad in ["git://", "git://h/a#x#short", "git://h/a#-x", "git://h/a#b##c#d"] {
            assert!(KanikoRef::parse(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_addresses() {
        let table = [
            ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
            ("https://h/a/b.git", "../../c/d", "https://h/c/d"),
            ("https://h/a/b.git", "./c", "https://h/a/b.git/c"),
            ("https://h/a", "../../c", "-"),
            ("git@h:a/b.git", "../c.git", "git@h:a/c.git"),
            ("git@h:b.git", "../c.git", "-"),
        ];
        for (base, relative, expected) in table {
            let joined = Remote::parse(base).unwrap().join(relative);
            assert_eq!(joined.map_or("-".to_owned(), |remote| remote.to_string()), expected, "{base} {relative}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r"(https?://|git://|ssh://|[a-z]{0,3}@)?[a-z%:@/#?&=.\[\]\-+;]{0,40}(\.git)?[#?a-z=%:&]{0,20}") {
            if let Ok(Some(found)) = GitRef::parse(&text) {
                prop_assert!(!found.reference.starts_with('-'));
                prop_assert!(!found.remote.host.starts_with('-'));
                prop_assert!(!found.subdir.split('/').any(|part| part == ".."));
            }
            let _ = KanikoRef::parse(&text, false);
            let _ = Remote::parse(&text).and_then(|remote| remote.join("../x"));
        }
    }
}
