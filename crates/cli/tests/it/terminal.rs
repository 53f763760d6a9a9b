//! The program on a terminal of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Place, ZUWAI};

/// No test here takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// `zuwai` with a pseudo-terminal as standard input and error.
pub struct OnTerminal {
    child: std::process::Child,
    keys: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    pub fn start(place: &Place, args: &[&str]) -> OnTerminal {
        let (ours, theirs) = pair();
        let child = Command::new(ZUWAI)
            .args(args)
            .current_dir(place.path("."))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", place.path("."))
            .env("TERM", "xterm")
            .env("ZUWAI_DIR", place.path("work"))
            .stdin(theirs.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let keys = File::from(ours);
        let (mut reader, seen) = (keys.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end is an error on a terminal.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        OnTerminal { child, keys, screen }
    }

    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits until `text` is on the screen.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let begun = Instant::now();
        while !self.screen().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "`{text}` does not come:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    pub fn end(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > PATIENCE => {
                    let _ = self.child.kill();
                    panic!("it does not end:\n{}", self.screen());
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        std::thread::sleep(Duration::from_millis(100));
        (status, self.screen())
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: both integers are valid to be written; the other arguments may be null.
    let made = unsafe {
        libc::openpty(&raw mut ours, &raw mut theirs, std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut())
    };
    assert_eq!(made, 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: both are open and nobody else's.
    unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}
