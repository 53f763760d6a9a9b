//! Who a process of the step believes to be, and what that lets it do.

use std::sync::Arc;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::place::type_of;

pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const EXECUTE: u32 = 1;
/// As many groups as the kernel allows (`linux/limits.h` NGROUPS_MAX).
pub const GROUPS_MAX: usize = 65536;
const KEEP: u32 = u32::MAX;

/// An id of a call that has 16 bits for it (`linux/highuid.h`).
pub fn long(id: u16) -> u32 {
    if id == u16::MAX { KEEP } else { id.into() }
}

/// What such a call says of an id; `/proc/sys/kernel/overflowuid` for what has no room.
pub fn short(id: u32) -> u16 {
    const OVERFLOW: u16 = 65534;
    u16::try_from(id).unwrap_or(OVERFLOW)
}

/// Real, effective, saved, of the file system (credentials(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Set {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    pub files: u32,
}

impl Set {
    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2)
    fn set(&mut self, id: u32, privileged: bool) -> Result<(), Errno> {
        if privileged {
            *self = Set { real: id, effective: id, saved: id, files: id };
        } else if id == self.real || id == self.saved {
            (self.effective, self.files) = (id, id);
        } else {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    /// setreuid(2)
    fn set_two(&mut self, real: u32, effective: u32, privileged: bool) -> Result<(), Errno> {
        let may_be_real = [KEEP, self.real, self.effective].contains(&real);
        if !privileged && (!may_be_real || !(effective == KEEP || self.has(effective))) {
            return Err(Errno::PERM);
        }
        let before = self.real;
        if real != KEEP {
            self.real = real;
        }
        if effective != KEEP {
            self.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != before) {
            self.saved = self.effective;
        }
        self.files = self.effective;
        Ok(())
    }

    /// setresuid(2)
    fn set_three(&mut self, ids: [u32; 3], privileged: bool) -> Result<(), Errno> {
        if !privileged && !ids.iter().all(|id| *id == KEEP || self.has(*id)) {
            return Err(Errno::PERM);
        }
        for (to, id) in [&mut self.real, &mut self.effective, &mut self.saved].into_iter().zip(ids) {
            if id != KEEP {
                *to = id;
            }
        }
        self.files = self.effective;
        Ok(())
    }

    /// setfsuid(2): gives the old one, whatever happens.
    fn set_files(&mut self, id: u32, privileged: bool) -> u32 {
        let before = self.files;
        if id != KEEP && (privileged || self.has(id) || id == self.files) {
            self.files = id;
        }
        before
    }
}

/// The rights that a process believes to have, as numbers of bits (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rights {
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    /// PR_SET_KEEPCAPS
    pub keep: bool,
}

/// What a container's root has.
pub const ALL: u64 = crate::start::CAPABILITIES.bits();
const KILL: u64 = 1 << 5;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SYS_CHROOT: u64 = 1 << 18;
const SETFCAP: u64 = 1 << 31;

impl Rights {
    const ROOT: Rights = Rights { permitted: ALL, effective: ALL, inheritable: 0, keep: false };

    /// What is left when the user ids change («Effect of user ID changes on capabilities», capabilities(7)).
    fn after(self, before: Set, now: Set) -> Rights {
        let is_root = |set: Set| set.has(0);
        let mut rights = self;
        if is_root(before) && !is_root(now) && !self.keep {
            rights.permitted = 0;
        }
        rights.effective = match (before.effective, now.effective) {
            (0, effective) if effective != 0 => 0,
            (effective, 0) if effective != 0 => rights.permitted,
            _ => self.effective & rights.permitted,
        };
        rights
    }
}

/// The credentials of a process.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Ids {
    pub user: Set,
    pub group: Set,
    pub groups: Arc<[u32]>,
    pub rights: Rights,
}

/// Which of the two sets a call is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    User,
    Group,
}

impl Ids {
    pub fn root() -> Ids {
        Ids { user: Set::default(), group: Set::default(), groups: Arc::from([]), rights: Rights::ROOT }
    }

