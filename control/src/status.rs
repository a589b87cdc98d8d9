//! How the control side is, for health checks, metrics and humans.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use canal_dataplane::net::Vni;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::datastore::Revision;
use crate::state::Complaint;

/// Most complaints shown; the rest is a number. A cluster full of nonsense must not fill the log and the socket.
pub const MAX_COMPLAINTS: usize = 100;

/// One look at the control side.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Kind and place of the datastore, without secrets.
    pub datastore: String,
    /// It answered when it was last asked.
    pub connected: bool,
    /// The network has been read completely at least once.
    pub in_sync: bool,
    /// When it last answered anything.
    #[serde(skip)]
    pub last_contact: Option<Instant>,
    /// What has been read of it.
    pub heard: Heard,
    /// Which part of it the published tables show; `None` before any were published.
    pub in_force: Option<InForce>,
    /// Generation of the tables in force; 0 = none were ever published.
    pub published_generation: u64,
    /// This node's lease.
    pub lease: Option<LeaseStatus>,
    /// The interface that carries the overlay.
    pub underlay: Option<UnderlayStatus>,
    /// The overlay's parameters.
    pub overlay: Option<OverlayStatus>,
    /// Networks behind gateways that this node announces.
    pub announcements: Vec<AnnouncementStatus>,
    /// What is made of Calico's policy; `None` before anything was published.
    pub policy: Option<PolicyStatus>,
    /// What there is of Calico's resources.
    pub cluster: ClusterStatus,
    /// What they say of a network of Calico's own.
    pub calico_network: CalicoNetworkStatus,
    /// What publishing has taken.
    pub applied: ApplyStatus,
    /// New pods may come: the lease is ours, tables are published, packets are steered. Being degraded is no hindrance.
    pub ready: bool,
    /// What is not as it should be, the most important first. Empty = well.
    pub degraded: Vec<Reason>,
    /// Values that cannot be used, the first [`MAX_COMPLAINTS`].
    pub complaints: Vec<Complaint>,
    /// How many there are in all.
    pub complaints_total: usize,
}

/// How far the datastore has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Heard {
    /// The highest revision of anything that was read.
    pub revision: Revision,
    /// When that was.
    #[serde(skip)]
    pub at: Option<Instant>,
}

impl Heard {
    /// Another revision has been read, perhaps the same one. Returns whether it is another.
    pub fn advance(&mut self, revision: Revision) -> bool {
        let news = self.revision != revision;
        if news || self.at.is_none() {
            *self = Self { revision, at: Some(Instant::now()) };
        }
        news
    }
}

/// What the published tables were made from. Whether a worker uses them already is the worker's to say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InForce {
    /// The highest revision that had been read by then.
    pub revision: Revision,
    /// Everything that was written up to this revision is in them. Lower than `revision` while a stream has not
    /// said how far it is (a store is silent about revisions that concern other keys); 0 while a stream has not been
    /// read at all, or while something older than the datastore's content is in force, too.
    pub complete: Revision,
    /// Generation of the tables. A revision that changes nothing is in force with the generation before.
    pub generation: u64,
    /// Since when.
    #[serde(skip)]
    pub since: Instant,
}

/// This node's lease.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaseStatus {
    /// IPv4 subnet.
    pub subnet: Ipv4Network,
    /// IPv6 subnet of a dual-stack network.
    pub subnet_v6: Option<Ipv6Network>,
    /// When it expires unless renewed; `None` = never. Serialised as seconds from now, 0 once it has.
    #[serde(rename = "expires_in_s", serialize_with = "seconds_from_now")]
    pub expires_at: Option<Instant>,
}

impl LeaseStatus {
    /// Seconds until it expires, 0 once it has; `None` = never.
    pub fn expires_in_s(&self) -> Option<u64> {
        self.expires_at.map(|at| at.saturating_duration_since(Instant::now()).as_secs())
    }
}

fn seconds_from_now<S: Serializer>(at: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.saturating_duration_since(Instant::now()).as_secs()).serialize(serializer)
}

/// A further lease, of networks behind gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnnouncementStatus {
    /// One of IPv4, and perhaps one of IPv6.
    pub networks: Vec<IpNetwork>,
    /// Why it is not in the datastore as it should be; `None` = it is.
    pub problem: Option<String>,
}

