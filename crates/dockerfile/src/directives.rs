//! Parser directives: `# syntax=`, `# escape=` and `# check=` in the first lines.

use std::ops::Range;

use crate::{Diagnostic, Span, Word};

/// What the first lines of a Dockerfile say about the rest.
pub(crate) struct Header {
    pub escape: char,
    pub syntax: Option<Word>,
    pub check: Option<Word>,
    /// Offset of the first line that is not a directive.
    pub end: usize,
}

struct Directive {
    name: String,
    value: Range<usize>,
}

/// Reads the directives of `source`. They end at the first line that is not one: a comment, an empty line, an instruction.
///
/// As in BuildKit `escape` and the others are looked for in two ways: only the line of an `escape` may be indented, and only
/// `syntax` and `check` may follow a `#!` line.
pub(crate) fn read(source: &str) -> Result<Header, Diagnostic> {
    let (indented, end) = scan(source, 0, true)?;
    let mut escape = '\\';
    if let Some(directive) = indented.iter().find(|directive| directive.name == "escape") {
        escape = match &source[directive.value.clone()] {
            "\\" => '\\',
            "`" => '`',
            other => {
                let message = format!("the `escape` directive takes a backslash or a backtick, not `{other}`");
                return Err(Diagnostic::error(message, directive.value.clone()));
            }
        };
    }
    let after_shebang = if source.starts_with("#!") { source.find('\n').map_or(source.len(), |at| at + 1) } else { 0 };
    let (flush, _) = scan(source, after_shebang, false)?;
    Ok(Header { escape, syntax: first_word(source, &flush, "syntax"), check: first_word(source, &flush, "check"), end })
}

/// The directives from `start` on, and where they end.
fn scan(source: &str, start: usize, may_indent: bool) -> Result<(Vec<Directive>, usize), Diagnostic> {
    let mut found: Vec<Directive> = Vec::new();
    let mut at = start;
    for line in source[start..].split_inclusive('\n') {
        let content = line.trim_end_matches(['\r', '\n']);
        let indent = if may_indent { content.len() - content.trim_start().len() } else { 0 };
        let Some(directive) = directive(content, indent, at) else { break };
        if found.iter().any(|other| other.name == directive.name) {
            let message = format!("only one `{}` directive is allowed", directive.name);
            return Err(Diagnostic::error(message, at + indent..at + content.len()));
        }
        found.push(directive);
        at += line.len();
    }
    Ok((found, at))
}

/// `# name = value`; `None` for all other lines, those with a name that means nothing included.
fn directive(line: &str, indent: usize, line_start: usize) -> Option<Directive> {
    let text = line[indent..].strip_prefix('#')?.trim_start();
    let name_length = text.find(|c: char| !c.is_ascii_alphanumeric())?;
    let name = text[..name_length].to_ascii_lowercase();
    let value = text[name_length..].trim_start().strip_prefix('=')?.trim();
    if value.is_empty() || !["syntax", "escape", "check"].contains(&name.as_str()) {
        return None;
    }
    let value_start = line_start + line.trim_end().len() - value.len();
    Some(Directive { name, value: value_start..value_start + value.len() })
}

/// The value up to its first blank: that is all BuildKit looks at.
fn first_word(source: &str, directives: &[Directive], name: &str) -> Option<Word> {
    let value = directives.iter().find(|directive| directive.name == name)?.value.clone();
    let text = source[value.clone()].split(' ').next().unwrap_or_default().to_owned();
    let span: Span = value.start..value.start + text.len();
    Some(Word { text, span })
}
