//! Work on a name in an open directory: what every function of [`Tree`] comes down to.
//!
//! `name` is one component, or `.` for the directory itself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{Descent, FileKind, Found, Key, Tree, Xattrs, sys};

const CAPABILITY: &str = "security.capability";
const SET_IDS: u32 = 0o6000;
/// -1, the id that is none.
const KEEP_ID: u32 = u32::MAX;

/// Names in an open directory, in the kernel's order.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

pub fn read_link(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

pub fn make_file(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?.into())
}

pub fn set_modified(directory: BorrowedFd<'_>, name: &OsStr, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Attributes that images have. Those of overlays are marks of the builder's.
fn is_ours(attribute: &[u8]) -> bool {
    let is_users = attribute.starts_with(b"user.") && !attribute.starts_with(b"user.overlay.");
    attribute == CAPABILITY.as_bytes() || is_users
}

/// The kernel says no to whom the process is, or cannot express the value: what the table is for.
pub fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::INVAL | Errno::NOTSUP | Errno::ACCESS | Errno::NOSYS)
}

/// What another owner leaves of a regular file's mode. Set-group-ID without group execution meant mandatory locking and is
/// kept (man 2 chown).
pub fn without_set_ids(mode: u32) -> u32 {
    if mode & 0o010 == 0 { mode & !0o4000 } else { mode & !SET_IDS }
}

impl Tree {
    /// Metadata with the table's answers; none where there is no such file.
    pub(crate) fn stat_at(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Found>> {
        let Some(mut found) = sys::stat(directory, name)? else { return Ok(None) };
        if self.hides(name, &found) {
            return Ok(None);
        }
        self.merge(&mut found);
        Ok(Some(found))
    }

    /// Whether `name` is the builder's own. The directory itself is not asked about: whoever has it open was let in.
    fn hides(&self, name: &OsStr, found: &Found) -> bool {
        self.hidden.as_ref().is_some_and(|hidden| name != "." && hidden.has(&found.metadata))
    }

    pub(super) fn merge(&self, found: &mut Found) {
        if let Some(table) = self.entries()
            && let Some(entry) = table.get(found.key)
        {
            entry.apply(found);
            if entry.has_owner() {
                return;
            }
        }
        if self.pretends_owners() {
            (found.metadata.uid, found.metadata.gid) = (0, 0);
        }
    }

    /// As [`Tree::existing`], of a file that is about to get an entry in the table.
    fn pretended(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Found> {
        let found = self.existing(directory, name)?;
        if !self.is_overlay {
            return Ok(found);
        }
        // Any change of metadata makes the kernel copy the file up; this one shows nowhere.
        set_modified(directory, name, found.metadata.modified)?;
        self.existing(directory, name)
    }

    /// Every file is this process's; whose it is in the image only the table knows.
    fn pretends_owners(&self) -> bool {
        self.table.is_some() && !self.gives_files_away
    }

    fn existing(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Found> {
        sys::stat(directory, name)?.ok_or_else(|| Errno::NOENT.into())
    }

    /// Opens a directory to list it; a link is not followed.
    pub(crate) fn open_dir_at(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.hidden.is_some() && self.stat_at(directory, name)?.is_none() {
            return Err(Errno::NOENT.into());
        }
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            // A step can take its own directories' permissions away; they are ours all the same. The user's are not.
            Err(Errno::ACCESS) if self.hidden.is_none() || self.table.is_some() => {
                sys::change_mode(directory, name, self.existing(directory, name)?.metadata.mode | 0o700)?;
                Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
            }
            result => Ok(result?),
        }
    }

    /// Opens a regular file to read; a link is not followed.
    pub(crate) fn open_file_at(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
        let found = self.stat_at(directory, name)?.ok_or(Errno::NOENT)?;
        match found.metadata.kind {
            FileKind::File => self.open_known_file_at(directory, name),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Opens to read what was just seen to be a regular file.
    pub(crate) fn open_known_file_at(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
            // Only the owner may leave the access time alone.
            Err(Errno::PERM) => {}
            Err(Errno::ACCESS) if self.table.is_some() => {
                sys::change_mode(directory, name, self.existing(directory, name)?.metadata.mode | 0o400)?;
            }
            result => return Ok(result?.into()),
        }
        Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?.into())
    }

    pub(crate) fn xattrs_at(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Xattrs> {
        let found = self.existing(directory, name)?;
        let attributes = sys::xattrs(directory, name, found.metadata.kind, is_ours)?;
        Ok(self.merge_xattrs(found.key, attributes))
    }

    /// As [`Tree::xattrs_at`], of an open file.
    pub(crate) fn file_xattrs(&self, file: &File, key: Key) -> io::Result<Xattrs> {
        Ok(self.merge_xattrs(key, sys::file_xattrs(file, is_ours)?))
    }

    fn merge_xattrs(&self, key: Key, mut attributes: Xattrs) -> Xattrs {
        if let Some(table) = self.entries()
            && let Some(entry) = table.get(key)
        {
            for (name, value) in entry.xattrs().filter(|(name, _)| is_ours(name.as_bytes())) {
                attributes.retain(|(known, _)| known != name);
                attributes.push((name.clone(), value.clone()));
            }
        }
        attributes.sort_unstable();
        attributes
    }

    pub(crate) fn make_dir_at(&self, directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
        rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o700))?;
        self.set_mode_at(directory, name, mode)
    }

    pub(crate) fn make_node_at(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileKind,
        device: (u32, u32),
    ) -> io::Result<()> {
        let file_type = match kind {
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::File | FileKind::Directory | FileKind::Symlink => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a kind of special file"));
            }
        };
        let number = rustix::fs::makedev(device.0, device.1);
        match rustix::fs::mknodat(directory, name, file_type, Mode::from_raw_mode(0o600), number) {
            Err(error) if is_refusal(error) && self.table.is_some() => {
                make_file(directory, name)?;
                self.pretend(self.existing(directory, name)?.key, |entry| entry.pretend_node(kind, device))
            }
            result => Ok(result?),
        }
    }

