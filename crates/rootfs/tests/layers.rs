//! Layers out of trees and into trees: what one makes of another, as a property over random edits.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zuwai_rootfs::commit::{CommitOptions, clone_tree, commit};
use zuwai_rootfs::unpack::{Limits, unpack};
use zuwai_rootfs::{FileKind, Tree};

#[derive(Clone, Debug)]
enum Edit {
    Directory(String, u32),
    File(String, String),
    Append(String),
    Symlink(String, String),
    Link(String, String),
    Fifo(String),
    Device(String, u32),
    Mode(String, u32),
    Owner(String, u32, u32),
    Capability(String),
    Time(String, i64),
    Remove(String),
    Rename(String, String),
}

fn name() -> impl Strategy<Value = String> {
    let names = ["a", "b", "c", "a-b", ".x", "wh.a", "é\u{1}", &"n".repeat(90), &"long".repeat(40)];
    prop::sample::select(names.map(str::to_owned).to_vec())
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

fn edit() -> impl Strategy<Value = Edit> {
    let id = prop::sample::select(vec![0, 1, 1000, 2_097_151, 2_097_152, 4_294_967_294u32]);
    prop_oneof![
        4 => (path(), 0..0o10000u32).prop_map(|(path, mode)| Edit::Directory(path, mode)),
        4 => (path(), "[a-z]{0,5}").prop_map(|(path, text)| Edit::File(path, text)),
        2 => path().prop_map(Edit::Append),
        2 => (path(), path()).prop_map(|(path, target)| Edit::Symlink(path, target)),
        2 => (path(), path()).prop_map(|(path, target)| Edit::Link(path, target)),
        1 => path().prop_map(Edit::Fifo),
        1 => (path(), 0..300u32).prop_map(|(path, number)| Edit::Device(path, number)),
        2 => (path(), 0..0o10000u32).prop_map(|(path, mode)| Edit::Mode(path, mode)),
        2 => (path(), id.clone(), id).prop_map(|(path, uid, gid)| Edit::Owner(path, uid, gid)),
        1 => path().prop_map(Edit::Capability),
        1 => (path(), -3..i64::from(u32::MAX)).prop_map(|(path, time)| Edit::Time(path, time)),
        3 => path().prop_map(Edit::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Edit::Rename(from, to)),
    ]
}

/// Edits that do not fit the tree as it is have no effect.
fn apply(tree: &Tree, edit: &Edit) {
    let path = Path::new;
    match edit {
        Edit::Directory(at, mode) => drop(tree.make_dir(path(at), *mode)),
        Edit::File(at, text) => {
            if let Ok(mut file) = tree.make_file(path(at)) {
                file.write_all(text.as_bytes()).unwrap();
            }
        }
        Edit::Append(at) => {
            // As a step would: the file itself is written to, all its names change.
            if tree.stat(path(at)).ok().flatten().is_some_and(|found| found.kind == FileKind::File) {
                let real = tree.path().join(tree.resolve(path(at), false).unwrap());
                std::fs::OpenOptions::new().append(true).open(real).unwrap().write_all(b"more").unwrap();
            }
        }
        Edit::Symlink(at, target) => drop(tree.make_symlink(path(target), path(at))),
        Edit::Link(at, target) => drop(tree.make_link(path(target), path(at))),
        Edit::Fifo(at) => drop(tree.make_node(path(at), FileKind::Fifo, (0, 0))),
        Edit::Device(at, number) => drop(tree.make_node(path(at), FileKind::CharDevice, (*number, *number))),
        Edit::Mode(at, mode) => drop(tree.set_mode(path(at), *mode)),
        Edit::Owner(at, uid, gid) => drop(tree.set_owner(path(at), *uid, *gid)),
        Edit::Capability(at) => {
            // Only programs have them.
            if tree.stat(path(at)).ok().flatten().is_none_or(|found| found.kind != FileKind::File) {
                return;
            }
            let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            drop(tree.set_xattr(path(at), OsStr::new("security.capability"), &value));
        }
        Edit::Time(at, time) => drop(tree.set_modified(path(at), (*time, 0))),
        Edit::Remove(at) => drop(tree.remove(path(at))),
        Edit::Rename(from, to) => {
            let real = |at: &String| tree.resolve(path(at), false).map(|path| tree.path().join(path));
            if let (Ok(from), Ok(to)) = (real(from), real(to)) {
                drop(std::fs::rename(from, to));
            }
        }
    }
}

/// Everything a layer says about a tree. Times of directories are left out: they alone are no change.
fn describe(tree: &Tree) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for name in tree.read_dir(&directory).unwrap() {
            let path = directory.join(name);
            let found = tree.stat(&path).unwrap().unwrap();
            let mut text = format!("{:?} {}:{}", found.kind, found.uid, found.gid);
            if found.kind != FileKind::Symlink {
                text += &format!(" {:o} {:?} {:?}", found.mode, found.device, tree.xattrs(&path).unwrap());
            }
            match found.kind {
                FileKind::Directory => pending.push(path.clone()),
                FileKind::Symlink => text += &format!(" {:?}", tree.read_link(&path).unwrap()),
                FileKind::File => {
                    let mut content = Vec::new();
                    tree.open_file(&path).unwrap().read_to_end(&mut content).unwrap();
                    text += &format!(" {:?} {}", String::from_utf8_lossy(&content), found.modified.0);
                }
                _ => text += &format!(" {}", found.modified.0),
            }
            all.insert(path, text);
        }
    }
    all
}

