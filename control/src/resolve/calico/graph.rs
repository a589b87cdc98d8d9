//! From changes to the outcome: everything that depends on a change, and nothing else, is worked out anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use canal_dataplane::spec::policy::EndpointPolicy;
use ipnetwork::IpNetwork;

use super::change::{Change, Latest};
use super::complaints;
use super::endpoint_lists::{self, HostLists};
use super::ip_sets::IpSets;
use super::label_index::{ObjectId, SelectorId};
use super::lists::Lists;
use super::members::Object;
use super::policies::{Applied, Policies, Standing};
use super::profiles::{Presence, Profiles};
use super::resolution::{Resolution, ResolvedHost};
use super::routes::{RouteSource, Routes};
use super::rule_sets::{self, Released};
use super::slots::Slots;
use super::vteps;
use crate::model::calico::WorkloadKey;
use crate::model::calico::resources::{Block, IpPool, Node, Profile};

/// Calico's resources as one node has to understand them.
///
/// Changes are taken in with [`Self::apply`] and worked off by [`Self::flush`]; only the last one about each resource
/// counts, so that it does not matter in how many steps a state is reached.
#[derive(Debug)]
pub struct CalicoGraph {
    nodename: Arc<str>,
    pending: Latest,
    ids: HashMap<ObjectKey, ObjectId>,
    numbers: Slots<()>,
    /// Endpoints of this node.
    locals: BTreeMap<ObjectId, ObjectKey>,
    sets: IpSets,
    policies: Policies,
    profiles: Profiles,
    lists: Lists,
    routes: Routes,
    pools: HashMap<String, IpPool>,
    nodes: HashMap<String, Arc<Node>>,
    blocks: HashMap<IpNetwork, Arc<Block>>,
    resolution: Resolution,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ObjectKey {
    Workload(WorkloadKey),
    Host(String),
    NetworkSet(String),
}

impl CalicoGraph {
    /// An empty datastore, as seen by the node of this name.
    pub fn new(nodename: &str, source: RouteSource) -> Self {
        Self {
            nodename: nodename.into(),
            pending: Latest::default(),
            ids: HashMap::new(),
            numbers: Slots::default(),
            locals: BTreeMap::new(),
            sets: IpSets::default(),
            policies: Policies::default(),
            profiles: Profiles::default(),
            lists: Lists::default(),
            routes: Routes::new(nodename, source),
            pools: HashMap::new(),
            nodes: HashMap::new(),
            blocks: HashMap::new(),
            resolution: Resolution::default(),
        }
    }

    /// Takes a change in. Nothing happens before the next [`Self::flush`].
    pub fn apply(&mut self, change: Change) {
        self.pending.apply(change);
    }

    /// Everything is gone, as far as nothing else is said of it before the next [`Self::flush`]. Only slices of services
    /// stay: they do not come from where the rest does.
    pub fn forget_all(&mut self) {
        self.pending.forget_all();
        let pending = &mut self.pending;
        for key in self.ids.keys().cloned() {
            match key {
                ObjectKey::Workload(key) => drop(pending.workloads.insert(key, None)),
                ObjectKey::Host(name) => drop(pending.host_endpoints.insert(name, None)),
                ObjectKey::NetworkSet(name) => drop(pending.network_sets.insert(name, None)),
            }
        }
        pending.tiers.extend(self.policies.tiers().map(|name| (name.to_owned(), None)));
        pending.profiles.extend(self.profiles.names().map(|name| (name.clone(), None)));
        pending.policies.extend(self.policies.keys().map(|key| (key.clone(), None)));
        pending.pools.extend(self.pools.keys().map(|name| (name.clone(), None)));
        pending.nodes.extend(self.nodes.keys().map(|name| (name.clone(), None)));
        pending.blocks.extend(self.blocks.keys().map(|cidr| (*cidr, None)));
    }

    /// Works off what has been taken in. What it does not concern keeps its `Arc`s.
    pub fn flush(&mut self) -> &Resolution {
        let pending = std::mem::take(&mut self.pending);
        if pending != Latest::default() {
            self.work_off(pending);
            self.settle();
        }
        &self.resolution
    }

    /// The outcome as of the last [`Self::flush`].
    pub const fn resolution(&self) -> &Resolution {
        &self.resolution
    }

    fn work_off(&mut self, pending: Latest) {
        for (name, tier) in pending.tiers {
            self.policies.set_tier(&name, tier);
        }
        for (name, profile) in pending.profiles {
            self.set_profile(&name, profile);
        }
        for (key, workload) in pending.workloads {
            self.set_object(ObjectKey::Workload(key), workload.map(Object::Workload));
        }
        for (name, endpoint) in pending.host_endpoints {
            self.set_object(ObjectKey::Host(name), endpoint.map(Object::Host));
        }
        for (name, set) in pending.network_sets {
            self.set_object(ObjectKey::NetworkSet(name), set.map(Object::NetworkSet));
        }
        for (key, policy) in pending.policies {
            self.policies.set(&key, policy);
        }
        for (name, pool) in pending.pools {
            let before = replace(&mut self.pools, name.clone(), pool.clone());
            self.routes.set_pool(&name, before.as_ref(), pool.as_ref());
        }
        for (name, node) in pending.nodes {
            let before = replace(&mut self.nodes, name.clone(), node.clone());
            self.routes.set_node(&name, before.as_deref(), node.as_deref());
            vteps::set_node(&mut self.resolution.vteps, &name, node.as_deref());
        }
        for (cidr, block) in pending.blocks {
            let before = replace(&mut self.blocks, cidr, block.clone());
            self.routes.set_block(before.as_deref(), block.as_deref());
        }
        for (slice, value) in pending.service_slices {
            self.sets.set_service_slice(&slice, value);
        }
    }