/// The interface that carries the overlay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnderlayStatus {
    /// Its name.
    pub name: String,
    /// What peers call us, IPv4 first.
    pub public: Vec<IpAddr>,
    /// Its MTU, bytes.
    pub mtu: u32,
}

/// The overlay's parameters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverlayStatus {
    /// `vxlan`, `host-gw` or `alloc`.
    pub backend: &'static str,
    /// VXLAN network identifier.
    #[serde(serialize_with = "number")]
    pub vni: Option<Vni>,
    /// UDP port.
    pub port: Option<u16>,
    /// MTU for pods, bytes.
    pub mtu: u32,
}

fn number<S: Serializer>(vni: &Option<Vni>, serializer: S) -> Result<S::Ok, S::Error> {
    vni.map(Vni::get).serialize(serializer)
}

/// What is made of Calico's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// It is enforced. If not, everything is allowed.
    pub enforced: bool,
    /// It never will be, by the operator's will. Otherwise it will be once the datastore has any.
    pub switched_off: bool,
    /// Workloads of this node.
    pub workloads: usize,
    /// This node's host endpoints, whose policy is enforced for what passes gateway interfaces, not for the host's own traffic.
    pub host_endpoints: usize,
    /// Policies that match one of them.
    pub policies: usize,
    /// Profiles that one of them has.
    pub profiles: usize,
    /// Sets of addresses that rules of these name.
    pub sets: usize,
}

/// What has been read of Calico's resources, those of all nodes. What cannot be used is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// Node resources.
    pub nodes: usize,
    /// Workload endpoints.
    pub workloads: usize,
    /// Host endpoints.
    pub host_endpoints: usize,
    /// Network policies, global ones among them.
    pub policies: usize,
    /// Profiles; as with Felix, the one that allows everything and is in no datastore is one of them.
    pub profiles: usize,
    /// Tiers.
    pub tiers: usize,
}

/// What Calico's resources, those of all nodes, say of a network of its own. It is resolved and compiled; packets go as
/// flannel's network says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CalicoNetworkStatus {
    /// IP pools whose packets Calico would carry in VXLAN.
    pub vxlan_pools: usize,
    /// IP pools whose packets Calico would carry as IP in IP.
    pub ipip_pools: usize,
    /// Blocks of addresses that Calico's IPAM has given to nodes, of any pool.
    pub blocks: usize,
    /// Nodes with the address of a VXLAN tunnel.
    pub vxlan_nodes: usize,
    /// Nodes with the address of an IP-in-IP tunnel.
    pub ipip_nodes: usize,
}

/// What it has taken to put changes in force: tables compiled and published, device and steering brought up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApplyStatus {
    /// Changes.
    pub count: u64,
    /// All of them together, in microseconds.
    pub total_us: u64,
}

/// Why the control side is not well. Prints as a sentence; serialised as `{"code", "sentence"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another node holds our subnet.
    LeaseTaken {
        /// Who.
        by: Ipv4Addr,
    },
    /// The lease is gone from the datastore and could not be made again yet.
    LeaseLost {
        /// What is in the way.
        why: String,
    },
    /// The lease could not be renewed; it still holds.
    LeaseNotRenewed {
        /// What is in the way.
        why: String,
    },
    /// Somebody keeps writing our lease in our name.
    LeaseContended,
    /// Nothing has been heard from the datastore yet.
    WaitingForDatastore {
        /// What is in the way, if anything is known.
        why: String,
    },
    /// No network config.
    WaitingForConfig {
        /// Where it should be, or what is wrong with it.
        why: String,
    },
    /// No lease yet.
    Joining {
        /// What is in the way.
        why: String,
    },
    /// Started with what was saved before.
    Saved {
        /// How old it was then, seconds.
        age_s: u64,
    },
    /// The datastore lost its content; what was there before is still in force.
    Wiped,
    /// The datastore does not answer; what it said last is in force.
    DatastoreAway {
        /// What is in the way.
        why: String,
    },
    /// Workload endpoints have not been read.
    NoWorkloads {
        /// What is in the way.
        why: String,
    },
    /// Calico says that its datastore is not ready.
    CalicoNotReady,
    /// Documents that the datastore cannot read; what they said before stays in force.
    Documents {
        /// The first, and what is wrong with it.
        first: String,
        /// How many there are.
        count: usize,
    },
    /// The network config is not what this node runs with.
    RestartRequired {
        /// What differs.
        members: Vec<&'static str>,
    },
    /// The network config in the datastore is not valid; the former one is in force.
    ConfigInvalid,
    /// The interface that carries the overlay is not as it should be.
    Underlay {
        /// What is wrong.
        why: String,
    },
    /// A gateway interface is not as it should be.
    Gateway {
        /// What is wrong.
        why: String,
    },
    /// Our own device is not as it should be.
    Device {
        /// What is wrong.
        why: String,
    },
    /// Packets are not steered as they should be.
    Steering {
        /// What is wrong.
        why: String,
    },
    /// A file could not be written.
    File {
        /// Which, and why.
        why: String,
    },
}

