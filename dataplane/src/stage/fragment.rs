//! Too big, and allowed to be cut: IPv4 without DF.

use super::Context;
use crate::fragment;
use crate::offload::{Checksum, Offload};
use crate::packet::Batch;
use crate::verdict::{DropReason, Verdict};

/// Cuts every packet that is to be fragmented; the pieces behind the first join the batch.
#[inline(never)]
pub fn run(batch: &mut Batch, cx: &mut Context<'_>) {
    let mut rest = std::mem::take(&mut batch.pieces);
    for index in 0..batch.len() {
        let packet = &mut batch[index];
        let Verdict::Fragment { adjacency, mtu } = packet.verdict else { continue };
        let checksum = packet.offload.checksum;
        let cut = fragment::fragment_v4(&mut packet.frame, checksum, usize::from(mtu), cx.pool, &mut rest);
        if cut.is_err() {
            packet.verdict = Verdict::Drop(DropReason::FragmentFailed);
            continue;
        }
        packet.offload = Offload { checksum: Checksum::Complete, ..Offload::NONE };
        packet.verdict = Verdict::Forward(adjacency);
        // As for pieces that come from elsewhere: a router that finds one too big quotes it, not the whole, and can be
        // believed only if the outer source port is that of what it quotes.
        packet.hash = packet.headers.key.of_pieces().hash(cx.flows.seed());
        for frame in rest.drain(..) {
            let piece = batch[index].with_frame(frame);
            batch.push(piece);
        }
    }
    batch.pieces = rest;
}
