//! Instructions that only change the image config: how their values are read.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dockerfile::{Command, Healthcheck};

/// One EXPOSE word to `port/protocol` entries: `80`, `80/udp`, `8000-8002`, `8080:80`, `127.0.0.1:8080:80`.
///
/// The container's part counts, a range becomes one entry a port. The host's part is checked and then left out (BuildKit
/// `convert_expose.go`).
pub fn expose(word: &str) -> Result<Vec<String>, String> {
    let failed = |why: String| format!("invalid port `{word}`: {why}");
    let (host, container) = word.rsplit_once(':').map_or((None, word), |(host, container)| (Some(host), container));
    let (address, host) = match host.map(|host| host.rsplit_once(':').unwrap_or(("", host))) {
        Some((address, host)) => (address, host),
        None => ("", ""),
    };
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(failed(format!("unknown protocol `{protocol}`")));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(failed(format!("`{address}` is no IP address")));
    }
    let (first, last) = port_range(ports).map_err(failed)?;
    if !host.is_empty() {
        let (first_host, last_host) = port_range(host).map_err(failed)?;
        // One port of the container may be met at any of a range.
        if last > first && last - first != last_host - first_host {
            return Err(failed(format!("the ranges `{ports}` and `{host}` have different lengths")));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// The signal whose name is nearest to one that is none.
pub fn near_signal(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    dockerfile::lint::nearest_name(name, SIGNALS).map(|near| format!("SIG{near}"))
}

/// `80` or `80-90`.
fn port_range(text: &str) -> Result<(u16, u16), String> {
    let number = |part: &str| part.parse::<u16>().map_err(|_| format!("`{text}` is no port or range of ports"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first { Err(format!("the range `{text}` runs backwards")) } else { Ok((first, last)) }
}

/// Whether STOPSIGNAL may say `text`: a number, or a signal's name with or without `SIG`.
pub fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number > 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // moby's `signal.SignalMap`: RTMIN+15 and RTMAX-14 are neighbours.
    let real_time = |prefix: &str, sign: char, last: u8| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix(sign).and_then(|n| n.parse().ok()).is_some_and(|n: u8| (1..=last).contains(&n))
        })
    };
    SIGNALS.contains(&name) || real_time("RTMIN", '+', 15) || real_time("RTMAX", '-', 14)
}

