//! Policy as it is enforced, for people: which rules there are, in what order, and what they have met.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::policy::{
    Action, Family, HostEndpoint, IpSet, Members, Origin, OriginKind, PolicyDirection, PolicyList, Ports,
    Rule, RuleSet, Side, TierEnd,
};
use canal_dataplane::tables::Tables;

use super::protocol::{IpSetView, RuleSetView, RuleView};

/// Members of one set that are listed; the rest is a number.
pub const MAX_MEMBERS: usize = 1000;

/// Policies in the order in which some workload's lists ask them, then those for what passes gateway interfaces, with what their rules have met; then the ends of tiers
/// that deny.
pub fn policies(spec: &NodeSpec, tables: &Tables) -> Vec<RuleSetView> {
    let mut views = rule_sets(spec, tables, false);
    views.extend(ends(spec, tables).into_iter().filter(|end| end.tier.is_some()));
    views
}

/// Profiles likewise; then the end of everything.
pub fn profiles(spec: &NodeSpec, tables: &Tables) -> Vec<RuleSetView> {
    let mut views = rule_sets(spec, tables, true);
    views.extend(ends(spec, tables).into_iter().filter(|end| end.tier.is_none()));
    views
}

/// The ends of lists, and of tiers that deny there, with what has come to them.
fn ends(spec: &NodeSpec, tables: &Tables) -> Vec<RuleSetView> {
    let mut ends: Vec<RuleSetView> = Vec::new();
    for (index, endpoint) in (0u32..).zip(&spec.endpoints) {
        let programs = tables.policy.endpoint(index);
        for (list, program) in
            [(&endpoint.policy.ingress, &programs.ingress), (&endpoint.policy.egress, &programs.egress)]
        {
            let direction = direction(program.direction());
            // The program's tiers are those of the list.
            let denies = list.tiers.iter().map(|tier| tier.end == TierEnd::Deny).chain([true]);
            for ((tier, counter), _) in program.ends().zip(denies).filter(|(_, denies)| *denies) {
                let same = |end: &&mut RuleSetView| end.tier.as_deref() == tier && end.direction == direction;
                match ends.iter_mut().find(same) {
                    Some(known) => known.endpoints += 1,
                    None => ends.push(end_view(tier, direction, counter.get())),
                }
            }
        }
    }
    ends
}

fn end_view(tier: Option<&str>, direction: &str, (packets, bytes): (u64, u64)) -> RuleSetView {
    let criteria = match tier {
        Some(_) => "no rule of the tier has decided",
        None => "no rule has decided",
    };
    RuleSetView {
        kind: if tier.is_some() { "TierEnd" } else { "ProfilesEnd" }.to_owned(),
        name: tier.unwrap_or_default().to_owned(),
        tier: tier.map(str::to_owned),
        direction: direction.to_owned(),
        endpoints: 1,
        rules: vec![RuleView { rule: 0, action: "Deny".into(), criteria: criteria.into(), packets, bytes }],
    }
}

/// Sets of addresses that rules name, by id.
pub fn ip_sets(spec: &NodeSpec) -> Vec<IpSetView> {
    spec.sets.iter().map(|set| ip_set(set)).collect()
}

fn ip_set(set: &IpSet) -> IpSetView {
    let (kind, count, members): (_, _, Vec<String>) = match &set.members {
        Members::Nets(nets) => {
            ("networks", nets.len(), nets.iter().take(MAX_MEMBERS).map(ToString::to_string).collect())
        }
        Members::Ports(ports) => {
            let shown = ports.iter().take(MAX_MEMBERS);
            let text = |(address, number, port): &(std::net::IpAddr, u8, u16)| {
                format!("{},{}", std::net::SocketAddr::new(*address, *port), protocol(*number))
            };
            ("ports", ports.len(), shown.map(text).collect())
        }
    };
    IpSetView { id: set.id.to_string(), kind: kind.to_owned(), count, members }
}

/// Names of what a list asks, in order: policies as `tier/name`, then profiles.
pub fn names(list: &PolicyList) -> Vec<String> {
    let policies = list.tiers.iter().flat_map(|tier| {
        tier.policies.iter().map(move |policy| format!("{}/{}", tier.name, policy.origin.name))
    });
    policies.chain(list.profiles.iter().map(|profile| profile.origin.name.to_string())).collect()
}

/// A rule set that some workload has.
struct Used<'a> {
    tier: Option<&'a str>,
    set: &'a Arc<RuleSet>,
    endpoints: usize,
}

fn rule_sets(spec: &NodeSpec, tables: &Tables, profiles: bool) -> Vec<RuleSetView> {
    let mut used: Vec<Used<'_>> = Vec::new();
    let mut places: BTreeMap<(Option<&str>, &Origin), usize> = BTreeMap::new();
    let lists =
        spec.endpoints.iter().flat_map(|endpoint| [&endpoint.policy.ingress, &endpoint.policy.egress]);
    for list in lists.chain(forwarded(spec)) {
        let of_tiers = list
            .tiers
            .iter()
            .flat_map(|tier| tier.policies.iter().map(move |policy| (Some(&*tier.name), policy)));
        let of_profiles = list.profiles.iter().map(|profile| (None, profile));
        for (tier, set) in of_tiers.chain(of_profiles).filter(|(tier, _)| tier.is_none() == profiles) {
            let place = *places.entry((tier, &set.origin)).or_insert_with(|| {
                used.push(Used { tier, set, endpoints: 0 });
                used.len() - 1
            });
            used[place].endpoints += 1;
        }
    }
    let met = met(tables);
    used.iter().map(|used| view(used, met.get(&used.set.origin))).collect()
}

