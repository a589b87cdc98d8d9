//! Scenarios of `e2e-etcd.json` through a real etcd: written before the reader starts, and under its eyes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use canal_control::datastore::etcd::Etcd;
use canal_control::datastore::syncer::Syncer;
use canal_control::datastore::{Change, Datastore, Expect};
use canal_control::model::calico::keys::{BLOCKS, RESOURCES_PREFIX};
use serde_json::Value;
use tokio::time::timeout;

use crate::etcd::{Cluster, changes};
use crate::etcd_server::{Server, Tls};
use crate::expected;

/// How long a scenario may take before the test is called failed; nothing asserts how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Number of scenarios, each in both ways, and what went wrong.
pub async fn run(file: &Value) -> (usize, Vec<String>) {
    let server = Server::start(Tls::Off).await;
    let store = Arc::new(server.store());
    let scenarios = file["scenarios"].as_array().unwrap();
    let mut failures = Vec::new();
    for scenario in scenarios {
        let name = scenario["name"].as_str().unwrap();
        let written = changes(&scenario["etcd"]);
        let mut failed = |way: &str, outcome: Result<(), String>| {
            failures.extend(outcome.err().map(|why| format!("{name}, {way}: {why}")));
        };
        // What one scenario leaves is deleted before the next reader lists.
        write(&store, &written).await;
        failed("listed", Reader::start(&store, scenario).until_holding(&written).await.outcome(scenario));
        clear(&store, &written).await;
        let reader = Reader::start(&store, scenario).until_holding(&[]).await;
        write(&store, &written).await;
        let reader = reader.until_holding(&written).await;
        failed("watched", reader.outcome(scenario));
        clear(&store, &written).await;
        let reader = reader.until_holding(&[]).await;
        write(&store, &written).await;
        failed("gone and back", reader.until_holding(&written).await.outcome(scenario));
        clear(&store, &written).await;
    }
    (scenarios.len() * 3, failures)
}

async fn write(store: &Etcd, entries: &[Change]) {
    for entry in entries {
        let value = &entry.value.as_ref().unwrap().value;
        store.put(&entry.key, value, Expect::Anything, None).await.unwrap();
    }
}

async fn clear(store: &Etcd, entries: &[Change]) {
    for entry in entries {
        store.delete(&entry.key, Expect::Anything).await.unwrap();
    }
}

/// A node with a syncer of its own, over the prefixes that a daemon follows.
struct Reader {
    syncer: Syncer,
    cluster: Cluster,
    held: BTreeSet<String>,
    in_sync: bool,
}

impl Reader {
    fn start(store: &Arc<Etcd>, scenario: &Value) -> Self {
        let store: Arc<dyn Datastore> = store.clone();
        Self {
            syncer: Syncer::start(store, &[RESOURCES_PREFIX, BLOCKS], 1),
            cluster: Cluster::new(scenario),
            held: BTreeSet::new(),
            in_sync: false,
        }
    }

    /// Reads until it is in sync and the keys it has heard of are those of `entries`.
    async fn until_holding(mut self, entries: &[Change]) -> Self {
        let wanted: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        timeout(PATIENCE, async {
            while !self.in_sync || self.held != wanted {
                let batch = self.syncer.batches.recv().await.expect("the syncer runs");
                for change in &batch.changes {
                    match change.value {
                        Some(_) => self.held.insert(change.key.clone()),
                        None => self.held.remove(&change.key),
                    };
                }
                self.cluster.one_by_one(&batch.changes);
                self.in_sync = batch.in_sync;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("read {:?}, not {wanted:?}", self.held));
        self
    }

    fn outcome(&self, scenario: &Value) -> Result<(), String> {
        expected::compare_scenario(self.cluster.resolution(), &scenario["expected"])
    }
}
