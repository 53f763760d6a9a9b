//! From bytes to logical lines: what an instruction is made of once comments are gone and continuation lines are joined.
//!
//! This knows the shape of lines, not what they say.

use std::ops::Range;

use crate::{Diagnostic, MAX_SOURCE_BYTES, Span};

/// BuildKit reads with Go's `bufio.Scanner`, whose tokens are limited to 64 KiB with the line feed.
const MAX_LINE_BYTES: usize = 65535;

/// A Dockerfile as text.
pub(crate) struct Source {
    /// Without byte order mark; every byte that is not UTF-8 is a U+FFFD, as in BuildKit's image configs.
    pub text: String,
    pub had_invalid: bool,
}

impl Source {
    pub fn decode(bytes: &[u8]) -> Source {
        let bytes = &bytes[..bytes.len().min(MAX_SOURCE_BYTES + 1)];
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut source = Source { text: String::with_capacity(bytes.len()), had_invalid: false };
        for chunk in bytes.utf8_chunks() {
            source.text.push_str(chunk.valid());
            for _ in chunk.invalid() {
                source.had_invalid = true;
                source.text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        source
    }

    /// Whether `text` is a piece of this source that was not UTF-8.
    pub fn is_damaged(&self, text: &str) -> bool {
        self.had_invalid && text.contains(char::REPLACEMENT_CHARACTER)
    }
}

/// Continuation lines joined to one, with the way back to the source.
pub(crate) struct Line {
    pub text: String,
    /// From the first character of the instruction to the end of its last line.
    pub span: Span,
    /// Comments directly above.
    pub comments: Vec<String>,
    /// The last line, when a continuation line was empty.
    pub empty_continuation: Option<Span>,
    /// (offset in `text`, offset in the source) of each piece, ascending.
    pieces: Vec<(usize, usize)>,
}

impl Line {
    /// The place in the source of a range of [`Line::text`].
    pub fn span(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        if range.is_empty() {
            return start..start;
        }
        start..self.source_offset(range.end - 1) + 1
    }

    fn source_offset(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|(joined, _)| *joined <= offset);
        match self.pieces.get(after.saturating_sub(1)) {
            Some((joined, source)) => source + (offset - joined),
            None => self.span.start,
        }
    }
}

/// Reads a source line by line.
pub(crate) struct Lines<'s> {
    source: &'s str,
    at: usize,
    escape: char,
    /// Where the parser directives end: they are no comments.
    header_end: usize,
}

impl<'s> Lines<'s> {
    pub fn new(source: &'s str, escape: char, header_end: usize) -> Lines<'s> {
        Lines { source, at: 0, escape, header_end }
    }

    /// The next instruction's line, without here-documents.
    pub fn next_line(&mut self) -> Result<Option<Line>, Diagnostic> {
        let mut comments = Vec::new();
        while let Some(range) = self.physical()? {
            let content = self.trimmed_start(self.content(range.clone()));
            let text = &self.source[content.clone()];
            if let Some(comment) = text.strip_prefix('#') {
                if range.start >= self.header_end {
                    note_comment(&mut comments, comment.trim());
                }
                continue;
            }
            let (piece, goes_on) = self.without_continuation(content);
            if piece.is_empty() && !goes_on {
                continue;
            }
            return self.joined(piece, goes_on, comments).map(Some);
        }
        Ok(None)
    }

    fn joined(&mut self, first: Range<usize>, mut goes_on: bool, comments: Vec<String>) -> Result<Line, Diagnostic> {
        let mut line = Line {
            text: self.source[first.clone()].to_owned(),
            span: first.clone(),
            comments,
            empty_continuation: None,
            pieces: vec![(0, first.start)],
        };
        let mut has_empty = false;
        let mut last = first;
        while goes_on {
            let Some(range) = self.physical()? else { break };
            last = self.content(range);
            let trimmed = self.trimmed_start(last.clone());
            if self.source[trimmed.clone()].starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                has_empty = true;
                continue;
            }
            let piece;
            (piece, goes_on) = self.without_continuation(last.clone());
            line.pieces.push((line.text.len(), piece.start));
            line.text.push_str(&self.source[piece]);
            line.span.end = last.end;
        }
        line.empty_continuation = has_empty.then_some(last);
        Ok(line)
    }

    /// The body of a here-document: the lines up to the one that is `terminator`, which is read as well. `None` at the end
    /// of the source.
    pub fn heredoc_body(&mut self, terminator: &str, chomp: bool) -> Result<Option<Range<usize>>, Diagnostic> {
        let start = self.at;
        while let Some(range) = self.physical()? {
            let line = &self.source[self.content(range.clone())];
            let line = if chomp { line.trim_start_matches('\t') } else { line };
            if line == terminator {
                return Ok(Some(start..range.start));
            }
        }
        Ok(None)
    }

    /// Where the last line ended, without its line feed.
    pub fn end_of_last(&self) -> usize {
        self.source[..self.at].trim_end_matches(['\r', '\n']).len()
    }

    /// The next line with its line feed.
    fn physical(&mut self) -> Result<Option<Range<usize>>, Diagnostic> {
        let rest = &self.source[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.find('\n').unwrap_or(rest.len());
        let range = self.at..(self.at + length + 1).min(self.source.len());
        if length > MAX_LINE_BYTES {
            let message = format!("line is too long: {length} bytes, and {MAX_LINE_BYTES} are allowed");
            return Err(Diagnostic::error(message, range.start..range.start));
        }
        self.at = range.end;
        Ok(Some(range))
    }

    fn content(&self, line: Range<usize>) -> Range<usize> {
        line.start..line.start + self.source[line].trim_end_matches(['\r', '\n']).len()
    }

    fn trimmed_start(&self, range: Range<usize>) -> Range<usize> {
        range.end - self.source[range.clone()].trim_start().len()..range.end
    }

    /// Cuts off an escape at the end of the line, unless it is escaped itself. White space may follow it.
    fn without_continuation(&self, range: Range<usize>) -> (Range<usize>, bool) {
        let text = self.source[range.clone()].trim_end_matches([' ', '\t']);
        match text.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (range.start..range.start + rest.len(), true),
            _ => (range, false),
        }
    }
}

/// An empty comment line separates what is above it from the instruction.
fn note_comment(comments: &mut Vec<String>, comment: &str) {
    if comment.is_empty() {
        comments.clear();
    } else {
        comments.push(comment.to_owned());
    }
}
