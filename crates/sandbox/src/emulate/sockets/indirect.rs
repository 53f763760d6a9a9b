//! socketcall(2): the socket calls of i386 as one, with the arguments in memory.
//!
//! Memory can be changed after it has been looked at. So the caller is made to do the call that has the same arguments in
//! registers, and everything else is as for a program that does so itself.

use rustix::io::Errno;

use super::super::caller::{Caller, Handled, Reply, errno};
use super::super::exec;

/// The calls that are not asked about (`linux/net.h`): accept, send, recv, recvfrom, shutdown, recvmsg, accept4
/// and recvmmsg have no address that leads anywhere.
pub const PASSED: &[u32] = &[5, 9, 10, 12, 13, 17, 18, 19];

/// The call and how many arguments it has (`net/socket.c` nargs).
fn direct(which: u32) -> Option<(libc::c_long, usize)> {
    Some(match which {
        1 => (libc::SYS_socket, 3),
        2 => (libc::SYS_bind, 3),
        3 => (libc::SYS_connect, 3),
        4 => (libc::SYS_listen, 2),
        6 => (libc::SYS_getsockname, 3),
        7 => (libc::SYS_getpeername, 3),
        8 => (libc::SYS_socketpair, 4),
        11 => (libc::SYS_sendto, 6),
        14 => (libc::SYS_setsockopt, 5),
        15 => (libc::SYS_getsockopt, 5),
        16 => (libc::SYS_sendmsg, 3),
        20 => (libc::SYS_sendmmsg, 4),
        _ => return None,
    })
}

/// (which, arguments)
pub fn socketcall(caller: &Caller<'_>) -> Handled {
    let (number, count) = direct(caller.number(0)).ok_or(Errno::INVAL)?;
    let bytes = caller.read(caller.arguments[1], count * caller.call.abi().word())?;
    let mut arguments = [0; 6];
    for (argument, bytes) in arguments.iter_mut().zip(bytes.as_chunks().0) {
        *argument = u64::from(u32::from_le_bytes(*bytes));
    }
    let seat = caller.seat()?;
    let (listener, call) = (caller.listener.share().map_err(errno)?, *caller.call);
    let work = move || {
        if let Err(error) = exec::call_instead(&call, &listener, number, arguments) {
            let _ = listener.refuse(&call, error);
        }
        drop(seat);
    };
    spawn::thread_now("socket", work).map_err(|_| Errno::AGAIN)?;
    Ok(Reply::Given)
}
