//! Any `config.json` is refused or looked up in, for any name. Files that name a credential helper are left out: it would be a
//! program of this machine.

#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::Credentials;

fuzz_target!(|input: &str| {
    let (name, text) = input.split_once('\n').unwrap_or(("registry.example/app", input));
    if text.contains("cred") || text.contains("\\u") {
        return;
    }
    let mut credentials = Credentials::anonymous();
    if credentials.add_config(text, "input").is_ok() {
        let (registry, repository) = name.split_once('/').unwrap_or((name, ""));
        let first = credentials.look_up(registry, repository);
        assert_eq!(first.found, credentials.look_up(registry, repository).found);
    }
});
