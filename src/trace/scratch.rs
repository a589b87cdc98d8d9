//! A worker that nobody else sees, and what its stages leave behind.

use std::sync::Arc;

use canal_dataplane::counters::Counters;
use canal_dataplane::flow::Quota;
use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::{BATCH, SUPER_FRAME_BUFFER};
use canal_dataplane::net::HashSeed;
use canal_dataplane::offload::{Caps, Offload};
use canal_dataplane::packet::{Asked, Connection, Headers, Packet as Traced, Source};
use canal_dataplane::port::{Egress, Ingress, Received};
use canal_dataplane::stage::output::OutputCaps;
use canal_dataplane::tables::Tables;
use canal_dataplane::trace::{Stage, Trace};
use canal_dataplane::verdict::Verdict;
use canal_dataplane::worker::{Worker, WorkerConfig};

use super::packets::Packet;

/// Frames at hand: the packet, and the pieces that the largest one is cut into.
const FRAMES: usize = BATCH;

/// Connections it can remember: that of one packet.
const FLOWS: usize = 64;

/// Frames for workers that come and go: pools take their memory for good, so that it is taken once.
#[derive(Debug)]
pub struct Scratch(Vec<Frame>);

impl Scratch {
    /// Takes the memory.
    pub fn new() -> Self {
        let mut pool = FramePool::new(FRAMES, SUPER_FRAME_BUFFER);
        Self(std::iter::from_fn(|| pool.take()).collect())
    }

    /// A worker without any flow, until the run is dropped.
    pub fn begin(&mut self, seed: HashSeed, now_ms: u64) -> Run<'_> {
        let mut run = self.begin_counting(seed, now_ms);
        // Rules count and log real packets only.
        run.worker.judge().stop_counting();
        run
    }

    /// The same with a worker like the daemon's.
    pub(super) fn begin_counting(&mut self, seed: HashSeed, now_ms: u64) -> Run<'_> {
        let config = WorkerConfig {
            index: 0,
            workers: 1,
            seed,
            flow_capacity: FLOWS,
            flow_quota: Quota::of(FLOWS),
            // What is imagined is judged as strictly as what comes long after a start.
            pickup_ms: 0,
            frames: 0,
            frame_size: SUPER_FRAME_BUFFER,
            now_ms,
            // Its stages are run by themselves, and nobody times them.
            clock_ns: || 0,
        };
        let mut worker = Worker::new(config, Arc::new(Counters::default()));
        self.0.drain(..).for_each(|frame| worker.pool().give(frame));
        Run { frames: &mut self.0, worker, now_ms }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// A worker at work.
pub struct Run<'a> {
    frames: &'a mut Vec<Frame>,
    worker: Worker,
    now_ms: u64,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let pool = self.worker.pool();
        self.frames.extend(std::iter::from_fn(|| pool.take()));
    }
}

/// What the stages left of one packet.
#[derive(Debug, Default)]
pub struct Recording {
    /// After each stage that ran, in order.
    pub steps: Vec<Step>,
    /// What would have been sent.
    pub sent: Vec<Sent>,
}

/// The first packet of the batch after one stage: the others are pieces of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// The way it came.
    pub ingress: Ingress,
    /// Whose it is.
    pub source: Source,
    /// What was decided so far.
    pub verdict: Verdict,
    /// Its connection.
    pub connection: Connection,
    /// Which ways round policy is still asked about.
    pub asked: Asked,
    /// Whether that has an entry.
    pub has_flow: bool,
    /// Validated headers; they mean something once it has been classified.
    pub headers: Headers,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// Packets in the batch.
    pub pieces: usize,
}

/// A frame that would have been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Where to.
    pub egress: Egress,
    /// Its bytes.
    pub frame: Vec<u8>,
}

impl Trace for Recording {
    fn after(&mut self, stage: Stage, batch: &[Traced]) {
        let Some(first) = batch.first() else { return };
        self.steps.push(Step {
            stage,
            ingress: first.ingress,
            source: first.source,
            verdict: first.verdict,
            connection: first.connection,
            asked: first.asked,
            has_flow: first.flow.is_some(),
            headers: first.headers,
            frame: first.frame.data().to_vec(),
            pieces: batch.len(),
        });
    }
}

impl Run<'_> {
    /// What policy has to tell.
    #[cfg(test)]
    pub(super) fn log(&mut self) -> &canal_dataplane::policy::Log {
        &self.worker.judge().log
    }

    /// Takes one packet through all stages.
    pub fn packet(&mut self, packet: &Packet, tables: &Tables) -> Recording {
        let mut recording = Recording::default();
        let Some(mut frame) = self.worker.pool().take() else { return recording };
        if !frame.fill(&packet.frame) {
            self.worker.pool().give(frame);
            return recording;
        }
        let mut received = vec![Received { frame, offload: Offload::NONE, ingress: packet.ingress }];
        // What leaves is looked at as it would be on a wire: every checksum finished.
        let caps = OutputCaps { access: Caps::NONE, underlay: Caps::NONE, gateways_by_underlay: false };
        self.worker.process(&mut received, false, tables, self.now_ms, caps, &mut recording);
        let outputs = self.worker.outputs();
        let outgoing: Vec<_> = outputs.access.drain(..).chain(outputs.underlay.drain(..)).collect();
        for out in outgoing {
            recording.sent.push(Sent { egress: out.egress, frame: out.frame.data().to_vec() });
            self.worker.pool().give(out.frame);
        }
        recording
    }
}
