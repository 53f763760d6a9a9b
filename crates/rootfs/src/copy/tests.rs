//! Trees as text: one line per entry, `TYPE MODE UID:GID PATH [CONTENT]`, sorted by path.
//!
//! `f` file, `d` directory, `l` link (`-> TARGET` instead of content), `h` another name (`= FIRST NAME`), `p` fifo, `s` socket,
//! `c` and `b` devices (`MAJOR:MINOR`). Times are [`OLD`] in what a test makes, [`SEEN`] is what it may compare.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dockerfile::ignore::Patterns;

use super::*;
use crate::{Metadata, Stop};

/// Modification time of everything that a test makes.
const OLD: (i64, u32) = (1_000_000_000, 5);

struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Room {
        Room { folder: tempfile::tempdir().unwrap() }
    }

    fn tree(&self, name: &str, text: &str) -> Tree {
        let table = self.folder.path().join(format!("{name}.table"));
        let tree = Tree::create(&self.folder.path().join(name), Some(&table)).unwrap();
        fill(&tree, text);
        tree
    }
}

fn fill(tree: &Tree, text: &str) {
    let mut directories = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.splitn(5, ' ');
        let (kind, mode, owner, path) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap(), Path::new(words.next().unwrap()));
        let rest = words.next().unwrap_or("");
        match kind {
            "d" => tree.make_dir(path, 0o755).unwrap(),
            "f" => tree.make_file(path).unwrap().write_all(rest.as_bytes()).unwrap(),
            "l" => tree.make_symlink(Path::new(rest.strip_prefix("-> ").unwrap()), path).unwrap(),
            "h" => tree.make_link(Path::new(rest.strip_prefix("= ").unwrap()), path).unwrap(),
            "p" => tree.make_node(path, FileKind::Fifo, (0, 0)).unwrap(),
            "s" => tree.make_node(path, FileKind::Socket, (0, 0)).unwrap(),
            _ => {
                let (major, minor) = rest.split_once(':').unwrap();
                let kind = if kind == "c" { FileKind::CharDevice } else { FileKind::BlockDevice };
                tree.make_node(path, kind, (major.parse().unwrap(), minor.parse().unwrap())).unwrap();
            }
        }
        let (uid, gid) = owner.split_once(':').unwrap();
        tree.set_owner(path, uid.parse().unwrap(), gid.parse().unwrap()).unwrap();
        tree.set_mode(path, u32::from_str_radix(mode, 8).unwrap()).unwrap();
        tree.set_modified(path, OLD).unwrap();
        if kind == "d" {
            directories.push(path);
        }
    }
    directories.iter().for_each(|path| tree.set_modified(path, OLD).unwrap());
}

fn walk(tree: &Tree, visit: &mut dyn FnMut(&Path, &Metadata)) {
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for name in tree.read_dir(&directory).unwrap() {
            let path = directory.join(name);
            let metadata = tree.stat(&path).unwrap().unwrap();
            visit(&path, &metadata);
            if metadata.kind == FileKind::Directory {
                directories.push(path);
            }
        }
    }
}

fn show(tree: &Tree) -> String {
    let mut lines = Vec::new();
    let mut paths = Vec::new();
    walk(tree, &mut |path, metadata| paths.push((path.to_owned(), metadata.clone())));
    paths.sort_by(|left, right| left.0.as_os_str().cmp(right.0.as_os_str()));
    let mut names: HashMap<u64, PathBuf> = HashMap::new();
    for (path, metadata) in paths {
        lines.push(line(tree, &path, &metadata, &mut names));
    }
    lines.join("\n")
}

fn line(tree: &Tree, path: &Path, metadata: &Metadata, names: &mut HashMap<u64, PathBuf>) -> String {
    let (kind, rest) = match metadata.kind {
        FileKind::Directory => ("d", String::new()),
        FileKind::Symlink => ("l", format!("-> {}", tree.read_link(path).unwrap().display())),
        FileKind::Fifo => ("p", String::new()),
        FileKind::Socket => ("s", String::new()),
        FileKind::CharDevice => ("c", format!("{}:{}", metadata.device.0, metadata.device.1)),
        FileKind::BlockDevice => ("b", format!("{}:{}", metadata.device.0, metadata.device.1)),
        FileKind::File => match names.get(&metadata.inode) {
            Some(first) => ("h", format!("= {}", first.display())),
            None => {
                names.insert(metadata.inode, path.to_owned());
                let mut content = String::new();
                tree.open_file(path).unwrap().read_to_string(&mut content).unwrap();
                ("f", content)
            }
        },
    };
    let mode = if metadata.kind == FileKind::Symlink { 0o777 } else { metadata.mode };
    let mut line = format!("{kind} {mode:03o} {}:{} {}", metadata.uid, metadata.gid, path.display());
    if !rest.is_empty() {
        write!(line, " {rest}").unwrap();
    }
    line
}

struct Ignore(Patterns);

impl Filter for Ignore {
    fn excludes(&self, path: &Path) -> bool {
        self.0.excludes(path.as_os_str().as_bytes())
    }
    fn may_include_below(&self, directory: &Path) -> bool {
        self.0.may_include_below(directory.as_os_str().as_bytes())
    }
}

fn options() -> CopyOptions {
    CopyOptions {
        owner: None,
        keep_owner: false,
        mode: None,
        literal: false,
        parents: false,
        exclude: Patterns::default(),
        archives: Archives::Copy,
        keep_links: true,
        made_modified: None,
        threads: 2,
    }
}

/// `[COPY|ADD] [FLAGS] SOURCE... DESTINATION`; `--from` says that the source is a stage.
fn parse(instruction: &str) -> (CopyOptions, Vec<String>, String) {
    let mut options = options();
    let (mut words, mut exclude) = (Vec::new(), Vec::new());
    for word in instruction.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("COPY", _) => {}
            ("ADD", _) => options.archives = Archives::Unpack,
            ("--from", _) => options.keep_owner = true,
            ("--parents", _) => options.parents = true,
            ("--chmod", value) => options.mode = Some(Mode::parse(value).unwrap()),
            ("--exclude", value) => exclude.push(value.to_owned()),
            ("--chown", value) => {
                let (uid, gid) = value.split_once(':').unwrap();
                options.owner = Some((uid.parse().unwrap(), gid.parse().unwrap()));
            }
            _ => words.push(word.to_owned()),
        }
    }
    options.exclude = Patterns::new(&exclude).unwrap();
    let destination = words.pop().unwrap();
    (options, words, destination)
}

