//! A recorded case, read into the spec's terms. Fields that are not known here are an error: they would not be tested.

use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::policy::{Facts, Outcome, Passage, Transport};
use canal_dataplane::spec::policy::{
    Action, Family, HostPolicy, Icmp, IpSet, Members, Origin, OriginKind, PolicyDirection, PolicyList, Ports,
    Rule, RuleSet, SetId, Side, Tier, TierEnd,
};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

/// Where the recorded program was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Workload,
    Host,
    Untracked,
}

/// One packet as the policy sees it.
#[derive(Clone, Debug)]
pub struct Packet {
    pub facts: Facts,
    pub passage: Passage,
}

/// Policies, sets, and packets with their fate.
#[derive(Debug)]
pub struct Case {
    pub id: String,
    pub kind: Kind,
    pub sets: Vec<Arc<IpSet>>,
    pub host: HostPolicy,
    pub workload: Arc<PolicyList>,
    pub packets: Vec<(Packet, Outcome)>,
}

impl Case {
    pub fn read(value: &Value) -> Self {
        let case = object(value);
        let policy = object(&case["policy"]);
        let kind = match text(&policy["interface_kind"]) {
            "workload_interface" => Kind::Workload,
            "host_interface" => Kind::Host,
            "xdp_untracked" => Kind::Untracked,
            other => panic!("interface kind {other}"),
        };
        let list = |tiers: &str, profiles: &str, free: bool| PolicyList {
            tiers: items(policy.get(tiers)).iter().map(|tier| read_tier(tier, free)).collect(),
            profiles: items(policy.get(profiles))
                .iter()
                .map(|profile| read_rules(profile, OriginKind::Profile))
                .collect(),
        };
        let host = HostPolicy {
            untracked: Arc::new(list("untracked_tiers", "", true)),
            pre_dnat: Arc::new(list("host_pre_dnat_tiers", "", true)),
            forward: Arc::new(list("host_forward_tiers", "", false)),
            normal: Arc::new(list("host_normal_tiers", "host_profiles", false)),
        };
        let known = [
            "interface_kind",
            "suppress_normal_host_policy",
            "untracked_tiers",
            "host_pre_dnat_tiers",
            "host_forward_tiers",
            "host_normal_tiers",
            "host_profiles",
            "workload_tiers",
            "workload_profiles",
        ];
        assert_known(policy, &known);
        let suppress = policy.get("suppress_normal_host_policy").is_some_and(|value| value == true);
        let fates =
            [("allowed", Outcome::Allowed), ("denied", Outcome::Denied), ("unmatched", Outcome::Undecided)];
        let packets = fates.iter().flat_map(|(name, outcome)| {
            items(case.get(*name)).iter().map(move |packet| (read_packet(packet, suppress), *outcome))
        });
        Self {
            id: text(&case["id"]).to_owned(),
            kind,
            sets: read_sets(case),
            host,
            workload: Arc::new(list("workload_tiers", "workload_profiles", false)),
            packets: packets.collect(),
        }
    }
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items,
        Some(other) => panic!("not a list: {other}"),
    }
}

fn number<N: TryFrom<u64>>(value: &Value) -> N {
    let number = value.as_u64().and_then(|number| N::try_from(number).ok());
    number.unwrap_or_else(|| panic!("not a number that fits: {value}"))
}

fn assert_known(fields: &Map<String, Value>, known: &[&str]) {
    let unknown: Vec<&String> = fields.keys().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "fields that nothing here reads: {unknown:?}");
}

/// `free`: the spec's list gives no meaning to the ends of its tiers; where a case does, a rule says so.
fn read_tier(value: &Value, free: bool) -> Tier {
    let tier = object(value);
    assert_known(tier, &["name", "end_action", "policies"]);
    let end = match tier.get("end_action").map(text) {
        Some("pass") => TierEnd::Pass,
        Some("deny" | "") | None => TierEnd::Deny,
        Some(other) => panic!("end action {other}"),
    };
    let policies = items(tier.get("policies")).iter();
    let mut policies: Vec<_> =
        policies.map(|policy| read_rules(policy, OriginKind::GlobalNetworkPolicy)).collect();
    if free && end == TierEnd::Deny {
        let origin = origin("end of tier", OriginKind::GlobalNetworkPolicy);
        policies.push(Arc::new(RuleSet { origin, rules: vec![Rule::any(Action::Deny)] }));
    }
    Tier { name: text(&tier["name"]).into(), end, policies }
}

fn origin(name: &str, kind: OriginKind) -> Origin {
    Origin { kind, name: name.into(), direction: PolicyDirection::Ingress }
}

fn read_rules(value: &Value, kind: OriginKind) -> Arc<RuleSet> {
    let policy = object(value);
    assert_known(policy, &["name", "rules"]);
    let name = policy.get("name").map_or("", text);
    let rules = items(policy.get("rules")).iter().map(read_rule).collect();
    Arc::new(RuleSet { origin: origin(name, kind), rules })
}

