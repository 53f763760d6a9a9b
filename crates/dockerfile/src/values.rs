//! Values in Go's notations: durations, sizes, booleans, unsigned numbers.

/// Nanoseconds of a duration such as `1h30m`, `-1.5s` or `0` (Go `time.ParseDuration`).
pub(crate) fn duration_ns(text: &str) -> Result<i64, &'static str> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err("there is no number");
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (part, after) = duration_part(rest)?;
        total = total.checked_add(part).filter(|total| *total <= 1 << 63).ok_or("it is too large")?;
        rest = after;
    }
    match negative {
        true => Ok(0i64.wrapping_sub_unsigned(total)),
        false => i64::try_from(total).map_err(|_| "it is too large"),
    }
}

/// One number with its unit.
fn duration_part(text: &str) -> Result<(u64, &str), &'static str> {
    let (whole, after_whole) = digits(text);
    let (fraction, after) = match after_whole.strip_prefix('.') {
        Some(after_dot) => digits(after_dot),
        None => ("", after_whole),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err("there is no number");
    }
    let unit_length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let unit = unit_ns(&after[..unit_length])?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| "it is too large")? };
    let ns = whole.checked_mul(unit).filter(|ns| *ns <= 1 << 63).ok_or("it is too large")?;
    let fraction: f64 = format!("0.{fraction}0").parse().unwrap_or(0.0);
    Ok((ns + (fraction * unit as f64) as u64, &after[unit_length..]))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_ns(unit: &str) -> Result<u64, &'static str> {
    Ok(match unit {
        "" => return Err("the unit is missing (`s`, `m`, `h`, …)"),
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err("the unit is unknown (`s`, `m`, `h`, …)"),
    })
}

/// Bytes of a size such as `64m`, `1.5 GiB` or `512`; none for what is no size (`RAMInBytes` of docker/go-units: powers of
/// 1024, any case).
pub fn size_bytes(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, unit) = match text.as_bytes()[end] {
        b' ' => (&text[..end], &text[end + 1..]),
        _ => text.split_at(end + 1),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let suffix = &unit[usize::from(power > 0)..];
    let allowed: &[&str] = if power > 0 { &["", "b", "ib"] } else { &["", "b"] };
    let bytes = number * 1024f64.powi(power);
    (allowed.contains(&suffix) && bytes < i64::MAX as f64).then_some(bytes as u64)
}

/// Go `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Digits in `radix`, without sign.
pub(crate) fn unsigned(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') { None } else { u32::from_str_radix(text, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("+5s", Some(5_000_000_000)),
            ("1h1m1s1ms1us1ns", Some(3_661_001_001_001)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("0.000000001s", Some(1)),
            ("3µs", Some(3_000)),
            ("-1m30s", Some(-90_000_000_000)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("99999999999999999999s", None),
            ("9999999999h", None),
            ("5", None),
            ("", None),
            ("-", None),
            (".s", None),
            ("s", None),
            ("1d", None),
            ("1 s", None),
            ("1s5", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ns(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("32", Some(32)),
            ("32b", Some(32)),
            ("32B", Some(32)),
            ("32k", Some(32 << 10)),
            ("32KB", Some(32 << 10)),
            ("32 kib", Some(32 << 10)),
            ("1.5Mb", Some(3 << 19)),
            ("2g", Some(2 << 30)),
            ("1T", Some(1 << 40)),
            ("1p", Some(1 << 50)),
            ("32.", Some(32)),
            ("", None),
            ("big", None),
            ("-1", None),
            ("1e3", None),
            ("1x", None),
            ("1bb", None),
            ("1kk", None),
            ("1ki", None),
            ("1 2", None),
            ("9999999999p", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size_bytes(text), expected, "{text}");
        }
    }
}
