//! Which stages there are, what they stand on, who reads whom; then each one lowered in order.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::lint::{Finding, nearest_name};
use dockerfile::{Diagnostic, Instruction, Kind, Span, Word};
use oci::{Platform, Reference};
use store::StoreError;

use super::findings::Findings;
use super::lower::Lowering;
use super::metadata::nearest;
use super::outline::{self, Outline, Taken};
use super::{BaseImage, Plan, Unused, args};
use crate::env::Env;
use crate::request::NamedContext;
use crate::{BuildError, Place, Request};

/// Images that many builds stand on, for suggestions.
const KNOWN_IMAGES: [&str; 16] = [
    "alpine",
    "busybox",
    "debian",
    "ubuntu",
    "fedora",
    "rockylinux",
    "golang",
    "rust",
    "python",
    "node",
    "ruby",
    "php",
    "eclipse-temurin",
    "nginx",
    "postgres",
    "redis",
];

/// A stage before its base is known.
pub(super) struct Draft {
    pub name: String,
    /// `AS name` was written: `stage-N` is for showing alone.
    pub is_named: bool,
    pub span: Span,
    pub base: DraftBase,
    pub platform: Option<Platform>,
    pub instructions: Vec<Placed>,
    /// Its place among the Dockerfile's stages; none for an image that is only copied from.
    pub index: Option<usize>,
    pub resolved: Option<BaseImage>,
    /// Its base image could not be read, which only a lint bears.
    pub unknown: bool,
    /// Variables of its FROM line.
    pub globals: Vec<String>,
    triggers_added: bool,
}

pub(super) enum DraftBase {
    Scratch,
    Draft(usize),
    Named(String),
    Image(String),
}

/// An instruction with the drafts that its `--from`s mean.
#[derive(Clone)]
pub(super) struct Placed {
    pub instruction: Instruction,
    /// For a trigger: the FROM that pulled it in; spans inside the instruction mean nothing then.
    pub trigger_of: Option<Span>,
    /// COPY: one; RUN: one a mount. None = not from a stage or image.
    pub sources: Vec<Option<From>>,
}

#[derive(Clone)]
pub(super) enum From {
    Draft(usize),
    Named(String),
    Empty,
}

/// Plans `request`: see [`super`].
///
/// # Errors
/// Anything in the Dockerfile that cannot be carried out, and base images that cannot be found.
pub fn plan(request: &Request) -> Result<Plan, BuildError> {
    let findings = Findings::new(request);
    let (mut plan, _) = make(request, &findings, Purpose::Build)?;
    match findings.as_error(&plan.warnings) {
        Some(error) => Err(error),
        None => {
            plan.unused.sort_by_key(|unused| unused.span.start);
            Ok(plan)
        }
    }
}

/// What [`lint`] finds.
pub struct Linted {
    /// In source order.
    pub findings: Vec<Diagnostic>,
    /// Base images that could not be read. What depends on them was not checked: their platform, and variables and SHELL that
    /// they may set.
    pub unread: Vec<Unread>,
    /// What would end a build, findings with `error=true` included. What stands behind it was not looked at by every rule.
    pub error: Option<BuildError>,
}

/// A base image that a lint did without.
pub struct Unread {
    /// As in the Dockerfile, variables expanded.
    pub image: String,
    /// The FROM, or the instruction with the `--from`.
    pub span: Span,
    pub why: StoreError,
}

/// Goes through all checks: of every stage, or of what the targets need where some are named (BuildKit `DockerfileLint`).
pub fn lint(request: &Request) -> Linted {
    let findings = Findings::new(request);
    let (all, error) = match make(request, &findings, Purpose::Lint) {
        Ok((plan, _)) => {
            let error = findings.as_error(&plan.warnings);
            (plan.warnings, error)
        }
        Err(error) => {
            let every: Vec<usize> = (0..request.spec.dockerfile.stages.len()).collect();
            (findings.all(request, &every, &[]), Some(error))
        }
    };
    Linted { findings: all, unread: findings.unread.take(), error }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Build,
    Lint,
    Outline,
}

