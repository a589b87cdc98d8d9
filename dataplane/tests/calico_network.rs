//! The compiled form of Calico's network says of every address what its slow twin says, with the same outer headers, and
//! does so after any sequence of changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::reference::calico as twin;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::calico::CalicoWay;
use canal_dataplane::tables::{Adjacency, Kind, Tables, compile};
use canal_dataplane::testing::calico;
use canal_dataplane::testing::entropy::{Entropy, noise};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Every way, by name.
fn name(way: CalicoWay) -> &'static str {
    match way {
        CalicoWay::Workload => "workload",
        CalicoWay::Host => "host",
        CalicoWay::Vxlan(_) => "VXLAN",
        CalicoWay::IpIp(_) => "IP in IP",
        CalicoWay::Plain(_) => "plain",
        CalicoWay::HostRoutes => "host routes",
        CalicoWay::Unassigned => "unassigned",
        CalicoWay::Unresolved => "unresolved",
    }
}

const WAYS: [&str; 8] =
    ["workload", "host", "VXLAN", "IP in IP", "plain", "host routes", "unassigned", "unresolved"];

/// The outer headers of the twin's packet, with zeros where the template leaves it to the packet.
fn expected_template(spec: &NodeSpec, node_ip: IpAddr) -> Vec<u8> {
    let (ether_type, packet) = ([0, 0], [0x45, 0, 0, 20].into_iter().chain([0; 16]).collect::<Vec<u8>>());
    let mut frame = twin::in_vxlan(spec, node_ip, ether_type, &packet);
    let (ip_length, udp) = if node_ip.is_ipv4() { (16, 34) } else { (18, 54) };
    frame[ip_length..ip_length + 2].fill(0);
    frame[udp + 4..udp + 6].fill(0);
    frame.truncate(udp + 8 + 8 + 14);
    frame
}

fn check_tunnel(spec: &NodeSpec, node_ip: IpAddr, adjacency: &Adjacency) -> &'static str {
    let Some(vxlan) = spec.calico.vxlan else {
        assert!(matches!(adjacency.kind, Kind::Drop(_)), "{adjacency:?}");
        return "no tunnel end of our own";
    };
    match &adjacency.kind {
        Kind::VxlanV4(template) => {
            assert_eq!(template.bytes[..], expected_template(spec, node_ip));
            assert_eq!(Some(adjacency.mtu), vxlan.v4.map(|local| local.mtu));
            "headers v4"
        }
        Kind::VxlanV6(template) => {
            assert_eq!(template.bytes[..], expected_template(spec, node_ip));
            assert_eq!(Some(adjacency.mtu), vxlan.v6.map(|local| local.mtu));
            "headers v6"
        }
        other => {
            assert!(matches!(other, Kind::Drop(_)), "{other:?}");
            assert!(twin::in_vxlan(spec, node_ip, [0, 0], &[0x45; 20]).is_empty());
            "no tunnel end of our own"
        }
    }
}

fn check(spec: &NodeSpec, tables: &Tables, e: &mut Entropy<'_>, coverage: &mut BTreeMap<String, u64>) {
    let mut note = |what: String| *coverage.entry(what).or_default() += 1;
    for _ in 0..16 {
        let address = calico::address(e);
        let entry = tables.calico.route(address);
        let found = entry.map(|entry| (entry.prefix, &entry.route));
        assert_eq!(found, twin::route(spec, address), "{address}\n{:#?}", spec.calico);
        let way = entry.map(|entry| entry.way);
        assert_eq!(way, twin::way(spec, address), "{address}\n{:#?}", spec.calico);
        let family = if address.is_ipv6() { "v6" } else { "v4" };
        note(format!("{} {family}", way.map_or("nothing", name)));
        if let Some(CalicoWay::Vxlan(node_ip)) = way {
            let adjacency = tables.calico.adjacency(node_ip).expect("a way leads to a tunnel end");
            note(check_tunnel(spec, node_ip, adjacency).to_owned());
        }
    }
    let entries: Vec<_> = tables.calico.entries().iter().map(|entry| (&entry.prefix, &entry.route)).collect();
    assert_eq!(entries, spec.calico.routes.iter().collect::<Vec<_>>());
}

fn play(bytes: &[u8], coverage: &mut BTreeMap<String, u64>) {
    let mut e = Entropy::new(bytes);
    let mut spec = NodeSpec::default();
    let mut tables = compile(&spec, None, 1);
    while !e.is_empty() {
        let before = spec.clone();
        calico::change(&mut spec, &mut e);
        let next = compile(&spec, Some(&tables), tables.generation + 1);
        if before.calico == spec.calico && before.settings == spec.settings {
            assert!(Arc::ptr_eq(&next.calico, &tables.calico), "nothing has changed");
            *coverage.entry("kept".into()).or_default() += 1;
        }
        tables = next;
        check(&spec, &tables, &mut e, coverage);
    }
}

#[test]
fn the_tables_say_what_the_twin_says_after_any_changes() {
    let coverage = std::cell::RefCell::new(BTreeMap::new());
    let config = Config { cases: 250, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
        .run(&(any::<u64>(), 0usize..3000), |(seed, len)| {
            play(&noise(seed, len), &mut coverage.borrow_mut());
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let coverage = coverage.into_inner();
    for (what, count) in &coverage {
        println!("{count:8} {what}");
    }
    let ways = WAYS.iter().chain(&["nothing"]).flat_map(|way| ["v4", "v6"].map(|f| format!("{way} {f}")));
    let others = ["headers v4", "headers v6", "no tunnel end of our own", "kept"].map(str::to_owned);
    let never: Vec<String> = ways.chain(others).filter(|what| !coverage.contains_key(what)).collect();
    assert!(never.is_empty(), "never seen: {never:?}");
}
