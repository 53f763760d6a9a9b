//! Attacks by two steps that work together: one hands a directory of its own to another, by a socket in a cache that they share.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::Outcomes;

/// What the giver has in its root.
const CANARY: &str = "canary";

/// How long one waits for the other.
const PATIENCE: Duration = Duration::from_secs(20);

/// `SOCKET`: hands the root directory to whoever connects, once to look through and once to list, and waits until he has done.
pub fn give(_: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let path = arguments.first().map(String::as_str).unwrap_or_default();
    fs::write(format!("/{CANARY}"), "of another step")?;
    let (place, listed) = (open("/", OFlags::PATH)?, open("/", OFlags::RDONLY)?);
    // Under another name first, so that nobody connects before there is somebody who listens.
    let listener = UnixListener::bind(format!("{path}.new"))?;
    fs::rename(format!("{path}.new"), path)?;
    let (mut taker, _) = listener.accept()?;
    let handles = [place.as_fd(), listed.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&handles));
    rustix::net::sendmsg(&taker, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    taker.set_read_timeout(Some(PATIENCE))?;
    let _ = taker.read(&mut [0]);
    Ok(())
}

fn open(path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// `SOCKET`: takes what is handed there, and changes what it leads to.
pub fn take(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let path = arguments.first().map(String::as_str).unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    let giver = loop {
        match UnixStream::connect(path) {
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            connected => break connected?,
        }
    };
    let mut taken = Vec::new();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(&giver, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::empty())?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handles) = message {
            taken.extend(handles);
        }
    }
    fs::write("/tmp/own", "")?;
    for (what, directory) in ["a path", "a list"].iter().zip(&taken) {
        change(outcomes, what, directory);
    }
    Ok(())
}

fn change(outcomes: &mut Outcomes, what: &str, root: &OwnedFd) {
    let mut note = |action: &str, got: io::Result<()>| outcomes.note(format!("{action} by {what}"), got);
    let opened = |path: &str, flags: OFlags| -> io::Result<()> {
        Ok(rustix::fs::openat(root, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(drop)?)
    };
    note("write", opened(CANARY, OFlags::WRONLY));
    note("truncate", opened(CANARY, OFlags::WRONLY | OFlags::TRUNC));
    note("create", opened("new", OFlags::WRONLY | OFlags::CREATE));
    note("a file without a name", opened(".", OFlags::WRONLY | OFlags::TMPFILE));
    note("make a directory", rustix::fs::mkdirat(root, "directory", Mode::from_raw_mode(0o755)).map_err(Into::into));
    note("make a link", rustix::fs::symlinkat("/", root, "link").map_err(Into::into));
    note("rename", rustix::fs::renameat(root, CANARY, root, "other").map_err(Into::into));
    note("take away", rustix::fs::renameat(root, CANARY, rustix::fs::CWD, "/tmp/taken").map_err(Into::into));
    let linked = rustix::fs::linkat(root, CANARY, rustix::fs::CWD, "/tmp/linked", AtFlags::empty());
    note("link to it", linked.map_err(Into::into));
    let linked = rustix::fs::linkat(rustix::fs::CWD, "/tmp/own", root, "linked", AtFlags::empty());
    note("link into it", linked.map_err(Into::into));
    let number = root.as_raw_fd();
    let mut by_name = |action: &str, path: &str| {
        let file = fs::OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}{path}"));
        note(action, file.map(drop));
    };
    by_name("append through /proc", "/canary");
    by_name("append through /proc and up", "/tmp/../canary");
    note("go there and write", go_to(root, false));
    note("go there, change the root and write", go_to(root, true));
    note("remove", rustix::fs::unlinkat(root, CANARY, AtFlags::empty()).map_err(Into::into));
}

fn go_to(root: &OwnedFd, as_root: bool) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    let written = match as_root {
        false => fs::write(CANARY, "changed"),
        // In a process of its own, for there is no way back.
        true => busybox_there(root),
    };
    std::env::set_current_dir("/")?;
    written
}

fn busybox_there(root: &OwnedFd) -> io::Result<()> {
    let descriptor = root.as_raw_fd();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "echo changed > /canary"]).stderr(std::process::Stdio::null());
    let change = move || {
        // SAFETY: takes numbers and a string with its end; both are system calls that a child of fork may make.
        match unsafe { libc::fchdir(descriptor) | libc::chroot(c".".as_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: only system calls are made between fork and exec.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, change) };
    if command.status()?.success() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
