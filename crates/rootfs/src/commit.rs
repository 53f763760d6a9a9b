//! Changes out of a tree: exact detection and the deterministic layer.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{RootfsError, Tree};

/// What a tree was like: a file with one record per path in walking order, so that comparing needs no memory.
#[derive(Debug)]
pub struct Snapshot {
    /// The record on disk; removed when this is dropped.
    pub record: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Modification times later than this (seconds) become this.
    pub clamp_modified: Option<i64>,
    /// Paths (relative) that are left out with everything below.
    pub ignore: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Committed {
    /// Entries in the layer, whiteouts included.
    pub entries: u64,
    pub size_bytes: u64,
}

/// Records the state of `tree` in the new file `record`.
pub fn snapshot(tree: &Tree, record: &Path) -> Result<Snapshot, RootfsError> {
    let _ = (tree, record);
    unimplemented!()
}

/// Writes what changed in `tree` since `before` as an uncompressed layer tar to `layer`, and records the new state.
///
/// Without `before` everything is written (a layer on nothing).
pub fn commit(
    tree: &Tree,
    before: Option<&Snapshot>,
    record: &Path,
    options: &CommitOptions,
    layer: &mut dyn Write,
) -> Result<(Snapshot, Committed), RootfsError> {
    let _ = (tree, before, record, options, layer);
    unimplemented!()
}

/// Copies the whole of `from` into the empty `to`: owners, hard links, attributes, holes, times.
pub fn clone_tree(from: &Tree, to: &Tree) -> Result<(), RootfsError> {
    let _ = (from, to);
    unimplemented!()
}
