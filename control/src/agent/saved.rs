//! The last good state on disk: written when something changed, read when the datastore is away at the start.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::datastore::snapshot::{self, SnapshotError};
use crate::datastore::{Change, KeyValue, Revision};
use crate::flannel::acquire::LEASE_TTL;
use crate::model::calico::{WorkloadEndpoint, WorkloadKey};
use crate::model::flannel::Prefix;
use crate::state::State;

/// At most one look in this time: a cluster that starts writes leases by the hundred.
const PERIOD: Duration = Duration::from_secs(10);

/// Most that is written on average, bytes a second, however large the cluster and however busy.
const RATE: u64 = 1 << 20;

/// Older than this it is not gone on with: by then every lease in it has expired unless it was renewed, ours too, and
/// another node may have been given our subnet.
pub(super) const OLDEST: Duration = LEASE_TTL;

/// Writes the state now and then.
#[derive(Debug)]
pub(super) struct Saver {
    path: PathBuf,
    source: String,
    looked: Option<Instant>,
    /// The revision that was looked at last, and the leases that were left out.
    seen: Option<(Revision, BTreeSet<String>)>,
    /// Digest of what was written last; a copy would be as large as the datastore.
    last: Option<u64>,
    digest: RandomState,
    writing: Option<JoinHandle<Result<Written, SnapshotError>>>,
    /// Between two looks.
    period: Duration,
    /// What was in the way the last time.
    pub(super) trouble: Option<String>,
}

impl Saver {
    pub(super) fn new(path: PathBuf, source: String) -> Self {
        Self {
            path,
            source,
            looked: None,
            seen: None,
            last: None,
            digest: RandomState::new(),
            writing: None,
            period: PERIOD,
            trouble: None,
        }
    }

    /// When to look for something new again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.looked.map(|looked| looked + self.period)
    }

    /// Writes if there is something new. False when it is too early to look, or nobody knows yet what became of the
    /// last write.
    pub(super) async fn save(&mut self, state: &State, without: &BTreeSet<String>) -> bool {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            self.settle(writing).await;
        }
        if self.writing.is_some() || self.due().is_some_and(|due| Instant::now() < due) {
            return false;
        }
        self.looked = Some(Instant::now());
        if self.seen.as_ref().is_some_and(|(revision, left)| *revision == state.revision() && left == without)
        {
            return true;
        }
        self.seen = Some((state.revision(), without.clone()));
        let (content, digest, last) = (Content::of(state, without), self.digest.clone(), self.last);
        let (path, source, revision) = (self.path.clone(), self.source.clone(), state.revision());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let digest = digest.hash_one(&content);
            if last == Some(digest) {
                return Ok(Written { digest, bytes: None });
            }
            let (saved_at, entries) = (SystemTime::now(), content.entries());
            let bytes = snapshot::save(&path, snapshot::Saved { source, revision, saved_at, entries })?;
            Ok(Written { digest, bytes: Some(bytes) })
        }));
        false
    }

    /// Writes what is new, at once, before the process ends.
    pub(super) async fn finish(&mut self, state: &State, without: &BTreeSet<String>) {
        if let Some(writing) = self.writing.take() {
            self.settle(writing).await;
        }
        self.looked = None;
        self.save(state, without).await;
        if let Some(writing) = self.writing.take() {
            self.settle(writing).await;
        }
    }

    async fn settle(&mut self, writing: JoinHandle<Result<Written, SnapshotError>>) {
        let outcome = writing.await.map_err(|panic| panic.to_string());
        self.trouble = match outcome.and_then(|written| written.map_err(|error| error.to_string())) {
            Ok(Written { digest, bytes }) => {
                self.last = Some(digest);
                if let Some(bytes) = bytes {
                    self.period = PERIOD.max(Duration::from_secs(bytes / RATE));
                }
                None
            }
            Err(why) => {
                tracing::warn!("the last good state could not be saved: {why}");
                (self.last, self.seen) = (None, None);
                Some(why)
            }
        };
    }
}

/// What became of a look at the state.
#[derive(Debug)]
struct Written {
    digest: u64,
    /// Length of the file; `None` = it says the same already.
    bytes: Option<u64>,
}

/// What of a state is saved. Taken out of it by the control task, which must not be away for long; what takes its time,
/// comparing and writing, is done elsewhere.
#[derive(Hash)]
struct Content {
    documents: Vec<(String, Vec<u8>)>,
    remote: Vec<(WorkloadKey, Arc<WorkloadEndpoint>)>,
}

impl Content {
    fn of(state: &State, without: &BTreeSet<String>) -> Self {
        let documents = state.documents().filter(|(key, _)| !without.contains(*key));
        let remote = state.remote_workloads().map(|(key, endpoint)| (key.clone(), Arc::clone(endpoint)));
        Self {
            documents: documents.map(|(key, value)| (key.to_owned(), value.to_vec())).collect(),
            remote: remote.collect(),
        }
    }

    fn entries(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, [u8]>)> {
        let documents = self.documents.iter().map(|(key, value)| (key.into(), value.into()));
        let remote = self.remote.iter();
        documents.chain(remote.map(|(key, endpoint)| (key.key().into(), endpoint.to_document().into())))
    }
}

/// Why what was saved is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("nothing was saved")]
    Nothing,
    #[error(transparent)]
    Unreadable(#[from] SnapshotError),
    #[error("what was saved is of another datastore, {0}")]
    OtherSource(String),
    #[error("what was saved is {} h old, older than any lease", .0.as_secs() / 3600)]
    TooOld(Duration),
}

/// Reads what was saved of this datastore, with its age.
pub(super) fn load(
    path: &Path,
    source: &str,
    nodename: &str,
    prefix: &Prefix,
) -> Result<(State, Duration), Unusable> {
    let saved = snapshot::load(path)?.ok_or(Unusable::Nothing)?;
    if saved.source != source {
        return Err(Unusable::OtherSource(saved.source));
    }
    // A clock that was set back makes it look young: then it is as old as can be told.
    let age = SystemTime::now().duration_since(saved.saved_at).unwrap_or_default();
    if age > OLDEST {
        return Err(Unusable::TooOld(age));
    }
    let change = |(key, value): (String, Vec<u8>)| {
        // Losers against newer leases were not saved, so that the revisions of single keys are not missed.
        let mod_revision = Revision::MIN;
        let entry = KeyValue { key: key.clone(), value, mod_revision, lease: None };
        Change { key, value: Some(entry), revision: mod_revision }
    };
    let changes: Vec<Change> = saved.entries.into_iter().map(change).collect();
    let mut state = State::new(nodename, prefix);
    state.apply(&changes);
    state.reached(saved.revision);
    Ok((state, age))
}
