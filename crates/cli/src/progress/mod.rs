//! What happens, shown: live on a terminal, plain lines in CI, JSON for programs. Everything goes to standard error.

mod json;
mod live;
mod plain;

pub use json::emit as emit_json;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use build::{Preparing, StepOutcome};

use crate::args::{Display, LogFormat, Progress, Verbosity};

/// Shows a build and its transfers.
pub trait Shown: build::Observer + store::TransferObserver {
    /// Puts the screen in order before other output, and says how the build ended.
    fn finish(&self, _: StepOutcome, _: Duration) {}

    /// Leaves the screen to somebody else from here on.
    fn pause(&self) {}

    /// Whether the output of a step that failed stands right above whatever comes next, so that nobody needs it again.
    fn has_shown_failure(&self) -> bool {
        false
    }
}

/// Shows nothing.
pub fn silent() -> Arc<dyn Shown> {
    Arc::new(Silent)
}

/// The way that was asked for, or that fits standard error.
pub fn choose(display: &Display, timestamps: bool) -> Arc<dyn Shown> {
    if is_quiet(display) {
        return silent();
    }
    if is_json(display) {
        return Arc::new(json::Json::new(display.verbosity));
    }
    // The live screen shows nothing where there is none, and all or nothing where there is one.
    let possible = std::io::stderr().is_terminal() && display.verbosity < Verbosity::Warn;
    let live = match display.progress {
        Progress::Tty => possible,
        Progress::Auto => possible && !timestamps,
        Progress::Plain | Progress::Quiet | Progress::Rawjson => false,
    };
    if live {
        return Arc::new(live::Live::new());
    }
    Arc::new(plain::Plain::new(display.verbosity, timestamps))
}

/// Only errors are said.
pub fn is_quiet(display: &Display) -> bool {
    display.quiet || display.progress == Progress::Quiet || display.verbosity >= Verbosity::Error
}

/// Whatever is said on standard error is a JSON object on a line.
pub fn is_json(display: &Display) -> bool {
    display.log_format == LogFormat::Json || display.progress == Progress::Rawjson
}

struct Silent;

impl build::Observer for Silent {
    fn event(&self, _: &build::Event<'_>) {}
}

impl store::TransferObserver for Silent {
    fn transfer(&self, _: &store::Transfer) {}
}

impl Shown for Silent {}

/// What is done for the files that a stage begins with.
fn preparing(what: Preparing) -> &'static str {
    match what {
        Preparing::Unpack => "unpacking its base",
        Preparing::Copy => "copying the files it begins with",
    }
}

/// The same when it is done, before the time that it took.
fn prepared(what: Preparing) -> &'static str {
    match what {
        Preparing::Unpack => "unpacked its base",
        Preparing::Copy => "copied the files it begins with",
    }
}

/// What goes before the time that a build took.
fn ended(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Done | StepOutcome::Cached => "built in",
        StepOutcome::Failed => "failed after",
        StepOutcome::Cancelled => "canceled after",
    }
}

/// `1.5 MB`, as docker counts.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A digest as people recognise it.
fn short(what: &str) -> &str {
    match what.strip_prefix("sha256:") {
        Some(hex) => hex.get(..12).unwrap_or(hex),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (bytes, want) in [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (48_000_000, "48.0 MB")] {
            assert_eq!(super::size(bytes), want);
        }
    }
}
