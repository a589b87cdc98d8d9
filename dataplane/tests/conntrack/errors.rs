//! ICMP errors belong to the connection that they are about.

use std::net::IpAddr;

use canal_dataplane::net::Mac;
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world::{self, from_pod, pod};
use canal_dataplane::verdict::DropReason;

use crate::{ACK, POD2, from_own, from_remote, open, strict};

/// An error of this type from `from` to `to` about a packet, of which `quoted` bytes are quoted.
fn error(from: IpAddr, to: IpAddr, kind: u8, about: &Ip, quoted: usize) -> Ip {
    let protocol = if from.is_ipv4() { packets::ICMP } else { packets::ICMPV6 };
    let mut quote = about.bytes();
    quote.truncate(quoted);
    let message = [&[kind, if from.is_ipv4() { 4 } else { 0 }, 0, 0, 0, 0, 5, 0][..], &quote].concat();
    Ip::new(from, to, protocol, message).finished()
}

/// A segment of the connection that [`open`] opens, from our pod.
fn sent(v6: bool) -> Ip {
    packets::tcp((pod(1, 1, v6), 1000), (pod(2, 7, v6), 80), ACK, 900)
}

#[test]
fn an_error_about_a_connection_reaches_the_sender_and_is_remembered_nowhere() {
    for v6 in [false, true] {
        let mut world = strict();
        open(&mut world, v6);
        let kinds = if v6 { [1, 2, 3, 4] } else { [3, 4, 11, 12] };
        let before = world.flows();
        for kind in kinds {
            for quoted in [if v6 { 48 } else { 28 }, 548] {
                // From any router on the way: the other node's tunnel address.
                let (ingress, packet) =
                    from_remote(&error(pod(2, 0, v6), pod(1, 1, v6), kind, &sent(v6), quoted));
                let sent = world.one(ingress, packet).expect("related");
                assert_eq!(sent.egress, Egress::Workload(101));
            }
        }
        assert_eq!(world.flows(), before);
    }
}

#[test]
fn packet_too_big_from_this_host_reaches_its_pod() {
    let mut world = strict();
    open(&mut world, false);
    let packet = error(pod(1, 0, false), pod(1, 1, false), 3, &sent(false), 548);
    let sent = world.one(Ingress::Host, packet.frame(Mac::ZERO, Mac::ZERO)).expect("related");
    assert_eq!(sent.egress, Egress::Workload(101));
}

#[test]
fn an_error_about_nothing_is_dropped() {
    for v6 in [false, true] {
        let mut world = strict();
        let kind = if v6 { 1 } else { 3 };
        let (own, other) = (pod(1, 1, v6), pod(2, 7, v6));
        let (ingress, packet) = from_remote(&error(other, own, kind, &sent(v6), 548));
        assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection));
        open(&mut world, v6);
        let cases = [
            // To somebody who has not sent what is quoted.
            (error(other, pod(1, 2, v6), kind, &sent(v6), 548), DropReason::ConntrackInvalid),
            // A quote without ports, none at all, or of the other family.
            (error(other, own, kind, &sent(v6), if v6 { 47 } else { 27 }), DropReason::ConntrackInvalid),
            (error(other, own, kind, &sent(v6), 0), DropReason::ConntrackInvalid),
            (error(other, own, kind, &sent(!v6), 548), DropReason::ConntrackInvalid),
            // Another port, another protocol.
            (
                error(other, own, kind, &packets::tcp((own, 1001), (other, 80), ACK, 0), 548),
                DropReason::NoConnection,
            ),
            (
                error(other, own, kind, &packets::udp((own, 1000), (other, 80), 0), 548),
                DropReason::NoConnection,
            ),
            // An error about an error.
            (
                error(other, own, kind, &error(own, other, kind, &sent(v6), 548), 548),
                DropReason::NoConnection,
            ),
        ];
        for (packet, reason) in cases {
            let (ingress, frame) = from_remote(&packet);
            assert_eq!(world.dropped(ingress, frame), Some(reason), "{packet:?}");
        }
    }
}

#[test]
fn redirects_and_unknown_messages_are_dropped() {
    for (v6, kinds) in [(false, [5u8, 9, 10, 19, 30]), (true, [0, 5, 100, 127, 144])] {
        let mut world = strict();
        open(&mut world, v6);
        for kind in kinds {
            let (ingress, packet) = from_remote(&error(pod(2, 7, v6), pod(1, 1, v6), kind, &sent(v6), 548));
            assert_eq!(world.dropped(ingress, packet), Some(DropReason::ConntrackInvalid), "{kind}");
        }
    }
}

#[test]
fn a_workload_may_tell_its_peer_that_a_port_is_closed() {
    for v6 in [false, true] {
        let mut world = strict();
        let asked = packets::udp((pod(2, 7, v6), 4000), (pod(1, 1, v6), 9), 10);
        let (ingress, packet) = from_remote(&asked);
        assert!(world.one(ingress, packet).is_some());
        let unreachable = error(pod(1, 1, v6), pod(2, 7, v6), if v6 { 1 } else { 3 }, &asked, 548);
        let (ingress, packet) = from_own(&unreachable);
        assert_eq!(world.one(ingress, packet).expect("related").egress, Egress::Underlay);
    }
}

#[test]
fn an_error_about_a_connection_of_a_workload_that_went_is_dropped() {
    let mut world = strict();
    open(&mut world, false);
    let mut spec = world::spec(3);
    spec.endpoints[0].name = "default/newcomer".into();
    world.update(&spec);
    let (ingress, packet) = from_remote(&error(pod(2, 0, false), pod(1, 1, false), 3, &sent(false), 548));
    assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection));
}

#[test]
fn an_error_does_not_open_the_way_it_took() {
    let mut world = strict();
    open(&mut world, false);
    let (ingress, packet) = from_remote(&error(pod(2, 0, false), pod(1, 1, false), 3, &sent(false), 548));
    assert!(world.one(ingress, packet).is_some());
    // Neither for other messages between the two, nor for the next error.
    let mut answer = packets::ping(pod(2, 0, false), pod(1, 1, false), 0);
    answer.payload[0] = 0;
    let (ingress, packet) = from_remote(&answer.finished());
    assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection));
    let from_2 = error(
        pod(1, 2, false),
        pod(1, 1, false),
        3,
        &packets::udp((pod(1, 1, false), 1), (pod(1, 2, false), 2), 0),
        548,
    );
    assert_eq!(world.dropped(POD2, from_pod(2, &from_2)), Some(DropReason::NoConnection));
}
