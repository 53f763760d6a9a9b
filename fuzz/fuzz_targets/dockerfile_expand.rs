//! Any text expands or fails, in bounded time, with values that may hold anything. The first line is the value, the rest the text.

#![no_main]

use dockerfile::expand;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (value, text) = input.split_once('\n').unwrap_or(("", input));
    let variables = |name: &str| (name.len() == 1).then(|| value.to_owned());
    for escape in ['\\', '`'] {
        let _ = expand::word(text, escape, &variables);
        let _ = expand::words(text, escape, &variables);
    }
    let _ = expand::heredoc(text, '\\', &variables);
    let _ = expand::for_display(text, '\\', &variables);
});
