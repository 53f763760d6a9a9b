//! The nearest known word for one that is unknown.

/// BuildKit (and HCL before it) suggests what is at most two edits away.
const MAX_DISTANCE: usize = 2;

/// Longer words are no typing errors.
const MAX_LENGTH: usize = 40;

/// More known words than this are not looked at: a suggestion is a courtesy, not worth quadratic work.
const MAX_KNOWN: usize = 1000;

/// The known word nearest to `word`, case aside; none when `word` is known or nothing is near.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > MAX_LENGTH {
        return None;
    }
    let word = word.to_lowercase();
    let mut best = None;
    for candidate in known.into_iter().take(MAX_KNOWN) {
        let distance = distance(&word, &candidate.to_lowercase());
        if distance == 0 {
            return None;
        }
        if best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    // A word of which nothing is left is not near to anything.
    let most = MAX_DISTANCE.min(word.chars().count().saturating_sub(1));
    best.filter(|(distance, _)| *distance <= most).map(|(_, candidate)| candidate)
}

/// "did you mean X?", for [`crate::Diagnostic::hint`].
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(word, known).map(|known| format!("did you mean {known}?"))
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
