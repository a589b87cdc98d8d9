//! Super-frames of up to 64 KB through the tunnel, in both directions, with every kind of port.

use std::net::IpAddr;

use canal_dataplane::limits::SUPER_FRAME_BUFFER;
use canal_dataplane::net::Mac;
use canal_dataplane::offload::{Caps, Checksum, Gso, GsoKind, Offload, Tunnel};
use canal_dataplane::port::mem::{MemPort, Sent};
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::verify::{checksum, finished, pseudo_header};
use canal_dataplane::testing::world::{self, World, from_node, from_pod, inner_frame, pod};
use canal_dataplane::verdict::DropReason;

use crate::{POD1, front};

/// Payload of a segment: with all headers it fits the smallest overlay MTU of the matrix.
const SIZE: u16 = 1370;

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
struct Case {
    outer_v6: bool,
    inner_v6: bool,
    udp: bool,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self { outer_v6: bits & 1 != 0, inner_v6: bits & 2 != 0, udp: bits & 4 != 0 })
    }

    fn ip_header(self) -> usize {
        if self.inner_v6 { 40 } else { 20 }
    }

    fn transport_header(self) -> usize {
        if self.udp { 8 } else { 20 }
    }

    fn checksum_offset(self) -> u16 {
        if self.udp { 6 } else { 16 }
    }

    /// The largest payload whose inner IP packet is 65,535 bytes long.
    fn most(self) -> usize {
        let headers = self.transport_header() + if self.inner_v6 { 0 } else { 20 };
        // The payload length of IPv6 does not count its header; stay within what a kernel makes.
        if self.inner_v6 { 65_535 - 40 - headers } else { 65_535 - headers }
    }

    fn packet(self, source: IpAddr, destination: IpAddr, len: usize) -> Ip {
        let (from, to) = ((source, 4000), (destination, 5000));
        let mut packet =
            if self.udp { packets::udp(from, to, len) } else { packets::tcp(from, to, 0x10, len) };
        // A pattern that shows when segments are lost or exchanged.
        let at = self.transport_header();
        for (i, byte) in packet.payload[at..].iter_mut().enumerate() {
            *byte = (i / 7) as u8 ^ (i >> 8) as u8;
        }
        packet.dont_fragment = true;
        packet.finished()
    }

    /// The packet behind `prefix` bytes as a kernel hands it over: checksum unfinished, to be cut every `SIZE` bytes.
    fn unfinished(self, frame: &mut [u8], prefix: usize, packet: &Ip) -> Offload {
        let start = prefix + 14 + self.ip_header();
        let sum = !checksum(&pseudo_header(
            packet.source,
            packet.destination,
            packet.protocol,
            packet.payload.len(),
        ));
        let at = start + usize::from(self.checksum_offset());
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let kind = match (self.udp, self.inner_v6) {
            (true, _) => GsoKind::Udp,
            (false, false) => GsoKind::Tcp4,
            (false, true) => GsoKind::Tcp6,
        };
        let checksum = Checksum::Partial { start: start as u16, offset: self.checksum_offset() };
        Offload { checksum, gso: Some(Gso { kind, size: SIZE, ecn: false }), tunnel: None }
    }

    fn tunnel(self) -> Tunnel {
        Tunnel {
            outer_v6: self.outer_v6,
            outer_transport: if self.outer_v6 { 54 } else { 34 },
            inner_network: (front(self.outer_v6) + 14) as u16,
            outer_checksum: self.outer_v6,
        }
    }

    fn world(self, caps: Caps) -> World {
        World::with_frames(&world::spec_over(2, self.outer_v6), caps, SUPER_FRAME_BUFFER)
    }

    /// Transport payloads of the frames, whose inner Ethernet header is `prefix` bytes from the start.
    fn payloads(self, sent: &[Sent], prefix: usize) -> Vec<u8> {
        let skip = prefix + 14 + self.ip_header() + self.transport_header();
        sent.iter().flat_map(|sent| sent.packet[skip..].iter().copied()).collect()
    }
}

