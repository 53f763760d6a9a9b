//! The OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/<algorithm>/<hex>`.
//! OCI image-spec 1.1, `image-layout.md`.
//!
//! Files are reached beneath the directory's handle and no link on the way is followed, except that a blob itself may be a
//! link (Bazel makes such layouts; the digest decides whether it is the right file). Nothing appears under its final name
//! before it is complete.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oci::{Descriptor, Digest, Index, Platform, Reference, media_type};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::catalog::{Catalog, IMAGE_NAME, REF_NAME, SizedBlobs, annotation};
use crate::image::Encoded;
use crate::{
    BlobSink, BlobSource, Document, Image, ImageSource, MAX_MANIFEST_BYTES, StoreError, Verified, read_document,
};

pub(crate) const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// How the names of unfinished files begin.
const PARTIAL: &str = ".partial-";

/// An OCI image layout on disk. Cheap to clone; clones share the directory.
#[derive(Clone)]
pub struct Layout {
    root: Arc<Root>,
}

pub(crate) struct Root {
    path: PathBuf,
    directory: OwnedFd,
}

/// The name of an image in `index.json`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryName {
    /// `org.opencontainers.image.ref.name`.
    pub name: String,
    /// `io.containerd.image.name`.
    pub image_name: Option<String>,
}

impl EntryName {
    /// A name that is written as it is, such as a tag.
    pub fn plain(name: &str) -> EntryName {
        EntryName { name: name.to_owned(), image_name: None }
    }

    /// The tag as name and the whole as containerd's image name, as BuildKit writes them.
    pub fn of(reference: &Reference) -> EntryName {
        let full = Reference { digest: None, ..reference.clone() };
        EntryName { name: reference.tag_or_latest().to_owned(), image_name: Some(full.to_string()) }
    }

    /// Does the index entry have this name, so that a new one replaces it?
    fn is_of(&self, entry: &Descriptor) -> bool {
        annotation(entry, IMAGE_NAME) == self.image_name.as_deref() && annotation(entry, REF_NAME) == Some(&self.name)
    }
}

impl Layout {
    /// Opens a layout to read.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the directory is no layout of version 1.
    pub fn open(path: &Path) -> Result<Layout, StoreError> {
        let layout = Layout::open_directory(path)?;
        layout.check_version()?;
        Ok(layout)
    }

    /// Opens a layout to write, and makes the directory into an empty one first where it is none yet.
    pub fn create(path: &Path) -> Result<Layout, StoreError> {
        std::fs::create_dir_all(path).map_err(io_error("create the directory", path))?;
        let layout = Layout::open_directory(path)?;
        if layout.open_file("index.json")?.is_none() {
            layout.replace_file("index.json", &to_json(&index_of(Vec::new())))?;
        }
        if layout.open_file("oci-layout")?.is_none() {
            layout.replace_file("oci-layout", LAYOUT_FILE)?;
        }
        layout.check_version()?;
        layout.remove_abandoned();
        Ok(layout)
    }

    /// Removes what killed processes left. Whoever still writes holds a lock.
    fn remove_abandoned(&self) {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.root.directory) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_bytes().starts_with(PARTIAL.as_bytes())) {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let Ok(file) = rustix::fs::openat(&self.root.directory, entry.file_name(), flags, Mode::empty()) else {
                continue;
            };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // What cannot be removed does no harm.
                let _ = rustix::fs::unlinkat(&self.root.directory, entry.file_name(), AtFlags::empty());
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.root.path
    }

    fn open_directory(path: &Path) -> Result<Layout, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| io_error("open the OCI layout", path)(errno.into()))?;
        Ok(Layout { root: Arc::new(Root { path: path.to_owned(), directory }) })
    }

    fn check_version(&self) -> Result<(), StoreError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct LayoutFile {
            image_layout_version: String,
        }
        let bytes = self.read_file("oci-layout", 4096)?.ok_or_else(|| self.invalid("it has no file `oci-layout`"))?;
        let file: LayoutFile = serde_json::from_slice(&bytes)
            .map_err(|error| self.invalid(&format!("its file `oci-layout` does not parse: {error}")))?;
        if file.image_layout_version.starts_with("1.") {
            Ok(())
        } else {
            Err(self.invalid(&format!("layout version `{}` is not supported", file.image_layout_version)))
        }
    }

    /// The parsed `index.json`.
    pub fn index(&self) -> Result<Index, StoreError> {
        let bytes = self
            .read_file("index.json", MAX_MANIFEST_BYTES)?
            .ok_or_else(|| self.invalid("it has no file `index.json`"))?;
        let what = format!("`index.json` of {}", self.place());
        match read_document(&what, &bytes, Some(media_type::OCI_INDEX))? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => Err(self.invalid("its `index.json` is not an index")),
        }
    }

    /// Finds an image and reads its manifest and config.
    ///
    /// `name` is an entry's name, a full reference, a tag or a manifest digest; without it the only image is meant, or
    /// `latest` where there are several.
    pub fn find(&self, name: Option<&str>, platform: &Platform) -> Result<Image, StoreError> {
        Catalog { index: self.index()?, content: Arc::new(self.clone()), place: self.place() }.find(name, platform)
    }

    /// Writes an image: layers, config and manifest, then its entry in `index.json`, which replaces one of the same name.
    ///
    /// The result describes the manifest. The layers that the layout has already are not read.
    pub fn add(&self, image: &Image, name: Option<&EntryName>) -> Result<Descriptor, StoreError> {
        for layer in &image.layers {
            if !self.contains(&layer.descriptor)? {
                self.put(&layer.descriptor, &mut *layer.open()?)?;
            }
        }
        let encoded = image.encode();
        self.put(&encoded.config_descriptor, &mut encoded.config.as_slice())?;
        self.put(&encoded.manifest_descriptor, &mut encoded.manifest.as_slice())?;
        self.update_index(index_entry(image, &encoded, name), name)?;
        Ok(encoded.manifest_descriptor)
    }

    fn update_index(&self, entry: Descriptor, name: Option<&EntryName>) -> Result<(), StoreError> {
        // Held until the file is closed. A file system without locks is used by one process at a time.
        let lock = self.lock();
        let mut index = self.index()?;
        index.manifests.retain(|old| match name {
            Some(name) => !name.is_of(old),
            None => old.digest != entry.digest || annotation(old, REF_NAME).is_some(),
        });
        index.manifests.push(entry);
        index.media_type = Some(media_type::OCI_INDEX.to_owned());
        self.replace_file("index.json", &to_json(&index))?;
        drop(lock);
        Ok(())
    }

    fn lock(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = rustix::fs::openat(&self.root.directory, ".", flags, Mode::empty()).ok()?;
        rustix::fs::flock(&own, FlockOperation::LockExclusive).ok()?;
        Some(own)
    }
}

