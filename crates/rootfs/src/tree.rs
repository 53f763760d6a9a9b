//! A directory handle and everything beneath it, with the metadata table.

pub(crate) mod at;
mod descent;
mod handle;
mod own;
mod pretend;
pub(crate) mod resolve;
mod sys;
mod table;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub(crate) use descent::Descent;
pub use own::OwnFiles;
pub use pretend::Wanted;
pub(crate) use sys::{Found, Key, Xattrs, raw_xattrs, remove_raw_xattr, set_raw_xattr};
use table::Table;

use crate::RootfsError;
use crate::contents::Contents;
use crate::stop::{Stop, is_stop};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl FileKind {
    const ALL: [FileKind; 7] = [
        FileKind::File,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharDevice,
        FileKind::BlockDevice,
    ];

    /// For formats on disk.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn of_number(number: u8) -> Option<FileKind> {
        FileKind::ALL.get(usize::from(number)).copied()
    }
}

/// What a file is in the image: the table's answer where it has one, else the kernel's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metadata {
    pub kind: FileKind,
    /// Permission bits with set-id and sticky (`0o7777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Major, minor; (0, 0) unless a device.
    pub device: (u32, u32),
    pub size_bytes: u64,
    /// Seconds and nanoseconds since the epoch.
    pub modified: (i64, u32),
    pub changed: (i64, u32),
    pub inode: u64,
    /// `st_dev`, so that mount points below the tree can be told.
    pub device_id: u64,
    pub links: u64,
}

/// A directory tree. Paths given to it are relative to its root (a leading `/` is ignored); `..` stops at the root and
/// symbolic links are resolved against the root (`openat2` RESOLVE_IN_ROOT, or a walker where the kernel lacks it). The last
/// component is never followed unless the function says so.
///
/// Owners, modes, device numbers and `security.*` attributes that the kernel refuses, or drops without a word, are kept in
/// the tree's table and come back from [`Tree::stat`] and [`Tree::xattrs`]. Without a table the refusal is an error.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
    openat2: bool,
    /// Owners go to the kernel. Otherwise every file belongs to this process, the table says whose it is in the image
    /// (nobody's entry: root's), and real modes keep what the process needs to reach its own files.
    gives_files_away: bool,
    table: Option<Arc<Mutex<Table>>>,
    table_path: Option<PathBuf>,
    /// Whether the table has entries: spares the lock where it has none. Of a table that is shared with other processes this
    /// says nothing.
    has_entries: Arc<AtomicBool>,
    is_shared: bool,
    /// By inode: the change time that [`Tree::moved_back`] left a file with, and the one that counts instead.
    returned: Arc<Mutex<HashMap<u64, (Time, Time)>>>,
    /// It is a mounted overlay: a file is to be in the upper directory before the table has anything of it.
    is_overlay: bool,
    /// What is in its files, where that is remembered.
    contents: Option<Arc<Contents>>,
    /// The builder's own files, where it is a directory of the user's.
    hidden: Option<own::Hidden>,
    /// Ends long work on it.
    stop: Stop,
}

/// Seconds and nanoseconds since the epoch.
type Time = (i64, u32);

impl Tree {
    /// Opens an existing directory. With `table`, metadata that the kernel refuses to set is kept in that file, and nobody else
    /// changes it as long as the tree is open.
    pub fn open(path: &Path, table: Option<&Path>) -> Result<Tree, RootfsError> {
        let table = table.map(|file| Table::open(file).map_err(unreadable_table(file))).transpose()?;
        Tree::with_table(path, table)
    }

    /// The same of a directory that other processes have open as well, each with the table: what one of them has set all see,
    /// and nothing of it is lost. `stop` ends the waiting for others.
    pub fn open_shared(path: &Path, table: &Path, stop: &Stop) -> Result<Tree, RootfsError> {
        let table = Table::open_shared(table, stop).map_err(unreadable_table(table))?;
        Ok(Tree::with_table(path, Some(table))?.stopping(stop))
    }

