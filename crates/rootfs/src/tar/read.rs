//! Reading entries one after the other from a stream.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;

use super::{BLOCK, Entry, Kind, field};

const BUFFER_BYTES: usize = 64 * 1024;
/// Go's limit on one extended header, long name or sparse map; real ones have a few kilobytes.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Extended headers in a row before an entry. Writers make two at most (a long name and a long link).
const MAX_EXTENSIONS: usize = 16;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

#[derive(Debug)]
pub(crate) enum Error {
    Read(io::Error),
    /// Not a tar, or one that contradicts itself.
    Invalid(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Read(error)
    }
}

fn invalid<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid(reason.into()))
}

/// Reads a tar stream. [`Reader::next`] gives an entry, then [`Reader::read`] its stored bytes.
pub(crate) struct Reader<R> {
    stream: BufReader<R>,
    /// Stored bytes of the current entry that were not read.
    remaining: u64,
    /// Padding behind them.
    padding: u64,
    finished: bool,
    /// Whether the stream stopped without the blocks that mark the end.
    pub lacks_end: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// What extended headers say about the entry that follows.
#[derive(Default)]
struct Extensions {
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Whether `block` could be the header of an entry: the checksum is right. BuildKit `archive/tar` `getFormat`.
pub(crate) fn is_header(block: &[u8; BLOCK]) -> bool {
    let Ok(stated) = number(&block[field::CHECKSUM]) else { return false };
    let (unsigned, signed) = checksums(block);
    !block.iter().all(|&byte| byte == 0) && (stated == unsigned || stated == signed)
}

/// Sums of all bytes with the checksum's own field as blanks; some old writers took bytes for signed.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (i64, i64) {
    let mut sums = (0, 0);
    for (index, &byte) in block.iter().enumerate() {
        let byte = if field::CHECKSUM.contains(&index) { b' ' } else { byte };
        sums.0 += i64::from(byte);
        sums.1 += i64::from(byte as i8);
    }
    sums
}

impl<R: Read> Reader<R> {
    pub fn new(stream: R) -> Reader<R> {
        let stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        Reader { stream, remaining: 0, padding: 0, finished: false, lacks_end: false }
    }

