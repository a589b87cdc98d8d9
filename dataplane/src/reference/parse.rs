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
        let ports = transport(&packet[header_len..len], protocol, piece)?;
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
        let (mut protocol, mut at, mut piece) = (packet[6], 40, Piece::Whole);
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
        let ports = transport(&packet[at..], protocol, piece)?;
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
        })
    }
}

/// Checks the transport header, the packet's rest; its ports, or the identifier of an echo.
fn transport(bytes: &[u8], protocol: u8, piece: Piece) -> Result<(u16, u16), DropReason> {
    if piece == Piece::Later {
        return Ok((0, 0));
    }
    let least = match protocol {
        6 => 20,
        132 => 12,
        1 | 17 | 58 | 136 => 8,
        _ => return Ok((0, 0)),
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
        (true, _) => Ok(ports(bytes, protocol)),
    }
}

/// The two numbers that name a connection beside the addresses.
pub fn ports(transport: &[u8], protocol: u8) -> (u16, u16) {
    match (protocol, transport[0]) {
        (6 | 17 | 132 | 136, _) => (word(transport, 0), word(transport, 2)),
        (1, 0 | 8) | (58, 128 | 129) => (word(transport, 4), word(transport, 4)),
        _ => (0, 0),
    }
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
