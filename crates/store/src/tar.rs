//! The few tar entries that image archives need: regular files and directories with fixed attributes.
//!
//! Layers are not made here.

use std::io::{self, Read, Write};

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
