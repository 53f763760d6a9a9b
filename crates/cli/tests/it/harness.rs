//! The program in a directory of its own, with nothing of the tester's environment.

#![expect(clippy::print_stderr, reason = "a skipped check is said aloud")]

use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const ZUWAI: &str = env!("CARGO_BIN_EXE_zuwai");

/// No build of these tests takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory with a context (`context`), a work directory (`work`), and whatever the program writes.
pub struct Place {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Place {
    pub fn new(dockerfile: &str) -> Place {
        let place = Place { directory: tempfile::tempdir().unwrap(), environment: Vec::new() };
        std::fs::create_dir(place.path("context")).unwrap();
        place.file("context/Dockerfile", dockerfile)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path as an argument.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Place {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Place {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        String::from_utf8(bytes).unwrap()
    }

    /// `zuwai ARGS…`, in this directory.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.start(ZUWAI, args).finish(b"")
    }

    /// `zuwai build ARGS… context`.
    pub fn build(&self, args: &[&str]) -> Ran {
        self.run(&[&["build"], args, &["context"]].concat())
    }

    pub fn build_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        self.start(ZUWAI, &[&["build"], args].concat()).finish(input)
    }

    /// The program under the name `executor`.
    pub fn executor(&self, args: &[&str]) -> Ran {
        let link = self.path("executor");
        if !link.exists() {
            std::os::unix::fs::symlink(ZUWAI, &link).unwrap();
        }
        self.start(link.to_str().unwrap(), args).finish(b"")
    }

    /// Starts `program` in a process group of its own.
    pub fn start(&self, program: &str, args: &[&str]) -> Running {
        let child = Command::new(program)
            .args(args)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("ZUWAI_DIR", self.path("work"))
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        Running { child }
    }

    /// Waits for a file.
    pub fn wait_for(&self, name: &str) {
        let begun = Instant::now();
        while !self.path(name).exists() {
            assert!(begun.elapsed() < PATIENCE, "`{name}` does not come");
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Nothing of a finished or failed run is left in the work directory.
    pub fn assert_clean(&self) {
        let runs = self.path("work/runs");
        let left: Vec<_> =
            std::fs::read_dir(&runs).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub struct Running {
    child: Child,
}

impl Running {
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.id()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap()).unwrap();
    }

    /// Gives `input` and waits for the end.
    pub fn finish(mut self, input: &[u8]) -> Ran {
        let (mut stdout, mut stderr) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        let mut stdin = self.child.stdin.take().unwrap();
        let input = input.to_vec();
        // A program that does not want its input closes it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let err = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).map(|_| bytes)
        });
        let status = self.wait();
        writer.join().unwrap();
        Ran {
            status,
            output: out.join().unwrap().unwrap(),
            stderr: String::from_utf8_lossy(&err.join().unwrap().unwrap()).into_owned(),
        }
    }

    /// Waits for the end, standard input still open.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("the program does not end");
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

pub struct Ran {
    status: ExitStatus,
    pub output: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.output).unwrap()
    }

    /// The exit code; 0 - n where signal n ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| -self.status.signal().unwrap())
    }

    /// It did its work: the digest, which is all that standard output has.
    #[track_caller]
    pub fn digest(&self) -> String {
        assert_eq!(self.code(), 0, "{}", self.stderr);
        let digest = self.stdout().strip_suffix('\n').unwrap_or_else(|| panic!("no line: {:?}", self.stdout()));
        oci::Digest::parse(digest).unwrap_or_else(|e| panic!("{digest}: {e}"));
        digest.to_owned()
    }

    /// It failed with `code`, printed nothing on standard output, and said each of `parts`.
    #[track_caller]
    pub fn failed(&self, code: i32, parts: &[&str]) -> &Ran {
        assert_eq!(self.code(), code, "{}", self.stderr);
        assert_eq!(self.stdout(), "", "standard output is for the digest");
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in\n{}", self.stderr);
        }
        self
    }
}

/// Why RUN steps cannot be tested here; said aloud.
pub fn cannot_run() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        if !Path::new(BUSYBOX).exists() {
            return Some(format!("there is no static busybox at `{BUSYBOX}`"));
        }
        let place = Place::new("");
        let doctor = place.run(&["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&doctor.output).unwrap();
        report["chosen"].is_null().then(|| format!("no isolation back-end works here: {report}"))
    });
    if let Some(reason) = reason {
        skipped(reason);
    }
    reason.is_some()
}

/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// The beginning of every Dockerfile with RUN steps.
pub const BUSYBOX_STAGE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\n";

/// A context with busybox in it, and `instructions` on top of [`BUSYBOX_STAGE`].
pub fn with_busybox(instructions: &str) -> Place {
    let place = Place::new(&format!("{BUSYBOX_STAGE}{instructions}"));
    std::fs::copy(BUSYBOX, place.path("context/busybox")).unwrap();
    place
}

/// A registry of Debian's package, or none with the reason said aloud.
pub fn registry() -> Option<testkit::DockerRegistry> {
    testkit::DockerRegistry::start().inspect_err(|reason| skipped(reason)).ok()
}

pub fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Whether `program` is missing; said aloud.
pub fn missing(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skipped(&format!("`{program}` is not installed"));
    }
    !found
}

/// Every file below `directory`, gzip layers unpacked as well.
pub fn everything_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(everything_below(&entry.path()));
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            let mut plain = Vec::new();
            if store::decode(std::io::Cursor::new(bytes.clone())).is_ok_and(|mut r| r.read_to_end(&mut plain).is_ok()) {
                found.push((entry.path(), plain));
            }
            found.push((entry.path(), bytes));
        }
    }
    found
}
