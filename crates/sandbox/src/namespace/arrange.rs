//! What init does in its namespaces before the step starts: the mounts, and the change of root.
//!
//! Every target is found with openat2(RESOLVE_IN_ROOT) and mounted on through its descriptor, so that no symbolic link of the
//! rootfs, or of a shared cache mount that another step writes to, leads elsewhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Dev, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::Inside;
use crate::helper::Report;
use crate::sys::{self, attribute};
use crate::{Mount, MountSource, Process, files, stubs};

/// Without these a step could use devices or gain rights through what is mounted for it.
const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Hidden as containerd hides them (`pkg/oci/spec.go` populateDefaultUnixSpec), with moby's additions.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Character devices of every container (OCI runtime-spec `config-linux.md`, «Default Devices»): name, major, minor.
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Size of /dev and /dev/shm, as in runc's example configuration and Docker.
const SIZE_64M: &str = "size=65536k";

/// Makes the place where `process` runs and goes there.
pub fn arrange(inside: &Inside, process: &Process) -> Result<(), Report> {
    // Refused by the filters of some runtimes (Podman's): then the name is the container's.
    match rustix::system::sethostname(process.hostname.as_bytes()) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(Report::setup(format!("could not set the host name `{}`", process.hostname), error)),
    }
    // Stubs of mount points are made with modes that we choose.
    rustix::process::umask(Mode::empty());
    own_mounts(&inside.root)?;
    let root = Root::open(&inside.root)?;
    let scratch = Scratch::mount(&root)?;
    device_files(&root, process.shm_bytes)?;
    system_files(&root)?;
    scratch.put(&root, "/etc/resolv.conf", &inside.resolv_conf)?;
    scratch.put(&root, "/etc/hosts", &files::hosts(process, &files::own_name()))?;
    for mount in &inside.mounts {
        user_mount(&root, &scratch, mount)?;
    }
    scratch.leave()?;
    process_files(&root, inside.pid_namespace)?;
    hide(&root)?;
    change_root(&inside.root)
}

/// Keeps our mounts from the outside and makes the rootfs a mount of its own, on which device nodes mean nothing.
fn own_mounts(root: &Path) -> Result<(), Report> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|error| Report::setup("could not make mounts private", error))?;
    let what = || format!("could not bind the rootfs `{}` on itself", root.display());
    rustix::mount::mount_bind(root, root).map_err(|error| Report::setup(what(), error))?;
    let mounted = open_path(root).map_err(|error| Report::setup(what(), error))?;
    restrict(mounted.as_fd(), attribute::NODEV, false).map_err(|error| Report::setup(what(), error))
}

fn open_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Adds attributes to the mount that `at` is on. Kernels before 5.12 have only the remount of a single mount.
fn restrict(at: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    match sys::set_mount_attributes(at, attributes, recursive) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => remount(at, attributes),
        result => result,
    }
}

fn remount(at: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    // The values of the statvfs flags are those of the mount flags; what is set and locked has to be asked for again.
    const KEPT: u64 =
        libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC | libc::ST_NOATIME | libc::ST_NODIRATIME;
    let now = rustix::fs::fstatvfs(at)?.f_flag.bits() & KEPT;
    let flags = MountFlags::from_bits_retain((now | attributes) as u32) | MountFlags::BIND;
    Ok(rustix::mount::mount_remount(descriptor(at), flags, c"")?)
}

/// A path by which the kernel finds the very file that is open.
fn descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The rootfs with its mounts.
struct Root(OwnedFd);

/// What has to be at a target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

