//! The four lists of a host endpoint, in the order in which they are asked.

use std::net::IpAddr;
use std::sync::Arc;

use super::facts::{Facts, Transport};
use super::failsafe::{is_spared, is_spared_untracked};
use super::walk::{Ends, walk};
use super::{Decider, Judgement, Outcome};
use crate::spec::policy::{Failsafes, HostPolicy, IpSet, PolicyDirection};

/// How a packet passes an interface of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Where it was addressed to before destination NAT, and the port; `None` = there was no NAT.
    pub original: Option<(IpAddr, u16)>,
    /// The host itself is neither its sender nor its receiver.
    pub forwarded: bool,
    /// The interface is a workload's: what the host itself sends or receives there is not for host policy to judge.
    pub workload_interface: bool,
}

/// One direction of a host endpoint.
#[derive(Clone, Copy, Debug)]
pub struct HostSide<'a> {
    /// Its lists.
    pub policy: &'a HostPolicy,
    /// Which direction they are for.
    pub direction: PolicyDirection,
    /// What none of them closes; forwarded packets they do not concern.
    pub failsafes: &'a Failsafes,
}

/// What untracked policy says. `Allowed` spares connection tracking and all other policy of the host; `Undecided` =
/// everything else is asked.
pub fn judge_untracked(side: HostSide<'_>, sets: &[Arc<IpSet>], facts: &Facts) -> Judgement {
    if is_spared_untracked(side.failsafes, side.direction, facts) {
        return Judgement::failsafe(Outcome::Undecided);
    }
    walk(&side.policy.untracked, Ends::Nothing, sets, facts, &mut |_| {})
}

/// What the rest of a host endpoint's policy says: pre-DNAT, then either forward or normal. Never `Undecided`.
pub fn judge_host(side: HostSide<'_>, sets: &[Arc<IpSet>], facts: &Facts, passage: Passage) -> Judgement {
    let HostSide { policy, direction, failsafes } = side;
    let original = facts.before_nat(passage.original);
    let pre_dnat = match is_spared(failsafes, direction, &original) {
        true => Judgement::failsafe(Outcome::Undecided),
        false => walk(&policy.pre_dnat, Ends::Nothing, sets, &original, &mut |_| {}),
    };
    if pre_dnat.outcome != Outcome::Undecided {
        return pre_dnat;
    }
    let mut judgement = match (passage.forwarded, passage.workload_interface) {
        (true, _) => walk(&policy.forward, Ends::Tiers, sets, facts, &mut |_| {}),
        (false, true) => pre_dnat,
        (false, false) if is_spared(failsafes, direction, facts) => Judgement::failsafe(Outcome::Allowed),
        (false, false) => walk(&policy.normal, Ends::Profiles, sets, facts, &mut |_| {}),
    };
    if judgement.outcome == Outcome::Undecided {
        judgement.outcome = Outcome::Allowed;
    }
    judgement
}

impl Judgement {
    /// No list was asked.
    pub(crate) const fn failsafe(outcome: Outcome) -> Self {
        Self { outcome, decider: Decider::Failsafe, passed: Vec::new() }
    }
}

impl Facts {
    /// As the packet was before its destination was translated from `original`.
    pub fn before_nat(mut self, original: Option<(IpAddr, u16)>) -> Self {
        if let Some((address, port)) = original {
            self.destination = address;
            if let Transport::Ports(source, _) = self.transport {
                self.transport = Transport::Ports(source, port);
            }
        }
        self
    }
}
