//! Questions about a Dockerfile that need no build: `lint`, `outline`, `targets`, and docker's `build --call`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use oci::{Platform, Reference};
use store::{Image, ImageSource, StoreError};

use crate::args::{AnswerFormat, Asking, Build, Inquiry};
use crate::report::{Failure, Voice};
use crate::wire::Wired;
use crate::work::WorkDir;
use crate::{Manner, lint, outline, progress, settings, wire};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    Check,
    Outline,
    Targets,
}

/// How often a registry is asked again when only a question depends on it.
const RETRIES: u32 = 1;

/// A sub-command's question.
pub fn ask(
    mut asked: Inquiry,
    question: Question,
    manner: Manner,
    voice: Voice,
    work: &mut Option<WorkDir>,
) -> Result<(), Failure> {
    let asking = asked.asking;
    take_file(&mut asked);
    answer(asked.into_build(), question, asking, manner, voice, work)
}

/// A file in the place of the context is the Dockerfile, as for other linters, with its directory as the context.
fn take_file(asked: &mut Inquiry) {
    if asked.file.is_some() || asked.context.is_some() {
        return;
    }
    let Some(path) = asked.positional_context.as_deref().map(Path::new) else { return };
    let Ok(metadata) = path.metadata() else { return };
    if metadata.is_dir() {
        return;
    }
    // One of a pipe (`<(…)`) is no place for files.
    let parent = path.parent().filter(|parent| metadata.is_file() && !parent.as_os_str().is_empty());
    let context = parent.unwrap_or(Path::new(".")).to_string_lossy().into_owned();
    asked.file = asked.positional_context.replace(context);
}

/// The question that `--check` or `--call` put to a build; `--call=build` is none.
pub fn of_build(typed: &Build) -> Result<Option<(Question, Asking)>, Failure> {
    let asking = |format| Asking { format, offline: false };
    if typed.input.check {
        return Ok(Some((Question::Check, asking(AnswerFormat::Text))));
    }
    let Some(call) = &typed.input.call else { return Ok(None) };
    let bad = |what: &str| {
        Failure::usage(format!("`--call={call}`: {what}; there are check, outline and targets, and `,format=json`"))
    };
    let mut parts = call.split(',');
    let question = match parts.next().unwrap_or_default() {
        "build" => None,
        "check" | "lint" => Some(Question::Check),
        "outline" => Some(Question::Outline),
        "targets" => Some(Question::Targets),
        other => return Err(bad(&format!("unknown method `{other}`"))),
    };
    let mut format = AnswerFormat::Text;
    for part in parts {
        format = match part {
            "format=json" => AnswerFormat::Json,
            "format=text" => AnswerFormat::Text,
            other => return Err(bad(&format!("unknown option `{other}`"))),
        };
    }
    Ok(question.map(|question| (question, asking(format))))
}

/// Answers on standard output. Nothing is isolated, pushed or written.
pub fn answer(
    mut typed: Build,
    question: Question,
    asking: Asking,
    manner: Manner,
    voice: Voice,
    work: &mut Option<WorkDir>,
) -> Result<(), Failure> {
    let registry = &mut typed.registry;
    registry.image_download_retry = registry.image_download_retry.or(registry.push_retry).or(Some(RETRIES));
    let work = work.insert(WorkDir::make(&settings::work_root(typed.run.work_dir.as_ref()), false)?);
    let cancelled = Arc::new(AtomicBool::new(false));
    let wired = wire::request(&typed, manner, wire::no_sandbox(), work, progress::silent(), cancelled);
    let mut wired = match wired {
        Err(Failure::Dockerfile { error, name }) if question == Question::Check => {
            return lint::unreadable(&error, &name, asking).and(Err(Failure::Dockerfile { error, name }));
        }
        wired => wired?,
    };
    if asking.offline {
        wired.request.backends.images = Arc::new(Offline);
    }
    match question {
        Question::Check => check(&wired, asking, voice),
        Question::Outline => outline::outline(&wired, asking),
        Question::Targets => outline::targets(&wired, asking),
    }
}

fn check(wired: &Wired, asking: Asking, voice: Voice) -> Result<(), Failure> {
    let linted = build::lint(&wired.request);
    lint::print(&wired.request, &linted, asking, voice)?;
    match linted.error {
        Some(error) => Err(wired.failure(error)),
        None if linted.findings.is_empty() => Ok(()),
        None => Err(Failure::Findings),
    }
}

/// `--offline`: there are no images.
struct Offline;

impl ImageSource for Offline {
    fn image(&self, reference: &Reference, _: &Platform) -> Result<Image, StoreError> {
        let reason = "registries are not asked (--offline)".to_owned();
        Err(StoreError::Invalid { what: reference.familiar(), reason })
    }
}
