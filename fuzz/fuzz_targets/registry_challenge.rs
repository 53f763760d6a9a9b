//! Any `WWW-Authenticate` gives challenges or none; a token server is an address that is not empty.

#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::Challenge;

fuzz_target!(|value: &str| {
    for challenge in Challenge::parse(value) {
        if let Challenge::Bearer { realm, .. } = challenge {
            assert!(!realm.is_empty());
        }
    }
});
