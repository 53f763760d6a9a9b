//! Layers out of trees and into trees: what one makes of another, as a property over random edits.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zuwai_rootfs::commit::{CommitOptions, clone_tree, commit, commit_upper, snapshot};
use zuwai_rootfs::overlay::{Marks, follow_entries, make_upper, merge_down};
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
    /// Written again, given the mode it has, and the time it had.
    Touch(String),
    /// Replaced by one that is the same, time included.
    Again(String),
    /// Other content of the same size and time.
    Sneak(String),
    Remove(String),
    /// A directory is removed, and made again with all the directories that were below it.
    Empty(String),
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
        3 => path().prop_map(Edit::Touch),
        3 => path().prop_map(Edit::Again),
        2 => path().prop_map(Edit::Sneak),
        3 => path().prop_map(Edit::Remove),
        2 => path().prop_map(Edit::Empty),
        2 => (path(), path()).prop_map(|(from, to)| Edit::Rename(from, to)),
    ]
}

/// Edits that do not fit the tree as it is have no effect. Whether this one had one.
fn apply(tree: &Tree, edit: &Edit) -> bool {
    let path = Path::new;
    let real = |at: &String| tree.resolve(path(at), false).map(|path| tree.path().join(path));
    let is_file = |at| tree.stat(path(at)).ok().flatten().is_some_and(|found| found.kind == FileKind::File);
    match edit {
        Edit::Directory(at, mode) => tree.make_dir(path(at), *mode).is_ok(),
        Edit::File(at, text) => match tree.make_file(path(at)) {
            Ok(mut file) => file.write_all(text.as_bytes()).is_ok(),
            Err(_) => false,
        },
        // As a step would: the file itself is written to, all its names change.
        Edit::Append(at) if is_file(at) => {
            std::fs::OpenOptions::new().append(true).open(real(at).unwrap()).unwrap().write_all(b"more").unwrap();
            true
        }
        Edit::Symlink(at, target) => tree.make_symlink(path(target), path(at)).is_ok(),
        Edit::Link(at, target) => tree.make_link(path(target), path(at)).is_ok(),
        Edit::Fifo(at) => tree.make_node(path(at), FileKind::Fifo, (0, 0)).is_ok(),
        Edit::Device(at, number) => tree.make_node(path(at), FileKind::CharDevice, (*number, *number)).is_ok(),
        Edit::Mode(at, mode) => tree.set_mode(path(at), *mode).is_ok(),
        Edit::Owner(at, uid, gid) => tree.set_owner(path(at), *uid, *gid).is_ok(),
        // Only programs have them.
        Edit::Capability(at) if is_file(at) => {
            tree.set_xattr(path(at), OsStr::new("security.capability"), &CAPABILITY).is_ok()
        }
        Edit::Time(at, time) => tree.set_modified(path(at), (*time, 0)).is_ok(),
        Edit::Touch(at) if is_file(at) => rewrite(&real(at).unwrap(), |_| ()),
        Edit::Sneak(at) if is_file(at) => rewrite(&real(at).unwrap(), |bytes| bytes.reverse()),
        Edit::Again(at) => replace(tree, path(at)).is_some(),
        Edit::Remove(at) => tree.stat(path(at)).is_ok_and(|found| found.is_some()) && tree.remove(path(at)).is_ok(),
        Edit::Empty(at) => empty(tree, path(at)).is_some(),
        Edit::Rename(from, to) => match (real(from), real(to)) {
            (Ok(from), Ok(to)) => std::fs::rename(from, to).is_ok(),
            _ => false,
        },
        Edit::Append(_) | Edit::Capability(_) | Edit::Touch(_) | Edit::Sneak(_) => false,
    }
}

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Changes what is in a file and nothing else that can be seen.
fn rewrite(file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let before = std::fs::metadata(file).unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    let opened = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    opened.write_all_at(&bytes, 0).unwrap();
    opened.set_permissions(before.permissions()).unwrap();
    opened.set_modified(before.modified().unwrap()).unwrap();
    true
}

