//! A revision log with watchers: etcd's semantics for the stores that live in this process.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use super::{Change, Error, Expect, KeyValue, LeaseId, Revision, Snapshot, WatchEvent, Written};

/// One edit of one key, before it has a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Write a value.
    Put { key: String, value: Vec<u8>, lease: Option<LeaseId> },
    /// Remove the key.
    Delete { key: String },
}

/// Current keys and the changes that led to them, as far back as `compacted`.
#[derive(Debug)]
pub(super) struct Log {
    history: u64,
    revision: Revision,
    compacted: Revision,
    entries: BTreeMap<String, KeyValue>,
    changes: VecDeque<Change>,
    capacity: usize,
}

impl Log {
    /// An empty log at revision 1 (as a fresh etcd) that remembers at most `capacity` changes.
    pub(super) fn new(history: u64, capacity: usize) -> Self {
        Self {
            history,
            revision: 1,
            compacted: 0,
            entries: BTreeMap::new(),
            changes: VecDeque::new(),
            capacity,
        }
    }

    pub(super) fn history(&self) -> u64 {
        self.history
    }

    pub(super) fn set_history(&mut self, history: u64) {
        self.history = history;
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn entries(&self) -> &BTreeMap<String, KeyValue> {
        &self.entries
    }

    pub(super) fn list(&self, prefix: &str) -> Snapshot {
        let entries = self
            .entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect();
        Snapshot { revision: self.revision, history: self.history, entries }
    }

    /// Whether `expect` holds for `key` now.
    pub(super) fn holds(&self, key: &str, expect: Expect) -> bool {
        let current = self.entries.get(key).map(|entry| entry.mod_revision);
        match expect {
            Expect::Absent => current.is_none(),
            Expect::Unchanged(revision) => current == Some(revision),
            Expect::Anything => true,
        }
    }

    /// Applies all edits at one new revision; deletions of absent keys are left out, and nothing left to do
    /// leaves the revision as it is (as etcd's). Returns the revision the log is at afterwards.
    pub(super) fn commit(&mut self, edits: Vec<Edit>) -> Revision {
        let revision = self.revision + 1;
        let mut changed = false;
        for edit in edits {
            let change = match edit {
                Edit::Put { key, value, lease } => {
                    let entry = KeyValue { key: key.clone(), value, mod_revision: revision, lease };
                    self.entries.insert(key.clone(), entry.clone());
                    Change { key, value: Some(entry), revision }
                }
                Edit::Delete { key } => {
                    if self.entries.remove(&key).is_none() {
                        continue;
                    }
                    Change { key, value: None, revision }
                }
            };
            self.changes.push_back(change);
            changed = true;
        }
        if changed {
            self.revision = revision;
        }
        self.trim();
        self.revision
    }

    /// Forgets changes older than `revision` (which itself stays readable, as in etcd).
    pub(super) fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        while self.changes.front().is_some_and(|change| change.revision < self.compacted) {
            self.changes.pop_front();
        }
    }

    fn trim(&mut self) {
        if self.changes.len() > self.capacity {
            let oldest_kept = self.changes[self.changes.len() - self.capacity].revision;
            // A revision is forgotten whole: half of one would be a lie to a watcher.
            self.compact(oldest_kept + 1);
        }
    }

    /// Changes under `prefix` from revision `from` on; `Err` holds the compact revision when they are gone.
    fn since(&self, prefix: &str, from: Revision) -> Result<Vec<Change>, Revision> {
        if from < self.compacted {
            return Err(self.compacted);
        }
        let start = self.changes.partition_point(|change| change.revision < from);
        Ok(self.changes.range(start..).filter(|change| change.key.starts_with(prefix)).cloned().collect())
    }
}

/// What wakes watchers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signal {
    revision: Revision,
    cuts: u64,
    progress: u64,
}

/// A [`Log`] with any number of watch streams on it.
#[derive(Debug)]
pub(super) struct Feed {
    log: Mutex<Log>,
    signal: watch::Sender<Signal>,
}

impl Feed {
    pub(super) fn new(log: Log) -> Arc<Self> {
        Arc::new(Self { log: Mutex::new(log), signal: watch::Sender::new(Signal::default()) })
    }

    /// The log itself. A panic while it was held cannot leave it half-written in a way that matters more than
    /// going on does, hence no poisoning.
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies edits and wakes the watchers.
    pub(super) fn commit(&self, edits: Vec<Edit>) -> Revision {
        let revision = self.log().commit(edits);
        self.signal.send_modify(|signal| signal.revision = revision);
        revision
    }

    /// Applies one edit if `expect` holds for its key, and wakes the watchers.
    pub(super) fn commit_if(&self, expect: Expect, edit: Edit) -> Written {
        let revision = {
            let mut log = self.log();
            let (Edit::Put { key, .. } | Edit::Delete { key }) = &edit;
            if !log.holds(key, expect) {
                return Written::Conflict;
            }
            log.commit(vec![edit])
        };
        self.signal.send_modify(|signal| signal.revision = revision);
        Written::At(revision)
    }

