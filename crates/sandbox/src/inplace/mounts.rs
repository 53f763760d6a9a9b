//! What stands for mounts where nothing can be mounted: things put into the stage's directory before it is swapped in, and
//! removed after it is back, with what they covered put back in their place.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Component, Path, PathBuf};

use rootfs::Tree;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{
    Mount, MountSource, SandboxError,
    sockets::{self, Sockets},
    stubs, sys,
    wire::{self, Written},
};

/// Everything that was put into a stage, in order.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Mounted {
    /// Directory for what is covered.
    #[serde(with = "wire")]
    covered: PathBuf,
    places: Vec<Placed>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Placed {
    /// The name of what it covers, in the directory for that.
    number: usize,
    /// Relative, free of symbolic links.
    #[serde(with = "wire")]
    target: PathBuf,
    /// It is in the container's own /dev, which no stage replaces.
    in_dev: bool,
    /// Directories and the like made for it, outermost first.
    made: Vec<Written>,
    /// Something was there and waits in `covered`.
    covers: bool,
    back: Back,
}

/// What happens to the thing afterwards.
#[derive(Clone, Serialize, Deserialize)]
enum Back {
    /// It is not there yet.
    Nothing,
    /// It is removed.
    Nowhere,
    /// It was moved here from the source, and returns.
    Move(Written),
    /// It is a copy of the source, which is replaced by it.
    Copy(Written),
}

/// Writes down what is about to be done.
type Journal<'a> = dyn FnMut(&Mounted) -> Result<(), SandboxError> + 'a;

impl Mounted {
    /// None yet.
    pub fn new(state: &Path) -> Result<Mounted, SandboxError> {
        let covered = state.join("covered");
        fs::create_dir_all(&covered).map_err(|error| failed("could not make", &covered, error))?;
        Ok(Mounted { covered, places: Vec::new() })
    }

    /// Puts the mount with this index into the tree, after those before it. What [`Mounted::undo`] will have to do for it is
    /// given to `journal` before it begins. On an error it is for that to clear what is left. Sockets are listened at by
    /// `sockets`.
    pub fn put(
        &mut self,
        tree: &Tree,
        mounts: &[Mount],
        index: usize,
        sockets: &mut Sockets,
        journal: &mut Journal<'_>,
    ) -> Result<(), SandboxError> {
        let Some((mount, earlier)) = mounts.get(index).zip(mounts.get(..index)) else { return Ok(()) };
        let refuse = |reason: String| SandboxError::Mount { target: mount.target.clone(), reason };
        let impossible = |reason: String| SandboxError::MountPoint { target: mount.target.clone(), reason };
        check(mount).map_err(refuse)?;
        let in_dev = mount.target.starts_with("/dev");
        let target = match in_dev {
            true => mount.target.strip_prefix("/").unwrap_or(&mount.target).to_owned(),
            false => tree.resolve(&mount.target, true)?,
        };
        let base = base(in_dev, tree.path());
        let place = base.join(&target);
        let (source, alias) = self.now_at(tree.path(), &mount.source);
        let there = fs::symlink_metadata(&place).ok();
        if in_dev && there.is_some() {
            return Err(refuse("it is there already, and `/dev` is the container's when a step runs in place".into()));
        }
        let is_directory = is_directory(&source).map_err(refuse)?;
        if there.as_ref().is_some_and(|there| there.is_dir() != is_directory) {
            let (what, on) = if is_directory { ("directory", "file") } else { ("file", "directory") };
            return Err(impossible(format!("cannot mount a {what} on a {on}")));
        }
        if there.is_none() && self.is_below_read_only(&target, earlier) {
            return Err(impossible("could not make the mount point: the mount that it is in is read-only".into()));
        }
        // From here on `undo` knows of it, whatever fails; and after a kill from what is written down, all of which is true of
        // what is outside of the stage, however much of it has been done.
        let covered = self.covered.join(index.to_string());
        let made = missing_parents(base, &target);
        let planned = match (&source, &alias) {
            (MountSource::Bind { path, read_only: false }, None) => {
                let source = fs::canonicalize(path).map_err(|error| refuse(sys::plain(&error)))?;
                Back::Move(Written(source))
            }
            _ => Back::Nowhere,
        };
        self.places.push(Placed { number: index, target, in_dev, made, covers: false, back: planned });
        journal(self)?;
        let Some(placed) = self.places.last_mut() else { return Ok(()) };
        let planned = std::mem::replace(&mut placed.back, Back::Nothing);
        make_all(base, &placed.made).map_err(|error| {
            let reason = format!("could not make the mount point: {}", sys::plain(&error));
            if stubs::can_be_nowhere(&error) { impossible(reason) } else { refuse(reason) }
        })?;
        if there.is_some() {
            renamed(&place, &covered).map_err(|error| failed("could not move", &place, error))?;
            placed.covers = true;
        }
        placed.back = planned;
        let mode = there.map_or(crate::NEW_TMPFS_MODE, |there| there.mode() & 0o7777);
        placed.back = match alias {
            Some(first) => in_parent(&place, || symlink(first, &place)).map(|()| Back::Nowhere),
            None => fill(&place, &source, mode, sockets),
        }
        .map_err(|error| {
            let reason = format!("could not put it there: {}", sys::plain(&error));
            if stubs::can_be_nowhere(&error) { impossible(reason) } else { refuse(reason) }
        })?;
        Ok(())
    }

