//! Layers as they come: what they mean, and what they try.

mod common;

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::tarball::{Header, Tarball};
use zuwai_rootfs::Stop;
use zuwai_rootfs::archive::open_archive;
use zuwai_rootfs::unpack::{Limits, extract, unpack};
use zuwai_rootfs::{FileKind, RootfsError, Tree};

struct Place {
    outer: tempfile::TempDir,
    tree: Tree,
}

impl Place {
    fn new() -> Place {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("outside"), "untouched").unwrap();
        let tree = Tree::create(&outer.path().join("root"), Some(&outer.path().join("table"))).unwrap();
        Place { outer, tree }
    }

    fn with(layers: &[Vec<u8>]) -> Place {
        let place = Place::new();
        for layer in layers {
            unpack(&mut layer.as_slice(), &place.tree, &Limits::NONE).unwrap();
        }
        place
    }

    /// One line per path: name, kind and content; links of each other share a number sign.
    fn show(&self) -> String {
        let mut lines = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(directory) = pending.pop() {
            for name in self.tree.read_dir(&directory).unwrap() {
                let path = directory.join(name);
                let found = self.tree.stat(&path).unwrap().unwrap();
                let text = match found.kind {
                    FileKind::Directory => {
                        pending.push(path.clone());
                        "/".to_owned()
                    }
                    FileKind::Symlink => format!(" -> {}", self.tree.read_link(&path).unwrap().display()),
                    FileKind::File => format!("={}{}", self.read(&path), if found.links > 1 { "#" } else { "" }),
                    kind => format!(" {kind:?}"),
                };
                lines.push(format!("{}{text}", path.display()));
            }
        }
        assert_eq!(std::fs::read_to_string(self.outer.path().join("outside")).unwrap(), "untouched");
        lines.sort();
        lines.join(" ")
    }

    fn read(&self, path: &Path) -> String {
        let mut bytes = Vec::new();
        self.tree.open_file(path).unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn tar() -> Tarball {
    Tarball::new()
}

#[test]
fn what_layers_mean() {
    let lower = || tar().dir("d").file("d/old", "1").dir("d/sub").file("d/sub/old", "2").file("f", "3").end();
    let cases: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        (
            "spellings",
            vec![tar().file("./a", "1").file("/b", "2").file(".//c/./e/../d", "3").end()],
            "a=1 b=2 c/ c/d=3",
        ),
        ("no end marker", vec![tar().file("a", "1").bytes()], "a=1"),
        ("the root is left alone", vec![tar().dir("./").dir("/").dir("..").file("a", "1").end()], "a=1"),
        (
            "names that climb",
            vec![tar().file("../../../up", "1").file("deep/../../../../../climb", "2").end()],
            "climb=2 up=1",
        ),
        (
            "links that climb",
            vec![
                tar()
                    .link("root", "/")
                    .file("root/a", "1")
                    .link("above", "../../../../..")
                    .file("above/b", "2")
                    .dir("inner")
                    .link("inner/etc", "../../../etc")
                    .file("inner/etc/c", "3")
                    .end(),
            ],
            "a=1 above -> ../../../../.. b=2 etc/ etc/c=3 inner/ inner/etc -> ../../../etc root -> /",
        ),
        ("whiteout of a file", vec![lower(), tar().file(".wh.f", "").end()], "d/ d/old=1 d/sub/ d/sub/old=2"),
        ("whiteout of a directory", vec![lower(), tar().file(".wh.d", "").end()], "f=3"),
        (
            "whiteout of nothing",
            vec![lower(), tar().file("none/.wh.x", "").file(".wh.y", "").end()],
            "d/ d/old=1 d/sub/ d/sub/old=2 f=3 none/",
        ),
        ("whiteout, then new", vec![lower(), tar().file(".wh.d", "").file("d/new", "4").end()], "d/ d/new=4 f=3"),
        ("new, then whiteout", vec![lower(), tar().file("d/new", "4").file(".wh.d", "").end()], "d/ d/new=4 f=3"),
        ("whiteout of the layer's own file", vec![tar().file("a", "1").file(".wh.a", "").end()], "a=1"),
        (
            "opaque first",
            vec![lower(), tar().dir("d").file("d/.wh..wh..opq", "").file("d/sub/new", "4").end()],
            "d/ d/sub/ d/sub/new=4 f=3",
        ),
        (
            "opaque last",
            vec![lower(), tar().dir("d").file("d/sub/new", "4").file("d/.wh..wh..opq", "").end()],
            "d/ d/sub/ d/sub/new=4 f=3",
        ),
        ("opaque root", vec![lower(), tar().file("a", "1").file(".wh..wh..opq", "").end()], "a=1"),
        (
            "what aufs left",
            vec![tar().file(".wh..wh.aufs", "").dir(".wh..wh.plnk").file(".wh..wh.plnk/1", "x").file("a", "1").end()],
            "a=1",
        ),
        ("file to directory", vec![lower(), tar().dir("f").file("f/x", "4").file(".wh.d", "").end()], "f/ f/x=4"),
        ("directory to file", vec![lower(), tar().file("d", "4").end()], "d=4 f=3"),
        ("directory to link", vec![lower(), tar().link("d", "f").end()], "d -> f f=3"),
        (
            "link to directory is replaced",
            vec![lower(), tar().link("l", "d").end(), tar().dir("l").file("l/x", "4").end()],
            "d/ d/old=1 d/sub/ d/sub/old=2 f=3 l/ l/x=4",
        ),
        (
            "link is not written through",
            vec![lower(), tar().link("l", "f").end(), tar().file("l", "4").end()],
            "d/ d/old=1 d/sub/ d/sub/old=2 f=3 l=4",
        ),
        (
            "directory stays with what is in it",
            vec![lower(), tar().dir("d/sub/").end()],
            "d/ d/old=1 d/sub/ d/sub/old=2 f=3",
        ),
        ("twice", vec![tar().file("a", "1").file("a", "22").file("a", "3").end()], "a=3"),
        (
            "a cached directory that goes",
            vec![tar().dir("d").link("d/l", ".").file("d/l/x", "1").file("d/l/l", "2").end()],
            "d/ d/l=2 d/x=1",
        ),
        ("hard link", vec![tar().file("a", "1").hard("b", "a").hard("c", "./b").end()], "a=1# b=1# c=1#"),
        (
            "hard link to an earlier layer",
            vec![lower(), tar().hard("d/f", "/f").file(".wh.d", "").end()],
            "d/ d/f=3# f=3#",
        ),
        (
            "hard link through a link",
            vec![lower(), tar().link("l", "/d").hard("x", "l/old").file("l/.wh.sub", "").end()],
            "d/ d/old=1# f=3 l -> /d x=1#",
        ),
        ("hard link that climbs", vec![tar().file("a", "1").hard("b", "../../a").end()], "a=1# b=1#"),
        ("hard link to a link", vec![tar().link("l", "/x").hard("m", "l").end()], "l -> /x m -> /x"),
        ("hard link over its target", vec![tar().file("a", "1").hard("a", "a").end()], "a=1"),
        ("old directories", vec![tar().header(Header::new("d/", 0)).end()], "d/"),
        (
            "size of what has no content",
            vec![
                tar()
                    .header(Header::new("d/", b'5').size(4096))
                    .header(Header::new("p", b'6').size(99))
                    .file("a", "1")
                    .end(),
            ],
            "a=1 d/ p Fifo",
        ),
        (
            "global header",
            vec![tar().header(Header::new("g", b'g').size(12)).content("12 path=xyz\n").file("a", "1").end()],
            "a=1",
        ),
        (
            "pax over header",
            vec![
                tar()
                    .pax(&[("path", b"long/name"), ("size", b"3"), ("uid", b"7")])
                    .header(Header::new("x", b'0'))
                    .content("abc")
                    .end(),
            ],
            "long/ long/name=abc",
        ),
        (
            "GNU names",
            vec![
                tar()
                    .header(Header::new("././@LongLink", b'K').size(5))
                    .content("a/b/\0")
                    .header(Header::new("././@LongLink", b'L').size(4))
                    .content("name")
                    .link("x", "y")
                    .end(),
            ],
            "name -> a/b/",
        ),
        ("prefix", vec![tar().header(Header::new("b", b'0').with(345, "a")).end()], "a/ a/b="),
    ];
    for (what, layers, expected) in cases {
        assert_eq!(Place::with(&layers).show(), expected, "{what}");
    }
}

