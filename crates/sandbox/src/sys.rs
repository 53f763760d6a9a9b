//! The system calls for which neither std nor rustix has a safe function.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use spawn::NoneLeft;

/// What a process sees of [`fork`].
pub enum Forked {
    Child,
    Parent(Pid),
}

/// Forks, unless the process has threads: the child of such a process may hold locks that nobody will ever release.
pub fn fork() -> io::Result<Forked> {
    // Not being able to tell is no yes.
    if fs::read_dir("/proc/self/task")?.count() > 1 {
        return Err(io::Error::other("the process has threads already"));
    }
    // SAFETY: there is one thread only, so the child's memory is consistent and any function may be called in it.
    spawn::patiently(&|| false, || match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork gave no process"))?)),
    })
}

/// Whether there are `depth` processes to be had, each a child of the one before.
pub fn can_fork(depth: u32) -> io::Result<()> {
    match fork()? {
        Forked::Child => exit_now(i32::from(depth > 1 && can_fork(depth - 1).is_err())),
        Forked::Parent(child) => {
            let status = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())?;
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                // The child has waited.
                _ => Err(NoneLeft::named(io::Error::from_raw_os_error(libc::EAGAIN))),
            }
        }
    }
}

/// Moves this process, which has one thread, to new namespaces.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: none of the flags given here is CLONE_FILES, so descriptors stay shared as Rust expects.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// That programs which lie in a directory may be executed.
pub fn executes(directory: &Path) -> io::Result<()> {
    match rustix::fs::statvfs(directory)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        true => Err(io::Error::other("its file system is mounted `noexec` (`--work-dir` names another place)")),
        false => Ok(()),
    }
}

/// An error as strerror tells it, in lower case, without std's `(os error N)`.
pub fn plain(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Ends the process without running anything else of it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Every signal gets its default action and none is blocked: an ignored one would stay ignored over execve.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no function of ours; numbers that cannot be set (KILL, STOP, libc's own) are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read; the old set is not asked for.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Whether a number is that of a thread of this process.
pub fn is_own_thread(thread: u32) -> bool {
    // SAFETY: takes numbers only, and signal 0 is none.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, 0) == 0 }
}

/// Whether a process has one thread: its directory of threads has one more link than an empty one then (`fs/proc/base.c`
/// proc_task_getattr). Not if nobody knows.
pub fn is_alone(thread: u32) -> bool {
    rustix::fs::stat(format!("/proc/{thread}/task")).is_ok_and(|threads| threads.st_nlink == 3)
}

/// Has a thread of this process come back from a call in which it waits. Nothing else happens to it.
pub fn interrupt(thread: Pid) {
    static HANDLED: std::sync::Once = std::sync::Once::new();
    extern "C" fn nothing(_: libc::c_int) {}
    HANDLED.call_once(|| {
        // SAFETY: the structure is zeroed and then filled as sigaction wants it; the handler does nothing, which every
        // thread may do at any time. Without SA_RESTART the call ends.
        unsafe {
            let mut action = std::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut());
        }
    });
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: takes three numbers; a thread that is gone gives ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread.as_raw_nonzero().get(), libc::SIGURG) };
}

/// Whether [`interrupt`] reaches this thread now; else it does nothing, or comes later.
pub fn may_be_interrupted(may: bool) {
    let how = if may { libc::SIG_UNBLOCK } else { libc::SIG_BLOCK };
    // SAFETY: the set is initialised by sigemptyset before it is used; the old set is not asked for.
    unsafe {
        let mut one = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut one);
        libc::sigaddset(&raw mut one, libc::SIGURG);
        libc::pthread_sigmask(how, &raw const one, std::ptr::null_mut());
    }
}

/// Becomes another program; returns only why not.
pub fn execve(program: &OsStr, args: &[CString], env: &[CString]) -> io::Error {
    let Ok(program) = CString::new(program.as_bytes()) else {
        return io::Error::from_raw_os_error(libc::ENOENT);
    };
    let list = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (list(args), list(env));
    // SAFETY: both lists end with a null pointer and point to NUL-terminated strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks every descriptor from 3 on close-on-exec.
pub fn close_rest_on_exec() {
    close_rest(true);
}

/// Closes every descriptor above 2 now.
pub fn close_rest_now() {
    close_rest(false);
}

fn close_rest(on_exec: bool) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    let flags = if on_exec { CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: takes three numbers. What is closed now is nobody's: a process that calls this has just begun.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, flags) };
    if done == 0 {
        return;
    }
    // Linux before 5.11 or a filter that does not know the call.
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for fd in open.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).filter(|fd| *fd > 2) {
        // SAFETY: both take numbers; a descriptor closed meanwhile gives EBADF.
        let _ = unsafe { if on_exec { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } else { libc::close(fd) } };
    }
}

/// Attributes of mount_setattr(2), `linux/mount.h`.
pub mod attribute {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
}

/// Sets attributes on the mount at `at` and keeps the others (Linux 5.12).
pub fn set_mount_attributes(at: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    const AT_RECURSIVE: libc::c_int = 0x8000;
    /// The same number on every architecture.
    const SYS_MOUNT_SETATTR: libc::c_long = 442;
    let attributes = MountAttr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string, the structure has the size that is given and outlives the call.
    let done = unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            at.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Switches the loopback interface of the network namespace on.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data for which zeroes are valid.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A new session keyring, so that the builder's keys are out of reach.
pub fn leave_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring. Refused by seccomp profiles; then nobody else may use keys either.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// Leaves of this process's command line the program's name: whoever asks for it from now on finds nothing else
/// (`std::env::args` as well). The kernel shows what is in the process's memory between two addresses (proc_pid_stat(5): fields
/// 48 and 49).
pub fn hide_arguments() -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let none = || io::Error::from(io::ErrorKind::InvalidData);
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name, in brackets, may hold anything; the third field comes after it.
    let mut fields = text.rsplit_once(')').ok_or_else(none)?.1.split_ascii_whitespace().skip(48 - 3);
    let mut address = || fields.next().and_then(|field| field.parse::<u64>().ok()).ok_or_else(none);
    let (start, end) = (address()?, address()?);
    let length = end.checked_sub(start).filter(|length| *length < 1 << 24).ok_or_else(none)?;
    let memory = fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
    let mut arguments = vec![0; length as usize];
    memory.read_exact_at(&mut arguments, start)?;
    let name = arguments.iter().position(|byte| *byte == 0).unwrap_or(arguments.len());
    arguments[name..].fill(0);
    memory.write_all_at(&arguments[name..], start + name as u64)
}

/// No core files in the rootfs.
pub fn no_core_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = Rlimit { current: Some(0), maximum: getrlimit(Resource::Core).maximum };
    let _ = setrlimit(Resource::Core, limit);
}
