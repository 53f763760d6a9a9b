//! Where things land: the destination's text, implicit parents, and what may be replaced.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use crate::{FileKind, Metadata, SET_GROUP_ID, Tree, unpack};

use super::chmod::Clauses;
use super::{Copied, CopyError, CopyOptions, Mode, clean, io_error, refuse};

/// The destination as written: cleaned, without the leading `/`.
pub(super) struct Destination {
    pub(super) path: PathBuf,
    /// It ends in `/` or `/.`, so it names a directory whether or not that exists. BuildKit `cleanPath`.
    pub(super) directory: bool,
}

impl Destination {
    pub(super) fn parse(text: &str) -> Destination {
        let directory = text.ends_with('/') || text.ends_with("/.") || text == ".";
        Destination { path: clean(text.as_bytes()), directory }
    }
}

/// `--chmod`, ready to be applied.
pub(super) enum Chmod {
    Keep,
    Octal(u32),
    Symbolic(Clauses),
}

/// A directory that was made on the way and gets its times at the end.
struct Made {
    path: PathBuf,
    owner: (u32, u32),
    mode: u32,
}

/// What owners and modes become.
pub(super) struct Looks<'a> {
    pub(super) options: &'a CopyOptions,
    chmod: Chmod,
}

impl<'a> Looks<'a> {
    pub(super) fn new(options: &'a CopyOptions) -> Result<Looks<'a>, CopyError> {
        let chmod = match &options.mode {
            None => Chmod::Keep,
            Some(Mode::Octal(mode)) => Chmod::Octal(mode & 0o7777),
            Some(Mode::Symbolic(text)) => Chmod::Symbolic(Clauses::parse(text)?),
        };
        Ok(Looks { options, chmod })
    }

    pub(super) fn mode_for(&self, mode: u32, kind: FileKind) -> u32 {
        match &self.chmod {
            Chmod::Keep => mode,
            Chmod::Octal(mode) => *mode,
            Chmod::Symbolic(clauses) => clauses.apply(mode, kind == FileKind::Directory),
        }
    }

    /// Owner of something that is `source` where it comes from.
    pub(super) fn owner_for(&self, source: &Metadata) -> (u32, u32) {
        let own = if self.options.keep_owner { (source.uid, source.gid) } else { (0, 0) };
        self.options.owner.unwrap_or(own)
    }

    /// Only the permission bits of an octal `--chmod` reach parents, without set-id and sticky bits; symbolic ones do not.
    /// BuildKit `MkdirAll(…, os.FileMode(perm))`.
    fn parent_mode(&self) -> u32 {
        match self.chmod {
            Chmod::Octal(mode) => mode & 0o777,
            Chmod::Keep | Chmod::Symbolic(_) => 0o755,
        }
    }
}

/// The tree that is written to.
pub(super) struct Target<'a> {
    pub(super) tree: &'a Tree,
    pub(super) options: &'a CopyOptions,
    pub(super) looks: &'a Looks<'a>,
    made: Vec<Made>,
    pub(super) copied: Copied,
}

