//! What the conformance cases leave open: fragments, families, missing sets, ends.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::spec::policy::{
    Failsafe, Failsafes, HostPolicy, Icmp, IpSet, Members, PolicyList, Ports, Rule, RuleSet, Side, Tier,
    TierEnd,
};

const TCP: u8 = 6;

fn facts(source: &str, destination: &str, protocol: u8, transport: Transport) -> Facts {
    Facts { source: source.parse().unwrap(), destination: destination.parse().unwrap(), protocol, transport }
}

fn web() -> Facts {
    facts("10.0.0.1", "10.0.0.2", TCP, Transport::Ports(1000, 80))
}

fn rules(kind: OriginKind, name: &str, rules: Vec<Rule>) -> Arc<RuleSet> {
    let origin = Origin { kind, name: name.into(), direction: PolicyDirection::Ingress };
    Arc::new(RuleSet { origin, rules })
}

fn tier(name: &str, end: TierEnd, policy: Vec<Rule>) -> Tier {
    Tier { name: name.into(), end, policies: vec![rules(OriginKind::GlobalNetworkPolicy, "p", policy)] }
}

fn profile(policy: Vec<Rule>) -> Vec<Arc<RuleSet>> {
    vec![rules(OriginKind::Profile, "prof", policy)]
}

fn any(action: Action) -> Rule {
    Rule::any(action)
}

fn to(destination: Side) -> Rule {
    Rule { destination, ..any(Action::Allow) }
}

fn ports(ranges: &[(u16, u16)], named: &[&str]) -> Ports {
    Ports { ranges: ranges.to_vec(), named: named.iter().map(|id| (*id).into()).collect() }
}

fn set(id: &str, members: Members) -> Arc<IpSet> {
    Arc::new(IpSet { id: id.into(), members })
}

fn matches(rule: &Rule, sets: &[Arc<IpSet>], facts: Facts) -> bool {
    check(rule, sets, &facts).is_ok()
}

#[test]
fn a_fragment_without_its_header_matches_no_rule_that_asks_for_ports_or_icmp_types() {
    let later = Facts { transport: Transport::Unseen, ..web() };
    let wanted = to(Side { ports: Some(ports(&[(0, 65535)], &[])), ..Side::default() });
    let excluded = to(Side { not_ports: ports(&[(22, 22)], &[]), ..Side::default() });
    for rule in [wanted, excluded] {
        assert!(matches(&rule, &[], web()));
        assert!(!matches(&rule, &[], later));
    }
    assert!(matches(&any(Action::Allow), &[], later));
    let piece_of_ping = Facts { protocol: 1, ..later };
    let echo = Icmp { kind: 8, code: None };
    let wanted = Rule { icmp: Some(echo), ..any(Action::Allow) };
    let excluded = Rule { not_icmp: Some(echo), ..any(Action::Allow) };
    assert!(!matches(&wanted, &[], piece_of_ping));
    assert!(!matches(&excluded, &[], piece_of_ping));
    // A piece of TCP is no ICMP message, whatever it holds.
    assert!(matches(&excluded, &[], later));
}

#[test]
fn what_has_no_ports_has_none_of_the_excluded_ones() {
    let gre = facts("10.0.0.1", "10.0.0.2", 47, Transport::Other);
    let excluded = to(Side { not_ports: ports(&[(22, 22)], &[]), ..Side::default() });
    assert!(matches(&excluded, &[], gre));
    let wanted = to(Side { ports: Some(ports(&[(0, 65535)], &[])), ..Side::default() });
    assert!(!matches(&wanted, &[], gre));
}

#[test]
fn icmp_types_are_of_the_familys_own_icmp() {
    let echo = Rule { icmp: Some(Icmp { kind: 8, code: Some(0) }), ..any(Action::Allow) };
    let v4 = facts("10.0.0.1", "10.0.0.2", 1, Transport::Icmp(8, 0));
    assert!(matches(&echo, &[], v4));
    assert!(!matches(&echo, &[], Facts { transport: Transport::Icmp(8, 1), ..v4 }));
    assert!(!matches(&echo, &[], facts("fd00::1", "fd00::2", 1, Transport::Other)));
    let not_echo = Rule { icmp: None, not_icmp: echo.icmp, ..echo };
    assert!(!matches(&not_echo, &[], v4));
    assert!(matches(&not_echo, &[], Facts { transport: Transport::Icmp(8, 1), ..v4 }));
    assert!(matches(&not_echo, &[], web()));
}

#[test]
fn a_list_of_networks_that_the_family_empties_keeps_the_rule_from_matching() {
    let v6 = facts("fd00::1", "fd00::2", TCP, Transport::Ports(1, 2));
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let wanted = to(Side { nets: Some(nets(&["10.0.0.0/8"])), ..Side::default() });
    let excluded = to(Side { not_nets: nets(&["11.0.0.0/8"]), ..Side::default() });
    for rule in [&wanted, &excluded] {
        assert!(matches(rule, &[], web()));
        assert!(!matches(rule, &[], v6));
    }
    let both = to(Side { not_nets: nets(&["11.0.0.0/8", "fd01::/16"]), ..Side::default() });
    assert!(matches(&both, &[], web()) && matches(&both, &[], v6));
}

