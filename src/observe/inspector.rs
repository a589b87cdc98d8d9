//! Answers every question about the daemon from what its parts publish; stops none of them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use canal_control::agent::Observer;
use canal_control::host::{Neighbours, Netlink};
use canal_control::status::{PolicyStatus, Reason, Status};
use canal_dataplane::counters::Counter;
use canal_dataplane::flow::Quota;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::PortStats;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::tables::policy::Memo;
use canal_dataplane::tables::{Reader, Tables};
use canal_io::clock::coarse_ms;
use canal_io::tun::lost_frames;
use canal_io::xdp::{Mode, Transfer};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant as Moment;

use super::asking::ask_all;
use super::enforced;
use super::flow_filter::FlowFilter;
use super::flow_shares;
use super::health::{Liveness, Patient, Readiness};
use super::journal::{Journal, Now};
use super::metrics::Facts;
use super::protocol::{
    DatastoreView, FlowView, LATE_WORKERS, LeaseView, MAX_FLOWS, MAX_PATIENCE_MS, PolicyView, PortView,
    ReasonView, Reply, Request, Response, StatusView, WorkerView, XdpView,
};
use super::{calico_views, policy_views, views};
use crate::ports::{Chosen, ChosenPort, TakenOver, UnderlayPort};
use crate::record_queue::Told;
use crate::trace::Tracer;
use crate::trace::question::Question;
use crate::trace::report::Report;
use crate::worker_thread::{FlowPage, Order, WorkerHandle};

/// How long a worker may take to list its flows: it does so between two batches.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long workers may take to look at the newest tables before a status says that they are late.
const LOOK: Duration = Duration::from_millis(200);

/// Pause between two looks at tables and spec that do not belong together: one is published right after the other.
const SETTLE: Duration = Duration::from_millis(1);

/// Looks before that is given up.
const SETTLE_TRIES: usize = 100;

/// Looks at everything.
#[derive(Clone)]
pub struct Inspector {
    /// This node's name.
    pub node: String,
    /// Name of the TAP device.
    pub device: String,
    /// What the kernel takes on it.
    pub caps: Caps,
    /// Flow entries of all workers together.
    pub flow_capacity: usize,
    /// How many of one worker's a sender may have.
    pub flow_quota: Quota,
    /// When the daemon started.
    pub started: Instant,
    /// The underlay port.
    pub chosen: ChosenPort,
    /// The workers.
    pub workers: Arc<[WorkerHandle]>,
    /// The tables in force.
    pub tables: Reader,
    /// The control side: how it is, and what the tables were made from.
    pub control: Observer,
    /// When the control thread last went round, in milliseconds of the workers' clock.
    pub control_beat_ms: Arc<Counter>,
    /// What policy had to tell.
    pub journal: Arc<Journal>,
    /// Answers questions about packets.
    pub tracer: Arc<Tracer>,
    /// Places for clients that wait; [`enforced::MAX_WAITING`].
    pub waiting: Arc<Semaphore>,
}

