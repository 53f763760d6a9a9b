//! What the tests of this crate share: a temporary layout, tars, images, and running other people's tools.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::print_stderr, reason = "a skipped check is said aloud")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use oci::{Compression, Descriptor, DiffId, Digest, Flavor, ImageConfig, Platform};
use zuwai_store::{BlobSink, Image, Layer, LayerCompression, Layout, StoreError};

pub struct Scratch {
    pub directory: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn layout(&self) -> Layout {
        Layout::create(&self.path("layout")).unwrap()
    }
}

pub fn compression(kind: Compression, threads: usize) -> LayerCompression {
    LayerCompression { kind, level: None, threads }
}

/// Bytes that compress somewhat, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        let value = next();
        if value % 3 == 0 {
            bytes.extend_from_slice(b"the same words over and over; ");
        } else {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    bytes.truncate(length);
    bytes
}

/// A tar of regular files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn layer(layout: &Layout, tar: &[u8], kind: Compression) -> Layer {
    layout.write_layer(&mut &*tar, compression(kind, 2), &|| false).unwrap()
}

pub fn image(layers: Vec<Layer>, flavor: Flavor, platform: &Platform) -> Image {
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    Image { config, layers, flavor, annotations: BTreeMap::new(), digest: None }
}

pub fn linux(architecture: &str) -> Platform {
    Platform::new("linux", architecture, None)
}

pub fn read_all(reader: Result<Box<dyn Read + Send>, StoreError>) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    reader?.read_to_end(&mut bytes).map_err(StoreError::from_read)?;
    Ok(bytes)
}

/// The names of all files below `directory`, sorted.
pub fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Runs a tool and gives its standard output; none, said aloud, when it is not installed.
pub fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: `{program}` is not installed; `{}` was not checked", arguments.join(" "));
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A layer of bytes that somebody else compressed.
pub fn foreign_layer(layout: &Layout, stored: &[u8], plain: &[u8]) -> Layer {
    let descriptor = Descriptor::new(oci::media_type::OCI_LAYER_GZIP, Digest::of(stored), stored.len() as u64);
    layout.put(&descriptor, &mut &*stored).unwrap();
    Layer { descriptor, diff_id: DiffId(Digest::of(plain)), content: Arc::new(layout.clone()), origin: None }
}