#[test]
fn empty_is_never_absent() {
    let nothing = [
        Side { nets: Some(Vec::new()), ..Side::default() },
        Side { ports: Some(Ports::default()), ..Side::default() },
        Side { sets: vec!["empty".into()], ..Side::default() },
        Side { ports: Some(ports(&[], &["none"])), ..Side::default() },
        Side { endpoint_sets: vec!["none".into()], ..Side::default() },
    ];
    let sets = [set("empty", Members::Nets(Vec::new())), set("none", Members::Ports(Vec::new()))];
    for side in nothing {
        assert!(!matches(&to(side.clone()), &sets, web()), "{side:?}");
        assert!(!matches(&Rule { source: side.clone(), ..any(Action::Allow) }, &sets, web()), "{side:?}");
    }
}

#[test]
fn a_rule_that_names_a_missing_set_never_matches() {
    let there = [set("other", Members::Nets(vec!["10.0.0.0/8".parse().unwrap()]))];
    let wrong_kind = [set("s", Members::Ports(Vec::new()))];
    let sides = [
        Side { sets: vec!["s".into()], ..Side::default() },
        Side { not_sets: vec!["s".into()], ..Side::default() },
        Side { ports: Some(ports(&[(0, 65535)], &["t"])), ..Side::default() },
        Side { not_ports: ports(&[], &["t"]), ..Side::default() },
        Side { endpoint_sets: vec!["t".into()], ..Side::default() },
    ];
    for side in sides {
        for sets in [&there[..], &wrong_kind, &[]] {
            let mismatch = check(&to(side.clone()), sets, &web()).unwrap_err();
            assert!(matches!(mismatch.criterion, Criterion::MissingSet(_)), "{side:?} {mismatch:?}");
        }
    }
}

#[test]
fn named_ports_belong_to_an_address_and_a_protocol() {
    let there: IpAddr = "10.0.0.2".parse().unwrap();
    let sets = [set("http", Members::Ports(vec![(there, TCP, 80), (there, TCP, 8080)]))];
    let wanted = to(Side { ports: Some(ports(&[(443, 443)], &["http"])), ..Side::default() });
    let port = |port| Facts { transport: Transport::Ports(1, port), ..web() };
    assert!(matches(&wanted, &sets, port(80)) && matches(&wanted, &sets, port(443)));
    assert!(!matches(&wanted, &sets, port(81)));
    assert!(!matches(&wanted, &sets, Facts { protocol: 17, ..port(80) }));
    assert!(!matches(&wanted, &sets, Facts { destination: "10.0.0.3".parse().unwrap(), ..port(80) }));
    let excluded = to(Side { not_ports: ports(&[], &["http"]), ..Side::default() });
    assert!(!matches(&excluded, &sets, port(8080)) && matches(&excluded, &sets, port(443)));
}

#[test]
fn the_ends_of_tiers_and_profiles_decide_when_no_rule_has() {
    let judge = |tiers: Vec<Tier>, profiles| {
        let judgement = judge(&PolicyList { tiers, profiles }, &[], &web());
        (judgement.outcome, judgement.decider.to_string(), judgement.passed.len())
    };
    let denied = |by: &str| (Outcome::Denied, by.to_owned(), 0);
    let allow_all = || profile(vec![any(Action::Allow)]);
    assert_eq!(judge(vec![], vec![]), denied("end of the profiles"));
    assert_eq!(judge(vec![tier("t", TierEnd::Deny, vec![])], allow_all()), denied("end of tier t"));
    let by_profile = "Profile prof, ingress rule 0";
    let passed = |count| (Outcome::Allowed, format!("{by_profile} (Allow)"), count);
    assert_eq!(judge(vec![tier("t", TierEnd::Pass, vec![])], allow_all()), passed(0));
    let pass = || tier("t", TierEnd::Deny, vec![any(Action::Log), any(Action::Pass), any(Action::Deny)]);
    assert_eq!(judge(vec![pass()], allow_all()), passed(2));
    assert_eq!(judge(vec![], profile(vec![any(Action::Pass)])), denied(&format!("{by_profile} (Pass)")));
    let allowed_by_tier = judge(vec![pass(), tier("u", TierEnd::Deny, vec![any(Action::Allow)])], vec![]);
    let by = "tier u, GlobalNetworkPolicy p, ingress rule 0 (Allow)".to_owned();
    assert_eq!(allowed_by_tier, (Outcome::Allowed, by, 2));
}

