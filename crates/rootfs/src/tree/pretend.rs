//! The table by itself, for those who answer a step's system calls: what files are in the image, and what it becomes of them.
//!
//! The caller has looked at the file (statx with all basic fields and the creation time) and has changed it as far as the
//! kernel lets it; nothing here touches the file system. Owners are never given to the kernel.

use std::ffi::{OsStr, OsString};
use std::io;

use rustix::fs::Statx;

use super::sys::{self, Found};
use super::table::Entry;
use super::{FileKind, Tree};

const CAPABILITY: &str = "security.capability";

/// What a file is to be in the image.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub uid: u32,
    pub gid: u32,
    /// With set-id and sticky bits.
    pub mode: u32,
    /// For a device node, whose file is really an empty regular one.
    pub node: Option<(FileKind, (u32, u32))>,
}

impl Tree {
    /// Puts what is pretended into the kernel's answer about a file of this tree.
    pub fn present(&self, statx: &mut Statx) {
        let mut found = sys::from_statx(statx);
        self.merge(&mut found);
        let Found { metadata, .. } = found;
        statx.stx_uid = metadata.uid;
        statx.stx_gid = metadata.gid;
        statx.stx_mode = (statx.stx_mode & !0o7777) | metadata.mode as u16;
        if sys::kind_of(u32::from(statx.stx_mode)) != metadata.kind {
            statx.stx_mode = sys::type_of(metadata.kind) as u16 | metadata.mode as u16;
            (statx.stx_rdev_major, statx.stx_rdev_minor) = metadata.device;
        }
    }

    /// Whether something is pretended of a file.
    pub fn knows(&self, real: &Statx) -> bool {
        self.entries().is_some_and(|table| table.get(sys::from_statx(real).key).is_some())
    }

    /// Writes down a file that has just been made. Nothing of an older file with the same key is left.
    pub fn pretend_new(&self, real: &Statx, wanted: Wanted) -> io::Result<()> {
        let found = sys::from_statx(real);
        self.pretend(found.key, |entry| {
            *entry = Entry::default();
            entry.own((wanted.uid, wanted.gid), (found.metadata.uid, found.metadata.gid));
            if found.metadata.kind != FileKind::Symlink {
                entry.pretend_mode(wanted.mode, found.metadata.mode);
            }
            if let Some((kind, device)) = wanted.node {
                entry.pretend_node(kind, device);
            }
        })
    }

    /// `real` is the file after its mode has been changed as far as that is done.
    pub fn pretend_mode(&self, real: &Statx, mode: u32) -> io::Result<()> {
        let found = sys::from_statx(real);
        self.pretend(found.key, |entry| entry.pretend_mode(mode, found.metadata.mode))
    }

    /// Gives a file to another owner, its mode then being `mode`; its capabilities go, as in the kernel.
    pub fn pretend_owner(&self, real: &Statx, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        let found = sys::from_statx(real);
        self.pretend(found.key, |entry| {
            entry.own((uid, gid), (found.metadata.uid, found.metadata.gid));
            entry.forget_xattr(OsStr::new(CAPABILITY));
            if found.metadata.kind != FileKind::Symlink {
                entry.pretend_mode(mode, found.metadata.mode);
            }
        })
    }

    /// Sets an attribute, or with none removes it.
    pub fn pretend_attribute(&self, real: &Statx, name: &OsStr, value: Option<&[u8]>) -> io::Result<()> {
        self.pretend(sys::from_statx(real).key, |entry| match value {
            Some(value) => entry.pretend_xattr(name, value),
            None => entry.forget_xattr(name),
        })
    }

    /// Attributes that are pretended of a file.
    pub fn pretended_attributes(&self, real: &Statx) -> Vec<(OsString, Vec<u8>)> {
        let Some(table) = self.entries() else { return Vec::new() };
        let entry = table.get(sys::from_statx(real).key);
        entry.into_iter().flat_map(Entry::xattrs).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The last name of a file is gone, and with it what was pretended of it.
    pub fn forget(&self, real: &Statx) -> io::Result<()> {
        if self.entries().is_none() {
            return Ok(());
        }
        self.pretend(sys::from_statx(real).key, |entry| *entry = Entry::default())
    }
}
