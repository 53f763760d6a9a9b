//! What happens during a build, for whoever shows it.

use std::time::Duration;

use dockerfile::Diagnostic;
use sandbox::Stream;

/// Stage (position in the plan) and step within it, both from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StepId {
    pub stage: usize,
    pub step: usize,
}

#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// How many steps will run.
    Planned {
        steps: usize,
    },
    /// A stage's base is being unpacked.
    StageStarted {
        stage: usize,
        name: &'a str,
    },
    StepStarted {
        id: StepId,
        stage: &'a str,
        index: usize,
        total: usize,
        title: &'a str,
    },
    Output {
        id: StepId,
        stream: Stream,
        bytes: &'a [u8],
    },
    StepDone {
        id: StepId,
        elapsed: Duration,
        failed: bool,
    },
    /// A layer is in the store.
    Layer {
        digest: &'a str,
        size_bytes: u64,
    },
    Exporting {
        to: &'a str,
    },
    Warning {
        message: String,
    },
    /// A violated build check, with the text it points into and how that is called.
    Finding {
        finding: &'a Diagnostic,
        source: &'a str,
        file: &'a str,
    },
}

/// Told what happens. Called from several threads; returns quickly.
pub trait Observer: Send + Sync {
    fn event(&self, event: &Event<'_>);
}