    /// The next entry; what is left of the one before is skipped. None at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        for _ in 0..=MAX_EXTENSIONS {
            let Some(block) = self.next_header()? else { return Ok(None) };
            match block[field::TYPE] {
                b'x' | b'X' => extensions.pax = parse_pax(&self.extension(&block)?)?,
                // Global headers are no entries, and Go's reader applies them to none.
                b'g' => drop(self.extension(&block)?),
                b'L' => extensions.long_name = Some(until_nul(&self.extension(&block)?)),
                b'K' => extensions.long_link = Some(until_nul(&self.extension(&block)?)),
                _ => return self.entry(&block, extensions).map(Some),
            }
        }
        invalid("too many extended headers in a row")
    }

    /// Skips what is left of an entry and reads a header.
    fn next_header(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        if self.finished {
            return Ok(None);
        }
        self.skip(self.remaining + self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        let Some(block) = self.block()? else {
            self.finished = true;
            self.lacks_end = true;
            return Ok(None);
        };
        if block.iter().all(|&byte| byte == 0) {
            self.finished = true;
            return match self.block()? {
                Some(block) if block.iter().any(|&byte| byte != 0) => invalid("a single zero block"),
                _ => Ok(None),
            };
        }
        if !is_header(&block) {
            return invalid("wrong header checksum");
        }
        Ok(Some(block))
    }

    /// A whole block, or none at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return invalid("cut off in the middle of a header"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    fn skip(&mut self, count: u64) -> Result<(), Error> {
        let skipped = io::copy(&mut (&mut self.stream).take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { invalid("cut off in the middle of an entry") }
    }

    /// The content of an extended header.
    fn extension(&mut self, block: &[u8; BLOCK]) -> Result<Vec<u8>, Error> {
        let size = size(&block[field::SIZE])?;
        if size > MAX_EXTENSION_BYTES {
            return invalid(format!("extended header of {size} bytes"));
        }
        let mut content = Vec::new();
        (&mut self.stream).take(size).read_to_end(&mut content)?;
        if (content.len() as u64) < size {
            return invalid("cut off in the middle of an extended header");
        }
        self.skip(padding_of(size))?;
        Ok(content)
    }

    /// Puts header and extended headers together, and gets ready to read the content.
    fn entry(&mut self, block: &[u8; BLOCK], extensions: Extensions) -> Result<Entry, Error> {
        let dialect = dialect(block);
        let pax = &extensions.pax;
        let mut entry = header_entry(block, dialect)?;
        let mut stored = size(&block[field::SIZE])?;
        apply_pax(&mut entry, &mut stored, pax)?;
        if let Some(name) = extensions.long_name {
            entry.path = name;
        }
        if let Some(link) = extensions.long_link {
            entry.link = link;
        }
        // Before POSIX, directories were files whose name ends in a slash.
        if block[field::TYPE] == 0 && entry.path.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        if entry.kind != Kind::File {
            stored = 0;
        }
        self.remaining = stored;
        self.padding = padding_of(stored);
        entry.size_bytes = stored;
        self.sparse(block, dialect, pax, &mut entry)?;
        Ok(entry)
    }

    /// The map of a sparse file, in any of the four ways to write one.
    fn sparse(
        &mut self,
        block: &[u8; BLOCK],
        dialect: Dialect,
        pax: &BTreeMap<Vec<u8>, Vec<u8>>,
        entry: &mut Entry,
    ) -> Result<(), Error> {
        let value = |key: &str| pax.get(key.as_bytes()).map(Vec::as_slice).unwrap_or_default();
        let pieces = if block[field::TYPE] == b'S' {
            if dialect != Dialect::Gnu {
                return invalid("sparse file in an archive that is not GNU's");
            }
            entry.size_bytes = size(&block[field::GNU_REAL_SIZE])?;
            self.old_sparse_map(block)?
        } else {
            let is_in_header = match (value("GNU.sparse.major"), value("GNU.sparse.minor")) {
                (b"1", b"0") => false,
                (b"0", b"0" | b"1") => true,
                (b"", b"") if !value("GNU.sparse.map").is_empty() => true,
                _ => return Ok(()),
            };
            if entry.kind != Kind::File {
                return invalid("sparse map of something that is no file");
            }
            if !value("GNU.sparse.name").is_empty() {
                entry.path = value("GNU.sparse.name").to_vec();
            }
            for key in ["GNU.sparse.size", "GNU.sparse.realsize"] {
                if !value(key).is_empty() {
                    entry.size_bytes = decimal(value(key))?;
                }
            }
            if is_in_header {
                pairs(value("GNU.sparse.map").split(|&byte| byte == b','))?
            } else {
                self.sparse_map_1_0()?
            }
        };
        check_pieces(&pieces, entry.size_bytes, self.remaining)?;
        entry.pieces = Some(pieces);
        Ok(())
    }

    /// Four pieces in the header, 21 in each block that follows while the last one says so.
    fn old_sparse_map(&mut self, block: &[u8; BLOCK]) -> Result<Vec<(u64, u64)>, Error> {
        let mut pieces = Vec::new();
        push_old_pieces(&mut pieces, &block[field::GNU_SPARSE])?;
        let mut more = block[field::GNU_SPARSE_MORE] != 0;
        let mut read = 0;
        while more {
            read += BLOCK as u64;
            if read > MAX_EXTENSION_BYTES {
                return invalid("sparse map of more than a megabyte");
            }
            let Some(block) = self.block()? else { return invalid("cut off in a sparse map") };
            push_old_pieces(&mut pieces, &block[field::GNU_MORE_SPARSE])?;
            more = block[field::GNU_MORE_SPARSE_MORE] != 0;
        }
        Ok(pieces)
    }

    /// Decimal lines at the start of the content, padded to a block: how many, then offset and length of each.
    fn sparse_map_1_0(&mut self) -> Result<Vec<(u64, u64)>, Error> {
        let mut text = Vec::new();
        let mut wanted_lines = 1;
        let mut lines = 0;
        while lines < wanted_lines {
            if text.len() as u64 > MAX_EXTENSION_BYTES {
                return invalid("sparse map of more than a megabyte");
            }
            if self.remaining < BLOCK as u64 {
                return invalid("cut off in a sparse map");
            }
            let Some(block) = self.block()? else { return invalid("cut off in a sparse map") };
            self.remaining -= BLOCK as u64;
            lines += block.iter().filter(|&&byte| byte == b'\n').count() as u64;
            text.extend(block);
            if wanted_lines == 1 && lines > 0 {
                let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
                wanted_lines = decimal(first)?.saturating_mul(2).saturating_add(1);
            }
        }
        let numbers = usize::try_from(wanted_lines - 1).unwrap_or(usize::MAX);
        pairs(text.split(|&byte| byte == b'\n').skip(1).take(numbers))
    }

    /// Reads on after the end of the archive to the end of the stream, `limit` bytes at most; whether that was enough.
    pub fn drain(&mut self, limit: u64) -> Result<bool, Error> {
        let drained = io::copy(&mut (&mut self.stream).take(limit.saturating_add(1)), &mut io::sink())?;
        Ok(drained <= limit)
    }
}

