//! Layers: written, read back, and read by other people's tools.

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use common::{Scratch, compression, files_below, noise, read_all, run, tar_of};
use oci::media_type::{OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD};
use oci::{Compression, DiffId, Digest};
use zuwai_store::{BlobSink, LayerCompression, StoreError};

const KINDS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];
const MIB: usize = 1 << 20;

#[test]
fn a_layer_reads_back_and_is_what_it_says() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    for kind in KINDS {
        for length in [0, 1, 511, MIB - 1, MIB, MIB + 1, 3 * MIB, 5 * MIB + 77] {
            let plain = noise(length, 7);
            let layer = layout.write_layer(&mut &plain[..], compression(kind, 2), &|| false).unwrap();
            let expected = match kind {
                Compression::None => OCI_LAYER,
                Compression::Gzip => OCI_LAYER_GZIP,
                Compression::Zstd => OCI_LAYER_ZSTD,
            };
            assert_eq!(layer.descriptor.media_type, expected);
            assert_eq!(layer.diff_id, DiffId(Digest::of(&plain)), "{kind:?} {length}");
            let stored = read_all(layer.open()).unwrap();
            assert_eq!(
                (Digest::of(&stored), stored.len() as u64),
                (layer.descriptor.digest.clone(), layer.descriptor.size)
            );
            assert!(read_all(layer.uncompressed()).unwrap() == plain, "{kind:?} {length}");
            assert!(layout.contains(&layer.descriptor).unwrap());
        }
    }
    assert!(files_below(&scratch.path("layout")).iter().all(|name| !name.contains("partial")));
}

/// Many small rounds, because what depends on the threads' timing shows in some of them only.
#[test]
fn bytes_do_not_depend_on_threads_or_writes() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let plain = noise(5 * MIB + 12345, 42);
    for (kind, level) in [
        (Compression::Gzip, Some(1)),
        (Compression::Gzip, Some(2)),
        (Compression::Gzip, None),
        (Compression::Zstd, None),
        (Compression::None, None),
    ] {
        let mut digests = BTreeMap::new();
        for threads in [1, 2, 3, 8, 2, 3, 4, 5, 2, 3] {
            let mut writer = layout.layer_writer(LayerCompression { kind, level, threads }).unwrap();
            for piece in plain.chunks(100_000 * threads + 1) {
                writer.write_all(piece).unwrap();
                writer.flush().unwrap();
            }
            let layer = writer.complete().unwrap();
            digests.entry(layer.descriptor.digest).or_insert_with(Vec::new).push(threads);
        }
        assert_eq!(digests.len(), 1, "{kind:?} {level:?}: {digests:?}");
    }
}

#[test]
fn a_gzip_layer_is_one_member_without_time_and_name() {
    let scratch = Scratch::new();
    let plain = noise(3 * MIB, 5);
    let layer = scratch.layout().write_layer(&mut &plain[..], compression(Compression::Gzip, 3), &|| false).unwrap();
    let stored = read_all(layer.open()).unwrap();
    assert_eq!(&stored[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let mut first_member = Vec::new();
    flate2::read::GzDecoder::new(&stored[..]).read_to_end(&mut first_member).unwrap();
    assert!(first_member == plain);
}

#[test]
fn gzip_and_tar_accept_a_layer() {
    let scratch = Scratch::new();
    let big = noise(4 * MIB, 11);
    let tar = tar_of(&[("etc/hello", b"hello\n"), ("big", &big)]);
    let layer = common::layer(&scratch.layout(), &tar, Compression::Gzip);
    let file = scratch.path("layout/blobs/sha256").join(layer.descriptor.digest.hex());
    let file = file.to_str().unwrap();
    run("gzip", &["-t", "-v", file]);
    if let Some(listing) = run("tar", &["-tzf", file]) {
        assert_eq!(listing, "etc/hello\nbig\n");
    }
    let layer = common::layer(&scratch.layout(), &tar, Compression::Zstd);
    let file = scratch.path("layout/blobs/sha256").join(layer.descriptor.digest.hex());
    run("zstd", &["-t", file.to_str().unwrap()]);
}

#[test]
fn what_others_compressed_is_read_by_its_magic() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let plain = noise(2 * MIB, 9);
    let (left, right) = plain.split_at(777_777);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4], &zstd(&plain)[..]].concat();
    let cases = [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("gzip members", [gzip(left), gzip(right)].concat()),
        ("zstd", zstd(&plain)),
        ("zstd frames", [zstd(left), zstd(right)].concat()),
        ("zstd after a skippable frame", skippable),
    ];
    for (name, stored) in cases {
        let layer = common::foreign_layer(&layout, &stored, &plain);
        assert!(read_all(layer.uncompressed()).unwrap() == plain, "{name}");
    }
}

