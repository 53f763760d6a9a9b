//! What is remembered of a step's sockets: duplicates to work on, names, and who is behind them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::emulate::place::{Id, lock};
use crate::emulate::seats::Seats;
use crate::emulate::tasks::Tasks;

/// As many of each kind of record: the oldest go.
const RECORDS: usize = 4096;
/// First time at which duplicates of sockets that the step has closed are looked for.
const SWEEP: usize = 128;

/// A map that forgets what has been in it for the longest time.
struct Recent<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// Has what was there before the last `put` of this key.
    fn restore(&mut self, key: K, before: Option<V>) {
        match before {
            Some(value) => self.put(key, value),
            None => {
                self.map.remove(&key);
                self.order.retain(|known| *known != key);
            }
        }
    }

    fn put(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > RECORDS {
            if let Some(oldest) = self.order.pop_front() {
                self.map.remove(&oldest);
            }
        }
    }
}

/// A process as its peer sees it.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub process: u32,
    pub user: u32,
    pub group: u32,
    pub groups: Arc<[u32]>,
}

/// The builder's duplicate of a socket of the step's.
pub struct Kept {
    pub socket: OwnedFd,
    pub inode: u64,
    pub domain: i32,
    pub kind: i32,
    /// The step has it.
    pub given: AtomicBool,
}

impl Kept {
    pub fn is_unix(&self) -> bool {
        self.domain == libc::AF_UNIX
    }

    /// Whether it has nothing more to ask for once it is connected, and its peer waits for its end.
    pub fn is_stream(&self) -> bool {
        matches!(self.kind, libc::SOCK_STREAM | libc::SOCK_SEQPACKET)
    }
}

/// A socket that was bound to a path.
#[derive(Clone)]
struct Bound {
    /// As the step gave it.
    shown: Vec<u8>,
    owner: Credentials,
}

/// A connection that the builder made for the step.
#[derive(Clone)]
struct Connection {
    client: Credentials,
    server: Option<Credentials>,
    /// Where it leads, as the client gave it.
    to: Vec<u8>,
}

#[derive(Default)]
struct Records {
    /// By the socket's inode.
    bound: Recent<u64, Bound>,
    connected: Recent<u64, Connection>,
    /// Sockets by the files that they are bound to.
    files: Recent<Id, u64>,
    /// What the step calls the paths by which the kernel knows its sockets: as it gave them, and from the root.
    names: Recent<Vec<u8>, (Vec<u8>, Vec<u8>)>,
    /// Sockets by their names without a path.
    abstracts: Recent<Vec<u8>, u64>,
    /// Who connected last.
    latest: Option<Credentials>,
}

#[derive(Default)]
pub struct Sockets {
    kept: Mutex<HashMap<u64, Arc<Kept>>>,
    records: Mutex<Records>,
    sweep_at: AtomicUsize,
    serial: AtomicU64,
    pub seats: Seats,
}

impl Sockets {
    pub fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a duplicate. The step closes its sockets unseen, so from time to time its descriptors are looked through.
    pub fn keep(&self, socket: Arc<Kept>, tasks: &Tasks) {
        let count = {
            let mut kept = lock(&self.kept);
            kept.insert(socket.inode, socket);
            kept.len()
        };
        if count > self.sweep_at.load(Ordering::Relaxed).max(SWEEP) {
            self.sweep(tasks);
        }
    }

    pub fn kept(&self, inode: u64) -> Option<Arc<Kept>> {
        lock(&self.kept).get(&inode).cloned()
    }

    pub fn forget(&self, inode: u64) {
        let dropped = lock(&self.kept).remove(&inode);
        drop(dropped);
    }

    /// Lets go of what no process of the step has any more. One that is on its way from process to process (SCM_RIGHTS) may
    /// be missed: it works on, but for names.
    pub fn sweep(&self, tasks: &Tasks) {
        let open = open_sockets(tasks);
        let most = most();
        let mut kept = lock(&self.kept);
        let mut dropped: Vec<Arc<Kept>> = Vec::new();
        kept.retain(|inode, socket| {
            let stays = open.contains(inode) || !socket.given.load(Ordering::Relaxed);
            if !stays {
                dropped.push(socket.clone());
            }
            stays
        });
        while kept.len() > most {
            let Some(any) = kept.keys().next().copied() else { break };
            dropped.extend(kept.remove(&any));
        }
        self.sweep_at.store((kept.len() * 2).min(most), Ordering::Relaxed);
        drop(kept);
        drop(dropped);
    }

