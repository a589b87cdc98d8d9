//! What one resolution leaves to the next: other nodes, while neither a lease nor anything of ours that they depend on has
//! changed. There may be a thousand of them, and hardly a change in the datastore is about one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::spec::{Route, Shared, Via, Vtep};
use canal_dataplane::verdict::DropReason;
use ipnetwork::IpNetwork;

use super::peers::{Peers, peers};
use super::{NodeFacts, claims};
use crate::flannel::{Identity, Lease};
use crate::host::External;
use crate::model::flannel::{Backend, NetworkConfig, Subnets};
use crate::state::{Complaint, State, Unreachable};

/// What the leases in force mean here.
#[derive(Debug)]
pub(super) struct Known {
    from: Origin,
    /// See [`Peers`].
    pub(super) vteps: Shared<Vec<Vtep>>,
    /// Sorted; what is left of our own subnets is among them.
    pub(super) routes: Shared<Vec<Route>>,
    /// See [`Peers`].
    pub(super) direct_sources: Shared<Vec<IpNetwork>>,
    /// See [`Peers`].
    pub(super) announced: BTreeSet<IpNetwork>,
    /// See [`Peers`].
    pub(super) addresses: Shared<BTreeSet<IpAddr>>,
    /// Keys of leases that lost against newer ones.
    pub(super) superseded: BTreeSet<String>,
    /// What could not be used.
    pub(super) complaints: Vec<Complaint>,
}

/// Everything that [`Known`] depends on.
#[derive(Debug)]
struct Origin {
    leases: Arc<BTreeMap<String, Lease>>,
    unreachable: Arc<BTreeMap<String, Unreachable>>,
    config: NetworkConfig,
    backend: Backend,
    external: External,
    subnets: Subnets,
    identity: Identity,
    on_link: BTreeSet<IpAddr>,
    host_addresses: BTreeSet<IpAddr>,
}

impl Origin {
    fn of(state: &State, node: &NodeFacts<'_>, host_addresses: &BTreeSet<IpAddr>) -> Self {
        Self {
            leases: Arc::clone(state.leases()),
            unreachable: Arc::clone(state.unreachable()),
            config: node.config.clone(),
            backend: *node.backend,
            external: node.external.clone(),
            subnets: node.subnets,
            identity: node.identity,
            on_link: node.on_link.clone(),
            host_addresses: host_addresses.clone(),
        }
    }

    /// Leases are compared by where they are in memory: [`State`] copies them when they change.
    fn is(&self, state: &State, node: &NodeFacts<'_>, host_addresses: &BTreeSet<IpAddr>) -> bool {
        Arc::ptr_eq(&self.leases, state.leases())
            && Arc::ptr_eq(&self.unreachable, state.unreachable())
            && self.config == *node.config
            && self.backend == *node.backend
            && self.external == *node.external
            && self.subnets == node.subnets
            && self.identity == node.identity
            && self.on_link == *node.on_link
            && self.host_addresses == *host_addresses
    }
}

impl Known {
    /// `last` itself, if it still holds.
    pub(super) fn refreshed<'a>(
        last: &'a mut Option<Self>,
        state: &State,
        node: &NodeFacts<'_>,
        host_addresses: &BTreeSet<IpAddr>,
    ) -> &'a Self {
        let kept = last.take().filter(|known| known.from.is(state, node, host_addresses));
        last.insert(kept.unwrap_or_else(|| Self::new(state, node, host_addresses)))
    }

    fn new(state: &State, node: &NodeFacts<'_>, host_addresses: &BTreeSet<IpAddr>) -> Self {
        let mut complaints = Vec::new();
        let settled = claims::settle(state, node, host_addresses, &mut complaints);
        let Peers { vteps, mut routes, direct_sources, announced, addresses } =
            peers(&settled.claims, node, &mut complaints);
        if *node.backend != Backend::Alloc {
            let unassigned = |prefix| Route { prefix, via: Via::Drop(DropReason::UnassignedAddress) };
            routes.extend(node.own_subnets().into_iter().map(unassigned));
        }
        routes.sort_unstable();
        Self {
            from: Origin::of(state, node, host_addresses),
            vteps: vteps.into(),
            routes: routes.into(),
            direct_sources: direct_sources.into(),
            announced,
            addresses: addresses.into(),
            superseded: settled.superseded,
            complaints,
        }
    }
}
