//! Where COPY and ADD take files from: directories, tars, addresses; and what `.dockerignore` hides of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::ignore::Patterns;
use rootfs::Tree;
use rootfs::copy::Filter;

/// An opened build context.
pub struct Context {
    pub tree: Arc<Tree>,
    pub ignore: Ignore,
}

/// The ignore file that applies, if any.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    pub patterns: Patterns,
    /// `.dockerignore` or `NAME.dockerignore`, for hints.
    pub file: Option<PathBuf>,
}

impl Filter for Ignore {
    fn excludes(&self, path: &Path) -> bool {
        use std::os::unix::ffi::OsStrExt as _;
        self.patterns.excludes(path.as_os_str().as_bytes())
    }
    fn may_include_below(&self, directory: &Path) -> bool {
        use std::os::unix::ffi::OsStrExt as _;
        self.patterns.may_include_below(directory.as_os_str().as_bytes())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("{action} `{place}`")]
    Io { action: &'static str, place: String, source: std::io::Error },
    #[error("{what}: {reason}")]
    Invalid { what: String, reason: String },
    #[error("not supported yet: {what}")]
    Unsupported { what: String },
    #[error("could not fetch `{url}`: {reason}")]
    Fetch { url: String, reason: String },
    #[error(transparent)]
    Rootfs(#[from] rootfs::RootfsError),
}
