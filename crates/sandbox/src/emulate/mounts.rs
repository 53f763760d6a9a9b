//! What is mapped over the rootfs for a step: /proc, /dev, /sys, hosts and resolv.conf, and what was asked for.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootfs::Tree;
use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::World;
use super::ids::Ids;
use super::place::{Dir, Mapped, Mounted, Node, Spot, id_of, lock, look, read_link, type_of};
use super::tasks::{State, View};
use crate::sockets::Sockets;
use crate::{Mount, MountSource, Process, SandboxError, files, stubs, sys};

/// Devices of every container, by the builder's own.
pub const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "ptmx"];

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

/// Mount points that will have to be made in the rootfs.
pub fn stubs(rootfs: &Tree, mounts: &[Mount]) -> Result<Vec<PathBuf>, SandboxError> {
    let targets = mounts.iter().map(|mount| mount.target.as_path());
    stubs::missing(rootfs, targets.chain(files::TARGETS.iter().map(Path::new)))
}

/// Makes every socket of `mounts` in the step's scratch directory; the mounts with those sockets bound. They are listened at as
/// long as the second value is there, by this process: it knows what the step's supervisor is not to know.
pub fn with_sockets(mounts: &[Mount], scratch: &Path) -> Result<(Vec<Mount>, Sockets), SandboxError> {
    let mut sockets = Sockets::default();
    let mut bind = |(index, mount): (usize, &Mount)| {
        let MountSource::Socket { server, mode, uid, gid } = &mount.source else { return Ok(mount.clone()) };
        let path = scratch.join(format!("socket-{index}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let name = Path::new("socket");
        sockets.listen(&path, name.as_os_str(), server, |_| Ok(()))?;
        let table = scratch.join(format!("socket-{index}.table"));
        let tree = Tree::open(&path, Some(&table)).map_err(io::Error::other)?;
        tree.set_owner(name, *uid, *gid).and_then(|()| tree.set_mode(name, *mode)).map_err(io::Error::other)?;
        let source = MountSource::Bind { path: path.join(name), read_only: false };
        Ok(Mount { target: mount.target.clone(), source, tree: Some(Arc::new(tree)) })
    };
    let bound = mounts.iter().enumerate().map(|(index, mount)| {
        bind((index, mount)).map_err(|error: io::Error| SandboxError::Mount {
            target: mount.target.clone(),
            reason: format!("could not make a socket: {}", sys::plain(&error)),
        })
    });
    let bound = bound.collect::<Result<_, _>>()?;
    Ok((bound, sockets))
}

/// Maps everything.
pub fn arrange(
    world: &World,
    rootfs: &Tree,
    process: &Process,
    mounts: &[Mount],
    scratch: &Path,
) -> Result<(), SandboxError> {
    let arranging = Arranging { world, scratch, view: view(world) };
    for name in ["dev", "proc", "sys"] {
        if rootfs.stat(Path::new(name))?.is_none() {
            rootfs.make_dir(Path::new(name), 0o755)?;
        }
    }
    arranging.system(process).map_err(|(target, error)| failed(&target, &error))?;
    for (index, mount) in mounts.iter().enumerate() {
        let target = &mount.target;
        if !target.has_root() || target.file_name().is_none() || target.starts_with("/proc") {
            let reason = "the target is not an absolute path below `/`, or inside `/proc`".into();
            return Err(SandboxError::MountPoint { target: target.clone(), reason });
        }
        // What is wrong with a mount point is so again.
        let why = |error| match kind_of(&mount.source).map(|kind| arranging.point(target, kind, 40)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Other || stubs::can_be_nowhere(&error) => {
                SandboxError::MountPoint { target: target.clone(), reason: sys::plain(&error) }
            }
            _ => failed(target, &error),
        };
        arranging.one(index, mount).map_err(why)?;
    }
    Ok(())
}

fn failed(target: &Path, error: &io::Error) -> SandboxError {
    SandboxError::Mount { target: target.to_owned(), reason: sys::plain(error) }
}

fn kind_of(source: &MountSource) -> io::Result<Kind> {
    Ok(match source {
        MountSource::Bind { path, .. } if !type_of(&look(open_source(path)?.as_fd())?).is_dir() => Kind::File,
        MountSource::Bind { .. } | MountSource::Tmpfs { .. } => Kind::Directory,
        MountSource::File { .. } | MountSource::Socket { .. } => Kind::File,
    })
}

fn view(world: &World) -> View {
    let root = world.root.clone();
    let cwd = Node::Dir(root.clone());
    let state = State {
        ids: Ids::root(),
        umask: 0o022,
        cwd,
        root,
        exe: Arc::from([]),
        program: None,
        guarded: false,
        gains_nothing: false,
        is_filtered: false,
        programs: 0,
    };
    View { state: Arc::new(state), thread: 0 }
}

struct Arranging<'w> {
    world: &'w World,
    scratch: &'w Path,
    view: View,
}

impl Arranging<'_> {
    fn system(&self, process: &Process) -> Result<(), (PathBuf, io::Error)> {
        let at = |target: &'static str| move |error: io::Error| (PathBuf::from(target), error);
        self.mount(Path::new("/proc"), Kind::Directory, "proc", |_, _| Ok(Mounted::Proc)).map_err(at("/proc"))?;
        self.directory(Path::new("/sys"), Path::new("/sys"), "sysfs", true, None).map_err(at("/sys"))?;
        self.hide().map_err(at("/sys"))?;
        self.devices().map_err(at("/dev"))?;
        let hosts = files::hosts(process, &process.hostname);
        for (target, content) in [("/etc/resolv.conf", files::resolv_conf()), ("/etc/hosts", hosts)] {
            let file = self.scratch.join(Path::new(target).file_name().unwrap_or_default());
            fs::write(&file, content)
                .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)))
                .and_then(|()| self.file(Path::new(target), &file, false, None))
                .map_err(at(target))?;
        }
        Ok(())
    }

    /// Puts empty directories over what containers hide.
    fn hide(&self) -> io::Result<()> {
        let empty = self.scratch.join("empty");
        fs::DirBuilder::new().mode(0o755).create(&empty)?;
        for hidden in ["/sys/firmware", "/sys/devices/virtual/powercap"] {
            if Path::new(hidden).is_dir() {
                self.directory(Path::new(hidden), &empty, "tmpfs", true, None)?;
            }
        }
        Ok(())
    }

    fn devices(&self) -> io::Result<()> {
        let dev = self.scratch.join("dev");
        fs::DirBuilder::new().mode(0o755).create(&dev)?;
        for (name, target) in DEVICE_LINKS {
            symlink(target, dev.join(name))?;
        }
        for (name, mode) in [("shm", 0o1777), ("mqueue", 0o1777)] {
            fs::DirBuilder::new().create(dev.join(name))?;
            fs::set_permissions(dev.join(name), fs::Permissions::from_mode(mode))?;
        }
        let tree = Tree::open(&dev, Some(&self.scratch.join("dev.table"))).map_err(io::Error::other)?;
        self.directory(Path::new("/dev"), &dev, "tmpfs", false, Some(Arc::new(tree)))?;
        for name in DEVICES {
            let host = Path::new("/dev").join(name);
            match self.file(&host, &host, false, None) {
                // The container has no such device either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        if Path::new("/dev/pts").is_dir() {
            self.directory(Path::new("/dev/pts"), Path::new("/dev/pts"), "devpts", false, None)?;
        }
        Ok(())
    }

    fn one(&self, index: usize, mount: &Mount) -> io::Result<()> {
        match &mount.source {
            MountSource::Bind { path, read_only } => {
                if !type_of(&look(open_source(path)?.as_fd())?).is_dir() {
                    return self.file(&mount.target, path, *read_only, mount.tree.clone());
                }
                self.directory(&mount.target, path, "bind", *read_only, mount.tree.clone())
            }
            MountSource::Tmpfs { .. } => {
                let path = self.scratch.join(format!("mount-{index}"));
                fs::DirBuilder::new().mode(0o700).create(&path)?;
                let table = self.scratch.join(format!("mount-{index}.table"));
                let tree = Tree::open(&path, Some(&table)).map_err(io::Error::other)?;
                self.look_like_covered(&mount.target, &tree)?;
                self.directory(&mount.target, &path, "tmpfs", false, Some(Arc::new(tree)))
            }
            MountSource::File { content, mode, uid, gid } => {
                let file = in_memory(content.reveal())?;
                let id = id_of(&look(file.as_fd())?);
                let looks = Some((*mode, *uid, *gid));
                self.mapped(&mount.target, |shown| Ok(Mapped { file, shown, read_only: true, looks, tree: None, id }))
            }
            MountSource::Socket { .. } => Err(io::Error::other("nobody listens at the socket")),
        }
    }

    /// Gives a new directory the mode of the one that it will cover, as runc does. It is root's, as every new file system.
    fn look_like_covered(&self, target: &Path, tree: &Tree) -> io::Result<()> {
        let root = Node::Dir(self.view.root.clone());
        let walked = self.world.places.walk(&self.view, &root, target.as_os_str().as_bytes(), true);
        if !walked.is_ok_and(|walked| walked.found.is_some()) {
            return tree.set_mode(Path::new(""), crate::NEW_TMPFS_MODE).map_err(io::Error::other);
        }
        let (above, name) = self.point(target, Kind::Directory, 40)?;
        let Some(covered) = self.world.places.seen_at(&above, &name)? else { return Ok(()) };
        tree.set_mode(Path::new(""), u32::from(covered.stx_mode) & 0o7777).map_err(io::Error::other)
    }

    /// Maps a directory of the host.
    fn directory(
        &self,
        target: &Path,
        host: &Path,
        kind: &str,
        read_only: bool,
        tree: Option<Arc<Tree>>,
    ) -> io::Result<()> {
        // What other builds may change at the same time is not remembered.
        let shared = kind == "bind" || kind == "devpts" || kind == "sysfs";
        self.mount(target, Kind::Directory, kind, |above, shown| {
            let root =
                self.world.places.map(open_source(host)?, shown, Some(above.clone()), read_only, shared, tree)?;
            Ok(Mounted::Dir(root))
        })
    }

    fn file(&self, target: &Path, host: &Path, read_only: bool, tree: Option<Arc<Tree>>) -> io::Result<()> {
        let file = open_source(host)?;
        let id = id_of(&look(file.as_fd())?);
        self.mapped(target, |shown| Ok(Mapped { file, shown, read_only, looks: None, tree, id }))
    }

    fn mapped(&self, target: &Path, make: impl FnOnce(Vec<u8>) -> rustix::io::Result<Mapped>) -> io::Result<()> {
        self.mount(target, Kind::File, "bind", |_, shown| {
            let mapped = Arc::new(make(shown)?);
            self.world.places.add_file(mapped.clone());
            Ok(Mounted::File(mapped))
        })
    }

    fn mount(
        &self,
        target: &Path,
        kind: Kind,
        name: &str,
        make: impl FnOnce(&Arc<Dir>, Vec<u8>) -> rustix::io::Result<Mounted>,
    ) -> io::Result<()> {
        let (dir, last) = self.point(target, kind, 40)?;
        let mut shown = self.world.places.path_of(&Node::Dir(dir.clone()))?;
        if shown != b"/" {
            shown.push(b'/');
        }
        shown.extend_from_slice(&last);
        let line = format!("{name} {} {name} rw,nosuid,nodev 0 0\n", String::from_utf8_lossy(&shown));
        let mounted = make(&dir, shown)?;
        self.world.places.mount(&dir, &last, mounted);
        if kind == Kind::Directory {
            lock(&self.world.mount_lines).push(line);
        }
        Ok(())
    }

    /// The directory and name at which something is to be mapped; what is missing is made.
    fn point(&self, target: &Path, kind: Kind, links: u32) -> io::Result<(Arc<Dir>, Vec<u8>)> {
        let (Some(above), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::Error::other("the target is `/`"));
        };
        let Node::Dir(dir) = self.made(above, links)? else {
            return Err(io::Error::other("the target is inside `/proc`"));
        };
        let name = name.as_bytes().to_vec();
        if self.world.places.is_mounted(&dir, &name) {
            return Ok((dir, name));
        }
        let found = match rustix::fs::statat(&dir.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => rustix::fs::FileType::from_raw_mode(found.st_mode),
            // The kernel would say so of a mount. The directory itself is another's, and can be written to.
            Err(Errno::NOENT) if dir.area.read_only => return Err(Errno::ROFS.into()),
            Err(Errno::NOENT) => {
                make(&dir, &name, kind)?;
                return Ok((dir, name));
            }
            Err(error) => return Err(error.into()),
        };
        match (found.is_symlink(), found.is_dir(), kind) {
            (true, _, _) => {
                let left = links.checked_sub(1).ok_or(Errno::LOOP)?;
                let link = read_link(dir.fd.as_fd(), &name)?;
                let path = above.join(Path::new(std::ffi::OsStr::from_bytes(&link)));
                self.point(&lexical(&path), kind, left)
            }
            (_, false, Kind::Directory) => Err(io::Error::other("cannot mount a directory on a file")),
            (_, true, Kind::File) => Err(io::Error::other("cannot mount a file on a directory")),
            _ => Ok((dir, name)),
        }
    }

    /// The directory at a path, made where it is missing.
    fn made(&self, path: &Path, links: u32) -> io::Result<Node> {
        let places = &self.world.places;
        let root = Node::Dir(self.view.root.clone());
        match places.walk(&self.view, &root, path.as_os_str().as_bytes(), true) {
            Ok(target) if target.found.is_some() => {
                let is_dir = target.found.as_ref().is_some_and(|found| type_of(found).is_dir());
                match target.spot {
                    Spot::Node(node) => Ok(node),
                    Spot::Entry(dir, name) if is_dir => {
                        let below = places.walk_into(&dir, name.to_bytes())?.ok_or(Errno::NOTDIR)?;
                        Ok(Node::Dir(below))
                    }
                    _ => Err(Errno::NOTDIR.into()),
                }
            }
            Ok(_) | Err(Errno::NOENT) => {
                self.point(path, Kind::Directory, links)?;
                let left = links.checked_sub(1).ok_or(Errno::LOOP)?;
                self.made(path, left)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens what is to be mapped. Its path was found by the builder, and another step that shares a cache can have put a link to
/// other files there since: none is followed any more. Devices of a container may be links.
pub fn open_source(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let how = if path.starts_with("/dev") { ResolveFlags::empty() } else { ResolveFlags::NO_SYMLINKS };
    match rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), how) {
        // Before Linux 5.6.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()),
        result => result,
    }
}

/// `..` and `.` taken out; the directories before them are known to be no links here.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::Normal(name) => plain.push(name),
            _ => {}
        }
    }
    plain
}

/// Makes a mount point. The times of the directory stay.
fn make(dir: &Dir, name: &[u8], kind: Kind) -> io::Result<()> {
    Ok(stubs::keeping_times(dir.fd.as_fd(), || match kind {
        Kind::Directory => rustix::fs::mkdirat(&dir.fd, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&dir.fd, name, new, Mode::from_raw_mode(0o644)).map(drop)
        }
    })?)
}

fn in_memory(content: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("file", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut writer = fs::File::from(file);
    writer.write_all(content)?;
    let file = OwnedFd::from(writer);
    let seals = rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::GROW | rustix::fs::SealFlags::SHRINK;
    rustix::fs::fcntl_add_seals(&file, seals | rustix::fs::SealFlags::SEAL)?;
    Ok(file)
}
