//! Our outcome in the words of Felix's protocol with its dataplane, as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canal_control::resolve::calico::Resolution;
use canal_dataplane::spec::calico::{CalicoRoute, PoolKind, RouteKind};
use canal_dataplane::spec::policy::{
    Action, Family, Icmp, IpSet, Members, Origin, OriginKind, PolicyDirection, PolicyList, Ports, Rule,
    RuleSet, SetId, Side,
};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::{compiled, v1};

/// Names of the policies of each tier, ingress first.
pub fn tiers(ingress: &PolicyList, egress: &PolicyList) -> Vec<(String, [Vec<String>; 2])> {
    let mut tiers: Vec<(String, [Vec<String>; 2])> = Vec::new();
    for (direction, list) in [ingress, egress].into_iter().enumerate() {
        for tier in &list.tiers {
            let names: Vec<String> =
                tier.policies.iter().map(|rules| rules.origin.name.to_string()).collect();
            match tiers.iter_mut().find(|(name, _)| **name == *tier.name) {
                Some((_, both)) => both[direction] = names,
                None => {
                    let mut both = [Vec::new(), Vec::new()];
                    both[direction] = names;
                    tiers.push((tier.name.to_string(), both));
                }
            }
        }
    }
    tiers
}

/// An endpoint as far as its lists go; what is empty is not there.
pub fn endpoint(lists: &[(&str, [&Arc<PolicyList>; 2])]) -> Value {
    let mut endpoint = Map::new();
    for (name, [ingress, egress]) in lists {
        let tiers = tiers(ingress, egress).into_iter().map(|(tier, [ingress, egress])| {
            let policies = [("ingress_policies", ingress), ("egress_policies", egress)];
            let named = policies.into_iter().filter(|(_, names)| !names.is_empty());
            let mut rendered: Map<String, Value> =
                named.map(|(key, names)| (key.into(), json!(names))).collect();
            rendered.insert("name".into(), json!(tier));
            Value::from(rendered)
        });
        let tiers: Vec<Value> = tiers.collect();
        if !tiers.is_empty() {
            endpoint.insert((*name).to_owned(), json!(tiers));
        }
    }
    let profiles = lists[0].1[0].profiles.iter().map(|rules| rules.origin.name.to_string());
    let profiles: Vec<String> = profiles.collect();
    if !profiles.is_empty() {
        endpoint.insert("profile_ids".into(), json!(profiles));
    }
    endpoint.into()
}

