//! The rules of this repository: floors, forbidden words, headers, licences. Each rule is a function from text to findings.

use crate::{language, licences};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floor of each crate (a folder below `crates/`): it may import floors below its own and no sibling. A new crate gets
/// its line here.
const FLOORS: [(&str, u8); 17] = [
    ("oci", 0),
    ("spawn", 0),
    ("dockerfile", 0),
    ("store", 1),
    ("rootfs", 1),
    ("net", 1),
    ("ssh", 1),
    ("auth", 1),
    ("registry", 2),
    ("sandbox", 2),
    ("git", 2),
    ("context", 3),
    ("build", 4),
    ("cli", 5),
    // Beside the house: tests may use it, nothing that ships may.
    ("testkit", DEV_ONLY),
    ("fuzzed", DEV_ONLY),
    ("xtask", DEV_ONLY),
];
const DEV_ONLY: u8 = u8::MAX;

/// Functions above this many lines are named in a note: a place to look, not a limit.
const LONG_FUNCTION: usize = 60;

/// A source file of this repository and its text.
pub struct Source {
    /// Relative to the root of the repository.
    pub path: String,
    pub text: String,
}

/// What the rules look at.
pub struct Repository {
    root: PathBuf,
    members: Vec<Member>,
    sources: Vec<Source>,
    /// (crate with its version, licence expression) of everything that the released binary is built from and with.
    graph: Vec<(String, String)>,
}

/// What was found: problems fail, notes do not.
#[derive(Default)]
pub struct Report {
    pub problems: Vec<String>,
    pub notes: Vec<String>,
}

impl Repository {
    /// Reads this repository. The crate graph is that of the released binary's platform.
    pub fn open() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies below the root")?.to_owned();
        let mut sources = Vec::new();
        for folder in ["crates", "xtask"] {
            read_sources(&root, &root.join(folder), &mut sources)?;
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { members: read_members(&root)?, graph: read_graph(&root)?, sources, root })
    }

    fn text(&self, path: &str) -> Result<String> {
        read(&self.root.join(path))
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read `{}`", path.display()))
}

/// The names in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let listed = fs::read_dir(folder).with_context(|| format!("could not list `{}`", folder.display()))?;
    let mut out =
        listed.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    out.sort();
    Ok(out)
}