impl Root {
    fn open(path: &Path) -> Result<Root, Report> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, directory, Mode::empty());
        opened
            .map(Root)
            .map_err(|error| Report::setup(format!("could not open the rootfs `{}`", path.display()), error))
    }

    /// Opens what is at `path` in the rootfs, symbolic links followed.
    fn open_at(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// As [`Root::open_at`], and makes what is missing. The times of the directory that it is made in stay as they were.
    fn ensure(&self, path: &Path, kind: Kind, links_left: u32) -> rustix::io::Result<OwnedFd> {
        match self.open_at(path) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NOENT);
        };
        let directory = self.ensure(parent, Kind::Directory, links_left)?;
        if let Ok(link) = rustix::fs::readlinkat(&directory, name, Vec::new()) {
            let left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
            return self.ensure(&parent.join(Path::new(std::ffi::OsStr::from_bytes(link.as_bytes()))), kind, left);
        }
        stubs::keeping_times(directory.as_fd(), || match kind {
            Kind::Directory => rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&directory, name, new, Mode::from_raw_mode(0o644)).map(drop)
            }
        })?;
        self.open_at(path)
    }

    /// A mount point for something of `kind`.
    fn target(&self, path: &Path, kind: Kind) -> Result<OwnedFd, Report> {
        let target = || path.as_os_str().to_owned();
        let fail = |reason: &str| Report::MountPoint { target: target(), reason: reason.to_owned() };
        let explain = |error: Errno| {
            let what = if kind == Kind::Directory { "directory" } else { "file" };
            let error = error.into();
            let reason = format!("could not make the mount point, a {what}: {}", sys::plain(&error));
            match stubs::can_be_nowhere(&error) {
                true => Report::MountPoint { target: target(), reason },
                false => Report::Mount { target: target(), reason },
            }
        };
        // As many links as the kernel follows (`linux/namei.h` MAXSYMLINKS).
        let target = self.ensure(path, kind, 40).map_err(explain)?;
        let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&target).map_err(explain)?.st_mode).is_dir();
        match (kind, is_directory) {
            (Kind::Directory, false) => Err(fail("cannot mount a directory on a file")),
            (Kind::File, true) => Err(fail("cannot mount a file on a directory")),
            _ => Ok(target),
        }
    }

    fn mount(&self, filesystem: &str, path: &str, flags: MountFlags, options: &str) -> Result<(), Report> {
        let target = self.target(Path::new(path), Kind::Directory)?;
        mount_new(filesystem, target.as_fd(), flags, options)
            .map_err(|error| Report::setup(format!("could not mount {filesystem} on `{path}`"), error))
    }

    fn bind(&self, source: &Path, path: &Path, recursive: bool) -> Result<(), Report> {
        let fail = |error: io::Error| Report::Mount {
            target: path.as_os_str().to_owned(),
            reason: format!("could not bind `{}`: {}", source.display(), sys::plain(&error)),
        };
        let is_directory = fs::metadata(source).map_err(fail)?.is_dir();
        let target = self.target(path, if is_directory { Kind::Directory } else { Kind::File })?;
        let at = descriptor(target.as_fd());
        let done = match recursive {
            true => rustix::mount::mount_bind_recursive(source, at),
            false => rustix::mount::mount_bind(source, at),
        };
        done.map_err(|error| fail(error.into()))
    }

    /// Adds attributes to what is mounted on `path`.
    fn restrict(&self, path: &Path, attributes: u64, recursive: bool) -> Result<(), Report> {
        let done = self.open_at(path).map_err(io::Error::from);
        done.and_then(|at| restrict(at.as_fd(), attributes, recursive)).map_err(|error| Report::Mount {
            target: path.as_os_str().to_owned(),
            reason: format!("could not change the flags of the mount: {}", sys::plain(&error)),
        })
    }
}

fn mount_new(filesystem: &str, at: BorrowedFd<'_>, flags: MountFlags, options: &str) -> rustix::io::Result<()> {
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(filesystem, descriptor(at), filesystem, flags, options.as_c_str())
}

/// A tmpfs for what must be nowhere on disk: secrets, hosts, resolv.conf. It is mounted where proc will be, and nobody sees it
/// there any more when proc is; what was bound from it stays.
struct Scratch {
    at: PathBuf,
    _mounted: OwnedFd,
    used: std::cell::Cell<u32>,
}

impl Scratch {
    fn mount(root: &Root) -> Result<Scratch, Report> {
        let fail = |error: Errno| Report::setup("could not mount a tmpfs for secret files", error);
        let target = root.target(Path::new("/proc"), Kind::Directory)?;
        // Not even in the swap, where the kernel can (6.4).
        mount_new("tmpfs", target.as_fd(), QUIET, "mode=0700,noswap")
            .or_else(|_| mount_new("tmpfs", target.as_fd(), QUIET, "mode=0700"))
            .map_err(fail)?;
        let mounted = root.open_at(Path::new("/proc")).map_err(fail)?;
        Ok(Scratch { at: descriptor(mounted.as_fd()), _mounted: mounted, used: std::cell::Cell::new(0) })
    }

