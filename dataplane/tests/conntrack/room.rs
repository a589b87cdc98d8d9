//! One sender's flood takes its own room, and nobody else's.

use canal_dataplane::flow::Quota;
use canal_dataplane::offload::Caps;
use canal_dataplane::testing::packets;
use canal_dataplane::testing::world::{self, PICKUP_MS, World, from_pod, pod};
use canal_dataplane::verdict::DropReason;
use canal_dataplane::worker::WorkerConfig;

use crate::{ACK, POD1, POD2, SYN};

const QUOTA: usize = 1024;

fn small() -> World {
    let flow_quota = Quota { workload: QUOTA, node: 2 * QUOTA };
    let config = WorkerConfig { flow_capacity: 2 * QUOTA, flow_quota, ..world::config(1000) };
    let mut world = World::with_config(&world::spec(3), Caps::NONE, config);
    world.settle();
    world.wait(PICKUP_MS);
    world
}

/// Pod 2's flood: packet `n` opens a connection that nobody answers, of TCP or of UDP.
fn flood(world: &mut World, n: u32) {
    let (from, to) = ((pod(1, 2, false), (n >> 8) as u16 + 1), (pod(2, 7, false), (n & 0xff) as u16 + 1));
    let packet = if n.is_multiple_of(2) { packets::udp(from, to, 0) } else { packets::tcp(from, to, SYN, 0) };
    assert!(world.one(POD2, from_pod(2, &packet)).is_some(), "the flood itself passes: its own oldest go");
}

#[test]
fn a_flood_leaves_the_connections_of_others_alone_and_lets_them_open_more() {
    let mut world = small();
    let victim = |world: &mut World, n: u16, back: bool, flags: u8| {
        let (own, other) = ((pod(1, 1, false), 1000 + n), (pod(2, 7, false), 80));
        if back {
            let packet = packets::tcp(other, own, flags, 0);
            world.one(canal_dataplane::port::Ingress::Underlay, world::from_node(2, false, &packet)).is_some()
        } else {
            world.one(POD1, from_pod(1, &packets::tcp(own, other, flags, 0))).is_some()
        }
    };
    let open = |world: &mut World, n: u16| {
        [(false, SYN), (true, SYN | ACK), (false, ACK)]
            .into_iter()
            .all(|(back, flags)| victim(world, n, back, flags))
    };
    (0..100).for_each(|n| assert!(open(&mut world, n)));
    // A hundred packets of the flood for one of the victim's, many times what the table holds.
    for n in 0..20_000 {
        flood(&mut world, n);
        if n % 100 == 0 {
            let n = (n / 100) as u16;
            assert!(victim(&mut world, n % 100, n.is_multiple_of(2), ACK), "an old connection");
            assert!(open(&mut world, 100 + n), "a new one");
        }
    }
    assert_eq!(world.counters.all_drops(), 0);
    let flows = world.flows();
    let of_victim = flows.iter().filter(|flow| flow.key.ends(flow.origin).0.0 == pod(1, 1, false));
    assert_eq!(of_victim.count(), 300);
    assert_eq!(flows.len(), 300 + QUOTA);
}

#[test]
fn a_workload_with_a_full_quota_of_answered_connections_gets_no_more() {
    let mut world = small();
    for n in 0..QUOTA as u16 {
        let (own, other) = ((pod(1, 2, false), 1000 + n), (pod(1, 1, false), 53));
        assert!(world.one(POD2, from_pod(2, &packets::udp(own, other, 0))).is_some());
        assert!(world.one(POD1, from_pod(1, &packets::udp(other, own, 0))).is_some());
    }
    let one_more = packets::udp((pod(1, 2, false), 9), (pod(2, 1, false), 53), 0);
    assert_eq!(world.dropped(POD2, from_pod(2, &one_more)), Some(DropReason::EndpointQuota));
    // Who is asked pays nothing: pod 1 has its whole quota.
    let other = packets::udp((pod(1, 1, false), 9), (pod(2, 1, false), 53), 0);
    assert!(world.one(POD1, from_pod(1, &other)).is_some());
    world.wait(123_000);
    assert!(world.one(POD2, from_pod(2, &one_more)).is_some());
}
