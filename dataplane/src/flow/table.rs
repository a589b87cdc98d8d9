//! Fixed capacity, open addressing, embryonic entries evicted first.

use super::entry::{Action, Entry, FlowId, NONE, State};
use super::index::Index;
use super::wheel::Wheel;
use crate::net::{Direction, FlowKey, HashSeed};
use crate::prefetch::prefetch;

/// Entries looked at for one that may be evicted, per new flow: bounds what a flood can cost.
const EVICTION_TRIES: usize = 8;

/// Connections of one worker.
#[derive(Debug)]
pub struct FlowTable {
    seed: HashSeed,
    index: Index,
    /// Grows to `capacity` and never further; memory is touched only as entries come into use.
    entries: Vec<Entry>,
    capacity: usize,
    /// Head of the free list, through `Entry::next`.
    free: FlowId,
    live: usize,
    wheel: Wheel,
    /// Where the search for a victim goes on.
    hand: FlowId,
}

/// What became of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has an entry.
    Created(FlowId),
    /// It has the entry of an embryonic connection that had to go.
    Evicted(FlowId),
    /// The table is full of answered connections: this one is not remembered.
    Full,
}

/// A connection for people to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// The connection; its first end is shown as the source.
    pub key: FlowKey,
    /// How far it has come.
    pub state: State,
    /// Packets by direction.
    pub packets: [u32; 2],
    /// Bytes by direction.
    pub bytes: [u64; 2],
    /// Milliseconds since the last packet.
    pub idle_ms: u32,
    /// What is done with packets of each direction.
    pub actions: [Action; 2],
}

impl FlowTable {
    /// A table for `capacity` connections (at most 2³¹), whose clock starts at `now` (milliseconds, wrapping).
    pub fn new(capacity: usize, seed: HashSeed, now: u32) -> Self {
        let capacity = capacity.clamp(1, 1 << 31);
        Self {
            seed,
            index: Index::new(capacity),
            entries: Vec::with_capacity(capacity),
            capacity,
            free: NONE,
            live: 0,
            wheel: Wheel::new(now),
            hand: 0,
        }
    }

    /// Keys of the hash.
    #[inline(always)]
    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// Connections remembered.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// First pass of a batch: asks for the cache line where the search will begin.
    #[inline(always)]
    pub fn prefetch_index(&self, hash: u64) {
        prefetch(&self.index.slots()[self.index.home(hash as u32)]);
    }

    /// Second pass: asks for the entry that the search will most likely end at.
    #[inline(always)]
    pub fn prefetch_entry(&self, hash: u64) {
        if let Some(entry) = self.index.hint(hash as u32).and_then(|id| self.entries.get(id as usize)) {
            prefetch(entry);
            prefetch(&entry.slot);
        }
    }

