//! What a program prints, as lines that can be shown anywhere.
//!
//! A program may move the cursor, clear the screen, set a title or leave colours behind. Here every control sequence is taken
//! as a whole: what redraws a line (`\r`, backspace, cursor left and right, erasing) is carried out on that line, colours are
//! kept when they are wanted and end with their line, everything else is dropped. Sequences are those of ECMA-48 and xterm.

use std::mem::take;

/// A line that is longer is cut in two.
const MAX_CHARS: usize = 16 << 10;

/// Parameters of a sequence, and colours that add up, are as long at most.
const MAX_PARAMETERS: usize = 64;

/// Makes lines of bytes that come in pieces.
pub struct Lines {
    keep_colors: bool,
    state: State,
    /// The beginning of a character of several bytes.
    partial: Vec<u8>,
    /// Each character with the number of its colours.
    cells: Vec<(char, u16)>,
    cursor: usize,
    color: u16,
    /// Colours by number, as the parameters of one sequence; the first are none.
    colors: Vec<String>,
}

/// Where in a control sequence the next byte is.
enum State {
    Text,
    Escape,
    /// Behind a byte that says that one more belongs to the sequence.
    Intermediate,
    Csi(String),
    /// In a title, a link or the like, which has an end of its own.
    Str,
}

impl Lines {
    /// Lines without colours.
    pub fn plain() -> Lines {
        Lines {
            keep_colors: false,
            state: State::Text,
            partial: Vec::new(),
            cells: Vec::new(),
            cursor: 0,
            color: 0,
            colors: vec![String::new()],
        }
    }

    /// Lines that begin and end without colours, and have them between.
    pub fn colored() -> Lines {
        Lines { keep_colors: true, ..Lines::plain() }
    }

