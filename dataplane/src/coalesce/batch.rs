//! Merging the packets of one batch, for ports that deliver wire-sized frames.

use super::tcp::Tcp;
use crate::frame::{Frame, FramePool};
use crate::limits::{BATCH, ETHERNET, MAX_IP};
use crate::offload::{Checksum, Offload};
use crate::port::Received;
use crate::segment::MAX_SEGMENTS;

/// Connections merged at the same time within one batch, as many as a hash bucket of the kernel's GRO holds.
const OPEN: usize = 8;

/// Merges TCP segments that follow one another in their connection into super-frames, per batch: nothing is held back
/// for a later one, so no delay is added. Packets of one connection keep their order.
#[derive(Debug, Default)]
pub struct Coalescer {
    incoming: Vec<Received>,
    /// Frames without a packet, kept until the batch is done: small ones must not be on top of the pool when a
    /// super-frame looks for a larger frame.
    spent: Vec<Frame>,
}

/// A packet of the batch that the next segment of its connection may be appended to.
#[derive(Clone, Copy)]
struct Open {
    /// Its place in the batch.
    index: usize,
    /// Its first segment.
    first: Tcp,
    segments: usize,
    next_sequence: u32,
    /// The first segment's checksum is known to be right.
    proven: bool,
}

impl Coalescer {
    /// With room for the usual batch.
    pub fn new() -> Self {
        Self { incoming: Vec::with_capacity(BATCH), spent: Vec::with_capacity(BATCH) }
    }

    /// Merges what can be merged in `batch` and returns the number of frames it became shorter by; they are back in
    /// `pool`. A super-frame that outgrows its frame moves to one of `pool`, if those are larger.
    ///
    /// Plain (not encapsulated) TCP over IPv4 and IPv6 only; see the module for what goes together. A segment with PSH
    /// ends its super-frame.
    pub fn run(&mut self, batch: &mut Vec<Received>, pool: &mut FramePool) -> usize {
        let before = batch.len();
        let mut incoming = std::mem::take(&mut self.incoming);
        std::mem::swap(&mut incoming, batch);
        self.append(incoming.drain(..), |_| true, pool, batch);
        self.incoming = incoming;
        before - batch.len()
    }

    /// Appends `incoming` to `batch`, merged in the same way; what is there already is left alone, and so is every frame that
    /// is not `wanted`. For all packets of a connection that must be the same answer: their order depends on it.
    pub fn append(
        &mut self,
        incoming: impl Iterator<Item = Received>,
        wanted: impl Fn(&[u8]) -> bool,
        pool: &mut FramePool,
        batch: &mut Vec<Received>,
    ) {
        let mut open: [Option<Open>; OPEN] = [None; OPEN];
        let mut oldest = 0;
        for received in incoming {
            let data = received.frame.data();
            let Some(tcp) = wanted(data).then(|| Tcp::parse(data)).flatten() else {
                batch.push(received);
                continue;
            };
            let known = open.iter().position(|slot| {
                slot.is_some_and(|open| is_same_connection(&batch[open.index], &open.first, &received, &tcp))
            });
            if let Some(slot) = known
                && let Some(head) = &mut open[slot]
            {
                let room = Room { pool, spent: &mut self.spent };
                if append(&mut batch[head.index], head, &received, &tcp, room) {
                    if tcp.pushes() || tcp.payload_len() < head.first.payload_len() {
                        open[slot] = None;
                    }
                    self.spent.push(received.frame);
                    continue;
                }
                open[slot] = None;
            }
            if mergeable(&received, &tcp) && !tcp.pushes() {
                let slot = known.or_else(|| open.iter().position(Option::is_none)).unwrap_or_else(|| {
                    oldest = (oldest + 1) % OPEN;
                    oldest
                });
                let next_sequence = tcp.next_sequence();
                let index = batch.len();
                open[slot] = Some(Open { index, first: tcp, segments: 1, next_sequence, proven: false });
            }
            batch.push(received);
        }
        self.spent.drain(..).for_each(|frame| pool.give(frame));
    }
}

/// Same way in, addresses and ports.
fn is_same_connection(head: &Received, first: &Tcp, received: &Received, tcp: &Tcp) -> bool {
    let addresses = if first.v6 { ETHERNET + 8..ETHERNET + 40 } else { ETHERNET + 12..ETHERNET + 20 };
    let (a, b) = (head.frame.data(), received.frame.data());
    head.ingress == received.ingress
        && first.v6 == tcp.v6
        && a[addresses.clone()] == b[addresses]
        && a[first.transport..first.transport + 4] == b[tcp.transport..tcp.transport + 4]
}

fn mergeable(received: &Received, tcp: &Tcp) -> bool {
    let Offload { checksum, gso, tunnel } = received.offload;
    let partial = matches!(checksum, Checksum::Partial { .. });
    gso.is_none()
        && tunnel.is_none()
        && (!partial || checksum == tcp.partial())
        && tcp.is_plain_data(received.frame.data())
}

/// An unfinished checksum comes from a kernel on this machine, and there is nothing to verify.
fn proven(received: &Received, tcp: &Tcp) -> bool {
    received.offload.checksum != Checksum::Complete || tcp.checksum_is_right(received.frame.data())
}

/// Appends the payload of `received` to `head`, or does nothing and says so.
fn append(head: &mut Received, open: &mut Open, received: &Received, tcp: &Tcp, room: Room) -> bool {
    let first = &open.first;
    let payload = &received.frame.data()[tcp.payload..];
    let end = head.frame.len() + payload.len();
    let fits = tcp.sequence == open.next_sequence
        && tcp.payload_len() <= first.payload_len()
        && open.segments < MAX_SEGMENTS
        && end <= ETHERNET + MAX_IP
        && mergeable(received, tcp)
        && first.continues_as(head.frame.data(), tcp, received.frame.data(), open.segments);
    if !fits || !proven(received, tcp) {
        return false;
    }
    open.proven = open.proven || proven(head, first);
    if !open.proven || !room.make(&mut head.frame, end) {
        return false;
    }
    let from = head.frame.len();
    let grown = head.frame.set_len(end);
    debug_assert!(grown);
    head.frame.data_mut()[from..].copy_from_slice(payload);
    first.make_super(head.frame.data_mut(), end, tcp.pushes());
    head.offload = first.super_offload();
    open.segments += 1;
    open.next_sequence = tcp.next_sequence();
    true
}

/// Where larger frames come from and outgrown ones go.
struct Room<'a> {
    pool: &'a mut FramePool,
    spent: &'a mut Vec<Frame>,
}

impl Room<'_> {
    /// Sees to it that `frame` can hold `len` bytes, by moving it to a larger frame of the pool if need be.
    fn make(self, frame: &mut Frame, len: usize) -> bool {
        if frame.len() + frame.tailroom() >= len {
            return true;
        }
        let Some(mut larger) = self.pool.take() else { return false };
        if larger.tailroom() < len || !larger.fill(frame.data()) {
            self.pool.give(larger);
            return false;
        }
        self.spent.push(std::mem::replace(frame, larger));
        true
    }
}
