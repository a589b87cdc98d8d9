//! Out of the tunnel, and ICMP errors about what we sent into it.

use std::net::IpAddr;

use super::parse::{Ip, Piece, v4_address, v6_address, with_checksum, word};
use super::{Reference, find_vtep, has_underlay};
use crate::spec::{DscpMode, NodeSpec, Vtep};
use crate::testing::verify::checksum;
use crate::verdict::DropReason;

const BAD: DropReason = DropReason::MalformedOuter;

/// An outer packet.
struct Outer<'a> {
    source: IpAddr,
    destination: IpAddr,
    v6: bool,
    tos: u8,
    protocol: u8,
    /// What follows its IP header.
    body: &'a [u8],
}

impl<'a> Outer<'a> {
    fn read(frame: &'a [u8]) -> Option<Self> {
        let ether_type = [*frame.get(12)?, *frame.get(13)?];
        let packet = &frame[14..];
        let version = packet.first()? >> 4;
        match (ether_type, version) {
            ([0x08, 0x00], 4) if packet.len() >= 20 => {
                let header_len = usize::from(packet[0] & 15) * 4;
                let len = usize::from(word(packet, 2));
                let whole = word(packet, 6) & 0x3fff == 0;
                if header_len < 20 || len < header_len || !whole {
                    return None;
                }
                let body = packet.get(header_len..len)?;
                let (source, destination) = (v4_address(packet, 12), v4_address(packet, 16));
                Some(Self { source, destination, v6: false, tos: packet[1], protocol: packet[9], body })
            }
            ([0x86, 0xdd], 6) if packet.len() >= 40 => {
                let body = packet.get(40..40 + usize::from(word(packet, 4)))?;
                let (source, destination) = (v6_address(packet, 8), v6_address(packet, 24));
                let tos = (word(packet, 0) >> 4) as u8;
                Some(Self { source, destination, v6: true, tos, protocol: packet[6], body })
            }
            _ => None,
        }
    }
}

impl Reference {
    /// The inner frame and its VTEP. A too-big message ends here, and may lower a path MTU.
    pub(super) fn decapsulate(
        &mut self,
        spec: &NodeSpec,
        frame: &[u8],
        now_ms: u64,
    ) -> Result<(Vec<u8>, Vtep), DropReason> {
        let vxlan = spec.vxlan.ok_or(DropReason::NotOurVtep)?;
        let outer = Outer::read(frame).ok_or(BAD)?;
        if outer.body.len() < 8 {
            return Err(BAD);
        }
        match (outer.protocol, outer.v6) {
            (17, _) => {}
            (1, false) if outer.body[..2] == [3, 4] => {
                let mtu = u32::from(word(outer.body, 6));
                return Err(self.too_big(spec, &outer.body[8..], mtu, now_ms));
            }
            (58, true) if outer.body[..2] == [2, 0] => {
                let mtu = u32::from(word(outer.body, 4)) << 16 | u32::from(word(outer.body, 6));
                return Err(self.too_big(spec, &outer.body[8..], mtu, now_ms));
            }
            _ => return Err(BAD),
        }
        let udp =
            outer.body.get(..usize::from(word(outer.body, 4))).filter(|udp| udp.len() >= 8).ok_or(BAD)?;
        let ours = match outer.destination {
            IpAddr::V4(to) => vxlan.v4.filter(|local| local.address == to).map(|local| local.mac),
            IpAddr::V6(to) => vxlan.v6.filter(|local| local.address == to).map(|local| local.mac),
        };
        if word(udp, 2) != vxlan.port {
            return Err(DropReason::NotOurVtep);
        }
        let mac = ours.ok_or(DropReason::NotOurVtep)?;
        if outer.v6 && word(udp, 6) == 0 {
            return Err(DropReason::OuterZeroChecksumV6);
        }
        if udp.len() < 16 {
            return Err(BAD);
        }
        if udp[8] & 0x08 == 0 {
            return Err(DropReason::VxlanNoVni);
        }
        if udp[12..15] != vxlan.vni.octets() {
            return Err(DropReason::UnknownVni);
        }
        let vtep = find_vtep(spec, outer.source).ok_or(DropReason::UnknownVtep)?;
        let mut inner = udp[16..].to_vec();
        if inner.len() < 14 {
            return Err(DropReason::MalformedEthernet);
        }
        if inner[..6] != mac.0 {
            return Err(DropReason::InnerMac);
        }
        match [inner[12], inner[13]] {
            [0x08, 0x00] | [0x86, 0xdd] => {}
            [0x81, 0x00] | [0x88, 0xa8] => return Err(DropReason::VlanTag),
            _ => return Err(DropReason::UnknownEtherType),
        }
        if inner.len() >= 14 + 20 {
            let packet = mark(&inner[14..], inner[12] == 0x08, outer.tos, spec.settings.dscp)?;
            inner.truncate(14);
            inner.extend(packet);
        }
        Ok((inner, vtep))
    }

