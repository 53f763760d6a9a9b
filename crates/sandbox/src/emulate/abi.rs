//! The kinds of programs that a machine runs: those of its own architecture and, on x86-64, those of i386.
//!
//! An i386 program's system calls have other numbers, and words of 32 bits in their arguments and in memory. Most are the
//! calls of x86-64 but for that; what else is different is at the handler. x32 programs get `ENOSYS` for every call.

/// For which architecture a system call is made, or a program was built. A process may change it from call to call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abi {
    Own,
    I386,
}

/// AUDIT_ARCH_I386 of `linux/audit.h`.
const AUDIT_I386: u32 = 0x4000_0003;

/// Calls that are newer have one number everywhere.
const COMMON_NUMBERS: u32 = 424;

impl Abi {
    /// Of a call that waits for its answer: of what is none of these the filter asks nothing.
    pub fn of_call(audit: u32) -> Abi {
        if audit == AUDIT_I386 { Abi::I386 } else { Abi::Own }
    }

    /// Whether there may be such programs on this machine.
    pub fn is_here(self) -> bool {
        cfg!(target_arch = "x86_64") || self == Abi::Own
    }

    /// AUDIT_ARCH_*, if it is another than the machine's own.
    pub fn audit(self) -> Option<u32> {
        match self {
            Abi::Own => None,
            Abi::I386 => Some(AUDIT_I386),
        }
    }

    /// Bytes of a `long` and of an address.
    pub const fn word(self) -> usize {
        match self {
            Abi::Own => 8,
            Abi::I386 => 4,
        }
    }

    /// The numbers of a call that has the number `own` on this machine. For calls about files that is the one with large
    /// files, for those about ids the one with 32 bits.
    pub fn numbers(self, own: u32) -> impl Iterator<Item = u32> {
        let same = (self == Abi::Own || own >= COMMON_NUMBERS).then_some(own);
        let other =
            NUMBERS.iter().filter(move |pair| same.is_none() && pair.0 == libc::c_long::from(own)).map(|pair| pair.1);
        same.into_iter().chain(other)
    }

    /// The one number of a call that surely has one.
    pub fn number(self, own: libc::c_long) -> u32 {
        self.numbers(own as u32).next().unwrap_or(u32::MAX)
    }
}

