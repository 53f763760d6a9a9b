//! A terminal for a program in a sandbox: a pseudo-terminal, and this process's terminal passed through to it.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// How often the end is looked for, and the window's size.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Standard input and standard error are a terminal: standard output may be a script's.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Says `text`, then passes the terminal through to a new one, whose path `run` gets, until `run` returns.
///
/// # Errors
/// When there is no new terminal to be had.
pub fn with_shell<T>(text: &str, run: impl FnOnce(PathBuf) -> T) -> io::Result<T> {
    // A terminal that is gone leaves nobody to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
    let pair = Pair::open()?;
    let _raw = Raw::enter()?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let relay = spawn::scoped(scope, "terminal", &|| false, || relay(&pair.ours, &ended))?;
        let ran = run(pair.path.clone());
        ended.store(true, Ordering::Relaxed);
        let _ = relay.join();
        Ok(ran)
    })
}

/// A pseudo-terminal.
struct Pair {
    ours: OwnedFd,
    path: PathBuf,
    /// Held open: a terminal that nobody has open has no end that could be read.
    _theirs: OwnedFd,
}

impl Pair {
    fn open() -> io::Result<Pair> {
        let ours = open_ours()?;
        let path = PathBuf::from(format!("/dev/pts/{}", number(&ours)?));
        let theirs = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        // The step's user is whoever USER says; nobody else sees this terminal's path for long.
        rustix::fs::fchmod(&theirs, Mode::from_raw_mode(0o666))?;
        Ok(Pair { ours, path, _theirs: theirs })
    }
}

fn open_ours() -> io::Result<OwnedFd> {
    // SAFETY: the call takes flags only; its result is checked, and is then a descriptor that nobody else has.
    let ours = unsafe {
        let ours = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        if ours < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(ours)
    };
    use std::os::fd::AsRawFd as _;
    // SAFETY: the descriptor is open and ours.
    if unsafe { libc::unlockpt(ours.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ours)
}

/// The N of `/dev/pts/N`.
fn number(ours: &OwnedFd) -> io::Result<u32> {
    use std::os::fd::AsRawFd as _;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int to the address, which is valid for it.
    match unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) } {
        0 => Ok(number),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Our terminal hands every key on as it is; put back when this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Raw> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone has no state.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Passes keys and output on until there is an end and nothing more to read.
fn relay(ours: &OwnedFd, ended: &AtomicBool) {
    let stdin = io::stdin();
    let mut input_is_open = true;
    let mut buffer = [0; 4096];
    loop {
        follow_size(ours);
        let last = ended.load(Ordering::Relaxed);
        let wanted = if input_is_open && !last { PollFlags::IN } else { PollFlags::empty() };
        let mut polled = [PollFd::new(ours, PollFlags::IN), PollFd::from_borrowed_fd(stdin.as_fd(), wanted)];
        if let Err(error) = rustix::event::poll(&mut polled, Some(&POLL))
            && error != rustix::io::Errno::INTR
        {
            return;
        }
        let [output, input] = polled.map(|fd| fd.revents());
        if input.contains(PollFlags::IN) {
            match rustix::io::read(&stdin, &mut buffer) {
                Ok(0) | Err(_) => input_is_open = false,
                Ok(count) => drop(write_all(ours, &buffer[..count])),
            }
        }
        if output.contains(PollFlags::IN) {
            match rustix::io::read(ours, &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => drop(write_all(io::stderr(), &buffer[..count])),
            }
        } else if last {
            return;
        }
    }
}

fn write_all(to: impl std::os::fd::AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The new terminal is as large as ours.
fn follow_size(ours: &OwnedFd) {
    if let (Ok(wanted), Ok(now)) = (tcgetwinsize(io::stdin()), tcgetwinsize(ours))
        && (wanted.ws_row, wanted.ws_col) != (now.ws_row, now.ws_col)
    {
        let _ = tcsetwinsize(ours, wanted);
    }
}
