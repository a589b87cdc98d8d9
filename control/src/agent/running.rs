//! The loop of a node that has joined: take in what changed, resolve, publish what differs, say how things are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use canal_dataplane::port::IfIndex;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::tables::compile;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::announcer::{Announcing, pairs};
use super::calico::{CalicoFollower, Picture};
use super::enter::Entered;
use super::feeds::Feeds;
use super::felix::FelixFollower;
use super::hold::Hold;
use super::host::Host;
use super::keeper::{Keeper, LeaseReport, Wish};
use super::on_link::OnLink;
use super::reporting::Reporting;
use super::saved::Saver;
use super::{Agent, Options, Published};
use crate::datastore::syncer::SyncStatus;
use crate::datastore::{Revision, Unusable};
use crate::edge::{EdgePlan, EdgeReport};
use crate::felix::Values;
use crate::flannel::acquire::compatible;
use crate::flannel::join::lease_value;
use crate::flannel::{Identity, SubnetEnv};
use crate::host::{self, Desired, External, HostView, Outcome, keep};
use crate::model::flannel::{Backend, NetworkConfig, Subnets};
use crate::resolve::{NodeFacts, Resolved, Resolver, desired, edge_plan};
use crate::state::{Complaint, ConfigState};
use crate::status::{ApplyStatus, InForce};

/// Longest pause after acting: changes come in groups, and one table serves them all. After a quiet time there is none.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Shortest pause after acting.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// A pause is so many times as long as acting took: a datastore in turmoil costs a quarter of a core, not a core.
const PAUSE_SHARE: u32 = 3;

/// The same while what was there before is in force: a datastore that is filled again says it in very many pieces, and
/// nobody waits for one of them.
const LONGEST_PAUSE_HELD: Duration = Duration::from_secs(1);

/// Pause before a failed steering or file is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Pause between checks when nothing happens at all.
const IDLE: Duration = Duration::from_secs(60);

/// What the node joined with, and keeps until it restarts.
pub(super) struct Joined {
    pub(super) config: NetworkConfig,
    pub(super) backend: Backend,
    identity: Identity,
    pub(super) subnets: Subnets,
    /// Set when a lease was taken over that seemed another machine's.
    duplicate: Option<Complaint>,
}

impl Joined {
    fn facts<'a>(
        &'a self,
        external: &'a External,
        host: &'a Arc<HostView>,
        on_link: &'a BTreeSet<std::net::IpAddr>,
        options: &'a Options,
        felix: &'a Values,
    ) -> NodeFacts<'a> {
        NodeFacts {
            config: &self.config,
            backend: &self.backend,
            external,
            subnets: self.subnets,
            identity: self.identity,
            host,
            on_link,
            device: &options.device,
            gateways: &options.gateways,
            settings: options.settings,
            felix,
        }
    }
}

/// A task that ends with its owner.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What was made of the last plan.
#[derive(Default)]
pub(super) struct Steering {
    applied: Option<EdgePlan>,
    /// Interfaces of workloads whose packets are ours.
    workloads: BTreeSet<IfIndex>,
    pub(super) trouble: Vec<String>,
    pub(super) underlay_works: bool,
    retry_at: Option<Instant>,
}

/// What was written to the subnet file.
#[derive(Default)]
pub(super) struct SubnetFile {
    written: Option<String>,
    pub(super) trouble: Option<String>,
    retry_at: Option<Instant>,
}

/// How our device was when last looked at; `None` = well.
pub(super) type DeviceTrouble = Option<String>;

