//! Real programs, executed natively and by the builder: both have to do the same.
//!
//! The filter is put around the child between fork and exec, and one thread of the test answers. In the real root: what is
//! tested is not how paths are resolved.

use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use super::*;
use crate::notify::{self, Answer};

/// Flags of seccomp(2) as of Linux 5.19.
const KILLABLE: libc::c_uint = crate::filter::NEW_LISTENER | crate::filter::WAIT_KILLABLE;
const PASS: Pass = 0x1234_5678_9abc_def0;

/// Asks about every execve, and about every execveat that has no pass; of i386, too.
fn filter() -> [libc::sock_filter; 17] {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let arch = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    [
        (LOAD, 4, 0, 0),
        (IS, arch, 1, 0),
        (IS, 0x4000_0003, 7, 13),
        (LOAD, 0, 0, 0),
        (IS, libc::SYS_execve as u32, 10, 0),
        (IS, libc::SYS_execveat as u32, 0, 10),
        // The sixth argument.
        (LOAD, 56, 0, 0),
        (IS, PASS as u32, 0, 7),
        (LOAD, 60, 0, 0),
        (IS, (PASS >> 32) as u32, 6, 5),
        (LOAD, 0, 0, 0),
        (IS, 11, 3, 0),
        (IS, 358, 0, 3),
        (LOAD, 56, 0, 0),
        (IS, PASS as u32, 1, 0),
        (RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        (RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]
    .map(|(code, k, jt, jf)| libc::sock_filter { code: code as u16, jt, jf, k })
}

/// What the child does between fork and exec. No memory is taken: other threads may hold the lock.
fn listen(filter: &mut [libc::sock_filter], flags: libc::c_uint, to: &UnixStream) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to as many statements as it says, and both outlive the call.
    let made = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    notify::send(&notify::descriptor(made)?, to)
}

/// Puts a process between this one and the child: who traces a thread may not be its parent. It ends as the child does.
fn between() -> io::Result<()> {
    // SAFETY: the process has been forked itself and has one thread; all that follows are system calls.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        // SAFETY: system calls with numbers and a live integer only. The descriptors are closed since others wait for that;
        // none is used again.
        child => unsafe {
            libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32);
            let mut status = 0;
            while libc::waitpid(child, &raw mut status, 0) < 0 {}
            if libc::WIFSIGNALED(status) {
                libc::kill(libc::getpid(), libc::WTERMSIG(status));
            }
            libc::_exit(libc::WEXITSTATUS(status))
        },
    }
}

/// How a program ended and what it said.
#[derive(PartialEq, Eq, Debug)]
struct Ending {
    code: Option<i32>,
    signal: Option<i32>,
    output: String,
    errors: String,
}

impl Ending {
    fn of(mut child: std::process::Child) -> io::Result<Ending> {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        child.stdout.take().map(|mut pipe| pipe.read_to_end(&mut output)).transpose()?;
        child.stderr.take().map(|mut pipe| pipe.read_to_end(&mut errors)).transpose()?;
        let status = child.wait()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ending { code: status.code(), signal: status.signal(), output: text(output), errors: text(errors) })
    }
}

