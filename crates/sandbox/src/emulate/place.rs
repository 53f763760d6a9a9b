//! Where a path of the step leads: directories, what is mapped over them, and the walk.
//!
//! Every component is opened by itself, from a directory that is open already, and no link is followed by the kernel: what
//! is looked at is what is used, whatever the step renames meanwhile. `..` stops at the step's root.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use rootfs::Tree;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::procfs::{self, Proc};
use super::stand_in::{StandIn, StandIns};
use super::tasks::View;

/// As many links as the kernel follows (`linux/namei.h` MAXSYMLINKS).
const LINKS: u32 = 40;
pub const NAME_MAX: usize = 255;
/// Directories that are held open for the walks to come, at most; less where few files may be open.
const CACHED: usize = 2000;

/// Device and inode number.
pub type Id = (u64, u64);

pub fn id_of(found: &Statx) -> Id {
    (rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino)
}

pub fn type_of(found: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(found.stx_mode))
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under a lock is a single one: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory tree of the host that the step sees somewhere.
pub struct Area {
    /// What the step calls it.
    pub shown: Vec<u8>,
    /// Its path on the host, to tell what a descriptor is.
    host: Mutex<Arc<[u8]>>,
    /// Its topmost directory, by which the path is found again when somebody on the host has moved it.
    top: OwnedFd,
    pub read_only: bool,
    /// Others may change it at the same time: nothing is remembered of it.
    pub shared: bool,
    /// Who knows its owners and modes; none for what is really the host's.
    pub tree: Option<Arc<Tree>>,
    pub root: Id,
    /// The directory that it is mapped in; none for the rootfs.
    above: Option<Arc<Dir>>,
}

impl Area {
    /// What follows its own path in a path of the host, if that lies there.
    fn holds<'p>(&self, host: &'p [u8]) -> Option<&'p [u8]> {
        let known = lock(&self.host).clone();
        let rest = below(host, &known);
        if rest.is_some() || !self.shared {
            return rest;
        }
        let now = path_by_kernel(self.top.as_fd()).ok()?;
        let rest = below(host, &now);
        if *now != *known {
            *lock(&self.host) = now.into();
        }
        rest
    }

    /// What the step calls what follows its own path.
    fn shown(&self, rest: &[u8]) -> Vec<u8> {
        match (self.shown.as_slice(), rest) {
            (b"/", b"") => b"/".to_vec(),
            (b"/", rest) => rest.to_vec(),
            (shown, rest) => [shown, rest].concat(),
        }
    }

    /// Whether it is the one in which all others are mapped.
    pub fn is_rootfs(&self) -> bool {
        self.above.is_none()
    }
}

/// One directory that is known. There is one of these at a time for each directory in each area.
pub struct Dir {
    pub fd: OwnedFd,
    pub id: Id,
    pub area: Arc<Area>,
    children: Mutex<HashMap<Box<[u8]>, Child>>,
    mounted: Mutex<HashMap<Box<[u8]>, Mounted>>,
}

impl std::fmt::Debug for Dir {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Dir({:?})", self.id)
    }
}

impl PartialEq for Dir {
    /// There is one of these at a time for each.
    fn eq(&self, other: &Dir) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Dir {}

impl std::hash::Hash for Dir {
    fn hash<H: std::hash::Hasher>(&self, to: &mut H) {
        self.id.hash(to);
    }
}

#[derive(Clone)]
enum Child {
    Dir(Arc<Dir>),
    /// Its text, and whose it is.
    Link(Arc<[u8]>, u32),
}

/// What is mapped over a name.
#[derive(Clone)]
pub enum Mounted {
    Dir(Arc<Dir>),
    Proc,
    File(Arc<Mapped>),
}

/// A file that is mapped.
pub struct Mapped {
    /// `O_PATH`, or a file in memory.
    pub file: OwnedFd,
    pub shown: Vec<u8>,
    pub read_only: bool,
    /// Mode and owner, for a file that nobody else has.
    pub looks: Option<(u32, u32, u32)>,
    pub tree: Option<Arc<Tree>>,
    pub id: Id,
}

/// A place to walk from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Node {
    Dir(Arc<Dir>),
    Proc(Proc),
}

