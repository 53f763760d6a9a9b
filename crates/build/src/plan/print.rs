//! The plan for people and for programs (`--dry-run`).

use std::fmt::Write as _;

use dockerfile::error::line_of;
use dockerfile::lint::is_secret_name;
use dockerfile::{Network, Sharing};
use serde_json::{Value, json};

use super::{
    Action, CacheMount, Copy, CopySource, Mount, MountKind, NodeKind, Plan, Run, Source, Stage, StageId, Step,
};
use crate::env;

/// One stage a paragraph, one step a line with what it takes below it; then what is not built. `source` is the Dockerfile's
/// text.
pub fn to_text(plan: &Plan, source: &str) -> String {
    let mut text = String::new();
    for (index, stage) in plan.stages.iter().enumerate() {
        let role = role(plan, StageId(index));
        let _ = writeln!(text, "stage {}{role}, from {}, {}", stage.name, base_text(plan, stage), stage.platform);
        for (position, step) in plan.steps(stage).enumerate() {
            let layer = if stage.layered { "layer" } else { "files" };
            let _ = writeln!(text, "  {}/{} [{layer}] {}", position + 1, stage.steps.len(), step.title);
            for line in details(plan, stage, step) {
                let _ = writeln!(text, "        {line}");
            }
        }
    }
    for unused in &plan.unused {
        let line = line_of(source, unused.span.start);
        let _ = writeln!(
            text,
            "not built: stage {} (line {line}): no target is it, stands on it or takes files from it",
            unused.name
        );
    }
    text
}

/// What a stage is for.
fn role(plan: &Plan, id: StageId) -> &'static str {
    match () {
        () if id == plan.target => " (target)",
        () if plan.also.contains(&id) => " (target, not exported)",
        () => "",
    }
}

fn base_text(plan: &Plan, stage: &Stage) -> String {
    if let Some(parent) = stage.parent {
        return format!("stage {}", plan.stage(parent).name);
    }
    match &plan.node(stage.base).kind {
        NodeKind::Scratch | NodeKind::Step { .. } => "scratch".to_owned(),
        NodeKind::Image(base) => match &base.image.digest {
            Some(digest) => format!("{} ({digest})", base.reference),
            None => base.reference.clone(),
        },
        NodeKind::Directory(name) => format!("named context {name}"),
    }
}

/// What the title of a step does not say: values of variables, places, mounts.
fn details(plan: &Plan, stage: &Stage, step: &Step) -> Vec<String> {
    match &step.action {
        Action::Workdir { .. } => Vec::new(),
        Action::Copy(copy) => vec![copy_text(plan, copy)],
        Action::Run(run) => {
            let mut lines = Vec::new();
            let mut place = format!("in {}", run.cwd);
            if !run.user.is_empty() {
                place = place + " as " + &run.user;
            }
            if let Some(network) = network(run) {
                place = place + ", network " + network;
            }
            lines.push(place);
            let args = build_args(stage, run);
            if !args.is_empty() {
                let args: Vec<String> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
                lines.push(format!("with {}", args.join(" ")));
            }
            lines.extend(run.mounts.iter().map(|mount| mount_text(plan, mount)));
            lines
        }
    }
}

fn network(run: &Run) -> Option<&'static str> {
    match run.network {
        Network::Default => None,
        Network::None => Some("none"),
        Network::Host => Some("host"),
    }
}

/// The variables of a RUN that the image does not have: build arguments, without the values of those that are called like
/// secrets. Proxies, whose addresses may hold passwords, are none.
fn build_args(stage: &Stage, run: &Run) -> Vec<(String, String)> {
    let of_image = |name: &str| stage.config.config.env.iter().any(|entry| env::split(entry).0 == name);
    let is_proxy = |name: &str| name.to_ascii_lowercase().ends_with("_proxy");
    let names = run.env.names().filter(|name| !of_image(name) && !is_proxy(name));
    let value = |name| if is_secret_name(name) { "(hidden)" } else { run.env.get(name).unwrap_or_default() };
    names.map(|name| (name.to_owned(), value(name).to_owned())).collect()
}

fn copy_text(plan: &Plan, copy: &Copy) -> String {
    let sources: Vec<String> = copy.sources.iter().map(source_name).collect();
    let has_paths = copy.sources.iter().any(|source| matches!(source, CopySource::Path(_)));
    let from = if has_paths { format!(" from {}", source_text(plan, &copy.from)) } else { String::new() };
    format!("{}{from} to {}", sources.join(" "), copy.destination)
}

fn source_name(source: &CopySource) -> String {
    match source {
        CopySource::Path(path) => path.clone(),
        CopySource::Url(url) => net::display_url(url),
        CopySource::Git { shown, .. } => shown.clone(),
        CopySource::Heredoc(heredoc) => format!("<<{}", heredoc.name),
    }
}

