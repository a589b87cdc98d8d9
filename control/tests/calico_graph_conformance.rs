//! Runs every case of Calico's `calc-graph.json` (states of a datastore with what the real Felix made of them, and the
//! sequences in which they follow each other) and `e2e-etcd.json` (the same from etcd's own keys and values,
//! in memory and through a real etcd).

use std::fs;

use serde_json::Value;

#[path = "calico_graph_conformance/calc_graph.rs"]
mod calc_graph;
#[path = "calico_graph_conformance/compiled.rs"]
mod compiled;
#[path = "calico_graph_conformance/etcd.rs"]
mod etcd;
#[path = "etcd_server/mod.rs"]
#[allow(dead_code, reason = "shared with the datastore's tests, which use more of it")]
mod etcd_server;
#[path = "calico_graph_conformance/expected.rs"]
mod expected;
#[path = "calico_graph_conformance/real_etcd.rs"]
mod real_etcd;
#[path = "../../tests/recorded/mod.rs"]
mod recorded;
#[path = "calico_graph_conformance/rendered.rs"]
mod rendered;
#[path = "calico_graph_conformance/v1.rs"]
mod v1;

fn read(name: &str) -> Option<Value> {
    let path = recorded::find("calico")?.join(name);
    Some(serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
}

#[test]
fn every_state_and_sequence_of_the_calculation_graph() {
    let Some(file) = read("calc-graph.json") else { return };
    let (cases, failures) = calc_graph::run(&file);
    println!("calc-graph.json: {cases} cases, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(cases > 0);
}

#[test]
fn every_scenario_from_etcd() {
    let Some(file) = read("e2e-etcd.json") else { return };
    let (cases, failures) = etcd::run(&file);
    println!("e2e-etcd.json: {cases} cases, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(cases > 0);
}

#[tokio::test]
async fn every_scenario_through_a_real_etcd() {
    let Some(file) = read("e2e-etcd.json") else { return };
    if !etcd_server::available() {
        return;
    }
    let (cases, failures) = real_etcd::run(&file).await;
    println!("e2e-etcd.json through a real etcd: {cases} cases, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(cases > 0);
}
