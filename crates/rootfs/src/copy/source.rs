//! The source tree as the filter lets it be seen: names resolved, wildcards expanded.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use dockerfile::glob;

use crate::{FileKind, Metadata, RootfsError, Stop, Tree};

use super::{CopyError, Filter, io_error};

/// As many links on one path as BuildKit follows (`continuity/fs.RootPath`).
const LINKS_MAX: usize = 255;

/// A tree and what of it may be seen. What is hidden does not exist, as if it had never been sent to the builder.
pub(super) struct Source<'a> {
    pub(super) tree: &'a Tree,
    pub(super) filter: &'a dyn Filter,
    /// Ends the looking.
    pub(super) stop: &'a Stop,
}

/// A source text, cut where the first wildcard is.
pub(super) struct Pattern {
    pub(super) literal: PathBuf,
    /// One pattern per component; empty when there is no wildcard.
    pub(super) wild: Vec<OsString>,
}

impl Pattern {
    /// A name that has no wildcards, whatever it looks like.
    pub(super) fn literal(text: &[u8]) -> Pattern {
        Pattern { literal: super::clean(text), wild: Vec::new() }
    }

    /// BuildKit `splitWildcards`: every component from the first with a wildcard on is a pattern.
    pub(super) fn parse(text: &[u8]) -> Pattern {
        let cleaned = super::clean(text);
        let mut pattern = Pattern { literal: PathBuf::new(), wild: Vec::new() };
        for component in &cleaned {
            if pattern.wild.is_empty() && !glob::has_wildcard(component.as_bytes()) {
                pattern.literal.push(component);
            } else {
                pattern.wild.push(component.to_owned());
            }
        }
        pattern
    }
}

impl Source<'_> {
    pub(super) fn excludes(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && self.filter.excludes(path)
    }

    fn go_on(&self) -> Result<(), RootfsError> {
        if self.stop.is_set() { Err(RootfsError::Cancelled) } else { Ok(()) }
    }

    /// `path` with the visible links in it resolved, the last one too when `follow_last`. What does not exist is kept.
    pub(super) fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf, CopyError> {
        let mut rest: VecDeque<OsString> = components(path).collect();
        let mut resolved = PathBuf::new();
        let mut links = 0;
        while let Some(component) = rest.pop_front() {
            if component == ".." {
                resolved.pop();
                continue;
            }
            resolved.push(component);
            if rest.is_empty() && !follow_last {
                break;
            }
            if let Some(target) = self.visible_link(&resolved)? {
                links += 1;
                if links > LINKS_MAX {
                    let loops = std::io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error());
                    return Err(io_error("follow link", path, loops));
                }
                resolved.pop();
                if target.is_absolute() {
                    resolved.clear();
                }
                components(&target).rev().for_each(|component| rest.push_front(component));
            }
        }
        Ok(resolved)
    }

    fn visible_link(&self, path: &Path) -> Result<Option<PathBuf>, CopyError> {
        match self.tree.stat(path)? {
            Some(metadata) if metadata.kind == FileKind::Symlink && !self.excludes(path) => {
                Ok(Some(self.tree.read_link(path)?))
            }
            _ => Ok(None),
        }
    }

    /// Metadata of a resolved path; none when it does not exist or is hidden. A hidden directory is seen when something in it is.
    pub(super) fn visible(&self, path: &Path) -> Result<Option<Metadata>, CopyError> {
        let Some(metadata) = self.tree.stat(path)? else { return Ok(None) };
        let hidden = self.excludes(path);
        if hidden && (metadata.kind != FileKind::Directory || !self.any_visible_below(path)?) {
            return Ok(None);
        }
        Ok(Some(metadata))
    }

    /// Whether the hidden `directory` holds anything that is let in again.
    fn any_visible_below(&self, directory: &Path) -> Result<bool, CopyError> {
        let mut directories = vec![directory.to_owned()];
        while let Some(directory) = directories.pop() {
            if !self.filter.may_include_below(&directory) {
                continue;
            }
            for name in self.tree.read_dir(&directory)? {
                self.go_on()?;
                let path = directory.join(name);
                let Some(metadata) = self.tree.stat(&path)? else { continue };
                if !self.excludes(&path) {
                    return Ok(true);
                }
                if metadata.kind == FileKind::Directory {
                    directories.push(path);
                }
            }
        }
        Ok(false)
    }

    /// Calls `found` for each visible path below `directory` that matches, in the order of names. Links to directories are
    /// matched but not looked behind.
    pub(super) fn each_match(
        &self,
        directory: &Path,
        wild: &[OsString],
        found: &mut dyn FnMut(&Path) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        let Some((pattern, deeper)) = wild.split_first() else { return Ok(()) };
        for name in self.tree.read_dir(directory)? {
            self.go_on()?;
            if !glob::matches(pattern.as_bytes(), name.as_bytes()).unwrap_or(false) {
                continue;
            }
            let path = directory.join(&name);
            let Some(metadata) = self.tree.stat(&path)? else { continue };
            if !deeper.is_empty() {
                if metadata.kind == FileKind::Directory {
                    self.each_match(&path, deeper, found)?;
                }
            } else if self.visible(&path)?.is_some() {
                found(&path)?;
            }
        }
        Ok(())
    }

    /// The error for `path` (as in the tree), which was written as `text`.
    pub(super) fn not_found(&self, path: &Path, text: &str) -> CopyError {
        let exists = |tree: &Tree| tree.resolve(path, true).and_then(|it| tree.stat(&it)).ok().flatten().is_some();
        let suggestion = self.nearest(path).ok().flatten();
        CopyError::NotFound { path: PathBuf::from(text), excluded: exists(self.tree), suggestion }
    }

    /// A visible path that looks like `path`: its first part that is not there replaced by the name beside it that is nearest,
    /// and the rest if that is there then.
    fn nearest(&self, path: &Path) -> Result<Option<PathBuf>, CopyError> {
        let is_there = |path: &Path| self.resolve(path, true).and_then(|it| self.visible(&it)).ok().flatten().is_some();
        let mut missing = path;
        while let Some(parent) = missing.parent().filter(|parent| parent.file_name().is_some() && !is_there(parent)) {
            missing = parent;
        }
        let Some(near) = self.nearest_beside(missing)? else { return Ok(None) };
        let whole =
            path.strip_prefix(missing).ok().filter(|rest| rest.file_name().is_some()).map(|rest| near.join(rest));
        Ok(Some(whole.filter(|whole| is_there(whole)).unwrap_or(near)))
    }

    /// The visible name beside `path` that looks most like it.
    fn nearest_beside(&self, path: &Path) -> Result<Option<PathBuf>, CopyError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let directory = self.resolve(parent, true)?;
        let mut nearest: Option<(usize, OsString)> = None;
        for candidate in self.tree.read_dir(&directory)? {
            let distance = distance(name.as_bytes(), candidate.as_bytes());
            let near = distance <= name.len() / 3 && nearest.as_ref().is_none_or(|(least, _)| distance < *least);
            let path = directory.join(&candidate);
            if near && distance > 0 && !self.excludes(&path) && self.tree.stat(&path)?.is_some() {
                nearest = Some((distance, candidate));
            }
        }
        Ok(nearest.map(|(_, name)| parent.join(name)))
    }
}

/// Names and `..`; a leading `/` and `.` are dropped.
fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Edits (one byte put in, taken out or replaced) between two names; letter case costs one in all.
fn distance(left: &[u8], right: &[u8]) -> usize {
    if left != right && left.eq_ignore_ascii_case(right) {
        return 1;
    }
    if left.len().abs_diff(right.len()) > left.len() / 3 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, &a) in left.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