/// What the target takes from outside: arguments, secrets, agents, caches (BuildKit's subrequest `outline`). Base images that
/// cannot be read are done without.
///
/// # Errors
/// As those of [`plan`], but for base images.
pub fn outline(request: &Request) -> Result<Outline, BuildError> {
    let (plan, taken) = make(request, &Findings::new(request), Purpose::Outline)?;
    outline::outline(request, &plan, &taken)
}

fn make(request: &Request, findings: &Findings, purpose: Purpose) -> Result<(Plan, Vec<Taken>), BuildError> {
    let mut drafts = Drafts::new(request, findings, purpose)?;
    let targets = drafts.targets()?;
    drafts.link_all()?;
    drafts.refuse_cycles()?;
    let wanted = match (purpose, &request.spec.target) {
        (Purpose::Lint, None) => (0..request.spec.dockerfile.stages.len()).collect(),
        _ => targets.clone(),
    };
    drafts.resolve_from(&wanted)?;
    drafts.check_platforms(&wanted);
    let lowering = Lowering::new(request, &drafts.scope, &drafts.list, findings);
    let (mut plan, taken) = lowering.lower(targets[0], &wanted)?;
    let reachable = drafts.reachable(&wanted);
    let built: Vec<usize> = reachable.iter().filter_map(|draft| drafts.list[*draft].index).collect();
    let shells: Vec<usize> = built.iter().copied().filter(|stage| drafts.has_shell(*stage)).collect();
    plan.warnings = findings.all(request, &built, &shells);
    let unused = drafts.list.iter().enumerate().filter(|(at, draft)| draft.index.is_some() && !reachable.contains(at));
    plan.unused = unused.map(|(_, draft)| Unused { name: draft.name.clone(), span: draft.span.clone() }).collect();
    Ok((plan, taken))
}

struct Drafts<'a> {
    request: &'a Request,
    purpose: Purpose,
    scope: Env,
    target_platform: Platform,
    list: Vec<Draft>,
    findings: &'a Findings,
}

