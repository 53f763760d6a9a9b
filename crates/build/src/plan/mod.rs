//! What will be built: arguments expanded, bases pinned, unused stages gone, configs and history complete.
//!
//! Planning reads manifests and configs of base images and nothing else; it can be printed (`--dry-run`). The rules are
//! those of BuildKit's `frontend/dockerfile/dockerfile2llb/convert.go`; a step of the plan is what an instruction that
//! touches files was lowered to, and everything else is already in the stage's config.

mod args;
mod drafts;
mod findings;
mod lower;
pub(crate) mod metadata;
mod outline;
mod print;

use dockerfile::{Heredoc, Sharing, Span};
use oci::{ImageConfig, Platform};
use rootfs::copy::Mode;
use store::Image;

pub use args::declares_epoch;
pub use drafts::{Linted, Unread, lint, outline, plan};
pub use outline::{Argument, Needed, Outline};
pub use print::{to_json, to_text};

/// A build, ready to execute. Stages stand behind those they need.
#[derive(Clone)]
pub struct Plan {
    pub stages: Vec<Stage>,
    pub target: StageId,
    /// More stages that were asked for: built, and not written anywhere.
    pub also: Vec<StageId>,
    /// Stages of the Dockerfile that no target needs, in source order.
    pub unused: Vec<Unused>,
    /// Unix seconds: what the request says, else an ARG before the first FROM.
    pub source_date_epoch: Option<i64>,
    /// Findings of the build checks, in source order.
    pub warnings: Vec<dockerfile::Diagnostic>,
}

/// A stage that is not built: no target is it, stands on it or takes files from it.
#[derive(Clone)]
pub struct Unused {
    pub name: String,
    /// Its FROM.
    pub span: Span,
}

/// Position in [`Plan::stages`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StageId(pub usize);

#[derive(Clone)]
pub struct Stage {
    /// Its name, `stage-N`, or the image it stands for when it is only copied from.
    pub name: String,
    pub base: Base,
    pub platform: Platform,
    pub steps: Vec<Step>,
    /// Complete but for what is known after execution: times and diff IDs of new layers.
    pub config: ImageConfig,
    /// How many history entries came from the base.
    pub base_history: usize,
    /// Its layers are part of the result: it is the target, or the target stands on it.
    pub layered: bool,
    /// Stages that stand on it.
    pub children: usize,
    /// Steps of other stages that take files from it.
    pub readers: usize,
}

#[derive(Clone)]
pub enum Base {
    Scratch,
    Image(Box<BaseImage>),
    Stage(StageId),
    /// A directory given as a named context under the stage's name.
    Directory(String),
}

#[derive(Clone)]
pub struct BaseImage {
    /// As people would write it.
    pub reference: String,
    pub image: Image,
}

/// One step that touches files, with the place it came from.
#[derive(Clone)]
pub struct Step {
    /// The instruction; for an ONBUILD trigger the FROM that pulled it in.
    pub span: Span,
    /// For people: the instruction with its variables expanded.
    pub title: String,
    /// It comes from an ONBUILD of the base.
    pub is_trigger: bool,
    pub action: Action,
}

#[derive(Clone)]
pub enum Action {
    Run(Run),
    Copy(Copy),
    Workdir { path: String, user: String },
}

#[derive(Clone)]
pub struct Run {
    pub args: Vec<String>,
    /// `NAME=value`: image environment, build arguments, proxies.
    pub env: crate::env::Env,
    pub cwd: String,
    /// USER as written; empty is root.
    pub user: String,
    /// What the image would say if it ended here.
    pub config: Box<oci::ContainerConfig>,
    pub mounts: Vec<Mount>,
    pub network: dockerfile::Network,
    /// A here-document that is a program of its own (`#!`): file name and content, found under /dev/pipes.
    pub script: Option<(String, String)>,
}

/// Where files are taken from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    Context,
    /// `--build-context NAME=directory`
    Named(String),
    Stage(StageId),
    /// Nothing (a cache mount that starts empty).
    Empty,
}

