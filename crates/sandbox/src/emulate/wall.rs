//! The second wall: a Landlock domain around the threads that work for one step.
//!
//! The walk (`place`) decides what a step reaches. A mistake in it is to be no escape: the threads that answer the step's calls
//! stand in a domain of their own, which they enter before the step's processes are started by one of them. What a mistake
//! confuses then opens nothing outside of the rootfs and the mounts, writes to nothing that is mounted read-only, and sees
//! the memory, descriptors and directories of no process that is not the step's: those are below the domain, and the kernel
//! lets a process look into others of its own domain and below only (`security/landlock/task.c` hook_ptrace_access_check).
//! Reopening a descriptor by /proc asks the domain as well. The builder itself is in their reach, since they are threads of it
//! (`kernel/ptrace.c` __ptrace_may_access): `tasks` knows no number of the builder's.
//!
//! What Landlock does not know of it does not hold: looking at a file's metadata, and changing modes, times and attributes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rootfs::Tree;
use rustix::io::Errno;

use super::mounts::open_source;
use crate::landlock::{self, Rights, Ruleset};
use crate::{Mount, MountSource, Process, SandboxError, sys};

/// The rules for one step; none where the kernel's Landlock cannot serve.
pub fn around(
    rootfs: &Tree,
    process: &Process,
    mounts: &[Mount],
    scratch: &Path,
) -> Result<Option<Ruleset>, SandboxError> {
    let failed = |path: &Path, source: io::Error| SandboxError::Setup {
        action: format!("could not make a Landlock rule for `{}`", path.display()),
        source,
    };
    let Some(rules) = Ruleset::of_files().map_err(|error| failed(Path::new("/"), error))? else { return Ok(None) };
    for (path, rights) in needed(rootfs, process, mounts, scratch) {
        match open_source(&path) {
            Ok(at) => rules.allow(at.as_fd(), rights).map_err(|error| failed(&path, error))?,
            // The container has no such file, and so nobody will ask for it.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(&path, error.into())),
        }
    }
    Ok(Some(rules))
}

fn needed(rootfs: &Tree, process: &Process, mounts: &[Mount], scratch: &Path) -> Vec<(PathBuf, Rights)> {
    let mut all = vec![
        (rootfs.path().to_owned(), Rights::ALL),
        (scratch.to_owned(), Rights::ALL),
        // What is written there is of the step's processes: the kernel asks as for ptrace.
        ("/proc".into(), Rights::WRITE),
        ("/sys".into(), Rights::READ),
    ];
    all.extend(rootfs.table_directory().map(|table| (table.to_owned(), Rights::ALL)));
    all.extend(super::mounts::DEVICES.iter().map(|name| (Path::new("/dev").join(name), Rights::WRITE)));
    all.push(("/dev/pts".into(), Rights::WRITE));
    all.extend(process.terminal.clone().map(|terminal| (terminal, Rights::WRITE)));
    for mount in mounts {
        if let MountSource::Bind { path, read_only } = &mount.source {
            let rights = if *read_only { Rights::READ } else { Rights::ALL };
            all.push((path.clone(), rights));
            let table = mount.tree.as_ref().and_then(|tree| tree.table_directory());
            all.extend(table.map(|table| (table.to_owned(), rights)));
        }
    }
    all.extend(own_program().into_iter().map(|file| (file, Rights::READ)));
    all
}

/// What the helper is executed from: this program, and its libraries where it has some.
fn own_program() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let files = maps.lines().filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..])));
    files.chain(fs::read_link("/proc/self/exe")).collect()
}

/// Does the work of one step behind the wall, in a thread of its own: whoever starts threads there starts them behind it.
pub fn behind<T: Send>(
    wall: Option<&Ruleset>,
    cancelled: &(dyn Fn() -> bool + Sync),
    work: impl FnOnce() -> Result<T, SandboxError> + Send,
) -> Result<T, SandboxError> {
    let failed = |action: &str, source| SandboxError::Setup { action: action.to_owned(), source };
    std::thread::scope(|scope| {
        let confined = move || {
            if let Some(rules) = wall {
                rules
                    .enter()
                    .map_err(|error| failed("could not put the step's supervisor into a Landlock domain", error))?;
            }
            super::give_up_all_rights()
                .map_err(|error| failed("could not give up the rights of the step's supervisor", error))?;
            work()
        };
        let thread = spawn::scoped(scope, "step", cancelled, confined)
            .map_err(|error| failed("could not start a thread for the step", error))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What of it the kernel can do, in words for `zuwai doctor`.
pub fn kernel_has() -> Result<(), String> {
    match landlock::version() {
        Ok(2..) => Ok(()),
        Ok(_) => Err("Landlock of version 1 cannot let files be moved (Linux 5.19 is needed)".to_owned()),
        Err(error) => Err(format!("no Landlock ({})", sys::plain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySet, capabilities};

    use super::*;

    #[test]
    fn who_works_for_a_step_has_no_capability() {
        let sets = behind(None, &|| false, || Ok(capabilities(None).unwrap())).unwrap();
        assert_eq!(
            (sets.effective, sets.permitted, sets.inheritable),
            (CapabilitySet::empty(), CapabilitySet::empty(), CapabilitySet::empty())
        );
    }
}
