//! Readers that refuse to end well when the bytes were not the ones asked for.

use std::io::{self, Read};

use oci::{Descriptor, Digest, Hasher};

use crate::{BlobSource, StoreError};

impl StoreError {
    /// What was behind an I/O error of one of this crate's readers: the [`StoreError`] that it carries, or
    /// [`StoreError::Read`].
    pub fn from_read(error: io::Error) -> StoreError {
        match error.downcast::<StoreError>() {
            Ok(error) => error,
            Err(error) => StoreError::Read(error),
        }
    }

    /// The error as one of a [`Read`], for [`StoreError::from_read`] to find.
    pub fn into_read(self) -> io::Error {
        match self {
            StoreError::Read(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// Passes bytes through, and gives an error in place of the end of the stream when they were not those of a digest.
///
/// The error is a [`StoreError`] inside the [`io::Error`] (see [`StoreError::from_read`]). With a known size, no byte
/// beyond it is passed on.
pub struct Verified<R> {
    inner: R,
    /// None once the end was reached and found good.
    hasher: Option<Hasher>,
    digest: Digest,
    size_bytes: Option<u64>,
}

impl<R: Read> Verified<R> {
    pub fn new(inner: R, digest: &Digest, size_bytes: Option<u64>) -> Verified<R> {
        Verified { inner, hasher: Some(Hasher::like(digest)), digest: digest.clone(), size_bytes }
    }

    /// Checks digest and size of `blob`.
    pub fn blob(inner: R, blob: &Descriptor) -> Verified<R> {
        Verified::new(inner, &blob.digest, Some(blob.size))
    }

    fn check_end(&mut self) -> io::Result<()> {
        let Some(hasher) = &self.hasher else { return Ok(()) };
        if let Some(expected) = self.size_bytes
            && hasher.size_bytes() != expected
        {
            return Err(self.wrong_size(expected, hasher.size_bytes()));
        }
        let actual = hasher.clone().finish();
        if actual != self.digest {
            return Err(StoreError::WrongDigest { expected: self.digest.clone(), actual }.into_read());
        }
        self.hasher = None;
        Ok(())
    }

    fn wrong_size(&self, expected: u64, actual: u64) -> io::Error {
        StoreError::WrongSize { digest: self.digest.clone(), expected, actual }.into_read()
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.hasher.is_none() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            self.check_end()?;
            return Ok(0);
        }
        if let Some(hasher) = &mut self.hasher {
            let total = hasher.size_bytes() + count as u64;
            if let Some(expected) = self.size_bytes
                && total > expected
            {
                return Err(self.wrong_size(expected, total));
            }
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

/// The whole of a small blob, verified; `what` and its `limit_bytes` are for the error when it is larger.
///
/// # Errors
/// [`StoreError::Invalid`] when the descriptor promises more than `limit_bytes`; nothing is read then.
pub fn read_blob(
    source: &dyn BlobSource,
    blob: &Descriptor,
    what: &str,
    limit_bytes: u64,
) -> Result<Vec<u8>, StoreError> {
    if blob.size > limit_bytes {
        return Err(StoreError::Invalid {
            what: format!("{what} `{}`", blob.digest),
            reason: format!("it has {} bytes, more than the {limit_bytes} that are accepted", blob.size),
        });
    }
    let mut bytes = Vec::new();
    Verified::blob(source.open(blob)?, blob).read_to_end(&mut bytes).map_err(StoreError::from_read)?;
    Ok(bytes)
}
