//! The pipeline and its slow twin side by side: same packets, same specs, same clock; any difference is a panic that
//! shows both, the packet and the spec.

use std::collections::{BTreeMap, BTreeSet};

use super::entropy::Entropy;
use super::world::{PICKUP_MS, SEED, World};
use super::{talk, topology, traffic};
use crate::offload::{Caps, Offload};
use crate::port::{Egress, Ingress};
use crate::reference::{Outcome, Reference, mask};
use crate::spec::NodeSpec;
use crate::verdict::DropReason;

/// Bytes of a frame: more than the largest packet of [`traffic`], in the tunnel.
const FRAME: usize = 6 * 1024;
/// Packets that are remembered.
const REMEMBERED: usize = 8;
/// Packets that run as one batch.
const TOGETHER: usize = 6;
/// An entry of the flow table may outlive its time by this: two slots of its timer wheel, and what the wheel is late by.
const LATE_MS: u64 = 2200;
/// Steps of one scenario; bounds the time of a fuzzer's longest input.
const STEPS: usize = 200;

/// How often each kind of ending was seen.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    fn note(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// How often this was seen.
    pub fn seen(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Everything seen.
    pub fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, count)| (what.as_str(), *count))
    }
}

/// Both sides.
#[derive(Debug)]
pub struct Twin {
    world: World,
    reference: Reference,
    spec: NodeSpec,
    sent: Vec<Vec<u8>>,
    /// Packets that came last, to come again when something has changed.
    known: Vec<(Ingress, Vec<u8>)>,
    /// What was seen since it was made.
    pub coverage: Coverage,
}

impl Default for Twin {
    fn default() -> Self {
        Self::new()
    }
}

impl Twin {
    /// A node that knows nothing yet.
    pub fn new() -> Self {
        let spec = NodeSpec::default();
        let world = World::with_frames(&spec, Caps::NONE, FRAME);
        let (sent, known, coverage) = (Vec::new(), Vec::new(), Coverage::default());
        Self { world, reference: Reference::closed(SEED, PICKUP_MS), spec, sent, known, coverage }
    }

    /// A node of this network.
    pub fn of(spec: &NodeSpec) -> Self {
        let mut twin = Self::new();
        twin.spec = spec.clone();
        twin.publish();
        twin
    }

    /// One packet to the node as it is.
    ///
    /// # Panics
    /// When the two sides differ, or a frame is lost.
    pub fn check(&mut self, ingress: Ingress, packet: &[u8]) {
        self.wait(1000);
        self.compare(vec![(ingress, packet.to_vec())]);
    }

    /// The last packet that went to the underlay.
    pub fn last_sent(&self) -> Option<&[u8]> {
        self.sent.first().map(Vec::as_slice)
    }

    /// Plays the scenario that `bytes` tell.
    ///
    /// # Panics
    /// When the two sides differ, or a frame is lost.
    pub fn play(&mut self, bytes: &[u8]) {
        let mut e = Entropy::new(bytes);
        self.world.restart();
        self.reference = Reference::closed(SEED, PICKUP_MS);
        self.sent.clear();
        self.known.clear();
        self.spec = topology::spec(&mut e);
        if e.one_in(16) {
            let packet = traffic::packet(&self.spec, &self.sent, &mut e);
            self.compare(vec![packet]);
        }
        self.publish();
        for _ in 0..STEPS {
            if e.is_empty() {
                return;
            }
            self.wait(1000);
            match e.below(14) {
                0 => {
                    topology::change(&mut self.spec, &mut e);
                    self.publish();
                    self.recall();
                }
                // Connections and path MTUs are forgotten, or just not yet.
                1 => {
                    self.wait(e.pick(&[20_000, 25_000, 58_000, 115_000, 400_000, 585_000, 601_000]));
                    self.recall();
                }
                // One alone, and again: the second is a known flow.
                2..=8 => {
                    let packet = traffic::packet(&self.spec, &self.sent, &mut e);
                    self.compare(vec![packet.clone()]);
                    self.wait(1000);
                    self.compare(vec![packet.clone()]);
                    self.known.insert(0, packet);
                    self.known.truncate(REMEMBERED);
                }
                // Some moments of a few connections, sometimes several at once.
                9 => {
                    for _ in 0..=e.below(12) {
                        let together = 1 + e.below(3) * e.below(2);
                        let batch = (0..together).map(|_| talk::packet(&self.spec, &mut e)).collect();
                        self.compare(batch);
                        // Slowly enough for the rate limit of errors.
                        self.wait(e.pick(&[300, 400, 1000, 4000]));
                    }
                }
                // A connection from its beginning to its end, more or less, while things change.
                10 => {
                    for packet in talk::exchange(&self.spec, &mut e) {
                        self.compare(vec![packet]);
                        self.wait(e.pick(&[100, 200, 500]));
                        if e.one_in(16) {
                            topology::change(&mut self.spec, &mut e);
                            self.publish();
                        }
                    }
                }
                _ => {
                    // An error changes the path MTU for its whole batch, so it comes alone above.
                    let together = 2 + e.below(TOGETHER - 1);
                    let batch = (0..together).map(|_| traffic::packet(&self.spec, &[], &mut e));
                    let batch = batch.collect();
                    self.compare(batch);
                }
            }
        }
    }

    /// The last packets once more: their connections are known, and nothing of that may be believed for too long.
    fn recall(&mut self) {
        for packet in self.known.clone() {
            self.compare(vec![packet]);
            self.wait(1000);
        }
    }

