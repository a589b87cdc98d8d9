//! Random packets for a node: most of them such as real senders send, some of them broken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::entropy::Entropy;
use super::packets::{self, Ip};
use super::topology::{GATEWAYS, NODES, PODS, beyond};
use super::verify::checksum;
use super::world::{
    OUR_MAC, OUR_MAC6, behind, gateway_ifindex, ifindex, mac, our_outer, outer, pod, pod_mac,
};
use crate::net::{Mac, Vni};
use crate::port::Ingress;
use crate::reply::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6};
use crate::spec::NodeSpec;

/// A packet and the way it comes in. `sent`: packets that went to the underlay before, which errors may be about.
pub fn packet(spec: &NodeSpec, sent: &[Vec<u8>], e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let (ingress, mut bytes) = match e.below(19) {
        16.. => from_gateway(e),
        0..=4 => from_workload(spec, e),
        5..=9 => from_underlay(spec, e),
        10 => from_direct(e),
        11 | 12 => from_host(e),
        13 => arp(e),
        14 => discovery(e),
        _ => too_big(sent, e),
    };
    if e.one_in(6) {
        spoil(&mut bytes, e);
    }
    (ingress, bytes)
}

/// Changes some bytes, cuts or pads; makes the IPv4 header checksum right again, now and then.
fn spoil(bytes: &mut Vec<u8>, e: &mut Entropy<'_>) {
    match e.below(6) {
        0 => bytes.truncate(usize::from(e.word()) % (bytes.len() + 1)),
        1 => bytes.extend([0x5a; 40].iter().take(e.below(40))),
        2 => bytes.truncate(e.below(64)),
        _ => {
            for _ in 0..=e.below(3) {
                // Headers are hit more often than payload.
                let reach = if e.one_in(3) { bytes.len() } else { bytes.len().min(130) };
                if reach > 0 {
                    let at = usize::from(e.word()) % reach;
                    bytes[at] = e.byte();
                }
            }
        }
    }
    if e.one_in(2) {
        for at in [14, 64, 84] {
            repair(bytes, at);
        }
    }
}

