//! Instructions to steps and config, stage by stage.

mod copy;
mod mount;

use std::collections::HashMap;

use dockerfile::lint::{Finding, is_secret_name, nearest_name, port_findings};
use dockerfile::{Command, Instruction, Kind, Program, Span, Word};
use oci::{ContainerConfig, Empty, History, ImageConfig, Platform};

use super::drafts::{Draft, DraftBase, From, Placed};
use super::findings::Findings;
use super::metadata::{expose, healthcheck, is_signal, near_signal, quoted_list, workdir};
use super::outline::Taken;
use super::{Action, MountKind, Node, NodeId, NodeKind, Plan, Run, Source, Stage, StageId, Step, args};
use crate::env::{self, Env};
use crate::{BuildError, Request};

/// What a container gets when its image says nothing (BuildKit `system.DefaultPathEnvUnix`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The comment that marks history entries of ours.
const HISTORY_COMMENT: &str = "zuwai.dockerfile.v0";

pub(super) struct Lowering<'a> {
    request: &'a Request,
    findings: &'a Findings,
    scope: &'a Env,
    drafts: &'a [Draft],
    done: HashMap<usize, StageId>,
    nodes: Vec<Node>,
    stages: Vec<Stage>,
    /// What each stage takes from outside.
    taken: Vec<Taken>,
    /// What a stage hands on to those that stand on it, beyond its config.
    ends: Vec<Inherited>,
}

/// What a stage stands on.
enum Below {
    Stage(StageId),
    Base(NodeKind),
}

#[derive(Clone, Default)]
struct Inherited {
    env: Env,
    build_args: Vec<(String, Option<String>)>,
    workdir_set: bool,
    /// See [`Draft::unknown`].
    unknown: bool,
}

/// A stage while its instructions are gone through.
struct State {
    config: ImageConfig,
    env: Env,
    build_args: Vec<(String, Option<String>)>,
    /// CMD was set in this stage, so that ENTRYPOINT leaves it alone.
    cmd_set: bool,
    /// There was a WORKDIR, here or in a stage below.
    workdir_set: bool,
    /// The base image at the bottom could not be read: nobody knows its variables.
    unknown: bool,
    steps: Vec<Step>,
    platform: Platform,
    name: String,
    index: usize,
    taken: Taken,
}

/// Marks the stages and nodes whose layers the image has.
fn mark_result(plan: &mut Plan) {
    for id in plan.path_to(plan.last(plan.target)) {
        plan.nodes[id.0].layered = true;
    }
    let mut next = Some(plan.target);
    while let Some(id) = next {
        plan.stages[id.0].layered = true;
        next = plan.stages[id.0].parent;
    }
}

