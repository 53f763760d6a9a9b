//! Layers and config to an image, and the image to its destinations.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use oci::{Flavor, History};
use rootfs::commit::{CommitOptions, clone_tree_with, write_tree};
use rootfs::{RootfsError, Tree};
use store::Image;

use crate::exec::Snapshots;
use crate::layers::Handle;
use crate::plan::{NodeKind, Plan, Stage};
use crate::scratch::Scratch;
use crate::{BuildError, Built, Event, FilesOutput, Output, Request};

/// The finished image. Waits for layers that are still being compressed.
pub fn assemble(plan: &Plan, request: &Request, layers: &[Handle]) -> Result<Image, BuildError> {
    let target = plan.stage(plan.target);
    let layers = layers.iter().map(Handle::wait).collect::<Result<Vec<_>, _>>()?;
    let mut config = target.config.clone();
    let now = timestamp(plan.source_date_epoch);
    config.rootfs.diff_ids = layers.iter().map(|l| l.diff_id.clone()).collect();
    config.created = Some(now.clone());
    for entry in &mut config.history[own_history(plan, target)..] {
        entry.created = Some(now.clone());
    }
    drop_surplus_history(&mut config.history, layers.len());
    let flavor = request.spec.flavor.unwrap_or_else(|| base_flavor(plan, target));
    Ok(Image { config, layers, flavor, annotations: request.spec.annotations.clone(), digest: None })
}

/// Writes the image to every destination, and the files where they were asked for.
pub fn export(image: Image, plan: &Plan, request: &Request, snapshots: &Snapshots<'_>) -> Result<Built, BuildError> {
    for output in &request.outputs {
        let Output::Files(files) = output else { continue };
        exporting(request, &files.describe(), || {
            write_files(&snapshots.target_tree(), files, request, plan.source_date_epoch)
        })?;
    }
    let mut digests = Vec::new();
    for exporter in request.exporters() {
        let to = exporter.describe();
        let export = || exporter.export(&image);
        digests.push(exporting(request, &to, export).map_err(|source| BuildError::Store {
            action: format!("could not export to {to}"),
            place: None,
            source,
        })?);
    }
    let encoded = image.encode();
    Ok(Built {
        digest: digests.first().cloned().unwrap_or(encoded.manifest_descriptor.digest),
        digests,
        image_id: encoded.config_descriptor.digest,
        image,
    })
}

/// Says when `export` begins, and when it has done its work.
fn exporting<T, E>(request: &Request, to: &str, export: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    request.control.observer.event(&Event::Exporting { to });
    let exported = export()?;
    request.control.observer.event(&Event::Exported { to, elapsed: begun.elapsed() });
    Ok(exported)
}

/// Writes the files of a rootfs; with `epoch` all have that time.
pub fn write_files(tree: &Tree, output: &FilesOutput, request: &Request, epoch: Option<i64>) -> Result<(), BuildError> {
    // BuildKit's exporters of files give every file this time (`exporter/local/fs.go`), and leave none as it is.
    let options = CommitOptions { set_modified: epoch, ..CommitOptions::default() };
    let failed = |action: String| move |source| BuildError::rootfs(action, source);
    match output {
        FilesOutput::Directory(path) => {
            let action = format!("could not write files to `{}`", path.display());
            // Owners that this process may not give are left out: the files are then the user's own.
            let own = Scratch::make(request, "output").map_err(BuildError::io(action.clone()))?;
            let table = own.path().join("metadata");
            let open = if path.is_dir() { Tree::open } else { Tree::create };
            let to = open(path, Some(&table));
            let to = to.map_err(failed(action.clone()))?.stopping(&request.stop());
            clone_tree_with(tree, &to, &options).map_err(failed(action))
        }
        FilesOutput::Tar(writer) => {
            let mut writer = writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            write_tar(tree, &options, &mut **writer).map_err(failed("could not write the files as a tar".to_owned()))
        }
        FilesOutput::TarFile(path) => {
            let action = format!("could not write files to `{}`", path.display());
            let write = |file: &mut File| {
                let mut writer = BufWriter::with_capacity(1 << 20, file);
                write_tar(tree, &options, &mut writer).map_err(failed(action.clone()))
            };
            store::write_whole(path, write, |source| BuildError::Store { action: action.clone(), place: None, source })
        }
    }
}

pub fn write_tar(tree: &Tree, options: &CommitOptions, writer: &mut dyn Write) -> Result<(), RootfsError> {
    write_tree(tree, options, writer)?;
    writer.flush().map_err(RootfsError::Write)
}

/// Media types of the base image, as kaniko does; OCI's on nothing.
fn base_flavor(plan: &Plan, stage: &Stage) -> Flavor {
    let base = plan.path_to(stage.base).into_iter().next();
    match base.map(|id| &plan.node(id).kind) {
        Some(NodeKind::Image(base)) => base.image.flavor,
        _ => Flavor::Oci,
    }
}

/// Where the history of this build begins: behind that of the image at the bottom.
fn own_history(plan: &Plan, stage: &Stage) -> usize {
    match stage.parent {
        Some(parent) => own_history(plan, plan.stage(parent)),
        None => stage.base_history,
    }
}

/// A base whose history names more layers than it has (or none at all) keeps its history but for what would be a lie:
/// non-empty entries must be as many as layers (Docker refuses the image otherwise).
fn drop_surplus_history(history: &mut Vec<History>, layers: usize) {
    let mut named = history.iter().filter(|h| !h.empty_layer).count();
    if named < layers {
        let missing = (named..layers).map(|_| History::default());
        history.splice(0..0, missing);
        return;
    }
    history.retain(|entry| {
        let surplus = named > layers && !entry.empty_layer && entry.comment.is_none();
        named -= usize::from(surplus);
        !surplus
    });
}

/// RFC 3339 in UTC, seconds of the epoch where it is given.
pub fn timestamp(epoch: Option<i64>) -> String {
    match epoch.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(fixed) => fixed.to_string(),
        None => jiff::Timestamp::now().to_string(),
    }
}
