//! The control task: from the datastore and the host to tables, steering and a lease, and on with every change.
//!
//! ```text
//!  feeds ──► State ──┬──► calico (graph) ─┐
//!                    ├────────────────────┤           ┌──► Publisher ──► workers
//!  host  ──► view  ──┼────────────────────┼► resolve ─┼──► Desired ────► canal0
//!  keeper ─► lease ──┴────────────────────┘           └──► EdgePlan ───► steering
//! ```
//! One loop does it all in that order: tables know a workload before its packets are taken up, and are without it
//! before its steering goes. Only the lease has a task of its own (`keeper`), because a datastore may be slow to answer.
//! Whatever fails is said in [`Status`] and tried again; what was published stays in force meanwhile.

mod host;

mod feeds;

mod announcer;
mod calico;

mod felix;

mod reporting;

mod hold;

mod saved;

mod enter;

mod keeper;

mod on_link;

mod running;

mod report;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use canal_dataplane::spec::{NodeSpec, Settings};
use canal_dataplane::tables::Publisher;
use tokio::sync::watch;

pub use calico::PolicyMode;
pub use host::{Host, KernelHost};
pub use keeper::Clock;

use crate::datastore::{Datastore, Revision};
use crate::edge::Edge;
use crate::felix::{Config, Local};
use crate::flannel::{JoinError, RenewMargin};
use crate::host::{SelectError, Wanted};
use crate::model::flannel::mtu::MtuTooSmall;
use crate::model::flannel::{BackendError, Prefix};
use crate::state::Calico;
use crate::status::Status;

use feeds::Feeds;
use running::Running;

/// What the operator wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node's name: its workload endpoints carry it in `spec.node`.
    pub nodename: String,
    /// Where the network lives in the datastore.
    pub prefix: Prefix,
    /// Which interface carries the overlay. The families and the own device are filled in here.
    pub wanted: Wanted,
    /// Name of our own device.
    pub device: String,
    /// Names of interfaces with plain hosts behind them.
    pub gateways: Vec<String>,
    /// How packets are treated.
    pub settings: Settings,
    /// Whether policy is enforced.
    pub policy: PolicyMode,
    /// What is said on this host about Felix's settings.
    pub felix: Local,
    /// `--subnet-file`.
    pub subnet_file: PathBuf,
    /// Where our tunnel end points' addresses are kept.
    pub identity_file: PathBuf,
    /// Where the last good state is kept.
    pub snapshot_file: PathBuf,
    /// `--subnet-lease-renew-margin`.
    pub renew_margin: RenewMargin,
    /// `--ip-masq`, as it is written to the subnet file.
    pub ip_masq: bool,
    /// Networks behind gateway interfaces are announced, each as a further lease of this node.
    pub gateway_announce: bool,
    /// For jitter and random choices; random in production.
    pub seed: u64,
}

/// Why the agent gave up. Everything else it waits for, or works around.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No interface to carry the overlay.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A backend that canal does not speak, or options that make no sense.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The interface's MTU leaves nothing for pods.
    #[error(transparent)]
    Mtu(#[from] MtuTooSmall),
    /// The network cannot be joined however long one waits: IPv6 only, no subnet left, no address of a family it needs.
    #[error("cannot join the network: {0}")]
    Join(#[source] JoinError),
}

/// What was published.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Generation of the tables; 0 = nothing was.
    pub generation: u64,
    /// What they were compiled from.
    pub spec: Arc<NodeSpec>,
}

/// What others may watch.
#[derive(Clone, Debug)]
pub struct Observer {
    /// How the control side is.
    pub status: watch::Receiver<Status>,
    /// What was published last; the default value before anything was.
    pub specs: watch::Receiver<Published>,
    /// Felix's settings in force.
    pub felix: watch::Receiver<Arc<Config>>,
    asked: watch::Sender<Revision>,
}

impl Observer {
    /// Watches these. The receiver is told what is asked.
    pub fn new(
        status: watch::Receiver<Status>,
        specs: watch::Receiver<Published>,
        felix: watch::Receiver<Arc<Config>>,
    ) -> (Self, watch::Receiver<Revision>) {
        let (asked, asks) = watch::channel(0);
        (Self { status, specs, felix, asked }, asks)
    }

    /// Asks the datastore whether everything up to `revision` has been read, where that is not known. The answer shows
    /// in [`crate::status::InForce::complete`], if there is one. Not for every moment: a datastore has to look at all
    /// keys for it.
    pub fn ask(&self, revision: Revision) {
        self.asked.send_replace(revision);
    }
}

/// The control task before it runs.
pub struct Agent {
    options: Options,
    store: Arc<dyn Datastore>,
    host: Arc<dyn Host>,
    edge: Box<dyn Edge>,
    publisher: Publisher,
    clock: Clock,
    status: watch::Sender<Status>,
    specs: watch::Sender<Published>,
    felix: watch::Sender<Arc<Config>>,
    asked: watch::Receiver<Revision>,
}

impl Agent {
    /// `publisher` holds closed tables; its readers are with the workers already.
    pub fn new(
        options: Options,
        store: Arc<dyn Datastore>,
        host: Arc<dyn Host>,
        edge: Box<dyn Edge>,
        publisher: Publisher,
    ) -> (Self, Observer) {
        let (status, statuses) = watch::channel(Status { datastore: store.describe(), ..Status::default() });
        let (specs, published) = watch::channel(Published::default());
        let config = Config::of(&options.felix, &options.nodename, &Calico::default());
        let (felix, settings) = watch::channel(Arc::new(config));
        let (observer, asked) = Observer::new(statuses, published, settings);
        let clock: Clock = Arc::new(crate::flannel::renewal::boot_time);
        let agent = Self { options, store, host, edge, publisher, clock, status, specs, felix, asked };
        (agent, observer)
    }

    /// Measures lease times by this clock instead of the kernel's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Runs until `stop` is done. The lease then stays where it is, as flannel leaves it: a restart finds it again.
    ///
    /// # Errors
    /// [`AgentError`], at the start only. Once the node has joined, nothing makes this return but `stop`.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        tokio::pin!(stop);
        let options = &self.options;
        options.wanted.check_names(&self.host.views().borrow())?;
        let mut feeds = Feeds::start(&self.store, &options.prefix, &options.nodename, options.seed);
        let entered = tokio::select! {
            entered = self.enter(&mut feeds) => entered?,
            () = &mut stop => return Ok(()),
        };
        let mut running = Running::new(self, feeds, entered);
        tokio::select! {
            () = running.run() => {}
            () = &mut stop => {}
        }
        running.finish().await;
        Ok(())
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("options", &self.options)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