/// Files beneath the directory.
impl Layout {
    fn place(&self) -> String {
        format!("OCI layout `{}`", self.path().display())
    }

    fn invalid(&self, reason: &str) -> StoreError {
        StoreError::Invalid { what: self.place(), reason: reason.to_owned() }
    }

    fn missing(&self, digest: &Digest) -> StoreError {
        StoreError::Missing { digest: digest.clone(), place: self.place() }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn write_error(&self, source: io::Error) -> StoreError {
        io_error("write to the OCI layout", self.path())(source)
    }

    /// A regular file at the top, not through a link; none where there is none.
    fn open_file(&self, name: &str) -> Result<Option<File>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(&self.root.directory, name, flags, Mode::empty());
        regular(opened).map_err(io_error("open", &self.path().join(name)))
    }

    fn read_file(&self, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(io_error("read", &self.path().join(name)))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(self.invalid(&format!("its file `{name}` is larger than {limit_bytes} bytes")));
        }
        Ok(Some(bytes))
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let error = io_error("open", &self.blob_path(digest));
        let Some(directory) = self.blobs(digest).map_err(&error)? else { return Ok(None) };
        // Not blocking, for a link that leads to a FIFO.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        regular(rustix::fs::openat(&directory, digest.hex(), flags, Mode::empty())).map_err(error)
    }

    /// The directory `blobs/<algorithm>`.
    fn blobs(&self, digest: &Digest) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = |parent: &OwnedFd, name: &str| match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(io::Error::from(errno)),
        };
        match open(&self.root.directory, "blobs")? {
            Some(blobs) => open(&blobs, digest.algorithm()),
            None => Ok(None),
        }
    }

    fn make_blobs(&self, digest: &Digest) -> io::Result<OwnedFd> {
        if let Some(directory) = self.blobs(digest)? {
            return Ok(directory);
        }
        for name in ["blobs".to_owned(), format!("blobs/{}", digest.algorithm())] {
            match rustix::fs::mkdirat(&self.root.directory, &name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.blobs(digest)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A new file for content that has no name yet.
    pub(crate) fn partial(&self) -> Result<Partial, StoreError> {
        Partial::new(Arc::clone(&self.root)).map_err(|source| self.write_error(source))
    }

    /// Gives a finished blob its name.
    pub(crate) fn keep(&self, partial: Partial, digest: &Digest) -> Result<(), StoreError> {
        let kept = self.make_blobs(digest).and_then(|directory| partial.keep(&directory, digest.hex()));
        kept.map_err(io_error("store", &self.blob_path(digest)))
    }

    fn replace_file(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let mut partial = self.partial()?;
        let written = partial.write_all(content).and_then(|()| partial.keep(&self.root.directory, name));
        written.map_err(io_error("write", &self.path().join(name)))
    }
}

impl SizedBlobs for Layout {
    fn size_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let Some(file) = self.open_blob(digest)? else { return Ok(None) };
        Ok(Some(file.metadata().map_err(io_error("read", &self.blob_path(digest)))?.len()))
    }
}

impl BlobSource for Layout {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let file = self.open_blob(&blob.digest)?.ok_or_else(|| self.missing(&blob.digest))?;
        let actual = file.metadata().map_err(io_error("read", &self.blob_path(&blob.digest)))?.len();
        if actual != blob.size {
            return Err(StoreError::WrongSize { digest: blob.digest.clone(), expected: blob.size, actual });
        }
        Ok(Box::new(file))
    }
}

