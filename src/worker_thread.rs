//! The thread around a worker: its ports, its mail, its sleep, and the orders it takes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use canal_dataplane::counters::{Counter, Counters};
use canal_dataplane::flow::{FlowId, Page, Quota};
use canal_dataplane::limits::{BATCH, SUPER_FRAME_BUFFER};
use canal_dataplane::net::HashSeed;
use canal_dataplane::port::{IfIndex, Port, PortStats, Received};
use canal_dataplane::tables::Reader;
use canal_dataplane::verdict::DropReason;
use canal_dataplane::worker::{Ports, Worker, WorkerConfig};
use canal_io::clock::{coarse_ms, precise_ns};
use canal_io::mailbox::{Mailbox, mailboxes};
use canal_io::tun::{TapDevice, TapPort, TapQueue};
use canal_io::udp::{UdpPort, UdpReceiver};
use canal_io::waiter::{Waiter, Wake};
use canal_io::xdp::{Memory, Wire, XdpPort};
use canal_io::{affinity, bpf::NextHops};
use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

use crate::depot::Depot;
use crate::observe::flow_filter::FlowFilter;
use crate::outside::Outside;
use crate::record_queue::RecordQueue;
use crate::supervise::{Ended, Part};

/// Frames of each worker: eight batches. Only those in use cost memory, the most recently used first.
const FRAMES: usize = 8 * BATCH;

/// Frames that may wait for a worker that does not get round to them; more would only be older when they arrive.
const MAIL: usize = 4 * BATCH;

/// Orders that may wait for a worker. They are few: the ports change with the lease, flows are asked for by hand.
const ORDERS: usize = 16;

/// Longest sleep: time-outs of flows are looked after, and new tables taken over, at least so often.
const SLEEP_MS: u16 = 500;

/// Longest sleep while packets wait for a device that is full: nobody says when it has room again.
const HELD_UP_MS: u16 = 1;

/// Flow entries that are looked at for one page: what that takes, packets wait.
const SCAN: usize = 8192;

/// Busy turns after which port counters, those of time, and those of flows by state are published.
const PUBLISH_EVERY: u32 = 64;

/// `AtomicU32` value for "not pinned".
const NO_CORE: u32 = u32::MAX;

/// What a worker can be told.
pub enum Order {
    /// From now on, these sockets are the way to the underlay (`None`: there are none).
    Udp(Option<Box<UdpPort>>),
    /// From now on, frames of this memory come by.
    Home(Arc<Memory>),
    /// From now on, AF_XDP sockets carry an interface as well, and count there.
    Attach(Box<Wire>, Arc<PortCounters>),
    /// Close the AF_XDP sockets on this interface.
    Detach(IfIndex),
    /// From now on, these sockets catch outer fragments.
    Strays(Vec<UdpReceiver>),
    /// Say which flows you have, a page at a time.
    Flows(FlowPage, oneshot::Sender<Page>),
    /// Say how many flows each local workload has, by its serial.
    Shares(oneshot::Sender<Vec<(u32, u32)>>),
    /// Take over the newest tables, even if there is nothing to do with them yet, and say which generation that is.
    Look(oneshot::Sender<u64>),
    /// Come to an end.
    Stop,
}

/// Which flows of a worker are asked for.
#[derive(Clone, Debug)]
pub struct FlowPage {
    /// The entry to begin with: 0, then what the page before says.
    pub from: FlowId,
    /// At most so many.
    pub limit: usize,
    /// Those that it wants.
    pub filter: FlowFilter,
}

/// Why a worker did not take an order.
#[derive(Debug, thiserror::Error)]
#[error("worker {0} does not take orders: it is stuck or gone")]
pub struct Stuck(u32);

/// Port counters as the worker last published them. Aligned so that two workers never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortCounters([Counter; 7]);

impl PortCounters {
    fn publish(&self, stats: PortStats) {
        let PortStats { rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_full, tx_errors } = stats;
        let values = [rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_full, tx_errors];
        for (counter, value) in self.0.iter().zip(values) {
            counter.set(value);
        }
    }

    /// As of some moment ago.
    pub fn read(&self) -> PortStats {
        let [rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_full, tx_errors] =
            std::array::from_fn(|i| self.0[i].get());
        PortStats { rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_full, tx_errors }
    }
}

