//! The admin socket's language: one JSON object a line, a [`Request`] answered by a [`Response`].
//!
//! These types mirror those of the dataplane, which are not serialised. Names and units are a promise to scripts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::trace::question::Question;
use crate::trace::report::Report;

/// File name of the admin socket in the run directory.
pub const SOCKET_NAME: &str = "canal.sock";

/// Longest request line in bytes; the longest legal one is far below.
pub const MAX_REQUEST: usize = 4096;

/// Longest response line a client takes, in bytes: a table of 100,000 routes is well below.
pub const MAX_RESPONSE: u64 = 64 << 20;

/// Most flows one request may ask for: each worker collects them between two batches.
pub const MAX_FLOWS: usize = 65_536;

/// Records of policy that are kept to be asked for.
pub const MAX_RECORDS: usize = 1000;

/// Longest wait of one request for a revision: who wants to wait longer asks again.
pub const MAX_PATIENCE_MS: u64 = 5000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "show", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Kernel ports of each worker.
    Ports,
    /// Local workloads.
    Endpoints,
    /// Policies that local workloads have, and what their rules have met.
    Policies,
    /// Profiles likewise.
    Profiles,
    /// Sets of addresses that rules name.
    IpSets,
    /// Where destinations are.
    Routes,
    /// Remote tunnel end points.
    Vteps,
    /// Inner Ethernet address to outer address, as `bridge fdb` would say it.
    Fdb,
    /// Flow table entries.
    Flows {
        /// At most so many of all workers together, up to [`MAX_FLOWS`].
        limit: usize,
        /// Only those of this workload of this node: by endpoint name, `namespace/pod`, pod, address or interface; or of
        /// this address or network, whoever has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// Only those of this protocol: `tcp`, `udp`, `icmp` (either family's), `icmp6`, `sctp` or a number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<String>,
    },
    /// Connections that policy refused, and those that a `Log` rule noted: the last ones.
    Denied {
        /// At most so many of the newest, up to [`MAX_RECORDS`].
        limit: usize,
        /// Only those with a greater number.
        #[serde(default)]
        after: u64,
    },
    /// Dropped packets by reason.
    Drops,
    /// Packet threads.
    Workers,
    /// Which tables are in force.
    Generation,
    /// Is the daemon well?
    Status,
    /// Does every worker enforce this revision? Answered when it does, when it cannot, or after `patience_ms`.
    Enforced {
        /// Revision of the datastore.
        revision: u64,
        /// How long the answer may take, up to [`MAX_PATIENCE_MS`].
        patience_ms: u64,
    },
    /// What would become of this packet?
    Trace(Box<Question>),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The answer.
    Ok(Reply),
    /// Why there is none, for humans.
    Error(String),
}

/// An answer, by request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is named after its request")]
pub enum Reply {
    Ports(Vec<PortView>),
    Endpoints(Vec<EndpointView>),
    Policies(Vec<RuleSetView>),
    Profiles(Vec<RuleSetView>),
    IpSets(Vec<IpSetView>),
    Routes(Vec<RouteView>),
    Vteps(Vec<VtepView>),
    Fdb(Vec<FdbView>),
    Flows(Vec<FlowView>),
    Denied(Vec<RecordView>),
    Drops(Vec<DropView>),
    Workers(Vec<WorkerView>),
    Generation(GenerationView),
    Status(Box<StatusView>),
    Enforced(EnforcedView),
    Trace(Box<Report>),
}

/// One queue of a kernel port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Worker that owns the queue.
    pub worker: u32,
    /// Device or socket.
    pub name: String,
    /// `tap` or `udp`.
    pub kind: String,
    /// What it carries: `workloads`, `underlay` or both.
    pub carries: Vec<String>,
    /// What the kernel finishes for us: `checksum`, `tso`, `uso`, `tunnel`.
    pub offloads: Vec<String>,
    /// Why this port and no other.
    pub why: String,
    /// Frames received (a super-frame counts once).
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received and not delivered.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames dropped because the kernel's queue was full.
    pub tx_full: u64,
    /// Frames the kernel refused.
    pub tx_errors: u64,
}

