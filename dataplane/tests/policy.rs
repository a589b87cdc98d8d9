//! The compiled tables say what the slow walk says, of any packet under any policy, and for the same reason: the same rule,
//! or the same end; and they do so after any sequence of changes, however little of it they look at.

use std::cell::RefCell;
use std::collections::BTreeMap;

use canal_dataplane::policy::{
    self, Decider, Facts, HostSide, Judgement, Outcome, Passage, RuleId, Transport,
};
use canal_dataplane::spec::policy::{
    Action, EndpointPolicy, OriginKind, PolicyDirection, PolicyList, Rule, Side,
};
use canal_dataplane::spec::{Endpoint, NodeSpec};
use canal_dataplane::tables::policy::{HostPrograms, Memo, Policy, Program};
use canal_dataplane::testing::entropy::{Entropy, noise};
use canal_dataplane::testing::policies;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How often each thing was seen.
#[derive(Default)]
struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    fn note(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn judgement(&mut self, list: &PolicyList, facts: &Facts, judgement: &Judgement) {
        let family = if facts.source.is_ipv6() { "v6" } else { "v4" };
        let by = match &judgement.decider {
            Decider::Rule(rule) if rule.origin.kind == OriginKind::Profile => {
                format!("profile {}", rule.action)
            }
            Decider::Rule(rule) => format!("policy {}", rule.action),
            Decider::TierEnd(_) => "end of tier".into(),
            Decider::End if list.profiles.is_empty() => "end without profiles".into(),
            Decider::End => "end of profiles".into(),
            Decider::Failsafe => "failsafe".into(),
        };
        self.note(format!("{} by {by} {family}", judgement.outcome));
        let transport = match facts.transport {
            Transport::Ports(..) => "ports",
            Transport::Icmp(..) => "ICMP",
            Transport::Other => "other",
            Transport::Unseen => "unseen",
        };
        self.note(format!("{} with {transport}", judgement.outcome));
        let decider = match &judgement.decider {
            Decider::Rule(rule) => Some(rule),
            _ => None,
        };
        for rule in judgement.passed.iter().chain(decider) {
            self.note(format!("matched {}", rule.action));
            if let Some(rule) = find(list, rule) {
                self.rule(rule, family);
            }
        }
    }

    /// A rule has matched: every criterion that it has was met.
    fn rule(&mut self, rule: &Rule, family: &str) {
        let has = [
            ("family", rule.family.is_some()),
            ("protocol", rule.protocol.is_some()),
            ("not protocol", rule.not_protocol.is_some()),
            ("icmp", rule.icmp.is_some()),
            ("icmp code", rule.icmp.is_some_and(|icmp| icmp.code.is_some())),
            ("not icmp", rule.not_icmp.is_some()),
        ];
        for (what, is) in has {
            if is {
                self.note(format!("met {what} {family}"));
            }
        }
        for (end, side) in [("source", &rule.source), ("destination", &rule.destination)] {
            self.side(end, side, family);
        }
    }

    fn side(&mut self, end: &str, side: &Side, family: &str) {
        let has = [
            ("nets", side.nets.is_some()),
            ("not nets", !side.not_nets.is_empty()),
            ("sets", !side.sets.is_empty()),
            ("not sets", !side.not_sets.is_empty()),
            ("ports", side.ports.as_ref().is_some_and(|ports| !ports.ranges.is_empty())),
            ("named ports", side.ports.as_ref().is_some_and(|ports| ports.ranges.is_empty())),
            ("not ports", !side.not_ports.ranges.is_empty()),
            ("not named ports", !side.not_ports.named.is_empty()),
            ("endpoint sets", !side.endpoint_sets.is_empty()),
        ];
        for (what, is) in has {
            if is {
                self.note(format!("met {end} {what} {family}"));
            }
        }
    }
}

fn find<'a>(list: &'a PolicyList, id: &RuleId) -> Option<&'a Rule> {
    let policies = list.tiers.iter().filter(|tier| Some(&tier.name) == id.tier.as_ref());
    let profiles = list.profiles.iter().filter(|_| id.tier.is_none());
    let mut all = policies.flat_map(|tier| &tier.policies).chain(profiles);
    let rules = all.find(|rules| rules.origin == id.origin && rules.rules.len() > id.index)?;
    Some(&rules.rules[id.index])
}

