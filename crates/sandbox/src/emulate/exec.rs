//! execve(2) for a program that lies in another root than the kernel's.
//!
//! The caller waits for its answer to the notification of its execve. It gets the descriptors it needs, is stopped for a moment
//! (ptrace), executes the stub instead, and the new stack is made what the kernel would have made it for the program.
//!
//! What the caller could change meanwhile (the text of the path, its descriptors) is looked at again when the old program is
//! gone, and nobody but the builder can change it any more.
//!
//! The thread that calls [`execute`] has to have no children, since it waits for what it traces. And no caller may be a child
//! of this process: a wait for a child takes what was meant for the thread that traces it, and the other way round.

mod layout;
pub mod rehearsal;
mod stack;
#[cfg(test)]
mod tests;
mod tracee;
mod turn;

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use super::abi::Abi;
use super::elf::{self, Image};
use super::stub::{self, Loader, Step};
use crate::notify::{Call, Listener};
use layout::Room;
use stack::{New, Vectors};
use tracee::{Gone, Outcome, Tracee};
use turn::Turn;

/// One execve that has been allowed.
pub struct Request<'a> {
    /// The program, open to read.
    pub program: BorrowedFd<'a>,
    /// What its PT_INTERP names, open to read.
    pub interpreter: Option<BorrowedFd<'a>>,
    /// Addresses in the caller's memory, as given to execve.
    pub path: u64,
    pub argv: u64,
    pub envp: u64,
    /// What stands in the place of `argv[0]`: for a script its interpreter, the one argument, and the script.
    pub arguments: Option<Vec<CString>>,
    /// For AT_EXECFN.
    pub shown_path: CString,
    /// What /proc/PID/comm says: the last component of the path that was executed, at most 15 bytes.
    pub name: CString,
    /// For AT_UID, AT_EUID, AT_GID, AT_EGID.
    pub ids: [u32; 4],
    /// For AT_SECURE: the program gives other ids than the caller's.
    pub secure: bool,
}

/// What the filter lets pass: an execveat(2) whose sixth argument, which the call does not have, is this number.
///
/// The caller can read it (`/proc/self/syscall`): it saves a second question and is no permission.
pub type Pass = u64;

/// As much of a pass as an argument of such a program holds.
pub const fn pass_of(abi: Abi, pass: Pass) -> Pass {
    match abi {
        Abi::Own => pass,
        Abi::I386 => pass as u32 as Pass,
    }
}

/// Has the caller execute a program. `at_exec` is called with the thread that is left, when the old program is gone and before
/// the new one has done anything.
///
/// # Errors
/// The call still waits for its answer. Once it does not (the kernel refused the stub, the caller died) the outcome is Ok.
/// `ENOEXEC` when the program, `ELIBBAD` when its interpreter cannot be one; `EPERM` when the caller may not be traced.
pub fn execute(
    call: &Call,
    listener: &Listener,
    pass: Pass,
    request: &Request<'_>,
    at_exec: &mut dyn FnMut(u32) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let program = image(request.program)?;
    let loader = stub::loader(program.abi)?;
    let interpreter = request.interpreter.map(image).transpose().map_err(|error| match error {
        // A shell would take a program without one for a script.
        Errno::NOEXEC => Errno::LIBBAD,
        error => error,
    })?;
    if program.interpreter.is_some() != interpreter.is_some() {
        return Err(Errno::NOEXEC);
    }
    if interpreter.as_ref().is_some_and(|interpreter| interpreter.abi != program.abi) {
        return Err(Errno::LIBBAD);
    }
    let empty = tracee::end_of_text(call.thread, request.path)?;
    let _turn = Turn::of(call.thread);
    let mut tracee = Tracee::seize(call.thread)?;
    if listener.waits(call) {
        tracee.stay_near(listener.near(call));
        let change = Change { call, listener, pass, request, loader, program, interpreter, empty };
        // Whoever is gone needs no answer.
        let _ = change.run(&mut tracee, at_exec);
    } else {
        // A signal got ahead of us: the call comes again. Only before Linux 5.19.
        let _ = tracee.let_go();
    }
    Ok(())
}

/// Has the caller do another system call (the number is this machine's) than the one that waits for its answer, with the
/// arguments in registers, and gives it the result. That call is asked about like any other: the thread that calls this must
/// not be one that answers. It has to have no children either.
///
/// # Errors
/// The call still waits for its answer: `EPERM` when the caller may not be traced.
pub fn call_instead(call: &Call, listener: &Listener, number: libc::c_long, arguments: [u64; 6]) -> Result<(), Errno> {
    let mut tracee = Tracee::seize(call.thread)?;
    // Whoever is gone needs no answer.
    let _ =
        if listener.waits(call) { instead(&mut tracee, call, listener, number, arguments) } else { tracee.let_go() };
    Ok(())
}

