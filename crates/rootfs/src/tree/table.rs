//! The metadata table: what files are in the image where the kernel would not let the process say so.
//!
//! One entry per file, keyed by inode number and creation time, so that renames and links keep it and a reused inode number
//! does not inherit it. Kept in memory and appended to a file beside the tree. An entry says what the kernel answered when it
//! was made: once the real file differs, somebody has changed it since and the entry no longer counts.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::FileKind;
use super::sys::{Found, Key};

/// First bytes of the file; the number is the version of the format.
const MAGIC: &[u8; 16] = b"zuwai-metadata1\n";
/// Longest entry that is believed when reading; the kernel limits an attribute to 64 KiB.
const MAX_ENTRY_BYTES: u32 = 1 << 20;

/// A value that was wanted, and what the kernel says in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pretended<T> {
    wanted: T,
    real: T,
}

/// What is pretended of one file. Empty: nothing, the kernel's answers count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    owner: Option<Pretended<(u32, u32)>>,
    mode: Option<Pretended<u32>>,
    /// The file stands for this device (or fifo, or socket); it is really an empty regular file.
    node: Option<(FileKind, (u32, u32))>,
    /// `security.*`
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        *self == Entry::default()
    }

    pub fn pretend_owner(&mut self, wanted: (u32, u32), real: (u32, u32)) {
        self.owner = (wanted != real).then_some(Pretended { wanted, real });
    }

    /// Where nobody's entry means root's: an owner other than root is written down, also one that the kernel has as well.
    pub fn own(&mut self, wanted: (u32, u32), real: (u32, u32)) {
        self.owner = (wanted != (0, 0)).then_some(Pretended { wanted, real });
    }

    pub fn has_owner(&self) -> bool {
        self.owner.is_some()
    }

    pub fn forget_owner(&mut self) {
        self.owner = None;
    }

    pub fn pretend_mode(&mut self, wanted: u32, real: u32) {
        self.mode = (wanted != real).then_some(Pretended { wanted, real });
    }

    pub fn pretend_node(&mut self, kind: FileKind, device: (u32, u32)) {
        self.node = Some((kind, device));
    }

    pub fn pretend_xattr(&mut self, name: &OsStr, value: &[u8]) {
        self.xattrs.insert(name.to_owned(), value.to_owned());
    }

    pub fn forget_xattr(&mut self, name: &OsStr) {
        self.xattrs.remove(name);
    }

    pub fn xattrs(&self) -> impl Iterator<Item = (&OsString, &Vec<u8>)> {
        self.xattrs.iter()
    }

    /// A number that differs when the attributes differ (FNV-1a); 0 for none. Setting them leaves no trace in the file.
    fn attributes(&self) -> u64 {
        let parts = self.xattrs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]);
        let bytes = parts.flat_map(|part| (part.len() as u32).to_le_bytes().into_iter().chain(part.iter().copied()));
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        if self.xattrs.is_empty() { 0 } else { bytes.fold(0xcbf2_9ce4_8422_2325, hash) }
    }

    /// Puts what is pretended in the place of what the kernel said.
    pub fn apply(&self, found: &mut Found) {
        found.pretended_attributes = self.attributes();
        let metadata = &mut found.metadata;
        if let Some(mode) = self.mode.filter(|mode| mode.real == metadata.mode) {
            metadata.mode = mode.wanted;
        }
        if let Some(owner) = self.owner.filter(|owner| owner.real == (metadata.uid, metadata.gid)) {
            (metadata.uid, metadata.gid) = owner.wanted;
        }
        // Something was written to the placeholder: then it is a file.
        if let Some((kind, device)) = self.node.filter(|_| metadata.size_bytes == 0) {
            metadata.kind = kind;
            metadata.device = device;
        }
    }
}

/// The table of one tree.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    /// Opened with the first entry, so that a tree that needs no table has no file.
    file: Option<File>,
    entries: HashMap<Key, Entry>,
}

impl Table {
    /// Reads the table in `path`; one that does not exist is empty. What was cut off at the end of the file (a killed
    /// process) is ignored and overwritten.
    pub fn open(path: &Path) -> io::Result<Table> {
        let mut table = Table { path: path.to_owned(), file: None, entries: HashMap::new() };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(table),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        if table.load(&mut BufReader::new(file))? != length {
            table.rewrite()?;
        }
        Ok(table)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// Changes the entry of one file and writes it down when it differs from before.
    pub fn change(&mut self, key: Key, change: impl FnOnce(&mut Entry)) -> io::Result<()> {
        let mut entry = self.entries.get(&key).cloned().unwrap_or_default();
        change(&mut entry);
        if self.entries.get(&key).unwrap_or(&Entry::default()) == &entry {
            return Ok(());
        }
        self.append(key, &entry)?;
        self.put(key, entry);
        Ok(())
    }

    fn put(&mut self, key: Key, entry: Entry) {
        if entry.is_empty() {
            self.entries.remove(&key);
        } else {
            self.entries.insert(key, entry);
        }
    }

    /// One write per record, so that the file never lacks what was promised.
    fn append(&mut self, key: Key, entry: &Entry) -> io::Result<()> {
        if self.file.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            if file.metadata()?.len() == 0 {
                (&file).write_all(MAGIC)?;
            }
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(&encode(key, entry)),
            None => Ok(()),
        }
    }