    /// Makes a file and binds it, read-only, on `target`.
    fn file(&self, root: &Root, target: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<(), Report> {
        let file = self.at.join(self.used.replace(self.used.get() + 1).to_string());
        fs::write(&file, content)
            .and_then(|()| chown(&file, Some(owner.0), Some(owner.1)))
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(mode)))
            .map_err(|error| Report::setup(format!("could not prepare the file for `{}`", target.display()), error))?;
        root.bind(&file, target, false)?;
        root.restrict(target, attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC, false)
    }

    fn put(&self, root: &Root, target: &str, content: &[u8]) -> Result<(), Report> {
        self.file(root, Path::new(target), content, 0o644, (0, 0))
    }

    fn leave(self) -> Result<(), Report> {
        rustix::mount::unmount(&self.at, UnmountFlags::DETACH)
            .map_err(|error| Report::setup("could not put the tmpfs of secret files out of sight", error))
    }
}

fn device_files(root: &Root, shm_bytes: Option<u64>) -> Result<(), Report> {
    // Nodes work in the tmpfs that they are made in and where they are bound, but not in /dev itself: real root may make
    // nodes in a step, and one of the machine's disk must be as dead there as anywhere else.
    root.mount("tmpfs", "/proc", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0700")?;
    let nodes = root.target(Path::new("/proc"), Kind::Directory)?;
    let options = format!("mode=0755,{SIZE_64M}");
    root.mount("tmpfs", "/dev", MountFlags::NOSUID | MountFlags::NODEV, &options)?;
    for (name, major, minor) in DEVICES {
        device(root, nodes.as_fd(), name, rustix::fs::makedev(*major, *minor))?;
    }
    rustix::mount::unmount(descriptor(nodes.as_fd()), UnmountFlags::DETACH)
        .map_err(|error| Report::setup("could not put the tmpfs of device nodes out of sight", error))?;
    let dev = root.target(Path::new("/dev"), Kind::Directory)?;
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(*target, &dev, *name)
            .map_err(|error| Report::setup(format!("could not make the link `/dev/{name}`"), error))?;
    }
    terminals(root)?;
    let size = shm_bytes.map_or_else(|| SIZE_64M.to_owned(), |bytes| format!("size={bytes}"));
    root.mount("tmpfs", "/dev/shm", QUIET, &format!("mode=1777,{size}"))?;
    root.mount("mqueue", "/dev/mqueue", QUIET, "")
}

/// Binds a device in /dev: a node of its own, or the host's where this root may not make one (or one that would not work).
fn device(root: &Root, nodes: BorrowedFd<'_>, name: &str, number: Dev) -> Result<(), Report> {
    let path = Path::new("/dev").join(name);
    let made = rustix::fs::mknodat(nodes, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number);
    if made.is_ok()
        && rustix::fs::openat(nodes, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).is_ok_or_no_tty()
    {
        return root.bind(&descriptor(nodes).join(name), &path, false);
    }
    root.bind(&path, &path, false)
}

trait OpenedDevice {
    fn is_ok_or_no_tty(&self) -> bool;
}

impl OpenedDevice for rustix::io::Result<OwnedFd> {
    /// /dev/tty without a terminal gives ENXIO: the node itself is good.
    fn is_ok_or_no_tty(&self) -> bool {
        matches!(self, Ok(_) | Err(Errno::NXIO))
    }
}

fn terminals(root: &Root) -> Result<(), Report> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    // Group tty owns terminals, where that group is mapped.
    let options = "newinstance,ptmxmode=0666,mode=0620";
    root.mount("devpts", "/dev/pts", flags, &format!("{options},gid=5"))
        .or_else(|_| root.mount("devpts", "/dev/pts", flags, options))
}

/// sysfs and the builder's control groups, read-only. A fresh sysfs needs rights over the network namespace.
fn system_files(root: &Root) -> Result<(), Report> {
    let (sys, groups) = (Path::new("/sys"), Path::new("/sys/fs/cgroup"));
    if root.mount("sysfs", "/sys", QUIET, "").is_err() {
        root.bind(sys, sys, true)?;
    } else if groups.exists() {
        // Without them a program sees no limits of memory and processors; none must fail for that.
        let _ = root.bind(groups, groups, true);
    }
    let quiet = attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;
    root.restrict(sys, quiet, true)
}

fn process_files(root: &Root, fresh: bool) -> Result<(), Report> {
    if fresh {
        return root.mount("proc", "/proc", QUIET, "");
    }
    root.bind(Path::new("/proc"), Path::new("/proc"), true)
}