fn run(from: &Tree, ignore: &[&str], to: &Tree, instruction: &str) -> Result<Copied, CopyError> {
    let (options, sources, destination) = parse(instruction);
    let patterns: Vec<String> = ignore.iter().map(|&line| line.to_owned()).collect();
    let filter = Ignore(Patterns::new(&patterns).unwrap());
    copy(from, &filter, &sources, to, &destination, &options)
}

struct Case {
    title: &'static str,
    from: &'static str,
    ignore: &'static [&'static str],
    to: &'static str,
    run: &'static [&'static str],
    /// What is new or different; a line with `-` before its path is gone.
    after: &'static str,
}

const fn case(title: &'static str, from: &'static str, run: &'static [&'static str], after: &'static str) -> Case {
    Case { title, from, ignore: &[], to: "", run, after }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn check(cases: &[Case]) {
    let mut faults = String::new();
    for case in cases {
        let room = Room::new();
        let (from, to) = (room.tree("from", case.from), room.tree("to", case.to));
        let before = show(&from);
        let failed = case.run.iter().find_map(|it| run(&from, case.ignore, &to, it).err().map(|error| (it, error)));
        if let Some((instruction, error)) = failed {
            writeln!(faults, "{}: {instruction}: {error:?}", case.title).unwrap();
            continue;
        }
        let (shown, expected) = (lines(&show(&to)), lines(case.after));
        if shown != expected {
            writeln!(faults, "{}\n  got      {shown:#?}\n  expected {expected:#?}", case.title).unwrap();
        }
        assert_eq!(show(&from), before, "{}: the source has changed", case.title);
    }
    assert!(faults.is_empty(), "{faults}");
}

const SMALL: &str = "
    f 644 7:8 a.txt a
    f 644 7:8 b.txt b
    d 750 7:8 dir
    d 700 7:8 dir/sub
    f 600 7:8 dir/sub/y y
    f 644 7:8 dir/x x";

#[test]
fn destinations() {
    check(&[
        case("a file to a path", SMALL, &["COPY a.txt /p/q/new"], "d 755 0:0 p\nd 755 0:0 p/q\nf 644 0:0 p/q/new a"),
        case("a file to a directory that is made", SMALL, &["COPY a.txt /d/"], "d 755 0:0 d\nf 644 0:0 d/a.txt a"),
        case("/. is a directory", SMALL, &["COPY a.txt /d/."], "d 755 0:0 d\nf 644 0:0 d/a.txt a"),
        Case {
            title: "an existing directory without a slash",
            from: SMALL,
            ignore: &[],
            to: "d 1777 0:0 tmp",
            run: &["COPY a.txt b.txt /tmp"],
            after: "d 1777 0:0 tmp\nf 644 0:0 tmp/a.txt a\nf 644 0:0 tmp/b.txt b",
        },
        case(
            "several sources: files by name, directories by contents",
            SMALL,
            &["COPY a.txt dir/sub /all/"],
            "d 755 0:0 all\nf 644 0:0 all/a.txt a\nf 600 0:0 all/y y",
        ),
        case(
            "a directory made for contents is 0755, those below keep their modes",
            SMALL,
            &["COPY dir /p/made"],
            "d 755 0:0 p\nd 755 0:0 p/made\nd 700 0:0 p/made/sub\nf 600 0:0 p/made/sub/y y\nf 644 0:0 p/made/x x",
        ),
        case(
            "sources and destinations are clamped",
            SMALL,
            &["COPY ../../dir/../../a.txt /../x/.././up"],
            "f 644 0:0 up a",
        ),
        case("the root as a destination", SMALL, &["COPY dir/sub /"], "f 600 0:0 y y"),
        Case {
            title: "an existing directory keeps mode and owner, nested ones take the source's",
            from: SMALL,
            ignore: &[],
            to: "d 700 5:6 t\nd 711 7:8 t/sub\nf 640 1:1 t/sub/keep k",
            run: &["COPY dir /t"],
            after: "d 700 5:6 t\nd 700 0:0 t/sub\nf 640 1:1 t/sub/keep k\nf 600 0:0 t/sub/y y\nf 644 0:0 t/x x",
        },
        Case {
            title: "a file is replaced with mode and owner",
            from: SMALL,
            ignore: &[],
            to: "f 600 1:1 f old",
            run: &["COPY a.txt /f"],
            after: "f 644 0:0 f a",
        },
        Case {
            title: "another name of a replaced file stays",
            from: SMALL,
            ignore: &[],
            to: "f 644 0:0 a old\nh 644 0:0 b = a",
            run: &["COPY a.txt /a"],
            after: "f 644 0:0 a a\nf 644 0:0 b old",
        },
        Case {
            title: "a directory made in a set-group-ID directory inherits the group and the bit",
            from: SMALL,
            ignore: &[],
            to: "d 2775 0:50 shared",
            run: &["COPY a.txt /shared/p/q/"],
            after: "d 2775 0:50 shared\nd 2755 0:50 shared/p\nd 2755 0:50 shared/p/q\nf 644 0:0 shared/p/q/a.txt a",
        },
    ]);
}

#[test]
fn links_in_the_destination() {
    check(&[
        Case {
            title: "the destination is followed, also when it leads nowhere",
            from: SMALL,
            ignore: &[],
            to: "l 777 0:0 dangling -> /nowhere/x\nl 777 0:0 dirlink -> nodir",
            run: &["COPY a.txt /dangling", "COPY b.txt /dirlink/"],
            after: "l 777 0:0 dangling -> /nowhere/x\nl 777 0:0 dirlink -> nodir\nd 755 0:0 nodir\nf 644 0:0 nodir/b.txt b
                d 755 0:0 nowhere\nf 644 0:0 nowhere/x a",
        },
        Case {
            title: "absolute and climbing links stay in the rootfs",
            from: SMALL,
            ignore: &[],
            to: "d 755 0:0 c\nl 777 0:0 all -> /\nl 777 0:0 sled -> ../../../../c",
            run: &["COPY a.txt /all/placed", "COPY b.txt /sled/", "COPY dir/sub /all/sled"],
            after: "l 777 0:0 all -> /\nd 755 0:0 c\nf 644 0:0 c/b.txt b\nf 600 0:0 c/y y\nf 644 0:0 placed a
                l 777 0:0 sled -> ../../../../c",
        },
        Case {
            title: "what lands below a directory replaces links of that name",
            from: "d 755 0:0 d\nf 644 0:0 d/f new\nl 777 0:0 d/l -> f\nd 755 0:0 d/s\nf 644 0:0 d/s/g g",
            ignore: &[],
            to: "d 755 0:0 e\nf 644 0:0 e/old old\nd 755 0:0 t\nl 777 0:0 t/f -> /e/old\nf 644 0:0 t/l file\nd 755 0:0 t/s
                l 777 0:0 t/s/g -> /e\nl 777 0:0 t/y -> /e/old",
            run: &["COPY d /t", "COPY d/f /t/"],
            after: "d 755 0:0 e\nf 644 0:0 e/old old\nd 755 0:0 t\nf 644 0:0 t/f new\nl 777 0:0 t/l -> f\nd 755 0:0 t/s
                f 644 0:0 t/s/g g\nl 777 0:0 t/y -> /e/old",
        },
    ]);
}

