//! The bytes that leave, and which of them the dataplane may choose.

use std::net::IpAddr;

use super::Way;
use crate::port::Egress;
use crate::reply::GATEWAY_MAC;
use crate::spec::{DscpMode, NodeSpec, Vtep};
use crate::testing::verify::{self, Wrong};

/// The frame in which an IP packet goes this way; what [`mask`] zeroes is zero.
pub(super) fn leaving(spec: &NodeSpec, way: Way<'_>, ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
    match way {
        Way::Tunnel(vtep) => tunnelled(spec, vtep, ether_type, packet),
        Way::Workload(endpoint) => {
            let mac = endpoint.mac.map_or([0xff; 6], |mac| mac.0);
            [&mac[..], &GATEWAY_MAC.0, &ether_type, packet].concat()
        }
        Way::Host | Way::Direct { .. } | Way::Gateway { .. } | Way::Several(_) | Way::Nowhere(_) => {
            [&[0; 12][..], &ether_type, packet].concat()
        }
    }
}

pub(super) fn tunnelled(spec: &NodeSpec, vtep: &Vtep, ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
    let Some(vxlan) = spec.vxlan else { return Vec::new() };
    let mac = match vtep.outer {
        IpAddr::V4(_) => vxlan.v4.map(|local| local.mac),
        IpAddr::V6(_) => vxlan.v6.map(|local| local.mac),
    };
    let tos = if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
    let tos = if spec.settings.dscp == DscpMode::Uniform { tos } else { tos & 3 };
    let [a, b, c] = vxlan.vni.octets();
    let header = [8, 0, 0, 0, a, b, c, 0];
    let source = mac.map_or([0; 6], |mac| mac.0);
    let inner = [&header[..], &vtep.mac.0, &source, &ether_type, packet].concat();
    let udp_len = (8 + inner.len()) as u16;
    let udp = [&[0, 0][..], &vxlan.port.to_be_bytes(), &udp_len.to_be_bytes(), &[0, 0]].concat();
    let ttl = spec.settings.outer_ttl;
    let ip = match (vtep.outer, vxlan.v4, vxlan.v6) {
        (IpAddr::V4(outer), Some(local), _) => {
            let total = (20 + udp_len).to_be_bytes();
            let df = if spec.settings.outer_df { 0x40 } else { 0 };
            let fixed = [0x45, tos, total[0], total[1], 0, 0, df, 0, ttl, 17, 0, 0];
            [&[0x08, 0x00][..], &fixed, &local.address.octets(), &outer.octets()].concat()
        }
        (IpAddr::V6(outer), _, Some(local)) => {
            let len = udp_len.to_be_bytes();
            let fixed = [0x60 | tos >> 4, tos << 4, 0, 0, len[0], len[1], 17, ttl];
            [&[0x86, 0xdd][..], &fixed, &local.address.octets(), &outer.octets()].concat()
        }
        _ => return Vec::new(),
    };
    [&[0; 12][..], &ip, &udp, &inner].concat()
}

/// Why a sent packet cannot be compared: what the dataplane may choose was chosen wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmasked {
    /// The outer packet is not fit for the wire.
    #[error("the outer packet: {0}")]
    Outer(#[from] Wrong),
    /// The UDP source port is not in the dynamic range.
    #[error("the source port {0} is not in the dynamic range")]
    SourcePort(u16),
    /// There is an outer checksum and must be none, or the other way round.
    #[error("the presence of an outer UDP checksum is not as configured")]
    Checksum,
}

/// Checks, then zeroes, what the twin does not foretell: outer identification, header checksum, UDP source port and
/// checksum; and Ethernet addresses where they mean nothing.
///
/// # Errors
/// [`Unmasked`].
pub fn mask(spec: &NodeSpec, egress: Egress, mut packet: Vec<u8>) -> Result<Vec<u8>, Unmasked> {
    match egress {
        Egress::Workload(_) => return Ok(packet),
        Egress::Host | Egress::Direct(_) | Egress::Gateway { .. } => {
            packet[..12].fill(0);
            return Ok(packet);
        }
        Egress::Underlay => {}
    }
    verify::finished(&packet)?;
    let v4 = packet[12] == 0x08;
    let udp = if v4 { 34 } else { 54 };
    let port = u16::from_be_bytes([packet[udp], packet[udp + 1]]);
    if port < 49_152 {
        return Err(Unmasked::SourcePort(port));
    }
    let present = packet[udp + 6..udp + 8] != [0, 0];
    if present != (!v4 || spec.settings.outer_checksum_v4) {
        return Err(Unmasked::Checksum);
    }
    if v4 {
        packet[18..20].fill(0);
        packet[24..26].fill(0);
    }
    packet[udp..udp + 2].fill(0);
    packet[udp + 6..udp + 8].fill(0);
    Ok(packet)
}
