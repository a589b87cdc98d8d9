//! The outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canal_dataplane::spec::Shared;
use canal_dataplane::spec::calico::{CalicoRoute, CalicoVtep, VtepKey};
use canal_dataplane::spec::policy::{EndpointPolicy, IpSet, SetId};
use ipnetwork::IpNetwork;

use super::endpoint_lists::HostLists;
use crate::model::calico::WorkloadKey;
use crate::model::calico::resources::{HostEndpoint, PolicyKey};
use crate::state::Complaint;

/// Everything that Calico's resources mean for one node.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Resolution {
    /// Policy of this node's workloads.
    pub workloads: Shared<BTreeMap<WorkloadKey, EndpointPolicy>>,
    /// This node's host endpoints, by name.
    pub host_endpoints: BTreeMap<String, ResolvedHost>,
    /// Sets that rules in force name.
    pub sets: BTreeMap<SetId, Arc<IpSet>>,
    /// Policies that match a local endpoint.
    pub active_policies: BTreeSet<PolicyKey>,
    /// Profiles that a local endpoint has, whether they exist or not.
    pub active_profiles: BTreeSet<String>,
    /// Where addresses are, by network.
    pub routes: Arc<BTreeMap<IpNetwork, CalicoRoute>>,
    /// Ends of Calico's VXLAN tunnels, our own among them.
    pub vteps: Arc<BTreeMap<VtepKey, CalicoVtep>>,
    /// What cannot be done as it is written: sentences by the datastore's keys.
    pub complaints: BTreeMap<String, String>,
}

/// A host endpoint of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedHost {
    /// As stored.
    pub endpoint: Arc<HostEndpoint>,
    /// Its policy.
    pub lists: HostLists,
}

impl Resolution {
    /// For the operator, in key order.
    pub fn complaints(&self) -> impl Iterator<Item = Complaint> {
        self.complaints.iter().map(|(key, sentence)| Complaint::new(key, sentence))
    }
}
