//! Exporters to local media: an OCI layout, an archive of one, Docker's archive.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci::media_type::layer_compression;
use oci::{Compression, Descriptor, Digest, Flavor, Index, Reference};

use crate::image::Encoded;
use crate::layout::{LAYOUT_FILE, index_entry, index_of, io_error, to_json};
use crate::tar::TarWriter;
use crate::{EntryName, Exporter, Image, Layer, Layout, StoreError};

/// Adds images to an OCI layout directory, which is made when it is not there.
///
/// The media types stay those of the image, so that the digest is the one that a registry gets (kaniko `--oci-layout-path`,
/// which Tekton reads the digest from). skopeo and others find only OCI media types in a layout: see
/// [`LayoutExporter::with_oci_types`].
pub struct LayoutExporter {
    path: PathBuf,
    names: Vec<EntryName>,
    oci_types: bool,
}

impl LayoutExporter {
    /// The image gets an entry for each of `names`, or one without a name.
    pub fn new(path: &Path, names: Vec<EntryName>) -> LayoutExporter {
        LayoutExporter { path: path.to_owned(), names, oci_types: false }
    }

    /// Writes every image with OCI media types, as BuildKit's `type=oci` does.
    pub fn with_oci_types(self) -> LayoutExporter {
        LayoutExporter { oci_types: true, ..self }
    }
}

impl Exporter for LayoutExporter {
    fn prepare(&self, _: &Layer) -> Result<(), StoreError> {
        Ok(())
    }

    fn export(&self, image: &Image) -> Result<Digest, StoreError> {
        let layout = Layout::create(&self.path)?;
        let image = if self.oci_types { image.with_flavor(Flavor::Oci) } else { image.clone() };
        let mut manifest = layout.add(&image, self.names.first())?;
        for name in self.names.iter().skip(1) {
            manifest = layout.add(&image, Some(name))?;
        }
        Ok(manifest.digest)
    }

    fn describe(&self) -> String {
        format!("OCI layout `{}`", self.path.display())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArchiveFormat {
    /// A tar of an OCI image layout, always with OCI media types.
    Oci,
    /// What `docker save` wrote before it wrote layouts, and `docker load` and kaniko's `--tar-path` know: `manifest.json`,
    /// `<hex>.json`, `<hex>.tar.gz`.
    Docker,
}

/// Where an archive goes.
pub enum Destination {
    /// Written under another name and renamed at the end; written directly where it is a pipe or device.
    File(PathBuf),
    /// Such as standard output. It is written once: a second export is an error.
    Writer(Mutex<Option<Box<dyn Write + Send>>>),
}

impl Destination {
    pub fn writer(writer: Box<dyn Write + Send>) -> Destination {
        Destination::Writer(Mutex::new(Some(writer)))
    }
}

/// Writes one image as a tar. The same image gives the same bytes.
pub struct ArchiveExporter {
    format: ArchiveFormat,
    destination: Destination,
    names: Vec<Reference>,
}

impl ArchiveExporter {
    pub fn new(format: ArchiveFormat, destination: Destination, names: Vec<Reference>) -> ArchiveExporter {
        ArchiveExporter { format, destination, names }
    }

    fn write(&self, image: &Image, encoded: &Encoded, out: &mut dyn Write) -> Result<(), StoreError> {
        let mut tar = TarWriter::new(BufWriter::with_capacity(256 * 1024, out));
        let written = match self.format {
            ArchiveFormat::Oci => write_oci(image, encoded, &self.names, &mut tar),
            ArchiveFormat::Docker => write_docker(image, encoded, &self.names, &mut tar),
        };
        written.and_then(|()| tar.finish().map(drop)).map_err(|error| match error.downcast::<StoreError>() {
            Ok(reading) => reading,
            Err(writing) => self.write_error(writing),
        })
    }

    fn write_error(&self, source: io::Error) -> StoreError {
        let path = match &self.destination {
            Destination::File(path) => path.clone(),
            Destination::Writer(_) => PathBuf::from("-"),
        };
        StoreError::Io { action: "write the archive", path, source }
    }
}

impl Exporter for ArchiveExporter {
    fn prepare(&self, _: &Layer) -> Result<(), StoreError> {
        Ok(())
    }

    fn export(&self, image: &Image) -> Result<Digest, StoreError> {
        let image = &match self.format {
            ArchiveFormat::Oci => image.with_flavor(Flavor::Oci),
            ArchiveFormat::Docker => image.clone(),
        };
        let encoded = image.encode();
        match &self.destination {
            Destination::Writer(writer) => {
                let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
                let mut writer = writer.ok_or_else(|| StoreError::Invalid {
                    what: self.describe(),
                    reason: "it was written already".to_owned(),
                })?;
                self.write(image, &encoded, &mut writer)?;
            }
            Destination::File(path) => write_whole(path, |file| self.write(image, &encoded, file), |error| error)?,
        }
        Ok(encoded.manifest_descriptor.digest)
    }

    fn describe(&self) -> String {
        let format = match self.format {
            ArchiveFormat::Oci => "OCI archive",
            ArchiveFormat::Docker => "Docker archive",
        };
        match &self.destination {
            Destination::File(path) => format!("{format} `{}`", path.display()),
            Destination::Writer(_) => format!("{format} on standard output"),
        }
    }
}

fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// Writes a file that is under its name only when it is whole: beside `path`, renamed at the end; a pipe or a device directly.
///
/// # Errors
/// That of `write`, and [`StoreError::Io`] for the file; what was written is removed.
pub fn write_whole<E>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
    failed: impl Fn(StoreError) -> E,
) -> Result<(), E> {
    if is_special(path) {
        let opened = File::options().write(true).open(path).map_err(io_error("open", path));
        return write(&mut opened.map_err(failed)?);
    }
    let (partial, mut file) = begin_beside(path).map_err(&failed)?;
    let renamed = || std::fs::rename(&partial, path).map_err(io_error("rename the finished archive to", path));
    let written = write(&mut file).and_then(|()| renamed().map_err(failed));
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

fn begin_beside(path: &Path) -> Result<(PathBuf, File), StoreError> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or_else(|| StoreError::Invalid {
        what: format!("archive `{}`", path.display()),
        reason: "it is no file name".to_owned(),
    })?);
    name.push(format!(".partial-{}", std::process::id()));
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(io_error("create the directory", parent))?;
    }
    let partial = parent.unwrap_or(Path::new(".")).join(name);
    let file = File::create(&partial).map_err(io_error("create", &partial))?;
    Ok((partial, file))
}

