//! Whose flow is it? No connection is touched by two workers.

use super::Context;
use crate::packet::Packet;
use crate::verdict::Verdict;

/// Marks pending packets that another worker owns.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    if cx.workers <= 1 {
        return;
    }
    let seed = cx.flows.seed();
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending && !p.handed) {
        let owner = packet.headers.key.owner(seed, cx.workers);
        if owner != cx.worker {
            packet.verdict = Verdict::Handover(owner);
        }
    }
}