/// Writes the header checksum of what may be an IPv4 header at `at`.
fn repair(bytes: &mut [u8], at: usize) {
    let Some(first) = bytes.get(at).filter(|first| **first >> 4 == 4) else { return };
    let header_len = usize::from(first & 15) * 4;
    if header_len >= 20
        && let Some(header) = bytes.get_mut(at..at + header_len)
    {
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// An address that packets go to, or claim to be from.
fn address(v6: bool, e: &mut Entropy<'_>) -> IpAddr {
    let node = 1 + e.below(usize::from(NODES) + 1) as u16;
    match e.below(17) {
        0..=8 => pod(node, 1 + e.below(usize::from(PODS) + 1) as u8, v6),
        9 => pod(node, 0, v6),
        10 => outer(node.max(2), v6),
        11 => our_outer(v6),
        14 => behind_gateway(v6, e),
        12 | 13 => pod(1, 1 + e.below(PODS.into()) as u8, v6),
        _ => special(v6, e),
    }
}

/// An address of a host behind a gateway interface.
fn behind_gateway(v6: bool, e: &mut Entropy<'_>) -> IpAddr {
    let (g, i) = (1 + e.below(GATEWAYS.into()) as u8, 2 + e.below(3) as u8);
    if e.one_in(2) { behind(g, i, v6) } else { beyond(i, v6) }
}

/// An address that is treated differently.
fn special(v6: bool, e: &mut Entropy<'_>) -> IpAddr {
    if v6 {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mapped = Ipv4Addr::new(10, 0, 1, 1).to_ipv6_mapped();
        let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let some = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, GATEWAY_V6, group, mapped, outside];
        return e.pick(&some).into();
    }
    let some: [[u8; 4]; 9] = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [169, 254, 1, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
        [255, 1, 2, 3],
        [8, 8, 8, 8],
    ];
    e.pick(&some).into()
}

/// An IP packet between two addresses.
fn ip(source: IpAddr, destination: IpAddr, e: &mut Entropy<'_>) -> Ip {
    let ports = [1000, 2000, 53, 8472, 4789];
    let (from, to) = ((source, e.pick(&ports)), (destination, e.pick(&ports)));
    let len = match e.below(8) {
        0..=4 => e.below(64),
        5 => 1160 + e.below(256),
        6 => 1300 + e.below(256),
        _ => 1500 + usize::from(e.word()) % 3000,
    };
    let mut packet = match e.below(10) {
        0..=3 => packets::udp(from, to, len),
        4 | 5 => packets::tcp(from, to, e.pick(&[0x10, 0x02, 0x12, 0x11, 0x04]), len),
        6 => packets::ping(source, destination, e.word() % 4),
        7 => icmp_error(source, destination, e),
        _ => Ip::new(source, destination, e.pick(&[4, 47, 132, 136, 59, 50, 1, 58]), vec![7; len]),
    };
    packet.ttl = e.pick(&[64, 64, 64, 64, 255, 2, 1, 0]);
    packet.tos = if e.one_in(3) { e.byte() } else { e.pick(&[0, 0, 1, 2, 3]) };
    if source.is_ipv4() {
        packet.dont_fragment = e.one_in(2);
        if e.one_in(8) {
            let more = e.one_in(2);
            packet.fragment = (more, e.pick(&[0, 0, 1, 2, 100, 8191]));
            if more && e.one_in(2) {
                packet.payload.truncate(packet.payload.len() / 8 * 8);
            }
        }
    } else if e.one_in(6) {
        extend(&mut packet, e);
    }
    packet
}

fn icmp_error(source: IpAddr, destination: IpAddr, e: &mut Entropy<'_>) -> Ip {
    let (protocol, kinds) = match source {
        IpAddr::V4(_) => (packets::ICMP, [3, 5, 11, 12, 13, 9]),
        IpAddr::V6(_) => (packets::ICMPV6, [1, 2, 3, 4, 143, 200]),
    };
    let message = [&[e.pick(&kinds), 0, 0, 0, 0, 0, 0, 0][..], &[0x45; 40]].concat();
    Ip::new(source, destination, protocol, message).finished()
}

/// Puts IPv6 extension headers in front of the transport.
fn extend(packet: &mut Ip, e: &mut Entropy<'_>) {
    let count = if e.one_in(8) { 9 } else { 1 + e.below(3) };
    for i in 0..count {
        let mut front = vec![packet.protocol, 0, 1, 4, 0, 0, 0, 0];
        let kinds = if i + 1 == count { [0, 60, 43, 44, 51, 44] } else { [60, 60, 43, 44, 51, 60] };
        let kind = e.pick(&kinds);
        match kind {
            43 => front[2..4].copy_from_slice(&[e.pick(&[0, 4]), e.pick(&[0, 1])]),
            44 => {
                let offset: u16 = e.pick(&[0, 0, 8, 1000]);
                let word = offset | u16::from(e.one_in(2));
                front[1] = 0;
                front[2..4].copy_from_slice(&word.to_be_bytes());
            }
            51 => (front[1], front[2]) = (0, 0),
            _ => {}
        }
        packet.payload = [front, std::mem::take(&mut packet.payload)].concat();
        packet.protocol = kind;
    }
}

/// The packet as bytes, with IPv4 options now and then.
fn frame(packet: &Ip, to: Mac, from: Mac, e: &mut Entropy<'_>) -> Vec<u8> {
    let mut bytes = packet.frame(to, from);
    if packet.source.is_ipv4() && e.one_in(10) {
        let options: [[u8; 4]; 7] = [
            [1, 1, 1, 0],
            [148, 4, 0, 0],
            [7, 3, 4, 0],
            [131, 3, 4, 0],
            [137, 3, 4, 0],
            [7, 9, 0, 0],
            [130, 3, 9, 1],
        ];
        let total = u16::from_be_bytes([bytes[16], bytes[17]]) + 4;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        bytes[14] = 0x46;
        bytes.splice(34..34, e.pick(&options));
        repair(&mut bytes, 14);
    }
    bytes
}

fn from_workload(spec: &NodeSpec, e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let v6 = e.one_in(2);
    let i = 1 + e.below(PODS.into()) as u8;
    let source = if e.one_in(10) { address(v6, e) } else { pod(1, i, v6) };
    let packet = ip(source, address(v6, e), e);
    let known = spec.endpoints.iter().find(|endpoint| endpoint.networks.iter().any(|n| n.contains(source)));
    let index = known.and_then(|endpoint| endpoint.ifindex).unwrap_or(ifindex(i));
    let index = if e.one_in(20) { 999 } else { index };
    let to = if e.one_in(20) { Mac::BROADCAST } else { GATEWAY_MAC };
    (Ingress::Workload(index), frame(&packet, to, pod_mac(i), e))
}

fn from_underlay(spec: &NodeSpec, e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let known = if spec.vteps.is_empty() { None } else { Some(&spec.vteps[e.below(spec.vteps.len())]) };
    let from = known.map_or(outer(2, false), |vtep| vtep.outer);
    let from = if e.one_in(20) { outer(66, from.is_ipv6()) } else { from };
    let (outer_v6, v6) = (from.is_ipv6(), e.one_in(2));
    let node = match from {
        IpAddr::V4(a) => u16::from(a.octets()[3]),
        IpAddr::V6(a) => a.segments()[7],
    };
    let source = if e.one_in(8) { address(v6, e) } else { pod(node, e.below(4) as u8, v6) };
    let destination = if e.one_in(3) { address(v6, e) } else { pod(1, e.below(4) as u8, v6) };
    let packet = ip(source, destination, e);
    let own = if outer_v6 { OUR_MAC6 } else { OUR_MAC };
    let own = if e.one_in(20) { Mac::BROADCAST } else { own };
    let mut inner = frame(&packet, own, mac(node, outer_v6), e);
    if e.one_in(24) {
        let ether_type: u16 = e.pick(&[0x8100, 0x88a8, 0x0806, 0x9000]);
        inner[12..14].copy_from_slice(&ether_type.to_be_bytes());
    }
    let vxlan = spec.vxlan;
    let port = vxlan.map_or(8472, |vxlan| vxlan.port);
    let port = if e.one_in(24) { 1234 } else { port };
    let vni = vxlan.map_or(Vni::FLANNEL, |vxlan| vxlan.vni);
    let vni = if e.one_in(24) { Vni::from_octets([9, 9, 9]) } else { vni };
    let to = if e.one_in(24) { outer(9, outer_v6) } else { our_outer(outer_v6) };
    let tos = if e.one_in(3) { e.byte() } else { packet.tos & 3 };
    let mut bytes = packets::encapsulated((from, to), port, vni, tos, &inner);
    let at = if outer_v6 { 62 } else { 42 };
    if e.one_in(12) {
        bytes[at] ^= e.pick(&[0x80, 0x08, 0xf7]);
    }
    if e.one_in(24) {
        bytes[at - 2..at].fill(0);
    }
    (Ingress::Underlay, bytes)
}

fn from_direct(e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let v6 = e.one_in(2);
    let node = 2 + e.below(usize::from(NODES)) as u16;
    let source = if e.one_in(5) { address(v6, e) } else { pod(node, 1, v6) };
    let packet = ip(source, address(v6, e), e);
    (Ingress::Direct, frame(&packet, Mac::ZERO, Mac::ZERO, e))
}

fn from_gateway(e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let v6 = e.one_in(2);
    let source = if e.one_in(6) { address(v6, e) } else { behind_gateway(v6, e) };
    let packet = ip(source, address(v6, e), e);
    let g = 1 + e.below(GATEWAYS.into()) as u8;
    let ingress = Ingress::Gateway(if e.one_in(20) { 999 } else { gateway_ifindex(g) });
    (ingress, frame(&packet, Mac::ZERO, Mac::ZERO, e))
}

fn from_host(e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let v6 = e.one_in(2);
    let source = if e.one_in(4) { address(v6, e) } else { pod(1, 0, v6) };
    let packet = ip(source, address(v6, e), e);
    (Ingress::Host, frame(&packet, Mac::ZERO, Mac::ZERO, e))
}

/// Where neighbours are asked for: mostly from a workload.
fn link(i: u8, e: &mut Entropy<'_>) -> Ingress {
    match e.below(13) {
        12 => Ingress::Gateway(gateway_ifindex(1)),
        9 => Ingress::Workload(999),
        10 => Ingress::Host,
        11 => Ingress::Direct,
        _ => Ingress::Workload(ifindex(i)),
    }
}

fn arp(e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let i = 1 + e.below(PODS.into()) as u8;
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let sender = if e.one_in(4) { address(false, e) } else { pod(1, i, false) };
    let target = if e.one_in(2) { address(false, e) } else { GATEWAY_V4.into() };
    let operation = e.pick(&[1, 1, 1, 2, 3]);
    let mac = pod_mac(i).0;
    let ends = [&mac[..], &octets(sender), &[0; 6], &octets(target)].concat();
    let bytes = [&[0xff; 6], &mac[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &ends].concat();
    (link(i, e), bytes)
}

fn discovery(e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    let i = 1 + e.below(PODS.into()) as u8;
    let link_local = IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, i.into()));
    let source = match e.below(4) {
        2 => link_local,
        3 => address(true, e),
        _ => pod(1, i, true),
    };
    let target = if e.one_in(2) { address(true, e) } else { GATEWAY_V6.into() };
    let IpAddr::V6(asked) = target else { unreachable!("an IPv6 address") };
    let destination =
        if e.one_in(4) { address(true, e) } else { crate::reply::nd::solicited_node(asked).into() };
    let kind = e.pick(&[135, 135, 135, 136, 134, 133, 137]);
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind != 133 {
        message.extend(asked.octets());
    }
    if e.one_in(2) {
        message.extend([1, 1]);
        message.extend(pod_mac(i).0);
    }
    let mut packet = Ip::new(source, destination, packets::ICMPV6, message).finished();
    packet.ttl = if e.one_in(8) { 64 } else { 255 };
    if e.one_in(10) {
        extend(&mut packet, e);
    }
    let bytes = packet.frame(Mac([0x33, 0x33, 0, 0, 0, 1]), pod_mac(i));
    (link(i, e), bytes)
}

/// A router's word about something that was sent, or seems to have been.
fn too_big(sent: &[Vec<u8>], e: &mut Entropy<'_>) -> (Ingress, Vec<u8>) {
    if sent.is_empty() {
        return (Ingress::Underlay, Vec::new());
    }
    let mut about = sent[e.below(sent.len())].clone();
    if e.one_in(4) {
        let at = 14 + usize::from(e.word()) % (about.len() - 14).min(120);
        about[at] ^= 1 << e.below(8);
    }
    let v6 = about[12] == 0x86;
    let quoted = if e.one_in(6) { usize::from(e.byte()) } else { 548 };
    let quote = &about[14..about.len().min(14 + quoted)];
    let mtu = 1200 + u32::from(e.word()) % 400;
    let mut message = if v6 { vec![2, 0, 0, 0] } else { vec![3, e.pick(&[4, 4, 4, 1]), 0, 0] };
    message.extend(mtu.to_be_bytes());
    message.extend(quote);
    let protocol = if v6 { packets::ICMPV6 } else { packets::ICMP };
    let packet = Ip::new(outer(99, v6), our_outer(v6), protocol, message).finished();
    (Ingress::Underlay, packet.frame(Mac::ZERO, Mac::ZERO))
}