impl Inspector {
    /// Takes in what a worker has to tell, and logs of it what is to be logged.
    pub fn take_in(&self, told: &Told) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Now { ms: coarse_ms(), unix_ms: since_1970.as_millis() as u64 };
        if let Some(line) = self.journal.tell(told, &self.tables(), now) {
            line.write();
        }
    }

    /// Answers the admin socket.
    pub async fn answer(self, request: Request) -> Response {
        let reply = match request {
            Request::Ports => Reply::Ports(self.ports()),
            Request::Endpoints => Reply::Endpoints(views::endpoints(&self.spec())),
            Request::Policies | Request::Profiles => match self.world().await {
                Ok((tables, spec)) if request == Request::Policies => {
                    Reply::Policies(policy_views::policies(&spec, &tables))
                }
                Ok((tables, spec)) => Reply::Profiles(policy_views::profiles(&spec, &tables)),
                Err(why) => return Response::Error(why),
            },
            Request::IpSets => Reply::IpSets(policy_views::ip_sets(&self.spec())),
            Request::Routes => Reply::Routes(views::routes(&self.spec())),
            Request::Gateways => {
                let announcements = self.control.status.borrow().announcements.clone();
                Reply::Gateways(views::gateways(&self.spec(), &announcements, &neighbours().await))
            }
            Request::Vteps => Reply::Vteps(views::vteps(&self.spec(), &self.tables(), coarse_ms())),
            Request::Fdb => Reply::Fdb(views::fdb(&self.spec(), &self.device)),
            Request::CalicoRoutes => Reply::CalicoRoutes(calico_views::routes(&self.tables().calico)),
            Request::CalicoVteps => Reply::CalicoVteps(calico_views::vteps(&self.tables().calico)),
            Request::Flows { limit, endpoint, protocol } => {
                let filter = FlowFilter::new(&self.spec(), endpoint.as_deref(), protocol.as_deref());
                match self.flows(limit.min(MAX_FLOWS), filter).await {
                    Ok(flows) => Reply::Flows(flows),
                    Err(why) => return Response::Error(why),
                }
            }
            Request::Denied { limit, after } => Reply::Denied(self.journal.last(limit, after)),
            Request::Trace(question) => match self.trace(&question).await {
                Ok(report) => Reply::Trace(Box::new(report)),
                Err(why) => return Response::Error(why),
            },
            Request::Drops => Reply::Drops(views::drops(self.workers.iter().map(|w| &*w.counters))),
            Request::Workers => Reply::Workers(self.workers()),
            Request::Generation => {
                let workers = self.workers.iter().map(|worker| &*worker.counters);
                Reply::Generation(views::generation(&self.tables(), workers))
            }
            Request::Config => Reply::Config(views::config(&self.control.felix.borrow())),
            Request::Status => Reply::Status(Box::new(self.status_now().await)),
            Request::Enforced { revision, patience_ms } => {
                let patience = Duration::from_millis(patience_ms.min(MAX_PATIENCE_MS));
                let (status, ask) = (self.control.status.clone(), |wanted| self.control.ask(wanted));
                let places = Arc::clone(&self.waiting);
                Reply::Enforced(
                    enforced::wait_in_turn(places, revision, patience, status, &self.workers, ask).await,
                )
            }
        };
        Response::Ok(reply)
    }

    /// Answers `/metrics`.
    pub async fn facts(self) -> Facts {
        let status_now = self.status_now().await;
        let shares = self.shares().await;
        let (spec, tables) = (self.spec(), self.tables());
        let counters = self.workers.iter().map(|worker| &*worker.counters);
        let Status { cluster, applied, .. } = *self.control.status.borrow();
        Facts {
            workers: self.workers(),
            ports: self.ports(),
            device: lost_frames(&self.device).ok().map(|lost| (self.device.clone(), lost)),
            drops: views::drops(counters.clone()),
            census: views::census(counters.clone()),
            flow_shares: flow_shares::shares(&shares, &tables),
            flow_quota: self.flow_quota.workload,
            suppressed: self.journal.suppressed(),
            cluster,
            applied,
            generation: views::generation(&tables, counters),
            status: status_now,
            endpoints: spec.endpoints.len(),
            routes: spec.routes.len(),
            vteps: spec.vteps.len(),
            gateways: spec.gateways.iter().filter(|gateway| gateway.ifindex.is_some()).count(),
            flow_capacity: self.flow_capacity,
        }
    }

    fn spec(&self) -> Arc<NodeSpec> {
        Arc::clone(&self.control.specs.borrow().spec)
    }

    /// The tables in force, and what they were compiled from.
    async fn world(&self) -> Result<(Arc<Tables>, Arc<NodeSpec>), String> {
        for _ in 0..SETTLE_TRIES {
            let tables = self.tables();
            let published = self.control.specs.borrow().clone();
            if published.generation == tables.generation {
                return Ok((tables, published.spec));
            }
            tokio::time::sleep(SETTLE).await;
        }
        Err("tables are published faster than they can be looked at; try again".to_owned())
    }

    async fn trace(&self, question: &Question) -> Result<Report, String> {
        let (tables, spec) = self.world().await?;
        self.tracer.trace(question, &spec, &tables, coarse_ms()).map_err(|error| error.to_string())
    }

    fn tables(&self) -> Arc<Tables> {
        Arc::clone(self.tables.clone().load())
    }

    fn workers(&self) -> Vec<WorkerView> {
        self.workers.iter().map(|w| views::worker(w.index, w.core(), &w.counters)).collect()
    }

    fn ports(&self) -> Vec<PortView> {
        let chosen = self.chosen.get();
        let gateways = self.spec().gateways.iter().any(|gateway| gateway.ifindex.is_some());
        let mut ports = Vec::new();
        for worker in self.workers.iter() {
            let mut access = access_port(worker.index, &self.device, self.caps, &chosen);
            access.carries.extend(gateways.then(|| "gateways".to_owned()));
            ports.push(views::with_stats(&access, worker.access.read()));
            for taken in &chosen.xdp {
                let why = if taken.gateway { "asked for by --port af-xdp" } else { &chosen.why };
                let port = xdp_port(worker.index, self.workers.len() as u32, taken, why);
                let counted = taken.counters.get(worker.index as usize).map(|counters| counters.read());
                let seen = port.zip(counted).map(|(port, counted)| views::with_stats(&port, counted));
                ports.extend(seen);
            }
            let sockets = worker.underlay.read();
            if chosen.port == UnderlayPort::Udp || sockets != PortStats::default() {
                ports.push(views::with_stats(&udp_port(worker.index, &chosen), sockets));
            }
        }
        ports
    }

    /// What each worker has of local workloads' flows; nothing of one that does not answer in time.
    async fn shares(&self) -> Vec<Vec<(u32, u32)>> {
        let answers = ask_all(self.workers.iter(), Moment::now() + LOOK, Order::Shares).await;
        answers.into_iter().filter_map(|(_, shares)| shares).collect()
    }

    /// Page by page, so that no worker is kept from its packets: a flow that comes or goes meanwhile may be missed.
    async fn flows(&self, limit: usize, filter: Result<FlowFilter, String>) -> Result<Vec<FlowView>, String> {
        let (filter, tables) = (filter?, self.tables());
        let (mut flows, mut memo) = (Vec::new(), Memo::default());
        for worker in self.workers.iter() {
            let mut next = Some(0);
            while let Some(from) = next.filter(|_| flows.len() < limit) {
                let (send, receive) = oneshot::channel();
                let page = FlowPage { from, limit: limit - flows.len(), filter: filter.clone() };
                worker.order(Order::Flows(page, send)).map_err(|error| error.to_string())?;
                let answer = tokio::time::timeout(PATIENCE, receive).await;
                let Ok(Ok(answer)) = answer else {
                    return Err(format!("worker {} did not answer within {PATIENCE:?}", worker.index));
                };
                let views =
                    answer.flows.iter().map(|info| views::flow(worker.index, info, &tables, &mut memo));
                flows.extend(views);
                next = answer.next;
            }
        }
        Ok(flows)
    }

    /// How the daemon is, with every worker awake: one that sleeps uses new tables as soon as it has a packet, so that
    /// what it has not seen yet means nothing.
    async fn status_now(&self) -> StatusView {
        let generation = self.control.status.borrow().published_generation;
        enforced::late(&self.workers, generation, Moment::now() + LOOK).await;
        self.status()
    }

    /// How the daemon is, as a whole.
    pub fn status(&self) -> StatusView {
        let control = self.control.status.borrow().clone();
        let chosen = self.chosen.get();
        let seen = self.workers.iter().map(|w| (w.index, w.counters.seen_generation.get()));
        let mut view = control_view(&control, seen, Moment::now());
        view.version = env!("CARGO_PKG_VERSION").into();
        view.pid = std::process::id();
        view.uptime_s = self.started.elapsed().as_secs();
        view.node.clone_from(&self.node);
        view.port = chosen.port.name().into();
        view.port_why = chosen.why;
        view
    }
}

