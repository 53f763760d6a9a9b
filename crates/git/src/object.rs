//! Commits, tags and trees as text and bytes.

use super::oid::{Format, Oid};
use super::{Fault, Result};

/// What a checkout needs of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    pub tree: Oid,
    /// Seconds since 1970.
    pub committed: i64,
    pub has_parents: bool,
}

impl Commit {
    pub fn parse(text: &[u8]) -> Result<Commit> {
        let (mut tree, mut committed, mut has_parents) = (None, None, false);
        for line in text.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty()) {
            if let Some(oid) = line.strip_prefix(b"tree ") {
                tree = tree.or(Some(Oid::parse(oid)?));
            } else if line.starts_with(b"parent ") {
                has_parents = true;
            } else if let Some(person) = line.strip_prefix(b"committer ") {
                committed = committed.or_else(|| seconds(person));
            }
        }
        let tree = tree.ok_or_else(|| Fault::server("a commit without a tree"))?;
        Ok(Commit { tree, committed: committed.unwrap_or(0), has_parents })
    }
}

/// Of `NAME <MAIL> SECONDS ZONE`.
fn seconds(person: &[u8]) -> Option<i64> {
    let end = person.iter().rposition(|byte| *byte == b'>')?;
    std::str::from_utf8(&person[end + 1..]).ok()?.split_whitespace().next()?.parse().ok()
}

/// What an annotated tag names.
pub fn tagged(text: &[u8]) -> Result<Oid> {
    let line = text.split(|byte| *byte == b'\n').next().and_then(|line| line.strip_prefix(b"object "));
    Oid::parse(line.ok_or_else(|| Fault::server("a tag that names nothing"))?)
}

/// One entry of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    pub kind: ItemKind,
    pub name: &'a [u8],
    pub oid: Oid,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemKind {
    Directory,
    File {
        executable: bool,
    },
    Link,
    /// A commit of another repository.
    Submodule,
}

impl ItemKind {
    /// As in the index.
    pub fn mode(self) -> u32 {
        match self {
            ItemKind::Directory => 0o040_000,
            ItemKind::File { executable: false } => 0o100_644,
            ItemKind::File { executable: true } => 0o100_755,
            ItemKind::Link => 0o120_000,
            ItemKind::Submodule => 0o160_000,
        }
    }
}

/// Takes the first entry off `rest`; none at the end.
///
/// # Errors
/// For broken bytes, an unknown mode, and a name that no checkout may write: see [`is_safe`].
pub fn next_item<'a>(rest: &mut &'a [u8], format: Format) -> Result<Option<Item<'a>>> {
    if rest.is_empty() {
        return Ok(None);
    }
    let broken = || Fault::server("a broken tree");
    let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
    let mode = std::str::from_utf8(&rest[..space]).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let mode = mode.and_then(|text| u32::from_str_radix(text, 8).ok()).ok_or_else(broken)?;
    let nul = rest[space..].iter().position(|byte| *byte == 0).ok_or_else(broken)? + space;
    let end = nul + 1 + format.length();
    let oid = Oid::new(rest.get(nul + 1..end).ok_or_else(broken)?)?;
    let name = &rest[space + 1..nul];
    let kind = match mode & 0o170_000 {
        0o040_000 => ItemKind::Directory,
        0o100_000 => ItemKind::File { executable: mode & 0o100 != 0 },
        0o120_000 => ItemKind::Link,
        0o160_000 => ItemKind::Submodule,
        _ => return Err(Fault::server(format!("a tree with an entry of mode {mode:o}"))),
    };
    if !is_safe(name) {
        return Err(Fault::server(format!("a tree with the name `{}`", String::from_utf8_lossy(name).escape_debug())));
    }
    if name.eq_ignore_ascii_case(b".gitmodules") && kind == ItemKind::Link {
        return Err(Fault::server("a `.gitmodules` that is a link"));
    }
    *rest = &rest[end..];
    Ok(Some(Item { kind, name, oid }))
}

/// Whether git would write something of that name: `verify_path` with `core.protectNTFS`, which is on everywhere.
pub fn is_safe(name: &[u8]) -> bool {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.len() > 255 {
        return false;
    }
    let is_git = |prefix: &[u8]| {
        let Some((beginning, rest)) = name.split_at_checked(prefix.len()) else { return false };
        let end = rest.iter().position(|byte| matches!(byte, b':' | b'\\')).unwrap_or(rest.len());
        beginning.eq_ignore_ascii_case(prefix) && rest[..end].iter().all(|byte| matches!(byte, b' ' | b'.'))
    };
    !is_git(b".git") && !is_git(b"git~1")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commits() {
        let text = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\n\
            author A <a> 1 +0000\ncommitter A > <a@b> 1577836800 +0100\n\ntree x";
        let commit = Commit::parse(text).unwrap();
        assert_eq!((commit.committed, commit.has_parents), (1_577_836_800, true));
        assert!(Commit::parse(b"author x\n\ntree 4b825dc642cb6eb9a060e54bf8d69288fbee4904").is_err());
        assert!(tagged(b"tag x").is_err());
    }

    fn tree(mode: &str, name: &[u8]) -> Vec<u8> {
        [mode.as_bytes(), b" ", name, b"\0", &[7; 20]].concat()
    }

    #[test]
    fn entries() {
        let bytes =
            [tree("40000", b"a"), tree("100664", b"b"), tree("100755", b"\xff\\"), tree("120000", b"d")].concat();
        let mut rest = &bytes[..];
        let mut got = Vec::new();
        while let Some(item) = next_item(&mut rest, Format::Sha1).unwrap() {
            got.push((item.kind, item.name));
        }
        let file = |executable| ItemKind::File { executable };
        let expected: Vec<(ItemKind, &[u8])> =
            vec![(ItemKind::Directory, b"a"), (file(false), b"b"), (file(true), b"\xff\\"), (ItemKind::Link, b"d")];
        assert_eq!(got, expected);
    }

    #[test]
    fn names_that_no_tree_may_have() {
        let names: [&[u8]; 14] = [
            b"",
            b".",
            b"..",
            b"a/b",
            b".git",
            b".GIT",
            b".git ",
            b".git. .",
            b".git::$INDEX_ALLOCATION",
            b"git~1",
            b"GIT~1",
            b".git\\x",
            b"/",
            &[b'x'; 256],
        ];
        for name in names {
            assert!(!is_safe(name), "{name:?}");
        }
        for name in [&b".gitignore"[..], b".gitx", b"git", b"git~2", b"a.git", b"...", b"\xff\n"] {
            assert!(is_safe(name), "{name:?}");
        }
        for (mode, name) in [("120000", &b".gitmodules"[..]), ("040001", b"..")] {
            assert!(next_item(&mut &tree(mode, name)[..], Format::Sha1).is_err());
        }
        assert!(next_item(&mut &tree("010000", b"x")[..], Format::Sha1).is_err(), "an unknown mode");
        assert!(next_item(&mut &tree("100644", b"x")[..20], Format::Sha1).is_err(), "cut");
    }

    proptest! {
        #[test]
        fn any_tree_ends(bytes in prop::collection::vec(prop_oneof![Just(b' '), Just(0), b'0'..=b'8', any::<u8>()], 0..120)) {
            let mut rest = &bytes[..];
            while let Ok(Some(item)) = next_item(&mut rest, Format::Sha1) {
                prop_assert!(is_safe(item.name));
            }
            let _ = (Commit::parse(&bytes), tagged(&bytes));
        }
    }
}
