//! Felix's own "v1 model", in which `calc-graph.json` writes its datastores, as resources.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use canal_control::model::calico::resources::{
    Action, Block, EncapMode, Entity, HostEndpoint, IpPool, Labels, NamedPort, NetworkSet, Node, Policy,
    PolicyKey, Port, Profile, Rule,
};
use canal_control::model::calico::selector::Selector;
use canal_control::model::calico::{WorkloadEndpoint, WorkloadKey};
use canal_control::resolve::calico::{Change, ServiceSlice};
use ipnetwork::IpNetwork;
use serde_json::Value;

/// A state of the datastore.
#[derive(Default)]
pub struct Datastore {
    /// By an identifier of the resource.
    pub resources: BTreeMap<String, Change>,
    /// What Felix calls the workloads: `orchestrator/workload/endpoint`.
    pub workload_names: BTreeMap<WorkloadKey, String>,
    /// Tunnels that Felix finds in Node resources. It makes routes for these only; those of host configuration, which
    /// older versions write, are tunnel ends without routes.
    pub routed_tunnels: BTreeSet<IpAddr>,
}

#[derive(Default)]
struct Parts {
    nodes: BTreeMap<String, Node>,
    /// Rules, labels, tags.
    profiles: BTreeMap<String, (Option<Value>, BTreeMap<String, String>)>,
}

impl Datastore {
    /// Reads the entries; `by_node_resources`: nodes are known by their resources rather than by `bird_ip`.
    pub fn read(entries: &[Value], by_node_resources: bool) -> Self {
        let (mut datastore, mut parts) = (Self::default(), Parts::default());
        for entry in entries {
            let key = entry["key"].as_str().unwrap();
            datastore.learn(key, &entry["value"], by_node_resources, &mut parts);
        }
        for (name, node) in parts.nodes {
            datastore.add(format!("node {name}"), Change::Node(name, Some(Arc::new(node))));
        }
        for (name, (rules, labels)) in parts.profiles {
            // Labels without rules: Felix makes up rules that deny.
            let deny = serde_json::json!([{"action": "deny"}]);
            let rules = rules.unwrap_or(serde_json::json!({"inbound_rules": deny, "outbound_rules": deny}));
            let profile = Profile {
                ingress: list(&rules["inbound_rules"]).iter().map(rule).collect(),
                egress: list(&rules["outbound_rules"]).iter().map(rule).collect(),
                labels: Arc::new(labels.into_iter().collect()),
            };
            datastore.add(format!("profile {name}"), Change::Profile(name, Some(Arc::new(profile))));
        }
        datastore
    }

    fn add(&mut self, id: String, change: Change) {
        self.resources.insert(id, change);
    }

