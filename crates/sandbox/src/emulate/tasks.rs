//! The processes of a step and what each believes of itself: ids, umask, directories, program.
//!
//! What a process is, is kept by a number that the kernel carries along for us: the soft limit of `RLIMIT_LOCKS`, which means
//! nothing since Linux 2.4.25 (getrlimit(2)). A child has it from whoever made it, at the moment at which it was made, however it
//! was made and whoever has died since; it outlasts execve(2); and the step cannot set it (`filter`). So nobody has to be told
//! of new processes, and a process number that is given again says nothing of who had it before: a process without one
//! of our numbers is not the step's.
//!
//! A state is never changed: a process that changes gets the number of another one.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock};

use rustix::io::Errno;

use super::ids::Ids;
use super::place::{Dir, Id, Node, lock};
use crate::sys;

/// What `RLIMIT_LOCKS` says of a process.
pub type Mark = u64;

/// More programs than anybody starts while something is opened, few enough for processes of one kind to share states.
const PROGRAMS: u8 = 64;

/// After so many states those that nobody has are forgotten.
const SWEEP: usize = 1024;

#[derive(Clone)]
pub struct State {
    pub ids: Ids,
    pub umask: u32,
    pub cwd: Node,
    pub root: Arc<Dir>,
    /// The program's path as the step sees it; empty until the first execve.
    pub exe: Arc<[u8]>,
    /// What file the program is.
    pub program: Option<Id>,
    /// Its memory is not for others of the same user: it runs a program that gave it other ids or that they may not read, or it has
    /// changed its ids since (`kernel/cred.c` commit_creds, `fs/exec.c` would_dump).
    pub guarded: bool,
    /// `no_new_privs`, as the process believes it: no program gives it other ids.
    pub gains_nothing: bool,
    /// It has a filter of its own, and the kernel may tell it, or have it tell the builder, what is not so.
    pub is_filtered: bool,
    /// How many programs it, and before it whoever made it, has executed, modulo [`PROGRAMS`]: before and after another program a
    /// process does not have the same state.
    pub programs: u8,
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.ids == other.ids
            && self.umask == other.umask
            && self.cwd == other.cwd
            && Arc::ptr_eq(&self.root, &other.root)
            && self.exe == other.exe
            && self.program == other.program
            && self.guarded == other.guarded
            && self.gains_nothing == other.gains_nothing
            && self.is_filtered == other.is_filtered
            && self.programs == other.programs
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        // All that tells states apart: a step makes as many as it likes, and comparing them takes its time.
        self.ids.hash(to);
        self.umask.hash(to);
        self.guarded.hash(to);
        self.gains_nothing.hash(to);
        self.is_filtered.hash(to);
        self.programs.hash(to);
        self.cwd.hash(to);
        self.root.hash(to);
        self.exe.hash(to);
        self.program.hash(to);
    }
}

/// With whose eyes a path is read.
#[derive(Clone)]
pub struct View {
    pub state: Arc<State>,
    pub thread: u32,
}

impl Deref for View {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl View {
    /// The number of its process.
    pub fn process(&self) -> u32 {
        process_of(self.thread).unwrap_or(self.thread)
    }
}

#[derive(Default)]
struct States {
    by_mark: HashMap<Mark, Arc<State>>,
    marks: HashMap<Arc<State>, Mark>,
    next: Mark,
    sweep_at: usize,
}

/// All processes of one step.
pub struct Tasks {
    states: Mutex<States>,
    /// Held while a process gets another state: two threads of it may change at the same time.
    changing: Mutex<()>,
    /// All programs that were executed, running or not.
    executed: Mutex<HashSet<Id>>,
    first: OnceLock<u32>,
    /// Who takes the step's orphans.
    reaper: OnceLock<u32>,
}

impl Tasks {
    /// `seed`: a number that no other step has anything near.
    pub fn new(seed: u64) -> Tasks {
        // Never what a limit is by itself, and room to count.
        let states = States { next: (seed >> 3) | 1 << 60, sweep_at: SWEEP, ..States::default() };
        Tasks {
            states: Mutex::new(states),
            changing: Mutex::default(),
            executed: Mutex::default(),
            first: OnceLock::new(),
            reaper: OnceLock::new(),
        }
    }

    /// The mark of a state.
    pub fn mark(&self, state: State) -> Mark {
        let mut states = lock(&self.states);
        if let Some(mark) = states.marks.get(&state) {
            return *mark;
        }
        let (mark, state) = (states.next, Arc::new(state));
        states.next += 1;
        states.by_mark.insert(mark, state.clone());
        states.marks.insert(state, mark);
        mark
    }

    /// What a thread's process is; none where it is not of this step. The builder is of none, whatever its number says.
    pub fn known(&self, thread: u32) -> Option<Arc<State>> {
        let is_ours = thread == 0 || sys::is_own_thread(thread);
        if is_ours { None } else { self.marked(thread) }
    }

    fn marked(&self, thread: u32) -> Option<Arc<State>> {
        lock(&self.states).by_mark.get(&mark_of(thread)?).cloned()
    }

    /// As [`Tasks::known`], of one that calls, and so is none of the builder's.
    pub fn of(&self, thread: u32) -> Result<Arc<State>, Errno> {
        let state = self.marked(thread).ok_or(Errno::SRCH)?;
        if self.first.get().is_none() {
            self.first.get_or_init(|| thread);
            self.reaper.get_or_init(|| family(thread).map_or(0, |(_, parent)| parent));
        }
        Ok(state)
    }

