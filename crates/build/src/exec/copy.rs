//! COPY and ADD carried out: from contexts, stages, here-documents and addresses into a stage's rootfs.

use std::fs::File;
use std::path::PathBuf;

use context::Ignore;
use git::Checkout;
use rootfs::commit::{commit, snapshot};
use rootfs::copy::{Archives, Copied, CopyError, CopyOptions, Everything, reaches, wildcard_directory};
use rootfs::unpack::{Limits, unpack};
use rootfs::{RootfsError, Tree};

use super::{Execution, SourceTree};
use crate::plan::metadata::heredoc_file;
use crate::plan::{Copy, CopySource, Source, Step};
use crate::scratch::Scratch;
use crate::user::{self, UserError};
use crate::{BuildError, Event, Place};

impl Execution<'_> {
    /// COPY and ADD without --link: straight into the stage's rootfs.
    pub(super) fn copy_plain(&self, step: &Step, copy: &Copy, tree: &Tree) -> Result<(), BuildError> {
        let owner = self.owner(tree, step, copy)?;
        self.copy(step, copy, owner, tree)
    }

    fn owner(&self, tree: &Tree, step: &Step, copy: &Copy) -> Result<Option<(u32, u32)>, BuildError> {
        let Some(chown) = &copy.chown else { return Ok(None) };
        user::resolve_owner(tree, chown).map(Some).map_err(|error| match error {
            UserError::Rootfs { .. } => BuildError::user(&step.span, error),
            error => BuildError::dockerfile(&step.span, format!("--chown={chown}: {error}")),
        })
    }

    /// COPY --link: the files go into a layer of their own that knows nothing of what is below, and that layer is laid over
    /// the rootfs (BuildKit's merge of an independent snapshot).
    /// Without one there is nobody who needs it.
    pub(super) fn linked_layer(&self, step: &Step, copy: &Copy, rootfs: Option<&Tree>) -> Result<PathBuf, BuildError> {
        let own = self.make_tree(&self.new_file("link"))?;
        let empty = snapshot(&own, &self.new_file("record"))
            .map_err(|e| self.rootfs_error("could not record an empty rootfs", step, e))?;
        // Numbers, which mean the same everywhere.
        let owner = self.owner(&own, step, copy)?;
        self.copy(step, copy, owner, &own)?;
        let spool = self.spool(&self.no_layer(step), None, |options, writer| {
            commit(&own, Some(&empty), &self.new_file("record"), options, writer).map(|(_, committed)| committed)
        })?;
        let Some(tree) = rootfs else { return Ok(spool) };
        let limits = Limits { size_bytes: u64::MAX, entries: u64::MAX };
        let over = |source| self.rootfs_error("could not lay the linked files over the rootfs", step, source);
        let mut tar = std::io::BufReader::new(File::open(&spool).map_err(|e| over(RootfsError::Read(e)))?);
        unpack(&mut tar, tree, &limits).map_err(over)?;
        Ok(spool)
    }

    fn copy(&self, step: &Step, copy: &Copy, owner: Option<(u32, u32)>, to: &Tree) -> Result<(), BuildError> {
        let taken = self.source_tree(&copy.from)?;
        let options = CopyOptions {
            owner,
            keep_owner: taken.keep_owner,
            mode: copy.chmod.clone(),
            literal: false,
            parents: copy.parents,
            exclude: copy.exclude.clone(),
            archives: if copy.unpack_local { Archives::Unpack } else { Archives::Copy },
            keep_links: true,
            made_modified: self.plan.source_date_epoch,
            threads: self.request.control.jobs,
        };
        // In the order of the instruction, and here-documents after all others (BuildKit `dispatchCopy`).
        let (made, others): (Vec<_>, Vec<_>) =
            copy.sources.iter().partition(|source| matches!(source, CopySource::Heredoc(_)));
        for sources in others.chunk_by(|a, b| matches!((a, b), (CopySource::Path(_), CopySource::Path(_)))) {
            let path = |source: &&CopySource| match source {
                CopySource::Path(path) => Some(path.clone()),
                CopySource::Heredoc(_) | CopySource::Url(_) | CopySource::Git { .. } => None,
            };
            let paths: Vec<String> = sources.iter().filter_map(path).collect();
            if paths.is_empty() {
                sources.iter().try_for_each(|source| self.copy_made(step, copy, source, to, &options).map(drop))?;
            } else {
                self.copy_paths(step, copy, &taken, &paths, to, &options)?;
            }
        }
        made.into_iter().try_for_each(|source| self.copy_made(step, copy, source, to, &options).map(drop))
    }

    fn copy_paths(
        &self,
        step: &Step,
        copy: &Copy,
        taken: &SourceTree,
        paths: &[String],
        to: &Tree,
        options: &CopyOptions,
    ) -> Result<(), BuildError> {
        self.refuse_unsent(step, copy, taken, paths)?;
        let copied = rootfs::copy::copy(&taken.tree, taken.filter(), paths, to, &copy.destination, options)
            .map_err(|e| copy_error(e, step, &taken.name, taken.ignore.as_ref()))?;
        if copied.overwritten > 0 {
            let message = format!("several sources have one destination, the last one stays: {}", step.title);
            self.request.control.observer.event(&Event::Warning { message });
        }
        Ok(())
    }

    /// A wildcard may match nothing. But of a context BuildKit has only what some instruction takes: where that is nothing of the
    /// directory before the wildcard, the directory does not exist.
    fn refuse_unsent(&self, step: &Step, copy: &Copy, taken: &SourceTree, paths: &[String]) -> Result<(), BuildError> {
        if copy.parents || !matches!(copy.from, Source::Context | Source::Named(_)) {
            return Ok(());
        }
        for path in paths {
            let Some(directory) = wildcard_directory(path) else { continue };
            let reaches = |source: &str| {
                reaches(&taken.tree, taken.filter(), source, &directory)
                    .map_err(|e| copy_error(e, step, &taken.name, taken.ignore.as_ref()))
            };
            if reaches(path)? {
                continue;
            }
            let mut others = self.plan.sources_from(&copy.from);
            if !others.try_fold(false, |found, source| Ok::<_, BuildError>(found || reaches(source)?))? {
                let message = format!("source `{path}` matches nothing in {}", taken.name);
                return Err(BuildError::dockerfile(&step.span, message).with_hint(format!(
                    "below a directory this is an error unless something else of `{}` is taken",
                    directory.display()
                )));
            }
        }
        Ok(())
    }

    /// Here-documents, fetched files and repositories.
    fn copy_made(
        &self,
        step: &Step,
        copy: &Copy,
        source: &CopySource,
        to: &Tree,
        options: &CopyOptions,
    ) -> Result<Copied, BuildError> {
        let failed = |e| copy_error(e, step, "the build", None);
        match source {
            CopySource::Path(_) => Ok(Copied::default()),
            CopySource::Heredoc(heredoc) => {
                let mut content = heredoc.content.as_bytes();
                let name = heredoc_file(&heredoc.name).unwrap_or_default();
                rootfs::copy::write_file(to, &copy.destination, &name, &mut content, 0o644, None, options)
                    .map_err(failed)
            }
            CopySource::Url(url) => self.copy_url(step, copy, url, to, options),
            CopySource::Git { shown, checkout } => self.copy_git(step, copy, (shown, checkout), to, options),
        }
    }

    /// ADD of a git repository: the files of a commit, whatever the ignore file says.
    fn copy_git(
        &self,
        step: &Step,
        copy: &Copy,
        (shown, checkout): (&str, &Checkout),
        to: &Tree,
        options: &CopyOptions,
    ) -> Result<Copied, BuildError> {
        let action = || format!("could not add `{shown}`");
        let directory = Scratch::make(self.request, "fetched").map_err(BuildError::io(action()))?;
        let done = git::check_out(&self.request.backends.net, &self.request.git_auth(), checkout, directory.path())
            .map_err(|error| BuildError::Context {
                action: action(),
                place: Some(Place { span: step.span.clone() }),
                source: error.into(),
            })?;
        // The files themselves were asked for, not what archives among them hold; there is no path for `--parents` to keep.
        let options = CopyOptions { archives: Archives::Copy, parents: false, ..options.clone() };
        let all = ["/".to_owned()];
        rootfs::copy::copy(&done.tree, &Everything, &all, to, &copy.destination, &options)
            .map_err(|e| copy_error(e, step, "the repository", None))
    }

    /// ADD of an address: a file of mode 0600 with the server's time, or what is in it with `--unpack`.
    fn copy_url(
        &self,
        step: &Step,
        copy: &Copy,
        url: &str,
        to: &Tree,
        options: &CopyOptions,
    ) -> Result<Copied, BuildError> {
        let action = || format!("could not add `{}`", net::display_url(url));
        let failed = |e| copy_error(e, step, "the download", None);
        let directory = Scratch::make(self.request, "fetched").map_err(BuildError::io(action()))?;
        let net = &self.request.backends.net;
        let fetched = context::fetch_url(net, url, copy.checksum.as_deref(), directory.path()).map_err(|source| {
            BuildError::Context { action: action(), place: Some(Place { span: step.span.clone() }), source }
        })?;
        let archives = if copy.unpack_remote { Archives::Unpack } else { Archives::Copy };
        let options = CopyOptions { archives, ..options.clone() };
        let file = File::open(&fetched.path).map_err(BuildError::io(action()))?;
        let (name, modified) = (&fetched.file_name, Some(fetched.modified));
        rootfs::copy::add_file(to, &copy.destination, name, file, 0o600, modified, &options).map_err(failed)
    }
}

