//! Quotes, escapes and `$variables`: what BuildKit's `shell.Lex` does.
//!
//! This knows nothing of scopes: which names have which values is the planner's affair, and comes in as [`Variables`].

mod pattern;

use std::collections::HashSet;
use std::str::Chars;

/// How deep `${a:-${b:-…}}` may nest. BuildKit has no limit but the stack; real files stay below five.
const MAX_DEPTH: usize = 64;

/// How much text one expansion may produce: as much as a Dockerfile may have (an `ENV A=$A$A` repeated forty times is 2^40 bytes).
const MAX_OUTPUT_BYTES: usize = crate::MAX_SOURCE_BYTES;

/// How many characters may be quoted in a message.
const MAX_QUOTED_CHARS: usize = 200;

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

/// The result of one expansion and the names that were asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expanded {
    pub text: String,
    /// Names without a value, each once, in the order of their first use.
    pub unset: Vec<String>,
    /// Names with a value, each once, in the order of their first use.
    pub set: Vec<String>,
}

/// Expands `text` to one word: quotes removed, escapes resolved, variables replaced (BuildKit `ProcessWord`).
pub fn word(text: &str, escape: char, variables: &dyn Variables) -> Result<Expanded, ExpandError> {
    Ok(Lexer::new(text, escape, Mode::default(), variables).run()?.0)
}

/// As [`word`], but split at unquoted white space, in the text as well as in values (BuildKit `ProcessWords`).
///
/// A word that is part literal and part `${v:-w}` stays whole here; BuildKit loses the literal part.
pub fn words(text: &str, escape: char, variables: &dyn Variables) -> Result<Vec<String>, ExpandError> {
    Ok(Lexer::new(text, escape, Mode::default(), variables).run()?.1)
}

/// Expands a here-document body: variables are replaced, quotes are kept, `\x` becomes `x`.
///
/// BuildKit uses `\` here whatever the `escape` directive says (`dockerfile2llb/convert.go`, `dispatch`), so `escape` has no
/// influence.
pub fn heredoc(text: &str, escape: char, variables: &dyn Variables) -> Result<String, ExpandError> {
    let _ = escape;
    Ok(heredoc_with_names(text, variables)?.text)
}

/// As [`heredoc`], with the names that the body asked for.
pub fn heredoc_with_names(text: &str, variables: &dyn Variables) -> Result<Expanded, ExpandError> {
    let mode = Mode { plain_quotes: true, ..Mode::default() };
    Ok(Lexer::new(text, '\\', mode, variables).run()?.0)
}

/// Replaces set variables and leaves quotes and unset variables as they are: for showing a command, not for running it.
/// Text that cannot be expanded is returned unchanged.
pub fn for_display(text: &str, escape: char, variables: &dyn Variables) -> String {
    let mode = Mode { raw_quotes: true, keep_unset: true, ..Mode::default() };
    match Lexer::new(text, escape, mode, variables).run() {
        Ok((expanded, _)) => expanded.text,
        Err(_) => text.to_owned(),
    }
}

/// Words as the here-document detection needs them: nothing expanded, escapes kept when `raw_escapes`, quotes when `raw_quotes`.
pub(crate) fn raw_words(text: &str, raw_quotes: bool, raw_escapes: bool) -> Result<Vec<String>, ExpandError> {
    let mode = Mode { raw_quotes, raw_escapes, keep_unset: true, plain_quotes: false };
    Ok(Lexer::new(text, '\\', mode, &|_: &str| None).run()?.1)
}

#[derive(Clone, Copy, Default)]
struct Mode {
    /// Quotes do their work but stay in the result.
    raw_quotes: bool,
    /// Escape characters do their work but stay in the result.
    raw_escapes: bool,
    /// Quotes are characters like any other.
    plain_quotes: bool,
    /// `$unset` stays as it is.
    keep_unset: bool,
}

struct Lexer<'a> {
    text: &'a str,
    rest: Chars<'a>,
    escape: char,
    mode: Mode,
    /// [`Mode::raw_escapes`], or the same for the pattern that is being read.
    raw_escapes: bool,
    variables: &'a dyn Variables,
    asked: HashSet<String>,
    unset: Vec<String>,
    set: Vec<String>,
    depth: usize,
    produced_bytes: usize,
    steps: pattern::Steps,
}

