//! Published exit codes (`docs/exit-codes.md`).

use std::process::ExitCode;

use build::BuildError;
use sandbox::{Exit, SandboxError};

use crate::Manner;
use crate::report::Failure;

/// The command line was wrong. `--help` and `--version` are no failures.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a closed terminal.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// 1 our bug, 2 usage, 3 Dockerfile or context, 4 a RUN failed, 5 registry or image store, 6 host cannot isolate, 130
/// interrupted. In kaniko's manner a RUN gives its own code and everything else 1.
pub fn code(failure: &Failure, manner: Manner) -> ExitCode {
    let error = match failure {
        Failure::Usage { .. } => return ExitCode::from(if manner == Manner::Kaniko { 1 } else { 2 }),
        Failure::Dockerfile { .. } => return ExitCode::from(if manner == Manner::Kaniko { 1 } else { 3 }),
        Failure::Other { code, .. } => return ExitCode::from(if manner == Manner::Kaniko { 1 } else { *code }),
        Failure::Build { error, .. } => error.as_ref(),
    };
    if matches!(error, BuildError::Cancelled) {
        return ExitCode::from(130);
    }
    match (manner, error) {
        (Manner::Kaniko, BuildError::Run { exit: Exit::Code(code), .. }) => ExitCode::from(byte(*code)),
        (Manner::Kaniko, BuildError::Run { exit: Exit::Signal(signal), .. }) => ExitCode::from(byte(128 + *signal)),
        (Manner::Kaniko, _) => ExitCode::FAILURE,
        (Manner::Zuwai, error) => ExitCode::from(kind(error)),
    }
}

fn kind(error: &BuildError) -> u8 {
    match error {
        BuildError::Dockerfile { .. } | BuildError::Request { .. } | BuildError::Context { .. } => 3,
        BuildError::Run { .. } => 4,
        BuildError::Sandbox { source: SandboxError::Start { .. }, .. } => 4,
        BuildError::Store { .. } => 5,
        BuildError::Rootfs { place: None, .. } => 5,
        BuildError::Rootfs { .. } => 3,
        BuildError::Sandbox { .. } => 6,
        BuildError::Cancelled => 130,
        BuildError::Io { .. } => 6,
        BuildError::Stopped => 1,
    }
}

fn byte(code: i32) -> u8 {
    u8::try_from(code).ok().filter(|c| *c != 0).unwrap_or(1)
}
