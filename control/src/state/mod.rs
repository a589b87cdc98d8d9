//! What the datastore holds now, decoded: current values only, one complaint for every value that makes no sense.
//!
//! Nothing here looks from one key to another; that is [`crate::resolve`]'s business. A value that cannot be read is
//! a missing object, except that an unreadable lease still says by its key whose addresses must not be reached.

mod calico;
mod interner;
mod parts;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::datastore::{Change, KeyValue, Revision};
use crate::flannel::{Lease, Unreadable};
use crate::model::calico::decode::{Decoded, Key, decode};
use crate::model::calico::keys::{BLOCKS, RESOURCES_PREFIX};
use crate::model::calico::problem::{Problem, Quirks};
use crate::model::calico::{WorkloadEndpoint, WorkloadKey};
use crate::model::flannel::{NetworkConfig, Prefix, Subnets};
pub use calico::Calico;

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
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    nodename: String,
    prefix: Prefix,
    config: ConfigState,
    /// These, and [`Self::local`], are copied when they change and somebody else has them: the same memory is the same
    /// content.
    leases: Arc<BTreeMap<String, Lease>>,
    unreachable: Arc<BTreeMap<String, Unreachable>>,
    calico: Calico,
    /// Those of [`Self::calico`] that are on this node.
    local: Arc<BTreeMap<WorkloadKey, Arc<WorkloadEndpoint>>>,
    quirks: Quirks,
    complaints: BTreeMap<String, Complaint>,
    /// Documents a restart without datastore needs: config, leases, Calico's. Not those of workloads of other nodes, which
    /// would be most of all there is: they can be written anew from what was read.
    documents: BTreeMap<String, Vec<u8>>,
    revision: Revision,
}

impl State {
    /// Nothing yet, as seen by the node of this name.
    pub fn new(nodename: &str, prefix: &Prefix) -> Self {
        Self {
            nodename: nodename.to_owned(),
            prefix: prefix.clone(),
            config: ConfigState::Absent,
            leases: Arc::default(),
            unreachable: Arc::default(),
            calico: Calico::default(),
            local: Arc::default(),
            quirks: Quirks::default(),
            complaints: BTreeMap::new(),
            documents: BTreeMap::new(),
            revision: 0,
        }
    }