    /// Whether files are no obstacle.
    pub fn is_root(&self) -> bool {
        self.user.files == 0
    }

    fn may_change(&self, kind: Kind) -> bool {
        let needed = if kind == Kind::User { SETUID } else { SETGID };
        self.rights.effective & needed != 0
    }

    /// Whether the list of groups may be changed.
    pub fn may_set_groups(&self) -> bool {
        self.may_change(Kind::Group)
    }

    /// CAP_KILL
    pub fn may_kill(&self) -> bool {
        self.rights.effective & KILL != 0
    }

    /// CAP_SETFCAP
    pub fn may_set_capabilities(&self) -> bool {
        self.rights.effective & SETFCAP != 0
    }

    pub fn may_change_root(&self) -> bool {
        self.rights.effective & SYS_CHROOT != 0
    }

    /// capset(2)
    pub fn set_rights(&mut self, effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
        // What this container's root does not have anyway is no news.
        if permitted & ALL & !self.rights.permitted != 0 || effective & !permitted != 0 {
            return Err(Errno::PERM);
        }
        self.rights = Rights { permitted: permitted & ALL, effective: effective & ALL, inheritable, ..self.rights };
        Ok(())
    }

    pub fn of(&self, kind: Kind) -> Set {
        match kind {
            Kind::User => self.user,
            Kind::Group => self.group,
        }
    }

    fn change<T>(&mut self, kind: Kind, change: impl FnOnce(&mut Set, bool) -> T) -> T {
        let privileged = self.may_change(kind);
        if kind == Kind::Group {
            return change(&mut self.group, privileged);
        }
        let before = self.user;
        let changed = change(&mut self.user, privileged);
        self.rights = self.rights.after(before, self.user);
        changed
    }

    pub fn set(&mut self, kind: Kind, id: u32) -> Result<(), Errno> {
        if id == KEEP {
            return Err(Errno::INVAL);
        }
        self.change(kind, |set, privileged| set.set(id, privileged))
    }

    pub fn set_two(&mut self, kind: Kind, real: u32, effective: u32) -> Result<(), Errno> {
        self.change(kind, |set, privileged| set.set_two(real, effective, privileged))
    }

    pub fn set_three(&mut self, kind: Kind, ids: [u32; 3]) -> Result<(), Errno> {
        self.change(kind, |set, privileged| set.set_three(ids, privileged))
    }

    pub fn set_files(&mut self, kind: Kind, id: u32) -> u32 {
        self.change(kind, |set, privileged| set.set_files(id, privileged))
    }

    pub fn is_in(&self, group: u32) -> bool {
        self.group.files == group || self.groups.contains(&group)
    }

