//! What the control side wants of the dataplane, in dataplane terms: plain, sorted, comparable values.
//!
//! A [`NodeSpec`] says everything; [`crate::tables::compile`] turns it into the tables that workers read, and
//! the slow evaluator in [`crate::reference`] reads it as it stands.

pub mod calico;
pub mod policy;
mod shared;
mod timeouts;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use self::calico::CalicoNetwork;
use self::policy::{EndpointPolicy, EndpointToHost, Established, Failsafes, HostEndpoint, IpSet};

pub use self::shared::Shared;
pub use self::timeouts::Timeouts;
use crate::net::{Mac, Vni};
use crate::port::IfIndex;
use crate::verdict::DropReason;

/// Desired state of one node's dataplane.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeSpec {
    /// Revision of the datastore this was resolved from.
    pub revision: u64,
    /// How packets are treated, whoever sends them.
    pub settings: Settings,
    /// Our side of the overlay; `None` = no encapsulation (`alloc`, `host-gw`, or no lease yet).
    pub vxlan: Option<Vxlan>,
    /// Addresses that are this host's own: packets to them go to its IP stack. The tunnel addresses are among them.
    pub host_addresses: Vec<IpAddr>,
    /// Source addresses of ICMP errors, one a family: the node's tunnel addresses.
    pub gateway_v4: Option<Ipv4Addr>,
    /// See [`Self::gateway_v4`].
    pub gateway_v6: Option<Ipv6Addr>,
    /// Local workloads, sorted by name.
    pub endpoints: Shared<Vec<Endpoint>>,
    /// Remote tunnel end points, sorted by outer address.
    pub vteps: Shared<Vec<Vtep>>,
    /// Interfaces with plain hosts behind them, sorted by name.
    pub gateways: Vec<Gateway>,
    /// Where destinations are; the longest prefix wins. Sorted by prefix. Host addresses and endpoints' addresses
    /// are routes by themselves and need none here.
    pub routes: Shared<Vec<Route>>,
    /// Networks whose plain packets a peer with direct routing may send us, with their owner's prefixes being the
    /// routes above. Sorted.
    pub direct_sources: Shared<Vec<IpNetwork>>,
    /// Every set that a rule of this spec names, sorted by id. A rule that names one that is missing never matches.
    pub sets: Vec<Arc<IpSet>>,
    /// The host's own interfaces, sorted by name.
    pub host_endpoints: Vec<HostEndpoint>,
    /// What host endpoints leave open.
    pub failsafes: Failsafes,
    /// Calico's own routes and tunnel ends: compiled, and not forwarded by.
    pub calico: CalicoNetwork,
}

impl NodeSpec {
    /// Index of the host endpoint that stands for an interface: its own one, or the one for all that have none.
    pub fn host_endpoint_of(&self, interface: &str) -> Option<usize> {
        let stands = |of: Option<&str>| {
            self.host_endpoints.iter().position(|endpoint| endpoint.interface.as_deref() == of)
        };
        stands(Some(interface)).or_else(|| stands(None))
    }
}

/// Behaviour of the whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Outer IPv4 header says "don't fragment". flannel's kernel peers leave it clear.
    pub outer_df: bool,
    /// Outer TTL / hop limit.
    pub outer_ttl: u8,
    /// DSCP treatment (RFC 2983).
    pub dscp: DscpMode,
    /// Let workloads speak VXLAN themselves (Calico's allowVXLANPacketsFromWorkloads).
    pub allow_vxlan_from_workloads: bool,
    /// Let workloads speak IP-in-IP themselves (Calico's allowIPIPPacketsFromWorkloads).
    pub allow_ipip_from_workloads: bool,
    /// Send a UDP checksum over IPv4, too. Zero is legal there (RFC 7348 §5) and spares summing.
    pub outer_checksum_v4: bool,
    /// Packets from workloads to this host, once egress policy has let them pass.
    pub endpoint_to_host: EndpointToHost,
    /// What a change of policy means for answered connections.
    pub established: Established,
    /// Take up TCP and SCTP connections in their middle whenever policy would let one of their ends open them
    /// (`nf_conntrack_tcp_loose` of the kernel, which has it on). Off: a segment that is not an opening opens nothing, so
    /// that ports cannot be scanned with bare acknowledgements; connections from before a start of the daemon are taken up
    /// for a while all the same, see `WorkerConfig::pickup_ms`.
    pub tcp_loose: bool,
    /// How long idle connections are remembered.
    pub timeouts: Timeouts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            outer_df: false,
            outer_ttl: 64,
            dscp: DscpMode::Pipe,
            allow_vxlan_from_workloads: false,
            allow_ipip_from_workloads: false,
            outer_checksum_v4: false,
            endpoint_to_host: EndpointToHost::default(),
            established: Established::default(),
            tcp_loose: false,
            timeouts: Timeouts::default(),
        }
    }
}

