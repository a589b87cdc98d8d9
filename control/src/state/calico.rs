//! Calico's resources, by kind.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use ipnetwork::IpNetwork;

use super::copy;
use super::parts::Parts;
use crate::model::calico::decode::{Decoded, Key};
use crate::model::calico::keys::ResourceKey;
use crate::model::calico::kind::Kind;
use crate::model::calico::resources::{
    Block, HostEndpoint, IpPool, NetworkSet, Node, Policy, PolicyKey, Profile, Tier,
};
use crate::model::calico::v1::config::{Scope, Settings};
use crate::model::calico::v1::pool;
use crate::model::calico::{WorkloadEndpoint, WorkloadKey, check};

/// What Calico's part of the datastore holds, decoded. What cannot be decoded is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Calico {
    workloads: BTreeMap<WorkloadKey, Arc<WorkloadEndpoint>>,
    host_endpoints: BTreeMap<String, Arc<HostEndpoint>>,
    network_sets: BTreeMap<String, Arc<NetworkSet>>,
    policies: BTreeMap<PolicyKey, Arc<Policy>>,
    profiles: BTreeMap<String, Arc<Profile>>,
    tiers: BTreeMap<String, Tier>,
    pools: BTreeMap<String, IpPool>,
    nodes: BTreeMap<String, Arc<Node>>,
    blocks: BTreeMap<IpNetwork, Arc<Block>>,
    settings: BTreeMap<Scope, Arc<Settings>>,
    ready: Option<bool>,
    service_nets: Vec<IpNetwork>,
    parts: Parts,
}

/// What a key has that is not there.
static NOTHING: LazyLock<Calico> = LazyLock::new(Calico::default);

impl Default for Calico {
    fn default() -> Self {
        Self {
            workloads: BTreeMap::new(),
            host_endpoints: BTreeMap::new(),
            network_sets: BTreeMap::new(),
            policies: BTreeMap::new(),
            profiles: BTreeMap::from(
                [check::default_allow()].map(|(name, profile)| (name, Arc::new(profile))),
            ),
            tiers: BTreeMap::new(),
            pools: BTreeMap::new(),
            nodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
            settings: BTreeMap::new(),
            ready: None,
            service_nets: Vec::new(),
            parts: Parts::default(),
        }
    }
}

impl Calico {
    /// Takes a resource in, in place of what was there under its key.
    pub(super) fn learn(&mut self, decoded: Decoded) {
        match decoded {
            Decoded::Policy(key, mut policy) => {
                self.parts.share_policy(&mut policy);
                self.policies.insert(key, Arc::new(policy));
            }
            Decoded::Profile(name, mut profile) => {
                self.parts.share_profile(&mut profile);
                self.profiles.insert(name, Arc::new(profile));
            }
            Decoded::Tier(name, tier) => drop(self.tiers.insert(name, tier)),
            Decoded::Workload(key, mut endpoint) => {
                self.parts.share_workload(&mut endpoint);
                self.workloads.insert(key, Arc::new(endpoint));
            }
            Decoded::HostEndpoint(name, mut endpoint) => {
                self.parts.share_host(&mut endpoint);
                self.host_endpoints.insert(name, Arc::new(endpoint));
            }
            Decoded::NetworkSet(name, mut set) => {
                self.parts.share_set(&mut set);
                self.network_sets.insert(name, Arc::new(set));
            }
            Decoded::Pool(name, pool) => drop(self.pools.insert(name, pool)),
            Decoded::Node(name, node) => drop(self.nodes.insert(name, Arc::new(node))),
            Decoded::Felix(scope, settings) => drop(self.settings.insert(scope, Arc::new(settings))),
            // One for a single node has no Ready flag, with Felix either.
            Decoded::Cluster(Scope::Global, ready) => self.ready = ready,
            Decoded::Block(cidr, block) => drop(self.blocks.insert(cidr, Arc::new(block))),
            Decoded::ServiceNets(nets) => self.service_nets = nets,
            Decoded::NoWorkload(_) | Decoded::Cluster(Scope::Node(_), _) | Decoded::Unused(_) => {}
        }
    }

    /// Forgets what was there under a key.
    pub(super) fn forget(&mut self, key: &Key) {
        self.restore(&NOTHING, key);
        self.parts.lose();
    }

    /// What `former` has under a key, in the place of what is here.
    pub(super) fn restore(&mut self, former: &Self, key: &Key) {
        match key {
            Key::Block(cidr) => copy(&mut self.blocks, &former.blocks, cidr),
            Key::Resource(key) => self.restore_resource(former, key),
        }
    }