/// What others see of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Its number.
    pub index: u32,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// What its TAP queue counts.
    pub access: Arc<PortCounters>,
    /// What its UDP sockets to the underlay count; zero without any.
    pub underlay: Arc<PortCounters>,
    core: Arc<AtomicU32>,
    orders: Sender<Order>,
    wake: Arc<Wake>,
}

impl WorkerHandle {
    /// Tells the worker something.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn order(&self, order: Order) -> Result<(), Stuck> {
        self.orders.try_send(order).map_err(|_| Stuck(self.index))?;
        self.wake.wake();
        Ok(())
    }

    /// The core it is pinned to.
    pub fn core(&self) -> Option<u32> {
        Some(self.core.load(Ordering::Relaxed)).filter(|core| *core != NO_CORE)
    }
}

/// What all workers have in common.
pub struct Plan<'a> {
    /// Keys of the flow hashes.
    pub seed: HashSeed,
    /// Flow entries of each worker.
    pub flows: usize,
    /// How many of them one sender may have.
    pub flow_quota: Quota,
    /// How long after the start connections are taken up in their middle, milliseconds.
    pub pickup_ms: u64,
    /// The TAP device.
    pub device: &'a TapDevice,
    /// IPv6 next hops, for the TAP queues.
    pub next_hops: Arc<NextHops>,
    /// Where tables come from.
    pub tables: Reader,
    /// Where what policy has to tell goes.
    pub records: Arc<RecordQueue>,
    /// Who is told when a worker ends.
    pub ended: Ended,
}

/// Running workers; stop and join them with [`Workers::stop`].
pub struct Workers {
    handles: Arc<[WorkerHandle]>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread for each of `queues`.
    ///
    /// # Errors
    /// When the kernel refuses a thread or a descriptor.
    pub fn start(plan: &Plan<'_>, queues: Vec<TapQueue>) -> io::Result<Self> {
        let count = queues.len();
        let waiters = (0..count).map(|_| Waiter::new()).collect::<io::Result<Vec<_>>>()?;
        let wakes: Vec<_> = waiters.iter().map(Waiter::wake_handle).collect();
        let boxes = mailboxes(wakes.clone(), MAIL);
        let depot = Arc::new(Depot::new(count, FRAMES));
        let cores = affinity::allowed_cores().unwrap_or_default();
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        let parts = queues.into_iter().zip(waiters).zip(boxes).zip(wakes);
        for (index, (((queue, mut waiter), mailbox), wake)) in parts.enumerate() {
            let (orders, taken) = bounded(ORDERS);
            let counters = Arc::new(Counters::default());
            counters.beat_ms.set(coarse_ms());
            let access = TapPort::new(plan.device, queue, Arc::clone(&plan.next_hops));
            waiter.watch(std::os::fd::AsFd::as_fd(&access))?;
            let handle = WorkerHandle {
                index: index as u32,
                counters: Arc::clone(&counters),
                access: Arc::default(),
                underlay: Arc::default(),
                core: Arc::new(AtomicU32::new(NO_CORE)),
                orders,
                wake,
            };
            let config = WorkerConfig {
                index: index as u32,
                workers: count as u32,
                seed: plan.seed,
                flow_capacity: plan.flows,
                flow_quota: plan.flow_quota,
                pickup_ms: plan.pickup_ms,
                frames: FRAMES,
                frame_size: SUPER_FRAME_BUFFER,
                now_ms: coarse_ms(),
                clock_ns: precise_ns,
            };
            let turn = Turn {
                config,
                access,
                outside: Outside::default(),
                wire_counters: Vec::new(),
                waiter,
                mailbox,
                tables: plan.tables.clone(),
                records: Arc::clone(&plan.records),
                counters,
                depot: Arc::clone(&depot),
                orders: taken,
                access_counters: Arc::clone(&handle.access),
                underlay_counters: Arc::clone(&handle.underlay),
            };
            let core = (!cores.is_empty()).then(|| cores[index % cores.len()]);
            let seen_core = Arc::clone(&handle.core);
            let ended = plan.ended.clone();
            threads.push(std::thread::Builder::new().name(format!("canal-w{index}")).spawn(move || {
                let _reported = ended.watch(Part::Worker(index as u32));
                if let Some(core) = core {
                    match affinity::pin(core) {
                        Ok(()) => seen_core.store(core as u32, Ordering::Relaxed),
                        Err(error) => tracing::warn!(%error, worker = index, core, "cannot pin a worker"),
                    }
                }
                turn.run();
            })?);
            handles.push(handle);
        }
        Ok(Self { handles: handles.into(), threads })
    }

