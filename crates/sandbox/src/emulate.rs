//! The `emulate` back-end: a step that believes to be root in its own rootfs, for any user without any capability.
//!
//! Its system calls about files and ids wait for the builder (seccomp user notification), which resolves paths beneath the
//! rootfs with its own code (`place`), does the work, and gives back descriptors and answers; owners, modes, devices and
//! capabilities are kept in the tree's table. Everything that works on what is open already goes to the kernel at full
//! speed. A Landlock domain without any right is the second wall: by itself the step opens nothing.
//!
//! `calls` is the table of contents; `tasks` knows the processes, `program` and `exec` start programs.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use rootfs::Tree;
use rustix::fs::Statx;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::helper::{Helper, Role};
use crate::notify::{Answer, Call, Listener, Supervisor};
use crate::{Ended, Mount, Network, Process, Sandbox, SandboxError, Stream};

pub mod abi;
mod caller;
pub mod calls;
mod change;
mod elf;
mod exec;
mod files;
mod i386;
mod identity;
mod ids;
mod ipc;
mod links;
mod memory;
mod mounts;
mod open;
mod others;
mod place;
mod procfs;
mod program;
mod seats;
mod sockets;
mod stand_in;
mod stub;
mod supervisor;
mod tasks;
mod terminal;
mod waiting;
pub mod wall;
mod works;
mod written;

use caller::{Caller, Reply};
use calls::Forms;
pub use exec::{pass_of, rehearsal::rehearse};
use ids::Ids;
use place::{Node, Places, lock};
use supervisor::Orders;
pub use supervisor::supervise;
use tasks::{Mark, State, Tasks, View};
pub use tasks::{RLIMIT_LOCKS, begin};
pub use works::works;

/// The back-end. [`crate::probe::enter`] makes it.
#[derive(Debug)]
pub struct Emulate {
    /// Where mounts, devices and listings are made.
    work: PathBuf,
    runs: AtomicU64,
    /// How many files this process might have open before it asked for more.
    files: Option<u64>,
}

impl Emulate {
    pub fn new(work: &Path) -> Result<Emulate, SandboxError> {
        let work = fs::canonicalize(work).map_err(|source| SandboxError::Setup {
            action: format!("could not find the work directory `{}`", work.display()),
            source,
        })?;
        Ok(Emulate { work, runs: AtomicU64::new(0), files: raise_files() })
    }

    fn scratch(&self) -> Result<Scratch, SandboxError> {
        let path = self.work.join(format!(".emulate-{}", self.runs.fetch_add(1, Ordering::Relaxed)));
        let _ = fs::remove_dir_all(&path);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| SandboxError::Setup { action: format!("could not make `{}`", path.display()), source })?;
        Ok(Scratch(path))
    }
}

/// A directory that goes with the run.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Sandbox for Emulate {
    fn name(&self) -> &'static str {
        "emulate"
    }

    fn parallel(&self) -> bool {
        true
    }

    fn run(
        &self,
        rootfs: &Tree,
        process: &Process,
        mounts: &[Mount],
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Ended, SandboxError> {
        let scratch = self.scratch()?;
        let stubs = mounts::stubs(rootfs, mounts)?;
        let (mounts, _served) = mounts::with_sockets(mounts, &scratch.0)?;
        let orders = Orders::new(rootfs, process, &mounts, &scratch.0, self.files);
        let supervisor = Helper::start(Role::Supervisor, cancelled);
        let result = supervisor.and_then(|supervisor| supervisor.run(&orders, None, output, cancelled));
        let reread = known_trees(rootfs, &mounts).try_for_each(Tree::reread_table);
        let removed = crate::stubs::remove(rootfs.path(), &stubs);
        let ended = result?;
        reread?;
        removed.map(|()| ended)
    }
}

/// Those whose tables the supervisor of a step writes to.
fn known_trees<'t>(rootfs: &'t Tree, mounts: &'t [Mount]) -> impl Iterator<Item = &'t Tree> {
    std::iter::once(rootfs).chain(mounts.iter().filter_map(|mount| mount.tree.as_deref()))
}

/// All that one step sees, and all that is known of it.
pub struct World {
    places: Places,
    root: Arc<place::Dir>,
    tasks: Arc<Tasks>,
    tree: Arc<Tree>,
    forms: Forms,
    hostname: String,
    /// Whether the step has the builder's network, or none.
    network: bool,
    pass: exec::Pass,
    /// Of the first process.
    mark: Mark,
    began: links::Began,
    /// Files of before the step that have got another name in it.
    linked: Mutex<HashSet<place::Id>>,
    written: written::Log,
    nameless: Nameless,
    /// The other sides of the terminals that the step has made, `O_PATH`, by their numbers.
    terminals: Mutex<BTreeMap<u32, OwnedFd>>,
    sockets: Arc<sockets::Sockets>,
    ipc: ipc::Ipc,
    /// Held to read while a file is opened for the step, until the builder has it no more.
    giving: RwLock<()>,
    /// Number of the terminal that the step was given.
    terminal: Option<u64>,
    waiting: waiting::Waiting,
    /// Lines of /proc/mounts.
    mount_lines: Mutex<Vec<String>>,
}

/// Files that have lost their last name. Whoever has one open sees whose it is.
#[derive(Default)]
struct Nameless(Mutex<NamelessFiles>);

#[derive(Default)]
struct NamelessFiles {
    known: HashMap<FileKey, (Arc<Tree>, Statx)>,
    /// Oldest first; also of files that are not known any more.
    order: VecDeque<FileKey>,
}

/// By which tables know a file: inode and birth time, which not every file system has.
type FileKey = (place::Id, i64, u32);

fn key_of(found: &Statx) -> FileKey {
    (place::id_of(found), found.stx_btime.tv_sec, found.stx_btime.tv_nsec)
}

