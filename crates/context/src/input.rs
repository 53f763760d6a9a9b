//! Files of the host that may be pipes: `<(…)` of a shell, FIFOs, `/dev/stdin`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rootfs::Stop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How often somebody who waits for a pipe looks whether the build is still wanted.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What names standard input.
const STDIN: [&str; 3] = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// What names an open descriptor of this process: a link, and wherever it leads the user's own.
const DESCRIPTORS: [&str; 2] = ["/dev/fd", "/proc/self/fd"];

/// Whether `path` is another name of `-`.
pub fn is_stdin(path: &Path) -> bool {
    STDIN.iter().any(|name| path == Path::new(name))
}

/// Whether `path` names an open descriptor, as `<(…)` does.
pub fn is_descriptor(path: &Path) -> bool {
    is_stdin(path) || DESCRIPTORS.iter().any(|directory| path.parent() == Some(Path::new(directory)))
}

/// Whether there is something at `path`, links followed, that can be read once and from its beginning only.
pub fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo() || it.file_type().is_char_device())
}

/// A pipe that is open; the waiting for who writes into it ends with the build.
pub struct Pipe {
    file: File,
    stop: Stop,
}

impl Pipe {
    /// Opens it without waiting for somebody to write into it.
    pub fn open(path: &Path, stop: &Stop) -> io::Result<Pipe> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Pipe { file: file.into(), stop: stop.clone() })
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stop.check()?;
            // Before anybody has opened it to write, reading would say that it has ended; the kernel keeps polling waiting.
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&PAUSE)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            match self.file.read(buffer) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                result => return result,
            }
        }
    }
}
