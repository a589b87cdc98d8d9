//! Durations as Go writes them: `1m30s`, `100ms`, `1.5h`.

/// Nanoseconds. `None` for what is no duration, or one of more than 292 years.
pub fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        total = total.checked_add(part(number, unit)?)?;
        rest = tail;
    }
    Some(sign * total)
}

fn part(number: &str, unit: &str) -> Option<i64> {
    let scale: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(scale)?.checked_add(fractional(fraction, scale))
}

/// What lies behind the point, rounded down.
fn fractional(digits: &str, scale: i64) -> i64 {
    // More digits than an hour has nanoseconds change nothing.
    const MOST: usize = 15;
    let digits = &digits[..digits.len().min(MOST)];
    let value = digits.bytes().fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    let divisor = (0..digits.len()).fold(1_i128, |divisor, _| divisor * 10);
    i64::try_from(value * i128::from(scale) / divisor).unwrap_or(0)
}

/// A fraction as Go prints it by default.
pub fn fraction(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e21).contains(&size) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads() {
        for (text, nanoseconds) in [
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("54.321ms", 54_321_000),
            ("-1.5h", -5_400_000_000_000),
            ("+.5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0", 0),
            ("1h0.000000001s", 3_600_000_000_001),
            ("3µs", 3_000),
        ] {
            assert_eq!(parse(text), Some(nanoseconds), "{text}");
        }
        for bad in ["", "-", "10", "s", ".s", "1.2.3s", "1d", "1 s", "9999999999999h", "1s2", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_go_prints() {
        for (value, text) in [
            (12.345, "12.345"),
            (0.1, "0.1"),
            (0.0, "0"),
            (90.0, "90"),
            (1e-9, "1e-09"),
            (1.5e-5, "1.5e-05"),
            (1e21, "1e+21"),
        ] {
            assert_eq!(fraction(value), text);
        }
    }
}