#[test]
fn links_in_the_source() {
    const TREE: &str = "
        d 755 0:0 d
        l 777 0:0 d/abs -> /etc/passwd
        l 777 0:0 d/dangling -> nowhere
        f 644 0:0 d/f f
        l 777 0:0 dirlink -> d
        l 777 0:0 link -> ../../real
        f 644 0:0 real r";
    check(&[
        case(
            "a link that is named is followed and gives its name",
            TREE,
            &["COPY link /x/"],
            "d 755 0:0 x\nf 644 0:0 x/link r",
        ),
        case(
            "links in a directory stay as they are",
            TREE,
            &["COPY dirlink /x"],
            "d 755 0:0 x\nl 777 0:0 x/abs -> /etc/passwd\nl 777 0:0 x/dangling -> nowhere\nf 644 0:0 x/f f",
        ),
        case("a path through a link", TREE, &["COPY dirlink/f /g"], "f 644 0:0 g f"),
        case(
            "wildcards match links but do not look behind them",
            TREE,
            &["COPY l* dirl*/f /x/"],
            "d 755 0:0 x\nf 644 0:0 x/link r",
        ),
        Case {
            title: "a link to what is ignored leads nowhere, but is itself copied",
            from: "f 644 0:0 real r\nl 777 0:0 link -> real",
            ignore: &["real"],
            to: "",
            run: &["COPY . /"],
            after: "l 777 0:0 link -> real",
        },
    ]);
}

#[test]
fn wildcards() {
    const TREE: &str = "
        f 644 0:0 .hidden h
        f 644 0:0 a.txt a
        f 644 0:0 b.txt b
        d 755 0:0 m
        d 755 0:0 m/p
        f 644 0:0 m/p/j 1
        d 755 0:0 m/q
        f 644 0:0 m/q/j 2";
    check(&[
        case(
            "hidden files match",
            TREE,
            &["COPY * /x/"],
            "d 755 0:0 x\nf 644 0:0 x/.hidden h\nf 644 0:0 x/a.txt a\nf 644 0:0 x/b.txt b
            d 755 0:0 x/p\nf 644 0:0 x/p/j 1\nd 755 0:0 x/q\nf 644 0:0 x/q/j 2",
        ),
        case("no match is no error and makes nothing", TREE, &["COPY n*/x no? /e/"], ""),
        case("no match beside others", TREE, &["COPY n* a.txt /e/"], "d 755 0:0 e\nf 644 0:0 e/a.txt a"),
        case("in the middle, in order", TREE, &["COPY m/*/j /e/"], "d 755 0:0 e\nf 644 0:0 e/j 2"),
        case("one match to a plain path", TREE, &["COPY a*.txt /e"], "f 644 0:0 e a"),
        case("classes", TREE, &["COPY [^b].txt /e"], "f 644 0:0 e a"),
        Case {
            title: "ignored files do not match",
            from: TREE,
            ignore: &["b.txt"],
            to: "",
            run: &["COPY *.txt /e/"],
            after: "d 755 0:0 e\nf 644 0:0 e/a.txt a",
        },
    ]);
}

#[test]
fn owners_and_modes() {
    const TREE: &str = "
        d 700 3:4 t
        f 755 3:4 t/exec e
        l 777 3:4 t/link -> plain
        f 640 3:4 t/plain p
        f 4755 3:4 t/setuid s
        d 1777 3:4 t/sticky";
    check(&[
        case(
            "contexts give root, and keep bits",
            TREE,
            &["COPY t /x"],
            "d 755 0:0 x\nf 755 0:0 x/exec e\nl 777 0:0 x/link -> plain\nf 640 0:0 x/plain p\nf 4755 0:0 x/setuid s\nd 1777 0:0 x/sticky",
        ),
        case(
            "stages keep owners, but not for what is made",
            TREE,
            &["COPY --from t /x"],
            "d 755 0:0 x\nf 755 3:4 x/exec e\nl 777 3:4 x/link -> plain\nf 640 3:4 x/plain p\nf 4755 3:4 x/setuid s\nd 1777 3:4 x/sticky",
        ),
        case(
            "--chown for everything, parents and links too",
            TREE,
            &["COPY --chown=1:2 t /p/x"],
            "d 755 1:2 p\nd 755 1:2 p/x\nf 755 1:2 p/x/exec e\nl 777 1:2 p/x/link -> plain\nf 640 1:2 p/x/plain p
                f 4755 1:2 p/x/setuid s\nd 1777 1:2 p/x/sticky",
        ),
        case(
            "--chmod octal, without the high bits on parents",
            TREE,
            &["COPY --chmod=2770 t /x"],
            "d 770 0:0 x\nf 2770 0:0 x/exec e\nl 777 0:0 x/link -> plain\nf 2770 0:0 x/plain p\nf 2770 0:0 x/setuid s\nd 2770 0:0 x/sticky",
        ),
        case(
            "--chmod that locks directories does not lock the copy out",
            TREE,
            &["COPY --chmod=0 t /p/x"],
            "d 000 0:0 p\nd 000 0:0 p/x\nf 000 0:0 p/x/exec e\nl 777 0:0 p/x/link -> plain\nf 000 0:0 p/x/plain p
                f 000 0:0 p/x/setuid s\nd 000 0:0 p/x/sticky",
        ),
        case(
            "--chmod symbolic, each entry by its own mode",
            TREE,
            &["COPY --chmod=u=rwX,go=rX t /x"],
            "d 755 0:0 x\nf 755 0:0 x/exec e\nl 777 0:0 x/link -> plain\nf 644 0:0 x/plain p\nf 755 0:0 x/setuid s\nd 1755 0:0 x/sticky",
        ),
    ]);
}

