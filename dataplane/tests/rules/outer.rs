//! Outer IP and UDP headers.

use canal_dataplane::net::Vni;
use canal_dataplane::offload::{Caps, Checksum, Offload};
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::testing::packets;
use canal_dataplane::testing::verify::{checksum, finished, pseudo_header};
use canal_dataplane::testing::world::{self, World, from_node, from_pod, inner_frame, our_outer, outer, pod};
use canal_dataplane::verdict::DropReason;

use crate::{POD1, front};

/// Sets the outer UDP checksum field.
fn with_checksum(mut packet: Vec<u8>, outer_v6: bool, value: u16) -> Vec<u8> {
    let at = if outer_v6 { 60 } else { 40 };
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
    packet
}

/// What a kernel leaves in the field when the device is to finish the checksum: the sum of the pseudo-header.
fn unfinished(packet: &[u8], v6: bool) -> u16 {
    let len = packet.len() - if v6 { 54 } else { 34 };
    !checksum(&pseudo_header(outer(2, v6), our_outer(v6), 17, len))
}

#[test]
fn outer_udp_checksum_v4_zero_valid_wrong_and_unfinished_are_accepted() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let inner = packets::udp((pod(2, 9, false), 80), (pod(1, 1, false), 5000), 11);
    let zero = from_node(2, false, &inner);
    let len = zero.len() - 34;
    let pseudo = pseudo_header(outer(2, false), our_outer(false), 17, len);
    let valid = checksum(&[&pseudo[..], &zero[34..]].concat());
    assert_ne!(valid, 0);
    // The inner packet has a checksum of its own, and a peer on veth or virtio sends an unfinished outer one.
    for value in [0, valid, !valid, unfinished(&zero, false)] {
        let packet = with_checksum(zero.clone(), false, value);
        let sent = world.one(Ingress::Underlay, packet).unwrap_or_else(|| panic!("{value:#x}"));
        assert_eq!(sent.egress, Egress::Workload(101));
        assert_eq!(finished(&sent.packet), Ok(()));
    }
    // The same, as a kernel on this machine hands it over: what is unfinished is the outer checksum, not an inner one.
    let packet = with_checksum(zero.clone(), false, unfinished(&zero, false));
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, ..Offload::NONE };
    let sent = world.run([(Ingress::Underlay, offload, packet)]);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].offload, finished(&sent[0].packet)), (Offload::NONE, Ok(())));
}

#[test]
fn outer_udp_checksum_v4_is_zero_or_valid_on_send() {
    for on in [false, true] {
        let mut spec = world::spec(2);
        spec.settings.outer_checksum_v4 = on;
        let mut world = World::new(&spec, Caps::NONE);
        for len in 0..40 {
            let packet = packets::udp((pod(1, 1, false), 80), (pod(2, 1, false), 5000), len);
            let sent = world.one(POD1, from_pod(1, &packet)).expect("forwarded");
            assert_eq!(sent.packet[40..42] != [0, 0], on);
            assert_eq!((finished(&sent.packet), finished(&sent.packet[50..])), (Ok(()), Ok(())));
        }
    }
}

#[test]
fn outer_v6_zero_checksum_is_dropped() {
    let mut world = World::new(&world::spec_over(2, true), Caps::NONE);
    let inner = packets::udp((pod(2, 9, false), 80), (pod(1, 1, false), 5000), 11);
    let valid = from_node(2, true, &inner);
    assert_eq!(finished(&valid), Ok(()));
    let zero = with_checksum(valid.clone(), true, 0);
    assert_eq!(world.dropped(Ingress::Underlay, zero), Some(DropReason::OuterZeroChecksumV6));
    for value in [unfinished(&valid, true), 0x1234] {
        assert!(world.one(Ingress::Underlay, with_checksum(valid.clone(), true, value)).is_some());
    }
    assert!(world.one(Ingress::Underlay, valid).is_some());
}

#[test]
fn outer_v6_checksum_is_valid_on_send() {
    for inner_v6 in [false, true] {
        let mut world = World::new(&world::spec_over(2, true), Caps::NONE);
        for len in 0..40 {
            let packet = packets::udp((pod(1, 1, inner_v6), 80), (pod(2, 1, inner_v6), 5000), len);
            let sent = world.one(POD1, from_pod(1, &packet)).expect("forwarded");
            assert_ne!(sent.packet[60..62], [0, 0]);
            assert_eq!((finished(&sent.packet), finished(&sent.packet[70..])), (Ok(()), Ok(())));
        }
    }
}

#[test]
fn an_unfinished_inner_checksum_is_finished_once_and_the_outer_one_is_right() {
    for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut spec = world::spec_over(2, outer_v6);
        spec.settings.outer_checksum_v4 = true;
        for (caps, finish) in [(Caps::NONE, true), (Caps { checksum: true, ..Caps::NONE }, false)] {
            let mut world = World::new(&spec, caps);
            let packet = packets::tcp((pod(1, 1, inner_v6), 80), (pod(2, 1, inner_v6), 5000), 0x18, 33);
            let mut frame = from_pod(1, &packet);
            let start = if inner_v6 { 54 } else { 34 };
            let (source, target) = (packet.source, packet.destination);
            let sum = !checksum(&pseudo_header(source, target, 6, packet.payload.len()));
            frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
            let partial = Checksum::Partial { start: start as u16, offset: 16 };
            let sent = world.run([(POD1, Offload { checksum: partial, ..Offload::NONE }, frame)]);
            assert_eq!(sent.len(), 1);
            let mut whole = sent[0].packet.clone();
            let shifted = start + front(outer_v6);
            if finish {
                assert_eq!(sent[0].offload, Offload::NONE);
            } else {
                let partial = Checksum::Partial { start: shifted as u16, offset: 16 };
                assert_eq!(sent[0].offload.checksum, partial);
                let value = checksum(&whole[shifted..]);
                whole[shifted + 16..shifted + 18].copy_from_slice(&value.to_be_bytes());
            }
            assert_eq!((finished(&whole), finished(&whole[front(outer_v6)..])), (Ok(()), Ok(())));
        }
    }
}

