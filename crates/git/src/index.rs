//! Names to places in a pack: records as the pack is read, and the index made of them (gitformat-pack, «Version 2 pack-*.idx
//! files»), both on disk.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::oid::{Format, Hasher, Oid};
use super::{Fault, Result};

/// What is known of one object of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub offset: u64,
    /// Of its bytes in the pack.
    pub crc: u32,
    /// None for a delta that has not been resolved.
    pub oid: Option<Oid>,
}

/// Offset, checksum, length of the name or 0, and the name.
const RECORD_BYTES: usize = 8 + 4 + 1 + 32;

/// Records of a pack in its order, in a nameless file.
pub struct Records {
    file: BufWriter<File>,
    count: u64,
    unnamed: u64,
}

impl Records {
    pub fn create(work: &Path) -> Result<Records> {
        Ok(Records { file: BufWriter::with_capacity(64 << 10, tempfile::tempfile_in(work)?), count: 0, unnamed: 0 })
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many objects had no name when they were pushed.
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    pub fn push(&mut self, record: &Record) -> Result<()> {
        self.file.write_all(&encode(record))?;
        self.count += 1;
        self.unnamed += u64::from(record.oid.is_none());
        Ok(())
    }

    pub fn get(&mut self, number: u64) -> Result<Record> {
        self.file.flush()?;
        let mut bytes = [0; RECORD_BYTES];
        self.file.get_ref().read_exact_at(&mut bytes, number * RECORD_BYTES as u64)?;
        decode(&bytes)
    }

    pub fn name(&mut self, number: u64, oid: Oid) -> Result<()> {
        let record = Record { oid: Some(oid), ..self.get(number)? };
        Ok(self.file.get_ref().write_all_at(&encode(&record), number * RECORD_BYTES as u64)?)
    }

    /// Calls `each` with every record, in order.
    fn each(&mut self, mut each: impl FnMut(Record) -> Result<()>) -> Result<()> {
        self.file.flush()?;
        let mut buffer = vec![0; RECORD_BYTES * 1024];
        let mut done = 0;
        while done < self.count {
            let now = usize::try_from(self.count - done).unwrap_or(usize::MAX).min(1024);
            let part = &mut buffer[..now * RECORD_BYTES];
            self.file.get_ref().read_exact_at(part, done * RECORD_BYTES as u64)?;
            for bytes in part.chunks_exact(RECORD_BYTES) {
                each(decode(bytes)?)?;
            }
            done += now as u64;
        }
        Ok(())
    }
}

fn encode(record: &Record) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&record.offset.to_be_bytes());
    bytes[8..12].copy_from_slice(&record.crc.to_be_bytes());
    if let Some(oid) = &record.oid {
        let name = oid.as_bytes();
        bytes[12] = name.len() as u8;
        bytes[13..13 + name.len()].copy_from_slice(name);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<Record> {
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let oid = match bytes[12] {
        0 => None,
        length => Some(Oid::new(&bytes[13..13 + usize::from(length)])?),
    };
    Ok(Record { offset: number(&bytes[..8]), crc: number(&bytes[8..12]) as u32, oid })
}

/// The index of a pack, as git has it on disk. Only the 256 counts at its beginning are in memory.
pub struct Index {
    file: File,
    format: Format,
    /// How many names begin with a byte up to this one.
    fan_out: Vec<u64>,
}

const HEAD_BYTES: u64 = 8 + 256 * 4;

impl Index {
    pub fn empty(format: Format, work: &Path) -> Result<Index> {
        Ok(Index { file: tempfile::tempfile_in(work)?, format, fan_out: vec![0; 256] })
    }

    /// Sorts the records that have names, one 256th of them at a time: a hash spreads them evenly.
    pub fn build(records: &mut Records, format: Format, pack_sum: &[u8], work: &Path) -> Result<Index> {
        let mut fan_out = vec![0; 256];
        records.each(|record| {
            if let Some(oid) = record.oid {
                fan_out[usize::from(oid.as_bytes()[0])] += 1;
            }
            Ok(())
        })?;
        for byte in 1..256 {
            fan_out[byte] += fan_out[byte - 1];
        }
        let sorted = sort(records, &fan_out, work)?;
        let mut index = Index { file: tempfile::tempfile_in(work)?, format, fan_out };
        index.write(&sorted, pack_sum)?;
        Ok(index)
    }

    /// Where the object is in the pack.
    pub fn find(&self, oid: &Oid) -> Result<Option<u64>> {
        if oid.format() != self.format {
            return Ok(None);
        }
        let first = usize::from(oid.as_bytes()[0]);
        let (mut low, mut high) = (if first == 0 { 0 } else { self.fan_out[first - 1] }, self.fan_out[first]);
        let length = self.format.length();
        let mut name = [0; 32];
        while low < high {
            let middle = low + (high - low) / 2;
            self.file.read_exact_at(&mut name[..length], HEAD_BYTES + middle * length as u64)?;
            match name[..length].cmp(oid.as_bytes()) {
                std::cmp::Ordering::Equal => return self.offset(middle).map(Some),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    fn offset(&self, number: u64) -> Result<u64> {
        let after_names = HEAD_BYTES + self.count() * (self.format.length() as u64 + 4);
        let small = self.number::<4>(after_names + number * 4)?;
        match small & 1 << 31 {
            0 => Ok(small),
            _ => self.number::<8>(after_names + self.count() * 4 + (small & !(1 << 31)) * 8),
        }
    }

    fn number<const N: usize>(&self, at: u64) -> Result<u64> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn count(&self) -> u64 {
        self.fan_out[255]
    }

    fn write(&mut self, sorted: &Sorted, pack_sum: &[u8]) -> Result<()> {
        let mut out = Summed { out: BufWriter::with_capacity(64 << 10, &self.file), sum: Hasher::new(self.format) };
        out.put(b"\xfftOc\x00\x00\x00\x02")?;
        for count in &self.fan_out {
            let count = u32::try_from(*count).map_err(|_| Fault::server("a pack with too many objects"))?;
            out.put(&count.to_be_bytes())?;
        }
        sorted.each(&mut |_, oid| out.put(oid.as_bytes()))?;
        sorted.each(&mut |record, _| out.put(&record.crc.to_be_bytes()))?;
        let mut large = 0u32;
        sorted.each(&mut |record, _| match u32::try_from(record.offset) {
            Ok(offset) if offset < 1 << 31 => out.put(&offset.to_be_bytes()),
            _ => {
                large += 1;
                out.put(&((large - 1) | (1 << 31)).to_be_bytes())
            }
        })?;
        sorted.each(&mut |record, _| match record.offset < 1 << 31 {
            true => Ok(()),
            false => out.put(&record.offset.to_be_bytes()),
        })?;
        out.put(pack_sum)?;
        let sum = out.sum.finish()?;
        out.out.write_all(sum.as_bytes())?;
        Ok(out.out.flush()?)
    }

    /// The index as a file of git's.
    pub fn copy_to(&self, out: &mut dyn io::Write) -> Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        io::copy(&mut file.take(u64::MAX), out)?;
        Ok(())
    }

    /// Names of all objects, one after another.
    #[cfg(test)]
    pub fn names(&self) -> Result<Vec<Oid>> {
        let length = self.format.length();
        let name = |number: u64| {
            let mut bytes = vec![0; length];
            self.file.read_exact_at(&mut bytes, HEAD_BYTES + number * length as u64)?;
            Oid::new(&bytes)
        };
        (0..self.count()).map(name).collect()
    }
}

struct Summed<'a> {
    out: BufWriter<&'a File>,
    sum: Hasher,
}

impl Summed<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.sum.update(bytes);
        Ok(self.out.write_all(bytes)?)
    }
}

