use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::net::{Mac, Vni};
use canal_dataplane::spec::calico::{CalicoNetwork, PoolKind, RouteKind};
use canal_dataplane::spec::policy::{EndpointPolicy, EndpointToHost};
use canal_dataplane::spec::{Endpoint, Route, Via, Vtep};
use canal_dataplane::verdict::DropReason::{UnassignedAddress, UnresolvedVtep};
use proptest::prelude::*;

use super::*;
use crate::datastore::{Change, KeyValue, Revision};
use crate::edge::{EdgePlan, UnderlayPlan};
use crate::host::fake::{address, link};
use crate::model::calico::WorkloadKey;
use crate::model::flannel::Prefix;

mod gateways;

const VXLAN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10::/48","Backend":{"Type":"vxlan","VNI":7,"Port":4789}}"#;
const DIRECT: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
const HOST_GW: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#;
const ALLOC: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"alloc"}}"#;

const OWN_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OWN_V6_MAC: Mac = Mac([2, 0, 0, 0, 6, 1]);

/// Node `n1` at 192.0.2.1 with 10.244.1.0/24 and fd00:10:0:1::/64, on `eth0`.
struct World {
    state: State,
    config: NetworkConfig,
    external: External,
    host: Arc<HostView>,
    on_link: BTreeSet<IpAddr>,
    felix: Values,
    gateways: Vec<String>,
    revision: Revision,
    /// What Calico's resources say; everything is allowed without.
    resolution: Option<calico::Resolution>,
    /// Of all that was resolved before.
    resolver: RefCell<Resolver>,
}

