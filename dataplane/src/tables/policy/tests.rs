//! What the property test in `tests/policy.rs` cannot see: that changes are local, memory is bounded and counters go on.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::policy::{self, Transport};
use crate::spec::policy::{
    Action, EndpointPolicy, Members, Origin, OriginKind, PolicyList, Ports, Rule, Side, Tier, TierEnd,
};
use crate::spec::{Endpoint, NodeSpec};

fn ip(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

fn tcp(from: u32, to: u32, port: u16) -> Facts {
    Facts { source: ip(from), destination: ip(to), protocol: 6, transport: Transport::Ports(999, port) }
}

fn policy(name: &str, rules: Vec<Rule>) -> Arc<crate::spec::policy::RuleSet> {
    let origin =
        Origin { kind: OriginKind::NetworkPolicy, name: name.into(), direction: PolicyDirection::Ingress };
    Arc::new(crate::spec::policy::RuleSet { origin, rules })
}

fn list(policies: &[Arc<crate::spec::policy::RuleSet>]) -> Arc<PolicyList> {
    let tier = Tier { name: "default".into(), end: TierEnd::Deny, policies: policies.to_vec() };
    Arc::new(PolicyList { tiers: vec![tier], profiles: Vec::new() })
}

fn set(id: &str, addresses: impl IntoIterator<Item = u32>) -> Arc<IpSet> {
    let nets = addresses.into_iter().map(|number| IpNetwork::from(ip(number))).collect();
    Arc::new(IpSet { id: id.into(), members: Members::Nets(nets) })
}

/// A node whose endpoints have these lists for ingress.
fn spec(lists: &[Arc<PolicyList>], sets: Vec<Arc<IpSet>>) -> NodeSpec {
    let endpoint = |(index, ingress): (usize, &Arc<PolicyList>)| Endpoint {
        name: format!("{index:03}"),
        interface: String::new(),
        ifindex: None,
        mac: None,
        networks: Vec::new(),
        mtu: 1500,
        policy: EndpointPolicy { ingress: Arc::clone(ingress), ..EndpointPolicy::allow_all() },
    };
    let endpoints = lists.iter().enumerate().map(endpoint).collect();
    NodeSpec { endpoints, sets, ..NodeSpec::default() }
}

fn from_set(action: Action, id: &str) -> Rule {
    Rule { source: Side { sets: vec![id.into()], ..Side::default() }, ..Rule::any(action) }
}

fn to_ports(action: Action, ranges: Vec<(u16, u16)>) -> Rule {
    let ports = Some(Ports { ranges, named: Vec::new() });
    Rule { protocol: Some(6), destination: Side { ports, ..Side::default() }, ..Rule::any(action) }
}

fn decision<'a>(tables: &Policy, memo: &'a mut Memo, facts: &Facts) -> &'a Decision {
    let (source, destination) = (tables.class(facts.source), tables.class(facts.destination));
    let program = &tables.endpoint(0).ingress;
    memo.decision(tables, program, source, destination, facts.family(), facts.protocol)
}

/// Asserts that tables and walk agree about packets to many ports; returns how much the decision weighs.
fn weigh(rules: Vec<Rule>) -> usize {
    let list = list(&[policy("p", rules)]);
    let spec = spec(&[Arc::clone(&list)], Vec::new());
    let (tables, mut memo) = (Policy::compile(&spec, None), Memo::default());
    for port in (0..=u16::MAX).step_by(997) {
        let facts = tcp(1, 2, port);
        let judgement = tables.judge(&tables.endpoint(0).ingress, &mut memo, &facts);
        assert_eq!(judgement, policy::judge(&list, &[], &facts), "port {port}");
    }
    assert_eq!(memo.len(), (1, 1));
    decision(&tables, &mut memo, &tcp(1, 2, 0)).weight()
}

#[test]
fn rules_for_single_ports_take_a_line_each() {
    let weight = weigh((0..5000).map(|n| to_ports(Action::Allow, vec![(n * 13, n * 13)])).collect());
    assert!(weight < 5000 * 4, "{weight}");
}