/// RFC 2983 §3: what happens to the six DSCP bits at the ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DscpMode {
    /// Outer DSCP is 0, inner is left alone: what kernel VXLAN devices of flannel do.
    #[default]
    Pipe,
    /// Copied inward to outward and back.
    Uniform,
}

/// Our own tunnel end point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The overlay's identifier; anything else is dropped.
    pub vni: Vni,
    /// UDP destination port, ours and our peers'.
    pub port: u16,
    /// Over IPv4, if there is an IPv4 underlay.
    pub v4: Option<LocalVtep<Ipv4Addr>>,
    /// Over IPv6, if there is an IPv6 underlay.
    pub v6: Option<LocalVtep<Ipv6Addr>>,
}

/// Our tunnel end point in one family of the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVtep<A> {
    /// Outer source address.
    pub address: A,
    /// Inner destination address of what is meant for us; published in our lease.
    pub mac: Mac,
    /// Largest inner IP packet: underlay MTU less 50 (IPv4) or 70 (IPv6).
    pub mtu: u16,
}

/// A workload of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `namespace/name` of the workload endpoint; for humans.
    pub name: String,
    /// Host-side interface, for humans.
    pub interface: String,
    /// Its index; `None` while the interface does not exist.
    pub ifindex: Option<IfIndex>,
    /// The workload's own Ethernet address; `None` when the datastore does not say.
    pub mac: Option<Mac>,
    /// The addresses it may use, and is reached at. Sorted.
    pub networks: Vec<IpNetwork>,
    /// Largest IP packet the interface takes.
    pub mtu: u16,
    /// Who may talk to it, and to whom it may talk.
    pub policy: EndpointPolicy,
}

/// A remote tunnel end point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// Outer address. Unique within the node's spec.
    pub outer: IpAddr,
    /// Inner destination address of frames to it.
    pub mac: Mac,
    /// Inner source addresses that this node may use: its subnet, its tunnel address, its host address. Sorted.
    pub owns: Vec<IpNetwork>,
}

/// An interface of this host behind which there are hosts that speak plain IP. This node is their router into the overlay.
/// The host endpoint that stands for it, if any, judges what is forwarded by it: see [`NodeSpec::host_endpoint_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The interface.
    pub name: Arc<str>,
    /// Its index; `None` while the interface does not exist.
    pub ifindex: Option<IfIndex>,
    /// Largest IP packet it takes.
    pub mtu: u16,
    /// This host's own address there, from which hosts behind it are told of errors; `None` = the node's, see
    /// [`NodeSpec::gateway_v4`].
    pub address_v4: Option<Ipv4Addr>,
    /// See [`Self::address_v4`].
    pub address_v6: Option<Ipv6Addr>,
    /// Addresses of the hosts behind it: what comes in by it from any other is not believed. Sorted.
    pub sources: Vec<IpNetwork>,
}

/// One way out of a gateway interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The gateway interface, by name.
    pub interface: Arc<str>,
    /// The router to send to; `None` = destinations are on the link themselves.
    pub next_hop: Option<IpAddr>,
    /// Connections that take it, in proportion to those that take the others.
    pub weight: NonZeroU16,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destinations (no host bits).
    pub prefix: IpNetwork,
    /// The way there.
    pub via: Via,
}

/// The way to a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Through the tunnel to the VTEP with this outer address.
    Vtep(IpAddr),
    /// Plain, to this next hop on the underlay; largest IP packet there.
    Direct {
        /// Next hop on the underlay link.
        next_hop: IpAddr,
        /// Underlay MTU.
        mtu: u16,
    },
    /// Plain, out of gateway interfaces. Of several ways each connection takes one, and keeps it while it is there
    /// ([`crate::tables::Spread`]). Sorted, each once.
    Gateway(Arc<[Hop]>),
    /// Nowhere, for a reason: a lease that cannot be used, our own subnet's unassigned addresses.
    Drop(DropReason),
}
