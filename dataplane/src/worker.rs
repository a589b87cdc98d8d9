//! One worker: its flows, its frames, its turn of the loop. The thread around it lives elsewhere.

use std::sync::Arc;

use crate::coalesce::Coalescer;
use crate::counters::Counters;
use crate::flow::{FlowId, FlowInfo, FlowTable, Page, Pieces, Quota};
use crate::frame::FramePool;
use crate::limits::BATCH;
use crate::net::{FlowKey, HashSeed};
use crate::offload::Caps;
use crate::packet::Batch;
use crate::pipeline;
use crate::policy::Judge;
use crate::port::{Port, Received};
use crate::reply::RateLimit;
use crate::stage::Context;
use crate::stage::output::{OutputCaps, Outputs};
use crate::tables::Tables;
use crate::timing::{EVERY, Part, Stopwatch, Watch};
use crate::trace::{NoTrace, Trace};

/// ICMP errors a worker may send: a second, and at once. The numbers of Linux's `icmp_msgs_per_sec` and `_burst`.
const ICMP_ALL: (u32, u32) = (1000, 50);
/// To one receiver: ten a second, and ten at once, so that one sender cannot use up what others need.
const ICMP_EACH: (u32, u32) = (10, 10);
/// Flow entries whose deadline is looked at per turn: bounds the pause that expiry causes.
const EXPIRE_BUDGET: usize = 128;
/// Flow entries that are looked at per turn after an endpoint has gone: few, since each may be a cache miss. A turn with
/// nothing else to do looks at more.
const SWEEP_BUDGET: usize = 16;
const IDLE_SWEEP_BUDGET: usize = 2048;

/// How a worker is made.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    /// Its number, from 0.
    pub index: u32,
    /// How many there are.
    pub workers: u32,
    /// Keys of the flow hashes, the same for all workers of a process.
    pub seed: HashSeed,
    /// Connections it can remember.
    pub flow_capacity: usize,
    /// How many of them may be one sender's.
    pub flow_quota: Quota,
    /// Milliseconds, from the first complete tables on, in which connections may be taken up in their middle if policy would
    /// let one of their ends open them: they are older than this worker.
    pub pickup_ms: u64,
    /// Frames it owns.
    pub frames: usize,
    /// Bytes of each, headroom included.
    pub frame_size: usize,
    /// Its clock at the start, in milliseconds.
    pub now_ms: u64,
    /// The clock by which its turns are timed, in nanoseconds. Nothing but [`Counters::timing`] depends on it.
    pub clock_ns: fn() -> u64,
}

/// The ports of one worker's turn.
pub struct Ports<'a> {
    /// Towards workloads and the host's stack.
    pub access: &'a mut dyn Port,
    /// Towards VTEPs, and perhaps hosts behind gateways, where that is another port.
    pub underlay: Option<&'a mut dyn Port>,
}

/// Everything one core owns.
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    counters: Arc<Counters>,
    flows: FlowTable,
    pieces: Pieces,
    /// Until when connections are taken up in their middle; `None` before the first complete tables.
    pickup_until: Option<u64>,
    /// The last change of residents that the flows have been swept for.
    swept: u64,
    judge: Judge,
    pool: FramePool,
    icmp_budget: RateLimit,
    ip_id: u16,
    received: Vec<Received>,
    handed: Vec<Received>,
    batch: Batch,
    outputs: Outputs,
    coalescer: Coalescer,
    /// Turns until one is timed.
    untimed: u32,
}

impl Worker {
    /// A worker with empty tables of its own.
    pub fn new(config: WorkerConfig, counters: Arc<Counters>) -> Self {
        let now = config.now_ms as u32;
        Self {
            config,
            counters,
            flows: FlowTable::new(config.flow_capacity, config.flow_quota, config.seed, now),
            pieces: Pieces::new(),
            pickup_until: None,
            swept: 0,
            judge: Judge::new(config.seed, config.now_ms),
            pool: FramePool::new(config.frames, config.frame_size),
            icmp_budget: RateLimit::new(ICMP_ALL, ICMP_EACH, config.seed, config.now_ms),
            ip_id: config.seed.0 as u16,
            received: Vec::with_capacity(BATCH),
            handed: Vec::with_capacity(BATCH),
            batch: Batch::with_capacity(2 * BATCH),
            outputs: Outputs {
                access: Vec::with_capacity(2 * BATCH),
                underlay: Vec::with_capacity(2 * BATCH),
                handover: Vec::with_capacity(BATCH),
            },
            coalescer: Coalescer::new(),
            untimed: EVERY,
        }
    }

