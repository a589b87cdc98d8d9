//! The frame inside the tunnel: Ethernet, TTL, ECN, DSCP, checksums.

use canal_dataplane::net::Mac;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::mem::Sent;
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::spec::{DscpMode, NodeSpec, Route, Via};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::verify::finished;
use canal_dataplane::testing::world::{self, World, from_node, from_pod, mac, our_outer, outer, pod, subnet};
use canal_dataplane::verdict::DropReason;
use canal_dataplane::{checksum, net::Vni};

use crate::{POD1, front};

fn tunnelled(inner: &[u8]) -> Vec<u8> {
    packets::encapsulated((outer(2, false), our_outer(false)), 8472, Vni::FLANNEL, 0, inner)
}

#[test]
fn an_inner_vlan_tag_is_dropped() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let frame = world::inner_frame(2, false, &packets::ping(pod(2, 1, false), pod(1, 1, false), 1));
    for tag in [[0x81, 0x00, 0, 0], [0x81, 0x00, 0, 5], [0x88, 0xa8, 0, 5]] {
        let tagged = [&frame[..12], &tag, &frame[12..]].concat();
        assert_eq!(world.dropped(Ingress::Underlay, tunnelled(&tagged)), Some(DropReason::VlanTag));
        // From a workload as well.
        assert_eq!(world.dropped(POD1, tagged), Some(DropReason::VlanTag));
    }
}

#[test]
fn inner_ethernet_type_is_ip_only() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let mut frame = world::inner_frame(2, false, &packets::ping(pod(2, 1, false), pod(1, 1, false), 1));
    // ARP is answered locally and does not cross the overlay.
    for ether_type in [0x0806u16, 0x8035, 0x0000, 0x05dc, 0x86de, 0x8847, 0x88cc, 0xffff] {
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        let reason = world.dropped(Ingress::Underlay, tunnelled(&frame));
        assert_eq!(reason, Some(DropReason::UnknownEtherType), "{ether_type:#x}");
    }
    // IPv4 in the clothes of IPv6 and the other way round.
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    assert_eq!(world.dropped(Ingress::Underlay, tunnelled(&frame)), Some(DropReason::MalformedIpv6));
    let mut frame = world::inner_frame(2, false, &packets::ping(pod(2, 1, true), pod(1, 1, true), 1));
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    assert_eq!(world.dropped(Ingress::Underlay, tunnelled(&frame)), Some(DropReason::MalformedIpv4));
}

#[test]
fn inner_destination_mac_must_be_ours() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec_over(2, v6), Caps::NONE);
        let packet = packets::ping(pod(2, 1, false), pod(1, 1, false), 1);
        // Our VTEP of the other family has another address.
        let others = if v6 { world::OUR_MAC } else { world::OUR_MAC6 };
        for target in [Mac::ZERO, Mac::BROADCAST, others, world::pod_mac(1), mac(2, v6)] {
            let inner = packet.frame(target, mac(2, v6));
            let ends = (outer(2, v6), our_outer(v6));
            let frame = packets::encapsulated(ends, 8472, Vni::FLANNEL, 0, &inner);
            assert_eq!(world.dropped(Ingress::Underlay, frame), Some(DropReason::InnerMac), "{target}");
        }
        // The sender's address means nothing.
        let inner = packet.frame(if v6 { world::OUR_MAC6 } else { world::OUR_MAC }, Mac::BROADCAST);
        let ends = (outer(2, v6), our_outer(v6));
        let frame = packets::encapsulated(ends, 8472, Vni::FLANNEL, 0, &inner);
        assert!(world.one(Ingress::Underlay, frame).is_some());
    }
}

