//! A pack on disk, and its index that is made here (gitformat-pack).
//!
//! A pack is read once while it arrives; then its deltas are resolved to learn what the objects are called. Records are on
//! disk: memory holds a cache of bases and a 256th of the names while they are sorted.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use flate2::bufread::ZlibDecoder;

use super::content::{Content, Spool};
use super::index::{Index, Record, Records};
use super::oid::{Format, Hasher, Oid};
use super::{Fault, Limits, Result, Stop, delta};

/// git makes none beyond 4095 (`pack.depth`).
const CHAIN_MAX: usize = 4096;
/// Rounds in which deltas that name their base are resolved; the depth of the deepest chain of them.
const ROUNDS_MAX: usize = 512;
const CACHE_MAX_BYTES: usize = 8 << 20;
/// Large contents, which are files.
const CACHED_FILES_MAX: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Tree => "tree",
            Kind::Blob => "blob",
            Kind::Tag => "tag",
        }
    }

    pub fn parse(name: &[u8]) -> Option<Kind> {
        [Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag].into_iter().find(|kind| kind.name().as_bytes() == name)
    }
}

/// How an entry of a pack says what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    Whole(Kind),
    /// Against the entry that begins so many bytes before.
    Before(u64),
    /// Against the object of that name.
    Named(Oid),
}

/// A received pack.
pub struct Pack {
    path: PathBuf,
    data: File,
    format: Format,
    index: Index,
    work: PathBuf,
    cache: Cache,
}

impl Pack {
    /// Takes a pack from `from` to its end into a new file below `work`, and indexes it.
    ///
    /// # Errors
    /// For a pack that is broken or exceeds `limits`.
    pub fn receive(from: &mut dyn Read, format: Format, work: &Path, limits: &Limits, stop: Stop<'_>) -> Result<Pack> {
        let (file, path) = tempfile::Builder::new().prefix("pack-").tempfile_in(work)?.into_parts();
        let mut records = Records::create(work)?;
        let tee = Tee { from, to: BufWriter::with_capacity(128 << 10, file), written: 0, limit: limits.pack_bytes };
        let mut arriving = Tap::new(BufReader::with_capacity(64 << 10, tee), format);
        let sum = scan(&mut arriving, format, limits, &mut records, stop)?;
        let data = arriving.from.into_inner().to.into_inner().map_err(io::IntoInnerError::into_error)?;
        let index = Index::empty(format, work)?;
        let path = path.keep().map_err(|error| error.error)?;
        let mut pack = Pack { path, data, format, index, work: work.to_owned(), cache: Cache::default() };
        pack.name_deltas(&mut records, limits, stop)?;
        pack.index = Index::build(&mut records, format, &sum, work)?;
        Ok(pack)
    }

    /// Finds out what the objects are called that are written as deltas.
    fn name_deltas(&mut self, records: &mut Records, limits: &Limits, stop: Stop<'_>) -> Result<()> {
        let mut left = records.unnamed();
        let mut budget = limits.unpacked_bytes;
        for round in 0..ROUNDS_MAX {
            let before = left;
            for number in 0..records.count() {
                let record = records.get(number)?;
                if record.oid.is_some() {
                    continue;
                }
                stop()?;
                let Some((kind, content)) = self.resolve(record.offset)? else { continue };
                budget =
                    budget.checked_sub(content.size()).ok_or_else(|| Fault::server("objects beyond all measure"))?;
                let mut hasher = Hasher::object(self.format, kind.name(), content.size());
                content.copy_to(&mut hasher)?;
                records.name(number, hasher.finish()?)?;
                left -= 1;
            }
            if left == 0 {
                return Ok(());
            }
            // In the first round no name is known yet; most packs need no other.
            if left == before && round > 0 {
                break;
            }
            self.index = Index::build(records, self.format, &[], &self.work)?;
        }
        Err(Fault::server("deltas against objects that are not in the pack"))
    }

    pub fn find(&self, oid: &Oid) -> Result<Option<u64>> {
        self.index.find(oid)
    }

    /// The object at `offset`, which [`Pack::find`] gave.
    pub fn read(&mut self, offset: u64) -> Result<(Kind, Content)> {
        self.resolve(offset)?.ok_or_else(|| Fault::server("a delta against an object that is not in the pack"))
    }

    /// Writes the content of a blob, which is in no memory then unless it is a delta. Gives its size.
    pub fn copy_blob(&mut self, offset: u64, limit: u64, out: &mut dyn Write) -> Result<u64> {
        let (entry, size, start) = self.entry(offset)?;
        let too_large = || Fault::server(format!("a file beyond the limit of {limit} bytes"));
        match entry {
            Entry::Whole(Kind::Blob) if size > limit => Err(too_large()),
            Entry::Whole(Kind::Blob) => {
                let copied = io::copy(&mut self.inflate(start).take(size), out)?;
                if copied != size {
                    return Err(Fault::server("an object shorter than its header says"));
                }
                Ok(size)
            }
            Entry::Whole(_) => Err(Fault::server("a file that is none")),
            Entry::Before(_) | Entry::Named(_) => {
                let (kind, content) = self.read(offset)?;
                if kind != Kind::Blob {
                    return Err(Fault::server("a file that is none"));
                }
                if content.size() > limit {
                    return Err(too_large());
                }
                content.copy_to(out)?;
                Ok(content.size())
            }
        }
    }

