//! The fast path allocates nothing: a counting allocator watches batches of established flows go through, and new ones
//! under policy.

mod counting;

use std::sync::Arc;

use canal_dataplane::counters::Counters;
use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::{BATCH, SUPER_FRAME_BUFFER};
use canal_dataplane::offload::{Caps, Checksum, Gso, GsoKind, Offload};
use canal_dataplane::port::{Egress, Ingress, Outgoing, Port, PortStats, Received};
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::policy::{
    Action, IpSet, Members, Origin, OriginKind, PolicyDirection, PolicyList, Ports as RulePorts, Rule,
    RuleSet, Tier, TierEnd,
};
use canal_dataplane::tables::{self, Publisher};
use canal_dataplane::testing::packets;
use canal_dataplane::testing::world::{self, from_node, from_pod, pod};
use canal_dataplane::worker::{Ports, Worker, WorkerConfig};
use ipnetwork::IpNetwork;

/// A port that delivers the same packets again and again and forgets what it is given.
struct Loop {
    packets: Vec<(Ingress, Offload, Vec<u8>)>,
    caps: Caps,
    due: bool,
    /// Every turn brings other connections: the IPv4 packets' source port grows by 64 with each.
    fresh: Option<u16>,
    sent: [u64; 5],
}

impl Loop {
    fn new(packets: Vec<(Ingress, Offload, Vec<u8>)>, caps: Caps) -> Self {
        assert!(packets.len() <= BATCH);
        Self { packets, caps, due: false, fresh: None, sent: [0; 5] }
    }
}

