//! What is it? Validates headers of everything that is not encapsulated (any more).

use super::Context;
use crate::packet::{Fragment, Kind, Packet};
use crate::verdict::Verdict;

const ICMPV6: u8 = 58;

/// What a batch holds beside ordinary packets: stages that are for nothing else are left out without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rare {
    /// ARP, or what may be neighbour discovery.
    pub neighbors: bool,
    /// Pieces of datagrams.
    pub pieces: bool,
    /// What may be another worker's: everything but plain packets that this one owns.
    pub strangers: bool,
}

/// Parses every pending packet; names its flow.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) -> Rare {
    let (seed, workers) = (cx.flows.seed(), cx.workers);
    let mut rare = Rare::default();
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        if packet.parse_plain() {
            let key = packet.headers.key;
            packet.hash = key.hash(seed);
            cx.flows.prefetch_index(packet.hash);
            // Asked here, where the key is at hand, and not in a pass over the batch of its own.
            rare.strangers |= workers > 1 && key.owner(seed, workers) != cx.worker;
            continue;
        }
        rare.strangers |= workers > 1;
        match packet.parse() {
            Ok(Kind::Ip) => {
                packet.hash = packet.headers.key.hash(seed);
                cx.flows.prefetch_index(packet.hash);
                rare.neighbors |= packet.headers.protocol() == ICMPV6;
                rare.pieces |= packet.headers.fragment != Fragment::Whole;
            }
            Ok(Kind::Arp) => {
                packet.arp = true;
                rare.neighbors = true;
            }
            Err(reason) => packet.verdict = Verdict::Drop(reason),
        }
    }
    rare
}
