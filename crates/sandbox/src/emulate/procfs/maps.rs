//! What a process has mapped, with the paths that the step knows: maps, smaps and numa_maps of proc(5).

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags};

pub fn is_one(name: &[u8]) -> bool {
    matches!(name, b"maps" | b"smaps" | b"numa_maps")
}

/// A copy of such a file, open to read. As long as a line is held at a time, whatever the process has mapped.
pub fn shown(file: OwnedFd, shown: &dyn Fn(&[u8]) -> Vec<u8>) -> io::Result<OwnedFd> {
    let copy = File::from(rustix::fs::memfd_create("proc", MemfdFlags::CLOEXEC)?);
    let mut writer = BufWriter::new(copy);
    rewrite(&mut BufReader::new(File::from(file)), &mut writer, shown)?;
    let copy = writer.into_inner()?;
    let path = super::super::place::own_path(copy.as_fd());
    Ok(rustix::fs::open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn rewrite(from: &mut dyn BufRead, to: &mut dyn Write, shown: &dyn Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        match path_in(&line) {
            Some(path) => {
                to.write_all(&line[..path.start])?;
                to.write_all(&shown(&line[path.clone()]))?;
                to.write_all(&line[path.end..])?;
            }
            None => to.write_all(&line)?,
        }
        line.clear();
    }
    to.flush()
}

/// The path that a line has: behind the five fields of a mapping, or in one of numa_maps. What the kernel writes in octal
/// numbers (`fs/seq_file.c` mangle_path) stays so: only the beginning of a path is another.
fn path_in(line: &[u8]) -> Option<Range<usize>> {
    const FILE: &[u8] = b" file=";
    let end = line.len() - usize::from(line.ends_with(b"\n"));
    if let Some(at) = line.windows(FILE.len()).position(|part| part == FILE) {
        let start = at + FILE.len();
        let length = line[start..end].iter().position(|byte| *byte == b' ').unwrap_or(end - start);
        return Some(start..start + length);
    }
    let mut start = 0;
    for _ in 0..5 {
        start += line[start..end].iter().position(|byte| *byte == b' ')? + 1;
    }
    start += line[start..end].iter().position(|byte| *byte != b' ')?;
    (line[start] == b'/').then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_rootfs_are_the_steps_own() {
        let cases: [(&str, &str); 9] = [
            (
                "4fc2c000-4fc2d000 r--p 00000000 fe:00 103                    /host/root/bin/cat\n",
                "4fc2c000-4fc2d000 r--p 00000000 fe:00 103                    /bin/cat\n",
            ),
            (
                "1000-2000 r--p 00000000 fe:00 103 /host/root/a b (deleted)\n",
                "1000-2000 r--p 00000000 fe:00 103 /a b (deleted)\n",
            ),
            ("1000-2000 r--p 00000000 fe:00 103 /host/root/a\\012b", "1000-2000 r--p 00000000 fe:00 103 /a\\012b"),
            ("1000-2000 rw-p 00000000 00:00 0 [heap]\n", "1000-2000 rw-p 00000000 00:00 0 [heap]\n"),
            ("1000-2000 rw-p 00000000 00:00 0 \n", "1000-2000 rw-p 00000000 00:00 0 \n"),
            (
                "1000-2000 rw-p 00000000 00:00 0 [anon: /host/root/x]\n",
                "1000-2000 rw-p 00000000 00:00 0 [anon: /host/root/x]\n",
            ),
            ("VmFlags: rd mr mw me ac sd\n", "VmFlags: rd mr mw me ac sd\n"),
            ("1000 default file=/host/root/lib/x.so mapped=2\n", "1000 default file=/lib/x.so mapped=2\n"),
            ("\n", "\n"),
        ];
        let shown = |path: &[u8]| path.strip_prefix(b"/host/root").unwrap_or(path).to_vec();
        for (line, wanted) in cases {
            let mut all = Vec::new();
            rewrite(&mut line.as_bytes(), &mut all, &shown).expect("written");
            assert_eq!(String::from_utf8_lossy(&all), wanted);
        }
    }
}
