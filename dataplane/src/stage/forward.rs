//! One hop: TTL and MTU.

use super::Context;
use crate::packet::Packet;
use crate::port::Ingress;
use crate::tables::{Adjacency, Kind};
use crate::verdict::{DropReason, Verdict};

const TCP: u8 = 6;
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;

/// Lowers the TTL of everything that is routed and checks that it fits its way.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut() {
        if let Verdict::Forward(index) = packet.verdict {
            packet.verdict = hop(packet, index, &cx.tables.adjacencies[index as usize], cx.now_ms);
        }
    }
}

#[inline]
fn hop(packet: &mut Packet, index: u32, adjacency: &Adjacency, now_ms: u64) -> Verdict {
    if let Kind::Drop(reason) = adjacency.kind {
        return Verdict::Drop(reason);
    }
    // This host's stack is the router itself: what it sends has not come from afar, what it receives has arrived.
    let routed = packet.ingress != Ingress::Host && !matches!(adjacency.kind, Kind::Host);
    if routed && packet.headers.ttl <= 1 {
        return Verdict::Expired;
    }
    let len = segment_len(packet);
    if len > u32::from(adjacency.fits) && len > u32::from(adjacency.mtu_at(now_ms)) {
        let mtu = adjacency.mtu_at(now_ms);
        if packet.headers.dont_fragment {
            return Verdict::TooBig(mtu);
        }
        if packet.offload.gso.is_some() {
            // The segments of a super-frame have been sized by its sender's path MTU; cutting each is not worth the code.
            return Verdict::TooBig(mtu);
        }
        if routed {
            lower_ttl(packet);
        }
        return Verdict::Fragment { adjacency: index, mtu };
    }
    if routed {
        lower_ttl(packet);
    }
    Verdict::Forward(index)
}

/// Length of the largest IP packet that will be on the wire.
#[inline]
fn segment_len(packet: &Packet) -> u32 {
    let Some(gso) = packet.offload.gso else { return packet.headers.ip_len };
    let transport = u32::from(packet.headers.transport);
    let header_len = if packet.headers.protocol() == TCP {
        let offset =
            packet.frame.data().get(transport as usize + 12).map_or(0, |byte| u32::from(byte >> 4) * 4);
        offset.max(TCP_HEADER)
    } else {
        UDP_HEADER
    };
    packet.headers.ip_len.min(transport - 14 + header_len + u32::from(gso.size))
}

/// TTL less one, checksum with it (RFC 1624).
#[inline]
fn lower_ttl(packet: &mut Packet) {
    let v6 = packet.headers.is_v6();
    let Some(head) = packet.frame.data_mut().first_chunk_mut::<34>() else {
        packet.verdict = Verdict::Drop(DropReason::MalformedEthernet);
        return;
    };
    if v6 {
        head[21] -= 1;
    } else {
        // The TTL is the high byte of its word: one less there is 0x0100 more in the complement.
        let sum = u32::from(u16::from_be_bytes([head[24], head[25]])) + 0x0100;
        let field = (sum + (sum >> 16)) as u16;
        head[22] -= 1;
        head[24..26].copy_from_slice(&field.to_be_bytes());
    }
}
