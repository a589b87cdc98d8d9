//! What is behind gateway interfaces, and what is not.

use std::num::NonZeroU16;
use std::sync::Arc;

use canal_dataplane::spec::{Gateway, Hop};
use canal_dataplane::verdict::DropReason::NoRoute;

use super::*;
use crate::edge::Whose;
use crate::host::view::HostRoute;

/// `dst [via hop] dev ifindex metric n`.
fn route(dst: &str, hop: Option<&str>, ifindex: u32, metric: u32) -> HostRoute {
    HostRoute {
        dst: net(dst),
        metric,
        ifindex,
        gateway: hop.map(ip),
        weight: NonZeroU16::MIN,
        src: None,
        scope: Scope::Global,
        protocol: 3,
    }
}

/// Node n1 with hosts behind `eth1`, which is 198.51.100.1/24.
fn world(routes: &[HostRoute]) -> World {
    let mut world = World::new(DUAL);
    world.gateways = vec!["eth1".into()];
    let host = Arc::make_mut(&mut world.host);
    host.routes = routes.to_vec();
    host.routes.push(route("198.51.100.0/24", None, 3, 0));
    host.sort();
    world
}

fn by(hops: &[(&str, Option<&str>)]) -> Option<Via> {
    let hops: Vec<_> = hops.iter().map(|(name, hop)| (*name, *hop, 1)).collect();
    by_weight(&hops)
}

fn by_weight(hops: &[(&str, Option<&str>, u16)]) -> Option<Via> {
    let hop = |(name, hop, weight): &(&str, Option<&str>, u16)| Hop {
        interface: Arc::from(*name),
        next_hop: hop.map(ip),
        weight: NonZeroU16::new(*weight).unwrap(),
    };
    Some(Via::Gateway(hops.iter().map(hop).collect()))
}

#[test]
fn what_the_kernel_reaches_by_the_interface_is_behind_it() {
    let world = world(&[
        route("0.0.0.0/0", Some("198.51.100.254"), 3, 0),
        route("172.20.0.0/16", Some("198.51.100.2"), 3, 100),
        route("172.20.0.0/16", Some("198.51.100.3"), 3, 100),
        route("172.20.0.0/16", Some("198.51.100.4"), 3, 200),
        route("fd72::/32", Some("fe80::2"), 3, 1024),
        route("fe80::/64", None, 3, 256),
        route("ff00::/8", None, 3, 256),
    ]);
    let Resolved { spec, gateway_trouble, .. } = world.resolve();
    let eth1 = Gateway {
        name: "eth1".into(),
        ifindex: Some(3),
        mtu: 1500,
        address_v4: Some([198, 51, 100, 1].into()),
        address_v6: None,
        sources: vec![net("172.20.0.0/16"), net("198.51.100.0/24"), net("fd72::/32")],
    };
    assert_eq!((spec.gateways, gateway_trouble), (vec![eth1], Vec::<String>::new()));
    assert_eq!(world.via("198.51.100.0/24"), by(&[("eth1", None)]));
    let both = by(&[("eth1", Some("198.51.100.2")), ("eth1", Some("198.51.100.3"))]);
    assert_eq!(world.via("172.20.0.0/16"), both);
    assert_eq!(world.via("fd72::/32"), by(&[("eth1", Some("fe80::2"))]));
    for prefix in ["0.0.0.0/0", "fe80::/64", "ff00::/8"] {
        assert_eq!(world.via(prefix), None, "{prefix}");
    }
}

#[test]
fn ways_have_the_kernels_weights_and_those_named_twice_all_of_them() {
    let weighted = |hop, weight| HostRoute {
        weight: NonZeroU16::new(weight).unwrap(),
        ..route("172.20.0.0/16", Some(hop), 3, 0)
    };
    let world =
        world(&[weighted("198.51.100.3", 3), weighted("198.51.100.2", 1), weighted("198.51.100.2", 256)]);
    let ways = by_weight(&[("eth1", Some("198.51.100.2"), 257), ("eth1", Some("198.51.100.3"), 3)]);
    assert_eq!(world.via("172.20.0.0/16"), ways);
}

