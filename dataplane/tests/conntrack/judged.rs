//! What policy is asked, and what becomes of its answers. The policy here is a function, asked in the place of the policy
//! stages.

use canal_dataplane::counters::Counters;
use canal_dataplane::flow::{FlowTable, Pieces, Quota};
use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::SMALL_FRAME_BUFFER;
use canal_dataplane::net::{Direction, FlowKey};
use canal_dataplane::offload::Offload;
use canal_dataplane::packet::{Asked, Batch, Connection};
use canal_dataplane::policy::Judge;
use canal_dataplane::port::{Ingress, Received};
use canal_dataplane::reply::RateLimit;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::policy::Established;
use canal_dataplane::stage::{Context, classify, conntrack, datagram, decap, route, source};
use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::packets;
use canal_dataplane::testing::world::{self, SEED, from_pod, pod};
use canal_dataplane::verdict::{DropReason, Verdict};

use crate::{ACK, POD1, POD2, RST, SYN, from_own, segment};

/// Does policy let a packet pass that goes this way?
type Policy = fn(&FlowKey, Direction) -> bool;

fn all(_: &FlowKey, _: Direction) -> bool {
    true
}

fn none(_: &FlowKey, _: Direction) -> bool {
    false
}

/// Our pod 1 may open connections to port 80, and nobody any other.
fn out_to_80(key: &FlowKey, direction: Direction) -> bool {
    let (source, destination) = key.ends(direction);
    (source.0 == pod(1, 1, source.0.is_ipv6())) && destination.1 == 80
}

struct Node {
    tables: Tables,
    flows: FlowTable,
    pieces: Pieces,
    judge: Judge,
    counters: Counters,
    pool: FramePool,
    icmp_budget: RateLimit,
    ip_id: u16,
    pickup: bool,
    policy: Policy,
    /// How often policy was asked.
    asked: usize,
}

impl Node {
    fn new(mode: Established) -> Self {
        let mut spec = world::spec(3);
        spec.settings.established = mode;
        Self {
            tables: tables::compile(&spec, None, 1),
            flows: FlowTable::new(64, Quota::of(64), SEED, 0),
            pieces: Pieces::new(),
            judge: Judge::new(SEED, 0),
            counters: Counters::default(),
            pool: FramePool::new(8, SMALL_FRAME_BUFFER),
            icmp_budget: RateLimit::new((9, 9), (9, 9), SEED, 0),
            ip_id: 0,
            pickup: false,
            policy: all,
            asked: 0,
        }
    }

    /// Another generation, of this policy.
    fn publish(&mut self, spec: &NodeSpec, policy: Policy) {
        self.tables = tables::compile(spec, Some(&self.tables), self.tables.generation + 1);
        self.policy = policy;
    }

    fn change(&mut self, mode: Established, policy: Policy) {
        let mut spec = world::spec(3);
        spec.settings.established = mode;
        self.publish(&spec, policy);
    }

    /// One packet through the stages up to `commit`, and how its connection stood.
    fn run(&mut self, (ingress, packet): (Ingress, Vec<u8>)) -> (Verdict, Connection) {
        let mut frame = self.pool.take().expect("a frame");
        assert!(frame.fill(&packet));
        let mut batch = Batch::default();
        batch.admit(&mut vec![Received { frame, offload: Offload::NONE, ingress }], false);
        let mut cx = Context {
            tables: &self.tables,
            flows: &mut self.flows,
            pieces: &mut self.pieces,
            pickup: self.pickup,
            judge: &mut self.judge,
            counters: &self.counters,
            pool: &mut self.pool,
            icmp_budget: &mut self.icmp_budget,
            ip_id: &mut self.ip_id,
            now_ms: 1000,
            worker: 0,
            workers: 1,
        };
        decap::run(&mut batch, &mut cx);
        classify::run(&mut batch, &mut cx);
        source::run(&mut batch, &mut cx);
        datagram::run(&mut batch, &mut cx);
        conntrack::run(&mut batch, &mut cx);
        let packet = &mut batch[0];
        if packet.verdict == Verdict::Pending && packet.connection == Connection::New {
            self.asked += 1;
            for (way, direction) in packet.asked.ways(packet.headers.direction) {
                if !(self.policy)(&packet.headers.key, direction) {
                    packet.asked = packet.asked.without(way);
                }
            }
            if packet.asked.is_empty() {
                // The reason does not matter here.
                packet.verdict = Verdict::Drop(DropReason::NoRoute);
            }
        }
        route::run(&mut batch, &mut cx);
        conntrack::commit(&mut batch, &mut cx);
        let packet = &mut batch[0];
        let result = (packet.verdict, packet.connection);
        let frame = packet.frame.take();
        cx.pool.give(frame);
        result
    }

