//! One call that waits, and the files that it means.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rootfs::Tree;
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Statx};
use rustix::io::Errno;

use super::World;
use super::ids::{EXECUTE, WRITE};
use super::memory;
use super::place::{Dir, LOOK, Node, Spot, Target, id_of, look, open_path, own_path, type_of, without_slashes};
use super::tasks::{State, View};
use crate::notify::{Call, Listener};

pub const AT_FDCWD: i32 = libc::AT_FDCWD;
pub const NO_FOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
pub const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;

/// What becomes of a call that has not failed.
pub enum Reply {
    Value(i64),
    /// The caller has its answer.
    Given,
    /// The kernel does it. Each use says why that is safe.
    Continue,
}

pub type Handled = Result<Reply, Errno>;

pub const DONE: Handled = Ok(Reply::Value(0));

pub struct Caller<'w> {
    pub world: &'w World,
    pub call: &'w Call,
    pub listener: &'w Listener,
    pub view: View,
    /// Of the call in its present form (`calls.rs`).
    pub arguments: [u64; 6],
}

/// A name in a directory that is to be made or taken away. A link of this name is never followed.
pub struct Entry {
    pub dir: Arc<Dir>,
    pub name: CString,
    /// A slash comes after it: then it has to be a directory's.
    pub slash: bool,
    pub found: Option<Statx>,
}

/// Where a path ends.
pub struct Parent {
    node: Node,
    /// None where it does not end in a name that is a directory's to change.
    pub entry: Option<Entry>,
}

impl Parent {
    pub fn is_on_mount_of(&self, other: &Parent) -> bool {
        match (&self.node, &other.node) {
            (Node::Dir(one), Node::Dir(other)) => Arc::ptr_eq(&one.area, &other.area),
            (Node::Proc(_), Node::Proc(_)) => true,
            _ => false,
        }
    }
}

/// A file that is worked on: what has been opened is what is judged and what is used, whatever becomes of its name.
pub struct Held {
    pub spot: Spot,
    /// By which the kernel reaches exactly this file.
    pub path: CString,
    /// As the kernel has it.
    pub real: Statx,
    /// As the step sees it.
    pub found: Statx,
    _file: Option<OwnedFd>,
}

impl Held {
    /// As the kernel has it now.
    pub fn look(&self) -> Result<Statx, Errno> {
        rustix::fs::statx(CWD, self.path.as_c_str(), AtFlags::NO_AUTOMOUNT, LOOK)
    }

    /// Another file in the place of this one, open.
    pub fn replaced(self, file: OwnedFd, real: Statx, found: Statx) -> Held {
        Held { spot: self.spot, path: own_path(file.as_fd()), real, found, _file: Some(file) }
    }
}

