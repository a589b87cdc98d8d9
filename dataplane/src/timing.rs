//! Where a worker's time goes. One turn in [`EVERY`] is timed: a clock that the worker was given is read after each
//! part of it. All other turns run with `NoTrace`, in which nothing of this is left.

use crate::counters::Counter;
use crate::packet::Packet;
use crate::trace::{NoTrace, Stage, Trace};

/// One turn in so many is timed: the dozen readings of the clock that it costs are then a few hundredths of a
/// nanosecond for each packet of full batches. A prime, so that no rhythm of the traffic (a turn with packets, a turn
/// without) is in step with it.
pub const EVERY: u32 = 61;

/// The parts of a turn, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Frames are taken from the ports, or found to be none.
    Receive,
    /// Packets of one stream become super-frames.
    Merge,
    /// One stage.
    Stage(Stage),
    /// Packets are made to fit their port, or end.
    Output,
    /// Frames are given to the ports.
    Transmit,
    /// Connections expire, and those of workloads that have gone are cut.
    Upkeep,
}

impl Part {
    /// How many there are.
    pub const COUNT: usize = Stage::ALL.len() + 5;

    /// All of them, in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        let stages = Stage::ALL.into_iter().map(Self::Stage);
        [Self::Receive, Self::Merge].into_iter().chain(stages).chain([
            Self::Output,
            Self::Transmit,
            Self::Upkeep,
        ])
    }

    /// Its name in metrics and in `canal show workers`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Merge => "merge",
            Self::Stage(stage) => stage.label(),
            Self::Output => "output",
            Self::Transmit => "transmit",
            Self::Upkeep => "upkeep",
        }
    }

    #[inline(always)]
    fn index(self) -> usize {
        match self {
            Self::Receive => 0,
            Self::Merge => 1,
            Self::Stage(stage) => 2 + stage as usize,
            Self::Output => Stage::ALL.len() + 2,
            Self::Transmit => Stage::ALL.len() + 3,
            Self::Upkeep => Stage::ALL.len() + 4,
        }
    }
}

/// A trace that is told of the other parts of a turn as well.
pub trait Watch: Trace {
    /// Called after `part`.
    fn lap(&mut self, part: Part);
}

impl Watch for NoTrace {
    #[inline(always)]
    fn lap(&mut self, _: Part) {}
}

/// Takes the time of one turn.
#[derive(Debug)]
pub struct Stopwatch {
    clock: fn() -> u64,
    /// When the last part ended, in nanoseconds of the clock.
    last: u64,
    /// What one reading of the clock takes: it is no part's fault.
    reading: u64,
    ns: [u64; Part::COUNT],
}

impl Stopwatch {
    /// Begins now; `clock` tells nanoseconds and never goes back.
    pub fn new(clock: fn() -> u64) -> Self {
        let first = clock();
        let last = clock();
        Self { clock, last, reading: last.saturating_sub(first), ns: [0; Part::COUNT] }
    }

    /// Nanoseconds that the part has taken so far.
    pub fn ns(&self, part: Part) -> u64 {
        self.ns[part.index()]
    }
}

impl Trace for Stopwatch {
    #[inline]
    fn after(&mut self, stage: Stage, _: &[Packet]) {
        self.lap(Part::Stage(stage));
    }
}

impl Watch for Stopwatch {
    #[inline]
    fn lap(&mut self, part: Part) {
        let now = (self.clock)();
        self.ns[part.index()] += now.saturating_sub(self.last).saturating_sub(self.reading);
        self.last = now;
    }
}

/// What the timed turns of one worker have taken; a part of its counters. Turns without a frame do not count.
#[derive(Debug, Default)]
pub struct Timing {
    /// Timed turns.
    pub turns: Counter,
    /// Frames they handled (a super-frame counts once).
    pub frames: Counter,
    ns: [Counter; Part::COUNT],
}

impl Timing {
    /// Adds a turn that handled `frames` frames; only from the thread that owns the counters.
    pub fn add(&self, frames: u64, watch: &Stopwatch) {
        self.turns.add(1);
        self.frames.add(frames);
        self.ns.iter().zip(watch.ns).for_each(|(sum, ns)| sum.add(ns));
    }

    /// Nanoseconds that this part of the timed turns has taken. By the clock on the wall: what others took of the core
    /// meanwhile is in it.
    pub fn ns(&self, part: Part) -> u64 {
        self.ns[part.index()].get()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    /// Every reading takes three nanoseconds.
    fn clock() -> u64 {
        pass(3);
        NOW.get()
    }

    fn pass(ns: u64) {
        NOW.set(NOW.get() + ns);
    }

    #[test]
    fn every_part_has_a_place_and_a_name_of_its_own() {
        let places: Vec<usize> = Part::all().map(Part::index).collect();
        assert_eq!(places, (0..Part::COUNT).collect::<Vec<_>>());
        let labels: BTreeSet<&str> = Part::all().map(Part::label).collect();
        assert_eq!(labels.len(), Part::COUNT);
    }

    #[test]
    fn a_part_is_charged_for_what_passes_before_its_end_and_not_for_the_clock() {
        let timing = Timing::default();
        for turn in 1..=2 {
            let mut watch = Stopwatch::new(clock);
            pass(10 * turn);
            watch.lap(Part::Receive);
            pass(100 * turn);
            watch.after(Stage::Forward, &[]);
            watch.lap(Part::Output);
            pass(7);
            watch.lap(Part::Receive);
            timing.add(64, &watch);
        }
        let taken: Vec<(Part, u64)> =
            Part::all().map(|part| (part, timing.ns(part))).filter(|(_, ns)| *ns > 0).collect();
        assert_eq!(taken, [(Part::Receive, 44), (Part::Stage(Stage::Forward), 300)]);
        assert_eq!((timing.turns.get(), timing.frames.get()), (2, 128));
    }
}
