//! What a build is asked for: flags became these values once, in `cli`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use auth::Secret;
use context::Context;
use dockerfile::Dockerfile;
use net::Net;
use oci::media_type::Compression;
use oci::{Flavor, Platform, Reference};
use rootfs::{RootfsError, Stop, Tree};
use sandbox::{Sandbox, Server};
use store::{Exporter, ImageSource};

use crate::{Cache, Observer, OnFailure};

/// Everything one build needs.
pub struct Request {
    pub spec: Specification,
    pub backends: Backends,
    /// Where the result goes, any number of places; the digest of the first image is the build's.
    pub outputs: Vec<Output>,
    pub control: Control,
}

/// What is to be built: data alone.
pub struct Specification {
    pub dockerfile: Dockerfile,
    /// How the Dockerfile is called in messages.
    pub dockerfile_name: String,
    /// `--target`, none for the last stage: a name, in whatever case, or `#N` for a stage's number.
    pub target: Option<String>,
    /// More targets: built as well, and written nowhere.
    pub more_targets: Vec<String>,
    /// The platform asked for, none for the host's.
    pub platform: Option<Platform>,
    pub build_args: BTreeMap<String, String>,
    pub labels: Labels,
    /// Manifest annotations.
    pub annotations: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, Secret<Vec<u8>>>,
    /// None: the base image's.
    pub flavor: Option<Flavor>,
    pub compression: Compression,
    /// None: the default of the compression.
    pub compression_level: Option<u32>,
    /// Unix seconds; from the build argument or variable `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: Option<i64>,
    /// Where neither that nor an ARG of the Dockerfile says one.
    pub default_epoch: Option<i64>,
    /// Later modification times in layers become the `SOURCE_DATE_EPOCH` (kaniko `--reproducible`, `rewrite-timestamp`).
    pub clamp_modified: bool,
    /// Left out of layers (kaniko `--ignore-path`), relative to the rootfs.
    pub ignore_paths: Vec<PathBuf>,
    pub extra_hosts: Vec<(String, String)>,
    /// What RUN steps have that say nothing of it.
    pub network: dockerfile::Network,
    /// Size of /dev/shm in RUN steps; none for what the back-end gives.
    pub shm_bytes: Option<u64>,
    /// Upper bound of what one layer may unpack to, in bytes.
    pub layer_limit_bytes: u64,
}

/// What it is built with.
pub struct Backends {
    pub context: Context,
    /// `--build-context`, by name as given.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Where `FROM` images come from.
    pub images: Arc<dyn ImageSource>,
    /// Fetches what `ADD` names by address.
    pub net: Net,
    pub sandbox: Arc<dyn Sandbox>,
    /// SSH agents for `RUN --mount=type=ssh`, by id.
    pub agents: BTreeMap<String, Server>,
    /// Knows what steps have made before.
    pub cache: Arc<dyn Cache>,
    pub cache_mounts: CacheRoot,
    /// What is done about a RUN that failed before the build ends.
    pub on_failure: Option<Arc<dyn OnFailure>>,
}

/// How the build goes on, and who is told of it.
pub struct Control {
    /// A directory of this build alone; removed by whoever made it.
    pub work: PathBuf,
    /// How many processors work on files, and compress layers.
    pub jobs: usize,
    /// How many processes of steps may run at a time.
    pub processes: usize,
    pub cancelled: Arc<AtomicBool>,
    pub observer: Arc<dyn Observer>,
}

/// A place where the result goes.
pub enum Output {
    Image(Arc<dyn Exporter>),
    /// The target's files as they are.
    Files(FilesOutput),
}

pub type Labels = Vec<(String, String)>;

/// Where `RUN --mount=type=cache` lives between builds.
#[derive(Clone, Debug)]
pub struct CacheRoot {
    pub path: PathBuf,
    /// `BUILDKIT_CACHE_MOUNT_NS`; part of every id.
    pub namespace: String,
    /// The caches that steps have at this moment, by their directories.
    in_use: Arc<Mutex<HashMap<PathBuf, Weak<Tree>>>>,
}

impl CacheRoot {
    pub fn new(path: PathBuf, namespace: String) -> CacheRoot {
        CacheRoot { path, namespace, in_use: Arc::default() }
    }

    /// The tree that steps of this build have of a cache, opened by the first of them.
    ///
    /// # Errors
    /// Those of `open`.
    pub(crate) fn open(
        &self,
        cache: &Path,
        open: impl FnOnce() -> Result<Tree, RootfsError>,
    ) -> Result<Arc<Tree>, RootfsError> {
        // A panic elsewhere leaves it as it was: each change is one call.
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = in_use.get(cache).and_then(Weak::upgrade) {
            return Ok(tree);
        }
        in_use.retain(|_, tree| tree.strong_count() > 0);
        let tree = Arc::new(open()?);
        in_use.insert(cache.to_owned(), Arc::downgrade(&tree));
        Ok(tree)
    }

    /// A cache was made anew: whoever has the one before keeps it.
    pub(crate) fn forget(&self, cache: &Path) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(cache);
    }
}

pub enum NamedContext {
    Directory(Context),
    Image { source: Arc<dyn ImageSource>, reference: Reference },
}

/// `--output type=local` and `type=tar`.
pub enum FilesOutput {
    Directory(PathBuf),
    /// Such as standard output.
    Tar(Mutex<Box<dyn Write + Send>>),
    /// There when it is whole.
    TarFile(PathBuf),
}

impl FilesOutput {
    /// For messages.
    pub fn describe(&self) -> String {
        match self {
            FilesOutput::Directory(path) => format!("directory {}", path.display()),
            FilesOutput::Tar(_) => "a tar on standard output".to_owned(),
            FilesOutput::TarFile(path) => format!("tar {}", path.display()),
        }
    }
}

impl Request {
    /// The secrets that are logins for repositories; they need no `RUN --mount` to be used (BuildKit `source/git`).
    pub(crate) fn git_auth(&self) -> git::Auth {
        let named = self.spec.secrets.iter().filter(|(name, _)| name.starts_with("GIT_AUTH_"));
        let secrets = named.map(|(name, secret)| (name.clone(), secret.clone())).collect();
        git::Auth { secrets, user: None }
    }

    /// Those who write the image.
    pub(crate) fn exporters(&self) -> impl Iterator<Item = &Arc<dyn Exporter>> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Image(exporter) => Some(exporter),
            Output::Files(_) => None,
        })
    }

    /// Whether the target's files are written somewhere.
    pub(crate) fn writes_files(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Files(_)))
    }

    /// Ends long work on files when the build is cancelled.
    pub(crate) fn stop(&self) -> Stop {
        Stop::when(&[&self.control.cancelled])
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.control.cancelled.load(std::sync::atomic::Ordering::Relaxed)
    }
}
