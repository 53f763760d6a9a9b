//! The process that answers a step's calls: the builder's own program, started again for one step.
//!
//! It is the second wall. The walk (`place`) decides what a step reaches, and a mistake in it is to be no escape: so who walks has
//! nothing else in reach. The supervisor has none of the builder's memory, environment and descriptors; it stands in a Landlock
//! domain of the step, to which the builder does not belong, and has no capability. All that it knows is in its [`Orders`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rootfs::{Stop, Tree};
use serde::{Deserialize, Serialize};

use super::{World, give_up_all_rights, mounts, wall};
use crate::helper::{Helper, Place, Role, Spec};
use crate::{Ended, Mount, Process, SandboxError, wire};

/// What the builder tells it.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    process: Process,
    rootfs: Opened,
    mounts: Vec<(Mount, Option<Opened>)>,
    /// A directory for what is made for the step. The builder makes and removes it.
    #[serde(with = "wire")]
    scratch: PathBuf,
    /// How many files the step may have open.
    files: Option<u64>,
}

impl Orders {
    pub fn new(rootfs: &Tree, process: &Process, mounts: &[Mount], scratch: &Path, files: Option<u64>) -> Orders {
        let known = |mount: &Mount| mount.tree.as_deref().map(Opened::of);
        Orders {
            process: process.clone(),
            rootfs: Opened::of(rootfs),
            mounts: mounts.iter().map(|mount| (mount.clone(), known(mount))).collect(),
            scratch: scratch.to_owned(),
            files,
        }
    }
}

/// A tree that is to be opened again.
#[derive(Serialize, Deserialize)]
struct Opened {
    #[serde(with = "wire")]
    path: PathBuf,
    #[serde(with = "wire::optional")]
    table: Option<PathBuf>,
    is_shared: bool,
}

impl Opened {
    fn of(tree: &Tree) -> Opened {
        Opened {
            path: tree.path().to_owned(),
            table: tree.table_file().map(Path::to_owned),
            is_shared: tree.is_shared(),
        }
    }

    fn open(&self, stop: &Stop) -> Result<Tree, SandboxError> {
        let tree = match &self.table {
            Some(table) if self.is_shared => Tree::open_shared(&self.path, table, stop)?,
            table => Tree::open(&self.path, table.as_deref())?,
        };
        Ok(tree.stopping(stop))
    }
}

/// The life of a supervisor, from its orders to its report. What the step prints goes where this process prints.
pub fn supervise(orders: &Orders, is_let_go: &(dyn Fn() -> bool + Sync)) -> Result<Ended, SandboxError> {
    let flag = Arc::new(AtomicBool::new(false));
    let stop = Stop::when(&[&flag]);
    let cancelled = || {
        if is_let_go() {
            flag.store(true, Ordering::Relaxed);
        }
        stop.is_set()
    };
    let rootfs = orders.rootfs.open(&stop)?;
    let with_tree = |(mount, tree): &(Mount, Option<Opened>)| {
        let tree = tree.as_ref().map(|tree| tree.open(&stop)).transpose()?.map(Arc::new);
        Ok(Mount { tree, ..mount.clone() })
    };
    let mounts: Vec<Mount> = orders.mounts.iter().map(with_tree).collect::<Result<_, SandboxError>>()?;
    let world = World::new(&rootfs, &orders.process, &orders.scratch)?;
    mounts::arrange(&world, &rootfs, &orders.process, &mounts, &orders.scratch)?;
    let failed = |action: &str, source| SandboxError::Setup { action: action.to_owned(), source };
    if let Some(rules) = wall::around(&rootfs, &orders.process, &mounts, &orders.scratch)? {
        rules.enter().map_err(|error| failed("could not put the step's supervisor into a Landlock domain", error))?;
    }
    give_up_all_rights().map_err(|error| failed("could not give up the rights of the step's supervisor", error))?;
    let place = Place::Emulated { pass: world.pass, mark: world.mark, files: orders.files };
    let spec = Spec { process: orders.process.clone(), place };
    let helper = Helper::start(Role::HelperOfSupervisor, &cancelled)?;
    let ended = helper.run(&spec, Some(&world), &mut |_, _| {}, &cancelled)?;
    let forgotten = world.nameless.forget();
    forgotten.map_err(|error| failed("could not write the metadata table of the rootfs", error))?;
    Ok(Ended { written: world.written.take(), ..ended })
}
