//! JSON as Go's encoder writes libcalico-go's types: fields in the types' order, maps sorted, no blanks, `<`, `>` and `&`
//! escaped, floats in their shortest form.

use std::fmt::Write;

use serde_json::{Number, Value};

use super::schema::{Object, Shape, Type};

/// Writes a normalised object of that type. Members that the type does not know come last, in order of name.
pub(super) fn encode(kind: &Type, object: &Object) -> String {
    let mut out = String::new();
    members(kind, object, &mut out);
    out
}

fn members(kind: &Type, object: &Object, out: &mut String) {
    let known = |name: &str| kind.fields.iter().find(|field| field.name == name);
    let in_order = kind.fields.iter().filter_map(|field| object.get_key_value(field.name));
    let others = object.iter().filter(|(name, _)| known(name).is_none());
    out.push('{');
    for (n, (name, member)) in in_order.chain(others).enumerate() {
        if n > 0 {
            out.push(',');
        }
        text(name, out);
        out.push(':');
        value(known(name).map_or(&Shape::Any, |field| &field.shape), member, out);
    }
    out.push('}');
}

fn value(shape: &Shape, given: &Value, out: &mut String) {
    match (shape, given) {
        (Shape::Object(kind), Value::Object(object)) => members(kind, object, out),
        (Shape::List(items), Value::Array(list)) => array(items, list, out),
        (_, Value::Array(list)) => array(&Shape::Any, list, out),
        (_, Value::Object(object)) => {
            out.push('{');
            for (n, (name, member)) in object.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                text(name, out);
                out.push(':');
                value(&Shape::Any, member, out);
            }
            out.push('}');
        }
        (_, Value::String(given)) => text(given, out),
        (_, Value::Number(given)) => number(given, out),
        (_, Value::Bool(given)) => out.push_str(if *given { "true" } else { "false" }),
        (_, Value::Null) => out.push_str("null"),
    }
}

fn array(items: &Shape, list: &[Value], out: &mut String) {
    out.push('[');
    for (n, item) in list.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        value(items, item, out);
    }
    out.push(']');
}

fn text(given: &str, out: &mut String) {
    out.push('"');
    for c in given.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Where Go's encoder goes over to exponents.
const PLAIN_FLOATS: std::ops::Range<f64> = 1e-6..1e21;

fn number(given: &Number, out: &mut String) {
    let float = given.as_f64().filter(|_| given.is_f64());
    let written = match float {
        None => given.to_string(),
        Some(float) if float == 0.0 || PLAIN_FLOATS.contains(&float.abs()) => float.to_string(),
        Some(float) => {
            let text = format!("{float:e}");
            if float.abs() >= 1.0 { text.replace('e', "e+") } else { text }
        }
    };
    out.push_str(&written);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resource::schema;

    fn encoded(kind: &str, value: &Value) -> String {
        encode(schema::by_name(kind).unwrap(), value.as_object().unwrap())
    }

    #[test]
    fn fields_stand_in_the_types_order_and_text_is_escaped_as_in_go() {
        let rule = json!({"source": {"selector": "a == '<1>' && b == 'c'"}, "action": "Allow", "protocol": "TCP", "destination": {}});
        assert_eq!(
            encoded("Rule", &rule),
            r#"{"action":"Allow","protocol":"TCP","source":{"selector":"a == '\u003c1\u003e' \u0026\u0026 b == 'c'"},"destination":{}}"#
        );
        let tier = json!({"order": 10.0});
        assert_eq!(encoded("TierSpec", &tier), r#"{"order":10}"#);
        for (order, text) in [
            (0.5, "0.5"),
            (-1.25, "-1.25"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (0.0, "0"),
            (1e20, "100000000000000000000"),
        ] {
            assert_eq!(encoded("TierSpec", &json!({ "order": order })), format!("{{\"order\":{text}}}"));
        }
        assert_eq!(
            encoded("OrchRef", &json!({"zz": [1, null], "orchestrator": "a\u{1}\"\\\n\u{2028}"})),
            "{\"orchestrator\":\"a\\u0001\\\"\\\\\\n\\u2028\",\"zz\":[1,null]}"
        );
    }

    proptest! {
        #[test]
        fn any_json_reads_the_same(text in any::<String>(), integer in any::<i64>()) {
            let value = json!({ "orchestrator": text, "other": [integer, {"x": text, "y": {}}, null, true] });
            let read: Value = serde_json::from_str(&encoded("OrchRef", &value)).unwrap();
            prop_assert_eq!(read, value);
        }

        /// serde_json reads floats to the last digit but one.
        #[test]
        fn any_float_reads_the_same(float in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let written = encoded("TierSpec", &json!({ "order": float }));
            let digits = written.strip_prefix("{\"order\":").and_then(|rest| rest.strip_suffix('}')).unwrap();
            prop_assert_eq!(digits.parse::<f64>().unwrap(), float);
        }
    }
}
