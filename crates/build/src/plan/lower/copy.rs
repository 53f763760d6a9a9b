//! COPY and ADD to steps of the plan. BuildKit `convert_copy.go`.

use dockerfile::lint::Finding;
use dockerfile::{Span, Word};
use rootfs::copy::Mode;

use super::{At, Lowering, State, one_line, title};
use crate::BuildError;
use crate::plan::metadata::{destination, join_clean};
use crate::plan::{Action, Copy, CopySource, Source};

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
            sources.push(copy_source(state, at, source, add)?);
        }
        if from == Source::Context {
            self.check_ignored(at, &sources, if add { "Add" } else { "Copy" });
        }
        let optional = |word: &Option<Word>| word.as_ref().map(|w| at.expand(state, w)).transpose();
        let checksum = optional(&copy.checksum)?;
        if checksum.is_some() {
            check_checksum(&sources, &whole)?;
        }
        let chown = optional(&copy.chown)?.filter(|c| !c.is_empty());
        let chmod = match (optional(&copy.chmod)?, &copy.chmod) {
            (Some(text), Some(word)) if !text.is_empty() => Some(chmod(&text, &at.span(&word.span))?),
            _ => None,
        };
        // Not expanded, unlike the other flags (BuildKit: SourcesAndDest and ExcludePatterns).
        let exclude: Vec<String> = copy.exclude.iter().map(|w| w.text.clone()).collect();
        let exclude = dockerfile::ignore::Patterns::new(&exclude)
            .map_err(|e| BuildError::dockerfile(&whole, format!("--exclude: {e}")))?;
        let written = at.expand(state, &copy.destination)?;
        let text = copy_text(name, copy, chown.as_deref(), at, state, &sources, &written)?;
        // An address as it was written may hold a password.
        let fetches = sources.iter().any(|source| matches!(source, CopySource::Url(_)));
        let title = if fetches { one_line(&text) } else { title(&at.placed.instruction) };
        state.history(text, false);
        let action = Action::Copy(Copy {
            from,
            sources,
            destination: destination(&state.cwd(), &written),
            chown,
            link: copy.link,
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
        let patterns = &self.request.context.ignore.patterns;
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
                let hint = self.request.context.ignore.hint(std::path::Path::new(&clean));
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
    add: bool,
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
            return Ok(CopySource::Heredoc(heredoc));
        }
    };
    let text = at.expand(state, word)?;
    let span = at.span(&word.span);
    if is_git(&text) {
        let message = if add {
            format!("not supported yet: ADD of a git repository (`{}`)", context::display_url(&text))
        } else {
            "source can't be a git ref for COPY".to_owned()
        };
        return Err(BuildError::dockerfile(&span, message));
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        if !add {
            return Err(BuildError::dockerfile(&span, "source can't be a URL for COPY").with_hint("ADD fetches URLs"));
        }
        return Ok(CopySource::Url(text));
    }
    Ok(CopySource::Path(text))
}

/// Whether ADD would take `text` for a git repository: `git@…`, `git://`, `ssh://`, or an http(s) address whose path ends in
/// `.git` (BuildKit `dfgitutil.ParseGitRef`).
fn is_git(text: &str) -> bool {
    if text.starts_with("git://") || text.starts_with("ssh://") || text.starts_with("git+") {
        return true;
    }
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        let scp = text.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
        return scp;
    };
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    path.ends_with(".git")
}

fn check_checksum(sources: &[CopySource], span: &Span) -> Result<(), BuildError> {
    match sources {
        [CopySource::Url(_)] => Ok(()),
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
            CopySource::Url(url) => text = text + " " + &context::display_url(url),
            CopySource::Heredoc(heredoc) => text = text + " <<" + &heredoc.name,
        }
    }
    Ok(text + " " + destination)
}