#[test]
fn the_outer_ttl_is_constant_and_df_is_as_configured() {
    for (ttl, df) in [(64, false), (64, true), (17, false)] {
        for outer_v6 in [false, true] {
            let mut spec = world::spec_over(2, outer_v6);
            (spec.settings.outer_ttl, spec.settings.outer_df) = (ttl, df);
            let mut world = World::new(&spec, Caps::NONE);
            let mut packet = packets::ping(pod(1, 1, false), pod(2, 1, false), 1);
            packet.ttl = 5;
            let sent = world.one(POD1, from_pod(1, &packet)).expect("forwarded");
            if outer_v6 {
                assert_eq!(sent.packet[21], ttl);
            } else {
                assert_eq!((sent.packet[22], sent.packet[20]), (ttl, if df { 0x40 } else { 0 }));
            }
        }
    }
}

#[test]
fn rfc6864_outer_ids_differ_between_packets_that_may_be_fragmented() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let ids: std::collections::HashSet<[u8; 2]> = (0..500)
        .map(|i| {
            let packet = packets::ping(pod(1, 1, false), pod(2, 1, false), i);
            let sent = world.one(POD1, from_pod(1, &packet)).expect("forwarded");
            [sent.packet[18], sent.packet[19]]
        })
        .collect();
    assert_eq!(ids.len(), 500);
}

#[test]
fn outer_fragments_are_dropped_and_counted_and_nothing_is_kept() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let inner = packets::udp((pod(2, 9, false), 80), (pod(1, 1, false), 5000), 1000);
    let whole = from_node(2, false, &inner);
    let piece = |more: bool, offset: u16, from: usize, to: usize| {
        let mut packet =
            packets::Ip::new(outer(2, false), our_outer(false), 17, whole[34 + from..34 + to].to_vec());
        packet.fragment = (more, offset);
        packet.frame(canal_dataplane::net::Mac::ZERO, canal_dataplane::net::Mac::ZERO)
    };
    // First, overlapping, last, and one beyond 64 KB; then a flood of first ones. `World` asserts that no frame is kept.
    let pieces = [
        piece(true, 0, 0, 504),
        piece(true, 60, 480, 984),
        piece(false, 123, 984, 1000),
        piece(false, 8191, 0, 500),
    ];
    for packet in pieces {
        assert_eq!(world.dropped(Ingress::Underlay, packet), Some(DropReason::MalformedOuter));
    }
    let before = world.counters.drops(DropReason::MalformedOuter);
    let flood = (0..2000).map(|_| (Ingress::Underlay, Offload::NONE, piece(true, 0, 0, 504)));
    assert!(world.run(flood).is_empty());
    assert_eq!(world.counters.drops(DropReason::MalformedOuter), before + 2000);
}

#[test]
fn contradicting_outer_lengths_are_malformed() {
    let inner = packets::ping(pod(2, 1, false), pod(1, 1, false), 1);
    for outer_v6 in [false, true] {
        let mut world = World::new(&world::spec_over(2, outer_v6), Caps::NONE);
        let whole = from_node(2, outer_v6, &inner);
        // Cut anywhere: never delivered. Padded: the padding is cut off.
        for len in 0..whole.len() {
            let reason = world.dropped(Ingress::Underlay, whole[..len].to_vec());
            assert_eq!(reason, Some(DropReason::MalformedOuter), "{len}");
        }
        let padded = [&whole[..], &[0xaa; 30]].concat();
        let sent = world.one(Ingress::Underlay, padded).expect("delivered");
        assert_eq!(sent.packet.len(), inner_frame(2, outer_v6, &inner).len());
        // A UDP length that is shorter than the VXLAN header, or longer than the IP packet.
        let at = if outer_v6 { 58 } else { 38 };
        let real = u16::from_be_bytes([whole[at], whole[at + 1]]);
        for (len, reason) in [
            (0, DropReason::MalformedOuter),
            (7, DropReason::MalformedOuter),
            (real + 1, DropReason::MalformedOuter),
            (u16::MAX, DropReason::MalformedOuter),
        ] {
            let mut packet = whole.clone();
            packet[at..at + 2].copy_from_slice(&len.to_be_bytes());
            assert_eq!(world.dropped(Ingress::Underlay, packet), Some(reason), "UDP length {len}");
        }
    }
}

#[test]
fn outer_options_and_headers_that_are_not_udp() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let inner = inner_frame(2, false, &packets::ping(pod(2, 1, false), pod(1, 1, false), 1));
    let plain = packets::encapsulated((outer(2, false), our_outer(false)), 8472, Vni::FLANNEL, 0, &inner);
    // IPv4 options are skipped.
    let mut options = [&plain[..34], &[1, 1, 1, 0], &plain[34..]].concat();
    options[14] = 0x46;
    let total = (options.len() - 14) as u16;
    options[16..18].copy_from_slice(&total.to_be_bytes());
    assert!(world.one(Ingress::Underlay, options).is_some());
    for protocol in [0, 1, 6, 47, 255] {
        let mut packet = plain.clone();
        packet[23] = protocol;
        assert_eq!(world.dropped(Ingress::Underlay, packet), Some(DropReason::MalformedOuter));
    }
}