const ENDINGS: [&str; 11] = [
    "allowed by failsafe",
    "undecided by failsafe",
    "allowed by policy Allow",
    "denied by policy Deny",
    "denied by end of tier",
    "allowed by profile Allow",
    "denied by profile Deny",
    "denied by profile Pass",
    "denied by end of profiles",
    "denied by end without profiles",
    "undecided by end without profiles",
];

const CRITERIA: [&str; 24] = [
    "family",
    "protocol",
    "not protocol",
    "icmp",
    "icmp code",
    "not icmp",
    "source nets",
    "source not nets",
    "source sets",
    "source not sets",
    "source ports",
    "source named ports",
    "source not ports",
    "source not named ports",
    "source endpoint sets",
    "destination nets",
    "destination not nets",
    "destination sets",
    "destination not sets",
    "destination ports",
    "destination named ports",
    "destination not ports",
    "destination not named ports",
    "destination endpoint sets",
];

/// Specs that change, and what both sides make of them.
#[derive(Default)]
struct Play {
    coverage: Coverage,
    /// One memory for all: what it holds of an earlier policy must never show.
    memo: Memo,
}

impl Play {
    fn run(&mut self, bytes: &[u8]) {
        let mut e = Entropy::new(bytes);
        let mut spec = NodeSpec { sets: policies::sets(&mut e), ..NodeSpec::default() };
        for name in ["a", "b", "c"] {
            spec.endpoints.push(endpoint(name, &mut e));
        }
        spec.host_endpoints = policies::host_endpoints(&mut e);
        spec.failsafes = policies::failsafes(&mut e);
        let mut tables = Policy::compile(&spec, None);
        for _ in 0..40 {
            for _ in 0..4 {
                self.probe(&spec, &tables, &policies::facts(&mut e));
            }
            if e.is_empty() {
                break;
            }
            policies::change(&mut spec, &mut e);
            tables = Policy::compile(&spec, Some(&tables));
        }
        // What was asked at the beginning may have changed meanwhile.
        let mut again = Entropy::new(bytes);
        (0..40).for_each(|_| self.probe(&spec, &tables, &policies::facts(&mut again)));
        let fresh = Policy::compile(&spec, None);
        (0..4).for_each(|_| self.probe(&spec, &fresh, &policies::facts(&mut e)));
    }

    fn probe(&mut self, spec: &NodeSpec, tables: &Policy, facts: &Facts) {
        for (index, endpoint) in spec.endpoints.iter().enumerate() {
            let programs = tables.endpoint(index as u32);
            let lists =
                [(&programs.ingress, &endpoint.policy.ingress), (&programs.egress, &endpoint.policy.egress)];
            for (program, list) in lists {
                self.list(spec, tables, facts, program, list);
            }
        }
        for (index, endpoint) in spec.host_endpoints.iter().enumerate() {
            let programs = tables.host_endpoint(index);
            let side = |policy, direction| HostSide { policy, direction, failsafes: &spec.failsafes };
            let ingress = side(&endpoint.ingress, PolicyDirection::Ingress);
            let egress = side(&endpoint.egress, PolicyDirection::Egress);
            self.host(spec, tables, facts, &programs.ingress, ingress);
            self.host(spec, tables, facts, &programs.egress, egress);
        }
    }

    fn list(
        &mut self,
        spec: &NodeSpec,
        tables: &Policy,
        facts: &Facts,
        program: &Program,
        list: &PolicyList,
    ) {
        let walk = policy::judge(list, &spec.sets, facts);
        let judgement = tables.judge(program, &mut self.memo, facts);
        assert_eq!(judgement, walk, "{facts:?}\n{list:#?}\n{:#?}", spec.sets);
        self.coverage.judgement(list, facts, &walk);
    }

