//! How a program is started, watched and ended.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Check;
use super::suite::{Place, Suite, full, process, same, shell, text};
use crate::{Exit, Network, Process, SandboxError, Stream, os};

pub const CHECKS: &[(&str, Check)] = &[
    ("exit codes", exit_codes),
    ("signals", signals),
    ("stdout and stderr are told apart", streams),
    ("the environment is exactly what was given", environment),
    ("working directory", working_directory),
    ("user, group, groups", ids),
    ("capabilities are Docker's", capabilities),
    ("descriptors and umask", descriptors),
    ("processors", processors),
    ("standard input is empty", input),
    ("a terminal of its own", terminal),
    ("proc and its self", proc),
    ("mapped files have the names of the rootfs", maps),
    ("host name and hosts", host_name),
    ("network none", network_none),
    ("a size of shared memory", shared_memory),
    ("daemons are killed", daemons),
    ("daemons of another user are killed", daemons_of_users),
    ("orphans are reaped", orphans),
    ("64 MiB of output", big_output),
    ("output closed early", output_closed),
    ("programs that cannot be started", not_startable),
    ("programs found in PATH", path_search),
    ("cancelling a step that ignores SIGTERM", cancel_stubborn),
    ("cancelling a step that floods its output", cancel_flood),
    ("cancelling leaves no process behind", cancel_tree),
    ("several at a time", several),
    ("one after the other in one rootfs", again),
];

fn exit_codes(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    for code in [0, 1, 77, 126, 255] {
        same("exit", place.run(&shell(&format!("exit {code}")), &[])?.exit, Exit::Code(code))?;
    }
    Ok(())
}

fn signals(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    for signal in [6, 9, 11, 13, 15] {
        same("exit", place.run(&shell(&format!("kill -{signal} $$; sleep 5")), &[])?.exit, Exit::Signal(signal))?;
    }
    Ok(())
}

fn streams(suite: &Suite<'_>) -> Result<(), String> {
    let ran = suite.place()?.run(&shell("echo out; echo err >&2; echo out2"), &[])?;
    same("output", (ran.stdout.as_str(), ran.stderr.as_str()), ("out\nout2\n", "err\n"))
}

fn environment(suite: &Suite<'_>) -> Result<(), String> {
    let mut process = process(&["/bin/env"]);
    process.env = vec![os("A=1"), os("EMPTY="), os("LINES=a\nb"), os("PATH=/nowhere")];
    same("env", suite.place()?.success(&process, &[])?.as_str(), "A=1\nEMPTY=\nLINES=a\nb\nPATH=/nowhere\n")
}

fn working_directory(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    fs::create_dir(place.path().join("there")).map_err(text)?;
    let before = place.listing()?;
    for cwd in ["/", "/there", "/made/on/the/way"] {
        let mut process = process(&["/bin/pwd"]);
        process.cwd = PathBuf::from(cwd);
        same("pwd", place.success(&process, &[])?, format!("{cwd}\n"))?;
    }
    place.only_new(&before, &["made", "made/on", "made/on/the", "made/on/the/way"])?;
    let made = place.stat("made/on/the/way")?;
    same("mode and owner", (made.mode, made.uid, made.gid), (0o755, 0, 0))
}

fn ids(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let mut process = shell("id -u; id -g; id -G; echo x > /tmp/x");
    same("root", place.success(&process, &[])?.as_str(), "0\n0\n0\n")?;
    fs::remove_file(place.path().join("tmp/x")).map_err(text)?;
    (process.uid, process.gid, process.groups) = (1000, 1001, vec![7, 2000]);
    same("user", place.success(&process, &[])?.as_str(), "1000\n1001\n1001 7 2000\n")?;
    let made = place.stat("tmp/x")?;
    same("owner", (made.uid, made.gid), (1000, 1001))?;
    process.args = vec![os("/bin/sh"), os("-c"), os("echo out > /dev/stdout; echo err > /dev/stderr")];
    same("its output by name", place.success(&process, &[])?.as_str(), "out\n")?;
    (process.uid, process.gid, process.groups) = (65534, 65534, vec![]);
    process.args = vec![os("/bin/sh"), os("-c"), os("id -u; touch /bin/no 2> /dev/null || echo refused")];
    same("nobody", place.success(&process, &[])?.as_str(), "65534\nrefused\n")
}