impl<'a> Lowering<'a> {
    pub fn new(request: &'a Request, scope: &'a Env, drafts: &'a [Draft], findings: &'a Findings) -> Lowering<'a> {
        Lowering {
            request,
            findings,
            scope,
            drafts,
            done: HashMap::new(),
            nodes: Vec::new(),
            stages: Vec::new(),
            taken: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// The plan of `target`; other stages that are `wanted` are in it as well.
    pub fn lower(mut self, target: usize, wanted: &[usize]) -> Result<(Plan, Vec<Taken>), BuildError> {
        let mut also = Vec::new();
        for other in wanted {
            also.push(self.stage(*other)?);
        }
        let target = self.stage(target)?;
        also.retain(|other| *other != target);
        also.dedup();
        self.finish_result(target);
        let epoch = args::epoch(&self.request.spec.dockerfile, self.scope)?;
        let source_date_epoch = self.request.spec.source_date_epoch.or(epoch).or(self.request.spec.default_epoch);
        let (nodes, stages) = (self.nodes, self.stages);
        let mut plan = Plan {
            nodes,
            stages,
            target,
            also,
            unused: Vec::new(),
            proxies: args::proxies(&self.request.spec.build_args),
            source_date_epoch,
            warnings: Vec::new(),
        };
        mark_result(&mut plan);
        Ok((plan, self.taken))
    }

    /// What only the result gets: `--label`s, and the platform that was asked for by name.
    fn finish_result(&mut self, target: StageId) {
        let config = &mut self.stages[target.0].config;
        if !self.request.spec.labels.is_empty() {
            let labels = config.config.labels.get_or_insert_default();
            labels.extend(self.request.spec.labels.iter().cloned());
        }
        if let Some(platform) = &self.request.spec.platform {
            let same = config.os == platform.os && config.architecture == platform.architecture;
            platform.os.clone_into(&mut config.os);
            platform.architecture.clone_into(&mut config.architecture);
            if platform.variant.is_some() || !same {
                config.variant.clone_from(&platform.variant);
            }
        }
    }

    /// Lowers one draft and, before it, all that it needs.
    fn stage(&mut self, index: usize) -> Result<StageId, BuildError> {
        if let Some(id) = self.done.get(&index) {
            return Ok(*id);
        }
        let draft = &self.drafts[index];
        let target_platform = self.request.spec.platform.clone().unwrap_or_else(Platform::host);
        let mut platform = draft.platform.clone().unwrap_or_else(|| target_platform.clone());
        let (base, config, inherited) = match (&draft.resolved, &draft.base) {
            (Some(image), _) => {
                let config = image.image.config.clone();
                (Below::Base(NodeKind::Image(Box::new(image.clone()))), config, Inherited::default())
            }
            (None, DraftBase::Draft(below)) => {
                let below = self.stage(*below)?;
                platform = self.stages[below.0].platform.clone();
                (Below::Stage(below), self.stages[below.0].config.clone(), self.ends[below.0].clone())
            }
            (None, DraftBase::Named(name)) => {
                (Below::Base(NodeKind::Directory(name.clone())), empty_config(&platform), Inherited::default())
            }
            (None, _) => {
                // Nothing is of no platform, whatever FROM says (BuildKit `resolveReachableStages`).
                if !draft.unknown {
                    platform = target_platform;
                }
                let inherited = Inherited { unknown: draft.unknown, ..Inherited::default() };
                (Below::Base(NodeKind::Scratch), empty_config(&platform), inherited)
            }
        };
        let mut state = State::new(draft, index, config, inherited, platform);
        state.taken.globals.clone_from(&draft.globals);
        let base_history = state.config.history.len();
        for placed in &draft.instructions {
            self.instruction(&mut state, placed).map_err(|error| of_trigger(error, placed))?;
        }
        let id = StageId(self.stages.len());
        let (parent, base) = match base {
            Below::Stage(parent) => {
                let below = &self.stages[parent.0];
                (Some(parent), below.steps.last().copied().unwrap_or(below.base))
            }
            Below::Base(kind) => (None, self.base(id, kind)),
        };
        let mut steps = Vec::new();
        for step in state.steps {
            let below = steps.last().copied().unwrap_or(base);
            steps.push(self.node(id, NodeKind::Step { parent: below, step: Box::new(step) }));
        }
        self.stages.push(Stage {
            name: state.name,
            parent,
            base,
            platform: state.platform,
            steps,
            config: state.config,
            base_history,
            layered: false,
        });
        self.taken.push(state.taken);
        self.ends.push(Inherited {
            env: state.env,
            build_args: state.build_args,
            workdir_set: state.workdir_set,
            unknown: state.unknown,
        });
        self.done.insert(index, id);
        Ok(id)
    }

    /// The node of a base. Stages whose images have the same layers share one.
    fn base(&mut self, stage: StageId, kind: NodeKind) -> NodeId {
        let digests = |kind: &NodeKind| match kind {
            NodeKind::Image(base) => {
                let layers = base.image.layers.iter();
                Some(layers.map(|layer| layer.descriptor.digest.clone()).collect::<Vec<_>>())
            }
            NodeKind::Scratch | NodeKind::Directory(_) | NodeKind::Step { .. } => None,
        };
        let wanted = digests(&kind);
        let is_same = |node: &Node| wanted.is_some() && digests(&node.kind) == wanted;
        match self.nodes.iter().position(is_same) {
            Some(known) => NodeId(known),
            None => self.node(stage, kind),
        }
    }

    fn node(&mut self, stage: StageId, kind: NodeKind) -> NodeId {
        self.nodes.push(Node { stage, kind, layered: false });
        NodeId(self.nodes.len() - 1)
    }

    fn instruction(&mut self, state: &mut State, placed: &Placed) -> Result<(), BuildError> {
        let at = At { placed, escape: self.request.spec.dockerfile.escape, findings: self.findings };
        match &placed.instruction.kind {
            Kind::Add(copy) => self.copy(state, &at, copy, true),
            Kind::Copy(copy) => self.copy(state, &at, copy, false),
            Kind::Run(run) => self.run(state, &at, run),
            Kind::Workdir(path) => self.workdir(state, &at, path),
            Kind::Arg(args) => self.arg(state, &at, args),
            Kind::Env { pairs, .. } => env_instruction(state, &at, pairs),
            Kind::Label { pairs, .. } => label(state, &at, pairs),
            Kind::Cmd(command) => {
                let args = state.with_shell(command);
                state.history(format!("CMD {}", quoted_list(&args)), true);
                state.config.config.cmd = Some(args);
                // As BuildKit writes it (`dispatchCmd`); nothing but Windows looks at it.
                state.config.config.args_escaped = Some(true);
                state.cmd_set = true;
                Ok(())
            }
            Kind::Entrypoint(command) => {
                let args = state.with_shell(command);
                state.history(format!("ENTRYPOINT {}", quoted_list(&args)), true);
                state.config.config.entrypoint = Some(args);
                if !state.cmd_set {
                    state.config.config.cmd = None;
                }
                Ok(())
            }
            Kind::Expose(words) => expose_instruction(state, &at, words),
            Kind::Healthcheck(check) => {
                let check = healthcheck(check);
                state.history(format!("HEALTHCHECK {}", check.test.join(" ")), true);
                state.config.config.healthcheck = Some(check);
                Ok(())
            }
            Kind::Maintainer(name) => {
                state.history(format!("MAINTAINER {name}"), true);
                state.config.author = Some(name.clone());
                Ok(())
            }
            Kind::Onbuild(onbuild) => {
                state.config.config.on_build.get_or_insert_default().push(onbuild.text.clone());
                Ok(())
            }
            Kind::Shell(shell) => {
                state.history(format!("SHELL [{}]", shell.join(" ")), true);
                state.config.config.shell = Some(shell.clone());
                Ok(())
            }
            Kind::Stopsignal(word) => {
                let signal = at.expand(state, word)?;
                if !is_signal(&signal) {
                    let error = BuildError::dockerfile(&at.span(&word.span), format!("invalid signal `{signal}`"));
                    return Err(match near_signal(&signal) {
                        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                        None => error,
                    });
                }
                state.history(format!("STOPSIGNAL {signal}"), true);
                state.config.config.stop_signal = Some(signal);
                Ok(())
            }
            Kind::User(word) => {
                let user = at.expand(state, word)?;
                state.history(format!("USER {user}"), true);
                state.config.config.user = Some(user);
                Ok(())
            }
            Kind::Volume(words) => volume(state, &at, words),
        }
    }

    fn arg(&self, state: &mut State, at: &At<'_>, args: &[dockerfile::Arg]) -> Result<(), BuildError> {
        let mut shown = Vec::new();
        for arg in args {
            let name = &arg.name.text;
            let value = match (self.request.spec.build_args.get(name), &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(at.expand(state, default)?),
                (None, None) => self.scope.get(name).map(str::to_owned),
            };
            let is_global = arg.default.is_none() && !self.request.spec.build_args.contains_key(name);
            match is_global && value.is_some() {
                true => state.taken.globals.push(name.clone()),
                false => state.taken.argument(name, value.as_deref(), &at.placed.instruction),
            }
            if let Some(value) = value.as_ref().filter(|_| !args::is_for_builder(name)) {
                state.env.set(name, value);
            }
            shown.push(value.as_ref().map_or_else(|| name.clone(), |v| format!("{name}={v}")));
            state.build_args.push((name.clone(), value));
        }
        state.history(format!("ARG {}", shown.join(" ")), true);
        Ok(())
    }

    fn workdir(&self, state: &mut State, at: &At<'_>, word: &Word) -> Result<(), BuildError> {
        let written = at.expand(state, word)?;
        if !std::mem::replace(&mut state.workdir_set, true) && !written.starts_with('/') && at.is_ours(state, word) {
            at.report(Finding::WorkdirRelativePath { path: &written });
        }
        let path = workdir(&state.cwd(), &written);
        state.history(format!("WORKDIR {path}"), path == "/");
        state.config.config.working_dir = Some(path.clone());
        if path != "/" {
            let user = state.user();
            state.step(at, format!("WORKDIR {path}"), Action::Workdir { path, user });
        }
        Ok(())
    }

    fn run(&mut self, state: &mut State, at: &At<'_>, run: &dockerfile::Run) -> Result<(), BuildError> {
        let whole = &at.span(&at.placed.instruction.span);
        if run.security == dockerfile::Security::Insecure {
            return Err(BuildError::dockerfile(whole, "`RUN --security=insecure` is not allowed")
                .with_hint("a build without privilege cannot give what it does not have"));
        }
        if let Some(device) = run.devices.first() {
            return Err(BuildError::dockerfile(
                &at.span(&device.span),
                "`RUN --device` is not supported: a build without privilege has no devices to give",
            ));
        }
        let mut mounts = Vec::new();
        for (mount, source) in run.mounts.iter().zip(&at.placed.sources) {
            let lowered = self.mount(state, at, mount, source.as_ref(), &mounts)?;
            mounts.push(lowered);
        }
        // So that at one target they hide what else is there (BuildKit `client/llb/exec.go`, Marshal).
        mounts.sort_by_key(|mount| matches!(mount.kind, MountKind::Secret { .. } | MountKind::Ssh { .. }));
        mounts.iter().for_each(|mount| state.taken.mount(&mount.kind, whole));
        let (args, script) = state.command(run);
        state.history(format!("RUN {}", state.run_text(&args)), false);
        let env = state.env.clone();
        let (cwd, user, config) = (state.cwd(), state.user(), Box::new(state.config.config.clone()));
        let network = match run.network {
            dockerfile::Network::Default => self.request.spec.network,
            said => said,
        };
        let action = Action::Run(Run { args, env, cwd, user, config, mounts, network, script });
        state.step(at, title(&at.placed.instruction), action);
        Ok(())
    }

    /// A `--from` as a source of the plan; the stage must stand before this one.
    fn source(
        &mut self,
        state: &State,
        from: Option<&From>,
        default: Source,
        span: &Span,
        verb: &str,
    ) -> Result<Source, BuildError> {
        match from {
            None => Ok(default),
            Some(From::Empty) => Ok(Source::Empty),
            Some(From::Named(name)) => Ok(Source::Named(name.clone())),
            Some(From::Draft(index)) => {
                let draft = &self.drafts[*index];
                if draft.index.is_some() && *index >= state.index {
                    let message = format!(
                        "cannot {verb} from stage `{}`: it needs to be defined before current stage `{}`",
                        draft.name, state.name
                    );
                    return Err(BuildError::dockerfile(span, message));
                }
                self.stage(*index).map(Source::Stage)
            }
        }
    }
}

impl State {
    fn new(draft: &Draft, index: usize, config: ImageConfig, inherited: Inherited, platform: Platform) -> State {
        let mut config = config;
        config.created = None;
        config.config.on_build = None;
        if !config.config.env.iter().any(|e| env::split(e).0 == "PATH") {
            config.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let mut env = inherited.env;
        for entry in &config.config.env {
            let (name, value) = env::split(entry);
            env.set(name, value);
        }
        State {
            config,
            env,
            build_args: inherited.build_args,
            cmd_set: false,
            workdir_set: inherited.workdir_set,
            unknown: inherited.unknown,
            steps: Vec::new(),
            platform,
            name: draft.name.clone(),
            index,
            taken: Taken::default(),
        }
    }

    fn cwd(&self) -> String {
        workdir("/", self.config.config.working_dir.as_deref().unwrap_or("/"))
    }

    fn user(&self) -> String {
        self.config.config.user.clone().unwrap_or_default()
    }

    fn history(&mut self, text: String, empty_layer: bool) {
        self.config.history.push(History {
            created_by: Some(text),
            comment: Some(HISTORY_COMMENT.to_owned()),
            empty_layer,
            ..History::default()
        });
    }

    fn step(&mut self, at: &At<'_>, title: String, action: Action) {
        let is_trigger = at.placed.trigger_of.is_some();
        let title = if is_trigger { format!("ONBUILD {title}") } else { title };
        self.steps.push(Step { span: at.span(&at.placed.instruction.span), title, is_trigger, action });
    }

    fn with_shell(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(args) => args.clone(),
            Command::Shell(text) => self.shell(text),
        }
    }

