//! Seccomp user notification: system calls of a step that wait until the builder has answered them.
//!
//! The step puts a filter around itself and sends the listener to the builder, which is outside the filter. What the calls are
//! about is not known here: that is for a [`Supervisor`], the metadata log (`log`) or the `emulate` back-end.
//!
//! seccomp_unotify(2)

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::emulate::abi::Abi;
use crate::near::Near;
use crate::{filter, sys};

/// Commands of the listener; the sizes in them are those of the structures below (`linux/seccomp.h`).
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const IS_VALID: u32 = 0x4008_2102;
const ADD_DESCRIPTOR: u32 = 0x4018_2103;

const CONTINUE: u32 = 1;
const PAGE: u64 = 4096;

/// `struct seccomp_notif`: the kernel's words for a call that waits.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Call {
    id: u64,
    /// The calling thread.
    pub thread: u32,
    flags: u32,
    pub number: i32,
    arch: u32,
    /// Address behind the instruction that calls.
    pub instruction: u64,
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`
#[repr(C)]
struct AddDescriptor {
    id: u64,
    flags: u32,
    source: i32,
    new: i32,
    new_flags: u32,
}

const _: () = assert!(size_of::<Call>() == 80 && size_of::<Response>() == 24 && size_of::<AddDescriptor>() == 24);

/// What becomes of a call.
pub enum Answer {
    /// The kernel does it. The arguments may have been changed since they were looked at: never a permission.
    Continue,
    /// It has been done, or failed, on behalf of the caller; the value is 0.
    Done(Result<(), Errno>),
    /// As `Done`, with the value that the caller gets.
    Value(Result<i64, Errno>),
    /// The caller has its answer already ([`Listener::give`], [`Listener::refuse`]), or is gone.
    Given,
}

/// Who answers a step's calls.
pub trait Supervisor: Sync {
    /// How many threads answer at a time.
    fn threads(&self) -> usize;

    fn answer(&self, call: &Call, listener: &Listener) -> Answer;

    /// Whether a call is answered sooner than another thread is woken to wait for the next.
    fn is_quick(&self, _: &Call) -> bool {
        false
    }

    /// From time to time: what waits on behalf of a caller that is gone is to be given up.
    fn look_after(&self) {}

    /// Nobody will call any more: what still waits on behalf of a caller is to be given up.
    fn end(&self) {}
}

/// The threads that answer one step's calls. One of them waits for calls, since the kernel wakes all that do, and has another
/// take its place before it does what is not quick.
pub struct Serving<'scope> {
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
    numbers: Arc<Mutex<Vec<rustix::thread::Pid>>>,
    ended: Arc<AtomicBool>,
}

impl<'scope> Serving<'scope> {
    pub fn start<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        mut listener: Listener,
        supervisor: &'env dyn Supervisor,
        cancelled: &dyn Fn() -> bool,
    ) -> io::Result<Serving<'scope>> {
        listener.wake_here();
        let listener = Arc::new(listener);
        let mut serving = Serving { threads: Vec::new(), numbers: Arc::default(), ended: Arc::default() };
        let leading = Arc::new(Mutex::new(()));
        for _ in 0..supervisor.threads() {
            let (listener, numbers, ended) = (listener.clone(), serving.numbers.clone(), serving.ended.clone());
            let leading = leading.clone();
            let serve = move || {
                numbers.lock().unwrap_or_else(PoisonError::into_inner).push(rustix::thread::gettid());
                let mut lead = None;
                loop {
                    let leading = || leading.lock().unwrap_or_else(PoisonError::into_inner);
                    let held = lead.take().unwrap_or_else(leading);
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let call = match listener.receive() {
                        Ok(Some(call)) => call,
                        Ok(None) => continue,
                        Err(_) => return,
                    };
                    lead = supervisor.is_quick(&call).then_some(held);
                    if listener.give_answer(&call, supervisor.answer(&call, &listener)).is_err() {
                        return;
                    }
                }
            };
            // One is enough.
            if serving.threads.is_empty() {
                serving.threads.push(spawn::scoped(scope, "calls", cancelled, serve)?);
            } else if let Ok(thread) = spawn::scoped_now(scope, "calls", serve) {
                serving.threads.push(thread);
            }
        }
        Ok(serving)
    }

    /// Ends the threads, which may all be waiting for a call that will never come.
    pub fn end(self, supervisor: &dyn Supervisor) {
        self.ended.store(true, Ordering::Relaxed);
        while !self.threads.iter().all(ScopedJoinHandle::is_finished) {
            supervisor.end();
            for thread in self.numbers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                sys::interrupt(*thread);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        supervisor.end();
    }
}

/// The builder's end of a step's filter.
pub struct Listener {
    filter: OwnedFd,
    /// Caller and supervisor take turns on one processor.
    takes_turns: bool,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.filter.as_fd()
    }
}

impl Listener {
    /// The same listener, for another thread.
    pub fn share(&self) -> io::Result<Listener> {
        Ok(Listener { filter: self.filter.try_clone()?, takes_turns: self.takes_turns })
    }

    /// Waits for a call and answers it. A signal ends the waiting.
    ///
    /// # Errors
    /// When nobody is left who could call; before Linux 6.11 it waits for ever then.
    pub fn serve(&self, decide: &mut dyn FnMut(&Call, &Listener) -> Answer) -> rustix::io::Result<()> {
        match self.receive()? {
            Some(call) => self.give_answer(&call, decide(&call, self)),
            None => Ok(()),
        }
    }

    /// Waits for a call; none when a signal has ended the waiting.
    fn receive(&self) -> rustix::io::Result<Option<Call>> {
        let mut call = Call::default();
        match self.control(RECEIVE, (&raw mut call).cast()) {
            Ok(()) => Ok(Some(call)),
            Err(Errno::INTR) => Ok(None),
            // It was killed before it could be asked about, or there is nobody left.
            Err(Errno::NOENT) if !self.is_abandoned() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn give_answer(&self, call: &Call, answer: Answer) -> rustix::io::Result<()> {
        let (value, error, flags) = match answer {
            Answer::Continue => (0, 0, CONTINUE),
            Answer::Done(Ok(())) => (0, 0, 0),
            Answer::Value(Ok(value)) => (value, 0, 0),
            Answer::Done(Err(error)) | Answer::Value(Err(error)) => (0, -error.raw_os_error(), 0),
            Answer::Given => return Ok(()),
        };
        self.respond(Response { id: call.id, value, error, flags })
    }

    /// Answers with an error now; the rest of the decision is [`Answer::Given`].
    pub fn refuse(&self, call: &Call, error: Errno) -> rustix::io::Result<()> {
        self.respond(Response { id: call.id, value: 0, error: -error.raw_os_error(), flags: 0 })
    }

    /// Answers from another thread than the one that received the call; the decision is [`Answer::Given`].
    pub fn reply(&self, call: &Call, result: Result<i64, Errno>) -> rustix::io::Result<()> {
        let (value, error) = result.map_or_else(|error| (0, -error.raw_os_error()), |value| (value, 0));
        self.respond(Response { id: call.id, value, error, flags: 0 })
    }

    fn respond(&self, mut response: Response) -> rustix::io::Result<()> {
        match self.control(SEND, (&raw mut response).cast()) {
            // The caller is gone.
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Gives the caller a copy of a descriptor, which may not be `O_PATH`, and lets it wait on. The kernel chooses the
    /// number (Linux 5.9).
    pub fn give(&self, call: &Call, file: BorrowedFd<'_>, close_on_exec: bool) -> rustix::io::Result<i32> {
        self.add(call, file, 0, close_on_exec)
    }

    /// As [`Listener::give`], and the number is the answer to the call.
    pub fn answer_with(&self, call: &Call, file: BorrowedFd<'_>, close_on_exec: bool) -> rustix::io::Result<i32> {
        const SEND_NUMBER: u32 = 2;
        match self.near(call) {
            Some(near) => {
                let given = self.add(call, file, 0, close_on_exec);
                // Before the caller goes on in its program.
                near.end(|| self.waits(call));
                let number = given?;
                self.reply(call, Ok(number.into()))?;
                Ok(number)
            }
            // Linux 5.14
            None => self.add(call, file, SEND_NUMBER, close_on_exec),
        }
    }

    /// Keeps the caller near until it is let go. None before Linux 6.6, and so only where nothing but its death comes between two
    /// parts of an answer.
    pub fn near(&self, call: &Call) -> Option<Near> {
        if self.takes_turns { Near::to(call.thread, || self.waits(call)) } else { None }
    }

    fn add(&self, call: &Call, file: BorrowedFd<'_>, flags: u32, close_on_exec: bool) -> rustix::io::Result<i32> {
        let new_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
        let mut add = AddDescriptor { id: call.id, flags, source: file.as_raw_fd(), new: 0, new_flags };
        self.number(ADD_DESCRIPTOR, (&raw mut add).cast())
    }

    /// Caller and supervisor take turns: each wakes the other on its own processor (Linux 6.6; nothing before).
    fn wake_here(&mut self) {
        const SET_FLAGS: u32 = 0x4008_2104;
        const SYNC_WAKE_UP: u64 = 1;
        // SAFETY: the command takes its flags by value.
        self.takes_turns = unsafe { libc::ioctl(self.filter.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) } == 0;
    }

    fn is_abandoned(&self) -> bool {
        let mut polled = [PollFd::new(&self.filter, PollFlags::IN)];
        let asked = rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        asked.is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Whether the caller still waits. Until then its number may be another process's.
    pub fn waits(&self, call: &Call) -> bool {
        let mut id = call.id;
        self.control(IS_VALID, (&raw mut id).cast()).is_ok()
    }

    fn control(&self, command: u32, argument: *mut libc::c_void) -> rustix::io::Result<()> {
        self.number(command, argument).map(drop)
    }

    fn number(&self, command: u32, argument: *mut libc::c_void) -> rustix::io::Result<i32> {
        // SAFETY: each caller gives a live structure of the size that is part of the command.
        let done = unsafe { libc::ioctl(self.filter.as_raw_fd(), command as _, argument) };
        if done >= 0 { Ok(done) } else { Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)) }
    }
}

impl Call {
    pub fn abi(&self) -> Abi {
        Abi::of_call(self.arch)
    }

    /// An argument of type int, unsigned or mode_t: the upper half of a register means nothing.
    pub fn number_at(&self, index: usize) -> u32 {
        self.arguments[index] as u32
    }

    /// Opens something of the caller's in /proc: `fd/3`, `cwd`, `root`.
    pub fn open(&self, what: &str) -> rustix::io::Result<OwnedFd> {
        let path = format!("/proc/{}/{what}", self.thread);
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// /proc/PID/status
    pub fn status(&self) -> io::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/status", self.thread))
    }

    /// The text at an address of the caller's; at most `PATH_MAX` with its end.
    pub fn text(&self, address: u64) -> io::Result<CString> {
        let memory = self.memory()?;
        let mut text = Vec::new();
        let mut page = [0; PAGE as usize];
        while text.len() < libc::PATH_MAX as usize {
            let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
            // Not over the end of a page: the next one may not be there.
            let part = &mut page[..(PAGE - at % PAGE) as usize];
            let count = memory.read_at(part, at)?;
            let read = &part[..count];
            match read.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&read[..end]);
                    return CString::new(text).map_err(|_| Errno::FAULT.into());
                }
                None if count == 0 => return Err(Errno::FAULT.into()),
                None => text.extend_from_slice(read),
            }
        }
        Err(Errno::NAMETOOLONG.into())
    }

    /// `length` bytes of the caller's memory.
    pub fn bytes(&self, address: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory()?.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }

    /// Refused when the caller has rights that we have not, or another user: then nothing is known of it.
    fn memory(&self) -> io::Result<File> {
        File::open(format!("/proc/{}/mem", self.thread))
    }
}

/// Puts a filter around this process that makes the system calls with these numbers wait for the listener.
///
/// Takes the way without privilege, `no_new_privs`: a set-user-ID program, like sudo, gives no rights from here on.
pub fn listen(numbers: &[u32]) -> io::Result<OwnedFd> {
    rustix::thread::set_no_new_privs(true)?;
    // WAIT_KILLABLE_RECV (Linux 5.19): otherwise a signal makes the caller repeat a mknod that has been done.
    filter::listener(numbers, filter::NEW_LISTENER | filter::WAIT_KILLABLE)
        .or_else(|_| filter::listener(numbers, filter::NEW_LISTENER))
}

/// As [`listen`], for the `emulate` back-end: every call about files, ids and addresses, with `pass` for its own, and sends
/// the listener along.
pub fn listen_emulated(pass: u64, to: &UnixStream) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // Nobody but this process ever knows this one: the step could send anything anywhere with it.
    let ticket = crate::emulate::random()?;
    let passes = filter::Passes { execute: pass, send: ticket };
    let listener = filter::emulated(passes, filter::NEW_LISTENER | filter::WAIT_KILLABLE)
        .or_else(|_| filter::emulated(passes, filter::NEW_LISTENER))?;
    send_past(&listener, to, ticket)
}

/// As [`send`], by a process whose filter asks about sendmsg(2) as well, unless its sixth argument is `pass`.
fn send_past(listener: &OwnedFd, to: &UnixStream, pass: u64) -> io::Result<()> {
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        descriptor: libc::c_int,
    }
    let mut blank = *b" ";
    let mut vector = libc::iovec { iov_base: blank.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: both are plain data for which zeroes are valid.
    let (mut control, mut message) = unsafe { (std::mem::zeroed::<Control>(), std::mem::zeroed::<libc::msghdr>()) };
    control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<libc::c_int>()) as _;
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    control.descriptor = listener.as_raw_fd();
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1 as _;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the message points to live data with the sizes that it says; the last three arguments are not looked at.
    let sent = unsafe { libc::syscall(libc::SYS_sendmsg, to.as_raw_fd(), &raw const message, 0, 0, 0, pass) };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends the listener along with one blank, which readers of JSON skip.
pub fn send(listener: &OwnedFd, to: &UnixStream) -> io::Result<()> {
    let handles = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&handles));
    rustix::net::sendmsg(to, &[io::IoSlice::new(b" ")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Reads without waiting, as recv(2), and takes a listener that comes along.
pub fn receive(from: &UnixStream, buffer: &mut [u8], listener: &mut Option<Listener>) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(from, &mut [io::IoSliceMut::new(buffer)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handles) = message {
            *listener = handles.last().map(|filter| Listener { filter, takes_turns: false }).or(listener.take());
        }
    }
    Ok(got.bytes)
}

/// What seccomp(2) returned, as a descriptor of ours.
pub fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(returned) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
