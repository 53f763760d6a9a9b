//! Stages carried out, each in a rootfs of its own, as soon as what they need is there.
//!
//! One thread a stage; a step waits for the stages it takes files from and then for a permit ([`Share`]; one alone where the
//! back-end runs one process at a time). A stage nobody looks into has no rootfs at all, and a base image is unpacked once,
//! however many stages stand on it ([`bases`]).

mod bases;
mod copy;
mod files;
mod tail;

pub use copy::{copy_error, copy_options};
pub use tail::Tail;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use context::Ignore;
use rootfs::commit::{CommitOptions, Committed, Written, commit, commit_upper, snapshot};
use rootfs::copy::{CopyError, Everything, Filter};
use rootfs::unpack::{Limits, unpack};
use rootfs::{RootfsError, Stop, Tree};
use sandbox::{Exit, Network, Process, SandboxError};
use store::Layer;

use crate::layers::{Handle, Pool};
use crate::plan::{Action, Base, Plan, Run, Source, Stage, StageId, Step};
use crate::request::NamedContext;
use crate::{BuildError, Event, Failed, Place, Request, StepId, StepOutcome, mount, user};
use files::{Files, Work};

/// What processes see as their host's name (BuildKit's default).
const HOSTNAME: &str = "buildkitsandbox";

/// More files than any image has; names of directories cost memory while a layer is unpacked.
const LAYER_ENTRIES: u64 = 10_000_000;

/// As much of a step's output as is told when it fails.
const LAST_LINES: usize = 30;
const LAST_BYTES: usize = 8 << 10;

/// How many layers of a base are fetched while the ones before them are unpacked.
const PREFETCHERS: usize = 3;

/// Every stage, carried out.
pub struct Stages {
    outcomes: Vec<Outcome>,
    target: StageId,
}

/// What a stage leaves behind.
#[derive(Clone)]
struct Outcome {
    /// Bottom first; empty for a stage whose layers nobody wants.
    layers: Vec<Handle>,
    /// None: never unpacked, or taken over by the only stage that stands on it.
    files: Option<Arc<Files>>,
}

/// What came of a step.
enum Made {
    /// A spooled layer of its own making.
    Layer(PathBuf),
    /// Changes in the tree, in these directories if anybody knows.
    Changes(Option<Written>),
}

/// A tree to take files from.
pub struct Taken {
    pub tree: Arc<Tree>,
    /// For messages: `the build context`, `stage x`.
    pub name: String,
    pub ignore: Option<Ignore>,
    /// Owners mean something (a stage), or not (a context).
    pub keep_owner: bool,
}

impl Taken {
    pub fn filter(&self) -> &dyn Filter {
        match &self.ignore {
            Some(ignore) => ignore,
            None => &Everything,
        }
    }
}

impl Stages {
    pub fn layers(&self, stage: StageId) -> &[Handle] {
        &self.outcomes[stage.0].layers
    }

    pub fn target_tree(&self) -> Result<Arc<Tree>, BuildError> {
        let files = self.outcomes[self.target.0].files.as_ref();
        files.map(|files| files.tree()).ok_or(BuildError::Stopped)
    }
}

/// Carries out every stage of `plan`.
///
/// # Errors
/// The first failure; everything else is stopped then.
pub fn execute(plan: &Plan, request: &Request, layers: &Pool) -> Result<Stages, BuildError> {
    let execution = Execution::new(plan, request, layers);
    std::thread::scope(|scope| {
        for id in (0..plan.stages.len()).map(StageId) {
            let execution = &execution;
            let stage = move || {
                let _stops = StopOnPanic { execution };
                execution.finish(id, execution.stage(id));
            };
            // Without a thread it is done here, which holds up the stages behind it: those that it needs come before it.
            if let Err(stage) = spawn::scoped_now(scope, "stage", stage) {
                stage();
            }
        }
    });
    execution.result(plan.target)
}

