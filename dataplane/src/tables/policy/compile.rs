//! From one generation's policy to the next: only what changed is looked at.

use std::sync::Arc;

use super::class::{Change, Classes};
use super::failsafes::FailsafeTables;
use super::intervals::Number;
use super::members::{Changes, FamilyChanges};
use super::program::Program;
use super::registry::{Inner, SetHandle};
use super::rule::Existence;
use super::shards::Key;
use super::{
    Addresses, EndpointPrograms, HostEndpointPrograms, HostPrograms, LiveSet, Policy, ProgramKey, Unnamed,
};
use crate::policy::Ends;
use crate::spec::NodeSpec;
use crate::spec::policy::{HostPolicy, IpSet, Members, PolicyDirection, PolicyList};

/// Sets that went and whose members keep their classes, the largest: what went may come back with the only endpoint that
/// its policies are about, and to look at every endpoint of a cluster again takes long. Rules ask whether a set exists.
const IDLE: usize = 8;

/// As few unnamed sets are never looked through for unused ones.
const TIDY_UNNAMED_FROM: usize = 64;

impl Policy {
    /// The policy of a spec. Sets, lists and rule sets that are the same values in memory as in `previous` are not
    /// looked into again.
    pub fn compile(spec: &NodeSpec, previous: Option<&Self>) -> Self {
        let mut next = previous.cloned().unwrap_or_default();
        let registry = Arc::clone(&next.registry);
        let mut registry = registry.enter();
        let mut changes = Changes::default();
        let toggled = next.update_sets(&spec.sets, &mut registry, &mut changes);
        next.update_existing(&toggled);
        let fresh = next.update_programs(spec, &toggled, &mut registry);
        next.failsafes = Arc::new(FailsafeTables::compile(&spec.failsafes));
        next.update_unnamed(&fresh, &mut changes);
        next.v4.apply(changes.v4, &mut registry.classes);
        next.v6.apply(changes.v6, &mut registry.classes);
        next
    }

    /// Notes what the sets have become; tells which of them came (`true`) or went.
    fn update_sets(
        &mut self,
        sets: &[Arc<IpSet>],
        registry: &mut Inner,
        changes: &mut Changes,
    ) -> Vec<(Existence, bool)> {
        debug_assert!(sets.is_sorted_by(|a, b| a.id < b.id), "sets are sorted by id, every one once");
        let old = Arc::clone(&self.sets);
        let same = |(old, new): (&LiveSet, &Arc<IpSet>)| Arc::ptr_eq(&old.set, new);
        if old.len() == sets.len() && old.iter().zip(sets).all(same) {
            return Vec::new();
        }
        let mut toggled = Vec::new();
        let mut idle = std::mem::take(&mut self.idle);
        let mut gone = |old: &LiveSet, idle: &mut Vec<LiveSet>| {
            idle.push(old.clone());
            toggled.push((existence(&old.handle, &old.set.members), false));
        };
        let mut came = Vec::new();
        let mut left = old.iter().peekable();
        let mut live = Vec::with_capacity(sets.len());
        for set in sets {
            while let Some(old) = left.next_if(|old| old.set.id < set.id) {
                gone(old, &mut idle);
            }
            let before = left.next_if(|old| Arc::ptr_eq(&old.set, set) || old.set.id == set.id);
            let handle = before.map_or_else(|| registry.named(&set.id), |old| Arc::clone(&old.handle));
            match before {
                Some(old) if Arc::ptr_eq(&old.set, set) => {}
                Some(old) if same_kind(&old.set.members, &set.members) => {
                    changes.of_set(handle.number, Some(&old.set.members), Some(&set.members));
                }
                before => {
                    before.into_iter().for_each(|old| gone(old, &mut idle));
                    let same =
                        |kept: &LiveSet| kept.set.id == set.id && same_kind(&kept.set.members, &set.members);
                    let kept = idle.iter().position(same).map(|at| idle.swap_remove(at));
                    let kept = kept.as_ref().map(|kept| &kept.set.members);
                    changes.of_set(handle.number, kept, Some(&set.members));
                    came.push((existence(&handle, &set.members), true));
                }
            }
            live.push(LiveSet { set: Arc::clone(set), handle });
        }
        left.for_each(|old| gone(old, &mut idle));
        toggled.append(&mut came);
        idle.sort_by_key(|kept| std::cmp::Reverse(kept.set.members.count()));
        for kept in idle.drain(IDLE.min(idle.len())..) {
            changes.of_set(kept.handle.number, Some(&kept.set.members), None);
        }
        self.idle = idle;
        self.sets = live.into();
        toggled
    }