/// Text under way, as one string and as words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    current: String,
    in_word: bool,
}

impl Output {
    /// Text in which white space separates words.
    fn push_split(&mut self, text: &str) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.current.push(c);
                self.in_word = true;
            } else if self.in_word && !self.current.is_empty() {
                self.words.push(std::mem::take(&mut self.current));
                self.in_word = false;
            }
        }
        self.text.push_str(text);
    }

    /// Text that belongs to the word whatever it is.
    fn push_whole(&mut self, text: &str) {
        self.current.push_str(text);
        self.in_word = true;
        self.text.push_str(text);
    }

    fn push_char_whole(&mut self, c: char) {
        self.push_whole(c.encode_utf8(&mut [0; 4]));
    }

    fn finish(mut self) -> (String, Vec<String>) {
        if !self.current.is_empty() {
            self.words.push(self.current);
        }
        (self.text, self.words)
    }
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, mode: Mode, variables: &'a dyn Variables) -> Self {
        Lexer {
            text,
            // BuildKit's scanner drops a byte order mark at the start of every word.
            rest: text.strip_prefix('\u{feff}').unwrap_or(text).chars(),
            escape,
            mode,
            raw_escapes: mode.raw_escapes,
            variables,
            asked: HashSet::new(),
            unset: Vec::new(),
            set: Vec::new(),
            depth: 0,
            produced_bytes: 0,
            steps: pattern::Steps::default(),
        }
    }

    fn run(mut self) -> Result<(Expanded, Vec<String>), ExpandError> {
        match self.until(None, self.mode.raw_escapes) {
            Ok((text, words)) => Ok((Expanded { text, unset: self.unset, set: self.set }, words)),
            Err(why) => Err(ExpandError { message: format!("could not expand `{}`: {why}", shortened(self.text)) }),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    /// Reads up to `stop` (which is consumed) or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("variables are nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.pieces_until(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn pieces_until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut out = Output::default();
        while let Some(c) = self.peek() {
            match c {
                _ if Some(c) == stop => {
                    self.next();
                    return Ok(out.finish());
                }
                '$' => out.push_split(&self.dollar()?),
                '<' => out.push_whole(&self.heredoc_operator()),
                '\'' if !self.mode.plain_quotes => out.push_whole(&self.single_quoted()?),
                '"' if !self.mode.plain_quotes => out.push_whole(&self.double_quoted()?),
                _ => self.plain_char(&mut out),
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end while looking for the matching `{stop}`")),
            None => Ok(out.finish()),
        }
    }

    fn plain_char(&mut self, out: &mut Output) {
        let Some(c) = self.next() else { return };
        if c != self.escape {
            out.push_split(c.encode_utf8(&mut [0; 4]));
            return;
        }
        if self.raw_escapes {
            out.push_char_whole(c);
        }
        // An escape at the very end is dropped.
        if let Some(escaped) = self.next() {
            out.push_char_whole(escaped);
        }
    }

    /// `<<` with the white space after it is one piece, so that `<< EOF` stays one word.
    fn heredoc_operator(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let mut result = "<<".to_owned();
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            result.push(c);
            self.next();
        }
        result
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let quote = self.next();
        result.extend(quote.filter(|_| self.mode.raw_quotes));
        loop {
            match self.next() {
                None => return Err("unexpected end while looking for the matching single quote".to_owned()),
                Some('\'') => {
                    result.extend(quote.filter(|_| self.mode.raw_quotes));
                    return Ok(result);
                }
                Some(c) => result.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let quote = self.next();
        result.extend(quote.filter(|_| self.mode.raw_quotes));
        loop {
            match self.peek() {
                None => return Err("unexpected end while looking for the matching double quote".to_owned()),
                Some('"') => {
                    self.next();
                    result.extend(quote.filter(|_| self.mode.raw_quotes));
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(c) => {
                    self.next();
                    self.double_quoted_char(c, &mut result);
                }
            }
        }
    }

    /// In double quotes only `"`, `$` and the escape itself can be escaped; before others the escape is a character.
    fn double_quoted_char(&mut self, c: char, result: &mut String) {
        if c != self.escape {
            return result.push(c);
        }
        if self.raw_escapes {
            result.push(c);
        }
        match self.peek() {
            None => {}
            Some(next) if next == '"' || next == '$' || next == self.escape => {
                self.next();
                result.push(next);
            }
            Some(_) => result.push(c),
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.value(&name)? {
            None if self.mode.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String, String> {
        match self.peek() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let Some(modifier) = self.next() else { return Err(MISSING_BRACE.to_owned()) };
        match modifier {
            '}' => match self.value(&name)? {
                None if self.mode.keep_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            ':' => {
                let Some(modifier) = self.next() else { return Err(MISSING_BRACE.to_owned()) };
                self.modified(&name, modifier, true)
            }
            '+' | '-' | '?' | '#' | '%' => self.modified(&name, modifier, false),
            '/' => self.replaced(&name),
            other => Err(format!("unsupported modifier (`{other}`) in substitution")),
        }
    }

    /// `${name:-w}` and its relatives, read up to the modifier.
    fn modified(&mut self, name: &str, modifier: char, colon: bool) -> Result<String, String> {
        let written = if colon { format!(":{modifier}") } else { modifier.to_string() };
        let is_pattern = matches!(modifier, '#' | '%');
        if colon && is_pattern {
            return Err(format!("unsupported modifier (`{written}`) in substitution"));
        }
        let word = self.argument('}', is_pattern, MISSING_BRACE)?;
        let value = self.value(name)?;
        if value.is_none() && self.mode.keep_unset {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let usable = value.as_ref().is_some_and(|value| !(colon && value.is_empty()));
        match (modifier, value) {
            ('-', value) => Ok(value.filter(|_| usable).unwrap_or(word)),
            ('+', _) => Ok(if usable { word } else { String::new() }),
            ('?', Some(value)) if usable => Ok(value),
            ('?', value) => {
                let state = if value.is_none() { "unset" } else { "empty" };
                let why = if word.is_empty() { format!("is not allowed to be {state}") } else { word };
                Err(format!("{name}: {why}"))
            }
            ('#', value) => pattern::trim_prefix(&word, value.unwrap_or_default(), &mut self.steps),
            ('%', value) => pattern::trim_suffix(&word, value.unwrap_or_default(), &mut self.steps),
            _ => Err(format!("unsupported modifier (`{written}`) in substitution")),
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`, read up to the first `/`.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.argument('/', true, "syntax error: missing `/` in `${}`")?;
        let replacement = self.argument('}', true, MISSING_BRACE)?;
        let value = self.value(name)?;
        if value.is_none() && self.mode.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        // What is unset is empty, and a pattern such as `*` fits that too.
        let value = value.unwrap_or_default();
        let result = pattern::replace(&pattern, &value, &replacement, all, &mut self.steps, MAX_OUTPUT_BYTES)?;
        self.count(result.len())?;
        Ok(result)
    }

    /// The text up to `stop`; when the end came first, `missing` says what was looked for.
    fn argument(&mut self, stop: char, raw_escapes: bool, missing: &str) -> Result<String, String> {
        match self.until(Some(stop), raw_escapes) {
            Ok((text, _)) => Ok(text),
            Err(_) if self.peek().is_none() => Err(missing.to_owned()),
            Err(why) => Err(why),
        }
    }

    /// A name, or the digits of a positional parameter, or one special parameter; may be empty.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(first) = self.peek() else { return name };
        if is_special(first) && !first.is_ascii_digit() {
            name.extend(self.next());
            return name;
        }
        let positional = first.is_ascii_digit();
        while let Some(c) = self.peek() {
            let belongs = if positional { c.is_ascii_digit() } else { c.is_alphanumeric() || c == '_' };
            if !belongs {
                break;
            }
            name.extend(self.next());
        }
        name
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let value = self.variables.get(name);
        if self.asked.insert(name.to_owned()) {
            let names = if value.is_some() { &mut self.set } else { &mut self.unset };
            names.push(name.to_owned());
        }
        self.count(value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.produced_bytes = self.produced_bytes.saturating_add(bytes);
        if self.produced_bytes > MAX_OUTPUT_BYTES {
            return Err(format!("the result is longer than {} MiB", MAX_OUTPUT_BYTES >> 20));
        }
        Ok(())
    }
}

const MISSING_BRACE: &str = "syntax error: missing `}`";

/// POSIX special parameters, which are never set in a Dockerfile.
fn is_special(c: char) -> bool {
    matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!' | '0')
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
