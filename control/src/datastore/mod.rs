//! Where desired state is kept: one trait over etcd, a directory of documents, and memory.
//!
//! All three speak etcd v3's language (string keys, opaque values, revisions, lease objects),
//! so that everything above decodes one key space whatever is below.
//!
//! In reading order: [`memory`] for tests, [`etcd`], [`dir`] (the embedded default), the [`syncer`] that turns
//! any of them into a stream of batches, and [`snapshot`], the last good state on disk. `feed` is the small
//! revision log behind the two stores that live in this process.

pub mod dir;
pub mod etcd;
mod feed;
pub mod memory;
pub mod snapshot;
pub mod syncer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

/// A position in the history of a datastore; grows by one with every write, as etcd's.
pub type Revision = i64;

/// Identifies an etcd lease object; `None` where a key lives until it is deleted.
pub type LeaseId = i64;

/// One key with its current value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Full key, e.g. `/coreos.com/network/subnets/10.244.1.0-24`.
    pub key: String,
    /// Raw value.
    pub value: Vec<u8>,
    /// Revision of the last write to this key.
    pub mod_revision: Revision,
    /// The lease object the key dies with.
    pub lease: Option<LeaseId>,
}

/// Everything under a prefix at one revision, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision the listing was taken at; a watch goes on from `revision + 1`.
    pub revision: Revision,
    /// Which history the revisions belong to (etcd: the cluster id). Another value means another store answered
    /// and revisions seen before cannot be compared with these.
    pub history: u64,
    /// The keys, sorted.
    pub entries: Vec<KeyValue>,
}

/// Everything under a prefix at one revision, without its content: enough for a reader to see that nothing is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The store's revision.
    pub revision: Revision,
    /// As [`Snapshot::history`].
    pub history: u64,
    /// How many keys there are.
    pub keys: usize,
    /// Revision of the last write to any of them; 0 without keys. Deletions leave no trace in it.
    pub newest: Revision,
}

impl From<&Snapshot> for Outline {
    fn from(listed: &Snapshot) -> Self {
        Self {
            revision: listed.revision,
            history: listed.history,
            keys: listed.entries.len(),
            newest: listed.entries.iter().map(|entry| entry.mod_revision).max().unwrap_or(0),
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Full key.
    pub key: String,
    /// The new state; `None` = deleted (by hand or with its lease object).
    pub value: Option<KeyValue>,
    /// Revision of the change.
    pub revision: Revision,
}

/// What a watch stream yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Changes up to `revision`, in order; empty = progress notification.
    Changes {
        /// Revision the stream has reached; resume from `revision + 1`.
        revision: Revision,
        /// In order of revision.
        changes: Vec<Change>,
    },
    /// The asked revision has been compacted: list again, then watch from there.
    Compacted {
        /// The oldest revision still available.
        compact_revision: Revision,
    },
}

/// Content of a datastore that it cannot make keys of, so that no reader of keys can complain of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Where it is, e.g. a file.
    pub place: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why a datastore did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, connection refused, stream ended, time-out: retry with back-off.
    #[error("datastore unavailable: {0}")]
    Unavailable(String),
    /// Wrong user, password, certificate or missing role.
    #[error("datastore refused access: {0}")]
    Denied(String),
    /// The datastore answered something that makes no sense to us.
    #[error("datastore answered out of protocol: {0}")]
    Protocol(String),
    /// A file of the directory datastore could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The condition of a write (etcd transaction compare).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist (`version == 0`).
    Absent,
    /// The key's `mod_revision` must be this.
    Unchanged(Revision),
    /// Write whatever is there.
    Anything,
}

/// Outcome of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Done, at this revision.
    At(Revision),
    /// The condition did not hold; nothing was written.
    Conflict,
}

/// A key-value store with etcd v3's semantics.
#[async_trait]
pub trait Datastore: Send + Sync + fmt::Debug {
    /// For humans: kind and place, without secrets, e.g. `etcd https://10.0.0.1:2379`.
    fn describe(&self) -> String;

    /// Whether a revision means the same to the next process. If not, only what is stored says whether it is the same.
    fn keeps_revisions(&self) -> bool {
        true
    }

    /// All keys that start with `prefix`, at one revision.
    async fn list(&self, prefix: &str) -> Result<Snapshot, Error>;

    /// The same page by page, for readers that need not hold all of it at once. All pages are of one revision; there is
    /// at least one, be it empty. After an error there are no more: what came before it is a part of a state.
    fn pages<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Snapshot, Error>> {
        stream::once(self.list(prefix)).boxed()
    }

    /// One key; `None` if it does not exist.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        let listed = self.list(key).await?;
        Ok(listed.entries.into_iter().find(|entry| entry.key == key))
    }

    /// The outline of what [`Datastore::list`] would list. As up to date as a listing: not from a server that lags.
    async fn outline(&self, prefix: &str) -> Result<Outline, Error> {
        Ok(Outline::from(&self.list(prefix).await?))
    }

    /// Changes of keys that start with `prefix`, from revision `from` on (inclusive). The stream ends with an
    /// error when the connection is lost; it is the caller (see `syncer`) that resumes or lists again.
    ///
    /// A stream that starts with an empty [`WatchEvent::Changes`] whose revision is below `from - 1` says that the
    /// store has gone back in time (wiped, restored): etcd itself would silently wait until `from` is reached.
    async fn watch(
        &self,
        prefix: &str,
        from: Revision,
    ) -> Result<BoxStream<'static, Result<WatchEvent, Error>>, Error>;

    /// Writes one key under a condition, bound to a lease object if given.
    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Result<Written, Error>;

    /// Deletes one key under a condition.
    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, Error>;

    /// What cannot be used right now, in order of place, and every later word about it. Stores in which every value has a
    /// key have nothing to say; their receiver is closed.
    fn unusable(&self) -> watch::Receiver<Arc<[Unusable]>> {
        watch::channel(Arc::default()).1
    }

    /// A new lease object that expires after `ttl` unless replaced (flannel never keeps one alive). `None` where
    /// the store has no expiry (directory): keys written there live until deleted.
    async fn grant(&self, ttl: Duration) -> Result<Option<LeaseId>, Error>;

    /// Gives a lease object up; keys bound to it are deleted.
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;
}
