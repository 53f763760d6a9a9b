//! What a target takes from outside: arguments, secrets, SSH agents, caches. BuildKit `dockerfile2llb/outline.go`.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{Instruction, Kind, Span};

use super::{CacheMount, MountKind, Plan, StageId};
use crate::{BuildError, Request};

/// The parameters of the first target, each in source order and once by its name.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// None for a stage without a name.
    pub name: Option<String>,
    pub description: Option<String>,
    pub args: Vec<Argument>,
    pub secrets: Vec<Needed>,
    pub ssh: Vec<Needed>,
    pub caches: Vec<Needed>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Argument {
    pub name: String,
    /// With the build arguments given; none when neither they nor the Dockerfile say.
    pub value: Option<String>,
    pub description: Option<String>,
    /// The ARG.
    pub span: Span,
}

/// Something that a RUN mounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Needed {
    pub id: String,
    pub required: bool,
    /// The RUN.
    pub span: Span,
}

/// What one stage takes.
#[derive(Clone, Default)]
pub(super) struct Taken {
    /// Names from before the first FROM.
    pub globals: Vec<String>,
    args: Vec<Argument>,
    secrets: Vec<Needed>,
    ssh: Vec<Needed>,
    caches: Vec<Needed>,
}

impl Taken {
    /// An ARG of the stage; the last one of a name counts.
    pub fn argument(&mut self, name: &str, value: Option<&str>, instruction: &Instruction) {
        self.args.retain(|other| other.name != name);
        self.args.push(argument(name, value, instruction));
    }

    pub fn mount(&mut self, kind: &MountKind, span: &Span) {
        match kind {
            MountKind::Secret { id, required, .. } => add(&mut self.secrets, id, *required, span),
            MountKind::Cache(CacheMount { id, .. }) => add(&mut self.caches, id, false, span),
            MountKind::Ssh { id, required, .. } => add(&mut self.ssh, id, *required, span),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
        }
    }
}

fn argument(name: &str, value: Option<&str>, instruction: &Instruction) -> Argument {
    Argument {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        description: dockerfile::description(instruction.comment.as_deref(), name).map(str::to_owned),
        span: instruction.span.clone(),
    }
}

/// The first one of a name counts.
fn add(list: &mut Vec<Needed>, id: &str, required: bool, span: &Span) {
    if list.iter().all(|other| other.id != id) {
        list.push(Needed { id: id.to_owned(), required, span: span.clone() });
    }
}

/// Gathers what the target and the stages below and beside it take.
pub(super) fn outline(request: &Request, plan: &Plan, taken: &[Taken]) -> Result<Outline, BuildError> {
    let globals = Globals::of(request)?;
    let mut outline = Outline::default();
    let mut waiting = vec![plan.target];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let stage = plan.stage(id);
        gather(&mut outline, &taken[id.0], &globals);
        let sources: Vec<StageId> = plan.steps(stage).flat_map(|step| step.action.sources()).collect();
        waiting.extend(sources.into_iter().rev());
        waiting.extend(stage.parent);
    }
    outline.args.sort_by_key(|arg| arg.span.start);
    for list in [&mut outline.secrets, &mut outline.ssh, &mut outline.caches] {
        list.sort_by_key(|needed| needed.span.start);
    }
    if let Some(from) = target_of(request, plan) {
        let name = from.name.as_ref().map(|name| name.text.clone());
        outline.description =
            name.as_deref().and_then(|name| dockerfile::description(from.comment.as_deref(), name)).map(str::to_owned);
        outline.name = name;
    }
    Ok(outline)
}

/// The FROM of the target, which has its name unless it has none.
fn target_of<'r>(request: &'r Request, plan: &Plan) -> Option<&'r dockerfile::From> {
    let name = &plan.stage(plan.target).name;
    let stages = &request.spec.dockerfile.stages;
    let named = |stage: &dockerfile::Stage| stage.from.name.as_ref().is_some_and(|own| own.text == *name);
    stages.iter().rfind(|stage| named(stage)).map(|stage| &stage.from)
}

fn gather(outline: &mut Outline, taken: &Taken, globals: &Globals) {
    let mut args: Vec<Argument> = taken.args.clone();
    // What the stage declares itself hides what is outside.
    let used = globals.with_what_they_need(&taken.globals);
    let outer = used.into_iter().filter(|arg| taken.args.iter().all(|own| own.name != arg.name));
    args.extend(outer);
    for arg in args {
        if outline.args.iter().all(|known| known.name != arg.name) {
            outline.args.push(arg);
        }
    }
    let lists =
        [(&mut outline.secrets, &taken.secrets), (&mut outline.ssh, &taken.ssh), (&mut outline.caches, &taken.caches)];
    for (list, own) in lists {
        own.iter().for_each(|needed| add(list, &needed.id, needed.required, &needed.span));
    }
}

/// ARGs before the first FROM, with the names that their values are made of.
struct Globals {
    all: BTreeMap<String, (Argument, Vec<String>)>,
}

impl Globals {
    fn of(request: &Request) -> Result<Globals, BuildError> {
        let file = &request.spec.dockerfile;
        let mut all: BTreeMap<String, (Argument, Vec<String>)> = BTreeMap::new();
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for instruction in &file.global_args {
            let Kind::Arg(args) = &instruction.kind else { continue };
            for arg in args {
                let name = &arg.name.text;
                let (value, mut needs) = match (request.spec.build_args.get(name), &arg.default) {
                    (Some(given), _) => (Some(given.clone()), Vec::new()),
                    (None, None) => (None, Vec::new()),
                    (None, Some(default)) => {
                        let lookup = |name: &str| values.get(name).cloned();
                        let expanded = dockerfile::expand::word(&default.text, file.escape, &lookup)
                            .map_err(|e| BuildError::dockerfile(&default.span, e.to_string()))?;
                        (Some(expanded.text), expanded.set)
                    }
                };
                if needs.contains(name) {
                    needs.retain(|other| other != name);
                    needs.extend(all.get(name).map(|(_, needs)| needs.clone()).unwrap_or_default());
                }
                if let Some(value) = &value {
                    values.insert(name.clone(), value.clone());
                }
                all.insert(name.clone(), (argument(name, value.as_deref(), instruction), needs));
            }
        }
        Ok(Globals { all })
    }

    fn with_what_they_need(&self, names: &[String]) -> Vec<Argument> {
        let mut waiting: Vec<&String> = names.iter().collect();
        let mut found: BTreeMap<&str, &Argument> = BTreeMap::new();
        while let Some(name) = waiting.pop() {
            if let Some((arg, needs)) = self.all.get(name)
                && found.insert(&arg.name, arg).is_none()
            {
                waiting.extend(needs);
            }
        }
        found.into_values().cloned().collect()
    }
}
