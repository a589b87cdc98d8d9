//! What policy costs: the first packet of a connection and those of a known one, under 1 to 10,000 policies, and a change
//! of one thing among 100,000 members and 10,000 policies.
//!
//! Policies are one rule each, a set and every other time a port, over 200 sets; the last policy is the one that allows, as
//! in the peers that this is compared with.

use std::cell::{OnceCell, RefCell};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use canal_dataplane::counters::Counters;
use canal_dataplane::flow::Quota;
use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::{BATCH, SMALL_FRAME_BUFFER};
use canal_dataplane::offload::{Caps, Offload};
use canal_dataplane::policy::{Facts, Transport};
use canal_dataplane::port::mem::MemPort;
use canal_dataplane::port::{Ingress, Received};
use canal_dataplane::reply::GATEWAY_MAC;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::policy::{
    Action, IpSet, Members, Origin, OriginKind, PolicyDirection, PolicyList, Ports as PortChoice, Rule,
    RuleSet, SetId, Side, Tier, TierEnd,
};
use canal_dataplane::stage::output::OutputCaps;
use canal_dataplane::tables::policy::{Memo, Policy};
use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::{packets, world};
use canal_dataplane::trace::NoTrace;
use canal_dataplane::worker::{Ports, Worker, WorkerConfig};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnetwork::IpNetwork;

const CAPS: OutputCaps = OutputCaps { access: Caps::ALL, underlay: Caps::ALL };
const COUNTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// Sets that the policies share.
const SETS: usize = 200;

fn set(id: impl Into<SetId>, mut addresses: Vec<IpAddr>) -> Arc<IpSet> {
    addresses.sort_unstable();
    let nets = addresses.into_iter().map(IpNetwork::from).collect();
    Arc::new(IpSet { id: id.into(), members: Members::Nets(nets) })
}

fn policy(number: usize, direction: PolicyDirection, rule: Rule) -> Arc<RuleSet> {
    let name = format!("team/policy-{number:05}").into();
    let origin = Origin { kind: OriginKind::NetworkPolicy, name, direction };
    Arc::new(RuleSet { origin, rules: vec![rule] })
}

/// Allows a set at the other end, and nothing but a TCP port if there is one.
fn rule(direction: PolicyDirection, id: SetId, port: Option<u16>) -> Rule {
    let mut rule = Rule { protocol: port.map(|_| 6), ..Rule::any(Action::Allow) };
    let ports = port.map(|port| PortChoice { ranges: vec![(port, port)], named: Vec::new() });
    match direction {
        PolicyDirection::Ingress => rule.source.sets = vec![id],
        PolicyDirection::Egress => rule.destination.sets = vec![id],
    }
    rule.destination.ports = ports;
    rule
}

fn list(policies: Vec<Arc<RuleSet>>) -> Arc<PolicyList> {
    let tier = Tier { name: "default".into(), end: TierEnd::Deny, policies };
    Arc::new(PolicyList { tiers: vec![tier], profiles: Vec::new() })
}

/// A small network whose pods have `count` policies in each direction.
fn spec(count: usize) -> NodeSpec {
    let mut spec = world::spec(8);
    let sets = count.min(SETS);
    let everybody = (1..=8).flat_map(|node| (1..=64).map(move |i| world::pod(node, i, false)));
    for number in 0..sets - 1 {
        let others = (0..8).map(|i| Ipv4Addr::from(0x0b00_0000 | (number as u32) << 12 | i).into());
        spec.sets.push(set(format!("s:{number:03}"), others.collect()));
    }
    spec.sets.push(set("s:all", everybody.collect()));
    spec.sets.sort_by(|a, b| a.id.cmp(&b.id));
    let policies = |direction| {
        let numbers = 0..count - 1;
        let mut policies: Vec<_> = numbers
            .map(|number| {
                let port = (number % 2 == 1).then(|| 1 + (number % 60_000) as u16);
                let id = format!("s:{:03}", number % (sets - 1).max(1)).into();
                policy(number, direction, rule(direction, id, port))
            })
            .collect();
        policies.push(policy(count - 1, direction, rule(direction, "s:all".into(), None)));
        list(policies)
    };
    let (ingress, egress) = (policies(PolicyDirection::Ingress), policies(PolicyDirection::Egress));
    for endpoint in &mut spec.endpoints {
        endpoint.policy.ingress = Arc::clone(&ingress);
        endpoint.policy.egress = Arc::clone(&egress);
    }
    spec
}

/// From our pod 1: to a pod of another node (its egress policy), or to our pod 2 (ingress policy as well).
#[derive(Clone, Copy)]
enum To {
    Remote,
    Local,
}

struct Rig {
    worker: Worker,
    tables: Tables,
    pool: FramePool,
    received: Vec<Received>,
    template: Vec<u8>,
    now_ms: u64,
    next: u32,
}

/// Connections that are opened before all of them are forgotten.
const ROUND: u32 = 32_768;