impl Patient for Inspector {
    async fn readiness(&self) -> Readiness {
        let StatusView { ready, reasons, .. } = self.status_now().await;
        Readiness { ready, reasons: reasons.into_iter().map(|reason| reason.sentence).collect() }
    }

    fn liveness(&self) -> Liveness {
        let now_ms = coarse_ms();
        let silent = |beat_ms: &Counter| now_ms.saturating_sub(beat_ms.get());
        let workers =
            self.workers.iter().map(|w| (format!("worker {}", w.index), silent(&w.counters.beat_ms)));
        let control = ("control".to_owned(), silent(&self.control_beat_ms));
        Liveness { silent_ms: workers.chain([control]).collect() }
    }
}

/// What the kernel knows of neighbours; nothing if it does not answer.
async fn neighbours() -> Neighbours {
    match Netlink::connect() {
        Ok(netlink) => netlink.neighbours().await.unwrap_or_default(),
        Err(_) => Neighbours::new(),
    }
}

fn access_port(worker: u32, device: &str, caps: Caps, chosen: &Chosen) -> PortView {
    let underlay = (chosen.port == UnderlayPort::Tap).then(|| "underlay".to_owned());
    PortView {
        worker,
        name: device.to_owned(),
        kind: "tap".into(),
        carries: std::iter::once("workloads".to_owned()).chain(underlay).collect(),
        offloads: views::offloads(caps),
        why: if chosen.port == UnderlayPort::Tap { chosen.why.clone() } else { String::new() },
        ..PortView::default()
    }
}

