//! Numbers for sets, classes for addresses, compiled rules for rules: everything that is one across generations.
//!
//! The control thread alone enters here, while it compiles; workers know the results only. What nobody uses any more is
//! forgotten, and its number is not given again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

use super::class::{Classes, SetNumber};
use super::rule::{HitCounter, RuleSet};
use crate::spec::policy::{self, Origin, PolicyDirection, SetId};

/// A set that something refers to; its number is its own for as long as this lives.
#[derive(Debug)]
pub struct SetHandle {
    /// The number.
    pub number: SetNumber,
    /// Networks of a set that has no name but is a rule's list of them; sorted, every one once.
    pub nets: Option<Arc<[IpNetwork]>>,
}

/// What generations of tables share. Two of them with different registries have nothing in common.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Inner>);

/// The registry, entered.
#[derive(Debug, Default)]
pub struct Inner {
    /// Address classes.
    pub classes: Classes,
    last_set: SetNumber,
    last_program: u64,
    named: HashMap<SetId, Weak<SetHandle>, FixedState>,
    unnamed: HashMap<Arc<[IpNetwork]>, Weak<SetHandle>, FixedState>,
    /// By the address of the spec's rule set, which the compiled one keeps alive: as long as that can be reached, no
    /// other rule set has this address.
    compiled: HashMap<usize, Weak<RuleSet>, FixedState>,
    /// The latest of each origin.
    by_origin: HashMap<Origin, Weak<RuleSet>, FixedState>,
    /// By direction and tier; without a tier: ends of lists.
    ends: HashMap<(PolicyDirection, Option<Arc<str>>), Weak<HitCounter>, FixedState>,
    /// Forget what nobody uses when the maps have more entries than this.
    tidy_at: usize,
}

/// Below this many entries there is nothing worth tidying.
const TIDY_FROM: usize = 4096;

impl Registry {
    /// Enters.
    pub fn enter(&self) -> MutexGuard<'_, Inner> {
        // Nothing in it is ever half done in a way that matters: a panic leaves entries that nobody uses.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The handle of a set with a name, whether there is such a set or not.
    pub fn named(&mut self, id: &SetId) -> Arc<SetHandle> {
        if let Some(known) = self.named.get(id).and_then(Weak::upgrade) {
            return known;
        }
        let handle = self.handle(None);
        self.named.insert(Arc::clone(id), Arc::downgrade(&handle));
        handle
    }

    /// The handle of a list of networks; equal lists are one set.
    pub fn unnamed(&mut self, mut nets: Vec<IpNetwork>) -> Arc<SetHandle> {
        nets.sort_unstable();
        nets.dedup();
        if let Some(known) = self.unnamed.get(&nets[..]).and_then(Weak::upgrade) {
            return known;
        }
        let nets: Arc<[IpNetwork]> = nets.into();
        let handle = self.handle(Some(Arc::clone(&nets)));
        self.unnamed.insert(nets, Arc::downgrade(&handle));
        handle
    }

    fn handle(&mut self, nets: Option<Arc<[IpNetwork]>>) -> Arc<SetHandle> {
        self.last_set += 1;
        Arc::new(SetHandle { number: self.last_set, nets })
    }

    /// A name for a program that no other has.
    pub fn program_serial(&mut self) -> u64 {
        self.last_program += 1;
        self.last_program
    }

    /// The compiled form of a rule set. One that says the same as the last of its origin keeps that one's form, and its
    /// counters; one that says something else keeps the counters of the rules that stayed.
    pub fn compiled(&mut self, source: &Arc<policy::RuleSet>) -> Arc<RuleSet> {
        let address = Arc::as_ptr(source).addr();
        if let Some(known) = self.compiled.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        let before = self.by_origin.get(&source.origin).and_then(Weak::upgrade);
        if let Some(before) = before.as_ref().filter(|before| before.source.rules == source.rules) {
            return Arc::clone(before);
        }
        let compiled = Arc::new(RuleSet::compile(source, before.as_deref(), self));
        self.compiled.insert(address, Arc::downgrade(&compiled));
        self.by_origin.insert(source.origin.clone(), Arc::downgrade(&compiled));
        self.tidy();
        compiled
    }

    /// The counter of what the end of a tier has denied in one direction, or of what the end of a whole list has.
    pub fn end(&mut self, direction: PolicyDirection, tier: Option<&Arc<str>>) -> Arc<HitCounter> {
        let key = (direction, tier.cloned());
        if let Some(known) = self.ends.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let counter = Arc::default();
        self.ends.insert(key, Arc::downgrade(&counter));
        counter
    }

    fn tidy(&mut self) {
        let entries = |inner: &Self| {
            inner.named.len() + inner.unnamed.len() + inner.compiled.len() + inner.by_origin.len()
        };
        if entries(self) <= self.tidy_at.max(TIDY_FROM) {
            return;
        }
        self.named.retain(|_, handle| handle.strong_count() > 0);
        self.unnamed.retain(|_, handle| handle.strong_count() > 0);
        self.compiled.retain(|_, rules| rules.strong_count() > 0);
        self.by_origin.retain(|_, rules| rules.strong_count() > 0);
        self.ends.retain(|_, counter| counter.strong_count() > 0);
        self.tidy_at = 2 * entries(self);
    }
}
