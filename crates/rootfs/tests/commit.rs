//! What a step did, and what of it is in its layer.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Timespec, Timestamps};
use zuwai_rootfs::commit::{CommitOptions, Snapshot, Written, clone_tree, commit, snapshot};
use zuwai_rootfs::unpack::{Limits, unpack};
use zuwai_rootfs::{FileKind, RootfsError, Tree};

struct Stage {
    outer: tempfile::TempDir,
    tree: Tree,
}

impl Stage {
    fn new() -> Stage {
        let outer = tempfile::tempdir().unwrap();
        let tree = Tree::create(&outer.path().join("root"), Some(&outer.path().join("table"))).unwrap();
        let stage = Stage { outer, tree };
        for directory in ["d", "d/sub", "empty"] {
            fs::create_dir(stage.at(directory)).unwrap();
        }
        for file in ["d/a", "d/b", "d/sub/c", "f"] {
            fs::write(stage.at(file), file).unwrap();
        }
        fs::hard_link(stage.at("d/a"), stage.at("twin")).unwrap();
        symlink("f", stage.at("link")).unwrap();
        stage
    }

    /// A copy of which contents are remembered, in one way or the other.
    fn remembering(self, how: &str) -> Stage {
        let outer = tempfile::tempdir().unwrap();
        let open = |outer: &Path| Tree::create(&outer.join("root"), Some(&outer.join("table"))).unwrap();
        let with_list = |tree: Tree, outer: &Path| tree.remember_contents(&outer.join("contents")).unwrap();
        let tree = match how {
            "unpacked" | "committed" => {
                let tree = with_list(open(outer.path()), outer.path());
                clone_tree(&self.tree, &tree).unwrap();
                tree
            }
            _ => {
                let tree = open(outer.path());
                clone_tree(&self.tree, &tree).unwrap();
                if how == "read" { with_list(tree, outer.path()) } else { tree }
            }
        };
        Stage { outer, tree }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.outer.path().join("root").join(path)
    }

