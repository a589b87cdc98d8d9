//! What the programs need to know, in the words of `struct canal_settings` (`bpf/common.h`).

use std::net::{Ipv4Addr, Ipv6Addr};

use canal_dataplane::net::HashSeed;
use canal_dataplane::port::IfIndex;

/// Pod subnets of one family that the underlay program knows (`CANAL_SUBNETS`).
pub const MAX_SUBNETS: usize = 4;
/// Size of the structure (`CANAL_SETTINGS_WORDS`; the C compiler checks it).
pub const WORDS: usize = 56;

/// What is ours on the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The interface.
    pub ifindex: IfIndex,
    /// Our VTEP's IPv4 address.
    pub vtep_v4: Option<Ipv4Addr>,
    /// Our VTEP's IPv6 address.
    pub vtep_v6: Option<Ipv6Addr>,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// Own pod subnets (address, prefix length) that peers with direct routing reach unencapsulated; at most
    /// [`MAX_SUBNETS`]. Empty: no direct routing.
    pub pod_subnets_v4: Vec<(Ipv4Addr, u8)>,
    /// The same for IPv6.
    pub pod_subnets_v6: Vec<(Ipv6Addr, u8)>,
    /// Peers with direct routing also send plain packets to hosts behind our gateways.
    pub plain_to_gateways: bool,
}

/// The settings that never change while the device lives.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// The TAP device.
    pub device: IfIndex,
    /// Its queues.
    pub queues: u32,
    /// Keys of the hash that picks the queue.
    pub seed: HashSeed,
}

/// The settings as the programs read them; without `underlay` nothing on the underlay is ours.
pub fn encode(fixed: &Fixed, underlay: Option<&Underlay>) -> [u32; WORDS] {
    let mut words = Words { words: [0; WORDS], at: 0 };
    words.number(fixed.device);
    words.number(underlay.map_or(0, |u| u.ifindex));
    words.number(fixed.queues);
    // The port stands in network order in the low half of the word.
    words.number(underlay.map_or(0, |u| u32::from(u.vxlan_port.to_be())));
    words.long(fixed.seed.0);
    words.long(fixed.seed.1);
    let Some(underlay) = underlay else { return words.words };
    words.v4(underlay.vtep_v4.unwrap_or(Ipv4Addr::UNSPECIFIED));
    words.v6(underlay.vtep_v6.unwrap_or(Ipv6Addr::UNSPECIFIED));
    words.number(underlay.pod_subnets_v4.len().min(MAX_SUBNETS) as u32);
    words.number(underlay.pod_subnets_v6.len().min(MAX_SUBNETS) as u32);
    words.number(underlay.plain_to_gateways.into());
    let nothing = (Ipv4Addr::UNSPECIFIED, 0);
    for i in 0..MAX_SUBNETS {
        let (address, length) = *underlay.pod_subnets_v4.get(i).unwrap_or(&nothing);
        let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
        words.v4(Ipv4Addr::from_bits(address.to_bits() & mask));
        words.v4(Ipv4Addr::from_bits(mask));
    }
    let nothing = (Ipv6Addr::UNSPECIFIED, 0);
    for i in 0..MAX_SUBNETS {
        let (address, length) = *underlay.pod_subnets_v6.get(i).unwrap_or(&nothing);
        let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
        words.v6(Ipv6Addr::from_bits(address.to_bits() & mask));
        words.v6(Ipv6Addr::from_bits(mask));
    }
    words.words
}

/// A cursor over the structure.
struct Words {
    words: [u32; WORDS],
    at: usize,
}

impl Words {
    fn number(&mut self, value: u32) {
        self.words[self.at] = value;
        self.at += 1;
    }

    /// A number of 64 bits in the machine's own order.
    fn long(&mut self, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
        self.number(u32::from_ne_bytes([a, b, c, d]));
        self.number(u32::from_ne_bytes([e, f, g, h]));
    }

    /// Network order, as in the packet.
    fn v4(&mut self, address: Ipv4Addr) {
        self.number(u32::from_ne_bytes(address.octets()));
    }

    fn v6(&mut self, address: Ipv6Addr) {
        for word in address.octets().chunks_exact(4) {
            self.number(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_structure_is_written_and_masks_are_applied() {
        let fixed = Fixed { device: 7, queues: 2, seed: HashSeed(1, 2) };
        let subnet_v6 = ("fd00:1:2:3::1".parse().unwrap(), 64);
        let underlay = Underlay {
            ifindex: 3,
            vtep_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            vtep_v6: Some("2001:db8::1".parse().unwrap()),
            vxlan_port: 8472,
            pod_subnets_v4: vec![(Ipv4Addr::new(10, 244, 3, 1), 24), (Ipv4Addr::UNSPECIFIED, 0)],
            pod_subnets_v6: vec![subnet_v6; MAX_SUBNETS],
            plain_to_gateways: true,
        };
        let words = encode(&fixed, Some(&underlay));
        assert_eq!(words[..3], [7, 3, 2]);
        assert_eq!(words[3].to_ne_bytes()[..2], 8472u16.to_be_bytes());
        assert_eq!(words[8].to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(words[13..16], [2, 4, 1]);
        assert_eq!(words[16].to_ne_bytes(), [10, 244, 3, 0]);
        assert_eq!(words[17].to_ne_bytes(), [255, 255, 255, 0]);
        assert_eq!(words[18..24], [0; 6]);
        assert_eq!(words[WORDS - 8].to_ne_bytes(), [0xfd, 0, 0, 1]);
        assert_eq!(words[WORDS - 4..], [u32::MAX, u32::MAX, 0, 0]);
        assert_eq!(encode(&fixed, None)[8..], [0; WORDS - 8]);
    }
}
