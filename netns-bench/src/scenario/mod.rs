//! What is measured.

pub mod idle;
pub mod load;
pub mod memory;
pub mod newflows;
pub mod opening;
pub mod overload;
pub mod policy_change;
pub mod rate;
pub mod restart;
pub mod round_trip;
pub mod start;
pub mod stream;
pub mod updates;

use crate::packets::Direction;
use crate::peer::{Forwarder, Peer};
use crate::site::Plan;
use anyhow::{Result, bail};
use rate::Traffic;
use std::fmt;
use std::str::FromStr;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One TCP stream.
    Tcp1,
    /// Eight TCP streams.
    Tcp8,
    /// Round trips on an idle path.
    Rtt,
    /// What a daemon needs.
    Memory,
    /// How soon a daemon forwards.
    Start,
    /// What a daemon costs that has nothing to do.
    Idle,
    /// Round trips beside 100,000 packets a second.
    RttLoad,
    /// Round trips through one node.
    RttNode,
    /// The same beside 100,000 packets a second.
    RttNodeLoad,
    /// Connections opened a second.
    NewFlows,
    /// Packets of 64 bytes into the tunnel.
    Encap64,
    /// Packets of 64 bytes out of the tunnel.
    Decap64,
    /// Small, middle and large packets into the tunnel.
    EncapMix,
    /// The same out of the tunnel.
    DecapMix,
    /// Packets of 1,400 bytes into the tunnel.
    Encap1400,
    /// Packets of 64 bytes of 1,000 flows.
    Flows1k,
    /// Packets of 64 bytes of 100,000 flows.
    Flows100k,
    /// How long packets wait for a daemon that starts anew.
    Restart,
    /// What a daemon does with twice of what it can carry.
    Overload,
    /// How soon a policy is enforced.
    PolicyChange,
    /// How soon, and in how much memory, a large cluster is.
    Load,
    /// Round trips while much changes.
    Updates,
}

/// Where it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Two nodes, two pods.
    Pair,
    /// A pod, the forwarder, a wire.
    Line,
    /// One node of a large cluster.
    Cluster,
}

/// Every scenario, in the order in which they are measured.
pub const ALL: [Scenario; 22] = [
    Scenario::Tcp1,
    Scenario::Tcp8,
    Scenario::Rtt,
    Scenario::Memory,
    Scenario::Start,
    Scenario::Idle,
    Scenario::RttLoad,
    Scenario::RttNode,
    Scenario::RttNodeLoad,
    Scenario::NewFlows,
    Scenario::Encap64,
    Scenario::Decap64,
    Scenario::EncapMix,
    Scenario::DecapMix,
    Scenario::Encap1400,
    Scenario::Flows1k,
    Scenario::Flows100k,
    Scenario::Restart,
    Scenario::Overload,
    Scenario::PolicyChange,
    Scenario::Load,
    Scenario::Updates,
];

const PAIR: &[&str] = &["kernel-vxlan", "kernel-iptables-100", "canal-tap", "canal-udp", "canal-af-xdp"];
const RATE: &[&str] = &[
    "kernel-vxlan",
    "kernel-iptables-100",
    "kernel-nftables-100",
    "canal-tap",
    "canal-tap-100",
    "canal-udp",
    "canal-af-xdp-100",
    "canal-gateway-100",
    "ovs-none",
    "ovs-ct-100",
    "af-xdp-bound",
];
const NODE: &[&str] = &[
    "kernel-vxlan",
    "kernel-iptables-100",
    "canal-tap-100",
    "canal-af-xdp-100",
    "canal-gateway-100",
    "ovs-none",
    "ovs-ct-100",
    "af-xdp-bound",
];
const NEW_FLOWS: &[&str] = &[
    "kernel-iptables-1",
    "kernel-iptables-100",
    "kernel-iptables-1000",
    "kernel-iptables-10000",
    "kernel-nftables-1",
    "kernel-nftables-100",
    "kernel-nftables-1000",
    "kernel-nftables-10000",
    "canal-tap-1",
    "canal-tap-100",
    "canal-tap-1000",
    "canal-tap-10000",
    "canal-af-xdp-10000",
    "ovs-ct-1",
    "ovs-ct-1000",
    "ovs-ct-10000",
];
const NEW_FLOWS_SMALL: &[&str] = &["kernel-iptables-10", "kernel-nftables-10", "canal-tap-10"];