    fn record(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    fn snapshot(&self) -> Snapshot {
        snapshot(&self.tree, &self.record("before")).unwrap()
    }

    fn commit(&self, before: &Snapshot, options: &CommitOptions) -> Result<Vec<u8>, RootfsError> {
        let mut layer = Vec::new();
        commit(&self.tree, Some(before), &self.record("after"), options, &mut layer)?;
        Ok(layer)
    }
}

/// Names in a layer, links with their targets, in order.
fn list(layer: &[u8]) -> String {
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let mut text = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if let Some(target) = entry.link_name_bytes() {
            let arrow = if entry.header().entry_type().is_symlink() { "->" } else { "=" };
            text += &format!("{arrow}{}", String::from_utf8_lossy(&target));
        }
        text
    });
    entries.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_a_step_did_is_in_its_layer() {
    type Step = fn(&Stage);
    let cases: [(&str, Step, &str); 27] = [
        ("nothing", |_| {}, ""),
        ("read", |s| drop(fs::read(s.at("f")).unwrap()), ""),
        (
            "made and removed",
            |s| {
                fs::write(s.at("d/x"), "").unwrap();
                fs::remove_file(s.at("d/x")).unwrap();
            },
            "",
        ),
        ("new file", |s| fs::write(s.at("d/sub/x"), "1").unwrap(), "d/ d/sub/ d/sub/x"),
        ("same size", |s| fs::write(s.at("f"), "g").unwrap(), "f"),
        (
            "same size, same time",
            |s| {
                let modified = fs::metadata(s.at("f")).unwrap().modified().unwrap();
                let file = File::options().write(true).open(s.at("f")).unwrap();
                file.write_at(b"g", 0).unwrap();
                file.set_modified(modified).unwrap();
            },
            "f",
        ),
        (
            "removed and made again",
            |s| {
                fs::remove_file(s.at("f")).unwrap();
                fs::write(s.at("f"), "f").unwrap();
            },
            "f",
        ),
        ("one of two names is removed", |s| fs::remove_file(s.at("twin")).unwrap(), ".wh.twin"),
        ("both names are written to", |s| fs::write(s.at("twin"), "x").unwrap(), "d/ d/a twin=d/a"),
        ("a new name of an old file", |s| fs::hard_link(s.at("f"), s.at("e")).unwrap(), "e"),
        ("a new name between its others", |s| fs::hard_link(s.at("twin"), s.at("d/aa")).unwrap(), "d/ d/aa"),
        (
            "new links",
            |s| {
                fs::write(s.at("x"), "").unwrap();
                fs::hard_link(s.at("x"), s.at("d/y")).unwrap();
            },
            "d/ d/y x=d/y",
        ),
        ("removed file", |s| fs::remove_file(s.at("d/sub/c")).unwrap(), "d/ d/sub/ d/sub/.wh.c"),
        ("removed directory", |s| fs::remove_dir_all(s.at("d")).unwrap(), ".wh.d"),
        (
            "first and last",
            |s| {
                fs::remove_dir(s.at("empty")).unwrap();
                fs::remove_file(s.at("twin")).unwrap();
                fs::remove_file(s.at("d/a")).unwrap();
            },
            "d/ d/.wh.a .wh.empty .wh.twin",
        ),
        (
            "mode of a directory",
            |s| {
                fs::set_permissions(s.at("d/sub"), fs::Permissions::from_mode(0o700)).unwrap();
            },
            "d/ d/sub/",
        ),
        ("mode of a file", |s| fs::set_permissions(s.at("f"), fs::Permissions::from_mode(0o4755)).unwrap(), "f"),
        (
            "directory to file",
            |s| {
                fs::remove_dir_all(s.at("d")).unwrap();
                fs::write(s.at("d"), "").unwrap();
            },
            "d",
        ),
        (
            "file to directory",
            |s| {
                fs::remove_file(s.at("f")).unwrap();
                fs::create_dir(s.at("f")).unwrap();
                fs::write(s.at("f/x"), "").unwrap();
            },
            "f/ f/x",
        ),
        (
            "directory to link",
            |s| {
                fs::remove_dir_all(s.at("d")).unwrap();
                symlink("empty", s.at("d")).unwrap();
            },
            "d->empty",
        ),
        (
            "new directory of the old name",
            |s| {
                fs::remove_dir_all(s.at("d")).unwrap();
                fs::create_dir(s.at("d")).unwrap();
                fs::write(s.at("d/b"), "new").unwrap();
            },
            "d/ d/.wh.a d/b d/.wh.sub",
        ),
        ("directory renamed", |s| fs::rename(s.at("d"), s.at("e")).unwrap(), ".wh.d e/ e/a e/b e/sub/ e/sub/c"),
        (
            "directories swapped",
            |s| {
                fs::rename(s.at("empty"), s.at("x")).unwrap();
                fs::rename(s.at("d"), s.at("empty")).unwrap();
                fs::rename(s.at("x"), s.at("d")).unwrap();
            },
            "d/ d/.wh.a d/.wh.b d/.wh.sub empty/ empty/a empty/b empty/sub/ empty/sub/c",
        ),
        (
            "link to elsewhere",
            |s| {
                fs::remove_file(s.at("link")).unwrap();
                symlink("elsewhere", s.at("link")).unwrap();
            },
            "link->elsewhere",
        ),
        ("socket", |s| drop(std::os::unix::net::UnixListener::bind(s.at("s")).unwrap()), ""),
        (
            "names close to whiteouts",
            |s| {
                fs::write(s.at(".wh"), "").unwrap();
                fs::write(s.at(".w"), "").unwrap();
            },
            ".w .wh",
        ),
        (
            "order of bytes",
            |s| {
                for name in ["d-", "d/z", "d0", "É"] {
                    fs::write(s.at(name), "").unwrap();
                }
            },
            "d/ d/z d- d0 É",
        ),
    ];
    for (what, step, expected) in cases {
        let stage = Stage::new();
        let before = stage.snapshot();
        step(&stage);
        let layer = stage.commit(&before, &CommitOptions::default()).unwrap();
        assert_eq!(list(&layer), expected, "{what}");
    }
}

