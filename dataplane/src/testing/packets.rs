//! Packets made byte by byte, finished checksums included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::net::{Mac, Vni};
use crate::wire::vxlan;

/// IP protocol numbers used in tests.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;
/// See [`ICMP`].
pub const SCTP: u8 = 132;

/// What an IP packet is made of; change the fields that a test is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Sender; the family of the packet.
    pub source: IpAddr,
    /// Receiver, of the same family.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4: DF bit.
    pub dont_fragment: bool,
    /// IPv4: more-fragments bit and offset in units of 8 bytes.
    pub fragment: (bool, u16),
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

/// A UDP packet with `len` bytes of payload.
pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), len: usize) -> Ip {
    let mut payload = vec![0; 8 + len];
    payload[..2].copy_from_slice(&source.1.to_be_bytes());
    payload[2..4].copy_from_slice(&destination.1.to_be_bytes());
    payload[4..6].copy_from_slice(&((8 + len) as u16).to_be_bytes());
    for (i, byte) in payload[8..].iter_mut().enumerate() {
        *byte = i as u8;
    }
    Ip::new(source.0, destination.0, UDP, payload).finished()
}

/// A TCP segment with these flags and `len` bytes of payload.
pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8, len: usize) -> Ip {
    let mut payload = vec![0; 20 + len];
    payload[..2].copy_from_slice(&source.1.to_be_bytes());
    payload[2..4].copy_from_slice(&destination.1.to_be_bytes());
    payload[12] = 0x50;
    payload[13] = flags;
    payload[14..16].copy_from_slice(&[0xff, 0xff]);
    Ip::new(source.0, destination.0, TCP, payload).finished()
}

/// An SCTP packet with these chunks, four bytes each (their contents and the checksum are nobody's business here).
pub fn sctp(source: (IpAddr, u16), destination: (IpAddr, u16), chunks: &[u8]) -> Ip {
    let mut payload = vec![0; 12];
    payload[..2].copy_from_slice(&source.1.to_be_bytes());
    payload[2..4].copy_from_slice(&destination.1.to_be_bytes());
    payload.extend(chunks.iter().flat_map(|kind| [*kind, 0, 0, 4]));
    Ip::new(source.0, destination.0, SCTP, payload)
}

/// An echo request with this identifier.
pub fn ping(source: IpAddr, destination: IpAddr, id: u16) -> Ip {
    let (protocol, kind) = if source.is_ipv4() { (ICMP, 8) } else { (ICMPV6, 128) };
    let mut payload = vec![0; 8 + 56];
    payload[0] = kind;
    payload[4..6].copy_from_slice(&id.to_be_bytes());
    Ip::new(source, destination, protocol, payload).finished()
}

impl Ip {
    /// A whole packet with TTL 64.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        let (ttl, tos, dont_fragment, fragment) = (64, 0, false, (false, 0));
        Self { source, destination, protocol, ttl, tos, dont_fragment, fragment, payload }
    }

    /// With its transport checksum filled in.
    pub fn finished(mut self) -> Self {
        let at = match self.protocol {
            TCP => 16,
            UDP => 6,
            ICMP | ICMPV6 => 2,
            _ => return self,
        };
        self.payload[at..at + 2].fill(0);
        let pseudo = if self.protocol == ICMP { 0 } else { self.pseudo_sum() };
        let sum = checksum::sum(&self.payload, pseudo);
        let field = if self.protocol == UDP { checksum::finish_udp(sum) } else { checksum::finish(sum) };
        self.payload[at..at + 2].copy_from_slice(&field.to_be_bytes());
        self
    }

    fn pseudo_sum(&self) -> u64 {
        let len = self.payload.len() as u32;
        match (self.source, self.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => checksum::pseudo_v4(s.octets(), d.octets(), self.protocol, len),
            (IpAddr::V6(s), IpAddr::V6(d)) => checksum::pseudo_v6(s.octets(), d.octets(), self.protocol, len),
            _ => panic!("two families in one packet"),
        }
    }

    /// The IP packet.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => self.v4(s, d),
            (IpAddr::V6(s), IpAddr::V6(d)) => self.v6(s, d),
            _ => panic!("two families in one packet"),
        }
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut bytes = vec![0x45, self.tos];
        bytes.extend(((20 + self.payload.len()) as u16).to_be_bytes());
        bytes.extend([0x12, 0x34]);
        let pieces = u16::from(self.dont_fragment) << 14 | u16::from(self.fragment.0) << 13 | self.fragment.1;
        bytes.extend(pieces.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        let field = checksum::finish(checksum::sum(&bytes, 0));
        bytes[10..12].copy_from_slice(&field.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut bytes = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
        bytes.extend((self.payload.len() as u16).to_be_bytes());
        bytes.extend([self.protocol, self.ttl]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet behind an Ethernet header.
    pub fn frame(&self, destination: Mac, source: Mac) -> Vec<u8> {
        let ether_type = if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&destination.0[..], &source.0, &ether_type, &self.bytes()].concat()
    }
}

/// An inner frame inside VXLAN, as a peer sends it: zero UDP checksum over IPv4, a valid one over IPv6.
pub fn encapsulated(outer: (IpAddr, IpAddr), port: u16, vni: Vni, tos: u8, inner: &[u8]) -> Vec<u8> {
    let body = [&vxlan::Header::write(vni)[..], inner].concat();
    let mut packet = udp((outer.0, 40_000), (outer.1, port), body.len());
    packet.payload[8..].copy_from_slice(&body);
    packet.payload[6..8].fill(0);
    packet.tos = tos;
    if outer.0.is_ipv6() {
        packet = packet.finished();
    }
    packet.frame(Mac::ZERO, Mac::ZERO)
}
