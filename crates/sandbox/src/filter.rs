//! A seccomp filter for steps in namespaces: what Docker's default profile refuses and the capabilities do not.
//!
//! A step has none of the capabilities by which mount(2), kexec_load(2) and the like are guarded, but a user namespace of its
//! own would give them all back, and with them most of the kernel to attack. The rest are calls for which the kernel asks no
//! capability (moby/profiles `seccomp/default.json`, which BuildKit applies to steps as well).

use std::io;
use std::os::fd::OwnedFd;

use crate::emulate::abi::Abi as Programs;
use crate::emulate::{RLIMIT_LOCKS, calls, pass_of};
use crate::notify;

/// A system call's answer.
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
/// What a kernel without the family says; programs have another way then.
const NO_FAMILY: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
const NOT_THERE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// One architecture that programs of this machine may be built for.
struct Abi {
    /// AUDIT_ARCH_* of `linux/audit.h`.
    arch: u32,
    clone: u32,
    unshare: u32,
    socket: u32,
    /// keyctl, add_key, request_key, bpf, perf_event_open, userfaultfd, syslog, fanotify_init
    refused: [u32; 8],
    /// First number of an alternative table for the same architecture (x32), which is shut off.
    numbers_end: Option<u32>,
}

/// Address families: the kernel's cryptography, and the way to the hypervisor, which no network namespace holds.
const REFUSED_FAMILIES: [libc::c_int; 2] = [libc::AF_ALG, libc::AF_VSOCK];

/// Same numbers everywhere.
const CLONE3: u32 = 435;
const IO_URING: [u32; 3] = [425, 426, 427];
/// open_tree, open_tree_attr: for who may mount. Without a copy being asked for the kernel takes the first for another open.
const OPEN_TREE: [u32; 2] = [428, 467];
/// statmount, listmount: by them mounts are seen of which /proc/self/mountinfo says nothing. Programs that know them read that
/// where the kernel has neither.
const MOUNTS: [u32; 2] = [457, 458];

#[cfg(target_arch = "x86_64")]
const ABIS: &[Abi] = &[
    Abi {
        arch: 0xc000_003e,
        clone: 56,
        unshare: 272,
        socket: 41,
        refused: [250, 248, 249, 321, 298, 323, 103, 300],
        numbers_end: Some(0x4000_0000),
    },
    Abi {
        arch: 0x4000_0003,
        clone: 120,
        unshare: 310,
        socket: 359,
        refused: [288, 286, 287, 357, 336, 374, 103, 338],
        numbers_end: None,
    },
];

#[cfg(target_arch = "aarch64")]
const ABIS: &[Abi] = &[
    Abi {
        arch: 0xc000_00b7,
        clone: 220,
        unshare: 97,
        socket: 198,
        refused: [219, 217, 218, 280, 241, 282, 116, 262],
        numbers_end: None,
    },
    Abi {
        arch: 0x4000_0028,
        clone: 120,
        unshare: 337,
        socket: 281,
        refused: [311, 309, 310, 386, 364, 388, 103, 367],
        numbers_end: None,
    },
];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ABIS: &[Abi] = &[];

/// Offsets in `struct seccomp_data`; the lower half of the first argument on a little-endian machine.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn answer(answer: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, answer, 0, 0)
}

/// Does the next statement if the loaded value compares with `value`, else skips `skipped` statements.
fn when(comparison: u32, value: u32, skipped: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | comparison | libc::BPF_K, value, 0, skipped)
}

fn statement(code: u32, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k: value }
}

fn program(abis: &[Abi]) -> Vec<libc::sock_filter> {
    let mut all = vec![load(ARCH)];
    for abi in abis {
        let section = section(abi);
        // Sections are short: a table and a handful of statements.
        all.push(when(libc::BPF_JEQ, abi.arch, section.len() as u8));
        all.extend(section);
    }
    // An architecture whose numbers are not known here.
    all.push(answer(NOT_THERE));
    all
}

