//! Where the kernel's packets are taken up: what has to be steered to the dataplane, as a plan.
//!
//! The control side says *which* interfaces; how (an eBPF program on TCX, a socket) is the business of whoever
//! implements [`Edge`]. So the agent is tested without a NIC, and the ports never hear of a datastore.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use canal_dataplane::port::IfIndex;
use ipnetwork::IpNetwork;

/// Everything that shall be steered. What an earlier plan named and this one does not is given back to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgePlan {
    /// The interface that carries the overlay; `None` while there is none.
    pub underlay: Option<UnderlayPlan>,
    /// Host-side interfaces of local workloads.
    pub workloads: BTreeSet<IfIndex>,
    /// Interfaces with plain hosts behind them: what these send to the overlay's destinations is ours, all else stays
    /// the kernel's.
    pub gateways: BTreeMap<IfIndex, GatewayPlan>,
    /// Whose addresses are where plain packets are concerned, by the longest prefix; the kernel's where no prefix says.
    pub destinations: BTreeMap<IpNetwork, Whose>,
}

/// An interface with plain hosts behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayPlan {
    /// Its name.
    pub name: String,
    /// Its MTU, bytes without Ethernet header.
    pub mtu: u32,
}

/// Who carries packets to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The kernel.
    Kernel,
    /// The dataplane, to a pod or node.
    Overlay,
    /// The kernel, but what comes from the overlay: hosts behind gateways have it.
    Behind,
}

/// What to take from the underlay interface. Everything else on it stays the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlayPlan {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its name, for humans.
    pub name: String,
    /// Its IPv4 address: where VXLAN packets arrive, and what sockets bind.
    pub v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub v6: Option<Ipv6Addr>,
    /// UDP port of the VXLAN; `None` for a backend without tunnels.
    pub port: Option<u16>,
    /// Plain packets to these destinations are ours, too: peers with direct routing send them. Sorted.
    pub own_subnets: Vec<IpNetwork>,
    /// Peers also send plain packets to hosts behind gateways of ours.
    pub plain_to_gateways: bool,
    /// MTU of the interface, bytes without Ethernet header.
    pub mtu: u32,
}

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeReport {
    /// Workload interfaces steered now.
    pub workloads: BTreeSet<IfIndex>,
    /// What could not be done, one sentence each. The rest of the plan is in force all the same.
    pub failed: Vec<EdgeFailure>,
    /// Nothing failed for it, but the same plan may be carried out in a better way after this time.
    pub again: Option<Duration>,
}

/// One part of a plan that could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeFailure {
    /// The interface.
    pub ifindex: IfIndex,
    /// True for the underlay: the overlay does not work without it.
    pub underlay: bool,
    /// Why, for humans.
    pub why: String,
}

/// Nothing of the plan could be carried out; what was in force before still is.
#[derive(Debug, thiserror::Error)]
#[error("cannot steer packets: {0}")]
pub struct EdgeError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Carries out plans. An interface that vanishes takes its steering along by itself; one that comes back under a new
/// index is in the next plan.
#[async_trait]
pub trait Edge: Send {
    /// Makes `plan` true. Called with every change and, after a failure or where the report asks for it, again with the same
    /// plan.
    ///
    /// # Errors
    /// [`EdgeError`] when nothing could be done; single failures are in the report.
    async fn apply(&mut self, plan: &EdgePlan) -> Result<EdgeReport, EdgeError>;
}