fn native(command: &mut Command) -> io::Result<Ending> {
    Ending::of(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// With every execve done by [`execute`].
fn emulated(command: &mut Command) -> io::Result<Ending> {
    emulated_with(command, KILLABLE)
}

fn emulated_with(command: &mut Command, flags: libc::c_uint) -> io::Result<Ending> {
    emulated_as(command, flags, None)
}

/// `ids` are for AT_UID and so on, and AT_SECURE goes with them.
fn emulated_as(command: &mut Command, flags: libc::c_uint, ids: Option<[u32; 4]>) -> io::Result<Ending> {
    emulated_by(command, flags, ids, || Ok(()))
}

/// `then` is done under the filter, before the program.
fn emulated_by(
    command: &mut Command,
    flags: libc::c_uint,
    ids: Option<[u32; 4]>,
    then: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<Ending> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut filter = filter();
    // SAFETY: the closure makes system calls only.
    unsafe {
        command.pre_exec(move || between().and_then(|()| listen(&mut filter, flags, &theirs)).and_then(|()| then()))
    };
    let serving = std::thread::spawn(move || serve(&ours, ids));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    // Our copy of the child's end is in the closure.
    *command = Command::new("true");
    let ending = child.and_then(Ending::of);
    serving.join().expect("no panic")?;
    ending
}

fn serve(from: &UnixStream, ids: Option<[u32; 4]>) -> io::Result<()> {
    let mut listener = None;
    let mut byte = [0];
    rustix::event::poll(&mut [PollFd::new(&from, PollFlags::IN)], None)?;
    notify::receive(from, &mut byte, &mut listener)?;
    let Some(listener) = listener else { return Ok(()) };
    std::thread::scope(|scope| {
        loop {
            let mut poll = [PollFd::new(&listener, PollFlags::IN)];
            rustix::event::poll(&mut poll, None)?;
            if poll[0].revents().contains(PollFlags::HUP) {
                return Ok(());
            }
            listener.serve(&mut |call, _| {
                let (call, listener) = (*call, &listener);
                // As many at a time as there are.
                scope.spawn(move || {
                    if let Err(error) = decide(&call, listener, ids) {
                        let _ = listener.refuse(&call, error);
                    }
                });
                Answer::Given
            })?;
        }
    })
}

fn decide(call: &Call, listener: &Listener, ids: Option<[u32; 4]>) -> Result<(), Errno> {
    let at = call.number as u32 == call.abi().number(libc::SYS_execveat);
    let offset = usize::from(at);
    let [path, argv, envp] = [0, 1, 2].map(|index| call.arguments[index + offset]);
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let text = call.text(path).map_err(errno)?;
    let start = match call.number_at(0) as i32 {
        number if at && number >= 0 => format!("fd/{number}"),
        _ => "cwd".to_owned(),
    };
    let mut found = PathBuf::from(format!("/proc/{}/{start}", call.thread));
    if !text.is_empty() {
        found.push(Path::new(std::ffi::OsStr::from_bytes(text.as_bytes())));
    } else if !at {
        return Err(Errno::NOENT);
    }
    if text.as_bytes() == b"/proc/self/exe" {
        // Who that is is not known here. It is how busybox runs its applets, and nothing else does.
        let known = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        found = PathBuf::from(known.ok_or(Errno::NOENT)?);
    }
    let mut arguments: Option<Vec<CString>> = None;
    let mut program = open(&found)?;
    for _ in 0..5 {
        let mut begin = [0; 256];
        let count = rustix::io::pread(&program, &mut begin, 0)?;
        let Some(line) = begin[..count].strip_prefix(b"#!") else { break };
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.splitn(2, |byte| *byte == b' ').map(|word| CString::new(word.trim_ascii()).expect("text"));
        let interpreter = words.next().ok_or(Errno::NOEXEC)?;
        let mut new = vec![interpreter.clone()];
        new.extend(words.filter(|word| !word.is_empty()));
        match arguments.take() {
            None => new.push(text.clone()),
            Some(mut old) => new.append(&mut old),
        }
        arguments = Some(new);
        program = open(Path::new(std::ffi::OsStr::from_bytes(interpreter.as_bytes())))?;
    }
    let interpreter = elf::open(program.as_fd())?.interpreter;
    let interpreter =
        interpreter.map(|path| open(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())))).transpose()?;
    let last = text.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let request = Request {
        program: program.as_fd(),
        interpreter: interpreter.as_ref().map(|file| file.as_fd()),
        path,
        argv,
        envp,
        arguments,
        shown_path: text.clone(),
        name: CString::new(last).expect("no NUL"),
        ids: ids.unwrap_or([uid, uid, gid, gid]),
        secure: ids.is_some(),
    };
    execute(call, listener, PASS, &request, &mut |_| Ok(()))
}

fn open(path: &Path) -> Result<std::os::fd::OwnedFd, Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let usable = stat.st_mode & 0o111 != 0 && stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    if usable { Ok(file) } else { Err(Errno::ACCESS) }
}