    pub fn bound(&self, inode: u64, file: Id, kernel: Vec<u8>, shown: Vec<u8>, absolute: Vec<u8>, owner: Credentials) {
        let mut records = lock(&self.records);
        records.names.put(kernel, (shown.clone(), absolute));
        records.files.put(file, inode);
        records.bound.put(inode, Bound { shown, owner });
    }

    pub fn bound_abstract(&self, name: Vec<u8>, inode: u64, owner: Credentials) {
        let mut records = lock(&self.records);
        records.abstracts.put(name.clone(), inode);
        records.bound.put(inode, Bound { shown: name, owner });
    }

    /// The socket of the step with an abstract name.
    pub fn abstract_name(&self, name: &[u8]) -> Option<u64> {
        lock(&self.records).abstracts.map.get(name).copied()
    }

    pub fn listens(&self, inode: u64, owner: Credentials) {
        if let Some(bound) = lock(&self.records).bound.map.get_mut(&inode) {
            bound.owner = owner;
        }
        if self.kept(inode).is_some_and(|kept| kept.is_stream()) {
            self.forget(inode);
        }
    }

    /// The socket behind a file.
    pub fn server(&self, file: Id) -> Option<u64> {
        lock(&self.records).files.map.get(&file).copied()
    }

    /// Connects a socket by `connect`. Who it is is written down before: whoever accepts may ask at once.
    pub fn connecting(
        &self,
        socket: &Kept,
        server: Option<u64>,
        to: Vec<u8>,
        client: Credentials,
        connect: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let before = {
            let mut records = lock(&self.records);
            let server = server.and_then(|inode| records.bound.map.get(&inode)).map(|bound| bound.owner.clone());
            records.latest = Some(client.clone());
            let before = records.connected.map.get(&socket.inode).cloned();
            records.connected.put(socket.inode, Connection { client, server, to });
            before
        };
        let connected = connect();
        match connected {
            Ok(()) | Err(Errno::INPROGRESS) if socket.is_stream() => self.forget(socket.inode),
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(_) => lock(&self.records).connected.restore(socket.inode, before),
        }
        connected
    }

    /// Two sockets that somebody made connected to each other.
    pub fn paired(&self, inodes: [u64; 2], by: &Credentials) {
        let mut records = lock(&self.records);
        for inode in inodes {
            let connection = Connection { client: by.clone(), server: Some(by.clone()), to: Vec::new() };
            records.connected.put(inode, connection);
        }
    }

    /// Who listens where this client is connected.
    pub fn server_of(&self, client: u64) -> Option<Credentials> {
        lock(&self.records).connected.map.get(&client)?.server.clone()
    }

    pub fn client(&self, inode: u64) -> Option<Credentials> {
        lock(&self.records).connected.map.get(&inode).map(|connection| connection.client.clone())
    }

    pub fn latest_client(&self) -> Option<Credentials> {
        lock(&self.records).latest.clone()
    }

    /// The address that the step gave to a socket.
    pub fn shown(&self, inode: u64) -> Option<Vec<u8>> {
        lock(&self.records).bound.map.get(&inode).map(|bound| bound.shown.clone())
    }

    pub fn shown_peer(&self, inode: u64) -> Option<Vec<u8>> {
        lock(&self.records).connected.map.get(&inode).map(|connection| connection.to.clone())
    }

    /// What the step gave where the kernel says this.
    pub fn shown_for(&self, kernel: &[u8]) -> Option<Vec<u8>> {
        lock(&self.records).names.map.get(kernel).map(|(shown, _)| shown.clone())
    }

    /// The step's path, from the root, of a name that the kernel has told it (recvfrom(2), accept(2)).
    pub fn absolute_for(&self, kernel: &[u8]) -> Option<Vec<u8>> {
        lock(&self.records).names.map.get(kernel).map(|(_, absolute)| absolute.clone())
    }
}

/// As many duplicates as leave the builder room for everything else.
fn most() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(4096);
    usize::try_from(limit / 4).unwrap_or(4096).clamp(16, 4096)
}

/// Inodes of all sockets that processes of the step have open.
fn open_sockets(tasks: &Tasks) -> HashSet<u64> {
    let links = tasks.all().into_iter().flat_map(|process| {
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
    });
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_records_are_kept() {
        let mut recent = Recent::default();
        for number in 0..=RECORDS {
            recent.put(number, ());
            recent.put(number, ());
        }
        assert_eq!(recent.map.len(), RECORDS);
        assert!(!recent.map.contains_key(&0) && recent.map.contains_key(&RECORDS));
    }
}
