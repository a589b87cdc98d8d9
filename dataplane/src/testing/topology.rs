//! Random networks around one node: dual-stack, overlapping, contradictory, incomplete.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnetwork::IpNetwork;

use super::entropy::Entropy;
use super::policies;
use super::world::{
    OUR_MAC, OUR_MAC6, behind, gateway, hop, ifindex, link, mac, our_outer, outer, pod, pod_mac, subnet,
};
use crate::net::Vni;
use crate::spec::policy::{EndpointToHost, Established};
use crate::spec::{DscpMode, Endpoint, Gateway, Hop, LocalVtep, NodeSpec, Route, Settings, Via, Vtep, Vxlan};
use crate::verdict::DropReason;

/// Nodes there may be, this one (1) among them.
pub const NODES: u16 = 5;
/// Pods that a node may have, from 1 on.
pub const PODS: u8 = 4;
/// Gateway interfaces there may be, from 1 on.
pub const GATEWAYS: u8 = 2;

/// MTUs that are worth a try; 60 is too small for anything to be cut to.
const MTUS: [u16; 6] = [1450, 1430, 1280, 576, 68, 60];

/// Any network.
pub fn spec(e: &mut Entropy<'_>) -> NodeSpec {
    let mut spec = NodeSpec { revision: 1, ..NodeSpec::default() };
    for part in Part::ALL {
        part.fill(&mut spec, e);
    }
    spec
}

/// Another network that differs from `spec` in one respect.
pub fn change(spec: &mut NodeSpec, e: &mut Entropy<'_>) {
    spec.revision += 1;
    let timeouts = spec.settings.timeouts;
    e.pick(&Part::ALL).fill(spec, e);
    // Timers that run are not set anew: how long they do is decided once.
    spec.settings.timeouts = timeouts;
}

/// What a network is made of.
#[derive(Clone, Copy)]
enum Part {
    Settings,
    Vxlan,
    Host,
    Endpoints,
    Vteps,
    Routes,
    DirectSources,
    /// Gateway interfaces, and the host endpoints that judge what passes them; which routes lead there is among the routes.
    Gateways,
    /// Sets; afterwards, any change of policy. Lists come with their endpoints.
    Policy,
}

impl Part {
    const ALL: [Self; 9] = [
        Self::Settings,
        Self::Vxlan,
        Self::Host,
        Self::Endpoints,
        Self::Vteps,
        Self::Routes,
        Self::DirectSources,
        Self::Gateways,
        Self::Policy,
    ];

    fn fill(self, spec: &mut NodeSpec, e: &mut Entropy<'_>) {
        match self {
            Self::Settings => spec.settings = settings(e),
            Self::Vxlan => spec.vxlan = vxlan(e),
            Self::Host => host(spec, e),
            Self::Endpoints => spec.endpoints = endpoints(e).into(),
            Self::Vteps => spec.vteps = vteps(e).into(),
            Self::Routes => spec.routes = routes(e).into(),
            Self::DirectSources => spec.direct_sources = direct_sources(e).into(),
            Self::Gateways => {
                spec.gateways = gateways(e);
                spec.host_endpoints = policies::host_endpoints(e);
            }
            Self::Policy if spec.sets.is_empty() => spec.sets = policies::sets(e),
            Self::Policy => policies::change(spec, e),
        }
    }
}

pub(super) fn settings(e: &mut Entropy<'_>) -> Settings {
    Settings {
        outer_df: e.one_in(2),
        outer_ttl: e.pick(&[64, 255, 7]),
        dscp: e.pick(&[DscpMode::Pipe, DscpMode::Uniform]),
        allow_vxlan_from_workloads: e.one_in(4),
        allow_ipip_from_workloads: e.one_in(4),
        outer_checksum_v4: e.one_in(3),
        endpoint_to_host: e.pick(&[EndpointToHost::Accept, EndpointToHost::Accept, EndpointToHost::Drop]),
        established: e.pick(&[Established::Keep, Established::Revalidate]),
        tcp_loose: e.one_in(5),
        ..Settings::default()
    }
}

