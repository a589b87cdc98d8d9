//! From claims to tunnel end points and routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use canal_dataplane::net::Mac;
use canal_dataplane::spec::{Route, Via, Vtep};
use canal_dataplane::verdict::DropReason;
use ipnetwork::IpNetwork;

use super::claims::{Claim, host_route};
use super::{NodeFacts, saturate};
use crate::model::flannel::{Backend, LeaseValue};
use crate::state::Complaint;

/// What the dataplane needs to know of other nodes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Sorted by outer address.
    pub(super) vteps: Vec<Vtep>,
    /// Unsorted.
    pub(super) routes: Vec<Route>,
    /// Sorted.
    pub(super) direct_sources: Vec<IpNetwork>,
    /// Networks behind other nodes' gateways.
    pub(super) announced: BTreeSet<IpNetwork>,
    /// The nodes' own addresses that have a route: no workload here may have them.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Every claim becomes a route; where its packets cannot go, one that drops them with a reason.
pub(super) fn peers(claims: &[Claim<'_>], node: &NodeFacts<'_>, complaints: &mut Vec<Complaint>) -> Peers {
    let mut peers = Peers::default();
    if *node.backend == Backend::Alloc {
        return peers;
    }
    for claim in claims {
        let reached = claim.value.zip(claim.outer).and_then(|(value, outer)| {
            way(value, outer, node)
                .map_err(|why| {
                    let sentence = format!("{why}; packets for its subnet are dropped");
                    complaints.push(Complaint::new(claim.key, sentence));
                })
                .ok()
                .map(|way| (outer, way))
        });
        let Some((outer, way)) = reached else {
            if claim.value.is_some() && claim.outer.is_none() && claim.subnet.is_ipv6() {
                complaints
                    .push(Complaint::new(claim.key, "no usable PublicIPv6; its IPv6 subnet is not reached"));
            }
            for prefix in std::iter::once(&claim.subnet).chain(&claim.further) {
                peers.routes.push(Route { prefix: *prefix, via: Via::Drop(DropReason::UnresolvedVtep) });
            }
            continue;
        };
        if way.mac == Some(own_mac(node, outer)) {
            let sentence =
                "it has our own VTEP address, so that it may drop what we send: was this machine cloned?";
            complaints.push(Complaint::new(claim.key, sentence));
        }
        if way.off_link {
            let sentence =
                format!("{outer} is not on the link of {}, as host-gw needs it", node.external.name);
            complaints.push(Complaint::new(claim.key, sentence));
        }
        let mut owns = vec![claim.subnet, host_route(outer)];
        owns.extend(&claim.further);
        owns.sort_unstable();
        peers.announced.extend(&claim.further);
        peers.routes.extend(owns.iter().map(|prefix| Route { prefix: *prefix, via: way.via.clone() }));
        peers.direct_sources.extend(&owns);
        peers.addresses.insert(outer);
        if let Some(mac) = way.mac {
            peers.vteps.push(Vtep { outer, mac, owns });
        }
    }
    peers.vteps.sort_unstable_by_key(|vtep| vtep.outer);
    peers.direct_sources.sort_unstable();
    peers
}

/// How a node is reached.
struct Way {
    via: Via,
    /// Of its tunnel end point, with which it may send to us whatever we do. `None` without tunnels.
    mac: Option<Mac>,
    off_link: bool,
}

/// Why a node cannot be reached.
#[derive(Debug, thiserror::Error)]
enum NoWay {
    #[error("its backend is {0:?}, ours is {1:?}")]
    OtherBackend(String, &'static str),
    #[error("{0}")]
    Data(#[from] crate::model::flannel::LeaseValueError),
    #[error("it published no tunnel end point for {0}")]
    NoData(&'static str),
}

fn way(value: &LeaseValue, outer: IpAddr, node: &NodeFacts<'_>) -> Result<Way, NoWay> {
    let ours = node.backend.lease_type();
    if value.backend_type != ours {
        return Err(NoWay::OtherBackend(value.backend_type.clone(), ours));
    }
    let on_link = node.on_link.contains(&outer);
    let direct = Via::Direct { next_hop: outer, mtu: saturate(node.external.mtu) };
    let Backend::Vxlan(options) = node.backend else {
        return Ok(Way { via: direct, mac: None, off_link: !on_link });
    };
    let (data, family) = if outer.is_ipv4() { (value.vxlan()?, "IPv4") } else { (value.vxlan_v6()?, "IPv6") };
    let data = data.ok_or(NoWay::NoData(family))?;
    let via = if options.direct_routing && on_link { direct } else { Via::Vtep(outer) };
    Ok(Way { via, mac: Some(data.vtep_mac), off_link: false })
}

fn own_mac(node: &NodeFacts<'_>, outer: IpAddr) -> Mac {
    if outer.is_ipv4() { node.identity.vtep_mac } else { node.identity.vtep_v6_mac }
}
