//! Random policy: sets, rules, lists and packets that meet each other often, and changes that leave most of it alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::entropy::Entropy;
use super::topology::{NODES, PODS};
use super::world::{gateway_name, pod};
use crate::policy::{Facts, Transport};
use crate::spec::NodeSpec;
use crate::spec::policy::{
    Action, EndpointPolicy, Failsafe, Failsafes, Family, HostEndpoint, HostPolicy, Icmp, IpSet, Members,
    Origin, OriginKind, PolicyDirection, PolicyList, Ports, Rule, RuleSet, SetId, Side, Tier, TierEnd,
};

/// Sets of addresses that rules may name, and sets of ports.
const SETS: usize = 5;
/// Origins of each kind: few, so that a policy that changes is known already.
const NAMES: usize = 6;
/// Ports that packets have and rules ask for.
const PORTS: [u16; 6] = [53, 80, 1000, 2000, 8472, 65_535];
/// Protocols of rules; packets have others as well.
const PROTOCOLS: [u8; 8] = [6, 6, 17, 17, 132, 1, 58, 4];

/// An address of some pod.
fn address(v6: bool, e: &mut Entropy<'_>) -> IpAddr {
    let node = 1 + e.below(usize::from(NODES)) as u16;
    pod(node, e.below(usize::from(PODS) + 1) as u8, v6)
}

/// A network around some pod.
fn network(e: &mut Entropy<'_>) -> IpNetwork {
    let v6 = e.one_in(2);
    let address = address(v6, e);
    let len = if v6 { e.pick(&[128, 128, 127, 64, 62, 16, 0]) } else { e.pick(&[32, 32, 31, 24, 22, 8, 0]) };
    let net = IpNetwork::new(address, len).unwrap_or_else(|_| IpNetwork::from(address));
    IpNetwork::new(net.network(), len).unwrap_or(net)
}

fn networks(e: &mut Entropy<'_>) -> Vec<IpNetwork> {
    let nets: BTreeSet<IpNetwork> = (0..e.below(5)).map(|_| network(e)).collect();
    nets.into_iter().collect()
}

fn members(ports: bool, e: &mut Entropy<'_>) -> Members {
    if !ports {
        return Members::Nets(networks(e));
    }
    let member = |e: &mut Entropy<'_>| {
        let v6 = e.one_in(2);
        (address(v6, e), e.pick(&[6, 6, 17, 132, 1]), e.pick(&PORTS[..3]))
    };
    let members: BTreeSet<_> = (0..e.below(16)).map(|_| member(e)).collect();
    Members::Ports(members.into_iter().collect())
}

/// The id of some set of addresses (or of ports).
fn id(ports: bool, e: &mut Entropy<'_>) -> SetId {
    let kind = if ports { "n" } else { "s" };
    format!("{kind}:{}", e.below(SETS)).into()
}

/// Any sets; some are missing, some are not what their ids say.
pub fn sets(e: &mut Entropy<'_>) -> Vec<Arc<IpSet>> {
    let mut sets = Vec::new();
    for kind in ["n", "s"] {
        for number in 0..SETS {
            if !e.one_in(8) {
                let ports = (kind == "n") != e.one_in(24);
                let members = members(ports, e);
                sets.push(Arc::new(IpSet { id: format!("{kind}:{number}").into(), members }));
            }
        }
    }
    sets
}

/// Another content for one of the sets, or none.
fn change_sets(sets: &mut Vec<Arc<IpSet>>, e: &mut Entropy<'_>) {
    let ports = e.one_in(2);
    let id = id(ports, e);
    let there = sets.binary_search_by(|set| set.id.cmp(&id));
    match (there, e.below(8)) {
        (Ok(at), 0) => drop(sets.remove(at)),
        (Ok(at), 1) => {
            let members = members(ports != e.one_in(4), e);
            sets[at] = Arc::new(IpSet { id, members });
        }
        // One member more or less.
        (Ok(at), _) => {
            let mut set = IpSet::clone(&sets[at]);
            match &mut set.members {
                Members::Nets(nets) => toggle(nets, network(e)),
                Members::Ports(members) => {
                    let member = (address(e.one_in(2), e), e.pick(&[6, 17]), e.pick(&PORTS));
                    toggle(members, member);
                }
            }
            sets[at] = Arc::new(set);
        }
        (Err(at), _) => {
            let members = members(ports, e);
            sets.insert(at, Arc::new(IpSet { id, members }));
        }
    }
}

