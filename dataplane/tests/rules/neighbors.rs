//! ARP and neighbour discovery between a workload and its gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canal_dataplane::net::Mac;
use canal_dataplane::offload::{Caps, Checksum, Offload};
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::reply::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::verify::finished;
use canal_dataplane::testing::world::{self, World, pod, pod_mac};
use canal_dataplane::verdict::DropReason;

use crate::POD1;

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(a) => a,
        IpAddr::V6(_) => panic!("IPv4 expected"),
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(a) => a,
        IpAddr::V4(_) => panic!("IPv6 expected"),
    }
}

fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mac = pod_mac(1).0;
    let fixed = [0, 1, 8, 0, 6, 4, 0, operation];
    [&[0xff; 6], &mac, &[0x08, 0x06][..], &fixed, &mac, &sender.octets(), &[0; 6], &target.octets()].concat()
}

/// A message of neighbour discovery from `source`, hop limit 255.
fn nd(kind: u8, source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Ip {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([if kind == 136 { 2 } else { 1 }, 1]);
    message.extend(pod_mac(1).0);
    let mut packet = Ip::new(source.into(), destination.into(), packets::ICMPV6, message).finished();
    packet.ttl = 255;
    packet
}

fn solicited(target: Ipv6Addr) -> Ipv6Addr {
    canal_dataplane::reply::nd::solicited_node(target)
}

fn from_pod1(packet: &Ip) -> Vec<u8> {
    packet.frame(Mac([0x33, 0x33, 0xff, 0, 0, 1]), pod_mac(1))
}

#[test]
fn the_gateway_answers_arp_for_itself_and_for_what_it_reaches() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let own = v4(pod(1, 1, false));
    // Itself, a local pod, a remote one, the node; and an address of the node's own subnet that nobody has.
    let nobody = v4(pod(1, 99, false));
    for target in [GATEWAY_V4, v4(pod(1, 2, false)), v4(pod(2, 7, false)), v4(pod(1, 0, false)), nobody] {
        let sent = world.one(POD1, arp(1, own, target)).expect("answered");
        assert_eq!(sent.egress, Egress::Workload(101));
        let (mac, gateway) = (pod_mac(1).0, GATEWAY_MAC.0);
        let fixed = [0, 1, 8, 0, 6, 4, 0, 2];
        let ends = [&gateway[..], &target.octets(), &mac, &own.octets()].concat();
        assert_eq!(sent.packet, [&mac[..], &gateway, &[0x08, 0x06], &fixed, &ends].concat());
    }
    for target in [own, Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(224, 0, 0, 1)] {
        assert_eq!(world.dropped(POD1, arp(1, own, target)), Some(DropReason::NeighborIgnored));
    }
}

#[test]
fn arp_spoofing_is_dropped() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let foreign = [v4(pod(1, 2, false)), GATEWAY_V4, v4(pod(1, 0, false)), v4(pod(2, 1, false))];
    for sender in foreign {
        for operation in [1, 2] {
            for target in [sender, GATEWAY_V4, v4(pod(1, 2, false))] {
                let reason = world.dropped(POD1, arp(operation, sender, target));
                assert_eq!(reason, Some(DropReason::SpoofedNeighbor), "{sender} {operation}");
            }
        }
    }
    // An honest announcement changes nothing: nothing is learnt.
    let own = v4(pod(1, 1, false));
    for operation in [1, 2] {
        assert_eq!(world.dropped(POD1, arp(operation, own, own)), Some(DropReason::NeighborIgnored));
    }
    for (ingress, reason) in [
        (Ingress::Workload(999), DropReason::UnknownInterface),
        (Ingress::Host, DropReason::ForbiddenNeighbor),
        (Ingress::Direct, DropReason::ForbiddenNeighbor),
    ] {
        assert_eq!(world.dropped(ingress, arp(1, own, GATEWAY_V4)), Some(reason));
    }
}

#[test]
fn malformed_arp_is_dropped() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let good = arp(1, v4(pod(1, 1, false)), GATEWAY_V4);
    for len in 14..good.len() {
        assert_eq!(world.dropped(POD1, good[..len].to_vec()), Some(DropReason::MalformedNeighbor));
    }
    for (at, value) in [(15, 6), (16, 9), (18, 8), (19, 16), (21, 3), (21, 0), (22, 1)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(world.dropped(POD1, bad), Some(DropReason::MalformedNeighbor), "byte {at}");
    }
}

#[test]
fn the_gateway_answers_solicitations() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    for source in [v6(pod(1, 1, true)), link_local] {
        for target in [GATEWAY_V6, v6(pod(1, 2, true)), v6(pod(2, 7, true))] {
            let question = nd(135, source, solicited(target), target);
            let sent = world.one(POD1, from_pod1(&question)).expect("answered");
            assert_eq!((sent.egress, finished(&sent.packet)), (Egress::Workload(101), Ok(())));
            assert_eq!(sent.packet[..12], [pod_mac(1).0, GATEWAY_MAC.0].concat());
            assert_eq!((sent.packet[21], sent.packet[54]), (255, 136));
            assert_eq!(sent.packet[62..78], target.octets());
            assert_eq!(sent.packet[80..86], GATEWAY_MAC.0);
        }
    }
}

