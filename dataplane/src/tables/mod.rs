//! What workers read: one immutable value, replaced whole.

mod adjacency;
mod calico;
mod compile;
mod lpm;
mod path_mtu;
mod peers;
pub mod policy;
mod publish;
mod residents;
mod spread;
mod ways;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

pub use adjacency::{Adjacency, Kind, TemplateV4, TemplateV6};
pub use calico::{CalicoEntry, CalicoTables};
pub use compile::compile;
pub use lpm::Lpm;
pub use path_mtu::PathMtu;
pub use policy::Policy;
pub use publish::{Publisher, Reader};
pub use residents::Residents;
pub use spread::{Spread, cost, name};

use crate::net::Mac;
use crate::port::IfIndex;
use crate::spec::policy::Established;
use crate::spec::{Settings, Vxlan};
use ways::Ways;

/// Index of the adjacency that every table has: the host's IP stack.
pub const HOST: u32 = 0;

/// No limit to the length of packets but that of IP itself.
const UNLIMITED: u16 = u16::MAX;

/// Everything a worker needs to know about the world, at one generation.
#[derive(Debug)]
pub struct Tables {
    /// Grows by one with every publication; 0 = nothing was ever published.
    pub generation: u64,
    /// Datastore revision it was made from.
    pub revision: u64,
    /// False in the tables that drop everything.
    pub ready: bool,
    /// How packets are treated.
    pub settings: Settings,
    /// Our side of the overlay.
    pub vxlan: Option<Vxlan>,
    /// Source of ICMP errors.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Source of ICMPv6 errors.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Local workloads.
    pub endpoints: Arc<[Endpoint]>,
    /// Who has which of their addresses, from generation to generation.
    pub residents: Residents,
    /// Remote tunnel end points.
    pub vteps: Arc<[Vtep]>,
    /// Interfaces with plain hosts behind them.
    pub gateways: Vec<Gateway>,
    /// Next hops; [`HOST`] first.
    pub adjacencies: Arc<[Adjacency]>,
    ways: Arc<Ways>,
    by_gateway: HashMap<IfIndex, u32, FixedState>,
    direct_sources: Networks,
    /// Who may talk to whom.
    pub policy: Policy,
    /// Calico's own routes and tunnel ends; the same value as long as they stay as they are. Nothing is forwarded by them.
    pub calico: Arc<CalicoTables>,
}

/// A local workload.
#[derive(Debug)]
pub struct Endpoint {
    /// For humans.
    pub name: String,
    /// The same number in every generation while name and networks are the same; never anybody else's.
    pub serial: u32,
    /// Addresses it may use.
    pub networks: Networks,
    /// How packets reach it.
    pub adjacency: u32,
}

/// A remote tunnel end point.
#[derive(Debug)]
pub struct Vtep {
    /// Outer address.
    pub outer: IpAddr,
    /// Inner Ethernet address.
    pub mac: Mac,
    /// Inner sources it may use.
    pub owns: Networks,
    /// How packets reach it.
    pub adjacency: u32,
}

/// An interface with plain hosts behind it.
#[derive(Debug)]
pub struct Gateway {
    /// Its name.
    pub name: Arc<str>,
    /// Its index; `None` while it does not exist.
    pub ifindex: Option<IfIndex>,
    /// Addresses that may come in by it.
    pub sources: Networks,
    /// Source of ICMP errors to hosts behind it.
    pub address_v4: Option<Ipv4Addr>,
    /// Source of ICMPv6 errors to hosts behind it.
    pub address_v6: Option<Ipv6Addr>,
    /// The host endpoint (its index in the policy) that judges what is forwarded by it.
    pub host_endpoint: Option<u32>,
}

/// A short list of networks, split by family and made for asking "is this address in it?".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// From prefixes; host bits are masked off.
    pub fn new(prefixes: &[IpNetwork]) -> Self {
        let mut networks = Self::default();
        for prefix in prefixes {
            match prefix {
                IpNetwork::V4(n) => networks.v4.push((n.network().to_bits(), n.mask().to_bits())),
                IpNetwork::V6(n) => networks.v6.push((n.network().to_bits(), n.mask().to_bits())),
            }
        }
        networks
    }

    /// Does any of them contain this IPv4 address? An empty list contains nothing.
    #[inline]
    pub fn contains_v4(&self, address: u32) -> bool {
        self.v4.iter().any(|(network, mask)| address & mask == *network)
    }

    /// Does any of them contain this IPv6 address?
    #[inline]
    pub fn contains_v6(&self, address: u128) -> bool {
        self.v6.iter().any(|(network, mask)| address & mask == *network)
    }

    /// Does any of them contain `address`?
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.contains_v4(a.to_bits()),
            IpAddr::V6(a) => self.contains_v6(a.to_bits()),
        }
    }
}

impl Tables {
    /// Tables before the first complete picture: everything is dropped with `NotReady`.
    pub fn closed() -> Self {
        let mut tables = compile(&crate::spec::NodeSpec::default(), None, 0);
        tables.ready = false;
        tables
    }

    /// The workload behind a host-side interface.
    #[inline]
    pub fn endpoint_at(&self, ifindex: IfIndex) -> Option<u32> {
        self.ways.by_ifindex.get(&ifindex).copied()
    }

    /// The gateway interface of that index.
    #[inline]
    pub fn gateway_at(&self, ifindex: IfIndex) -> Option<u32> {
        self.by_gateway.get(&ifindex).copied()
    }

    /// The VTEP at an outer address.
    #[inline]
    pub fn vtep_at(&self, outer: IpAddr) -> Option<u32> {
        self.ways.peers.vtep_at(outer)
    }

    /// The VTEP at an outer IPv4 address.
    #[inline]
    pub fn vtep_at_v4(&self, outer: u32) -> Option<u32> {
        self.ways.peers.by_outer_v4.get(&outer).copied()
    }

    /// The adjacency that a connection (by its keyed hash) goes by, where a route leads to `adjacency`: itself, unless it
    /// stands for several ways.
    #[inline]
    pub fn resolve(&self, adjacency: u32, connection: u64) -> u32 {
        match &self.adjacencies[adjacency as usize].kind {
            Kind::Spread(spread) => spread.pick(connection).unwrap_or(adjacency),
            _ => adjacency,
        }
    }

    /// The adjacency that a route leads to, for an IPv4 destination.
    #[inline]
    pub fn route_v4(&self, destination: u32) -> Option<u32> {
        self.ways.routes.lookup_v4(destination)
    }

    /// The adjacency that a route leads to, for an IPv6 destination.
    #[inline]
    pub fn route_v6(&self, destination: u128) -> Option<u32> {
        self.ways.routes.lookup_v6(destination)
    }

    /// The adjacency that a route leads to, for a destination.
    pub fn route(&self, destination: IpAddr) -> Option<u32> {
        self.ways.routes.lookup(destination)
    }

    /// Since which generation every way, and who lives at its end, is as it is now.
    #[inline]
    pub fn ways_since(&self) -> u64 {
        self.ways.since
    }

    /// Since which generation what was decided of an answered connection holds: a change of policy does not alter its way,
    /// and may it go on by [`Established::Keep`], it is not judged again either.
    #[inline]
    pub fn decisions_since(&self) -> u64 {
        match self.settings.established {
            Established::Keep => self.ways.since,
            Established::Revalidate => self.generation,
        }
    }

    /// May a peer send packets of this source without encapsulation?
    pub fn direct_source(&self, source: IpAddr) -> bool {
        self.direct_sources.contains(source)
    }
}
