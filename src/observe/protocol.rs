//! The admin socket's language: one JSON object a line, a [`Request`] answered by a [`Response`].
//!
//! These types mirror those of the dataplane, which are not serialised. Names and units are a promise to scripts. Those about
//! policy and about the daemon's condition stand in files of their own.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::trace::question::Question;
use crate::trace::report::Report;

mod calico;
mod policy;
mod status;
mod worker;

pub use calico::{CalicoNetworkView, CalicoRouteView, CalicoVtepView};
pub use policy::{
    DeciderView, IpSetView, PolicyView, RecordView, RuleSetView, RuleView, RulingView, VerdictsView,
};
pub use status::{DatastoreView, EnforcedView, LATE_WORKERS, LeaseView, ReasonView, StatusView};
pub use worker::{PartView, RatesView, WorkerView};

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
    /// Interfaces with plain hosts behind them.
    Gateways,
    /// Remote tunnel end points.
    Vteps,
    /// Inner Ethernet address to outer address, as `bridge fdb` would say it.
    Fdb,
    /// Where Calico's own resources say that destinations are. Nothing is forwarded by it.
    CalicoRoutes,
    /// The ends of Calico's own VXLAN tunnels. None is used.
    CalicoVteps,
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
    /// Felix's settings: what they are, who said so, and what comes of them.
    Config,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The answer.
    Ok(Reply),
    /// Why there is none, for humans.
    Error(String),
}

/// An answer, by request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is named after its request")]
pub enum Reply {
    Ports(Vec<PortView>),
    Endpoints(Vec<EndpointView>),
    Policies(Vec<RuleSetView>),
    Profiles(Vec<RuleSetView>),
    IpSets(Vec<IpSetView>),
    Routes(Vec<RouteView>),
    Gateways(Vec<GatewayView>),
    Vteps(Vec<VtepView>),
    Fdb(Vec<FdbView>),
    CalicoRoutes(Vec<CalicoRouteView>),
    CalicoVteps(Vec<CalicoVtepView>),
    Flows(Vec<FlowView>),
    Denied(Vec<RecordView>),
    Drops(Vec<DropView>),
    Workers(Vec<WorkerView>),
    Generation(GenerationView),
    Config(Vec<SettingView>),
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
    /// `tap`, `udp` or `af-xdp`.
    pub kind: String,
    /// What it carries: `workloads`, `underlay` or both, or a `gateway` interface.
    pub carries: Vec<String>,
    /// What the kernel finishes for us: `checksum`, `tso`, `uso`, `tunnel`.
    pub offloads: Vec<String>,
    /// Why this port and no other.
    pub why: String,
    /// How AF_XDP sockets get at packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp: Option<XdpView>,
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

/// How AF_XDP sockets get at packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpView {
    /// `native` (in the driver) or `generic` (behind it).
    pub mode: String,
    /// The NIC writes into our memory itself.
    pub zero_copy: bool,
    /// Queues of the interface that this worker has.
    pub queues: Vec<u32>,
    /// The memory is on huge pages.
    pub huge_pages: bool,
    /// Why the driver's own XDP is not used, if it is not.
    pub why_generic: Option<String>,
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

/// An interface with plain hosts behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayView {
    /// Its name.
    pub name: String,
    /// Its index; `None` while it does not exist, or cannot be a gateway.
    pub ifindex: Option<u32>,
    /// Largest IP packet it takes, bytes.
    pub mtu: u16,
    /// Networks that are reached by it.
    pub networks: Vec<BehindView>,
    /// The host endpoint whose policy judges what is forwarded by it.
    pub host_endpoint: Option<String>,
    /// Its policies for what comes in by the interface, in order: doNotTrack, preDNAT, applyOnForward.
    pub ingress: Vec<String>,
    /// For what goes out.
    pub egress: Vec<String>,
}

/// A network behind a gateway interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindView {
    /// The network.
    pub prefix: String,
    /// Routers on the interface's link; empty = the hosts are on the link themselves. Connections are spread over these and
    /// those of other gateway interfaces.
    pub next_hops: Vec<HopView>,
    /// `yes`, `no`, or why not.
    pub announced: String,
}

/// A router on a gateway interface's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopView {
    /// Its address.
    pub address: IpAddr,
    /// What the kernel knows of it as a neighbour, by ip(8)'s names; `NONE` = nothing yet.
    pub state: String,
    /// Connections that take it, in proportion to those that take the others.
    pub weight: u16,
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

/// One of Felix's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingView {
    /// As Felix calls it.
    pub name: String,
    /// What was said.
    pub value: String,
    /// By whom: `default`, `FelixConfiguration default`, `FelixConfiguration node.…`, the name of a variable, or a flag.
    pub source: String,
    /// `obeyed`, `partly` (not wherever Felix would), `prepared` (it is in the tables, and nothing goes by it yet), `invalid` (the default is obeyed) or `meaningless` (there is nothing here that it is about).
    pub effect: String,
    /// Why it is not obeyed.
    pub why: Option<String>,
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