#[test]
fn what_is_refused() {
    let big = |bytes: &[u8]| tar().header(Header::new("a", b'0').with(124, bytes)).bytes();
    let map = |map: &[u8], size: &[u8]| {
        tar()
            .pax(&[
                ("GNU.sparse.map", map),
                ("GNU.sparse.size", size),
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.minor", b"1"),
            ])
            .file("a", "12345")
            .end()
    };
    let mut wrong_sum = tar().file("a", "1").end();
    wrong_sum[0] = b'b';
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no tar", vec![b'x'; 2000], "checksum"),
        ("wrong checksum", wrong_sum, "checksum"),
        ("short header", vec![b'x'; 100], "header"),
        ("cut content", tar().header(Header::new("a", b'0').size(1000)).raw("short").bytes(), "cut off"),
        ("cut before the padding", tar().header(Header::new("a", b'0').size(3)).raw("abc").bytes(), "cut off"),
        ("single zero block", tar().raw([0; 512]).file("a", "1").end(), "zero block"),
        ("negative size", big(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "size"),
        ("size beyond 64 bits", big(b"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"), "range"),
        ("size that overflows with padding", big(b"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), "size"),
        ("size that is no number", big(b"0000000x000\0"), "number"),
        ("pax size that overflows", tar().pax(&[("size", b"18446744073709551615")]).file("a", "").end(), "number"),
        ("negative pax size", tar().pax(&[("size", b"-1")]).file("a", "").end(), "size"),
        (
            "pax without length",
            tar().header(Header::new("x", b'x').size(5)).content("a=b\n\n").file("a", "").end(),
            "extended",
        ),
        (
            "pax beyond its end",
            tar().header(Header::new("x", b'x').size(9)).content("99 a=b\n\n\n").file("a", "").end(),
            "extended",
        ),
        ("pax path with NUL", tar().pax(&[("path", b"a\0b")]).file("a", "").end(), "extended"),
        ("huge extended header", tar().header(Header::new("x", b'x').size(1 << 30)).bytes(), "1073741824"),
        ("huge global header", tar().header(Header::new("x", b'g').size(1 << 21)).bytes(), "extended"),
        (
            "endless extended headers",
            (0..20).fold(tar(), |tar, _| tar.pax(&[("comment", b"x")])).file("a", "").end(),
            "too many",
        ),
        ("unknown type", tar().header(Header::new("a", b'V')).end(), "type"),
        ("whiteout of its directory", tar().file("d/.wh..", "").end(), "whiteout"),
        ("whiteout of the parent", tar().file("d/.wh...", "").end(), "whiteout"),
        ("whiteout of nothing at all", tar().file("d/.wh.", "").end(), "whiteout"),
        ("hard link to nothing", tar().hard("a", "none").end(), "none"),
        ("hard link to the root", tar().hard("a", "/").end(), "not there"),
        ("path of 20 KB", tar().pax(&[("path", "x/".repeat(10_000).as_bytes())]).file("a", "").end(), "20000"),
        ("sparse pieces that overlap", map(b"0,3,2,2", b"10"), "sparse"),
        ("sparse pieces beyond the end", map(b"8,5", b"10"), "sparse"),
        ("sparse pieces that overflow", map(b"9223372036854774000,5", b"9223372036854774001"), "sparse"),
        ("more stored than pieces", map(b"0,3", b"10"), "sparse"),
        ("odd map", map(b"0,3,2", b"10"), "sparse"),
        ("sparse in a POSIX archive", tar().header(Header::new("a", b'S')).end(), "GNU"),
    ];
    for (what, layer, expected) in cases {
        let place = Place::new();
        let error = unpack(&mut layer.as_slice(), &place.tree, &Limits::NONE).expect_err(what);
        assert!(matches!(error, RootfsError::InvalidLayer { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains(expected), "{what}: {error}");
    }
}

#[test]
fn every_prefix_and_every_flipped_byte_is_survived() {
    let layer = tar()
        .pax(&[("path", b"p"), ("SCHILY.xattr.user.a", b"b")])
        .file("a", "123")
        .hard("h", "p")
        .link("l", "p")
        .end();
    let place = Place::new();
    let limits = Limits { size_bytes: 1 << 30, entries: 100 };
    for length in 0..layer.len() {
        let _ = unpack(&mut &layer[..length], &place.tree, &limits);
    }
    for index in 0..layer.len() {
        for flip in [0x91, 0x01] {
            let mut damaged = layer.clone();
            damaged[index] ^= flip;
            let _ = unpack(&mut damaged.as_slice(), &place.tree, &limits);
        }
    }
    place.show();
}

#[test]
fn limits_hold() {
    let layer = tar().file("a", "12345").file("b", "12345").end();
    let run = |size_bytes, entries| {
        unpack(&mut layer.as_slice(), &Place::new().tree, &Limits { size_bytes, entries })
            .map(|done| (done.entries, done.size_bytes))
    };
    assert_eq!(run(10, 2).unwrap(), (2, 10));
    assert!(matches!(run(9, 2), Err(RootfsError::TooLarge { limit_bytes: 9 })));
    assert!(matches!(run(10, 1), Err(RootfsError::InvalidLayer { .. })));
    let sparse = tar().pax(&[("GNU.sparse.map", b"0,0"), ("GNU.sparse.size", b"1000000000000")]).file("a", "").end();
    let limits = Limits { size_bytes: 1 << 20, entries: 10 };
    assert!(matches!(unpack(&mut sparse.as_slice(), &Place::new().tree, &limits), Err(RootfsError::TooLarge { .. })));
}

#[test]
fn metadata_arrives() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"hello\n=x"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("mtime", b"-1.25"),
    ];
    let place = Place::with(&[tar()
        .pax(&records)
        .header(Header::new("f", b'0').with(100, "0006755").with(108, b"\x80\0\0\0\x00\x01\x11\x70"))
        .header(Header::new("null", b'3').with(329, "0000001").with(337, "0000003").with(100, "0000666"))
        .hard("g", "f")
        .dir("late/x")
        .header(Header::new("late", b'5').with(100, "0000700").with(136, "00000000007"))
        .file("late/x/y", "")
        .end()]);
    let file = place.tree.stat(Path::new("f")).unwrap().unwrap();
    // The hard link's header speaks of the file as well: 0644, 0:0 (containerd does the same).
    assert_eq!((file.mode, file.uid, file.gid, file.modified), (0o644, 0, 0, (0o13602457000, 0)));
    let attributes = place.tree.xattrs(Path::new("f")).unwrap();
    assert_eq!(attributes, vec![("user.note".into(), b"hello\n=x".to_vec())]);
    let null = place.tree.stat(Path::new("null")).unwrap().unwrap();
    assert_eq!((null.kind, null.device, null.mode), (FileKind::CharDevice, (1, 3), 0o666));
    let late = place.tree.stat(Path::new("late")).unwrap().unwrap();
    assert_eq!((late.mode, late.modified), (0o700, (7, 0)));
    let implied = Place::with(&[tar().file("a/b/c", "").end()]);
    let parent = implied.tree.stat(Path::new("a")).unwrap().unwrap();
    assert_eq!((parent.mode, parent.uid, parent.modified.0), (0o755, 0, 0o13602457000));
}

#[test]
fn capability_and_set_id_bits_survive_the_order() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let header = Header::new("f", b'0').with(100, "0006755").with(108, "0001750");
    let link = Header::new("g", b'1').with(157, "f").with(100, "0006755").with(108, "0001750");
    let place = Place::with(&[tar()
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("mtime", b"-1.25")])
        .header(header)
        .pax(&[("mtime", b"-1.25")])
        .header(link)
        .end()]);
    let file = place.tree.stat(Path::new("g")).unwrap().unwrap();
    assert_eq!((file.mode, file.uid, file.links, file.modified), (0o6755, 1000, 2, (-2, 750_000_000)));
    assert_eq!(place.tree.xattrs(Path::new("f")).unwrap(), vec![("security.capability".into(), capability.to_vec())]);
}

