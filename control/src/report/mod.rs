//! What Felix tells others through the datastore: that a node lives, and how its endpoints are.
//!
//! OpenStack's plugin and operators' scripts read these keys; Calico itself does not need them. They are written where
//! Calico is in use and others read the datastore. Nothing waits for a report: a failure is logged, and the next turn
//! comes.
//!
//! ```text
//!  agent ──► Settings ──────┬──► lives:     /calico/felix/v2/<region>/host/<node>/{status,last_reported_status}
//!        └─► conditions ──► Ledger ──► endpoints: …/host/<node>/workload/<orchestrator>/<workload>/endpoint/<name>
//! ```

mod condition;
mod endpoints;
mod ledger;
mod lives;
mod outcome;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::datastore::{Datastore, Error};
use crate::model::calico::WorkloadKey;

pub use condition::{Condition, conditions};
pub use settings::Settings;

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time of day; the system's in production.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How this node's workloads are; `None` before anything is known.
pub type Conditions = Option<BTreeMap<WorkloadKey, Condition>>;

/// Writes reports until it is dropped, or until nobody is left who could tell it anything.
#[derive(Clone)]
pub struct Reporter {
    /// Where to.
    pub store: Arc<dyn Datastore>,
    /// This node's name.
    pub node: String,
    /// The time of day.
    pub clock: WallClock,
    /// When the process started.
    pub started: Instant,
    /// For jitter; random in production.
    pub seed: u64,
}

impl Reporter {
    /// Reports what it is told. Settings are `None` where Calico is not in use.
    pub async fn run(
        self,
        settings: watch::Receiver<Option<Settings>>,
        conditions: watch::Receiver<Conditions>,
    ) {
        tokio::join!(lives::run(&self, settings.clone()), endpoints::run(&self, settings, conditions));
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("store", &self.store)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The answer, or that there was none in time.
async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Unavailable(format!("no answer within {PATIENCE:?}"))),
    }
}

#[cfg(test)]
mod tests;
