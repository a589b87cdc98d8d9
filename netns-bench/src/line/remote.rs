//! The remote node's kernel, for packets that want an answer: a VXLAN device at the switch with a pod's address and an echo
//! server. What the generator makes never comes here: a sink takes it away.

use super::node::Station;
use super::{REMOTE_MAC, REMOTE_POD, REMOTE_VTEP};
use crate::packets::{Ends, template};
use crate::pair::ECHO_PORT;
use crate::peer::Peer;
use anyhow::Result;
use netns_tests::Topology;
use netns_tests::frames::mac_text;
use netns_tests::plan::{GATEWAY_V4, VXLAN_PORT};
use netns_tests::traffic::udp::Echo;
use std::net::SocketAddr;

/// The device.
const DEVICE: &str = "remote";

/// Who answers.
#[derive(Debug)]
pub struct Remote {
    /// Where.
    pub echo: SocketAddr,
    _server: Echo,
}

impl Remote {
    /// Answers `station` through the tunnel that ends at `ends`.
    pub fn up(topology: &Topology, peer: &Peer, station: &Station, ends: &Ends) -> Result<Self> {
        let ns = &topology.switch;
        let vtep_mac = mac_text(ends.vtep_mac);
        // Without an outer checksum, as the generator's packets: an unfinished one is wrong to Open vSwitch.
        ns.ip(&format!(
            "link add {DEVICE} address {REMOTE_MAC} mtu 1450 type vxlan id {} local {REMOTE_VTEP} dev br0 dstport {VXLAN_PORT} nolearning noudpcsum",
            template::VNI
        ))?;
        ns.ip(&format!("addr add {REMOTE_POD}/32 dev {DEVICE}"))?;
        ns.ip(&format!("link set {DEVICE} up"))?;
        ns.ip(&format!("route add {} dev {DEVICE}", station.v4))?;
        ns.ip(&format!("neigh replace {} lladdr {vtep_mac} dev {DEVICE} nud permanent", station.v4))?;
        ns.run(&["bridge", "fdb", "append", &vtep_mac, "dev", DEVICE, "dst", &ends.vtep.to_string()])?;
        if !peer.is_kernel() && !peer.is_canal() {
            // Whoever takes frames over AF_XDP and does not look at them sends unfinished checksums on, and answers no ARP.
            let underlay_mac = mac_text(ends.underlay_mac);
            for (ns, device, next_hop, mac) in [
                (ns, DEVICE, (ends.vtep, "br0"), underlay_mac.as_str()),
                (&station.ns, "eth0", (GATEWAY_V4, "eth0"), station.router_mac),
            ] {
                ns.run(&["ethtool", "-K", device, "tx", "off"])?;
                let (address, device) = next_hop;
                ns.ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
            }
        }
        let server = Echo::start_at(ns, (REMOTE_POD, ECHO_PORT).into())?;
        Ok(Self { echo: server.address, _server: server })
    }
}