#[test]
fn only_the_normal_list_of_a_host_endpoint_denies_at_its_end() {
    let list =
        |rules| Arc::new(PolicyList { tiers: vec![tier("t", TierEnd::Deny, rules)], profiles: vec![] });
    let deny = Rule { protocol: Some(17), ..any(Action::Deny) };
    let empty = HostPolicy::default();
    let some = HostPolicy {
        untracked: list(vec![deny.clone()]),
        pre_dnat: list(vec![deny.clone()]),
        forward: Arc::default(),
        normal: Arc::default(),
    };
    let passage = |forwarded| Passage { original: None, forwarded, workload_interface: false };
    let none = Failsafes::default();
    let side = |policy| HostSide { policy, direction: PolicyDirection::Ingress, failsafes: &none };
    for policy in [&empty, &some] {
        assert_eq!(judge_untracked(side(policy), &[], &web()).outcome, Outcome::Undecided);
        assert_eq!(judge_host(side(policy), &[], &web(), passage(true)).outcome, Outcome::Allowed);
        assert_eq!(judge_host(side(policy), &[], &web(), passage(false)).outcome, Outcome::Denied);
    }
    let udp = Facts { protocol: 17, ..web() };
    assert_eq!(judge_untracked(side(&some), &[], &udp).outcome, Outcome::Denied);
    assert_eq!(judge_host(side(&some), &[], &udp, passage(true)).outcome, Outcome::Denied);
    let forward = HostPolicy { forward: list(vec![]), ..HostPolicy::default() };
    assert_eq!(judge_host(side(&forward), &[], &web(), passage(true)).outcome, Outcome::Denied);
}

#[test]
fn failsafe_ports_go_before_every_list_of_a_host_endpoint_but_the_forward_one() {
    let deny = Arc::new(PolicyList {
        tiers: vec![tier("t", TierEnd::Deny, vec![any(Action::Deny)])],
        profiles: vec![],
    });
    let [untracked, pre_dnat, forward, normal] = std::array::from_fn(|_| Arc::clone(&deny));
    let policy = HostPolicy { untracked, pre_dnat, forward, normal };
    let port = |port| Failsafe { protocol: TCP, port, net: None };
    let failsafes = Failsafes { inbound: vec![port(80)], outbound: vec![port(1000)] };
    let side = HostSide { policy: &policy, direction: PolicyDirection::Ingress, failsafes: &failsafes };
    let passage = |original, forwarded| Passage { original, forwarded, workload_interface: false };
    let said = |judgement: Judgement| (judgement.outcome, judgement.decider);
    let spared = |outcome| (outcome, Decider::Failsafe);
    assert_eq!(said(judge_untracked(side, &[], &web())), spared(Outcome::Undecided), "tracked all the same");
    assert_eq!(said(judge_host(side, &[], &web(), passage(None, false))), spared(Outcome::Allowed));
    assert_eq!(
        judge_host(side, &[], &web(), passage(None, true)).outcome,
        Outcome::Denied,
        "not for the host"
    );
    // Before translation it was for another port, which nothing keeps open.
    let original = Some((web().destination, 81));
    assert_eq!(judge_host(side, &[], &web(), passage(original, false)).outcome, Outcome::Denied);
    // The answer to something the host sent: connections are known from the second list on.
    let answer = Facts { transport: Transport::Ports(1000, 5000), ..web() };
    assert_eq!(said(judge_untracked(side, &[], &answer)), spared(Outcome::Undecided));
    assert_eq!(judge_host(side, &[], &answer, passage(None, false)).outcome, Outcome::Denied);
}

#[test]
fn an_explanation_names_every_rule_asked_and_why_it_did_not_match() {
    let rules = vec![
        Rule { protocol: Some(17), ..any(Action::Deny) },
        to(Side { ports: Some(ports(&[(443, 443)], &[])), ..Side::default() }),
        any(Action::Log),
    ];
    let list = PolicyList {
        tiers: vec![tier("t", TierEnd::Pass, rules)],
        profiles: profile(vec![any(Action::Allow)]),
    };
    let explanation = explain(&list, &[], &web());
    let told: Vec<String> = explanation
        .steps
        .iter()
        .map(|step| match step {
            Step::Rule { rule, mismatch: None } => format!("{rule}: matched"),
            Step::Rule { rule, mismatch: Some(why) } => format!("{rule}: {why}"),
            Step::TierEnd { tier, end } => format!("end of {tier}: {end:?}"),
        })
        .collect();
    let policy = "tier t, GlobalNetworkPolicy p, ingress rule";
    assert_eq!(
        told,
        [
            format!("{policy} 0 (Deny): protocol is another one"),
            format!("{policy} 1 (Allow): destination port is not among those asked for"),
            format!("{policy} 2 (Log): matched"),
            "end of t: Pass".to_owned(),
            "Profile prof, ingress rule 0 (Allow): matched".to_owned(),
        ]
    );
    assert_eq!(explanation.judgement, judge(&list, &[], &web()));
}