    /// Ends every stream there is now with [`Error::Unavailable`].
    pub(super) fn cut(&self) {
        self.signal.send_modify(|signal| signal.cuts += 1);
    }

    /// Makes every stream yield a progress notification.
    pub(super) fn notify_progress(&self) {
        self.signal.send_modify(|signal| signal.progress += 1);
    }

    /// The stream of [`super::Datastore::watch`].
    pub(super) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        from: Revision,
    ) -> BoxStream<'static, Result<WatchEvent, Error>> {
        let signal = self.signal.subscribe();
        let at_start = *signal.borrow();
        let follower = Follower {
            feed: self.clone(),
            signal,
            at_start,
            prefix: prefix.to_owned(),
            next: from,
            started: false,
            ended: false,
        };
        stream::unfold(follower, |mut follower| async move {
            let event = follower.event().await?;
            Some((event, follower))
        })
        .boxed()
    }
}

struct Follower {
    feed: Arc<Feed>,
    signal: watch::Receiver<Signal>,
    at_start: Signal,
    prefix: String,
    next: Revision,
    started: bool,
    ended: bool,
}

impl Follower {
    async fn event(&mut self) -> Option<Result<WatchEvent, Error>> {
        if self.ended {
            return None;
        }
        loop {
            let signal = *self.signal.borrow_and_update();
            if signal.cuts != self.at_start.cuts {
                self.ended = true;
                return Some(Err(Error::Unavailable("watch stream ended".to_owned())));
            }
            if let Some(event) = self.poll_log() {
                return Some(Ok(event));
            }
            if signal.progress != self.at_start.progress {
                self.at_start.progress = signal.progress;
                return Some(Ok(WatchEvent::Changes { revision: self.next - 1, changes: Vec::new() }));
            }
            if self.signal.changed().await.is_err() {
                self.ended = true;
                return Some(Err(Error::Unavailable("datastore closed".to_owned())));
            }
        }
    }

    fn poll_log(&mut self) -> Option<WatchEvent> {
        let feed = self.feed.clone();
        let log = feed.log();
        let first = !std::mem::replace(&mut self.started, true);
        if first && log.revision() < self.next - 1 {
            return Some(WatchEvent::Changes { revision: log.revision(), changes: Vec::new() });
        }
        match log.since(&self.prefix, self.next) {
            Err(compact_revision) => {
                self.ended = true;
                Some(WatchEvent::Compacted { compact_revision })
            }
            Ok(changes) => {
                self.next = self.next.max(log.revision() + 1);
                let revision = log.revision();
                (!changes.is_empty()).then_some(WatchEvent::Changes { revision, changes })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Edit {
        Edit::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease: None }
    }

    #[test]
    fn a_commit_is_one_revision_and_lists_in_key_order() {
        let mut log = Log::new(7, 10);
        assert_eq!(log.commit(vec![put("/b", "1"), put("/a", "2")]), 2);
        assert_eq!(log.commit(vec![Edit::Delete { key: "/absent".to_owned() }]), 2);
        let listed = log.list("/");
        assert_eq!(listed.revision, 2);
        assert_eq!(listed.history, 7);
        let keys: Vec<_> = listed.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["/a", "/b"]);
        assert_eq!(log.list("/b").entries.len(), 1);
    }

    #[test]
    fn a_full_log_forgets_whole_revisions() {
        let mut log = Log::new(0, 2);
        log.commit(vec![put("/a", "1"), put("/b", "1")]);
        log.commit(vec![put("/c", "1")]);
        assert_eq!(log.since("/", 2), Err(3));
        assert_eq!(log.since("/", 3).map(|changes| changes.len()), Ok(1));
    }

    #[test]
    fn compaction_keeps_the_asked_revision_readable() {
        let mut log = Log::new(0, 10);
        for value in ["1", "2", "3"] {
            log.commit(vec![put("/a", value)]);
        }
        log.compact(3);
        assert_eq!(log.since("/", 2), Err(3));
        assert_eq!(log.since("/", 3).map(|changes| changes.len()), Ok(2));
    }

    #[tokio::test]
    async fn watchers_see_history_then_changes_then_the_cut() {
        let feed = Feed::new(Log::new(0, 10));
        feed.commit(vec![put("/a", "1")]);
        let mut stream = feed.watch("/a", 2);
        let Some(Ok(WatchEvent::Changes { revision: 2, changes })) = stream.next().await else {
            panic!("expected the change at revision 2");
        };
        assert_eq!(changes.len(), 1);
        feed.commit(vec![put("/other", "1")]);
        feed.notify_progress();
        assert_eq!(
            stream.next().await.unwrap().unwrap(),
            WatchEvent::Changes { revision: 3, changes: Vec::new() }
        );
        feed.cut();
        assert!(matches!(stream.next().await, Some(Err(Error::Unavailable(_)))));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_watch_from_the_future_is_told_that_the_store_went_back() {
        let feed = Feed::new(Log::new(0, 10));
        let mut stream = feed.watch("/", 50);
        assert_eq!(
            stream.next().await.unwrap().unwrap(),
            WatchEvent::Changes { revision: 1, changes: Vec::new() }
        );
    }
}
