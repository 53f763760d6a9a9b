//! What every place for blobs and images has to do, whoever implements the traits: called by their tests.

use std::io::{self, Read};

use oci::{Descriptor, Digest, Reference};

use crate::{BlobSink, BlobSource, Exporter, Image, ImageSource, StoreError, Verified};

/// Checks a place that takes and gives blobs. It holds a few small blobs afterwards.
///
/// # Errors
/// What it did wrong.
pub fn check_blobs<B: BlobSource + BlobSink>(place: &B) -> Result<(), String> {
    for content in [&b""[..], b"content", &[7; 3 << 20]] {
        let blob = Descriptor::new("application/octet-stream", Digest::of(content), content.len() as u64);
        let size_bytes = content.len();
        refuses_other_content(place, &blob, content)?;
        for round in ["the first time", "again"] {
            place.put(&blob, &mut &*content).map_err(|error| format!("put of {size_bytes} bytes {round}: {error}"))?;
            holds(place.contains(&blob).map_err(text)?, "a blob that was put is not contained")?;
            let read = read_blob(place, &blob)?;
            holds(read == content, "a blob reads back as other bytes")?;
        }
    }
    Ok(())
}

fn refuses_other_content(
    place: &(impl BlobSource + BlobSink),
    blob: &Descriptor,
    content: &[u8],
) -> Result<(), String> {
    let longer = [content, b"x"].concat();
    let mut wrong: Vec<&[u8]> = vec![&longer];
    let mut other = content.to_vec();
    if let Some(last) = other.last_mut() {
        *last ^= 1;
        wrong.extend([&content[..content.len() - 1], &other]);
    }
    for content in wrong {
        let put = place.put(blob, &mut &*content);
        let refused = matches!(put, Err(StoreError::WrongDigest { .. } | StoreError::WrongSize { .. }));
        holds(refused, "content of another digest or size was not refused as such")?;
    }
    holds(place.put(blob, &mut Broken).is_err(), "a blob was stored though its content could not be read")?;
    holds(!place.contains(blob).map_err(text)?, "a blob that was refused is contained")?;
    // A reader may fail at the opening or at the reading.
    holds(read_blob(place, blob).is_err(), "a blob that is not there was read")
}

/// Checks that what `exporter` writes, `source` finds under `reference`: the same config, layers and media types.
///
/// # Errors
/// What they did wrong.
pub fn check_images(
    exporter: &dyn Exporter,
    source: &dyn ImageSource,
    reference: &Reference,
    image: &Image,
) -> Result<(), String> {
    for layer in image.layers.iter().chain(image.layers.first()) {
        exporter.prepare(layer).map_err(|error| format!("prepare: {error}"))?;
    }
    let digest = exporter.export(image).map_err(|error| format!("export: {error}"))?;
    let again = exporter.export(image).map_err(|error| format!("export again: {error}"))?;
    holds(digest == again, "the same image exported twice has two digests")?;
    holds(!exporter.describe().is_empty(), "the exporter has no description")?;

    let found = source.image(reference, &image.platform()).map_err(|error| format!("image: {error}"))?;
    holds(found.digest == Some(digest.clone()), "the image found has another digest than the image exported")?;
    let (found_encoded, encoded) = (found.encode(), image.encode());
    holds(found_encoded.config == encoded.config, "the config is not the same")?;
    holds(found_encoded.manifest == encoded.manifest, "the manifest is not the same")?;
    holds(encoded.manifest_descriptor.digest == digest, "the digest is not that of the encoded manifest")?;
    for layer in &found.layers {
        let read = |opened: Result<Box<dyn Read + Send>, StoreError>| {
            opened.and_then(|mut reader| io::copy(&mut reader, &mut io::sink()).map_err(StoreError::from_read))
        };
        read(layer.open()).map_err(|error| format!("layer as stored: {error}"))?;
        read(layer.uncompressed()).map_err(|error| format!("layer uncompressed: {error}"))?;
    }
    Ok(())
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the content cannot be read"))
    }
}

fn read_blob(place: &impl BlobSource, blob: &Descriptor) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = place.open(blob).map_err(text)?;
    Verified::blob(opened, blob).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn holds(condition: bool, otherwise: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn text(error: StoreError) -> String {
    error.to_string()
}
