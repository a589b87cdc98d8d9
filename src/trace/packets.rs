//! The packet that is asked about, and those that open its connection.

use std::net::IpAddr;

use canal_dataplane::net::{FlowKey, HashSeed, Mac, Vni};
use canal_dataplane::port::Ingress;
use canal_dataplane::reply::GATEWAY_MAC;
use canal_dataplane::spec::{NodeSpec, Vxlan};
use canal_dataplane::wire::vxlan;

use super::places::{self, Holder, PlaceError};
use super::question::{Connection, From, Protocol, Question, TcpFlags};
use build::{Body, Ip, frame};

mod build;

/// Source port where nobody says another.
const SOURCE_PORT: u16 = 40_000;

/// TTL where nobody says another: Linux's.
const TTL: u8 = 64;

/// Destination port of the datagram that an ICMP error is about: traceroute's first.
const QUOTED_PORT: u16 = 33_434;

/// Ethernet source address where none is known; nothing looks at it.
const SOME_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Why there is no such packet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PacketError {
    /// IPv4 to IPv6, or the other way round.
    #[error("{source_address} and {destination} are of two families")]
    Families {
        /// Sender.
        source_address: IpAddr,
        /// Receiver.
        destination: IpAddr,
    },
    /// Nobody says who sends it.
    #[error("an address has to be given for the sender of a packet that comes {0}")]
    NoSource(&'static str),
    /// The host has no address of the family.
    #[error("this host has no address to send to {0} from; give one")]
    NoHostAddress(IpAddr),
    /// Cannot be said in that many bytes.
    #[error("an IP packet of this kind has {least} to {most} bytes, not {size}")]
    Size {
        /// As asked for.
        size: u16,
        /// Its headers.
        least: usize,
        /// What its length fields hold.
        most: usize,
    },
    /// No tunnel.
    #[error("this node has no tunnel end point over IPv{0}")]
    NoTunnel(u8),
    /// Not 24 bits.
    #[error("{0} is no VXLAN network identifier")]
    Vni(u32),
    /// Nobody is there who could open or answer it.
    #[error("nobody is known who has {0}, so that the connection cannot have been answered")]
    NoPeer(IpAddr),
}

/// A frame and the way it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// As the port would say it.
    pub ingress: Ingress,
    /// From its (outer) Ethernet header on.
    pub frame: Vec<u8>,
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Sender.
    pub source: IpAddr,
    /// Receiver, of the same family.
    pub destination: IpAddr,
}

impl Ends {
    const fn swapped(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// The packet of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Itself.
    pub packet: Packet,
    /// Its (inner) addresses.
    pub ends: Ends,
}

impl Arrival {
    /// The packet that `question` describes.
    ///
    /// # Errors
    /// Nobody is meant, or there is no such packet.
    pub fn new(question: &Question, spec: &NodeSpec, seed: HashSeed) -> Result<Self, super::TraceError> {
        let ends = ends(question, spec)?;
        let ip = Ip {
            ends,
            body: body(question, ends),
            ttl: question.ttl.unwrap_or(TTL),
            dont_fragment: question.dont_fragment,
            size: question.size,
        };
        let packet = match &question.from {
            From::Workload(name) => from_workload(places::workload(spec, name)?.0, &ip, spec)?,
            From::Host => Packet { ingress: Ingress::Host, frame: frame(&ip, Mac::ZERO, Mac::ZERO)? },
            From::Direct => Packet { ingress: Ingress::Direct, frame: frame(&ip, Mac::ZERO, Mac::ZERO)? },
            From::Gateway(name) => Packet {
                ingress: Ingress::Gateway(places::gateway(spec, name)?),
                frame: frame(&ip, Mac::ZERO, Mac::ZERO)?,
            },
            From::Vxlan { node, vni } => from_vtep(*node, *vni, &ip, spec, seed)?,
        };
        Ok(Self { packet, ends })
    }

    /// The packets, in order, by which the question's connection would have come about; none for a new one.
    ///
    /// # Errors
    /// Nobody is there who could have taken part.
    pub fn opening(
        &self,
        question: &Question,
        spec: &NodeSpec,
        seed: HashSeed,
    ) -> Result<Vec<Packet>, super::TraceError> {
        if question.connection == Connection::New {
            return Ok(Vec::new());
        }
        let mut packets = Vec::new();
        for (ends, body) in conversation(question, self.ends) {
            let ip = Ip { ends, body, ttl: TTL, dont_fragment: false, size: None };
            packets.push(if ends == self.ends {
                self.again(question, &ip, spec, seed)?
            } else {
                from_holder(&ip, spec, seed)?
            });
        }
        Ok(packets)
    }

