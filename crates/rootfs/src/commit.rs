//! Changes out of a tree: exact detection and the deterministic layer.

mod record;
mod upper;
mod walk;
mod written;

pub use upper::commit_upper;
pub use written::Written;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::contents::Contents;
use crate::tree::io_error;
use crate::unpack::{Limits, Unpacked, unpack};
use crate::{RootfsError, Tree};
use walk::{Layer, Walk};

/// What a tree was like: a file with one record per path in walking order, so that comparing needs no memory.
#[derive(Debug)]
pub struct Snapshot {
    /// The record on disk; removed when this is dropped.
    pub record: PathBuf,
    /// How many notes of contents there were: later ones are of what came after it.
    noted: u64,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // Whoever made the directory removes it with what is left there.
        let _ = std::fs::remove_file(&self.record);
    }
}

#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Modification times later than this (seconds) become this.
    pub clamp_modified: Option<i64>,
    /// All modification times become this (seconds): for files that leave the build as files.
    pub set_modified: Option<i64>,
    /// Paths (relative) that are left out with everything below. What an earlier record has of them stays recorded, so that
    /// leaving them out is no deletion.
    pub ignore: Vec<PathBuf>,
    /// Where changes can be. None: anywhere, all is compared.
    pub written: Option<Written>,
}