impl<'a> Drafts<'a> {
    fn new(request: &'a Request, findings: &'a Findings, purpose: Purpose) -> Result<Drafts<'a>, BuildError> {
        let file = &request.spec.dockerfile;
        let last = file.stages.last().and_then(|s| s.from.name.as_ref()).map_or("", |n| n.text.as_str());
        let target = request.spec.target.as_deref().unwrap_or(last);
        let target_platform = request.spec.platform.clone().unwrap_or_else(Platform::host);
        let scope = args::global_scope(file, &request.spec.build_args, &target_platform, target)?;
        let defaults = args::global_scope(file, &BTreeMap::new(), &target_platform, target);
        let mut drafts = Drafts { request, purpose, scope, target_platform, list: Vec::new(), findings };
        if let Ok(defaults) = defaults {
            drafts.check_defaults(&defaults);
        }
        for (index, stage) in file.stages.iter().enumerate() {
            let draft = drafts.draft(index, stage)?;
            drafts.list.push(draft);
        }
        Ok(drafts)
    }

    fn draft(&self, index: usize, stage: &dockerfile::Stage) -> Result<Draft, BuildError> {
        let from = &stage.from;
        let image = self.expand(&from.image)?;
        if image.is_empty() {
            let message = format!("base name (`{}`) is blank", from.image.text);
            let error = BuildError::dockerfile(&from.image.span, message);
            return Err(self.with_near_variable(error, &from.image).unwrap_or_else(|error| {
                error.with_hint("declare its ARG with a default before the first FROM, or pass it with --build-arg")
            }));
        }
        let platform = from.platform.as_ref().map(|word| self.platform(word)).transpose()?;
        let name = from.name.as_ref().map_or_else(|| format!("stage-{index}"), |n| n.text.clone());
        // These two names never mean a context (BuildKit `namedContextFunc`).
        let reserved = |name: &str| matches!(name, "scratch" | "context");
        let named =
            from.name.as_ref().filter(|n| !reserved(&n.text) && self.request.backends.contexts.contains_key(&n.text));
        let base = match named {
            Some(name) => DraftBase::Named(name.text.clone()),
            None => self.base(&image),
        };
        let own = if named.is_some() { &[] } else { stage.instructions.as_slice() };
        let instructions =
            own.iter().map(|i| Placed { instruction: i.clone(), trigger_of: None, sources: Vec::new() }).collect();
        Ok(Draft {
            name,
            is_named: from.name.is_some(),
            span: from.span.clone(),
            base,
            platform,
            instructions,
            index: Some(index),
            resolved: None,
            unknown: false,
            globals: self.variables(from),
            triggers_added: false,
        })
    }

    /// The variables in a FROM line that have a value.
    fn variables(&self, from: &dockerfile::From) -> Vec<String> {
        let lookup = |name: &str| self.scope.get(name).map(str::to_owned);
        let words = [Some(&from.image), from.platform.as_ref()].into_iter().flatten();
        let escape = self.request.spec.dockerfile.escape;
        let expanded = words.map(|word| dockerfile::expand::word(&word.text, escape, &lookup).unwrap_or_default());
        expanded.flat_map(|expanded| expanded.set).collect()
    }

    /// What FROM means: an earlier stage, scratch, or an image.
    fn base(&self, image: &str) -> DraftBase {
        match self.stage_named(image) {
            Some(index) => DraftBase::Draft(index),
            None if image == "scratch" => DraftBase::Scratch,
            None => DraftBase::Image(image.to_owned()),
        }
    }

    /// The last stage so far with this name, letter case ignored.
    fn stage_named(&self, name: &str) -> Option<usize> {
        let is_meant = |d: &Draft| d.index.is_some() && d.is_named && d.name.eq_ignore_ascii_case(name);
        self.list.iter().rposition(is_meant)
    }

    /// A word of a FROM line.
    fn expand(&self, word: &Word) -> Result<String, BuildError> {
        let lookup = |name: &str| self.scope.get(name).map(str::to_owned);
        dockerfile::expand::word(&word.text, self.request.spec.dockerfile.escape, &lookup)
            .map(|e| e.text)
            .map_err(|e| BuildError::dockerfile(&word.span, e.to_string()))
    }

    /// Bases whose names come out empty or invalid when no build argument is given.
    fn check_defaults(&self, defaults: &Env) {
        for stage in &self.request.spec.dockerfile.stages {
            let word = &stage.from.image;
            let lookup = |name: &str| defaults.get(name).map(str::to_owned);
            let expanded = dockerfile::expand::word(&word.text, self.request.spec.dockerfile.escape, &lookup);
            if expanded.is_ok_and(|e| e.text.is_empty() || Reference::parse(&e.text).is_err()) {
                self.findings.report(Finding::InvalidDefaultArgInFrom { image: &word.text }, &word.span);
            }
        }
    }

    /// Base images that came for another platform than was wanted. An image of a named context is whoever's gave it, one
    /// without layers is nothing that could run (BuildKit `resolveBaseImage`).
    fn check_platforms(&self, wanted: &[usize]) {
        for draft in self.reachable(wanted).into_iter().map(|index| &self.list[index]) {
            let (Some(base), DraftBase::Image(name)) = (&draft.resolved, &draft.base) else { continue };
            if base.image.layers.is_empty() || self.context_key(name).is_some() {
                continue;
            }
            let wanted = draft.platform.as_ref().unwrap_or(&self.target_platform);
            let config = &base.image.config;
            let actual = Platform::new(&config.os, &config.architecture, config.variant.as_deref());
            // What this machine runs as well is right where nobody asked for a platform.
            let is_implicit = draft.platform.is_none() && self.request.spec.platform.is_none();
            let fits = wanted.os == actual.os && wanted.architecture == actual.architecture
                || is_implicit && actual.rank_for(wanted).is_some();
            if !config.architecture.is_empty() && !fits {
                let (expected, actual) = (&wanted.to_string(), &actual.to_string());
                let finding = Finding::InvalidBaseImagePlatform { image: name, expected, actual };
                self.findings.report(finding, &draft.span);
            }
        }
    }

    /// Whether the image at the bottom of a draft brings a SHELL of its own, which the parser cannot know.
    fn has_shell(&self, index: usize) -> bool {
        let draft = &self.list[index];
        match (&draft.resolved, &draft.base) {
            (Some(base), _) => base.image.config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty()),
            (None, DraftBase::Draft(parent)) => self.has_shell(*parent),
            (None, _) => false,
        }
    }

    fn platform(&self, word: &Word) -> Result<Platform, BuildError> {
        let text = self.expand(word)?;
        if text.is_empty() {
            let error = BuildError::dockerfile(&word.span, format!("empty platform value from `{}`", word.text));
            return Err(self.with_near_variable(error, word).unwrap_or_else(|error| error));
        }
        Platform::parse(&text).map_err(|e| {
            let error = BuildError::dockerfile(&word.span, e.to_string());
            self.with_near_variable(error, word).unwrap_or_else(|error| error)
        })
    }

    /// `error` with the known variable as its hint that is nearest to one in `word` without a value; else the error as it was.
    fn with_near_variable(&self, error: BuildError, word: &Word) -> Result<BuildError, BuildError> {
        let lookup = |name: &str| self.scope.get(name).map(str::to_owned);
        let expanded =
            dockerfile::expand::word(&word.text, self.request.spec.dockerfile.escape, &lookup).unwrap_or_default();
        let near = |name: &String| nearest_name(name, self.scope.names());
        match expanded.unset.iter().find_map(near) {
            Some(near) => Ok(error.with_hint(format!("did you mean `${near}`?"))),
            None => Err(error),
        }
    }

    /// The stages asked for, the one whose image is written first.
    fn targets(&self) -> Result<Vec<usize>, BuildError> {
        let Some(first) = &self.request.spec.target else { return Ok(vec![self.list.len() - 1]) };
        std::iter::once(first).chain(&self.request.spec.more_targets).map(|wanted| self.target(wanted)).collect()
    }

    /// A stage by its name; `#N` is the one of a number, which no name can be.
    fn target(&self, wanted: &str) -> Result<usize, BuildError> {
        let number = wanted.strip_prefix('#').and_then(|number| number.parse().ok());
        if let Some(number) = number.filter(|number| *number < self.list.len()) {
            return Ok(number);
        }
        self.stage_named(wanted).ok_or_else(|| {
            let message = format!("target stage `{wanted}` could not be found");
            let error = BuildError::Request { message, hint: None };
            let names: Vec<&str> = self.list.iter().filter(|d| d.is_named).map(|d| d.name.as_str()).collect();
            match nearest(wanted, names.iter().copied()) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint(format!("there are: {}", names.join(", "))),
            }
        })
    }

    fn link_all(&mut self) -> Result<(), BuildError> {
        for draft in 0..self.list.len() {
            for position in 0..self.list[draft].instructions.len() {
                let placed = self.list[draft].instructions[position].clone();
                self.list[draft].instructions[position].sources = self.link(&placed)?;
            }
        }
        Ok(())
    }

    /// The `--from`s of one instruction, in order.
    fn link(&mut self, placed: &Placed) -> Result<Vec<Option<From>>, BuildError> {
        let outer = &placed.instruction.span;
        let words: Vec<Option<&Word>> = match &placed.instruction.kind {
            Kind::Copy(copy) => vec![copy.from.as_ref()],
            Kind::Run(run) => run.mounts.iter().map(|m| m.from.as_ref().filter(|w| !w.text.is_empty())).collect(),
            _ => return Ok(Vec::new()),
        };
        let by_number = matches!(placed.instruction.kind, Kind::Copy(_));
        let mut found = Vec::new();
        for word in words {
            let span = placed.trigger_of.clone().or_else(|| word.map(|w| w.span.clone())).unwrap_or(outer.clone());
            found.push(word.map(|word| self.from(&word.text, &span, by_number)).transpose()?);
        }
        Ok(found)
    }

    fn from(&mut self, name: &str, span: &Span, by_number: bool) -> Result<From, BuildError> {
        if name.contains('$') {
            let message = format!("variable expansion is not supported for --from (`{name}`)");
            return Err(BuildError::dockerfile(span, message)
                .with_hint("name it with a stage of its own: `FROM $IMAGE AS name`, then `--from=name`"));
        }
        if by_number && let Ok(index) = name.parse::<i64>() {
            let known = usize::try_from(index).ok().filter(|i| self.list.get(*i).is_some_and(|d| d.index.is_some()));
            return known.map(From::Draft).ok_or_else(|| {
                BuildError::dockerfile(span, format!("invalid stage index {index}: there is no such stage"))
            });
        }
        if let Some(index) = self.stage_named(name) {
            return Ok(From::Draft(index));
        }
        if name == "scratch" {
            return Ok(From::Empty);
        }
        if let Some(NamedContext::Directory(_)) = self.request.backends.contexts.get(name) {
            return Ok(From::Named(name.to_owned()));
        }
        Ok(From::Draft(self.external(name, span)))
    }

    /// The draft of an image that is only read; one for each name.
    fn external(&mut self, image: &str, span: &Span) -> usize {
        if let Some(known) = self.list.iter().position(|d| d.index.is_none() && d.name == image) {
            return known;
        }
        self.list.push(Draft {
            name: image.to_owned(),
            is_named: false,
            span: span.clone(),
            base: DraftBase::Image(image.to_owned()),
            platform: None,
            instructions: Vec::new(),
            index: None,
            resolved: None,
            unknown: false,
            globals: Vec::new(),
            triggers_added: true,
        });
        self.list.len() - 1
    }

    fn refuse_cycles(&self) -> Result<(), BuildError> {
        // 0 = not seen, 1 = on the way, 2 = done
        let mut state = vec![0u8; self.list.len()];
        for start in 0..self.list.len() {
            self.visit(start, &mut state)?;
        }
        Ok(())
    }

    fn visit(&self, draft: usize, state: &mut [u8]) -> Result<(), BuildError> {
        match state[draft] {
            2 => return Ok(()),
            1 => {
                let message = format!("circular dependency on stage `{}`", self.list[draft].name);
                return Err(BuildError::dockerfile(&self.list[draft].span, message));
            }
            _ => state[draft] = 1,
        }
        for needed in self.needs(draft) {
            self.visit(needed, state)?;
        }
        state[draft] = 2;
        Ok(())
    }

    fn needs(&self, draft: usize) -> Vec<usize> {
        let draft = &self.list[draft];
        let base = match draft.base {
            DraftBase::Draft(index) => Some(index),
            _ => None,
        };
        let sources = draft.instructions.iter().flat_map(|i| i.sources.iter()).filter_map(|s| match s {
            Some(From::Draft(index)) => Some(*index),
            _ => None,
        });
        base.into_iter().chain(sources).collect()
    }

    /// Resolves every base that the stages `wanted` reach; triggers of bases may make them reach more.
    fn resolve_from(&mut self, wanted: &[usize]) -> Result<(), BuildError> {
        loop {
            let reachable = self.reachable(wanted);
            for draft in &reachable {
                self.resolve_base(*draft)?;
            }
            let mut grown = false;
            for draft in reachable {
                grown |= self.add_triggers(draft)?;
            }
            if !grown {
                return Ok(());
            }
            self.refuse_cycles()?;
        }
    }

    fn reachable(&self, wanted: &[usize]) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut waiting = wanted.to_vec();
        while let Some(draft) = waiting.pop() {
            if seen.insert(draft) {
                waiting.extend(self.needs(draft));
            }
        }
        seen
    }

    fn resolve_base(&mut self, index: usize) -> Result<(), BuildError> {
        let draft = &self.list[index];
        if draft.resolved.is_some() || draft.unknown {
            return Ok(());
        }
        let found = match self.find_base(draft) {
            Err(BuildError::Store { source, .. }) if self.purpose != Purpose::Build => {
                self.do_without(index, source);
                return Ok(());
            }
            found => found?,
        };
        let draft = &self.list[index];
        let named_directory = match (&draft.base, &found) {
            (DraftBase::Image(text), None) => Some(self.context_key(text).unwrap_or(text).to_owned()),
            _ => None,
        };
        if let Some(name) = named_directory {
            self.list[index].base = DraftBase::Named(name);
        }
        self.list[index].resolved = found;
        Ok(())
    }

    /// The image a draft stands on, where it is one.
    fn find_base(&self, draft: &Draft) -> Result<Option<BaseImage>, BuildError> {
        let platform = draft.platform.as_ref().unwrap_or(&self.target_platform);
        match &draft.base {
            DraftBase::Scratch | DraftBase::Draft(_) => Ok(None),
            DraftBase::Named(name) => self.named_image(name, platform, &draft.span),
            DraftBase::Image(text) => self.image(text, platform, &draft.span),
        }
    }

    /// A lint goes on without a base image, and asks for it once only.
    fn do_without(&mut self, index: usize, why: StoreError) {
        let (DraftBase::Image(name) | DraftBase::Named(name)) = &self.list[index].base else { return };
        let image = name.clone();
        let span = self.list[index].span.clone();
        for draft in &mut self.list {
            draft.unknown |=
                matches!(&draft.base, DraftBase::Image(other) | DraftBase::Named(other) if *other == image);
        }
        self.findings.unread.borrow_mut().push(Unread { image, span, why });
    }

    /// The image behind a name; none when a named context gives a directory for it.
    fn image(&self, text: &str, platform: &Platform, span: &Span) -> Result<Option<BaseImage>, BuildError> {
        if let Some(key) = self.context_key(text) {
            return self.named_image(key, platform, span);
        }
        let reference = Reference::parse(text).map_err(|e| BuildError::dockerfile(span, e.to_string()))?;
        self.fetch(self.request.backends.images.as_ref(), text, &reference, platform, span).map(Some)
    }

    fn named_image(&self, key: &str, platform: &Platform, span: &Span) -> Result<Option<BaseImage>, BuildError> {
        match &self.request.backends.contexts[key] {
            NamedContext::Directory(_) => Ok(None),
            NamedContext::Image { source, reference } => {
                self.fetch(source.as_ref(), key, reference, platform, span).map(Some)
            }
        }
    }

    fn fetch(
        &self,
        source: &dyn store::ImageSource,
        text: &str,
        reference: &Reference,
        platform: &Platform,
        span: &Span,
    ) -> Result<BaseImage, BuildError> {
        let image = source.image(reference, platform).map_err(|source| {
            let near = self.near_base(text).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            let action = format!("could not resolve base image `{text}`{near}");
            BuildError::Store { action, place: Some(Place { span: span.clone() }), source }
        })?;
        Ok(BaseImage { reference: reference.familiar(), image })
    }

    /// The stage or the well-known image whose name is nearest to one that leads to nothing.
    fn near_base(&self, text: &str) -> Option<String> {
        let stages = self.list.iter().filter(|draft| draft.is_named).map(|draft| draft.name.as_str());
        if let Some(stage) = nearest_name(text, stages) {
            return Some(format!("the stage `{stage}`"));
        }
        let name = text.split([':', '@']).next().unwrap_or_default();
        nearest_name(name, KNOWN_IMAGES).map(|image| format!("`{image}`"))
    }

    /// The named context that stands for `text`: by the name as written, or as the same normalised reference.
    fn context_key(&self, text: &str) -> Option<&'a str> {
        let contexts = &self.request.backends.contexts;
        if let Some((key, _)) = contexts.get_key_value(text) {
            return Some(key);
        }
        let wanted = Reference::parse(text).ok()?.to_string();
        let same = |key: &&String| Reference::parse(key).is_ok_and(|r| r.to_string() == wanted);
        contexts.keys().find(same).map(String::as_str)
    }

    /// Puts the triggers of a draft's base before its own instructions. True when they read stages or images.
    fn add_triggers(&mut self, index: usize) -> Result<bool, BuildError> {
        if std::mem::replace(&mut self.list[index].triggers_added, true) {
            return Ok(false);
        }
        let span = self.list[index].span.clone();
        let texts = self.trigger_texts(index);
        let mut triggers = Vec::new();
        let mut reads = false;
        for text in texts {
            let instruction = dockerfile::parse_onbuild(&text)
                .map_err(|e| BuildError::dockerfile(&span, format!("ONBUILD trigger `{text}` of the base: {e}")))?;
            let mut placed = Placed { instruction, trigger_of: Some(span.clone()), sources: Vec::new() };
            placed.sources = self.link(&placed)?;
            reads |= placed.sources.iter().any(Option::is_some);
            triggers.push(placed);
        }
        self.list[index].instructions.splice(0..0, triggers);
        Ok(reads)
    }

    fn trigger_texts(&self, index: usize) -> Vec<String> {
        let draft = &self.list[index];
        if let Some(base) = &draft.resolved {
            return base.image.config.config.on_build.clone().unwrap_or_default();
        }
        let DraftBase::Draft(parent) = draft.base else { return Vec::new() };
        let own = self.list[parent].instructions.iter().filter_map(|placed| match &placed.instruction.kind {
            Kind::Onbuild(onbuild) => Some(onbuild.text.clone()),
            _ => None,
        });
        own.collect()
    }
}
