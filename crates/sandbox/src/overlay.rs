//! Directories laid over one another by the kernel, so that what a step writes is in a directory of its own.
//!
//! Found by doing on the work directory itself: an upper directory cannot be on an overlay (a container's own file system), nor
//! on some network file systems, and without CAP_SYS_ADMIN of the first user namespace it takes `userxattr` (Linux 5.11).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rootfs::overlay::Marks;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

/// How overlays are mounted here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Overlay {
    /// Marks are user attributes, as they have to be in a user namespace.
    user_attributes: bool,
    /// Nothing is forced to the disk before its time (Linux 5.10). Otherwise every unmount flushes the whole file system, and
    /// what is in a work directory is worth nothing after a crash.
    is_volatile: bool,
}

/// Of all options together: a page, with the 0 at the end.
const MAX_OPTIONS_BYTES: usize = 4095;
/// No more fit, whatever the numbers of their descriptors are.
const MAX_LOWERS: usize = MAX_OPTIONS_BYTES / "/proc/self/fd/0:".len();

impl Overlay {
    pub fn marks(&self) -> Marks {
        if self.user_attributes { Marks::User } else { Marks::Trusted }
    }

    /// Shows `lowers`, the topmost first, at the directory `at`; with an upper directory (empty) and the kernel's work
    /// directory (empty, on the same file system) what is written there goes to the former.
    ///
    /// # Errors
    /// E2BIG for more lower directories than the kernel is told of in one call.
    pub fn mount(&self, lowers: &[&Path], upper: Option<(&Path, &Path)>, at: &Path) -> io::Result<()> {
        let mut options = b"index=off".to_vec();
        if self.user_attributes {
            // It does without redirections and metadata-only copies, and refuses to be told so.
            options.extend(b",userxattr");
        } else {
            options.extend(b",redirect_dir=off,metacopy=off");
        }
        if lowers.len() > MAX_LOWERS {
            return Err(Errno::TOOBIG.into());
        }
        // The kernel shows the options to everybody who sees the mount, as they were given. So directories are given by the
        // numbers of our descriptors, which say nothing.
        let mut opened = Vec::new();
        let mut give = |option: &[u8], path: &Path| -> io::Result<()> {
            let directory = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            options.extend(option);
            options.extend(format!("/proc/self/fd/{}", directory.as_raw_fd()).bytes());
            opened.push(directory);
            Ok(())
        };
        for (index, lower) in lowers.iter().enumerate() {
            give(if index == 0 { b",lowerdir=" } else { b":" }, lower)?;
        }
        if let Some((upper, work)) = upper {
            give(b",upperdir=", upper)?;
            give(b",workdir=", work)?;
            if self.is_volatile {
                options.extend(b",volatile");
            }
        }
        if options.len() > MAX_OPTIONS_BYTES {
            return Err(Errno::TOOBIG.into());
        }
        let options = CString::new(options)?;
        let flags = if upper.is_some() { MountFlags::NODEV } else { MountFlags::NODEV | MountFlags::RDONLY };
        Ok(rustix::mount::mount("overlay", at, "overlay", flags, options.as_c_str())?)
    }

    /// Takes the overlay at `at` away. What a process still has open there goes with the process.
    pub fn unmount(&self, at: &Path) -> io::Result<()> {
        Ok(rustix::mount::unmount(at, UnmountFlags::DETACH)?)
    }

    /// Tries every way to mount one with everything in `work`, the best first.
    ///
    /// # Errors
    /// Why the last one does not work.
    pub(crate) fn find(work: &Path) -> io::Result<Overlay> {
        let mut last = io::Error::from(Errno::NOSYS);
        for (user_attributes, is_volatile) in [(false, true), (false, false), (true, true), (true, false)] {
            let overlay = Overlay { user_attributes, is_volatile };
            let place = work.join("overlay-probe");
            let tried = overlay.attempt(&place);
            fs::remove_dir_all(&place).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            match tried {
                Ok(()) => return Ok(overlay),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Removes a file and replaces a directory through an overlay, and looks whether the marks are there.
    fn attempt(&self, place: &Path) -> io::Result<()> {
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| place.join(name));
        for directory in [place, &lower, &upper, &work, &merged, &lower.join("directory")] {
            fs::create_dir(directory)?;
        }
        fs::write(lower.join("file"), "")?;
        self.mount(&[&lower], Some((&upper, &work)), &merged)?;
        let changed = fs::remove_file(merged.join("file")).and_then(|()| {
            fs::remove_dir(merged.join("directory"))?;
            fs::create_dir(merged.join("directory"))
        });
        self.unmount(&merged)?;
        changed?;
        let mark = fs::symlink_metadata(upper.join("file"))?;
        let is_marked = mark.file_type().is_char_device() && mark.rdev() == 0;
        let is_opaque = self.marks().is_opaque_at(&upper.join("directory"))?;
        if is_marked && is_opaque { Ok(()) } else { Err(io::Error::other("deletions are not marked as expected")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In namespaces of its own only: the contract suite does that.
    #[test]
    fn too_many_directories_are_refused_before_the_kernel_is_asked() {
        let overlay = Overlay { user_attributes: true, is_volatile: true };
        let lowers = vec![Path::new("/some/directory"); 400];
        let refused = overlay.mount(&lowers, None, Path::new("/nowhere")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::E2BIG));
    }
}
