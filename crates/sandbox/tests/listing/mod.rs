//! What a test program with a `main` of its own owes whoever runs tests: the list of its tests, which is one.

#![expect(clippy::print_stdout, reason = "the list goes there")]

/// Prints the list when it is asked for (`--list`, which nextest does before it runs anything); true when that was all.
pub fn listed(name: &str) -> bool {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| asked.iter().any(|asked| asked == word);
    if has("--list") && !has("--ignored") {
        println!("{name}: test");
    }
    has("--list")
}
