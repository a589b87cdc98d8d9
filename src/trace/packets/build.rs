//! From a description to bytes, checksums included.

use std::net::IpAddr;

use canal_dataplane::checksum;
use canal_dataplane::net::Mac;
use etherparse::{IpNumber, Ipv4Header, Ipv6Header};

use super::{Ends, PacketError};
use crate::trace::question::TcpFlags;

/// Chunk types of SCTP (RFC 9260 §3.2).
pub const DATA: u8 = 0;
/// Opens an association.
pub const INIT: u8 = 1;
/// See [`INIT`].
pub const INIT_ACK: u8 = 2;
/// See [`INIT`].
pub const COOKIE_ECHO: u8 = 10;
/// See [`INIT`].
pub const COOKIE_ACK: u8 = 11;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub ends: Ends,
    pub body: Body,
    pub ttl: u8,
    pub dont_fragment: bool,
    /// Of the whole packet; `None` = as short as can be.
    pub size: Option<u16>,
}

/// What follows the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        source_port: u16,
        port: u16,
        flags: TcpFlags,
    },
    Udp {
        source_port: u16,
        port: u16,
    },
    Sctp {
        source_port: u16,
        port: u16,
        chunk: u8,
    },
    /// `about` is quoted by errors.
    Icmp {
        kind: u8,
        code: u8,
        id: u16,
        about: Option<Box<Ip>>,
    },
    /// UDP without a checksum over IPv4.
    Vxlan {
        source_port: u16,
        port: u16,
        payload: Vec<u8>,
    },
    Other(u8),
}

/// The packet behind an Ethernet header.
pub fn frame(ip: &Ip, destination: Mac, source: Mac) -> Result<Vec<u8>, PacketError> {
    let ether_type = if ip.ends.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    Ok([&destination.0[..], &source.0, &ether_type, &bytes(ip)?].concat())
}

fn bytes(ip: &Ip) -> Result<Vec<u8>, PacketError> {
    let v6 = ip.ends.source.is_ipv6();
    let header_len = if v6 { Ipv6Header::LEN } else { Ipv4Header::MIN_LEN };
    let (protocol, mut payload) = ip.body.unfinished(v6)?;
    let (least, most) = (header_len + payload.len(), usize::from(u16::MAX));
    let size = ip.size.map_or(least, usize::from);
    if size < least || least > most {
        return Err(PacketError::Size { size: ip.size.unwrap_or(u16::MAX), least, most });
    }
    payload.resize(size - header_len, 0);
    ip.body.finish(&mut payload, ip.ends, protocol);
    let header = header(ip, protocol, payload.len() as u16).ok_or(PacketError::Size {
        size: ip.size.unwrap_or(u16::MAX),
        least,
        most,
    })?;
    Ok([header, payload].concat())
}

/// The IP header of a packet with this much behind it.
fn header(ip: &Ip, protocol: u8, len: u16) -> Option<Vec<u8>> {
    match (ip.ends.source, ip.ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let mut header = Ipv4Header::new(len, ip.ttl, IpNumber(protocol), source, destination).ok()?;
            header.dont_fragment = ip.dont_fragment;
            header.identification = 1;
            header.header_checksum = header.calc_header_checksum();
            Some(header.to_bytes().to_vec())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                payload_length: len,
                next_header: IpNumber(protocol),
                hop_limit: ip.ttl,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            Some(header.to_bytes().to_vec())
        }
        _ => unreachable!("the families of both ends have been compared"),
    }
}

