//! The sub-commands, each a road of a screen.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use build::{BuildError, Built, Plan, StepOutcome};
use oci::Reference;

use crate::args::{Build, Doctor, LogFormat};
use crate::report::{Failure, Voice, visible};
use crate::verify::Verification;
use crate::wire::Wired;
use crate::work::WorkDir;
use crate::{Manner, docker, inquiry, progress, settings, signals, wire};

/// Builds; `work` is the directory that it was done in, which is to be removed when all is said.
pub fn build(typed: Build, manner: Manner, voice: Voice, work: &mut Option<WorkDir>) -> Result<(), Failure> {
    refuse_unsupported(&typed)?;
    let mut notes = typed.docker.notes()?;
    notes.extend(docker::output_notes(&typed)?);
    if typed.display.log_format == LogFormat::Text {
        anstream::ColorChoice::Never.write_global();
    }
    if let Some((question, asking)) = inquiry::of_build(&typed)? {
        return inquiry::answer(typed, question, asking, manner, voice, work);
    }
    notes.iter().for_each(|note| voice.note(note));
    let cancelled = signals::catch();
    // Whatever an interruption made fail, the interruption is what happened.
    let interrupted = |failure| if cancelled.load(Ordering::Relaxed) { Failure::Interrupted } else { failure };
    build_until(&typed, manner, voice, cancelled.clone(), work).map_err(interrupted)
}

fn build_until(
    typed: &Build,
    manner: Manner,
    voice: Voice,
    cancelled: Arc<AtomicBool>,
    work: &mut Option<WorkDir>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    wire::recover()?;
    let work = work.insert(WorkDir::make(&settings::work_root(typed.run.work_dir.as_ref()), !typed.kaniko.cleanup)?);
    // Namespaces can only be entered while there is one thread: this comes before everything that may start another.
    let sandbox = wire::sandbox(typed, work.path())?;
    work.remove_dead_runs(voice);
    let shown = progress::choose(&typed.display, typed.kaniko.log_timestamp);
    let mut wired = wire::request(typed, manner, sandbox, work, shown.clone(), cancelled)?;
    let verified = typed.output.verify.as_deref().map(|spec| Verification::prepare(spec, &mut wired)).transpose()?;
    if typed.input.dry_run {
        return dry_run(typed, &wired);
    }
    let built = build::build(&wired.request);
    let outcome = match &built {
        Ok(_) => StepOutcome::Done,
        Err(BuildError::Cancelled) => StepOutcome::Cancelled,
        Err(_) => StepOutcome::Failed,
    };
    shown.finish(outcome, begun.elapsed());
    let built = built.map_err(|error| wired.failure_shown(error, shown.has_shown_failure()))?;
    write_results(typed, &wired.names, &built)?;
    if let Some(verified) = verified {
        return verified.finish(&built.image, &wired, &print);
    }
    if stdout_is_taken(typed) {
        return Ok(());
    }
    print_digest(&built)
}

/// An output goes to standard output, and nothing may stand behind it.
fn stdout_is_taken(typed: &Build) -> bool {
    typed.output.output.iter().any(|spec| settings::is_to_stdout(spec))
}

/// A flag without its effect is an error, never ignored.
fn refuse_unsupported(typed: &Build) -> Result<(), Failure> {
    let files = [
        &typed.output.digest_file,
        &typed.output.image_name_with_digest_file,
        &typed.output.image_name_tag_with_digest_file,
    ];
    let address = files.into_iter().flatten().any(|path| path.starts_with("https:"));
    match typed.unsupported.first() {
        Some(flag) => Err(Failure::usage(format!("not supported yet: {flag}"))),
        None if address => Err(Failure::usage("not supported yet: a digest file at an https address")),
        None => Ok(()),
    }
}

fn dry_run(typed: &Build, wired: &Wired) -> Result<(), Failure> {
    let plan: Plan = build::plan(&wired.request).map_err(|error| wired.failure(error))?;
    let source = &wired.request.spec.dockerfile.source;
    let text = if typed.display.log_format == LogFormat::Json {
        format!("{}\n", build::plan::to_json(&plan, source))
    } else {
        shown_lines(&build::plan::to_text(&plan, source))
    };
    print(&text)
}

/// Text for people, in which names and instructions may be anybody's.
pub fn shown_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

fn print_digest(built: &Built) -> Result<(), Failure> {
    print(&format!("{}\n", built.digest))
}

pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("could not write to standard output").map_err(Failure::other(6))
}

/// The files that tell scripts what was built; written only when all else is done.
fn write_results(typed: &Build, names: &[Reference], built: &Built) -> Result<(), Failure> {
    let output = &typed.output;
    let digest = built.digest.to_string();
    let lines = |line: &dyn Fn(&Reference) -> String| names.iter().map(|n| line(n) + "\n").collect::<String>();
    if let Some(path) = &output.digest_file {
        write_file(path, &digest)?;
    }
    if let Some(path) = &output.image_name_with_digest_file {
        write_file(path, &lines(&|n| format!("{}@{digest}", n.name())))?;
    }
    if let Some(path) = &output.image_name_tag_with_digest_file {
        write_file(path, &lines(&|n| format!("{}:{}@{digest}", n.name(), n.tag_or_latest())))?;
    }
    if let Some(path) = &output.iidfile {
        write_file(path, built.image_id.as_str())?;
    }
    if let Some(path) = &output.metadata_file {
        let metadata = serde_json::json!({
            "containerimage.digest": digest,
            "containerimage.config.digest": built.image_id.as_str(),
            "image.name": names.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        });
        write_file(path, &format!("{metadata}\n"))?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let made = parent.map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text))
        .with_context(|| format!("could not write `{}`", path.display()))
        .map_err(Failure::other(6))
}

pub fn doctor(typed: &Doctor) -> Result<(), Failure> {
    let work = WorkDir::make(&settings::work_root(typed.work_dir.as_ref()), false)?;
    let report = sandbox::probe::probe(work.path());
    if typed.json {
        let json =
            serde_json::to_string_pretty(&report).context("could not write the report").map_err(Failure::other(1))?;
        return print(&(json + "\n"));
    }
    let mut text = String::new();
    for (name, value) in &report.facts {
        text += &format!("{name}: {value}\n");
    }
    for finding in &report.findings {
        let word = if finding.works { "works" } else { "does not work" };
        text += &format!("{}: {word}\n", finding.backend);
        for line in &finding.tried {
            text += &format!("    {line}\n");
        }
        if let (false, Some(needs)) = (finding.works, &finding.needs) {
            text += &format!("    needs: {needs}\n");
        }
    }
    text += &match report.chosen {
        Some(name) => format!("chosen: {name}\n"),
        None => "chosen: none; a Dockerfile without RUN can be built all the same\n".to_owned(),
    };
    print(&text)
}

pub fn version() -> Result<(), Failure> {
    print(&format!("zuwai {}\n", env!("CARGO_PKG_VERSION")))
}