impl Reason {
    /// Every [`Self::code`], in the order of the variants.
    pub const CODES: [&'static str; 20] = [
        "lease_taken",
        "lease_lost",
        "lease_not_renewed",
        "lease_contended",
        "waiting_for_datastore",
        "waiting_for_config",
        "joining",
        "saved_state",
        "datastore_wiped",
        "datastore_away",
        "no_workloads",
        "calico_not_ready",
        "documents",
        "restart_required",
        "config_invalid",
        "underlay",
        "gateway",
        "device",
        "steering",
        "file",
    ];

    /// Short name for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LeaseTaken { .. } => "lease_taken",
            Self::LeaseLost { .. } => "lease_lost",
            Self::LeaseNotRenewed { .. } => "lease_not_renewed",
            Self::LeaseContended => "lease_contended",
            Self::WaitingForDatastore { .. } => "waiting_for_datastore",
            Self::WaitingForConfig { .. } => "waiting_for_config",
            Self::Joining { .. } => "joining",
            Self::Saved { .. } => "saved_state",
            Self::Wiped => "datastore_wiped",
            Self::DatastoreAway { .. } => "datastore_away",
            Self::NoWorkloads { .. } => "no_workloads",
            Self::CalicoNotReady => "calico_not_ready",
            Self::Documents { .. } => "documents",
            Self::RestartRequired { .. } => "restart_required",
            Self::ConfigInvalid => "config_invalid",
            Self::Underlay { .. } => "underlay",
            Self::Gateway { .. } => "gateway",
            Self::Device { .. } => "device",
            Self::Steering { .. } => "steering",
            Self::File { .. } => "file",
        }
    }
}

