//! What is never shown.

use std::fmt;

use zeroize::Zeroize;

/// A password or token, or the bytes of a file that is secret (`Secret<Vec<u8>>`).
///
/// Its `Debug` hides it, and there is no `Display`. Its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret<T: Zeroize = String>(T);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: impl Into<T>) -> Secret<T> {
        Secret(value.into())
    }

    /// The text or bytes, for the request or file they belong in and nothing else.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_hidden_and_can_be_had() {
        let text: Secret = Secret::new("hush");
        let bytes: Secret<Vec<u8>> = Secret::new(*b"hush");
        assert_eq!((text.reveal().as_str(), bytes.reveal().as_slice()), ("hush", &b"hush"[..]));
        assert_eq!(format!("{text:?} {bytes:#?}"), "Secret(..) Secret(..)");
        assert_eq!(text, Secret::new("hush"));
    }
}
