//! The walk through a tree that records it, compares it with an earlier record and writes what changed.
//!
//! Depth first, names sorted by bytes. The earlier record is read alongside like the other half of a merge, so memory is that
//! of the directories on the way down, plus a map of files that have several names.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::vec::IntoIter;

use super::record::{self, Record, State};
use super::{CommitOptions, Committed};
use crate::contents::{Contents, Print, Printer};
use crate::stop::Watched;
use crate::tar::{self, CopyError, Entry, Kind};
use crate::tree::{Descent, Found, Xattrs, at, inside_error, io_error};
use crate::{FileKind, RootfsError, Tree};

pub const WHITEOUT: &[u8] = b".wh.";

pub struct Walk<'a> {
    tree: &'a Tree,
    options: &'a CommitOptions,
    before: Option<record::Reader>,
    record: Option<record::Writer>,
    layer: Option<Layer<'a>>,
    descent: Descent,
    levels: Vec<Level>,
    /// Of the current file, without a leading `/`.
    path: Vec<u8>,
    /// Latest change time that was seen.
    pub newest: (i64, u32),
    /// How many notes of contents there were when the earlier record was done.
    pub noted: u64,
    /// Nothing is remembered of the tree yet: everything is read.
    pub notes_all: bool,
    /// Of files with several names that were read without being put into the layer, by inode.
    prints: HashMap<u64, Print>,
}

/// A directory on the way down.
struct Level {
    names: IntoIter<OsString>,
    /// The record has this directory: what of it does not come up was removed.
    was_there: bool,
    /// Length of its path.
    path_length: usize,
    state: State,
    is_written: bool,
}

/// The layer that is being written.
pub struct Layer<'a> {
    writer: tar::Writer<&'a mut dyn Write>,
    /// First name in the layer of files that have several, by inode.
    names: HashMap<u64, Vec<u8>>,
    /// A copy of a tree rather than a layer: all attributes, times to the nanosecond.
    is_copy: bool,
    entries: u64,
}

impl<'a> Layer<'a> {
    pub fn new(stream: &'a mut dyn Write, is_copy: bool) -> Layer<'a> {
        Layer { writer: tar::Writer::new(stream), names: HashMap::new(), is_copy, entries: 0 }
    }

    pub fn finish(self) -> Result<Committed, RootfsError> {
        let size_bytes = self.writer.finish().map_err(RootfsError::write)?;
        Ok(Committed { entries: self.entries, size_bytes })
    }

    /// Adds an entry without content.
    pub fn header(&mut self, entry: &Entry) -> Result<(), RootfsError> {
        self.entries += 1;
        self.writer.header(entry).map_err(RootfsError::write)
    }

    /// Adds a file, link or special file and its content: `name` in `directory`, `path` in the layer.
    #[expect(clippy::too_many_arguments, reason = "what a file is, where it is, and what it is called")]
    pub fn file(
        &mut self,
        tree: &Tree,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        found: &Found,
        state: &State,
        path: &[u8],
        options: &CommitOptions,
    ) -> Result<(), RootfsError> {
        let fail = |error| inside_error("could not read", Path::new(OsStr::from_bytes(path)), error);
        let mut entry = entry_of(state, path, options, self.is_copy);
        let contents = tree.contents().filter(|_| !self.is_copy);
        let mut file = None;
        if state.kind == FileKind::File {
            let opened = tree.open_known_file_at(directory, name).map_err(fail)?;
            entry.xattrs = tree.file_xattrs(&opened, found.key).map_err(fail)?;
            // As BuildKit, which leaves all others out of the layers that it writes.
            entry.xattrs.retain(|(name, _)| self.is_copy || name == tar::CAPABILITY);
            file = Some(opened);
        }
        if let Some(first) = self.names.get(&state.inode) {
            entry.kind = Kind::HardLink;
            entry.link = first.clone();
            return self.header(&entry);
        }
        if state.links > 1 {
            self.names.insert(state.inode, path.to_vec());
        }
        if state.kind == FileKind::Symlink {
            entry.link = at::read_link(directory, name).map_err(fail)?.into_os_string().into_encoded_bytes();
            if let Some(contents) = contents {
                let print = contents.printer().of_link(OsStr::from_bytes(&entry.link));
                contents.note(state.inode, Some(print)).map_err(record_error)?;
            }
        }
        let Some(file) = file else { return self.header(&entry) };
        entry.size_bytes = file.metadata().map_err(fail)?.len();
        self.header(&entry)?;
        let mut content = Content { file: tree.stop().watch(file), printer: contents.map(Contents::printer) };
        self.writer.content(&mut content, entry.size_bytes).map_err(|error| match error {
            CopyError::Read(error) => fail(error),
            CopyError::Write(error) => RootfsError::write(error),
        })?;
        let (Some(contents), Some(printer)) = (contents, content.printer) else { return Ok(()) };
        contents.note(state.inode, Some(printer.finish(entry.capability()))).map_err(record_error)
    }
}

/// A file that is read into a layer, and what has been read of it so far.
struct Content {
    file: Watched<File>,
    printer: Option<Printer>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if let Some(printer) = &mut self.printer {
            printer.update(&buffer[..count]);
        }
        Ok(count)
    }
}

