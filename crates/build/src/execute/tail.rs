//! The end of what a step prints, for when it fails.

/// As much as is kept, in lines and in bytes.
const MAX_LINES: usize = 30;
const MAX_BYTES: usize = 8 << 10;

#[derive(Default)]
pub struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    pub fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(MAX_BYTES)..];
        self.bytes.extend_from_slice(new);
        if self.bytes.len() > 2 * MAX_BYTES {
            self.bytes.drain(..self.bytes.len() - MAX_BYTES);
        }
    }

    /// The last lines, without an end of line at their end. A line that is cut begins with `…`.
    pub fn lines(&self) -> String {
        let kept = &self.bytes[self.bytes.len().saturating_sub(MAX_BYTES)..];
        let text = String::from_utf8_lossy(kept);
        let text = text.trim_end();
        let begins: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        match begins.len().checked_sub(MAX_LINES - 1).filter(|more| *more > 0) {
            Some(more) => text[begins[more - 1]..].to_owned(),
            None if kept.len() < self.bytes.len() => format!("…{text}"),
            None => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay() {
        let mut tail = Tail::default();
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
        let mut tail = Tail::default();
        tail.push(b"short");
        assert_eq!(tail.lines(), "short");
        tail.push(&[b'x'; 5 * MAX_BYTES]);
        assert_eq!(tail.lines().chars().filter(|c| *c == 'x').count(), MAX_BYTES);
        assert!(tail.lines().starts_with('…'));
        assert!(tail.bytes.len() <= 2 * MAX_BYTES);
    }
}
