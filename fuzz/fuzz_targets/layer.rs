//! Any bytes unpack or fail, in bounded time, and touch nothing outside the tree. Header checksums are put right first, so that
//! the fuzzer gets past them.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rootfs::Tree;
use rootfs::unpack::{Limits, extract, unpack};

const BLOCK: usize = 512;

fuzz_target!(|input: &[u8]| {
    let outer = tempfile::tempdir().expect("a temporary directory");
    let tree = Tree::create(&outer.path().join("root"), Some(&outer.path().join("table"))).expect("an empty tree");
    let mut layer = input.to_vec();
    layer.chunks_exact_mut(BLOCK).for_each(seal);
    let limits = Limits { size_bytes: 1 << 20, entries: 64 };
    let _ = unpack(&mut layer.as_slice(), &tree, &limits);
    let _ = unpack(&mut layer.as_slice(), &tree, &limits);
    let _ = extract(&mut &layer[..layer.len().min(64 * BLOCK)], &tree, Path::new("a/b"), Some((1, 2)));
    for entry in std::fs::read_dir(outer.path()).expect("the temporary directory is still there") {
        let name = entry.expect("an entry").file_name();
        assert!(name == "root" || name == "table", "{} is outside the tree", name.display());
    }
});

/// Writes the checksum into a block that is meant to be a header: one with the magic.
fn seal(block: &mut [u8]) {
    if &block[257..262] != b"ustar" {
        return;
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
