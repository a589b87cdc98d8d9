//! Fixed capacity, open addressing; every owner has a quota, and unanswered entries are evicted first.

use super::census::Census;
use super::entry::{Action, Entry, Era, FlowId, NONE, WATCHED};
use super::index::Index;
use super::owners::{Owner, Owners, Quota};
use super::state::{Side, State, Step};
use super::wheel::Wheel;
use crate::net::{Direction, FlowKey, HashSeed};
use crate::packet::{Headers, Role};
use crate::prefetch::{prefetch, prefetch_pair};
use crate::spec::Timeouts;

/// Entries looked at for one that may be evicted, per new flow: bounds what a flood can cost.
const EVICTION_TRIES: usize = 32;

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
    census: Census,
    wheel: Wheel,
    owners: Owners,
    /// Where the search for a victim goes on.
    hand: FlowId,
    /// Entries below this one have yet to be looked at by [`Self::sweep`].
    unswept: FlowId,
}

/// A connection that wants an entry.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Hash of its key.
    pub hash: u64,
    /// Its key.
    pub key: FlowKey,
    /// The direction of the packets of the side that opens it.
    pub origin: Direction,
    /// How far it has come with the packet that is there.
    pub state: State,
    /// Who is behind the two addresses.
    pub parties: u32,
    /// Who has brought the packet, and is charged with the entry.
    pub owner: Owner,
    /// Low bits of the generation that judged it.
    pub generation: u32,
}

/// What became of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has an entry.
    Created(FlowId),
    /// It has the entry of another connection, unanswered or over, that had to go.
    Evicted(FlowId),
    /// Its owner has as many answered connections as it may have.
    OverQuota,
    /// The table is full of answered connections.
    Full,
}

/// Some connections, for people to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those of this part of the table.
    pub flows: Vec<FlowInfo>,
    /// Where the next part begins; `None` = this was the last one.
    pub next: Option<FlowId>,
}

/// A connection for people to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// The connection.
    pub key: FlowKey,
    /// The direction of the side that opened it.
    pub origin: Direction,
    /// How far it has come.
    pub state: State,
    /// Have both sides been heard?
    pub answered: bool,
    /// Packets by direction.
    pub packets: [u32; 2],
    /// Bytes by direction.
    pub bytes: [u64; 2],
    /// Milliseconds since the last packet.
    pub idle_ms: u32,
    /// Milliseconds of silence after which it is forgotten, from now on.
    pub left_ms: u32,
    /// What is done with packets of each direction.
    pub actions: [Action; 2],
}

impl FlowTable {
    /// A table for `capacity` connections (at most 2³⁰), whose clock starts at `now` (milliseconds, wrapping).
    pub fn new(capacity: usize, quota: Quota, seed: HashSeed, now: u32) -> Self {
        let capacity = capacity.clamp(1, 1 << 30);
        Self {
            seed,
            index: Index::new(capacity),
            entries: Vec::with_capacity(capacity),
            capacity,
            free: NONE,
            live: 0,
            census: Census::default(),
            wheel: Wheel::new(now),
            owners: Owners::new(quota),
            hand: 0,
            unswept: 0,
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
        prefetch(self.index.slots(), self.index.home(hash as u32));
    }

    /// Second pass: the entry that the search will most likely end at, [`FlowId::MAX`] = none. Asks for its cache lines.
    #[inline(always)]
    pub fn guess(&self, hash: u64) -> FlowId {
        let id = self.index.hint(hash as u32).unwrap_or(NONE);
        prefetch_pair(&self.entries, id as usize);
        id
    }

    /// The entry of a connection.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &FlowKey) -> Option<FlowId> {
        self.index
            .find(hash as u32, |id| self.entries.get(id as usize).is_some_and(|entry| entry.key == *key))
    }

    /// The fast path: if the guess was right, and the way of a plain packet like this has been decided and holds, it is
    /// counted, and the adjacency returned. `None` when there is more to think about.
    #[inline(always)]
    pub fn pass(&mut self, guess: FlowId, headers: &Headers, era: Era, now: u32) -> Option<u32> {
        let entry = self.entries.get_mut(guess as usize)?;
        let hop = entry.hops[headers.direction as usize];
        let decided = hop < WATCHED && entry.holds(era);
        if entry.key == headers.key && decided && headers.role == Role::Plain {
            entry.count(headers.direction, headers.ip_len, now);
            return Some(hop);
        }
        None
    }

    /// Who is behind the addresses of an entry, and the generation (low bits) that judged it.
    #[inline]
    pub fn judged(&self, id: FlowId) -> (u32, u32) {
        let entry = &self.entries[id as usize];
        (entry.parties, entry.generation)
    }

