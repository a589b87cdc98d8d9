//! A route out of the entries on the way to its network.

use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::spec::calico::{CalicoRoute, PoolKind, RouteKind, Tunnels};
use ipnetwork::IpNetwork;

use super::entry::{Entry, Reference};
use crate::model::calico::resources::{EncapMode, IpPool, Node};

/// Where a node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    v4: Option<(IpAddr, IpNetwork)>,
    v6: Option<(IpAddr, IpNetwork)>,
}

impl NodeAddresses {
    /// Of a node. An address without prefix is a subnet by itself.
    pub fn of(node: &Node) -> Self {
        let with = |address: Option<IpAddr>, network: Option<IpNetwork>| {
            address.map(|address| (address, network.unwrap_or(address.into())))
        };
        Self { v4: with(node.ipv4, node.ipv4_network), v6: with(node.ipv6, node.ipv6_network) }
    }

    const fn of_family(&self, v4: bool) -> Option<(IpAddr, IpNetwork)> {
        if v4 { self.v4 } else { self.v6 }
    }
}

/// What the entries say together, the widest network's first, the route's own last.
pub fn merge<'a>(
    path: impl Iterator<Item = (IpNetwork, &'a Entry)>,
    nodename: &str,
    node_addresses: impl Fn(&str) -> Option<NodeAddresses>,
) -> CalicoRoute {
    let mut route = CalicoRoute {
        kind: RouteKind::Pool,
        pool: PoolKind::None,
        node: None,
        node_ip: None,
        same_subnet: false,
        nat_outgoing: false,
        local_workload: false,
        tunnels: Tunnels::default(),
    };
    let (mut plain_within_subnet, mut v4) = (false, true);
    for (cidr, entry) in path {
        v4 = cidr.is_ipv4();
        if let Some(pool) = entry.pool() {
            route.pool = kind_of(pool);
            route.nat_outgoing |= pool.nat_outgoing;
            plain_within_subnet |= [pool.vxlan, pool.ipip].contains(&EncapMode::CrossSubnet);
        }
        locate(&mut route, entry, nodename);
    }
    let address = |node: &str| node_addresses(node)?.of_family(v4);
    let (theirs, ours) = (route.node.as_deref().and_then(address), address(nodename));
    route.node_ip = theirs.map(|(address, _)| address);
    route.same_subnet = plain_within_subnet
        && theirs.zip(ours).is_some_and(|((address, _), (_, network))| network.contains(address));
    route
}

/// What one entry says about the node. A workload goes before the tunnels that share its address.
fn locate(route: &mut CalicoRoute, entry: &Entry, nodename: &str) {
    use Reference::{Block, Host, IpIpTunnel, VxlanTunnel, Workload};
    let mut on = |node: Option<&Arc<str>>, local, remote| {
        let Some(node) = node else { return false };
        route.kind = if **node == *nodename { local } else { remote };
        route.node = Some(Arc::clone(node));
        true
    };
    on(entry.node(Block), RouteKind::LocalWorkload, RouteKind::RemoteWorkload);
    on(entry.node(Host), RouteKind::LocalHost, RouteKind::RemoteHost);
    if on(entry.node(Workload), RouteKind::LocalWorkload, RouteKind::RemoteWorkload) {
        route.local_workload |= route.kind == RouteKind::LocalWorkload;
        return;
    }
    let tunnel = entry.node(IpIpTunnel).or(entry.node(VxlanTunnel));
    if on(tunnel, RouteKind::LocalTunnel, RouteKind::RemoteTunnel) {
        let tunnels =
            Tunnels { ipip: entry.node(IpIpTunnel).is_some(), vxlan: entry.node(VxlanTunnel).is_some() };
        route.tunnels = tunnels;
    }
}

fn kind_of(pool: &IpPool) -> PoolKind {
    match (pool.vxlan, pool.ipip) {
        (EncapMode::Never, EncapMode::Never) => PoolKind::Plain,
        (EncapMode::Never, _) => PoolKind::IpIp,
        _ => PoolKind::Vxlan,
    }
}
