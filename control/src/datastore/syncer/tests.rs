//! The syncer's promises, one by one, against the memory store under tokio's paused clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::datastore::memory::{Fault, Memory};
use crate::datastore::{Expect, WatchEvent};

type View = BTreeMap<String, Vec<u8>>;

fn apply(view: &mut View, batch: &Batch) {
    for change in &batch.changes {
        match &change.value {
            Some(entry) => view.insert(change.key.clone(), entry.value.clone()),
            None => view.remove(&change.key),
        };
    }
}

async fn put(store: &Memory, key: &str, value: &str) {
    store.put(key, value.as_bytes(), Expect::Anything, None).await.unwrap();
}

async fn next(syncer: &mut Syncer) -> Batch {
    let wait = Duration::from_secs(60);
    tokio::time::timeout(wait, syncer.batches.recv()).await.expect("a batch in time").expect("syncer runs")
}

async fn until_in_sync(syncer: &mut Syncer, view: &mut View) {
    loop {
        let batch = next(syncer).await;
        apply(view, &batch);
        if batch.in_sync {
            return;
        }
    }
}

fn start(store: &Memory, prefixes: &[&str]) -> Syncer {
    Syncer::start(Arc::new(store.clone()), prefixes, 1)
}

#[tokio::test(start_paused = true)]
async fn in_sync_comes_after_the_last_prefix_and_only_then() {
    let store = Memory::new();
    for n in 0..2500 {
        put(&store, &format!("/a/{n:04}"), "v").await;
    }
    put(&store, "/b/1", "v").await;
    let mut syncer = start(&store, &["/b/", "/a/", "/empty/", "/a/12"]);
    let mut view = View::new();
    loop {
        let batch = next(&mut syncer).await;
        assert!(batch.changes.len() <= BATCH_CHANGES);
        apply(&mut view, &batch);
        assert_eq!(batch.in_sync, view.len() == 2501, "{} keys", view.len());
        if batch.in_sync {
            break;
        }
    }
    assert_eq!(syncer.status.borrow().phase, Phase::InSync);
    assert_eq!(syncer.status.borrow().last_revision, store.revision());
}