fn section(abi: &Abi) -> Vec<libc::sock_filter> {
    let mut section = vec![load(NUMBER)];
    if let Some(end) = abi.numbers_end {
        section.extend([when(libc::BPF_JGE, end, 1), answer(NOT_THERE)]);
    }
    // Its flags are in memory, out of a filter's sight; libraries fall back to clone.
    section.extend([when(libc::BPF_JEQ, CLONE3, 1), answer(NOT_THERE)]);
    for number in abi.refused.iter().chain(&IO_URING).chain(&OPEN_TREE) {
        section.extend([when(libc::BPF_JEQ, *number, 1), answer(NOT_PERMITTED)]);
    }
    for number in MOUNTS {
        section.extend([when(libc::BPF_JEQ, number, 1), answer(NOT_THERE)]);
    }
    for number in [abi.clone, abi.unshare] {
        let flags = [load(FIRST_ARGUMENT), when(libc::BPF_JSET, libc::CLONE_NEWUSER as u32, 1), answer(NOT_PERMITTED)];
        section.push(when(libc::BPF_JEQ, number, flags.len() as u8 + 1));
        section.extend(flags);
        section.push(answer(ALLOW));
    }
    let mut families = vec![load(FIRST_ARGUMENT)];
    for family in REFUSED_FAMILIES {
        families.extend([when(libc::BPF_JEQ, family as u32, 1), answer(NO_FAMILY)]);
    }
    section.push(when(libc::BPF_JEQ, abi.socket, families.len() as u8));
    section.extend(families);
    section.push(answer(ALLOW));
    section
}

/// Applies the filter to this process and what it becomes. Needs CAP_SYS_ADMIN: `no_new_privs` would take sudo away.
///
/// # Errors
/// The kernel's, but for `EINVAL`, which a kernel without filters gives.
pub fn apply() -> io::Result<()> {
    if ABIS.is_empty() {
        return Ok(());
    }
    let mut filter = program(ABIS);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to as many statements as it says, and both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    match io::Error::last_os_error() {
        error if done != 0 && error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Flags of seccomp(2) (`linux/seccomp.h`).
pub const NEW_LISTENER: libc::c_uint = 1 << 3;
pub const WAIT_KILLABLE: libc::c_uint = 1 << 5;

/// A filter that asks the listener about some calls of this machine's own architecture and lets all others pass.
fn questions(numbers: &[u32]) -> Vec<libc::sock_filter> {
    let mut section = vec![load(NUMBER)];
    for number in numbers {
        section.extend([when(libc::BPF_JEQ, *number, 1), answer(libc::SECCOMP_RET_USER_NOTIF)]);
    }
    let own = ABIS.first().map_or(0, |abi| abi.arch);
    let mut all = vec![load(ARCH), when(libc::BPF_JEQ, own, section.len() as u8)];
    all.extend(section);
    all.push(answer(ALLOW));
    all
}

/// Applies such a filter to this process and what it becomes. Needs `no_new_privs` or CAP_SYS_ADMIN.
pub fn listener(numbers: &[u32], flags: libc::c_uint) -> io::Result<OwnedFd> {
    let mut filter = questions(numbers);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to as many statements as it says, and both outlive the call.
    let made = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    notify::descriptor(made)
}

/// What the filter of the `emulate` back-end does with one system call.
#[derive(Clone, Copy)]
enum Rule {
    Ask,
    /// Unless its sixth argument, which the call does not have, is our own number.
    AskUnlessOurs(u64),
    /// When the argument with this index is not 0.
    AskWith(u32),
    Refuse(u32),
    /// When the first argument is not 0, or the second is this.
    AskWithOr(u32),
    /// When the first argument has one of these bits.
    RefuseWith(u32, u32),
    /// These answers for these values of the argument with this index.
    AnswerEach(u32, &'static [(u32, &'static [u32])]),
    /// Requests of ioctl(2): see [`REQUESTS`].
    Requests,
    /// This one for these values, and ask for all others.
    RefuseEachOrAsk(&'static [u32], u32),
    /// Where all of these arguments have one of these values.
    AskWhere(&'static [(u32, &'static [u32])]),
    RefuseWhere(&'static [(u32, &'static [u32])], u32),
    /// A user namespace, and a process that shares descriptors or directories and is no thread: see `emulate::sockets`, `emulate::tasks`. No other is asked
    /// about: to wait for an answer fork(2) could be interrupted, which programs do not expect of it.
    RefuseClone,
}

/// The system calls of our own that the filter of the `emulate` back-end lets pass, by their sixth argument.
#[derive(Clone, Copy)]
pub struct Passes {
    pub execute: u64,
    pub send: u64,
}

const FINE: u32 = libc::SECCOMP_RET_ERRNO;
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;