#[test]
fn an_inner_frame_cut_short_is_dropped_with_a_reason() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let packets = [
        packets::tcp((pod(2, 1, false), 1), (pod(1, 1, false), 2), 0x10, 10),
        packets::tcp((pod(2, 1, true), 1), (pod(1, 1, true), 2), 0x10, 10),
    ];
    for packet in packets {
        let frame = world::inner_frame(2, false, &packet);
        for len in 0..frame.len() {
            let reason = world.dropped(Ingress::Underlay, tunnelled(&frame[..len]));
            let expected = match (len, packet.source.is_ipv4()) {
                (..14, _) => DropReason::MalformedEthernet,
                (_, true) => DropReason::MalformedIpv4,
                (_, false) => DropReason::MalformedIpv6,
            };
            assert_eq!(reason, Some(expected), "{len}");
        }
    }
}

/// A node with a route of every kind: node 2 over IPv4, node 3 over IPv6, node 4 plain.
fn crossroads() -> NodeSpec {
    let mut spec = world::spec_over(3, false);
    let over_v6 = world::spec_over(3, true);
    spec.vteps.retain(|vtep| vtep.outer == outer(2, false));
    spec.routes.retain(|route| route.via != Via::Vtep(outer(3, false)));
    spec.vteps.extend(over_v6.vteps.iter().filter(|vtep| vtep.outer == outer(3, true)).cloned());
    spec.routes.extend(over_v6.routes.iter().filter(|route| route.via == Via::Vtep(outer(3, true))).cloned());
    let via = Via::Direct { next_hop: outer(4, false), mtu: 1500 };
    for v6 in [false, true] {
        spec.routes.push(Route { prefix: subnet(4, v6), via: via.clone() });
        spec.direct_sources.push(subnet(4, v6));
    }
    spec
}

/// Ways in and out of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pod,
    OverV4,
    OverV6,
    Plain,
    Host,
}

impl Place {
    const ALL: [Self; 5] = [Self::Pod, Self::OverV4, Self::OverV6, Self::Plain, Self::Host];

    fn address(self, as_target: bool, v6: bool) -> std::net::IpAddr {
        match self {
            Self::Pod => pod(1, if as_target { 2 } else { 1 }, v6),
            Self::OverV4 => pod(2, 5, v6),
            Self::OverV6 => pod(3, 5, v6),
            Self::Plain => pod(4, 5, v6),
            Self::Host => pod(1, 0, v6),
        }
    }

    /// The packet as it comes in from there.
    fn sends(self, packet: &Ip) -> (Ingress, Vec<u8>) {
        match self {
            Self::Pod => (POD1, from_pod(1, packet)),
            Self::OverV4 => (Ingress::Underlay, from_node(2, false, packet)),
            Self::OverV6 => (Ingress::Underlay, from_node(3, true, packet)),
            Self::Plain => (Ingress::Direct, packet.frame(Mac::ZERO, Mac::ZERO)),
            Self::Host => (Ingress::Host, packet.frame(Mac::ZERO, Mac::ZERO)),
        }
    }

    /// The IP packet of a frame that went there, without outer headers; `answer`: to the sender's own pod.
    fn receives(self, sent: &Sent, answer: bool) -> &[u8] {
        let (egress, skip) = match self {
            Self::Pod => (Egress::Workload(if answer { 101 } else { 102 }), 14),
            Self::OverV4 => (Egress::Underlay, front(false) + 14),
            Self::OverV6 => (Egress::Underlay, front(true) + 14),
            Self::Plain => (Egress::Direct(outer(4, false)), 14),
            Self::Host => (Egress::Host, 14),
        };
        assert_eq!(sent.egress, egress);
        &sent.packet[skip..]
    }
}

