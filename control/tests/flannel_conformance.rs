//! Runs every case of the `flannel` conformance files that concern membership: what flannel's own
//! code reads, refuses, writes and decides.

use std::fs;

// What `fake` calls the datastore.
use canal_control::datastore;
use serde_json::Value;

#[path = "flannel_conformance/acquire.rs"]
mod acquire;
#[allow(dead_code, reason = "shared with the unit tests, which use more of it")]
#[path = "../src/flannel/fake.rs"]
mod fake;
#[path = "flannel_conformance/model.rs"]
mod model;
#[path = "../../tests/recorded/mod.rs"]
mod recorded;
#[path = "flannel_conformance/watch.rs"]
mod watch;

/// Runs one case; the error says what differs.
type Runner = fn(&Value) -> Result<(), String>;

const FILES: &[(&str, Runner)] = &[
    ("backend-observed.json", model::backend_observed),
    ("contains-cidr-cases.json", model::contains_cidr),
    ("ip-cases.json", model::ip),
    ("lease-acquire-scenarios.json", acquire::scenario),
    ("lease-reuse-compat-cases.json", acquire::reuse),
    ("lease-value-cases.json", model::lease_value),
    ("lease-watch-sequences.json", watch::sequence),
    ("mtu-cases.json", model::mtu),
    ("network-config-cases.json", model::network_config),
    ("subnet-candidates-cases.json", acquire::candidates),
    ("subnet-env-cases.json", model::subnet_env),
    ("subnet-key-cases.json", model::subnet_key),
];

const ELSEWHERE: &[(&str, &str)] = &[
    ("index.json", "describes the other files"),
    ("wire-vectors.json", "frames: the dataplane's tests"),
    ("cni-observed.json", "not for this release: CNI plugin"),
    ("flannel-cni-delegate-cases.json", "not for this release: CNI plugin"),
    ("kube-annotation-prefix-cases.json", "not for this release: Kubernetes mode"),
    ("masquerade-cases.json", "not for this release: masquerading"),
];

#[test]
fn every_case_of_every_file() {
    let Some(directory) = recorded::find("flannel") else { return };
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();

    let mut failures = Vec::new();
    for name in &names {
        if let Some((_, why)) = ELSEWHERE.iter().find(|(file, _)| file == name) {
            println!("{name}: {why}");
            continue;
        }
        let Some((_, runner)) = FILES.iter().find(|(file, _)| file == name) else {
            failures.push(format!("{name}: nobody knows how to run this file"));
            continue;
        };
        let document: Value = serde_json::from_slice(&fs::read(directory.join(name)).unwrap()).unwrap();
        let cases = document["cases"].as_array().unwrap_or_else(|| panic!("{name} has no cases"));
        println!("{name}: {} cases", cases.len());
        assert!(!cases.is_empty(), "{name}");
        for (number, case) in cases.iter().enumerate() {
            if let Err(difference) = runner(case) {
                failures.push(format!("{name} case {number}: {difference}\n    {case}"));
            }
        }
    }
    for (file, _) in FILES.iter().filter(|(file, _)| !names.iter().any(|name| name == file)) {
        failures.push(format!("{file} is missing"));
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// A string member of a case.
fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap_or_else(|| panic!("{member} of {case} is no string"))
}

/// An array of strings; empty when absent.
fn texts<'a>(case: &'a Value, member: &str) -> Vec<&'a str> {
    let items = case[member].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap_or_else(|| panic!("{member} of {case}"))).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what} is {got:?}, expected {expected:?}")) }
}
