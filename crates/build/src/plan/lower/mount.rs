//! `RUN --mount=…` to mounts of the plan. BuildKit `convert_runmount.go`.

use dockerfile::{MountKind as Written, Word};
use oci::Hasher;

use super::{At, From, Lowering, State};
use crate::BuildError;
use crate::plan::metadata::{base_name, clean, join_clean};
use crate::plan::{Action, CacheMount, Mount, MountKind, NodeKind, Source, StageId};

/// The agent of an ssh mount without an id (BuildKit `session/sshforward/ssh.go` DefaultID).
const DEFAULT_AGENT: &str = "default";

impl Lowering<'_> {
    /// What the files of a source come of. As in BuildKit, a cache that begins with other files is another cache; what a context holds
    /// nobody knows yet.
    fn origin(&self, from: &Source) -> String {
        match from {
            Source::Empty | Source::Context => String::new(),
            Source::Named(name) => name.clone(),
            Source::Stage(id) => {
                let mut hasher = Hasher::new();
                for text in self.definition(*id) {
                    // Framed, so that no two lists are the same bytes.
                    hasher.update(&(text.len() as u64).to_le_bytes());
                    hasher.update(text.as_bytes());
                }
                format!("stage {}", hasher.finish())
            }
        }
    }

    /// The bases and instructions of a stage and all below it.
    fn definition(&self, id: StageId) -> Vec<String> {
        let stage = &self.stages[id.0];
        let mut texts = Vec::new();
        let mut next = Some(stage.steps.last().copied().unwrap_or(stage.base));
        while let Some(id) = next {
            let node = &self.nodes[id.0];
            next = node.parent();
            match &node.kind {
                NodeKind::Scratch => {}
                NodeKind::Image(base) => {
                    texts.extend(base.image.layers.iter().map(|layer| layer.diff_id.0.to_string()));
                }
                NodeKind::Directory(name) => texts.push(name.clone()),
                NodeKind::Step { step, .. } => match &step.action {
                    Action::Run(run) => texts.extend(run.args.iter().cloned()),
                    Action::Copy(_) | Action::Workdir { .. } => texts.push(step.title.clone()),
                },
            }
        }
        texts
    }

    /// `earlier` are the mounts before it in the same RUN.
    pub(super) fn mount(
        &mut self,
        state: &State,
        at: &At<'_>,
        mount: &dockerfile::Mount,
        from: Option<&From>,
        earlier: &[Mount],
    ) -> Result<Mount, BuildError> {
        let span = at.span(&mount.span);
        let mount = at.expand_mount(state, mount)?;
        let text = |word: &Option<Word>| word.as_ref().map(|w| w.text.clone());
        let target = text(&mount.target);
        let absolute = |target: &str| join_clean(&state.cwd(), target);
        // Without one it is the working directory.
        let place = || match absolute(target.as_deref().unwrap_or_default()) {
            root if root == "/" => Err(BuildError::dockerfile(&span, "invalid mount target `/`")
                .with_hint("without a `target` a mount is at the working directory")),
            path => Ok(path),
        };
        let source = join_clean("/", &text(&mount.source).unwrap_or_default());
        let (target, kind) = match &mount.kind {
            Written::Bind => {
                let from = self.source(state, from, Source::Context, &span, "mount")?;
                (place()?, MountKind::Bind { from, source, read_only: mount.read_only.unwrap_or(true) })
            }
            Written::Cache { id, sharing, mode, uid, gid } => {
                let path = place()?;
                // As written, so that a relative one is the same cache in every working directory (BuildKit `dispatchRunMounts`).
                let id = text(id).filter(|i| !i.is_empty()).unwrap_or_else(|| clean(&target.unwrap_or_default()));
                let from = self.source(state, from, Source::Empty, &span, "mount")?;
                let kind = MountKind::Cache(CacheMount {
                    id,
                    origin: self.origin(&from),
                    from,
                    source,
                    sharing: *sharing,
                    mode: mode.unwrap_or(0o755),
                    uid: uid.unwrap_or(0),
                    gid: gid.unwrap_or(0),
                    read_only: mount.read_only.unwrap_or(false),
                });
                (path, kind)
            }
            Written::Tmpfs { .. } if mount.read_only == Some(true) => {
                // Nothing that nobody can write to.
                (place()?, MountKind::Bind { from: Source::Empty, source: "/".to_owned(), read_only: true })
            }
            Written::Tmpfs { size_bytes } => (place()?, MountKind::Tmpfs { size_bytes: *size_bytes }),
            Written::Secret { id, env, required, mode, uid, gid } => {
                let env = text(env);
                let target = target.filter(|t| !t.is_empty());
                let given = |word| text(word).filter(|i| !i.is_empty());
                let id = given(id)
                    .or_else(|| given(&mount.source))
                    .unwrap_or_else(|| base_name(target.as_deref().unwrap_or_default()).to_owned());
                let path = absolute(&target.clone().unwrap_or_else(|| format!("/run/secrets/{}", base_name(&id))));
                let kind = MountKind::Secret {
                    id,
                    file: target.is_some() || env.is_none(),
                    env,
                    required: *required,
                    mode: mode.unwrap_or(0o400),
                    uid: uid.unwrap_or(0),
                    gid: gid.unwrap_or(0),
                };
                (path, kind)
            }
            Written::Ssh { id, required, mode, uid, gid } => {
                let kind = MountKind::Ssh {
                    id: text(id).filter(|id| !id.is_empty()).unwrap_or_else(|| DEFAULT_AGENT.to_owned()),
                    required: *required,
                    // BuildKit `solver/llbsolver/mounts/mount.go` sshMountInstance.Mount
                    mode: mode.unwrap_or(0o600) & 0o777,
                    uid: uid.unwrap_or(0),
                    gid: gid.unwrap_or(0),
                };
                (agent_target(target.as_deref(), earlier), kind)
            }
        };
        Ok(Mount { target, kind })
    }
}

/// Where the socket of an agent is (BuildKit `client/llb/exec.go`, Marshal). What is relative is so to `/` (runc), and the variable
/// has to be of use wherever the step is.
fn agent_target(target: Option<&str>, earlier: &[Mount]) -> String {
    let number = earlier.iter().filter(|mount| matches!(mount.kind, MountKind::Ssh { .. })).count();
    match target.filter(|target| !target.is_empty()) {
        Some(target) => join_clean("/", target),
        None => format!("/run/buildkit/ssh_agent.{number}"),
    }
}

impl At<'_> {
    /// A mount with all its values expanded; its words are final.
    fn expand_mount(&self, state: &State, mount: &dockerfile::Mount) -> Result<dockerfile::Mount, BuildError> {
        let lookup = |name: &str| state.env.get(name).map(str::to_owned);
        let mut unset = Vec::new();
        let mut expand = |text: &str| {
            let expanded = dockerfile::expand::word(text, self.escape, &lookup)?;
            unset.extend(expanded.unset);
            Ok(expanded.text)
        };
        let mounted = mount.expand(&mut expand);
        self.report_unset(state, &unset, &self.span(&mount.span));
        mounted.map_err(|fault| {
            let error = BuildError::dockerfile(&self.span(&fault.span), fault.message);
            match fault.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })
    }
}