    fn set_profile(&mut self, name: &str, profile: Option<Arc<Profile>>) {
        if self.profiles.get(name) == profile.as_ref() {
            return;
        }
        let labels = profile.as_ref().map(|profile| &profile.labels);
        self.sets.set_profile(name, labels);
        self.policies.set_profile(name, labels);
        self.profiles.set(name, profile);
    }

    fn set_object(&mut self, key: ObjectKey, object: Option<Object>) {
        let known = self.ids.get(&key).copied();
        let before = known.and_then(|id| self.sets.object(id)).cloned();
        if before == object {
            return;
        }
        let id = known.unwrap_or_else(|| self.numbers.insert(()));
        self.set_local(id, &key, before.as_ref(), object.as_ref());
        self.routes.set_workload(before.as_ref().and_then(on_node), object.as_ref().and_then(on_node));
        match object {
            Some(object) => {
                self.sets.set_object(id, object);
                self.ids.insert(key, id);
            }
            None => {
                self.sets.remove_object(id);
                self.ids.remove(&key);
                self.numbers.remove(id);
            }
        }
    }

    /// Whether it is one of this node's endpoints, before and now.
    fn set_local(&mut self, id: ObjectId, key: &ObjectKey, before: Option<&Object>, now: Option<&Object>) {
        let is_local = |object: &&Object| object.node() == Some(&*self.nodename);
        let [before, now] = [before.filter(is_local), now.filter(is_local)];
        let profiles =
            |object: Option<&Object>| object.map_or(Vec::new(), |object| object.profiles().to_vec());
        self.profiles.set_endpoint(id, &profiles(before), &profiles(now));
        if let Some(now) = now {
            self.policies.set_endpoint(id, now.labels(), now.profiles());
            self.locals.insert(id, key.clone());
        } else if before.is_some() {
            self.policies.remove_endpoint(id);
            self.locals.remove(&id);
            match key {
                ObjectKey::Workload(key) => drop(self.resolution.workloads.remove(key)),
                ObjectKey::Host(name) => drop(self.resolution.host_endpoints.remove(name)),
                ObjectKey::NetworkSet(_) => unreachable!("a network set is on no node"),
            }
        }
    }

    fn settle(&mut self) {
        let (mut released, mut endpoints) = (Released::new(), BTreeSet::new());
        let Resolution { active_policies, active_profiles, complaints, .. } = &mut self.resolution;
        self.policies.flush(&mut self.sets, &mut released, &mut endpoints, |key, tier, standing| {
            complaints::of_policy(complaints, key, tier, standing);
            match standing {
                Standing::Active { .. } => active_policies.insert(key.clone()),
                Standing::Inactive | Standing::NoTier => active_policies.remove(key),
            };
        });
        self.profiles.flush(&mut self.sets, &mut released, &mut endpoints, |name, presence| {
            complaints::of_profile(complaints, name, presence);
            match presence {
                Presence::Active | Presence::Missing => active_profiles.insert(name.to_owned()),
                Presence::Unused => active_profiles.remove(name),
            };
        });
        rule_sets::release(released, &mut self.sets);
        self.list(&endpoints);
        self.sets.flush(&mut self.resolution.sets);
        self.routes.flush(&mut self.resolution.routes);
        complaints::of_services(&mut self.resolution.complaints, self.sets.unknown_services());
    }

    /// Makes the lists of these endpoints anew, once for all that match the same.
    fn list(&mut self, endpoints: &BTreeSet<ObjectId>) {
        let Self { policies, profiles, sets, lists, locals, resolution, .. } = self;
        let mut workloads: HashMap<Sharing<'_>, EndpointPolicy> = HashMap::new();
        let mut hosts: HashMap<Sharing<'_>, HostLists> = HashMap::new();
        for id in endpoints {
            let Some((key, object)) = locals.get(id).zip(sets.object(*id)) else { continue };
            let sharing = (policies.selections(*id), object.profiles());
            let applied = || -> Vec<Applied<'_>> { policies.applied(sharing.0).collect() };
            let rules = |direction| {
                sharing.1.iter().filter_map(|name| profiles.rules(name, direction)).cloned().collect()
            };
            match (key, object) {
                (ObjectKey::Workload(key), _) => {
                    let policy = workloads
                        .entry(sharing)
                        .or_insert_with(|| endpoint_lists::workload(&applied(), &rules, lists));
                    if resolution.workloads.get(key) != Some(policy) {
                        resolution.workloads.insert(key.clone(), policy.clone());
                    }
                }
                (ObjectKey::Host(name), Object::Host(endpoint)) => {
                    let lists = hosts
                        .entry(sharing)
                        .or_insert_with(|| endpoint_lists::host(&applied(), &rules, lists));
                    let resolved = ResolvedHost { endpoint: Arc::clone(endpoint), lists: lists.clone() };
                    resolution.host_endpoints.insert(name.clone(), resolved);
                }
                _ => unreachable!("locals are endpoints"),
            }
        }
        lists.sweep();
    }
}

/// What endpoints with equal lists have in common.
type Sharing<'a> = (&'a [SelectorId], &'a [Arc<str>]);

/// A workload's node and addresses.
fn on_node(object: &Object) -> Option<(&str, &[IpNetwork])> {
    match object {
        Object::Workload(endpoint) => Some((&endpoint.node, &endpoint.networks)),
        Object::Host(_) | Object::NetworkSet(_) => None,
    }
}

fn replace<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}
