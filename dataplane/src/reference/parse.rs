//! Reading packets, one field after the other.

use std::net::IpAddr;

use crate::testing::verify::checksum;
use crate::verdict::DropReason;

/// Which piece of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The one with the transport header.
    First,
    /// Another.
    Later,
}

/// A well-formed IP packet behind an Ethernet header.
#[derive(Clone, Debug)]
pub struct Ip {
    pub v6: bool,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Of the transport.
    pub protocol: u8,
    pub ttl: u8,
    /// Bytes of the IP packet.
    pub len: usize,
    /// Bytes in front of the transport header, from the first of the IP packet.
    pub header_len: usize,
    pub piece: Piece,
    pub dont_fragment: bool,
    /// Source and destination, where the transport has any.
    pub ports: (u16, u16),
    /// TCP flags, ICMP type, or the SCTP chunk that matters.
    pub detail: u8,
    /// ICMP code.
    pub code: u8,
    /// Which datagram it is a piece of.
    pub id: u32,
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn v4_address(bytes: &[u8], at: usize) -> IpAddr {
    IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn v6_address(bytes: &[u8], at: usize) -> IpAddr {
    IpAddr::from(std::array::from_fn::<u8, 16, _>(|i| bytes[at + i]))
}

impl Ip {
    pub fn v4(frame: &[u8]) -> Result<Self, DropReason> {
        let bad = DropReason::MalformedIpv4;
        let packet = &frame[14..];
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            return Err(bad);
        }
        let header_len = usize::from(packet[0] & 15) * 4;
        let len = usize::from(word(packet, 2));
        if header_len < 20 || len < header_len || len > packet.len() {
            return Err(bad);
        }
        let mut at = 20;
        while at < header_len {
            match packet[at] {
                0 => break,
                1 => at += 1,
                131 | 137 => return Err(DropReason::SourceRouted),
                _ => {
                    let option_len = if at + 1 < header_len { usize::from(packet[at + 1]) } else { 0 };
                    if option_len < 2 || at + option_len > header_len {
                        return Err(bad);
                    }
                    at += option_len;
                }
            }
        }
        if checksum(&packet[..header_len]) != 0 {
            return Err(bad);
        }
        let protocol = packet[9];
        let offset = word(packet, 6) & 0x1fff;
        let more = word(packet, 6) & 0x2000 != 0;
        let piece = if offset > 0 {
            Piece::Later
        } else if more {
            Piece::First
        } else {
            Piece::Whole
        };
        if offset == 1 && protocol == 6 {
            return Err(DropReason::TinyFragment);
        }
        let Transport { ports, detail, code } = transport(&packet[header_len..len], protocol, piece)?;
        Ok(Self {
            v6: false,
            source: v4_address(packet, 12),
            destination: v4_address(packet, 16),
            protocol,
            ttl: packet[8],
            len,
            header_len,
            piece,
            dont_fragment: word(packet, 6) & 0x4000 != 0,
            ports,
            detail,
            code,
            id: word(packet, 4).into(),
        })
    }

    pub fn v6(frame: &[u8]) -> Result<Self, DropReason> {
        let bad = DropReason::MalformedIpv6;
        let packet = &frame[14..];
        if packet.len() < 40 || packet[0] >> 4 != 6 {
            return Err(bad);
        }
        let len = 40 + usize::from(word(packet, 4));
        let packet = packet.get(..len).ok_or(bad)?;
        let Chain { protocol, at, piece, id } = chain(packet)?;
        let Transport { ports, detail, code } = transport(&packet[at..], protocol, piece)?;
        Ok(Self {
            v6: true,
            source: v6_address(packet, 8),
            destination: v6_address(packet, 24),
            protocol,
            ttl: packet[7],
            len,
            header_len: at,
            piece,
            dont_fragment: true,
            ports,
            detail,
            code,
            id,
        })
    }

    /// The packet that an ICMP error quotes, which may end anywhere behind its ports.
    pub fn quoted(packet: &[u8]) -> Option<Self> {
        let v6 = packet.first()? >> 4 == 6;
        let (protocol, at, piece) = if v6 {
            if packet.len() < 40 {
                return None;
            }
            let Chain { protocol, at, piece, .. } = chain(packet).ok()?;
            (protocol, at, piece)
        } else {
            if packet[0] >> 4 != 4 || packet.len() < 20 || packet[0] & 15 < 5 {
                return None;
            }
            let piece = match (word(packet, 6) & 0x1fff, packet[6] & 0x20) {
                (0, 0) => Piece::Whole,
                (0, _) => Piece::First,
                _ => Piece::Later,
            };
            (packet[9], usize::from(packet[0] & 15) * 4, piece)
        };
        let address =
            |v4: usize, v6_at: usize| if v6 { v6_address(packet, v6_at) } else { v4_address(packet, v4) };
        let (source, destination) = (address(12, 8), address(16, 24));
        let rest = packet.get(at..)?;
        let named = is_named(protocol) && piece != Piece::Later;
        if named && rest.len() < 8 {
            return None;
        }
        let Transport { ports, detail, code } =
            if named { facts(rest, protocol) } else { Transport::default() };
        let (ttl, len, dont_fragment, id) = (0, packet.len(), false, 0);
        Some(Self {
            v6,
            source,
            destination,
            protocol,
            ttl,
            len,
            header_len: at,
            piece,
            dont_fragment,
            ports,
            detail,
            code,
            id,
        })
    }

    /// A piece without what its connection is known by: ports, type, or even the transport's number.
    pub fn is_nameless(&self) -> bool {
        let extension = self.v6 && matches!(self.protocol, 0 | 43 | 44 | 51 | 60);
        self.piece == Piece::Later && (extension || is_named(self.protocol))
    }
}

/// Where the chain of IPv6 extension headers ends.
struct Chain {
    protocol: u8,
    at: usize,
    piece: Piece,
    id: u32,
}

/// Walks the extension headers; the packet has at least a whole IPv6 header.
fn chain(packet: &[u8]) -> Result<Chain, DropReason> {
    let (bad, len) = (DropReason::MalformedIpv6, packet.len());
    let (mut protocol, mut at, mut piece, mut id) = (packet[6], 40, Piece::Whole, 0);
    let mut extensions = 0;
    while matches!(protocol, 0 | 43 | 44 | 51 | 60) && piece != Piece::Later {
        if protocol == 0 && extensions > 0 || len < at + 4 {
            return Err(bad);
        }
        if protocol == 43 && packet[at + 2] == 0 && packet[at + 3] > 0 {
            return Err(DropReason::SourceRouted);
        }
        if protocol == 44 && piece != Piece::Whole {
            return Err(bad);
        }
        let size = match protocol {
            44 => 8,
            51 => (usize::from(packet[at + 1]) + 2) * 4,
            _ => (usize::from(packet[at + 1]) + 1) * 8,
        };
        if protocol == 44 {
            if len < at + 8 {
                return Err(bad);
            }
            id = u32::from(word(packet, at + 4)) << 16 | u32::from(word(packet, at + 6));
            piece = match (word(packet, at + 2) >> 3, packet[at + 3] & 1) {
                (0, 0) => Piece::Whole,
                (0, _) => Piece::First,
                _ => Piece::Later,
            };
        }
        protocol = packet[at];
        at += size;
        extensions += 1;
        // More than eight: nobody needs them.
        let walked_on = piece != Piece::Later;
        if at > len || extensions > 8 && walked_on {
            return Err(bad);
        }
    }
    Ok(Chain { protocol, at, piece, id })
}

/// Is a connection of this protocol known by more than its addresses?
fn is_named(protocol: u8) -> bool {
    matches!(protocol, 1 | 6 | 17 | 58 | 132 | 136)
}

/// What a transport header says.
#[derive(Clone, Copy, Debug, Default)]
struct Transport {
    ports: (u16, u16),
    detail: u8,
    code: u8,
}

/// Checks the transport header, the packet's rest.
fn transport(bytes: &[u8], protocol: u8, piece: Piece) -> Result<Transport, DropReason> {
    if piece == Piece::Later {
        return Ok(Transport::default());
    }
    let least = match protocol {
        6 => 20,
        132 => 16,
        1 | 17 | 58 | 136 => 8,
        _ => return Ok(Transport::default()),
    };
    let whole = match protocol {
        _ if bytes.len() < least => false,
        6 => (20..=bytes.len()).contains(&(usize::from(bytes[12] >> 4) * 4)),
        17 => word(bytes, 4) >= 8 && (usize::from(word(bytes, 4)) <= bytes.len() || piece == Piece::First),
        _ => true,
    };
    match (whole, piece) {
        (false, Piece::First) => Err(DropReason::TinyFragment),
        (false, _) => Err(DropReason::MalformedTransport),
        (true, _) => Ok(facts(bytes, protocol)),
    }
}

/// What the header says; at least eight bytes of it are there.
fn facts(bytes: &[u8], protocol: u8) -> Transport {
    let (kind, code) = (bytes[0], bytes[1]);
    match (protocol, kind) {
        (1, 0 | 8) | (58, 128 | 129) => {
            Transport { ports: (word(bytes, 4), word(bytes, 4)), detail: kind, code }
        }
        (1 | 58, _) => Transport { ports: (0, 0), detail: kind, code },
        _ => {
            let detail = match protocol {
                6 if bytes.len() > 13 => bytes[13],
                132 => chunk(&bytes[12.min(bytes.len())..]),
                _ => 0,
            };
            Transport { ports: (word(bytes, 0), word(bytes, 2)), detail, code: 0 }
        }
    }
}

/// Of the first four chunks of SCTP the first that is more than data and acknowledgements of data, or else the first.
fn chunk(chunks: &[u8]) -> u8 {
    let mut kinds = Vec::new();
    let mut at = 0;
    while kinds.len() < 4 && at + 4 <= chunks.len() {
        kinds.push(chunks[at]);
        let len = usize::from(word(chunks, at + 2));
        if len == 0 {
            break;
        }
        at += len.div_ceil(4) * 4;
    }
    let control = kinds.iter().find(|kind| !matches!(kind, 0 | 3));
    *control.or(kinds.first()).unwrap_or(&0)
}

/// The packet with another TTL, and with a right header checksum if that was right.
pub fn with_ttl(packet: &[u8], ttl: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    packet[at] = ttl;
    with_checksum(packet)
}

/// The packet with its IPv4 header checksum written anew; IPv6 has none.
pub fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        let header_len = usize::from(packet[0] & 15) * 4;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..header_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}
