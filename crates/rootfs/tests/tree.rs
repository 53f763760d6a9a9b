//! [`Tree`]: paths stay inside, metadata comes back whatever the process may do.

mod common;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zuwai_rootfs::{FileKind, Metadata, RootfsError, Stop, Tree};

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn write(tree: &Tree, name: &str, content: &str) {
    tree.make_file(path(name)).unwrap().write_all(content.as_bytes()).unwrap();
}

fn read(tree: &Tree, name: &str) -> Result<String, RootfsError> {
    let mut text = String::new();
    tree.open_file(path(name))?.read_to_string(&mut text).unwrap();
    Ok(text)
}

fn stat(tree: &Tree, name: &str) -> Metadata {
    tree.stat(path(name)).unwrap().unwrap_or_else(|| panic!("no {name}"))
}

fn capability() -> Vec<u8> {
    let mut value = vec![1, 0, 0, 2, 0, 0x20, 0, 0];
    value.resize(20, 0);
    value
}

#[test]
fn paths_are_resolved_inside() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::write(outer.path().join("secret"), "outside").unwrap();
    let tree = Tree::create(&outer.path().join("root"), None).unwrap();
    tree.make_dir(path("a"), 0o755).unwrap();
    tree.make_dir(path("a/b"), 0o755).unwrap();
    write(&tree, "a/file", "inside");
    tree.make_symlink(path("/a"), path("absolute")).unwrap();
    tree.make_symlink(path("../../../../../a"), path("a/b/climb")).unwrap();
    tree.make_symlink(path("file"), path("a/link")).unwrap();
    tree.make_symlink(path("/nowhere/x"), path("dangling")).unwrap();
    tree.make_symlink(path("loop"), path("loop")).unwrap();
    for (given, followed, kept) in [
        ("", "", ""),
        ("/", "", ""),
        ("..", "", ""),
        ("../../a/../a/./b//", "a/b", "a/b"),
        ("absolute", "a", "absolute"),
        ("absolute/b", "a/b", "a/b"),
        ("/a/b/climb/file", "a/file", "a/file"),
        ("a/b/climb", "a", "a/b/climb"),
        ("absolute/link", "a/file", "a/link"),
        ("absolute/..", "", ""),
        ("dangling", "nowhere/x", "dangling"),
        ("dangling/y/../z", "nowhere/x/z", "nowhere/x/z"),
        ("none/../a", "a", "a"),
        ("a/file/x", "a/file/x", "a/file/x"),
    ] {
        assert_eq!(tree.resolve(path(given), true).unwrap(), path(followed), "{given}");
        assert_eq!(tree.resolve(path(given), false).unwrap(), path(kept), "{given}");
    }
    assert!(tree.resolve(path("loop/x"), true).is_err());
    assert_eq!(read(&tree, "/../absolute/b/climb/link").unwrap(), "inside");
    assert!(read(&tree, "../secret").is_err());
    assert!(read(&tree, "a").is_err(), "a directory is not read as a file");
    assert_eq!(tree.read_link(path("a/b/climb")).unwrap(), path("../../../../../a"));
    assert!(tree.stat(path("a/file/x")).unwrap().is_none());
    assert!(tree.stat(path("none/x")).unwrap().is_none());
    assert_eq!(stat(&tree, "absolute").kind, FileKind::Symlink);
    assert_eq!(stat(&tree, "/").kind, FileKind::Directory);
    assert_eq!(stat(&tree, "absolute/..").inode, stat(&tree, "").inode);
}

#[test]
fn names_are_bytes_and_sorted() {
    let outer = tempfile::tempdir().unwrap();
    let tree = Tree::open(outer.path(), None).unwrap();
    let names: [&[u8]; 6] = [b"\xff\xfe", b"a", b"B", b"a-b", b"\n", b"\xc3\xa9"];
    for name in names {
        tree.make_file(Path::new(OsStr::from_bytes(name))).unwrap();
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let found: Vec<OsString> = tree.read_dir(path("")).unwrap();
    assert_eq!(found.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), sorted);
}

