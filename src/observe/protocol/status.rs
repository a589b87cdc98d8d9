//! What is said of the daemon's condition.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{CalicoNetworkView, PolicyView};

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonView {
    /// For scripts: one of [`canal_control::status::Reason::CODES`], or [`LATE_WORKERS`].
    pub code: String,
    /// For people.
    pub sentence: String,
}

/// Code of the reason that workers do not use the newest tables yet.
pub const LATE_WORKERS: &str = "late_workers";

/// Is the daemon well?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// New workloads may come: the lease is ours, and every worker forwards by current tables.
    pub ready: bool,
    /// What is not as it should be, the most important first. A daemon may be ready all the same.
    pub reasons: Vec<ReasonView>,
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
    /// What Calico's resources say of a network of its own; `None` = nothing.
    #[serde(default)]
    pub calico_network: Option<CalicoNetworkView>,
    /// Values in the datastore that cannot be used, the first of them; the rest is in force all the same.
    pub complaints: Vec<String>,
    /// How many there are.
    #[serde(default)]
    pub complaints_total: usize,
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
