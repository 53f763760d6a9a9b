//! What a step cannot reach. Each check is a sentence of `docs/isolation.md`.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command};

use rootfs::Tree;
use rustix::thread::CapabilitySet;

use super::suite::{Place, Suite, bind, memory, same, shell, text};
use super::{Check, attack};
use crate::landlock;

pub const CHECKS: &[(&str, Check)] = &[
    ("no user namespace within", user_namespaces),
    ("device nodes that a step makes", made_devices),
    ("the machine's own devices", host_devices),
    ("memory, environment and open files of other processes", processes_hidden),
    ("the builder's environment is not the step's", environment_scrubbed),
    ("the builder's command line", command_line),
    ("signals to the builder", signals_out),
    ("limits of the builder", limits),
    ("priority of the builder", priority),
    ("mount tables and the builder's directories", mount_tables),
    ("changes in another step by a descriptor", handed_on),
    ("one user of a step and another", users),
    ("System V objects of the builder", shared_objects),
    ("sockets of the builder", sockets),
    ("files outside cannot be read", files_read),
    ("files outside cannot be changed", files_changed),
    ("keys of the builder", keys),
    ("calls that no build needs", kernel_calls),
];

fn user_namespaces(suite: &Suite<'_>) -> Result<(), String> {
    let ran = suite.place()?.run(&shell("unshare -U true 2> /dev/null && echo entered"), &[])?;
    // In place it is the container's filter that decides.
    if suite.abilities().filtered { same("output", ran.stdout.as_str(), "") } else { Ok(()) }
}

/// With CAP_MKNOD a step may make a node of the machine's disk; it must not work anywhere.
fn made_devices(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.abilities().real_mounts {
        return Ok(());
    }
    // Zeroes, or where those are everybody's, the machine's memory.
    let device = if suite.abilities().common_devices { "c 1 1" } else { "c 1 5" };
    let script = format!(
        "for d in / /tmp /dev /dev/shm /m; do
            mknod $d/node {device} 2> /dev/null && head -c 1 $d/node 2> /dev/null | wc -c | grep -v 0; rm -f $d/node
        done; true"
    );
    same("readable", suite.place()?.script(&script, &[memory("/m", None)])?.as_str(), "")
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
    if made.is_err() || !suite.abilities().real_mounts {
        return Ok(());
    }
    let looks = || fs::metadata("/dev/null").map(|looks| (looks.mode(), looks.uid())).map_err(text);
    let before = looks()?;
    let script =
        "for f in /dev/null /proc/keys /proc/timer_list /proc/interrupts; do chmod 667 $f; done 2> /dev/null; true";
    suite.place()?.script(script, &[])?;
    same("mode and owner of /dev/null", looks()?, before)
}

/// A process that is none of the step's: it has the builder's rights, but is dumpable, as every program is.
struct Other(Child);