impl CommitOptions {
    fn ignores(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.ignore.iter().any(|ignored| ignored.strip_prefix("/").unwrap_or(ignored) == path)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Committed {
    /// Entries in the layer, whiteouts included.
    pub entries: u64,
    pub size_bytes: u64,
}

/// Records the state of `tree` in the new file `record`.
///
/// Where contents are to be remembered and none is yet, every file is read. What is changed after this returns is seen by [`commit`], even within the same tick of the kernel's clock.
pub fn snapshot(tree: &Tree, record: &Path) -> Result<Snapshot, RootfsError> {
    let (mut snapshot, writer) = new_record(record)?;
    let options = CommitOptions::default();
    let mut walk = Walk::new(tree, &options, None, Some(writer), None)?;
    walk.notes_all = notes(tree) == 0;
    walk.run()?;
    wait_for_clock(walk.newest);
    snapshot.noted = notes(tree);
    Ok(snapshot)
}

/// Writes what changed in `tree` since `before` as an uncompressed layer tar to `layer`, and records the new state.
///
/// Without `before` everything is written (a layer on nothing). A file counts as changed when its modification time, size, mode,
/// owner, device number or kind differ; when only its inode or change time do, and what was in it is remembered
/// ([`Tree::remember_contents`]), its content and capabilities decide, as with [`commit_upper`]; else it counts as changed, too.
/// A directory does when its mode or owner differ or something below it changed. The root itself is never an entry, sockets are left out, and of extended attributes the layer has
/// `security.capability` (BuildKit). The same tree gives the same bytes. With [`CommitOptions::written`] other directories are
/// taken to be as the record has them, with all that is in them.
///
/// # Errors
/// [`RootfsError::WhiteoutName`] for a file that a layer cannot hold, [`RootfsError::Write`] when `layer` fails,
/// [`RootfsError::Io`] with the path when a system call does.
pub fn commit(
    tree: &Tree,
    before: Option<&Snapshot>,
    record: &Path,
    options: &CommitOptions,
    layer: &mut dyn Write,
) -> Result<(Snapshot, Committed), RootfsError> {
    let noted = before.map_or(0, |before| before.noted);
    let before = before.map(open_record).transpose()?;
    let (mut snapshot, writer) = new_record(record)?;
    let mut walk = Walk::new(tree, options, before, Some(writer), Some(Layer::new(layer, false)))?;
    walk.noted = noted;
    let committed = walk.run()?;
    wait_for_clock(walk.newest);
    snapshot.noted = notes(tree);
    Ok((snapshot, committed))
}

fn notes(tree: &Tree) -> u64 {
    tree.contents().map_or(0, Contents::length)
}

/// Writes the whole of `tree` as an uncompressed layer tar to `layer`, and records nothing: as [`commit`] without `before`.
///
/// # Errors
/// As [`commit`].
pub fn write_tree(tree: &Tree, options: &CommitOptions, layer: &mut dyn Write) -> Result<Committed, RootfsError> {
    Walk::new(tree, options, None, None, Some(Layer::new(layer, false)))?.run()
}

/// Copies the whole of `from` into the empty `to`: owners, hard links, attributes, holes, times.
pub fn clone_tree(from: &Tree, to: &Tree) -> Result<(), RootfsError> {
    clone_tree_with(from, to, &CommitOptions::default())
}

/// [`clone_tree`], but with the times of `options`.
pub fn clone_tree_with(from: &Tree, to: &Tree, options: &CommitOptions) -> Result<(), RootfsError> {
    let (mut reader, mut writer) = std::io::pipe().map_err(RootfsError::Write)?;
    // Both sides take turns less often; an ordinary user may have this much (pipe(7), pipe-max-size).
    let _ = rustix::pipe::fcntl_setpipe_size(&reader, 1 << 20);
    let (written, unpacked) = std::thread::scope(|scope| {
        let write = move || {
            let layer = Layer::new(&mut writer, true);
            Walk::new(from, options, None, None, Some(layer)).and_then(|mut walk| walk.run())
        };
        let writing = match spawn::scoped(scope, "copy", &|| to.stop().is_set(), write) {
            Ok(writing) => writing,
            Err(error) => return (Ok(Err(RootfsError::write(error))), Ok(Unpacked::default())),
        };
        let unpacked = unpack(&mut reader, to, &Limits::NONE);
        // With the reading end gone the writer cannot wait for a reader that failed.
        drop(reader);
        (writing.join(), unpacked)
    });
    match (unpacked, written) {
        (_, Err(panic)) => std::panic::resume_unwind(panic),
        // The reader sees only that the stream ended.
        (Err(RootfsError::Cancelled), _) => return Err(RootfsError::Cancelled),
        (_, Ok(Err(error))) if !matches!(error, RootfsError::Write(_)) => return Err(error),
        (Err(error), _) | (Ok(_), Ok(Err(error))) => return Err(error),
        (Ok(_), Ok(Ok(_))) => {}
    }
    clone_root(from, to)
}

/// The root directory's own metadata, which are no part of a layer.
pub(crate) fn clone_root(from: &Tree, to: &Tree) -> Result<(), RootfsError> {
    let root = Path::new("");
    let Some(metadata) = from.stat(root)? else { return Ok(()) };
    to.set_owner(root, metadata.uid, metadata.gid)?;
    to.set_mode(root, metadata.mode)?;
    for (name, value) in from.xattrs(root)? {
        to.set_xattr(root, &name, &value)?;
    }
    to.set_modified(root, metadata.modified)
}

fn new_record(path: &Path) -> Result<(Snapshot, record::Writer), RootfsError> {
    let fail = |error| io_error("could not make the record", path, error);
    let file = File::create_new(path).map_err(fail)?;
    let snapshot = Snapshot { record: path.to_owned(), noted: 0 };
    Ok((snapshot, record::Writer::new(file).map_err(fail)?))
}

fn open_record(snapshot: &Snapshot) -> Result<record::Reader, RootfsError> {
    File::open(&snapshot.record)
        .and_then(record::Reader::new)
        .map_err(|error| io_error("could not read the record", &snapshot.record, error))
}

/// Waits until the clock that kernels before 6.13 stamp files with is past `newest`. A file changed twice within a tick
/// would have the same change time before and after otherwise. A time from the future is not waited for.
fn wait_for_clock(newest: (i64, u32)) {
    for _ in 0..100 {
        if coarse_clock() > newest {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn coarse_clock() -> (i64, u32) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which is ours and lives until it returns. The clock exists since Linux 2.6.32; were
    // it refused, the time would stay 0 and the wait end after its hundred rounds.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    (time.tv_sec, time.tv_nsec as u32)
}
