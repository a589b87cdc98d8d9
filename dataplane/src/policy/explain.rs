//! The same walk, for people: every rule that was asked, and why it did not match.

use std::sync::Arc;

use super::facts::Facts;
use super::failsafe::{is_spared, is_spared_untracked};
use super::host::HostSide;
use super::matching::Mismatch;
use super::walk::{Asked, Ends, walk};
use super::{Judgement, Outcome, RuleId};
use crate::spec::policy::{IpSet, PolicyDirection, PolicyList, TierEnd};

/// How a list has come to its judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What it is.
    pub judgement: Judgement,
    /// Everything that was asked, in order. The last one has decided, unless that was the end of the profiles.
    pub steps: Vec<Step>,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rule was asked.
    Rule {
        /// The rule.
        rule: RuleId,
        /// Why it did not match; `None` = it did.
        mismatch: Option<Mismatch>,
    },
    /// No rule of a tier's policies has decided.
    TierEnd {
        /// The tier.
        tier: Arc<str>,
        /// What that means.
        end: TierEnd,
    },
}

/// Asks a workload's list about a packet and keeps every step; `sets` are those of the spec, sorted by id.
pub fn explain(list: &PolicyList, sets: &[Arc<IpSet>], facts: &Facts) -> Explanation {
    explained(list, Ends::Profiles, sets, facts)
}

/// Asks a host endpoint about a packet that is forwarded, as the pipeline does: the list that has decided, or else the
/// last one.
pub fn explain_forwarded(side: HostSide<'_>, sets: &[Arc<IpSet>], facts: &Facts) -> Explanation {
    let HostSide { policy, direction, failsafes } = side;
    let untracked =
        direction == PolicyDirection::Ingress && !is_spared_untracked(failsafes, direction, facts);
    let lists = [
        (&policy.untracked, Ends::Nothing, untracked),
        (&policy.pre_dnat, Ends::Nothing, !is_spared(failsafes, direction, facts)),
    ];
    let mut asked = lists.into_iter().filter(|(.., asked)| *asked);
    let decided = asked.find_map(|(list, ends, _)| {
        let explanation = explained(list, ends, sets, facts);
        (explanation.judgement.outcome != Outcome::Undecided).then_some(explanation)
    });
    decided.unwrap_or_else(|| {
        let mut last = explained(&policy.forward, Ends::Tiers, sets, facts);
        if last.judgement.outcome == Outcome::Undecided {
            last.judgement.outcome = Outcome::Allowed;
        }
        last
    })
}

fn explained(list: &PolicyList, ends: Ends, sets: &[Arc<IpSet>], facts: &Facts) -> Explanation {
    let mut steps = Vec::new();
    let judgement = walk(list, ends, sets, facts, &mut |asked| {
        steps.push(match asked {
            Asked::Rule(rule, matched) => Step::Rule { rule: rule.id(), mismatch: matched.clone().err() },
            Asked::TierEnd(tier) => Step::TierEnd { tier: Arc::clone(&tier.name), end: tier.end },
        });
    });
    Explanation { judgement, steps }
}