/// Names that are links of each other.
fn link_groups(tree: &Tree) -> BTreeMap<u64, Vec<PathBuf>> {
    let mut groups: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for path in describe(tree).into_keys() {
        groups.entry(tree.stat(&path).unwrap().unwrap().inode).or_default().push(path);
    }
    groups
}

fn assert_same_links(a: &Tree, b: &Tree) {
    let groups = |tree| link_groups(tree).into_values().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(groups(a), groups(b));
}

fn layers_bring_the_other_tree_along(rounds: &[Vec<Edit>]) {
    let outer = tempfile::tempdir().unwrap();
    let at = |name: &str| outer.path().join(name);
    let source = Tree::create(&at("source"), Some(&at("source-table"))).unwrap();
    let target = Tree::create(&at("target"), Some(&at("target-table"))).unwrap();
    let options = CommitOptions::default();
    let mut snapshot = None;
    for (round, edits) in rounds.iter().enumerate() {
        edits.iter().for_each(|edit| apply(&source, edit));
        let mut layer = Vec::new();
        let record = at(&format!("record{round}"));
        let (next, _) = commit(&source, snapshot.as_ref(), &record, &options, &mut layer).unwrap();
        unpack(&mut layer.as_slice(), &target, &Limits::NONE).unwrap();
        assert_eq!(describe(&target), describe(&source), "round {round}");
        if round == 0 {
            assert_same_links(&target, &source);
            let mut again = Vec::new();
            commit(&target, None, &at("again"), &options, &mut again).unwrap();
            assert!(again == layer, "the same tree gives the same bytes");
        }
        let mut nothing = Vec::new();
        let (_, committed) = commit(&source, Some(&next), &at("nothing"), &options, &mut nothing).unwrap();
        assert_eq!((committed.entries, nothing.len()), (0, 1024), "no change, no entry");
        snapshot = Some(next);
    }
    let copy = Tree::create(&at("copy"), Some(&at("copy-table"))).unwrap();
    clone_tree(&source, &copy).unwrap();
    assert_eq!(describe(&copy), describe(&source));
    assert_same_links(&copy, &source);
}

fn run_property(cases: u32) {
    let rounds = prop::collection::vec(prop::collection::vec(edit(), 0..40), 1..4);
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() };
    let result = proptest::test_runner::TestRunner::new(config).run(&rounds, |rounds| {
        layers_bring_the_other_tree_along(&rounds);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn random_edits() {
    run_property(150);
}

#[test]
fn random_edits_of_a_plain_user() {
    common::as_plain_user("random_edits_of_a_plain_user", || run_property(60));
}

#[test]
fn random_edits_of_root_of_a_namespace() {
    common::as_root_of_a_namespace("random_edits_of_root_of_a_namespace", || run_property(60));
}
