//! Sockets that a step makes for itself: they work as on any machine, and no trick with them leads out.

use std::fs;
use std::io;
use std::os::unix::net::UnixListener;

use super::suite::{Suite, same, text};
use super::{Check, attack};

pub const CHECKS: &[(&str, Check)] =
    &[("a step's own sockets", own), ("a socket that becomes another while it is connected", exchanged)];

fn own(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    place.success(&attack::process("sockets", &[]), &[])?;
    let found = place.stat("tmp/s")?;
    same("mode and owner", (found.mode & 0o7777, found.uid, found.gid), (0o700, 0, 0))
}

/// A host's socket, and a step with two threads: one connects to a port, the other puts a socket of another family there and
/// changes the address.
fn exchanged(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.abilities().hidden_files {
        return Ok(());
    }
    let place = suite.place_for_attacks()?;
    let path = fs::canonicalize(suite.fresh_directory("socket")?).map_err(text)?.join("s");
    let listener = UnixListener::bind(&path).map_err(text)?;
    listener.set_nonblocking(true).map_err(text)?;
    place.attack("exchange", &[&path.display().to_string()])?.all_refused()?;
    match listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => Err(format!("the step came to the host's socket: {other:?}")),
    }
}
