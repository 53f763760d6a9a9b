//! Where COPY and ADD take files from: directories, tars, addresses; and what `.dockerignore` hides of them.
//!
//! A context is opened in three steps, since each needs the one before: [`open`] gives the files, [`read_dockerfile`] finds the
//! Dockerfile in them or elsewhere, and [`Opened::with_ignore_file`] decides what the build may see. Nothing here looks at
//! flags, the environment or standard input by itself, and no Dockerfile is parsed.

mod directory;
mod dockerfile;
mod fetch;
mod ignore;
mod input;
mod place;
mod tar;

#[cfg(test)]
mod tests;

pub use self::directory::open_dir;
pub use self::dockerfile::{DOCKERFILE_MAX_BYTES, Dockerfile, read_dockerfile};
pub use self::fetch::{Fetch, Fetched, fetch, fetch_url};
pub use self::ignore::Ignore;
pub use self::place::{GitScheme, Place};
pub use self::tar::open_tar;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git::GitError;
use net::{Net, display_url};
use rootfs::{OwnFiles, Stop, Tree};

/// An opened build context: files, and what of them the build may see.
#[derive(Clone, Debug)]
pub struct Context {
    pub tree: Arc<Tree>,
    pub ignore: Ignore,
}

/// A context whose Dockerfile and ignore file have not been looked for.
#[derive(Clone, Debug)]
pub struct Opened {
    pub tree: Arc<Tree>,
    /// For a context that was a single file: that file, which is the Dockerfile. The tree is then empty.
    pub dockerfile: Option<Dockerfile>,
    /// Whether the tree is the user's own directory; otherwise it was unpacked below the working directory.
    pub local: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("{action} `{place}`")]
    Io { action: &'static str, place: String, source: std::io::Error },
    #[error("{what}: {reason}")]
    Invalid { what: String, reason: String },
    /// There is no such Dockerfile.
    #[error("Dockerfile `{}` not found in {}", name.display(), searched.join(" or "))]
    NoDockerfile {
        name: PathBuf,
        /// Where it was looked for, in words.
        searched: Vec<String>,
        /// A file in the context that looks like one.
        suggestion: Option<PathBuf>,
    },
    #[error("not supported yet: {what}")]
    Unsupported { what: String },
    #[error("could not fetch `{url}`: {reason}")]
    Fetch { url: String, reason: String, hint: Option<Box<str>> },
    #[error(transparent)]
    Git(Box<GitError>),
    #[error(transparent)]
    Rootfs(#[from] rootfs::RootfsError),
}

impl ContextError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            ContextError::Git(error) => error.hint().map(str::to_owned),
            ContextError::Fetch { hint, .. } => hint.as_deref().map(str::to_owned),
            _ => None,
        }
    }
}

impl From<GitError> for ContextError {
    fn from(error: GitError) -> ContextError {
        ContextError::Git(Box::new(error))
    }
}

/// What opening a context may need from outside.
pub struct Sources<'a> {
    /// Standard input; none when something else reads it.
    pub stdin: Option<Box<dyn Read + Send + 'a>>,
    pub net: &'a Net,
    /// How repositories are fetched.
    pub git: &'a git::Settings,
    /// An existing directory for what is downloaded and unpacked. Whoever made it removes it.
    pub work: &'a Path,
}

impl Sources<'_> {
    /// Ends work on files when the build is cancelled.
    pub(crate) fn stop(&self) -> Stop {
        Stop::when(&[&self.net.settings().cancel])
    }

    /// Standard input, once.
    pub(crate) fn take_stdin(&mut self, wanted_for: &str) -> Result<Box<dyn Read + Send + '_>, ContextError> {
        self.stdin.take().ok_or_else(|| ContextError::Invalid {
            what: wanted_for.to_owned(),
            reason: "standard input is already taken".to_owned(),
        })
    }
}

/// Opens the context at `place`, without an ignore file yet: see [`Opened::with_ignore_file`].
///
/// Tars are unpacked below `sources.work`; a file from an address or from standard input that is no archive is a context of
/// that one Dockerfile, as for `docker build -`.
///
/// # Errors
/// [`ContextError::Unsupported`] for places that are known but cannot be used yet; [`ContextError::Fetch`] and
/// [`ContextError::Io`] with the place; [`ContextError::Invalid`] for a tar that is none.
pub fn open(place: &Place, sources: &mut Sources<'_>) -> Result<Opened, ContextError> {
    match place {
        Place::Directory(path) => directory::open(path),
        Place::Tar(path) if input::is_stdin(path) => open(&Place::Stdin, sources),
        Place::Tar(path) if input::is_pipe(path) => {
            let mut pipe = input::Pipe::open(path, &sources.stop())
                .map_err(|source| io("could not open context", path.display(), source))?;
            tar::open_stream(&mut pipe, &path.display().to_string(), sources.work, &sources.stop())
        }
        Place::Tar(path) => {
            let file =
                std::fs::File::open(path).map_err(|source| io("could not open context", path.display(), source))?;
            tar::open_file(file, &path.display().to_string(), sources.work, &sources.stop())
        }
        Place::Stdin => {
            let (work, stop) = (sources.work, sources.stop());
            let mut stdin = sources.take_stdin("could not read the context")?;
            tar::open_stream(stdin.as_mut(), "standard input", work, &stop)
        }
        Place::Http(url) => {
            let fetched = fetch_url(sources.net, url, None, sources.work)?;
            let file = std::fs::File::open(&fetched.path)
                .map_err(|source| io("could not open context", fetched.path.display(), source));
            let context = tar::open_file(file?, &display_url(url), sources.work, &sources.stop());
            // Unpacked or read: either way the download has done its part.
            let _ = std::fs::remove_file(&fetched.path);
            context
        }
        Place::Git(found) => open_git(&sources.git.checkout(found), sources),
        Place::KanikoGit(found) => open_git(&sources.git.clone_of(found)?, sources),
    }
}

fn open_git(wanted: &git::Checkout, sources: &Sources<'_>) -> Result<Opened, ContextError> {
    let done = git::check_out(sources.net, &sources.git.auth, wanted, sources.work)?;
    Ok(Opened { tree: done.tree, dockerfile: None, local: false })
}

impl Context {
    /// The context without the builder's own files, which lie in it where the work directory does.
    pub fn hiding(self, own: &Arc<OwnFiles>) -> Result<Context, ContextError> {
        Ok(Context { tree: Arc::new(self.tree.share()?.hiding(own)), ..self })
    }
}

impl Opened {
    /// Decides what the build may see: the ignore file beside `dockerfile` if it has one, wholly instead of `.dockerignore` at
    /// the root of the context, else that one.
    ///
    /// # Errors
    /// [`ContextError::Invalid`] names file, line and pattern.
    pub fn with_ignore_file(self, dockerfile: &Dockerfile) -> Result<Context, ContextError> {
        let ignore = match &dockerfile.ignore_file {
            Some((path, text)) => Ignore::parse(path, text)?,
            None => Ignore::of_tree(&self.tree)?,
        };
        Ok(Context { tree: self.tree, ignore })
    }
}

fn io(action: &'static str, place: impl std::fmt::Display, source: std::io::Error) -> ContextError {
    ContextError::Io { action, place: place.to_string(), source }
}
