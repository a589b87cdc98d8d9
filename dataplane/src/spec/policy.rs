//! Policy as the dataplane enforces it: names are resolved, selectors have become sets, order is decided.
//!
//! Parts that several endpoints share are shared by `Arc`, and a part that did not change keeps its `Arc` from one spec to
//! the next: that is how [`crate::tables::compile`] sees what is new. Empty is never absent: a criterion with an empty
//! list matches nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

/// Name of an [`IpSet`]; Calico's unique ids (`s:…`, `n:…`) where the set comes from a selector.
pub type SetId = Arc<str>;

/// What decides about one direction of one endpoint's new connections, in the order it is asked: tiers, then profiles.
/// Empty = everything is denied.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PolicyList {
    /// In order. Only tiers in which at least one policy applies to the endpoint in this direction.
    pub tiers: Vec<Tier>,
    /// In order. Here `Pass` denies, and so does the end.
    pub profiles: Vec<Arc<RuleSet>>,
}

/// One tier of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// For humans.
    pub name: Arc<str>,
    /// What happens when no rule of its policies has decided.
    pub end: TierEnd,
    /// In order. A policy without rules counts: it makes the tier's end apply.
    pub policies: Vec<Arc<RuleSet>>,
}

/// Calico's `defaultAction` of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TierEnd {
    /// Dropped.
    #[default]
    Deny,
    /// On to the next tier, or to the profiles.
    Pass,
}

/// The rules of one policy or profile for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Where they come from; for counters, logs and traces.
    pub origin: Origin,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Which object of the datastore, and which half of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// What kind of object.
    pub kind: OriginKind,
    /// `name`, or `namespace/name` of a namespaced policy, as stored.
    pub name: Arc<str>,
    /// From the endpoint's point of view.
    pub direction: PolicyDirection,
}

/// Objects that have rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OriginKind {
    /// NetworkPolicy.
    NetworkPolicy,
    /// GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// Profile.
    Profile,
}

/// Always the endpoint's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyDirection {
    /// Towards it.
    Ingress,
    /// From it.
    Egress,
}

/// One rule: an action for packets that meet every criterion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is done with them.
    pub action: Action,
    /// Only packets of this family.
    pub family: Option<Family>,
    /// Only this IP protocol.
    pub protocol: Option<u8>,
    /// Every IP protocol but this.
    pub not_protocol: Option<u8>,
    /// Of ICMP over IPv4, ICMPv6 over IPv6, only these messages.
    pub icmp: Option<Icmp>,
    /// Every packet but these messages of ICMP (ICMPv6). A fragment after the first, whose type it does not say, never
    /// matches.
    pub not_icmp: Option<Icmp>,
    /// About the sender.
    pub source: Side,
    /// About the receiver.
    pub destination: Side,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Accepted, finally for this list.
    Allow,
    /// Dropped.
    Deny,
    /// Noted; the next rule is asked.
    Log,
    /// The rest of the tier is skipped.
    Pass,
}

/// IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// ICMP type, and code where it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code; `None` = any.
    pub code: Option<u8>,
}

/// Criteria about one end of a packet. All that are there must hold.
///
/// Lists of networks are looked at by family first: entries of the other family are left out, and a list that loses all
/// its entries thereby, positive or negative, keeps the whole rule from matching packets of this family (as Felix renders
/// rules). A `Some` that is empty to begin with matches nothing; an empty `not_…` list forbids nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Side {
    /// In at least one of them.
    pub nets: Option<Vec<IpNetwork>>,
    /// In none of them.
    pub not_nets: Vec<IpNetwork>,
    /// The address is in every one of these sets ([`Members::Nets`]).
    pub sets: Vec<SetId>,
    /// The address is in none of them.
    pub not_sets: Vec<SetId>,
    /// The port is one of these. Packets without ports (fragments after the first, other protocols than TCP, UDP, SCTP)
    /// never match.
    pub ports: Option<Ports>,
    /// The port is none of these. What has no ports has none of these; a fragment after the first, whose ports it does
    /// not say, never matches.
    pub not_ports: Ports,
    /// (address, protocol, port) is in every one of these sets ([`Members::Ports`]): services. Packets without ports
    /// never match.
    pub endpoint_sets: Vec<SetId>,
}

