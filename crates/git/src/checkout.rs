//! A commit as files: beneath a directory handle, with git's modes, no owner of its own and nobody's umask.

use std::ffi::OsStr;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rootfs::{FileKind, Tree};

use super::attributes::{self, Attributes, LineEnds};
use super::keep::IndexWriter;
use super::object::{ItemKind, next_item};
use super::objects::Objects;
use super::oid::Oid;
use super::{Fault, Limits, Result};

/// `PATH_MAX`: no longer path could be opened, nor link be made.
const PATH_MAX: usize = 4096;
/// Directories on the way to the one being written; each of them is in memory.
const OPEN_TREES_MAX_BYTES: usize = 256 << 20;
/// Larger attribute files are ignored (by git from 100 MiB on).
const ATTRIBUTES_MAX_BYTES: u64 = 1 << 20;

/// What may still be written.
pub struct Budget {
    pub size_bytes: u64,
    pub entries: u64,
}

impl Budget {
    pub fn new(limits: &Limits) -> Budget {
        Budget { size_bytes: limits.files_bytes, entries: limits.entries }
    }

    fn entry(&mut self) -> Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| Fault::server("a repository of too many files"))?;
        Ok(())
    }
}

/// A commit of another repository that belongs at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gitlink {
    /// In the repository.
    pub path: PathBuf,
    pub oid: Oid,
}

/// Where a subdirectory is.
pub enum Found {
    Tree(Oid),
    /// In another repository: the rest of the path is there.
    Beyond(Gitlink, String),
}

/// Follows `subdir` from a tree down; links on the way are refused (BuildKit `validateDirsOnly`).
///
/// `attributes` enters the directories above the one that is found.
pub fn descend(objects: &mut Objects<'_>, root: Oid, subdir: &str, attributes: &mut Attributes) -> Result<Found> {
    let mut at = root;
    let mut path = PathBuf::new();
    let mut rest = subdir;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('/').unwrap_or((rest, ""));
        enter(attributes, objects, &at, &path)?;
        path.push(name);
        let missing = |what: &str| Fault::server(format!("the subdirectory `{subdir}`: `{}` {what}", path.display()));
        match entry(objects, &at, name.as_bytes())? {
            Some((ItemKind::Directory, oid)) => at = oid,
            Some((ItemKind::Submodule, oid)) => return Ok(Found::Beyond(Gitlink { path, oid }, after.to_owned())),
            Some(_) => return Err(missing("is not a directory")),
            None => return Err(missing("does not exist")),
        }
        rest = after;
    }
    Ok(Found::Tree(at))
}

/// The entry `name` of a tree.
pub fn entry(objects: &mut Objects<'_>, tree: &Oid, name: &[u8]) -> Result<Option<(ItemKind, Oid)>> {
    let format = objects.format();
    let bytes = objects.tree(tree)?;
    let mut rest = &bytes[..];
    while let Some(item) = next_item(&mut rest, format)? {
        if item.name == name {
            return Ok(Some((item.kind, item.oid)));
        }
    }
    Ok(None)
}

/// Writes trees into a directory.
pub struct Writer<'a> {
    pub into: &'a Tree,
    pub budget: &'a mut Budget,
    /// Told of every file, in order.
    pub index: Option<&'a mut IndexWriter>,
    pub attributes: Attributes,
    /// For what is converted on its way.
    pub work: &'a Path,
}

/// A tree on the way.
struct Open {
    bytes: Rc<Vec<u8>>,
    used: usize,
    /// In the repository, and below the directory that is written to.
    path: PathBuf,
    to: PathBuf,
}

