//! What policy says of a packet, by the spec as it stands: a slow, obvious walk over lists, rules and sets.
//!
//! It is the reference that the compiled tables are held against, and what tells people why: [`explain`] keeps every
//! rule that was asked and what kept it from matching. Workers ask the compiled form in [`crate::tables`], each with a
//! [`Judge`] of its own.

mod explain;
mod facts;
mod failsafe;
mod host;
mod judge;
mod log;
mod matching;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::sync::Arc;

use crate::spec::policy::{Action, Origin, OriginKind, PolicyDirection};

pub use explain::{Explanation, Step, explain, explain_forwarded};
pub(crate) use facts::Shape;
pub use facts::{Facts, Transport};
pub(crate) use failsafe::peer;
pub use failsafe::{is_spared, is_spared_untracked};
pub use host::{HostSide, Passage, judge_host, judge_untracked};
pub use judge::{Judge, Question, Ruling};
pub use log::{Event, Log, Record};
pub use matching::{Criterion, End, Mismatch, check};
pub(crate) use walk::Ends;
pub use walk::judge;

/// What a list makes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It may go.
    Allowed,
    /// It is dropped.
    Denied,
    /// Its end was reached and decides nothing (host endpoints only).
    Undecided,
}

/// The answer of one list about one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of the packet.
    pub outcome: Outcome,
    /// What has decided so.
    pub decider: Decider,
    /// `Log` and `Pass` rules that matched before, in order.
    pub passed: Vec<RuleId>,
}

/// What decides about a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Decider {
    /// A rule.
    Rule(RuleId),
    /// The end of the tier with this name: no rule of its policies has decided.
    TierEnd(Arc<str>),
    /// The end of the profiles, or of a list that has none.
    End,
    /// One of the ports that policy of the host never closes.
    Failsafe,
}

/// Names a rule for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleId {
    /// The tier; `None` = a profile.
    pub tier: Option<Arc<str>>,
    /// The policy or profile.
    pub origin: Origin,
    /// Position among its rules of this direction, from 0.
    pub index: usize,
    /// What it does.
    pub action: Action,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
        })
    }
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::TierEnd(tier) => write!(f, "end of tier {tier}"),
            Self::End => f.write_str("end of the profiles"),
            Self::Failsafe => f.write_str("failsafe port"),
        }
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tier) = &self.tier {
            write!(f, "tier {tier}, ")?;
        }
        write!(f, "{} rule {} ({})", self.origin, self.index, self.action)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {}", self.kind, self.name, self.direction)
    }
}

impl fmt::Display for OriginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::Profile => "Profile",
        })
    }
}

impl fmt::Display for PolicyDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Log => "Log",
            Self::Pass => "Pass",
        })
    }
}
