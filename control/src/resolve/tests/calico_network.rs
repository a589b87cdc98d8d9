//! Calico's own routes and tunnel ends.

use canal_dataplane::spec::calico::{CalicoNetwork, PoolKind, RouteKind};

use super::*;

/// `n1` and `n2` with tunnel ends of Calico's, and a block on the latter.
fn calico_network(world: &mut World) {
    let resources = "/calico/resources/v3/projectcalico.org";
    world.put(
        &format!("{resources}/ippools/vxlan"),
        r#"{"metadata":{"name":"vxlan"},"spec":{"cidr":"10.9.0.0/16","vxlanMode":"Always","natOutgoing":true}}"#,
    );
    for (node, number) in [("n1", 1), ("n2", 2)] {
        world.put(
            &format!("{resources}/nodes/{node}"),
            &format!(
                r#"{{"metadata":{{"name":"{node}"}},"spec":{{"bgp":{{"ipv4Address":"192.0.2.{number}/24"}},"ipv4VXLANTunnelAddr":"10.9.{number}.0"}}}}"#
            ),
        );
    }
    world.put(
        "/calico/ipam/v2/assignment/ipv4/block/10.9.2.0-26",
        r#"{"cidr":"10.9.2.0/26","affinity":"host:n2","allocations":[],"unallocated":[],"attributes":[]}"#,
    );
}

#[test]
fn calicos_own_network_is_in_the_spec_whether_policy_is_enforced_or_not() {
    let mut world = World::new(VXLAN);
    assert_eq!(world.resolve().spec.calico, CalicoNetwork::default());
    calico_network(&mut world);
    let calico = world.resolve().spec.calico;
    let block = &calico.routes[&"10.9.2.0/26".parse().unwrap()];
    assert_eq!(
        (block.kind, block.pool, block.node.as_deref()),
        (RouteKind::RemoteWorkload, PoolKind::Vxlan, Some("n2"))
    );
    assert_eq!(calico.vteps.len(), 2);
    let mac = calico.vteps[&("n1".into(), false)].mac;
    let local = LocalVtep { address: [192, 0, 2, 1].into(), mac, mtu: 1450 };
    assert_eq!(calico.vxlan, Some(Vxlan { vni: Vni::CALICO, port: 4789, v4: Some(local), v6: None }));
    assert_eq!(world.resolve().spec.vxlan.unwrap().port, 8472, "packets go as flannel's network says");

    world.felix.vxlan.mtu = std::num::NonZeroU16::new(1400);
    world.felix.vxlan.port = 4790;
    let vxlan = world.resolve().spec.calico.vxlan.unwrap();
    assert_eq!((vxlan.port, vxlan.v4.unwrap().mtu), (4790, 1400));
}

#[test]
fn calicos_network_is_shared_while_it_stays_as_it_is() {
    let mut world = World::new(VXLAN);
    calico_network(&mut world);
    let mut graph = calico::CalicoGraph::new("n1", calico::routes::RouteSource::default());
    calico::sync(&mut graph, world.state.calico());
    graph.flush();
    let network = |graph: &calico::CalicoGraph, world: &World| {
        world.node(|node| resolve(&world.state, node, graph.resolution(), Policy::Open).spec.calico)
    };
    let before = network(&graph, &world);
    world.workload("elsewhere", "cali0", "");
    calico::sync(&mut graph, world.state.calico());
    graph.flush();
    let after = network(&graph, &world);
    assert!(Arc::ptr_eq(&before.routes, &after.routes) && Arc::ptr_eq(&before.vteps, &after.vteps));
    world.workload("a", "cali0", r#""10.244.1.2/32""#);
    calico::sync(&mut graph, world.state.calico());
    graph.flush();
    let after = network(&graph, &world);
    assert!(!Arc::ptr_eq(&before.routes, &after.routes), "there is a workload more");
    assert!(Arc::ptr_eq(&before.vteps, &after.vteps));
}
