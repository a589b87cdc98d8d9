//! What one resolution leaves to the next: this node's workloads, while nothing that they depend on has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::spec::policy::EndpointPolicy;
use canal_dataplane::spec::{Endpoint, Shared};

use super::{NodeFacts, endpoints};
use crate::host::{External, HostView};
use crate::model::calico::{WorkloadEndpoint, WorkloadKey};
use crate::state::{Complaint, State};

/// Workloads with interfaces, addresses and policy.
#[derive(Debug)]
pub(super) struct Attached {
    from: Origin,
    /// Sorted by name.
    pub(super) endpoints: Shared<Vec<Endpoint>>,
    /// What could not be used.
    pub(super) complaints: Vec<Complaint>,
}

/// Everything that [`Attached`] depends on.
#[derive(Debug)]
struct Origin {
    local: Arc<BTreeMap<WorkloadKey, Arc<WorkloadEndpoint>>>,
    /// `None` = everything is allowed.
    policies: Option<Shared<BTreeMap<WorkloadKey, EndpointPolicy>>>,
    host: Arc<HostView>,
    external: External,
    device: String,
    interface_prefixes: Vec<String>,
    mtu: Option<u32>,
    host_addresses: BTreeSet<IpAddr>,
    peers: Shared<BTreeSet<IpAddr>>,
}

/// Addresses that no workload may have.
#[derive(Clone, Copy)]
pub(super) struct Taken<'a> {
    /// By this host.
    pub(super) host_addresses: &'a BTreeSet<IpAddr>,
    /// By other nodes.
    pub(super) peers: &'a Shared<BTreeSet<IpAddr>>,
}

/// Of all workloads; `None` = everything is allowed.
type Policies<'a> = Option<&'a Shared<BTreeMap<WorkloadKey, EndpointPolicy>>>;

impl Origin {
    fn of(state: &State, node: &NodeFacts<'_>, policies: Policies<'_>, taken: Taken<'_>) -> Self {
        Self {
            local: Arc::clone(state.local()),
            policies: policies.cloned(),
            host: Arc::clone(node.host),
            external: node.external.clone(),
            device: node.device.to_owned(),
            interface_prefixes: node.felix.interface_prefixes.clone(),
            mtu: node.mtu().ok(),
            host_addresses: taken.host_addresses.clone(),
            peers: taken.peers.clone(),
        }
    }

    /// The host and the datastore's documents are compared by where they are in memory: both are copied when they change.
    fn is(&self, state: &State, node: &NodeFacts<'_>, policies: Policies<'_>, taken: Taken<'_>) -> bool {
        Arc::ptr_eq(&self.local, state.local())
            && Arc::ptr_eq(&self.host, node.host)
            && self.policies.as_ref() == policies
            && self.peers == *taken.peers
            && self.host_addresses == *taken.host_addresses
            && self.external == *node.external
            && self.device == node.device
            && self.interface_prefixes == node.felix.interface_prefixes
            && self.mtu == node.mtu().ok()
    }
}

impl Attached {
    /// `last` itself, if it still holds.
    pub(super) fn refreshed<'a>(
        last: &'a mut Option<Self>,
        state: &State,
        node: &NodeFacts<'_>,
        policies: Policies<'_>,
        taken: Taken<'_>,
    ) -> &'a Self {
        let kept = last.take().filter(|attached| attached.from.is(state, node, policies, taken));
        last.insert(kept.unwrap_or_else(|| {
            let mut complaints = Vec::new();
            let (host_addresses, peers) = (taken.host_addresses, taken.peers);
            let each = policies.map(|policies| &**policies);
            let endpoints = endpoints::endpoints(state, node, each, host_addresses, peers, &mut complaints);
            Self { from: Origin::of(state, node, policies, taken), endpoints: endpoints.into(), complaints }
        }))
    }
}