pub(super) struct Running {
    pub(super) agent: Agent,
    pub(super) feeds: Feeds,
    pub(super) joined: Joined,
    pub(super) external: External,
    pub(super) underlay_trouble: Option<String>,
    views: watch::Receiver<Arc<HostView>>,
    on_link: OnLink,
    wishes: watch::Sender<Wish>,
    pub(super) reports: watch::Receiver<LeaseReport>,
    _keeper: Task,
    network: watch::Receiver<SyncStatus>,
    unusable: watch::Receiver<Arc<[Unusable]>>,
    /// What the network's stream suffered from when last reported.
    pub(super) network_error: Option<String>,
    remembered: bool,
    asked: watch::Receiver<Revision>,
    /// What was published and steered last.
    pub(super) in_force: Option<InForce>,
    pub(super) generation: u64,
    pub(super) published: Option<Arc<NodeSpec>>,
    pub(super) applied: ApplyStatus,
    pub(super) calico: CalicoFollower,
    felix: FelixFollower,
    resolver: Resolver,
    reporting: Reporting,
    /// Not to act again before.
    pause_until: Instant,
    pub(super) complaints: Vec<Complaint>,
    /// Gateway interfaces that were asked for and are none.
    pub(super) gateway_trouble: Vec<String>,
    superseded: BTreeSet<String>,
    pub(super) desired: watch::Sender<Arc<Desired>>,
    pub(super) device_trouble: watch::Receiver<DeviceTrouble>,
    pub(super) device_sender: Option<watch::Sender<DeviceTrouble>>,
    device_keeper: Option<Task>,
    pub(super) device_worked: bool,
    pub(super) steering: Steering,
    pub(super) subnet_file: SubnetFile,
    pub(super) saver: Saver,
    unsaved: bool,
    pub(super) announcing: Announcing,
    /// Of our announcements, as the datastore had them last.
    announced: BTreeMap<String, Revision>,
    _announcer: Task,
}

impl Running {
    /// Must be called in a runtime.
    pub(super) fn new(agent: Agent, mut feeds: Feeds, entered: Entered) -> Self {
        let Entered { membership, external, remembered } = entered;
        let lease_key = membership.lease().key().to_owned();
        let duplicate = membership.duplicate.map(|duplicate| Complaint::new(&lease_key, duplicate));
        if let Some(duplicate) = &duplicate {
            tracing::warn!("{}", duplicate.sentence);
        }
        tracing::info!(
            subnets = %membership.lease().subnets(),
            backend = %membership.config.backend_type,
            underlay = %external.name,
            "joined the network"
        );
        let joined = Joined {
            config: membership.config.clone(),
            backend: membership.backend,
            identity: membership.identity,
            subnets: *membership.lease().subnets(),
            duplicate,
        };
        feeds.own_key = Some(lease_key);
        let wish = Wish {
            value: membership.lease().value().clone(),
            change: None,
            rewrites: 0,
            wanted: !remembered,
        };
        feeds.histories_lost = 0;
        let (wishes, wished) = watch::channel(wish);
        let (keeper, reports) =
            Keeper::new(Arc::clone(&agent.store), membership, Arc::clone(&agent.clock), wished, remembered);
        let (announcing, announcer) = Announcing::new(
            Arc::clone(&agent.store),
            agent.options.prefix.clone(),
            joined.config.clone(),
            agent.options.renew_margin,
            Arc::clone(&agent.clock),
            wishes.borrow().value.clone(),
        );
        let (device_sender, device_trouble) = watch::channel(None);
        let saver = Saver::new(agent.options.snapshot_file.clone(), agent.store.describe());
        let calico = CalicoFollower::new(&agent.options.nodename, agent.options.policy);
        let felix = FelixFollower::new(&agent.options.felix, &agent.options.nodename);
        let reporting = Reporting::start(&agent.store, &agent.options.nodename, agent.options.seed);
        let nothing = Desired {
            device: agent.options.device.clone(),
            mtu: 0,
            up: false,
            noarp: true,
            addresses: Vec::new(),
            routes: Vec::new(),
        };
        Self {
            views: agent.host.views(),
            asked: agent.asked.clone(),
            in_force: None,
            generation: agent.publisher.current().generation,
            agent,
            joined,
            external,
            underlay_trouble: None,
            on_link: OnLink::default(),
            wishes,
            reports,
            _keeper: Task::spawn(keeper.run()),
            network: feeds.network_condition(),
            unusable: feeds.unusable(),
            network_error: None,
            feeds,
            remembered,
            published: None,
            applied: ApplyStatus::default(),
            calico,
            felix,
            resolver: Resolver::default(),
            reporting,
            pause_until: Instant::now(),
            complaints: Vec::new(),
            gateway_trouble: Vec::new(),
            superseded: BTreeSet::new(),
            desired: watch::Sender::new(Arc::new(nothing)),
            device_trouble,
            device_sender: Some(device_sender),
            device_keeper: None,
            device_worked: false,
            steering: Steering::default(),
            subnet_file: SubnetFile::default(),
            saver,
            unsaved: false,
            announcing,
            announced: BTreeMap::new(),
            _announcer: Task::spawn(announcer.run()),
        }
    }