    fn shell(&self, text: &str) -> Vec<String> {
        let shell = self.config.config.shell.clone().unwrap_or_default();
        let mut args = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell };
        args.push(text.to_owned());
        args
    }

    /// What RUN runs, and the script it is, when it is one of its own.
    fn command(&self, run: &dockerfile::Run) -> (Vec<String>, Option<(String, String)>) {
        match run.program() {
            Program::Exec(args) => (args, None),
            Program::Shell(text) => (self.shell(&text), None),
            Program::Script { name, content } => (self.shell(&format!("/dev/pipes/{name}")), Some((name, content))),
        }
    }

    /// BuildKit `runCommandString`: `|N NAME=value … args`.
    fn run_text(&self, args: &[String]) -> String {
        let mut shown: Vec<(String, String)> = Vec::new();
        for (name, value) in &self.build_args {
            let value = self.env.get(name).or(value.as_deref()).unwrap_or_default().to_owned();
            match shown.iter_mut().find(|(n, _)| n == name) {
                Some((_, old)) => *old = value,
                None => shown.push((name.clone(), value)),
            }
        }
        let mut parts = Vec::new();
        if !shown.is_empty() {
            parts.push(format!("|{}", shown.len()));
            parts.extend(shown.into_iter().map(|(n, v)| format!("{n}={v}")));
        }
        parts.extend(args.iter().cloned());
        parts.join(" ")
    }
}