/// What a walk came to.
pub enum Spot {
    /// A name in a directory; whether there is such a file is for `found` to say.
    Entry(Arc<Dir>, CString),
    Node(Node),
    Mapped(Arc<Mapped>),
    /// One of the step's own open files.
    Open(Opened),
}

/// A file that a process of the step has open, taken from it once: what is looked at is what is used, whatever its threads put
/// under the same number meanwhile.
pub struct Opened {
    /// `O_PATH`
    pub file: OwnedFd,
    /// Whose it is, and under which number.
    pub owner: (u32, i32),
    /// Where it lies. A file that lies nowhere in the step may be used as it was opened, and never be opened again.
    pub area: Option<Arc<Area>>,
}

pub struct Target {
    pub spot: Spot,
    /// As the step sees it; none where there is nothing.
    pub found: Option<Statx>,
}

impl Target {
    pub fn existing(&self) -> Result<&Statx, Errno> {
        self.found.as_ref().ok_or(Errno::NOENT)
    }
}

/// What the builder is: files of the host that belong to it are root's for the step. One of its groups is a volume's
/// (a pod's `fsGroup`).
struct Own {
    user: u32,
    groups: Vec<u32>,
}

impl Own {
    fn find() -> Own {
        let others = rustix::process::getgroups().unwrap_or_default();
        let groups = others.into_iter().chain([rustix::process::getegid()]).map(|group| group.as_raw()).collect();
        Own { user: rustix::process::geteuid().as_raw(), groups }
    }
}

/// All that a step can see.
pub struct Places {
    /// One for each area that it is in.
    known: Mutex<HashMap<Id, Vec<Weak<Dir>>>>,
    areas: Mutex<Vec<Arc<Area>>>,
    /// Files that are mapped, by what a descriptor of them is.
    files: Mutex<HashMap<Id, Arc<Mapped>>>,
    /// What the step has got empty files for.
    stand_ins: StandIns,
    /// Held to write while a file is made whose owner is noted after it has its name, and to read by whoever looks.
    noting: RwLock<()>,
    /// Directories in which something is mapped, so that they stay known.
    mount_points: Mutex<Vec<Arc<Dir>>>,
    pub procfs: procfs::View,
    own: Own,
    /// The devices of files in memory, of pipes and of sockets.
    nameless: [(u32, u32); 3],
    cached: usize,
}

pub const LOOK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

pub fn look(at: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    rustix::fs::statx(at, c"", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT, LOOK)
}

fn look_at(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Statx> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, LOOK)
}

impl Places {
    /// With `tree` as the rootfs.
    pub fn new(tree: Arc<Tree>, procfs: procfs::View) -> rustix::io::Result<(Places, Arc<Dir>)> {
        let places = Places {
            known: Mutex::default(),
            areas: Mutex::default(),
            files: Mutex::default(),
            stand_ins: StandIns::default(),
            noting: RwLock::default(),
            mount_points: Mutex::default(),
            procfs,
            own: Own::find(),
            nameless: nameless()?,
            cached: cached(),
        };
        let fd = open_path(CWD, tree.path().as_os_str().as_bytes(), OFlags::DIRECTORY)?;
        let root = places.map(fd, b"/".to_vec(), None, false, false, Some(tree.clone()))?;
        Ok((places, root))
    }

    /// Makes a directory of the host known.
    pub fn map(
        &self,
        fd: OwnedFd,
        shown: Vec<u8>,
        above: Option<Arc<Dir>>,
        read_only: bool,
        shared: bool,
        tree: Option<Arc<Tree>>,
    ) -> rustix::io::Result<Arc<Dir>> {
        let id = id_of(&look(fd.as_fd())?);
        let host = Mutex::new(path_by_kernel(fd.as_fd())?.into());
        let top = rustix::io::fcntl_dupfd_cloexec(&fd, 0)?;
        let area = Arc::new(Area { shown, host, top, read_only, shared, tree, root: id, above });
        lock(&self.areas).push(area.clone());
        Ok(self.intern(fd, id, &area))
    }

    pub fn add_file(&self, mapped: Arc<Mapped>) {
        lock(&self.files).insert(mapped.id, mapped);
    }

    /// What a file that the step has open stands for, if it is not to be taken as it is.
    fn stand_in(&self, id: Id) -> Option<StandIn> {
        if let Some(mapped) = lock(&self.files).get(&id) {
            return Some(StandIn::File(mapped.clone()));
        }
        self.procfs.stands_for(id).map(StandIn::Node).or_else(|| self.stand_ins.get(id))
    }