#[test]
fn removal_goes_deep_and_stays_inside() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::create_dir(outer.path().join("precious")).unwrap();
    std::fs::write(outer.path().join("precious/x"), "").unwrap();
    let tree = Tree::create(&outer.path().join("root"), None).unwrap();
    tree.make_dir(path("d"), 0o755).unwrap();
    tree.make_symlink(path("../../precious"), path("d/link")).unwrap();
    let mut deep = String::from("d");
    for _ in 0..1200 {
        deep.push_str("/deep");
        tree.make_dir(path(&deep), 0o755).unwrap();
        if deep.len() % 7 == 0 {
            write(&tree, &format!("{deep}/f"), "x");
        }
    }
    assert_eq!(stat(&tree, &deep).kind, FileKind::Directory);
    tree.remove(path("d")).unwrap();
    tree.remove(path("d")).unwrap();
    tree.remove(path("d/e/f")).unwrap();
    assert_eq!(tree.read_dir(path("")).unwrap(), Vec::<OsString>::new());
    assert!(outer.path().join("precious/x").exists());
    assert!(tree.remove(path("..")).is_err());
}

/// Name, kind, mode, owner, device number.
type Special = (&'static str, FileKind, u32, (u32, u32), (u32, u32));

/// Makes one file of each kind with everything set, and says what must come back.
fn make_special(tree: &Tree) -> Vec<Special> {
    tree.make_dir(path("dir"), 0o2755).unwrap();
    write(tree, "file", "x");
    write(tree, "unreadable", "secret");
    tree.make_symlink(path("x"), path("link")).unwrap();
    tree.make_node(path("fifo"), FileKind::Fifo, (0, 0)).unwrap();
    tree.make_node(path("char"), FileKind::CharDevice, (1, 3)).unwrap();
    tree.make_node(path("block"), FileKind::BlockDevice, (300, 70000)).unwrap();
    let expected = vec![
        ("dir", FileKind::Directory, 0o2555, (1, 2), (0, 0)),
        ("file", FileKind::File, 0o6755, (70000, 80000), (0, 0)),
        ("unreadable", FileKind::File, 0, (0, 0), (0, 0)),
        ("fifo", FileKind::Fifo, 0o620, (0, 5), (0, 0)),
        ("char", FileKind::CharDevice, 0o666, (0, 0), (1, 3)),
        ("block", FileKind::BlockDevice, 0o660, (0, 6), (300, 70000)),
    ];
    for (name, _, mode, owner, _) in &expected {
        tree.set_owner(path(name), owner.0, owner.1).unwrap();
        tree.set_mode(path(name), *mode).unwrap();
        tree.set_modified(path(name), (-5, 123_456_789)).unwrap();
    }
    tree.set_owner(path("link"), 7, 8).unwrap();
    tree.set_mode(path("link"), 0o600).unwrap();
    tree.set_xattr(path("file"), OsStr::new("security.capability"), &capability()).unwrap();
    tree.set_xattr(path("file"), OsStr::new("user.note"), b"hello").unwrap();
    expected
}

fn assert_special(tree: &Tree, expected: &[Special]) {
    for (name, kind, mode, owner, device) in expected {
        let found = stat(tree, name);
        assert_eq!(
            (found.kind, found.mode, (found.uid, found.gid), found.device),
            (*kind, *mode, *owner, *device),
            "{name}"
        );
        assert_eq!(found.modified, (-5, 123_456_789), "{name}");
    }
    let link = stat(tree, "link");
    assert_eq!((link.kind, link.uid, link.gid), (FileKind::Symlink, 7, 8));
    let attributes = vec![("security.capability".into(), capability()), ("user.note".into(), b"hello".to_vec())];
    assert_eq!(tree.xattrs(path("file")).unwrap(), attributes);
    assert_eq!(tree.xattrs(path("link")).unwrap(), vec![]);
    assert_eq!(read(tree, "unreadable").unwrap(), "secret");
    assert!(tree.open_file(path("char")).is_err());
}

fn metadata_comes_back(expect_table: bool) {
    let outer = tempfile::tempdir().unwrap();
    let (root, table) = (outer.path().join("root"), outer.path().join("table"));
    let tree = Tree::create(&root, Some(&table)).unwrap();
    let expected = make_special(&tree);
    assert_special(&tree, &expected);
    assert_eq!(table.exists(), expect_table);
    // The same from the file, and when its last record was cut off.
    assert_special(&Tree::open(&root, Some(&table)).unwrap(), &expected);
    if expect_table {
        let mut bytes = std::fs::read(&table).unwrap();
        bytes.extend([40, 0, 0, 0, 1, 2, 3]);
        std::fs::write(&table, bytes).unwrap();
        for _ in 0..2 {
            assert_special(&Tree::open(&root, Some(&table)).unwrap(), &expected);
        }
    }
    // chown takes set-id bits and capabilities, a new name keeps all.
    let tree = Tree::open(&root, Some(&table)).unwrap();
    tree.make_link(path("char"), path("dir/other")).unwrap();
    assert_eq!(stat(&tree, "dir/other").device, (1, 3));
    tree.remove(path("char")).unwrap();
    assert_eq!(stat(&tree, "dir/other").device, (1, 3));
    tree.set_owner(path("file"), 3, 4).unwrap();
    let file = stat(&tree, "file");
    assert_eq!((file.mode, file.uid, file.gid), (0o755, 3, 4));
    assert_eq!(tree.xattrs(path("file")).unwrap(), vec![("user.note".into(), b"hello".to_vec())]);
    for name in tree.read_dir(path("")).unwrap() {
        tree.remove(Path::new(&name)).unwrap();
    }
    write(&tree, "fresh", "");
    assert_eq!((stat(&tree, "fresh").uid, stat(&tree, "fresh").mode), (0, 0o600));
}

#[test]
fn metadata_comes_back_for_root() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    metadata_comes_back(false);
}