/// Flags of prctl(2) that are answered with 0: the process stays readable for the builder;
/// rights that are only pretended are not given up.
const ANSWERED_BY_0: &[u32] = &[
    libc::PR_SET_DUMPABLE as u32,
    libc::PR_CAPBSET_DROP as u32,
    libc::PR_SET_SECUREBITS as u32,
    libc::PR_CAP_AMBIENT as u32,
];

/// Options of prctl(2) by which rights outlast a change of users, and about rights that no program can give.
const OPTIONS_ABOUT_RIGHTS: &[u32] = &[
    libc::PR_GET_KEEPCAPS as u32,
    libc::PR_SET_KEEPCAPS as u32,
    libc::PR_GET_NO_NEW_PRIVS as u32,
    libc::PR_SET_NO_NEW_PRIVS as u32,
    libc::PR_SET_SECCOMP as u32,
];

/// Calls that have a path or give one away and for which programs have another way: openat2, the mount interface of file
/// descriptors, statmount and listmount, the attributes of directories, Landlock, inotify_init and handles of files.
const UNKNOWN: &[u32] = &[
    437,
    428,
    429,
    430,
    431,
    432,
    433,
    442,
    467,
    457,
    458,
    463,
    464,
    465,
    466,
    468,
    469,
    // Landlock: a program that gets other ids would stay in the domain of who started it.
    444,
    445,
    446,
    CLONE3,
    IO_URING[0],
    IO_URING[1],
    IO_URING[2],
    libc::SYS_inotify_init1 as u32,
    libc::SYS_name_to_handle_at as u32,
    libc::SYS_open_by_handle_at as u32,
];

/// Calls with this number and above are of kernels after Linux 6.18: what they reach nobody has looked at, and programs have to
/// do without them anyway. The same number everywhere, since all calls are since 424.
const LATER: u32 = 470;

#[cfg(target_arch = "x86_64")]
const UNKNOWN_OLD: &[u32] = &[libc::SYS_inotify_init as u32];
#[cfg(not(target_arch = "x86_64"))]
const UNKNOWN_OLD: &[u32] = &[];

/// Options that say who a socket's peer is: SO_PEERCRED, SO_PEERGROUPS and SO_PEERPIDFD.
const PEER: &[(u32, &[u32])] = &[(1, &[libc::SOL_SOCKET as u32]), (2, &[17, 59, 77])];
/// SO_PASSPIDFD: a descriptor of the sender's process, which may be the builder, with each message.
const PEER_PROCESS: &[(u32, &[u32])] = &[(1, &[libc::SOL_SOCKET as u32]), (2, &[76])];
const NO_OPTION: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT as u32;

/// Pairs of sockets of the AF_UNIX family.
const PAIRS: &[(u32, &[u32])] = &[(0, &[libc::AF_UNIX as u32])];

/// See `emulate::others`.
const CHILD_HANDLER: &[(u32, &[u32])] = &[(0, &[libc::SIGCHLD as u32])];

/// Calls on the process or thread that is their first argument, for which the kernel asks no more than the same user.
const OTHERS: &[libc::c_long] = &[
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// The limit by which the builder knows processes (`emulate::tasks`).
const OUR_LIMIT: &[(u32, &[u32])] = &[(0, &[RLIMIT_LOCKS])];

/// Between users of one step the kernel knows no difference.
const SIGNALS: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
];

/// fcntl(2): who gets a file's signals (F_SETOWN is asked about; F_SETOWN_EX has it in memory, where it can be changed at any
/// time), and what would have the builder wait or tell of others (F_SETLEASE, F_NOTIFY).
const FILES: &[(u32, &[u32])] =
    &[(ASK, &[libc::F_SETOWN as u32, 15]), (libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32, &[1024, 1026])];

/// What ioctl(2) answers for a request that the file does not know.
const NOT_FOR_THIS_FILE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32;

/// Requests to files: those that only tell, and cloning, which needs a file that is open to write. Others change what is
/// open to read only (flags, versions, subvolumes, seals), whatever it is mounted as. Of those to terminals: no typing into them.
const REQUESTS: &[(u32, &[u32])] = &[
    (
        ALLOW,
        &[
            1,           // FIBMAP
            2,           // FIGETBSZ
            0xc020_660b, // FS_IOC_FIEMAP
            0x4004_9409, // FICLONE
            0x4020_940d, // FICLONERANGE
            0x8008_6601, // FS_IOC_GETFLAGS
            0x8004_6601, // the same with 32 bits
            0x801c_581f, // FS_IOC_FSGETXATTR
            0x8008_7601, // FS_IOC_GETVERSION
            0x8004_7601, // the same with 32 bits
        ],
    ),
    // FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
    (NOT_PERMITTED, &[0x8901, 0x8902, 0x5412, 0x541c]),
];