    /// The entry of a connection.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &FlowKey) -> Option<FlowId> {
        self.index
            .find(hash as u32, |id| self.entries.get(id as usize).is_some_and(|entry| entry.key == *key))
    }

    /// Notes one packet of `bytes` bytes at `now`; `detail` = TCP flags. Returns what to do with it.
    #[inline(always)]
    pub fn touch(&mut self, id: FlowId, direction: Direction, bytes: u32, detail: u8, now: u32) -> Action {
        let entry = &mut self.entries[id as usize];
        let before = entry.state;
        entry.touch(direction, bytes, detail, now);
        let action = entry.actions[direction as usize];
        if entry.state != before && entry.state == State::Closing {
            // The only change that shortens the deadline: waiting for the wheel would keep it for a day.
            self.refile(id);
        }
        action
    }

    /// Remembers what to do with packets of one direction.
    #[inline]
    pub fn set_action(&mut self, id: FlowId, direction: Direction, action: Action) {
        self.entries[id as usize].actions[direction as usize] = action;
    }

    /// Makes an entry for a connection that has none.
    pub fn create(&mut self, hash: u64, key: FlowKey, now: u32) -> Admission {
        let (id, evicted) = match self.allocate() {
            Some(id) => (id, false),
            None => match self.evict() {
                Some(id) => (id, true),
                None => return Admission::Full,
            },
        };
        self.entries[id as usize] = Entry { key, last_seen: now, ..Entry::default() };
        self.live += 1;
        self.index.insert(hash as u32, id);
        let timeout = self.entries[id as usize].timeout_ms();
        self.wheel.file(&mut self.entries, id, timeout);
        if evicted { Admission::Evicted(id) } else { Admission::Created(id) }
    }

    /// Forgets connections that were idle for too long; looks at no more than `budget` entries. Returns how many went.
    pub fn expire(&mut self, now: u32, budget: usize) -> usize {
        let mut expired = 0;
        for _ in 0..budget {
            let Some(id) = self.wheel.due(now) else { break };
            let entry = &self.entries[id as usize];
            let (idle, timeout) = (now.wrapping_sub(entry.last_seen), entry.timeout_ms());
            if idle >= timeout {
                self.remove(id);
                expired += 1;
            } else {
                self.wheel.unfile(&mut self.entries, id);
                self.wheel.file(&mut self.entries, id, timeout - idle);
            }
        }
        expired
    }

    /// Up to `limit` connections, for people.
    pub fn list(&self, limit: usize, now: u32) -> Vec<FlowInfo> {
        let live = self.entries.iter().filter(|entry| entry.key != FlowKey::default());
        live.take(limit)
            .map(|entry| FlowInfo {
                key: entry.key,
                state: entry.state,
                packets: entry.packets,
                bytes: entry.bytes,
                idle_ms: now.wrapping_sub(entry.last_seen),
                actions: entry.actions,
            })
            .collect()
    }

    fn refile(&mut self, id: FlowId) {
        let timeout = self.entries[id as usize].timeout_ms();
        self.wheel.unfile(&mut self.entries, id);
        self.wheel.file(&mut self.entries, id, timeout);
    }

    fn allocate(&mut self) -> Option<FlowId> {
        if self.free != NONE {
            let id = self.free;
            self.free = self.entries[id as usize].next;
            return Some(id);
        }
        if self.entries.len() == self.capacity {
            return None;
        }
        self.entries.push(Entry::default());
        Some((self.entries.len() - 1) as FlowId)
    }

    /// Frees the entry of some embryonic connection and takes it.
    fn evict(&mut self) -> Option<FlowId> {
        for _ in 0..EVICTION_TRIES.min(self.entries.len()) {
            self.hand = if (self.hand as usize) + 1 < self.entries.len() { self.hand + 1 } else { 0 };
            if self.entries[self.hand as usize].state == State::Embryonic {
                self.remove(self.hand);
                return self.allocate();
            }
        }
        None
    }

    fn remove(&mut self, id: FlowId) {
        self.wheel.unfile(&mut self.entries, id);
        let hash = self.entries[id as usize].key.hash(self.seed);
        self.index.remove(hash as u32, id);
        self.entries[id as usize] = Entry { next: self.free, ..Entry::default() };
        self.free = id;
        self.live -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const SEED: HashSeed = HashSeed(1, 2);

    fn key(n: u32) -> FlowKey {
        FlowKey::v4(n + 1, 0x0a00_0001, (1, 2), 17, false).0
    }

    /// The slow twin: a map from keys to the time of the last packet and whether it was answered.
    #[derive(Default)]
    struct Model(HashMap<u32, (u32, bool)>);

    impl Model {
        fn expire(&mut self, now: u32) {
            self.0.retain(|_, (seen, answered)| now - *seen < if *answered { 180_000 } else { 30_000 });
        }
    }

    proptest! {
        #[test]
        fn equals_a_plain_map(steps in prop::collection::vec((0u32..64, any::<bool>(), 0u32..20_000), 1..300)) {
            let mut table = FlowTable::new(1024, SEED, 0);
            let mut model = Model::default();
            let mut now = 0;
            for (n, reverse, pause) in steps {
                now += pause;
                let (k, h) = (key(n), key(n).hash(SEED));
                let direction = if reverse { Direction::Reverse } else { Direction::Forward };
                // Time-outs are lazy by up to two slots; a packet in that window finds the entry alive in both.
                while table.expire(now, 16) > 0 {}
                model.0.retain(|n, (seen, answered)| {
                    now - *seen < if *answered { 180_000 } else { 30_000 }
                        || table.find(key(*n).hash(SEED), &key(*n)).is_some() && now - *seen < 190_000
                });
                let known = table.find(h, &k);
                prop_assert_eq!(known.is_some(), model.0.contains_key(&n));
                let id = match known {
                    Some(id) => id,
                    None => match table.create(h, k, now) { Admission::Created(id) => id, other => panic!("{other:?}") },
                };
                let action = Action { adjacency: n, generation: 7 };
                table.set_action(id, direction, action);
                prop_assert_eq!(table.touch(id, direction, 100, 0, now), action);
                let info = table.entries[id as usize];
                let answered = info.packets[0] > 0 && info.packets[1] > 0;
                model.0.insert(n, (now, answered));
                prop_assert_eq!(table.len(), model.0.len());
            }
            // Nothing outlives its time-out by more than two slots.
            now += 180_000 + 3 * 1024;
            while table.expire(now, 16) > 0 {}
            model.expire(now);
            prop_assert_eq!(table.len(), 0);
            prop_assert_eq!(model.0.len(), 0);
            prop_assert_eq!(table.list(10, now), vec![]);
        }

        #[test]
        fn the_index_survives_any_order_of_removal(order in Just((0..200u32).collect::<Vec<_>>()).prop_shuffle(), bits in 0u32..6) {
            // Few distinct hashes, so that runs are long and wrap around.
            let mut index = Index::new(256);
            let hash = |n: u32| (n % (1 << bits)).wrapping_sub(3);
            for n in 0..200 { index.insert(hash(n), n); }
            for (at, gone) in order.iter().enumerate() {
                index.remove(hash(*gone), *gone);
                for n in &order[at + 1..] { prop_assert_eq!(index.find(hash(*n), |id| id == *n), Some(*n)); }
                prop_assert_eq!(index.find(hash(*gone), |id| id == *gone), None);
            }
        }
    }

    #[test]
    fn a_full_table_evicts_embryonic_flows_and_no_others() {
        let mut table = FlowTable::new(4, SEED, 0);
        for n in 0..4 {
            let Admission::Created(id) = table.create(key(n).hash(SEED), key(n), 0) else { panic!() };
            table.touch(id, Direction::Forward, 1, 0, 0);
            if n < 3 {
                table.touch(id, Direction::Reverse, 1, 0, 0);
            }
        }
        let Admission::Evicted(id) = table.create(key(9).hash(SEED), key(9), 0) else { panic!() };
        assert_eq!(table.find(key(3).hash(SEED), &key(3)), None);
        assert_eq!(table.find(key(9).hash(SEED), &key(9)), Some(id));
        table.touch(id, Direction::Forward, 1, 0, 0);
        table.touch(id, Direction::Reverse, 1, 0, 0);
        assert_eq!(table.create(key(10).hash(SEED), key(10), 0), Admission::Full);
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn a_reset_connection_is_forgotten_within_seconds() {
        let mut table = FlowTable::new(4, SEED, 0);
        let (k, _) = FlowKey::v4(1, 2, (3, 4), 6, false);
        let Admission::Created(id) = table.create(k.hash(SEED), k, 0) else { panic!() };
        table.touch(id, Direction::Forward, 1, 0x02, 0);
        table.touch(id, Direction::Reverse, 1, 0x12, 0);
        assert_eq!(table.expire(100_000, 100), 0);
        table.touch(id, Direction::Forward, 1, 0x04, 100_000);
        assert_eq!(table.expire(100_000 + 13_000, 100), 1);
    }
}
