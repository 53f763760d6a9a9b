//! Who am I, and may I be somebody else: answered from what is written down of each process.

use std::sync::Arc;

use rustix::io::Errno;

use super::caller::{Caller, DONE, Handled, Reply};
use super::calls::Which;
use super::ids::{self, GROUPS_MAX, Ids, Kind};
use super::memory;
use super::tasks::State;

/// (mask)
pub fn umask(caller: &Caller<'_>) -> Handled {
    let mask = caller.number(0) & 0o777;
    let old = caller.changing(|state| std::mem::replace(&mut state.umask, mask))?;
    caller.ok(old)
}

pub fn id(caller: &Caller<'_>, kind: Kind, which: Which) -> Handled {
    let set = caller.view.ids.of(kind);
    caller.ok(match which {
        Which::Real => set.real,
        Which::Effective => set.effective,
    })
}

pub fn short_id(caller: &Caller<'_>, kind: Kind, which: Which) -> Handled {
    match id(caller, kind, which)? {
        Reply::Value(id) => caller.ok(ids::short(id as u32)),
        other => Ok(other),
    }
}

/// (real, effective, saved)
pub fn ids(caller: &Caller<'_>, kind: Kind) -> Handled {
    let set = caller.view.ids.of(kind);
    for (index, id) in [set.real, set.effective, set.saved].into_iter().enumerate() {
        caller.write(caller.arguments[index], &id.to_le_bytes())?;
    }
    DONE
}

/// (real, effective, saved)
pub fn short_ids(caller: &Caller<'_>, kind: Kind) -> Handled {
    let set = caller.view.ids.of(kind);
    for (index, id) in [set.real, set.effective, set.saved].into_iter().enumerate() {
        caller.write(caller.arguments[index], &ids::short(id).to_le_bytes())?;
    }
    DONE
}

fn change<T>(caller: &Caller<'_>, change: impl FnOnce(&mut Ids) -> T) -> Result<T, Errno> {
    caller.changing(|state| {
        let before = (state.ids.user, state.ids.group);
        let result = change(&mut state.ids);
        let effective =
            |(user, group): (ids::Set, ids::Set)| [user.effective, user.files, group.effective, group.files];
        // `kernel/cred.c` commit_creds
        state.guarded |= effective(before) != effective((state.ids.user, state.ids.group));
        result
    })
}

/// (id)
pub fn set(caller: &Caller<'_>, kind: Kind) -> Handled {
    change(caller, |ids| ids.set(kind, caller.number(0)))??;
    DONE
}

/// (real, effective)
pub fn set_two(caller: &Caller<'_>, kind: Kind) -> Handled {
    change(caller, |ids| ids.set_two(kind, caller.number(0), caller.number(1)))??;
    DONE
}

/// (real, effective, saved)
pub fn set_three(caller: &Caller<'_>, kind: Kind) -> Handled {
    change(caller, |ids| ids.set_three(kind, [caller.number(0), caller.number(1), caller.number(2)]))??;
    DONE
}

/// (id)
pub fn set_files(caller: &Caller<'_>, kind: Kind) -> Handled {
    caller.ok(change(caller, |ids| ids.set_files(kind, caller.number(0)))?)
}

/// (id)
pub fn set_short_files(caller: &Caller<'_>, kind: Kind) -> Handled {
    caller.ok(ids::short(change(caller, |ids| ids.set_files(kind, caller.number(0)))?))
}

/// (size, list)
pub fn groups(caller: &Caller<'_>) -> Handled {
    give_groups(caller, |group| group.to_le_bytes())
}

/// (size, list)
pub fn short_groups(caller: &Caller<'_>) -> Handled {
    give_groups(caller, |group| ids::short(group).to_le_bytes())
}

fn give_groups<const N: usize>(caller: &Caller<'_>, bytes: impl Fn(u32) -> [u8; N]) -> Handled {
    let groups = &caller.view.ids.groups;
    let size = caller.number(0) as usize;
    if size > 0 {
        if size < groups.len() {
            return Err(Errno::INVAL);
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|group| bytes(*group)).collect();
        caller.write(caller.arguments[1], &bytes)?;
    }
    caller.ok(groups.len() as i64)
}

/// (size, list)
pub fn set_groups(caller: &Caller<'_>) -> Handled {
    let size = size_of_groups(caller)?;
    take_groups(caller, memory::numbers32(caller.call.thread, caller.arguments[1], size)?)
}

/// (size, list)
pub fn set_short_groups(caller: &Caller<'_>) -> Handled {
    let size = size_of_groups(caller)?;
    let bytes = caller.read(caller.arguments[1], size * 2)?;
    take_groups(caller, bytes.as_chunks().0.iter().map(|group| ids::long(u16::from_le_bytes(*group))).collect())
}

fn size_of_groups(caller: &Caller<'_>) -> Result<usize, Errno> {
    if !caller.view.ids.may_set_groups() {
        return Err(Errno::PERM);
    }
    let size = caller.number(0) as usize;
    if size > GROUPS_MAX { Err(Errno::INVAL) } else { Ok(size) }
}

