//! Measures recording, committing, copying and unpacking a tree: `measure DIRECTORY SCRATCH`, with SCRATCH an empty directory
//! on the same file system. Prints seconds and the peak of resident memory.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use zuwai_rootfs::Tree;
use zuwai_rootfs::commit::{CommitOptions, clone_tree, commit, snapshot};
use zuwai_rootfs::unpack::{Limits, unpack};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory, scratch] = arguments.as_slice() else { return Err("measure DIRECTORY SCRATCH".into()) };
    let scratch = Path::new(scratch);
    let tree = Tree::open(Path::new(directory), None)?;
    let options = CommitOptions::default();
    let before = timed("snapshot", || snapshot(&tree, &scratch.join("record")))?;
    let (_, unchanged) = timed("commit, nothing changed", || {
        commit(&tree, Some(&before), &scratch.join("unchanged"), &options, &mut std::io::sink())
    })?;
    let layer = scratch.join("layer.tar");
    let (_, all) = timed("commit, everything", || {
        let mut file = std::fs::File::create(&layer).expect("the scratch directory is writable");
        commit(&tree, None, &scratch.join("all"), &options, &mut file)
    })?;
    let unpacked = Tree::create(&scratch.join("unpacked"), Some(&scratch.join("table")))?;
    timed("unpack", || {
        let mut file = std::fs::File::open(&layer).expect("the layer was just written");
        unpack(&mut file, &unpacked, &Limits::NONE)
    })?;
    let remembering = Tree::create(&scratch.join("remembering"), Some(&scratch.join("remembering-table")))?;
    let remembering = remembering.remember_contents(&scratch.join("contents"))?;
    timed("unpack, contents remembered", || {
        let mut file = std::fs::File::open(&layer).expect("the layer was just written");
        unpack(&mut file, &remembering, &Limits::NONE)
    })?;
    let before = timed("snapshot, contents remembered", || snapshot(&remembering, &scratch.join("remembered")))?;
    for name in remembering.read_dir(Path::new(""))? {
        std::process::Command::new("chown")
            .args(["-R", "--reference"])
            .arg(directory)
            .arg(remembering.path().join(name))
            .status()?;
    }
    let (_, touched) = timed("commit, everything touched", || {
        commit(&remembering, Some(&before), &scratch.join("touched"), &options, &mut std::io::sink())
    })?;
    writeln!(std::io::stdout(), "entries {} of those touched", touched.entries)?;
    let copy = Tree::create(&scratch.join("copy"), Some(&scratch.join("copy-table")))?;
    timed("clone_tree", || clone_tree(&tree, &copy))?;
    timed("remove", || copy.read_dir(Path::new(""))?.iter().try_for_each(|name| copy.remove(Path::new(name))))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    writeln!(
        std::io::stdout(),
        "entries {} (unchanged {}), layer {} bytes, {peak}",
        all.entries,
        unchanged.entries,
        all.size_bytes
    )?;
    Ok(())
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let _ = writeln!(std::io::stdout(), "{what}: {:.3} s", start.elapsed().as_secs_f64());
    result
}