/// A local workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Workload endpoint.
    pub name: String,
    /// Host-side interface.
    pub interface: String,
    /// Its number; `None` while it does not exist.
    pub ifindex: Option<u32>,
    /// The workload's Ethernet address, if known.
    pub mac: Option<String>,
    /// Addresses it may use.
    pub networks: Vec<String>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// What is asked about connections to it, in order: `tier/policy`, then profiles. Empty: everything is denied.
    pub ingress: Vec<String>,
    /// The same about connections from it.
    pub egress: Vec<String>,
}

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

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// Destinations.
    pub prefix: String,
    /// `vtep`, `direct`, `endpoint`, `host` or `drop`.
    pub kind: String,
    /// Next hop, workload or drop reason.
    pub via: String,
    /// Largest IP packet on that way, bytes; `None` = no limit of its own.
    pub mtu: Option<u16>,
}

/// A remote tunnel end point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VtepView {
    /// Outer address.
    pub outer: IpAddr,
    /// Inner Ethernet address.
    pub mac: String,
    /// Inner sources it may use.
    pub owns: Vec<String>,
    /// Largest inner IP packet towards it now, bytes.
    pub mtu: u16,
    /// The part of it learnt from ICMP errors, while that is believed.
    pub path_mtu: Option<u16>,
}

/// One line of a forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbView {
    /// Inner Ethernet address.
    pub mac: String,
    /// Device name.
    pub dev: String,
    /// Outer address.
    pub dst: IpAddr,
    /// Overlay.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
}

/// A flow table entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// Worker that owns the flow.
    pub worker: u32,
    /// `tcp`, `udp`, `icmp` or the number.
    pub protocol: String,
    /// The end that opened it.
    pub source: IpAddr,
    /// Its port (ICMP: the identifier).
    pub source_port: u16,
    /// Who that is: a workload of this node, `host`, `vtep ADDRESS` or `direct ADDRESS`; `None` = nobody that the tables in
    /// force know.
    #[serde(default)]
    pub source_name: Option<String>,
    /// The other end.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: u16,
    /// Who that is.
    #[serde(default)]
    pub destination_name: Option<String>,
    /// What policy in force says of opening such a connection: of the source's workload, if it is one of this node. A
    /// connection that has been answered may outlive a policy that allowed it.
    #[serde(default)]
    pub egress: Option<RulingView>,
    /// The same of the destination's workload.
    #[serde(default)]
    pub ingress: Option<RulingView>,
    /// By the kernel's names: `UNREPLIED`, `ASSURED`, `SYN_SENT`, `ESTABLISHED`, …
    pub state: String,
    /// Has the destination been heard?
    pub answered: bool,
    /// Frames seen, from the source and back.
    pub frames: [u64; 2],
    /// Bytes seen, from the source and back.
    pub bytes: [u64; 2],
    /// Milliseconds since the last frame.
    pub idle_ms: u64,
    /// Milliseconds until it is forgotten unless a frame comes.
    pub left_ms: u64,
    /// Where frames go, from the source and back; `-` = not decided by the tables in force.
    pub via: [String; 2],
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
    /// Who that is, as in [`FlowView::source_name`].
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

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// Label, as in the metrics.
    pub reason: String,
    /// By all workers.
    pub frames: u64,
    /// What it means.
    pub sentence: String,
    /// By each worker.
    pub workers: Vec<u64>,
}

/// A packet thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in canal_dataplane::counters::Counters")]
pub struct WorkerView {
    pub worker: u32,
    /// Core it is pinned to; `None` = the kernel refused.
    pub core: Option<u32>,
    pub received: u64,
    pub received_bytes: u64,
    pub forwarded: u64,
    pub forwarded_bytes: u64,
    pub encapsulated: u64,
    pub decapsulated: u64,
    pub to_host: u64,
    pub replies: u64,
    pub handed_over: u64,
    pub dropped: u64,
    pub flow_hits: u64,
    pub flows_created: u64,
    pub flows_expired: u64,
    pub flows_evicted: u64,
    pub flows_cut: u64,
    pub flows: u64,
    pub vxlan_reserved_bits: u64,
    pub icmp_limited: u64,
    #[serde(default)]
    pub records_lost: u64,
    /// Answers of policy about packets that want to open connections.
    #[serde(default)]
    pub verdicts: Vec<VerdictsView>,
    /// Table generation it uses.
    pub seen_generation: u64,
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

/// Flows of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CensusView {
    /// `tcp`, `udp`, `icmp` (both families'), `sctp` or `other`.
    pub protocol: String,
    /// As in [`FlowView::state`].
    pub state: String,
    /// How many there are.
    pub flows: u64,
}

