//! A thread that is traced for the length of one execve.
//!
//! ptrace(2). Every signal that can be is blocked from the first stop on, so that none of its handlers runs with the
//! registers of ours: the kernel queues again what comes out of the queue blocked.

use std::io;

use rustix::io::Errno;

use super::super::abi::Abi;
use crate::near::Near;

/// The thread does not exist any more, or cannot go on as what it is and is killed.
#[derive(Debug)]
pub struct Gone;

impl From<Errno> for Gone {
    fn from(_: Errno) -> Gone {
        Gone
    }
}

/// What became of a system call that the thread was made to do.
#[derive(PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The result: not negative, or an error's number.
    Returned(i64),
    /// The old program is gone.
    Executed,
}

/// What a thread has to get back.
pub struct Saved {
    /// In which it has called, and is to call again.
    abi: Abi,
    registers: Registers,
    /// Those that are blocked.
    pub signals: u64,
}

enum Stop {
    /// Before or after a system call.
    Call,
    Executed,
    /// Anything else, with the signal to go on with.
    Other(i32),
}

/// What is asked of the kernel (`linux/ptrace.h`, `asm/ptrace-abi.h`).
mod request {
    pub const POKE: u32 = 5;
    pub const CONTINUE: u32 = 7;
    pub const DETACH: u32 = 17;
    pub const TO_NEXT_CALL: u32 = 24;
    #[cfg(target_arch = "x86_64")]
    pub const GET_REGISTERS: u32 = 12;
    #[cfg(target_arch = "x86_64")]
    pub const SET_REGISTERS: u32 = 13;
    #[cfg(not(target_arch = "x86_64"))]
    pub const GET_REGISTERS: u32 = 0x4204;
    #[cfg(not(target_arch = "x86_64"))]
    pub const SET_REGISTERS: u32 = 0x4205;
    pub const SEIZE: u32 = 0x4206;
    pub const INTERRUPT: u32 = 0x4207;
    pub const GET_SIGNALS: u32 = 0x420a;
    pub const SET_SIGNALS: u32 = 0x420b;
}

const EVENT_EXEC: i32 = libc::PTRACE_EVENT_EXEC;
const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
const ALL_SIGNALS: u64 = u64::MAX;

pub struct Tracee {
    thread: i32,
    traced: bool,
    /// A signal that it was about to get when it stopped.
    pending: i32,
    /// Until it goes on in its program.
    near: Option<Near>,
}

impl Drop for Tracee {
    /// A thread in the middle of something cannot be left to itself.
    fn drop(&mut self) {
        if self.traced {
            // SAFETY: takes numbers only; as long as we trace it the number is nobody else's.
            unsafe { libc::kill(self.thread, libc::SIGKILL) };
            while let Ok(stop) = self.wait() {
                let _ = self.resume(request::CONTINUE, if let Stop::Other(signal) = stop { signal } else { 0 });
            }
        }
    }
}

impl Tracee {
    /// Begins to trace a thread, which runs on.
    pub fn seize(thread: u32) -> Result<Tracee, Errno> {
        let thread = i32::try_from(thread).map_err(|_| Errno::SRCH)?;
        // SAFETY: PTRACE_SEIZE takes the options as a number and no address.
        let done = unsafe { libc::ptrace(request::SEIZE as _, thread, 0usize, OPTIONS as usize) };
        if done == 0 { Ok(Tracee { thread, traced: true, pending: 0, near: None }) } else { Err(last_error()) }
    }

    /// Has it stay on this thread's processor until it goes on in its program. It has to wait in a call.
    pub fn stay_near(&mut self, near: Option<Near>) {
        self.near = near;
    }

    /// Has it stop before it goes on in its program.
    pub fn interrupt(&mut self) -> Result<(), Gone> {
        self.request(request::INTERRUPT, 0, 0)
    }

    /// Stops tracing a thread that nothing has been done to.
    pub fn let_go(&mut self) -> Result<(), Gone> {
        self.interrupt()?;
        self.first_stop()?;
        self.detach()
    }

