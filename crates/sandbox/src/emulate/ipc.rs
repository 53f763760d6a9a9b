//! System V segments, semaphores and message queues of the step's own.
//!
//! The kernel keeps them by keys and numbers of the whole container (sysvipc(7)), and to it the step is the builder's user. So the
//! builder makes them, without a key, knows whose each is, and the step reaches no other; they go with the step.

use std::collections::HashMap;
use std::sync::Mutex;

use rustix::io::Errno;

use super::caller::{Caller, Handled, Reply};
use super::ids::{Ids, READ, WRITE};
use super::place::lock;

/// What a call is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Memory,
    Semaphores,
    Messages,
}

/// What a call that has a number in its first argument does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    Read,
    Write,
    /// shmat(2), by its flags.
    Attach,
    /// shmctl(2), semctl(2), msgctl(2): the command is the argument with this index.
    Control(usize),
}

struct Owner {
    user: u32,
    group: u32,
    creator: (u32, u32),
    mode: u32,
    key: i32,
}

impl Owner {
    /// `ipc/util.c` ipcperms
    fn may(&self, ids: &Ids, wanted: u32) -> bool {
        let shift = match ids.user.effective {
            user if user == self.user || user == self.creator.0 => 6,
            _ if ids.is_in(self.group) || ids.is_in(self.creator.1) => 3,
            _ => 0,
        };
        ids.user.effective == 0 || (self.mode >> shift) & wanted == wanted
    }

    fn is(&self, ids: &Ids) -> bool {
        [0, self.user, self.creator.0].contains(&ids.user.effective)
    }
}

/// All of one step.
#[derive(Default)]
pub struct Ipc(Mutex<HashMap<(Kind, i32), Owner>>);

impl Drop for Ipc {
    fn drop(&mut self) {
        for (kind, number) in lock(&self.0).keys() {
            remove(*kind, *number);
        }
    }
}

/// As many as a step may have: those of the whole container are limited (SHMMNI, SEMMNI, MSGMNI).
const MOST: usize = 1024;
/// IPC_STAT of 64 bits everywhere but in programs that ask for less.
const IPC_64: u32 = 0x100;

