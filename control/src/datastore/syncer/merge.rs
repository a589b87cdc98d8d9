//! Merges what the prefix loops find into bounded batches for the reader.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::follow::Finding;
use super::{BATCH_CHANGES, Batch, Phase, SyncStatus};
use crate::datastore::{Change, Revision};

/// Batches being filled before the loops have to wait: one that is full and one that is begun.
const OPEN_BATCHES: usize = 2;

/// Findings merged into one batch before it has to go: a key that never stops changing must not hold back the
/// batch it is in.
const FINDINGS_MERGED: usize = 1000;

/// A batch that can still grow.
struct Open {
    batch: Batch,
    merged: usize,
    /// Where in the batch a key is.
    place: HashMap<String, usize>,
}

impl Open {
    fn takes(&self, finding: &Finding) -> bool {
        !finding.went_back
            && !self.batch.revision_went_back
            && self.merged < FINDINGS_MERGED
            && self.batch.changes.len() + finding.changes.len() <= BATCH_CHANGES
    }

    /// The later change of a key replaces the earlier one: a batch is applied as a whole.
    fn add(&mut self, change: Change) {
        if let Some(&place) = self.place.get(&change.key) {
            self.batch.changes[place] = change;
        } else {
            self.place.insert(change.key.clone(), self.batch.changes.len());
            self.batch.changes.push(change);
        }
    }
}

pub(super) struct Merger {
    found: mpsc::Receiver<Finding>,
    status: Arc<watch::Sender<SyncStatus>>,
    open: VecDeque<Open>,
    /// Per prefix: listed once, and the revision reached.
    listed: Vec<bool>,
    reached: Vec<Revision>,
}

impl Merger {
    pub(super) fn new(
        prefixes: usize,
        found: mpsc::Receiver<Finding>,
        status: Arc<watch::Sender<SyncStatus>>,
    ) -> Self {
        Self {
            found,
            status,
            open: VecDeque::new(),
            listed: vec![false; prefixes],
            reached: vec![0; prefixes],
        }
    }

    /// Runs until the reader is gone. Merging goes first, so that batches are as large as they may be.
    pub(super) async fn run(mut self, batches: mpsc::Sender<Batch>) {
        loop {
            tokio::select! {
                biased;
                () = batches.closed() => return,
                finding = self.found.recv(), if self.open.len() < OPEN_BATCHES => match finding {
                    Some(finding) => self.take(finding),
                    None => return,
                },
                permit = batches.reserve(), if !self.open.is_empty() => {
                    let (Ok(permit), Some(open)) = (permit, self.open.pop_front()) else { return };
                    let (revision, in_sync) = (open.batch.revision, open.batch.in_sync);
                    // Status first: who holds the batch must not see an older condition.
                    self.status.send_modify(|status| {
                        status.last_revision = revision;
                        if in_sync {
                            status.phase = Phase::InSync;
                        }
                    });
                    permit.send(open.batch);
                }
            }
        }
    }

    fn take(&mut self, finding: Finding) {
        self.listed[finding.index] |= finding.listed;
        if finding.went_back {
            // Revisions of the lost history mean nothing any more, whichever prefix they came from.
            for reached in &mut self.reached {
                *reached = (*reached).min(finding.revision);
            }
        }
        let reached = &mut self.reached[finding.index];
        *reached = (*reached).max(finding.revision);

        let in_sync = self.listed.iter().all(|listed| *listed);
        let revision = self.reached.iter().copied().max().unwrap_or(0);
        let complete = self.reached.iter().copied().min().unwrap_or(0);
        if !self.open.back().is_some_and(|open| open.takes(&finding)) {
            let batch = Batch {
                changes: Vec::with_capacity(finding.changes.len()),
                revision,
                complete,
                in_sync,
                revision_went_back: finding.went_back,
            };
            self.open.push_back(Open { batch, merged: 0, place: HashMap::new() });
        }
        let open = self.open.back_mut().expect("a batch was just opened if none was there");
        open.merged += 1;
        for change in finding.changes {
            open.add(change);
        }
        open.batch.revision = revision;
        open.batch.complete = complete;
        open.batch.in_sync = in_sync;
    }
}
