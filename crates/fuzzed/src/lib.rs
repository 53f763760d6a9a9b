//! What is fuzzed: for each reader of what others wrote, a function that takes any bytes and panics when a promise is broken.
//!
//! The fuzzer (`fuzz/`, a workspace of its own) calls them with bytes it makes up, `tests/corpus.rs` with those that it once
//! found worth keeping (`fuzz/corpus/TARGET`), so that every run of the tests replays them. For tests only.

mod files;
mod images;
mod names;
mod remote;
mod text;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A body of the fuzzer.
pub type Body = fn(&[u8]);

/// Every body under the name of its target and of its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Body); 21] = [
    ("archive", files::archive),
    ("chmod", files::chmod),
    ("directives", text::directives),
    ("dockerfile_expand", text::dockerfile_expand),
    ("dockerfile_parse", text::dockerfile_parse),
    ("dockerignore", text::dockerignore),
    ("exec_form", text::exec_form),
    ("git_bytes", remote::git_bytes),
    ("git_pack", remote::git_pack),
    ("glob", text::glob),
    ("image_archive", images::image_archive),
    ("image_documents", images::image_documents),
    ("layer", files::layer),
    ("layer_round_trip", files::layer_round_trip),
    ("names", names::names),
    ("oci_layout", images::oci_layout),
    ("program", files::program),
    ("registry_texts", names::registry_texts),
    ("run_mount", text::run_mount),
    ("ssh_agent", remote::ssh_agent),
    ("users", files::users),
];

/// Runs the body of a target.
///
/// # Panics
/// When the body finds a fault, and when there is no such target.
pub fn run(target: &str, input: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of the list");
    body(input);
}

/// The first line, without its end, and what follows.
fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

/// Fails when `work` needs more than `limit` of this thread's processor time: other work on the machine does not count.
fn within<T>(limit: Duration, work: impl FnOnce() -> T) -> T {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let begin = now();
    let result = work();
    let spent = now().saturating_sub(begin);
    assert!(spent <= limit, "took {spent:?} of the processor, more than {limit:?}");
    result
}