    fn too_big(&mut self, spec: &NodeSpec, quote: &[u8], mtu: u32, now_ms: u64) -> DropReason {
        let Some(outer) = self.about(spec, quote) else { return DropReason::PathMtuForged };
        let overhead = if outer.is_ipv4() { 50 } else { 70 };
        let limit = mtu.clamp(1280, 65_535) as u16 - overhead;
        if find_vtep(spec, outer).is_some_and(|vtep| has_underlay(spec, &vtep)) {
            self.lower_path_mtu(outer, limit, now_ms);
        }
        DropReason::PathMtuLearnt
    }

    /// The VTEP that a quoted packet was sent to, if it was we who sent it.
    fn about(&self, spec: &NodeSpec, quote: &[u8]) -> Option<IpAddr> {
        let vxlan = spec.vxlan?;
        let v6 = quote.first()? >> 4 == 6;
        let ip = quote.get(..if v6 { 40 } else { 20 })?;
        let (source, destination, protocol, header_len) = match ip[0] >> 4 {
            4 => (v4_address(ip, 12), v4_address(ip, 16), ip[9], usize::from(ip[0] & 15) * 4),
            6 => (v6_address(ip, 8), v6_address(ip, 24), ip[6], 40),
            _ => return None,
        };
        let ours = match source {
            IpAddr::V4(a) => vxlan.v4.is_some_and(|local| local.address == a),
            IpAddr::V6(a) => vxlan.v6.is_some_and(|local| local.address == a),
        };
        let udp = quote.get(header_len..)?;
        let inner = udp.get(8 + 8 + 14..)?;
        let vni = udp[8] & 8 != 0 && udp[12..15] == vxlan.vni.octets();
        let inner = Ip::quoted(inner)?;
        // Pieces of a datagram have one port, which every one of them tells.
        let whole = inner.piece == Piece::Whole;
        let flow = if whole { inner.flow_key() } else { inner.flow_key().of_pieces() };
        let secret = 0xc000 | (flow.hash(self.seed) >> 48) as u16 & 0x3fff;
        let genuine = ours && protocol == 17 && word(udp, 2) == vxlan.port && vni && word(udp, 0) == secret;
        genuine.then_some(destination).filter(|outer| find_vtep(spec, *outer).is_some())
    }
}

/// RFC 6040 figure 4, by inner and outer ECN field; 4 = drop.
const DECAPSULATED: [[u8; 4]; 4] = [[0, 0, 0, 4], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];

/// The inner packet with the congestion mark, and in uniform mode the DSCP, of the outer one.
fn mark(packet: &[u8], v4: bool, outer_tos: u8, dscp: DscpMode) -> Result<Vec<u8>, DropReason> {
    let mut packet = packet.to_vec();
    let tos = if v4 { packet[1] } else { (word(&packet, 0) >> 4) as u8 };
    let ecn = DECAPSULATED[usize::from(tos & 3)][usize::from(outer_tos & 3)];
    if ecn == 4 {
        return Err(DropReason::EcnDecap);
    }
    let dscp = if dscp == DscpMode::Uniform { outer_tos } else { tos };
    let new = dscp & 0xfc | ecn;
    if new == tos {
        return Ok(packet);
    }
    if !v4 {
        (packet[0], packet[1]) = (packet[0] & 0xf0 | new >> 4, packet[1] & 0x0f | new << 4);
        return Ok(packet);
    }
    // A wrong header stays wrong.
    let header = packet.get(..usize::from(packet[0] & 15) * 4).filter(|header| header.len() >= 20);
    let readable = packet[0] >> 4 == 4 && header.is_some();
    let right = header.is_some_and(|header| checksum(header) == 0);
    packet[1] = new;
    if readable {
        packet = with_checksum(packet);
        packet[10] ^= u8::from(!right);
    }
    Ok(packet)
}
