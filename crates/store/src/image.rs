//! Images from their documents and back: manifest, index, config.

use std::sync::Arc;

use oci::media_type::{self, DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, layer_compression};
use oci::{Compression, Descriptor, Digest, Flavor, ImageConfig, Index, Manifest, Platform};
use serde::Serialize;

use crate::{BlobSource, Image, Layer, Origin, StoreError};

/// Manifests and indexes above this are refused. The distribution-spec asks registries for 4 MiB.
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;
/// Configs above this are refused.
pub const MAX_CONFIG_BYTES: u64 = 32 << 20;

/// An image's documents as they are stored, with their descriptors.
#[derive(Clone, PartialEq, Debug)]
pub struct Encoded {
    pub config: Vec<u8>,
    pub config_descriptor: Descriptor,
    pub manifest: Vec<u8>,
    pub manifest_descriptor: Descriptor,
}

/// What a manifest digest or tag leads to.
#[derive(Clone, PartialEq, Debug)]
pub enum Document {
    Manifest(Box<Manifest>),
    Index(Index),
}

/// Parses a manifest or index of either family.
///
/// `what` names it in errors. `media_type` is what the descriptor or the HTTP header says; the document's own `mediaType`
/// wins, and where neither is known the fields decide.
///
/// # Errors
/// [`StoreError::Invalid`] for other media types (Docker schema 1 among them), for JSON that does not fit, and for a
/// document that is manifest and index at once (image-spec, `manifest.md`, «Implementations MUST … error», CVE-2021-41190).
pub fn read_document(what: &str, bytes: &[u8], media_type: Option<&str>) -> Result<Document, StoreError> {
    let invalid = |reason: String| StoreError::Invalid { what: what.to_owned(), reason };
    let probe: Probe = serde_json::from_slice(bytes).map_err(|error| invalid(format!("not a manifest: {error}")))?;
    let (is_manifest, is_index) = (probe.config.is_some() || probe.layers.is_some(), probe.manifests.is_some());
    if is_manifest && is_index {
        return Err(invalid("it claims to be a manifest and an index at once".to_owned()));
    }
    let declared = probe.media_type.as_deref().or(media_type);
    let index = match declared {
        Some(OCI_INDEX | DOCKER_INDEX) => true,
        Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
        _ if probe.schema_version == Some(1) => {
            return Err(invalid("Docker schema 1 manifests are not supported: push the image anew".to_owned()));
        }
        Some(other) if !matches!(other, "application/json" | "application/octet-stream" | "text/plain" | "") => {
            return Err(invalid(format!("media type `{other}` is neither an image manifest nor an index")));
        }
        _ if is_manifest || is_index => is_index,
        _ => return Err(invalid("it is neither an image manifest nor an index".to_owned())),
    };
    if index {
        serde_json::from_slice(bytes).map(Document::Index).map_err(|error| invalid(format!("invalid index: {error}")))
    } else {
        serde_json::from_slice(bytes)
            .map(|manifest| Document::Manifest(Box::new(manifest)))
            .map_err(|error| invalid(format!("invalid manifest: {error}")))
    }
}

/// The fields that tell documents apart; their contents are skipped.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// The entry of an index that serves `wanted` best; of equals the first. Attestations are passed over, and artifacts where there is
/// an image as good.
///
/// `reference` names the index in the error. A single entry without a platform serves every platform.
///
/// # Errors
/// [`StoreError::Platform`] with the platforms that there are.
pub fn choose_platform<'a>(index: &'a Index, wanted: &Platform, reference: &str) -> Result<&'a Descriptor, StoreError> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|entry| !is_attestation(entry)).collect();
    if let Some(entry) = best(images.iter().copied(), wanted) {
        return Ok(entry);
    }
    let no_artifacts: Vec<&Descriptor> = images.iter().copied().filter(|entry| !is_artifact(entry)).collect();
    match (no_artifacts.as_slice(), images.as_slice()) {
        ([only], _) | (_, [only]) if only.platform.is_none() => Ok(only),
        _ => Err(no_platform(wanted, reference, images.iter().filter_map(|entry| entry.platform.as_ref()))),
    }
}

/// The entry whose platform serves `wanted` best; of equals one that is not called an artifact, then the first.
pub(crate) fn best<'a>(entries: impl Iterator<Item = &'a Descriptor>, wanted: &Platform) -> Option<&'a Descriptor> {
    let ranked = entries.filter_map(|entry| Some((entry.platform.as_ref()?.rank_for(wanted)?, entry)));
    ranked.min_by_key(|(rank, entry)| (*rank, is_artifact(entry))).map(|(_, entry)| entry)
}

