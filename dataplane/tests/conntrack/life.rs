//! From the first packet to the last.

use canal_dataplane::flow::State;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world::{self, PICKUP_MS, World, from_pod, pod};
use canal_dataplane::verdict::DropReason;

use crate::{ACK, FIN, POD1, POD2, RST, SYN, from_own, from_remote, only, open, segment, strict};

#[test]
fn nothing_but_a_syn_opens_a_tcp_connection() {
    for v6 in [false, true] {
        for back in [false, true] {
            let mut world = strict();
            for flags in [ACK, ACK | 0x08, FIN | ACK, SYN | ACK, RST, RST | ACK] {
                let (ingress, packet) = segment(v6, back, flags);
                let reason = world.dropped(ingress, packet);
                assert_eq!(reason, Some(DropReason::NoConnection), "{flags:#x}");
            }
            for flags in [0, FIN, SYN | FIN, SYN | RST, FIN | SYN | ACK, 0x29] {
                let (ingress, packet) = segment(v6, back, flags);
                let reason = world.dropped(ingress, packet);
                assert_eq!(reason, Some(DropReason::ConntrackInvalid), "{flags:#x}");
            }
            assert_eq!(world.flows(), []);
            let (ingress, packet) = segment(v6, back, SYN);
            assert!(world.one(ingress, packet).is_some());
            assert_eq!(only(&world).state, State::SynSent);
        }
    }
}

#[test]
fn a_connection_lives_and_dies_by_its_flags() {
    let mut world = strict();
    let steps = [
        (false, SYN, "SYN_SENT", 120),
        (true, SYN | ACK, "SYN_RECV", 60),
        (false, ACK, "ESTABLISHED", 432_000),
        (true, ACK | 0x08, "ESTABLISHED", 432_000),
        (true, FIN | ACK, "FIN_WAIT", 120),
        (false, ACK, "CLOSE_WAIT", 60),
        // Half closed: the other side goes on for as long as it likes.
        (false, ACK | 0x08, "CLOSE_WAIT", 60),
        (true, ACK, "CLOSE_WAIT", 60),
        (false, FIN | ACK, "LAST_ACK", 30),
        (true, ACK, "TIME_WAIT", 120),
    ];
    for (back, flags, state, seconds) in steps {
        let (ingress, packet) = segment(false, back, flags);
        assert!(world.one(ingress, packet).is_some(), "{state}");
        let flow = only(&world);
        assert_eq!((flow.state.name(), flow.left_ms), (state, seconds * 1000));
        world.wait(1000);
        assert_eq!(only(&world).left_ms, (seconds - 1) * 1000);
    }
    world.wait(122_000);
    assert_eq!(world.flows(), []);
    let (ingress, packet) = segment(false, true, ACK);
    assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection));
}

#[test]
fn ports_serve_again_once_their_connection_is_over() {
    let mut world = strict();
    open(&mut world, false);
    // A SYN from the side that was called opens nothing while the connection lives.
    let (ingress, packet) = segment(false, true, SYN);
    assert_eq!(world.dropped(ingress, packet.clone()), Some(DropReason::ConntrackInvalid));
    let (from, reset) = segment(false, true, RST);
    assert!(world.one(from, reset).is_some());
    assert_eq!(only(&world).state, State::Close);
    let before = only(&world).origin;
    assert!(world.one(ingress, packet).is_some());
    let flow = only(&world);
    assert_eq!((flow.state, flow.origin, flow.answered), (State::SynSent, before.flip(), false));
}

#[test]
fn a_reset_shortens_what_an_idle_table_remembers() {
    for back in [false, true] {
        let mut world = strict();
        open(&mut world, true);
        world.wait(200_000);
        let (ingress, packet) = segment(true, back, RST);
        assert!(world.one(ingress, packet).is_some());
        world.wait(13_000);
        assert_eq!(world.flows(), []);
    }
}

