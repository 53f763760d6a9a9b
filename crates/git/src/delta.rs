//! Deltas: an object as copies from another one and bytes of its own (gitformat-pack, «Deltified representation»).

use std::io::{BufRead, Read as _, Write};

use super::content::Content;
use super::{Fault, Result};

/// The sizes of base and result, with which a delta begins.
pub fn sizes(delta: &mut dyn BufRead) -> Result<(u64, u64)> {
    Ok((size(delta)?, size(delta)?))
}

/// Writes what `delta`, whose sizes have been read, makes of `base`. As much comes out as it likes: `out` has the limit.
pub fn apply(delta: &mut dyn BufRead, base: &Content, out: &mut dyn Write) -> Result<()> {
    while let Some(operation) = byte(delta)? {
        match operation {
            0 => return Err(Fault::server("a delta with an unknown operation")),
            1..=0x7f => {
                let length = u64::from(operation);
                let copied = std::io::copy(&mut (&mut *delta).take(length), out)?;
                if copied != length {
                    return Err(Fault::server("a delta that ends in the middle"));
                }
            }
            _ => {
                let offset = number(delta, operation & 0x0f, 4)?;
                let length = number(delta, operation >> 4 & 0x07, 3)?;
                base.copy_part(offset, if length == 0 { 0x1_0000 } else { length }, out)?;
            }
        }
    }
    Ok(())
}

/// Little-endian, with only the bytes whose bit in `present` is set.
fn number(delta: &mut dyn BufRead, present: u8, bytes: u32) -> Result<u64> {
    let mut value = 0;
    for position in 0..bytes {
        if present & 1 << position != 0 {
            value |= u64::from(needed(delta)?) << (8 * position);
        }
    }
    Ok(value)
}

/// Seven bits a byte, the lowest first.
fn size(delta: &mut dyn BufRead) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = needed(delta)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Fault::server("a delta with an endless size"))
}

fn needed(from: &mut dyn BufRead) -> Result<u8> {
    byte(from)?.ok_or_else(|| Fault::server("a delta that ends in the middle"))
}

fn byte(from: &mut dyn BufRead) -> Result<Option<u8>> {
    let Some(byte) = from.fill_buf()?.first().copied() else { return Ok(None) };
    from.consume(1);
    Ok(Some(byte))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    fn run(base: &[u8], delta: &[u8]) -> Result<Vec<u8>> {
        let mut delta = delta;
        sizes(&mut delta)?;
        let mut out = Vec::new();
        apply(&mut delta, &Content::Memory(Rc::new(base.to_vec())), &mut out)?;
        Ok(out)
    }

    #[test]
    fn copies_and_bytes() {
        // Copy 2 bytes from offset 1, insert `xy`, copy 3 from the beginning.
        assert_eq!(run(b"abcdef", b"\x06\x07\x91\x01\x02\x02xy\x90\x03").unwrap(), b"bcxyabc");
        assert_eq!(run(b"", b"\x00\x00").unwrap(), b"");
        for bad in [
            &b"\x06"[..],
            b"\x06\x01\x00",
            b"\x06\x01\x05x",
            b"\x06\x01\x91\x05\x02",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(run(b"abcdef", bad).is_err(), "{bad:?}");
        }
        // A length of 0 means 64 KiB, which is more than there is.
        assert!(run(b"abcdef", b"\x06\x01\x80").is_err());
    }

    proptest! {
        #[test]
        fn any_delta_ends(base in prop::collection::vec(any::<u8>(), 0..50), delta in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = run(&base, &delta);
        }
    }
}
