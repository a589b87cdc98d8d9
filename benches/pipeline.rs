//! The whole pipeline in memory: 64-byte packets of established flows, encapsulated and decapsulated, over 1,000,
//! 40,000 and 1,000,000 flows. Times are per packet; only the stages are timed, not the making of packets.

use std::cell::{OnceCell, RefCell};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use canal_dataplane::counters::Counters;
use canal_dataplane::flow::Quota;
use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::{BATCH, SMALL_FRAME_BUFFER};
use canal_dataplane::net::Vni;
use canal_dataplane::offload::{Caps, Offload};
use canal_dataplane::packet::Packet;
use canal_dataplane::port::{Ingress, Received};
use canal_dataplane::reply::GATEWAY_MAC;
use canal_dataplane::stage::output::OutputCaps;
use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::{packets, world};
use canal_dataplane::trace::{NoTrace, Stage, Trace};
use canal_dataplane::worker::{Worker, WorkerConfig};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const CAPS: OutputCaps = OutputCaps { access: Caps::ALL, underlay: Caps::ALL };
const NODES: u16 = 5000;

/// One direction of traffic: a template packet and how to turn it into that of flow `i`.
struct Traffic {
    ingress: Ingress,
    template: Vec<u8>,
    /// Where the ports of the inner UDP header stand.
    ports: usize,
}

impl Traffic {
    fn encap() -> Self {
        // 64 bytes on the wire: 14 + 20 + 8 + 18, and 4 of frame check sequence.
        let packet = packets::udp((world::pod(1, 1, false), 0), (world::pod(7, 9, false), 0), 18);
        Self {
            ingress: Ingress::Workload(101),
            template: packet.frame(GATEWAY_MAC, world::pod_mac(1)),
            ports: 34,
        }
    }

    fn decap() -> Self {
        let packet = packets::udp((world::pod(7, 9, false), 0), (world::pod(1, 1, false), 0), 18);
        let inner = packet.frame(world::OUR_MAC, world::mac(7, false));
        let outer = (world::outer(7, false), world::our_outer(false));
        Self {
            ingress: Ingress::Underlay,
            template: packets::encapsulated(outer, 8472, Vni::FLANNEL, 0, &inner),
            ports: 84,
        }
    }

    fn fill(&self, frame: &mut Frame, flow: u32) {
        assert!(frame.fill(&self.template));
        // Destination ports from 0x8000 on, never VXLAN's; the UDP checksum of the template is not looked at.
        let ports = (0x0400 + (flow >> 14)) << 16 | 0x8000 | flow & 0x3fff;
        frame.data_mut()[self.ports..self.ports + 4].copy_from_slice(&ports.to_be_bytes());
    }
}

struct Rig {
    worker: Worker,
    tables: Tables,
    pool: FramePool,
    received: Vec<Received>,
    next: u32,
}

impl Rig {
    fn new(flows: u32) -> Self {
        let flow_capacity = (flows as usize).max(4096);
        // All flows are of one sender, so that it needs all there is.
        let flow_quota = Quota { workload: flow_capacity, node: flow_capacity };
        let config = WorkerConfig { flow_capacity, flow_quota, frames: BATCH, ..world::config(1000) };
        Self {
            worker: Worker::new(config, Arc::new(Counters::default())),
            tables: tables::compile(&world::spec(NODES), None, 1),
            pool: FramePool::new(BATCH, SMALL_FRAME_BUFFER),
            received: Vec::with_capacity(BATCH),
            next: 0,
        }
    }

    /// A rig whose flows are all established.
    fn warm(traffic: &Traffic, flows: u32) -> Self {
        let mut rig = Self::new(flows);
        for _ in 0..(2 * flows as usize).div_ceil(BATCH) {
            rig.batch(traffic, flows);
        }
        rig
    }

    /// One batch; returns the time that the stages took.
    fn batch(&mut self, traffic: &Traffic, flows: u32) -> Duration {
        self.traced(traffic, flows, &mut NoTrace)
    }

