//! The few tar entries that image archives need: regular files and directories with fixed attributes; and where the files
//! of an archive are.
//!
//! Layers are neither made nor read here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

const BLOCK: usize = 512;

/// Writes a tar with owners 0, times 0 and no names: the same entries give the same bytes.
pub(crate) struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> TarWriter<W> {
        TarWriter { out }
    }

    pub(crate) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.header(name, 0, b'5')
    }

    pub(crate) fn bytes(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.file(name, content.len() as u64, &mut &*content)
    }

    /// `content` has to have `size_bytes` bytes.
    pub(crate) fn file(&mut self, name: &str, size_bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        self.header(name, size_bytes, b'0')?;
        let copied = io::copy(content, &mut self.out)?;
        if copied != size_bytes {
            return Err(io::Error::other(format!("`{name}` has {copied} bytes instead of {size_bytes}")));
        }
        self.pad(size_bytes)
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// A ustar header, after a PAX one where ustar has no room for the name or the size.
    fn header(&mut self, name: &str, size_bytes: u64, kind: u8) -> io::Result<()> {
        let mut records = String::new();
        if name.len() > 100 {
            records += &pax_record("path", name);
        }
        // Eleven octal digits.
        if size_bytes >= 1 << 33 {
            records += &pax_record("size", &size_bytes.to_string());
        }
        if !records.is_empty() {
            self.out.write_all(&ustar("pax", records.len() as u64, b'x'))?;
            self.out.write_all(records.as_bytes())?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&ustar(name, size_bytes, kind))
    }

    fn pad(&mut self, size_bytes: u64) -> io::Result<()> {
        let over = (size_bytes % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][over..]) }
    }
}

fn ustar(name: &str, size_bytes: u64, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    let size = if size_bytes < 1 << 33 { size_bytes } else { 0 };
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// `length key=value\n`, where the length counts itself. POSIX pax, «Extended Header».
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// Where a file's content is in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) size_bytes: u64,
}

/// More entries than any image archive has.
const MAX_ENTRIES: usize = 100_000;
/// Longest PAX header or GNU name that is read.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// The regular files of a tar (ustar, PAX, GNU), by name without `./`; the last of the same name counts. Links to files
/// count as the file (`docker save` writes layers that are there twice as links).
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is no tar, or cut short.
pub(crate) fn index(file: &File) -> io::Result<HashMap<String, Span>> {
    let length = file.metadata()?.len();
    let mut found = HashMap::new();
    let mut links = Vec::new();
    let mut extended = Extended::default();
    let mut at = 0;
    while let Some(header) = read_header(file, at, length)? {
        let size_bytes = match extended.size_bytes {
            Some(size_bytes) if !header.is_extension() => size_bytes,
            _ => header.size_bytes()?,
        };
        let span = Span { offset: at + BLOCK as u64, size_bytes };
        let end = span.offset.checked_add(size_bytes).filter(|end| *end <= length);
        let end = end.ok_or_else(|| bad("it ends in the middle of a file"))?;
        match header.kind() {
            b'x' => extended.read_pax(&read_extension(file, span)?),
            b'L' => extended.name = Some(text(&read_extension(file, span)?)),
            b'K' => extended.link = Some(text(&read_extension(file, span)?)),
            b'g' => {}
            kind => {
                let Extended { name, link, .. } = std::mem::take(&mut extended);
                let name = name.unwrap_or_else(|| header.name());
                match kind {
                    b'0' | 0 | b'7' => drop(found.insert(clean(&name), span)),
                    b'1' => links.push((clean(&name), clean(&link.unwrap_or_else(|| header.link())))),
                    b'2' => links.push((clean(&name), resolved(&name, &link.unwrap_or_else(|| header.link())))),
                    _ => {}
                }
            }
        }
        if found.len() + links.len() > MAX_ENTRIES {
            return Err(bad("it has too many entries"));
        }
        at = end.next_multiple_of(BLOCK as u64);
    }
    for (name, target) in links {
        if let Some(span) = found.get(&target).copied() {
            found.entry(name).or_insert(span);
        }
    }
    Ok(found)
}

/// What extension headers say about the next entry.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size_bytes: Option<u64>,
}

impl Extended {
    /// A record that does not parse ends the reading: nothing after it can be found.
    fn read_pax(&mut self, mut records: &[u8]) {
        while let Some((key, value, rest)) = split_record(records) {
            match key {
                b"path" => self.name = Some(text(value)),
                b"linkpath" => self.link = Some(text(value)),
                b"size" => self.size_bytes = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok()),
                _ => {}
            }
            records = rest;
        }
    }
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

struct Header([u8; BLOCK]);

impl Header {
    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn is_extension(&self) -> bool {
        matches!(self.kind(), b'x' | b'g' | b'L' | b'K')
    }

    fn name(&self) -> String {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { String::new() };
        if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
    }

    fn link(&self) -> String {
        text(&self.0[157..257])
    }

