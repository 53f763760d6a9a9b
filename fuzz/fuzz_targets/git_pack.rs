//! Any bytes are a pack that is indexed, deltas included, or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| context::git::read_any_pack(bytes, &std::env::temp_dir()));