fn read_sources(root: &Path, folder: &Path, into: &mut Vec<Source>) -> Result<()> {
    for name in entries(folder)? {
        let path = folder.join(name);
        if path.is_dir() {
            read_sources(root, &path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(Source { path: path.strip_prefix(root)?.display().to_string(), text: read(&path)? });
        }
    }
    Ok(())
}

fn read_members(root: &Path) -> Result<Vec<Member>> {
    let mut out = vec![Member::parse("xtask", &read(&root.join("xtask/Cargo.toml"))?)];
    for folder in entries(&root.join("crates"))? {
        out.push(Member::parse(&folder, &read(&root.join("crates").join(&folder).join("Cargo.toml"))?));
    }
    Ok(out)
}

fn read_graph(root: &Path) -> Result<Vec<(String, String)>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--prefix=none", "--edges=normal,build"])
        .args(["--target=x86_64-unknown-linux-musl", "--format={p}\t{l}"])
        .current_dir(root)
        .output()
        .context("could not run `cargo tree`")?;
    if !output.status.success() {
        bail!("`cargo tree` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("could not read `cargo tree`")?;
    let lines: BTreeSet<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let pairs = lines.into_iter().filter_map(|line| line.split_once('\t'));
    Ok(pairs.map(|(name, licence)| (name.to_owned(), licence.to_owned())).collect())
}

/// All rules.
pub fn check(repository: &Repository) -> Result<Report> {
    let mut report = Report::default();
    let members = &repository.members;
    report.problems.extend(wrong_imports(members, &FLOORS));
    report.problems.extend(members.iter().filter_map(missing_lints));
    for source in &repository.sources {
        report.problems.extend(forbidden_words(source));
        report.problems.extend(missing_header(source));
    }
    match repository.text("ARCHITECTURE.md") {
        Ok(text) => report.problems.extend(unlisted_crates(members, &text)),
        Err(_) => report.notes.push("there is no ARCHITECTURE.md yet".into()),
    }
    let cases = entries(&repository.root.join("conformance/cases"))?;
    report.problems.extend(wrong_expected_failures(&repository.text("conformance/expected-failures.txt")?, &cases));
    report.problems.extend(wrong_language_page(repository)?);
    report.problems.extend(wrong_dependencies(&repository.graph, &repository.text("deny.toml")?));
    report.notes.extend(long_functions(&repository.sources));
    Ok(report)
}

fn wrong_language_page(repository: &Repository) -> Result<Vec<String>> {
    let page = repository.text("docs/dockerfile.md")?;
    let instructions = repository.text("crates/dockerfile/src/instruction.rs")?;
    let mut out = language::missing_rows(&page, &instructions, &repository.text("crates/dockerfile/src/mount.rs")?);
    out.extend(language::broken_links(&page, |path| repository.root.join(path).exists()));
    out.extend(language::untested_rows(&page));
    Ok(out)
}

// ---- crates

/// A crate of this repository and the crates it names, ours and others.
#[derive(Default)]
pub struct Member {
    name: String,
    takes_lints: bool,
    ships_with: Vec<String>,
    tests_with: Vec<String>,
}

impl Member {
    /// Reads the sections of a manifest. One dependency per line, as everywhere in this repository.
    fn parse(name: &str, manifest: &str) -> Self {
        let mut out = Self { name: name.to_owned(), ..Self::default() };
        let mut section = "";
        for line in manifest.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix('[') {
                section = head.trim_end_matches(']');
            } else if let Some((key, value)) = line.split_once('=') {
                let key = key.split('.').next().unwrap_or_default().trim().to_owned();
                match section.rsplit('.').next() {
                    Some("lints") => out.takes_lints |= key == "workspace" && value.trim() == "true",
                    Some("dependencies" | "build-dependencies") => out.ships_with.push(key),
                    Some("dev-dependencies") => out.tests_with.push(key),
                    _ => {}
                }
            }
        }
        out
    }
}

/// Imports that go up or sideways, crates without a floor, and floors without a crate.
fn wrong_imports(members: &[Member], floors: &[(&str, u8)]) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = floors.iter().copied().collect();
    let mut out = Vec::new();
    for member in members {
        let name = member.name.as_str();
        let Some(&own) = floors.get(name) else {
            out.push(format!("crate `{name}` has no floor: give it one in xtask/src/tidy.rs"));
            continue;
        };
        for import in &member.ships_with {
            match floors.get(import.as_str()) {
                Some(&DEV_ONLY) => out.push(format!("crate `{name}` ships with `{import}`, which is for tests only")),
                Some(&floor) if floor >= own => {
                    out.push(format!(
                        "crate `{name}` (floor {own}) imports `{import}` (floor {floor}): only floors below"
                    ));
                }
                _ => {}
            }
        }
        for import in &member.tests_with {
            if floors.get(import.as_str()).is_some_and(|&floor| floor >= own && floor != DEV_ONLY) {
                out.push(format!("tests of crate `{name}` import `{import}`: only floors below and the test kit"));
            }
        }
    }
    let gone = floors.keys().filter(|name| !members.iter().any(|member| member.name == **name));
    out.extend(gone.map(|name| format!("xtask/src/tidy.rs gives `{name}` a floor, but there is no such crate")));
    out
}

/// A manifest that does not take the workspace's lints.
fn missing_lints(member: &Member) -> Option<String> {
    (!member.takes_lints).then(|| format!("crate `{}`: its manifest lacks `[lints] workspace = true`", member.name))
}

/// Crates that the map of the code does not mention.
fn unlisted_crates(members: &[Member], architecture: &str) -> Vec<String> {
    let rows: Vec<&str> = architecture.lines().filter(|line| line.starts_with('|')).collect();
    let names = members.iter().map(|member| member.name.as_str());
    let listed = |name: &str| {
        rows.iter().any(|row| row.contains(&format!("`{name}`")) || row.contains(&format!("crates/{name}")))
    };
    names
        .filter(|name| !listed(name))
        .map(|name| format!("ARCHITECTURE.md: no row of a table names `{name}`"))
        .collect()
}

/// Licences that `deny.toml` does not allow and crates that it bans.
fn wrong_dependencies(graph: &[(String, String)], deny: &str) -> Vec<String> {
    let allowed = strings_of(deny, "allow = [");
    let banned = strings_of(deny, "deny = [");
    let mut out = Vec::new();
    for (package, licence) in graph {
        if !licences::satisfied(licence, &allowed) {
            out.push(format!("crate `{package}` has the licence `{licence}`, which deny.toml does not allow"));
        }
        if banned.iter().any(|name| package.split(' ').next() == Some(name)) {
            out.push(format!("crate `{package}` is in the graph, but deny.toml bans it"));
        }
    }
    out
}