fn capabilities(suite: &Suite<'_>) -> Result<(), String> {
    let allowed = crate::start::CAPABILITIES.bits();
    let ran = suite.place()?.script("grep -E '^Cap' /proc/self/status", &[])?;
    for line in ran.lines() {
        let (name, value) = line.split_once(":\t").ok_or("no capabilities in /proc/self/status")?;
        let value = u64::from_str_radix(value, 16).map_err(text)?;
        let most = if matches!(name, "CapInh" | "CapAmb") { 0 } else { allowed };
        same(name, value & !most, 0)?;
    }
    same("lines", ran.lines().count(), 5)
}

/// The builder may keep a thread that waits for it on one processor; the program, and what it starts, never sees that.
fn processors(suite: &Suite<'_>) -> Result<(), String> {
    let allowed = |status: &str| -> Vec<String> {
        status.lines().filter(|line| line.starts_with("Cpus_allowed:")).map(str::to_owned).collect()
    };
    let own = allowed(&fs::read_to_string("/proc/self/status").map_err(text)?);
    let look = "for i in $(seq 100); do : < /bin/busybox; grep Cpus_allowed: /proc/self/status; done";
    let ran = suite.place()?.script(&format!("({look}) & ({look}) & {look}; wait"), &[])?;
    let seen = allowed(&ran);
    same("looks", seen.len(), 300)?;
    same("processors", seen.into_iter().find(|seen| !own.contains(seen)), None)
}

fn descriptors(suite: &Suite<'_>) -> Result<(), String> {
    let ran = suite.place()?.script("umask; for fd in /proc/self/fd/*; do echo ${fd##*/}; done", &[])?;
    let lines: Vec<&str> = ran.lines().collect();
    // One more may be the directory that the shell reads.
    same("umask and descriptors", &lines[..4.min(lines.len())], &["0022", "0", "1", "2"])?;
    if lines.len() > 5 { Err(format!("more descriptors than three: {lines:?}")) } else { Ok(()) }
}

fn input(suite: &Suite<'_>) -> Result<(), String> {
    same("input", suite.place()?.script("cat; readlink /proc/self/fd/0", &[])?.as_str(), "/dev/null\n")
}

fn terminal(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let (mut ours, theirs) = terminals().map_err(text)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", theirs.as_raw_fd())).map_err(text)?;
    rustix::fs::fchmod(&theirs, rustix::fs::Mode::from_raw_mode(0o666)).map_err(text)?;
    for uid in [0, 1000] {
        let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && read line && echo got-$line && kill -INT 0; sleep 20";
        let process = Process { terminal: Some(path.clone()), uid, ..shell(script) };
        ours.write_all(b"word\n").map_err(text)?;
        let ran = place.run(&process, &[])?;
        same("exit and output elsewhere", (ran.exit, ran.stdout + &ran.stderr), (Exit::Signal(2), String::new()))?;
        shows(&mut ours, "got-word")?;
    }
    Ok(())
}

/// That what a terminal shows has a word in it. The kernel hands it over piece by piece, the echo of the input first.
fn shows(terminal: &mut fs::File, word: &str) -> Result<(), String> {
    let mut shown = String::new();
    while !shown.contains(word) {
        let mut polled = [PollFd::new(terminal, PollFlags::IN)];
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        if rustix::event::poll(&mut polled, Some(&patience)).map_err(text)? == 0 {
            return Err(format!("the terminal has {shown:?}"));
        }
        let mut buffer = [0; 200];
        let count = terminal.read(&mut buffer).map_err(text)?;
        shown += &String::from_utf8_lossy(&buffer[..count]);
    }
    Ok(())
}

