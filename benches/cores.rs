//! What a second core gains: one worker alone, and two on cores of their own, in memory, by turns, because the speed of a
//! shared machine drifts. Beside it stand two bounds. The same two workers in a process each share nothing but the machine:
//! what threads of one process carry less is our fault, be it a shared cache line or the allocator. And arithmetic in
//! registers needs nothing that two cores have in common: where it does not double, the "cores" are two threads of one, or
//! somebody else is using them.

mod rig;

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use canal_dataplane::tables::{self, Tables};
use canal_dataplane::testing::world;
use canal_dataplane::trace::NoTrace;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use rig::{Rig, Traffic};

const ROUNDS: usize = 61;
/// Some ten milliseconds each: long beside the start of both, short beside what else the machine does.
const BATCHES: u64 = 5_000;
const SUMS: u64 = 10_000_000;
const FLOWS: u32 = 1_000;
/// The argument that makes a process a hand: then its core, and the direction.
const HAND: &str = "--hand";

/// What a hand is told, as a byte.
const ALONE: u8 = 0;
const TOGETHER: u8 = 1;
const ARITHMETIC: u8 = 2;

fn traffic(name: &str) -> Traffic {
    if name == "decap64" { Traffic::decap() } else { Traffic::encap() }
}

fn tables() -> Arc<Tables> {
    Arc::new(tables::compile(&world::spec(5000), None, 1))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, hand, core, name] = &arguments[..]
        && hand == HAND
    {
        let stream = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
        return serve(stream.into(), core.parse().expect("a core"), &tables(), &traffic(name));
    }
    if thread::available_parallelism().map_or(1, |count| count.get()) < 2 {
        return println!("cores: this machine has only one");
    }
    for name in ["encap64", "decap64"] {
        measure(name);
    }
}

fn measure(name: &str) {
    let tables = tables();
    let mut threads = [0, 1].map(|core| {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let (tables, traffic) = (Arc::clone(&tables), traffic(name));
        thread::spawn(move || serve(theirs, core, &tables, &traffic));
        ours
    });
    let processes = [0, 1].map(|core: usize| {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.arg(HAND).arg(core.to_string()).arg(name).stdin(Stdio::from(OwnedFd::from(theirs)));
        (ours, command.spawn().expect("a process"))
    });
    let [(first, mut first_child), (second, mut second_child)] = processes;
    let mut sockets = [first, second];
    let mut gains: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        gains[0].push(gain(&mut threads, ALONE, TOGETHER));
        gains[1].push(gain(&mut sockets, ALONE, TOGETHER));
        gains[2].push(gain(&mut threads, ARITHMETIC, ARITHMETIC));
    }
    let whats = ["threads of one process", "processes, which share nothing", "arithmetic in registers"];
    for (what, gains) in whats.into_iter().zip(&mut gains) {
        gains.sort_by(f64::total_cmp);
        let [low, median, high] = [ROUNDS / 4, ROUNDS / 2, ROUNDS * 3 / 4].map(|at| gains[at]);
        println!(
            "cores/{name}: {what}: two do {median:.2} times what one does (quartiles {low:.2}, {high:.2})"
        );
    }
    drop(sockets);
    for child in [&mut first_child, &mut second_child] {
        child.wait().expect("it ends");
    }
}

/// How many times as much two do together as one alone: either of them, since their cores need not be equally free.
fn gain<S: Read + Write>(hands: &mut [S; 2], alone: u8, together: u8) -> f64 {
    let [first, second] = hands;
    let ones = [ask(&mut [first], alone), ask(&mut [second], alone)];
    let both = ask(&mut [first, second], together);
    (ones[0] + ones[1]).div_duration_f64(both)
}

/// The time of the slowest.
fn ask<S: Read + Write>(hands: &mut [&mut S], what: u8) -> Duration {
    hands.iter_mut().for_each(|hand| hand.write_all(&[what]).expect("it listens"));
    let times = hands.iter_mut().map(|hand| {
        let mut ns = [0; 8];
        hand.read_exact(&mut ns).expect("it answers");
        Duration::from_nanos(u64::from_ne_bytes(ns))
    });
    times.max().expect("a hand")
}

/// Does what it is told on its core, and says how long that took, until nobody tells it anything any more. Its workers are
/// made here: their memory is this core's, as in the daemon.
fn serve(mut socket: UnixStream, core: u32, tables: &Arc<Tables>, traffic: &Traffic) {
    let mut set = CpuSet::new();
    set.set(core as usize).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).expect("a core");
    let member = |member| Rig::warm_member(Arc::clone(tables), traffic, FLOWS, member);
    let (mut lone, mut one_of_two) = (member((0, 1)), member((core, 2)));
    let mut what = [0];
    while socket.read_exact(&mut what).is_ok() {
        let taken = match what[0] {
            ALONE => run(&mut lone),
            TOGETHER => run(&mut one_of_two),
            _ => arithmetic(),
        };
        let ns = taken.as_nanos() as u64;
        if socket.write_all(&ns.to_ne_bytes()).is_err() {
            return;
        }
    }
}

fn run(rig: &mut Rig) -> Duration {
    (0..BATCHES).map(|_| rig.run(&mut NoTrace)).sum()
}

fn arithmetic() -> Duration {
    let begin = Instant::now();
    let [mut a, mut b, mut c, mut d] = black_box([1u64, 2, 3, 4]);
    for i in 0..SUMS {
        a = a.wrapping_mul(3) ^ i;
        b = b.rotate_left(7).wrapping_add(i);
        c = (c ^ i) + (c >> 3);
        d = d.wrapping_mul(5).wrapping_add(i);
    }
    black_box([a, b, c, d]);
    begin.elapsed()
}
