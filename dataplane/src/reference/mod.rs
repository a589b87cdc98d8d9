//! The slow, obvious twin of the pipeline: what must become of one packet, by the [`NodeSpec`] as it stands.
//!
//! It searches lists from front to back, connections too, reads packets with a parser of its own and writes
//! whole packets instead of patching them. Property tests and a fuzz target hold the pipeline against it. It judges
//! finished packets only: no super-frames, no unfinished checksums. Code it shares with the pipeline: the spec, drop
//! reasons and ports that both speak of, the keyed hash that a quoted source port is recognised by, and the score that a
//! connection has with each of several ways.

mod answer;
pub mod calico;
mod connections;
mod expect;
mod neighbor;
mod parse;
mod policy;
pub(crate) mod states;
mod tunnel;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::net::{Direction, HashSeed};
use crate::packet::{Asked, Fragment, Quote};
use crate::port::{Egress, IfIndex, Ingress};
use crate::spec::{Endpoint, Gateway, Hop, NodeSpec, Via, Vtep};
use crate::tables::{cost, name};
use crate::verdict::DropReason;

use connections::{Connections, Standing};
pub use expect::{Unmasked, mask};
use parse::{Ip, Piece};

/// What must become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It leaves, as one packet or in fragments. Fields that the dataplane may choose are zero, see [`mask`].
    Forward {
        /// Where.
        egress: Egress,
        /// In order.
        packets: Vec<Vec<u8>>,
    },
    /// Its sender is answered: ICMP error, ARP, ND. Of errors, some are withheld by the rate limit.
    Reply {
        /// Where.
        egress: Egress,
        /// The answer.
        packet: Vec<u8>,
    },
    /// It ends.
    Drop(DropReason),
}

/// The node as the twin sees it.
#[derive(Clone, Debug)]
pub struct Reference {
    spec: Option<Arc<NodeSpec>>,
    seed: HashSeed,
    /// By outer address: limit for inner packets, and until when it is believed.
    path_mtus: BTreeMap<IpAddr, (u16, u64)>,
    connections: Connections,
    /// For how long connections are taken up in their middle.
    pickup_ms: u64,
}

/// A packet that has been looked up and awaits its decision.
struct Pending<'a> {
    sender: Sender<'a>,
    frame: Vec<u8>,
    ip: Ip,
    standing: Standing,
}

