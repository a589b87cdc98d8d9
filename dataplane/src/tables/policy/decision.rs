//! What a program says of two classes of addresses and a protocol: ports and ICMP types are all that is left to ask.

use super::ports::PortSet;
use super::program::Position;
use crate::policy::Transport;
use crate::spec::policy::Icmp;

/// No condition.
pub(super) const NONE: u32 = u32::MAX;

/// Lists of lines by destination port. Plain data that refers to rules by position, so that equal decisions of
/// different classes are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Where intervals of destination ports begin, ascending from 0. One interval when ports make no difference, or
    /// there are none.
    pub(super) starts: Box<[u16]>,
    /// The first line for each interval.
    pub(super) first: Box<[u32]>,
    /// The first line for fragments that do not show their ports or ICMP type.
    pub(super) unseen: u32,
    /// Lists of lines one after the other; each ends with a line that decides and has no condition.
    pub(super) lines: Box<[Line]>,
    pub(super) conditions: Box<[Condition]>,
}

/// One step: what is done if the condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// What.
    pub what: What,
    /// Index of the condition, or [`NONE`].
    pub(super) condition: u32,
    /// For [`What::Pass`]: how many lines further down it goes on.
    pub(super) onward: u32,
}

/// What a line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Allowed by this rule.
    Allow(Position),
    /// Denied by this rule.
    Deny(Position),
    /// Noted by this rule.
    Log(Position),
    /// This rule leads to the next tier.
    Pass(Position),
    /// Denied by the end of the tier with this index.
    TierEnd(u32),
    /// The list is at its end.
    End,
}

/// What is left of a rule's criteria. All that are there must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Condition {
    pub(super) source: Option<PortSet>,
    /// Only where intervals would have been too many.
    pub(super) destination: Option<PortSet>,
    pub(super) icmp: Option<Icmp>,
    pub(super) not_icmp: Option<Icmp>,
}

impl Condition {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn holds(&self, transport: Transport) -> bool {
        let port = |ports: &Option<PortSet>, port| ports.as_ref().is_none_or(|ports| ports.contains(port));
        match transport {
            Transport::Ports(source, destination) => {
                port(&self.source, source) && port(&self.destination, destination)
            }
            Transport::Icmp(kind, code) => {
                let is = |icmp: Icmp| icmp.kind == kind && icmp.code.is_none_or(|c| c == code);
                self.icmp.is_none_or(is) && !self.not_icmp.is_some_and(is)
            }
            // Rules with conditions are not in their lists.
            Transport::Other | Transport::Unseen => self.is_none(),
        }
    }
}

impl Decision {
    /// The steps for a packet, in order; the last one decides.
    #[inline]
    pub fn steps(&self, transport: Transport) -> Steps<'_> {
        let at = match transport {
            Transport::Unseen => self.unseen,
            Transport::Ports(_, destination) => {
                self.first[self.starts.partition_point(|start| *start <= destination) - 1]
            }
            Transport::Icmp(..) | Transport::Other => self.first[0],
        };
        Steps { decision: self, transport, at: Some(at) }
    }

    /// How much memory it takes, in lines.
    pub fn weight(&self) -> usize {
        let ports = |ports: &Option<PortSet>| ports.as_ref().map_or(0, |ports| ports.ranges().len());
        let conditions = self.conditions.iter().map(|c| 4 + ports(&c.source) + ports(&c.destination));
        4 + self.lines.len() + self.starts.len() + conditions.sum::<usize>()
    }
}

/// See [`Decision::steps`].
#[derive(Clone, Debug)]
pub struct Steps<'a> {
    decision: &'a Decision,
    transport: Transport,
    at: Option<u32>,
}

impl Iterator for Steps<'_> {
    type Item = What;

    #[inline]
    fn next(&mut self) -> Option<What> {
        let mut at = self.at?;
        loop {
            let line = self.decision.lines[at as usize];
            let holds = line.condition == NONE
                || self.decision.conditions[line.condition as usize].holds(self.transport);
            if holds {
                self.at = match line.what {
                    What::Allow(_) | What::Deny(_) | What::TierEnd(_) | What::End => None,
                    What::Log(_) => Some(at + 1),
                    What::Pass(_) => Some(at + line.onward),
                };
                return Some(line.what);
            }
            at += 1;
        }
    }
}
