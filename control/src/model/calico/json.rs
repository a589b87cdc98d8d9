//! Reading a JSON object as Go's decoder does: names in any case, `null` as absent.

use serde_json::{Map, Value};

/// A member of an object; an exact match of the name goes before one that differs in case. `null` is no member.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = object.get(name);
    let found =
        exact.or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
    found.filter(|value| !value.is_null())
}

/// A member that is a string: absent is `""`, as in Go. `None` when it is something else.
pub fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    member(object, name).map_or(Some(""), Value::as_str)
}

/// A member that is a list of strings: absent is empty. `None` when it is something else.
pub fn texts<'a>(object: &'a Map<String, Value>, name: &str) -> Option<Vec<&'a str>> {
    match member(object, name) {
        None => Some(Vec::new()),
        Some(list) => list.as_array()?.iter().map(Value::as_str).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_null_is_absent() {
        let read = object(r#"{"NODE":"a","node":"b","Mac":null,"nets":["x"],"bad":[1]}"#);
        assert_eq!(text(&read, "node"), Some("b"));
        assert_eq!(text(&read, "mac"), Some(""));
        assert_eq!(texts(&read, "Nets"), Some(vec!["x"]));
        assert_eq!(texts(&read, "mac"), Some(vec![]));
        assert_eq!((text(&read, "nets"), texts(&read, "bad")), (None, None));
    }
}
