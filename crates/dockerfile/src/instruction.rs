//! One logical line to one instruction: what each instruction takes, and what is wrong with it.

mod arguments;
mod flags;

use crate::heredoc::Marker;
use crate::lex::{self, Piece};
use crate::lint::{Finding, Linter, is_lower, is_upper};
use crate::source::{Line, Source};
use crate::suggest::did_you_mean;
use crate::{
    Arg, Command, Copy, CopySource, Diagnostic, From, Healthcheck, Heredoc, Kind, Network, Onbuild, Run, Security,
    Word, ast, expand, heredoc, mount, values,
};
use arguments::Arguments;
use flags::{FlagKind, Flags};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

const NAMES: [(&str, Name); 18] = [
    ("ADD", Name::Add),
    ("ARG", Name::Arg),
    ("CMD", Name::Cmd),
    ("COPY", Name::Copy),
    ("ENTRYPOINT", Name::Entrypoint),
    ("ENV", Name::Env),
    ("EXPOSE", Name::Expose),
    ("FROM", Name::From),
    ("HEALTHCHECK", Name::Healthcheck),
    ("LABEL", Name::Label),
    ("MAINTAINER", Name::Maintainer),
    ("ONBUILD", Name::Onbuild),
    ("RUN", Name::Run),
    ("SHELL", Name::Shell),
    ("STOPSIGNAL", Name::Stopsignal),
    ("USER", Name::User),
    ("VOLUME", Name::Volume),
    ("WORKDIR", Name::Workdir),
];

impl Name {
    fn parse(text: &str) -> Option<Name> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(text)).map(|(_, name)| *name)
    }

    fn text(self) -> &'static str {
        NAMES.iter().find(|(_, name)| *name == self).map_or("", |(text, _)| text)
    }

    fn flags(self) -> &'static [(&'static str, FlagKind)] {
        use FlagKind::{Bool, List, Text};
        match self {
            Name::Add => &[
                ("chown", Text),
                ("chmod", Text),
                ("link", Bool),
                ("keep-git-dir", Bool),
                ("checksum", Text),
                ("unpack", Bool),
                ("exclude", List),
            ],
            Name::Copy => &[
                ("chown", Text),
                ("from", Text),
                ("chmod", Text),
                ("link", Bool),
                ("exclude", List),
                ("parents", Bool),
            ],
            Name::From => &[("platform", Text)],
            Name::Healthcheck => &[
                ("interval", Text),
                ("timeout", Text),
                ("start-period", Text),
                ("start-interval", Text),
                ("retries", Text),
            ],
            Name::Run => &[("mount", List), ("network", Text), ("security", Text), ("device", List)],
            Name::Arg
            | Name::Cmd
            | Name::Entrypoint
            | Name::Env
            | Name::Expose
            | Name::Label
            | Name::Maintainer
            | Name::Onbuild
            | Name::Shell
            | Name::Stopsignal
            | Name::User
            | Name::Volume
            | Name::Workdir => &[],
        }
    }
}

/// A line whose instruction is known and whose arguments are cut, before they are judged.
pub(crate) struct Statement<'l> {
    pub name: Name,
    pub line: &'l Line,
    /// The instruction's name as written.
    pub written: String,
    escape: char,
    flags: Vec<Piece>,
    arguments: Arguments,
}

/// The result of a line.
pub(crate) enum Built {
    From(From),
    Instruction(Kind),
}

