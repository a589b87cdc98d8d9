//! The sender is told: TTL used up, or too big for the way.

use std::net::IpAddr;

use super::Context;
use crate::limits::ETHERNET;
use crate::offload::Offload;
use crate::packet::{Packet, Quote, Source};
use crate::reply::icmp_error::{self, IcmpError};
use crate::tables::{HOST, Tables};
use crate::verdict::{DropReason, Verdict};

/// Turns packets that cannot go on into errors to their senders, within the budget; the rest is dropped.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut() {
        let (error, reason) = match packet.verdict {
            Verdict::TooBig(mtu) => (IcmpError::PacketTooBig { mtu: u32::from(mtu) }, DropReason::TooBig),
            Verdict::Expired => (IcmpError::TimeExceeded, DropReason::TtlExpired),
            _ => continue,
        };
        packet.verdict = tell(packet, error, cx).map_or(Verdict::Drop(reason), Verdict::Forward);
    }
}

/// Rewrites the packet into the error; returns the way back to its sender, or `None` when it must not be told.
fn tell(packet: &mut Packet, error: IcmpError, cx: &mut Context<'_>) -> Option<u32> {
    let tables = cx.tables;
    let ours = own_address(packet, tables)?;
    let connection = packet.headers.key.hash(cx.flows.seed());
    let back = tables.resolve(way_back(packet, tables)?, connection);
    if !cx.icmp_budget.allow(packet.headers.source_address(), cx.now_ms) {
        cx.counters.icmp_limited.add(1);
        return None;
    }
    let mtu = tables.adjacencies[back as usize].mtu_at(cx.now_ms);
    icmp_error::rewrite(&mut packet.frame, error, ours, mtu).ok()?;
    packet.offload = Offload::NONE;
    // The outer source port is that of the packet on the wire: whoever quotes it must be believed.
    let error = packet.frame.data().get(ETHERNET..).and_then(Quote::read)?;
    packet.hash = error.outer_key().hash(cx.flows.seed());
    // The outer header of the way back describes the new packet, not the one it was made of.
    packet.headers.tos = if packet.headers.is_v6() { 0 } else { icmp_error::TOS_CONTROL };
    cx.counters.replies.add(1);
    Some(back)
}

/// The address that the sender knows this node by.
fn own_address(packet: &Packet, tables: &Tables) -> Option<IpAddr> {
    let gateway = match packet.source {
        Source::Gateway(index) => tables.gateways.get(index as usize),
        _ => None,
    };
    if packet.headers.is_v6() {
        gateway.and_then(|gateway| gateway.address_v6).or(tables.gateway_v6).map(IpAddr::from)
    } else {
        gateway.and_then(|gateway| gateway.address_v4).or(tables.gateway_v4).map(IpAddr::from)
    }
}

fn way_back(packet: &Packet, tables: &Tables) -> Option<u32> {
    match packet.source {
        Source::Endpoint(index) => Some(tables.endpoints[index as usize].adjacency),
        Source::Vtep(index) => Some(tables.vteps[index as usize].adjacency),
        Source::Host => Some(HOST),
        Source::Direct | Source::Gateway(_) => tables.route(packet.headers.source_address()),
        Source::Unknown => None,
    }
}
