//! Policies: which of them local endpoints match, in which order they are asked, and their compiled rules.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use canal_dataplane::spec::policy::{Origin, OriginKind, PolicyDirection, RuleSet, TierEnd};

use super::ip_sets::IpSets;
use super::label_index::{LabelIndex, ObjectId, SelectorId};
use super::precedence::Precedence;
use super::rule_sets::{Held, Released};
use super::rules::{self, Compiled};
use super::slots::Slots;
use super::tiers::Tiers;
use crate::model::calico::resources::{Labels, Policy, PolicyKey, Tier};

type PolicyId = u32;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Policies {
    /// Local endpoints only: a policy that matches none of them is nothing to this node.
    index: LabelIndex,
    policies: Slots<State>,
    by_key: HashMap<PolicyKey, PolicyId>,
    by_selector: HashMap<SelectorId, BTreeSet<PolicyId>>,
    precedence: Precedence,
    tiers: Tiers,
    dirty: BTreeSet<PolicyId>,
    /// Endpoints whose lists may have changed.
    endpoints: BTreeSet<ObjectId>,
    /// Policies that were removed, and what they held.
    removed: Vec<(PolicyKey, Released)>,
}

#[derive(Debug)]
struct State {
    key: PolicyKey,
    value: Arc<Policy>,
    selector: SelectorId,
    active: bool,
    ingress: Option<Held>,
    egress: Option<Held>,
}

/// A policy that is asked.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// Its tier.
    pub tier: &'a Arc<str>,
    /// What happens at the tier's end.
    pub end: TierEnd,
    /// The policy itself.
    pub policy: &'a Policy,
    /// Compiled; `None` = it does not apply to this direction.
    pub ingress: Option<&'a Arc<RuleSet>>,
    /// See `ingress`.
    pub egress: Option<&'a Arc<RuleSet>>,
}

/// How a policy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No local endpoint matches it, or it is gone.
    Inactive,
    /// It is asked.
    Active {
        /// One of its rules has an HTTP match, which is passed over.
        http: bool,
    },
    /// Its tier does not exist: it is never asked.
    NoTier,
}

impl Policies {
    /// Replaces a policy.
    pub fn set(&mut self, key: &PolicyKey, value: Option<Arc<Policy>>) {
        let Some(value) = value else { return self.remove(key) };
        if self.by_key.get(key).is_some_and(|id| self.policies[*id].value == value) {
            return;
        }
        let selector = self.index.acquire(&value.selector);
        let id = match self.by_key.get(key).copied() {
            Some(id) => {
                self.touch_endpoints(self.policies[id].selector);
                self.precedence.remove(id);
                self.unselect(id);
                let state = &mut self.policies[id];
                (state.value, state.selector) = (value, selector);
                id
            }
            None => {
                let key = key.clone();
                let state =
                    State { key: key.clone(), value, selector, active: false, ingress: None, egress: None };
                let id = self.policies.insert(state);
                self.by_key.insert(key, id);
                id
            }
        };
        let (policies, tiers) = (&self.policies, &self.tiers);
        self.precedence.insert(id, |a, b| compare(policies, tiers, a, b));
        self.by_selector.entry(selector).or_default().insert(id);
        self.touch_endpoints(selector);
        self.dirty.insert(id);
    }

    /// Policies that are stored.
    pub fn keys(&self) -> impl Iterator<Item = &PolicyKey> {
        self.by_key.keys()
    }

    /// Tiers, the built-in one included.
    pub fn tiers(&self) -> impl Iterator<Item = &str> {
        self.tiers.names()
    }

    fn remove(&mut self, key: &PolicyKey) {
        let Some(id) = self.by_key.remove(key) else { return };
        self.touch_endpoints(self.policies[id].selector);
        self.precedence.remove(id);
        self.unselect(id);
        self.dirty.remove(&id);
        if let Some(mut state) = self.policies.remove(id) {
            let mut released = Released::new();
            state.release(&mut released);
            self.removed.push((state.key, released));
        }
    }