/// The two length fields of the outer headers.
fn outer_lengths(packet: &[u8], outer_v6: bool) -> (usize, usize) {
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if outer_v6 { (word(18) + 40, word(58)) } else { (word(16), word(38)) }
}

#[test]
fn a_super_frame_is_encapsulated_whole_and_its_offsets_move() {
    for case in Case::all() {
        let mut world = case.world(Caps::ALL);
        let packet = case.packet(pod(1, 1, case.inner_v6), pod(2, 1, case.inner_v6), 60_000);
        let mut frame = from_pod(1, &packet);
        let offload = case.unfinished(&mut frame, 0, &packet);
        let sent = world.run([(POD1, offload, frame)]);
        assert_eq!(sent.len(), 1, "{case:?}");
        let front = front(case.outer_v6);
        let start = (front + 14 + case.ip_header()) as u16;
        let expected = Offload {
            checksum: Checksum::Partial { start, offset: case.checksum_offset() },
            gso: offload.gso,
            tunnel: Some(case.tunnel()),
        };
        assert_eq!((sent[0].egress, sent[0].offload), (Egress::Underlay, expected), "{case:?}");
        let ip = sent[0].packet.len() - 14;
        let headers = if case.outer_v6 { 40 } else { 20 };
        assert_eq!(outer_lengths(&sent[0].packet, case.outer_v6), (ip, ip - headers));
        assert_eq!(case.payloads(&sent, front), packet.payload[case.transport_header()..]);
        // One hop, the header checksum right, the rest as it came.
        let ttl = front + if case.inner_v6 { 21 } else { 22 };
        assert_eq!(sent[0].packet[ttl], 63);
    }
}

#[test]
fn a_super_frame_is_split_when_its_outer_length_would_overflow() {
    for case in Case::all() {
        let mut world = case.world(Caps::ALL);
        let packet = case.packet(pod(1, 1, case.inner_v6), pod(2, 1, case.inner_v6), case.most());
        let mut frame = from_pod(1, &packet);
        let offload = case.unfinished(&mut frame, 0, &packet);
        let sent = world.run([(POD1, offload, frame)]);
        assert_eq!(sent.len(), 2, "{case:?}");
        for piece in &sent {
            let ip = piece.packet.len() - 14;
            assert!(ip <= 65_535);
            let headers = if case.outer_v6 { 40 } else { 20 };
            assert_eq!(outer_lengths(&piece.packet, case.outer_v6), (ip, ip - headers), "{case:?}");
        }
        // The second piece is a segment or a few; whichever, the offsets of a super-frame are the same.
        assert_eq!(sent[0].offload.tunnel, Some(case.tunnel()));
        assert_eq!(case.payloads(&sent, front(case.outer_v6)), packet.payload[case.transport_header()..]);
    }
}

#[test]
fn a_super_frame_is_lowered_to_wire_packets_for_a_port_without_offloads() {
    for case in Case::all() {
        for len in [usize::from(SIZE), 2 * usize::from(SIZE) + 1, case.most()] {
            let mut world = case.world(Caps::NONE);
            let packet = case.packet(pod(1, 1, case.inner_v6), pod(2, 1, case.inner_v6), len);
            let mut frame = from_pod(1, &packet);
            let offload = case.unfinished(&mut frame, 0, &packet);
            let sent = world.run([(POD1, offload, frame)]);
            assert_eq!(sent.len(), len.div_ceil(usize::from(SIZE)), "{case:?}");
            let front = front(case.outer_v6);
            for segment in &sent {
                assert_eq!((segment.egress, segment.offload), (Egress::Underlay, Offload::NONE));
                assert!(segment.packet.len() <= 14 + 1500, "{}", segment.packet.len());
                assert_eq!(finished(&segment.packet), Ok(()), "{case:?}");
                assert_eq!(finished(&segment.packet[front..]), Ok(()), "{case:?}");
            }
            assert_eq!(case.payloads(&sent, front), packet.payload[case.transport_header()..]);
        }
    }
}

