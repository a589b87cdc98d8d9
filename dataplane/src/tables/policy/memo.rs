//! Decisions that a worker has worked out before. Its own: no other thread knows of it.
//!
//! Its keys are classes and programs, which the datastore makes: however many addresses and ports a sender tries, it
//! cannot make this grow. It is emptied when it is full, since classes and programs come and go as well.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};

use super::Policy;
use super::class::Class;
use super::decision::Decision;
use super::evaluate::{AddressClass, Situation, evaluate};
use super::program::Program;
use super::registry::Registry;
use crate::spec::policy::Family;

/// Keys that are remembered: some 6 MB.
const KEYS: usize = 1 << 16;
/// Lines (see [`Decision::weight`]) that are remembered: some 20 MB.
const LINES: usize = 1 << 20;

/// A worker's memory of decisions.
#[derive(Debug, Default)]
pub struct Memo {
    known: HashMap<[u64; 6], u32, FixedState>,
    decisions: Vec<Decision>,
    /// Their numbers, by what they are.
    numbers: HashTable<u32>,
    weight: usize,
    /// Whose serials these are.
    registry: Option<Arc<Registry>>,
    /// How often a decision had to be worked out.
    pub misses: u64,
}

impl Memo {
    /// What `program` says of packets of a protocol between two addresses' classes.
    #[inline]
    pub fn decision(
        &mut self,
        policy: &Policy,
        program: &Program,
        source: AddressClass<'_>,
        destination: AddressClass<'_>,
        family: Family,
        protocol: u8,
    ) -> &Decision {
        let protocol = program.mentions(protocol).then_some(protocol);
        let serial = |class: Option<&Arc<Class>>| class.map_or(0, |class| class.serial);
        // Never the code of a protocol: 256.
        let kind = u64::from(protocol.map_or(256, u16::from)) << 1 | u64::from(family == Family::V6);
        let key = [
            program.serial,
            serial(source.host),
            serial(source.net),
            serial(destination.host),
            serial(destination.net),
            kind,
        ];
        let same = self.registry.as_ref().is_some_and(|registry| Arc::ptr_eq(registry, &policy.registry));
        let number = match self.known.get(&key) {
            Some(number) if same => *number,
            _ => {
                let existing = &policy.existing;
                let situation = Situation { source, destination, family, protocol, existing };
                self.learn(policy, program, &situation, key)
            }
        };
        &self.decisions[number as usize]
    }

    #[cold]
    #[inline(never)]
    fn learn(&mut self, policy: &Policy, program: &Program, situation: &Situation<'_>, key: [u64; 6]) -> u32 {
        self.misses += 1;
        let decision = evaluate(program, situation);
        let same = self.registry.as_ref().is_some_and(|registry| Arc::ptr_eq(registry, &policy.registry));
        if !same || self.known.len() >= KEYS || self.weight >= LINES {
            self.forget();
            self.registry = Some(Arc::clone(&policy.registry));
        }
        let number = self.number(decision);
        self.known.insert(key, number);
        number
    }

    /// The number of a decision; equal ones have one.
    fn number(&mut self, decision: Decision) -> u32 {
        let hash = |decision: &Decision| FixedState::default().hash_one(decision);
        let decisions = &mut self.decisions;
        let known = self.numbers.find(hash(&decision), |number| decisions[*number as usize] == decision);
        if let Some(number) = known {
            return *number;
        }
        let number = decisions.len() as u32;
        self.weight += decision.weight();
        decisions.push(decision);
        let decisions = &self.decisions;
        let own = hash(&decisions[number as usize]);
        self.numbers.insert_unique(own, number, |number| hash(&decisions[*number as usize]));
        number
    }

    /// Empties it.
    pub fn forget(&mut self) {
        self.known.clear();
        self.decisions.clear();
        self.numbers.clear();
        self.weight = 0;
    }

    /// Keys that are remembered, and different decisions.
    pub fn len(&self) -> (usize, usize) {
        (self.known.len(), self.decisions.len())
    }
}
