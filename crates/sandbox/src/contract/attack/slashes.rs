//! Names with slashes, dots and links at their end: what every call says of them, and what it leaves.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};

use super::Outcomes;
use super::call::{at, c, call};

type Call = fn(&str) -> rustix::io::Result<()>;

const CALLS: &[(&str, Call)] = &[
    ("mkdir", |path| rustix::fs::mkdir(path, Mode::RWXU)),
    ("mknod of a fifo", |path| rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0)),
    ("mknod of a file", |path| rustix::fs::mknodat(CWD, path, FileType::RegularFile, Mode::RWXU, 0)),
    ("symlink", |path| rustix::fs::symlink("target", path)),
    ("link to it", |path| rustix::fs::link(path, "new")),
    ("link to what it leads to", |path| rustix::fs::linkat(CWD, path, CWD, "new", AtFlags::SYMLINK_FOLLOW)),
    ("link of this name", |path| rustix::fs::link("other", path)),
    ("unlink", |path| rustix::fs::unlink(path)),
    ("rmdir", |path| rustix::fs::rmdir(path)),
    ("rename of it", |path| rustix::fs::rename(path, "new")),
    ("rename of it, with a slash", |path| rustix::fs::rename(path, "new/")),
    ("rename of a file to it", |path| rustix::fs::rename("other", path)),
    ("rename of a directory to it", |path| rustix::fs::rename("empty", path)),
    ("rename to it if it is new", |path| rustix::fs::renameat_with(CWD, "empty", CWD, path, RenameFlags::NOREPLACE)),
    ("exchange with a file", |path| rustix::fs::renameat_with(CWD, "other", CWD, path, RenameFlags::EXCHANGE)),
    ("exchange of it with a directory", |path| {
        rustix::fs::renameat_with(CWD, path, CWD, "empty/", RenameFlags::EXCHANGE)
    }),
    ("open", |path| open(path, OFlags::RDONLY)),
    ("open to write", |path| open(path, OFlags::WRONLY)),
    ("open of no link", |path| open(path, OFlags::NOFOLLOW)),
    ("open of a directory", |path| open(path, OFlags::DIRECTORY)),
    ("open as a path", |path| open(path, OFlags::PATH | OFlags::NOFOLLOW)),
    ("open, made if it is missing", |path| open(path, OFlags::CREATE | OFlags::WRONLY)),
    ("open, made if it is missing, of no link", |path| open(path, OFlags::CREATE | OFlags::NOFOLLOW)),
    ("open of a new file", |path| open(path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY)),
    ("stat", |path| rustix::fs::stat(path).map(drop)),
    ("lstat", |path| rustix::fs::lstat(path).map(drop)),
    ("access", |path| rustix::fs::access(path, rustix::fs::Access::EXISTS)),
    ("readlink", |path| rustix::fs::readlink(path, Vec::new()).map(drop)),
    ("chmod", |path| rustix::fs::chmod(path, Mode::RWXU)),
    ("chdir", chdir),
    ("truncate", |path| truncate(path)),
    ("bind of a socket", bind),
];

fn open(path: &str, flags: OFlags) -> rustix::io::Result<()> {
    rustix::fs::open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).map(drop)
}

fn chdir(path: &str) -> rustix::io::Result<()> {
    let here = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::chdir(path)?;
    rustix::process::fchdir(here)
}

fn truncate(path: &str) -> rustix::io::Result<()> {
    let path = c(path);
    errno(call(libc::SYS_truncate, [at(&path), 1]).map(drop))
}

fn bind(path: &str) -> rustix::io::Result<()> {
    errno(UnixListener::bind(path).map(drop))
}

fn errno(done: io::Result<()>) -> rustix::io::Result<()> {
    done.map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
}

/// What the calls are tried on, beside a name that there is not.
const NAMES: &[&str] =
    &["file", "empty", "full", "to-file", "to-empty", "to-full", "dangling", "slashed", "dotted", "missing"];
const ENDS: &[&str] = &["", "/", "//", "/.", "/..", "/./"];

fn make() -> io::Result<()> {
    fs::write("file", "text")?;
    fs::write("other", "other")?;
    fs::create_dir("empty")?;
    fs::create_dir("full")?;
    fs::write("full/inside", "")?;
    for (link, target) in [
        ("to-file", "file"),
        ("to-empty", "empty"),
        ("to-full", "full"),
        ("dangling", "nowhere"),
        ("slashed", "elsewhere/"),
        ("dotted", "empty/."),
    ] {
        symlink(target, link)?;
    }
    Ok(())
}

/// `DIRECTORY`: tries everything in new directories below it. All that is noted is to be the same everywhere.
pub fn slashes(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let [directory] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    let place = Path::new(directory).join("place");
    let begin = || {
        fs::create_dir(&place)?;
        std::env::set_current_dir(&place)?;
        make().and_then(|()| listing())
    };
    let mut before = begin()?;
    for (what, act) in CALLS {
        for (name, end) in NAMES.iter().flat_map(|name| ENDS.iter().map(move |end| (name, end))) {
            let got = act(&format!("{name}{end}"));
            outcomes.note(format!("{what}: {name}{end}"), got.map_err(io::Error::from));
            let after = listing()?;
            if after != before {
                outcomes.note(format!("leaves {after}"), Ok(()));
                std::env::set_current_dir("/")?;
                fs::remove_dir_all(&place)?;
                before = begin()?;
            }
        }
    }
    std::env::set_current_dir("/")?;
    fs::remove_dir_all(&place)
}

fn listing() -> io::Result<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(".")? {
        let entry = entry?;
        let is_like = entry.file_type()?;
        let kind = if is_like.is_dir() {
            "/"
        } else if is_like.is_symlink() {
            "@"
        } else {
            ""
        };
        all.push(format!("{}{kind}", entry.file_name().to_string_lossy()));
    }
    all.sort();
    Ok(all.join(" "))
}