/// A super-frame as it comes out of the tunnel's far end.
fn tunnelled(case: Case, packet: &Ip) -> (Vec<u8>, Offload) {
    let mut frame = from_node(2, case.outer_v6, packet);
    let mut offload = case.unfinished(&mut frame, front(case.outer_v6), packet);
    offload.tunnel = Some(case.tunnel());
    (frame, offload)
}

#[test]
fn a_tunnelled_super_frame_is_decapsulated_whole_and_its_offsets_move_back() {
    for case in Case::all() {
        let mut world = case.world(Caps::ALL);
        let packet = case.packet(pod(2, 1, case.inner_v6), pod(1, 1, case.inner_v6), 60_000);
        let (frame, offload) = tunnelled(case, &packet);
        let sent = world.run([(Ingress::Underlay, offload, frame)]);
        assert_eq!(sent.len(), 1, "{case:?} {}", world.counters.all_drops());
        let start = (14 + case.ip_header()) as u16;
        let checksum = Checksum::Partial { start, offset: case.checksum_offset() };
        let expected = Offload { checksum, gso: offload.gso, tunnel: None };
        assert_eq!((sent[0].egress, sent[0].offload), (Egress::Workload(101), expected));
        assert_eq!(case.payloads(&sent, 0), packet.payload[case.transport_header()..]);
    }
}

#[test]
fn a_tunnelled_super_frame_is_lowered_for_a_port_without_offloads() {
    for case in Case::all() {
        let mut world = case.world(Caps::NONE);
        let packet = case.packet(pod(2, 1, case.inner_v6), pod(1, 1, case.inner_v6), 60_000);
        let (frame, offload) = tunnelled(case, &packet);
        let sent = world.run([(Ingress::Underlay, offload, frame)]);
        assert_eq!(sent.len(), 60_000usize.div_ceil(usize::from(SIZE)));
        assert!(sent.iter().all(|segment| finished(&segment.packet) == Ok(())), "{case:?}");
        assert_eq!(case.payloads(&sent, 0), packet.payload[case.transport_header()..]);
    }
}

#[test]
fn a_super_frame_passes_from_tunnel_to_tunnel_to_pod_to_host() {
    for case in Case::all() {
        let mut world =
            World::with_frames(&world::spec_over(3, case.outer_v6), Caps::ALL, SUPER_FRAME_BUFFER);
        let packet = case.packet(pod(2, 1, case.inner_v6), pod(3, 1, case.inner_v6), 60_000);
        let (frame, offload) = tunnelled(case, &packet);
        let sent = world.run([(Ingress::Underlay, offload, frame)]);
        assert_eq!((sent.len(), sent[0].offload), (1, offload), "{case:?}");
        let packet = case.packet(pod(1, 1, case.inner_v6), pod(1, 2, case.inner_v6), 60_000);
        let mut frame = from_pod(1, &packet);
        let offload = case.unfinished(&mut frame, 0, &packet);
        let sent = world.run([(POD1, offload, frame)]);
        assert_eq!((sent[0].egress, sent[0].offload), (Egress::Workload(102), offload));
        let packet = case.packet(pod(1, 0, case.inner_v6), pod(1, 2, case.inner_v6), 60_000);
        let mut frame = packet.frame(Mac::ZERO, Mac::ZERO);
        let offload = case.unfinished(&mut frame, 0, &packet);
        let sent = world.run([(Ingress::Host, offload, frame)]);
        assert_eq!((sent[0].egress, sent[0].offload), (Egress::Workload(102), offload));
    }
}

#[test]
fn segments_too_big_for_the_tunnel_are_told_to_the_sender() {
    for case in Case::all() {
        let mut world = case.world(Caps::ALL);
        let packet = case.packet(pod(1, 1, case.inner_v6), pod(2, 1, case.inner_v6), 20_000);
        let mut frame = from_pod(1, &packet);
        let mut offload = case.unfinished(&mut frame, 0, &packet);
        let mtu = if case.outer_v6 { 1430 } else { 1450 };
        let fits = mtu - case.ip_header() - case.transport_header();
        for (size, through) in [(fits, true), (fits + 1, false)] {
            offload.gso = offload.gso.map(|gso| Gso { size: size as u16, ..gso });
            let sent = world.run([(POD1, offload, frame.clone())]);
            assert_eq!(sent.len(), 1);
            let expected = if through { Egress::Underlay } else { Egress::Workload(101) };
            assert_eq!(sent[0].egress, expected, "{case:?} {size}");
            if !through {
                assert_eq!((sent[0].offload, finished(&sent[0].packet)), (Offload::NONE, Ok(())));
            }
        }
    }
}

