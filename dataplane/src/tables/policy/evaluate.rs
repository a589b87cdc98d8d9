//! Partial evaluation: from a program, two addresses' classes and a protocol to a [`Decision`].
//!
//! Sets, networks and protocols are decided here, once; what is left are ports and ICMP types. Only rules that stand under
//! a set which one of the addresses is in, and those under no set, are looked at.

use std::sync::Arc;

use super::class::{Class, SetNumber};
use super::decision::{Condition, Decision, Line, NONE, What};
use super::ports::PortSet;
use super::program::{End, Position, Program};
use super::rule::{Existence, Ports, Rule, Side};
use crate::policy::Shape;
use crate::spec::policy::{Action, Family};

/// What is known of one address: the classes that it has as a single address, and as one in networks.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressClass<'a> {
    /// By sets that name the address itself.
    pub host: Option<&'a Arc<Class>>,
    /// By sets that name a network around it.
    pub net: Option<&'a Arc<Class>>,
}

/// Everything that a decision depends on, besides the program.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The sender.
    pub source: AddressClass<'a>,
    /// The receiver.
    pub destination: AddressClass<'a>,
    /// IP family.
    pub family: Family,
    /// IP protocol; `None` = one that no rule of the program mentions.
    pub protocol: Option<u8>,
    /// Every set that exists, sorted.
    pub existing: &'a [Existence],
}

/// More lines than this for each rule that can match, and ports stay conditions instead of intervals.
const LINES_PER_RULE: usize = 4;
/// That many lines are always fine.
const FREE_LINES: usize = 1024;

impl AddressClass<'_> {
    fn each(&self) -> impl Iterator<Item = &Class> {
        self.host.into_iter().chain(self.net).map(|class| &**class)
    }

    fn contains(&self, set: SetNumber) -> bool {
        self.each().any(|class| class.contains(set))
    }

    fn ports(&self, set: SetNumber, protocol: u8) -> impl Iterator<Item = u16> {
        self.each().flat_map(move |class| class.ports(set, protocol))
    }
}

/// A rule that can match here.
#[derive(Debug)]
struct Candidate {
    at: Position,
    action: Action,
    /// Ports it is for; all of them where there are none.
    destination: PortSet,
    condition: Condition,
    /// It matches fragments that do not show their ports or ICMP type.
    unseen: bool,
}

/// A tier, or the profiles.
#[derive(Debug)]
struct Part {
    tier: Option<u32>,
    end_denies: bool,
    /// One after its last candidate.
    to: usize,
}

/// Every rule that can match, in order, up to where nothing more can be reached.
#[derive(Debug, Default)]
struct Plan {
    candidates: Vec<Candidate>,
    parts: Vec<Part>,
}

/// Works out the decision.
pub fn evaluate(program: &Program, situation: &Situation<'_>) -> Decision {
    let plan = Plan::new(program, situation);
    let most = FREE_LINES + LINES_PER_RULE * plan.candidates.len();
    let mut build = Build::new(&plan);
    if !build.by_intervals(&plan, most) {
        build = Build::new(&plan);
        let all: Vec<usize> = (0..plan.candidates.len()).collect();
        let list = build.list(&plan, &all, true);
        (build.starts, build.first) = (vec![0], vec![list]);
    }
    let unseen = match situation.shape() {
        Shape::Other => build.first[0],
        Shape::Ports | Shape::Icmp => {
            let unseen = plan.candidates.iter().enumerate().filter(|(_, candidate)| candidate.unseen);
            build.list(&plan, &unseen.map(|(index, _)| index).collect::<Vec<_>>(), false)
        }
    };
    Decision {
        starts: build.starts.into(),
        first: build.first.into(),
        unseen,
        lines: build.lines.into(),
        conditions: build.conditions.into(),
    }
}

/// Rules that may match by the sets that they stand under, in order, each once.
fn positions(program: &Program, situation: &Situation<'_>) -> Vec<Position> {
    let mut positions = program.always().to_vec();
    for (address, end) in [(&situation.source, End::Source), (&situation.destination, End::Destination)] {
        for set in address.each().flat_map(Class::sets) {
            positions.extend_from_slice(program.asked_by(set, end));
        }
    }
    positions.sort_unstable();
    positions.dedup();
    positions
}