#[test]
fn metadata_comes_back_for_a_plain_user() {
    common::as_plain_user("metadata_comes_back_for_a_plain_user", || metadata_comes_back(true));
}

#[test]
fn metadata_comes_back_for_root_without_mknod_fsetid_and_setfcap() {
    let name = "metadata_comes_back_for_root_without_mknod_fsetid_and_setfcap";
    common::as_root_without(&[27, 4, 31], name, || metadata_comes_back(true));
}

#[test]
fn metadata_comes_back_for_root_without_any_capability() {
    let name = "metadata_comes_back_for_root_without_any_capability";
    common::as_root_without(&[0, 1, 2, 3, 4, 6, 7, 27, 31], name, || metadata_comes_back(true));
}

#[test]
fn metadata_comes_back_for_root_of_a_namespace() {
    common::as_root_of_a_namespace("metadata_comes_back_for_root_of_a_namespace", || metadata_comes_back(true));
}

/// What a step's calls come to: files by their handles, and what the kernel refuses in the table.
fn handles_work() {
    let outer = tempfile::tempdir().unwrap();
    let tree = Tree::create(&outer.path().join("root"), Some(&outer.path().join("table"))).unwrap();
    let open = |name: &str| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
        rustix::fs::open(outer.path().join("root").join(name), flags, rustix::fs::Mode::empty()).unwrap()
    };
    write(&tree, "file", "");
    let file = open("file");
    assert!(!tree.pretends_of(file.as_fd()).unwrap());
    tree.set_owner_of(file.as_fd(), None, Some(77)).unwrap();
    tree.set_mode_of(file.as_fd(), 0o6711).unwrap();
    tree.set_capability_of(file.as_fd(), Some(&capability()), 0).unwrap();
    assert_eq!(stat(&tree, "file").mode, 0o6711);
    assert_eq!(tree.xattrs(path("file")).unwrap(), vec![("security.capability".into(), capability())]);
    tree.set_capability_of(file.as_fd(), None, 0).unwrap();
    assert_eq!(tree.xattrs(path("file")).unwrap(), vec![]);
    assert!(tree.set_capability_of(file.as_fd(), None, 0).is_err());
    tree.set_capability_of(file.as_fd(), Some(&capability()), 0).unwrap();
    // As the kernel does: another owner takes the set-id bits of files and the capabilities with him.
    tree.set_owner_of(file.as_fd(), Some(5), None).unwrap();
    let now = tree.stat_of(file.as_fd()).unwrap();
    assert_eq!((now.mode, now.uid, now.gid), (0o711, 5, 77));
    assert_eq!(tree.xattrs(path("file")).unwrap(), vec![]);

    tree.make_dir(path("dir"), 0o755).unwrap();
    let directory = open("dir");
    tree.set_owner_of(directory.as_fd(), None, Some(77)).unwrap();
    tree.set_mode_of(directory.as_fd(), 0o2775).unwrap();
    tree.set_owner_of(directory.as_fd(), Some(5), None).unwrap();
    assert_eq!(stat(&tree, "dir").mode, 0o2775);
    tree.make_node_in(directory.as_fd(), OsStr::new("null"), FileKind::CharDevice, (1, 3), 0o640).unwrap();
    let node = stat(&tree, "dir/null");
    assert_eq!((node.kind, node.device, node.mode), (FileKind::CharDevice, (1, 3), 0o640));
    let again = tree.make_node_in(directory.as_fd(), OsStr::new("null"), FileKind::CharDevice, (1, 3), 0o640);
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn handles_work_for_root() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    handles_work();
}

