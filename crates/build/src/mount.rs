//! RUN mounts of the plan to what the sandbox mounts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dockerfile::Sharing;
use oci::Digest;
use rootfs::copy::CopyOptions;
use rootfs::{FileKind, Metadata, RootfsError, Tree};
use rustix::fd::OwnedFd;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sandbox::{Mount, MountSource, Server};

use crate::exec::SourceTree;
use crate::plan::{self, CacheMount, MountKind, Step};
use crate::scratch::Scratch;
use crate::{BuildError, Place, Request};

/// The mounts of one RUN, the variables that secrets add, and what has to live as long as the run does.
#[derive(Default)]
pub struct Mounts {
    pub mounts: Vec<Mount>,
    pub env: Vec<OsString>,
    /// Private copies, removed with this value.
    copies: Vec<Scratch>,
    /// Held for caches with `sharing=locked` and `private`.
    _locks: Vec<OwnedFd>,
}

impl Mounts {
    /// A here-document that is a program: a file of its own, since what secrets lie on cannot be executed.
    fn script(&mut self, request: &Request, name: &str, content: &str) -> Result<(), BuildError> {
        let io = BuildError::io("could not write a here-document");
        let write = || -> std::io::Result<Scratch> {
            let directory = Scratch::make(request, "script")?;
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
            let path = directory.path().join("script");
            std::fs::write(&path, content)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            Ok(directory)
        };
        let directory = write().map_err(io)?;
        let source = MountSource::Bind { path: directory.path().join("script"), read_only: true };
        self.mounts.push(Mount { target: Path::new("/dev/pipes").join(name), source, tree: None });
        self.copies.push(directory);
        Ok(())
    }
}

/// Lowers the mounts of `run`, each after those that it lies in. `take` gives the tree that a source means; `stopped` ends the
/// waiting for a cache.
pub fn lower(
    request: &Request,
    step: &Step,
    run: &plan::Run,
    take: &dyn Fn(&plan::Source) -> Result<SourceTree, BuildError>,
    stopped: &dyn Fn() -> bool,
) -> Result<Mounts, BuildError> {
    let mut lowered = Mounts { _locks: lock_caches(request, run, stopped)?, ..Mounts::default() };
    if let Some((name, content)) = &run.script {
        lowered.script(request, name, content)?;
    }
    for mount in &run.mounts {
        let source = match &mount.kind {
            MountKind::Bind { from, source, read_only } => {
                let taken = take(from)?;
                let (path, tree) = bind(request, step, &taken, source, *read_only, &mut lowered)?;
                Some((MountSource::Bind { path, read_only: *read_only }, tree))
            }
            MountKind::Cache(mount) => Some(cache(request, step, mount, take)?),
            MountKind::Tmpfs { size_bytes } => Some((MountSource::Tmpfs { size_bytes: *size_bytes }, None)),
            MountKind::Secret { .. } => secret(request, step, &mount.kind, &mut lowered)?.map(|source| (source, None)),
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let server = agent(request, step, id, *required)?;
                server.map(|server| (MountSource::Socket { server, mode: *mode, uid: *uid, gid: *gid }, None))
            }
        };
        if let Some((source, tree)) = source {
            lowered.mounts.push(Mount { target: PathBuf::from(&mount.target), source, tree });
        }
    }
    sort(&mut lowered.mounts);
    Ok(lowered)
}

/// By target, as BuildKit mounts them (`PrepareMounts`); of several at one target the last stays (`dedupMounts`).
fn sort(mounts: &mut Vec<Mount>) {
    // Stable, so that the last one comes first.
    mounts.reverse();
    mounts.sort_by(|a, b| a.target.as_os_str().cmp(b.target.as_os_str()));
    mounts.dedup_by(|later, first| later.target == first.target);
}

/// What is bound: its path on the host, and who knows its owners if they mean something.
type Bound = (PathBuf, Option<Arc<Tree>>);