#[test]
fn ttl_falls_exactly_once_a_hop_for_every_way_in_and_out() {
    for v6 in [false, true] {
        let mut world = World::new(&crossroads(), Caps::NONE);
        for (from, to) in Place::ALL.iter().flat_map(|from| Place::ALL.map(|to| (*from, to))) {
            let way = format!("{from:?} to {to:?} (IPv6: {v6})");
            let mut packet = packets::ping(from.address(false, v6), to.address(true, v6), 1);
            // The first packet is decided, the second is a flow hit.
            for ttl in [64, 2, 1, 0] {
                world.now_ms += 1000;
                packet.ttl = ttl;
                let (ingress, frame) = from.sends(&packet);
                if (from, to) == (Place::Host, Place::Host) {
                    assert_eq!(world.dropped(ingress, frame), Some(DropReason::HostLoop));
                    continue;
                }
                let sent = world.one(ingress, frame).unwrap_or_else(|| panic!("{way}"));
                // The host is the router itself: it is no hop away from its pods.
                let routed = from != Place::Host && to != Place::Host;
                if routed && ttl <= 1 {
                    // Time exceeded, to where it came from.
                    let at = if v6 { 40 } else { 20 };
                    let error = if v6 { [3, 0] } else { [11, 0] };
                    assert_eq!(from.receives(&sent, true)[at..at + 2], error, "{way}");
                    continue;
                }
                let mut expected = packet.clone();
                expected.ttl -= u8::from(routed);
                assert_eq!(to.receives(&sent, false), expected.bytes(), "{way} TTL {ttl}");
            }
        }
    }
}

/// RFC 6040 figure 4: rows are inner Not-ECT, ECT(1), ECT(0), CE; columns the outer ones in the same, numeric, order.
const RFC6040: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

#[test]
fn rfc6040_all_sixteen_cells_through_the_pipeline() {
    for outer_v6 in [false, true] {
        for inner_v6 in [false, true] {
            let mut world = World::new(&world::spec_over(2, outer_v6), Caps::NONE);
            for (inner, row) in RFC6040.into_iter().enumerate() {
                for (outer_ecn, expected) in row.into_iter().enumerate() {
                    let mut packet = packets::ping(pod(2, 1, inner_v6), pod(1, 1, inner_v6), 1);
                    packet.tos = 0xb8 | inner as u8;
                    let mut frame = from_node(2, outer_v6, &packet);
                    // The outer DSCP says something else.
                    set_tos(&mut frame[14..], 0x20 | outer_ecn as u8);
                    let Some(ecn) = expected else {
                        assert_eq!(world.dropped(Ingress::Underlay, frame), Some(DropReason::EcnDecap));
                        continue;
                    };
                    let sent = world.one(Ingress::Underlay, frame).expect("delivered");
                    packet.ttl = 63;
                    let mut delivered = packet.clone();
                    delivered.tos = 0xb8 | ecn;
                    assert_eq!(sent.packet[14..], delivered.bytes(), "inner {inner} outer {outer_ecn}");
                }
            }
        }
    }
}

#[test]
fn rfc6040_encapsulation_copies_ecn_outward() {
    for outer_v6 in [false, true] {
        for inner_v6 in [false, true] {
            let mut world = World::new(&world::spec_over(2, outer_v6), Caps::NONE);
            for tos in 0..=255 {
                let mut packet = packets::ping(pod(1, 1, inner_v6), pod(2, 1, inner_v6), 1);
                packet.tos = tos;
                let sent = world.one(POD1, from_pod(1, &packet)).expect("forwarded");
                assert_eq!(tos_of(&sent.packet[14..]), tos & 3, "pipe: DSCP 0 outside");
                assert_eq!(tos_of(&sent.packet[front(outer_v6) + 14..]), tos);
            }
        }
    }
}

#[test]
fn rfc2983_dscp_uniform_and_pipe() {
    for (mode, uniform) in [(DscpMode::Pipe, false), (DscpMode::Uniform, true)] {
        for outer_v6 in [false, true] {
            let mut spec = world::spec_over(2, outer_v6);
            spec.settings.dscp = mode;
            let mut world = World::new(&spec, Caps::NONE);
            let mut packet = packets::ping(pod(1, 1, false), pod(2, 1, false), 1);
            packet.tos = 0xb8;
            let sent = world.one(POD1, from_pod(1, &packet)).expect("forwarded");
            assert_eq!(tos_of(&sent.packet[14..]), if uniform { 0xb8 } else { 0 });
            let mut packet = packets::ping(pod(2, 1, false), pod(1, 1, false), 1);
            packet.tos = 0xb8;
            let mut frame = from_node(2, outer_v6, &packet);
            // A router on the way has marked it down.
            set_tos(&mut frame[14..], 0x20);
            let sent = world.one(Ingress::Underlay, frame).expect("delivered");
            assert_eq!(tos_of(&sent.packet[14..]), if uniform { 0x20 } else { 0xb8 });
            assert_eq!(finished(&sent.packet), Ok(()));
        }
    }
}

