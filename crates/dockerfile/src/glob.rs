//! Go's `filepath.Match`, for COPY and ADD sources. `/`-separated bytes; `*` and `?` stop at `/`.

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether `name` matches `pattern` as a whole.
pub fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    Ok(Glob::new(pattern)?.matches(name))
}

/// Whether `text` has an unescaped `*`, `?` or `[`.
pub fn has_wildcard(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// A checked pattern, for matching many names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob {
    chunks: Vec<Chunk>,
}

/// A part of the pattern without `*`, and whether a `*` stands before it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Chunk {
    star: bool,
    tokens: Vec<Token>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Byte(u8),
    /// `?`: one character but `/`.
    AnyChar,
    /// `[…]`: one character (which may be `/`, as in Go) inside or outside of the ranges.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Checks and prepares a pattern. Whether it is bad does not depend on the names that it is matched with later.
    pub fn new(pattern: &[u8]) -> Result<Glob, BadPattern> {
        let mut chunks = Vec::new();
        let mut rest = pattern;
        while !rest.is_empty() {
            let stars = rest.iter().take_while(|byte| **byte == b'*').count();
            rest = &rest[stars..];
            let length = chunk_length(rest);
            chunks.push(Chunk { star: stars > 0, tokens: tokens(&rest[..length])? });
            rest = &rest[length..];
        }
        Ok(Glob { chunks })
    }

    /// Whether `name` matches as a whole.
    pub fn matches(&self, name: &[u8]) -> bool {
        let mut rest = name;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let is_last = index + 1 == self.chunks.len();
            if is_last && chunk.star && chunk.tokens.is_empty() {
                return !rest.contains(&b'/');
            }
            match chunk.find(rest, is_last) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl Chunk {
    /// What is left of `name` after the first place where the chunk fits; the last chunk must fit at the end.
    fn find<'n>(&self, name: &'n [u8], is_last: bool) -> Option<&'n [u8]> {
        let mut start = name;
        loop {
            if let Some(rest) = self.strip(start)
                && (rest.is_empty() || !is_last)
            {
                return Some(rest);
            }
            match start.split_first() {
                Some((byte, after)) if self.star && *byte != b'/' => start = after,
                _ => return None,
            }
        }
    }

    fn strip<'n>(&self, mut name: &'n [u8]) -> Option<&'n [u8]> {
        for token in &self.tokens {
            name = token.strip(name)?;
        }
        Some(name)
    }
}

impl Token {
    fn strip<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        match self {
            Token::Byte(byte) => name.strip_prefix(&[*byte]),
            Token::AnyChar => {
                let (c, length) = first_char(name)?;
                (c != '/').then(|| &name[length..])
            }
            Token::Class { negated, ranges } => {
                let (c, length) = first_char(name)?;
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                (inside != *negated).then(|| &name[length..])
            }
        }
    }
}

/// Bytes up to the next `*` that is neither escaped nor in brackets.
fn chunk_length(pattern: &[u8]) -> usize {
    let mut in_class = false;
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => return at,
            _ => {}
        }
        at += 1;
    }
    pattern.len()
}

fn tokens(mut chunk: &[u8]) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    while let Some((byte, rest)) = chunk.split_first() {
        chunk = rest;
        tokens.push(match byte {
            b'[' => {
                let (class, rest) = class(chunk)?;
                chunk = rest;
                class
            }
            b'?' => Token::AnyChar,
            b'\\' => {
                let (escaped, rest) = chunk.split_first().ok_or(BadPattern)?;
                chunk = rest;
                Token::Byte(*escaped)
            }
            byte => Token::Byte(*byte),
        });
    }
    Ok(tokens)
}

/// What follows `[`, up to and with the `]`.
fn class(mut chunk: &[u8]) -> Result<(Token, &[u8]), BadPattern> {
    let negated = chunk.first() == Some(&b'^');
    chunk = &chunk[usize::from(negated)..];
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chunk.first() == Some(&b']') {
            return Ok((Token::Class { negated, ranges }, &chunk[1..]));
        }
        let (low, rest) = class_char(chunk)?;
        chunk = rest;
        let mut high = low;
        if chunk.first() == Some(&b'-') {
            (high, chunk) = class_char(&chunk[1..])?;
        }
        ranges.push((low, high));
    }
}

/// One end of a range. Something must follow it, if only the `]`.
fn class_char(mut chunk: &[u8]) -> Result<(char, &[u8]), BadPattern> {
    if matches!(chunk.first(), None | Some(b'-' | b']')) {
        return Err(BadPattern);
    }
    if chunk[0] == b'\\' {
        chunk = &chunk[1..];
    }
    let (c, length) = first_char(chunk).ok_or(BadPattern)?;
    let invalid = c == char::REPLACEMENT_CHARACTER && length == 1;
    let rest = &chunk[length..];
    if invalid || rest.is_empty() { Err(BadPattern) } else { Ok((c, rest)) }
}

/// The first character and its length in bytes; a byte that is not UTF-8 counts as U+FFFD of one byte, as in Go.
pub(crate) fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((first as char, 1));
    }
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    Some(valid.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())))
}
