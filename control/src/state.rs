//! What the datastore holds now, decoded: current values only, one complaint for every value that makes no sense.
//!
//! Nothing here looks from one key to another; that is [`crate::resolve`]'s business. A value that cannot be read is
//! a missing object, except that an unreadable lease still says by its key whose addresses must not be reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::datastore::{Change, KeyValue, Revision};
use crate::flannel::{Lease, Unreadable};
use crate::model::calico::{WorkloadEndpoint, WorkloadKey};
use crate::model::flannel::{NetworkConfig, Prefix, Subnets};

/// Longest complaint kept, bytes: it may quote what somebody wrote into the datastore.
const MAX_SENTENCE: usize = 300;

/// Something in the datastore that cannot be used, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Complaint {
    /// The datastore's key.
    pub key: String,
    /// What is wrong with it and what that means.
    pub sentence: String,
}

impl Complaint {
    /// About a key; `what` is cut to a bearable length.
    pub fn new(key: impl Into<String>, what: impl std::fmt::Display) -> Self {
        let mut sentence = what.to_string();
        if sentence.len() > MAX_SENTENCE {
            let end = (0..=MAX_SENTENCE).rev().find(|at| sentence.is_char_boundary(*at)).unwrap_or(0);
            sentence.truncate(end);
            sentence.push('…');
        }
        Self { key: key.into(), sentence }
    }
}

/// The network config's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConfigState {
    /// There is none.
    #[default]
    Absent,
    /// It breaks flannel's rules; the complaint says which.
    Invalid,
    /// As flannel nodes read it.
    Valid(Arc<NetworkConfig>),
}

/// A lease whose value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// What its key says.
    pub subnets: Subnets,
    /// Revision of the last write.
    pub mod_revision: Revision,
}

/// The datastore's content in our terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    nodename: String,
    prefix: Prefix,
    config: ConfigState,
    leases: BTreeMap<String, Lease>,
    unreachable: BTreeMap<String, Unreachable>,
    workloads: BTreeMap<WorkloadKey, WorkloadEndpoint>,
    complaints: BTreeMap<String, Complaint>,
    /// Documents a restart without datastore needs: config, leases, our own workloads.
    documents: BTreeMap<String, KeyValue>,
    revision: Revision,
}

impl State {
    /// Nothing yet, as seen by the node of this name.
    pub fn new(nodename: &str, prefix: &Prefix) -> Self {
        Self {
            nodename: nodename.to_owned(),
            prefix: prefix.clone(),
            config: ConfigState::Absent,
            leases: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            workloads: BTreeMap::new(),
            complaints: BTreeMap::new(),
            documents: BTreeMap::new(),
            revision: 0,
        }
    }

