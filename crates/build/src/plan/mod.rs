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

/// A build, ready to execute: a graph of nodes, and stages as names for paths through it.
#[derive(Clone)]
pub struct Plan {
    /// Each stands behind all that it needs.
    pub nodes: Vec<Node>,
    /// Each stands behind those that it needs.
    pub stages: Vec<Stage>,
    pub target: StageId,
    /// More stages that were asked for: built, and not written anywhere.
    pub also: Vec<StageId>,
    /// Stages of the Dockerfile that no target needs, in source order.
    pub unused: Vec<Unused>,
    /// Proxy variables of every RUN, which no result depends on.
    pub proxies: Vec<(String, String)>,
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

/// Position in [`Plan::nodes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub usize);

/// A rootfs that a build comes by: a base, or what a step makes of another node's.
#[derive(Clone)]
pub struct Node {
    /// The stage it is of; of a base the first one, since others can share it.
    pub stage: StageId,
    pub kind: NodeKind,
    /// Its layers are part of the result: the target's path leads over it.
    pub layered: bool,
}

#[derive(Clone)]
pub enum NodeKind {
    Scratch,
    Image(Box<BaseImage>),
    /// A directory given as a named context under the stage's name.
    Directory(String),
    Step {
        parent: NodeId,
        step: Box<Step>,
    },
}

#[derive(Clone)]
pub struct Stage {
    /// Its name, `stage-N`, or the image it stands for when it is only copied from.
    pub name: String,
    /// The stage that it stands on, where its FROM names one.
    pub parent: Option<StageId>,
    /// What it begins with: its base, or the last node of its parent.
    pub base: NodeId,
    pub platform: Platform,
    /// A node for each step, in order.
    pub steps: Vec<NodeId>,
    /// Complete but for what is known after execution: times and diff IDs of new layers.
    pub config: ImageConfig,
    /// How many history entries came from the base.
    pub base_history: usize,
    /// Its layers are part of the result: it is the target, or the target stands on it.
    pub layered: bool,
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
    /// `NAME=value`: image environment and build arguments. What the builder adds is in [`Run::environment`].
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
pub struct CacheMount {
    pub id: String,
    /// What it holds at first.
    pub from: Source,
    /// Names that: the bases and instructions of a stage, a context's name, or nothing.
    pub origin: String,
    pub source: String,
    pub sharing: Sharing,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub read_only: bool,
}

#[derive(Clone)]
pub enum MountKind {
    Bind { from: Source, source: String, read_only: bool },
    Cache(CacheMount),
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
        checkout: Box<git::Checkout>,
    },
}

impl Plan {
    pub fn stage(&self, id: StageId) -> &Stage {
        &self.stages[id.0]
    }

    /// What COPY, ADD, mounts and FROM take of a context, as written.
    pub fn sources_from<'p>(&'p self, context: &'p Source) -> impl Iterator<Item = &'p str> {
        self.nodes.iter().flat_map(move |node| match (&node.kind, context) {
            (NodeKind::Directory(name), Source::Named(context)) if name == context => vec!["/"],
            (NodeKind::Step { step, .. }, context) => step.action.sources_from(context),
            _ => Vec::new(),
        })
    }

    /// How many steps will be executed.
    pub fn step_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.step().is_some()).count()
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node that a stage ends with.
    pub fn last(&self, stage: StageId) -> NodeId {
        let stage = self.stage(stage);
        stage.steps.last().copied().unwrap_or(stage.base)
    }

    pub fn steps(&self, stage: &Stage) -> impl Iterator<Item = &Step> {
        stage.steps.iter().filter_map(|id| self.node(*id).step())
    }

    /// A node and all below it, from the base up.
    pub fn path_to(&self, id: NodeId) -> Vec<NodeId> {
        let below = |id: &NodeId| self.node(*id).parent();
        let mut path: Vec<NodeId> = std::iter::successors(Some(id), below).collect();
        path.reverse();
        path
    }
}

impl Node {
    pub fn step(&self) -> Option<&Step> {
        match &self.kind {
            NodeKind::Step { step, .. } => Some(step),
            NodeKind::Scratch | NodeKind::Image(_) | NodeKind::Directory(_) => None,
        }
    }

    /// The node whose rootfs it changes; none for a base.
    pub fn parent(&self) -> Option<NodeId> {
        match &self.kind {
            NodeKind::Step { parent, .. } => Some(*parent),
            NodeKind::Scratch | NodeKind::Image(_) | NodeKind::Directory(_) => None,
        }
    }
}

impl Run {
    /// All variables of the process but `HOME` and those of secrets.
    ///
    /// Proxies win over ENV (BuildKit `solver/llbsolver/ops/exec.go`, `proxyEnvList`). The one that leads to the first agent does not, and
    /// is there also where the agent was not given (`client/llb/exec.go`, Marshal).
    pub fn environment(&self, proxies: &[(String, String)]) -> crate::env::Env {
        const AGENT: &str = "SSH_AUTH_SOCK";
        let mut env = self.env.clone();
        for (name, value) in proxies {
            env.set(name, value);
        }
        let first = self.mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
        if let Some(first) = first.filter(|_| env.get(AGENT).is_none()) {
            env.set(AGENT, &first.target);
        }
        env
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
                    MountKind::Bind { from, .. } | MountKind::Cache(CacheMount { from, .. }) => from.stage(),
                    MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
                })
                .collect(),
        }
    }
}