    /// Another packet by the way that the question's takes.
    fn again(
        &self,
        question: &Question,
        ip: &Ip,
        spec: &NodeSpec,
        seed: HashSeed,
    ) -> Result<Packet, super::TraceError> {
        Ok(match (&question.from, self.packet.ingress) {
            (From::Vxlan { node, vni }, _) => from_vtep(*node, *vni, ip, spec, seed)?,
            (_, ingress) => Packet { ingress, frame: frame(ip, GATEWAY_MAC, SOME_MAC)? },
        })
    }
}

fn ends(question: &Question, spec: &NodeSpec) -> Result<Ends, super::TraceError> {
    let sender = match &question.from {
        From::Workload(name) => Some((name, places::workload(spec, name)?.1)),
        _ => None,
    };
    let destination = match question.to.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            let (_, receiver) = places::workload(spec, &question.to)?;
            let source = question.source.or_else(|| sender.and_then(|(name, _)| name.parse().ok()));
            match source {
                Some(source) => places::address_like(receiver, source.is_ipv6())?,
                None => {
                    places::address_like(receiver, false).or_else(|_| places::address_like(receiver, true))?
                }
            }
        }
    };
    let v6 = destination.is_ipv6();
    let source = match (question.source, &question.from, sender) {
        (Some(source), ..) => source,
        (None, _, Some((name, endpoint))) => match name.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => places::address_like(endpoint, v6)?,
        },
        (None, From::Host, _) => host_address(spec, destination)?,
        (None, From::Direct, _) => return Err(PacketError::NoSource("without tunnel").into()),
        (None, From::Gateway(_), _) => return Err(PacketError::NoSource("by a gateway").into()),
        (None, ..) => return Err(PacketError::NoSource("through the tunnel").into()),
    };
    if source.is_ipv6() != v6 {
        return Err(PacketError::Families { source_address: source, destination }.into());
    }
    Ok(Ends { source, destination })
}

/// What the kernel would choose for a route into the overlay: the tunnel's address.
fn host_address(spec: &NodeSpec, destination: IpAddr) -> Result<IpAddr, PacketError> {
    let gateway = match destination {
        IpAddr::V4(_) => spec.gateway_v4.map(IpAddr::V4),
        IpAddr::V6(_) => spec.gateway_v6.map(IpAddr::V6),
    };
    let any = || spec.host_addresses.iter().copied().find(|own| own.is_ipv6() == destination.is_ipv6());
    gateway.or_else(any).ok_or(PacketError::NoHostAddress(destination))
}

fn from_workload(index: u32, ip: &Ip, spec: &NodeSpec) -> Result<Packet, super::TraceError> {
    let endpoint = &spec.endpoints[index as usize];
    let ifindex = endpoint.ifindex.ok_or_else(|| PlaceError::Down {
        endpoint: endpoint.name.clone(),
        interface: endpoint.interface.clone(),
    })?;
    let frame = frame(ip, GATEWAY_MAC, endpoint.mac.unwrap_or(SOME_MAC))?;
    Ok(Packet { ingress: Ingress::Workload(ifindex), frame })
}

/// By the way that a packet of this source comes if it is genuine.
fn from_holder(ip: &Ip, spec: &NodeSpec, seed: HashSeed) -> Result<Packet, super::TraceError> {
    Ok(match places::holder(spec, ip.ends.source) {
        Holder::Endpoint(index) => from_workload(index, ip, spec)?,
        Holder::Host => Packet { ingress: Ingress::Host, frame: frame(ip, Mac::ZERO, Mac::ZERO)? },
        Holder::Gateway(ifindex) => {
            Packet { ingress: Ingress::Gateway(ifindex), frame: frame(ip, Mac::ZERO, Mac::ZERO)? }
        }
        Holder::Direct => Packet { ingress: Ingress::Direct, frame: frame(ip, Mac::ZERO, Mac::ZERO)? },
        Holder::Vtep(outer) => from_vtep(outer, None, ip, spec, seed)?,
        Holder::Nobody => return Err(PacketError::NoPeer(ip.ends.source).into()),
    })
}

/// As a peer encapsulates it. Its own choice of source port is not known; another one of its kind does.
fn from_vtep(
    node: IpAddr,
    vni: Option<u32>,
    ip: &Ip,
    spec: &NodeSpec,
    seed: HashSeed,
) -> Result<Packet, PacketError> {
    let no_tunnel = PacketError::NoTunnel(if node.is_ipv6() { 6 } else { 4 });
    let Some(local) = spec.vxlan else { return Err(no_tunnel) };
    let Vxlan { port, v4, v6, vni: own_vni } = local;
    let (own, own_mac) = match node {
        IpAddr::V4(_) => v4.map(|local| (IpAddr::V4(local.address), local.mac)),
        IpAddr::V6(_) => v6.map(|local| (IpAddr::V6(local.address), local.mac)),
    }
    .ok_or(no_tunnel)?;
    let vni = vni.map_or(Ok(own_vni), |number| Vni::new(number).ok_or(PacketError::Vni(number)))?;
    let peer = spec.vteps.iter().find(|vtep| vtep.outer == node);
    let inner = frame(ip, own_mac, peer.map_or(SOME_MAC, |vtep| vtep.mac))?;
    let (key, _) = match (ip.ends.source, ip.ends.destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => FlowKey::v4(s.to_bits(), d.to_bits(), (0, 0), 0, false),
        (IpAddr::V6(s), IpAddr::V6(d)) => FlowKey::v6(s.to_bits(), d.to_bits(), (0, 0), 0, false),
        _ => unreachable!("the families of both ends have been compared"),
    };
    let outer = Ip {
        ends: Ends { source: node, destination: own },
        body: Body::Vxlan {
            source_port: vxlan::source_port(key.hash(seed)),
            port,
            payload: [&vxlan::Header::write(vni)[..], &inner].concat(),
        },
        ttl: TTL,
        dont_fragment: false,
        size: None,
    };
    Ok(Packet { ingress: Ingress::Underlay, frame: frame(&outer, Mac::ZERO, Mac::ZERO)? })
}

