//! Runs every case of the `calico` conformance files that concern the data model: what libcalico-go and Felix read,
//! refuse and make of what is in etcd.

use std::fs;

use serde_json::Value;

#[path = "calico_conformance/end_to_end.rs"]
mod end_to_end;
#[path = "calico_conformance/keys.rs"]
mod keys;
#[path = "calico_conformance/names.rs"]
mod names;
#[path = "calico_conformance/processors.rs"]
mod processors;
#[path = "../../tests/recorded/mod.rs"]
mod recorded;
#[path = "calico_conformance/rules.rs"]
mod rules;
#[path = "calico_conformance/selectors.rs"]
mod selectors;
#[path = "calico_conformance/v1_json.rs"]
mod v1_json;
#[path = "calico_conformance/vectors.rs"]
mod vectors;

/// What became of the cases of one list.
type Outcomes = Vec<Result<(), String>>;

fn document(file: &str) -> Option<Value> {
    let path = recorded::find("calico")?.join(file);
    Some(serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
}

/// Runs one list of a file; every case counts.
fn every_case(file: &str, list: &str, run: impl FnOnce(&[Value]) -> Outcomes) {
    let Some(document) = document(file) else { return };
    let cases = list.split('.').fold(&document, |value, member| &value[member]);
    let cases = cases.as_array().unwrap_or_else(|| panic!("{file} has no {list}"));
    let outcomes = run(cases);
    println!("{file}: {list}: {} cases", outcomes.len());
    assert!(!cases.is_empty() && outcomes.len() == cases.len(), "{file}: {list}");
    let failures: Vec<String> = outcomes
        .into_iter()
        .enumerate()
        .filter_map(|(number, outcome)| {
            Some(format!("case {number}: {}\n    {}", outcome.err()?, cases[number]))
        })
        .collect();
    assert!(failures.is_empty(), "{file}: {list}: {} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Runs a list whose cases know nothing of one another.
fn each(file: &str, list: &str, run: impl Fn(&Value) -> Result<(), String>) {
    every_case(file, list, |cases| cases.iter().map(run).collect());
}

#[test]
fn selectors_evaluate() {
    each("selectors.json", "evaluate", selectors::evaluate);
}

#[test]
fn selectors_refused() {
    each("selectors.json", "invalid", selectors::invalid);
}

#[test]
fn selectors_canonical() {
    each("selectors.json", "canonical", selectors::canonical);
}

#[test]
fn selectors_prefixed() {
    each("selectors.json", "prefix", selectors::prefix);
}

#[test]
fn conversion_of_keys() {
    each("conversion.json", "keys", keys::parse);
}

#[test]
fn conversion_of_rules() {
    each("conversion.json", "rules", rules::convert);
}

#[test]
fn conversion_by_processors() {
    every_case("conversion.json", "processors", processors::run);
}

#[test]
fn names_of_workloads() {
    each("conversion.json", "wep_names.decode", names::decode);
    each("conversion.json", "wep_names.encode", names::encode);
    each("conversion.json", "wep_names.extract4", names::extract4);
    each("conversion.json", "wep_names.matches", names::matches);
}

#[test]
fn vectors_of_hashes() {
    each("vectors.json", "ipset_ids", vectors::ipset_id);
    each("vectors.json", "veth_names", vectors::veth_name);
    each("vectors.json", "vtep_macs", vectors::vtep_mac);
}

#[test]
fn etcd_to_the_model() {
    each("e2e-etcd.json", "scenarios", end_to_end::scenario);
}

/// A string member of a case.
fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap_or_else(|| panic!("{member} of {case} is no string"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what} is\n  {got:?}, expected\n  {expected:?}")) }
}

/// Compares lists whose order says nothing.
fn same_set(what: &str, mut got: Vec<Value>, mut expected: Vec<Value>) -> Result<(), String> {
    got.sort_by_cached_key(Value::to_string);
    expected.sort_by_cached_key(Value::to_string);
    let surplus: Vec<&Value> = got.iter().filter(|item| !expected.contains(item)).collect();
    let lacking: Vec<&Value> = expected.iter().filter(|item| !got.contains(item)).collect();
    if got == expected {
        Ok(())
    } else {
        let list = |items: &[&Value]| items.iter().map(|item| format!("\n      {item}")).collect::<String>();
        Err(format!("{what}: unexpected:{}\n    missing:{}", list(&surplus), list(&lacking)))
    }
}
