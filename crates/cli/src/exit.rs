//! Published exit codes (`docs/exit-codes.md`).

use std::error::Error;
use std::io;
use std::process::ExitCode;

use build::BuildError;
use rootfs::RootfsError;
use sandbox::{Exit, SandboxError};
use spawn::NoneLeft;

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
        (Manner::Zuwai, error) => kind(error),
    }
}

fn kind(error: &BuildError) -> u8 {
    match error {
        error if is_the_hosts(error) => 6,
        BuildError::Dockerfile { .. } | BuildError::Request { .. } | BuildError::Context { .. } => 3,
        BuildError::Run { .. } => 4,
        BuildError::Sandbox { source: SandboxError::Start { .. }, .. } => 4,
        BuildError::Sandbox { source: SandboxError::MountPoint { .. }, .. } => 3,
        BuildError::Store { .. } => 5,
        // No instruction's: of a base image that is damaged, or of the builder's own files.
        BuildError::Rootfs { place: None, source: RootfsError::Io { .. } | RootfsError::Write(_), .. } => 6,
        BuildError::Rootfs { place: None, .. } => 5,
        BuildError::Rootfs { .. } => 3,
        BuildError::Sandbox { .. } => 6,
        BuildError::Cancelled => 130,
        BuildError::Io { .. } => 6,
        BuildError::Stopped => 1,
    }
}

/// Wherever it shows, neither a Dockerfile nor a registry is to blame: the disk is full, or there are no more processes.
fn is_the_hosts(error: &(dyn Error + 'static)) -> bool {
    let full = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
        )
    };
    let chain = std::iter::successors(Some(error), |error| (*error).source());
    NoneLeft::is_cause_of(error) || chain.filter_map(|error| error.downcast_ref()).any(full)
}

fn byte(code: i32) -> u8 {
    u8::try_from(code).ok().filter(|c| *c != 0).unwrap_or(1)
}
