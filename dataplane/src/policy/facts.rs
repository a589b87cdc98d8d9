//! What rules may ask of a packet.

use std::net::IpAddr;

use crate::net::{Direction, FlowKey};
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

    /// About a packet that goes this way through its connection: see [`crate::packet::Asked`].
    #[inline]
    pub fn of(key: &FlowKey, direction: Direction) -> Self {
        let (source, destination) = key.ends(direction);
        Self {
            source: source.0,
            destination: destination.0,
            protocol: key.protocol(),
            transport: Transport::of(key, direction),
        }
    }
}

impl Transport {
    /// Of a packet that goes this way through its connection. ICMP: of the question, also for an answer.
    #[inline]
    pub fn of(key: &FlowKey, direction: Direction) -> Self {
        if key.is_fragment() {
            return Self::Unseen;
        }
        match (Shape::of(key.protocol(), key.is_v6()), key.icmp()) {
            (Shape::Ports, _) => {
                let (source, destination) = key.ends(direction);
                Self::Ports(source.1, destination.1)
            }
            (Shape::Icmp, Some((kind, code))) => Self::Icmp(kind, code),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_those_of_the_way_that_is_asked_about() {
        let (key, forth) = FlowKey::v4(0x0a00_0001, 0x0a00_0002, (1000, 53), 17, false);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let transport = Transport::Ports(1000, 53);
        assert_eq!(Facts::of(&key, forth), Facts { source: a, destination: b, protocol: 17, transport });
        let transport = Transport::Ports(53, 1000);
        assert_eq!(
            Facts::of(&key, forth.flip()),
            Facts { source: b, destination: a, protocol: 17, transport }
        );
        let (echo, forth) = FlowKey::v4(1, 2, (7, 7), 1, false);
        let echo = echo.with_icmp(8, 0, forth);
        assert_eq!(Transport::of(&echo, forth.flip()), Transport::Icmp(8, 0));
        assert_eq!(Transport::of(&FlowKey::v4(1, 2, (0, 0), 47, false).0, forth), Transport::Other);
        assert_eq!(Transport::of(&FlowKey::v4(1, 2, (0, 0), 6, true).0, forth), Transport::Unseen);
    }
}
