//! Images from registries.

use std::io;
use std::sync::Arc;

use http::Method;
use oci::{Descriptor, Digest, Flavor, ImageConfig, Index, Manifest, Platform, Reference, media_type};
use serde::Deserialize;
use store::{BlobSource as _, Image, ImageSource, Layer, Origin, StoreError};

use crate::blob::{RemoteBlobs, from_io, wrong_digest};
use crate::challenge::Scopes;
use crate::client::{Call, Place};
use crate::failure::{Failure, FailureKind};
use crate::{Registry, Shared, mirror};

/// The distribution-spec lets registries refuse more than 4 MiB; containerd reads 8.
const MAX_MANIFEST_BYTES: u64 = 8 * 1024 * 1024;

/// Configs are a few kilobytes; one with a very long history is not a megabyte.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// An index in an index in an index is allowed and unheard of.
const MAX_INDEX_DEPTH: u32 = 3;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// What a manifest document is.
#[derive(Clone, PartialEq, Debug)]
pub enum Document {
    Index(Index),
    Manifest(Box<Manifest>),
}

/// Reads a manifest or index as it came from somebody else. `content_type` counts where the document does not say what it is.
///
/// # Errors
/// A clause for a message: what it is instead. A document that could be read as both is refused, or two readers could see
/// two images under one digest (CVE-2021-41190).
pub fn parse_manifest(bytes: &[u8], content_type: Option<&str>) -> Result<Document, String> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|e| format!("not the JSON of a manifest: {e}"))?;
    if shape.schema_version == Some(1) {
        return Err(
            "manifest schema 1, which was abandoned in 2017; push the image again with a current tool".to_owned()
        );
    }
    if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
        return Err("both an index and a manifest".to_owned());
    }
    let content_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    let named = shape.media_type.as_deref().filter(|t| !t.is_empty()).or(content_type);
    let is_index = match named {
        Some(media_type::OCI_INDEX | media_type::DOCKER_INDEX) => true,
        Some(media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST) => false,
        // Some registries say `application/json` or `text/plain`.
        _ if shape.media_type.is_none() => shape.manifests.is_some(),
        Some(other) => return Err(format!("of media type `{}`", crate::failure::one_line(other))),
        None => shape.manifests.is_some(),
    };
    let invalid = |e: serde_json::Error| format!("an invalid {}: {e}", if is_index { "index" } else { "manifest" });
    match is_index {
        true => serde_json::from_slice(bytes).map(Document::Index).map_err(invalid),
        false => serde_json::from_slice(bytes).map(|m| Document::Manifest(Box::new(m))).map_err(invalid),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

impl ImageSource for Registry {
    /// Asks the mirrors of the reference's registry, then the registry itself. Fetches index, manifest and config.
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image, StoreError> {
        self.at_each_place(reference, |pull| pull.image(platform))
    }
}

impl Registry {
    /// The digest that `reference` stands for now (of an index, where it is one), without fetching it: a `HEAD`, which
    /// Docker Hub does not count.
    ///
    /// # Errors
    /// As [`ImageSource::image`].
    pub fn resolve(&self, reference: &Reference) -> Result<Digest, StoreError> {
        if let Some(digest) = &reference.digest {
            return Ok(digest.clone());
        }
        self.at_each_place(reference, |pull| pull.resolve())
    }

    fn at_each_place<T>(
        &self,
        reference: &Reference,
        ask: impl Fn(&Pull<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let wanted = Place::new(&reference.registry, &reference.repository);
        let places = mirror::places(&self.shared.settings, &wanted);
        let mut misses: Vec<(String, StoreError)> = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let pull = Pull { shared: &self.shared, reference, place, others: &places[index + 1..] };
            match ask(&pull) {
                Err(StoreError::Cancelled) => return Err(StoreError::Cancelled),
                Err(error) => misses.push((place.registry.clone(), error)),
                found => return found,
            }
        }
        Err(merged(misses))
    }
}

/// The last place's error, which names the registry that was meant, with what the mirrors said in its hint.
fn merged(mut misses: Vec<(String, StoreError)>) -> StoreError {
    let Some((_, mut last)) = misses.pop() else {
        return StoreError::Invalid {
            what: "registry maps".to_owned(),
            reason: "they leave no place to pull from".to_owned(),
        };
    };
    if let StoreError::Remote { hint, .. } = &mut last {
        let before: Vec<String> =
            misses.iter().map(|(registry, error)| format!("mirror `{registry}`: {error}")).collect();
        let all: Vec<String> = hint.take().into_iter().chain(before).collect();
        *hint = Some(all.join("; ")).filter(|text| !text.is_empty());
    }
    last
}

/// One attempt to get one image from one place.
struct Pull<'a> {
    shared: &'a Arc<Shared>,
    reference: &'a Reference,
    place: &'a Place,
    /// Where blobs may be had if not here.
    others: &'a [Place],
}

