//! What is said of policy.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The rules of one policy or profile for one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSetView {
    /// `NetworkPolicy`, `GlobalNetworkPolicy`, `Profile`; `TierEnd`: what happens when no rule of a tier has decided, or
    /// `ProfilesEnd`: when none of all has.
    pub kind: String,
    /// As stored; with its namespace, if it has one. Of an end: the tier, or empty.
    pub name: String,
    /// `None` for profiles.
    pub tier: Option<String>,
    /// `ingress` or `egress`, from the workloads' point of view.
    pub direction: String,
    /// Local workloads that have it.
    pub endpoints: usize,
    /// In order.
    pub rules: Vec<RuleView>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Position, from 0.
    pub rule: usize,
    /// `Allow`, `Deny`, `Log` or `Pass`.
    pub action: String,
    /// What it asks for, for people.
    pub criteria: String,
    /// Packets that met it. Only those that open connections are asked about.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpSetView {
    /// As rules name it.
    pub id: String,
    /// `networks` or `ports` (address, port and protocol).
    pub kind: String,
    /// Members.
    pub count: usize,
    /// The first of them, up to 1000.
    pub members: Vec<String>,
}

/// What policy says of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulingView {
    /// It may be opened.
    pub allowed: bool,
    /// What decides so.
    pub by: DeciderView,
}

/// A rule, or an end that no rule comes before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeciderView {
    /// `None`: a profile's rule, or the end of the profiles.
    pub tier: Option<String>,
    /// `NetworkPolicy`, `GlobalNetworkPolicy` or `Profile`; `None` = the end of the tier, or of everything.
    pub kind: Option<String>,
    /// As stored; with its namespace, if it has one.
    pub name: Option<String>,
    /// Position among its rules of this direction, from 0.
    pub rule: Option<usize>,
    /// All of it in words.
    pub text: String,
}

/// A connection that policy refused, or that a `Log` rule noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordView {
    /// Counts up from 1, without gaps.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// `denied`, or `logged`: a `Log` rule matched, and others decided what became of the packet.
    pub event: String,
    /// Worker that saw it.
    pub worker: u32,
    /// Generation of the tables that decided.
    pub generation: u64,
    /// Workload whose policy it was.
    pub endpoint: String,
    /// Which half of it: `ingress` or `egress`.
    pub direction: String,
    /// What decided, or noted.
    pub by: DeciderView,
    /// `tcp`, `udp`, `icmp`, `icmp6`, `sctp` or the number.
    pub protocol: String,
    /// The end that wants to open it.
    pub source: IpAddr,
    /// Its port; `None` = there is none, or this piece of the packet does not say.
    pub source_port: Option<u16>,
    /// Who that is, as in [`super::FlowView::source_name`].
    pub source_name: Option<String>,
    /// The other end.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: Option<u16>,
    /// Who that is.
    pub destination_name: Option<String>,
    /// ICMP type and code.
    pub icmp: Option<[u8; 2]>,
    /// Bytes of the IP packet.
    pub bytes: u32,
}

/// Answers of policy in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictsView {
    /// `ingress` or `egress`.
    pub direction: String,
    /// Yes.
    pub allowed: u64,
    /// No.
    pub denied: u64,
}

/// What is made of Calico's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// It is enforced. If not, everything is allowed.
    pub enforced: bool,
    /// It never will be, because the daemon was told so.
    pub switched_off: bool,
    /// Workloads of this node.
    pub workloads: usize,
    /// Host endpoints of this node; their policy is enforced for what passes gateway interfaces, not for the host's own traffic.
    pub host_endpoints: usize,
    /// Policies that match one of these.
    pub policies: usize,
    /// Profiles that one of these has.
    pub profiles: usize,
    /// Sets of addresses that their rules name.
    pub sets: usize,
}
