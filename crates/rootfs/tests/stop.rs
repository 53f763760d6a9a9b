//! Long work that is told to stop.

mod common;

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::tarball::{Header, Tarball};
use zuwai_rootfs::archive::open_archive;
use zuwai_rootfs::commit::{CommitOptions, clone_tree, commit, snapshot, write_tree};
use zuwai_rootfs::copy::{Archives, CopyError, CopyOptions, Everything, copy, write_file};
use zuwai_rootfs::unpack::{Limits, extract, unpack};
use zuwai_rootfs::{RootfsError, Stop, Tree};

struct Place {
    outer: tempfile::TempDir,
    flag: Arc<AtomicBool>,
    /// With files, and never told to stop.
    full: Tree,
}

impl Place {
    fn new() -> Place {
        let outer = tempfile::tempdir().unwrap();
        let full = Tree::create(&outer.path().join("full"), None).unwrap();
        for directory in ["a", "a/b"].map(Path::new) {
            full.make_dir(directory, 0o755).unwrap();
            full.make_file(&directory.join("file")).unwrap().write_all(b"content").unwrap();
        }
        Place { outer, flag: Arc::default(), full }
    }

    fn stop(&self) -> Stop {
        Stop::when(&[&self.flag])
    }

    fn empty(&self, name: &str) -> Tree {
        Tree::create(&self.outer.path().join(name), None).unwrap().stopping(&self.stop())
    }

    fn record(&self, name: &str) -> std::path::PathBuf {
        self.outer.path().join(name)
    }
}

fn options(archives: Archives) -> CopyOptions {
    CopyOptions {
        literal: false,
        owner: None,
        keep_owner: false,
        mode: None,
        parents: false,
        exclude: Default::default(),
        archives,
        keep_links: true,
        made_modified: None,
        threads: 2,
    }
}

/// Every kind of work ends at once when it is to stop before it begins, whatever there is to do.
#[test]
fn all_work_on_files_stops() {
    let place = Place::new();
    place.flag.store(true, Ordering::Relaxed);
    let stopping = place.full.share().unwrap().stopping(&place.stop());
    let all = ["/".to_owned()];
    let wild = ["*/*".to_owned()];
    let layer = Tarball::new().dir("d/").file("d/f", "text").end();
    let copied = |sources: &[String], to: &str| match copy(
        &place.full,
        &Everything,
        sources,
        &place.empty(to),
        "/x/",
        &options(Archives::Copy),
    ) {
        Err(CopyError::Rootfs(error)) => Err(error),
        other => panic!("{other:?}"),
    };
    let written = write_file(&place.empty("w"), "/f", "f", &mut io::repeat(1), 0o644, None, &options(Archives::Copy));
    let archive = std::fs::File::open("/dev/zero").unwrap();
    let outcomes: [(&str, Result<(), RootfsError>); 10] = [
        ("copy", copied(&all, "copy")),
        ("wildcard", copied(&wild, "wild")),
        (
            "write",
            match written {
                Err(CopyError::Rootfs(error)) => Err(error),
                other => panic!("{other:?}"),
            },
        ),
        ("unpack", unpack(&mut layer.as_slice(), &place.empty("unpack"), &Limits::NONE).map(drop)),
        ("extract", extract(&mut layer.as_slice(), &place.empty("extract"), Path::new("d"), None).map(drop)),
        ("archive", open_archive(archive, &place.stop()).map(drop)),
        ("snapshot", snapshot(&stopping, &place.record("1")).map(drop)),
        ("commit", {
            commit(&stopping, None, &place.record("2"), &CommitOptions::default(), &mut io::sink()).map(drop)
        }),
        ("write_tree", write_tree(&stopping, &CommitOptions::default(), &mut io::sink()).map(drop)),
        ("clone", clone_tree(&place.full, &place.empty("clone"))),
    ];
    for (name, outcome) in outcomes {
        assert!(matches!(outcome, Err(RootfsError::Cancelled)), "{name}: {outcome:?}");
    }
    assert!(matches!(stopping.remove(Path::new("a")), Err(RootfsError::Cancelled)));
}

/// One file without an end: the flag is looked at in the middle of it.
#[test]
fn one_large_file_stops() {
    let header = Header::new("large", b'0').size(0o777_7777_7777);
    let begun = Tarball::new().header(header).bytes();
    let huge = |place: &Place| {
        let mut file = place.full.make_file(Path::new("huge")).unwrap();
        file.write_all(b"not a hole").unwrap();
        file.set_len(1 << 40).unwrap();
    };
    type Work<'a> = Box<dyn Fn(&Place) -> Result<(), RootfsError> + 'a>;
    let works: [(&str, Work<'_>); 3] = [
        (
            "unpack",
            Box::new(|place| {
                let mut stream = begun.as_slice().chain(io::repeat(1));
                unpack(&mut stream, &place.empty("to"), &Limits::NONE).map(drop)
            }),
        ),
        (
            "commit",
            Box::new(|place| {
                huge(place);
                let tree = place.full.share().unwrap().stopping(&place.stop());
                write_tree(&tree, &CommitOptions::default(), &mut io::sink()).map(drop)
            }),
        ),
        (
            "write",
            Box::new(|place| {
                let to = place.empty("to");
                match write_file(&to, "/f", "f", &mut io::repeat(1), 0o644, None, &options(Archives::Copy)) {
                    Err(CopyError::Rootfs(error)) => Err(error),
                    other => panic!("{other:?}"),
                }
            }),
        ),
    ];
    for (name, work) in works {
        let place = Place::new();
        let flag = place.flag.clone();
        let told = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            flag.store(true, Ordering::Relaxed);
            Instant::now()
        });
        let outcome = work(&place);
        let since = told.join().unwrap().elapsed();
        assert!(matches!(outcome, Err(RootfsError::Cancelled)), "{name}: {outcome:?}");
        assert!(since < Duration::from_secs(5), "{name}: {since:?}");
    }
}