/// What is known of a packet when all of its batch have been looked up.
enum Looked<'a> {
    Up(Box<Pending<'a>>),
    Done(Outcome),
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug)]
enum Sender<'a> {
    Workload(&'a Endpoint),
    Vtep(&'a Vtep),
    Direct,
    Gateway(&'a Gateway),
    Host,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug)]
enum Way<'a> {
    Host,
    Workload(&'a Endpoint),
    Tunnel(&'a Vtep),
    Direct {
        next_hop: IpAddr,
        mtu: u16,
    },
    Gateway {
        gateway: &'a Gateway,
        ifindex: IfIndex,
        next_hop: Option<IpAddr>,
    },
    /// One of these.
    Several(&'a [Hop]),
    Nowhere(DropReason),
}

/// How long a path MTU is believed.
const BELIEVED_MS: u64 = 600_000;

impl Reference {
    /// A node before its first picture of the network; `seed` and `pickup_ms` are those of the worker.
    pub fn closed(seed: HashSeed, pickup_ms: u64) -> Self {
        Self { spec: None, seed, path_mtus: BTreeMap::new(), connections: Connections::default(), pickup_ms }
    }

    /// Puts another spec in force. Path MTUs survive where the tunnel does, connections where their workloads do.
    pub fn update(&mut self, spec: &NodeSpec, now_ms: u64) {
        let had: Vec<IpAddr> = self.tunnels();
        self.spec = Some(Arc::new(spec.clone()));
        let has = self.tunnels();
        self.path_mtus.retain(|outer, _| had.contains(outer) && has.contains(outer));
        self.connections.update(&spec.endpoints, self.pickup_ms, now_ms);
    }

    /// Is there a connection whose time has been up for less than `slack_ms`? The pipeline may remember it or not.
    pub fn is_any_expiring(&self, slack_ms: u64, now_ms: u64) -> bool {
        let settings = self.spec.as_ref().map(|spec| spec.settings);
        settings.is_some_and(|settings| self.connections.is_any_expiring(&settings, slack_ms, now_ms))
    }

    /// The states of all connections, by the kernel's names.
    pub fn connection_states(&self) -> impl Iterator<Item = &'static str> {
        self.connections.states()
    }

    /// Outer addresses of all VTEPs that can be reached.
    fn tunnels(&self) -> Vec<IpAddr> {
        let Some(spec) = &self.spec else { return Vec::new() };
        spec.vteps.iter().filter(|vtep| has_underlay(spec, vtep)).map(|vtep| vtep.outer).collect()
    }

    /// What must become of these packets, which came together at `now_ms`: all of them are looked up before any is decided.
    pub fn evaluate(&mut self, packets: &[(Ingress, Vec<u8>)], now_ms: u64) -> Vec<Outcome> {
        let Some(spec) = self.spec.clone() else {
            return packets.iter().map(|_| Outcome::Drop(DropReason::NotReady)).collect();
        };
        self.connections.expire(&spec.settings, now_ms);
        let mut looked = Vec::new();
        for (ingress, bytes) in packets {
            let result = self.look_up(&spec, *ingress, bytes, now_ms);
            looked.push(result.unwrap_or_else(|reason| Looked::Done(Outcome::Drop(reason))));
        }
        let decide = |looked| match looked {
            Looked::Done(outcome) => outcome,
            Looked::Up(pending) => self.decide(&spec, *pending, now_ms).unwrap_or_else(Outcome::Drop),
        };
        looked.into_iter().map(decide).collect()
    }

    fn look_up<'a>(
        &mut self,
        spec: &'a NodeSpec,
        ingress: Ingress,
        bytes: &[u8],
        now_ms: u64,
    ) -> Result<Looked<'a>, DropReason> {
        let (frame, vtep) = match ingress {
            Ingress::Underlay => {
                let (inner, vtep) = self.decapsulate(spec, bytes, now_ms)?;
                (inner, Some(vtep))
            }
            Ingress::Decapsulated(outer) => {
                (bytes.to_vec(), Some(find_vtep(spec, outer).ok_or(DropReason::UnknownVtep)?))
            }
            _ => (bytes.to_vec(), None),
        };
        if frame.len() < 14 {
            return Err(DropReason::MalformedEthernet);
        }
        let ip = match [frame[12], frame[13]] {
            [0x08, 0x00] => Ip::v4(&frame)?,
            [0x86, 0xdd] => Ip::v6(&frame)?,
            [0x08, 0x06] => return neighbor::arp(spec, ingress, &frame).map(Looked::Done),
            [0x81, 0x00] | [0x88, 0xa8] => return Err(DropReason::VlanTag),
            _ => return Err(DropReason::UnknownEtherType),
        };
        let frame = &frame[..14 + ip.len];
        if ip.v6
            && ip.protocol == 58
            && let Some(outcome) = neighbor::discovery(spec, ingress, frame, &ip)
        {
            return outcome.map(Looked::Done);
        }
        let sender = sender(spec, ingress, vtep, &ip)?;
        let ip = self.connections.name_piece(&ip, now_ms)?;
        let quoted =
            frame.get(14 + ip.header_len + 8..).and_then(Ip::quoted).filter(|quoted| !quoted.is_nameless());
        let standing = self.connections.look_up(spec, &ip, quoted.as_ref(), now_ms)?;
        Ok(Looked::Up(Box::new(Pending { sender, frame: frame.to_vec(), ip, standing })))
    }

    fn decide(&mut self, spec: &NodeSpec, pending: Pending<'_>, now_ms: u64) -> Result<Outcome, DropReason> {
        let Pending { sender, frame, ip, standing } = pending;
        let judged = match standing {
            Standing::New { asked, .. } => policy::new(spec, self.seed, sender, &ip, asked),
            Standing::Known | Standing::Related => {
                passable(spec, self.seed, &ip).map(|way| (way, Asked::AS_IS))
            }
        };
        let (way, asked) = judged.inspect_err(|_| self.connections.deny(&ip, standing))?;
        self.connections.commit(&ip, standing, asked, now_ms)?;
        self.forward(spec, sender, way, &frame, &ip, now_ms)
    }

    fn forward(
        &self,
        spec: &NodeSpec,
        sender: Sender<'_>,
        way: Way<'_>,
        frame: &[u8],
        ip: &Ip,
        now_ms: u64,
    ) -> Result<Outcome, DropReason> {
        let from_host = matches!(sender, Sender::Host);
        let to_host = match way {
            Way::Nowhere(reason) => return Err(reason),
            Way::Host if from_host => return Err(DropReason::HostLoop),
            Way::Host if speaks_vxlan(spec, ip) => return Err(DropReason::NestedVxlan),
            Way::Host => true,
            _ => false,
        };
        let routed = !from_host && !to_host;
        if routed && ip.ttl <= 1 {
            let error = answer::Error::TimeExceeded;
            return self.tell(spec, sender, frame, ip, error, now_ms).ok_or(DropReason::TtlExpired)?;
        }
        let mtu = self.mtu(spec, way, now_ms);
        if ip.len > usize::from(mtu) && ip.dont_fragment {
            let error = answer::Error::TooBig(mtu);
            return self.tell(spec, sender, frame, ip, error, now_ms).ok_or(DropReason::TooBig)?;
        }
        let mut packet = frame[14..].to_vec();
        if routed {
            packet = parse::with_ttl(&packet, ip.ttl - 1);
        }
        let pieces = if ip.len > usize::from(mtu) {
            answer::fragments(&packet, ip, usize::from(mtu)).ok_or(DropReason::FragmentFailed)?
        } else {
            vec![packet]
        };
        let ether_type = [frame[12], frame[13]];
        let packets = pieces.iter().map(|piece| expect::leaving(spec, way, ether_type, piece));
        Ok(Outcome::Forward { egress: egress(way, ip.destination), packets: packets.collect() })
    }

    /// The error to the sender; `None` when it must not be told.
    fn tell(
        &self,
        spec: &NodeSpec,
        sender: Sender<'_>,
        frame: &[u8],
        ip: &Ip,
        error: answer::Error,
        now_ms: u64,
    ) -> Option<Result<Outcome, DropReason>> {
        let way = match sender {
            Sender::Workload(endpoint) => Way::Workload(endpoint),
            Sender::Vtep(vtep) => Way::Tunnel(vtep),
            Sender::Host => Way::Host,
            Sender::Direct | Sender::Gateway(_) => {
                settle(spec, self.seed, longest_prefix(spec, ip.source)?, ip)
            }
        };
        let known_by = match sender {
            Sender::Gateway(gateway) => (gateway.address_v4, gateway.address_v6),
            _ => (None, None),
        };
        let ours: IpAddr = match ip.v6 {
            false => known_by.0.or(spec.gateway_v4)?.into(),
            true => known_by.1.or(spec.gateway_v6)?.into(),
        };
        let packet = answer::error(frame, ip, error, ours, self.mtu(spec, way, now_ms))?;
        Some(match way {
            Way::Nowhere(reason) => Err(reason),
            way => {
                let packet = expect::leaving(spec, way, [frame[12], frame[13]], &packet);
                Ok(Outcome::Reply { egress: egress(way, ip.source), packet })
            }
        })
    }

    /// Largest IP packet that goes this way now.
    fn mtu(&self, spec: &NodeSpec, way: Way<'_>, now_ms: u64) -> u16 {
        match way {
            Way::Host | Way::Several(_) | Way::Nowhere(_) => u16::MAX,
            Way::Workload(endpoint) => endpoint.mtu,
            Way::Gateway { gateway, .. } => gateway.mtu,
            Way::Direct { mtu, .. } => mtu,
            Way::Tunnel(vtep) => {
                let vxlan = spec.vxlan.as_ref();
                let configured = match vtep.outer {
                    IpAddr::V4(_) => vxlan.and_then(|v| v.v4).map(|v| v.mtu),
                    IpAddr::V6(_) => vxlan.and_then(|v| v.v6).map(|v| v.mtu),
                };
                let configured = configured.unwrap_or(u16::MAX);
                match self.path_mtus.get(&vtep.outer) {
                    Some((limit, until)) if now_ms < *until => configured.min(*limit),
                    _ => configured,
                }
            }
        }
    }

    /// Believes a path MTU unless a lower one is believed already.
    fn lower_path_mtu(&mut self, outer: IpAddr, limit: u16, now_ms: u64) {
        let believed = self.path_mtus.get(&outer).filter(|(_, until)| now_ms < *until);
        if believed.is_none_or(|(lower, _)| limit < *lower) {
            self.path_mtus.insert(outer, (limit, now_ms + BELIEVED_MS));
        }
    }
}