    /// The same, taking what makes no sense as Felix does where `quirks` say so. Before anything is taken in.
    #[must_use]
    pub fn with_quirks(self, quirks: Quirks) -> Self {
        Self { quirks, ..self }
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
        } else if !remove(&mut self.leases, key)
            && !remove(&mut self.unreachable, key)
            && is_calico(key)
            && let Ok(parsed) = Key::parse(key)
        {
            self.calico.forget(&parsed);
            if let Some(workload) = WorkloadKey::from_key(key) {
                remove(&mut self.local, &workload);
            }
        }
        self.complaints.remove(key);
        self.documents.remove(key);
    }

    fn learn(&mut self, entry: &KeyValue) {
        if entry.key == self.prefix.config_key() {
            self.learn_config(entry);
        } else if entry.key.starts_with(&self.prefix.subnets()) {
            self.learn_lease(entry);
        } else if is_calico(&entry.key) {
            self.learn_calico(entry);
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
                Arc::make_mut(&mut self.leases).insert(entry.key.clone(), lease);
                self.keep(entry);
            }
            Err(Unreadable { subnets: None, .. }) => {
                self.complain(&entry.key, "not the key of a lease; ignored");
            }
            Err(Unreadable { subnets: Some(subnets), reason, .. }) => {
                let reason = reason.map_or_else(String::new, |reason| format!("{reason}; "));
                self.complain(&entry.key, format!("{reason}packets for its subnet are dropped"));
                let mod_revision = entry.mod_revision;
                let unreachable = Unreachable { subnets, mod_revision };
                Arc::make_mut(&mut self.unreachable).insert(entry.key.clone(), unreachable);
            }
        }
    }

    fn learn_calico(&mut self, entry: &KeyValue) {
        let (decoded, problems) = match decode(&entry.key, &entry.value, self.quirks) {
            Ok(read) => read,
            Err(problem) => {
                self.complain(&entry.key, format!("{problem}; ignored"));
                return;
            }
        };
        self.note(&entry.key, &problems);
        match &decoded {
            Decoded::Workload(_, endpoint) if *endpoint.node != *self.nodename => {}
            Decoded::Unused(_) => {}
            Decoded::NoWorkload(_) => self.complain(&entry.key, "it has no ipNetworks; ignored"),
            _ => self.keep(entry),
        }
        let local = match &decoded {
            Decoded::Workload(key, endpoint) if *endpoint.node == *self.nodename => Some(key.clone()),
            _ => None,
        };
        self.calico.learn(decoded);
        if let Some(key) = local
            && let Some(endpoint) = self.calico.workloads().get(&key)
        {
            Arc::make_mut(&mut self.local).insert(key, Arc::clone(endpoint));
        }
    }

    /// One complaint about all that is wrong with a value that is used all the same.
    fn note(&mut self, key: &str, problems: &[Problem]) {
        match problems {
            [] => {}
            [only] => self.complain(key, only),
            [first, others @ ..] => self.complain(key, format!("{first}; and {} more", others.len())),
        }
    }

    fn complain(&mut self, key: &str, what: impl std::fmt::Display) {
        self.complaints.insert(key.to_owned(), Complaint::new(key, what));
    }

    fn keep(&mut self, entry: &KeyValue) {
        self.documents.insert(entry.key.clone(), entry.value.clone());
    }

    /// As something that was: the revisions of its history are older than any other.
    #[must_use]
    pub fn aged(mut self) -> Self {
        let (leases, unreachable) = (Arc::make_mut(&mut self.leases), Arc::make_mut(&mut self.unreachable));
        leases.values_mut().for_each(|lease| lease.mod_revision = Revision::MIN);
        unreachable.values_mut().for_each(|lease| lease.mod_revision = Revision::MIN);
        self
    }

    /// What `former` says of a key, in the place of what is here; nothing if it says nothing.
    pub fn restore(&mut self, former: &Self, key: &str) {
        self.forget(key);
        if key == self.prefix.config_key() {
            self.config.clone_from(&former.config);
        }
        if key.starts_with(&self.prefix.subnets()) {
            copy(Arc::make_mut(&mut self.leases), &former.leases, key);
            copy(Arc::make_mut(&mut self.unreachable), &former.unreachable, key);
        }
        copy(&mut self.complaints, &former.complaints, key);
        copy(&mut self.documents, &former.documents, key);
        if is_calico(key)
            && let Ok(parsed) = Key::parse(key)
        {
            self.calico.restore(&former.calico, &parsed);
            if let Some(workload) = WorkloadKey::from_key(key) {
                copy(Arc::make_mut(&mut self.local), &former.local, &workload);
            }
        }
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
    pub const fn leases(&self) -> &Arc<BTreeMap<String, Lease>> {
        &self.leases
    }

    /// Leases whose value cannot be read, by key.
    pub const fn unreachable(&self) -> &Arc<BTreeMap<String, Unreachable>> {
        &self.unreachable
    }

    /// Calico's resources.
    pub const fn calico(&self) -> &Calico {
        &self.calico
    }

    /// Workload endpoints of this node.
    pub const fn local(&self) -> &Arc<BTreeMap<WorkloadKey, Arc<WorkloadEndpoint>>> {
        &self.local
    }

    /// The same, in order of their names.
    pub fn local_workloads(&self) -> impl Iterator<Item = (&WorkloadKey, &WorkloadEndpoint)> {
        self.local.iter().map(|(key, endpoint)| (key, &**endpoint))
    }

    /// Complaints in key order.
    pub fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        self.complaints.values()
    }

    /// Workload endpoints of other nodes: what of them is to be saved for a start without datastore.
    pub fn remote_workloads(&self) -> impl Iterator<Item = (&WorkloadKey, &Arc<WorkloadEndpoint>)> {
        self.calico.workloads().iter().filter(|(_, endpoint)| *endpoint.node != *self.nodename)
    }

    /// What else to save for it: keys and values, in key order.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.documents.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Revision the datastore has been read up to.
    pub const fn revision(&self) -> Revision {
        self.revision
    }
}