    /// Whether the innermost of the `earlier` mounts that `target` is in is read-only. Nothing here holds a write to it up.
    fn is_below_read_only(&self, target: &Path, earlier: &[Mount]) -> bool {
        let around = self.places.iter().zip(earlier).filter(|(placed, _)| target.starts_with(&placed.target));
        let innermost = around.max_by_key(|(placed, _)| placed.target.as_os_str().len());
        innermost.is_some_and(|(_, mount)| matches!(mount.source, MountSource::Bind { read_only: true, .. }))
    }

    /// The source, or where it is since an earlier mount has moved it (or a directory that it is in) into the stage; and for
    /// a writable one its path there as the step will see it, for both must be the same thing.
    fn now_at(&self, stage: &Path, source: &MountSource) -> (MountSource, Option<PathBuf>) {
        let MountSource::Bind { path, read_only } = source else { return (source.clone(), None) };
        let moved = self.places.iter().find_map(|placed| match &placed.back {
            Back::Move(Written(from)) => Some(placed.target.join(path.strip_prefix(from).ok()?)),
            Back::Nothing | Back::Nowhere | Back::Copy(_) => None,
        });
        let Some(now) = moved else { return (source.clone(), None) };
        let alias = (!read_only).then(|| Path::new("/").join(&now));
        (MountSource::Bind { path: stage.join(now), read_only: *read_only }, alias)
    }

    /// Removes everything again, the last first. One that cannot be removed does not keep the others there, and is tried again
    /// the next time.
    pub fn undo(&mut self, stage: &Path) -> Result<(), SandboxError> {
        let mut left: Vec<Placed> = Vec::new();
        let mut result = Ok(());
        while let Some(placed) = self.places.pop() {
            if left.iter().any(|inner| inner.target.starts_with(&placed.target)) {
                left.push(placed);
                continue;
            }
            let stage = base(placed.in_dev, stage);
            let place = stage.join(&placed.target);
            if let Err(error) = undo_one(stage, &placed, &self.covered.join(placed.number.to_string())) {
                result = result.and(Err(failed("could not clear the mount at", &place, error)));
                left.push(placed);
            }
        }
        left.reverse();
        self.places = left;
        result
    }
}

/// The directory that a target is relative to.
fn base(in_dev: bool, stage: &Path) -> &Path {
    if in_dev { Path::new("/") } else { stage }
}

fn failed(action: &str, path: &Path, source: io::Error) -> SandboxError {
    SandboxError::Setup { action: format!("{action} `{}`", path.display()), source }
}

fn check(mount: &Mount) -> Result<(), String> {
    if !mount.target.has_root() || mount.target.file_name().is_none() {
        return Err("the target is not an absolute path below `/`".into());
    }
    if mount.target.components().any(|part| part == Component::ParentDir) {
        return Err("the target has `..` in it".into());
    }
    let fixed = ["/proc", "/sys"].into_iter().find(|fixed| mount.target.starts_with(fixed));
    fixed.map_or(Ok(()), |fixed| Err(format!("`{fixed}` is the container's when a step runs in place")))
}

fn is_directory(source: &MountSource) -> Result<bool, String> {
    match source {
        MountSource::Bind { path, .. } => match fs::metadata(path) {
            Ok(looks) => Ok(looks.is_dir()),
            Err(error) => Err(format!("source `{}`: {}", path.display(), sys::plain(&error))),
        },
        MountSource::Tmpfs { .. } => Ok(true),
        MountSource::File { .. } | MountSource::Socket { .. } => Ok(false),
    }
}

/// What is not there of the way to `target`, outermost first.
fn missing_parents(root: &Path, target: &Path) -> Vec<Written> {
    let parents = target.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    let mut missing: Vec<Written> =
        parents.filter(|path| !root.join(path).exists()).map(|path| Written(path.to_owned())).collect();
    missing.reverse();
    missing
}

