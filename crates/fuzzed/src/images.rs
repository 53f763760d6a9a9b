//! Manifests, configs, indexes, layouts and archives of images.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use oci::{Descriptor, Digest, Platform, Reference};
use store::{Archive, BlobSource, Document, Image, Layout, StoreError, choose_platform, read_document};

/// More of a layer is not read: a few bytes can stand for any number of zeros.
const MAX_LAYER_BYTES: u64 = 1 << 20;

struct Nowhere;

impl BlobSource for Nowhere {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(io::empty()))
    }
}

/// Any manifest, index and config is refused or is an image that is written back as itself. The first line is the manifest or
/// index, the rest the config.
pub fn image_documents(input: &[u8]) {
    let (document, config) = crate::first_line(input);
    let digest = Digest::of(document);
    match read_document("input", document, None) {
        Ok(Document::Index(index)) => drop(choose_platform(&index, &Platform::host(), "input")),
        Ok(Document::Manifest(manifest)) => {
            let image = Image::from_documents("input", &manifest, config, &digest, Arc::new(Nowhere), None);
            let Ok(image) = image else { return };
            let first = image.encode();
            let Ok(Document::Manifest(again)) = read_document("output", &first.manifest, None) else {
                panic!("what was written cannot be read")
            };
            let image = Image::from_documents("output", &again, &first.config, &digest, Arc::new(Nowhere), None);
            assert_eq!(image.map(|image| image.encode()).ok(), Some(first));
        }
        Err(_) => {}
    }
}

/// Any layout is refused or is read. Lines of `--` part its files: first `index.json`, then blobs, in each of which `@N` and
/// `#N` (N = 1 to 9) are replaced by the digest and the size of the blob that stands N places behind.
pub fn oci_layout(input: &[u8]) {
    let mut parts: Vec<Vec<u8>> = split(input).map(<[u8]>::to_vec).take(10).collect();
    for at in (0..parts.len()).rev() {
        parts[at] = with_digests(&parts[at], &parts[at + 1..]);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let blobs = directory.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a directory for blobs");
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("a file of the layout");
    write(&directory.path().join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    write(&directory.path().join("index.json"), parts.first().map_or(&[], Vec::as_slice));
    for blob in parts.iter().skip(1) {
        write(&blobs.join(Digest::of(blob).hex()), blob);
    }
    let Ok(layout) = Layout::open(directory.path()) else { return };
    let _ = layout.index();
    for name in [None, Some("a")] {
        if let Ok(image) = layout.find(name, &Platform::host()) {
            read_layers(&image);
        }
    }
}

fn split(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let text = rest?;
        let at = text.windows(4).position(|four| four == b"\n--\n");
        rest = at.map(|at| &text[at + 4..]);
        Some(at.map_or(text, |at| &text[..at]))
    })
}

fn with_digests(part: &[u8], behind: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = part.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let number = bytes.peek().filter(|next| matches!(next, b'1'..=b'9')).map(|next| usize::from(next - b'1'));
        match (byte, number.and_then(|number| behind.get(number))) {
            (b'@', Some(blob)) => out.extend(Digest::of(blob).to_string().bytes()),
            (b'#', Some(blob)) => out.extend(blob.len().to_string().bytes()),
            _ => {
                out.push(byte);
                continue;
            }
        }
        bytes.next();
    }
    out
}

/// Any archive is refused or is read: docker's, or a layout in a tar. Checksums of headers are put right first.
pub fn image_archive(input: &[u8]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("image.tar");
    std::fs::write(&path, crate::files::sealed(input)).expect("a file for the archive");
    let Ok(archive) = Archive::open(&path) else { return };
    let name = Reference::parse("a:1").expect("a reference").to_string();
    for name in [None, Some(name.as_str())] {
        if let Ok(image) = archive.find(name, &Platform::host()) {
            read_layers(&image);
        }
    }
}

fn read_layers(image: &Image) {
    let _ = image.encode();
    for layer in &image.layers {
        let Ok(stored) = layer.content.open(&layer.descriptor) else { continue };
        let Ok(plain) = store::decode(stored) else { continue };
        let _ = io::copy(&mut plain.take(MAX_LAYER_BYTES), &mut io::sink());
    }
}
