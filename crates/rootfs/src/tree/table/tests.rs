//! One table and many that have it open: threads, processes, a full disk, a kill at any moment.
//!
//! Tables in other processes are this program again, running the test [`another_process`].

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

const CHILD: &str = "ROOTFS_TABLE_CHILD";

fn key(writer: u64, number: u64) -> Key {
    Key { inode: writer << 32 | number, born: (1, 2) }
}

fn open(path: &Path) -> Table {
    Table::open_shared(path, &Stop::default()).expect("a table")
}

fn own(table: &mut Table, key: Key, uid: u32) -> io::Result<()> {
    table.change(key, &Stop::default(), |entry| entry.own((uid, uid), (0, 0)))
}

fn owner(table: &Table, key: Key) -> Option<u32> {
    table.get(key)?.owner.map(|owner| owner.wanted.0)
}

/// What is missing of the first `count` of a writer.
fn missing(table: &Table, writer: u64, count: u64) -> u64 {
    (1..=count).filter(|number| owner(table, key(writer, *number)) != Some(*number as u32)).count() as u64
}

/// Another process that does `work` with the table: `write WRITER COUNT`, or `write WRITER COUNT LIMIT` with a limit of the
/// file's size; it prints a line for each entry that it has written.
fn process(path: &Path, work: &str) -> Child {
    let limit = work.split(' ').nth(3).map(|limit| limit.parse::<u64>().expect("a number"));
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", "tree::table::tests::another_process", "--nocapture"]);
    command.env(CHILD, format!("{}\n{work}", path.display())).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(limit) = limit {
        let set = move || {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: both are system calls with numbers and a structure that outlives them.
            unsafe {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
            }
            Ok(())
        };
        // SAFETY: only system calls are made between fork and exec.
        unsafe { command.pre_exec(set) };
    }
    command.spawn().expect("a process")
}

#[test]
fn another_process() {
    let Some(told) = std::env::var_os(CHILD) else { return };
    let told = told.into_string().expect("text");
    let (path, work) = told.split_once('\n').expect("a path and work");
    let words: Vec<&str> = work.split(' ').collect();
    let (writer, count) = (words[1].parse().expect("a number"), words[2].parse().expect("a number"));
    let mut table = open(Path::new(path));
    for number in 1..=count {
        match own(&mut table, key(writer, number), number as u32) {
            Ok(()) => println!("written {number}"),
            Err(error) => println!("failed {error}"),
        }
    }
}

/// How many entries a process says that it has written.
fn written(child: &mut Child) -> u64 {
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines.map_while(Result::ok).filter(|line| line.starts_with("written")).count() as u64
}

#[test]
fn nothing_is_lost_between_processes_and_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut children: Vec<Child> = (1..=3).map(|writer| process(&path, &format!("write {writer} 2000"))).collect();
    std::thread::scope(|scope| {
        for writer in 4..=6 {
            let path = &path;
            scope.spawn(move || {
                let mut table = open(path);
                for number in 1..=2000 {
                    own(&mut table, key(writer, number), number as u32).expect("a change");
                }
            });
        }
        // Who only looks opens it again and again.
        for _ in 0..200 {
            open(&path);
        }
    });
    for child in &mut children {
        assert_eq!(written(child), 2000);
        assert!(child.wait().expect("a status").success());
    }
    let table = open(&path);
    for writer in 1..=6 {
        assert_eq!(missing(&table, writer, 2000), 0, "of writer {writer}");
    }
}

#[test]
fn each_sees_what_others_write_and_adds_to_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let (mut one, mut other) = (open(&path), open(&path));
    own(&mut one, key(0, 1), 5).expect("a change");
    assert_eq!(owner(&other, key(0, 1)), None);
    other.refresh(&Stop::default()).expect("a look");
    assert_eq!(owner(&other, key(0, 1)), Some(5));
    // Each changes another thing of one file, and does not look before.
    let change = |table: &mut Table, name: &str| {
        table
            .change(key(0, 2), &Stop::default(), |entry| entry.pretend_xattr(OsStr::new(name), b"x"))
            .expect("a change");
    };
    change(&mut one, "security.a");
    change(&mut other, "security.b");
    one.refresh(&Stop::default()).expect("a look");
    assert_eq!(one.get(key(0, 2)).map(|entry| entry.xattrs().count()), Some(2));
}

#[test]
fn a_table_that_is_not_shared_loses_nothing_either() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut first = Table::open(&path).expect("a table");
    assert!(!path.exists());
    own(&mut first, key(0, 1), 0).expect("no change");
    assert!(!path.exists(), "a change that is none made a file");
    let mut second = Table::open(&path).expect("a table");
    for number in 1..100 {
        own(&mut first, key(1, number), number as u32).expect("a change");
        own(&mut second, key(2, number), number as u32).expect("a change");
    }
    let table = Table::open(&path).expect("a table");
    assert_eq!((missing(&table, 1, 99), missing(&table, 2, 99)), (0, 0));
}

/// Each length at which a record can be cut off, by a limit of the file's size, which fails as a full disk does: what can be
/// written is written, and then there is an error.
#[test]
fn what_a_full_disk_leaves_is_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    own(&mut open(&path), key(9, 1), 1).expect("a change");
    let whole = std::fs::metadata(&path).expect("a file").len();
    let record = whole - MAGIC.len() as u64;
    for limit in 0..=record {
        let mut table = open(&path);
        let before = std::fs::metadata(&path).expect("a file").len();
        let mut child = process(&path, &format!("write 7 1 {}", before + limit));
        assert_eq!(written(&mut child), u64::from(limit == record));
        assert!(child.wait().expect("a status").success());
        own(&mut table, key(8, limit + 1), limit as u32 + 1).expect("a change");
    }
    let table = open(&path);
    assert_eq!((missing(&table, 9, 1), missing(&table, 8, record + 1), missing(&table, 7, 1)), (0, 0, 0));
}