    /// Never ends.
    pub(super) async fn run(&mut self) {
        loop {
            let start = Instant::now();
            self.react().await;
            self.report();
            let longest = if self.feeds.hold.is_some() { LONGEST_PAUSE_HELD } else { LONGEST_PAUSE };
            let pause = (start.elapsed() * PAUSE_SHARE).clamp(SHORTEST_PAUSE, longest);
            self.pause_until = Instant::now() + pause;
            self.wait().await;
            self.report_heard();
        }
    }

    /// The last words: what has not been saved yet.
    pub(super) async fn finish(mut self) {
        if self.feeds.hold.is_none() && self.published.is_some() {
            self.saver.finish(&self.feeds.live, &self.superseded).await;
        }
        self.announcing.finish().await;
    }

    async fn react(&mut self) {
        self.end_hold();
        self.reselect().await;
        self.wish();
        if !self.may_publish() {
            return;
        }
        let (revision, complete) = (self.feeds.heard(), self.feeds.complete_to());
        let (spec, wanted, plan) = self.resolve().await;
        let (begin, before) = (Instant::now(), self.generation);
        self.publish(spec);
        self.configure_device(wanted).await;
        self.steer(plan).await;
        if self.generation != before {
            self.applied.count += 1;
            self.applied.total_us += begin.elapsed().as_micros() as u64;
        }
        self.put_in_force(revision, complete);
        self.announce();
        self.tell_reporter();
        self.write_subnet_file();
        // What is held is saved already, and what is there now is not the whole of it.
        let whole = self.feeds.hold.is_none();
        self.unsaved = whole && !self.saver.save(&self.feeds.live, &self.superseded).await;
    }

    /// Nothing is published from a picture that is not complete, except that what was saved is one.
    fn may_publish(&self) -> bool {
        self.published.is_some() || self.remembered || self.feeds.complete()
    }

    fn end_hold(&mut self) {
        let complete = self.feeds.complete();
        let Some(hold) = &mut self.feeds.hold else { return };
        if hold.is_over(&self.feeds.live, complete, Instant::now()) {
            tracing::info!("forwarding by what the datastore says again");
            self.feeds.release();
        }
    }

    /// Follows the underlay interface. When it is gone the last known one stays in force: it may come back.
    async fn reselect(&mut self) {
        let view = Arc::clone(&self.views.borrow_and_update());
        let wanted = self.agent.wanted(&self.joined.config);
        match self.agent.host.select(&wanted, &view).await {
            Ok(external) => {
                self.underlay_trouble = None;
                if external != self.external {
                    tracing::info!(?external, "the underlay has changed");
                    self.external = external;
                    self.on_link.doubt();
                }
            }
            Err(error) => self.underlay_trouble = Some(error.to_string()),
        }
    }

    /// Tells the lease keeper what has changed for it.
    fn wish(&mut self) {
        let options = self.agent.membership_options(&self.external);
        let value = lease_value(&self.joined.config, &self.joined.backend, &options, &self.joined.identity);
        let wanted = match self.feeds.live.config() {
            ConfigState::Valid(config) => compatible(config, &self.joined.subnets),
            ConfigState::Absent | ConfigState::Invalid => false,
        };
        let change = self.feeds.own_change.take();
        let rewrites = self.feeds.histories_lost;
        self.wishes.send_if_modified(|wish| {
            let value = value.unwrap_or_else(|_| wish.value.clone());
            let news =
                change.is_some() || (&value, rewrites, wanted) != (&wish.value, wish.rewrites, wish.wanted);
            (wish.value, wish.rewrites, wish.wanted) = (value, rewrites, wanted);
            if change.is_some() {
                wish.change = change;
            }
            news
        });
    }

    /// Has announced what is behind gateways now that it is reached.
    fn announce(&mut self) {
        let Some(spec) = self.published.as_ref().filter(|_| self.agent.options.gateway_announce) else {
            return;
        };
        let (wanted, left) = pairs(spec, self.joined.config.v6.is_some());
        let missing = |net| format!("{net} is not announced: a lease needs a network of IPv4 beside it");
        self.gateway_trouble.extend(left.into_iter().map(missing));
        let prefix = &self.agent.options.prefix;
        let leases = self.feeds.live.leases();
        let there: BTreeMap<String, Revision> = wanted
            .iter()
            .map(|subnets| prefix.lease_key(subnets))
            .filter_map(|key| leases.get(&key).map(|lease| (key, lease.mod_revision)))
            .collect();
        let touched = there != self.announced;
        self.announced = there;
        self.announcing.wish(&self.wishes.borrow().value, wanted, touched);
    }

