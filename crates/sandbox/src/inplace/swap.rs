//! Swapping a stage into `/` and back, by rename(2).
//!
//! `/` belongs to one of two sides at a time, the builder's or the stage's; the other's entries wait in its directory (the
//! stash, or the stage's directory). [`Swap::take`] moves what is in `/` to a side, [`Swap::put`] moves a side into `/`. A
//! directory that cannot be moved is shared: its entries are exchanged one level down, its mode, owner and times are those of
//! the side that has `/`, and the side that has not keeps a directory of the same name as a placeholder for them. Shared are:
//!
//! - parents of what must stay ([`Swap::keep`]), where the stage has a directory of that name; else they stay altogether;
//! - directories of the container's image (overlayfs answers EXDEV) in which something is mounted. Without a mount such a
//!   directory is made anew on the builder's side, which can be moved from then on.
//!
//! Single files of a stage are not moved but copied ([`super::lend`] says why).
//!
//! Every step is idempotent, and what has been begun is on disk before it begins: [`recover`] finishes it. After that all is where
//! it was; times of shared directories are those of the kill.
//!
//! Going back takes no space, for the step can have filled the disk: phases are passed by removing files, and entries that were
//! there go to where they were. What it can take all the same (a directory that has to grow, a placeholder for what the step has
//! put into a directory that is not the stage's) is set aside before ([`super::reserve`]). If that is not enough, the stage makes
//! room: the builder's files come first, and the build fails.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use rootfs::Tree;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use super::lend::{Lent, can_be_lent, lend};
use super::mounts::Mounted;
use super::reserve::{Reserve, is_no_space};
use crate::sockets::Sockets;
use crate::wire::Written;
use crate::{Mount, SandboxError};

/// Always there and never a stage's: mounts of the container.
const SYSTEM: &[&str] = &["/proc", "/sys", "/dev"];

/// Mounts of the container where what a step leaves is of no interest, so that a stage may have such a directory.
const FLEETING: &[&str] = &["/tmp", "/run", "/var/tmp", "/var/run", "/run/secrets", "/var/run/secrets"];

/// How far it has got; on disk, so that a killed builder can be recovered from. The record says whether it is the first; each of
/// [`MARKS`] that is not there any more stands for a later one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Mounts are being put into the stage.
    Mounting,
    /// The builder's entries are being moved to the stash; none of the stage's is in `/`.
    Taking,
    /// None of the builder's is in `/`.
    Placed,
    /// None of the stage's is in `/`; the builder's come back.
    Restoring,
}

/// To remove a file takes no space, other than to write another phase down.
const MARKS: [&str; 2] = ["not-placed", "not-restoring"];

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    is_mounting: bool,
    #[serde(with = "crate::wire")]
    stage: PathBuf,
    /// What stays in `/`.
    keep: Vec<Written>,
    mounted: Mounted,
}

/// A stage that is in `/`. Dropping it takes it out.
pub struct Swap<'t> {
    /// Whose files they are, where its table counts.
    tree: Option<&'t Tree>,
    record: Record,
    phase: Phase,
    state: PathBuf,
    mounts: BTreeSet<PathBuf>,
    /// Copies that the step has instead of the files themselves.
    lent: RefCell<BTreeMap<PathBuf, Lent>>,
    /// What is in the container's volumes that the step sees.
    seen: Vec<(PathBuf, Vec<OsString>)>,
    in_root: bool,
    /// From then on what fails does not keep the rest from being done.
    is_going_back: bool,
    /// The first of what has failed on the way back.
    failed: RefCell<Option<SandboxError>>,
    reserve: Reserve,
}

/// Which side's directory entries are moved to or from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Builder,
    Stage,
}