/// The host path to bind: the tree itself where that shows no more than it should, else a private copy.
///
/// A copy is needed for writes, which are discarded, where an ignore file hides something or the builder's own files lie in it,
/// and where the step would see
/// somebody else as the owner: the files of a context are root's (BuildKit `filesync`), and git, for one, refuses others.
fn bind(
    request: &Request,
    step: &Step,
    taken: &SourceTree,
    source: &str,
    read_only: bool,
    lowered: &mut Mounts,
) -> Result<Bound, BuildError> {
    let place = || Some(Place { span: step.span.clone() });
    let rootfs = |source| BuildError::Rootfs { action: "could not prepare a mount".to_owned(), place: place(), source };
    let resolved = taken.tree.resolve(Path::new(source), true).map_err(rootfs)?;
    let Some(found) = taken.tree.stat(&resolved).map_err(rootfs)? else {
        let message = format!("mount source `{source}` does not exist in {}", taken.name);
        return Err(BuildError::dockerfile(&step.span, message));
    };
    // The topmost directory of a context is open to everybody, whatever it is on the host (`mktemp -d`).
    let is_open = taken.keep_owner || !resolved.as_os_str().is_empty() || found.mode & 0o555 == 0o555;
    let shows_right = || {
        let all_visible = taken.ignore.as_ref().is_none_or(|i| i.patterns.is_empty());
        Ok(all_visible
            && is_open
            && !taken.tree.hides_below(&resolved)?
            && (taken.keep_owner || are_shown_as_roots(&taken.tree, resolved.clone(), &found)?))
    };
    if read_only && shows_right().map_err(rootfs)? {
        let tree = taken.keep_owner.then(|| taken.tree.clone());
        return Ok((host_path(&taken.tree, &resolved)?, tree));
    }
    // A write changes one name only, as on the overlay that BuildKit mounts.
    let (copy, directory, tree) = private_copy(request, step, taken, source, read_only)?;
    lowered.copies.push(copy);
    Ok((directory, Some(Arc::new(tree))))
}

/// Whether a step sees all files of the host at and below `path` as root's. Who checked a context out mostly owns all of it or
/// nothing, so that a look at every file costs little beside the copy that it may save.
fn are_shown_as_roots(tree: &Tree, path: PathBuf, found: &Metadata) -> Result<bool, RootfsError> {
    if !is_shown_as_roots(found.uid, found.gid) {
        return Ok(false);
    }
    let mut directories = vec![path];
    directories.retain(|_| found.kind == FileKind::Directory);
    while let Some(directory) = directories.pop() {
        for name in tree.read_dir(&directory)? {
            let path = directory.join(name);
            match tree.stat(&path)? {
                Some(found) if !is_shown_as_roots(found.uid, found.gid) => return Ok(false),
                Some(found) if found.kind == FileKind::Directory => directories.push(path),
                _ => {}
            }
        }
    }
    Ok(true)
}

/// Whether a step sees a file of the host as root's: the builder's own user and group are root for it, and where the builder is
/// anybody else (`emulate`) its other groups as well.
fn is_shown_as_roots(uid: u32, gid: u32) -> bool {
    use rustix::process::{getegid, geteuid, getgroups};
    let is_other_group =
        || !geteuid().is_root() && getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid));
    (uid == 0 || uid == geteuid().as_raw()) && (gid == 0 || gid == getegid().as_raw() || is_other_group())
}

/// The path on the host of what is `resolved` in a tree, without symbolic links. Only the way to the tree is looked at: what
/// is in it can be another step's to change at this moment.
fn host_path(tree: &Tree, resolved: &Path) -> Result<PathBuf, BuildError> {
    let action = || format!("could not find the source of a mount, `{}`", tree.path().display());
    let root = tree.path().canonicalize().map_err(|source| BuildError::Io { action: action(), source })?;
    Ok(root.join(resolved))
}

/// Copies `source` of a tree aside; the path of the copy.
fn private_copy(
    request: &Request,
    step: &Step,
    taken: &SourceTree,
    source: &str,
    keep_links: bool,
) -> Result<(Scratch, PathBuf, Tree), BuildError> {
    let io = |source| BuildError::Io { action: "could not make a directory for a mount".to_owned(), source };
    let copy = Scratch::make(request, "mount").map_err(io)?;
    // Only the builder may look in, whatever the copy holds; the mount itself goes by its own path.
    std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o755)).map_err(io)?;
    let failed = |source| BuildError::Rootfs {
        action: "could not copy a mount's source".to_owned(),
        place: Some(Place { span: step.span.clone() }),
        source,
    };
    let root = copy.path().join("tree");
    let to = Tree::create(&root, Some(&copy.path().join(METADATA))).map_err(failed)?.stopping(&request.stop());
    let sources = [source.to_owned()];
    let options = CopyOptions { keep_links, literal: true, ..crate::exec::copy_options(None, taken.keep_owner) };
    rootfs::copy::copy(&taken.tree, taken.filter(), &sources, &to, "/source", &options)
        .map_err(|e| crate::exec::copy_error(e, step, &taken.name, taken.ignore.as_ref()))?;
    keep_directory(taken, source, &to).map_err(failed)?;
    Ok((copy, root.join("source"), to))
}