/// The first string of each line of a TOML array that begins with the line `start` and ends with a line `]`.
fn strings_of(toml: &str, start: &str) -> Vec<String> {
    let lines = toml.lines().skip_while(|line| line.trim() != start).skip(1).take_while(|line| line.trim() != "]");
    lines.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

// ---- source files

/// Words that do not belong into the code: silenced lints, unfinished work, and plans that no issue holds.
fn forbidden_words(source: &Source) -> Vec<String> {
    // Put together here, so that this file does not contain them.
    let rules = [
        (["#[", "allow("].concat(), "silence a lint with `#[expect(..., reason = \"…\")]`"),
        (["#![", "allow("].concat(), "silence a lint with `#![expect(..., reason = \"…\")]`"),
        (["to", "do!("].concat(), "finish it, or return an error that says what is missing"),
        (["unimple", "mented!("].concat(), "finish it, or return an error that says what is missing"),
    ];
    let plans = [["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    let mut out = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let place = format!("{}:{}", source.path, number + 1);
        for (word, hint) in &rules {
            // What several test programs include is used whole by none of them: an expectation would fail in some.
            let shared = source.path.ends_with("tests/common/mod.rs") && line.contains("reason = ");
            if line.contains(word.as_str()) && !shared {
                out.push(format!("{place}: `{word}`: {hint}"));
            }
        }
        if plans.iter().any(|plan| line.contains(plan.as_str())) && !names_an_issue(line) {
            out.push(format!("{place}: a plan needs its issue (`#123`)"));
        }
    }
    out
}

fn names_an_issue(line: &str) -> bool {
    line.split('#').skip(1).any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Every file says at its top what the room is for.
fn missing_header(source: &Source) -> Option<String> {
    let start = source.text.trim_start();
    (!start.starts_with("//!")).then(|| format!("{}: begins without a module comment (`//!`)", source.path))
}

/// Functions that are worth a look, the longest first; tests are not looked at.
fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut found: Vec<(usize, String)> =
        sources.iter().flat_map(function_lengths).filter(|(length, _)| *length > LONG_FUNCTION).collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(length, place)| format!("{place} has {length} lines")).collect()
}

/// (lines, place and name) of each function outside of test modules. Relies on rustfmt: a function ends at the first line
/// that is its own indentation and a closing brace.
fn function_lengths(source: &Source) -> Vec<(usize, String)> {
    if source.path.contains("/tests/") || source.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let shipped = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines: Vec<&str> = shipped.lines().collect();
    let mut out = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        if line.ends_with(['}', ';']) {
            continue; // a body on one line, or a method that a trait only declares
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let last = |later: &&str| {
            later.strip_prefix(indent).is_some_and(|rest| rest == "}" || (rest.starts_with(')') && rest.ends_with(';')))
        };
        if let Some(length) = lines[start..].iter().position(last) {
            out.push((length + 1, format!("{}:{} `{name}`", source.path, start + 1)));
        }
    }
    out
}

/// The name of the function whose head begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if rest.starts_with("//") {
        return None;
    }
    for word in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
}

// ---- conformance