struct Execution<'a> {
    plan: &'a Plan,
    request: &'a Request,
    layers: &'a Pool,
    board: Mutex<Board>,
    changed: Condvar,
    failed: Arc<AtomicBool>,
    /// Ends work on files: a stage has failed, or the build is cancelled.
    stop: Stop,
    next_file: AtomicU64,
}

struct Board {
    outcomes: Vec<Option<Outcome>>,
    /// By [`Share`]: how many may begin.
    free: [usize; 2],
    bases: bases::Bases,
    error: Option<BuildError>,
}

/// What work needs of the machine.
#[derive(Clone, Copy)]
enum Share {
    /// A processor: work on files. There are [`Request::jobs`] of these.
    Processor,
    /// Room for a step's process, which may do nothing but wait. There are [`Request::processes`] of these.
    Process,
}

/// Given back when it is dropped.
struct Permit<'e, 'a> {
    execution: &'e Execution<'a>,
    from: usize,
}

impl Drop for Permit<'_, '_> {
    fn drop(&mut self) {
        self.execution.board().free[self.from] += 1;
        self.execution.changed.notify_all();
    }
}

/// A panic in one stage is our bug; the others must not wait for that stage for ever.
struct StopOnPanic<'e, 'a> {
    execution: &'e Execution<'a>,
}

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // With the board in hand, so that nobody is between looking and waiting.
            let _board = self.execution.board();
            self.execution.failed.store(true, Ordering::Relaxed);
            self.execution.changed.notify_all();
        }
    }
}

