//! Regular files, copied by several threads: the walk hands them on and goes ahead.
//!
//! Only files of directories that the walk has made itself, in which nothing can be in the way. How far the others are is of no
//! consequence until a directory gets its times: [`Crew::wait`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use crate::tree::{Found, Xattrs};
use crate::{FileKind, Metadata, RootfsError, Tree};

use super::anchor::Anchor;
use super::content::ContentCopier;
use super::destination::Looks;
use super::{Copied, CopyError, io_error};

const FILE_CAPABILITY: &str = "security.capability";

/// Files that are handed on together, and bytes in them.
const BATCH_FILES: usize = 32;
const BATCH_BYTES: u64 = 1 << 20;

/// A file that is there only in the source.
pub(super) struct NewFile {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) found: Found,
}

/// Copies files one after the other.
pub(super) struct FileCopier<'a> {
    from: Anchor<'a>,
    to: Anchor<'a>,
    looks: &'a Looks<'a>,
    content: ContentCopier,
    copied: Copied,
}

impl<'a> FileCopier<'a> {
    fn new(from: &'a Tree, to: &'a Tree, looks: &'a Looks<'a>) -> FileCopier<'a> {
        let content = ContentCopier::new(to.stop());
        FileCopier { from: Anchor::new(from), to: Anchor::new(to), looks, content, copied: Copied::default() }
    }

    /// Content, owner, mode, attributes and times, in this order: owners clear set-id bits and capabilities.
    fn copy(&mut self, file: &NewFile) -> Result<(), CopyError> {
        let NewFile { from, to, found } = file;
        let metadata = &found.metadata;
        let source = self.from.open_file(from)?;
        let written = self.to.make_file(to)?;
        let copied = self.content.copy(&source, &written).map_err(|error| io_error("copy", from, error))?;
        drop(written);
        let attributes = || self.from.file_xattrs(from, &source, found.key);
        give_looks(&self.to, to, metadata, self.looks, attributes)?;
        self.copied.size_bytes += copied;
        self.copied.entries += 1;
        Ok(self.to.set_modified(to, metadata.modified)?)
    }
}

/// Gives `path` all that `metadata` says but the times. Owner first, since that clears set-id bits and capabilities.
pub(super) fn give_looks(
    to: &Anchor<'_>,
    path: &Path,
    metadata: &Metadata,
    looks: &Looks<'_>,
    attributes: impl FnOnce() -> Result<Xattrs, RootfsError>,
) -> Result<(), CopyError> {
    let (uid, gid) = looks.owner_for(metadata);
    to.set_owner(path, uid, gid)?;
    if metadata.kind != FileKind::Symlink {
        to.set_mode(path, looks.mode_for(metadata.mode, metadata.kind))?;
    }
    for (name, value) in attributes()? {
        let capability = name == FILE_CAPABILITY;
        if capability && !looks.options.keep_owner {
            continue;
        }
        let result = to.set_xattr(path, &name, &value);
        // `user.*` is not stored everywhere and reaches no layer; BuildKit logs and goes on.
        if capability {
            result?;
        }
    }
    Ok(())
}

/// Whoever copies files: the thread of the walk, and others once there is enough to do.
pub(super) struct Crew<'s, 'a> {
    scope: &'s Scope<'s, 'a>,
    from: &'a Tree,
    to: &'a Tree,
    looks: &'a Looks<'a>,
    own: FileCopier<'a>,
    shared: Arc<Shared>,
    /// Threads beside this one, and how many there may be.
    started: usize,
    most: usize,
    batch: Vec<NewFile>,
    batch_bytes: u64,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Vec<NewFile>>,
    /// Batches that others work on.
    busy: usize,
    /// Nobody wants the rest.
    is_over: bool,
    /// The first one.
    error: Option<CopyError>,
    copied: Copied,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self, mut copier: FileCopier<'_>) {
        let mut queue = self.queue();
        loop {
            if queue.is_over {
                return;
            }
            let Some(batch) = queue.batches.pop_front() else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.busy += 1;
            drop(queue);
            let done = {
                let _ends = EndOnPanic(self);
                batch.iter().try_for_each(|file| copier.copy(file))
            };
            queue = self.queue();
            queue.busy -= 1;
            queue.copied.add(std::mem::take(&mut copier.copied));
            if let Err(error) = done {
                queue.error.get_or_insert(error);
                queue.batches.clear();
            }
            self.changed.notify_all();
        }
    }
}

