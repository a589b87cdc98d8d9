//! Gateway interfaces: plain hosts behind them reach the overlay, and are reached, by the kernel's own routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use canal_dataplane::spec::{Endpoint, Gateway, Hop, Route, Via};
use canal_dataplane::verdict::DropReason;
use ipnetwork::IpNetwork;

use super::{NodeFacts, saturate};
use crate::host::view::{Address, HostRoute, HostView, Link, Scope};
use crate::state::Complaint;

/// What the dataplane needs to know of gateways.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// Sorted by name.
    pub(super) gateways: Vec<Gateway>,
    /// To what is behind them, and guards in front of what is not. Unsorted.
    pub(super) routes: Vec<Route>,
    /// Why an interface that was asked for is none.
    pub(super) trouble: Vec<String>,
}

/// What is behind gateway interfaces is what the main table's routes through them lead to: networks of addresses, and
/// whatever else there is but default routes. It never is what lies in the overlay's networks, nor what another node has
/// (`taken`), unless that is behind a gateway there, too (`announced`): the own way is the nearer one.
pub(super) fn gateways(
    node: &NodeFacts<'_>,
    endpoints: &[Endpoint],
    taken: &[Route],
    announced: &BTreeSet<IpNetwork>,
    complaints: &mut Vec<Complaint>,
) -> Gateways {
    let mut all = Gateways::default();
    let names: BTreeSet<&str> = node.gateways.iter().map(String::as_str).collect();
    let mut links: BTreeMap<u32, Arc<str>> = BTreeMap::new();
    for name in names {
        match usable(name, node, endpoints) {
            Ok(link) => {
                let gateway = gateway(name, link, node);
                links.insert(link.index, Arc::clone(&gateway.name));
                all.gateways.push(gateway);
            }
            Err(why) => {
                // There shall be no hole where it was: what routes of others lead there is dropped with a reason.
                let sources = Vec::new();
                let (name, why) = (Arc::from(name), why.to_string());
                all.gateways.push(Gateway {
                    name,
                    ifindex: None,
                    mtu: 0,
                    address_v4: None,
                    address_v6: None,
                    sources,
                });
                all.trouble.push(why);
            }
        }
    }
    if links.is_empty() {
        return all;
    }
    let taken: BTreeSet<IpNetwork> = taken.iter().map(|route| route.prefix).collect();
    let overlay = node.overlay_networks();
    for routes in node.host.routes.chunk_by(|a, b| a.dst == b.dst) {
        let prefix = routes[0].dst;
        if !is_reachable(prefix) {
            continue;
        }
        let mut complain = |why: &str| {
            let by = routes.iter().find_map(|route| links.get(&route.ifindex));
            if let Some(name) = by {
                complaints.push(Complaint::new(&**name, format!("{prefix} {why}")));
            }
        };
        if overlay.iter().any(|network| contains(*network, prefix)) {
            complain("lies in the overlay's network; not taken as behind the gateway");
            continue;
        }
        if announced.contains(&prefix) {
            complain("is behind a gateway of another node, too; the own way goes first");
        } else if taken.contains(&prefix) {
            complain("is another node's; not taken as behind the gateway");
            continue;
        }
        let hops = hops(routes, &links);
        if !hops.is_empty() {
            all.routes.push(Route { prefix, via: Via::Gateway(hops.into()) });
        }
        for gateway in &mut all.gateways {
            if routes.iter().any(|route| links.get(&route.ifindex) == Some(&gateway.name)) {
                gateway.sources.push(prefix);
            }
        }
    }
    guard(node, &taken, &mut all.routes);
    all
}

/// What is missing of these interfaces, which needs no network to be seen: a sentence for each.
pub fn missing_gateways<'a>(names: &'a [String], host: &'a HostView) -> impl Iterator<Item = String> + 'a {
    names.iter().filter_map(|name| existing(name, host).err()).map(|why| why.to_string())
}

fn existing<'a>(name: &str, host: &'a HostView) -> Result<&'a Link, NotOne> {
    host.link_by_name(name).ok_or_else(|| NotOne::Missing(name.to_owned()))
}