#[test]
fn handles_work_for_root_without_mknod_fsetid_and_setfcap() {
    common::as_root_without(&[27, 4, 31], "handles_work_for_root_without_mknod_fsetid_and_setfcap", handles_work);
}

/// Issue 9: owners in a shared cache were lost when two had it, and with them on a full disk.
fn shared_tables_survive_a_full_disk() {
    let outer = tempfile::tempdir().unwrap();
    let mounted = outer.path();
    rustix::mount::mount("tmpfs", mounted, "tmpfs", rustix::mount::MountFlags::empty(), c"size=256k").unwrap();
    std::fs::create_dir(mounted.join("content")).unwrap();
    let open = || Tree::open_shared(&mounted.join("content"), &mounted.join("table"), &Stop::default()).unwrap();
    let (one, other) = (open(), open());
    for name in ["a", "b", "c"] {
        write(&one, name, "");
    }
    one.set_owner(path("a"), 70_001, 1).unwrap();
    let ballast = std::fs::File::create(mounted.join("ballast")).unwrap();
    while (&ballast).write(&[0; 4096]).is_ok() {}
    // What fits on the page that is there is kept, and then there is an error, which is nobody's loss.
    let (mut kept, mut number) = (0, 0);
    let failed = loop {
        number += 1;
        match [&one, &other][number % 2].set_owner(path("b"), number as u32, 1) {
            Ok(()) => kept = number as u32,
            Err(error) => break error,
        }
    };
    assert!(failed.to_string().contains("/b"), "{failed}");
    for tree in [&one, &other, &open()] {
        assert_eq!((stat(tree, "a").uid, stat(tree, "b").uid), (70_001, kept));
    }
    ballast.set_len(0).unwrap();
    other.set_owner(path("c"), 70_003, 1).unwrap();
    one.set_owner(path("b"), 70_002, 1).unwrap();
    for tree in [&one, &other, &open()] {
        assert_eq!(["a", "b", "c"].map(|name| stat(tree, name).uid), [70_001, 70_002, 70_003]);
    }
}

#[test]
fn shared_tables_survive_a_full_disk_in_a_namespace() {
    let name = "shared_tables_survive_a_full_disk_in_a_namespace";
    common::with_own_mounts(true, name, shared_tables_survive_a_full_disk);
}

#[test]
fn without_a_table_a_refusal_is_an_error() {
    common::as_plain_user("without_a_table_a_refusal_is_an_error", || {
        let outer = tempfile::tempdir().unwrap();
        let tree = Tree::open(outer.path(), None).unwrap();
        write(&tree, "f", "");
        assert!(tree.set_owner(path("f"), 0, 0).is_err());
        assert!(tree.make_node(path("n"), FileKind::CharDevice, (1, 3)).is_err());
        assert_ne!(stat(&tree, "f").uid, 0);
    });
}
