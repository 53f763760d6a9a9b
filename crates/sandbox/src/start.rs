//! The last steps before the program: directory, rights, ids, and finding it.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Access, AtFlags, Mode};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::helper::Report;
use crate::sys::{self, plain};
use crate::{Process, emulate, filter, landlock, log, namespace, notify};

/// Docker's default capabilities (moby `daemon/pkg/oci/caps/defaults.go`), which BuildKit gives to a step as well.
pub const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// What a step lacks that shares /proc with processes which are no business of its own (the shell of a CI job, which has the
/// job's credentials in its environment). The kernel lets nobody look into a process that has a capability more than oneself
/// (`security/commoncap.c` cap_ptrace_access_check), and this is the one that is missed least.
const WITHHELD_IN_PLACE: CapabilitySet = CapabilitySet::SETPCAP;

/// What BuildKit searches when the environment has no PATH (`util/system/path.go`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The seccomp filter around a step.
#[derive(Clone, Copy)]
pub enum Filter<'s> {
    None,
    /// [`filter::apply`], for which the process must have CAP_SYS_ADMIN still.
    Refusing,
    /// Changes of files' metadata are asked about; the listener is sent here.
    Asking(&'s UnixStream),
    /// Everything about files and ids is asked about; the listener is sent here.
    Emulated(Emulated<'s>),
}

/// What the `emulate` back-end says of a step's first process.
#[derive(Clone, Copy)]
pub struct Emulated<'s> {
    pub builder: &'s UnixStream,
    pub pass: u64,
    pub mark: u64,
    /// How many files it may have open.
    pub files: Option<u64>,
}

/// Turns this process into the step's program; returns only why not.
pub fn become_program(process: &Process, filter: Filter<'_>) -> Report {
    match prepare(process, filter).and_then(|()| exec(process)) {
        Ok(never) => match never {},
        Err(report) => report,
    }
}

fn prepare(process: &Process, filter: Filter<'_>) -> Result<(), Report> {
    let _ = rustix::process::setsid();
    if process.terminal.is_some() {
        control_terminal().map_err(|error| Report::setup("could not give the step its terminal", error))?;
    }
    if let Filter::Emulated(orders) = filter {
        // All that follows is done by the builder already, in the rootfs.
        emulated(orders)?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if process.terminal.is_none() {
        null_input().map_err(|error| Report::setup("could not open `/dev/null` for the step", error))?;
    }
    enter_directory(process)?;
    sys::no_core_files();
    sys::leave_session_keyring();
    let unfiltered = |error: io::Error| Report::setup("could not apply a seccomp filter to the step", error);
    if let Filter::Refusing = filter {
        namespace::domain::enter()
            .map_err(|error| Report::setup("could not put the step into a Landlock domain", error))?;
        filter::apply().map_err(unfiltered)?;
    }
    if let Filter::None = filter {
        // Only where it costs nothing: it takes `no_new_privs`, which the container may have set, or CAP_SYS_ADMIN. To set it
        // here would take sudo away from users of steps, which they have in other builders.
        let _ = landlock::enter_domain();
    }
    let capabilities = match filter {
        Filter::Refusing | Filter::Emulated(_) => CAPABILITIES,
        Filter::None | Filter::Asking(_) => CAPABILITIES.difference(WITHHELD_IN_PLACE),
    };
    drop_rights(process, capabilities).map_err(|error| {
        Report::setup(format!("could not become user {}:{} for the step", process.uid, process.gid), error)
    })?;
    if let Filter::Asking(builder) = filter {
        // A container that wants the log may lack CAP_SETPCAP as well, and then nothing can be withheld.
        let _ = rustix::thread::set_no_new_privs(true).map_err(io::Error::from).and_then(|()| landlock::enter_domain());
        let listener = notify::listen(&log::numbers()).map_err(unfiltered)?;
        notify::send(&listener, builder).map_err(unfiltered)?;
    }
    sys::reset_signals();
    sys::close_rest_on_exec();
    Ok(())
}

/// Shuts this process into the `emulate` back-end: it can open nothing by itself any more.
fn emulated(Emulated { builder, pass, mark, files }: Emulated<'_>) -> Result<(), Report> {
    let failed = |action: &'static str| move |error: io::Error| Report::setup(action, error);
    // The builder reads and writes our memory. There are no secrets in it: the orders of this back-end have none.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .map_err(|error| Report::setup("prctl(PR_SET_DUMPABLE)", error))?;
    let _ = rustix::thread::set_no_new_privs(true);
    // Without Landlock (before Linux 5.13) the filter is the only wall; `zuwai doctor` says so.
    // A core file would be written by the kernel, to a path of the host.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    // Against a step that forks without end, where the container sets no limit: all of the user's processes count.
    let most = 32768.min(rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum.unwrap_or(u64::MAX));
    let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nproc, limit);
    if let Some(files) = files {
        let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let limit = rustix::process::Rlimit { current: Some(files), maximum };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    }
    emulate::begin(mark).map_err(|error| Report::setup("setrlimit(RLIMIT_LOCKS)", error))?;
    let _ = landlock::enter_empty_domain();
    notify::listen_emulated(pass, builder)
        .map_err(failed("could not apply a seccomp filter to the step and send it to the builder"))
}

