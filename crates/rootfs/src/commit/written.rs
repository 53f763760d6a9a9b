//! What saw every change says of where to look for changes.

use std::collections::HashSet;

/// More directories than this are not worth remembering: then everything is looked at.
const MOST: usize = 100_000;

/// Directories of a tree, by inode, in which something may have changed since the last commit, with all that lie above them.
///
/// New directories are among them, so that a number which is used again is not mistaken for the directory that had it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    directories: HashSet<u64>,
}

impl Written {
    /// Adds a directory; false when it is there already.
    pub fn add(&mut self, inode: u64) -> bool {
        self.directories.insert(inode)
    }

    pub fn has(&self, inode: u64) -> bool {
        self.directories.contains(&inode)
    }

    /// Inodes of the directories, in no order.
    pub fn directories(&self) -> impl Iterator<Item = u64> {
        self.directories.iter().copied()
    }

    pub fn is_too_large(&self) -> bool {
        self.directories.len() > MOST
    }
}

impl FromIterator<u64> for Written {
    fn from_iter<I: IntoIterator<Item = u64>>(inodes: I) -> Written {
        Written { directories: inodes.into_iter().collect() }
    }
}