pub(super) fn vxlan(e: &mut Entropy<'_>) -> Option<Vxlan> {
    if e.one_in(16) {
        return None;
    }
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (our_outer(false), our_outer(true)) else { return None };
    let mut vxlan = Vxlan {
        vni: e.pick(&[Vni::FLANNEL, Vni::FLANNEL, Vni::from_octets([0x12, 0x34, 0x56])]),
        port: e.pick(&[8472, 8472, 4789]),
        v4: Some(LocalVtep { address: v4, mac: OUR_MAC, mtu: e.pick(&[1450, 1450, 8950, 1280, 576]) }),
        v6: Some(LocalVtep { address: v6, mac: OUR_MAC6, mtu: e.pick(&[1430, 1430, 8930, 1280]) }),
    };
    match e.below(12) {
        10 => vxlan.v4 = None,
        11 => vxlan.v6 = None,
        _ => {}
    }
    Some(vxlan)
}

fn host(spec: &mut NodeSpec, e: &mut Entropy<'_>) {
    spec.host_addresses = vec![our_outer(false), our_outer(true), pod(1, 0, false), pod(1, 0, true)];
    if e.one_in(8) {
        // An address that a pod has as well, and two that nobody can have.
        spec.host_addresses.push(pod(1, 1, e.one_in(2)));
        spec.host_addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
    }
    (spec.gateway_v4, spec.gateway_v6) = match (pod(1, 0, false), pod(1, 0, true)) {
        (IpAddr::V4(a), IpAddr::V6(b)) => (Some(a), Some(b)),
        _ => (None, None),
    };
    if e.one_in(12) {
        (spec.gateway_v4, spec.gateway_v6) = (None, None);
    }
}

fn endpoints(e: &mut Entropy<'_>) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for i in 1..=PODS {
        if e.one_in(6) {
            continue;
        }
        let mut networks = vec![IpNetwork::from(pod(1, i, false)), IpNetwork::from(pod(1, i, true))];
        match e.below(16) {
            12 => networks.truncate(1),
            13 => networks.clear(),
            // A duplicate of another's address.
            14 => networks.push(IpNetwork::from(pod(1, 1 + i % PODS, false))),
            // A wide one.
            15 => networks.push(everything(e.one_in(2))),
            _ => {}
        }
        endpoints.push(Endpoint {
            name: format!("default/pod-{i}"),
            interface: format!("cali{i}"),
            ifindex: match e.below(12) {
                10 => None,
                // Two endpoints on one interface.
                11 => Some(ifindex(1)),
                _ => Some(ifindex(i)),
            },
            mac: (!e.one_in(6)).then(|| pod_mac(i)),
            networks,
            mtu: e.pick(&[1450, 1450, 1450, 1450, 9000, 1280, 576, 68, 60]),
            policy: policies::endpoint_policy(e),
        });
    }
    endpoints
}

fn everything(v6: bool) -> IpNetwork {
    let address: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    prefix(address, 0)
}

fn prefix(address: IpAddr, len: u8) -> IpNetwork {
    IpNetwork::new(address, len).unwrap_or_else(|_| IpNetwork::from(address))
}

fn vteps(e: &mut Entropy<'_>) -> Vec<Vtep> {
    let mut vteps = Vec::new();
    for n in 2..=NODES {
        for v6 in [false, true] {
            if e.one_in(5) {
                continue;
            }
            let mut owns = vec![subnet(n, false), subnet(n, true), IpNetwork::from(outer(n, v6))];
            match e.below(10) {
                7 => owns.clear(),
                // A lease that overlaps others, ours among them.
                8 => owns.push(prefix([10, 0, 0, 0].into(), 8)),
                9 => owns.push(everything(v6)),
                _ => {}
            }
            vteps.push(Vtep { outer: outer(n, v6), mac: mac(n, v6), owns });
        }
    }
    vteps
}

