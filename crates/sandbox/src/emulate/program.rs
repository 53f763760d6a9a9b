//! execve(2): which program it is, and what it is run by.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{FileType, OFlags, Statx};
use rustix::io::Errno;

use super::caller::{AT_FDCWD, Caller, EMPTY_PATH, Handled, NO_FOLLOW, Reply};
use super::ids::{EXECUTE, READ};
use super::place::{Opened, Spot, Target, id_of, path_by_kernel, type_of};
use super::{elf, exec};

/// As deep as interpreters of interpreters may go (`fs/exec.c` exec_binprm).
const DEPTH: usize = 5;
/// How much of a file is looked at to tell what it is (`linux/binfmts.h` BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// `asm-generic/fcntl.h`
const F_SETSIG: libc::c_int = 10;
/// Longest name of a process, without its end (`linux/sched.h` TASK_COMM_LEN).
const COMM: usize = 15;

/// A program that was found, open to read.
struct Program {
    file: OwnedFd,
    found: Statx,
    /// Where it is, links resolved.
    exe: Vec<u8>,
    /// Whether the caller may read it, too.
    readable: bool,
}

/// (directory, path, argv, envp, flags)
pub fn execute(caller: &Caller<'_>) -> Handled {
    let flags = caller.number(4);
    let path = caller.path(caller.arguments[1])?;
    let (target, shown) = match path.as_slice() {
        b"" if flags & EMPTY_PATH != 0 => {
            let descriptor = caller.descriptor(0);
            let target = caller.world.places.descriptor(caller.view.thread, descriptor)?;
            (target, format!("/dev/fd/{descriptor}").into_bytes())
        }
        path => (caller.walk(caller.descriptor(0), path, flags & NO_FOLLOW == 0)?, path.to_vec()),
    };
    let mut program = look(caller, target)?;
    let mut arguments: Option<Vec<Vec<u8>>> = None;
    let mut name = shown.clone();
    for depth in 0.. {
        let Some((interpreter, argument)) = script(&program.file)? else { break };
        if depth == DEPTH {
            return Err(Errno::LOOP);
        }
        let before = arguments.unwrap_or_default();
        let mut now = vec![interpreter.clone()];
        now.extend(argument);
        now.push(name);
        now.extend(before.into_iter().skip(1));
        arguments = Some(now);
        program = look(caller, caller.walk(AT_FDCWD, &interpreter, true)?)?;
        name = interpreter;
    }
    start(caller, program, arguments, &shown)
}

fn start(caller: &Caller<'_>, program: Program, arguments: Option<Vec<Vec<u8>>>, shown: &[u8]) -> Handled {
    let interpreter = match elf::open(program.file.as_fd())?.interpreter {
        Some(path) => Some(look(caller, caller.walk(AT_FDCWD, path.as_bytes(), true)?)?),
        None => None,
    };
    let mode = u32::from(program.found.stx_mode);
    let user = (mode & libc::S_ISUID != 0).then_some(program.found.stx_uid);
    let group = (mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0).then_some(program.found.stx_gid);
    let ids = match caller.view.gains_nothing {
        true => caller.view.ids.after_exec_without_gain(),
        false => caller.view.ids.after_exec(user, group),
    };
    let readable = program.readable && interpreter.as_ref().is_none_or(|interpreter| interpreter.readable);
    if !readable && (!caller.is_alone() || caller.view.is_filtered) {
        // The descriptors by which it is loaded are the caller's for a moment: another thread could keep them, and so could one
        // whose filter says that they are closed.
        return Err(Errno::ACCESS);
    }
    let guarded = !readable || ids.user != caller.view.ids.user || ids.group != caller.view.ids.group;
    let text = |text: &[u8]| CString::new(text).map_err(|_| Errno::INVAL);
    let last = shown.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let request = exec::Request {
        program: program.file.as_fd(),
        interpreter: interpreter.as_ref().map(|interpreter| interpreter.file.as_fd()),
        path: caller.arguments[1],
        argv: caller.arguments[2],
        envp: caller.arguments[3],
        arguments: match arguments {
            Some(list) => Some(list.iter().map(|one| text(one)).collect::<Result<_, _>>()?),
            None => None,
        },
        shown_path: text(shown)?,
        name: text(&last[..last.len().min(COMM)])?,
        ids: [ids.user.real, ids.user.effective, ids.group.real, ids.group.effective],
        secure: ids.user.real != ids.user.effective || ids.group.real != ids.group.effective,
    };
    // From before there is anything of the program to be looked into, so that nobody has it open when it begins.
    let before = caller.changing(|state| {
        let before = state.guarded;
        state.guarded |= guarded;
        before
    })?;
    let executed = exec::execute(caller.call, caller.listener, caller.world.pass, &request, &mut |thread| {
        caller.world.tasks.execute(thread, id_of(&program.found), |state| {
            state.guarded = guarded;
            state.ids = ids.clone();
            state.exe = program.exe.as_slice().into();
            state.program = Some(id_of(&program.found));
        })
    });
    if executed.is_err() && guarded && !before {
        caller.changing(|state| state.guarded = false)?;
    }
    executed.map(|()| Reply::Given)
}

