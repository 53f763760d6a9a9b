//! System calls of i386 in an emulated step, by a program of i386 and by one of x86-64.

#![expect(clippy::print_stderr, reason = "a test of its own: nobody else says what went wrong")]

mod listing;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use rootfs::Tree;
use zuwai_sandbox::{Exit, Network, Process, Sandbox, SandboxError, os, probe};

/// How the program is built, and which architecture that makes it of.
const KINDS: [(&str, &str); 2] = [("-m32", "i386"), ("-m64", "x86-64")];

fn main() -> ExitCode {
    probe::dispatch_child();
    if listing::listed("i386") {
        return ExitCode::SUCCESS;
    }
    let work = tempfile::tempdir().expect("a directory for the test");
    let busybox = Path::new("/bin/busybox");
    if !cfg!(target_arch = "x86_64") || !busybox.exists() {
        eprintln!("SKIPPED: no x86-64, or no `/bin/busybox` (Debian: busybox-static)");
        return ExitCode::SUCCESS;
    }
    let sandbox = match probe::enter("emulate", work.path()) {
        Ok(sandbox) => sandbox,
        Err(SandboxError::NoBackend { reasons }) => {
            eprintln!("SKIPPED: {reasons}");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    let wrong = KINDS.into_iter().filter(|kind| !check(&*sandbox, work.path(), busybox, *kind)).count();
    ExitCode::from(u8::from(wrong > 0))
}

fn check(sandbox: &dyn Sandbox, work: &Path, busybox: &Path, (option, name): (&str, &str)) -> bool {
    let root = work.join(name);
    let tree = Tree::create(&root, Some(&root.with_extension("table"))).expect("a rootfs");
    for directory in ["bin", "tmp"] {
        fs::create_dir(root.join(directory)).expect("made");
    }
    if let Err(reason) = build(option, &root.join("bin/program")) {
        eprintln!("SKIPPED {name}: {reason}");
        return true;
    }
    fs::copy(busybox, root.join("bin/busybox")).expect("copied");
    for applet in ["sh", "readlink"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("linked");
    }
    let mut said = Vec::new();
    let mut output = |_, bytes: &[u8]| said.extend_from_slice(bytes);
    let exit = sandbox.run(&tree, &process(), &[], &mut output, &|| false).expect("a run").exit;
    let said = String::from_utf8_lossy(&said);
    let right = exit == Exit::Code(0) && said == "0 wrong\n";
    eprintln!("{} {name}: {exit:?} {said}", if right { "ok" } else { "WRONG" });
    // What the shell that it has executed wrote.
    let shell = fs::read_to_string(root.join("tmp/other")).unwrap_or_default();
    right && shell == "/bin/busybox\n"
}

/// Static, and where addresses have 32 bits: for the calls that is the same in both.
fn build(option: &str, program: &Path) -> Result<(), String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/i386.c");
    // Debian has the kernel's headers of both there; only one of its packages says so to the compiler.
    let headers = "-idirafter/usr/include/x86_64-linux-gnu";
    let options = [option, headers, "-O1", "-static", "-no-pie", "-o"];
    let output = Command::new("gcc").args(options).arg(program).arg(source).output();
    let output = output.map_err(|error| format!("no `gcc` here: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    match Command::new(program).arg("are they there?").status() {
        Ok(status) if status.success() => Ok(()),
        ended => Err(format!("the kernel does not run it: {ended:?}")),
    }
}

fn process() -> Process {
    Process {
        args: vec![os("/bin/program")],
        env: vec![os("PATH=/bin")],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        network: Network::Host,
        hostname: "buildhost".into(),
        extra_hosts: Vec::new(),
        shm_bytes: None,
        terminal: None,
    }
}
