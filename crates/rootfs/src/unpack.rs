//! Layers and archives into a tree.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::contents::{Contents, Printer};
use crate::tar::{self, Entry, Kind, Reader};
use crate::tree::{Descent, at, inside_error, resolve};
use crate::{FileKind, RootfsError, SET_GROUP_ID, Tree};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs left in the layers it made.
const RELIC: &[u8] = b".wh..wh.";
/// Far beyond the kernel's 4096 for one call, as steps can nest deeper than that; bounds the work for one entry.
const MAX_PATH_BYTES: usize = 16 * 1024;
/// Piece of a file that becomes a hole when it is all zeros.
const CHUNK_BYTES: usize = 64 * 1024;
const ZEROS: &[u8] = &[0; CHUNK_BYTES];

/// What a layer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sum of file contents in bytes.
    pub size_bytes: u64,
    pub entries: u64,
}

impl Limits {
    pub const NONE: Limits = Limits { size_bytes: u64::MAX, entries: u64::MAX };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unpacked {
    pub entries: u64,
    /// Sum of file contents in bytes, holes included.
    pub size_bytes: u64,
}

/// Unpacks one layer over `into`.
///
/// `layer` is the uncompressed tar stream, which is read to its end. Whiteouts remove what earlier layers left and are not
/// written themselves; opaque markers hide lower children only, wherever in the layer they stand. Names are taken as inside
/// the root whatever they say (`..` stops there), links on the way are resolved inside, targets of symbolic links are kept as
/// they are. An entry for the root itself is ignored, as by containerd.
///
/// # Errors
/// [`RootfsError::InvalidLayer`] for a tar that contradicts itself, [`RootfsError::TooLarge`] beyond `limits`,
/// [`RootfsError::Read`] when `layer` fails, [`RootfsError::Io`] with the path when a system call does. The tree is then
/// half written: discard it.
///
/// OCI image-spec 1.1, `layer.md`, «Applying Changesets»; containerd `pkg/archive/tar.go` where that leaves room.
pub fn unpack(layer: &mut dyn Read, into: &Tree, limits: &Limits) -> Result<Unpacked, RootfsError> {
    Unpacker::new(into, into.root(), Rules { owner: None, is_archive: false, limits: *limits }).run(layer)
}

/// Unpacks an archive that ADD was given below `destination`, which is resolved inside the tree and made where it does not
/// exist (0755, 0:0).
///
/// As [`unpack`], but `destination` is the root for `..` and links in the archive, a directory of the archive that is a link to
/// a directory in the tree goes there instead of replacing the link, and everything belongs to `owner` where one is given.
/// Names that begin with `.wh.` delete: they would do so in the layer that the step becomes. Times before 1970 and after 2262 are
/// 1970.
///
/// BuildKit `solver/llbsolver/file/unpack_root.go`.
pub fn extract(
    archive: &mut dyn Read,
    into: &Tree,
    destination: &Path,
    owner: Option<(u32, u32)>,
) -> Result<Unpacked, RootfsError> {
    let rules = Rules { owner, is_archive: true, limits: Limits::NONE };
    let base = Unpacker::new(into, into.root(), rules).make_directories(destination, None)?;
    Unpacker::new(into, base.as_fd(), rules).run(archive)
}

#[derive(Clone, Copy)]
struct Rules {
    owner: Option<(u32, u32)>,
    /// An archive, not a layer: directory entries go through links to directories, and what is made or changed on the way
    /// has the time of now.
    is_archive: bool,
    limits: Limits,
}

struct Unpacker<'t> {
    tree: &'t Tree,
    /// Root for `..` and links.
    base: BorrowedFd<'t>,
    rules: Rules,
    done: Unpacked,
    /// The directory of the last entry, open.
    parent: Option<Parent>,
    /// Hashes of (inode of the directory, name) of all that this layer wrote, so that whiteouts spare it.
    written: HashSet<u64>,
    hasher: RandomState,
    /// Times that directories get in the end, by inode: what the layer says, or what they had before it put files there.
    directories: HashMap<u64, (PathBuf, (i64, u32))>,
    buffer: Vec<u8>,
}