#[test]
fn ways_over_two_gateways_are_one_route_and_ways_that_the_kernel_does_not_take_are_none() {
    let mut world = world(&[
        route("172.20.0.0/16", Some("198.51.100.2"), 3, 0),
        route("172.20.0.0/16", Some("203.0.113.2"), 4, 0),
        route("172.21.0.0/16", Some("192.0.2.254"), 2, 0),
        route("172.21.0.0/16", Some("198.51.100.2"), 3, 100),
    ]);
    world.gateways.insert(0, "eth2".into());
    let host = Arc::make_mut(&mut world.host);
    host.links.push(link(4, "eth2"));
    host.sort();
    let both = by(&[("eth1", Some("198.51.100.2")), ("eth2", Some("203.0.113.2"))]);
    assert_eq!(world.via("172.20.0.0/16"), both);
    assert_eq!(world.via("172.21.0.0/16"), None, "the kernel prefers the underlay");
    let spec = world.resolve().spec;
    assert_eq!(spec.gateways.iter().map(|gateway| &*gateway.name).collect::<Vec<_>>(), ["eth1", "eth2"]);
    assert!(spec.gateways[0].sources.contains(&net("172.21.0.0/16")), "answers may come by it all the same");
    let plan = world.node(|node| edge_plan(node, &spec));
    assert_eq!(plan.gateways.keys().collect::<Vec<_>>(), [&3, &4]);
}

#[test]
fn the_overlay_other_nodes_and_the_host_itself_are_never_behind_a_gateway() {
    let mut world = world(&[
        // A part of the overlay, a node, and everything around both.
        route("10.244.200.0/24", Some("198.51.100.2"), 3, 0),
        route("192.0.2.2/32", Some("198.51.100.2"), 3, 0),
        route("10.0.0.0/8", Some("198.51.100.2"), 3, 0),
        route("192.0.0.0/16", Some("198.51.100.2"), 3, 0),
        route("10.244.0.0/16", None, 9, 0),
        route("192.0.2.0/24", None, 2, 0),
    ]);
    world.peer("10.244.2.0-24", "192.0.2.2");
    assert_eq!(world.via("10.244.200.0/24"), Some(Via::Drop(NoRoute)));
    assert_eq!(world.via("192.0.2.2/32"), Some(Via::Vtep(ip("192.0.2.2"))));
    assert_eq!(world.via("10.0.0.0/8"), by(&[("eth1", Some("198.51.100.2"))]));
    // Nothing falls through to the wide routes: addresses without a lease, hosts on the underlay.
    assert_eq!(world.via("10.244.0.0/16"), Some(Via::Drop(NoRoute)));
    assert_eq!(world.via("192.0.2.0/24"), Some(Via::Drop(NoRoute)));
    let complaints = world.complaints();
    assert!(complaints.contains("10.244.200.0/24 lies in the overlay's network"), "{complaints}");
    assert!(complaints.contains("192.0.2.2/32 is another node's"), "{complaints}");
    let Resolved { spec, .. } = world.resolve();
    let plan = world.node(|node| edge_plan(node, &spec));
    for (prefix, whose) in [
        ("10.244.0.0/16", Whose::Overlay),
        ("10.244.2.0/24", Whose::Overlay),
        ("192.0.2.2/32", Whose::Overlay),
        ("fd00:10::/48", Whose::Overlay),
        ("10.0.0.0/8", Whose::Behind),
        ("192.0.2.0/24", Whose::Kernel),
        ("198.51.100.0/24", Whose::Behind),
        ("198.51.100.1/32", Whose::Kernel),
        ("10.244.1.0/32", Whose::Kernel),
    ] {
        assert_eq!(plan.destinations.get(&net(prefix)), Some(&whose), "{prefix}");
    }
}

