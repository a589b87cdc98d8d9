//! MTU of the overlay, path MTU discovery in both directions, fragmentation of inner packets.

use std::net::IpAddr;

use canal_dataplane::net::Mac;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::verify::finished;
use canal_dataplane::testing::world::{self, World, from_node, from_pod, inner_frame, our_outer, outer, pod};
use canal_dataplane::verdict::DropReason;

use crate::{POD1, front};

/// Payload of a UDP packet that makes an IP packet of `len` bytes.
fn sized(source: IpAddr, destination: IpAddr, len: usize, dont_fragment: bool) -> Ip {
    let headers = if source.is_ipv4() { 28 } else { 48 };
    let mut packet = packets::udp((source, 1000), (destination, 2000), len - headers);
    packet.dont_fragment = dont_fragment;
    packet
}

/// The MTU that an ICMP error behind an Ethernet header tells, and whom it comes from.
fn told(frame: &[u8]) -> (u32, IpAddr) {
    assert_eq!(finished(frame), Ok(()), "an error is a finished packet");
    let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    if frame[14] >> 4 == 4 {
        assert_eq!(frame[34..36], [3, 4], "fragmentation needed");
        (word(38) & 0xffff, IpAddr::from(word(26).to_be_bytes()))
    } else {
        assert_eq!(frame[54..56], [2, 0], "packet too big");
        (word(58), IpAddr::from(std::array::from_fn::<u8, 16, _>(|i| frame[22 + i])))
    }
}

/// What a router tells about a packet that we sent: it does not fit `mtu` bytes.
fn too_big(about: &[u8], mtu: u16) -> Vec<u8> {
    let quote = &about[14..about.len().min(14 + 548)];
    let v6 = about[14] >> 4 == 6;
    let (router, protocol) = (outer(99, v6), if v6 { packets::ICMPV6 } else { packets::ICMP });
    let mut payload = if v6 { vec![2, 0, 0, 0] } else { vec![3, 4, 0, 0] };
    payload.extend(u32::from(mtu).to_be_bytes());
    payload.extend(quote);
    Ip::new(router, our_outer(v6), protocol, payload).finished().frame(Mac::ZERO, Mac::ZERO)
}

#[test]
fn mtu_matrix_of_outer_and_inner_families() {
    for outer_v6 in [false, true] {
        for inner_v6 in [false, true] {
            // 1,500 less 50 over IPv4, less 70 over IPv6; whatever the inner family.
            let mtu = if outer_v6 { 1430 } else { 1450 };
            let mut world = World::new(&world::spec_over(2, outer_v6), Caps::NONE);
            let fits = sized(pod(1, 1, inner_v6), pod(2, 1, inner_v6), mtu, true);
            let sent = world.one(POD1, from_pod(1, &fits)).expect("fits");
            assert_eq!(sent.egress, Egress::Underlay);
            assert_eq!(sent.packet.len(), 14 + 1500, "the outer IP packet fills the underlay's MTU");
            let exceeds = sized(pod(1, 1, inner_v6), pod(2, 1, inner_v6), mtu + 1, true);
            let sent = world.one(POD1, from_pod(1, &exceeds)).expect("told");
            assert_eq!(sent.egress, Egress::Workload(101));
            assert_eq!(told(&sent.packet), (mtu as u32, pod(1, 0, inner_v6)));
        }
    }
}

#[test]
fn a_packet_too_big_for_a_local_pod_is_told_to_the_remote_sender_through_the_tunnel() {
    for v6 in [false, true] {
        let mut spec = world::spec_over(2, v6);
        spec.endpoints[0].mtu = 1300;
        let mut world = World::new(&spec, Caps::NONE);
        let packet = sized(pod(2, 1, v6), pod(1, 1, v6), 1301, true);
        let sent = world.one(Ingress::Underlay, from_node(2, v6, &packet)).expect("told");
        assert_eq!(sent.egress, Egress::Underlay);
        assert_eq!(finished(&sent.packet), Ok(()));
        assert_eq!(told(&sent.packet[front(v6)..]), (1300, pod(1, 0, v6)));
    }
}

