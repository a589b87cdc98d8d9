//! Whose flow is it? No connection is touched by two workers.

use super::Context;
use crate::net::HashSeed;
use crate::packet::{Fragment, Packet, Role};
use crate::verdict::Verdict;

/// Marks pending packets that another worker owns.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    let seed = cx.flows.seed();
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        let owner = if packet.headers.fragment != Fragment::Whole {
            of_piece(packet, seed, cx)
        } else if packet.handed {
            // It has arrived, whatever this worker thinks.
            cx.worker
        } else if packet.headers.role == Role::Error {
            about(packet, seed, cx.workers)
        } else {
            packet.headers.key.owner(seed, cx.workers)
        };
        if owner != cx.worker {
            packet.verdict = Verdict::Handover(owner);
        }
    }
}

/// Errors go to the owner of the connection that they are about.
#[cold]
fn about(packet: &Packet, seed: HashSeed, workers: u32) -> u32 {
    let quote = packet.quote();
    quote.map_or(packet.headers.key, |quote| quote.key).owner(seed, workers)
}

/// Pieces take two steps at most: to the worker that sees all pieces between these two ends, and from there, named, to the
/// one that owns their connection.
#[cold]
fn of_piece(packet: &Packet, seed: HashSeed, cx: &Context<'_>) -> u32 {
    let meeting = packet.headers.owner(seed, cx.workers);
    let named = !packet.headers.is_nameless();
    if !packet.handed && cx.worker != meeting {
        meeting
    } else if named && cx.worker == meeting {
        packet.headers.key.owner(seed, cx.workers)
    } else {
        cx.worker
    }
}
