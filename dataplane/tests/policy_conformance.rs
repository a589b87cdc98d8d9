//! Every case of `calico/policy-eval.json`: packets whose fate Calico's own programs have decided, judged by the slow
//! walk and by the compiled tables.

use canal_dataplane::policy::{self, HostSide, Outcome};
use canal_dataplane::spec::policy::{EndpointPolicy, Failsafes, HostEndpoint, PolicyDirection};
use canal_dataplane::spec::{Endpoint, NodeSpec};
use canal_dataplane::tables::policy::{Memo, Policy};
use serde_json::Value;

#[path = "policy_conformance/case.rs"]
mod case;
#[path = "../../tests/recorded/mod.rs"]
mod recorded;

use case::{Case, Kind, Packet};

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
        endpoints: vec![workload].into(),
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
    let Some(file) = recorded::find("calico/policy-eval.json") else { return };
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
