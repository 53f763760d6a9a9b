//! What is wanted of a repository: by its address, and for a build context by settings besides.

use super::address::{GitRef, KanikoRef, Modified, Remote, is_commit};
use super::error::Fault;
use super::{Auth, GitError};

/// What of `.git` comes along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GitDir {
    No,
    /// With the one commit.
    Shallow,
    /// As kaniko clones: history, branches and tags.
    Clone {
        /// How many commits; none for all.
        depth: Option<u32>,
        single_branch: bool,
    },
}

/// How a build context is fetched, as far as its address does not say.
#[derive(Clone, Default, Debug)]
pub struct Settings {
    pub auth: Auth,
    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`
    pub keep_git_dir: bool,
    /// File times are the commit's: the build has a `SOURCE_DATE_EPOCH`.
    pub commit_times: bool,
    pub clone: CloneSettings,
}

/// kaniko's `--git`, for its `git://` addresses.
#[derive(Clone, Default, Debug)]
pub struct CloneSettings {
    pub branch: Option<String>,
    pub single_branch: bool,
    /// None for all.
    pub depth: Option<u32>,
    pub submodules: bool,
}

impl Settings {
    /// BuildKit `DetectGitContext`.
    pub fn checkout(&self, found: &GitRef) -> Checkout {
        let keep = self.keep_git_dir || found.keep_git_dir == Some(true);
        let times = if self.commit_times { Modified::Commit } else { Modified::Checkout };
        Checkout {
            git_dir: if keep { GitDir::Shallow } else { GitDir::No },
            modified: found.modified.unwrap_or(times),
            ..Checkout::of(found)
        }
    }

    /// As kaniko clones.
    ///
    /// # Errors
    /// [`GitError::TwoReferences`]
    pub fn clone_of(&self, found: &KanikoRef) -> Result<Checkout, GitError> {
        let clone = &self.clone;
        let reference = match &clone.branch {
            Some(_) if !found.reference.is_empty() => {
                return Err(GitError::TwoReferences { remote: found.remote.to_string() });
            }
            Some(branch) => branch,
            None => &found.reference,
        };
        Ok(Checkout {
            remote: found.remote.clone(),
            reference: reference.clone(),
            checksum: None,
            fetch_by_commit: false,
            commit: found.commit.clone(),
            subdir: String::new(),
            submodules: clone.submodules,
            git_dir: GitDir::Clone { depth: clone.depth, single_branch: clone.single_branch },
            modified: Modified::Checkout,
        })
    }
}

/// What is to be checked out, of where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkout {
    pub remote: Remote,
    /// Branch, tag, full name or full commit hash; empty for the default branch.
    pub reference: String,
    /// Beginning of the commit's hash, or the tag's.
    pub checksum: Option<String>,
    pub fetch_by_commit: bool,
    /// Checked out in the end instead of what the reference names.
    pub commit: Option<String>,
    pub subdir: String,
    pub submodules: bool,
    pub git_dir: GitDir,
    pub modified: Modified,
}

impl Checkout {
    /// What an address says by itself, without `.git`.
    pub fn of(found: &GitRef) -> Checkout {
        Checkout {
            remote: found.remote.clone(),
            reference: found.reference.clone(),
            checksum: found.checksum.clone(),
            fetch_by_commit: found.fetch_by_commit,
            commit: None,
            subdir: found.subdir.clone(),
            submodules: found.submodules.unwrap_or(true),
            git_dir: GitDir::No,
            modified: found.modified.unwrap_or(Modified::Checkout),
        }
    }
}

/// BuildKit `gitSourceHandler.resolveMetadata`: what can be refused without asking anybody.
pub fn check_words(wanted: &Checkout) -> Result<(), Fault> {
    let checksum = wanted.checksum.as_deref().unwrap_or("");
    if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::server(format!("invalid checksum `{checksum}`, expected the hash of a commit")));
    }
    if is_commit(&wanted.reference) {
        return match wanted.reference.starts_with(checksum) {
            true => Ok(()),
            false => Err(Fault::server(format!("expected checksum to match {checksum}, got {}", wanted.reference))),
        };
    }
    if wanted.fetch_by_commit && !is_commit(checksum) {
        return Err(Fault::server("fetch-by-commit needs the full hash of a commit, as checksum or as reference"));
    }
    Ok(())
}
