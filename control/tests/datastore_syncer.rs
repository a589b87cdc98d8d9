//! Property: whatever happens to the store, a syncer's reader ends up with the store's content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canal_control::datastore::memory::{Fault, Memory};
use canal_control::datastore::syncer::{BATCH_CHANGES, Syncer};
use canal_control::datastore::{Datastore, Expect};
use proptest::prelude::*;

const PREFIXES: [&str; 2] = ["/a/", "/b/"];

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        value: u8,
    },
    Delete {
        key: u8,
    },
    Compact,
    Cut,
    Outage,
    Heal,
    Latency(u8),
    /// Wiped with the same identity: the syncer gets the time to notice before revisions grow past its own,
    /// because nothing in etcd's protocol tells such a store from the old one afterwards.
    Wipe,
    /// Replaced by a store with another identity and as many revisions as `revisions`.
    Replace {
        history: u64,
        revisions: u8,
    },
    Progress,
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12u8, any::<u8>()).prop_map(|(key, value)| Step::Put { key, value }),
        4 => (0..12u8).prop_map(|key| Step::Delete { key }),
        2 => Just(Step::Compact),
        2 => Just(Step::Cut),
        2 => Just(Step::Outage),
        2 => Just(Step::Heal),
        1 => (0..50u8).prop_map(Step::Latency),
        1 => Just(Step::Wipe),
        1 => (2..u64::MAX, 0..40u8).prop_map(|(history, revisions)| Step::Replace { history, revisions }),
        1 => Just(Step::Progress),
        4 => (0..3000u16).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..80)
}

fn key(number: u8) -> String {
    format!("{}{}", PREFIXES[usize::from(number) % PREFIXES.len()], number)
}

/// Writes as somebody else would: whatever the store's condition towards us is.
async fn write(store: &Memory, key: &str, value: Option<&[u8]>) {
    let result = match value {
        Some(value) => store.put(key, value, Expect::Anything, None).await,
        None => store.delete(key, Expect::Anything).await,
    };
    // During an injected outage nobody gets through, which is a legal history as well.
    drop(result);
}

async fn perform(store: &Memory, step: &Step) {
    match step {
        Step::Put { key: number, value } => write(store, &key(*number), Some(&[*value])).await,
        Step::Delete { key: number } => write(store, &key(*number), None).await,
        Step::Compact => store.compact(store.revision()),
        Step::Cut => store.cut_streams(),
        Step::Outage => store.set_fault(Some(Fault::Unavailable)),
        Step::Heal => store.set_fault(None),
        Step::Latency(ms) => store.set_latency(Duration::from_millis(u64::from(*ms))),
        Step::Wipe => {
            store.set_fault(None);
            store.wipe();
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        Step::Replace { history, revisions } => {
            store.set_fault(None);
            store.wipe();
            store.set_history(*history);
            for n in 0..*revisions {
                write(store, &key(n % 3), Some(&[n])).await;
            }
        }
        Step::Progress => store.notify_progress(),
        Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(u64::from(*ms))).await,
    }
}

async fn converges(steps: Vec<Step>, seed: u64) {
    let store = Memory::new();
    let mut syncer = Syncer::start(Arc::new(store.clone()), &PREFIXES, seed);
    let mut view: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut was_in_sync = false;

    let world = store.clone();
    let driver = tokio::spawn(async move {
        for step in &steps {
            perform(&world, step).await;
        }
        world.set_fault(None);
        world.set_latency(Duration::ZERO);
        // What a prefix loop has delivered up to this key is everything that came before.
        for prefix in PREFIXES {
            write(&world, &format!("{prefix}end"), Some(b"end")).await;
        }
    });

    let ends: Vec<String> = PREFIXES.iter().map(|prefix| format!("{prefix}end")).collect();
    let follow = async {
        while !ends.iter().all(|end| view.contains_key(end)) {
            let batch = syncer.batches.recv().await.expect("the syncer runs");
            assert!(batch.changes.len() <= BATCH_CHANGES);
            assert!(batch.in_sync || !was_in_sync, "in-sync was revoked");
            was_in_sync = batch.in_sync;
            for change in batch.changes {
                match change.value {
                    Some(entry) => view.insert(change.key, entry.value),
                    None => view.remove(&change.key),
                };
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(1200), follow).await.expect("convergence");
    driver.await.expect("the driver ends");

    let mut content = BTreeMap::new();
    for prefix in PREFIXES {
        for entry in store.list(prefix).await.expect("healed").entries {
            content.insert(entry.key, entry.value);
        }
    }
    assert_eq!(view, content);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_view_becomes_the_content(steps in steps(), seed in any::<u64>()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(converges(steps, seed));
    }
}