    /// Waits until it is about to go on in its program, and keeps what it was.
    pub fn stopped(&mut self, abi: Abi) -> Result<Saved, Gone> {
        self.first_stop()?;
        let registers = self.registers()?;
        let mut signals = 0u64;
        self.request(request::GET_SIGNALS, size_of::<u64>(), &raw mut signals as usize)?;
        self.set_signals(ALL_SIGNALS)?;
        Ok(Saved { abi, registers, signals })
    }

    fn first_stop(&mut self) -> Result<(), Gone> {
        loop {
            match self.wait()? {
                Stop::Other(signal) => {
                    self.pending = signal;
                    return Ok(());
                }
                Stop::Call | Stop::Executed => self.resume(request::CONTINUE, 0)?,
            }
        }
    }

    /// Has it do a system call (the number is this machine's) with the instruction before `behind`, and waits until it is done.
    pub fn call(
        &mut self,
        saved: &Saved,
        behind: u64,
        number: libc::c_long,
        arguments: [u64; 6],
    ) -> Result<Outcome, Gone> {
        self.call_until(saved, behind, number, arguments, ALL_SIGNALS)
    }

    /// As [`Tracee::call`], for one that may take long: the signals that the thread does not block itself end it (`EINTR`).
    pub fn call_and_wait(
        &mut self,
        saved: &Saved,
        behind: u64,
        number: libc::c_long,
        arguments: [u64; 6],
    ) -> Result<Outcome, Gone> {
        /// ERESTARTSYS to ERESTART_RESTARTBLOCK of `linux/errno.h`, which no program ever sees.
        const INTERRUPTED: std::ops::RangeInclusive<i64> = -516..=-512;
        match self.call_until(saved, behind, number, arguments, saved.signals)? {
            Outcome::Returned(result) if INTERRUPTED.contains(&result) => {
                Ok(Outcome::Returned(-i64::from(libc::EINTR)))
            }
            outcome => Ok(outcome),
        }
    }

    /// `signals` are blocked from when the call has begun: before it a handler would be run in its place.
    fn call_until(
        &mut self,
        saved: &Saved,
        behind: u64,
        number: libc::c_long,
        arguments: [u64; 6],
        signals: u64,
    ) -> Result<Outcome, Gone> {
        let number = saved.abi.number(number);
        self.set_registers(&saved.registers.calling(saved.abi, behind, number.into(), arguments))?;
        let pending = std::mem::take(&mut self.pending);
        self.resume(request::TO_NEXT_CALL, pending)?;
        let mut entered = false;
        loop {
            let signal = match self.wait()? {
                Stop::Executed => return Ok(Outcome::Executed),
                Stop::Call if entered => return Ok(Outcome::Returned(self.registers()?.result(saved.abi))),
                Stop::Call => {
                    entered = true;
                    if signals != ALL_SIGNALS {
                        self.set_signals(signals)?;
                    }
                    0
                }
                Stop::Other(signal) => signal,
            };
            self.resume(request::TO_NEXT_CALL, signal)?;
        }
    }

    /// Lets it go on as if its own call had returned `result`.
    pub fn return_from_call(&mut self, saved: &Saved, behind: u64, result: i64) -> Result<(), Gone> {
        self.set_registers(&saved.registers.returned(behind, result))?;
        self.go_on(saved.signals)
    }

    /// Lets it make its own call again.
    pub fn repeat(&mut self, saved: &Saved, behind: u64, number: i32, arguments: [u64; 6]) -> Result<(), Gone> {
        self.set_registers(&saved.registers.calling(saved.abi, behind, number as u64, arguments))?;
        self.go_on(saved.signals)
    }

    /// Stops tracing; the signals that are not in the set may come.
    pub fn go_on(&mut self, signals: u64) -> Result<(), Gone> {
        self.set_signals(signals)?;
        self.detach()
    }

    fn set_signals(&self, mut signals: u64) -> Result<(), Gone> {
        self.request(request::SET_SIGNALS, size_of::<u64>(), &raw mut signals as usize)
    }

