//! Checks of this repository that no published tool does: `cargo xtask tidy`.
//!
//! Everything that tests need beyond Rust is shell (`./test`, `tests/`); this program only reads the repository and what
//! `cargo metadata` says of it.

mod language;
mod licences;
mod tidy;

use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy(),
        _ => {
            writeln!(std::io::stderr(), "{USAGE}")?;
            Ok(ExitCode::from(2))
        }
    }
}

/// Prints what is wrong and what is worth a look; only the former fails.
fn tidy() -> anyhow::Result<ExitCode> {
    let report = tidy::check(&tidy::Repository::open()?)?;
    let mut out = std::io::stdout().lock();
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    for problem in &report.problems {
        writeln!(out, "error: {problem}")?;
    }
    writeln!(out, "tidy: {} problems, {} notes", report.problems.len(), report.notes.len())?;
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