/// Terminals and everything that can be read from, random devices, sockets, epoll.
const KINDS_OF_REQUESTS: &[u8] = &[0x54, 0x52, 0x89, 0x8a];

/// Calls by which one process looks into another.
const LOOKS: &[libc::c_long] = &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];
/// kcmp, pidfd_getfd, process_madvise: as Docker's profile has it for those without CAP_SYS_PTRACE.
const LOOKS_BY_TWO: &[u32] = &[libc::SYS_kcmp as u32, 438, 440];

/// Calls that need CAP_SYS_ADMIN or the like, but look paths up before they say so.
const PRIVILEGED: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
];

/// Message queues have names that are the container's.
const QUEUES: &[libc::c_long] = &[libc::SYS_mq_open, libc::SYS_mq_unlink];

/// Calls of i386 only: the oldest stat(2), uname(2), fstat(2) and umount(2), which no library uses, uselib(2), and ipc(2), whose
/// calls have numbers of their own since Linux 5.1.
const UNKNOWN_I386: &[u32] = &[18, 28, 84, 59, 109, 86, 22, 117];
const SOCKETCALL: u32 = 102;

/// The rules of one architecture; the first that fits a call counts.
fn emulation(abi: &Abi, programs: Programs, passes: Passes) -> Vec<(u32, Rule)> {
    let Some(own) = ABIS.first() else { return Vec::new() };
    // The other number is a secret, which 32 bits are too few for: there it never fits.
    let passes = Passes { execute: pass_of(programs, passes.execute), ..passes };
    let rules = own_rules(own, passes).into_iter();
    let mut rules: Vec<_> =
        rules.flat_map(|(number, rule)| programs.numbers(number).map(move |number| (number, rule))).collect();
    if programs == Programs::I386 {
        rules.extend(UNKNOWN_I386.iter().map(|number| (*number, Rule::Refuse(NOT_THERE))));
        rules.push((SOCKETCALL, Rule::RefuseEachOrAsk(calls::PASSED_SOCKETCALLS, ALLOW)));
    }
    rules.extend(abi.refused.iter().map(|number| (*number, Rule::Refuse(NOT_PERMITTED))));
    rules.extend(calls::numbers(programs).map(|number| (number, Rule::Ask)));
    rules
}

/// With the numbers of this machine's own calls.
fn own_rules(own: &Abi, passes: Passes) -> Vec<(u32, Rule)> {
    let mut rules = vec![
        (libc::SYS_execveat as u32, Rule::AskUnlessOurs(passes.execute)),
        (libc::SYS_sendmsg as u32, Rule::AskUnlessOurs(passes.send)),
        (libc::SYS_sendto as u32, Rule::AskWith(4)),
        (libc::SYS_getsockopt as u32, Rule::AskWhere(PEER)),
        (libc::SYS_setsockopt as u32, Rule::RefuseWhere(PEER_PROCESS, NO_OPTION)),
        (libc::SYS_prctl as u32, Rule::AnswerEach(0, &[(FINE, ANSWERED_BY_0), (ASK, OPTIONS_ABOUT_RIGHTS)])),
        (own.clone, Rule::RefuseClone),
        (libc::SYS_rt_sigaction as u32, Rule::AskWhere(CHILD_HANDLER)),
        (own.unshare, Rule::RefuseWith(libc::CLONE_NEWUSER as u32, NOT_PERMITTED)),
        (own.socket, Rule::RefuseEachOrAsk(&[libc::AF_ALG as u32, libc::AF_VSOCK as u32], NO_FAMILY)),
    ];
    rules.push((libc::SYS_seccomp as u32, Rule::Ask));
    rules.push((libc::SYS_socketpair as u32, Rule::AskWhere(PAIRS)));
    rules.push((libc::SYS_prlimit64 as u32, Rule::AskWithOr(RLIMIT_LOCKS)));
    rules.extend([libc::SYS_getrlimit, libc::SYS_setrlimit].map(|number| (number as u32, Rule::AskWhere(OUR_LIMIT))));
    rules.extend(OTHERS.iter().map(|number| (*number as u32, Rule::AskWith(0))));
    rules.extend(SIGNALS.iter().chain(LOOKS).map(|number| (*number as u32, Rule::Ask)));
    rules.push((libc::SYS_fcntl as u32, Rule::AnswerEach(1, FILES)));
    rules.push((libc::SYS_ioctl as u32, Rule::Requests));
    rules.extend(LOOKS_BY_TWO.iter().map(|number| (*number, Rule::Refuse(NOT_PERMITTED))));
    rules.extend(PRIVILEGED.iter().map(|number| (*number as u32, Rule::Refuse(NOT_PERMITTED))));
    rules.extend(QUEUES.iter().map(|number| (*number as u32, Rule::Refuse(NOT_THERE))));
    rules.extend(UNKNOWN.iter().chain(UNKNOWN_OLD).map(|number| (*number, Rule::Refuse(NOT_THERE))));
    rules
}