fn via(n: u16, e: &mut Entropy<'_>) -> Via {
    let v6 = e.one_in(2);
    match e.below(10) {
        6 | 7 => Via::Direct { next_hop: outer(n, v6), mtu: e.pick(&MTUS) },
        8 => Via::Drop(e.pick(&[DropReason::UnresolvedVtep, DropReason::UnassignedAddress])),
        // A node that has no VTEP.
        9 => Via::Vtep(outer(NODES + 1, v6)),
        _ => Via::Vtep(outer(n, v6)),
    }
}

fn routes(e: &mut Entropy<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for v6 in [false, true] {
        if !e.one_in(6) {
            let via = Via::Drop(DropReason::UnassignedAddress);
            routes.push(Route { prefix: subnet(1, v6), via });
        }
        for n in 2..=NODES {
            let via = via(n, e);
            routes.push(Route { prefix: subnet(n, v6), via });
        }
        // Inside of another, outside of all, and a second opinion.
        if e.one_in(2) {
            let n = 2 + e.below(usize::from(NODES) - 1) as u16;
            routes.push(Route { prefix: IpNetwork::from(pod(n, 1, v6)), via: via(n, e) });
        }
        if e.one_in(4) {
            routes.push(Route { prefix: everything(v6), via: via(2, e) });
        }
        if e.one_in(6) {
            routes.push(Route { prefix: subnet(3, v6), via: via(3, e) });
        }
    }
    if e.one_in(4) {
        routes.push(Route { prefix: IpNetwork::from(outer(2, false)), via: via(2, e) });
    }
    for v6 in [false, true] {
        for g in 1..=GATEWAYS {
            routes.push(Route { prefix: link(g, v6), via: Via::Gateway([hop(g, None)].into()) });
        }
        routes.push(Route { prefix: far(v6), via: by_routers(v6, e) });
        if e.one_in(8) {
            // One that holds everything else.
            routes.push(Route { prefix: everything(v6), via: by_routers(v6, e) });
        }
    }
    routes
}

/// A network behind routers on the links of gateway interfaces.
fn far(v6: bool) -> IpNetwork {
    if v6 { prefix(beyond(0, true), 64) } else { prefix(beyond(0, false), 24) }
}

/// Host `i` there.
pub fn beyond(i: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd72, 20, 0, 0, 0, 0, 0, i.into()).into()
    } else {
        Ipv4Addr::new(172, 20, 0, i).into()
    }
}

/// By any of some routers, or by none.
fn by_routers(v6: bool, e: &mut Entropy<'_>) -> Via {
    let mut hops = Vec::new();
    for (g, i) in [(1, 2), (1, 3), (2, 2), (GATEWAYS + 1, 2)] {
        if !e.one_in(3) {
            let weight = NonZeroU16::MIN.saturating_add(e.pick(&[0, 0, 0, 1, 255]));
            hops.push(Hop { weight, ..hop(g, Some(behind(g, i, v6))) });
        }
    }
    Via::Gateway(hops.into())
}

fn gateways(e: &mut Entropy<'_>) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for g in 1..=GATEWAYS {
        if e.one_in(6) {
            continue;
        }
        let mut gateway = gateway(g, e.pick(&[1500, 1500, 1500, 1280, 576, 68]));
        gateway.sources.extend([far(false), far(true)]);
        match e.below(10) {
            6 => gateway.ifindex = None,
            7 => gateway.sources.push(everything(e.one_in(2))),
            8 => gateway.sources.truncate(1),
            9 => (gateway.address_v4, gateway.address_v6) = (None, None),
            _ => {}
        }
        gateways.push(gateway);
    }
    gateways
}

fn direct_sources(e: &mut Entropy<'_>) -> Vec<IpNetwork> {
    let mut sources = Vec::new();
    for n in 1..=NODES {
        for v6 in [false, true] {
            if !e.one_in(3) {
                sources.push(subnet(n, v6));
            }
        }
    }
    if e.one_in(8) {
        sources.push(everything(false));
    }
    sources
}
