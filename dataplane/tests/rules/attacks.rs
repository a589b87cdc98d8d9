//! What was done to other tunnels and overlays, and must not be possible here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canal_dataplane::net::{Mac, Vni};
use canal_dataplane::offload::Caps;
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::spec::{Route, Via};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world::{
    self, World, from_node, from_pod, inner_frame, mac, our_outer, outer, pod, subnet,
};
use canal_dataplane::verdict::DropReason;
use ipnetwork::IpNetwork;

use crate::{POD1, front};

#[test]
fn an_inner_source_that_the_vtep_does_not_own_is_dropped() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec(3), Caps::NONE);
        let foreign = [pod(3, 1, v6), pod(1, 1, v6), pod(1, 2, v6), outer(3, v6), our_outer(v6)];
        for source in foreign {
            let packet = packets::ping(source, pod(1, 1, v6), 1);
            let reason = world.dropped(Ingress::Underlay, from_node(2, v6, &packet));
            assert_eq!(reason, Some(DropReason::SpoofedSource), "{source}");
        }
        // Its subnet, its tunnel address, its host address.
        for source in [pod(2, 1, v6), pod(2, 0, v6), outer(2, v6)] {
            let packet = packets::ping(source, pod(1, 1, v6), 1);
            assert!(world.one(Ingress::Underlay, from_node(2, v6, &packet)).is_some(), "{source}");
        }
    }
}

#[test]
fn a_vtep_that_claims_our_subnet_too_cannot_speak_as_our_node() {
    for v6 in [false, true] {
        let mut spec = world::spec(2);
        for vtep in &mut spec.vteps {
            vtep.owns.push(subnet(1, vtep.outer.is_ipv6()));
        }
        spec.direct_sources.push(subnet(1, v6));
        let mut world = World::new(&spec, Caps::NONE);
        let packet = packets::ping(pod(1, 0, v6), pod(1, 1, v6), 1);
        let reason = world.dropped(Ingress::Underlay, from_node(2, v6, &packet));
        assert_eq!(reason, Some(DropReason::MartianSource));
        let reason = world.dropped(Ingress::Direct, packet.frame(Mac::ZERO, Mac::ZERO));
        assert_eq!(reason, Some(DropReason::MartianSource));
    }
}

#[test]
fn a_workload_uses_its_own_addresses_only() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec(2), Caps::NONE);
        for source in [pod(1, 2, v6), pod(1, 9, v6), pod(1, 0, v6), pod(2, 1, v6), our_outer(v6)] {
            let packet = packets::ping(source, pod(2, 1, v6), 1);
            let reason = world.dropped(POD1, from_pod(1, &packet));
            assert_eq!(reason, Some(DropReason::SpoofedSource), "{source}");
        }
        let packet = packets::ping(pod(1, 1, v6), pod(2, 1, v6), 1);
        let reason = world.dropped(Ingress::Workload(777), from_pod(1, &packet));
        assert_eq!(reason, Some(DropReason::UnknownInterface));
        let reason = world.dropped(Ingress::Workload(102), from_pod(2, &packet));
        assert_eq!(reason, Some(DropReason::SpoofedSource), "from the neighbour's interface");
    }
}

#[test]
fn an_empty_list_of_networks_allows_nothing() {
    let mut spec = world::spec(2);
    spec.endpoints[0].networks.clear();
    spec.vteps.iter_mut().for_each(|vtep| vtep.owns.clear());
    spec.direct_sources.clear();
    let mut world = World::new(&spec, Caps::NONE);
    for v6 in [false, true] {
        let packet = packets::ping(pod(1, 1, v6), pod(1, 2, v6), 1);
        assert_eq!(world.dropped(POD1, from_pod(1, &packet)), Some(DropReason::SpoofedSource));
        let packet = packets::ping(pod(2, 1, v6), pod(1, 2, v6), 1);
        let reason = world.dropped(Ingress::Underlay, from_node(2, v6, &packet));
        assert_eq!(reason, Some(DropReason::SpoofedSource));
        let reason = world.dropped(Ingress::Direct, packet.frame(Mac::ZERO, Mac::ZERO));
        assert_eq!(reason, Some(DropReason::SpoofedSource));
    }
}

