//! One line an event, in the order things happen: made for CI logs.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use build::{Event, Observer, StepId};
use store::{Transfer, TransferObserver, TransferState};

use super::{Shown, short, size};
use crate::args::Verbosity;
use crate::report;

pub struct Plain {
    verbosity: Verbosity,
    timestamps: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Number of each step, in the order they began.
    numbers: HashMap<StepId, usize>,
    /// Output without its newline yet, and when the step began.
    partial: HashMap<StepId, Vec<u8>>,
    begun: HashMap<StepId, Instant>,
}

/// Longest piece of a line that is held back while its end has not come.
const LONGEST_PARTIAL: usize = 64 << 10;

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

    fn output(&self, state: &mut State, id: StepId, bytes: &[u8]) {
        let number = state.numbers.get(&id).copied().unwrap_or_default();
        let at = state.begun.get(&id).map_or(0.0, |b| b.elapsed().as_secs_f64());
        let mut held = state.partial.remove(&id).unwrap_or_default();
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.line(&format!("#{number} {at:.3} {}", shown(&rest[..end])));
            rest = &rest[end + 1..];
        }
        if rest.len() > LONGEST_PARTIAL {
            self.line(&format!("#{number} {at:.3} {}", shown(rest)));
            rest = &[];
        }
        let rest = rest.to_vec();
        state.partial.insert(id, rest);
    }
}

/// A line of output as text; a carriage return starts it anew, as on a terminal.
pub fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let visible = line.rsplit(|b| *b == b'\r').next().unwrap_or(line);
    String::from_utf8_lossy(visible).into_owned()
}

impl Observer for Plain {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Warning { message } => self.line(&format!("warning: {message}")),
            Event::Finding { finding, source, file } => self.line(&report::finding(finding, source, file)),
            _ if self.verbosity >= Verbosity::Warn => {}
            Event::Planned { .. } => {}
            Event::StageStarted { name, .. } => self.line(&format!("   [{name}] unpacking its base")),
            Event::StepStarted { id, stage, index, total, title } => {
                let number = state.numbers.len() + 1;
                state.numbers.insert(*id, number);
                state.begun.insert(*id, Instant::now());
                self.line(&format!("#{number} [{stage} {}/{total}] {title}", index + 1));
            }
            Event::Output { id, bytes, .. } => self.output(&mut state, *id, bytes),
            Event::StepDone { id, elapsed, failed } => {
                if state.partial.get(id).is_some_and(|held| !held.is_empty()) {
                    self.output(&mut state, *id, b"\n");
                }
                let number = state.numbers.get(id).copied().unwrap_or_default();
                let word = if *failed { "FAILED after" } else { "DONE" };
                self.line(&format!("#{number} {word} {:.1}s", elapsed.as_secs_f64()));
            }
            Event::Layer { digest, size_bytes } => {
                self.line(&format!("   layer {} {}", short(digest), size(*size_bytes)))
            }
            Event::Exporting { to } => self.line(&format!("   exporting to {to}")),
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
        let what = format!("   {verb} {} {}", short(&transfer.what), transfer.place);
        match &transfer.state {
            TransferState::Started | TransferState::Progress => {}
            TransferState::Done => self.line(&format!("{what} done, {}", size(transfer.done_bytes))),
            TransferState::Exists => self.line(&format!("{what} is there already")),
            TransferState::Mounted => self.line(&format!("{what} mounted from another repository")),
            TransferState::Retry(why) => self.line(&format!("{what} again: {why}")),
        }
    }
}

impl Shown for Plain {}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn lines_of_programs_that_redraw() {
        for (line, want) in [(&b"a\rbc"[..], "bc"), (b"plain\r", "plain"), (b"\xff", "\u{fffd}"), (b"", "")] {
            assert_eq!(shown(line), want);
        }
    }
}