/// What the packet that an ICMP error quotes says of its connection.
pub fn quote(bytes: &[u8]) -> Option<Quote> {
    let ip = Ip::quoted(bytes)?;
    let key = ip.flow_key();
    let forth = key.ends(Direction::Forward).0 == (ip.source, ip.ports.0);
    let fragment = match ip.piece {
        Piece::Whole => Fragment::Whole,
        Piece::First => Fragment::First,
        Piece::Later => Fragment::Later,
    };
    Some(Quote { key, direction: if forth { Direction::Forward } else { Direction::Reverse }, fragment })
}

/// The last VTEP of this outer address.
fn find_vtep(spec: &NodeSpec, outer: IpAddr) -> Option<Vtep> {
    spec.vteps.iter().rev().find(|vtep| vtep.outer == outer).cloned()
}

fn has_underlay(spec: &NodeSpec, vtep: &Vtep) -> bool {
    match (&spec.vxlan, vtep.outer) {
        (Some(vxlan), IpAddr::V4(_)) => vxlan.v4.is_some(),
        (Some(vxlan), IpAddr::V6(_)) => vxlan.v6.is_some(),
        (None, _) => false,
    }
}

fn speaks_vxlan(spec: &NodeSpec, ip: &Ip) -> bool {
    let port = spec.vxlan.map(|vxlan| vxlan.port);
    ip.protocol == 17 && Some(ip.ports.1) == port
}