impl<'t> Swap<'t> {
    /// Puts `mounts` into the stage `tree`, which is the directory `stage`, moves the builder's entries of `/` out of the way and
    /// those of the stage in.
    pub fn put_in(
        tree: &'t Tree,
        stage: &Path,
        state: &Path,
        keep: &[PathBuf],
        mounts: &[Mount],
        sockets: &mut Sockets,
    ) -> Result<Swap<'t>, SandboxError> {
        let keep = keep.iter().cloned().map(Written).collect();
        let record = Record { is_mounting: true, stage: stage.to_owned(), keep, mounted: Mounted::new(state)? };
        let mut swap = Swap::of(Some(tree), record, Phase::Mounting, state)?;
        let entries = swap.mounts.iter().map(PathBuf::as_path).chain(swap.keep());
        // A placeholder for each directory above them, at most.
        swap.reserve = Reserve::make(state, entries.map(|path| path.components().count()).sum())?;
        for mark in MARKS.map(|mark| state.join(mark)) {
            fs::write(&mark, "").map_err(setup("could not write", &mark))?;
        }
        swap.in_root = true;
        swap.mount(mounts, sockets)?;
        swap.record.is_mounting = false;
        write_record(state, &swap.record)?;
        swap.phase = Phase::Taking;
        swap.take(Side::Builder, Path::new("/"))?;
        swap.enter_phase(Phase::Placed)?;
        swap.put(Side::Stage, Path::new("/"))?;
        swap.seen = swap.volumes();
        Ok(swap)
    }

    fn mount(&mut self, mounts: &[Mount], sockets: &mut Sockets) -> Result<(), SandboxError> {
        let Some(tree) = self.tree else { return Ok(()) };
        let (state, record) = (&self.state, &mut self.record);
        for index in 0..mounts.len() {
            let mut planned = record.clone();
            record.mounted.put(tree, mounts, index, sockets, &mut |mounted| {
                planned.mounted = mounted.clone();
                write_record(state, &planned)
            })?;
        }
        Ok(())
    }

    /// Directories mounted in the container where the step sees them, with their entries.
    fn volumes(&self) -> Vec<(PathBuf, Vec<OsString>)> {
        let ignored = SYSTEM.iter().chain(FLEETING).map(Path::new).collect::<Vec<_>>();
        let ours = |path: &Path| {
            ignored.iter().any(|ignored| path.starts_with(ignored)) || self.keep().any(|kept| path.starts_with(kept))
        };
        let visible = self.mounts.iter().filter(|path| !ours(path) && path.is_dir());
        visible.filter_map(|path| Some((path.clone(), entries(path).ok()?))).collect()
    }

    /// Files that the step has put into a volume of the container, where no layer gets them from.
    pub fn left_in_mounts(&self) -> Option<SandboxError> {
        self.seen.iter().find_map(|(volume, before)| {
            let new = entries(volume).ok()?.into_iter().find(|entry| !before.contains(entry))?;
            Some(hidden(volume, &format!("the step wrote `{}` to it, which no layer can have", new.to_string_lossy())))
        })
    }

    fn of(tree: Option<&'t Tree>, record: Record, phase: Phase, state: &Path) -> Result<Swap<'t>, SandboxError> {
        Ok(Swap {
            tree,
            record,
            phase,
            state: state.to_owned(),
            mounts: container_mounts()?,
            lent: RefCell::default(),
            seen: Vec::new(),
            in_root: false,
            is_going_back: false,
            failed: RefCell::default(),
            reserve: Reserve::found(state),
        })
    }

    /// Moves the stage back to its directory and the builder's entries back to `/`, and undoes the stage's mounts.
    pub fn take_out(mut self) -> Result<(), SandboxError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), SandboxError> {
        (self.in_root, self.is_going_back) = (false, true);
        if self.phase == Phase::Placed {
            self.goes_on(self.take(Side::Stage, Path::new("/")))?;
        }
        if self.phase != Phase::Mounting {
            self.enter_phase(Phase::Restoring)?;
            let failed_before = self.failed.take();
            self.goes_on(self.put(Side::Builder, Path::new("/")))?;
            if let Some(error) = self.failed.take() {
                // The record stays: the next builder tries again.
                return Err(failed_before.unwrap_or(error));
            }
            *self.failed.borrow_mut() = failed_before;
        }
        let undone = match self.record.mounted.undo(&self.record.stage) {
            Err(error) if lacks_space(&error) && self.reserve.release() => {
                self.record.mounted.undo(&self.record.stage).map_err(|_| error)
            }
            undone => undone,
        };
        self.goes_on(undone)?;
        let file = record_file(&self.state);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.goes_on(Err(setup("could not remove", &file)(error)))?;
            }
            _ => {}
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// On the way back an error is kept for the end, and the rest is done.
    fn goes_on(&self, done: Result<(), SandboxError>) -> Result<(), SandboxError> {
        match done {
            Err(error) if self.is_going_back => {
                self.failed.borrow_mut().get_or_insert(error);
                Ok(())
            }
            done => done,
        }
    }

    /// Does something, on the way back with what was set aside for it if there is no space.
    fn with_room<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match act() {
            Err(error) if self.is_going_back && is_no_space(&error) && self.reserve.release() => act(),
            done => done,
        }
    }

    fn enter_phase(&mut self, phase: Phase) -> Result<(), SandboxError> {
        self.phase = phase;
        let passed = if phase == Phase::Placed { &MARKS[..1] } else { &MARKS[..] };
        for mark in passed.iter().map(|mark| self.state.join(mark)) {
            match fs::remove_file(&mark) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.goes_on(Err(setup("could not remove", &mark)(error)))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a side waits while it has not `/`.
    fn side(&self, side: Side) -> PathBuf {
        match side {
            Side::Builder => self.state.join("stash"),
            Side::Stage => self.record.stage.clone(),
        }
    }

    fn waiting(&self, side: Side, path: &Path) -> PathBuf {
        self.side(side).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether `path` itself stays in `/` whatever happens.
    fn stays(&self, path: &Path) -> bool {
        SYSTEM.iter().any(|system| path == Path::new(system))
            || self.keep().any(|kept| kept == path)
            || self.mounts.contains(path)
            || (self.is_above_kept(path) && !self.shares(path))
    }

    fn keep(&self) -> impl Iterator<Item = &Path> {
        self.record.keep.iter().map(|Written(kept)| kept.as_path())
    }

    fn is_above_kept(&self, path: &Path) -> bool {
        self.keep().any(|kept| kept.starts_with(path) && kept != path)
    }

    /// Whether a directory above something kept is the stage's as well. If not, all that is in it may stay. It is so when the
    /// stage has it; from then on the stash has its placeholder.
    fn shares(&self, path: &Path) -> bool {
        let side = if self.phase == Phase::Taking { Side::Stage } else { Side::Builder };
        fs::symlink_metadata(self.waiting(side, path)).is_ok_and(|looks| looks.is_dir())
    }

    /// Moves the entries of the directory `path` of `/` to a side.
    fn take(&self, side: Side, path: &Path) -> Result<(), SandboxError> {
        let place = self.waiting(side, path);
        let looks = fs::symlink_metadata(path).map_err(setup("could not look at", path))?;
        let mut taken: Vec<PathBuf> = entries(path)?.iter().map(|entry| path.join(entry)).collect();
        taken.retain(|path| !self.stays(path));
        // A directory of the container's image is no business of a stage that neither has it nor put anything there.
        if side == Side::Stage && taken.is_empty() && fs::symlink_metadata(&place).is_err() {
            return Ok(());
        }
        let made = match self.with_room(|| make_placeholder(&place, &looks, &self.state)) {
            Err(error) if self.is_going_back && side == Side::Stage => return self.make_room(&taken, &place, error),
            made => made.map_err(setup("could not make", &place))?,
        };
        for path in taken {
            self.goes_on(self.take_entry(side, &path))?;
        }
        if side == Side::Stage {
            self.goes_on(self.drop_removed(path))?;
        }
        // Nor is one in which only such were.
        if made && side == Side::Stage && fs::remove_dir(&place).is_ok() {
            return Ok(());
        }
        self.with_room(|| dress(&place, &looks)).map_err(setup("could not set owner, mode and times of", &place))
    }

    fn take_entry(&self, side: Side, path: &Path) -> Result<(), SandboxError> {
        if side == Side::Stage && self.is_as_lent(path)? {
            return fs::remove_file(path).map_err(setup("could not remove", path));
        }
        if !self.is_above_kept(path) {
            match self.with_room(|| fs::rename(path, self.waiting(side, path))) {
                Ok(()) => return Ok(()),
                // A mount that came into being after the mounts were read.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(()),
                Err(error) if is_shared(&error) && path.is_dir() && !path.is_symlink() => {}
                Err(error) if self.is_going_back && side == Side::Stage => {
                    return self.make_room(&[path.to_owned()], &self.waiting(side, path), error);
                }
                Err(error) => return Err(setup("could not move out of `/`:", path)(error)),
            }
        }
        self.take(side, path)?;
        if !self.is_above_kept(path) {
            // Stays when something is mounted in it; else its twin on the side can be moved back as a whole.
            let _ = fs::remove_dir(path);
        }
        Ok(())
    }

    /// Removes what a step has in `/` and what cannot be moved to its stage: the builder's files come back, and the build fails.
    fn make_room(&self, stage: &[PathBuf], to: &Path, error: io::Error) -> Result<(), SandboxError> {
        for path in stage {
            let _ = self.discard(path);
        }
        // After a kill nobody asks for the stage.
        if self.tree.is_some() { Err(setup("could not move out of `/` to", to)(error)) } else { Ok(()) }
    }

    /// Removes what is at `path` in `/`, and nothing that stays there.
    fn discard(&self, path: &Path) -> io::Result<()> {
        if self.stays(path) {
            return Ok(());
        }
        if !fs::symlink_metadata(path)?.is_dir() {
            return fs::remove_file(path);
        }
        if !self.is_above_kept(path) && !self.mounts.iter().any(|mount| mount.starts_with(path)) {
            return fs::remove_dir_all(path);
        }
        for entry in fs::read_dir(path)? {
            let _ = self.discard(&entry?.path());
        }
        fs::remove_dir(path)
    }

    /// Moves the entries that a side has for the directory `path` into `/`.
    fn put(&self, side: Side, path: &Path) -> Result<(), SandboxError> {
        let place = self.waiting(side, path);
        let looks = match fs::symlink_metadata(&place) {
            // Nothing had been moved yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && side == Side::Builder => return Ok(()),
            looks => looks.map_err(setup("could not look at", &place))?,
        };
        for entry in entries(&place)? {
            self.goes_on(self.put_entry(side, &path.join(&entry)))?;
        }
        // Before the placeholder goes, which knows how it looks.
        self.goes_on(
            self.with_room(|| dress(path, &looks)).map_err(setup("could not set owner, mode and times of", path)),
        )?;
        match side {
            Side::Builder => fs::remove_dir(&place).map_err(setup("could not remove", &place)),
            Side::Stage => Ok(()),
        }
    }

    fn put_entry(&self, side: Side, path: &Path) -> Result<(), SandboxError> {
        let from = self.waiting(side, path);
        let there = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.put_new(side, &from, path),
            there => there.map_err(setup("could not look at", path))?,
        };
        let own = fs::symlink_metadata(&from).map_err(setup("could not look at", &from))?;
        if side == Side::Stage && self.stays(path) {
            return self.check_hidden(path, &from, &own, &there);
        }
        match (own.is_dir() && there.is_dir(), side) {
            (true, _) => self.put(side, path),
            (false, Side::Stage) => Err(hidden(path, "is of another type in the stage")),
            (false, Side::Builder) => {
                // Something of the stage that could not be moved.
                if there.is_dir() {
                    self.discard(path).map_err(setup("could not remove", path))?;
                }
                self.put_new(side, &from, path)
            }
        }
    }

    fn put_new(&self, side: Side, from: &Path, path: &Path) -> Result<(), SandboxError> {
        let looks = fs::symlink_metadata(from).map_err(setup("could not look at", from))?;
        if side == Side::Builder || !can_be_lent(&looks) {
            return self.with_room(|| fs::rename(from, path)).map_err(setup("could not move into `/`:", path));
        }
        let lent = lend(from, path, &looks).and_then(|lent| self.pretend_alike(from, path).map(|()| lent));
        if lent.is_err() {
            // Half a copy must not come to be the file.
            let _ = fs::remove_file(path);
        }
        self.lent.borrow_mut().insert(path.to_owned(), lent.map_err(setup("could not copy into `/`:", path))?);
        Ok(())
    }

    /// The copy may come to stand for the file: a placeholder of a device, say.
    fn pretend_alike(&self, from: &Path, copy: &Path) -> io::Result<()> {
        let Some(tree) = self.tree.filter(|tree| tree.pretends()) else { return Ok(()) };
        let open =
            |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        tree.pretend_alike(open(from)?.as_fd(), open(copy)?.as_fd())
    }

    /// Whether the copy at `path` is as the step got it. If it is not, the file itself makes room for it.
    fn is_as_lent(&self, path: &Path) -> Result<bool, SandboxError> {
        let Some(lent) = self.lent.borrow_mut().remove(path) else { return Ok(false) };
        let now = fs::symlink_metadata(path).map_err(setup("could not look at", path))?;
        if Lent::of(&now) == lent {
            return Ok(true);
        }
        let own = self.waiting(Side::Stage, path);
        fs::remove_file(&own).map_err(setup("could not remove", &own)).map(|()| false)
    }

    /// Removes from the stage what was lent in this directory and is not there any more.
    fn drop_removed(&self, directory: &Path) -> Result<(), SandboxError> {
        let mut lent = self.lent.borrow_mut();
        let gone: Vec<PathBuf> = lent.keys().filter(|path| path.parent() == Some(directory)).cloned().collect();
        for path in gone {
            lent.remove(&path);
            let own = self.waiting(Side::Stage, &path);
            fs::remove_file(&own).map_err(setup("could not remove", &own))?;
        }
        Ok(())
    }

    /// What the stage has at a place that stays the container's is out of the step's sight. That must not matter.
    fn check_hidden(&self, path: &Path, own: &Path, looks: &Metadata, there: &Metadata) -> Result<(), SandboxError> {
        let listed = |list: &[&str]| list.iter().any(|listed| path == Path::new(listed));
        if listed(SYSTEM) || (!looks.is_dir() && !there.is_dir()) {
            return Ok(());
        }
        match looks.is_dir() && listed(FLEETING) && entries(own)?.is_empty() {
            true => Ok(()),
            false => Err(hidden(path, "is the stage's as well")),
        }
    }
}

impl Drop for Swap<'_> {
    fn drop(&mut self) {
        if self.in_root {
            // On the way out of an error or panic, which says what went wrong first.
            let _ = self.finish();
        }
    }
}