    /// Gives the number of bytes that could be used.
    fn load(&mut self, file: &mut dyn Read) -> io::Result<u64> {
        let mut magic = [0; 16];
        if !fill(file, &mut magic)? {
            return Ok(0);
        }
        if magic != *MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a metadata table of this version"));
        }
        let mut used = MAGIC.len() as u64;
        let mut length = [0; 4];
        while fill(file, &mut length)? {
            let length = u32::from_le_bytes(length);
            if length > MAX_ENTRY_BYTES {
                break;
            }
            let mut record = vec![0; length as usize];
            if !fill(file, &mut record)? {
                break;
            }
            let Some((key, entry)) = decode(&record) else { break };
            self.put(key, entry);
            used += 4 + u64::from(length);
        }
        Ok(used)
    }

    /// Writes a fresh file with the live entries.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let mut file =
            BufWriter::new(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?);
        file.write_all(MAGIC)?;
        for (key, entry) in &self.entries {
            file.write_all(&encode(*key, entry))?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        std::fs::rename(&fresh, &self.path)?;
        self.file = None;
        Ok(())
    }
}

/// Fills `buffer`, or says false at the end of the file.
fn fill(file: &mut dyn Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

const HAS_OWNER: u8 = 1;
const HAS_MODE: u8 = 2;
const HAS_NODE: u8 = 4;

/// Length of the rest, key, flags, the fields that are there, number of attributes, attributes. Little endian.
fn encode(key: Key, entry: &Entry) -> Vec<u8> {
    let mut record = vec![0; 4];
    record.extend(key.inode.to_le_bytes());
    record.extend(key.born.0.to_le_bytes());
    record.extend(key.born.1.to_le_bytes());
    let flag = |is_there: bool, bit: u8| if is_there { bit } else { 0 };
    record.push(
        flag(entry.owner.is_some(), HAS_OWNER)
            | flag(entry.mode.is_some(), HAS_MODE)
            | flag(entry.node.is_some(), HAS_NODE),
    );
    let mut put = |value: u32| record.extend(value.to_le_bytes());
    if let Some(owner) = entry.owner {
        [owner.wanted.0, owner.wanted.1, owner.real.0, owner.real.1].into_iter().for_each(&mut put);
    }
    if let Some(mode) = entry.mode {
        [mode.wanted, mode.real].into_iter().for_each(&mut put);
    }
    if let Some((kind, device)) = entry.node {
        [kind.number().into(), device.0, device.1].into_iter().for_each(&mut put);
    }
    put(entry.xattrs.len() as u32);
    for (name, value) in &entry.xattrs {
        for part in [name.as_bytes(), value] {
            record.extend((part.len() as u32).to_le_bytes());
            record.extend(part);
        }
    }
    let length = (record.len() - 4) as u32;
    record[..4].copy_from_slice(&length.to_le_bytes());
    record
}

/// None for what was not written by [`encode`].
fn decode(record: &[u8]) -> Option<(Key, Entry)> {
    let mut fields = Fields(record);
    let inode = fields.number(8)?;
    let born = (fields.number(8)? as i64, fields.number32()?);
    let flags = fields.number(1)? as u8;
    let mut entry = Entry::default();
    if flags & HAS_OWNER != 0 {
        let wanted = (fields.number32()?, fields.number32()?);
        entry.owner = Some(Pretended { wanted, real: (fields.number32()?, fields.number32()?) });
    }
    if flags & HAS_MODE != 0 {
        entry.mode = Some(Pretended { wanted: fields.number32()?, real: fields.number32()? });
    }
    if flags & HAS_NODE != 0 {
        entry.node = Some((FileKind::of_number(fields.number32()? as u8)?, (fields.number32()?, fields.number32()?)));
    }
    for _ in 0..fields.number32()? {
        let name = fields.bytes()?;
        entry.xattrs.insert(OsString::from_vec(name), fields.bytes()?);
    }
    Some((Key { inode, born }, entry))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, length: usize) -> Option<u64> {
        let taken = self.take(length)?;
        Some(taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn number32(&mut self) -> Option<u32> {
        self.number(4).map(|number| number as u32)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.number32()? as usize;
        self.take(length).map(<[u8]>::to_vec)
    }
}