#[test]
fn udp_is_answered_by_whoever_was_asked_and_by_nobody_else() {
    let mut world = strict();
    let (own, other) = ((pod(1, 1, false), 5353), (pod(2, 7, false), 53));
    let (ingress, packet) = from_own(&packets::udp(own, other, 20));
    for _ in 0..2 {
        assert!(world.one(ingress, packet.clone()).is_some());
    }
    let flow = only(&world);
    let (forth, back) = (flow.origin as usize, flow.origin.flip() as usize);
    assert_eq!((flow.state.name(), flow.answered, flow.left_ms), ("UNREPLIED", false, 30_000));
    assert_eq!((flow.packets[forth], flow.bytes[forth], flow.bytes[back]), (2, 2 * 48, 0));
    let (ingress, packet) = from_remote(&packets::udp(other, own, 20));
    assert!(world.one(ingress, packet).is_some());
    let flow = only(&world);
    assert_eq!((flow.state.name(), flow.answered, flow.left_ms), ("ASSURED", true, 120_000));
    assert_eq!((flow.packets[back], flow.bytes[back]), (1, 48));
}

#[test]
fn an_echo_answers_its_own_question_only() {
    for v6 in [false, true] {
        let mut world = strict();
        let (own, other) = (pod(1, 1, v6), pod(1, 2, v6));
        let answer = |from, to, id, code| {
            let mut packet = packets::ping(from, to, id);
            packet.payload[0] = if v6 { 129 } else { 0 };
            packet.payload[1] = code;
            packet.finished()
        };
        let from_other = |packet: &Ip| (POD2, from_pod(2, packet));
        let (ingress, packet) = from_other(&answer(other, own, 7, 0));
        assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection), "nobody has asked");
        let (ingress, packet) = from_own(&packets::ping(own, other, 7));
        assert!(world.one(ingress, packet).is_some());
        for (id, code, passes) in [(7, 0, true), (8, 0, false), (7, 1, false)] {
            let (ingress, packet) = from_other(&answer(other, own, id, code));
            assert_eq!(world.one(ingress, packet).is_some(), passes, "{id} {code}");
        }
        // The other one's own question with the same identifier is another connection.
        let (ingress, packet) = from_other(&packets::ping(other, own, 7));
        assert!(world.one(ingress, packet).is_some());
        assert_eq!(world.flows().len(), 2);
    }
}

#[test]
fn data_of_sctp_needs_an_association() {
    let mut world = strict();
    let (own, other) = ((pod(1, 1, false), 36_412), (pod(2, 7, false), 36_412));
    let (ingress, packet) = from_own(&packets::sctp(own, other, &[0]));
    assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection));
    for (back, chunks, state) in [
        (false, &[1u8][..], "COOKIE_WAIT"),
        (true, &[2], "COOKIE_WAIT"),
        (false, &[10, 0], "COOKIE_ECHOED"),
        (true, &[3, 11], "ESTABLISHED"),
        (true, &[0, 3], "ESTABLISHED"),
        (false, &[6], "CLOSE"),
    ] {
        let (ingress, packet) = if back {
            from_remote(&packets::sctp(other, own, chunks))
        } else {
            from_own(&packets::sctp(own, other, chunks))
        };
        assert!(world.one(ingress, packet).is_some(), "{state}");
        assert_eq!(only(&world).state.name(), state);
    }
}

#[test]
fn connections_older_than_the_worker_are_taken_up_for_a_while() {
    for (waited, passes) in [(0, true), (PICKUP_MS - 1, true), (PICKUP_MS, false)] {
        for back in [false, true] {
            let mut world = World::new(&world::spec(3), Caps::NONE);
            // The time begins with the first tables, not before.
            world.tables = canal_dataplane::tables::Tables::closed();
            world.wait(10 * PICKUP_MS);
            world.update(&world::spec(3));
            world.settle();
            world.wait(waited);
            let (ingress, packet) = segment(false, back, ACK);
            assert_eq!(world.one(ingress, packet).is_some(), passes, "{waited}");
            if passes {
                assert_eq!((only(&world).state, only(&world).left_ms), (State::Established, 300_000));
                let (ingress, packet) = segment(false, !back, ACK);
                assert!(world.one(ingress, packet).is_some());
                assert_eq!(only(&world).left_ms, 432_000_000);
            }
            // A reset ends what is there; it begins nothing.
            let mut packet = packets::tcp((pod(1, 1, false), 9), (pod(2, 1, false), 9), RST, 0);
            packet.ttl = 9;
            let reason = world.dropped(POD1, from_pod(1, &packet));
            assert_eq!(reason, Some(DropReason::NoConnection));
        }
    }
}

