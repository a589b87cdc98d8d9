//! Scenarios of `e2e-etcd.json`: etcd's keys and values, decoded and resolved.

use canal_control::datastore::{Change, KeyValue};
use canal_control::model::calico::decode::Key;
use canal_control::model::calico::problem::Quirks;
use canal_control::model::flannel::Prefix;
use canal_control::resolve::calico::routes::RouteSource;
use canal_control::resolve::calico::{CalicoGraph, Resolution, change_of, sync};
use canal_control::state::State;
use serde_json::Value;

use crate::expected;

/// Number of scenarios, each in every order, and what went wrong.
pub fn run(file: &Value) -> (usize, Vec<String>) {
    let scenarios = file["scenarios"].as_array().unwrap();
    let mut failures = Vec::new();
    for scenario in scenarios {
        let name = scenario["name"].as_str().unwrap();
        let mut failed = |way: &str, resolution: &Resolution| {
            let outcome = expected::compare_scenario(resolution, &scenario["expected"]);
            failures.extend(outcome.err().map(|why| format!("{name}, {way}: {why}")));
        };
        let changes = changes(&scenario["etcd"]);
        failed("at once", Cluster::new(scenario).at_once(&changes));
        failed("one by one", Cluster::new(scenario).one_by_one(&changes));
        let reversed: Vec<Change> = changes.iter().rev().cloned().collect();
        failed("reversed", Cluster::new(scenario).one_by_one(&reversed));
        let mut cluster = Cluster::new(scenario);
        cluster.one_by_one(&reversed);
        cluster.one_by_one(&changes.iter().map(gone).collect::<Vec<_>>());
        failed("gone and back", cluster.one_by_one(&changes));
    }
    (scenarios.len() * 4, failures)
}

/// etcd's keys and values, as a watch would tell of them.
pub fn changes(etcd: &Value) -> Vec<Change> {
    let entries = etcd.as_object().unwrap().iter();
    entries
        .map(|(key, value)| {
            // Raw kinds and what is no JSON are strings.
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let entry = KeyValue { key: key.clone(), value: value.into(), mod_revision: 1, lease: None };
            Change { key: key.clone(), value: Some(entry), revision: 1 }
        })
        .collect()
}

fn gone(change: &Change) -> Change {
    Change { value: None, ..change.clone() }
}

/// A node that reads etcd, and takes what makes no sense as Felix does.
pub struct Cluster {
    state: State,
    graph: CalicoGraph,
}

impl Cluster {
    pub fn new(scenario: &Value) -> Self {
        let nodename = scenario["local_hostname"].as_str().unwrap();
        let source = match scenario["route_source"].as_str() {
            Some("WorkloadIPs") => RouteSource::Workloads,
            _ => RouteSource::Blocks,
        };
        let state = State::new(nodename, &Prefix::default()).with_quirks(Quirks::FELIX);
        Self { state, graph: CalicoGraph::new(nodename, source) }
    }

    fn at_once(&mut self, changes: &[Change]) -> &Resolution {
        self.state.apply(changes);
        sync(&mut self.graph, self.state.calico());
        self.graph.flush()
    }

    pub fn one_by_one(&mut self, changes: &[Change]) -> &Resolution {
        for change in changes {
            self.state.apply(std::slice::from_ref(change));
            if let Some(change) =
                Key::parse(&change.key).ok().and_then(|key| change_of(self.state.calico(), &key))
            {
                self.graph.apply(change);
            }
            self.graph.flush();
        }
        self.resolution()
    }

    pub fn resolution(&self) -> &Resolution {
        self.graph.resolution()
    }
}