#[test]
fn an_answer_to_an_unfinished_solicitation_is_finished() {
    for caps in [Caps::NONE, Caps::ALL] {
        let mut world = World::new(&world::spec(2), caps);
        let question = nd(135, v6(pod(1, 1, true)), solicited(GATEWAY_V6), GATEWAY_V6);
        let offload = Offload { checksum: Checksum::Partial { start: 54, offset: 2 }, ..Offload::NONE };
        let sent = world.run([(POD1, offload, from_pod1(&question))]);
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].offload, finished(&sent[0].packet)), (Offload::NONE, Ok(())));
    }
}

#[test]
fn router_advertisements_redirects_and_foreign_advertisements_are_dropped() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    for source in [link_local, v6(pod(1, 1, true)), GATEWAY_V6] {
        for destination in [all_nodes, v6(pod(1, 2, true)), v6(pod(2, 1, true))] {
            for kind in [134, 137] {
                let packet = nd(kind, source, destination, v6(pod(1, 2, true)));
                let reason = world.dropped(POD1, from_pod1(&packet));
                assert_eq!(reason, Some(DropReason::ForbiddenNeighbor), "type {kind}");
            }
        }
    }
    let foreign = [v6(pod(1, 2, true)), v6(pod(2, 1, true)), GATEWAY_V6];
    for target in foreign {
        for destination in [all_nodes, v6(pod(1, 2, true))] {
            let packet = nd(136, v6(pod(1, 1, true)), destination, target);
            assert_eq!(world.dropped(POD1, from_pod1(&packet)), Some(DropReason::SpoofedNeighbor));
        }
    }
    // Its own address, and nobody believes it.
    let own = nd(136, v6(pod(1, 1, true)), all_nodes, v6(pod(1, 1, true)));
    assert_eq!(world.dropped(POD1, from_pod1(&own)), Some(DropReason::NeighborIgnored));
    // A solicitation in somebody else's name.
    let packet = nd(135, v6(pod(1, 2, true)), solicited(GATEWAY_V6), GATEWAY_V6);
    assert_eq!(world.dropped(POD1, from_pod1(&packet)), Some(DropReason::SpoofedNeighbor));
}

#[test]
fn router_advertisements_do_not_hide_behind_extension_headers() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let advertisement = nd(134, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::LOCALHOST, GATEWAY_V6);
    let padding = [1, 4, 0, 0, 0, 0];
    // Hop-by-hop, destination options, a first fragment, an atomic one.
    let fronts: [(u8, Vec<u8>); 4] = [
        (0, [&[58, 0][..], &padding].concat()),
        (60, [&[58, 0][..], &padding].concat()),
        (44, vec![58, 0, 0, 1, 0, 0, 0, 9]),
        (44, vec![58, 0, 0, 0, 0, 0, 0, 9]),
    ];
    for (next, front) in fronts {
        let mut packet = advertisement.clone();
        packet.destination = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        packet.protocol = next;
        packet.payload = [&front[..], &packet.payload].concat();
        let reason = world.dropped(POD1, from_pod1(&packet));
        assert_eq!(reason, Some(DropReason::ForbiddenNeighbor), "behind {next}");
    }
}

#[test]
fn ipv6_from_an_ipv4_only_endpoint_is_dropped() {
    let mut spec = world::spec(2);
    spec.endpoints[0].networks.retain(ipnetwork::IpNetwork::is_ipv4);
    let mut world = World::new(&spec, Caps::NONE);
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let advertisement = nd(134, link_local, all_nodes, GATEWAY_V6);
    assert_eq!(world.dropped(POD1, from_pod1(&advertisement)), Some(DropReason::ForbiddenNeighbor));
    let packet = packets::ping(pod(1, 1, true), pod(1, 2, true), 1);
    assert_eq!(world.dropped(POD1, from_pod1(&packet)), Some(DropReason::SpoofedSource));
}

#[test]
fn neighbour_discovery_from_off_the_link_is_dropped() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let mut packet = nd(135, v6(pod(1, 1, true)), solicited(GATEWAY_V6), GATEWAY_V6);
    packet.ttl = 254;
    assert_eq!(world.dropped(POD1, from_pod1(&packet)), Some(DropReason::MalformedNeighbor));
    // Through the tunnel: it belongs to no connection, and opens none.
    let packet = nd(134, v6(pod(2, 1, true)), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), GATEWAY_V6);
    let frame = world::from_node(2, true, &packet);
    assert_eq!(world.dropped(Ingress::Underlay, frame), Some(DropReason::ConntrackInvalid));
    let packet = nd(134, v6(pod(2, 1, true)), v6(pod(1, 1, true)), GATEWAY_V6);
    let frame = world::from_node(2, true, &packet);
    assert_eq!(world.dropped(Ingress::Underlay, frame), Some(DropReason::ConntrackInvalid));
}
