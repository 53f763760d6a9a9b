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

impl Diagnostic {
    pub(crate) fn error(message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic { rule: None, message: message.into(), span, hint: None }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Diagnostic {
        Diagnostic { hint: Some(hint.into()), ..self }
    }
}

/// A Dockerfile that cannot be parsed. `source` is the text that the span points into.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", diagnostic.message)]
pub struct ParseError {
    pub diagnostic: Diagnostic,
    pub source_text: String,
    /// What the build checks had found up to there.
    pub warnings: Box<[Diagnostic]>,
}

impl ParseError {
    /// The 1-based line that the error is about.
    pub fn line(&self) -> usize {
        line_of(&self.source_text, self.diagnostic.span.start)
    }
}

/// The 1-based line of a byte offset in `source`.
pub fn line_of(source: &str, offset: usize) -> usize {
    source.as_bytes()[..offset.min(source.len())].iter().filter(|b| **b == b'\n').count() + 1
}
