//! Finding and reading the Dockerfile, and the ignore file beside it.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use rootfs::{Stop, Tree};

use crate::ignore::read_in_tree;
use crate::input::{self, Pipe};
use crate::{ContextError, Opened, Sources, fetch, io};

/// More than any Dockerfile has; as much as BuildKit's messages can carry.
pub const DOCKERFILE_MAX_BYTES: u64 = 16 << 20;

const DEFAULT_NAME: &str = "Dockerfile";
/// Also taken where there is no `Dockerfile` (moby/moby#10858).
const LOWER_NAME: &str = "dockerfile";

/// A Dockerfile that has been read, not parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dockerfile {
    pub bytes: Vec<u8>,
    /// What to call it in messages: its path as given, `standard input`, or an address without secrets.
    pub name: String,
    /// Path and text of `NAME.dockerignore` beside it.
    pub ignore_file: Option<(PathBuf, Vec<u8>)>,
}

/// Reads the Dockerfile that `given` (`--file`) names for `context`.
///
/// Without a name it is `Dockerfile`, or else `dockerfile`, at the root of the context, or what the context is when it is a
/// single file. `-` is standard input, as `/dev/stdin` is, and `http(s)://…` an address. Any other name is a path: as given, then below the context
/// (kaniko); for a context that was unpacked the other way round. It may be a pipe. Links are resolved inside the context when the file is in it.
///
/// # Errors
/// [`ContextError::NoDockerfile`] with what was tried and what looks like one; [`ContextError::Invalid`] beyond
/// [`DOCKERFILE_MAX_BYTES`].
pub fn read_dockerfile(
    given: Option<&str>,
    context: &Opened,
    sources: &mut Sources<'_>,
) -> Result<Dockerfile, ContextError> {
    match (given, &context.dockerfile) {
        (None, Some(dockerfile)) => Ok(dockerfile.clone()),
        (None, None) => read_default(&context.tree),
        (Some("-"), _) => {
            let mut stdin = sources.take_stdin("could not read the Dockerfile")?;
            Ok(plain(read_limited(stdin.as_mut(), "standard input")?, "standard input".to_owned()))
        }
        (Some(url), _) if url.starts_with("http://") || url.starts_with("https://") => {
            let name = net::display_url(url);
            Ok(plain(fetch::read_url(sources.net, url, DOCKERFILE_MAX_BYTES)?, name))
        }
        (Some(path), _) if input::is_stdin(Path::new(path)) => read_dockerfile(Some("-"), context, sources),
        (Some(path), _) => read_path(Path::new(path), context, &sources.stop()),
    }
}

fn plain(bytes: Vec<u8>, name: String) -> Dockerfile {
    Dockerfile { bytes, name, ignore_file: None }
}

fn read_default(tree: &Tree) -> Result<Dockerfile, ContextError> {
    for name in [DEFAULT_NAME, LOWER_NAME] {
        if let Some(dockerfile) = in_tree(tree, Path::new(name))? {
            return Ok(dockerfile);
        }
    }
    Err(ContextError::NoDockerfile {
        name: DEFAULT_NAME.into(),
        searched: vec!["the build context".to_owned()],
        suggestion: look_alike(tree, Path::new(DEFAULT_NAME)),
    })
}

fn read_path(path: &Path, context: &Opened, stop: &Stop) -> Result<Dockerfile, ContextError> {
    let tree = &context.tree;
    let found = if context.local {
        on_host(path, tree, stop)?.map_or_else(|| in_tree(tree, path), |found| Ok(Some(found)))?
    } else {
        in_tree(tree, path)?.map_or_else(|| on_host(path, tree, stop), |found| Ok(Some(found)))?
    };
    if let Some(dockerfile) = found {
        return Ok(dockerfile);
    }
    if path.file_name().is_some_and(|name| name == DEFAULT_NAME) {
        let lower = path.with_file_name(LOWER_NAME);
        let found = on_host(&lower, tree, stop)?.map_or_else(|| in_tree(tree, &lower), |found| Ok(Some(found)))?;
        if let Some(dockerfile) = found {
            return Ok(dockerfile);
        }
    }
    Err(ContextError::NoDockerfile {
        name: path.to_owned(),
        searched: vec!["the current directory".to_owned(), "the build context".to_owned()],
        suggestion: look_alike(tree, path),
    })
}

fn in_tree(tree: &Tree, path: &Path) -> Result<Option<Dockerfile>, ContextError> {
    let Some(bytes) = read_in_tree(tree, path)? else { return Ok(None) };
    let beside = ignore_path(path);
    let ignore_file = read_in_tree(tree, &beside)?.map(|text| (beside, text));
    Ok(Some(Dockerfile { bytes, name: path.display().to_string(), ignore_file }))
}

