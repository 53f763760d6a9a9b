//! `.dockerignore` and `--exclude`: moby's `patternmatcher` rules.
//!
//! A pattern also holds for everything below what it names. Each pattern is matched with the path and with all of its parents in
//! one pass, so that the cost per file is linear in the length of its path.

use crate::glob;

/// An ordered list of patterns; the last one that holds wins, `!` re-includes.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    /// They are an ignore file's: what one names last is hidden, see [`Patterns::excluding`].
    of_file: bool,
}

/// Why a pattern list was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: invalid pattern `{pattern}`")]
pub struct IgnoreError {
    /// 1-based line of the file (position in the list for [`Patterns::new`]).
    pub line: usize,
    pub pattern: String,
}

#[derive(Clone, Debug)]
struct Pattern {
    line: usize,
    /// As written, without white space around it.
    text: String,
    negated: bool,
    matcher: Matcher,
}

/// moby distinguishes these four, and they differ in more than speed: `**foo` is a suffix of bytes, `**foo*` is not.
#[derive(Clone, Debug)]
enum Matcher {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    /// A suffix of the path, or with a leading `/` also the whole path.
    Suffix(Vec<u8>),
    Tokens(Vec<Token>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Literal(char),
    /// `?`
    AnyChar,
    /// `*`: any text without `/`.
    AnyName,
    /// `**/`: nothing, or any text that ends in `/`.
    AnyParents,
    /// `**` at the end: any text.
    AnyText,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Patterns {
    /// Reads an ignore file: BOM, comments in column 1, blanks, cleaning and the leading `/` as moby's `ignorefile` does.
    pub fn parse(text: &[u8]) -> Result<Patterns, IgnoreError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if line.first() == Some(&b'#') {
                continue;
            }
            let line = String::from_utf8_lossy(line);
            patterns.extend(Pattern::new(index + 1, line.trim(), true)?);
        }
        Ok(Patterns { patterns, of_file: true })
    }

    /// Takes patterns as they are.
    pub fn new(patterns: &[String]) -> Result<Patterns, IgnoreError> {
        let mut list = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            list.extend(Pattern::new(index + 1, pattern.trim(), false)?);
        }
        Ok(Patterns { patterns: list, of_file: false })
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether there is a `!` pattern.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// Whether a pattern hides whatever is in the root (BuildKit `copySourceRootIgnored`).
    pub fn hide_root(&self) -> bool {
        let cleaned = self.patterns.iter().filter(|pattern| !pattern.negated).map(|pattern| clean(&pattern.text));
        let mut bare = cleaned.map(|text| text.trim_start_matches('/').to_owned());
        bare.any(|text| matches!(text.as_str(), "*" | "**" | "**/*"))
    }

    /// Whether `path` (relative, `/`-separated, no leading `/`) is excluded, by itself or through a parent. The root (`` or `.`)
    /// never is.
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.excluding(path).is_some()
    }

    /// Whether a directory that is excluded must still be walked because a `!` pattern may re-include something below.
    pub fn may_include_below(&self, directory: &[u8]) -> bool {
        let mut start = trimmed(directory).to_vec();
        start.push(b'/');
        self.patterns.iter().any(|pattern| pattern.negated && pattern.matcher.may_match_below(&start))
    }

    /// The line and text of the pattern that excludes `path`, for hints.
    pub fn excluded_by(&self, path: &[u8]) -> Option<(usize, &str)> {
        self.excluding(path).map(|pattern| (pattern.line, pattern.text.as_str()))
    }

    /// The pattern that decided that `path` is excluded.
    ///
    /// In an ignore file a pattern that is repeated after a `!` counts again. BuildKit disagrees with itself there: it sends such
    /// a file (by the rule of a walk), but without its content (moby `MatchesOrParentMatches`).
    fn excluding(&self, path: &[u8]) -> Option<&Pattern> {
        let path = trimmed(path);
        if path.is_empty() || path == b"." {
            return None;
        }
        let names = |pattern: &&Pattern| pattern.matcher.matches_along(path).contains(&true);
        let last = || self.patterns.iter().rfind(names).filter(|pattern| !pattern.negated);
        self.excluding_in_walk(path).or_else(|| if self.of_file && self.has_exceptions() { last() } else { None })
    }

    /// Decides as a walk of the tree does (moby `MatchesUsingParentResults`): a pattern is tried only where it would change
    /// something, `!` on what is excluded at that moment and any other on what is not, and what held for a directory holds below
    /// it. So `!docs` lets nothing in below a `docs` that was never excluded.
    fn excluding_in_walk(&self, path: &[u8]) -> Option<&Pattern> {
        let mut holds = vec![false; self.patterns.len()];
        let mut matches: Vec<Option<Vec<bool>>> = vec![None; self.patterns.len()];
        let mut excluding = None;
        for depth in 0..prefixes(path).count() {
            excluding = None;
            for (index, pattern) in self.patterns.iter().enumerate() {
                if !holds[index] && pattern.negated == excluding.is_some() {
                    let along = matches[index].get_or_insert_with(|| pattern.matcher.matches_along(path));
                    holds[index] = along[depth];
                }
                if holds[index] {
                    excluding = (!pattern.negated).then_some(pattern);
                }
            }
        }
        excluding
    }
}

