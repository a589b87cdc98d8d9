//! Counters of one worker: written by it alone, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::flow::Census;
use crate::limits::CACHE_BLOCK;
use crate::spec::policy::PolicyDirection;
use crate::timing::Timing;
use crate::verdict::DropReason;

/// A number that one thread adds to and others read. No read-modify-write instruction is needed for that.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only ever call it from the thread that owns the counter.
    #[inline(always)]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Replaces the number (gauges); only from the owning thread.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number as of some moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One worker's counters. Aligned as [`CACHE_BLOCK`] says, which is why two workers never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    /// Frames taken from ports (a super-frame counts once).
    pub received: Counter,
    /// Bytes of them.
    pub received_bytes: Counter,
    /// Frames given to ports.
    pub forwarded: Counter,
    /// Bytes of them.
    pub forwarded_bytes: Counter,
    /// Frames encapsulated.
    pub encapsulated: Counter,
    /// Frames decapsulated.
    pub decapsulated: Counter,
    /// Frames delivered to the host's IP stack.
    pub to_host: Counter,
    /// ARP and ND answers and ICMP errors sent.
    pub replies: Counter,
    /// Frames handed to another worker.
    pub handed_over: Counter,
    /// Frames taken over from other workers.
    pub taken_over: Counter,
    /// Batches of either kind, empty ones left out: of what a port had, or what other workers had sent.
    pub batches: Counter,
    /// Flow look-ups that found an entry.
    pub flow_hits: Counter,
    /// Flows created.
    pub flows_created: Counter,
    /// Flows ended by time-out.
    pub flows_expired: Counter,
    /// Flows evicted for want of room.
    pub flows_evicted: Counter,
    /// Flows ended because an end of theirs went away, moved, or may no longer take part.
    pub flows_cut: Counter,
    /// Flows held now.
    pub flows: Counter,
    /// VXLAN packets that carried reserved flag bits; they are ignored as RFC 7348 section 5 asks.
    pub vxlan_reserved_bits: Counter,
    /// ICMP errors not sent because of the rate limit.
    pub icmp_limited: Counter,
    /// Table generation this worker uses.
    pub seen_generation: Counter,
    /// What policy had to tell and nobody heard: too much at once for the worker's log, or for those who read it.
    pub records_lost: Counter,
    /// Turns of the worker's loop begin at this time, in milliseconds of its clock: one that stands still is stuck.
    pub beat_ms: Counter,
    /// Time that the worker's thread has waited: a wait begins when a turn has found nothing to do, and ends with the
    /// beginning of the turn that finds something. Whether the thread slept or looked again and again makes no difference.
    pub idle_ns: Counter,
    /// The rest of its time.
    pub busy_ns: Counter,
    /// How often it slept.
    pub sleeps: Counter,
    /// Where the time of turns goes.
    pub timing: Timing,
    /// By direction and answer.
    verdicts: [[Counter; 2]; 2],
    /// Flows held now, as [`Census::PLACES`] has them.
    census: [Counter; Census::PLACES.len()],
    drops: [Counter; DropReason::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            received_bytes: Counter::default(),
            forwarded: Counter::default(),
            forwarded_bytes: Counter::default(),
            encapsulated: Counter::default(),
            decapsulated: Counter::default(),
            to_host: Counter::default(),
            replies: Counter::default(),
            handed_over: Counter::default(),
            taken_over: Counter::default(),
            batches: Counter::default(),
            flow_hits: Counter::default(),
            flows_created: Counter::default(),
            flows_expired: Counter::default(),
            flows_evicted: Counter::default(),
            flows_cut: Counter::default(),
            flows: Counter::default(),
            vxlan_reserved_bits: Counter::default(),
            icmp_limited: Counter::default(),
            seen_generation: Counter::default(),
            records_lost: Counter::default(),
            beat_ms: Counter::default(),
            idle_ns: Counter::default(),
            busy_ns: Counter::default(),
            sleeps: Counter::default(),
            timing: Timing::default(),
            verdicts: Default::default(),
            census: std::array::from_fn(|_| Counter::default()),
            drops: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Counters {
    /// Counts one dropped packet.
    #[inline]
    pub fn drop(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// Counts one answer of a workload's policy about an opening packet.
    #[inline]
    pub fn verdict(&self, direction: PolicyDirection, allowed: bool) {
        self.verdicts[direction as usize][usize::from(allowed)].add(1);
    }

    /// How often policy of this direction has answered so.
    pub fn verdicts(&self, direction: PolicyDirection, allowed: bool) -> u64 {
        self.verdicts[direction as usize][usize::from(allowed)].get()
    }

    /// Shows how many flows there are of each kind.
    pub fn show_census(&self, census: &Census) {
        for (counter, count) in self.census.iter().zip(census.counts()) {
            counter.set(count.into());
        }
    }

    /// How many flows there were when the worker last said so, as [`Census::PLACES`] has them.
    pub fn census(&self) -> [u64; Census::PLACES.len()] {
        std::array::from_fn(|place| self.census[place].get())
    }

    /// Packets dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// Packets dropped for any reason.
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }
}

const _: () =
    assert!(align_of::<Counters>() == CACHE_BLOCK && size_of::<Counters>().is_multiple_of(CACHE_BLOCK));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;

    /// The blocks of memory that `value` lies in.
    fn blocks<T>(value: &T) -> BTreeSet<usize> {
        let first = std::ptr::from_ref(value) as usize;
        (first / CACHE_BLOCK..=(first + size_of::<T>() - 1) / CACHE_BLOCK).collect()
    }

    #[test]
    fn what_one_worker_counts_lies_where_nothing_else_does() {
        let workers: Vec<Arc<Counters>> = (0..8).map(|_| Arc::default()).collect();
        let mut taken = BTreeSet::new();
        for counters in &workers {
            let mut own = blocks(&**counters);
            assert_eq!(own.len(), size_of::<Counters>() / CACHE_BLOCK);
            // The reference count, which observers change, stands in front of them.
            assert!(own.insert(std::ptr::from_ref(&**counters) as usize / CACHE_BLOCK - 1));
            for block in own {
                assert!(taken.insert(block), "two workers have a part of block {block:#x}");
            }
        }
    }
}
