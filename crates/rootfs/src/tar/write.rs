//! Writing entries: `ustar` where everything fits, a PAX header before it where not. Same entries, same bytes.

use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use super::{BLOCK, Entry, Kind, field, read};

const BUFFER_BYTES: usize = 64 * 1024;
/// Twelve octal digits less the terminator.
const MAX_LONG: u64 = 0o777_7777_7777;
/// Eight octal digits less the terminator.
const MAX_SHORT: u32 = 0o777_7777;

/// Writes a tar stream. No user names, no host names.
pub(crate) struct Writer<W: Write> {
    stream: BufWriter<W>,
    buffer: Vec<u8>,
    pub written_bytes: u64,
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl<W: Write> Writer<W> {
    pub fn new(stream: W) -> Writer<W> {
        let stream = BufWriter::with_capacity(BUFFER_BYTES, stream);
        Writer { stream, buffer: vec![0; BUFFER_BYTES], written_bytes: 0 }
    }

    /// Writes the header; a file's content, `entry.size_bytes` bytes, must follow with [`Writer::content`].
    pub fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let (prefix, name) = split_path(&entry.path);
        let records = pax_records(entry, prefix.is_none());
        if !records.is_empty() {
            self.pax_header(entry, &records)?;
        }
        let mut block = [0; BLOCK];
        put_text(&mut block, field::PREFIX, prefix.unwrap_or_default());
        put_text(&mut block, field::NAME, name);
        put_text(&mut block, field::LINK, &entry.link);
        put_number(&mut block, field::MODE, entry.mode.into());
        put_number(&mut block, field::UID, fitting(entry.uid).into());
        put_number(&mut block, field::GID, fitting(entry.gid).into());
        put_number(&mut block, field::SIZE, if entry.size_bytes > MAX_LONG { 0 } else { entry.size_bytes });
        let seconds = u64::try_from(entry.modified.0).ok().filter(|&seconds| seconds <= MAX_LONG);
        put_number(&mut block, field::MODIFIED, seconds.unwrap_or(0));
        // Linux has 12 and 20 bits of these: they always fit.
        put_number(&mut block, field::DEVICE_MAJOR, fitting(entry.device.0).into());
        put_number(&mut block, field::DEVICE_MINOR, fitting(entry.device.1).into());
        self.block(&mut block, type_of(entry.kind))
    }

    fn pax_header(&mut self, entry: &Entry, records: &[u8]) -> io::Result<()> {
        let mut block = [0; BLOCK];
        // Readers that do not know PAX see a file of this name.
        let ascii = entry.path.iter().filter(|byte| byte.is_ascii_graphic() && **byte != b'/');
        let mut name = b"PaxHeaders.0/".to_vec();
        name.extend(ascii.take(80));
        put_text(&mut block, field::NAME, &name);
        put_number(&mut block, field::MODE, 0o644);
        for field in [field::UID, field::GID, field::MODIFIED, field::DEVICE_MAJOR, field::DEVICE_MINOR] {
            put_number(&mut block, field, 0);
        }
        put_number(&mut block, field::SIZE, records.len() as u64);
        self.block(&mut block, b'x')?;
        self.put(records)?;
        self.zeros(padding_of(records.len() as u64))
    }

    fn block(&mut self, block: &mut [u8; BLOCK], kind: u8) -> io::Result<()> {
        block[field::TYPE] = kind;
        block[field::MAGIC].copy_from_slice(b"ustar\x0000");
        let (sum, _) = read::checksums(block);
        block[field::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.put(block)
    }

    /// Writes `size_bytes` of content and the padding. A file that ends before is filled up with zeros, one that goes on is
    /// cut: it changed after its header was written, and the layer must stay readable.
    pub fn content(&mut self, content: &mut dyn Read, size_bytes: u64) -> Result<(), CopyError> {
        let mut remaining = size_bytes;
        while remaining > 0 {
            let wanted = remaining.min(self.buffer.len() as u64) as usize;
            let count = match content.read(&mut self.buffer[..wanted]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Read(error)),
            };
            self.stream.write_all(&self.buffer[..count]).map_err(CopyError::Write)?;
            self.written_bytes += count as u64;
            remaining -= count as u64;
        }
        self.zeros(remaining + padding_of(size_bytes)).map_err(CopyError::Write)
    }

    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
        while count > 0 {
            let some = count.min(ZEROS.len() as u64);
            self.put(&ZEROS[..some as usize])?;
            count -= some;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written_bytes += bytes.len() as u64;
        self.stream.write_all(bytes)
    }

