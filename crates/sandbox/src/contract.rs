//! What every back-end has to do: one suite, called by tests and, inside the environments in `cages/`, by the example
//! `contract`.
//!
//! The rootfs is a static busybox and nothing else, so that mount points and the like are all missing at first. What busybox
//! cannot do is done by the suite's own program, which is copied into the rootfs and started again there ([`attack`]).
//!
//! The suite runs as any user. It looks at owners, modes and devices through the [`Tree`](rootfs::Tree), for a back-end may
//! keep them in its table.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::{Sandbox, landlock};

pub mod attack;
mod files;
mod hostile;
mod mounts;
mod process;
mod root;
mod sockets;
mod suite;
mod walls;

use suite::Suite;

/// What a back-end cannot do by its nature; everything else is the same for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// A network without interfaces.
    pub network_none: bool,
    /// A host name of the step's own.
    pub hostname: bool,
    /// An /etc/hosts of the step's own even where the container has one mounted.
    pub own_hosts: bool,
    /// Mount points that the step can neither remove nor write through, and no device that works but those it is given.
    pub real_mounts: bool,
    /// Size limits of tmpfs mounts.
    pub tmpfs_sizes: bool,
    /// Device nodes, if only for the layer.
    pub devices: bool,
    /// Files outside of the rootfs cannot be reached.
    pub hidden_files: bool,
    /// The calls that Docker's seccomp profile refuses are refused by the back-end itself. Otherwise the container's own
    /// filter decides.
    pub filtered: bool,
    /// Number 1 in /proc is the step's first process, whatever its number is to the kernel.
    pub own_first: bool,
    /// A node that a step makes of a device that every container has, is that device.
    pub common_devices: bool,
    /// Owners and modes in the rootfs directory are those of the image, and mounted files have theirs.
    pub real_owners: bool,
    /// A program with a set-user-ID bit runs with the rights of its owner.
    pub set_id: bool,
}

impl Abilities {
    /// Those of the back-end with this name, for this process.
    pub fn of(backend: &str) -> Abilities {
        let (namespace, inplace, emulate) = (backend == "namespace", backend == "inplace", backend == "emulate");
        let no_new_privs = rustix::thread::no_new_privs().unwrap_or(false);
        Abilities {
            network_none: !inplace,
            hostname: !inplace,
            own_hosts: !inplace,
            real_mounts: !inplace,
            tmpfs_sizes: namespace,
            devices: !namespace,
            hidden_files: !inplace,
            filtered: !inplace,
            own_first: emulate,
            common_devices: emulate,
            real_owners: !emulate,
            set_id: emulate || !no_new_privs,
        }
    }
}

/// What the suite is run with.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    pub abilities: Abilities,
    /// A static program.
    pub busybox: &'a Path,
    /// Where rootfs trees are made.
    pub work: &'a Path,
    /// Only checks whose name holds this.
    pub part: &'a str,
    /// How long a step tries to get out by changing directories while paths through them are resolved.
    pub race: Duration,
}

/// Long enough for a test that is run often.
pub const SHORT_RACE: Duration = Duration::from_secs(3);

/// Runs every check that is asked for. `report` gets each check's name and what was wrong.
///
/// The program must call [`attack::dispatch`] first in `main`, after [`crate::probe::dispatch_child`].
pub fn check_all(
    sandbox: &dyn Sandbox,
    settings: &Settings<'_>,
    report: &mut dyn FnMut(&'static str, Result<(), String>),
) {
    let suite = Suite { sandbox, settings: *settings, made: AtomicUsize::new(0) };
    for (name, check) in THEMES.iter().copied().flatten().filter(|(name, _)| name.contains(settings.part)) {
        report(name, check(&suite));
    }
}

type Check = fn(&Suite<'_>) -> Result<(), String>;

const THEMES: &[&[(&str, Check)]] =
    &[process::CHECKS, mounts::CHECKS, files::CHECKS, root::CHECKS, sockets::CHECKS, walls::CHECKS, hostile::CHECKS];

/// Whether the kernel can keep signals and abstract sockets in (Landlock version 6, Linux 6.12).
fn kernel_has_scopes() -> bool {
    landlock::version().is_ok_and(|version| version >= landlock::SCOPES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What docs/isolation.md says of hostile steps is what is checked: the last column of its tables names checks.
    #[test]
    fn every_wall_is_described_and_every_description_checked() {
        let text = include_str!("../../../docs/isolation.md");
        let start = text.find("## What a malicious step can reach").expect("a section");
        let section = &text[start..text.find("## What to keep in mind").expect("a section after it")];
        let cells = section.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once('|'));
        let named: BTreeSet<&str> = cells.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2)).collect();
        let all: BTreeSet<&str> = THEMES.iter().copied().flatten().map(|(name, _)| *name).collect();
        let unknown: Vec<_> = named.difference(&all).collect();
        assert!(unknown.is_empty(), "no such checks: {unknown:?}");
        let walls = [walls::CHECKS, hostile::CHECKS].into_iter().flatten();
        let silent: Vec<_> = walls.map(|(name, _)| *name).filter(|name| !named.contains(name)).collect();
        assert!(silent.is_empty(), "not described: {silent:?}");
    }
}
