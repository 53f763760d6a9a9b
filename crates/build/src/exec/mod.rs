//! The plan's nodes carried out, each as soon as what it needs is there.
//!
//! A node has two goals for the scheduler: its rootfs is *prepared* (the one that a step works in), and it is *done* (a base is
//! unpacked, a step is over). What nobody demands never happens: a base that nobody looks into is not unpacked, and not
//! downloaded. A rootfs has users; the last of them has it for itself, and it goes with them.

mod base;
mod copy;
mod run;
mod source;
mod stage_rootfs;
mod step;
mod tail;
mod workdir;

pub use copy::{copy_error, copy_options};
pub use source::SourceTree;
pub use tail::Tail;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rootfs::{RootfsError, Stop, Tree};

use crate::Hits;
use crate::event::Preparing;
use crate::layers::{Handle, Pool};
use crate::plan::{Action, Node, NodeId, NodeKind, Plan, StageId, Step};
use crate::schedule::{self, Goals, Resource, Room};
use crate::{BuildError, Event, Place, Request};
use stage_rootfs::StageRootfs;

/// What the nodes of a plan left behind.
pub struct Snapshots<'a> {
    plan: &'a Plan,
    nodes: Vec<Snapshot>,
}

/// Of one node.
#[derive(Default)]
struct Snapshot {
    /// The node's own layer; a base image has others.
    layer: Option<Handle>,
    /// The files as the node leaves them, or as its step will find them; none where nobody needs them any more.
    rootfs: Option<Arc<StageRootfs>>,
    /// Goals that need the files and are not reached yet.
    users: usize,
}

impl Snapshots<'_> {
    /// The layers that a stage ends with, bottom first.
    pub fn layers(&self, stage: StageId, layers: &Pool) -> Vec<Handle> {
        let mut all = Vec::new();
        for id in self.plan.path_to(self.plan.last(stage)) {
            if let NodeKind::Image(base) = &self.plan.node(id).kind {
                all.extend(base.image.layers.iter().map(|layer| Handle::Ready(Box::new(layers.base(layer)))));
            }
            all.extend(self.nodes[id.0].layer.clone());
        }
        all
    }

    /// The files that the target ends with, where a file output asked for them.
    pub fn target_tree(&self) -> Arc<Tree> {
        let last = &self.nodes[self.plan.last(self.plan.target).0];
        #[expect(clippy::expect_used, reason = "whoever writes files has demanded them")]
        last.rootfs.as_ref().expect("the target has files").tree()
    }
}

/// Carries out what the targets of `plan` need.
///
/// # Errors
/// The first failure; everything else is stopped then.
pub fn execute<'a>(
    plan: &'a Plan,
    hits: &'a Hits,
    request: &'a Request,
    layers: &'a Pool,
) -> Result<Snapshots<'a>, BuildError> {
    let execution = Execution::new(plan, hits, request, layers);
    layers.offer(execution.base_of_result());
    let is_done = schedule::run(&execution, &execution.wanted(), room(request));
    let error = execution.error.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (is_done, error) {
        _ if request.is_cancelled() => Err(BuildError::Cancelled),
        (_, Some(error)) => Err(error),
        (true, None) => Ok(Snapshots { plan, nodes: execution.nodes.into_iter().map(into_inner).collect() }),
        (false, None) => unreachable!("who stops a build says why"),
    }
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A back-end that runs one process at a time has room for nothing beside it: nobody may touch files while it does.
fn room(request: &Request) -> Room {
    let (processors, processes) = (request.control.jobs.max(1), request.control.processes.max(1));
    let altogether = if request.backends.sandbox.parallel() { processors + processes } else { 1 };
    Room { processors, processes, altogether }
}

