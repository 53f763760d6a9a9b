//! Memory does not grow with the tree: 100,000 files and one of 2 GiB within one fixed budget.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use zuwai_rootfs::Tree;
use zuwai_rootfs::commit::{CommitOptions, clone_tree, commit, snapshot};

const CHILD: &str = "ROOTFS_TEST_MEMORY";
/// The promise is 64 MiB for a whole build; a tree may have half of it.
const BUDGET_KIB: u64 = 32 * 1024;
const FILES: usize = 100_000;

#[test]
fn memory_does_not_grow_with_the_tree() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return work(Path::new(&directory));
    }
    // In memory where there is room: a slow disk takes minutes for as many files.
    let shared = Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(shared).is_ok_and(|stat| stat.f_bavail * stat.f_frsize > 1 << 30);
    let outer = if has_room { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() };
    let root = outer.path().join("root");
    for directory in 0..20 {
        let directory = root.join(directory.to_string());
        fs::create_dir_all(&directory).unwrap();
        for file in 0..FILES / 20 {
            File::create(directory.join(format!("a-file-with-an-ordinary-name-{file}"))).unwrap();
        }
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory_does_not_grow_with_the_tree"])
        .env(CHILD, outer.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Each is read, and looked up in the table of contents.
fn touched_files_need_no_memory(directory: &Path) {
    let tree = Tree::open(&directory.join("root"), None).unwrap();
    let tree = tree.remember_contents(&directory.join("contents")).unwrap();
    let before = snapshot(&tree, &directory.join("read")).unwrap();
    for name in (0..20).flat_map(|number| fs::read_dir(directory.join(format!("root/{number}"))).unwrap()) {
        let path = name.unwrap().path();
        fs::set_permissions(&path, fs::metadata(&path).unwrap().permissions()).unwrap();
    }
    let options = CommitOptions::default();
    let (_, touched) =
        commit(&tree, Some(&before), &directory.join("touched"), &options, &mut std::io::sink()).unwrap();
    assert_eq!(touched.entries, 0);
}

fn work(directory: &Path) {
    touched_files_need_no_memory(directory);
    File::create(directory.join("root/sparse")).unwrap().set_len(2 << 30).unwrap();
    let tree = Tree::open(&directory.join("root"), None).unwrap();
    let before = snapshot(&tree, &directory.join("before")).unwrap();
    let options = CommitOptions::default();
    let (_, unchanged) =
        commit(&tree, Some(&before), &directory.join("unchanged"), &options, &mut std::io::sink()).unwrap();
    assert_eq!(unchanged.entries, 0);
    let (_, all) = commit(&tree, None, &directory.join("all"), &options, &mut std::io::sink()).unwrap();
    assert_eq!(all.entries as usize, FILES + 21);
    let copy = Tree::create(&directory.join("copy"), Some(&directory.join("table"))).unwrap();
    clone_tree(&tree, &copy).unwrap();
    assert_eq!(copy.stat(Path::new("sparse")).unwrap().unwrap().size_bytes, 2 << 30);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < BUDGET_KIB, "{peak} KiB resident");
}
