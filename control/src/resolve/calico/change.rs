//! What can happen to the datastore's content, in resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::services::ServiceSlice;
use crate::model::calico::resources::{
    Block, HostEndpoint, IpPool, NetworkSet, Node, Policy, PolicyKey, Profile, Tier,
};
use crate::model::calico::{WorkloadEndpoint, WorkloadKey};

/// One resource as it is now; `None` = it is gone, or makes no sense.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A workload endpoint of any node.
    Workload(WorkloadKey, Option<Arc<WorkloadEndpoint>>),
    /// A host endpoint of any node, by name.
    HostEndpoint(String, Option<Arc<HostEndpoint>>),
    /// A network set, `namespace/name` or `name`.
    NetworkSet(String, Option<Arc<NetworkSet>>),
    /// A policy.
    Policy(PolicyKey, Option<Arc<Policy>>),
    /// A profile, by name.
    Profile(String, Option<Arc<Profile>>),
    /// A tier, by name.
    Tier(String, Option<Tier>),
    /// An IP pool, by name.
    Pool(String, Option<IpPool>),
    /// A node, by name.
    Node(String, Option<Arc<Node>>),
    /// An IPAM block.
    Block(IpNetwork, Option<Arc<Block>>),
    /// Some endpoints of a service, under a name that tells them from others.
    ServiceSlice(String, Option<Arc<ServiceSlice>>),
}

/// The last word about each resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latest {
    pub(super) workloads: BTreeMap<WorkloadKey, Option<Arc<WorkloadEndpoint>>>,
    pub(super) host_endpoints: BTreeMap<String, Option<Arc<HostEndpoint>>>,
    pub(super) network_sets: BTreeMap<String, Option<Arc<NetworkSet>>>,
    pub(super) policies: BTreeMap<PolicyKey, Option<Arc<Policy>>>,
    pub(super) profiles: BTreeMap<String, Option<Arc<Profile>>>,
    pub(super) tiers: BTreeMap<String, Option<Tier>>,
    pub(super) pools: BTreeMap<String, Option<IpPool>>,
    pub(super) nodes: BTreeMap<String, Option<Arc<Node>>>,
    pub(super) blocks: BTreeMap<IpNetwork, Option<Arc<Block>>>,
    pub(super) service_slices: BTreeMap<String, Option<Arc<ServiceSlice>>>,
}

impl Latest {
    /// Takes a change in; it replaces what was said about the same resource before.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Workload(key, value) => drop(self.workloads.insert(key, value)),
            Change::HostEndpoint(name, value) => drop(self.host_endpoints.insert(name, value)),
            Change::NetworkSet(name, value) => drop(self.network_sets.insert(name, value)),
            Change::Policy(key, value) => drop(self.policies.insert(key, value)),
            Change::Profile(name, value) => drop(self.profiles.insert(name, value)),
            Change::Tier(name, value) => drop(self.tiers.insert(name, value)),
            Change::Pool(name, value) => drop(self.pools.insert(name, value)),
            Change::Node(name, value) => drop(self.nodes.insert(name, value)),
            Change::Block(cidr, value) => drop(self.blocks.insert(cidr, value)),
            Change::ServiceSlice(name, value) => drop(self.service_slices.insert(name, value)),
        }
    }

    /// Whatever was said, it is gone; except for slices of services.
    pub(super) fn forget_all(&mut self) {
        self.workloads.values_mut().for_each(|value| *value = None);
        self.host_endpoints.values_mut().for_each(|value| *value = None);
        self.network_sets.values_mut().for_each(|value| *value = None);
        self.policies.values_mut().for_each(|value| *value = None);
        self.profiles.values_mut().for_each(|value| *value = None);
        self.tiers.values_mut().for_each(|value| *value = None);
        self.pools.values_mut().for_each(|value| *value = None);
        self.nodes.values_mut().for_each(|value| *value = None);
        self.blocks.values_mut().for_each(|value| *value = None);
    }
}
