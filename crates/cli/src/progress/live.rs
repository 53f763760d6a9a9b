//! A terminal: finished things scroll by, running ones stay at the bottom.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use build::{Event, Observer, Preparing, StepId, StepOutcome, Tail};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use store::{Direction, Transfer, TransferObserver, TransferState};

use super::{Shown, ended, prepared, preparing, short, size};
use crate::report::{self, visible};

pub struct Live {
    screen: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: HashMap<StepId, Step>,
    others: HashMap<Other, ProgressBar>,
    transfers: HashMap<(String, String), ProgressBar>,
}

/// What is done and is no step.
#[derive(PartialEq, Eq, Hash)]
enum Other {
    Plan,
    Files(usize, Preparing),
    Layer(u64),
    Export(String),
}

struct Step {
    bar: ProgressBar,
    title: String,
    /// A line of its own below the title, once there is something to say.
    below: Option<ProgressBar>,
    /// The end of its output, for when it fails.
    tail: Tail,
}

/// How much of a failed step's output is shown: here nothing of it stands above.
const TAIL_LINES: usize = 200;
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

    fn begin(&self, state: &mut State, other: Other, text: String) {
        state.others.insert(other, self.spinner(text));
    }

    fn done(&self, mut step: Step, elapsed: Duration, outcome: StepOutcome) {
        if let Some(below) = &step.below {
            below.finish_and_clear();
        }
        step.bar.finish_and_clear();
        let time = seconds(elapsed);
        match outcome {
            StepOutcome::Done => self.say(&one_line('✓', &step.title, &time)),
            StepOutcome::Cached => self.say(&one_line('✓', &step.title, "CACHED")),
            StepOutcome::Cancelled => self.say(&one_line('-', &step.title, &format!("CANCELED after {time}"))),
            StepOutcome::Failed => {
                self.say(&one_line('✗', &step.title, &format!("FAILED after {time}")));
                self.say(&step.tail.lines());
            }
        }
    }

    /// Shows a text below the title of a step: beside it there may be no room.
    fn below(&self, step: &mut Step, text: String) {
        let below = step.below.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("   │ {wide_msg}").expect("a constant template");
            self.screen.insert_after(&step.bar, ProgressBar::new_spinner().with_style(style))
        });
        below.set_message(text);
    }
}

/// A line that fits the screen, however long the title is.
fn one_line(mark: char, title: &str, end: &str) -> String {
    let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let room = columns.saturating_sub(end.chars().count() + 4);
    match title.char_indices().nth(room) {
        Some((cut, _)) if columns > 0 => {
            let begin: String = title[..cut].chars().take(room.saturating_sub(1)).collect();
            format!(" {mark} {begin}… {end}")
        }
        _ => format!(" {mark} {title} {end}"),
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

impl State {
    fn end(&mut self, other: &Other) {
        if let Some(bar) = self.others.remove(other) {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Live {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Planning => self.begin(&mut state, Other::Plan, "reading the base images".to_owned()),
            Event::Planned { .. } => state.end(&Other::Plan),
            Event::StageStarted { stage, name, what } => {
                self.begin(&mut state, Other::Files(*stage, *what), format!("[{name}] {}", preparing(*what)));
            }
            Event::StagePrepared { stage, name, what, elapsed } => {
                state.end(&Other::Files(*stage, *what));
                self.say(&format!(" ✓ [{name}] {} {}", prepared(*what), seconds(*elapsed)));
            }
            Event::StepStarted { id, stage, index, total, title } => {
                let title = format!("[{stage} {}/{total}] {}", index + 1, visible(title));
                let bar = self.spinner(title.clone());
                state.steps.insert(*id, Step { bar, title, below: None, tail: Tail::new(TAIL_LINES, TAIL_BYTES) });
            }
            Event::Output { id, bytes, .. } => {
                if let Some(step) = state.steps.get_mut(id) {
                    step.tail.push(bytes);
                    if let Some(line) = step.tail.last_line() {
                        self.below(step, line.replace('\t', "    "));
                    }
                }
            }
            Event::StepCommitting { id } => {
                if let Some(step) = state.steps.get_mut(id) {
                    self.below(step, "writing what it changed".to_owned());
                }
            }
            Event::StepDone { id, elapsed, outcome } => {
                if let Some(step) = state.steps.remove(id) {
                    self.done(step, *elapsed, *outcome);
                }
            }
            Event::LayerStarted { number, size_bytes } => {
                let text = format!("compressing a layer of {}", size(*size_bytes));
                self.begin(&mut state, Other::Layer(*number), text);
            }
            Event::Layer { number, .. } => state.end(&Other::Layer(*number)),
            Event::Exporting { to } => {
                self.begin(&mut state, Other::Export((*to).to_owned()), format!("exporting to {}", visible(to)));
            }
            Event::Exported { to, elapsed } => {
                state.end(&Other::Export((*to).to_owned()));
                self.say(&format!(" → {} {}", visible(to), seconds(*elapsed)));
            }
            Event::Warning { message } => self.say(&format!("warning: {}", visible(message))),
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
        let title = format!("{verb} {} {}", visible(short(&transfer.what)), visible(&transfer.place));
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

    fn finish(&self, outcome: StepOutcome, elapsed: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { steps, others, transfers } = std::mem::take(&mut *state);
        let steps = steps.into_values().flat_map(|step| [Some(step.bar), step.below]).flatten();
        let bars = steps.chain(others.into_values()).chain(transfers.into_values());
        bars.for_each(|bar| bar.finish_and_clear());
        let mark = if outcome == StepOutcome::Done { '✓' } else { ' ' };
        self.say(&format!(" {mark} {} {}", ended(outcome), seconds(elapsed)));
        // The screen is only decoration.
        let _ = self.screen.clear();
    }
}
