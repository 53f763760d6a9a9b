//! The second wall: a Landlock domain around all that is done for one step.
//!
//! The process that answers a step's calls (`supervisor`) enters a domain of that step before it starts the step's processes. What a
//! mistake in the walk (`place`) confuses then opens nothing outside of the rootfs and the mounts, writes to nothing that is mounted
//! read-only, sends signals to nobody else, and sees the memory, environment, descriptors and directories of no process that is
//! not the step's: those are of the domain or below, and the kernel lets a process look into no other
//! (`security/landlock/task.c` hook_ptrace_access_check). Reopening a descriptor by /proc asks the domain as well.
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
    all.extend(table_directory(rootfs).map(|table| (table.to_owned(), Rights::ALL)));
    all.extend(super::mounts::DEVICES.iter().map(|name| (Path::new("/dev").join(name), Rights::WRITE)));
    all.push(("/dev/pts".into(), Rights::WRITE));
    all.extend(process.terminal.clone().map(|terminal| (terminal, Rights::WRITE)));
    for mount in mounts {
        if let MountSource::Bind { path, read_only } = &mount.source {
            let rights = if *read_only { Rights::READ } else { Rights::ALL };
            all.push((path.clone(), rights));
            let table = mount.tree.as_ref().and_then(|tree| table_directory(tree));
            all.extend(table.map(|table| (table.to_owned(), rights)));
        }
    }
    all.extend(own_program().into_iter().map(|file| (file, Rights::READ)));
    all
}

/// Where a table is written anew.
fn table_directory(tree: &Tree) -> Option<&Path> {
    tree.table_file()?.parent()
}

/// What the helper is executed from: this program, and its libraries where it has some.
fn own_program() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let files = maps.lines().filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..])));
    files.chain(fs::read_link("/proc/self/exe")).collect()
}

/// What of it the kernel can do, in words for `zuwai doctor`.
pub fn kernel_has() -> Result<(), String> {
    match landlock::version() {
        Ok(2..) => Ok(()),
        Ok(_) => Err("Landlock of version 1 cannot let files be moved (Linux 5.19 is needed)".to_owned()),
        Err(error) => Err(format!("no Landlock ({})", sys::plain(&error))),
    }
}
