//! The tags by which one TAP device carries the traffic of many interfaces: Ethernet addresses with a meaning.
//!
//! `bpf/tags.h` holds the same numbers for the eBPF programs and explains them; a test compares the two.

use std::net::Ipv4Addr;

use canal_dataplane::net::Mac;
use canal_dataplane::port::{IfIndex, Ingress};

const FIRST: u8 = 0x02;
const OWN_FIRST: u8 = 0x06;
const FROM_WORKLOAD: u8 = 0xc1;
const FROM_UNDERLAY: u8 = 0xc2;
const FROM_DIRECT: u8 = 0xc3;
const FROM_GATEWAY: u8 = 0xc4;
const TO_WORKLOAD: u8 = 0xd1;
const TO_UNDERLAY: u8 = 0xd2;
const TO_NEXT_HOP: u8 = 0xd3;
const HOP_SELF: u8 = 0x00;
const HOP_V4: u8 = 0x04;
const HOP_V6: u8 = 0x06;

/// The TAP device's own address. It never leaves the host, so every host may have the same; its first octet keeps it
/// apart from all tags.
pub const DEVICE_MAC: Mac = Mac([OWN_FIRST, 0xca, 0x6e, 0x61, 0x6c, 0x00]);

/// Where a frame with source address `source` came from; `None` when nobody we know wrote that address.
#[inline]
pub fn ingress(source: [u8; 6], own: Mac) -> Option<Ingress> {
    let [first, kind, argument @ ..] = source;
    match (first, kind) {
        (FIRST, FROM_WORKLOAD) => Some(Ingress::Workload(IfIndex::from_be_bytes(argument))),
        (FIRST, FROM_UNDERLAY) => Some(Ingress::Underlay),
        (FIRST, FROM_DIRECT) => Some(Ingress::Direct),
        (FIRST, FROM_GATEWAY) => Some(Ingress::Gateway(IfIndex::from_be_bytes(argument))),
        _ if source == own.0 => Some(Ingress::Host),
        _ => None,
    }
}

const fn tag(kind: u8, [a, b, c, d]: [u8; 4]) -> [u8; 6] {
    [FIRST, kind, a, b, c, d]
}

/// Destination tag: to the workload behind `ifindex`, whose own address the sender puts into the source field.
#[inline]
pub const fn to_workload(ifindex: IfIndex) -> [u8; 6] {
    tag(TO_WORKLOAD, ifindex.to_be_bytes())
}

/// Destination tag: encapsulated, to the VTEP in the outer destination address.
#[inline]
pub const fn to_underlay() -> [u8; 6] {
    tag(TO_UNDERLAY, [0; 4])
}

/// Destination tag: plain, out of this gateway interface, or (0) of the underlay; the source field says to which next hop.
#[inline]
pub const fn to_next_hop(ifindex: IfIndex) -> [u8; 6] {
    tag(TO_NEXT_HOP, ifindex.to_be_bytes())
}

/// Which next hop, for the source field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The packet's own destination.
    Itself,
    /// This one.
    V4(Ipv4Addr),
    /// The one at this index of the programs' table.
    V6(u32),
}

impl Hop {
    /// The source field.
    #[inline]
    pub const fn field(self) -> [u8; 6] {
        let (how, [a, b, c, d]) = match self {
            Self::Itself => (HOP_SELF, [0; 4]),
            Self::V4(address) => (HOP_V4, address.octets()),
            Self::V6(index) => (HOP_V6, index.to_be_bytes()),
        };
        [how, 0, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c_define(name: &str) -> u8 {
        let header = include_str!("../../bpf/tags.h");
        let line = header.lines().find_map(|l| l.strip_prefix(&format!("#define {name} "))).expect(name);
        let number = line.split_whitespace().next().unwrap().strip_prefix("0x").unwrap();
        u8::from_str_radix(number, 16).unwrap()
    }

    #[test]
    fn the_c_header_has_the_same_numbers() {
        for (name, ours) in [
            ("CANAL_TAG_FIRST", FIRST),
            ("CANAL_OWN_FIRST", OWN_FIRST),
            ("CANAL_FROM_WORKLOAD", FROM_WORKLOAD),
            ("CANAL_FROM_UNDERLAY", FROM_UNDERLAY),
            ("CANAL_FROM_DIRECT", FROM_DIRECT),
            ("CANAL_TO_WORKLOAD", TO_WORKLOAD),
            ("CANAL_TO_UNDERLAY", TO_UNDERLAY),
            ("CANAL_FROM_GATEWAY", FROM_GATEWAY),
            ("CANAL_TO_NEXT_HOP", TO_NEXT_HOP),
            ("CANAL_HOP_SELF", HOP_SELF),
            ("CANAL_HOP_V4", HOP_V4),
            ("CANAL_HOP_V6", HOP_V6),
        ] {
            assert_eq!(c_define(name), ours, "{name}");
        }
    }

    #[test]
    fn every_way_in_has_its_tag_and_strangers_have_none() {
        let own = DEVICE_MAC;
        assert_eq!(ingress([2, 0xc1, 0x01, 0x02, 0x03, 0x04], own), Some(Ingress::Workload(0x0102_0304)));
        assert_eq!(ingress([2, 0xc2, 0, 0, 0, 9], own), Some(Ingress::Underlay));
        assert_eq!(ingress([2, 0xc3, 0, 0, 0, 9], own), Some(Ingress::Direct));
        assert_eq!(ingress([2, 0xc4, 0, 0, 1, 9], own), Some(Ingress::Gateway(0x109)));
        assert_eq!(ingress(own.0, own), Some(Ingress::Host));
        assert_eq!(ingress([2, 0xd1, 0, 0, 0, 9], own), None);
        assert_eq!(ingress([0x7e, 0xc1, 0, 0, 0, 9], own), None);
        assert_ne!(own.0[0], FIRST);
    }
}