impl Body {
    /// Protocol number, and the shortest form without lengths and checksums.
    fn unfinished(&self, v6: bool) -> Result<(u8, Vec<u8>), PacketError> {
        let ports =
            |source: u16, destination: u16| [source.to_be_bytes(), destination.to_be_bytes()].concat();
        Ok(match self {
            Self::Tcp { source_port, port, flags } => {
                // Sequence and acknowledgement 1, header of five words, any window.
                let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags.0, 0xff, 0xff, 0, 0, 0, 0];
                (TCP, [&ports(*source_port, *port)[..], &rest].concat())
            }
            Self::Udp { source_port, port } => (UDP, [&ports(*source_port, *port)[..], &[0; 4]].concat()),
            Self::Vxlan { source_port, port, payload } => {
                (UDP, [&ports(*source_port, *port)[..], &[0; 4], payload].concat())
            }
            Self::Sctp { source_port, port, chunk } => {
                // An INIT names a tag and no packet before it can have one (RFC 9260 §3.3.2).
                let tag: u32 = if *chunk == INIT { 0 } else { 1 };
                let body: &[u8] = match *chunk {
                    INIT | INIT_ACK => &[0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1],
                    DATA => &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                    _ => &[],
                };
                let flags = if *chunk == DATA { 3 } else { 0 };
                let head = [&ports(*source_port, *port)[..], &tag.to_be_bytes(), &[0; 4]].concat();
                (SCTP, [&head[..], &[*chunk, flags, 0, 4 + body.len() as u8], body].concat())
            }
            Self::Icmp { kind, code, id, about } => {
                let mut message = vec![*kind, *code, 0, 0];
                match about {
                    None => message.extend([id.to_be_bytes(), 1u16.to_be_bytes()].concat()),
                    Some(about) => {
                        message.extend([0; 4]);
                        message.extend(bytes(about)?);
                    }
                }
                (if v6 { ICMPV6 } else { ICMP }, message)
            }
            Self::Other(protocol) => (*protocol, Vec::new()),
        })
    }

    /// Fills in lengths and checksums, now that the payload is as long as it shall be.
    fn finish(&self, payload: &mut [u8], ends: Ends, protocol: u8) {
        let len = payload.len();
        let pseudo = match (ends.source, ends.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                checksum::pseudo_v4(s.octets(), d.octets(), protocol, len as u32)
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                checksum::pseudo_v6(s.octets(), d.octets(), protocol, len as u32)
            }
            _ => unreachable!("the families of both ends have been compared"),
        };
        let mut put = |at: usize, field: u16| payload[at..at + 2].copy_from_slice(&field.to_be_bytes());
        match self {
            Self::Udp { .. } | Self::Vxlan { .. } => put(4, len as u16),
            // The chunk that carries data is as long as the packet lets it be.
            Self::Sctp { chunk: DATA, .. } => put(14, (len - 12) as u16),
            _ => {}
        }
        let sum = |payload: &[u8], pseudo| checksum::sum(payload, pseudo);
        let (at, field) = match self {
            Self::Tcp { .. } => (16, checksum::finish(sum(payload, pseudo))),
            Self::Udp { .. } => (6, checksum::finish_udp(sum(payload, pseudo))),
            Self::Vxlan { .. } if ends.source.is_ipv6() => (6, checksum::finish_udp(sum(payload, pseudo))),
            Self::Icmp { .. } if protocol == ICMPV6 => (2, checksum::finish(sum(payload, pseudo))),
            Self::Icmp { .. } => (2, checksum::finish(sum(payload, 0))),
            Self::Sctp { .. } => {
                let crc = crc32c(payload).to_le_bytes();
                payload[8..12].copy_from_slice(&crc);
                return;
            }
            Self::Vxlan { .. } | Self::Other(_) => return,
        };
        payload[at..at + 2].copy_from_slice(&field.to_be_bytes());
    }
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: for one packet now and then.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    fn packet(v6: bool, body: Body, size: Option<u16>) -> Ip {
        let (source, destination) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
        let ends = Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
        Ip { ends, body, ttl: 9, dont_fragment: true, size }
    }

    fn bodies() -> Vec<(Body, usize)> {
        let about = packet(false, Body::Udp { source_port: 1, port: 2 }, None);
        vec![
            (Body::Tcp { source_port: 40_000, port: 80, flags: TcpFlags::SYN }, 20),
            (Body::Udp { source_port: 40_000, port: 53 }, 8),
            (Body::Sctp { source_port: 40_000, port: 5000, chunk: INIT }, 32),
            (Body::Sctp { source_port: 40_000, port: 5000, chunk: DATA }, 28),
            (Body::Icmp { kind: 8, code: 0, id: 7, about: None }, 8),
            (Body::Icmp { kind: 3, code: 1, id: 7, about: Some(Box::new(about)) }, 36),
            (Body::Other(47), 0),
        ]
    }

    #[test]
    fn another_reader_finds_every_packet_whole() {
        for v6 in [false, true] {
            for (body, least) in bodies() {
                for extra in [0, 1, 1000] {
                    let header = if v6 { 40 } else { 20 };
                    let size = header + least + extra;
                    let ip = packet(v6, body.clone(), Some(size as u16));
                    let built = frame(&ip, Mac::ZERO, Mac::ZERO).unwrap();
                    assert_eq!(built.len(), 14 + size, "{body:?}");
                    let seen = etherparse::SlicedPacket::from_ethernet(&built).unwrap();
                    let payload = seen.ip_payload().unwrap().payload;
                    let wrong = wrong_checksum(&ip, payload);
                    assert!(!wrong, "{body:?}, {extra} bytes more");
                }
                let short = packet(v6, body.clone(), Some((if v6 { 40 } else { 20 }) + least as u16 - 1));
                let refused = frame(&short, Mac::ZERO, Mac::ZERO);
                assert!(matches!(refused, Err(PacketError::Size { .. })), "{body:?}");
            }
        }
    }

    /// By the definition of each checksum: with the field in it, everything sums up to nothing.
    fn wrong_checksum(ip: &Ip, payload: &[u8]) -> bool {
        let len = payload.len() as u32;
        let pseudo = |protocol| match (ip.ends.source, ip.ends.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => checksum::pseudo_v4(s.octets(), d.octets(), protocol, len),
            (IpAddr::V6(s), IpAddr::V6(d)) => checksum::pseudo_v6(s.octets(), d.octets(), protocol, len),
            _ => panic!("two families"),
        };
        match ip.body {
            Body::Tcp { .. } => checksum::finish(checksum::sum(payload, pseudo(TCP))) != 0,
            Body::Udp { .. } | Body::Vxlan { .. } => {
                checksum::finish(checksum::sum(payload, pseudo(UDP))) != 0
                    || payload[4..6] != (payload.len() as u16).to_be_bytes()
            }
            Body::Icmp { .. } if ip.ends.source.is_ipv6() => {
                checksum::finish(checksum::sum(payload, pseudo(ICMPV6))) != 0
            }
            Body::Icmp { .. } => checksum::finish(checksum::sum(payload, 0)) != 0,
            Body::Sctp { .. } => {
                let blank = [&payload[..8], &[0; 4], &payload[12..]].concat();
                payload[8..12] != crc32c(&blank).to_le_bytes()
            }
            Body::Other(_) => false,
        }
    }

    #[test]
    fn a_packet_has_at_most_so_many_bytes() {
        let body = Body::Udp { source_port: 1, port: 2 };
        assert_eq!(bytes(&packet(false, body.clone(), Some(u16::MAX))).unwrap().len(), 65_535);
        assert_eq!(bytes(&packet(true, body, Some(u16::MAX))).unwrap().len(), 65_535);
        let payload = vec![0; 65_600];
        let vxlan = packet(false, Body::Vxlan { source_port: 1, port: 2, payload }, None);
        assert!(matches!(bytes(&vxlan), Err(PacketError::Size { .. })));
    }
}