/// Programs that every test machine has, and some that it may not have.
#[test]
fn programs_do_what_they_do_natively() {
    let cases: &[&[&str]] = &[
        &["/bin/true"],
        &["/bin/false"],
        &["/bin/echo", "a", "", "b c"],
        &["sh", "-c", "echo $0 $1; exit 7", "zero", "one"],
        &["sh", "-c", "kill -9 $$"],
        &["env", "-i", "A=b", "env"],
        &["sh", "-c", "env -i sh -c 'exec /bin/echo deep'; cat /proc/self/comm; ls /proc/self/fd"],
        &["sh", "-c", "nothing-of-this-name; /etc/passwd; /"],
        &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do (seq 1 100 | sort -r | tail -n 1) & done; wait"],
        &["busybox", "sh", "-c", "busybox echo $0; busybox seq 3; cat /proc/self/comm"],
        &["perl", "-e", "print qx(echo $$ | wc -l), join(',', @ARGV), system('true'), \"\\n\"", "x", "y"],
        &["python3", "-c", "import subprocess,sys;print(subprocess.run(['echo','hi']),sys.argv)", "z"],
    ];
    for case in cases {
        let [program, rest @ ..] = case else { unreachable!("never empty") };
        let Ok(wanted) = native(Command::new(program).args(rest)) else {
            eprintln!("skipped: no `{program}` here");
            continue;
        };
        let ending = emulated(Command::new(program).args(rest)).expect("a run");
        assert_eq!(ending, wanted, "{case:?}");
    }
}

/// A program with every kind of linking that there is here.
struct Built {
    directory: tempfile::TempDir,
    names: Vec<&'static str>,
}