#[test]
fn martians() {
    let v4 = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().expect("an address"));
    let mut sources = vec![v4(0, 0, 0, 0), v4(0, 1, 2, 3), v4(127, 0, 0, 1), v4(127, 255, 255, 255)];
    sources.extend([v4(224, 0, 0, 1), v4(239, 255, 255, 255), v4(240, 0, 0, 1), v4(255, 255, 255, 255)]);
    sources.extend([v4(169, 254, 1, 1), v4(169, 254, 7, 7)]);
    sources.extend([v6("::"), v6("::1"), v6("ff02::1"), v6("fe80::1"), v6("febf::1"), v6("::ffff:10.0.2.1")]);
    // Even where everything is allowed by the tables.
    let everything = [IpNetwork::new(v4(0, 0, 0, 0), 0), IpNetwork::new(v6("::"), 0)]
        .map(|network| network.expect("valid"));
    let mut spec = world::spec(2);
    spec.endpoints[0].networks.extend(everything);
    spec.vteps.iter_mut().for_each(|vtep| vtep.owns.extend(everything));
    spec.direct_sources.extend(everything);
    let mut world = World::new(&spec, Caps::NONE);
    for source in sources {
        let target = pod(1, 2, source.is_ipv6());
        let packet = packets::udp((source, 1), (target, 2), 10);
        let ways = [
            (POD1, from_pod(1, &packet)),
            (Ingress::Underlay, from_node(2, source.is_ipv6(), &packet)),
            (Ingress::Direct, packet.frame(Mac::ZERO, Mac::ZERO)),
        ];
        for (ingress, frame) in ways {
            let reason = world.dropped(ingress, frame);
            assert_eq!(reason, Some(DropReason::MartianSource), "{source} {ingress:?}");
        }
        // As destinations they are never routed, default route or not.
        let packet = packets::udp((pod(1, 2, source.is_ipv6()), 1), (source, 2), 10);
        let reason = world.dropped(Ingress::Workload(102), from_pod(2, &packet));
        let expected = match source {
            IpAddr::V4(a) if a.is_multicast() || a.is_broadcast() => DropReason::Multicast,
            IpAddr::V6(a) if a.is_multicast() => DropReason::Multicast,
            IpAddr::V4(a) if a.is_link_local() => DropReason::LinkLocal,
            IpAddr::V6(a) if a.is_unicast_link_local() => DropReason::LinkLocal,
            _ => DropReason::MartianDestination,
        };
        assert_eq!(reason, Some(expected), "to {source}");
    }
}

#[test]
fn loopback_services_are_not_reachable_from_neighbours() {
    // CVE-2020-8558: also with a default route, and with a host that has the address.
    let mut spec = world::spec(2);
    spec.host_addresses.push(Ipv4Addr::LOCALHOST.into());
    spec.host_addresses.push(Ipv6Addr::LOCALHOST.into());
    let mut world = World::new(&spec, Caps::NONE);
    for target in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let v6 = target.is_ipv6();
        let local = packets::tcp((pod(1, 1, v6), 1000), (target, 10_255), 2, 0);
        assert_eq!(world.dropped(POD1, from_pod(1, &local)), Some(DropReason::MartianDestination));
        let remote = packets::tcp((pod(2, 1, v6), 1000), (target, 10_255), 2, 0);
        let reason = world.dropped(Ingress::Underlay, from_node(2, v6, &remote));
        assert_eq!(reason, Some(DropReason::MartianDestination));
    }
}

#[test]
fn nothing_is_learnt_from_the_wire() {
    let mut world = World::new(&world::spec(3), Caps::NONE);
    let to_pod_of_3 = packets::ping(pod(1, 1, false), pod(3, 1, false), 1);
    let before = world.one(POD1, from_pod(1, &to_pod_of_3)).expect("forwarded").packet;
    // Node 2 says that it has a pod of node 3, with its own Ethernet address; so does a stranger.
    for (n, reason) in [(2, DropReason::SpoofedSource), (66, DropReason::UnknownVtep)] {
        let claim = packets::ping(pod(3, 1, false), pod(1, 1, false), 1);
        assert_eq!(world.dropped(Ingress::Underlay, from_node(n, false, &claim)), Some(reason));
    }
    let after = world.one(POD1, from_pod(1, &to_pod_of_3)).expect("forwarded").packet;
    // All but the outer identification and header checksum.
    assert_eq!((&before[..18], &before[26..]), (&after[..18], &after[26..]));
    assert_eq!(after[30..34], before[30..34]);
    // An address of ours that a remote packet came to is not remembered as being anywhere.
    let unknown = packets::ping(pod(1, 1, false), pod(66, 1, false), 1);
    assert_eq!(world.dropped(POD1, from_pod(1, &unknown)), Some(DropReason::NoRoute));
}

