//! What a Dockerfile says, instruction by instruction.
//!
//! A [`Word`] is text as written, quotes and `$` included; the planner expands it with [`crate::expand`]. Flags are kept as
//! words as well, because BuildKit expands most of them.

use std::ops::Range;

/// A byte range of the source text.
pub type Span = Range<usize>;

/// A piece of the source that may hold quotes, escapes and variables, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    pub text: String,
    pub span: Span,
}

/// A parsed Dockerfile. Stages are in order; index = position.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The text that spans point into: as read, without a byte order mark, lines as they were.
    pub source: String,
    /// `\` or `` ` ``.
    pub escape: char,
    /// Value of `# syntax=`.
    pub syntax: Option<Word>,
    /// Value of `# check=`.
    pub check: Option<Word>,
    /// `ARG`s before the first `FROM`.
    pub global_args: Vec<Instruction>,
    pub stages: Vec<Stage>,
    /// Options of `# check=`; the defaults when there is none.
    pub checks: crate::lint::Checks,
    /// Findings of the parser-level build checks (BuildKit rule names), in source order. What `checks` skips is left out.
    /// Some hold only for stages that are built: see [`Dockerfile::warnings_for`].
    pub warnings: Vec<crate::Diagnostic>,
}

#[derive(Clone, Debug)]
pub struct Stage {
    pub from: From,
    pub instructions: Vec<Instruction>,
}

