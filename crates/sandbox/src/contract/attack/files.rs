//! Attacks on files outside of the rootfs, and what root may do with its own.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use super::Outcomes;
use super::call::{at, c, call};

/// More than any path is deep.
const UP: &str = "../../../../../../../../../../../../../../../../../../../../..";

/// Spellings of an absolute path that a resolver may take to be something else.
fn spellings(path: &str) -> io::Result<Vec<String>> {
    fs::create_dir_all("/tmp/a/b")?;
    let links = [("/tmp/link", path.to_owned()), ("/tmp/up", format!("{UP}{path}")), ("/tmp/a/b/root", UP.to_owned())];
    for (link, target) in &links {
        let _ = fs::remove_file(link);
        symlink(target, link)?;
    }
    Ok(vec![
        path.to_owned(),
        format!("{UP}{path}"),
        format!("/tmp/a/b/{UP}{path}"),
        format!("//{path}"),
        "/tmp/link".into(),
        "/tmp/up".into(),
        format!("/tmp/a/b/root{path}"),
        format!("/proc/self/root{path}"),
        format!("/proc/self/root/{UP}{path}"),
        format!("/proc/self/cwd/{UP}{path}"),
        format!("/proc/thread-self/root{path}"),
        format!("/proc/1/root{path}"),
        format!("/dev/fd/../../root{path}"),
    ])
}

/// `FILE...`: reads each by every path and every other way there is.
pub fn read(outcomes: &mut Outcomes, files: &[String]) -> io::Result<()> {
    for file in files {
        for spelling in spellings(file)? {
            outcomes.note(format!("open `{spelling}`"), fs::read(&spelling));
            outcomes.note(format!("stat `{spelling}`"), fs::metadata(&spelling));
            let _ = fs::remove_file("/tmp/hard");
            outcomes.note(format!("link `{spelling}`"), link(&spelling, "/tmp/hard"));
        }
        outcomes.note(format!("openat2 `{file}`"), openat2(file));
        outcomes.note(format!("execute `{file}`"), execute(file));
        outcomes.note(format!("chdir beside `{file}`"), beside(file));
    }
    outcomes.note("open_by_handle_at", by_handle());
    for file in files {
        outcomes.note(format!("chroot and back to `{file}`"), break_out(file));
    }
    Ok(())
}

/// As link(2), but of what a symbolic link leads to.
fn link(from: &str, to: &str) -> io::Result<()> {
    let (from, to, here) = (c(from), c(to), libc::AT_FDCWD as usize);
    call(libc::SYS_linkat, [here, at(&from), here, at(&to), libc::AT_SYMLINK_FOLLOW as usize]).map(drop)
}

fn openat2(file: &str) -> io::Result<()> {
    /// The same number on every architecture.
    const OPENAT2: libc::c_long = 437;
    let (path, how) = (c(file), [0u64; 3]);
    call(OPENAT2, [libc::AT_FDCWD as usize, at(&path), how.as_ptr() as usize, size_of_val(&how)]).map(drop)
}

/// No program, so it is not run: the kernel says so only when it has read it.
fn execute(file: &str) -> io::Result<()> {
    match std::process::Command::new(file).status() {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Ok(()),
        other => other.map(drop),
    }
}

fn beside(file: &str) -> io::Result<()> {
    let file = Path::new(file);
    std::env::set_current_dir(file.parent().unwrap_or(file))?;
    let opened = fs::File::open(file.file_name().unwrap_or_default());
    std::env::set_current_dir("/")?;
    opened.map(drop)
}

/// Whether handles can be opened at all: one of another file is only a guess away.
fn by_handle() -> io::Result<()> {
    #[repr(C, align(8))]
    struct Handle {
        size: u32,
        kind: i32,
        bytes: [u8; 128],
    }
    fs::write("/tmp/handle", "")?;
    let (path, mut handle, mount) = (c("/tmp/handle"), Handle { size: 128, kind: 0, bytes: [0; 128] }, 0i32);
    let address = &raw mut handle as usize;
    call(libc::SYS_name_to_handle_at, [libc::AT_FDCWD as usize, at(&path), address, &raw const mount as usize, 0])?;
    let root = fs::File::open("/")?;
    call(libc::SYS_open_by_handle_at, [root.as_raw_fd() as usize, address, 0]).map(drop)
}

/// The classic: a working directory outside of a root that is changed (chroot(2)).
fn break_out(file: &str) -> io::Result<()> {
    let _ = fs::create_dir("/tmp/jail");
    let (jail, here, up) = (c("/tmp/jail"), c("."), c(".."));
    call(libc::SYS_chroot, [at(&jail)])?;
    for _ in 0..64 {
        call(libc::SYS_chdir, [at(&up)])?;
    }
    call(libc::SYS_chroot, [at(&here)])?;
    fs::File::open(file).map(drop)
}

