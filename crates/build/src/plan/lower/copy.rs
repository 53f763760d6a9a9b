//! COPY and ADD to steps of the plan. BuildKit `convert_copy.go`.

use dockerfile::lint::Finding;
use dockerfile::{Span, Word};
use git::address::GitRef;
use git::{Checkout, GitDir};
use rootfs::copy::Mode;

use super::{At, Lowering, State, one_line, title};
use crate::plan::metadata::{destination, heredoc_file, join_clean};
use crate::plan::{Action, Copy, CopySource, Source};
use crate::{BuildError, user};

impl Lowering<'_> {
    pub(super) fn copy(
        &mut self,
        state: &mut State,
        at: &At<'_>,
        copy: &dockerfile::Copy,
        add: bool,
    ) -> Result<(), BuildError> {
        let name = if add { "ADD" } else { "COPY" };
        let whole = at.span(&at.placed.instruction.span);
        let from_span = copy.from.as_ref().map_or(whole.clone(), |w| at.span(&w.span));
        let from = at.placed.sources.first().and_then(Option::as_ref);
        let from = self.source(state, from, Source::Context, &from_span, "copy")?;
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(copy_source(state, at, source, add.then_some(copy))?);
        }
        if from == Source::Context {
            self.check_ignored(at, &sources, if add { "Add" } else { "Copy" });
        }
        let optional = |word: &Option<Word>| word.as_ref().map(|w| at.expand(state, w)).transpose();
        let checksum = optional(&copy.checksum)?.filter(|c| !c.is_empty());
        if let Some(checksum) = &checksum {
            check_checksum(&mut sources, checksum, &whole)?;
        }
        let chown = optional(&copy.chown)?.filter(|c| !c.is_empty());
        let chmod = match (optional(&copy.chmod)?, &copy.chmod) {
            (Some(text), Some(word)) if !text.is_empty() => Some(chmod(&text, &at.span(&word.span))?),
            _ => None,
        };
        // With a mode BuildKit copies as without the flag (`dispatchCopy`).
        let link = copy.link && chmod.is_none();
        if let Some(chown) = chown.as_ref().filter(|chown| link && user::has_names(chown)) {
            let message = format!("`--chown={chown}` needs numbers together with `--link`");
            return Err(BuildError::dockerfile(&whole, message)
                .with_hint("linked files know nothing of the stage that they come to, so nor do they know its users"));
        }
        // Not expanded, unlike the other flags (BuildKit: SourcesAndDest and ExcludePatterns).
        let exclude: Vec<String> = copy.exclude.iter().map(|w| w.text.clone()).collect();
        let exclude = dockerfile::ignore::Patterns::new(&exclude)
            .map_err(|e| BuildError::dockerfile(&whole, format!("--exclude: {e}")))?;
        let written = at.expand(state, &copy.destination)?;
        let text = copy_text(name, copy, chown.as_deref(), at, state, &sources, &written)?;
        // An address as it was written may hold a password.
        let fetches = sources.iter().any(|source| matches!(source, CopySource::Url(_) | CopySource::Git { .. }));
        let title = if fetches { one_line(&text) } else { title(&at.placed.instruction) };
        state.history(text, false);
        let action = Action::Copy(Copy {
            from,
            sources,
            destination: destination(&state.cwd(), &written),
            chown,
            link,
            chmod,
            parents: copy.parents,
            exclude,
            checksum,
            unpack_local: add && copy.unpack.unwrap_or(true),
            unpack_remote: copy.unpack.unwrap_or(false),
        });
        state.step(at, title, action);
        Ok(())
    }

    /// Sources that the ignore file hides as a whole. With a `!` in the file nothing is said, since what is hidden may hold what
    /// is not; the root is hidden where a pattern hides all that is in it (BuildKit `validateCopySourcePath`).
    fn check_ignored(&self, at: &At<'_>, sources: &[CopySource], instruction: &str) {
        let patterns = &self.request.backends.context.ignore.patterns;
        if patterns.has_exceptions() {
            return;
        }
        for source in sources {
            let CopySource::Path(path) = source else { continue };
            let clean = match (path.starts_with('/'), join_clean("/", path)) {
                (true, clean) => clean,
                (false, clean) if clean == "/" => ".".to_owned(),
                (false, clean) => clean[1..].to_owned(),
            };
            let is_root = clean == "." || clean == "/";
            if if is_root { patterns.hide_root() } else { patterns.excludes(clean.as_bytes()) } {
                let hint = self.request.backends.context.ignore.hint(std::path::Path::new(&clean));
                let comment = at.placed.instruction.comment.as_deref();
                let span = at.span(&at.placed.instruction.span);
                let finding = Finding::CopyIgnoredFile { instruction, path: &clean };
                self.findings.report_with_hint(finding, &span, comment, hint);
            }
        }
    }
}