impl Rig {
    fn new(policies: usize, to: To, flows: u32) -> Self {
        let capacity = (8 * flows as usize).max(4096);
        let flow_quota = Quota { workload: capacity, node: capacity };
        let config =
            WorkerConfig { flow_capacity: capacity, flow_quota, frames: BATCH, ..world::config(1000) };
        let to = match to {
            To::Remote => world::pod(7, 9, false),
            To::Local => world::pod(1, 2, false),
        };
        let packet = packets::udp((world::pod(1, 1, false), 0), (to, 0), 18);
        Self {
            worker: Worker::new(config, Arc::new(Counters::default())),
            tables: tables::compile(&spec(policies), None, 1),
            pool: FramePool::new(BATCH, SMALL_FRAME_BUFFER),
            received: Vec::with_capacity(BATCH),
            template: packet.frame(GATEWAY_MAC, world::pod_mac(1)),
            now_ms: 1000,
            next: 0,
        }
    }

    /// One batch of the next flows out of `flows`; returns the time that the stages took.
    fn batch(&mut self, flows: u32) -> Duration {
        for _ in 0..BATCH {
            let mut frame = self.pool.take().expect("every frame came back");
            self.next = (self.next + 7919) % flows;
            assert!(frame.fill(&self.template));
            let ports = (0x0400 + (self.next >> 14)) << 16 | 0x8000 | self.next & 0x3fff;
            frame.data_mut()[34..38].copy_from_slice(&ports.to_be_bytes());
            self.received.push(Received { frame, offload: Offload::NONE, ingress: Ingress::Workload(101) });
        }
        fence(Ordering::SeqCst);
        let start = Instant::now();
        self.worker.process(&mut self.received, false, &self.tables, self.now_ms, CAPS, &mut NoTrace);
        fence(Ordering::SeqCst);
        let taken = start.elapsed();
        let outputs = self.worker.outputs();
        let sent = outputs.access.len() + outputs.underlay.len();
        assert_eq!(sent, BATCH, "policy lets everything pass here");
        for sent in outputs.access.drain(..).chain(outputs.underlay.drain(..)) {
            self.pool.give(black_box(sent).frame);
        }
        taken
    }

    /// Forgets every connection.
    fn forget(&mut self) {
        self.now_ms += 100_000;
        let mut port = MemPort::new(Caps::ALL);
        while !self.worker.flows(1, &self.tables, self.now_ms).is_empty() {
            let mut ports = Ports { access: &mut port, underlay: None };
            self.worker.poll(&self.tables, self.now_ms, &mut ports, &mut Vec::new());
        }
    }

    /// Time of opening `packets` connections.
    fn open(&mut self, packets: u64) -> Duration {
        let mut taken = Duration::ZERO;
        for batch in 0..packets.div_ceil(BATCH as u64) {
            if batch % u64::from(ROUND / BATCH as u32) == 0 {
                self.forget();
            }
            taken += self.batch(ROUND);
        }
        scaled(taken, packets)
    }
}

/// Of whole batches, the part that `packets` packets took.
fn scaled(taken: Duration, packets: u64) -> Duration {
    taken.mul_f64(packets as f64 / (packets.div_ceil(BATCH as u64) * BATCH as u64) as f64)
}

/// The first packet of a connection; what is remembered of policy is warm.
fn first_packet(criterion: &mut Criterion) {
    for (name, to) in [("remote", To::Remote), ("local", To::Local)] {
        let mut group = criterion.benchmark_group(format!("policy/first/{name}"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for count in COUNTS {
            let rig = OnceCell::new();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let rig = rig.get_or_init(|| {
                    let mut rig = Rig::new(count, to, ROUND);
                    rig.open(2 * u64::from(ROUND));
                    RefCell::new(rig)
                });
                bencher.iter_custom(|packets| rig.borrow_mut().open(packets));
            });
        }
        group.finish();
    }
}

/// Packets of known connections.
fn established(criterion: &mut Criterion) {
    for flows in [1_000, 40_000] {
        let mut group = criterion.benchmark_group(format!("policy/established/{flows}"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for count in COUNTS {
            let rig = OnceCell::new();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let rig = rig.get_or_init(|| {
                    let mut rig = Rig::new(count, To::Remote, flows);
                    (0..2 * flows as usize / BATCH + 2).for_each(|_| {
                        rig.batch(flows);
                    });
                    RefCell::new(rig)
                });
                bencher.iter_custom(|packets| {
                    let batches = 0..packets.div_ceil(BATCH as u64);
                    scaled(batches.map(|_| rig.borrow_mut().batch(flows)).sum(), packets)
                });
            });
        }
        group.finish();
    }
}

