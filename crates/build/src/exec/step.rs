//! One step: its events, the rootfs it works in, and the layer made of what it changed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rootfs::commit::{CommitOptions, Committed, Written, commit, commit_upper, snapshot};
use rootfs::{RootfsError, Tree};
use sandbox::SandboxError;
use store::Layer;

use super::Execution;
use super::stage_rootfs::{StageRootfs, StepRootfs};
use crate::layers::Handle;
use crate::plan::{Action, Node, NodeId, Step};
use crate::{BuildError, Event, StepId, StepOutcome};

/// What a step did.
enum Changes {
    /// Those of a layer that was known before.
    Known(Handle),
    /// A spooled layer of its own making.
    Layer(PathBuf),
    /// Changes in the tree, in these directories if anybody knows.
    InTree(Option<Written>),
}

impl Execution<'_> {
    /// Carries a step out, with its events. Leaves its layer, if the stage has layers.
    pub(super) fn step(&self, id: NodeId, node: &Node, step: &Step) -> Result<(), BuildError> {
        let begun = Instant::now();
        let stage = self.plan.stage(node.stage);
        let index = stage.steps.iter().position(|step| *step == id).unwrap_or_default();
        let (step_id, total) = (StepId { stage: node.stage.0, step: index }, stage.steps.len());
        let (name, title) = (&stage.name, &step.title);
        self.request.control.observer.event(&Event::StepStarted { id: step_id, stage: name, index, total, title });
        let rootfs = self.snapshot(id).rootfs.clone();
        let known = self.hits.get(id);
        let made = match (rootfs, known) {
            (Some(rootfs), known) => self.change(step_id, node, step, &rootfs, known),
            (None, Some(known)) => Ok(Some(self.known(node, known))),
            (None, None) => self.make_alone(node, step),
        };
        let made = if step.is_trigger { made.map_err(|error| error.of_trigger(title)) } else { made };
        let outcome = if known.is_some() && made.is_ok() { StepOutcome::Cached } else { self.outcome(&made) };
        self.request.control.observer.event(&Event::StepDone { id: step_id, elapsed: begun.elapsed(), outcome });
        self.snapshot(id).layer = made?;
        Ok(())
    }

    /// Whether a step that did not come to its end is to blame, or was stopped. What was stopped may say anything: a copy that
    /// it could not read, a terminal's Ctrl-C that the program got as well.
    fn outcome<T>(&self, result: &Result<T, BuildError>) -> StepOutcome {
        match result {
            Ok(_) => StepOutcome::Done,
            Err(_) if self.request.is_cancelled() => StepOutcome::Cancelled,
            Err(BuildError::Stopped | BuildError::Cancelled) => StepOutcome::Cancelled,
            // That one ended by itself, and may have stopped the others already.
            Err(BuildError::Run { .. } | BuildError::Sandbox { source: SandboxError::Start { .. }, .. }) => {
                StepOutcome::Failed
            }
            Err(_) if self.stopped() => StepOutcome::Cancelled,
            Err(_) => StepOutcome::Failed,
        }
    }

    /// The layer that is known of a step, fetched when somebody reads it.
    fn known(&self, node: &Node, layer: &Layer) -> Handle {
        if node.layered {
            self.layers.offer(std::slice::from_ref(layer));
        }
        Handle::Ready(Box::new(self.layers.base(layer)))
    }

    /// The layer of a step that knows nothing of what is below it.
    fn make_alone(&self, node: &Node, step: &Step) -> Result<Option<Handle>, BuildError> {
        let Action::Copy(copy) = &step.action else { unreachable!("only COPY --link needs no rootfs") };
        let spool = self.linked_layer(step, copy, None)?;
        Ok(node.layered.then(|| self.layers.submit(spool)))
    }

    fn change(
        &self,
        id: StepId,
        node: &Node,
        step: &Step,
        rootfs: &StageRootfs,
        known: Option<&Layer>,
    ) -> Result<Option<Handle>, BuildError> {
        let failed = |source| self.rootfs_error("could not prepare the rootfs for the step", step, source);
        let place = rootfs.begin().map_err(failed)?;
        if let (StepRootfs::Plain(tree), true) = (&place, node.layered) {
            self.record(step, rootfs, tree)?;
        }
        let changes = match known {
            Some(layer) => {
                self.unpack_layer(place.tree(), &step.title, &self.layers.base(layer))?;
                Changes::Known(self.known(node, layer))
            }
            None => self.act(id, node, step, place.tree())?,
        };
        if node.layered && known.is_none() {
            self.request.control.observer.event(&Event::StepCommitting { id });
        }
        match place {
            StepRootfs::Plain(tree) => self.commit_plain(node, step, rootfs, &tree, changes),
            StepRootfs::Overlay(mount) => {
                let failed = |source| self.rootfs_error("could not take over what the step wrote", step, source);
                let upper = rootfs.written(&mount).map_err(failed)?;
                let layer = match changes {
                    Changes::Known(known) => {
                        rootfs.take_over(*mount, &upper).map_err(failed)?;
                        return Ok(Some(known));
                    }
                    Changes::Layer(layer) => Some(layer),
                    Changes::InTree(_) if !node.layered => None,
                    Changes::InTree(_) => Some(self.spool(&self.no_layer(step), None, |options, writer| {
                        commit_upper(&upper, &mount.before, mount.marks(), options, writer)
                    })?),
                };
                rootfs.take_over(*mount, &upper).map_err(failed)?;
                Ok(layer.filter(|_| node.layered).map(|spool| self.layers.submit(spool)))
            }
        }
    }

    /// Does what the step says in `tree`.
    fn act(&self, id: StepId, node: &Node, step: &Step, tree: &Arc<Tree>) -> Result<Changes, BuildError> {
        match &step.action {
            Action::Run(run) => return self.run(id, node, step, run, tree).map(Changes::InTree),
            Action::Copy(copy) if copy.link => {
                return self.linked_layer(step, copy, Some(tree)).map(Changes::Layer);
            }
            Action::Workdir { path, user } => self.workdir(step, path, user, tree)?,
            Action::Copy(copy) => self.copy_plain(step, copy, tree)?,
        }
        Ok(Changes::InTree(None))
    }

    /// Notes what the tree is like before the first step whose changes a scan finds.
    fn record(&self, step: &Step, rootfs: &StageRootfs, tree: &Tree) -> Result<(), BuildError> {
        let mut slot = rootfs.snapshot();
        if slot.get().is_none() {
            let recorded = snapshot(tree, &self.new_file("record"));
            *slot.get() = Some(recorded.map_err(|e| self.rootfs_error("could not record the rootfs", step, e))?);
        }
        Ok(())
    }

    /// What changed in a stage's own directory since the last commit, as a layer on its way.
    fn commit_plain(
        &self,
        node: &Node,
        step: &Step,
        rootfs: &StageRootfs,
        tree: &Tree,
        changes: Changes,
    ) -> Result<Option<Handle>, BuildError> {
        if !node.layered {
            return Ok(None);
        }
        let layer = match changes {
            Changes::Known(known) => known,
            Changes::Layer(spool) => self.layers.submit(spool),
            Changes::InTree(written) => {
                let mut slot = rootfs.snapshot();
                let mut after = None;
                let spool = self.spool(&self.no_layer(step), written, |options, writer| {
                    let (state, committed) =
                        commit(tree, slot.get().as_ref(), &self.new_file("record"), options, writer)?;
                    after = Some(state);
                    Ok(committed)
                })?;
                *slot.get() = after;
                return Ok(Some(self.layers.submit(spool)));
            }
        };
        // What was unpacked is in no record.
        *rootfs.snapshot().get() = None;
        self.record(step, rootfs, tree)?;
        Ok(Some(layer))
    }

    /// Writes a layer to a new file.
    pub(super) fn spool(
        &self,
        failed: &dyn Fn(RootfsError) -> BuildError,
        written: Option<Written>,
        write: impl FnOnce(&CommitOptions, &mut dyn Write) -> Result<Committed, RootfsError>,
    ) -> Result<PathBuf, BuildError> {
        let spool = self.layers.spool();
        let broken = |source| failed(RootfsError::write(source));
        let file = self.stop.watch(File::create(&spool).map_err(broken)?);
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let clamp = self.request.spec.clamp_modified.then_some(self.plan.source_date_epoch).flatten();
        let options = CommitOptions {
            clamp_modified: clamp,
            ignore: self.request.spec.ignore_paths.clone(),
            set_modified: None,
            written,
        };
        write(&options, &mut writer).map_err(failed)?;
        writer.flush().map_err(broken)?;
        Ok(spool)
    }

    pub(super) fn no_layer<'s>(&'s self, step: &'s Step) -> impl Fn(RootfsError) -> BuildError + 's {
        move |source| self.rootfs_error("could not make a layer of the changes", step, source)
    }
}