    fn update_existing(&mut self, toggled: &[(Existence, bool)]) {
        if toggled.is_empty() {
            return;
        }
        let mut existing = self.existing.to_vec();
        let gone = |set: &Existence| toggled.contains(&(*set, false));
        if toggled.iter().any(|(_, came)| !came) {
            existing.retain(|set| !gone(set));
        }
        existing.extend(toggled.iter().filter(|(_, came)| *came).map(|(set, _)| *set));
        existing.sort_unstable();
        self.existing = existing.into();
    }

    /// Gives every endpoint its programs; returns those that were not there before.
    fn update_programs(
        &mut self,
        spec: &NodeSpec,
        toggled: &[(Existence, bool)],
        registry: &mut Inner,
    ) -> Vec<Arc<Program>> {
        let toggled: Vec<Existence> = toggled.iter().map(|(set, _)| *set).collect();
        let old = std::mem::take(&mut self.programs);
        let mut fresh = Vec::new();
        let programs = &mut self.programs;
        let mut program = |list: &Arc<PolicyList>, direction, ends| {
            let key: ProgramKey = (Arc::as_ptr(list).addr(), direction, ends);
            if let Some(known) = programs.get(&key) {
                return Arc::clone(known);
            }
            let program = match old.get(&key) {
                Some(old) if old.cares_about(&toggled) => Arc::new(old.renamed(registry)),
                Some(old) => Arc::clone(old),
                None => {
                    let program = Arc::new(Program::compile(list, direction, ends, registry));
                    fresh.push(Arc::clone(&program));
                    program
                }
            };
            programs.insert(key, Arc::clone(&program));
            program
        };
        let endpoints = spec.endpoints.iter().map(|endpoint| EndpointPrograms {
            ingress: program(&endpoint.policy.ingress, PolicyDirection::Ingress, Ends::Profiles),
            egress: program(&endpoint.policy.egress, PolicyDirection::Egress, Ends::Profiles),
        });
        self.endpoints = endpoints.collect();
        let mut host = |policy: &HostPolicy, direction| HostPrograms {
            untracked: program(&policy.untracked, direction, Ends::Nothing),
            pre_dnat: program(&policy.pre_dnat, direction, Ends::Nothing),
            forward: program(&policy.forward, direction, Ends::Tiers),
            normal: program(&policy.normal, direction, Ends::Profiles),
        };
        let host_endpoints = spec.host_endpoints.iter().map(|endpoint| HostEndpointPrograms {
            name: Arc::clone(&endpoint.name),
            ingress: host(&endpoint.ingress, PolicyDirection::Ingress),
            egress: host(&endpoint.egress, PolicyDirection::Egress),
        });
        self.host_endpoints = host_endpoints.collect();
        fresh
    }

    /// Enters the networks of new rules, and takes out those that no rule has any more, now and then: in between they
    /// make classes finer than need be, and nothing else.
    fn update_unnamed(&mut self, fresh: &[Arc<Program>], changes: &mut Changes) {
        let rule_sets = fresh.iter().flat_map(|program| program.rule_sets());
        for handle in rule_sets.flat_map(|rules| rules.unnamed()) {
            let Some(nets) = &handle.nets else { continue };
            if self.unnamed.get(handle.number).is_none() {
                changes.of_nets(handle.number, &[], nets);
                let entry = Unnamed { handle: Arc::downgrade(handle), nets: Arc::clone(nets) };
                self.unnamed.set(handle.number, Some(entry));
            }
        }
        if self.unnamed.len() <= self.tidy_unnamed_at.max(TIDY_UNNAMED_FROM) {
            return;
        }
        let unused: Vec<_> = self
            .unnamed
            .iter()
            .filter(|(_, set)| set.handle.strong_count() == 0)
            .map(|(number, set)| (number, Arc::clone(&set.nets)))
            .collect();
        for (number, nets) in unused {
            changes.of_nets(number, &nets, &[]);
            self.unnamed.set(number, None);
        }
        self.tidy_unnamed_at = 2 * self.unnamed.len();
    }
}

fn existence(handle: &SetHandle, members: &Members) -> Existence {
    match members {
        Members::Nets(_) => Existence::of_nets(handle.number),
        Members::Ports(_) => Existence::of_ports(handle.number),
    }
}

fn same_kind(a: &Members, b: &Members) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

impl<K: Key + Number> Addresses<K> {
    fn apply(&mut self, mut changes: FamilyChanges<K>, classes: &mut Classes) {
        changes.hosts.sort_unstable_by_key(|(address, _)| *address);
        for group in changes.hosts.chunk_by(|(a, _), (b, _)| a == b) {
            let of_address: Vec<Change> = group.iter().map(|(_, change)| *change).collect();
            let class = classes.after(self.hosts.get(group[0].0), &of_address);
            self.hosts.set(group[0].0, class);
        }
        changes.ranges.sort_unstable_by_key(|change| change.first);
        self.nets.apply(&changes.ranges, classes);
    }
}
