//! One list, flattened: its rules in order, and for every set the rules that ask for it.
//!
//! Which rules can match at all is found by the sets that an address is in: a rule stands under one of the sets it
//! wants, or, when it wants none, among those that are always asked. The rest of a list never needs to be looked at.

use std::ops::Range;
use std::sync::Arc;

use super::class::SetNumber;
use super::decision::What;
use super::registry::Inner;
use super::rule::{Existence, Families, HitCounter, Rule, RuleSet};
use crate::policy::{Decider, Ends, Outcome, RuleId};
use crate::spec::policy::{PolicyDirection, PolicyList, TierEnd};

/// A list, compiled.
#[derive(Debug)]
pub struct Program {
    /// Its name: of all programs ever made from one registry, no other has it.
    pub serial: u64,
    body: Arc<Body>,
}

#[derive(Debug)]
struct Body {
    list: Arc<PolicyList>,
    direction: PolicyDirection,
    ends: Ends,
    /// The policies of all tiers, then the profiles.
    rule_sets: Vec<Arc<RuleSet>>,
    tiers: Vec<Tier>,
    end: Arc<HitCounter>,
    postings: Postings,
    /// Rules that want no set, in order.
    always: Vec<Position>,
    /// Protocols that make a difference to some rule, a bit each.
    protocols: [u64; 4],
    /// Sets whose coming and going changes what rules match although no address changes its class; sorted.
    must_exist: Vec<Existence>,
}

#[derive(Debug)]
struct Tier {
    name: Arc<str>,
    end: TierEnd,
    /// One after its last policy.
    to: u32,
    counter: Arc<HitCounter>,
}

/// Where a rule stands in a program; ascending in the order of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Index of the rule set.
    pub rule_set: u32,
    /// Index of the rule in it.
    pub rule: u32,
}

/// The end of a packet whose set is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender.
    Source = 0,
    /// The receiver.
    Destination = 1,
}

/// Positions by set and end, in one sorted list.
#[derive(Debug, Default)]
struct Postings {
    keys: Vec<u64>,
    /// First position of each key, and the number of positions.
    starts: Vec<u32>,
    positions: Vec<Position>,
}

/// A run of rules after which something else follows.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Index of the tier; `None` = the profiles.
    pub tier: Option<u32>,
    /// Its rule sets.
    pub rule_sets: Range<u32>,
    /// Its end denies; otherwise the next segment follows.
    pub end_denies: bool,
}

impl Postings {
    fn new(mut entries: Vec<(u64, Position)>) -> Self {
        entries.sort_unstable();
        let mut postings = Self::default();
        postings.positions.reserve_exact(entries.len());
        for (key, position) in entries {
            if postings.keys.last() != Some(&key) {
                postings.keys.push(key);
                postings.starts.push(postings.positions.len() as u32);
            }
            postings.positions.push(position);
        }
        postings.starts.push(postings.positions.len() as u32);
        postings
    }

    fn key(set: SetNumber, end: End) -> u64 {
        u64::from(set) << 1 | end as u64
    }

    fn get(&self, set: SetNumber, end: End) -> &[Position] {
        match self.keys.binary_search(&Self::key(set, end)) {
            Ok(at) => &self.positions[self.starts[at] as usize..self.starts[at + 1] as usize],
            Err(_) => &[],
        }
    }
}

impl Program {
    /// Compiles a list.
    pub(super) fn compile(
        list: &Arc<PolicyList>,
        direction: PolicyDirection,
        ends: Ends,
        registry: &mut Inner,
    ) -> Self {
        let policies = list.tiers.iter().map(|tier| tier.policies.len()).sum::<usize>();
        let mut rule_sets = Vec::with_capacity(policies + list.profiles.len());
        let mut tiers = Vec::with_capacity(list.tiers.len());
        for tier in &list.tiers {
            rule_sets.extend(tier.policies.iter().map(|policy| registry.compiled(policy)));
            let (name, end, to) = (Arc::clone(&tier.name), tier.end, rule_sets.len() as u32);
            let counter = registry.end(direction, Some(&name));
            tiers.push(Tier { name, end, to, counter });
        }
        if ends == Ends::Profiles {
            rule_sets.extend(list.profiles.iter().map(|profile| registry.compiled(profile)));
        }
        let end = registry.end(direction, None);
        let mut index = Index::new(direction, rule_sets.len());
        for (i, rules) in rule_sets.iter().enumerate() {
            for (j, rule) in rules.rules.iter().enumerate() {
                index.add(rule, Position { rule_set: i as u32, rule: j as u32 });
            }
        }
        index.must_exist.sort_unstable();
        index.must_exist.dedup();
        let body = Body {
            list: Arc::clone(list),
            direction,
            ends,
            rule_sets,
            tiers,
            end,
            postings: Postings::new(index.postings),
            always: index.always,
            protocols: index.protocols,
            must_exist: index.must_exist,
        };
        Self { serial: registry.program_serial(), body: Arc::new(body) }
    }

    /// The same under another name: what it says of a class may have changed.
    pub(super) fn renamed(&self, registry: &mut Inner) -> Self {
        Self { serial: registry.program_serial(), body: Arc::clone(&self.body) }
    }

    /// What it was made from.
    pub fn list(&self) -> &Arc<PolicyList> {
        &self.body.list
    }

    /// Towards the endpoint, or from it.
    pub fn direction(&self) -> PolicyDirection {
        self.body.direction
    }

    /// What comes to its end.
    pub fn end(&self) -> Outcome {
        match self.body.ends {
            Ends::Profiles => Outcome::Denied,
            Ends::Tiers | Ends::Nothing => Outcome::Undecided,
        }
    }

