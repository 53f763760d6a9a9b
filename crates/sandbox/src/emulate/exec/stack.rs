//! The stack that a program starts with: the argument and environment vectors, the auxiliary vector, and strings above.
//!
//! The kernel has made one for the loader. The strings stay where they are; the vectors are written again below them, with
//! what is different for the program.

use std::ffi::{CStr, CString};

use super::super::abi::Abi;
use super::tracee::Gone;

/// Entries of the auxiliary vector (`linux/auxvec.h`).
pub const HEADERS: u64 = 3;
pub const HEADER_SIZE: u64 = 4;
pub const HEADER_COUNT: u64 = 5;
pub const INTERPRETER: u64 = 7;
pub const ENTRY: u64 = 9;
pub const UID: u64 = 11;
pub const EUID: u64 = 12;
pub const GID: u64 = 13;
pub const EGID: u64 = 14;
pub const SECURE: u64 = 23;
pub const PATH: u64 = 31;
/// The kernel's code in the program (vdso).
pub const KERNEL_CODE: u64 = 33;

/// Of all vectors together: a quarter of the largest stack that the kernel lets arguments have, and then some.
const MAX_SIZE: usize = 64 << 20;

/// What the kernel has put on a new stack, as addresses.
pub struct Vectors {
    abi: Abi,
    arguments: Vec<u64>,
    environment: Vec<u64>,
    /// Without AT_NULL.
    auxiliary: Vec<(u64, u64)>,
    /// Behind the last entry.
    end: u64,
}

/// What is to be different.
pub struct New<'a> {
    /// In the place of the first argument.
    pub arguments: Option<&'a [CString]>,
    /// For AT_EXECFN.
    pub shown_path: &'a CStr,
    /// Entries of the auxiliary vector.
    pub values: &'a [(u64, u64)],
}

/// Reads memory from an address on; less than asked for where it ends.
pub type Read<'r> = &'r mut dyn FnMut(u64, &mut [u8]) -> Result<usize, Gone>;

impl Vectors {
    /// Reads them from the lowest address of a stack on.
    pub fn read(abi: Abi, read: Read<'_>, stack: u64) -> Result<Vectors, Gone> {
        let mut words = Words { read, word: abi.word(), next: stack, buffer: Vec::new(), taken: 0 };
        let count = words.next()?;
        let arguments = words.until_null()?;
        if arguments.len() as u64 != count {
            return Err(Gone);
        }
        let environment = words.until_null()?;
        let mut auxiliary = Vec::new();
        loop {
            match (words.next()?, words.next()?) {
                (0, _) => break,
                entry => auxiliary.push(entry),
            }
        }
        let end = stack + (words.taken * abi.word()) as u64;
        Ok(Vectors { abi, arguments, environment, auxiliary, end })
    }

    pub fn abi(&self) -> Abi {
        self.abi
    }

    pub fn value(&self, key: u64) -> Option<u64> {
        self.auxiliary.iter().find(|entry| entry.0 == key).map(|entry| entry.1)
    }

    /// The new stack pointer, and what is to be written there: the vectors, and the new strings where the old vectors ended.
    pub fn renew(&self, new: &New<'_>) -> (u64, Vec<u8>) {
        let texts = new.arguments.unwrap_or_default();
        let mut strings: Vec<u8> = Vec::new();
        let mut put = |text: &CStr| {
            strings.extend(text.to_bytes_with_nul());
            (strings.len() - text.to_bytes_with_nul().len()) as u64
        };
        let path = put(new.shown_path);
        let places: Vec<u64> = texts.iter().map(|text| put(text)).collect();
        let start = self.end - strings.len() as u64;

        let kept = &self.arguments[if new.arguments.is_some() { self.arguments.len().min(1) } else { 0 }..];
        let mut words = vec![(places.len() + kept.len()) as u64];
        words.extend(places.iter().map(|place| start + place));
        words.extend(kept);
        words.push(0);
        words.extend(&self.environment);
        words.push(0);
        for (key, value) in &self.auxiliary {
            let patched = new.values.iter().find(|entry| entry.0 == *key).map(|entry| entry.1);
            words.extend([*key, if *key == PATH { start + path } else { patched.unwrap_or(*value) }]);
        }
        words.extend([0, 0]);

        let stack = (start - (words.len() * self.abi.word()) as u64) & !15;
        let mut bytes: Vec<u8> =
            words.iter().flat_map(|word| word.to_le_bytes().into_iter().take(self.abi.word())).collect();
        bytes.resize((start - stack) as usize, 0);
        bytes.extend(strings);
        (stack, bytes)
    }
}