impl Writer<'_> {
    /// Writes the tree `oid`, which is `path` in its repository, into the existing directory `to`. Gives what belongs to
    /// other repositories; empty directories are there for it.
    pub fn write(&mut self, objects: &mut Objects<'_>, oid: &Oid, path: &Path, to: &Path) -> Result<Vec<Gitlink>> {
        let format = objects.format();
        let mut links = Vec::new();
        enter(&mut self.attributes, objects, oid, path)?;
        let mut open = vec![Open { bytes: objects.tree(oid)?, used: 0, path: path.to_owned(), to: to.to_owned() }];
        while let Some(top) = open.last_mut() {
            let bytes = top.bytes.clone();
            let mut rest = &bytes[top.used..];
            let Some(item) = next_item(&mut rest, format)? else {
                open.pop();
                self.attributes.leave();
                continue;
            };
            top.used = bytes.len() - rest.len();
            let name = OsStr::from_bytes(item.name);
            let (path, to) = (top.path.join(name), top.to.join(name));
            self.budget.entry()?;
            if path.as_os_str().len() >= PATH_MAX || to.as_os_str().len() >= PATH_MAX {
                return Err(Fault::server("a path longer than any may be"));
            }
            let size = match item.kind {
                ItemKind::Directory => {
                    self.into.make_dir(&to, 0o755)?;
                    enter(&mut self.attributes, objects, &item.oid, &path)?;
                    open.push(Open { bytes: objects.tree(&item.oid)?, used: 0, path, to });
                    let held: usize = open.iter().map(|it| it.bytes.len()).sum();
                    if held > OPEN_TREES_MAX_BYTES {
                        return Err(Fault::server("directories beyond all measure"));
                    }
                    continue;
                }
                ItemKind::Submodule => {
                    self.into.make_dir(&to, 0o755)?;
                    links.push(Gitlink { path: path.clone(), oid: item.oid });
                    0
                }
                ItemKind::File { executable } => self.file(objects, &item.oid, (&path, &to), executable)?,
                ItemKind::Link => self.link(objects, &item.oid, &to)?,
            };
            if let Some(index) = &mut self.index {
                index.entry(&path, item.kind, &item.oid, size)?;
            }
        }
        Ok(links)
    }

    /// Gives the size of what was written.
    fn file(
        &mut self,
        objects: &mut Objects<'_>,
        oid: &Oid,
        (path, to): (&Path, &Path),
        executable: bool,
    ) -> Result<u64> {
        let mut out = BufWriter::with_capacity(64 << 10, self.into.stop().watch(self.into.make_file(to)?));
        let limit = self.budget.size_bytes;
        let size = match self.attributes.line_ends(path.as_os_str().as_bytes()) {
            LineEnds::AsStored => objects.copy_blob(oid, limit, &mut out)?,
            LineEnds::Carriage { only_text } => {
                let mut stored = self.into.stop().watch(tempfile::tempfile_in(self.work)?);
                objects.copy_blob(oid, limit, &mut stored)?;
                stored.rewind()?;
                let converts = attributes::converts(&mut stored, only_text)?;
                stored.rewind()?;
                match converts {
                    true => attributes::convert(&mut stored, &mut out)?,
                    false => io::copy(&mut stored, &mut out)?,
                }
            }
        };
        out.flush()?;
        drop(out);
        self.budget.size_bytes = limit.saturating_sub(size);
        self.into.set_mode(to, if executable { 0o755 } else { 0o644 })?;
        Ok(size)
    }

    fn link(&mut self, objects: &mut Objects<'_>, oid: &Oid, to: &Path) -> Result<u64> {
        let target = objects.small_blob(oid, PATH_MAX as u64 - 1, "a link")?;
        if target.is_empty() || target.contains(&0) {
            return Err(Fault::server(format!("a link to nowhere (`{}`)", to.display())));
        }
        self.into.make_symlink(Path::new(OsStr::from_bytes(&target)), to)?;
        Ok(target.len() as u64)
    }
}

/// Goes into the directory `path` of a repository, with its `.gitattributes` if there is a file of that name.
pub fn enter(attributes: &mut Attributes, objects: &mut Objects<'_>, tree: &Oid, path: &Path) -> Result<()> {
    let text = match entry(objects, tree, b".gitattributes")? {
        Some((ItemKind::File { .. }, oid)) => objects.small_blob(&oid, ATTRIBUTES_MAX_BYTES, "a `.gitattributes`").ok(),
        _ => None,
    };
    attributes.enter(path.as_os_str().as_bytes(), text.as_deref().map_or(&[], Vec::as_slice));
    Ok(())
}

/// Gives everything in `directory`, and itself, one modification time; directories after what is in them.
pub fn set_times(tree: &Tree, directory: &Path, modified: i64) -> Result<()> {
    for name in tree.read_dir(directory)? {
        tree.stop().check()?;
        let path = directory.join(name);
        match tree.stat(&path)?.map(|metadata| metadata.kind) {
            Some(FileKind::Directory) => set_times(tree, &path, modified)?,
            _ => tree.set_modified(&path, (modified, 0))?,
        }
    }
    Ok(tree.set_modified(directory, (modified, 0))?)
}