    /// Has the side that did not open it been heard?
    #[inline]
    pub fn is_answered(&self, id: FlowId) -> bool {
        self.entries[id as usize].is_answered()
    }

    /// The side of its connection that a packet of this direction is from.
    #[inline]
    pub fn side(&self, id: FlowId, direction: Direction) -> Side {
        self.entries[id as usize].side(direction)
    }

    /// What to do with packets of one direction, if the way is known.
    #[inline]
    pub fn action(&self, id: FlowId, direction: Direction) -> Action {
        let entry = &self.entries[id as usize];
        Action { adjacency: entry.hop(direction), generation: entry.generation }
    }

    /// Shows a packet to the protocol's states, and counts it if it belongs to the connection.
    pub fn step(&mut self, id: FlowId, headers: &Headers, timeouts: &Timeouts, now: u32) -> Step {
        let entry = &self.entries[id as usize];
        let (side, state, before) =
            (entry.side(headers.direction), entry.state(), entry.timeout_ms(timeouts));
        let step = state.step(headers, side, entry.closer());
        let next = match step {
            Step::To(next) | Step::Closes(next) => next,
            Step::Reopens | Step::Invalid => return step,
        };
        if side == Side::Reply && !entry.is_answered() {
            self.owners.answered(&mut self.entries, id);
        }
        let entry = &mut self.entries[id as usize];
        entry.count(headers.direction, headers.ip_len, now);
        if matches!(step, Step::Closes(_)) {
            entry.set_closer(side);
        }
        if next != state {
            entry.set_state(next);
            self.census.remove(headers.protocol(), state);
            self.census.add(headers.protocol(), next);
        }
        let entry = &self.entries[id as usize];
        // The wheel looks again when the old time is over: too late for a shorter one.
        if entry.timeout_ms(timeouts) < before {
            self.refile(id, timeouts, now);
        }
        step
    }

    /// Remembers that the tables of this generation let the connection pass, and which way packets of one direction go.
    pub fn decide(&mut self, id: FlowId, direction: Direction, adjacency: u32, generation: u32) {
        let entry = &mut self.entries[id as usize];
        if entry.generation != generation {
            entry.generation = generation;
            entry.set_hop(direction.flip(), None);
        }
        entry.set_hop(direction, Some(adjacency));
    }

    /// Makes an entry for a connection that has none, and counts its first packet.
    pub fn create(
        &mut self,
        request: &Request,
        headers: &Headers,
        timeouts: &Timeouts,
        now: u32,
    ) -> Admission {
        let Some(place) = self.owners.place(request.owner) else { return Admission::Full };
        let mut evicted = false;
        if self.owners.is_full(place) {
            let victim = self.owners.oldest_unanswered(place);
            match victim.or_else(|| self.search(|entry| entry.owner == place && entry.state().is_over())) {
                Some(victim) => {
                    self.remove(victim);
                    evicted = true;
                }
                None => {
                    self.owners.release_if_empty(place);
                    return Admission::OverQuota;
                }
            }
        }
        if self.free == NONE && self.entries.len() == self.capacity {
            match self.search(|entry| !entry.is_answered() || entry.state().is_over()) {
                Some(victim) => {
                    self.remove(victim);
                    evicted = true;
                }
                None => {
                    self.owners.release_if_empty(place);
                    return Admission::Full;
                }
            }
        }
        // The place may have been given back with its last entry.
        let Some(place) = self.owners.place(request.owner) else { return Admission::Full };
        let id = self.allocate();
        let Request { key, origin, state, parties, generation, .. } = *request;
        let mut entry = Entry::new(key, origin, state);
        (entry.parties, entry.owner, entry.generation) = (parties, place, generation);
        entry.set_closer(entry.side(headers.direction));
        entry.count(headers.direction, headers.ip_len, now);
        self.entries[id as usize] = entry;
        self.live += 1;
        self.census.add(key.protocol(), state);
        self.index.insert(request.hash as u32, id);
        self.owners.add(&mut self.entries, id);
        let timeout = entry.timeout_ms(timeouts);
        self.wheel.file(&mut self.entries, id, now, timeout);
        if evicted { Admission::Evicted(id) } else { Admission::Created(id) }
    }

    /// Forgets a connection.
    pub fn remove(&mut self, id: FlowId) {
        self.wheel.unfile(&mut self.entries, id);
        self.owners.remove(&mut self.entries, id);
        let entry = &self.entries[id as usize];
        self.census.remove(entry.key.protocol(), entry.state());
        self.index.remove(entry.key.hash(self.seed) as u32, id);
        self.entries[id as usize] = Entry::default();
        self.entries[id as usize].next = self.free;
        self.free = id;
        self.live -= 1;
    }