    /// Takes changes in, in order. Keys that mean nothing to us are passed over.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.forget(&change.key);
            if let Some(entry) = &change.value {
                self.learn(entry);
            }
        }
    }

    /// The datastore has been read up to here.
    pub fn reached(&mut self, revision: Revision) {
        self.revision = revision;
    }

    fn forget(&mut self, key: &str) {
        if key == self.prefix.config_key() {
            self.config = ConfigState::Absent;
        } else if self.leases.remove(key).is_none()
            && self.unreachable.remove(key).is_none()
            && let Some(workload) = WorkloadKey::from_key(key)
        {
            self.workloads.remove(&workload);
        }
        self.complaints.remove(key);
        self.documents.remove(key);
    }

    fn learn(&mut self, entry: &KeyValue) {
        if entry.key == self.prefix.config_key() {
            self.learn_config(entry);
        } else if entry.key.starts_with(&self.prefix.subnets()) {
            self.learn_lease(entry);
        } else if entry.key.starts_with(crate::model::calico::keys::WORKLOAD_ENDPOINTS) {
            self.learn_workload(entry);
        }
    }

    fn learn_config(&mut self, entry: &KeyValue) {
        self.config = match NetworkConfig::read(&entry.value) {
            Ok(config) => ConfigState::Valid(Arc::new(config)),
            Err(error) => {
                self.complain(&entry.key, error);
                ConfigState::Invalid
            }
        };
        self.keep(entry);
    }

    fn learn_lease(&mut self, entry: &KeyValue) {
        match Lease::read(entry) {
            Ok(lease) => {
                self.leases.insert(entry.key.clone(), lease);
                self.keep(entry);
            }
            Err(Unreadable { subnets: None, .. }) => {
                self.complain(&entry.key, "not the key of a lease; ignored");
            }
            Err(Unreadable { subnets: Some(subnets), reason, .. }) => {
                let reason = reason.map_or_else(String::new, |reason| format!("{reason}; "));
                self.complain(&entry.key, format!("{reason}packets for its subnet are dropped"));
                let mod_revision = entry.mod_revision;
                self.unreachable.insert(entry.key.clone(), Unreachable { subnets, mod_revision });
            }
        }
    }

    fn learn_workload(&mut self, entry: &KeyValue) {
        let Some(key) = WorkloadKey::from_key(&entry.key) else {
            self.complain(&entry.key, "not the key of a workload endpoint; ignored");
            return;
        };
        match WorkloadEndpoint::decode(&key, &entry.value) {
            Ok(endpoint) => {
                if endpoint.node == self.nodename {
                    self.keep(entry);
                }
                self.workloads.insert(key, endpoint);
            }
            Err(error) => self.complain(&entry.key, format!("{error}; the endpoint is ignored")),
        }
    }

    fn complain(&mut self, key: &str, what: impl std::fmt::Display) {
        self.complaints.insert(key.to_owned(), Complaint::new(key, what));
    }

    fn keep(&mut self, entry: &KeyValue) {
        self.documents.insert(entry.key.clone(), entry.clone());
    }

    /// This state with everything of `former` that it has no word about, for a datastore that lost its content and is
    /// being filled again. What is there now goes before what was: revisions of the lost history count as oldest.
    #[must_use]
    pub fn over(&self, former: &Self) -> Self {
        let mut merged = former.clone();
        merged.leases.values_mut().for_each(|lease| lease.mod_revision = Revision::MIN);
        merged.unreachable.values_mut().for_each(|lease| lease.mod_revision = Revision::MIN);
        for key in self.documents.keys().chain(self.complaints.keys()) {
            merged.forget(key);
        }
        if self.config != ConfigState::Absent {
            merged.config = self.config.clone();
        }
        merged.leases.extend(self.leases.clone());
        merged.unreachable.extend(self.unreachable.clone());
        merged.workloads.extend(self.workloads.clone());
        merged.complaints.extend(self.complaints.clone());
        merged.documents.extend(self.documents.clone());
        if self.revision > 0 {
            merged.revision = self.revision;
        }
        merged
    }

    /// The node we are.
    pub fn nodename(&self) -> &str {
        &self.nodename
    }

    /// The network config.
    pub const fn config(&self) -> &ConfigState {
        &self.config
    }

    /// Readable leases by key, our own among them.
    pub const fn leases(&self) -> &BTreeMap<String, Lease> {
        &self.leases
    }

    /// Leases whose value cannot be read, by key.
    pub const fn unreachable(&self) -> &BTreeMap<String, Unreachable> {
        &self.unreachable
    }

    /// Workload endpoints of all nodes.
    pub const fn workloads(&self) -> &BTreeMap<WorkloadKey, WorkloadEndpoint> {
        &self.workloads
    }

    /// Workload endpoints of this node, in order of their names.
    pub fn local_workloads(&self) -> impl Iterator<Item = (&WorkloadKey, &WorkloadEndpoint)> {
        self.workloads.iter().filter(|(_, endpoint)| endpoint.node == self.nodename)
    }

    /// Complaints in key order.
    pub fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        self.complaints.values()
    }

    /// What to save for a start without datastore, in key order.
    pub fn documents(&self) -> impl Iterator<Item = &KeyValue> {
        self.documents.values()
    }

    /// Revision the datastore has been read up to.
    pub const fn revision(&self) -> Revision {
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: &str =
        r#"{"PublicIP":"192.0.2.2","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:02"}}"#;
    const CONFIG: &str = r#"{"network":"10.244.0.0/16","Backend":{"type":"vxlan"}}"#;

    fn put(key: &str, value: &str, revision: Revision) -> Change {
        let entry = KeyValue { key: key.into(), value: value.into(), mod_revision: revision, lease: None };
        Change { key: key.into(), value: Some(entry), revision }
    }

    fn state(changes: &[Change]) -> State {
        let mut state = State::new("n1", &Prefix::default());
        state.apply(changes);
        state
    }

    fn workload(name: &str) -> String {
        WorkloadKey { namespace: "default".into(), name: name.into() }.key()
    }

    #[test]
    fn one_bad_value_does_not_stop_the_rest() {
        let state = state(&[
            put("/coreos.com/network/config", CONFIG, 2),
            put("/coreos.com/network/subnets/junk", "{}", 3),
            put("/coreos.com/network/subnets/10.244.1.0-24", "nonsense", 4),
            put("/coreos.com/network/subnets/10.244.2.0-24", LEASE, 5),
            put(&workload("n1-k8s-a-eth0"), r#"{"spec":{"interfaceName":"cali0","ipNetworks":["x"]}}"#, 6),
            put(&workload("n1-k8s-b-eth0"), r#"{"spec":{"interfaceName":"cali1"}}"#, 7),
            put(&workload("n2-k8s-c-eth0"), r#"{"spec":{"interfaceName":"cali1"}}"#, 8),
            put("/calico/resources/v3/projectcalico.org/nodes/n1", "?", 9),
        ]);
        assert!(matches!(state.config(), ConfigState::Valid(_)));
        assert_eq!(state.leases().len(), 1);
        assert_eq!(state.unreachable()["/coreos.com/network/subnets/10.244.1.0-24"].mod_revision, 4);
        assert_eq!(state.workloads().len(), 2);
        assert_eq!(state.local_workloads().count(), 1);
        assert_eq!(state.complaints().count(), 3);
        assert_eq!(state.documents().count(), 3, "config, one lease, one local workload");
    }

    #[test]
    fn a_change_forgets_what_was_there_before() {
        let lease = "/coreos.com/network/subnets/10.244.2.0-24";
        let config = "/coreos.com/network/config";
        let mut state = state(&[put(lease, "nonsense", 2), put(config, "{}", 3)]);
        assert_eq!((state.complaints().count(), state.config()), (2, &ConfigState::Invalid));
        state.apply(&[put(lease, LEASE, 4), put(config, CONFIG, 5)]);
        assert_eq!((state.complaints().count(), state.leases().len()), (0, 1));
        let gone = |key: &str| Change { key: key.into(), value: None, revision: 6 };
        state.apply(&[gone(lease), gone(config)]);
        assert_eq!(state, State::new("n1", &Prefix::default()));
    }

    #[test]
    fn a_refilled_datastore_goes_before_what_was_lost() {
        let (a, b) =
            ("/coreos.com/network/subnets/10.244.1.0-24", "/coreos.com/network/subnets/10.244.2.0-24");
        let former =
            state(&[put("/coreos.com/network/config", CONFIG, 90), put(a, LEASE, 91), put(b, LEASE, 92)]);
        let now = state(&[put(a, &LEASE.replace("192.0.2.2", "192.0.2.9"), 3)]);
        let merged = now.over(&former);
        assert!(matches!(merged.config(), ConfigState::Valid(_)));
        assert_eq!(merged.leases()[a], now.leases()[a]);
        assert_eq!(merged.leases()[b].mod_revision, Revision::MIN);
        assert_eq!(now.over(&now).leases()[a], now.leases()[a]);
    }

    #[test]
    fn complaints_are_cut() {
        let complaint = Complaint::new("k", "ä".repeat(1000));
        assert!(complaint.sentence.len() <= MAX_SENTENCE + '…'.len_utf8());
    }
}