    /// True if it leaves every packet undecided, and counts none.
    pub fn decides_nothing(&self) -> bool {
        self.body.ends != Ends::Profiles && self.body.tiers.is_empty()
    }

    /// Its rule sets, in order.
    pub fn rule_sets(&self) -> &[Arc<RuleSet>] {
        &self.body.rule_sets
    }

    /// Does it matter to some rule whether any of these sets exists?
    pub fn cares_about(&self, sets: &[Existence]) -> bool {
        sets.iter().any(|set| self.body.must_exist.binary_search(set).is_ok())
    }

    /// Does any rule ask for this protocol, or for what only this protocol has?
    #[inline]
    pub fn mentions(&self, protocol: u8) -> bool {
        self.body.protocols[usize::from(protocol >> 6)] >> (protocol & 63) & 1 != 0
    }

    /// Rules that are asked whatever sets the addresses are in.
    pub fn always(&self) -> &[Position] {
        &self.body.always
    }

    /// Rules that are asked when an address at this end is in the set.
    pub fn asked_by(&self, set: SetNumber, end: End) -> &[Position] {
        self.body.postings.get(set, end)
    }

    /// The rule at a position.
    pub fn rule(&self, at: Position) -> &Rule {
        &self.body.rule_sets[at.rule_set as usize].rules[at.rule as usize]
    }

    /// Counts a packet that came to this step.
    #[inline]
    pub fn count(&self, step: What, bytes: u64) {
        let body = &*self.body;
        let counter = match step {
            What::Allow(at) | What::Deny(at) | What::Log(at) | What::Pass(at) => {
                &body.rule_sets[at.rule_set as usize].counters[at.rule as usize]
            }
            What::TierEnd(tier) => &body.tiers[tier as usize].counter,
            What::End => &body.end,
        };
        counter.add(bytes);
    }

    /// Names a step for people.
    pub fn decider(&self, step: What) -> Decider {
        match step {
            What::Allow(at) | What::Deny(at) | What::Log(at) | What::Pass(at) => {
                Decider::Rule(self.rule_id(at))
            }
            What::TierEnd(tier) => Decider::TierEnd(Arc::clone(&self.body.tiers[tier as usize].name)),
            What::End => Decider::End,
        }
    }

    /// What the end of each tier has denied, by name, in order; and the end of the list.
    pub fn ends(&self) -> impl Iterator<Item = (Option<&str>, &HitCounter)> {
        let tiers = self.body.tiers.iter().map(|tier| (Some(&*tier.name), &*tier.counter));
        tiers.chain([(None, &*self.body.end)])
    }

    /// Tiers, then profiles where they are asked.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        let mut from = 0;
        let ends = self.body.ends;
        let tiers = self.body.tiers.iter().enumerate().map(move |(index, tier)| {
            let rule_sets = from..tier.to;
            from = tier.to;
            let end_denies = tier.end == TierEnd::Deny && ends != Ends::Nothing;
            Segment { tier: Some(index as u32), rule_sets, end_denies }
        });
        let from = self.body.tiers.last().map_or(0, |tier| tier.to);
        let profiles = from..self.body.rule_sets.len() as u32;
        let profiles = (ends == Ends::Profiles).then_some(Segment {
            tier: None,
            rule_sets: profiles,
            end_denies: false,
        });
        tiers.chain(profiles)
    }

    /// Names a rule for people.
    pub fn rule_id(&self, at: Position) -> RuleId {
        let rules = &self.body.rule_sets[at.rule_set as usize];
        let tier = self.body.tiers.iter().find(|tier| at.rule_set < tier.to);
        RuleId {
            tier: tier.map(|tier| Arc::clone(&tier.name)),
            origin: rules.source.origin.clone(),
            index: at.rule as usize,
            action: rules.rules[at.rule as usize].action,
        }
    }
}

/// What is found out about each rule of a list.
struct Index {
    peer: End,
    postings: Vec<(u64, Position)>,
    always: Vec<Position>,
    protocols: [u64; 4],
    must_exist: Vec<Existence>,
}

impl Index {
    fn new(direction: PolicyDirection, rules: usize) -> Self {
        let peer = match direction {
            PolicyDirection::Ingress => End::Source,
            PolicyDirection::Egress => End::Destination,
        };
        let postings = Vec::with_capacity(rules);
        Self { peer, postings, always: Vec::new(), protocols: [0; 4], must_exist: Vec::new() }
    }

    fn add(&mut self, rule: &Rule, at: Position) {
        if rule.families == Families::NONE {
            return;
        }
        self.note_protocols(rule);
        self.must_exist.extend(&rule.must_exist);
        // The endpoint's own side tells little: all of its rules want the sets it is in.
        let (peer, own) = match self.peer {
            End::Source => (&rule.source, (&rule.destination, End::Destination)),
            End::Destination => (&rule.destination, (&rule.source, End::Source)),
        };
        let mut left = rule.families;
        for (side, end) in [(peer, self.peer), own] {
            for (set, families) in &side.all {
                if left.and(*families) != Families::NONE {
                    self.postings.push((Postings::key(*set, end), at));
                    left = left.and(families.others());
                }
            }
        }
        if left != Families::NONE {
            self.always.push(at);
        }
    }

    fn note_protocols(&mut self, rule: &Rule) {
        let mut note = |protocol: u8| self.protocols[usize::from(protocol >> 6)] |= 1 << (protocol & 63);
        rule.protocol.into_iter().chain(rule.not_protocol).for_each(&mut note);
        if rule.source.asks_for_ports() || rule.destination.asks_for_ports() {
            [6, 17, 132].into_iter().for_each(&mut note);
        }
        if rule.icmp.is_some() || rule.not_icmp.is_some() {
            [1, 58].into_iter().for_each(&mut note);
        }
    }
}
