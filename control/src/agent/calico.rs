//! Calico's resources in force, followed change by change.

use std::collections::BTreeSet;

use crate::model::calico::decode::Key;
use crate::model::calico::kind::Kind;
use crate::model::calico::resources::{EncapMode, IpPool, Node};
use crate::resolve::Policy;
use crate::resolve::calico::routes::RouteSource;
use crate::resolve::calico::{CalicoGraph, Resolution, change_of, in_use, sync};
use crate::state::{Calico, State};
use crate::status::{CalicoNetworkStatus, ClusterStatus, PolicyStatus};

/// Whether policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PolicyMode {
    /// As soon as the datastore has any: a policy, a profile, a tier, or the ClusterInformation that Calico writes when it
    /// is set up. Until then everything is allowed, as on a network that knows flannel only. Once it is enforced it stays
    /// so while the process runs: that somebody deletes the last policy opens nothing.
    #[default]
    Auto,
    /// Always. A workload without policy and profile is denied everything.
    Enforce,
    /// Never: everything is allowed.
    Off,
}

/// Keys of Calico's that may have changed since somebody looked.
#[derive(Debug, Default)]
pub(super) struct Altered {
    /// Nobody knows which.
    pub(super) everything: bool,
    pub(super) keys: BTreeSet<String>,
}

impl Altered {
    /// Any key may have.
    pub(super) fn everything() -> Self {
        Self { everything: true, keys: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, key: &str) {
        if !self.everything {
            self.keys.insert(key.to_owned());
        }
    }
}

/// What Calico's part of a state is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picture {
    /// Not everything has been read: nobody knows what is forbidden.
    Partial,
    /// As the datastore has it.
    Live,
    /// What was there before is in it, too.
    Held,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct CalicoFollower {
    graph: CalicoGraph,
    mode: PolicyMode,
    enforced: bool,
    /// A complete picture has been taken in once.
    fed: bool,
    /// Something was not taken in, and has to be read again.
    behind: bool,
    /// What there was when it was last looked at.
    cluster: ClusterStatus,
    network: CalicoNetworkStatus,
}

impl CalicoFollower {
    pub(super) fn new(nodename: &str, mode: PolicyMode) -> Self {
        let graph = CalicoGraph::new(nodename, RouteSource::default());
        Self {
            graph,
            mode,
            enforced: mode == PolicyMode::Enforce,
            fed: false,
            behind: true,
            cluster: ClusterStatus::default(),
            network: CalicoNetworkStatus::default(),
        }
    }

    /// Takes in what has changed, unless it is of no use. A datastore that is not ready is not an empty one: what was in
    /// force stays.
    pub(super) fn follow(&mut self, state: &State, picture: Picture, altered: &Altered) -> bool {
        let calico = state.calico();
        self.cluster = ClusterStatus {
            nodes: calico.nodes().len(),
            workloads: calico.workloads().len(),
            host_endpoints: calico.host_endpoints().len(),
            policies: calico.policies().len(),
            profiles: calico.profiles().len(),
            tiers: calico.tiers().len(),
        };
        let restored = picture == Picture::Held && !self.fed;
        if picture == Picture::Partial || (calico.ready() == Some(false) && !restored) {
            self.behind = true;
            return false;
        }
        if std::mem::take(&mut self.behind) || altered.everything {
            sync(&mut self.graph, calico);
            self.network = network_status(calico);
        } else {
            let known: Vec<Key> = altered.keys.iter().filter_map(|key| Key::parse(key).ok()).collect();
            let changes = known.iter().filter_map(|key| change_of(calico, key));
            changes.for_each(|change| self.graph.apply(change));
            if known.iter().any(is_about_network) {
                self.network = network_status(calico);
            }
        }
        self.graph.flush();
        let (before, first) = (self.enforced, !std::mem::replace(&mut self.fed, true));
        self.enforced |= self.mode == PolicyMode::Auto && in_use(calico);
        if first || self.enforced != before {
            tracing::info!(enforced = self.enforced, mode = ?self.mode, "policy");
        }
        true
    }

    /// What Calico's resources mean. Before anything has been taken in there are none.
    pub(super) const fn resolution(&self) -> &Resolution {
        self.graph.resolution()
    }

    /// Without a complete picture nothing passes.
    pub(super) fn policy(&self) -> Policy {
        let open = self.fed && !self.enforced;
        if self.mode == PolicyMode::Off || open { Policy::Open } else { Policy::Enforced }
    }

    pub(super) fn cluster(&self) -> ClusterStatus {
        self.cluster
    }

    pub(super) fn network(&self) -> CalicoNetworkStatus {
        self.network
    }

    pub(super) fn status(&self) -> PolicyStatus {
        let resolution = self.graph.resolution();
        PolicyStatus {
            enforced: self.enforced,
            switched_off: self.mode == PolicyMode::Off,
            workloads: resolution.workloads.len(),
            host_endpoints: resolution.host_endpoints.len(),
            policies: resolution.active_policies.len(),
            profiles: resolution.active_profiles.len(),
            sets: resolution.sets.len(),
        }
    }
}

/// Whether it is one of the resources that Calico's routes come from, besides workloads.
fn is_about_network(key: &Key) -> bool {
    match key {
        Key::Block(_) => true,
        Key::Resource(resource) => matches!(resource.kind, Some(Kind::IpPool | Kind::Node)),
    }
}

fn network_status(calico: &Calico) -> CalicoNetworkStatus {
    let pools = |mode: fn(&IpPool) -> EncapMode| {
        calico.pools().values().filter(|pool| mode(pool) != EncapMode::Never).count()
    };
    let nodes =
        |has_tunnel: fn(&Node) -> bool| calico.nodes().values().filter(|node| has_tunnel(node)).count();
    CalicoNetworkStatus {
        vxlan_pools: pools(|pool| pool.vxlan),
        ipip_pools: pools(|pool| pool.ipip),
        blocks: calico.blocks().len(),
        vxlan_nodes: nodes(|node| node.vxlan_v4.or(node.vxlan_v6).is_some()),
        ipip_nodes: nodes(|node| node.ipip_v4.is_some()),
    }
}