    fn with_table(path: &Path, table: Option<Table>) -> Result<Tree, RootfsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| io_error("could not open the directory", path, error.into()))?;
        let table_path = table.as_ref().map(|table| table.path().to_owned());
        Ok(Tree {
            openat2: sys::has_openat2(root.as_fd()),
            root,
            path: path.to_owned(),
            gives_files_away: sys::may_give_files_away(),
            has_entries: Arc::new(AtomicBool::new(table.as_ref().is_some_and(|table| !table.is_empty()))),
            is_shared: table.as_ref().is_some_and(Table::is_shared),
            table: table.map(|table| Arc::new(Mutex::new(table))),
            table_path,
            returned: Arc::default(),
            is_overlay: false,
            contents: None,
            hidden: None,
            stop: Stop::default(),
        })
    }

    /// Opens an overlay that is mounted at `path`. What is pretended of a file of a lower directory is pretended of its copy
    /// in the upper one, where [`crate::overlay::follow_entries`] finds it.
    pub fn open_overlay(path: &Path, table: &Path) -> Result<Tree, RootfsError> {
        Ok(Tree { is_overlay: true, ..Tree::open(path, Some(table))? })
    }

    /// The same tree, with the same table, for somebody else.
    pub fn share(&self) -> Result<Tree, RootfsError> {
        let root =
            self.root.try_clone().map_err(|error| io_error("could not open the directory", &self.path, error))?;
        let (table, has_entries, returned) = (self.table.clone(), self.has_entries.clone(), self.returned.clone());
        let (contents, hidden, stop) = (self.contents.clone(), self.hidden.clone(), self.stop.clone());
        let table_path = self.table_path.clone();
        Ok(Tree {
            root,
            path: self.path.clone(),
            table,
            table_path,
            has_entries,
            returned,
            contents,
            hidden,
            stop,
            ..*self
        })
    }

    /// Has long work on the tree end with [`RootfsError::Cancelled`] once `stop` says so.
    pub fn stopping(self, stop: &Stop) -> Tree {
        Tree { stop: stop.clone(), ..self }
    }

    /// What ends long work on the tree.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Asked once a file by whoever works on many.
    pub(crate) fn go_on(&self) -> Result<(), RootfsError> {
        if self.stop.is_set() { Err(RootfsError::Cancelled) } else { Ok(()) }
    }

    /// Makes an empty directory (0755) and opens it.
    pub fn create(path: &Path, table: Option<&Path>) -> Result<Tree, RootfsError> {
        std::fs::create_dir(path).map_err(|error| io_error("could not make the directory", path, error))?;
        let tree = Tree::open(path, table)?;
        tree.set_mode(Path::new(""), 0o755)?;
        Ok(tree)
    }

    /// Has the contents of files remembered from now on that unpacking a layer brings and [`crate::commit::commit`] puts into
    /// one, so that a later commit leaves a file out that a step touched and left as it was. The list is made as the file
    /// `list`, which has no name any more when this returns.
    ///
    /// Whatever else changes the tree must be committed, or what is remembered is wrong.
    pub fn remember_contents(self, list: &Path) -> Result<Tree, RootfsError> {
        Ok(Tree { contents: Some(Arc::new(Contents::create(list)?)), ..self })
    }

    pub fn remembers_contents(&self) -> bool {
        self.contents.is_some()
    }

    pub(crate) fn contents(&self) -> Option<&Contents> {
        self.contents.as_deref()
    }

    /// The metadata table's file, where the tree has one; it may not be there yet.
    pub fn table_file(&self) -> Option<&Path> {
        self.table_path.as_deref()
    }

    /// Whether other processes may change the table at any time ([`Tree::open_shared`]).
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Reads what another process has written to the table meanwhile, by agreement.
    pub fn reread_table(&self) -> Result<(), RootfsError> {
        let Some(mut table) = self.locked_table() else { return Ok(()) };
        table.reread(&self.stop).map_err(|error| unreadable_table(table.path())(error))?;
        self.has_entries.store(!table.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Where the tree is on the host. For the sandbox and for messages, not for joining.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `path` with every symbolic link resolved inside the tree, the last component included when `follow_last`.
    /// Components that do not exist are kept as they are. No leading `/`; the root is the empty path.
    ///
    /// # Errors
    /// After 40 links, as the kernel does.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf, RootfsError> {
        resolve::resolve(self.root.as_fd(), path, follow_last)
            .map_err(|error| inside_error("could not resolve", path, error))
    }

    /// Metadata of the file itself (a symbolic link is not followed); none where it does not exist.
    pub fn stat(&self, path: &Path) -> Result<Option<Metadata>, RootfsError> {
        match self.split(path) {
            Ok((directory, name)) => self
                .stat_at(directory.as_fd(), name)
                .map(|found| found.map(|found| found.metadata))
                .map_err(|error| inside_error("could not read the metadata of", path, error)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(inside_error("could not read the metadata of", path, error.into())),
        }
    }

    /// Says that a file was moved away and is back, which is no change though it has set the change time: `before` is what
    /// [`Tree::stat`] said of it before. A file that differs in anything else is not the one that was moved, and counts.
    pub fn moved_back(&self, path: &Path, before: &Metadata) -> Result<(), RootfsError> {
        let Some(now) = self.stat(path)? else { return Ok(()) };
        if (Metadata { changed: before.changed, ..now.clone() }) != *before {
            return Ok(());
        }
        let was = self.counted_change(before);
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).insert(now.inode, (now.changed, was));
        Ok(())
    }

    /// The change time of a file by which a commit judges.
    pub(crate) fn counted_change(&self, metadata: &Metadata) -> Time {
        let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        match returned.get(&metadata.inode) {
            Some((left, was)) if *left == metadata.changed => *was,
            _ => metadata.changed,
        }
    }

    /// Names in a directory, sorted by bytes.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<OsString>, RootfsError> {
        self.at(path, "could not read the directory", |directory, name| {
            let directory = self.open_dir_at(directory, name)?;
            let mut names = at::names(directory.as_fd())?;
            names.sort_unstable();
            Ok(names)
        })
    }

    /// Opens a regular file to read; the last component is followed. The access time stays where the kernel allows it.
    ///
    /// # Errors
    /// What is no regular file is not opened (opening a device can have effects).
    pub fn open_file(&self, path: &Path) -> Result<File, RootfsError> {
        let resolved = self.resolve(path, true)?;
        self.at(&resolved, "could not open", |directory, name| self.open_file_at(directory, name))
    }

    pub fn read_link(&self, path: &Path) -> Result<PathBuf, RootfsError> {
        self.at(path, "could not read the link", at::read_link)
    }

    /// `security.capability` and `user.*` attributes, sorted by name.
    pub fn xattrs(&self, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>, RootfsError> {
        self.at(path, "could not read the attributes of", |directory, name| self.xattrs_at(directory, name))
    }

    /// Makes a directory; its parent must exist. Fails with `AlreadyExists`.
    ///
    /// The umask does not matter. Its owner is this process's until [`Tree::set_owner`].
    pub fn make_dir(&self, path: &Path, mode: u32) -> Result<(), RootfsError> {
        self.at(path, "could not make the directory", |directory, name| self.make_dir_at(directory, name, mode))
    }

    /// Makes a new regular file to write (O_EXCL) and returns it. Its mode is 0600 until [`Tree::set_mode`].
    pub fn make_file(&self, path: &Path) -> Result<File, RootfsError> {
        self.at(path, "could not make the file", at::make_file)
    }

    pub fn make_symlink(&self, target: &Path, path: &Path) -> Result<(), RootfsError> {
        self.at(path, "could not make the symbolic link", |directory, name| {
            Ok(rustix::fs::symlinkat(target, directory, name)?)
        })
    }

    /// Makes `path` another name of the file `existing` (not followed).
    pub fn make_link(&self, existing: &Path, path: &Path) -> Result<(), RootfsError> {
        self.at(existing, "could not link to", |from, existing| {
            let (to, name) = self.split(path)?;
            Ok(rustix::fs::linkat(from, existing, to, name, rustix::fs::AtFlags::empty())?)
        })
    }

    /// Makes a fifo, socket or device node (a placeholder with an entry in the table where mknod is refused).
    pub fn make_node(&self, path: &Path, kind: FileKind, device: (u32, u32)) -> Result<(), RootfsError> {
        self.at(path, "could not make the special file", |directory, name| {
            self.make_node_at(directory, name, kind, device)
        })
    }

    /// Removes a file or a whole directory; nothing to remove is no error.
    pub fn remove(&self, path: &Path) -> Result<(), RootfsError> {
        match self.split(path) {
            Ok((directory, name)) => {
                self.remove_at(directory.as_fd(), name).map_err(|error| inside_error("could not remove", path, error))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(inside_error("could not remove", path, error.into())),
        }
    }

    /// Gives the file itself (links are not followed) to an owner. As in the kernel, set-id bits and capabilities go, and
    /// 4294967295 (-1) leaves the user or the group as it is.
    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<(), RootfsError> {
        self.at(path, "could not change the owner of", |directory, name| self.set_owner_at(directory, name, uid, gid))
    }

    /// Sets permission bits; a no-op on symbolic links. Call after [`Tree::set_owner`], which clears set-id bits.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Result<(), RootfsError> {
        self.at(path, "could not change the mode of", |directory, name| self.set_mode_at(directory, name, mode))
    }

    pub fn set_xattr(&self, path: &Path, name: &OsStr, value: &[u8]) -> Result<(), RootfsError> {
        self.at(path, "could not set an attribute of", |directory, file| {
            self.set_xattr_at(directory, file, name, value)
        })
    }

    /// Sets the modification time (and the access time to the same).
    pub fn set_modified(&self, path: &Path, modified: (i64, u32)) -> Result<(), RootfsError> {
        self.at(path, "could not set the time of", |directory, name| at::set_modified(directory, name, modified))
    }

    /// The root directory itself.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory (O_PATH), every link on the way and at the end resolved inside the tree.
    fn open_parent(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let directory = self.open_directory_below(self.root.as_fd(), path)?;
        match &self.hidden {
            Some(hidden) if hidden.covers(directory.as_fd(), self.root.as_fd()).map_err(at::to_errno)? => {
                Err(Errno::NOENT)
            }
            _ => Ok(directory),
        }
    }

    /// Opens a directory (O_PATH) with the directory `base` as the root for `..` and every link.
    pub(crate) fn open_directory_below(&self, base: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
        if !self.openat2 {
            return resolve::open_directory(base, path);
        }
        match sys::open_in_root(base, path.as_os_str(), OFlags::PATH | OFlags::DIRECTORY) {
            // Longer than PATH_MAX as a whole; or one component is too long, which the walker finds again.
            Err(Errno::NAMETOOLONG | Errno::AGAIN) => resolve::open_directory(base, path),
            result => result,
        }
    }

    /// The directory that `path` is in and its name there. The name is `.` for the root and for paths that end in `..`.
    fn split<'p>(&self, path: &'p Path) -> rustix::io::Result<(OwnedFd, &'p OsStr)> {
        let path = path.strip_prefix("/").unwrap_or(path);
        match path.components().next_back() {
            Some(Component::Normal(name)) => Ok((self.open_parent(path.parent().unwrap_or(Path::new("")))?, name)),
            _ => Ok((self.open_parent(path)?, OsStr::new("."))),
        }
    }

    /// Runs `work` on the directory and name of `path`; an error says `action` and the path.
    fn at<T>(
        &self,
        path: &Path,
        action: &'static str,
        work: impl FnOnce(BorrowedFd<'_>, &OsStr) -> io::Result<T>,
    ) -> Result<T, RootfsError> {
        self.split(path)
            .map_err(io::Error::from)
            .and_then(|(directory, name)| work(directory.as_fd(), name))
            .map_err(|error| inside_error(action, path, error))
    }

    /// Whether the table knows anything: metadata that the kernel does not have.
    pub fn has_entries(&self) -> bool {
        if self.is_shared { self.entries().is_some() } else { self.has_entries.load(Ordering::Acquire) }
    }

    /// The table, where there is one that has entries.
    fn entries(&self) -> Option<MutexGuard<'_, Table>> {
        if !self.is_shared {
            return if self.has_entries() { self.locked_table() } else { None };
        }
        let mut table = self.locked_table()?;
        // Where it cannot be read any more, what is known of it counts; a change says so.
        let _ = table.refresh(&self.stop);
        Some(table).filter(|table| !table.is_empty())
    }

    fn locked_table(&self) -> Option<MutexGuard<'_, Table>> {
        // A panic elsewhere leaves the table as it was: each change is one call.
        self.table.as_ref().map(|table| table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves what the table has of the file `path` as `shown` has it to the file as this tree has it; gives its kind.
    pub(crate) fn follow(&self, shown: &Tree, path: &Path) -> Result<Option<FileKind>, RootfsError> {
        let of = |tree: &Tree| tree.at(path, "could not read the metadata of", sys::stat);
        let (Some(shown), Some(own)) = (of(shown)?, of(self)?) else { return Ok(None) };
        self.move_entry(shown.key, own.key)
            .map_err(|error| inside_error("could not keep the metadata of", path, error))?;
        Ok(Some(own.metadata.kind))
    }

    /// Gives what the table has of one file to another.
    pub(crate) fn move_entry(&self, from: Key, to: Key) -> io::Result<()> {
        let entry = self.entries().and_then(|table| table.get(from).cloned());
        let Some(entry) = entry.filter(|_| from != to) else { return Ok(()) };
        self.pretend(from, |old| *old = table::Entry::default())?;
        self.pretend(to, |new| *new = entry)
    }

    /// Changes what is pretended of a file. Only where there is a table.
    fn pretend(&self, key: Key, change: impl FnOnce(&mut table::Entry)) -> io::Result<()> {
        match self.locked_table() {
            Some(mut table) => {
                table.change(key, &self.stop, change)?;
                self.has_entries.store(!table.is_empty(), Ordering::Release);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn unreadable_table(file: &Path) -> impl FnOnce(io::Error) -> RootfsError + '_ {
    |error| io_error("could not read the metadata table", file, error)
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> RootfsError {
    if is_stop(&source) {
        return RootfsError::Cancelled;
    }
    RootfsError::Io { action, path: path.to_owned(), source }
}

/// An error about a path inside the tree, which is shown with a leading `/`.
pub(crate) fn inside_error(action: &'static str, path: &Path, source: io::Error) -> RootfsError {
    let mut shown = OsString::from("/");
    shown.push(path.strip_prefix("/").unwrap_or(path));
    io_error(action, Path::new(&shown), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The walker for kernels without openat2 must agree with the kernel.
    #[test]
    fn both_ways_to_resolve_agree() {
        let outer = tempfile::tempdir().unwrap();
        let mut tree = Tree::create(&outer.path().join("root"), None).unwrap();
        if !tree.openat2 {
            eprintln!("skipped: no openat2 here");
            return;
        }
        for directory in ["a", "a/b", "a/b/c"] {
            tree.make_dir(Path::new(directory), 0o755).unwrap();
        }
        tree.make_file(Path::new("file")).unwrap();
        let links = [
            ("/a/b", "abs"),
            ("../../../a", "a/up"),
            ("abs/c", "chain"),
            ("loop", "loop"),
            ("none", "dangling"),
            ("file", "f"),
        ];
        for (target, link) in links {
            tree.make_symlink(Path::new(target), Path::new(link)).unwrap();
        }
        let paths = [
            "",
            ".",
            "..",
            "a",
            "a/b/../../..",
            "abs",
            "abs/c",
            "abs/..",
            "chain/..",
            "a/up/up/up/b",
            "../../abs/c/./..",
            "loop",
            "loop/x",
            "dangling",
            "dangling/x",
            "none",
            "none/x",
            "file",
            "file/x",
            "f",
            "f/..",
            "a//b/",
        ];
        for path in paths {
            let identity = |opened: rustix::io::Result<OwnedFd>| {
                opened.map(|directory| sys::stat(directory.as_fd(), OsStr::new(".")).unwrap().unwrap().key)
            };
            tree.openat2 = true;
            let by_kernel = identity(tree.open_parent(Path::new(path)));
            tree.openat2 = false;
            assert_eq!(identity(tree.open_parent(Path::new(path))), by_kernel, "{path}");
        }
    }
}