struct Parent {
    path: PathBuf,
    directory: OwnedFd,
    inode: u64,
}

impl<'t> Unpacker<'t> {
    fn new(tree: &'t Tree, base: BorrowedFd<'t>, rules: Rules) -> Unpacker<'t> {
        Unpacker {
            tree,
            base,
            rules,
            done: Unpacked::default(),
            parent: None,
            written: HashSet::new(),
            hasher: RandomState::new(),
            directories: HashMap::new(),
            buffer: Vec::new(),
        }
    }

    fn run(mut self, stream: &mut dyn Read) -> Result<Unpacked, RootfsError> {
        self.buffer = vec![0; CHUNK_BYTES];
        let mut stream = self.tree.stop().watch(stream);
        let mut reader = Reader::new(&mut stream);
        while let Some(mut entry) = reader.next().map_err(tar_error)? {
            self.count(&entry)?;
            if self.rules.is_archive {
                entry.modified = bounded(entry.modified);
            }
            let path = clean(&entry.path)?;
            if !is_relic(&path) && path.file_name().is_some() {
                self.entry(&path, entry, &mut reader)?;
            }
        }
        self.restore_times()?;
        // What follows the end of an archive is nobody's affair: a signature, or what a pipe left.
        if self.rules.is_archive {
            return Ok(self.done);
        }
        // Whoever hashes the stream needs all of it; padding after the end is small.
        if !reader.drain(self.rules.limits.size_bytes).map_err(tar_error)? {
            return Err(RootfsError::TooLarge { limit_bytes: self.rules.limits.size_bytes });
        }
        Ok(self.done)
    }

    fn count(&mut self, entry: &Entry) -> Result<(), RootfsError> {
        let limits = self.rules.limits;
        self.done.entries += 1;
        self.done.size_bytes = self.done.size_bytes.saturating_add(entry.size_bytes);
        if self.done.size_bytes > limits.size_bytes {
            return Err(RootfsError::TooLarge { limit_bytes: limits.size_bytes });
        }
        if self.done.entries > limits.entries {
            return Err(RootfsError::InvalidLayer { reason: format!("more than {} entries", limits.entries) });
        }
        Ok(())
    }

    /// One entry whose path is not the root.
    fn entry(&mut self, path: &Path, entry: Entry, content: &mut dyn Read) -> Result<(), RootfsError> {
        let name = path.file_name().unwrap_or_default();
        self.enter_parent(path.parent().unwrap_or(Path::new("")), entry.modified)?;
        if name.as_bytes() == OPAQUE {
            return self.hide_children().map_err(|error| inside_error("could not empty", path, error));
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(RootfsError::InvalidLayer { reason: format!("whiteout `{}`", path.display()) });
            }
            return self.hide(OsStr::from_bytes(hidden)).map_err(|error| inside_error("could not remove", path, error));
        }
        let fail = |error| inside_error("could not unpack", path, error);
        let Some(parent) = &self.parent else { return Ok(()) };
        self.written.insert(self.hasher.hash_one((parent.inode, name)));
        match entry.kind {
            Kind::Directory => self.directory(path, name, &entry),
            Kind::HardLink => self.hard_link(path, name, &entry),
            Kind::File => self.file(path, name, &entry, content),
            Kind::Symlink => {
                let directory = self.make_room(name).map_err(fail)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), directory, name).map_err(|e| fail(e.into()))?;
                self.finish(name, &entry).map_err(fail)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::CharDevice => FileKind::CharDevice,
                    Kind::BlockDevice => FileKind::BlockDevice,
                    _ => FileKind::Fifo,
                };
                let tree = self.tree;
                let directory = self.make_room(name).map_err(fail)?;
                tree.make_node_at(directory, name, kind, entry.device).map_err(fail)?;
                self.finish(name, &entry).map_err(fail)
            }
        }
    }

    /// Opens the directory that the next entry is in, and makes it where the layer has no entry for it.
    fn enter_parent(&mut self, path: &Path, modified: (i64, u32)) -> Result<(), RootfsError> {
        if self.parent.as_ref().is_some_and(|parent| parent.path == path) {
            return Ok(());
        }
        let directory = match self.tree.open_directory_below(self.base, path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => self.make_directories(path, (!self.rules.is_archive).then_some(modified))?,
            Err(error) => return Err(inside_error("could not open the directory", path, error.into())),
        };
        let inode = self.keep_time(directory.as_fd(), path)?;
        self.parent = Some(Parent { path: path.to_owned(), directory, inode });
        Ok(())
    }

    /// Remembers what time a directory has before a layer puts files into it. Gives its inode number.
    fn keep_time(&mut self, directory: BorrowedFd<'_>, path: &Path) -> Result<u64, RootfsError> {
        let fail = |error| inside_error("could not open the directory", path, error);
        let found = self.tree.stat_at(directory, OsStr::new(".")).map_err(fail)?;
        let metadata = found.ok_or_else(|| fail(Errno::NOENT.into()))?.metadata;
        if !self.rules.is_archive {
            self.directories.entry(metadata.inode).or_insert_with(|| (path.to_owned(), metadata.modified));
        }
        Ok(metadata.inode)
    }

    /// Makes a directory and its parents: 0755, 0:0. In a layer they get the time of the entry they are made for, so that
    /// unpacking it twice gives the same tree. Those of an archive take the bit of a set-group-ID directory over, but not its
    /// group (moby `MkdirAllAndChown`).
    fn make_directories(&mut self, path: &Path, modified: Option<(i64, u32)>) -> Result<OwnedFd, RootfsError> {
        let fail = |error| inside_error("could not make the directory", path, error);
        let resolved = resolve::resolve(self.base, path, true).map_err(fail)?;
        let (tree, base) = (self.tree, self.base);
        let open = |directory: &Path| tree.open_directory_below(base, directory).map_err(|error| fail(error.into()));
        let mut directory = open(Path::new(""))?;
        let mut so_far = PathBuf::new();
        for name in resolved.iter() {
            self.keep_time(directory.as_fd(), &so_far)?;
            so_far.push(name);
            let above = match self.rules.is_archive {
                true => self.tree.stat_at(directory.as_fd(), OsStr::new(".")).map_err(fail)?,
                false => None,
            };
            let bit = above.map_or(0, |above| above.metadata.mode & SET_GROUP_ID);
            match self.tree.make_dir_at(directory.as_fd(), name, 0o755) {
                Ok(()) => {
                    self.tree.set_owner_at(directory.as_fd(), name, 0, 0).map_err(fail)?;
                    if bit != 0 {
                        self.tree.set_mode_at(directory.as_fd(), name, 0o755 | bit).map_err(fail)?;
                    }
                    if let Some(modified) = modified {
                        at::set_modified(directory.as_fd(), name, modified).map_err(fail)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fail(error)),
            }
            directory = open(&so_far)?;
        }
        Ok(directory)
    }

    fn parent(&self) -> io::Result<&Parent> {
        self.parent.as_ref().ok_or_else(|| Errno::NOENT.into())
    }

    /// Removes what stands in the way of `name`, and gives the directory it is in.
    fn make_room(&mut self, name: &OsStr) -> io::Result<BorrowedFd<'_>> {
        let directory = self.parent()?.directory.as_fd();
        if let Some(found) = self.tree.stat_at(directory, name)? {
            self.tree.remove_at(directory, name)?;
            // The way to the open directory can have led through a link or directory that is gone now.
            if matches!(found.metadata.kind, FileKind::Directory | FileKind::Symlink)
                && let Some(parent) = &mut self.parent
            {
                parent.path = PathBuf::from("\0");
            }
        }
        Ok(self.parent()?.directory.as_fd())
    }

    fn directory(&mut self, path: &Path, name: &OsStr, entry: &Entry) -> Result<(), RootfsError> {
        let fail = |error| inside_error("could not unpack", path, error);
        let directory = self.parent().map_err(fail)?.directory.as_fd();
        let existing = self.tree.stat_at(directory, name).map_err(fail)?.map(|found| found.metadata.kind);
        if existing == Some(FileKind::Symlink)
            && self.rules.is_archive
            && let Ok(target) = self.tree.open_directory_below(self.base, path)
        {
            let inode = self.apply_to_directory(target.as_fd(), OsStr::new("."), entry).map_err(fail)?;
            self.directories.insert(inode, (path.to_owned(), entry.modified));
            return Ok(());
        }
        if existing != Some(FileKind::Directory) {
            let tree = self.tree;
            let directory = self.make_room(name).map_err(fail)?;
            tree.make_dir_at(directory, name, entry.mode).map_err(fail)?;
        }
        let directory = self.parent().map_err(fail)?.directory.as_fd();
        let inode = self.apply_to_directory(directory, name, entry).map_err(fail)?;
        self.directories.insert(inode, (path.to_owned(), entry.modified));
        Ok(())
    }

    /// Gives the inode number, by which the directory gets its time in the end.
    fn apply_to_directory(&self, directory: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<u64> {
        self.apply(directory, name, entry)?;
        let found = self.tree.stat_at(directory, name)?.ok_or(Errno::NOENT)?;
        Ok(found.metadata.inode)
    }

    fn hard_link(&mut self, path: &Path, name: &OsStr, entry: &Entry) -> Result<(), RootfsError> {
        let fail = |error| inside_error("could not unpack", path, error);
        let target = clean(&entry.link)?;
        let missing = || RootfsError::InvalidLayer {
            reason: format!("`{}` is a hard link to `{}`, which is not there", path.display(), target.display()),
        };
        let target_name = target.file_name().ok_or_else(missing)?;
        let target_parent = target.parent().unwrap_or(Path::new(""));
        let from = self.tree.open_directory_below(self.base, target_parent).map_err(|_| missing())?;
        let existing = self.tree.stat_at(from.as_fd(), target_name).map_err(fail)?.ok_or_else(missing)?;
        let directory = self.parent().map_err(fail)?.directory.as_fd();
        let in_place = self.tree.stat_at(directory, name).map_err(fail)?;
        if in_place.is_none_or(|found| found.key != existing.key) {
            let directory = self.make_room(name).map_err(fail)?;
            rustix::fs::linkat(from, target_name, directory, name, rustix::fs::AtFlags::empty())
                .map_err(|error| fail(error.into()))?;
        }
        self.apply_to_link(name, entry).map_err(fail)
    }

    /// A link's header speaks of the file as well. What it merely repeats is not set again: chown would take capabilities.
    fn apply_to_link(&self, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let directory = self.parent()?.directory.as_fd();
        let found = self.tree.stat_at(directory, name)?.ok_or(Errno::NOENT)?.metadata;
        let (uid, gid) = self.rules.owner.unwrap_or((entry.uid, entry.gid));
        if (found.uid, found.gid) != (uid, gid) {
            self.tree.set_owner_at(directory, name, uid, gid)?;
        }
        if let Some(contents) = self.contents()
            && ((found.uid, found.gid) != (uid, gid) || entry.capability().is_some())
        {
            // Whether the file has the capabilities that it had is not known here.
            contents.note(found.inode, None)?;
        }
        if found.mode != entry.mode || (found.uid, found.gid) != (uid, gid) {
            self.tree.set_mode_at(directory, name, entry.mode)?;
        }
        self.apply_xattrs(directory, name, entry)?;
        at::set_modified(directory, name, entry.modified)
    }

    fn file(&mut self, path: &Path, name: &OsStr, entry: &Entry, content: &mut dyn Read) -> Result<(), RootfsError> {
        let fail = |error| inside_error("could not unpack", path, error);
        let mut file = self.make_file(name).map_err(fail)?;
        let fail_write = |error| inside_error("could not write", path, error);
        // Holes by a list are not read; their files count as changed when they are touched.
        let mut printer = self.contents().filter(|_| entry.pieces.is_none()).map(Contents::printer);
        let has_tail = match &entry.pieces {
            None => self.write(&mut file, content, entry.size_bytes, path, printer.as_mut())?,
            Some(pieces) => {
                for &(offset, length) in pieces {
                    file.seek(SeekFrom::Start(offset)).map_err(fail_write)?;
                    self.write(&mut file, content, length, path, None)?;
                }
                true
            }
        };
        if has_tail {
            file.set_len(entry.size_bytes).map_err(fail_write)?;
        }
        if let Some(contents) = self.contents() {
            let inode = file.metadata().map_err(fail)?.ino();
            contents.note(inode, printer.map(|printer| printer.finish(entry.capability()))).map_err(fail)?;
        }
        drop(file);
        self.finish(name, entry).map_err(fail)
    }

    /// Where contents are remembered. What an archive brings is in a layer soon, and remembered then.
    fn contents(&self) -> Option<&'t Contents> {
        self.tree.contents().filter(|_| !self.rules.is_archive)
    }

    fn make_file(&mut self, name: &OsStr) -> io::Result<File> {
        match at::make_file(self.parent()?.directory.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => at::make_file(self.make_room(name)?, name),
            result => result,
        }
    }

    /// Writes `length` bytes at the file's position; runs of zeros are skipped. Whether the last thing was such a run.
    fn write(
        &mut self,
        file: &mut File,
        content: &mut dyn Read,
        length: u64,
        path: &Path,
        mut printer: Option<&mut Printer>,
    ) -> Result<bool, RootfsError> {
        let fail = |error| inside_error("could not write", path, error);
        let mut ends_in_hole = false;
        let mut remaining = length;
        while remaining > 0 {
            let wanted = remaining.min(self.buffer.len() as u64) as usize;
            let chunk = &mut self.buffer[..wanted];
            content.read_exact(chunk).map_err(|error| content_error(error, path))?;
            if let Some(printer) = &mut printer {
                printer.update(chunk);
            }
            ends_in_hole = chunk == ZEROS;
            if ends_in_hole {
                file.seek(SeekFrom::Current(wanted as i64)).map_err(fail)?;
            } else {
                file.write_all(chunk).map_err(fail)?;
            }
            remaining -= wanted as u64;
        }
        Ok(ends_in_hole)
    }

    /// Metadata of something new that is no directory.
    fn finish(&self, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let directory = self.parent()?.directory.as_fd();
        self.apply(directory, name, entry)?;
        at::set_modified(directory, name, entry.modified)
    }

    /// Owner before mode, mode before attributes: chown clears set-id bits and capabilities.
    fn apply(&self, directory: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.rules.owner.unwrap_or((entry.uid, entry.gid));
        self.tree.set_owner_at(directory, name, uid, gid)?;
        if entry.kind != Kind::Symlink {
            self.tree.set_mode_at(directory, name, entry.mode)?;
        }
        self.apply_xattrs(directory, name, entry)
    }

    fn apply_xattrs(&self, directory: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> io::Result<()> {
        for (attribute, value) in &entry.xattrs {
            let is_user = attribute.as_bytes().starts_with(b"user.");
            if !is_user && attribute != "security.capability" {
                continue;
            }
            match self.tree.set_xattr_at(directory, name, attribute, value) {
                Err(error) if may_lack_attribute(&error, is_user) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// An opaque marker: what lower layers left in the current directory goes.
    fn hide_children(&mut self) -> io::Result<()> {
        let directory = self.tree.open_dir_at(self.parent()?.directory.as_fd(), OsStr::new("."))?;
        self.remove_unwritten(directory)?;
        self.parent = None;
        Ok(())
    }

    /// A whiteout: what lower layers left under this name goes, with everything below.
    fn hide(&mut self, name: &OsStr) -> io::Result<()> {
        let parent = self.parent()?;
        let directory = parent.directory.as_fd();
        let Some(found) = self.tree.stat_at(directory, name)? else { return Ok(()) };
        let is_ours = self.written.contains(&self.hasher.hash_one((parent.inode, name)));
        let keeps = found.metadata.kind == FileKind::Directory
            && self.remove_unwritten(self.tree.open_dir_at(directory, name)?)?;
        if !is_ours && !keeps {
            self.tree.remove_at(directory, name)?;
        }
        self.parent = None;
        Ok(())
    }

    /// Removes everything below a directory that this layer did not write, and says whether something is left.
    fn remove_unwritten(&self, directory: OwnedFd) -> io::Result<bool> {
        struct Level {
            inode: u64,
            names: Vec<OsString>,
            is_ours: bool,
            keeps: bool,
        }
        let level = |directory: BorrowedFd<'_>, is_ours| {
            let inode = self.tree.stat_at(directory, OsStr::new("."))?.map_or(0, |found| found.metadata.inode);
            io::Result::Ok(Level { inode, names: at::names(directory)?, is_ours, keeps: false })
        };
        let mut descent = Descent::new(directory)?;
        let mut levels = vec![level(descent.current(), true)?];
        while let Some(current) = levels.last_mut() {
            self.tree.stop().check()?;
            let Some(name) = current.names.pop() else {
                let keeps = current.keeps;
                let stays = keeps || current.is_ours;
                levels.pop();
                let Some(name) = descent.leave()? else { return Ok(keeps) };
                if !stays {
                    self.tree.remove_at(descent.current(), &name)?;
                } else if let Some(above) = levels.last_mut() {
                    above.keeps = true;
                }
                continue;
            };
            let is_ours = self.written.contains(&self.hasher.hash_one((current.inode, name.as_os_str())));
            let found = self.tree.stat_at(descent.current(), &name)?;
            if found.is_some_and(|found| found.metadata.kind == FileKind::Directory) {
                let below = self.tree.open_dir_at(descent.current(), &name)?;
                descent.enter(below, name)?;
                levels.push(level(descent.current(), is_ours)?);
            } else if is_ours {
                current.keeps = true;
            } else {
                self.tree.remove_at(descent.current(), &name)?;
            }
        }
        Ok(false)
    }

    fn restore_times(&mut self) -> Result<(), RootfsError> {
        for (inode, (path, modified)) in self.directories.drain() {
            self.tree.go_on()?;
            // What was removed or replaced since has no time to get back.
            let Ok(directory) = self.tree.open_directory_below(self.base, &path) else { continue };
            let name = OsStr::new(".");
            let fail = |error| inside_error("could not set the time of", &path, error);
            let found = self.tree.stat_at(directory.as_fd(), name).map_err(fail)?;
            if found.is_some_and(|found| found.metadata.inode == inode && found.metadata.modified != modified) {
                at::set_modified(directory.as_fd(), name, modified).map_err(fail)?;
            }
        }
        Ok(())
    }
}

/// Attributes that a file system or kind of file cannot have do not fail a layer; containerd does the same.
fn may_lack_attribute(error: &io::Error, is_user: bool) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::NOTSUP) => true,
        Some(Errno::PERM | Errno::NOENT | Errno::NOTDIR) => is_user,
        _ => false,
    }
}

