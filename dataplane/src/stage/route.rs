//! Where does it go? Longest prefix to adjacency, for packets whose connection has no valid decision yet.

use super::Context;
use crate::packet::{Headers, Packet};
use crate::tables::{Kind, Tables};
use crate::verdict::{DropReason, Verdict};

/// Decides every pending packet. The decision is not remembered here.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        packet.verdict = match decide(packet, cx.tables) {
            Ok(adjacency) => Verdict::Decided(adjacency),
            Err(reason) => Verdict::Drop(reason),
        };
    }
}

fn decide(packet: &Packet, tables: &Tables) -> Result<u32, DropReason> {
    let headers = &packet.headers;
    check_destination(headers)?;
    let found = if headers.is_v6() {
        tables.route_v6(headers.destination_v6())
    } else {
        tables.route_v4(headers.destination_v4())
    };
    let adjacency = tables.resolve(found.ok_or(DropReason::NoRoute)?, packet.hash);
    if let Kind::Drop(reason) = tables.adjacencies[adjacency as usize].kind {
        return Err(reason);
    }
    Ok(adjacency)
}

/// Destinations that are never routed, whatever the table says.
fn check_destination(headers: &Headers) -> Result<(), DropReason> {
    if headers.is_v6() {
        let high = (headers.destination_v6() >> 112) as u16;
        let address = headers.destination_v6();
        match high {
            0xff00.. => Err(DropReason::Multicast),
            0xfe80..=0xfebf => Err(DropReason::LinkLocal),
            // Unspecified, loopback, and IPv4 in disguise (RFC 4291 §2.5).
            _ if address <= 1 || address >> 32 == 0xffff => Err(DropReason::MartianDestination),
            _ => Ok(()),
        }
    } else {
        let address = headers.destination_v4();
        match address >> 24 {
            224..=239 => Err(DropReason::Multicast),
            _ if address == u32::MAX => Err(DropReason::Multicast),
            _ if address >> 16 == 0xa9fe => Err(DropReason::LinkLocal),
            // This network, loopback, class E (RFC 1122 §3.2.1.3).
            0 | 127 | 240.. => Err(DropReason::MartianDestination),
            _ => Ok(()),
        }
    }
}
