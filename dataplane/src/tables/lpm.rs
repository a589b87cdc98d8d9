//! Longest-prefix match over both families.
//!
//! One hash table for each prefix length in use, probed from long to short: real overlays have three or four lengths,
//! so a look-up costs as many probes, and it is asked once per flow, not per packet.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnetwork::IpNetwork;

/// Map from prefixes to small values.
#[derive(Clone, Debug, Default)]
pub struct Lpm<V> {
    v4: Vec<Level<V>>,
    v6: Vec<Level<V>>,
}

#[derive(Clone, Debug)]
struct Level<V> {
    mask: u128,
    length: u8,
    values: HashMap<u128, V, FixedState>,
}

/// The `length` leading ones of an address of `bits` bits.
fn mask(length: u8, bits: u32) -> u128 {
    let ones = if length == 0 { 0 } else { u128::MAX << (bits - u32::from(length)) };
    if bits == 128 { ones } else { ones & ((1 << bits) - 1) }
}

/// An address as a number, and its width.
fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(a) => (u128::from(a.to_bits()), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    }
}

impl<V: Copy> Lpm<V> {
    /// Sets the value of a prefix (host bits are masked off), replacing an earlier one.
    pub fn insert(&mut self, prefix: IpNetwork, value: V) {
        let (address, bits) = number(prefix.ip());
        let levels = if bits == 32 { &mut self.v4 } else { &mut self.v6 };
        let length = prefix.prefix();
        let at = match levels.binary_search_by(|level| length.cmp(&level.length)) {
            Ok(at) => at,
            Err(at) => {
                levels.insert(at, Level { mask: mask(length, bits), length, values: HashMap::default() });
                at
            }
        };
        let level = &mut levels[at];
        level.values.insert(address & level.mask, value);
    }

    /// The value of the longest prefix that contains an IPv4 address.
    #[inline]
    pub fn lookup_v4(&self, address: u32) -> Option<V> {
        Self::search(&self.v4, u128::from(address))
    }

    /// The value of the longest prefix that contains an IPv6 address.
    #[inline]
    pub fn lookup_v6(&self, address: u128) -> Option<V> {
        Self::search(&self.v6, address)
    }

    /// The value of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<V> {
        match address {
            IpAddr::V4(a) => self.lookup_v4(a.to_bits()),
            IpAddr::V6(a) => self.lookup_v6(a.to_bits()),
        }
    }

    fn search(levels: &[Level<V>], address: u128) -> Option<V> {
        levels.iter().find_map(|level| level.values.get(&(address & level.mask)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_prefix() -> impl Strategy<Value = IpNetwork> {
        prop_oneof![
            // Few distinct high bits, so that prefixes nest.
            (0u32..4, 0u32..4, 0u8..=32).prop_map(|(a, b, len)| {
                IpNetwork::new(IpAddr::from((a << 30 | b).to_be_bytes()), len).unwrap()
            }),
            (0u128..4, 0u128..4, 0u8..=128).prop_map(|(a, b, len)| {
                IpNetwork::new(IpAddr::from((a << 126 | b).to_be_bytes()), len).unwrap()
            }),
        ]
    }

    proptest! {
        #[test]
        fn equals_a_linear_search(
            prefixes in prop::collection::vec(any_prefix(), 0..40),
            probes in prop::collection::vec(any_prefix(), 1..40),
        ) {
            let mut lpm = Lpm::default();
            for (value, prefix) in prefixes.iter().enumerate() { lpm.insert(*prefix, value); }
            for probe in probes {
                let oracle = prefixes.iter().enumerate()
                    .filter(|(_, p)| p.contains(probe.ip()))
                    .max_by_key(|(i, p)| (p.prefix(), *i))
                    .map(|(i, _)| i);
                prop_assert_eq!(lpm.lookup(probe.ip()), oracle);
            }
        }
    }
}
