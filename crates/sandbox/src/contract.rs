//! What every back-end has to do: one suite, called by tests and, inside the environments in `cages/`, by the example
//! `contract`.
//!
//! The rootfs is a static busybox and nothing else, so that mount points and the like are all missing at first.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rootfs::{FileKind, Metadata, Tree};

use crate::{Exit, Mount, MountSource, Network, Process, Sandbox, SandboxError, Stream, os};

/// What a back-end cannot do by its nature; everything else is the same for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// A network without interfaces.
    pub network_none: bool,
    /// A host name of the step's own.
    pub hostname: bool,
    /// An /etc/hosts of the step's own even where the container has one mounted.
    pub own_hosts: bool,
    /// Mount points that the step can neither remove nor write through.
    pub real_mounts: bool,
    /// Device nodes, if only for the layer.
    pub devices: bool,
}

impl Abilities {
    /// Those of the back-end with this name.
    pub fn of(backend: &str) -> Abilities {
        let all = backend == "namespace";
        Abilities { network_none: all, hostname: all, own_hosts: all, real_mounts: all, devices: !all }
    }
}

/// Runs every check whose name holds `part`, with rootfs trees made in `work` from the static program `busybox`. `report`
/// gets each check's name and what was wrong.
pub fn check_all(
    sandbox: &dyn Sandbox,
    abilities: Abilities,
    busybox: &Path,
    work: &Path,
    part: &str,
    report: &mut dyn FnMut(&'static str, Result<(), String>),
) {
    let suite = Suite { sandbox, abilities, busybox, work, made: AtomicUsize::new(0) };
    for (name, check) in CHECKS.iter().filter(|(name, _)| name.contains(part)) {
        report(name, check(&suite));
    }
}

type Check = fn(&Suite<'_>) -> Result<(), String>;

const CHECKS: &[(&str, Check)] = &[
    ("exit codes", exit_codes),
    ("signals", signals),
    ("stdout and stderr are told apart", streams),
    ("the environment is exactly what was given", environment),
    ("working directory", working_directory),
    ("user, group, groups", ids),
    ("capabilities are Docker's", capabilities),
    ("no user namespace within", user_namespaces),
    ("descriptors and umask", descriptors),
    ("standard input is empty", input),
    ("proc and its self", proc),
    ("devices", devices),
    ("device nodes that a step makes", made_devices),
    ("the machine's own devices", host_devices),
    ("the builder's environment cannot be read", builder_hidden),
    ("signals to the builder", signals_out),
    ("changes are kept, and nothing else changes", changes),
    ("image files at the mount points of hosts and resolv.conf", image_files),
    ("host name and hosts", host_name),
    ("network none", network_none),
    ("daemons are killed", daemons),
    ("daemons of another user are killed", daemons_of_users),
    ("orphans are reaped", orphans),
    ("64 MiB of output", big_output),
    ("output closed early", output_closed),
    ("programs that cannot be started", not_startable),
    ("programs found in PATH", path_search),
    ("bind mounts", binds),
    ("bind mount of one file", bind_file),
    ("bind mount through a link that was put there meanwhile", bind_link),
    ("bind mount over something that exists", bind_over),
    ("several mounts of one source", shared_source),
    ("mounts in mounts", nested_mounts),
    ("tmpfs mounts", tmpfs),
    ("secret files", secrets),
    ("mount points through symbolic links", linked_targets),
    ("a program mounted in /dev", scripts),
    ("impossible mounts", impossible_mounts),
    ("cancelling a step that ignores SIGTERM", cancel_stubborn),
    ("cancelling a step that floods its output", cancel_flood),
    ("cancelling leaves no process behind", cancel_tree),
    ("a step that deletes all it can", self_destruction),
    ("special files and modes", special_files),
    ("set-group-id bits that come and go", set_group_ids),
    ("device nodes in layers", device_nodes),
    ("several at a time", several),
    ("one after the other in one rootfs", again),
    ("change times of what is not touched", change_times),
];

struct Suite<'a> {
    sandbox: &'a dyn Sandbox,
    abilities: Abilities,
    busybox: &'a Path,
    work: &'a Path,
    made: AtomicUsize,
}

/// A rootfs of one check.
struct Place<'a> {
    suite: &'a Suite<'a>,
    tree: Tree,
}