/// Takes a key out; tells whether it was there.
fn remove<K, Q, V>(from: &mut Arc<BTreeMap<K, V>>, key: &Q) -> bool
where
    K: Borrow<Q> + Ord + Clone,
    Q: Ord + ?Sized,
    V: Clone,
{
    from.contains_key(key) && Arc::make_mut(from).remove(key).is_some()
}

/// What is `from` under a key is `to`, too, be it nothing.
fn copy<K, Q, V>(to: &mut BTreeMap<K, V>, from: &BTreeMap<K, V>, key: &Q)
where
    K: Borrow<Q> + Ord,
    Q: ToOwned<Owned = K> + Ord + ?Sized,
    V: Clone,
{
    match from.get(key) {
        Some(value) => drop(to.insert(key.to_owned(), value.clone())),
        None => drop(to.remove(key)),
    }
}

/// Whether a key is of Calico's, be it ever so odd.
fn is_calico(key: &str) -> bool {
    key.starts_with(RESOURCES_PREFIX) || key.starts_with(BLOCKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: &str =
        r#"{"PublicIP":"192.0.2.2","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:02"}}"#;
    const WORKLOAD: &str = r#"{"spec":{"interfaceName":"cali1","ipNetworks":["10.244.1.5/32"]}}"#;
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
        WorkloadKey::new("default", name).key()
    }

    #[test]
    fn one_bad_value_does_not_stop_the_rest() {
        let state = state(&[
            put("/coreos.com/network/config", CONFIG, 2),
            put("/coreos.com/network/subnets/junk", "{}", 3),
            put("/coreos.com/network/subnets/10.244.1.0-24", "nonsense", 4),
            put("/coreos.com/network/subnets/10.244.2.0-24", LEASE, 5),
            put(&workload("n1-k8s-a-eth0"), r#"{"spec":{"interfaceName":"cali0","ipNetworks":["x"]}}"#, 6),
            put(&workload("n1-k8s-b-eth0"), WORKLOAD, 7),
            put(&workload("n2-k8s-c-eth0"), WORKLOAD, 8),
            put("/calico/resources/v3/projectcalico.org/nodes/n1", "?", 9),
            put("/calico/resources/v3/projectcalico.org/whatever/n1", "?", 10),
        ]);
        assert!(matches!(state.config(), ConfigState::Valid(_)));
        assert_eq!(state.leases().len(), 1);
        assert_eq!(state.unreachable()["/coreos.com/network/subnets/10.244.1.0-24"].mod_revision, 4);
        assert_eq!(state.calico().workloads().len(), 2);
        assert_eq!(state.local_workloads().count(), 1);
        assert_eq!(state.complaints().count(), 4);
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

    /// One of each kind, all under one name.
    fn resources(spec: &str) -> Vec<Change> {
        let v3 = |rest: &str| put(&format!("{RESOURCES_PREFIX}{rest}"), &format!(r#"{{"spec":{spec}}}"#), 2);
        let mut changes: Vec<Change> = [
            "workloadendpoints/ns/n1-k8s-a-eth0",
            "networkpolicies/ns/default.a",
            "globalnetworkpolicies/default.a",
            "stagednetworkpolicies/ns/default.a",
            "tiers/a",
            "profiles/a",
            "profiles/projectcalico-default-allow",
            "networksets/ns/a",
            "globalnetworksets/a",
            "hostendpoints/a",
            "ippools/a",
            "nodes/a",
            "felixconfigurations/default",
            "felixconfigurations/node.n1",
            "clusterinformations/default",
            "bgpconfigurations/default",
        ]
        .map(v3)
        .into();
        changes.push(put(&format!("{BLOCKS}ipv4/block/10.0.0.0-26"), r#"{"cidr":"10.0.0.0/26"}"#, 3));
        changes
    }

    #[test]
    fn every_kind_is_learnt_and_forgotten() {
        let changes = resources(
            r#"{"interfaceName":"cali1","ipNetworks":["10.0.0.1/32"],"node":"n1","cidr":"10.0.0.0/8",
                "datastoreReady":true,"serviceClusterIPs":[{"cidr":"10.96.0.0/12"}],"logPrefix":"x"}"#,
        );
        let mut state = state(&changes);
        let calico = state.calico();
        assert_eq!(state.complaints().collect::<Vec<_>>(), Vec::<&Complaint>::new());
        let counts = [
            calico.workloads().len(),
            calico.policies().len(),
            calico.tiers().len(),
            calico.profiles().len(),
            calico.network_sets().len(),
            calico.host_endpoints().len(),
            calico.effective_pools().len(),
            calico.nodes().len(),
            calico.settings().len(),
            calico.service_nets().len(),
            calico.blocks().len(),
        ];
        assert_eq!(counts, [1, 2, 1, 2, 2, 1, 1, 1, 2, 1, 1]);
        assert_eq!((calico.ready(), calico.setting("n1", "LogPrefix")), (Some(true), Some("x")));
        let gone = |change: &Change| Change { key: change.key.clone(), value: None, revision: 4 };
        state.apply(&changes.iter().map(gone).collect::<Vec<_>>());
        assert_eq!(state, State::new("n1", &Prefix::default()));
    }

    #[test]
    fn a_workload_that_moves_or_loses_its_addresses_is_forgotten() {
        let key = workload("n1-k8s-a-eth0");
        let mut state = state(&[put(&key, WORKLOAD, 2)]);
        let labels = |state: &State| Arc::clone(&state.calico().workloads().values().next().unwrap().labels);
        state.apply(&[put(&workload("n2-k8s-b-eth0"), WORKLOAD, 3)]);
        assert!(Arc::ptr_eq(
            &labels(&state),
            &state.calico().workloads().values().next_back().unwrap().labels
        ));
        state.apply(&[put(&key, r#"{"spec":{"interfaceName":"cali1","ipNetworks":null}}"#, 4)]);
        assert_eq!((state.local_workloads().count(), state.calico().workloads().len()), (0, 1));
        assert_eq!((state.complaints().count(), state.documents().count()), (1, 0));
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused_or_widened() {
        let key = format!("{RESOURCES_PREFIX}globalnetworkpolicies/default.a");
        let value = r#"{"spec":{"selector":"has(a)","namespaceSelector":"team 'a'"}}"#;
        let strict = state(&[put(&key, value, 2)]);
        assert_eq!((strict.calico().policies().len(), strict.complaints().count()), (0, 1));
        let mut lax = State::new("n1", &Prefix::default()).with_quirks(Quirks::FELIX);
        lax.apply(&[put(&key, value, 2)]);
        assert_eq!((lax.calico().policies().len(), lax.complaints().count()), (1, 1));
    }

    #[test]
    fn a_key_is_restored_as_it_was_whatever_its_kind() {
        let workload = workload("n1-k8s-z-eth0");
        let mut before =
            resources(r#"{"cidr":"10.0.0.0/8","datastoreReady":true,"logPrefix":"x","interfaceName":"c"}"#);
        before.extend([
            put("/coreos.com/network/config", CONFIG, 90),
            put("/coreos.com/network/subnets/10.244.1.0-24", LEASE, 91),
            put("/coreos.com/network/subnets/10.244.2.0-24", "nonsense", 92),
            put(&workload, WORKLOAD, 93),
        ]);
        let former = state(&before).aged();
        let keys: Vec<&str> = before.iter().map(|change| &*change.key).collect();
        // From nothing, and from something else; and back to nothing.
        let others: Vec<Change> = keys.iter().map(|key| put(key, "{}", 95)).collect();
        for start in [Vec::new(), others] {
            let mut state = state(&start);
            keys.iter().for_each(|key| state.restore(&former, key));
            assert_eq!(state, former);
            assert!(state.leases().values().all(|lease| lease.mod_revision == Revision::MIN));
            let nothing = State::new("n1", &Prefix::default());
            keys.iter().for_each(|key| state.restore(&nothing, key));
            assert_eq!(state, nothing);
        }
    }

    #[test]
    fn complaints_are_cut() {
        let complaint = Complaint::new("k", "ä".repeat(1000));
        assert!(complaint.sentence.len() <= MAX_SENTENCE + '…'.len_utf8());
    }
}
