//! Flags of one instruction: which are known, how often, and with what kind of value.

use super::Name;
use crate::lex::Piece;
use crate::source::Line;
use crate::suggest::did_you_mean;
use crate::{Diagnostic, Word};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlagKind {
    /// `--flag`, `--flag=true`, `--flag=false`
    Bool,
    /// `--flag=text`, once.
    Text,
    /// `--flag=text`, any number of times.
    List,
}

/// The flags that were given, checked. Values of [`FlagKind::Bool`] are `true` or `false`.
pub(super) struct Flags {
    given: Vec<(&'static str, Word)>,
}

impl Flags {
    pub fn read(instruction: Name, line: &Line, pieces: &[Piece]) -> Result<Flags, Diagnostic> {
        let mut flags = Flags { given: Vec::new() };
        for piece in pieces {
            let (name, kind, word) = read_flag(instruction, line, piece)?;
            if kind != FlagKind::List && flags.get(name).is_some() {
                return Err(Diagnostic::error(format!("duplicate flag `--{name}`"), line.span(piece.at.clone())));
            }
            flags.given.push((name, word));
        }
        Ok(flags)
    }

    pub fn get(&self, name: &str) -> Option<&Word> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, word)| word)
    }

    pub fn take(&mut self, name: &str) -> Option<Word> {
        let index = self.given.iter().position(|(given, _)| *given == name)?;
        Some(self.given.remove(index).1)
    }

    pub fn take_bool(&mut self, name: &str) -> Option<bool> {
        self.take(name).map(|word| word.text == "true")
    }

    pub fn take_all(&mut self, name: &str) -> Vec<Word> {
        self.given.extract_if(.., |(given, _)| *given == name).map(|(_, word)| word).collect()
    }
}

fn read_flag(instruction: Name, line: &Line, piece: &Piece) -> Result<(&'static str, FlagKind, Word), Diagnostic> {
    let fail = |message: String| Diagnostic::error(message, line.span(piece.at.clone()));
    let written = &piece.text["--".len()..];
    let (name, value) = match written.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (written, None),
    };
    let known = instruction.flags();
    let Some((name, kind)) = known.iter().copied().find(|(known, _)| *known == name) else {
        let hint = did_you_mean(name, known.iter().map(|(known, _)| *known));
        return Err(Diagnostic { hint, ..fail(format!("unknown flag `--{name}` of {}", instruction.text())) });
    };
    let text = match (kind, value) {
        (FlagKind::Bool, Some(value)) if !value.is_empty() => {
            boolean(value).ok_or_else(|| fail(format!("flag `--{name}` is `true` or `false`, not `{value}`")))?
        }
        (FlagKind::Bool, None) => "true",
        (FlagKind::Text | FlagKind::List, Some(value)) => value,
        _ => return Err(fail(format!("flag `--{name}` needs a value"))),
    };
    Ok((name, kind, Word { text: text.to_owned(), span: line.span(value_range(line, piece, value)) }))
}

fn boolean(value: &str) -> Option<&'static str> {
    match value.to_lowercase().as_str() {
        "true" => Some("true"),
        "false" => Some("false"),
        _ => None,
    }
}

/// Where the value is; the whole flag when quotes or escapes make that inexact.
fn value_range(line: &Line, piece: &Piece, value: Option<&str>) -> std::ops::Range<usize> {
    match value {
        Some(value) if line.text[piece.at.clone()] == piece.text => piece.at.end - value.len()..piece.at.end,
        _ => piece.at.clone(),
    }
}
