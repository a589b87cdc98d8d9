//! What the datastore says, as it comes in: one stream for the network, one for all of Calico's.
//!
//! Two, because they fail apart: a flannel user of etcd may read the network's prefix and nothing of Calico's, and
//! its node must forward all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::calico::{Altered, Picture};
use super::hold::Hold;
use crate::datastore::syncer::{Batch, SyncStatus, Syncer};
use crate::datastore::{Change, Datastore, Revision, Unusable};
use crate::model::calico::keys::{BLOCKS, RESOURCES_PREFIX};
use crate::model::flannel::Prefix;
use crate::state::{Complaint, ConfigState, State};
use crate::status::Reason;

/// Batches taken of each stream at one go before anything is made of them; more wait in the syncers, which merge them.
const DRAIN: usize = 64;

/// How long Calico's resources may take once the network has been read; more than the syncer's longest back-off.
const WORKLOADS_PATIENCE: Duration = Duration::from_secs(10);

/// The same when reading them has failed and nothing older is in force: most likely we may not read them at all.
const WORKLOADS_REFUSED: Duration = Duration::from_millis(500);

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    Network,
    Workloads,
}

/// How far one stream has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    /// Something of this revision has been heard.
    heard: Revision,
    /// Nothing up to this revision is missing.
    complete: Revision,
}

impl Reached {
    /// Revisions of a history that was lost mean nothing any more, whichever stream they came from.
    fn limit(&mut self, revision: Revision) {
        self.heard = self.heard.min(revision);
        self.complete = self.complete.min(revision);
    }
}

/// Both streams and what they add up to.
pub(super) struct Feeds {
    network: Syncer,
    workloads: Syncer,
    config_key: String,
    unusable: watch::Receiver<Arc<[Unusable]>>,
    /// What the datastore holds, as far as it has been read.
    pub(super) live: State,
    network_reached: Reached,
    workloads_reached: Reached,
    /// The network has been read completely once.
    pub(super) network_in_sync: bool,
    /// Since when.
    network_since: Option<Instant>,
    /// All of Calico's resources have been read once, of whatever kind.
    pub(super) workloads_in_sync: bool,
    /// Keys of Calico's that nobody has looked at since they changed.
    altered: Altered,
    /// Set while what was there before is in force, too.
    pub(super) hold: Option<Hold>,
    /// Our lease's key, once there is one.
    pub(super) own_key: Option<String>,
    /// Its last change.
    pub(super) own_change: Option<Change>,
    /// How often the network's history went back.
    pub(super) histories_lost: u64,
}

impl Feeds {
    /// Starts to read. Must be called in a runtime.
    pub(super) fn start(store: &Arc<dyn Datastore>, prefix: &Prefix, nodename: &str, seed: u64) -> Self {
        let config_key = prefix.config_key();
        // One stream for config and leases: when both go at once (a prefix is deleted), they go in one batch.
        let network = config_key.strip_suffix("config").unwrap_or(&config_key);
        Self {
            network: Syncer::start(Arc::clone(store), &[network], seed),
            workloads: Syncer::start(
                Arc::clone(store),
                &[RESOURCES_PREFIX, BLOCKS],
                seed.wrapping_add(1 << 32),
            ),
            config_key,
            unusable: store.unusable(),
            live: State::new(nodename, prefix),
            network_reached: Reached::default(),
            workloads_reached: Reached::default(),
            network_in_sync: false,
            network_since: None,
            workloads_in_sync: false,
            altered: Altered::everything(),
            hold: None,
            own_key: None,
            own_change: None,
            histories_lost: 0,
        }
    }

