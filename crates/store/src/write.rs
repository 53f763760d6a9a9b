//! From a plain tar to a layer blob: diff ID, compression, digest and storing in one pass.

use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;

use oci::{Compression, Descriptor, DiffId, Flavor, Hasher};

use crate::gzip::ParallelGzip;
use crate::layout::{Layout, Partial};
use crate::{Layer, StoreError};

/// How to compress layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerCompression {
    pub kind: Compression,
    /// 0 to 9 for gzip, 0 to 22 for zstd (0 is zstd's own default); none is [`LayerCompression::DEFAULT_GZIP_LEVEL`] or
    /// [`LayerCompression::DEFAULT_ZSTD_LEVEL`].
    pub level: Option<u32>,
    /// Most threads to use. The bytes do not depend on it.
    pub threads: usize,
}

impl LayerCompression {
    /// A fifth less work than 6 for half a percent more bytes (zlib-rs, a tar of /usr).
    pub const DEFAULT_GZIP_LEVEL: u32 = 5;
    pub const DEFAULT_ZSTD_LEVEL: u32 = 3;

    /// Checks the level.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] with the range that is possible.
    pub fn check(&self) -> Result<(), StoreError> {
        let (name, highest) = match self.kind {
            Compression::None => return Ok(()),
            Compression::Gzip => ("gzip", 9),
            Compression::Zstd => ("zstd", 22),
        };
        match self.level {
            Some(level) if level > highest => Err(StoreError::Invalid {
                what: format!("compression level {level}"),
                reason: format!("{name} has levels 0 to {highest}"),
            }),
            _ => Ok(()),
        }
    }
}

/// Takes the plain tar of a layer and becomes a [`Layer`] by [`LayerWriter::complete`].
///
/// Dropping it instead leaves nothing behind. Memory: about 3 MiB, and 4 MiB per thread, with gzip at any level; 11 MiB, and
/// 5 MiB per thread, with zstd at level 3, and twice that at level 9.
pub struct LayerWriter {
    layout: Layout,
    /// None where the stored bytes are the plain ones.
    plain: Option<Hasher>,
    encoder: Encoder,
    kind: Compression,
}

enum Encoder {
    Plain(Blob),
    Gzip(Box<ParallelGzip<Blob>>),
    Zstd(zstd::stream::write::Encoder<'static, Blob>),
}

impl LayerWriter {
    pub(crate) fn new(layout: &Layout, compression: LayerCompression) -> Result<LayerWriter, StoreError> {
        compression.check()?;
        let blob = Blob::new(layout.partial()?);
        let encoder = encoder(blob, compression).map_err(|source| layout.write_error(source))?;
        let plain = (compression.kind != Compression::None).then(Hasher::new);
        Ok(LayerWriter { layout: layout.clone(), plain, encoder, kind: compression.kind })
    }

    /// Stores the blob; the layer reads from the layout.
    pub fn complete(self) -> Result<Layer, StoreError> {
        let LayerWriter { layout, plain, encoder, kind } = self;
        let write_error = |source| layout.write_error(source);
        let blob = match encoder {
            Encoder::Plain(blob) => blob,
            Encoder::Gzip(encoder) => encoder.finish().map_err(write_error)?,
            Encoder::Zstd(encoder) => encoder.finish().map_err(write_error)?,
        };
        let (partial, stored) = blob.finish().map_err(write_error)?;
        let size_bytes = stored.size_bytes();
        let digest = stored.finish();
        let diff_id = DiffId(plain.map_or_else(|| digest.clone(), Hasher::finish));
        layout.keep(partial, &digest)?;
        let media_type = Flavor::Oci.layer(kind).expect("the OCI family names every compression");
        Ok(Layer {
            descriptor: Descriptor::new(media_type, digest, size_bytes),
            diff_id,
            content: Arc::new(layout),
            origin: None,
        })
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.encoder {
            Encoder::Plain(encoder) => encoder.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }?;
        if let Some(plain) = &mut self.plain {
            plain.update(&bytes[..count]);
        }
        Ok(count)
    }

    /// Does nothing: where the compressed stream is flushed must not depend on the caller.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Layout {
    /// Begins a layer that is written into this layout.
    pub fn layer_writer(&self, compression: LayerCompression) -> Result<LayerWriter, StoreError> {
        LayerWriter::new(self, compression)
    }

    /// Stores the plain tar `plain` as a layer. `cancelled` is polled once per 64 KiB.
    pub fn write_layer(
        &self,
        plain: &mut dyn Read,
        compression: LayerCompression,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Layer, StoreError> {
        let mut writer = self.layer_writer(compression)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if cancelled() {
                return Err(StoreError::Cancelled);
            }
            match plain.read(&mut buffer) {
                Ok(0) => return writer.complete(),
                Ok(count) => writer.write_all(&buffer[..count]).map_err(|source| self.write_error(source))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::from_read(error)),
            }
        }
    }
}

fn encoder(blob: Blob, compression: LayerCompression) -> io::Result<Encoder> {
    Ok(match compression.kind {
        Compression::None => Encoder::Plain(blob),
        Compression::Gzip => {
            let level = compression.level.unwrap_or(LayerCompression::DEFAULT_GZIP_LEVEL);
            Encoder::Gzip(Box::new(ParallelGzip::new(blob, level, compression.threads)?))
        }
        Compression::Zstd => Encoder::Zstd(zstd_encoder(blob, compression)?),
    })
}

/// A zstd frame cut into jobs of a fixed size: with at least one worker and a set job size the bytes do not depend on the
/// number of workers (zstd.h, `ZSTD_c_nbWorkers`, `ZSTD_c_jobSize`).
fn zstd_encoder(blob: Blob, compression: LayerCompression) -> io::Result<zstd::stream::write::Encoder<'static, Blob>> {
    use zstd::zstd_safe::CParameter;
    const JOB_BYTES: u32 = 2 << 20;
    let level = compression.level.unwrap_or(LayerCompression::DEFAULT_ZSTD_LEVEL);
    // `check` has bounded the level.
    let mut encoder = zstd::stream::write::Encoder::new(blob, level as i32)?;
    encoder.set_parameter(CParameter::NbWorkers(compression.threads.clamp(1, 64) as u32))?;
    encoder.set_parameter(CParameter::JobSize(JOB_BYTES))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// A file that is being written and the hash of what is in it.
struct Blob {
    file: BufWriter<Partial>,
    hasher: Hasher,
}

impl Blob {
    fn new(partial: Partial) -> Blob {
        Blob { file: BufWriter::with_capacity(256 * 1024, partial), hasher: Hasher::new() }
    }

    fn finish(self) -> io::Result<(Partial, Hasher)> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.hasher))
    }
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
