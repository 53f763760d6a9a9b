//! Pkt-lines, the framing of git's protocols (gitprotocol-common), and the side bands in them (gitprotocol-pack).

use std::io::{self, Read};

use super::{Fault, Result};

/// `LARGE_PACKET_MAX`, the four digits included.
const MAX_BYTES: usize = 65520;

/// One packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    Data(Vec<u8>),
    /// `0000`
    Flush,
    /// `0001`
    Delimiter,
    /// `0002`
    End,
}

/// Reads one packet; none at the end of the stream.
///
/// # Errors
/// For a length that is none, and an end in the middle.
pub fn read(from: &mut dyn Read) -> Result<Option<Packet>> {
    let mut head = [0; 4];
    let mut filled = 0;
    while filled < head.len() {
        match from.read(&mut head[filled..])? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(Fault::cut("the answer ends in the middle of a packet")),
            count => filled += count,
        }
    }
    let digits = std::str::from_utf8(&head).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let length = digits.and_then(|text| usize::from_str_radix(text, 16).ok());
    match length {
        Some(0) => Ok(Some(Packet::Flush)),
        Some(1) => Ok(Some(Packet::Delimiter)),
        Some(2) => Ok(Some(Packet::End)),
        Some(length @ 4..=MAX_BYTES) => {
            let mut data = vec![0; length - 4];
            from.read_exact(&mut data)?;
            Ok(Some(Packet::Data(data)))
        }
        _ => Err(Fault::server("not git's protocol (a broken packet)")),
    }
}

/// The next packet, which must come; an `ERR` from the server is the error.
pub fn expect(from: &mut dyn Read) -> Result<Packet> {
    let packet = read(from)?.ok_or_else(|| Fault::cut("the answer ends too early"))?;
    match &packet {
        Packet::Data(data) => match data.strip_prefix(b"ERR ") {
            Some(message) => Err(Fault::told(message)),
            None => Ok(packet),
        },
        _ => Ok(packet),
    }
}

/// A line of text without its newline.
pub fn line(data: &[u8]) -> &[u8] {
    data.strip_suffix(b"\n").unwrap_or(data)
}

/// Appends a line as a packet.
pub fn write(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

pub fn flush(into: &mut Vec<u8>) {
    into.extend_from_slice(b"0000");
}

pub fn delimiter(into: &mut Vec<u8>) {
    into.extend_from_slice(b"0001");
}

/// The pack out of the side bands: band 1 is data, 2 is progress (left out), 3 the server's last words.
pub struct SideBand<'a> {
    from: &'a mut dyn Read,
    piece: Vec<u8>,
    used: usize,
    over: bool,
}

impl<'a> SideBand<'a> {
    pub fn new(from: &'a mut dyn Read) -> SideBand<'a> {
        SideBand { from, piece: Vec::new(), used: 0, over: false }
    }

    fn next(&mut self) -> Result<()> {
        while self.used == self.piece.len() && !self.over {
            match expect(self.from)? {
                Packet::Data(data) => match data.first() {
                    Some(1) => (self.piece, self.used) = (data, 1),
                    Some(2) => {}
                    Some(3) => return Err(Fault::told(&data[1..])),
                    _ => return Err(Fault::server("an unknown side band")),
                },
                Packet::Flush | Packet::Delimiter | Packet::End => self.over = true,
            }
        }
        Ok(())
    }
}

impl Read for SideBand<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.next().map_err(Fault::into_io)?;
        let left = &self.piece[self.used..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.used += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets() {
        let mut bytes = Vec::new();
        write(&mut bytes, "command=fetch");
        delimiter(&mut bytes);
        flush(&mut bytes);
        bytes.extend_from_slice(b"0004");
        let mut from = &bytes[..];
        assert_eq!(read(&mut from).unwrap(), Some(Packet::Data(b"command=fetch\n".to_vec())));
        assert_eq!(read(&mut from).unwrap(), Some(Packet::Delimiter));
        assert_eq!(read(&mut from).unwrap(), Some(Packet::Flush));
        assert_eq!(read(&mut from).unwrap(), Some(Packet::Data(Vec::new())));
        assert_eq!(read(&mut from).unwrap(), None);
        for bad in [&b"00"[..], b"0003", b"zzzz", b"+004", b"0009ab", b"fff1", b"ffff"] {
            assert!(read(&mut &*bad).is_err());
        }
    }

    #[test]
    fn side_bands() {
        let bytes = b"0008\x01abc0009\x02note0006\x01d0000rest".to_vec();
        let mut from = &bytes[..];
        let mut got = Vec::new();
        SideBand::new(&mut from).read_to_end(&mut got).unwrap();
        assert_eq!((got.as_slice(), from), (&b"abcd"[..], &b"rest"[..]));
        let error = SideBand::new(&mut &b"000b\x03no way"[..]).read(&mut [0; 8]).unwrap_err();
        assert!(error.to_string().contains("no way"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut from = &bytes[..];
            while let Ok(Some(_)) = read(&mut from) {}
            let mut out = Vec::new();
            let _ = SideBand::new(&mut &bytes[..]).read_to_end(&mut out);
        }
    }
}