    async fn resolve(&mut self) -> (NodeSpec, Desired, EdgePlan) {
        let (altered, picture) = (self.feeds.take_altered(), self.feeds.picture());
        let state = self.feeds.effective();
        let taken = self.calico.follow(state, picture, &altered);
        if taken && self.felix.follow(state.calico()) {
            self.agent.felix.send_replace(Arc::clone(self.felix.config()));
        }
        if taken {
            let in_use = state.calico().ready() == Some(true);
            self.reporting.set(in_use.then(|| self.felix.config().values.reports.clone()));
        }
        let view = self.views.borrow().clone();
        let host: &dyn Host = &*self.agent.host;
        let on_link = self.on_link.update(host, &self.external, &self.joined.backend, state).await;
        let options = &self.agent.options;
        let felix = &self.felix.config().values;
        let facts = self.joined.facts(&self.external, &view, &on_link, options, felix);
        let (resolution, policy) = (self.calico.resolution(), self.calico.policy());
        let Resolved { spec, complaints, gateway_trouble, superseded } =
            self.resolver.resolve(state, &facts, resolution, policy);
        let (wanted, plan) = (desired(&facts, &spec), edge_plan(&facts, &spec));
        let own = self.joined.duplicate.iter().cloned();
        self.complaints = own.chain(self.felix.config().complaints()).chain(complaints).collect();
        self.gateway_trouble = gateway_trouble;
        self.superseded = superseded;
        (spec, wanted, plan)
    }

    /// Publishes what differs in more than the revision: flows are judged anew with every generation.
    fn publish(&mut self, mut spec: NodeSpec) {
        if let Some(published) = &self.published {
            let revision = std::mem::replace(&mut spec.revision, published.revision);
            if spec == **published {
                return;
            }
            spec.revision = revision;
        }
        self.generation += 1;
        let current = self.agent.publisher.current();
        let tables = compile(&spec, Some(&current), self.generation);
        drop(current);
        self.agent.publisher.publish(tables);
        tracing::debug!(
            generation = self.generation,
            revision = spec.revision,
            endpoints = spec.endpoints.len(),
            vteps = spec.vteps.len(),
            routes = spec.routes.len(),
            "published"
        );
        let spec = Arc::new(spec);
        self.published = Some(Arc::clone(&spec));
        self.agent.specs.send_replace(Published { generation: self.generation, spec });
    }

    /// A revision that changed nothing is in force once that has been found out: with the tables there were before.
    fn put_in_force(&mut self, revision: Revision, complete: Revision) {
        let generation = self.generation;
        let same = |old: &InForce| (old.revision, old.generation) == (revision, generation);
        let since = self.in_force.filter(same).map_or_else(Instant::now, |old| old.since);
        self.in_force = Some(InForce { revision, complete, generation, since });
    }

    /// What an older state says of workloads is nothing to report.
    fn tell_reporter(&self) {
        if let Some(spec) = self.published.as_ref().filter(|_| self.feeds.picture() == Picture::Live) {
            self.reporting.observe(spec, &self.views.borrow(), &self.steering.workloads);
        }
    }

    /// The first time waits for the outcome, so that the node is not called ready before; later `keep` does it.
    async fn configure_device(&mut self, wanted: Desired) {
        let wanted = Arc::new(wanted);
        let Some(sender) = self.device_sender.take() else {
            self.desired.send_if_modified(|current| {
                let news = *current != wanted;
                *current = Arc::clone(&wanted);
                news
            });
            return;
        };
        self.desired.send_replace(Arc::clone(&wanted));
        sender.send_replace(device_trouble(&host::reconcile(self.agent.host.kernel(), &wanted).await));
        let (host, desired, views) =
            (Arc::clone(&self.agent.host), self.desired.subscribe(), self.agent.host.views());
        self.device_keeper = Some(Task::spawn(async move {
            let report = |outcome: &_| {
                let trouble = device_trouble(outcome);
                sender.send_if_modified(|current| {
                    let news = *current != trouble;
                    *current = trouble;
                    news
                });
            };
            keep(host.kernel(), desired, views, report).await;
        }));
    }

