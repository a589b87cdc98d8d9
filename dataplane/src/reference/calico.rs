//! Calico's network, read from the spec as it stands: every route is looked at.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::expect::tunnelled;
use crate::spec::calico::{CalicoRoute, CalicoWay, PoolKind, RouteKind};
use crate::spec::{NodeSpec, Vtep};

/// The longest prefix that contains `address`, with what is known of it.
pub fn route(spec: &NodeSpec, address: IpAddr) -> Option<(IpNetwork, &CalicoRoute)> {
    let around = spec.calico.routes.iter().filter(|(prefix, _)| prefix.contains(address));
    around.max_by_key(|(prefix, _)| prefix.prefix()).map(|(prefix, route)| (*prefix, route))
}

/// How a packet to `address` would get there; `None` = Calico knows nothing of it.
pub fn way(spec: &NodeSpec, address: IpAddr) -> Option<CalicoWay> {
    let (_, route) = route(spec, address)?;
    let remote = matches!(route.kind, RouteKind::RemoteWorkload | RouteKind::RemoteTunnel);
    if !remote || route.pool == PoolKind::None {
        return Some(match route.kind {
            RouteKind::LocalHost | RouteKind::LocalTunnel => CalicoWay::Host,
            RouteKind::LocalWorkload if route.local_workload => CalicoWay::Workload,
            RouteKind::LocalWorkload => CalicoWay::Unassigned,
            _ => CalicoWay::HostRoutes,
        });
    }
    let encapsulated = route.pool != PoolKind::Plain && !route.same_subnet;
    if encapsulated && route.pool == PoolKind::Vxlan {
        let ends = spec.calico.vteps.iter();
        let mut of_node =
            ends.filter(|((node, v6), _)| Some(&**node) == route.node.as_deref() && *v6 == address.is_ipv6());
        return Some(
            of_node.next().map_or(CalicoWay::Unresolved, |(_, vtep)| CalicoWay::Vxlan(vtep.node_ip)),
        );
    }
    Some(match route.node_ip {
        None => CalicoWay::Unresolved,
        Some(node_ip) if encapsulated => CalicoWay::IpIp(node_ip),
        Some(node_ip) => CalicoWay::Plain(node_ip),
    })
}

/// `packet` as it leaves for the tunnel end at `node_ip`, with zeros where [`super::mask`] has them; empty if this node
/// has no tunnel end of its own in that family.
pub fn in_vxlan(spec: &NodeSpec, node_ip: IpAddr, ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
    let Some(end) = spec.calico.vteps.values().rev().find(|vtep| vtep.node_ip == node_ip) else {
        return Vec::new();
    };
    let calico = NodeSpec { vxlan: spec.calico.vxlan, settings: spec.settings, ..NodeSpec::default() };
    let vtep = Vtep { outer: node_ip, mac: end.mac, owns: Vec::new() };
    tunnelled(&calico, &vtep, ether_type, packet)
}
