//! Ctrl-C.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Place, ZUWAI, cannot_run, registry, with_busybox};

/// How long the program may take to end after a signal, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Whether a process has `word` in its command line.
fn process_with(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    lines.any(|line| line.split(|b| *b == 0).any(|argument| argument == word.as_bytes()))
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_run_is_ended_with_all_its_processes() {
    if cannot_run() {
        return;
    }
    let Some(registry) = registry() else { return };
    let tag = format!("{}/app:1", registry.host());
    let insecure = format!("--insecure-registry={}", registry.host());
    // In the background, ignoring what can be ignored, in a session of its own.
    for (signal, seconds) in [(2, 98_761 + std::process::id()), (15, 198_761 + std::process::id())] {
        let word = seconds.to_string();
        let place = with_busybox(&format!(
            "RUN trap '' INT TERM HUP; setsid sleep {word} & nohup sleep {word} >/dev/null & sleep {word}\n"
        ));
        let running =
            place.start(ZUWAI, &["build", &insecure, "-t", &tag, "--push", "--oci-layout-path=out", "context"]);
        wait_for("the RUN", || process_with(&word));
        let begun = Instant::now();
        running.signal(signal);
        let ran = running.finish(b"");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!((ran.code(), ran.stdout()), (130, ""), "{}", ran.stderr);
        wait_for("the end of every process", || !process_with(&word));
        assert_eq!(registry.count("PUT", "/manifests/"), 0);
        assert!(!place.path("out/index.json").exists());
        place.assert_clean();
    }
}

#[test]
fn under_kanikos_name() {
    if cannot_run() {
        return;
    }
    let word = (298_761 + std::process::id()).to_string();
    let place = with_busybox(&format!("RUN sleep {word}\n"));
    place.executor(&["version"]);
    let running = place.start(&place.text("executor"), &["--context=dir://context", "--no-push"]);
    wait_for("the RUN", || process_with(&word));
    running.signal(2);
    let ran = running.finish(b"");
    assert_eq!(ran.code(), 130, "{}", ran.stderr);
}

/// Accepts connections and never says a word.
struct Silent {
    host: String,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Silent {
    fn start() -> Silent {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = connections.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| kept.lock().unwrap().push(stream)));
        Silent { host, connections }
    }

    fn was_asked(&self) -> bool {
        !self.connections.lock().unwrap().is_empty()
    }
}

/// Dockerfile and flags: while a base is asked for, while the right to push is, while the image is pushed.
#[test]
fn a_silent_registry() {
    let table: [(&str, &[&str]); 3] = [
        ("FROM HOST/base:1\n", &["--no-push"]),
        ("FROM scratch\n", &["--push"]),
        ("FROM scratch\nCOPY Dockerfile /\n", &["--push", "--skip-push-permission-check"]),
    ];
    for (dockerfile, flags) in table {
        let registry = Silent::start();
        let place = Place::new(&dockerfile.replace("HOST", &registry.host));
        let (insecure, tag) = (format!("--insecure-registry={}", registry.host), format!("{}/app:1", registry.host));
        let running = place.start(ZUWAI, &[&["build", &insecure, "-t", &tag, "context"], flags].concat());
        wait_for("a request", || registry.was_asked());
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        running.signal(2);
        let ran = running.finish(b"");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!((ran.code(), ran.stdout()), (130, ""), "{flags:?}: {}", ran.stderr);
        place.assert_clean();
    }
}

/// What a killed run left is removed by the next one.
#[test]
fn after_a_kill_the_next_run_cleans_up() {
    if cannot_run() {
        return;
    }
    let word = (398_761 + std::process::id()).to_string();
    let place = with_busybox(&format!("RUN sleep {word}\n"));
    let running = place.start(ZUWAI, &["build", "--no-push", "context"]);
    wait_for("the RUN", || process_with(&word));
    running.signal(9);
    assert_eq!(running.finish(b"").code(), -9);
    wait_for("the end of every process", || !process_with(&word));
    let place = place.file("context/Dockerfile", "FROM scratch\nENV A=1\n");
    place.build(&["--no-push"]).digest();
    place.assert_clean();
}