    /// Whether all of `wanted` ([`READ`], [`WRITE`], [`EXECUTE`]) is allowed on a file (path_resolution(7)).
    pub fn may(&self, file: &Statx, wanted: u32) -> Result<(), Errno> {
        let mode = u32::from(file.stx_mode);
        if self.is_root() {
            let runs = type_of(file).is_dir() || mode & 0o111 != 0;
            return if wanted & EXECUTE == 0 || runs { Ok(()) } else { Err(Errno::ACCESS) };
        }
        let shift = match () {
            () if self.user.files == file.stx_uid => 6,
            () if self.is_in(file.stx_gid) => 3,
            () => 0,
        };
        if (mode >> shift) & wanted == wanted { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Whether somebody with these ids and rights may look into a process with ours.
    pub fn may_be_seen_by(&self, user: u32, group: u32, rights: u64) -> bool {
        let is_all = |set: Set, id| [set.real, set.effective, set.saved] == [id; 3];
        is_all(self.user, user) && is_all(self.group, group) && self.rights.permitted & !rights == 0
    }

    pub fn owns(&self, file: &Statx) -> bool {
        self.is_root() || self.user.files == file.stx_uid
    }

    /// As access(2) looks: with the real ids.
    pub fn real(&self) -> Ids {
        let mut ids = self.clone();
        ids.user.files = ids.user.real;
        ids.group.files = ids.group.real;
        ids
    }

    /// What a program with set-id bits makes of them (execve(2)). `None`: the bit is not set.
    pub fn after_exec(&self, user: Option<u32>, group: Option<u32>) -> Ids {
        let mut ids = self.clone();
        if let Some(user) = user {
            (ids.user.effective, ids.user.files) = (user, user);
        }
        if let Some(group) = group {
            (ids.group.effective, ids.group.files) = (group, group);
        }
        (ids.user.saved, ids.user.files) = (ids.user.effective, ids.user.effective);
        (ids.group.saved, ids.group.files) = (ids.group.effective, ids.group.effective);
        ids.rights = match (ids.user.real, ids.user.effective) {
            (_, 0) => Rights::ROOT,
            (0, _) => Rights { effective: 0, ..Rights::ROOT },
            _ => Rights { permitted: 0, effective: 0, inheritable: 0, keep: false },
        };
        ids
    }

    /// The same of a process with `no_new_privs`: no program gives it more than it has (`security/commoncap.c` cap_bprm_creds_from_file).
    pub fn after_exec_without_gain(&self) -> Ids {
        let mut ids = self.after_exec(None, None);
        ids.rights.permitted &= self.rights.permitted;
        ids.rights.effective &= self.rights.permitted;
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(ids: &Ids) -> [u32; 4] {
        [ids.user.real, ids.user.effective, ids.user.saved, ids.user.files]
    }

    #[test]
    fn root_gives_its_rights_away_for_good() {
        let mut ids = Ids::root();
        ids.set(Kind::Group, 7).unwrap();
        ids.set(Kind::User, 1000).unwrap();
        assert_eq!(user(&ids), [1000; 4]);
        assert_eq!(ids.set(Kind::User, 0), Err(Errno::PERM));
        assert_eq!(ids.set(Kind::Group, 0), Err(Errno::PERM));
    }

    #[test]
    fn a_saved_id_can_be_taken_back() {
        let mut ids = Ids::root();
        ids.set_three(Kind::User, [KEEP, 33, KEEP]).unwrap();
        assert_eq!(user(&ids), [0, 33, 0, 33]);
        assert_eq!(ids.set_three(Kind::User, [5, 5, 5]), Err(Errno::PERM));
        ids.set_two(Kind::User, KEEP, 0).unwrap();
        assert_eq!(user(&ids), [0, 0, 0, 0]);
    }

    #[test]
    fn rights_can_be_kept_over_a_change_of_user() {
        let mut ids = Ids::root();
        ids.rights.keep = true;
        ids.set_three(Kind::User, [1000; 3]).unwrap();
        assert_eq!(ids.set_three(Kind::Group, [7; 3]), Err(Errno::PERM));
        ids.set_rights(SETGID, SETGID, 0).unwrap();
        ids.set_three(Kind::Group, [7; 3]).unwrap();
        assert_eq!(ids.set_rights(ALL, ALL, 0), Err(Errno::PERM));
        assert_eq!(ids.after_exec(None, None).rights.permitted, 0);
    }

    #[test]
    fn a_saved_root_has_its_rights_back() {
        let mut ids = Ids::root();
        ids.set_three(Kind::User, [KEEP, 33, KEEP]).unwrap();
        assert_eq!((ids.rights.effective, ids.rights.permitted), (0, ALL));
        ids.set_three(Kind::User, [KEEP, 0, KEEP]).unwrap();
        assert_eq!(ids.rights.effective, ALL);
    }

    #[test]
    fn set_id_programs_change_effective_and_saved() {
        let mut ids = Ids::root();
        ids.set(Kind::User, 1000).unwrap();
        let ids = ids.after_exec(Some(0), None);
        assert_eq!(user(&ids), [1000, 0, 0, 0]);
    }
}