/// The words of a stack, read a piece at a time.
struct Words<'r> {
    read: Read<'r>,
    /// Bytes of one.
    word: usize,
    next: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Result<u64, Gone> {
        let at = self.taken * self.word;
        if at + self.word > self.buffer.len() {
            self.more()?;
        }
        let mut word = [0; 8];
        word[..self.word].copy_from_slice(self.buffer.get(at..at + self.word).ok_or(Gone)?);
        self.taken += 1;
        Ok(u64::from_le_bytes(word))
    }

    fn more(&mut self) -> Result<(), Gone> {
        const PIECE: usize = 16 << 10;
        let old = self.buffer.len();
        if old > MAX_SIZE {
            return Err(Gone);
        }
        self.buffer.resize(old + PIECE, 0);
        let count = (self.read)(self.next, &mut self.buffer[old..])?;
        self.buffer.truncate(old + count);
        self.next += count as u64;
        Ok(())
    }

    fn until_null(&mut self) -> Result<Vec<u64>, Gone> {
        let mut all = Vec::new();
        loop {
            match self.next()? {
                0 => return Ok(all),
                word => all.push(word),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: u64 = 0x7ffc_0000_0010;

    fn read(words: &[u64]) -> Result<Vectors, Gone> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut read = |at: u64, buffer: &mut [u8]| {
            let rest = &bytes[((at - STACK) as usize).min(bytes.len())..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        Vectors::read(Abi::Own, &mut read, STACK)
    }

    /// Text at an address of a renewed stack.
    fn text(stack: u64, bytes: &[u8], at: u64) -> &str {
        CStr::from_bytes_until_nul(&bytes[(at - stack) as usize..]).expect("an end").to_str().expect("text")
    }

    #[test]
    fn vectors_are_written_again_below_the_strings() {
        let old = [2, 0xa0, 0xa1, 0, 0xe0, 0, UID, 1000, PATH, 0xf0, 25, 0xd0, 0, 0];
        let vectors = read(&old).expect("vectors");
        let script = [c"/bin/sh".into(), c"-e".into(), c"/x".into()];
        for (arguments, wanted) in [(None, &["a0", "a1"][..]), (Some(&script[..]), &["/bin/sh", "-e", "/x", "a1"])] {
            let new = New { arguments, shown_path: c"/run", values: &[(UID, 5), (GID, 6)] };
            let (stack, bytes) = vectors.renew(&new);
            assert_eq!(stack % 16, 0);
            assert_eq!(stack + bytes.len() as u64, STACK + old.len() as u64 * 8);
            let again: Vec<u64> =
                bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight"))).collect();
            let count = again[0] as usize;
            let shown: Vec<String> = again[1..=count]
                .iter()
                .map(|at| if *at < 0x100 { format!("{at:x}") } else { text(stack, &bytes, *at).to_owned() })
                .collect();
            assert_eq!(shown, wanted);
            let rest = &again[count + 1..];
            assert_eq!(rest[..6], [0, 0xe0, 0, UID, 5, PATH]);
            assert_eq!(text(stack, &bytes, rest[6]), "/run");
            assert_eq!(rest[7..11], [25, 0xd0, 0, 0]);
        }
    }

    #[test]
    fn no_arguments_are_none() {
        let vectors = read(&[0, 0, 0, 0, 0]).expect("vectors");
        let (_, bytes) = vectors.renew(&New { arguments: None, shown_path: c"", values: &[] });
        assert_eq!(bytes[..40], [0; 40]);
    }

    #[test]
    fn a_stack_that_ends_early_is_none() {
        for words in [&[][..], &[1, 0xa0], &[2, 0xa0, 0, 0, 0, 0], &[0, 0, 0, UID]] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