    fn learn(&mut self, key: &str, value: &Value, by_node_resources: bool, parts: &mut Parts) {
        let segments: Vec<&str> = key.trim_start_matches('/').split('/').collect();
        match segments.as_slice() {
            ["calico", "v1", "config" | "Ready", ..] => {}
            ["calico", "v1", "policy", "tier", tier, "policy", name] => {
                let policy = policy(tier, value);
                let namespace = text(&value["namespace"]).into();
                let key = PolicyKey { tie_break: unescaped(name).into(), namespace };
                self.add(format!("policy {name}"), Change::Policy(key, Some(Arc::new(policy))));
            }
            ["calico", "v1", "policy", "profile", name, part] => {
                let (rules, labels) = parts.profiles.entry(unescaped(name)).or_default();
                match *part {
                    "rules" => *rules = Some(value.clone()),
                    "labels" => labels.extend(texts_by_name(value)),
                    // A tag is a label without a value.
                    "tags" => {
                        labels.extend(list(value).iter().map(|tag| (text(tag).to_owned(), String::new())))
                    }
                    _ => panic!("{key}"),
                }
            }
            ["calico", "v1", "host", host, "workload", orchestrator, workload, "endpoint", endpoint] => {
                let [workload, endpoint] = [workload, endpoint].map(|segment| unescaped(segment));
                let name =
                    [host, *orchestrator, &workload, &endpoint].map(|part| part.replace('-', "--")).join("-");
                let key = WorkloadKey::new("v1", &name);
                self.workload_names.insert(key.clone(), format!("{orchestrator}/{workload}/{endpoint}"));
                let value = read_workload(host, value);
                self.add(format!("workload {key}"), Change::Workload(key, Some(Arc::new(value))));
            }
            ["calico", "v1", "host", host, "endpoint", name] => {
                let endpoint = host_endpoint(host, value);
                self.add(
                    format!("host endpoint {name}"),
                    Change::HostEndpoint(unescaped(name), Some(Arc::new(endpoint))),
                );
            }
            ["calico", "v1", "netset", name] => {
                let nets = list(&value["nets"]).iter().map(net).collect();
                let labels = Arc::new(read_labels(&value["labels"]));
                let profiles = list(&value["profile_ids"]).iter().map(|id| text(id).into()).collect();
                let set = NetworkSet { nets, labels, profiles };
                self.add(
                    format!("network set {name}"),
                    Change::NetworkSet(unescaped(name), Some(Arc::new(set))),
                );
            }
            ["calico", "v1", "host", host, "bird_ip"] if !by_node_resources => {
                let node = parts.nodes.entry((*host).to_owned()).or_default();
                node.ipv4 = address(value);
                node.ipv4_network = node.ipv4.map(IpNetwork::from);
            }
            ["calico", "v1", "host", _, "bird_ip"] => {}
            ["calico", "v1", "host", host, "config", name] => {
                let node = parts.nodes.entry((*host).to_owned()).or_default();
                match *name {
                    "IPv4VXLANTunnelAddr" => node.vxlan_v4 = address(value),
                    "VXLANTunnelMACAddr" => node.vxlan_mac = text(value).parse().ok(),
                    _ => {}
                }
            }
            ["calico", "v1", "ipam", _, "pool", cidr] => {
                let pool = pool(value);
                self.add(format!("pool {cidr}"), Change::Pool((*cidr).to_owned(), Some(pool)));
            }
            ["calico", "ipam", "v2", "assignment", _, "block", _] => {
                let block = block(value);
                self.add(format!("block {}", block.cidr), Change::Block(block.cidr, Some(Arc::new(block))));
            }
            ["calico", "resources", "v3", "projectcalico.org", "nodes", name] if by_node_resources => {
                self.learn_node(parts.nodes.entry((*name).to_owned()).or_default(), value);
            }
            ["calico", "resources", "v3", "projectcalico.org", "nodes", _] => {}
            [
                "calico",
                "resources",
                "v3",
                "projectcalico.org",
                "kubernetesendpointslices",
                namespace,
                name,
            ] => {
                let slice = slice(namespace, value);
                let name = format!("{namespace}/{name}");
                self.add(format!("slice {name}"), Change::ServiceSlice(name, Some(Arc::new(slice))));
            }
            _ => panic!("a key of unknown kind: {key}"),
        }
    }

    fn learn_node(&mut self, node: &mut Node, value: &Value) {
        let spec = &value["spec"];
        let bgp: Option<IpNetwork> = text(&spec["bgp"]["ipv4Address"]).parse().ok();
        let all = || list(&spec["addresses"]).iter();
        let of_type = |kind: &str| {
            let mut found = all().filter(|entry| text(&entry["type"]) == kind);
            found
                .find_map(|entry| text(&entry["address"]).parse::<IpNetwork>().ok())
                .filter(IpNetwork::is_ipv4)
        };
        let known = bgp.or_else(|| of_type("InternalIP")).or_else(|| of_type("ExternalIP"));
        node.ipv4 = known.map(|net| net.ip());
        node.ipv4_network = bgp.map(masked);
        let parsed = all().filter_map(|entry| text(&entry["address"]).parse::<IpNetwork>().ok());
        node.addresses = parsed.map(|net| net.ip()).collect();
        if let Some(tunnel) = address(&spec["ipv4VXLANTunnelAddr"]) {
            node.vxlan_v4 = Some(tunnel);
            self.routed_tunnels.insert(tunnel);
        }
        if let Some(tunnel) = address(&spec["bgp"]["ipv4IPIPTunnelAddr"]) {
            node.ipip_v4 = Some(tunnel);
            self.routed_tunnels.insert(tunnel);
        }
    }
}

