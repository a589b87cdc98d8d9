//! Every case of `calico/policy-eval.json`: packets whose fate Calico's own programs have decided, judged by the slow
//! walk and by the compiled tables.
//!
//! The directory is `$CANAL_CONFORMANCE_DIR`, by default `../shared/conformance` beside the workspace. Without it
//! nothing is tested, which is an error when `CI=true`.

use std::path::{Path, PathBuf};

use canal_dataplane::policy::{self, HostSide, Outcome};
use canal_dataplane::spec::policy::{EndpointPolicy, Failsafes, HostEndpoint, PolicyDirection};
use canal_dataplane::spec::{Endpoint, NodeSpec};
use canal_dataplane::tables::policy::{Memo, Policy};
use serde_json::Value;

#[path = "policy_conformance/case.rs"]
mod case;

use case::{Case, Kind, Packet};

/// The file of recorded cases; `None` (said aloud) where there is none, which CI does not accept.
fn file() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let root = std::env::var_os("CANAL_CONFORMANCE_DIR").map_or(default, PathBuf::from);
    let file = root.join("calico/policy-eval.json");
    if file.is_file() {
        return Some(file);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no {}", file.display());
    println!("SKIP: there is no {}", file.display());
    None
}

fn by_the_walk(case: &Case, packet: &Packet) -> Outcome {
    let sets = &case.sets;
    // The recorded programs know no failsafes: in Felix they stand in chains before them.
    let (direction, failsafes) = (PolicyDirection::Ingress, &Failsafes::default());
    let side = HostSide { policy: &case.host, direction, failsafes };
    let untracked = policy::judge_untracked(side, sets, &packet.facts).outcome;
    if case.kind == Kind::Untracked || untracked != Outcome::Undecided {
        return untracked;
    }
    let host = policy::judge_host(side, sets, &packet.facts, packet.passage).outcome;
    if case.kind == Kind::Host || host != Outcome::Allowed {
        return host;
    }
    policy::judge(&case.workload, sets, &packet.facts).outcome
}

/// A node with one workload and one host endpoint, under this case's policy.
fn compiled(case: &Case) -> Policy {
    let workload = Endpoint {
        name: "workload".into(),
        interface: "cali1".into(),
        ifindex: Some(1),
        mac: None,
        networks: Vec::new(),
        mtu: 1500,
        policy: EndpointPolicy { ingress: case.workload.clone(), egress: case.workload.clone() },
    };
    let host = HostEndpoint {
        name: "host".into(),
        interface: None,
        ingress: case.host.clone(),
        egress: case.host.clone(),
    };
    let spec = NodeSpec {
        sets: case.sets.clone(),
        endpoints: vec![workload],
        host_endpoints: vec![host],
        ..NodeSpec::default()
    };
    Policy::compile(&spec, None)
}

fn by_the_tables(case: &Case, policy: &Policy, memo: &mut Memo, packet: &Packet) -> Outcome {
    let host = &policy.host_endpoint(0).ingress;
    let untracked = policy.judge_untracked(host, memo, &packet.facts).outcome;
    if case.kind == Kind::Untracked || untracked != Outcome::Undecided {
        return untracked;
    }
    let outcome = policy.judge_host(host, memo, &packet.facts, packet.passage).outcome;
    if case.kind == Kind::Host || outcome != Outcome::Allowed {
        return outcome;
    }
    policy.judge(&policy.endpoint(0).ingress, memo, &packet.facts).outcome
}

#[test]
fn every_packet_meets_its_recorded_fate() {
    let Some(file) = file() else { return };
    let text = std::fs::read(&file).unwrap();
    let recorded: Value = serde_json::from_slice(&text).unwrap();
    let lists = ["cases", "cases_derived_v6"].map(|name| recorded[name].as_array().expect("a list of cases"));
    let (mut cases, mut packets, mut wrong) = (0, 0, Vec::new());
    for case in lists.into_iter().flatten() {
        let case = Case::read(case);
        let (policy, mut memo) = (compiled(&case), Memo::default());
        cases += 1;
        for (packet, expected) in &case.packets {
            packets += 1;
            let walk = by_the_walk(&case, packet);
            let tables = by_the_tables(&case, &policy, &mut memo, packet);
            for (judge, actual) in [("walk", walk), ("tables", tables)] {
                if actual != *expected {
                    wrong.push(format!("{} by the {judge}: {actual}, not {expected}: {packet:?}", case.id));
                }
            }
        }
    }
    println!("{cases} cases, {packets} packets of {}", file.display());
    assert!(cases > 0 && packets > cases, "there are hardly any");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