#[test]
fn directory_times_survive_their_children() {
    let place = Place::with(&[
        tar().header(Header::new("d", b'5').with(136, "00000000005")).file("d/a", "").end(),
        tar().file("d/b", "").file("d/e/f", "").end(),
    ]);
    assert_eq!(place.tree.stat(Path::new("d")).unwrap().unwrap().modified, (5, 0));
}

/// Archives of GNU tar in all its dialects, compared with what it packed.
#[test]
fn gnu_tar_is_understood() {
    let outer = tempfile::tempdir().unwrap();
    let script = r#"
        mkdir in && cd in && printf x > a && ln a hard && ln -s a link && mkdir -p "$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 120))"
        printf deep > "$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 120))/$(printf 'f%.0s' $(seq 200))"
        printf 'tail' > sparse && truncate -s 5M sparse && printf mid >> sparse && truncate -s 9M sparse
        printf bytes > "$(printf 'n\377\n')"; mkfifo fifo
    "#;
    run(Command::new("sh").args(["-euc", script]).current_dir(outer.path()));
    for options in [
        vec!["--format=gnu"],
        vec!["--format=gnu", "--sparse"],
        vec!["--format=pax"],
        vec!["--format=pax", "--sparse", "--sparse-version=0.0"],
        vec!["--format=pax", "--sparse", "--sparse-version=0.1"],
        vec!["--format=pax", "--sparse", "--sparse-version=1.0"],
    ] {
        run(Command::new("tar").args(&options).args(["-C", "in", "-cf", "t.tar", "."]).current_dir(outer.path()));
        let place = Place::new();
        let layer = std::fs::File::open(outer.path().join("t.tar")).unwrap();
        unpack(&mut { layer }, &place.tree, &Limits::NONE).unwrap();
        run(Command::new("diff").args(["-r", "--no-dereference"]).arg(outer.path().join("in")).arg(place.tree.path()));
        let sparse = std::fs::metadata(place.tree.path().join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "{options:?}: {} blocks", sparse.blocks());
        assert_eq!(place.tree.stat(Path::new("hard")).unwrap().unwrap().links, 2);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // diff complains about fifos of the same name only.
    assert!(output.status.success() || text.lines().all(|line| line.contains("is a fifo")), "{command:?}: {text}");
}

#[test]
fn archives_are_added() {
    let base = tar()
        .dir("real")
        .link("abs", "/real")
        .link("lib", "usr/lib")
        .dir("usr/lib")
        .dir("t")
        .file("t/victim", "v")
        .end();
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("new destination", tar().file("a", "1").end(), "/x/y", "x/ x/y/ x/y/a=1"),
        ("through a link", tar().file("a", "1").end(), "abs/z", "real/z/ real/z/a=1"),
        (
            "links of the image",
            tar().dir("lib/").file("lib/a", "1").file("abs/b", "2").end(),
            "/",
            "real/b=2 usr/lib/a=1",
        ),
        (
            "links are inside the destination",
            tar().link("up", "../..").file("up/a", "1").end(),
            "t",
            "t/a=1 t/up ../..",
        ),
        ("the root entry", tar().dir("./").file("./a", "1").end(), "t", "t/a=1"),
        ("names that delete", tar().file(".wh.victim", "").file("a", "1").end(), "t", "t/a=1 -t/victim"),
    ];
    for (what, archive, destination, expected) in cases {
        let place = Place::with(std::slice::from_ref(&base));
        let before = place.show();
        extract(&mut archive.as_slice(), &place.tree, Path::new(destination), None).unwrap();
        let after = place.show();
        let added = after.split(' ').filter(|path| !before.split(' ').any(|old| old == *path)).map(str::to_owned);
        let gone = before.split(' ').filter(|path| !after.split(' ').any(|new| new == *path));
        let gone = gone.map(|path| format!("-{}", path.split('=').next().unwrap()));
        let found: Vec<String> = added.chain(gone).collect();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(found, words(expected), "{what}");
    }
}

