//! Empty files that the step gets in the place of what cannot be given away.
//!
//! A descriptor of `O_PATH` cannot be given to another process (seccomp_unotify(2)), and one that can be read would be more than
//! the step may have. So it gets a file in memory with nothing in it, by which the builder knows what was meant.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, MemfdFlags, StatxFlags};
use rustix::io::Errno;

use super::place::{Id, Mapped, Node, id_of, lock, look};
use super::tasks::Tasks;

/// First number of them at which those are looked for that the step has closed.
const SWEEP: usize = 128;

/// What is stood for.
#[derive(Clone)]
pub enum StandIn {
    Node(Node),
    File(Arc<Mapped>),
}

#[derive(Default)]
struct Known {
    /// With the number of each, in the order of their making.
    all: HashMap<Id, (u64, StandIn)>,
    made: u64,
    /// How many were made before the last sweep. Later ones may not have been given yet.
    swept: u64,
    sweep_at: usize,
}

#[derive(Default)]
pub struct StandIns {
    known: Mutex<Known>,
}

impl StandIns {
    pub fn get(&self, id: Id) -> Option<StandIn> {
        lock(&self.known).all.get(&id).map(|(_, what)| what.clone())
    }

    /// The step closes its files unseen, so from time to time its descriptors are looked through.
    pub fn make(&self, what: StandIn, tasks: &Tasks) -> Result<OwnedFd, Errno> {
        let empty = rustix::fs::memfd_create("path", MemfdFlags::CLOEXEC)?;
        let id = id_of(&look(empty.as_fd())?);
        let mut known = lock(&self.known);
        let gone =
            if known.all.len() >= known.sweep_at.max(SWEEP) { known.sweep(&open_files(tasks)) } else { Vec::new() };
        known.made += 1;
        let number = known.made;
        known.all.insert(id, (number, what));
        drop(known);
        // Closes files, without the lock.
        drop(gone);
        Ok(empty)
    }
}

impl Known {
    /// Takes out what nobody has open.
    fn sweep(&mut self, open: &HashSet<Id>) -> Vec<(u64, StandIn)> {
        let (all, swept) = (&mut self.all, self.swept);
        let gone: Vec<Id> =
            all.iter().filter(|(id, (number, _))| *number <= swept && !open.contains(id)).map(|(id, _)| *id).collect();
        let gone = gone.iter().filter_map(|id| all.remove(id)).collect();
        self.swept = self.made;
        self.sweep_at = self.all.len() + SWEEP;
        gone
    }
}

/// What all processes of the step have open.
fn open_files(tasks: &Tasks) -> HashSet<Id> {
    let files = tasks.all().into_iter().flat_map(|process| {
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| {
            rustix::fs::statx(CWD, entry.path(), AtFlags::NO_AUTOMOUNT, StatxFlags::INO).ok().map(|found| id_of(&found))
        })
    });
    files.collect()
}