/// The list of known failures: each line a case that exists and a reason, sorted, none twice.
fn wrong_expected_failures(text: &str, cases: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut last = "";
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("conformance/expected-failures.txt:{}", number + 1);
        let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if !cases.iter().any(|case| case == name) {
            out.push(format!("{place}: there is no case `{name}`"));
        }
        if reason.trim().is_empty() {
            out.push(format!("{place}: `{name}` has no reason"));
        }
        if name <= last {
            out.push(format!("{place}: `{name}` is out of order"));
        }
        last = name;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, ships_with: &[&str], tests_with: &[&str]) -> Member {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Member { name: name.into(), takes_lints: true, ships_with: owned(ships_with), tests_with: owned(tests_with) }
    }

    #[test]
    fn manifests() {
        let text = "[package]\nname = \"x\"\n[lints]\nworkspace = true\n[dependencies]\noci.workspace = true\n# no = 1\n\
                    [target.'cfg(target_env = \"musl\")'.dependencies]\nmimalloc = { version = \"1\" }\n\
                    [dev-dependencies]\ntestkit.workspace = true\n";
        let member = Member::parse("x", text);
        assert_eq!(member.ships_with, ["oci", "mimalloc"]);
        assert_eq!(member.tests_with, ["testkit"]);
        assert!(member.takes_lints && !Member::parse("x", "[package]\nname = \"x\"\n").takes_lints);
    }

    #[test]
    fn dependencies() {
        let deny = "allow = [\n    \"MIT\",\n]\ndeny = [\n    { crate = \"bad\", reason = \"x\" },\n]\n";
        let check = |name: &str, licence: &str| wrong_dependencies(&[(name.into(), licence.into())], deny).len();
        assert_eq!(check("good v1.0.0", "MIT OR GPL-3.0-only"), 0);
        assert_eq!(check("bad v1.0.0", "MIT"), 1);
        assert_eq!(check("badly v1.0.0 (proc-macro)", "MIT"), 0);
        assert_eq!(check("good v1.0.0", "GPL-3.0-only"), 1);
    }

    #[test]
    fn imports_go_down_only() {
        let floors = [("a", 0), ("b", 0), ("c", 1), ("kit", DEV_ONLY)];
        let check = |changed: Member| {
            let mut members = vec![
                member("a", &["serde"], &[]),
                member("b", &[], &[]),
                member("c", &["a", "b"], &["kit"]),
                member("kit", &["c"], &[]),
            ];
            members.retain(|member| member.name != changed.name);
            members.push(changed);
            wrong_imports(&members, &floors)
        };
        assert_eq!(check(member("c", &["a"], &["b", "kit"])), [""; 0]);
        for (changed, said) in [
            (member("a", &["b"], &[]), "imports `b` (floor 0)"),
            (member("a", &["c"], &[]), "imports `c` (floor 1)"),
            (member("c", &["kit"], &[]), "for tests only"),
            (member("a", &[], &["c"]), "tests of crate `a`"),
            (member("new", &[], &[]), "has no floor"),
        ] {
            let found = check(changed);
            assert!(found.len() == 1 && found[0].contains(said), "{said}: {found:?}");
        }
        assert!(wrong_imports(&[member("a", &[], &[])], &floors)[0].contains("there is no such crate"));
    }

    #[test]
    fn words() {
        let find = |line: String| forbidden_words(&Source { path: "x.rs".into(), text: line }).len();
        let shared = ["#![", "allow(dead_code, reason = \"each test program uses a part\")]"].concat();
        assert_eq!(find(shared.clone()), 1);
        assert_eq!(forbidden_words(&Source { path: "crates/a/tests/common/mod.rs".into(), text: shared }), [""; 0]);
        let plan = ["TO", "DO"].concat();
        for (line, expected) in [
            (["#[", "allow(dead_code)]"].concat(), 1),
            ("#[expect(dead_code, reason = \"x\")]".to_owned(), 0),
            (["    to", "do!()"].concat(), 1),
            (format!("// {plan}: later"), 1),
            (format!("// {plan}(#12): later"), 0),
            (format!("// {plan} # later"), 1),
        ] {
            assert_eq!(find(line.clone()), expected, "{line}");
        }
    }

    #[test]
    fn headers_and_lengths() {
        let text = "//! Room.\n\npub fn short() {}\n\nimpl A {\n    pub(crate) async fn long(\n        &self,\n    ) -> B {\n        body()\n    }\n}\n#[cfg(test)]\nfn tests() {\n}\n";
        let source = Source { path: "x.rs".into(), text: text.into() };
        assert_eq!(missing_header(&source), None);
        assert_eq!(function_lengths(&source), [(5, "x.rs:6 `long`".to_owned())]);
        assert!(missing_header(&Source { path: "x.rs".into(), text: "fn main() {}".into() }).is_some());
    }

    #[test]
    fn expected_failures() {
        let cases = ["001-a", "002-b"].map(str::to_owned);
        for (text, expected) in [
            ("# head\n001-a  why\n\n002-b\twhy not\n", 0),
            ("002-b  why\n001-a  why\n", 1),
            ("001-a  why\n001-a  why\n", 1),
            ("001-a\n", 1),
            ("003-c  why\n", 1),
        ] {
            assert_eq!(wrong_expected_failures(text, &cases).len(), expected, "{text:?}");
        }
    }

    #[test]
    fn crates_in_the_map() {
        let members = [member("oci", &[], &[]), member("net", &[], &[])];
        assert_eq!(unlisted_crates(&members, "| `oci` | nouns |\n| crates/net | HTTP |\n"), [""; 0]);
        assert_eq!(unlisted_crates(&members, "| `oci` | nouns |\nnet is not in the table\n").len(), 1);
    }

    #[test]
    fn arrays_of_deny_toml() {
        let toml = "allow = [\n    \"MIT\",\n]\ndeny = [\n    { crate = \"bad\", reason = \"x\" },\n]\n";
        assert_eq!(strings_of(toml, "allow = ["), ["MIT"]);
        assert_eq!(strings_of(toml, "deny = ["), ["bad"]);
    }
}
