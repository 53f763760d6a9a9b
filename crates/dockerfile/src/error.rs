//! What is wrong with a Dockerfile, and where.

use crate::Span;

/// One finding: a message, the place, and perhaps what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// BuildKit's rule name (`FromAsCasing`); none for errors.
    pub rule: Option<&'static str>,
    /// Lower case, no full stop.
    pub message: String,
    /// Byte range in [`crate::Dockerfile::source`].
    pub span: Span,
    pub hint: Option<String>,
}

/// A Dockerfile that cannot be parsed. `source` is the text that the span points into.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", diagnostic.message)]
pub struct ParseError {
    pub diagnostic: Diagnostic,
    pub source_text: String,
}

/// The 1-based line of a byte offset in `source`.
pub fn line_of(source: &str, offset: usize) -> usize {
    source.as_bytes()[..offset.min(source.len())].iter().filter(|b| **b == b'\n').count() + 1
}
