//! Sequences of events: their order does not matter, and what is kept between them is what would be worked out anew.

use proptest::prelude::*;

use super::*;

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
