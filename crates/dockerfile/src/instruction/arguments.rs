//! The forms that arguments have: one text, a list, a JSON array, pairs.

use std::ops::Range;

use super::Name;
use crate::json::{self, Exec};
use crate::lex::{self, Piece};
use crate::source::Line;
use crate::{Command, Diagnostic};

pub(super) enum Arguments {
    None,
    Text(Piece),
    List(Vec<Piece>),
    /// A JSON array of strings.
    Exec(Vec<Piece>),
    Pairs {
        pairs: Vec<(Piece, Piece)>,
        legacy: bool,
    },
    Health {
        kind: Piece,
        command: Option<Box<Arguments>>,
    },
    /// What ONBUILD triggers.
    Trigger {
        name: Piece,
        may_have_heredocs: bool,
    },
}

impl Arguments {
    /// Cuts the arguments of an instruction in the way that it wants.
    pub fn read(name: Name, line: &Line, range: Range<usize>, escape: char) -> Result<Arguments, Diagnostic> {
        if range.is_empty() {
            return Ok(Arguments::None);
        }
        let text = || Arguments::Text(Piece { text: line.text[range.clone()].to_owned(), at: range.clone() });
        let list = || Arguments::List(lex::split(&line.text, range.clone()));
        Ok(match name {
            Name::Cmd | Name::Entrypoint | Name::Run | Name::Shell => {
                exec(name, line, range.clone())?.unwrap_or_else(text)
            }
            Name::Add | Name::Copy | Name::Volume => exec(name, line, range.clone())?.unwrap_or_else(list),
            Name::Expose | Name::From => list(),
            Name::Arg => Arguments::List(lex::quoted_words(&line.text, range, escape)),
            Name::Env | Name::Label => pairs(name, line, range, escape)?,
            Name::Maintainer | Name::Stopsignal | Name::User | Name::Workdir => text(),
            Name::Healthcheck => health(line, range)?,
            Name::Onbuild => trigger(line, range, escape)?,
        })
    }

    pub fn is_exec(&self) -> bool {
        matches!(self, Arguments::Exec(_))
    }

    /// All arguments in order; empty for those forms that are no lists.
    pub fn pieces(&self) -> &[Piece] {
        match self {
            Arguments::Text(piece) => std::slice::from_ref(piece),
            Arguments::List(pieces) | Arguments::Exec(pieces) => pieces,
            Arguments::None | Arguments::Pairs { .. } | Arguments::Health { .. } | Arguments::Trigger { .. } => &[],
        }
    }

    /// Exec form for a JSON array, else shell form.
    pub fn command(&self) -> Command {
        match self {
            Arguments::Exec(pieces) => Command::Exec(pieces.iter().map(|piece| piece.text.clone()).collect()),
            other => Command::Shell(other.pieces().first().map(|piece| piece.text.clone()).unwrap_or_default()),
        }
    }

    /// Whether `<<` means something in these arguments.
    pub fn may_have_heredocs(&self, name: Name) -> bool {
        match self {
            Arguments::Trigger { may_have_heredocs, .. } => *may_have_heredocs,
            other => matches!(name, Name::Add | Name::Copy | Name::Run) && !other.is_exec(),
        }
    }
}

/// `None`: not a JSON array.
fn exec(name: Name, line: &Line, range: Range<usize>) -> Result<Option<Arguments>, Diagnostic> {
    match json::exec_form(&line.text[range.clone()]) {
        Exec::NotJson => Ok(None),
        Exec::NotStrings => {
            let message = format!("{} has a JSON array with other things than strings", name.text());
            Err(Diagnostic::error(message, line.span(range)))
        }
        Exec::Strings(strings) => {
            let piece =
                |(text, at): (String, Range<usize>)| Piece { text, at: range.start + at.start..range.start + at.end };
            Ok(Some(Arguments::Exec(strings.into_iter().map(piece).collect())))
        }
    }
}

/// `name=value …`, or the old form `name value`: which one it is, is decided by a `=` in the first word.
fn pairs(name: Name, line: &Line, range: Range<usize>, escape: char) -> Result<Arguments, Diagnostic> {
    let words = lex::quoted_words(&line.text, range.clone(), escape);
    let Some(first) = words.first() else { return Ok(Arguments::None) };
    if !first.text.contains('=') {
        let Some((key, value)) = lex::first_blank(&line.text, range.clone()) else {
            let message = format!("{} needs two arguments, a name and a value", name.text());
            return Err(Diagnostic::error(message, line.span(range)));
        };
        let piece = |at: Range<usize>| Piece { text: line.text[at.clone()].to_owned(), at };
        return Ok(Arguments::Pairs { pairs: vec![(piece(key), piece(value))], legacy: true });
    }
    let no_pair = |word: &Piece| {
        let message = format!("{} has `{}` without `=`: it must be `name=value`", name.text(), word.text);
        Diagnostic::error(message, line.span(word.at.clone()))
    };
    let pairs = words.iter().map(|word| split_pair(word).ok_or_else(|| no_pair(word))).collect::<Result<_, _>>()?;
    Ok(Arguments::Pairs { pairs, legacy: false })
}

/// `name=value` with the places of both.
pub(super) fn split_pair(word: &Piece) -> Option<(Piece, Piece)> {
    let (name, value) = word.text.split_once('=')?;
    // The text lacks at most an escape at its end, so offsets from the start hold.
    let middle = word.at.start + name.len();
    let name = Piece { text: name.to_owned(), at: word.at.start..middle };
    Some((name, Piece { text: value.to_owned(), at: middle + 1..word.at.end }))
}

/// `NONE`, or `CMD` and a command in either form.
fn health(line: &Line, range: Range<usize>) -> Result<Arguments, Diagnostic> {
    let text = &line.text[range.clone()];
    let kind_end = range.start + text.find(char::is_whitespace).unwrap_or(text.len());
    let kind = Piece { text: line.text[range.start..kind_end].to_owned(), at: range.start..kind_end };
    let rest = range.end - line.text[kind_end..range.end].trim_start().len()..range.end;
    let command = match rest.is_empty() {
        true => None,
        false => Some(Box::new(
            exec(Name::Healthcheck, line, rest.clone())?
                .unwrap_or_else(|| Arguments::Text(Piece { text: line.text[rest.clone()].to_owned(), at: rest })),
        )),
    };
    Ok(Arguments::Health { kind, command })
}

/// As in BuildKit the form of the trigger's arguments is checked, but not whether the instruction exists: the image may be
/// meant for a builder that knows more.
fn trigger(line: &Line, range: Range<usize>, escape: char) -> Result<Arguments, Diagnostic> {
    let parts = lex::parts(&line.text[..range.end], range.start, escape);
    let may_have_heredocs = match Name::parse(&parts.name.text) {
        None | Some(Name::Onbuild) => false,
        Some(name) => Arguments::read(name, line, parts.arguments, escape)?.may_have_heredocs(name),
    };
    Ok(Arguments::Trigger { name: parts.name, may_have_heredocs })
}