impl<'a> Walk<'a> {
    pub fn new(
        tree: &'a Tree,
        options: &'a CommitOptions,
        before: Option<record::Reader>,
        record: Option<record::Writer>,
        layer: Option<Layer<'a>>,
    ) -> Result<Walk<'a>, RootfsError> {
        let fail = |error| inside_error("could not read the directory", Path::new(""), error);
        let root = tree.open_dir_at(tree.root(), OsStr::new(".")).map_err(fail)?;
        let descent = Descent::new(root).map_err(fail)?;
        Ok(Walk {
            tree,
            options,
            before,
            record,
            layer,
            descent,
            levels: Vec::new(),
            path: Vec::new(),
            newest: (i64::MIN, 0),
            noted: 0,
            notes_all: false,
            prints: HashMap::new(),
        })
    }

    /// Walks the whole tree; gives what went into the layer.
    pub fn run(&mut self) -> Result<Committed, RootfsError> {
        let root =
            self.tree.stat_at(self.tree.root(), OsStr::new(".")).map_err(|error| self.fail("could not read", error))?;
        let Some(root) = root else { return Ok(Committed::default()) };
        // The root is no entry of a layer: containerd and Docker make it themselves.
        self.push_level(State::of(&root), self.before.is_some(), true)?;
        while let Some(level) = self.levels.last_mut() {
            self.tree.go_on()?;
            self.path.truncate(level.path_length);
            match level.names.next() {
                Some(name) => self.visit(name)?,
                None => self.leave()?,
            }
        }
        if let Some(record) = self.record.take() {
            record.finish().map_err(record_error)?;
        }
        self.layer.take().map_or(Ok(Committed::default()), Layer::finish)
    }

    /// Lists the current directory of the descent.
    fn push_level(&mut self, state: State, was_there: bool, is_written: bool) -> Result<(), RootfsError> {
        let fail = |error| self.fail("could not read the directory", error);
        let mut names = at::names(self.descent.current()).map_err(fail)?;
        names.sort_unstable();
        let path_length = self.path.len();
        self.levels.push(Level { names: names.into_iter(), was_there, path_length, state, is_written });
        Ok(())
    }

    fn depth(&self) -> u32 {
        self.levels.len() as u32
    }

    /// One name of the current directory.
    fn visit(&mut self, name: OsString) -> Result<(), RootfsError> {
        self.remove_before(Some(name.as_bytes()))?;
        let before = self.take_equal(name.as_bytes())?;
        push_name(&mut self.path, name.as_bytes());
        if self.is_ignored() {
            return self.keep_record(before);
        }
        let fail = |error| self.fail("could not read", error);
        let found = self.tree.stat_at(self.descent.current(), &name).map_err(fail)?;
        let Some(found) = found.filter(|found| found.metadata.kind != FileKind::Socket) else {
            return before.map_or(Ok(()), |before| self.remove(before));
        };
        self.newest = self.newest.max(found.metadata.changed);
        let state = State { changed: self.tree.counted_change(&found.metadata), ..State::of(&found) };
        self.write_record(name.as_bytes(), &state)?;
        if state.kind == FileKind::Directory {
            return self.enter(name, state, before);
        }
        if let Some(before) = &before {
            self.skip_below(before)?;
        }
        let is_changed = match before {
            None => true,
            Some(before) => self.is_changed(&name, &found, &state, &before.state)?,
        };
        if is_changed { self.write_file(&name, &found, &state) } else { Ok(()) }
    }

    /// Whether a file is not what it was before as far as a layer can tell.
    fn is_changed(&mut self, name: &OsStr, found: &Found, state: &State, before: &State) -> Result<bool, RootfsError> {
        if state == before || !state.looks_like(before) {
            return Ok(state != before);
        }
        match self.has_same_content(name, found, before)? {
            Some(is_same) => Ok(!is_same),
            None if state.differs_in_names(before) => self.has_capability(name),
            None => Ok(true),
        }
    }

    /// Whether what is in a file that looks as before is what was in it then; none where that is not known.
    fn has_same_content(&mut self, name: &OsStr, found: &Found, before: &State) -> Result<Option<bool>, RootfsError> {
        let kind = found.metadata.kind;
        if !matches!(kind, FileKind::File | FileKind::Symlink) {
            return Ok(Some(true));
        }
        let Some(contents) = self.tree.contents() else { return Ok(None) };
        let Some(then) = contents.find(before.inode, self.noted).map_err(record_error)? else { return Ok(None) };
        let now = self.print(contents, name, found).map_err(|error| self.fail("could not read", error))?;
        if now == then {
            contents.note(found.metadata.inode, Some(now)).map_err(record_error)?;
        }
        Ok(Some(now == then))
    }

    fn print(&mut self, contents: &Contents, name: &OsStr, found: &Found) -> io::Result<Print> {
        let (directory, inode) = (self.descent.current(), found.metadata.inode);
        if found.metadata.kind == FileKind::Symlink {
            return Ok(contents.printer().of_link(at::read_link(directory, name)?.as_os_str()));
        }
        if let Some(print) = self.prints.get(&inode) {
            return Ok(*print);
        }
        let file = self.tree.open_known_file_at(directory, name)?;
        let xattrs = self.tree.file_xattrs(&file, found.key)?;
        let mut printer = contents.printer();
        let file = self.tree.stop().watch(file);
        io::copy(&mut BufReader::with_capacity(64 * 1024, file), &mut printer)?;
        let print = printer.finish(tar::capability(&xattrs));
        if found.metadata.links > 1 {
            self.prints.insert(inode, print);
        }
        Ok(print)
    }

    /// Asked only where a file got another name, so that a capability which came at the same time is not lost.
    fn has_capability(&self, name: &OsStr) -> Result<bool, RootfsError> {
        let fail = |error| self.fail("could not read the attributes of", error);
        let xattrs = self.tree.xattrs_at(self.descent.current(), name).map_err(fail)?;
        Ok(xattrs.iter().any(|(name, _)| name == tar::CAPABILITY))
    }

    fn enter(&mut self, name: OsString, state: State, before: Option<Record>) -> Result<(), RootfsError> {
        let before = before.filter(|before| before.state.kind == FileKind::Directory);
        let is_changed = before.as_ref().is_none_or(|before| state.differs_as_directory(&before.state));
        if let Some(before) = before.as_ref().filter(|before| !is_changed && self.is_untouched(&state, &before.state)) {
            return self.keep_below(before.depth);
        }
        let fail = |error| self.fail("could not read the directory", error);
        let directory = self.tree.open_dir_at(self.descent.current(), &name).map_err(fail)?;
        self.descent.enter(directory, name).map_err(|error| self.fail("could not read the directory", error))?;
        self.push_level(state, before.is_some(), false)?;
        if is_changed { self.write_directories() } else { Ok(()) }
    }

    /// Whether a directory is the one that the record has, and nothing was written below it.
    fn is_untouched(&self, state: &State, before: &State) -> bool {
        let Some(written) = &self.options.written else { return false };
        state.inode == before.inode && !written.has(state.inode)
    }

    /// The current directory is done.
    fn leave(&mut self) -> Result<(), RootfsError> {
        self.remove_before(None)?;
        self.levels.pop();
        self.descent.leave().map_err(|error| self.fail("could not read the directory", error))?;
        Ok(())
    }

    /// Writes whiteouts for recorded names of the current directory that are smaller than `name` (all that are left without
    /// one): they did not come up.
    fn remove_before(&mut self, name: Option<&[u8]>) -> Result<(), RootfsError> {
        loop {
            let depth = self.depth();
            let was_there = self.levels.last().is_some_and(|level| level.was_there);
            let Some(before) = self.before.as_mut().filter(|_| was_there) else { return Ok(()) };
            let is_missing = before
                .peek()
                .is_some_and(|record| record.depth == depth && name.is_none_or(|name| record.name.as_slice() < name));
            if !is_missing {
                return Ok(());
            }
            let Some(record) = before.take().map_err(record_error)? else { return Ok(()) };
            let length = self.path.len();
            push_name(&mut self.path, &record.name);
            if self.is_ignored() {
                self.keep_record(Some(record))?
            } else {
                self.remove(record)?
            }
            self.path.truncate(length);
        }
    }

    /// The record of `name` in the current directory, if there is one.
    fn take_equal(&mut self, name: &[u8]) -> Result<Option<Record>, RootfsError> {
        let depth = self.depth();
        let was_there = self.levels.last().is_some_and(|level| level.was_there);
        match self.before.as_mut().filter(|_| was_there) {
            Some(before) if before.peek().is_some_and(|record| record.depth == depth && record.name == name) => {
                before.take().map_err(record_error)
            }
            _ => Ok(None),
        }
    }

    /// Skips the records of what was below a directory.
    fn skip_below(&mut self, above: &Record) -> Result<(), RootfsError> {
        let Some(before) = &mut self.before else { return Ok(()) };
        while before.peek().is_some_and(|record| record.depth > above.depth) {
            before.take().map_err(record_error)?;
        }
        Ok(())
    }

    /// Takes records over as they are: of a path that is ignored now.
    fn keep_record(&mut self, kept: Option<Record>) -> Result<(), RootfsError> {
        let Some(kept) = kept else { return Ok(()) };
        self.write_record_at(&kept)?;
        self.keep_below(kept.depth)
    }

    /// Takes records over of what is below a directory at this depth.
    fn keep_below(&mut self, depth: u32) -> Result<(), RootfsError> {
        while let Some(before) = &mut self.before
            && before.peek().is_some_and(|record| record.depth > depth)
            && let Some(below) = before.take().map_err(record_error)?
        {
            self.write_record_at(&below)?;
        }
        Ok(())
    }

    fn write_record(&mut self, name: &[u8], state: &State) -> Result<(), RootfsError> {
        let depth = self.depth();
        self.record.as_mut().map_or(Ok(()), |record| record.write(depth, name, state)).map_err(record_error)
    }

    fn write_record_at(&mut self, kept: &Record) -> Result<(), RootfsError> {
        let write = |record: &mut record::Writer| record.write(kept.depth, &kept.name, &kept.state);
        self.record.as_mut().map_or(Ok(()), write).map_err(record_error)
    }

    fn is_ignored(&self) -> bool {
        self.options.ignores(&self.path)
    }

    /// A whiteout for the current path, which is gone with everything below.
    fn remove(&mut self, gone: Record) -> Result<(), RootfsError> {
        self.skip_below(&gone)?;
        self.write_directories()?;
        let Some(layer) = &mut self.layer else { return Ok(()) };
        let start = self.path.len() - gone.name.len();
        let path = [&self.path[..start], WHITEOUT, &gone.name].concat();
        layer.header(&whiteout(path))
    }

    /// Writes the directories on the way down that the layer does not have yet.
    fn write_directories(&mut self) -> Result<(), RootfsError> {
        let Some(first) = self.levels.iter().position(|level| !level.is_written) else { return Ok(()) };
        for index in first..self.levels.len() {
            let level = &mut self.levels[index];
            level.is_written = true;
            let (length, state) = (level.path_length, level.state);
            check_name(&self.path[..length])?;
            let xattrs = self.directory_xattrs(index)?;
            let Some(layer) = &mut self.layer else { return Ok(()) };
            let mut entry = entry_of(&state, &self.path[..length], self.options, layer.is_copy);
            entry.path.push(b'/');
            entry.xattrs = xattrs;
            layer.header(&entry)?;
        }
        Ok(())
    }

    /// A layer has none of directories; a copy is written on the way down, so the directory is the current one.
    fn directory_xattrs(&self, index: usize) -> Result<Xattrs, RootfsError> {
        if !self.layer.as_ref().is_some_and(|layer| layer.is_copy) || index + 1 != self.levels.len() {
            return Ok(Vec::new());
        }
        let fail = |error| self.fail("could not read the attributes of", error);
        self.tree.xattrs_at(self.descent.current(), OsStr::new(".")).map_err(fail)
    }

    /// Writes a file, link or special file and its content.
    fn write_file(&mut self, name: &OsStr, found: &Found, state: &State) -> Result<(), RootfsError> {
        if self.layer.is_none() {
            return self.note(name, found);
        }
        check_name(&self.path)?;
        self.write_directories()?;
        let Some(layer) = &mut self.layer else { return Ok(()) };
        layer.file(self.tree, self.descent.current(), name, found, state, &self.path, self.options)
    }

    /// Remembers what is in a file that goes into the first record and no layer: the target of a symbolic link, and of other
    /// files what unpacking did not remember.
    fn note(&mut self, name: &OsStr, found: &Found) -> Result<(), RootfsError> {
        let Some(contents) = self.tree.contents() else { return Ok(()) };
        let kind = found.metadata.kind;
        if kind != FileKind::Symlink && !(kind == FileKind::File && self.notes_all) {
            return Ok(());
        }
        let print = self.print(contents, name, found).map_err(|error| self.fail("could not read", error))?;
        contents.note(found.metadata.inode, Some(print)).map_err(record_error)
    }

    fn fail(&self, action: &'static str, error: io::Error) -> RootfsError {
        inside_error(action, Path::new(OsStr::from_bytes(&self.path)), error)
    }
}

