//! Reads a stream in a thread of its own, ahead of who wants it: decompressing and hashing go on while files are written.

use std::io::{self, Read};
use std::thread::Scope;

use crossbeam_channel::{Receiver, Sender, bounded};

/// How much is read ahead: this many pieces of this many bytes.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 512 << 10;

/// The reading end.
pub struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    /// Pieces that have been read go back to be filled again.
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

/// Gives what `stream` gives, errors as well. Its thread ends when the stream does, or soon after nobody wants it any more.
///
/// # Errors
/// When there is no thread to be had.
pub fn read_ahead<'scope>(
    scope: &'scope Scope<'scope, '_>,
    cancelled: &dyn Fn() -> bool,
    stream: impl Read + Send + 'scope,
) -> io::Result<Ahead> {
    let (filled, pieces) = bounded(PIECES);
    let (empty, to_fill) = bounded(PIECES);
    for _ in 0..PIECES {
        let _ = empty.send(Vec::new());
    }
    spawn::scoped(scope, "unpack", cancelled, move || fill(stream, &to_fill, &filled))?;
    Ok(Ahead { pieces, empty, piece: Vec::new(), at: 0 })
}

fn fill(mut stream: impl Read, to_fill: &Receiver<Vec<u8>>, filled: &Sender<io::Result<Vec<u8>>>) {
    for mut piece in to_fill {
        piece.clear();
        let read = (&mut stream).take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let is_over = !matches!(read, Ok(1..));
        // What came before an error is wanted, too.
        let error = read.err();
        if !piece.is_empty() && filled.send(Ok(piece)).is_err() {
            return;
        }
        if let Some(error) = error {
            let _ = filled.send(Err(error));
        }
        if is_over {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            let _ = self.empty.try_send(std::mem::take(&mut self.piece));
            self.at = 0;
            match self.pieces.recv() {
                Ok(piece) => self.piece = piece?,
                // The stream has ended.
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many bytes as are asked for, then an error if there is to be one.
    struct Source(usize, bool);

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.0).min(100_003);
            buffer[..count].fill(7);
            self.0 -= count;
            if count == 0 && self.1 { Err(io::Error::other("broken")) } else { Ok(count) }
        }
    }

    fn read(source: Source) -> (usize, Option<String>) {
        std::thread::scope(|scope| {
            let mut ahead = read_ahead(scope, &|| false, source).unwrap();
            let mut found = Vec::new();
            let error = ahead.read_to_end(&mut found).err();
            assert!(found.iter().all(|byte| *byte == 7));
            (found.len(), error.map(|error| error.to_string()))
        })
    }

    #[test]
    fn the_stream_is_what_it_was() {
        for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECES * PIECE_BYTES + 17] {
            assert_eq!(read(Source(size, false)), (size, None));
            assert_eq!(read(Source(size, true)), (size, Some("broken".to_owned())));
        }
    }

    #[test]
    fn a_stream_that_nobody_wants_any_more_ends() {
        std::thread::scope(|scope| {
            let mut ahead = read_ahead(scope, &|| false, Source(usize::MAX, false)).unwrap();
            ahead.read_exact(&mut [0; 10]).unwrap();
        });
    }
}