/// The link, if plain packets may be taken from it.
fn usable<'a>(name: &str, node: &NodeFacts<'a>, endpoints: &[Endpoint]) -> Result<&'a Link, NotOne> {
    let link = existing(name, node.host)?;
    let workload = endpoints.iter().find(|endpoint| endpoint.ifindex == Some(link.index));
    match workload {
        _ if link.index == node.external.ifindex => Err(NotOne::Underlay(name.to_owned())),
        _ if link.loopback || name == node.device => Err(NotOne::Own(name.to_owned())),
        Some(endpoint) => Err(NotOne::Workload(name.to_owned(), endpoint.name.clone())),
        None => Ok(link),
    }
}

/// Why an interface is no gateway.
#[derive(Debug, thiserror::Error)]
enum NotOne {
    #[error("the gateway interface {0} does not exist")]
    Missing(String),
    #[error("the gateway interface {0} carries the overlay; it cannot be both")]
    Underlay(String),
    #[error("the gateway interface {0} is the host's own device")]
    Own(String),
    #[error("the gateway interface {0} is that of the workload {1}")]
    Workload(String, String),
}

fn gateway(name: &str, link: &Link, node: &NodeFacts<'_>) -> Gateway {
    let of_host = |address: &&Address| address.scope == Scope::Global && !address.is_link_local();
    let addresses: Vec<IpAddr> =
        node.host.addresses_of(link.index).filter(of_host).map(|address| address.net.ip()).collect();
    let v4 = |address: &IpAddr| if let IpAddr::V4(address) = address { Some(*address) } else { None };
    let v6 = |address: &IpAddr| if let IpAddr::V6(address) = address { Some(*address) } else { None };
    Gateway {
        name: name.into(),
        ifindex: Some(link.index),
        mtu: saturate(link.mtu),
        address_v4: addresses.iter().find_map(v4),
        address_v6: addresses.iter().find_map(v6),
        sources: Vec::new(),
    }
}

/// The ways of the best metric that lead through gateways; none if the kernel prefers others. Sorted, each once, with all of
/// the weight that it has.
fn hops(routes: &[HostRoute], links: &BTreeMap<u32, Arc<str>>) -> Vec<Hop> {
    let best = routes.iter().map(|route| route.metric).min();
    let mut hops = BTreeMap::<(Arc<str>, Option<IpAddr>), NonZeroU16>::new();
    for route in routes.iter().filter(|route| Some(route.metric) == best) {
        let Some(interface) = links.get(&route.ifindex) else { continue };
        hops.entry((Arc::clone(interface), route.gateway))
            .and_modify(|weight| *weight = weight.saturating_add(route.weight.get()))
            .or_insert(route.weight);
    }
    let hop = |((interface, next_hop), weight)| Hop { interface, next_hop, weight };
    hops.into_iter().map(hop).collect()
}

/// Inside of a wide prefix behind a gateway there may be networks that the host reaches elsewhere, the overlay's own first
/// of all: what no longer route leads to is not sent out of the gateway by mistake.
fn guard(node: &NodeFacts<'_>, taken: &BTreeSet<IpNetwork>, routes: &mut Vec<Route>) {
    let behind: BTreeSet<IpNetwork> = routes.iter().map(|route| route.prefix).collect();
    let elsewhere = node.host.routes.iter().map(|route| route.dst).chain(node.overlay_networks());
    let guards: BTreeSet<IpNetwork> = elsewhere
        .filter(|prefix| !behind.contains(prefix) && !taken.contains(prefix))
        .filter(|prefix| behind.iter().any(|wide| contains(*wide, *prefix)))
        .collect();
    routes.extend(guards.into_iter().map(|prefix| Route { prefix, via: Via::Drop(DropReason::NoRoute) }));
}

/// Is all of `inner` in `outer`?
fn contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}

/// Default routes are how the host reaches the world, not what is behind one of its interfaces; link-local and multicast
/// destinations are never routed.
fn is_reachable(prefix: IpNetwork) -> bool {
    let address = prefix.ip();
    let local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_multicast() || a.is_loopback() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.is_multicast() || a.is_loopback(),
    };
    prefix.prefix() > 0 && !local
}