    pub(crate) fn set_owner_at(&self, directory: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        // To the kernel it means that an id stays, which is what containerd makes of it in a layer: it hands on what it reads.
        let (uid, gid) = match (uid, gid) {
            (KEEP_ID, _) | (_, KEEP_ID) => {
                let found = self.stat_at(directory, name)?.ok_or(Errno::NOENT)?.metadata;
                let kept = |id, now| if id == KEEP_ID { now } else { id };
                (kept(uid, found.uid), kept(gid, found.gid))
            }
            both => both,
        };
        if self.pretends_owners() {
            return self.pretend_owner_at(directory, name, uid, gid);
        }
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match rustix::fs::chownat(directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
            Err(error) if is_refusal(error) && self.table.is_some() => self.pretend_owner_at(directory, name, uid, gid),
            Err(error) => Err(error.into()),
            Ok(()) if self.entries().is_none() => Ok(()),
            Ok(()) => self.pretend(self.existing(directory, name)?.key, |entry| {
                entry.forget_owner();
                entry.forget_xattr(OsStr::new(CAPABILITY));
            }),
        }
    }

    /// Writes an owner down, with what the kernel would have done besides.
    fn pretend_owner_at(&self, directory: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let real = self.pretended(directory, name)?;
        let owner = (real.metadata.uid, real.metadata.gid);
        self.pretend(real.key, |entry| {
            match self.pretends_owners() {
                true => entry.own((uid, gid), owner),
                false => entry.pretend_owner((uid, gid), owner),
            }
            entry.forget_xattr(OsStr::new(CAPABILITY));
        })?;
        if real.metadata.kind != FileKind::File {
            return Ok(());
        }
        let mode = self.stat_at(directory, name)?.map_or(0, |found| found.metadata.mode);
        let cleared = without_set_ids(mode);
        if cleared != mode {
            self.set_mode_at(directory, name, cleared)?;
        }
        match sys::remove_xattr(directory, name, FileKind::File, OsStr::new(CAPABILITY)) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn set_mode_at(&self, directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
        let mode = mode & 0o7777;
        let keeps_access = self.pretends_owners();
        // Most files: nothing that could be dropped, nothing to keep, nothing known.
        if !keeps_access && mode & 0o7000 == 0 && self.entries().is_none() {
            return match sys::change_mode(directory, name, mode) {
                Err(error) if is_io_refusal(&error) && self.table.is_some() => {
                    self.pretend_mode_at(directory, name, mode)
                }
                result => result,
            };
        }
        let Some(found) = sys::stat(directory, name)? else { return Err(Errno::NOENT.into()) };
        let needed = match found.metadata.kind {
            FileKind::Symlink => return Ok(()),
            FileKind::Directory => 0o700,
            _ => 0o600,
        };
        // Set-id bits are for the table: the kernel would take them from a file that a step without capabilities writes to.
        match sys::change_mode(directory, name, if keeps_access { (mode & 0o1777) | needed } else { mode }) {
            Err(error) if !is_io_refusal(&error) || self.table.is_none() => Err(error),
            _ => self.pretend_mode_at(directory, name, mode),
        }
    }

    /// Writes a mode down where the kernel has another.
    fn pretend_mode_at(&self, directory: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
        let real = self.pretended(directory, name)?;
        if real.metadata.kind == FileKind::Symlink {
            return Ok(());
        }
        if real.metadata.mode == mode && self.entries().is_none() {
            return Ok(());
        }
        self.pretend(real.key, |entry| entry.pretend_mode(mode, real.metadata.mode))
    }

    pub(crate) fn set_xattr_at(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        attribute: &OsStr,
        value: &[u8],
    ) -> io::Result<()> {
        let found = self.existing(directory, name)?;
        let may_pretend = self.table.is_some() && attribute.as_bytes().starts_with(b"security.");
        match sys::set_xattr(directory, name, found.metadata.kind, attribute, value) {
            Err(error) if is_refusal(error) && may_pretend => {
                let key = self.pretended(directory, name)?.key;
                self.pretend(key, |entry| entry.pretend_xattr(attribute, value))
            }
            Err(error) => Err(error.into()),
            Ok(()) if self.entries().is_none() => Ok(()),
            Ok(()) => self.pretend(found.key, |entry| entry.forget_xattr(attribute)),
        }
    }

    /// Removes a file or a whole directory; nothing to remove is no error.
    pub(crate) fn remove_at(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        if name == "." {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root cannot be removed"));
        }
        match self.remove_one(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        self.empty(directory, name)?;
        Ok(self.remove_one(directory, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes everything below a directory, with few descriptors and no recursion however deep it is.
    fn empty(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let mut descent = Descent::new(self.open_dir_at(directory, name)?)?;
        let mut pending = vec![names(descent.current())?];
        loop {
            self.stop.check()?;
            let Some(name) = pending.last_mut().and_then(Vec::pop) else {
                pending.pop();
                let Some(name) = descent.leave()? else { return Ok(()) };
                self.remove_one(descent.current(), &name, AtFlags::REMOVEDIR)?;
                continue;
            };
            match self.remove_one(descent.current(), &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => {
                    let below = self.open_dir_at(descent.current(), &name)?;
                    descent.enter(below, name)?;
                    pending.push(names(descent.current())?);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Unlinks one name and drops the table's entry with the last link.
    fn remove_one(&self, directory: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> rustix::io::Result<()> {
        let found = match self.entries() {
            Some(_) => sys::stat(directory, name).ok().flatten(),
            None => None,
        };
        match rustix::fs::unlinkat(directory, name, flags) {
            // POSIX has EPERM for a directory, Linux EISDIR. An unwritable parent may be ours to change.
            Err(Errno::ACCESS) if self.table.is_some() => {
                let parent = self.existing(directory, OsStr::new(".")).map_err(to_errno)?;
                sys::change_mode(directory, OsStr::new("."), parent.metadata.mode | 0o700).map_err(to_errno)?;
                rustix::fs::unlinkat(directory, name, flags)?;
            }
            result => result?,
        }
        match found {
            Some(found) if found.metadata.kind == FileKind::Directory || found.metadata.links <= 1 => {
                self.pretend(found.key, |entry| *entry = super::table::Entry::default()).map_err(to_errno)
            }
            _ => Ok(()),
        }
    }
}

fn is_io_refusal(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(is_refusal)
}

pub(super) fn to_errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