impl Pull<'_> {
    fn image(&self, platform: &Platform) -> Result<Image, StoreError> {
        let mut wanted = match &self.reference.digest {
            Some(digest) => digest.to_string(),
            None => self.reference.tag_or_latest().to_owned(),
        };
        for _ in 0..=MAX_INDEX_DEPTH {
            let (digest, document) = self.document(&wanted)?;
            match document {
                Document::Manifest(manifest) => return self.assemble(digest, &manifest),
                Document::Index(index) => wanted = self.choose(&index, platform)?.digest.to_string(),
            }
        }
        Err(self.invalid("its indexes are nested too deeply"))
    }

    fn resolve(&self) -> Result<Digest, StoreError> {
        let call = self.manifest_call(Method::HEAD, self.reference.tag_or_latest());
        let answer = self.shared.client.send(self.place, &call).map_err(|f| self.failed(f))?;
        let given = answer.response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        match given {
            Some(digest) if answer.response.is_success() => Ok(digest),
            // A `HEAD` has no body to say what is wrong, and the digest is not obligatory: the document has both.
            _ => self.document(self.reference.tag_or_latest()).map(|(digest, _)| digest),
        }
    }

    fn manifest_call(&self, method: Method, wanted: &str) -> Call<'static> {
        Call::path(method, format!("manifests/{wanted}"), Scopes::pull(&self.place.repository)).header("accept", ACCEPT)
    }

    /// Fetches the manifest or index that `wanted` (a tag or digest) names, and checks its digest.
    fn document(&self, wanted: &str) -> Result<(Digest, Document), StoreError> {
        let call = self.manifest_call(Method::GET, wanted);
        let mut answer = self.shared.client.send(self.place, &call).map_err(|f| self.failed(f))?;
        if !answer.response.is_success() {
            let failure = self.shared.client.refused(self.place, answer);
            return Err(self.failed(self.not_found(failure, wanted)));
        }
        let read = answer.response.read_all(MAX_MANIFEST_BYTES);
        let bytes = read.map_err(|e| self.failed(unreadable(&e, &answer.request)))?;
        let digest = Digest::of(&bytes);
        let promised = answer.response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        for expected in Digest::parse(wanted).ok().iter().chain(&promised) {
            if wrong_digest(expected, digest.clone()).is_some() {
                let reason = format!("the registry sent a manifest with digest `{digest}` for `{expected}`");
                return Err(self.failed(Failure::new(FailureKind::WrongDigest, reason, &answer.request)));
            }
        }
        let document = parse_manifest(&bytes, answer.response.header("content-type"));
        let unsupported = |reason| Failure::new(FailureKind::Unsupported, format!("it is {reason}"), &answer.request);
        Ok((digest, document.map_err(|reason| self.failed(unsupported(reason)))?))
    }

    /// The entry of `index` that serves `platform` best; the first of equals.
    fn choose<'i>(&self, index: &'i Index, platform: &Platform) -> Result<&'i Descriptor, StoreError> {
        let images = || index.manifests.iter().filter(|entry| is_image(entry));
        let ranked = images().filter_map(|entry| Some((entry.platform.as_ref()?.rank_for(platform)?, entry)));
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
            return Ok(best);
        }
        // An entry without platform is what its config says; a single one is what was meant.
        let mut unnamed = images().filter(|entry| entry.platform.is_none());
        if let (Some(only), None) = (unnamed.next(), unnamed.next()) {
            return Ok(only);
        }
        let mut available: Vec<String> =
            images().filter_map(|entry| entry.platform.as_ref()).map(|p| format!("`{p}`")).collect();
        available.dedup();
        if available.is_empty() {
            available.push("no image for any platform".to_owned());
        }
        Err(StoreError::Platform {
            wanted: platform.to_string(),
            reference: self.reference.familiar(),
            available: available.join(", "),
        })
    }

    fn assemble(&self, digest: Digest, manifest: &Manifest) -> Result<Image, StoreError> {
        let flavor = self.flavor(manifest)?;
        let blobs = Arc::new(RemoteBlobs { shared: self.shared.clone(), places: self.blob_places() });
        let config = self.config(&blobs, &manifest.config)?;
        let (ids, count) = (&config.rootfs.diff_ids, manifest.layers.len());
        if ids.len() != count {
            return Err(self.invalid(&format!("its manifest has {count} layers, its config {}", ids.len())));
        }
        let origin = Origin { registry: self.place.registry.clone(), repository: self.place.repository.clone() };
        let layers = manifest.layers.iter().zip(ids).map(|(descriptor, diff_id)| {
            if media_type::layer_compression(&descriptor.media_type).is_none() {
                let kind = crate::failure::one_line(&descriptor.media_type);
                return Err(self.invalid(&format!(
                    "layer `{}` has media type `{kind}`, which is not supported",
                    descriptor.digest
                )));
            }
            let (descriptor, diff_id) = (descriptor.clone(), diff_id.clone());
            Ok(Layer { descriptor, diff_id, content: blobs.clone(), origin: Some(origin.clone()) })
        });
        let layers = layers.collect::<Result<Vec<Layer>, StoreError>>()?;
        let annotations = manifest.annotations.clone().unwrap_or_default();
        Ok(Image { config, layers, flavor, annotations, digest: Some(digest) })
    }

    fn flavor(&self, manifest: &Manifest) -> Result<Flavor, StoreError> {
        let config = manifest.config.media_type.as_str();
        match (manifest.media_type.as_deref(), config) {
            (Some(media_type::DOCKER_MANIFEST), media_type::DOCKER_CONFIG | media_type::OCI_CONFIG) => {
                Ok(Flavor::Docker)
            }
            (_, media_type::OCI_CONFIG) => Ok(Flavor::Oci),
            (None, media_type::DOCKER_CONFIG) => Ok(Flavor::Docker),
            (_, media_type::DOCKER_CONFIG) => Ok(Flavor::Oci),
            (_, other) => {
                let kind = crate::failure::one_line(other);
                Err(self.invalid(&format!("it is an artifact with a config of media type `{kind}`, not an image")))
            }
        }
    }

    fn config(&self, blobs: &RemoteBlobs, descriptor: &Descriptor) -> Result<ImageConfig, StoreError> {
        if descriptor.size > MAX_CONFIG_BYTES {
            return Err(
                self.invalid(&format!("its config has {} bytes; {MAX_CONFIG_BYTES} are the limit", descriptor.size))
            );
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut blobs.open(descriptor)?, &mut bytes).map_err(|e| read_failed(e, self.reference))?;
        serde_json::from_slice(&bytes).map_err(|e| self.invalid(&format!("its config is not valid: {e}")))
    }

    /// This place first, then where else the blobs may be.
    fn blob_places(&self) -> Vec<Place> {
        std::iter::once(self.place).chain(self.others).cloned().collect()
    }

    fn invalid(&self, reason: &str) -> StoreError {
        Failure::new(FailureKind::Unsupported, reason, format!("the manifest of {}", self.reference))
            .during("use", self.reference.familiar())
    }

    fn failed(&self, failure: Failure) -> StoreError {
        failure.during("pull", self.name())
    }

    /// The reference as asked for here: a mirror's name shows that it was a mirror.
    fn name(&self) -> String {
        let here = Reference {
            registry: self.place.registry.clone(),
            repository: self.place.repository.clone(),
            ..self.reference.clone()
        };
        here.familiar()
    }

    /// Tells an unknown tag from an unknown repository, which a bare 404 does not.
    fn not_found(&self, failure: Failure, wanted: &str) -> Failure {
        let repository = &self.place.repository;
        match failure.kind {
            FailureKind::RepositoryNotFound => {
                failure.hint(format!("`{}` has no repository `{repository}`", self.place.registry))
            }
            FailureKind::ManifestNotFound => failure.hint(format!("repository `{repository}` has no `{wanted}`")),
            _ if failure.status == Some(404) => Failure { kind: FailureKind::ManifestNotFound, ..failure },
            FailureKind::Unauthorized | FailureKind::Denied => {
                let hint = failure.hint.clone().unwrap_or_default();
                failure.hint(format!("`{repository}` does not exist there or is private; {hint}"))
            }
            _ => failure,
        }
    }
}