/// Records by name, in a nameless file.
struct Sorted {
    file: File,
    fan_out: Vec<u64>,
}

/// Puts each record where those with its first byte are, then sorts within.
fn sort(records: &mut Records, fan_out: &[u64], work: &Path) -> Result<Sorted> {
    let file = tempfile::tempfile_in(work)?;
    let mut next: Vec<u64> = std::iter::once(0).chain(fan_out[..255].iter().copied()).collect();
    records.each(|record| {
        let Some(oid) = record.oid else { return Ok(()) };
        let slot = &mut next[usize::from(oid.as_bytes()[0])];
        file.write_all_at(&encode(&record), *slot * RECORD_BYTES as u64)?;
        *slot += 1;
        Ok(())
    })?;
    let sorted = Sorted { file, fan_out: fan_out.to_vec() };
    for byte in 0..256 {
        let mut part = sorted.part(byte)?;
        part.sort_unstable_by_key(|record| record.oid);
        let bytes: Vec<u8> = part.iter().flat_map(encode).collect();
        sorted.file.write_all_at(&bytes, sorted.start(byte) * RECORD_BYTES as u64)?;
    }
    Ok(sorted)
}

impl Sorted {
    fn start(&self, byte: usize) -> u64 {
        if byte == 0 { 0 } else { self.fan_out[byte - 1] }
    }

    /// The records whose names begin with `byte`.
    fn part(&self, byte: usize) -> Result<Vec<Record>> {
        let count = usize::try_from(self.fan_out[byte] - self.start(byte)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; count.saturating_mul(RECORD_BYTES)];
        self.file.read_exact_at(&mut bytes, self.start(byte) * RECORD_BYTES as u64)?;
        bytes.chunks_exact(RECORD_BYTES).map(decode).collect()
    }

    fn each(&self, each: &mut dyn FnMut(Record, Oid) -> Result<()>) -> Result<()> {
        for byte in 0..256 {
            for record in self.part(byte)? {
                if let Some(oid) = record.oid {
                    each(record, oid)?;
                }
            }
        }
        Ok(())
    }
}
