//! Any beginning of a program is laid out by the rules or refused; the first two bytes say how large the file is, in pages.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((pages, start)) = input.split_first_chunk() {
        let _ = sandbox::rehearse(start, u64::from(u16::from_le_bytes(*pages)) << 12);
    }
});
