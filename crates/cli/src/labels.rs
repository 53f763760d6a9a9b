//! `NAME=VALUE` words.

use crate::report::Failure;

/// Splits `NAME=VALUE` given to `flag`.
pub fn pair<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(Failure::usage(format!("`{flag} {text}`: expected NAME=VALUE"))),
    }
}

/// Splits `key=value,key=value`; a word without `=` has an empty value. Values may be quoted to hold commas, as in CSV.
pub fn fields(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("it begins with one word and never loses one").push(c),
        }
    }
    let split = |word: String| match word.split_once('=') {
        Some((key, value)) => (key.trim().to_owned(), value.to_owned()),
        None => (word.trim().to_owned(), String::new()),
    };
    words.into_iter().filter(|w| !w.is_empty()).map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_words() {
        let got = fields("type=oci,\"dest=a,b\",x");
        let want = [("type", "oci"), ("dest", "a,b"), ("x", "")];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
