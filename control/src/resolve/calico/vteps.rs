//! The ends of Calico's own VXLAN tunnels.

use std::collections::BTreeMap;
use std::sync::Arc;

use canal_dataplane::net::Mac;
use canal_dataplane::spec::calico::{CalicoVtep, VtepKey};
use sha1::{Digest, Sha1};

use crate::model::calico::resources::Node;

/// Brings the ends of one node up to date. Ends that stay as they are leave the map where it is.
pub fn set_node(vteps: &mut Arc<BTreeMap<VtepKey, CalicoVtep>>, name: &str, node: Option<&Node>) {
    for v6 in [false, true] {
        let key = (name.into(), v6);
        let now = node.and_then(|node| vtep(name, node, v6));
        if vteps.get(&key) == now.as_ref() {
            continue;
        }
        let vteps = Arc::make_mut(vteps);
        match now {
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
