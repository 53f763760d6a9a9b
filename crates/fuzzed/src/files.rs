//! Layers, archives, users, modes and programs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use rootfs::commit::{CommitOptions, write_tree};
use rootfs::copy::Mode;
use rootfs::unpack::{Limits, extract, unpack};
use rootfs::{RootfsError, Tree, archive::open_archive};
use tempfile::TempDir;

const BLOCK: usize = 512;
const LIMITS: Limits = Limits { size_bytes: 1 << 20, entries: 64 };

/// A directory of its own with an empty tree in it.
fn empty_tree(outer: &TempDir, name: &str) -> Tree {
    let table = outer.path().join(format!("{name}.table"));
    Tree::create(&outer.path().join(name), Some(&table)).expect("an empty tree")
}

fn outer() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Any bytes unpack or fail, and touch nothing outside the tree. Header checksums are put right first, so that the fuzzer
/// gets past them.
pub fn layer(input: &[u8]) {
    let outer = outer();
    let tree = empty_tree(&outer, "root");
    let layer = sealed(input);
    let _ = unpack(&mut layer.as_slice(), &tree, &LIMITS);
    let _ = unpack(&mut layer.as_slice(), &tree, &LIMITS);
    let _ = extract(&mut &layer[..layer.len().min(64 * BLOCK)], &tree, Path::new("a/b"), Some((1, 2)));
    for entry in std::fs::read_dir(outer.path()).expect("the temporary directory is still there") {
        let name = entry.expect("an entry").file_name();
        assert!(name == "root" || name == "root.table", "{} is outside the tree", name.display());
    }
}

/// A tree that came from any layer is written as a layer that gives the same tree, and so the same layer.
pub fn layer_round_trip(input: &[u8]) {
    let outer = outer();
    let first = empty_tree(&outer, "first");
    // Half a layer is a tree as well.
    let _ = unpack(&mut sealed(input).as_slice(), &first, &LIMITS);
    let Some(written) = written(&first) else { return };
    let second = empty_tree(&outer, "second");
    unpack(&mut written.as_slice(), &second, &Limits::NONE).expect("what was written can be read");
    assert!(self::written(&second).as_deref() == Some(&written), "another layer than the one that was unpacked");
}

fn written(tree: &Tree) -> Option<Vec<u8>> {
    let mut layer = Vec::new();
    match write_tree(tree, &CommitOptions::default(), &mut layer) {
        Ok(_) => Some(layer),
        Err(RootfsError::WhiteoutName { .. }) => None,
        Err(error) => panic!("cannot be written: {error:?}"),
    }
}

/// Any file is an archive or none, and one that ADD would unpack unpacks or fails. At most a few megabytes are read.
pub fn archive(input: &[u8]) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(input).expect("room for the input");
    for (round, bytes) in [input.to_vec(), sealed(input)].iter().enumerate() {
        if round == 1 && bytes == input {
            break;
        }
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes)).expect("room for the input");
        unpack_archive(file.try_clone().expect("another handle"));
    }
}

fn unpack_archive(file: File) {
    let Ok(Some(stream)) = open_archive(file, &rootfs::Stop::default()) else { return };
    let outer = outer();
    let tree = empty_tree(&outer, "root");
    let _ = extract(&mut stream.take(4 << 20), &tree, Path::new("a"), None);
}

/// Any `/etc/passwd` and `/etc/group` of a base image answer for any USER and `--chown`. The first line is the user; a NUL
/// stands between the two files.
pub fn users(input: &[u8]) {
    let (text, files) = crate::first_line(input);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let outer = outer();
    let tree = empty_tree(&outer, "root");
    let etc = outer.path().join("root/etc");
    std::fs::create_dir(&etc).expect("a directory");
    for (name, content) in std::iter::zip(["passwd", "group"], files.splitn(2, |byte| *byte == 0)) {
        std::fs::write(etc.join(name), content).expect("a file");
    }
    let user = build::user::resolve(&tree, text);
    let owner = build::user::resolve_owner(&tree, text);
    if let Ok(user) = &user {
        assert_eq!(user.groups.first(), Some(&user.gid));
    }
    // A number needs no entry.
    if text.parse::<i32>().is_ok_and(|number| number >= 0) {
        assert!(user.is_ok() && owner.is_ok());
    }
    assert!(build::user::resolve_owner_or_root(&tree, text).is_ok());
}

/// Any text of `--chmod` is refused or gives a mode for any mode.
pub fn chmod(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(mode) = Mode::parse(text) else { return };
    for before in [0, 0o644, 0o755, 0o7777, 0o1777, 0o4711] {
        for is_directory in [false, true] {
            let after = mode.of(before, is_directory).expect("a mode that was parsed");
            assert!(after <= 0o7777, "{after:o}");
            // Set by clear bits and letters alone: once more changes nothing, unless classes copy from each other.
            if !text.bytes().skip_while(|byte| !b"+-=".contains(byte)).any(|byte| b"ugo".contains(&byte))
                && !text.contains('X')
            {
                assert_eq!(mode.of(after, is_directory).ok(), Some(after), "{text} on {before:o}");
            }
        }
    }
}

/// Any beginning of a program is laid out by the rules or refused; the first two bytes say how large the file is, in pages.
pub fn program(input: &[u8]) {
    if let Some((pages, start)) = input.split_first_chunk() {
        let _ = sandbox::rehearse(start, u64::from(u16::from_le_bytes(*pages)) << 12);
    }
}

/// The bytes with right checksums in blocks that are meant to be headers: those with the magic.
pub fn sealed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    bytes.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar").for_each(seal);
    bytes
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