/// That the resource of a change is gone.
pub fn gone(change: &Change) -> Change {
    match change {
        Change::Workload(key, _) => Change::Workload(key.clone(), None),
        Change::HostEndpoint(name, _) => Change::HostEndpoint(name.clone(), None),
        Change::NetworkSet(name, _) => Change::NetworkSet(name.clone(), None),
        Change::Policy(key, _) => Change::Policy(key.clone(), None),
        Change::Profile(name, _) => Change::Profile(name.clone(), None),
        Change::Tier(name, _) => Change::Tier(name.clone(), None),
        Change::Pool(name, _) => Change::Pool(name.clone(), None),
        Change::Node(name, _) => Change::Node(name.clone(), None),
        Change::Block(cidr, _) => Change::Block(*cidr, None),
        Change::ServiceSlice(name, _) => Change::ServiceSlice(name.clone(), None),
    }
}

/// IP protocol number of a name in any case, of a number, or of a number in a string.
pub fn protocol(value: &Value) -> Option<u8> {
    if let Some(number) = value.as_u64() {
        return u8::try_from(number).ok();
    }
    let name = text(value).to_ascii_lowercase();
    let names = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132), ("udplite", 136)];
    names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).or_else(|| name.parse().ok())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn address(value: &Value) -> Option<IpAddr> {
    text(value).parse().ok()
}

fn masked(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap()
}

fn net(value: &Value) -> IpNetwork {
    masked(text(value).parse().unwrap())
}

fn unescaped(segment: &str) -> String {
    segment.replace("%2f", "/").replace("%25", "%")
}

fn texts_by_name(value: &Value) -> impl Iterator<Item = (String, String)> {
    let members = value.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.clone(), text(value).to_owned()))
}

fn read_labels(value: &Value) -> Labels {
    texts_by_name(value).collect()
}

fn ports_of(value: &Value) -> Vec<NamedPort> {
    let port = |port: &Value| NamedPort {
        name: text(&port["name"]).into(),
        protocol: protocol(&port["protocol"]).unwrap(),
        port: u16::try_from(port["port"].as_u64().unwrap()).unwrap(),
    };
    list(&value["ports"]).iter().map(port).collect()
}

fn texts(value: &Value) -> Vec<Arc<str>> {
    list(value).iter().map(|text| text.as_str().unwrap().into()).collect()
}

fn read_workload(host: &str, value: &Value) -> WorkloadEndpoint {
    let nets = list(&value["ipv4_nets"]).iter().chain(list(&value["ipv6_nets"]));
    WorkloadEndpoint {
        node: host.into(),
        interface: text(&value["name"]).into(),
        networks: nets.map(net).collect::<BTreeSet<_>>().into_iter().collect(),
        mac: text(&value["mac"]).parse().ok(),
        labels: Arc::new(read_labels(&value["labels"])),
        profiles: texts(&value["profile_ids"]).into(),
        ports: ports_of(value).into(),
        floating: [].into(),
    }
}

fn host_endpoint(host: &str, value: &Value) -> HostEndpoint {
    let addresses = list(&value["expected_ipv4_addrs"]).iter().chain(list(&value["expected_ipv6_addrs"]));
    HostEndpoint {
        node: host.to_owned(),
        interface: text(&value["name"]).to_owned(),
        expected_ips: addresses.map(|value| address(value).unwrap()).collect(),
        profiles: texts(&value["profile_ids"]).into(),
        labels: Arc::new(read_labels(&value["labels"])),
        ports: ports_of(value),
    }
}

fn policy(tier: &str, value: &Value) -> Policy {
    let types = texts(&value["types"]);
    let half = |direction: &str, rules: &str| {
        let has = types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(direction));
        has.then(|| list(&value[rules]).iter().map(rule).collect())
    };
    let flag = |name: &str| value[name].as_bool().unwrap_or(false);
    Policy {
        tier: tier.into(),
        order: value["order"].as_f64(),
        selector: Selector::parse(text(&value["selector"])).unwrap(),
        ingress: half("ingress", "inbound_rules"),
        egress: half("egress", "outbound_rules"),
        do_not_track: flag("untracked"),
        pre_dnat: flag("pre_dnat"),
        apply_on_forward: flag("apply_on_forward"),
    }
}

fn rule(value: &Value) -> Rule {
    let number = |name: &str| value[name].as_u64().and_then(|number| u8::try_from(number).ok());
    Rule {
        action: match text(&value["action"]).to_ascii_lowercase().as_str() {
            "" | "allow" => Action::Allow,
            "log" => Action::Log,
            "next-tier" | "pass" => Action::Pass,
            _ => Action::Deny,
        },
        ip_version: number("ip_version"),
        protocol: protocol(&value["protocol"]),
        not_protocol: protocol(&value["!protocol"]),
        icmp: number("icmp_type").map(|kind| (kind, number("icmp_code"))),
        not_icmp: number("!icmp_type").map(|kind| (kind, number("!icmp_code"))),
        source: entity(value, "src").into(),
        destination: entity(value, "dst").into(),
        http: value.get("http").is_some_and(|http| !http.is_null()),
        unreadable: false,
    }
}