fn instead(
    tracee: &mut Tracee,
    call: &Call,
    listener: &Listener,
    number: libc::c_long,
    arguments: [u64; 6],
) -> Result<(), Gone> {
    tracee.interrupt()?;
    // The answer does not matter, it is replaced.
    listener.refuse(call, Errno::NOSYS)?;
    let saved = tracee.stopped(call.abi())?;
    match tracee.call_and_wait(&saved, call.instruction, number, arguments)? {
        Outcome::Returned(result) => tracee.return_from_call(&saved, call.instruction, result),
        Outcome::Executed => Err(Gone),
    }
}

fn image(file: BorrowedFd<'_>) -> Result<Image, Errno> {
    // The kernel's answer, too. Later it would be the loader whose mmap(2) fails.
    if rustix::fs::fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(Errno::ACCESS);
    }
    elf::open(file)
}

/// One program that becomes another.
struct Change<'a> {
    call: &'a Call,
    listener: &'a Listener,
    pass: Pass,
    request: &'a Request<'a>,
    loader: &'a Loader,
    program: Image,
    interpreter: Option<Image>,
    /// Address of an empty text in the caller's memory.
    empty: u64,
}

/// Numbers of descriptors in the caller.
#[derive(Default)]
struct Given {
    loader: Option<i32>,
    program: Option<i32>,
    interpreter: Option<i32>,
}

