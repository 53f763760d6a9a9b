//! The rootfs of a base: an image's layers unpacked, a directory copied, or nothing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rootfs::commit::{CommitOptions, commit};
use rootfs::copy::CopyError;
use rootfs::unpack::{Limits, unpack};
use rootfs::{RootfsError, Tree};
use store::Layer;

use super::{Execution, copy_options, makes_layer};
use crate::BuildError;
use crate::event::Preparing;
use crate::layers::Handle;
use crate::plan::{BaseImage, Node, NodeId, NodeKind};
use crate::request::NamedContext;

/// More files than any image has; names of directories cost memory while a layer is unpacked.
const LAYER_ENTRIES: u64 = 10_000_000;

/// How many layers of a base are fetched while the ones before them are unpacked.
const PREFETCHERS: usize = 3;

impl Execution<'_> {
    /// Makes the rootfs of a base, and the layer of one that has none yet.
    pub(super) fn base(&self, id: NodeId, node: &Node) -> Result<(), BuildError> {
        let directory = self.directory(id);
        let rootfs = match &node.kind {
            NodeKind::Image(base) => self.preparing(node, Preparing::Unpack, || {
                let rootfs = self.new_rootfs(&directory, node.layered)?;
                self.unpack_image(&rootfs.tree(), base)?;
                Ok(rootfs)
            })?,
            NodeKind::Directory(name) => self.preparing(node, Preparing::Copy, || {
                let rootfs = self.new_rootfs(&directory, node.layered)?;
                self.copy_directory(&rootfs.tree(), name)?;
                Ok(rootfs)
            })?,
            NodeKind::Scratch | NodeKind::Step { .. } => self.new_rootfs(&directory, node.layered)?,
        };
        let layer = match &node.kind {
            NodeKind::Directory(name) if makes_layer(node) => Some(self.directory_layer(name, &rootfs.tree())?),
            _ => None,
        };
        let mut snapshot = self.snapshot(id);
        (snapshot.layer, snapshot.rootfs) = (layer, Some(Arc::new(rootfs)));
        Ok(())
    }

    fn copy_directory(&self, tree: &Tree, name: &str) -> Result<(), BuildError> {
        let NamedContext::Directory(context) = &self.request.backends.contexts[name] else { return Ok(()) };
        let options = copy_options(None, false);
        rootfs::copy::copy(&context.tree, &context.ignore, &["/".to_owned()], tree, "/", &options).map(|_| ()).map_err(
            |e| match e {
                CopyError::Rootfs(source) => {
                    BuildError::rootfs(format!("could not copy the named context `{name}`"), source)
                }
                e => BuildError::Request { message: format!("named context `{name}`: {e}"), hint: None },
            },
        )
    }

    /// The files of a directory context that an image stands on, as a layer.
    fn directory_layer(&self, name: &str, tree: &Tree) -> Result<Handle, BuildError> {
        let write = |options: &CommitOptions, writer: &mut dyn Write| {
            commit(tree, None, &self.new_file("record"), options, writer).map(|(_, committed)| committed)
        };
        let failed =
            |source| BuildError::rootfs(format!("could not make a layer of the named context `{name}`"), source);
        self.spool(&failed, None, write).map(|spool| self.layers.submit(spool))
    }

    /// Unpacks the layers in order; the next ones are fetched meanwhile.
    fn unpack_image(&self, tree: &Tree, base: &BaseImage) -> Result<(), BuildError> {
        let layers: Vec<Layer> = base.image.layers.iter().map(|layer| self.layers.base(layer)).collect();
        let next = AtomicUsize::new(1);
        std::thread::scope(|scope| {
            for _ in 0..PREFETCHERS.min(layers.len().saturating_sub(1)) {
                let prefetch = || {
                    while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !self.stopped())
                    {
                        // A failure shows again when the layer is unpacked.
                        drop(layer.content.open(&layer.descriptor));
                    }
                };
                if spawn::scoped_now(scope, "prefetch", prefetch).is_err() {
                    break;
                }
            }
            layers.iter().try_for_each(|layer| self.unpack_layer(tree, &base.reference, layer))
        })
    }

    pub(super) fn unpack_layer(&self, tree: &Tree, reference: &str, layer: &Layer) -> Result<(), BuildError> {
        if self.stopped() {
            return Err(BuildError::Stopped);
        }
        let limits = Limits { size_bytes: self.request.spec.layer_limit_bytes, entries: LAYER_ENTRIES };
        let action = format!("could not unpack layer {} of `{reference}`", layer.descriptor.digest.short());
        let tar =
            layer.uncompressed().map_err(|source| BuildError::Store { action: action.clone(), place: None, source })?;
        let mut tar = self.stop.watch(tar);
        // The end of the stream is where digest and diff ID are checked.
        unpack(&mut tar, tree, &limits)
            .and_then(|_| io::copy(&mut tar, &mut io::sink()).map_err(RootfsError::read))
            .map_err(|source| BuildError::rootfs(action, source))?;
        Ok(())
    }
}
