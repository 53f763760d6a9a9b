//! The contract suite with what `auto` finds on this machine. In the environments of `cages/` the example of the same name
//! does it.

#![expect(clippy::print_stderr, reason = "a test of its own: nobody else says what went wrong")]

mod listing;

use std::path::Path;
use std::process::ExitCode;

use zuwai_sandbox::SandboxError;
use zuwai_sandbox::contract::{Abilities, SHORT_RACE, Settings, attack, check_all};
use zuwai_sandbox::probe;

fn main() -> ExitCode {
    probe::dispatch_child();
    attack::dispatch();
    if listing::listed("contract") {
        return ExitCode::SUCCESS;
    }
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        eprintln!("SKIPPED: no `/bin/busybox` (Debian: busybox-static)");
        return ExitCode::SUCCESS;
    }
    let work = tempfile::tempdir().expect("a directory for the test");
    // `inplace` would take over this machine's `/`.
    let sandbox = match probe::enter("namespace", work.path()) {
        Ok(sandbox) => sandbox,
        Err(SandboxError::NoBackend { reasons }) => {
            eprintln!("SKIPPED: {reasons}");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    let mut wrong = 0;
    let abilities = Abilities::of(sandbox.name());
    let settings = Settings { abilities, busybox, work: work.path(), part: "", race: SHORT_RACE };
    check_all(&*sandbox, &settings, &mut |name, outcome| {
        if let Err(reason) = outcome {
            eprintln!("{name}: {reason}");
            wrong += 1;
        }
    });
    eprintln!("contract of `{}`: {wrong} checks failed", sandbox.name());
    ExitCode::from(u8::from(wrong > 0))
}
