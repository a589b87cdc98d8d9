//! What policy has to tell people: connections that it refused, and those that a `Log` rule noted.

use crate::net::HashSeed;
use crate::policy::{Decider, Facts};
use crate::reply::RateLimit;
use crate::spec::policy::PolicyDirection;

/// Records that are kept until somebody reads them.
const RECORDS: usize = 256;
/// Records of one kind a second, and at once: more is a flood, which counters tell better. Each kind has its own, so that
/// a flood of refused packets does not hide what `Log` rules are to show.
const ALL: (u32, u32) = (100, 100);
/// Of one sender, so that one does not use up what others need.
const EACH: (u32, u32) = (10, 20);

/// One decision worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The worker's clock, in milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
    /// The workload whose policy it was.
    pub endpoint: String,
    /// Which half of it.
    pub direction: PolicyDirection,
    /// What was asked about: an opening packet of the connection. For a connection that is judged again, the packet may
    /// have gone the other way.
    pub facts: Facts,
    /// Bytes of the IP packet that led to it.
    pub bytes: u32,
    /// The rule, or the end, that did it.
    pub by: Decider,
    /// Of the tables that have it.
    pub generation: u64,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A `Log` rule matched. What became of the packet, other rules decided.
    Logged,
    /// The packet was dropped.
    Denied,
}

/// A worker's records: a bounded number, at a bounded rate.
#[derive(Debug)]
pub struct Log {
    records: Vec<Record>,
    /// By [`Event`].
    limits: [RateLimit; 2],
    missed: u64,
}

impl Log {
    /// An empty one.
    pub fn new(seed: HashSeed, now_ms: u64) -> Self {
        let limits = std::array::from_fn(|_| RateLimit::new(ALL, EACH, seed, now_ms));
        Self { records: Vec::with_capacity(RECORDS), limits, missed: 0 }
    }

    /// Keeps what `record` makes, or counts that it was not kept.
    pub fn note(&mut self, event: Event, facts: &Facts, now_ms: u64, record: impl FnOnce() -> Record) {
        let limit = &mut self.limits[event as usize];
        if self.records.len() < RECORDS && limit.allow(facts.source, now_ms) {
            self.records.push(record());
        } else {
            self.missed += 1;
        }
    }

    /// Takes the records out, in order; and how many there were besides them since the last time.
    pub fn drain(&mut self) -> (impl Iterator<Item = Record> + '_, u64) {
        let missed = std::mem::take(&mut self.missed);
        (self.records.drain(..), missed)
    }

    /// Nothing is there to be told.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Transport;

    fn facts(source: u8) -> Facts {
        let address = |low: u8| [10, 0, 0, low].into();
        Facts { source: address(source), destination: address(0), protocol: 47, transport: Transport::Other }
    }

    fn record(source: u8, at_ms: u64) -> Record {
        Record {
            at_ms,
            event: Event::Denied,
            endpoint: "default/pod".into(),
            direction: PolicyDirection::Ingress,
            facts: facts(source),
            bytes: 60,
            by: Decider::End,
            generation: 1,
        }
    }

    #[test]
    fn a_flood_is_counted_and_does_not_hide_what_others_do() {
        let mut log = Log::new(HashSeed(1, 2), 0);
        (0..1000).for_each(|_| log.note(Event::Denied, &facts(1), 0, || record(1, 0)));
        log.note(Event::Denied, &facts(2), 1, || record(2, 1));
        let (records, missed) = log.drain();
        let from: Vec<_> = records.map(|record| record.facts.source).collect();
        assert_eq!((from.len(), missed), (21, 980));
        assert_eq!(from[20], facts(2).source);
        assert!(log.is_empty());
        // What rules want logged has room of its own.
        log.note(Event::Logged, &facts(1), 1, || Record { event: Event::Logged, ..record(1, 1) });
        assert_eq!(log.drain().0.count(), 1);
    }

    #[test]
    fn what_nobody_reads_is_bounded() {
        let mut log = Log::new(HashSeed(1, 2), 0);
        for second in 0..600 {
            log.note(Event::Denied, &facts(1), second * 1000, || record(1, second * 1000));
        }
        let (records, missed) = log.drain();
        assert_eq!((records.count(), missed), (256, 344));
    }
}