    /// Waits for one batch of either stream. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> (Feed, Batch) {
        let batch = tokio::select! {
            batch = self.network.batches.recv() => batch.map(|batch| (Feed::Network, batch)),
            batch = self.workloads.batches.recv() => batch.map(|batch| (Feed::Workloads, batch)),
        };
        match batch {
            Some(batch) => batch,
            // A syncer ends with the runtime.
            None => std::future::pending().await,
        }
    }

    /// Takes in one batch and whatever else has come by now.
    pub(super) fn take(&mut self, (feed, batch): (Feed, Batch)) {
        self.apply(feed, batch);
        self.drain();
    }

    /// Takes in what has come by now.
    pub(super) fn drain(&mut self) {
        for _ in 0..DRAIN {
            let Ok(batch) = self.network.batches.try_recv() else { break };
            self.apply(Feed::Network, batch);
        }
        for _ in 0..DRAIN {
            let Ok(batch) = self.workloads.batches.try_recv() else { break };
            self.apply(Feed::Workloads, batch);
        }
    }

    fn apply(&mut self, feed: Feed, batch: Batch) {
        let had_config = !matches!(self.live.config(), ConfigState::Absent);
        let deletes_config = |change: &Change| change.key == self.config_key && change.value.is_none();
        let lost = batch.revision_went_back || (had_config && batch.changes.iter().any(deletes_config));
        if lost && self.hold.is_none() {
            tracing::warn!("the datastore has lost its content; what was in it stays in force for now");
            self.hold = Some(Hold::wiped(self.live.clone()));
        }
        self.live.apply(&batch.changes);
        if feed == Feed::Workloads {
            batch.changes.iter().for_each(|change| self.altered.add(&change.key));
        }
        if batch.revision_went_back {
            self.network_reached.limit(batch.revision);
            self.workloads_reached.limit(batch.revision);
        }
        let reached = Reached { heard: batch.revision, complete: batch.complete };
        match feed {
            Feed::Network => {
                self.network_in_sync |= batch.in_sync;
                if batch.in_sync {
                    self.network_since.get_or_insert_with(Instant::now);
                }
                self.histories_lost += u64::from(batch.revision_went_back);
                self.network_reached = reached;
            }
            Feed::Workloads => {
                self.workloads_in_sync |= batch.in_sync;
                self.workloads_reached = reached;
            }
        }
        let heard = self.heard();
        self.live.reached(heard);
        if let Some(hold) = &mut self.hold {
            hold.take(&batch.changes, heard);
        }
        let own = |change: &&Change| Some(&change.key) == self.own_key.as_ref();
        if let Some(change) = batch.changes.iter().rfind(own) {
            self.own_change = Some(change.clone());
        }
    }

    /// The highest revision that any stream has heard of.
    pub(super) fn heard(&self) -> Revision {
        self.network_reached.heard.max(self.workloads_reached.heard)
    }

    /// Nothing that was written up to this revision is missing in what is in force; 0 while something older than the
    /// datastore's content is in force, too.
    pub(super) fn complete_to(&self) -> Revision {
        if self.hold.is_some() {
            return 0;
        }
        self.network_reached.complete.min(self.workloads_reached.complete)
    }

    /// Somebody wants to know whether everything up to `revision` has been read: streams that cannot tell find out.
    pub(super) fn ask(&self, revision: Revision) {
        self.network.ask(revision);
        self.workloads.ask(revision);
    }

    /// When workloads have been waited for long enough, though they have not been read; `None` before the network has
    /// been, and once they have.
    pub(super) fn workloads_due(&self) -> Option<Instant> {
        let since = self.network_since.filter(|_| !self.workloads_in_sync)?;
        // Something to lose: the other stream may be in its longest back-off after an outage.
        let refused = self.hold.is_none() && self.workloads_status().last_error.is_some();
        Some(since + if refused { WORKLOADS_REFUSED } else { WORKLOADS_PATIENCE })
    }

    /// Everything has been read, or everything but workloads, which have been waited for; and Calico does not say that
    /// what is there is not to be used yet.
    pub(super) fn complete(&self) -> bool {
        self.network_in_sync && self.workloads_due().is_none_or(|due| Instant::now() >= due) && self.ready()
    }

    /// False while Calico's datastore is being set up, migrated or restored.
    pub(super) fn ready(&self) -> bool {
        self.live.calico().ready() != Some(false)
    }

    /// What Calico's part of [`Self::effective`] is worth.
    pub(super) fn picture(&self) -> Picture {
        match (&self.hold, self.workloads_in_sync) {
            (Some(_), _) => Picture::Held,
            (None, true) => Picture::Live,
            (None, false) => Picture::Partial,
        }
    }

    /// From now on what was saved is in force, too.
    pub(super) fn hold_saved(&mut self, saved: State, age_s: u64) {
        self.hold = Some(Hold::saved(saved, age_s));
        self.altered = Altered::everything();
    }

    /// From now on only what the datastore says is in force.
    pub(super) fn release(&mut self) {
        self.hold = None;
        // What it does not say any more goes now: nobody has counted that.
        self.altered = Altered::everything();
    }

    /// Keys of Calico's that may have changed in [`Self::effective`] since the last call.
    pub(super) fn take_altered(&mut self) -> Altered {
        std::mem::take(&mut self.altered)
    }

    /// What is in force: the live state, or that over what was there before.
    pub(super) fn effective(&self) -> &State {
        self.hold.as_ref().map_or(&self.live, Hold::merged)
    }

    /// What the datastore itself cannot use, as a reason to be degraded.
    pub(super) fn unusable_reason(&self) -> Option<Reason> {
        let unusable = self.unusable.borrow();
        let first = unusable.first()?;
        Some(Reason::Documents { first: format!("{}: {}", first.place, first.why), count: unusable.len() })
    }

    /// The same, one by one.
    pub(super) fn unusable_complaints(&self) -> Vec<Complaint> {
        self.unusable.borrow().iter().map(|one| Complaint::new(&one.place, &one.why)).collect()
    }

    /// Waits for the next word about it.
    pub(super) fn unusable(&self) -> watch::Receiver<Arc<[Unusable]>> {
        self.unusable.clone()
    }

    /// Condition of the network's stream.
    pub(super) fn network_status(&self) -> SyncStatus {
        self.network.status.borrow().clone()
    }

    /// Condition of the workloads' stream.
    pub(super) fn workloads_status(&self) -> SyncStatus {
        self.workloads.status.borrow().clone()
    }

    /// Waits until the condition of the network's stream changes: an outage brings no batch.
    pub(super) fn network_condition(&self) -> watch::Receiver<SyncStatus> {
        self.network.status.clone()
    }
}
