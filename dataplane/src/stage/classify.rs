//! What is it? Validates headers of everything that is not encapsulated (any more).

use super::Context;
use crate::packet::{Kind, Packet};
use crate::verdict::Verdict;

const ICMPV6: u8 = 58;

/// Parses every pending packet; names its flow. Returns whether any of them may be ARP or neighbour discovery.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) -> bool {
    let seed = cx.flows.seed();
    let mut neighbors = false;
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        match packet.parse() {
            Ok(Kind::Ip) => {
                packet.hash = packet.headers.key.hash(seed);
                cx.flows.prefetch_index(packet.hash);
                neighbors |= packet.headers.protocol() == ICMPV6;
            }
            Ok(Kind::Arp) => {
                packet.arp = true;
                neighbors = true;
            }
            Err(reason) => packet.verdict = Verdict::Drop(reason),
        }
    }
    neighbors
}
