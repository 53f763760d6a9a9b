//! `.gitattributes`, as far as line ends go: which files are checked out with CRLF (gitattributes(5), git `convert.c`).
//!
//! Everything else that attributes can ask for takes a program or a setting that is not in the repository.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use dockerfile::glob;

/// git ignores longer lines.
const LINE_MAX_BYTES: usize = 2048;
/// Of all attribute files that apply in one directory; what is beyond counts as empty.
const HELD_MAX_BYTES: usize = 8 << 20;

/// The attribute files that apply in one directory: the root's first.
#[derive(Default)]
pub struct Attributes {
    levels: Vec<Level>,
    macros: HashMap<Vec<u8>, Vec<(Name, State)>>,
}

struct Level {
    /// With a `/` at the end; empty for the root.
    directory: Vec<u8>,
    rules: Vec<Rule>,
    text_bytes: usize,
}

struct Rule {
    pattern: Pattern,
    states: Vec<(Name, State)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Text,
    /// The name that `text` had long ago.
    Crlf,
    Eol,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Set,
    Unset,
    Unspecified,
    Auto,
    /// `eol=crlf`
    Carriage,
    Other,
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineEnds {
    AsStored,
    /// With CRLF; `only_text` when its content has to look like text.
    Carriage {
        only_text: bool,
    },
}

impl Attributes {
    /// Goes into `directory` (empty for the root), whose `.gitattributes` has `text`.
    pub fn enter(&mut self, directory: &[u8], text: &[u8]) {
        if self.macros.is_empty() {
            self.macros.insert(b"binary".to_vec(), vec![(Name::Text, State::Unset)]);
        }
        let held: usize = self.levels.iter().map(|level| level.text_bytes).sum();
        let text = if held + text.len() > HELD_MAX_BYTES { &[] } else { text };
        let mut rules = Vec::new();
        for line in text.split(|byte| *byte == b'\n').filter(|line| line.len() < LINE_MAX_BYTES) {
            let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
            if let Some(rest) = line.strip_prefix(b"[attr]") {
                let (name, rest) = word(rest);
                // Only at the root (gitattributes(5), «Defining macro attributes»).
                if directory.is_empty() {
                    let states = self.states(rest);
                    self.macros.insert(name.to_vec(), states);
                }
                continue;
            }
            let Some((pattern, rest)) = pattern(line) else { continue };
            let states = self.states(rest);
            if !states.is_empty() {
                rules.push(Rule { pattern, states });
            }
        }
        let mut directory = directory.to_vec();
        if !directory.is_empty() {
            directory.push(b'/');
        }
        self.levels.push(Level { directory, rules, text_bytes: text.len() });
    }

    /// Leaves the directory that was entered last.
    pub fn leave(&mut self) {
        self.levels.pop();
    }

    /// git `convert_attrs`, without any `core.autocrlf` and `core.eol`.
    pub fn line_ends(&self, path: &[u8]) -> LineEnds {
        let of = |name| self.state(name, path);
        let text = match of(Name::Text) {
            State::Unspecified | State::Other => of(Name::Crlf),
            state => state,
        };
        match (text, of(Name::Eol)) {
            (State::Unset, _) => LineEnds::AsStored,
            (text, State::Carriage) => LineEnds::Carriage { only_text: text == State::Auto },
            _ => LineEnds::AsStored,
        }
    }

    /// The last word on it: of the deepest file, in that of the last line.
    fn state(&self, name: Name, path: &[u8]) -> State {
        for level in self.levels.iter().rev() {
            let Some(below) = path.strip_prefix(level.directory.as_slice()) else { continue };
            for rule in level.rules.iter().rev() {
                let said = rule.states.iter().rev().find(|(other, _)| *other == name);
                if let Some((_, state)) = said.filter(|_| rule.pattern.matches(below)) {
                    return *state;
                }
            }
        }
        State::Unspecified
    }

    fn states(&self, text: &[u8]) -> Vec<(Name, State)> {
        let mut states = Vec::new();
        for word in text.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty()) {
            let (word, value) = match word.iter().position(|byte| *byte == b'=') {
                Some(at) => (&word[..at], Some(&word[at + 1..])),
                None => (word, None),
            };
            let (name, state) = match (word.first(), value) {
                (Some(b'-'), _) => (&word[1..], State::Unset),
                (Some(b'!'), _) => (&word[1..], State::Unspecified),
                (_, None) => (word, State::Set),
                (_, Some(b"auto")) => (word, State::Auto),
                (_, Some(b"crlf")) => (word, State::Carriage),
                (_, Some(_)) => (word, State::Other),
            };
            match name {
                b"text" => states.push((Name::Text, state)),
                b"crlf" => states.push((Name::Crlf, state)),
                b"eol" => states.push((Name::Eol, state)),
                name if state == State::Set => states.extend(self.macros.get(name).into_iter().flatten()),
                _ => {}
            }
        }
        states
    }
}