#[test]
fn parents_and_exclusions() {
    const TREE: &str = "
        d 755 0:0 a
        d 700 3:4 a/b
        f 644 0:0 a/b/c.txt c
        f 644 0:0 a/b/d.md d
        d 755 0:0 a/e
        f 644 0:0 a/e/c.txt e
        f 644 0:0 top.txt t";
    check(&[
        case(
            "directories on the way take the source's metadata",
            TREE,
            &["COPY --from --parents a/b/c.txt /x/"],
            "d 755 0:0 x\nd 755 0:0 x/a\nd 700 3:4 x/a/b\nf 644 0:0 x/a/b/c.txt c",
        ),
        case("a pivot", TREE, &["COPY --parents a/./b /x/"], "d 755 0:0 x\nd 700 0:0 x/b\nf 644 0:0 x/b/c.txt c\nf 644 0:0 x/b/d.md d"),
        case(
            "** is any number of directories",
            TREE,
            &["COPY --parents **/*.txt /x/"],
            "d 755 0:0 x\nd 755 0:0 x/a\nd 700 0:0 x/a/b\nf 644 0:0 x/a/b/c.txt c\nd 755 0:0 x/a/e\nf 644 0:0 x/a/e/c.txt e
                f 644 0:0 x/top.txt t",
        ),
        case("a wildcard without match makes the destination", TREE, &["COPY --parents n*/x /x/"], "d 755 0:0 x"),
        case("a wildcard before the pivot meets files", TREE, &["COPY --parents t*/./** /x/"], ""),
        case("a wildcard before the pivot", TREE, &["COPY --parents ?/./e/*.txt /x/"], "d 755 0:0 x\nd 755 0:0 x/e\nf 644 0:0 x/e/c.txt e"),
        case("a wildcard below the pivot", TREE, &["COPY --parents a/./*/c.txt /x/"], "d 755 0:0 x\nd 700 0:0 x/b\nf 644 0:0 x/b/c.txt c
            d 755 0:0 x/e\nf 644 0:0 x/e/c.txt e"),
        Case {
            title: "an existing directory on the way takes the mode alone",
            from: TREE,
            ignore: &[],
            to: "d 755 0:0 x\nd 755 0:0 x/a\nd 755 9:9 x/a/b",
            run: &["COPY --parents --chmod=640 --chown=1:1 a/b/c.txt /x/"],
            after: "d 755 0:0 x\nd 755 0:0 x/a\nd 700 9:9 x/a/b\nf 640 1:1 x/a/b/c.txt c",
        },
        case("--exclude below the source", TREE, &["COPY --exclude=*.md a/b /x"], "d 755 0:0 x\nf 644 0:0 x/c.txt c"),
        case("--exclude leaves named files alone", TREE, &["COPY --exclude=c.txt a/b/c.txt /x"], "f 644 0:0 x c"),
        case(
            "--exclude with an exception below",
            TREE,
            &["COPY --exclude=b --exclude=!b/d.md --exclude=e a /x"],
            "d 755 0:0 x\nd 700 0:0 x/b\nf 644 0:0 x/b/d.md d",
        ),
        case("--exclude and --parents", TREE, &["COPY --parents --exclude=**/*.md a/b /x/"], "d 755 0:0 x\nd 755 0:0 x/a\nd 700 0:0 x/a/b
            f 644 0:0 x/a/b/c.txt c"),
        Case {
            title: "an ignored directory comes with the exception in it",
            from: TREE,
            ignore: &["a", "!a/b/c.txt"],
            to: "",
            run: &["COPY . /x", "COPY a /y", "COPY a/b /z"],
            after: "d 755 0:0 x\nd 755 0:0 x/a\nd 700 0:0 x/a/b\nf 644 0:0 x/a/b/c.txt c\nf 644 0:0 x/top.txt t
                d 755 0:0 y\nd 700 0:0 y/b\nf 644 0:0 y/b/c.txt c\nd 755 0:0 z\nf 644 0:0 z/c.txt c",
        },
    ]);
}

#[test]
fn files_of_every_kind() {
    check(&[
        case(
            "fifos, devices and sockets",
            "d 755 0:0 s\nb 660 0:6 s/block 7:1\np 640 0:0 s/fifo\nc 666 0:0 s/null 1:3\ns 755 0:0 s/socket",
            &["COPY --from s /x"],
            "d 755 0:0 x\nb 660 0:6 x/block 7:1\np 640 0:0 x/fifo\nc 666 0:0 x/null 1:3\nf 755 0:0 x/socket",
        ),
        case(
            "names of one file within a source, not across sources",
            "d 755 0:0 d\nf 640 5:5 d/a x\nh 640 5:5 d/b = d/a\nd 755 0:0 d/s\nh 640 5:5 d/s/c = d/a",
            &["COPY --from d /x", "COPY --from d/a d/b /y/"],
            "d 755 0:0 x\nf 640 5:5 x/a x\nh 640 5:5 x/b = x/a\nd 755 0:0 x/s\nh 640 5:5 x/s/c = x/a
                d 755 0:0 y\nf 640 5:5 y/a x\nf 640 5:5 y/b x",
        ),
        case("empty things", "d 755 0:0 e\nf 644 0:0 f", &["COPY . /x"], "d 755 0:0 x\nd 755 0:0 x/e\nf 644 0:0 x/f"),
        case(
            "an archive is a file to COPY and no archive is a file to ADD",
            SMALL,
            &["ADD a.txt /x/"],
            "d 755 0:0 x\nf 644 0:0 x/a.txt a",
        ),
    ]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    const TO: &str = "
        d 755 0:0 d
        f 644 0:0 file x
        l 777 0:0 loop -> loop
        d 755 0:0 t
        l 777 0:0 t/sub -> /d";
    // instruction, what the message has
    let table: &[(&str, &[&str])] = &[
        ("COPY a.txt missing.txt /x/", &["missing.txt", "does not exist"]),
        ("COPY no/such /x", &["no/such", "does not exist"]),
        ("COPY nodir/* /x", &["nodir", "does not exist"]),
        ("COPY --parents dir/none/f /x/", &["dir/none/f", "does not exist"]),
        ("COPY a.txt dir /x", &["cannot copy directory `dir`", "non-directory `/x`"]),
        ("COPY dir /file", &["non-directory `/file`"]),
        ("COPY a.txt /file/a", &["`/file` is not a directory"]),
        ("COPY a.txt /file/", &["`/file` is not a directory"]),
        ("COPY dir /t", &["non-directory `/t/sub`", "symbolic link"]),
        ("COPY a.txt /loop/x", &["loop"]),
        ("COPY a.txt[ /x", &["a.txt[", "broken pattern"]),
    ];
    for (instruction, parts) in table {
        let room = Room::new();
        let (from, to) = (room.tree("from", SMALL), room.tree("to", TO));
        let error = run(&from, &[], &to, instruction).expect_err(instruction).to_string();
        for part in *parts {
            assert!(error.contains(part), "{instruction}: {error}");
        }
    }
}

/// moby/buildkit#1853
#[test]
fn the_last_of_several_files_for_one_name_stays_and_is_told() {
    // instruction, what is there, how many are gone
    let table = [
        ("COPY a.txt b.txt /new", "f 644 0:0 new b", 1),
        ("COPY *.txt /new", "f 644 0:0 new b", 1),
        ("COPY *.txt /new/", "d 755 0:0 new\nf 644 0:0 new/a.txt a\nf 644 0:0 new/b.txt b", 0),
        ("COPY dir/x a.txt dir/x /new", "f 644 0:0 new x", 2),
    ];
    for (instruction, expected, overwritten) in table {
        let room = Room::new();
        let (from, to) = (room.tree("from", SMALL), room.tree("to", ""));
        let copied = run(&from, &[], &to, instruction).unwrap();
        assert_eq!((lines(&show(&to)), copied.overwritten), (lines(expected), overwritten), "{instruction}");
    }
}

#[test]
fn a_file_over_a_directory_is_refused() {
    let room = Room::new();
    let from = room.tree("from", "d 755 0:0 d\nf 644 0:0 d/x x");
    let to = room.tree("to", "d 755 0:0 t\nd 755 0:0 t/x");
    let error = run(&from, &[], &to, "COPY d /t").unwrap_err().to_string();
    assert_eq!(error, "cannot replace directory `/t/x` with a file");
}

#[test]
fn links_that_lead_nowhere_or_in_circles_are_errors_as_sources() {
    let room = Room::new();
    let from = room.tree("from", "l 777 0:0 dangling -> nowhere\nl 777 0:0 a -> b\nl 777 0:0 b -> a");
    let to = room.tree("to", "");
    assert!(matches!(run(&from, &[], &to, "COPY dangling /x"), Err(CopyError::NotFound { .. })));
    assert!(matches!(run(&from, &[], &to, "COPY a /x"), Err(CopyError::Rootfs(RootfsError::Io { .. }))));
}

#[test]
fn a_missing_source_says_whether_it_is_hidden_and_what_is_like_it() {
    let room = Room::new();
    let from =
        room.tree("from", "d 755 0:0 dist\nf 644 0:0 dist/app x\nf 644 0:0 package.json x\nf 644 0:0 README.md x\nd 755 0:0 lib\nf 644 0:0 lib/code x");
    let to = room.tree("to", "");
    // source, hidden, suggestion
    let table = [
        ("dist", true, None),
        ("dist/app", true, None),
        ("packag.json", false, Some("package.json")),
        ("readme.md", false, Some("README.md")),
        ("quite-different", false, None),
        ("libb/code", false, Some("lib/code")),
        ("libb/other", false, Some("lib")),
        ("quite/different", false, None),
        ("disc/app", false, None),
    ];
    for (source, hidden, like) in table {
        let error = run(&from, &["dist"], &to, &format!("COPY {source} /x")).unwrap_err();
        let CopyError::NotFound { path, excluded, suggestion } = error else { panic!("{error}") };
        assert_eq!((path, excluded), (PathBuf::from(source), hidden));
        assert_eq!(suggestion, like.map(PathBuf::from), "{source}");
    }
}

#[test]
fn times_are_those_of_the_source_but_for_what_is_made() {
    let room = Room::new();
    let from = room.tree("from", "d 755 0:0 d\nf 644 0:0 d/f x\nl 777 0:0 d/l -> f\nd 755 0:0 d/s\nf 644 0:0 d/s/g x");
    let to = room.tree("to", "");
    let (mut options, sources, destination) = parse("COPY d /made/by/copy");
    options.made_modified = Some(77);
    copy(&from, &Everything, &sources, &to, &destination, &options).unwrap();
    (options, ..) = parse("COPY --parents /");
    options.made_modified = Some(77);
    copy(&from, &Everything, &["d/s/g".to_owned()], &to, "/p/", &options).unwrap();
    let times = |path: &str| to.stat(Path::new(path)).unwrap().unwrap().modified;
    from.set_modified(Path::new(""), OLD).unwrap();
    run(&from, &[], &to, "COPY . /context").unwrap();
    run(&from, &[], &to, "COPY --from / /stage").unwrap();
    assert_ne!(times("context"), OLD);
    for path in ["stage", "made/by/copy/f", "made/by/copy/l", "made/by/copy/s", "made/by/copy/s/g", "p/d/s/g"] {
        assert_eq!(times(path), OLD, "{path}");
    }
    for path in ["made", "made/by", "p", "p/d", "p/d/s"] {
        assert_eq!(times(path), (77, 0), "{path}");
    }
}

#[test]
fn attributes_come_along_from_stages_and_capabilities_not_from_contexts() {
    let room = Room::new();
    let from = room.tree("from", "f 755 0:0 f x");
    const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    from.set_xattr(Path::new("f"), FILE_CAPABILITY.as_ref(), CAPABILITY).unwrap();
    let to = room.tree("to", "");
    run(&from, &[], &to, "COPY --from --chown=1:2 f /stage").unwrap();
    run(&from, &[], &to, "COPY --from --chmod=700 f /moded").unwrap();
    run(&from, &[], &to, "COPY f /context").unwrap();
    let kept = vec![(FILE_CAPABILITY.into(), CAPABILITY.to_vec())];
    assert_eq!(to.xattrs(Path::new("stage")).unwrap(), kept);
    assert_eq!(to.xattrs(Path::new("moded")).unwrap(), kept);
    assert_eq!(to.xattrs(Path::new("context")).unwrap(), []);
}
const FILE_CAPABILITY: &str = "security.capability";

#[test]
fn names_of_any_bytes() {
    let room = Room::new();
    let (from, to) = (room.tree("from", "d 755 0:0 d"), room.tree("to", ""));
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"d/\xff\xfe name\n"));
    from.make_file(odd).unwrap().write_all(b"odd").unwrap();
    run(&from, &[], &to, "COPY d /d").unwrap();
    run(&from, &[], &to, "COPY d/* /e/").unwrap();
    assert!(to.stat(odd).unwrap().is_some());
    assert_eq!(to.read_dir(Path::new("e")).unwrap(), [odd.file_name().unwrap()]);
}

#[test]
fn deep_trees_do_not_end_the_stack() {
    let room = Room::new();
    let (from, to) = (room.tree("from", "d 755 0:0 d"), room.tree("to", ""));
    let mut path = PathBuf::from("d");
    for _ in 0..400 {
        path.push("n");
        from.make_dir(&path, 0o755).unwrap();
    }
    std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small.spawn_scoped(scope, || run(&from, &[], &to, "COPY d /d").unwrap()).unwrap();
    });
    assert!(to.stat(&path).unwrap().is_some());
}

