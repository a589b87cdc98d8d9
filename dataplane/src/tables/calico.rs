//! Calico's routes and tunnel ends, ready to be forwarded by: a longest-prefix match that leads to the way a packet would
//! take, with the outer headers it would get. Workers do not look here. The slow twin is [`crate::reference::calico`].

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

use super::{Adjacency, Lpm, PathMtu};
use crate::spec::Settings;
use crate::spec::calico::{CalicoNetwork, CalicoRoute, CalicoVtep, CalicoWay, PoolKind, RouteKind, VtepKey};

/// Compiled routes and tunnel ends.
#[derive(Debug, Default)]
pub struct CalicoTables {
    /// What they were compiled from.
    network: CalicoNetwork,
    /// See [`outer_header`].
    header: (u8, bool),
    entries: Vec<CalicoEntry>,
    /// To the place in `entries`.
    by_prefix: Lpm<u32>,
    /// One for each tunnel end.
    adjacencies: Vec<Adjacency>,
    /// By the address of the node at which the tunnel ends.
    by_node_ip: HashMap<IpAddr, u32, FixedState>,
}

/// A route, and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoEntry {
    /// Destinations.
    pub prefix: IpNetwork,
    /// What is known of them.
    pub route: CalicoRoute,
    /// How packets get there.
    pub way: CalicoWay,
}

impl CalicoTables {
    /// Those of the generation before, if nothing has changed. Path MTUs learnt under them are kept.
    pub(super) fn compile(
        network: &CalicoNetwork,
        settings: &Settings,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        match previous {
            Some(previous) if previous.is_of(network, settings) => Arc::clone(previous),
            _ => Arc::new(Self::build(network, settings, previous.map(|tables| &**tables))),
        }
    }

    fn is_of(&self, network: &CalicoNetwork, settings: &Settings) -> bool {
        // Maps that did not change are found equal by their place.
        self.network == *network && self.header == outer_header(settings)
    }

    fn build(network: &CalicoNetwork, settings: &Settings, previous: Option<&Self>) -> Self {
        let mut tables = Self { network: network.clone(), header: outer_header(settings), ..Self::default() };
        for vtep in network.vteps.values() {
            let known = previous.and_then(|tables| tables.adjacency(vtep.node_ip)?.path_mtu().cloned());
            let path_mtu: Arc<PathMtu> = known.unwrap_or_default();
            let header = outer_header(settings);
            let adjacency = Adjacency::tunnel(network.vxlan, header, vtep.node_ip, vtep.mac, path_mtu);
            tables.by_node_ip.insert(vtep.node_ip, tables.adjacencies.len() as u32);
            tables.adjacencies.push(adjacency);
        }
        for (prefix, route) in network.routes.iter() {
            tables.by_prefix.insert(*prefix, tables.entries.len() as u32);
            let way = way(network, *prefix, route);
            tables.entries.push(CalicoEntry { prefix: *prefix, route: route.clone(), way });
        }
        tables
    }

    /// Every route, by prefix.
    pub fn entries(&self) -> &[CalicoEntry] {
        &self.entries
    }

    /// Every tunnel end, by node.
    pub fn vteps(&self) -> impl Iterator<Item = (&VtepKey, &CalicoVtep)> {
        self.network.vteps.iter()
    }

    /// The route with the longest prefix that contains `address`.
    pub fn route(&self, address: IpAddr) -> Option<&CalicoEntry> {
        self.entries.get(self.by_prefix.lookup(address)? as usize)
    }

    /// Through the tunnel that ends at the node with this address: what [`CalicoWay::Vxlan`] means.
    pub fn adjacency(&self, node_ip: IpAddr) -> Option<&Adjacency> {
        self.adjacencies.get(*self.by_node_ip.get(&node_ip)? as usize)
    }
}

/// What settings say of a tunnel's outer header: TTL, and "don't fragment".
const fn outer_header(settings: &Settings) -> (u8, bool) {
    (settings.outer_ttl, settings.outer_df)
}

/// As Felix's managers of routes have it; where packets go in the end is the pool's word.
fn way(network: &CalicoNetwork, prefix: IpNetwork, route: &CalicoRoute) -> CalicoWay {
    match route.kind {
        RouteKind::LocalWorkload if route.local_workload => return CalicoWay::Workload,
        RouteKind::LocalWorkload => return CalicoWay::Unassigned,
        RouteKind::LocalHost | RouteKind::LocalTunnel => return CalicoWay::Host,
        RouteKind::Pool | RouteKind::RemoteHost => return CalicoWay::HostRoutes,
        RouteKind::RemoteWorkload | RouteKind::RemoteTunnel => {}
    }
    let way = match route.pool {
        PoolKind::None => Some(CalicoWay::HostRoutes),
        PoolKind::Plain => route.node_ip.map(CalicoWay::Plain),
        PoolKind::Vxlan | PoolKind::IpIp if route.same_subnet => route.node_ip.map(CalicoWay::Plain),
        PoolKind::IpIp => route.node_ip.map(CalicoWay::IpIp),
        PoolKind::Vxlan => {
            let node = route.node.as_ref();
            let vtep = node.and_then(|node| network.vteps.get(&(Arc::clone(node), prefix.is_ipv6())));
            vtep.map(|vtep| CalicoWay::Vxlan(vtep.node_ip))
        }
    };
    way.unwrap_or(CalicoWay::Unresolved)
}

#[cfg(test)]
mod tests;