#[test]
fn a_layer_that_is_not_what_it_says_does_not_end_well() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let plain = noise(300_000, 4);
    for kind in KINDS {
        let good = common::layer(&layout, &plain, kind);
        let mut other_diff_id = good.clone();
        other_diff_id.diff_id = DiffId(Digest::of(b"something else"));
        let error = read_all(other_diff_id.uncompressed()).unwrap_err();
        assert!(matches!(error, StoreError::WrongDigest { .. }), "{kind:?}: {error:?}");

        let path = scratch.path("layout/blobs/sha256").join(good.descriptor.digest.hex());
        let stored = std::fs::read(&path).unwrap();
        let mut flipped = stored.clone();
        flipped[stored.len() / 2] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(matches!(read_all(good.open()), Err(StoreError::WrongDigest { .. })), "{kind:?}");
        assert!(read_all(good.uncompressed()).is_err(), "{kind:?}");

        for wrong in [&stored[..stored.len() - 1], &[&stored[..], b"x"].concat()] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(read_all(good.open()), Err(StoreError::WrongSize { .. })), "{kind:?}");
        }
    }
}

#[test]
fn an_unfinished_layer_leaves_nothing() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let before = files_below(&scratch.path("layout"));
    for kind in KINDS {
        let mut writer = layout.layer_writer(compression(kind, 3)).unwrap();
        writer.write_all(&noise(6 * MIB, 1)).unwrap();
        drop(writer);
        let cancelled = layout.write_layer(&mut io::repeat(1), compression(kind, 2), &|| true);
        assert!(matches!(cancelled, Err(StoreError::Cancelled)));
        let failing = layout.write_layer(&mut Failing(noise(3 * MIB, 2)), compression(kind, 2), &|| false);
        assert!(matches!(failing, Err(StoreError::Read(_))));
    }
    assert_eq!(files_below(&scratch.path("layout")), before);
}

/// Gives its bytes, then an error.
struct Failing(Vec<u8>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::Error::other("the disk is on fire"));
        }
        let count = buffer.len().min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }
}

#[test]
fn levels_are_checked() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    for (kind, level, good) in [
        (Compression::Gzip, 0, true),
        (Compression::Gzip, 9, true),
        (Compression::Gzip, 10, false),
        (Compression::Zstd, 22, true),
        (Compression::Zstd, 23, false),
        (Compression::None, 99, true),
    ] {
        let compression = LayerCompression { kind, level: Some(level), threads: 1 };
        let written = layout.write_layer(&mut &b"tar"[..], compression, &|| false);
        assert_eq!(written.is_ok(), good, "{kind:?} {level}");
    }
}

/// Layer digests are cache keys and are compared between machines and versions. Where an update of a compressor changes
/// these, that is a change to tell users about.
#[test]
fn compressed_bytes_stay_the_same_between_versions() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let plain = noise(5 * MIB + 321, 42);
    for (kind, level, expected) in [
        (Compression::Gzip, 1, "6dc10aeb57a4"),
        (Compression::Gzip, 5, "e520701203f6"),
        (Compression::Gzip, 9, "54adce3e8bf6"),
        (Compression::Zstd, 3, "6661357086ac"),
        (Compression::Zstd, 9, "fd65447f01f5"),
    ] {
        let compression = LayerCompression { kind, level: Some(level), threads: 2 };
        let layer = layout.write_layer(&mut &plain[..], compression, &|| false).unwrap();
        assert_eq!(layer.descriptor.digest.short(), expected, "{kind:?} {level}");
    }
}