    fn detach(&mut self) -> Result<(), Gone> {
        // As long as we trace it the number is nobody else's.
        if let Some(near) = self.near.take() {
            near.end(|| true);
        }
        self.request(request::DETACH, 0, self.pending as usize)?;
        self.traced = false;
        Ok(())
    }

    fn resume(&self, how: u32, signal: i32) -> Result<(), Gone> {
        self.request(how, 0, signal as usize)
    }

    pub fn registers(&self) -> Result<Registers, Gone> {
        let mut registers = Registers::default();
        self.register_set(request::GET_REGISTERS, &mut registers)?;
        Ok(registers)
    }

    pub fn set_registers(&self, registers: &Registers) -> Result<(), Gone> {
        self.register_set(request::SET_REGISTERS, &mut registers.clone())
    }

    /// All registers with their 64 bits, whatever program the thread runs: the way of other architectures would have those
    /// of i386 for its programs.
    #[cfg(target_arch = "x86_64")]
    fn register_set(&self, request: u32, registers: &mut Registers) -> Result<(), Gone> {
        self.request(request, 0, &raw mut registers.0 as usize)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn register_set(&self, request: u32, registers: &mut Registers) -> Result<(), Gone> {
        const NT_PRSTATUS: usize = 1;
        let mut part = libc::iovec { iov_base: (&raw mut registers.0).cast(), iov_len: size_of_val(&registers.0) };
        self.request(request, NT_PRSTATUS, &raw mut part as usize)
    }

    fn request(&self, request: u32, address: usize, data: usize) -> Result<(), Gone> {
        // SAFETY: each caller gives a number, or the address of something that lives and has the size that the request wants.
        let done = unsafe { libc::ptrace(request as _, self.thread, address, data) };
        if done == 0 { Ok(()) } else { Err(Gone) }
    }

    fn wait(&mut self) -> Result<Stop, Gone> {
        // Not for its number: when a thread that does not lead its process executes, it takes the number of the one that
        // does, and whoever waits for either number sleeps on (Linux `fs/exec.c`, de_thread).
        let mut status = 0;
        // SAFETY: the status is a live integer.
        let found = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        match found {
            -1 if last_error() == Errno::INTR => self.wait(),
            found if found >= 0 && libc::WIFSTOPPED(status) => Ok(self.stop(found, status)),
            _ => {
                self.traced = false;
                Err(Gone)
            }
        }
    }

    fn stop(&mut self, found: i32, status: i32) -> Stop {
        let (event, signal) = (status >> 16, libc::WSTOPSIG(status));
        if event == EVENT_EXEC {
            self.thread = found;
            return Stop::Executed;
        }
        match signal {
            _ if event != 0 => Stop::Other(0),
            signal if signal == libc::SIGTRAP | 0x80 => Stop::Call,
            signal => Stop::Other(signal),
        }
    }

    /// Its number, which execve(2) changes for a thread that does not lead its process.
    pub fn thread(&self) -> u32 {
        self.thread.cast_unsigned()
    }

    /// Reads its memory; less than asked for where it ends.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Gone> {
        read(self.thread, at, buffer).map_err(Gone::from)
    }

    /// Writes to its stack, which grows where it has to.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Gone> {
        if write(self.thread, at, bytes) != Ok(bytes.len()) {
            // This way of writing makes a stack grow, the other one does not.
            self.request(request::POKE, at as usize, 0)?;
            if write(self.thread, at, bytes) != Ok(bytes.len()) {
                return Err(Gone);
            }
        }
        Ok(())
    }

    /// Device and inode of something in its directory in /proc.
    pub fn identity(&self, what: &str) -> Result<(u64, u64), Gone> {
        let stat = rustix::fs::stat(format!("/proc/{}/{what}", self.thread))?;
        Ok((stat.st_dev as u64, stat.st_ino as u64))
    }
}