/// The stored bytes of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "cut off in the middle of a file"));
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

fn padding_of(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn dialect(block: &[u8; BLOCK]) -> Dialect {
    match &block[field::MAGIC] {
        b"ustar\x0000" if &block[field::STAR_TRAILER] == b"tar\0" => Dialect::Star,
        b"ustar\x0000" => Dialect::Ustar,
        b"ustar  \0" => Dialect::Gnu,
        // Writers disagree about the version behind the magic.
        magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
        _ => Dialect::V7,
    }
}

fn header_entry(block: &[u8; BLOCK], dialect: Dialect) -> Result<Entry, Error> {
    let kind = match block[field::TYPE] {
        // `7` is a contiguous file, `S` GNU's sparse one.
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return invalid(format!("entry of the unknown type {:?}", char::from(other))),
    };
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice if dialect != Dialect::V7 => {
            (small(number(&block[field::DEVICE_MAJOR])?)?, small(number(&block[field::DEVICE_MINOR])?)?)
        }
        _ => (0, 0),
    };
    Ok(Entry {
        kind,
        path: header_path(block, dialect),
        link: until_nul(&block[field::LINK]),
        mode: (number(&block[field::MODE])? & 0o7777) as u32,
        uid: id(number(&block[field::UID])?),
        gid: id(number(&block[field::GID])?),
        size_bytes: 0,
        modified: (number(&block[field::MODIFIED])?, 0),
        device,
        xattrs: Vec::new(),
        pieces: None,
    })
}

fn header_path(block: &[u8; BLOCK], dialect: Dialect) -> Vec<u8> {
    let prefix = match dialect {
        Dialect::Ustar => field::PREFIX,
        Dialect::Star => field::STAR_PREFIX,
        // Some writers say GNU and put a prefix where GNU has times (golang/go#12594).
        Dialect::Gnu if field::GNU_TIMES.iter().any(|time| number(&block[time.clone()]).is_err()) => field::PREFIX,
        Dialect::Gnu | Dialect::V7 => Range::default(),
    };
    let mut path = until_nul(&block[prefix]);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(until_nul(&block[field::NAME]));
    path
}

fn apply_pax(entry: &mut Entry, stored: &mut u64, pax: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), Error> {
    for (key, value) in pax {
        // An empty value takes the record back: the header counts.
        if value.is_empty() && !key.starts_with(XATTR_PREFIX) {
            continue;
        }
        match key.as_slice() {
            b"path" => entry.path = value.clone(),
            b"linkpath" => entry.link = value.clone(),
            b"uid" => entry.uid = id(signed_decimal(value)?),
            b"gid" => entry.gid = id(signed_decimal(value)?),
            b"size" => *stored = decimal(value)?,
            b"mtime" => entry.modified = pax_time(value)?,
            // Schily's and bsdtar's records for device numbers that do not fit.
            b"SCHILY.devmajor" => entry.device.0 = small(signed_decimal(value)?)?,
            b"SCHILY.devminor" => entry.device.1 = small(signed_decimal(value)?)?,
            key => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    entry.xattrs.push((OsString::from_vec(name.to_vec()), value.clone()));
                }
            }
        }
    }
    Ok(())
}

/// Records `LENGTH KEY=VALUE\n`, the length being that of the whole record. A later one replaces an earlier one.
fn parse_pax(mut text: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let mut records = BTreeMap::new();
    // PAX sparse 0.0 repeats two keys per piece, in order.
    let mut map: Vec<u8> = Vec::new();
    while !text.is_empty() {
        let [key, value, rest] = pax_record(text)?;
        text = rest;
        match key {
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                if !map.is_empty() {
                    map.push(b',');
                }
                map.extend(value);
            }
            _ => drop(records.insert(key.to_vec(), value.to_vec())),
        }
    }
    if !map.is_empty() {
        records.insert(b"GNU.sparse.map".to_vec(), map);
    }
    Ok(records)
}

/// Key, value and what follows the record.
fn pax_record(text: &[u8]) -> Result<[&[u8]; 3], Error> {
    let malformed = || Error::Invalid("malformed extended header".into());
    let blank = text.iter().position(|&byte| byte == b' ').ok_or_else(malformed)?;
    let length = usize::try_from(decimal(&text[..blank])?).map_err(|_| malformed())?;
    if length <= blank + 2 || length > text.len() || text[length - 1] != b'\n' {
        return Err(malformed());
    }
    let record = &text[blank + 1..length - 1];
    let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let text_value = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    if key.is_empty() || key.contains(&0) || (text_value && value.contains(&0)) {
        return Err(malformed());
    }
    Ok([key, value, &text[length..]])
}

