//! `.dockerignore` and `--exclude`: moby's `patternmatcher` rules.

/// An ordered list of patterns; the last match wins, `!` re-includes.
#[derive(Clone, Debug, Default)]
pub struct Patterns {}

/// Why a pattern list was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: invalid pattern `{pattern}`")]
pub struct IgnoreError {
    /// 1-based line of the file (position in the list for [`Patterns::new`]).
    pub line: usize,
    pub pattern: String,
}

impl Patterns {
    /// Reads an ignore file: BOM, comments in column 1, blanks, cleaning and the leading `/` as moby's `ignorefile` does.
    pub fn parse(text: &[u8]) -> Result<Patterns, IgnoreError> {
        let _ = text;
        Ok(Patterns {})
    }

    /// Takes patterns as they are.
    pub fn new(patterns: &[String]) -> Result<Patterns, IgnoreError> {
        let _ = patterns;
        Ok(Patterns {})
    }

    pub fn is_empty(&self) -> bool {
        true
    }

    /// Whether `path` (relative, `/`-separated, no leading `/`) is excluded, by itself or through a parent
    /// (moby `MatchesOrParentMatches`).
    pub fn excludes(&self, path: &[u8]) -> bool {
        let _ = path;
        false
    }

    /// Whether a directory that is excluded must still be walked because a `!` pattern may re-include something below.
    pub fn may_include_below(&self, directory: &[u8]) -> bool {
        let _ = directory;
        false
    }

    /// The line and text of the pattern that excludes `path`, for hints.
    pub fn excluded_by(&self, path: &[u8]) -> Option<(usize, &str)> {
        let _ = path;
        None
    }
}