impl<'l> Statement<'l> {
    /// Cuts a line.
    ///
    /// # Errors
    /// For an unknown instruction, and for arguments that do not have the instruction's form.
    pub fn read(line: &'l Line, escape: char) -> Result<Statement<'l>, Diagnostic> {
        let parts = lex::parts(&line.text, 0, escape);
        let Some(name) = Name::parse(&parts.name.text) else { return Err(unknown_instruction(line, &parts.name)) };
        let arguments = Arguments::read(name, line, parts.arguments, escape)?;
        Ok(Statement { name, line, written: parts.name.text, escape, flags: parts.flags, arguments })
    }

    /// The here-documents that follow the line.
    pub fn heredocs(&self) -> Vec<Marker> {
        match self.arguments.may_have_heredocs(self.name) {
            true => heredoc::markers(&self.line.text),
            false => Vec::new(),
        }
    }

    /// Judges the arguments.
    pub fn build(self, heredocs: Vec<Heredoc>, source: &Source, linter: &mut Linter<'_>) -> Result<Built, Diagnostic> {
        self.check_bytes(&heredocs, source)?;
        let flags = Flags::read(self.name, self.line, &self.flags)?;
        Ok(Built::Instruction(match self.name {
            Name::From => return self.from(flags, linter).map(Built::From),
            Name::Add | Name::Copy => self.copy(flags, heredocs)?,
            Name::Arg => Kind::Arg(self.args()?),
            Name::Cmd => Kind::Cmd(self.command()),
            Name::Entrypoint => Kind::Entrypoint(self.command()),
            Name::Env => {
                let (pairs, legacy) = self.pairs()?;
                Kind::Env { pairs, legacy }
            }
            Name::Label => {
                let (pairs, legacy) = self.pairs()?;
                Kind::Label { pairs, legacy }
            }
            Name::Expose => Kind::Expose(self.at_least_one()?),
            Name::Healthcheck => Kind::Healthcheck(self.healthcheck(&flags)?),
            Name::Maintainer => {
                let comment = joined(&self.line.comments);
                linter.report_with_comment(Finding::MaintainerDeprecated, &self.line.span, comment.as_deref());
                Kind::Maintainer(self.exactly_one()?.text)
            }
            Name::Onbuild => Kind::Onbuild(self.onbuild(&heredocs)?),
            Name::Run => Kind::Run(self.run(flags, heredocs)?),
            Name::Shell => Kind::Shell(self.shell()?),
            Name::Stopsignal => Kind::Stopsignal(self.exactly_one()?),
            Name::User => Kind::User(self.exactly_one()?),
            Name::Volume => Kind::Volume(self.volumes()?),
            Name::Workdir => Kind::Workdir(self.exactly_one()?),
        }))
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(message, self.line.span.clone())
    }

    fn word(&self, piece: &Piece) -> Word {
        Word { text: piece.text.clone(), span: self.line.span(piece.at.clone()) }
    }

    fn words(&self) -> Vec<Word> {
        self.arguments.pieces().iter().map(|piece| self.word(piece)).collect()
    }

    fn at_least_one(&self) -> Result<Vec<Word>, Diagnostic> {
        let words = self.words();
        match words.is_empty() {
            true => Err(self.error(format!("{} needs at least one argument", self.name.text()))),
            false => Ok(words),
        }
    }

    fn exactly_one(&self) -> Result<Word, Diagnostic> {
        let missing = || self.error(format!("{} needs exactly one argument", self.name.text()));
        self.words().into_iter().next().ok_or_else(missing)
    }

    /// Commands and names of files are bytes for the kernel, which must be what was written. Metadata may hold U+FFFD, as in
    /// BuildKit's images.
    fn check_bytes(&self, heredocs: &[Heredoc], source: &Source) -> Result<(), Diagnostic> {
        if !matches!(self.name, Name::Run | Name::Add | Name::Copy | Name::Workdir | Name::From) {
            return Ok(());
        }
        let texts = || heredocs.iter().map(|heredoc| heredoc.content.as_str()).chain([self.line.text.as_str()]);
        if texts().any(|text| source.is_damaged(text)) {
            return Err(self.error(format!("{} is not valid UTF-8", self.name.text())));
        }
        let has_nul = match self.name {
            Name::Run => texts().any(|text| text.contains('\0')),
            _ => self.line.text.contains('\0'),
        };
        if has_nul { Err(self.error(format!("{} has an invalid NUL byte", self.name.text()))) } else { Ok(()) }
    }

    fn from(&self, mut flags: Flags, linter: &mut Linter<'_>) -> Result<From, Diagnostic> {
        let comment = joined(&self.line.comments);
        let words = self.words();
        let (image, name) = match &words[..] {
            [image] => (image, None),
            [image, as_word, name] if as_word.text.eq_ignore_ascii_case("as") => (image, Some((as_word, name))),
            _ => return Err(self.error("FROM needs one argument or three (`FROM image AS name`)")),
        };
        if let Some((as_word, name)) = name {
            self.lint_stage_name(as_word, name, comment.as_deref(), linter);
        }
        Ok(From {
            span: self.line.span.clone(),
            original: self.line.text.trim().to_owned(),
            image: image.clone(),
            platform: flags.take("platform").filter(|platform| !platform.text.is_empty()),
            name: name.map(|(_, name)| stage_name(name)).transpose()?,
            comment,
        })
    }

    fn lint_stage_name(&self, as_word: &Word, name: &Word, comment: Option<&str>, linter: &mut Linter<'_>) {
        if !is_lower(&name.text) {
            linter.report_with_comment(Finding::StageNameCasing { name: &name.text }, &self.line.span, comment);
        }
        let written = &self.written;
        let fits = match (is_lower(written), is_upper(written)) {
            (true, _) => is_lower(&as_word.text),
            (_, true) => is_upper(&as_word.text),
            // ConsistentInstructionCasing has something to say already.
            (false, false) => true,
        };
        if !fits {
            let finding = Finding::FromAsCasing { from: written, as_word: &as_word.text };
            linter.report_with_comment(finding, &self.line.span, comment);
        }
    }

    fn copy(&self, mut flags: Flags, heredocs: Vec<Heredoc>) -> Result<Kind, Diagnostic> {
        let name = self.name.text();
        let mut words = self.words();
        let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
            self.error(format!("{name} needs at least two arguments: what to take and the destination"))
        })?;
        let is_exec = self.arguments.is_exec();
        if !is_exec && heredoc::marker(&destination.text).is_some() {
            let message = format!("{name} cannot take a here-document as its destination");
            return Err(Diagnostic::error(message, destination.span));
        }
        let sources = if is_exec {
            words.into_iter().map(CopySource::Path).collect()
        } else {
            self.copy_sources(words, heredocs)?
        };
        let copy = Copy {
            sources,
            destination,
            from: self.copy_from(&mut flags)?,
            chown: flags.take("chown"),
            chmod: flags.take("chmod"),
            link: flags.take_bool("link").unwrap_or(false),
            parents: flags.take_bool("parents").unwrap_or(false),
            exclude: flags.take_all("exclude"),
            checksum: flags.take("checksum"),
            keep_git_dir: flags.take_bool("keep-git-dir"),
            unpack: flags.take_bool("unpack"),
        };
        Ok(if self.name == Name::Add { Kind::Add(copy) } else { Kind::Copy(copy) })
    }

    fn copy_sources(&self, words: Vec<Word>, heredocs: Vec<Heredoc>) -> Result<Vec<CopySource>, Diagnostic> {
        let mut heredocs = heredocs.into_iter().peekable();
        let mut sources = Vec::new();
        for word in words {
            let marker = heredoc::marker(&word.text);
            let heredoc = heredocs.next_if(|next| marker.is_some_and(|marker| marker.name == next.name));
            sources.push(heredoc.map_or(CopySource::Path(word), CopySource::Heredoc));
        }
        if heredocs.next().is_some() {
            let message = format!("{} has a here-document that is none of its sources", self.name.text());
            return Err(self.error(message).with_hint("write its name without blanks right after `<<`"));
        }
        Ok(sources)
    }

    fn copy_from(&self, flags: &mut Flags) -> Result<Option<Word>, Diagnostic> {
        let Some(from) = flags.take("from").filter(|from| !from.text.is_empty()) else { return Ok(None) };
        let expanded = expand::word(&from.text, self.escape, &|_: &str| None);
        if expanded.is_ok_and(|expanded| expanded.text == from.text) {
            return Ok(Some(from));
        }
        let error = Diagnostic::error("`--from` takes no variables: its value is not expanded", from.span);
        Err(error.with_hint("give the image a name with `FROM $X AS name`, where X is an ARG before the first FROM"))
    }

    fn args(&self) -> Result<Vec<Arg>, Diagnostic> {
        let pieces = self.arguments.pieces();
        if pieces.is_empty() {
            return Err(self.error("ARG needs at least one argument"));
        }
        pieces.iter().map(|piece| self.arg(piece)).collect()
    }

    fn arg(&self, piece: &Piece) -> Result<Arg, Diagnostic> {
        let Some((name, default)) = arguments::split_pair(piece) else {
            return Ok(Arg { name: self.word(piece), default: None });
        };
        if name.text.is_empty() {
            return Err(Diagnostic::error("ARG has a blank name", self.line.span(piece.at.clone())));
        }
        Ok(Arg { name: self.word(&name), default: Some(self.word(&default)) })
    }

    fn pairs(&self) -> Result<(Vec<(Word, Word)>, bool), Diagnostic> {
        let name = self.name.text();
        let Arguments::Pairs { pairs, legacy } = &self.arguments else {
            return Err(self.error(format!("{name} needs at least one argument")));
        };
        if let Some((key, value)) = pairs.iter().find(|(key, _)| key.text.is_empty()) {
            let span = self.line.span(key.at.start..value.at.end);
            return Err(Diagnostic::error(format!("{name} has a blank name"), span));
        }
        Ok((pairs.iter().map(|(key, value)| (self.word(key), self.word(value))).collect(), *legacy))
    }

    fn command(&self) -> Command {
        self.arguments.command()
    }

    fn shell(&self) -> Result<Vec<String>, Diagnostic> {
        match self.arguments.command() {
            Command::Exec(arguments) if !arguments.is_empty() => Ok(arguments),
            Command::Shell(text) if !text.is_empty() => {
                let error = self.error("SHELL needs its arguments as a JSON array");
                Err(error.with_hint("for example `SHELL [\"/bin/bash\", \"-c\"]`"))
            }
            _ => Err(self.error("SHELL needs at least one argument")),
        }
    }

    fn volumes(&self) -> Result<Vec<Word>, Diagnostic> {
        let mut words = self.at_least_one()?;
        for word in &mut words {
            word.text = word.text.trim().to_owned();
            if word.text.is_empty() {
                return Err(Diagnostic::error("VOLUME has an empty path", word.span.clone()));
            }
        }
        Ok(words)
    }

    fn healthcheck(&self, flags: &Flags) -> Result<Healthcheck, Diagnostic> {
        let Arguments::Health { kind, command } = &self.arguments else {
            return Err(self.error("HEALTHCHECK needs at least one argument: `NONE`, or `CMD` and a command"));
        };
        let command = match kind.text.to_uppercase().as_str() {
            "NONE" if command.is_some() => return Err(self.error("HEALTHCHECK NONE takes no arguments")),
            "NONE" => None,
            "CMD" => match command.as_deref().map(Arguments::command) {
                None => return Err(self.error("HEALTHCHECK CMD needs a command")),
                Some(Command::Exec(arguments)) if arguments.is_empty() => {
                    return Err(self.error("HEALTHCHECK CMD needs a command, the array is empty"));
                }
                command => command,
            },
            _ => {
                let message = format!("unknown type `{}` of HEALTHCHECK: it is `CMD` or `NONE`", kind.text);
                return Err(Diagnostic::error(message, self.line.span(kind.at.clone())));
            }
        };
        let check = Healthcheck {
            command,
            interval: interval(flags, "interval")?,
            timeout: interval(flags, "timeout")?,
            start_period: interval(flags, "start-period")?,
            start_interval: interval(flags, "start-interval")?,
            retries: retries(flags)?,
        };
        match check.command {
            Some(_) => Ok(check),
            // Without a check there is nothing to time (BuildKit `parseHealthcheck`).
            None => Ok(Healthcheck::default()),
        }
    }

    fn onbuild(&self, heredocs: &[Heredoc]) -> Result<Onbuild, Diagnostic> {
        let Arguments::Trigger { name, .. } = &self.arguments else {
            return Err(self.error("ONBUILD needs at least one argument"));
        };
        let refused = match name.text.to_uppercase().as_str() {
            "ONBUILD" => Some("ONBUILD cannot be a trigger of ONBUILD".to_owned()),
            trigger @ ("FROM" | "MAINTAINER") => Some(format!("{trigger} is not allowed as an ONBUILD trigger")),
            _ => None,
        };
        if let Some(message) = refused {
            return Err(Diagnostic::error(message, self.line.span(name.at.clone())));
        }
        // Flags of ONBUILD itself are refused before, so the trigger is what follows the first word.
        let written = self.line.text.trim_start();
        let text = written[self.written.len()..].trim_start();
        Ok(Onbuild { text: ast::with_bodies(text, heredocs) })
    }

    fn run(&self, mut flags: Flags, heredocs: Vec<Heredoc>) -> Result<Run, Diagnostic> {
        let command = self.arguments.command();
        if command == Command::Exec(Vec::new()) {
            return Err(self.error("RUN needs a command, the array is empty"));
        }
        let network = flags.take("network").map(|word| network(&word)).transpose()?;
        let security = flags.take("security").map(|word| security(&word)).transpose()?;
        let mounts = flags.take_all("mount").iter().map(|word| self.mount(word)).collect::<Result<_, _>>()?;
        Ok(Run {
            command,
            heredocs,
            mounts,
            network: network.unwrap_or(Network::Default),
            security: security.unwrap_or(Security::Sandbox),
            devices: flags.take_all("device"),
        })
    }

    fn mount(&self, word: &Word) -> Result<ast::Mount, Diagnostic> {
        // Where quotes or escapes were taken out, parts of the value have no exact place.
        let is_exact = word.span.len() == word.text.len();
        mount::parse(&word.text, self.escape, word.span.clone(), |range| match is_exact {
            true => word.span.start + range.start..word.span.start + range.end,
            false => word.span.clone(),
        })
    }
}