#[test]
fn written_files_follow_the_same_rules() {
    let room = Room::new();
    let to = room.tree("to", "d 755 0:0 e\nl 777 0:0 e/doc -> /nowhere\nl 777 0:0 l -> new");
    let write = |destination: &str, flags: &str, modified| {
        let (options, ..) = parse(&format!("{flags} /"));
        write_file(&to, destination, "doc", &mut "text".as_bytes(), 0o600, modified, &options)
    };
    write("/a/b", "", Some((5, 0))).unwrap();
    write("/e", "--chown=1:2", None).unwrap();
    write("/l", "--chmod=u=rw,g=u", None).unwrap();
    assert_eq!(write("/m/", "--chmod=750", None).unwrap(), Copied { entries: 2, size_bytes: 4, overwritten: 0 });
    let expected = "d 755 0:0 a\nf 600 0:0 a/b text\nd 755 0:0 e\nf 600 1:2 e/doc text\nl 777 0:0 l -> new
        d 750 0:0 m\nf 750 0:0 m/doc text\nf 660 0:0 new text";
    assert_eq!(lines(&show(&to)), lines(expected));
    assert_eq!(to.stat(Path::new("a/b")).unwrap().unwrap().modified, (5, 0));
    assert!(write("/a/b/c", "", None).unwrap_err().to_string().contains("`/a/b` is not a directory"));
}

