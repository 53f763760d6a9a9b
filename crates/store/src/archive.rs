//! Images in tar archives: OCI layouts in a tar, and what `docker save` and kaniko's `--tar-path` write. The archive is
//! indexed once by its headers and read in place.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::{Compression, Descriptor, Digest, Flavor, Hasher, ImageConfig, Platform, Reference, media_type};

use crate::catalog::{Catalog, SizedBlobs};
use crate::decode::compression_of;
use crate::layout::io_error;
use crate::tar::{self, Span};
use crate::{
    BlobSource, Document, Image, ImageSource, Layer, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, StoreError, read_document,
};

/// An image archive on disk. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    contents: Arc<Contents>,
}

struct Contents {
    path: PathBuf,
    file: Arc<File>,
    files: HashMap<String, Span>,
}

/// One image of `manifest.json`. Docker image-spec 1.2, «Combined Image JSON + Filesystem Changeset Format».
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Archive {
    /// Opens an archive and reads the headers of its entries.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it is compressed or no tar. Which kind of archive it is matters first in
    /// [`Archive::find`].
    pub fn open(path: &Path) -> Result<Archive, StoreError> {
        let file = File::open(path).map_err(io_error("open the archive", path))?;
        let invalid = |reason: &str| StoreError::Invalid { what: place(path), reason: reason.to_owned() };
        let mut magic = [0; 4];
        let count = file.read_at(&mut magic, 0).map_err(io_error("read", path))?;
        if compression_of(&magic[..count]) != Compression::None {
            return Err(invalid("it is compressed as a whole: decompress it first"));
        }
        let files = tar::index(&file).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => invalid(&error.to_string()),
            _ => io_error("read", path)(error),
        })?;
        Ok(Archive { contents: Arc::new(Contents { path: path.to_owned(), file: Arc::new(file), files }) })
    }

    /// Finds an image, as [`crate::Layout::find`] does. In Docker's archives `name` is one of the `RepoTags`.
    pub fn find(&self, name: Option<&str>, platform: &Platform) -> Result<Image, StoreError> {
        if let Some(index) = self.read_file("index.json", MAX_MANIFEST_BYTES)?
            && self.contents.files.contains_key("oci-layout")
        {
            let what = format!("`index.json` of {}", self.place());
            let Document::Index(index) = read_document(&what, &index, Some(media_type::OCI_INDEX))? else {
                return Err(self.invalid("its `index.json` is not an index"));
            };
            return Catalog { index, content: Arc::new(self.clone()), place: self.place() }.find(name, platform);
        }
        let manifest = self
            .read_file("manifest.json", MAX_MANIFEST_BYTES)?
            .ok_or_else(|| self.invalid("it has neither `index.json` and `oci-layout` nor `manifest.json`"))?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&manifest)
            .map_err(|error| self.invalid(&format!("its `manifest.json` does not parse: {error}")))?;
        self.load_docker(self.choose_docker(&entries, name)?)
    }

    fn choose_docker<'a>(&self, entries: &'a [DockerEntry], name: Option<&str>) -> Result<&'a DockerEntry, StoreError> {
        let tags = |entry: &'a DockerEntry| entry.repo_tags.iter().flatten().map(String::as_str);
        let wanted = name.and_then(|name| Reference::parse(name).ok()).map(|reference| reference.to_string());
        let same = |tag: &str| Reference::parse(tag).is_ok_and(|found| Some(found.to_string()) == wanted);
        match (name, entries) {
            (None, [only]) => Ok(only),
            (None, []) => Err(self.invalid("it has no image")),
            _ => entries.iter().find(|entry| tags(entry).any(same)).ok_or_else(|| {
                let all: Vec<&str> = entries.iter().flat_map(tags).take(20).collect();
                let asked =
                    name.map_or("several images and none is asked for".to_owned(), |n| format!("no image `{n}`"));
                self.invalid(&format!("it has {asked}; it has {}", all.join(", ")))
            }),
        }
    }

    /// Docker's archives have no manifest with digests: each compressed layer is hashed here, a plain one has its diff ID.
    fn load_docker(&self, entry: &DockerEntry) -> Result<Image, StoreError> {
        let missing = |name: &str| self.invalid(&format!("it has no file `{name}`, which its `manifest.json` names"));
        let config = self.read_file(&entry.config, MAX_CONFIG_BYTES)?.ok_or_else(|| missing(&entry.config))?;
        let config: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| self.invalid(&format!("its image config `{}` does not parse: {error}", entry.config)))?;
        let names: Vec<&String> = entry.layers.iter().flatten().collect();
        if names.len() != config.rootfs.diff_ids.len() {
            let (layers, ids) = (names.len(), config.rootfs.diff_ids.len());
            return Err(self.invalid(&format!("an image has {layers} layers and its config {ids} diff IDs")));
        }
        let mut spans = BTreeMap::new();
        let mut descriptors = Vec::new();
        for (name, diff_id) in std::iter::zip(names, &config.rootfs.diff_ids) {
            let span = self.span(name).ok_or_else(|| missing(name))?;
            let descriptor = self.describe_layer(span, &diff_id.0)?;
            spans.insert(descriptor.digest.clone(), span);
            descriptors.push(descriptor);
        }
        let content: Arc<dyn BlobSource> = Arc::new(DockerLayers { contents: Arc::clone(&self.contents), spans });
        let layers = std::iter::zip(descriptors, config.rootfs.diff_ids.clone())
            .map(|(descriptor, diff_id)| Layer { descriptor, diff_id, content: Arc::clone(&content), origin: None })
            .collect();
        Ok(Image { config, layers, flavor: Flavor::Docker, annotations: BTreeMap::new(), digest: None })
    }

    fn describe_layer(&self, span: Span, diff_id: &Digest) -> Result<Descriptor, StoreError> {
        let read_error = io_error("read", &self.contents.path);
        let mut magic = Vec::new();
        self.contents.reader(span).take(4).read_to_end(&mut magic).map_err(&read_error)?;
        let compression = compression_of(&magic);
        let digest = match compression {
            Compression::None => diff_id.clone(),
            Compression::Gzip | Compression::Zstd => {
                let mut hasher = Hasher::new();
                io::copy(&mut self.contents.reader(span), &mut hasher).map_err(read_error)?;
                hasher.finish()
            }
        };
        let media_type = Flavor::Docker.layer(compression).unwrap_or(media_type::OCI_LAYER_ZSTD);
        Ok(Descriptor::new(media_type, digest, span.size_bytes))
    }

    fn span(&self, name: &str) -> Option<Span> {
        self.contents.files.get(name.trim_start_matches("./")).copied()
    }

    fn read_file(&self, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(span) = self.span(name) else { return Ok(None) };
        if span.size_bytes > limit_bytes {
            return Err(self.invalid(&format!("its file `{name}` is larger than {limit_bytes} bytes")));
        }
        let mut bytes = Vec::new();
        self.contents.reader(span).read_to_end(&mut bytes).map_err(io_error("read", &self.contents.path))?;
        Ok(Some(bytes))
    }

    fn place(&self) -> String {
        place(&self.contents.path)
    }

    fn invalid(&self, reason: &str) -> StoreError {
        StoreError::Invalid { what: self.place(), reason: reason.to_owned() }
    }
}

fn place(path: &Path) -> String {
    format!("archive `{}`", path.display())
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

impl SizedBlobs for Archive {
    fn size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.span(&blob_name(digest)).map(|span| span.size_bytes))
    }
}

impl BlobSource for Archive {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        self.contents.open(blob, self.span(&blob_name(&blob.digest)))
    }
}

impl ImageSource for Archive {
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image, StoreError> {
        self.find(Some(&reference.to_string()), platform)
    }
}

struct DockerLayers {
    contents: Arc<Contents>,
    spans: BTreeMap<Digest, Span>,
}

impl BlobSource for DockerLayers {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        self.contents.open(blob, self.spans.get(&blob.digest).copied())
    }
}

impl Contents {
    fn open(&self, blob: &Descriptor, span: Option<Span>) -> Result<Box<dyn Read + Send>, StoreError> {
        let missing = || StoreError::Missing { digest: blob.digest.clone(), place: place(&self.path) };
        Ok(Box::new(self.reader(span.ok_or_else(missing)?)))
    }

    fn reader(&self, span: Span) -> Section {
        Section { file: Arc::clone(&self.file), at: span.offset, left: span.size_bytes }
    }
}

/// Reads a part of a file without moving its position, which others read at too.
struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
