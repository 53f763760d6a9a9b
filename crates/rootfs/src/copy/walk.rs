//! The copying itself: one source after the other, directories walked with a stack of their own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread::Scope;

use dockerfile::glob;
use dockerfile::ignore::Patterns;

use crate::tree::Found;
use crate::{FileKind, Metadata, Tree, archive};

use super::anchor::Anchor;
use super::destination::{Destination, Looks, Target};
use super::files::{Crew, NewFile, give_looks};
use super::source::{Pattern, Source};
use super::{Archives, Copied, CopyError, Filter, clean, refuse};

/// One COPY or ADD in progress.
pub(super) struct Copier<'s, 'a> {
    source: Source<'a>,
    target: Target<'a>,
    /// The same two trees, for the walk.
    from: Anchor<'a>,
    to: Anchor<'a>,
    crew: Crew<'s, 'a>,
    /// Directories that are done but for their metadata, while files of theirs are still being copied.
    left: Vec<Left>,
    /// With `--parents`: what below the pivot is wanted.
    include: Option<Include>,
    /// Device and inode of a source file with several names, and the first name it got. One source long, as in BuildKit.
    links: HashMap<(u64, u64), PathBuf>,
    /// The file that the source before was written to.
    written: Option<PathBuf>,
    /// Directories that are being walked, the outermost first.
    open: Vec<Open>,
}

/// An entry of the source and where it goes.
struct Entry {
    from: PathBuf,
    /// Path below the source that is being copied: what `--exclude` and `--parents` patterns are matched with.
    relative: PathBuf,
    to: PathBuf,
}

/// A directory that is being walked.
struct Open {
    entry: Entry,
    metadata: Metadata,
    names: std::vec::IntoIter<OsString>,
    state: State,
    /// Made by this walk: nothing can be in the way in it.
    fresh: bool,
}

/// A directory that is done but for its metadata, which its children would change.
struct Left {
    entry: Entry,
    metadata: Metadata,
    state: State,
}

/// More of them are not kept.
const LEFT: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The source itself. The destination keeps mode and owner, but takes the time. BuildKit `overwriteTargetMetadata`.
    Top,
    /// Made or found; takes the source's metadata when its children are done.
    Whole,
    /// Left out itself, made as soon as something in it is taken. `whole`: it is the filter that leaves it out, so that, once
    /// made, it is a directory like any other (the builder would have received it).
    Waiting { whole: bool },
    /// Was waiting for patterns, has been made.
    Made,
    /// Was waiting for patterns, was there.
    Found,
}

/// `--parents`: the path below the pivot as a pattern.
struct Include {
    patterns: Patterns,
    components: Vec<OsString>,
    /// How many entries it has let in.
    taken: u64,
}

/// What is to become of an entry.
struct Choice {
    taken: bool,
    /// For a directory that is not taken: something in it may be.
    below: bool,
    /// Only the filter speaks against it.
    whole: bool,
}

impl<'s, 'a> Copier<'s, 'a> {
    pub(super) fn new(
        from: &'a Tree,
        filter: &'a dyn Filter,
        to: &'a Tree,
        looks: &'a Looks<'a>,
        scope: &'s Scope<'s, 'a>,
    ) -> Copier<'s, 'a> {
        Copier {
            source: Source { tree: from, filter, stop: to.stop() },
            target: Target::new(to, looks),
            from: Anchor::new(from),
            to: Anchor::new(to),
            crew: Crew::new(scope, from, to, looks, looks.options.threads),
            left: Vec::new(),
            include: None,
            links: HashMap::new(),
            written: None,
            open: Vec::new(),
        }
    }

    pub(super) fn finish(mut self) -> Result<Copied, CopyError> {
        self.target.copied.add(self.crew.copied());
        self.target.finish()
    }

