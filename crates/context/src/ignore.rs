//! The ignore file that applies to a context.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dockerfile::ignore::Patterns;
use rootfs::copy::Filter;
use rootfs::{FileKind, Tree};

use crate::ContextError;
use crate::dockerfile::read_limited;

pub(crate) const DOCKERIGNORE: &str = ".dockerignore";

/// The ignore file that applies, if any.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    pub patterns: Patterns,
    /// `.dockerignore` or `NAME.dockerignore`, for hints.
    pub file: Option<PathBuf>,
}

impl Ignore {
    /// Reads the text of the ignore file `file`.
    pub(crate) fn parse(file: &Path, text: &[u8]) -> Result<Ignore, ContextError> {
        let patterns = Patterns::parse(text).map_err(|error| ContextError::Invalid {
            what: format!("ignore file `{}`", file.display()),
            reason: error.to_string(),
        })?;
        Ok(Ignore { patterns, file: Some(file.to_owned()) })
    }

    /// Which line of the ignore file hides `path`, if one does.
    pub fn hint(&self, path: &Path) -> Option<String> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let (line, pattern) = self.patterns.excluded_by(relative.as_os_str().as_bytes())?;
        let file = self.file.as_deref().unwrap_or(Path::new(DOCKERIGNORE)).display();
        Some(format!("`{file}` line {line} (`{pattern}`) excludes it"))
    }

    /// `.dockerignore` at the root of `tree`; everything may be seen where there is none.
    pub(crate) fn of_tree(tree: &Tree) -> Result<Ignore, ContextError> {
        match read_in_tree(tree, Path::new(DOCKERIGNORE))? {
            Some(text) => Ignore::parse(Path::new(DOCKERIGNORE), &text),
            None => Ok(Ignore::default()),
        }
    }
}

impl Filter for Ignore {
    fn excludes(&self, path: &Path) -> bool {
        self.patterns.excludes(path.as_os_str().as_bytes())
    }
    fn may_include_below(&self, directory: &Path) -> bool {
        self.patterns.may_include_below(directory.as_os_str().as_bytes())
    }
}

/// The content of a regular file of the tree, links resolved inside it; none when there is no such file.
pub(crate) fn read_in_tree(tree: &Tree, path: &Path) -> Result<Option<Vec<u8>>, ContextError> {
    let resolved = tree.resolve(path, true)?;
    match tree.stat(&resolved)? {
        Some(metadata) if metadata.kind == FileKind::File => {
            read_limited(&mut tree.open_file(&resolved)?, &path.display().to_string()).map(Some)
        }
        _ => Ok(None),
    }
}
