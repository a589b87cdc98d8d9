//! What rules may ask of a packet.

use std::net::IpAddr;

use crate::packet::{Fragment, Packet};
use crate::spec::policy::Family;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// The facts about one packet that a rule's criteria are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Sender.
    pub source: IpAddr,
    /// Receiver, of the same family.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// What its transport header says.
    pub transport: Transport,
}

/// The part of a transport header that rules may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, UDP, SCTP: source and destination port.
    Ports(u16, u16),
    /// ICMP over IPv4, ICMPv6 over IPv6: type and code.
    Icmp(u8, u8),
    /// A protocol that has neither.
    Other,
    /// It has ports or an ICMP type, and this piece of the packet does not say which: no rule that asks for them, be it
    /// to exclude some, matches.
    Unseen,
}

/// How a protocol's transport header looks to rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Ports,
    Icmp,
    Other,
}

impl Shape {
    /// Of a protocol over IPv6 or IPv4.
    #[inline]
    pub(crate) fn of(protocol: u8, v6: bool) -> Self {
        match protocol {
            TCP | UDP | SCTP => Self::Ports,
            ICMP if !v6 => Self::Icmp,
            ICMPV6 if v6 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

impl Facts {
    /// The family.
    pub fn family(&self) -> Family {
        if self.destination.is_ipv6() { Family::V6 } else { Family::V4 }
    }

    /// About a packet whose headers have been validated.
    pub fn of(packet: &Packet) -> Self {
        let headers = &packet.headers;
        let protocol = headers.protocol();
        Self {
            source: headers.source_address(),
            destination: headers.destination_address(),
            protocol,
            transport: Transport::of(packet),
        }
    }
}

impl Transport {
    /// Of a packet whose headers have been validated.
    #[inline]
    pub fn of(packet: &Packet) -> Self {
        let headers = &packet.headers;
        let shape = Shape::of(headers.protocol(), headers.is_v6());
        if shape == Shape::Other {
            return Self::Other;
        }
        // Flow keys of fragments hold no ports, so that all pieces have one key: the header itself is asked.
        let bytes = packet.frame.data().get(usize::from(headers.transport)..);
        match (shape, bytes.and_then(|rest| rest.first_chunk::<4>())) {
            _ if headers.fragment == Fragment::Later => Self::Unseen,
            (Shape::Ports, Some([a, b, c, d])) => {
                Self::Ports(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
            }
            (Shape::Icmp, Some([kind, code, ..])) => Self::Icmp(*kind, *code),
            _ => Self::Unseen,
        }
    }
}