    /// For the control side and the observers.
    pub fn handles(&self) -> Arc<[WorkerHandle]> {
        Arc::clone(&self.handles)
    }

    /// Stops all workers and waits for them; a stuck one is left behind.
    pub fn stop(self) {
        for (handle, thread) in self.handles.iter().zip(self.threads) {
            match handle.order(Order::Stop) {
                // A panic has been reported already.
                Ok(()) => drop(thread.join()),
                Err(error) => tracing::error!(%error),
            }
        }
    }
}

/// Everything a worker's thread owns.
struct Turn {
    config: WorkerConfig,
    access: TapPort,
    outside: Outside,
    /// Where the sockets on each interface count.
    wire_counters: Vec<(IfIndex, Arc<PortCounters>)>,
    waiter: Waiter,
    mailbox: Mailbox<Received>,
    tables: Reader,
    records: Arc<RecordQueue>,
    counters: Arc<Counters>,
    depot: Arc<Depot>,
    orders: Receiver<Order>,
    access_counters: Arc<PortCounters>,
    underlay_counters: Arc<PortCounters>,
}

impl Turn {
    fn run(mut self) {
        let mut worker = Worker::new(self.config, Arc::clone(&self.counters));
        let mut handover = Vec::with_capacity(2 * BATCH);
        let mut turns = 0;
        loop {
            let expired = self.counters.flows_expired.get();
            let handled = self.turn(&mut worker, &mut handover);
            self.outside.settle(worker.pool());
            self.depot.balance(worker.pool());
            if !worker.judge().log.is_empty() {
                self.records.publish(self.config.index, &mut worker.judge().log, &self.counters);
            }
            let busy = self.counters.flows_expired.get() != expired || worker.is_sweeping();
            let idle = handled == 0 && !busy;
            if !idle {
                turns += 1;
                self.waiter.worked();
            }
            // What is counted is not told again and again while nothing happens: it takes system calls.
            let sleepy = idle && !self.waiter.linger();
            if sleepy || (!idle && turns % PUBLISH_EVERY == 0) {
                self.publish();
                worker.show_census();
            }
            if sleepy {
                let (mailbox, orders) = (&self.mailbox, &self.orders);
                let is_held_up = self.outside.xdp.as_ref().is_some_and(XdpPort::is_held_up);
                let longest = if is_held_up { HELD_UP_MS } else { SLEEP_MS };
                if let Err(error) = self.waiter.sleep(longest, || !mailbox.is_empty() || !orders.is_empty()) {
                    // Waiting is impossible; working by polling would burn a core for nothing.
                    panic!("worker {} cannot wait for its ports: {error}", self.config.index);
                }
            }
            while let Ok(order) = self.orders.try_recv() {
                if self.obey(order, &worker).is_break() {
                    return;
                }
            }
        }
    }

    /// Mail in, one turn of the worker, mail out.
    fn turn(&mut self, worker: &mut Worker, handover: &mut Vec<(u32, Received)>) -> usize {
        for _ in 0..BATCH {
            let Some(handed) = self.mailbox.take() else { break };
            worker.accept(handed);
        }
        let mut ports = Ports { access: &mut self.access, underlay: self.outside.port() };
        let handled = worker.poll(self.tables.load(), coarse_ms(), &mut ports, handover);
        for (to, received) in handover.drain(..) {
            if let Err(undelivered) = self.mailbox.send(to, received) {
                Counters::drop(&self.counters, DropReason::HandoverFull);
                worker.pool().give(undelivered.frame);
            }
        }
        self.mailbox.flush();
        handled
    }

    fn publish(&self) {
        self.access_counters.publish(self.access.stats());
        if let Some(udp) = &self.outside.udp {
            self.underlay_counters.publish(udp.stats());
        }
        for wire in self.outside.xdp.iter().flat_map(XdpPort::wires) {
            if let Some((_, counters)) = self.wire_counters.iter().find(|(of, _)| *of == wire.ifindex()) {
                counters.publish(wire.stats());
            }
        }
        let times = self.waiter.times();
        self.counters.busy_ns.set(times.busy_ns);
        self.counters.idle_ns.set(times.idle_ns);
        self.counters.sleeps.set(self.waiter.sleeps());
    }