/// A choice of ports.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ports {
    /// First and last, both included.
    pub ranges: Vec<(u16, u16)>,
    /// Named ports: sets of (address, protocol, port) ([`Members::Ports`]).
    pub named: Vec<SetId>,
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpSet {
    /// Unique within a spec.
    pub id: SetId,
    /// What is in it.
    pub members: Members,
}

/// Content of a set; sorted, every member once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Networks, without host bits.
    Nets(Vec<IpNetwork>),
    /// Address, IP protocol, port.
    Ports(Vec<(IpAddr, u8, u16)>),
}

impl Members {
    /// How many there are.
    pub const fn count(&self) -> usize {
        match self {
            Self::Nets(nets) => nets.len(),
            Self::Ports(ports) => ports.len(),
        }
    }
}

/// Policy of one local workload.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EndpointPolicy {
    /// Towards it.
    pub ingress: Arc<PolicyList>,
    /// From it.
    pub egress: Arc<PolicyList>,
}

/// Policy of one of the host's own interfaces. What is forwarded by a gateway interface is judged by it; the host's own
/// traffic does not pass the dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// For humans.
    pub name: Arc<str>,
    /// Interface it stands for; `None` = every interface that has none of its own.
    pub interface: Option<Arc<str>>,
    /// Towards the host or through it.
    pub ingress: HostPolicy,
    /// From the host or through it.
    pub egress: HostPolicy,
}

/// The four lists of one direction of a host endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HostPolicy {
    /// Before connection tracking. Its end decides nothing, and neither do the ends of its tiers.
    pub untracked: Arc<PolicyList>,
    /// Before destination NAT. Ends as with `untracked`. Egress: empty.
    pub pre_dnat: Arc<PolicyList>,
    /// For packets that are forwarded. Tiers end as they say, profiles are not asked, and what comes to its end is allowed.
    pub forward: Arc<PolicyList>,
    /// For packets that the host itself sends or receives.
    pub normal: Arc<PolicyList>,
}

/// Ports of the host that its endpoints' policy never closes, so that a mistake in it can be mended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Failsafes {
    /// Of what the host receives, by the port it is sent to. Sorted.
    pub inbound: Vec<Failsafe>,
    /// Of what the host sends, by the port it is sent to. Sorted.
    pub outbound: Vec<Failsafe>,
}

/// One such port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failsafe {
    /// IP protocol: TCP, UDP or SCTP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// Only for others with these addresses.
    pub net: Option<IpNetwork>,
}

/// Calico's DefaultEndpointToHostAction: what becomes of packets from a workload to its own host that policy has let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EndpointToHost {
    /// Dropped.
    Drop,
    /// Delivered: what Canal's manifests set. Calico's "Return" (leave it to the host's firewall) is the same here, since
    /// what is delivered passes the host's own rules.
    #[default]
    Accept,
}

/// What a change of policy means for connections that have been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Established {
    /// They go on, as with Calico.
    #[default]
    Keep,
    /// Their next packet is judged by the new policy.
    Revalidate,
}

impl PolicyList {
    /// Lets everything pass: Calico's built-in profile `projectcalico-default-allow`.
    pub fn allow_all(direction: PolicyDirection) -> Self {
        let origin =
            Origin { kind: OriginKind::Profile, name: "projectcalico-default-allow".into(), direction };
        let rules = vec![Rule::any(Action::Allow)];
        Self { tiers: Vec::new(), profiles: vec![Arc::new(RuleSet { origin, rules })] }
    }
}

impl EndpointPolicy {
    /// Lets everything pass, both ways.
    pub fn allow_all() -> Self {
        Self {
            ingress: Arc::new(PolicyList::allow_all(PolicyDirection::Ingress)),
            egress: Arc::new(PolicyList::allow_all(PolicyDirection::Egress)),
        }
    }
}

impl Rule {
    /// A rule without criteria.
    pub fn any(action: Action) -> Self {
        Self {
            action,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Side::default(),
            destination: Side::default(),
        }
    }
}

impl Ports {
    /// No port is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.named.is_empty()
    }
}
