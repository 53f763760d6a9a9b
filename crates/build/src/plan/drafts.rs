//! Which stages there are, what they stand on, who reads whom; then each one lowered in order.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::lint::Finding;
use dockerfile::{Instruction, Kind, Span, Word};
use oci::{Platform, Reference};

use super::findings::Findings;
use super::lower::Lowering;
use super::metadata::nearest;
use super::{BaseImage, Plan, args};
use crate::env::Env;
use crate::request::NamedContext;
use crate::{BuildError, Place, Request};

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
    let mut drafts = Drafts::new(request)?;
    let target = drafts.target()?;
    drafts.link_all()?;
    drafts.refuse_cycles()?;
    drafts.resolve_from(target)?;
    drafts.check_platforms(target);
    let mut plan = Lowering::new(request, &drafts.scope, &drafts.list, &drafts.findings).lower(target)?;
    let built: Vec<usize> = drafts.reachable(target).into_iter().filter_map(|draft| drafts.list[draft].index).collect();
    let shells: Vec<usize> = built.iter().copied().filter(|stage| drafts.has_shell(*stage)).collect();
    plan.warnings = drafts.findings.finish(request, &built, &shells)?;
    Ok(plan)
}

struct Drafts<'a> {
    request: &'a Request,
    scope: Env,
    target_platform: Platform,
    list: Vec<Draft>,
    findings: Findings,
}

impl<'a> Drafts<'a> {
    fn new(request: &'a Request) -> Result<Drafts<'a>, BuildError> {
        let file = &request.dockerfile;
        let last = file.stages.last().and_then(|s| s.from.name.as_ref()).map_or("", |n| n.text.as_str());
        let target = request.target.as_deref().unwrap_or(last);
        let target_platform = request.platform.clone().unwrap_or_else(Platform::host);
        let scope = args::global_scope(file, &request.build_args, &target_platform, target)?;
        let defaults = args::global_scope(file, &BTreeMap::new(), &target_platform, target);
        let findings = Findings::new(request);
        let mut drafts = Drafts { request, scope, target_platform, list: Vec::new(), findings };
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
            return Err(BuildError::dockerfile(&from.image.span, message)
                .with_hint("declare its ARG with a default before the first FROM, or pass it with --build-arg"));
        }
        let platform = from.platform.as_ref().map(|word| self.platform(word)).transpose()?;
        let name = from.name.as_ref().map_or_else(|| format!("stage-{index}"), |n| n.text.clone());
        // These two names never mean a context (BuildKit `namedContextFunc`).
        let reserved = |name: &str| matches!(name, "scratch" | "context");
        let named = from.name.as_ref().filter(|n| !reserved(&n.text) && self.request.contexts.contains_key(&n.text));
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
            triggers_added: false,
        })
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
        dockerfile::expand::word(&word.text, self.request.dockerfile.escape, &lookup)
            .map(|e| e.text)
            .map_err(|e| BuildError::dockerfile(&word.span, e.to_string()))
    }

    /// Bases whose names come out empty or invalid when no build argument is given.
    fn check_defaults(&self, defaults: &Env) {
        for stage in &self.request.dockerfile.stages {
            let word = &stage.from.image;
            let lookup = |name: &str| defaults.get(name).map(str::to_owned);
            let expanded = dockerfile::expand::word(&word.text, self.request.dockerfile.escape, &lookup);
            if expanded.is_ok_and(|e| e.text.is_empty() || Reference::parse(&e.text).is_err())
                && word.text.contains('$')
            {
                self.findings.report(Finding::InvalidDefaultArgInFrom { image: &word.text }, &word.span);
            }
        }
    }

    /// Base images that came for another platform than was wanted.
    fn check_platforms(&self, target: usize) {
        for draft in self.reachable(target).into_iter().map(|index| &self.list[index]) {
            let Some(base) = &draft.resolved else { continue };
            let wanted = draft.platform.as_ref().unwrap_or(&self.target_platform);
            let config = &base.image.config;
            let actual = Platform::new(&config.os, &config.architecture, config.variant.as_deref());
            if !config.architecture.is_empty() && actual.rank_for(wanted).is_none() {
                let (expected, actual) = (&wanted.to_string(), &actual.to_string());
                let finding = Finding::InvalidBaseImagePlatform { image: &base.reference, expected, actual };
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
            return Err(BuildError::dockerfile(&word.span, format!("empty platform value from `{}`", word.text)));
        }
        Platform::parse(&text).map_err(|e| BuildError::dockerfile(&word.span, e.to_string()))
    }

    fn target(&self) -> Result<usize, BuildError> {
        let Some(wanted) = &self.request.target else { return Ok(self.list.len() - 1) };
        self.stage_named(wanted).ok_or_else(|| {
            let error =
                BuildError::Request { message: format!("target stage `{wanted}` could not be found"), hint: None };
            match nearest(wanted, self.list.iter().filter(|d| d.is_named).map(|d| d.name.as_str())) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error,
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
        if let Some(NamedContext::Directory(_)) = self.request.contexts.get(name) {
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

    /// Resolves every base that `target` reaches; triggers of bases may make it reach more.
    fn resolve_from(&mut self, target: usize) -> Result<(), BuildError> {
        loop {
            let reachable = self.reachable(target);
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

    fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![target];
        while let Some(draft) = waiting.pop() {
            if seen.insert(draft) {
                waiting.extend(self.needs(draft));
            }
        }
        seen
    }

    fn resolve_base(&mut self, index: usize) -> Result<(), BuildError> {
        let draft = &self.list[index];
        if draft.resolved.is_some() {
            return Ok(());
        }
        let platform = draft.platform.clone().unwrap_or_else(|| self.target_platform.clone());
        let found = match &draft.base {
            DraftBase::Scratch | DraftBase::Draft(_) => return Ok(()),
            DraftBase::Named(name) => self.named_image(name, &platform, &draft.span)?,
            DraftBase::Image(text) => self.image(text, &platform, &draft.span)?,
        };
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

    /// The image behind a name; none when a named context gives a directory for it.
    fn image(&self, text: &str, platform: &Platform, span: &Span) -> Result<Option<BaseImage>, BuildError> {
        if let Some(key) = self.context_key(text) {
            return self.named_image(key, platform, span);
        }
        let reference = Reference::parse(text).map_err(|e| BuildError::dockerfile(span, e.to_string()))?;
        self.fetch(self.request.images.as_ref(), text, &reference, platform, span).map(Some)
    }

    fn named_image(&self, key: &str, platform: &Platform, span: &Span) -> Result<Option<BaseImage>, BuildError> {
        match &self.request.contexts[key] {
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
        let image = source.image(reference, platform).map_err(|source| BuildError::Store {
            action: format!("could not resolve base image `{text}`"),
            place: Some(Place { span: span.clone() }),
            source,
        })?;
        Ok(BaseImage { reference: reference.familiar(), image })
    }

    /// The named context that stands for `text`: by the name as written, or as the same normalised reference.
    fn context_key(&self, text: &str) -> Option<&'a str> {
        let contexts = &self.request.contexts;
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
