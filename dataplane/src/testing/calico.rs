//! Random networks of Calico's: routes that nest and contradict each other, tunnel ends that may be missing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::entropy::Entropy;
use super::topology::{self, NODES, PODS};
use super::world::{mac, outer, pod};
use crate::spec::NodeSpec;
use crate::spec::calico::{CalicoRoute, CalicoVtep, PoolKind, RouteKind, Tunnels, VtepKey};

/// An address that routes may be about.
pub fn address(e: &mut Entropy<'_>) -> IpAddr {
    let node = 1 + e.below(usize::from(NODES)) as u16;
    pod(node, e.below(usize::from(PODS) + 1) as u8, e.one_in(2))
}

fn network(e: &mut Entropy<'_>) -> IpNetwork {
    let address = address(e);
    let lengths = if address.is_ipv6() { [128, 128, 126, 64, 48, 0] } else { [32, 32, 30, 24, 16, 0] };
    let length = e.pick(&lengths);
    let net = IpNetwork::new(address, length).unwrap_or_else(|_| address.into());
    IpNetwork::new(net.network(), length).unwrap_or(net)
}

fn node_name(e: &mut Entropy<'_>) -> Arc<str> {
    format!("node{}", 1 + e.below(usize::from(NODES))).into()
}

fn route(v6: bool, e: &mut Entropy<'_>) -> CalicoRoute {
    use RouteKind::{LocalHost, LocalTunnel, LocalWorkload, Pool, RemoteHost, RemoteTunnel, RemoteWorkload};
    let kinds = [
        RemoteWorkload,
        RemoteWorkload,
        RemoteTunnel,
        LocalWorkload,
        LocalHost,
        LocalTunnel,
        RemoteHost,
        Pool,
    ];
    CalicoRoute {
        kind: e.pick(&kinds),
        pool: e.pick(&[PoolKind::Vxlan, PoolKind::Vxlan, PoolKind::IpIp, PoolKind::Plain, PoolKind::None]),
        node: (!e.one_in(8)).then(|| node_name(e)),
        node_ip: (!e.one_in(4)).then(|| outer(1 + e.below(usize::from(NODES)) as u16, v6)),
        same_subnet: e.one_in(4),
        nat_outgoing: e.one_in(2),
        local_workload: e.one_in(2),
        tunnels: Tunnels { ipip: e.one_in(4), vxlan: e.one_in(4) },
    }
}

fn routes(e: &mut Entropy<'_>) -> BTreeMap<IpNetwork, CalicoRoute> {
    let one = |e: &mut Entropy<'_>| {
        let network = network(e);
        (network, route(network.is_ipv6(), e))
    };
    (0..e.below(16)).map(|_| one(e)).collect()
}

fn vteps(e: &mut Entropy<'_>) -> BTreeMap<VtepKey, CalicoVtep> {
    let one = |e: &mut Entropy<'_>| {
        let (v6, node) = (e.one_in(2), 1 + e.below(usize::from(NODES)) as u16);
        let vtep = CalicoVtep { address: pod(node, 0, v6), mac: mac(node, v6), node_ip: outer(node, v6) };
        ((node_name(e), v6), vtep)
    };
    (0..e.below(8)).map(|_| one(e)).collect()
}

/// Changes one thing about Calico's network; the rest keeps its place in memory.
pub fn change(spec: &mut NodeSpec, e: &mut Entropy<'_>) {
    let calico = &mut spec.calico;
    match e.below(8) {
        0 => calico.routes = Arc::new(routes(e)),
        1 => calico.vteps = Arc::new(vteps(e)),
        2 => calico.vxlan = topology::vxlan(e),
        3 => spec.settings = topology::settings(e),
        // Something else, or nothing at all.
        4 => spec.revision += 1,
        _ => {
            let network = network(e);
            let routes = Arc::make_mut(&mut calico.routes);
            if routes.remove(&network).is_none() {
                routes.insert(network, route(network.is_ipv6(), e));
            }
        }
    }
}
