//! From hashes to entries: open addressing over one word a slot.

/// A slot is 0 (empty) or the hash's low half above the entry's number plus one.
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<u64>,
    mask: u32,
}

impl Index {
    /// Room for `capacity` entries at half load at most.
    pub fn new(capacity: usize) -> Self {
        let slots = (capacity * 2).next_power_of_two().max(16);
        Self { slots: vec![0; slots], mask: (slots - 1) as u32 }
    }

    /// The slot where the search for `hash` begins.
    #[inline(always)]
    pub fn home(&self, hash: u32) -> usize {
        (hash & self.mask) as usize
    }

    /// The slots, for prefetching.
    #[inline(always)]
    pub fn slots(&self) -> &[u64] {
        &self.slots
    }

    /// The first entry with this hash that `same` confirms.
    #[inline(always)]
    pub fn find(&self, hash: u32, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = hash & self.mask;
        loop {
            let slot = self.slots[at as usize];
            if slot == 0 {
                return None;
            }
            let id = (slot as u32).wrapping_sub(1);
            if (slot >> 32) as u32 == hash && same(id) {
                return Some(id);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// The entry of the first slot from `hash`'s home on with the same hash, unconfirmed: a hint for prefetching.
    #[inline(always)]
    pub fn hint(&self, hash: u32) -> Option<u32> {
        let slot = self.slots[(hash & self.mask) as usize];
        ((slot >> 32) as u32 == hash && slot != 0).then(|| (slot as u32).wrapping_sub(1))
    }

    /// Adds an entry that is not there yet. The caller keeps the load at half.
    pub fn insert(&mut self, hash: u32, id: u32) {
        let mut at = hash & self.mask;
        while self.slots[at as usize] != 0 {
            at = (at + 1) & self.mask;
        }
        self.slots[at as usize] = u64::from(hash) << 32 | u64::from(id + 1);
    }

    /// Removes an entry; later ones of the same run move up, so that no tombstones are needed.
    pub fn remove(&mut self, hash: u32, id: u32) {
        let wanted = u64::from(hash) << 32 | u64::from(id + 1);
        let mut hole = hash & self.mask;
        while self.slots[hole as usize] != wanted {
            if self.slots[hole as usize] == 0 {
                return;
            }
            hole = (hole + 1) & self.mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let slot = self.slots[at as usize];
            if slot == 0 {
                break;
            }
            let home = (slot >> 32) as u32 & self.mask;
            // May it move to the hole? Yes, if its home is not between the hole (exclusive) and itself.
            if (at.wrapping_sub(home) & self.mask) >= (at.wrapping_sub(hole) & self.mask) {
                self.slots[hole as usize] = slot;
                hole = at;
            }
        }
        self.slots[hole as usize] = 0;
    }
}