/// Puts parts of proc and sysfs out of sight or reach.
fn hide(root: &Root) -> Result<(), Report> {
    for path in MASKED {
        let Ok(at) = root.open_at(Path::new(path)) else { continue };
        let fail = |error: io::Error| Report::setup(format!("could not hide `{path}`"), error);
        if FileType::from_raw_mode(rustix::fs::fstat(&at).map_err(|error| fail(error.into()))?.st_mode).is_dir() {
            mount_new("tmpfs", at.as_fd(), QUIET | MountFlags::RDONLY, "size=0k")
                .map_err(|error| fail(error.into()))?;
        } else {
            // The step's own: the host's would get what owner and mode the step gives it.
            let null = root.open_at(Path::new("/dev/null")).map_err(|error| fail(error.into()))?;
            rustix::mount::mount_bind(descriptor(null.as_fd()), descriptor(at.as_fd()))
                .map_err(|error| fail(error.into()))?;
        }
    }
    for path in READ_ONLY {
        let path = Path::new(path);
        let Ok(at) = root.open_at(path) else { continue };
        let name = descriptor(at.as_fd());
        rustix::mount::mount_bind_recursive(&name, &name)
            .map_err(|error| Report::setup(format!("could not bind `{}` on itself", path.display()), error))?;
        root.restrict(path, attribute::RDONLY, true)?;
    }
    Ok(())
}

fn user_mount(root: &Root, scratch: &Scratch, mount: &Mount) -> Result<(), Report> {
    match &mount.source {
        MountSource::Bind { path, read_only } => {
            let source = open_source(path).map_err(|error| Report::Mount {
                target: mount.target.as_os_str().to_owned(),
                reason: format!("could not open `{}`: {}", path.display(), sys::plain(&error.into())),
            })?;
            root.bind(&descriptor(source.as_fd()), &mount.target, true)?;
            let read_only = if *read_only { attribute::RDONLY } else { 0 };
            root.restrict(&mount.target, read_only | attribute::NODEV, true)
        }
        MountSource::Tmpfs { size_bytes } => tmpfs(root, &mount.target, *size_bytes),
        MountSource::File { content, mode, uid, gid } => {
            scratch.file(root, &mount.target, content.reveal(), *mode, (*uid, *gid))
        }
        // The builder has bound it under a path (`sockets::bound`).
        MountSource::Socket { .. } => Err(Report::Mount {
            target: mount.target.as_os_str().to_owned(),
            reason: "a socket without a path".to_owned(),
        }),
    }
}

/// Opens what is to be bound. Its path was found by the builder, and another step that shares a cache can have put a link to
/// the host's files there since: none is followed any more.
fn open_source(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// An empty file system in memory with the mode of the directory that it covers, as runc makes it; where there was none,
/// everybody may write to it, as the kernel has it.
fn tmpfs(root: &Root, path: &Path, size_bytes: Option<u64>) -> Result<(), Report> {
    let fail = |error: Errno| Report::Mount {
        target: path.as_os_str().to_owned(),
        reason: format!("could not mount a tmpfs: {}", sys::plain(&error.into())),
    };
    let is_new = root.open_at(path).is_err();
    let target = root.target(path, Kind::Directory)?;
    let mode = match is_new {
        true => crate::NEW_TMPFS_MODE,
        false => rustix::fs::fstat(&target).map_err(fail)?.st_mode & 0o7777,
    };
    let size = size_bytes.map(|size| format!(",size={size}")).unwrap_or_default();
    mount_new("tmpfs", target.as_fd(), MountFlags::NOSUID | MountFlags::NODEV, &format!("mode={mode:o}{size}"))
        .map_err(fail)
}

/// Makes the rootfs `/` and drops the old one with all its mounts.
fn change_root(root: &Path) -> Result<(), Report> {
    let fail = |error: Errno| Report::setup(format!("could not make `{}` the root", root.display()), error);
    rustix::process::chdir(root).map_err(fail)?;
    match rustix::process::pivot_root(".", ".") {
        // The new root is mounted over the old: what is found at `.` first is the old one.
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(fail)?,
        // The first root file system of a machine (initramfs) cannot be pivoted away from, only covered.
        Err(Errno::INVAL) => {
            rustix::mount::mount_move(".", "/").map_err(fail)?;
            rustix::process::chroot(".").map_err(fail)?;
        }
        Err(error) => return Err(fail(error)),
    }
    rustix::process::chdir("/").map_err(fail)
}
