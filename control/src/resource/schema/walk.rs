//! Holds a value against a type.

use serde_json::{Number, Value};

use super::{Field, Object, Presence, Shape, Type};
use crate::model::calico::selector::Selector;
use crate::resource::error::Report;
use crate::resource::{duration, number};

/// How many field names an answer to an unknown one lists.
const NAMES_SHOWN: usize = 16;

/// An object of that type in its one form; `None` if it is no object.
pub(super) fn object(kind: &Type, value: &Value, report: &mut Report) -> Option<Object> {
    let Value::Object(given) = value else {
        report.here("must be an object (name: value)");
        return None;
    };
    let before = report.len();
    let mut values: Vec<Option<&Value>> = vec![None; kind.fields.len()];
    for (name, value) in given {
        match find(kind, name) {
            None => report.wrong(name, unknown(kind)),
            Some(index) if values[index].is_some() => report.wrong(name, "is given twice"),
            Some(index) => values[index] = Some(value),
        }
    }
    let mut normal = Object::new();
    for (field, value) in kind.fields.iter().zip(values) {
        let value = value.filter(|value| !value.is_null());
        if let Some(value) = report.at(field.name, |report| member(field, value, report)) {
            normal.insert(field.name.to_owned(), value);
        }
    }
    // What fields have to do with each other can only be said of sound ones.
    if report.len() == before {
        (kind.check)(&normal, report);
    }
    Some(normal)
}

fn find(kind: &Type, name: &str) -> Option<usize> {
    let exact = kind.fields.iter().position(|field| field.name == name);
    exact.or_else(|| kind.fields.iter().position(|field| field.name.eq_ignore_ascii_case(name)))
}

fn unknown(kind: &Type) -> String {
    let names: Vec<&str> = kind.fields.iter().map(|field| field.name).collect();
    if names.len() <= NAMES_SHOWN {
        format!("is no field of {}; these are: {}", kind.name, names.join(", "))
    } else {
        format!("is no field of {}", kind.name)
    }
}

fn member(field: &Field, value: Option<&Value>, report: &mut Report) -> Option<Value> {
    match (field.presence, value) {
        (Presence::Omit | Presence::OmitNotEmpty | Presence::Keep, None) => None,
        (Presence::Required, None) => {
            report.here("must be given");
            None
        }
        (Presence::Always, None) => Some(empty(&field.shape, report)),
        (Presence::Keep | Presence::Required, Some(value)) => checked(&field.shape, value, report),
        (Presence::OmitNotEmpty, Some(Value::Array(items))) if items.is_empty() => {
            report.here("must not be an empty list: it would be stored as absent, which means any; leave it out to mean that");
            None
        }
        (presence, Some(value)) => {
            let normal = unless_empty(&field.shape, value, report)?;
            (presence == Presence::Always || !is_empty(&normal) || matches!(field.shape, Shape::Object(_)))
                .then_some(normal)
        }
    }
}

/// What Go writes for a field that was never set.
fn empty(shape: &Shape, report: &mut Report) -> Value {
    match shape {
        Shape::Bool => false.into(),
        Shape::Integer(..) | Shape::Number | Shape::AsNumber | Shape::Protocol | Shape::Port => 0.into(),
        Shape::Text(_) | Shape::Selector => "".into(),
        Shape::Duration => "0s".into(),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Object(kind) => {
            object(kind, &Value::Object(Object::new()), report).map_or(Value::Null, Value::Object)
        }
        Shape::Any | Shape::Texts(_) => Value::Null,
    }
}

/// Go's idea of empty, for values that are no objects.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// In its one form; rules are not asked about what is empty.
fn unless_empty(shape: &Shape, value: &Value, report: &mut Report) -> Option<Value> {
    let skip = matches!(shape, Shape::Text(_) | Shape::Selector | Shape::Integer(..) | Shape::AsNumber)
        && is_empty(value);
    if skip { Some(value.clone()) } else { checked(shape, value, report) }
}

/// In its one form, and by the rules.
pub(super) fn checked(shape: &Shape, value: &Value, report: &mut Report) -> Option<Value> {
    let or = |normal: Option<Value>, says: &str, report: &mut Report| {
        if normal.is_none() {
            report.here(says);
        }
        normal
    };
    match shape {
        Shape::Any => Some(value.clone()),
        Shape::Bool => or(value.is_boolean().then(|| value.clone()), "must be true or false", report),
        Shape::Integer(low, high) => integer(value, *low, *high, report),
        Shape::Number => or(value.is_number().then(|| value.clone()), "must be a number", report),
        Shape::Text(rule) => {
            let text = or(text(value), "must be a text", report)?;
            let holds = text.as_str().is_some_and(rule.holds);
            or(holds.then_some(text), rule.says, report)
        }
        Shape::Selector => {
            let text = or(text(value), "must be a text", report)?;
            let parsed = Selector::parse(text.as_str().unwrap_or_default());
            parsed.map_err(|error| report.here(format!("must be a selector: {error}"))).ok()?;
            Some(text)
        }
        Shape::Texts(check) => texts(value, *check, report),
        Shape::Duration => {
            let nanoseconds = value.as_str().and_then(duration::parse);
            or(
                nanoseconds.map(|n| duration::format(n).into()),
                "must be a duration such as 90s or 1m30s",
                report,
            )
        }
        Shape::Protocol => or(number::protocol(value), number::PROTOCOL_SAYS, report),
        Shape::Port => or(number::port(value), number::PORT_SAYS, report),
        Shape::AsNumber => or(number::as_number(value), number::AS_SAYS, report),
        Shape::List(items) => list(items, value, report),
        Shape::Object(kind) => object(kind, value, report).map(Value::Object),
    }
}

/// A text. YAML reads some texts as numbers or truth; where a text is wanted, they are taken back, as calicoctl does.
fn text(value: &Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value.clone()),
        Value::Bool(value) => Some(value.to_string().into()),
        Value::Number(number) => Some(plain_number(number).into()),
        _ => None,
    }
}

/// Go's shortest form: no point where there is no fraction.
fn plain_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float.to_string(),
        _ => number.to_string(),
    }
}

fn integer(value: &Value, low: i64, high: i64, report: &mut Report) -> Option<Value> {
    let Some(number) = value.as_i64() else {
        report.here("must be an integer");
        return None;
    };
    if (low..=high).contains(&number) {
        return Some(value.clone());
    }
    report.here(match (low, high) {
        (i64::MIN, high) => format!("must be at most {high}"),
        (low, i64::MAX) => format!("must be at least {low}"),
        (low, high) => format!("must be from {low} to {high}"),
    });
    None
}

fn texts(value: &Value, check: fn(&Object, &mut Report), report: &mut Report) -> Option<Value> {
    let Value::Object(given) = value else {
        report.here("must be a map of texts");
        return None;
    };
    let mut normal = Object::new();
    for (name, value) in given {
        match text(value) {
            Some(text) => {
                normal.insert(name.clone(), text);
            }
            None if value.is_null() => {
                normal.insert(name.clone(), "".into());
            }
            None => report.wrong(name, "must be a text"),
        }
    }
    check(&normal, report);
    Some(Value::Object(normal))
}

fn list(items: &Shape, value: &Value, report: &mut Report) -> Option<Value> {
    let Value::Array(given) = value else {
        report.here("must be a list");
        return None;
    };
    let normal = given.iter().enumerate();
    Some(normal.filter_map(|(n, item)| report.item(n, |report| checked(items, item, report))).collect())
}
