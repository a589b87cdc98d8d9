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
}

/// Parses every pending packet; names its flow.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) -> Rare {
    let seed = cx.flows.seed();
    let mut rare = Rare::default();
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        if packet.parse_plain() {
            packet.hash = packet.headers.key.hash(seed);
            cx.flows.prefetch_index(packet.hash);
            continue;
        }
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