/// Lets the walk end when a thread panics: that is our bug, and it goes on where the thread is joined.
struct EndOnPanic<'a>(&'a Shared);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue().busy -= 1;
            self.0.changed.notify_all();
        }
    }
}

impl<'s, 'a> Crew<'s, 'a> {
    /// At most `threads` work, this one counted.
    pub(super) fn new(
        scope: &'s Scope<'s, 'a>,
        from: &'a Tree,
        to: &'a Tree,
        looks: &'a Looks<'a>,
        threads: usize,
    ) -> Crew<'s, 'a> {
        let own = FileCopier::new(from, to, looks);
        let most = threads.saturating_sub(1);
        let shared = Arc::default();
        Crew { scope, from, to, looks, own, shared, started: 0, most, batch: Vec::new(), batch_bytes: 0 }
    }

    /// Whether something that was handed on may not be done yet.
    pub(super) fn is_ahead(&self) -> bool {
        self.started > 0 || !self.batch.is_empty()
    }

    /// Copies a file now.
    pub(super) fn copy(&mut self, file: &NewFile) -> Result<(), CopyError> {
        self.own.copy(file)
    }

    /// Has a file copied at some time before [`Crew::wait`] returns.
    ///
    /// # Errors
    /// Also of files that were handed on before.
    pub(super) fn hand_on(&mut self, file: NewFile) -> Result<(), CopyError> {
        if self.most == 0 {
            return self.own.copy(&file);
        }
        self.batch_bytes += file.found.metadata.size_bytes;
        self.batch.push(file);
        if self.batch.len() < BATCH_FILES && self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.give_batch()
    }

    fn give_batch(&mut self) -> Result<(), CopyError> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let mut queue = self.shared.queue();
        if let Some(error) = queue.error.take() {
            return Err(error);
        }
        let is_full = queue.batches.len() > 2 * self.started;
        if !is_full {
            queue.batches.push_back(batch);
            drop(queue);
            self.shared.changed.notify_one();
            return Ok(());
        }
        drop(queue);
        // Only now is there more to do than one can.
        if self.started < self.most {
            let (shared, copier) = (self.shared.clone(), FileCopier::new(self.from, self.to, self.looks));
            match spawn::scoped_now(self.scope, "copy", move || shared.work(copier)) {
                Ok(_) => self.started += 1,
                Err(_) => self.most = self.started,
            }
        }
        batch.iter().try_for_each(|file| self.own.copy(file))
    }

    /// Returns when all that was handed on is done.
    pub(super) fn wait(&mut self) -> Result<(), CopyError> {
        let rest = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        rest.iter().try_for_each(|file| self.own.copy(file))?;
        loop {
            let mut queue = self.shared.queue();
            if let Some(error) = queue.error.take() {
                return Err(error);
            }
            if let Some(batch) = queue.batches.pop_front() {
                drop(queue);
                batch.iter().try_for_each(|file| self.own.copy(file))?;
            } else if queue.busy == 0 {
                return Ok(());
            } else {
                drop(self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// What has been copied so far.
    pub(super) fn copied(&mut self) -> Copied {
        let mut copied = std::mem::take(&mut self.own.copied);
        copied.add(std::mem::take(&mut self.shared.queue().copied));
        copied
    }
}

impl Drop for Crew<'_, '_> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.is_over = true;
        queue.batches.clear();
        drop(queue);
        self.shared.changed.notify_all();
    }
}