/// The terminal that the helper has made standard input becomes the session's, and output goes there as well.
fn control_terminal() -> io::Result<()> {
    let terminal = io::stdin();
    rustix::process::ioctl_tiocsctty(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    Ok(rustix::stdio::dup2_stderr(&terminal)?)
}

fn null_input() -> io::Result<()> {
    let null = fs::File::open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdin(null)?)
}

/// Makes the working directory where it is missing, as runc does, and goes there.
fn enter_directory(process: &Process) -> Result<(), Report> {
    let cwd = Path::new("/").join(&process.cwd);
    fs::create_dir_all(&cwd).and_then(|()| Ok(rustix::process::chdir(&cwd)?)).map_err(|error| Report::Start {
        program: program_of(process),
        reason: format!("working directory `{}`: {}", cwd.display(), plain(&error)),
        code: 126,
    })
}

fn drop_rights(process: &Process, capabilities: CapabilitySet) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    // The pipes become the user's, who may open /dev/stdout by its name then (runc `init_linux.go` fixStdioPermissions).
    let _ = rustix::fs::fchown(io::stdout(), Some(uid), None);
    let _ = rustix::fs::fchown(io::stderr(), Some(uid), None);
    let _ = rustix::thread::clear_ambient_capability_set();
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !capabilities.contains(one) {
            // Unknown to this kernel, or no CAP_SETPCAP: then the container's bounding set holds.
            let _ = rustix::thread::remove_capability_from_bounding_set(one);
        }
    }
    let groups: Vec<Gid> = process.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    if process.uid == 0 {
        let have = rustix::thread::capabilities(None)?;
        let keep = have.permitted & capabilities;
        let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}

fn exec(process: &Process) -> Result<std::convert::Infallible, Report> {
    let fail = |reason: String, code| Report::Start { program: program_of(process), reason, code };
    let strings = |list: &[OsString]| -> Result<Vec<CString>, Report> {
        let all = list.iter().map(|text| CString::new(text.as_bytes()));
        all.collect::<Result<_, _>>().map_err(|_| fail("an argument or variable holds a NUL byte".into(), 126))
    };
    let (args, env) = (strings(&process.args)?, strings(&process.env)?);
    let name = process.args.first().ok_or_else(|| fail("no program given".into(), 127))?;
    let program = find(name, &process.env).map_err(|(reason, code)| fail(reason, code))?;
    let error = sys::execve(&program, &args, &env);
    Err(match error.raw_os_error() {
        // The file is there, as `find` saw: the missing thing is the interpreter of a script or the dynamic linker.
        Some(libc::ENOENT) => {
            fail("no such file or directory (its interpreter or dynamic linker is missing)".into(), 127)
        }
        Some(libc::ENOEXEC) => fail("exec format error".into(), 126),
        _ => fail(plain(&error), 126),
    })
}

/// The program's file: `name` itself when it has a `/`, else the first executable file of that name in PATH. Texts and order
/// of the errors are those of runc (Go `os/exec.LookPath`).
fn find(name: &OsStr, env: &[OsString]) -> Result<OsString, (String, i32)> {
    if name.as_bytes().contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err((plain(&error), 127)),
            Err(error) => Err((plain(&error), 126)),
        };
    }
    let path = env.iter().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="));
    let path = path.unwrap_or(DEFAULT_PATH.as_bytes());
    let found = path
        .split(|byte| *byte == b':')
        .map(|directory| candidate(directory, name))
        .find(|file| executable(file).is_ok());
    found.ok_or_else(|| ("executable file not found in $PATH".into(), 127))
}

fn candidate(directory: &[u8], name: &OsStr) -> OsString {
    let directory = if directory.is_empty() { b"." } else { directory };
    OsString::from_vec([directory, b"/", name.as_bytes()].concat())
}

fn executable(file: &OsStr) -> io::Result<()> {
    if fs::metadata(file)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    // Real and effective user are the step's by now.
    Ok(rustix::fs::accessat(rustix::fs::CWD, file, Access::EXEC_OK, AtFlags::empty())?)
}

fn program_of(process: &Process) -> String {
    process.args.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
