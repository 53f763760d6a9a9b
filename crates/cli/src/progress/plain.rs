//! One line an event, in the order things happen: made for CI logs.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use build::{Event, Lines, Observer, StepId, StepOutcome};
use store::{Transfer, TransferObserver, TransferState};

use super::{Shown, ended, prepared, preparing, short, size};
use crate::args::Verbosity;
use crate::report::{self, visible};

pub struct Plain {
    verbosity: Verbosity,
    timestamps: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many steps have begun.
    begun: usize,
    running: HashMap<StepId, Running>,
}

/// A step.
struct Running {
    /// In the order they began.
    number: usize,
    begun: Instant,
    lines: Lines,
}

/// A layer of this size takes long enough for a line that says what is being done.
const LARGE_LAYER_BYTES: u64 = 64 << 20;

/// Reading the base images is worth a line when it takes so long.
const LONG_PLAN: Duration = Duration::from_secs(1);

impl Plain {
    pub fn new(verbosity: Verbosity, timestamps: bool) -> Plain {
        Plain { verbosity, timestamps, state: Mutex::default() }
    }

    fn line(&self, text: &str) {
        let mut out = anstream::stderr().lock();
        // A closed standard error leaves nobody to tell.
        let _ = if self.timestamps {
            writeln!(out, "{} {text}", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"))
        } else {
            writeln!(out, "{text}")
        };
    }

    fn output(&self, step: &mut Running, bytes: &[u8]) {
        let (number, at) = (step.number, step.begun.elapsed().as_secs_f64());
        step.lines.push(bytes, |line| self.line(&format!("#{number} {at:.3} {line}")));
    }

    fn done(&self, mut step: Running, elapsed: Duration, outcome: StepOutcome) {
        if let Some(line) = step.lines.finish() {
            self.line(&format!("#{} {:.3} {line}", step.number, elapsed.as_secs_f64()));
        }
        let word = match outcome {
            StepOutcome::Done => "DONE",
            StepOutcome::Cached => "CACHED",
            StepOutcome::Failed => "FAILED after",
            StepOutcome::Cancelled => "CANCELED after",
        };
        self.line(&format!("#{} {word} {}", step.number, seconds(elapsed)));
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

impl Observer for Plain {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Warning { message } => self.line(&format!("warning: {}", visible(message))),
            Event::Finding { finding, source, file } => self.line(&report::finding(finding, source, file)),
            _ if self.verbosity >= Verbosity::Warn => {}
            Event::Planning | Event::StepCommitting { .. } => {}
            Event::Planned { elapsed, .. } if *elapsed < LONG_PLAN => {}
            Event::Planned { elapsed, .. } => self.line(&format!("   read the base images in {}", seconds(*elapsed))),
            Event::StageStarted { name, what, .. } => self.line(&format!("   [{name}] {}", preparing(*what))),
            Event::StagePrepared { name, what, elapsed, .. } => {
                self.line(&format!("   [{name}] {} in {}", prepared(*what), seconds(*elapsed)));
            }
            Event::StepStarted { id, stage, index, total, title } => {
                state.begun += 1;
                let number = state.begun;
                state.running.insert(*id, Running { number, begun: Instant::now(), lines: Lines::colored() });
                self.line(&format!("#{number} [{stage} {}/{total}] {}", index + 1, visible(title)));
            }
            Event::Output { id, bytes, .. } => {
                if let Some(step) = state.running.get_mut(id) {
                    self.output(step, bytes);
                }
            }
            Event::StepDone { id, elapsed, outcome } => {
                if let Some(step) = state.running.remove(id) {
                    self.done(step, *elapsed, *outcome);
                }
            }
            Event::LayerStarted { size_bytes, .. } if *size_bytes < LARGE_LAYER_BYTES => {}
            Event::LayerStarted { size_bytes, .. } => {
                self.line(&format!("   compressing a layer of {}", size(*size_bytes)));
            }
            Event::Layer { digest, size_bytes, elapsed, .. } => {
                self.line(&format!("   layer {} {} in {}", short(digest), size(*size_bytes), seconds(*elapsed)));
            }
            Event::Exporting { to } => self.line(&format!("   exporting to {}", visible(to))),
            Event::Exported { to, elapsed } => {
                self.line(&format!("   exported to {} in {}", visible(to), seconds(*elapsed)));
            }
        }
    }
}

impl TransferObserver for Plain {
    fn transfer(&self, transfer: &Transfer) {
        if self.verbosity >= Verbosity::Warn {
            return;
        }
        let verb = match transfer.direction {
            store::Direction::Pull => "pull",
            store::Direction::Push => "push",
        };
        let what = format!("   {verb} {} {}", visible(short(&transfer.what)), visible(&transfer.place));
        match &transfer.state {
            TransferState::Started | TransferState::Progress => {}
            TransferState::Done => self.line(&format!("{what} done, {}", size(transfer.done_bytes))),
            TransferState::Exists => self.line(&format!("{what} is there already")),
            TransferState::Mounted => self.line(&format!("{what} mounted from another repository")),
            TransferState::Retry(why) => self.line(&format!("{what} again: {}", visible(why))),
        }
    }
}

impl Shown for Plain {
    fn finish(&self, outcome: StepOutcome, elapsed: Duration) {
        if self.verbosity < Verbosity::Warn {
            self.line(&format!("   {} {}", ended(outcome), seconds(elapsed)));
        }
    }
}
