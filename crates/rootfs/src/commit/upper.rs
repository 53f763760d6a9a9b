//! Changes out of the upper directory of an overlay: the kernel has already sorted out what a step wrote.
//!
//! Only what is in the upper directory is looked at, never the whole tree. A file that was copied up and is as it was (opened
//! to be written and not written, given the owner it had) is no change: the contents are compared, as BuildKit does.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::vec::IntoIter;

use super::record::State;
use super::walk::{Layer, WHITEOUT, check_name, entry_of, push_name, whiteout};
use super::{CommitOptions, Committed};
use crate::overlay::{Marks, is_whiteout};
use crate::tree::{Descent, Found, at, inside_error};
use crate::{FileKind, RootfsError, Stop, Tree};

/// Writes what the upper directory `upper` changes in the tree `before` as an uncompressed layer tar to `layer`.
///
/// Order, names and metadata of the entries are those of [`super::commit`]. Memory is that of the directories on the way down.
///
/// # Errors
/// As [`super::commit`].
pub fn commit_upper(
    upper: &Tree,
    before: &Tree,
    marks: Marks,
    options: &CommitOptions,
    layer: &mut dyn Write,
) -> Result<Committed, RootfsError> {
    let fail = |error| inside_error("could not read the directory", Path::new(""), error);
    let top = |tree: &Tree| Descent::new(tree.open_dir_at(tree.root(), OsStr::new("."))?);
    let (descent, earlier) = (top(upper).map_err(fail)?, top(before).map_err(fail)?);
    let layer = Layer::new(layer, false);
    let walk = Walk { upper, before, marks, options, layer, descent, earlier, levels: Vec::new(), path: Vec::new() };
    walk.run()
}

struct Walk<'a> {
    upper: &'a Tree,
    before: &'a Tree,
    marks: Marks,
    options: &'a CommitOptions,
    layer: Layer<'a>,
    descent: Descent,
    /// In the tree before; goes along as far as it has the same directories.
    earlier: Descent,
    levels: Vec<Level>,
    /// Of the current file, without a leading `/`.
    path: Vec<u8>,
}

/// A directory on the way down.
struct Level {
    /// Sorted. Names that only `before` has are there where the directory replaced the earlier one.
    names: IntoIter<OsString>,
    /// The tree before has this directory, and it is the current one of `earlier` while this is.
    was_there: bool,
    /// It or a directory above it replaced an earlier one: only the topmost is marked, and nothing shows through below it.
    hides: bool,
    path_length: usize,
    state: State,
    is_written: bool,
}