fn copy_source(
    state: &State,
    at: &At<'_>,
    source: &dockerfile::CopySource,
    add: Option<&dockerfile::Copy>,
) -> Result<CopySource, BuildError> {
    let word = match source {
        dockerfile::CopySource::Path(word) => word,
        dockerfile::CopySource::Heredoc(heredoc) => {
            let mut heredoc = heredoc.clone();
            if heredoc.expand {
                let lookup = |name: &str| state.env.get(name).map(str::to_owned);
                // Always `\`, whatever the escape directive says (BuildKit `dispatch`, ExpandRaw).
                let span = at.span(&heredoc.span);
                let expanded = dockerfile::expand::heredoc_with_names(&heredoc.content, &lookup)
                    .map_err(|e| BuildError::dockerfile(&span, e.to_string()))?;
                at.report_unset(state, &expanded.unset, &span);
                heredoc.content = expanded.text;
            }
            if heredoc_file(&heredoc.name).is_none() {
                let name = &heredoc.name;
                let message = format!("a here-document cannot be called `{name}`: it is a file without directories");
                return Err(BuildError::dockerfile(&at.span(&at.placed.instruction.span), message)
                    .with_hint("put the directory into the destination"));
            }
            return Ok(CopySource::Heredoc(heredoc));
        }
    };
    let text = at.expand(state, word)?;
    let span = at.span(&word.span);
    let repository = GitRef::parse(&text)
        .map_err(|e| BuildError::dockerfile(&span, format!("git repository `{}`: {e}", net::display_url(&text))))?;
    // `github.com/…` is a path here (BuildKit `IndistinguishableFromLocal`).
    if let Some(found) = repository.filter(|found| !found.like_a_path) {
        return match add {
            Some(copy) => git_source(&text, &found, copy.keep_git_dir, &span),
            None => {
                Err(BuildError::dockerfile(&span, "source can't be a git ref for COPY").with_hint("ADD fetches them"))
            }
        };
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        if add.is_none() {
            return Err(BuildError::dockerfile(&span, "source can't be a URL for COPY").with_hint("ADD fetches URLs"));
        }
        return Ok(CopySource::Url(text));
    }
    Ok(CopySource::Path(text))
}

/// BuildKit `dispatchCopy`. There `mtime` has no effect on ADD; here it has the one it has for contexts.
fn git_source(text: &str, found: &GitRef, flag: Option<bool>, span: &Span) -> Result<CopySource, BuildError> {
    let keep = match (flag, found.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => {
            return Err(BuildError::dockerfile(span, "inconsistent keep-git-dir configuration"));
        }
        (flag, query) => query.or(flag).unwrap_or(false),
    };
    let git_dir = if keep { GitDir::Shallow } else { GitDir::No };
    let checkout = Box::new(Checkout { git_dir, ..Checkout::of(found) });
    Ok(CopySource::Git { shown: GitRef::display(text), checkout })
}

fn check_checksum(sources: &mut [CopySource], checksum: &str, span: &Span) -> Result<(), BuildError> {
    match sources {
        [CopySource::Url(_)] => Ok(()),
        [CopySource::Git { checkout, .. }] => {
            if let Some(other) = checkout.checksum.as_ref().filter(|other| *other != checksum) {
                return Err(BuildError::dockerfile(span, format!("checksum mismatch `{checksum}` != `{other}`")));
            }
            if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let message =
                    format!("invalid checksum `{checksum}` for a git repository, expected the hash of a commit");
                return Err(BuildError::dockerfile(span, message));
            }
            checkout.checksum = Some(checksum.to_owned());
            Ok(())
        }
        [_] => Err(BuildError::dockerfile(span, "checksum requires an HTTP(S) or Git source")),
        _ => Err(BuildError::dockerfile(span, "checksum can't be specified for multiple sources")),
    }
}

fn chmod(text: &str, span: &Span) -> Result<Mode, BuildError> {
    Mode::parse(text).map_err(|e| BuildError::dockerfile(span, format!("invalid --chmod mode `{text}`: {e}")))
}

fn copy_text(
    name: &str,
    copy: &dockerfile::Copy,
    chown: Option<&str>,
    at: &At<'_>,
    state: &State,
    sources: &[CopySource],
    destination: &str,
) -> Result<String, BuildError> {
    let mut text = name.to_owned();
    if copy.parents {
        text += " --parents";
    }
    if let Some(chown) = chown {
        text = text + " --chown=" + chown;
    }
    if let Some(word) = &copy.chmod {
        text = text + " --chmod=" + &at.expand(state, word)?;
    }
    for source in sources {
        match source {
            CopySource::Path(path) => text = text + " " + path,
            CopySource::Url(url) => text = text + " " + &net::display_url(url),
            CopySource::Git { shown, .. } => text = text + " " + shown,
            CopySource::Heredoc(heredoc) => text = text + " <<" + &heredoc.name,
        }
    }
    Ok(text + " " + destination)
}
