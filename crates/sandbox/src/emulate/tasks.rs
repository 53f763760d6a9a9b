//! The processes of a step and what each believes of itself: ids, umask, directories, program.
//!
//! Nobody tells when a process is made: one that calls for the first time takes after its parent. So that the parent is still
//! what it was then, its children are looked for before it changes or ends ([`Tasks::changing`]).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::io::Errno;

use super::ids::Ids;
use super::place::{Dir, Id, Node, View, lock};

/// After so many new threads those that are gone are forgotten: much earlier than their numbers can come back.
const SWEEP: usize = 512;

#[derive(Clone)]
pub struct State {
    pub ids: Ids,
    pub umask: u32,
    pub cwd: Node,
    pub root: Arc<Dir>,
    /// The program's path as the step sees it; empty until the first execve.
    pub exe: Vec<u8>,
    /// What file the program is.
    pub program: Option<Id>,
}

pub struct Process {
    /// Number of its first thread.
    pub id: u32,
    state: Mutex<State>,
    has_threads: AtomicBool,
}

impl Process {
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    pub fn view(&self, thread: u32) -> View {
        let state = lock(&self.state);
        View { root: state.root.clone(), cwd: state.cwd.clone(), ids: state.ids.clone(), process: self.id, thread }
    }

    pub fn ids(&self) -> Ids {
        lock(&self.state).ids.clone()
    }

    pub fn umask(&self) -> u32 {
        lock(&self.state).umask
    }
}

/// All processes of one step.
#[derive(Default)]
pub struct Tasks {
    /// By the number of each thread that has called.
    threads: Mutex<HashMap<u32, Arc<Process>>>,
    first: OnceLock<State>,
    first_process: OnceLock<u32>,
    /// All programs that were executed, running or not.
    executed: Mutex<HashSet<Id>>,
    /// Who takes the step's orphans.
    reaper: OnceLock<u32>,
    made: AtomicUsize,
}

impl Tasks {
    /// What the first process is, before anything calls.
    pub fn begin(&self, state: State) {
        let _ = self.first.set(state);
    }

    /// The process that a thread belongs to.
    pub fn of(&self, thread: u32) -> Result<Arc<Process>, Errno> {
        if let Some(process) = lock(&self.threads).get(&thread) {
            return Ok(process.clone());
        }
        let (process, parent) = family(thread).ok_or(Errno::SRCH)?;
        if process != thread {
            let process = self.of(process)?;
            process.has_threads.store(true, Ordering::Relaxed);
            return Ok(self.add(thread, process));
        }
        let state = self.inherited(parent)?;
        self.first_process.get_or_init(|| thread);
        Ok(self.add(thread, made(thread, state)))
    }

    /// Number of the first process, while there is one.
    pub fn first(&self) -> Option<u32> {
        self.first_process.get().copied().filter(|first| family(*first).is_some())
    }

    /// What a new process has from its parent.
    fn inherited(&self, parent: u32) -> Result<State, Errno> {
        let first = self.first.get().ok_or(Errno::SRCH)?;
        let reaper = *self.reaper.get_or_init(|| parent);
        // An orphan whose parent died of a signal: nobody knows more about it.
        if parent == reaper || parent == 0 {
            return Ok(first.clone());
        }
        Ok(self.of(parent)?.state())
    }