fn source_text(plan: &Plan, source: &Source) -> String {
    match source {
        Source::Context => "the build context".to_owned(),
        Source::Named(name) => format!("named context {name}"),
        Source::Stage(id) => format!("stage {}", plan.stage(*id).name),
        Source::Empty => "nothing".to_owned(),
    }
}

fn mount_text(plan: &Plan, mount: &Mount) -> String {
    let target = &mount.target;
    match &mount.kind {
        MountKind::Bind { from, source, read_only } => {
            let writable = if *read_only { "" } else { ", writes are discarded" };
            format!("mount bind {source} of {} at {target}{writable}", source_text(plan, from))
        }
        MountKind::Cache(CacheMount { id, sharing, .. }) => {
            format!("mount cache `{id}` at {target}, {}", sharing_name(*sharing))
        }
        MountKind::Tmpfs { size_bytes: None } => format!("mount tmpfs at {target}"),
        MountKind::Tmpfs { size_bytes: Some(size) } => format!("mount tmpfs at {target}, at most {size} bytes"),
        MountKind::Secret { id, file, env, required, .. } => {
            let at = if *file { format!(" at {target}") } else { String::new() };
            let variable = env.as_ref().map_or_else(String::new, |name| format!(" as ${name}"));
            format!("mount secret `{id}`{at}{variable}{}", if *required { ", required" } else { "" })
        }
        MountKind::Ssh { id, required, .. } => {
            format!("mount SSH agent `{id}` at {target}{}", if *required { ", required" } else { "" })
        }
    }
}

fn sharing_name(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    }
}

/// The same as JSON.
pub fn to_json(plan: &Plan, source: &str) -> Value {
    let stages = plan.stages.iter().map(|stage| {
        json!({
            "name": stage.name,
            "base": base_json(plan, stage),
            "platform": stage.platform.to_string(),
            "layered": stage.layered,
            "steps": plan.steps(stage).map(|step| step_json(plan, stage, step, source)).collect::<Vec<_>>(),
        })
    });
    let unused =
        plan.unused.iter().map(|unused| json!({ "name": unused.name, "line": line_of(source, unused.span.start) }));
    json!({
        "target": plan.stage(plan.target).name,
        "also": plan.also.iter().map(|id| plan.stage(*id).name.as_str()).collect::<Vec<_>>(),
        "stages": stages.collect::<Vec<_>>(),
        "unused": unused.collect::<Vec<_>>(),
    })
}

fn base_json(plan: &Plan, stage: &Stage) -> Value {
    if let Some(parent) = stage.parent {
        return json!({ "kind": "stage", "stage": plan.stage(parent).name });
    }
    match &plan.node(stage.base).kind {
        NodeKind::Scratch | NodeKind::Step { .. } => json!({ "kind": "scratch" }),
        NodeKind::Image(base) => json!({
            "kind": "image", "reference": base.reference,
            "digest": base.image.digest.as_ref().map(ToString::to_string),
        }),
        NodeKind::Directory(name) => json!({ "kind": "context", "context": name }),
    }
}

fn step_json(plan: &Plan, stage: &Stage, step: &Step, source: &str) -> Value {
    let mut json = json!({ "title": step.title, "line": line_of(source, step.span.start) });
    let more = match &step.action {
        Action::Workdir { path, user } => json!({ "kind": "workdir", "path": path, "user": user }),
        Action::Copy(copy) => json!({
            "kind": "copy",
            "from": source_text(plan, &copy.from),
            "sources": copy.sources.iter().map(source_name).collect::<Vec<_>>(),
            "destination": copy.destination,
            "chown": copy.chown,
            "link": copy.link,
        }),
        Action::Run(run) => json!({
            "kind": "run",
            "args": run.args,
            "cwd": run.cwd,
            "user": run.user,
            "network": network(run).unwrap_or("default"),
            "build_args": build_args(stage, run).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "mounts": run.mounts.iter().map(|mount| mount_json(plan, mount)).collect::<Vec<_>>(),
        }),
    };
    if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    json
}

fn mount_json(plan: &Plan, mount: &Mount) -> Value {
    let target = &mount.target;
    match &mount.kind {
        MountKind::Bind { from, source, read_only } => json!({
            "type": "bind", "target": target, "from": source_text(plan, from), "source": source, "readonly": read_only,
        }),
        MountKind::Cache(CacheMount { id, from, source, sharing, .. }) => json!({
            "type": "cache", "target": target, "id": id, "from": source_text(plan, from), "source": source,
            "sharing": sharing_name(*sharing),
        }),
        MountKind::Tmpfs { size_bytes } => json!({ "type": "tmpfs", "target": target, "size": size_bytes }),
        MountKind::Secret { id, file, env, required, .. } => json!({
            "type": "secret", "target": file.then_some(target), "id": id, "env": env, "required": required,
        }),
        MountKind::Ssh { id, required, .. } => {
            json!({ "type": "ssh", "target": target, "id": id, "required": required })
        }
    }
}
