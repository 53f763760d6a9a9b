//! Any manifest, index and config is refused or is an image that is written back as itself. The first line is the manifest or
//! index, the rest the config.

#![no_main]

use std::io::Read;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use oci::{Descriptor, Digest, Platform};
use store::{BlobSource, Document, Image, StoreError, choose_platform, read_document};

struct Nowhere;

impl BlobSource for Nowhere {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(std::io::empty()))
    }
}

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (document, config) = input.split_at(end);
    let digest = Digest::of(document);
    match read_document("input", document, None) {
        Ok(Document::Index(index)) => drop(choose_platform(&index, &Platform::host(), "input")),
        Ok(Document::Manifest(manifest)) => {
            let Ok(image) = Image::from_documents("input", &manifest, config, &digest, Arc::new(Nowhere), None) else {
                return;
            };
            let first = image.encode();
            let Ok(Document::Manifest(again)) = read_document("output", &first.manifest, None) else {
                panic!("what was written cannot be read")
            };
            let image = Image::from_documents("output", &again, &first.config, &digest, Arc::new(Nowhere), None);
            assert_eq!(image.map(|image| image.encode()).ok(), Some(first));
        }
        Err(_) => {}
    }
});