fn toggle<T: Ord>(members: &mut Vec<T>, member: T) {
    match members.binary_search(&member) {
        Ok(at) => drop(members.remove(at)),
        Err(at) => members.insert(at, member),
    }
}

fn ports(e: &mut Entropy<'_>) -> Ports {
    let range = |e: &mut Entropy<'_>| match e.below(4) {
        0 => (0, e.pick(&PORTS)),
        1 => (e.pick(&PORTS), u16::MAX),
        _ => {
            let port = e.pick(&PORTS);
            (port, port)
        }
    };
    let ranges = (0..e.below(3)).map(|_| range(e)).collect();
    let named = (0..e.below(2)).map(|_| id(true, e)).collect();
    Ports { ranges, named }
}

fn side(e: &mut Entropy<'_>) -> Side {
    let mut side = Side::default();
    for _ in 0..e.pick(&[0, 0, 1, 1, 2]) {
        match e.below(8) {
            0 => side.nets = Some(networks(e)),
            1 => side.not_nets = networks(e),
            2 => side.not_sets.push(id(false, e)),
            3 => side.ports = Some(ports(e)),
            4 => side.not_ports = ports(e),
            5 => side.endpoint_sets.push(id(true, e)),
            _ => side.sets.push(id(false, e)),
        }
    }
    side
}

fn icmp(e: &mut Entropy<'_>) -> Icmp {
    let kind = e.pick(&[8, 0, 128, 129, 3]);
    Icmp { kind, code: e.one_in(2).then(|| e.pick(&[0, 1])) }
}

fn rule(e: &mut Entropy<'_>) -> Rule {
    let action = e.pick(&[Action::Allow, Action::Allow, Action::Deny, Action::Log, Action::Pass]);
    let mut rule = Rule::any(action);
    match e.below(10) {
        0 => rule.family = Some(e.pick(&[Family::V4, Family::V6])),
        1 | 2 => rule.protocol = Some(e.pick(&PROTOCOLS)),
        3 => rule.not_protocol = Some(e.pick(&PROTOCOLS)),
        4 => rule.icmp = Some(icmp(e)),
        5 => rule.not_icmp = Some(icmp(e)),
        _ => {}
    }
    rule.source = side(e);
    rule.destination = side(e);
    rule
}

fn rule_set(kind: OriginKind, direction: PolicyDirection, e: &mut Entropy<'_>) -> Arc<RuleSet> {
    let name = format!("{}", e.below(NAMES)).into();
    let origin = Origin { kind, name, direction };
    let rules = (0..e.pick(&[1, 2, 3, 0])).map(|_| rule(e)).collect();
    Arc::new(RuleSet { origin, rules })
}

/// Any list of policies.
pub fn list(direction: PolicyDirection, e: &mut Entropy<'_>) -> Arc<PolicyList> {
    let kinds = [OriginKind::GlobalNetworkPolicy, OriginKind::NetworkPolicy];
    let tier = |e: &mut Entropy<'_>| Tier {
        name: e.pick(&["kube-admin", "default", "kube-baseline"]).into(),
        end: e.pick(&[TierEnd::Deny, TierEnd::Pass]),
        policies: (0..e.pick(&[1, 2, 3, 0])).map(|_| rule_set(e.pick(&kinds), direction, e)).collect(),
    };
    let tiers = (0..e.below(4)).map(|_| tier(e)).collect();
    let mut profiles: Vec<_> = (0..e.below(3)).map(|_| rule_set(OriginKind::Profile, direction, e)).collect();
    if e.one_in(2) {
        profiles.extend_from_slice(&PolicyList::allow_all(direction).profiles);
    }
    Arc::new(PolicyList { tiers, profiles })
}

/// Policy of a workload: none to speak of, or any.
pub fn endpoint_policy(e: &mut Entropy<'_>) -> EndpointPolicy {
    let mut policy = EndpointPolicy::allow_all();
    if e.one_in(3) {
        policy.ingress = list(PolicyDirection::Ingress, e);
    }
    if e.one_in(3) {
        policy.egress = list(PolicyDirection::Egress, e);
    }
    policy
}

fn host_policy(direction: PolicyDirection, e: &mut Entropy<'_>) -> HostPolicy {
    let mut some = || if e.one_in(2) { list(direction, e) } else { Arc::default() };
    HostPolicy { untracked: some(), pre_dnat: some(), forward: some(), normal: some() }
}