type Tar<'a> = TarWriter<BufWriter<&'a mut dyn Write>>;

/// Blobs in the order of their names, then the files that name them, as containerd writes archives.
fn write_oci(image: &Image, encoded: &Encoded, names: &[Reference], tar: &mut Tar<'_>) -> io::Result<()> {
    let name_of = |blob: &Descriptor| format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex());
    let mut blobs: Vec<(String, Blob)> = vec![
        (name_of(&encoded.config_descriptor), Blob::Bytes(&encoded.config)),
        (name_of(&encoded.manifest_descriptor), Blob::Bytes(&encoded.manifest)),
    ];
    blobs.extend(image.layers.iter().map(|layer| (name_of(&layer.descriptor), Blob::Layer(layer))));
    blobs.sort_by(|a, b| a.0.cmp(&b.0));
    blobs.dedup_by(|a, b| a.0 == b.0);
    tar.directory("blobs/")?;
    let algorithms: BTreeSet<&str> = blobs.iter().filter_map(|(name, _)| Some(name.rsplit_once('/')?.0)).collect();
    for algorithm in algorithms {
        tar.directory(&format!("{algorithm}/"))?;
    }
    for (name, blob) in &blobs {
        blob.write(name, tar)?;
    }
    tar.bytes("index.json", &to_json(&index(image, encoded, names)))?;
    tar.bytes("oci-layout", LAYOUT_FILE)
}

fn index(image: &Image, encoded: &Encoded, names: &[Reference]) -> Index {
    let named = |name| index_entry(image, encoded, Some(&EntryName::of(name)));
    match names {
        [] => index_of(vec![index_entry(image, encoded, None)]),
        names => index_of(names.iter().map(named).collect()),
    }
}

/// `manifest.json` comes last, when all that it names is there.
fn write_docker(image: &Image, encoded: &Encoded, names: &[Reference], tar: &mut Tar<'_>) -> io::Result<()> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        repo_tags: Vec<String>,
        layers: Vec<String>,
    }
    let config = format!("{}.json", encoded.config_descriptor.digest.hex());
    tar.bytes(&config, &encoded.config)?;
    let layers: Vec<String> = image.layers.iter().map(docker_layer_name).collect();
    let mut written = BTreeSet::new();
    for (name, layer) in std::iter::zip(&layers, &image.layers) {
        if written.insert(name) {
            Blob::Layer(layer).write(name, tar)?;
        }
    }
    let repo_tags = names.iter().map(|name| Reference { digest: None, ..name.clone() }.familiar()).collect();
    let manifest = serde_json::to_vec(&[Entry { config, repo_tags, layers }])
        .expect("maps with string keys and plain values always serialise");
    tar.bytes("manifest.json", &manifest)
}

fn docker_layer_name(layer: &Layer) -> String {
    let suffix = match layer_compression(&layer.descriptor.media_type) {
        Some(Compression::Gzip) => "tar.gz",
        Some(Compression::Zstd) => "tar.zst",
        Some(Compression::None) | None => "tar",
    };
    format!("{}.{suffix}", layer.descriptor.digest.hex())
}

enum Blob<'a> {
    Bytes(&'a [u8]),
    Layer(&'a Layer),
}

impl Blob<'_> {
    fn write(&self, name: &str, tar: &mut Tar<'_>) -> io::Result<()> {
        match self {
            Blob::Bytes(bytes) => tar.bytes(name, bytes),
            Blob::Layer(layer) => {
                let mut content = layer.open().map_err(StoreError::into_read)?;
                tar.file(name, layer.descriptor.size, &mut *content)
            }
        }
    }
}
