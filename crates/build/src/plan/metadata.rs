//! Instructions that only change the image config: how their values are read.

use std::collections::BTreeSet;

use dockerfile::{Command, Healthcheck};

/// One EXPOSE word to `port/protocol` entries: `80`, `80/udp`, `8000-8002`, `8080:80`, `127.0.0.1:8080:80`.
///
/// Docker's `nat.ParsePortSpec`: the container's part counts, a range becomes one entry a port.
pub fn expose(word: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = match word.rsplit_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
        None => (word, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid port `{word}`: unknown protocol `{protocol}`"));
    }
    let container = ports.rsplit_once(':').map_or(ports, |(_, container)| container);
    let bad = || format!("invalid port `{word}`: `{container}` is no port or range of ports");
    let (first, last) = container.split_once('-').unwrap_or((container, container));
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(format!("invalid port `{word}`: the range `{container}` runs backwards"));
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

/// Whether STOPSIGNAL may say `text`: a number, or a signal's name with or without `SIG`.
pub fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number > 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, sign: char| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix(sign).and_then(|n| n.parse().ok()).is_some_and(|n: u8| n <= 15)
        })
    };
    SIGNALS.contains(&name) || real_time("RTMIN", '+') || real_time("RTMAX", '-')
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
        for bad in ["", "0", "-1", "SIGFOO", "RTMIN+16", "RTMIN-1"] {
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