#[test]
fn nested_vxlan_is_not_decapsulated_again() {
    let mut world = World::new(&world::spec(3), Caps::NONE);
    let innermost = inner_frame(3, false, &packets::ping(pod(3, 1, false), pod(1, 1, false), 1));
    // Node 2 wraps what looks like node 3's packet into its own.
    for target in [our_outer(false), pod(1, 0, false)] {
        let ends = (outer(2, false), target);
        let middle = packets::encapsulated(ends, 8472, Vni::FLANNEL, 0, &innermost);
        let middle = [&world::OUR_MAC.0[..], &mac(2, false).0, &middle[12..]].concat();
        let ends = (outer(2, false), our_outer(false));
        let packet = packets::encapsulated(ends, 8472, Vni::FLANNEL, 0, &middle);
        assert_eq!(world.dropped(Ingress::Underlay, packet), Some(DropReason::NestedVxlan));
    }
    // To a pod it is a datagram like others, delivered as it is.
    let ends = (pod(2, 1, false), pod(1, 1, false));
    let middle = packets::encapsulated(ends, 8472, Vni::FLANNEL, 0, &innermost);
    let middle = [&world::OUR_MAC.0[..], &mac(2, false).0, &middle[12..]].concat();
    let ends = (outer(2, false), our_outer(false));
    let packet = packets::encapsulated(ends, 8472, Vni::FLANNEL, 0, &middle);
    let sent = world.one(Ingress::Underlay, packet).expect("delivered");
    assert_eq!((sent.egress, &sent.packet[34..]), (Egress::Workload(101), &middle[34..]));
}

#[test]
fn nested_vxlan_in_fragments_does_not_reach_the_hosts_socket_behind_another_flow() {
    // All fragments between two addresses share a flow: what was decided about one must not let another pass.
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let (from, to) = (outer(2, false), our_outer(false));
    let first = |port: u16| {
        let mut packet = packets::udp((from, 5000), (to, port), 104);
        packet.fragment = (true, 0);
        from_node(2, false, &packet)
    };
    assert_eq!(world.one(Ingress::Underlay, first(53)).expect("to the host").egress, Egress::Host);
    assert_eq!(world.dropped(Ingress::Underlay, first(8472)), Some(DropReason::NestedVxlan));
}

#[test]
fn the_hosts_own_packet_to_the_host_ends_even_behind_a_known_flow() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let packet = packets::ping(pod(1, 1, false), pod(1, 0, false), 1);
    assert_eq!(world.one(POD1, from_pod(1, &packet)).expect("to the host").egress, Egress::Host);
    let frame = packet.frame(Mac::ZERO, Mac::ZERO);
    assert_eq!(world.dropped(Ingress::Host, frame), Some(DropReason::HostLoop));
}

#[test]
fn encapsulation_from_workloads_is_dropped_unless_allowed() {
    for (allow_vxlan, allow_ipip) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut spec = world::spec(2);
        spec.settings.allow_vxlan_from_workloads = allow_vxlan;
        spec.settings.allow_ipip_from_workloads = allow_ipip;
        let mut world = World::new(&spec, Caps::NONE);
        for v6 in [false, true] {
            let (from, to) = (pod(1, 1, v6), pod(2, 1, v6));
            let vxlan = packets::udp((from, 50_000), (to, 8472), 80);
            let mut first = vxlan.clone();
            first.fragment = (true, 0);
            let inside = packets::ping(pod(1, 1, false), pod(2, 1, false), 1).bytes();
            let ip_in_ip = Ip::new(from, to, 4, inside);
            for (packet, allow) in [(vxlan, allow_vxlan), (first, allow_vxlan), (ip_in_ip, allow_ipip)] {
                let frame = from_pod(1, &packet);
                if allow {
                    assert_eq!(world.one(POD1, frame).expect("allowed").egress, Egress::Underlay);
                } else {
                    assert_eq!(world.dropped(POD1, frame), Some(DropReason::EncapFromWorkload));
                }
            }
            // Another port is nobody's business, and VXLAN as a source port neither.
            for ends in [((from, 8472), (to, 53)), ((from, 50_000), (to, 8473))] {
                assert!(world.one(POD1, from_pod(1, &packets::udp(ends.0, ends.1, 80))).is_some());
            }
        }
    }
}