/// Is this index entry called something else than an image? It may be one all the same: a manifest can have an `artifactType`
/// and the config of an image (image-spec 1.1, `manifest.md`), and some tools write the config's type there.
fn is_artifact(entry: &Descriptor) -> bool {
    let kind = entry.artifact_type.as_deref().unwrap_or_default();
    !matches!(kind, "" | media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
}

/// Is this index entry a BuildKit attestation (provenance, SBOM) and no image?
pub fn is_attestation(entry: &Descriptor) -> bool {
    let kind = entry.annotations.as_ref().and_then(|map| map.get("vnd.docker.reference.type"));
    kind.is_some_and(|kind| kind == "attestation-manifest")
        || entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

pub(crate) fn no_platform<'a>(
    wanted: &Platform,
    reference: &str,
    available: impl Iterator<Item = &'a Platform>,
) -> StoreError {
    let mut available: Vec<String> = available.map(Platform::to_string).collect();
    available.sort();
    available.dedup();
    if available.is_empty() {
        available.push("none that is named".to_owned());
    }
    StoreError::Platform {
        wanted: wanted.to_string(),
        reference: reference.to_owned(),
        available: available.join(", "),
    }
}

impl Image {
    /// An image from its documents. `what` names it in errors; `content` opens its layers; `origin` is where a registry can
    /// mount them from.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the config is not an image's, does not parse, or has not one diff ID per layer.
    pub fn from_documents(
        what: &str,
        manifest: &Manifest,
        config: &[u8],
        digest: &Digest,
        content: Arc<dyn BlobSource>,
        origin: Option<Origin>,
    ) -> Result<Image, StoreError> {
        let invalid = |reason: String| StoreError::Invalid { what: what.to_owned(), reason };
        check_is_image(manifest).map_err(invalid)?;
        let config: ImageConfig =
            serde_json::from_slice(config).map_err(|error| invalid(format!("invalid image config: {error}")))?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(invalid(format!("its manifest has {layers} layers and its config {diff_ids} diff IDs")));
        }
        let layers = std::iter::zip(&manifest.layers, &config.rootfs.diff_ids)
            .map(|(descriptor, diff_id)| Layer {
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                content: Arc::clone(&content),
                origin: origin.clone(),
            })
            .collect();
        Ok(Image {
            config,
            layers,
            flavor: flavor_of(manifest),
            annotations: manifest.annotations.clone().unwrap_or_default(),
            digest: Some(digest.clone()),
        })
    }

    /// The image's documents: the same bytes for the same value.
    ///
    /// Every media type is that of `flavor`, whatever the layers came with (mixed families are refused by registries and
    /// runtimes); a layer of an unknown kind keeps its own. Docker's family has no name for zstd: an image with such a
    /// layer is written with the OCI media types as a whole. `rootfs.diff_ids` is taken from the layers.
    pub fn encode(&self) -> Encoded {
        let flavor = self.written_flavor();
        let mut config = self.config.clone();
        config.rootfs.diff_ids = self.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let (config, config_descriptor) = document(&config, flavor.config());
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(flavor.manifest().to_owned()),
            config: config_descriptor.clone(),
            layers: self.layers.iter().map(|layer| relabelled(&layer.descriptor, flavor)).collect(),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
            extra: Default::default(),
        };
        let (manifest, manifest_descriptor) = document(&manifest, flavor.manifest());
        Encoded { config, config_descriptor, manifest, manifest_descriptor }
    }

    /// The same image, to be written with the media types of `flavor`. Its manifest digest is another one then.
    pub fn with_flavor(&self, flavor: Flavor) -> Image {
        Image { flavor, digest: None, ..self.clone() }
    }

    /// The family that [`Image::encode`] uses: `flavor`, but OCI where a layer is zstd.
    pub fn written_flavor(&self) -> Flavor {
        let zstd = |layer: &Layer| layer_compression(&layer.descriptor.media_type) == Some(Compression::Zstd);
        if self.layers.iter().any(zstd) { Flavor::Oci } else { self.flavor }
    }

    /// The platform that the config names.
    pub fn platform(&self) -> Platform {
        platform_of(&self.config)
    }
}

pub(crate) fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        os_version: config.os_version.clone(),
        os_features: config.os_features.clone(),
        ..Platform::new(&config.os, &config.architecture, config.variant.as_deref())
    }
}

pub(crate) fn check_is_image(manifest: &Manifest) -> Result<(), String> {
    if manifest.schema_version != 2 {
        return Err(format!("manifest schema version {} is not supported", manifest.schema_version));
    }
    match manifest.config.media_type.as_str() {
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => Ok(()),
        other => Err(format!("it is not a container image: its config has media type `{other}`")),
    }
}

fn flavor_of(manifest: &Manifest) -> Flavor {
    match manifest.media_type.as_deref().unwrap_or(&manifest.config.media_type) {
        DOCKER_MANIFEST | media_type::DOCKER_CONFIG => Flavor::Docker,
        _ => Flavor::Oci,
    }
}

fn relabelled(layer: &Descriptor, flavor: Flavor) -> Descriptor {
    let mut layer = layer.clone();
    if let Some(media_type) = layer_compression(&layer.media_type).and_then(|compression| flavor.layer(compression)) {
        layer.media_type = media_type.to_owned();
    }
    layer
}

fn document(value: &impl Serialize, media_type: &str) -> (Vec<u8>, Descriptor) {
    let bytes = serde_json::to_vec(value).expect("maps with string keys and plain values always serialise");
    let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
    (bytes, descriptor)
}
