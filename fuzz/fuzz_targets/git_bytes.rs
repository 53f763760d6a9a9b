//! Whatever a git server sends, and however a repository is spelt, is read or refused: packets, trees, commits, `.gitmodules`,
//! headers of objects, addresses.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| context::git::parse_anything(bytes));
