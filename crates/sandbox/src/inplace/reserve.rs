//! What going back may need on a full disk: blocks and inodes that are set aside before anything is moved, and given back to the
//! file system when something fails for want of space on the way.
//!
//! Others may take them at that moment. So going back is made to need none as a rule, and what fails all the same makes room
//! otherwise ([`super::swap`]).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::SandboxError;

/// Room for the directories that may have to grow, and for what a file system has of its own.
const BLOCKS: u64 = 64;
/// Inodes that nothing here counts.
const INODES: usize = 16;
const BLOCK_BYTES: u64 = 4096;

/// A directory of files, of which the first has the blocks.
#[derive(Clone, Debug)]
pub struct Reserve(PathBuf);

impl Reserve {
    /// The one that there is, if there is one.
    pub fn found(state: &Path) -> Reserve {
        Reserve(state.join("reserve"))
    }

    /// Sets aside what it takes to make `directories` directories, unless it is there from an earlier step.
    ///
    /// # Errors
    /// [`SandboxError::Setup`] where there is no room for it: then there would be no sure way back.
    pub fn make(state: &Path, directories: usize) -> Result<Reserve, SandboxError> {
        let reserve = Reserve::found(state);
        reserve.fill(directories).map_err(|source| {
            reserve.release();
            let what = "the way back, should the step fill the disk";
            SandboxError::Setup {
                action: format!("could not set aside in `{}` what it takes for {what}", state.display()),
                source,
            }
        })?;
        Ok(reserve)
    }

    fn fill(&self, directories: usize) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for number in 0..directories + INODES {
            match File::create_new(self.0.join(number.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let blocks = File::options().write(true).open(self.0.join("0"))?;
        let wanted = (BLOCKS + directories as u64) * BLOCK_BYTES;
        if blocks.metadata()?.len() >= wanted {
            return Ok(());
        }
        match rustix::fs::fallocate(&blocks, FallocateFlags::empty(), 0, wanted) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_blocks(&blocks, wanted),
            done => Ok(done?),
        }
    }

    /// Gives it back; true when there was something.
    pub fn release(&self) -> bool {
        fs::read_dir(&self.0).is_ok_and(|mut entries| entries.next().is_some()) && fs::remove_dir_all(&self.0).is_ok()
    }
}

/// Fills a file with what no file system keeps as a hole or compressed.
fn write_blocks(mut file: &File, length: u64) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..length / 8 {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.sync_data()
}

/// Whether it was blocks or inodes that there were none of, or a user's part of them.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
