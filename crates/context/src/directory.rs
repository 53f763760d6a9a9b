//! A directory of the user as a context, read in place.

use std::path::Path;
use std::sync::Arc;

use rootfs::Tree;

use crate::dockerfile::ignore_file_beside;
use crate::{Context, ContextError, Ignore, Opened, io};

/// Opens a local directory with the ignore file that applies: the one beside the Dockerfile (a path on the host, or below the
/// directory) if there is one, else `.dockerignore` at the root.
///
/// Named contexts have no Dockerfile, and only their own `.dockerignore`.
///
/// # Errors
/// [`ContextError::Io`] when it is no directory or cannot be read, [`ContextError::Invalid`] for a broken ignore file.
pub fn open_dir(path: &Path, dockerfile: Option<&Path>) -> Result<Context, ContextError> {
    let tree = open(path)?.tree;
    let beside = dockerfile.map(|dockerfile| ignore_file_beside(dockerfile, &tree)).transpose()?.flatten();
    let ignore = match beside {
        Some((file, text)) => Ignore::parse(&file, &text)?,
        None => Ignore::of_tree(&tree)?,
    };
    Ok(Context { tree, ignore })
}

/// The directory alone, everything in it visible.
pub(crate) fn open(path: &Path) -> Result<Opened, ContextError> {
    let metadata = std::fs::metadata(path).map_err(|source| io("could not open context", path.display(), source))?;
    if !metadata.is_dir() {
        return Err(ContextError::Invalid {
            what: format!("context `{}`", path.display()),
            reason: "not a directory (a tar is `tar://PATH`)".to_owned(),
        });
    }
    Ok(Opened { tree: Arc::new(Tree::open(path, None)?), dockerfile: None, local: true })
}