#[test]
fn what_a_killed_process_leaves_is_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut holder = open(&path);
    own(&mut holder, key(1, 1), 1).expect("a change");
    let whole = std::fs::metadata(&path).expect("a file").len();
    let record = encode(key(2, 1), holder.get(key(1, 1)).expect("an entry"));
    for length in 1..record.len() {
        let file = OpenOptions::new().append(true).open(&path).expect("a file");
        (&file).write_all(&record[..length]).expect("a part of a record");
        let number = length as u64 + 1;
        // Both who has it open and who opens it now go on behind the last whole record.
        let mut fresh = if length % 2 == 0 { Some(open(&path)) } else { None };
        own(fresh.as_mut().unwrap_or(&mut holder), key(1, number), number as u32).expect("a change");
    }
    let table = open(&path);
    assert_eq!(missing(&table, 1, record.len() as u64), 0);
    assert_eq!(
        std::fs::metadata(&path).expect("a file").len(),
        whole + (record.len() as u64 - 1) * record.len() as u64
    );
    holder.refresh(&Stop::default()).expect("a look");
    assert_eq!(missing(&holder, 1, record.len() as u64), 0);
}

#[test]
fn a_kill_in_the_middle_loses_nothing_of_what_was_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut steady = open(&path);
    let (mut number, mut promised) = (0, Vec::new());
    for writer in 10..40 {
        let mut child = process(&path, &format!("write {writer} 100000"));
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // Some entries, then the rest of its life in parallel with ours.
        let mut count =
            lines.by_ref().map_while(Result::ok).take_while(|line| !line.starts_with("written 20")).count() as u64;
        let until = Instant::now() + Duration::from_millis(writer);
        while Instant::now() < until {
            number += 1;
            own(&mut steady, key(1, number), number as u32).expect("a change");
        }
        child.kill().expect("a kill");
        assert_eq!(child.wait().expect("a status").signal(), Some(libc::SIGKILL));
        count = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("written ")?.parse().ok())
            .max()
            .unwrap_or(count.min(20));
        promised.push((writer, count));
    }
    let table = open(&path);
    assert_eq!(missing(&table, 1, number), 0);
    for (writer, count) in promised {
        assert_eq!(missing(&table, writer, count), 0, "of writer {writer}");
    }
}

/// A table of many void records is written anew when it is opened, and who has it open goes on with the new one.
#[test]
fn a_table_is_written_anew_under_those_who_have_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut holder = open(&path);
    std::thread::scope(|scope| {
        let path = &path;
        let writer = scope.spawn(move || {
            let mut table = open(path);
            for number in 1..=20_000 {
                own(&mut table, key(2, 0), number).expect("a change");
                own(&mut table, key(2, u64::from(number % 100) + 1), number % 100 + 1).expect("a change");
            }
        });
        while !writer.is_finished() {
            open(path);
        }
    });
    let fresh = open(&path);
    assert!(std::fs::metadata(&path).expect("a file").len() < 2 * FEW_RECORDS * 64, "it was not written anew");
    assert_eq!((owner(&fresh, key(2, 0)), missing(&fresh, 2, 100)), (Some(20_000), 0));
    own(&mut holder, key(3, 1), 1).expect("a change");
    let again = open(&path);
    assert_eq!((owner(&again, key(3, 1)), missing(&holder, 2, 100)), (Some(1), 0));
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1, "something is left beside it");
}

/// What a process killed in the middle of it leaves beside the table is no hindrance.
#[test]
fn writing_anew_begins_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut table = open(&path);
    for number in 0..=FEW_RECORDS as u32 {
        own(&mut table, key(1, 0), number + 1).expect("a change");
    }
    std::fs::write(directory.path().join("table.new"), "half of").expect("a file");
    assert_eq!(owner(&open(&path), key(1, 0)), Some(FEW_RECORDS as u32 + 1));
    assert!(std::fs::metadata(&path).expect("a file").len() < 200);
    // Nor is one that can not be made, as on a full disk.
    for number in 0..=FEW_RECORDS as u32 {
        own(&mut table, key(1, 0), number + 1).expect("a change");
    }
    std::fs::create_dir(directory.path().join("table.new")).expect("a directory");
    assert_eq!(owner(&open(&path), key(1, 0)), Some(FEW_RECORDS as u32 + 1));
}

/// One who was stopped with the lock does not hold others up for longer than these want.
#[test]
fn waiting_for_others_ends_with_the_build() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    let mut table = open(&path);
    let held = open(&path).lock(&Stop::default()).expect("a lock");
    let flag = Arc::new(AtomicBool::new(false));
    let stop = Stop::when(&[&flag]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| table.change(key(1, 1), &stop, |entry| entry.own((1, 1), (0, 0))));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        flag.store(true, Ordering::Relaxed);
        assert!(crate::stop::is_stop(&waiting.join().expect("a thread").expect_err("the lock was held")));
    });
    drop(held);
}

#[test]
fn what_is_no_table_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("table");
    std::fs::write(&path, "zuwai-metadata9\nand more").expect("a file");
    assert!(Table::open(&path).is_err());
    assert!(Table::open_shared(&path, &Stop::default()).is_err());
    assert_eq!(std::fs::read(&path).expect("a file"), b"zuwai-metadata9\nand more");
}