#[derive(Debug)]
struct Ran {
    exit: Exit,
    stdout: String,
    stderr: String,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn full(error: SandboxError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}

fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|argument| os(argument)).collect(),
        env: vec![os("PATH=/usr/bin:/bin")],
        cwd: PathBuf::from("/"),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        network: Network::Host,
        hostname: "buildhost".into(),
        extra_hosts: Vec::new(),
    }
}

fn shell(script: &str) -> Process {
    process(&["/bin/sh", "-c", script])
}

impl Suite<'_> {
    fn fresh_directory(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.work.join(format!("{name}-{}", self.made.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        Ok(path)
    }

    fn place(&self) -> Result<Place<'_>, String> {
        let path = self.fresh_directory("rootfs")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(text)?;
        fs::create_dir(path.join("bin")).map_err(text)?;
        let program = path.join("bin/busybox");
        fs::copy(self.busybox, &program).map_err(text)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(text)?;
        for applet in APPLETS.split_ascii_whitespace() {
            symlink("busybox", path.join("bin").join(applet)).map_err(text)?;
        }
        fs::create_dir(path.join("tmp")).map_err(text)?;
        fs::set_permissions(path.join("tmp"), fs::Permissions::from_mode(0o1777)).map_err(text)?;
        let table = path.with_extension("table");
        Ok(Place { suite: self, tree: Tree::open(&path, Some(&table)).map_err(text)? })
    }
}

const APPLETS: &str = "sh cat ls echo test true false sleep env id stat readlink head tail wc grep ps rm mkdir touch mv ln \
                       chmod chown mknod mkfifo hostname setsid kill usleep date dd yes tr umount find sed cut printenv pwd unshare";

impl Place<'_> {
    fn path(&self) -> &Path {
        self.tree.path()
    }

    /// What a layer would have.
    fn stat(&self, path: &str) -> Result<Metadata, String> {
        self.tree.stat(Path::new(path)).map_err(text)?.ok_or_else(|| format!("`{path}` is missing"))
    }

    fn try_with(&self, process: &Process, mounts: &[Mount], cancelled: &dyn Fn() -> bool) -> Result<Ran, SandboxError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        };
        let exit = self.suite.sandbox.run(&self.tree, process, mounts, &mut output, cancelled)?;
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { exit, stdout: lossy(stdout), stderr: lossy(stderr) })
    }

    fn run(&self, process: &Process, mounts: &[Mount]) -> Result<Ran, String> {
        self.try_with(process, mounts, &|| false).map_err(full)
    }

    /// Runs a script that has to succeed and gives its output.
    fn script(&self, script: &str, mounts: &[Mount]) -> Result<String, String> {
        self.success(&shell(script), mounts)
    }

    fn success(&self, process: &Process, mounts: &[Mount]) -> Result<String, String> {
        let ran = self.run(process, mounts)?;
        match ran.exit {
            Exit::Code(0) => Ok(ran.stdout),
            _ => Err(format!("{:?}: {ran:?}", process.args)),
        }
    }

    /// Every path with its type, mode, owner, size, time and content or target.
    fn listing(&self) -> Result<BTreeMap<PathBuf, String>, String> {
        let mut listing = BTreeMap::new();
        list(self.path(), Path::new(""), &mut listing).map_err(text)?;
        Ok(listing)
    }

    /// Fails unless exactly `new` has been added to what was there, and nothing else is different.
    fn only_new(&self, before: &BTreeMap<PathBuf, String>, new: &[&str]) -> Result<(), String> {
        let mut after = self.listing()?;
        for path in new {
            after.remove(Path::new(path)).ok_or_else(|| format!("`{path}` is missing"))?;
        }
        // BuildKit leaves the mount points of these three behind, so they may or may not be new.
        let mounted = ["proc", "sys", "dev"].map(Path::new);
        after.retain(|path, line| before.contains_key(path) || !mounted.contains(&&**path) || !line.starts_with("4"));
        let touched = |path: &Path| path.as_os_str().is_empty();
        for (path, line) in &after {
            match before.get(path) {
                None => return Err(format!("`{}` was left: {line}", path.display())),
                // A new entry in `/` changes the time of `/`.
                Some(old) if old != line && !touched(path) => {
                    return Err(format!("`{}` changed from {old} to {line}", path.display()));
                }
                Some(_) => {}
            }
        }
        let gone = before.keys().find(|path| !after.contains_key(*path));
        gone.map_or(Ok(()), |path| Err(format!("`{}` is gone", path.display())))
    }
}