fn unknown_instruction(line: &Line, name: &Piece) -> Diagnostic {
    let hint = did_you_mean(&name.text, NAMES.iter().map(|(known, _)| *known));
    // What is no Dockerfile at all can have very long words.
    let shown: String = name.text.chars().take(60).collect();
    let message = format!("unknown instruction `{shown}`");
    Diagnostic { hint, ..Diagnostic::error(message, line.span(name.at.clone())) }
}

/// Comment lines as one text.
pub(crate) fn joined(comments: &[String]) -> Option<String> {
    (!comments.is_empty()).then(|| comments.join("\n"))
}

/// The name in lower case, as all references to it are compared.
fn stage_name(name: &Word) -> Result<Word, Diagnostic> {
    let text = name.text.to_lowercase();
    let is_valid = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if is_valid {
        return Ok(Word { text, span: name.span.clone() });
    }
    let message = format!("invalid name `{}` for a build stage", name.text);
    let error = Diagnostic::error(message, name.span.clone());
    Err(error.with_hint("a stage name begins with a letter and holds letters, digits, `-`, `_` and `.`"))
}

/// Nanoseconds of a flag of HEALTHCHECK; 0 when it is not given or empty.
fn interval(flags: &Flags, name: &str) -> Result<i64, Diagnostic> {
    let Some(word) = flags.get(name).filter(|word| !word.text.is_empty()) else { return Ok(0) };
    let fail = |message: String| Diagnostic::error(message, word.span.clone());
    let ns = values::duration_ns(&word.text)
        .map_err(|why| fail(format!("invalid duration `{}` of `--{name}`: {why}", word.text)))?;
    if ns != 0 && ns < 1_000_000 {
        return Err(fail(format!("`--{name}={}` cannot be less than 1ms", word.text)));
    }
    Ok(ns)
}