    /// Takes the next bytes; `line` gets every line that they end.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(String)) {
        for byte in bytes {
            if *byte == b'\n' {
                // No sequence goes on in the next line: one that has no end would hide everything that follows.
                self.end_partial();
                self.state = State::Text;
                line(self.take_line());
            } else {
                self.byte(*byte);
                if self.cells.len() >= MAX_CHARS {
                    line(self.take_line());
                }
            }
        }
    }

    /// The line that has no end yet, as it looks now.
    pub fn current(&self) -> String {
        self.rendered()
    }

    /// Ends the line that has no end yet.
    pub fn finish(&mut self) -> Option<String> {
        self.end_partial();
        self.state = State::Text;
        (!self.cells.is_empty()).then(|| self.take_line())
    }

    fn take_line(&mut self) -> String {
        let line = self.rendered();
        self.cells.clear();
        self.cursor = 0;
        // Colours last until they are changed; those of finished lines are not needed any more.
        if self.color > 0 {
            let color = take(&mut self.colors[usize::from(self.color)]);
            self.colors.truncate(1);
            self.colors.push(color);
            self.color = 1;
        }
        line
    }

    fn rendered(&self) -> String {
        let mut text = String::with_capacity(self.cells.len());
        let mut color = 0;
        for (c, wanted) in &self.cells {
            if *wanted != color {
                text += if color > 0 { "\x1b[0m" } else { "" };
                color = *wanted;
                if color > 0 {
                    text = text + "\x1b[" + &self.colors[usize::from(color)] + "m";
                }
            }
            text.push(*c);
        }
        if color > 0 { text + "\x1b[0m" } else { text }
    }

    fn byte(&mut self, byte: u8) {
        match (&mut self.state, byte) {
            (_, 0x1b) => {
                self.end_partial();
                self.state = State::Escape;
            }
            // CAN and SUB break a sequence off.
            (_, 0x18 | 0x1a) => {
                self.end_partial();
                self.state = State::Text;
            }
            (State::Text, _) => self.text(byte),
            (State::Escape, b'[') => self.state = State::Csi(String::new()),
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => self.state = State::Str,
            (State::Escape | State::Intermediate, 0x20..=0x2f) => self.state = State::Intermediate,
            (State::Escape | State::Intermediate, 0x30..=0x7e) => self.state = State::Text,
            (State::Csi(parameters), 0x20..=0x3f) if parameters.len() < MAX_PARAMETERS => {
                parameters.push(char::from(byte));
            }
            (State::Csi(_), 0x20..=0x3f) => {}
            (State::Csi(parameters), 0x40..=0x7e) => {
                let parameters = take(parameters);
                self.state = State::Text;
                self.control(&parameters, byte);
            }
            (State::Str, _) => self.in_string(byte),
            // No sequence has such a byte: it is text again.
            (_, 0x80..) => {
                self.state = State::Text;
                self.text(byte);
            }
            (_, _) => {}
        }
    }

    /// A string ends with BEL or the control character ST, which takes two bytes in UTF-8 (or is ESC and `\\`).
    fn in_string(&mut self, byte: u8) {
        let ends = byte == 0x07 || self.partial.as_slice() == [0xc2] && byte == 0x9c;
        self.partial.clear();
        if ends {
            self.state = State::Text;
        } else if byte == 0xc2 {
            self.partial.push(byte);
        }
    }

    fn text(&mut self, byte: u8) {
        if byte < 0x80 {
            self.end_partial();
            match byte {
                b'\r' => self.cursor = 0,
                0x08 => self.cursor = self.cursor.saturating_sub(1),
                b'\t' | 0x20..=0x7e => self.put(char::from(byte)),
                _ => {}
            }
            return;
        }
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) => {
                let c = text.chars().next();
                self.partial.clear();
                c.into_iter().for_each(|c| self.wide(c));
            }
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                // The last byte may begin another character.
                let begins_anew = self.partial.len() > 1;
                self.partial.clear();
                self.put(char::REPLACEMENT_CHARACTER);
                if begins_anew {
                    self.text(byte);
                }
            }
        }
    }

    /// A character beyond ASCII; the control characters among them stand for ESC and another character.
    fn wide(&mut self, c: char) {
        match c {
            '\u{9b}' => self.state = State::Csi(String::new()),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => self.state = State::Str,
            '\u{80}'..='\u{9f}' => {}
            c => self.put(c),
        }
    }

    /// The beginning of a character that does not come.
    fn end_partial(&mut self) {
        if !take(&mut self.partial).is_empty() && matches!(self.state, State::Text) {
            self.put(char::REPLACEMENT_CHARACTER);
        }
    }

    fn put(&mut self, c: char) {
        if self.cells.len() < self.cursor {
            self.cells.resize(self.cursor, (' ', 0));
        }
        match self.cells.get_mut(self.cursor) {
            Some(cell) => *cell = (c, self.color),
            None => self.cells.push((c, self.color)),
        }
        self.cursor += 1;
    }

    fn control(&mut self, parameters: &str, last: u8) {
        let number = || parameters.split(';').next().and_then(|first| first.parse().ok()).unwrap_or(0_usize);
        let count = || number().clamp(1, MAX_CHARS);
        match last {
            b'm' => self.set_color(parameters),
            b'C' => self.cursor = (self.cursor + count()).min(MAX_CHARS - 1),
            b'D' => self.cursor = self.cursor.saturating_sub(count()),
            b'G' | b'`' => self.cursor = count() - 1,
            b'K' | b'J' => match (parameters, last) {
                ("" | "0", _) => self.cells.truncate(self.cursor),
                ("1", b'K') => self.cells.iter_mut().take(self.cursor + 1).for_each(|cell| *cell = (' ', 0)),
                ("2", b'K') => self.cells.clear(),
                _ => {}
            },
            _ => {}
        }
    }

    fn set_color(&mut self, parameters: &str) {
        let is_color = |c: char| c.is_ascii_digit() || matches!(c, ';' | ':');
        if !self.keep_colors || !parameters.chars().all(is_color) {
            return;
        }
        let is_reset = |parameter: &str| parameter.chars().all(|c| c == '0');
        let parts: Vec<&str> = parameters.split(';').collect();
        // A zero may also be a part of a colour (`38;5;0`): only a leading one says that all ends.
        let (ends, new) =
            if is_reset(parts[0]) { (true, parts[1..].join(";")) } else { (false, parameters.to_owned()) };
        let before = &self.colors[usize::from(self.color)];
        let adds_up = !ends && !before.is_empty() && before.len() + new.len() < MAX_PARAMETERS;
        let both = if adds_up { format!("{before};{new}") } else { new };
        self.color = match u16::try_from(self.colors.len()) {
            _ if both.is_empty() => 0,
            Ok(number) => {
                self.colors.push(both);
                number
            }
            // More colours than a line has characters: without.
            Err(_) => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut lines: Lines, pieces: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece, |line| found.push(line));
        }
        found.extend(lines.finish());
        found
    }

    /// Each whole, byte by byte, and cut at every place.
    #[test]
    fn control_sequences_are_taken_whole() {
        let table: &[(&[u8], &[&str])] = &[
            (b"plain\n", &["plain"]),
            (b"a\n\nb", &["a", "", "b"]),
            (b"crlf\r\nnext\r\n", &["crlf", "next"]),
            (b"a\rbc", &["bc"]),
            (b"50%\r100%\r", &["100%"]),
            (b"long line\rshort\n", &["shortline"]),
            (b"long line\r\x1b[Kshort\n", &["short"]),
            (b"long line\x1b[2K\rshort\n", &["short"]),
            (b"long line\x1b[1G\x1b[0Jshort\n", &["short"]),
            (b"abc\x08\x08X", &["aXc"]),
            (b"ab\x1b[2DX\x1b[3CY", &["Xb  Y"]),
            (b"\x1b[32mok\x1b[0m building \x1b[1m2\x1b[22m", &["ok building 2"]),
            (b"FAILED \x1b[2J\x1b[H wiped?\n", &["FAILED  wiped?"]),
            (b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\c", &["abc"]),
            (b"\x1bPq#0;2;0\x1b\\a\x1b_x\x1b\\b\x1b^x\x1b\\c\x1bXx\x1b\\d", &["abcd"]),
            (b"\x1b(Ba\x1b=b\x1b7c\x1bcd\x1b#8e\x1b%Gf", &["abcdef"]),
            ("\u{9b}31mred\u{9b}m \u{9d}title\u{9c}x\u{85}y\u{90}q\x07z".as_bytes(), &["red xyz"]),
            (b"\x1b[?25l\x1b[?1049ha\x1b[>4;2mb\x1b[<1uc\x1b[!pd", &["abcd"]),
            (b"\x1b]0;no end\nnext", &["", "next"]),
            (b"\x1b[31\nnext", &["", "next"]),
            (b"a\x1b", &["a"]),
            (b"\x1b[3\x1b[1ma\x1b[3\x18b", &["ab"]),
            ("\x1b[3é".as_bytes(), &["é"]),
            (b"\x07\x00\x0e\x0f\x7fa\tb", &["a\tb"]),
            ("é漢🦀".as_bytes(), &["é漢🦀"]),
            (b"\xff\xc3\x1b[31ma\xe2\x82", &["\u{fffd}\u{fffd}a\u{fffd}"]),
            (b"\xc3\xc3\xa9", &["\u{fffd}é"]),
            (b"\xc2\x1b[2Jx", &["\u{fffd}x"]),
        ];
        for (bytes, want) in table {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(lines(Lines::plain(), &[bytes]), *want, "{shown:?}");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(lines(Lines::plain(), &single), *want, "{shown:?}, byte by byte");
            for at in 0..bytes.len() {
                let (one, two) = bytes.split_at(at);
                assert_eq!(lines(Lines::plain(), &[one, two]), *want, "{shown:?}, cut at {at}");
            }
        }
    }

    #[test]
    fn colors_end_with_their_line() {
        let table: &[(&[u8], &[&str])] = &[
            (b"\x1b[32mok\x1b[0m x", &["\x1b[32mok\x1b[0m x"]),
            (b"\x1b[1;31mred\nstill\x1b[mnot", &["\x1b[1;31mred\x1b[0m", "\x1b[1;31mstill\x1b[0mnot"]),
            (b"\x1b[31m\x1b[1mboth", &["\x1b[31;1mboth\x1b[0m"]),
            (b"\x1b[31ma\x1b[0;1mb", &["\x1b[31ma\x1b[0m\x1b[1mb\x1b[0m"]),
            (b"\x1b[38;5;0ma\x1b[38:2::1:2:3mb", &["\x1b[38;5;0ma\x1b[0m\x1b[38;5;0;38:2::1:2:3mb\x1b[0m"]),
            (b"\x1b[31mred\r\x1b[0mok", &["ok\x1b[31md\x1b[0m"]),
            (b"\x1b[?1ma\x1b[2J\x1b[1\x1b[5Hb", &["ab"]),
            (b"\x1b[31m", &[]),
        ];
        for (bytes, want) in table {
            assert_eq!(lines(Lines::colored(), &[bytes]), *want, "{:?}", String::from_utf8_lossy(bytes));
        }
        // However many there are, what is kept stays small.
        let mut many = Lines::colored();
        for _ in 0..200_000 {
            many.push(b"\x1b[1m\x1b[38;2;1;2;3mx", |line| assert!(line.len() < MAX_CHARS * (MAX_PARAMETERS + 10)));
        }
        assert!(many.colors.len() <= usize::from(u16::MAX) + 1);
    }

    #[test]
    fn lines_and_strings_without_end_are_bounded() {
        let mut endless = Lines::plain();
        let mut found = 0;
        endless.push(&vec![b'x'; 10 * MAX_CHARS], |line| found += line.len());
        assert_eq!(found, 10 * MAX_CHARS);
        for begin in ["\x1b]0;", "\x1b[", "\u{9d}"] {
            let mut endless = Lines::plain();
            endless.push(begin.as_bytes(), |_| {});
            endless.push(&vec![b'1'; 1 << 20], |_| panic!("it is no text"));
            assert_eq!(endless.current(), "");
        }
    }
}
