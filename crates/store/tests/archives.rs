//! Archives: the same bytes for the same image, and read by other people's tools.

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{Scratch, files_below, image, layer, linux, run, tar_of};
use oci::{Compression, Flavor, Reference};
use zuwai_store::{ArchiveExporter, ArchiveFormat, Destination, Exporter, Image, Layout};

fn sample(layout: &Layout, kinds: &[Compression]) -> Image {
    let layers = kinds
        .iter()
        .enumerate()
        .map(|(number, kind)| layer(layout, &tar_of(&[(&format!("file{number}"), b"content")]), *kind))
        .collect();
    image(layers, Flavor::Docker, &linux("amd64"))
}

fn names(texts: &[&str]) -> Vec<Reference> {
    texts.iter().map(|text| Reference::parse(text).unwrap()).collect()
}

fn export(image: &Image, format: ArchiveFormat, to: &Path, texts: &[&str]) -> oci::Digest {
    ArchiveExporter::new(format, Destination::File(to.to_owned()), names(texts)).export(image).unwrap()
}

fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
        let replaced = found.insert(entry.path().unwrap().display().to_string(), content);
        assert!(replaced.is_none(), "an entry twice");
    }
    found
}

#[test]
fn a_docker_archive_has_the_files_that_docker_load_wants() {
    let scratch = Scratch::new();
    let mut made = sample(&scratch.layout(), &[Compression::Gzip, Compression::None]);
    // The same layer twice is there once.
    made.layers.push(made.layers[0].clone());
    let out = scratch.path("deep/out.tar");
    export(&made, ArchiveFormat::Docker, &out, &["acme/app:1", "registry.example/app"]);
    let entries = entries(&std::fs::read(&out).unwrap());
    let manifest: serde_json::Value = serde_json::from_slice(&entries["manifest.json"]).unwrap();
    let encoded = made.encode();
    let gzip = format!("{}.tar.gz", made.layers[0].descriptor.digest.hex());
    let plain = format!("{}.tar", made.layers[1].descriptor.digest.hex());
    assert_eq!(
        manifest,
        serde_json::json!([{
            "Config": format!("{}.json", encoded.config_descriptor.digest.hex()),
            "RepoTags": ["acme/app:1", "registry.example/app:latest"],
            "Layers": [gzip, plain, gzip],
        }])
    );
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[&format!("{}.json", encoded.config_descriptor.digest.hex())], encoded.config);
    assert_eq!(files_below(&scratch.path("deep")), ["out.tar"]);
}

#[test]
fn an_oci_archive_is_a_layout() {
    let scratch = Scratch::new();
    let made = sample(&scratch.layout(), &[Compression::Zstd, Compression::Gzip]);
    let out = scratch.path("out.tar");
    let digest = export(&made, ArchiveFormat::Oci, &out, &["acme/app:1"]);
    tar::Archive::new(&std::fs::read(&out).unwrap()[..]).unpack(scratch.path("unpacked")).unwrap();
    let found = Layout::open(&scratch.path("unpacked")).unwrap().find(Some("acme/app:1"), &linux("amd64")).unwrap();
    assert_eq!(found.digest, Some(digest));
    assert_eq!(found.flavor, Flavor::Oci, "zstd has no Docker media type");
    for layer in &found.layers {
        common::read_all(layer.uncompressed()).unwrap();
    }
}

#[test]
fn the_same_image_gives_the_same_archive() {
    let scratch = Scratch::new();
    let made = sample(&scratch.layout(), &[Compression::Gzip, Compression::None]);
    for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
        let shared = Shared::default();
        let destination = Destination::writer(Box::new(shared.clone()));
        let exporter = ArchiveExporter::new(format, destination, names(&["a:1", "b:2"]));
        exporter.export(&made).unwrap();
        assert!(exporter.export(&made).is_err(), "a stream is written once");
        export(&made, format, &scratch.path("file.tar"), &["a:1", "b:2"]);
        assert!(*shared.0.lock().unwrap() == std::fs::read(scratch.path("file.tar")).unwrap(), "{format:?}");
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failed_export_leaves_the_old_file_and_nothing_else() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let made = sample(&layout, &[Compression::Gzip]);
    let blob = layout.path().join("blobs/sha256").join(made.layers[0].descriptor.digest.hex());
    let mut broken = std::fs::read(&blob).unwrap();
    broken[20] ^= 1;
    std::fs::write(&blob, broken).unwrap();
    std::fs::create_dir(scratch.path("out")).unwrap();
    std::fs::write(scratch.path("out/image.tar"), "old").unwrap();
    for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
        let destination = Destination::File(scratch.path("out/image.tar"));
        let error = ArchiveExporter::new(format, destination, Vec::new()).export(&made).unwrap_err();
        assert!(matches!(error, zuwai_store::StoreError::WrongDigest { .. }), "{error:?}");
    }
    assert_eq!(files_below(&scratch.path("out")), ["image.tar"]);
    assert_eq!(std::fs::read(scratch.path("out/image.tar")).unwrap(), b"old");
}

#[test]
fn skopeo_reads_archives() {
    let scratch = Scratch::new();
    let made = sample(&scratch.layout(), &[Compression::Gzip, Compression::None, Compression::Zstd]);
    for (format, transport) in [(ArchiveFormat::Docker, "docker-archive"), (ArchiveFormat::Oci, "oci-archive")] {
        let out = scratch.path(transport);
        export(&made, format, &out, &["acme/app:1"]);
        let tag = if transport == "oci-archive" { ":1" } else { ":acme/app:1" };
        let from = format!("{transport}:{}{tag}", out.display());
        if let Some(inspected) = run("skopeo", &["--tmpdir", "/tmp", "inspect", &from]) {
            let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
            assert_eq!(inspected["Layers"].as_array().unwrap().len(), 3);
        }
        let to = format!("dir:{}", scratch.path(&format!("{transport}.dir")).display());
        run("skopeo", &["--tmpdir", "/tmp", "--insecure-policy", "copy", "-q", &from, &to]);
    }
}
