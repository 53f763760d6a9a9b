//! Which back-end works here, found by trying each in a forked child.

use std::path::Path;

use crate::{Sandbox, SandboxError};

/// The outcome of one probe.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    pub backend: &'static str,
    pub works: bool,
    /// What was tried, one line each, in order; the last one is the failing call with its errno when `works` is false.
    pub tried: Vec<String>,
    /// What would have to be granted.
    pub needs: Option<String>,
}

/// Everything found out about this host, and the choice. [`probe`] makes it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Name of the back-end that `auto` takes.
    pub chosen: Option<&'static str>,
}

/// Probes every back-end. Call before any thread exists. `work` is where stages will lie.
pub fn probe(work: &Path) -> Report {
    let _ = work;
    unimplemented!()
}

/// Enters what the chosen back-end needs of the whole builder process (a user and mount namespace for `namespace` without
/// real root) and returns the back-end. `name`: `auto` or a back-end's name. Call before any thread exists.
pub fn enter(name: &str, work: &Path) -> Result<Box<dyn Sandbox>, SandboxError> {
    let _ = (name, work);
    unimplemented!()
}

/// Runs the part of a re-exec'd child when the process was started as one, and never returns then. First thing in `main`.
pub fn dispatch_child() {
}
