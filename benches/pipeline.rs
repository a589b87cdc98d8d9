//! The whole pipeline in memory, and each of its stages: 64-byte packets, encapsulated and decapsulated, of established
//! connections, in batches of several sizes. Times are per packet; only the stages are timed, not the making of packets.
//! Beside every figure stands how often the stages asked for memory: never, or the bench fails.

mod rig;

use std::cell::{OnceCell, RefCell};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canal_dataplane::packet::Packet;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::spec::policy::EndpointPolicy;
use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::world;
use canal_dataplane::timing::{EVERY, Part, Stopwatch, Timing};
use canal_dataplane::trace::{NoTrace, Stage, Trace};
use canal_io::clock::precise_ns;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rig::{Rig, Timed, Traffic};

const NODES: u16 = 5000;

fn tables() -> Arc<Tables> {
    Arc::new(tables::compile(&world::spec(NODES), None, 1))
}

fn directions() -> [(&'static str, Traffic); 2] {
    [("encap64", Traffic::encap()), ("decap64", Traffic::decap())]
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, traffic) in directions() {
        for flows in [1_000, 40_000, 1_000_000] {
            // Made when it is needed, so that a filtered-out benchmark costs nothing.
            let rig = OnceCell::new();
            group.bench_function(BenchmarkId::new(name, flows), |bencher| {
                let rig = rig.get_or_init(|| RefCell::new(Rig::warm(tables(), &traffic, flows)));
                bencher.iter_custom(|packets| rig::time(rig, packets));
            });
            rig.get().inspect(|rig| rig.borrow().report(&format!("pipeline/{name}/{flows}")));
        }
    }
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, traffic) in directions() {
        for size in [1, 8, 32, 64] {
            let rig = OnceCell::new();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let rig = rig
                    .get_or_init(|| RefCell::new(Rig::warm(tables(), &traffic, 1_000).in_batches_of(size)));
                bencher.iter_custom(|packets| rig::time(rig, packets));
            });
            rig.get().inspect(|rig| rig.borrow().report(&format!("batch/{name}/{size}")));
        }
    }
    group.finish();
}

/// What it costs that workers time one turn in 61, beside timing none and every one; then by turns, because the speed of a
/// shared machine drifts.
fn timing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timing");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for size in [1, 8, 64] {
        let rig = OnceCell::new();
        for (name, every) in [("never", u32::MAX), ("as-workers-do", EVERY), ("always", 1)] {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let rig = rig.get_or_init(|| {
                    RefCell::new(Rig::warm(tables(), &Traffic::encap(), 1_000).in_batches_of(size))
                });
                bencher.iter_custom(|packets| timed(&mut rig.borrow_mut(), packets, every));
            });
        }
        rig.get().inspect(|rig| {
            println!("timing/{size}: {}", price(&mut rig.borrow_mut()));
            rig.borrow().report(&format!("timing/{size}"));
        });
    }
    group.finish();
}

/// The time of `packets` packets if every so manieth batch is timed stage by stage.
fn timed(rig: &mut Rig, packets: u64, every: u32) -> Duration {
    let sums = Timing::default();
    let batches = packets.div_ceil(rig.batch() as u64);
    let mut taken = Duration::ZERO;
    let mut left = every;
    for _ in 0..batches {
        left -= 1;
        if left > 0 {
            taken += rig.run(&mut NoTrace);
            continue;
        }
        left = every;
        let begin = Instant::now();
        let mut watch = Stopwatch::new(precise_ns);
        taken += begin.elapsed() + rig.run(&mut watch);
        let end = Instant::now();
        sums.add(rig.batch() as u64, &watch);
        taken += end.elapsed();
    }
    black_box(sums);
    rig::scaled(taken, packets, rig.batch())
}

/// What a packet bears of it when one batch in [`EVERY`] is timed. By timing all of them: of one in so many the rest of the
/// machine would leave nothing to see.
fn price(rig: &mut Rig) -> String {
    const PAIRS: usize = 101;
    let packets = 2_000 * rig.batch() as u64;
    let mut prices: Vec<f64> = (0..PAIRS)
        .map(|_| {
            let without = timed(rig, packets, u32::MAX).as_secs_f64();
            let with = timed(rig, packets, 1).as_secs_f64();
            (with - without) * 1e9 / packets as f64 / f64::from(EVERY)
        })
        .collect();
    prices.sort_by(f64::total_cmp);
    let [low, median, high] = [PAIRS / 4, PAIRS / 2, PAIRS * 3 / 4].map(|at| prices[at]);
    format!("timing one batch in {EVERY} costs {median:.3} ns a packet (quartiles {low:.3}, {high:.3})")
}

impl Timed for Stopwatch {}

/// Clocks one part of each batch: from the end of the one before it to its own end.
struct PartClock {
    wanted: Part,
    last: Instant,
    taken: Duration,
}