struct Execution<'a> {
    plan: &'a Plan,
    hits: &'a Hits,
    request: &'a Request,
    layers: &'a Pool,
    nodes: Vec<Mutex<Snapshot>>,
    /// By node: whether somebody looks into its files.
    is_looked_into: Vec<bool>,
    error: Mutex<Option<BuildError>>,
    failed: Arc<AtomicBool>,
    /// Ends work on files: a node has failed, or the build is cancelled.
    stop: Stop,
    next_file: AtomicU64,
}

/// What is to be reached of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    /// The rootfs that a step works in is there.
    Prepared(NodeId),
    /// The node's layer and files are there, as far as anybody needs them.
    Done(NodeId),
}

impl Goal {
    fn number(self) -> usize {
        match self {
            Goal::Prepared(id) => 2 * id.0,
            Goal::Done(id) => 2 * id.0 + 1,
        }
    }

    fn of(number: usize) -> Goal {
        let id = NodeId(number / 2);
        if number.is_multiple_of(2) { Goal::Prepared(id) } else { Goal::Done(id) }
    }

    fn node(self) -> NodeId {
        match self {
            Goal::Prepared(id) | Goal::Done(id) => id,
        }
    }
}

impl Goals for Execution<'_> {
    fn count(&self) -> usize {
        2 * self.plan.nodes.len()
    }

    fn demanded(&self, goal: usize) -> Vec<usize> {
        let goal = Goal::of(goal);
        let users_of = self.needed_files(goal);
        users_of.iter().for_each(|id| self.snapshot(*id).users += 1);
        let mut needs: Vec<usize> = users_of.into_iter().map(|id| Goal::Done(id).number()).collect();
        if let Goal::Done(id) = goal
            && self.plan.node(id).step().is_some()
            && !self.stands_alone(id)
        {
            needs.push(Goal::Prepared(id).number());
        }
        needs
    }

    fn resource(&self, goal: usize) -> Resource {
        let goal = Goal::of(goal);
        let action = self.plan.node(goal.node()).step().map(|step| &step.action);
        match (goal, action) {
            (Goal::Done(_), Some(Action::Run(_))) => Resource::Process,
            _ => Resource::Processor,
        }
    }

    fn reach(&self, goal: usize) -> ControlFlow<()> {
        let goal = Goal::of(goal);
        let done = match goal {
            Goal::Prepared(id) => self.prepare(id),
            Goal::Done(id) => self.carry_out(id),
        };
        self.needed_files(goal).into_iter().for_each(|id| self.release(id));
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.fail(error);
                ControlFlow::Break(())
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }
}

