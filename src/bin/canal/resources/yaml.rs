//! Writes YAML that every version of YAML reads the same: a text that might be anything else is quoted.

use serde_json::Value;

/// Words that some reader takes for something else than a text.
const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];

/// A value as a document.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(members) if !members.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        scalar => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                out.push_str(&" ".repeat(indent));
                out.push_str(&text(name));
                out.push(':');
                // The items of a list may stand below the name itself.
                let inner = if member.is_array() { indent } else { indent + 2 };
                nested(member, inner, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                let is_block = is_block(item);
                if is_block {
                    block(item, indent + 2, &mut inner);
                } else {
                    inner = format!("{}{}\n", " ".repeat(indent + 2), inline(item));
                }
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                out.push_str(&inner[indent + 2..]);
            }
        }
        scalar => out.push_str(&inline(scalar)),
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        block(value, indent, out);
    } else {
        out.push(' ');
        out.push_str(&inline(value));
        out.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(given) => text(given),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        scalar => scalar.to_string(),
    }
}

fn text(given: &str) -> String {
    let starts = given.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = given.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
    if starts && plain && !WORDS.contains(&given.to_lowercase().as_str()) {
        return given.to_owned();
    }
    let mut out = String::from("\"");
    for c in given.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use canal_control::resource::read;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_looks_as_people_write_it() {
        let value = json!({
            "kind": "Tier", "metadata": {"name": "a-b", "labels": {}}, "spec": {
                "rules": [{"action": "Allow", "ports": [80, "1:2"]}, {}, []], "order": 1.5, "nets": ["10.0.0.0/8"], "none": null,
            },
        });
        let expected = "kind: Tier
metadata:
  labels: {}
  name: a-b
spec:
  nets:
  - \"10.0.0.0/8\"
  none: null
  order: 1.5
  rules:
  - action: Allow
    ports:
    - 80
    - \"1:2\"
  - {}
  - []
";
        assert_eq!(document(&value), expected);
    }

    #[test]
    fn whatever_is_written_reads_the_same() {
        let texts = [
            "",
            "yes",
            "NO",
            "On",
            "null",
            "~",
            "1",
            "1e5",
            "0x10",
            "1_000",
            "2024-01-02",
            "a: b",
            "- a",
            "#a",
            "a #b",
            "'",
            "\"",
            "\\",
            "a\nb\n",
            "\t",
            "\u{85}",
            "\u{2028}",
            "\u{0}",
            "\u{1f600}",
            "app == 'web' && !has(x)",
            " a ",
            "true",
            "@a",
            "`a",
            ".5",
            "=",
            "!a",
            "&a",
            "*a",
            "|",
            ">",
            "%a",
            "a,b",
            "[a]",
            "{a}",
            "a/b.c-d_e",
            "é",
        ];
        for text in texts {
            let value = json!({"kind": "x", text: text, "list": [text, {text: [text]}, [[text], text]]});
            let written = document(&value);
            let found = read(written.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}\n{written}"));
            assert_eq!(found.len(), 1, "{text:?}");
            assert_eq!(found[0].1, value, "{text:?}\n{written}");
        }
        assert_eq!(read(document(&json!({"a": "<<"})).as_bytes()).unwrap()[0].1, json!({"a": "<<"}));
        assert_eq!(document(&json!([])), "[]\n");
    }
}
