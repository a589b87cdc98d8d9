//! Connections: packets of a few pairs of ends that answer, interrupt and reset each other, in any order. With so few of
//! them, what comes next mostly belongs to something that came before.

use std::net::IpAddr;

use super::entropy::Entropy;
use super::packets::{self, Ip};
use super::topology::beyond;
use super::world::{
    OUR_MAC, OUR_MAC6, behind, gateway_ifindex, ifindex, mac, our_outer, outer, pod, pod_mac,
};
use crate::net::{Mac, Vni};
use crate::port::Ingress;
use crate::reply::GATEWAY_MAC;
use crate::spec::{NodeSpec, Via};

/// Somebody who talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Our pod with this number.
    Local(u8),
    /// A pod of node 2.
    Remote,
    /// This host.
    Host,
    /// A host behind one of our gateway interfaces, and perhaps behind a router.
    Behind { router: bool },
}

impl End {
    fn address(self, v6: bool) -> IpAddr {
        match self {
            Self::Local(i) => pod(1, i, v6),
            Self::Remote => pod(2, 1, v6),
            Self::Host => pod(1, 0, v6),
            Self::Behind { router: false } => behind(1, 2, v6),
            Self::Behind { router: true } => beyond(7, v6),
        }
    }
}

/// Two who talk with each other.
fn ends(e: &mut Entropy<'_>) -> (End, End) {
    let (remote, local) = ((End::Local(1), End::Remote), (End::Local(1), End::Local(2)));
    let (host, own) = ((End::Local(2), End::Host), (End::Local(1), End::Local(1)));
    let behind = End::Behind { router: e.one_in(2) };
    let (in_and_out, through) = ((End::Local(1), behind), (End::Remote, behind));
    let (from, to) = e.pick(&[remote, remote, local, local, host, own, in_and_out, in_and_out, through]);
    if e.one_in(2) { (to, from) } else { (from, to) }
}

/// TCP flags or SCTP chunks of a connection from beginning to end; `true` = from its opener.
const TCP: [(bool, u8); 12] = [
    (true, 0x02),
    (false, 0x12),
    (true, 0x10),
    (true, 0x18),
    (false, 0x10),
    (false, 0x18),
    (true, 0x11),
    (false, 0x10),
    (false, 0x18),
    (false, 0x11),
    (true, 0x10),
    (true, 0x02),
];
const SCTP: [(bool, u8); 11] = [
    (true, 1),
    (false, 2),
    (true, 10),
    (true, 0),
    (false, 11),
    (false, 0),
    (true, 4),
    (true, 7),
    (false, 8),
    (true, 14),
    (true, 1),
];

/// The packets of one connection from its beginning to its end; now and then one is lost, comes twice or from the wrong
/// side.
pub fn exchange(spec: &NodeSpec, e: &mut Entropy<'_>) -> Vec<(Ingress, Vec<u8>)> {
    let v6 = e.one_in(2);
    let (from, to) = ends(e);
    let (client, server) = ((from.address(v6), e.pick(&[1000, 1001])), (to.address(v6), 80));
    let sctp = e.one_in(3);
    let script: &[(bool, u8)] = if sctp { &SCTP } else { &TCP };
    let mut packets = Vec::new();
    for (forth, what) in script {
        let forth = *forth ^ e.one_in(24);
        let (end, source, destination) = if forth { (from, client, server) } else { (to, server, client) };
        let packet = if sctp {
            packets::sctp(source, destination, &[*what])
        } else {
            packets::tcp(source, destination, *what, 8)
        };
        for _ in 0..e.pick(&[1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 0]) {
            packets.push(send(spec, end, v6, &packet));
        }
    }
    packets
}

/// The next packet of some connection, and the way it comes in.
pub fn packet(spec: &NodeSpec, e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let v6 = e.one_in(2);
    let (from, to) = ends(e);
    let mut packet = datagram(from.address(v6), to.address(v6), e);
    if e.one_in(6) {
        cut(&mut packet, e);
    }
    send(spec, from, v6, &packet)
}

/// A packet of a protocol that has connections, at any moment of one.
fn datagram(from: IpAddr, to: IpAddr, e: &mut Entropy<'_>) -> Ip {
    // Both ends have the same two ports to choose from, so that either can have opened a connection.
    let ports = e.pick(&[(1000, 80), (80, 1000), (1000, 80), (80, 1000), (53, 53)]);
    let (source, destination) = ((from, ports.0), (to, ports.1));
    match e.below(12) {
        0..=4 => {
            let flags =
                e.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x10, 0x02, 0x11, 0xc2, 0x00, 0x03, 0x29]);
            packets::tcp(source, destination, flags, 24)
        }
        5 | 6 => packets::udp(source, destination, 24),
        7 => {
            let chunks = [1, 2, 10, 11, 0, 3, 7, 8, 14, 6, 4, 5];
            let second = e.one_in(3).then(|| e.pick(&chunks));
            packets::sctp(source, destination, &[Some(e.pick(&chunks)), second].map(|kind| kind.unwrap_or(0)))
        }
        8 | 9 => message(from, to, e),
        10 => about(from, to, e),
        _ => Ip::new(from, to, e.pick(&[47, 136, 50]), vec![3; 16]),
    }
}