#[test]
fn a_decapsulated_packet_leaves_by_a_route_of_the_overlay_only() {
    // CVE-2020-10136 and its like: an open decapsulator would forward to anywhere.
    let mut world = World::new(&world::spec(3), Caps::NONE);
    for target in [IpAddr::from([8, 8, 8, 8]), [192, 168, 50, 77].into(), pod(66, 1, false)] {
        let packet = packets::udp((pod(2, 1, false), 1), (target, 53), 10);
        let reason = world.dropped(Ingress::Underlay, from_node(2, false, &packet));
        assert_eq!(reason, Some(DropReason::NoRoute), "{target}");
    }
    // From node to node through us, since a route asks for it; one packet for one packet.
    let packet = packets::ping(pod(2, 1, false), pod(3, 1, false), 1);
    let sent = world.one(Ingress::Underlay, from_node(2, false, &packet)).expect("routed");
    assert_eq!(sent.egress, Egress::Underlay);
    assert_eq!(sent.packet[front(false) + 22], 63);
}

#[test]
fn ping_pong_between_two_vteps_ends_by_ttl_without_amplification() {
    // Nodes 1 and 2 route 10.9.0.0/16 to each other, and each lets the other speak for everybody.
    let lost: IpNetwork = IpNetwork::new([10, 9, 0, 0].into(), 16).expect("valid");
    let all: IpNetwork = IpNetwork::new([10, 0, 0, 0].into(), 8).expect("valid");
    let mut ours = world::spec(2);
    ours.vteps.iter_mut().for_each(|vtep| vtep.owns.push(all));
    ours.routes.push(Route { prefix: lost, via: Via::Vtep(outer(2, false)) });
    let mut theirs = ours.clone();
    // The same world seen from node 2.
    let vxlan = theirs.vxlan.as_mut().and_then(|vxlan| vxlan.v4.as_mut()).expect("an IPv4 VTEP");
    let IpAddr::V4(second) = outer(2, false) else { unreachable!("IPv4") };
    (vxlan.address, vxlan.mac) = (second, mac(2, false));
    theirs.host_addresses.clear();
    theirs.endpoints.clear();
    theirs.routes = vec![Route { prefix: lost, via: Via::Vtep(our_outer(false)) }].into();
    theirs.routes.push(Route { prefix: subnet(1, false), via: Via::Vtep(our_outer(false)) });
    theirs.vteps.retain(|vtep| vtep.outer == outer(2, false));
    (theirs.vteps[0].outer, theirs.vteps[0].mac) = (our_outer(false), world::OUR_MAC);
    let (mut first, mut second) = (World::new(&ours, Caps::NONE), World::new(&theirs, Caps::NONE));

    let packet = packets::ping(pod(1, 1, false), [10, 9, 1, 1].into(), 1);
    let mut on_the_wire = vec![first.one(POD1, from_pod(1, &packet)).expect("forwarded")];
    let mut hops = 1;
    while let Some(sent) = on_the_wire.pop().filter(|sent| sent.egress == Egress::Underlay) {
        let (receiver, other) = (sent.packet[33], &sent.packet);
        let node = if receiver == 2 { &mut second } else { &mut first };
        on_the_wire = node.run([(Ingress::Underlay, Default::default(), other.clone())]);
        assert!(on_the_wire.len() <= 1, "one packet never makes two");
        hops += 1;
        assert!(hops <= 70, "the packet never ends");
    }
    // 64 hops, and the time-exceeded message on its way back.
    assert!((63..=68).contains(&hops), "{hops}");
}