/// Both ends of a pseudo-terminal.
fn terminals() -> io::Result<(fs::File, OwnedFd)> {
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: both integers are valid to be written, the other arguments may be null; what is made is nobody else's.
    unsafe {
        let none = std::ptr::null_mut();
        match libc::openpty(&raw mut ours, &raw mut theirs, none, std::ptr::null_mut(), std::ptr::null_mut()) {
            0 => Ok((fs::File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn proc(suite: &Suite<'_>) -> Result<(), String> {
    let script =
        "readlink /proc/self/exe; test -d /proc/$$/fd && echo own; readlink /proc/$$/exe; readlink /proc/self/cwd";
    same("proc", suite.place()?.script(script, &[])?.as_str(), "/bin/busybox\nown\n/bin/busybox\n/\n")
}

fn maps(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "for file in maps smaps; do grep busybox /proc/self/$file | sed 's/.* //' | sort | head -n 1; done";
    same("names", place.script(script, &[])?.as_str(), "/bin/busybox\n/bin/busybox\n")
}

fn host_name(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let mut process = shell("hostname; cat /etc/hosts");
    process.extra_hosts = vec![("db.example".into(), "10.1.2.3".into())];
    let before = place.listing()?;
    let text = place.success(&process, &[])?;
    let own = text.lines().next().unwrap_or_default();
    // A filter of the container's may refuse sethostname(2).
    let free = !fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?.contains("Seccomp:\t2");
    if suite.abilities().hostname && free {
        same("host name", own, "buildhost")?;
    }
    if suite.abilities().own_hosts {
        same("own name in hosts", text.contains(&format!("localhost {own}\n")), true)?;
        same("extra host", text.contains("10.1.2.3\tdb.example"), true)?;
    }
    same("localhost", text.contains("localhost"), true)?;
    place.only_new(&before, &[])
}

fn network_none(suite: &Suite<'_>) -> Result<(), String> {
    let mut process = shell("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '");
    process.network = Network::None;
    match suite.place()?.try_with(&process, &[], &|| false) {
        Ok(ran) => same("interfaces", ran.stdout.as_str(), "lo\n"),
        Err(SandboxError::Unsupported { .. }) if !suite.abilities().network_none => Ok(()),
        Err(error) => Err(full(error)),
    }
}

/// Larger than what a step has without being asked for.
fn shared_memory(suite: &Suite<'_>) -> Result<(), String> {
    let mut process = shell("dd if=/dev/zero of=/dev/shm/x bs=1048576 count=80 2> /dev/null && echo fits");
    process.shm_bytes = Some(100 << 20);
    match suite.place()?.try_with(&process, &[], &|| false) {
        Ok(ran) => same("shared memory", ran.stdout.as_str(), "fits\n"),
        Err(SandboxError::Unsupported { .. }) => Ok(()),
        Err(error) => Err(full(error)),
    }
}

fn daemons(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let started = Instant::now();
    let script = "tick() { while :; do echo x >> /tick; usleep 5000; done; }
        tick & (setsid sh -c 'trap \"\" TERM HUP; while :; do echo y >> /tock; usleep 5000; done' > /dev/null 2>&1 &)
        until test -s /tick && test -s /tock; do usleep 5000; done; echo ready";
    same("output", place.script(script, &[])?.as_str(), "ready\n")?;
    same("waited for a daemon", started.elapsed() < Duration::from_secs(20), true)?;
    let sizes = || ["tick", "tock"].map(|name| fs::metadata(place.path().join(name)).map_or(0, |meta| meta.len()));
    let before = sizes();
    std::thread::sleep(Duration::from_millis(100));
    same("a daemon writes on", sizes(), before)?;
    same("the daemons never ran", before.contains(&0), false)
}

fn daemons_of_users(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let started = Instant::now();
    let mut process = shell("(setsid sleep 100 > /dev/null 2>&1 &); echo ready");
    (process.uid, process.gid) = (1000, 1000);
    same("output", place.success(&process, &[])?.as_str(), "ready\n")?;
    same("waited for a daemon", started.elapsed() < Duration::from_secs(20), true)
}

fn orphans(suite: &Suite<'_>) -> Result<(), String> {
    let script = "(sleep 0.1 &); (sleep 0.1 &); sleep 0.5; ps -o stat,comm | grep -c '^Z'; true";
    same("zombies", suite.place()?.script(script, &[])?.trim(), "0")
}

fn big_output(suite: &Suite<'_>) -> Result<(), String> {
    const SIZE: usize = 64 << 20;
    let place = suite.place()?;
    let (mut stdout, mut stderr) = (0, 0);
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout += bytes.len(),
        Stream::Stderr => stderr += bytes.len(),
    };
    let process = shell(&format!("head -c {SIZE} /dev/zero; head -c 1000000 /dev/zero >&2"));
    let exit = suite.sandbox.run(&place.tree, &process, &[], &mut output, &|| false).map_err(full)?.exit;
    same("exit and sizes", (exit, stdout, stderr), (Exit::Code(0), SIZE, 1_000_000))
}

fn output_closed(suite: &Suite<'_>) -> Result<(), String> {
    let ran = suite.place()?.run(&shell("echo a; exec >&- 2>&-; sleep 0.2; exit 3"), &[])?;
    same("exit", (ran.exit, ran.stdout.as_str()), (Exit::Code(3), "a\n"))
}

fn not_startable(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let file = |name: &str, content: &[u8], mode| {
        let path = place.path().join(name);
        fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(text)
    };
    file("plain", b"#!/bin/sh\n", 0o644)?;
    file("garbage", b"\x00\x01\x02 no program", 0o755)?;
    file("orphan", b"#!/no/such/interpreter\n", 0o755)?;
    let before = place.listing()?;
    let cases = [
        ("no-such-program", "executable file not found in $PATH", 127),
        ("/no/such/program", "no such file or directory", 127),
        ("/plain", "permission denied", 126),
        ("/garbage", "exec format error", 126),
        ("/bin", "is a directory", 126),
        ("/orphan", "interpreter", 127),
    ];
    for (program, part, code) in cases {
        start_fails(&place, &process(&[program]), program, part, code)?;
    }
    let mut process = shell("true");
    process.cwd = PathBuf::from("/plain");
    start_fails(&place, &process, "/bin/sh", "`/plain`", 126)?;
    place.only_new(&before, &[])
}

fn start_fails(place: &Place<'_>, process: &Process, name: &str, part: &str, wanted: i32) -> Result<(), String> {
    match place.try_with(process, &[], &|| false) {
        Err(SandboxError::Start { program, reason, code }) => {
            same("program and code", (program.as_str(), code), (name, wanted))?;
            if reason.contains(part) {
                Ok(())
            } else {
                Err(format!("`{name}`: reason {reason:?} does not say {part:?}"))
            }
        }
        other => Err(format!("`{name}` gave {other:?}")),
    }
}

fn path_search(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    same("with PATH", place.success(&process(&["echo", "found"]), &[])?.as_str(), "found\n")?;
    let mut without = process(&["echo", "found"]);
    without.env.clear();
    same("without PATH", place.success(&without, &[])?.as_str(), "found\n")
}

/// Cancels after the step has printed something, and measures how long it takes.
fn cancel(place: &Place<'_>, script: &str) -> Result<Duration, String> {
    let printed = std::sync::OnceLock::new();
    let mut output = |_, _: &[u8]| {
        printed.get_or_init(Instant::now);
    };
    let cancelled = || printed.get().is_some_and(|since: &Instant| since.elapsed() > Duration::from_millis(100));
    let result = place.suite.sandbox.run(&place.tree, &shell(script), &[], &mut output, &cancelled);
    match (result, printed.get()) {
        (Err(SandboxError::Cancelled), Some(since)) => Ok(since.elapsed()),
        (other, _) => Err(format!("gave {other:?}")),
    }
}

fn cancel_stubborn(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    let took = cancel(&place, "trap '' TERM INT HUP QUIT; echo ready; while :; do sleep 1; done")?;
    same("within a second and a bit", took < Duration::from_millis(1500), true)?;
    place.only_new(&before, &[])
}

fn cancel_flood(suite: &Suite<'_>) -> Result<(), String> {
    let took = cancel(&suite.place()?, "yes")?;
    same("within a second and a bit", took < Duration::from_millis(1500), true)
}

fn cancel_tree(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script =
        "for i in 1 2 3 4 5; do (setsid sh -c 'trap \"\" TERM; while :; do echo x >> /tick; usleep 2000; done' &); done
        usleep 50000; echo ready; sleep 100";
    cancel(&place, script)?;
    let size = || fs::metadata(place.path().join("tick")).map_or(0, |meta| meta.len());
    let before = size();
    std::thread::sleep(Duration::from_millis(100));
    same("processes write on", size(), before)?;
    same("they never ran", before > 0, true)
}

fn several(suite: &Suite<'_>) -> Result<(), String> {
    let places = (0..4).map(|_| suite.place()).collect::<Result<Vec<_>, _>>()?;
    std::thread::scope(|scope| {
        let runs: Vec<_> = places
            .iter()
            .enumerate()
            .map(|(number, place)| {
                let script = format!("echo {number} > /tmp/own; sleep 0.1; cat /tmp/own");
                scope.spawn(move || same("own file", place.script(&script, &[])?, format!("{number}\n")))
            })
            .collect();
        runs.into_iter().try_for_each(|run| run.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}

fn again(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let mut wanted = String::new();
    for number in 0..5 {
        place.script(&format!("echo {number} >> /log"), &[])?;
        wanted.push_str(&format!("{number}\n"));
    }
    same("log", fs::read_to_string(place.path().join("log")).map_err(text)?, wanted)
}
