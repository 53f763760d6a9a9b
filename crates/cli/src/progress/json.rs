//! One JSON object a line on standard error.

use std::io::Write as _;
use std::time::Duration;

use build::{Event, Observer, StepOutcome};
use sandbox::Stream;
use serde_json::{Value, json};
use store::{Direction, Transfer, TransferObserver, TransferState};

use super::Shown;
use crate::args::Verbosity;

pub struct Json {
    verbosity: Verbosity,
}

impl Json {
    pub fn new(verbosity: Verbosity) -> Json {
        Json { verbosity }
    }
}

/// Writes a line.
pub fn emit(mut value: Value) {
    value["time"] = jiff::Timestamp::now().to_string().into();
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{value}");
}

impl Observer for Json {
    fn event(&self, event: &Event<'_>) {
        let is_warning = matches!(event, Event::Warning { .. } | Event::Finding { .. });
        if self.verbosity >= Verbosity::Warn && !is_warning {
            return;
        }
        emit(match event {
            Event::Planning => json!({"event": "planning"}),
            Event::Planned { steps, elapsed } => {
                json!({"event": "planned", "steps": steps, "seconds": elapsed.as_secs_f64()})
            }
            Event::StageStarted { stage, name, .. } => json!({"event": "stage", "stage": stage, "name": name}),
            Event::StagePrepared { stage, name, elapsed, .. } => json!({
                "event": "stage prepared", "stage": stage, "name": name, "seconds": elapsed.as_secs_f64(),
            }),
            Event::StepStarted { id, stage, index, total, title } => json!({
                "event": "step", "stage": id.stage, "step": id.step, "name": stage,
                "index": index + 1, "total": total, "title": title,
            }),
            Event::Output { id, stream, bytes } => json!({
                "event": "output", "stage": id.stage, "step": id.step,
                "stream": match stream { Stream::Stdout => "stdout", Stream::Stderr => "stderr" },
                "text": String::from_utf8_lossy(bytes),
            }),
            Event::StepCommitting { id } => {
                json!({"event": "step committing", "stage": id.stage, "step": id.step})
            }
            Event::StepDone { id, elapsed, outcome } => json!({
                "event": "step done", "stage": id.stage, "step": id.step, "seconds": elapsed.as_secs_f64(),
                "failed": *outcome == StepOutcome::Failed, "outcome": word(*outcome),
            }),
            Event::LayerStarted { number, size_bytes } => {
                json!({"event": "layer started", "number": number, "size_bytes": size_bytes})
            }
            Event::Layer { number, digest, size_bytes, elapsed } => json!({
                "event": "layer", "number": number, "digest": digest, "size_bytes": size_bytes,
                "seconds": elapsed.as_secs_f64(),
            }),
            Event::Exporting { to } => json!({"event": "exporting", "to": to}),
            Event::Exported { to, elapsed } => {
                json!({"event": "exported", "to": to, "seconds": elapsed.as_secs_f64()})
            }
            Event::Warning { message } => json!({"event": "warning", "message": message}),
            Event::Finding { finding, source, file } => {
                let line = dockerfile::error::line_of(source, finding.span.start);
                json!({
                    "event": "warning", "rule": finding.rule, "detail": finding.message, "file": file, "line": line,
                    "message": format!("{}: {} (line {line})", finding.rule.unwrap_or("warning"), finding.message),
                })
            }
        });
    }
}

impl TransferObserver for Json {
    fn transfer(&self, transfer: &Transfer) {
        if self.verbosity >= Verbosity::Warn {
            return;
        }
        let (state, reason) = match &transfer.state {
            TransferState::Started => ("started", None),
            // Too many to be worth a line each.
            TransferState::Progress => return,
            TransferState::Done => ("done", None),
            TransferState::Exists => ("exists", None),
            TransferState::Mounted => ("mounted", None),
            TransferState::Retry(why) => ("retry", Some(why)),
        };
        emit(json!({
            "event": match transfer.direction { Direction::Pull => "pull", Direction::Push => "push" },
            "what": transfer.what, "place": transfer.place, "state": state, "reason": reason,
            "done_bytes": transfer.done_bytes, "total_bytes": transfer.total_bytes,
        }));
    }
}

impl Shown for Json {
    fn finish(&self, outcome: StepOutcome, elapsed: Duration) {
        if self.verbosity < Verbosity::Warn {
            emit(json!({"event": "ended", "outcome": word(outcome), "seconds": elapsed.as_secs_f64()}));
        }
    }
}

fn word(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Done => "done",
        StepOutcome::Cached => "cached",
        StepOutcome::Failed => "failed",
        StepOutcome::Cancelled => "canceled",
    }
}