/// The first word and the rest.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at(end)
}

/// The pattern of a line, and its attributes; none for comments and for patterns that match no file.
fn pattern(line: &[u8]) -> Option<(Pattern, &[u8])> {
    let (text, rest) = match line.first()? {
        b'#' | b'!' => return None,
        b'"' => {
            let end = line[1..].iter().position(|byte| *byte == b'"')? + 1;
            (&line[1..end], &line[end + 1..])
        }
        _ => word(line),
    };
    let anchored = text.strip_prefix(b"/");
    let whole = anchored.unwrap_or(text);
    if whole.is_empty() || whole.ends_with(b"/") {
        return None;
    }
    let parts = whole.split(|byte| *byte == b'/').map(Part::parse).collect();
    Some((Pattern { anywhere: anchored.is_none() && !whole.contains(&b'/'), parts }, rest))
}

/// A pattern by the parts between slashes.
struct Pattern {
    /// Matches the last part of a path in any directory.
    anywhere: bool,
    parts: Vec<Part>,
}

enum Part {
    /// `**`
    Any,
    Glob(glob::Glob),
    /// Broken.
    Nothing,
}

impl Part {
    fn parse(text: &[u8]) -> Part {
        if text == b"**" {
            return Part::Any;
        }
        // The one difference of spelling between git's brackets and those.
        let mut translated = Vec::with_capacity(text.len());
        for (at, byte) in text.iter().enumerate() {
            let negates = *byte == b'!' && at > 0 && text[at - 1] == b'[';
            translated.push(if negates { b'^' } else { *byte });
        }
        glob::Glob::new(&translated).map_or(Part::Nothing, Part::Glob)
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Part::Any => true,
            Part::Glob(glob) => glob.matches(name),
            Part::Nothing => false,
        }
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        if self.anywhere {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
            return self.parts.first().is_some_and(|part| part.matches(name));
        }
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        self.matches_names(&names)
    }

    /// Only the last `**` is ever tried again: a longer match of an earlier one gains nothing.
    fn matches_names(&self, names: &[&[u8]]) -> bool {
        let (mut part, mut name) = (0, 0);
        let mut again: Option<(usize, usize)> = None;
        while name < names.len() {
            match self.parts.get(part) {
                // At the end it stands for what is below, which is something.
                Some(Part::Any) if part + 1 == self.parts.len() => return true,
                Some(Part::Any) => {
                    again = Some((part, name));
                    part += 1;
                }
                Some(one) if one.matches(names[name]) => {
                    part += 1;
                    name += 1;
                }
                _ => {
                    let Some((any, from)) = again else { return false };
                    again = Some((any, from + 1));
                    (part, name) = (any + 1, from + 1);
                }
            }
        }
        part == self.parts.len()
    }
}

/// What `convert.c` counts in a file.
#[derive(Default)]
struct Counts {
    zeros: u64,
    lone_carriages: u64,
    lone_line_feeds: u64,
    pairs: u64,
    printable: u64,
    other: u64,
    /// The last byte, which counts when it is known what follows.
    last: Option<u8>,
}

impl Counts {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let after_carriage = self.last == Some(b'\r');
            if after_carriage && *byte == b'\n' {
                self.pairs += 1;
            } else {
                self.lone_carriages += u64::from(after_carriage);
                match byte {
                    b'\r' => {}
                    b'\n' => self.lone_line_feeds += 1,
                    0 => (self.zeros, self.other) = (self.zeros + 1, self.other + 1),
                    // Backspace, tab, escape and form feed occur in text.
                    0x08 | b'\t' | 0x1b | 0x0c | 0x20..=0x7e | 0x80.. => self.printable += 1,
                    _ => self.other += 1,
                }
            }
            self.last = Some(*byte);
        }
    }

    fn finish(&mut self) {
        self.lone_carriages += u64::from(self.last == Some(b'\r'));
        // The end of a file of DOS.
        self.other -= u64::from(self.last == Some(0x1a));
    }

    /// git `will_convert_lf_to_crlf`.
    fn converts(&self, only_text: bool) -> bool {
        let binary = self.lone_carriages > 0 || self.zeros > 0 || self.printable >> 7 < self.other;
        self.lone_line_feeds > 0 && !(only_text && (self.pairs > 0 || binary))
    }
}

/// Whether a file with that content is converted. Reads it to its end.
pub fn converts(content: &mut dyn Read, only_text: bool) -> io::Result<bool> {
    let mut counts = Counts::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            counts.finish();
            return Ok(counts.converts(only_text));
        }
        counts.take(&buffer[..count]);
    }
}