fn hidden(path: &Path, why: &str) -> SandboxError {
    SandboxError::Unsupported {
        backend: "inplace",
        what: format!(
            "`{}` is a mount of this container, or the builder's own, and {why}; mount the volume elsewhere",
            path.display()
        ),
    }
}

fn is_shared(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
    )
}

fn entries(directory: &Path) -> Result<Vec<OsString>, SandboxError> {
    let names = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    names.map_err(setup("could not list", directory))
}

/// True when the directory was not there. A new one has the owner and mode of another from the start: whoever comes after a kill
/// takes them from it.
fn make_placeholder(place: &Path, looks: &Metadata, state: &Path) -> io::Result<bool> {
    if fs::symlink_metadata(place).is_ok() {
        return Ok(false);
    }
    let new = state.join("new");
    match fs::create_dir(&new) {
        // Left by a kill.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let made = dress(&new, looks).and_then(|()| fs::rename(&new, place));
    if made.is_err() {
        let _ = fs::remove_dir(&new);
    }
    made.map(|()| true)
}

/// Gives a directory the owner, mode and times of another.
fn dress(directory: &Path, looks: &Metadata) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: looks.atime(), tv_nsec: looks.atime_nsec() as _ },
        last_modification: Timespec { tv_sec: looks.mtime(), tv_nsec: looks.mtime_nsec() as _ },
    };
    lchown(directory, Some(looks.uid()), Some(looks.gid()))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(looks.mode() & 0o7777))?;
    Ok(rustix::fs::utimensat(CWD, directory, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Where something is mounted in the container, except `/`.
pub fn container_mounts() -> Result<BTreeSet<PathBuf>, SandboxError> {
    let file = "/proc/self/mountinfo";
    fs::read_to_string(file).map(|text| mount_points(&text)).map_err(setup("could not read", file))
}

/// Where something is mounted (proc_pid_mountinfo(5): the fifth field, with octal escapes), except `/`.
fn mount_points(mountinfo: &str) -> BTreeSet<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.filter(|point| point != Path::new("/")).collect()
}

fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        let code = others.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &others[3..];
            }
            _ => bytes.push(*first),
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn setup<P: AsRef<Path>>(action: &'static str, path: P) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Setup { action: format!("{action} `{}`", path.as_ref().display()), source }
}