impl Scenario {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp-1",
            Self::Tcp8 => "tcp-8",
            Self::Rtt => "rtt",
            Self::Memory => "memory",
            Self::Start => "start",
            Self::Idle => "idle",
            Self::RttLoad => "rtt-load",
            Self::RttNode => "rtt-node",
            Self::RttNodeLoad => "rtt-node-load",
            Self::NewFlows => "newflows",
            Self::Encap64 => "encap-64",
            Self::Decap64 => "decap-64",
            Self::EncapMix => "encap-imix",
            Self::DecapMix => "decap-imix",
            Self::Encap1400 => "encap-1400",
            Self::Flows1k => "flows-1000",
            Self::Flows100k => "flows-100000",
            Self::Restart => "restart",
            Self::Overload => "overload",
            Self::PolicyChange => "policy-change",
            Self::Load => "load",
            Self::Updates => "updates",
        }
    }

    /// Where it is measured.
    pub fn place(self) -> Place {
        match self {
            Self::PolicyChange | Self::Load | Self::Updates => Place::Cluster,
            Self::NewFlows | Self::RttNode | Self::RttNodeLoad | Self::Restart | Self::Overload => {
                Place::Line
            }
            other if other.traffic().is_some() => Place::Line,
            _ => Place::Pair,
        }
    }

    /// What packets look like whose rate is measured; `None`: something else is.
    pub fn traffic(self) -> Option<Traffic> {
        let plain = Traffic { direction: Direction::Encap, length: 64, mix: false, flows: 1 };
        Some(match self {
            Self::Encap64 => plain,
            Self::Decap64 => Traffic { direction: Direction::Decap, ..plain },
            Self::EncapMix => Traffic { length: 1400, mix: true, ..plain },
            Self::DecapMix => Traffic { direction: Direction::Decap, length: 1400, mix: true, ..plain },
            Self::Encap1400 => Traffic { length: 1400, ..plain },
            Self::Flows1k => Traffic { flows: 1_000, ..plain },
            Self::Flows100k => Traffic { flows: 100_000, ..plain },
            _ => return None,
        })
    }

    /// Whether it says anything about this peer.
    pub fn measurable(self, peer: &Peer) -> bool {
        // Others than the kernel and canal have been set up for one node only.
        let everywhere = peer.is_kernel() || matches!(peer.forwarder, Forwarder::Canal(_));
        if self.place() != Place::Line && !everywhere {
            return false;
        }
        match self {
            // Without policy nothing is asked, and the kernel keeps no connections.
            Self::NewFlows => peer.policies.is_some(),
            // No other peer has a daemon that could be looked at, told, or started anew.
            Self::Memory | Self::Start | Self::Idle | Self::Restart => peer.is_canal(),
            // A policy of its own is what is changed.
            Self::Overload => peer.is_canal() && peer.policies.is_some(),
            // The cluster brings its own policies.
            Self::PolicyChange | Self::Load => peer.is_canal() && peer.policies.is_none(),
            Self::Updates => peer.policies.is_none(),
            _ => true,
        }
    }

    /// Whom it is about.
    pub fn usual_peers(self, plan: &Plan) -> Vec<Peer> {
        let names: &[&str] = match self {
            Self::NewFlows => plan.scale(NEW_FLOWS, NEW_FLOWS_SMALL),
            Self::Idle => &["canal-tap", "canal-udp", "canal-af-xdp"],
            Self::PolicyChange | Self::Load => &["canal-tap"],
            Self::Updates => &["kernel-vxlan", "canal-tap"],
            Self::RttLoad => &["kernel-vxlan", "canal-tap", "canal-udp", "canal-af-xdp"],
            Self::RttNode | Self::RttNodeLoad => NODE,
            Self::Restart | Self::Overload => {
                &["canal-tap-100", "canal-udp-100", "canal-af-xdp-100", "canal-gateway-100"]
            }
            other if other.traffic().is_some() => RATE,
            _ => PAIR,
        };
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }
}

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let Some(found) = ALL.into_iter().find(|s| s.name() == name) else {
            let names: Vec<&str> = ALL.iter().map(|s| s.name()).collect();
            bail!("unknown scenario {name}; there are {}", names.join(", "))
        };
        Ok(found)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