impl<'a> Execution<'a> {
    fn new(plan: &'a Plan, hits: &'a Hits, request: &'a Request, layers: &'a Pool) -> Execution<'a> {
        let failed = Arc::new(AtomicBool::new(false));
        let execution = Execution {
            plan,
            hits,
            request,
            layers,
            nodes: plan.nodes.iter().map(|_| Mutex::default()).collect(),
            is_looked_into: looked_into(plan, hits, request),
            error: Mutex::default(),
            stop: Stop::when(&[&failed, &request.control.cancelled]),
            failed,
            next_file: AtomicU64::new(0),
        };
        if request.writes_files() {
            // Whoever writes the files comes when all goals are reached.
            execution.snapshot(plan.last(plan.target)).users += 1;
        }
        execution
    }

    /// What the build is for: all on the way to its targets, since one that stands alone demands nothing of those below it.
    fn wanted(&self) -> Vec<usize> {
        let nodes = way_to_targets(self.plan);
        let is_work = |id: &NodeId| {
            let node = self.plan.node(*id);
            node.step().is_some() || makes_layer(node) || self.is_looked_into[id.0]
        };
        nodes.filter(is_work).map(|id| Goal::Done(id).number()).collect()
    }

    /// Layers of a base image that the result begins with.
    fn base_of_result(&self) -> &'a [store::Layer] {
        let first = self.plan.path_to(self.plan.last(self.plan.target)).into_iter().next();
        match first.map(|id| &self.plan.node(id).kind) {
            Some(NodeKind::Image(base)) => &base.image.layers,
            _ => &[],
        }
    }

    fn snapshot(&self, id: NodeId) -> MutexGuard<'_, Snapshot> {
        self.nodes[id.0].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes whose files a goal takes, one for each time that it does.
    fn needed_files(&self, goal: Goal) -> Vec<NodeId> {
        match goal {
            Goal::Prepared(id) => self.plan.node(id).parent().into_iter().collect(),
            Goal::Done(id) if self.hits.get(id).is_some() => Vec::new(),
            Goal::Done(id) => {
                let sources = self.plan.node(id).step().map(|step| step.action.sources()).unwrap_or_default();
                sources.into_iter().map(|stage| self.plan.last(stage)).collect()
            }
        }
    }

    /// Whether a node has its layer without what is below it, and nobody needs more.
    fn stands_alone(&self, id: NodeId) -> bool {
        let is_known = self.hits.get(id).is_some();
        (is_known || self.plan.node(id).step().is_some_and(is_independent)) && !self.is_looked_into[id.0]
    }

    /// A goal does not need the files of a node any more.
    fn release(&self, id: NodeId) {
        let mut snapshot = self.snapshot(id);
        snapshot.users -= 1;
        let gone = if snapshot.users == 0 { snapshot.rootfs.take() } else { None };
        drop(snapshot);
        drop(gone);
    }

    fn fail(&self, error: BuildError) {
        self.failed.store(true, Ordering::Relaxed);
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() && !matches!(error, BuildError::Stopped) {
            *first = Some(error);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.is_set()
    }

    fn carry_out(&self, id: NodeId) -> Result<(), BuildError> {
        let node = self.plan.node(id);
        match &node.kind {
            NodeKind::Step { step, .. } => self.step(id, node, step)?,
            NodeKind::Scratch | NodeKind::Image(_) | NodeKind::Directory(_) => self.base(id, node)?,
        }
        let mut snapshot = self.snapshot(id);
        let gone = if snapshot.users == 0 { snapshot.rootfs.take() } else { None };
        drop(snapshot);
        drop(gone);
        Ok(())
    }

    /// Makes the rootfs that a step works in from the one of the node below: that itself where nobody else needs it, directories
    /// upon it where the kernel has overlays, else a copy.
    fn prepare(&self, id: NodeId) -> Result<(), BuildError> {
        let node = self.plan.node(id);
        let Some(below) = node.parent() else { return Ok(()) };
        let rootfs = match self.take_over(below) {
            Ok(own) => own,
            Err(shared) => Arc::new(self.stand_on(id, node, &shared)?),
        };
        self.snapshot(id).rootfs = Some(rootfs);
        Ok(())
    }

    /// The rootfs of a node for its last user, or for one of several.
    fn take_over(&self, below: NodeId) -> Result<Arc<StageRootfs>, Arc<StageRootfs>> {
        let mut snapshot = self.snapshot(below);
        #[expect(clippy::expect_used, reason = "the scheduler's promise")]
        let rootfs = snapshot.rootfs.take().expect("what a goal needs is there");
        let rootfs = match snapshot.users {
            1 => match Arc::try_unwrap(rootfs) {
                Ok(own) => return Ok(Arc::new(own)),
                Err(shared) => shared,
            },
            _ => rootfs,
        };
        snapshot.rootfs = Some(rootfs.clone());
        Err(rootfs)
    }

    fn stand_on(&self, id: NodeId, node: &Node, below: &Arc<StageRootfs>) -> Result<StageRootfs, BuildError> {
        let directory = self.directory(id);
        if let Some(rootfs) = StageRootfs::stand_on(below, &directory, node.layered).map_err(not_made)? {
            return Ok(rootfs);
        }
        let stage = self.plan.stage(node.stage);
        self.preparing(node, Preparing::Copy, || {
            let rootfs = self.new_rootfs(&directory, node.layered)?;
            let action = || format!("could not copy the files that stage `{}` begins with", stage.name);
            rootfs::commit::clone_tree(&below.tree(), &rootfs.tree())
                .map_err(|source| BuildError::rootfs(action(), source))?;
            Ok(rootfs)
        })
    }

    /// Does what makes the files that a stage begins with, with its events.
    fn preparing<T>(
        &self,
        node: &Node,
        what: Preparing,
        work: impl FnOnce() -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let (begun, stage) = (Instant::now(), node.stage.0);
        let name = &self.plan.stage(node.stage).name;
        self.request.control.observer.event(&Event::StageStarted { stage, name, what });
        let made = work()?;
        self.request.control.observer.event(&Event::StagePrepared { stage, name, what, elapsed: begun.elapsed() });
        Ok(made)
    }

    /// Where a node's rootfs lies.
    fn directory(&self, id: NodeId) -> PathBuf {
        self.request.control.work.join("rootfs").join(id.0.to_string())
    }

    fn new_rootfs(&self, directory: &Path, is_layered: bool) -> Result<StageRootfs, BuildError> {
        let overlay = self.request.backends.sandbox.overlay();
        StageRootfs::create(directory, overlay, is_layered, &self.stop).map_err(not_made)
    }

    fn make_tree(&self, directory: &Path) -> Result<Tree, BuildError> {
        std::fs::create_dir_all(directory)
            .map_err(BuildError::io(format!("could not make `{}`", directory.display())))?;
        let tree = Tree::create(&directory.join("rootfs"), Some(&directory.join("metadata"))).map_err(not_made)?;
        Ok(tree.stopping(&self.stop))
    }

    fn new_file(&self, kind: &str) -> PathBuf {
        self.request.control.work.join(format!("{kind}-{}", self.next_file.fetch_add(1, Ordering::Relaxed)))
    }

    fn rootfs_error(&self, action: &str, step: &Step, source: RootfsError) -> BuildError {
        match source {
            RootfsError::Cancelled => BuildError::Stopped,
            source => {
                BuildError::Rootfs { action: action.to_owned(), place: Some(Place { span: step.span.clone() }), source }
            }
        }
    }
}

