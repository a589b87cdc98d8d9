//! Whose piece is it? Pieces of a datagram after the first belong to the connection of the first. On the wire they have
//! one outer source port, which each of them tells.

use super::Context;
use crate::packet::{Fragment, Packet};
use crate::verdict::{DropReason, Verdict};

/// Notes first pieces and names later ones. Runs after the source check, so that nobody names another's pieces.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    let seed = cx.flows.seed();
    let now = cx.now_ms as u32;
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        if packet.headers.fragment == Fragment::First {
            cx.pieces.note(&packet.headers, seed, now);
        }
        if !packet.headers.is_nameless() {
            continue;
        }
        if let Some(first) = cx.pieces.first_of(&packet.headers, seed, now) {
            packet.headers.take_name(first);
            packet.hash = packet.headers.key.hash(seed);
            cx.flows.prefetch_index(packet.hash);
        } else if packet.handed || packet.headers.owner(seed, cx.workers) == cx.worker {
            packet.verdict = Verdict::Drop(DropReason::FragmentWithoutFirst);
        }
    }
}

/// Gives all pieces of a datagram the hash that each tells by itself, hence one outer source port: they stay in order, and
/// a router that finds one too big quotes what shows that it is ours. Runs when connections need the hash no more.
#[inline(never)]
pub fn leave(batch: &mut [Packet], cx: &Context<'_>) {
    for packet in batch.iter_mut().filter(|p| p.headers.fragment != Fragment::Whole) {
        packet.hash = packet.headers.key.of_pieces().hash(cx.flows.seed());
    }
}
