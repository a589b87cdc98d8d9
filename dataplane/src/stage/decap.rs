//! Out of the tunnel: is it for our VTEP, from a VTEP we know, in our overlay? Then the inner frame goes on.

use super::Context;
use crate::offload::Checksum;
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
    let mut plain = PlainV4::new(cx.tables);
    let mut decapsulated = 0;
    for packet in batch.iter_mut().filter(|p| p.ingress == Ingress::Underlay && p.verdict == Verdict::Pending)
    {
        let done = match plain.as_mut().and_then(|plain| plain.vtep(packet, cx.tables)) {
            Some(vtep) => uncover(packet, vxlan::OVERHEAD_V4, vtep),
            None => decapsulate(packet, cx),
        };
        match done {
            Ok(()) => decapsulated += 1,
            Err(reason) => packet.verdict = Verdict::Drop(reason),
        }
    }
    cx.counters.decapsulated.add(decapsulated);
}

/// The shape that nearly every packet has: IPv4 without options or marks, nothing reserved set, IP inside. Compared as
/// a whole; whatever differs takes the long way, which also knows why.
struct PlainV4 {
    address: [u8; 4],
    port: [u8; 2],
    vxlan: [u8; vxlan::LEN],
    mac: [u8; 6],
    /// The VTEP that the packet before was from.
    last: Option<(u32, u32)>,
}

impl PlainV4 {
    fn new(tables: &Tables) -> Option<Self> {
        let local = tables.vxlan?;
        let v4 = local.v4.filter(|_| tables.settings.dscp == DscpMode::Pipe)?;
        let (address, port) = (v4.address.octets(), local.port.to_be_bytes());
        Some(Self { address, port, vxlan: vxlan::Header::write(local.vni), mac: v4.mac.0, last: None })
    }

    /// The VTEP that the packet is from, if it has the plain shape and is for us.
    #[inline(always)]
    fn vtep(&mut self, packet: &Packet, tables: &Tables) -> Option<u32> {
        let data = packet.frame.data();
        let head: &[u8; 64] = data.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let total = usize::from(word(16));
        let same = head[12..15] == [0x08, 0x00, 0x45]
            && head[15] & 3 == 0
            && word(20) & 0x3fff == 0
            && head[23] == 17
            && head[30..34] == self.address
            && head[36..38] == self.port
            && head[42..50] == self.vxlan
            && head[50..56] == self.mac
            && matches!([head[62], head[63]], ETHERTYPE_IPV4 | ETHERTYPE_IPV6)
            && total + 14 == data.len()
            && usize::from(word(38)) + 20 == total;
        if !same {
            return None;
        }
        let source = u32::from_be_bytes([head[26], head[27], head[28], head[29]]);
        match self.last {
            Some((known, vtep)) if known == source => Some(vtep),
            _ => {
                let vtep = tables.vtep_at_v4(source)?;
                self.last = Some((source, vtep));
                Some(vtep)
            }
        }
    }
}

/// The long way: any outer family, options, marks, reserved bits, ICMP errors.
fn decapsulate(packet: &mut Packet, cx: &mut Context<'_>) -> Result<(), DropReason> {
    let tables = cx.tables;
    let local = tables.vxlan.ok_or(DropReason::NotOurVtep)?;
    let outer = outer::read(packet.frame.data())?;
    match outer.payload {
        Payload::Vxlan { destination_port } if destination_port == local.port => {}
        Payload::Vxlan { .. } => return Err(DropReason::NotOurVtep),
        Payload::TooBig { mtu, quote } => {
            let message = &packet.frame.data()[..outer.end];
            return Err(path_mtu::learn(message, quote, mtu, tables, cx.flows.seed(), cx.now_ms));
        }
    }
    let mac = outer.local_mac(&local).ok_or(DropReason::NotOurVtep)?;
    check_checksum(&outer, packet.offload.checksum)?;
    let header = packet
        .frame
        .data()
        .get(outer.header_len..outer.end)
        .and_then(|rest| rest.first_chunk::<{ vxlan::LEN }>());
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
    if !packet.frame.set_len(outer.end) {
        return Err(DropReason::MalformedOuter);
    }
    uncover(packet, front, vtep)?;
    check_inner(packet, mac.0)?;
    propagate(packet, outer.tos, tables)
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

/// Removes `front` bytes of outer headers. Offload offsets move with the start of the frame; what concerned the outer
/// headers is gone with them.
#[inline(always)]
fn uncover(packet: &mut Packet, front: usize, vtep: u32) -> Result<(), DropReason> {
    if !packet.frame.trim_front(front) {
        return Err(DropReason::MalformedOuter);
    }
    let offload = &mut packet.offload;
    match &mut offload.checksum {
        Checksum::Partial { start, .. } if usize::from(*start) >= front => *start -= front as u16,
        // The outer checksum was the unfinished one; the inner ones were finished before encapsulation.
        checksum @ Checksum::Partial { .. } => *checksum = Checksum::Complete,
        Checksum::Complete | Checksum::Verified => {}
    }
    // A run of datagrams under one outer header, rather than a super-frame in a tunnel, cannot be taken apart here.
    if offload.gso.is_some() && offload.tunnel.take().is_none() {
        return Err(DropReason::OffloadUnsupported);
    }
    packet.source = Source::Vtep(vtep);
    Ok(())
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