impl Port for Loop {
    fn caps(&self) -> Caps {
        self.caps
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, _limit: usize) {
        if !std::mem::take(&mut self.due) {
            return;
        }
        for (ingress, offload, packet) in &self.packets {
            let Some(mut frame) = pool.take() else { return };
            assert!(frame.fill(packet));
            if let Some(turn) = self.fresh {
                let port = u16::from_be_bytes([packet[34], packet[35]]) + turn * 64;
                frame.data_mut()[34..36].copy_from_slice(&port.to_be_bytes());
            }
            into.push(Received { frame, offload: *offload, ingress: *ingress });
        }
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        for Outgoing { frame, egress, .. } in frames.drain(..) {
            let kind = match egress {
                Egress::Workload(_) => 0,
                Egress::Underlay => 1,
                Egress::Direct(_) => 2,
                Egress::Gateway { .. } => 4,
                Egress::Host => 3,
            };
            self.sent[kind] += 1;
            pool.give(frame);
        }
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

/// Turns that make every buffer as large as it gets.
const WARM_UP: u32 = 8;
/// Turns that are watched.
const WATCHED: u32 = 64;

/// Runs the packets through a worker again and again; asserts that the later turns ask for no memory, and returns what
/// each turn sent by kind of egress.
fn watch(packets: Vec<(Ingress, Offload, Vec<u8>)>, caps: Caps) -> [u64; 5] {
    let (sent, counters) = watch_under(&world::spec(3), Loop::new(packets, caps));
    // Every packet was a known flow's: this was the fast path.
    assert_eq!(counters.flow_hits.get(), counters.received.get() - counters.flows_created.get());
    sent
}

/// The same under any spec, with any loop.
fn watch_under(spec: &NodeSpec, mut port: Loop) -> ([u64; 5], Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let config = WorkerConfig { frames: 1024, frame_size: SUPER_FRAME_BUFFER, ..world::config(1000) };
    let mut worker = Worker::new(config, Arc::clone(&counters));
    let publisher = Publisher::new(tables::compile(spec, None, 1));
    let mut reader = publisher.reader();
    let mut handover = Vec::with_capacity(BATCH);
    let mut turn = |port: &mut Loop, now_ms: u64| {
        port.due = true;
        port.fresh = port.fresh.map(|turn| turn + 1);
        let mut ports = Ports { access: port, underlay: None };
        assert!(worker.poll(reader.load(), now_ms, &mut ports, &mut handover) > 0);
    };
    for i in 0..WARM_UP {
        turn(&mut port, 1000 + u64::from(i));
    }
    let drops = counters.all_drops();
    port.sent = [0; 5];
    let before = counting::calls();
    for i in 0..WATCHED {
        turn(&mut port, 2000 + u64::from(i) * 100);
    }
    let calls = counting::calls() - before;
    assert_eq!(calls, 0, "allocations in {WATCHED} turns");
    assert_eq!(counters.all_drops(), drops);
    let turns = u64::from(WATCHED);
    let sent = port.sent.map(|sent| {
        assert!(sent.is_multiple_of(turns));
        sent / turns
    });
    (sent, counters)
}

/// 64 packets of 64 flows in one direction.
fn batch(packet: impl Fn(u16) -> (Ingress, Vec<u8>)) -> Vec<(Ingress, Offload, Vec<u8>)> {
    (0..BATCH as u16)
        .map(|flow| {
            let (ingress, bytes) = packet(flow);
            (ingress, Offload::NONE, bytes)
        })
        .collect()
}

#[test]
fn the_counter_counts() {
    let before = counting::calls();
    let block = std::hint::black_box(Vec::<u8>::with_capacity(100));
    assert!(counting::calls() > before, "{}", block.capacity());
}

#[test]
fn encapsulation_of_established_flows_does_not_allocate() {
    for v6 in [false, true] {
        let sent = watch(
            batch(|flow| {
                let packet = packets::udp((pod(1, 1, v6), 1000 + flow), (pod(2, 7, v6), 53), 64);
                (Ingress::Workload(101), from_pod(1, &packet))
            }),
            Caps::NONE,
        );
        assert_eq!(sent, [0, 64, 0, 0, 0]);
    }
}

#[test]
fn decapsulation_of_established_flows_does_not_allocate() {
    for v6 in [false, true] {
        let sent = watch(
            batch(|flow| {
                let packet = packets::udp((pod(2, 7, v6), 53), (pod(1, 1, v6), 1000 + flow), 64);
                (Ingress::Underlay, from_node(2, v6, &packet))
            }),
            Caps::NONE,
        );
        assert_eq!(sent, [64, 0, 0, 0, 0]);
    }
}

#[test]
fn local_and_host_traffic_of_established_flows_does_not_allocate() {
    for v6 in [false, true] {
        let sent = watch(
            batch(|flow| {
                let target = if flow % 2 == 0 { pod(1, 2, v6) } else { pod(1, 0, v6) };
                let packet = packets::tcp((pod(1, 1, v6), 1000 + flow), (target, 80), 0x10, 64);
                (Ingress::Workload(101), from_pod(1, &packet))
            }),
            Caps::NONE,
        );
        assert_eq!(sent, [32, 0, 0, 32, 0]);
    }
}

/// A TCP super-frame with an unfinished checksum (whose value nobody here looks at).
fn super_frame(flow: u16, v6: bool) -> (Ingress, Offload, Vec<u8>) {
    let packet = packets::tcp((pod(1, 1, v6), 1000 + flow), (pod(2, 7, v6), 80), 0x10, 14_000);
    let (kind, start) = if v6 { (GsoKind::Tcp6, 54) } else { (GsoKind::Tcp4, 34) };
    let checksum = Checksum::Partial { start, offset: 16 };
    let offload = Offload { checksum, gso: Some(Gso { kind, size: 1370, ecn: false }), tunnel: None };
    (Ingress::Workload(101), offload, from_pod(1, &packet))
}

#[test]
fn super_frames_do_not_allocate_whether_the_port_takes_them_or_not() {
    for v6 in [false, true] {
        let packets = |count: u16| (0..count).map(|flow| super_frame(flow, v6)).collect::<Vec<_>>();
        assert_eq!(watch(packets(64), Caps::ALL), [0, 64, 0, 0, 0]);
        // Eleven segments each.
        assert_eq!(watch(packets(16), Caps::NONE), [0, 176, 0, 0, 0]);
    }
}

/// The small network with policies in both directions of every pod: rules over sets, networks and ports, of which one of the
/// last lets everything here pass, and a profile behind them.
fn spec_with_policy() -> NodeSpec {
    let mut spec = world::spec(3);
    let nets = |count: u8, first: u8| (0..count).map(move |i| IpNetwork::from(pod(2, first + i, false)));
    let set =
        |id: &str, nets: Vec<IpNetwork>| Arc::new(IpSet { id: id.into(), members: Members::Nets(nets) });
    let pods = [pod(1, 1, false), pod(1, 2, false)].map(IpNetwork::from);
    spec.sets = vec![
        set("s:all", pods.into_iter().chain(nets(20, 1)).collect()),
        set("s:few", nets(3, 30).collect()),
    ];
    let list = |direction| {
        let to = |id: Option<&str>, ports: (u16, u16)| {
            let mut rule = Rule { protocol: Some(17), ..Rule::any(Action::Allow) };
            let other =
                if direction == PolicyDirection::Ingress { &mut rule.source } else { &mut rule.destination };
            other.sets = id.into_iter().map(Into::into).collect();
            rule.destination.ports = Some(RulePorts { ranges: vec![ports], named: Vec::new() });
            rule
        };
        let policy = |name: &str, rules| {
            let origin = Origin { kind: OriginKind::NetworkPolicy, name: name.into(), direction };
            Arc::new(RuleSet { origin, rules })
        };
        let policies = vec![
            policy("team/deny", vec![Rule { protocol: Some(6), ..Rule::any(Action::Deny) }]),
            policy("team/few", vec![to(Some("s:few"), (1, 65_535))]),
            policy("team/all", vec![to(None, (80, 81)), to(Some("s:all"), (50, 60))]),
        ];
        let tier = Tier { name: "default".into(), end: TierEnd::Deny, policies };
        Arc::new(PolicyList { tiers: vec![tier], profiles: Vec::new() })
    };
    for endpoint in &mut spec.endpoints {
        endpoint.policy.ingress = list(PolicyDirection::Ingress);
        endpoint.policy.egress = list(PolicyDirection::Egress);
    }
    spec
}

/// To a remote pod and to a local one by turns: egress policy is asked, and half of the time ingress policy as well.
fn to_both() -> Vec<(Ingress, Offload, Vec<u8>)> {
    batch(|flow| {
        let target = if flow % 2 == 0 { pod(1, 2, false) } else { pod(2, 7, false) };
        let packet = packets::udp((pod(1, 1, false), 1000 + flow), (target, 53), 64);
        (Ingress::Workload(101), from_pod(1, &packet))
    })
}

#[test]
fn established_flows_under_policy_do_not_allocate() {
    let (sent, counters) = watch_under(&spec_with_policy(), Loop::new(to_both(), Caps::NONE));
    assert_eq!(sent, [32, 32, 0, 0, 0]);
    assert_eq!(counters.flows_created.get(), 64);
    assert_eq!(counters.flow_hits.get(), counters.received.get() - 64);
}

#[test]
fn new_flows_under_policy_do_not_allocate_nor_do_those_that_must_go_for_them() {
    let port = Loop { fresh: Some(0), ..Loop::new(to_both(), Caps::NONE) };
    let (sent, counters) = watch_under(&spec_with_policy(), port);
    assert_eq!(sent, [32, 32, 0, 0, 0]);
    assert_eq!((counters.flow_hits.get(), counters.flows_created.get()), (0, counters.received.get()));
    assert!(counters.flows_evicted.get() > 0, "more than one workload may have");
}
