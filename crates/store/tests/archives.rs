//! Archives: the same bytes for the same image, and read by other people's tools.

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{Scratch, files_below, image, layer, linux, run, tar_of};
use oci::{Compression, Flavor, Reference};
use zuwai_store::{
    Archive, ArchiveExporter, ArchiveFormat, Destination, EntryName, Exporter, Image, ImageSource, Layout,
    LayoutExporter,
};

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
    let made = sample(&scratch.layout(), &[Compression::Gzip, Compression::None]);
    for (format, transport) in [(ArchiveFormat::Docker, "docker-archive"), (ArchiveFormat::Oci, "oci-archive")] {
        let out = scratch.path(transport);
        export(&made, format, &out, &["acme/app:1"]);
        let tag = if transport == "oci-archive" { ":1" } else { ":acme/app:1" };
        let from = format!("{transport}:{}{tag}", out.display());
        if let Some(inspected) = run("skopeo", &["--tmpdir", "/tmp", "inspect", &from]) {
            let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
            assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
        }
        let to = format!("dir:{}", scratch.path(&format!("{transport}.dir")).display());
        run("skopeo", &["--tmpdir", "/tmp", "--insecure-policy", "copy", "-q", &from, &to]);
    }
}

#[test]
fn an_archive_reads_back() {
    let scratch = Scratch::new();
    let made = sample(&scratch.layout(), &[Compression::Gzip, Compression::None, Compression::Zstd, Compression::Gzip]);
    for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
        let out = scratch.path("out.tar");
        export(&made, format, &out, &["acme/app:1", "registry.example/app"]);
        let archive = Archive::open(&out).unwrap();
        for name in [None, Some("acme/app:1"), Some("docker.io/acme/app:1"), Some("registry.example/app:latest")] {
            let found = archive.find(name, &linux("amd64")).unwrap();
            assert_eq!(found.encode(), made.encode(), "{format:?} {name:?}");
            for (found, made) in std::iter::zip(&found.layers, &made.layers) {
                assert_eq!(
                    common::read_all(found.uncompressed()).unwrap(),
                    common::read_all(made.uncompressed()).unwrap(),
                    "{format:?}"
                );
            }
        }
        let error = archive.image(&Reference::parse("acme/app:2").unwrap(), &linux("amd64")).err().unwrap().to_string();
        assert!(error.contains("no image `docker.io/acme/app:2`; it has "), "{error}");
    }
}

#[test]
fn archives_of_other_tools_are_read() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let made = sample(&layout, &[Compression::Gzip, Compression::Gzip]);
    LayoutExporter::new(layout.path(), vec![EntryName::plain("1")]).with_oci_types().export(&made).unwrap();
    let directory = layout.path().to_str().unwrap();
    let file = |name: &str| scratch.path(name).display().to_string();
    let copy = |to: &str| run("skopeo", &["--insecure-policy", "copy", "-q", &format!("oci:{directory}:1"), to]);
    let mut found = Vec::new();
    for format in ["gnu", "pax", "ustar", "v7"] {
        let out = file(format);
        if run("tar", &["-cf", &out, "--format", format, "-C", directory, "."]).is_some() {
            found.push(out);
        }
    }
    for transport in ["docker-archive", "oci-archive"] {
        let out = file(transport);
        if copy(&format!("{transport}:{out}:acme/app:1")).is_some() {
            found.push(out);
        }
    }
    for path in found {
        let image = Archive::open(Path::new(&path)).unwrap().find(None, &linux("amd64")).unwrap();
        assert_eq!(image.config.rootfs.diff_ids.len(), 2, "{path}");
        for (found, made) in std::iter::zip(&image.layers, &made.layers) {
            assert_eq!(found.diff_id, made.diff_id, "{path}");
            common::read_all(found.uncompressed()).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

/// `docker save` before version 25: a directory per layer, and a link where a layer is there already.
#[test]
fn links_stand_for_layers() {
    let scratch = Scratch::new();
    let layer = tar_of(&[("file", b"content")]);
    let diff_id = oci::Digest::of(&layer);
    let config = serde_json::json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id, diff_id]}});
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}]);
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, content: &[u8], link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut header, name, content).unwrap();
        } else {
            tar.append_link(&mut header, name, link).unwrap();
        }
    };
    add(tar::EntryType::Symlink, "b/layer.tar", b"", "../a/layer.tar");
    add(tar::EntryType::Link, "c/layer.tar", b"", "a/layer.tar");
    add(tar::EntryType::Symlink, "etc", b"", "/etc/passwd");
    add(tar::EntryType::Regular, "a/layer.tar", &layer, "");
    add(tar::EntryType::Regular, "c.json", config.to_string().as_bytes(), "");
    add(tar::EntryType::Regular, "manifest.json", manifest.to_string().as_bytes(), "");
    std::fs::write(scratch.path("a.tar"), tar.into_inner().unwrap()).unwrap();
    let image = Archive::open(&scratch.path("a.tar")).unwrap().find(None, &linux("amd64")).unwrap();
    assert_eq!(image.layers.len(), 3);
    for found in &image.layers {
        assert_eq!(common::read_all(found.uncompressed()).unwrap(), layer);
    }
}