#[test]
fn loose_tables_take_up_connections_at_any_time() {
    let mut spec = world::spec(3);
    spec.settings.tcp_loose = true;
    let mut world = World::new(&spec, Caps::NONE);
    world.wait(10 * PICKUP_MS);
    let (ingress, packet) = segment(false, true, ACK);
    let sent = world.one(ingress, packet).expect("taken up");
    assert_eq!(sent.egress, Egress::Workload(101));
    let (ingress, packet) = segment(true, false, SYN | ACK);
    assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection));
}

#[test]
fn configured_timeouts_are_kept() {
    let mut spec = world::spec(3);
    spec.settings.timeouts.tcp_established = 5;
    let mut world = World::new(&spec, Caps::NONE);
    open(&mut world, false);
    world.wait(4_900);
    assert_eq!(only(&world).left_ms, 100);
    world.wait(2_300);
    assert_eq!(world.flows(), []);
}

#[test]
fn a_workload_that_goes_takes_its_connections_with_it() {
    let mut world = strict();
    open(&mut world, false);
    let (ingress, packet) = from_own(&packets::udp((pod(1, 1, false), 9), (pod(1, 2, false), 9), 0));
    assert!(world.one(ingress, packet).is_some());
    let (ingress, packet) =
        (POD2, from_pod(2, &packets::udp((pod(1, 2, false), 9), (pod(2, 1, false), 9), 0)));
    assert!(world.one(ingress, packet).is_some());
    assert_eq!(world.flows().len(), 3);
    let mut without = world::spec(3);
    without.endpoints.remove(0);
    world.update(&without);
    world.settle();
    assert_eq!(world.flows().len(), 1, "the one that pod 1 has no part in");
    assert_eq!(world.counters.flows_cut.get(), 2);
}

#[test]
fn whoever_takes_an_address_over_does_not_take_its_connections_over() {
    let mut world = strict();
    open(&mut world, false);
    // Another workload on the same interface with the same address; the old tables' entries are still there.
    let mut spec = world::spec(3);
    spec.endpoints[0].name = "default/newcomer".into();
    world.update(&spec);
    for back in [true, false] {
        let (ingress, packet) = segment(false, back, ACK);
        assert_eq!(world.dropped(ingress, packet), Some(DropReason::NoConnection));
    }
    assert_eq!(world.counters.flows_cut.get(), 1);
    // Its own connection by the same ports is a new one.
    open(&mut world, false);
    // A change that concerns nobody's address ends nothing.
    spec.endpoints[0].mtu = 1300;
    spec.endpoints[1].name = "default/other".into();
    world.update(&spec);
    let (ingress, packet) = segment(false, true, ACK);
    assert!(world.one(ingress, packet).is_some());
}

#[test]
fn a_super_frame_counts_once_and_moves_the_state_once() {
    use canal_dataplane::limits::SUPER_FRAME_BUFFER;
    use canal_dataplane::offload::{Checksum, Gso, GsoKind, Offload};
    let mut world = World::with_frames(&world::spec(3), Caps::ALL, SUPER_FRAME_BUFFER);
    world.settle();
    world.wait(PICKUP_MS);
    open(&mut world, false);
    let packet = packets::tcp((pod(1, 1, false), 1000), (pod(2, 7, false), 80), ACK, 20_000);
    let checksum = Checksum::Partial { start: 34, offset: 16 };
    let offload =
        Offload { checksum, gso: Some(Gso { kind: GsoKind::Tcp4, size: 1370, ecn: false }), tunnel: None };
    let before = only(&world);
    let sent = world.run([(POD1, offload, from_pod(1, &packet))]);
    assert_eq!(sent.len(), 1);
    let (after, forth) = (only(&world), before.origin as usize);
    assert_eq!(after.packets[forth], before.packets[forth] + 1);
    assert_eq!(after.bytes[forth], before.bytes[forth] + 20_040);
    assert_eq!(after.state, State::Established);
    assert_eq!(Ingress::Workload(101), POD1);
}