/// An entry's path as a relative one without `.`, `..` and double slashes. What would climb out of the root stays in it.
pub(crate) fn clean(path: &[u8]) -> Result<PathBuf, RootfsError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(RootfsError::InvalidLayer { reason: format!("path of {} bytes", path.len()) });
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    Ok(PathBuf::from(OsString::from_vec(names.join(&b'/'))))
}

/// Times of an archive that nanoseconds since 1970 cannot hold in 64 bits are 1970 (moby `boundTime`).
fn bounded((seconds, nanoseconds): (i64, u32)) -> (i64, u32) {
    let since = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    if (0..=i128::from(i64::MAX)).contains(&since) { (seconds, nanoseconds) } else { (0, 0) }
}

fn is_relic(path: &Path) -> bool {
    let opaque = path.file_name().is_some_and(|name| name.as_bytes() == OPAQUE);
    let relics = path.iter().filter(|name| name.as_bytes().starts_with(RELIC)).count();
    relics > usize::from(opaque)
}

pub(crate) fn tar_error(error: tar::Error) -> RootfsError {
    match error {
        tar::Error::Read(error) => RootfsError::read(error),
        tar::Error::Invalid(reason) => RootfsError::InvalidLayer { reason },
    }
}

fn content_error(error: io::Error, path: &Path) -> RootfsError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return RootfsError::InvalidLayer { reason: format!("cut off in the middle of `{}`", path.display()) };
    }
    RootfsError::read(error)
}