/// Working a decision out, for two classes that have not met before; and finding it again.
fn decision(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy/decision");
    for count in COUNTS {
        let tables = Policy::compile(&spec(count), None);
        let (source, destination) = (world::pod(1, 1, false), world::pod(7, 9, false));
        let transport = Transport::Ports(1000, 80);
        let facts = Facts { source, destination, protocol: 17, transport };
        let mut memo = Memo::default();
        let ask = |memo: &mut Memo| {
            let (source, destination) = (tables.class(facts.source), tables.class(facts.destination));
            let program = &tables.endpoint(0).egress;
            let decision =
                memo.decision(&tables, program, source, destination, facts.family(), facts.protocol);
            decision.steps(facts.transport).last()
        };
        group.bench_function(BenchmarkId::new("cold", count), |bencher| {
            bencher.iter(|| {
                memo.forget();
                black_box(ask(&mut memo))
            });
        });
        group.bench_function(BenchmarkId::new("warm", count), |bencher| {
            bencher.iter(|| black_box(ask(&mut memo)));
        });
    }
    group.finish();
}

/// 10,000 policies over 10,000 sets of 10 addresses each, and one set of all 100,000 addresses.
fn large() -> NodeSpec {
    const POLICIES: usize = 10_000;
    let mut spec = spec(1);
    let address = |n: usize| IpAddr::from(Ipv4Addr::from(0x0c00_0000 + n as u32));
    let all = || (0..10 * POLICIES).map(address);
    spec.sets = vec![set("s:all", all().collect())];
    for number in 0..POLICIES {
        let members = (0..10).map(|i| address((number * 10 + i * 7919) % (10 * POLICIES)));
        spec.sets.push(set(format!("s:{number:05}"), members.collect()));
    }
    spec.sets.sort_by(|a, b| a.id.cmp(&b.id));
    for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
        let policies = (0..POLICIES)
            .map(|number| {
                let id = if number == 0 { "s:all".into() } else { format!("s:{number:05}").into() };
                policy(number, direction, rule(direction, id, Some(80)))
            })
            .collect();
        let policies = list(policies);
        for endpoint in &mut spec.endpoints {
            match direction {
                PolicyDirection::Ingress => endpoint.policy.ingress = Arc::clone(&policies),
                PolicyDirection::Egress => endpoint.policy.egress = Arc::clone(&policies),
            }
        }
    }
    spec
}

/// The same spec with one more member in a set.
fn joined(spec: &NodeSpec, id: &str) -> NodeSpec {
    let mut spec = spec.clone();
    let at = spec.sets.iter().position(|set| &*set.id == id).expect("the set");
    let mut set = IpSet::clone(&spec.sets[at]);
    let Members::Nets(nets) = &mut set.members else { unreachable!("a set of addresses") };
    let newcomer = IpNetwork::from(IpAddr::from(Ipv4Addr::new(12, 0, 200, 1)));
    match nets.binary_search(&newcomer) {
        Ok(place) => drop(nets.remove(place)),
        Err(place) => nets.insert(place, newcomer),
    }
    spec.sets[at] = Arc::new(set);
    spec
}

/// The same spec with another list of ingress policies.
fn edited(spec: &NodeSpec, edit: impl Fn(&mut Vec<Arc<RuleSet>>)) -> NodeSpec {
    let mut spec = spec.clone();
    let mut list = PolicyList::clone(&spec.endpoints[0].policy.ingress);
    edit(&mut list.tiers[0].policies);
    let list = Arc::new(list);
    spec.endpoints.iter_mut().for_each(|endpoint| endpoint.policy.ingress = Arc::clone(&list));
    spec
}

/// From one spec to the other and back, the older tables freed.
fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy/compile");
    group.sample_size(20);
    let spec = large();
    let port = |port| rule(PolicyDirection::Ingress, "s:05000".into(), Some(port));
    let other = policy(5_000, PolicyDirection::Ingress, port(81));
    let new = policy(20_000, PolicyDirection::Ingress, port(82));
    let net = |mut rule: Rule| {
        rule.source = Side { nets: Some(vec!["12.0.0.0/9".parse().expect("a network")]), ..Side::default() };
        rule
    };
    let by_net = policy(20_001, PolicyDirection::Ingress, net(port(83)));
    let changes = [
        ("nothing", spec.clone()),
        ("member-of-100000", joined(&spec, "s:all")),
        ("member-of-10", joined(&spec, "s:05000")),
        ("policy-edited", edited(&spec, |policies| policies[5_000] = Arc::clone(&other))),
        ("policy-added", edited(&spec, |policies| policies.insert(5_000, Arc::clone(&new)))),
        ("policy-with-network-added", edited(&spec, |policies| policies.insert(5_000, Arc::clone(&by_net)))),
    ];
    let base = OnceCell::new();
    for (name, changed) in changes {
        group.bench_function(name, |bencher| {
            let mut tables = base.get_or_init(|| Policy::compile(&spec, None)).clone();
            let mut turn = 0;
            bencher.iter(|| {
                turn += 1;
                tables = Policy::compile(if turn % 2 == 1 { &changed } else { &spec }, Some(&tables));
            });
        });
    }
    group.sample_size(10);
    group.bench_function("everything", |bencher| bencher.iter(|| Policy::compile(&spec, None)));
    group.finish();
}

criterion_group!(benches, first_packet, established, decision, compile);
criterion_main!(benches);
