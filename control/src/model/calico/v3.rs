//! Resources as they are stored: Calico's v3 API, as far as forwarding reads it.
//!
//! Everything is as written, and everything may be absent; [`super::v1`] makes sense of it. Names of members match in
//! any case (see [`super::go_json`]): `ip_nats` reads `ipNATs`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::number::{Port, Protocol};

/// Names and texts, as `metadata.labels` has them.
pub type Labels = BTreeMap<String, String>;

/// A complete object.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound = "S: Default + Deserialize<'de>")]
pub struct Object<S> {
    /// Checked against the key.
    pub kind: String,
    /// What all kinds have.
    pub metadata: Metadata,
    /// What its writer wants.
    pub spec: S,
    /// What was found out since.
    pub status: Status,
}

/// What all kinds have. Name and namespace are the key's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// For selectors.
    pub labels: Labels,
    /// For tools.
    pub annotations: Labels,
}

/// Of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// What Kubernetes has given to the node.
    pub pod_cidrs: Vec<String>,
}

/// A NetworkPolicy or GlobalNetworkPolicy.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicySpec {
    /// Since 3.29.
    pub tier: String,
    /// Lowest first.
    pub order: Option<f64>,
    /// Towards the endpoint.
    pub ingress: Vec<Rule>,
    /// From the endpoint.
    pub egress: Vec<Rule>,
    /// Which endpoints.
    pub selector: String,
    /// `Ingress`, `Egress`.
    pub types: Vec<String>,
    /// Which service accounts.
    pub service_account_selector: String,
    /// Which namespaces; global policies only.
    pub namespace_selector: String,
    /// Global policies only.
    pub do_not_track: bool,
    /// Global policies only.
    pub pre_dnat: bool,
    /// Global policies only.
    pub apply_on_forward: bool,
}

/// A rule of a policy or profile.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// `Allow`, `Deny`, `Log`, `Pass`.
    pub action: String,
    /// 4 or 6.
    pub ip_version: Option<i64>,
    /// Only this one.
    pub protocol: Option<Protocol>,
    /// Not this one.
    pub not_protocol: Option<Protocol>,
    /// Only these messages.
    pub icmp: Option<Icmp>,
    /// Not these.
    pub not_icmp: Option<Icmp>,
    /// About the sender.
    pub source: Entity,
    /// About the receiver.
    pub destination: Entity,
    /// For proxies.
    pub http: Option<Http>,
    /// For tools.
    pub metadata: Option<RuleMetadata>,
}

/// ICMP messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Icmp {
    /// 0-254.
    pub r#type: Option<i64>,
    /// 0-255.
    pub code: Option<i64>,
}

/// One side of a rule.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Entity {
    /// In one of these.
    pub nets: Vec<String>,
    /// In none of these.
    pub not_nets: Vec<String>,
    /// Addresses of these endpoints and network sets.
    pub selector: String,
    /// Not of these.
    pub not_selector: String,
    /// In these namespaces.
    pub namespace_selector: String,
    /// With these service accounts.
    pub service_accounts: Option<ServiceAccounts>,
    /// One of these.
    pub ports: Vec<Port>,
    /// None of these.
    pub not_ports: Vec<Port>,
    /// Addresses and ports of a service.
    pub services: Option<Service>,
}

/// Service accounts, by name and by label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceAccounts {
    /// One of these.
    pub names: Vec<String>,
    /// About the account's labels.
    pub selector: String,
}

/// A Kubernetes service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub namespace: String,
}

/// What a proxy looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Http {
    /// E.g. `GET`.
    pub methods: Vec<String>,
    /// Each is `{"exact": …}` or `{"prefix": …}`.
    pub paths: Vec<BTreeMap<String, String>>,
}

/// What tools note about a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RuleMetadata {
    /// Absent is something else than empty.
    pub annotations: Option<Labels>,
}

/// A Profile.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProfileSpec {
    /// Towards the endpoint.
    pub ingress: Vec<Rule>,
    /// From the endpoint.
    pub egress: Vec<Rule>,
    /// Labels that endpoints inherit.
    pub labels_to_apply: Labels,
}

