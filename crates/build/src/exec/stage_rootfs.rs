//! A stage's files: a plain directory, or where the kernel has overlays, directories that steps write upon.
//!
//! With overlays a step works in a mount of what was there before and an upper directory of its own. The layer is made of the
//! upper directory, which then becomes part of the stage's own directory by renames: an overlay has one directory for each
//! stage below and never grows with the steps. Stages on one parent share its directories.
//!
//! Without, or where the metadata table has something of the stage (its entries are keyed by inode, and a copy-up is another
//! one), a step works in the directory itself and a scan finds what changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rootfs::commit::{Snapshot, clone_tree};
use rootfs::overlay::{Marks, follow_entries, make_upper, merge_down};
use rootfs::{RootfsError, Stop, Tree};
use sandbox::Overlay;

/// A stage's rootfs.
pub struct StageRootfs {
    /// The stage's own place: everything below is made here.
    directory: PathBuf,
    overlay: Option<Overlay>,
    /// What changes becomes layers.
    is_layered: bool,
    /// Ends long work on the files.
    stop: Stop,
    state: Mutex<State>,
}

struct State {
    /// As the last step left it.
    tree: Arc<Tree>,
    /// The stage's own directory.
    own: PathBuf,
    /// Keeps what the tree shows mounted, where it is more than the stage's own directory.
    view: Option<Mounted>,
    /// The stage this one stands on, when its directories lie below.
    below: Option<Arc<StageRootfs>>,
    /// What the tree was like after the last commit, where a scan finds changes.
    snapshot: Option<Snapshot>,
    /// Steps and views so far, for names of directories.
    number: u32,
}

/// An overlay that is unmounted when this is dropped.
struct Mounted {
    overlay: Overlay,
    at: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // One that is still in use ends with the builder's mount namespace.
        let _ = self.overlay.unmount(&self.at);
    }
}

/// A step's place to work in.
pub enum StepRootfs {
    /// The stage's directory itself.
    Plain(Arc<Tree>),
    Overlay(Box<OverlayMount>),
}

/// The mount that a step works in. To be given to [`StageRootfs::take_over`].
pub struct OverlayMount {
    /// What the step sees.
    pub tree: Arc<Tree>,
    /// What it writes.
    pub upper: PathBuf,
    /// What was there before.
    pub before: Arc<Tree>,
    /// Of this step.
    directory: PathBuf,
    mounted: Mounted,
}

impl OverlayMount {
    pub fn marks(&self) -> Marks {
        self.mounted.overlay.marks()
    }
}

impl StepRootfs {
    pub fn tree(&self) -> &Arc<Tree> {
        match self {
            StepRootfs::Plain(tree) => tree,
            StepRootfs::Overlay(over) => &over.tree,
        }
    }
}

impl StageRootfs {
    /// An empty rootfs below `directory`, which is made. Where a scan is to find changes for layers it tells those files apart
    /// that a step touched and left as they were.
    pub fn create(
        directory: &Path,
        overlay: Option<Overlay>,
        is_layered: bool,
        stop: &Stop,
    ) -> Result<StageRootfs, RootfsError> {
        make_dir(directory)?;
        let own = directory.join("rootfs");
        let tree = Tree::create(&own, Some(&directory.join("metadata")))?.stopping(stop);
        let tree = Arc::new(remembering(tree, directory, is_layered)?);
        let state = State { tree, own, view: None, below: None, snapshot: None, number: 0 };
        let (directory, stop) = (directory.to_owned(), stop.clone());
        Ok(StageRootfs { directory, overlay, is_layered, stop, state: Mutex::new(state) })
    }

