//! What is it? Validates headers of everything that is not encapsulated (any more).

use super::Context;
use crate::packet::{Kind, Packet};
use crate::verdict::Verdict;

/// Parses every pending packet; names its flow.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    let seed = cx.flows.seed();
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        match packet.parse() {
            Ok(Kind::Ip) => {
                packet.hash = packet.headers.key.hash(seed);
                cx.flows.prefetch_index(packet.hash);
            }
            Ok(Kind::Arp) => packet.arp = true,
            Err(reason) => packet.verdict = Verdict::Drop(reason),
        }
    }
}