/// A Tier.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TierSpec {
    /// Lowest first.
    pub order: Option<f64>,
    /// `Deny`, `Pass`.
    pub default_action: String,
}

/// A WorkloadEndpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEndpointSpec {
    /// Where it runs.
    pub node: String,
    /// Its Kubernetes service account.
    pub service_account_name: String,
    /// Its addresses.
    pub ip_networks: Vec<String>,
    /// Floating addresses.
    pub ip_nats: Vec<IpNat>,
    /// Only checked.
    pub ipv4_gateway: String,
    /// Only checked.
    pub ipv6_gateway: String,
    /// In order.
    pub profiles: Vec<String>,
    /// Host-side interface.
    pub interface_name: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Its ports.
    pub ports: Vec<EndpointPort>,
}

/// A floating address.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IpNat {
    /// The endpoint's own.
    pub internal_ip: String,
    /// As others see it.
    pub external_ip: String,
}

/// A port of an endpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// May be empty.
    pub name: String,
    /// Absent is as good as 0.
    pub protocol: Option<Protocol>,
    /// Number.
    pub port: u16,
}

/// A HostEndpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HostEndpointSpec {
    /// Which host.
    pub node: String,
    /// `*` = all of them; empty = found by its addresses.
    pub interface_name: String,
    /// Its addresses.
    pub expected_ips: Vec<String>,
    /// In order.
    pub profiles: Vec<String>,
    /// Its ports.
    pub ports: Vec<EndpointPort>,
}

/// A NetworkSet or GlobalNetworkSet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NetworkSetSpec {
    /// Networks and addresses.
    pub nets: Vec<String>,
}

/// An IPPool.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// Its addresses.
    pub cidr: String,
    /// `Never`, `CrossSubnet`, `Always`.
    pub vxlan_mode: String,
    /// The same.
    pub ipip_mode: String,
    /// Masquerade what leaves all pools.
    pub nat_outgoing: bool,
    /// No new addresses from it.
    pub disabled: bool,
    /// For BGP.
    pub disable_bgp_export: bool,
}

/// A Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    /// Its addresses between nodes.
    pub bgp: Option<NodeBgp>,
    /// Of its VXLAN device.
    pub ipv4_vxlan_tunnel_addr: String,
    /// The same for IPv6.
    pub ipv6_vxlan_tunnel_addr: String,
    /// Of its VXLAN device.
    pub vxlan_tunnel_mac_addr: String,
    /// The same for IPv6.
    pub vxlan_tunnel_mac_addr_v6: String,
    /// What other systems say that its addresses are.
    pub addresses: Vec<NodeAddress>,
}

/// A Node's addresses between nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeBgp {
    /// With the length of its network's prefix, or without.
    pub ipv4_address: String,
    /// The same for IPv6.
    pub ipv6_address: String,
    /// Of its IP-in-IP device.
    pub ipv4_ipip_tunnel_addr: String,
}

/// An address of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// An address, or a name.
    pub address: String,
    /// `CalicoNodeIP`, `InternalIP`, `ExternalIP`.
    pub r#type: String,
}

/// A BGPConfiguration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BgpConfigurationSpec {
    /// Of services inside the cluster.
    pub service_cluster_ips: Vec<ServiceNet>,
    /// Of services, as others see them.
    pub service_external_ips: Vec<ServiceNet>,
    /// Of load balancers.
    pub service_load_balancer_ips: Vec<ServiceNet>,
}

/// A network of services.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceNet {
    /// With the length of its prefix.
    pub cidr: String,
}

/// An IPAM block; it has no metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Block {
    /// Its addresses.
    pub cidr: String,
    /// `host:<node>`.
    pub affinity: Option<String>,
    /// The same, of former times, without `host:`.
    pub host_affinity: Option<String>,
    /// For each address the number of its attributes.
    pub allocations: Vec<Option<i64>>,
    /// What is known of those who hold addresses.
    pub attributes: Vec<Attributes>,
}

/// What is known of one who holds addresses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// `node`, `pod`, `namespace` and others.
    pub secondary: Labels,
}
