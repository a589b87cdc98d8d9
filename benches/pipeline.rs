//! The whole pipeline in memory, and each of its stages: 64-byte packets, encapsulated and decapsulated, of established
//! connections, in batches of several sizes, on one core and on two. Times are per packet; only the stages are timed, not
//! the making of packets. Every group ends by saying how often the stages asked for memory.

mod rig;

use std::cell::{OnceCell, RefCell};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use canal_dataplane::packet::Packet;
use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::world;
use canal_dataplane::trace::{NoTrace, Stage, Trace};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
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

/// Workers of one process, each on its own core with connections of its own, all with the same tables. The time is that of
/// the slowest, divided by the packets of all.
fn cores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cores");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let there = thread::available_parallelism().map_or(1, |count| count.get());
    for (name, traffic) in directions() {
        let tables = tables();
        let rig = |_| Rig::warm(Arc::clone(&tables), &traffic, 1_000);
        let rigs = OnceCell::new();
        for count in [1, 2] {
            if count > there {
                println!("cores/{name}/{count}: this machine has only {there}");
                continue;
            }
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                let rigs = rigs.get_or_init(|| RefCell::new((0..2).map(rig).collect::<Vec<_>>()));
                bencher.iter_custom(|packets| together(&mut rigs.borrow_mut()[..count], packets));
            });
        }
        rigs.get().inspect(|rigs| println!("cores/{name}: {}", gain(&mut rigs.borrow_mut())));
    }
    group.finish();
}

/// What a second core gains, by turns with one alone: the speed of a shared machine drifts, and so would a comparison of
/// two benchmarks.
fn gain(rigs: &mut [Rig]) -> String {
    const PAIRS: usize = 61;
    const PACKETS: u64 = 400_000;
    let mut ratios: Vec<f64> = (0..PAIRS)
        .map(|_| {
            let one = together(&mut rigs[..1], PACKETS).as_secs_f64();
            one / together(rigs, PACKETS).as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let [low, median, high] = [PAIRS / 4, PAIRS / 2, PAIRS * 3 / 4].map(|at| ratios[at]);
    format!("{} cores do {median:.2} times what one does (quartiles {low:.2}, {high:.2})", rigs.len())
}

/// Every rig runs its share of the packets on a core of its own; all begin at once.
fn together(rigs: &mut [Rig], packets: u64) -> Duration {
    let (share, barrier) = (packets.div_ceil(rigs.len() as u64), Barrier::new(rigs.len()));
    let run = |(core, rig): (usize, &mut Rig)| {
        let mut set = CpuSet::new();
        set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).expect("a core");
        barrier.wait();
        let batches = share.div_ceil(rig.batch() as u64);
        let taken = (0..batches).map(|_| rig.run(&mut NoTrace)).sum();
        rig::scaled(taken, share, rig.batch())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = rigs.iter_mut().enumerate().map(|rig| scope.spawn(move || run(rig))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).max().expect("a rig")
    })
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

/// Time per packet of each stage that packets of 1,000 established connections go through; then of those that only a
/// connection's first packet sees, from one local workload to another. The clock itself adds about 0.4 ns.
fn stages(criterion: &mut Criterion) {
    let every = [
        Some(Stage::Admit),
        Some(Stage::Decap),
        Some(Stage::Classify),
        Some(Stage::Source),
        Some(Stage::Conntrack),
        Some(Stage::Forward),
        Some(Stage::Encap),
        None,
    ];
    let first = [
        Some(Stage::Conntrack),
        Some(Stage::PolicyOfSource),
        Some(Stage::Route),
        Some(Stage::PolicyOfDestination),
        Some(Stage::Commit),
    ];
    let [encap, decap] = directions();
    let groups =
        [(encap.0, encap.1, &every[..]), (decap.0, decap.1, &every), ("first", Traffic::local(), &first)];
    for (name, traffic, stages) in groups {
        let mut group = criterion.benchmark_group(format!("stage/{name}"));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for wanted in stages {
            let rig = OnceCell::new();
            let id = wanted.map_or("Output".to_owned(), |stage| format!("{stage:?}"));
            group.bench_function(id, |bencher| {
                let rig = rig.get_or_init(|| {
                    RefCell::new(match name {
                        "first" => Rig::opening(tables(), &traffic),
                        _ => Rig::warm(tables(), &traffic, 1_000),
                    })
                });
                bencher.iter_custom(|packets| {
                    let mut clock =
                        StageClock { wanted: *wanted, last: Instant::now(), taken: Duration::ZERO };
                    let mut rig = rig.borrow_mut();
                    if name == "first" {
                        rig.open(packets, &mut clock);
                    } else {
                        for _ in 0..packets.div_ceil(rig.batch() as u64) {
                            rig.run(&mut clock);
                        }
                    }
                    rig::scaled(clock.taken, packets, rig.batch())
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, pipeline, batches, cores, stages);
criterion_main!(benches);