/// Gives the copy of a directory its mode and owner, of which COPY leaves nothing. The topmost directory of a context has none:
/// BuildKit is not sent it.
fn keep_directory(taken: &SourceTree, source: &str, to: &Tree) -> Result<(), RootfsError> {
    let resolved = taken.tree.resolve(Path::new(source), true)?;
    let Some(found) = taken.tree.stat(&resolved)? else { return Ok(()) };
    if found.kind != FileKind::Directory || !taken.keep_owner && resolved.as_os_str().is_empty() {
        return Ok(());
    }
    let copy = Path::new("source");
    if taken.keep_owner {
        to.set_owner(copy, found.uid, found.gid)?;
    }
    to.set_mode(copy, found.mode)
}

/// A cache directory on the host, named by a hash of its id, source and owner; made and filled from its source the first time.
fn cache(
    request: &Request,
    step: &Step,
    mount: &CacheMount,
    take: &dyn Fn(&plan::Source) -> Result<SourceTree, BuildError>,
) -> Result<(MountSource, Option<Arc<Tree>>), BuildError> {
    let CacheMount { id, from, source, read_only, .. } = mount;
    let root = cache_root(request, mount);
    let content = root.join("content");
    let rootfs = |source| BuildError::Rootfs {
        action: format!("could not open cache `{id}`"),
        place: Some(Place { span: step.span.clone() }),
        source,
    };
    {
        // One at a time makes a cache, in whatever step and builder; nobody holds this for long.
        let _making = lock(&root.with_extension("making"), true, &|| false)?;
        if !content.exists() {
            make_cache(request, step, from, &root, take)?;
            give(&root, mount).map_err(rootfs)?;
            std::fs::rename(root.join(PARTIAL), &content)
                .map_err(BuildError::io(format!("could not make cache directory `{}`", root.display())))?;
            request.backends.cache_mounts.forget(&root);
        }
    }
    // Steps of this build and other builders may have it at the same time.
    let open = || Tree::open_shared(&content, &root.join(METADATA), &request.stop());
    let tree = request.backends.cache_mounts.open(&root, open).map_err(rootfs)?;
    let below = tree.resolve(Path::new(source), true).map_err(rootfs)?;
    let found = tree.stat(&below).map_err(rootfs)?;
    if found.is_none() {
        return Err(BuildError::dockerfile(&step.span, format!("cache `{id}` has no `{source}`: no such directory")));
    }
    let source = MountSource::Bind { path: host_path(&tree, &below)?, read_only: *read_only };
    Ok((source, Some(tree)))
}

/// A cache that is not whole yet; what a killed builder left of one is made anew.
const PARTIAL: &str = "content.partial";

/// Beside a cache or a private copy: owners and modes of its files that the kernel was not let keep.
const METADATA: &str = "metadata";

fn give(cache: &Path, mount: &CacheMount) -> Result<(), rootfs::RootfsError> {
    let tree = Tree::open(&cache.join(PARTIAL), Some(&cache.join(METADATA)))?;
    tree.set_owner(Path::new(""), mount.uid, mount.gid)?;
    tree.set_mode(Path::new(""), mount.mode)
}

/// As in BuildKit, the same id with another owner or mode is another cache (`setCacheUIDGID`).
fn cache_root(request: &Request, mount: &CacheMount) -> PathBuf {
    let CacheMount { id, origin, mode, uid, gid, .. } = mount;
    let caches = &request.backends.cache_mounts;
    let name = format!("{}\0{id}\0{origin}\0{uid}:{gid}:{mode:o}", caches.namespace);
    caches.path.join(Digest::of(name.as_bytes()).hex())
}

