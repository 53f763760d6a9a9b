//! What is in a tree's files, as a print of each, so that a scan can tell a file that was touched from one that was changed.
//!
//! Prints are taken while contents pass by anyway: when a layer is unpacked and when one is written. They are kept by inode in
//! a list on disk that is only appended to, 24 bytes a file; the last one of an inode counts. It is looked into only for files
//! that look as before and whose change time or inode differs. The first of them has a table made of the list, on disk as
//! well: memory does not grow with the tree.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use twox_hash::XxHash3_128;

use crate::RootfsError;
use crate::tree::io_error;

/// Inode number (8 bytes) and print, little endian.
const ENTRY_BYTES: usize = 8 + 16;
/// Of the list, read at once.
const PIECE_BYTES: usize = 2048 * ENTRY_BYTES;
const LEAST_SLOTS: u64 = 4096;

/// A file's content and capabilities, or a symbolic link's target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Print(u128);

/// Takes a print.
pub struct Printer(XxHash3_128);

impl Printer {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub fn of_link(mut self, target: &OsStr) -> Print {
        self.update(target.as_bytes());
        self.finish(None)
    }

    /// `capability` is the value of `security.capability`, the one attribute that layers have. Only prints of files of one size
    /// are compared, so that it cannot be mistaken for content.
    pub fn finish(mut self, capability: Option<&[u8]>) -> Print {
        self.0.write(&[u8::from(capability.is_some())]);
        self.0.write(capability.unwrap_or_default());
        Print(self.0.finish_128())
    }
}

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Of one tree. Everything is lost with it.
#[derive(Debug)]
pub struct Contents {
    /// Random, so that nobody can make two files of one print.
    seed: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    list: BufWriter<File>,
    /// Entries in the list.
    length: u64,
    table: Table,
}

impl Contents {
    /// Makes the list at `path` and the table beside it. Both have no name any more when this returns.
    pub fn create(path: &Path) -> Result<Contents, RootfsError> {
        let make = |path: &Path| {
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            std::fs::remove_file(path)?;
            Ok(file)
        };
        let fail = |error| io_error("could not make the list of contents", path, error);
        let list = BufWriter::with_capacity(PIECE_BYTES, make(path).map_err(fail)?);
        let table = Table { file: make(&path.with_extension("table")).map_err(fail)?, slots: 0, taken: 0 };
        let seed = RandomState::new().hash_one(0);
        Ok(Contents { seed, kept: Mutex::new(Kept { list, length: 0, table }) })
    }

    pub fn printer(&self) -> Printer {
        Printer(XxHash3_128::with_seed(self.seed))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere leaves at worst half an entry, and the build ends with it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is in the file `inode` now; none where that is not known.
    pub fn note(&self, inode: u64, print: Option<Print>) -> io::Result<()> {
        let mut kept = self.kept();
        kept.length += 1;
        kept.list.write_all(&bytes_of(inode, print))
    }

    /// Notes so far.
    pub fn length(&self) -> u64 {
        self.kept().length
    }

    /// What was in the file `inode` by the first `length` notes.
    pub fn find(&self, inode: u64, length: u64) -> io::Result<Option<Print>> {
        let mut kept = self.kept();
        kept.list.flush()?;
        let Kept { list, length: all, table } = &mut *kept;
        table.take(list.get_ref(), length.min(*all))?;
        table.find(inode)
    }
}

/// The list as a hash table with open addressing: an entry in each slot, inode 0 where there is none.
#[derive(Debug)]
struct Table {
    file: File,
    /// A power of two, at least twice the entries; 0 before it is made.
    slots: u64,
    /// Entries of the list that are in it.
    taken: u64,
}

impl Table {
    /// Has exactly the first `length` entries of `list` in the table.
    fn take(&mut self, list: &File, length: u64) -> io::Result<()> {
        let slots = (length * 2).next_power_of_two().max(LEAST_SLOTS);
        if slots > self.slots || length < self.taken {
            self.file.set_len(0)?;
            self.file.set_len(slots * ENTRY_BYTES as u64)?;
            (self.slots, self.taken) = (slots, 0);
        }
        let mut piece = vec![0; PIECE_BYTES];
        while self.taken < length {
            let count = (length - self.taken).min((PIECE_BYTES / ENTRY_BYTES) as u64);
            let piece = &mut piece[..count as usize * ENTRY_BYTES];
            list.read_exact_at(piece, self.taken * ENTRY_BYTES as u64)?;
            for entry in piece.as_chunks().0 {
                let (slot, _) = self.look(inode_of(entry))?;
                self.file.write_all_at(entry, slot * ENTRY_BYTES as u64)?;
            }
            self.taken += count;
        }
        Ok(())
    }