fn record_error(error: io::Error) -> RootfsError {
    io_error("could not record the state of", Path::new("the rootfs"), error)
}

pub fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name);
}

/// A layer cannot have a file whose name begins with `.wh.`: whoever unpacks it would delete another instead.
pub fn check_name(path: &[u8]) -> Result<(), RootfsError> {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if name.starts_with(WHITEOUT) {
        return Err(RootfsError::WhiteoutName { path: Path::new(OsStr::from_bytes(path)).to_owned() });
    }
    Ok(())
}

/// Time and owner are fixed, as containerd 2 has them.
pub fn whiteout(path: Vec<u8>) -> Entry {
    Entry {
        kind: Kind::File,
        path,
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        size_bytes: 0,
        modified: (0, 0),
        device: (0, 0),
        xattrs: Vec::new(),
        pieces: None,
    }
}

pub fn entry_of(state: &State, path: &[u8], options: &CommitOptions, is_copy: bool) -> Entry {
    let clamped = options.clamp_modified.map_or(state.modified.0, |latest| state.modified.0.min(latest));
    let (seconds, nanoseconds) = match options.set_modified {
        Some(seconds) => (seconds, 0),
        None => (clamped, if is_copy { state.modified.1 } else { 0 }),
    };
    Entry {
        kind: match state.kind {
            // Sockets never come here.
            FileKind::File | FileKind::Socket => Kind::File,
            FileKind::Directory => Kind::Directory,
            FileKind::Symlink => Kind::Symlink,
            FileKind::Fifo => Kind::Fifo,
            FileKind::CharDevice => Kind::CharDevice,
            FileKind::BlockDevice => Kind::BlockDevice,
        },
        mode: if state.kind == FileKind::Symlink { 0o777 } else { state.mode },
        uid: state.uid,
        gid: state.gid,
        modified: (seconds, nanoseconds),
        device: state.device,
        ..whiteout(path.to_vec())
    }
}