#[test]
fn rules_for_overlapping_ports_take_no_more_memory_than_there_are_rules() {
    // Every interval between two ports has hundreds of lines.
    let log = |n: u16| to_ports(Action::Log, vec![(n * 20, 60_000 - n * 17)]);
    let mut rules: Vec<Rule> = (0..1500).map(log).collect();
    rules.push(to_ports(Action::Allow, vec![(20_000, 40_000)]));
    let weight = weigh(rules);
    assert!(weight < 1502 * 10, "{weight}");
}

#[test]
fn a_change_leaves_the_names_of_everything_else_alone() {
    let policies = ["a", "b", "c"].map(|id| policy(id, vec![from_set(Action::Allow, id)]));
    let lists = [list(&policies[..2]), list(&policies[2..])];
    let sets = vec![set("a", 0..100), set("b", 50..150), set("c", [7])];
    let mut spec = spec(&lists, sets);
    let before = Policy::compile(&spec, None);
    spec.sets[0] = set("a", 0..99);
    spec.endpoints[1].policy.ingress = list(&[policy("c", vec![Rule::any(Action::Deny)])]);
    let after = Policy::compile(&spec, Some(&before));
    let serial = |tables: &Policy, number| {
        let class = tables.class(ip(number));
        (class.host.map(|class| class.serial), class.net.map(|class| class.serial))
    };
    let changed: Vec<u32> = (0..200).filter(|n| serial(&before, *n) != serial(&after, *n)).collect();
    assert_eq!(changed, [99]);
    assert_eq!(before.endpoint(0).ingress.serial, after.endpoint(0).ingress.serial);
    assert_ne!(before.endpoint(1).ingress.serial, after.endpoint(1).ingress.serial);
    assert!(Arc::ptr_eq(&before.endpoint(0).egress, &after.endpoint(0).egress));
}

#[test]
fn a_set_that_went_matches_nothing_and_comes_back_without_a_look_at_its_members() {
    let allow = list(&[policy("p", vec![from_set(Action::Allow, "a")])]);
    let spec = |sets| spec(&[Arc::clone(&allow)], sets);
    let judge = |tables: &Policy, from| {
        let facts = tcp(from, 2, 80);
        tables.judge(&tables.endpoint(0).ingress, &mut Memo::default(), &facts).outcome
    };
    let serial = |tables: &Policy| tables.class(ip(7)).host.map(|class| class.serial);
    let before = Policy::compile(&spec(vec![set("a", 0..100)]), None);
    assert_eq!((judge(&before, 7), judge(&before, 100)), (Outcome::Allowed, Outcome::Denied));
    let without = Policy::compile(&spec(vec![]), Some(&before));
    assert_eq!((judge(&without, 7), serial(&without)), (Outcome::Denied, serial(&before)));
    let back = Policy::compile(&spec(vec![set("a", 1..101)]), Some(&without));
    assert_eq!(serial(&back), serial(&before));
    assert_eq!([0, 7, 100].map(|from| judge(&back, from) == Outcome::Allowed), [false, true, true]);
    // As sets come and go only the largest keep their members.
    let mut tables = Policy::compile(&spec(vec![]), Some(&back));
    for n in 0..20 {
        let id = format!("b{n}");
        tables = Policy::compile(&spec(vec![set(&id, 1000 + n..1002 + n)]), Some(&tables));
    }
    tables = Policy::compile(&spec(vec![]), Some(&tables));
    let classes = (1000..1100).filter(|n| tables.class(ip(*n)).host.is_some()).count();
    assert!(serial(&tables).is_some() && classes < 16, "{classes}");
}

