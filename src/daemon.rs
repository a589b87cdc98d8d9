//! The daemon from its first to its last breath: ports, workers, control, observation, and the end of them all.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use canal_control::agent::{Agent, KernelHost, Observer, Options};
use canal_control::felix::Values;
use canal_dataplane::counters::Counter;
use canal_dataplane::net::HashSeed;
use canal_dataplane::tables::{Publisher, Tables};
use canal_io::clock::coarse_ms;
use canal_io::tun::TapDevice;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};

use crate::config::Config;
use crate::config::datastore::OpenError;
use crate::edge::{EdgeOptions, KernelEdge, chain};
use crate::instance::{Instance, InstanceError};
use crate::logging::Volume;
use crate::observe::inspector::Inspector;
use crate::observe::journal::Journal;
use crate::observe::{admin, enforced, health, http, listener, metrics, protocol};
use crate::ports::{ChosenPort, OpenPorts, PortError};
use crate::record_queue::RecordQueue;
use crate::supervise::{Ended, Event, Listener, Part, ended};
use crate::trace::Tracer;
use crate::worker_thread::{Plan, Workers};

/// How long the control thread may take to undo what it did to the host.
const FAREWELL: Duration = Duration::from_secs(10);

/// How often the control thread says that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// How often the device is looked for.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Why the daemon could not start, or had to end. The text says what to do where anything can be done.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one runs.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The kernel ports could not be opened.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// The datastore could not be opened.
    #[error("cannot open the datastore")]
    Datastore(#[source] OpenError),
    /// The host's network could not be looked at.
    #[error("cannot look at the host's links and addresses")]
    Host(#[source] canal_control::host::Error),
    /// A directory, thread, socket or runtime was refused.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Somebody else took the device away.
    #[error("the device {0} was deleted or renamed; canal-fwd must be started again")]
    DeviceGone(String),
    /// A part that must not end has ended.
    #[error("{part} ended{}", why.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    Part {
        /// Which.
        part: Part,
        /// Why, if it said so.
        why: Option<String>,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let what = what.into();
    move |source| DaemonError::System { what, source }
}

/// Runs until a signal asks for the end.
///
/// # Errors
/// [`DaemonError`]; whatever had been done to the host by then is undone.
pub fn run(config: &Config, volume: Volume) -> Result<(), DaemonError> {
    let started = Instant::now();
    config.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let _instance = Instance::acquire(&config.run_dir)?;
    make_directory(&config.state_dir)?;
    let seed = HashSeed(rand::random(), rand::random());
    let (ended, listener) = ended();

    let ports = OpenPorts::open(config, seed)?;
    tracing::info!(port = ports.chosen.port.name(), why = ports.chosen.why, "underlay port");
    tracing::info!(device = ports.device.name, by = ports.describe_steering(), "packets are steered");
    let publisher = Publisher::new(Tables::closed());
    let chosen = ChosenPort::new(ports.chosen);
    let records = Arc::new(RecordQueue::new().map_err(system("make a queue for policy's records"))?);
    let plan = Plan {
        seed,
        flows: config.flows_per_worker,
        flow_quota: config.flow_quota,
        pickup_ms: config.flow_pickup.as_millis() as u64,
        device: &ports.device,
        next_hops: ports.steering.next_hops(),
        tables: publisher.reader(),
        records: Arc::clone(&records),
        ended: ended.clone(),
    };
    let workers = Workers::start(&plan, ports.queues).map_err(system("start the workers"))?;
    tracing::info!(workers = config.workers, flows_each = config.flows_per_worker, "workers run");

    let handles = workers.handles();
    let tables = publisher.reader();
    let edge = KernelEdge::new(
        ports.steering,
        Arc::clone(&handles),
        EdgeOptions {
            port: config.port.clone(),
            abilities: ports.device.abilities,
            busy_poll: config.busy_poll,
            dont_fragment: config.settings.outer_df,
            seed,
        },
        chosen.clone(),
        ports.second,
    );
    let outcome = Control::start(config, edge, publisher, &ended).and_then(|control| {
        let inspector = Inspector {
            node: config.node_name.clone(),
            device: ports.device.name.clone(),
            caps: ports.device.abilities.caps(),
            flow_capacity: config.flows_per_worker * config.workers as usize,
            flow_quota: config.flow_quota,
            started,
            chosen,
            workers: handles,
            tables,
            control: control.observer.clone(),
            control_beat_ms: Arc::clone(&control.beat_ms),
            journal: Arc::new(Journal::new(config.log_policy, seed, coarse_ms())),
            tracer: Arc::new(Tracer::new(seed, config.workers)),
            waiting: Arc::new(Semaphore::new(enforced::MAX_WAITING)),
        };
        live(config, inspector, (records, volume), control, &ended, &listener, &ports.device)
    });
    // Steering is gone by now (it goes with the control thread), so nothing arrives any more.
    workers.stop();
    outcome
}

/// Observation starts, time passes, everything but the workers ends.
fn live(
    config: &Config,
    inspector: Inspector,
    told: (Arc<RecordQueue>, Volume),
    control: Control,
    ended: &Ended,
    listener: &Listener,
    device: &TapDevice,
) -> Result<(), DaemonError> {
    let outcome = observe(config, inspector, told, ended).and_then(|_observing| wait(listener, device));
    notify(&[NotifyState::Stopping]);
    control.stop(listener);
    let _ = std::fs::remove_file(config.run_dir.join(protocol::SOCKET_NAME));
    outcome
}

/// Waits for the first event that ends the daemon. A device that is gone tells nobody, and cannot come back: its queues
/// are those of the old one.
fn wait(listener: &Listener, device: &TapDevice) -> Result<(), DaemonError> {
    let event = loop {
        if let Some(event) = listener.wait(LOOK_AROUND) {
            break event;
        }
        if nix::net::if_::if_nametoindex(device.name.as_str()) != Ok(device.ifindex) {
            return Err(DaemonError::DeviceGone(device.name.clone()));
        }
    };
    match event {
        Event::Signal(name) => {
            tracing::info!(signal = name, "stopping");
            Ok(())
        }
        Event::Ended(part) => Err(DaemonError::Part { part, why: None }),
        Event::Failed(part, why) => Err(DaemonError::Part { part, why: Some(why) }),
    }
}

fn make_directory(path: &PathBuf) -> Result<(), DaemonError> {
    std::fs::create_dir_all(path).map_err(system(format!("make the directory {}", path.display())))
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// The control thread: one tokio runtime with the agent, the signals, and systemd's news.
struct Control {
    observer: Observer,
    /// When it last went round.
    beat_ms: Arc<Counter>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Control {
    fn start(
        config: &Config,
        edge: KernelEdge,
        publisher: Publisher,
        ended: &Ended,
    ) -> Result<Self, DaemonError> {
        let runtime = runtime()?;
        let (agent, observer) = runtime.block_on(agent(config, edge, publisher))?;
        let (stop, stopped) = oneshot::channel();
        let reports = ended.clone();
        let status = observer.status.clone();
        let beat_ms = Arc::new(Counter::default());
        beat_ms.set(coarse_ms());
        let beats = beat(Arc::clone(&beat_ms));
        let body = async move || {
            let signals = signals(reports.clone());
            let news = news(status);
            let run = agent.run(async {
                // Told to stop, or nobody is left who could tell.
                let _ = stopped.await;
            });
            let outcome = tokio::select! {
                outcome = run => outcome,
                never = async { tokio::join!(signals, news, beats) } => match never {},
            };
            if let Err(error) = outcome {
                reports.report(Event::Failed(Part::Control, chain(&error)));
            }
        };
        let thread = spawn("canal-control", Part::Control, runtime, ended, body)?;
        Ok(Self { observer, beat_ms, stop, thread })
    }

    /// Lets the agent undo what it did to the host, and waits for it.
    fn stop(self, listener: &Listener) {
        let _ = self.stop.send(());
        if self.thread.is_finished() || listener.wait_for(Part::Control, FAREWELL) {
            // A panic has been reported already.
            drop(self.thread.join());
        } else {
            tracing::error!("the control thread did not end within {FAREWELL:?}; leaving without it");
        }
    }
}

async fn agent(
    config: &Config,
    edge: KernelEdge,
    publisher: Publisher,
) -> Result<(Agent, Observer), DaemonError> {
    let store = config.datastore.open(&config.prefix).map_err(DaemonError::Datastore)?;
    tracing::info!(datastore = store.describe(), node = config.node_name, "desired state");
    let host = KernelHost::start(&config.device, &config.gateways).await.map_err(DaemonError::Host)?;
    let options = Options {
        nodename: config.node_name.clone(),
        prefix: config.prefix.clone(),
        wanted: config.wanted.clone(),
        device: config.device.clone(),
        gateways: config.gateways.clone(),
        gateway_announce: config.gateway_announce,
        settings: config.settings,
        policy: config.policy,
        felix: config.felix.clone(),
        subnet_file: config.subnet_file.clone(),
        identity_file: config.state_dir.join("vtep.json"),
        snapshot_file: config.state_dir.join("snapshot.json"),
        renew_margin: config.renew_margin,
        ip_masq: config.ip_masq,
        seed: rand::random(),
    };
    Ok(Agent::new(options, store, Arc::new(host), Box::new(edge), publisher))
}

fn runtime() -> Result<Runtime, DaemonError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().map_err(system("start an event loop"))
}

/// A thread that runs `body` and reports its end.
fn spawn<F: Future<Output = ()>>(
    name: &str,
    part: Part,
    runtime: Runtime,
    ended: &Ended,
    body: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<()>, DaemonError> {
    let ended = ended.clone();
    let run = move || {
        let _reported = ended.watch(part);
        runtime.block_on(body());
    };
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(system(format!("start {part}")))
}

/// Reports the first signal that asks for the end; never returns.
async fn signals(ended: Ended) -> std::convert::Infallible {
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        match signal(kind) {
            Ok(mut signal) => {
                let ended = ended.clone();
                tokio::spawn(async move {
                    signal.recv().await;
                    ended.report(Event::Signal(name));
                });
            }
            Err(error) => ended.report(Event::Failed(Part::Control, format!("cannot catch {name}: {error}"))),
        }
    }
    std::future::pending().await
}

/// Says every second that the thread goes round; never returns.
async fn beat(beat_ms: Arc<Counter>) -> std::convert::Infallible {
    loop {
        beat_ms.set(coarse_ms());
        tokio::time::sleep(BEAT).await;
    }
}

/// Tells systemd how the daemon is, whenever that changes; never returns.
async fn news(
    mut status: tokio::sync::watch::Receiver<canal_control::status::Status>,
) -> std::convert::Infallible {
    let mut told_ready = false;
    let mut last = String::new();
    loop {
        let (ready, text) = {
            let status = status.borrow_and_update();
            let reasons: Vec<String> = status.degraded.iter().map(ToString::to_string).collect();
            let text = match (status.ready, reasons.is_empty()) {
                (true, true) => "forwarding".to_owned(),
                (true, false) => format!("forwarding, degraded: {}", reasons.join("; ")),
                (false, true) => "starting".to_owned(),
                (false, false) => format!("not ready: {}", reasons.join("; ")),
            };
            (status.ready, text)
        };
        // The agent itself logs what changes.
        if text != last {
            notify(&[NotifyState::Status(&text)]);
            last = text;
        }
        if ready && !told_ready {
            told_ready = true;
            notify(&[NotifyState::Ready]);
        }
        if status.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What the observe thread listens at.
struct Listeners {
    admin: UnixListener,
    healthz: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

/// Starts the observe thread with everything that was asked for.
fn observe(
    config: &Config,
    inspector: Inspector,
    (records, volume): (Arc<RecordQueue>, Volume),
    ended: &Ended,
) -> Result<JoinHandle<()>, DaemonError> {
    let runtime = runtime()?;
    let socket = config.run_dir.join(protocol::SOCKET_NAME);
    let listeners = runtime.block_on(async {
        let admin = admin::bind(&socket).map_err(system(format!("listen at {}", socket.display())))?;
        let healthz = match config.healthz {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let metrics = match config.metrics {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok::<_, DaemonError>(Listeners { admin, healthz, metrics })
    })?;
    let healthz = config.healthz;
    spawn("canal-observe", Part::Observe, runtime, ended, move || {
        serve(inspector, records, volume, listeners, healthz)
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(system(format!("listen at {address}")))
}

async fn serve(
    inspector: Inspector,
    records: Arc<RecordQueue>,
    volume: Volume,
    listeners: Listeners,
    healthz: Option<SocketAddr>,
) {
    let felix = || inspector.control.felix.clone();
    tokio::spawn(volume.follow(felix()));
    if let Some(listener) = listeners.healthz {
        tokio::spawn(http::serve(listener, http::LIFETIME, health::router(inspector.clone())));
    }
    // All paths are served at either address.
    let elsewhere = move |values: &Values| values.health().filter(|own| Some(*own) != healthz);
    let router = health::router(inspector.clone());
    tokio::spawn(listener::follow("probes are answered", felix(), elsewhere, router));
    let asked = inspector.clone();
    let router = metrics::router(move || asked.clone().facts());
    match listeners.metrics {
        // The flag goes before Felix's settings.
        Some(listener) => drop(tokio::spawn(http::serve(listener, http::LIFETIME, router))),
        None => drop(tokio::spawn(listener::follow("metrics are served", felix(), Values::metrics, router))),
    }
    let taker = inspector.clone();
    tokio::spawn(async move {
        if let Err(error) = records.read(|told| taker.take_in(&told)).await {
            tracing::error!(%error, "what policy has to tell cannot be waited for, and is lost");
        }
    });
    let answer = move |request| inspector.clone().answer(request);
    admin::serve(listeners.admin, admin::Patience::default(), answer).await;
}