/// Where an instruction stands, and how its words are expanded.
struct At<'a> {
    placed: &'a Placed,
    escape: char,
    findings: &'a Findings,
}

impl At<'_> {
    fn span(&self, own: &Span) -> Span {
        self.placed.trigger_of.clone().unwrap_or_else(|| own.clone())
    }

    fn expand(&self, state: &State, word: &Word) -> Result<String, BuildError> {
        let lookup = |name: &str| state.env.get(name).map(str::to_owned);
        let span = self.span(&word.span);
        let expanded = dockerfile::expand::word(&word.text, self.escape, &lookup)
            .map_err(|e| BuildError::dockerfile(&span, e.to_string()))?;
        self.report_unset(state, &expanded.unset, &span);
        Ok(expanded.text)
    }

    fn report_unset(&self, state: &State, unset: &[String], span: &Span) {
        // ARGs of BuildKit's that have no value in an environment (`nonEnvArgs`).
        let silent = |name: &str| matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE");
        let declared = |name: &String| state.build_args.iter().any(|(n, _)| n == name) || silent(name);
        for name in unset.iter().filter(|n| !state.unknown && !declared(n)) {
            let nearest = nearest_name(name, state.env.names());
            let comment = self.placed.instruction.comment.as_deref();
            self.findings.report_with_comment(Finding::UndefinedVar { name, nearest }, span, comment);
        }
    }

    /// A finding about the whole instruction.
    fn report(&self, finding: Finding<'_>) {
        let comment = self.placed.instruction.comment.as_deref();
        self.findings.report_with_comment(finding, &self.span(&self.placed.instruction.span), comment);
    }

    /// Whether it is the planner who judges a word: the parser does where there are no variables in it, and nobody can where a
    /// base image that was not read may set them. A trigger's instructions the parser has not seen.
    fn is_ours(&self, state: &State, word: &Word) -> bool {
        let is_literal = dockerfile::lint::literal(&word.text, self.escape).is_some();
        !state.unknown && (!is_literal || self.placed.trigger_of.is_some())
    }
}