/// Gives `change` a path in the place of `file`, then has it look as the file did, apart from change time and inode.
fn unseen(file: &Path, change: impl FnOnce(&Path)) {
    let before = fs::symlink_metadata(file).unwrap();
    change(file);
    if !before.is_symlink() {
        fs::set_permissions(file, before.permissions()).unwrap();
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(before.atime(), before.atime_nsec()),
        last_modification: time(before.mtime(), before.mtime_nsec()),
    };
    rustix::fs::utimensat(rustix::fs::CWD, file, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn remake(file: &Path, make: impl FnOnce(&Path)) {
    unseen(file, |file| {
        fs::remove_file(file).unwrap();
        make(file);
    });
}

/// What a step touches and leaves as it was is in no layer where contents are remembered: those that unpacking brought, those
/// that a first record read, those of an earlier step. Where they are not, whatever was touched is.
#[test]
fn what_was_touched_and_left_as_it_was() {
    type Step = fn(&Stage);
    let cases: [(&str, Step, &str, &str); 13] = [
        ("the mode it has", |s| unseen(&s.at("f"), |_| ()), "", "f"),
        ("the owner it has", |s| std::os::unix::fs::lchown(s.at("link"), None, None).unwrap(), "", "link->f"),
        ("written to, the same", |s| unseen(&s.at("f"), |file| fs::write(file, "f").unwrap()), "", "f"),
        ("written to, another", |s| unseen(&s.at("f"), |file| fs::write(file, "g").unwrap()), "f", "f"),
        ("made again, the same", |s| remake(&s.at("f"), |file| fs::write(file, "f").unwrap()), "", "f"),
        ("made again, another", |s| remake(&s.at("f"), |file| fs::write(file, "g").unwrap()), "f", "f"),
        ("link made again, the same", |s| remake(&s.at("link"), |at| symlink("f", at).unwrap()), "", "link->f"),
        ("link made again, another", |s| remake(&s.at("link"), |at| symlink("d", at).unwrap()), "link->d", "link->d"),
        ("fifo made again", |s| remake(&s.at("fifo"), make_fifo), "", ""),
        (
            "same content, later",
            |s| {
                fs::remove_file(s.at("f")).unwrap();
                fs::write(s.at("f"), "f").unwrap();
            },
            "f",
            "f",
        ),
        ("the mode that two names have", |s| unseen(&s.at("twin"), |_| ()), "", "d/ d/a twin=d/a"),
        ("a name moved", |s| fs::rename(s.at("twin"), s.at("t")).unwrap(), "t .wh.twin", "d/ d/a t=d/a .wh.twin"),
        (
            "contents swapped",
            |s| {
                unseen(&s.at("f"), |file| fs::write(file, "e").unwrap());
                unseen(&s.at("e"), |file| fs::write(file, "f").unwrap());
            },
            "e f",
            "e f",
        ),
    ];
    for (what, step, remembered, not) in cases {
        for how in ["unpacked", "read", "committed", "not remembered"] {
            let stage = Stage::new();
            fs::write(stage.at("e"), "e").unwrap();
            make_fifo(&stage.at("fifo"));
            let stage = stage.remembering(how);
            let before = stage.snapshot();
            let (before, expected) = match how {
                "committed" => {
                    // Everything once more, all of it changed.
                    for file in ["d/a", "d/b", "e", "f"] {
                        let modified = File::options().write(true).open(stage.at(file)).unwrap();
                        modified.set_modified(std::time::UNIX_EPOCH).unwrap();
                    }
                    let (record, options) = (stage.record("first"), CommitOptions::default());
                    (commit(&stage.tree, Some(&before), &record, &options, &mut std::io::sink()).unwrap().0, remembered)
                }
                "not remembered" => (before, not),
                _ => (before, remembered),
            };
            step(&stage);
            let layer = stage.commit(&before, &CommitOptions::default()).unwrap();
            assert_eq!(list(&layer), expected, "{what}, {how}");
        }
    }
}

fn make_fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
}

/// A touched file stays out of one layer after the other, and its inode, which a removed file had, tells of it alone.
#[test]
fn what_is_remembered_follows_the_inode() {
    let stage = Stage::new().remembering("unpacked");
    let mut before = stage.snapshot();
    for (round, expected) in ["f", "", "", "", "new"].into_iter().enumerate() {
        remake(&stage.at("f"), |file| fs::write(file, "F").unwrap());
        if round == 4 {
            remake(&stage.at("f"), |file| {
                fs::write(stage.at("new"), "G").unwrap();
                fs::write(file, "F").unwrap();
            });
        }
        let mut layer = Vec::new();
        let record = stage.record(&format!("round{round}"));
        before = commit(&stage.tree, Some(&before), &record, &CommitOptions::default(), &mut layer).unwrap().0;
        assert_eq!(list(&layer), expected, "round {round}");
    }
}

#[test]
fn a_file_that_reads_as_a_whiteout_is_refused() {
    for name in [".wh.a", "d/.wh.", "empty/.wh.x"] {
        let stage = Stage::new();
        let before = stage.snapshot();
        fs::write(stage.at(name), "").unwrap();
        let error = stage.commit(&before, &CommitOptions::default()).unwrap_err();
        assert!(matches!(&error, RootfsError::WhiteoutName { path } if path == Path::new(name)), "{error}");
        assert!(!stage.record("after").exists(), "a failed commit leaves no record");
    }
}

#[test]
fn ignored_paths_are_neither_new_nor_gone() {
    let stage = Stage::new();
    let options = CommitOptions { ignore: vec!["d".into(), "/proc".into(), "f".into()], ..CommitOptions::default() };
    let before = stage.snapshot();
    fs::remove_file(stage.at("f")).unwrap();
    fs::write(stage.at("d/x"), "").unwrap();
    fs::create_dir(stage.at("proc")).unwrap();
    fs::write(stage.at("proc/1"), "").unwrap();
    fs::write(stage.at("new"), "").unwrap();
    let mut layer = Vec::new();
    let (after, _) = commit(&stage.tree, Some(&before), &stage.record("one"), &options, &mut layer).unwrap();
    assert_eq!(list(&layer), "new");
    // What was recorded of them still is.
    let mut layer = Vec::new();
    commit(&stage.tree, Some(&after), &stage.record("two"), &CommitOptions::default(), &mut layer).unwrap();
    assert_eq!(list(&layer), "d/ d/x .wh.f proc/ proc/1");
}

#[test]
fn where_nothing_is_said_to_be_written_nobody_looks() {
    let stage = Stage::new();
    let before = stage.snapshot();
    let mut written = Written::default();
    for directory in [stage.at(""), stage.at("d")] {
        written.add(fs::metadata(directory).unwrap().ino());
    }
    for name in ["f", "d/x", "d/sub/x"] {
        fs::write(stage.at(name), "new").unwrap();
    }
    let layer = |name: &str, before: &Snapshot, options: &CommitOptions| {
        let mut layer = Vec::new();
        let (after, _) = commit(&stage.tree, Some(before), &stage.record(name), options, &mut layer).unwrap();
        (list(&layer), after)
    };
    let said = CommitOptions { written: Some(written.clone()), ..CommitOptions::default() };
    let (names, after) = layer("one", &before, &said);
    assert_eq!(names, "d/ d/x f");
    // The record has kept what was there, so that a look everywhere finds it.
    assert_eq!(layer("two", &after, &CommitOptions::default()).0, "d/ d/sub/ d/sub/x");
    // Another directory of the same name is not the one that was recorded, and one with another mode is written.
    fs::rename(stage.at("d/sub"), stage.at("d/old")).unwrap();
    fs::create_dir(stage.at("d/sub")).unwrap();
    fs::write(stage.at("d/sub/y"), "").unwrap();
    assert!(layer("three", &after, &said).0.contains("d/sub/y"));
}

#[test]
fn a_file_that_is_moved_away_and_back_is_no_change_but_what_happens_to_it_is() {
    let stage = Stage::new();
    let before = stage.snapshot();
    let path = Path::new("f");
    let aside = |change: &dyn Fn(&Path)| {
        let looks = stage.tree.stat(path).unwrap().unwrap();
        let away = stage.record("away");
        fs::rename(stage.at("f"), &away).unwrap();
        change(&away);
        fs::rename(&away, stage.at("f")).unwrap();
        stage.tree.moved_back(path, &looks).unwrap();
    };
    let layer = |name: &str, before: &Snapshot| {
        let mut layer = Vec::new();
        let options = CommitOptions::default();
        let (after, _) = commit(&stage.tree, Some(before), &stage.record(name), &options, &mut layer).unwrap();
        (list(&layer), after)
    };
    aside(&|_| ());
    let (first, after) = layer("one", &before);
    // Again, and twice before the next layer.
    aside(&|_| ());
    aside(&|_| ());
    let (second, after) = layer("two", &after);
    assert_eq!((first, second), (String::new(), String::new()));
    aside(&|away| fs::write(away, "other").unwrap());
    let (written, after) = layer("three", &after);
    aside(&|_| ());
    fs::write(stage.at("f"), "after").unwrap();
    let (written_later, _) = layer("four", &after);
    assert_eq!((written, written_later), ("f".to_owned(), "f".to_owned()));
}

#[test]
fn times_are_whole_seconds_and_clamped() {
    let stage = Stage::new();
    let before = stage.snapshot();
    for (name, time) in [("old", (5, 999)), ("new", (1_000_000, 1)), ("ancient", (-7, 5))] {
        stage.tree.make_file(Path::new(name)).unwrap();
        stage.tree.set_modified(Path::new(name), time).unwrap();
    }
    let options = CommitOptions { clamp_modified: Some(1000), ..CommitOptions::default() };
    let layer = stage.commit(&before, &options).unwrap();
    let other = Stage::new();
    unpack(&mut layer.as_slice(), &other.tree, &Limits::NONE).unwrap();
    let times = ["old", "new", "ancient"].map(|name| other.tree.stat(Path::new(name)).unwrap().unwrap().modified);
    assert_eq!(times, [(5, 0), (1000, 0), (-7, 0)]);
}

/// GNU tar and the `tar` crate read what we write, byte for byte.
#[test]
fn others_read_our_layers() {
    let stage = Stage::new();
    let long = format!("{}/{}", "n".repeat(200), "é".repeat(100));
    fs::create_dir(stage.at(&"n".repeat(200))).unwrap();
    fs::write(stage.at(&long), "long").unwrap();
    symlink("x".repeat(300), stage.at("long-link")).unwrap();
    for length in [99, 100, 101, 155, 156, 157, 200, 254, 255, 256, 257] {
        let path = format!("{}/{}", "p".repeat(length / 2), "q".repeat(length - length / 2 - 1));
        let _ = fs::create_dir(stage.at(&"p".repeat(length / 2)));
        fs::write(stage.at(&path), length.to_string()).unwrap();
    }
    let mut layer = Vec::new();
    commit(&stage.tree, None, &stage.record("r"), &CommitOptions::default(), &mut layer).unwrap();
    let (ours, gnu) = (stage.record("by-crate"), stage.record("by-gnu"));
    for directory in [&ours, &gnu] {
        fs::create_dir(directory).unwrap();
    }
    tar::Archive::new(layer.as_slice()).unpack(&ours).unwrap();
    fs::write(stage.record("layer.tar"), &layer).unwrap();
    let status = Command::new("tar").arg("-xf").arg(stage.record("layer.tar")).arg("-C").arg(&gnu).status().unwrap();
    assert!(status.success());
    for directory in [&ours, &gnu] {
        let status =
            Command::new("diff").args(["-r", "--no-dereference"]).arg(stage.at("")).arg(directory).status().unwrap();
        assert!(status.success(), "{}", directory.display());
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_leaves_a_readable_layer() {
    /// Cuts or extends the file as soon as its header went by.
    struct Meddler<'a> {
        layer: Vec<u8>,
        file: &'a Path,
        length: u64,
    }
    impl Write for Meddler<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            File::options().write(true).open(self.file)?.set_len(self.length)?;
            self.layer.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for length in [100, 5 << 20] {
        let stage = Stage::new();
        let before = stage.snapshot();
        fs::write(stage.at("x"), vec![b'x'; 1 << 20]).unwrap();
        let file = stage.at("x");
        let mut meddler = Meddler { layer: Vec::new(), file: &file, length };
        let options = CommitOptions::default();
        let (after, _) = commit(&stage.tree, Some(&before), &stage.record("one"), &options, &mut meddler).unwrap();
        let other = Stage::new();
        unpack(&mut meddler.layer.as_slice(), &other.tree, &Limits::NONE).unwrap();
        assert_eq!(other.tree.stat(Path::new("x")).unwrap().unwrap().size_bytes, 1 << 20);
        let mut again = Vec::new();
        commit(&stage.tree, Some(&after), &stage.record("two"), &options, &mut again).unwrap();
        assert_eq!(list(&again), "x", "the next layer has what this one missed");
    }
}

#[test]
fn capabilities_are_in_layers_and_other_attributes_are_not() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let stage = Stage::new();
    let before = stage.snapshot();
    stage.tree.set_xattr(Path::new("f"), "user.note".as_ref(), b"x").unwrap();
    stage.tree.set_xattr(Path::new("f"), "security.capability".as_ref(), &capability).unwrap();
    let layer = stage.commit(&before, &CommitOptions::default()).unwrap();
    let mut archive = tar::Archive::new(layer.as_slice());
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        for record in entry.pax_extensions().unwrap().unwrap() {
            let record = record.unwrap();
            found.insert(record.key().unwrap().to_owned(), record.value_bytes().to_vec());
        }
    }
    assert_eq!(found, BTreeMap::from([("SCHILY.xattr.security.capability".to_owned(), capability.to_vec())]));
}

