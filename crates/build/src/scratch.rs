//! A directory for the length of a step, in the work directory.

use std::io;
use std::path::Path;

use rootfs::{Stop, Tree};
use tempfile::TempDir;

use crate::Request;

/// Removed when it is dropped, unless the build is cancelled: then it goes with the whole work directory, and nobody waits for
/// it before.
pub struct Scratch {
    directory: Option<TempDir>,
    stop: Stop,
}

impl Scratch {
    pub fn make(request: &Request, prefix: &str) -> io::Result<Scratch> {
        let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(&request.control.work)?;
        Ok(Scratch { directory: Some(directory), stop: request.stop() })
    }

    pub fn path(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(path) = self.directory.take().map(TempDir::keep) else { return };
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return };
        // What stays goes with the work directory.
        let _ = Tree::open(above, None).and_then(|above| above.stopping(&self.stop).remove(Path::new(name)));
    }
}
