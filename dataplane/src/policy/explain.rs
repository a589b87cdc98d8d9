//! The same walk, for people: every rule that was asked, and why it did not match.

use std::sync::Arc;

use super::facts::Facts;
use super::matching::Mismatch;
use super::walk::{Asked, Ends, walk};
use super::{Judgement, RuleId};
use crate::spec::policy::{IpSet, PolicyList, TierEnd};

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
    let mut steps = Vec::new();
    let judgement = walk(list, Ends::Profiles, sets, facts, &mut |asked| {
        steps.push(match asked {
            Asked::Rule(rule, matched) => Step::Rule { rule: rule.id(), mismatch: matched.clone().err() },
            Asked::TierEnd(tier) => Step::TierEnd { tier: Arc::clone(&tier.name), end: tier.end },
        });
    });
    Explanation { judgement, steps }
}
