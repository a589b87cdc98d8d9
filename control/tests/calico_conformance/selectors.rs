//! Selectors: which objects they select, which texts are none, how they are written.

use std::collections::BTreeMap;

use canal_control::model::calico::selector::{Restriction, Selector};
use serde_json::Value;

use super::{same, text};

fn parse(case: &Value) -> Result<Selector, String> {
    Selector::parse(text(case, "expr")).map_err(|error| error.to_string())
}

pub fn evaluate(case: &Value) -> Result<(), String> {
    let selector = parse(case)?;
    let labels: BTreeMap<String, String> = serde_json::from_value(case["labels"].clone()).unwrap();
    let lookup = |label: &str| labels.get(label).map(String::as_str);
    let expected = case["match"].as_bool().unwrap();
    same("match", selector.matches(lookup), expected)?;
    let again = Selector::parse(selector.canonical()).map_err(|error| error.to_string())?;
    same("match of the canonical form", again.matches(lookup), expected)?;
    let restricted = selector.restrictions().into_iter().all(|(label, restriction)| match restriction {
        Restriction::Present => lookup(label).is_some(),
        Restriction::OneOf(values) => lookup(label).is_some_and(|value| values.contains(value)),
    });
    if expected && !restricted { Err(format!("{:?} exclude it", selector.restrictions())) } else { Ok(()) }
}

pub fn invalid(case: &Value) -> Result<(), String> {
    match parse(case) {
        Ok(selector) => Err(format!("is read as {selector}")),
        Err(_) => Ok(()),
    }
}

pub fn canonical(case: &Value) -> Result<(), String> {
    let selector = parse(case)?;
    same("canonical form", selector.canonical(), text(case, "canonical"))?;
    same("id", selector.id(), text(case, "uid"))
}

pub fn prefix(case: &Value) -> Result<(), String> {
    let selector = parse(case)?.prefix_labels(text(case, "prefix"));
    same("result", selector.canonical(), text(case, "result"))
}
