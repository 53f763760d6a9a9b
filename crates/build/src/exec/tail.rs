//! The end of what a step prints, for when it fails.

use std::collections::VecDeque;

use crate::Lines;

pub struct Tail {
    max_lines: usize,
    max_bytes: usize,
    lines: Lines,
    last: VecDeque<String>,
}

impl Tail {
    /// At most so many lines, and so many bytes.
    pub fn new(max_lines: usize, max_bytes: usize) -> Tail {
        Tail { max_lines, max_bytes, lines: Lines::plain(), last: VecDeque::new() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let Tail { max_lines, max_bytes, lines, last } = self;
        lines.push(bytes, |line| keep(last, line, *max_lines, *max_bytes));
    }

    /// The last line with something on it, as it looks now.
    pub fn last_line(&self) -> Option<String> {
        let current = Some(self.lines.current()).filter(|line| !line.trim().is_empty());
        current.or_else(|| self.last.iter().rev().find(|line| !line.trim().is_empty()).cloned())
    }

    /// The last lines as they would look on a terminal, without colours, and without an end of line at their end. A line that
    /// is cut begins with `…`.
    pub fn lines(&mut self) -> String {
        if let Some(line) = self.lines.finish() {
            keep(&mut self.last, line, self.max_lines, self.max_bytes);
        }
        while self.last.back().is_some_and(|line| line.trim().is_empty()) {
            self.last.pop_back();
        }
        let lines: Vec<&str> = self.last.iter().map(String::as_str).collect();
        lines.join("\n").trim_end().to_owned()
    }
}

fn keep(last: &mut VecDeque<String>, mut line: String, max_lines: usize, max_bytes: usize) {
    if line.len() > max_bytes {
        let mut cut = line.len() - max_bytes;
        while !line.is_char_boundary(cut) {
            cut += 1;
        }
        line.replace_range(..cut, "…");
    }
    last.push_back(line);
    let room = max_bytes + '…'.len_utf8();
    while last.len() > max_lines || last.len() > 1 && last.iter().map(String::len).sum::<usize>() > room {
        last.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_LINES: usize = 30;
    const MAX_BYTES: usize = 8 << 10;

    #[test]
    fn the_last_lines_stay() {
        let mut tail = Tail::new(MAX_LINES, MAX_BYTES);
        assert_eq!(tail.lines(), "");
        for line in 0..10_000 {
            tail.push(format!("line {line}\n").as_bytes());
        }
        let lines = tail.lines();
        assert_eq!(
            (lines.lines().count(), lines.lines().next(), lines.lines().last()),
            (MAX_LINES, Some("line 9970"), Some("line 9999"))
        );
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut tail = Tail::new(MAX_LINES, MAX_BYTES);
        tail.push(b"short");
        assert_eq!(tail.lines(), "short");
        tail.push(&vec![b'x'; 3 * MAX_BYTES]);
        let lines = tail.lines();
        assert_eq!(lines.chars().filter(|c| *c == 'x').count(), MAX_BYTES);
        tail.push(&vec![b'x'; 5 * MAX_BYTES]);
        assert!(tail.lines().len() <= MAX_BYTES + 4);
    }

    /// What is cut off never leaves the rest of a sequence.
    #[test]
    fn sequences_are_never_cut() {
        let mut tail = Tail::new(MAX_LINES, MAX_BYTES);
        for _ in 0..MAX_BYTES {
            tail.push(b"\x1b[32mok\x1b[0m\r\x1b]8;;http://x\x07");
        }
        assert_eq!(tail.lines(), "ok");
        tail.push(b"50%\r100%\nfailed \x1b[2J\x1b[H\n\n");
        assert_eq!(tail.lines(), "ok\n100%\nfailed");
    }
}