#[test]
fn malformed_headers_are_dropped_never_skipped() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let (a, b) = (pod(1, 1, false), pod(2, 1, false));
    let bad = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = from_pod(1, &packets::tcp((a, 1), (b, 2), 0x10, 20));
        edit(&mut frame);
        frame[24..26].fill(0);
        let header_len = usize::from(frame[14] & 15) * 4;
        let sum = canal_dataplane::testing::verify::checksum(&frame[14..14 + header_len.max(20)]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let cases: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("version 5", bad(&|f| f[14] = 0x55), DropReason::MalformedIpv4),
        ("header of 16 bytes", bad(&|f| f[14] = 0x44), DropReason::MalformedIpv4),
        ("total length below the header's", bad(&|f| f[17] = 19), DropReason::MalformedIpv4),
        ("total length beyond the frame", bad(&|f| f[16] = 9), DropReason::MalformedIpv4),
        ("TCP header of 16 bytes", bad(&|f| f[46] = 0x40), DropReason::MalformedTransport),
        ("TCP header beyond the packet", bad(&|f| f[46] = 0xf0), DropReason::MalformedTransport),
        ("TCP cut short", bad(&|f| f[17] = 39), DropReason::MalformedTransport),
        (
            "TCP cut short in a first fragment",
            bad(&|f| (f[17], f[20]) = (36, 0x20)),
            DropReason::TinyFragment,
        ),
        ("fragment that overwrites TCP flags", bad(&|f| f[21] = 1), DropReason::TinyFragment),
        ("loose source route", with_options(a, b, [131, 3, 4, 0]), DropReason::SourceRouted),
        ("strict source route", with_options(a, b, [137, 3, 4, 0]), DropReason::SourceRouted),
        ("option without an end", with_options(a, b, [7, 9, 0, 0]), DropReason::MalformedIpv4),
        ("option of length 0", with_options(a, b, [7, 0, 0, 0]), DropReason::MalformedIpv4),
        ("option of length 1", with_options(a, b, [7, 1, 0, 0]), DropReason::MalformedIpv4),
    ];
    for (what, frame, reason) in cases {
        assert_eq!(world.dropped(POD1, frame), Some(reason), "{what}");
    }
    // A wrong header checksum.
    let mut frame = from_pod(1, &packets::tcp((a, 1), (b, 2), 0x10, 20));
    frame[24] ^= 1;
    assert_eq!(world.dropped(POD1, frame), Some(DropReason::MalformedIpv4));
    // UDP lengths that contradict the IP header's.
    for (len, fine) in [(0u8, false), (7, false), (8, true), (27, true), (28, true), (29, false)] {
        let mut frame = from_pod(1, &packets::udp((a, 1), (b, 2), 20));
        frame[39] = len;
        assert_eq!(world.one(POD1, frame).is_some(), fine, "UDP length {len}");
    }
    // Padding is not part of a packet.
    let frame = from_pod(1, &packets::udp((a, 1), (b, 2), 1));
    let padded = [&frame[..], &[0x5a; 17]].concat();
    let sent = world.one(POD1, padded).expect("forwarded");
    assert_eq!(sent.packet.len(), front(false) + frame.len());
}

fn with_options(a: IpAddr, b: IpAddr, options: [u8; 4]) -> Vec<u8> {
    let frame = from_pod(1, &packets::tcp((a, 1), (b, 2), 0x10, 20));
    let mut frame = [&frame[..34], &options, &frame[34..]].concat();
    (frame[14], frame[17]) = (0x46, frame[17] + 4);
    frame[24..26].fill(0);
    let sum = canal_dataplane::testing::verify::checksum(&frame[14..38]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn malformed_extension_chains_are_dropped_never_skipped() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let (a, b) = (pod(1, 1, true), pod(2, 1, true));
    let udp = packets::udp((a, 1), (b, 2), 20).payload;
    let options = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
    let chain = |first: u8, headers: &[Vec<u8>]| {
        let payload = [headers.concat(), udp.clone()].concat();
        from_pod(1, &Ip::new(a, b, first, payload))
    };
    let nine: Vec<Vec<u8>> = (0..8).map(|_| options(60)).chain([options(17)]).collect();
    let cases: Vec<(&str, Vec<u8>, Option<DropReason>)> = vec![
        ("eight destination options", chain(60, &nine[1..]), None),
        ("nine destination options", chain(60, &nine), Some(DropReason::MalformedIpv6)),
        ("hop-by-hop options", chain(0, &[options(17)]), None),
        ("hop-by-hop not first", chain(60, &[options(0), options(17)]), Some(DropReason::MalformedIpv6)),
        (
            "options beyond the packet",
            chain(60, &[vec![17, 99, 1, 4, 0, 0, 0, 0]]),
            Some(DropReason::MalformedIpv6),
        ),
        ("routing type 0", chain(43, &[vec![17, 0, 0, 1, 0, 0, 0, 0]]), Some(DropReason::SourceRouted)),
        ("routing type 0, done", chain(43, &[vec![17, 0, 0, 0, 0, 0, 0, 0]]), None),
        (
            "two fragment headers",
            chain(44, &[vec![44, 0, 0, 1, 0, 0, 0, 1], vec![17, 0, 0, 1, 0, 0, 0, 1]]),
            Some(DropReason::MalformedIpv6),
        ),
        (
            "a first fragment without its ports",
            from_pod(1, &Ip::new(a, b, 44, vec![17, 0, 0, 1, 0, 0, 0, 1, 0, 1])),
            Some(DropReason::TinyFragment),
        ),
    ];
    for (what, frame, reason) in cases {
        match reason {
            None => assert!(world.one(POD1, frame).is_some(), "{what}"),
            Some(_) => assert_eq!(world.dropped(POD1, frame), reason, "{what}"),
        }
    }
}