/// Offset of an argument's lower half in `struct seccomp_data` on a little-endian machine.
fn argument(index: u32) -> u32 {
    FIRST_ARGUMENT + 8 * index
}

/// The statements of a rule, which all end with an answer.
fn statements(rule: Rule) -> Vec<libc::sock_filter> {
    match rule {
        Rule::Ask => vec![answer(ASK)],
        Rule::AskUnlessOurs(ours) => vec![
            load(argument(5)),
            when(libc::BPF_JEQ, ours as u32, 3),
            load(argument(5) + 4),
            when(libc::BPF_JEQ, (ours >> 32) as u32, 1),
            answer(ALLOW),
            answer(ASK),
        ],
        Rule::AskWith(index) => vec![
            load(argument(index)),
            when(libc::BPF_JEQ, 0, 3),
            load(argument(index) + 4),
            when(libc::BPF_JEQ, 0, 1),
            answer(ALLOW),
            answer(ASK),
        ],
        Rule::AskWithOr(second) => {
            let mut all = vec![load(argument(1)), when(libc::BPF_JEQ, second, 1), answer(ASK)];
            all.extend(statements(Rule::AskWith(0)));
            all
        }
        Rule::Refuse(refusal) => vec![answer(refusal)],
        Rule::RefuseWith(bits, refusal) => {
            vec![load(FIRST_ARGUMENT), when(libc::BPF_JSET, bits, 1), answer(refusal), answer(ALLOW)]
        }
        Rule::AnswerEach(index, answers) => answer_each(index, answers, ALLOW),
        Rule::RefuseEachOrAsk(values, refusal) => answer_each(0, &[(refusal, values)], ASK),
        Rule::Requests => requests(),
        Rule::AskWhere(conditions) => answer_where(conditions, ASK),
        Rule::RefuseWhere(conditions, refusal) => answer_where(conditions, refusal),
        Rule::RefuseClone => vec![
            load(FIRST_ARGUMENT),
            when(libc::BPF_JSET, libc::CLONE_NEWUSER as u32, 1),
            answer(NOT_PERMITTED),
            when(libc::BPF_JSET, (libc::CLONE_FILES | libc::CLONE_FS) as u32, 2),
            // Over the refusal, for a thread.
            statement(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, libc::CLONE_THREAD as u32, 1, 0),
            answer(NOT_PERMITTED),
            answer(ALLOW),
        ],
    }
}

/// Answers by the value of an argument, and one for all other values.
fn answer_each(index: u32, answers: &[(u32, &[u32])], other: u32) -> Vec<libc::sock_filter> {
    let mut all = vec![load(argument(index))];
    for (found, values) in answers {
        for value in *values {
            all.extend([when(libc::BPF_JEQ, *value, 1), answer(*found)]);
        }
    }
    all.push(answer(other));
    all
}

/// Single requests, and then by their kind (`linux/ioctl.h` _IOC_TYPE).
fn requests() -> Vec<libc::sock_filter> {
    let mut all = answer_each(1, REQUESTS, 0);
    all.pop();
    all.push(statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0xff00, 0, 0));
    for kind in KINDS_OF_REQUESTS {
        all.extend([when(libc::BPF_JEQ, u32::from(*kind) << 8, 1), answer(ALLOW)]);
    }
    all.push(answer(NOT_FOR_THIS_FILE));
    all
}