    /// One turn: receive, run the stages, transmit. Returns how many frames it handled; 0 = there was nothing to do.
    /// Frames that other workers own are appended to `handover`.
    pub fn poll(
        &mut self,
        tables: &Tables,
        now_ms: u64,
        ports: &mut Ports<'_>,
        handover: &mut Vec<(u32, Received)>,
    ) -> usize {
        self.untimed -= 1;
        if self.untimed > 0 {
            return self.turn(tables, now_ms, ports, handover, &mut NoTrace);
        }
        self.untimed = EVERY;
        let mut watch = Stopwatch::new(self.config.clock_ns);
        let handled = self.turn(tables, now_ms, ports, handover, &mut watch);
        if handled > 0 {
            self.counters.timing.add(handled as u64, &watch);
        }
        handled
    }

    fn turn<W: Watch>(
        &mut self,
        tables: &Tables,
        now_ms: u64,
        ports: &mut Ports<'_>,
        handover: &mut Vec<(u32, Received)>,
        watch: &mut W,
    ) -> usize {
        self.counters.seen_generation.set(tables.generation);
        self.counters.beat_ms.set(now_ms);
        self.picks_up(tables, now_ms);
        let access_caps = ports.access.caps();
        let underlay_caps = ports.underlay.as_ref().map_or(access_caps, |port| port.caps());
        let caps = OutputCaps {
            access: access_caps,
            underlay: underlay_caps,
            gateways_by_underlay: ports.underlay.as_ref().is_some_and(|port| port.carries_gateways()),
        };
        let mut handled = 0;
        if !self.handed.is_empty() {
            let mut handed = std::mem::take(&mut self.handed);
            handled += handed.len();
            self.counters.taken_over.add(handed.len() as u64);
            self.counters.batches.add(1);
            self.process(&mut handed, true, tables, now_ms, caps, watch);
            watch.lap(Part::Output);
            self.handed = handed;
            self.transmit(ports, handover);
            watch.lap(Part::Transmit);
        }
        handled += self.receive(tables, now_ms, ports.access, access_caps, caps, watch);
        self.transmit(ports, handover);
        watch.lap(Part::Transmit);
        if let Some(underlay) = &mut ports.underlay {
            handled += self.receive(tables, now_ms, &mut **underlay, underlay_caps, caps, watch);
            self.transmit(ports, handover);
            watch.lap(Part::Transmit);
        }
        let expired = self.flows.expire(now_ms as u32, &tables.settings.timeouts, EXPIRE_BUDGET);
        self.counters.flows_expired.add(expired as u64);
        self.sweep(tables, handled == 0);
        self.counters.flows.set(self.flows.len() as u64);
        watch.lap(Part::Upkeep);
        handled
    }

    /// Takes a frame that another worker handed over; it is handled at the next turn.
    pub fn accept(&mut self, handed: Received) {
        self.handed.push(handed);
    }

    /// This worker's free frames: to balance them between workers, and to give undeliverable ones back.
    pub fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    /// Its side of policy: to read its log, and for simulations to keep it from counting.
    pub fn judge(&mut self) -> &mut Judge {
        &mut self.judge
    }

    /// Connections that `wanted` asks for, see [`FlowTable::page`].
    pub fn page_of_flows(
        &self,
        from: FlowId,
        scan: usize,
        limit: usize,
        wanted: impl Fn(&FlowKey) -> bool,
        tables: &Tables,
        now_ms: u64,
    ) -> Page {
        self.flows.page(from, scan, limit, wanted, &tables.settings.timeouts, now_ms as u32)
    }

    /// Up to `limit` of its connections.
    pub fn flows(&self, limit: usize, tables: &Tables, now_ms: u64) -> Vec<FlowInfo> {
        self.page_of_flows(0, usize::MAX, limit, |_| true, tables, now_ms).flows
    }

    /// Connections by the local workload that opened them, see [`FlowTable::by_workload`].
    pub fn flows_by_workload(&self) -> Vec<(u32, u32)> {
        self.flows.by_workload().collect()
    }