/// A new name alone leaves the old one out of the layer; not so when a capability came with it.
#[test]
fn a_capability_that_comes_with_a_new_name() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let stage = Stage::new();
    let before = stage.snapshot();
    fs::hard_link(stage.at("f"), stage.at("e")).unwrap();
    stage.tree.set_xattr(Path::new("f"), "security.capability".as_ref(), &capability).unwrap();
    let layer = stage.commit(&before, &CommitOptions::default()).unwrap();
    assert_eq!(list(&layer), "e f=e");
}

/// Writes that follow a record at once, within a tick of the kernel's clock.
#[test]
fn quick_writes_are_seen() {
    let stage = Stage::new();
    for round in 0..200 {
        let record = stage.record(&format!("r{round}"));
        let before = snapshot(&stage.tree, &record).unwrap();
        let modified = fs::metadata(stage.at("f")).unwrap().modified().unwrap();
        let file = File::options().write(true).open(stage.at("f")).unwrap();
        file.write_at(&[b'a' + (round % 20) as u8], 0).unwrap();
        file.set_modified(modified).unwrap();
        drop(file);
        let mut layer = Vec::new();
        let after = stage.record(&format!("a{round}"));
        commit(&stage.tree, Some(&before), &after, &CommitOptions::default(), &mut layer).unwrap();
        assert_eq!(list(&layer), "f", "round {round}");
    }
}

