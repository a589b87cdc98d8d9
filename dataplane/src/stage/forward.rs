//! One hop: TTL and MTU.

use super::Context;
use crate::packet::Packet;
use crate::port::Ingress;
use crate::tables::{Kind, Tables};
use crate::verdict::{DropReason, Verdict};

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;

/// Lowers the TTL of everything that is routed and checks that it fits its way; returns whether any packet does not, or
/// has come too far.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) -> bool {
    let mut exceptions = false;
    for packet in batch.iter_mut() {
        if let Verdict::Forward(index) = packet.verdict {
            let verdict = hop(packet, index, cx.tables, cx.now_ms);
            if verdict != packet.verdict {
                packet.verdict = verdict;
                exceptions |= is_exception(verdict);
            }
        }
    }
    exceptions
}

fn is_exception(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Fragment { .. } | Verdict::TooBig(_) | Verdict::Expired)
}

#[inline(always)]
fn hop(packet: &mut Packet, index: u32, tables: &Tables, now_ms: u64) -> Verdict {
    let adjacency = &tables.adjacencies[index as usize];
    let to_host = match adjacency.kind {
        Kind::Drop(reason) => return Verdict::Drop(reason),
        Kind::Host => true,
        _ => false,
    };
    if to_host && let Err(reason) = check_delivery(packet, tables) {
        return Verdict::Drop(reason);
    }
    // This host's stack is the router itself: what it sends has not come from afar, what it receives has arrived.
    let routed = packet.ingress != Ingress::Host && !to_host;
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

/// May the host's stack have this packet? Asked of every one: a connection's key tells neither the way it came nor, for
/// fragments, the port, so a remembered decision must not answer.
#[inline]
fn check_delivery(packet: &Packet, tables: &Tables) -> Result<(), DropReason> {
    if packet.ingress == Ingress::Host {
        return Err(DropReason::HostLoop);
    }
    // The host's socket on the VXLAN port takes reassembled outer fragments; it must never see an inner packet.
    let to_vxlan = tables.vxlan.is_some_and(|vxlan| packet.headers.destination_port == vxlan.port);
    if to_vxlan && packet.headers.protocol() == UDP {
        return Err(DropReason::NestedVxlan);
    }
    Ok(())
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
        // As the kernel does it: 0xffff, which a full computation never gives, becomes 0.
        let field = (sum + u32::from(sum >= 0xffff)) as u16;
        head[22] -= 1;
        head[24..26].copy_from_slice(&field.to_be_bytes());
    }
}