    /// An empty file that stands for what may not be given away.
    pub fn stand_for(&self, what: StandIn) -> Result<OwnedFd, Errno> {
        self.stand_ins.make(what, &self.procfs.tasks)
    }

    /// As long as it lives no file is seen between its making and the note of its owner, and none gets another name.
    fn noted(&self) -> RwLockReadGuard<'_, ()> {
        self.noting.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a file and notes its owner, before anybody sees it.
    pub fn making<T>(&self, make: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        let _noting = self.noting.write().unwrap_or_else(PoisonError::into_inner);
        make()
    }

    /// Whether a file is one that has no name on the host: a pipe, a socket, or a file in memory. No right is taken from anybody by
    /// opening it again, as the kernel does.
    pub fn is_anonymous(&self, file: BorrowedFd<'_>) -> Result<bool, Errno> {
        let found = look(file)?;
        Ok(self.nameless.contains(&(found.stx_dev_major, found.stx_dev_minor)))
    }

    /// Puts something over a name of a directory. It stays there for the whole run.
    pub fn mount(&self, dir: &Arc<Dir>, name: &[u8], mounted: Mounted) {
        lock(&dir.mounted).insert(name.into(), mounted);
        lock(&self.mount_points).push(dir.clone());
    }

    fn intern(&self, fd: OwnedFd, id: Id, area: &Arc<Area>) -> Arc<Dir> {
        let mut known = lock(&self.known);
        if let Some(dir) = alive(&known, id).find(|dir| Arc::ptr_eq(&dir.area, area)) {
            return dir;
        }
        if known.len() >= self.cached {
            let all: Vec<Arc<Dir>> = known.values().flatten().filter_map(Weak::upgrade).collect();
            let forgotten: Vec<_> = all.iter().map(|dir| std::mem::take(&mut *lock(&dir.children))).collect();
            drop(forgotten);
            drop(all);
            known.retain(|_, dirs| dirs.iter().any(|dir| dir.strong_count() > 0));
        }
        let dir = Dir { fd, id, area: area.clone(), children: Mutex::default(), mounted: Mutex::default() };
        let dir = Arc::new(dir);
        let dirs = known.entry(id).or_default();
        dirs.retain(|dir| dir.strong_count() > 0);
        dirs.push(Arc::downgrade(&dir));
        dir
    }

    /// What the step is to see of a file in an area.
    pub fn present(&self, tree: Option<&Tree>, found: &mut Statx) {
        match tree {
            Some(tree) => tree.present(found),
            None => {
                if found.stx_uid == self.own.user {
                    found.stx_uid = 0;
                }
                if self.own.groups.contains(&found.stx_gid) {
                    found.stx_gid = 0;
                }
            }
        }
    }

    /// As [`Places::present`], of a file that may be in any area: no two trees know the same one, and what none knows looks
    /// the same in all.
    fn present_open(&self, found: &mut Statx) {
        let areas = lock(&self.areas);
        let knowing = areas.iter().filter_map(|area| area.tree.as_deref()).find(|tree| tree.knows(found));
        self.present(knowing, found);
    }

    pub fn seen(&self, dir: &Dir) -> Result<Statx, Errno> {
        let _noted = self.noted();
        let mut found = look(dir.fd.as_fd())?;
        self.present(dir.area.tree.as_deref(), &mut found);
        Ok(found)
    }