#[test]
fn networks_of_rules_that_are_gone_are_forgotten() {
    let mut tables = Policy::default();
    for n in 0..2000u32 {
        let net = IpNetwork::new(ip(n << 8), 24).unwrap();
        let source = Side { nets: Some(vec![net]), ..Side::default() };
        let rule = Rule { source, ..Rule::any(Action::Allow) };
        tables = Policy::compile(&spec(&[list(&[policy("p", vec![rule])])], Vec::new()), Some(&tables));
        assert!(tables.class(ip((n << 8) + 1)).net.is_some());
    }
    assert!(tables.unnamed.len() <= 128, "{}", tables.unnamed.len());
    let left = (0..2000).filter(|n| tables.class(ip(n << 8)).net.is_some()).count();
    assert_eq!(left, tables.unnamed.len());
}

#[test]
fn a_memo_is_bounded_whatever_classes_there_are() {
    let sets: Vec<_> = (0..300).map(|n| set(&format!("s{n:03}"), [n])).collect();
    let rules = sets.iter().map(|set| from_set(Action::Allow, &set.id)).collect();
    let tables = Policy::compile(&spec(&[list(&[policy("p", rules)])], sets), None);
    let mut memo = Memo::default();
    for (from, to) in (0..300).flat_map(|from| (0..300).map(move |to| (from, to))) {
        decision(&tables, &mut memo, &tcp(from, to, 80));
        assert!(memo.len().0 <= 1 << 16);
    }
    assert_eq!(memo.misses, 300 * 300);
    let addresses = memo.len();
    // Ports, addresses in no set and protocols that no rule mentions add one key at most.
    for n in 0..10_000 {
        let facts = Facts { protocol: (n % 256) as u8, transport: Transport::Other, ..tcp(1000 + n, 5, 0) };
        decision(&tables, &mut memo, &facts);
    }
    assert_eq!(memo.len().0, addresses.0 + 1);
}

#[test]
fn another_registry_empties_the_memo() {
    // Both name the same things by the same numbers.
    let tables =
        |action| Policy::compile(&spec(&[list(&[policy("p", vec![Rule::any(action)])])], vec![]), None);
    let (allow, deny, mut memo) = (tables(Action::Allow), tables(Action::Deny), Memo::default());
    assert_eq!(allow.endpoint(0).ingress.serial, deny.endpoint(0).ingress.serial);
    for _ in 0..3 {
        for (tables, outcome) in [(&allow, Outcome::Allowed), (&deny, Outcome::Denied)] {
            let judgement = tables.judge(&tables.endpoint(0).ingress, &mut memo, &tcp(1, 2, 80));
            assert_eq!(judgement.outcome, outcome);
        }
    }
}

#[test]
fn counters_go_on_where_a_rule_stayed_as_it_was() {
    let rules = [to_ports(Action::Allow, vec![(80, 80)]), to_ports(Action::Allow, vec![(443, 443)])];
    let compiled = |policies: &[Arc<crate::spec::policy::RuleSet>], before: Option<&Policy>| {
        Policy::compile(&spec(&[list(policies)], Vec::new()), before)
    };
    let counts = |tables: &Policy| {
        let rules = &tables.endpoint(0).ingress.rule_sets()[0];
        rules.counters.iter().map(|counter| counter.get().0).collect::<Vec<_>>()
    };
    let first = compiled(&[policy("p", rules.to_vec())], None);
    let met = |rule| first.endpoint(0).ingress.count(What::Allow(Position { rule_set: 0, rule }), 100);
    met(0);
    (0..2).for_each(|_| met(1));
    // Another policy in front of it, the same rules in another place of memory, another rule between them.
    let other = policy("a", Vec::new());
    let moved = compiled(&[policy("p", rules.to_vec()), Arc::clone(&other)], Some(&first));
    assert_eq!(counts(&moved), [1, 2]);
    let [http, https] = rules;
    let changed = policy("p", vec![http.clone(), Rule::any(Action::Log), https.clone()]);
    let more = compiled(&[changed], Some(&moved));
    assert_eq!(counts(&more), [1, 0, 2]);
    let less = compiled(&[policy("p", vec![https, Rule::any(Action::Log)])], Some(&more));
    assert_eq!(counts(&less), [2, 0]);
}