impl Trace for PartClock {
    fn after(&mut self, stage: Stage, _: &[Packet]) {
        let now = Instant::now();
        if Part::Stage(stage) == self.wanted {
            self.taken += now - self.last;
        }
        self.last = now;
    }
}

impl Timed for PartClock {
    fn begin(&mut self, at: Instant) {
        self.last = at;
    }

    fn end(&mut self, at: Instant) {
        if self.wanted == Part::Output {
            self.taken += at - self.last;
        }
    }
}

/// Packets of connections that other tables have decided: every batch meets a generation of its own, in which policy has
/// changed, or the way to some node. Of 1,000 connections, answered or not.
fn generations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generation");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let same: fn(&mut NodeSpec, u64) = |_, _| {};
    let policy: fn(&mut NodeSpec, u64) = |spec, _| spec.endpoints[1].policy = EndpointPolicy::allow_all();
    let way: fn(&mut NodeSpec, u64) = |spec, n| spec.vteps[0].mac = world::pod_mac(n as u8);
    for (name, change) in [("same", same), ("policy", policy), ("way", way)] {
        for answered in [true, false] {
            let mut spec = world::spec(20);
            let first = Arc::new(tables::compile(&spec, None, 1));
            let mut rig = match answered {
                true => Rig::answered(first, 1_000),
                false => Rig::warm(first, &Traffic::encap(), 1_000),
            };
            let id = if answered { "answered" } else { "unanswered" };
            group.bench_function(BenchmarkId::new(name, id), |bencher| {
                bencher.iter_custom(|packets| {
                    let batches = packets.div_ceil(rig.batch() as u64);
                    let mut taken = Duration::ZERO;
                    for n in 0..batches {
                        change(&mut spec, n);
                        if name != "same" {
                            let generation = rig.tables.generation + 1;
                            rig.tables = Arc::new(tables::compile(&spec, Some(&rig.tables), generation));
                        }
                        taken += rig.run(&mut NoTrace);
                    }
                    rig::scaled(taken, packets, rig.batch())
                });
            });
        }
    }
    group.finish();
}

/// What every packet of an established connection goes through.
const EVERY_PACKET: [Part; 9] = [
    Part::Stage(Stage::Admit),
    Part::Stage(Stage::Decap),
    Part::Stage(Stage::Classify),
    Part::Stage(Stage::Source),
    Part::Stage(Stage::Owner),
    Part::Stage(Stage::Conntrack),
    Part::Stage(Stage::Forward),
    Part::Stage(Stage::Encap),
    Part::Output,
];

/// What only a connection's first packet sees.
const FIRST_PACKET: [Part; 5] = [
    Part::Stage(Stage::Conntrack),
    Part::Stage(Stage::PolicyOfSource),
    Part::Stage(Stage::Route),
    Part::Stage(Stage::PolicyOfDestination),
    Part::Stage(Stage::Commit),
];

/// Time per packet of each stage: of packets of established connections, of one of two workers; of opening packets from one
/// local workload to another; and of what is neither. ICMP errors are left out: their rate is limited by design. The clock
/// itself adds about 0.4 ns.
fn stages(criterion: &mut Criterion) {
    let [encap, decap] = directions();
    for (name, traffic) in [encap, decap] {
        for flows in [1_000, 1_000_000] {
            let rig = || Rig::warm_member(tables(), &traffic, flows, (0, 2));
            clock(criterion, &format!("stage/{name}/{flows}"), &EVERY_PACKET, rig, Rig::run);
        }
    }
    let opening = || Rig::opening(tables(), &Traffic::local());
    clock(criterion, "stage/first", &FIRST_PACKET, opening, Rig::open_batch);
    let rare = [
        (Traffic::question(), Stage::Neighbor),
        (Traffic::piece(), Stage::Datagram),
        (Traffic::large(), Stage::Fragment),
    ];
    for (traffic, stage) in rare {
        let rig = || Rig::warm(tables(), &traffic, 1);
        clock(criterion, "stage/rare", &[Part::Stage(stage)], rig, Rig::run);
    }
}

/// Clocks each of `parts` while `run` takes batches through a worker.
fn clock(
    criterion: &mut Criterion,
    name: &str,
    parts: &[Part],
    make: impl Fn() -> Rig,
    run: impl Fn(&mut Rig, &mut PartClock) -> Duration,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let rig = OnceCell::new();
    for &wanted in parts {
        group.bench_function(wanted.label(), |bencher| {
            let rig = rig.get_or_init(|| RefCell::new(make()));
            bencher.iter_custom(|packets| {
                let mut clock = PartClock { wanted, last: Instant::now(), taken: Duration::ZERO };
                let mut rig = rig.borrow_mut();
                for _ in 0..packets.div_ceil(rig.batch() as u64) {
                    run(&mut rig, &mut clock);
                }
                rig::scaled(clock.taken, packets, rig.batch())
            });
        });
    }
    group.finish();
    rig.get().inspect(|rig| rig.borrow().report(name));
}

criterion_group!(benches, pipeline, batches, generations, timing, stages);
criterion_main!(benches);
