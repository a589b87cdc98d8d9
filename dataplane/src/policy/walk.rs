//! The walk through one list: tiers, then profiles.

use super::facts::Facts;
use super::matching::{Mismatch, check};
use super::{Decider, Judgement, Outcome, RuleId};
use crate::spec::policy::{Action, IpSet, PolicyList, RuleSet, Tier, TierEnd};

use std::sync::Arc;

/// What the end of a list, and of its tiers, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ends {
    /// Tiers end as they say, then profiles, then denied: workloads, and what a host itself sends or receives.
    Profiles,
    /// Tiers end as they say; the end decides nothing, and profiles are not asked: what a host forwards.
    Tiers,
    /// No end decides anything: untracked and pre-DNAT policy.
    Nothing,
}

/// One question that the walk has asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    Rule(&'a RuleAt<'a>, &'a Result<(), Mismatch>),
    TierEnd(&'a Tier),
}

/// A rule where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleAt<'a> {
    pub tier: Option<&'a Tier>,
    pub set: &'a RuleSet,
    pub index: usize,
}

impl RuleAt<'_> {
    pub fn action(&self) -> Action {
        self.set.rules[self.index].action
    }

    pub fn id(&self) -> RuleId {
        RuleId {
            tier: self.tier.map(|tier| Arc::clone(&tier.name)),
            origin: self.set.origin.clone(),
            index: self.index,
            action: self.action(),
        }
    }
}

/// What a workload's list, or a host endpoint's normal one, says of a packet.
pub fn judge(list: &PolicyList, sets: &[Arc<IpSet>], facts: &Facts) -> Judgement {
    walk(list, Ends::Profiles, sets, facts, &mut |_| {})
}

/// As [`judge`], for any kind of list; tells `asked` about every step.
pub(super) fn walk(
    list: &PolicyList,
    ends: Ends,
    sets: &[Arc<IpSet>],
    facts: &Facts,
    asked: &mut dyn FnMut(Asked<'_>),
) -> Judgement {
    let mut passed = Vec::new();
    let decided = |outcome, decider, passed| Judgement { outcome, decider, passed };
    for tier in &list.tiers {
        let mut rules = tier.policies.iter().flat_map(|set| rules_of(Some(tier), set));
        match first_decision(&mut rules, sets, facts, &mut passed, asked) {
            Some(rule) if rule.action() == Action::Allow => {
                return decided(Outcome::Allowed, Decider::Rule(rule.id()), passed);
            }
            Some(rule) if rule.action() == Action::Deny => {
                return decided(Outcome::Denied, Decider::Rule(rule.id()), passed);
            }
            // Pass: on to the next tier.
            Some(rule) => passed.push(rule.id()),
            None if ends == Ends::Nothing => {}
            None => {
                asked(Asked::TierEnd(tier));
                if tier.end == TierEnd::Deny {
                    return decided(Outcome::Denied, Decider::TierEnd(Arc::clone(&tier.name)), passed);
                }
            }
        }
    }
    if ends != Ends::Profiles {
        return decided(Outcome::Undecided, Decider::End, passed);
    }
    let mut rules = list.profiles.iter().flat_map(|set| rules_of(None, set));
    match first_decision(&mut rules, sets, facts, &mut passed, asked) {
        Some(rule) if rule.action() == Action::Allow => {
            decided(Outcome::Allowed, Decider::Rule(rule.id()), passed)
        }
        // Pass leads nowhere from here.
        Some(rule) => decided(Outcome::Denied, Decider::Rule(rule.id()), passed),
        None => decided(Outcome::Denied, Decider::End, passed),
    }
}

fn rules_of<'a>(tier: Option<&'a Tier>, set: &'a RuleSet) -> impl Iterator<Item = RuleAt<'a>> {
    (0..set.rules.len()).map(move |index| RuleAt { tier, set, index })
}

/// The first rule that matches and is no `Log`; those go to `passed`.
fn first_decision<'a>(
    rules: &mut dyn Iterator<Item = RuleAt<'a>>,
    sets: &[Arc<IpSet>],
    facts: &Facts,
    passed: &mut Vec<RuleId>,
    asked: &mut dyn FnMut(Asked<'_>),
) -> Option<RuleAt<'a>> {
    for rule in rules {
        let matched = check(&rule.set.rules[rule.index], sets, facts);
        asked(Asked::Rule(&rule, &matched));
        if matched.is_err() {
            continue;
        }
        if rule.action() != Action::Log {
            return Some(rule);
        }
        passed.push(rule.id());
    }
    None
}