    fn passes(&mut self, packet: (Ingress, Vec<u8>)) -> bool {
        match self.run(packet).0 {
            Verdict::Forward(_) => true,
            Verdict::Drop(_) => false,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self) {
        for (back, flags) in [(false, SYN), (true, SYN | ACK), (false, ACK)] {
            assert!(self.passes(segment(false, back, flags)));
        }
    }
}

#[test]
fn answers_are_never_asked_about_and_denied_packets_are_remembered_nowhere() {
    let mut node = Node::new(Established::Keep);
    node.policy = out_to_80;
    node.open();
    assert!(node.passes(segment(false, true, ACK)));
    assert_eq!(node.asked, 1, "about the SYN");
    // The other way round it is denied, as often as it is tried.
    let back = packets::udp((pod(2, 7, false), 80), (pod(1, 1, false), 1000), 0);
    for _ in 0..2 {
        assert!(!node.passes(crate::from_remote(&back)));
    }
    assert_eq!((node.asked, node.flows.len()), (3, 1));
}

#[test]
fn an_answered_connection_outlives_a_change_of_policy() {
    for first in [false, true] {
        let mut node = Node::new(Established::Keep);
        node.open();
        node.change(Established::Keep, none);
        for back in [first, !first, first] {
            let (verdict, _) = node.run(segment(false, back, ACK));
            assert!(matches!(verdict, Verdict::Forward(_)));
        }
        assert_eq!(node.asked, 1);
    }
}

#[test]
fn an_unanswered_one_is_judged_again_and_its_answer_is_not() {
    let mut node = Node::new(Established::Keep);
    assert!(node.passes(segment(false, false, SYN)));
    node.change(Established::Keep, none);
    assert!(!node.passes(segment(false, false, SYN)), "the same opening, by the new policy");
    assert_eq!(node.flows.len(), 0);
    assert!(!node.passes(segment(false, true, SYN | ACK)), "and its answer finds nothing");
    let mut node = Node::new(Established::Keep);
    assert!(node.passes(segment(false, false, SYN)));
    node.change(Established::Keep, none);
    assert!(node.passes(segment(false, true, SYN | ACK)), "it was on its way when policy changed");
    assert!(node.passes(segment(false, false, ACK)));
}

#[test]
fn revalidation_ends_what_the_new_policy_denies_whoever_speaks_first() {
    for back in [false, true] {
        let mut node = Node::new(Established::Revalidate);
        node.open();
        node.change(Established::Revalidate, none);
        assert!(!node.passes(segment(false, back, ACK)));
        assert_eq!((node.flows.len(), node.counters.flows_cut.get()), (0, 1));
        assert!(!node.passes(segment(false, !back, ACK)));
    }
}

#[test]
fn revalidation_asks_once_a_generation_and_from_the_openers_point_of_view() {
    for first in [false, true] {
        let mut node = Node::new(Established::Revalidate);
        node.open();
        let before = node.asked;
        // Only the opener's direction is allowed: an answer must be judged as what it answers.
        node.change(Established::Revalidate, out_to_80);
        for back in [first, !first, first, !first] {
            assert!(node.passes(segment(false, back, ACK)), "{back}");
        }
        assert_eq!(node.asked, before + 1);
        let stuck = node.run(segment(false, true, ACK));
        assert!(matches!(stuck.0, Verdict::Forward(_)));
    }
}

#[test]
fn answered_connections_are_looked_up_again_when_a_way_has_changed_and_not_when_policy_has() {
    for (mode, hits) in [(Established::Keep, 2), (Established::Revalidate, 0)] {
        let mut node = Node::new(mode);
        node.open();
        let mut hits_after = |spec: &NodeSpec| {
            let mut spec = spec.clone();
            spec.settings.established = mode;
            node.publish(&spec, all);
            let before = node.counters.flow_hits.get();
            assert!(node.passes(segment(false, false, ACK)) && node.passes(segment(false, true, ACK)));
            node.counters.flow_hits.get() - before
        };
        let mut spec = world::spec(3);
        assert_eq!(hits_after(&spec), hits, "{mode:?}");
        spec.endpoints[1].mtu = 1400;
        assert_eq!(hits_after(&spec), 0, "{mode:?}, a workload's interface");
        spec.vteps[0].mac = world::pod_mac(9);
        assert_eq!(hits_after(&spec), 0, "{mode:?}, another node");
        assert_eq!(hits_after(&spec), hits, "{mode:?}, and nothing more");
    }
}

#[test]
fn an_error_about_a_connection_that_is_to_be_judged_waits_for_the_judgement() {
    let about = packets::tcp((pod(1, 1, false), 1000), (pod(2, 7, false), 80), ACK, 100);
    let message = [&[3u8, 4, 0, 0, 0, 0, 5, 0][..], &about.bytes()].concat();
    let error = packets::Ip::new(pod(2, 0, false), pod(1, 1, false), packets::ICMP, message).finished();
    let error = || crate::from_remote(&error);
    for (mode, passes) in [(Established::Keep, true), (Established::Revalidate, false)] {
        let mut node = Node::new(mode);
        node.open();
        assert_eq!(node.run(error()).1, Connection::Related);
        node.change(mode, none);
        assert_eq!(node.passes(error()), passes, "{mode:?}");
    }
}

#[test]
fn what_is_taken_up_is_allowed_if_either_end_could_have_opened_it() {
    let taken_up = |policy: Policy, back: bool| {
        let mut node = Node::new(Established::Keep);
        (node.pickup, node.policy) = (true, policy);
        let passes = node.passes(segment(false, back, ACK));
        (passes, node)
    };
    for back in [false, true] {
        assert!(!taken_up(none, back).0);
        let (passes, mut node) = taken_up(out_to_80, back);
        assert!(passes);
        // It is known who must have opened it: a SYN of the other side is refused.
        assert_eq!(node.run(segment(false, true, SYN)).0, Verdict::Drop(DropReason::ConntrackInvalid));
        assert!(node.passes(segment(false, false, ACK)) && node.passes(segment(false, true, ACK)));
        assert_eq!(node.asked, 1);
    }
    // Openings and other protocols are asked about as they are.
    let mut node = Node::new(Established::Keep);
    (node.pickup, node.policy) = (true, out_to_80);
    assert!(!node.passes(segment(false, true, SYN)));
    let datagram = packets::udp((pod(2, 7, false), 80), (pod(1, 1, false), 1000), 0);
    assert!(!node.passes(crate::from_remote(&datagram)));
    assert!(!node.passes(segment(false, false, RST)));
}

#[test]
fn a_new_opening_of_an_ended_connection_is_judged() {
    let mut node = Node::new(Established::Keep);
    node.open();
    assert!(node.passes(segment(false, true, RST)));
    node.policy = none;
    assert!(!node.passes(segment(false, false, SYN)));
    assert_eq!(node.flows.len(), 0);
}

#[test]
fn pieces_are_judged_with_the_ports_of_their_first() {
    fn to_53(key: &FlowKey, direction: Direction) -> bool {
        key.ends(direction).1.1 == 53
    }
    for (port, passes) in [(53, true), (54, false)] {
        let mut node = Node::new(Established::Keep);
        node.policy = to_53;
        for fragment in [(true, 0), (true, 11), (false, 22)] {
            let mut packet = packets::udp((pod(1, 1, false), 1000), (pod(2, 7, false), port), 80);
            packet.fragment = fragment;
            assert_eq!(node.passes(from_own(&packet)), passes, "{port} {fragment:?}");
        }
        assert_eq!(node.flows.len(), usize::from(passes));
    }
}

#[test]
fn two_who_ask_each_other_are_judged_each_for_himself() {
    fn pod_1_asks(key: &FlowKey, direction: Direction) -> bool {
        key.ends(direction).0.0 == pod(1, 1, false)
    }
    let mut node = Node::new(Established::Keep);
    node.policy = pod_1_asks;
    let (one, two) = (pod(1, 1, false), pod(1, 2, false));
    assert!(node.passes((POD1, from_pod(1, &packets::ping(one, two, 7)))));
    assert!(!node.passes((POD2, from_pod(2, &packets::ping(two, one, 7)))));
    assert_eq!((node.asked, node.flows.len()), (2, 1));
}

#[test]
fn the_ways_of_a_question() {
    let ways = |asked: Asked| asked.ways(Direction::Forward).collect::<Vec<_>>();
    let (as_is, answer) = ((Asked::AS_IS, Direction::Forward), (Asked::ANSWER, Direction::Reverse));
    assert_eq!(ways(Asked::AS_IS), [as_is]);
    assert_eq!(ways(Asked::ANSWER), [answer]);
    assert_eq!(ways(Asked::EITHER), [as_is, answer]);
    assert_eq!(Asked::EITHER.without(Asked::AS_IS), Asked::ANSWER);
    assert!(Asked::EITHER.without(Asked::AS_IS).without(Asked::ANSWER).is_empty());
}
