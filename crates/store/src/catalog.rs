//! Finding one image among those that an `index.json` lists, whatever medium holds it.

use std::sync::Arc;

use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type};

use crate::image::{best, check_is_image, no_platform, platform_of};
use crate::{
    BlobSource, Document, Image, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, StoreError, is_attestation, read_blob,
    read_document,
};

pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full reference, where the name is only its tag (containerd, BuildKit).
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// How deep indexes may point to indexes.
const MAX_NESTING: usize = 4;
const MAX_ENTRIES: usize = 10_000;

/// Blobs that can be asked for by their digest alone.
pub(crate) trait SizedBlobs: BlobSource {
    /// None where the blob is not there.
    fn size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError>;
}

/// An index and the blobs that it leads to.
pub(crate) struct Catalog<B> {
    pub(crate) index: Index,
    pub(crate) content: Arc<B>,
    /// For messages: `OCI layout out/`.
    pub(crate) place: String,
}

impl<B: SizedBlobs + 'static> Catalog<B> {
    /// See [`crate::Layout::find`].
    pub(crate) fn find(&self, name: Option<&str>, platform: &Platform) -> Result<Image, StoreError> {
        let candidates = match name {
            Some(name) => self.named(name)?,
            None => self.only_image()?,
        };
        let wanted = match name {
            Some(name) => format!("{name} in {}", self.place),
            None => self.place.clone(),
        };
        let entry = self.choose(candidates, platform, &wanted)?;
        self.load(&entry)
    }

    fn named(&self, name: &str) -> Result<Vec<Descriptor>, StoreError> {
        let reference = Reference::parse(name).ok();
        let digest = Digest::parse(name).ok().or_else(|| reference.as_ref()?.digest.clone());
        if let Some(digest) = digest {
            return Ok(vec![self.by_digest(&digest)?]);
        }
        let full = reference.map(|reference| reference.to_string());
        let same = |text: &str| Reference::parse(text).is_ok_and(|found| Some(found.to_string()) == full);
        let rules: [&dyn Fn(&Descriptor) -> bool; 3] = [
            &|entry| annotation(entry, REF_NAME) == Some(name),
            &|entry| annotation(entry, IMAGE_NAME).is_some_and(same) || full_ref_name(entry).is_some_and(same),
            &|entry| has_tag(entry, name),
        ];
        for rule in rules {
            let found: Vec<Descriptor> = self.index.manifests.iter().filter(|entry| rule(entry)).cloned().collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(self.no_image(&format!("no image `{name}`")))
    }

    /// Every entry, when they are one image (for one or several platforms); otherwise what is named `latest`.
    fn only_image(&self) -> Result<Vec<Descriptor>, StoreError> {
        let images: Vec<&Descriptor> = self.index.manifests.iter().filter(|entry| !is_attestation(entry)).collect();
        let Some(first) = images.first() else { return Err(self.invalid("it has no image")) };
        let name = |entry: &Descriptor| [IMAGE_NAME, REF_NAME].map(|key| annotation(entry, key).map(str::to_owned));
        let one_name = images.iter().all(|entry| name(entry) == name(first));
        let one_digest = images.iter().all(|entry| entry.digest == first.digest);
        if one_name || one_digest {
            return Ok(images.into_iter().cloned().collect());
        }
        let latest: Vec<Descriptor> = images.into_iter().filter(|entry| has_tag(entry, "latest")).cloned().collect();
        if latest.is_empty() { Err(self.no_image("several images and none is asked for")) } else { Ok(latest) }
    }

    fn no_image(&self, reason: &str) -> StoreError {
        const MOST_NAMES: usize = 20;
        let name = |entry| annotation(entry, IMAGE_NAME).or(annotation(entry, REF_NAME));
        let mut names: Vec<&str> =
            self.index.manifests.iter().map(|entry| name(entry).unwrap_or(entry.digest.as_str())).collect();
        if names.len() > MOST_NAMES {
            names.truncate(MOST_NAMES);
            names.push("…");
        }
        self.invalid(&format!("it has {reason}; it has {}", names.join(", ")))
    }

    /// The entry with a digest, or a manifest that the index does not list.
    fn by_digest(&self, digest: &Digest) -> Result<Descriptor, StoreError> {
        if let Some(entry) = self.index.manifests.iter().find(|entry| entry.digest == *digest) {
            return Ok(entry.clone());
        }
        let missing = || StoreError::Missing { digest: digest.clone(), place: self.place.clone() };
        let size_bytes = self.content.size_bytes(digest)?.ok_or_else(missing)?;
        Ok(Descriptor::new("", digest.clone(), size_bytes))
    }

    /// The manifest among `entries` and below that serves `wanted` best. One manifest alone is taken whatever its platform.
    fn choose(&self, entries: Vec<Descriptor>, wanted: &Platform, name: &str) -> Result<Descriptor, StoreError> {
        if let [only] = entries.as_slice()
            && let Document::Manifest(_) = self.document(only)?
        {
            return Ok(only.clone());
        }
        let mut manifests = Vec::new();
        self.manifests_below(entries, 0, &mut manifests)?;
        match best(manifests.iter(), wanted) {
            Some(entry) => Ok(entry.clone()),
            None => Err(no_platform(wanted, name, manifests.iter().filter_map(|entry| entry.platform.as_ref()))),
        }
    }

    /// Collects the manifests that `entries` lead to, each with its platform.
    fn manifests_below(
        &self,
        entries: Vec<Descriptor>,
        depth: usize,
        found: &mut Vec<Descriptor>,
    ) -> Result<(), StoreError> {
        for mut entry in entries.into_iter().filter(|entry| !is_attestation(entry)) {
            if depth > MAX_NESTING || found.len() > MAX_ENTRIES {
                return Err(self.invalid("its indexes are nested too deeply or too large"));
            }
            if is_manifest_type(&entry) && entry.platform.is_some() {
                found.push(entry);
                continue;
            }
            match self.document(&entry)? {
                Document::Index(index) => self.manifests_below(index.manifests, depth + 1, found)?,
                // An artifact: its config says nothing of a platform, and may be anything.
                Document::Manifest(manifest) if check_is_image(&manifest).is_err() => {}
                Document::Manifest(manifest) => {
                    entry.platform = Some(platform_of(&self.config(&manifest)?));
                    found.push(entry);
                }
            }
        }
        Ok(())
    }

    fn document(&self, entry: &Descriptor) -> Result<Document, StoreError> {
        let what = format!("manifest `{}` of {}", entry.digest, self.place);
        let bytes = read_blob(&*self.content, entry, "manifest", MAX_MANIFEST_BYTES)?;
        read_document(&what, &bytes, Some(&entry.media_type))
    }

    fn config(&self, manifest: &Manifest) -> Result<ImageConfig, StoreError> {
        let bytes = read_blob(&*self.content, &manifest.config, "config", MAX_CONFIG_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Invalid {
            what: format!("config `{}` of {}", manifest.config.digest, self.place),
            reason: error.to_string(),
        })
    }

    fn load(&self, entry: &Descriptor) -> Result<Image, StoreError> {
        let what = format!("image `{}` of {}", entry.digest, self.place);
        let Document::Manifest(manifest) = self.document(entry)? else {
            return Err(StoreError::Invalid { what, reason: "it is an index".to_owned() });
        };
        let config = read_blob(&*self.content, &manifest.config, "config", MAX_CONFIG_BYTES)?;
        let content: Arc<dyn BlobSource> = Arc::<B>::clone(&self.content);
        Image::from_documents(&what, &manifest, &config, &entry.digest, content, None)
    }

    fn invalid(&self, reason: &str) -> StoreError {
        StoreError::Invalid { what: self.place.clone(), reason: reason.to_owned() }
    }
}

pub(crate) fn annotation<'a>(entry: &'a Descriptor, key: &str) -> Option<&'a str> {
    entry.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The name, where it is a repository's and not only a tag.
fn full_ref_name(entry: &Descriptor) -> Option<&str> {
    annotation(entry, REF_NAME).filter(|text| text.contains(['/', ':']))
}

fn has_tag(entry: &Descriptor, tag: &str) -> bool {
    let is_tag_of = |text: &str| Reference::parse(text).is_ok_and(|reference| reference.tag_or_latest() == tag);
    annotation(entry, REF_NAME) == Some(tag)
        || full_ref_name(entry).is_some_and(is_tag_of)
        || annotation(entry, IMAGE_NAME).is_some_and(is_tag_of)
}

fn is_manifest_type(entry: &Descriptor) -> bool {
    matches!(entry.media_type.as_str(), media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST)
}
