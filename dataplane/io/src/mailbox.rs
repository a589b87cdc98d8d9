//! Bounded mail between workers: frames that arrived at one and belong to another.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use canal_dataplane::limits::{CACHE_BLOCK, MAX_WORKERS};

use crate::waiter::Wake;

struct Slot<T> {
    queue: ArrayQueue<T>,
    wake: Arc<Wake>,
}

/// One worker's end of the mail: its own box, and the way into everybody else's.
pub struct Mailbox<T> {
    slots: Arc<[Slot<T>]>,
    own: usize,
    /// Bit *i*: worker *i* got mail since the last [`Self::flush`].
    notify: u64,
}

const _: () = assert!(MAX_WORKERS <= u64::BITS as usize);

// Boxes stand side by side: each end of a queue is on cache lines of its own, and so is the next box.
const _: () = assert!(align_of::<Slot<u64>>() == CACHE_BLOCK);

/// A mailbox for each of `wakes`, in the order of the workers; each holds `capacity` items.
///
/// # Panics
/// With more than [`MAX_WORKERS`], or a capacity of zero: a programmer's error.
pub fn mailboxes<T>(wakes: Vec<Arc<Wake>>, capacity: usize) -> Vec<Mailbox<T>> {
    assert!(wakes.len() <= MAX_WORKERS);
    let slots: Arc<[_]> =
        wakes.into_iter().map(|wake| Slot { queue: ArrayQueue::new(capacity), wake }).collect();
    (0..slots.len()).map(|own| Mailbox { slots: Arc::clone(&slots), own, notify: 0 }).collect()
}

impl<T> Mailbox<T> {
    /// Puts `item` into the box of worker `to`. Gives it back when that box is full or there is no such worker.
    #[inline]
    pub fn send(&mut self, to: u32, item: T) -> Result<(), T> {
        let Some(slot) = self.slots.get(to as usize) else { return Err(item) };
        slot.queue.push(item)?;
        self.notify |= 1 << to;
        Ok(())
    }

    /// Wakes everybody who got mail; to be called after a batch.
    #[inline]
    pub fn flush(&mut self) {
        let mut notify = std::mem::take(&mut self.notify);
        while notify != 0 {
            self.slots[notify.trailing_zeros() as usize].wake.wake();
            notify &= notify - 1;
        }
    }

    /// The oldest item in the own box.
    #[inline]
    pub fn take(&self) -> Option<T> {
        self.slots[self.own].queue.pop()
    }

    /// True when nothing is in the own box.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slots[self.own].queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiter::Waiter;

    #[test]
    fn mail_arrives_in_order_and_a_full_box_gives_it_back() {
        let wakes = (0..2).map(|_| Waiter::new().unwrap().wake_handle()).collect();
        let mut boxes = mailboxes::<u32>(wakes, 2);
        let [first, second] = &mut boxes[..] else { panic!() };
        assert_eq!(first.send(1, 10), Ok(()));
        assert_eq!(first.send(1, 11), Ok(()));
        assert_eq!(first.send(1, 12), Err(12));
        assert_eq!(first.send(2, 13), Err(13));
        first.flush();
        assert_eq!(first.notify, 0);
        assert!(first.is_empty() && !second.is_empty());
        assert_eq!([second.take(), second.take(), second.take()], [Some(10), Some(11), None]);
    }
}