/// The config's health check; `shell` wraps a command in shell form at run time (Docker's `CMD-SHELL`).
pub fn healthcheck(check: &Healthcheck) -> oci::Healthcheck {
    let test = match &check.command {
        None => vec!["NONE".to_owned()],
        Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Some(Command::Exec(args)) => std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect(),
    };
    oci::Healthcheck {
        test,
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// Go's `%q` of a list of strings, as Docker's history shows CMD and ENTRYPOINT.
pub fn quoted_list(args: &[String]) -> String {
    let quoted: Vec<String> = args.iter().map(|a| serde_json::Value::String(a.clone()).to_string()).collect();
    format!("[{}]", quoted.join(" "))
}

/// Joins a WORKDIR with the one before and cleans it: absolute, no `.` or `..`, no trailing `/`.
pub fn join_clean(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Go's `path.Clean`: no `.`, no doubled `/`, `..` only where it leads out of a relative path.
pub fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return join_clean("/", path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

/// What stands behind the last `/`, trailing ones not counted (Go's `path.Base`).
pub fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

/// The file that a here-document of this name is. BuildKit makes it in a root of its own, without directories, and copies it from
/// there (`dispatchCopy`): what leads out of the root is cleaned away, and a name below a directory is none.
pub fn heredoc_file(name: &str) -> Option<String> {
    let path = join_clean("/", name);
    Some(path[1..].to_owned()).filter(|file| !file.is_empty() && !file.contains('/'))
}

/// A WORKDIR on top of the one before: an absolute one is kept as written, a relative one joined and cleaned, nothing
/// stays where it was (BuildKit `system.NormalizeWorkdir`).
pub fn workdir(current: &str, path: &str) -> String {
    match path {
        "" => current.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => join_clean(current, relative),
    }
}

/// A destination of COPY or ADD, made absolute; a trailing `/` or `/.` is kept as `/` (BuildKit `NormalizePath`, keepSlash).
pub fn destination(cwd: &str, path: &str) -> String {
    let keeps_slash = path.is_empty() || path.ends_with('/') || path == "." || path.ends_with("/.");
    let mut clean = join_clean(cwd, path);
    if keeps_slash && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// Sorted set of names, for suggestions.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let limit = wanted.len().div_ceil(3).max(1);
    names.into_iter().map(|n| (distance(wanted, n), n)).filter(|(d, _)| *d <= limit).min().map(|(_, n)| n)
}

/// Levenshtein distance on characters, case ignored.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expose_words() {
        let table: &[(&str, Result<&[&str], &str>)] = &[
            ("80", Ok(&["80/tcp"])),
            ("53/UDP", Ok(&["53/udp"])),
            ("9/sctp", Ok(&["9/sctp"])),
            ("200-202/udp", Ok(&["200/udp", "201/udp", "202/udp"])),
            ("127.0.0.1:8080:80", Ok(&["80/tcp"])),
            ("9090:90/udp", Ok(&["90/udp"])),
            ("80/", Ok(&["80/tcp"])),
            (":80", Ok(&["80/tcp"])),
            ("[::1]:5:6", Ok(&["6/tcp"])),
            ("::1:80:81", Ok(&["81/tcp"])),
            ("10-11:20", Ok(&["20/tcp"])),
            ("0-1:2-3", Ok(&["2/tcp", "3/tcp"])),
            ("x:80", Err("no port")),
            ("1.2.3:80:80", Err("no IP address")),
            ("1-2:3-5", Err("lengths")),
            ("80:", Err("no port")),
            ("80/tcp/x", Err("tcp/x")),
            ("70000", Err("70000")),
            ("http", Err("http")),
            ("80/icmp", Err("icmp")),
            ("90-80", Err("backwards")),
            ("", Err("no port")),
        ];
        for (word, expected) in table {
            match (expose(word), expected) {
                (Ok(got), Ok(want)) => assert_eq!(&got, want, "{word}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{word}: {got}"),
                (got, _) => panic!("{word}: {got:?}"),
            }
        }
    }

    #[test]
    fn signals() {
        for good in ["9", "SIGTERM", "term", "SIGRTMIN+3", "RTMAX-1", "SIGRTMIN"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "-1", "SIGFOO", "RTMIN+16", "RTMIN-1", "RTMAX-15", "RTMIN+0"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }

    #[test]
    fn paths() {
        let table =
            [("/", "a", "/a"), ("/a", "../b/", "/b"), ("/a", "/", "/"), ("/a", ".", "/a"), ("", "x/../..", "/")];
        for (base, path, want) in table {
            assert_eq!(join_clean(base, path), want, "{base} {path}");
        }
        for (path, want) in [("./m/", "m"), ("../a//b/../c", "../a/c"), ("a/..", "."), ("/a/../..", "/"), ("", ".")] {
            assert_eq!(clean(path), want, "{path}");
        }
        for (path, want) in [("/a/b/", "b"), ("a", "a"), ("a/b", "b"), ("/", "")] {
            assert_eq!(base_name(path), want, "{path}");
        }
        let table =
            [("/w", "d/", "/w/d/"), ("/w", ".", "/w/"), ("/w", "", "/w/"), ("/w", "f", "/w/f"), ("/", "/", "/")];
        for (cwd, path, want) in table {
            assert_eq!(destination(cwd, path), want, "{cwd} {path}");
        }
    }

    #[test]
    fn near_misses() {
        assert_eq!(nearest("biuld", ["build", "test"]), Some("build"));
        assert_eq!(nearest("xyz", ["build", "test"]), None);
    }
}