impl<'a> Target<'a> {
    pub(super) fn new(tree: &'a Tree, looks: &'a Looks<'a>) -> Target<'a> {
        Target { tree, options: looks.options, looks, made: Vec::new(), copied: Copied::default() }
    }

    /// The path to write to, its parents made. `directory`: the source is one, and its contents go into what is returned.
    ///
    /// BuildKit: `fsutil/copy` `Copy` (the parents of the written path) and `prepareTargetDir` (those of the resolved one).
    pub(super) fn place(
        &mut self,
        destination: &Destination,
        directory: bool,
        name: Option<&OsStr>,
    ) -> Result<PathBuf, CopyError> {
        let ensured = match destination.directory {
            true => &destination.path,
            false => destination.path.parent().unwrap_or(Path::new("")),
        };
        self.make_parents(&self.tree.resolve(ensured, true)?)?;
        let mut path = self.tree.resolve(&destination.path, true)?;
        let existing = self.tree.stat(&path)?.map(|metadata| metadata.kind);
        if directory && existing.is_none() {
            self.make_parents(&path)?;
        } else if !directory && existing == Some(FileKind::Directory) {
            path.push(name.unwrap_or_default());
        } else if let Some(parent) = path.parent() {
            self.make_parents(parent)?;
        }
        Ok(path)
    }

    /// Makes the resolved `path` and its parents where they are missing. Owner and mode are set by [`Target::finish`], so that a
    /// mode without write permission does not lock its own contents out.
    pub(super) fn make_parents(&mut self, path: &Path) -> Result<(), CopyError> {
        self.make_parents_with(path, self.looks.parent_mode())
    }

    /// [`Target::make_parents`] with a mode of its own.
    pub(super) fn make_parents_with(&mut self, path: &Path, mode: u32) -> Result<(), CopyError> {
        if self.is_directory(path)? {
            return Ok(());
        }
        let mut reached = PathBuf::new();
        let mut above = self.tree.stat(&reached)?.map_or((0, 0), |root| (root.mode, root.gid));
        for component in path.components() {
            reached.push(component);
            above = match self.tree.stat(&reached)? {
                Some(metadata) if metadata.kind == FileKind::Directory => (metadata.mode, metadata.gid),
                Some(_) => {
                    return refuse(format!(
                        "cannot make directory `/{}`: `/{}` is not a directory",
                        path.display(),
                        reached.display()
                    ));
                }
                None => self.make_parent(&reached, mode, above)?,
            };
        }
        Ok(())
    }

    fn is_directory(&self, path: &Path) -> Result<bool, CopyError> {
        let exists =
            path.as_os_str().is_empty() || self.tree.stat(path)?.is_some_and(|it| it.kind == FileKind::Directory);
        Ok(exists)
    }

    /// Mode and group of the directory `path` that this makes; `above` are those of its parent.
    fn make_parent(&mut self, path: &Path, mode: u32, above: (u32, u32)) -> Result<(u32, u32), CopyError> {
        // mkdir hands the group and the bit of a set-group-ID directory on; BuildKit does not chmod afterwards.
        let bit = above.0 & SET_GROUP_ID;
        let owner = self.options.owner.unwrap_or((0, if bit == 0 { 0 } else { above.1 }));
        self.tree.make_dir(path, 0o755)?;
        self.tree.set_owner(path, owner.0, owner.1)?;
        if bit != 0 {
            self.tree.set_mode(path, 0o755 | bit)?;
        }
        self.made.push(Made { path: path.to_owned(), owner, mode: mode | bit });
        self.copied.entries += 1;
        Ok((0o755 | bit, owner.1))
    }

    /// Makes room at `path` for something that is no directory. A symbolic link is removed, not followed.
    pub(super) fn clear(&self, path: &Path) -> Result<(), CopyError> {
        match self.tree.stat(path)? {
            None => Ok(()),
            Some(metadata) if metadata.kind == FileKind::Directory => {
                refuse(format!("cannot replace directory `/{}` with a file", path.display()))
            }
            Some(_) => Ok(self.tree.remove(path)?),
        }
    }

    /// Writes the new file `path`; owner, mode and times are the caller's.
    pub(super) fn write_content(&mut self, path: &Path, content: &mut dyn Read) -> Result<(), CopyError> {
        let mut file = self.tree.make_file(path)?;
        let mut content = self.tree.stop().watch(content);
        self.copied.size_bytes +=
            std::io::copy(&mut content, &mut file).map_err(|error| io_error("write", path, error))?;
        self.copied.entries += 1;
        file.flush().map_err(|error| io_error("write", path, error))
    }

    /// Unpacks a tar stream below the destination, which is made where it is missing: always 0755, since --chmod is for files
    /// that are copied. BuildKit `unpack`.
    pub(super) fn unpack(&mut self, archive: &mut dyn Read, destination: &Destination) -> Result<(), CopyError> {
        let into = self.tree.resolve(&destination.path, true)?;
        self.make_parents_with(&into, 0o755)?;
        let unpacked = unpack::extract(archive, self.tree, &into, self.options.owner)?;
        self.copied.entries += unpacked.entries;
        self.copied.size_bytes += unpacked.size_bytes;
        Ok(())
    }

    /// Gives the directories that were made on the way their mode and time, the deepest first.
    pub(super) fn finish(mut self) -> Result<Copied, CopyError> {
        for Made { path, owner, mode } in std::mem::take(&mut self.made).into_iter().rev() {
            self.tree.set_owner(&path, owner.0, owner.1)?;
            self.tree.set_mode(&path, mode)?;
            self.set_made_modified(&path)?;
        }
        Ok(self.copied)
    }

    pub(super) fn set_made_modified(&self, path: &Path) -> Result<(), CopyError> {
        match self.options.made_modified {
            Some(seconds) => Ok(self.tree.set_modified(path, (seconds, 0))?),
            None => Ok(()),
        }
    }
}
