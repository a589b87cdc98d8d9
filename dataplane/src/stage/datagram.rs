//! Whose piece is it? Pieces of a datagram after the first belong to the connection of the first.

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