impl Other {
    fn start(suite: &Suite<'_>) -> Result<Other, String> {
        let mut command = Command::new(suite.settings.busybox);
        command.args(["sleep", "1000"]).env("CONTRACT_CANARY", "1").spawn().map(Other).map_err(text)
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory beside the rootfs with what a builder has: other stages, caches, credentials.
struct Outside {
    directory: PathBuf,
    files: Vec<String>,
}

const SECRET: &str = "canary of the builder\n";

impl Outside {
    fn make(suite: &Suite<'_>) -> Result<Outside, String> {
        let directory = fs::canonicalize(suite.fresh_directory("outside")?).map_err(text)?;
        let mut files = Vec::new();
        for name in
            ["canary", ".docker/config.json", "serviceaccount/token", "cache/id/file", "stage/rootfs/etc/shadow"]
        {
            let file = directory.join(name);
            fs::create_dir_all(file.parent().unwrap_or(&directory)).map_err(text)?;
            fs::write(&file, SECRET).map_err(text)?;
            files.push(file.display().to_string());
        }
        Ok(Outside { directory, files })
    }

    fn path(&self) -> String {
        self.directory.display().to_string()
    }

    /// Fails unless everything is as it was made.
    fn is_whole(&self) -> Result<(), String> {
        for file in &self.files {
            same(file, fs::read_to_string(file).map_err(text)?.as_str(), SECRET)?;
            let looks = fs::metadata(file).map_err(text)?;
            same("owner", looks.uid(), rustix::process::geteuid().as_raw())?;
            same("mode", looks.mode() & 0o7777 & !0o022, 0o644)?;
        }
        let mut names: Vec<_> =
            fs::read_dir(&self.directory).map_err(text)?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        same("entries", names, [".docker", "cache", "canary", "serviceaccount", "stage"].map(Into::into).to_vec())
    }
}

fn own_id() -> u32 {
    std::process::id()
}

/// Whether the step has `no_new_privs`: in place a Landlock domain comes with it.
fn has_domain(place: &Place<'_>) -> Result<bool, String> {
    let privileged =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let step = place.script("grep -c 'NoNewPrivs:.1' /proc/self/status; true", &[])?;
    Ok(privileged || step == "1\n" || place.suite.sandbox.name() != "inplace")
}

/// Whether signals and abstract sockets are kept in: by Landlock.
fn has_scopes(place: &Place<'_>) -> Result<bool, String> {
    Ok(super::kernel_has_scopes() && has_domain(place)?)
}

/// Whether the step sees the number of a process of the builder's.
fn sees_builder(place: &Place<'_>) -> Result<bool, String> {
    let other = Other::start(place.suite)?;
    let script = format!("grep -q sleep /proc/{}/cmdline 2> /dev/null && echo seen; true", other.0.id());
    Ok(place.script(&script, &[])? == "seen\n")
}

fn processes_hidden(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let outside = Outside::make(suite)?;
    let other = Other::start(suite)?;
    let file = fs::File::open(&outside.files[0]).map_err(text)?;
    let memory = SECRET.as_ptr() as usize;
    let withheld = rustix::thread::capabilities(None).is_ok_and(|sets| sets.permitted.contains(CapabilitySet::SETPCAP));
    // A container that gives no CAP_SETPCAP, and a kernel without Landlock: docs/isolation.md says what can be read then.
    let all = if withheld || has_domain(&place)? { vec![own_id(), 1, other.0.id()] } else { vec![own_id()] };
    let all: Vec<String> = all.iter().map(u32::to_string).collect();
    let (address, descriptor) = (memory.to_string(), file.as_raw_fd().to_string());
    let outcomes = place.attack("look", &[&all.join(","), &address, &descriptor, &outside.files[0]])?;
    let own = ["/proc/1/environ", "/proc/1/maps", "/proc/1/auxv", "/proc/1/mem"];
    match suite.abilities().own_first {
        true => same("reached", outcomes.reached().iter().find(|what| !own.contains(what)), None),
        false => outcomes.all_refused(),
    }
}

fn environment_scrubbed(suite: &Suite<'_>) -> Result<(), String> {
    let script = "env | cut -d= -f1 | sort; tr '\\0' '\\n' < /proc/self/environ | cut -d= -f1 | sort";
    // The shell adds these three.
    let got = suite.place()?.script(script, &[])?;
    let strange = got.lines().find(|name| !["PATH", "PWD", "SHLVL", "OLDPWD"].contains(name));
    same("a variable that was not given", strange, None)
}

/// The builder is this process, and its work directory among its arguments. Those of others are in sight where `/proc` is shared.
fn command_line(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = format!("tr '\\0' '\\n' < /proc/{}/cmdline 2> /dev/null; true", own_id());
    let shown = place.script(&script, &[])?;
    let work = suite.settings.work.display().to_string();
    same("the work directory is in the command line", shown.contains(&work), false)?;
    let seen = sees_builder(&place)?;
    match suite.sandbox.name() {
        // Where no proc of its own can be mounted it has the container's.
        "namespace" => Ok(()),
        name => same("others are seen", seen, name == "inplace"),
    }
}

/// The builder is this process. With `kill -1` a step signals all that it may.
fn signals_out(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let mut other = Other::start(suite)?;
    let all = format!("{},{}", own_id(), other.0.id());
    let (scopes, seen) = (has_scopes(&place)?, sees_builder(&place)?);
    let held = scopes || !seen;
    let outcomes = place.attack("signal", &[&all])?;
    if !held {
        // As docs/isolation.md says. A kernel whose filters know the calls lets them all through.
        return same("reached", outcomes.reached().is_empty(), false);
    }
    // A process 1 of the step's own may be signalled where Landlock does not keep it out of reach as well.
    let own_first = suite.sandbox.name() == "namespace" && !scopes;
    let outcomes =
        if own_first { outcomes.without(|what| what.contains("(1)") || what.contains("(1,")) } else { outcomes };
    outcomes.all_refused()?;
    place.run(&shell("kill -9 -1; kill -15 -1; exit 0"), &[])?;
    same("others live", other.is_alive(), true)
}

fn limits(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let seen = sees_builder(&place)?;
    let other = Other::start(suite)?;
    // Other programs of the container have no saved group by which they could be told from the step, nor has who watches over
    // it in place, as docs/isolation.md says.
    let all = [Some(own_id()), (!seen).then(|| other.0.id())].into_iter().flatten().map(|pid| pid.to_string());
    let outcomes = place.attack("limit", &[&all.collect::<Vec<_>>().join(",")])?;
    match suite.sandbox.name() {
        "inplace" => {
            let own = format!("prlimit64({})", own_id());
            same("the builder's are reached", outcomes.reached().contains(&&*own), false)
        }
        _ => outcomes.all_refused(),
    }
}

fn priority(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let other = Other::start(suite)?;
    let all = [own_id(), other.0.id()].into_iter().filter(|pid| *pid != 1).map(|pid| pid.to_string());
    let outcomes = place.attack("lower", &[&all.collect::<Vec<_>>().join(",")])?;
    match sees_builder(&place)? {
        // As docs/isolation.md says: the kernel asks for the user alone.
        true => same("reached", outcomes.reached().is_empty(), false),
        false => outcomes.all_refused(),
    }
}

/// An overlay shows the options that it was mounted with to everybody who sees it.
fn mount_tables(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let Some(overlay) = suite.sandbox.overlay() else {
        let shown = place.script("cat /proc/self/mountinfo /proc/self/mounts /proc/self/mountstats; true", &[])?;
        let is_named = shown.contains(&*place.path().to_string_lossy());
        // Without overlays a stage is bound, and the kernel shows what: docs/isolation.md says so.
        return same("named", is_named, is_named && suite.sandbox.name() == "namespace");
    };
    let directory = fs::canonicalize(suite.fresh_directory("overlay")?).map_err(text)?;
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| directory.join(name));
    for directory in [&upper, &work, &merged] {
        fs::create_dir(directory).map_err(text)?;
    }
    overlay.mount(&[place.path()], Some((&upper, &work)), &merged).map_err(text)?;
    let table = directory.join("table");
    let tree = Tree::open_overlay(&merged, &table).map_err(text)?;
    let shown = Place { suite, tree }.script("cat /proc/self/mountinfo /proc/self/mounts", &[]);
    overlay.unmount(&merged).map_err(text)?;
    let shown = shown?;
    let named = shown.lines().find(|line| line.contains(&*directory.to_string_lossy()) || line.contains("/rootfs-"));
    same("a directory of the builder's", named, None)?;
    same("an overlay is shown", shown.contains(" overlay "), true)
}

/// Two steps at the same time, and a cache that both have.
fn handed_on(suite: &Suite<'_>) -> Result<(), String> {
    let kernel_can = landlock::version().is_ok_and(|version| version >= 2);
    let is_tried = match suite.sandbox.name() {
        "namespace" => kernel_can,
        name => name == "emulate",
    };
    if !is_tried {
        return Ok(());
    }
    let (giver, taker) = (suite.place_for_attacks()?, suite.place_for_attacks()?);
    let cache = [bind(&suite.fresh_directory("cache")?, "/c", false)];
    let arguments = ["/c/socket"];
    let (given, taken) = std::thread::scope(|scope| {
        let given = scope.spawn(|| giver.success(&attack::process("give", &arguments), &cache));
        let taken = taker.success(&attack::process("take", &arguments), &cache);
        (given.join(), taken)
    });
    given.map_err(|_| "the giver panicked".to_owned())??;
    attack::parse(&taken?)?.all_refused()?;
    same("content", fs::read_to_string(giver.path().join("canary")).map_err(text)?.as_str(), "of another step")
}

/// Whoever is not root in a step gets at nothing of root's, nor does a child whose parent nobody knows any more.
fn users(suite: &Suite<'_>) -> Result<(), String> {
    let outcomes = suite.place_for_attacks()?.attack("others", &[])?;
    // In place a stage's `/` is the container's, which may have modes of its own.
    same("tries", outcomes.count() >= 2 * 20, true)?;
    outcomes.all_refused()
}

fn shared_objects(suite: &Suite<'_>) -> Result<(), String> {
    let key = 0x7a75_0000 | (own_id() as i32 & 0xffff);
    let new = libc::IPC_CREAT | 0o600;
    // SAFETY: all take numbers only.
    let numbers = unsafe { [libc::shmget(key, 4096, new), libc::semget(key, 1, new), libc::msgget(key, new)] };
    let place = suite.place_for_attacks()?;
    let arguments = [key, numbers[0], numbers[1], numbers[2]].map(|number| number.to_string());
    let outcomes = place.attack("objects", &arguments.each_ref().map(String::as_str));
    // SAFETY: with IPC_RMID none of them looks at its last argument.
    unsafe {
        libc::shmctl(numbers[0], libc::IPC_RMID, std::ptr::null_mut());
        libc::semctl(numbers[1], 0, libc::IPC_RMID);
        libc::msgctl(numbers[2], libc::IPC_RMID, std::ptr::null_mut());
    }
    if numbers.contains(&-1) {
        return Err("the builder itself gets none".into());
    }
    match suite.abilities().hidden_files {
        true => outcomes?.all_refused(),
        // As docs/isolation.md says.
        false => same("reached", outcomes?.reached().is_empty(), false),
    }
}

fn sockets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let directory = fs::canonicalize(suite.fresh_directory("socket")?).map_err(text)?;
    let path = directory.join("s");
    let name = format!("contract-{}", own_id());
    let (abstracted, datagrams) = (abstract_name(&name)?, abstract_name(&format!("{name}-datagrams"))?);
    let _by_path = UnixListener::bind(&path).map_err(text)?;
    let _by_name = UnixListener::bind_addr(&abstracted).map_err(text)?;
    let _datagrams = UnixDatagram::bind_addr(&datagrams).map_err(text)?;
    let outcomes = place.attack("connect", &[&path.display().to_string(), &name])?;
    let (by_name, by_path): (Vec<&str>, Vec<&str>) =
        outcomes.reached().iter().partition(|what| what.starts_with("abstract"));
    same("sockets by path", by_path.len(), if suite.abilities().hidden_files { 0 } else { 3 })?;
    // Emulation asks who has a name; elsewhere it is for Landlock to hold.
    let held = has_scopes(&place)? || suite.sandbox.name() == "emulate";
    same("abstract sockets", by_name.len(), if held { 0 } else { 3 })
}