    /// None where a base is named that the index does not have (yet).
    fn resolve(&mut self, offset: u64) -> Result<Option<(Kind, Content)>> {
        let mut chain = Vec::new();
        let mut at = offset;
        let (kind, mut content) = loop {
            if let Some((kind, content)) = self.cache.get(at) {
                break (kind, content);
            }
            let (entry, size, start) = self.entry(at)?;
            match entry {
                Entry::Whole(kind) => break (kind, self.whole(start, size)?),
                Entry::Before(distance) => {
                    chain.push((at, start));
                    at = at.checked_sub(distance).ok_or_else(|| Fault::server("a delta against nothing"))?;
                }
                Entry::Named(base) => {
                    chain.push((at, start));
                    match self.index.find(&base)? {
                        Some(found) => at = found,
                        None => return Ok(None),
                    }
                }
            }
            if chain.len() > CHAIN_MAX {
                return Err(Fault::server(format!("a chain of more than {CHAIN_MAX} deltas")));
            }
        };
        self.cache.put(at, kind, &content);
        for (at, start) in chain.into_iter().rev() {
            content = self.apply(start, &content)?;
            self.cache.put(at, kind, &content);
        }
        Ok(Some((kind, content)))
    }

    fn whole(&self, start: u64, size: u64) -> Result<Content> {
        let mut spool = Spool::new(size, &self.work)?;
        io::copy(&mut self.inflate(start), &mut spool)?;
        spool.finish()
    }

    fn apply(&self, start: u64, base: &Content) -> Result<Content> {
        let mut delta = BufReader::new(self.inflate(start));
        let (base_size, size) = delta::sizes(&mut delta)?;
        if base_size != base.size() {
            return Err(Fault::server("a delta against another base"));
        }
        if size > super::OBJECT_MAX_BYTES {
            return Err(Fault::server("an object beyond all measure"));
        }
        let mut spool = Spool::new(size, &self.work)?;
        delta::apply(&mut delta, base, &mut spool)?;
        spool.finish()
    }

    fn inflate(&self, start: u64) -> ZlibDecoder<BufReader<At<'_>>> {
        ZlibDecoder::new(BufReader::new(At { file: &self.data, offset: start }))
    }

    /// What begins at `offset`, the size it announces, and where its data begins.
    fn entry(&self, offset: u64) -> Result<(Entry, u64, u64)> {
        let mut head = [0; 64];
        let count = self.data.read_at(&mut head, offset)?;
        let mut rest = &head[..count];
        let (entry, size) = header(&mut rest, self.format)?;
        Ok((entry, size, offset + (count - rest.len()) as u64))
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The pack as it came.
    pub fn file(&self) -> &File {
        &self.data
    }
}

impl Drop for Pack {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads a whole pack: a record of each object goes to `records`. Gives the pack's checksum.
pub fn scan<R: Read>(
    from: &mut Tap<BufReader<R>>,
    format: Format,
    limits: &Limits,
    records: &mut Records,
    stop: Stop<'_>,
) -> Result<Vec<u8>> {
    let mut head = [0; 12];
    from.read_exact(&mut head)?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    if &head[..4] != b"PACK" || !matches!(number(&head[4..8]), 2 | 3) {
        return Err(Fault::server("no pack of a version known here"));
    }
    let mut budget = limits.unpacked_bytes;
    for _ in 0..number(&head[8..]) {
        stop()?;
        let record = scan_object(from, format, &mut budget)?;
        records.push(&record)?;
    }
    let sum = from.finish_sum(format)?;
    let mut trailer = vec![0; format.length()];
    from.read_exact(&mut trailer)?;
    if trailer != sum.as_bytes() {
        return Err(Fault::cut("the pack is damaged (its checksum is another)"));
    }
    match from.fill_buf()? {
        [] => Ok(trailer),
        _ => Err(Fault::server("something after the end of the pack")),
    }
}

fn scan_object<R: Read>(from: &mut Tap<BufReader<R>>, format: Format, budget: &mut u64) -> Result<Record> {
    let offset = from.begin();
    let (entry, size) = header(from, format)?;
    *budget = budget
        .checked_sub(size)
        .filter(|_| size <= super::OBJECT_MAX_BYTES)
        .ok_or_else(|| Fault::server("objects beyond all measure"))?;
    let mut inflated = ZlibDecoder::new(&mut *from);
    // One byte more than announced shows what is too long.
    let mut content = (&mut inflated).take(size.saturating_add(1));
    let (copied, oid) = match entry {
        Entry::Whole(kind) => {
            let mut hasher = Hasher::object(format, kind.name(), size);
            (io::copy(&mut content, &mut hasher)?, Some(hasher.finish()?))
        }
        Entry::Before(_) | Entry::Named(_) => (io::copy(&mut content, &mut io::sink())?, None),
    };
    if copied != size {
        return Err(Fault::server("an object of another size than its header says"));
    }
    // To the end of the compressed data, checksum included.
    io::copy(&mut inflated, &mut io::sink())?;
    Ok(Record { offset, crc: from.end(), oid })
}

/// The header of an object in a pack: what it is, and the size of what is compressed behind it.
pub fn header(from: &mut dyn Read, format: Format) -> Result<(Entry, u64)> {
    let first = byte(from)?;
    let mut size = u64::from(first & 0x0f);
    let mut more = first & 0x80 != 0;
    let mut shift = 4;
    while more {
        let byte = byte(from)?;
        if shift > 56 {
            return Err(Fault::server("an object with an endless size"));
        }
        size |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        more = byte & 0x80 != 0;
    }
    let entry = match first >> 4 & 7 {
        1 => Entry::Whole(Kind::Commit),
        2 => Entry::Whole(Kind::Tree),
        3 => Entry::Whole(Kind::Blob),
        4 => Entry::Whole(Kind::Tag),
        6 => Entry::Before(distance(from)?),
        7 => {
            let mut name = vec![0; format.length()];
            from.read_exact(&mut name)?;
            Entry::Named(Oid::new(&name)?)
        }
        _ => return Err(Fault::server("an object of unknown kind")),
    };
    Ok((entry, size))
}

/// Seven bits a byte, the highest first, each further byte counting from one more.
fn distance(from: &mut dyn Read) -> Result<u64> {
    let mut value = 0u64;
    for _ in 0..9 {
        let byte = byte(from)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return if value == 0 { Err(Fault::server("a delta against itself")) } else { Ok(value) };
        }
        value += 1;
    }
    Err(Fault::server("a delta with an endless distance"))
}