/// Which tables are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationView {
    /// Published last.
    pub generation: u64,
    /// Datastore revision it was made from. Later revisions that changed nothing are in force with it, too: see
    /// [`DatastoreView::in_force`].
    pub revision: u64,
    /// False while everything is dropped for want of a complete picture.
    pub complete: bool,
    /// Seen by each worker.
    pub workers: Vec<u64>,
}

/// Is the daemon well?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// New workloads may come: the lease is ours, and every worker forwards by current tables.
    pub ready: bool,
    /// What is not as it should be, the most important first. A daemon may be ready all the same.
    pub reasons: Vec<String>,
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// This node's name.
    pub node: String,
    /// The underlay port in use (`tap` or `udp`), and why.
    pub port: String,
    /// See [`Self::port`].
    pub port_why: String,
    /// Where desired state comes from.
    pub datastore: DatastoreView,
    /// This node's share of the network.
    pub lease: Option<LeaseView>,
    /// What is made of Calico's policy.
    pub policy: Option<PolicyView>,
    /// Values in the datastore that cannot be used, the first of them; the rest is in force all the same.
    pub complaints: Vec<String>,
    /// How many there are.
    #[serde(default)]
    pub complaints_total: usize,
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
    /// Host endpoints of this node; they are resolved, and not enforced.
    pub host_endpoints: usize,
    /// Policies that match one of these.
    pub policies: usize,
    /// Profiles that one of these has.
    pub profiles: usize,
    /// Sets of addresses that their rules name.
    pub sets: usize,
}

/// Where desired state comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreView {
    /// Kind and place.
    pub name: String,
    /// Reachable right now.
    pub connected: bool,
    /// A complete picture has been read since the start.
    pub in_sync: bool,
    /// Milliseconds since it last said anything. A healthy one may have nothing to say for minutes.
    pub silent_ms: Option<u64>,
    /// Revision read last.
    pub revision: u64,
    /// Revision that the published tables were made from; 0 = none.
    pub in_force: u64,
    /// Nothing that was written up to this revision is missing in them, as far as the datastore has been asked: what
    /// `canal wait` goes by. 0 while it is not known, or something older is in force, too.
    pub complete: u64,
    /// Milliseconds since `in_force` is what it is.
    pub in_force_ms: Option<u64>,
    /// Milliseconds since something has been read that is not in force yet; 0 = everything is.
    pub behind_ms: u64,
    /// Workers that do not use the tables published last yet.
    pub late_workers: Vec<u32>,
}

/// Whether a revision is enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcedView {
    /// The revision that was asked for.
    pub revision: u64,
    /// Every worker enforces it, or a later one.
    pub enforced: bool,
    /// It is not, and waiting will not help: see the reasons.
    pub degraded: bool,
    /// What the published tables were made from, as in [`DatastoreView`].
    pub in_force: u64,
    /// As in [`DatastoreView`].
    pub complete: u64,
    /// Revision read last.
    pub read: u64,
    /// Table generation that enforces it.
    pub generation: u64,
    /// Workers that do not use these tables yet.
    pub late_workers: Vec<u32>,
    /// Why not, the most important first.
    pub reasons: Vec<String>,
}

/// This node's share of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Subnets, IPv4 first.
    pub subnets: Vec<String>,
    /// What other nodes call us.
    pub public: Vec<IpAddr>,
    /// `vxlan`, `host-gw`, `alloc`.
    pub backend: String,
    /// `FLANNEL_MTU`.
    pub mtu: u32,
    /// Seconds until it ends unless renewed; `None` = never (a reservation, or the embedded datastore).
    pub expires_in_s: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_are_plain_json() {
        let json = |request: &Request| serde_json::to_string(request).unwrap();
        assert_eq!(json(&Request::Ports), r#"{"show":"ports"}"#);
        let flows = Request::Flows { limit: 5, endpoint: None, protocol: None };
        assert_eq!(json(&flows), r#"{"show":"flows","limit":5}"#);
        assert_eq!(serde_json::from_str::<Request>(r#"{"show":"flows","limit":5}"#).unwrap(), flows);
        let response = Response::Ok(Reply::Generation(GenerationView {
            generation: 2,
            revision: 7,
            complete: true,
            workers: vec![2, 1],
        }));
        let text = r#"{"ok":{"generation":{"generation":2,"revision":7,"complete":true,"workers":[2,1]}}}"#;
        assert_eq!(serde_json::to_string(&response).unwrap(), text);
        assert_eq!(serde_json::from_str::<Response>(text).unwrap(), response);
        assert!(serde_json::from_str::<Request>(r#"{"show":"nonsense"}"#).is_err());
    }
}
