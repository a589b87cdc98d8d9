//! The habits of Go's `encoding/json` that a document shared with flannel relies on.
//!
//! Member names match without regard to case, a member given twice takes its last value, `null`
//! leaves plain fields alone, and raw members keep their own spelling of numbers and escapes.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// Longest document looked at, in bytes: etcd refuses larger requests by default
/// (`--max-request-bytes`, 1.5 MiB), so nothing longer can have come from a flannel network.
pub const MAX_DOCUMENT: usize = 1_572_864;

/// Why a text is not the JSON that was expected.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text breaks JSON's grammar, or something follows the document.
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Well-formed, but of the wrong kind.
    #[error("{field} must be {expected}")]
    WrongType {
        /// The member's name, or what the whole document is.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// Longer than [`MAX_DOCUMENT`].
    #[error("document of {0} bytes is longer than etcd stores")]
    TooLong(usize),
}

/// A document's bytes as text; Go reads invalid UTF-8 in strings as U+FFFD rather than failing.
pub fn document_text(bytes: &[u8]) -> Result<Cow<'_, str>, JsonError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(JsonError::TooLong(bytes.len()));
    }
    Ok(String::from_utf8_lossy(bytes))
}

/// The members of an object in the order they are written, name and raw value; none for `null`.
pub fn members<'a>(text: &'a str, what: &'static str) -> Result<Vec<(String, &'a str)>, JsonError> {
    let whole: &RawValue = serde_json::from_str(text)?;
    let raw = whole.get();
    if raw == "null" {
        return Ok(Vec::new());
    }
    if !raw.starts_with('{') {
        return Err(JsonError::WrongType { field: what, expected: "an object" });
    }
    let mut decoder = serde_json::Deserializer::from_str(raw);
    let pairs = decoder.deserialize_map(Pairs)?;
    pairs
        .into_iter()
        .map(|(name, value)| Ok((string(name.get(), what)?.unwrap_or_default(), value.get())))
        .collect()
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// True when a member called `given` is meant for the field `field` (ASCII), by Go's folding:
/// case does not matter, nor do the two non-ASCII characters that fold to ASCII letters.
pub fn names(given: &str, field: &str) -> bool {
    let folded = given.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(field.chars().map(|c| c.to_ascii_lowercase()))
}

/// A boolean; `None` for `null`, which leaves the field as it was.
pub fn boolean(raw: &str, field: &'static str) -> Result<Option<bool>, JsonError> {
    match raw {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        "null" => Ok(None),
        _ => Err(JsonError::WrongType { field, expected: "true or false" }),
    }
}

/// An integer from 0; `None` for `null`. Go takes neither `1.0` nor `1e2` for an integer.
pub fn unsigned(raw: &str, field: &'static str) -> Result<Option<u64>, JsonError> {
    if raw == "null" {
        return Ok(None);
    }
    raw.parse().map(Some).map_err(|_| JsonError::WrongType { field, expected: "a whole number from 0" })
}

/// An integer; `None` for `null`.
pub fn integer(raw: &str, field: &'static str) -> Result<Option<i64>, JsonError> {
    if raw == "null" {
        return Ok(None);
    }
    raw.parse().map(Some).map_err(|_| JsonError::WrongType { field, expected: "a whole number" })
}

/// A string; `None` for `null`. Lone surrogates become U+FFFD, as in Go.
pub fn string(raw: &str, field: &'static str) -> Result<Option<String>, JsonError> {
    if raw == "null" {
        return Ok(None);
    }
    if !raw.starts_with('"') {
        return Err(JsonError::WrongType { field, expected: "a string" });
    }
    let mut decoder = serde_json::Deserializer::from_str(raw);
    Ok(Some(decoder.deserialize_bytes(LossyText)?))
}

struct LossyText;

impl Visitor<'_> for LossyText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The value of a field that decodes itself from its raw text: flannel's address types strip the
/// quotes and look at the rest as it stands, so escapes are not understood there.
pub fn unquoted(raw: &str) -> &str {
    raw.trim_matches('"')
}

/// Appends `text` as Go marshals a string: `<`, `>` and `&` escaped.
pub fn push_string(out: &mut String, text: &str) {
    let quoted = serde_json::Value::from(text).to_string();
    push_html_escaped(out, &quoted);
}

/// A raw value as Go writes it inside a marshalled struct: without insignificant white space and
/// with `<`, `>`, `&`, U+2028 and U+2029 escaped. `raw` must be valid JSON.
pub fn compact(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut in_string = false;
    let mut escaped = false;
    let mut kept_from = 0;
    for (at, byte) in raw.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte == b'"' {
            in_string = true;
        } else if byte.is_ascii_whitespace() {
            push_html_escaped(&mut out, &raw[kept_from..at]);
            kept_from = at + 1;
        }
    }
    push_html_escaped(&mut out, &raw[kept_from..]);
    out
}

fn push_html_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_order_duplicates_and_raw_spelling() {
        let got = members(r#" {"A" : 1.50, "a":{"x": [1, 2]}, "\ud800":null} "#, "test").unwrap();
        let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(got[..2], [("A", "1.50"), ("a", r#"{"x": [1, 2]}"#)]);
        assert_eq!(got[2].1, "null");
        assert!(members("null", "test").unwrap().is_empty());
        for bad in ["", "[]", "1", "{} x", "{", "{\"a\":}", "\"x\""] {
            assert!(members(bad, "test").is_err(), "{bad}");
        }
    }

    #[test]
    fn names_fold_case_and_gos_two_odd_letters() {
        assert!(names("network", "Network"));
        assert!(names("\u{17f}ubnetlen", "SubnetLen"));
        assert!(names("bac\u{212a}end", "Backend"));
        assert!(!names("Networks", "Network"));
        assert!(!names("Netwörk", "Network"));
    }

    #[test]
    fn only_plain_integers_are_integers() {
        assert_eq!(unsigned("24", "x").unwrap(), Some(24));
        assert_eq!(unsigned("null", "x").unwrap(), None);
        for bad in ["-1", "1.0", "1e2", "\"1\"", "true", "18446744073709551616"] {
            assert!(unsigned(bad, "x").is_err(), "{bad}");
        }
        assert_eq!(integer("-1", "x").unwrap(), Some(-1));
    }

    #[test]
    fn compaction_touches_only_what_go_touches() {
        assert_eq!(
            compact("{ \"a b\\\" \" : [ 1.0 , \"<&>\" ]\n}"),
            "{\"a b\\\" \":[1.0,\"\\u003c\\u0026\\u003e\"]}"
        );
    }

    #[test]
    fn deep_nesting_is_walked_without_recursion() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(members(&text, "test").unwrap().len(), 1);
    }
}