    fn restore_resource(&mut self, former: &Self, key: &ResourceKey) {
        let ResourceKey { kind: Some(kind), namespace, name } = key else { return };
        match kind {
            Kind::NetworkPolicy | Kind::GlobalNetworkPolicy => {
                copy(&mut self.policies, &former.policies, &PolicyKey::of(key));
            }
            // Known to every client, whether it is stored or not.
            Kind::Profile if name == Profile::DEFAULT_ALLOW => {}
            Kind::Profile => copy(&mut self.profiles, &former.profiles, name),
            Kind::Tier => copy(&mut self.tiers, &former.tiers, name),
            Kind::WorkloadEndpoint => {
                let key = WorkloadKey::new(namespace, name);
                copy(&mut self.workloads, &former.workloads, &key);
            }
            Kind::HostEndpoint => copy(&mut self.host_endpoints, &former.host_endpoints, name),
            Kind::NetworkSet | Kind::GlobalNetworkSet => {
                copy(&mut self.network_sets, &former.network_sets, &key.full_name());
            }
            Kind::IpPool => copy(&mut self.pools, &former.pools, name),
            Kind::Node => copy(&mut self.nodes, &former.nodes, name),
            Kind::FelixConfiguration => {
                if let Ok(scope) = Scope::parse(name) {
                    copy(&mut self.settings, &former.settings, &scope);
                }
            }
            Kind::ClusterInformation if name == "default" => self.ready = former.ready,
            Kind::BgpConfiguration if name == "default" => self.service_nets.clone_from(&former.service_nets),
            Kind::ClusterInformation
            | Kind::BgpConfiguration
            | Kind::BgpFilter
            | Kind::BgpPeer
            | Kind::CalicoNodeStatus
            | Kind::IpamConfig
            | Kind::IpReservation
            | Kind::KubeControllersConfiguration
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::StagedNetworkPolicy => {}
        }
    }

    /// Workload endpoints of all nodes.
    pub const fn workloads(&self) -> &BTreeMap<WorkloadKey, Arc<WorkloadEndpoint>> {
        &self.workloads
    }

    /// Host endpoints of all nodes, by name.
    pub const fn host_endpoints(&self) -> &BTreeMap<String, Arc<HostEndpoint>> {
        &self.host_endpoints
    }

    /// Network sets, by `namespace/name` or `name`.
    pub const fn network_sets(&self) -> &BTreeMap<String, Arc<NetworkSet>> {
        &self.network_sets
    }

    /// Policies that are enforced.
    pub const fn policies(&self) -> &BTreeMap<PolicyKey, Arc<Policy>> {
        &self.policies
    }

    /// Profiles by name; the one that only clients know is always there.
    pub const fn profiles(&self) -> &BTreeMap<String, Arc<Profile>> {
        &self.profiles
    }

    /// Tiers by name; none at all with versions before 3.29.
    pub const fn tiers(&self) -> &BTreeMap<String, Tier> {
        &self.tiers
    }

    /// IP pools by name, conflicting ones included.
    pub const fn pools(&self) -> &BTreeMap<String, IpPool> {
        &self.pools
    }

    /// The pools that count, by their networks: of several with one network the one whose name comes first.
    pub fn effective_pools(&self) -> BTreeMap<IpNetwork, (&str, &IpPool)> {
        pool::effective(&self.pools, |pool| pool.cidr)
    }

    /// Nodes by name.
    pub const fn nodes(&self) -> &BTreeMap<String, Arc<Node>> {
        &self.nodes
    }

    /// IPAM blocks.
    pub const fn blocks(&self) -> &BTreeMap<IpNetwork, Arc<Block>> {
        &self.blocks
    }

    /// Felix's settings, for all nodes and for single ones.
    pub const fn settings(&self) -> &BTreeMap<Scope, Arc<Settings>> {
        &self.settings
    }

    /// A setting as this node has it: its own goes before that of all nodes.
    pub fn setting(&self, node: &str, name: &str) -> Option<&str> {
        let of = |scope: &Scope| self.settings.get(scope)?.get(name);
        of(&Scope::Node(node.to_owned())).or_else(|| of(&Scope::Global))
    }

    /// Whether the datastore may be used; `None` = nobody says.
    pub const fn ready(&self) -> Option<bool> {
        self.ready
    }

    /// Networks of services that are announced.
    pub fn service_nets(&self) -> &[IpNetwork] {
        &self.service_nets
    }
}
