//! A directory handle and everything beneath it, with the metadata table.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::RootfsError;

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
#[derive(Debug)]
pub struct Tree {
    _root: OwnedFd,
    _path: PathBuf,
}

impl Tree {
    /// Opens an existing directory. With `table`, metadata that the kernel refuses to set is kept in that file.
    pub fn open(path: &Path, table: Option<&Path>) -> Result<Tree, RootfsError> {
        let _ = (path, table);
        unimplemented!()
    }

    /// Makes an empty directory (0755) and opens it.
    pub fn create(path: &Path, table: Option<&Path>) -> Result<Tree, RootfsError> {
        let _ = (path, table);
        unimplemented!()
    }

    /// Where the tree is on the host. For the sandbox and for messages, not for joining.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// `path` with every symbolic link resolved inside the tree, the last component included when `follow_last`.
    /// Components that do not exist are kept as they are. No leading `/`; the root is the empty path.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf, RootfsError> {
        let _ = (path, follow_last);
        unimplemented!()
    }

    /// Metadata of the file itself (a symbolic link is not followed); none where it does not exist.
    pub fn stat(&self, path: &Path) -> Result<Option<Metadata>, RootfsError> {
        let _ = path;
        unimplemented!()
    }

    /// Names in a directory, sorted by bytes.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<OsString>, RootfsError> {
        let _ = path;
        unimplemented!()
    }

    /// Opens a regular file to read; the last component is followed.
    pub fn open_file(&self, path: &Path) -> Result<File, RootfsError> {
        let _ = path;
        unimplemented!()
    }

    pub fn read_link(&self, path: &Path) -> Result<PathBuf, RootfsError> {
        let _ = path;
        unimplemented!()
    }

    /// `security.capability` and `user.*` attributes, sorted by name.
    pub fn xattrs(&self, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>, RootfsError> {
        let _ = path;
        unimplemented!()
    }

    /// Makes a directory; its parent must exist. Fails with `AlreadyExists`.
    pub fn make_dir(&self, path: &Path, mode: u32) -> Result<(), RootfsError> {
        let _ = (path, mode);
        unimplemented!()
    }

    /// Makes a new regular file to write (O_EXCL) and returns it.
    pub fn make_file(&self, path: &Path) -> Result<File, RootfsError> {
        let _ = path;
        unimplemented!()
    }

    pub fn make_symlink(&self, target: &Path, path: &Path) -> Result<(), RootfsError> {
        let _ = (target, path);
        unimplemented!()
    }

    /// Makes `path` another name of the file `existing` (not followed).
    pub fn make_link(&self, existing: &Path, path: &Path) -> Result<(), RootfsError> {
        let _ = (existing, path);
        unimplemented!()
    }

    /// Makes a fifo, socket or device node (a placeholder with an entry in the table where mknod is refused).
    pub fn make_node(&self, path: &Path, kind: FileKind, device: (u32, u32)) -> Result<(), RootfsError> {
        let _ = (path, kind, device);
        unimplemented!()
    }

    /// Removes a file or a whole directory; nothing to remove is no error.
    pub fn remove(&self, path: &Path) -> Result<(), RootfsError> {
        let _ = path;
        unimplemented!()
    }

    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<(), RootfsError> {
        let _ = (path, uid, gid);
        unimplemented!()
    }

    /// Sets permission bits; a no-op on symbolic links. Call after [`Tree::set_owner`], which clears set-id bits.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Result<(), RootfsError> {
        let _ = (path, mode);
        unimplemented!()
    }

    pub fn set_xattr(&self, path: &Path, name: &std::ffi::OsStr, value: &[u8]) -> Result<(), RootfsError> {
        let _ = (path, name, value);
        unimplemented!()
    }

    /// Sets the modification time (and the access time to the same).
    pub fn set_modified(&self, path: &Path, modified: (i64, u32)) -> Result<(), RootfsError> {
        let _ = (path, modified);
        unimplemented!()
    }
}