    /// Lets its counters say how many connections are how far: now and then, it takes some twenty of them.
    pub fn show_census(&self) {
        self.counters.show_census(self.flows.census());
    }

    /// True while connections of workloads that have gone may still be in the table: turns without packets go on.
    pub fn is_sweeping(&self) -> bool {
        !self.flows.is_swept()
    }

    /// Runs the stages over `received` and leaves the results in the outputs. Public for simulations and `canal trace`.
    pub fn process<T: Trace>(
        &mut self,
        received: &mut Vec<Received>,
        handed: bool,
        tables: &Tables,
        now_ms: u64,
        caps: OutputCaps,
        trace: &mut T,
    ) {
        let pickup = self.picks_up(tables, now_ms);
        let mut cx = Context {
            tables,
            flows: &mut self.flows,
            pieces: &mut self.pieces,
            pickup,
            judge: &mut self.judge,
            counters: &self.counters,
            pool: &mut self.pool,
            icmp_budget: &mut self.icmp_budget,
            ip_id: &mut self.ip_id,
            now_ms,
            worker: self.config.index,
            workers: self.config.workers,
        };
        pipeline::run(received, handed, &mut self.batch, caps, &mut self.outputs, &mut cx, trace);
    }

    /// What the stages left to be sent.
    pub fn outputs(&mut self) -> &mut Outputs {
        &mut self.outputs
    }

    /// May connections be taken up in their middle? The time for it begins with the first complete tables.
    fn picks_up(&mut self, tables: &Tables, now_ms: u64) -> bool {
        if tables.ready && self.pickup_until.is_none() {
            self.pickup_until = Some(now_ms.saturating_add(self.config.pickup_ms));
        }
        tables.settings.tcp_loose || self.pickup_until.is_some_and(|until| now_ms < until)
    }

    /// Cuts connections of workloads that have gone, a few at a time. Their packets are refused at once, by what the
    /// entries themselves say; this is for the room, and for people who look.
    fn sweep(&mut self, tables: &Tables, idle: bool) {
        let residents = &tables.residents;
        if self.swept != residents.since() {
            self.swept = residents.since();
            self.flows.begin_sweep();
        }
        if !self.flows.is_swept() {
            let budget = if idle { IDLE_SWEEP_BUDGET } else { SWEEP_BUDGET };
            let cut = self.flows.sweep(|key| residents.parties(key), budget);
            self.counters.flows_cut.add(cut as u64);
        }
    }

    fn receive<W: Watch>(
        &mut self,
        tables: &Tables,
        now_ms: u64,
        port: &mut dyn Port,
        port_caps: Caps,
        caps: OutputCaps,
        watch: &mut W,
    ) -> usize {
        let mut received = std::mem::take(&mut self.received);
        port.receive(&mut self.pool, &mut received, BATCH);
        watch.lap(Part::Receive);
        let count = received.len();
        if count > 0 {
            self.counters.batches.add(1);
            self.counters.received.add(count as u64);
            self.counters.received_bytes.add(received.iter().map(|r| r.frame.len() as u64).sum());
            // A port that cannot send super-frames does not receive any either: merge what it brings before it goes to one
            // that takes them.
            if count > 1 && !port_caps.tso && (caps.access.tso || caps.underlay.tso) {
                self.coalescer.run(&mut received, &mut self.pool);
                watch.lap(Part::Merge);
            }
            self.process(&mut received, false, tables, now_ms, caps, watch);
            watch.lap(Part::Output);
        }
        self.received = received;
        count
    }

    fn transmit(&mut self, ports: &mut Ports<'_>, handover: &mut Vec<(u32, Received)>) {
        if !self.outputs.underlay.is_empty() {
            match &mut ports.underlay {
                Some(underlay) => underlay.transmit(&mut self.outputs.underlay, &mut self.pool),
                None => ports.access.transmit(&mut self.outputs.underlay, &mut self.pool),
            }
        }
        if !self.outputs.access.is_empty() {
            ports.access.transmit(&mut self.outputs.access, &mut self.pool);
        }
        handover.append(&mut self.outputs.handover);
    }
}

impl std::fmt::Debug for Ports<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("separate_underlay", &self.underlay.is_some()).finish()
    }
}