fn list(root: &Path, below: &Path, listing: &mut BTreeMap<PathBuf, String>) -> std::io::Result<()> {
    let path = root.join(below);
    let meta = fs::symlink_metadata(&path)?;
    let kind = meta.mode() >> 12;
    let size = if meta.is_dir() { 0 } else { meta.size() };
    let time = (meta.mtime(), meta.mtime_nsec());
    let mut line = format!("{kind:o} {:o} {}:{} {size} {time:?}", meta.mode() & 0o7777, meta.uid(), meta.gid());
    if meta.is_symlink() {
        line.push_str(&format!(" -> {}", fs::read_link(&path)?.display()));
    }
    listing.insert(below.to_owned(), line);
    if meta.is_dir() {
        for entry in fs::read_dir(&path)? {
            list(root, &below.join(entry?.file_name()), listing)?;
        }
    }
    Ok(())
}

fn bind(path: &Path, target: &str, read_only: bool) -> Mount {
    Mount { target: PathBuf::from(target), source: MountSource::Bind { path: path.to_owned(), read_only } }
}

fn memory(target: &str, size_bytes: Option<u64>) -> Mount {
    Mount { target: PathBuf::from(target), source: MountSource::Tmpfs { size_bytes } }
}

fn secret(target: &str, content: &str, mode: u32, uid: u32, gid: u32) -> Mount {
    let source = MountSource::File { content: content.as_bytes().to_vec(), mode, uid, gid };
    Mount { target: PathBuf::from(target), source }
}

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
    let made = fs::metadata(place.path().join("made/on/the/way")).map_err(text)?;
    same("mode and owner", (made.mode() & 0o7777, made.uid(), made.gid()), (0o755, 0, 0))
}

