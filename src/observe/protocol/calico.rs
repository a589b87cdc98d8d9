//! What is said of a network of Calico's own.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What Calico's resources, those of all nodes, say of a network of its own: resolved and compiled, not used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoNetworkView {
    /// IP pools with VXLAN.
    pub vxlan_pools: usize,
    /// IP pools with IP in IP.
    pub ipip_pools: usize,
    /// Blocks of Calico's IPAM.
    pub blocks: usize,
    /// Nodes with a VXLAN tunnel.
    pub vxlan_nodes: usize,
    /// Nodes with an IP-in-IP tunnel.
    pub ipip_nodes: usize,
}

/// A route of Calico's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoRouteView {
    /// Destinations.
    pub prefix: String,
    /// What is there, by Felix's names: `CIDR_INFO` (a pool), `LOCAL_WORKLOAD`, `REMOTE_WORKLOAD`, `LOCAL_HOST`,
    /// `REMOTE_HOST`, `LOCAL_TUNNEL`, `REMOTE_TUNNEL`.
    pub kind: String,
    /// The pool it lies in: `VXLAN`, `IPIP`, `NO_ENCAP`, or `NONE`.
    pub pool: String,
    /// The node it is on.
    pub node: Option<String>,
    /// That node's address.
    pub node_ip: Option<IpAddr>,
    /// `same_subnet`, `nat_outgoing`, `local_workload`, `ipip_tunnel`, `vxlan_tunnel`.
    pub flags: Vec<String>,
    /// How packets would get there: `workload`, `host`, `vxlan`, `ipip`, `plain`, `host routes`, `unassigned`, `unresolved`.
    pub way: String,
    /// To which node's address.
    pub via: Option<IpAddr>,
    /// Largest IP packet through that tunnel, bytes; of `vxlan`, if this node has a tunnel end of its own.
    pub mtu: Option<u16>,
}

/// The end of a VXLAN tunnel of Calico's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalicoVtepView {
    /// The node.
    pub node: String,
    /// Address of the tunnel's device.
    pub address: IpAddr,
    /// The device's Ethernet address.
    pub mac: String,
    /// The node's address, to which packets would be sent.
    pub node_ip: IpAddr,
}