    fn host(
        &mut self,
        spec: &NodeSpec,
        tables: &Policy,
        facts: &Facts,
        programs: &HostPrograms,
        side: HostSide<'_>,
    ) {
        let walk = policy::judge_untracked(side, &spec.sets, facts);
        let judgement = tables.judge_untracked(programs, &mut self.memo, facts);
        assert_eq!(judgement, walk, "untracked: {facts:?}\n{side:#?}\n{:#?}", spec.sets);
        self.coverage.judgement(&PolicyList::default(), facts, &walk);
        self.forwarded(spec, tables, facts, programs, side);
        for forwarded in [false, true] {
            let original = Some((facts.source, 53)).filter(|_| forwarded);
            let passage = Passage { original, forwarded, workload_interface: facts.protocol == 17 };
            let walk = policy::judge_host(side, &spec.sets, facts, passage);
            let judgement = tables.judge_host(programs, &mut self.memo, facts, passage);
            assert_eq!(judgement, walk, "{passage:?}: {facts:?}\n{side:#?}\n{:#?}", spec.sets);
            self.coverage.judgement(&PolicyList::default(), facts, &walk);
        }
    }
}

impl Play {
    /// The explanation, and the programs that a worker asks one after the other, come to what the walks say.
    fn forwarded(
        &mut self,
        spec: &NodeSpec,
        tables: &Policy,
        facts: &Facts,
        programs: &HostPrograms,
        side: HostSide<'_>,
    ) {
        let untracked = match side.direction {
            PolicyDirection::Ingress => policy::judge_untracked(side, &spec.sets, facts).outcome,
            PolicyDirection::Egress => Outcome::Undecided,
        };
        let passage = Passage { original: None, forwarded: true, workload_interface: false };
        let outcome = match untracked {
            Outcome::Undecided => policy::judge_host(side, &spec.sets, facts, passage).outcome,
            decided => decided,
        };
        let explained = policy::explain_forwarded(side, &spec.sets, facts).judgement.outcome;
        assert_eq!(explained, outcome, "{facts:?}\n{side:#?}\n{:#?}", spec.sets);
        let asked = tables
            .of_forwarded(programs, facts)
            .map(|program| tables.judge(program, &mut self.memo, facts).outcome);
        let said = asked.into_iter().find(|outcome| *outcome != Outcome::Undecided);
        assert_eq!(said.unwrap_or(Outcome::Allowed), outcome, "{facts:?}\n{side:#?}\n{:#?}", spec.sets);
    }
}

fn endpoint(name: &str, e: &mut Entropy<'_>) -> Endpoint {
    Endpoint {
        name: name.into(),
        interface: name.into(),
        ifindex: None,
        mac: None,
        networks: Vec::new(),
        mtu: 1500,
        policy: EndpointPolicy {
            ingress: policies::list(PolicyDirection::Ingress, e),
            egress: policies::list(PolicyDirection::Egress, e),
        },
    }
}

#[test]
fn the_tables_say_what_the_walk_says_after_any_changes() {
    let play = RefCell::new(Play::default());
    let config = Config { cases: 250, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
        .run(&(any::<u64>(), 0usize..6000), |(seed, len)| {
            play.borrow_mut().run(&noise(seed, len));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let coverage = play.into_inner().coverage.0;
    for (what, count) in &coverage {
        println!("{count:8} {what}");
    }
    let mut wanted: Vec<String> = Vec::new();
    for family in ["v4", "v6"] {
        wanted.extend(ENDINGS.iter().map(|ending| format!("{ending} {family}")));
        wanted.extend(CRITERIA.iter().map(|criterion| format!("met {criterion} {family}")));
    }
    for action in [Action::Allow, Action::Deny, Action::Log, Action::Pass] {
        wanted.push(format!("matched {action}"));
    }
    for outcome in [Outcome::Allowed, Outcome::Denied, Outcome::Undecided] {
        wanted.extend(["ports", "ICMP", "other", "unseen"].map(|what| format!("{outcome} with {what}")));
    }
    let never: Vec<&String> = wanted.iter().filter(|what| !coverage.contains_key(*what)).collect();
    assert!(never.is_empty(), "never seen: {never:?}");
}