fn env_instruction(state: &mut State, at: &At<'_>, pairs: &[(Word, Word)]) -> Result<(), BuildError> {
    let expanded = expand_pairs(state, at, pairs)?;
    for ((word, _), (name, _)) in pairs.iter().zip(&expanded) {
        if is_secret_name(name) && at.is_ours(state, word) {
            at.report(Finding::SecretsUsedInArgOrEnv { instruction: "ENV", name });
        }
    }
    for (name, value) in &expanded {
        state.env.set(name, value);
        env::set_in_list(&mut state.config.config.env, name, value);
    }
    state.history(pairs_text("ENV", &expanded), true);
    Ok(())
}

fn label(state: &mut State, at: &At<'_>, pairs: &[(Word, Word)]) -> Result<(), BuildError> {
    let expanded = expand_pairs(state, at, pairs)?;
    state.history(pairs_text("LABEL", &expanded), true);
    state.config.config.labels.get_or_insert_default().extend(expanded);
    Ok(())
}

/// All values see the environment as it was before the instruction.
fn expand_pairs(state: &State, at: &At<'_>, pairs: &[(Word, Word)]) -> Result<Vec<(String, String)>, BuildError> {
    pairs.iter().map(|(name, value)| Ok((at.expand(state, name)?, at.expand(state, value)?))).collect()
}