/// Writes `content` with CRLF where it has LF alone; gives how many bytes that are.
pub fn convert(content: &mut dyn Read, out: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut converted = Vec::new();
    let (mut last, mut written) = (0, 0);
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            return Ok(written);
        }
        converted.clear();
        for byte in &buffer[..count] {
            if *byte == b'\n' && last != b'\r' {
                converted.push(b'\r');
            }
            converted.push(*byte);
            last = *byte;
        }
        out.write_all(&converted)?;
        written += converted.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(files: &[(&str, &str)], path: &str) -> LineEnds {
        let mut attributes = Attributes::default();
        files.iter().for_each(|(directory, text)| attributes.enter(directory.as_bytes(), text.as_bytes()));
        attributes.line_ends(path.as_bytes())
    }

    #[test]
    fn which_files() {
        let text = LineEnds::Carriage { only_text: false };
        let auto = LineEnds::Carriage { only_text: true };
        let table = [
            ("*.bat text eol=crlf", "a/b.bat", text),
            ("*.bat eol=crlf", "b.bat", text),
            ("*.bat text eol=crlf", "b.bat.x", LineEnds::AsStored),
            ("* text=auto eol=crlf", "x", auto),
            ("* text=auto", "x", LineEnds::AsStored),
            ("* eol=crlf\n*.png binary", "a.png", LineEnds::AsStored),
            ("* eol=crlf\n*.png -text", "a.png", LineEnds::AsStored),
            ("*.png binary\n* eol=crlf text", "a.png", text),
            ("* eol=crlf\n*.sh eol=lf", "a.sh", LineEnds::AsStored),
            ("* eol=crlf\n*.sh !eol", "a.sh", LineEnds::AsStored),
            ("* crlf eol=crlf", "a", text),
            ("[attr]dos text eol=crlf\n*.cmd dos\n", "x.cmd", text),
            ("/a/*.x eol=crlf", "a/b.x", text),
            ("/a/*.x eol=crlf", "c/a/b.x", LineEnds::AsStored),
            ("a/*.x eol=crlf", "a/b/c.x", LineEnds::AsStored),
            ("/b eol=crlf", "a/b", LineEnds::AsStored),
            ("**/b/*.x eol=crlf", "a/a/b/c.x", text),
            ("**/b eol=crlf", "b", text),
            ("a/**/b/**/c eol=crlf", "a/x/b/b/y/c", text),
            ("a/** eol=crlf", "a/b/c", text),
            ("a/** eol=crlf", "a", LineEnds::AsStored),
            ("a/ eol=crlf", "a/b", LineEnds::AsStored),
            ("[!a]x eol=crlf", "bx", text),
            ("[!a]x eol=crlf", "ax", LineEnds::AsStored),
            ("\"a b\" eol=crlf", "a b", text),
            ("# eol=crlf\n!x eol=crlf\n[ eol=crlf", "x", LineEnds::AsStored),
        ];
        for (line, path, expected) in table {
            assert_eq!(ends(&[("", line)], path), expected, "{line} {path}");
        }
        let both = [("", "*.x eol=crlf"), ("a", "*.x -text\n/b.y eol=crlf")];
        assert_eq!(ends(&both, "a/b.x"), LineEnds::AsStored);
        assert_eq!(ends(&both, "a/b.y"), text);
        assert_eq!(ends(&[("", "x"), ("a", "[attr]dos eol=crlf\n* dos")], "a/b"), LineEnds::AsStored);
    }

    #[test]
    fn what_content() {
        let run = |content: &[u8], only_text| {
            if !converts(&mut &*content, only_text).unwrap() {
                return content.to_vec();
            }
            let mut out = Vec::new();
            assert_eq!(convert(&mut &*content, &mut out).unwrap(), out.len() as u64);
            out
        };
        assert_eq!(run(b"a\nb\r\nc\n", false), b"a\r\nb\r\nc\r\n");
        assert_eq!(run(b"a\nb\n", true), b"a\r\nb\r\n");
        for as_it_is in [&b"a\nb\r\n"[..], b"a\n\0", b"a\rb\n", b"a\n\x01", b"a\n\r", b"a"] {
            assert_eq!(run(as_it_is, true), as_it_is);
        }
        assert_eq!(run(b"a\n\x1a", true), b"a\r\n\x1a");
    }

    proptest! {
        #[test]
        fn any_text_and_path_end(text in r#"([*/\[\]!a"\\# \n=-]|text|eol=crlf|\*\*|\[attr\]x){0,40}"#, path in "[a/]{1,20}") {
            ends(&[("", &text), ("a", &text)], &path);
        }
    }
}