/// A world whose path MTU to the second node has fallen to the least there is, and what inner packets may have then.
fn narrow_world(outer_v6: bool) -> (World, usize) {
    let mut world = World::new(&world::spec_over(2, outer_v6), Caps::NONE);
    let packet = from_pod(1, &sized(pod(1, 1, true), pod(2, 1, true), 1400, true));
    let sent = world.one(POD1, packet).expect("fits");
    let reason = world.dropped(Ingress::Underlay, too_big(&sent.packet, 1280));
    assert_eq!(reason, Some(DropReason::PathMtuLearnt));
    (world, 1280 - if outer_v6 { 70 } else { 50 })
}

#[test]
fn rfc4443_2_4_an_error_quotes_no_more_than_the_path_mtu_of_its_way_back_takes() {
    for outer_v6 in [false, true] {
        for inner_v6 in [false, true] {
            let (mut world, limit) = narrow_world(outer_v6);
            let mut packet = sized(pod(2, 1, inner_v6), pod(1, 1, inner_v6), 1400, true);
            packet.ttl = 1;
            let sent = world.one(Ingress::Underlay, from_node(2, outer_v6, &packet)).expect("told");
            assert_eq!(sent.egress, Egress::Underlay);
            assert_eq!(finished(&sent.packet), Ok(()));
            let error = &sent.packet[front(outer_v6)..];
            assert_eq!(finished(error), Ok(()));
            let kind = if inner_v6 { error[54] } else { error[34] };
            assert_eq!(kind, if inner_v6 { 3 } else { 11 }, "time exceeded");
            // 576 bytes of IPv4 fit everywhere.
            assert_eq!(error.len() - 14, if inner_v6 { limit } else { 576 });
            assert!(sent.packet.len() - 14 <= 1280);
        }
    }
}

#[test]
fn a_too_big_about_an_error_of_ours_is_believed() {
    for outer_v6 in [false, true] {
        for inner_v6 in [false, true] {
            let mut world = World::new(&world::spec_over(2, outer_v6), Caps::NONE);
            let mut expired = sized(pod(2, 1, inner_v6), pod(1, 1, inner_v6), 1400, true);
            expired.ttl = 1;
            let error = world.one(Ingress::Underlay, from_node(2, outer_v6, &expired)).expect("told").packet;
            let reason = world.dropped(Ingress::Underlay, too_big(&error, 1300));
            assert_eq!(reason, Some(DropReason::PathMtuLearnt));
        }
    }
}

#[test]
fn errors_are_rate_limited_per_sender() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let packet = from_pod(1, &sized(pod(1, 1, true), pod(2, 1, true), 1500, true));
    let told = (0..100).filter(|_| world.one(POD1, packet.clone()).is_some()).count();
    assert_eq!(told, 10);
    assert_eq!(world.counters.icmp_limited.get(), 90);
    // Another sender has a budget of its own.
    let other = from_pod(2, &sized(pod(1, 2, true), pod(2, 1, true), 1500, true));
    assert!(world.one(crate::POD2, other).is_some());
    world.now_ms += 1000;
    assert!(world.one(POD1, packet).is_some());
}

#[test]
fn inner_without_df_is_fragmented() {
    for outer_v6 in [false, true] {
        let mtu = if outer_v6 { 1430 } else { 1450 };
        let mut world = World::with_frames(&world::spec_over(2, outer_v6), Caps::NONE, 8192);
        let packet = sized(pod(1, 1, false), pod(2, 1, false), 4000, false);
        let sent = world.run([(POD1, Default::default(), from_pod(1, &packet))]);
        assert_eq!(sent.len(), 3);
        let mut payload: Vec<u8> = Vec::new();
        for (i, piece) in sent.iter().enumerate() {
            assert_eq!(piece.egress, Egress::Underlay);
            assert_eq!(finished(&piece.packet), Ok(()));
            let ip = &piece.packet[front(outer_v6) + 14..];
            assert_eq!(finished(&piece.packet[front(outer_v6)..]), Ok(()));
            assert!(ip.len() <= mtu, "{}", ip.len());
            assert_eq!(ip[8], 63, "TTL falls once");
            let word = u16::from_be_bytes([ip[6], ip[7]]);
            assert_eq!(usize::from(word & 0x1fff) * 8, payload.len());
            assert_eq!(word & 0x2000 != 0, i < 2);
            assert_eq!(ip[4..6], packet.bytes()[4..6], "one identification");
            payload.extend(&ip[20..]);
        }
        assert_eq!(payload, packet.payload);
    }
}

