//! From what the datastore and the host say to what the dataplane shall do: a pure function.
//!
//! ```text
//!  State ─────► claims ──► peers ──► vteps, routes ─┐
//!  NodeFacts ─►   who holds which addresses         ├──► NodeSpec ──► tables
//!   │     └────► endpoints, host_endpoints, gateways ┤       └───────► Desired (canal0), EdgePlan
//!   └──► calico (change by change) ─► calico_network ┘
//! ```
//! The same values give the same result, in whatever order they were learnt. Where two values contradict each other
//! one wins by a rule that every node applies alike, the other one's addresses are dropped rather than guessed, and
//! a [`Complaint`] says so.

mod attached;
pub mod calico;
mod calico_network;
mod claims;
mod endpoints;
mod gateways;
mod host_endpoints;
mod known;
mod outward;
mod peers;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use canal_dataplane::spec::policy::Failsafes;
use canal_dataplane::spec::{LocalVtep, NodeSpec, Settings, Vxlan};
use ipnetwork::IpNetwork;

pub use outward::{desired, edge_plan};

use crate::felix::Values;
use crate::flannel::identity::Identity;
use crate::host::select::External;
use crate::host::view::{Address, HostView, Scope};
use crate::model::calico::kind::Kind;
use crate::model::calico::resources::{EncapMode, IpPool};
use crate::model::flannel::mtu::{MtuTooSmall, Underlay, overlay_mtu};
use crate::model::flannel::{Backend, NetworkConfig, Subnets};
use crate::state::{Complaint, State};
use attached::{Attached, Taken};
pub use gateways::missing_gateways;
use known::Known;

/// What this node knows besides the datastore.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts<'a> {
    /// The network config in force: the one the node joined with, whatever has been written since.
    pub config: &'a NetworkConfig,
    /// What its backend asks for.
    pub backend: &'a Backend,
    /// The interface that carries the overlay.
    pub external: &'a External,
    /// The subnets this node holds.
    pub subnets: Subnets,
    /// Our tunnel end points' addresses.
    pub identity: Identity,
    /// Links and addresses of the host.
    pub host: &'a Arc<HostView>,
    /// Those among the peers' addresses that are on the external interface's link: no gateway in between. Needed with
    /// host-gw and DirectRouting only.
    pub on_link: &'a BTreeSet<IpAddr>,
    /// Name of our own device.
    pub device: &'a str,
    /// Names of the interfaces with plain hosts behind them.
    pub gateways: &'a [String],
    /// How packets are treated, as the operator wants it.
    pub settings: Settings,
    /// Felix's settings, which go before those.
    pub felix: &'a Values,
}

/// What may pass between workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Everything.
    Open,
    /// What Calico's resources say. A workload that they have no word about is denied everything.
    Enforced,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the dataplane shall do.
    pub spec: NodeSpec,
    /// What could not be used, sorted.
    pub complaints: Vec<Complaint>,
    /// Gateway interfaces that were asked for and are none, a sentence each.
    pub gateway_trouble: Vec<String>,
    /// Keys of leases that lost against newer ones. They need not be saved: without revisions nobody could tell.
    pub superseded: BTreeSet<String>,
}

impl NodeFacts<'_> {
    /// Our IPv4 tunnel address, `x.y.z.0`; none without tunnel and without routes of ours.
    pub fn tunnel_v4(&self) -> Option<Ipv4Addr> {
        (*self.backend != Backend::Alloc && self.config.v4.is_some()).then(|| self.subnets.v4.network())
    }

    /// Our IPv6 tunnel address, the base of the subnet.
    pub fn tunnel_v6(&self) -> Option<Ipv6Addr> {
        let used = *self.backend != Backend::Alloc && self.config.v6.is_some();
        self.subnets.v6.filter(|_| used).map(|subnet| subnet.network())
    }

    /// Largest packet for pods and for our device, bytes: what fits whichever family carries it.
    pub fn mtu(&self) -> Result<u32, MtuTooSmall> {
        pod_mtu(self.config, self.backend, self.external.mtu)
    }

    /// Own subnets, IPv4 first; without host bits.
    pub fn own_subnets(&self) -> Vec<IpNetwork> {
        let v4 = self.config.v4.map(|_| masked(self.subnets.v4.into()));
        let v6 = self.config.v6.and(self.subnets.v6).map(|net| masked(net.into()));
        v4.into_iter().chain(v6).collect()
    }

    /// The overlay's networks, IPv4 first; without host bits.
    fn overlay_networks(&self) -> Vec<IpNetwork> {
        let v4 = self.config.v4.map(|pool| masked(pool.network.into()));
        let v6 = self.config.v6.map(|pool| masked(pool.network.into()));
        v4.into_iter().chain(v6).collect()
    }

    /// Every address by which this host can be meant: its own global ones, the tunnel's, the external interface's.
    fn host_addresses(&self) -> BTreeSet<IpAddr> {
        let tunnel = [self.tunnel_v4().map(IpAddr::from), self.tunnel_v6().map(IpAddr::from)];
        let external = [self.external.v4.map(IpAddr::from), self.external.v6.map(IpAddr::from)];
        let device = self.host.link_by_name(self.device).map(|link| link.index);
        let global = |address: &&Address| {
            address.scope == Scope::Global
                && !address.is_link_local()
                && !address.has(Address::DUPLICATE)
                && !address.net.ip().is_loopback()
                // Ours are counted already; others on our device are on their way out.
                && Some(address.ifindex) != device
        };
        let others = self.host.addresses.iter().filter(global).map(|address| address.net.ip());
        tunnel.into_iter().chain(external).flatten().chain(others).collect()
    }
}