fn entity(value: &Value, side: &str) -> Entity {
    let member = |not: &str, name: &str| &value[format!("{not}{side}_{name}")];
    let selector = |not: &str| {
        let tag = text(member(not, "tag"));
        let tag = (!tag.is_empty()).then(|| format!("has({tag})"));
        let selector = Some(text(member(not, "selector"))).filter(|text| !text.is_empty());
        let parts: Vec<String> = tag.into_iter().chain(selector.map(str::to_owned)).collect();
        let between = if not.is_empty() { ") && (" } else { ") || (" };
        let joined = format!("({})", parts.join(between));
        (!parts.is_empty()).then(|| Selector::parse(&joined).unwrap())
    };
    let nets = |not: &str| -> Vec<IpNetwork> {
        let one = Some(member(not, "net")).filter(|net| !net.is_null());
        one.into_iter().chain(list(member(not, "nets"))).map(net).collect()
    };
    let ports = |not: &str| -> Vec<Port> { list(member(not, "ports")).iter().map(port).collect() };
    let service = text(member("", "service"));
    Entity {
        nets: Some(nets("")).filter(|nets| !nets.is_empty()),
        not_nets: nets("!"),
        selector: selector(""),
        not_selector: selector("!"),
        ports: Some(ports("")).filter(|ports| !ports.is_empty()),
        not_ports: ports("!"),
        service: (!service.is_empty()).then(|| format!("{}/{service}", text(member("", "service_ns")))),
    }
}

fn port(value: &Value) -> Port {
    if let Some(number) = value.as_u64() {
        let number = u16::try_from(number).unwrap();
        return Port::Range(number, number);
    }
    let (first, last) = text(value).split_once(':').unwrap_or((text(value), text(value)));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => Port::Range(first, last),
        _ => Port::Named(text(value).into()),
    }
}

fn pool(value: &Value) -> IpPool {
    let mode = |name: &str| match text(&value[name]) {
        "always" => EncapMode::Always,
        "cross-subnet" => EncapMode::CrossSubnet,
        _ => EncapMode::Never,
    };
    IpPool {
        cidr: net(&value["cidr"]),
        vxlan: mode("vxlan_mode"),
        ipip: mode("ipip_mode"),
        nat_outgoing: value["masquerade"].as_bool().unwrap_or(false),
        disabled: value["disabled"].as_bool().unwrap_or(false),
    }
}

fn block(value: &Value) -> Block {
    let attributes = list(&value["attributes"]);
    let node = |index: usize| {
        let node = attributes.get(index)?["secondary"]["node"].as_str()?;
        Some(node.to_owned())
    };
    let allocated = list(&value["allocations"]).iter().enumerate().filter_map(|(ordinal, index)| {
        let index = usize::try_from(index.as_u64()?).ok()?;
        Some((u32::try_from(ordinal).ok()?, node(index)))
    });
    Block {
        cidr: net(&value["cidr"]),
        node: text(&value["affinity"]).strip_prefix("host:").map(str::to_owned),
        allocations: allocated.collect(),
    }
}

fn slice(namespace: &str, value: &Value) -> ServiceSlice {
    let service = text(&value["metadata"]["labels"]["kubernetes.io/service-name"]);
    let addresses: Vec<IpAddr> = list(&value["endpoints"])
        .iter()
        .flat_map(|endpoint| list(&endpoint["addresses"]))
        .filter_map(address)
        .collect();
    let port = |port: &Value| {
        let protocol = protocol(&port["protocol"]).unwrap_or(6);
        Some((protocol, u16::try_from(port["port"].as_u64()?).ok()?))
    };
    let ports: Vec<(u8, u16)> = list(&value["ports"]).iter().filter_map(port).collect();
    let members = addresses
        .iter()
        .flat_map(|address| ports.iter().map(|(protocol, port)| (*address, *protocol, *port)));
    ServiceSlice { service: format!("{namespace}/{service}"), ports: members.collect(), addresses }
}
