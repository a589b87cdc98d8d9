//! What has to be outside of the dataplane so that packets get into it: our device, and the steering.

use std::collections::BTreeMap;

use canal_dataplane::port::IfIndex;
use canal_dataplane::spec::{Gateway, NodeSpec, Via};
use canal_dataplane::verdict::DropReason;
use ipnetwork::IpNetwork;

use super::NodeFacts;
use crate::edge::{EdgePlan, GatewayPlan, UnderlayPlan, Whose};
use crate::host::desired::{Desired, Route};
use crate::model::flannel::Backend;

/// How our device must look. The overlay's networks lead into it, and so do workloads outside of them and what is behind
/// other nodes' gateways; nodes' addresses never do, or our own tunnel packets would come back to us.
pub fn desired(node: &NodeFacts<'_>, spec: &NodeSpec) -> Desired {
    let (v4, v6) = (node.tunnel_v4(), node.tunnel_v6());
    let mut networks: Vec<IpNetwork> = Vec::new();
    if v4.is_some() {
        networks.extend(node.config.v4.map(|pool| IpNetwork::from(pool.network)));
    }
    if v6.is_some() {
        networks.extend(node.config.v6.map(|pool| IpNetwork::from(pool.network)));
    }
    let covered = |net: &IpNetwork| networks.iter().any(|network| network.contains(net.ip()));
    let apart = spec.endpoints.iter().flat_map(|endpoint| &endpoint.networks).filter(|net| !covered(net));
    let mut destinations: Vec<IpNetwork> = apart.copied().collect();
    destinations.extend(announced(node, spec).filter(|net| !covered(net)));
    destinations.extend(&networks);
    destinations.sort_unstable();
    let route = |dst: IpNetwork| Route {
        dst,
        src: if dst.is_ipv4() { v4.map(Into::into) } else { v6.map(Into::into) },
        metric: 0,
    };
    Desired {
        device: node.device.to_owned(),
        mtu: node.mtu().unwrap_or(node.external.mtu),
        up: true,
        noarp: true,
        addresses: v4
            .map(|a| IpNetwork::from(std::net::IpAddr::from(a)))
            .into_iter()
            .chain(v6.map(|a| IpNetwork::from(std::net::IpAddr::from(a))))
            .collect(),
        routes: destinations.into_iter().map(route).collect(),
    }
}

/// Networks behind other nodes' gateways, but those that this host is on itself.
fn announced<'a>(node: &'a NodeFacts<'_>, spec: &'a NodeSpec) -> impl Iterator<Item = IpNetwork> + 'a {
    let on_link = |prefix: &IpNetwork| {
        node.host.addresses.iter().any(|address| {
            let net = super::masked(address.net);
            net.prefix() > 0 && (net.contains(prefix.ip()) || prefix.contains(net.ip()))
        })
    };
    let elsewhere = spec.routes.iter().filter(|route| match &route.via {
        Via::Vtep(node) | Via::Direct { next_hop: node, .. } => route.prefix != IpNetwork::from(*node),
        Via::Gateway(_) | Via::Drop(_) => false,
    });
    elsewhere.map(|route| route.prefix).filter(move |prefix| !on_link(prefix))
}

/// What has to be steered into the dataplane.
pub fn edge_plan(node: &NodeFacts<'_>, spec: &NodeSpec) -> EdgePlan {
    let planned = |gateway: &Gateway| {
        let plan = GatewayPlan { name: gateway.name.to_string(), mtu: gateway.mtu.into() };
        gateway.ifindex.map(|ifindex| (ifindex, plan))
    };
    let gateways: BTreeMap<IfIndex, GatewayPlan> = spec.gateways.iter().filter_map(planned).collect();
    let plain = match node.backend {
        Backend::Vxlan(options) => options.direct_routing,
        Backend::HostGw | Backend::Alloc => true,
    };
    let external = node.external;
    let underlay = (*node.backend != Backend::Alloc).then(|| UnderlayPlan {
        ifindex: external.ifindex,
        name: external.name.clone(),
        v4: external.v4,
        v6: external.v6,
        port: spec.vxlan.map(|vxlan| vxlan.port),
        own_subnets: node.own_subnets(),
        plain_to_gateways: plain && !gateways.is_empty(),
        mtu: external.mtu,
    });
    EdgePlan {
        underlay,
        workloads: spec.endpoints.iter().filter_map(|endpoint| endpoint.ifindex).collect(),
        destinations: if gateways.is_empty() { BTreeMap::new() } else { destinations(node, spec) },
        gateways,
    }
}

/// What hosts behind gateways send to these destinations is the overlay's, or the kernel's, by the longest prefix. As in
/// the dataplane's tables this host goes before a workload, and that before a route.
fn destinations(node: &NodeFacts<'_>, spec: &NodeSpec) -> BTreeMap<IpNetwork, Whose> {
    let own = |via: &Via| match via {
        Via::Vtep(_) | Via::Direct { .. } => Whose::Overlay,
        Via::Drop(reason) if *reason != DropReason::NoRoute => Whose::Overlay,
        Via::Gateway(_) => Whose::Behind,
        Via::Drop(_) => Whose::Kernel,
    };
    let routes = spec.routes.iter().map(|route| (route.prefix, own(&route.via)));
    // Also where no lease is: the kernel would send it to our device, as if it were the host's.
    let networks = node.overlay_networks().into_iter().map(|network| (network, Whose::Overlay));
    let workloads = spec.endpoints.iter().flat_map(|endpoint| &endpoint.networks);
    let workloads = workloads.map(|network| (super::masked(*network), Whose::Overlay));
    let host = spec.host_addresses.iter().map(|address| (IpNetwork::from(*address), Whose::Kernel));
    routes.chain(networks).chain(workloads).chain(host).collect()
}