impl Plan {
    fn new(program: &Program, situation: &Situation<'_>) -> Self {
        let positions = positions(program, situation);
        let mut positions = &positions[..];
        let mut plan = Self::default();
        for segment in program.segments() {
            let count = positions.partition_point(|at| at.rule_set < segment.rule_sets.end);
            let (here, rest) = positions.split_at(count);
            positions = rest;
            let (mut passes, mut closed) = (false, false);
            for at in here {
                let Some(candidate) = situation.candidate(program.rule(*at), *at) else { continue };
                passes |= candidate.action == Action::Pass;
                closed = candidate.always() && candidate.action != Action::Log;
                plan.candidates.push(candidate);
                if closed {
                    break;
                }
            }
            let (tier, end_denies, to) = (segment.tier, segment.end_denies, plan.candidates.len());
            plan.parts.push(Part { tier, end_denies, to });
            if !passes && (closed || end_denies) {
                break;
            }
        }
        plan
    }
}

impl Candidate {
    /// It matches every packet of the situation.
    fn always(&self) -> bool {
        self.destination.is_all() && self.condition.is_none() && self.unseen
    }
}

impl Situation<'_> {
    fn shape(&self) -> Shape {
        self.protocol.map_or(Shape::Other, |protocol| Shape::of(protocol, self.family == Family::V6))
    }

    /// What is left of a rule; `None` = it cannot match.
    fn candidate(&self, rule: &Rule, at: Position) -> Option<Candidate> {
        let protocol = rule.protocol.is_none_or(|protocol| Some(protocol) == self.protocol)
            && rule.not_protocol.is_none_or(|protocol| Some(protocol) != self.protocol);
        let sets = self.meets(&rule.source, &self.source) && self.meets(&rule.destination, &self.destination);
        let exist = || rule.must_exist.iter().all(|set| self.existing.binary_search(set).is_ok());
        if !rule.families.has(self.family) || !protocol || !sets || !exist() {
            return None;
        }
        let (mut condition, mut unseen) = (Condition::default(), true);
        let mut destination = PortSet::all();
        match (self.shape(), self.protocol) {
            (Shape::Ports, Some(protocol)) => {
                let source = ports(&rule.source, &self.source, protocol);
                destination = ports(&rule.destination, &self.destination, protocol);
                if rule.icmp.is_some() || source.is_empty() || destination.is_empty() {
                    return None;
                }
                condition.source = (!source.is_all()).then_some(source);
                unseen = !rule.source.asks_for_ports() && !rule.destination.asks_for_ports();
            }
            (shape, _) => {
                if wants_ports(&rule.source) || wants_ports(&rule.destination) {
                    return None;
                }
                if shape == Shape::Icmp {
                    (condition.icmp, condition.not_icmp) = (rule.icmp, rule.not_icmp);
                    unseen = condition.is_none();
                } else if rule.icmp.is_some() {
                    return None;
                }
            }
        }
        Some(Candidate { at, action: rule.action, destination, condition, unseen })
    }

    fn meets(&self, side: &Side, address: &AddressClass<'_>) -> bool {
        side.all.iter().all(|(set, families)| !families.has(self.family) || address.contains(*set))
            && !side.none.iter().any(|set| address.contains(*set))
    }
}

/// Does a side want the packet to have a port?
fn wants_ports(side: &Side) -> bool {
    side.ports.is_some() || !side.endpoint_sets.is_empty()
}

/// The ports that meet a side's criteria.
fn ports(side: &Side, address: &AddressClass<'_>, protocol: u8) -> PortSet {
    let named = |set: &SetNumber| address.ports(*set, protocol).map(|port| (port, port));
    let choice =
        |ports: &Ports| PortSet::of(ports.ranges.iter().copied().chain(ports.named.iter().flat_map(named)));
    let mut left = side.ports.as_ref().map_or_else(PortSet::all, choice);
    if let Some(not_ports) = &side.not_ports {
        left = left.intersection(&choice(not_ports).complement());
    }
    for set in &side.endpoint_sets {
        left = left.intersection(&PortSet::of(named(set)));
    }
    left
}

/// A decision that grows.
#[derive(Debug)]
struct Build {
    starts: Vec<u16>,
    first: Vec<u32>,
    lines: Vec<Line>,
    conditions: Vec<Condition>,
    /// Of each candidate; without its destination ports.
    condition: Vec<u32>,
}

