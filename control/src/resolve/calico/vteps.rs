//! The ends of Calico's own VXLAN tunnels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use canal_dataplane::net::Mac;
use sha1::{Digest, Sha1};

use crate::model::calico::resources::Node;

/// A node's tunnel end in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CalicoVtep {
    /// Address of the tunnel's device.
    pub address: IpAddr,
    /// The device's Ethernet address.
    pub mac: Mac,
    /// The node's address, to which packets are sent.
    pub node_ip: IpAddr,
}

/// Which end: the node's name, and whether it is the IPv6 one.
pub type VtepKey = (String, bool);

/// Brings the ends of one node up to date.
pub fn set_node(vteps: &mut BTreeMap<VtepKey, CalicoVtep>, name: &str, node: Option<&Node>) {
    for v6 in [false, true] {
        let key = (name.to_owned(), v6);
        match node.and_then(|node| vtep(name, node, v6)) {
            Some(vtep) => vteps.insert(key, vtep),
            None => vteps.remove(&key),
        };
    }
}

/// A node has an end if it has a tunnel address and an address in its `bgp` section. One that is known by its
/// `addresses` only has none: Felix does not look there for it.
pub fn vtep(name: &str, node: &Node, v6: bool) -> Option<CalicoVtep> {
    let (address, node_ip, network, mac) = if v6 {
        (node.vxlan_v6, node.ipv6, node.ipv6_network, node.vxlan_mac_v6)
    } else {
        (node.vxlan_v4, node.ipv4, node.ipv4_network, node.vxlan_mac)
    };
    let mac = mac.unwrap_or_else(|| derived_mac(name, v6));
    Some(CalicoVtep { address: address?, mac, node_ip: node_ip.filter(|_| network.is_some())? })
}

/// The Ethernet address of a tunnel's device that nobody wrote down: `f` and the beginning of a hash of the name.
pub fn derived_mac(name: &str, v6: bool) -> Mac {
    let hash = Sha1::new().chain_update(name).chain_update(if v6 { "-v6" } else { "" }).finalize();
    let mut octets = [b'f'; 6];
    octets[1..].copy_from_slice(&hash[..5]);
    Mac(octets)
}