    /// Looks at a name in a directory; what is mapped over it is not seen.
    pub fn seen_at(&self, dir: &Dir, name: &[u8]) -> Result<Option<Statx>, Errno> {
        let _noted = self.noted();
        match look_at(dir.fd.as_fd(), name) {
            Ok(mut found) => {
                self.present(dir.area.tree.as_deref(), &mut found);
                Ok(Some(found))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a name still is what it was when it was judged. Within [`Places::changing`] or [`Places::making`], where nobody
    /// of the step makes or moves anything meanwhile.
    pub fn is_still(&self, dir: &Dir, name: &[u8], before: Option<&Statx>) -> bool {
        let now = look_at(dir.fd.as_fd(), name).ok().map(|mut now| {
            self.present(dir.area.tree.as_deref(), &mut now);
            now
        });
        match (&now, before) {
            (None, None) => true,
            (Some(now), Some(before)) => id_of(now) == id_of(before) && now.stx_uid == before.stx_uid,
            _ => false,
        }
    }

    /// What has been opened in an area, as the kernel has it and as the step sees it.
    pub fn seen_opened(&self, tree: Option<&Tree>, file: BorrowedFd<'_>) -> Result<(Statx, Statx), Errno> {
        let _noted = self.noted();
        let real = look(file)?;
        let mut found = real;
        self.present(tree, &mut found);
        Ok((real, found))
    }

    pub fn seen_file(&self, mapped: &Mapped) -> Result<Statx, Errno> {
        let mut found = look(mapped.file.as_fd())?;
        self.present(mapped.tree.as_deref(), &mut found);
        if let Some((mode, uid, gid)) = mapped.looks {
            found.stx_mode = (found.stx_mode & !0o7777) | mode as u16;
            (found.stx_uid, found.stx_gid) = (uid, gid);
        }
        Ok(found)
    }

    /// The directory that `..` means.
    fn above(&self, view: &View, at: &Node) -> Result<Node, Errno> {
        let dir = match at {
            Node::Proc(proc) => {
                return Ok(match proc.above() {
                    Some(above) => Node::Proc(above),
                    None => Node::Dir(view.root.clone()),
                });
            }
            Node::Dir(dir) => dir,
        };
        if dir.id == view.root.id {
            return Ok(Node::Dir(dir.clone()));
        }
        if dir.id == dir.area.root {
            return Ok(Node::Dir(dir.area.above.clone().unwrap_or_else(|| dir.clone())));
        }
        let fd = open_path(dir.fd.as_fd(), b"..", OFlags::DIRECTORY)?;
        // What somebody has moved out of the area is not connected with it any more (`fs/namei.c` path_connected).
        if dir.area.shared && dir.area.holds(&path_by_kernel(fd.as_fd())?).is_none() {
            return Err(Errno::NOENT);
        }
        let id = id_of(&look(fd.as_fd())?);
        Ok(Node::Dir(self.intern(fd, id, &dir.area)))
    }

    /// Goes one component down, not at the end of a path.
    fn enter(&self, dir: &Arc<Dir>, name: &[u8]) -> Result<Child, Errno> {
        // Held until what was found has been written down: who removes a name waits for it.
        let mut children = lock(&dir.children);
        if let Some(child) = children.get(name) {
            return Ok(child.clone());
        }
        let fd = open_path(dir.fd.as_fd(), name, OFlags::empty())?;
        let found = look(fd.as_fd())?;
        let child = match type_of(&found) {
            FileType::Symlink => {
                let mut seen = found;
                self.present(dir.area.tree.as_deref(), &mut seen);
                Child::Link(read_link(fd.as_fd(), b"")?.into(), seen.stx_uid)
            }
            // A link back to the directory whose children are locked is none: that would be a loop of directories.
            FileType::Directory => {
                drop(children);
                let child = Child::Dir(self.intern(fd, id_of(&found), &dir.area));
                if dir.area.shared {
                    return Ok(child);
                }
                children = lock(&dir.children);
                // Whoever removed the name in between found nothing to forget.
                if look_at(dir.fd.as_fd(), name).is_ok_and(|now| id_of(&now) == id_of(&found)) {
                    children.insert(name.into(), child.clone());
                }
                return Ok(child);
            }
            _ => return Err(Errno::NOTDIR),
        };
        if !dir.area.shared {
            children.insert(name.into(), child.clone());
        }
        Ok(child)
    }

    fn mounted(&self, dir: &Dir, name: &[u8]) -> Option<Mounted> {
        lock(&dir.mounted).get(name).cloned()
    }

    pub fn is_mounted(&self, dir: &Dir, name: &[u8]) -> bool {
        lock(&dir.mounted).contains_key(name)
    }

    /// Resolves `path`, which begins at `start` unless it is absolute. With `follow` a link at its end is followed, and with a
    /// slash after it in any case: then it has to be a directory.
    pub fn walk(&self, view: &View, start: &Node, path: &[u8], follow: bool) -> Result<Target, Errno> {
        match self.walk_to_name(view, start, path, follow)? {
            (target, true) if target.found.as_ref().is_some_and(|found| !type_of(found).is_dir()) => Err(Errno::NOTDIR),
            (target, _) => Ok(target),
        }
    }

    /// As [`Places::walk`], where it is for the caller to judge a slash at the end: whether there is one after the name that
    /// was come to, in the path or in the link that led there.
    pub fn walk_to_name(&self, view: &View, start: &Node, path: &[u8], follow: bool) -> Result<(Target, bool), Errno> {
        let mut links = 0;
        let mut rest = path.to_vec();
        let mut at = if path.starts_with(b"/") { Node::Dir(view.root.clone()) } else { start.clone() };
        loop {
            let Some((name, after)) = next(&rest) else { return Ok((self.at_node(at)?, false)) };
            let is_last = after.iter().all(|byte| *byte == b'/');
            let wants_directory = is_last && !after.is_empty();
            if name.len() > NAME_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            let step = match (&at, name) {
                (Node::Dir(dir), _) if self.may_search(view, dir).is_err() => return Err(Errno::ACCESS),
                (_, b".") => Step::Go(at.clone()),
                (_, b"..") => Step::Go(self.above(view, &at)?),
                (Node::Proc(proc), name) => self.in_proc(view, proc, name, is_last, follow || wants_directory)?,
                (Node::Dir(dir), name) => self.in_directory(view, dir, name, is_last, follow || wants_directory)?,
            };
            let after = after.to_vec();
            match step {
                Step::Go(node) => {
                    at = node;
                    rest = after;
                }
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.starts_with(b"/") {
                        at = Node::Dir(view.root.clone());
                    }
                    rest = [&target, b"/".as_slice(), &after].concat();
                    // A link's own text does not ask for a directory.
                    if is_last && !wants_directory && !target.ends_with(b"/") {
                        rest.pop();
                    }
                }
                // What is no directory has nothing below it.
                Step::End(_) if !is_last => return Err(Errno::NOTDIR),
                Step::End(target) => return Ok((target, wants_directory)),
            }
        }
    }

    pub fn at_node(&self, at: Node) -> Result<Target, Errno> {
        let found = match &at {
            Node::Dir(dir) => self.seen(dir)?,
            Node::Proc(proc) => self.procfs.look(proc)?,
        };
        Ok(Target { spot: Spot::Node(at), found: Some(found) })
    }

    fn in_directory(
        &self,
        view: &View,
        dir: &Arc<Dir>,
        name: &[u8],
        is_last: bool,
        follow: bool,
    ) -> Result<Step, Errno> {
        match self.mounted(dir, name) {
            Some(Mounted::Dir(dir)) => return Ok(Step::Go(Node::Dir(dir))),
            Some(Mounted::Proc) => return Ok(Step::Go(Node::Proc(Proc::root()))),
            Some(Mounted::File(_)) if !is_last => return Err(Errno::NOTDIR),
            Some(Mounted::File(file)) => {
                let found = Some(self.seen_file(&file)?);
                return Ok(Step::End(Target { spot: Spot::Mapped(file), found }));
            }
            None => {}
        }
        if !is_last {
            return Ok(match self.enter(dir, name)? {
                Child::Dir(dir) => Step::Go(Node::Dir(dir)),
                Child::Link(target, owner) => {
                    self.may_follow(view, dir, owner)?;
                    Step::Link(target.to_vec())
                }
            });
        }
        let found = self.seen_at(dir, name)?;
        if follow && let Some(link) = found.as_ref().filter(|found| type_of(found).is_symlink()) {
            self.may_follow(view, dir, link.stx_uid)?;
            return Ok(Step::Link(read_link(dir.fd.as_fd(), name)?));
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        Ok(Step::End(Target { spot: Spot::Entry(dir.clone(), name), found }))
    }

    /// Whether a directory is above another one, or that one.
    pub fn is_above(&self, found: &Statx, below: &Arc<Dir>) -> bool {
        if !type_of(found).is_dir() {
            return false;
        }
        let (mut at, id) = (below.clone(), id_of(found));
        loop {
            if at.id == id {
                return true;
            }
            if at.id == at.area.root {
                return false;
            }
            let above =
                open_path(at.fd.as_fd(), b"..", OFlags::DIRECTORY).and_then(|fd| Ok((id_of(&look(fd.as_fd())?), fd)));
            let Ok((id, fd)) = above else { return false };
            // A tree that was moved out of its area never comes by the area's root (see `above`).
            let is_outside =
                || at.area.shared && path_by_kernel(fd.as_fd()).map_or(true, |path| at.area.holds(&path).is_none());
            if id == at.id || is_outside() {
                return false;
            }
            at = self.intern(fd, id, &at.area);
        }
    }

    /// Whose links are followed in a directory in which everybody has files of their own (`fs/namei.c` may_follow_link;
    /// proc_sys_fs(5) protected_symlinks).
    fn may_follow(&self, view: &View, dir: &Dir, owner: u32) -> Result<(), Errno> {
        const EVERYBODYS: u32 = libc::S_ISVTX | libc::S_IWOTH;
        if owner == view.ids.user.files || setting("protected_symlinks") == 0 {
            return Ok(());
        }
        let found = self.seen(dir)?;
        let is_everybodys = u32::from(found.stx_mode) & EVERYBODYS == EVERYBODYS;
        if is_everybodys && found.stx_uid != owner { Err(Errno::ACCESS) } else { Ok(()) }
    }

    fn in_proc(&self, view: &View, proc: &Proc, name: &[u8], is_last: bool, follow: bool) -> Result<Step, Errno> {
        let below = self.procfs.enter(proc, name, view)?;
        match below {
            procfs::Below::Plain(below) if is_last => {
                let found = Some(self.procfs.look(&below)?);
                Ok(Step::End(Target { spot: Spot::Node(Node::Proc(below)), found }))
            }
            procfs::Below::Plain(below) => Ok(Step::Go(Node::Proc(below))),
            procfs::Below::Link(below, _) | procfs::Below::Magic(below, _) if is_last && !follow => {
                let found = Some(self.procfs.look(&below)?);
                Ok(Step::End(Target { spot: Spot::Node(Node::Proc(below)), found }))
            }
            procfs::Below::Link(_, target) => Ok(Step::Link(target)),
            procfs::Below::Magic(_, magic) => self.magic(view, magic),
        }
    }

    /// Follows a link of /proc that leads to what a process has, whatever its text is.
    fn magic(&self, view: &View, magic: procfs::Magic) -> Result<Step, Errno> {
        self.procfs.looking(view, magic.process(), || self.followed(view, &magic))
    }

    fn followed(&self, view: &View, magic: &procfs::Magic) -> Result<Step, Errno> {
        match *magic {
            procfs::Magic::Root(_) => Ok(Step::Go(Node::Dir(view.root.clone()))),
            procfs::Magic::Cwd(process) => Ok(Step::Go(self.procfs.cwd_of(process).ok_or(Errno::NOENT)?)),
            procfs::Magic::Program(process) => {
                let exe = self.procfs.exe_of(process).ok_or(Errno::NOENT)?;
                Ok(Step::Link(exe))
            }
            procfs::Magic::Open { process, number } => self.opened(process, number),
        }
    }

    /// One of the step's own open files.
    pub fn opened(&self, process: u32, number: i32) -> Result<Step, Errno> {
        let target = self.descriptor(process, number)?;
        match target {
            Target { spot: Spot::Node(node), .. } => Ok(Step::Go(node)),
            target => Ok(Step::End(target)),
        }
    }

    /// What a descriptor of a process or thread is: the one door to what the step has open.
    pub fn descriptor(&self, owner: u32, number: i32) -> Result<Target, Errno> {
        let file = take(owner, number)?;
        let mut found = look(file.as_fd())?;
        let id = id_of(&found);
        if let Some(stand_in) = self.stand_in(id) {
            return self.stood_for(stand_in);
        }
        if type_of(&found).is_dir() {
            let node = self.directory_of(file, id)?;
            return self.at_node(node);
        }
        let area = self.area_of(&path_by_kernel(file.as_fd())?);
        self.present(area.as_ref().and_then(|area| area.tree.as_deref()), &mut found);
        Ok(Target { spot: Spot::Open(Opened { file, owner: (owner, number), area }), found: Some(found) })
    }

    /// As the step sees a descriptor, for those who only look.
    pub fn seen_descriptor(&self, owner: u32, number: i32) -> Result<Statx, Errno> {
        let path = descriptor_path(owner, number)?;
        let noted = self.noted();
        let mut found = match rustix::fs::statx(CWD, path.as_c_str(), AtFlags::NO_AUTOMOUNT, LOOK) {
            Err(Errno::NOENT) => return Err(Errno::BADF),
            found => found?,
        };
        if let Some(stand_in) = self.stand_in(id_of(&found)) {
            // It looks by itself: who asks twice waits for ever behind one that makes a file.
            drop(noted);
            return self.stood_for(stand_in)?.existing().copied();
        }
        self.present_open(&mut found);
        Ok(found)
    }

    fn stood_for(&self, stand_in: StandIn) -> Result<Target, Errno> {
        match stand_in {
            StandIn::Node(node) => self.at_node(node),
            StandIn::File(mapped) => {
                let found = Some(self.seen_file(&mapped)?);
                Ok(Target { spot: Spot::Mapped(mapped), found })
            }
        }
    }

    /// A directory that the step has open.
    fn directory_of(&self, file: OwnedFd, id: Id) -> Result<Node, Errno> {
        // In several areas: nobody says by which of them it was opened, and a right is never more than it may be.
        let known = alive(&lock(&self.known), id).max_by_key(|dir| dir.area.read_only);
        if let Some(dir) = known {
            return Ok(Node::Dir(dir));
        }
        let host = path_by_kernel(file.as_fd())?;
        if let Some(proc) = Proc::of_host(&host) {
            return Ok(Node::Proc(proc));
        }
        let area = self.area_of(&host).ok_or(Errno::ACCESS)?;
        Ok(Node::Dir(self.intern(file, id, &area)))
    }

    /// The area that a path of the host lies in; of several the one with the least rights.
    fn area_of(&self, host: &[u8]) -> Option<Arc<Area>> {
        let areas = lock(&self.areas);
        let holding = areas.iter().filter_map(|area| Some((area, area.holds(host)?.len())));
        holding.max_by_key(|(area, rest)| (area.read_only, host.len() - rest)).map(|(area, _)| area.clone())
    }

    /// What the step calls a path of the host.
    pub fn shown(&self, host: &[u8]) -> Vec<u8> {
        // What lies in none is nothing that the step could name.
        let Some(area) = self.area_of(host) else { return shown_of_none(host) };
        let rest = area.holds(host).unwrap_or_default();
        area.shown(rest)
    }

    /// The path of a directory, as the step sees it.
    pub fn path_of(&self, node: &Node) -> Result<Vec<u8>, Errno> {
        let dir = match node {
            Node::Proc(proc) => return Ok(proc.path().to_vec()),
            Node::Dir(dir) => dir,
        };
        let host = path_by_kernel(dir.fd.as_fd())?;
        if host.ends_with(b" (deleted)") {
            return Err(Errno::NOENT);
        }
        let rest = dir.area.holds(&host).ok_or(Errno::NOENT)?;
        Ok(dir.area.shown(rest))
    }

    /// The path of a name in a directory.
    pub fn path_of_entry(&self, dir: &Arc<Dir>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut path = self.path_of(&Node::Dir(dir.clone()))?;
        if path != b"/" {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    /// The path of a directory for somebody with this view, who may have changed its root.
    pub fn path_in(&self, view: &View, node: &Node) -> Result<Vec<u8>, Errno> {
        let path = self.path_of(node)?;
        let root = self.path_of(&Node::Dir(view.root.clone()))?;
        match below(&path, &root) {
            Some(b"") => Ok(b"/".to_vec()),
            Some(rest) => Ok(rest.to_vec()),
            None => Ok([b"(unreachable)".as_slice(), &path].concat()),
        }
    }

    pub fn may_search(&self, view: &View, dir: &Dir) -> Result<(), Errno> {
        if view.ids.is_root() || dir.area.tree.is_none() {
            return Ok(());
        }
        view.ids.may(&self.seen(dir)?, super::ids::EXECUTE)
    }

    /// Does something to names of a directory that may take them away, and forgets what was known of them.
    pub fn changing<T>(
        &self,
        names: &[(&Dir, &[u8])],
        change: impl FnOnce() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let mut dirs: Vec<&Dir> = names.iter().map(|(dir, _)| *dir).collect();
        dirs.sort_by_key(|dir| dir.id);
        dirs.dedup_by_key(|dir| dir.id);
        let mut held: Vec<(Id, MutexGuard<'_, _>)> = dirs.iter().map(|dir| (dir.id, lock(&dir.children))).collect();
        let mut forgotten = Vec::new();
        for (dir, name) in names {
            let children = held.iter_mut().find(|(id, _)| *id == dir.id);
            forgotten.extend(children.and_then(|(_, children)| children.remove(*name)));
        }
        let noted = self.noted();
        let result = change();
        drop(noted);
        drop(held);
        // Closes directories, and their children's, without any lock held.
        drop(forgotten);
        result
    }
}

impl Drop for Places {
    /// A mounted directory knows what is above it, and that what is mounted: without this they would never go.
    fn drop(&mut self) {
        for dir in lock(&self.mount_points).drain(..) {
            lock(&dir.mounted).clear();
        }
    }
}

fn alive(known: &HashMap<Id, Vec<Weak<Dir>>>, id: Id) -> impl Iterator<Item = Arc<Dir>> {
    known.get(&id).into_iter().flatten().filter_map(Weak::upgrade)
}

/// A number of the host's in /proc/sys/fs, as it was at first.
pub fn setting(name: &'static str) -> u8 {
    static KNOWN: Mutex<Option<HashMap<&'static str, u8>>> = Mutex::new(None);
    *lock(&KNOWN).get_or_insert_default().entry(name).or_insert_with(|| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    })
}

fn nameless() -> rustix::io::Result<[(u32, u32); 3]> {
    let device = |file: OwnedFd| look(file.as_fd()).map(|found| (found.stx_dev_major, found.stx_dev_minor));
    let memory = rustix::fs::memfd_create("device", rustix::fs::MemfdFlags::CLOEXEC)?;
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?.0;
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, None)?;
    Ok([device(memory)?, device(pipe)?, device(socket)?])
}

fn cached() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(CACHED, |limit| CACHED.min(limit as usize / 4))
}

/// What a component leads to.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack, on the way of every call")]
pub enum Step {
    Go(Node),
    Link(Vec<u8>),
    End(Target),
}

/// The next component and what follows it.
fn next(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = rest.iter().position(|byte| *byte != b'/')?;
    let rest = &rest[start..];
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    Some(rest.split_at(end))
}

/// A path without the slashes at its end, and whether there were any. `/` stays.
pub fn without_slashes(path: &[u8]) -> (&[u8], bool) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(path.len().min(1), |last| last + 1);
    (&path[..end], end < path.len())
}

/// What follows `above` in `path`, if it lies there.
fn below<'p>(path: &'p [u8], above: &[u8]) -> Option<&'p [u8]> {
    if above == b"/" {
        return Some(path);
    }
    path.strip_prefix(above).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

pub fn open_path(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags, Mode::empty())
}

