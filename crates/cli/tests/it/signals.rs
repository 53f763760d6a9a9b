//! Signals that come before there is anything to do, and those that somebody does not want.

use std::time::{Duration, Instant};

use crate::harness::{Place, ZUWAI};

const HUP: i32 = 1;
const TERM: i32 = 15;

/// Reading standard input, which says nothing and does not end.
#[test]
fn standard_input_that_does_not_come() {
    for args in [&["build", "--no-push", "-"][..], &["build", "--no-push", "-f", "-", "context"]] {
        let place = Place::new("FROM scratch\n");
        let mut running = place.start(ZUWAI, args);
        place.wait_for("work/runs.lock");
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        running.signal(TERM);
        running.wait();
        assert!(begun.elapsed() < Duration::from_secs(10), "{args:?}: {:?}", begun.elapsed());
        assert_eq!(running.finish(b"").failed(130, &["interrupted"]).code(), 130);
        place.assert_clean();
    }
}

/// `nohup zuwai build …`
#[test]
fn a_signal_that_is_ignored_from_the_start() {
    let place = Place::new("");
    let running = place.start("sh", &["-c", &format!("trap '' HUP; exec {ZUWAI} build --no-push -")]);
    place.wait_for("work/runs.lock");
    std::thread::sleep(Duration::from_millis(300));
    running.signal(HUP);
    running.finish(b"FROM scratch\nLABEL a=b\n").digest();
}

/// A shell's `<(…)`: what it names is a descriptor of the program's own.
#[test]
fn a_dockerfile_and_contexts_from_pipes() {
    let place = Place::new("FROM scratch\nCOPY --from=named a /\n").file("context/a", "text");
    let script = "exec \"$0\" build --no-push -f <(cat context/Dockerfile) --context tar://<(tar c context) \
                  --build-context named=tar://<(tar c -C context a)";
    if !crate::harness::missing("bash") {
        place.start("bash", &["-c", script, ZUWAI]).finish(b"").digest();
    }
    for file in ["-", "/dev/stdin", "/dev/fd/0"] {
        place.build_with_input(&["--no-push", "-f", file, "context"], b"FROM scratch\nCOPY a /\n").digest();
    }
}

/// How long files of the builder's own may keep it after a signal, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(5);

/// Dockerfile, context and what is there before the signal comes: copying, unpacking, looking for changes, compressing.
#[test]
fn while_there_is_work_on_files() {
    let copy = "FROM scratch\nCOPY . /x\n";
    let table: [(&str, &str, &str); 8] = [
        ("many files", copy, "many"),
        ("many files for --link", "FROM scratch\nCOPY --link . /x\n", "many"),
        ("many files by a wildcard", "FROM scratch\nCOPY */* /x/\n", "many"),
        ("one large file", copy, "large"),
        ("a layer", copy, "holes"),
        ("an archive", "FROM scratch\nADD archive /x\n", "archive"),
        ("a context", copy, "tar://archive/archive"),
        ("a base", "FROM base\nCOPY . /x\n", "many"),
    ];
    for (what, dockerfile, context) in table {
        let place = Place::new(dockerfile);
        fill(&place, context);
        let mut args = vec!["build", "--no-push", "-f", "context/Dockerfile"];
        if what == "a base" {
            std::fs::create_dir(place.path("base")).unwrap();
            hollow(&place, "base/huge");
            args.extend(["--build-context", "base=base"]);
        }
        args.push(context);
        let mut running = place.start(ZUWAI, &args);
        place.wait_for("work/runs.lock");
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        running.signal(TERM);
        running.wait();
        assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
        running.finish(b"").failed(130, &["interrupted"]);
        place.assert_clean();
    }
}

/// A file without an end, as far as these tests go.
fn hollow(place: &Place, name: &str) {
    std::fs::File::create(place.path(name)).unwrap().set_len(1 << 40).unwrap();
}

/// Makes what takes long: thousands of files, a file that is all data, one that is all holes, a compressed tar of zeros.
fn fill(place: &Place, context: &str) {
    let directory = context.strip_prefix("tar://archive/").unwrap_or(context);
    std::fs::create_dir(place.path(directory)).unwrap();
    match directory {
        "many" => {
            for outer in 0..100 {
                std::fs::create_dir(place.path(&format!("many/{outer}"))).unwrap();
                (0..100).for_each(|inner| std::fs::write(place.path(&format!("many/{outer}/{inner}")), "x").unwrap());
            }
            hollow(place, "many/99/huge");
        }
        "large" => {
            let file = std::fs::File::create(place.path("large/file")).unwrap();
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1 << 30).unwrap();
            hollow(place, "large/huge");
        }
        "holes" => hollow(place, "holes/file"),
        _ => {
            let file = std::fs::File::create(place.path("archive/archive")).unwrap();
            let script = "head -c 64M /dev/zero | gzip -1 > piece
                          truncate -s 8G zeros; tar c zeros | head -c 512 | gzip -1; i=0
                          while [ $i -lt 64 ]; do cat piece; i=$((i + 1)); done";
            let mut made = std::process::Command::new("sh");
            made.args(["-ec", script]).current_dir(place.path("archive")).stdout(file);
            assert!(made.status().unwrap().success());
            for name in ["piece", "zeros"] {
                std::fs::remove_file(place.path("archive").join(name)).unwrap();
            }
        }
    }
}