fn checked(returned: libc::c_int) -> Result<i32, Errno> {
    if returned >= 0 {
        return Ok(returned);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn remove(kind: Kind, number: i32) {
    // SAFETY: with IPC_RMID none of them looks at its last argument.
    unsafe {
        match kind {
            Kind::Memory => libc::shmctl(number, libc::IPC_RMID, std::ptr::null_mut()),
            Kind::Semaphores => libc::semctl(number, 0, libc::IPC_RMID),
            Kind::Messages => libc::msgctl(number, libc::IPC_RMID, std::ptr::null_mut()),
        }
    };
}

fn is_there(kind: Kind, number: i32) -> bool {
    // More than each of the three structures has.
    let mut state = [0u64; 64];
    let state = state.as_mut_ptr();
    // SAFETY: the kernel writes one structure, which the buffer has room for, and it outlives the call.
    let asked = unsafe {
        match kind {
            Kind::Memory => libc::shmctl(number, libc::IPC_STAT, state.cast()),
            Kind::Semaphores => libc::semctl(number, 0, libc::IPC_STAT, state),
            Kind::Messages => libc::msgctl(number, libc::IPC_STAT, state.cast()),
        }
    };
    asked >= 0
}

/// shmget(2) (key, size, flags), semget(2) (key, count, flags), msgget(2) (key, flags)
pub fn get(caller: &Caller<'_>, kind: Kind) -> Handled {
    let (key, size) = (caller.descriptor(0), caller.arguments[1] as usize);
    let flags = caller.descriptor(if kind == Kind::Messages { 1 } else { 2 });
    let ids = &caller.view.ids;
    let mut all = lock(&caller.world.ipc.0);
    let known = all.iter().find(|((of, _), owner)| *of == kind && owner.key == key && key != libc::IPC_PRIVATE);
    let known = known.map(|((_, number), owner)| (*number, owner.may(ids, flags.cast_unsigned() >> 6 & 7)));
    match known {
        Some((number, may)) if is_there(kind, number) => {
            let exclusive = libc::IPC_CREAT | libc::IPC_EXCL;
            return match () {
                () if flags & exclusive == exclusive => Err(Errno::EXIST),
                () if !may => Err(Errno::ACCESS),
                () => caller.ok(number),
            };
        }
        // Removed by itself.
        Some((number, _)) => drop(all.remove(&(kind, number))),
        None => {}
    }
    if key != libc::IPC_PRIVATE && flags & libc::IPC_CREAT == 0 {
        return Err(Errno::NOENT);
    }
    if all.len() >= MOST {
        all.retain(|(kind, number), _| is_there(*kind, *number));
        if all.len() >= MOST {
            return Err(Errno::NOSPC);
        }
    }
    let new = libc::IPC_CREAT | 0o600;
    // SAFETY: all take numbers only.
    let number = checked(unsafe {
        match kind {
            Kind::Memory => {
                libc::shmget(libc::IPC_PRIVATE, size, new | (flags & (libc::SHM_HUGETLB | libc::SHM_NORESERVE)))
            }
            Kind::Semaphores => libc::semget(libc::IPC_PRIVATE, size as libc::c_int, new),
            Kind::Messages => libc::msgget(libc::IPC_PRIVATE, new),
        }
    })?;
    let (user, group) = (ids.user.effective, ids.group.effective);
    let mode = flags.cast_unsigned() & 0o777;
    all.insert((kind, number), Owner { user, group, creator: (user, group), mode, key });
    caller.ok(number)
}

/// A call that has a number in its first argument.
///
/// Continuing is safe: the number is in a register, and one that the step has is nobody else's until the step's end.
pub fn with_number(caller: &Caller<'_>, kind: Kind, what: Use) -> Handled {
    let number = caller.descriptor(0);
    let ids = &caller.view.ids;
    let mut all = lock(&caller.world.ipc.0);
    let owner = all.get_mut(&(kind, number)).ok_or(Errno::INVAL)?;
    let may = |owner: &Owner, wanted| if owner.may(ids, wanted) { Ok(Reply::Continue) } else { Err(Errno::ACCESS) };
    match what {
        Use::Read => may(owner, READ),
        Use::Write => may(owner, WRITE),
        Use::Attach if caller.descriptor(2) & libc::SHM_RDONLY != 0 => may(owner, READ),
        Use::Attach => may(owner, READ | WRITE),
        Use::Control(index) => {
            let command = (caller.number(index) & !IPC_64).cast_signed();
            match (command, kind) {
                (libc::IPC_RMID | libc::IPC_SET, _) if !owner.is(ids) => Err(Errno::PERM),
                // By the builder: its number can be another's from now on.
                (libc::IPC_RMID, _) => {
                    all.remove(&(kind, number));
                    remove(kind, number);
                    caller.ok(0)
                }
                (libc::IPC_SET, _) => set(caller, owner, caller.arguments[index + 1]),
                (libc::IPC_STAT, _) => may(owner, READ),
                // SETVAL and SETALL, then GETPID, GETVAL, GETALL, GETNCNT, GETZCNT (`linux/sem.h`).
                (16 | 17, Kind::Semaphores) => may(owner, WRITE),
                (11..=15, Kind::Semaphores) => may(owner, READ),
                // SHM_LOCK, SHM_UNLOCK
                (11 | 12, Kind::Memory) if owner.is(ids) => Ok(Reply::Continue),
                // What is left tells of those of others.
                _ => Err(Errno::INVAL),
            }
        }
    }
}

/// IPC_SET: user, group and mode (`struct ipc64_perm`, with which all three structures begin). To the kernel it stays the builder's.
fn set(caller: &Caller<'_>, owner: &mut Owner, at: u64) -> Handled {
    let [_, user, group, _, _, mode] =
        super::memory::numbers32(caller.call.thread, at, 6)?.try_into().map_err(|_| Errno::FAULT)?;
    (owner.user, owner.group, owner.mode) = (user, group, mode & 0o777);
    caller.ok(0)
}