/// Addresses that are never a sender.
fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first == 0 || a.is_loopback() || a.is_multicast() || first >= 240 || a.is_link_local()
        }
        IpAddr::V6(a) => {
            let link_local = a.is_unicast_link_local();
            let special = a.is_unspecified() || a.is_loopback() || a.to_ipv4_mapped().is_some();
            special || a.is_multicast() || link_local
        }
    }
}

/// Who sent it, if it may be from there.
fn sender<'a>(
    spec: &'a NodeSpec,
    ingress: Ingress,
    vtep: Option<Vtep>,
    ip: &Ip,
) -> Result<Sender<'a>, DropReason> {
    let own = [spec.gateway_v4.map(IpAddr::from), spec.gateway_v6.map(IpAddr::from)];
    let martian =
        is_martian(ip.source) || !matches!(ingress, Ingress::Workload(_)) && own.contains(&Some(ip.source));
    let owned = |networks: &[ipnetwork::IpNetwork]| match martian {
        true => Err(DropReason::MartianSource),
        false if networks.iter().any(|network| network.contains(ip.source)) => Ok(()),
        false => Err(DropReason::SpoofedSource),
    };
    let vxlan = speaks_vxlan(spec, ip) && !spec.settings.allow_vxlan_from_workloads;
    let ip_in_ip = ip.protocol == 4 && !spec.settings.allow_ipip_from_workloads;
    match ingress {
        Ingress::Workload(ifindex) => {
            let endpoint = endpoint(spec, ifindex).ok_or(DropReason::UnknownInterface)?;
            owned(&endpoint.networks)?;
            if vxlan || ip_in_ip {
                return Err(DropReason::EncapFromWorkload);
            }
            Ok(Sender::Workload(endpoint))
        }
        Ingress::Underlay | Ingress::Decapsulated(_) => {
            let outer = vtep.ok_or(DropReason::UnknownVtep)?.outer;
            let vtep = spec.vteps.iter().rev().find(|vtep| vtep.outer == outer);
            let vtep = vtep.ok_or(DropReason::UnknownVtep)?;
            owned(&vtep.owns)?;
            Ok(Sender::Vtep(vtep))
        }
        Ingress::Direct => owned(&spec.direct_sources).map(|()| Sender::Direct),
        Ingress::Gateway(ifindex) => {
            let gateway = spec.gateways.iter().rev().find(|gateway| gateway.ifindex == Some(ifindex));
            let gateway = gateway.ok_or(DropReason::UnknownInterface)?;
            let behind = longest_prefix(spec, ip.source).is_some_and(|way| is_behind_gateway(spec, way));
            match owned(&gateway.sources) {
                Err(DropReason::MartianSource) => Err(DropReason::MartianSource),
                Ok(()) if behind && (vxlan || ip_in_ip) => Err(DropReason::EncapFromWorkload),
                Ok(()) if behind => Ok(Sender::Gateway(gateway)),
                _ => Err(DropReason::GatewaySource),
            }
        }
        Ingress::Host => Ok(Sender::Host),
    }
}

/// Do packets that go this way leave by a gateway interface?
fn is_behind_gateway(spec: &NodeSpec, way: Way<'_>) -> bool {
    matches!(way, Way::Several(hops) if hops.iter().any(|hop| there(spec, hop).is_some()))
}

/// The last endpoint behind this interface.
fn endpoint(spec: &NodeSpec, ifindex: u32) -> Option<&Endpoint> {
    spec.endpoints.iter().rev().find(|endpoint| endpoint.ifindex == Some(ifindex))
}

/// Where it goes, if it goes anywhere.
fn passable<'a>(spec: &'a NodeSpec, seed: HashSeed, ip: &Ip) -> Result<Way<'a>, DropReason> {
    match settle(spec, seed, route(spec, ip.destination)?, ip) {
        Way::Nowhere(reason) => Err(reason),
        way => Ok(way),
    }
}

