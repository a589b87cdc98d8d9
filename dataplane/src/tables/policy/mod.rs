//! Policy as workers read it, and how it is kept up to date.
//!
//! Three ideas make the first packet of a connection cheap, however many policies there are. Addresses have **classes**:
//! what sets they are in, found by two look-ups (`shards`, `intervals`). A list of policies is a **program**, in which the
//! rules that can concern a class are found by its sets (`program`). Program, classes and protocol give a **decision**,
//! in which only ports and ICMP types are left to ask (`evaluate`), and which the worker remembers (`memo`).
//!
//! Everything is shared with the generation before as far as it did not change, and has a name that is never given again:
//! a change costs what it changes, and what workers remember of the rest stays right. The slow twin is
//! [`crate::policy`].

mod class;
mod compile;
mod decision;
mod evaluate;
mod failsafes;
mod intervals;
mod members;
mod memo;
mod ports;
mod program;
mod registry;
mod rule;
mod shards;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

use self::class::Class;
use self::failsafes::FailsafeTables;
use self::intervals::Intervals;
use self::registry::{Registry, SetHandle};
use self::rule::Existence;
use self::shards::ShardMap;
use crate::policy::{Ends, Facts, Judgement, Outcome, Passage};
use crate::spec::policy::{IpSet, PolicyDirection};

pub use decision::{Decision, What};
pub use evaluate::AddressClass;
pub use memo::Memo;
pub use program::{Position, Program};
pub use rule::{HitCounter, RuleSet};

/// The compiled policy of one generation.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    registry: Arc<Registry>,
    /// Sorted by id, as in the spec.
    sets: Arc<[LiveSet]>,
    /// Sets that exist no longer and whose members still have them in their classes.
    idle: Vec<LiveSet>,
    /// Sets that exist; sorted.
    existing: Arc<[Existence]>,
    /// Lists of networks that stand in the tables below.
    unnamed: ShardMap<u32, Unnamed>,
    /// Look for those that no rule has any more when there are more than this.
    tidy_unnamed_at: usize,
    v4: Addresses<u32>,
    v6: Addresses<u128>,
    programs: HashMap<ProgramKey, Arc<Program>, FixedState>,
    endpoints: Vec<EndpointPrograms>,
    host_endpoints: Vec<HostEndpointPrograms>,
    failsafes: Arc<FailsafeTables>,
}

/// A program's list, by its address, and what is made of it.
type ProgramKey = (usize, PolicyDirection, Ends);

#[derive(Clone, Debug)]
struct LiveSet {
    set: Arc<IpSet>,
    handle: Arc<SetHandle>,
}

#[derive(Clone, Debug)]
struct Unnamed {
    handle: Weak<SetHandle>,
    nets: Arc<[IpNetwork]>,
}

/// Classes of one family's addresses.
#[derive(Clone, Debug)]
struct Addresses<K> {
    hosts: ShardMap<K, Arc<Class>>,
    nets: Intervals<K>,
}

impl<K: shards::Key + intervals::Number> Default for Addresses<K> {
    fn default() -> Self {
        Self { hosts: ShardMap::default(), nets: Intervals::default() }
    }
}

/// What decides about a workload's connections.
#[derive(Clone, Debug)]
pub struct EndpointPrograms {
    /// Towards it.
    pub ingress: Arc<Program>,
    /// From it.
    pub egress: Arc<Program>,
}

/// Of one of the host's own interfaces.
#[derive(Clone, Debug)]
pub struct HostEndpointPrograms {
    /// Name of the host endpoint.
    pub name: Arc<str>,
    /// Towards the host or through it.
    pub ingress: HostPrograms,
    /// From the host or through it.
    pub egress: HostPrograms,
}

/// The four lists of one direction.
#[derive(Clone, Debug)]
pub struct HostPrograms {
    untracked: Arc<Program>,
    pre_dnat: Arc<Program>,
    forward: Arc<Program>,
    normal: Arc<Program>,
}

impl HostPrograms {
    /// The direction that they are for.
    pub fn direction(&self) -> PolicyDirection {
        self.normal.direction()
    }
}

impl Policy {
    /// The programs of the workload with this index in the spec.
    #[inline]
    pub fn endpoint(&self, index: u32) -> &EndpointPrograms {
        &self.endpoints[index as usize]
    }

    /// The programs of the host endpoint with this index in the spec.
    pub fn host_endpoint(&self, index: usize) -> &HostEndpointPrograms {
        &self.host_endpoints[index]
    }

