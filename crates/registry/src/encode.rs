//! An image as the bytes of its config and manifest.

use bytes::Bytes;
use oci::{Descriptor, Digest, Flavor, Manifest, media_type};
use store::{Image, Layer, StoreError};

pub(crate) struct Encoded {
    pub(crate) config: Descriptor,
    pub(crate) config_bytes: Bytes,
    pub(crate) manifest: Descriptor,
    pub(crate) manifest_bytes: Bytes,
}

/// Writes `image` in its flavor; the same image gives the same bytes.
pub(crate) fn encode(image: &Image) -> Result<Encoded, StoreError> {
    let config_bytes = json(&image.config, "image configuration")?;
    let config = Descriptor::new(image.flavor.config(), Digest::of(&config_bytes), config_bytes.len() as u64);
    let layers: Result<Vec<Descriptor>, StoreError> =
        image.layers.iter().map(|layer| descriptor(layer, image.flavor)).collect();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(image.flavor.manifest().to_owned()),
        config: config.clone(),
        layers: layers?,
        annotations: Some(image.annotations.clone()).filter(|a| !a.is_empty()),
        extra: Default::default(),
    };
    let manifest_bytes = json(&manifest, "image manifest")?;
    let manifest = Descriptor::new(image.flavor.manifest(), Digest::of(&manifest_bytes), manifest_bytes.len() as u64);
    Ok(Encoded { config, config_bytes, manifest, manifest_bytes })
}

/// The layer's descriptor with the media type of `flavor`: the two families are never mixed in one manifest.
fn descriptor(layer: &Layer, flavor: Flavor) -> Result<Descriptor, StoreError> {
    let own = &layer.descriptor;
    let compression = media_type::layer_compression(&own.media_type);
    let media_type = compression.and_then(|c| flavor.layer(c)).ok_or_else(|| StoreError::Invalid {
        what: format!("layer `{}`", own.digest),
        reason: format!("media type `{}` has no counterpart in this image's format", own.media_type),
    })?;
    Ok(Descriptor { media_type: media_type.to_owned(), ..own.clone() })
}

fn json(value: &impl serde::Serialize, what: &str) -> Result<Bytes, StoreError> {
    let bytes = serde_json::to_vec(value);
    Ok(Bytes::from(bytes.map_err(|e| StoreError::Invalid { what: what.to_owned(), reason: e.to_string() })?))
}