    /// A rootfs that begins as a finished stage left its own, which is not copied; none where that cannot be.
    pub fn stand_on(
        parent: &Arc<StageRootfs>,
        directory: &Path,
        is_layered: bool,
    ) -> Result<Option<StageRootfs>, RootfsError> {
        let Some(overlay) = parent.overlay else { return Ok(None) };
        if parent.tree().has_entries() {
            return Ok(None);
        }
        make_dir(directory)?;
        let own = directory.join("own");
        make_upper(&own, &parent.tree())?;
        let mut state =
            State { tree: parent.tree(), own, view: None, below: Some(parent.clone()), snapshot: None, number: 0 };
        match view(&mut state, directory, overlay, &parent.stop) {
            Ok(()) => {}
            // More directories than one mount can have.
            Err(RootfsError::Io { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(StageRootfs {
            directory: directory.to_owned(),
            overlay: Some(overlay),
            is_layered,
            stop: parent.stop.clone(),
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files as the last step left them. Steps work where [`StageRootfs::begin`] says.
    pub fn tree(&self) -> Arc<Tree> {
        self.state().tree.clone()
    }

    /// What the stage was like after its last commit. Nothing else of the stage can be asked for while this is held.
    pub fn snapshot(&self) -> SnapshotSlot<'_> {
        SnapshotSlot(self.state())
    }

    /// Prepares a place for the next step.
    pub fn begin(&self) -> Result<StepRootfs, RootfsError> {
        let mut state = self.state();
        let overlay = match self.overlay {
            Some(overlay) if !state.tree.has_entries() => overlay,
            _ => return self.plain(&mut state).map(StepRootfs::Plain),
        };
        let directory = numbered(&mut state, &self.directory, "step");
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| directory.join(name));
        make_dir(&directory)?;
        make_upper(&upper, &state.tree)?;
        make_dir(&work)?;
        make_dir(&merged)?;
        let mounted = mount(overlay, &state.lowers(), Some((&upper, &work)), merged)?;
        let tree = Tree::open_overlay(&mounted.at, &self.directory.join("metadata"))?;
        let tree = Arc::new(tree.stopping(&self.stop));
        let before = state.tree.clone();
        Ok(StepRootfs::Overlay(Box::new(OverlayMount { tree, upper, before, directory, mounted })))
    }

    /// A directory of the stage's own with everything in it.
    fn plain(&self, state: &mut State) -> Result<Arc<Tree>, RootfsError> {
        if state.below.is_some() {
            let own = numbered(state, &self.directory, "rootfs");
            let copy = Tree::create(&own, Some(&self.directory.join("metadata-of-copy")))?.stopping(&self.stop);
            let copy = remembering(copy, &self.directory, self.is_layered)?;
            clone_tree(&state.tree, &copy)?;
            (state.tree, state.own) = (Arc::new(copy), own);
            (state.view, state.below) = (None, None);
        }
        if self.is_layered && !state.tree.remembers_contents() {
            // Steps wrote upon it before, of which no record tells.
            state.snapshot = None;
            state.tree = Arc::new(remembering(state.tree.share()?, &self.directory, true)?);
        }
        Ok(state.tree.clone())
    }

    /// Opens what a step wrote, which is over now. `over` must not be in use by anybody else.
    pub fn written(&self, over: &OverlayMount) -> Result<Tree, RootfsError> {
        let upper = Tree::open(&over.upper, Some(&self.directory.join("metadata")))?.stopping(&self.stop);
        follow_entries(&over.mounted.at, &upper)?;
        Ok(upper)
    }

    /// Makes what a step wrote part of the stage.
    pub fn take_over(&self, over: OverlayMount, upper: &Tree) -> Result<(), RootfsError> {
        let mut state = self.state();
        let overlay = over.mounted.overlay;
        let OverlayMount { tree, before, directory, mounted, .. } = over;
        drop((tree, before, mounted));
        // What is shown would change under its readers, of which there are none while a step runs.
        state.view = None;
        state.snapshot = None;
        let onto = Tree::open(&state.own, None)?.stopping(&self.stop);
        let below = state.below.as_ref().map(|below| below.tree());
        merge_down(upper, &onto, overlay.marks(), below.as_deref())?;
        if state.below.is_some() {
            view(&mut state, &self.directory, overlay, &self.stop)?;
        } else {
            let tree = Tree::open(&state.own, Some(&self.directory.join("metadata")))?;
            state.tree = Arc::new(tree.stopping(&self.stop));
        }
        // However deep the directories are that it made.
        let name = directory.file_name().unwrap_or_default();
        Tree::open(&self.directory, None)?.stopping(&self.stop).remove(Path::new(name))
    }
}

/// The snapshot of a stage in hand.
pub struct SnapshotSlot<'a>(MutexGuard<'a, State>);

impl SnapshotSlot<'_> {
    pub fn get(&mut self) -> &mut Option<Snapshot> {
        &mut self.0.snapshot
    }
}

impl State {
    /// Every directory of the stage, the topmost first.
    fn lowers(&self) -> Vec<PathBuf> {
        let mut lowers = vec![self.own.clone()];
        if let Some(below) = &self.below {
            lowers.extend(below.state().lowers());
        }
        lowers
    }
}

/// The tree of a stage of which a scan finds the changes.
fn remembering(tree: Tree, directory: &Path, is_layered: bool) -> Result<Tree, RootfsError> {
    if is_layered { tree.remember_contents(&directory.join("contents")) } else { Ok(tree) }
}

/// Shows the stage's directories as one tree.
fn view(state: &mut State, directory: &Path, overlay: Overlay, stop: &Stop) -> Result<(), RootfsError> {
    let at = numbered(state, directory, "view");
    make_dir(&at)?;
    let mounted = mount(overlay, &state.lowers(), None, at)?;
    let tree = Tree::open(&mounted.at, Some(&directory.join("metadata")))?;
    state.tree = Arc::new(tree.stopping(stop));
    state.view = Some(mounted);
    Ok(())
}

fn mount(
    overlay: Overlay,
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    at: PathBuf,
) -> Result<Mounted, RootfsError> {
    let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    overlay.mount(&lowers, upper, &at).map_err(io_error("could not mount an overlay at", &at))?;
    Ok(Mounted { overlay, at })
}

fn numbered(state: &mut State, directory: &Path, name: &str) -> PathBuf {
    state.number += 1;
    directory.join(format!("{name}-{}", state.number))
}

fn make_dir(path: &Path) -> Result<(), RootfsError> {
    fs::create_dir_all(path).map_err(io_error("could not make the directory", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootfsError {
    move |source| RootfsError::Io { action, path: path.to_owned(), source }
}