#[test]
fn hostile_archives_are_refused() {
    let scratch = Scratch::new();
    let made = sample(&scratch.layout(), &[Compression::Gzip]);
    let path = scratch.path("good.tar");
    export(&made, ArchiveFormat::Docker, &path, &["a:1"]);
    let good = std::fs::read(&path).unwrap();
    let opens = |bytes: &[u8]| {
        std::fs::write(scratch.path("bad.tar"), bytes).unwrap();
        let archive = Archive::open(&scratch.path("bad.tar"))?;
        let image = archive.find(None, &linux("amd64"))?;
        image.layers.iter().try_for_each(|layer| common::read_all(layer.uncompressed()).map(drop))
    };
    opens(&good).unwrap();
    // Cut anywhere, it lacks something; the zeros at the end do not count.
    let last = good.iter().rposition(|&byte| byte != 0).unwrap();
    for cut in (0..last).step_by(97).chain([1, 511, 512, 513]) {
        assert!(opens(&good[..cut]).is_err(), "cut at {cut}");
    }
    let entry = |kind: u8, size: &[u8; 12]| {
        let mut header = tar::Header::new_ustar();
        header.set_path("x").unwrap();
        let bytes = header.as_mut_bytes();
        bytes[156] = kind;
        bytes[124..136].copy_from_slice(size);
        header.set_cksum();
        [&header.as_bytes()[..], &good].concat()
    };
    let huge = b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
    let impossible = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    for kind in [b'0', b'L', b'x', b'5'] {
        for size in [huge, impossible, b"77777777777\0", b"not a number"] {
            assert!(opens(&entry(kind, size)).is_err(), "{} {size:?}", char::from(kind));
        }
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&good).unwrap();
    assert!(opens(&gzip.finish().unwrap()).unwrap_err().to_string().contains("compressed"));
    let manifest = |value: serde_json::Value| tar_of(&[("manifest.json", value.to_string().as_bytes()), ("c", b"{}")]);
    for value in [
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!([{"Config": "../../etc/passwd", "Layers": []}]),
        serde_json::json!([{"Config": "c", "Layers": ["c"]}]),
        serde_json::json!([{"Config": "c", "Layers": [1]}]),
        serde_json::json!([{"Config": "c"}, {"Config": "c"}]),
    ] {
        assert!(opens(&manifest(value.clone())).is_err(), "{value}");
    }
}

/// An archive is there only after the export, so that its source opens it when it is asked.
struct Written(std::path::PathBuf);

impl ImageSource for Written {
    fn image(&self, reference: &Reference, platform: &oci::Platform) -> Result<Image, zuwai_store::StoreError> {
        Archive::open(&self.0)?.image(reference, platform)
    }
}

#[test]
fn an_oci_archive_keeps_the_contract() {
    let scratch = Scratch::new();
    let image = sample(&scratch.layout(), &[Compression::Gzip, Compression::Zstd]);
    let (path, reference) = (scratch.path("out.tar"), Reference::parse("acme/app:1").unwrap());
    let destination = Destination::File(path.clone());
    let exporter = ArchiveExporter::new(ArchiveFormat::Oci, destination, vec![reference.clone()]);
    zuwai_store::contract::check_images(&exporter, &Written(path), &reference, &image).unwrap();
}