    /// Number of the first process, while there is one.
    pub fn first(&self) -> Option<u32> {
        self.first.get().copied().filter(|first| self.holds(*first))
    }

    /// Changes what the process of a thread is. Whether the number still is that thread's `is_there` says: one that is killed
    /// meanwhile leaves it to anybody.
    pub fn changing<T>(
        &self,
        thread: u32,
        is_there: impl Fn() -> bool,
        change: impl FnOnce(&mut State) -> T,
    ) -> Result<T, Errno> {
        let _changing = lock(&self.changing);
        let before = self.known(thread).ok_or(Errno::SRCH)?;
        let mut state = State::clone(&before);
        let result = change(&mut state);
        if state != *before {
            let mark = self.mark(state);
            if !is_there() {
                return Err(Errno::SRCH);
            }
            set_mark(thread, mark)?;
            if !is_there() {
                // Whoever has the number now is nothing of the step's, and the one that had it is gone.
                let _ = set_mark(thread, libc::RLIM64_INFINITY);
                return Err(Errno::SRCH);
            }
            self.sweep();
        }
        Ok(result)
    }

    /// Makes a process another program. It is traced: its number is nobody else's.
    pub fn execute(&self, process: u32, program: Id, change: impl FnOnce(&mut State)) -> Result<(), Errno> {
        lock(&self.executed).insert(program);
        self.changing(
            process,
            || true,
            |state| {
                state.programs = (state.programs + 1) % PROGRAMS;
                change(state);
            },
        )
    }

    /// Forgets states that no process has. A process can get one that it does not have yet only from whoever has it, and two looks
    /// at all processes are enough to see one of both, unless process numbers began anew in between: such a process is
    /// not known any more, and none of its calls succeeds.
    fn sweep(&self) {
        let states = lock(&self.states);
        if states.by_mark.len() < states.sweep_at {
            return;
        }
        drop(states);
        let live: HashSet<Mark> = (0..2).flat_map(|_| all_processes()).filter_map(mark_of).collect();
        let mut states = lock(&self.states);
        let gone: Vec<Mark> = states.by_mark.keys().filter(|mark| !live.contains(mark)).copied().collect();
        let gone: Vec<Arc<State>> = gone.iter().filter_map(|mark| states.by_mark.remove(mark)).collect();
        for state in &gone {
            states.marks.remove(state);
        }
        states.sweep_at = SWEEP.max(2 * states.by_mark.len());
        drop(states);
        // Closes directories, without any lock.
        drop(gone);
    }

    /// Whether a file has ever been a program. Few have: the answer costs nothing where a file is opened to write.
    pub fn has_executed(&self, program: Id) -> bool {
        lock(&self.executed).contains(&program)
    }

    /// Whether a process runs this file. `is_path` says of the path by which it was executed whether it counts.
    pub fn runs(&self, program: Id, is_path: impl Fn(&[u8]) -> bool) -> bool {
        let runs = |state: &State| state.program == Some(program) && is_path(&state.exe);
        if !lock(&self.states).by_mark.values().any(|state| runs(state)) {
            return false;
        }
        let running = |process: &u32| self.known(*process).is_some_and(|state| runs(&state)) && has_memory(*process);
        all_processes().any(|process| running(&process))
    }

    /// Whether a process or thread is of this step now, whatever was known of its number before.
    pub fn holds(&self, thread: u32) -> bool {
        self.known(thread).is_some()
    }

    /// All processes of the step.
    pub fn all(&self) -> Vec<u32> {
        all_processes().filter(|process| self.holds(*process)).collect()
    }
}

/// Sets the mark of this process, before it is one of a step.
pub fn begin(mark: Mark) -> Result<(), Errno> {
    set_mark(0, mark)
}

/// Whether processes can be marked.
pub fn works(process: u32, mark: Mark) -> Result<(), Errno> {
    set_mark(process, mark)?;
    if mark_of(process) == Some(mark) { Ok(()) } else { Err(Errno::NOTSUP) }
}

/// The soft limit, and the hard one as it is by default.
fn mark_of(thread: u32) -> Option<Mark> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64.
    let done = unsafe { libc::prlimit64(thread as libc::pid_t, LOCKS, std::ptr::null(), &raw mut limit) };
    (done == 0).then_some(limit.rlim_cur)
}

fn set_mark(thread: u32, mark: Mark) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: mark, rlim_max: libc::RLIM64_INFINITY };
    // SAFETY: the kernel reads one rlimit64.
    let done = unsafe { libc::prlimit64(thread as libc::pid_t, LOCKS, &raw const limit, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::SRCH)) }
}

/// `asm-generic/resource.h`
pub const RLIMIT_LOCKS: u32 = 10;
#[cfg(target_env = "musl")]
const LOCKS: libc::c_int = RLIMIT_LOCKS as libc::c_int;
#[cfg(not(target_env = "musl"))]
const LOCKS: libc::__rlimit_resource_t = RLIMIT_LOCKS;

/// Numbers of all processes that are to be seen.
fn all_processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process has not ended: of one that its parent has not waited for yet there is only the number left.
fn has_memory(process: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|end| stat.get(end + 2));
    state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
}

/// The process that a thread is of.
pub fn process_of(thread: u32) -> Option<u32> {
    family(thread).map(|(process, _)| process)
}

/// Numbers of a thread's process and of its parent.
fn family(thread: u32) -> Option<(u32, u32)> {
    let status = std::fs::read(format!("/proc/{thread}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((field("Tgid:")?, field("PPid:")?))
}
