//! The work directory inside the context: its files are the builder's own, and no step gets them.

use std::path::Path;

use crate::harness::{Place, cannot_run, with_busybox};
use crate::unprivileged::{build_as, cannot};

/// Every path below a directory, sorted.
fn names(directory: &Path) -> String {
    let (mut names, mut pending) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(current) = pending.pop() {
        for entry in std::fs::read_dir(current).unwrap().map(Result::unwrap) {
            names.push(entry.path().strip_prefix(directory).unwrap().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    names.sort();
    names.join(" ")
}

/// Wherever it is, however it is told, and twice: what the first build left is not there for the second.
#[test]
fn copies_do_not_see_the_work_directory() {
    let copies = "FROM scratch\nCOPY . /a\nADD . /a/\nCOPY --from=named . /a\nCOPY --parents . /a\nCOPY s* /b/\n\
                  COPY --link . /a\n";
    for work in ["context/w", "context/s/w", "context/s/more/../w", "context", "linked"] {
        let place = Place::new(copies).file("context/s/file", "text").file("context/.dockerignore", "*.log\n!w/**\n");
        std::fs::create_dir_all(place.path("context/s/more")).unwrap();
        std::fs::create_dir(place.path("context/w2")).unwrap();
        std::os::unix::fs::symlink("context/w2", place.path("linked")).unwrap();
        let (named, flag) = (format!("named={}", place.text("context")), format!("--work-dir={work}"));
        let mut seen = Vec::new();
        for out in ["out1", "out2"] {
            let ran = place.build(&[&flag, "--build-context", &named, "-o", &format!("type=local,dest={out}")]);
            ran.digest();
            seen.push(names(&place.path(out)));
        }
        assert_eq!(seen[0], seen[1], "{work}");
        for own in ["runs", "cache-mounts", "run-"] {
            assert!(!seen[0].contains(own), "{work}: {}", seen[0]);
        }
        assert!(seen[0].contains("a/s/file") && seen[0].contains("b/file"), "{work}: {}", seen[0]);
    }
}

/// HOME in the workspace, as Jenkins has it, makes it the default place; so does TMPDIR where there is no home.
#[test]
fn the_default_place_in_the_context() {
    if cannot() {
        return;
    }
    for (set, value) in [("HOME", "context"), ("XDG_CACHE_HOME", "context/cache"), ("TMPDIR", "context/tmp")] {
        let place = Place::new("FROM scratch\nCOPY . /a\n").file("context/cache/one", "").file("context/tmp/other", "");
        let set = format!("{set}={}", place.text(value));
        let starter = ["env", "-u", "ZUWAI_DIR", "HOME=/nonexistent", &set];
        for out in ["out1", "out2"] {
            let out = format!("--output={out}");
            build_as(54321, &place, &starter, &[&out, "context"]).digest();
        }
        let seen = "a a/Dockerfile a/cache a/cache/one a/tmp a/tmp/other";
        assert_eq!(names(&place.path("out1")), seen, "{set}");
        assert_eq!(names(&place.path("out2")), seen, "{set}");
    }
}

/// What a step sees of a context that is mounted.
#[test]
fn mounts_do_not_show_the_work_directory() {
    if cannot_run() {
        return;
    }
    let place = with_busybox(
        "RUN --mount=type=bind,target=/m find /m > /list\nRUN --mount=type=bind,from=named,target=/m find /m >> /list\n",
    );
    let named = format!("named={}", place.text("context"));
    place.build(&["--work-dir=context/w", "--build-context", &named, "--output=out"]).digest();
    let list = place.read("out/list");
    assert!(list.contains("/m/busybox") && !list.contains("runs"), "{list}");
}