/// Whether an index entry may be an image or lead to one: attestations and other artifacts are not.
///
/// BuildKit's attestations have platform `unknown/unknown` and an annotation (buildkit `attestation-storage.md`).
fn is_image(entry: &Descriptor) -> bool {
    let unknown = entry.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown");
    let attached = entry.annotations.as_ref().is_some_and(|a| a.contains_key("vnd.docker.reference.type"));
    let known_type = matches!(
        entry.media_type.as_str(),
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST | media_type::OCI_INDEX | media_type::DOCKER_INDEX
    );
    known_type && !unknown && !attached && entry.artifact_type.is_none()
}

fn unreadable(error: &io::Error, request: &str) -> Failure {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Failure::new(FailureKind::Unsupported, error.to_string(), request),
        _ => from_io(error, request),
    }
}

/// What reading a blob gave, as the error it holds.
fn read_failed(error: io::Error, reference: &Reference) -> StoreError {
    if net::is_cancelled(&error) {
        return StoreError::Cancelled;
    }
    if error.get_ref().is_some_and(|inner| inner.is::<StoreError>()) {
        let inner = error.into_inner().and_then(|inner| inner.downcast::<StoreError>().ok());
        return inner.map_or(StoreError::Cancelled, |inner| *inner);
    }
    from_io(&error, "").during("pull the config of", reference.familiar())
}