    /// Forgets connections that were idle for too long; looks at no more than `budget` entries. Returns how many went.
    pub fn expire(&mut self, now: u32, timeouts: &Timeouts, budget: usize) -> usize {
        let mut expired = 0;
        for _ in 0..budget {
            let Some(id) = self.wheel.due(now) else { break };
            let entry = &self.entries[id as usize];
            let (idle, timeout) = (now.wrapping_sub(entry.last_seen), entry.timeout_ms(timeouts));
            if idle >= timeout {
                self.remove(id);
                expired += 1;
            } else {
                self.wheel.unfile(&mut self.entries, id);
                self.wheel.file(&mut self.entries, id, now, timeout - idle);
            }
        }
        expired
    }

    /// From now on, [`Self::sweep`] looks at every entry.
    pub fn begin_sweep(&mut self) {
        self.unswept = self.entries.len() as FlowId;
    }

    /// Forgets connections whose ends are no longer who they were: `parties` says who they are. Looks at no more than
    /// `budget` entries; returns how many went.
    pub fn sweep(&mut self, parties: impl Fn(&FlowKey) -> u32, budget: usize) -> usize {
        let mut cut = 0;
        let from = self.unswept.saturating_sub(budget as u32);
        for id in from..self.unswept {
            let entry = &self.entries[id as usize];
            if entry.key != FlowKey::NONE && entry.parties != parties(&entry.key) {
                self.remove(id);
                cut += 1;
            }
        }
        self.unswept = from;
        cut
    }

    /// Has the sweep entries left to look at?
    pub fn is_swept(&self) -> bool {
        self.unswept == 0
    }

    /// How many connections are how far.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// How many connections each local workload has opened that are remembered, as its quota counts them: serial of the
    /// endpoint, connections. In no order.
    pub fn by_workload(&self) -> impl Iterator<Item = (u32, u32)> {
        self.owners.workloads()
    }

    /// Connections for people that `wanted` asks for: up to `limit` of those in the `scan` entries from number `from` on.
    pub fn page(
        &self,
        from: FlowId,
        scan: usize,
        limit: usize,
        wanted: impl Fn(&FlowKey) -> bool,
        timeouts: &Timeouts,
        now: u32,
    ) -> Page {
        let mut page = Page::default();
        let to = self.entries.len().min((from as usize).saturating_add(scan));
        for id in from as usize..to {
            let entry = &self.entries[id];
            if entry.key == FlowKey::NONE || !wanted(&entry.key) {
                continue;
            }
            if page.flows.len() == limit {
                page.next = Some(id as FlowId);
                return page;
            }
            page.flows.push(info(entry, timeouts, now));
        }
        page.next = (to < self.entries.len()).then_some(to as FlowId);
        page
    }

    fn refile(&mut self, id: FlowId, timeouts: &Timeouts, now: u32) {
        let timeout = self.entries[id as usize].timeout_ms(timeouts);
        self.wheel.unfile(&mut self.entries, id);
        self.wheel.file(&mut self.entries, id, now, timeout);
    }

    /// A free entry; there must be room for one.
    fn allocate(&mut self) -> FlowId {
        if self.free != NONE {
            let id = self.free;
            self.free = self.entries[id as usize].next;
            return id;
        }
        self.entries.push(Entry::default());
        (self.entries.len() - 1) as FlowId
    }

    /// Goes on where the last search ended, for a few entries, to one that may be evicted.
    fn search(&mut self, evictable: impl Fn(&Entry) -> bool) -> Option<FlowId> {
        for _ in 0..EVICTION_TRIES.min(self.entries.len()) {
            self.hand = if (self.hand as usize) + 1 < self.entries.len() { self.hand + 1 } else { 0 };
            let entry = &self.entries[self.hand as usize];
            if entry.key != FlowKey::NONE && evictable(entry) {
                return Some(self.hand);
            }
        }
        None
    }
}

fn info(entry: &Entry, timeouts: &Timeouts, now: u32) -> FlowInfo {
    let idle_ms = now.wrapping_sub(entry.last_seen);
    let mut bytes = entry.bytes;
    if !entry.is_answered() {
        bytes[entry.origin().flip() as usize] = 0;
    }
    let action = |direction| Action { adjacency: entry.hop(direction), generation: entry.generation };
    FlowInfo {
        key: entry.key,
        origin: entry.origin(),
        state: entry.state(),
        answered: entry.is_answered(),
        packets: entry.packets,
        bytes,
        idle_ms,
        left_ms: entry.timeout_ms(timeouts).saturating_sub(idle_ms),
        actions: [Direction::Forward, Direction::Reverse].map(action),
    }
}
