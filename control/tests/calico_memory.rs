//! What a large cluster takes to remember: all that the control side holds of it, from the datastore's keys that its reader
//! knows, over the decoded documents, to Calico's graph. Counted in bytes asked for, so that it is the same at every run.

mod cluster;
#[path = "../../dataplane/tests/counting/mod.rs"]
mod counting;

use std::sync::Arc;

use canal_control::datastore::memory::Memory;
use canal_control::datastore::syncer::Syncer;
use canal_control::datastore::{Datastore, Expect};
use canal_control::model::calico::keys::RESOURCES_PREFIX;
use canal_control::model::flannel::Prefix;
use canal_control::resolve::calico::routes::RouteSource;
use canal_control::resolve::calico::{CalicoGraph, sync};
use canal_control::state::State;

use cluster::{Labelled, cluster};

/// Endpoints; what each of them costs hardly depends on it.
const FULL: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };

/// Bytes an endpoint, its share of policies and profiles included.
#[derive(Debug)]
struct Cost {
    /// Keys and values as they are stored.
    raw: i64,
    /// What the reader of the datastore knows, and the decoded state.
    state: i64,
    /// Policy, sets and routes made of it.
    graph: i64,
}

/// The cluster is stored, read, and resolved.
async fn held(labelled: Labelled) -> Cost {
    let store = Memory::new();
    let mut raw = 0;
    for (key, value) in cluster(FULL, labelled) {
        raw += (key.len() + value.len()) as i64;
        store.put(&key, value.as_bytes(), Expect::Anything, None).await.unwrap();
    }
    let before = counting::held();
    let mut syncer = Syncer::start(Arc::new(store.clone()), &[RESOURCES_PREFIX], 1);
    let mut state = State::new("node-7", &Prefix::default());
    loop {
        let batch = syncer.batches.recv().await.unwrap();
        state.apply(&batch.changes);
        if batch.in_sync {
            break;
        }
    }
    // The syncer's task lets go of what it handed over.
    tokio::task::yield_now().await;
    let read = counting::held();
    let mut graph = CalicoGraph::new("node-7", RouteSource::default());
    sync(&mut graph, state.calico());
    graph.flush();
    let resolved = counting::held();
    assert_eq!(state.complaints().count(), 0);
    assert_eq!((state.calico().workloads().len(), state.calico().policies().len()), (FULL, FULL / 10));
    assert_eq!(graph.resolution().workloads.len(), cluster::ON_A_NODE);
    let each = |bytes: i64| bytes / FULL as i64;
    let cost = Cost { raw: each(raw), state: each(read - before), graph: each(resolved - read) };
    println!("{FULL} endpoints, labels {labelled:?}; bytes an endpoint: {cost:?}");
    cost
}

/// What is held beyond the raw data is within a limit, bytes an endpoint.
fn fits(labelled: Labelled, limit: i64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let cost = runtime.block_on(held(labelled));
    assert!(cost.state + cost.graph - cost.raw <= limit, "{cost:?}");
}

#[test]
fn pods_of_deployments_take_half_a_kilobyte_over_the_raw_data_at_most() {
    fits(Labelled::ByDeployment, 512);
}

#[test]
fn pods_with_labels_of_their_own_take_a_kilobyte_at_most() {
    fits(Labelled::OneByOne, 1024);
}