fn ids(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let mut process = shell("id -u; id -g; id -G; echo x > /tmp/x");
    same("root", place.success(&process, &[])?.as_str(), "0\n0\n0\n")?;
    fs::remove_file(place.path().join("tmp/x")).map_err(text)?;
    (process.uid, process.gid, process.groups) = (1000, 1001, vec![7, 2000]);
    same("user", place.success(&process, &[])?.as_str(), "1000\n1001\n1001 7 2000\n")?;
    let made = fs::metadata(place.path().join("tmp/x")).map_err(text)?;
    same("owner", (made.uid(), made.gid()), (1000, 1001))?;
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

fn user_namespaces(suite: &Suite<'_>) -> Result<(), String> {
    let ran = suite.place()?.run(&shell("unshare -U true 2> /dev/null && echo entered"), &[])?;
    // In place it is the container's filter that decides.
    if suite.abilities.real_mounts { same("output", ran.stdout.as_str(), "") } else { Ok(()) }
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

fn proc(suite: &Suite<'_>) -> Result<(), String> {
    let script =
        "readlink /proc/self/exe; test -d /proc/$$/fd && echo own; readlink /proc/$$/exe; readlink /proc/self/cwd";
    same("proc", suite.place()?.script(script, &[])?.as_str(), "/bin/busybox\nown\n/bin/busybox\n/\n")
}

fn devices(suite: &Suite<'_>) -> Result<(), String> {
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done
        head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; echo x 2> /dev/null > /dev/full && echo bad
        for l in fd stdin stdout stderr; do readlink /dev/$l; done; test -d /dev/shm && test -d /dev/pts && echo dirs
        stat -c %a /dev/null /dev/shm; echo x > /dev/shm/x; echo hello > /dev/stderr";
    let wanted = "null\nzero\nfull\nrandom\nurandom\ntty\n4\n4\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n\
                  dirs\n666\n1777\n";
    same("devices", suite.place()?.script(script, &[])?.as_str(), wanted)
}

/// With CAP_MKNOD a step may make a node of the machine's disk; it must not work anywhere.
fn made_devices(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.abilities.real_mounts {
        return Ok(());
    }
    let script = "for d in / /tmp /dev /dev/shm /m; do
            mknod $d/node c 1 5 2> /dev/null && head -c 1 $d/node 2> /dev/null | wc -c | grep -v 0; rm -f $d/node
        done; true";
    same("readable", suite.place()?.script(script, &[memory("/m", None)])?.as_str(), "")
}

/// Real root makes the step's devices; whoever may not binds those of the container, where they may be changed.
fn host_devices(suite: &Suite<'_>) -> Result<(), String> {
    let node = suite.fresh_directory("node")?.join("null");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &node,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(1, 3),
    );
    if made.is_err() || !suite.abilities.real_mounts {
        return Ok(());
    }
    let looks = || fs::metadata("/dev/null").map(|looks| (looks.mode(), looks.uid())).map_err(text);
    let before = looks()?;
    let script =
        "for f in /dev/null /proc/keys /proc/timer_list /proc/interrupts; do chmod 667 $f; done 2> /dev/null; true";
    suite.place()?.script(script, &[])?;
    same("mode and owner of /dev/null", looks()?, before)
}

fn builder_hidden(suite: &Suite<'_>) -> Result<(), String> {
    // One that started the builder has the same environment and rights, but is dumpable, as every program is.
    let mut other = std::process::Command::new(suite.busybox)
        .args(["sleep", "100"])
        .env("CONTRACT_CANARY", "1")
        .spawn()
        .map_err(text)?;
    let own = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    let looked = [own, other.id()].map(|pid| {
        // With a pid namespace the number is nobody's or another's.
        let script = format!("cat /proc/{pid}/environ 2> /dev/null | tr '\\0' '\\n' | grep CONTRACT_CANARY; true");
        same("environment", suite.place()?.script(&script, &[])?.as_str(), "")
    });
    let _ = other.kill();
    let _ = other.wait();
    looked.into_iter().collect()
}

/// The step's parent is ours.
fn signals_out(suite: &Suite<'_>) -> Result<(), String> {
    let ran = suite.place()?.script("kill -0 $PPID 2> /dev/null && echo reached; true", &[])?;
    let scoped = suite.abilities.real_mounts && crate::sys::landlock_version().is_ok_and(|version| version >= 6);
    if scoped { same("reached", ran.as_str(), "") } else { Ok(()) }
}

fn changes(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    place.script("true", &[])?;
    place.only_new(&before, &[])?;
    place
        .script("mkdir -p /app/data /usr/lib; echo x > /app/data/f; ln -s f /app/data/l; ln /app/data/f /hard", &[])?;
    place.only_new(&before, &["app", "app/data", "app/data/f", "app/data/l", "hard", "usr", "usr/lib"])?;
    place.script("rm -r /app /hard /usr", &[])?;
    place.only_new(&before, &[])
}

fn image_files(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let etc = place.path().join("etc");
    fs::create_dir(&etc).map_err(text)?;
    for name in ["hosts", "resolv.conf", "hostname"] {
        fs::write(etc.join(name), format!("the image's {name}\n")).map_err(text)?;
    }
    let before = place.listing()?;
    let seen = place.script("cat /etc/hosts", &[])?;
    same("localhost in hosts", seen.contains("localhost"), true)?;
    place.only_new(&before, &[])?;
    place.script("echo y > /etc/y", &[])?;
    place.only_new(
        &before
            .iter()
            .map(|(path, line)| {
                let now = list_one(place.path(), path).unwrap_or_default();
                (path.clone(), if path == Path::new("etc") { now } else { line.clone() })
            })
            .collect(),
        &["etc/y"],
    )
}

fn list_one(root: &Path, path: &Path) -> Option<String> {
    let mut listing = BTreeMap::new();
    list(root, path, &mut listing).ok()?;
    listing.remove(path)
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
    if suite.abilities.hostname && free {
        same("host name", own, "buildhost")?;
    }
    if suite.abilities.own_hosts {
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
        Err(SandboxError::Unsupported { .. }) if !suite.abilities.network_none => Ok(()),
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
    let exit = suite.sandbox.run(&place.tree, &process, &[], &mut output, &|| false).map_err(full)?;
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

fn binds(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::create_dir(source.join("sub")).map_err(text)?;
    fs::write(source.join("sub/file"), "content\n").map_err(text)?;
    chown(source.join("sub/file"), Some(12), Some(34)).map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/new/mount/point", true), bind(&source, "/writable", false)];
    let script =
        "cat /new/mount/point/sub/file; stat -c %u:%g /new/mount/point/sub/file; echo y > /writable/made; cd /";
    same("content and owner", place.script(script, &mounts)?.as_str(), "content\n12:34\n")?;
    place.only_new(&before, &[])?;
    same("written to the source", fs::read_to_string(source.join("made")).map_err(text)?.as_str(), "y\n")?;
    same("source", fs::read_to_string(source.join("sub/file")).map_err(text)?.as_str(), "content\n")?;
    let ran = place.run(&shell("echo z > /ro/sub/file"), &[bind(&source, "/ro", true)])?;
    if suite.abilities.real_mounts {
        same("write to a read-only mount", ran.exit == Exit::Code(0), false)?;
    }
    same("read-only source", fs::read_to_string(source.join("sub/file")).map_err(text)?.as_str(), "content\n")?;
    place.only_new(&before, &[])
}

fn bind_file(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?.join("file");
    fs::write(&source, "one\n").map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/etc/injected.conf", true), bind(&source, "/new/a/file", false)];
    same("content", place.script("cat /etc/injected.conf /new/a/file", &mounts)?.as_str(), "one\none\n")?;
    place.only_new(&before, &[])?;
    // What the step puts beside the mount point is its own.
    place.script("echo kept > /new/kept", &[bind(&source, "/new/a/file", true)])?;
    place.only_new(&before, &["new", "new/kept"])
}

fn bind_link(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    symlink("/", source.join("link")).map_err(text)?;
    let sources = [source.join("link"), source.join("link/bin")];
    for mount in sources.iter().filter(|_| suite.abilities.real_mounts).map(|path| bind(path, "/m", true)) {
        match place.try_with(&shell("true"), std::slice::from_ref(&mount), &|| false) {
            Err(SandboxError::Mount { target, .. }) => same("target", target, mount.target)?,
            other => return Err(format!("{mount:?} gave {other:?}")),
        }
    }
    Ok(())
}

fn bind_over(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::write(source.join("theirs"), "").map_err(text)?;
    fs::create_dir(place.path().join("data")).map_err(text)?;
    fs::write(place.path().join("data/ours"), "ours\n").map_err(text)?;
    fs::write(place.path().join("file"), "ours\n").map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/data", false), bind(&source.join("theirs"), "/file", true)];
    same("covered", place.script("ls /data; cat /file", &mounts)?.as_str(), "theirs\n")?;
    place.only_new(&before, &[])
}

fn shared_source(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::create_dir(source.join("sub")).map_err(text)?;
    let before = place.listing()?;
    let mounts =
        [bind(&source, "/one", false), bind(&source, "/two", false), bind(&source.join("sub"), "/three", false)];
    let script = "echo a > /one/a; cat /two/a; echo b > /two/sub/b; cat /three/b; echo c > /three/c; ls /one/sub";
    same("inside", place.script(script, &mounts)?.as_str(), "a\nb\nb\nc\n")?;
    place.only_new(&before, &[])?;
    same("kept", source.join("a").exists() && source.join("sub/b").exists() && source.join("sub/c").exists(), true)
}

fn nested_mounts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::create_dir(source.join("sub")).map_err(text)?;
    fs::write(source.join("file"), "").map_err(text)?;
    let before = place.listing()?;
    let mounts = [
        memory("/m", None),
        bind(&source, "/m/inner", true),
        memory("/m/inner/sub", None),
        secret("/m/key", "k", 0o400, 0, 0),
    ];
    same(
        "inside",
        place.script("ls /m /m/inner /m/inner/sub; cat /m/key", &mounts)?.as_str(),
        "/m:\ninner\nkey\n\n/m/inner:\nfile\nsub\n\n/m/inner/sub:\nk",
    )?;
    place.only_new(&before, &[])?;
    let same_target = [memory("/m", None), bind(&source, "/m/", true)];
    same("the later one covers", place.script("ls /m", &same_target)?.as_str(), "file\nsub\n")?;
    place.only_new(&before, &[])
}

fn tmpfs(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    let mounts = [memory("/new/tmp", None), memory("/tmp", None), memory("/small", Some(1 << 20))];
    let script = "touch /new/tmp/x /tmp/y; ls /new/tmp /tmp; stat -c %a /tmp /new/tmp";
    same("inside", place.script(script, &mounts)?.as_str(), "/new/tmp:\nx\n\n/tmp:\ny\n1777\n755\n")?;
    if suite.abilities.real_mounts {
        let ran = place.run(&shell("head -c 4000000 /dev/zero > /small/x"), &mounts)?;
        same("more than its size", ran.exit == Exit::Code(0), false)?;
    }
    place.only_new(&before, &[])
}

fn secrets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    let mounts = [secret("/run/secrets/a", "s3cret\n", 0o400, 0, 0), secret("/b", "x", 0o640, 1000, 2000)];
    let script = "cat /run/secrets/a; stat -c '%u:%g %a' /run/secrets/a /b";
    same("inside", place.script(script, &mounts)?.as_str(), "s3cret\n0:0 400\n1000:2000 640\n")?;
    place.only_new(&before, &[])?;
    let mut user = shell("cat /run/secrets/a 2> /dev/null || echo unreadable; cat /b");
    (user.uid, user.gid) = (1000, 1000);
    same("as a user", place.success(&user, &mounts)?.as_str(), "unreadable\nx")?;
    fs::create_dir_all(place.path().join("run/secrets")).map_err(text)?;
    fs::write(place.path().join("run/secrets/a"), "the image's\n").map_err(text)?;
    let before = place.listing()?;
    same("covered", place.script("cat /run/secrets/a", &mounts)?.as_str(), "s3cret\n")?;
    place.only_new(&before, &[])
}

fn linked_targets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::write(source.join("file"), "here\n").map_err(text)?;
    fs::create_dir_all(place.path().join("real")).map_err(text)?;
    fs::create_dir(place.path().join("etc")).map_err(text)?;
    symlink("/real", place.path().join("absolute")).map_err(text)?;
    symlink("../../../../dangling/target", place.path().join("escaping")).map_err(text)?;
    symlink("../run/stub-resolv.conf", place.path().join("etc/resolv.conf")).map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/absolute/sub", true), bind(&source, "/escaping", true)];
    let script = "cat /real/sub/file /dangling/target/file /absolute/sub/file";
    same("inside", place.script(script, &mounts)?.as_str(), "here\nhere\nhere\n")?;
    place.only_new(&before, &[])
}

