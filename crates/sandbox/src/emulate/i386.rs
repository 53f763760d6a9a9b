//! What the kernel writes into the memory of i386 programs where that is another structure than this machine's.

use rustix::fs::{StatFs, Statx};
use rustix::io::Errno;

use super::ids::short;

/// Fields one after the other, the lowest byte first.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn half(mut self, value: u16) -> Fields {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn word(mut self, value: u32) -> Fields {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn long(mut self, value: u64) -> Fields {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// What does not fit into its field is an error.
    fn fitting(self, value: u64) -> Result<Fields, Errno> {
        Ok(self.word(u32::try_from(value).map_err(|_| Errno::OVERFLOW)?))
    }

    fn times(self, found: &Statx) -> Fields {
        let times = [&found.stx_atime, &found.stx_mtime, &found.stx_ctime];
        times.into_iter().fold(self, |fields, time| fields.word(time.tv_sec as u32).word(time.tv_nsec))
    }
}

fn device(found: &Statx) -> u64 {
    rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor)
}

fn special(found: &Statx) -> u64 {
    rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor)
}

/// `struct stat64` (`arch/x86/include/asm/ia32.h`)
pub fn stat64(found: &Statx) -> Vec<u8> {
    let fields = Fields::default().long(device(found)).word(0).word(found.stx_ino as u32);
    let fields = fields.word(found.stx_mode.into()).word(found.stx_nlink).word(found.stx_uid).word(found.stx_gid);
    let fields = fields.long(special(found)).word(0).long(found.stx_size);
    fields.word(found.stx_blksize).long(found.stx_blocks).times(found).long(found.stx_ino).0
}

/// `struct compat_stat` (`arch/x86/include/asm/compat.h`)
///
/// # Errors
/// `EOVERFLOW` for a file of 2 GiB, and what else has no room.
pub fn stat(found: &Statx) -> Result<Vec<u8>, Errno> {
    if found.stx_size > i32::MAX as u64 {
        return Err(Errno::OVERFLOW);
    }
    let links = u16::try_from(found.stx_nlink).map_err(|_| Errno::OVERFLOW)?;
    let fields = Fields::default().fitting(device(found))?.fitting(found.stx_ino)?;
    let fields = fields.half(found.stx_mode).half(links).half(short(found.stx_uid)).half(short(found.stx_gid));
    let fields = fields.fitting(special(found))?.word(found.stx_size as u32).word(found.stx_blksize);
    Ok(fields.word(found.stx_blocks as u32).times(found).long(0).0)
}

/// Bytes of [`statfs64`], which the program says too.
pub const STATFS64: u64 = 84;

/// `struct compat_statfs64`
pub fn statfs64(found: &StatFs) -> Vec<u8> {
    let (kind, counts, rest) = parts(found);
    let fields = kind.into_iter().fold(Fields::default(), Fields::word);
    let fields = counts.into_iter().fold(fields, Fields::long);
    rest.into_iter().fold(fields, Fields::word).0
}

/// `struct compat_statfs`
///
/// # Errors
/// `EOVERFLOW` for what has no room.
pub fn statfs(found: &StatFs) -> Result<Vec<u8>, Errno> {
    let (kind, counts, rest) = parts(found);
    let fields = kind.into_iter().fold(Fields::default(), Fields::word);
    let fields = counts.into_iter().try_fold(fields, Fields::fitting)?;
    Ok(rest.into_iter().fold(fields, Fields::word).0)
}

/// Kind and block size, five counts, and the rest with four words to spare.
#[expect(clippy::unnecessary_cast, reason = "the types differ with the C library")]
fn parts(found: &StatFs) -> ([u32; 2], [u64; 5], [u32; 9]) {
    // SAFETY: fsid_t is two integers.
    let id: [u32; 2] = unsafe { std::mem::transmute(found.f_fsid) };
    let (kind, size) = (found.f_type as u32, found.f_bsize as u32);
    let counts =
        [found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree].map(|count| count as u64);
    let rest = [id[0], id[1], found.f_namelen as u32, found.f_frsize as u32, found.f_flags as u32, 0, 0, 0, 0];
    ([kind, size], counts, rest)
}

/// What goes along with a message (`struct compat_cmsghdr`), as this machine has it (`struct cmsghdr`).
///
/// # Errors
/// `EINVAL` for a length that cannot be.
pub fn control(compact: &[u8]) -> Result<Vec<u8>, Errno> {
    const HEAD: usize = 12;
    let mut rest = compact;
    let mut wide = Vec::new();
    while let Some((head, _)) = rest.split_at_checked(HEAD) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let content = rest.get(HEAD..length).ok_or(Errno::INVAL)?;
        wide.extend((content.len() as u64 + 16).to_le_bytes());
        wide.extend(&head[4..]);
        wide.extend(content);
        wide.resize(wide.len().next_multiple_of(8), 0);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(wide)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{AtFlags, CWD};

    use super::super::place::LOOK;
    use super::*;

    #[test]
    fn fields_are_where_i386_has_them() {
        let mut found = rustix::fs::statx(CWD, "/", AtFlags::empty(), LOOK).expect("a root");
        (found.stx_ino, found.stx_size, found.stx_uid, found.stx_gid) = (0x1234, 0x5678, 70_000, 7);
        (found.stx_nlink, found.stx_rdev_major, found.stx_rdev_minor) = (3, 1, 5);
        found.stx_mtime.tv_sec = 0x0102_0304;
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let long = stat64(&found);
        assert_eq!(long.len(), 96);
        let fields = [12, 16, 20, 24, 28, 32, 44, 72, 88].map(|at| word(&long, at));
        let mode = u32::from(found.stx_mode);
        assert_eq!(fields, [0x1234, mode, 3, 70_000, 7, 0x105, 0x5678, 0x0102_0304, 0x1234]);
        let old = stat(&found).expect("fits");
        assert_eq!(old.len(), 64);
        let fields = [4, 8, 12, 16, 20, 40].map(|at| word(&old, at));
        assert_eq!(fields, [0x1234, mode | 3 << 16, 65534 | 7 << 16, 0x105, 0x5678, 0x0102_0304]);
        found.stx_size = 1 << 31;
        assert_eq!(stat(&found), Err(Errno::OVERFLOW));
    }

    #[test]
    fn file_systems_have_their_counts() {
        let mut found = rustix::fs::statfs("/").expect("a root");
        (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree) = (1, 2, 3, 4, 5);
        let long = statfs64(&found);
        assert_eq!(long.len() as u64, STATFS64);
        assert_eq!((long[8], long[16], long[24], long[32], long[40]), (1, 2, 3, 4, 5));
        let old = statfs(&found).expect("fits");
        assert_eq!((old.len(), old[8], old[12], old[16], old[20], old[24]), (64, 1, 2, 3, 4, 5));
        found.f_blocks = 1 << 32;
        assert_eq!(statfs(&found), Err(Errno::OVERFLOW));
    }

    #[test]
    fn control_messages_get_the_wider_head() {
        let one =
            |length: u32, content: &[u8]| [&length.to_le_bytes(), &1u32.to_le_bytes(), &[2, 0, 0, 0], content].concat();
        let compact = [one(13, b"a\0\0\0"), one(16, b"four")].concat();
        let wide = control(&compact).expect("two messages");
        let head = |length: u8| [length, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(wide, [&head(17)[..], b"a\0\0\0\0\0\0\0", &head(20), b"four\0\0\0\0"].concat());
        for length in [0, 11, 20] {
            assert_eq!(control(&one(length, b"four")), Err(Errno::INVAL));
        }
    }
}