#[derive(Clone)]
pub struct Mount {
    /// Absolute in the rootfs.
    pub target: String,
    pub kind: MountKind,
}

#[derive(Clone)]
pub enum MountKind {
    Bind { from: Source, source: String, read_only: bool },
    Cache { id: String, from: Source, source: String, sharing: Sharing, mode: u32, uid: u32, gid: u32, read_only: bool },
    Tmpfs { size_bytes: Option<u64> },
    Secret { id: String, file: bool, env: Option<String>, required: bool, mode: u32, uid: u32, gid: u32 },
    Ssh { id: String, required: bool, mode: u32, uid: u32, gid: u32 },
}

#[derive(Clone)]
pub struct Copy {
    pub from: Source,
    pub sources: Vec<CopySource>,
    /// Absolute; a trailing `/` counts.
    pub destination: String,
    /// `user[:group]`, resolved in the stage's rootfs.
    pub chown: Option<String>,
    pub chmod: Option<Mode>,
    pub link: bool,
    pub parents: bool,
    pub exclude: dockerfile::ignore::Patterns,
    pub checksum: Option<String>,
    /// Unpack local archives.
    pub unpack_local: bool,
    /// Unpack fetched archives.
    pub unpack_remote: bool,
}

#[derive(Clone)]
pub enum CopySource {
    Path(String),
    /// Content already expanded.
    Heredoc(Heredoc),
    /// http(s) address.
    Url(String),
    Git {
        /// The address without a login.
        shown: String,
        checkout: Box<context::git::Checkout>,
    },
}

impl Plan {
    pub fn stage(&self, id: StageId) -> &Stage {
        &self.stages[id.0]
    }

    /// What COPY, ADD, mounts and FROM take of a context, as written.
    pub fn sources_from<'p>(&'p self, context: &'p Source) -> impl Iterator<Item = &'p str> {
        let all = self.stages.iter().filter(move |stage| match (&stage.base, context) {
            (Base::Directory(name), Source::Named(context)) => name == context,
            _ => false,
        });
        let steps = self.stages.iter().flat_map(|stage| &stage.steps);
        all.map(|_| "/").chain(steps.flat_map(move |step| step.action.sources_from(context)))
    }

    /// Steps that will be executed.
    pub fn steps(&self) -> usize {
        self.stages.iter().map(|s| s.steps.len()).sum()
    }
}

impl Stage {
    /// Whether anybody ever looks at its files.
    pub fn needs_files(&self) -> bool {
        !self.steps.is_empty() || self.readers > 0
    }
}

impl Source {
    pub fn stage(&self) -> Option<StageId> {
        match self {
            Source::Stage(id) => Some(*id),
            Source::Context | Source::Named(_) | Source::Empty => None,
        }
    }
}

impl Action {
    fn sources_from(&self, context: &Source) -> Vec<&str> {
        match self {
            Action::Copy(copy) if copy.from == *context => copy
                .sources
                .iter()
                .filter_map(|source| match source {
                    CopySource::Path(path) => Some(path.as_str()),
                    CopySource::Heredoc(_) | CopySource::Url(_) | CopySource::Git { .. } => None,
                })
                .collect(),
            Action::Run(run) => run
                .mounts
                .iter()
                .filter_map(|mount| match &mount.kind {
                    MountKind::Bind { from, source, .. } if from == context => Some(source.as_str()),
                    _ => None,
                })
                .collect(),
            Action::Copy(_) | Action::Workdir { .. } => Vec::new(),
        }
    }

    /// Every stage this step takes files from.
    pub fn sources(&self) -> Vec<StageId> {
        match self {
            Action::Copy(copy) => copy.from.stage().into_iter().collect(),
            Action::Workdir { .. } => Vec::new(),
            Action::Run(run) => run
                .mounts
                .iter()
                .filter_map(|mount| match &mount.kind {
                    MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.stage(),
                    MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
                })
                .collect(),
        }
    }
}