    /// Copies one source as written.
    pub(super) fn copy(&mut self, text: &str, destination: &Destination) -> Result<(), CopyError> {
        if self.target.options.literal {
            return self.copy_matches(&Pattern::literal(text.as_bytes()), text, destination);
        }
        if !self.target.options.parents {
            return self.copy_matches(&Pattern::parse(text.as_bytes()), text, destination);
        }
        // What is left of the first `/./` is cut off. BuildKit `dispatchCopy`.
        let (pivot, kept) = text.split_once("/./").unwrap_or(("", text));
        self.include = Include::parse(kept)?;
        self.copy_matches(&Pattern::parse(pivot.as_bytes()), text, destination)?;
        let literal = !glob::has_wildcard(text.as_bytes());
        match self.include.take() {
            Some(include) if literal && include.taken == 0 => {
                Err(self.source.not_found(&clean(pivot.as_bytes()).join(clean(kept.as_bytes())), text))
            }
            _ => Ok(()),
        }
    }

    fn copy_matches(&mut self, pattern: &Pattern, text: &str, destination: &Destination) -> Result<(), CopyError> {
        if pattern.wild.is_empty() {
            return self.copy_one(&pattern.literal, text, destination);
        }
        if pattern.wild.iter().any(|component| glob::Glob::new(component.as_bytes()).is_err()) {
            return refuse(format!(
                "source `{text}` is a broken pattern; `\\` before `[`, `*` and `?` makes them ordinary"
            ));
        }
        let base = self.source.resolve(&pattern.literal, true)?;
        match self.source.visible(&base)? {
            // BuildKit fails on a missing literal directory before a wildcard, too (moby/buildkit#2933).
            None => return Err(self.source.not_found(&pattern.literal, &pattern.literal.to_string_lossy())),
            Some(metadata) if metadata.kind != FileKind::Directory => return Ok(()),
            Some(_) => {}
        }
        let source = Source { ..self.source };
        source.each_match(&base, &pattern.wild, &mut |path| self.copy_one(path, &path.to_string_lossy(), destination))
    }

    /// Copies `path`, which has no wildcards; it is followed when it is a link, but gives its own name.
    fn copy_one(&mut self, path: &Path, text: &str, destination: &Destination) -> Result<(), CopyError> {
        let from = self.source.resolve(path, true)?;
        let Some(metadata) = self.source.visible(&from)? else { return Err(self.source.not_found(path, text)) };
        if metadata.kind == FileKind::File && self.unpack(&from, destination)? {
            return Ok(());
        }
        self.links.clear();
        let directory = metadata.kind == FileKind::Directory;
        if self.include.is_some() && !directory {
            // Nothing is below a file that a pivot's wildcard met.
            return Ok(());
        }
        let to = self.target.place(destination, directory, path.file_name())?;
        let entry = Entry { from, relative: PathBuf::new(), to };
        if directory {
            return self.copy_tree(entry, metadata);
        }
        self.note_written(&entry.to);
        let Some(found) = self.from.find(&entry.from)? else { return Err(self.source.not_found(path, text)) };
        self.copy_file_like(entry, found, false)
    }

    /// A second file for a destination that is no directory replaces the first one, as BuildKit has it (moby/buildkit#1853;
    /// `COPY *.jar app.jar` lives on it). The caller hears of it.
    fn note_written(&mut self, to: &Path) {
        let again = self.written.replace(to.to_owned()).is_some_and(|before| before == to);
        self.target.copied.overwritten += u64::from(again);
    }

    /// Unpacks `from` into the destination if archives are wanted and it is one.
    fn unpack(&mut self, from: &Path, destination: &Destination) -> Result<bool, CopyError> {
        if self.target.options.archives == Archives::Copy {
            return Ok(false);
        }
        let file = self.source.tree.open_file(from)?;
        let Some(mut archive) = archive::open_archive(file, self.target.tree.stop())? else { return Ok(false) };
        self.target.unpack(archive.as_mut(), destination)?;
        Ok(true)
    }

    /// Copies what is in the directory `entry` into its target, which exists.
    fn copy_tree(&mut self, entry: Entry, metadata: Metadata) -> Result<(), CopyError> {
        self.make_directory(&entry, false)?;
        self.enter(entry, metadata, State::Top, false)?;
        while let Some(directory) = self.open.last_mut() {
            self.target.tree.go_on()?;
            let fresh = directory.fresh;
            match directory.names.next() {
                Some(name) => {
                    let entry = directory.entry.child(&name);
                    self.visit(entry, fresh)?;
                }
                None => self.leave()?,
            }
        }
        self.leave_all()
    }