fn make_cache(
    request: &Request,
    step: &Step,
    from: &plan::Source,
    root: &Path,
    take: &dyn Fn(&plan::Source) -> Result<SourceTree, BuildError>,
) -> Result<(), BuildError> {
    let io = |source| BuildError::Io { action: format!("could not make cache directory `{}`", root.display()), source };
    std::fs::create_dir_all(root).map_err(io)?;
    // A step can leave a set-user-ID program in it, which is nothing for the other users of a machine.
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
    let partial = root.join(PARTIAL);
    // Nor is what was known of files that are gone of use for new ones, which can have their numbers.
    for removed in [std::fs::remove_dir_all(&partial), std::fs::remove_file(root.join(METADATA))] {
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    if *from == plan::Source::Empty {
        return std::fs::create_dir(&partial).map_err(io);
    }
    let taken = take(from)?;
    let (copy, path, _) = private_copy(request, step, &taken, "/", true)?;
    let moved = std::fs::rename(&path, &partial);
    // Its owners go along: entries are those of the files, wherever they are.
    let _ = std::fs::rename(copy.path().join(METADATA), root.join(METADATA));
    drop(copy);
    moved.map_err(io)
}

/// The locks of every cache of a step: shared for `shared`, exclusive for `locked` and `private`, across builders on one host.
///
/// Each is taken once and all in one order, so that no two steps wait for each other.
fn lock_caches(request: &Request, run: &plan::Run, stopped: &dyn Fn() -> bool) -> Result<Vec<OwnedFd>, BuildError> {
    let mut wanted: BTreeMap<PathBuf, bool> = BTreeMap::new();
    for mount in &run.mounts {
        if let MountKind::Cache(mount) = &mount.kind {
            *wanted.entry(cache_root(request, mount)).or_default() |= mount.sharing != Sharing::Shared;
        }
    }
    if !wanted.is_empty() {
        let path = &request.backends.cache_mounts.path;
        let action = format!("could not make the directory of cache mounts `{}`", path.display());
        std::fs::create_dir_all(path).map_err(BuildError::io(action))?;
    }
    wanted.iter().map(|(root, exclusive)| lock(&root.with_extension("lock"), *exclusive, stopped)).collect()
}

/// How often a lock that another holds is asked for. The kernel's own waiting could not be ended by another stage's failure.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn lock(path: &Path, exclusive: bool, stopped: &dyn Fn() -> bool) -> Result<OwnedFd, BuildError> {
    let io = |source: std::io::Error| BuildError::Io { action: format!("could not lock `{}`", path.display()), source };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
    let operation = match exclusive {
        false => FlockOperation::NonBlockingLockShared,
        true => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(file.into()),
            Err(Errno::WOULDBLOCK) if stopped() => return Err(BuildError::Stopped),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(io(errno.into())),
        }
    }
}

/// A secret as a file, a variable or both; nothing when it is optional and not there.
fn secret(
    request: &Request,
    step: &Step,
    kind: &MountKind,
    lowered: &mut Mounts,
) -> Result<Option<MountSource>, BuildError> {
    let MountKind::Secret { id, file, env, required, mode, uid, gid } = kind else { return Ok(None) };
    let Some(secret) = request.spec.secrets.get(id) else {
        if !required {
            // The variable is there and empty (BuildKit `exec.go`, secretenv).
            lowered.env.extend(env.as_ref().map(|name| OsString::from(format!("{name}="))));
            return Ok(None);
        }
        let near = dockerfile::lint::nearest_name(id, request.spec.secrets.keys().map(String::as_str));
        let error = BuildError::dockerfile(&step.span, format!("secret `{id}` is required and was not given"));
        return Err(error.with_hint(match near {
            Some(near) => format!("did you mean `{near}`, which was given?"),
            None => format!("pass it with `--secret id={id},src=FILE` or `--secret id={id},env=NAME`"),
        }));
    };
    if let Some(name) = env {
        use std::os::unix::ffi::OsStringExt as _;
        let mut entry = name.clone().into_bytes();
        entry.push(b'=');
        entry.extend_from_slice(secret.reveal());
        lowered.env.push(OsString::from_vec(entry));
    }
    Ok(file.then(|| MountSource::File { content: secret.clone(), mode: *mode, uid: *uid, gid: *gid }))
}

/// The agent of this id; none when it is optional and not there.
fn agent(request: &Request, step: &Step, id: &str, required: bool) -> Result<Option<Server>, BuildError> {
    let server = request.backends.agents.get(id).cloned();
    if server.is_none() && required {
        return Err(BuildError::dockerfile(&step.span, format!("SSH agent `{id}` is required and was not given"))
            .with_hint(format!("pass it with `--ssh {id}=FILE` (a socket or a private key); `--ssh {id}` alone takes the agent at `SSH_AUTH_SOCK`")));
    }
    Ok(server)
}
