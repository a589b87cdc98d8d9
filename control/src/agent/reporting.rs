//! What the reporter is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use canal_dataplane::port::IfIndex;
use canal_dataplane::spec::NodeSpec;
use tokio::sync::watch;
use tokio::time::Instant;

use super::running::Task;
use crate::datastore::Datastore;
use crate::host::HostView;
use crate::report::{Conditions, Reporter, Settings, conditions};

/// A reporter at work.
pub(super) struct Reporting {
    settings: watch::Sender<Option<Settings>>,
    conditions: watch::Sender<Conditions>,
    /// Others read what is reported there: a directory is read by nobody.
    shared: bool,
    _task: Task,
}

impl Reporting {
    /// Must be called in a runtime. Nothing is reported before the first settings.
    pub(super) fn start(store: &Arc<dyn Datastore>, node: &str, seed: u64) -> Self {
        let (settings, known_settings) = watch::channel(None);
        let (conditions, known_conditions) = watch::channel(None);
        let reporter = Reporter {
            store: Arc::clone(store),
            node: node.to_owned(),
            clock: Arc::new(SystemTime::now),
            started: Instant::now(),
            seed,
        };
        let task = Task::spawn(reporter.run(known_settings, known_conditions));
        Self { settings, conditions, shared: store.keeps_revisions(), _task: task }
    }

    /// What to report from now on; `None` where Calico is not in use.
    pub(super) fn set(&self, settings: Option<Settings>) {
        let settings = settings.filter(|_| self.shared);
        self.settings.send_if_modified(|current| {
            let news = *current != settings;
            *current = settings;
            news
        });
    }

    /// How the workloads are, if anybody wants to know.
    pub(super) fn observe(&self, spec: &NodeSpec, view: &HostView, steered: &BTreeSet<IfIndex>) {
        if !self.settings.borrow().as_ref().is_some_and(|settings| settings.endpoints) {
            return;
        }
        let now = Some(conditions(&spec.endpoints, view, steered));
        self.conditions.send_if_modified(|current| {
            let news = *current != now;
            *current = now;
            news
        });
    }
}
