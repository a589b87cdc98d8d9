//! What must hold of every value of every type: it is stored as what it means, and stays that.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::encode::encode;
use super::schema::{self, Object, Presence, Shape, Type};

/// Among these every rule about texts finds one that it likes.
const TEXTS: &[&str] = &[
    "",
    "a",
    "a.b-c",
    "Allow",
    "Ingress",
    "Never",
    "Workload",
    "Automatic",
    "Info",
    "Off",
    "DSR",
    "TCP",
    "Drop",
    "Accept",
    "Enabled",
    "Disabled",
    "NFT",
    "Enable",
    "None",
    "AllServices",
    "Deny",
    "Set",
    "AssumeNeededOnEveryNode",
    "eth0",
    "*",
    "1.2.3.4",
    "fd00::1",
    "10.0.0.0/8",
    "fd00::/64",
    "66:a1:b2:c3:d4:e5",
    "has(a) && b == 'c'",
    "x=y",
    "1:2",
    "1:2:3",
    "jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY=",
    "[fd00::1]:179",
    "UseNodeIP",
];

/// Longest generated list.
const LIST_MAX: usize = 3;

struct Made {
    rng: StdRng,
    /// Deepest objects yet to be made.
    depth: u32,
    empty_lists: u32,
}

impl Made {
    fn object(&mut self, kind: &Type) -> Value {
        let mut object = Object::new();
        self.depth += 1;
        for field in kind.fields {
            let wanted =
                field.presence == Presence::Required || self.rng.random_range(0..self.depth + 2) == 0;
            if let Some(value) = wanted.then(|| self.value(&field.shape)).flatten() {
                let empty = value.as_array().is_some_and(Vec::is_empty);
                if !empty || field.presence != Presence::OmitNotEmpty {
                    self.empty_lists += u32::from(empty);
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
        self.depth -= 1;
        Value::Object(object)
    }

    fn value(&mut self, shape: &Shape) -> Option<Value> {
        Some(match shape {
            Shape::Any => json!({"x": [1, null, {"y": "z"}]}),
            Shape::Bool => self.rng.random::<bool>().into(),
            Shape::Integer(low, high) => self.rng.random_range(*low..=*high).into(),
            Shape::Number => (f64::from(self.rng.random_range(-1000..1000)) / 8.0).into(),
            Shape::Text(rule) => {
                let fit: Vec<&&str> = TEXTS.iter().filter(|text| (rule.holds)(text)).collect();
                let fit = fit.get(self.rng.random_range(0..fit.len().max(1)))?;
                (**fit).into()
            }
            Shape::Selector => ["", "all()", "has(a) && b == 'c'"][self.rng.random_range(0..3)].into(),
            Shape::Texts(_) => json!({"a": "1", "b.c/D": ""}),
            Shape::Duration => ["0s", "1m30s", "-2ms", "1h0m0.5s"][self.rng.random_range(0..4)].into(),
            Shape::Protocol => [json!("UDP"), json!(1), json!("SCTP")][self.rng.random_range(0..3)].clone(),
            Shape::Port => [json!(80), json!("1:2"), json!("http")][self.rng.random_range(0..3)].clone(),
            Shape::AsNumber => self.rng.random::<u32>().into(),
            Shape::List(items) => {
                let length = self.rng.random_range(0..=LIST_MAX);
                (0..length).map(|_| self.value(items)).collect::<Option<Vec<Value>>>()?.into()
            }
            Shape::Object(kind) => self.object(kind),
        })
    }
}

/// Lists with something in them, and lists with nothing that a present field has.
fn count_lists(value: &Value) -> (usize, usize) {
    match value {
        Value::Array(items) => {
            let inner = items.iter().map(count_lists).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            (inner.0 + usize::from(!items.is_empty()), inner.1 + usize::from(items.is_empty()))
        }
        Value::Object(members) => {
            members.values().map(count_lists).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
        }
        _ => (0, 0),
    }
}

proptest! {
    /// Whatever is stored reads as the same, and is stored as the same again.
    #[test]
    fn what_is_stored_is_what_is_read(seed in any::<u64>()) {
        for kind in schema::types() {
            let mut made = Made { rng: StdRng::seed_from_u64(seed), depth: 0, empty_lists: 0 };
            let written = made.object(kind);
            let (normal, errors) = schema::normalise(kind, &written);
            // Fields may contradict each other; none is wrong by itself, and none disappears.
            let (full, empty) = count_lists(&written);
            let (full_after, empty_after) = count_lists(&normal);
            prop_assert_eq!(full, full_after, "{}: {} {:?}", kind.name, &written, &errors);
            prop_assert!(empty_after <= empty);
            let text = encode(kind, normal.as_object().unwrap());
            let decoded: Value = serde_json::from_str(&text).unwrap();
            let (again, _) = schema::normalise(kind, &decoded);
            prop_assert_eq!(encode(kind, again.as_object().unwrap()), text, "{}", kind.name);
            prop_assert_eq!(count_lists(&again), (full_after, empty_after));
        }
    }

    /// An empty list is either what nobody wrote, or kept, or refused: by what the field is, not by chance.
    #[test]
    fn an_empty_list_is_dropped_kept_or_refused(extra in any::<bool>()) {
        let (mut dropped, mut kept, mut refused) = (0, 0, 0);
        for kind in schema::types() {
            for field in kind.fields.iter().filter(|field| matches!(field.shape, Shape::List(_))) {
                let spelled = if extra { field.name.to_uppercase() } else { field.name.to_owned() };
                let (normal, errors) = schema::normalise(kind, &json!({ spelled: [] }));
                let said = errors.iter().any(|error| error.path == field.name && error.sentence.contains("empty list"));
                match (normal.get(field.name), field.presence) {
                    (None, Presence::Omit) if !said => dropped += 1,
                    (None, Presence::OmitNotEmpty) if said => refused += 1,
                    (Some(list), Presence::Keep | Presence::Required) if *list == json!([]) && !said => kept += 1,
                    other => prop_assert!(false, "{}.{}: {:?}", kind.name, field.name, other.0),
                }
            }
        }
        prop_assert!(dropped > 10 && kept > 5 && refused >= 5, "{} {} {}", dropped, kept, refused);
    }
}

#[test]
fn the_generator_reaches_every_kind_of_list() {
    let empty: u32 = (0..50)
        .map(|seed| {
            let mut made = Made { rng: StdRng::seed_from_u64(seed), depth: 0, empty_lists: 0 };
            for kind in schema::types() {
                made.object(kind);
            }
            made.empty_lists
        })
        .sum();
    assert!(empty > 100, "{empty}");
}