    fn find(&self, inode: u64) -> io::Result<Option<Print>> {
        let (_, entry) = self.look(inode)?;
        Ok(print_of(&entry).filter(|_| inode_of(&entry) == inode))
    }

    /// The slot of `inode`, or the free one where it belongs, and what is there.
    fn look(&self, inode: u64) -> io::Result<(u64, [u8; ENTRY_BYTES])> {
        // Fibonacci hashing: neighbours are spread over the whole table.
        let spread = inode.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut slot = spread >> (64 - self.slots.trailing_zeros());
        let mut entry = [0; ENTRY_BYTES];
        loop {
            self.file.read_exact_at(&mut entry, slot * ENTRY_BYTES as u64)?;
            if matches!(inode_of(&entry), there if there == 0 || there == inode) {
                return Ok((slot, entry));
            }
            slot = (slot + 1) & (self.slots - 1);
        }
    }
}

fn bytes_of(inode: u64, print: Option<Print>) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..8].copy_from_slice(&inode.to_le_bytes());
    bytes[8..].copy_from_slice(&print.map_or(0, |print| print.0).to_le_bytes());
    bytes
}

fn inode_of(entry: &[u8; ENTRY_BYTES]) -> u64 {
    entry[..8].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A print that happens to be 0 is taken for none, and its file for changed.
fn print_of(entry: &[u8; ENTRY_BYTES]) -> Option<Print> {
    let number = entry[8..].iter().rev().fold(0, |number, &byte| number << 8 | u128::from(byte));
    (number != 0).then_some(Print(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a map, over growth of the table, notes that replace others, and looks into the past.
    #[test]
    fn the_last_note_within_the_length_counts() {
        let directory = tempfile::tempdir().unwrap();
        let contents = Contents::create(&directory.path().join("contents")).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "no name is left");
        let print =
            |round: u64, number: u64| (number % 7 != round).then(|| Print(u128::from(number * 10 + round + 1) << 70));
        // Inodes next to each other, and such that an overlay numbers itself.
        let inode = |number: u64| if number.is_multiple_of(2) { 100 + number } else { number << 53 | number };
        let sizes = [0, 10, 3000, 20_000];
        let mut lengths = Vec::new();
        for (round, &size) in sizes.iter().enumerate() {
            (0..size).for_each(|number| contents.note(inode(number), print(round as u64, number)).unwrap());
            lengths.push((contents.length(), round as u64, size));
        }
        for &(length, round, size) in lengths.iter().chain(lengths.iter().rev()) {
            for number in (0..size).step_by(13) {
                assert_eq!(contents.find(inode(number), length).unwrap(), print(round, number), "{round} {number}");
            }
            assert_eq!(contents.find(99, length).unwrap(), None);
        }
    }

    #[test]
    fn prints_tell_content_and_capabilities_apart() {
        let directory = tempfile::tempdir().unwrap();
        let contents = Contents::create(&directory.path().join("contents")).unwrap();
        let of = |pieces: &[&[u8]], capability: Option<&[u8]>| {
            let mut printer = contents.printer();
            pieces.iter().for_each(|piece| printer.update(piece));
            printer.finish(capability)
        };
        let whole = of(&[b"content"], None);
        assert_eq!(of(&[b"con", b"", b"tent"], None), whole);
        for other in [of(&[b"contenT"], None), of(&[b"content"], Some(b"")), of(&[b"content"], Some(b"x"))] {
            assert_ne!(other, whole);
        }
    }
}