/// The address of the NUL at the end of a text in somebody's memory.
pub fn end_of_text(process: u32, start: u64) -> Result<u64, Errno> {
    const PIECE: u64 = 256;
    let process = i32::try_from(process).map_err(|_| Errno::SRCH)?;
    let mut piece = [0; PIECE as usize];
    let mut at = start;
    while at - start <= libc::PATH_MAX as u64 {
        // Pieces end where pages end: the next page may not be there.
        let length = (PIECE - at % PIECE) as usize;
        let count = read(process, at, &mut piece[..length])?;
        match piece[..count].iter().position(|byte| *byte == 0) {
            Some(end) => return Ok(at + end as u64),
            None if count < length => return Err(Errno::FAULT),
            None => at = at.checked_add(length as u64).ok_or(Errno::FAULT)?,
        }
    }
    Err(Errno::NAMETOOLONG)
}

fn read(process: i32, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let here = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let there = libc::iovec { iov_base: at as *mut _, iov_len: buffer.len() };
    // SAFETY: `here` is a live buffer of its length; `there` is not this process's memory.
    count(unsafe { libc::process_vm_readv(process, &raw const here, 1, &raw const there, 1, 0) })
}

fn write(process: i32, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let here = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let there = libc::iovec { iov_base: at as *mut _, iov_len: bytes.len() };
    // SAFETY: `here` is a live buffer of its length and only read; `there` is not this process's memory.
    count(unsafe { libc::process_vm_writev(process, &raw const here, 1, &raw const there, 1, 0) })
}

fn count(returned: libc::ssize_t) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| last_error())
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[derive(Clone)]
pub struct Registers(libc::user_regs_struct);

impl Default for Registers {
    fn default() -> Registers {
        // SAFETY: plain numbers.
        Registers(unsafe { std::mem::zeroed() })
    }
}

#[cfg(target_arch = "x86_64")]
impl Registers {
    /// Those with which the instruction before `behind` calls.
    fn calling(&self, abi: Abi, behind: u64, number: u64, [a, b, c, d, e, f]: [u64; 6]) -> Registers {
        let mut new = self.returned(behind, number as i64);
        let to = &mut new.0;
        // `syscall` has two bytes, and `int 0x80` too. Where a library calls by `sysenter`, the kernel goes on behind
        // an `int 0x80` that stands there for this purpose (`entry/vdso/vdso32/system_call.S`).
        to.rip = behind.wrapping_sub(2);
        match abi {
            Abi::Own => (to.rdi, to.rsi, to.rdx, to.r10, to.r8, to.r9) = (a, b, c, d, e, f),
            Abi::I386 => (to.rbx, to.rcx, to.rdx, to.rsi, to.rdi, to.rbp) = (a, b, c, d, e, f),
        }
        new
    }

    /// Those behind a call that has a result.
    fn returned(&self, behind: u64, result: i64) -> Registers {
        let mut new = self.clone();
        (new.0.rip, new.0.rax) = (behind, result as u64);
        // It is in no call, so the kernel repeats none.
        new.0.orig_rax = u64::MAX;
        new
    }

    fn result(&self, abi: Abi) -> i64 {
        match abi {
            Abi::Own => self.0.rax as i64,
            Abi::I386 => i64::from(self.0.rax as i32),
        }
    }

    pub fn stack(&self) -> u64 {
        self.0.rsp
    }

    pub fn set_stack(&mut self, stack: u64) {
        self.0.rsp = stack;
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers {
    /// Those with which the instruction before `behind` calls.
    fn calling(&self, _: Abi, behind: u64, number: u64, arguments: [u64; 6]) -> Registers {
        let mut new = self.clone();
        new.0.pc = behind.wrapping_sub(4);
        new.0.regs[..6].copy_from_slice(&arguments);
        new.0.regs[8] = number;
        new
    }

    /// Those behind a call that has a result.
    fn returned(&self, behind: u64, result: i64) -> Registers {
        let mut new = self.clone();
        (new.0.pc, new.0.regs[0]) = (behind, result as u64);
        new
    }

    fn result(&self, _: Abi) -> i64 {
        self.0.regs[0] as i64
    }

    pub fn stack(&self) -> u64 {
        self.0.sp
    }

    pub fn set_stack(&mut self, stack: u64) {
        self.0.sp = stack;
    }
}