    fn add(&self, thread: u32, process: Arc<Process>) -> Arc<Process> {
        let mut threads = lock(&self.threads);
        if self.made.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            threads
                .retain(|thread, _| rustix::fs::access(format!("/proc/{thread}"), rustix::fs::Access::EXISTS).is_ok());
        }
        threads.entry(thread).or_insert(process).clone()
    }

    /// Changes what a process is. Its children that have not called yet are first given what it was.
    pub fn changing<T>(&self, process: &Process, change: impl FnOnce(&mut State) -> T) -> T {
        self.settle_children(process);
        change(&mut lock(&process.state))
    }

    pub fn settle_children(&self, process: &Process) {
        for child in children(process) {
            let known = lock(&self.threads).contains_key(&child);
            if !known && family(child).is_some_and(|(leader, parent)| leader == child && parent == process.id) {
                self.add(child, made(child, process.state()));
            }
        }
    }

    /// Makes a process another program, found at `exe`.
    pub fn execute(&self, process: &Process, ids: Ids, exe: &[u8], program: Id) {
        lock(&self.executed).insert(program);
        self.changing(process, |state| {
            state.ids = ids;
            state.exe = exe.to_owned();
            state.program = Some(program);
        });
    }

    /// Whether a file has ever been a program. Few have: the answer costs nothing where a file is opened to write.
    pub fn has_executed(&self, program: Id) -> bool {
        lock(&self.executed).contains(&program)
    }

    /// Whether a process runs this file. `is_path` says of the path by which it was executed whether it counts.
    pub fn runs(&self, program: Id, is_path: impl Fn(&[u8]) -> bool) -> bool {
        let runs = |process: &Process| {
            let state = lock(&process.state);
            state.program == Some(program) && is_path(&state.exe)
        };
        let threads = lock(&self.threads);
        let running: Vec<u32> =
            threads.iter().filter(|(_, process)| runs(process)).map(|(thread, _)| *thread).collect();
        drop(threads);
        running.into_iter().any(has_memory)
    }

    /// The process with this number, if it is the step's own.
    pub fn known(&self, process: u32) -> Option<Arc<Process>> {
        let known = lock(&self.threads).get(&process).cloned();
        known.or_else(|| if self.is_own(process) { self.of(process).ok() } else { None })
    }

    /// Whether a process or thread is below the step's reaper now, whatever was known of its number before.
    pub fn holds(&self, thread: u32) -> bool {
        let Some(reaper) = self.reaper.get() else { return false };
        let mut at = thread;
        while let Some((_, parent)) = family(at) {
            if parent == *reaper {
                return true;
            }
            if parent <= 1 {
                return false;
            }
            at = parent;
        }
        false
    }

    /// All processes below the step's reaper.
    pub fn all(&self) -> Vec<u32> {
        let mut all = Vec::new();
        let mut next = self.reaper.get().copied().map(children_of).unwrap_or_default();
        while let Some(process) = next.pop() {
            next.extend(children_of(process));
            all.push(process);
        }
        all
    }

    /// Whether a process is below the step's reaper.
    fn is_own(&self, process: u32) -> bool {
        let Some(reaper) = self.reaper.get() else { return false };
        let mut at = process;
        for _ in 0..64 {
            match family(at) {
                Some((_, parent)) if parent == *reaper => return true,
                Some((_, parent)) if parent > 1 => at = parent,
                _ => return false,
            }
            if lock(&self.threads).contains_key(&at) {
                return true;
            }
        }
        false
    }
}

fn made(id: u32, state: State) -> Arc<Process> {
    Arc::new(Process { id, state: Mutex::new(state), has_threads: AtomicBool::new(false) })
}

/// Whether a thread has not ended: of one that its parent has not waited for yet there is only the number left.
fn has_memory(thread: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{thread}/stat")).unwrap_or_default();
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|end| stat.get(end + 2));
    state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
}

/// Numbers of a thread's process and of its parent.
fn family(thread: u32) -> Option<(u32, u32)> {
    let status = std::fs::read(format!("/proc/{thread}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((field("Tgid:")?, field("PPid:")?))
}

/// Children of a process (of all its threads). Without CONFIG_PROC_CHILDREN none are known.
fn children(process: &Process) -> Vec<u32> {
    let of_thread = |thread: u32| {
        let text = std::fs::read_to_string(format!("/proc/{}/task/{thread}/children", process.id)).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
    };
    if !process.has_threads.load(Ordering::Relaxed) {
        return of_thread(process.id);
    }
    children_of(process.id)
}

/// Children of all threads of a process.
fn children_of(process: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|entry| std::fs::read_to_string(entry.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>())
        .collect()
}