#[derive(Clone, Debug)]
pub struct From {
    /// The whole instruction.
    pub span: Span,
    /// The instruction as BuildKit prints it (`FROM image AS name`).
    pub original: String,
    pub image: Word,
    pub platform: Option<Word>,
    /// Lower-cased stage name.
    pub name: Option<Word>,
    /// Comment lines directly above, for outlines.
    pub comment: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Instruction {
    pub kind: Kind,
    /// All of it, continuation lines and here-documents included.
    pub span: Span,
    /// Source text after joining continuation lines (comments dropped), without here-document bodies.
    pub original: String,
    /// Comment lines directly above. They may hold a `check=skip=…` for this instruction: [`crate::lint::Checks::with_comment`].
    pub comment: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Add(Copy),
    Arg(Vec<Arg>),
    Cmd(Command),
    Copy(Copy),
    Entrypoint(Command),
    /// Pairs in order. `legacy`: the form `ENV name value`.
    Env {
        pairs: Vec<(Word, Word)>,
        legacy: bool,
    },
    Expose(Vec<Word>),
    Healthcheck(Healthcheck),
    Label {
        pairs: Vec<(Word, Word)>,
        legacy: bool,
    },
    Maintainer(String),
    Onbuild(Onbuild),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

#[derive(Clone, Debug)]
pub struct Arg {
    pub name: Word,
    /// None: declared without `=`.
    pub default: Option<Word>,
}

/// Shell form (one string for the shell) or exec form (JSON array).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Shell(String),
    Exec(Vec<String>),
}

/// COPY and ADD.
#[derive(Clone, Debug)]
pub struct Copy {
    pub sources: Vec<CopySource>,
    pub destination: Word,
    /// `--from`, not expanded by BuildKit.
    pub from: Option<Word>,
    pub chown: Option<Word>,
    pub chmod: Option<Word>,
    pub link: bool,
    pub parents: bool,
    /// Patterns, not expanded by BuildKit.
    pub exclude: Vec<Word>,
    /// ADD only.
    pub checksum: Option<Word>,
    /// ADD only; none = the default for the kind of source.
    pub keep_git_dir: Option<bool>,
    /// ADD only; none = local archives are unpacked, remote ones are not.
    pub unpack: Option<bool>,
}

#[derive(Clone, Debug)]
pub enum CopySource {
    Path(Word),
    /// A here-document: `name` is the file's name, which is not expanded; the body is, as [`Heredoc::expand`] says.
    Heredoc(Heredoc),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heredoc {
    pub name: String,
    /// The body, tabs already stripped for `<<-`, not expanded.
    pub content: String,
    /// Whether COPY and ADD expand the body ([`crate::expand::heredoc`]); false when the delimiter was quoted.
    pub expand: bool,
    /// `<<-`
    pub chomp: bool,
    /// The body, from its first line to the end of its last, without the delimiter.
    pub span: Span,
    /// The body with its tabs, where `<<-` stripped some: what a shell must be given that strips them itself.
    pub raw: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Healthcheck {
    /// None: `HEALTHCHECK NONE`.
    pub command: Option<Command>,
    /// Nanoseconds; 0 = not given.
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    /// 0 = not given.
    pub retries: i64,
}

#[derive(Clone, Debug)]
pub struct Onbuild {
    /// The trigger as it goes into the image config's `OnBuild` list.
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub command: Command,
    /// Here-documents in order. With exactly one that is the whole command (`RUN <<EOF`), its body is the script.
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<Mount>,
    pub network: Network,
    pub security: Security,
    /// `--device=` values as written.
    pub devices: Vec<Word>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    Default,
    None,
    Host,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Security {
    Sandbox,
    Insecure,
}

/// One `RUN --mount=…`. Field values that BuildKit expands are words; numbers and keywords can hold variables as well, and what is
/// wrong with them is not known yet (the fields are then empty), so use [`Mount::expand`] before a mount is put to work.
#[derive(Clone, Debug)]
pub struct Mount {
    pub span: Span,
    /// The value as written, for keys and messages.
    pub text: String,
    pub kind: MountKind,
    /// Not expanded by BuildKit.
    pub from: Option<Word>,
    pub source: Option<Word>,
    /// None or empty: the working directory, or what a secret or ssh mount has for it.
    pub target: Option<Word>,
    /// None: the default of the kind (bind: true, cache: false).
    pub read_only: Option<bool>,
}

#[derive(Clone, Debug)]
pub enum MountKind {
    Bind,
    Cache {
        id: Option<Word>,
        sharing: Sharing,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Tmpfs {
        size_bytes: Option<u64>,
    },
    Secret {
        id: Option<Word>,
        env: Option<Word>,
        required: bool,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Ssh {
        id: Option<Word>,
        required: bool,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

/// What a RUN is to start, here-documents resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Program {
    /// Arguments of a program, without a shell.
    Exec(Vec<String>),
    /// One text for the stage's shell.
    Shell(String),
    /// A script with a `#!` line: a file of this name and content with mode 0755, started by the stage's shell. BuildKit puts it
    /// into a read-only mount at `/dev/pipes`.
    Script { name: String, content: String },
}

impl Run {
    /// What to start. `RUN <<EOF` alone means its body; other here-documents go to the shell behind the command that uses them.
    pub fn program(&self) -> Program {
        let text = match &self.command {
            Command::Exec(arguments) => return Program::Exec(arguments.clone()),
            Command::Shell(text) => text,
        };
        match self.heredocs.first() {
            None => Program::Shell(text.clone()),
            Some(heredoc) if crate::heredoc::marker(text).is_some() => heredoc.program(),
            Some(_) => Program::Shell(with_bodies(text, &self.heredocs)),
        }
    }
}

impl Heredoc {
    fn program(&self) -> Program {
        let content = self.content.clone();
        match content.starts_with("#!") {
            true => Program::Script { name: self.name.clone(), content },
            false => Program::Shell(content),
        }
    }

    /// The body as it stands in the source, tabs included.
    pub fn raw(&self) -> &str {
        self.raw.as_deref().unwrap_or(&self.content)
    }

    /// The first line of the body, for showing: `RUN <<EOF (apt-get update...)`.
    pub fn summary(&self) -> String {
        let body = self.content.trim();
        match body.split_once('\n') {
            Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
            None => body.to_owned(),
        }
    }
}

/// A command line with the bodies of its here-documents behind it, as a shell reads it.
pub(crate) fn with_bodies(line: &str, heredocs: &[Heredoc]) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(heredoc.raw());
        text.push_str(&heredoc.name);
    }
    text
}

impl Kind {
    /// The instruction's name in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Add(_) => "ADD",
            Kind::Arg(_) => "ARG",
            Kind::Cmd(_) => "CMD",
            Kind::Copy(_) => "COPY",
            Kind::Entrypoint(_) => "ENTRYPOINT",
            Kind::Env { .. } => "ENV",
            Kind::Expose(_) => "EXPOSE",
            Kind::Healthcheck(_) => "HEALTHCHECK",
            Kind::Label { .. } => "LABEL",
            Kind::Maintainer(_) => "MAINTAINER",
            Kind::Onbuild(_) => "ONBUILD",
            Kind::Run(_) => "RUN",
            Kind::Shell(_) => "SHELL",
            Kind::Stopsignal(_) => "STOPSIGNAL",
            Kind::User(_) => "USER",
            Kind::Volume(_) => "VOLUME",
            Kind::Workdir(_) => "WORKDIR",
        }
    }
}

impl Instruction {
    /// The instruction's name as it was written, in whatever case.
    pub fn written_name(&self) -> &str {
        self.original.split_whitespace().next().unwrap_or_else(|| self.kind.name())
    }
}

/// What comments directly above a definition say of `name`: the rest of the first line that begins with it, as in
/// BuildKit's outlines (`instructions.getDocComment`).
pub fn description<'c>(comment: Option<&'c str>, name: &str) -> Option<&'c str> {
    let about = |line: &'c str| line.strip_prefix(name)?.strip_prefix(' ');
    comment.filter(|_| !name.is_empty()).and_then(|comment| comment.lines().find_map(about))
}

impl Dockerfile {
    /// The instruction that holds a byte offset of the source, comments and here-documents included; the offset's own
    /// place where there is none.
    pub fn instruction_at(&self, offset: usize) -> Span {
        let stages = self.stages.iter().flat_map(|stage| {
            let own = stage.instructions.iter().map(|instruction| &instruction.span);
            std::iter::once(&stage.from.span).chain(own)
        });
        let globals = self.global_args.iter().map(|instruction| &instruction.span);
        let mut all = globals.chain(stages);
        all.find(|span| span.start <= offset && offset < span.end.max(span.start + 1))
            .cloned()
            .unwrap_or(offset..offset)
    }

    /// The first and last line (from 1) that BuildKit gives for a finding: those of its instruction, but for an empty
    /// continuation, which is reported where the instruction ends.
    pub fn lines_of(&self, finding: &crate::Diagnostic) -> (usize, usize) {
        let span = match finding.rule {
            Some("NoEmptyContinuation") => finding.span.clone(),
            _ => self.instruction_at(finding.span.start),
        };
        let first = crate::error::line_of(&self.source, span.start);
        let last = crate::error::line_of(&self.source, span.end.max(span.start + 1) - 1);
        (first, last.max(first))
    }

    /// The warnings that hold when `built` are the stages (by index) that are built: some of BuildKit's rules look only at those.
    pub fn warnings_for(&self, built: &[usize]) -> Vec<&crate::Diagnostic> {
        let holds = |warning: &&crate::Diagnostic| {
            let everywhere = !warning.rule.is_some_and(crate::lint::only_in_built_stages);
            everywhere || self.stage_at(warning.span.start).is_none_or(|stage| built.contains(&stage))
        };
        self.warnings.iter().filter(holds).collect()
    }

    /// The index of the stage that holds a byte offset of the source.
    pub fn stage_at(&self, offset: usize) -> Option<usize> {
        self.stages.partition_point(|stage| stage.from.span.start <= offset).checked_sub(1)
    }
}
