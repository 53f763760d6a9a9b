//! Quotes, escapes and `$variables`: what BuildKit's `shell.Lex` does.

/// Where values come from. `None` = unset (which differs from empty for `${v-x}` and friends).
pub trait Variables {
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Why a word could not be expanded (`${v:?message}`, `${v@}`, an open quote).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExpandError {
    pub message: String,
}

/// The result of one expansion and the names that were asked for but unset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expanded {
    pub text: String,
    pub unset: Vec<String>,
}

/// Expands `text` to one word: quotes removed, escapes resolved, variables replaced (BuildKit `ProcessWord`).
pub fn word(text: &str, escape: char, variables: &dyn Variables) -> Result<Expanded, ExpandError> {
    let _ = (text, escape, variables);
    Err(ExpandError { message: String::new() })
}

/// As [`word`], but split at unquoted white space (BuildKit `ProcessWords`).
pub fn words(text: &str, escape: char, variables: &dyn Variables) -> Result<Vec<String>, ExpandError> {
    let _ = (text, escape, variables);
    Err(ExpandError { message: String::new() })
}

/// Expands variables and keeps quotes and escapes as they are (a here-document body; BuildKit `RawQuotes`, `RawEscapes`).
pub fn heredoc(text: &str, escape: char, variables: &dyn Variables) -> Result<String, ExpandError> {
    let _ = (text, escape, variables);
    Err(ExpandError { message: String::new() })
}