/// A path of the host. Inside the context it is read through the tree, so that a link someone committed leads nowhere else.
fn on_host(path: &Path, tree: &Tree, stop: &Stop) -> Result<Option<Dockerfile>, ContextError> {
    let inside = inside(path, tree).filter(|_| !input::is_descriptor(path));
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if input::is_pipe(path) && !(is_link && inside.is_some()) {
        let name = path.display().to_string();
        let mut pipe = Pipe::open(path, stop).map_err(|source| io("could not open", &name, source))?;
        let bytes = read_limited(&mut pipe, &name)?;
        return Ok(Some(Dockerfile { bytes, name, ignore_file: ignore_file_on_host(path)? }));
    }
    let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let linked = std::fs::symlink_metadata(path).is_ok();
    if let Some(inside) = inside.filter(|_| linked) {
        let found = in_tree(tree, &inside)?;
        return Ok(found.map(|found| Dockerfile { name: path.display().to_string(), ..found }));
    }
    if !regular {
        return Ok(None);
    }
    let bytes = read_host_file(path)?;
    Ok(Some(Dockerfile { bytes, name: path.display().to_string(), ignore_file: ignore_file_on_host(path)? }))
}

/// The ignore file beside a Dockerfile that is no part of the context.
fn ignore_file_on_host(dockerfile: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, ContextError> {
    let beside = ignore_path(dockerfile);
    match beside.is_file() {
        true => Ok(Some((beside.clone(), read_host_file(&beside)?))),
        false => Ok(None),
    }
}

/// `path` relative to the tree's directory when it lies in it, by its text.
fn inside(path: &Path, tree: &Tree) -> Option<PathBuf> {
    let root = lexical(&std::path::absolute(tree.path()).ok()?);
    let path = lexical(&std::path::absolute(path).ok()?);
    path.strip_prefix(root).ok().map(Path::to_owned)
}

/// Without `.` and `..`, as text.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn read_host_file(path: &Path) -> Result<Vec<u8>, ContextError> {
    let mut file = std::fs::File::open(path).map_err(|source| io("could not open", path.display(), source))?;
    read_limited(&mut file, &path.display().to_string())
}

/// `NAME.dockerignore`. The name is the one that was asked for, also where that is a link.
fn ignore_path(dockerfile: &Path) -> PathBuf {
    let mut path = dockerfile.as_os_str().to_owned();
    path.push(crate::ignore::DOCKERIGNORE);
    PathBuf::from(path)
}

/// The ignore file beside `dockerfile`, which is a path of the host or below the tree.
pub(crate) fn ignore_file_beside(dockerfile: &Path, tree: &Tree) -> Result<Option<(PathBuf, Vec<u8>)>, ContextError> {
    let path = ignore_path(dockerfile);
    if std::fs::symlink_metadata(dockerfile).is_ok() && inside(dockerfile, tree).is_none() {
        return ignore_file_on_host(dockerfile);
    }
    let below = inside(&path, tree).filter(|_| std::fs::symlink_metadata(dockerfile).is_ok()).unwrap_or(path);
    Ok(read_in_tree(tree, &below)?.map(|text| (below, text)))
}

/// The whole of `reader`, up to [`DOCKERFILE_MAX_BYTES`].
pub(crate) fn read_limited(reader: &mut dyn Read, what: &str) -> Result<Vec<u8>, ContextError> {
    let mut bytes = Vec::new();
    reader
        .take(DOCKERFILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| io("could not read", what, source))?;
    if bytes.len() as u64 > DOCKERFILE_MAX_BYTES {
        return Err(ContextError::Invalid {
            what: format!("`{what}`"),
            reason: format!("larger than {} MiB", DOCKERFILE_MAX_BYTES >> 20),
        });
    }
    Ok(bytes)
}

/// Something beside `path` in the tree whose name begins or ends like a Dockerfile's.
fn look_alike(tree: &Tree, path: &Path) -> Option<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let names = tree.read_dir(directory).or_else(|_| tree.read_dir(Path::new(""))).ok()?;
    let like = |name: &str| {
        let name = name.to_ascii_lowercase();
        let known = name.contains("dockerfile") || name.contains("containerfile");
        known && !name.ends_with(crate::ignore::DOCKERIGNORE)
    };
    let found = names.into_iter().find(|name| name.to_str().is_some_and(like))?;
    Some(directory.join(found))
}
