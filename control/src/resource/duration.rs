//! Durations as Go writes and reads them: `1h30m`, `1.5s`, `-2us`.

/// Nanoseconds in each unit, the way Go names them.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Digits after the point that can matter: an hour has 3.6e12 nanoseconds.
const FRACTION_DIGITS: usize = 13;

/// Nanoseconds; `None` if Go's `time.ParseDuration` refuses the text.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &after[..end])?.1;
        rest = &after[end..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
        let shown = &fraction[..fraction.len().min(FRACTION_DIGITS)];
        let part = if shown.is_empty() {
            0
        } else {
            shown.parse::<i128>().ok()? * unit / 10_i128.pow(shown.len() as u32)
        };
        total += whole * unit + part;
        if total > i128::from(i64::MAX) {
            return None;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// As Go's `Duration.String` writes it.
pub(super) fn format(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let (unit, scale) = match total {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("\u{b5}s", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let minutes = if scale == 1_000_000_000 { total / 60_000_000_000 } else { 0 };
    let rest = total - minutes * 60_000_000_000;
    let fraction = match rest % scale {
        0 => String::new(),
        part => format!(".{part:0width$}", width = scale.ilog10() as usize).trim_end_matches('0').to_owned(),
    };
    let seconds = format!("{}{fraction}{unit}", rest / scale);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_those_of_go() {
        for (text, written) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("0", "0s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("-1.5h", "-1h30m0s"),
            (".5m", "30s"),
            ("3us", "\u{b5}s"),
            ("1h1m1.001s", "1h1m1.001s"),
        ] {
            let read = parse(text).map(format);
            assert!(read.as_deref().is_some_and(|read| read.ends_with(written)), "{text}: {read:?}");
        }
        for bad in ["", "-", "1", "s", "1 s", "1d", "1.s.", "5mm", "99999999999h", "\u{fffd}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(nanoseconds in -i64::MAX..=i64::MAX) {
            prop_assert_eq!(parse(&format(nanoseconds)), Some(nanoseconds));
        }
    }
}