/// The one of several ways that the packet's connection takes: that with which it has the lowest cost.
fn settle<'a>(spec: &'a NodeSpec, seed: HashSeed, way: Way<'a>, ip: &Ip) -> Way<'a> {
    let Way::Several(hops) = way else { return way };
    // A piece has got the ports of its datagram's first.
    let connection = Ip { piece: Piece::Whole, ..ip.clone() }.flow_key().hash(seed);
    let mut best: Option<(f64, Way<'a>)> = None;
    for hop in hops {
        let cost = cost(connection, name(hop), hop.weight);
        if let Some(way) = there(spec, hop)
            && best.is_none_or(|(lowest, _)| cost < lowest)
        {
            best = Some((cost, way));
        }
    }
    best.map_or(Way::Nowhere(DropReason::GatewayDown), |(_, way)| way)
}

/// The way by a gateway's hop, if the interface exists.
fn there<'a>(spec: &'a NodeSpec, hop: &Hop) -> Option<Way<'a>> {
    let gateway = spec.gateways.iter().find(|gateway| gateway.name == hop.interface)?;
    Some(Way::Gateway { gateway, ifindex: gateway.ifindex?, next_hop: hop.next_hop })
}

/// Where it goes.
fn route(spec: &NodeSpec, destination: IpAddr) -> Result<Way<'_>, DropReason> {
    match destination {
        IpAddr::V4(a) if a.is_multicast() || a.is_broadcast() => return Err(DropReason::Multicast),
        IpAddr::V6(a) if a.is_multicast() => return Err(DropReason::Multicast),
        IpAddr::V4(a) if a.is_link_local() => return Err(DropReason::LinkLocal),
        IpAddr::V6(a) if a.is_unicast_link_local() => return Err(DropReason::LinkLocal),
        address if is_martian(address) => return Err(DropReason::MartianDestination),
        _ => {}
    }
    longest_prefix(spec, destination).ok_or(DropReason::NoRoute)
}

/// The way of the longest prefix; of equals the one that is named last: routes, then endpoints, then the host.
fn longest_prefix(spec: &NodeSpec, destination: IpAddr) -> Option<Way<'_>> {
    let routes = spec.routes.iter().map(|route| (route.prefix, via(spec, &route.via)));
    let endpoints = spec.endpoints.iter().flat_map(|endpoint| {
        let way = match endpoint.ifindex {
            Some(_) => Way::Workload(endpoint),
            None => Way::Nowhere(DropReason::EndpointDown),
        };
        endpoint.networks.iter().map(move |network| (*network, way))
    });
    let host = spec.host_addresses.iter().map(|address| (ipnetwork::IpNetwork::from(*address), Way::Host));
    let mut best: Option<(u8, Way<'_>)> = None;
    for (prefix, way) in routes.chain(endpoints).chain(host) {
        if prefix.contains(destination) && best.is_none_or(|(length, _)| prefix.prefix() >= length) {
            best = Some((prefix.prefix(), way));
        }
    }
    best.map(|(_, way)| way)
}

fn via<'a>(spec: &'a NodeSpec, via: &'a Via) -> Way<'a> {
    match via {
        Via::Vtep(outer) => match spec.vteps.iter().rev().find(|vtep| vtep.outer == *outer) {
            None => Way::Nowhere(DropReason::UnresolvedVtep),
            Some(vtep) if has_underlay(spec, vtep) => Way::Tunnel(vtep),
            Some(_) => Way::Nowhere(DropReason::NoUnderlay),
        },
        Via::Direct { next_hop, mtu } => Way::Direct { next_hop: *next_hop, mtu: *mtu },
        Via::Gateway(hops) => Way::Several(hops),
        Via::Drop(reason) => Way::Nowhere(*reason),
    }
}

/// `destination`: of the packet that leaves.
fn egress(way: Way<'_>, destination: IpAddr) -> Egress {
    match way {
        Way::Host | Way::Several(_) | Way::Nowhere(_) => Egress::Host,
        Way::Gateway { ifindex, next_hop, .. } => {
            Egress::Gateway { ifindex, next_hop: next_hop.unwrap_or(destination) }
        }
        Way::Workload(endpoint) => Egress::Workload(endpoint.ifindex.unwrap_or(0)),
        Way::Tunnel(_) => Egress::Underlay,
        Way::Direct { next_hop, .. } => Egress::Direct(next_hop),
    }
}