impl BlobSink for Layout {
    fn contains(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        let file = self.open_blob(&blob.digest)?;
        Ok(file.and_then(|file| file.metadata().ok()).is_some_and(|metadata| metadata.len() == blob.size))
    }

    fn put(&self, blob: &Descriptor, content: &mut dyn Read) -> Result<(), StoreError> {
        let mut partial = self.partial()?;
        let mut content = Verified::blob(content, blob);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return self.keep(partial, &blob.digest),
                Ok(count) => partial.write_all(&buffer[..count]).map_err(|source| self.write_error(source))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::from_read(error)),
            }
        }
    }
}

impl ImageSource for Layout {
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image, StoreError> {
        self.find(Some(&reference.to_string()), platform)
    }
}

/// One image of a layout, for a named context `oci-layout://path[:tag][@digest]`.
pub struct LayoutSource {
    layout: Layout,
    name: Option<String>,
}

impl LayoutSource {
    /// Opens what stands after `oci-layout://`: `path`, `path:tag`, `path@digest` or `path:tag@digest`, where the digest
    /// decides. A relative path counts from the working directory.
    pub fn open(spec: &str) -> Result<LayoutSource, StoreError> {
        let (path, name) = split_spec(spec)?;
        Ok(LayoutSource { layout: Layout::open(Path::new(path))?, name })
    }
}

impl ImageSource for LayoutSource {
    /// The image that the source was opened for, whatever `reference` says.
    fn image(&self, _: &Reference, platform: &Platform) -> Result<Image, StoreError> {
        self.layout.find(self.name.as_deref(), platform)
    }
}

fn split_spec(spec: &str) -> Result<(&str, Option<String>), StoreError> {
    let (rest, digest) = match spec.rsplit_once('@') {
        Some((rest, digest)) if digest.starts_with("sha256:") || digest.starts_with("sha512:") => {
            let digest = Digest::parse(digest).map_err(|error| StoreError::Invalid {
                what: format!("OCI layout `{spec}`"),
                reason: error.to_string(),
            })?;
            (rest, Some(digest.to_string()))
        }
        _ => (spec, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    Ok((path, digest.or(tag.filter(|tag| !tag.is_empty()))))
}

/// A file without its final name; removed when it is dropped.
pub(crate) struct Partial {
    root: Arc<Root>,
    name: String,
    file: File,
    kept: bool,
}

impl Partial {
    fn new(root: Arc<Root>) -> io::Result<Partial> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PARTIAL}{}-{number}", std::process::id());
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&root.directory, &name, flags, Mode::from_raw_mode(0o666)) {
                Ok(file) => File::from(file),
                // Of a process with the same number, in another container or dead.
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno.into()),
            };
            // A file system without locks goes without. Held by another: it is being removed as abandoned.
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if locked != Err(Errno::WOULDBLOCK) && file.metadata()?.nlink() > 0 {
                return Ok(Partial { root, name, file, kept: false });
            }
        }
    }

    fn keep(mut self, directory: &OwnedFd, name: &str) -> io::Result<()> {
        rustix::fs::renameat(&self.root.directory, &self.name, directory, name)?;
        self.kept = true;
        Ok(())
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing to be done about a failure: the name marks it as rubbish.
            let _ = rustix::fs::unlinkat(&self.root.directory, &self.name, AtFlags::empty());
        }
    }
}

fn regular(opened: Result<OwnedFd, Errno>) -> io::Result<Option<File>> {
    let file = match opened {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(io::Error::other("it is a symbolic link")),
        Err(errno) => return Err(errno.into()),
    };
    if file.metadata()?.is_file() { Ok(Some(file)) } else { Err(io::Error::other("it is not a regular file")) }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path: path.clone(), source }
}

/// The entry for an image in `index.json`.
pub(crate) fn index_entry(image: &Image, encoded: &Encoded, name: Option<&EntryName>) -> Descriptor {
    let mut entry = encoded.manifest_descriptor.clone();
    entry.platform = Some(image.platform()).filter(|platform| !platform.os.is_empty());
    if let Some(name) = name {
        let names = [(REF_NAME, Some(&name.name)), (IMAGE_NAME, name.image_name.as_ref())];
        entry.annotations =
            Some(names.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.clone()))).collect());
    }
    entry
}

pub(crate) fn index_of(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests,
        annotations: None,
        extra: Default::default(),
    }
}

pub(crate) fn to_json(index: &Index) -> Vec<u8> {
    serde_json::to_vec(index).expect("maps with string keys and plain values always serialise")
}