    /// Lets time pass, and a little more while nobody can say whether a connection is still remembered.
    fn wait(&mut self, ms: u64) {
        self.world.now_ms += ms;
        while self.reference.is_any_expiring(LATE_MS, self.world.now_ms) {
            self.world.now_ms += 500;
        }
        self.world.settle();
    }

    fn publish(&mut self) {
        self.world.update(&self.spec);
        self.reference.update(&self.spec, self.world.now_ms);
        self.world.settle();
        self.coverage.note("publication");
    }

    /// Runs packets as one batch through both sides.
    fn compare(&mut self, packets: Vec<(Ingress, Vec<u8>)>) {
        let now_ms = self.world.now_ms;
        let mut expected: Vec<(Egress, Vec<u8>)> = Vec::new();
        let mut expected_drops = Vec::new();
        let outcomes = self.reference.evaluate(&packets, now_ms);
        let states: BTreeSet<&str> = self.reference.connection_states().collect();
        for state in states {
            self.coverage.note(format!("state {state}"));
        }
        for (outcome, (_, bytes)) in outcomes.into_iter().zip(&packets) {
            self.cover(&outcome, bytes);
            match outcome {
                Outcome::Forward { egress, packets } => {
                    expected.extend(packets.into_iter().map(|packet| (egress, packet)));
                }
                Outcome::Reply { egress, packet } => expected.push((egress, packet)),
                Outcome::Drop(reason) => expected_drops.push(reason),
            }
        }
        let hits = self.world.counters.flow_hits.get();
        let before: Vec<u64> = DropReason::ALL.iter().map(|r| self.world.counters.drops(*r)).collect();
        let sent = self.world.run(packets.iter().map(|(i, bytes)| (*i, Offload::NONE, bytes.clone())));
        let mut drops = Vec::new();
        for (reason, before) in DropReason::ALL.iter().zip(before) {
            drops.extend((before..self.world.counters.drops(*reason)).map(|_| *reason));
        }
        if self.world.counters.flow_hits.get() > hits {
            self.coverage.note("flow hit");
        }
        let mut actual = Vec::new();
        for packet in sent {
            if packet.egress == Egress::Underlay {
                self.sent.insert(0, packet.packet.clone());
                self.sent.truncate(REMEMBERED);
            }
            assert_eq!(packet.offload, Offload::NONE, "a port without offloads was given some");
            let masked = mask(&self.spec, packet.egress, packet.packet);
            actual
                .push((packet.egress, masked.unwrap_or_else(|why| panic!("{why}\n{}", self.tell(&packets)))));
        }
        // Pieces of a packet join the end of their batch, and ports are served one after the other.
        let order = |(egress, packet): &(Egress, Vec<u8>)| (format!("{egress:?}"), packet.clone());
        expected.sort_by_key(order);
        actual.sort_by_key(order);
        expected_drops.sort();
        if expected != actual || expected_drops != drops {
            panic!(
                "the pipeline is not what it should be\nexpected {}\n{expected_drops:?}\nactual {}\n{drops:?}\n{}",
                show(&expected),
                show(&actual),
                self.tell(&packets)
            );
        }
    }

    /// Everything one needs to see why.
    fn tell(&self, packets: &[(Ingress, Vec<u8>)]) -> String {
        let packets: Vec<String> = packets.iter().map(|(i, bytes)| format!("{i:?} {}", hex(bytes))).collect();
        format!("at {} ms\n{}\n{:#?}", self.world.now_ms, packets.join("\n"), self.spec)
    }

    fn cover(&mut self, outcome: &Outcome, bytes: &[u8]) {
        let family = |packet: &[u8]| match packet.get(12..14) {
            Some([0x08, 0x00]) => "v4",
            Some([0x86, 0xdd]) => "v6",
            _ => "ARP",
        };
        let place = |egress: &Egress| match egress {
            Egress::Workload(_) => "workload",
            Egress::Underlay => "underlay",
            Egress::Direct(_) => "direct",
            Egress::Gateway { .. } => "gateway",
            Egress::Host => "host",
        };
        match outcome {
            Outcome::Forward { egress, packets } => {
                self.coverage.note(format!("to {} {}", place(egress), family(&packets[0])));
                if packets.len() > 1 {
                    self.coverage.note("fragmented");
                }
                if *egress == Egress::Underlay {
                    let (outer, inner) = (family(&packets[0]), if packets[0][12] == 8 { 50 } else { 70 });
                    self.coverage.note(format!("tunnel {outer} carries {}", family(&packets[0][inner..])));
                }
            }
            Outcome::Reply { egress, packet } => {
                let inner = match (egress, packet[12]) {
                    (Egress::Underlay, 0x08) => 50,
                    (Egress::Underlay, _) => 70,
                    _ => 0,
                };
                let kind = match (family(&packet[inner..]), packet.get(inner + 34), packet.get(inner + 54)) {
                    ("v4", Some(11), _) | ("v6", _, Some(3)) => "time exceeded",
                    ("v4", ..) | ("v6", _, Some(2)) => "too big",
                    ("v6", ..) => "neighbour",
                    _ => "ARP",
                };
                self.coverage.note(format!("answer {kind} {}", family(&packet[inner..])));
                self.coverage.note(format!("answer to {}", place(egress)));
            }
            Outcome::Drop(reason) => {
                self.coverage.note(format!("drop {}", reason.label()));
                if bytes.len() < 14 {
                    self.coverage.note("shorter than Ethernet");
                }
            }
        }
    }
}

fn show(packets: &[(Egress, Vec<u8>)]) -> String {
    let lines: Vec<String> =
        packets.iter().map(|(egress, packet)| format!("{egress:?} {}", hex(packet))).collect();
    lines.join("\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
