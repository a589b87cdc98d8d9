//! The last good state on disk: written when something changed, read when the datastore is away at the start.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::datastore::snapshot::{self, SnapshotError};
use crate::datastore::{Change, KeyValue, Revision};
use crate::flannel::acquire::LEASE_TTL;
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
    /// Digest of what was written last; a copy would be as large as the datastore.
    last: Option<u64>,
    digest: RandomState,
    writing: Option<JoinHandle<Result<u64, SnapshotError>>>,
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
        let digest = self.digest(state, without);
        if self.last.replace(digest) == Some(digest) {
            return true;
        }
        let mut saved = snapshot::Saved {
            source: self.source.clone(),
            revision: state.revision(),
            saved_at: SystemTime::now(),
            entries: kept(state, without).map(|entry| (entry.key.clone(), entry.value.clone())).collect(),
        };
        let remote: Vec<_> =
            state.remote_workloads().map(|(key, endpoint)| (key.key(), Arc::clone(endpoint))).collect();
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            saved.entries.extend(remote.into_iter().map(|(key, endpoint)| (key, endpoint.to_document())));
            snapshot::save(&path, &saved)
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

    async fn settle(&mut self, writing: JoinHandle<Result<u64, SnapshotError>>) {
        let outcome = writing.await.map_err(|panic| panic.to_string());
        self.trouble = match outcome.and_then(|written| written.map_err(|error| error.to_string())) {
            Ok(bytes) => {
                self.period = PERIOD.max(Duration::from_secs(bytes / RATE));
                None
            }
            Err(why) => {
                tracing::warn!("the last good state could not be saved: {why}");
                self.last = None;
                Some(why)
            }
        };
    }

    fn digest(&self, state: &State, without: &BTreeSet<String>) -> u64 {
        let mut hasher = self.digest.build_hasher();
        for entry in kept(state, without) {
            for part in [entry.key.as_bytes(), &entry.value] {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
        }
        state.remote_workloads().for_each(|workload| workload.hash(&mut hasher));
        hasher.finish()
    }
}

fn kept<'a>(state: &'a State, without: &'a BTreeSet<String>) -> impl Iterator<Item = &'a KeyValue> {
    state.documents().filter(|entry| !without.contains(&entry.key))
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
