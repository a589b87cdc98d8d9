//! What policy costs: the first packet of a connection and those of a known one, under 1 to 10,000 policies, and a change
//! of one thing among 100,000 members and 10,000 policies.
//!
//! Policies are one rule each, a set and every other time a port, over 200 sets; the last policy is the one that allows, as
//! in the peers that this is compared with.

mod rig;

use std::cell::{OnceCell, RefCell};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use canal_dataplane::policy::{Facts, Transport};
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::policy::{
    Action, IpSet, Members, Origin, OriginKind, PolicyDirection, PolicyList, Ports as PortChoice, Rule,
    RuleSet, SetId, Side, Tier, TierEnd,
};
use canal_dataplane::tables::policy::{Memo, Policy};
use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::world;
use canal_dataplane::trace::NoTrace;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnetwork::IpNetwork;
use rig::{ROUND, Rig, Traffic};

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

fn tables(policies: usize) -> Arc<Tables> {
    Arc::new(tables::compile(&spec(policies), None, 1))
}

/// The first packet of a connection; what is remembered of policy is warm. To a pod of another node our pod's egress policy
/// is asked, to another pod of ours its ingress policy as well.
fn first_packet(criterion: &mut Criterion) {
    for (name, traffic) in [("remote", Traffic::encap()), ("local", Traffic::local())] {
        let mut group = criterion.benchmark_group(format!("policy/first/{name}"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for count in COUNTS {
            let rig = OnceCell::new();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let rig = rig.get_or_init(|| RefCell::new(Rig::opening(tables(count), &traffic)));
                bencher.iter_custom(|packets| rig.borrow_mut().open(packets, &mut NoTrace));
            });
            rig.get().inspect(|rig| rig.borrow().report(&format!("policy/first/{name}/{count}")));
        }
        group.finish();
    }
}

/// Connections that are opened while as many expire, of which one core has some 30,000 at a time: all there is to pay for a
/// connection of one packet.
fn turnover(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy/turnover");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for count in COUNTS {
        let rig = OnceCell::new();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let rig = rig.get_or_init(|| {
                let mut rig = Rig::new(tables(count), &Traffic::encap(), 8 * ROUND, 4 * ROUND as usize);
                rig.turn_over(4 * u64::from(ROUND));
                assert!((25_000..35_000).contains(&rig.connections()), "{}", rig.connections());
                RefCell::new(rig)
            });
            bencher.iter_custom(|packets| rig.borrow_mut().turn_over(packets));
        });
    }
    group.finish();
}

/// Packets of known connections.
fn established(criterion: &mut Criterion) {
    for flows in [1_000, 40_000] {
        let mut group = criterion.benchmark_group(format!("policy/established/{flows}"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for count in COUNTS {
            let rig = OnceCell::new();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let rig =
                    rig.get_or_init(|| RefCell::new(Rig::warm(tables(count), &Traffic::encap(), flows)));
                bencher.iter_custom(|packets| rig::time(rig, packets));
            });
            rig.get().inspect(|rig| rig.borrow().report(&format!("policy/established/{flows}/{count}")));
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

criterion_group!(benches, first_packet, turnover, established, decision, compile);
criterion_main!(benches);
