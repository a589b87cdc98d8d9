//! Two workers in memory: every connection ends at one of them, whichever way its packets come in.

use std::collections::HashMap;
use std::sync::Arc;

use canal_dataplane::counters::Counters;
use canal_dataplane::net::FlowKey;
use canal_dataplane::offload::{Caps, Offload};
use canal_dataplane::port::mem::{MemPort, Sent};
use canal_dataplane::port::{Egress, Ingress, Received};
use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world::{self, from_node, from_pod, pod};
use canal_dataplane::worker::{Ports, Worker, WorkerConfig};
use proptest::prelude::*;

const FRAMES: usize = 256;
const POD1: Ingress = Ingress::Workload(101);

/// The workers of one node, each with its queue of the one port.
struct Team {
    tables: Tables,
    workers: Vec<(Worker, MemPort, Arc<Counters>)>,
    /// Frames that went from one worker to another.
    handed: usize,
    /// They may do so twice: pieces of datagrams.
    twice: bool,
}

impl Team {
    fn new(workers: u32) -> Self {
        let member = |index| {
            let counters = Arc::new(Counters::default());
            let config =
                WorkerConfig { index, workers, flow_capacity: 1024, frames: FRAMES, ..world::config(1000) };
            (Worker::new(config, Arc::clone(&counters)), MemPort::new(Caps::NONE), counters)
        };
        let tables = tables::compile(&world::spec(3), None, 1);
        Self { tables, workers: (0..workers).map(member).collect(), handed: 0, twice: false }
    }

    /// Gives a packet to one worker's queue, and lets all work until everything has left.
    fn send(&mut self, worker: usize, ingress: Ingress, packet: Vec<u8>) -> Vec<Sent> {
        self.workers[worker].1.inject(ingress, Offload::NONE, packet);
        let mut sent = Vec::new();
        loop {
            let mut crossing: Vec<(usize, u32, Received)> = Vec::new();
            let mut handled = 0;
            for (index, (worker, port, _)) in self.workers.iter_mut().enumerate() {
                let mut handover = Vec::new();
                let mut ports = Ports { access: port, underlay: None };
                handled += worker.poll(&self.tables, 2000, &mut ports, &mut handover);
                crossing.extend(handover.into_iter().map(|(to, received)| (index, to, received)));
                sent.extend(port.take_sent());
            }
            for (from, to, received) in crossing {
                assert_ne!(from, to as usize, "handed over to itself");
                assert!(
                    self.twice || from == worker,
                    "handed over by a worker that did not receive it: handed over twice"
                );
                self.handed += 1;
                self.workers[to as usize].0.accept(received);
            }
            if handled == 0 {
                break;
            }
        }
        let frames: usize = self.workers.iter_mut().map(|(worker, ..)| worker.pool().available()).sum();
        assert_eq!(frames, self.workers.len() * FRAMES, "frames are conserved over all pools");
        sent
    }

    /// The workers that remember each connection.
    fn owners(&self) -> HashMap<String, Vec<usize>> {
        let mut owners: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, (worker, ..)) in self.workers.iter().enumerate() {
            for flow in worker.flows(usize::MAX, &self.tables, 2000) {
                owners.entry(name(&flow.key)).or_default().push(index);
            }
        }
        owners
    }
}

fn name(key: &FlowKey) -> String {
    format!("{key:?}")
}

/// A connection and the way its packets come to us.
#[derive(Clone, Copy, Debug)]
enum Flow {
    Overlay { node: u16, v6: bool, port: u16 },
    Local { v6: bool, port: u16 },
    Host { v6: bool, port: u16 },
}

impl Flow {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            (2u16..=3, any::<bool>(), any::<u16>()).prop_map(|(node, v6, port)| Self::Overlay {
                node,
                v6,
                port
            }),
            any::<(bool, u16)>().prop_map(|(v6, port)| Self::Local { v6, port }),
            any::<(bool, u16)>().prop_map(|(v6, port)| Self::Host { v6, port }),
        ]
    }

    /// One packet of one direction: where from, its bytes, and where it must go.
    fn packet(self, back: bool) -> (Ingress, Vec<u8>, Egress) {
        let udp = |from, to, port: u16| -> Ip {
            if back {
                packets::udp((to, 53), (from, port), 30)
            } else {
                packets::udp((from, port), (to, 53), 30)
            }
        };
        match self {
            Self::Overlay { node, v6, port } => {
                let packet = udp(pod(1, 1, v6), pod(node, 4, v6), port);
                if back {
                    (Ingress::Underlay, from_node(node, v6, &packet), Egress::Workload(101))
                } else {
                    (POD1, from_pod(1, &packet), Egress::Underlay)
                }
            }
            Self::Local { v6, port } => {
                let packet = udp(pod(1, 1, v6), pod(1, 2, v6), port);
                if back {
                    (Ingress::Workload(102), from_pod(2, &packet), Egress::Workload(101))
                } else {
                    (POD1, from_pod(1, &packet), Egress::Workload(102))
                }
            }
            Self::Host { v6, port } => {
                let packet = udp(pod(1, 1, v6), pod(1, 0, v6), port);
                let frame = from_pod(1, &packet);
                if back { (Ingress::Host, frame, Egress::Workload(101)) } else { (POD1, frame, Egress::Host) }
            }
        }
    }
}

