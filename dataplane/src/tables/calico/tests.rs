//! What stays in its place when something else changes. That the tables say what the twin says is in
//! `tests/calico_network.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::spec::calico::{CalicoRoute, CalicoVtep, CalicoWay, PoolKind, RouteKind, Tunnels};
use crate::spec::{NodeSpec, Route, Via};
use crate::tables::{Kind, Tables, compile};
use crate::testing::world::{self, mac, outer};
use crate::verdict::DropReason;

fn remote(node: &str) -> CalicoRoute {
    CalicoRoute {
        kind: RouteKind::RemoteWorkload,
        pool: PoolKind::Vxlan,
        node: Some(node.into()),
        node_ip: Some(outer(2, false)),
        same_subnet: false,
        nat_outgoing: true,
        local_workload: false,
        tunnels: Tunnels::default(),
    }
}

/// A block on node 2, with its tunnel end.
fn spec() -> NodeSpec {
    let mut spec = NodeSpec::default();
    let end = CalicoVtep { address: pod(), mac: mac(2, false), node_ip: outer(2, false) };
    spec.calico.vxlan = world::spec(1).vxlan;
    spec.calico.routes = Arc::new(BTreeMap::from([("10.9.2.0/26".parse().unwrap(), remote("node2"))]));
    spec.calico.vteps = Arc::new(BTreeMap::from([(("node2".into(), false), end)]));
    spec
}

fn pod() -> IpAddr {
    "10.9.2.7".parse().unwrap()
}

fn way(tables: &Tables) -> CalicoWay {
    tables.calico.route(pod()).unwrap().way
}

#[test]
fn what_does_not_concern_it_leaves_it_in_its_place() {
    let before = compile(&spec(), None, 1);
    let mut changed = spec();
    changed
        .routes
        .push(Route { prefix: "10.8.0.0/16".parse().unwrap(), via: Via::Drop(DropReason::NoRoute) });
    let after = compile(&changed, Some(&before), 2);
    assert!(Arc::ptr_eq(&before.calico, &after.calico));
    changed.settings.outer_ttl = 3;
    let after = compile(&changed, Some(&after), 3);
    assert!(!Arc::ptr_eq(&before.calico, &after.calico), "the outer headers are others");
}

#[test]
fn a_tunnel_end_that_goes_leaves_its_routes_unresolved_until_it_comes_back() {
    let mut spec = spec();
    let tables = compile(&spec, None, 1);
    assert_eq!(way(&tables), CalicoWay::Vxlan(outer(2, false)));
    let ends = std::mem::take(&mut spec.calico.vteps);
    let tables = compile(&spec, Some(&tables), 2);
    assert_eq!(way(&tables), CalicoWay::Unresolved);
    assert!(tables.calico.adjacency(outer(2, false)).is_none());
    spec.calico.vteps = ends;
    let tables = compile(&spec, Some(&tables), 3);
    assert_eq!(way(&tables), CalicoWay::Vxlan(outer(2, false)));
}

#[test]
fn a_path_mtu_outlives_a_change_of_routes() {
    let mut spec = spec();
    let before = compile(&spec, None, 1);
    let cell = |tables: &Tables| {
        let adjacency = tables.calico.adjacency(outer(2, false)).unwrap();
        Arc::clone(adjacency.path_mtu().unwrap())
    };
    Arc::make_mut(&mut spec.calico.routes).clear();
    let after = compile(&spec, Some(&before), 2);
    assert!(Arc::ptr_eq(&cell(&before), &cell(&after)));
}

#[test]
fn without_a_tunnel_end_of_our_own_nothing_goes_into_the_tunnel() {
    let spec = {
        let mut spec = spec();
        spec.calico.vxlan = None;
        spec
    };
    let tables = compile(&spec, None, 1);
    let adjacency = tables.calico.adjacency(outer(2, false)).unwrap();
    assert!(matches!(adjacency.kind, Kind::Drop(DropReason::NoUnderlay)));
}