impl World {
    fn new(config: &str) -> Self {
        let mut veth = link(7, "cali0");
        veth.kind = Some("veth".into());
        veth.mtu = 1440;
        let mut loopback = link(1, "lo");
        loopback.loopback = true;
        let host = HostView {
            links: vec![loopback, link(2, "eth0"), link(3, "eth1"), veth, link(9, "canal0")],
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(2, "192.0.2.1/24"),
                address(2, "2001:db8::1/64"),
                address(3, "198.51.100.1/24"),
                address(9, "10.244.1.0/32"),
            ],
            routes: vec![],
        };
        let external = External {
            ifindex: 2,
            name: "eth0".into(),
            mtu: 1500,
            v4: Some([192, 0, 2, 1].into()),
            v6: Some("2001:db8::1".parse().unwrap()),
            public_v4: Some([192, 0, 2, 1].into()),
            public_v6: Some("2001:db8::1".parse().unwrap()),
        };
        let mut world = Self {
            state: State::new("n1", &Prefix::default()),
            config: NetworkConfig::read(config.as_bytes()).unwrap(),
            external,
            host: Arc::new(host),
            on_link: BTreeSet::new(),
            felix: Values::default(),
            gateways: Vec::new(),
            revision: 1,
            resolution: None,
            resolver: RefCell::default(),
        };
        world.put("/coreos.com/network/config", config);
        world
    }

    fn put(&mut self, key: &str, value: &str) {
        self.revision += 1;
        let entry =
            KeyValue { key: key.into(), value: value.into(), mod_revision: self.revision, lease: None };
        self.state.apply(&[Change { key: key.into(), value: Some(entry), revision: self.revision }]);
    }

    /// A vxlan node's lease.
    fn peer(&mut self, subnets: &str, public_ip: &str) {
        let value = format!(
            r#"{{"PublicIP":"{public_ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}}}"#
        );
        self.lease(subnets, &value);
    }

    fn lease(&mut self, subnets: &str, value: &str) {
        self.put(&format!("/coreos.com/network/subnets/{subnets}"), value);
    }

    fn workload(&mut self, name: &str, interface: &str, networks: &str) {
        let key = WorkloadKey::new("default", &format!("n1-k8s-{name}-eth0")).key();
        let value =
            format!(r#"{{"spec":{{"node":"n1","interfaceName":"{interface}","ipNetworks":[{networks}]}}}}"#);
        self.put(&key, &value);
    }

    fn node<R>(&self, f: impl FnOnce(&NodeFacts<'_>) -> R) -> R {
        let backend = self.config.backend().unwrap();
        f(&NodeFacts {
            config: &self.config,
            backend: &backend,
            external: &self.external,
            subnets: Subnets {
                v4: "10.244.1.0/24".parse().unwrap(),
                v6: self.config.v6.map(|_| "fd00:10:0:1::/64".parse().unwrap()),
            },
            identity: Identity { vtep_mac: OWN_MAC, vtep_v6_mac: OWN_V6_MAC },
            host: &self.host,
            on_link: &self.on_link,
            device: "canal0",
            gateways: &self.gateways,
            settings: Settings { outer_df: true, ..Settings::default() },
            felix: &self.felix,
        })
    }

    /// The same whether the past is known or not.
    fn resolve(&self) -> Resolved {
        self.node(|node| {
            let policy = if self.resolution.is_some() { Policy::Enforced } else { Policy::Open };
            let resolution = self.resolution.clone().unwrap_or_else(|| calico::resolution(&self.state));
            let resolved = resolve(&self.state, node, &resolution, policy);
            let kept = self.resolver.borrow_mut().resolve(&self.state, node, &resolution, policy);
            assert_eq!(kept, resolved);
            resolved
        })
    }

    fn via(&self, prefix: &str) -> Option<Via> {
        let prefix = net(prefix);
        self.resolve().spec.routes.iter().find(|route| route.prefix == prefix).map(|route| route.via.clone())
    }

    fn complaints(&self) -> String {
        let lines = self.resolve().complaints.into_iter().map(|c| format!("{}: {}\n", c.key, c.sentence));
        lines.collect()
    }
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_peer_is_a_vtep_and_two_routes() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.2.0-24", "192.0.2.2");
    world.peer("10.244.1.0-24", "192.0.2.1");
    world.state.reached(9);
    let Resolved { spec, complaints, .. } = world.resolve();
    let vtep = Via::Vtep(ip("192.0.2.2"));
    let expected = NodeSpec {
        revision: 9,
        settings: Settings { outer_df: true, ..Settings::default() },
        vxlan: Some(Vxlan {
            vni: Vni::FLANNEL,
            port: 8472,
            v4: Some(LocalVtep { address: [192, 0, 2, 1].into(), mac: OWN_MAC, mtu: 1450 }),
            v6: None,
        }),
        host_addresses: vec![ip("10.244.1.0"), ip("192.0.2.1"), ip("198.51.100.1"), ip("2001:db8::1")],
        gateway_v4: Some([10, 244, 1, 0].into()),
        gateway_v6: Some("2001:db8::1".parse().unwrap()),
        endpoints: vec![].into(),
        vteps: vec![Vtep {
            outer: ip("192.0.2.2"),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            owns: vec![net("10.244.2.0/24"), net("192.0.2.2/32")],
        }]
        .into(),
        routes: vec![
            Route { prefix: net("10.244.1.0/24"), via: Via::Drop(UnassignedAddress) },
            Route { prefix: net("10.244.2.0/24"), via: vtep.clone() },
            Route { prefix: net("192.0.2.2/32"), via: vtep },
        ]
        .into(),
        direct_sources: vec![net("10.244.2.0/24"), net("192.0.2.2/32")].into(),
        ..NodeSpec::default()
    };
    assert_eq!(spec, expected);
    assert_eq!(complaints, []);
}

#[test]
fn a_dual_stack_peer_is_two_vteps() {
    let mut world = World::new(DUAL);
    world.lease(
        "10.244.2.0-24&fd00:10:0:2::-64",
        r#"{"publicip":"192.0.2.2","PublicIPv6":"2001:db8::2","BackendType":"vxlan",
            "BackendData":{"VtepMAC":"02:00:00:00:00:02"},"BackendV6Data":{"VNI":9,"VtepMAC":"02:00:00:00:06:02"}}"#,
    );
    let spec = world.resolve().spec;
    let vxlan = spec.vxlan.unwrap();
    assert_eq!((vxlan.vni.get(), vxlan.port), (7, 4789));
    assert_eq!(vxlan.v6.unwrap().mtu, 1430);
    assert_eq!(vxlan.v6.unwrap().mac, OWN_V6_MAC);
    let six = &spec.vteps[1];
    assert_eq!((six.outer, six.mac), (ip("2001:db8::2"), Mac([2, 0, 0, 0, 6, 2])));
    assert_eq!(six.owns, [net("2001:db8::2/128"), net("fd00:10:0:2::/64")]);
    assert_eq!(spec.vteps[0].owns, [net("10.244.2.0/24"), net("192.0.2.2/32")]);
    assert_eq!(world.via("fd00:10:0:2::/64"), Some(Via::Vtep(ip("2001:db8::2"))));
    assert_eq!(world.via("fd00:10:0:1::/64"), Some(Via::Drop(UnassignedAddress)));
    assert_eq!(spec.gateway_v6, Some("fd00:10:0:1::".parse().unwrap()));
    assert!(spec.host_addresses.contains(&ip("fd00:10:0:1::")));
    assert_eq!(world.complaints(), "");
}