/// mkdir hands group and bit on, at every level, and nobody takes them away again.
#[test]
fn directories_that_are_made_below_a_set_group_id_directory() {
    const TO: &str = "d 2777 3:4 o";
    let made = |title, run: &'static [&'static str], after| Case {
        title,
        from: "f 644 0:0 x x\nd 755 0:0 d\nf 644 0:0 d/f f\nd 700 5:6 d/s",
        ignore: &[],
        to: TO,
        run,
        after,
    };
    check(&[
        made("two levels", &["COPY x /o/n/m/"], "d 2777 3:4 o\nd 2755 0:4 o/n\nd 2755 0:4 o/n/m\nf 644 0:0 o/n/m/x x"),
        made(
            "of a directory, whose own are as in the source",
            &["COPY --from d /o/k/d2"],
            "d 2777 3:4 o\nd 2755 0:4 o/k\nd 2755 0:4 o/k/d2\nf 644 0:0 o/k/d2/f f\nd 700 5:6 o/k/d2/s",
        ),
        made(
            "with an owner",
            &["ADD --chown=8:9 x /o/u/v/"],
            "d 2777 3:4 o\nd 2755 8:9 o/u\nd 2755 8:9 o/u/v\nf 644 8:9 o/u/v/x x",
        ),
        made("with a mode", &["COPY --chmod=600 x /o/c/"], "d 2777 3:4 o\nd 2600 0:4 o/c\nf 600 0:0 o/c/x x"),
        made(
            "one after the other",
            &["COPY x /o/n/x", "COPY x /o/n/m/x"],
            "d 2777 3:4 o\nd 2755 0:4 o/n\nd 2755 0:4 o/n/m\nf 644 0:0 o/n/m/x x\nf 644 0:0 o/n/x x",
        ),
    ]);
    let room = Room::new();
    let to = room.tree("to", TO);
    make_dirs(&to, Path::new("/o/v/w"), Some((5, 6))).unwrap();
    make_dirs(&to, Path::new("/o/r/s"), None).unwrap();
    let expected = "d 2777 3:4 o\nd 2755 0:4 o/r\nd 2755 0:4 o/r/s\nd 2755 5:6 o/v\nd 2755 5:6 o/v/w";
    assert_eq!(lines(&show(&to)), lines(expected));
}

#[test]
fn names_of_one_file_can_get_files_of_their_own() {
    let room = Room::new();
    let from = room.tree("from", "f 644 0:0 a x\nh 644 0:0 b = a");
    for (keep_links, expected) in [(true, "f 644 0:0 a x\nh 644 0:0 b = a"), (false, "f 644 0:0 a x\nf 644 0:0 b x")] {
        let to = room.tree(&format!("to-{keep_links}"), "");
        copy(&from, &Everything, &["/".to_owned()], &to, "/", &CopyOptions { keep_links, ..options() }).unwrap();
        assert_eq!(lines(&show(&to)), lines(expected));
    }
}

#[test]
fn names_of_mounts_are_no_patterns() {
    let room = Room::new();
    let from = room.tree("from", "d 755 0:0 [z]\nf 644 0:0 [z]/a* 1\nf 644 0:0 [z]/ab 2\nf 644 0:0 z 3");
    for (source, expected) in [("[z]", "d 755 0:0 s\nf 644 0:0 s/a* 1\nf 644 0:0 s/ab 2"), ("/[z]/a*", "f 644 0:0 s 1")]
    {
        let to = room.tree(&format!("to-{}", source.len()), "");
        copy(&from, &Everything, &[source.to_owned()], &to, "/s", &CopyOptions { literal: true, ..options() }).unwrap();
        assert_eq!(lines(&show(&to)), lines(expected));
    }
}

#[test]
fn working_directories() {
    let room = Room::new();
    let to = room.tree("to", "d 700 1:1 d\nl 777 0:0 link -> /real\nf 644 0:0 f x\nl 777 0:0 far -> missing/deep");
    for path in ["/d", "/d/in/side", "/link/sub", "/far/", "/"] {
        make_dirs(&to, Path::new(path), Some((5, 6))).unwrap();
    }
    make_dirs_at(&to, Path::new("/epoch"), None, Some(9)).unwrap();
    let expected = "d 700 1:1 d\nd 755 5:6 d/in\nd 755 5:6 d/in/side\nd 755 0:0 epoch\nf 644 0:0 f x
        l 777 0:0 far -> missing/deep\nl 777 0:0 link -> /real\nd 755 5:6 missing\nd 755 5:6 missing/deep
        d 755 5:6 real\nd 755 5:6 real/sub";
    assert_eq!(lines(&show(&to)), lines(expected));
    assert_eq!(to.stat(Path::new("epoch")).unwrap().unwrap().modified, (9, 0));
    let error = make_dirs(&to, Path::new("/f/x"), None).unwrap_err().to_string();
    assert!(error.contains("`/f` is not a directory"), "{error}");
}

