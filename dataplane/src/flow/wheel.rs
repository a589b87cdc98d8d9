//! A timer wheel whose lists run through the entries themselves: no timer object per flow.

use super::entry::{Entry, FlowId, NONE};

/// Slots of one second each; an entry has one byte for its slot's number. Longer times go to the farthest slot and are
/// filed again from there.
const SLOTS: u32 = 256;
const SLOT_MS: u32 = 1024;
/// Ticks until the clock wraps.
const TICKS: u32 = u32::MAX / SLOT_MS + 1;

/// Deadlines of the entries of one table. Touching an entry does not move it: when its slot comes up, an entry that was
/// used since is filed again by its new deadline.
#[derive(Debug)]
pub(super) struct Wheel {
    heads: Vec<FlowId>,
    /// The slot being emptied, as a count since the start.
    tick: u32,
}

impl Wheel {
    pub fn new(now: u32) -> Self {
        Self { heads: vec![NONE; SLOTS as usize], tick: now / SLOT_MS }
    }

    /// Files an entry under the first slot that is due `delay_ms` milliseconds from `now` on.
    pub fn file(&mut self, entries: &mut [Entry], id: FlowId, now: u32, delay_ms: u32) {
        // After a pause there may be slots between that have yet to be emptied.
        let behind = (now / SLOT_MS).wrapping_sub(self.tick) % TICKS;
        let ticks = (behind.min(SLOTS) + delay_ms / SLOT_MS + 1).min(SLOTS - 1);
        let slot = (self.tick.wrapping_add(ticks)) % SLOTS;
        let head = self.heads[slot as usize];
        let entry = &mut entries[id as usize];
        entry.next = head;
        entry.previous = NONE;
        entry.slot = slot as u8;
        if head != NONE {
            entries[head as usize].previous = id;
        }
        self.heads[slot as usize] = id;
    }

    /// Takes an entry out of its slot.
    pub fn unfile(&mut self, entries: &mut [Entry], id: FlowId) {
        let Entry { next, previous, slot, .. } = entries[id as usize];
        if previous == NONE {
            self.heads[usize::from(slot)] = next;
        } else {
            entries[previous as usize].next = next;
        }
        if next != NONE {
            entries[next as usize].previous = previous;
        }
    }

    /// The next entry whose slot has come up by `now`, or `None` when all slots until then are empty.
    pub fn due(&mut self, now: u32) -> Option<FlowId> {
        let target = now / SLOT_MS;
        loop {
            let head = self.heads[(self.tick % SLOTS) as usize];
            if head != NONE {
                return Some(head);
            }
            if self.tick == target {
                return None;
            }
            self.tick = (self.tick + 1) % TICKS;
        }
    }
}
