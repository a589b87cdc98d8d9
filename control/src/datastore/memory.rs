//! A datastore in memory, for tests: etcd's semantics, a clock that only moves when told, and faults on request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::watch;

use super::feed::{Edit, Feed, Log};
use super::{Datastore, Error, Expect, KeyValue, LeaseId, Revision, Snapshot, Unusable, WatchEvent, Written};

/// Changes remembered before the oldest are compacted away by themselves.
const HISTORY_CAPACITY: usize = 100_000;

/// Keys of a page.
const PAGE_KEYS: usize = 700;

/// How the store answers while it is unwell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every call is [`Error::Unavailable`].
    Unavailable,
    /// Every call is [`Error::Denied`].
    Denied,
}

#[derive(Debug)]
struct Lease {
    expires: Duration,
}

#[derive(Debug, Default)]
struct Conditions {
    now: Duration,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: LeaseId,
    fault: Option<Fault>,
    latency: Duration,
    calls: u64,
}

/// The store. Clones share one content.
#[derive(Clone)]
pub struct Memory {
    feed: Arc<Feed>,
    conditions: Arc<Mutex<Conditions>>,
    unusable: watch::Sender<Arc<[Unusable]>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("revision", &self.feed.log().revision()).finish_non_exhaustive()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty, healthy store at revision 1.
    pub fn new() -> Self {
        Self {
            feed: Feed::new(Log::new(1, HISTORY_CAPACITY)),
            conditions: Arc::default(),
            unusable: watch::Sender::new(Arc::default()),
        }
    }

    fn conditions(&self) -> MutexGuard<'_, Conditions> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every call fails this way; `None` heals. A fault also ends every watch stream.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.conditions().fault = fault;
        if fault.is_some() {
            self.feed.cut();
        }
    }

    /// From now on the store says that it cannot use these.
    pub fn set_unusable(&self, unusable: Vec<Unusable>) {
        self.unusable.send_replace(unusable.into());
    }

    /// From now on every call takes this long (tokio time) before it is looked at.
    pub fn set_latency(&self, latency: Duration) {
        self.conditions().latency = latency;
    }

    /// Ends every watch stream with [`Error::Unavailable`]; new ones work.
    pub fn cut_streams(&self) {
        self.feed.cut();
    }

    /// Sends a progress notification to every watch stream.
    pub fn notify_progress(&self) {
        self.feed.notify_progress();
    }

    /// Compacts away everything before `revision`.
    pub fn compact(&self, revision: Revision) {
        self.feed.log().compact(revision);
    }

    /// Loses everything: back to revision 1 with the same history id, as an etcd whose data directory was
    /// removed and which was started again with the same cluster token.
    pub fn wipe(&self) {
        let history = self.feed.log().history();
        *self.feed.log() = Log::new(history, HISTORY_CAPACITY);
        self.conditions().leases.clear();
        self.feed.cut();
    }

    /// From now on the store says it is another one (etcd: cluster id changed by a restore).
    pub fn set_history(&self, history: u64) {
        self.feed.log().set_history(history);
        self.feed.cut();
    }

    /// Moves the store's clock; leases that end by then take their keys with them.
    pub fn advance(&self, by: Duration) {
        let expired: Vec<LeaseId> = {
            let mut conditions = self.conditions();
            conditions.now += by;
            let now = conditions.now;
            conditions.leases.iter().filter(|(_, lease)| lease.expires <= now).map(|(id, _)| *id).collect()
        };
        for lease in expired {
            self.end_lease(lease);
        }
    }

    /// Calls seen so far, to prove that nobody hammers the store.
    pub fn calls(&self) -> u64 {
        self.conditions().calls
    }

    /// Current revision.
    pub fn revision(&self) -> Revision {
        self.feed.log().revision()
    }

    fn end_lease(&self, lease: LeaseId) {
        self.conditions().leases.remove(&lease);
        let edits = self
            .feed
            .log()
            .entries()
            .values()
            .filter(|entry| entry.lease == Some(lease))
            .map(|entry| Edit::Delete { key: entry.key.clone() })
            .collect();
        self.feed.commit(edits);
    }

    async fn call(&self) -> Result<(), Error> {
        let latency = {
            let mut conditions = self.conditions();
            conditions.calls += 1;
            conditions.latency
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match self.conditions().fault {
            None => Ok(()),
            Some(Fault::Unavailable) => Err(Error::Unavailable("fault injected".to_owned())),
            Some(Fault::Denied) => Err(Error::Denied("fault injected".to_owned())),
        }
    }
}