fn make_all(root: &Path, directories: &[Written]) -> io::Result<()> {
    for Written(path) in directories {
        let place = root.join(path);
        in_parent(&place, || fs::create_dir(&place))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Does something to an entry and puts the modification time of its directory back.
fn in_parent(place: &Path, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let parent = place.parent().unwrap_or(place);
    let opened = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    stubs::keeping_times(opened.as_fd(), || {
        change().map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
    })?;
    Ok(())
}

/// Renames, without a trace in the times of the directories.
fn renamed(from: &Path, to: &Path) -> io::Result<()> {
    in_parent(from, || in_parent(to, || fs::rename(from, to)))
}

fn fill(place: &Path, source: &MountSource, mode: u32, sockets: &mut Sockets) -> io::Result<Back> {
    match source {
        MountSource::Tmpfs { .. } => {
            in_parent(place, || fs::create_dir(place))?;
            // Not the group's of a set-group-ID directory.
            chown(place, Some(0), Some(0))?;
            fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
            Ok(Back::Nowhere)
        }
        MountSource::File { content, mode, uid, gid } => {
            in_parent(place, || write_secret(place, content.reveal()))?;
            chown(place, Some(*uid), Some(*gid))?;
            fs::set_permissions(place, fs::Permissions::from_mode(*mode))?;
            Ok(Back::Nowhere)
        }
        MountSource::Socket { server, mode, uid, gid } => {
            let (Some(directory), Some(name)) = (place.parent(), place.file_name()) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let listen = || sockets.listen(directory, name, server, |path| sockets::give(path, *mode, *uid, *gid));
            in_parent(place, listen).map(|()| Back::Nowhere)
        }
        MountSource::Bind { path, read_only: true } => in_parent(place, || copy(path, place)).map(|()| Back::Nowhere),
        MountSource::Bind { path, read_only: false } => writable(place, path),
    }
}

/// Never readable for others, not even before the owner is set.
fn write_secret(place: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
    io::Write::write_all(&mut file, content)
}

fn writable(place: &Path, source: &Path) -> io::Result<Back> {
    let source = fs::canonicalize(source)?;
    match renamed(&source, place) {
        Ok(()) => Ok(Back::Move(Written(source))),
        // On a volume, or in a layer of the container's image, or a mount.
        Err(error) if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy) => {
            in_parent(place, || copy(&source, place))?;
            let returns = fs::symlink_metadata(place)?.is_symlink();
            Ok(if returns { Back::Nowhere } else { Back::Copy(Written(source)) })
        }
        Err(error) => Err(error),
    }
}

/// Copies a file or a whole directory with owners, modes and times. A socket cannot be copied: the step gets a link to it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let looks = fs::metadata(from)?;
    if looks.is_dir() {
        return copy_directory(from, to);
    }
    if looks.file_type().is_socket() {
        return symlink(from, to);
    }
    fs::copy(from, to)?;
    chown(to, Some(looks.uid()), Some(looks.gid()))?;
    fs::set_permissions(to, looks.permissions())?;
    let times = fs::FileTimes::new().set_modified(looks.modified()?);
    fs::File::open(to)?.set_times(times)
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    let to = Tree::create(to, None).map_err(io::Error::other)?;
    copy_into(from, &to)
}

fn copy_into(from: &Path, empty: &Tree) -> io::Result<()> {
    let from = Tree::open(from, None).map_err(io::Error::other)?;
    rootfs::commit::clone_tree(&from, empty).map_err(io::Error::other)
}

fn undo_one(stage: &Path, placed: &Placed, covered: &Path) -> io::Result<()> {
    let place = stage.join(&placed.target);
    // The step may have removed the directory, or put a link in its place: then there is nothing to clear.
    let reachable = stubs::is_below(stage, placed.target.parent().unwrap_or(Path::new("")))?;
    if reachable {
        give_back(&place, &placed.back)?;
        if placed.covers && covered.symlink_metadata().is_ok() {
            renamed(covered, &place)?;
        }
    }
    remove(covered)?;
    let made: Vec<PathBuf> = placed.made.iter().rev().map(|Written(path)| path.clone()).collect();
    stubs::remove(stage, &made).map_err(io::Error::other)
}

fn give_back(place: &Path, back: &Back) -> io::Result<()> {
    if place.symlink_metadata().is_err() {
        // A cache has to be there next time, even when the step has removed it.
        return match back {
            Back::Move(Written(source)) if source.symlink_metadata().is_err() => fs::create_dir(source),
            _ => Ok(()),
        };
    }
    match back {
        Back::Nothing => Ok(()),
        Back::Nowhere => in_parent(place, || remove(place)),
        Back::Move(Written(source)) if source.symlink_metadata().is_err() => renamed(place, source),
        Back::Move(_) => in_parent(place, || remove(place)),
        Back::Copy(Written(source)) => {
            replace(source, place)?;
            in_parent(place, || remove(place))
        }
    }
}

/// Makes the source what has become of its copy.
fn replace(source: &Path, copied: &Path) -> io::Result<()> {
    if !copied.is_dir() {
        return copy(copied, source);
    }
    // The directory itself may be a mount, so only what is in it is exchanged.
    for entry in fs::read_dir(source)? {
        remove(&entry?.path())?;
    }
    copy_into(copied, &Tree::open(source, None).map_err(io::Error::other)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(looks) if looks.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}
