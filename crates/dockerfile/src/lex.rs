//! One logical line to its name, flags and arguments, in the several ways that instructions have.
//!
//! Offsets here are those of the joined line; [`crate::source::Line::span`] leads back to the source.

use std::ops::Range;

/// A piece of a line. `text` may differ from what stands there (quotes of flags are gone, JSON is decoded).
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub text: String,
    pub at: Range<usize>,
}

/// BuildKit's white space between arguments. Unlike Unicode's it lacks the line feed, which no line has.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// A line cut into its parts.
pub(crate) struct Parts {
    pub name: Piece,
    pub flags: Vec<Piece>,
    /// Where the arguments are, without white space around them.
    pub arguments: Range<usize>,
}

/// Cuts `line[from..]`.
pub(crate) fn parts(line: &str, from: usize, escape: char) -> Parts {
    let all = trimmed(line, from..line.len());
    let name_end = line[all.clone()].find(is_blank).map_or(all.end, |length| all.start + length);
    let after_name = all.end - line[name_end..all.end].trim_start_matches(is_blank).len();
    let (flags, rest) = flags(line, after_name..all.end, escape);
    let name = Piece { text: line[all.start..name_end].to_owned(), at: all.start..name_end };
    Parts { name, flags, arguments: trimmed(line, rest..all.end) }
}

fn trimmed(line: &str, range: Range<usize>) -> Range<usize> {
    let text = &line[range.clone()];
    let start = range.end - text.trim_start().len();
    start..start + text.trim().len()
}

/// The `--flags` at the start of `range`, quotes and escapes resolved, and where the rest begins. `--` alone ends them.
///
/// BuildKit reads flags byte by byte and so garbles names that are not ASCII; here they stay what they are.
fn flags(line: &str, range: Range<usize>, escape: char) -> (Vec<Piece>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        at = range.end - line[at..range.end].trim_start().len();
        if !line[at..range.end].starts_with("--") {
            return (flags, at);
        }
        let flag = flag(line, at..range.end, escape);
        at = flag.at.end;
        if flag.text == "--" {
            return (flags, at);
        }
        flags.push(flag);
    }
}

fn flag(line: &str, range: Range<usize>, escape: char) -> Piece {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = line[range.clone()].char_indices();
    while let Some((offset, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return Piece { text, at: range.start..range.start + offset },
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => text.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => text.push(c),
        }
    }
    Piece { text, at: range }
}

/// Arguments separated by white space and nothing else.
pub(crate) fn split(line: &str, range: Range<usize>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let length = line[at..range.end].find(is_blank).unwrap_or(range.end - at);
        if length > 0 {
            pieces.push(Piece { text: line[at..at + length].to_owned(), at: at..at + length });
        }
        at += length.max(1);
    }
    pieces
}

/// Arguments separated by white space outside of quotes; quotes and escapes stay in the text.
pub(crate) fn quoted_words(line: &str, range: Range<usize>, escape: char) -> Vec<Piece> {
    let mut words = Vec::new();
    let mut at = range.start;
    loop {
        at = range.end - line[at..range.end].trim_start().len();
        if at == range.end {
            return words;
        }
        let word = quoted_word(line, at..range.end, escape);
        at = word.at.end;
        if !word.text.is_empty() {
            words.push(word);
        }
    }
}

fn quoted_word(line: &str, range: Range<usize>, escape: char) -> Piece {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = line[range.clone()].char_indices();
    while let Some((offset, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return Piece { text, at: range.start..range.start + offset },
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            if let Some((_, escaped)) = chars.next() {
                text.push(c);
                text.push(escaped);
            }
        } else {
            text.push(c);
        }
    }
    Piece { text, at: range }
}

/// The first blank-delimited word of `range` and the rest behind the blanks.
pub(crate) fn first_blank(line: &str, range: Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let text = &line[range.clone()];
    let first = text.find(is_blank)?;
    let rest = text[first..].trim_start_matches(is_blank);
    Some((range.start..range.start + first, range.end - rest.len()..range.end))
}
