//! Data types of the SSH protocol (RFC 4251 section 5), as agents and OpenSSH's key files use them.

/// Takes values off the front of some bytes; none where they are not what was asked for.
pub struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    pub fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn string(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    /// The magnitude of a number that is not negative, without leading zeros.
    pub fn number(&mut self) -> Option<&'b [u8]> {
        let bytes = self.string()?;
        let is_negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
        (!is_negative).then(|| magnitude(bytes))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Without leading zeros.
pub fn magnitude(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

pub fn put_string(to: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing that is written here comes near 4 GiB: messages and key files are bounded.
    to.extend((bytes.len() as u32).to_be_bytes());
    to.extend_from_slice(bytes);
}

/// A number that is not negative.
pub fn put_number(to: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = magnitude(bytes);
    let sign: &[u8] = if bytes.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
    put_string(to, &[sign, bytes].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (bytes, wanted) in [
            (&[][..], &[0, 0, 0, 0][..]),
            (&[0, 0], &[0, 0, 0, 0]),
            (&[0, 1], &[0, 0, 0, 1, 1]),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
        ] {
            let mut out = Vec::new();
            put_number(&mut out, bytes);
            assert_eq!(out, wanted);
            assert_eq!(Reader(&out).number(), Some(magnitude(bytes)));
        }
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        for bytes in [&[][..], &[0, 0, 0], &[0, 0, 0, 2, 1], &[0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(Reader(bytes).string(), None, "{bytes:?}");
        }
        assert_eq!(Reader(&[0, 0, 0, 1, 0x80]).number(), None, "negative");
    }
}