impl Caller<'_> {
    /// An argument of type int, unsigned or mode_t.
    pub fn number(&self, index: usize) -> u32 {
        self.arguments[index] as u32
    }

    /// `AT_*` flags, of which the call knows `known`: others are refused before anything is looked at.
    pub fn flags(&self, index: usize, known: u32) -> Result<u32, Errno> {
        let flags = self.number(index);
        if flags & !known == 0 { Ok(flags) } else { Err(Errno::INVAL) }
    }

    pub fn descriptor(&self, index: usize) -> i32 {
        self.arguments[index] as i32
    }

    pub fn read(&self, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        memory::bytes(self.call.thread, address, length)
    }

    /// Numbers of type unsigned long, or addresses.
    pub fn words<const N: usize>(&self, address: u64) -> Result<[u64; N], Errno> {
        memory::words(self.call.thread, self.call.abi(), address)
    }

    pub fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        memory::path(self.call.thread, address)
    }

    /// Writes to the caller's memory, if it is still the caller's.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if !self.listener.waits(self.call) {
            return Err(Errno::SRCH);
        }
        memory::write(self.call.thread, address, bytes)
    }

    /// Where a relative path begins.
    pub fn start(&self, descriptor: i32) -> Result<Node, Errno> {
        if descriptor == AT_FDCWD {
            return Ok(self.view.cwd.clone());
        }
        match self.world.places.descriptor(self.view.thread, descriptor)?.spot {
            Spot::Node(node) => Ok(node),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub fn walk(&self, descriptor: i32, path: &[u8], follow: bool) -> Result<Target, Errno> {
        self.world.places.walk(&self.view, &self.start_of(descriptor, path)?, path, follow)
    }

    /// Where this path begins.
    pub fn start_of(&self, descriptor: i32, path: &[u8]) -> Result<Node, Errno> {
        match path {
            b"" => Err(Errno::NOENT),
            [b'/', ..] => Ok(Node::Dir(self.view.root.clone())),
            _ => self.start(descriptor),
        }
    }

    /// The file that a descriptor, a path and `AT_*` flags mean.
    pub fn target(&self, descriptor: usize, path: usize, flags: u32) -> Result<Target, Errno> {
        let path = self.path_or_none(path, flags)?;
        self.target_at(self.descriptor(descriptor), &path, flags)
    }

    /// With AT_EMPTY_PATH there may be none.
    fn path_or_none(&self, path: usize, flags: u32) -> Result<Vec<u8>, Errno> {
        let address = self.arguments[path];
        if address == 0 && flags & EMPTY_PATH != 0 { Ok(Vec::new()) } else { self.path(address) }
    }

    fn target_at(&self, descriptor: i32, path: &[u8], flags: u32) -> Result<Target, Errno> {
        if path.is_empty() && flags & EMPTY_PATH != 0 {
            return match descriptor {
                AT_FDCWD => self.world.places.at_node(self.view.cwd.clone()),
                descriptor => self.world.places.descriptor(self.view.thread, descriptor),
            };
        }
        self.walk(descriptor, path, flags & NO_FOLLOW == 0)
    }

    /// As [`Caller::target`], of a file that exists.
    pub fn existing(&self, descriptor: usize, path: usize, flags: u32) -> Result<(Target, Statx), Errno> {
        let target = self.target(descriptor, path, flags)?;
        let found = *target.existing()?;
        Ok((target, found))
    }

    /// What the step sees of a file that exists, for those who only look.
    pub fn seen(&self, descriptor: usize, path: usize, flags: u32) -> Result<Statx, Errno> {
        let path = self.path_or_none(path, flags)?;
        match self.descriptor(descriptor) {
            descriptor if path.is_empty() && flags & EMPTY_PATH != 0 && descriptor != AT_FDCWD => {
                self.world.places.seen_descriptor(self.view.thread, descriptor)
            }
            descriptor => self.target_at(descriptor, &path, flags)?.existing().copied(),
        }
    }

    /// The directory and the name that a path ends in; `other` for what has no name that could be changed.
    pub fn entry(&self, descriptor: usize, path: usize, other: Errno) -> Result<Entry, Errno> {
        let path = self.path(self.arguments[path])?;
        let (path, slash) = without_slashes(&path);
        let target = self.walk(self.descriptor(descriptor), path, false)?;
        match target.spot {
            Spot::Entry(dir, name) => Ok(Entry { dir, name, slash, found: target.found }),
            Spot::Node(Node::Proc(_)) => Err(if other == Errno::EXIST { other } else { Errno::PERM }),
            _ => Err(other),
        }
    }

    /// Changes what the caller's process is.
    pub fn changing<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, Errno> {
        self.world.tasks.changing(self.view.thread, || self.listener.waits(self.call), change)
    }

    /// The directory that a path ends in, and the name in it that is meant, whatever is mapped over it.
    pub fn parent(&self, descriptor: usize, path: usize) -> Result<Parent, Errno> {
        let path = self.path(self.arguments[path])?;
        let (path, slash) = without_slashes(&path);
        let start = self.start_of(self.descriptor(descriptor), path)?;
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (above, name) = path.split_at(cut);
        let places = &self.world.places;
        let node = match above {
            [] => start,
            above => self.directory(places.walk(&self.view, &start, above, true)?)?,
        };
        let Node::Dir(dir) = &node else { return Ok(Parent { node, entry: None }) };
        places.may_search(&self.view, dir)?;
        if matches!(name, b"" | b"." | b"..") {
            return Ok(Parent { node, entry: None });
        }
        if name.len() > super::place::NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let found = places.seen_at(dir, name)?;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let entry = Entry { dir: dir.clone(), name, slash, found };
        Ok(Parent { node, entry: Some(entry) })
    }

    /// That a name may be made in a directory.
    pub fn may_add(&self, dir: &Dir) -> Result<(), Errno> {
        if dir.area.read_only {
            return Err(Errno::ROFS);
        }
        self.world.written.directory(dir);
        if self.view.ids.is_root() || dir.area.tree.is_none() {
            return Ok(());
        }
        self.view.ids.may(&self.world.places.seen(dir)?, WRITE | EXECUTE)
    }

    /// That a name may be taken out of a directory (path_resolution(7), sticky directories in inode(7)).
    pub fn may_remove(&self, entry: &Entry) -> Result<Statx, Errno> {
        let found = entry.found.ok_or(Errno::NOENT)?;
        self.may_add(&entry.dir)?;
        if self.view.ids.is_root() || entry.dir.area.tree.is_none() {
            return Ok(found);
        }
        let dir = self.world.places.seen(&entry.dir)?;
        let is_sticky = u32::from(dir.stx_mode) & libc::S_ISVTX != 0;
        if is_sticky && !self.view.ids.owns(&found) && !self.view.ids.owns(&dir) {
            return Err(Errno::PERM);
        }
        Ok(found)
    }

    /// Takes hold of the file that a walk came to.
    pub fn hold(&self, target: Target) -> Result<Held, Errno> {
        let places = &self.world.places;
        let (file, path) = match &target.spot {
            Spot::Entry(dir, name) => {
                let file = open_path(dir.fd.as_fd(), name.to_bytes(), OFlags::empty())?;
                let path = own_path(file.as_fd());
                (Some(file), path)
            }
            Spot::Node(Node::Dir(dir)) => (None, own_path(dir.fd.as_fd())),
            Spot::Node(Node::Proc(proc)) => {
                let found = *target.existing()?;
                let path = CString::new(proc.path()).map_err(|_| Errno::INVAL)?;
                return Ok(Held { spot: target.spot, path, real: found, found, _file: None });
            }
            Spot::Mapped(mapped) => (None, own_path(mapped.file.as_fd())),
            Spot::Open(opened) => (None, own_path(opened.file.as_fd())),
        };
        let (real, found) = match (&target.spot, &file) {
            (Spot::Entry(dir, _), Some(file)) => places.seen_opened(dir.area.tree.as_deref(), file.as_fd())?,
            (Spot::Node(Node::Dir(dir)), _) => places.seen_opened(dir.area.tree.as_deref(), dir.fd.as_fd())?,
            (Spot::Mapped(mapped), _) => (look(mapped.file.as_fd())?, places.seen_file(mapped)?),
            (Spot::Open(opened), _) => {
                let tree = opened.area.as_ref().and_then(|area| area.tree.as_deref());
                places.seen_opened(tree, opened.file.as_fd())?
            }
            _ => return Err(Errno::NOENT),
        };
        Ok(Held { spot: target.spot, path, real, found, _file: file })
    }

    /// As [`Caller::hold`], of what a descriptor, a path and `AT_*` flags mean.
    pub fn held(&self, descriptor: usize, path: usize, flags: u32) -> Result<Held, Errno> {
        let target = self.target(descriptor, path, flags)?;
        target.existing()?;
        self.hold(target)
    }

    /// Whether it is one of the container's terminals, or their directory.
    pub fn is_terminals(&self, spot: &Spot) -> bool {
        let area = match spot {
            Spot::Entry(dir, _) | Spot::Node(Node::Dir(dir)) => Some(&dir.area),
            Spot::Open(opened) => opened.area.as_ref(),
            Spot::Node(Node::Proc(_)) | Spot::Mapped(_) => None,
        };
        area.is_some_and(|area| area.tree.is_none() && area.shown == b"/dev/pts")
    }

    /// Who keeps a file's owner and mode; none for the host's own files.
    pub fn tree(&self, spot: &Spot) -> Option<Arc<Tree>> {
        match spot {
            Spot::Entry(dir, _) | Spot::Node(Node::Dir(dir)) => dir.area.tree.clone(),
            Spot::Node(Node::Proc(_)) => None,
            Spot::Mapped(mapped) => mapped.tree.clone(),
            Spot::Open(opened) => opened.area.as_ref()?.tree.clone(),
        }
    }

    /// That a file may be changed: of one that lies nowhere in the step nobody knows.
    pub fn may_change(&self, spot: &Spot) -> Result<(), Errno> {
        let read_only = match spot {
            Spot::Entry(dir, _) | Spot::Node(Node::Dir(dir)) => dir.area.read_only,
            Spot::Node(Node::Proc(_)) => true,
            Spot::Mapped(mapped) => mapped.read_only,
            Spot::Open(opened) => match &opened.area {
                Some(area) => area.read_only,
                None => !self.world.places.is_anonymous(opened.file.as_fd())?,
            },
        };
        if read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// As [`Caller::may_change`], of what is going to be changed.
    pub fn changes(&self, spot: &Spot, found: &Statx) -> Result<(), Errno> {
        self.may_change(spot)?;
        self.world.written.target(self.world, spot, found);
        Ok(())
    }

    /// That nobody runs the regular file whose content is going to be changed. One with several names that an earlier step
    /// made is another file by each (`links`).
    pub fn is_not_executed(&self, spot: &Spot, found: &Statx) -> Result<(), Errno> {
        if !type_of(found).is_file() || !self.world.tasks.has_executed(id_of(found)) {
            return Ok(());
        }
        let path = match spot {
            Spot::Entry(dir, name) if super::links::is_detached(self, spot, found) => {
                Some(self.world.places.path_of_entry(dir, name.to_bytes())?)
            }
            _ => None,
        };
        let is_path = |exe: &[u8]| path.as_deref().is_none_or(|path| path == exe);
        if self.world.tasks.runs(id_of(found), is_path) {
            return Err(Errno::TXTBSY);
        }
        Ok(())
    }

    /// The directory that a target is.
    pub fn directory(&self, target: Target) -> Result<Node, Errno> {
        if !type_of(target.existing()?).is_dir() {
            return Err(Errno::NOTDIR);
        }
        match target.spot {
            Spot::Node(node) => Ok(node),
            Spot::Entry(dir, name) => match self.world.places.walk_into(&dir, name.to_bytes())? {
                Some(dir) => Ok(Node::Dir(dir)),
                None => Err(Errno::NOTDIR),
            },
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Whose a new file in a directory is and which mode it has: the caller's, or of the directory's group where that is
    /// set-group-ID.
    pub fn new_file(&self, dir: &Dir, mode: u32, is_directory: bool) -> Result<rootfs::Wanted, Errno> {
        let ids = &self.view.ids;
        let mut wanted = rootfs::Wanted { uid: ids.user.files, gid: ids.group.files, mode, node: None };
        if dir.area.tree.is_some() {
            let above = self.world.places.seen(dir)?;
            if u32::from(above.stx_mode) & libc::S_ISGID != 0 {
                wanted.gid = above.stx_gid;
                // `fs/inode.c` mode_strip_sgid: a program of the directory's group is for its members to make.
                const PROGRAM: u32 = libc::S_ISGID | libc::S_IXGRP;
                let is_foreign = mode & PROGRAM == PROGRAM && !ids.is_root() && !ids.is_in(above.stx_gid);
                match () {
                    () if is_directory => wanted.mode |= libc::S_ISGID,
                    () if is_foreign => wanted.mode &= !libc::S_ISGID,
                    () => {}
                }
            }
        }
        Ok(wanted)
    }

    /// Makes a file under a name that nothing has, and writes its owner down before anybody sees it.
    pub fn make(
        &self,
        dir: &Dir,
        name: &CStr,
        (wanted, real_mode): (rootfs::Wanted, u32),
        make: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<Statx, Errno> {
        self.world.places.making(|| {
            make()?;
            let file = open_path(dir.fd.as_fd(), name.to_bytes(), OFlags::empty())?;
            or_unmade(dir, name, self.note(dir, file.as_fd(), wanted, real_mode))
        })
    }

    /// Writes down whose a file is that has just been made, and gives it the permission bits that our own umask held back.
    pub fn note(
        &self,
        dir: &Dir,
        file: BorrowedFd<'_>,
        wanted: rootfs::Wanted,
        real_mode: u32,
    ) -> Result<Statx, Errno> {
        let mut real = look(file)?;
        let kind = type_of(&real);
        if kind.is_dir() {
            self.world.written.new_directory(&real);
        }
        if kind != FileType::Symlink && u32::from(real.stx_mode) & 0o7777 != real_mode {
            rustix::fs::chmod(own_path(file).as_c_str(), rustix::fs::Mode::from_raw_mode(real_mode))?;
            real = look(file)?;
        }
        if let Some(tree) = &dir.area.tree {
            self.world.nameless.is_used_again(&real);
            tree.pretend_new(&real, wanted).map_err(errno)?;
        }
        Ok(real)
    }

    pub fn ok(&self, value: impl Into<i64>) -> Handled {
        Ok(Reply::Value(value.into()))
    }
}

/// Takes the name of a new file back when its owner could not be noted: it would be root's. Within [`super::place::Places::making`].
pub fn or_unmade<T>(dir: &Dir, name: &CStr, noted: Result<T, Errno>) -> Result<T, Errno> {
    if noted.is_err() {
        let unlink = |flags| rustix::fs::unlinkat(&dir.fd, name, flags);
        let _ = unlink(AtFlags::empty()).or_else(|_| unlink(AtFlags::REMOVEDIR));
    }
    noted
}

pub fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
