//! The incremental graph against the slow twin, over random changes in any order, worked off in portions of any size.

use std::collections::BTreeMap;
use std::sync::Arc;

use canal_control::model::calico::resources::{
    Action, Block, EncapMode, Entity, HostEndpoint, IpPool, Labels, NamedPort, Names, NetworkSet, Node,
    Policy, PolicyKey, Port, Profile, Rule, Tier,
};
use canal_control::model::calico::selector::Selector;
use canal_control::model::calico::{WorkloadEndpoint, WorkloadKey};
use canal_control::resolve::calico::routes::RouteSource;
use canal_control::resolve::calico::{CalicoGraph, Change, Latest, Resolution, ServiceSlice, oracle};
use canal_dataplane::spec::policy::{Origin, PolicyList, RuleSet};
use ipnetwork::IpNetwork;
use proptest::prelude::*;
use proptest::sample::select;

const HERE: &str = "here";
const SELECTORS: &[&str] =
    &["all()", "a == 'x'", "!has(b)", "a == 'y' && has(b)", "b in {'x', 'y'}", "ns == 'n1'"];

fn any_selector() -> impl Strategy<Value = Selector> {
    select(SELECTORS).prop_map(|text| Selector::parse(text).unwrap())
}

fn any_labels() -> impl Strategy<Value = Arc<Labels>> {
    prop::collection::btree_map("[ab]", "[xy]", 0..3)
        .prop_map(|labels| Arc::new(labels.into_iter().collect()))
}

fn any_node() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(HERE), 1 => Just("there"), 1 => Just("yonder")].prop_map(str::to_owned)
}

fn any_profiles() -> impl Strategy<Value = Names> {
    let names = select(vec!["p", "q", "projectcalico-default-allow"]).prop_map(Arc::<str>::from);
    prop::collection::vec(names, 0..3).prop_map(Names::from)
}

fn any_address() -> impl Strategy<Value = IpNetwork> {
    select(vec!["10.0.0.1/32", "10.0.0.2/32", "10.0.1.1/32", "fd00::1/128"])
        .prop_map(|net| net.parse().unwrap())
}

fn any_named_ports() -> impl Strategy<Value = Vec<NamedPort>> {
    let port = (select(vec!["http", "dns"]), select(vec![6u8, 17]), 1u16..3);
    let port = port.prop_map(|(name, protocol, port)| NamedPort { name: name.into(), protocol, port });
    prop::collection::vec(port, 0..3)
}

fn any_workload() -> impl Strategy<Value = WorkloadEndpoint> {
    let networks = prop::collection::btree_set(any_address(), 0..3);
    (any_node(), networks, any_labels(), any_profiles(), any_named_ports()).prop_map(
        |(node, networks, labels, profiles, ports)| WorkloadEndpoint {
            node: node.into(),
            interface: "cali0".into(),
            networks: networks.into_iter().collect(),
            mac: None,
            labels,
            profiles,
            ports: ports.into(),
            floating: [].into(),
        },
    )
}

fn any_host() -> impl Strategy<Value = HostEndpoint> {
    let addresses = prop::collection::vec(any_address(), 0..2);
    (any_node(), addresses, any_labels(), any_profiles(), any_named_ports()).prop_map(
        |(node, addresses, labels, profiles, ports)| HostEndpoint {
            node,
            interface: "eth0".into(),
            expected_ips: addresses.iter().map(IpNetwork::ip).collect(),
            profiles,
            labels,
            ports,
        },
    )
}

fn any_network_set() -> impl Strategy<Value = NetworkSet> {
    let nets = prop::collection::vec(select(vec!["10.0.0.0/24", "10.0.0.1/32", "fd00::/64"]), 0..3);
    (nets, any_labels(), any_profiles()).prop_map(|(nets, labels, profiles)| NetworkSet {
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        labels,
        profiles,
    })
}

