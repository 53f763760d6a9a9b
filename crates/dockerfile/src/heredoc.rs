//! Where here-documents begin (`<<EOF`, `<<-"EOF"`, `3<<EOF`) and what their delimiters say.

use crate::expand;

/// A here-document announced on an instruction's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Marker {
    /// The delimiter without its quotes.
    pub name: String,
    /// `<<-`
    pub chomp: bool,
    /// Nothing of the delimiter was quoted.
    pub expand: bool,
}

/// The here-documents of a joined line, in order. As in BuildKit a line with an open quote has none.
pub(crate) fn markers(line: &str) -> Vec<Marker> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let words = expand::raw_words(line, true, true).unwrap_or_default();
    words.iter().filter_map(|word| marker(word)).collect()
}

/// Whether `word` as a whole announces a here-document: digits, `<<`, perhaps `-`, and one word.
pub(crate) fn marker(word: &str) -> Option<Marker> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let delimiter = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    let [name] = <[String; 1]>::try_from(expand::raw_words(delimiter, false, false).ok()?).ok()?;
    let [raw] = <[String; 1]>::try_from(expand::raw_words(delimiter, true, false).ok()?).ok()?;
    // Quotes that vanish are quotes that were in effect.
    let expand = quotes(&name) == quotes(&raw);
    Some(Marker { name, chomp, expand })
}

fn quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

/// The body without the tabs at the start of its lines.
pub(crate) fn chomped(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