#[test]
fn added_files_get_the_owner() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let place = Place::new();
    let archive = tar().header(Header::new("a/b", b'0').with(108, "0000007").with(100, "0004755")).end();
    extract(&mut archive.as_slice(), &place.tree, Path::new("d"), Some((5, 6))).unwrap();
    let stat = |path: &str| place.tree.stat(Path::new(path)).unwrap().unwrap();
    assert_eq!((stat("d/a/b").uid, stat("d/a/b").gid, stat("d/a/b").mode), (5, 6, 0o4755));
    assert_eq!((stat("d/a").uid, stat("d").uid, stat("d").mode), (0, 0, 0o755));
}

#[test]
fn directories_that_an_archive_implies_take_the_set_group_id_bit_over() {
    if !common::is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let place = Place::new();
    let outer = Path::new("o");
    place.tree.make_dir(outer, 0o755).unwrap();
    place.tree.set_owner(outer, 3, 4).unwrap();
    place.tree.set_mode(outer, 0o2777).unwrap();
    let archive = tar().file("i/j/f", "1").dir("e").file("e/k/g", "2").end();
    extract(&mut archive.as_slice(), &place.tree, outer, None).unwrap();
    let look = |path: &str| {
        let found = place.tree.stat(Path::new(path)).unwrap().unwrap();
        format!("{:o} {}:{}", found.mode, found.uid, found.gid)
    };
    assert_eq!(["o/i", "o/i/j", "o/e", "o/e/k"].map(look), ["2755 0:0", "2755 0:0", "755 0:0", "755 0:0"]);
    // A layer says what it wants.
    let layer = tar().file("o/l/m", "3").end();
    unpack(&mut layer.as_slice(), &place.tree, &Limits::NONE).unwrap();
    assert_eq!(look("o/l"), "755 0:0");
}

