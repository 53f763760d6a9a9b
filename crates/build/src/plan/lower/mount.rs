//! `RUN --mount=…` to mounts of the plan. BuildKit `convert_runmount.go`.

use dockerfile::{MountKind as Written, Word};

use super::{At, From, Lowering, State};
use crate::BuildError;
use crate::plan::metadata::join_clean;
use crate::plan::{Mount, MountKind, Source};

impl Lowering<'_> {
    pub(super) fn mount(
        &mut self,
        state: &State,
        at: &At<'_>,
        mount: &dockerfile::Mount,
        from: Option<&From>,
    ) -> Result<Mount, BuildError> {
        let span = at.span(&mount.span);
        let mount = at.expand_mount(state, mount)?;
        let text = |word: &Option<Word>| word.as_ref().map(|w| w.text.clone());
        let target = text(&mount.target);
        let absolute = |target: &str| join_clean(&state.cwd(), target);
        let must = |target: &Option<String>| match target.as_deref().map(absolute) {
            None => Err(BuildError::dockerfile(&span, "mount needs a `target`")),
            Some(root) if root == "/" => Err(BuildError::dockerfile(&span, "invalid mount target `/`")),
            Some(path) => Ok(path),
        };
        let source = join_clean("/", &text(&mount.source).unwrap_or_default());
        let (target, kind) = match &mount.kind {
            Written::Bind => {
                let from = self.source(state, from, Source::Context, &span, "mount")?;
                (must(&target)?, MountKind::Bind { from, source, read_only: mount.read_only.unwrap_or(true) })
            }
            Written::Cache { id, sharing, mode, uid, gid } => {
                let path = must(&target)?;
                let id = text(id).filter(|i| !i.is_empty()).unwrap_or_else(|| path.clone());
                let from = self.source(state, from, Source::Empty, &span, "mount")?;
                let kind = MountKind::Cache {
                    id,
                    from,
                    source,
                    sharing: *sharing,
                    mode: mode.unwrap_or(0o755),
                    uid: uid.unwrap_or(0),
                    gid: gid.unwrap_or(0),
                    read_only: mount.read_only.unwrap_or(false),
                };
                (path, kind)
            }
            Written::Tmpfs { size_bytes } => (must(&target)?, MountKind::Tmpfs { size_bytes: *size_bytes }),
            Written::Secret { id, env, required, mode, uid, gid } => {
                let env = text(env);
                let id = text(id).or_else(|| text(&mount.source)).unwrap_or_else(|| {
                    target.as_deref().and_then(|t| t.rsplit('/').next()).unwrap_or_default().to_owned()
                });
                let path = absolute(&target.clone().unwrap_or_else(|| format!("/run/secrets/{id}")));
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
            Written::Ssh { .. } => {
                return Err(BuildError::dockerfile(
                    &span,
                    "not supported yet: `RUN --mount=type=ssh` (no SSH agent is forwarded)",
                ));
            }
        };
        Ok(Mount { target, kind })
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
