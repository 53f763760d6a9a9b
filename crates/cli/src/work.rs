//! The directory of one run, with its trees, layers and contexts, and the removal of it.
//!
//! A run's directory has a lock that is held as long as somebody works in it. Whoever begins removes what has nobody any more.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::Context as _;
use rootfs::OwnFiles;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::report::{Failure, Voice};
use crate::{settings, signals};

/// Name of the lock in a run's directory. It goes last: without one a directory is none of ours.
const LOCK: &str = "lock";

/// Where trees and layers lie, and a directory of this run alone that goes when this value does.
pub struct WorkDir {
    root: PathBuf,
    run: PathBuf,
    lock: Option<OwnedFd>,
    /// What no context shows, wherever the work directory is.
    own: Arc<OwnFiles>,
    /// Nobody needs to remove it.
    goes_with_container: bool,
}

impl WorkDir {
    /// Makes the directory of this run below `root`. `is_last`: the process may be all that its container does.
    pub fn make(root: &Path, is_last: bool) -> Result<WorkDir, Failure> {
        Self::try_make(root, is_last)
            .with_context(|| format!("could not use work directory `{}`", root.display()))
            .map_err(|error| Failure::Other {
                error,
                code: 6,
                hint: Some("choose another one with --work-dir".to_owned()),
            })
    }

    fn try_make(root: &Path, is_last: bool) -> anyhow::Result<WorkDir> {
        fs::create_dir_all(root.join("runs"))?;
        // It is there before anybody looks for what is the builder's own.
        fs::create_dir_all(root.join(CACHE_MOUNTS))?;
        let root = root.canonicalize()?;
        let runs = root.join("runs");
        // Held while a run comes into being, so that nobody takes it for a dead one.
        let _beginning = beginning(&root)?;
        let run = tempfile::Builder::new().prefix("run-").tempdir_in(&runs)?;
        let lock = File::create(run.path().join(LOCK))?.into();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let goes_with_container = is_last && is_only_process_of_container(&root);
        let own = Arc::new(own_files(&root, run.path())?);
        Ok(WorkDir { root, run: run.keep(), lock: Some(lock), own, goes_with_container })
    }

    pub fn path(&self) -> &Path {
        &self.run
    }

    pub fn own(&self) -> &Arc<OwnFiles> {
        &self.own
    }

    /// What this run shares with others.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes what killed runs left. Without root that takes the user namespace of the isolation back-end: the files belong
    /// to the users of an image.
    pub fn remove_dead_runs(&self, voice: Voice) {
        // What cannot be removed (another user's, say) stays; it harms nobody.
        for (run, lock) in self.dead_runs().unwrap_or_default() {
            remove(&run, lock, voice, "removing what an interrupted build left behind");
        }
    }

    /// Those whose lock can be had, with it.
    fn dead_runs(&self) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
        let _beginning = beginning(&self.root)?;
        let mut dead = Vec::new();
        for entry in fs::read_dir(self.root.join("runs"))? {
            let run = entry?.path();
            let Ok(lock) = File::open(run.join(LOCK)).map(OwnedFd::from) else { continue };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                dead.push((run, lock));
            }
        }
        Ok(dead)
    }

    /// Removes the run's files. Says so when that takes a while; ends early when a signal came.
    pub fn remove(mut self, voice: Voice) {
        if let Some(lock) = self.lock.take().filter(|_| !self.goes_with_container) {
            remove(&self.run, lock, voice, "cleaning up: removing the files of this build");
        }
    }
}

impl Drop for WorkDir {
    /// For who ends without [`WorkDir::remove`].
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            remove(&self.run, lock, Voice::default(), "cleaning up");
        }
    }
}

/// What a work directory has in it.
const ENTRIES: [&str; 4] = ["runs", "runs.lock", CACHE_MOUNTS, FAILED];
pub const CACHE_MOUNTS: &str = "cache-mounts";
pub const FAILED: &str = "failed";