/// Opens a program that may be executed: not one that somebody has open to write. What has been opened is what is judged.
fn look(caller: &Caller<'_>, target: Target) -> Result<Program, Errno> {
    match type_of(target.existing()?) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(Errno::LOOP),
        _ => return Err(Errno::ACCESS),
    }
    let held = caller.hold(target)?;
    let found = held.found;
    if !type_of(&found).is_file() {
        return Err(Errno::ACCESS);
    }
    caller.view.ids.may(&found, EXECUTE)?;
    let places = &caller.world.places;
    let exe = match &held.spot {
        Spot::Entry(dir, name) => places.path_of_entry(dir, name.to_bytes())?,
        Spot::Mapped(mapped) => mapped.shown.clone(),
        // What lies nowhere in the step, and is somebody's, is not executed.
        Spot::Open(Opened { area: None, file, .. }) if !places.is_anonymous(file.as_fd())? => {
            return Err(Errno::ACCESS);
        }
        Spot::Open(opened) => places.shown(&path_by_kernel(opened.file.as_fd())?),
        Spot::Node(_) => return Err(Errno::ACCESS),
    };
    let readable = caller.view.ids.may(&found, READ).is_ok();
    let file = super::open::again(&held, OFlags::RDONLY | OFlags::NONBLOCK)?;
    if is_open_to_write(&file) {
        // Not by the builder, which may not have closed yet what the step got, wrote and closed.
        caller.world.given();
        if is_open_to_write(&file) {
            return Err(Errno::TXTBSY);
        }
    }
    Ok(Program { file, found, exe, readable })
}

/// Asks the kernel by the means that it has for it: a lease to read is refused while somebody may write. Somebody who opens
/// the file before the lease is given back makes the kernel tell us, by a signal that nobody has a handler for and that is
/// ignored then: with one a call of any thread of the builder would end with EINTR.
fn is_open_to_write(file: &OwnedFd) -> bool {
    let control = |what, value: libc::c_int| {
        // SAFETY: these take numbers only.
        match unsafe { libc::fcntl(file.as_raw_fd(), what, value) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    let asked = control(F_SETSIG, libc::SIGCHLD).and_then(|()| control(libc::F_SETLEASE, libc::F_RDLCK));
    if asked.is_ok() {
        let _ = control(libc::F_SETLEASE, libc::F_UNLCK);
    }
    // Files of others, and some file systems, have no leases.
    asked.is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN))
}

/// Interpreter and argument.
type Script = (Vec<u8>, Option<Vec<u8>>);

/// Interpreter and argument of a script's first line (`fs/binfmt_script.c`); none for what is no script.
fn script(file: &OwnedFd) -> Result<Option<Script>, Errno> {
    let mut head = [0; HEAD];
    let count = rustix::io::pread(file, &mut head, 0)?;
    let Some(line) = head[..count].strip_prefix(b"#!") else { return Ok(None) };
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let end = line.iter().position(|byte| matches!(byte, b'\n' | 0));
    // A line that is longer must at least hold the whole interpreter.
    let whole = end.is_some() || count < HEAD;
    let line = line[..end.unwrap_or(line.len())].trim_ascii();
    let cut = line.iter().position(blank);
    if line.is_empty() || (cut.is_none() && !whole) {
        return Err(Errno::NOEXEC);
    }
    let (interpreter, argument) = line.split_at(cut.unwrap_or(line.len()));
    let argument = argument.trim_ascii();
    Ok(Some((interpreter.to_vec(), (!argument.is_empty()).then(|| argument.to_vec()))))
}
