//! Where Calico's own resources say that addresses are, and the ends of its VXLAN tunnels.
//!
//! Resolved from pools, IPAM blocks, nodes and workloads as Felix resolves them, and compiled. Nothing is forwarded by it: the
//! overlay that carries packets is flannel's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::Vxlan;
use crate::net::Mac;

/// Calico's network as this node sees it. Maps that did not change keep their `Arc` from one spec to the next.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CalicoNetwork {
    /// What is known of each network that a resource names; the longest prefix tells.
    pub routes: Arc<BTreeMap<IpNetwork, CalicoRoute>>,
    /// Tunnel ends of all nodes, our own among them.
    pub vteps: Arc<BTreeMap<VtepKey, CalicoVtep>>,
    /// Our own tunnel end, with Calico's VNI and port; `None` = this node has none.
    pub vxlan: Option<Vxlan>,
}

/// What is known of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoRoute {
    /// What is there.
    pub kind: RouteKind,
    /// The pool it lies in.
    pub pool: PoolKind,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    /// That node's address.
    pub node_ip: Option<IpAddr>,
    /// The pool leaves packets plain within a subnet, and the node is in ours.
    pub same_subnet: bool,
    /// Packets from here that leave all pools are masqueraded.
    pub nat_outgoing: bool,
    /// A workload of this node has this very address.
    pub local_workload: bool,
    /// Tunnels whose address it is.
    pub tunnels: Tunnels,
}

/// What is in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RouteKind {
    /// Nothing in particular: a pool.
    #[default]
    Pool,
    /// Workloads of this node.
    LocalWorkload,
    /// Workloads of another node.
    RemoteWorkload,
    /// This node.
    LocalHost,
    /// Another node.
    RemoteHost,
    /// The end of a tunnel on this node.
    LocalTunnel,
    /// The end of a tunnel on another node.
    RemoteTunnel,
}

/// How a pool's packets travel between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PoolKind {
    /// There is no pool.
    #[default]
    None,
    /// As they are.
    Plain,
    /// In VXLAN.
    Vxlan,
    /// IP in IP.
    IpIp,
}

/// Kinds of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tunnels {
    /// IP in IP.
    pub ipip: bool,
    /// VXLAN.
    pub vxlan: bool,
}

/// Which tunnel end: the node's name, and whether it is the IPv6 one.
pub type VtepKey = (Arc<str>, bool);

/// A node's VXLAN tunnel end in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CalicoVtep {
    /// Address of the tunnel's device.
    pub address: IpAddr,
    /// The device's Ethernet address.
    pub mac: Mac,
    /// The node's address, to which packets are sent; of the same family.
    pub node_ip: IpAddr,
}

/// How a packet would get to where a route says that its destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CalicoWay {
    /// To a workload of this node, which has this very address.
    Workload,
    /// Into this host's own stack: its address, or that of a tunnel of its.
    Host,
    /// In VXLAN, to the tunnel end of the node with this address.
    Vxlan(IpAddr),
    /// IP in IP, to the node with this address.
    IpIp(IpAddr),
    /// As it is, to the node with this address as next hop.
    Plain(IpAddr),
    /// As the host's own routes say: Calico makes none for it. A pool of which no block is known, an address outside of all
    /// pools, another node's own address.
    HostRoutes,
    /// Nowhere: it is this node's to give away, and no workload has it. Felix lets such packets end in a "blackhole" route,
    /// so that they do not go round in circles; not for single addresses, where it would be in the way of the CNI plugin.
    Unassigned,
    /// Nowhere yet: the node's address, or the end of its tunnel, is not known.
    Unresolved,
}