fn any_entity() -> impl Strategy<Value = Entity> {
    let selector = || prop::option::weighted(0.4, any_selector());
    let port = || {
        prop_oneof![
            Just(Port::Range(1, 80)),
            select(vec!["http", "dns"]).prop_map(|name| Port::Named(name.into()))
        ]
    };
    let service = prop::option::weighted(0.1, Just("ns/svc".to_owned()));
    (
        selector(),
        selector(),
        prop::option::of(prop::collection::vec(port(), 0..3)),
        prop::collection::vec(port(), 0..2),
        service,
    )
        .prop_map(|(selector, not_selector, ports, not_ports, service)| Entity {
            nets: None,
            not_nets: Vec::new(),
            selector,
            not_selector,
            ports,
            not_ports,
            service,
        })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let action = select(vec![Action::Allow, Action::Deny, Action::Log, Action::Pass]);
    let protocol = select(vec![None, Some(6), Some(17)]);
    (action, protocol, any_entity(), any_entity(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(action, protocol, source, destination, http, unreadable)| Rule {
            action,
            ip_version: None,
            protocol,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: source.into(),
            destination: destination.into(),
            http,
            unreadable,
        })
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(any_rule(), 0..3)
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let tier = select(vec!["default", "default", "a", "b", "nowhere"]).prop_map(str::to_owned);
    let order = select(vec![None, Some(-1.0), Some(0.0), Some(-0.0), Some(2.5)]);
    let half = || prop::option::weighted(0.7, any_rules());
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2), any::<bool>());
    (tier, order, any_selector(), half(), half(), flags).prop_map(
        |(tier, order, selector, ingress, egress, (do_not_track, pre_dnat, apply_on_forward))| Policy {
            tier: tier.into(),
            order,
            selector,
            ingress,
            egress,
            do_not_track,
            pre_dnat,
            apply_on_forward,
        },
    )
}

fn any_policy_key() -> impl Strategy<Value = PolicyKey> {
    let keys = [("default.a", ""), ("default.b", ""), ("ns/default.a", "ns"), ("ns/z", "ns"), ("z", "")];
    select(keys.to_vec())
        .prop_map(|(name, namespace)| PolicyKey { tie_break: name.into(), namespace: namespace.into() })
}

fn any_profile() -> impl Strategy<Value = Profile> {
    let labels = prop::collection::btree_map("[ab]|ns", "[xy]|n1", 0..3);
    let labels = labels.prop_map(|labels| Arc::new(labels.into_iter().collect()));
    (any_rules(), any_rules(), labels).prop_map(|(ingress, egress, labels)| Profile {
        ingress,
        egress,
        labels,
    })
}

fn any_pool() -> impl Strategy<Value = IpPool> {
    let encap = || select(vec![EncapMode::Never, EncapMode::CrossSubnet, EncapMode::Always]);
    let cidr = select(vec!["10.0.0.0/16", "10.0.0.0/24", "10.0.0.1/32", "fd00::/48", "192.168.0.0/16"]);
    (cidr, encap(), encap(), any::<bool>()).prop_map(|(cidr, vxlan, ipip, nat_outgoing)| IpPool {
        cidr: cidr.parse().unwrap(),
        vxlan,
        ipip,
        nat_outgoing,
        disabled: false,
    })
}

fn any_node_resource() -> impl Strategy<Value = Node> {
    let address = || prop::option::of(select(vec!["192.168.0.1", "192.168.0.2", "192.168.1.3", "10.0.0.1"]));
    let network = prop::option::of(select(vec!["192.168.0.0/24", "192.168.0.0/16"]));
    (address(), network, address(), address(), address()).prop_map(|(ipv4, network, extra, vxlan, ipip)| {
        let ip = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        Node {
            ipv4: ip(ipv4),
            ipv4_network: network.map(|net| net.parse().unwrap()),
            addresses: ip(extra).into_iter().collect(),
            vxlan_v4: ip(vxlan),
            ipip_v4: ip(ipip),
            vxlan_v6: Some("fd00::9".parse().unwrap()),
            ipv6: ipip.map(|_| "2001:db8::1".parse().unwrap()),
            pod_cidrs: vec!["10.0.1.0/24".parse().unwrap()],
            ..Node::default()
        }
    })
}

