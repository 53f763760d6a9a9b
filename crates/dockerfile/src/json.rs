//! The exec form: is a text a JSON array, and of strings alone?
//!
//! A parser of its own because the answers differ from a general one's: text that is not JSON is shell form and no error,
//! JSON of other things is an error, elements need their places, and lone surrogates become U+FFFD as in Go.

use std::ops::Range;

/// Go's `encoding/json` gives up at 10000; nobody nests arrays in a Dockerfile on purpose.
const MAX_DEPTH: usize = 100;

pub(crate) enum Exec {
    /// Each string with its place in the text, quotes included.
    Strings(Vec<(String, Range<usize>)>),
    /// A JSON array, with something in it that is not a string.
    NotStrings,
    /// No JSON array.
    NotJson,
}

pub(crate) fn exec_form(text: &str) -> Exec {
    let mut reader = Reader { text, at: 0 };
    reader.skip_space();
    if reader.peek() != Some(b'[') {
        return Exec::NotJson;
    }
    match reader.top_level() {
        Some(Some(strings)) => Exec::Strings(strings),
        Some(None) => Exec::NotStrings,
        None => Exec::NotJson,
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Strings = Vec<(String, Range<usize>)>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// `None`: not JSON. `Some(None)`: not only strings.
    fn top_level(&mut self) -> Option<Option<Strings>> {
        let mut strings = Some(Vec::new());
        self.sequence(b'[', b']', |reader| {
            let start = reader.at;
            if reader.peek() == Some(b'"') {
                let string = reader.string()?;
                if let Some(strings) = &mut strings {
                    strings.push((string, start..reader.at));
                }
            } else {
                strings = None;
                reader.value(1)?;
            }
            Some(())
        })?;
        self.skip_space();
        (self.at == self.text.len()).then_some(strings)
    }

    /// An array or object whose elements `element` reads.
    fn sequence(&mut self, open: u8, close: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.eat(open)?;
        self.skip_space();
        if self.eat(close).is_some() {
            return Some(());
        }
        loop {
            self.skip_space();
            element(self)?;
            self.skip_space();
            if self.eat(close).is_some() {
                return Some(());
            }
            self.eat(b',')?;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'[' => self.sequence(b'[', b']', |reader| reader.value(depth + 1)),
            b'{' => self.sequence(b'{', b'}', |reader| {
                reader.string()?;
                reader.skip_space();
                reader.eat(b':')?;
                reader.skip_space();
                reader.value(depth + 1)
            }),
            b'"' => self.string().map(drop),
            b't' => self.keyword("true"),
            b'f' => self.keyword("false"),
            b'n' => self.keyword("null"),
            _ => self.number(),
        }
    }

    fn keyword(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if self.eat(b'e').or_else(|| self.eat(b'E')).is_some() {
            let _ = self.eat(b'+').or_else(|| self.eat(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut result = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            result.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(result);
                }
                b'\\' => result.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        self.eat(b'\\')?;
        let kind = self.peek()?;
        self.at += 1;
        Some(match kind {
            b'"' | b'\\' | b'/' => kind as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return None,
        })
    }

    /// Four hexadecimal digits, and the second half of a surrogate pair if there is one.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex()?;
        if let Some(c) = char::from_u32(first) {
            return Some(c);
        }
        let after_first = self.at;
        if first < 0xdc00 && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            if let Some(second @ 0xdc00..0xe000) = self.hex() {
                return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            self.at = after_first;
        }
        Some(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}
