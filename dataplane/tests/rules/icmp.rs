//! When an ICMP error is sent, and when it must not be (RFC 1122 §3.2.2, RFC 4443 §2.4).

use std::net::IpAddr;

use canal_dataplane::net::Mac;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::verify::finished;
use canal_dataplane::testing::world::{self, World, from_node, from_pod, pod};
use canal_dataplane::verdict::DropReason;

use crate::{POD1, front};

/// The packet with a TTL that ends here.
fn expiring(mut packet: Ip) -> Ip {
    packet.ttl = 1;
    packet
}

#[test]
fn traceroute_shows_this_hop_and_quotes_the_probe() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec(2), Caps::NONE);
        let probe = expiring(packets::udp((pod(1, 1, v6), 33_000), (pod(2, 1, v6), 33_434), 32));
        let sent = world.one(POD1, from_pod(1, &probe)).expect("told");
        assert_eq!((sent.egress, finished(&sent.packet)), (Egress::Workload(101), Ok(())));
        let ip = &sent.packet[14..];
        let (header, source) = if v6 { (40, &ip[8..24]) } else { (20, &ip[12..16]) };
        let gateway = match pod(1, 0, v6) {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        assert_eq!(source, gateway);
        assert_eq!(ip[header..header + 2], if v6 { [3, 0] } else { [11, 0] });
        assert_eq!(ip[header + 8..], probe.bytes(), "TTL as it was received");
        // A probe from another node is told through the tunnel.
        let probe = expiring(packets::udp((pod(2, 1, v6), 33_000), (pod(1, 1, v6), 33_434), 32));
        let sent = world.one(Ingress::Underlay, from_node(2, v6, &probe)).expect("told");
        assert_eq!(sent.egress, Egress::Underlay);
        assert_eq!(finished(&sent.packet[front(v6)..]), Ok(()));
        assert_eq!(sent.packet[front(v6) + 14 + header + 8..], probe.bytes());
    }
}

/// Something that must end in silence when its TTL runs out, and what must come before it, since it belongs to that.
struct Silent {
    what: &'static str,
    before: (Ingress, Vec<u8>),
    packet: Ip,
}

fn negative_list() -> Vec<Silent> {
    let mut list = Vec::new();
    for v6 in [false, true] {
        let (own, other) = (pod(1, 1, v6), pod(2, 1, v6));
        let asked = packets::udp((other, 2), (own, 1), 30);
        let (protocol, kinds) =
            if v6 { (packets::ICMPV6, [1u8, 2, 3, 4]) } else { (packets::ICMP, [3, 4, 11, 12]) };
        for kind in kinds {
            let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &asked.bytes()].concat();
            let error = Ip::new(own, other, protocol, message).finished();
            let before = (Ingress::Underlay, from_node(2, v6, &asked));
            list.push(Silent { what: "an error", before, packet: error });
        }
        let piece = |more: bool, units: u16| {
            let mut packet = packets::udp((own, 1), (other, 2), 800);
            if v6 {
                let word = (units << 3 | u16::from(more)).to_be_bytes();
                packet.payload.splice(..0, [packets::UDP, 0, word[0], word[1], 0, 0, 0, 7]);
                packet.protocol = 44;
            } else {
                packet.fragment = (more, units);
            }
            packet
        };
        let before = (POD1, from_pod(1, &piece(true, 0)));
        list.push(Silent { what: "a non-first fragment", before, packet: piece(false, 101) });
    }
    list
}

#[test]
fn no_error_in_answer_to_the_negative_list() {
    for Silent { what, before: (ingress, before), packet } in negative_list() {
        let mut world = World::new(&world::spec(2), Caps::NONE);
        assert!(world.one(ingress, before).is_some(), "what {what} belongs to");
        let frame = from_pod(1, &packet);
        assert!(world.one(POD1, frame).is_some(), "{what} is forwarded while it has hops left");
        let reason = world.dropped(POD1, from_pod(1, &expiring(packet)));
        assert_eq!(reason, Some(DropReason::TtlExpired), "{what}");
        assert_eq!(world.counters.replies.get(), 0, "{what}");
    }
}

#[test]
fn a_first_fragment_and_a_query_are_answered() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let mut first = packets::udp((pod(1, 1, false), 1), (pod(2, 1, false), 2), 104);
    first.fragment = (true, 0);
    for packet in [first, packets::ping(pod(1, 1, false), pod(2, 1, false), 1)] {
        let sent = world.one(POD1, from_pod(1, &expiring(packet))).expect("told");
        assert_eq!(sent.egress, Egress::Workload(101));
    }
}

#[test]
fn no_error_in_answer_to_multicast_and_broadcast() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    let targets: [IpAddr; 4] = [
        [224, 0, 0, 1].into(),
        [239, 1, 2, 3].into(),
        [255, 255, 255, 255].into(),
        IpAddr::V6("ff02::1".parse().expect("an address")),
    ];
    for target in targets {
        let packet = packets::udp((pod(1, 1, target.is_ipv6()), 1), (target, 2), 10);
        let reason = world.dropped(POD1, from_pod(1, &expiring(packet)));
        assert_eq!(reason, Some(DropReason::Multicast), "{target}");
    }
    // By its Ethernet address: a unicast packet that everybody on the link got.
    let packet = expiring(packets::udp((pod(1, 1, false), 1), (pod(2, 1, false), 2), 10));
    let reason = world.dropped(POD1, packet.frame(Mac::BROADCAST, world::pod_mac(1)));
    assert_eq!(reason, Some(DropReason::TtlExpired));
    assert_eq!(world.counters.replies.get(), 0);
}

#[test]
fn an_error_is_never_longer_than_the_rfcs_allow() {
    for (v6, most) in [(false, 576), (true, 1280)] {
        let mut world = World::new(&world::spec(2), Caps::NONE);
        let packet = expiring(packets::udp((pod(1, 1, v6), 1), (pod(2, 1, v6), 2), 1380));
        let sent = world.one(POD1, from_pod(1, &packet)).expect("told");
        assert_eq!(sent.packet.len(), 14 + most);
        assert_eq!(finished(&sent.packet), Ok(()));
    }
}