fn any_block() -> impl Strategy<Value = Block> {
    let cidr = select(vec!["10.0.0.0/29", "10.0.1.0/29", "10.0.0.1/32"]);
    let allocation = (0u32..4, prop::option::weighted(0.8, any_node()));
    (cidr, prop::option::of(any_node()), prop::collection::vec(allocation, 0..4))
        .prop_map(|(cidr, node, allocations)| Block { cidr: cidr.parse().unwrap(), node, allocations })
}

fn any_slice() -> impl Strategy<Value = ServiceSlice> {
    let addresses = prop::collection::vec(any_address().prop_map(|net| net.ip()), 0..3);
    (select(vec!["ns/svc", "ns/other"]), addresses).prop_map(|(service, addresses)| ServiceSlice {
        service: service.into(),
        ports: addresses.iter().map(|address| (*address, 6, 80)).collect(),
        addresses,
    })
}

fn maybe<T>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Arc<T>>>
where
    T: std::fmt::Debug,
{
    prop::option::weighted(0.75, value).prop_map(|value| value.map(Arc::new))
}

fn any_change() -> impl Strategy<Value = Change> {
    let name = || "[abc]";
    let workload_key = "[a-e]".prop_map(|name| WorkloadKey::new("ns", &name));
    let tier = prop::option::weighted(0.7, (select(vec![1.0, 5.0, 2e6]), any::<bool>()))
        .prop_map(|tier| tier.map(|(order, ends_with_pass)| Tier { order, ends_with_pass }));
    prop_oneof![
        6 => (workload_key, maybe(any_workload())).prop_map(|(key, value)| Change::Workload(key, value)),
        2 => (name(), maybe(any_host())).prop_map(|(name, value)| Change::HostEndpoint(name, value)),
        2 => (name(), maybe(any_network_set())).prop_map(|(name, value)| Change::NetworkSet(name, value)),
        6 => (any_policy_key(), maybe(any_policy())).prop_map(|(key, value)| Change::Policy(key, value)),
        3 => ("[pq]", maybe(any_profile())).prop_map(|(name, value)| Change::Profile(name, value)),
        2 => (select(vec!["default", "a", "b"]), tier).prop_map(|(name, tier)| Change::Tier(name.into(), tier)),
        1 => (name(), maybe(any_pool())).prop_map(|(name, pool)| Change::Pool(name, pool.as_deref().cloned())),
        2 => (any_node(), maybe(any_node_resource())).prop_map(|(name, value)| Change::Node(name, value)),
        2 => (any_block(), any::<bool>()).prop_map(|(block, there)| Change::Block(block.cidr, there.then(|| block.into()))),
        1 => (name(), maybe(any_slice())).prop_map(|(name, value)| Change::ServiceSlice(name, value)),
    ]
}

/// What happens after a change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// The next change.
    GoOn,
    /// Everything so far is worked off.
    Flush,
    /// The same, after everything has been forgotten and learnt again.
    Resync,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![6 => Just(Step::GoOn), 4 => Just(Step::Flush), 1 => Just(Step::Resync)]
}

/// Of the resource that a change is about.
fn identifier(change: &Change) -> String {
    match change {
        Change::Workload(key, _) => format!("workload {key}"),
        Change::HostEndpoint(name, _) => format!("host endpoint {name}"),
        Change::NetworkSet(name, _) => format!("network set {name}"),
        Change::Policy(key, _) => format!("policy {key:?}"),
        Change::Profile(name, _) => format!("profile {name}"),
        Change::Tier(name, _) => format!("tier {name}"),
        Change::Pool(name, _) => format!("pool {name}"),
        Change::Node(name, _) => format!("node {name}"),
        Change::Block(cidr, _) => format!("block {cidr}"),
        Change::ServiceSlice(name, _) => format!("slice {name}"),
    }
}

