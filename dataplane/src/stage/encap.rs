//! Into the frame that goes out: Ethernet addresses for a local workload, outer headers for the tunnel.

use super::Context;
use crate::checksum;
use crate::offload::{Checksum, Tunnel};
use crate::packet::Packet;
use crate::spec::{DscpMode, Settings};
use crate::tables::{Kind, TemplateV4, TemplateV6};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{ecn, vxlan};

/// Rewrites every packet that is to be forwarded.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    let settings = cx.tables.settings;
    let mut encapsulated = 0;
    for packet in batch.iter_mut() {
        let Verdict::Forward(adjacency) = packet.verdict else { continue };
        let done = match &cx.tables.adjacencies[adjacency as usize].kind {
            Kind::Endpoint { ethernet, .. } => {
                if let Some(header) = packet.frame.data_mut().first_chunk_mut::<12>() {
                    *header = *ethernet;
                }
                Ok(())
            }
            Kind::VxlanV4(template) => {
                encapsulated += 1;
                *cx.ip_id = cx.ip_id.wrapping_add(1);
                over_v4(packet, template, *cx.ip_id, &settings)
            }
            Kind::VxlanV6(template) => {
                encapsulated += 1;
                over_v6(packet, template, &settings)
            }
            Kind::Host | Kind::Direct { .. } | Kind::Gateway { .. } | Kind::Spread(_) | Kind::Drop(_) => {
                Ok(())
            }
        };
        if let Err(reason) = done {
            packet.verdict = Verdict::Drop(reason);
        }
    }
    cx.counters.encapsulated.add(encapsulated);
}

/// Adds Ethernet, IPv4, UDP and VXLAN. An outer length beyond 16 bits happens to super-frames only; it is written
/// modulo 2¹⁶ and the frame cut by `output` before it leaves.
#[inline(always)]
fn over_v4(
    packet: &mut Packet,
    template: &TemplateV4,
    id: u16,
    settings: &Settings,
) -> Result<(), DropReason> {
    const FRONT: usize = vxlan::OVERHEAD_V4;
    let tos = ecn::encapsulate(packet.headers.tos, settings.dscp == DscpMode::Uniform);
    if !packet.frame.grow_front(FRONT) {
        return Err(DropReason::NoFrame);
    }
    let total = (packet.frame.len() - 14) as u16;
    let udp_len = total.wrapping_sub(20);
    let port = vxlan::source_port(packet.hash);
    let frame = packet.frame.data_mut();
    let Some(head) = frame.first_chunk_mut::<{ FRONT + 14 }>() else {
        return Err(DropReason::MalformedEthernet);
    };
    let ether_type = [head[FRONT + 12], head[FRONT + 13]];
    *head = template.bytes;
    head[15] = tos;
    head[16..18].copy_from_slice(&total.to_be_bytes());
    head[18..20].copy_from_slice(&id.to_be_bytes());
    let sum = template.ip_sum + u32::from(tos) + u32::from(total) + u32::from(id);
    // Turned round and added to itself, it has the sum of its halves and their carry in the high half.
    let sum = sum.wrapping_add(sum.rotate_left(16)) >> 16;
    head[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    head[34..36].copy_from_slice(&port.to_be_bytes());
    head[38..40].copy_from_slice(&udp_len.to_be_bytes());
    head[FRONT + 12..].copy_from_slice(&ether_type);
    cover(packet, FRONT, false, settings.outer_checksum_v4)?;
    if settings.outer_checksum_v4 {
        finish_udp(packet, false, template.pseudo_sum, udp_len)?;
    }
    Ok(())
}

/// Adds Ethernet, IPv6, UDP and VXLAN. The UDP checksum is not optional here (RFC 8200 §8.1; kernel peers drop zero).
#[inline(never)]
fn over_v6(packet: &mut Packet, template: &TemplateV6, settings: &Settings) -> Result<(), DropReason> {
    const FRONT: usize = vxlan::OVERHEAD_V6;
    let tos = ecn::encapsulate(packet.headers.tos, settings.dscp == DscpMode::Uniform);
    if !packet.frame.grow_front(FRONT) {
        return Err(DropReason::NoFrame);
    }
    let udp_len = (packet.frame.len() - 54) as u16;
    let port = vxlan::source_port(packet.hash);
    let frame = packet.frame.data_mut();
    let Some(head) = frame.first_chunk_mut::<{ FRONT + 14 }>() else {
        return Err(DropReason::MalformedEthernet);
    };
    let ether_type = [head[FRONT + 12], head[FRONT + 13]];
    *head = template.bytes;
    head[14] |= tos >> 4;
    head[15] |= tos << 4;
    head[18..20].copy_from_slice(&udp_len.to_be_bytes());
    head[54..56].copy_from_slice(&port.to_be_bytes());
    head[58..60].copy_from_slice(&udp_len.to_be_bytes());
    head[FRONT + 12..].copy_from_slice(&ether_type);
    cover(packet, FRONT, true, true)?;
    finish_udp(packet, true, template.pseudo_sum, udp_len)
}

/// Offload state of the outer frame: offsets move, a super-frame is one inside a tunnel now.
#[inline(always)]
fn cover(packet: &mut Packet, front: usize, outer_v6: bool, outer_checksum: bool) -> Result<(), DropReason> {
    const UNSUPPORTED: DropReason = DropReason::OffloadUnsupported;
    let front = front as u16;
    match &mut packet.offload.checksum {
        Checksum::Partial { start, .. } => *start = start.checked_add(front).ok_or(UNSUPPORTED)?,
        other => *other = Checksum::Complete,
    }
    if packet.offload.gso.is_some() {
        // A workload's own tunnel inside of ours: offload state knows one.
        if packet.offload.tunnel.is_some() {
            return Err(UNSUPPORTED);
        }
        let outer_transport = if outer_v6 { 54 } else { 34 };
        packet.offload.tunnel =
            Some(Tunnel { outer_v6, outer_transport, inner_network: front + 14, outer_checksum });
    }
    Ok(())
}

/// Fills the outer UDP checksum. In a super-frame the field holds the pseudo-header's sum, for whoever segments it.
#[inline(never)]
fn finish_udp(packet: &mut Packet, outer_v6: bool, pseudo_sum: u32, udp_len: u16) -> Result<(), DropReason> {
    let transport = if outer_v6 { 54 } else { 34 };
    let checksum = packet.offload.checksum;
    if packet.offload.gso.is_none() {
        return checksum::finish_outer_udp(packet.frame.data_mut(), outer_v6, transport, checksum)
            .map_err(|_| DropReason::OffloadUnsupported);
    }
    let field = checksum::fold(u64::from(pseudo_sum) + u64::from(udp_len));
    packet.frame.data_mut()[transport + 6..transport + 8].copy_from_slice(&field.to_be_bytes());
    Ok(())
}
