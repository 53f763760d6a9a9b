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
    /// Findings of the parser-level build checks (BuildKit rule names), in source order.
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
}

#[derive(Clone, Debug)]
pub enum Kind {
    Add(Copy),
    Arg(Vec<Arg>),
    Cmd(Command),
    Copy(Copy),
    Entrypoint(Command),
    /// Pairs in order. `legacy`: the form `ENV name value`.
    Env { pairs: Vec<(Word, Word)>, legacy: bool },
    Expose(Vec<Word>),
    Healthcheck(Healthcheck),
    Label { pairs: Vec<(Word, Word)>, legacy: bool },
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
    /// A here-document: `name` is the file's name, expanded unless quoted: see [`Heredoc::expand`].
    Heredoc(Heredoc),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heredoc {
    pub name: String,
    /// The body, tabs already stripped for `<<-`, not expanded.
    pub content: String,
    /// False when the delimiter was quoted.
    pub expand: bool,
    /// `<<-`
    pub chomp: bool,
    pub span: Span,
}

#[derive(Clone, Debug)]
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

/// One `RUN --mount=…`. Field values that BuildKit expands are words.
#[derive(Clone, Debug)]
pub struct Mount {
    pub span: Span,
    /// The value as written, for keys and messages.
    pub text: String,
    pub kind: MountKind,
    /// Not expanded by BuildKit.
    pub from: Option<Word>,
    pub source: Option<Word>,
    /// Required but for secret and ssh.
    pub target: Option<Word>,
    /// None: the default of the kind (bind: true, cache: false).
    pub read_only: Option<bool>,
}

#[derive(Clone, Debug)]
pub enum MountKind {
    Bind,
    Cache { id: Option<Word>, sharing: Sharing, mode: Option<u32>, uid: Option<u32>, gid: Option<u32> },
    Tmpfs { size_bytes: Option<u64> },
    Secret { id: Option<Word>, env: Option<Word>, required: bool, mode: Option<u32>, uid: Option<u32>, gid: Option<u32> },
    Ssh { id: Option<Word>, required: bool, mode: Option<u32>, uid: Option<u32>, gid: Option<u32> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}