fn trimmed(path: &[u8]) -> &[u8] {
    let mut path = path.strip_prefix(b"./").unwrap_or(path);
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    path
}

impl Pattern {
    /// `None` for an empty line. `from_root`: a leading `/` means the root of the context.
    fn new(line: usize, written: &str, from_root: bool) -> Result<Option<Pattern>, IgnoreError> {
        if written.is_empty() {
            return Ok(None);
        }
        let refused = || IgnoreError { line, pattern: written.to_owned() };
        let (negated, text) = match written.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, written),
        };
        if text.is_empty() {
            return Err(refused());
        }
        let cleaned = clean(text);
        let cleaned = match cleaned.strip_prefix('/') {
            // Cleaned once more, blanks at the end included, as the matcher does with what the reader of the file gives it.
            Some(rest) if from_root && !rest.is_empty() => clean(rest.trim()),
            _ => clean(cleaned.trim()),
        };
        let cleaned = cleaned.as_str();
        glob::Glob::new(cleaned.as_bytes()).map_err(|_| refused())?;
        let matcher = Matcher::new(cleaned).ok_or_else(refused)?;
        Ok(Some(Pattern { line, text: written.to_owned(), negated, matcher }))
    }
}

/// Go's `path.Clean`: no `.`, no doubled `/`, no `..` that can be resolved, no trailing `/`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

impl Matcher {
    /// `None` when the pattern is malformed.
    fn new(pattern: &str) -> Option<Matcher> {
        if let Some(rest) = pattern.strip_prefix("**")
            && !rest.contains(['*', '?', '[', ']', '\\'])
        {
            return Some(Matcher::Suffix(rest.into()));
        }
        if let Some(rest) = pattern.strip_suffix("**")
            && !rest.contains(['*', '?', '[', ']', '\\'])
        {
            return Some(Matcher::Prefix(rest.into()));
        }
        if !pattern.contains(['*', '?', '[', ']', '\\']) {
            return Some(Matcher::Exact(pattern.into()));
        }
        Some(Matcher::Tokens(tokens(pattern)?))
    }

    /// Whether each of the parents of `path`, the outermost first, and `path` itself match.
    fn matches_along(&self, path: &[u8]) -> Vec<bool> {
        match self {
            Matcher::Exact(exact) => prefixes(path).map(|prefix| prefix == exact).collect(),
            Matcher::Prefix(start) => prefixes(path).map(|prefix| prefix.starts_with(start)).collect(),
            Matcher::Suffix(end) => {
                let whole = end.strip_prefix(b"/");
                prefixes(path).map(|prefix| prefix.ends_with(end) || whole == Some(prefix)).collect()
            }
            Matcher::Tokens(tokens) => run(tokens, path).matched,
        }
    }

    /// Whether there can be a match that begins with `start` (which ends in `/`) and goes on.
    fn may_match_below(&self, start: &[u8]) -> bool {
        match self {
            Matcher::Exact(exact) => exact.starts_with(start),
            Matcher::Prefix(prefix) => prefix.starts_with(start) || start.starts_with(prefix),
            Matcher::Suffix(_) => true,
            Matcher::Tokens(tokens) => run(tokens, start).can_go_on,
        }
    }
}