/// Any host endpoints.
pub fn host_endpoints(e: &mut Entropy<'_>) -> Vec<HostEndpoint> {
    let endpoint = |number: usize, e: &mut Entropy<'_>| HostEndpoint {
        name: format!("host-{number}").into(),
        interface: e.pick(&[None, Some(1), Some(2)]).map(gateway_name),
        ingress: host_policy(PolicyDirection::Ingress, e),
        egress: host_policy(PolicyDirection::Egress, e),
    };
    (0..e.below(3)).map(|number| endpoint(number, e)).collect()
}

/// Any ports that stay open, among those that packets here have.
pub fn failsafes(e: &mut Entropy<'_>) -> Failsafes {
    let mut list = || {
        let count = e.below(4);
        let mut failsafes: Vec<Failsafe> = (0..count)
            .map(|_| Failsafe {
                protocol: e.pick(&PROTOCOLS),
                port: e.pick(&PORTS),
                net: e.one_in(2).then(|| network(e)),
            })
            .collect();
        failsafes.sort_unstable();
        failsafes
    };
    Failsafes { inbound: list(), outbound: list() }
}

/// Changes one thing about policy; the rest keeps its place in memory.
pub fn change(spec: &mut NodeSpec, e: &mut Entropy<'_>) {
    let count = spec.endpoints.len();
    match e.below(8) {
        0 => spec.sets = sets(e),
        1..=3 => change_sets(&mut spec.sets, e),
        4 if e.one_in(2) => spec.failsafes = failsafes(e),
        4 => spec.host_endpoints = host_endpoints(e),
        _ if count == 0 => {}
        5 => {
            let policy = endpoint_policy(e);
            spec.endpoints[e.below(count)].policy = policy;
        }
        // Two endpoints share their lists.
        6 => {
            let policy = spec.endpoints[e.below(count)].policy.clone();
            spec.endpoints[e.below(count)].policy = policy;
        }
        _ => {
            let policy = &mut spec.endpoints[e.below(count)].policy;
            let (list, direction) = match e.one_in(2) {
                true => (&mut policy.ingress, PolicyDirection::Ingress),
                false => (&mut policy.egress, PolicyDirection::Egress),
            };
            change_list(Arc::make_mut(list), direction, e);
        }
    }
}

/// Changes, adds or removes a policy, or one of its rules.
fn change_list(list: &mut PolicyList, direction: PolicyDirection, e: &mut Entropy<'_>) {
    let tiers = list.tiers.len();
    let (policies, kind) = match tiers {
        0 => (&mut list.profiles, OriginKind::Profile),
        _ => (&mut list.tiers[e.below(tiers)].policies, OriginKind::NetworkPolicy),
    };
    let at = e.below(policies.len());
    match e.below(4) {
        0 => policies.insert(at, rule_set(kind, direction, e)),
        1 if !policies.is_empty() => drop(policies.remove(at)),
        2 if !policies.is_empty() => {
            let rules = &mut Arc::make_mut(&mut policies[at]).rules;
            let place = e.below(rules.len() + 1);
            rules.insert(place, rule(e));
        }
        3 if !policies.is_empty() => {
            let rules = &mut Arc::make_mut(&mut policies[at]).rules;
            rules.truncate(e.below(rules.len() + 1));
        }
        _ => {}
    }
}

/// Any packet, as policy sees it.
pub fn facts(e: &mut Entropy<'_>) -> Facts {
    let v6 = e.one_in(2);
    let (source, destination) = (address(v6, e), address(v6, e));
    let protocol = e.pick(&[6, 6, 6, 17, 17, 132, 136, 4, if v6 { 58 } else { 1 }, if v6 { 1 } else { 58 }]);
    let unseen = e.one_in(8);
    let transport = match protocol {
        6 | 17 | 132 | 1 | 58 if unseen && (protocol != if v6 { 1 } else { 58 }) => Transport::Unseen,
        6 | 17 | 132 => Transport::Ports(e.pick(&PORTS), e.pick(&PORTS)),
        1 if !v6 => Transport::Icmp(e.pick(&[8, 0, 3]), e.pick(&[0, 1])),
        58 if v6 => Transport::Icmp(e.pick(&[128, 129, 3]), e.pick(&[0, 1])),
        _ => Transport::Other,
    };
    Facts { source, destination, protocol, transport }
}