    fn traced<T: Timed>(&mut self, traffic: &Traffic, flows: u32, trace: &mut T) -> Duration {
        for _ in 0..BATCH {
            let mut frame = self.pool.take().expect("every frame came back");
            // A stride that visits all flows and never the neighbour of the last one.
            self.next = (self.next + 7919) % flows;
            traffic.fill(&mut frame, self.next);
            self.received.push(Received { frame, offload: Offload::NONE, ingress: traffic.ingress });
        }
        // The stores that made the packets are not the pipeline's to wait for; its own are (second fence).
        fence(Ordering::SeqCst);
        let start = Instant::now();
        trace.begin(start);
        self.worker.process(&mut self.received, false, &self.tables, 1000, CAPS, trace);
        fence(Ordering::SeqCst);
        let end = Instant::now();
        trace.end(end);
        let taken = end - start;
        let outputs = self.worker.outputs();
        for sent in outputs.access.drain(..).chain(outputs.underlay.drain(..)) {
            self.pool.give(black_box(sent).frame);
        }
        taken
    }
}

/// A trace that is told when a batch begins.
trait Timed: Trace {
    fn begin(&mut self, _: Instant) {}
    fn end(&mut self, _: Instant) {}
}

impl Timed for NoTrace {}

impl Timed for StageClock {
    fn begin(&mut self, at: Instant) {
        self.last = at;
    }

    fn end(&mut self, at: Instant) {
        if self.wanted.is_none() {
            self.taken += at - self.last;
        }
    }
}

/// Clocks one stage of each batch: from the end of the one before it to its own end.
struct StageClock {
    /// `None` = output, which is the last and ends with the batch.
    wanted: Option<Stage>,
    last: Instant,
    taken: Duration,
}

impl Trace for StageClock {
    fn after(&mut self, stage: Stage, _: &[Packet]) {
        let now = Instant::now();
        if Some(stage) == self.wanted {
            self.taken += now - self.last;
        }
        self.last = now;
    }
}

/// Time per packet of each stage, established flows, 1,000 of them. The clock itself adds about 0.4 ns.
fn stages(criterion: &mut Criterion) {
    const FLOWS: u32 = 1_000;
    let order = [
        Stage::Admit,
        Stage::Decap,
        Stage::Classify,
        Stage::Source,
        Stage::Conntrack,
        Stage::Forward,
        Stage::Encap,
    ];
    for (name, traffic) in [("encap64", Traffic::encap()), ("decap64", Traffic::decap())] {
        let mut group = criterion.benchmark_group(format!("stage/{name}"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for wanted in order.map(Some).into_iter().chain([None]) {
            let rig = OnceCell::new();
            group.bench_function(
                wanted.map_or("Output".to_owned(), |stage| format!("{stage:?}")),
                |bencher| {
                    let rig = rig.get_or_init(|| RefCell::new(Rig::warm(&traffic, FLOWS)));
                    bencher.iter_custom(|packets| {
                        let batches = packets.div_ceil(BATCH as u64);
                        let mut clock = StageClock { wanted, last: Instant::now(), taken: Duration::ZERO };
                        for _ in 0..batches {
                            rig.borrow_mut().traced(&traffic, FLOWS, &mut clock);
                        }
                        clock.taken.mul_f64(packets as f64 / (batches * BATCH as u64) as f64)
                    });
                },
            );
        }
        group.finish();
    }
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, traffic) in [("encap64", Traffic::encap()), ("decap64", Traffic::decap())] {
        for flows in [1_000, 40_000, 1_000_000] {
            let rig = OnceCell::new();
            group.bench_function(BenchmarkId::new(name, flows), |bencher| {
                // Made here so that a filtered-out benchmark costs nothing.
                let rig = rig.get_or_init(|| RefCell::new(Rig::warm(&traffic, flows)));
                bencher.iter_custom(|packets| {
                    let batches = packets.div_ceil(BATCH as u64);
                    let taken: Duration = (0..batches).map(|_| rig.borrow_mut().batch(&traffic, flows)).sum();
                    taken.mul_f64(packets as f64 / (batches * BATCH as u64) as f64)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pipeline, stages);
criterion_main!(benches);
