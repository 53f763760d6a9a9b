//! The content of one object: in memory while it is small, else in a nameless file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use super::{Fault, Result};

/// Larger objects go to a file. A few of them exist at a time.
pub const MEMORY_MAX_BYTES: u64 = 1 << 20;

#[derive(Clone)]
pub enum Content {
    Memory(Rc<Vec<u8>>),
    File(Rc<File>, u64),
}

impl Content {
    pub fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(_, size) => *size,
        }
    }

    /// Writes `length` bytes from `offset` on, which must be there.
    pub fn copy_part(&self, offset: u64, length: u64, out: &mut dyn Write) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size());
        let end = end.ok_or_else(|| Fault::server("a delta reaches beyond its base"))?;
        match self {
            // Both fit: what is in memory is small.
            Content::Memory(bytes) => out.write_all(&bytes[offset as usize..end as usize])?,
            Content::File(file, _) => {
                let mut buffer = [0; 64 << 10];
                let mut at = offset;
                while at < end {
                    let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                    file.read_exact_at(&mut buffer[..wanted], at)?;
                    out.write_all(&buffer[..wanted])?;
                    at += wanted as u64;
                }
            }
        }
        Ok(())
    }

    pub fn copy_to(&self, out: &mut dyn Write) -> Result<()> {
        self.copy_part(0, self.size(), out)
    }

    /// The whole of it in memory.
    ///
    /// # Errors
    /// When it is larger than `limit`, which `what` exceeds then.
    pub fn bytes(&self, limit: u64, what: &str) -> Result<Rc<Vec<u8>>> {
        if self.size() > limit {
            return Err(Fault::server(format!("{what} of {} bytes, more than {limit}", self.size())));
        }
        match self {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::File(..) => {
                let mut bytes = Vec::new();
                self.copy_to(&mut bytes)?;
                Ok(Rc::new(bytes))
            }
        }
    }
}

/// Takes up a content whose size was announced, and no byte more.
pub struct Spool {
    announced: u64,
    written: u64,
    memory: Vec<u8>,
    file: Option<io::BufWriter<File>>,
}

impl Spool {
    /// Large content goes to a file in `work`.
    pub fn new(announced: u64, work: &Path) -> Result<Spool> {
        let file = match announced > MEMORY_MAX_BYTES {
            true => Some(io::BufWriter::with_capacity(128 << 10, tempfile::tempfile_in(work)?)),
            false => None,
        };
        // Not more than is taken up: a cache counts what is in it, not what was set aside for it.
        let memory = Vec::with_capacity(if file.is_some() { 0 } else { announced as usize });
        Ok(Spool { announced, written: 0, memory, file })
    }

    /// # Errors
    /// When less came than was announced.
    pub fn finish(self) -> Result<Content> {
        if self.written != self.announced {
            return Err(Fault::server("an object shorter than its header says"));
        }
        match self.file {
            Some(file) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                Ok(Content::File(Rc::new(file), self.written))
            }
            None => Ok(Content::Memory(Rc::new(self.memory))),
        }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len() as u64;
        if self.written > self.announced {
            return Err(Fault::server("an object longer than its header says").into_io());
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => self.memory.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
