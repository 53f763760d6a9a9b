//! Where in the rootfs a step may have changed something: what the commit after it has to look at.
//!
//! Noted before a change is made, so that no change is without its note. Whoever moves a directory has changed the two that it
//! is moved between: the way down to every note stays noted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rootfs::commit::Written;
use rustix::fs::{AtFlags, CWD, OFlags, Statx};

use super::World;
use super::place::{Dir, Id, LOOK, Node, Opened, Spot, id_of, lock, look, open_path, path_by_kernel};

/// None once something was changed of which nobody can tell where it is.
pub struct Log(Mutex<Option<Written>>);

impl Default for Log {
    fn default() -> Log {
        Log(Mutex::new(Some(Written::default())))
    }
}

impl Log {
    /// What has been noted. Later notes are lost.
    pub fn take(&self) -> Option<Written> {
        lock(&self.0).take()
    }

    /// Something in a directory is about to change.
    pub fn directory(&self, dir: &Dir) {
        if dir.area.is_rootfs() {
            self.note(dir.fd.as_fd(), dir.id, dir.area.root);
        }
    }

    pub fn new_directory(&self, made: &Statx) {
        if let Some(written) = lock(&self.0).as_mut() {
            written.add(made.stx_ino);
        }
    }

    /// A file is about to change, or a directory's own metadata.
    pub fn target(&self, world: &World, spot: &Spot, found: &Statx) {
        match spot {
            Spot::Entry(dir, _) | Spot::Node(Node::Dir(dir)) => self.directory(dir),
            Spot::Node(Node::Proc(_)) => {}
            Spot::Mapped(mapped)
                if mapped.tree.as_ref().is_some_and(|tree| std::sync::Arc::ptr_eq(tree, &world.tree)) =>
            {
                self.anywhere();
            }
            Spot::Mapped(_) => {}
            Spot::Open(opened) => self.open_file(world, opened, found),
        }
    }

    fn anywhere(&self) {
        *lock(&self.0) = None;
    }

    /// A file that the step has open. Of one with several names nobody knows which directories see the change, of one without
    /// any none does.
    fn open_file(&self, world: &World, opened: &Opened, found: &Statx) {
        if found.stx_nlink == 0 || !opened.area.as_ref().is_some_and(|area| area.is_rootfs()) {
            return;
        }
        let Ok(host) = path_by_kernel(opened.file.as_fd()) else { return self.anywhere() };
        match directory_of(&host, found).filter(|_| found.stx_nlink == 1) {
            Some((directory, id)) => self.note(directory.as_fd(), id, world.root.id),
            None => self.anywhere(),
        }
    }

    /// Notes a directory and all above it.
    fn note(&self, directory: BorrowedFd<'_>, id: Id, root: Id) {
        let mut noted = lock(&self.0);
        if let Some(written) = noted.as_mut()
            && (climb(written, directory, id, root).is_err() || written.is_too_large())
        {
            *noted = None;
        }
    }
}

fn climb(written: &mut Written, directory: BorrowedFd<'_>, mut id: Id, root: Id) -> rustix::io::Result<()> {
    let mut above: Option<OwnedFd> = None;
    // What is noted already has its way up noted, too.
    while written.add(id.1) && id != root {
        let next = open_path(above.as_ref().map_or(directory, |above| above.as_fd()), b"..", OFlags::DIRECTORY)?;
        id = id_of(&look(next.as_fd())?);
        above = Some(next);
    }
    Ok(())
}

/// The directory in which `found` still has the name that `host` ends in.
fn directory_of(host: &[u8], found: &Statx) -> Option<(OwnedFd, Id)> {
    let slash = host.iter().rposition(|byte| *byte == b'/')?;
    let directory = open_path(CWD, &host[..slash.max(1)], OFlags::DIRECTORY).ok()?;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let named = rustix::fs::statx(&directory, &host[slash + 1..], flags, LOOK).ok()?;
    let id = id_of(&look(directory.as_fd()).ok()?);
    (id_of(&named) == id_of(found)).then_some((directory, id))
}