#[test]
fn ipv6_is_never_fragmented() {
    let mut world = World::with_frames(&world::spec(2), Caps::NONE, 8192);
    let packet = sized(pod(1, 1, true), pod(2, 1, true), 4000, false);
    let sent = world.one(POD1, from_pod(1, &packet)).expect("told");
    assert_eq!(told(&sent.packet), (1430, pod(1, 0, true)));
}

#[test]
fn pmtu_is_lowered_by_a_quote_of_what_we_sent_for_that_vtep_only_and_forgotten() {
    for outer_v6 in [false, true] {
        for inner_v6 in [false, true] {
            let overhead = if outer_v6 { 70 } else { 50 };
            let spec = world::spec_over(3, outer_v6);
            let mut world = World::new(&spec, Caps::NONE);
            let packet = from_pod(1, &sized(pod(1, 1, inner_v6), pod(2, 1, inner_v6), 1400, true));
            let sent = world.one(POD1, packet.clone()).expect("fits");
            let reason = world.dropped(Ingress::Underlay, too_big(&sent.packet, 1400));
            assert_eq!(reason, Some(DropReason::PathMtuLearnt));

            let error = world.one(POD1, packet.clone()).expect("told");
            assert_eq!(told(&error.packet).0, 1400 - overhead);
            let other = from_pod(1, &sized(pod(1, 1, inner_v6), pod(3, 1, inner_v6), 1400, true));
            assert_eq!(world.one(POD1, other).expect("fits").egress, Egress::Underlay);

            // It is never raised by a later message, and outlives new tables.
            assert_eq!(
                world.dropped(Ingress::Underlay, too_big(&sent.packet, 1450)),
                Some(DropReason::PathMtuLearnt)
            );
            world.update(&spec);
            world.now_ms += 599_000;
            assert_eq!(told(&world.one(POD1, packet.clone()).expect("told").packet).0, 1400 - overhead);
            world.now_ms += 2_000;
            assert_eq!(world.one(POD1, packet).expect("forgotten").egress, Egress::Underlay);
        }
    }
}

#[test]
fn a_too_big_about_any_piece_that_we_made_is_believed() {
    for outer_v6 in [false, true] {
        let mut spec = world::spec_over(2, outer_v6);
        spec.settings.outer_df = true;
        let packet = from_pod(1, &sized(pod(1, 1, false), pod(2, 1, false), 4000, false));
        for piece in 0..3 {
            let mut world = World::with_frames(&spec, Caps::NONE, 8192);
            let sent = world.run([(POD1, Default::default(), packet.clone())]);
            assert_eq!(sent.len(), 3);
            // Of what a router makes of it, a changed byte of the piece's addresses is still a forgery.
            let mut forged = sent[piece].packet.clone();
            forged[front(outer_v6) + 14 + 15] ^= 0x08;
            let reason = world.dropped(Ingress::Underlay, too_big(&forged, 1300));
            assert_eq!(reason, Some(DropReason::PathMtuForged), "piece {piece}");
            let reason = world.dropped(Ingress::Underlay, too_big(&sent[piece].packet, 1300));
            assert_eq!(reason, Some(DropReason::PathMtuLearnt), "piece {piece}");
            let again = world.run([(POD1, Default::default(), packet.clone())]);
            assert!(again.iter().all(|piece| piece.packet.len() - 14 <= 1300), "cut to what fits now");
        }
    }
}

#[test]
fn a_too_big_about_any_piece_that_a_pod_made_is_believed_and_all_have_one_source_port() {
    for outer_v6 in [false, true] {
        let mut spec = world::spec_over(2, outer_v6);
        spec.settings.outer_df = true;
        let datagram = from_pod(1, &sized(pod(1, 1, false), pod(2, 1, false), 4000, false));
        let mut sender = World::with_frames(&spec, Caps::NONE, 8192);
        let pieces = sender.run([(POD1, Default::default(), datagram.clone())]);
        let from_pod = |sent: &[u8]| [&datagram[..14], &sent[front(outer_v6) + 14..]].concat();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|sent| from_pod(&sent.packet)).collect();
        assert_eq!(pieces.len(), 3);
        for told in 0..3 {
            let mut world = World::with_frames(&spec, Caps::NONE, 8192);
            let sent = world.run(pieces.iter().map(|piece| (POD1, Default::default(), piece.clone())));
            let udp = if outer_v6 { 54 } else { 34 };
            let ports: Vec<&[u8]> = sent.iter().map(|sent| &sent.packet[udp..udp + 2]).collect();
            assert_eq!(ports, [ports[0]; 3], "no other way through the underlay");
            let reason = world.dropped(Ingress::Underlay, too_big(&sent[told].packet, 1300));
            assert_eq!(reason, Some(DropReason::PathMtuLearnt), "piece {told}");
        }
    }
}

