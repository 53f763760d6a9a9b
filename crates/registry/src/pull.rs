//! Images from registries.

use std::io;
use std::sync::Arc;

use http::Method;
use oci::{Descriptor, Digest, Hasher, Index, Manifest, Platform, Reference, media_type};
use store::{
    Document, Image, ImageSource, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Origin, StoreError, choose_platform,
    is_attestation, read_blob, read_document,
};

use crate::blob::{RemoteBlobs, from_io};
use crate::challenge::Scopes;
use crate::client::{Call, Place};
use crate::failure::{Failure, FailureKind, beside, failure};
use crate::{Registry, Shared, mirror};

/// An index in an index in an index is allowed and unheard of.
const MAX_INDEX_DEPTH: u32 = 3;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

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

/// The last place's error, which names the registry that was meant, with what each mirror said before.
fn merged(mut misses: Vec<(String, StoreError)>) -> StoreError {
    let Some((_, last)) = misses.pop() else {
        return StoreError::Invalid {
            what: "registry maps".to_owned(),
            reason: "they leave no place to pull from".to_owned(),
        };
    };
    let said = misses.iter().map(|(registry, error)| format!("mirror `{registry}`: {}", with_hint(error)));
    beside(last, said.collect())
}

/// An error with what helps, but for what only repeats that something is not there.
fn with_hint(error: &StoreError) -> String {
    let is_missing = failure(error).is_some_and(|failure| failure.status == Some(404));
    match error {
        StoreError::Remote { message, hint: Some(hint), .. } if !is_missing => format!("{message} ({hint})"),
        error => error.to_string(),
    }
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
                Document::Manifest(manifest) => return self.assemble(&digest, &manifest),
                Document::Index(index) => wanted = self.choose(index, platform)?.digest.to_string(),
            }
        }
        Err(StoreError::Invalid { what: self.name(), reason: "its indexes are nested too deeply".to_owned() })
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
        let promised = answer.response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        for expected in Digest::parse(wanted).ok().iter().chain(&promised) {
            let actual = digest_like(expected, &bytes);
            if actual != *expected {
                let reason = format!("the registry sent a manifest with digest `{actual}` for `{expected}`");
                return Err(self.failed(Failure::new(FailureKind::WrongDigest, reason, &answer.request)));
            }
        }
        let digest = Digest::parse(wanted).unwrap_or_else(|_| Digest::of(&bytes));
        Ok((digest, read_document(&self.name(), &bytes, media_type_of(&answer.response).as_deref())?))
    }

    /// The entry of `index` that serves `platform` best, of those that may be images.
    fn choose(&self, index: Index, platform: &Platform) -> Result<Descriptor, StoreError> {
        let mut manifests: Vec<Descriptor> = index.manifests.into_iter().filter(may_be_image).collect();
        if manifests.len() > 1 {
            for entry in manifests.iter_mut().filter(|entry| entry.platform.is_none()) {
                entry.platform = self.platform_in_config(entry)?;
            }
        }
        choose_platform(&Index { manifests, ..index }, platform, &self.reference.familiar()).cloned()
    }

    /// The platform that the image behind an index entry names itself; none where there is no image.
    fn platform_in_config(&self, entry: &Descriptor) -> Result<Option<Platform>, StoreError> {
        let image = self.document(entry.digest.as_str()).and_then(|(digest, document)| match document {
            Document::Manifest(manifest) => self.assemble(&digest, &manifest).map(Some),
            Document::Index(_) => Ok(None),
        });
        match image {
            Ok(image) => Ok(image.map(|image| image.platform())),
            Err(StoreError::Invalid { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn assemble(&self, digest: &Digest, manifest: &Manifest) -> Result<Image, StoreError> {
        let name = self.name();
        for layer in &manifest.layers {
            if media_type::layer_compression(&layer.media_type).is_none() {
                let kind = auth::one_line(&layer.media_type);
                let reason = format!("layer `{}` has media type `{kind}`, which is not supported", layer.digest);
                return Err(StoreError::Invalid { what: name, reason });
            }
        }
        let blobs = Arc::new(RemoteBlobs { shared: self.shared.clone(), places: self.blob_places() });
        // An artifact's config may be anything of any size, and is refused before it is asked for.
        let config = match manifest.config.media_type.as_str() {
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => {
                read_blob(&*blobs, &manifest.config, "image config", MAX_CONFIG_BYTES)?
            }
            _ => Vec::new(),
        };
        let origin = Origin { registry: self.place.registry.clone(), repository: self.place.repository.clone() };
        Image::from_documents(&name, manifest, &config, digest, blobs, Some(origin))
    }

    /// This place first, then where else the blobs may be.
    fn blob_places(&self) -> Vec<Place> {
        std::iter::once(self.place).chain(self.others).cloned().collect()
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

    /// Tells an unknown tag from an unknown repository where the registry does: Docker's own says of both that the manifest
    /// is unknown.
    fn not_found(&self, failure: Failure, wanted: &str) -> Failure {
        let (registry, repository) = (&self.place.registry, &self.place.repository);
        let separator = if wanted.contains(':') { '@' } else { ':' };
        match failure.kind {
            FailureKind::RepositoryNotFound => failure.hint(format!("`{registry}` has no repository `{repository}`")),
            _ if failure.status == Some(404) => {
                let hint = format!("`{registry}` has no `{repository}{separator}{wanted}`");
                Failure { kind: FailureKind::ManifestNotFound, ..failure }.hint(hint)
            }
            FailureKind::Unauthorized | FailureKind::Denied => {
                let hint = failure.hint.clone().unwrap_or_default();
                failure.hint(format!("`{repository}` does not exist there or is private; {hint}"))
            }
            _ => failure,
        }
    }
}

/// Whether an index entry may be an image or lead to one.
fn may_be_image(entry: &Descriptor) -> bool {
    is_known(&entry.media_type) && !is_attestation(entry)
}

fn is_known(document_type: &str) -> bool {
    matches!(
        document_type,
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST | media_type::OCI_INDEX | media_type::DOCKER_INDEX
    )
}

fn digest_like(expected: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::like(expected);
    hasher.update(bytes);
    hasher.finish()
}

/// What `Content-Type` says of a document, without its parameters; none where that is nothing a document could be: registries
/// on top of file servers say `binary/octet-stream` or `text/html`, and the document itself knows better.
fn media_type_of(response: &net::Response) -> Option<String> {
    let said = response.header("content-type")?.split(';').next()?.trim().to_ascii_lowercase();
    Some(said).filter(|said| is_known(said))
}

fn unreadable(error: &io::Error, request: &str) -> Failure {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Failure::new(FailureKind::Unsupported, error.to_string(), request),
        _ => from_io(error, request),
    }
}