impl Nameless {
    /// As many are remembered.
    const MOST: usize = 4096;

    fn add(&self, tree: Arc<Tree>, found: Statx) -> io::Result<()> {
        let mut all = lock(&self.0);
        let key = key_of(&found);
        all.known.insert(key, (tree, found));
        all.order.push_back(key);
        while all.order.len() > Self::MOST {
            let oldest = all.order.pop_front();
            if let Some((tree, found)) = oldest.and_then(|oldest| all.known.remove(&oldest)) {
                tree.forget(&found)?;
            }
        }
        Ok(())
    }

    /// A new file that looks like one of them is not one, and nothing of it is to be forgotten.
    fn is_used_again(&self, made: &Statx) {
        lock(&self.0).known.remove(&key_of(made));
    }

    fn forget(&self) -> io::Result<()> {
        lock(&self.0).known.drain().try_for_each(|(_, (tree, found))| tree.forget(&found))
    }
}

impl World {
    fn new(rootfs: &Tree, process: &Process, scratch: &Path) -> Result<World, SandboxError> {
        let failed = |error: Errno| SandboxError::Setup {
            action: format!("could not look at the rootfs `{}`", rootfs.path().display()),
            source: error.into(),
        };
        let tree = Arc::new(rootfs.share()?);
        let tasks = Arc::new(Tasks::new(random().map_err(failed)?));
        let network = process.network == Network::Host;
        let procfs = procfs::View::new(tasks.clone(), scratch.to_owned(), network);
        let (places, root) = Places::new(tree.clone(), procfs).map_err(failed)?;
        let cwd = Node::Dir(root.clone());
        let mark = tasks.mark(State {
            ids: Ids::root(),
            umask: 0o022,
            cwd,
            root: root.clone(),
            exe: Arc::from([]),
            program: None,
            guarded: false,
            gains_nothing: false,
            is_filtered: false,
            programs: 0,
        });
        Ok(World {
            places,
            root,
            tasks,
            tree,
            forms: Forms::new(),
            hostname: process.hostname.clone(),
            network,
            pass: random().map_err(failed)?,
            mark,
            began: links::Began::now(),
            linked: Mutex::default(),
            nameless: Nameless::default(),
            written: written::Log::default(),
            terminals: Mutex::default(),
            sockets: Arc::default(),
            ipc: ipc::Ipc::default(),
            giving: RwLock::default(),
            terminal: process.terminal.as_ref().and_then(|path| Some(rustix::fs::stat(path).ok()?.st_rdev)),
            waiting: waiting::Waiting::default(),
            mount_lines: Mutex::new(vec!["overlay / overlay rw,relatime 0 0\n".to_owned()]),
        })
    }

    fn mounts_text(&self) -> Vec<u8> {
        lock(&self.mount_lines).concat().into_bytes()
    }

    fn giving(&self) -> RwLockReadGuard<'_, ()> {
        self.giving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the builder itself has nothing open that the step has got meanwhile.
    fn given(&self) {
        drop(self.giving.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn decide(&self, call: &Call, listener: &Listener) -> Result<Reply, Errno> {
        let (operation, arguments) = self.forms.of(call.abi(), call.number, &call.arguments).ok_or(Errno::NOSYS)?;
        let view = View { state: self.tasks.of(call.thread)?, thread: call.thread };
        // Then it was the caller's number all the while.
        if !listener.waits(call) {
            return Err(Errno::SRCH);
        }
        let caller = Caller { world: self, call, listener, view, arguments };
        change::settled(|| calls::perform(operation, &caller))
    }
}

impl Supervisor for World {
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 4))
    }

    fn is_quick(&self, call: &Call) -> bool {
        self.forms.of(call.abi(), call.number, &call.arguments).is_some_and(|(operation, _)| operation.is_quick())
    }

    fn answer(&self, call: &Call, listener: &Listener) -> Answer {
        // A fault of ours fails one call of the step, and not the build.
        let decided = catch_unwind(AssertUnwindSafe(|| self.decide(call, listener)));
        match decided.unwrap_or(Err(Errno::IO)) {
            Ok(Reply::Value(value)) => Answer::Value(Ok(value)),
            Ok(Reply::Given) => Answer::Given,
            // Whoever says so has said why it is safe.
            Ok(Reply::Continue) => Answer::Continue,
            Err(error) => Answer::Value(Err(error)),
        }
    }

    fn look_after(&self) {
        self.waiting.call_back(false);
    }

    /// Lets go of whoever waits for the other side of a fifo.
    fn end(&self) {
        self.waiting.end();
    }
}

/// Lets this process have as many files open as it may: it opens for all that a step does. Gives what it had before.
fn raise_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    before.current
}

/// Gives up the capabilities of this process: with some of them the kernel would keep owners and modes that without the others
/// have to be pretended. What is left lets root read a context that another user made, and write what was asked for beside
/// it; a step's supervisor, and so the step, does not have it ([`give_up_all_rights`]).
pub fn give_up_rights() -> io::Result<()> {
    // Otherwise programs that root executes would get them all back (capabilities(7)), and we could not look into them.
    rustix::thread::set_no_new_privs(true)?;
    let _ = rustix::thread::clear_ambient_capability_set();
    let had = rustix::thread::capabilities(None)?.permitted;
    hold(had & CapabilitySet::DAC_OVERRIDE)
}

/// The rest, of this process, which has one thread.
fn give_up_all_rights() -> io::Result<()> {
    hold(CapabilitySet::empty())
}

fn hold(rights: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective: rights, permitted: rights, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// A number that nobody guesses.
pub fn random() -> rustix::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // Never 0, which any call may have there.
    Ok(u64::from_le_bytes(bytes) | 1 << 63)
}