impl Reason {
    /// Keeps what the datastore says now from being in force, however long one waits: only an operator, or the
    /// datastore, can change it. Not among them are the troubles of a start, which pass, those of the lease and of
    /// files, which concern other nodes and programs, and documents that were never taken in.
    pub const fn hinders(&self) -> bool {
        match self {
            Self::Saved { .. }
            | Self::Wiped
            | Self::DatastoreAway { .. }
            | Self::NoWorkloads { .. }
            | Self::CalicoNotReady
            | Self::RestartRequired { .. }
            | Self::ConfigInvalid
            | Self::Underlay { .. }
            | Self::Device { .. }
            | Self::Steering { .. } => true,
            Self::LeaseTaken { .. }
            | Self::LeaseLost { .. }
            | Self::LeaseNotRenewed { .. }
            | Self::LeaseContended
            | Self::WaitingForDatastore { .. }
            | Self::WaitingForConfig { .. }
            | Self::Joining { .. }
            | Self::Documents { .. }
            | Self::Gateway { .. }
            | Self::File { .. } => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseTaken { by } => write!(
                f,
                "this node's subnet was taken by the node {by}; running pods keep their addresses, new ones must not start here"
            ),
            Self::LeaseLost { why } => write!(f, "this node's lease is gone and not made again yet: {why}"),
            Self::LeaseNotRenewed { why } => write!(f, "this node's lease could not be renewed: {why}"),
            Self::LeaseContended => f.write_str(
                "somebody else keeps writing this node's lease: another machine with the same public address needs --public-ip",
            ),
            Self::WaitingForDatastore { why } => write!(f, "the datastore has not answered yet: {why}"),
            Self::WaitingForConfig { why } => write!(f, "waiting for the network config: {why}"),
            Self::Joining { why } => write!(f, "no lease yet: {why}"),
            Self::Saved { age_s } => {
                write!(f, "the datastore is away; forwarding by what was saved {age_s} s before the start")
            }
            Self::Wiped => f.write_str(
                "the datastore lost its content; forwarding by what was in it until it has been filled again",
            ),
            Self::DatastoreAway { why } => {
                write!(f, "the datastore is away; forwarding by what it said last: {why}")
            }
            Self::NoWorkloads { why } => write!(f, "Calico's resources, workload endpoints among them, could not be read: {why}"),
            Self::CalicoNotReady => f.write_str(
                "Calico says that its datastore is not ready (ClusterInformation default); policy stays as it was",
            ),
            Self::Documents { first, count: 1 } => write!(f, "a document cannot be used as it is: {first}"),
            Self::Documents { first, count } => {
                write!(f, "{count} documents cannot be used as they are, the first: {first}")
            }
            Self::RestartRequired { members } => {
                write!(f, "the network config has changed ({}); restart to take it over", members.join(", "))
            }
            Self::ConfigInvalid => {
                f.write_str("the network config in the datastore is not valid; the former one is in force")
            }
            Self::Underlay { why } => write!(f, "underlay: {why}"),
            Self::Gateway { why } => f.write_str(why),
            Self::Device { why } => write!(f, "own device: {why}"),
            Self::Steering { why } => write!(f, "steering: {why}"),
            Self::File { why } => f.write_str(why),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Reason", 2)?;
        fields.serialize_field("code", self.code())?;
        fields.serialize_field("sentence", &self.to_string())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_status_is_readable_by_scripts() {
        let expires_at = Some(Instant::now() + Duration::from_secs(90));
        let lease = LeaseStatus { subnet: "10.244.1.0/24".parse().unwrap(), subnet_v6: None, expires_at };
        let members = vec!["Network", "Backend"];
        let status = Status {
            datastore: "etcd http://127.0.0.1:2379".into(),
            lease: Some(lease.clone()),
            degraded: vec![Reason::RestartRequired { members }],
            ..Status::default()
        };
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(lease.expires_in_s(), Some(30));
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["lease"]["expires_in_s"], 30);
        assert_eq!(json["lease"]["subnet"], "10.244.1.0/24");
        assert_eq!(json["degraded"][0]["code"], "restart_required");
        assert_eq!(
            json["degraded"][0]["sentence"],
            "the network config has changed (Network, Backend); restart to take it over"
        );
    }

    /// The variant behind `reason`. A new one does not compile without its place here.
    fn next(reason: &Reason) -> Option<Reason> {
        let why = String::new();
        Some(match reason {
            Reason::LeaseTaken { .. } => Reason::LeaseLost { why },
            Reason::LeaseLost { .. } => Reason::LeaseNotRenewed { why },
            Reason::LeaseNotRenewed { .. } => Reason::LeaseContended,
            Reason::LeaseContended => Reason::WaitingForDatastore { why },
            Reason::WaitingForDatastore { .. } => Reason::WaitingForConfig { why },
            Reason::WaitingForConfig { .. } => Reason::Joining { why },
            Reason::Joining { .. } => Reason::Saved { age_s: 0 },
            Reason::Saved { .. } => Reason::Wiped,
            Reason::Wiped => Reason::DatastoreAway { why },
            Reason::DatastoreAway { .. } => Reason::NoWorkloads { why },
            Reason::NoWorkloads { .. } => Reason::CalicoNotReady,
            Reason::CalicoNotReady => Reason::Documents { first: why, count: 1 },
            Reason::Documents { .. } => Reason::RestartRequired { members: Vec::new() },
            Reason::RestartRequired { .. } => Reason::ConfigInvalid,
            Reason::ConfigInvalid => Reason::Underlay { why },
            Reason::Underlay { .. } => Reason::Gateway { why },
            Reason::Gateway { .. } => Reason::Device { why },
            Reason::Device { .. } => Reason::Steering { why },
            Reason::Steering { .. } => Reason::File { why },
            Reason::File { .. } => return None,
        })
    }

    #[test]
    fn every_variant_has_its_code() {
        let first = Reason::LeaseTaken { by: Ipv4Addr::LOCALHOST };
        let codes = std::iter::successors(Some(first), next).map(|reason| reason.code());
        assert_eq!(codes.collect::<Vec<_>>(), Reason::CODES);
    }
}
