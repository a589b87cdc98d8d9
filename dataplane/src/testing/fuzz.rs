//! What the fuzz targets do with their bytes; a plain test runs the same over pseudo-random ones. Each panics when
//! something is wrong.

use std::cell::RefCell;
use std::net::IpAddr;

use super::entropy::Entropy;
use super::packets::{self, Ip};
use super::twin::Twin;
use super::world::{self, World, from_pod, gateway_ifindex, ifindex, our_outer, outer, pod};
use super::{traffic, verify};
use crate::limits::{ETHERNET, MAX_IP, SUPER_FRAME_BUFFER};
use crate::net::Mac;
use crate::offload::{Caps, Checksum, Gso, GsoKind, Offload, Tunnel};
use crate::packet::Quote;
use crate::port::mem::MemPort;
use crate::port::{Egress, Ingress};
use crate::reference;
use crate::spec::{NodeSpec, Route, Via};
use crate::wire;
use crate::wire::outer::Payload;

thread_local! {
    static PLAYER: RefCell<Twin> = RefCell::new(Twin::new());
    static NODE: RefCell<Twin> = RefCell::new(Twin::of(&node()));
    static OFFLOADED: RefCell<World> =
        RefCell::new(World::with_frames(&world::spec(4), Caps::NONE, SUPER_FRAME_BUFFER));
}

/// A small dual-stack network; one gateway interface.
fn node() -> NodeSpec {
    let mut spec = world::spec(4);
    spec.gateways.push(world::gateway(1, 1500));
    let via = Via::Gateway([world::hop(1, None)].into());
    spec.routes.extend([false, true].map(|v6| Route { prefix: world::link(1, v6), via: via.clone() }));
    spec
}

/// A whole scenario: network, changes, packets. The pipeline must do what its slow twin does.
pub fn pipeline(bytes: &[u8]) {
    PLAYER.with_borrow_mut(|twin| twin.play(bytes));
}

/// One packet of raw bytes (the first says by which way it comes) to a node of a small dual-stack network.
pub fn packet_parse(bytes: &[u8]) {
    let Some((way, packet)) = bytes.split_first() else { return };
    let ingress = match way % 8 {
        0 | 1 => Ingress::Workload(ifindex(1)),
        2 | 3 => Ingress::Underlay,
        4 => Ingress::Decapsulated(outer(2, way & 0x80 != 0)),
        5 => Ingress::Direct,
        6 => Ingress::Gateway(gateway_ifindex(1)),
        _ => Ingress::Host,
    };
    NODE.with_borrow_mut(|twin| twin.check(ingress, packet));
}

/// A frame of raw bytes as outer headers: what is read lies within the frame, and the twin reads the same.
pub fn outer_headers(bytes: &[u8]) {
    if let Ok(read) = wire::outer::read(bytes) {
        assert!(read.header_len <= read.end && read.end <= bytes.len(), "{read:?}");
        assert_eq!(read.is_v6, read.source.is_ipv6());
        if let Payload::TooBig { quote, .. } = read.payload {
            assert!(quote <= read.end, "{read:?}");
        }
    }
    if let Some(header) = bytes.first_chunk() {
        let read = wire::vxlan::Header::read(header);
        assert_eq!(read.vni.is_some(), header[0] & 8 != 0);
        if let Some(vni) = read.vni.filter(|_| !read.reserved_bits) {
            assert_eq!(wire::vxlan::Header::write(vni), *header);
        }
    }
    NODE.with_borrow_mut(|twin| twin.check(Ingress::Underlay, bytes));
}

/// What an ICMP error quotes, as raw bytes: read the same by both sides, and nothing behind its end.
pub fn quote(bytes: &[u8]) {
    let read = Quote::read(bytes);
    assert_eq!(read, reference::quote(bytes), "{bytes:02x?}");
    let Some(quote) = read else { return };
    // Eight bytes of the transport are enough, whatever follows.
    let shorter = (0..bytes.len()).find(|len| Quote::read(&bytes[..*len]).is_some());
    for len in shorter.unwrap_or(bytes.len())..bytes.len() {
        assert_eq!(Quote::read(&bytes[..len]), Some(quote), "{len} of {bytes:02x?}");
    }
    // Inside of an error it is the same, wherever the error comes from.
    let v6 = quote.key.is_v6();
    let (protocol, kind) = if v6 { (packets::ICMPV6, 1) } else { (packets::ICMP, 3) };
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &bytes[..bytes.len().min(1200)]].concat();
    let error = Ip::new(pod(2, 0, v6), pod(1, 1, v6), protocol, message).finished();
    NODE.with_borrow_mut(|twin| twin.check(Ingress::Underlay, &world::from_node(2, v6, &error)));
}

