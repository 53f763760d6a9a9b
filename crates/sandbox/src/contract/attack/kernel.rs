//! Attacks on the kernel: calls that no build needs, and keys.

use std::io;

use super::Outcomes;
use super::call::{at, c, call, let_in};

/// Calls that Docker's default profile refuses to a container without further capabilities, with arguments by which they do
/// no harm where they are let in. They are the same on every architecture from 424 on.
pub fn calls(outcomes: &mut Outcomes, _: &[String]) -> io::Result<()> {
    let (name, empty, root, kind) = (c("user"), c(""), c("/"), c("tmpfs"));
    let now = [0u64; 2];
    let now = now.as_ptr() as usize;
    call(libc::SYS_clock_gettime, [libc::CLOCK_REALTIME as usize, now])?;
    let user_namespace = libc::CLONE_NEWUSER as usize;
    let calls: &[(&str, libc::c_long, [usize; 5])] = &[
        ("io_uring_setup", 425, [0, 0, 0, 0, 0]),
        ("io_uring_enter", 426, [usize::MAX, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [usize::MAX, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [usize::MAX, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, usize::MAX, usize::MAX, 0]),
        ("add_key", libc::SYS_add_key, [at(&name), at(&empty), 0, 0, 0]),
        ("request_key", libc::SYS_request_key, [at(&name), at(&empty), 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [usize::MAX, 0, 0, 0, 0]),
        ("unshare(CLONE_NEWUSER)", libc::SYS_unshare, [user_namespace, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [at(&kind), at(&root), at(&kind), 0, 0]),
        ("fsopen", 430, [0, 0, 0, 0, 0]),
        ("open_tree", 428, [usize::MAX, 0, 1, 0, 0]),
        ("open_tree without a copy", 428, [usize::MAX, at(&root), 0, 0, 0]),
        ("open_tree_attr", 467, [usize::MAX, at(&root), 0, 0, 0]),
        ("statmount", 457, [0, 0, 0, 0, 0]),
        ("listmount", 458, [0, 0, 0, 0, 0]),
        ("move_mount", 429, [usize::MAX, 0, usize::MAX, 0, 0]),
        ("mount_setattr", 442, [usize::MAX, at(&empty), 0, 1, 32]),
        ("pivot_root", libc::SYS_pivot_root, [at(&empty), at(&empty), 0, 0, 0]),
        ("umount2", libc::SYS_umount2, [at(&root), 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [at(&empty), 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [usize::MAX, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, usize::MAX, 0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [0, now, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [3, 0, 0, 0, 0]),
        ("acct", libc::SYS_acct, [at(&empty), 0, 0, 0, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [usize::MAX, 0, 0, 0, 0]),
        ("AF_ALG", libc::SYS_socket, [libc::AF_ALG as usize, libc::SOCK_SEQPACKET as usize, 0, 0, 0]),
        ("AF_VSOCK", libc::SYS_socket, [libc::AF_VSOCK as usize, libc::SOCK_STREAM as usize, 0, 0, 0]),
    ];
    for (name, number, arguments) in calls {
        outcomes.note(*name, let_in(without_family(call(*number, *arguments))));
    }
    Ok(())
}

/// A family that is not there is as good as refused.
fn without_family(got: io::Result<usize>) -> io::Result<usize> {
    match got {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Err(io::ErrorKind::PermissionDenied.into()),
        _ => got,
    }
}

/// `NAME`: the builder's key of that name, through every keyring that a process starts with.
pub fn keys(outcomes: &mut Outcomes, arguments: &[String]) -> io::Result<()> {
    const SEARCH: usize = 10;
    let (kind, name) = (c("user"), c(arguments.first().map(String::as_str).unwrap_or_default()));
    // KEY_SPEC_* of `linux/keyctl.h`: thread, process, session, user, user's session.
    for ring in 1..=5usize {
        let found = call(libc::SYS_keyctl, [SEARCH, ring.wrapping_neg(), at(&kind), at(&name), 0]);
        outcomes.note(format!("keyring -{ring}"), found);
    }
    Ok(())
}

pub fn add_key(name: &str) -> io::Result<()> {
    const USER_KEYRING: usize = 4usize.wrapping_neg();
    let (kind, name, value) = (c("user"), c(name), c("canary"));
    call(libc::SYS_add_key, [at(&kind), at(&name), at(&value), 6, USER_KEYRING]).map(drop)
}
