//! zuwai on the command line: flags to values, values to a build, events to a screen, errors to exit codes.

mod args;
mod command;
mod docker;
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
mod work;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::args::Command;
use crate::inquiry::Question;
use crate::report::{Failure, Voice};
use crate::work::WorkDir;

/// musl's own allocator is several times slower under threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A child that was started to set up a sandbox never comes back from here; it has to stay without threads.
    sandbox::probe::dispatch_child();
    let (words, manner) = words(std::env::args_os().collect());
    let cli = match args::parse(words) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error, manner),
    };
    let voice = cli.command.display().map(Voice::of).unwrap_or_default();
    voice.tell_panics();
    let mut work = None;
    // A stage's thread or the main one: a panic is always a fault of ours, and its hook has said where.
    let result = catch_unwind(AssertUnwindSafe(|| run(cli.command, manner, voice, &mut work)));
    let status = match result {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            let status = exit::code(&failure, manner);
            voice.failure(&failure, status);
            status
        }
        Err(_) => {
            voice.fault();
            1
        }
    };
    // Only now that all is said: it may take a while.
    if let Some(work) = work {
        work.remove(voice);
    }
    ExitCode::from(status)
}

fn run(command: Command, manner: Manner, voice: Voice, work: &mut Option<WorkDir>) -> Result<(), Failure> {
    match command {
        Command::Build(build) => command::build(*build, manner, voice, work),
        Command::Lint(asked) => inquiry::ask(*asked, Question::Check, manner, voice, work),
        Command::Outline(asked) => inquiry::ask(*asked, Question::Outline, manner, voice, work),
        Command::Targets(asked) => inquiry::ask(*asked, Question::Targets, manner, voice, work),
        Command::Doctor(doctor) => command::doctor(&doctor),
        Command::Version => command::version(),
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