fn abstract_name(name: &str) -> Result<SocketAddr, String> {
    SocketAddr::from_abstract_name(name).map_err(text)
}

fn files_read(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let outside = Outside::make(suite)?;
    let files: Vec<&str> = outside.files.iter().map(String::as_str).collect();
    let outcomes = place.attack("read", &files)?;
    match suite.abilities().hidden_files {
        true => outcomes.all_refused(),
        // As docs/isolation.md says.
        false => same("reached", outcomes.reached().is_empty(), false),
    }
}

fn files_changed(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.abilities().hidden_files {
        return Ok(());
    }
    let place = suite.place_for_attacks()?;
    let outside = Outside::make(suite)?;
    place.attack("write", &[&outside.path()])?.all_refused()?;
    outside.is_whole()?;
    // The same names inside are the step's own, wherever a path seems to lead.
    let script =
        format!("mkdir -p {0}; echo mine > {0}/canary; rm -r {0}; rm -rf /tmp/../../../../../../..{0}", outside.path());
    place.script(&script, &[])?;
    outside.is_whole()
}

/// A key in the keyring of the builder's session and user.
fn keys(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let name = format!("contract-{}", own_id());
    let made = attack::add_key(&name);
    let outcomes = place.attack("keys", &[&name])?;
    // Where the builder itself may have no keys there is none to be found.
    match made.is_ok() && !suite.abilities().filtered {
        true => Ok(()),
        false => outcomes.all_refused(),
    }
}

fn kernel_calls(suite: &Suite<'_>) -> Result<(), String> {
    match suite.abilities().filtered {
        true => suite.place_for_attacks()?.attack("kernel", &[])?.all_refused(),
        // The container's filter decides.
        false => Ok(()),
    }
}

/// For ten minutes when asked to ([`super::Settings::race`]).
pub fn race(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.abilities().hidden_files {
        return Ok(());
    }
    let place = suite.place_for_attacks()?;
    let outside = Outside::make(suite)?;
    let seconds = suite.settings.race.as_secs().to_string();
    place.attack("race", &[&seconds, &outside.path()])?.all_refused()?;
    outside.is_whole()
}