    fn obey(&mut self, order: Order, worker: &Worker) -> std::ops::ControlFlow<()> {
        match order {
            Order::Stop => return std::ops::ControlFlow::Break(()),
            Order::Udp(port) => {
                self.outside.udp = port;
                for socket in self.outside.udp.iter().flat_map(|port| port.sockets()) {
                    watch(&mut self.waiter, socket);
                }
            }
            Order::Home(memory) => self.outside.home = Some(memory),
            Order::Attach(wire, counters) => {
                wire.sockets().for_each(|socket| watch(&mut self.waiter, socket));
                self.wire_counters.push((wire.ifindex(), counters));
                match &mut self.outside.xdp {
                    Some(port) if port.goes_with(&wire) => port.add(*wire),
                    port => *port = Some(XdpPort::new(*wire, self.access.writer())),
                }
            }
            Order::Detach(ifindex) => {
                self.wire_counters.retain(|(of, _)| *of != ifindex);
                self.outside.detach(ifindex);
            }
            Order::Strays(strays) => {
                self.access.set_fallback(strays);
                self.access.fallback().for_each(|socket| watch(&mut self.waiter, socket));
            }
            Order::Look(reply) => {
                let generation = self.tables.load().generation;
                self.counters.seen_generation.set(generation);
                let _ = reply.send(generation);
            }
            Order::Shares(reply) => drop(reply.send(worker.flows_by_workload())),
            Order::Flows(FlowPage { from, limit, filter }, reply) => {
                let wanted = |key: &_| filter.wants(key);
                let page = worker.page_of_flows(from, SCAN, limit, wanted, self.tables.load(), coarse_ms());
                // Whoever asked may have given up.
                let _ = reply.send(page);
            }
        }
        std::ops::ControlFlow::Continue(())
    }
}

fn watch(waiter: &mut Waiter, socket: std::os::fd::BorrowedFd<'_>) {
    if let Err(error) = waiter.watch(socket) {
        tracing::error!(%error, "cannot wait for a socket; it is looked at every {SLEEP_MS} ms only");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! Workers that do nothing but look at tables: for tests of those who give orders.

    use std::sync::Mutex;
    use std::time::Duration;

    use crossbeam::channel::TryRecvError;

    use super::*;

    /// The other end of a handle.
    pub struct Fake {
        counters: Arc<Counters>,
        /// What `Look` is answered with; `None` = never.
        generation: Arc<Mutex<Option<u64>>>,
    }

    impl Fake {
        /// A worker and its handle: a task of the current runtime, which looks for orders every millisecond of the
        /// runtime's clock and ends with the handle.
        pub fn new(index: u32) -> (WorkerHandle, Self) {
            let (orders, taken) = bounded::<Order>(ORDERS);
            let waiter = Waiter::new().unwrap();
            let counters = Arc::new(Counters::default());
            let handle = WorkerHandle {
                index,
                counters: Arc::clone(&counters),
                access: Arc::default(),
                underlay: Arc::default(),
                core: Arc::new(AtomicU32::new(NO_CORE)),
                orders,
                wake: waiter.wake_handle(),
            };
            let generation = Arc::default();
            let fake = Self { counters, generation: Arc::clone(&generation) };
            let seen = Arc::clone(&fake.counters);
            tokio::spawn(async move {
                let _waiter = waiter;
                let mut unanswered = Vec::new();
                loop {
                    match taken.try_recv() {
                        Ok(Order::Look(reply)) => match *generation.lock().unwrap() {
                            Some(generation) => {
                                seen.seen_generation.set(generation);
                                let _ = reply.send(generation);
                            }
                            None => unanswered.push(reply),
                        },
                        Ok(Order::Flows(_, reply)) => drop(reply.send(Page::default())),
                        Ok(Order::Shares(reply)) => drop(reply.send(Vec::new())),
                        Ok(_) => {}
                        Err(TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(1)).await,
                        Err(TryRecvError::Disconnected) => return,
                    }
                }
            });
            (handle, fake)
        }

        /// It has used this generation for a packet.
        pub fn sees(&self, generation: u64) {
            self.counters.seen_generation.set(generation);
            self.answers(generation);
        }

        /// It went round at this time.
        pub fn beats(&self, now_ms: u64) {
            self.counters.beat_ms.set(now_ms);
        }

        /// It sleeps, and will say this generation when it is told to look.
        pub fn answers(&self, generation: u64) {
            *self.generation.lock().unwrap() = Some(generation);
        }
    }
}