/// An answer where every argument has one of its values; all else passes.
fn answer_where(conditions: &[(u32, &[u32])], found: u32) -> Vec<libc::sock_filter> {
    let mut all = vec![answer(found), answer(ALLOW)];
    for (index, values) in conditions.iter().rev() {
        let mut test = vec![load(argument(*index))];
        for (at, value) in values.iter().enumerate() {
            // Over the values that are left, and to the end when it was the last.
            let left = (values.len() - at - 1) as u8;
            let missed = if left == 0 { all.len() as u8 - 1 } else { 0 };
            test.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *value, left, missed));
        }
        all.splice(0..0, test);
    }
    all
}

/// Asks about every call that has to do with files or ids, lets those pass that only work on what is open, and refuses what
/// would get around it. The numbers are compared first and nothing else is looked at for calls that pass, so that the kernel
/// remembers the answer (Linux 5.11) and asks the filter no more.
fn emulating(passes: Passes) -> Vec<libc::sock_filter> {
    let mut all = vec![load(ARCH)];
    for (index, abi) in ABIS.iter().enumerate() {
        let programs = match index {
            0 => Programs::Own,
            _ if Programs::I386.is_here() && Programs::I386.audit() == Some(abi.arch) => Programs::I386,
            _ => continue,
        };
        let section = emulating_one(abi, programs, passes);
        // Sections are longer than a comparison can jump.
        all.extend([when(libc::BPF_JEQ, abi.arch, 1), statement(libc::BPF_JMP | libc::BPF_JA, 1, 0, 0)]);
        all.push(statement(libc::BPF_JMP | libc::BPF_JA, section.len() as u32, 0, 0));
        all.extend(section);
    }
    all.push(answer(NOT_THERE));
    all
}

fn emulating_one(abi: &Abi, programs: Programs, passes: Passes) -> Vec<libc::sock_filter> {
    let mut all = vec![load(NUMBER), when(libc::BPF_JGE, LATER, 1), answer(NOT_THERE)];
    for (number, rule) in emulation(abi, programs, passes) {
        let statements = statements(rule);
        all.push(when(libc::BPF_JEQ, number, statements.len() as u8));
        all.extend(statements);
    }
    all.push(answer(ALLOW));
    all
}

