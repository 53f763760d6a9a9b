//! Dockerfiles, parts of them, and ignore files.

use std::time::Duration;

use dockerfile::ignore::Patterns;
use dockerfile::lint::Checks;
use dockerfile::{Command, Dockerfile, Kind, expand, parse, parse_onbuild, parse_with_checks};

/// Any bytes parse or fail at a place of the source; triggers that come out parse again or fail as well.
pub fn dockerfile_parse(bytes: &[u8]) {
    within_second(bytes, || match parse(bytes) {
        Ok(file) => places_are_right(&file),
        Err(error) => assert!(error.source_text.get(error.diagnostic.span.clone()).is_some()),
    });
}

fn within_second(input: &[u8], work: impl FnOnce()) {
    // Ten times of what the slowest input of this size needs in a build without optimisation.
    crate::within(Duration::from_millis(1000 + input.len() as u64 / 8), work);
}

fn places_are_right(file: &Dockerfile) {
    for warning in &file.warnings {
        assert!(file.source.get(warning.span.clone()).is_some());
        let _ = dockerfile::error::line_of(&file.source, warning.span.start);
    }
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        assert!(file.source.get(instruction.span.clone()).is_some());
        match &instruction.kind {
            Kind::Onbuild(onbuild) => drop(parse_onbuild(&onbuild.text)),
            Kind::Run(run) => drop(run.program()),
            _ => {}
        }
    }
}

/// Any text expands or fails, with values that may hold anything. The first line is the value, the rest the text.
pub fn dockerfile_expand(input: &[u8]) {
    let Ok(input_text) = std::str::from_utf8(input) else { return };
    let (value, text) = input_text.split_once('\n').unwrap_or(("", input_text));
    let variables = |name: &str| (name.len() == 1).then(|| value.to_owned());
    for escape in ['\\', '`'] {
        // What an expansion may cost is bounded by itself (`MAX_STEPS`, `MAX_OUTPUT_BYTES`), not by the size of the text.
        crate::within(Duration::from_secs(10), || drop(expand::word(text, escape, &variables)));
        crate::within(Duration::from_secs(10), || drop(expand::words(text, escape, &variables)));
        crate::within(Duration::from_secs(10), || drop(expand::heredoc(text, escape, &variables)));
        crate::within(Duration::from_secs(10), || drop(expand::for_display(text, escape, &variables)));
    }
}

/// Any directives and rules of `# check=` are read or refused, and the file behind them with these rules. The first line is
/// the text of `--check`, the second that of a comment at an instruction, the rest a Dockerfile.
pub fn directives(input: &[u8]) {
    let (checks, rest) = crate::first_line(input);
    let (comment, text) = crate::first_line(rest);
    let comment = String::from_utf8_lossy(comment);
    within_second(input, || {
        let checks = std::str::from_utf8(checks).ok().and_then(|text| Checks::parse(text).ok());
        if let Some(checks) = &checks {
            let _ = checks.with_comment(Some(&comment)).reports("StageNameCasing");
        }
        match parse_with_checks(text, checks) {
            Ok(file) => places_are_right(&file),
            Err(error) => assert!(error.source_text.get(error.diagnostic.span.clone()).is_some()),
        }
    });
}

/// What JSON calls an array of strings is the exec form with these strings, and nothing else is.
pub fn exec_form(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let text = text.trim();
    // A line of its own: no end of line, no continuation, no heredoc's mark; blanks as JSON knows them.
    if text.is_empty() || text.contains(['\n', '\r', '\0']) || text.ends_with(['\\', '`']) || !text.starts_with('[') {
        return;
    }
    let source = format!("FROM a\nCMD {text}\n");
    let Ok(file) = parse(source.as_bytes()) else { return };
    let Some(Kind::Cmd(command)) = file.stages[0].instructions.first().map(|instruction| &instruction.kind) else {
        return;
    };
    let found = match command {
        Command::Exec(words) => Some(words.clone()),
        _ => None,
    };
    // Where the two differ on purpose: lone surrogates, which Go replaces.
    if !text.contains("\\u") && !text.contains("\\U") {
        assert_eq!(found, serde_json::from_str::<Vec<String>>(text).ok(), "{text}");
    }
}

/// Any option of `RUN --mount` is a mount or an error, and any value its variables can have. The first line is the value.
pub fn run_mount(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (value, options) = text.split_once('\n').unwrap_or(("", text));
    let source = format!("FROM a\nRUN --mount={options} true\n");
    let Ok(file) = parse(source.as_bytes()) else { return };
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        let Kind::Run(run) = &instruction.kind else { continue };
        for mount in &run.mounts {
            assert!(file.source.get(mount.span.clone()).is_some());
            let variables = |name: &str| (name.len() == 1).then(|| value.to_owned());
            let _ = mount.expand(&mut |text| expand::word(text, file.escape, &variables).map(|found| found.text));
        }
    }
}

/// Any ignore file is refused or answers for any path. The first line is the path, the rest the file.
pub fn dockerignore(input: &[u8]) {
    let (path, text) = crate::first_line(input);
    within_second(input, || {
        let Ok(patterns) = Patterns::parse(text) else { return };
        let excluded = patterns.excludes(path);
        assert_eq!(excluded, patterns.excluded_by(path).is_some());
        // What is included below an excluded directory must be announced.
        if is_clean(path) && !excluded {
            for parent in parents(path) {
                assert!(!patterns.excludes(parent) || patterns.may_include_below(parent));
            }
        }
    });
}

/// Any pattern is bad or answers for any name, in time that does not explode, and plain ones as the definition says. The
/// first line is the pattern, the rest the path.
pub fn glob(input: &[u8]) {
    let (pattern, path) = crate::first_line(input);
    within_second(input, || {
        let _ = dockerfile::glob::has_wildcard(pattern);
        let found = dockerfile::glob::matches(pattern, path);
        let text = String::from_utf8_lossy(pattern).into_owned();
        let excluded = Patterns::new(&[text]).map(|patterns| patterns.excludes(path));
        let is_small = pattern.len() * path.len() < 1 << 16;
        if !is_small
            || !pattern.iter().all(|byte| byte.is_ascii_lowercase() || b"*?./-".contains(byte))
            || !path.is_ascii()
        {
            return;
        }
        assert_eq!(found, Ok(matches_by_definition(pattern, path)));
        if is_clean(path) && is_clean(pattern) && !pattern.windows(2).any(|two| two == b"**") {
            let expected = parents(path).chain([path]).any(|part| matches_by_definition(pattern, part));
            assert_eq!(excluded, Ok(expected));
        }
    });
}

/// Go's rules for ASCII without classes and escapes, by a table of what each beginning of the pattern matches.
fn matches_by_definition(pattern: &[u8], name: &[u8]) -> bool {
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for &token in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            let before = at.checked_sub(1).map(|before| (name[before], ends[before], next[before]));
            next[at] = match (token, before) {
                (b'*', None) => ends[0],
                (b'*', Some((byte, _, longer))) => ends[at] || (longer && byte != b'/'),
                (_, None) => false,
                (b'?', Some((byte, fits, _))) => fits && byte != b'/',
                (token, Some((byte, fits, _))) => fits && byte == token,
            };
        }
        ends = next;
    }
    ends[name.len()]
}

fn is_clean(path: &[u8]) -> bool {
    !path.is_empty() && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// The directories above a path, shortest first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}
