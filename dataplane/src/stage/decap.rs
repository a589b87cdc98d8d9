//! Out of the tunnel: is it for our VTEP, from a VTEP we know, in our overlay? Then the inner frame goes on.

use super::Context;
use crate::offload::{Checksum, Offload};
use crate::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, Source};
use crate::path_mtu;
use crate::port::Ingress;
use crate::spec::DscpMode;
use crate::tables::Tables;
use crate::verdict::{DropReason, Verdict};
use crate::wire::outer::{self, Outer, Payload};
use crate::wire::{ecn, vxlan};

/// Decapsulates every pending packet that came from the underlay.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    for packet in batch.iter_mut().filter(|p| p.ingress == Ingress::Underlay && p.verdict == Verdict::Pending)
    {
        if let Err(reason) = decapsulate(packet, cx) {
            packet.verdict = Verdict::Drop(reason);
        }
    }
}

#[inline]
fn decapsulate(packet: &mut Packet, cx: &mut Context<'_>) -> Result<(), DropReason> {
    if packet.handed {
        // Its first worker has done it.
        return Ok(());
    }
    let tables = cx.tables;
    let local = tables.vxlan.ok_or(DropReason::NotOurVtep)?;
    let outer = outer::read(packet.frame.data())?;
    match outer.payload {
        Payload::Vxlan { destination_port } if destination_port == local.port => {}
        Payload::Vxlan { .. } => return Err(DropReason::NotOurVtep),
        Payload::TooBig { mtu, quote } => {
            return Err(path_mtu::learn(packet.frame.data(), quote, mtu, tables, cx.flows.seed(), cx.now_ms));
        }
    }
    let mac = outer.local_mac(&local).ok_or(DropReason::NotOurVtep)?;
    check_checksum(&outer, packet.offload.checksum)?;
    let header =
        packet.frame.data().get(outer.header_len..).and_then(|rest| rest.first_chunk::<{ vxlan::LEN }>());
    let header = vxlan::Header::read(header.ok_or(DropReason::MalformedOuter)?);
    if header.reserved_bits {
        cx.counters.vxlan_reserved_bits.add(1);
    }
    match header.vni {
        None => return Err(DropReason::VxlanNoVni),
        Some(vni) if vni != local.vni => return Err(DropReason::UnknownVni),
        Some(_) => {}
    }
    let vtep = tables.vtep_at(outer.source).ok_or(DropReason::UnknownVtep)?;
    let front = outer.header_len + vxlan::LEN;
    if !packet.frame.set_len(outer.end) || !packet.frame.trim_front(front) {
        return Err(DropReason::MalformedOuter);
    }
    packet.offload = uncover(packet.offload, front)?;
    check_inner(packet, mac.0)?;
    propagate(packet, outer.tos, tables)?;
    packet.source = Source::Vtep(vtep);
    cx.counters.decapsulated.add(1);
    Ok(())
}

/// A checksum that is there is not verified: peers on veth and virtio send unfinished ones that only their offload
/// metadata tells apart from wrong ones, and the inner packet has checksums of its own. Over IPv6 its absence is an
/// error unless both ends agreed on it (RFC 6935 §5).
#[inline]
fn check_checksum(outer: &Outer, offload: Checksum) -> Result<(), DropReason> {
    if outer.is_v6 && outer.udp_checksum == 0 && !matches!(offload, Checksum::Partial { .. }) {
        return Err(DropReason::OuterZeroChecksumV6);
    }
    Ok(())
}

/// Offload state of the inner frame: offsets move with its start; what concerned the outer headers is gone with them.
#[inline]
fn uncover(offload: Offload, front: usize) -> Result<Offload, DropReason> {
    let checksum = match offload.checksum {
        Checksum::Partial { start, offset } if usize::from(start) >= front => {
            Checksum::Partial { start: start - front as u16, offset }
        }
        // The outer checksum was the unfinished one; the inner ones were finished before encapsulation.
        Checksum::Partial { .. } => Checksum::Complete,
        other => other,
    };
    match (offload.gso, offload.tunnel) {
        // A run of datagrams under one outer header cannot be taken apart here.
        (Some(_), None) => Err(DropReason::OffloadUnsupported),
        (gso, _) => Ok(Offload { checksum, gso, tunnel: None }),
    }
}

/// Only IP of ours travels in the tunnel: no ARP, no VLAN, nobody else's Ethernet address.
#[inline]
fn check_inner(packet: &Packet, mac: [u8; 6]) -> Result<(), DropReason> {
    let inner = packet.frame.data().first_chunk::<14>().ok_or(DropReason::MalformedEthernet)?;
    if inner[..6] != mac {
        return Err(DropReason::InnerMac);
    }
    match [inner[12], inner[13]] {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Ok(()),
        [0x81, 0x00] | [0x88, 0xa8] => Err(DropReason::VlanTag),
        _ => Err(DropReason::UnknownEtherType),
    }
}

/// Carries congestion marks (RFC 6040 §4.2) and, in uniform mode, the DSCP inward.
#[inline]
fn propagate(packet: &mut Packet, outer_tos: u8, tables: &Tables) -> Result<(), DropReason> {
    let uniform = tables.settings.dscp == DscpMode::Uniform;
    if outer_tos & 3 == 0 && !uniform {
        return Ok(());
    }
    ecn::decapsulate(packet.frame.data_mut(), outer_tos, uniform)
}
