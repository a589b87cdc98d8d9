//! The outer headers of what arrives from the underlay: VXLAN datagrams, and ICMP errors about those we sent.

use std::net::IpAddr;

use crate::net::Mac;
use crate::spec::Vxlan;
use crate::verdict::DropReason;

const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const BAD: DropReason = DropReason::MalformedOuter;

/// Outer headers, read and checked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Over IPv6.
    pub is_v6: bool,
    /// TOS or traffic class.
    pub tos: u8,
    /// UDP checksum field.
    pub udp_checksum: u16,
    /// Bytes up to the UDP payload.
    pub header_len: usize,
    /// Where the datagram ends in the frame.
    pub end: usize,
    /// What it is.
    pub payload: Payload,
}

/// What the outer packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A UDP datagram.
    Vxlan {
        /// Where to.
        destination_port: u16,
    },
    /// ICMP fragmentation needed (RFC 792, 1191) or ICMPv6 packet too big (RFC 4443 §3.2).
    TooBig {
        /// MTU of the next hop; 0 = not said.
        mtu: u32,
        /// Where the quoted packet begins in the frame.
        quote: usize,
    },
}

impl Outer {
    /// The Ethernet address of our VTEP at this packet's destination; `None` when it is not addressed to our VTEP.
    #[inline]
    pub fn local_mac(&self, local: &Vxlan) -> Option<Mac> {
        match self.destination {
            IpAddr::V4(to) => local.v4.filter(|vtep| vtep.address == to).map(|vtep| vtep.mac),
            IpAddr::V6(to) => local.v6.filter(|vtep| vtep.address == to).map(|vtep| vtep.mac),
        }
    }
}

/// Reads the outer headers of `frame`. The IP header checksum is the kernel's to check on real interfaces; lengths are ours.
#[inline]
pub fn read(frame: &[u8]) -> Result<Outer, DropReason> {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => read_v4(frame),
        Some([0x86, 0xdd]) => read_v6(frame),
        _ => Err(BAD),
    }
}

fn read_v4(frame: &[u8]) -> Result<Outer, DropReason> {
    let ip: &[u8; 20] = frame[14..].first_chunk().ok_or(BAD)?;
    let header_len = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    // A fragment never gets here by an honest way: the steering program leaves them to the kernel.
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    let end = 14 + total;
    if ip[0] >> 4 != 4 || header_len < 20 || total < header_len + 8 || end > frame.len() || fragment {
        return Err(BAD);
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
    let (source, destination) = (IpAddr::from([s0, s1, s2, s3]), IpAddr::from([d0, d1, d2, d3]));
    let at = 14 + header_len;
    let base = Base { source, destination, is_v6: false, tos: ip[1], at, end };
    match ip[9] {
        UDP => datagram(frame, base),
        ICMP => too_big(frame, base, [3, 4]),
        _ => Err(BAD),
    }
}

fn read_v6(frame: &[u8]) -> Result<Outer, DropReason> {
    let ip: &[u8; 40] = frame[14..].first_chunk().ok_or(BAD)?;
    let end = 54 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if ip[0] >> 4 != 6 || end > frame.len() || end < 54 + 8 {
        return Err(BAD);
    }
    let source: [u8; 16] = *ip[8..24].first_chunk().ok_or(BAD)?;
    let destination: [u8; 16] = *ip[24..40].first_chunk().ok_or(BAD)?;
    let (source, destination) = (IpAddr::from(source), IpAddr::from(destination));
    let base = Base { source, destination, is_v6: true, tos: ip[0] << 4 | ip[1] >> 4, at: 54, end };
    match ip[6] {
        UDP => datagram(frame, base),
        ICMPV6 => too_big(frame, base, [2, 0]),
        _ => Err(BAD),
    }
}

struct Base {
    source: IpAddr,
    destination: IpAddr,
    is_v6: bool,
    tos: u8,
    at: usize,
    end: usize,
}

#[inline]
fn datagram(frame: &[u8], base: Base) -> Result<Outer, DropReason> {
    let udp: &[u8; 8] = frame[base.at..base.end].first_chunk().ok_or(BAD)?;
    let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    if len < 8 || base.at + len > base.end {
        return Err(BAD);
    }
    Ok(Outer {
        source: base.source,
        destination: base.destination,
        is_v6: base.is_v6,
        tos: base.tos,
        udp_checksum: u16::from_be_bytes([udp[6], udp[7]]),
        header_len: base.at + 8,
        end: base.at + len,
        payload: Payload::Vxlan { destination_port: u16::from_be_bytes([udp[2], udp[3]]) },
    })
}

fn too_big(frame: &[u8], base: Base, wanted: [u8; 2]) -> Result<Outer, DropReason> {
    let icmp: &[u8; 8] = frame[base.at..base.end].first_chunk().ok_or(BAD)?;
    if icmp[..2] != wanted {
        return Err(BAD);
    }
    let low = u32::from(u16::from_be_bytes([icmp[6], icmp[7]]));
    let mtu = if base.is_v6 { u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]) } else { low };
    Ok(Outer {
        source: base.source,
        destination: base.destination,
        is_v6: base.is_v6,
        tos: base.tos,
        udp_checksum: 0,
        header_len: base.at + 8,
        end: base.end,
        payload: Payload::TooBig { mtu, quote: base.at + 8 },
    })
}