/// The same of theirs: without what comes from the endpoint itself.
pub fn endpoint_lists_of(theirs: &Value) -> Value {
    let wanted = ["tiers", "untracked_tiers", "pre_dnat_tiers", "forward_tiers", "profile_ids"];
    let members = theirs.as_object().into_iter().flatten();
    members
        .filter(|(name, _)| wanted.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Sets with their members.
pub fn sets(resolution: &Resolution) -> Value {
    resolution.sets.iter().map(|(id, set)| (id.to_string(), json!(members(set)))).collect()
}

fn members(set: &IpSet) -> Vec<String> {
    match &set.members {
        Members::Nets(nets) => nets.iter().map(ToString::to_string).collect(),
        Members::Ports(ports) => {
            let protocol = |number| match number {
                6 => "tcp",
                17 => "udp",
                132 => "sctp",
                _ => "other",
            };
            ports
                .iter()
                .map(|(address, number, port)| format!("{address},{}:{port}", protocol(*number)))
                .collect()
        }
    }
}

/// What kind of set.
pub fn set_type(set: &IpSet) -> Value {
    match set.members {
        Members::Nets(_) => json!("NET"),
        Members::Ports(_) => json!("IP_AND_PORT"),
    }
}

/// IPv4 routes: the Felix that was recorded has no others.
pub fn routes<'a>(routes: impl Iterator<Item = (&'a IpNetwork, &'a CalicoRoute)>) -> Value {
    let routes = routes.filter(|(dst, _)| dst.is_ipv4()).map(|(dst, route)| {
        let mut rendered = Map::new();
        let mut add = |name: &str, value: Value| drop(rendered.insert(name.to_owned(), value));
        add("dst", json!(dst.to_string()));
        match route.kind {
            RouteKind::Pool => {}
            RouteKind::LocalWorkload => add("type", json!("LOCAL_WORKLOAD")),
            RouteKind::RemoteWorkload => add("type", json!("REMOTE_WORKLOAD")),
            RouteKind::LocalHost => add("type", json!("LOCAL_HOST")),
            RouteKind::RemoteHost => add("type", json!("REMOTE_HOST")),
            RouteKind::LocalTunnel => add("type", json!("LOCAL_TUNNEL")),
            RouteKind::RemoteTunnel => add("type", json!("REMOTE_TUNNEL")),
        }
        match route.pool {
            PoolKind::None => {}
            PoolKind::Plain => add("ip_pool_type", json!("NO_ENCAP")),
            PoolKind::Vxlan => add("ip_pool_type", json!("VXLAN")),
            PoolKind::IpIp => add("ip_pool_type", json!("IPIP")),
        }
        if let Some(node) = &route.node {
            add("dst_node_name", json!(**node));
        }
        if let Some(address) = route.node_ip {
            add("dst_node_ip", json!(address));
        }
        let flags = [
            ("same_subnet", route.same_subnet),
            ("nat_outgoing", route.nat_outgoing),
            ("local_workload", route.local_workload),
        ];
        flags.iter().filter(|(_, set)| *set).for_each(|(name, _)| add(name, json!(true)));
        let tunnels = [("ipip", route.tunnels.ipip), ("vxlan", route.tunnels.vxlan)];
        let tunnels: Map<String, Value> =
            tunnels.iter().filter(|(_, is)| *is).map(|(name, _)| ((*name).to_owned(), json!(true))).collect();
        if !tunnels.is_empty() {
            add("tunnel_type", tunnels.into());
        }
        Value::from(rendered)
    });
    routes.collect()
}

/// IPv4 tunnel ends.
pub fn vteps(resolution: &Resolution) -> Value {
    let (_, tables) = compiled::tables(resolution);
    let v4 = tables.vteps().filter(|((_, v6), _)| !v6);
    v4.map(|((node, _), vtep)| {
        json!({
            "node": **node,
            "ipv4_addr": vtep.address,
            "mac": vtep.mac.to_string(),
            "parent_device_ip": vtep.node_ip,
        })
    })
    .collect()
}

/// Lists whose order means nothing, sorted.
pub fn sorted(value: &Value, part: &str) -> Value {
    let ordered = |list: &[Value]| {
        let mut list = list.to_vec();
        list.sort_by_key(Value::to_string);
        Value::from(list)
    };
    match value {
        Value::Array(list) => ordered(list),
        Value::Object(sets) if part == "ipsets" => {
            sets.iter().map(|(id, members)| (id.clone(), ordered(members.as_array().unwrap()))).collect()
        }
        Value::Null => json!([]),
        other => other.clone(),
    }
}

/// Rules of policies (`tier/name`) and profiles. Those that are in no endpoint's list are not ours to know.
pub fn compare_rules(resolution: &Resolution, policies: &Value, profiles: &Value) -> Result<(), String> {
    let ours = rule_sets(resolution);
    for (kind, objects) in [("policy", policies), ("profile", profiles)] {
        for (name, theirs) in objects.as_object().into_iter().flatten() {
            let stored = if kind == "policy" { name.split_once('/').unwrap().1 } else { name };
            for (member, direction) in
                [("inbound_rules", PolicyDirection::Ingress), ("outbound_rules", PolicyDirection::Egress)]
            {
                let is = |origin: &Origin| {
                    *origin.name == *stored
                        && origin.direction == direction
                        && (origin.kind == OriginKind::Profile) == (kind == "profile")
                };
                let Some((_, rules)) = ours.iter().find(|(origin, _)| is(origin)) else { continue };
                let found: Vec<Value> = rules.rules.iter().map(rule).collect();
                let expected: Vec<Value> =
                    theirs[member].as_array().into_iter().flatten().map(their_rule).collect();
                if found != expected {
                    return Err(format!(
                        "{kind} {name} {member}:\nexpected {expected:#?}\nfound    {found:#?}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Sets that rules name in a direction in which their policy is asked, and those of profiles. Felix keeps the sets of
/// the other direction's rules, too, which nothing looks at.
pub fn governed_sets(expected: &Value) -> BTreeSet<String> {
    let tiers = ["tiers", "untracked_tiers", "pre_dnat_tiers", "forward_tiers"];
    let endpoints = || expected["endpoints"].as_object().into_iter().flatten().map(|(_, endpoint)| endpoint);
    let asked = |member: &str| -> BTreeSet<String> {
        let tiers = endpoints().flat_map(|endpoint| tiers.iter().flat_map(|name| list(&endpoint[*name])));
        tiers.flat_map(|tier| list(&tier[member])).map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let mut sets = BTreeSet::new();
    for (rules, names) in
        [("inbound_rules", asked("ingress_policies")), ("outbound_rules", asked("egress_policies"))]
    {
        for (name, policy) in expected["active_policies"].as_object().into_iter().flatten() {
            if names.contains(name.split_once('/').unwrap().1) {
                list(&policy[rules]).iter().for_each(|rule| sets.extend(set_ids(rule)));
            }
        }
        for (_, profile) in expected["active_profiles"].as_object().into_iter().flatten() {
            list(&profile[rules]).iter().for_each(|rule| sets.extend(set_ids(rule)));
        }
    }
    sets
}

fn set_ids(rule: &Value) -> impl Iterator<Item = String> {
    let members = rule.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_set_ids"));
    members.flat_map(|(_, ids)| list(ids)).map(|id| id.as_str().unwrap().to_owned())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn rule_sets(resolution: &Resolution) -> BTreeMap<Origin, Arc<RuleSet>> {
    let workloads = resolution.workloads.values().flat_map(|policy| [&policy.ingress, &policy.egress]);
    let hosts = resolution.host_endpoints.values().flat_map(|host| [&host.lists.ingress, &host.lists.egress]);
    let hosts = hosts.flat_map(|lists| [&lists.untracked, &lists.pre_dnat, &lists.forward, &lists.normal]);
    let lists = workloads.chain(hosts);
    let rules =
        lists.flat_map(|list| list.tiers.iter().flat_map(|tier| &tier.policies).chain(&list.profiles));
    rules.map(|rules| (rules.origin.clone(), Arc::clone(rules))).collect()
}

/// One of their rules without what is for humans, with protocols as numbers.
fn their_rule(theirs: &Value) -> Value {
    let mut rule = Map::new();
    for (name, value) in theirs.as_object().unwrap() {
        let value = match name.as_str() {
            "rule_id" | "metadata" | "http_match" => continue,
            "src_service_account_match" | "dst_service_account_match" => continue,
            original if original.starts_with("original_") => continue,
            "protocol" | "not_protocol" => {
                let number = value.get("number").or(value.get("name")).and_then(v1::protocol);
                json!(number.unwrap())
            }
            "action" if value.as_str().unwrap().eq_ignore_ascii_case("allow") => continue,
            // What Felix does not know makes it fail later; we deny.
            "action" => match value.as_str().unwrap().to_ascii_lowercase().as_str() {
                known @ ("log" | "next-tier") => json!(known),
                "pass" => json!("next-tier"),
                _ => json!("deny"),
            },
            _ => value.clone(),
        };
        rule.insert(name.clone(), value);
    }
    rule.into()
}

fn rule(rule: &Rule) -> Value {
    let mut out = Map::new();
    let mut add = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    match rule.action {
        Action::Allow => {}
        Action::Deny => add("action", json!("deny")),
        Action::Log => add("action", json!("log")),
        Action::Pass => add("action", json!("next-tier")),
    }
    match rule.family {
        None => {}
        Some(Family::V4) => add("ip_version", json!("IPV4")),
        Some(Family::V6) => add("ip_version", json!("IPV6")),
    }
    for (name, protocol) in [("protocol", rule.protocol), ("not_protocol", rule.not_protocol)] {
        protocol.into_iter().for_each(|number| add(name, json!(number)));
    }
    for (not, icmp) in [("", rule.icmp), ("not_", rule.not_icmp)] {
        match icmp {
            None => {}
            Some(Icmp { kind, code: None }) => add(&format!("{not}icmp_type"), json!(kind)),
            Some(Icmp { kind, code: Some(code) }) => {
                add(&format!("{not}icmp_type_code"), json!({"type": kind, "code": code}));
            }
        }
    }
    for (prefix, side) in [("src", &rule.source), ("dst", &rule.destination)] {
        add_side(&mut add, prefix, side);
    }
    out.into()
}

fn add_side(add: &mut impl FnMut(&str, Value), prefix: &str, side: &Side) {
    let nets = |nets: &[IpNetwork]| json!(nets.iter().map(ToString::to_string).collect::<Vec<_>>());
    let ids = |ids: &[SetId]| json!(ids.iter().map(|id| &**id).collect::<Vec<_>>());
    let ranges = |ports: &Ports| {
        json!(
            ports
                .ranges
                .iter()
                .map(|(first, last)| json!({"first": first, "last": last}))
                .collect::<Vec<_>>()
        )
    };
    let none = Ports::default();
    let ports = side.ports.as_ref().unwrap_or(&none);
    let lists = [
        (format!("{prefix}_net"), nets(side.nets.as_deref().unwrap_or(&[]))),
        (format!("not_{prefix}_net"), nets(&side.not_nets)),
        (format!("{prefix}_ip_set_ids"), ids(&side.sets)),
        (format!("not_{prefix}_ip_set_ids"), ids(&side.not_sets)),
        (format!("{prefix}_ports"), ranges(ports)),
        (format!("not_{prefix}_ports"), ranges(&side.not_ports)),
        (format!("{prefix}_named_port_ip_set_ids"), ids(&ports.named)),
        (format!("not_{prefix}_named_port_ip_set_ids"), ids(&side.not_ports.named)),
        (format!("{prefix}_ip_port_set_ids"), ids(&side.endpoint_sets)),
    ];
    for (name, list) in lists {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            add(&name, list);
        }
    }
}