/// What the question's packet carries.
fn body(question: &Question, ends: Ends) -> Body {
    let source_port = question.source_port.unwrap_or(SOURCE_PORT);
    let new = question.connection == Connection::New;
    match question.protocol {
        Protocol::Tcp { port, flags } => {
            let usual = if new { TcpFlags::SYN } else { TcpFlags::ACK };
            Body::Tcp { source_port, port, flags: flags.unwrap_or(usual) }
        }
        Protocol::Udp { port } => Body::Udp { source_port, port },
        Protocol::Sctp { port } => {
            Body::Sctp { source_port, port, chunk: if new { build::INIT } else { build::DATA } }
        }
        Protocol::Icmp { kind, code } => {
            let v6 = ends.source.is_ipv6();
            let answering = question.connection == Connection::Answering;
            let kind = kind.unwrap_or(echo(v6, answering));
            let about = is_error(kind, v6).then(|| quoted(question, ends.swapped()));
            Body::Icmp { kind, code: code.unwrap_or(0), id: source_port, about: about.map(Box::new) }
        }
        Protocol::Other(number) => Body::Other(number),
    }
}

/// Type of an echo request, or of its answer.
const fn echo(v6: bool, answer: bool) -> u8 {
    match (v6, answer) {
        (false, false) => 8,
        (false, true) => 0,
        (true, false) => 128,
        (true, true) => 129,
    }
}

/// Messages about another packet, which they quote (RFC 792, RFC 4443 §2.1).
fn is_error(kind: u8, v6: bool) -> bool {
    if v6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) }
}

/// The packet that an ICMP error is about: a datagram that its receiver has sent to its sender.
fn quoted(question: &Question, ends: Ends) -> Ip {
    let source_port = question.source_port.unwrap_or(SOURCE_PORT);
    let body = Body::Udp { source_port, port: QUOTED_PORT };
    Ip { ends, body, ttl: TTL, dont_fragment: false, size: None }
}

/// Who says what until the connection is answered.
fn conversation(question: &Question, ends: Ends) -> Vec<(Ends, Body)> {
    let source_port = question.source_port.unwrap_or(SOURCE_PORT);
    let answering = question.connection == Connection::Answering;
    let (opener, there, back) = match answering {
        false => (ends, ends, ends.swapped()),
        true => (ends.swapped(), ends.swapped(), ends),
    };
    // The ports as the opener's packets have them.
    let ports = |port| if opener == ends { (source_port, port) } else { (port, source_port) };
    let said = |way: Ends, port: u16| if way == there { ports(port) } else { swap(ports(port)) };
    match question.protocol {
        Protocol::Tcp { port, .. } => {
            [(there, TcpFlags::SYN), (back, TcpFlags::SYN_ACK), (there, TcpFlags::ACK)]
                .map(|(way, flags)| {
                    let (source_port, port) = said(way, port);
                    (way, Body::Tcp { source_port, port, flags })
                })
                .into()
        }
        Protocol::Udp { port } => [there, back]
            .map(|way| {
                let (source_port, port) = said(way, port);
                (way, Body::Udp { source_port, port })
            })
            .into(),
        Protocol::Sctp { port } => [
            (there, build::INIT),
            (back, build::INIT_ACK),
            (there, build::COOKIE_ECHO),
            (back, build::COOKIE_ACK),
        ]
        .map(|(way, chunk)| {
            let (source_port, port) = said(way, port);
            (way, Body::Sctp { source_port, port, chunk })
        })
        .into(),
        Protocol::Icmp { kind, .. } => {
            let v6 = ends.source.is_ipv6();
            if kind.is_some_and(|kind| is_error(kind, v6)) {
                // Whoever is told of an error has opened what the error is about.
                let about = quoted(question, ends.swapped());
                let answer = Body::Udp { source_port: QUOTED_PORT, port: source_port };
                return vec![(about.ends, about.body), (ends, answer)];
            }
            let message =
                |answer| Body::Icmp { kind: echo(v6, answer), code: 0, id: source_port, about: None };
            vec![(there, message(false)), (back, message(true))]
        }
        Protocol::Other(number) => vec![(there, Body::Other(number)), (back, Body::Other(number))],
    }
}

const fn swap((a, b): (u16, u16)) -> (u16, u16) {
    (b, a)
}