impl<'a> Execution<'a> {
    fn new(plan: &'a Plan, request: &'a Request, layers: &'a Pool) -> Execution<'a> {
        let free = match request.sandbox.parallel() {
            true => [request.jobs.max(1), request.processes.max(1)],
            false => [1, 0],
        };
        let failed = Arc::new(AtomicBool::new(false));
        Execution {
            plan,
            request,
            layers,
            board: Mutex::new(Board {
                outcomes: vec![None; plan.stages.len()],
                free,
                bases: bases::Bases::default(),
                error: None,
            }),
            changed: Condvar::new(),
            stop: Stop::when(&[&failed, &request.cancelled]),
            failed,
            next_file: AtomicU64::new(0),
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, id: StageId, result: Result<Outcome, BuildError>) {
        let mut board = self.board();
        match result {
            Ok(outcome) => board.outcomes[id.0] = Some(outcome),
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                if board.error.is_none() && !matches!(error, BuildError::Stopped) {
                    board.error = Some(error);
                }
            }
        }
        self.changed.notify_all();
    }

    fn result(self, target: StageId) -> Result<Stages, BuildError> {
        let board = self.board.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = board.error {
            return Err(if self.request.is_cancelled() { BuildError::Cancelled } else { error });
        }
        let outcomes: Option<Vec<Outcome>> = board.outcomes.into_iter().collect();
        outcomes.map(|outcomes| Stages { outcomes, target }).ok_or(BuildError::Stopped)
    }

    fn stopped(&self) -> bool {
        self.stop.is_set()
    }

    /// Waits until `id` is done. The permit must not be held.
    fn wait(&self, id: StageId) -> Result<Outcome, BuildError> {
        let mut board = self.board();
        loop {
            if let Some(outcome) = &board.outcomes[id.0] {
                return Ok(outcome.clone());
            }
            if self.stopped() {
                return Err(BuildError::Stopped);
            }
            board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does `work` when there is a share for it. A back-end that runs one process at a time has one for everything: nobody may
    /// touch files while it does.
    fn with_share<T>(&self, share: Share, work: impl FnOnce() -> Result<T, BuildError>) -> Result<T, BuildError> {
        let from = if self.request.sandbox.parallel() { share as usize } else { 0 };
        let mut board = self.board();
        while board.free[from] == 0 {
            board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
        board.free[from] -= 1;
        drop(board);
        let _permit = Permit { execution: self, from };
        if self.stopped() { Err(BuildError::Stopped) } else { work() }
    }

    fn stage(&self, id: StageId) -> Result<Outcome, BuildError> {
        let stage = self.plan.stage(id);
        let mut layers = self.base_layers(stage)?;
        let directory = match &stage.base {
            Base::Directory(name) if stage.layered => Some(name),
            _ => None,
        };
        if !self.needs_files(id) && directory.is_none() {
            return Ok(Outcome { layers, files: None });
        }
        let files = self.prepare(id, stage)?;
        if let Some(name) = directory {
            layers.push(self.with_share(Share::Processor, || self.directory_layer(name, &files))?);
        }
        for (index, step) in stage.steps.iter().enumerate() {
            for source in step.action.sources() {
                self.wait(source)?;
            }
            let step_id = StepId { stage: id.0, step: index };
            let share = if matches!(step.action, Action::Run(_)) { Share::Process } else { Share::Processor };
            self.with_share(share, || {
                let layer = self.step(step_id, stage, step, &files)?;
                layers.extend(layer);
                Ok(())
            })?;
        }
        Ok(Outcome { layers, files: Some(files) })
    }

    /// Somebody looks into the stage: its own steps, a reader, a child that needs files, or a file output.
    fn needs_files(&self, id: StageId) -> bool {
        let stage = self.plan.stage(id);
        let child = |s: &Stage| matches!(s.base, Base::Stage(parent) if parent == id);
        let output = id == self.plan.target && self.request.rootfs_output.is_some();
        stage.needs_files()
            || output
            || (0..self.plan.stages.len()).any(|i| child(&self.plan.stages[i]) && self.needs_files(StageId(i)))
    }

    /// The layers below the stage's own, offered to the exporters when they are part of the result.
    fn base_layers(&self, stage: &Stage) -> Result<Vec<Handle>, BuildError> {
        match &stage.base {
            Base::Scratch | Base::Directory(_) => Ok(Vec::new()),
            Base::Stage(parent) => Ok(self.wait(*parent)?.layers),
            Base::Image(base) => {
                let layers = base.image.layers.iter();
                Ok(layers.map(|l| Handle::Ready(Box::new(self.layers.base(l, stage.layered)))).collect())
            }
        }
    }

    /// The stage's rootfs with its base in it.
    fn prepare(&self, id: StageId, stage: &Stage) -> Result<Arc<Files>, BuildError> {
        if let Base::Stage(parent) = stage.base {
            let outcome = self.wait(parent)?;
            let below = self.plan.stage(parent);
            if let (Some(files), 1, 0) = (&outcome.files, below.children, below.readers) {
                return Ok(files.clone());
            }
        }
        let directory = self.request.work.join("stages").join(id.0.to_string());
        let shared = match &stage.base {
            Base::Stage(parent) => self.wait(*parent)?.files,
            Base::Image(base) => self.shared_base(id, stage, base)?,
            Base::Scratch | Base::Directory(_) => None,
        };
        if let Some(below) = &shared
            && let Some(files) = Files::stand_on(below, &directory, stage.layered).map_err(not_made)?
        {
            return Ok(Arc::new(files));
        }
        let shared = match (&stage.base, shared) {
            (Base::Image(base), Some(files)) => match self.take_base(base, files) {
                Ok(own) => return Ok(own),
                Err(shared) => Some(shared),
            },
            (_, shared) => shared,
        };
        if matches!(stage.base, Base::Scratch) {
            return self.with_share(Share::Processor, || self.new_files(&directory, stage.layered));
        }
        self.unpacking(id, stage, || {
            let files = self.new_files(&directory, stage.layered)?;
            match &shared {
                Some(below) => self.copy_files(&below.tree(), &files.tree(), stage)?,
                None => self.fill(&files.tree(), stage)?,
            }
            Ok(files)
        })
    }

    fn new_files(&self, directory: &Path, is_layered: bool) -> Result<Arc<Files>, BuildError> {
        let overlay = self.request.sandbox.overlay();
        Files::create(directory, overlay, is_layered, &self.stop).map(Arc::new).map_err(not_made)
    }

    /// Does what makes the files that a stage begins with, with its events.
    fn unpacking<T>(
        &self,
        id: StageId,
        stage: &Stage,
        work: impl FnOnce() -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        self.with_share(Share::Processor, || {
            let begun = Instant::now();
            self.request.observer.event(&Event::StageStarted { stage: id.0, name: &stage.name });
            let made = work()?;
            let elapsed = begun.elapsed();
            self.request.observer.event(&Event::StagePrepared { stage: id.0, name: &stage.name, elapsed });
            Ok(made)
        })
    }

    fn copy_files(&self, from: &Tree, to: &Tree, stage: &Stage) -> Result<(), BuildError> {
        let action = || format!("could not copy the files that stage `{}` begins with", stage.name);
        rootfs::commit::clone_tree(from, to).map_err(|source| BuildError::rootfs(action(), source))
    }

    fn make_tree(&self, directory: &Path) -> Result<Tree, BuildError> {
        std::fs::create_dir_all(directory)
            .map_err(BuildError::io(format!("could not make `{}`", directory.display())))?;
        let tree = Tree::create(&directory.join("rootfs"), Some(&directory.join("metadata"))).map_err(not_made)?;
        Ok(tree.stopping(&self.stop))
    }

    fn fill(&self, tree: &Tree, stage: &Stage) -> Result<(), BuildError> {
        match &stage.base {
            // A stage that nobody has looked into has no files to begin with.
            Base::Scratch | Base::Stage(_) => Ok(()),
            Base::Image(base) => {
                let layers: Vec<Layer> = base.image.layers.iter().map(|l| self.layers.base(l, false)).collect();
                self.unpack_image(tree, &base.reference, &layers)
            }
            Base::Directory(name) => {
                let NamedContext::Directory(context) = &self.request.contexts[name] else { return Ok(()) };
                let options = copy_options(None, false);
                rootfs::copy::copy(&context.tree, &context.ignore, &["/".to_owned()], tree, "/", &options)
                    .map(|_| ())
                    .map_err(|e| match e {
                        CopyError::Rootfs(RootfsError::Cancelled) => BuildError::Stopped,
                        e => BuildError::Request { message: format!("named context `{name}`: {e}"), hint: None },
                    })
            }
        }
    }

    /// The files of a directory context that an image stands on, as a layer.
    fn directory_layer(&self, name: &str, files: &Files) -> Result<Handle, BuildError> {
        let tree = files.tree();
        let write = |options: &CommitOptions, writer: &mut dyn Write| {
            commit(&tree, None, &self.new_file("record"), options, writer).map(|(_, committed)| committed)
        };
        let failed =
            |source| BuildError::rootfs(format!("could not make a layer of the named context `{name}`"), source);
        self.spool(&failed, None, write).map(|spool| self.layers.submit(spool))
    }

    /// Unpacks layers in order; the next ones are fetched meanwhile.
    fn unpack_image(&self, tree: &Tree, reference: &str, layers: &[Layer]) -> Result<(), BuildError> {
        let limits = Limits { size_bytes: self.request.layer_limit_bytes, entries: LAYER_ENTRIES };
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
            for layer in layers {
                if self.stopped() {
                    return Err(BuildError::Stopped);
                }
                let digest = &layer.descriptor.digest;
                let action = format!("could not unpack layer {} of `{reference}`", digest.short());
                let tar = layer.uncompressed().map_err(|source| BuildError::Store {
                    action: action.clone(),
                    place: None,
                    source,
                })?;
                let mut tar = self.stop.watch(tar);
                // The end of the stream is where digest and diff ID are checked.
                unpack(&mut tar, tree, &limits)
                    .and_then(|_| io::copy(&mut tar, &mut io::sink()).map_err(RootfsError::read))
                    .map_err(|source| BuildError::rootfs(action, source))?;
            }
            Ok(())
        })
    }

    fn new_file(&self, kind: &str) -> PathBuf {
        self.request.work.join(format!("{kind}-{}", self.next_file.fetch_add(1, Ordering::Relaxed)))
    }

    /// One step with its events; the layer it makes, if the stage has layers.
    fn step(&self, id: StepId, stage: &Stage, step: &Step, files: &Files) -> Result<Option<Handle>, BuildError> {
        let begun = Instant::now();
        let (name, title, total) = (&stage.name, &step.title, stage.steps.len());
        self.request.observer.event(&Event::StepStarted { id, stage: name, index: id.step, total, title });
        let layer = self.change(id, stage, step, files);
        let layer = if step.is_trigger { layer.map_err(|error| error.of_trigger(title)) } else { layer };
        let outcome = self.outcome(&layer);
        self.request.observer.event(&Event::StepDone { id, elapsed: begun.elapsed(), outcome });
        layer
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

    fn change(&self, id: StepId, stage: &Stage, step: &Step, files: &Files) -> Result<Option<Handle>, BuildError> {
        let failed = |source| self.rootfs_error("could not prepare the rootfs for the step", step, source);
        let work = files.begin().map_err(failed)?;
        if let (Work::Plain(tree), true) = (&work, stage.layered) {
            self.record(step, files, tree)?;
        }
        let made = self.act(id, stage, step, work.tree())?;
        if stage.layered {
            self.request.observer.event(&Event::StepCommitting { id });
        }
        match work {
            Work::Plain(tree) => self.commit_plain(stage, step, files, &tree, made),
            Work::Over(over) => {
                let failed = |source| self.rootfs_error("could not take over what the step wrote", step, source);
                let upper = files.written(&over).map_err(failed)?;
                let layer = match made {
                    Made::Layer(layer) => Some(layer),
                    Made::Changes(_) if !stage.layered => None,
                    Made::Changes(_) => Some(self.spool(&self.no_layer(step), None, |options, writer| {
                        commit_upper(&upper, &over.before, over.marks(), options, writer)
                    })?),
                };
                files.take_over(*over, &upper).map_err(failed)?;
                Ok(layer.filter(|_| stage.layered).map(|spool| self.layers.submit(spool)))
            }
        }
    }

    /// Does what the step says in `tree`.
    fn act(&self, id: StepId, stage: &Stage, step: &Step, tree: &Tree) -> Result<Made, BuildError> {
        match &step.action {
            Action::Run(run) => return self.run(id, stage, step, run, tree).map(Made::Changes),
            Action::Copy(copy) if copy.link => return self.copy_link(step, copy, tree).map(Made::Layer),
            Action::Workdir { path, user } => self.workdir(step, path, user, tree)?,
            Action::Copy(copy) => self.copy_plain(step, copy, tree)?,
        }
        Ok(Made::Changes(None))
    }

    /// Notes what the tree is like before the first step whose changes a scan finds.
    fn record(&self, step: &Step, files: &Files, tree: &Tree) -> Result<(), BuildError> {
        let mut slot = files.snapshot();
        if slot.get().is_none() {
            let recorded = snapshot(tree, &self.new_file("record"));
            *slot.get() = Some(recorded.map_err(|e| self.rootfs_error("could not record the rootfs", step, e))?);
        }
        Ok(())
    }

    /// What changed in a stage's own directory since the last commit, as a layer on its way.
    fn commit_plain(
        &self,
        stage: &Stage,
        step: &Step,
        files: &Files,
        tree: &Tree,
        made: Made,
    ) -> Result<Option<Handle>, BuildError> {
        if !stage.layered {
            return Ok(None);
        }
        let mut slot = files.snapshot();
        let spool = match made {
            Made::Layer(spool) => {
                *slot.get() = None;
                drop(slot);
                self.record(step, files, tree)?;
                spool
            }
            Made::Changes(written) => {
                let mut after = None;
                let spool = self.spool(&self.no_layer(step), written, |options, writer| {
                    let (state, committed) =
                        commit(tree, slot.get().as_ref(), &self.new_file("record"), options, writer)?;
                    after = Some(state);
                    Ok(committed)
                })?;
                *slot.get() = after;
                spool
            }
        };
        Ok(Some(self.layers.submit(spool)))
    }

    /// Writes a layer to a new file.
    fn spool(
        &self,
        failed: &dyn Fn(RootfsError) -> BuildError,
        written: Option<Written>,
        write: impl FnOnce(&CommitOptions, &mut dyn Write) -> Result<Committed, RootfsError>,
    ) -> Result<PathBuf, BuildError> {
        let spool = self.layers.spool();
        let broken = |source| failed(RootfsError::write(source));
        let file = self.stop.watch(File::create(&spool).map_err(broken)?);
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let clamp = self.request.clamp_modified.then_some(self.plan.source_date_epoch).flatten();
        let options = CommitOptions {
            clamp_modified: clamp,
            ignore: self.request.ignore_paths.clone(),
            set_modified: None,
            written,
        };
        write(&options, &mut writer).map_err(failed)?;
        writer.flush().map_err(broken)?;
        Ok(spool)
    }

    fn no_layer<'s>(&'s self, step: &'s Step) -> impl Fn(RootfsError) -> BuildError + 's {
        move |source| self.rootfs_error("could not make a layer of the changes", step, source)
    }

    fn rootfs_error(&self, action: &str, step: &Step, source: RootfsError) -> BuildError {
        match source {
            RootfsError::Cancelled => BuildError::Stopped,
            source => {
                BuildError::Rootfs { action: action.to_owned(), place: Some(Place { span: step.span.clone() }), source }
            }
        }
    }

    fn workdir(&self, step: &Step, path: &str, user: &str, tree: &Tree) -> Result<(), BuildError> {
        let owner = match user {
            "" => None,
            user => Some(
                user::resolve_owner_or_root(tree, user)
                    .map_err(|e| BuildError::dockerfile(&step.span, e.to_string()))?,
            ),
        };
        let made = self.plan.source_date_epoch;
        rootfs::copy::make_dirs_at(tree, Path::new(path), owner, made)
            .map_err(|e| BuildError::dockerfile(&step.span, format!("could not make working directory `{path}`: {e}")))
    }

    /// Where the process can have changed something, if anybody knows.
    fn run(
        &self,
        id: StepId,
        stage: &Stage,
        step: &Step,
        run: &Run,
        tree: &Tree,
    ) -> Result<Option<Written>, BuildError> {
        let user = user::resolve(tree, &run.user).map_err(|e| BuildError::dockerfile(&step.span, e.to_string()))?;
        let take = |source: &Source| self.take(source);
        let stopped = || self.stopped();
        let mounts = mount::lower(self.request, step, run, &take, &stopped)?;
        let mut env: Vec<OsString> = run.env.to_strings().into_iter().map(OsString::from).collect();
        if run.env.get("HOME").is_none() {
            env.push(format!("HOME={}", user.home).into());
        }
        env.extend(mounts.env.iter().cloned());
        let process = Process {
            args: run.args.iter().map(OsString::from).collect(),
            env,
            cwd: PathBuf::from(&run.cwd),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            network: match run.network {
                dockerfile::Network::None => Network::None,
                dockerfile::Network::Default | dockerfile::Network::Host => Network::Host,
            },
            hostname: HOSTNAME.to_owned(),
            extra_hosts: self.request.extra_hosts.clone(),
            shm_bytes: self.request.shm_bytes,
            terminal: None,
        };
        let mut tail = Tail::new(LAST_LINES, LAST_BYTES);
        let mut output = |stream, bytes: &[u8]| {
            tail.push(bytes);
            self.request.observer.event(&Event::Output { id, stream, bytes });
        };
        let ended = self.request.sandbox.run(tree, &process, &mounts.mounts, &mut output, &stopped);
        let shown = format!("[{} {}/{}] {}", stage.name, id.step + 1, stage.steps.len(), step.title);
        let lines = tail.lines();
        let error = match ended {
            Ok(ended) if ended.exit == Exit::Code(0) => return Ok(ended.written),
            Err(SandboxError::Cancelled) if self.request.is_cancelled() => return Err(BuildError::Cancelled),
            Err(SandboxError::Cancelled) => return Err(BuildError::Stopped),
            Ok(ended) => run_failed(step, ended.exit, shown.clone(), lines.clone()),
            Err(source) => BuildError::Sandbox {
                action: "RUN could not be run".to_owned(),
                place: Some(Place { span: step.span.clone() }),
                source,
            },
        };
        let failed = Failed {
            step: &shown,
            message: &error.to_string(),
            output: &lines,
            tree,
            process: &process,
            mounts: &mounts.mounts,
            config: &run.config,
            platform: &stage.platform,
            request: self.request,
        };
        self.look_into(&failed, &error);
        Err(error)
    }

    /// Has something done about the first step whose program failed or could not be started.
    fn look_into(&self, failed: &Failed<'_>, error: &BuildError) {
        let Some(on_failure) = &self.request.on_failure else { return };
        let of_program =
            matches!(error, BuildError::Run { .. } | BuildError::Sandbox { source: SandboxError::Start { .. }, .. });
        if !of_program || self.request.is_cancelled() {
            return;
        }
        {
            // What the others print would be in the way, and nobody needs it any more.
            let _board = self.board();
            if self.failed.swap(true, Ordering::Relaxed) {
                return;
            }
            self.changed.notify_all();
        }
        // What is done about it goes on when the others stop.
        let tree = failed.tree.share().map(|tree| tree.stopping(&self.request.stop()));
        let done = match tree {
            Ok(tree) => on_failure.failed(&Failed { tree: &tree, ..*failed }),
            Err(error) => Err(not_made(error)),
        };
        if let Err(error) = done {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            self.request.observer.event(&Event::Warning { message });
        }
    }

    /// The tree a source means. Its stage is done.
    fn take(&self, source: &Source) -> Result<Taken, BuildError> {
        let of_context = |context: &context::Context, name: String| Taken {
            tree: context.tree.clone(),
            name,
            ignore: Some(context.ignore.clone()),
            keep_owner: false,
        };
        match source {
            Source::Context => Ok(of_context(&self.request.context, "the build context".to_owned())),
            Source::Named(name) => match &self.request.contexts[name] {
                NamedContext::Directory(context) => Ok(of_context(context, format!("the named context `{name}`"))),
                NamedContext::Image { .. } => Err(BuildError::Stopped),
            },
            Source::Stage(id) => {
                let name = format!("stage `{}`", self.plan.stage(*id).name);
                match self.wait(*id)?.files {
                    Some(files) => Ok(Taken { tree: files.tree(), name, ignore: None, keep_owner: true }),
                    None => Err(BuildError::Stopped),
                }
            }
            Source::Empty => {
                let tree = Arc::new(self.make_tree(&self.new_file("empty"))?);
                Ok(Taken { tree, name: "scratch".to_owned(), ignore: None, keep_owner: true })
            }
        }
    }
}

fn not_made(source: RootfsError) -> BuildError {
    BuildError::rootfs("could not make a rootfs".to_owned(), source)
}

fn run_failed(step: &Step, exit: Exit, shown: String, output: String) -> BuildError {
    let message = match exit {
        Exit::Code(code) => format!("RUN exited with status {code}"),
        Exit::Signal(9) => "RUN was killed by signal 9 (out of memory, perhaps): exit code 137".to_owned(),
        Exit::Signal(signal) => format!("RUN was killed by signal {signal}: exit code {}", 128 + signal),
    };
    BuildError::Run { message, place: Place { span: step.span.clone() }, exit, step: shown, output }
}
