//! Bytes that nobody meant: refused or read, never a panic, never without end.

mod common;

use std::io::{Read, Write};

use common::noise;
use proptest::prelude::*;
use zuwai_store::{Document, decode, read_document};

/// Cuts, overwrites and repeats parts of `bytes`.
fn damaged(bytes: &[u8]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let bytes = bytes.to_vec();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6);
    changes.prop_map(move |changes| {
        let mut bytes = bytes.clone();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 => bytes.extend_from_within(..at.min(64)),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = byte),
            }
        }
        bytes
    })
}

fn gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(&noise(5000, 1)).unwrap();
    encoder.finish().unwrap()
}

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":7},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":9}],"annotations":{"a":"b"}}"#;

proptest! {
    #[test]
    fn damaged_streams_decode_or_fail(
        stored in prop_oneof![damaged(&gzip()), damaged(&zstd::encode_all(&noise(5000, 1)[..], 3).unwrap()), any::<Vec<u8>>()]
    ) {
        let mut plain = Vec::new();
        if let Ok(reader) = decode(&stored[..]) {
            // Far above what these streams can hold: more would be without end.
            let _ = reader.take(64 << 20).read_to_end(&mut plain);
        }
        prop_assert!(plain.len() < 64 << 20);
    }

    #[test]
    fn damaged_documents_parse_or_fail(bytes in prop_oneof![damaged(MANIFEST.as_bytes()), any::<Vec<u8>>()]) {
        if let Ok(Document::Manifest(manifest)) = read_document("test", &bytes, None) {
            // What was taken can be written and taken again.
            let written = serde_json::to_vec(&manifest).unwrap();
            let again = read_document("test", &written, Some("application/vnd.oci.image.manifest.v1+json"));
            prop_assert_eq!(again.unwrap(), Document::Manifest(manifest));
        }
    }
}