impl Build {
    fn new(plan: &Plan) -> Self {
        let mut conditions = Vec::new();
        let number = |candidate: &Candidate| {
            if candidate.condition.is_none() {
                return NONE;
            }
            conditions.push(candidate.condition.clone());
            (conditions.len() - 1) as u32
        };
        let condition = plan.candidates.iter().map(number).collect();
        Self { starts: Vec::new(), first: Vec::new(), lines: Vec::new(), conditions, condition }
    }

    /// One list for each interval of destination ports in which the same rules matter; false = these would be more than
    /// `most` lines.
    fn by_intervals(&mut self, plan: &Plan, most: usize) -> bool {
        // Where candidates come in and go out, and those that never do.
        let (mut edges, mut active): (Vec<(u32, usize)>, Vec<usize>) = (Vec::new(), Vec::new());
        for (index, candidate) in plan.candidates.iter().enumerate() {
            if candidate.destination.is_all() {
                active.push(index);
                continue;
            }
            for (first, last) in candidate.destination.ranges() {
                edges.extend([(u32::from(*first), index), (u32::from(*last) + 1, index)]);
            }
        }
        edges.sort_unstable();
        let mut edges = edges.into_iter().peekable();
        let mut start = 0;
        // The lists of the last two intervals: between the ports of single rules it is the same one again and again.
        let mut recent = [None; 2];
        while start <= u32::from(u16::MAX) {
            while let Some((_, index)) = edges.next_if(|(edge, _)| *edge == start) {
                match active.binary_search(&index) {
                    Ok(at) => drop(active.remove(at)),
                    Err(at) => active.insert(at, index),
                }
            }
            let list = self.list(plan, &active, false);
            if self.lines.len() > most {
                return false;
            }
            let (old, new) = self.lines.split_at(list as usize);
            let known = recent.into_iter().flatten().find(|(from, to)| old[*from..*to] == *new);
            let first = match known {
                Some((from, _)) => {
                    self.lines.truncate(list as usize);
                    from as u32
                }
                None => {
                    recent = [Some((list as usize, self.lines.len())), recent[0]];
                    list
                }
            };
            if self.first.last() != Some(&first) {
                self.starts.push(start as u16);
                self.first.push(first);
            }
            start = edges.peek().map_or(u32::MAX, |(edge, _)| *edge);
        }
        true
    }

    /// Appends the list of these candidates and returns its first line; `by_port`: their destination ports are
    /// conditions.
    fn list(&mut self, plan: &Plan, active: &[usize], by_port: bool) -> u32 {
        let start = self.lines.len() as u32;
        let mut active = active.iter().copied().peekable();
        for part in &plan.parts {
            let (mut passes, mut closed) = (Vec::new(), false);
            while let Some(index) = active.next_if(|index| *index < part.to) {
                if closed {
                    continue;
                }
                let candidate = &plan.candidates[index];
                let condition = self.condition(index, candidate, by_port);
                let what = match candidate.action {
                    Action::Allow => What::Allow(candidate.at),
                    Action::Log => What::Log(candidate.at),
                    Action::Pass if part.tier.is_some() => What::Pass(candidate.at),
                    // Pass in a profile leads nowhere.
                    Action::Deny | Action::Pass => What::Deny(candidate.at),
                };
                if let What::Pass(_) = what {
                    passes.push(self.lines.len());
                }
                closed = condition == NONE && candidate.action != Action::Log;
                self.lines.push(Line { what, condition, onward: 0 });
            }
            match part.tier {
                Some(tier) if part.end_denies && !closed => {
                    self.lines.push(Line { what: What::TierEnd(tier), condition: NONE, onward: 0 });
                    closed = true;
                }
                _ => {}
            }
            for pass in &passes {
                self.lines[*pass].onward = (self.lines.len() - pass) as u32;
            }
            if closed && passes.is_empty() {
                return start;
            }
        }
        self.lines.push(Line { what: What::End, condition: NONE, onward: 0 });
        start
    }

    fn condition(&mut self, index: usize, candidate: &Candidate, by_port: bool) -> u32 {
        if !by_port || candidate.destination.is_all() {
            return self.condition[index];
        }
        let destination = Some(candidate.destination.clone());
        self.conditions.push(Condition { destination, ..candidate.condition.clone() });
        (self.conditions.len() - 1) as u32
    }
}