#[test]
fn offload_state_that_contradicts_the_headers_is_dropped() {
    for case in Case::all() {
        let mut world = case.world(Caps::NONE);
        let packet = case.packet(pod(1, 1, case.inner_v6), pod(2, 1, case.inner_v6), 5000);
        let mut frame = from_pod(1, &packet);
        let good = case.unfinished(&mut frame, 0, &packet);
        let Some(gso) = good.gso else { unreachable!("a super-frame") };
        let other = if case.udp { GsoKind::Tcp4 } else { GsoKind::Udp };
        let partial = |start| Checksum::Partial { start, offset: case.checksum_offset() };
        for offload in [
            Offload { gso: Some(Gso { size: 0, ..gso }), ..good },
            Offload { gso: Some(Gso { kind: other, ..gso }), ..good },
            Offload { checksum: partial(14), ..good },
            Offload { checksum: partial(60_000), ..good },
            Offload { checksum: partial(u16::MAX), ..good },
        ] {
            let before = world.counters.drops(DropReason::OffloadUnsupported);
            let sent = world.run([(POD1, offload, frame.clone())]);
            assert!(sent.is_empty(), "{case:?} {offload:?}");
            assert_eq!(world.counters.drops(DropReason::OffloadUnsupported), before + 1, "{offload:?}");
        }
        // A run of datagrams under one outer header.
        let (frame, offload) =
            tunnelled(case, &case.packet(pod(2, 1, case.inner_v6), pod(1, 1, case.inner_v6), 5000));
        let before = world.counters.drops(DropReason::OffloadUnsupported);
        let sent = world.run([(Ingress::Underlay, Offload { tunnel: None, ..offload }, frame)]);
        assert!(sent.is_empty());
        assert_eq!(world.counters.drops(DropReason::OffloadUnsupported), before + 1);
    }
}

#[test]
fn segments_of_a_small_port_are_coalesced_for_a_large_one() {
    for case in Case::all().filter(|case| !case.udp) {
        let mut world = case.world(Caps::NONE);
        world.underlay = Some(MemPort::new(Caps::ALL));
        let whole = case.packet(pod(1, 1, case.inner_v6), pod(2, 1, case.inner_v6), 20 * usize::from(SIZE));
        let mut segments = Vec::new();
        for (i, piece) in whole.payload[20..].chunks(SIZE.into()).enumerate() {
            let mut segment = whole.clone();
            segment.payload.truncate(20);
            segment.payload.extend(piece);
            let sequence = (i * usize::from(SIZE)) as u32;
            segment.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
            segments.push((POD1, Offload::NONE, from_pod(1, &segment.finished())));
        }
        let sent = world.run(segments);
        assert_eq!(sent.len(), 1, "{case:?}");
        let front = front(case.outer_v6);
        let kind = if case.inner_v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        assert_eq!(sent[0].offload.gso, Some(Gso { kind, size: SIZE, ecn: false }));
        assert_eq!(sent[0].offload.tunnel, Some(case.tunnel()));
        assert_eq!(case.payloads(&sent, front), whole.payload[20..]);
        assert_eq!(sent[0].packet[front..front + 12], inner_ethernet(case));
    }
}

/// The addresses of the frame that we send to node 2.
fn inner_ethernet(case: Case) -> Vec<u8> {
    let back = packets::ping(pod(2, 1, false), pod(1, 1, false), 1);
    let frame = inner_frame(2, case.outer_v6, &back);
    [&frame[6..12], &frame[..6]].concat()
}