impl Change<'_> {
    fn run(&self, tracee: &mut Tracee, at_exec: &mut dyn FnMut(u32) -> Result<(), Errno>) -> Result<(), Gone> {
        let Call { instruction, number, arguments, .. } = *self.call;
        let mut given = Given::default();
        let loader = self.give(&mut given);
        // A signal has ended the wait: only before Linux 5.19.
        let again = loader.is_err() && !self.listener.waits(self.call);
        tracee.interrupt()?;
        // The answer does not matter, it is replaced. Where the interruption has ended the wait there is none any more.
        self.listener.refuse(self.call, Errno::NOSYS)?;
        let abi = self.call.abi();
        let saved = tracee.stopped(abi)?;
        if self.request.secure && loader.is_ok() {
            self.reset(tracee, &saved)?;
        }
        let outcome = match loader {
            Ok(loader) => {
                let Request { argv, envp, .. } = *self.request;
                let arguments = [loader as u64, self.empty, argv, envp, EMPTY_PATH, pass_of(abi, self.pass)];
                tracee.call(&saved, instruction, libc::SYS_execveat, arguments)?
            }
            Err(error) => Outcome::Returned(-i64::from(error.raw_os_error())),
        };
        let Outcome::Returned(result) = outcome else {
            self.check(tracee, &given)?;
            at_exec(tracee.thread())?;
            return self.start(tracee, &given, saved.signals);
        };
        for number in [given.loader, given.program, given.interpreter].into_iter().flatten() {
            let closed = tracee.call(&saved, instruction, libc::SYS_close, [number as u64, 0, 0, 0, 0, 0])?;
            // A filter of its own would let it keep a program that it may not read, and the loader.
            if !matches!(closed, Outcome::Returned(0) | Outcome::Returned(BAD_NUMBER)) {
                return Err(Gone);
            }
        }
        match again {
            true => tracee.repeat(&saved, instruction, number, arguments),
            false => tracee.return_from_call(&saved, instruction, result),
        }
    }

    /// Takes from a process what it may not keep over a program that gives it other ids (`fs/exec.c` begin_new_exec): to the kernel the
    /// loader is none. It has no filter of its own, since those have `no_new_privs`.
    fn reset(&self, tracee: &mut Tracee, saved: &tracee::Saved) -> Result<(), Gone> {
        /// `linux/personality.h` PER_CLEAR_ON_SETID: how addresses are chosen, and what is at address 0.
        const CLEARED: i64 = 0x0004_0000 | 0x0010_0000 | 0x0020_0000 | 0x0040_0000;
        let mut call = |number, arguments: [u64; 2]| {
            let arguments = [arguments[0], arguments[1], 0, 0, 0, 0];
            match tracee.call(saved, self.call.instruction, number, arguments)? {
                Outcome::Returned(result) => Ok(result),
                Outcome::Executed => Err(Gone),
            }
        };
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, 0])?;
        let personality = call(libc::SYS_personality, [0xffff_ffff, 0])?;
        if personality & CLEARED == 0 {
            return Ok(());
        }
        let set = call(libc::SYS_personality, [(personality & !CLEARED) as u64, 0])?;
        if set == personality { Ok(()) } else { Err(Gone) }
    }

    /// Gives the caller what it needs; what has been given is known also when the rest could not be.
    fn give(&self, given: &mut Given) -> Result<i32, Errno> {
        let Request { program, interpreter, .. } = *self.request;
        given.program = Some(self.listener.give(self.call, program, false)?);
        given.interpreter = interpreter.map(|file| self.listener.give(self.call, file, false)).transpose()?;
        let loader = self.listener.give(self.call, self.loader.file.as_fd(), true)?;
        given.loader = Some(loader);
        Ok(loader)
    }

    /// Makes the new stack and the loader's table, and lets the caller go on.
    fn start(&self, tracee: &mut Tracee, given: &Given, signals: u64) -> Result<(), Gone> {
        let mut registers = tracee.registers()?;
        let abi = self.program.abi;
        let old = Vectors::read(abi, &mut |at, buffer| tracee.read(at, buffer), registers.stack())?;
        let room = Room::of(registers.stack(), &old, rustix::param::page_size() as u64);
        let [random] = layout::random()?;
        let program = room.program(&self.program, random);
        let interpreter = self.interpreter.as_ref().map(|image| room.interpreter(image));
        let new = New {
            arguments: self.request.arguments.as_deref(),
            shown_path: &self.request.shown_path,
            values: &self.values(program, interpreter),
        };
        let (stack, content) = old.renew(&new);

        let mut steps = layout::map(&self.program, program, given.program.ok_or(Gone)?, room.page);
        if let (Some(image), Some(bias), Some(number)) = (&self.interpreter, interpreter, given.interpreter) {
            steps.extend(layout::map(image, bias, number, room.page));
        }
        steps.extend([given.program, given.interpreter].into_iter().flatten().map(layout::close));
        if self.program.executable_stack {
            steps.push(layout::executable_stack(stack, &old, room.page));
        }
        let entry = match (&self.interpreter, interpreter) {
            (Some(image), Some(bias)) => image.entry.wrapping_add(bias),
            _ => self.program.entry.wrapping_add(program),
        };
        let jump = Step::Jump { stack, entry };
        let (table, bytes) = layout::table(abi, steps, &self.request.name, jump, content);
        tracee.write(table, &bytes)?;
        registers.set_stack(table);
        tracee.set_registers(&registers)?;
        tracee.go_on(signals)
    }

    /// What the kernel tells the program about itself.
    fn values(&self, program: u64, interpreter: Option<u64>) -> [(u64, u64); 10] {
        let [uid, euid, gid, egid] = self.request.ids.map(u64::from);
        [
            (stack::HEADERS, self.program.headers.map_or(0, |address| address.wrapping_add(program))),
            (stack::HEADER_SIZE, self.program.header_size() as u64),
            (stack::HEADER_COUNT, u64::from(self.program.header_count)),
            (stack::INTERPRETER, interpreter.unwrap_or(0)),
            (stack::ENTRY, self.program.entry.wrapping_add(program)),
            (stack::UID, uid),
            (stack::EUID, euid),
            (stack::GID, gid),
            (stack::EGID, egid),
            (stack::SECURE, u64::from(self.request.secure)),
        ]
    }

    /// That it is the loader that has been executed: the empty path may have had a text by then. And where the program
    /// gives ids, that it is the program: another thread may have put something else under its number.
    fn check(&self, tracee: &Tracee, given: &Given) -> Result<(), Gone> {
        let mut same = tracee.identity("exe")? == self.loader.identity;
        if self.request.secure {
            let pairs = [(given.program, Some(self.request.program)), (given.interpreter, self.request.interpreter)];
            for (number, file) in pairs {
                if let (Some(number), Some(file)) = (number, file) {
                    let stat = rustix::fs::fstat(file)?;
                    same &= tracee.identity(&format!("fd/{number}"))? == (stat.st_dev as u64, stat.st_ino as u64);
                }
            }
        }
        if same { Ok(()) } else { Err(Gone) }
    }
}

/// What close(2) answers when another thread was faster.
const BAD_NUMBER: i64 = -(libc::EBADF as i64);

/// AT_EMPTY_PATH
const EMPTY_PATH: u64 = 0x1000;