fn pairs_text(name: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(name.to_owned(), |text, (n, v)| text + " " + n + "=" + v)
}

fn expose_instruction(state: &mut State, at: &At<'_>, words: &[Word]) -> Result<(), BuildError> {
    let mut all = Vec::new();
    for word in words {
        let span = at.span(&word.span);
        let lookup = |name: &str| state.env.get(name).map(str::to_owned);
        let ports = dockerfile::expand::words(&word.text, at.escape, &lookup)
            .map_err(|e| BuildError::dockerfile(&span, e.to_string()))?;
        for port in ports {
            if at.is_ours(state, word) {
                port_findings(&port).into_iter().for_each(|finding| at.report(finding));
            }
            all.extend(expose(&port).map_err(|message| BuildError::dockerfile(&span, message))?);
        }
    }
    state.history(format!("EXPOSE [{}]", all.join(" ")), true);
    state.config.config.exposed_ports.get_or_insert_default().extend(all.into_iter().map(|p| (p, Empty {})));
    Ok(())
}

fn volume(state: &mut State, at: &At<'_>, words: &[Word]) -> Result<(), BuildError> {
    let mut paths = Vec::new();
    for word in words {
        let path = at.expand(state, word)?;
        if path.is_empty() {
            return Err(BuildError::dockerfile(&at.span(&word.span), "VOLUME specified can not be an empty string"));
        }
        paths.push(path);
    }
    state.history(format!("VOLUME [{}]", paths.join(" ")), true);
    state.config.config.volumes.get_or_insert_default().extend(paths.into_iter().map(|p| (p, Empty {})));
    Ok(())
}

/// `error` with the trigger in its words, if it is one of an ONBUILD: the place is only that of FROM.
fn of_trigger(error: BuildError, placed: &Placed) -> BuildError {
    match (&placed.trigger_of, error.place()) {
        (Some(from), Some(place)) if place.span == *from => {
            error.of_trigger(&format!("ONBUILD {}", title(&placed.instruction)))
        }
        _ => error,
    }
}

fn title(instruction: &Instruction) -> String {
    one_line(&instruction.original)
}

/// One line of at most 200 characters.
fn one_line(text: &str) -> String {
    let mut text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() > 200 {
        text = text.chars().take(199).collect::<String>() + "…";
    }
    text
}

fn empty_config(platform: &Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config: ContainerConfig { working_dir: Some("/".to_owned()), ..ContainerConfig::default() },
        ..ImageConfig::default()
    }
}