impl Walk<'_> {
    fn run(mut self) -> Result<Committed, RootfsError> {
        let root = self.upper.stat_at(self.upper.root(), OsStr::new("."));
        let Some(root) = root.map_err(|error| self.fail("could not read", error))? else {
            return self.layer.finish();
        };
        self.push_level(State::of(&root), true, true)?;
        while let Some(level) = self.levels.last_mut() {
            self.upper.go_on()?;
            self.path.truncate(level.path_length);
            match level.names.next() {
                Some(name) => self.visit(&name)?,
                None => self.leave().map_err(|error| self.fail("could not read the directory", error))?,
            }
        }
        self.layer.finish()
    }

    /// Lists the current directory of the descent.
    fn push_level(&mut self, state: State, was_there: bool, is_written: bool) -> Result<(), RootfsError> {
        let fail = |error| self.fail("could not read the directory", error);
        let hides = match self.levels.last() {
            Some(above) => above.hides || self.marks.is_opaque(self.descent.current()).map_err(fail)?,
            None => false,
        };
        let names = self.names(was_there && hides).map_err(fail)?;
        let path_length = self.path.len();
        self.levels.push(Level { names: names.into_iter(), was_there, hides, path_length, state, is_written });
        Ok(())
    }

    /// What is in the current directory, and with `hides`, what was there before.
    fn names(&self, hides: bool) -> io::Result<Vec<OsString>> {
        let mut names = at::names(self.descent.current())?;
        if hides {
            names.extend(at::names(self.earlier.current())?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// What was at `name` of the current directory; sockets do not count, no layer has them.
    fn look_before(&self, name: &OsStr) -> io::Result<Option<Found>> {
        if !self.levels.last().is_some_and(|level| level.was_there) {
            return Ok(None);
        }
        let found = self.before.stat_at(self.earlier.current(), name)?;
        Ok(found.filter(|found| found.metadata.kind != FileKind::Socket && !is_whiteout(&found.metadata)))
    }

    /// The current directory is done.
    fn leave(&mut self) -> io::Result<()> {
        if self.levels.pop().is_some_and(|level| level.was_there) {
            self.earlier.leave()?;
        }
        self.descent.leave().map(drop)
    }

    /// One name of the current directory.
    fn visit(&mut self, name: &OsStr) -> Result<(), RootfsError> {
        push_name(&mut self.path, name.as_bytes());
        if self.options.ignores(&self.path) {
            return Ok(());
        }
        let before = self.look_before(name).map_err(|error| self.fail("could not read", error))?;
        let found = self.upper.stat_at(self.descent.current(), name);
        let found = found.map_err(|error| self.fail("could not read", error))?;
        let is_there = |found: &Found| found.metadata.kind != FileKind::Socket && !is_whiteout(&found.metadata);
        match (found.filter(is_there), before) {
            (None, None) => Ok(()),
            (None, Some(_)) => self.remove(name.as_bytes()),
            (Some(found), before) if found.metadata.kind == FileKind::Directory => {
                self.enter(name, &State::of(&found), before)
            }
            (Some(found), before) => {
                let is_same = match before {
                    Some(before) => self.is_same(name, &found, &before),
                    None => Ok(false),
                };
                if is_same.map_err(|error| self.fail("could not read", error))? {
                    return Ok(());
                }
                self.write_file(name, &found)
            }
        }
    }

    fn enter(&mut self, name: &OsStr, state: &State, before: Option<Found>) -> Result<(), RootfsError> {
        let before = before.filter(|before| before.metadata.kind == FileKind::Directory);
        let is_changed = before.as_ref().is_none_or(|before| state.differs_as_directory(&State::of(before)));
        let go = |tree: &Tree, descent: &mut Descent| {
            let directory = tree.open_dir_at(descent.current(), name)?;
            descent.enter(directory, name.to_owned())
        };
        let mut gone = go(self.upper, &mut self.descent);
        if before.is_some() {
            gone = gone.and_then(|()| go(self.before, &mut self.earlier));
        }
        gone.map_err(|error| self.fail("could not read the directory", error))?;
        self.push_level(*state, before.is_some(), false)?;
        if is_changed { self.write_directories() } else { Ok(()) }
    }

    /// Whether a file is all that it was before as far as a layer can tell.
    fn is_same(&self, name: &OsStr, found: &Found, before: &Found) -> io::Result<bool> {
        let visible = |found: &Found| {
            let metadata = &found.metadata;
            let owner = (metadata.uid, metadata.gid);
            (metadata.kind, metadata.mode, owner, metadata.device, metadata.size_bytes, metadata.modified)
        };
        if visible(found) != visible(before) {
            return Ok(false);
        }
        let directory = self.earlier.current();
        match found.metadata.kind {
            FileKind::Symlink => Ok(at::read_link(self.descent.current(), name)? == at::read_link(directory, name)?),
            FileKind::File => {
                let now = self.upper.open_known_file_at(self.descent.current(), name)?;
                let then = self.before.open_known_file_at(directory, name)?;
                let capability = |tree: &Tree, file: &File, found: &Found| -> io::Result<Option<Vec<u8>>> {
                    let xattrs = tree.file_xattrs(file, found.key)?;
                    Ok(xattrs.into_iter().find(|(name, _)| name == "security.capability").map(|(_, value)| value))
                };
                let is_equal = capability(self.upper, &now, found)? == capability(self.before, &then, before)?;
                Ok(is_equal && same_content(now, then, self.upper.stop())?)
            }
            _ => Ok(true),
        }
    }

    /// A whiteout for the current path.
    fn remove(&mut self, name: &[u8]) -> Result<(), RootfsError> {
        self.write_directories()?;
        let start = self.path.len() - name.len();
        self.layer.header(&whiteout([&self.path[..start], WHITEOUT, name].concat()))
    }

    /// Writes the directories on the way down that the layer does not have yet.
    fn write_directories(&mut self) -> Result<(), RootfsError> {
        for level in self.levels.iter_mut().filter(|level| !level.is_written) {
            level.is_written = true;
            let path = &self.path[..level.path_length];
            check_name(path)?;
            let mut entry = entry_of(&level.state, path, self.options, false);
            entry.path.push(b'/');
            self.layer.header(&entry)?;
        }
        Ok(())
    }

    fn write_file(&mut self, name: &OsStr, found: &Found) -> Result<(), RootfsError> {
        check_name(&self.path)?;
        self.write_directories()?;
        let (directory, state) = (self.descent.current(), State::of(found));
        self.layer.file(self.upper, directory, name, found, &state, &self.path, self.options)
    }

    fn fail(&self, action: &'static str, error: io::Error) -> RootfsError {
        inside_error(action, Path::new(OsStr::from_bytes(&self.path)), error)
    }
}

fn same_content(a: File, b: File, stop: &Stop) -> io::Result<bool> {
    const PIECE: usize = 64 * 1024;
    let (mut of_a, mut of_b) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        stop.check()?;
        of_a.clear();
        of_b.clear();
        (&a).take(PIECE as u64).read_to_end(&mut of_a)?;
        (&b).take(PIECE as u64).read_to_end(&mut of_b)?;
        if of_a != of_b || of_a.is_empty() {
            return Ok(of_a == of_b);
        }
    }
}