/// moby `boundTime`: what nanoseconds in 64 bits cannot hold, and what lies before 1970.
#[test]
fn times_of_archives_have_bounds() {
    let cases: [(&[u8], i64); 6] = [
        (b"-5", 0),
        (b"-0.5", 0),
        (b"99999999999", 0),
        (b"9223372036", 9_223_372_036),
        (b"9223372037", 0),
        (b"1.5", 1),
    ];
    for (text, seconds) in cases {
        let archive = tar().pax(&[("mtime", text)]).file("f", "").pax(&[("mtime", text)]).dir("d").end();
        let place = Place::new();
        extract(&mut archive.as_slice(), &place.tree, Path::new(""), None).unwrap();
        for name in ["f", "d"] {
            let found = place.tree.stat(Path::new(name)).unwrap().unwrap();
            assert_eq!(found.modified.0, seconds, "{name} {}", String::from_utf8_lossy(text));
        }
    }
    let layer = tar().pax(&[("mtime", b"-5")]).file("f", "").end();
    let place = Place::new();
    unpack(&mut layer.as_slice(), &place.tree, &Limits::NONE).unwrap();
    assert_eq!(place.tree.stat(Path::new("f")).unwrap().unwrap().modified.0, -5, "a layer keeps them");
}

#[test]
fn archives_are_recognized_by_their_content() {
    let outer = tempfile::tempdir().unwrap();
    let plain = tar().file("a", "content").end();
    std::fs::write(outer.path().join("t.tar"), &plain).unwrap();
    // Half of the archive in each of two streams.
    let script = r"
        cp t.tar plain.txt; head -c 700 t.tar > 1; tail -c +701 t.tar > 2
        for packer in gzip bzip2 xz zstd; do
            $packer < t.tar > whole.$packer; { $packer < 1; $packer < 2; } > two.$packer
        done
        head -c 30 whole.gzip > broken.gzip
        { cat whole.gzip; echo signature; } > longer.gzip
        : > empty; echo text > t.text; echo text | gzip > text.gz; head -c 1024 /dev/zero > zeros
    ";
    run(Command::new("sh").args(["-euc", script]).current_dir(outer.path()));
    let content = |name: &str| {
        let file = std::fs::File::open(outer.path().join(name)).unwrap();
        open_archive(file, &Stop::default()).unwrap().map(|mut stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    for packer in ["gzip", "bzip2", "xz", "zstd"] {
        for form in ["whole", "two"] {
            assert!(content(&format!("{form}.{packer}")).as_deref() == Some(&plain), "{form}.{packer}");
        }
    }
    assert!(content("plain.txt").as_deref() == Some(&plain));
    // What follows is not looked at.
    let place = Place::new();
    let mut archive = open_archive(std::fs::File::open(outer.path().join("longer.gzip")).unwrap(), &Stop::default())
        .unwrap()
        .unwrap();
    extract(&mut archive, &place.tree, Path::new("d"), None).unwrap();
    assert!(place.tree.stat(Path::new("d/a")).unwrap().is_some());
    for name in ["empty", "t.text", "text.gz", "zeros", "broken.gzip"] {
        assert!(content(name).is_none(), "{name}");
    }
}

/// What containerd makes of them: it hands the numbers to lchown(2), which takes 32 bits and leaves an id alone that is -1.
#[test]
fn ids_that_do_not_fit_are_those_that_lchown_makes_of_them() {
    let owned = |name: &str, kind: u8, uid: i64, gid: i64| {
        let base256 = |number: i64| {
            let mut field = number.to_be_bytes();
            field[0] |= 0x80;
            field
        };
        Header::new(name, kind).with(108, base256(uid)).with(116, base256(gid))
    };
    let below = Tarball::new().header(owned("d/", b'5', 5, 6)).end();
    let layer = Tarball::new()
        .header(owned("d/", b'5', 0xffff_ffff, 9))
        .header(owned("new", b'0', 0xffff_ffff, 0xffff_ffff))
        .header(owned("group", b'0', 7, 0xffff_ffff))
        .header(owned("beyond", b'0', 0x1_0000_0003, 0x2_0000_0000))
        .header(owned("negative", b'0', -1, -65_536))
        .end();
    let place = Place::with(&[below, layer]);
    let table = [("d", (5, 9)), ("new", (0, 0)), ("group", (7, 0)), ("beyond", (3, 0)), ("negative", (0, 0xffff_0000))];
    for (path, owner) in table {
        let found = place.tree.stat(Path::new(path)).unwrap().unwrap();
        assert_eq!((found.uid, found.gid), owner, "{path}");
    }
}