/// What pods may send on a network with this config over an interface with this MTU, bytes: the least of the
/// families in use, because one device and one `FLANNEL_MTU` serve both.
///
/// # Errors
/// [`MtuTooSmall`].
pub fn pod_mtu(config: &NetworkConfig, backend: &Backend, interface_mtu: u32) -> Result<u32, MtuTooSmall> {
    let family = if config.v6.is_some() { Underlay::V6 } else { Underlay::V4 };
    overlay_mtu(backend, interface_mtu, family)
}

/// Everything the dataplane shall do on this node. `resolution` is what Calico's resources mean, be it enforced or not.
pub fn resolve(
    state: &State,
    node: &NodeFacts<'_>,
    resolution: &calico::Resolution,
    policy: Policy,
) -> Resolved {
    Resolver::default().resolve(state, node, resolution, policy)
}

/// [`resolve`] again and again: what has not changed since the last time is not worked out anew, and is the same in memory.
#[derive(Debug, Default)]
pub struct Resolver {
    peers: Option<Known>,
    workloads: Option<Attached>,
}

impl Resolver {
    /// As [`resolve`].
    pub fn resolve(
        &mut self,
        state: &State,
        node: &NodeFacts<'_>,
        resolution: &calico::Resolution,
        policy: Policy,
    ) -> Resolved {
        let mut complaints: Vec<Complaint> = state.complaints().cloned().collect();
        let host_addresses = node.host_addresses();

        let peers = Known::refreshed(&mut self.peers, state, node, &host_addresses);
        complaints.extend_from_slice(&peers.complaints);
        let taken = Taken { host_addresses: &host_addresses, peers: &peers.addresses };
        let policies = (policy == Policy::Enforced).then_some(&resolution.workloads);
        let workloads = Attached::refreshed(&mut self.workloads, state, node, policies, taken);
        complaints.extend_from_slice(&workloads.complaints);
        let (sets, host_endpoints) = match policy {
            Policy::Open => (Vec::new(), Vec::new()),
            Policy::Enforced => {
                complaints.extend(resolution.complaints());
                let hosts = host_endpoints::host_endpoints(resolution, node, &mut complaints);
                (resolution.sets.values().cloned().collect(), hosts)
            }
        };
        complaints.extend(foreign_overlays(state));

        let mut routes = peers.routes.clone();
        let (workloads, announced) = (&workloads.endpoints, &peers.announced);
        let gateways = gateways::gateways(node, workloads, &routes, announced, &mut complaints);
        if !gateways.routes.is_empty() {
            let own: BTreeSet<IpNetwork> = gateways.routes.iter().map(|route| route.prefix).collect();
            routes.retain(|route| !own.contains(&route.prefix));
            routes.extend(gateways.routes);
            routes.sort_unstable();
        }
        let spec = NodeSpec {
            revision: u64::try_from(state.revision()).unwrap_or(0),
            settings: node.felix.over(node.settings),
            vxlan: vxlan(node, &mut complaints),
            host_addresses: host_addresses.into_iter().collect(),
            gateway_v4: node.tunnel_v4().or(node.external.v4),
            gateway_v6: node.tunnel_v6().or(node.external.v6),
            endpoints: workloads.clone(),
            vteps: peers.vteps.clone(),
            gateways: gateways.gateways,
            routes,
            direct_sources: peers.direct_sources.clone(),
            sets,
            failsafes: match host_endpoints.is_empty() {
                true => Failsafes::default(),
                false => node.felix.failsafes.clone(),
            },
            host_endpoints,
            calico: calico_network::calico_network(resolution, state.nodename(), node),
        };
        complaints.sort_unstable();
        complaints.dedup();
        let superseded = peers.superseded.clone();
        Resolved { spec, complaints, gateway_trouble: gateways.trouble, superseded }
    }
}

/// Pools whose packets Calico would carry.
fn foreign_overlays(state: &State) -> impl Iterator<Item = Complaint> {
    let encapsulated = |pool: &IpPool| pool.vxlan != EncapMode::Never || pool.ipip != EncapMode::Never;
    let pools = state.calico().pools().iter().filter(move |(_, pool)| !pool.disabled && encapsulated(pool));
    pools.map(|(name, _)| {
        let key = format!("{}{name}", Kind::IpPool.prefix());
        Complaint::new(
            key,
            "its encapsulation is not used: packets between nodes go as flannel's network says",
        )
    })
}

fn vxlan(node: &NodeFacts<'_>, complaints: &mut Vec<Complaint>) -> Option<Vxlan> {
    let Backend::Vxlan(options) = node.backend else { return None };
    let mut mtu = |family| match overlay_mtu(node.backend, node.external.mtu, family) {
        Ok(mtu) => Some(saturate(mtu)),
        Err(error) => {
            complaints.push(Complaint::new(&node.external.name, error));
            None
        }
    };
    let v4 = node.config.v4.and(node.external.v4).and_then(|address| {
        Some(LocalVtep { address, mac: node.identity.vtep_mac, mtu: mtu(Underlay::V4)? })
    });
    let v6 = node.config.v6.and(node.external.v6).and_then(|address| {
        Some(LocalVtep { address, mac: node.identity.vtep_v6_mac, mtu: mtu(Underlay::V6)? })
    });
    Some(Vxlan { vni: options.vni, port: options.port, v4, v6 })
}

/// An MTU as the dataplane counts: no IP packet is larger.
fn saturate(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

/// Without host bits.
fn masked(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

#[cfg(test)]
mod tests;
