//! Which system calls are asked about, and their one form.
//!
//! Old calls are newer ones with fixed arguments: `open(path, flags, mode)` is `openat(AT_FDCWD, path, flags, mode)`.

use super::abi::Abi;
use super::caller::{Caller, Handled};
use super::change::{self, Times};
use super::ids::Kind;
use super::others::{Priority, Width};
use super::{files, identity, ipc, open, others, program, sockets};

pub use super::sockets::PASSED as PASSED_SOCKETCALLS;

/// What a call comes down to. The arguments of each are at the function that does it.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Open,
    Stat,
    /// With the older of the two structures of i386.
    ShortStat,
    Statx,
    Access,
    ReadLink,
    WorkingDirectory,
    ChangeDirectory,
    ChangeDirectoryTo,
    ChangeRoot,
    FileSystem,
    ShortFileSystem,
    GetAttribute,
    ListAttributes,
    SetAttribute,
    RemoveAttribute,
    MakeDirectory,
    MakeNode,
    MakeSymlink,
    MakeLink,
    Unlink,
    Rename,
    ChangeMode,
    ChangeOwner,
    ChangeTimes(Times),
    Truncate,
    Umask,
    Id(Kind, Which),
    Ids(Kind),
    SetId(Kind),
    SetTwo(Kind),
    SetThree(Kind),
    SetFiles(Kind),
    Groups,
    SetGroups,
    /// With ids of 16 bits.
    ShortId(Kind, Which),
    ShortIds(Kind),
    SetShortFiles(Kind),
    ShortGroups,
    SetShortGroups,
    Capabilities,
    SetCapabilities,
    SystemName,
    ProcessOption,
    SocketPair,
    Seccomp,
    HandleSignal,
    Execute,
    SocketCall,
    Socket,
    Bind,
    Connect,
    Listen,
    SendTo,
    SendMessage,
    SendMessages,
    OwnName,
    PeerName,
    PeerOption,
    Kill,
    /// The process is the argument with this index.
    OnProcess(usize),
    Exists(usize),
    Limit(Width),
    IpcGet(ipc::Kind),
    Ipc(ipc::Kind, ipc::Use),
    Signal(usize),
    SignalBy,
    Look(usize),
    OwnFile,
    Trace,
    Priority(Priority),
}

#[derive(Clone, Copy, Debug)]
pub enum Which {
    Real,
    Effective,
}

/// Where an argument of the form comes from.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// The call's own argument with this index.
    A(usize),
    Is(u64),
    /// 32 bits with a sign.
    Signed(usize),
    /// 64 bits in two arguments, the lower half first.
    Both(usize, usize),
    /// An id of 16 bits, of which the last stands for none.
    Short(usize),
}

use Argument::{A, Both, Is, Short, Signed};
use Operation as O;

