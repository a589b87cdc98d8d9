//! From the datastore's state to changes.

use super::change::Change;
use super::graph::CalicoGraph;
use super::resolution::Resolution;
use super::routes::RouteSource;
use crate::model::calico::WorkloadKey;
use crate::model::calico::decode::Key;
use crate::model::calico::kind::Kind;
use crate::model::calico::resources::{PolicyKey, Profile};
use crate::state::{Calico, State};

/// What the state says of the resource under a key; `None` = it is of no kind that policy or routes come from.
pub fn change_of(calico: &Calico, key: &Key) -> Option<Change> {
    let resource = match key {
        Key::Block(cidr) => return Some(Change::Block(*cidr, calico.blocks().get(cidr).cloned())),
        Key::Resource(resource) => resource,
    };
    let name = resource.name.clone();
    Some(match resource.kind? {
        Kind::WorkloadEndpoint => {
            let key = WorkloadKey::new(&resource.namespace, &name);
            let value = calico.workloads().get(&key).cloned();
            Change::Workload(key, value)
        }
        Kind::NetworkPolicy | Kind::GlobalNetworkPolicy => {
            let key = PolicyKey::of(resource);
            let value = calico.policies().get(&key).cloned();
            Change::Policy(key, value)
        }
        Kind::NetworkSet | Kind::GlobalNetworkSet => {
            let name = resource.full_name();
            let value = calico.network_sets().get(&name).cloned();
            Change::NetworkSet(name, value)
        }
        Kind::HostEndpoint => {
            let value = calico.host_endpoints().get(&name).cloned();
            Change::HostEndpoint(name, value)
        }
        Kind::Profile => {
            let value = calico.profiles().get(&name).cloned();
            Change::Profile(name, value)
        }
        Kind::Tier => {
            let value = calico.tiers().get(&name).copied();
            Change::Tier(name, value)
        }
        Kind::IpPool => {
            let value = calico.pools().get(&name).cloned();
            Change::Pool(name, value)
        }
        Kind::Node => {
            let value = calico.nodes().get(&name).cloned();
            Change::Node(name, value)
        }
        Kind::BgpConfiguration
        | Kind::BgpFilter
        | Kind::BgpPeer
        | Kind::CalicoNodeStatus
        | Kind::ClusterInformation
        | Kind::FelixConfiguration
        | Kind::IpamConfig
        | Kind::IpReservation
        | Kind::KubeControllersConfiguration
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy
        | Kind::StagedNetworkPolicy => return None,
    })
}

/// Brings a graph to a state of which nobody knows how it differs from the last one.
pub fn sync(graph: &mut CalicoGraph, calico: &Calico) {
    graph.forget_all();
    let some =
        calico.workloads().iter().map(|(key, value)| Change::Workload(key.clone(), Some(value.clone())));
    some.for_each(|change| graph.apply(change));
    for (name, value) in calico.host_endpoints() {
        graph.apply(Change::HostEndpoint(name.clone(), Some(value.clone())));
    }
    for (name, value) in calico.network_sets() {
        graph.apply(Change::NetworkSet(name.clone(), Some(value.clone())));
    }
    for (key, value) in calico.policies() {
        graph.apply(Change::Policy(key.clone(), Some(value.clone())));
    }
    for (name, value) in calico.profiles() {
        graph.apply(Change::Profile(name.clone(), Some(value.clone())));
    }
    for (name, value) in calico.tiers() {
        graph.apply(Change::Tier(name.clone(), Some(*value)));
    }
    for (name, value) in calico.pools() {
        graph.apply(Change::Pool(name.clone(), Some(value.clone())));
    }
    for (name, value) in calico.nodes() {
        graph.apply(Change::Node(name.clone(), Some(value.clone())));
    }
    for (cidr, value) in calico.blocks() {
        graph.apply(Change::Block(*cidr, Some(value.clone())));
    }
}

/// What a state means for its node, for who asks only once.
pub fn resolution(state: &State) -> Resolution {
    let mut graph = CalicoGraph::new(state.nodename(), RouteSource::default());
    sync(&mut graph, state.calico());
    graph.flush().clone()
}

/// Whether Calico is in use: somebody wrote a policy, a profile, a tier, or the ClusterInformation that Calico writes when
/// it is set up.
pub fn in_use(calico: &Calico) -> bool {
    let stored_profile = calico.profiles().keys().any(|name| name != Profile::DEFAULT_ALLOW);
    stored_profile || !calico.policies().is_empty() || !calico.tiers().is_empty() || calico.ready().is_some()
}