/// Number of this machine, number of i386 (`arch/x86/entry/syscalls/syscall_{64,32}.tbl`). mmap is mmap2, whose offset
/// counts pages.
#[cfg(target_arch = "x86_64")]
const NUMBERS: &[(libc::c_long, u32)] = &[
    (libc::SYS_open, 5),
    (libc::SYS_close, 6),
    (libc::SYS_stat, 195),
    (libc::SYS_fstat, 197),
    (libc::SYS_lstat, 196),
    (libc::SYS_mmap, 192),
    (libc::SYS_mprotect, 125),
    (libc::SYS_rt_sigaction, 174),
    (libc::SYS_ioctl, 54),
    (libc::SYS_access, 33),
    (libc::SYS_socket, 359),
    (libc::SYS_connect, 362),
    (libc::SYS_sendto, 369),
    (libc::SYS_sendmsg, 370),
    (libc::SYS_bind, 361),
    (libc::SYS_listen, 363),
    (libc::SYS_getsockname, 367),
    (libc::SYS_getpeername, 368),
    (libc::SYS_setsockopt, 366),
    (libc::SYS_getsockopt, 365),
    (libc::SYS_clone, 120),
    (libc::SYS_execve, 11),
    (libc::SYS_kill, 37),
    (libc::SYS_uname, 122),
    (libc::SYS_fcntl, 221),
    (libc::SYS_fcntl, 55),
    (libc::SYS_getcwd, 183),
    (libc::SYS_chdir, 12),
    (libc::SYS_fchdir, 133),
    (libc::SYS_rename, 38),
    (libc::SYS_mkdir, 39),
    (libc::SYS_rmdir, 40),
    (libc::SYS_creat, 8),
    (libc::SYS_link, 9),
    (libc::SYS_unlink, 10),
    (libc::SYS_symlink, 83),
    (libc::SYS_readlink, 85),
    (libc::SYS_chmod, 15),
    (libc::SYS_fchmod, 94),
    (libc::SYS_chown, 212),
    (libc::SYS_fchown, 207),
    (libc::SYS_lchown, 198),
    (libc::SYS_umask, 60),
    (libc::SYS_ptrace, 26),
    (libc::SYS_getuid, 199),
    (libc::SYS_getgid, 200),
    (libc::SYS_setuid, 213),
    (libc::SYS_setgid, 214),
    (libc::SYS_geteuid, 201),
    (libc::SYS_getegid, 202),
    (libc::SYS_setreuid, 203),
    (libc::SYS_setregid, 204),
    (libc::SYS_getgroups, 205),
    (libc::SYS_setgroups, 206),
    (libc::SYS_setresuid, 208),
    (libc::SYS_getresuid, 209),
    (libc::SYS_setresgid, 210),
    (libc::SYS_getresgid, 211),
    (libc::SYS_setfsuid, 215),
    (libc::SYS_setfsgid, 216),
    (libc::SYS_capget, 184),
    (libc::SYS_capset, 185),
    (libc::SYS_rt_sigqueueinfo, 178),
    (libc::SYS_utime, 30),
    (libc::SYS_mknod, 14),
    (libc::SYS_statfs, 268),
    (libc::SYS_setpriority, 97),
    (libc::SYS_sched_setparam, 154),
    (libc::SYS_sched_setscheduler, 156),
    (libc::SYS_prctl, 172),
    (libc::SYS_chroot, 61),
    (libc::SYS_setxattr, 226),
    (libc::SYS_lsetxattr, 227),
    (libc::SYS_fsetxattr, 228),
    (libc::SYS_getxattr, 229),
    (libc::SYS_lgetxattr, 230),
    (libc::SYS_fgetxattr, 231),
    (libc::SYS_listxattr, 232),
    (libc::SYS_llistxattr, 233),
    (libc::SYS_flistxattr, 234),
    (libc::SYS_removexattr, 235),
    (libc::SYS_lremovexattr, 236),
    (libc::SYS_fremovexattr, 237),
    (libc::SYS_tkill, 238),
    (libc::SYS_sched_setaffinity, 241),
    (libc::SYS_exit_group, 252),
    (libc::SYS_tgkill, 270),
    (libc::SYS_utimes, 271),
    (libc::SYS_ioprio_set, 289),
    (libc::SYS_inotify_init, 291),
    (libc::SYS_migrate_pages, 294),
    (libc::SYS_openat, 295),
    (libc::SYS_mkdirat, 296),
    (libc::SYS_mknodat, 297),
    (libc::SYS_fchownat, 298),
    (libc::SYS_futimesat, 299),
    (libc::SYS_newfstatat, 300),
    (libc::SYS_unlinkat, 301),
    (libc::SYS_renameat, 302),
    (libc::SYS_linkat, 303),
    (libc::SYS_symlinkat, 304),
    (libc::SYS_readlinkat, 305),
    (libc::SYS_fchmodat, 306),
    (libc::SYS_faccessat, 307),
    (libc::SYS_unshare, 310),
    (libc::SYS_move_pages, 317),
    (libc::SYS_inotify_init1, 332),
    (libc::SYS_rt_tgsigqueueinfo, 335),
    (libc::SYS_prlimit64, 340),
    (libc::SYS_mount, 21),
    (libc::SYS_umount2, 52),
    (libc::SYS_pivot_root, 217),
    (libc::SYS_swapon, 87),
    (libc::SYS_swapoff, 115),
    (libc::SYS_quotactl, 131),
    (libc::SYS_acct, 51),
    (libc::SYS_mq_open, 277),
    (libc::SYS_mq_unlink, 278),
    (libc::SYS_semget, 393),
    (libc::SYS_semctl, 394),
    (libc::SYS_shmget, 395),
    (libc::SYS_shmctl, 396),
    (libc::SYS_shmat, 397),
    (libc::SYS_msgget, 399),
    (libc::SYS_msgsnd, 400),
    (libc::SYS_msgrcv, 401),
    (libc::SYS_msgctl, 402),
    (libc::SYS_semtimedop, 420),
    (libc::SYS_seccomp, 354),
    (libc::SYS_socketpair, 360),
    (libc::SYS_getrlimit, 191),
    (libc::SYS_getrlimit, 76),
    (libc::SYS_setrlimit, 75),
    (libc::SYS_name_to_handle_at, 341),
    (libc::SYS_open_by_handle_at, 342),
    (libc::SYS_sendmmsg, 345),
    (libc::SYS_process_vm_readv, 347),
    (libc::SYS_process_vm_writev, 348),
    (libc::SYS_kcmp, 349),
    (libc::SYS_sched_setattr, 351),
    (libc::SYS_renameat2, 353),
    (libc::SYS_execveat, 358),
    (libc::SYS_statx, 383),
    (libc::SYS_utimensat, 320),
];
#[cfg(not(target_arch = "x86_64"))]
const NUMBERS: &[(libc::c_long, u32)] = &[];

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_i386_are_not_those_of_this_machine() {
        for (own, wanted) in [
            (libc::SYS_openat, vec![295]),
            (libc::SYS_stat, vec![195]),
            (libc::SYS_fcntl, vec![221, 55]),
            (libc::SYS_restart_syscall, vec![]),
            (439, vec![439]),
        ] {
            assert_eq!(Abi::I386.numbers(own as u32).collect::<Vec<_>>(), wanted, "{own}");
            assert_eq!(Abi::Own.numbers(own as u32).collect::<Vec<_>>(), [own as u32]);
        }
        let mut all: Vec<u32> = NUMBERS.iter().map(|pair| pair.1).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), NUMBERS.len(), "a number is there twice");
    }
}
