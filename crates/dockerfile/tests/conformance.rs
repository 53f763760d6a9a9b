//! The Dockerfiles of the conformance suite: those that must build must parse, and faults of syntax must be found in the line
//! that the case names.

use std::fs;
use std::path::{Path, PathBuf};

use zuwai_dockerfile as dockerfile;

/// Cases whose Dockerfile must be refused by the parser alone, by the number in front of their names.
#[rustfmt::skip]
const SYNTAX_FAULTS: &[u32] = &[
    620, 621, 623, 624, 625, 626, 627, 628, 630, 631, 632, 633, 634, 635, 637, 638, 639, 640, 641, 642, 644, 645, 646, 660, 661,
    665, 666, 667, 678, 679, 693, 703, 704, 705, 707, 721, 749, 750, 751, 756, 757, 758, 761, 762, 763, 764, 765, 771, 845, 909,
];

/// Warnings that the parser alone must find, as in the `check=error=true` cases.
const LINTS: &[u32] = &[821, 822, 823, 824, 825, 826, 828, 829, 831, 832, 833, 836, 838, 839];

struct Case {
    name: String,
    number: u32,
    text: Vec<u8>,
    json: String,
}

impl Case {
    /// The value of a number in case.json, which the suite writes on a line of its own.
    fn line(&self) -> Option<usize> {
        let (_, rest) = self.json.split_once("\"line\":")?;
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    fn must_fail(&self) -> bool {
        self.json.contains("\"expected\": \"error\"")
    }
}

fn cases() -> Option<Vec<Case>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/cases");
    let folder = std::env::var_os("ZUWAI_CONFORMANCE_CASES").map_or(beside, PathBuf::from);
    let mut cases: Vec<Case> = fs::read_dir(folder).ok()?.filter_map(|entry| case(&entry.ok()?.path())).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Some(cases)
}

/// `None` where the Dockerfile has another name or is written by a script.
fn case(folder: &Path) -> Option<Case> {
    let name = folder.file_name()?.to_str()?.to_owned();
    let number = name.split('-').next()?.parse().ok()?;
    let text = fs::read(folder.join("Dockerfile")).ok()?;
    let json = fs::read_to_string(folder.join("case.json")).ok()?;
    Some(Case { name, number, text, json })
}

#[test]
fn files_that_build_parse_and_faults_have_their_line() {
    let Some(cases) = cases() else {
        return eprintln!("skipped: there is no conformance/cases beside the crates");
    };
    assert!(cases.len() > 400, "only {} cases were found", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        match dockerfile::parse(&case.text) {
            Ok(_) if SYNTAX_FAULTS.contains(&case.number) => wrong.push(format!("{}: was not refused", case.name)),
            Ok(_) => {}
            Err(error) if !case.must_fail() => wrong.push(format!("{}: {error}", case.name)),
            Err(error) if case.line().is_some_and(|line| line != error.line()) => {
                wrong.push(format!("{}: {error} in line {} instead of {:?}", case.name, error.line(), case.line()));
            }
            Err(error) if !SYNTAX_FAULTS.contains(&case.number) => {
                wrong.push(format!("{}: refused too early: {error}", case.name));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn warnings_have_their_rule_and_line() {
    let Some(cases) = cases() else {
        return eprintln!("skipped: there is no conformance/cases beside the crates");
    };
    for case in cases.iter().filter(|case| LINTS.contains(&case.number)) {
        let file = dockerfile::parse(&case.text).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let found: Vec<_> = file.warnings.iter().map(|warning| (warning.rule.unwrap(), line(&file, warning))).collect();
        let [(rule, line)] = found[..] else { panic!("{}: {found:?}", case.name) };
        assert!(case.json.contains(&format!("\"{rule}\"")), "{}: {rule}", case.name);
        assert_eq!(Some(line), case.line(), "{}", case.name);
    }
}

fn line(file: &dockerfile::Dockerfile, warning: &dockerfile::Diagnostic) -> usize {
    dockerfile::error::line_of(&file.source, warning.span.start)
}
