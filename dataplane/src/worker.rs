//! One worker: its flows, its frames, its turn of the loop. The thread around it lives elsewhere.

use std::sync::Arc;

use crate::coalesce::Coalescer;
use crate::counters::Counters;
use crate::flow::{FlowInfo, FlowTable};
use crate::frame::FramePool;
use crate::limits::BATCH;
use crate::net::HashSeed;
use crate::offload::Caps;
use crate::packet::Batch;
use crate::pipeline;
use crate::port::{Port, Received};
use crate::reply::RateLimit;
use crate::stage::Context;
use crate::stage::output::{OutputCaps, Outputs};
use crate::tables::Tables;
use crate::trace::{NoTrace, Trace};

/// ICMP errors a worker may send: a second, and at once. The numbers of Linux's `icmp_msgs_per_sec` and `_burst`.
const ICMP_ALL: (u32, u32) = (1000, 50);
/// To one receiver: ten a second, and ten at once, so that one sender cannot use up what others need.
const ICMP_EACH: (u32, u32) = (10, 10);
/// Flow entries whose deadline is looked at per turn: bounds the pause that expiry causes.
const EXPIRE_BUDGET: usize = 128;

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
    /// Frames it owns.
    pub frames: usize,
    /// Bytes of each, headroom included.
    pub frame_size: usize,
    /// Its clock at the start, in milliseconds.
    pub now_ms: u64,
}

/// The ports of one worker's turn.
pub struct Ports<'a> {
    /// Towards workloads and the host's stack.
    pub access: &'a mut dyn Port,
    /// Towards VTEPs, where that is another port.
    pub underlay: Option<&'a mut dyn Port>,
}

/// Everything one core owns.
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    counters: Arc<Counters>,
    flows: FlowTable,
    pool: FramePool,
    icmp_budget: RateLimit,
    ip_id: u16,
    received: Vec<Received>,
    handed: Vec<Received>,
    batch: Batch,
    outputs: Outputs,
    coalescer: Coalescer,
}

impl Worker {
    /// A worker with empty tables of its own.
    pub fn new(config: WorkerConfig, counters: Arc<Counters>) -> Self {
        let now = config.now_ms as u32;
        Self {
            config,
            counters,
            flows: FlowTable::new(config.flow_capacity, config.seed, now),
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
        self.counters.seen_generation.set(tables.generation);
        let access_caps = ports.access.caps();
        let underlay_caps = ports.underlay.as_ref().map_or(access_caps, |port| port.caps());
        let caps = OutputCaps { access: access_caps, underlay: underlay_caps };
        let mut handled = 0;
        if !self.handed.is_empty() {
            let mut handed = std::mem::take(&mut self.handed);
            handled += handed.len();
            self.process(&mut handed, true, tables, now_ms, caps, &mut NoTrace);
            self.handed = handed;
            self.transmit(ports, handover);
        }
        handled += self.receive(tables, now_ms, ports.access, access_caps, caps);
        self.transmit(ports, handover);
        if let Some(underlay) = &mut ports.underlay {
            handled += self.receive(tables, now_ms, &mut **underlay, underlay_caps, caps);
            self.transmit(ports, handover);
        }
        let expired = self.flows.expire(now_ms as u32, EXPIRE_BUDGET);
        self.counters.flows_expired.add(expired as u64);
        self.counters.flows.set(self.flows.len() as u64);
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

    /// Up to `limit` of its connections.
    pub fn flows(&self, limit: usize, now_ms: u64) -> Vec<FlowInfo> {
        self.flows.list(limit, now_ms as u32)
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
        let mut cx = Context {
            tables,
            flows: &mut self.flows,
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

    fn receive(
        &mut self,
        tables: &Tables,
        now_ms: u64,
        port: &mut dyn Port,
        port_caps: Caps,
        caps: OutputCaps,
    ) -> usize {
        let mut received = std::mem::take(&mut self.received);
        port.receive(&mut self.pool, &mut received, BATCH);
        let count = received.len();
        if count > 0 {
            self.counters.received.add(count as u64);
            self.counters.received_bytes.add(received.iter().map(|r| r.frame.len() as u64).sum());
            // A port that cannot send super-frames does not receive any either: merge what it brings before it goes to one
            // that takes them.
            if count > 1 && !port_caps.tso && (caps.access.tso || caps.underlay.tso) {
                self.coalescer.run(&mut received, &mut self.pool);
            }
            self.process(&mut received, false, tables, now_ms, caps, &mut NoTrace);
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
