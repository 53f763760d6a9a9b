//! The metadata table: what files are in the image where the kernel would not let the process say so.
//!
//! One entry per file, keyed by inode number and creation time, so that renames and links keep it and a reused inode number
//! does not inherit it. Kept in memory and appended to a file beside the tree. An entry says what the kernel answered when it
//! was made: once the real file differs, somebody has changed it since and the entry no longer counts.
//!
//! Several may have the same table open, in this process and in others, for builders share cache mounts. So:
//!
//! - Whoever appends holds the file's lock (flock(2), which the kernel gives back when a process is killed), reads what others
//!   have appended, and only then changes an entry: nobody's change is lost. Nobody holds the lock for longer than that.
//! - Records are only appended, each behind the last whole one. One that is not whole (a full disk, a killed process) is cut
//!   off by whoever has the lock next, before anything comes behind it. To cut off takes no space.
//! - The file is written anew only by somebody who holds its lock, and by rename. Whoever has the old one open sees that it has
//!   no name any more, and reads the new one.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::FileKind;
use super::sys::{Found, Key};
use crate::stop::Stop;

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

/// A file of fewer records is not worth writing anew.
const FEW_RECORDS: u64 = 4096;

/// How often a lock that another holds is asked for at once, and the longest pause after that. Others hold it for microseconds,
/// but one of them may have been stopped meanwhile, and a build must end when it is told to.
const EAGER_TRIES: u32 = 64;
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// The table of one tree.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    /// Others may write to it while it is open: see [`Table::refresh`].
    is_shared: bool,
    /// Opened with the first entry, so that a tree that needs no table has no file. A shared one is there from the start.
    file: Option<Arc<File>>,
    /// How much of the file is in `entries`; it ends with a whole record.
    end: u64,
    /// How many records that is, those counted that others have made void.
    records: u64,
    entries: HashMap<Key, Entry>,
}

impl Table {
    /// Reads the table in `path`; one that does not exist is empty. Nobody else is expected to write to it while it is open:
    /// if somebody does, nothing is lost, but it is seen only with the next change.
    pub fn open(path: &Path) -> io::Result<Table> {
        let mut table = Table::empty(path, false);
        table.file = open_existing(path)?.map(Arc::new);
        if table.file.is_some() {
            table.lock(&Stop::default())?;
        }
        Ok(table)
    }

    /// The same of a table that others may write to at any time, and makes it where there is none. `stop` ends the waiting
    /// for others.
    pub fn open_shared(path: &Path, stop: &Stop) -> io::Result<Table> {
        let mut table = Table::empty(path, true);
        let lock = table.lock(stop)?;
        if table.records > FEW_RECORDS && table.records / 2 > table.entries.len() as u64 {
            // It is as good as it was if there is no room for another.
            let _ = table.rewrite(&lock);
        }
        Ok(table)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn empty(path: &Path, is_shared: bool) -> Table {
        Table { path: path.to_owned(), is_shared, file: None, end: 0, records: 0, entries: HashMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// Reads what others have written since. Costs one system call where that is nothing.
    pub fn refresh(&mut self, stop: &Stop) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.is_shared) else { return Ok(()) };
        let looks = file.metadata()?;
        if looks.nlink() > 0 && looks.len() == self.end { Ok(()) } else { self.lock(stop).map(drop) }
    }

    /// The same of a table that is not shared, after somebody else has written to it for once.
    pub fn reread(&mut self, stop: &Stop) -> io::Result<()> {
        if self.file.is_none() {
            self.file = open_existing(&self.path)?.map(Arc::new);
        }
        if self.file.is_some() { self.lock(stop).map(drop) } else { Ok(()) }
    }

    /// Changes the entry of one file and writes it down when it differs from before. `stop` ends the waiting for others.
    pub fn change(&mut self, key: Key, stop: &Stop, change: impl FnOnce(&mut Entry)) -> io::Result<()> {
        // A change that is none makes no file.
        let lock = self.file.is_some().then(|| self.lock(stop)).transpose()?;
        let mut entry = self.entries.get(&key).cloned().unwrap_or_default();
        change(&mut entry);
        if self.entries.get(&key).unwrap_or(&Entry::default()) == &entry {
            return Ok(());
        }
        let lock = lock.map_or_else(|| self.lock(stop), Ok)?;
        self.append(&lock, key, entry)
    }

    fn put(&mut self, key: Key, entry: Entry) {
        if entry.is_empty() {
            self.entries.remove(&key);
        } else {
            self.entries.insert(key, entry);
        }
    }

    /// Puts a record behind the last one, whole or not at all.
    fn append(&mut self, lock: &Lock, key: Key, entry: Entry) -> io::Result<()> {
        let record = encode(key, &entry);
        if let Err(error) = lock.0.write_all_at(&record, self.end) {
            // Where even this fails the next who has the lock does it.
            let _ = lock.0.set_len(self.end);
            return Err(self.refusal(error));
        }
        self.end += record.len() as u64;
        self.records += 1;
        self.put(key, entry);
        Ok(())
    }

    /// Why a file that could only be opened to read cannot be written to.
    fn refusal(&self, error: io::Error) -> io::Error {
        match Errno::from_io_error(&error) {
            Some(Errno::BADF) => OpenOptions::new().write(true).open(&self.path).err().unwrap_or(error),
            _ => error,
        }
    }

    /// Takes the lock of the file that `path` is now, opened or made if need be, and reads all that is not known of it yet.
    fn lock(&mut self, stop: &Stop) -> io::Result<Lock> {
        loop {
            let file = match &self.file {
                Some(file) => file.clone(),
                None => self.file.insert(Arc::new(open_or_make(&self.path)?)).clone(),
            };
            let lock = Lock::take(file, stop)?;
            let looks = lock.0.metadata()?;
            if looks.nlink() == 0
                && let Some(fresh) = open_existing(&self.path)?
            {
                // Written anew by somebody else; where there is nothing any more the file is as good as another.
                *self = Table { file: Some(Arc::new(fresh)), ..Table::empty(&self.path, self.is_shared) };
                continue;
            }
            self.catch_up(&lock, looks.len())?;
            return Ok(lock);
        }
    }

    /// Reads from where the last reading ended, and cuts off what is not a whole record.
    fn catch_up(&mut self, lock: &Lock, length: u64) -> io::Result<()> {
        if length < self.end {
            // Not by us: an earlier version of this program, say.
            *self = Table { file: self.file.take(), ..Table::empty(&self.path, self.is_shared) };
        }
        if length != self.end {
            let rest = From { file: &lock.0, at: self.end };
            self.load(&mut BufReader::new(rest))?;
        }
        if length > self.end {
            tolerant_of_readers(lock.0.set_len(self.end))?;
        }
        if self.end == 0 && !is_read_only(&lock.0)? {
            self.begin(lock)?;
        }
        Ok(())
    }

    /// The first bytes of a new file.
    fn begin(&mut self, lock: &Lock) -> io::Result<()> {
        if let Err(error) = lock.0.write_all_at(MAGIC, 0) {
            let _ = lock.0.set_len(0);
            return Err(error);
        }
        self.end = MAGIC.len() as u64;
        Ok(())
    }

    /// Reads whole records to the end of the file.
    fn load(&mut self, file: &mut dyn Read) -> io::Result<()> {
        if self.end == 0 {
            let mut magic = [0; MAGIC.len()];
            if !fill(file, &mut magic)? {
                return Ok(());
            }
            if magic != *MAGIC {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a metadata table of this version"));
            }
            self.end = MAGIC.len() as u64;
        }
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
            // What the machine's last crash has left of one is passed over: others may come behind it.
            if let Some((key, entry)) = decode(&record) {
                self.put(key, entry);
            }
            self.end += 4 + u64::from(length);
            self.records += 1;
        }
        Ok(())
    }

