//! Symbolic modes, as BSD chmod(1) and BuildKit (`tonistiigi/dchapes-mode`) read them, with an empty umask.

use super::{CopyError, refuse};

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;
/// What a class letter (`ugoa`) can stand for; the sticky bit is reached by `t` alone.
const CLASS_BITS: u32 = 0o6777;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Clear(u32),
    Set(u32),
    /// Set when the original mode has any execute bit, and for directories (`X`).
    SetIfExecutable(u32),
    /// `u`, `g` or `o` on the right side: the three bits found after `shift` go to the classes in `to`.
    Copy {
        shift: u32,
        to: u32,
        operator: u8,
    },
}

/// Parsed clauses, ready for any number of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Clauses(Vec<Step>);

impl Clauses {
    /// Reads comma-separated clauses of `[ugoa]*([-+=]([rwxXst]|[ugo])*)+`.
    pub(super) fn parse(text: &str) -> Result<Clauses, CopyError> {
        let mut steps = Vec::new();
        for clause in text.split(',') {
            if parse_clause(clause.as_bytes(), &mut steps).is_none() {
                return refuse(format!("invalid chmod value `{text}`: syntax error in clause `{clause}`"));
            }
        }
        Ok(Clauses(steps))
    }

    /// `mode` (permission bits) after the clauses.
    pub(super) fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executable = directory || mode & 0o111 != 0;
        self.0.iter().fold(mode, |mode, step| match *step {
            Step::Clear(bits) => mode & !bits,
            Step::Set(bits) => mode | bits,
            Step::SetIfExecutable(bits) if executable => mode | bits,
            Step::SetIfExecutable(_) => mode,
            Step::Copy { shift, to, operator } => {
                let bits = (((mode >> shift) & 0o7) * 0o111) & to;
                match operator {
                    b'+' => mode | bits,
                    b'-' => mode & !bits,
                    _ => (mode & !to) | bits,
                }
            }
        })
    }
}

/// One clause; none when it is broken.
fn parse_clause(clause: &[u8], steps: &mut Vec<Step>) -> Option<()> {
    let letters = clause.iter().take_while(|byte| b"ugoa".contains(byte)).count();
    let who = clause[..letters].iter().fold(0, |who, letter| who | class_bits(*letter));
    let mut rest = &clause[letters..];
    // At least one operator; `u+r-w` has two for the same classes.
    loop {
        let (&operator, right) = rest.split_first()?;
        if !b"+-=".contains(&operator) {
            return None;
        }
        let length = right.iter().take_while(|byte| b"rwxXstugo".contains(byte)).count();
        Action { operator, who, cleared: false, steps }.take(&right[..length]);
        rest = &right[length..];
        if rest.is_empty() {
            return Some(());
        }
    }
}

fn class_bits(letter: u8) -> u32 {
    match letter {
        b'u' => SET_USER | 0o700,
        b'g' => SET_GROUP | 0o070,
        b'o' => 0o007,
        _ => CLASS_BITS,
    }
}

/// One operator and what is right of it.
struct Action<'a> {
    operator: u8,
    who: u32,
    /// Whether `=` has already cleared what it replaces.
    cleared: bool,
    steps: &'a mut Vec<Step>,
}

impl Action<'_> {
    fn take(&mut self, letters: &[u8]) {
        let (mut bits, mut if_executable) = (0, 0);
        for &letter in letters {
            match letter {
                b'r' => bits |= 0o444,
                b'w' => bits |= 0o222,
                b'x' => bits |= 0o111,
                b'X' if self.operator == b'-' => bits |= 0o111,
                b'X' => if_executable |= 0o111,
                // Set-id and sticky bits mean nothing for others alone.
                b's' if self.who != 0o007 => bits |= SET_USER | SET_GROUP,
                b't' if self.who != 0o007 => {
                    self.who |= STICKY;
                    bits |= STICKY;
                }
                b'u' | b'g' | b'o' => {
                    self.flush(std::mem::take(&mut bits), std::mem::take(&mut if_executable), true);
                    self.copy(letter);
                }
                _ => {}
            }
        }
        self.flush(bits, if_executable, false);
    }

    /// Adds what has been collected. `=` clears its classes even with nothing to set, unless a copy does that.
    fn flush(&mut self, bits: u32, if_executable: u32, before_copy: bool) {
        if bits != 0 || (self.operator == b'=' && !self.cleared && !before_copy) {
            let masked = if self.who == 0 { bits } else { bits & self.who };
            match self.operator {
                b'-' => self.steps.push(Step::Clear(masked)),
                b'+' => self.steps.push(Step::Set(masked)),
                _ => {
                    self.cleared = true;
                    self.steps.push(Step::Clear(if self.who == 0 { CLASS_BITS } else { self.who }));
                    self.steps.push(Step::Set(masked));
                }
            }
        }
        if if_executable != 0 {
            let masked = if self.who == 0 { if_executable } else { if_executable & self.who };
            self.steps.push(Step::SetIfExecutable(masked));
        }
    }

    fn copy(&mut self, letter: u8) {
        self.cleared = true;
        let shift = match letter {
            b'u' => 6,
            b'g' => 3,
            _ => 0,
        };
        let to = if self.who == 0 { 0o777 } else { self.who & 0o777 };
        self.steps.push(Step::Copy { shift, to, operator: self.operator });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_apply_as_bsd_chmod_does() {
        // clauses, mode before, mode after as a file, as a directory
        let table = [
            ("u+x", 0o644, 0o744, 0o744),
            ("go-r", 0o644, 0o600, 0o600),
            ("a=r", 0o755, 0o444, 0o444),
            ("g=u", 0o644, 0o664, 0o664),
            ("u=rw,g=r,o=", 0o777, 0o640, 0o640),
            ("+x", 0o644, 0o755, 0o755),
            ("u+s,+t", 0o644, 0o5644, 0o5644),
            ("o=g,u-w", 0o644, 0o444, 0o444),
            ("a+rwx,g-w,o-wx", 0o644, 0o754, 0o754),
            ("u=rwX,go=rX", 0o640, 0o644, 0o755),
            ("u=rwX,go=rX", 0o700, 0o755, 0o755),
            ("a=,u+rX", 0o700, 0o500, 0o500),
            ("a=,u+rX", 0o640, 0o400, 0o500),
            ("go=", 0o755, 0o700, 0o700),
            ("=", 0o6755, 0, 0),
            ("u=", 0o4755, 0o055, 0o055),
            ("u+r-w", 0o200, 0o400, 0o400),
            ("a-X", 0o755, 0o644, 0o644),
            ("o+s", 0o644, 0o644, 0o644),
            ("g+s", 0o755, 0o2755, 0o2755),
            ("g=u-w", 0o750, 0o750, 0o750),
            ("go-u", 0o755, 0o700, 0o700),
            ("o+t", 0o755, 0o755, 0o755),
            ("a=", 0o1777, 0o1000, 0o1000),
        ];
        for (text, before, file, directory) in table {
            let clauses = Clauses::parse(text).unwrap();
            assert_eq!(format!("{:o}", clauses.apply(before, false)), format!("{file:o}"), "{text} on {before:o}");
            assert_eq!(
                format!("{:o}", clauses.apply(before, true)),
                format!("{directory:o}"),
                "{text} on dir {before:o}"
            );
        }
    }

    #[test]
    fn broken_clauses_are_refused_with_their_text() {
        for text in ["", "u", "u=q", "u=r,", ",u=r", "rw", "u~x", "q+r", "u=r;g=w", "u+rq"] {
            let error = Clauses::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
