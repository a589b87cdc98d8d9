//! libcalico-go's JSON of what resources are converted to.

use canal_control::model::calico::felix_key::{FelixKey, WorkloadPath};
use canal_control::model::calico::names;
use canal_control::model::calico::number::{Port, Protocol};
use canal_control::model::calico::resources::EncapMode;
use canal_control::model::calico::v1::{
    EndpointPort, Entity, HostEndpoint, IpNat, Net, NetworkSet, Node, Policy, Pool, Profile, Rule,
    WorkloadEndpoint,
};
use canal_control::model::calico::{WorkloadKey, v3};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

/// An object from which Go leaves out what is empty.
fn omitting<const N: usize>(members: [(&str, Value); N]) -> Value {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    let present = members.into_iter().filter(|(_, value)| !empty(value));
    Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn merged(objects: impl IntoIterator<Item = Value>) -> Value {
    let members = objects.into_iter().filter_map(|object| match object {
        Value::Object(members) => Some(members),
        _ => None,
    });
    Value::Object(members.flatten().collect())
}

pub fn rule(rule: &Rule) -> Value {
    let common = omitting([
        ("action", json!(rule.action)),
        ("ip_version", json!(rule.ip_version)),
        ("protocol", json!(rule.protocol.as_ref().map(protocol))),
        ("!protocol", json!(rule.not_protocol.as_ref().map(protocol))),
        ("icmp_type", json!(rule.icmp.r#type)),
        ("icmp_code", json!(rule.icmp.code)),
        ("!icmp_type", json!(rule.not_icmp.r#type)),
        ("!icmp_code", json!(rule.not_icmp.code)),
        ("http", json!(rule.http.as_ref().map(http))),
    ]);
    let annotations = rule.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    let metadata =
        annotations.map(|annotations| json!({ "metadata": omitting([("annotations", json!(annotations))]) }));
    merged(
        [common, entity(&rule.source, "src"), entity(&rule.destination, "dst")].into_iter().chain(metadata),
    )
}

fn http(http: &v3::Http) -> Value {
    omitting([("methods", json!(http.methods)), ("paths", json!(http.paths))])
}

fn protocol(protocol: &Protocol) -> Value {
    match protocol {
        Protocol::Number(number) => json!(number),
        Protocol::Name(name) => json!(name),
    }
}

fn entity(entity: &Entity, side: &str) -> Value {
    // A source's unreadable networks are skipped, a destination's are null.
    let nets = |nets: &[Net]| -> Vec<Value> {
        let shown = nets.iter().filter(|net| net.is_ok() || side == "dst");
        shown.map(|net| json!(net.as_ref().ok().map(ToString::to_string))).collect()
    };
    let service = entity.service.clone().unwrap_or_default();
    let original = &entity.original;
    let named = |members: Value| -> Value {
        let Value::Object(members) = members else { unreachable!("an object") };
        let renamed = members.into_iter().map(|(name, value)| (name.replace('@', side), value));
        Value::Object(renamed.collect())
    };
    named(omitting([
        ("@_nets", json!(nets(&entity.nets))),
        ("!@_nets", json!(nets(&entity.not_nets))),
        ("@_selector", json!(entity.selector)),
        ("!@_selector", json!(entity.not_selector)),
        ("@_ports", entity.ports.iter().map(port).collect()),
        ("!@_ports", entity.not_ports.iter().map(port).collect()),
        ("@_service", json!(service.name)),
        ("@_service_ns", json!(service.namespace)),
        ("orig_@_selector", json!(original.selector)),
        ("orig_@_namespace_selector", json!(original.namespace_selector)),
        ("!orig_@_selector", json!(entity.not_selector)),
        ("orig_@_service_acct_names", json!(original.service_accounts.names)),
        ("orig_@_service_acct_selector", json!(original.service_accounts.selector)),
    ]))
}

fn port(port: &Port) -> Value {
    match port {
        Port::Range(low, high) if low == high => json!(low),
        other => json!(other.to_string()),
    }
}

pub fn policy(policy: &Policy) -> Value {
    // Go writes whole numbers without a point.
    let order = policy.order.map(|order| serde_json::from_str::<Value>(&order.to_string()).unwrap());
    let members = omitting([
        ("namespace", json!(policy.namespace)),
        ("order", json!(order)),
        ("inbound_rules", policy.inbound.iter().map(rule).collect()),
        ("outbound_rules", policy.outbound.iter().map(rule).collect()),
        ("untracked", json!(policy.do_not_track)),
        ("pre_dnat", json!(policy.pre_dnat)),
        ("apply_on_forward", json!(policy.apply_on_forward)),
        ("types", json!(policy.types)),
    ]);
    merged([members, json!({ "selector": policy.selector })])
}

pub fn profile_rules(profile: &Profile) -> Value {
    omitting([
        ("inbound_rules", profile.inbound.iter().map(rule).collect()),
        ("outbound_rules", profile.outbound.iter().map(rule).collect()),
    ])
}

/// `None` = deleted.
pub fn profile_labels(profile: &Profile) -> Option<Value> {
    (!profile.labels.is_empty()).then(|| json!(profile.labels))
}

/// The key of an endpoint that is called so; `None` = the name says too little.
pub fn workload_key(key: &WorkloadKey) -> Option<FelixKey> {
    let [node, orchestrator, third, endpoint] = names::segments(key.name())?;
    let workload = format!("{}/{third}", key.namespace());
    Some(FelixKey::Workload(WorkloadPath { node, orchestrator, workload, endpoint }))
}

pub fn workload(endpoint: &WorkloadEndpoint) -> Value {
    // Go's nil slice.
    let listed = |nets: &[IpNetwork]| if nets.is_empty() { Value::Null } else { nets_json(nets) };
    let family =
        |v4: bool| endpoint.nats.iter().filter(|nat| nat.internal.is_ipv4() == v4).map(nat).collect();
    merged([
        omitting([
            ("labels", labels(&endpoint.labels)),
            ("ports", endpoint.ports.iter().map(endpoint_port).collect()),
            ("ipv4_nat", family(true)),
            ("ipv6_nat", family(false)),
            ("ipv4_gateway", json!(endpoint.v4_gateway)),
            ("ipv6_gateway", json!(endpoint.v6_gateway)),
        ]),
        json!({
            "active_instance_id": "",
            "state": "active",
            "name": endpoint.interface,
            "mac": endpoint.mac.map(|mac| mac.to_string()),
            "profile_ids": if endpoint.profiles.is_empty() { Value::Null } else { json!(endpoint.profiles) },
            "ipv4_nets": listed(&endpoint.v4_nets),
            "ipv6_nets": listed(&endpoint.v6_nets),
        }),
    ])
}

fn nat(nat: &IpNat) -> Value {
    json!({ "int_ip": nat.internal, "ext_ip": nat.external })
}

fn endpoint_port(port: &EndpointPort) -> Value {
    json!({ "name": port.name, "protocol": protocol(&port.protocol), "port": port.port })
}

fn nets_json(nets: &[IpNetwork]) -> Value {
    nets.iter().map(|net| json!(net.to_string())).collect()
}

fn labels(labels: &v3::Labels) -> Value {
    json!(labels)
}

pub fn host_endpoint(endpoint: &HostEndpoint) -> Value {
    let family = |v4: bool| -> Value {
        endpoint.expected_ips.iter().filter(|ip| ip.is_ipv4() == v4).map(|ip| json!(ip)).collect()
    };
    omitting([
        ("name", json!(endpoint.interface)),
        ("expected_ipv4_addrs", family(true)),
        ("expected_ipv6_addrs", family(false)),
        ("labels", labels(&endpoint.labels)),
        ("profile_ids", json!(endpoint.profiles)),
        ("ports", endpoint.ports.iter().map(endpoint_port).collect()),
    ])
}

pub fn network_set(set: &NetworkSet) -> Value {
    omitting([
        ("nets", nets_json(&set.nets)),
        ("labels", labels(&set.labels)),
        ("profile_ids", json!(set.profiles)),
    ])
}

pub fn pool(pool: &Pool) -> Value {
    let mode = |mode: EncapMode| match mode {
        EncapMode::Never => "",
        EncapMode::CrossSubnet => "cross-subnet",
        EncapMode::Always => "always",
    };
    let it = &pool.pool;
    json!({
        "cidr": it.cidr.to_string(),
        "ipip": if it.ipip == EncapMode::Never { "" } else { "tunl0" },
        "ipip_mode": mode(it.ipip),
        "vxlan_mode": mode(it.vxlan),
        "masquerade": it.nat_outgoing,
        "ipam": !it.disabled,
        "disabled": it.disabled,
        "disableBGPExport": pool.disable_bgp_export,
    })
}

/// What a node has under keys of its own.
pub fn node(name: &str, node: &Node) -> Vec<(FelixKey, Value)> {
    let config = |setting: &str| FelixKey::HostConfig(name.to_owned(), setting.to_owned());
    let mac = Some(node.vxlan_mac.clone()).filter(|mac| !mac.is_empty());
    let parts = [
        (FelixKey::HostIp(name.to_owned()), json!(node.v4.host)),
        (config("IpInIpTunnelAddr"), json!(node.ipip_v4)),
        (config("IPv4VXLANTunnelAddr"), json!(node.v4.vxlan)),
        (config("VXLANTunnelMACAddr"), json!(mac)),
    ];
    parts.into_iter().filter(|(_, value)| !value.is_null()).collect()
}
