//! One connection.

use crate::net::{Direction, FlowKey};

/// Names an entry of one worker's table while it lives.
pub type FlowId = u32;

/// No entry.
pub(super) const NONE: FlowId = u32::MAX;

/// What to do with packets of one direction: an adjacency of the tables of one generation. Plain data, the same that a
/// flow table of eBPF or of a NIC would need (match = the entry's key, header template and output port = the adjacency's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Action {
    /// Index into `Tables::adjacencies`.
    pub adjacency: u32,
    /// Low bits of the generation it was decided by; another generation decides anew.
    pub generation: u32,
}

/// How far a connection has come; decides how long it is remembered while idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum State {
    /// Packets of one direction only: the first to go when room is short.
    #[default]
    Embryonic,
    /// Answered.
    Established,
    /// Reset, or ended by both sides.
    Closing,
}

/// 96 bytes: a million of them fit into the memory that is promised for a million flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    pub(super) key: FlowKey,
    /// Indexed by [`Direction`].
    pub(super) actions: [Action; 2],
    /// Bytes by direction.
    pub(super) bytes: [u64; 2],
    /// Packets by direction, sticking at the maximum; a super-frame counts once.
    pub(super) packets: [u32; 2],
    /// Milliseconds, wrapping.
    pub(super) last_seen: u32,
    pub(super) next: FlowId,
    pub(super) previous: FlowId,
    pub(super) state: State,
    /// TCP: bit 0/1 = FIN seen forward/reverse.
    pub(super) closing: u8,
    /// Wheel slot it is filed under.
    pub(super) slot: u16,
}

const _: () = assert!(size_of::<Entry>() == 96);

const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;

impl Entry {
    /// Notes one packet and moves the state on.
    #[inline]
    pub(super) fn touch(&mut self, direction: Direction, bytes: u32, detail: u8, now: u32) {
        let d = direction as usize;
        self.last_seen = now;
        self.bytes[d] = self.bytes[d].wrapping_add(u64::from(bytes));
        self.packets[d] = self.packets[d].saturating_add(1);
        if self.state == State::Embryonic && self.packets[d ^ 1] > 0 {
            self.state = State::Established;
        }
        if self.key.protocol() == TCP && detail & (FIN | RST) != 0 {
            self.closing |= if detail & RST != 0 { 3 } else { 1 << d };
            if self.closing == 3 {
                self.state = State::Closing;
            }
        }
    }

    /// How long the entry is kept while idle, in milliseconds. Linux's defaults, except that a TCP connection is
    /// forgotten after a day rather than five.
    pub(super) fn timeout_ms(&self) -> u32 {
        const SECOND: u32 = 1000;
        match (self.state, self.key.protocol()) {
            (State::Closing, _) => 10 * SECOND,
            (State::Embryonic, TCP) => 60 * SECOND,
            (State::Embryonic, _) => 30 * SECOND,
            (State::Established, TCP) => 86_400 * SECOND,
            (State::Established, UDP) => 180 * SECOND,
            (State::Established, _) => 60 * SECOND,
        }
    }
}
