//! Have we seen this connection? A hit of the same generation carries the decision; the rest goes on to be decided.

use super::Context;
use crate::flow::{Action, Admission};
use crate::packet::Packet;
use crate::verdict::Verdict;

/// Looks every pending packet's connection up.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter().filter(|p| p.verdict == Verdict::Pending) {
        cx.flows.prefetch_entry(packet.hash);
    }
    let (now, generation) = (cx.now_ms as u32, cx.tables.generation as u32);
    let mut hits = 0;
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        let headers = &packet.headers;
        let Some(id) = cx.flows.find(packet.hash, &headers.key) else { continue };
        let action = cx.flows.touch(id, headers.direction, headers.ip_len, headers.detail, now);
        packet.flow = Some(id);
        if action.generation == generation && generation != 0 {
            packet.verdict = Verdict::Forward(action.adjacency);
            hits += 1;
        }
    }
    cx.counters.flow_hits.add(hits);
}

/// Remembers what the stages in between decided about packets that had no valid entry.
#[inline(never)]
pub fn commit(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut() {
        if let Verdict::Decided(adjacency) = packet.verdict {
            remember(packet, adjacency, cx);
            packet.verdict = Verdict::Forward(adjacency);
        }
    }
}

fn remember(packet: &mut Packet, adjacency: u32, cx: &mut Context<'_>) {
    let headers = &packet.headers;
    let action = Action { adjacency, generation: cx.tables.generation as u32 };
    if let Some(id) = packet.flow {
        cx.flows.set_action(id, headers.direction, action);
        return;
    }
    let now = cx.now_ms as u32;
    // An earlier packet of this batch may have made the entry.
    let id = match cx.flows.find(packet.hash, &headers.key) {
        Some(id) => id,
        None => match cx.flows.create(packet.hash, headers.key, now) {
            Admission::Created(id) => {
                cx.counters.flows_created.add(1);
                id
            }
            Admission::Evicted(id) => {
                cx.counters.flows_created.add(1);
                cx.counters.flows_evicted.add(1);
                id
            }
            // Full of answered connections: forwarded all the same, decided anew for every packet.
            Admission::Full => return,
        },
    };
    cx.flows.touch(id, headers.direction, headers.ip_len, headers.detail, now);
    cx.flows.set_action(id, headers.direction, action);
    packet.flow = Some(id);
}
