//! A terminal: finished things scroll by, running ones stay at the bottom.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use build::{Event, Observer, StepId};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use store::{Direction, Transfer, TransferObserver, TransferState};

use super::{Shown, short, size};
use crate::report;

pub struct Live {
    screen: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: HashMap<StepId, Step>,
    transfers: HashMap<(String, String), ProgressBar>,
}

struct Step {
    bar: ProgressBar,
    title: String,
    /// The end of its output, for when it fails.
    tail: Vec<u8>,
}

/// How much of a step's output is kept.
const TAIL_BYTES: usize = 16 << 10;

impl Live {
    pub fn new() -> Live {
        Live { screen: MultiProgress::new(), state: Mutex::default() }
    }

    fn say(&self, text: &str) {
        // A terminal that is gone leaves nobody to tell.
        let _ = self.screen.println(text);
    }

    fn spinner(&self, text: String) -> ProgressBar {
        let style = ProgressStyle::with_template(" {spinner} {wide_msg} {elapsed}").expect("a constant template");
        let bar = self.screen.add(ProgressBar::new_spinner().with_style(style).with_message(text));
        // Without a thread for it, which it would not do without, it stands still.
        if spawn::thread_now("tick", || ()).is_ok_and(|thread| thread.join().is_ok()) {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        bar
    }
}

impl Step {
    fn output(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
        let text = String::from_utf8_lossy(&self.tail);
        if let Some(last) = text.lines().rev().find(|l| !l.trim().is_empty()) {
            let printable: String = last.chars().filter(|c| !c.is_control()).take(200).collect();
            self.bar.set_message(format!("{}  │ {printable}", self.title));
        }
    }
}

impl Observer for Live {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Planned { .. } | Event::Layer { .. } | Event::StageStarted { .. } => {}
            Event::StepStarted { id, stage, index, total, title } => {
                let title = format!("[{stage} {}/{total}] {title}", index + 1);
                let bar = self.spinner(title.clone());
                state.steps.insert(*id, Step { bar, title, tail: Vec::new() });
            }
            Event::Output { id, bytes, .. } => {
                if let Some(step) = state.steps.get_mut(id) {
                    step.output(bytes);
                }
            }
            Event::StepDone { id, elapsed, failed } => {
                let Some(step) = state.steps.remove(id) else { return };
                step.bar.finish_and_clear();
                let mark = if *failed { "✗" } else { "✓" };
                self.say(&format!(" {mark} {} {:.1}s", step.title, elapsed.as_secs_f64()));
                if *failed {
                    self.say(String::from_utf8_lossy(&step.tail).trim_end());
                }
            }
            Event::Exporting { to } => self.say(&format!(" → {to}")),
            Event::Warning { message } => self.say(&format!("warning: {message}")),
            Event::Finding { finding, source, file } => self.say(&report::finding(finding, source, file)),
        }
    }
}

impl TransferObserver for Live {
    fn transfer(&self, transfer: &Transfer) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let verb = match transfer.direction {
            Direction::Pull => "pull",
            Direction::Push => "push",
        };
        let title = format!("{verb} {} {}", short(&transfer.what), transfer.place);
        let key = (transfer.what.clone(), format!("{verb} {}", transfer.place));
        match &transfer.state {
            TransferState::Started | TransferState::Progress | TransferState::Retry(_) => {
                let bar = state.transfers.entry(key).or_insert_with(|| self.spinner(title.clone()));
                let total = transfer.total_bytes.map_or_else(String::new, |t| format!(" of {}", size(t)));
                bar.set_message(format!("{title}  {}{total}", size(transfer.done_bytes)));
            }
            TransferState::Done | TransferState::Exists | TransferState::Mounted => {
                if let Some(bar) = state.transfers.remove(&key) {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

impl Shown for Live {
    fn has_shown_failure(&self) -> bool {
        !self.screen.is_hidden()
    }

    fn pause(&self) {
        // The screen is only decoration.
        let _ = self.screen.clear();
        self.screen.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn finish(&self) {
        // The screen is only decoration.
        let _ = self.screen.clear();
    }
}