/// Where here-documents that are programs come from.
fn scripts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?.join("script");
    fs::write(&source, "#!/bin/sh\necho I am $0\n").map_err(text)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/dev/pipes/EOF", true)];
    same("output", place.success(&process(&["/dev/pipes/EOF"]), &mounts)?.as_str(), "I am /dev/pipes/EOF\n")?;
    same("afterwards", place.script("ls /dev/pipes 2> /dev/null; true", &[])?.as_str(), "")?;
    place.only_new(&before, &[])
}

fn impossible_mounts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::write(place.path().join("file"), "").map_err(text)?;
    let before = place.listing()?;
    let cases = [
        bind(&source.join("missing"), "/m", true),
        bind(&source, "/file", true),
        bind(&source, "/file/below", true),
        bind(&source, "/", true),
        secret("/bin", "x", 0o400, 0, 0),
    ];
    for mount in cases {
        match place.try_with(&shell("true"), std::slice::from_ref(&mount), &|| false) {
            Err(SandboxError::Mount { target, .. }) => same("target", target, mount.target)?,
            other => return Err(format!("{mount:?} gave {other:?}")),
        }
    }
    place.only_new(&before, &[])
}

/// Cancels after the step has printed something, and measures how long it takes.
fn cancel(place: &Place<'_>, script: &str) -> Result<Duration, String> {
    let printed = std::cell::Cell::new(None);
    let mut output = |_, _: &[u8]| {
        if printed.get().is_none() {
            printed.set(Some(Instant::now()));
        }
    };
    let cancelled = || printed.get().is_some_and(|since: Instant| since.elapsed() > Duration::from_millis(100));
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

fn self_destruction(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    fs::create_dir_all(place.path().join("opt/a/b")).map_err(text)?;
    // Never the directories of the machine: only what a rootfs has of its own.
    place.run(&shell("rm -rf /opt /tmp /etc/x /bin/cat /bin/ls"), &[])?;
    let left = place.listing()?;
    same("gone", left.contains_key(Path::new("opt")) || left.contains_key(Path::new("tmp")), false)?;
    same("left", left.contains_key(Path::new("bin/busybox")) && left.contains_key(Path::new("bin/sh")), true)
}

fn special_files(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "mkdir /s; cd /s; touch f; chown 7:8 f; chmod 6755 f; mkdir d; chmod 3770 d; mkfifo p; ln -s nowhere l; chown -h 9:9 l";
    place.script(script, &[])?;
    let wanted = [
        ("s/f", (FileKind::File, 0o6755, 7, 8)),
        ("s/d", (FileKind::Directory, 0o3770, 0, 0)),
        ("s/p", (FileKind::Fifo, 0o644, 0, 0)),
        ("s/l", (FileKind::Symlink, 0o777, 9, 9)),
    ];
    for (path, wanted) in wanted {
        let found = place.stat(path)?;
        same(path, (found.kind, found.mode, found.uid, found.gid), wanted)?;
    }
    Ok(())
}

/// Where the kernel drops the bits they are in the tree's table: by every way to a file, and not longer than they should be.
fn set_group_ids(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "mkdir /s /s/d; cd /s; for f in kept given cleared gone named link moved; do touch $f; chown 0:8 $f; chmod 2755 $f; done
                  chown 8:9 given; chmod 755 cleared; rm gone; touch gone; chmod 755 gone; mv moved d/moved
                  chown 0:8 d; chmod g+s d
                  ln -s ../link d/up; chmod 755 link; chmod 2711 d/up; chmod 755 named; exec 3< named; chmod 2750 /proc/self/fd/3
                  touch other; chmod 777 . other; chown 0:8 other";
    place.script(script, &[])?;
    let modes = [
        ("s/kept", 0o2755),
        ("s/given", 0o755),
        ("s/cleared", 0o755),
        ("s/gone", 0o755),
        ("s/d/moved", 0o2755),
        ("s/d", 0o2755),
        ("s/link", 0o2711),
        ("s/named", 0o2750),
        ("s/other", 0o777),
    ];
    for (path, wanted) in modes {
        same(path, place.stat(path)?.mode, wanted)?;
    }
    Ok(())
}

fn device_nodes(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.abilities.devices {
        return Ok(());
    }
    let place = suite.place()?;
    let script = "mkdir /s; cd /s; umask 027; mknod c c 1 3; mknod -m 600 b b 259 70000; mknod /top c 1 5; chown 3:4 c; mknod c c 1 3 2> /dev/null || echo is there";
    same("output", place.script(script, &[])?.as_str(), "is there\n")?;
    // What lies right in `/` may be a copy.
    place.script("chmod 604 /top", &[])?;
    let wanted = [
        ("s/c", (FileKind::CharDevice, (1, 3), 0o640, 3, 4)),
        ("s/b", (FileKind::BlockDevice, (259, 70000), 0o600, 0, 0)),
        ("top", (FileKind::CharDevice, (1, 5), 0o604, 0, 0)),
    ];
    for (path, wanted) in wanted {
        let found = place.stat(path)?;
        same(path, (found.kind, found.device, found.mode, found.uid, found.gid), wanted)?;
    }
    Ok(())
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

/// What says that a file was changed: renaming one would do, too.
fn change_times(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let root = place.path().to_owned();
    fs::write(root.join("top"), "top\n").map_err(text)?;
    fs::write(root.join("other"), "other\n").map_err(text)?;
    symlink("top", root.join("link")).map_err(text)?;
    fs::create_dir(root.join("etc")).map_err(text)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").map_err(text)?;
    let stamp = |name: &str| {
        let looks = fs::symlink_metadata(root.join(name)).map_err(text)?;
        Ok::<_, String>((looks.ino(), looks.ctime(), looks.ctime_nsec()))
    };
    let names = ["top", "link", "etc/passwd", "bin/busybox", "bin/sh"];
    let before = names.map(stamp);
    place.script("cat /top /link /etc/passwd; echo more >> /other", &[])?;
    same("inodes and change times", names.map(stamp), before)?;
    same("changed", fs::read_to_string(root.join("other")).map_err(text)?.as_str(), "other\nmore\n")?;
    place.script("rm /top; mv /other /bin/moved; ln -sf elsewhere /link", &[])?;
    same("removed and moved", root.join("top").exists() || root.join("other").exists(), false)?;
    same("moved", fs::read_to_string(root.join("bin/moved")).map_err(text)?.as_str(), "other\nmore\n")?;
    same("link", fs::read_link(root.join("link")).map_err(text)?, PathBuf::from("elsewhere"))
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
