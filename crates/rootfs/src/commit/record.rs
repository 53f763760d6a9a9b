//! The record of a tree on disk: one entry per path in walking order.
//!
//! Written and read as a stream. An entry is: depth (4 bytes), length of the name (4), the name, then the state's numbers in
//! the order of [`State`]; all little endian.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use crate::FileKind;
use crate::tree::Found;

/// First bytes of the file; the number is the version of the format.
const MAGIC: &[u8; 16] = b"zuwai-record001\n";
const STATE_BYTES: usize = 1 + 4 * 7 + 8 * 6;
/// The kernel's limit is 255.
const MAX_NAME_BYTES: u32 = 4096;

/// What of a file is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub device: (u32, u32),
    pub size_bytes: u64,
    pub modified: (i64, u32),
    pub changed: (i64, u32),
    pub inode: u64,
    pub links: u64,
    pub attributes: u64,
}

impl State {
    pub fn of(found: &Found) -> State {
        let metadata = &found.metadata;
        State {
            kind: metadata.kind,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            device: metadata.device,
            size_bytes: metadata.size_bytes,
            modified: metadata.modified,
            changed: metadata.changed,
            inode: metadata.inode,
            links: metadata.links,
            attributes: found.pretended_attributes,
        }
    }

    /// Whether the change time and the number of names differ and nothing else, not even the nanoseconds of the last write:
    /// then another name came or went, or an attribute was set with it. The change time tells everything else.
    pub fn differs_in_names(&self, before: &State) -> bool {
        State { changed: before.changed, links: before.links, ..*self } == *before && self.links != before.links
    }

    /// Whether all is equal that a layer says of a file apart from what is in it. The change time tells more: that somebody
    /// has touched it.
    pub fn looks_like(&self, before: &State) -> bool {
        let visible = |state: &State| {
            (state.kind, state.mode, state.uid, state.gid, state.device, state.size_bytes, state.modified)
        };
        visible(self) == visible(before)
    }

    /// Whether a directory's own metadata differ from `before`. Its times and number do not count: they change when something
    /// below it does, and when a step makes a file there and removes it again.
    pub fn differs_as_directory(&self, before: &State) -> bool {
        let visible = |state: &State| (state.kind, state.mode, state.uid, state.gid);
        visible(self) != visible(before)
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.kind.number());
        for number in [self.mode, self.uid, self.gid, self.device.0, self.device.1, self.modified.1, self.changed.1] {
            bytes.extend(number.to_le_bytes());
        }
        let times = [self.modified.0 as u64, self.changed.0 as u64];
        for number in [self.size_bytes, times[0], times[1], self.inode, self.links, self.attributes] {
            bytes.extend(number.to_le_bytes());
        }
    }

    fn get(bytes: &[u8; STATE_BYTES]) -> io::Result<State> {
        let number32 = |index: usize| {
            let at = 1 + 4 * index;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let number64 = |index: usize| {
            let at = 1 + 4 * 7 + 8 * index;
            bytes[at..at + 8].iter().rev().fold(0, |number: u64, &byte| number << 8 | u64::from(byte))
        };
        Ok(State {
            kind: FileKind::of_number(bytes[0]).ok_or_else(damaged)?,
            mode: number32(0),
            uid: number32(1),
            gid: number32(2),
            device: (number32(3), number32(4)),
            size_bytes: number64(0),
            modified: (number64(1) as i64, number32(5)),
            changed: (number64(2) as i64, number32(6)),
            inode: number64(3),
            links: number64(4),
            attributes: number64(5),
        })
    }
}

/// One path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// 1 for what is in the root directory.
    pub depth: u32,
    pub name: Vec<u8>,
    pub state: State,
}

pub struct Writer {
    file: BufWriter<File>,
    scratch: Vec<u8>,
}

impl Writer {
    pub fn new(file: File) -> io::Result<Writer> {
        let mut file = BufWriter::with_capacity(128 * 1024, file);
        file.write_all(MAGIC)?;
        Ok(Writer { file, scratch: Vec::new() })
    }

    pub fn write(&mut self, depth: u32, name: &[u8], state: &State) -> io::Result<()> {
        self.scratch.clear();
        self.scratch.extend(depth.to_le_bytes());
        self.scratch.extend((name.len() as u32).to_le_bytes());
        self.scratch.extend(name);
        state.put(&mut self.scratch);
        self.file.write_all(&self.scratch)
    }

    pub fn finish(self) -> io::Result<()> {
        self.file.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
    }
}

/// Reads records one after the other, with a look at the next.
pub struct Reader {
    file: BufReader<File>,
    next: Option<Record>,
}

impl Reader {
    pub fn new(file: File) -> io::Result<Reader> {
        let mut file = BufReader::with_capacity(128 * 1024, file);
        let mut magic = [0; 16];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(damaged());
        }
        let mut reader = Reader { file, next: None };
        reader.advance()?;
        Ok(reader)
    }

    pub fn peek(&self) -> Option<&Record> {
        self.next.as_ref()
    }

    /// Gives the next record.
    pub fn take(&mut self) -> io::Result<Option<Record>> {
        let record = self.next.take();
        if record.is_some() {
            self.advance()?;
        }
        Ok(record)
    }

    fn advance(&mut self) -> io::Result<()> {
        let mut numbers = [0; 8];
        match self.file.read(&mut numbers[..1])? {
            0 => return Ok(()),
            _ => self.file.read_exact(&mut numbers[1..])?,
        }
        let [a, b, c, d, e, f, g, h] = numbers;
        let length = u32::from_le_bytes([e, f, g, h]);
        if length > MAX_NAME_BYTES {
            return Err(damaged());
        }
        let mut name = vec![0; length as usize];
        self.file.read_exact(&mut name)?;
        let mut state = [0; STATE_BYTES];
        self.file.read_exact(&mut state)?;
        self.next = Some(Record { depth: u32::from_le_bytes([a, b, c, d]), name, state: State::get(&state)? });
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the record is damaged")
}