#[test]
fn modes_that_are_none() {
    for text in ["888", "10000", "7x", "u=q", ""] {
        let error = Mode::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")) && error.contains("chmod"), "{error}");
    }
    assert_eq!(Mode::parse("00644").unwrap(), Mode::Octal(0o644));
    assert_eq!(Mode::parse("7777").unwrap(), Mode::Octal(0o7777));
}

/// A tar with the file `one` (0640, 7:8).
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o640);
    header.set_uid(7);
    header.set_gid(8);
    builder.append_data(&mut header, "one", &b"1"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn archives() {
    const FROM: &str = "f 644 0:0 a.txt a\nd 755 0:0 d\nl 777 0:0 link -> a.tar";
    // instructions, what is there then; `ARCHIVE` is the archive as a file
    let table: &[(&[&str], &str)] = &[
        (&["ADD a.tar /new/"], "d 755 0:0 new\nf 640 7:8 new/one 1"),
        (&["ADD a.tar /new"], "d 755 0:0 new\nf 640 7:8 new/one 1"),
        (&["ADD link /new"], "d 755 0:0 new\nf 640 7:8 new/one 1"),
        (&["ADD --chown=1:2 --chmod=600 a.tar /new/"], "d 755 1:2 new\nf 640 1:2 new/one 1"),
        (&["ADD a.txt a.tar /all/"], "d 755 0:0 all\nf 644 0:0 all/a.txt a\nf 640 7:8 all/one 1"),
        (&["ADD *.t* /all/"], "d 755 0:0 all\nf 644 0:0 all/a.txt a\nf 640 7:8 all/one 1"),
        (&["ADD d /d"], "d 755 0:0 d\nf 644 0:0 d/in.tar ARCHIVE"),
        (&["COPY a.tar /c/"], "d 755 0:0 c\nf 644 0:0 c/a.tar ARCHIVE"),
    ];
    for (run_all, expected) in table {
        let room = Room::new();
        let (from, to) = (room.tree("from", FROM), room.tree("to", ""));
        for path in ["a.tar", "d/in.tar"] {
            from.make_file(Path::new(path)).unwrap().write_all(&archive()).unwrap();
            from.set_mode(Path::new(path), 0o644).unwrap();
        }
        for instruction in *run_all {
            run(&from, &[], &to, instruction).unwrap_or_else(|error| panic!("{instruction}: {error}"));
        }
        let shown = show(&to).replace(&String::from_utf8(archive()).unwrap(), "ARCHIVE");
        assert_eq!(lines(&shown), lines(expected), "{run_all:?}");
    }
}

#[test]
fn a_file_at_hand_is_unpacked_when_that_is_wanted_and_possible() {
    let room = Room::new();
    let to = room.tree("to", "");
    for (name, content, archives) in [
        ("kept", archive(), Archives::Copy),
        ("out", archive(), Archives::Unpack),
        ("text", b"t".to_vec(), Archives::Unpack),
    ] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let options = CopyOptions { archives, ..options() };
        add_file(&to, &format!("/{name}/"), "t.tar", file, 0o600, None, &options).unwrap();
    }
    let shown = show(&to).replace(&String::from_utf8(archive()).unwrap(), "ARCHIVE");
    let expected = "d 755 0:0 kept\nf 600 0:0 kept/t.tar ARCHIVE\nd 755 0:0 out\nf 640 7:8 out/one 1
        d 755 0:0 text\nf 600 0:0 text/t.tar t";
    assert_eq!(lines(&shown), lines(expected));
}

#[test]
fn an_archive_over_a_file_is_refused() {
    let room = Room::new();
    let (from, to) = (room.tree("from", ""), room.tree("to", "f 644 0:0 f x"));
    from.make_file(Path::new("a.tar")).unwrap().write_all(&archive()).unwrap();
    let error = run(&from, &[], &to, "ADD a.tar /f").unwrap_err().to_string();
    assert!(error.contains("`/f` is not a directory"), "{error}");
}

mod random {
    use super::*;
    use proptest::prelude::*;

    /// A random tree as the text that [`fill`] reads: each entry goes into a directory made before it.
    fn any_tree() -> impl Strategy<Value = String> {
        let entry =
            (any::<prop::sample::Index>(), 0..6u8, 0..0o10000u32, 0..3u32, "[a-zA-Z.*\u{e4}]{1,6}", "[a-z]{0,9}");
        prop::collection::vec(entry, 0..30).prop_map(|entries| {
            let mut directories = vec![PathBuf::new()];
            let (mut files, mut used, mut text) = (Vec::<PathBuf>::new(), vec![], String::new());
            for (index, kind, mode, owner, name, content) in entries {
                let path = directories[index.index(directories.len())].join(format!("{name}{}", used.len()));
                let (kind, rest) = match kind {
                    0 | 1 => ("d", String::new()),
                    2 => ("l", format!("-> {content}x")),
                    3 => ("p", String::new()),
                    4 if !files.is_empty() => ("h", format!("= {}", files[index.index(files.len())].display())),
                    _ => ("f", content),
                };
                // What shares an inode shares its mode: give it that of the first name by leaving it alone.
                let mode = if kind == "h" { 0o644 } else { mode };
                let owner = if kind == "h" { 0 } else { owner };
                match kind {
                    "d" => directories.push(path.clone()),
                    "f" => files.push(path.clone()),
                    _ => {}
                }
                writeln!(text, "{kind} {mode:o} {owner}:{owner} {} {rest}", path.display()).unwrap();
                used.push(path);
            }
            text
        })
    }

    fn times(tree: &Tree) -> Vec<(PathBuf, (i64, u32))> {
        let mut times = Vec::new();
        walk(tree, &mut |path, metadata| times.push((path.to_owned(), metadata.modified)));
        times
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn a_copy_of_a_stage_equals_it(text in any_tree()) {
            let room = Room::new();
            let (from, to) = (room.tree("from", &text), room.tree("to", ""));
            run(&from, &[], &to, "COPY --from / /").unwrap();
            prop_assert_eq!(show(&to), show(&from));
            prop_assert_eq!(times(&to), times(&from));
            // Once more over itself changes nothing.
            run(&from, &[], &to, "COPY --from / /").unwrap();
            prop_assert_eq!(show(&to), show(&from));
        }
    }
}