fn byte(from: &mut dyn Read) -> Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Reads a file from an offset on, with no position shared.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Writes what is read.
struct Tee<'a> {
    from: &'a mut dyn Read,
    to: BufWriter<File>,
    written: u64,
    limit: u64,
}

impl Read for Tee<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.written += count as u64;
        if self.written > self.limit {
            return Err(Fault::server(format!("a pack beyond the limit of {} bytes", self.limit)).into_io());
        }
        self.to.write_all(&into[..count])?;
        Ok(count)
    }
}

/// A buffered reader that knows where it is and keeps the checksums of what was used of it.
pub struct Tap<R> {
    from: R,
    offset: u64,
    sum: Option<Hasher>,
    crc: crc32fast::Hasher,
}

impl<R: BufRead> Tap<R> {
    pub fn new(from: R, format: Format) -> Tap<R> {
        Tap { from, offset: 0, sum: Some(Hasher::new(format)), crc: crc32fast::Hasher::new() }
    }

    /// Where an object begins.
    fn begin(&mut self) -> u64 {
        self.crc = crc32fast::Hasher::new();
        self.offset
    }

    /// The checksum of what came since [`Tap::begin`].
    fn end(&mut self) -> u32 {
        std::mem::take(&mut self.crc).finalize()
    }

    /// The checksum of all so far; what follows does not count any more.
    fn finish_sum(&mut self, format: Format) -> Result<Oid> {
        self.sum.take().unwrap_or_else(|| Hasher::new(format)).finish()
    }
}

impl<R: BufRead> BufRead for Tap<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What is consumed has been filled: this reads nothing and cannot fail.
        if let Ok(filled) = self.from.fill_buf() {
            let used = &filled[..count.min(filled.len())];
            self.crc.update(used);
            if let Some(sum) = &mut self.sum {
                sum.update(used);
            }
        }
        self.offset += count as u64;
        self.from.consume(count);
    }
}

impl<R: BufRead> Read for Tap<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let filled = self.fill_buf()?;
        let count = filled.len().min(into.len());
        into[..count].copy_from_slice(&filled[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The contents that were made last, by where they are in the pack.
#[derive(Default)]
struct Cache {
    contents: HashMap<u64, (Kind, Content)>,
    /// Those in memory.
    order: VecDeque<u64>,
    files: VecDeque<u64>,
    size_bytes: usize,
}

impl Cache {
    fn get(&self, offset: u64) -> Option<(Kind, Content)> {
        self.contents.get(&offset).cloned()
    }

    fn put(&mut self, offset: u64, kind: Kind, content: &Content) {
        if self.contents.insert(offset, (kind, content.clone())).is_some() {
            return;
        }
        match content {
            Content::Memory(bytes) => {
                self.size_bytes += bytes.len();
                self.order.push_back(offset);
            }
            Content::File(..) => self.files.push_back(offset),
        }
        // Many empty ones are limited by their number.
        while self.size_bytes > CACHE_MAX_BYTES || self.order.len() > 1 << 13 {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, content)) = self.contents.remove(&oldest) {
                self.size_bytes -= content.size() as usize;
            }
        }
        while self.files.len() > CACHED_FILES_MAX {
            if let Some(oldest) = self.files.pop_front() {
                self.contents.remove(&oldest);
            }
        }
    }
}