/// Puts a file, link or special file in the place of an equal one.
fn replace(tree: &Tree, path: &Path) -> Option<()> {
    let found = tree.stat(path).ok()??;
    let xattrs = tree.xattrs(path).ok()?;
    match found.kind {
        FileKind::Directory | FileKind::Socket => return None,
        FileKind::File => {
            let mut bytes = Vec::new();
            tree.open_file(path).ok()?.read_to_end(&mut bytes).unwrap();
            tree.remove(path).unwrap();
            tree.make_file(path).unwrap().write_all(&bytes).unwrap();
        }
        FileKind::Symlink => {
            let target = tree.read_link(path).ok()?;
            tree.remove(path).unwrap();
            tree.make_symlink(&target, path).unwrap();
        }
        kind => {
            tree.remove(path).unwrap();
            tree.make_node(path, kind, found.device).unwrap();
        }
    }
    tree.set_owner(path, found.uid, found.gid).unwrap();
    tree.set_mode(path, found.mode).unwrap();
    xattrs.iter().for_each(|(name, value)| tree.set_xattr(path, name, value).unwrap());
    tree.set_modified(path, found.modified).unwrap();
    Some(())
}

/// Replaces a directory by one that has the same directories below it, and no files.
fn empty(tree: &Tree, path: &Path) -> Option<()> {
    let is_directory = |at: &Path| tree.stat(at).ok().flatten().is_some_and(|found| found.kind == FileKind::Directory);
    if !is_directory(path) {
        return None;
    }
    let (mut pending, mut directories) = (vec![path.to_owned()], Vec::new());
    while let Some(directory) = pending.pop() {
        let below = tree.read_dir(&directory).unwrap().into_iter().map(|name| directory.join(name));
        pending.extend(below.filter(|at| is_directory(at)));
        directories.push(directory);
    }
    tree.remove(path).ok()?;
    directories.iter().for_each(|directory| tree.make_dir(directory, 0o755).unwrap());
    Some(())
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
    let source = source.remember_contents(&at("contents")).unwrap();
    let target = Tree::create(&at("target"), Some(&at("target-table"))).unwrap();
    let options = CommitOptions::default();
    let mut snapshot = None;
    for (round, edits) in rounds.iter().enumerate() {
        edits.iter().for_each(|edit| _ = apply(&source, edit));
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

/// A mounted overlay.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn mount(lowers: &str, upper: Option<&Path>, at: PathBuf, marks: Marks) -> std::io::Result<Mounted> {
    let mut options = format!("lowerdir={lowers},index=off");
    options += if marks == Marks::User { ",userxattr" } else { ",redirect_dir=off,metacopy=off" };
    if let Some(upper) = upper {
        let work = upper.with_extension("work");
        std::fs::create_dir(&work).unwrap();
        // Without waiting for the disk at every unmount.
        options += &format!(",volatile,upperdir={},workdir={}", upper.display(), work.display());
    }
    std::fs::create_dir(&at).unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount("overlay", &at, "overlay", rustix::mount::MountFlags::empty(), options.as_c_str())?;
    Ok(Mounted(at))
}

/// What edits through an overlay leave is what the overlay showed: in the layer, and in the directories below. With `split`
/// the rounds from that one on belong to another stage, which has a directory of its own on the first one's.
fn overlays_say_what_was_written(rounds: &[Vec<Edit>], split: usize, marks: Marks) {
    let outer = tempfile::tempdir().unwrap();
    let at = |name: &str| outer.path().join(name);
    let table = at("table");
    let target = Tree::create(&at("target"), Some(&at("target-table"))).unwrap();
    let first = Tree::create(&at("first"), Some(&table)).unwrap();
    let mut own = first.path().to_owned();
    let mut lowers = own.display().to_string();
    let mut view = None;
    for (round, edits) in rounds.iter().enumerate() {
        let before = view.as_ref().map_or(own.clone(), |view: &Mounted| view.0.clone());
        let before = Tree::open(&before, Some(&table)).unwrap();
        if before.has_entries() {
            // Such a stage is no overlay any more.
            return;
        }
        if round == split {
            own = at("second");
            make_upper(&own, &before).unwrap();
            lowers = format!("{}:{lowers}", own.display());
        }
        let upper = at(&format!("upper{round}"));
        make_upper(&upper, &before).unwrap();
        let mounted = mount(&lowers, Some(&upper), at(&format!("merged{round}")), marks).unwrap();
        let merged = Tree::open_overlay(&mounted.0, &table).unwrap();
        edits.iter().for_each(|edit| _ = apply(&merged, edit));

        let upper = Tree::open(&upper, Some(&table)).unwrap();
        let mut shown = describe(&merged);
        follow_entries(&mounted.0, &upper).unwrap();
        if upper.has_entries() {
            // What is copied up after it got an entry has lost it for this mount, but not for the layer.
            shown = BTreeMap::new();
        }
        let mut layer = Vec::new();
        commit_upper(&upper, &before, marks, &CommitOptions::default(), &mut layer).unwrap();
        unpack(&mut layer.as_slice(), &target, &Limits::NONE).unwrap();
        if !shown.is_empty() {
            assert_eq!(describe(&target), shown, "the layer of round {round}");
        }
        drop((merged, mounted, before));
        view = None;
        let stacked = round >= split;
        merge_down(&upper, &Tree::open(&own, None).unwrap(), marks, stacked.then_some(&first)).unwrap();
        if stacked {
            view = Some(mount(&lowers, None, at(&format!("view{round}")), marks).unwrap());
        }
        let after = view.as_ref().map_or(own.clone(), |view| view.0.clone());
        let after = Tree::open(&after, Some(&table)).unwrap();
        assert_eq!(describe(&after), describe(&target), "the files after round {round}");
    }
}

/// The same edits through an overlay and in a plain directory make the same layers, byte for byte. From the round `split` on the
/// plain directory is a copy, so that what is remembered of it comes from unpacking.
fn both_ways_to_commit_agree(rounds: &[Vec<Edit>], split: usize, marks: Marks) {
    let outer = tempfile::tempdir().unwrap();
    let at = |name: &str| outer.path().join(name);
    let plain_tree = |name: &str| {
        let tree = Tree::create(&at(name), Some(&at(&format!("{name}-table")))).unwrap();
        tree.remember_contents(&at(&format!("{name}-contents"))).unwrap()
    };
    let options = CommitOptions { clamp_modified: Some(0), ..CommitOptions::default() };
    let mut plain = plain_tree("plain");
    let mut recorded = snapshot(&plain, &at("record")).unwrap();
    let own = Tree::create(&at("own"), None).unwrap();
    for (round, edits) in rounds.iter().enumerate() {
        if round == split {
            let copy = plain_tree("copy");
            clone_tree(&plain, &copy).unwrap();
            (recorded, plain) = (snapshot(&copy, &at("record-of-copy")).unwrap(), copy);
        }
        // What an overlay made must not have the times of this round.
        std::thread::sleep(std::time::Duration::from_millis(12));
        let upper = at(&format!("upper{round}"));
        make_upper(&upper, &own).unwrap();
        let lower = own.path().display().to_string();
        let mounted = mount(&lower, Some(&upper), at(&format!("merged{round}")), marks).unwrap();
        let merged = Tree::open_overlay(&mounted.0, &at("table")).unwrap();
        for edit in edits {
            // Another name of a file that an earlier step brought is another file on an overlay once it is written to.
            let is_link = matches!(edit, Edit::Link(..)) && round + 1 < rounds.len();
            // An overlay does not rename directories of earlier steps.
            if !is_link && apply(&merged, edit) {
                assert!(apply(&plain, edit), "{edit:?}");
            }
        }
        let upper = Tree::open(&upper, None).unwrap();
        if merged.has_entries() || plain.has_entries() {
            // Such a stage is no overlay any more.
            return;
        }
        let (mut of_upper, mut of_plain) = (Vec::new(), Vec::new());
        commit_upper(&upper, &own, marks, &options, &mut of_upper).unwrap();
        let record = at(&format!("record{round}"));
        recorded = commit(&plain, Some(&recorded), &record, &options, &mut of_plain).unwrap().0;
        let names = |layer: &[u8]| {
            let mut archive = tar::Archive::new(layer);
            let entries = archive.entries().unwrap();
            entries.map(|entry| entry.unwrap().path().unwrap().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&of_plain), names(&of_upper), "round {round}");
        assert!(of_plain == of_upper, "headers or contents differ in round {round}");
        drop((merged, mounted));
        merge_down(&upper, &own, marks, None).unwrap();
    }
}

fn has_overlays(marks: Marks) -> bool {
    let probe = tempfile::tempdir().unwrap();
    std::fs::create_dir(probe.path().join("upper")).unwrap();
    let lower = probe.path().display().to_string();
    if let Err(error) = mount(&lower, None, probe.path().join("at"), marks).map(drop)
        && error.raw_os_error() == Some(libc::EPERM)
    {
        common::skipped("no overlays here");
        return false;
    }
    true
}

/// An overlay marks only the topmost directory of those that replace earlier ones; what the ones below it had is gone as well.
/// However they came there: made anew, moved there, or through a file or link that had the name meanwhile.
fn replaced_directories(marks: Marks) {
    if !has_overlays(marks) {
        return;
    }
    let directory = |at: &str| Edit::Directory(at.to_owned(), 0o755);
    let file = |at: &str| Edit::File(at.to_owned(), "text".to_owned());
    let remove = |at: &str| Edit::Remove(at.to_owned());
    let tree = |top: &str, name: &str| {
        let at = |below: &str| format!("{top}{below}");
        let directories = ["", "/x", "/x/y", "/x/y/z"].map(|below| directory(&at(below)));
        directories.into_iter().chain(["", "/x", "/x/y", "/x/y/z"].map(|below| file(&at(&format!("{below}/{name}")))))
    };
    let old: Vec<Edit> = [directory("p")].into_iter().chain(tree("p/d", "old")).collect();
    let rename = |from: &str, to: &str| Edit::Rename(from.to_owned(), to.to_owned());
    let link = Edit::Symlink("p/d".to_owned(), "x".to_owned());
    let anew: Vec<Edit> = [remove("p/d")].into_iter().chain(tree("p/d", "new")).collect();
    let moved: Vec<Edit> = tree("n", "new").chain([remove("p/d"), rename("n", "p/d")]).collect();
    let bare = ["p/d", "p/d/x", "p/d/x/y"].map(directory);
    let replaced: Vec<Vec<Vec<Edit>>> = vec![
        vec![anew.clone()],
        vec![moved],
        vec![[remove("p")].into_iter().chain([directory("p")]).chain(anew[1..].iter().cloned()).collect()],
        vec![vec![remove("p/d")], bare.to_vec()],
        vec![vec![remove("p/d"), file("p/d")], vec![remove("p/d")].into_iter().chain(bare.clone()).collect()],
        vec![vec![remove("p/d"), link], vec![remove("p/d")].into_iter().chain(bare.clone()).collect()],
        vec![vec![Edit::Empty("p/d/x".to_owned())], vec![Edit::Empty("p".to_owned()), file("p/d/x/y/z/newer")]],
        vec![vec![remove("p/d/x/y")], vec![remove("p/d/x"), directory("p/d/x"), directory("p/d/x/y")]],
    ];
    let after = vec![file("p/d/x/last"), Edit::Mode("p/d/x/y".to_owned(), 0o700)];
    for rounds in replaced {
        let rounds: Vec<_> = [old.clone()].into_iter().chain(rounds).chain([after.clone()]).collect();
        (0..4).for_each(|split| overlays_say_what_was_written(&rounds, split, marks));
        both_ways_to_commit_agree(&rounds, 0, marks);
    }
}

#[test]
fn directories_that_replace_others() {
    if !common::is_root() {
        return common::skipped("needs root");
    }
    common::with_own_mounts(false, "directories_that_replace_others", || replaced_directories(Marks::Trusted));
}

#[test]
fn directories_that_replace_others_in_a_namespace() {
    let name = "directories_that_replace_others_in_a_namespace";
    common::with_own_mounts(true, name, || replaced_directories(Marks::User));
}

fn run_overlay_property(marks: Marks) {
    if !has_overlays(marks) {
        return;
    }
    let rounds = prop::collection::vec(prop::collection::vec(edit(), 0..40), 1..5);
    let property = (rounds, 0..4usize);
    run_cases(60, &property, |(rounds, split)| overlays_say_what_was_written(&rounds, split, marks));
    run_cases(60, &property, |(rounds, split)| both_ways_to_commit_agree(&rounds, split, marks));
}

#[test]
fn random_edits_through_an_overlay() {
    if !common::is_root() {
        return common::skipped("needs root");
    }
    common::with_own_mounts(false, "random_edits_through_an_overlay", || run_overlay_property(Marks::Trusted));
}

#[test]
fn random_edits_through_an_overlay_of_a_namespace() {
    let name = "random_edits_through_an_overlay_of_a_namespace";
    common::with_own_mounts(true, name, || run_overlay_property(Marks::User));
}

fn run_property(cases: u32) {
    let rounds = prop::collection::vec(prop::collection::vec(edit(), 0..40), 1..4);
    run_cases(cases, &rounds, |rounds| layers_bring_the_other_tree_along(&rounds));
}

fn run_cases<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value)) {
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() };
    let result = proptest::test_runner::TestRunner::new(config).run(strategy, |value| {
        property(value);
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