// ---------------------------------------------------------------------------------------------------------------- record

fn record_file(state: &Path) -> PathBuf {
    state.join("swapped.json")
}

/// Replaces the record in one go: there is the old one or the new one, never half of one.
fn write_record(state: &Path, record: &Record) -> Result<(), SandboxError> {
    let (file, new) = (record_file(state), state.join("swapped.new"));
    serde_json::to_vec(record)
        .map_err(io::Error::from)
        .and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &file))
        .map_err(setup("could not write", &file))
}

/// Whether something is swapped, or half so.
pub fn is_swapped(state: &Path) -> bool {
    record_file(state).exists()
}

/// Finishes what a killed builder had begun: `/` is the builder's again. Its stage is thrown away: nobody asks for it again.
pub fn recover(state: &Path) -> Result<(), SandboxError> {
    let file = record_file(state);
    let text = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(setup("could not read", &file))?,
    };
    let mut record: Record =
        serde_json::from_slice(&text).map_err(io::Error::from).map_err(setup("could not understand", &file))?;
    let is_there = |mark: &str| state.join(mark).exists();
    let phase = match (record.is_mounting, MARKS.map(is_there)) {
        (true, _) => Phase::Mounting,
        (false, [true, _]) => Phase::Taking,
        (false, [false, true]) => Phase::Placed,
        (false, [false, false]) => Phase::Restoring,
    };
    let lost = state.join("lost");
    let reserve = Reserve::found(state);
    if !fs::symlink_metadata(&record.stage).is_ok_and(|looks| looks.is_dir()) {
        let make = || fs::DirBuilder::new().recursive(true).create(&lost);
        let made = match make() {
            Err(error) if is_no_space(&error) && reserve.release() => make(),
            made => made,
        };
        made.map_err(setup("could not make", &lost))?;
        record.stage.clone_from(&lost);
    }
    Swap::of(None, record, phase, state)?.finish()?;
    match fs::remove_dir_all(&lost) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(setup("could not remove", &lost)(error)),
        _ => Ok(()),
    }
}

fn lacks_space(error: &SandboxError) -> bool {
    matches!(error, SandboxError::Setup { source, .. } if is_no_space(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text = "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /a\\040b rw - tmpfs tmpfs rw\n3 1 0:3 / /proc rw - proc proc rw\n";
        let wanted = BTreeSet::from([PathBuf::from("/a b"), PathBuf::from("/proc")]);
        assert_eq!(mount_points(text), wanted);
    }

    #[test]
    fn an_unfinished_escape_is_text() {
        assert_eq!(unescape("a\\04"), Path::new("a\\04"));
        assert_eq!(unescape("\\134"), Path::new("\\"));
    }
}