#[async_trait]
impl Datastore for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, Error> {
        self.call().await?;
        Ok(self.feed.log().list(prefix))
    }

    /// Fails between two pages, too, when it is told to.
    fn pages<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Snapshot, Error>> {
        let begin = stream::once(self.list(prefix)).map_ok(move |Snapshot { revision, history, entries }| {
            let mut pages: Vec<_> = entries.chunks(PAGE_KEYS).map(<[KeyValue]>::to_vec).collect();
            if pages.is_empty() {
                pages.push(Vec::new());
            }
            stream::iter(pages).then(move |entries| async move {
                self.call().await?;
                Ok(Snapshot { revision, history, entries })
            })
        });
        begin.try_flatten().boxed()
    }

    async fn watch(
        &self,
        prefix: &str,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error> {
        self.call().await?;
        Ok(self.feed.watch(prefix, from))
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Result<Written, Error> {
        self.call().await?;
        if let Some(id) = lease
            && !self.conditions().leases.contains_key(&id)
        {
            return Err(Error::Protocol(format!("requested lease {id:x} not found")));
        }
        Ok(self.feed.commit_if(expect, Edit::Put { key: key.to_owned(), value: value.to_vec(), lease }))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, Error> {
        self.call().await?;
        Ok(self.feed.commit_if(expect, Edit::Delete { key: key.to_owned() }))
    }

    fn unusable(&self) -> watch::Receiver<Arc<[Unusable]>> {
        self.unusable.subscribe()
    }

    async fn grant(&self, ttl: Duration) -> Result<Option<LeaseId>, Error> {
        self.call().await?;
        let mut conditions = self.conditions();
        conditions.next_lease += 1;
        let id = conditions.next_lease;
        let expires = conditions.now + ttl;
        conditions.leases.insert(id, Lease { expires });
        Ok(Some(id))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.call().await?;
        self.end_lease(lease);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn conditions_of_writes_are_etcds() {
        let store = Memory::new();
        let first = store.put("/k", b"1", Expect::Absent, None).await.unwrap();
        assert_eq!(first, Written::At(2));
        assert_eq!(store.put("/k", b"2", Expect::Absent, None).await.unwrap(), Written::Conflict);
        assert_eq!(store.put("/k", b"2", Expect::Unchanged(1), None).await.unwrap(), Written::Conflict);
        assert_eq!(store.put("/k", b"2", Expect::Unchanged(2), None).await.unwrap(), Written::At(3));
        assert_eq!(store.delete("/k", Expect::Unchanged(2)).await.unwrap(), Written::Conflict);
        assert_eq!(store.delete("/k", Expect::Unchanged(3)).await.unwrap(), Written::At(4));
        assert_eq!(store.delete("/k", Expect::Anything).await.unwrap(), Written::At(4));
    }

    #[tokio::test]
    async fn a_lease_takes_its_keys_along_when_the_clock_says_so() {
        let store = Memory::new();
        let lease = store.grant(Duration::from_secs(10)).await.unwrap();
        store.put("/a", b"1", Expect::Anything, lease).await.unwrap();
        store.put("/b", b"1", Expect::Anything, lease).await.unwrap();
        store.put("/c", b"1", Expect::Anything, None).await.unwrap();
        let mut stream = store.watch("/", 5).await.unwrap();
        store.advance(Duration::from_secs(9));
        assert_eq!(store.list("/").await.unwrap().entries.len(), 3);
        store.advance(Duration::from_secs(1));
        let WatchEvent::Changes { revision, changes } = stream.next().await.unwrap().unwrap() else {
            panic!("expected deletions");
        };
        assert_eq!(revision, 5);
        let gone: Vec<_> = changes.iter().map(|c| (c.key.as_str(), c.value.is_some())).collect();
        assert_eq!(gone, [("/a", false), ("/b", false)]);
        let again = store.put("/a", b"1", Expect::Anything, lease).await;
        assert!(matches!(again, Err(Error::Protocol(_))), "{again:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn faults_and_latency_are_as_asked() {
        let store = Memory::new();
        store.set_latency(Duration::from_secs(3));
        let begin = tokio::time::Instant::now();
        store.list("/").await.unwrap();
        assert_eq!(begin.elapsed(), Duration::from_secs(3));
        store.set_fault(Some(Fault::Denied));
        assert!(matches!(store.list("/").await, Err(Error::Denied(_))));
        store.set_fault(Some(Fault::Unavailable));
        assert!(matches!(store.watch("/", 1).await, Err(Error::Unavailable(_))));
        store.set_fault(None);
        assert!(store.list("/").await.is_ok());
    }

    #[tokio::test]
    async fn a_wipe_goes_back_to_revision_one() {
        let store = Memory::new();
        store.put("/a", b"1", Expect::Anything, None).await.unwrap();
        let mut stream = store.watch("/", 3).await.unwrap();
        store.wipe();
        assert!(matches!(stream.next().await, Some(Err(Error::Unavailable(_)))));
        let listed = store.list("/").await.unwrap();
        assert_eq!((listed.revision, listed.entries.len()), (1, 0));
    }
}