/// `[-]SECONDS[.FRACTION]`
fn pax_time(text: &[u8]) -> Result<(i64, u32), Error> {
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = signed_decimal(parts.next().unwrap_or_default())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return invalid("malformed time in an extended header");
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    match (text.starts_with(b"-"), nanoseconds) {
        (true, 1..) => match seconds.checked_sub(1) {
            Some(seconds) => Ok((seconds, 1_000_000_000 - nanoseconds)),
            None => invalid("time out of range"),
        },
        _ => Ok((seconds, nanoseconds)),
    }
}

fn push_old_pieces(pieces: &mut Vec<(u64, u64)>, map: &[u8]) -> Result<(), Error> {
    for piece in map.chunks_exact(24) {
        if piece[0] == 0 {
            break;
        }
        pieces.push((size(&piece[..12])?, size(&piece[12..])?));
    }
    Ok(())
}

fn pairs<'a>(mut numbers: impl Iterator<Item = &'a [u8]>) -> Result<Vec<(u64, u64)>, Error> {
    let mut pieces = Vec::new();
    while let Some(offset) = numbers.next() {
        let Some(length) = numbers.next() else { return invalid("sparse map with an odd number of numbers") };
        pieces.push((decimal(offset)?, decimal(length)?));
    }
    Ok(pieces)
}

/// Ascending, apart, within the file, and together as much as is stored.
fn check_pieces(pieces: &[(u64, u64)], size: u64, stored: u64) -> Result<(), Error> {
    let mut end = 0;
    let mut sum: u64 = 0;
    for &(offset, length) in pieces {
        let piece_end = offset.checked_add(length).filter(|&end| end <= size);
        let (Some(piece_end), true) = (piece_end, offset >= end) else { return invalid("contradictory sparse map") };
        end = piece_end;
        sum += length;
    }
    if sum == stored { Ok(()) } else { invalid("sparse map that does not fit the content") }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

/// A number in a header: octal digits between blanks and NULs, or big-endian two's complement when the first bit is set.
fn number(field: &[u8]) -> Result<i64, Error> {
    if field.first().is_some_and(|&byte| byte & 0x80 != 0) {
        return base_256(field);
    }
    let is_filler = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_filler(byte)).unwrap_or(field.len());
    let digits = field[start..].split(is_filler).next().unwrap_or_default();
    let mut value: i64 = 0;
    for &digit in digits {
        match digit {
            // At most twelve digits: this cannot overflow.
            b'0'..=b'7' => value = value << 3 | i64::from(digit - b'0'),
            _ => return invalid("malformed number in a header"),
        }
    }
    Ok(value)
}

fn base_256(field: &[u8]) -> Result<i64, Error> {
    let is_negative = field[0] & 0x40 != 0;
    let mut value: i128 = if is_negative { -1 } else { 0 };
    for (index, &byte) in field.iter().enumerate() {
        let byte = match (index, is_negative) {
            (0, false) => byte & 0x7f,
            _ => byte,
        };
        // Twelve bytes at most: 96 bits fit.
        value = value << 8 | i128::from(byte);
    }
    i64::try_from(value).or_else(|_| invalid("number in a header is out of range"))
}

fn size(field: &[u8]) -> Result<u64, Error> {
    // Room for adding the padding and a block without another check.
    match u64::try_from(number(field)?) {
        Ok(size) if size <= i64::MAX as u64 - 2 * BLOCK as u64 => Ok(size),
        _ => invalid("impossible size"),
    }
}

/// An id as lchown(2) takes it from containerd: the lower 32 bits of what is written. 4294967295, which is -1, is no id; see
/// [`crate::Tree::set_owner`].
fn id(number: i64) -> u32 {
    number as u32
}

/// A device number.
fn small(number: i64) -> Result<u32, Error> {
    u32::try_from(number).or_else(|_| invalid(format!("device number {number} is out of range")))
}

fn decimal(text: &[u8]) -> Result<u64, Error> {
    match u64::try_from(signed_decimal(text)?) {
        Ok(size) if size <= i64::MAX as u64 - 2 * BLOCK as u64 => Ok(size),
        _ => invalid("impossible size"),
    }
}

fn signed_decimal(text: &[u8]) -> Result<i64, Error> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Invalid("malformed number in an extended header".into()))
}
