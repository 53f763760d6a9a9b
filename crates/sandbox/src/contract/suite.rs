//! The rootfs of a check, and ways to run something in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auth::Secret;
use rootfs::commit::Written;
use rootfs::{FileKind, Metadata, RootfsError, Tree};

use super::{Abilities, Settings, attack};
use crate::{Exit, Mount, MountSource, Network, Process, Sandbox, SandboxError, Server, Service, Stream, os};

pub struct Suite<'a> {
    pub sandbox: &'a dyn Sandbox,
    pub settings: Settings<'a>,
    pub made: AtomicUsize,
}

/// A rootfs of one check.
pub struct Place<'a> {
    pub suite: &'a Suite<'a>,
    pub tree: Tree,
}

#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
    pub written: Option<Written>,
}

/// Every path with its type, mode, owner, size, time and content or target.
pub type Listing = BTreeMap<PathBuf, String>;

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub fn full(error: SandboxError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}

pub fn process(args: &[&str]) -> Process {
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
        shm_bytes: None,
        terminal: None,
    }
}

pub fn shell(script: &str) -> Process {
    process(&["/bin/sh", "-c", script])
}

pub fn bind(path: &Path, target: &str, read_only: bool) -> Mount {
    Mount { target: PathBuf::from(target), source: MountSource::Bind { path: path.to_owned(), read_only }, tree: None }
}

pub fn memory(target: &str, size_bytes: Option<u64>) -> Mount {
    Mount { target: PathBuf::from(target), source: MountSource::Tmpfs { size_bytes }, tree: None }
}

pub fn secret(target: &str, content: &str, mode: u32, uid: u32, gid: u32) -> Mount {
    let source = MountSource::File { content: Secret::new(content), mode, uid, gid };
    Mount { target: PathBuf::from(target), source, tree: None }
}

pub fn socket(target: &str, server: &Arc<dyn Service>, mode: u32, uid: u32, gid: u32) -> Mount {
    let source = MountSource::Socket { server: Server(server.clone()), mode, uid, gid };
    Mount { target: PathBuf::from(target), source, tree: None }
}

impl Suite<'_> {
    pub fn abilities(&self) -> Abilities {
        self.settings.abilities
    }

    pub fn fresh_directory(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.settings.work.join(format!("{name}-{}", self.made.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        Ok(path)
    }

    /// `what` with digits behind it that nobody else has who runs the suite on this machine.
    pub fn mark(&self, what: &str) -> String {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        format!("{what}{}{:09}", std::process::id(), now.tv_nsec)
    }

    pub fn place(&self) -> Result<Place<'_>, String> {
        let path = self.fresh_directory("rootfs")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(text)?;
        fs::create_dir(path.join("bin")).map_err(text)?;
        let program = path.join("bin/busybox");
        fs::copy(self.settings.busybox, &program).map_err(text)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(text)?;
        for applet in APPLETS.split_ascii_whitespace() {
            symlink("busybox", path.join("bin").join(applet)).map_err(text)?;
        }
        fs::create_dir(path.join("tmp")).map_err(text)?;
        fs::set_permissions(path.join("tmp"), fs::Permissions::from_mode(0o1777)).map_err(text)?;
        let table = path.with_extension("table");
        Ok(Place { suite: self, tree: Tree::open(&path, Some(&table)).map_err(text)? })
    }

    /// With the program of [`attack`] in it.
    pub fn place_for_attacks(&self) -> Result<Place<'_>, String> {
        let place = self.place()?;
        attack::install(place.path()).map_err(text)?;
        Ok(place)
    }
}

const APPLETS: &str = "sh cat ls echo test true false sleep env id stat readlink realpath head tail wc grep ps rm mkdir touch mv ln \
     chmod chown mknod mkfifo hostname setsid kill usleep date dd yes tr umount find sed cut printenv pwd unshare \
     tar su cp sort mount";

impl Place<'_> {
    pub fn path(&self) -> &Path {
        self.tree.path()
    }

    /// What a layer would have.
    pub fn stat(&self, path: &str) -> Result<Metadata, String> {
        self.tree.stat(Path::new(path)).map_err(text)?.ok_or_else(|| format!("`{path}` is missing"))
    }

    pub fn try_with(
        &self,
        process: &Process,
        mounts: &[Mount],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Ran, SandboxError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        };
        let ended = self.suite.sandbox.run(&self.tree, process, mounts, &mut output, cancelled)?;
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { exit: ended.exit, stdout: lossy(stdout), stderr: lossy(stderr), written: ended.written })
    }

    pub fn run(&self, process: &Process, mounts: &[Mount]) -> Result<Ran, String> {
        self.try_with(process, mounts, &|| false).map_err(full)
    }

    /// Runs a script that has to succeed and gives its output.
    pub fn script(&self, script: &str, mounts: &[Mount]) -> Result<String, String> {
        self.success(&shell(script), mounts)
    }

    pub fn success(&self, process: &Process, mounts: &[Mount]) -> Result<String, String> {
        let ran = self.run(process, mounts)?;
        match ran.exit {
            Exit::Code(0) => Ok(ran.stdout),
            _ => Err(format!("{:?}: {ran:?}", process.args)),
        }
    }

    /// Runs an attack, which must come to its end, and gives what it did.
    pub fn attack(&self, name: &str, arguments: &[&str]) -> Result<attack::Outcomes, String> {
        attack::parse(&self.success(&attack::process(name, arguments), &[])?)
    }

    pub fn listing(&self) -> Result<Listing, String> {
        let mut listing = Listing::new();
        list(&self.tree, Path::new(""), &mut listing).map_err(text)?;
        Ok(listing)
    }

    /// Fails unless exactly `new` has been added to what was there, and nothing else is different.
    pub fn only_new(&self, before: &Listing, new: &[&str]) -> Result<(), String> {
        let mut after = self.listing()?;
        for path in new {
            after.remove(Path::new(path)).ok_or_else(|| format!("`{path}` is missing"))?;
        }
        // BuildKit leaves the mount points of these three behind, so they may or may not be new.
        let mounted = ["proc", "sys", "dev"].map(Path::new);
        after.retain(|path, line| {
            before.contains_key(path) || !mounted.contains(&&**path) || !line.starts_with("Directory")
        });
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

fn list(tree: &Tree, below: &Path, listing: &mut Listing) -> Result<(), RootfsError> {
    let Some(found) = tree.stat(below)? else { return Ok(()) };
    let size = if found.kind == FileKind::Directory { 0 } else { found.size_bytes };
    let (kind, mode, time) = (found.kind, found.mode, found.modified);
    let mut line = format!("{kind:?} {mode:o} {}:{} {size} {time:?}", found.uid, found.gid);
    if kind == FileKind::Symlink {
        line.push_str(&format!(" -> {}", tree.read_link(below)?.display()));
    }
    listing.insert(below.to_owned(), line);
    if kind == FileKind::Directory {
        for name in tree.read_dir(below)? {
            list(tree, &below.join(name), listing)?;
        }
    }
    Ok(())
}