    fn visit(&mut self, entry: Entry, fresh: bool) -> Result<(), CopyError> {
        let choice = self.choose(&entry);
        if !choice.taken && !choice.below {
            return Ok(());
        }
        let Some(found) = self.from.find(&entry.from)? else { return Ok(()) };
        let metadata = &found.metadata;
        let directory = metadata.kind == FileKind::Directory;
        if choice.taken {
            self.make_waiting()?;
            self.include.iter_mut().for_each(|include| include.taken += 1);
        }
        match (choice.taken, directory) {
            (true, true) => {
                let fresh = self.make_directory(&entry, fresh)?;
                self.enter(entry, found.metadata, State::Whole, fresh)
            }
            (true, false) => self.copy_file_like(entry, found, fresh),
            (false, true) => self.enter(entry, found.metadata, State::Waiting { whole: choice.whole }, false),
            (false, false) => Ok(()),
        }
    }

    fn choose(&self, entry: &Entry) -> Choice {
        let relative = entry.relative.as_os_str().as_bytes();
        let exclude = &self.target.options.exclude;
        let hidden = self.source.excludes(&entry.from);
        let excluded = exclude.excludes(relative);
        let included = self.include.as_ref().is_none_or(|include| include.patterns.excludes(relative));
        Choice {
            taken: !hidden && !excluded && included,
            below: (!hidden || self.source.filter.may_include_below(&entry.from))
                && (!excluded || exclude.may_include_below(relative))
                && (included || self.include.as_ref().is_some_and(|include| include.may_match_below(&entry.relative))),
            whole: !excluded && included,
        }
    }

    fn enter(&mut self, entry: Entry, metadata: Metadata, state: State, fresh: bool) -> Result<(), CopyError> {
        let names = self.source.tree.read_dir(&entry.from)?.into_iter();
        self.open.push(Open { entry, metadata, names, state, fresh });
        Ok(())
    }

    /// The innermost directory is done: its metadata comes last, since its children change its time.
    fn leave(&mut self) -> Result<(), CopyError> {
        let Some(Open { entry, metadata, state, .. }) = self.open.pop() else { return Ok(()) };
        self.left.push(Left { entry, metadata, state });
        // One that waits for its files is no reason for others to wait, but for memory.
        if self.crew.is_ahead() && self.left.len() < LEFT { Ok(()) } else { self.leave_all() }
    }

    /// Gives all directories that are done their metadata, in the order in which they were left.
    fn leave_all(&mut self) -> Result<(), CopyError> {
        self.crew.wait()?;
        std::mem::take(&mut self.left).into_iter().try_for_each(|left| self.end(left))
    }

    fn end(&mut self, Left { entry, metadata, state }: Left) -> Result<(), CopyError> {
        match state {
            // The root of a context is made by whoever unpacks or receives it: its time means nothing.
            State::Top if entry.from.as_os_str().is_empty() && !self.target.options.keep_owner => Ok(()),
            State::Top => Ok(self.to.set_modified(&entry.to, metadata.modified)?),
            State::Whole => {
                self.take_metadata(&entry, &metadata)?;
                Ok(self.to.set_modified(&entry.to, metadata.modified)?)
            }
            State::Waiting { .. } => Ok(()),
            // Such a directory does not take the time of its source (BuildKit `createParentDirs`).
            State::Made => {
                self.take_metadata(&entry, &metadata)?;
                self.target.set_made_modified(&entry.to)
            }
            // BuildKit `copyDirectoryOnly`: the mode of the source, whatever --chmod says.
            State::Found => Ok(self.to.set_mode(&entry.to, metadata.mode)?),
        }
    }

    /// Makes the directories that waited for something in them to be taken: the innermost ones without a gap.
    fn make_waiting(&mut self) -> Result<(), CopyError> {
        let waiting =
            self.open.iter().rposition(|it| !matches!(it.state, State::Waiting { .. })).map_or(0, |at| at + 1);
        for at in waiting..self.open.len() {
            let made = self.make_directory(&self.open[at].entry, false)?;
            let directory = &mut self.open[at];
            directory.fresh = made;
            directory.state = match directory.state {
                State::Waiting { whole: true } => State::Whole,
                _ if made => State::Made,
                _ => State::Found,
            };
        }
        Ok(())
    }

