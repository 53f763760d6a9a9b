//! docs/dockerfile.md against the parser: what it knows has a row, and what a row links to is there.

use std::collections::BTreeSet;

/// What the parser knows and the table does not name: instructions, `INSTRUCTION --flag`, and mount options as `key=`.
///
/// `instructions` and `mounts` are the texts of the parser's two tables (`crates/dockerfile/src/instruction.rs` and
/// `mount.rs`).
pub fn missing_rows(page: &str, instructions: &str, mounts: &str) -> Vec<String> {
    let named: BTreeSet<&str> = page.lines().filter_map(first_cell).flat_map(code).collect();
    let known = names(instructions).into_iter().chain(flags(instructions)).chain(mount_options(mounts));
    let missing = known.filter(|name| !named.contains(name.as_str()));
    missing.map(|name| format!("docs/dockerfile.md: there is no row for `{name}`")).collect()
}

/// Links of the page that lead nowhere. `exists` is asked for paths relative to the root of the repository.
pub fn broken_links(page: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    let gone = local.filter(|target| {
        let path = target.strip_prefix("../").map_or_else(|| format!("docs/{target}"), str::to_owned);
        !exists(&path)
    });
    gone.map(|target| format!("docs/dockerfile.md: `{target}` does not exist")).collect()
}

/// Rows without a link to a test.
pub fn untested_rows(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| first_cell(line).is_some_and(|cell| cell.contains('`')));
    let bare = rows.filter(|row| !row.contains("](../"));
    bare.map(|row| format!("docs/dockerfile.md: no test in the row of {}", first_cell(row).unwrap_or_default()))
        .collect()
}

fn first_cell(line: &str) -> Option<&str> {
    line.strip_prefix("| ")?.split(" | ").next()
}

/// What stands in backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `("ADD", Name::Add),`
fn names(source: &str) -> Vec<String> {
    pairs(source, "Name::").into_iter().map(|(text, _)| text).collect()
}

/// `Name::Add => &[` and then `("chown", Text),` as far as the bracket closes.
fn flags(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (variant, rest) in source.split("Name::").skip(1).filter_map(|part| part.split_once(" => &[")) {
        let list = rest.split_once(']').map_or(rest, |(list, _)| list);
        let Some(name) = pairs(source, "Name::").into_iter().find(|(_, known)| known == variant) else { continue };
        found.extend(["Text", "Bool", "List"].iter().flat_map(|kind| pairs(list, kind)).map(|(flag, _)| {
            let name = &name.0;
            format!("{name} --{flag}")
        }));
    }
    found
}

/// `("source", Key::Source),`
fn mount_options(source: &str) -> Vec<String> {
    let key = |(text, key): (String, String)| if key == "Type" { None } else { Some(format!("{text}=")) };
    pairs(source, "Key::").into_iter().filter_map(key).collect()
}

/// Texts and what follows the marker in `("text", MARKERrest)`.
fn pairs(source: &str, marker: &str) -> Vec<(String, String)> {
    let entry = |part: &str| {
        let (text, rest) = part.split_once("\", ")?;
        let (value, _) = rest.strip_prefix(marker)?.split_once(')')?;
        value.chars().all(char::is_alphanumeric).then(|| (text.to_owned(), value.to_owned()))
    };
    source.split("(\"").skip(1).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTRUCTIONS: &str = r#"
        const NAMES: [(&str, Name); 2] = [("ADD", Name::Add), ("USER", Name::User)];
        fn flags(self) { match self {
            Name::Add => &[
                ("chown", Text), ("link", Bool),
            ],
            Name::User => &[],
        } }"#;
    const MOUNTS: &str = r#"const KEYS: [(&str, Key); 2] = [("type", Key::Type), ("source", Key::Source)];"#;

    #[test]
    fn rows() {
        let whole = "| `ADD` | x |\n| `ADD --chown`, `ADD --link` | x |\n| `USER` | x |\n| `source=` | x |\n";
        assert_eq!(missing_rows(whole, INSTRUCTIONS, MOUNTS), [""; 0]);
        for (row, name) in [("`USER`", "USER"), ("`ADD --link`", "ADD --link"), ("`source=`", "source=")] {
            let missing = missing_rows(&whole.replace(row, "other"), INSTRUCTIONS, MOUNTS);
            assert_eq!(missing, [format!("docs/dockerfile.md: there is no row for `{name}`")]);
        }
        // Named somewhere else than in the first cell is not enough.
        assert_eq!(missing_rows(&whole.replace("| `USER` | x |", "| x | `USER` |"), INSTRUCTIONS, MOUNTS).len(), 1);
    }

    #[test]
    fn the_tables_of_the_parser_are_found() {
        let instructions = include_str!("../../crates/dockerfile/src/instruction.rs");
        let mounts = include_str!("../../crates/dockerfile/src/mount.rs");
        assert_eq!(names(instructions).len(), 18);
        assert_eq!(mount_options(mounts).len(), 18);
        let flags = flags(instructions);
        assert!(flags.contains(&"HEALTHCHECK --start-interval".to_owned()) && flags.len() > 20, "{flags:?}");
    }

    #[test]
    fn links() {
        let page = "[a](../here) [b](beside.md) [c](#below) [d](https://example.org/x) [e](../gone/)";
        let found = broken_links(page, |path| matches!(path, "here" | "docs/beside.md"));
        assert_eq!(found, ["docs/dockerfile.md: `../gone/` does not exist"]);
    }

    #[test]
    fn every_row_has_a_test() {
        let page = "| what | tests |\n| --- | --- |\n| `A` | [1](../x) |\n| `B` | none |\n";
        assert_eq!(untested_rows(page), ["docs/dockerfile.md: no test in the row of `B`"]);
    }
}
