//! Reading layers.

use std::io::Read;

use crate::{Layer, StoreError, Verified, decode};

impl Layer {
    /// The blob as stored. The reader fails in place of ending when digest or size are not those of the descriptor.
    pub fn open(&self) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(Verified::blob(self.content.open(&self.descriptor)?, &self.descriptor)))
    }

    /// The plain tar, decompressed by what the blob is (gzip, zstd, plain). The reader fails in place of ending when the
    /// blob is not the descriptor's or the tar is not the diff ID's.
    ///
    /// What was read before the end is not verified yet: whoever acts on it must be able to throw its work away.
    pub fn uncompressed(&self) -> Result<Box<dyn Read + Send>, StoreError> {
        let plain = decode(self.open()?).map_err(StoreError::from_read)?;
        if self.diff_id.0 == self.descriptor.digest {
            // Stored plain: the digest says it all.
            return Ok(plain);
        }
        Ok(Box::new(Verified::new(plain, &self.diff_id.0, None)))
    }
}
