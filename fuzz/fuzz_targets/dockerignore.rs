//! Any ignore file is refused or answers for any path. The first line is the path, the rest the file.

#![no_main]

use dockerfile::{glob, ignore::Patterns};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (path, text) = input.split_at(end);
    let _ = glob::matches(text, path);
    let Ok(patterns) = Patterns::parse(text) else { return };
    let excluded = patterns.excludes(path);
    assert_eq!(excluded, patterns.excluded_by(path).is_some());
    // What is included below an excluded directory must be announced.
    let is_clean = !path.is_empty() && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    if is_clean && !excluded {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            assert!(!patterns.excludes(&path[..at]) || patterns.may_include_below(&path[..at]));
        }
    }
});