/// The parents of `path`, from the outermost, and `path` itself.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
    parents.chain([path])
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::AnyText } else { Token::AnyParents }
            }
            '*' => Token::AnyName,
            '?' => Token::AnyChar,
            '\\' => Token::Literal(chars.next()?),
            '[' => class(&mut chars)?,
            c => Token::Literal(c),
        });
    }
    Some(tokens)
}

/// What follows `[`, up to and with the `]`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class { negated, ranges }),
            '\\' => chars.next()?,
            c => c,
        };
        let mut high = low;
        if chars.next_if_eq(&'-').is_some() {
            high = match chars.next()? {
                '\\' => chars.next()?,
                c => c,
            };
        }
        ranges.push((low, high));
    }
}

fn is_inside(c: char, ranges: &[(char, char)]) -> bool {
    ranges.iter().any(|(low, high)| (*low..=*high).contains(&c))
}

/// What matching tokens from the start of a text came to.
struct Outcome {
    /// Whether the text matched up to each of its `/`, and as a whole.
    matched: Vec<bool>,
    /// A longer text might match.
    can_go_on: bool,
}

fn run(tokens: &[Token], text: &[u8]) -> Outcome {
    let mut states = States::new(tokens.len());
    states.enter(tokens, 0);
    let mut matched = Vec::new();
    let mut rest = text;
    while let Some((c, length)) = glob::first_char(rest).filter(|_| !states.active.is_empty()) {
        if c == '/' {
            matched.push(states.is_final() && rest.len() < text.len());
        }
        states.advance(tokens, c);
        rest = &rest[length..];
    }
    matched.push(rest.is_empty() && states.is_final());
    matched.resize(prefixes(text).count(), false);
    let can_go_on = states.active.iter().any(|state| *state < tokens.len());
    Outcome { matched, can_go_on }
}

/// The states of the matcher that a text has led to: how many tokens are done.
struct States {
    active: Vec<usize>,
    previous: Vec<usize>,
    /// For each state the round in which it was entered last.
    entered: Vec<usize>,
    round: usize,
}

impl States {
    fn new(tokens: usize) -> States {
        States { active: Vec::new(), previous: Vec::new(), entered: vec![0; tokens + 1], round: 1 }
    }

    fn is_final(&self) -> bool {
        self.entered[self.entered.len() - 1] == self.round
    }

    fn advance(&mut self, tokens: &[Token], c: char) {
        std::mem::swap(&mut self.active, &mut self.previous);
        self.active.clear();
        self.round += 1;
        for index in 0..self.previous.len() {
            let state = self.previous[index];
            match tokens.get(state) {
                Some(Token::Literal(literal)) if *literal == c => self.enter(tokens, state + 1),
                Some(Token::AnyChar) if c != '/' => self.enter(tokens, state + 1),
                Some(Token::AnyName) if c != '/' => self.enter(tokens, state),
                Some(Token::AnyText) => self.enter(tokens, state),
                Some(Token::AnyParents) => self.stay_in_parents(tokens, state, c),
                Some(Token::Class { negated, ranges }) if is_inside(c, ranges) != *negated => {
                    self.enter(tokens, state + 1);
                }
                _ => {}
            }
        }
    }

    /// Within `**/` the next token may begin only after a `/`.
    fn stay_in_parents(&mut self, tokens: &[Token], state: usize, c: char) {
        self.mark(state);
        if c == '/' {
            self.enter(tokens, state + 1);
        }
    }

    /// Marks a state, and those behind it that need no character.
    fn enter(&mut self, tokens: &[Token], mut state: usize) {
        self.mark(state);
        while let Some(Token::AnyName | Token::AnyText | Token::AnyParents) = tokens.get(state) {
            state += 1;
            self.mark(state);
        }
    }

    fn mark(&mut self, state: usize) {
        if self.entered[state] != self.round {
            self.entered[state] = self.round;
            self.active.push(state);
        }
    }
}
