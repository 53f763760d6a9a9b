//! Long work that ends when it is told to: whoever loops over files or bytes asks once a file and once a chunk.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::RootfsError;

/// Flags of which any ends the work. Without one it goes on to its end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Vec<Arc<AtomicBool>>);

/// What a call fails with because it was told to stop.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

impl Stop {
    /// Stops when one of `flags` is true.
    pub fn when(flags: &[&Arc<AtomicBool>]) -> Stop {
        Stop(flags.iter().map(|flag| Arc::clone(flag)).collect())
    }

    pub fn is_set(&self) -> bool {
        self.0.iter().any(|flag| flag.load(Ordering::Relaxed))
    }

    /// # Errors
    /// One that becomes [`RootfsError::Cancelled`].
    pub fn check(&self) -> io::Result<()> {
        if self.is_set() { Err(io::Error::other(Stopped)) } else { Ok(()) }
    }

    /// A stream that ends with an error once the work is to stop.
    pub fn watch<T>(&self, inner: T) -> Watched<T> {
        Watched { inner, stop: self.clone() }
    }
}

/// Whether `error` comes from [`Stop::check`].
pub(crate) fn is_stop(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Stopped>())
}

impl RootfsError {
    /// `error` of the layer's stream, unless the work was to stop.
    pub fn read(error: io::Error) -> RootfsError {
        if is_stop(&error) { RootfsError::Cancelled } else { RootfsError::Read(error) }
    }

    /// As [`RootfsError::read`], of a layer that is written.
    pub fn write(error: io::Error) -> RootfsError {
        if is_stop(&error) { RootfsError::Cancelled } else { RootfsError::Write(error) }
    }
}

/// Made by [`Stop::watch`].
#[derive(Debug)]
pub struct Watched<T> {
    inner: T,
    stop: Stop,
}

impl<T: Read> Read for Watched<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Watched<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Watched<T> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}