fn udp_port(worker: u32, chosen: &Chosen) -> PortView {
    let offloads = chosen.udp.map_or_else(Vec::new, |abilities| {
        let named = [(abilities.gro, "gro"), (abilities.segments > 1, "gso")];
        named.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()).collect()
    });
    PortView {
        worker,
        name: "udp".into(),
        kind: "udp".into(),
        carries: vec!["underlay".into()],
        offloads,
        why: chosen.why.clone(),
        ..PortView::default()
    }
}

/// The AF_XDP sockets of a worker, if it has any.
fn xdp_port(worker: u32, workers: u32, taken: &TakenOver, why: &str) -> Option<PortView> {
    let abilities = &taken.abilities;
    let queues: Vec<u32> = (worker..abilities.queues).step_by(workers as usize).collect();
    let zero_copy = abilities.transfer == Transfer::ZeroCopy;
    let mode = match abilities.mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    };
    let generic = abilities.why_generic.iter().map(|why| format!("; generic mode, because {why}"));
    (!queues.is_empty()).then(|| PortView {
        worker,
        name: taken.interface.clone(),
        kind: UnderlayPort::AfXdp.name().into(),
        carries: vec![if taken.gateway { "gateway" } else { "underlay" }.into()],
        offloads: [mode, if zero_copy { "zero-copy" } else { "copy" }]
            .into_iter()
            .chain(abilities.busy_poll.then_some("busy-poll"))
            .map(str::to_owned)
            .collect(),
        why: std::iter::once(why.to_owned()).chain(generic).collect(),
        xdp: Some(XdpView {
            mode: mode.into(),
            zero_copy,
            queues,
            huge_pages: abilities.huge_pages,
            why_generic: abilities.why_generic.clone(),
        }),
        ..PortView::default()
    })
}