/// The one place that says which files are the builder's own: what is in the work directory `root`, of every run; the
/// directory itself where nothing else is in it, and then the `.cache` of a user as well in which nothing else is.
///
/// Of a directory that the user keeps other things in, as with `--work-dir .`, these are there to be copied.
fn own_files(root: &Path, run: &Path) -> std::io::Result<OwnFiles> {
    let mut own: Vec<PathBuf> = ENTRIES.iter().map(|name| root.join(name)).collect();
    // By itself, for a context that is the directory of all runs.
    own.push(run.to_owned());
    let has_only = |directory: &Path, names: &[&str]| -> std::io::Result<bool> {
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            if !names.iter().any(|known| name == *known) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    if has_only(root, &ENTRIES)? {
        own.push(root.to_owned());
        let above = root.parent().zip(root.file_name().and_then(|name| name.to_str()));
        if let Some((cache, name)) = above.filter(|(cache, _)| cache.ends_with(".cache"))
            // Who may not list it may not copy it either.
            && has_only(cache, &[name]).unwrap_or(false)
        {
            own.push(cache.to_owned());
        }
    }
    Ok(OwnFiles::at(own))
}

fn beginning(root: &Path) -> io::Result<File> {
    let beginning = File::create(root.join("runs.lock"))?;
    rustix::fs::flock(&beginning, FlockOperation::LockExclusive)?;
    Ok(beginning)
}

/// The container ends with its first process. What lies in its own file system then goes with it, faster than anybody could
/// remove it; should the container be started again, what is left is a dead run. A volume stays, and is another file system.
fn is_only_process_of_container(root: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let is_first = std::process::id() == 1 && settings::in_container();
    is_first && device(root).is_some_and(|of_root| Some(of_root) == device(Path::new("/")))
}

/// When it takes longer it is said.
const SAY_AFTER: Duration = Duration::from_secs(1);

/// How long it may take when a signal asks for the end: small trees are gone by then, and the next run removes the others.
const AFTER_SIGNAL: Duration = Duration::from_millis(300);

/// How many files are removed at a time: a disk does several faster than one.
const WORKERS: usize = 4;

fn remove(run: &Path, lock: OwnedFd, voice: Voice, message: &str) {
    let signalled = signals::flag();
    let begun = Instant::now();
    let mut said = false;
    let mut go_on = || {
        let elapsed = begun.elapsed();
        let is_signalled = signalled.load(Ordering::Relaxed);
        if elapsed > SAY_AFTER && !said && !is_signalled {
            voice.note(message);
            said = true;
        }
        !is_signalled || elapsed < AFTER_SIGNAL
    };
    let removed = remove_run(run, &mut go_on);
    if removed.is_err() && signalled.load(Ordering::Relaxed) {
        voice.note(&format!("`{}` is left; the next build removes it", run.display()));
    }
    drop(lock);
}

fn remove_run(run: &Path, go_on: &mut dyn FnMut() -> bool) -> io::Result<()> {
    let heap = tempfile::Builder::new().prefix("removed-").tempdir_in(run)?.keep();
    let removal = Arc::new(Removal::new(&heap)?);
    let directory = rustix::fs::open(run, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let heap_name = heap.file_name().map(|name| name.as_encoded_bytes().to_owned()).unwrap_or_default();
    removal.empty(&directory, &|name| name == LOCK.as_bytes() || name == heap_name)?;
    removal.run(go_on)?;
    fs::remove_dir(&heap)?;
    fs::remove_file(run.join(LOCK))?;
    fs::remove_dir(run)
}

/// Removes directories by moving each into one directory, the heap, under a number: however deep they are, paths stay short,
/// nothing recurs, and each can be emptied by another thread.
struct Removal {
    heap: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: Vec<u64>,
    /// How many are being emptied, and may lead to more.
    busy: usize,
    error: Option<io::Error>,
}

impl Removal {
    fn new(heap: &Path) -> io::Result<Removal> {
        let heap = rustix::fs::open(heap, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Removal { heap, state: Mutex::default(), changed: Condvar::new(), stopped: AtomicBool::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes everything in the heap; asks every few milliseconds whether to go on.
    ///
    /// # Errors
    /// When something is left.
    fn run(self: &Arc<Removal>, go_on: &mut dyn FnMut() -> bool) -> io::Result<()> {
        let started = (0..WORKERS).filter(|_| {
            let removal = self.clone();
            spawn::thread_now("remove", move || removal.work()).is_ok()
        });
        if started.count() == 0 {
            self.work();
        }
        let mut state = self.state();
        // A thread that waits for the disk is not waited for.
        while state.busy > 0 || !state.waiting.is_empty() {
            if !go_on() {
                self.stopped.store(true, Ordering::Relaxed);
                return Err(io::ErrorKind::Interrupted.into());
            }
            state =
                self.changed.wait_timeout(state, Duration::from_millis(20)).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.error.take().map_or(Ok(()), Err)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            if let Some(number) = state.waiting.pop() {
                state.busy += 1;
                drop(state);
                let removed = self.remove(number);
                state = self.state();
                state.busy -= 1;
                state.error = state.error.take().or(removed.err());
                self.changed.notify_all();
            } else if state.busy == 0 {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        let name = name_of(number);
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&self.heap, &name, flags, Mode::empty())
        };
        let directory = with_access(open, || make_accessible(&self.heap, &name))?;
        loop {
            self.empty(&directory, &|_| false)?;
            match rustix::fs::unlinkat(&self.heap, &name, AtFlags::REMOVEDIR) {
                // A directory that loses entries while it is read need not tell the others.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Removes the files of a directory, and moves its directories into the heap: all that can be.
    fn empty(&self, directory: &OwnedFd, stays: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
        let mut failed = None;
        for entry in rustix::fs::Dir::read_from(directory)? {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || stays(name.to_bytes()) {
                continue;
            }
            if let Err(error) = self.remove_entry(directory, name, entry.file_type()) {
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn remove_entry(&self, directory: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<()> {
        if kind == FileType::Directory {
            return self.take(directory, name);
        }
        let unlink = || rustix::fs::unlinkat(directory, name, AtFlags::empty());
        match with_access(unlink, || rustix::fs::fchmod(directory, Mode::RWXU)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // The file system does not say what its entries are.
            Err(Errno::ISDIR) => self.take(directory, name),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&self, directory: &OwnedFd, name: &CStr) -> io::Result<()> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        drop(state);
        let rename = || rustix::fs::renameat(directory, name, &self.heap, name_of(number));
        with_access(rename, || {
            rustix::fs::fchmod(directory, Mode::RWXU)?;
            // Its `..` is written as well.
            make_accessible(directory, name)
        })?;
        self.state().waiting.push(number);
        self.changed.notify_all();
        Ok(())
    }
}

/// A step may have taken every right away from a directory, and an owner without capabilities is refused then.
fn with_access<T>(
    act: impl Fn() -> rustix::io::Result<T>,
    give_access: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<T> {
    match act() {
        Err(Errno::ACCESS | Errno::PERM) => give_access().and_then(|()| act()),
        result => result,
    }
}

fn make_accessible(directory: impl AsFd, name: &CStr) -> rustix::io::Result<()> {
    rustix::fs::chmodat(directory, name, Mode::RWXU, AtFlags::empty())
}

fn name_of(number: u64) -> CString {
    CString::new(number.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A run with a tree that is deep, wide, and closed to its owner.
    fn run() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        fs::create_dir_all(run.join("stages/0/rootfs/closed/inner")).unwrap();
        fs::write(run.join(LOCK), "").unwrap();
        fs::write(run.join("record"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", run.join("stages/link")).unwrap();
        for number in 0..50 {
            let below = run.join(format!("stages/0/rootfs/{number}"));
            fs::create_dir(&below).unwrap();
            (0..40).for_each(|file| fs::write(below.join(format!("f{file}")), "x").unwrap());
        }
        // Deeper than any path can say.
        let mut deepest = rustix::fs::open(&run, OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&deepest, "deep", Mode::RWXU).unwrap();
            deepest = rustix::fs::openat(&deepest, "deep", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        fs::write(run.join("stages/0/rootfs/closed/inner/f"), "x").unwrap();
        for closed in ["closed/inner", "closed"] {
            let path = run.join("stages/0/rootfs").join(closed);
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        (directory, run)
    }

    #[test]
    fn whole_trees_go() {
        let (_directory, run) = run();
        assert!(Path::new("/etc").exists());
        remove_run(&run, &mut || true).unwrap();
        assert!(!run.exists() && Path::new("/etc").exists());
    }

    /// What was begun is a dead run: its lock is there, and another removal finishes it.
    #[test]
    fn a_removal_that_is_stopped_is_taken_up_again() {
        let (_directory, run) = run();
        assert!(remove_run(&run, &mut || false).is_err());
        assert!(run.join(LOCK).exists());
        while let Err(error) = remove_run(&run, &mut || true) {
            // The threads of the first one may still be at it.
            assert!(run.join(LOCK).exists(), "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!run.exists());
    }

    #[test]
    fn runs_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) =
            (WorkDir::make(directory.path(), false).unwrap(), WorkDir::make(directory.path(), false).unwrap());
        let dead = directory.path().join("runs/run-dead");
        fs::create_dir_all(dead.join("stages/0")).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::create_dir(directory.path().join("runs/not-ours")).unwrap();
        two.remove_dead_runs(Voice::default());
        assert!(one.path().exists() && two.path().exists() && !dead.exists());
        assert!(directory.path().join("runs/not-ours").exists());
        let (first, second) = (one.path().to_owned(), two.path().to_owned());
        one.remove(Voice::default());
        drop(two);
        assert!(!first.exists() && !second.exists());
    }
}