pub fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// The path of what is open, as links of /proc have it.
pub fn path_by_kernel(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<u8>> {
    read_link(CWD, own_path(file).as_bytes())
}

fn descriptor_path(owner: u32, number: i32) -> Result<CString, Errno> {
    CString::new(format!("/proc/{owner}/fd/{number}")).map_err(|_| Errno::INVAL)
}

/// Takes what a process or thread has open, as `O_PATH`: it is looked up once.
pub fn take(owner: u32, number: i32) -> Result<OwnedFd, Errno> {
    let path = descriptor_path(owner, number)?;
    match rustix::fs::open(path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => Err(Errno::BADF),
        taken => taken,
    }
}

/// What the kernel calls a file that lies nowhere in the step: pipes and the like have no path of the host.
fn shown_of_none(host: &[u8]) -> Vec<u8> {
    if host.starts_with(b"/") && !host.starts_with(b"/memfd:") { b"/".to_vec() } else { host.to_vec() }
}

/// The path by which this process reaches what it has open.
pub fn own_path(file: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

impl Places {
    /// The directory of this name, if that is what it is.
    pub fn walk_into(&self, dir: &Arc<Dir>, name: &[u8]) -> Result<Option<Arc<Dir>>, Errno> {
        match self.enter(dir, name)? {
            Child::Dir(dir) => Ok(Some(dir)),
            Child::Link(_, _) => Ok(None),
        }
    }
}