/// What control side and workers say together. Ready = the control side says so, and every worker has seen what it
/// published.
fn control_view(control: &Status, seen: impl Iterator<Item = (u32, u64)>, now: Moment) -> StatusView {
    let said = |reason: &Reason| ReasonView { code: reason.code().into(), sentence: reason.to_string() };
    let mut reasons: Vec<ReasonView> = control.degraded.iter().map(said).collect();
    let datastore = datastore(control, seen, now);
    let late = datastore.late_workers.len();
    if late > 0 {
        let generation = control.published_generation;
        reasons.push(ReasonView {
            code: LATE_WORKERS.into(),
            sentence: format!("{late} of the workers do not use generation {generation} yet"),
        });
    }
    let mut complaints: Vec<String> =
        control.complaints.iter().map(|c| format!("{}: {}", c.key, c.sentence)).collect();
    if let Some(more) = control.complaints_total.checked_sub(complaints.len()).filter(|more| *more > 0) {
        complaints.push(format!("and {more} more"));
    }
    StatusView {
        ready: control.ready && late == 0,
        reasons,
        datastore,
        lease: lease(control),
        policy: control.policy.map(policy),
        calico_network: calico_views::network(control.calico_network),
        complaints,
        complaints_total: control.complaints_total,
        ..StatusView::default()
    }
}

fn policy(status: PolicyStatus) -> PolicyView {
    let PolicyStatus { enforced, switched_off, workloads, host_endpoints, policies, profiles, sets } = status;
    PolicyView { enforced, switched_off, workloads, host_endpoints, policies, profiles, sets }
}

/// The datastore, and how far what it says is enforced.
fn datastore(control: &Status, seen: impl Iterator<Item = (u32, u64)>, now: Moment) -> DatastoreView {
    let number = |revision: i64| u64::try_from(revision).unwrap_or(0);
    let since = |then: Moment| u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX);
    let (heard, in_force) = (control.heard, control.in_force);
    let behind = in_force.is_none_or(|in_force| in_force.revision != heard.revision);
    DatastoreView {
        name: control.datastore.clone(),
        connected: control.connected,
        in_sync: control.in_sync,
        silent_ms: control.last_contact.map(since),
        revision: number(heard.revision),
        in_force: in_force.map_or(0, |in_force| number(in_force.revision)),
        complete: in_force.map_or(0, |in_force| number(in_force.complete)),
        in_force_ms: in_force.map(|in_force| since(in_force.since)),
        behind_ms: heard.at.filter(|_| behind).map_or(0, since),
        late_workers: seen.filter(|(_, seen)| *seen < control.published_generation).map(|(w, _)| w).collect(),
    }
}

fn lease(control: &Status) -> Option<LeaseView> {
    let lease = control.lease.as_ref()?;
    let public = control.underlay.as_ref().map_or_else(Vec::new, |underlay| underlay.public.clone());
    let overlay = control.overlay.as_ref();
    Some(LeaseView {
        subnets: std::iter::once(lease.subnet.to_string())
            .chain(lease.subnet_v6.map(|subnet| subnet.to_string()))
            .collect(),
        public,
        backend: overlay.map_or_else(String::new, |overlay| overlay.backend.to_owned()),
        mtu: overlay.map_or(0, |overlay| overlay.mtu),
        expires_in_s: lease.expires_in_s(),
    })
}

#[cfg(test)]
mod tests {
    use canal_control::status::InForce;

    use super::*;