/// A question or an answer of ICMP.
fn message(from: IpAddr, to: IpAddr, e: &mut Entropy<'_>) -> Ip {
    let mut packet = packets::ping(from, to, e.pick(&[1, 1, 2]));
    let kinds =
        if from.is_ipv4() { [8, 0, 13, 14, 15, 18, 9, 5] } else { [128, 129, 139, 140, 128, 129, 144, 5] };
    let any = e.pick(&kinds);
    packet.payload[0] = e.pick(&[kinds[0], kinds[1], kinds[0], kinds[1], any]);
    packet.payload[1] = u8::from(e.one_in(12));
    packet.finished()
}

/// An error about a packet that its receiver may have sent.
fn about(from: IpAddr, to: IpAddr, e: &mut Entropy<'_>) -> Ip {
    let quoted = match e.below(8) {
        0 => datagram(from, to, &mut Entropy::new(&[])),
        1 => about(to, from, &mut Entropy::new(&[])),
        _ if e.is_empty() => packets::udp((to, 80), (from, 1000), 24),
        _ => datagram(to, from, e),
    };
    let (protocol, kinds) = match from {
        IpAddr::V4(_) => (packets::ICMP, [3, 11, 12, 4, 3]),
        IpAddr::V6(_) => (packets::ICMPV6, [1, 2, 3, 4, 1]),
    };
    let mut quote = quoted.bytes();
    let least = if from.is_ipv4() { 27 } else { 47 };
    quote.truncate(if e.one_in(4) { least + e.below(3) } else { 68 });
    let message = [&[e.pick(&kinds), e.pick(&[0, 1, 4]), 0, 0, 0, 0, 5, 0][..], &quote].concat();
    Ip::new(from, to, protocol, message).finished()
}

/// Makes it a piece of a datagram.
fn cut(packet: &mut Ip, e: &mut Entropy<'_>) {
    let (more, offset) = e.pick(&[(true, 0u16), (true, 0), (true, 3), (false, 6), (false, 2)]);
    packet.payload.truncate(packet.payload.len() / 8 * 8);
    if packet.source.is_ipv4() {
        packet.fragment = (more, offset);
        return;
    }
    let word = (offset << 3 | u16::from(more)).to_be_bytes();
    let header = [packet.protocol, 0, word[0], word[1], 0, 0, 0, e.pick(&[1, 2])];
    packet.payload.splice(..0, header);
    packet.protocol = 44;
}

/// The packet as `from` sends it.
fn send(spec: &NodeSpec, from: End, v6: bool, packet: &Ip) -> (Ingress, Vec<u8>) {
    match from {
        End::Host => (Ingress::Host, packet.frame(Mac::ZERO, Mac::ZERO)),
        End::Behind { .. } => (Ingress::Gateway(gateway_ifindex(1)), packet.frame(Mac::ZERO, Mac::ZERO)),
        End::Local(i) => {
            let owner = spec
                .endpoints
                .iter()
                .find(|endpoint| endpoint.networks.iter().any(|network| network.contains(packet.source)));
            let index = owner.and_then(|endpoint| endpoint.ifindex).unwrap_or(ifindex(i));
            (Ingress::Workload(index), packet.frame(GATEWAY_MAC, pod_mac(i)))
        }
        End::Remote => {
            let plain = spec
                .routes
                .iter()
                .any(|route| route.prefix.contains(packet.source) && matches!(route.via, Via::Direct { .. }));
            if plain {
                return (Ingress::Direct, packet.frame(Mac::ZERO, Mac::ZERO));
            }
            let vtep = spec.vteps.iter().find(|vtep| vtep.owns.iter().any(|own| own.contains(packet.source)));
            let from = vtep.map_or(outer(2, v6), |vtep| vtep.outer);
            let outer_v6 = from.is_ipv6();
            let inner = packet.frame(if outer_v6 { OUR_MAC6 } else { OUR_MAC }, mac(2, outer_v6));
            let (port, vni) = spec.vxlan.map_or((8472, Vni::FLANNEL), |vxlan| (vxlan.port, vxlan.vni));
            (Ingress::Underlay, packets::encapsulated((from, our_outer(outer_v6)), port, vni, 0, &inner))
        }
    }
}
