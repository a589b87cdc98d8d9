//! A large cluster is read within the promised time and memory: 100,000 endpoints and 10,000 policies in at most ten
//! seconds, and at most a kilobyte an endpoint over the raw data.
//!
//! Without optimisation a tenth of it, in the same time: that finds what is quadratic.

use std::fmt::Write;
use std::time::{Duration, Instant};

use canal_control::datastore::{Change, KeyValue};
use canal_control::model::flannel::Prefix;
use canal_control::state::State;

const FULL: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
const LIMIT: Duration = Duration::from_secs(10);
const OVER_RAW: usize = 1024;

fn put(key: String, value: String) -> Change {
    let key = format!("/calico/resources/v3/projectcalico.org/{key}");
    let entry = KeyValue { key: key.clone(), value: value.into_bytes(), mod_revision: 1, lease: None };
    Change { key, value: Some(entry), revision: 1 }
}

/// A pod as the CNI plugin writes it; ten have one deployment's labels.
fn endpoint(n: usize) -> Change {
    let (node, deployment, namespace) = (n / 100, n / 10, n / 1000);
    let [a, b, c] = [n >> 16, n >> 8, n].map(|part| part & 0xff);
    let name = format!("node--{node}-k8s-web--{deployment:x}--7d4b9c5f68--{n:05x}-eth0");
    let value = format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}",
        "generateName":"web-{deployment:x}-7d4b9c5f68-","namespace":"ns-{namespace}","uid":"30316465-6365-4463-ad63-3564622d3638",
        "creationTimestamp":"2024-01-02T03:04:05Z","labels":{{"app":"web-{deployment:x}","pod-template-hash":"7d4b9c5f68",
        "tier":"backend","version":"v1","projectcalico.org/namespace":"ns-{namespace}",
        "projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":"default"}}}},
        "spec":{{"orchestrator":"k8s","node":"node-{node}","containerID":"{n:064x}","pod":"web-{deployment:x}-7d4b9c5f68-{n:05x}",
        "endpoint":"eth0","serviceAccountName":"default","ipNetworks":["10.{a}.{b}.{c}/32"],
        "profiles":["kns.ns-{namespace}","ksa.ns-{namespace}.default"],"interfaceName":"cali{n:011x}","mac":"aa:bb:cc:{a:02x}:{b:02x}:{c:02x}",
        "ports":[{{"name":"http","protocol":"TCP","port":8080,"hostPort":0,"hostIP":""}}]}}}}"#
    );
    put(format!("workloadendpoints/ns-{namespace}/{name}"), value)
}

/// A policy with ten rules.
fn policy(n: usize) -> Change {
    let namespace = n / 10;
    let mut rules = String::new();
    for rule in 0..10 {
        let comma = if rule > 0 { "," } else { "" };
        write!(
            rules,
            r#"{comma}{{"action":"Allow","protocol":"TCP","source":{{"selector":"app == 'web-{rule:x}'","nets":["10.{rule}.0.0/16"]}},
            "destination":{{"ports":[80,"8000:8090","http"]}}}}"#
        )
        .unwrap();
    }
    let value = format!(
        r#"{{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default.p{n}","namespace":"ns-{namespace}"}},
        "spec":{{"order":{n},"selector":"app == 'web-{n:x}'","types":["Ingress"],"ingress":[{rules}]}}}}"#
    );
    put(format!("networkpolicies/ns-{namespace}/default.p{n}"), value)
}

/// Memory in use, bytes.
fn resident() -> usize {
    let pages: usize =
        std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn apply(state: &mut State, count: usize, make: impl Fn(usize) -> Change) -> (Duration, usize) {
    let (mut took, mut raw) = (Duration::ZERO, 0);
    // In batches, as they come from a datastore: what has been read is not kept here.
    for start in (0..count).step_by(1000) {
        let batch: Vec<Change> = (start..count.min(start + 1000)).map(&make).collect();
        raw += batch
            .iter()
            .filter_map(|change| change.value.as_ref())
            .map(|e| e.value.len() + e.key.len())
            .sum::<usize>();
        let begin = Instant::now();
        state.apply(&batch);
        took += begin.elapsed();
    }
    (took, raw)
}

#[test]
fn a_large_cluster_is_read_in_bounded_time_and_memory() {
    let mut state = State::new("node-7", &Prefix::default());
    let before = resident();
    let (for_endpoints, raw) = apply(&mut state, FULL, endpoint);
    let grown = resident().saturating_sub(before);
    let (for_policies, policies_raw) = apply(&mut state, FULL / 10, policy);
    let for_all = resident().saturating_sub(before);
    println!(
        "{FULL} endpoints: {for_endpoints:?}, raw {} B each, in memory {} B each; {} policies: {for_policies:?}, raw {} B each, {} B each",
        raw / FULL,
        grown / FULL,
        FULL / 10,
        policies_raw * 10 / FULL,
        for_all.saturating_sub(grown) * 10 / FULL,
    );
    assert_eq!(state.complaints().count(), 0);
    assert_eq!((state.calico().workloads().len(), state.calico().policies().len()), (FULL, FULL / 10));
    assert_eq!(state.local_workloads().count(), 100);
    assert!(for_endpoints + for_policies <= LIMIT);
    assert!(grown <= raw + FULL * OVER_RAW, "{grown} B for {raw} B of values");
}
