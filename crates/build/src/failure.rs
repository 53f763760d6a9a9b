//! A RUN that failed, while its rootfs is still there: to be looked into, written somewhere, or made an image.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::sync::Arc;

use oci::{ContainerConfig, Digest, Flavor, History, ImageConfig, Platform, RootFs};
use rootfs::Tree;
use rootfs::commit::CommitOptions;
use sandbox::{Exit, Mount, Process};
use store::{Exporter, Image, LayerCompression, Layout, StoreError};

use crate::assemble::{timestamp, write_files, write_tar};
use crate::{BuildError, FilesOutput, Request};

/// Told of the first RUN that fails, after the other stages have been told to stop.
pub trait OnFailure: Send + Sync {
    /// Does something about it. The build ends with the step's failure whatever comes of this; an error is a warning.
    fn failed(&self, failed: &Failed<'_>) -> Result<(), BuildError>;
}

/// A step that failed: its rootfs is as it left it, and mounts can be put there again.
#[derive(Clone, Copy)]
pub struct Failed<'a> {
    /// `[stage 2/3] RUN …`
    pub step: &'a str,
    /// How it ended.
    pub message: &'a str,
    /// The last lines of what it printed.
    pub output: &'a str,
    pub(crate) tree: &'a Tree,
    pub(crate) process: &'a Process,
    pub(crate) mounts: &'a [Mount],
    pub(crate) config: &'a ContainerConfig,
    pub(crate) platform: &'a Platform,
    pub(crate) request: &'a Request,
}

impl Failed<'_> {
    /// Writes the files of the rootfs, without what was mounted in it.
    pub fn write_files(&self, output: &FilesOutput) -> Result<(), BuildError> {
        write_files(self.tree, output, self.request, None)
    }

    /// Whether the step's environment has a variable.
    pub fn has_variable(&self, name: &str) -> bool {
        let begins =
            |entry: &OsString| entry.to_str().and_then(|entry| entry.split_once('=')).is_some_and(|(n, _)| n == name);
        self.process.env.iter().any(begins)
    }

    /// Runs `args` where the step ran, as it did: user, directory, environment (with `env` behind it), mounts, network; on
    /// `terminal`, a path of the host. Ends when the build is cancelled.
    pub fn run_on_terminal(&self, args: &[&str], env: Vec<OsString>, terminal: PathBuf) -> Result<Exit, BuildError> {
        let mut process = self.process.clone();
        process.args = args.iter().map(OsString::from).collect();
        process.env.extend(env);
        process.terminal = Some(terminal);
        let cancelled = || self.request.is_cancelled();
        let ran = self.request.backends.sandbox.run(self.tree, &process, self.mounts, &mut |_, _| {}, &cancelled);
        ran.map(|ended| ended.exit).map_err(|source| BuildError::Sandbox {
            action: "could not look into the step".to_owned(),
            place: None,
            source,
        })
    }

    /// Exports the rootfs as an image: all files in one layer, with the config of the stage so far.
    pub fn export(&self, exporter: &dyn Exporter) -> Result<Digest, BuildError> {
        let image = self.image()?;
        exporter.export(&image).map_err(failed(format!("could not export to {}", exporter.describe())))
    }

    fn image(&self) -> Result<Image, BuildError> {
        let request = self.request;
        let action = || "could not make an image of the failed step".to_owned();
        let spool = request.control.work.join("failed.tar");
        let mut writer = BufWriter::with_capacity(1 << 20, File::create(&spool).map_err(BuildError::io(action()))?);
        write_tar(self.tree, &CommitOptions::default(), &mut writer).map_err(|source| BuildError::Rootfs {
            action: action(),
            place: None,
            source,
        })?;
        let layout = Arc::new(Layout::create(&request.control.work.join("failed")).map_err(failed(action()))?);
        let compression = LayerCompression {
            kind: request.spec.compression,
            level: request.spec.compression_level,
            threads: request.control.jobs,
        };
        let mut tar = BufReader::with_capacity(1 << 20, File::open(&spool).map_err(BuildError::io(action()))?);
        let layer = layout.write_layer(&mut tar, compression, &|| request.is_cancelled()).map_err(failed(action()))?;
        let now = timestamp(request.spec.source_date_epoch);
        let history = History {
            created: Some(now.clone()),
            created_by: Some(format!("{} ({})", self.step, self.message)),
            ..History::default()
        };
        let config = ImageConfig {
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
            created: Some(now),
            config: self.config.clone(),
            rootfs: RootFs { diff_ids: vec![layer.diff_id.clone()], ..RootFs::default() },
            history: vec![history],
            ..ImageConfig::default()
        };
        let flavor = request.spec.flavor.unwrap_or(Flavor::Oci);
        Ok(Image { config, layers: vec![layer], flavor, annotations: Default::default(), digest: None })
    }
}

fn failed(action: String) -> impl FnOnce(StoreError) -> BuildError {
    move |source| BuildError::Store { action, place: None, source }
}
