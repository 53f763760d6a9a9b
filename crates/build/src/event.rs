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

/// How a step, or the whole build, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepOutcome {
    Done,
    /// Its layer was known before.
    Cached,
    /// It is to blame.
    Failed,
    /// Stopped because another step failed, or because the build was interrupted.
    Cancelled,
}

/// What is done to have the files that a stage begins with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Preparing {
    /// The layers of its base are unpacked.
    Unpack,
    /// The files of a base or stage that others stand on as well are copied.
    Copy,
}

#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The base images are asked for.
    Planning,
    /// How many steps will run.
    Planned {
        steps: usize,
        elapsed: Duration,
    },
    /// The files that a stage begins with are being made; a base that several stages share once, for the first of them.
    StageStarted {
        stage: usize,
        name: &'a str,
        what: Preparing,
    },
    /// They are there.
    StagePrepared {
        stage: usize,
        name: &'a str,
        what: Preparing,
        elapsed: Duration,
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
    /// What the step had to do is done, and what it changed is being written.
    StepCommitting {
        id: StepId,
    },
    StepDone {
        id: StepId,
        elapsed: Duration,
        outcome: StepOutcome,
    },
    /// A layer is being compressed; of this size without compression.
    LayerStarted {
        number: u64,
        size_bytes: u64,
    },
    /// A layer is in the store.
    Layer {
        number: u64,
        digest: &'a str,
        size_bytes: u64,
        elapsed: Duration,
    },
    Exporting {
        to: &'a str,
    },
    Exported {
        to: &'a str,
        elapsed: Duration,
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
