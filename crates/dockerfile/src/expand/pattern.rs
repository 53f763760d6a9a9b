//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and literals, without bracket expressions.
//!
//! As in BuildKit's translation to a regular expression, neither `*` nor `?` matches a line feed.

/// How much matching one expansion may do, in (position, token) pairs: about a tenth of a second.
const MAX_STEPS: u64 = 20_000_000;

/// Matching work done so far.
#[derive(Default)]
pub(super) struct Steps(u64);

impl Steps {
    fn add(&mut self, steps: usize) -> Result<(), String> {
        self.0 += steps as u64;
        if self.0 > MAX_STEPS { Err("the pattern takes too long on this value".to_owned()) } else { Ok(()) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    AnyChar,
    AnyText,
}

/// `value` without the shortest prefix that matches, or the longest one when the pattern has a further `#` in front.
pub(super) fn trim_prefix(pattern: &str, value: String, steps: &mut Steps) -> Result<String, String> {
    let (pattern, greedy) = greediness(pattern, '#');
    let tokens = tokens(pattern)?;
    let chars: Vec<char> = value.chars().collect();
    Ok(match match_end(&tokens, &chars, greedy, steps)? {
        Some(end) => chars[end..].iter().collect(),
        None => value,
    })
}

/// `value` without the shortest suffix that matches, or the longest one when the pattern has a further `%` in front.
pub(super) fn trim_suffix(pattern: &str, value: String, steps: &mut Steps) -> Result<String, String> {
    let (pattern, greedy) = greediness(pattern, '%');
    let mut tokens = tokens(pattern)?;
    tokens.reverse();
    let reversed: Vec<char> = value.chars().rev().collect();
    Ok(match match_end(&tokens, &reversed, greedy, steps)? {
        Some(end) => reversed[end..].iter().rev().collect(),
        None => value,
    })
}

/// `value` with the first match, or all matches, replaced. Matches are leftmost, then longest; an empty match right after
/// another match does not count, as in Go's `regexp.ReplaceAllString`.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
    steps: &mut Steps,
    max_bytes: usize,
) -> Result<String, String> {
    let tokens = tokens(pattern)?;
    let chars: Vec<char> = value.chars().collect();
    let mut result = String::new();
    let (mut from, mut copied) = (0, 0);
    while from <= chars.len() {
        let Some((start, end)) = find(&tokens, &chars, from, steps)? else { break };
        result.extend(&chars[copied..start]);
        if end > copied || start == 0 {
            result.push_str(replacement);
        }
        if result.len() > max_bytes {
            return Err(format!("the result is longer than {} MiB", max_bytes >> 20));
        }
        copied = end;
        from = end.max(from + 1);
        if !all {
            break;
        }
    }
    result.extend(&chars[copied..]);
    Ok(result)
}

fn greediness(pattern: &str, doubled: char) -> (&str, bool) {
    match pattern.strip_prefix(doubled) {
        Some(rest) => (rest, true),
        None => (pattern, false),
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::AnyText,
            '?' => Token::AnyChar,
            '\\' => match chars.next() {
                // `}` and `/` are escaped for the sake of `${}`; the others are pattern characters.
                Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Token::Literal(c),
                other => {
                    let escape: String = ['\\'].into_iter().chain(other).collect();
                    return Err(format!("invalid pattern (`{pattern}`) in substitution: invalid escape `{escape}`"));
                }
            },
            c => Token::Literal(c),
        });
    }
    Ok(tokens)
}

fn find(tokens: &[Token], chars: &[char], from: usize, steps: &mut Steps) -> Result<Option<(usize, usize)>, String> {
    for start in from..=chars.len() {
        if let Some(length) = match_end(tokens, &chars[start..], true, steps)? {
            return Ok(Some((start, start + length)));
        }
    }
    Ok(None)
}

/// How many characters at the start of `chars` match: the most when `longest`, else the fewest.
fn match_end(tokens: &[Token], chars: &[char], longest: bool, steps: &mut Steps) -> Result<Option<usize>, String> {
    let mut active = vec![false; tokens.len() + 1];
    let mut next = active.clone();
    enter(tokens, &mut active, 0);
    let mut best = None;
    for position in 0..=chars.len() {
        if active[tokens.len()] {
            best = Some(position);
            if !longest {
                break;
            }
        }
        let Some(c) = chars.get(position) else { break };
        steps.add(active.len())?;
        next.fill(false);
        for (state, token) in tokens.iter().enumerate().filter(|(state, _)| active[*state]) {
            match token {
                Token::Literal(literal) if literal == c => enter(tokens, &mut next, state + 1),
                Token::AnyChar if *c != '\n' => enter(tokens, &mut next, state + 1),
                Token::AnyText if *c != '\n' => enter(tokens, &mut next, state),
                _ => {}
            }
        }
        if !next.contains(&true) {
            break;
        }
        std::mem::swap(&mut active, &mut next);
    }
    Ok(best)
}

/// Marks a state, and those behind it that need no character.
fn enter(tokens: &[Token], active: &mut [bool], mut state: usize) {
    active[state] = true;
    while tokens.get(state) == Some(&Token::AnyText) {
        state += 1;
        active[state] = true;
    }
}