    /// Those programs of a host endpoint that are asked about a packet which is forwarded, in their order, until one
    /// decides; if none does, it may pass. Of what the host sends untracked policy judges its own packets only.
    pub fn of_forwarded<'a>(
        &self,
        programs: &'a HostPrograms,
        facts: &Facts,
    ) -> impl Iterator<Item = &'a Program> {
        let direction = programs.direction();
        let HostPrograms { untracked, pre_dnat, forward, .. } = programs;
        let untracked_asked = direction == PolicyDirection::Ingress
            && !untracked.decides_nothing()
            && !self.failsafes.spare_untracked(direction, facts);
        let pre_dnat_asked = !pre_dnat.decides_nothing() && !self.failsafes.spare(direction, facts);
        [(untracked, untracked_asked), (pre_dnat, pre_dnat_asked), (forward, !forward.decides_nothing())]
            .into_iter()
            .filter_map(|(program, asked)| asked.then_some(&**program))
    }

    /// Every program, each once.
    pub fn programs(&self) -> impl Iterator<Item = &Arc<Program>> {
        self.programs.values()
    }

    /// Every rule set, each once, in the order of their origins.
    pub fn rule_sets(&self) -> Vec<&Arc<RuleSet>> {
        let mut all: Vec<&Arc<RuleSet>> =
            self.programs.values().flat_map(|program| program.rule_sets()).collect();
        all.sort_unstable_by(|a, b| {
            (&a.source.origin, Arc::as_ptr(a)).cmp(&(&b.source.origin, Arc::as_ptr(b)))
        });
        all.dedup_by(|a, b| Arc::ptr_eq(a, b));
        all
    }

    /// The class of an IPv4 address.
    #[inline]
    pub fn class_v4(&self, address: u32) -> AddressClass<'_> {
        AddressClass { host: self.v4.hosts.get(address), net: self.v4.nets.get(address) }
    }

    /// The class of an IPv6 address.
    #[inline]
    pub fn class_v6(&self, address: u128) -> AddressClass<'_> {
        AddressClass { host: self.v6.hosts.get(address), net: self.v6.nets.get(address) }
    }

    /// The class of an address.
    pub fn class(&self, address: IpAddr) -> AddressClass<'_> {
        match address {
            IpAddr::V4(address) => self.class_v4(address.to_bits()),
            IpAddr::V6(address) => self.class_v6(address.to_bits()),
        }
    }

    /// What a program says of a packet, with names, as [`crate::policy::judge`] would say it.
    pub fn judge(&self, program: &Program, memo: &mut Memo, facts: &Facts) -> Judgement {
        let (source, destination) = (self.class(facts.source), self.class(facts.destination));
        let decision = memo.decision(self, program, source, destination, facts.family(), facts.protocol);
        let mut passed = Vec::new();
        for step in decision.steps(facts.transport) {
            let outcome = match step {
                What::Log(at) | What::Pass(at) => {
                    passed.push(program.rule_id(at));
                    continue;
                }
                What::Allow(_) => Outcome::Allowed,
                What::Deny(_) | What::TierEnd(_) => Outcome::Denied,
                What::End => program.end(),
            };
            return Judgement { outcome, decider: program.decider(step), passed };
        }
        unreachable!("the last step of a decision decides")
    }

    /// As [`crate::policy::judge_untracked`].
    pub fn judge_untracked(&self, programs: &HostPrograms, memo: &mut Memo, facts: &Facts) -> Judgement {
        if self.failsafes.spare_untracked(programs.untracked.direction(), facts) {
            return Judgement::failsafe(Outcome::Undecided);
        }
        self.judge(&programs.untracked, memo, facts)
    }

    /// As [`crate::policy::judge_host`].
    pub fn judge_host(
        &self,
        programs: &HostPrograms,
        memo: &mut Memo,
        facts: &Facts,
        passage: Passage,
    ) -> Judgement {
        let original = facts.before_nat(passage.original);
        let direction = programs.normal.direction();
        let pre_dnat = match self.failsafes.spare(direction, &original) {
            true => Judgement::failsafe(Outcome::Undecided),
            false => self.judge(&programs.pre_dnat, memo, &original),
        };
        if pre_dnat.outcome != Outcome::Undecided {
            return pre_dnat;
        }
        let mut judgement = match (passage.forwarded, passage.workload_interface) {
            (true, _) => self.judge(&programs.forward, memo, facts),
            (false, true) => pre_dnat,
            (false, false) if self.failsafes.spare(direction, facts) => Judgement::failsafe(Outcome::Allowed),
            (false, false) => self.judge(&programs.normal, memo, facts),
        };
        if judgement.outcome == Outcome::Undecided {
            judgement.outcome = Outcome::Allowed;
        }
        judgement
    }
}
