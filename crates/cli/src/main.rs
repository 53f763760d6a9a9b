//! zuwai on the command line: flags to values, values to a build, events to a screen, errors to exit codes.

mod args;
mod command;
mod exit;
mod inquiry;
mod labels;
mod lint;
mod on_failure;
mod outline;
mod progress;
mod report;
mod settings;
mod signals;
mod terminal;
mod verify;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::args::Command;

/// musl's own allocator is several times slower under threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A child that was started to set up a sandbox never comes back from here; it has to stay without threads.
    sandbox::probe::dispatch_child();
    // The hook has said where; a stage's thread or the main one, it is always a fault of ours.
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        report::print_fault();
        ExitCode::FAILURE
    })
}

fn run() -> ExitCode {
    let (words, manner) = words(std::env::args_os().collect());
    let cli = match args::parse(words) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error, manner),
    };
    let result = match cli.command {
        Command::Build(build) => command::build(*build, manner),
        Command::Lint(asked) => inquiry::ask(*asked, inquiry::Question::Check, manner),
        Command::Outline(asked) => inquiry::ask(*asked, inquiry::Question::Outline, manner),
        Command::Targets(asked) => inquiry::ask(*asked, inquiry::Question::Targets, manner),
        Command::Doctor(doctor) => command::doctor(&doctor),
        Command::Version => command::version(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::print(&failure);
            exit::code(&failure, manner)
        }
    }
}

/// Whose habits are followed where docker's and kaniko's differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// `zuwai build`.
    Zuwai,
    /// Started as `executor`: a failing RUN gives its own exit code, everything else that fails 1.
    Kaniko,
}

/// First words behind `executor` that are no flags or contexts of a build.
const COMMANDS: [&str; 8] = ["build", "lint", "outline", "targets", "doctor", "version", "-h", "--help"];

/// Started as `executor`, the sub-command may be left out.
fn words(mut words: Vec<OsString>) -> (Vec<OsString>, Manner) {
    let name = words.first().map(std::path::Path::new).and_then(|p| p.file_name()).unwrap_or_default();
    if name != "executor" {
        return (words, Manner::Zuwai);
    }
    let has_command = words.get(1).is_some_and(|w| COMMANDS.iter().any(|c| w == c));
    if !has_command {
        words.insert(1, "build".into());
    }
    (words, Manner::Kaniko)
}