/// A copy without flags.
pub fn copy_options(owner: Option<(u32, u32)>, keep_owner: bool) -> CopyOptions {
    CopyOptions {
        owner,
        keep_owner,
        mode: None,
        literal: false,
        parents: false,
        exclude: dockerfile::ignore::Patterns::default(),
        archives: Archives::Copy,
        keep_links: true,
        made_modified: None,
        threads: 1,
    }
}

/// A failed copy in words, with the ignore file's line where that is the cause.
pub fn copy_error(error: CopyError, step: &Step, from: &str, ignore: Option<&Ignore>) -> BuildError {
    match error {
        CopyError::NotFound { path, excluded, suggestion } => {
            let message = format!("source `{}` does not exist in {from}", path.display());
            let error = BuildError::dockerfile(&step.span, message);
            let hidden = ignore.filter(|_| excluded).and_then(|i| i.hint(&path));
            let near = suggestion.map(|near| format!("did you mean `{}`?", near.display()));
            match hidden.or(near) {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        }
        CopyError::Refused { message } => BuildError::dockerfile(&step.span, message),
        CopyError::Rootfs(RootfsError::Cancelled) => BuildError::Stopped,
        CopyError::Rootfs(source) => BuildError::Rootfs {
            action: format!("could not copy from {from}"),
            place: Some(Place { span: step.span.clone() }),
            source,
        },
    }
}