    /// Whether the directory had to be made.
    fn make_directory(&self, entry: &Entry, fresh: bool) -> Result<bool, CopyError> {
        if entry.to.as_os_str().is_empty() {
            return Ok(false);
        }
        let existing = if fresh { None } else { self.to.stat(&entry.to)? };
        match existing.map(|metadata| metadata.kind) {
            None => {
                self.to.make_dir(&entry.to, 0o755)?;
                Ok(true)
            }
            Some(FileKind::Directory) => Ok(false),
            Some(kind) => {
                let what = if kind == FileKind::Symlink { "a symbolic link" } else { "not a directory" };
                let (from, to) = (entry.from.display(), entry.to.display());
                refuse(format!("cannot copy directory `{from}` to non-directory `/{to}`: it is {what}"))
            }
        }
    }

    /// Copies anything but a directory.
    fn copy_file_like(&mut self, entry: Entry, found: Found, fresh: bool) -> Result<(), CopyError> {
        if !fresh {
            self.target.clear(&entry.to)?;
        }
        let (to, metadata) = (&entry.to, &found.metadata);
        match metadata.kind {
            FileKind::File if self.link(&entry, metadata)? => return Ok(()),
            FileKind::File => {
                // Of one with several names the others follow.
                let is_needed = !fresh || metadata.links > 1;
                let file = NewFile { from: entry.from, to: entry.to, found };
                return if is_needed { self.crew.copy(&file) } else { self.crew.hand_on(file) };
            }
            FileKind::Symlink => self.to.make_symlink(&self.from.read_link(&entry.from)?, to)?,
            // A socket is nothing without its server: BuildKit's mknod makes it an empty file.
            FileKind::Socket => drop(self.to.make_file(to)?),
            kind => self.to.make_node(to, kind, metadata.device)?,
        }
        self.take_metadata(&entry, metadata)?;
        Ok(self.to.set_modified(to, metadata.modified)?)
    }

    /// Makes the entry another name of a file that has been copied already; that one has its metadata.
    fn link(&mut self, entry: &Entry, metadata: &Metadata) -> Result<bool, CopyError> {
        if metadata.links < 2 || !self.target.options.keep_links {
            return Ok(false);
        }
        let key = (metadata.device_id, metadata.inode);
        let Some(existing) = self.links.get(&key) else {
            self.links.insert(key, entry.to.clone());
            return Ok(false);
        };
        self.target.tree.make_link(existing, &entry.to)?;
        self.target.copied.entries += 1;
        Ok(true)
    }

    fn take_metadata(&mut self, entry: &Entry, metadata: &Metadata) -> Result<(), CopyError> {
        self.target.copied.entries += 1;
        give_looks(&self.to, &entry.to, metadata, self.target.looks, || self.from.xattrs(&entry.from))
    }
}

impl Entry {
    fn child(&self, name: &OsString) -> Entry {
        Entry { from: self.from.join(name), relative: self.relative.join(name), to: self.to.join(name) }
    }
}

impl Include {
    /// None for the pivot directory as a whole.
    fn parse(text: &str) -> Result<Option<Include>, CopyError> {
        let cleaned = clean(text.as_bytes());
        if cleaned.as_os_str().is_empty() {
            return Ok(None);
        }
        let pattern = cleaned.to_string_lossy().into_owned();
        match Patterns::new(std::slice::from_ref(&pattern)) {
            Ok(patterns) => {
                Ok(Some(Include { patterns, components: cleaned.iter().map(Into::into).collect(), taken: 0 }))
            }
            Err(_) => refuse(format!("invalid source pattern `{text}`")),
        }
    }

    /// Whether a match below the directory `relative` is possible; may say yes too often, not too rarely.
    fn may_match_below(&self, relative: &Path) -> bool {
        let mut wanted = self.components.iter();
        for name in relative {
            match wanted.next() {
                None => return false,
                Some(pattern) if pattern.as_bytes().windows(2).any(|two| two == b"**") => return true,
                Some(pattern) if pattern.as_bytes().iter().any(|byte| b"*?[\\".contains(byte)) => {}
                Some(pattern) if pattern != name => return false,
                Some(_) => {}
            }
        }
        wanted.next().is_some()
    }
}