fn read_rule(value: &Value) -> Rule {
    let rule = object(value);
    let end = |end: &str| {
        let of = |pattern: &str| rule.get(&pattern.replace('*', end));
        let ports = |ranges: &str, named: &str| Ports {
            ranges: items(of(ranges)).iter().map(read_range).collect(),
            named: ids(of(named)),
        };
        let positive = ports("*_ports", "*_named_port_ipsets");
        Side {
            nets: Some(nets(of("*_nets"))).filter(|nets| !nets.is_empty()),
            not_nets: nets(of("not_*_nets")),
            sets: ids(of("*_ipsets")),
            not_sets: ids(of("not_*_ipsets")),
            ports: Some(positive).filter(|ports| !ports.is_empty()),
            not_ports: ports("not_*_ports", "not_*_named_port_ipsets"),
            endpoint_sets: ids(of("*_ip_port_ipsets")),
        }
    };
    let fields = [
        "*_nets",
        "not_*_nets",
        "*_ipsets",
        "not_*_ipsets",
        "*_ports",
        "not_*_ports",
        "*_named_port_ipsets",
        "not_*_named_port_ipsets",
        "*_ip_port_ipsets",
    ];
    let mut known: Vec<String> = Vec::new();
    known.extend(["src", "dst"].iter().flat_map(|end| fields.map(|field| field.replace('*', end))));
    known.extend(["action", "ip_version", "protocol", "not_protocol", "icmp", "not_icmp"].map(String::from));
    assert_known(rule, &known.iter().map(String::as_str).collect::<Vec<_>>());
    Rule {
        action: match text(&rule["action"]).to_ascii_lowercase().as_str() {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            "log" => Action::Log,
            "pass" | "next-tier" => Action::Pass,
            other => panic!("action {other}"),
        },
        family: rule.get("ip_version").map(|version| match number::<u8>(version) {
            4 => Family::V4,
            6 => Family::V6,
            other => panic!("IP version {other}"),
        }),
        protocol: rule.get("protocol").map(read_protocol),
        not_protocol: rule.get("not_protocol").map(read_protocol),
        icmp: rule.get("icmp").map(read_icmp),
        not_icmp: rule.get("not_icmp").map(read_icmp),
        source: end("src"),
        destination: end("dst"),
    }
}

fn read_protocol(value: &Value) -> u8 {
    let Some(name) = value.as_str() else { return number(value) };
    match name.to_ascii_lowercase().as_str() {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "icmpv6" => 58,
        "sctp" => 132,
        "udplite" => 136,
        other => other.parse().unwrap_or_else(|_| panic!("protocol {other}")),
    }
}

fn read_icmp(value: &Value) -> Icmp {
    let icmp = object(value);
    assert_known(icmp, &["type", "code"]);
    Icmp { kind: number(&icmp["type"]), code: icmp.get("code").map(number) }
}

fn read_range(value: &Value) -> (u16, u16) {
    match items(Some(value)) {
        [first, last] => (number(first), number(last)),
        _ => panic!("not a range of ports: {value}"),
    }
}

fn nets(value: Option<&Value>) -> Vec<IpNetwork> {
    items(value).iter().map(|net| text(net).parse().unwrap()).collect()
}

fn ids(value: Option<&Value>) -> Vec<SetId> {
    items(value).iter().map(|id| text(id).into()).collect()
}

/// What is in an empty set cannot be seen: it is what its rules take it for.
fn read_sets(case: &Map<String, Value>) -> Vec<Arc<IpSet>> {
    let policy = case["policy"].to_string();
    let mut sets = Vec::new();
    for (id, members) in case.get("ipsets").map(object).into_iter().flatten() {
        let members = items(Some(members));
        let named = ["_named_port_ipsets", "_ip_port_ipsets"].iter().any(|field| {
            policy
                .split(field)
                .skip(1)
                .any(|rest| rest.split(']').next().unwrap().contains(&format!("{id:?}")))
        });
        let ports = members.first().map_or(named, |member| text(member).contains(','));
        let members = if ports {
            let mut members: Vec<_> = members.iter().map(|member| read_member(text(member))).collect();
            members.sort_unstable();
            Members::Ports(members)
        } else {
            let mut nets = nets(Some(&Value::from(members.to_vec())));
            nets.sort_unstable();
            Members::Nets(nets)
        };
        sets.push(Arc::new(IpSet { id: id.as_str().into(), members }));
    }
    sets.sort_by(|a, b| a.id.cmp(&b.id));
    sets
}

/// `address/length,protocol:port`.
fn read_member(text: &str) -> (IpAddr, u8, u16) {
    let (address, service) = text.split_once(',').expect("a member with a port");
    let (protocol, port) = service.split_once(':').expect("protocol and port");
    let net: IpNetwork = address.parse().unwrap();
    (net.ip(), read_protocol(&Value::from(protocol)), port.parse().unwrap())
}

fn read_packet(value: &Value, workload_interface: bool) -> Packet {
    let packet = object(value);
    let known = [
        "proto",
        "src",
        "sport",
        "dst",
        "dport",
        "icmp_type",
        "icmp_code",
        "pre_nat_dst",
        "pre_nat_dport",
        "from_host",
        "to_host",
    ];
    assert_known(packet, &known);
    let address = |name: &str| text(&packet[name]).parse::<IpAddr>().unwrap();
    let port = |name: &str| packet.get(name).map_or(0, number);
    let protocol = number(&packet["proto"]);
    let transport = match protocol {
        6 | 17 | 132 => Transport::Ports(port("sport"), port("dport")),
        1 | 58 => Transport::Icmp(
            packet.get("icmp_type").map_or(0, number),
            packet.get("icmp_code").map_or(0, number),
        ),
        _ => Transport::Other,
    };
    let flag = |name: &str| packet.get(name).is_some_and(|value| value == true);
    let original = packet.contains_key("pre_nat_dst").then(|| {
        let port = packet.get("pre_nat_dport").map_or_else(|| port("dport"), number);
        (address("pre_nat_dst"), port)
    });
    let forwarded = !flag("from_host") && !flag("to_host");
    Packet {
        facts: Facts { source: address("src"), destination: address("dst"), protocol, transport },
        passage: Passage { original, forwarded, workload_interface },
    }
}
