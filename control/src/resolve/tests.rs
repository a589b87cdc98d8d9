use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::net::{Mac, Vni};
use canal_dataplane::spec::policy::{EndpointPolicy, EndpointToHost};
use canal_dataplane::spec::{Endpoint, Route, Via, Vtep};
use canal_dataplane::verdict::DropReason::{UnassignedAddress, UnresolvedVtep};

use super::*;
use crate::datastore::{Change, KeyValue, Revision};
use crate::edge::{EdgePlan, UnderlayPlan};
use crate::host::fake::{address, link};
use crate::model::calico::WorkloadKey;
use crate::model::flannel::Prefix;

mod calico_network;
mod gateways;
mod sequences;

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
