//! Copies of single files, so that the change time of the original stays what it was.
//!
//! Renaming changes the change time of what is renamed. For a directory that means nothing, but a file would count as changed
//! by the step, and be in its layer. So files and symbolic links that are moved one by one (those right in `/` and in shared
//! directories) are lent: the step gets a copy, which is thrown away unless the step has touched it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

/// What a copy was like when it was lent: inode and change time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lent(u64, (i64, i64));

impl Lent {
    pub fn of(looks: &Metadata) -> Lent {
        Lent(looks.ino(), (looks.ctime(), looks.ctime_nsec()))
    }
}

/// Whether a copy does: a file of which there is one name, or a symbolic link.
pub fn can_be_lent(looks: &Metadata) -> bool {
    looks.is_symlink() || (looks.is_file() && looks.nlink() == 1)
}

/// Copies a file or symbolic link with owner, mode, attributes and times.
pub fn lend(from: &Path, to: &Path, looks: &Metadata) -> io::Result<Lent> {
    if looks.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else {
        fs::copy(from, to)?;
    }
    // First the owner: the kernel takes set-id bits and capabilities away when it changes.
    lchown(to, Some(looks.uid()), Some(looks.gid()))?;
    if !looks.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(looks.mode() & 0o7777))?;
        copy_attributes(from, to)?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: looks.atime(), tv_nsec: looks.atime_nsec() as _ },
        last_modification: Timespec { tv_sec: looks.mtime(), tv_nsec: looks.mtime_nsec() as _ },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    fs::symlink_metadata(to).map(|looks| Lent::of(&looks))
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    // The most that the kernel gives (`linux/limits.h` XATTR_LIST_MAX, XATTR_SIZE_MAX).
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(from, name, &mut value)?;
        match rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // Those of a security module or of the file system itself, which nobody may set.
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