const CWD: Argument = Is(libc::AT_FDCWD as u64);
const NONE: Argument = Is(0);
const NO_FOLLOW: Argument = Is(files::following(false));
const EMPTY: Argument = Is(libc::AT_EMPTY_PATH as u64);
#[cfg(target_arch = "x86_64")]
const REMOVE_DIRECTORY: Argument = Is(libc::AT_REMOVEDIR as u64);
/// creat(2)
#[cfg(target_arch = "x86_64")]
const TO_CREATE: Argument = Is((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64);

type Form = (libc::c_long, Operation, &'static [Argument]);

/// fchmodat2: one number on every architecture, like all that are newer than 2019; libc lacks it for some.
const FCHMODAT2: libc::c_long = 452;
const FACCESSAT2: libc::c_long = 439;

const EVERYWHERE: &[Form] = &[
    (libc::SYS_openat, O::Open, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_newfstatat, O::Stat, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_fstat, O::Stat, &[A(0), NONE, A(1), EMPTY]),
    (libc::SYS_statx, O::Statx, &[A(0), A(1), A(2), A(3), A(4)]),
    (libc::SYS_faccessat, O::Access, &[A(0), A(1), A(2), NONE]),
    (FACCESSAT2, O::Access, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_readlinkat, O::ReadLink, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_getcwd, O::WorkingDirectory, &[A(0), A(1)]),
    (libc::SYS_chdir, O::ChangeDirectory, &[A(0)]),
    (libc::SYS_fchdir, O::ChangeDirectoryTo, &[A(0)]),
    (libc::SYS_chroot, O::ChangeRoot, &[A(0)]),
    (libc::SYS_statfs, O::FileSystem, &[A(0), A(1)]),
    (libc::SYS_getxattr, O::GetAttribute, &[CWD, A(0), NONE, A(1), A(2), A(3)]),
    (libc::SYS_lgetxattr, O::GetAttribute, &[CWD, A(0), NO_FOLLOW, A(1), A(2), A(3)]),
    (libc::SYS_fgetxattr, O::GetAttribute, &[A(0), NONE, EMPTY, A(1), A(2), A(3)]),
    (libc::SYS_listxattr, O::ListAttributes, &[CWD, A(0), NONE, A(1), A(2)]),
    (libc::SYS_llistxattr, O::ListAttributes, &[CWD, A(0), NO_FOLLOW, A(1), A(2)]),
    (libc::SYS_flistxattr, O::ListAttributes, &[A(0), NONE, EMPTY, A(1), A(2)]),
    (libc::SYS_setxattr, O::SetAttribute, &[CWD, A(0), NONE, A(1), A(2), A(3)]),
    (libc::SYS_lsetxattr, O::SetAttribute, &[CWD, A(0), NO_FOLLOW, A(1), A(2), A(3)]),
    (libc::SYS_fsetxattr, O::SetAttribute, &[A(0), NONE, EMPTY, A(1), A(2), A(3)]),
    (libc::SYS_removexattr, O::RemoveAttribute, &[CWD, A(0), NONE, A(1)]),
    (libc::SYS_lremovexattr, O::RemoveAttribute, &[CWD, A(0), NO_FOLLOW, A(1)]),
    (libc::SYS_fremovexattr, O::RemoveAttribute, &[A(0), NONE, EMPTY, A(1)]),
    (libc::SYS_mkdirat, O::MakeDirectory, &[A(0), A(1), A(2)]),
    (libc::SYS_mknodat, O::MakeNode, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_symlinkat, O::MakeSymlink, &[A(0), A(1), A(2)]),
    (libc::SYS_linkat, O::MakeLink, &[A(0), A(1), A(2), A(3), A(4)]),
    (libc::SYS_unlinkat, O::Unlink, &[A(0), A(1), A(2)]),
    (libc::SYS_renameat2, O::Rename, &[A(0), A(1), A(2), A(3), A(4)]),
    (libc::SYS_fchmod, O::ChangeMode, &[A(0), NONE, A(1), EMPTY]),
    (libc::SYS_fchmodat, O::ChangeMode, &[A(0), A(1), A(2), NONE]),
    (FCHMODAT2, O::ChangeMode, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_fchown, O::ChangeOwner, &[A(0), NONE, A(1), A(2), EMPTY]),
    (libc::SYS_fchownat, O::ChangeOwner, &[A(0), A(1), A(2), A(3), A(4)]),
    (libc::SYS_utimensat, O::ChangeTimes(Times::Nanoseconds), &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_truncate, O::Truncate, &[A(0), A(1)]),
    (libc::SYS_umask, O::Umask, &[A(0)]),
    (libc::SYS_getuid, O::Id(Kind::User, Which::Real), &[]),
    (libc::SYS_geteuid, O::Id(Kind::User, Which::Effective), &[]),
    (libc::SYS_getgid, O::Id(Kind::Group, Which::Real), &[]),
    (libc::SYS_getegid, O::Id(Kind::Group, Which::Effective), &[]),
    (libc::SYS_getresuid, O::Ids(Kind::User), &[A(0), A(1), A(2)]),
    (libc::SYS_getresgid, O::Ids(Kind::Group), &[A(0), A(1), A(2)]),
    (libc::SYS_setuid, O::SetId(Kind::User), &[A(0)]),
    (libc::SYS_setgid, O::SetId(Kind::Group), &[A(0)]),
    (libc::SYS_setreuid, O::SetTwo(Kind::User), &[A(0), A(1)]),
    (libc::SYS_setregid, O::SetTwo(Kind::Group), &[A(0), A(1)]),
    (libc::SYS_setresuid, O::SetThree(Kind::User), &[A(0), A(1), A(2)]),
    (libc::SYS_setresgid, O::SetThree(Kind::Group), &[A(0), A(1), A(2)]),
    (libc::SYS_setfsuid, O::SetFiles(Kind::User), &[A(0)]),
    (libc::SYS_setfsgid, O::SetFiles(Kind::Group), &[A(0)]),
    (libc::SYS_getgroups, O::Groups, &[A(0), A(1)]),
    (libc::SYS_setgroups, O::SetGroups, &[A(0), A(1)]),
    (libc::SYS_capget, O::Capabilities, &[A(0), A(1)]),
    (libc::SYS_capset, O::SetCapabilities, &[A(0), A(1)]),
    (libc::SYS_uname, O::SystemName, &[A(0)]),
    (libc::SYS_execve, O::Execute, &[CWD, A(0), A(1), A(2), NONE]),
    (libc::SYS_execveat, O::Execute, &[A(0), A(1), A(2), A(3), A(4)]),
    (libc::SYS_bind, O::Bind, &[A(0), A(1), A(2)]),
    (libc::SYS_connect, O::Connect, &[A(0), A(1), A(2)]),
    (libc::SYS_listen, O::Listen, &[A(0), A(1)]),
    (libc::SYS_sendmmsg, O::SendMessages, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_getsockname, O::OwnName, &[A(0), A(1), A(2)]),
    (libc::SYS_getpeername, O::PeerName, &[A(0), A(1), A(2)]),
    (libc::SYS_shmget, O::IpcGet(ipc::Kind::Memory), &[A(0), A(1), A(2)]),
    (libc::SYS_semget, O::IpcGet(ipc::Kind::Semaphores), &[A(0), A(1), A(2)]),
    (libc::SYS_msgget, O::IpcGet(ipc::Kind::Messages), &[A(0), A(1)]),
    (libc::SYS_shmat, O::Ipc(ipc::Kind::Memory, ipc::Use::Attach), &[A(0), A(1), A(2)]),
    (libc::SYS_shmctl, O::Ipc(ipc::Kind::Memory, ipc::Use::Control(1)), &[A(0), A(1), A(2)]),
    (libc::SYS_semop, O::Ipc(ipc::Kind::Semaphores, ipc::Use::Write), &[A(0)]),
    (libc::SYS_semtimedop, O::Ipc(ipc::Kind::Semaphores, ipc::Use::Write), &[A(0)]),
    (libc::SYS_semctl, O::Ipc(ipc::Kind::Semaphores, ipc::Use::Control(2)), &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_msgsnd, O::Ipc(ipc::Kind::Messages, ipc::Use::Write), &[A(0)]),
    (libc::SYS_msgrcv, O::Ipc(ipc::Kind::Messages, ipc::Use::Read), &[A(0)]),
    (libc::SYS_msgctl, O::Ipc(ipc::Kind::Messages, ipc::Use::Control(1)), &[A(0), A(1), A(2)]),
    (libc::SYS_setpriority, O::Priority(Priority::Processor), &[A(0), A(1), A(2)]),
    (libc::SYS_ioprio_set, O::Priority(Priority::Disk), &[A(0), A(1), A(2)]),
];

/// Calls of before there were directories to begin at.
#[cfg(target_arch = "x86_64")]
const OLD: &[Form] = &[
    (libc::SYS_open, O::Open, &[CWD, A(0), A(1), A(2)]),
    (libc::SYS_creat, O::Open, &[CWD, A(0), TO_CREATE, A(1)]),
    (libc::SYS_stat, O::Stat, &[CWD, A(0), A(1), NONE]),
    (libc::SYS_lstat, O::Stat, &[CWD, A(0), A(1), NO_FOLLOW]),
    (libc::SYS_access, O::Access, &[CWD, A(0), A(1), NONE]),
    (libc::SYS_readlink, O::ReadLink, &[CWD, A(0), A(1), A(2)]),
    (libc::SYS_mkdir, O::MakeDirectory, &[CWD, A(0), A(1)]),
    (libc::SYS_mknod, O::MakeNode, &[CWD, A(0), A(1), A(2)]),
    (libc::SYS_symlink, O::MakeSymlink, &[A(0), CWD, A(1)]),
    (libc::SYS_link, O::MakeLink, &[CWD, A(0), CWD, A(1), NONE]),
    (libc::SYS_unlink, O::Unlink, &[CWD, A(0), NONE]),
    (libc::SYS_rmdir, O::Unlink, &[CWD, A(0), REMOVE_DIRECTORY]),
    (libc::SYS_rename, O::Rename, &[CWD, A(0), CWD, A(1), NONE]),
    (libc::SYS_renameat, O::Rename, &[A(0), A(1), A(2), A(3), NONE]),
    (libc::SYS_chmod, O::ChangeMode, &[CWD, A(0), A(1), NONE]),
    (libc::SYS_chown, O::ChangeOwner, &[CWD, A(0), A(1), A(2), NONE]),
    (libc::SYS_lchown, O::ChangeOwner, &[CWD, A(0), A(1), A(2), NO_FOLLOW]),
    (libc::SYS_utimes, O::ChangeTimes(Times::Microseconds), &[CWD, A(0), A(1), NONE]),
    (libc::SYS_futimesat, O::ChangeTimes(Times::Microseconds), &[A(0), A(1), A(2), NONE]),
    (libc::SYS_utime, O::ChangeTimes(Times::Seconds), &[CWD, A(0), A(1), NONE]),
];

#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Form] = &[(libc::SYS_renameat, O::Rename, &[A(0), A(1), A(2), A(3), NONE])];

/// Calls that are asked about only with certain arguments, or on certain kernels: the filter has a rule for each.
const SOMETIMES: &[Form] = &[
    (libc::SYS_prctl, O::ProcessOption, &[A(0), A(1), A(2), A(3), A(4)]),
    (libc::SYS_seccomp, O::Seccomp, &[A(0)]),
    (libc::SYS_rt_sigaction, O::HandleSignal, &[A(0), A(1)]),
    (libc::SYS_socket, O::Socket, &[A(0), A(1), A(2)]),
    (libc::SYS_socketpair, O::SocketPair, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_sendto, O::SendTo, &[A(0), A(1), A(2), A(3), A(4), A(5)]),
    (libc::SYS_sendmsg, O::SendMessage, &[A(0), A(1), A(2)]),
    (libc::SYS_getsockopt, O::PeerOption, &[A(0), A(1), A(2), A(3), A(4)]),
    (libc::SYS_prlimit64, O::Limit(Width::Long), &[A(0), A(1), A(3)]),
    (libc::SYS_getrlimit, O::Limit(Width::Word), &[NONE, A(0), A(1)]),
    (libc::SYS_setrlimit, O::Limit(Width::Word), &[NONE, A(0), NONE]),
    (libc::SYS_sched_setaffinity, O::OnProcess(0), &[A(0)]),
    (libc::SYS_sched_setscheduler, O::OnProcess(0), &[A(0)]),
    (libc::SYS_sched_setparam, O::OnProcess(0), &[A(0)]),
    (libc::SYS_sched_setattr, O::OnProcess(0), &[A(0)]),
    (libc::SYS_migrate_pages, O::Look(0), &[A(0)]),
    (libc::SYS_move_pages, O::Look(0), &[A(0)]),
    (libc::SYS_kill, O::Kill, &[A(0), A(1)]),
    (libc::SYS_tkill, O::Signal(0), &[A(0), A(1)]),
    // The thread, whatever process it is said to be of.
    (libc::SYS_tgkill, O::Signal(1), &[A(0), A(1), A(2)]),
    (libc::SYS_rt_sigqueueinfo, O::Signal(0), &[A(0), A(1)]),
    (libc::SYS_rt_tgsigqueueinfo, O::Signal(1), &[A(0), A(1), A(2)]),
    (libc::SYS_pidfd_open, O::Exists(0), &[A(0)]),
    (libc::SYS_pidfd_send_signal, O::SignalBy, &[A(0), A(1), A(2), A(3)]),
    (libc::SYS_fcntl, O::OwnFile, &[A(0), A(1), A(2)]),
    (libc::SYS_ptrace, O::Trace, &[A(0), A(1)]),
    (libc::SYS_process_vm_readv, O::Look(0), &[A(0)]),
    (libc::SYS_process_vm_writev, O::Look(0), &[A(0)]),
];

fn all() -> impl Iterator<Item = &'static Form> {
    EVERYWHERE.iter().chain(OLD)
}

/// Calls of i386 that this machine does not have, or whose arguments are others.
const I386: &[Form] = &[
    (106, O::ShortStat, &[CWD, A(0), A(1), NONE]),
    (107, O::ShortStat, &[CWD, A(0), A(1), NO_FOLLOW]),
    (108, O::ShortStat, &[A(0), NONE, A(1), EMPTY]),
    (99, O::ShortFileSystem, &[A(0), A(1)]),
    (268, O::FileSystem, &[A(0), A(2), A(1)]),
    (92, O::Truncate, &[A(0), Signed(1)]),
    (193, O::Truncate, &[A(0), Both(1, 2)]),
    (412, O::ChangeTimes(Times::LongNanoseconds), &[A(0), A(1), A(2), A(3)]),
    (182, O::ChangeOwner, &[CWD, A(0), Short(1), Short(2), NONE]),
    (16, O::ChangeOwner, &[CWD, A(0), Short(1), Short(2), NO_FOLLOW]),
    (95, O::ChangeOwner, &[A(0), NONE, Short(1), Short(2), EMPTY]),
    (24, O::ShortId(Kind::User, Which::Real), &[]),
    (49, O::ShortId(Kind::User, Which::Effective), &[]),
    (47, O::ShortId(Kind::Group, Which::Real), &[]),
    (50, O::ShortId(Kind::Group, Which::Effective), &[]),
    (165, O::ShortIds(Kind::User), &[A(0), A(1), A(2)]),
    (171, O::ShortIds(Kind::Group), &[A(0), A(1), A(2)]),
    (23, O::SetId(Kind::User), &[Short(0)]),
    (46, O::SetId(Kind::Group), &[Short(0)]),
    (70, O::SetTwo(Kind::User), &[Short(0), Short(1)]),
    (71, O::SetTwo(Kind::Group), &[Short(0), Short(1)]),
    (164, O::SetThree(Kind::User), &[Short(0), Short(1), Short(2)]),
    (170, O::SetThree(Kind::Group), &[Short(0), Short(1), Short(2)]),
    (138, O::SetShortFiles(Kind::User), &[Short(0)]),
    (139, O::SetShortFiles(Kind::Group), &[Short(0)]),
    (80, O::ShortGroups, &[A(0), A(1)]),
    (81, O::SetShortGroups, &[A(0), A(1)]),
    (102, O::SocketCall, &[A(0), A(1)]),
];

/// The forms of an architecture's calls, by number; what stands later counts.
fn forms(abi: Abi, own: impl Iterator<Item = &'static Form>) -> impl Iterator<Item = (u32, &'static Form)> {
    let own = own.flat_map(move |form| abi.numbers(form.0 as u32).map(move |number| (number, form)));
    let others = if abi == Abi::I386 { I386 } else { &[] };
    own.chain(others.iter().map(|form| (form.0 as u32, form)))
}

/// Numbers of the calls that the filter asks about.
pub fn numbers(abi: Abi) -> impl Iterator<Item = u32> {
    let numbers: std::collections::BTreeSet<u32> = forms(abi, all()).map(|(number, _)| number).collect();
    numbers.into_iter()
}

/// Forms by the call's number.
pub struct Forms {
    own: Vec<Option<&'static Form>>,
    i386: Vec<Option<&'static Form>>,
}

impl Forms {
    pub fn new() -> Forms {
        let table = |abi| {
            let mut table = vec![None; 512];
            for (number, form) in forms(abi, all().chain(SOMETIMES)) {
                if let Some(slot) = table.get_mut(number as usize) {
                    *slot = Some(form);
                }
            }
            table
        };
        Forms { own: table(Abi::Own), i386: table(Abi::I386) }
    }

    pub fn is_open(&self, number: i32) -> bool {
        self.of(Abi::Own, number, &[0; 6]).is_some_and(|(operation, _)| matches!(operation, Operation::Open))
    }

    /// The operation and its arguments.
    pub fn of(&self, abi: Abi, number: i32, arguments: &[u64; 6]) -> Option<(Operation, [u64; 6])> {
        let table = match abi {
            Abi::Own => &self.own,
            Abi::I386 => &self.i386,
        };
        let (_, operation, from) = (*table.get(usize::try_from(number).ok()?)?)?;
        let mut formed = [0; 6];
        for (to, from) in formed.iter_mut().zip(*from) {
            *to = match *from {
                A(index) => arguments[index],
                Is(value) => value,
                Signed(index) => i64::from(arguments[index] as i32) as u64,
                Both(low, high) => u64::from(arguments[low] as u32) | arguments[high] << 32,
                Short(index) => u64::from(super::ids::long(arguments[index] as u16)),
            };
        }
        Some((*operation, formed))
    }
}

impl Operation {
    /// Whether it is done sooner than another thread is woken: nobody is waited for, and no content is moved but where a file
    /// has to be made the step's own first (`links`), which is rare.
    pub fn is_quick(self) -> bool {
        !matches!(
            self,
            O::Execute
                | O::Truncate
                | O::SocketCall
                | O::Bind
                | O::Connect
                | O::Listen
                | O::SendTo
                | O::SendMessage
                | O::SendMessages
                | O::Trace
        )
    }
}

/// Which argument of a call that opens is the path.
pub fn path_of_open(number: i32) -> usize {
    usize::from(libc::c_long::from(number) == libc::SYS_openat)
}

pub fn perform(operation: Operation, caller: &Caller<'_>) -> Handled {
    match operation {
        O::Open => open::open(caller),
        O::Stat => files::stat(caller),
        O::ShortStat => files::short_stat(caller),
        O::Statx => files::statx(caller),
        O::Access => files::access(caller),
        O::ReadLink => files::readlink(caller),
        O::WorkingDirectory => files::getcwd(caller),
        O::ChangeDirectory => files::chdir(caller),
        O::ChangeDirectoryTo => files::fchdir(caller),
        O::ChangeRoot => files::chroot(caller),
        O::FileSystem => files::statfs(caller),
        O::ShortFileSystem => files::short_statfs(caller),
        O::GetAttribute => files::getxattr(caller),
        O::ListAttributes => files::listxattr(caller),
        // The call's own flags stand where the form has none.
        O::SetAttribute => files::setxattr(caller, caller.call.number_at(4)),
        O::RemoveAttribute => files::removexattr(caller),
        O::MakeDirectory => change::mkdir(caller),
        O::MakeNode => change::mknod(caller),
        O::MakeSymlink => change::symlink(caller),
        O::MakeLink => change::link(caller),
        O::Unlink => change::unlink(caller),
        O::Rename => change::rename(caller),
        O::ChangeMode => change::chmod(caller),
        O::ChangeOwner => change::chown(caller),
        O::ChangeTimes(written) => change::times(caller, written),
        O::Truncate => change::truncate(caller),
        O::Umask => identity::umask(caller),
        O::Id(kind, which) => identity::id(caller, kind, which),
        O::Ids(kind) => identity::ids(caller, kind),
        O::SetId(kind) => identity::set(caller, kind),
        O::SetTwo(kind) => identity::set_two(caller, kind),
        O::SetThree(kind) => identity::set_three(caller, kind),
        O::SetFiles(kind) => identity::set_files(caller, kind),
        O::Groups => identity::groups(caller),
        O::SetGroups => identity::set_groups(caller),
        O::ShortId(kind, which) => identity::short_id(caller, kind, which),
        O::ShortIds(kind) => identity::short_ids(caller, kind),
        O::SetShortFiles(kind) => identity::set_short_files(caller, kind),
        O::ShortGroups => identity::short_groups(caller),
        O::SetShortGroups => identity::set_short_groups(caller),
        O::Capabilities => identity::capabilities(caller),
        O::SetCapabilities => identity::set_capabilities(caller),
        O::SystemName => identity::system_name(caller),
        O::ProcessOption => identity::process_option(caller),
        O::Seccomp => identity::seccomp(caller),
        O::HandleSignal => others::handle(caller),
        O::Execute => program::execute(caller),
        O::SocketCall => sockets::socketcall(caller),
        O::Socket => sockets::socket(caller),
        O::SocketPair => sockets::pair(caller),
        O::Bind => sockets::bind(caller),
        O::Connect => sockets::connect(caller),
        O::Listen => sockets::listen(caller),
        O::SendTo => sockets::send_to(caller),
        O::SendMessage => sockets::send_message(caller),
        O::SendMessages => sockets::send_messages(caller),
        O::OwnName => sockets::own_name(caller),
        O::PeerName => sockets::peer_name(caller),
        O::PeerOption => sockets::peer_option(caller),
        O::Kill => others::kill(caller),
        O::IpcGet(kind) => ipc::get(caller, kind),
        O::Ipc(kind, what) => ipc::with_number(caller, kind, what),
        O::Signal(index) => others::signal(caller, index),
        O::SignalBy => others::signal_by(caller),
        O::Look(index) => others::look(caller, index),
        O::Limit(width) => others::limit(caller, width),
        O::Exists(index) => others::exists(caller, index),
        O::OnProcess(index) => others::on_process(caller, index),
        O::OwnFile => others::own_file(caller),
        O::Trace => others::trace(caller),
        O::Priority(what) => others::priority(caller, what),
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// A call that is added for this machine must not be forgotten for the other one's programs.
    #[test]
    fn every_call_has_a_number_of_i386() {
        for form in all().chain(SOMETIMES) {
            let there = Abi::I386.numbers(form.0 as u32).next().is_some();
            // truncate(2) has other arguments there, and semop(2) is part of ipc(2).
            assert!(there || [libc::SYS_truncate, libc::SYS_semop].contains(&form.0), "{form:?}");
        }
    }

    #[test]
    fn arguments_of_i386_get_the_common_form() {
        let forms = Forms::new();
        let of = |number, arguments| forms.of(Abi::I386, number, &arguments).expect("a call").1;
        assert_eq!(of(5, [7, 8, 9, 0, 0, 0])[..4], [libc::AT_FDCWD as u64, 7, 8, 9]);
        assert_eq!(of(92, [7, 0xffff_ffff, 0, 0, 0, 0])[..2], [7, u64::MAX]);
        assert_eq!(of(193, [7, 0x8000_0000, 1, 0, 0, 0])[..2], [7, 0x1_8000_0000]);
        assert_eq!(of(182, [7, 0xffff, 0x1_0005, 0, 0, 0])[1..4], [7, 0xffff_ffff, 5]);
        assert_eq!(of(268, [7, 84, 9, 0, 0, 0])[..3], [7, 9, 84]);
        assert!(forms.of(Abi::I386, 4, &[0; 6]).is_none() && forms.of(Abi::I386, -1, &[0; 6]).is_none());
    }
}
