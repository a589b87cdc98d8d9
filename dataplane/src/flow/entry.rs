//! One connection.

use super::state::{Side, State};
use crate::net::{Direction, FlowKey};
use crate::spec::Timeouts;

/// Names an entry of one worker's table while it lives.
pub type FlowId = u32;

/// No entry.
pub(super) const NONE: FlowId = u32::MAX;

/// The way of one direction has not been looked up by the tables that judged the connection.
pub(super) const UNDECIDED: u32 = u32::MAX;

/// Set in a hop: every packet must be shown to the protocol's states.
pub(super) const WATCHED: u32 = 1 << 31;

/// What to do with packets of one direction: an adjacency of the tables of one generation. Plain data, the same that a
/// flow table of eBPF or of a NIC would need (match = the entry's key, header template and output port = the adjacency's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Action {
    /// Index into `Tables::adjacencies`; `None` until a packet of this direction asks.
    pub adjacency: Option<u32>,
    /// Low bits of the generation that judged the connection; another generation decides anew.
    pub generation: u32,
}

/// Which decisions hold: low bits of generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era {
    /// The tables in force: what they have decided themselves.
    pub generation: u32,
    /// Connections that have been answered may go on by what was decided since this one.
    pub since: u32,
}

impl Era {
    /// Whether a generation, which is not later than the one in force, is not earlier than [`Self::since`] either.
    fn includes(self, generation: u32) -> bool {
        self.generation.wrapping_sub(generation) <= self.generation.wrapping_sub(self.since)
    }
}

/// 96 bytes: a million of them fit into the memory that is promised for a million flows.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(super) key: FlowKey,
    /// By [`Direction`]: adjacency, perhaps [`WATCHED`], or [`UNDECIDED`]. Below [`WATCHED`]: nothing but counting to do.
    pub(super) hops: [u32; 2],
    /// Bytes by direction. An unanswered entry has none of the reply direction and keeps its place among the unanswered
    /// ones of its owner there, see [`Entry::siblings`].
    pub(super) bytes: [u64; 2],
    /// Packets by direction, sticking at the maximum; a super-frame counts once.
    pub(super) packets: [u32; 2],
    /// Milliseconds, wrapping.
    pub(super) last_seen: u32,
    /// Low bits of the generation that judged the connection and found `hops`.
    pub(super) generation: u32,
    /// Who is behind the two addresses, see `Tables::parties`.
    pub(super) parties: u32,
    pub(super) next: FlowId,
    pub(super) previous: FlowId,
    /// Place of the owner that it is counted for.
    pub(super) owner: u16,
    /// Wheel slot it is filed under.
    pub(super) slot: u8,
    status: Status,
}

const _: () = assert!(size_of::<Entry>() == 96);

/// State, origin, and the side that finished first, in one byte.
#[derive(Clone, Copy, Debug, Default)]
struct Status(u8);

const STATE: u8 = 0x1f;
const REVERSE: u8 = 0x20;
const REPLY_CLOSED: u8 = 0x40;

const _: () = assert!(State::ALL.len() <= STATE as usize + 1);

impl Default for Entry {
    fn default() -> Self {
        Self {
            key: FlowKey::NONE,
            hops: [UNDECIDED; 2],
            bytes: [0; 2],
            packets: [0; 2],
            last_seen: 0,
            generation: 0,
            parties: 0,
            next: NONE,
            previous: NONE,
            owner: 0,
            slot: 0,
            status: Status(0),
        }
    }
}

impl Entry {
    /// A connection whose first packet runs in direction `origin`.
    pub(super) fn new(key: FlowKey, origin: Direction, state: State) -> Self {
        let status = Status(state as u8 | if origin == Direction::Reverse { REVERSE } else { 0 });
        Self { key, status, ..Self::default() }
    }

    /// The direction of the packet that opened it.
    pub(super) fn origin(&self) -> Direction {
        if self.status.0 & REVERSE == 0 { Direction::Forward } else { Direction::Reverse }
    }

    /// The side that a packet of this direction comes from.
    pub(super) fn side(&self, direction: Direction) -> Side {
        if direction == self.origin() { Side::Origin } else { Side::Reply }
    }

    pub(super) fn state(&self) -> State {
        State::ALL[usize::from(self.status.0 & STATE)]
    }

    /// Moves on; hops are watched in states where plain packets count.
    pub(super) fn set_state(&mut self, state: State) {
        self.status.0 = self.status.0 & !STATE | state as u8;
        for direction in [Direction::Forward, Direction::Reverse] {
            self.set_hop(direction, self.hop(direction));
        }
    }

    /// The side that finished first.
    pub(super) fn closer(&self) -> Side {
        if self.status.0 & REPLY_CLOSED == 0 { Side::Origin } else { Side::Reply }
    }

    pub(super) fn set_closer(&mut self, side: Side) {
        let bit = if side == Side::Reply { REPLY_CLOSED } else { 0 };
        self.status.0 = self.status.0 & !REPLY_CLOSED | bit;
    }

    /// The adjacency of one direction.
    pub(super) fn hop(&self, direction: Direction) -> Option<u32> {
        let hop = self.hops[direction as usize];
        (hop != UNDECIDED).then_some(hop & !WATCHED)
    }

    pub(super) fn set_hop(&mut self, direction: Direction, adjacency: Option<u32>) {
        let watched = if self.state().is_settled() { 0 } else { WATCHED };
        self.hops[direction as usize] = adjacency.map_or(UNDECIDED, |adjacency| adjacency | watched);
    }

    /// Has the side that did not open it been heard?
    #[inline]
    pub(super) fn is_answered(&self) -> bool {
        self.packets[self.origin().flip() as usize] > 0
    }

    /// Does what was decided of it hold?
    #[inline(always)]
    pub(super) fn holds(&self, era: Era) -> bool {
        self.generation == era.generation || self.is_answered() && era.includes(self.generation)
    }

    /// Counts one packet.
    #[inline(always)]
    pub(super) fn count(&mut self, direction: Direction, bytes: u32, now: u32) {
        let d = direction as usize;
        self.last_seen = now;
        self.bytes[d] = self.bytes[d].wrapping_add(u64::from(bytes));
        self.packets[d] = self.packets[d].saturating_add(1);
    }

    /// How long it is kept while idle, in milliseconds.
    pub(super) fn timeout_ms(&self, timeouts: &Timeouts) -> u32 {
        self.state().timeout_ms(self.key.protocol(), self.is_answered(), timeouts)
    }

    /// The unanswered entries of the same owner before and after this unanswered one.
    pub(super) fn siblings(&self) -> (FlowId, FlowId) {
        debug_assert!(!self.is_answered());
        let both = self.bytes[self.origin().flip() as usize];
        ((both >> 32) as FlowId, both as FlowId)
    }

    pub(super) fn set_siblings(&mut self, older: FlowId, newer: FlowId) {
        debug_assert!(!self.is_answered());
        self.bytes[self.origin().flip() as usize] = u64::from(older) << 32 | u64::from(newer);
    }

    /// No longer among the unanswered: the reply direction's bytes are bytes from now on.
    pub(super) fn forget_siblings(&mut self) {
        self.bytes[self.origin().flip() as usize] = 0;
    }
}