/// Every list of a resolution, with a name for each.
fn lists(resolution: &Resolution) -> BTreeMap<String, &Arc<PolicyList>> {
    let workloads = resolution.workloads.iter();
    let mut lists: BTreeMap<String, &Arc<PolicyList>> = workloads
        .flat_map(|(key, policy)| {
            [(format!("{key} in"), &policy.ingress), (format!("{key} out"), &policy.egress)]
        })
        .collect();
    for (name, host) in &resolution.host_endpoints {
        for (way, policy) in [("in", &host.lists.ingress), ("out", &host.lists.egress)] {
            lists.insert(format!("{name} {way} untracked"), &policy.untracked);
            lists.insert(format!("{name} {way} pre-DNAT"), &policy.pre_dnat);
            lists.insert(format!("{name} {way} forward"), &policy.forward);
            lists.insert(format!("{name} {way} normal"), &policy.normal);
        }
    }
    lists
}

/// Every rule set, by where it comes from.
fn rule_sets(resolution: &Resolution) -> BTreeMap<Origin, Arc<RuleSet>> {
    let mut found: BTreeMap<Origin, Arc<RuleSet>> = BTreeMap::new();
    for list in lists(resolution).values() {
        for rules in list.tiers.iter().flat_map(|tier| &tier.policies).chain(&list.profiles) {
            let first = found.entry(rules.origin.clone()).or_insert_with(|| Arc::clone(rules));
            assert!(Arc::ptr_eq(first, rules), "one value for {:?}", rules.origin);
        }
    }
    found
}

/// What is equal in both is the very same value.
fn same_values<K: Ord + std::fmt::Debug, V: PartialEq>(
    before: impl IntoIterator<Item = (K, Arc<V>)>,
    after: &BTreeMap<K, Arc<V>>,
) -> Result<usize, TestCaseError> {
    let mut kept = 0;
    for (key, old) in before {
        if let Some(new) = after.get(&key).filter(|new| **new == old) {
            prop_assert!(Arc::ptr_eq(&old, new), "{:?} was made anew", key);
            kept += 1;
        }
    }
    Ok(kept)
}

fn owned(resolution: &Resolution) -> BTreeMap<String, Arc<PolicyList>> {
    lists(resolution).into_iter().map(|(name, list)| (name, Arc::clone(list))).collect()
}

fn check(before: &Resolution, after: &Resolution) -> Result<(), TestCaseError> {
    same_values(before.sets.clone(), &after.sets)?;
    same_values(owned(before), &owned(after))?;
    same_values(rule_sets(before), &rule_sets(after))?;
    let all: Vec<_> = lists(after).into_values().collect();
    for a in &all {
        prop_assert!(all.iter().all(|b| Arc::ptr_eq(a, b) || a != b), "equal lists are one value");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_graph_knows_what_recomputing_tells(
        changes in prop::collection::vec((any_change(), any_step()), 1..60),
        source in select(vec![RouteSource::Blocks, RouteSource::Workloads, RouteSource::PodCidrs]),
    ) {
        let (mut graph, mut latest) = (CalicoGraph::new(HERE, source), Latest::default());
        let last = changes.len() - 1;
        let mut stored: BTreeMap<String, Change> = BTreeMap::new();
        for (at, (change, step)) in changes.into_iter().enumerate() {
            latest.apply(change.clone());
            stored.insert(identifier(&change), change.clone());
            graph.apply(change);
            if step == Step::Resync {
                graph.forget_all();
                stored.values().for_each(|change| graph.apply(change.clone()));
            }
            if step != Step::GoOn || at == last {
                let before = graph.resolution().clone();
                let after = graph.flush();
                prop_assert_eq!(after, &oracle::recompute(HERE, source, &latest));
                check(&before, after)?;
            }
        }
    }
}
