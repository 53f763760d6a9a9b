//! Attacks of one user of a step on another, and on what the builder's user shares with the whole machine.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::time::Duration;

use super::Outcomes;
use super::call::{at, c, call};

const USER: usize = 1234;
const SECRET: &str = "/of-root";

/// Root's file and a process of root's, attacked by another user of the same step, and by an orphan of that user's.
pub fn others(_: &mut Outcomes, _: &[String]) -> io::Result<()> {
    fs::write(SECRET, "secret")?;
    fs::set_permissions(SECRET, fs::Permissions::from_mode(0o600))?;
    let wait_long = || std::thread::sleep(Duration::from_secs(60));
    let root = child(wait_long)?;
    // What it was is in its memory still.
    let dropped = child(|| {
        if become_user().is_ok() {
            wait_long();
        }
    })?;
    std::thread::sleep(Duration::from_millis(100));
    let user = child(|| {
        if become_user().is_err() {
            return;
        }
        attempts("a user", root, dropped);
        // Its parent is killed before it has asked for anything.
        let parent = child(|| {
            let _ = child(|| {
                std::thread::sleep(Duration::from_millis(300));
                attempts("an orphan", root, dropped);
            });
            let _ = call(libc::SYS_kill, [std::process::id() as usize, libc::SIGKILL as usize]);
        });
        let _ = parent.and_then(wait);
        std::thread::sleep(Duration::from_secs(1));
    })?;
    wait(user)?;
    // Root without CAP_KILL cannot; then it ends with the step.
    let _ = call(libc::SYS_kill, [dropped, libc::SIGKILL as usize]);
    call(libc::SYS_kill, [root, libc::SIGKILL as usize]).map(drop)
}

fn attempts(who: &str, root: usize, dropped: usize) {
    let mut outcomes = Outcomes::default();
    look(&mut outcomes, who, root);
    look_into(&mut outcomes, who, "of root", root);
    look_into(&mut outcomes, who, "that was root's", dropped);
    let _ = outcomes.print();
}

fn wait(process: usize) -> io::Result<()> {
    call(libc::SYS_wait4, [process, 0, 0, 0]).map(drop)
}

fn become_user() -> io::Result<()> {
    call(libc::SYS_setgroups, [0, 0])?;
    call(libc::SYS_setresgid, [USER, USER, USER])?;
    call(libc::SYS_setresuid, [USER, USER, USER]).map(drop)
}

fn look(outcomes: &mut Outcomes, who: &str, root: usize) {
    let path = c(SECRET);
    let by_path = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(SECRET);
    let read = |file: &fs::File| {
        let mut byte = [0u8; 1];
        match call(libc::SYS_read, [file.as_raw_fd() as usize, byte.as_mut_ptr() as usize, 1])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    outcomes.note(format!("{who}: read {SECRET}"), fs::read(SECRET));
    outcomes.note(format!("{who}: read {SECRET} by O_PATH"), by_path.as_ref().map_err(again).and_then(read));
    let opened = by_path.as_ref().map_err(again);
    let reopened = opened.and_then(|file| fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())));
    outcomes.note(format!("{who}: open {SECRET} again"), reopened);
    let mut value = [0u8; 64];
    let name = c("user.a");
    let got = call(libc::SYS_getxattr, [at(&path), at(&name), value.as_mut_ptr() as usize, value.len()]);
    // That there is none is an answer, too.
    outcomes.note(format!("{who}: attribute of {SECRET}"), told(got));
    outcomes.note(format!("{who}: kill"), call(libc::SYS_kill, [root, libc::SIGWINCH as usize]));
    outcomes.note(format!("{who}: tgkill"), call(libc::SYS_tgkill, [root, root, libc::SIGWINCH as usize]));
    let by_descriptor = call(libc::SYS_pidfd_open, [root, 0])
        .and_then(|process| call(libc::SYS_pidfd_send_signal, [process, libc::SIGWINCH as usize, 0, 0]));
    outcomes.note(format!("{who}: pidfd_send_signal"), by_descriptor);
    let limit = [7u64, 7];
    let number = libc::RLIMIT_CORE as usize;
    outcomes.note(format!("{who}: prlimit"), call(libc::SYS_prlimit64, [root, number, limit.as_ptr() as usize, 0]));
}

fn look_into(outcomes: &mut Outcomes, who: &str, what: &str, process: usize) {
    let seized = call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, process, 0, 0]);
    outcomes.note(format!("{who}: ptrace of a process {what}"), seized);
    let byte = [0u8];
    let part = libc::iovec { iov_base: byte.as_ptr() as *mut libc::c_void, iov_len: 1 };
    let at = &raw const part as usize;
    // The same address: the other has been forked from the same program.
    let read = call(libc::SYS_process_vm_readv, [process, at, 1, at, 1, 0]);
    outcomes.note(format!("{who}: process_vm_readv of a process {what}"), read);
    for name in ["environ", "maps", "mem", "fd/0", "cwd/.", "root/."] {
        outcomes.note(format!("{who}: {name} of a process {what}"), fs::File::open(format!("/proc/{process}/{name}")));
    }
}

fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn told(got: io::Result<usize>) -> io::Result<()> {
    match got {
        Err(error) if error.raw_os_error() != Some(libc::ENODATA) => Err(error),
        _ => Ok(()),
    }
}

/// A child that does something and ends, whoever its parent is then.
fn child(work: impl FnOnce()) -> io::Result<usize> {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            work();
            crate::sys::exit_now(0)
        }
        process => Ok(process as usize),
    }
}

/// `KEY SEGMENT SEMAPHORES QUEUE`: System V objects of the builder's user.
pub fn shared_objects(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1) as usize;
    let (key, segment, semaphores, queue) = (number(0), number(1), number(2), number(3));
    outcomes.note("shmget", call(libc::SYS_shmget, [key, 1, 0]));
    outcomes.note("semget", call(libc::SYS_semget, [key, 1, 0]));
    outcomes.note("msgget", call(libc::SYS_msgget, [key, 0]));
    outcomes.note("shmat", call(libc::SYS_shmat, [segment, 0, 0]));
    // GETVAL
    outcomes.note("semctl", call(libc::SYS_semctl, [semaphores, 0, 12, 0]));
    let state = [0u64; 64];
    outcomes.note("msgctl", call(libc::SYS_msgctl, [queue, libc::IPC_STAT as usize, state.as_ptr() as usize]));
    for (name, call) in [
        ("shmctl by index", call(libc::SYS_shmctl, [0, 13, state.as_ptr() as usize])),
        ("removing the segment", call(libc::SYS_shmctl, [segment, libc::IPC_RMID as usize, 0])),
    ] {
        outcomes.note(name, call);
    }
    // The step's own serve it, with the same key.
    let own = call(libc::SYS_shmget, [key, 4096, libc::IPC_CREAT as usize | 0o600])?;
    let mapped = call(libc::SYS_shmat, [own, 0, 0])?;
    call(libc::SYS_shmdt, [mapped])?;
    call(libc::SYS_shmctl, [own, libc::IPC_RMID as usize, 0]).map(drop)
}
