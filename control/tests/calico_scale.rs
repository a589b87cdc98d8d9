//! A large cluster is read within the promised time: 100,000 endpoints and 10,000 policies in at most ten seconds.
//!
//! Without optimisation a tenth of it, in the same time: that finds what is quadratic.

mod cluster;

use std::time::{Duration, Instant};

use canal_control::datastore::{Change, KeyValue};
use canal_control::model::flannel::Prefix;
use canal_control::state::State;

use cluster::{Labelled, cluster};

const FULL: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_large_cluster_is_read_in_bounded_time() {
    [Labelled::ByDeployment, Labelled::OneByOne].into_iter().for_each(read);
}

fn read(labelled: Labelled) {
    let mut state = State::new("node-7", &Prefix::default());
    let change = |(key, value): (String, String)| {
        let entry = KeyValue { key: key.clone(), value: value.into_bytes(), mod_revision: 1, lease: None };
        Change { key, value: Some(entry), revision: 1 }
    };
    let changes: Vec<Change> = cluster(FULL, labelled).map(change).collect();
    let begin = Instant::now();
    state.apply(&changes);
    let took = begin.elapsed();
    println!("{FULL} endpoints, labels {labelled:?}, {} policies: {took:?}", FULL / 10);
    assert_eq!(state.complaints().count(), 0);
    assert_eq!((state.calico().workloads().len(), state.calico().policies().len()), (FULL, FULL / 10));
    assert_eq!(state.local_workloads().count(), cluster::ON_A_NODE);
    assert!(took <= LIMIT);
}