    /// Octal, or base 256 with the first bit set (GNU).
    fn size_bytes(&self) -> io::Result<u64> {
        let field = &self.0[124..136];
        if field[0] == 0x80 {
            if field[1..4] != [0; 3] {
                return Err(bad("it has an entry of an impossible size"));
            }
            return Ok(field[4..].iter().fold(0, |size, &byte| size << 8 | u64::from(byte)));
        }
        let digits = text(field);
        let digits = digits.trim_matches(' ');
        if digits.is_empty() {
            return Ok(0);
        }
        u64::from_str_radix(digits, 8).map_err(|_| bad("it has a header without a size"))
    }

    fn checksum_is_right(&self) -> bool {
        let stated = text(&self.0[148..156]);
        let sum = self.0.iter().enumerate().map(|(at, &byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(byte),
        });
        u32::from_str_radix(stated.trim_matches(' '), 8) == Ok(sum.sum())
    }
}

/// The header at `at`; none at the end, which is a block of zeros or the end of the file.
fn read_header(file: &File, at: u64, length: u64) -> io::Result<Option<Header>> {
    if at >= length && at > 0 {
        return Ok(None);
    }
    let mut header = Header([0; BLOCK]);
    match file.read_exact_at(&mut header.0, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(bad("it is no tar, or cut short")),
        other => other?,
    }
    if header.0.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    if header.checksum_is_right() { Ok(Some(header)) } else { Err(bad("it is no tar")) }
}

fn read_extension(file: &File, span: Span) -> io::Result<Vec<u8>> {
    if span.size_bytes > MAX_EXTENSION_BYTES {
        return Err(bad("it has a header that is too long"));
    }
    let mut bytes = vec![0; span.size_bytes as usize];
    file.read_exact_at(&mut bytes, span.offset)?;
    Ok(bytes)
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Text up to the first NUL. What is not UTF-8 matches no name that is looked for.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn clean(name: &str) -> String {
    name.trim_start_matches("./").to_owned()
}

/// Where a symbolic link leads, counted from the top of the archive. Only a key to look up: nothing is opened by it.
fn resolved(link: &str, target: &str) -> String {
    let link = clean(link);
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexed(bytes: &[u8]) -> io::Result<HashMap<String, Span>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        index(&file)
    }

    #[test]
    fn long_names_come_back() {
        let names = ["a".to_owned(), "n".repeat(100), "n".repeat(101), format!("blobs/sha512/{}", "0".repeat(128))];
        let mut tar = TarWriter::new(Vec::new());
        tar.directory("blobs/").unwrap();
        for (number, name) in names.iter().enumerate() {
            tar.bytes(name, &vec![b'x'; 510 + number]).unwrap();
        }
        let bytes = tar.finish().unwrap();
        let found = indexed(&bytes).unwrap();
        assert_eq!(found.len(), names.len());
        for (number, name) in names.iter().enumerate() {
            let span = found[name];
            assert_eq!(span.size_bytes, 510 + number as u64);
            assert_eq!(bytes[span.offset as usize..][..510], [b'x'; 510]);
        }
    }

    /// ustar has eleven octal digits: 8 GiB and more need a PAX record.
    #[test]
    fn large_sizes_come_back() {
        for size_bytes in [(1 << 33) - 1, 1 << 33, 1 << 40] {
            let file = tempfile::tempfile().unwrap();
            let mut tar = TarWriter::new(&file);
            tar.header("big", size_bytes, b'0').unwrap();
            let at = file.metadata().unwrap().len();
            file.set_len(at + size_bytes).unwrap();
            let found = index(&file).unwrap();
            assert_eq!(found["big"], Span { offset: at, size_bytes });
        }
    }

    #[test]
    fn a_file_of_another_size_is_an_error() {
        for content in ["", "12", "1234"] {
            assert!(TarWriter::new(Vec::new()).file("three", 3, &mut content.as_bytes()).is_err());
        }
    }

    #[test]
    fn links_resolve_within() {
        for (link, target, expected) in [
            ("b/layer.tar", "../a/layer.tar", "a/layer.tar"),
            ("./b/layer.tar", "./x", "b/x"),
            ("x", "y", "y"),
            ("a/b", "../../../../etc", "etc"),
        ] {
            assert_eq!(resolved(link, target), expected, "{link} -> {target}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_indexed_or_refused(
            blocks in proptest::collection::vec((0_usize..512, proptest::prelude::any::<u8>()), 0..20),
            length in 0_usize..4096,
        ) {
            let mut tar = TarWriter::new(Vec::new());
            tar.bytes("name", b"content").unwrap();
            tar.bytes(&"n".repeat(120), b"content").unwrap();
            let mut bytes = tar.finish().unwrap();
            bytes.truncate(length);
            for (at, byte) in blocks {
                if let Some(old) = bytes.get_mut(at * 4) {
                    *old = byte;
                }
            }
            let _ = indexed(&bytes);
        }
    }
}
