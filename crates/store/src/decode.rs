//! Decompression by what the bytes are, not by what a media type says they are.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use oci::Compression;

const BUFFER_BYTES: usize = 64 * 1024;

/// The plain bytes of `stored`: gzip (any number of members), zstd (any number of frames) or plain, by magic number.
///
/// `stored` is read to its end before the result ends, so that a verifying reader inside gets its say.
pub fn decode<'a>(stored: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut stored = BufReader::with_capacity(BUFFER_BYTES, stored);
    let mut magic = [0; 4];
    let count = peek(&mut stored, &mut magic)?;
    let stored = Prefixed { prefix: magic, from: 0, to: count, inner: stored };
    Ok(match compression_of(&magic[..count]) {
        Compression::Gzip => Box::new(Drained { plain: MultiGzDecoder::new(stored), drain: |d| d.get_mut() }),
        Compression::Zstd => Box::new(Drained { plain: zstd::Decoder::with_buffer(stored)?, drain: |d| d.get_mut() }),
        Compression::None => Box::new(stored),
    })
}

/// What the first four bytes say. RFC 1952; RFC 8878: a frame, or a skippable frame before it.
pub(crate) fn compression_of(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Fills `magic` as far as the stream goes.
fn peek(reader: &mut impl Read, magic: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < magic.len() {
        match reader.read(&mut magic[count..]) {
            Ok(0) => break,
            Ok(n) => count += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Puts the peeked bytes back before the rest.
struct Prefixed<R> {
    prefix: [u8; 4],
    from: usize,
    to: usize,
    inner: R,
}

impl<R: BufRead> Read for Prefixed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.from == self.to {
            return self.inner.read(buffer);
        }
        let count = buffer.len().min(self.to - self.from);
        buffer[..count].copy_from_slice(&self.prefix[self.from..self.from + count]);
        self.from += count;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Prefixed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.from == self.to { self.inner.fill_buf() } else { Ok(&self.prefix[self.from..self.to]) }
    }

    fn consume(&mut self, count: usize) {
        if self.from == self.to {
            self.inner.consume(count);
        } else {
            self.from = (self.from + count).min(self.to);
        }
    }
}

/// A decoder that reads what is left of its input before it reports its own end.
struct Drained<D, R> {
    plain: D,
    drain: fn(&mut D) -> &mut R,
}

impl<D: Read, R: Read> Read for Drained<D, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            io::copy((self.drain)(&mut self.plain), &mut io::sink())?;
        }
        Ok(count)
    }
}