    /// Replaces a tier.
    pub fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        self.tiers.set(name, tier);
        let (policies, tiers) = (&self.policies, &self.tiers);
        self.precedence.sort(|a, b| compare(policies, tiers, a, b));
        for (id, state) in self.policies.iter().filter(|(_, state)| *state.value.tier == *name) {
            self.dirty.insert(id);
            self.endpoints.extend(self.index.objects(state.selector));
        }
        // Where it stands among the others may have changed for any endpoint, but only if it has policies.
    }

    /// A local endpoint and its labels.
    pub fn set_endpoint(&mut self, id: ObjectId, labels: &Arc<Labels>, profiles: &[Arc<str>]) {
        let mut matches = Vec::new();
        self.index.set_object(id, labels, profiles, &mut matches);
        self.endpoints.insert(id);
        matches.iter().for_each(|found| self.touch_policies(found.selector));
    }

    /// It is gone.
    pub fn remove_endpoint(&mut self, id: ObjectId) {
        let mut matches = Vec::new();
        self.index.remove_object(id, &mut matches);
        self.endpoints.remove(&id);
        matches.iter().for_each(|parted| self.touch_policies(parted.selector));
    }

    /// Labels that a profile gives; `None` = there is no such profile.
    pub fn set_profile(&mut self, name: &str, labels: Option<&Arc<Labels>>) {
        let mut matches = Vec::new();
        self.index.set_parent(name, labels, &mut matches);
        for found in matches {
            self.endpoints.insert(found.object);
            self.touch_policies(found.selector);
        }
    }

    /// Compiles what has changed and says how it stands; endpoints whose lists have to be made anew are added to
    /// `endpoints`.
    pub fn flush(
        &mut self,
        sets: &mut IpSets,
        released: &mut Released,
        endpoints: &mut BTreeSet<ObjectId>,
        mut report: impl FnMut(&PolicyKey, &str, Standing),
    ) {
        for (key, freed) in self.removed.drain(..) {
            released.extend(freed);
            report(&key, "", Standing::Inactive);
        }
        for id in std::mem::take(&mut self.dirty) {
            let state = &mut self.policies[id];
            let known = self.tiers.get(&state.value.tier).is_some();
            state.active = known && self.index.matches_any(state.selector);
            let standing = if state.active {
                let http = state.renew(sets, released);
                Standing::Active { http }
            } else {
                state.release(released);
                if known { Standing::Inactive } else { Standing::NoTier }
            };
            report(&state.key, &state.value.tier, standing);
        }
        endpoints.append(&mut self.endpoints);
    }

    /// Selectors of policies that match a local endpoint: endpoints that agree in them have the same policies.
    pub fn selections(&self, endpoint: ObjectId) -> &[SelectorId] {
        self.index.selections(endpoint)
    }

    /// Active policies that have one of these selectors, in the order they are asked.
    pub fn applied<'a>(&'a self, selections: &[SelectorId]) -> impl Iterator<Item = Applied<'a>> {
        let ids = selections.iter().filter_map(|selector| self.by_selector.get(selector)).flatten();
        let mut ranks: Vec<u32> = ids.filter_map(|id| self.precedence.rank(*id)).collect();
        ranks.sort_unstable();
        ranks.into_iter().filter_map(|rank| {
            let state = &self.policies[self.precedence.at(rank)];
            let (tier, end) = self.tiers.get(&state.value.tier)?;
            Some(Applied {
                tier,
                end,
                policy: &state.value,
                ingress: state.ingress.as_ref().map(|held| &held.rules),
                egress: state.egress.as_ref().map(|held| &held.rules),
            })
        })
    }

    /// Takes a policy's selector away from it.
    fn unselect(&mut self, id: PolicyId) {
        let selector = self.policies[id].selector;
        if let Some(ids) = self.by_selector.get_mut(&selector) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_selector.remove(&selector);
            }
        }
        self.index.release(selector);
    }

    fn touch_endpoints(&mut self, selector: SelectorId) {
        self.endpoints.extend(self.index.objects(selector));
    }

    /// An endpoint more or less may be the first or was the last one that policies with this selector match.
    fn touch_policies(&mut self, selector: SelectorId) {
        let some = self.index.matches_any(selector);
        for id in self.by_selector.get(&selector).into_iter().flatten() {
            if self.policies[*id].active != some {
                self.dirty.insert(*id);
            }
        }
    }
}

impl State {
    /// Whether one of the rules has an HTTP match.
    fn renew(&mut self, sets: &mut IpSets, released: &mut Released) -> bool {
        let [ingress, egress] = halves(&self.key, &self.value);
        let http = [&ingress, &egress].into_iter().flatten().any(|compiled| compiled.http);
        Held::renew(&mut self.ingress, ingress, sets, released);
        Held::renew(&mut self.egress, egress, sets, released);
        http
    }

    fn release(&mut self, released: &mut Released) {
        for held in [self.ingress.take(), self.egress.take()].into_iter().flatten() {
            held.release(released);
        }
    }
}

fn compare(policies: &Slots<State>, tiers: &Tiers, a: PolicyId, b: PolicyId) -> std::cmp::Ordering {
    let (a, b) = (&policies[a], &policies[b]);
    tiers.compare((&a.key, &a.value), (&b.key, &b.value))
}

/// A policy's rules, ingress first; `None` = it has no such direction.
pub fn halves(key: &PolicyKey, policy: &Policy) -> [Option<Compiled>; 2] {
    let name = Arc::clone(&key.tie_break);
    let kind =
        if key.namespace.is_empty() { OriginKind::GlobalNetworkPolicy } else { OriginKind::NetworkPolicy };
    let half = |direction, listed: &Option<Vec<_>>| {
        let origin = Origin { kind, name: Arc::clone(&name), direction };
        listed.as_ref().map(|listed| rules::compile(origin, listed))
    };
    [half(PolicyDirection::Ingress, &policy.ingress), half(PolicyDirection::Egress, &policy.egress)]
}
