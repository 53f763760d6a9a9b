//! Runs the contract suite with one back-end, or one program, or says what works:
//!
//! ```text
//! contract BACKEND BUSYBOX WORK [PART-OF-A-NAME [SECONDS-OF-THE-RACE]]
//! contract run BACKEND WORK ROOTFS-OR-TAR [--bind SOURCE:TARGET] PROGRAM [ARGUMENT...]
//! contract probe WORK
//! ```
//!
//! Built static (`--target x86_64-unknown-linux-musl`), it can be put into any of the environments in `cages/`:
//!
//! ```text
//! cages/cage docker-default --ro-bind target/.../examples/contract:/contract -- \
//!     /contract auto /bin/busybox /var/lib/work
//! ```

#![expect(clippy::print_stdout, reason = "its output is for the person who runs it")]

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rootfs::{RootfsError, Tree};
use zuwai_sandbox::contract::{Abilities, SHORT_RACE, Settings, attack, check_all};
use zuwai_sandbox::{Mount, MountSource, Network, Process, os, probe};

fn main() -> ExitCode {
    probe::dispatch_child();
    attack::dispatch();
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "run", backend, work, rootfs, "--bind", bind, ref program @ ..] => {
            let (path, target) = bind.split_once(':').unwrap_or((bind, bind));
            let source = MountSource::Bind { path: path.into(), read_only: false };
            let mounts = [Mount { target: target.into(), source, tree: None }];
            run(backend, Path::new(work), Path::new(rootfs), &mounts, program)
        }
        [_, "run", backend, work, rootfs, ref program @ ..] => {
            run(backend, Path::new(work), Path::new(rootfs), &[], program)
        }
        [_, "probe", work] => report(Path::new(work)),
        [_, backend, busybox, work] => suite(backend, Path::new(busybox), Path::new(work), "", SHORT_RACE),
        [_, backend, busybox, work, part] => suite(backend, Path::new(busybox), Path::new(work), part, SHORT_RACE),
        [_, backend, busybox, work, part, seconds] => {
            let race = seconds.parse().map_or(SHORT_RACE, Duration::from_secs);
            suite(backend, Path::new(busybox), Path::new(work), part, race)
        }
        _ => {
            println!(
                "usage: contract BACKEND BUSYBOX WORK [PART [SECONDS]] | run BACKEND WORK ROOTFS PROGRAM... | probe WORK"
            );
            ExitCode::from(2)
        }
    }
}

fn report(work: &Path) -> ExitCode {
    let report = probe::probe(work);
    for (name, value) in &report.facts {
        println!("{name}: {value}");
    }
    for finding in &report.findings {
        println!("{}: {}", finding.backend, if finding.works { "works" } else { "does not work" });
        for line in finding.tried.iter().chain(&finding.needs) {
            println!("  {line}");
        }
    }
    println!("chosen: {:?}", report.chosen);
    ExitCode::from(u8::from(report.chosen.is_none()))
}

fn run(backend: &str, work: &Path, rootfs: &Path, mounts: &[Mount], program: &[&str]) -> ExitCode {
    let process = Process {
        args: program.iter().map(|argument| os(argument)).collect(),
        env: vec![os("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), os("HOME=/root")],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        network: Network::Host,
        hostname: "buildkitsandbox".into(),
        extra_hosts: Vec::new(),
        shm_bytes: None,
        terminal: None,
    };
    let mut output = |_, bytes: &[u8]| print!("{}", String::from_utf8_lossy(bytes));
    let ran = probe::enter(backend, work)
        .and_then(|sandbox| sandbox.run(&open(work, rootfs)?, &process, mounts, &mut output, &|| false));
    match ran {
        Ok(outcome) => println!("{:?}", outcome.exit),
        Err(error) => {
            println!("{error}: {:?}", std::error::Error::source(&error));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A directory as it is, or a tar unpacked into the work directory (by then with the rights of the back-end).
fn open(work: &Path, rootfs: &Path) -> Result<Tree, RootfsError> {
    if rootfs.is_dir() {
        return Tree::open(rootfs, None);
    }
    let tree = Tree::create(&work.join("stage"), Some(&work.join("table")))?;
    let mut file = File::open(rootfs).map_err(RootfsError::Read)?;
    rootfs::unpack::unpack(&mut file, &tree, &rootfs::unpack::Limits::NONE)?;
    Ok(tree)
}

/// Ends the program when a check takes longer than `patience`. Gives what is to be told when one has ended.
fn watch(patience: Duration) -> Arc<Mutex<(Instant, &'static str)>> {
    let last = Arc::new(Mutex::new((Instant::now(), "the beginning")));
    let watched = last.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let (since, name) = *watched.lock().unwrap_or_else(PoisonError::into_inner);
            if since.elapsed() > patience {
                println!("WRONG the check after `{name}`: not ended after {patience:?}");
                #[expect(clippy::exit, reason = "the thread that hangs cannot be asked to end")]
                std::process::exit(1);
            }
        }
    });
    last
}

fn suite(backend: &str, busybox: &Path, work: &Path, part: &str, race: Duration) -> ExitCode {
    let sandbox = match probe::enter(backend, work) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            println!("could not enter `{backend}`: {error}: {:?}", std::error::Error::source(&error));
            return ExitCode::from(6);
        }
    };
    println!("back-end: {}", sandbox.name());
    let last = watch(Duration::from_secs(120) + race);
    let (mut all, mut wrong) = (0, 0);
    let settings = Settings { abilities: Abilities::of(sandbox.name()), busybox, work, part, race };
    check_all(&*sandbox, &settings, &mut |name, outcome| {
        all += 1;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), name);
        match outcome {
            Ok(()) => println!("ok    {name}"),
            Err(reason) => {
                wrong += 1;
                println!("WRONG {name}: {reason}");
            }
        }
    });
    println!("{} of {all} right", all - wrong);
    ExitCode::from(u8::from(wrong > 0))
}
