//! Keeps a reader in step with a datastore: list, watch, resume, list again when history is gone.
//!
//! One task per syncer. Every prefix has its own loop in it (`follow`); what the loops find is merged into
//! bounded [`Batch`]es (`merge`). A reader that is slow slows the loops down and gets bigger batches, never a
//! longer queue. Nothing here decodes a value.

mod backoff;
mod follow;
mod merge;

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Change, Datastore, Revision};

/// Most changes in one batch (Calico's syncers use the same number). Only a batch with
/// [`Batch::revision_went_back`] may be larger, because it must be judged as a whole.
pub const BATCH_CHANGES: usize = 1000;

/// Batches that wait for the reader.
const BATCHES_QUEUED: usize = 2;

/// Findings of the prefix loops that wait to be merged.
const FINDINGS_QUEUED: usize = 4;

/// Changes to apply in order; afterwards the reader's view is the store's at `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// At most one per key; deletions have no value. May be empty (progress, or the end of an empty listing).
    pub changes: Vec<Change>,
    /// The highest revision any prefix has reached. Prefixes are watched by streams of their own, so that one
    /// which lags by a moment is not accounted for.
    pub revision: Revision,
    /// The revision that every prefix has reached: nothing up to it is missing. A store says nothing of revisions
    /// that concern other keys, so that this may stay behind for long; [`Syncer::ask`] finds out.
    pub complete: Revision,
    /// Every prefix has been listed completely by the end of this batch. Once true, true for ever.
    pub in_sync: bool,
    /// The store went back in time or is another one (wiped, restored, other cluster id). `changes` is the
    /// whole difference of one prefix to what was delivered before, so a wiped store shows as the deletion of
    /// everything: the reader may rather hold what it has.
    pub revision_went_back: bool,
}

/// How far a syncer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing has been heard from the datastore.
    WaitForDatastore,
    /// The first listings are on their way.
    ResyncInProgress,
    /// Everything has been listed once. Later outages do not change this: the view is old, not incomplete.
    InSync,
}

/// A syncer's condition, for health and humans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncStatus {
    /// How far it has come.
    pub phase: Phase,
    /// As [`Batch::revision`] of the last batch handed over; 0 before the first.
    pub last_revision: Revision,
    /// When the datastore last answered anything (tokio's monotonic clock).
    pub last_contact: Option<Instant>,
    /// The last failure, until the datastore answers again.
    pub last_error: Option<String>,
    /// Listings after the first of each prefix.
    pub relists: u64,
    /// Watches set up again after a failure.
    pub reconnects: u64,
}

impl SyncStatus {
    fn new() -> Self {
        Self {
            phase: Phase::WaitForDatastore,
            last_revision: 0,
            last_contact: None,
            last_error: None,
            relists: 0,
            reconnects: 0,
        }
    }
}

/// A running syncer; dropping it ends its task.
#[derive(Debug)]
pub struct Syncer {
    /// The batches, in order. Ends only when the syncer ends.
    pub batches: mpsc::Receiver<Batch>,
    /// The condition, readable at any time and clonable.
    pub status: watch::Receiver<SyncStatus>,
    asked: watch::Sender<Revision>,
    task: JoinHandle<()>,
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Syncer {
    /// Starts to follow everything under `prefixes` (a prefix inside another is covered by the latter). `seed`
    /// makes the jitter of the back-off repeatable in tests; give a random one otherwise, so that the hosts of
    /// a cluster do not come back all at once. Must be called inside a tokio runtime.
    pub fn start(store: Arc<dyn Datastore>, prefixes: &[&str], seed: u64) -> Self {
        let prefixes = outermost(prefixes);
        let (findings, found) = mpsc::channel(FINDINGS_QUEUED);
        let (batch_tx, batches) = mpsc::channel(BATCHES_QUEUED);
        let (status_tx, status) = watch::channel(SyncStatus::new());
        let status_tx = Arc::new(status_tx);
        let asked = watch::Sender::new(0);

        let merger = merge::Merger::new(prefixes.len(), found, status_tx.clone());
        let loops: Vec<_> = prefixes
            .into_iter()
            .enumerate()
            .map(|(index, prefix)| {
                let seed = seed.wrapping_add(index as u64);
                let tell = follow::Tell { findings: findings.clone(), status: status_tx.clone() };
                follow::Follower::new(store.clone(), index, prefix, seed, asked.subscribe(), tell)
            })
            .collect();
        drop(findings);

        let task = tokio::spawn(async move {
            let loops = join_all(loops.into_iter().map(follow::Follower::run));
            // Whichever ends first (it is the reader that went away) ends the other.
            tokio::select! {
                _ = loops => {}
                () = merger.run(batch_tx) => {}
            }
        });
        Self { batches, status, asked, task }
    }

    /// Somebody wants to know whether everything up to `revision` has been read. Prefixes that cannot tell ask the
    /// store, once for each call, and say so with an empty batch whose [`Batch::complete`] is higher. No answer: it is
    /// not so yet, or the store did not answer.
    pub fn ask(&self, revision: Revision) {
        self.asked.send_replace(revision);
    }
}

/// Sorted, without duplicates and without prefixes that another one covers.
fn outermost(prefixes: &[&str]) -> Vec<String> {
    let mut sorted: Vec<&str> = prefixes.to_vec();
    sorted.sort_unstable();
    let mut kept: Vec<String> = Vec::new();
    for prefix in sorted {
        if kept.last().is_none_or(|last| !prefix.starts_with(last.as_str())) {
            kept.push(prefix.to_owned());
        }
    }
    kept
}

#[cfg(test)]
mod tests;
