//! As much of DER (X.690) as private keys need: PKCS#1 and PKCS#8 (RFC 8017 A.1.2, RFC 5958), and SEC1 (RFC 5915).

use crate::wire::magnitude;

pub const INTEGER: u8 = 0x02;
pub const BITS: u8 = 0x03;
pub const BYTES: u8 = 0x04;
pub const OBJECT: u8 = 0x06;
pub const SEQUENCE: u8 = 0x30;

/// Takes values off the front of some bytes.
pub struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    /// The content of the next value, which has to have this tag.
    pub fn value(&mut self, tag: u8) -> Option<&'b [u8]> {
        let (found, rest) = self.0.split_first()?;
        if *found != tag {
            return None;
        }
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// The same, where it may be missing.
    pub fn maybe(&mut self, tag: u8) -> Option<&'b [u8]> {
        if self.0.first() == Some(&tag) { self.value(tag) } else { None }
    }

    pub fn sequence(&mut self) -> Option<Reader<'b>> {
        self.value(SEQUENCE).map(Reader)
    }

    /// The magnitude of a number that is not negative, without leading zeros.
    pub fn number(&mut self) -> Option<&'b [u8]> {
        let bytes = self.value(INTEGER)?;
        let is_negative = bytes.first()? & 0x80 != 0;
        (!is_negative).then(|| magnitude(bytes))
    }
}

/// A length and what comes after it. Key files are short: three bytes of length are enough.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return Some((usize::from(*first), rest));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=3).contains(&count) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    Some((length, rest))
}

/// What a string of bits holds that is whole bytes.
pub fn whole_bits(bits: &[u8]) -> Option<&[u8]> {
    match bits.split_first()? {
        (0, bytes) => Some(bytes),
        _ => None,
    }
}