    #[test]
    fn a_worker_that_has_not_seen_the_tables_is_a_reason_not_to_be_ready() {
        let control = Status { ready: true, published_generation: 3, ..Status::default() };
        let view = control_view(&control, [(0, 3), (1, 3)].into_iter(), Moment::now());
        assert_eq!((view.ready, view.reasons), (true, vec![]));
        let view = control_view(&control, [(0, 3), (1, 2)].into_iter(), Moment::now());
        let sentence = "1 of the workers do not use generation 3 yet".to_owned();
        let reason = ReasonView { code: LATE_WORKERS.into(), sentence };
        assert_eq!((view.ready, view.reasons), (false, vec![reason]));
        assert_eq!(view.datastore.late_workers, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_been_read_is_told_from_what_is_in_force() {
        let mut control = Status::default();
        let view = |control: &Status| datastore(control, std::iter::empty(), Moment::now());
        assert_eq!(view(&control), DatastoreView::default(), "nothing is known of an empty one");

        control.heard.advance(7);
        tokio::time::advance(Duration::from_millis(30)).await;
        let shown = view(&control);
        assert_eq!((shown.revision, shown.in_force, shown.behind_ms), (7, 0, 30));

        control.in_force = Some(InForce { revision: 7, complete: 5, generation: 2, since: Moment::now() });
        control.last_contact = Some(Moment::now());
        tokio::time::advance(Duration::from_millis(40)).await;
        let shown = view(&control);
        assert_eq!((shown.in_force, shown.complete, shown.behind_ms), (7, 5, 0));
        assert_eq!((shown.in_force_ms, shown.silent_ms), (Some(40), Some(40)));

        control.heard.advance(9);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!((view(&control).revision, view(&control).in_force, view(&control).behind_ms), (9, 7, 5));
    }

    #[test]
    fn degraded_is_no_hindrance_to_being_ready() {
        let control = Status { ready: true, degraded: vec![Reason::LeaseContended], ..Status::default() };
        let view = control_view(&control, std::iter::empty(), Moment::now());
        assert!(view.ready);
        let sentence = Reason::LeaseContended.to_string();
        assert_eq!(view.reasons, [ReasonView { code: "lease_contended".into(), sentence }]);
    }

    #[test]
    fn the_readme_explains_every_code_and_no_other() {
        let readme = include_str!("../../README.md");
        let (_, table) =
            readme.split_once("| code | what it means |\n|---|---|\n").expect("the table of codes");
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let codes =
            rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let mut explained: Vec<&str> = codes.collect();
        let mut known: Vec<&str> = Reason::CODES.into_iter().chain([LATE_WORKERS]).collect();
        explained.sort_unstable();
        known.sort_unstable();
        assert_eq!(explained, known);
    }

    #[test]
    fn ports_say_what_they_carry() {
        let tap = Chosen { port: UnderlayPort::Tap, why: "because".into(), udp: None, xdp: Vec::new() };
        let view = access_port(1, "canal0", Caps::ALL, &tap);
        assert_eq!((view.carries.join("+"), view.why.as_str()), ("workloads+underlay".into(), "because"));
        let udp = Chosen { port: UnderlayPort::Udp, ..tap };
        let view = access_port(1, "canal0", Caps::ALL, &udp);
        assert_eq!((view.carries.join("+"), view.why.as_str()), ("workloads".into(), ""));
        assert_eq!(udp_port(1, &udp).carries, ["underlay"]);
    }

    #[test]
    fn af_xdp_says_how_it_gets_at_packets() {
        let abilities = canal_io::xdp::XdpAbilities {
            mode: Mode::Generic,
            transfer: Transfer::Copy,
            queues: 3,
            huge_pages: false,
            busy_poll: true,
            why_generic: Some("the driver has none".into()),
        };
        let taken = TakenOver { interface: "eth0".into(), gateway: false, abilities, counters: Vec::new() };
        let view = xdp_port(0, 2, &taken, "asked for").unwrap();
        assert_eq!((view.name.as_str(), view.kind.as_str()), ("eth0", "af-xdp"));
        assert_eq!(view.offloads, ["generic", "copy", "busy-poll"]);
        assert_eq!(view.why, "asked for; generic mode, because the driver has none");
        assert_eq!(view.xdp.unwrap().queues, [0, 2]);
        assert_eq!(xdp_port(1, 2, &taken, "").unwrap().xdp.unwrap().queues, [1]);
        assert_eq!(xdp_port(3, 4, &taken, ""), None);
    }
}
