//! Nodes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::net;
use super::super::problem::Problem;
use super::super::v3;

/// A Node. What cannot be read is absent, and noted.
#[derive(Debug, Default)]
pub struct Node {
    /// IPv4 addresses.
    pub v4: HostAddresses,
    /// IPv6 addresses.
    pub v6: HostAddresses,
    /// Of its IP-in-IP device.
    pub ipip_v4: Option<IpAddr>,
    /// As written; empty = absent.
    pub vxlan_mac: String,
    /// As written; empty = absent.
    pub vxlan_mac_v6: String,
    /// All of `addresses` that are addresses.
    pub addresses: Vec<IpAddr>,
    /// What Kubernetes has given to it.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Parts that make no sense.
    pub unreadable: Vec<Problem>,
}

/// Addresses of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// Between nodes: that of `bgp`, else the first `InternalIP`, else the first `ExternalIP`.
    pub host: Option<IpAddr>,
    /// Network of the one of `bgp`.
    pub network: Option<IpNetwork>,
    /// Of its VXLAN device.
    pub vxlan: Option<IpAddr>,
}

impl Node {
    /// Of a stored one.
    pub fn convert(spec: v3::NodeSpec, status: v3::Status) -> Self {
        let mut node = Self::default();
        let bgp = spec.bgp.unwrap_or_default();
        let v4_vxlan = node.address("spec.ipv4VXLANTunnelAddr", spec.ipv4_vxlan_tunnel_addr);
        let v6_vxlan = node.address("spec.ipv6VXLANTunnelAddr", spec.ipv6_vxlan_tunnel_addr);
        let (v4, v4_network) = node.in_network("spec.bgp.ipv4Address", bgp.ipv4_address);
        let (v6, v6_network) = node.in_network("spec.bgp.ipv6Address", bgp.ipv6_address);
        let other = |v4: bool| {
            let of_type = |wanted: &str| {
                let candidates = spec.addresses.iter().filter(|entry| entry.r#type == wanted);
                candidates
                    .filter_map(|entry| net::address_of(&entry.address))
                    .find(|found| found.is_ipv4() == v4)
            };
            of_type("InternalIP").or_else(|| of_type("ExternalIP"))
        };
        let pod_cidrs = status.pod_cidrs.into_iter().filter_map(|text| match net::cidr(&text) {
            Some((cidr, _)) => Some(cidr),
            None => {
                node.unreadable.push(Problem::unreadable("status.podCIDRs", text, "network"));
                None
            }
        });
        node.pod_cidrs = pod_cidrs.collect();
        Self {
            v4: HostAddresses { host: v4.or_else(|| other(true)), network: v4_network, vxlan: v4_vxlan },
            v6: HostAddresses { host: v6.or_else(|| other(false)), network: v6_network, vxlan: v6_vxlan },
            ipip_v4: node.address("spec.bgp.ipv4IPIPTunnelAddr", bgp.ipv4_ipip_tunnel_addr),
            vxlan_mac: spec.vxlan_tunnel_mac_addr,
            vxlan_mac_v6: spec.vxlan_tunnel_mac_addr_v6,
            addresses: spec.addresses.iter().filter_map(|entry| net::address_of(&entry.address)).collect(),
            ..node
        }
    }

    fn address(&mut self, part: &'static str, text: String) -> Option<IpAddr> {
        if text.is_empty() {
            return None;
        }
        let found = net::address(&text);
        if found.is_none() {
            self.unreadable.push(Problem::unreadable(part, text, "address"));
        }
        found
    }

    /// An address, and its network if a prefix length is written behind it.
    fn in_network(&mut self, part: &'static str, text: String) -> (Option<IpAddr>, Option<IpNetwork>) {
        match net::cidr(&text) {
            Some((network, address)) => (Some(address), Some(network)),
            None => (self.address(part, text), None),
        }
    }
}
