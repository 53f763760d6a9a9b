//! Published exit codes (`docs/exit-codes.md`).

use std::process::ExitCode;

use build::{BuildError, ErrorKind, is_the_hosts};
use sandbox::Exit;

use crate::Manner;
use crate::report::Failure;

/// The command line was wrong. `--help` and `--version` are no failures.
pub fn usage(error: &clap::Error, manner: Manner) -> ExitCode {
    // Nothing can be done about a closed terminal.
    let _ = error.print();
    match manner {
        _ if !error.use_stderr() => ExitCode::SUCCESS,
        Manner::Kaniko => ExitCode::FAILURE,
        Manner::Zuwai => ExitCode::from(2),
    }
}

/// 1 our bug, 2 usage, 3 Dockerfile or context, 4 a RUN failed, 5 registry or image store, 6 host cannot isolate, 7
/// `--verify` found differences, 130 interrupted. In kaniko's manner a RUN gives its own code and everything else 1.
pub fn code(failure: &Failure, manner: Manner) -> u8 {
    let error = match failure {
        Failure::Usage { .. } => return if manner == Manner::Kaniko { 1 } else { 2 },
        Failure::Dockerfile { .. } => return if manner == Manner::Kaniko { 1 } else { 3 },
        Failure::Findings => return if manner == Manner::Kaniko { 1 } else { 3 },
        Failure::Interrupted => return 130,
        Failure::Other { .. } if manner == Manner::Kaniko => return 1,
        Failure::Other { error, .. } if is_the_hosts(error.as_ref()) => return 6,
        Failure::Other { code, .. } => return *code,
        Failure::Build { error, .. } => error.as_ref(),
    };
    if matches!(error, BuildError::Cancelled) {
        return 130;
    }
    match (manner, error) {
        (Manner::Kaniko, BuildError::Run { exit: Exit::Code(code), .. }) => byte(*code),
        (Manner::Kaniko, BuildError::Run { exit: Exit::Signal(signal), .. }) => byte(128 + *signal),
        (Manner::Kaniko, _) => 1,
        (Manner::Zuwai, error) => of_kind(error.kind()),
    }
}

/// The table of `docs/exit-codes.md`.
fn of_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Bug => 1,
        ErrorKind::Dockerfile => 3,
        ErrorKind::Run => 4,
        ErrorKind::Image => 5,
        ErrorKind::Host => 6,
        ErrorKind::Cancelled => 130,
    }
}

fn byte(code: i32) -> u8 {
    u8::try_from(code).ok().filter(|c| *c != 0).unwrap_or(1)
}