#[tokio::test(start_paused = true)]
async fn a_first_listing_that_breaks_off_is_begun_anew() {
    let store = Memory::new();
    // More pages than may wait for the reader.
    for n in 0..10_000 {
        put(&store, &format!("/a/{n:04}"), "v").await;
    }
    let mut syncer = start(&store, &["/a/"]);
    let mut view = View::new();
    apply(&mut view, &next(&mut syncer).await);
    store.set_fault(Some(Fault::Unavailable));
    while let Ok(batch) = tokio::time::timeout(Duration::from_millis(1), syncer.batches.recv()).await {
        apply(&mut view, &batch.expect("syncer runs"));
    }
    assert_eq!(syncer.status.borrow().phase, Phase::ResyncInProgress);
    assert!((1..9_000).contains(&view.len()), "{} keys", view.len());
    store.set_fault(None);
    for n in 0..9_000 {
        store.delete(&format!("/a/{n:04}"), Expect::Anything).await.unwrap();
    }
    put(&store, "/a/9500", "new").await;
    until_in_sync(&mut syncer, &mut view).await;
    assert_eq!((view.len(), &*view["/a/9500"]), (1000, &b"new"[..]));
    assert_eq!(syncer.status.borrow().relists, 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_is_in_sync_too() {
    let mut syncer = start(&Memory::new(), &["/a/"]);
    let batch = next(&mut syncer).await;
    let expected =
        Batch { changes: Vec::new(), revision: 1, complete: 1, in_sync: true, revision_went_back: false };
    assert_eq!(batch, expected);
}

#[tokio::test(start_paused = true)]
async fn an_absent_store_is_asked_ever_more_rarely() {
    let store = Memory::new();
    store.set_fault(Some(Fault::Denied));
    let mut syncer = start(&store, &["/a/"]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!((100..260).contains(&store.calls()), "{} calls in ten minutes", store.calls());
    let status = syncer.status.borrow().clone();
    assert_eq!(status.phase, Phase::WaitForDatastore);
    assert_eq!(status.last_contact, None);
    assert!(status.last_error.unwrap().contains("refused access"));
    store.set_fault(None);
    assert!(next(&mut syncer).await.in_sync);
    assert_eq!(syncer.status.borrow().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_resumes_without_listing_and_without_loss() {
    let store = Memory::new();
    put(&store, "/a/1", "old").await;
    let mut syncer = start(&store, &["/a/"]);
    let mut view = View::new();
    until_in_sync(&mut syncer, &mut view).await;
    store.set_fault(Some(Fault::Unavailable));
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.set_fault(None);
    put(&store, "/a/1", "new").await;
    store.delete("/a/1", Expect::Anything).await.unwrap();
    put(&store, "/a/2", "x").await;
    let batch = next(&mut syncer).await;
    assert!(batch.in_sync, "never revoked");
    apply(&mut view, &batch);
    assert_eq!(view.keys().collect::<Vec<_>>(), ["/a/2"]);
    let status = syncer.status.borrow().clone();
    assert_eq!(status.relists, 0);
    assert!(status.reconnects > 0);
}

#[tokio::test(start_paused = true)]
async fn compaction_while_away_lists_again_and_tells_only_the_difference() {
    let store = Memory::new();
    for key in ["/a/kept", "/a/gone", "/a/changed"] {
        put(&store, key, "1").await;
    }
    let mut syncer = start(&store, &["/a/"]);
    until_in_sync(&mut syncer, &mut View::new()).await;
    store.set_fault(Some(Fault::Unavailable));
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.set_fault(None);
    store.delete("/a/gone", Expect::Anything).await.unwrap();
    put(&store, "/a/changed", "2").await;
    store.compact(store.revision());
    let batch = next(&mut syncer).await;
    let told: Vec<_> = batch.changes.iter().map(|c| (c.key.as_str(), c.value.is_some())).collect();
    assert_eq!(told, [("/a/changed", true), ("/a/gone", false)]);
    assert!(!batch.revision_went_back);
    assert_eq!(syncer.status.borrow().relists, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wiped_store_is_one_marked_batch() {
    let store = Memory::new();
    for n in 0..1500 {
        put(&store, &format!("/a/{n}"), "v").await;
    }
    let mut syncer = start(&store, &["/a/"]);
    let mut view = View::new();
    until_in_sync(&mut syncer, &mut view).await;
    store.wipe();
    let batch = next(&mut syncer).await;
    assert!(batch.revision_went_back && batch.in_sync);
    assert_eq!((batch.changes.len(), batch.revision), (1500, 1));
    put(&store, "/a/new", "v").await;
    let batch = next(&mut syncer).await;
    assert_eq!((batch.changes.len(), batch.revision, batch.revision_went_back), (1, 2, false));
}

#[tokio::test(start_paused = true)]
async fn another_store_with_higher_revisions_is_noticed() {
    let store = Memory::new();
    put(&store, "/a/1", "one").await;
    let mut syncer = start(&store, &["/a/"]);
    until_in_sync(&mut syncer, &mut View::new()).await;
    store.wipe();
    store.set_history(99);
    put(&store, "/a/1", "two").await;
    put(&store, "/a/2", "x").await;
    let batch = next(&mut syncer).await;
    assert!(batch.revision_went_back);
    assert_eq!(batch.changes.len(), 2, "same revision, other value: {batch:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_last_value_once() {
    let store = Memory::new();
    let mut syncer = start(&store, &["/a/"]);
    until_in_sync(&mut syncer, &mut View::new()).await;
    for n in 0..5000 {
        put(&store, "/a/flapping", &n.to_string()).await;
        tokio::task::yield_now().await;
    }
    let mut batches = 0;
    loop {
        let batch = next(&mut syncer).await;
        batches += 1;
        assert!(batch.changes.len() <= 1);
        if batch.revision == store.revision() {
            let value = batch.changes[0].value.clone().unwrap().value;
            assert_eq!(value, b"4999");
            break;
        }
    }
    assert!(batches <= 10, "{batches} batches for one key");
}

/// What is odd about a store's watches.
#[derive(Clone, Copy, Debug)]
enum Watches {
    /// They are accepted, and the revision called compacted at once, whatever it is.
    Compacted,
    /// They never hear of anything.
    Deaf,
}

/// A store with odd watches.
#[derive(Debug)]
struct Odd(Memory, Watches);

#[async_trait::async_trait]
impl Datastore for Odd {
    fn describe(&self) -> String {
        "odd".to_owned()
    }
    async fn list(&self, prefix: &str) -> Result<crate::datastore::Snapshot, crate::datastore::Error> {
        self.0.list(prefix).await
    }
    async fn watch(
        &self,
        _: &str,
        from: Revision,
    ) -> Result<
        futures::stream::BoxStream<'static, Result<WatchEvent, crate::datastore::Error>>,
        crate::datastore::Error,
    > {
        Ok(match self.1 {
            Watches::Compacted => {
                let event = Ok(WatchEvent::Compacted { compact_revision: from });
                Box::pin(futures::stream::iter([event]))
            }
            Watches::Deaf => Box::pin(futures::stream::pending()),
        })
    }
    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<crate::datastore::LeaseId>,
    ) -> Result<crate::datastore::Written, crate::datastore::Error> {
        self.0.put(key, value, expect, lease).await
    }
    async fn delete(
        &self,
        key: &str,
        expect: Expect,
    ) -> Result<crate::datastore::Written, crate::datastore::Error> {
        self.0.delete(key, expect).await
    }
    async fn grant(
        &self,
        ttl: Duration,
    ) -> Result<Option<crate::datastore::LeaseId>, crate::datastore::Error> {
        self.0.grant(ttl).await
    }
    async fn revoke(&self, lease: crate::datastore::LeaseId) -> Result<(), crate::datastore::Error> {
        self.0.revoke(lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn endless_compaction_is_not_a_busy_loop() {
    let memory = Memory::new();
    let mut syncer = Syncer::start(Arc::new(Odd(memory.clone(), Watches::Compacted)), &["/a/"], 1);
    let drain = async { while syncer.batches.recv().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(600), drain).await;
    assert!((100..260).contains(&memory.calls()), "{} listings in ten minutes", memory.calls());
}

/// Asks, and takes what comes within a minute.
async fn ask(syncer: &mut Syncer, revision: Revision) -> Option<Batch> {
    syncer.ask(revision);
    tokio::time::timeout(Duration::from_secs(60), syncer.batches.recv()).await.ok().flatten()
}

#[tokio::test(start_paused = true)]
async fn who_asks_learns_that_nothing_is_missing() {
    let store = Memory::new();
    put(&store, "/a/1", "v").await;
    put(&store, "/b/1", "v").await;
    let mut syncer = start(&store, &["/a/", "/b/"]);
    until_in_sync(&mut syncer, &mut View::new()).await;
    put(&store, "/a/2", "v").await;
    let batch = next(&mut syncer).await;
    assert_eq!((batch.revision, batch.complete), (4, 3), "/b/ has heard of nothing since");
    let batch = ask(&mut syncer, 4).await.unwrap();
    assert_eq!((batch.changes.len(), batch.revision, batch.complete), (0, 4, 4));
    put(&store, "/elsewhere", "v").await;
    let calls = store.calls();
    assert_eq!(ask(&mut syncer, 4).await, None, "known already: nobody is asked");
    assert_eq!(store.calls(), calls);
    let mut complete = Vec::new();
    while let Some(batch) = ask(&mut syncer, 5).await {
        complete.push(batch.complete);
    }
    assert_eq!(complete.last(), Some(&5), "{complete:?}");
    assert_eq!(ask(&mut syncer, 99).await, None, "the store is not there yet");
}

#[tokio::test(start_paused = true)]
async fn an_outline_proves_nothing_while_a_change_is_missing() {
    // Each time two changes on their way, whose effects on the number of keys cancel out or not.
    let histories: [&[(&str, bool)]; 4] =
        [&[("/a/1", true)], &[("/a/1", false)], &[("/a/1", false), ("/a/3", true)], &[("/a/3", true)]];
    for changes in histories {
        let store = Memory::new();
        put(&store, "/a/1", "v").await;
        put(&store, "/a/2", "v").await;
        let mut syncer = Syncer::start(Arc::new(Odd(store.clone(), Watches::Deaf)), &["/a/"], 1);
        until_in_sync(&mut syncer, &mut View::new()).await;
        for (key, present) in changes {
            match present {
                true => put(&store, key, "w").await,
                false => drop(store.delete(key, Expect::Anything).await.unwrap()),
            }
        }
        assert_eq!(ask(&mut syncer, store.revision()).await, None, "{changes:?}");
    }
    let store = Memory::new();
    let mut syncer = Syncer::start(Arc::new(Odd(store.clone(), Watches::Deaf)), &["/a/"], 1);
    until_in_sync(&mut syncer, &mut View::new()).await;
    put(&store, "/elsewhere", "v").await;
    assert_eq!(ask(&mut syncer, 2).await.unwrap().complete, 2);
    store.set_history(9);
    put(&store, "/elsewhere", "v").await;
    assert_eq!(ask(&mut syncer, 3).await, None, "another store's revisions prove nothing");
}