#[test]
fn an_interface_that_is_missing_or_something_else_is_no_gateway_and_said_so() {
    let mut world = World::new(VXLAN);
    world.workload("a", "cali0", r#""10.244.1.5/32""#);
    world.gateways = ["eth9", "eth0", "canal0", "cali0", "lo"].map(String::from).to_vec();
    let Resolved { spec, gateway_trouble, .. } = world.resolve();
    assert_eq!(
        gateway_trouble,
        [
            "the gateway interface cali0 is that of the workload default/n1-k8s-a-eth0",
            "the gateway interface canal0 is the host's own device",
            "the gateway interface eth0 carries the overlay; it cannot be both",
            "the gateway interface eth9 does not exist",
            "the gateway interface lo is the host's own device",
        ]
    );
    assert!(spec.gateways.iter().all(|gateway| gateway.ifindex.is_none()));
    let plan = world.node(|node| edge_plan(node, &spec));
    assert_eq!((plan.gateways.len(), plan.destinations.len()), (0, 0));
    assert_eq!(plan.workloads, [7].into());
}

/// The same of the node as [`World::peer`] says, over another network.
fn announce(world: &mut World, network: &str, public_ip: &str) {
    world.peer(network, public_ip);
}

#[test]
fn a_lease_outside_of_the_network_that_says_what_a_node_says_is_behind_its_gateway() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.2.0-24", "192.0.2.2");
    announce(&mut world, "172.16.9.0-24", "192.0.2.2");
    announce(&mut world, "172.17.0.0-16", "192.0.2.3");
    announce(&mut world, "172.16.9.128-25", "192.0.2.2");
    announce(&mut world, "192.0.2.0-24", "192.0.2.2");
    announce(&mut world, "172.18.0.0-16", "192.0.2.1");
    assert_eq!(world.via("172.16.9.0/24").or(world.via("172.16.9.128/25")), Some(Via::Vtep(ip("192.0.2.2"))));
    let Resolved { spec, .. } = world.resolve();
    let owns = &spec.vteps.iter().find(|vtep| vtep.outer == ip("192.0.2.2")).unwrap().owns;
    assert_eq!(spec.vteps.len(), 1);
    assert_eq!(owns, &[net("10.244.2.0/24"), net("172.16.9.128/25"), net("192.0.2.2/32")]);
    for prefix in ["172.17.0.0/16", "192.0.2.0/24", "172.18.0.0/16", "172.16.9.0/24"] {
        assert_eq!(world.via(prefix), None, "{prefix}");
    }
    let complaints = world.complaints();
    for why in [
        "172.17.0.0/16 is not inside the network; ignored",
        "172.16.9.0/24, announced as behind a gateway, overlaps 172.16.9.128/25; ignored",
        "192.0.2.0/24, announced as behind a gateway, holds a node's address 192.0.2.2; ignored",
    ] {
        assert!(complaints.contains(why), "{complaints}");
    }
    assert!(!complaints.contains("172.18.0.0/16"), "this node's own is no complaint: {complaints}");
    // The host reaches it by our device, as a flannel node does by its own.
    let desired = world.node(|node| desired(node, &spec));
    let destinations: Vec<IpNetwork> = desired.routes.iter().map(|route| route.dst).collect();
    assert_eq!(destinations, [net("10.244.0.0/16"), net("172.16.9.128/25")]);
}

#[test]
fn of_two_gateways_to_one_network_the_own_one_is_the_way() {
    let mut world = world(&[]);
    world.peer("10.244.2.0-24", "192.0.2.2");
    announce(&mut world, "198.51.100.0-24", "192.0.2.2");
    assert_eq!(world.via("198.51.100.0/24"), by(&[("eth1", None)]));
    let complaints = world.complaints();
    assert!(complaints.contains("behind a gateway of another node, too"), "{complaints}");
    let spec = world.resolve().spec;
    assert!(spec.routes.windows(2).all(|pair| pair[0].prefix != pair[1].prefix));
    assert!(spec.vteps[0].owns.contains(&net("198.51.100.0/24")), "its packets may come by the tunnel, too");
    let desired = world.node(|node| desired(node, &spec));
    assert!(desired.routes.iter().all(|route| route.dst != net("198.51.100.0/24")));
}

#[test]
fn plain_packets_to_hosts_behind_gateways_are_taken_where_peers_send_them() {
    for (config, plain) in [(VXLAN, false), (DIRECT, true), (HOST_GW, true)] {
        let mut world = World::new(config);
        let takes = |world: &World| {
            let spec = world.resolve().spec;
            world.node(|node| edge_plan(node, &spec)).underlay.unwrap().plain_to_gateways
        };
        assert!(!takes(&world), "{config}: no gateway");
        world.gateways = vec!["eth1".into()];
        assert_eq!(takes(&world), plain, "{config}");
    }
}

#[test]
fn how_far_host_endpoints_are_enforced_is_said() {
    const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/hostendpoints/";
    let mut world = world(&[]);
    let said = |world: &mut World| -> Vec<(String, bool)> {
        world.resolution = Some(calico::resolution(&world.state));
        let told = world.resolve().complaints.into_iter();
        let of_hosts = told.filter_map(|c| Some((c.key.strip_prefix(RESOURCES)?.to_owned(), c.sentence)));
        of_hosts
            .map(|(name, sentence)| {
                assert!(
                    sentence.contains("the host's own traffic is not taken off the interface"),
                    "{sentence}"
                );
                (name, sentence.starts_with("enforced for what passes gateway interfaces"))
            })
            .collect()
    };
    let host = |interface| format!(r#"{{"spec":{{"node":"n1","interfaceName":"{interface}"}}}}"#);
    world.put(&format!("{RESOURCES}every"), &host("*"));
    world.put(&format!("{RESOURCES}other"), &host("eth0"));
    assert_eq!(said(&mut world), [("every".into(), true), ("other".into(), false)]);
    // Where each gateway interface has a host endpoint of its own, the one for all has none to judge.
    world.put(&format!("{RESOURCES}own"), &host("eth1"));
    assert_eq!(said(&mut world), [("every".into(), false), ("other".into(), false), ("own".into(), true)]);
    world.gateways.clear();
    assert!(said(&mut world).iter().all(|(_, enforced)| !enforced));
}
