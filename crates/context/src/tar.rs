//! A tar as a context: unpacked into a directory of its own.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use rootfs::unpack::{self, Limits};
use rootfs::{Stop, Tree, archive};

use crate::dockerfile::read_limited;
use crate::{Context, ContextError, Dockerfile, Ignore, Opened, io};

/// The context is the user's own; how much of it fits is the disk's affair.
const LIMITS: Limits = Limits { size_bytes: u64::MAX, entries: u64::MAX };

/// Unpacks a tar (plain, gzip, bzip2, xz or zstd: the content decides) into a new directory below `work`, and applies its
/// `.dockerignore`.
///
/// Owners in the tar play no role: what comes from a context belongs to root.
///
/// # Errors
/// [`ContextError::Invalid`] when `reader` gives something else than a tar.
pub fn open_tar(reader: &mut dyn Read, what: &str, work: &Path) -> Result<Context, ContextError> {
    let opened = open_stream(reader, what, work, &Stop::default())?;
    if opened.dockerfile.is_some() {
        return Err(ContextError::Invalid {
            what: format!("context `{what}`"),
            reason: "not a tar archive".to_owned(),
        });
    }
    let ignore = Ignore::of_tree(&opened.tree)?;
    Ok(Context { tree: opened.tree, ignore })
}

/// [`open_file`] for what cannot be read twice: it goes through a nameless file in `work`.
pub(crate) fn open_stream(reader: &mut dyn Read, what: &str, work: &Path, stop: &Stop) -> Result<Opened, ContextError> {
    let mut file =
        tempfile::tempfile_in(work).map_err(|source| io("could not make a file in", work.display(), source))?;
    std::io::copy(reader, &mut stop.watch(&file)).map_err(|source| io("could not read context from", what, source))?;
    file.seek(SeekFrom::Start(0)).map_err(|source| io("could not read context from", what, source))?;
    open_file(file, what, work, stop)
}

/// The tar in `file`, or the one Dockerfile that it is.
pub(crate) fn open_file(file: File, what: &str, work: &Path, stop: &Stop) -> Result<Opened, ContextError> {
    let mut again = file.try_clone().map_err(|source| io("could not read context from", what, source))?;
    let directory = tempfile::Builder::new()
        .prefix("context-")
        .tempdir_in(work)
        .map_err(|source| io("could not make a directory in", work.display(), source))?
        .keep();
    let tree = Tree::create(&directory.join("files"), Some(&directory.join("table")))?.stopping(stop);
    let dockerfile = match archive::open_archive(file, stop)? {
        Some(mut archive) => {
            unpack::unpack(archive.as_mut(), &tree, &LIMITS)?;
            None
        }
        None => {
            again.seek(SeekFrom::Start(0)).map_err(|source| io("could not read context from", what, source))?;
            Some(Dockerfile { bytes: read_limited(&mut again, what)?, name: what.to_owned(), ignore_file: None })
        }
    };
    Ok(Opened { tree: Arc::new(tree), dockerfile, local: false })
}