fn build(wanted: &[&str]) -> Built {
    // Debian has the kernel's headers of both there; only one of its packages says so to the compiler.
    const ASM: &str = "-idirafter/usr/include/x86_64-linux-gnu";
    let kinds: [(&str, &str, &[&str]); 13] = [
        ("pie", "gcc", &["-pie", "-fPIE"]),
        ("fixed", "gcc", &["-no-pie"]),
        ("static", "gcc", &["-static", "-no-pie"]),
        ("static-pie", "gcc", &["-static-pie", "-fPIE"]),
        ("aligned", "gcc", &["-pie", "-fPIE", "-Wl,-z,max-page-size=0x200000"]),
        ("one-segment", "gcc", &["-pie", "-fPIE", "-Wl,-z,noseparate-code", "-Wl,-z,norelro"]),
        ("executable-stack", "gcc", &["-pie", "-fPIE", "-Wl,-z,execstack"]),
        ("musl", "musl-gcc", &["-pie", "-fPIE"]),
        ("musl-static", "musl-gcc", &["-static"]),
        ("i386-pie", "gcc", &["-m32", ASM, "-pie", "-fPIE"]),
        ("i386-fixed", "gcc", &["-m32", ASM, "-no-pie"]),
        ("i386-static", "gcc", &["-m32", ASM, "-static", "-no-pie"]),
        ("i386-static-pie", "gcc", &["-m32", ASM, "-static-pie", "-fPIE"]),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("facts.c");
    std::fs::write(&source, include_str!("programs/facts.c")).expect("written");
    let mut names = Vec::new();
    for (name, compiler, options) in kinds.into_iter().filter(|kind| wanted.is_empty() || wanted.contains(&kind.0)) {
        let mut command = Command::new(compiler);
        command.arg("-O2").args(options).arg("-o").arg(directory.path().join(name)).arg(&source).arg("-lpthread");
        let runs = || native(Command::new(directory.path().join(name)).arg("seven")).is_ok();
        match command.output() {
            Ok(output) if output.status.success() && !runs() => eprintln!("skipped {name}: the kernel does not run it"),
            Ok(output) if output.status.success() => names.push(name),
            Ok(output) if name == "pie" => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Ok(output) => eprintln!("skipped {name}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("skipped {name}: no `{compiler}` here: {error}"),
        }
    }
    Built { directory, names }
}

const WAYS: [&str; 15] = [
    "facts", "thread", "leader", "race", "spawn", "vfork", "empty", "nothing", "many", "long", "fail", "signals",
    "storm", "stop", "shell",
];

fn assert_same(built: &Built, names: &[&str], flags: libc::c_uint) {
    for name in names {
        for way in WAYS {
            let program = built.directory.path().join(name);
            let wanted = native(Command::new(&program).arg(way)).expect("a run");
            let ending = emulated_with(Command::new(&program).arg(way), flags).expect("a run");
            assert_eq!(ending, wanted, "{name} {way}");
        }
    }
}

#[test]
fn programs_find_what_they_find_natively() {
    let built = build(&[]);
    assert_same(&built, &built.names, KILLABLE);
}

/// As on Linux before 5.19: signals end the wait for an answer.
#[test]
fn programs_are_executed_where_signals_end_the_wait() {
    let built = build(&["pie"]);
    assert_same(&built, &built.names, crate::filter::NEW_LISTENER);
}

/// Two or three are needed for a moment, which is the one thing that a program can notice.
#[test]
fn a_caller_without_descriptors_keeps_all_and_gets_an_error() {
    let built = build(&["pie", "static"]);
    for (name, rows) in [("pie", "-1 24, 0\n-1 24, 1\n"), ("static", "-1 24, 0\n-1 24, 1\n")] {
        if !built.names.contains(&name) {
            continue;
        }
        let ending = emulated(Command::new(built.directory.path().join(name)).arg("limit")).expect("a run");
        assert_eq!((ending.code, ending.output), (Some(3), format!("{rows}destructed\n")), "{name}");
    }
}

/// A set-user-ID program of an emulated user.
#[test]
fn programs_are_told_other_ids() {
    let built = build(&["pie", "static", "musl"]);
    for name in &built.names {
        let ids = Some([1, 22, 333, 4444]);
        let ending = emulated_as(&mut Command::new(built.directory.path().join(name)), KILLABLE, ids).expect("a run");
        let told: Vec<&str> = ending.output.lines().filter(|line| line.starts_with("auxiliary")).collect();
        for line in ["11: 0x1", "12: 0x16", "13: 0x14d", "14: 0x115c", "23: 0x1"] {
            assert!(told.contains(&format!("auxiliary {line}").as_str()), "{name} {line}: {ending:?}");
        }
    }
}

/// The builder looks at a path, and a moment later the memory says another: nothing of that name is ever executed.
#[test]
fn a_path_that_changes_meanwhile_is_not_executed() {
    let built = build(&["pie"]);
    let mut killed = 0;
    for _ in 0..if built.names.is_empty() { 0 } else { 100 } {
        let ending = emulated(Command::new(built.directory.path().join("pie")).arg("flip")).expect("a run");
        match (ending.code, ending.signal) {
            (Some(3), None) => assert!(ending.output.starts_with("argc 2,"), "{ending:?}"),
            (None, Some(libc::SIGKILL)) => killed += 1,
            _ => panic!("{ending:?}"),
        }
    }
    eprintln!("{killed} of 100 were killed");
}

/// The wall behind the builder: a Landlock domain without any right stops execve, and does not stop the loader.
#[test]
fn programs_run_in_a_domain_that_opens_nothing() {
    // All of the first version (Linux 5.13).
    const RIGHTS: u64 = (1 << 13) - 1;
    let shut = || {
        let attributes = RIGHTS;
        // SAFETY: the attributes are one number, as their size says, and outlive the call.
        let rules = unsafe { libc::syscall(444, &raw const attributes, size_of::<u64>(), 0) };
        let rules = notify::descriptor(rules)?;
        // SAFETY: takes numbers only.
        let done = unsafe { libc::syscall(446, std::os::fd::AsRawFd::as_raw_fd(&rules), 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let built = build(&["static"]);
    let Some(name) = built.names.first() else { return };
    if crate::landlock::version().is_err() {
        eprintln!("skipped: no Landlock here");
        return;
    }
    let program = built.directory.path().join(name);
    let ending = emulated_by(&mut Command::new(&program), KILLABLE, None, shut).expect("a run");
    assert_eq!(ending.code, Some(3), "{ending:?}");
    let mut command = Command::new(&program);
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(move || Ok(rustix::thread::set_no_new_privs(true)?).and_then(|()| shut())) };
    assert_eq!(native(&mut command).expect_err("shut").kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn scripts_have_their_own_name_and_arguments() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("a-script-with-a-long-name");
    let text = "#!/bin/sh -e\necho \"$0 $# $1\"; cat /proc/$$/comm; false; echo not reached\n";
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("made executable");
    let outer = directory.path().join("outer");
    std::fs::write(&outer, format!("#!{} x\n", script.display())).expect("written");
    std::fs::set_permissions(&outer, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("made executable");
    for program in [&script, &outer] {
        let wanted = native(Command::new(program).args(["one", "two"])).expect("a run");
        let ending = emulated(Command::new(program).args(["one", "two"])).expect("a run");
        assert_eq!(ending, wanted);
    }
}

/// The caller goes on with an error, and has lost nothing.
#[test]
fn what_is_no_program_is_refused_before_anything_happens() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("made executable");
        path
    };
    let own = std::fs::read("/proc/self/exe").expect("this program");
    let mut foreign = own[..4096].to_vec();
    foreign[18] = 3;
    let mut small = own[..4096].to_vec();
    small[4] = 1;
    for (name, content) in [("cut", &own[..4096]), ("foreign", &foreign), ("small", &small), ("empty", b"")] {
        let path = CString::new(write(name, content).as_os_str().as_bytes()).expect("no NUL");
        let mut command = Command::new("/bin/true");
        // std would have a shell try it.
        let direct = move || {
            let arguments = [path.as_ptr(), std::ptr::null()];
            // SAFETY: the text and the list end as they have to and live on; the environment may be none.
            unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), std::ptr::null()) };
            Err(io::Error::last_os_error())
        };
        let error = emulated_by(&mut command, KILLABLE, None, direct).expect_err(name);
        assert_eq!(error.raw_os_error(), Some(libc::ENOEXEC), "{name}");
    }
}

/// Where the caller has asked for it. By chance they would be the same once in 2^28 times.
#[test]
fn addresses_are_the_same_every_time_or_never() {
    for (prefix, same) in [("setarch -R", true), ("", false)] {
        let script = format!("{prefix} grep -m 1 /grep /proc/self/maps");
        let run = || emulated(Command::new("sh").args(["-c", &script])).expect("a run");
        let (one, other) = (run(), run());
        if one.code != Some(0) {
            eprintln!("skipped: `{prefix}`: {}", one.errors);
            continue;
        }
        assert_eq!(one == other, same, "{one:?} {other:?}");
    }
}

/// Prints what an execve costs; for people to run: `cargo test --release -- --ignored --nocapture execve_costs`.
#[test]
#[ignore = "measures and finds no fault"]
fn execve_costs() {
    let programs = ["/bin/true", "/usr/bin/busybox"].into_iter().filter(|path| Path::new(path).exists());
    for program in programs {
        let script = format!("i=0; while [ $i -lt 100 ]; do {program} true; i=$((i+1)); done");
        let time = |run: &dyn Fn(&mut Command) -> io::Result<Ending>| {
            let start = std::time::Instant::now();
            let ending = run(Command::new("/bin/sh").args(["-c", &script])).expect("a run");
            assert_eq!(ending.code, Some(0), "{ending:?}");
            start.elapsed().as_micros() / 100
        };
        // In turn, and the best of each: the machine does other things as well.
        let rounds: Vec<_> = (0..30).map(|_| (time(&native), time(&emulated))).collect();
        let native = rounds.iter().map(|round| round.0).min().expect("rounds");
        let emulated = rounds.iter().map(|round| round.1).min().expect("rounds");
        eprintln!("{program}: fork, execve and wait take {native} us natively, {emulated} us with the loader");
    }
}
