//! Datagrams in pieces: no piece passes that its first would not.

use canal_dataplane::port::Ingress;
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world::{World, pod};
use canal_dataplane::verdict::DropReason;

use crate::{from_own, from_remote, only, strict};

/// A piece of a UDP datagram from our pod to node 2's, and of its answer.
fn piece(v6: bool, back: bool, (more, units): (bool, u16)) -> (Ingress, Vec<u8>) {
    let (own, other) = ((pod(1, 1, v6), 5000), (pod(2, 7, v6), 53));
    let mut packet = if back { packets::udp(other, own, 800) } else { packets::udp(own, other, 800) };
    cut(&mut packet, more, units);
    if back { from_remote(&packet) } else { from_own(&packet) }
}

fn cut(packet: &mut Ip, more: bool, units: u16) {
    if packet.source.is_ipv4() {
        packet.fragment = (more, units);
        return;
    }
    let word = (units << 3 | u16::from(more)).to_be_bytes();
    packet.payload.splice(..0, [packet.protocol, 0, word[0], word[1], 0, 0, 0, 7]);
    packet.protocol = 44;
}

const FIRST: (bool, u16) = (true, 0);
const MIDDLE: (bool, u16) = (true, 101);
const LAST: (bool, u16) = (false, 202);

fn passes(world: &mut World, (ingress, packet): (Ingress, Vec<u8>)) -> bool {
    world.one(ingress, packet).is_some()
}

#[test]
fn later_pieces_follow_their_first_within_its_connection() {
    for v6 in [false, true] {
        let mut world = strict();
        for which in [FIRST, MIDDLE, LAST] {
            assert!(passes(&mut world, piece(v6, false, which)));
        }
        let flow = only(&world);
        assert_eq!(flow.packets[flow.origin as usize], 3);
        assert_eq!(flow.key.ends(flow.origin), ((pod(1, 1, v6), 5000), (pod(2, 7, v6), 53)));
        // The answer in pieces belongs to the question, and so does a whole one.
        for which in [FIRST, LAST] {
            assert!(passes(&mut world, piece(v6, true, which)));
        }
        assert!(only(&world).answered);
        let (ingress, packet) = from_remote(&packets::udp((pod(2, 7, v6), 53), (pod(1, 1, v6), 5000), 9));
        assert!(world.one(ingress, packet).is_some());
        assert_eq!(world.flows().len(), 1);
    }
}

#[test]
fn pieces_without_their_first_are_dropped() {
    for v6 in [false, true] {
        let mut world = strict();
        let reason =
            |world: &mut World, (ingress, packet): (Ingress, Vec<u8>)| world.dropped(ingress, packet);
        let without = Some(DropReason::FragmentWithoutFirst);
        assert_eq!(reason(&mut world, piece(v6, false, LAST)), without, "before the first");
        assert!(passes(&mut world, piece(v6, false, FIRST)));
        assert_eq!(reason(&mut world, piece(v6, true, LAST)), without, "of the other direction");
        world.wait(4_000);
        assert!(passes(&mut world, piece(v6, false, LAST)));
        world.wait(1_000);
        assert_eq!(reason(&mut world, piece(v6, false, LAST)), without, "too late");
    }
}

#[test]
fn what_is_refused_in_a_first_piece_is_refused_in_the_others() {
    let mut world = strict();
    let (own, other) = ((pod(1, 1, false), 5000), (pod(2, 7, false), 80));
    for (more, units, reason) in [(true, 0, DropReason::NoConnection), (false, 10, DropReason::NoConnection)]
    {
        let mut packet = packets::tcp(own, other, 0x10, 76);
        cut(&mut packet, more, units);
        let (ingress, packet) = from_own(&packet);
        assert_eq!(world.dropped(ingress, packet), Some(reason));
    }
    // Nobody names another's pieces: a forged first piece is dropped before it is noted.
    let mut forged = packets::udp((pod(1, 2, false), 53), (pod(2, 7, false), 53), 72);
    cut(&mut forged, true, 0);
    let (ingress, packet) = from_own(&forged);
    assert_eq!(world.dropped(ingress, packet), Some(DropReason::SpoofedSource));
    let mut last = packets::udp((pod(1, 2, false), 53), (pod(2, 7, false), 53), 72);
    cut(&mut last, false, 10);
    let from_2 = canal_dataplane::testing::world::from_pod(2, &last);
    assert_eq!(world.dropped(crate::POD2, from_2), Some(DropReason::FragmentWithoutFirst));
}

#[test]
fn protocols_without_ports_need_no_first_piece() {
    for v6 in [false, true] {
        let mut world = strict();
        for which in [LAST, FIRST] {
            let mut packet = Ip::new(pod(1, 1, v6), pod(2, 7, v6), 47, vec![0; 80]);
            cut(&mut packet, which.0, which.1);
            assert!(passes(&mut world, from_own(&packet)));
        }
        assert_eq!(only(&world).packets.iter().sum::<u32>(), 2);
    }
}