#[test]
fn half_a_dual_stack_peer_is_reached_by_that_half() {
    let mut world = World::new(DUAL);
    world.peer("10.244.2.0-24&fd00:10:0:2::-64", "192.0.2.2");
    assert_eq!(world.via("10.244.2.0/24"), Some(Via::Vtep(ip("192.0.2.2"))));
    assert_eq!(world.via("fd00:10:0:2::/64"), Some(Via::Drop(UnresolvedVtep)));
    assert!(world.complaints().contains("no usable PublicIPv6"));
}

#[test]
fn what_a_peer_published_and_we_cannot_use_drops_with_a_complaint() {
    for (value, complaint) in [
        (r#"{"PublicIP":"192.0.2.2","BackendType":"host-gw"}"#, "its backend is \"host-gw\""),
        (r#"{"PublicIP":"192.0.2.2"}"#, "its backend is \"\""),
        (r#"{"PublicIP":"192.0.2.2","BackendType":"vxlan"}"#, "no tunnel end point"),
        (r#"{"PublicIP":"192.0.2.2","BackendType":"vxlan","BackendData":{"VtepMAC":"x"}}"#, "VtepMAC"),
        (r#"{"BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:02"}}"#, "0.0.0.0 is no node's"),
        (
            r#"{"PublicIP":"127.0.0.1","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:02"}}"#,
            "no node's",
        ),
        ("gibberish", "lease value"),
    ] {
        let mut world = World::new(VXLAN);
        world.lease("10.244.2.0-24", value);
        assert_eq!(world.via("10.244.2.0/24"), Some(Via::Drop(UnresolvedVtep)), "{value}");
        let resolved = world.resolve();
        assert_eq!((resolved.spec.vteps.len(), resolved.spec.routes.len()), (0, 2), "{value}");
        assert!(world.complaints().contains(complaint), "{value}: {}", world.complaints());
    }
}

#[test]
fn a_lease_outside_of_the_network_gets_nothing() {
    let mut world = World::new(VXLAN);
    world.peer("0.0.0.0-0", "192.0.2.2");
    world.peer("172.16.0.0-24", "192.0.2.3");
    assert_eq!(world.resolve().spec.routes.len(), 1);
    assert_eq!(world.complaints().matches("not inside the network").count(), 2);
}

#[test]
fn our_own_subnet_is_nobody_elses() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.1.128-25", "192.0.2.2");
    world.peer("10.244.0.0-23", "192.0.2.3");
    assert_eq!(world.resolve().spec.routes.len(), 1);
    assert!(world.complaints().contains("10.244.1.128/25 overlaps 10.244.1.0/24"));
}

#[test]
fn of_overlapping_leases_the_newest_stands() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.8.0-22", "192.0.2.2");
    world.peer("10.244.9.0-24", "192.0.2.3");
    assert_eq!(world.via("10.244.9.0/24"), Some(Via::Vtep(ip("192.0.2.3"))));
    assert_eq!(world.via("10.244.8.0/22"), None);
    world.peer("10.244.8.0-22", "192.0.2.2");
    assert_eq!(world.via("10.244.8.0/22"), Some(Via::Vtep(ip("192.0.2.2"))));
    assert_eq!(world.via("10.244.9.0/24"), None);
    assert_eq!(world.via("192.0.2.3/32"), None);
}

#[test]
fn of_leases_with_one_address_the_newest_is_reached() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.2.0-24", "192.0.2.2");
    world.peer("10.244.3.0-24", "192.0.2.2");
    assert_eq!(world.via("10.244.2.0/24"), Some(Via::Drop(UnresolvedVtep)));
    assert_eq!(world.via("10.244.3.0/24"), Some(Via::Vtep(ip("192.0.2.2"))));
    let superseded = world.resolve().superseded;
    assert_eq!(superseded, ["/coreos.com/network/subnets/10.244.2.0-24".to_owned()].into());
    assert!(world.complaints().contains("10.244.2.0-24: a newer lease has the same address 192.0.2.2"));
}

#[test]
fn a_peer_with_our_address_or_an_address_of_a_pod_is_dropped() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.2.0-24", "192.0.2.1");
    world.peer("10.244.3.0-24", "198.51.100.1");
    world.peer("10.244.4.0-24", "10.244.5.9");
    world.peer("10.244.5.0-24", "192.0.2.5");
    for subnet in ["10.244.2.0/24", "10.244.3.0/24", "10.244.4.0/24"] {
        assert_eq!(world.via(subnet), Some(Via::Drop(UnresolvedVtep)), "{subnet}");
    }
    assert_eq!(world.via("10.244.5.0/24"), Some(Via::Vtep(ip("192.0.2.5"))));
    let complaints = world.complaints();
    assert!(complaints.contains("this node's own address 192.0.2.1"), "{complaints}");
    assert!(complaints.contains("inside the subnet 10.244.5.0/24"), "{complaints}");
}

#[test]
fn a_cloned_vtep_address_is_complained_about() {
    let mut world = World::new(VXLAN);
    let value =
        r#"{"PublicIP":"192.0.2.2","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:01"}}"#;
    world.lease("10.244.2.0-24", value);
    assert_eq!(world.via("10.244.2.0/24"), Some(Via::Vtep(ip("192.0.2.2"))));
    assert!(world.complaints().contains("was this machine cloned?"));
}

#[test]
fn direct_routing_goes_direct_on_the_link_and_tunnels_elsewhere() {
    let mut world = World::new(DIRECT);
    world.peer("10.244.2.0-24", "192.0.2.2");
    world.peer("10.244.3.0-24", "203.0.113.3");
    world.on_link.insert(ip("192.0.2.2"));
    let direct = Via::Direct { next_hop: ip("192.0.2.2"), mtu: 1500 };
    assert_eq!(world.via("10.244.2.0/24"), Some(direct.clone()));
    assert_eq!(world.via("192.0.2.2/32"), Some(direct));
    assert_eq!(world.via("10.244.3.0/24"), Some(Via::Vtep(ip("203.0.113.3"))));
    let spec = world.resolve().spec;
    assert_eq!(spec.vteps.len(), 2, "it may tunnel to us all the same");
    assert_eq!(spec.direct_sources.len(), 4);
}

#[test]
fn host_gw_is_direct_and_complains_about_gateways() {
    let mut world = World::new(HOST_GW);
    world.lease("10.244.2.0-24", r#"{"PublicIP":"192.0.2.2","BackendType":"host-gw"}"#);
    world.lease("10.244.3.0-24", r#"{"PublicIP":"203.0.113.3","BackendType":"host-gw"}"#);
    world.peer("10.244.4.0-24", "192.0.2.4");
    world.on_link.insert(ip("192.0.2.2"));
    let Resolved { spec, .. } = world.resolve();
    assert_eq!((spec.vxlan, spec.vteps.len()), (None, 0));
    for (subnet, hop) in [("10.244.2.0/24", "192.0.2.2"), ("10.244.3.0/24", "203.0.113.3")] {
        assert_eq!(world.via(subnet), Some(Via::Direct { next_hop: ip(hop), mtu: 1500 }));
    }
    assert_eq!(world.via("10.244.4.0/24"), Some(Via::Drop(UnresolvedVtep)));
    assert_eq!(world.complaints().matches("not on the link of eth0").count(), 1);
}

#[test]
fn alloc_has_no_routes_and_takes_nothing_from_the_underlay() {
    let mut world = World::new(ALLOC);
    world.lease("10.244.2.0-24", r#"{"PublicIP":"192.0.2.2"}"#);
    world.workload("a", "cali0", r#""10.244.1.5/32""#);
    let Resolved { spec, complaints, .. } = world.resolve();
    assert_eq!((spec.routes.len(), spec.vteps.len(), spec.direct_sources.len()), (0, 0, 0));
    assert_eq!(spec.gateway_v4, Some([192, 0, 2, 1].into()));
    assert_eq!(complaints, []);
    let plan = world.node(|node| edge_plan(node, &spec));
    assert_eq!(plan, EdgePlan { workloads: [7].into(), ..EdgePlan::default() });
    let desired = world.node(|node| desired(node, &spec));
    assert_eq!(desired.addresses, []);
    let destinations: Vec<_> = desired.routes.iter().map(|route| route.dst).collect();
    assert_eq!(destinations, [net("10.244.1.5/32")]);
}

#[test]
fn endpoints_are_sorted_and_know_their_interface() {
    let mut world = World::new(VXLAN);
    world.workload("b", "cali9", r#""10.244.1.6/32""#);
    world.workload("a", "cali0", r#""10.244.1.5/32","172.16.5.5/32""#);
    world.put(
        &WorkloadKey::new("default", "n2-k8s-c-eth0").key(),
        r#"{"spec":{"interfaceName":"cali0","ipNetworks":["10.244.2.5/32"]}}"#,
    );
    let Resolved { spec, complaints, .. } = world.resolve();
    let expected = [
        Endpoint {
            name: "default/n1-k8s-a-eth0".into(),
            interface: "cali0".into(),
            ifindex: Some(7),
            mac: None,
            networks: vec![net("10.244.1.5/32"), net("172.16.5.5/32")],
            mtu: 1440,
            policy: EndpointPolicy::allow_all(),
        },
        Endpoint {
            name: "default/n1-k8s-b-eth0".into(),
            interface: "cali9".into(),
            ifindex: None,
            mac: None,
            networks: vec![net("10.244.1.6/32")],
            mtu: 1450,
            policy: EndpointPolicy::allow_all(),
        },
    ];
    assert_eq!(*spec.endpoints, expected);
    assert_eq!(complaints, []);
}

#[test]
fn endpoints_cannot_take_what_is_somebody_elses() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.2.0-24", "192.0.2.2");
    world.workload("a", "cali0", r#""10.244.1.5/32""#);
    world.workload("b", "cali0", r#""10.244.1.5/32","10.244.1.6/32""#);
    world.workload(
        "c",
        "eth0",
        r#""10.244.1.0/32","192.0.2.2/32","127.0.0.1/32","169.254.1.1/32","198.51.100.1/32""#,
    );
    world.workload("d", "canal0", r#""10.244.1.7/32""#);
    world.workload("e", "cali1", "");
    let endpoints = world.resolve().spec.endpoints;
    let ifindexes: Vec<_> = endpoints.iter().map(|endpoint| endpoint.ifindex).collect();
    assert_eq!(ifindexes, [Some(7), None, None, None]);
    let networks: Vec<_> = endpoints.iter().map(|endpoint| endpoint.networks.clone()).collect();
    assert_eq!(
        networks,
        [vec![net("10.244.1.5/32")], vec![net("10.244.1.6/32")], vec![], vec![net("10.244.1.7/32")]]
    );
    let complaints = world.complaints();
    for complaint in [
        "cali0 is already that of default/n1-k8s-a-eth0",
        "10.244.1.5 is already an address of default/n1-k8s-a-eth0",
        "eth0 is the host's own",
        "canal0 is the host's own",
        "10.244.1.0 is this host's own address",
        "198.51.100.1 is this host's own address",
        "192.0.2.2 is another node's address",
        "127.0.0.1 is no address for a workload",
        "169.254.1.1 is no address for a workload",
        "it has no ipNetworks",
    ] {
        assert!(complaints.contains(complaint), "{complaint} in\n{complaints}");
    }
}

#[test]
fn our_device_carries_the_network_and_never_a_node() {
    let mut world = World::new(DUAL);
    world.peer("10.244.2.0-24", "192.0.2.2");
    world.workload("a", "cali0", r#""10.244.1.5/32","172.16.5.5/32""#);
    let spec = world.resolve().spec;
    let desired = world.node(|node| desired(node, &spec));
    assert_eq!(
        (desired.device.as_str(), desired.mtu, desired.up, desired.noarp),
        ("canal0", 1430, true, true)
    );
    assert_eq!(desired.addresses, [net("10.244.1.0/32"), net("fd00:10:0:1::/128")]);
    let routes: Vec<_> = desired.routes.iter().map(|route| (route.dst, route.src.unwrap())).collect();
    let expected = [
        (net("10.244.0.0/16"), ip("10.244.1.0")),
        (net("172.16.5.5/32"), ip("10.244.1.0")),
        (net("fd00:10::/48"), ip("fd00:10:0:1::")),
    ];
    assert_eq!(routes, expected);
    let plan = world.node(|node| edge_plan(node, &spec));
    let underlay = UnderlayPlan {
        ifindex: 2,
        name: "eth0".into(),
        v4: Some([192, 0, 2, 1].into()),
        v6: Some("2001:db8::1".parse().unwrap()),
        port: Some(4789),
        own_subnets: vec![net("10.244.1.0/24"), net("fd00:10:0:1::/64")],
        plain_to_gateways: false,
        mtu: 1500,
    };
    assert_eq!(plan, EdgePlan { underlay: Some(underlay), workloads: [7].into(), ..EdgePlan::default() });
}

#[test]
fn an_underlay_too_small_has_no_vtep_and_says_so() {
    let mut world = World::new(VXLAN);
    world.external.mtu = 100;
    assert_eq!(world.resolve().spec.vxlan.unwrap().v4, None);
    assert!(world.complaints().contains("eth0: an underlay MTU of 100"));
}

/// Keys and values that contradict each other in many ways.
fn any_entry() -> impl Strategy<Value = (String, String)> {
    let lease = (0u8..4, prop_oneof![Just(22u8), Just(24), Just(25)], 1u8..5, 0u8..4, 0u8..2).prop_map(
        |(subnet, length, host, mac, kind)| {
            let key = format!("/coreos.com/network/subnets/10.244.{subnet}.0-{length}");
            let kind = ["vxlan", "host-gw"][usize::from(kind)];
            let value = format!(
                r#"{{"PublicIP":"192.0.2.{host}","BackendType":"{kind}","BackendData":{{"VtepMAC":"02:00:00:00:00:0{mac}"}}}}"#
            );
            (key, value)
        },
    );
    let broken =
        (0u8..4).prop_map(|subnet| (format!("/coreos.com/network/subnets/10.244.{subnet}.0-24"), "?".into()));
    let workload = (0u8..4, 0u8..3, 0u8..4).prop_map(|(name, interface, host)| {
        let key = WorkloadKey::new("default", &format!("n1-k8s-{name}-eth0")).key();
        (
            key,
            format!(
                r#"{{"spec":{{"interfaceName":"cali{interface}","ipNetworks":["10.244.1.{host}/32"]}}}}"#
            ),
        )
    });
    prop_oneof![4 => lease, 1 => broken, 3 => workload]
}

proptest! {
    /// However the same final content came about, the outcome is the same, and no two routes say different things
    /// of one prefix, nor does a peer's route reach into another peer's or our own subnet.
    #[test]
    fn order_of_events_never_matters(
        entries in prop::collection::btree_map(0u32..1000, any_entry(), 0..20),
        seed in any::<u64>(),
    ) {
        // The highest number is each key's last write, hence its value and revision.
        let mut last = std::collections::BTreeMap::new();
        for (revision, (key, value)) in &entries { last.insert(key.clone(), (*revision, value.clone())); }
        let change = |key: &String, revision: u32, value: &str| {
            let revision = i64::from(revision);
            let entry = KeyValue { key: key.clone(), value: value.into(), mod_revision: revision, lease: None };
            Change { key: key.clone(), value: Some(entry), revision }
        };
        let mut in_order = World::new(VXLAN);
        for (revision, (key, value)) in &entries { in_order.state.apply(&[change(key, *revision, value)]); }

        let mut shuffled: Vec<_> = last.iter().collect();
        shuffled.sort_by_key(|(key, _)| key.bytes().fold(seed, |hash, b| hash.rotate_left(9) ^ u64::from(b).wrapping_mul(seed | 1)));
        let mut listed = World::new(VXLAN);
        for (key, (revision, value)) in shuffled { listed.state.apply(&[change(key, *revision, value)]); }

        let resolved = listed.resolve();
        prop_assert_eq!(&in_order.resolve(), &resolved);

        let routes = &resolved.spec.routes;
        let prefixes: BTreeSet<_> = routes.iter().map(|route| route.prefix).collect();
        prop_assert_eq!(prefixes.len(), routes.len());
        for a in routes {
            for b in routes {
                let nested = a.prefix != b.prefix && a.prefix.is_ipv4() == b.prefix.is_ipv4() && a.prefix.contains(b.prefix.ip());
                prop_assert!(!nested, "{:?} reaches into {:?}", b, a);
            }
        }
        let mut interfaces: Vec<_> = resolved.spec.endpoints.iter().filter_map(|endpoint| endpoint.ifindex).collect();
        let mut addresses: Vec<_> = resolved.spec.endpoints.iter().flat_map(|endpoint| &endpoint.networks).collect();
        let counts = (interfaces.len(), addresses.len());
        interfaces.sort_unstable();
        interfaces.dedup();
        addresses.sort_unstable();
        addresses.dedup();
        prop_assert_eq!((interfaces.len(), addresses.len()), counts);
    }
}

/// Something that happens to a node.
#[derive(Clone, Debug)]
enum Event {
    Put(String, String),
    Gone(String),
    Mtu(u32),
    Moved(u8),
    OnLink(u8),
    HostAddress(u8),
    InterfacePrefix(bool),
    Gateway(bool),
    /// Everything is allowed again, or what one workload may has changed.
    Policy(Option<(u8, bool)>),
    Lost,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any_entry().prop_map(|(key, value)| Event::Put(key, value)),
        3 => any_entry().prop_map(|(key, _)| Event::Gone(key)),
        1 => prop_oneof![Just(100), Just(1500), Just(9000)].prop_map(Event::Mtu),
        1 => (1u8..5).prop_map(Event::Moved),
        1 => (1u8..5).prop_map(Event::OnLink),
        1 => (1u8..5).prop_map(Event::HostAddress),
        1 => any::<bool>().prop_map(Event::InterfacePrefix),
        1 => any::<bool>().prop_map(Event::Gateway),
        2 => prop::option::of((0u8..4, any::<bool>())).prop_map(Event::Policy),
        1 => Just(Event::Lost),
    ]
}

impl World {
    fn happen(&mut self, event: Event) {
        let node = |host: u8| IpAddr::from([192, 0, 2, host]);
        match event {
            Event::Put(key, value) => self.put(&key, &value),
            Event::Gone(key) => self.state.apply(&[Change { key, value: None, revision: self.revision }]),
            Event::Mtu(mtu) => self.external.mtu = mtu,
            Event::Moved(host) => self.external.public_v4 = Some([192, 0, 2, host].into()),
            Event::OnLink(host) => drop(self.on_link.insert(node(host))),
            Event::HostAddress(host) => {
                let address = address(3, &format!("192.0.2.{host}/32"));
                Arc::make_mut(&mut self.host).addresses.push(address);
            }
            Event::InterfacePrefix(any) => {
                self.felix.interface_prefixes = if any { vec![] } else { vec!["tap".into(), "cali1".into()] };
            }
            Event::Gateway(there) => self.gateways = if there { vec!["eth1".into()] } else { vec![] },
            Event::Policy(None) => self.resolution = None,
            Event::Policy(Some((name, allowed))) => {
                let key = WorkloadKey::new("default", &format!("n1-k8s-{name}-eth0"));
                let policy = if allowed { EndpointPolicy::allow_all() } else { EndpointPolicy::default() };
                self.resolution.get_or_insert_default().workloads.insert(key, policy);
            }
            Event::Lost => self.state = self.state.clone().aged(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_kept_is_what_would_be_worked_out_anew(events in prop::collection::vec(any_event(), 1..30), backend in 0usize..4) {
        let mut world = World::new([VXLAN, DIRECT, HOST_GW, ALLOC][backend]);
        for event in events {
            world.happen(event);
            world.resolve();
        }
    }
}

#[test]
fn other_nodes_are_kept_in_memory_while_only_workloads_change() {
    let mut world = World::new(VXLAN);
    world.peer("10.244.2.0-24", "192.0.2.2");
    let mut resolver = Resolver::default();
    let mut routes = |world: &World| {
        let spec = world
            .node(|node| resolver.resolve(&world.state, node, &calico::Resolution::default(), Policy::Open))
            .spec;
        (spec.routes.as_ptr(), spec.routes)
    };
    // Both are held, so that no address in memory is used twice.
    let (first, second) = (routes(&world), {
        world.workload("a", "cali0", r#""10.244.1.5/32""#);
        routes(&world)
    });
    assert_eq!(first.0, second.0);
    world.peer("10.244.3.0-24", "192.0.2.3");
    let third = routes(&world);
    assert_eq!((first.0 == third.0, third.1.len()), (false, first.1.len() + 2));
}

#[test]
fn felixs_settings_go_before_the_operators_and_say_whose_an_interface_is() {
    let mut world = World::new(VXLAN);
    world.workload("a", "cali1", r#""10.244.1.2/32""#);
    world.workload("b", "tap1", r#""10.244.1.3/32""#);
    world.felix.endpoint_to_host = EndpointToHost::Drop;
    world.felix.vxlan_from_workloads = true;
    let Resolved { spec, complaints, .. } = world.resolve();
    assert_eq!((spec.settings.endpoint_to_host, spec.settings.outer_df), (EndpointToHost::Drop, true));
    assert!(spec.settings.allow_vxlan_from_workloads && !spec.settings.allow_ipip_from_workloads);
    assert_eq!(spec.failsafes, Failsafes::default(), "there is no host endpoint that they are for");
    assert_eq!(complaints, []);
    world.felix.interface_prefixes = vec!["tap".into()];
    let Resolved { spec, complaints, .. } = world.resolve();
    let indices: Vec<_> = spec.endpoints.iter().map(|endpoint| endpoint.ifindex.is_some()).collect();
    assert_eq!(indices, [false, false], "neither exists, and one may not");
    assert_eq!(complaints.len(), 1);
    assert!(complaints[0].sentence.contains("cali1") && complaints[0].sentence.contains("InterfacePrefix"));
}

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