    /// Two blocks of zeros end the archive.
    pub fn finish(mut self) -> io::Result<u64> {
        self.zeros(2 * BLOCK as u64)?;
        self.stream.flush()?;
        Ok(self.written_bytes)
    }
}

fn padding_of(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn type_of(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// Number for a short field, 0 where a PAX record says it.
fn fitting(number: u32) -> u32 {
    if number > MAX_SHORT { 0 } else { number }
}

/// Prefix and name of a path that fits into a header; no prefix and the start of the path where it does not.
fn split_path(path: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let (longest_name, longest_prefix) = (field::NAME.len(), field::PREFIX.len());
    if path.is_ascii() {
        if path.len() <= longest_name {
            return (Some(b""), path);
        }
        // The last slash that leaves a short enough prefix and something behind it.
        let end = (path.len() - 1).min(longest_prefix + 1);
        if let Some(slash) = path[..end].iter().rposition(|&byte| byte == b'/')
            && slash > 0
            && (1..=longest_name).contains(&(path.len() - slash - 1))
        {
            return (Some(&path[..slash]), &path[slash + 1..]);
        }
    }
    (None, &path[..path.len().min(longest_name)])
}

/// What the header has no room for, sorted by key.
fn pax_records(entry: &Entry, needs_path: bool) -> Vec<u8> {
    // The format has no way to write a key with an equals sign.
    let xattrs = entry.xattrs.iter().filter(|(name, _)| !name.as_bytes().contains(&b'='));
    let mut records: Vec<(Vec<u8>, Vec<u8>)> =
        xattrs.map(|(name, value)| ([b"SCHILY.xattr.", name.as_bytes()].concat(), value.clone())).collect();
    let mut put = |is_needed: bool, key: &str, value: &[u8]| {
        if is_needed {
            records.push((key.as_bytes().to_vec(), value.to_vec()));
        }
    };
    put(needs_path, "path", &entry.path);
    put(entry.link.len() > field::LINK.len() || !entry.link.is_ascii(), "linkpath", &entry.link);
    let seconds = entry.modified.0;
    let numbers = [
        (entry.uid > MAX_SHORT, "uid", i128::from(entry.uid)),
        (entry.gid > MAX_SHORT, "gid", i128::from(entry.gid)),
        (entry.size_bytes > MAX_LONG, "size", i128::from(entry.size_bytes)),
    ];
    if entry.modified.1 != 0 || seconds < 0 || seconds as u64 > MAX_LONG {
        put(true, "mtime", pax_time(entry.modified).as_bytes());
    }
    for (is_needed, key, number) in numbers {
        put(is_needed, key, number.to_string().as_bytes());
    }
    records.sort_unstable();
    let mut text = Vec::new();
    for (key, value) in &records {
        push_record(&mut text, key, value);
    }
    text
}

/// Decimal seconds. The fraction counts away from zero, the nanoseconds always up.
fn pax_time((seconds, nanoseconds): (i64, u32)) -> String {
    match (seconds, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (..0, _) => {
            let whole = seconds.saturating_add(1).unsigned_abs();
            format!("-{whole}.{:09}", 1_000_000_000 - nanoseconds)
        }
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Blank, equals sign, newline, and the digits of the length, which counts itself.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    records.extend(length.to_string().as_bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

/// Cuts what is too long; a PAX record then has the whole.
fn put_text(block: &mut [u8; BLOCK], field: Range<usize>, text: &[u8]) {
    let length = text.len().min(field.len());
    block[field.start..field.start + length].copy_from_slice(&text[..length]);
}

fn put_number(block: &mut [u8; BLOCK], field: Range<usize>, number: u64) {
    let digits = field.len() - 1;
    block[field.start..field.start + digits].copy_from_slice(format!("{number:0digits$o}").as_bytes());
}