/// `DIRECTORY`: changes it, and the file `canary` in it.
pub fn write(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let directory = arguments.first().map(String::as_str).unwrap_or_default();
    for (number, spelling) in spellings(directory)?.into_iter().enumerate() {
        let mut to = |what: &str, change: &dyn Fn(&str) -> io::Result<()>| {
            let new = format!("{spelling}/{what}-{number}");
            outcomes.note(format!("{what} `{new}`"), change(&new));
        };
        let own = format!("/tmp/own-{number}");
        to("create", &|new| fs::write(new, ""));
        to("mkdir", &|new| fs::create_dir(new));
        to("symlink", &|new| symlink("/", new));
        to("fifo", &|new| {
            call(libc::SYS_mknodat, [libc::AT_FDCWD as usize, at(&c(new)), (libc::S_IFIFO | 0o666) as usize, 0])
                .map(drop)
        });
        to("link", &|new| fs::write(&own, "").and_then(|()| fs::hard_link(&own, new)));
        to("rename", &|new| fs::write(&own, "").and_then(|()| fs::rename(&own, new)));
        to("socket", &|new| UnixListener::bind(new).map(drop));
        let canary = format!("{spelling}/canary");
        outcomes.note(format!("append to `{canary}`"), fs::OpenOptions::new().append(true).open(&canary));
        outcomes.note(format!("truncate `{canary}`"), call(libc::SYS_truncate, [at(&c(&canary)), 1000]));
        outcomes.note(
            format!("chmod `{canary}`"),
            call(libc::SYS_fchmodat, [libc::AT_FDCWD as usize, at(&c(&canary)), 0o666]),
        );
        outcomes.note(format!("chown `{canary}`"), chown(&canary, Some(7), Some(7)));
        let times = call(libc::SYS_utimensat, [libc::AT_FDCWD as usize, at(&c(&canary)), 0, 0]);
        outcomes.note(format!("utimensat `{canary}`"), times);
        let value = call(libc::SYS_setxattr, [at(&c(&canary)), at(&c("user.contract")), at(&c("1")), 1, 0]);
        outcomes.note(format!("setxattr `{canary}`"), value);
    }
    Ok(())
}

/// `SOCKET ABSTRACT-NAME`: connects to both.
pub fn connect(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let [path, name] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    outcomes.note("socket by its path", UnixStream::connect(path));
    outcomes.note("socket by a relative path", UnixStream::connect(format!("{UP}{path}")));
    let _ = symlink(path, "/tmp/socket");
    outcomes.note("socket by a link", UnixStream::connect("/tmp/socket"));
    let address = SocketAddr::from_abstract_name(name)?;
    outcomes.note("abstract socket", UnixStream::connect_addr(&address));
    let datagrams = SocketAddr::from_abstract_name(format!("{name}-datagrams"))?;
    outcomes.note("abstract socket, connect", UnixDatagram::unbound()?.connect_addr(&datagrams));
    outcomes.note("abstract socket, sendto", UnixDatagram::unbound()?.send_to_addr(b"x", &datagrams));
    Ok(())
}

/// Sets a file capability, as root may, and says whether it can be read back.
pub fn capability(outcomes: &mut Outcomes, _: &[String]) -> io::Result<()> {
    // `struct vfs_cap_data`, version 2, CAP_NET_BIND_SERVICE permitted and effective.
    let value = [1u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write("/tmp/capable", "")?;
    let (path, name) = (c("/tmp/capable"), c("security.capability"));
    call(libc::SYS_setxattr, [at(&path), at(&name), value.as_ptr() as usize, value.len(), 0])?;
    let read = [0u8; 64];
    let length = call(libc::SYS_getxattr, [at(&path), at(&name), read.as_ptr() as usize, read.len()]);
    let same = length.and_then(|length| match std::hint::black_box(&read)[..length] == value {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    });
    outcomes.note("read back", same);
    Ok(())
}

/// A socket of the step's own, by a long path and by another of its names.
pub fn socket(_: &mut Outcomes, _: &[String]) -> io::Result<()> {
    fs::create_dir_all("/run/a/rather/long/way/to/a/socket/in/the/rootfs")?;
    let path = "/run/a/rather/long/way/to/a/socket/in/the/rootfs/s";
    let listener = UnixListener::bind(path)?;
    symlink(path, "/run/s")?;
    for name in [path, "/run/s", "run/s"] {
        let client = UnixStream::connect(name)?;
        let (server, _) = listener.accept()?;
        io::Write::write_all(&mut &client, b"x")?;
        io::Read::read_exact(&mut &server, &mut [0])?;
    }
    let bound = listener.local_addr()?;
    if bound.as_pathname() == Some(Path::new(path)) { Ok(()) } else { Err(io::Error::other(format!("{bound:?}"))) }
}
