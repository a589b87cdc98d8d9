//! What resolution reads of Calico's resources, after conversion: the terms of Felix's own model (spec: libcalico-go's
//! "v1 model"), with every string typed. Decoders make these; nothing else does.

use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::net::Mac;
use ipnetwork::IpNetwork;

use super::keys::ResourceKey;
pub use super::labels::Labels;
use super::selector::Selector;

/// Names in order. Many objects have the same list, which is kept once for all of them.
pub type Names = Arc<[Arc<str>]>;

/// Which policy. Sorted as Felix breaks ties: by [`Self::tie_break`], then kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// `<stored name>` of a GlobalNetworkPolicy, `<namespace>/<stored name>` of a NetworkPolicy.
    pub tie_break: Arc<str>,
    /// Empty = a GlobalNetworkPolicy.
    pub namespace: Arc<str>,
}

impl PolicyKey {
    /// That of a resource.
    pub fn of(key: &ResourceKey) -> Self {
        Self { tie_break: key.full_name().into(), namespace: key.namespace.as_str().into() }
    }
}

/// A NetworkPolicy or GlobalNetworkPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `spec.tier`, else derived from the name.
    pub tier: Arc<str>,
    /// Absent sorts last.
    pub order: Option<f64>,
    /// Complete: namespace and service account selectors are joined in.
    pub selector: Selector,
    /// Rules towards the endpoint; `None` = the policy has no such direction (`types`).
    pub ingress: Option<Vec<Rule>>,
    /// Rules from the endpoint.
    pub egress: Option<Vec<Rule>>,
    /// Host endpoints' untracked list.
    pub do_not_track: bool,
    /// Host endpoints' pre-DNAT list.
    pub pre_dnat: bool,
    /// Host endpoints' forward list, too.
    pub apply_on_forward: bool,
}

/// A rule whose selectors are complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unknown ones become `Deny`.
    pub action: Action,
    /// 4, 6 or both.
    pub ip_version: Option<u8>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Every protocol but this.
    pub not_protocol: Option<u8>,
    /// ICMP type and code.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Every message but this.
    pub not_icmp: Option<(u8, Option<u8>)>,
    /// About the sender.
    pub source: Arc<Entity>,
    /// About the receiver.
    pub destination: Arc<Entity>,
    /// It has an `http` match, which is not enforced here.
    pub http: bool,
    /// A part of it could not be read (a net, a port): it matches nothing if it would let packets pass.
    pub unreadable: bool,
}

impl Rule {
    /// About every packet.
    pub fn any(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Arc::default(),
            destination: Arc::default(),
            http: false,
            unreadable: false,
        }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Accept.
    Allow,
    /// Drop.
    Deny,
    /// Note and go on.
    Log,
    /// Next tier.
    Pass,
}

/// One side of a rule. Many rules have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entity {
    /// `None` = no criterion; host bits are masked off.
    pub nets: Option<Vec<IpNetwork>>,
    /// In none of these.
    pub not_nets: Vec<IpNetwork>,
    /// Complete: namespace and service accounts are joined in. `None` = no criterion.
    pub selector: Option<Selector>,
    /// As written.
    pub not_selector: Option<Selector>,
    /// `None` = no criterion.
    pub ports: Option<Vec<Port>>,
    /// None of these.
    pub not_ports: Vec<Port>,
    /// `namespace/name` of a service. Nothing fills its set in etcd mode: it never matches.
    pub service: Option<String>,
}

/// A port in a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// First and last.
    Range(u16, u16),
    /// Name of an endpoint's port.
    Named(Arc<str>),
}

/// A Profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Rules towards endpoints with this profile.
    pub ingress: Vec<Rule>,
    /// Rules from them.
    pub egress: Vec<Rule>,
    /// Labels that they inherit.
    pub labels: Arc<Labels>,
}

impl Profile {
    /// The profile that only clients know: everything is allowed. It is never stored.
    pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";
}

/// A port that an endpoint has a name for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Name.
    pub name: Arc<str>,
    /// IP protocol number.
    pub protocol: u8,
    /// Number.
    pub port: u16,
}

/// A HostEndpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// Where.
    pub node: String,
    /// Interface; empty = found by `expected_ips`; `*` = every interface without one of its own.
    pub interface: String,
    /// Its addresses.
    pub expected_ips: Vec<IpAddr>,
    /// In order.
    pub profiles: Names,
    /// Its own, without inherited ones.
    pub labels: Arc<Labels>,
    /// Named ports.
    pub ports: Vec<NamedPort>,
}

/// A NetworkSet (`namespace/name`) or GlobalNetworkSet (`name`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    /// Without host bits.
    pub nets: Vec<IpNetwork>,
    /// Its own, `projectcalico.org/namespace` among them if it has one.
    pub labels: Arc<Labels>,
    /// `kns.<namespace>` of a NetworkSet, so that it inherits the namespace's labels.
    pub profiles: Names,
}

/// How a pool's packets are encapsulated between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EncapMode {
    /// Not.
    #[default]
    Never,
    /// Between nodes of different subnets.
    CrossSubnet,
    /// Between all nodes.
    Always,
}

/// An IPPool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// Its addresses.
    pub cidr: IpNetwork,
    /// VXLAN.
    pub vxlan: EncapMode,
    /// IP in IP.
    pub ipip: EncapMode,
    /// Masquerade what leaves all pools.
    pub nat_outgoing: bool,
    /// No new addresses from it.
    pub disabled: bool,
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `bgp.ipv4Address`, else the first InternalIP, else the first ExternalIP of `addresses`.
    pub ipv4: Option<IpAddr>,
    /// Network of `bgp.ipv4Address`.
    pub ipv4_network: Option<IpNetwork>,
    /// The same for IPv6.
    pub ipv6: Option<IpAddr>,
    /// Network of `bgp.ipv6Address`.
    pub ipv6_network: Option<IpNetwork>,
    /// Every entry of `addresses` that is an IP address, with or without prefix length, in order: all are the node.
    pub addresses: Vec<IpAddr>,
    /// `ipv4VXLANTunnelAddr`.
    pub vxlan_v4: Option<IpAddr>,
    /// `ipv6VXLANTunnelAddr`.
    pub vxlan_v6: Option<IpAddr>,
    /// `vxlanTunnelMACAddr`.
    pub vxlan_mac: Option<Mac>,
    /// `vxlanTunnelMACAddrV6`.
    pub vxlan_mac_v6: Option<Mac>,
    /// `bgp.ipv4IPIPTunnelAddr`.
    pub ipip_v4: Option<IpAddr>,
    /// `status.podCIDRs`.
    pub pod_cidrs: Vec<IpNetwork>,
}

/// A Tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tier {
    /// Absent is 1,000,000.
    pub order: f64,
    /// `defaultAction: Pass`; anything else denies.
    pub ends_with_pass: bool,
}

/// An IPAM block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its addresses.
    pub cidr: IpNetwork,
    /// `host:<node>` without the prefix.
    pub node: Option<String>,
    /// Ordinals that are in use, with the node their attribute names.
    pub allocations: Vec<(u32, Option<String>)>,
}