    async fn steer(&mut self, plan: EdgePlan) {
        let steering = &mut self.steering;
        let again = steering.retry_at.is_some_and(|at| Instant::now() >= at);
        if steering.applied.as_ref() == Some(&plan) && !again {
            return;
        }
        let mut better = None;
        match self.agent.edge.apply(&plan).await {
            Ok(EdgeReport { workloads, failed, again }) => {
                steering.workloads = workloads;
                better = again;
                steering.underlay_works = !failed.iter().any(|failure| failure.underlay);
                let name = |ifindex| {
                    let view = self.views.borrow();
                    view.link_by_index(ifindex).map_or_else(|| ifindex.to_string(), |link| link.name.clone())
                };
                steering.trouble = failed
                    .iter()
                    .map(|failure| format!("{}: {}", name(failure.ifindex), failure.why))
                    .collect();
            }
            Err(error) => steering.trouble = vec![error.to_string()],
        }
        for trouble in &steering.trouble {
            tracing::warn!("steering: {trouble}");
        }
        let wait = if steering.trouble.is_empty() { better } else { Some(RETRY) };
        steering.retry_at = wait.map(|wait| Instant::now() + wait);
        steering.applied = Some(plan);
    }

    /// Written once the node forwards, and again when the MTU has changed.
    fn write_subnet_file(&mut self) {
        let file = &mut self.subnet_file;
        if file.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let view = self.views.borrow().clone();
        let (options, on_link) = (&self.agent.options, BTreeSet::new());
        let felix = &self.felix.config().values;
        let facts = self.joined.facts(&self.external, &view, &on_link, options, felix);
        // Too small an underlay is complained of elsewhere; what the file says stays.
        let Ok(mtu) = facts.mtu() else { return };
        let env = SubnetEnv::new(&self.joined.config, &self.joined.subnets, mtu, options.ip_masq);
        let text = env.to_string();
        if file.written.as_ref() == Some(&text) {
            return;
        }
        match env.write(&options.subnet_file) {
            Ok(()) => *file = SubnetFile { written: Some(text), trouble: None, retry_at: None },
            Err(error) => {
                let why = format!("{}: {error}", options.subnet_file.display());
                tracing::warn!("{why}");
                (file.trouble, file.retry_at) = (Some(why), Some(Instant::now() + RETRY));
            }
        }
    }

    /// Until there is something to do.
    async fn wait(&mut self) {
        let due = self.due();
        loop {
            tokio::select! {
                batch = self.feeds.next() => break self.feeds.take(batch),
                _ = self.views.changed() => break self.on_link.doubt(),
                _ = self.reports.changed() => return,
                _ = self.device_trouble.changed() => return,
                () = news(&mut self.announcing.reports) => return,
                // The answer will be a batch.
                Ok(()) = self.asked.changed() => self.feeds.ask(*self.asked.borrow_and_update()),
                // An outage brings no batch, but it has to be said.
                () = outage_changed(&mut self.network, &self.network_error) => return,
                () = news(&mut self.unusable) => return,
                () = tokio::time::sleep_until(due) => return,
            }
        }
        tokio::time::sleep_until(self.pause_until).await;
        self.feeds.drain();
    }

    /// When something has to be done even if nothing happens.
    fn due(&self) -> Instant {
        let hold = self.feeds.hold.as_ref().and_then(Hold::until);
        let workloads = self.feeds.workloads_due().filter(|due| *due > Instant::now());
        let save = self.saver.due().filter(|_| self.unsaved);
        let timers =
            [hold, workloads, save, self.on_link.due(), self.steering.retry_at, self.subnet_file.retry_at];
        let due = timers.into_iter().flatten().fold(Instant::now() + IDLE, Instant::min);
        // Whatever it is that is overdue: never at full speed.
        due.max(Instant::now() + LONGEST_PAUSE)
    }
}

/// Until the network's stream suffers from something else, or from nothing any more.
async fn outage_changed(network: &mut watch::Receiver<SyncStatus>, known: &Option<String>) {
    loop {
        if network.borrow_and_update().last_error != *known {
            return;
        }
        if network.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Until there is another value; a closed channel has none any more.
async fn news<T>(values: &mut watch::Receiver<T>) {
    if values.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn device_trouble(outcome: &Result<Outcome, host::Error>) -> DeviceTrouble {
    match outcome {
        Ok(Outcome::InSync { .. }) => None,
        Ok(Outcome::NoDevice) => Some("it does not exist".to_owned()),
        Ok(Outcome::Degraded { missing }) => {
            let one = |(op, error): &(host::delta::Op, Option<host::Error>)| match error {
                Some(error) => format!("cannot {op}: {error}"),
                None => format!("cannot {op}"),
            };
            // One tells what is wrong; all of them could be a thousand routes.
            missing.first().map(one)
        }
        Err(error) => Some(error.to_string()),
    }
}
