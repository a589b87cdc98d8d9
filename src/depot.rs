//! Frames on their way from workers that have too many to workers that have too few.
//!
//! A frame handed to another worker stays with that one. Where the kernel's steering sends one worker the flows of
//! another, the first would run dry; after each turn a worker brings its surplus here, or takes what it lacks.

use canal_dataplane::frame::{Frame, FramePool};
use canal_dataplane::limits::BATCH;
use crossbeam::queue::ArrayQueue;

/// Frames a worker may be above or below its share before it does something about it: two batches, so that traffic
/// that is handed over evenly in both directions never comes here.
const SLACK: usize = 2 * BATCH;

/// The frames between two workers.
#[derive(Debug)]
pub struct Depot {
    frames: ArrayQueue<Frame>,
    share: usize,
}

impl Depot {
    /// For `workers` workers of `share` frames each. There is room for all of them.
    pub fn new(workers: usize, share: usize) -> Self {
        Self { frames: ArrayQueue::new((workers * share).max(1)), share }
    }

    /// Brings `pool` nearer to its share.
    #[inline]
    pub fn balance(&self, pool: &mut FramePool) {
        let available = pool.available();
        if available > self.share + SLACK {
            self.bring(pool, available - self.share);
        } else if available + SLACK < self.share && !self.frames.is_empty() {
            self.fetch(pool, self.share - available);
        }
    }

    #[cold]
    fn bring(&self, pool: &mut FramePool, count: usize) {
        for _ in 0..count {
            let Some(frame) = pool.take() else { return };
            if let Err(frame) = self.frames.push(frame) {
                pool.give(frame);
                return;
            }
        }
    }

    #[cold]
    fn fetch(&self, pool: &mut FramePool, count: usize) {
        for _ in 0..count {
            let Some(frame) = self.frames.pop() else { return };
            pool.give(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_becomes_supply_and_no_frame_is_lost() {
        let share = 4 * BATCH;
        let depot = Depot::new(2, share);
        let (mut rich, mut poor) = (FramePool::new(share, 192), FramePool::new(share, 192));
        // Everything that arrived at one worker belonged to the other.
        while let Some(frame) = poor.take() {
            rich.give(frame);
        }
        depot.balance(&mut rich);
        assert_eq!(rich.available(), share);
        depot.balance(&mut poor);
        assert_eq!((rich.available(), poor.available()), (share, share));
    }

    #[test]
    fn small_differences_are_left_alone() {
        let share = 4 * BATCH;
        let depot = Depot::new(2, share);
        let mut pool = FramePool::new(share + SLACK, 192);
        depot.balance(&mut pool);
        assert_eq!((pool.available(), depot.frames.len()), (share + SLACK, 0));
    }
}
