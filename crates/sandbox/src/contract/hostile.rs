//! Steps that break what they can: afterwards the builder goes on, or has a clear error, and nothing is left behind.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rootfs::commit::{CommitOptions, commit};

use super::suite::{Place, Suite, bind, full, process, same, shell, text};
use super::{Check, attack, walls};
use crate::{Exit, SandboxError};

pub const CHECKS: &[(&str, Check)] = &[
    ("a step that kills what watches over it", kills_keepers),
    ("a step that stops what watches over it", stops_keepers),
    ("a step that forks a thousand times and leaves them", forks),
    ("a step that leaves processes which live too short to be killed", comets),
    ("a hundred thousand descriptors", descriptors),
    ("a step that unmounts what it can", unmounts),
    ("directories 4,096 deep", deep),
    ("names that are no text, and links that are loops", names),
    ("a race for the way out", walls::race),
];

/// A process anywhere whose command line holds `mark`.
fn left_behind(mark: &str) -> Option<String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.find_map(|line| {
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(mark).then_some(line)
    })
}

/// As the step of `process` is left, nothing of it may run.
fn nothing_left(mark: &str) -> Result<(), String> {
    same("a process of the step that still runs", left_behind(mark), None)
}

fn kills_keepers(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let started = Instant::now();
    let sleep = suite.mark("86399.25");
    match place.try_with(&attack::process("keepers", &["9", &sleep]), &[], &|| false) {
        // It could not, or there was nobody in sight.
        Ok(ran) => same("exit", ran.exit, Exit::Code(0))?,
        Err(error @ SandboxError::Setup { .. }) if error.to_string().contains("watches over the step") => {}
        Err(error) => return Err(full(error)),
    }
    same("in time", started.elapsed() < Duration::from_secs(15), true)?;
    nothing_left(&sleep)?;
    // The builder goes on.
    same("the next step", place.script("echo on", &[])?.as_str(), "on\n")
}

fn stops_keepers(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let started = Instant::now();
    let (stop, sleep) = (libc::SIGSTOP.to_string(), suite.mark("86399.5"));
    let ran = place.run(&attack::process("keepers", &[&stop, &sleep]), &[])?;
    same("exit", ran.exit, Exit::Code(0))?;
    same("in time", started.elapsed() < Duration::from_secs(15), true)?;
    nothing_left(&sleep)?;
    // One that does it all the time cannot keep the build from being cancelled.
    let cancelled = || started.elapsed() > Duration::from_secs(1);
    match place.try_with(&shell("while :; do kill -STOP $PPID 2> /dev/null; done"), &[], &cancelled) {
        Err(SandboxError::Cancelled) => same("in time", started.elapsed() < Duration::from_secs(30), true),
        other => Err(format!("gave {other:?}")),
    }
}

fn forks(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let started = Instant::now();
    let mark = suite.mark("mark-of-the-forks-");
    same("done", place.attack("forks", &["1000", &mark])?.reached(), vec!["forked"])?;
    same("in time", started.elapsed() < Duration::from_secs(60), true)?;
    nothing_left(&mark)
}

fn comets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let started = Instant::now();
    let mark = suite.mark("mark-of-the-comets-");
    same("done", place.attack("comets", &["20", &mark])?.reached(), vec!["flying"])?;
    same("in time", started.elapsed() < Duration::from_secs(10), true)?;
    nothing_left(&mark)
}

fn descriptors(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let outcomes = place.attack("descriptors", &["100000"])?;
    let opened = outcomes.reached().first().and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    same(&format!("{opened} of {limit} opened"), opened + 64 >= limit.min(100_000), true)?;
    place.stat("tmp/afterwards").map(drop)
}

fn unmounts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::write(source.join("file"), "kept\n").map_err(text)?;
    let script = "for i in 1 2; do cut -d' ' -f2 /proc/mounts | sort -r | while read at; do umount -l $at; umount $at; done; done
        2> /dev/null; rm -rf /m/file; mount -t tmpfs x /m 2> /dev/null && echo mounted; ls /m";
    let mounts = [bind(&source, "/m", true)];
    let ran = place.run(&shell(script), &mounts)?;
    if suite.abilities().real_mounts {
        same("still mounted", (ran.exit, ran.stdout.as_str()), (Exit::Code(0), "file\n"))?;
    }
    same("the source", fs::read_to_string(source.join("file")).map_err(text)?.as_str(), "kept\n")?;
    same(
        "the next step",
        place.script("cat /m/file; test -c /dev/null && test -d /proc/1 && echo all there", &mounts)?.as_str(),
        "kept\nall there\n",
    )
}

/// Lists and removes it, as the builder does.
fn listed_and_removed(place: &Place<'_>, name: &str) -> Result<u64, String> {
    let record = place.path().with_extension(format!("record-{name}"));
    let options = CommitOptions::default();
    let (_snapshot, committed) = commit(&place.tree, None, &record, &options, &mut std::io::sink())
        .map_err(|error| format!("commit: {error}"))?;
    place.tree.remove(Path::new(name)).map_err(text)?;
    same("removed", place.tree.stat(Path::new(name)).map_err(text)?, None)?;
    Ok(committed.entries)
}

fn deep(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    place.attack("deep", &["4096"])?;
    let entries = listed_and_removed(&place, "deep")?;
    same("entries in the layer", entries > 4096, true)
}

fn names(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    place.attack("names", &[])?;
    let found: BTreeSet<OsString> = place.tree.read_dir(Path::new("names")).map_err(text)?.into_iter().collect();
    for name in attack::NAMES {
        same("listed", found.contains(OsStr::from_bytes(name)), true)?;
        let path = Path::new("names").join(OsStr::from_bytes(name));
        let mut content = Vec::new();
        let mut file = place.tree.open_file(&path.join("file")).map_err(text)?;
        std::io::Read::read_to_end(&mut file, &mut content).map_err(text)?;
        same("content", &content[..], name)?;
        same("target", place.tree.read_link(&path.join("link")).map_err(text)?.as_os_str(), OsStr::from_bytes(name))?;
    }
    same("removed by name", place.success(&process(&["/bin/rm", "-r", "/names/-rf", "/names/*"]), &[])?.as_str(), "")?;
    listed_and_removed(&place, "names").map(drop)
}