#[test]
fn a_decapsulated_packet_is_handed_over_with_its_sender() {
    let mut team = Team::new(2);
    for i in 0..64 {
        let packet = packets::udp((pod(2, 7, false), i), (pod(1, 1, false), 53), 10);
        let sent = team.send(usize::from(i) % 2, Ingress::Underlay, from_node(2, false, &packet));
        assert_eq!(sent.len(), 1, "flow {i}");
        // Who may speak for an address is asked of the owner as well.
        let foreign = packets::udp((pod(3, 7, false), i), (pod(1, 1, false), 53), 10);
        let sent = team.send(usize::from(i) % 2, Ingress::Underlay, from_node(2, false, &foreign));
        assert!(sent.is_empty());
    }
    assert!((16..48).contains(&team.handed), "{}", team.handed);
}

#[test]
fn an_error_about_a_handed_over_packet_finds_its_way_back() {
    let mut team = Team::new(2);
    for i in 0..8 {
        let mut packet = packets::udp((pod(2, i, false), u16::from(i)), (pod(1, 1, false), 53), 10);
        packet.ttl = 1;
        for worker in 0..2 {
            let sent = team.send(worker, Ingress::Underlay, from_node(2, false, &packet));
            assert_eq!(sent.iter().map(|sent| sent.egress).collect::<Vec<_>>(), [Egress::Underlay]);
        }
    }
    assert_eq!(team.handed, 8);
}

#[test]
fn pieces_of_datagrams_find_their_connection_whichever_worker_gets_them() {
    for v6 in [false, true] {
        let mut team = Team::new(4);
        team.twice = true;
        for port in 0..32u16 {
            let (own, other) = ((pod(1, 1, v6), port), (pod(2, 7, v6), 53));
            let question = packets::udp(own, other, 20);
            let sent = team.send(usize::from(port) % 4, POD1, from_pod(1, &question));
            assert_eq!(sent.len(), 1);
            let before = team.handed;
            for (more, units) in [(true, 0), (true, 20), (false, 40)] {
                let mut answer = packets::udp(other, own, 152);
                if v6 {
                    let word = (units << 3 | u16::from(more)).to_be_bytes();
                    answer.payload.splice(..0, [17, 0, word[0], word[1], 0, 0, 0, port as u8]);
                    answer.protocol = 44;
                } else {
                    answer.fragment = (more, units);
                }
                let sent = team.send(usize::from(port) / 4 % 4, Ingress::Underlay, from_node(2, v6, &answer));
                let egress: Vec<Egress> = sent.iter().map(|sent| sent.egress).collect();
                assert_eq!(egress, [Egress::Workload(101)], "port {port}, piece at {units}");
            }
            assert!(team.handed - before <= 6, "two steps a piece at most");
        }
        let owners = team.owners();
        assert_eq!(owners.len(), 32);
        assert!(owners.values().all(|owners| owners.len() == 1), "{owners:?}");
    }
}

#[test]
fn an_error_reaches_the_worker_of_the_connection_it_is_about() {
    for v6 in [false, true] {
        let mut team = Team::new(4);
        for port in 0..32u16 {
            let question = packets::udp((pod(1, 1, v6), port), (pod(2, 7, v6), 9), 20);
            assert_eq!(team.send(usize::from(port) % 4, POD1, from_pod(1, &question)).len(), 1);
            let (protocol, kind) = if v6 { (packets::ICMPV6, 1) } else { (packets::ICMP, 3) };
            let message = [&[kind, 3, 0, 0, 0, 0, 0, 0][..], &question.bytes()].concat();
            let error = Ip::new(pod(2, 7, v6), pod(1, 1, v6), protocol, message).finished();
            let sent = team.send(usize::from(port) / 4 % 4, Ingress::Underlay, from_node(2, v6, &error));
            let egress: Vec<Egress> = sent.iter().map(|sent| sent.egress).collect();
            assert_eq!(egress, [Egress::Workload(101)], "port {port}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_connection_ends_at_one_worker(
        workers in 2u32..5,
        flows in prop::collection::vec(Flow::any(), 1..24),
        packets in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<prop::sample::Index>()), 1..80),
    ) {
        let mut team = Team::new(workers);
        for (flow, back, worker) in packets {
            let flow = flows[flow.index(flows.len())];
            let (ingress, packet, egress) = flow.packet(back);
            let sent = team.send(worker.index(workers as usize), ingress, packet);
            prop_assert_eq!(sent.iter().map(|sent| sent.egress).collect::<Vec<_>>(), vec![egress], "{:?}", flow);
        }
        for (flow, owners) in team.owners() {
            prop_assert_eq!(owners.len(), 1, "{} is at {:?}", flow, owners);
        }
        let counted: u64 = team.workers.iter().map(|(_, _, counters)| counters.handed_over.get()).sum();
        prop_assert_eq!(counted, team.handed as u64);
    }
}