/// The lists of host endpoints that judge what passes gateway interfaces.
fn forwarded(spec: &NodeSpec) -> impl Iterator<Item = &Arc<PolicyList>> {
    let hosts: BTreeSet<usize> =
        spec.gateways.iter().filter_map(|gateway| spec.host_endpoint_of(&gateway.name)).collect();
    hosts.into_iter().flat_map(|index| {
        let HostEndpoint { ingress, egress, .. } = &spec.host_endpoints[index];
        [&ingress.untracked, &ingress.pre_dnat, &ingress.forward, &egress.forward]
    })
}

/// Packets and bytes by rule of each origin.
fn met(tables: &Tables) -> BTreeMap<&Origin, Vec<(u64, u64)>> {
    let mut met: BTreeMap<&Origin, Vec<(u64, u64)>> = BTreeMap::new();
    for set in tables.policy.rule_sets() {
        met.insert(&set.source.origin, set.counters.iter().map(|counter| counter.get()).collect());
    }
    met
}

fn view(used: &Used<'_>, met: Option<&Vec<(u64, u64)>>) -> RuleSetView {
    let rules = used.set.rules.iter().enumerate().map(|(index, rule)| {
        let (packets, bytes) = met.and_then(|met| met.get(index)).copied().unwrap_or_default();
        RuleView {
            rule: index,
            action: action(rule.action).to_owned(),
            criteria: criteria(rule),
            packets,
            bytes,
        }
    });
    RuleSetView {
        kind: kind(used.set.origin.kind).to_owned(),
        name: used.set.origin.name.to_string(),
        tier: used.tier.map(str::to_owned),
        direction: direction(used.set.origin.direction).to_owned(),
        endpoints: used.endpoints,
        rules: rules.collect(),
    }
}

const fn kind(kind: OriginKind) -> &'static str {
    match kind {
        OriginKind::NetworkPolicy => "NetworkPolicy",
        OriginKind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
        OriginKind::Profile => "Profile",
    }
}

const fn direction(direction: PolicyDirection) -> &'static str {
    match direction {
        PolicyDirection::Ingress => "ingress",
        PolicyDirection::Egress => "egress",
    }
}

const fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Log => "Log",
        Action::Pass => "Pass",
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        136 => "udplite".into(),
        other => format!("protocol {other}"),
    }
}

/// What a rule asks for, in words; `everything` when it asks for nothing.
pub fn criteria(rule: &Rule) -> String {
    let mut words = Vec::new();
    words.extend(rule.family.map(|family| if family == Family::V4 { "IPv4" } else { "IPv6" }.to_owned()));
    words.extend(rule.protocol.map(protocol));
    words.extend(rule.not_protocol.map(|number| format!("not {}", protocol(number))));
    for (message, not) in [(rule.icmp, ""), (rule.not_icmp, "not ")] {
        words.extend(message.map(|message| {
            let code = message.code.map_or_else(String::new, |code| format!(" code {code}"));
            format!("{not}type {}{code}", message.kind)
        }));
    }
    for (side, preposition) in [(&rule.source, "from"), (&rule.destination, "to")] {
        let asked = end(side);
        if !asked.is_empty() {
            words.push(format!("{preposition} {}", asked.join(" and ")));
        }
    }
    if words.is_empty() { "everything".to_owned() } else { words.join(" ") }
}

fn end(side: &Side) -> Vec<String> {
    let join = |items: Vec<String>| if items.is_empty() { "nothing".to_owned() } else { items.join(",") };
    let texts = |nets: &[ipnetwork::IpNetwork]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut asked = Vec::new();
    asked.extend(side.nets.as_ref().map(|nets| join(texts(nets))));
    if !side.not_nets.is_empty() {
        asked.push(format!("not {}", join(texts(&side.not_nets))));
    }
    asked.extend(side.sets.iter().map(|id| format!("set {id}")));
    asked.extend(side.not_sets.iter().map(|id| format!("not set {id}")));
    asked.extend(side.ports.as_ref().map(|choice| format!("ports {}", join(ports(choice)))));
    if !side.not_ports.is_empty() {
        asked.push(format!("not ports {}", join(ports(&side.not_ports))));
    }
    asked.extend(side.endpoint_sets.iter().map(|id| format!("service {id}")));
    asked
}

fn ports(choice: &Ports) -> Vec<String> {
    let range = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}:{last}") }
    };
    choice.ranges.iter().map(range).chain(choice.named.iter().map(ToString::to_string)).collect()
}

#[cfg(test)]
mod tests;
