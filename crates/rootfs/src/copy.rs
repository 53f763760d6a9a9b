//! COPY and ADD between trees, with BuildKit's rules (`solver/llbsolver/file`, `fsutil/copy`).

use std::path::{Path, PathBuf};

use crate::{RootfsError, Tree};

/// What of the source tree may be seen (`.dockerignore`, `--exclude`).
pub trait Filter {
    /// Whether `path` (relative to the source tree) is left out.
    fn excludes(&self, path: &Path) -> bool;
    /// Whether something below an excluded directory may be let in again.
    fn may_include_below(&self, directory: &Path) -> bool;
}

/// Everything may be seen.
pub struct Everything;

impl Filter for Everything {
    fn excludes(&self, _: &Path) -> bool {
        false
    }
    fn may_include_below(&self, _: &Path) -> bool {
        true
    }
}

/// `--chmod`, parsed: an octal mode or symbolic clauses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    Octal(u32),
    Symbolic(String),
}

/// How local archives are treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Archives {
    /// COPY, and ADD --unpack=false.
    Copy,
    /// ADD of a local file, and ADD --unpack: unpack what is an archive by its content.
    Unpack,
}

#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Owner of everything written, implicit parents included; none: 0:0 for contexts, the source's for stages.
    pub owner: Option<(u32, u32)>,
    /// With `owner` none: keep the source's owner (COPY --from) rather than 0:0.
    pub keep_owner: bool,
    pub mode: Option<Mode>,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, relative to the source.
    pub exclude: dockerfile::ignore::Patterns,
    pub archives: Archives,
    /// Modification time (seconds) of directories that are made on the way (implicit parents), if fixed.
    pub made_modified: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    pub entries: u64,
    pub size_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A literal source that is not there.
    #[error("`{}` does not exist", path.display())]
    NotFound { path: PathBuf, excluded: bool },
    #[error("{message}")]
    Refused { message: String },
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
}

/// Copies `sources` (expanded text, may hold wildcards) of `from` to `destination` (absolute in the rootfs; a trailing `/`
/// has its meaning) in `to`.
pub fn copy(
    from: &Tree,
    filter: &dyn Filter,
    sources: &[String],
    to: &Tree,
    destination: &str,
    options: &CopyOptions,
) -> Result<Copied, CopyError> {
    let _ = (from, filter, sources, to, destination, options);
    unimplemented!()
}

/// Makes `path` and its parents (WORKDIR): 0755, owned by `owner`; what exists is left alone, links are followed in the tree.
pub fn make_dirs(to: &Tree, path: &Path, owner: (u32, u32)) -> Result<(), CopyError> {
    let _ = (to, path, owner);
    unimplemented!()
}