/// An ICMP error about a packet that the node did send, with bytes of the quote changed as told. Both sides must agree
/// whether it is believed, and on what fits afterwards.
pub fn path_mtu(bytes: &[u8]) {
    let mut e = Entropy::new(bytes);
    let (outer_v6, len) = (e.one_in(2), 40 + usize::from(e.word()) % 1300);
    let (from, to) = ((pod(1, 1, outer_v6), 1000), (pod(2 + e.below(3) as u16, 1, outer_v6), 2000));
    let mut packet = packets::udp(from, to, len);
    packet.dont_fragment = true;
    let packet = from_pod(1, &packet);
    NODE.with_borrow_mut(|twin| {
        twin.check(Ingress::Workload(ifindex(1)), &packet);
        let Some(sent) = twin.last_sent().map(<[u8]>::to_vec) else { return };
        let v6 = sent[14] >> 4 == 6;
        let mut quote = sent[14..].to_vec();
        let mtu = e.word();
        quote.truncate(if e.one_in(4) { e.below(256) } else { 548 });
        for _ in 0..e.below(4) {
            let at = usize::from(e.byte()) % quote.len().max(1);
            if let Some(byte) = quote.get_mut(at) {
                *byte ^= e.byte();
            }
        }
        let kind = if v6 { [2, 0] } else { [3, 4] };
        let message = [&kind[..], &[0, 0, 0, 0], &mtu.to_be_bytes(), &quote].concat();
        let (router, protocol): (IpAddr, u8) =
            (outer(99, v6), if v6 { packets::ICMPV6 } else { packets::ICMP });
        let error = Ip::new(router, our_outer(v6), protocol, message).finished();
        twin.check(Ingress::Underlay, &error.frame(Mac::ZERO, Mac::ZERO));
        twin.check(Ingress::Workload(ifindex(1)), &packet);
    });
}

/// A packet with any offload state, right or wrong, for a port with any capabilities. No frame is lost, every packet
/// ends somewhere, and what leaves is within the port's capabilities; finished if it was well-formed.
pub fn offloads(bytes: &[u8]) {
    let mut e = Entropy::new(bytes);
    let flags = e.byte();
    // No kernel interface segments without finishing checksums.
    let checksum = flags & 7 != 0;
    let caps = Caps { checksum, tso: flags & 2 != 0, uso: flags & 4 != 0, tunnel: flags & 8 != 0 };
    let offload = offload(&mut e);
    let (ingress, mut packet) = traffic::packet(&world::spec(4), &[], &mut e);
    if e.one_in(2) {
        // A long one: the payload repeats itself, lengths are mended.
        let len = packet.len() + usize::from(e.word());
        packet.resize(len.min(ETHERNET + MAX_IP), 7);
        lengthen(&mut packet);
    }
    OFFLOADED.with_borrow_mut(|world| {
        world.restart();
        world.port = MemPort::new(caps);
        world.update(&world::spec(4));
        // `run` asserts that no frame is lost.
        let sent = world.run([(ingress, offload, packet)]);
        assert!(!sent.is_empty() || world.counters.all_drops() > 0, "the packet vanished");
        for sent in sent {
            let Offload { checksum, gso, tunnel } = sent.offload;
            assert!(caps.checksum || !matches!(checksum, Checksum::Partial { .. }), "{sent:?}");
            assert!(tunnel.is_none() || caps.tunnel && gso.is_some(), "{sent:?}");
            match gso.map(|gso| gso.kind) {
                None => {}
                Some(GsoKind::Udp) => assert!(caps.uso, "{sent:?}"),
                Some(_) => assert!(caps.tso, "{sent:?}"),
            }
            assert!(sent.packet.len() <= ETHERNET + MAX_IP, "{}", sent.packet.len());
            if sent.egress == Egress::Underlay && sent.offload == Offload::NONE {
                assert_eq!(verify::finished(&sent.packet), Ok(()), "the outer packet of {sent:?}");
            }
        }
    });
}

/// Makes the IP length of a plain packet that of its frame.
fn lengthen(packet: &mut [u8]) {
    let len = packet.len().saturating_sub(14);
    match packet.get(12..14) {
        Some([0x08, 0x00]) if packet.len() >= 34 => {
            packet[16..18].copy_from_slice(&(len.min(65_535) as u16).to_be_bytes());
            packet[24..26].fill(0);
            let header_len = (usize::from(packet[14] & 15) * 4).clamp(20, len);
            let sum = verify::checksum(&packet[14..14 + header_len]);
            packet[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        Some([0x86, 0xdd]) if packet.len() >= 54 => {
            packet[18..20].copy_from_slice(&((len - 40).min(65_535) as u16).to_be_bytes());
        }
        _ => {}
    }
}

/// Any offload state; often one that fits a plain packet.
fn offload(e: &mut Entropy<'_>) -> Offload {
    let start = e.pick(&[34, 54, 84, 104, 34, 54]);
    let checksum = match e.below(8) {
        0..=3 => Checksum::Partial { start, offset: e.pick(&[16, 6]) },
        // No transport has its checksum at an odd offset.
        4 => Checksum::Partial { start: e.word(), offset: e.word() & !1 },
        5 => Checksum::Verified,
        _ => Checksum::Complete,
    };
    let kind = e.pick(&[GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp]);
    let size = if e.one_in(2) { e.word() } else { e.pick(&[1370, 1448, 100, 1, 0]) };
    let gso = e.one_in(2).then_some(Gso { kind, size, ecn: e.one_in(2) });
    let outer_v6 = e.one_in(2);
    let (outer_transport, inner_network) = if outer_v6 { (54, 84) } else { (34, 64) };
    let tunnel = Tunnel { outer_v6, outer_transport, inner_network, outer_checksum: e.one_in(2) };
    let odd = Tunnel { outer_transport: e.word(), inner_network: e.word(), ..tunnel };
    let tunnel = match e.below(6) {
        0 => Some(tunnel),
        1 => Some(odd),
        _ => None,
    };
    // A port speaks of a tunnel for super-frames only.
    let tunnel = tunnel.filter(|_| gso.is_some());
    Offload { checksum, gso, tunnel }
}
