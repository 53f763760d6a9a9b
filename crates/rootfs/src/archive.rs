//! Is this file an archive, and what is in it: ADD's unpacking.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use crate::tar::{self, BLOCK};
use crate::{RootfsError, Stop};

/// Decoders read the file in pieces of this size.
const BUFFER_BYTES: usize = 64 * 1024;
/// `xz -9` needs 65 MiB to unpack; the format allows 4 GiB.
const XZ_MEMORY_BYTES: u64 = 256 << 20;

/// Opens `file` as a plain tar stream when its content is a tar, plain or compressed (gzip, bzip2, xz, zstd), whatever its
/// name; none for anything else. BuildKit `isArchive`.
///
/// That is: after decompression there is a tar header with the right checksum. An archive without entries is none. `stop` ends
/// the reading, of what is in the file and of what little can become much of it.
///
/// # Errors
/// [`RootfsError::Read`] when the file cannot be read. A broken compressed stream is no error here, but «no archive» where
/// it breaks before the first header, and an error of the stream later.
pub fn open_archive(file: File, stop: &Stop) -> Result<Option<Box<dyn Read + Send>>, RootfsError> {
    let mut file = stop.watch(file);
    let mut start = [0; 16];
    file.seek(SeekFrom::Start(0)).map_err(RootfsError::Read)?;
    let length = read_up_to(&mut file, &mut start).map_err(RootfsError::read)?;
    let compression = Compression::of(&start[..length]);
    if !compression.decoder(&mut file)?.is_some_and(|mut stream| begins_like_tar(&mut stream)) {
        stop.check().map_err(RootfsError::read)?;
        return Ok(None);
    }
    Ok(compression.decoder(file)?.map(|stream| Box::new(stop.watch(stream)) as Box<dyn Read + Send>))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Compression {
        const MAGIC: [(&[u8], Compression); 4] = [
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
        ];
        // Zstandard files can begin with a frame to skip; the last four bits of its number are free.
        if let [low, 0x2a, 0x4d, 0x18, ..] = start
            && low & 0xf0 == 0x50
        {
            return Compression::Zstd;
        }
        let known = MAGIC.iter().find(|(magic, _)| start.starts_with(magic));
        known.map_or(Compression::None, |(_, compression)| *compression)
    }

    /// The plain content from the start of the file; none where the stream cannot even be begun. All formats may be
    /// concatenations of several streams.
    fn decoder<'a>(
        self,
        mut file: impl Read + Seek + Send + 'a,
    ) -> Result<Option<Box<dyn Read + Send + 'a>>, RootfsError> {
        file.seek(SeekFrom::Start(0)).map_err(RootfsError::Read)?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(match self {
            Compression::None => Some(Box::new(file)),
            Compression::Gzip => Some(Box::new(flate2::bufread::MultiGzDecoder::new(file))),
            Compression::Bzip2 => Some(Box::new(bzip2::bufread::MultiBzDecoder::new(file))),
            Compression::Xz => {
                let limited = Stream::new_stream_decoder(XZ_MEMORY_BYTES, liblzma::stream::CONCATENATED);
                limited.ok().map(|stream| Box::new(XzDecoder::new_stream(file, stream)) as Box<dyn Read + Send>)
            }
            Compression::Zstd => match zstd::stream::read::Decoder::with_buffer(file) {
                Ok(decoder) => Some(Box::new(decoder)),
                Err(_) => None,
            },
        })
    }
}

/// Whether Go's reader would find a first entry: a header with the right checksum. Compressed data that breaks is none.
fn begins_like_tar(stream: &mut dyn Read) -> bool {
    let mut block = [0; BLOCK];
    match read_up_to(stream, &mut block) {
        Ok(BLOCK) => tar::is_header(&block),
        _ => false,
    }
}

fn read_up_to(stream: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