/// Applies the filter of the `emulate` back-end to this process and what it becomes.
pub fn emulated(passes: Passes, flags: libc::c_uint) -> io::Result<OwnedFd> {
    let mut filter = emulating(passes);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to as many statements as it says, and both outlive the call.
    let made = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    notify::descriptor(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers: an interpreter of the few statements that are used.
    fn answer_to(arch: u32, number: u32, first: u32) -> u32 {
        answer_of(&program(ABIS), arch, number, first)
    }

    fn answer_of(program: &[libc::sock_filter], arch: u32, number: u32, first: u32) -> u32 {
        answer_with(program, arch, number, [first.into(), 0, 0, 0, 0, 0])
    }

    fn answer_with(program: &[libc::sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let halves = arguments.iter().enumerate().flat_map(|(index, value)| {
            let at = argument(index as u32);
            [(at, *value as u32), (at + 4, (value >> 32) as u32)]
        });
        let data: Vec<(u32, u32)> = halves.chain([(NUMBER, number), (ARCH, arch)]).collect();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let code = u32::from(code);
            let jump = |yes: bool| usize::from(if yes { jt } else { jf });
            match code & 0x07 {
                libc::BPF_LD => {
                    loaded = data.iter().find(|(offset, _)| *offset == k).expect("a known offset").1;
                }
                libc::BPF_RET => return k,
                libc::BPF_ALU => loaded &= k,
                _ if code & 0xf0 == libc::BPF_JA => at += k as usize,
                _ if code & 0xf0 == libc::BPF_JEQ => at += jump(loaded == k),
                _ if code & 0xf0 == libc::BPF_JGE => at += jump(loaded >= k),
                _ => at += jump(loaded & k != 0),
            }
        }
    }

    #[test]
    fn every_architecture_has_its_refusals() {
        let user = libc::CLONE_NEWUSER as u32;
        for abi in ABIS {
            let cases = [
                (0, 0, ALLOW),
                (abi.clone, 0x11, ALLOW),
                (abi.clone, user | 0x11, NOT_PERMITTED),
                (abi.unshare, libc::CLONE_FS as u32, ALLOW),
                (abi.unshare, user, NOT_PERMITTED),
                (abi.refused[0], 0, NOT_PERMITTED),
                (abi.refused[7], 0, NOT_PERMITTED),
                (abi.socket, libc::AF_UNIX as u32, ALLOW),
                (abi.socket, libc::AF_NETLINK as u32, ALLOW),
                (abi.socket, libc::AF_ALG as u32, NO_FAMILY),
                (abi.socket, libc::AF_VSOCK as u32, NO_FAMILY),
                (IO_URING[0], 0, NOT_PERMITTED),
                (OPEN_TREE[0], 0, NOT_PERMITTED),
                (MOUNTS[1], 0, NOT_THERE),
                (CLONE3, 0, NOT_THERE),
                (59, 0, ALLOW),
            ];
            for (number, first, wanted) in cases {
                assert_eq!(answer_to(abi.arch, number, first), wanted, "{:x} {number} {first:x}", abi.arch);
            }
            if let Some(end) = abi.numbers_end {
                assert_eq!(answer_to(abi.arch, end + 1, 0), NOT_THERE);
            }
        }
        assert_eq!(answer_to(0x1234, 0, 0), NOT_THERE);
    }

    #[test]
    fn numbers_are_those_of_this_machine() {
        let own = &ABIS[0];
        let wanted = [
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_syslog,
            libc::SYS_fanotify_init,
        ];
        assert_eq!(own.refused.map(|number| number as libc::c_long), wanted);
        let own = [own.clone, own.unshare, own.socket].map(|number| number as libc::c_long);
        assert_eq!(own, [libc::SYS_clone, libc::SYS_unshare, libc::SYS_socket]);
    }

    #[test]
    fn an_emulated_step_asks_for_what_could_reach_out() {
        const PASSES: Passes = Passes { execute: 7 << 40, send: 9 << 40 };
        const INVALID: u32 = libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32;
        let files = libc::CLONE_FILES as u64;
        let cases: &[(libc::c_long, [u64; 6], u32)] = &[
            (libc::SYS_read, [0; 6], ALLOW),
            (libc::SYS_openat, [0; 6], ASK),
            (libc::SYS_socket, [libc::AF_UNIX as u64, 0, 0, 0, 0, 0], ASK),
            (libc::SYS_socket, [libc::AF_ALG as u64, 0, 0, 0, 0, 0], NO_FAMILY),
            (libc::SYS_connect, [0; 6], ASK),
            (libc::SYS_sendmsg, [0; 6], ASK),
            (libc::SYS_sendmsg, [0, 0, 0, 0, 0, PASSES.execute], ASK),
            (libc::SYS_sendmsg, [0, 0, 0, 0, 0, PASSES.send], ALLOW),
            (libc::SYS_execveat, [0, 0, 0, 0, 0, PASSES.send], ASK),
            (libc::SYS_execveat, [0, 0, 0, 0, 0, PASSES.execute], ALLOW),
            (libc::SYS_sendto, [0; 6], ALLOW),
            (libc::SYS_sendto, [0, 0, 0, 0, 1, 0], ASK),
            (libc::SYS_sendto, [0, 0, 0, 0, 1 << 32, 0], ASK),
            (libc::SYS_getsockopt, [0, 1, 17, 0, 0, 0], ASK),
            (libc::SYS_getsockopt, [0, 1, 77, 0, 0, 0], ASK),
            (libc::SYS_getsockopt, [0, 1, 4, 0, 0, 0], ALLOW),
            (libc::SYS_getsockopt, [0, 6, 17, 0, 0, 0], ALLOW),
            (libc::SYS_setsockopt, [0, 1, 76, 0, 0, 0], NO_OPTION),
            (libc::SYS_setsockopt, [0, 1, 16, 0, 0, 0], ALLOW),
            (libc::SYS_clone, [0x11, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_clone, [files | libc::CLONE_THREAD as u64, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_clone, [files | 0x11, 0, 0, 0, 0, 0], NOT_PERMITTED),
            (libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0], NOT_PERMITTED),
            (libc::SYS_prlimit64, [0; 6], ALLOW),
            (libc::SYS_prlimit64, [1, 0, 0, 0, 0, 0], ASK),
            (libc::SYS_kill, [1, 9, 0, 0, 0, 0], ASK),
            (libc::SYS_fcntl, [0, libc::F_SETOWN as u64, 1, 0, 0, 0], ASK),
            (libc::SYS_fcntl, [0, libc::F_GETFL as u64, 0, 0, 0, 0], ALLOW),
            (libc::SYS_fcntl, [0, 1024, 0, 0, 0, 0], INVALID),
            (libc::SYS_ioctl, [0, 0x8902, 0, 0, 0, 0], NOT_PERMITTED),
            (libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0], NOT_PERMITTED),
            (libc::SYS_ioctl, [0, 0x8008_6601, 0, 0, 0, 0], ALLOW),
            (libc::SYS_ioctl, [0, 0x4008_6602, 0, 0, 0, 0], NOT_FOR_THIS_FILE),
            (libc::SYS_ioctl, [0, 0x5000_940e, 0, 0, 0, 0], NOT_FOR_THIS_FILE),
            (libc::SYS_mount, [0; 6], NOT_PERMITTED),
            (libc::SYS_prlimit64, [0, RLIMIT_LOCKS.into(), 0, 0, 0, 0], ASK),
            (libc::SYS_setrlimit, [RLIMIT_LOCKS.into(), 0, 0, 0, 0, 0], ASK),
            (libc::SYS_setrlimit, [7, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_clone, [libc::CLONE_FS as u64 | 0x11, 0, 0, 0, 0, 0], NOT_PERMITTED),
            (libc::SYS_ioctl, [0, 0x541b, 0, 0, 0, 0], ALLOW),
            (libc::SYS_ptrace, [16, 1, 0, 0, 0, 0], ASK),
            (libc::SYS_kcmp, [0; 6], NOT_PERMITTED),
            // file_setattr, and calls that nobody knows of yet.
            (469, [0; 6], NOT_THERE),
            (470, [0; 6], NOT_THERE),
            (0x0fff_ffff, [0; 6], NOT_THERE),
        ];
        let program = emulating(PASSES);
        for (number, arguments, wanted) in cases {
            let got = answer_with(&program, ABIS[0].arch, *number as u32, *arguments);
            assert_eq!(got, *wanted, "{number} {arguments:?}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn programs_of_i386_are_asked_by_their_own_numbers() {
        const PASSES: Passes = Passes { execute: 0x8234_5678_9abc_def0, send: 0x8234_5678_9abc_0001 };
        let program = emulating(PASSES);
        let [own, i386] = [ABIS[0].arch, ABIS[1].arch];
        for (arch, number, first, wanted) in [
            (own, 257, 0, ASK),
            (own, 295, 0, ALLOW),
            (own, 0x4000_0000 | 257, 0, NOT_THERE),
            (i386, 295, 0, ASK),
            (i386, 257, 0, ALLOW),
            (i386, 5, 0, ASK),
            (i386, 24, 0, ASK),
            (i386, 102, 1, ASK),
            (i386, 102, 10, ALLOW),
            (i386, 437, 0, NOT_THERE),
            (i386, 120, libc::CLONE_NEWUSER as u32, NOT_PERMITTED),
            (i386, 120, 0x11, ALLOW),
            (i386, 2, 0, ALLOW),
            (i386, 174, 17, ASK),
            (i386, 37, 0, ASK),
            (i386, 4, 0, ALLOW),
            (i386, 470, 0, NOT_THERE),
            (0x1234, 4, 0, NOT_THERE),
        ] {
            assert_eq!(answer_of(&program, arch, number, first), wanted, "{arch:x} {number}");
        }
        // What is passed there has 32 bits, and the other number has more.
        for (number, last, wanted) in
            [(358, 0x9abc_def0, ALLOW), (358, 0x9abc_0001, ASK), (370, 0x9abc_0001, ASK), (370, 0, ASK)]
        {
            assert_eq!(answer_with(&program, i386, number, [0, 0, 0, 0, 0, last]), wanted, "{number}");
        }
        for (number, _) in own_rules(&ABIS[0], PASSES) {
            // Every rule has its number.
            assert!(Programs::I386.numbers(number).next().is_some(), "{number}");
        }
    }

    #[test]
    fn only_calls_of_the_own_architecture_are_asked_about() {
        let program = questions(&[90, 268]);
        for (arch, number, wanted) in [
            (ABIS[0].arch, 90, libc::SECCOMP_RET_USER_NOTIF),
            (ABIS[0].arch, 268, libc::SECCOMP_RET_USER_NOTIF),
            (ABIS[0].arch, 91, ALLOW),
            (ABIS[1].arch, 90, ALLOW),
            (0x1234, 268, ALLOW),
        ] {
            assert_eq!(answer_of(&program, arch, number, 0), wanted, "{arch:x} {number}");
        }
    }
}