    /// Writes a fresh file with the entries that count and gives it the name. Others that have the old one open see that it has
    /// none any more, at the latest when they have its lock, which we hold.
    fn rewrite(&mut self, _lock: &Lock) -> io::Result<()> {
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let written = self.write_entries(&fresh).and_then(|file| {
            std::fs::rename(&fresh, &self.path)?;
            Ok(file)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        let file = written?;
        (self.end, self.records) = (file.metadata()?.len(), self.entries.len() as u64);
        self.file = Some(Arc::new(file));
        Ok(())
    }

    fn write_entries(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut writer = BufWriter::new(file);
        writer.write_all(MAGIC)?;
        for (key, entry) in &self.entries {
            writer.write_all(&encode(*key, entry))?;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        // It takes the place of one that has been on the disk for long.
        file.sync_data()?;
        Ok(file)
    }
}

/// The lock of a table's file, for as long as this lives. With it one may write to the file.
struct Lock(Arc<File>);

impl Lock {
    fn take(file: Arc<File>, stop: &Stop) -> io::Result<Lock> {
        let (mut tries, mut pause) = (0, Duration::from_micros(50));
        loop {
            match rustix::fs::flock(&*file, FlockOperation::NonBlockingLockExclusive) {
                // A file system that has no locks: then nobody else can have one either.
                Ok(()) | Err(Errno::NOLCK | Errno::NOSYS | Errno::NOTSUP | Errno::INVAL) => return Ok(Lock(file)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if tries < EAGER_TRIES => {
                    tries += 1;
                    std::thread::yield_now();
                }
                Err(Errno::WOULDBLOCK) => {
                    stop.check()?;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Explicitly: a process that is being started has a copy of the descriptor until it is another program.
        let _ = rustix::fs::flock(&*self.0, FlockOperation::Unlock);
    }
}

/// Opens to read and write, or to read alone where no more is allowed: then changes fail, and looks do not.
fn open_existing(path: &Path) -> io::Result<Option<File>> {
    let opened = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)) => {
            File::open(path)
        }
        opened => opened,
    };
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn open_or_make(path: &Path) -> io::Result<File> {
    if let Some(file) = open_existing(path)? {
        return Ok(file);
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_read_only(file: &File) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(!flags.contains(rustix::fs::OFlags::RDWR))
}

/// Who may only read leaves the end of the file to others.
fn tolerant_of_readers(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::BADF)) => Ok(()),
        done => done,
    }
}

/// A file from an offset on, whose own position nobody uses.
struct From<'a> {
    file: &'a File,
    at: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
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

#[cfg(test)]
mod tests;