fn tos_of(ip: &[u8]) -> u8 {
    if ip[0] >> 4 == 4 { ip[1] } else { ip[0] << 4 | ip[1] >> 4 }
}

/// Sets TOS or traffic class; the header checksum follows.
fn set_tos(ip: &mut [u8], tos: u8) {
    if ip[0] >> 4 == 4 {
        ip[1] = tos;
        ip[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(&ip[..20], 0));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        ip[0] = 0x60 | tos >> 4;
        ip[1] = ip[1] & 0x0f | tos << 4;
    }
}

#[test]
fn rfc1624_a_lowered_ttl_never_makes_the_checksum_all_ones() {
    // One below 0xffff less 0x0100: the sum is zero afterwards, which is written 0x0000 (RFC 1624 §4).
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let mut frame = from_pod(1, &packets::ping(pod(1, 1, false), pod(1, 2, false), 1));
    frame[18..20].fill(0);
    frame[24..26].fill(0);
    let rest = !checksum::finish(checksum::sum(&frame[14..34], 0));
    let id = checksum::fold(u64::from(!rest) + u64::from(!0xfeffu16));
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[24..26].copy_from_slice(&[0xfe, 0xff]);
    let sent = world.one(POD1, frame).expect("delivered");
    assert_eq!((&sent.packet[24..26], finished(&sent.packet)), (&[0, 0][..], Ok(())));
}

#[test]
fn the_dscp_of_an_icmp_error_is_copied_outward_in_uniform_mode() {
    for v6 in [false, true] {
        let mut spec = world::spec(2);
        spec.settings.dscp = DscpMode::Uniform;
        let mut world = World::new(&spec, Caps::NONE);
        let mut packet = packets::ping(pod(2, 1, v6), pod(1, 1, v6), 1);
        (packet.ttl, packet.tos) = (1, 0x2a);
        let sent = world.one(Ingress::Underlay, from_node(2, v6, &packet)).expect("told");
        let inner = tos_of(&sent.packet[front(v6) + 14..]);
        assert_eq!(inner, if v6 { 0 } else { 0xc0 });
        assert_eq!(tos_of(&sent.packet[14..]), inner);
    }
}

mod rfc1624 {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// TTL and ECN change by increments; the header must be the one that a full computation gives, for every
        /// value of every other field.
        #[test]
        fn a_forwarded_header_equals_full_recomputation(
            headers in prop::collection::vec(any::<[u8; 6]>(), 1..40), marked: bool,
        ) {
            let mut world = World::new(&world::spec(2), Caps::NONE);
            for [id_high, id_low, ttl, tos, source, last] in headers {
                let mut packet = packets::ping(pod(2, source, false), pod(1, 1 + last % 2, false), 1);
                packet.ttl = ttl.max(2);
                packet.tos = tos | u8::from(marked);
                let mut inner = world::inner_frame(2, false, &packet);
                inner[18..20].copy_from_slice(&[id_high, id_low]);
                set_tos(&mut inner[14..], packet.tos);
                let mut frame = tunnelled(&inner);
                if marked {
                    set_tos(&mut frame[14..], 3);
                }
                let sent = world.one(Ingress::Underlay, frame);
                prop_assert_eq!(sent.map(|sent| finished(&sent.packet)), Some(Ok(())));
            }
        }
    }
}