#[test]
fn a_damaged_record_is_an_error() {
    let stage = Stage::new();
    let before = stage.snapshot();
    let whole = fs::read(&before.record).unwrap();
    for damage in [&whole[..5], &whole[..whole.len() - 1], b"something else entirely, and long enough".as_slice()] {
        fs::write(&before.record, damage).unwrap();
        assert!(stage.commit(&before, &CommitOptions::default()).is_err());
    }
}

#[test]
fn trees_deeper_than_a_path_can_be_long() {
    let stage = Stage::new();
    let before = stage.snapshot();
    let mut path = String::from("deep");
    stage.tree.make_dir(Path::new(&path), 0o755).unwrap();
    for _ in 0..60 {
        path += &format!("/{}", "x".repeat(100));
        stage.tree.make_dir(Path::new(&path), 0o755).unwrap();
    }
    path += "/f";
    stage.tree.make_file(Path::new(&path)).unwrap().write_all(b"found").unwrap();
    let layer = stage.commit(&before, &CommitOptions::default()).unwrap();
    let other = Stage::new();
    unpack(&mut layer.as_slice(), &other.tree, &Limits::NONE).unwrap();
    let mut text = String::new();
    other.tree.open_file(Path::new(&path)).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "found");
    assert_eq!(other.tree.stat(Path::new("deep")).unwrap().unwrap().kind, FileKind::Directory);
}