/// A base that is a layer of its own making.
fn makes_layer(node: &Node) -> bool {
    node.layered && matches!(node.kind, NodeKind::Directory(_))
}

/// A step whose layer knows nothing of what is below: COPY `--link`.
fn is_independent(step: &Step) -> bool {
    matches!(&step.action, Action::Copy(copy) if copy.link)
}

/// All nodes from the bases of the targets up.
fn way_to_targets(plan: &Plan) -> impl Iterator<Item = NodeId> {
    let targets = std::iter::once(plan.target).chain(plan.also.iter().copied());
    targets.flat_map(|stage| plan.path_to(plan.last(stage)))
}

/// By node: whether anybody looks into its files.
fn looked_into(plan: &Plan, hits: &Hits, request: &Request) -> Vec<bool> {
    // Of others nobody needs the layer, and so not what it is made of.
    let mut is_on_way = vec![false; plan.nodes.len()];
    way_to_targets(plan).for_each(|id| is_on_way[id.0] = true);
    let mut looked_into = vec![false; plan.nodes.len()];
    if request.writes_files() {
        looked_into[plan.last(plan.target).0] = true;
    }
    // Who needs a node comes behind it.
    for (at, node) in plan.nodes.iter().enumerate().rev() {
        let NodeKind::Step { parent, step } = &node.kind else { continue };
        if !is_on_way[at] && !looked_into[at] {
            continue;
        }
        let is_known = hits.get(NodeId(at)).is_some();
        if looked_into[at] || !is_known && !is_independent(step) {
            looked_into[parent.0] = true;
        }
        if !is_known {
            step.action.sources().into_iter().for_each(|stage| looked_into[plan.last(stage).0] = true);
        }
    }
    looked_into
}

fn not_made(source: RootfsError) -> BuildError {
    BuildError::rootfs("could not make a rootfs".to_owned(), source)
}