fn retries(flags: &Flags) -> Result<i64, Diagnostic> {
    let Some(word) = flags.get("retries").filter(|word| !word.text.is_empty()) else { return Ok(0) };
    match word.text.parse::<i32>() {
        Ok(retries) if retries >= 0 => Ok(retries.into()),
        Ok(_) => Err(Diagnostic::error(format!("`--retries={}` cannot be negative", word.text), word.span.clone())),
        Err(_) => {
            let message = format!("invalid number `{}` of `--retries`", word.text);
            Err(Diagnostic::error(message, word.span.clone()))
        }
    }
}

fn network(word: &Word) -> Result<Network, Diagnostic> {
    match word.text.as_str() {
        "default" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => Err(unknown_value("network mode", other, word, &["default", "none", "host"])),
    }
}

fn security(word: &Word) -> Result<Security, Diagnostic> {
    match word.text.as_str() {
        "sandbox" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        other => Err(unknown_value("security mode", other, word, &["sandbox", "insecure"])),
    }
}

fn unknown_value(what: &str, value: &str, word: &Word, known: &[&str]) -> Diagnostic {
    let hint =
        did_you_mean(value, known.iter().copied()).unwrap_or_else(|| format!("it is one of {}", known.join(", ")));
    Diagnostic::error(format!("unknown {what} `{value}`"), word.span.clone()).with_hint(hint)
}
