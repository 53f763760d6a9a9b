//! Steps that do too much of something, and the race for the way out.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::Outcomes;
use super::call::{at, c, call};
use crate::sys::{self, Forked};

fn number(arguments: &[String]) -> io::Result<usize> {
    arguments.first().and_then(|text| text.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// `LEVELS`: directories in directories, far below what a path can name.
pub fn deep(_: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    fs::create_dir("/deep")?;
    std::env::set_current_dir("/deep")?;
    for _ in 0..number(arguments)? {
        fs::create_dir("d")?;
        std::env::set_current_dir("d")?;
    }
    fs::write("bottom", "bottom\n")
}

/// `COUNT`: opens as many files at a time, or as many as the limit allows.
pub fn descriptors(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    fs::write("/tmp/one", "")?;
    let mut open = Vec::new();
    while open.len() < number(arguments)? {
        match fs::File::open("/tmp/one") {
            Ok(file) => open.push(file),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => break,
            Err(error) => return Err(error),
        }
    }
    // Two more for the other system calls that need one.
    open.truncate(open.len().saturating_sub(2));
    fs::write("/tmp/afterwards", "")?;
    outcomes.note(format!("{} descriptors", open.len()), Ok(()));
    Ok(())
}

/// `COUNT`: as many processes, each the parent of the next or of several, that stay when the step ends.
pub fn forks(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let (mut started, wanted) = (0, number(arguments)?);
    while started < wanted {
        match sys::fork() {
            Ok(Forked::Parent(_)) => started += 10,
            Ok(Forked::Child) => {
                let _ = rustix::process::setsid();
                for _ in 1..10 {
                    if !matches!(sys::fork(), Ok(Forked::Child)) {
                        break;
                    }
                }
                loop {
                    std::thread::sleep(Duration::from_secs(1000));
                }
            }
            // A limit of the container: as good as done.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    outcomes.note("forked", Ok(()));
    Ok(())
}

/// `SECONDS MARK`: leaves processes that live only until each has started the next, in a session of its own.
pub fn comets(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(number(arguments)? as u64);
    for _ in 0..4 {
        if matches!(sys::fork()?, Forked::Parent(_)) {
            continue;
        }
        while Instant::now() < end {
            if !matches!(sys::fork(), Ok(Forked::Child)) {
                break;
            }
            let _ = rustix::process::setsid();
        }
        sys::exit_now(0)
    }
    std::thread::sleep(Duration::from_millis(100));
    outcomes.note("flying", Ok(()));
    Ok(())
}

/// File names that are no text.
pub const NAMES: &[&[u8]] =
    &[b"new\nline", b"\xff\xfe not UTF-8", b" ", b"\x01\x7f", b"-rf", b"*", b"\xe2\x80\xae", b"..."];

pub fn names(_: &mut Outcomes, _: &[String]) -> io::Result<()> {
    fs::create_dir("/names")?;
    for name in NAMES {
        let path = Path::new("/names").join(OsStr::from_bytes(name));
        fs::create_dir(&path)?;
        fs::write(path.join("file"), name)?;
        symlink(OsStr::from_bytes(name), path.join("link"))?;
    }
    let loops = [("self", "self"), ("a", "b"), ("b", "a"), ("deep", "deep/deep"), ("up", "../../../../names/up")];
    for (link, target) in loops {
        symlink(target, Path::new("/names").join(link))?;
    }
    for (link, _) in loops {
        match fs::read(Path::new("/names").join(link)) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
            other => return Err(io::Error::other(format!("`{link}` gave {other:?}"))),
        }
    }
    Ok(())
}

/// `SECONDS DIRECTORY`: some processes exchange a directory with a link to DIRECTORY, which is outside, and move another up
/// and down; others do things through paths that lead through both. In the rootfs there is a DIRECTORY as well, with a file
/// `canary` that is empty.
pub fn race(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(number(arguments)? as u64);
    let outside = arguments.get(1).map(String::as_str).unwrap_or_default();
    fs::create_dir_all("/r/directory")?;
    fs::create_dir_all("/r/a/b/c/d/e/f")?;
    fs::create_dir_all(outside)?;
    for decoy in [outside, "/r/directory"] {
        fs::write(Path::new(decoy).join("canary"), "")?;
    }
    symlink(outside, "/r/link")?;
    symlink(format!("../../../../../../../../../..{outside}"), "/r/relative")?;
    let racers: [&dyn Fn() -> bool; 5] =
        [&|| exchange("/r/link"), &|| exchange("/r/relative"), &move_up, &|| reach(outside), &|| {
            reach_relative(outside)
        }];
    let mut running = Vec::new();
    for racer in racers {
        match sys::fork()? {
            Forked::Parent(child) => running.push(child),
            Forked::Child => {
                let mut reached = false;
                while !reached && Instant::now() < end {
                    reached = racer();
                }
                sys::exit_now(i32::from(reached))
            }
        }
    }
    for (number, racer) in running.into_iter().enumerate() {
        let status = rustix::process::waitpid(Some(racer), rustix::process::WaitOptions::empty())?;
        let kept = status.is_some_and(|(_, status)| status.exit_status() == Some(0));
        outcomes
            .note(format!("racer {number}"), if kept { Err::<(), _>(io::ErrorKind::NotFound.into()) } else { Ok(()) });
    }
    Ok(())
}

fn exchange(link: &str) -> bool {
    const EXCHANGE: usize = 2;
    let (directory, link) = (c("/r/directory"), c(link));
    let here = libc::AT_FDCWD as usize;
    let _ = call(libc::SYS_renameat2, [here, at(&directory), here, at(&link), EXCHANGE]);
    false
}

fn move_up() -> bool {
    let _ = fs::rename("/r/a/b/c/d", "/r/d");
    let _ = fs::rename("/r/d", "/r/a/b/c/d");
    false
}

/// The file outside is not empty.
fn is_outside(found: io::Result<fs::Metadata>) -> bool {
    found.is_ok_and(|looks| looks.is_file() && looks.len() > 0)
}

/// Through what may be a directory or a link. What changes something is found by the builder.
fn reach(_: &str) -> bool {
    let canary = "/r/directory/canary";
    let (name, made) = (c(canary), c("/r/directory/made"));
    let here = libc::AT_FDCWD as usize;
    let _ = call(libc::SYS_fchmodat, [here, at(&name), 0o606]);
    let _ = call(libc::SYS_truncate, [at(&name), 0]);
    let _ = call(libc::SYS_mknodat, [here, at(&made), (libc::S_IFIFO | 0o600) as usize, 0]);
    let _ = fs::remove_file("/r/directory/made");
    let _ = chown(canary, Some(5), Some(5));
    let _ = fs::create_dir("/r/directory/made");
    let _ = fs::rename("/r/directory/made", "/r/made");
    let _ = fs::remove_dir("/r/made");
    let _ = symlink("/", "/r/directory/made");
    let _ = fs::remove_file("/r/directory/made");
    // A pipe that was made before the directory was exchanged must not be waited for.
    let options = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let _ = rustix::fs::open("/r/directory/made", options, Mode::from_raw_mode(0o600));
    let _ = fs::remove_file("/r/directory/made");
    let _ = fs::remove_file("/r/hard");
    let linked = fs::hard_link(canary, "/r/hard").is_ok() && is_outside(fs::metadata("/r/hard"));
    linked || is_outside(fs::metadata(canary)) || is_outside(fs::File::open(canary).and_then(|file| file.metadata()))
}

/// With `..` out of a directory that is being moved up.
fn reach_relative(outside: &str) -> bool {
    let ups = |count: usize| format!("{}{}/canary", "/..".repeat(count), outside);
    let by_path = (4..12).any(|count| is_outside(fs::metadata(format!("/r/a/b/c/d/e/f{}", ups(count)))));
    if by_path || std::env::set_current_dir("/r/a/b/c/d/e/f").is_err() {
        return by_path;
    }
    (4..12).any(|count| is_outside(fs::metadata(&ups(count)[1..])))
}