/// Whoever looks through a tree that hides files does not come to them by any way: a walk, a wildcard, their path, a link.
#[test]
fn files_of_the_builders_own_are_not_there() {
    let files = "
        d 755 0:0 src
        f 644 0:0 src/a one
        d 755 0:0 w
        d 755 0:0 w/runs
        f 644 0:0 w/runs/spool large
        d 755 0:0 deep
        d 755 0:0 deep/w
        f 644 0:0 deep/w/b two
        f 644 0:0 own.lock
        l 777 0:0 link -> w/runs
    ";
    let room = Room::new();
    let at = |path: &str| room.folder.path().join("from").join(path);
    let shown = room.tree("from", files);
    let own = std::sync::Arc::new(crate::OwnFiles::at(["w", "deep/w", "own.lock", "not/there"].map(at)));
    let from = shown.share().unwrap().hiding(&own);
    let hidden = ["w", "w/runs", "w/runs/spool", "deep/w", "deep/w/b", "own.lock"];
    for path in hidden {
        assert!(shown.stat(Path::new(path)).unwrap().is_some(), "{path}");
        assert!(from.stat(Path::new(path)).unwrap().is_none(), "{path}");
        assert!(from.open_file(Path::new(path)).is_err(), "{path}");
        assert!(from.read_dir(Path::new(path)).is_err(), "{path}");
        let to = room.tree(&path.replace('/', "-"), "");
        let found = run(&from, &[], &to, &format!("COPY {path} /x/"));
        assert!(matches!(found, Err(CopyError::NotFound { excluded: false, .. })), "{path}: {found:?}");
    }
    let whole = "x x/deep x/link x/src x/src/a";
    let table: [(&str, &[&str], &str); 8] = [
        ("COPY . /x/", &[], whole),
        ("ADD . /x/", &[], whole),
        ("COPY --parents . /x/", &[], whole),
        ("COPY * /x/", &[], "x x/a x/link"),
        ("COPY */* /x/", &[], "x x/a"),
        ("COPY --parents **/* /x/", &[], whole),
        // What the filter lets in again.
        ("COPY . /x/", &["*", "!w/runs", "!deep/w", "!src"], "x x/src x/src/a"),
        ("COPY . /x/", &["w/**"], whole),
    ];
    for (index, (instruction, ignore, paths)) in table.into_iter().enumerate() {
        let to = room.tree(&format!("to{index}"), "");
        match run(&from, ignore, &to, instruction) {
            Ok(_) => {}
            // A wildcard takes the link, which leads to nothing that is there.
            Err(CopyError::NotFound { .. }) if instruction.starts_with("COPY *") => {}
            Err(error) => panic!("{instruction}: {error}"),
        }
        let mut found = Vec::new();
        walk(&to, &mut |path, _| found.push(path.display().to_string()));
        found.sort();
        let found = found.join(" ");
        assert!(!found.contains("w") && !found.contains("own"), "{instruction}: {found}");
        if !instruction.starts_with("COPY *") {
            assert_eq!(found, paths, "{instruction} {ignore:?}");
        }
    }
    for (path, is_hidden_below) in [("", true), ("deep", true), ("src", false)] {
        assert_eq!(from.hides_below(Path::new(path)).unwrap(), is_hidden_below, "{path}");
        assert!(!shown.hides_below(Path::new(path)).unwrap());
    }
    // The root is the user's wherever it is: a context that was unpacked into the work directory.
    let inside = Tree::open(&at("w/runs"), None).unwrap().hiding(&own);
    assert!(inside.stat(Path::new("spool")).unwrap().is_some());
    let itself = Tree::open(&at("w"), None).unwrap().hiding(&own);
    assert!(itself.stat(Path::new("runs/spool")).unwrap().is_some());
}

/// However many threads copy, the tree is the same, times of directories included; and what one of them fails at is told.
#[test]
fn several_threads_make_the_same_tree() {
    let outer = tempfile::tempdir().unwrap();
    let from = Tree::create(&outer.path().join("from"), None).unwrap();
    for directory in 0..30 {
        let path = PathBuf::from(format!("d{}/e{directory}", directory % 3));
        std::fs::create_dir_all(from.path().join(&path)).unwrap();
        for file in 0..70 {
            let path = path.join(format!("f{file}"));
            std::fs::write(from.path().join(&path), vec![b'x'; file * 31 * directory]).unwrap();
            from.set_mode(&path, 0o600 | file as u32 & 0o77).unwrap();
            from.set_modified(&path, (1_000_000 + file as i64, 7)).unwrap();
        }
        std::fs::hard_link(from.path().join(path.join("f1")), from.path().join(path.join("other"))).unwrap();
        from.set_modified(&path, (2_000_000 + directory as i64, 9)).unwrap();
    }
    let layer = |threads: usize| {
        let to = Tree::create(&outer.path().join(format!("to-{threads}")), None).unwrap();
        let options = CopyOptions { threads, ..options() };
        let copied = copy(&from, &Everything, &["/".to_owned()], &to, "/all", &options).unwrap();
        let record = outer.path().join(format!("record-{threads}"));
        let mut layer = Vec::new();
        let fixed = crate::commit::CommitOptions { clamp_modified: Some(3_000_000), ..Default::default() };
        drop(crate::commit::commit(&to, None, &record, &fixed, &mut layer).unwrap());
        (copied, layer)
    };
    let one = layer(1);
    assert_eq!(one.0.entries, 30 * 71 + 33 + 1);
    for threads in [2, 5] {
        let several = layer(threads);
        assert_eq!(one.0, several.0);
        assert!(one.1 == several.1, "{threads} threads");
    }
    let flag = Arc::new(AtomicBool::new(false));
    let to = Tree::create(&outer.path().join("stopped"), None).unwrap().stopping(&Stop::when(&[&flag]));
    let options = CopyOptions { threads: 3, ..options() };
    let stopped = copy(&from, &Stopping(flag), &["/".to_owned()], &to, "/", &options);
    assert!(matches!(stopped, Err(CopyError::Rootfs(RootfsError::Cancelled))), "{stopped:?}");
}

/// Stops the work when it comes to a certain file.
struct Stopping(Arc<AtomicBool>);

impl Filter for Stopping {
    fn excludes(&self, path: &Path) -> bool {
        self.0.fetch_or(path.ends_with("e20/f60"), Ordering::Relaxed);
        false
    }

    fn may_include_below(&self, _: &Path) -> bool {
        false
    }
}