#[test]
fn a_forged_too_big_is_ignored() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec_over(3, v6), Caps::NONE);
        let packet = from_pod(1, &sized(pod(1, 1, v6), pod(2, 1, v6), 1400, true));
        let sent = world.one(POD1, packet.clone()).expect("fits").packet;
        let (ip, udp) = (14, if v6 { 54 } else { 34 });
        let (source, destination) = if v6 { (ip + 8, ip + 24) } else { (ip + 12, ip + 16) };
        let last = if v6 { 15 } else { 3 };
        // Each alone makes the quote one of something that we did not send: outer addresses, protocol, source port,
        // destination port, I flag, VNI, inner addresses, inner ports.
        let inner = front(v6) + 14;
        let inner_ports = inner + if v6 { 40 } else { 20 };
        let mut changed = vec![source + last, destination + last, udp, udp + 1, udp + 2, udp + 3];
        changed.extend([udp + 8, udp + 12, udp + 13, udp + 14, inner_ports, inner_ports + 3]);
        changed.push(if v6 { ip + 6 } else { ip + 9 });
        changed.push(inner + if v6 { 23 } else { 15 });
        for at in changed {
            let mut quote = sent.clone();
            quote[at] ^= 0x08;
            assert_eq!(
                world.dropped(Ingress::Underlay, too_big(&quote, 1300)),
                Some(DropReason::PathMtuForged),
                "byte {at}"
            );
        }
        // Too short a quote proves nothing.
        for len in 14..inner_ports + 4 {
            let reason = world.dropped(Ingress::Underlay, too_big(&sent[..len.max(15)], 1300));
            assert_eq!(reason, Some(DropReason::PathMtuForged), "{len}");
        }
        // What stands behind the message in its frame is no part of it.
        let padded = [&too_big(&sent[..inner_ports], 1300)[..], &sent[inner_ports..]].concat();
        assert_eq!(world.dropped(Ingress::Underlay, padded), Some(DropReason::PathMtuForged));
        // Nothing above had an effect.
        assert_eq!(world.one(POD1, packet).expect("fits").egress, Egress::Underlay);
    }
}

#[test]
fn a_ruinous_pmtu_is_raised_to_the_least_of_ipv6() {
    for (said, believed) in [(0u16, 1230u32), (68, 1230), (1279, 1230), (1281, 1231)] {
        let mut world = World::new(&world::spec(2), Caps::NONE);
        let packet = from_pod(1, &sized(pod(1, 1, false), pod(2, 1, false), 1400, true));
        let sent = world.one(POD1, packet.clone()).expect("fits").packet;
        world.dropped(Ingress::Underlay, too_big(&sent, said));
        assert_eq!(told(&world.one(POD1, packet).expect("told").packet).0, believed);
    }
}

#[test]
fn icmp_errors_that_are_not_too_big_change_nothing() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let packet = from_pod(1, &sized(pod(1, 1, false), pod(2, 1, false), 1400, true));
    let sent = world.one(POD1, packet.clone()).expect("fits").packet;
    for (kind, code) in [(3, 1), (3, 3), (11, 0), (5, 0), (8, 0)] {
        let mut error = too_big(&sent, 1300);
        (error[34], error[35]) = (kind, code);
        assert_eq!(world.dropped(Ingress::Underlay, error), Some(DropReason::MalformedOuter));
    }
    assert_eq!(world.one(POD1, packet).expect("fits").egress, Egress::Underlay);
    // A too-big message that comes out of the tunnel concerns the pods alone.
    let quote = &from_pod(1, &sized(pod(1, 1, false), pod(2, 1, false), 1400, true))[14..90];
    let message = [&[3, 4, 0, 0, 0, 0, 5, 0][..], quote].concat();
    let inner = Ip::new(pod(2, 0, false), pod(1, 1, false), packets::ICMP, message).finished();
    let sent = world.one(Ingress::Underlay, from_node(2, false, &inner)).expect("delivered");
    assert_eq!(sent.egress, Egress::Workload(101));
    assert_eq!(sent.packet[34..], inner_frame(2, false, &inner)[34..]);
}