fn take_groups(caller: &Caller<'_>, mut groups: Vec<u32>) -> Handled {
    // The kernel does so as well (`groups_sort`), and programs show them in that order.
    groups.sort_unstable();
    let groups: Arc<[u32]> = groups.into();
    change(caller, |ids| ids.groups = groups)?;
    DONE
}

/// Words of each set of a capability header's version; none for an unknown one (`linux/capability.h`).
fn words(version: u32) -> Option<usize> {
    match version {
        0x1998_0330 => Some(1),
        0x2007_1026 | VERSION_3 => Some(2),
        _ => None,
    }
}

const VERSION_3: u32 = 0x2008_0522;

/// The process that a capability header is about, and the words of its version.
fn header(caller: &Caller<'_>) -> Result<(Arc<State>, bool, usize), Errno> {
    let header = memory::numbers32(caller.call.thread, caller.arguments[0], 2)?;
    let Some(words) = words(header[0]) else {
        caller.write(caller.arguments[0], &VERSION_3.to_le_bytes())?;
        return Err(Errno::INVAL);
    };
    let (process, is_caller) = match header[1] {
        0 => (caller.view.state.clone(), true),
        other => (caller.world.tasks.known(other).ok_or(Errno::SRCH)?, other == caller.view.thread),
    };
    Ok((process, is_caller, words))
}

/// capget(2) (header, data): what a container's root has, or what is left of it.
pub fn capabilities(caller: &Caller<'_>) -> Handled {
    let (process, _, words) = match header(caller) {
        // Only the version was asked for.
        Err(Errno::INVAL) if caller.arguments[1] == 0 => return DONE,
        header => header?,
    };
    let rights = process.ids.rights;
    let word = |set: u64, index: usize| (set >> (32 * index)) as u32;
    let data = (0..words)
        .flat_map(|index| [rights.effective, rights.permitted, rights.inheritable].map(|set| word(set, index)));
    let data: Vec<u8> = data.flat_map(u32::to_le_bytes).collect();
    if caller.arguments[1] != 0 {
        caller.write(caller.arguments[1], &data)?;
    }
    DONE
}

/// capset(2) (header, data)
pub fn set_capabilities(caller: &Caller<'_>) -> Handled {
    let (_, is_caller, words) = header(caller)?;
    if !is_caller {
        return Err(Errno::PERM);
    }
    let data = memory::numbers32(caller.call.thread, caller.arguments[1], 3 * words)?;
    let set = |which: usize| (0..words).fold(0, |set, index| set | u64::from(data[3 * index + which]) << (32 * index));
    change(caller, |ids| ids.set_rights(set(0), set(1), set(2)))??;
    DONE
}

/// prctl(2) (option, value, …) as far as it is about rights: whether they are kept over a change of users, or gained at all.
pub fn process_option(caller: &Caller<'_>) -> Handled {
    let value = caller.arguments[1];
    match caller.number(0) as libc::c_int {
        libc::PR_GET_NO_NEW_PRIVS => return caller.ok(i64::from(caller.view.gains_nothing)),
        libc::PR_SET_NO_NEW_PRIVS if caller.arguments[1..5] == [1, 0, 0, 0] => {
            caller.changing(|state| state.gains_nothing = true)?;
        }
        libc::PR_SET_SECCOMP => return filter(caller),
        libc::PR_GET_KEEPCAPS => return caller.ok(i64::from(caller.view.ids.rights.keep)),
        libc::PR_SET_KEEPCAPS if value <= 1 => change(caller, |ids| ids.rights.keep = value == 1)?,
        _ => return Err(Errno::INVAL),
    }
    DONE
}

/// A filter of the step's own, by seccomp(2) or prctl(2): what it has the kernel answer must not deceive a program that has other
/// rights than who made it. To the kernel everybody here has `no_new_privs`.
fn filter(caller: &Caller<'_>) -> Handled {
    if !caller.view.gains_nothing {
        return Err(Errno::ACCESS);
    }
    caller.changing(|state| state.is_filtered = true)?;
    // Safe: whoever has no new rights to gain may do this to itself.
    Ok(Reply::Continue)
}

/// seccomp(2) (operation)
pub fn seccomp(caller: &Caller<'_>) -> Handled {
    match caller.number(0) {
        libc::SECCOMP_SET_MODE_STRICT | libc::SECCOMP_SET_MODE_FILTER => filter(caller),
        // Safe: what is left only tells what the kernel can.
        _ => Ok(Reply::Continue),
    }
}

/// uname(2), with the step's own host name.
pub fn system_name(caller: &Caller<'_>) -> Handled {
    // SAFETY: utsname is plain data for which zeroes are valid, and the call fills it.
    let mut name = unsafe {
        let mut name = std::mem::zeroed::<libc::utsname>();
        libc::uname(&mut name);
        name
    };
    let host = caller.world.hostname.as_bytes();
    let room = name.nodename.len() - 1;
    name.nodename.fill(0);
    for (to, from) in name.nodename.iter_mut().zip(host.iter().take(room)) {
        *to = *from as libc::c_char;
    }
    caller.write(caller.arguments[0], memory::raw(&name))?;
    DONE
}
